//! This node's part in the fleet: it reads the log, beats, publishes, and knows how far the others are.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::{
    Config, History, Members, Order, Record, WhenCutOff,
    cursor::{Entry, Next, Place, Raw},
    lease::Lease,
    member,
    pending::{Pending, Waiting},
    script::{Beat, Keys, Publication},
};
use crate::{
    redis::{self, Purpose, Redis},
    telemetry::Metrics,
};

/// Beats in a lease: one may be lost, and another late, before the lease lapses.
const BEATS_PER_LEASE: u32 = 5;
/// The longest between two beats, so that a lag of seconds shows in the metric whatever the lease.
const BEAT_LONGEST: Duration = Duration::from_secs(2);
/// How long one read waits for something to come; also how long a reader holds on to a place that a beat has moved.
const READ_WAIT: Duration = Duration::from_secs(1);
/// What a read gets beyond its wait.
const READ_GRACE: Duration = Duration::from_secs(2);
/// After a failure, before the next try.
const RETRY: Duration = Duration::from_millis(50);
/// How long the issuer of a published purge waits for the reader to bring what lies before it.
const OWN_WAIT: Duration = Duration::from_secs(2);
/// Between two looks at who has acknowledged, at first and at most.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_LONGEST: Duration = Duration::from_millis(50);
/// How long leaving may take: without it the node is lost until its return.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Whoever applies what the log brings.
pub trait Sink: Send + Sync {
    /// Applies an order that was issued at `at`. When it returns no new read of this node is answered with what it touches.
    fn apply(&self, order: &Order, at: SystemTime);
    /// Orders may have been missed: what was stored until now counts as purged.
    fn forget_all(&self);
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
    Published { epoch: String, n: u64 },
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
    card: NodeCard,
    config: Config,
    incarnation: String,
    link: Option<Link>,
    /// Changes with every entry that is applied. The lock is held while an entry is.
    place: Mutex<Place>,
    applied: watch::Sender<()>,
    standing: watch::Sender<Standing>,
    lease: Lease,
    pending: Pending,
    beat_now: Notify,
    members: Mutex<Members>,
    history: History,
    metrics: Metrics,
}

struct Link {
    commands: Redis,
    log: Redis,
    keys: Keys,
}

/// What a beat was answered.
enum Beaten {
    /// The name is another's.
    Held(String),
    /// The log goes on from where this node is, and ends here.
    GoesOn { last: u64 },
    /// It does not; this node has forgotten everything and begins at its end.
    Anew,
}

impl Fleet {
    /// Connects to nothing yet. `started` is now.
    pub fn new(config: Config, mut card: NodeCard, metrics: &Metrics, started: Instant) -> Self {
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
            place: Mutex::default(),
            applied: watch::Sender::new(()),
            standing: watch::Sender::new(standing),
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

    /// May what is stored be used without asking the origin? Not before the log was read, and, as `when_cut_off` says, not while
    /// purges may be unheard of.
    pub fn is_trusted(&self) -> bool {
        if self.link.is_none() {
            return true;
        }
        if *self.standing.borrow() == Standing::Joining {
            return false;
        }
        self.config.when_cut_off == WhenCutOff::Serve || self.lease.holds(Instant::now())
    }

    /// Must this node answer nothing, since it is cut off and `when_cut_off: stop`?
    pub fn is_stopped(&self) -> bool {
        self.link.is_some() && self.config.when_cut_off == WhenCutOff::Stop && !self.lease.holds(Instant::now())
    }

    /// The last entry applied; 0 before any.
    pub fn position(&self) -> u64 {
        self.place().n
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // A sink that panics has applied less than the place says it has not: the entry comes again.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat_every(&self) -> Duration {
        (self.config.lease / BEATS_PER_LEASE).min(BEAT_LONGEST)
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
            tokio::join!(self.keep_beating(link, &*sink), self.keep_reading(link, &*sink), self.keep_publishing(link, &*sink));
        };
        tokio::select! {
            () = stay => {}
            _ = stopping.wait_for(|told| *told) => {}
        }
    }

    /// Says goodbye: nobody waits for this node any more.
    pub async fn leave(&self) {
        let Some(link) = &self.link else { return };
        let command = link.keys.leave(&self.card.id, &self.incarnation);
        if let Err(error) = link.commands.query_within::<i64>(&command, LEAVE_TIMEOUT).await {
            tracing::warn!(%error, "the fleet was not told that this node leaves; it counts as lost until it is back");
        }
    }

    async fn keep_beating(&self, link: &Link, sink: &dyn Sink) {
        let mut caught_up = Instant::now();
        // After a cut, where the log ended when it was heard of again.
        let mut behind: Option<u64> = None;
        loop {
            let sent = Instant::now();
            let beaten = self.beat(link, sink, "").await;
            let was_cut_off = !self.lease.holds(Instant::now());
            let mut again = false;
            match beaten {
                Ok(Beaten::GoesOn { last }) => {
                    let position = self.position();
                    if was_cut_off {
                        behind.get_or_insert(last);
                    }
                    if behind.is_none_or(|target| position >= target) {
                        behind = None;
                        self.lease.renew(sent, self.config.lease);
                        self.set_standing(Standing::Member);
                    }
                    if position >= last {
                        caught_up = sent;
                    }
                    self.look(link).await;
                }
                Ok(Beaten::Anew) => {
                    (behind, again) = (None, true);
                }
                Ok(Beaten::Held(_)) => {
                    tracing::error!(node = self.card.id, "another live node has this id; give each its own node.id");
                }
                Err(error) => tracing::debug!(%error, "no beat"),
            }
            let connected = self.lease.holds(Instant::now());
            if !connected && *self.standing.borrow() == Standing::Member {
                tracing::warn!("cut off from the fleet");
                self.set_standing(Standing::CutOff);
            }
            let lag = caught_up.elapsed();
            let usual = self.beat_every() * 2;
            self.metrics.purge_lag.set(if connected && lag < usual { 0.0 } else { lag.as_secs_f64() });
            self.metrics.fleet_connected.set(i64::from(connected));
            if !again {
                tokio::select! {
                    () = tokio::time::sleep(self.beat_every()) => {}
                    () = self.beat_now.notified() => {}
                }
            }
        }
    }

    fn set_standing(&self, standing: Standing) {
        self.standing.send_if_modified(|present| std::mem::replace(present, standing) != standing);
    }

    /// Says how far this node is, and learns how far the log is.
    async fn beat(&self, link: &Link, sink: &dyn Sink, takes_over: &str) -> Result<Beaten, redis::Error> {
        let place = self.place().clone();
        // A card of texts and a word always serialises.
        let card = serde_json::to_string(&self.card).unwrap_or_default();
        let fresh = chance();
        let command = link.keys.beat(&Beat {
            fresh: &fresh,
            node: &self.card.id,
            incarnation: &self.incarnation,
            lease: self.config.lease,
            card: &card,
            epoch: &place.epoch,
            n: place.n,
            id: &place.id,
            takes_over,
        });
        let reply: Vec<String> = link.commands.query(&command).await?;
        Ok(match <[String; 4]>::try_from(reply) {
            Ok([_, n, _, goes_on]) if goes_on == "1" => Beaten::GoesOn { last: n.parse().unwrap_or_default() },
            Ok([epoch, n, id, _]) => {
                let mut present = self.place();
                if *present == place {
                    if !place.epoch.is_empty() {
                        tracing::warn!(n, "the purge log does not go on from here; everything stored counts as purged");
                    }
                    sink.forget_all();
                    *present = Place { epoch, n: n.parse().unwrap_or_default(), id };
                    drop(present);
                    self.applied.send_replace(());
                }
                Beaten::Anew
            }
            Err(mut held) => Beaten::Held(held.pop().unwrap_or_default()),
        })
    }

    /// Looks who else is there.
    async fn look(&self, link: &Link) -> Option<Members> {
        let reply = link.commands.query(&link.keys.members(self.config.history)).await.ok()?;
        let mut members = Members::parse(reply);
        let mut known = self.known_members();
        members.remember(&known);
        known.clone_from(&members);
        self.metrics.fleet_nodes.set(i64::try_from(members.live().count()).unwrap_or(i64::MAX));
        Some(members)
    }

    async fn keep_reading(&self, link: &Link, sink: &dyn Sink) {
        let mut applied = self.applied.subscribe();
        loop {
            let place = self.place().clone();
            if place.epoch.is_empty() {
                // The first beat gives a place.
                let _ = applied.changed().await;
                continue;
            }
            let command = link.keys.read(place.n, READ_WAIT);
            let read: Result<Option<Vec<(String, Vec<Raw>)>>, _> =
                link.log.query_within(&command, READ_WAIT + READ_GRACE).await;
            let entries = match read {
                Ok(streams) => streams.unwrap_or_default().into_iter().flat_map(|(_, entries)| entries),
                Err(error) => {
                    tracing::debug!(%error, "the purge log cannot be read");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let mut any = false;
            for entry in entries.filter_map(Entry::parse) {
                any = true;
                if self.take(&entry, sink) == Next::Gap {
                    // If the log has another past, the beat forgets everything; if an entry was taken out of it, nobody else will.
                    if !self.has_moved(link, sink, &place).await {
                        self.skip_gap(&entry, sink);
                    }
                    break;
                }
            }
            if any {
                self.beat_now.notify_one();
            }
        }
    }

    /// Beats, and says whether this node's place is another one afterwards.
    async fn has_moved(&self, link: &Link, sink: &dyn Sink, place: &Place) -> bool {
        while self.beat(link, sink, "").await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
        self.place().epoch != place.epoch || self.place().n != place.n
    }

    /// Something before `entry` is missing for good: whatever it was, it has been applied when everything is forgotten.
    fn skip_gap(&self, entry: &Entry, sink: &dyn Sink) {
        tracing::warn!(n = entry.n, "entries are missing from the purge log; everything stored counts as purged");
        let mut place = self.place();
        if entry.n > place.n {
            sink.forget_all();
            place.advance(entry);
        }
        drop(place);
        self.applied.send_replace(());
    }

    /// Applies an entry if it is the next one.
    fn take(&self, entry: &Entry, sink: &dyn Sink) -> Next {
        let mut place = self.place();
        let next = place.next(entry);
        if next == Next::Follows {
            if !entry.order.is_empty() {
                sink.apply(&entry.order, entry.at);
            }
            place.advance(entry);
            drop(place);
            self.note(&entry.id, &entry.node, entry.at, &entry.order, Some(entry.n));
            self.applied.send_replace(());
        }
        next
    }

    fn note(&self, id: &str, node: &str, at: SystemTime, order: &Order, position: Option<u64>) {
        // What clients change by themselves would leave no room for what people order.
        if !order.is_empty() && !order.by_client {
            let (id, node, order) = (id.to_owned(), node.to_owned(), order.clone());
            self.history.note(Record { id, node, at, order, position, counted: None });
        }
    }

    /// A name for a purge.
    pub fn next_id(&self) -> String {
        chance()
    }

    /// Issues an order: when this returns it acts here, under its place in the log if that can be reached.
    pub async fn issue(&self, id: &str, order: &Order, at: SystemTime, sink: &dyn Sink) -> Issued {
        let Some(link) = &self.link else {
            sink.apply(order, at);
            self.note(id, &self.card.id, at, order, None);
            return Issued::Alone;
        };
        match self.publish(link, id, order, at).await {
            Ok(published) => {
                let (epoch, n) = self.apply_own(id, order, at, published, sink).await;
                Issued::Published { epoch, n }
            }
            Err(error) => {
                tracing::warn!(%error, id, "a purge is not published yet; it acts on this node alone");
                sink.apply(order, at);
                self.note(id, &self.card.id, at, order, None);
                self.pending.push(Waiting { id: id.to_owned(), order: order.clone(), at });
                Issued::Unreachable
            }
        }
    }

    /// An order that acts here already is told to the others when that is possible.
    pub fn tell(&self, order: Order, at: SystemTime) {
        if self.link.is_some() {
            self.pending.push(Waiting { id: chance(), order, at });
        }
    }

    /// Epoch, number and the id before it.
    async fn publish(&self, link: &Link, id: &str, order: &Order, at: SystemTime) -> Result<[String; 3], redis::Error> {
        // Texts and flags always serialise.
        let order = serde_json::to_string(order).unwrap_or_default();
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let fresh = chance();
        let command = link.keys.publish(&Publication {
            fresh: &fresh,
            id,
            node: &self.card.id,
            at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            order: &order,
            history: self.config.history,
        });
        let reply: Vec<String> = link.commands.query(&command).await?;
        Ok(<[String; 3]>::try_from(reply).unwrap_or_default())
    }

    /// Applies an own entry at once if it is the next, else when the reader has brought what lies before it.
    async fn apply_own(
        &self,
        id: &str,
        order: &Order,
        at: SystemTime,
        [epoch, n, prev]: [String; 3],
        sink: &dyn Sink,
    ) -> (String, u64) {
        let n = n.parse().unwrap_or_default();
        let entry = Entry { n, id: id.to_owned(), prev, node: self.card.id.clone(), at, order: order.clone() };
        let mut applied = self.applied.subscribe();
        let is_here = self.place().epoch == epoch && self.take(&entry, sink) != Next::Gap;
        self.beat_now.notify_one();
        if !is_here {
            let wait = applied.wait_for(|()| {
                let place = self.place();
                place.epoch == epoch && place.n >= n
            });
            if !matches!(tokio::time::timeout(OWN_WAIT, wait).await, Ok(Ok(_))) {
                // It comes again with its place.
                sink.apply(order, at);
                self.note(id, &self.card.id, at, order, Some(n));
            }
        }
        (epoch, n)
    }

    async fn keep_publishing(&self, link: &Link, sink: &dyn Sink) {
        loop {
            let waiting = self.pending.next().await;
            match self.publish(link, &waiting.id, &waiting.order, waiting.at).await {
                Ok(published) => {
                    self.apply_own(&waiting.id, &waiting.order, waiting.at, published, sink).await;
                }
                Err(_) => {
                    self.pending.put_back(waiting);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// How far entry `n` has come, as far as it is known without asking.
    pub fn acknowledged_here(&self) -> Acknowledged {
        let members = self.known_members();
        let lost = members.lost().map(|member| member.card.id.clone()).collect();
        Acknowledged { live: members.live().count().max(1), acknowledged: 1, lost, complete: true }
    }

    /// Waits until every live node has applied entry `n`, up to `timeout`.
    pub async fn acknowledged(&self, epoch: &str, n: u64, timeout: Duration) -> Acknowledged {
        let Some(link) = &self.link else { return self.acknowledged_here() };
        let deadline = Instant::now() + timeout;
        let mut pause = LOOK_FIRST;
        let mut seen = Acknowledged { complete: false, ..self.acknowledged_here() };
        loop {
            if let Some(members) = self.look(link).await {
                let (live, acknowledged) = (members.live().count(), members.acknowledged(epoch, n));
                // A log that has just begun may not know everybody yet: who was a member has a lease's time to say so.
                let is_known = members.age >= self.config.lease;
                let complete = is_known && live > 0 && acknowledged == live && !members.someone_may_serve_older();
                let lost = members.lost().map(|member| member.card.id.clone()).collect();
                seen = Acknowledged { live, acknowledged, lost, complete };
                if is_known && live > 0 && acknowledged == live {
                    return seen;
                }
            }
            if Instant::now() + pause >= deadline {
                return seen;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_LONGEST);
        }
    }

    /// How far entry `n` of the log of now has come.
    pub async fn acknowledged_now(&self, n: u64) -> Acknowledged {
        let epoch = self.place().epoch.clone();
        self.acknowledged(&epoch, n, Duration::ZERO).await
    }

    /// The fleet as Redis knows it now; `None` where it cannot be asked.
    pub async fn members(&self) -> Option<Members> {
        match &self.link {
            Some(link) => self.look(link).await,
            None => None,
        }
    }
}

/// A word that nobody else has.
fn chance() -> String {
    let half = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", half(), half())
}
