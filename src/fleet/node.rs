//! This node's part in the fleet: joining it, staying in it, leaving it, and what of it requests ask.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::{
    Config, History, Members, Order, Record, WhenCutOff, beat::Beaten, cursor::Place, lease::Lease, member,
    pending::Pending, script::Keys,
};
use crate::redis::{Purpose, Redis};
use crate::telemetry::Metrics;

/// How long leaving may take: without it the node is lost until its return.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// After a failure, before the next try.
pub(super) const RETRY: Duration = Duration::from_millis(50);

/// Whoever applies what the log brings.
pub trait Sink: Send + Sync {
    /// Applies an order that was issued at `at`. When it returns no new read of this node is answered with what it touches.
    fn apply(&self, order: &Order, at: SystemTime);
    /// Orders may have been missed: what was stored until now counts as purged.
    fn forget_all(&self);
    /// This node's place in the log, behind everything that was applied: a later process that has kept what is stored goes on from
    /// there.
    fn reached(&self, place: &str);
    /// Returns when what was applied until now holds for later processes of this node too.
    fn made_durable(&self) -> BoxFuture<'_, ()>;
}

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeCard {
    pub id: String,
    pub region: Option<String>,
    /// The hash of its configuration.
    pub config: String,
    pub when_cut_off: WhenCutOff,
}

impl NodeCard {
    /// Of a node whose own words are not understood.
    pub(super) fn unknown() -> Self {
        Self { id: String::new(), region: None, config: String::new(), when_cut_off: WhenCutOff::Serve }
    }
}

impl Default for NodeCard {
    fn default() -> Self {
        Self::unknown()
    }
}

/// What came of joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// There is no other node to be.
    Alone,
    Member,
    /// Redis cannot be asked now; the node goes on trying.
    Unreachable,
    /// A live node has this id.
    Held,
}

/// What came of issuing an order. Wherever it has come, it acts on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issued {
    Alone,
    /// It has a place in the log.
    Published {
        epoch: String,
        n: u64,
    },
    /// The log cannot be reached; it is published later.
    Unreachable,
}

/// How far an order has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub live: usize,
    pub acknowledged: usize,
    /// Nodes whose lease lapsed unannounced.
    pub lost: Vec<String>,
    /// No node that serves has anything older.
    pub complete: bool,
}

/// How a node stands to its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has not read the log to its end yet.
    Joining,
    Member,
    CutOff,
}

/// A node of a fleet, or one that is its own.
pub struct Fleet {
    pub(super) card: NodeCard,
    pub(super) config: Config,
    pub(super) incarnation: String,
    pub(super) link: Option<Link>,
    /// Changes with every entry that is applied. The lock is held while an entry is.
    pub(super) place: Mutex<Place>,
    pub(super) applied: watch::Sender<()>,
    pub(super) standing: watch::Sender<Standing>,
    /// Has the log been read to its end once?
    pub(super) joined: AtomicBool,
    pub(super) lease: Lease,
    pub(super) pending: Pending,
    pub(super) beat_now: Notify,
    pub(super) members: Mutex<Members>,
    pub(super) history: History,
    pub(super) metrics: Metrics,
}

pub(super) struct Link {
    pub(super) commands: Redis,
    pub(super) log: Redis,
    pub(super) keys: Keys,
}

impl Fleet {
    /// Connects to nothing yet. `started` is now; `reached` is what an earlier process of this node told its [`Sink`] last, if what it stored is still there.
    pub fn new(config: Config, mut card: NodeCard, reached: Option<&str>, metrics: &Metrics, started: Instant) -> Self {
        card.when_cut_off = config.when_cut_off;
        let link = config.redis.as_ref().map(|redis| Link {
            commands: Redis::new(redis, "fleet", Purpose::Commands, metrics),
            log: Redis::new(redis, "fleet_log", Purpose::Blocking, metrics),
            keys: Keys::new(&redis.prefix),
        });
        let standing = if link.is_some() { Standing::Joining } else { Standing::Member };
        metrics.fleet_connected.set(i64::from(link.is_none()));
        metrics.fleet_nodes.set(1);
        Self {
            incarnation: member::incarnation(&chance()),
            card,
            config,
            link,
            // Without a place, or with one that cannot be read, everything counts as purged.
            place: Mutex::new(reached.and_then(|place| serde_json::from_str(place).ok()).unwrap_or_default()),
            applied: watch::Sender::new(()),
            standing: watch::Sender::new(standing),
            joined: AtomicBool::new(false),
            lease: Lease::new(started),
            pending: Pending::default(),
            beat_now: Notify::new(),
            members: Mutex::default(),
            history: History::default(),
            metrics: metrics.clone(),
        }
    }

    pub fn card(&self) -> &NodeCard {
        &self.card
    }

    /// Is there anybody else to be told?
    pub fn is_alone(&self) -> bool {
        self.link.is_none()
    }

    /// The purges that this node has applied.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How this node stands, now and whenever that changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Does this node hear of every purge? Its lease holds, or there is nobody to hear of.
    pub fn is_connected(&self) -> bool {
        self.link.is_none() || self.lease.holds(Instant::now())
    }

    /// May what is stored be used without asking the origin? Not before the log was read, and, as `when_cut_off` says, not while
    /// purges may be unheard of. Nor is a fetch then joined that began before the request.
    pub fn is_trusted(&self) -> bool {
        if self.link.is_none() {
            return true;
        }
        self.joined.load(Ordering::Acquire) && (self.config.when_cut_off == WhenCutOff::Serve || self.is_connected())
    }

    /// Must this node answer nothing, since it is cut off and `when_cut_off: stop`?
    pub fn is_stopped(&self) -> bool {
        self.config.when_cut_off == WhenCutOff::Stop && !self.is_connected()
    }

    /// The last entry applied; 0 before any.
    pub fn position(&self) -> u64 {
        self.place().n
    }

    pub(super) fn place(&self) -> MutexGuard<'_, Place> {
        // A sink that panics has applied less than the place says it has not: the entry comes again.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known_members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the fleet, waiting out an earlier process of the same name that left no word.
    ///
    /// A process that ended on this machine is known to be gone. Of another, nothing shows but that it beats no more.
    pub async fn join(&self, sink: &dyn Sink) -> Joined {
        let Some(link) = &self.link else { return Joined::Alone };
        let mut takes_over = String::new();
        loop {
            match self.beat(link, sink, &takes_over).await {
                Ok(Beaten::GoesOn { .. } | Beaten::Anew) => return Joined::Member,
                Err(error) => {
                    tracing::warn!(%error, "the fleet cannot be reached; nothing stored is used unasked until it can");
                    return Joined::Unreachable;
                }
                Ok(Beaten::Held(held)) => {
                    let theirs = held.split(' ').next().unwrap_or_default();
                    if member::is_gone(theirs) || takes_over == held {
                        takes_over = held;
                        continue;
                    }
                    if !takes_over.is_empty() {
                        return Joined::Held;
                    }
                    // Whoever lives beats twice in this time.
                    takes_over = held;
                    tokio::time::sleep(self.beat_every() * 2).await;
                }
            }
        }
    }

    /// Stays in the fleet until `stopping`.
    pub async fn run(self: Arc<Self>, sink: Arc<dyn Sink>, mut stopping: watch::Receiver<bool>) {
        let Some(link) = &self.link else { return };
        let stay = async {
            tokio::join!(
                self.keep_beating(link, &*sink),
                self.keep_reading(link, &*sink),
                self.keep_publishing(link, &*sink)
            );
        };
        tokio::select! {
            () = stay => {}
            _ = stopping.wait_for(|told| *told) => {}
        }
    }

    /// Tells what is still to be told and says goodbye: nobody waits for this node any more.
    pub async fn leave(&self) {
        let Some(link) = &self.link else { return };
        self.publish_the_last(link).await;
        let command = link.keys.leave(&self.card.id, &self.incarnation);
        if let Err(error) = link.commands.query_within::<i64>(&command, LEAVE_TIMEOUT).await {
            tracing::warn!(%error, "the fleet was not told that this node leaves; it counts as lost until it is back");
        }
    }

    pub(super) fn note(&self, id: &str, node: &str, at: SystemTime, order: &Order, position: Option<u64>) {
        // What clients change by themselves would leave no room for what people order.
        if !order.is_empty() && !order.by_client {
            let (id, node, order) = (id.to_owned(), node.to_owned(), order.clone());
            self.history.note(Record { id, node, at, order, position, counted: None });
        }
    }
}

/// A word that nobody else has.
pub(super) fn chance() -> String {
    let half = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", half(), half())
}
