//! One address of a pool: who it is, how it is, what it carries.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use strum::{EnumIter, FromRepr, IntoStaticStr};
use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    config::{Config, PeerAddress, PeerConfig},
    idle::Idle,
    series::Series,
    target::{Place, Target, TargetError},
};
use crate::telemetry::Metrics;

/// The name of a peer, unique in its pool: `id`, or `id#address` for an address that a name resolved to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(Arc<str>);

/// How a peer is seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, FromRepr, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
#[repr(u8)]
pub enum PeerState {
    /// In service; also every peer of a pool without health checks.
    Up,
    /// Taken out by its health or by the operator.
    Down,
    /// Gets nothing new: it said so, its weight is 0, or the operator said so.
    Draining,
    /// Not probed yet; in service.
    Unknown,
}

/// What the operator wants of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRepr, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
#[repr(u8)]
pub enum Admin {
    /// Health decides.
    Ready,
    /// Nothing new.
    Drain,
    /// Out of service.
    Down,
}

/// How a peer stands for the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// In service.
    Open,
    /// It says that it is leaving.
    Leaving,
    /// Taken out by its health.
    Failed,
    /// Taken out by the operator or by weight 0: no panic brings it back.
    Closed,
}

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    Good,
    /// 503 with `{"state":"draining"}`.
    Draining,
    /// Why, in words.
    Bad(String),
}

/// How many probes in a row agreed.
#[derive(Debug, Default)]
struct Streak {
    good: u32,
    bad: u32,
}

/// One address of a pool.
pub struct Peer {
    id: PeerId,
    pool: String,
    address: String,
    weight: u32,
    backup: bool,
    seed: u64,
    target: Target,
    /// The last word of the probes, a `PeerState`.
    probed: AtomicU8,
    /// An `Admin`.
    admin: AtomicU8,
    active: AtomicUsize,
    /// Where the peer is in the smooth weighted rotation; written under the pool's turn.
    pub(super) rotation: AtomicI64,
    /// Held while a state changes, so that gauges and states agree.
    streak: Mutex<Streak>,
    first_probe_done: AtomicBool,
    /// Whether a task probes it.
    watched: AtomicBool,
    retired: AtomicBool,
    suspicion: Notify,
    changes: Arc<watch::Sender<u64>>,
    series: Series,
    idle: Idle,
}

impl PeerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for PeerId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<str> for PeerId {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for PeerId {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl Peer {
    /// `written` is the address as the configuration has it, without a default port.
    pub(super) fn new(
        pool: &Config,
        config: &PeerConfig,
        id: String,
        place: &Place,
        metrics: &Metrics,
        changes: &Arc<watch::Sender<u64>>,
    ) -> Result<Self, TargetError> {
        let (address, host) = written(pool, config);
        let target = Target::new(pool, &id, place, host.as_deref())?;
        let probed = if pool.health.is_some() { PeerState::Unknown } else { PeerState::Up };
        let peer = Self {
            seed: xxh3_64(id.as_bytes()),
            series: Series::new(metrics, &pool.name, &id),
            id: PeerId(id.into()),
            pool: pool.name.clone(),
            address,
            weight: config.weight,
            backup: config.backup,
            target,
            probed: AtomicU8::new(probed as u8),
            admin: AtomicU8::new(Admin::Ready as u8),
            active: AtomicUsize::new(0),
            rotation: AtomicI64::new(0),
            streak: Mutex::default(),
            first_probe_done: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            suspicion: Notify::new(),
            changes: changes.clone(),
            idle: Idle::default(),
        };
        peer.series.show(peer.state());
        Ok(peer)
    }

    pub fn id(&self) -> &PeerId {
        &self.id
    }

    /// What `host: peer` puts into `Host`: the address as written, without a default port; `localhost` for a unix socket.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn weight(&self) -> u32 {
        self.weight
    }

    pub fn backup(&self) -> bool {
        self.backup
    }

    /// Requests and sockets on this peer now.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    pub fn admin_state(&self) -> Admin {
        Admin::from_repr(self.admin.load(Ordering::Acquire)).unwrap_or(Admin::Ready)
    }

    /// What operator, weight and probes make of it together.
    pub fn state(&self) -> PeerState {
        match (self.admin_state(), self.probed()) {
            (Admin::Down, _) | (_, PeerState::Down) => PeerState::Down,
            (Admin::Drain, _) | (_, PeerState::Draining) => PeerState::Draining,
            _ if self.weight == 0 => PeerState::Draining,
            (Admin::Ready, probed) => probed,
        }
    }

    /// The operator's word; it holds until the next one or a restart.
    pub fn set_admin_state(&self, admin: Admin) {
        self.change(|_| self.admin.store(admin as u8, Ordering::Release), "set by the operator");
    }

    /// A connect to this peer failed during traffic: probe it now. Nothing where there are no probes.
    pub fn suspect(&self) {
        if self.probed() != PeerState::Down {
            self.suspicion.notify_one();
        }
    }

    /// An answer with this status came.
    pub fn count_status(&self, status: u16) {
        self.series.count_status(status);
    }

    /// A try failed. [`super::Connector`] does not count; who tries does.
    pub fn count_failure(&self, reason: &'static str) {
        self.series.count_failure(reason);
    }

    /// Time to a new connection; [`super::Connector::connect`] reports it.
    pub(super) fn observe_connect(&self, took: Duration) {
        self.series.observe_connect(took);
    }

    /// From the request to the response head.
    pub fn observe_first_byte(&self, took: Duration) {
        self.series.observe_first_byte(took);
    }

    /// From the request to the last byte of the response.
    pub fn observe_duration(&self, took: Duration) {
        self.series.observe_duration(took);
    }

    /// Connections that wait for the next exchange.
    pub(super) fn idle(&self) -> &Idle {
        &self.idle
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// What rendezvous mixes with the room.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn standing(&self) -> Standing {
        if self.weight == 0 || self.admin_state() != Admin::Ready {
            return Standing::Closed;
        }
        match self.probed() {
            PeerState::Up | PeerState::Unknown => Standing::Open,
            PeerState::Draining => Standing::Leaving,
            PeerState::Down => Standing::Failed,
        }
    }

    /// Marks the peer as probed by a task; whether it was already.
    pub(super) fn watch(&self) -> bool {
        self.watched.swap(true, Ordering::AcqRel)
    }

    pub(super) fn first_probe_done(&self) -> bool {
        self.first_probe_done.load(Ordering::Acquire)
    }

    /// Resolves when a connect failed since the last call.
    pub(super) async fn suspected(&self) {
        self.suspicion.notified().await;
    }

    /// Counts a probe. `decisive`: a bad one needs no second.
    pub(super) fn record(&self, finding: &Finding, rise: u32, fall: u32, decisive: bool) {
        let why = match finding {
            Finding::Good => "probes are good",
            Finding::Draining => "it says that it is draining",
            Finding::Bad(why) => why,
        };
        self.change(
            |streak| {
                let first = !self.first_probe_done.load(Ordering::Acquire);
                let before = self.probed();
                let after = match finding {
                    Finding::Good => {
                        *streak = Streak { good: streak.good.saturating_add(1), bad: 0 };
                        if first || streak.good >= rise { PeerState::Up } else { before }
                    }
                    Finding::Draining => {
                        *streak = Streak::default();
                        PeerState::Draining
                    }
                    Finding::Bad(_) => {
                        *streak = Streak { good: 0, bad: streak.bad.saturating_add(1) };
                        if first || decisive || streak.bad >= fall { PeerState::Down } else { before }
                    }
                };
                self.probed.store(after as u8, Ordering::Release);
                self.first_probe_done.store(true, Ordering::Release);
            },
            why,
        );
    }

    /// The peer is no longer in the pool: its probes end and its series vanish.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.suspicion.notify_one();
        self.series.vanish();
    }

    pub(super) fn retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.series.active.inc();
    }

    pub(super) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.series.active.dec();
    }

    fn probed(&self) -> PeerState {
        PeerState::from_repr(self.probed.load(Ordering::Acquire)).unwrap_or(PeerState::Unknown)
    }

    /// Runs `step` and tells gauges, diagnostics and watchers what became of it.
    fn change(&self, step: impl FnOnce(&mut Streak), why: &str) {
        let mut streak = self.streak.lock();
        let (before, first) = (self.state(), !self.first_probe_done());
        step(&mut streak);
        let after = self.state();
        if before != after {
            self.series.show(after);
            let (from, to): (&str, &str) = (before.into(), after.into());
            match after {
                PeerState::Down => tracing::warn!(upstream = self.pool, peer = %self.id, from, to, why, "peer changed"),
                _ => tracing::info!(upstream = self.pool, peer = %self.id, from, to, why, "peer changed"),
            }
        }
        if before != after || first == self.first_probe_done() {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id)
            .field("state", &self.state())
            .field("active", &self.active())
            .finish_non_exhaustive()
    }
}

/// `Host` for `host: peer`, and the host part that TLS takes for its name.
fn written(pool: &Config, config: &PeerConfig) -> (String, Option<String>) {
    let default_port = if pool.tls.is_some() { 443 } else { 80 };
    let with_port = |host: String, port: u16| if port == default_port { host } else { format!("{host}:{port}") };
    match &config.address {
        PeerAddress::Ip(address) => {
            let host = if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() };
            (with_port(host, address.port()), Some(address.ip().to_string()))
        }
        PeerAddress::Name(name, port) => (with_port(name.clone(), *port), Some(name.clone())),
        PeerAddress::Unix(_) => ("localhost".to_owned(), None),
    }
}
