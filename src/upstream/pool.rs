//! One pool: its peers, and the choice among them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::IntCounter;
use strum::IntoStaticStr;
use tokio::sync::watch;

use super::{
    balance,
    budget::Budget,
    config::{Balance, Config, PeerAddress, Retries},
    peer::{Peer, PeerId, Standing},
    target::Place,
};
use crate::telemetry::Metrics;

/// Peers of one pool, those of its names included. Every choice looks at each of them, and each has a task that probes
/// it; more than this is a job for a balancer behind the edge.
pub const PEERS_MAX: usize = 256;

/// An upstream.
pub struct Pool {
    config: Arc<Config>,
    metrics: Metrics,
    peers: ArcSwap<Vec<Arc<Peer>>>,
    /// Peers by their entry in the configuration; held while the list is made anew.
    entries: Mutex<Vec<Entry>>,
    turn: Mutex<()>,
    budget: Budget,
    retries: IntCounter,
    retries_refused: IntCounter,
    changes: Arc<watch::Sender<u64>>,
    first_round_done: AtomicBool,
}

/// What became of one entry of `peers`.
#[derive(Default)]
struct Entry {
    peers: Vec<Arc<Peer>>,
    /// Whether a name was looked up at least once, with or without success.
    looked_up: bool,
}

/// What a request wants of the choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// The room, where the route is sticky.
    pub sticky: Option<&'a str>,
    /// Peers that this request has tried in vain.
    pub tried: &'a [PeerId],
}

/// A peer chosen for a request, which counts as active there until this is dropped.
#[derive(Debug)]
pub struct Lease {
    peer: Arc<Peer>,
    source: Source,
}

/// What made the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Source {
    /// The room's rank.
    Hash,
    /// The pool's `balance`.
    Balance,
    /// No peer but backups is usable.
    Backup,
    /// Too few peers are usable to believe their health.
    Panic,
}

/// There is nobody to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, thiserror::Error)]
#[strum(serialize_all = "kebab-case")]
pub enum NoPeer {
    /// No name of the pool has resolved yet.
    #[error("no name of this upstream has resolved yet")]
    Unresolved,
    /// Health took all of them out, and `panic` is 0.
    #[error("every peer of this upstream is down")]
    Down,
    /// All are leaving, or taken out by the operator.
    #[error("every peer of this upstream is draining")]
    Draining,
}

/// Steps of the ladder, best first.
type Rank = u8;
const FIRST: Rank = 0;
const BACKUP: Rank = 1;
const LEAVING: Rank = 2;
const FAILED: Rank = 3;
const FAILED_BACKUP: Rank = 4;
/// Added for a peer that was tried.
const TRIED: Rank = 8;
const NEVER: Rank = Rank::MAX;

impl Pool {
    pub(super) fn new(config: Arc<Config>, metrics: &Metrics) -> Arc<Self> {
        let name = [config.name.as_str()];
        let pool = Self {
            retries: metrics.upstream_retries.with_label_values(&name),
            retries_refused: metrics.upstream_retries_refused.with_label_values(&name),
            metrics: metrics.clone(),
            peers: ArcSwap::default(),
            entries: Mutex::new(config.peers.iter().map(|_| Entry::default()).collect()),
            turn: Mutex::new(()),
            budget: Budget::new(Instant::now()),
            changes: Arc::new(watch::Sender::new(0)),
            first_round_done: AtomicBool::new(false),
            config,
        };
        for (index, peer) in pool.config.peers.iter().enumerate() {
            match &peer.address {
                PeerAddress::Ip(address) => pool.install(index, vec![Place::Ip(*address)]),
                PeerAddress::Unix(path) => pool.install(index, vec![Place::Unix(path.clone())]),
                PeerAddress::Name(..) => {}
            }
        }
        Arc::new(pool)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The peers now; names may change the list.
    pub fn peers(&self) -> Arc<Vec<Arc<Peer>>> {
        self.peers.load_full()
    }

    pub fn peer(&self, id: &str) -> Option<Arc<Peer>> {
        self.peers.load().iter().find(|peer| peer.id().as_str() == id).cloned()
    }

    /// Whether some peer is in service, a backup too.
    pub fn usable(&self) -> bool {
        self.peers.load().iter().any(|peer| peer.standing() == Standing::Open)
    }

    /// Counts up whenever the state of a peer or the list of peers changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Chooses a peer as the module describes, and counts the request as active on it.
    pub fn choose(&self, ask: &Ask<'_>) -> Result<Lease, NoPeer> {
        let peers = self.peers.load();
        // One look at every peer, so that a state that changes meanwhile cannot empty the step it was on.
        let ranks = &mut [NEVER; PEERS_MAX][..peers.len()];
        let panic = rank(&peers, ranks, ask, self.config.panic_percent);
        let best = ranks.iter().copied().min().unwrap_or(NEVER);
        if best == NEVER {
            return Err(nobody(&peers));
        }
        let step = peers.iter().zip(&*ranks).filter(|(_, rank)| **rank == best).map(|(peer, _)| peer);
        let peer = match (ask.sticky, self.config.balance) {
            (Some(room), _) => balance::rendezvous(step, room),
            (None, Balance::RoundRobin) => balance::round_robin(step, &self.turn),
            // Without a room there is nothing to hash.
            (None, Balance::LeastRequests | Balance::Rendezvous) => balance::least_requests(step, &self.turn),
        };
        let source = match best & !TRIED {
            FIRST if !panic && ask.sticky.is_some() => Source::Hash,
            FIRST if !panic => Source::Balance,
            BACKUP => Source::Backup,
            _ => Source::Panic,
        };
        // A step that somebody stands on yields somebody.
        peer.map(|peer| Lease::new(peer.clone(), source)).ok_or(NoPeer::Down)
    }

    /// A request begins (once, however often it is tried): the budget grows.
    pub fn note_request(&self, now: Instant) {
        self.budget.note_request(now);
    }

    /// Asks for one further try under `retries.budget_percent` and counts it, granted or refused.
    pub fn retry_allowed(&self, retries: &Retries, now: Instant) -> bool {
        let allowed = self.budget.take_retry(retries.budget_percent, now);
        if allowed {
            self.retries.inc()
        } else {
            self.retries_refused.inc()
        }
        allowed
    }

    /// Whether every peer was probed and every name looked up once; from then on it stays so.
    pub(super) fn first_round_done(&self) -> bool {
        if self.first_round_done.load(Ordering::Acquire) {
            return true;
        }
        let looked_up = self
            .entries
            .lock()
            .iter()
            .zip(&self.config.peers)
            .all(|(entry, peer)| entry.looked_up || !matches!(peer.address, PeerAddress::Name(..)));
        let probed = self.config.health.is_none() || self.peers.load().iter().all(|peer| peer.first_probe_done());
        let done = looked_up && probed;
        self.first_round_done.fetch_or(done, Ordering::AcqRel);
        done
    }

    /// A name was looked up in vain: what it last resolved to stays.
    pub(super) fn keep(&self, index: usize) {
        if let Some(entry) = self.entries.lock().get_mut(index) {
            entry.looked_up = true;
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Makes the entry `index` of `peers` stand for these places. Peers that were there before stay as they are.
    pub(super) fn install(&self, index: usize, places: Vec<Place>) {
        let Some(config) = self.config.peers.get(index) else { return };
        let mut entries = self.entries.lock();
        let elsewhere: usize =
            entries.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, entry)| entry.peers.len()).sum();
        let Some(entry) = entries.get_mut(index) else { return };
        let before = std::mem::take(&mut entry.peers);
        for place in places {
            if elsewhere + entry.peers.len() == PEERS_MAX {
                tracing::warn!(
                    upstream = self.config.name,
                    peer = config.id,
                    max = PEERS_MAX,
                    "too many peers; the rest is left out"
                );
                break;
            }
            let id = match (&config.address, &place) {
                (PeerAddress::Name(..), Place::Ip(address)) => format!("{}#{address}", config.id),
                _ => config.id.clone(),
            };
            let kept = before.iter().find(|peer| *peer.id() == *id).cloned();
            let peer = kept.map_or_else(
                || Peer::new(&self.config, config, id, &place, &self.metrics, &self.changes).map(Arc::new),
                Ok,
            );
            match peer {
                Ok(peer) => entry.peers.push(peer),
                Err(error) => tracing::error!(upstream = self.config.name, peer = config.id, %error, "peer left out"),
            }
        }
        entry.looked_up = true;
        for gone in before.iter().filter(|old| !entry.peers.iter().any(|peer| Arc::ptr_eq(peer, old))) {
            gone.retire();
        }
        let list = entries.iter().flat_map(|entry| entry.peers.iter().cloned()).collect();
        self.peers.store(Arc::new(list));
        drop(entries);
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Lease {
    fn new(peer: Arc<Peer>, source: Source) -> Self {
        peer.begin();
        Self { peer, source }
    }

    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    pub fn source(&self) -> Source {
        self.source
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.peer.end();
    }
}

impl Source {
    /// The `source` label of `sticky_decisions_total`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl NoPeer {
    /// The error type of RFC 9209 2.3.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unresolved => "dns_error",
            Self::Down | Self::Draining => "destination_unavailable",
        }
    }
}

/// Puts every peer on its step; whether peers that health took out stand on the first one.
fn rank(peers: &[Arc<Peer>], ranks: &mut [Rank], ask: &Ask<'_>, panic_percent: u8) -> bool {
    let mut standings = [Standing::Closed; PEERS_MAX];
    let (mut open, mut failed, mut open_backups) = (0usize, 0usize, 0usize);
    for (peer, standing) in peers.iter().zip(&mut standings) {
        *standing = peer.standing();
        match (*standing, peer.backup()) {
            (Standing::Open, false) => open += 1,
            (Standing::Open, true) => open_backups += 1,
            (Standing::Failed, false) => failed += 1,
            _ => {}
        }
    }
    // Who leaves on purpose says nothing about whether health can be believed, so it is not counted.
    let panic = open > 0 && open * 100 < usize::from(panic_percent) * (open + failed);
    let last_resort = panic_percent > 0 && open + open_backups == 0;
    for ((peer, standing), rank) in peers.iter().zip(standings).zip(ranks) {
        *rank = match (standing, peer.backup()) {
            (Standing::Open, true) => BACKUP,
            (Standing::Open, false) => FIRST,
            (Standing::Failed, false) if panic => FIRST,
            (Standing::Leaving, _) if last_resort && ask.sticky.is_none() => LEAVING,
            (Standing::Failed, false) if last_resort => FAILED,
            (Standing::Failed, true) if last_resort => FAILED_BACKUP,
            _ => continue,
        };
        if ask.tried.contains(peer.id()) {
            *rank += TRIED;
        }
    }
    panic
}

/// Why nobody stands anywhere.
fn nobody(peers: &[Arc<Peer>]) -> NoPeer {
    if peers.is_empty() {
        NoPeer::Unresolved
    } else if peers.iter().any(|peer| peer.standing() == Standing::Failed) {
        NoPeer::Down
    } else {
        NoPeer::Draining
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::{
            config::PeerConfig,
            peer::{Admin, Finding, PeerState},
            sample,
        },
        *,
    };

    /// Who is chosen how, over many choices, for rooms or for anything: `a:balance b:balance`.
    fn choices(pool: &Pool, sticky: bool, tried: &[&str]) -> String {
        let tried: Vec<_> = tried.iter().map(|id| sample::peer(pool, id).id().clone()).collect();
        let mut seen = BTreeMap::new();
        for number in 0..100 {
            let room = format!("room:{number}");
            let word = match pool.choose(&Ask { sticky: sticky.then_some(&room), tried: &tried }) {
                Ok(lease) => format!("{}:{}", lease.peer().id(), lease.source().as_str()),
                Err(nobody) => <&str>::from(nobody).to_owned(),
            };
            *seen.entry(word).or_insert(0) += 1;
        }
        seen.into_keys().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_choice_goes_down_the_ladder() {
        // peers; bad ones; draining ones; tried ones; what is chosen without a room; what with one
        let rows: &[(&str, &str, &str, &str, &str, &str)] = &[
            ("a b", "", "", "", "a:balance b:balance", "a:hash b:hash"),
            ("a b", "a", "", "", "b:balance", "b:hash"), // half of them is not below 50%
            ("a b c", "a b", "", "", "a:panic b:panic c:panic", "a:panic b:panic c:panic"),
            ("a b", "a b", "", "", "a:panic b:panic", "a:panic b:panic"),
            ("a b c!", "", "", "", "a:balance b:balance", "a:hash b:hash"),
            ("a b c!", "a", "", "", "b:balance", "b:hash"),
            ("a b c!", "a b", "", "", "c:backup", "c:backup"),
            ("a b c!", "a b c", "", "", "a:panic b:panic", "a:panic b:panic"),
            ("a b c!", "a b c", "", "a b", "c:panic", "c:panic"),
            ("a b*0", "", "", "", "a:balance", "a:hash"),
            ("a b*0", "a", "", "", "a:panic", "a:panic"),
            ("a*0 b*0", "", "", "", "draining", "draining"),
            ("a b", "", "a", "", "b:balance", "b:hash"),
            ("a b c", "", "a b", "", "c:balance", "c:hash"), // leaving is not failing: no panic
            ("a b", "", "a b", "", "a:panic b:panic", "draining"),
            ("a b", "b", "a", "", "a:panic", "b:panic"), // one that is leaving still answers
            ("a b", "", "", "a", "b:balance", "b:hash"),
            ("a b", "", "", "a b", "a:balance b:balance", "a:hash b:hash"),
            ("a b c!", "", "", "a b", "c:backup", "c:backup"),
            ("a b c!", "", "", "a b c", "a:balance b:balance", "a:hash b:hash"),
            ("a b", "a", "", "b", "b:balance", "b:hash"),
        ];
        for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Rendezvous] {
            for (peers, bad, draining, tried, plain, sticky) in rows {
                let pool = sample::pool(balance, peers);
                bad.split_whitespace().for_each(|id| sample::probe(&pool, id, &sample::bad()));
                draining.split_whitespace().for_each(|id| sample::probe(&pool, id, &Finding::Draining));
                let tried: Vec<_> = tried.split_whitespace().collect();
                let what = format!("{balance:?} {peers}, bad {bad}, draining {draining}, tried {tried:?}");
                assert_eq!(choices(&pool, false, &tried), *plain, "{what}");
                assert_eq!(choices(&pool, true, &tried), *sticky, "{what}, rooms");
            }
        }
    }

    #[test]
    fn without_panic_nobody_is_sent_to_dead_peers() {
        let mut config = sample::config(Balance::RoundRobin, "a b c");
        config.panic_percent = 0;
        let pool = Pool::new(Arc::new(config), &Metrics::new());
        ["a", "b"].iter().for_each(|id| sample::probe(&pool, id, &sample::bad()));
        assert_eq!(choices(&pool, false, &[]), "c:balance");
        assert!(pool.usable());
        sample::probe(&pool, "c", &sample::bad());
        assert_eq!(choices(&pool, false, &[]), "down");
        assert!(!pool.usable());
    }

    #[test]
    fn the_rooms_of_a_dead_peer_move_and_come_back() {
        let pool = sample::pool(Balance::Rendezvous, "c1 c2");
        let place = |room: u32| {
            let room = format!("doc:{room}");
            pool.choose(&Ask { sticky: Some(&room), tried: &[] }).unwrap().peer().id().to_string()
        };
        let before: Vec<_> = (0..200).map(place).collect();
        assert!(before.iter().any(|id| id == "c1") && before.iter().any(|id| id == "c2"));
        sample::probe(&pool, "c1", &sample::bad());
        assert!((0..200).map(place).all(|id| id == "c2"));
        sample::probe(&pool, "c1", &Finding::Good);
        assert_eq!((0..200).map(place).collect::<Vec<_>>(), before);
    }

    #[test]
    fn the_operator_has_the_last_word() {
        let pool = sample::pool(Balance::RoundRobin, "a b");
        for (admin, state, chosen) in [
            (Admin::Drain, PeerState::Draining, "b:balance"),
            (Admin::Down, PeerState::Down, "b:balance"),
            (Admin::Ready, PeerState::Unknown, "a:balance b:balance"),
        ] {
            sample::peer(&pool, "a").set_admin_state(admin);
            assert_eq!((sample::peer(&pool, "a").state(), &*choices(&pool, false, &[])), (state, chosen));
        }
        sample::peer(&pool, "a").set_admin_state(Admin::Down);
        sample::probe(&pool, "b", &sample::bad());
        assert_eq!(choices(&pool, false, &[]), "b:panic", "panic does not bring back what the operator took out");
    }

    #[test]
    fn probes_change_a_state_after_rise_or_fall_and_the_first_at_once() {
        use PeerState::{Down, Draining, Unknown, Up};
        // g good, b bad, B bad and decisive, d draining: the state after each; rise and fall are 2
        let rows: &[(&str, &[PeerState])] = &[
            ("gbgbb", &[Up, Up, Up, Up, Down]),
            ("bgbgg", &[Down, Down, Down, Down, Up]),
            ("gB", &[Up, Down]),
            ("dggbb", &[Draining, Draining, Up, Up, Down]),
            ("gdbb", &[Up, Draining, Draining, Down]),
            ("bbdd", &[Down, Down, Draining, Draining]),
        ];
        for (probes, states) in rows {
            let pool = sample::pool(Balance::RoundRobin, "a");
            let peer = sample::peer(&pool, "a");
            assert_eq!(peer.state(), Unknown);
            let got: Vec<_> = probes
                .chars()
                .map(|probe| {
                    let finding = match probe {
                        'g' => Finding::Good,
                        'd' => Finding::Draining,
                        _ => sample::bad(),
                    };
                    peer.record(&finding, 2, 2, probe == 'B');
                    peer.state()
                })
                .collect();
            assert_eq!(&got, states, "{probes}");
        }
    }

    #[test]
    fn a_name_that_changes_keeps_the_peers_that_stay() {
        let mut config = sample::config(Balance::RoundRobin, "a");
        config.peers.push(PeerConfig {
            id: "l.test:80".to_owned(),
            address: PeerAddress::Name("l.test".to_owned(), 80),
            weight: 1,
            backup: false,
        });
        config.peers.remove(0);
        config.health = None;
        let metrics = Metrics::new();
        let pool = Pool::new(Arc::new(config), &metrics);
        let place = |last: u8| Place::Ip(([10, 0, 0, last], 80).into());
        assert_eq!(pool.choose(&Ask::default()).unwrap_err(), NoPeer::Unresolved);
        assert!(!pool.first_round_done());
        pool.keep(0);
        assert!(pool.first_round_done(), "a name that does not resolve holds nobody up");

        pool.install(0, vec![place(1), place(2)]);
        let stays = sample::peer(&pool, "l.test:80#10.0.0.2:80");
        let lease = pool.choose(&Ask { sticky: None, tried: &[stays.id().clone()] }).unwrap();
        assert_eq!(*lease.peer().id(), "l.test:80#10.0.0.1:80");
        assert_eq!(lease.peer().address(), "l.test", "the name goes into Host, not what it stands for");
        lease.peer().count_status(200);
        lease.peer().count_failure("connection_refused");
        assert!(metrics.encode().contains("10.0.0.1"));

        pool.install(0, vec![place(2), place(3)]);
        assert!(Arc::ptr_eq(&stays, &sample::peer(&pool, "l.test:80#10.0.0.2:80")));
        assert!(pool.peer("l.test:80#10.0.0.3:80").is_some());
        assert!(lease.peer().retired() && !stays.retired());
        assert!(!metrics.encode().contains("10.0.0.1"), "the series of a peer that left vanish");
    }

    #[test]
    fn a_pool_has_no_more_peers_than_its_maximum() {
        let mut config = sample::config(Balance::Rendezvous, "a b");
        config.peers[1].address = PeerAddress::Name("many.test".to_owned(), 80);
        let pool = Pool::new(Arc::new(config), &Metrics::new());
        let places = (0..1000).map(|port| Place::Ip(([10, 0, 0, 1], 1 + port).into()));
        pool.install(1, places.collect());
        assert_eq!(pool.peers().len(), PEERS_MAX);
        assert!(pool.choose(&Ask { sticky: Some("r"), tried: &[] }).is_ok());
    }

    #[test]
    fn gauges_show_states_and_active_requests() {
        let metrics = Metrics::new();
        let pool = Pool::new(Arc::new(sample::config(Balance::RoundRobin, "a")), &metrics);
        let state = |name: &str| metrics.upstream_peer_state.with_label_values(&["sample", "a", name]).get();
        let active = || metrics.upstream_active_requests.with_label_values(&["sample", "a"]).get();
        assert_eq!((state("unknown"), state("up")), (1, 0));
        sample::probe(&pool, "a", &Finding::Good);
        assert_eq!((state("unknown"), state("up")), (0, 1));
        let lease = pool.choose(&Ask::default()).unwrap();
        assert_eq!(active(), 1);
        drop(lease);
        assert_eq!(active(), 0);
        sample::probe(&pool, "a", &Finding::Draining);
        assert_eq!((state("up"), state("draining"), state("down")), (0, 1, 0));
    }

    #[test]
    fn retries_are_granted_and_counted_by_the_routes_own_budget() {
        let metrics = Metrics::new();
        let config = sample::config(Balance::RoundRobin, "a");
        let retries = Retries { budget_percent: 50, ..config.retries.clone() };
        let pool = Pool::new(Arc::new(config), &metrics);
        let now = Instant::now();
        (0..20).for_each(|_| pool.note_request(now));
        assert_eq!((0..15).filter(|_| pool.retry_allowed(&retries, now)).count(), 10);
        assert_eq!(metrics.upstream_retries.with_label_values(&["sample"]).get(), 10);
        assert_eq!(metrics.upstream_retries_refused.with_label_values(&["sample"]).get(), 5);
    }
}
