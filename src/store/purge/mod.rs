//! Purge by generations: an order is written down once and compared with what a response was stored under. Nothing is searched.
//!
//! Every order takes the next [`Position`], a dense number that is no clock. A fill carries the position that was in force when it
//! started; what is stored is then touched by exactly the orders after it. So an order costs the same however much is stored, and a
//! response whose fetch began before an order is caught even if it is stored after it.
//!
//! A look costs one hash lookup each for the URL, its path, its host and every surrogate key, and one for every *length* that a
//! remembered prefix has, at most [`PREFIX_LENGTHS_MAX`]; tables that are empty cost nothing. A response that was found untouched is
//! not looked at again until the next order comes.

mod table;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use table::{Prefixes, Record, Table};

/// A dense number that each order takes; 0 = before any.
pub type Position = u64;

/// Things of one kind that are remembered: URLs, paths, prefixes, hosts, surrogate keys. One costs about 100 bytes, so each table
/// stays near 10 MB; a course platform publishes some thousand pages a day, so they hold weeks. Over it the floor rises.
pub const PURGED_MAX: usize = 100_000;

/// Lengths that remembered prefixes may have. A look tries each of them; prefixes that people write (`/courses/algebra/`) have few.
/// Over it the prefix longest unnamed is forgotten and the floor rises.
pub const PREFIX_LENGTHS_MAX: usize = 64;

/// Soft purges of one URL or key that are told apart. Repeated ones matter only while a response older than the first is kept, and the
/// windows of stale responses are short; over it the two oldest count as one that happened at the earlier instant.
pub const SOFT_HISTORY_MAX: usize = 8;

/// What an operator or an origin wants gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeOrder {
    pub targets: Vec<PurgeTarget>,
    /// Expired from now on, stale windows begin here; otherwise never served again.
    pub soft: bool,
}

/// One thing that an order names, by the hash of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeTarget {
    /// The hash of a URL without its scheme: all variants, slices, methods, both schemes.
    Url(u128),
    /// Of `host:port/path`: whatever the query.
    Path(u128),
    /// Of the first `length` bytes of `host:port/path`.
    Prefix {
        hash: u128,
        length: usize,
    },
    /// Of a host without its port: all ports.
    Host(u128),
    /// [`text_hash`] of a key.
    SurrogateKey(u128),
    All,
}

impl PurgeTarget {
    /// `path` is `host:port/path`, as in a key.
    pub fn path(seed: u64, path: &str) -> Self {
        Self::Path(text_hash(seed, path))
    }

    /// `prefix` is the beginning of a `host:port/path`.
    pub fn prefix(seed: u64, prefix: &str) -> Self {
        Self::Prefix { hash: text_hash(seed, prefix), length: prefix.len() }
    }

    /// `host` is in lower case, without a port.
    pub fn host(seed: u64, host: &str) -> Self {
        Self::Host(text_hash(seed, host))
    }

    /// Surrogate keys are case-sensitive; cache groups are among them by their [`group_text`](crate::cache::group_text).
    pub fn surrogate_key(seed: u64, key: &str) -> Self {
        Self::SurrogateKey(text_hash(seed, key))
    }
}

/// What orders look at in a stored response.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What [`PurgeTarget::Url`] names.
    pub url: u128,
    /// `host:port/path?query`, as in its key.
    pub target: &'a str,
    /// [`text_hash`] of each, and of the [`group_text`](crate::cache::group_text) of each cache group.
    pub surrogate_keys: &'a [u128],
}

impl<'a> Subject<'a> {
    /// `host:port/path`
    fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// Without the port.
    fn host(&self) -> &'a str {
        let authority = self.target.split_once('/').map_or(self.target, |(authority, _)| authority);
        match authority.rfind(']') {
            Some(end) => &authority[..=end],
            None => authority.split_once(':').map_or(authority, |(host, _)| host),
        }
    }
}

/// What the orders after a response was fetched say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeVerdict {
    /// None of them touches it.
    Untouched,
    /// Expired at this instant, the earliest of those that touch it; stale windows begin there.
    Soft(SystemTime),
    /// Never to be served again, not even when the origin fails.
    Hard,
}

/// The hash by which the text of a target is known. `seed` is the process's, so that nobody can construct collisions.
pub fn text_hash(seed: u64, text: &str) -> u128 {
    xxh3_128_with_seed(text.as_bytes(), seed)
}

/// All orders that still matter.
#[derive(Debug)]
pub struct Purges {
    seed: u64,
    /// The last order applied. Written only with `tables` locked, after they hold the order.
    position: AtomicU64,
    tables: RwLock<Tables>,
}

#[derive(Debug)]
struct Tables {
    urls: Table,
    paths: Table,
    prefixes: Prefixes,
    hosts: Table,
    surrogate_keys: Table,
    all: Record,
    /// The newest order that was forgotten: what was stored before it counts as hard-purged.
    floor: Position,
    /// As `floor`, for what carries surrogate keys or cache groups. Clients' requests name groups, so this one may move fast.
    key_floor: Position,
}

impl Purges {
    /// `seed` is what the hashes of targets are made with.
    pub fn new(seed: u64) -> Self {
        Self::with_max(seed, PURGED_MAX)
    }

    /// Remembers at most `max` things of each kind.
    pub fn with_max(seed: u64, max: usize) -> Self {
        let tables = Tables {
            urls: Table::new(max),
            paths: Table::new(max),
            prefixes: Prefixes::new(max),
            hosts: Table::new(max),
            surrogate_keys: Table::new(max),
            all: Record::default(),
            floor: 0,
            key_floor: 0,
        };
        Self { seed, position: AtomicU64::new(0), tables: RwLock::new(tables) }
    }

    /// The last order applied. A fill takes it before it asks the origin. One atomic load.
    pub fn position(&self) -> Position {
        self.position.load(Ordering::Acquire)
    }

    /// Applies an order at `now` and gives the position that it took; an order without targets takes none.
    ///
    /// When this returns, [`check`](Self::check) sees the order everywhere. Costs the number of targets.
    pub fn apply(&self, order: &PurgeOrder, now: SystemTime) -> Position {
        let mut tables = self.tables.write();
        if order.targets.is_empty() {
            return self.position();
        }
        let position = self.position.load(Ordering::Relaxed) + 1;
        let soft = order.soft.then_some(now);
        for target in &order.targets {
            let forgotten = match *target {
                PurgeTarget::Url(hash) => tables.urls.note(hash, position, soft),
                PurgeTarget::Path(hash) => tables.paths.note(hash, position, soft),
                PurgeTarget::Prefix { hash, length } => tables.prefixes.note(hash, length, position, soft),
                PurgeTarget::Host(hash) => tables.hosts.note(hash, position, soft),
                PurgeTarget::SurrogateKey(hash) => {
                    let forgotten = tables.surrogate_keys.note(hash, position, soft);
                    tables.key_floor = tables.key_floor.max(forgotten.unwrap_or(0));
                    None
                }
                PurgeTarget::All => {
                    tables.all.note(position, soft);
                    None
                }
            };
            tables.floor = tables.floor.max(forgotten.unwrap_or(0));
        }
        self.position.store(position, Ordering::Release);
        position
    }

    /// Takes up what a journal kept, before anything is asked: its floor, and its orders under their positions.
    pub fn restore(&self, floor: Position, orders: impl IntoIterator<Item = (Position, PurgeOrder, SystemTime)>) {
        self.tables.write().floor = floor;
        self.position.store(floor, Ordering::Release);
        for (position, order, at) in orders {
            self.position.store(position.saturating_sub(1), Ordering::Release);
            self.apply(&order, at);
            self.position.store(position, Ordering::Release);
        }
    }

    /// Everything stored before now counts as hard-purged: orders may have been missed. Gives the position that this took.
    pub fn forget_all(&self) -> Position {
        let mut tables = self.tables.write();
        let position = self.position.load(Ordering::Relaxed) + 1;
        tables.floor = position;
        self.position.store(position, Ordering::Release);
        position
    }

    /// What the orders after `stored_at` say about a response.
    ///
    /// One atomic comparison while nothing was purged since. Otherwise the cost is that of the room's first lines, so a caller
    /// does well to keep the position it read *before* this call as the new `stored_at` of a response that is `Untouched`.
    pub fn check(&self, stored_at: Position, subject: &Subject<'_>) -> PurgeVerdict {
        if stored_at == self.position() {
            return PurgeVerdict::Untouched;
        }
        let tables = self.tables.read();
        if stored_at < tables.floor || (stored_at < tables.key_floor && !subject.surrogate_keys.is_empty()) {
            return PurgeVerdict::Hard;
        }
        let path = (!tables.paths.is_empty()).then(|| text_hash(self.seed, subject.path()));
        let host = (!tables.hosts.is_empty()).then(|| text_hash(self.seed, subject.host()));
        let records = std::iter::once(&tables.all)
            .chain(tables.urls.find(subject.url))
            .chain(path.and_then(|hash| tables.paths.find(hash)))
            .chain(host.and_then(|hash| tables.hosts.find(hash)))
            .chain(subject.surrogate_keys.iter().filter_map(|&key| tables.surrogate_keys.find(key)))
            .chain(tables.prefixes.of(subject.path(), |prefix| text_hash(self.seed, prefix)));
        let mut expired: Option<SystemTime> = None;
        for record in records {
            if record.hard > stored_at {
                return PurgeVerdict::Hard;
            }
            if let Some(at) = record.soft_after(stored_at) {
                expired = Some(expired.map_or(at, |known| known.min(at)));
            }
        }
        expired.map_or(PurgeVerdict::Untouched, PurgeVerdict::Soft)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const URL: u128 = 1;
    const KEY: u128 = 2;
    const OTHER: u128 = 3;
    const SEED: u64 = 7;

    /// Something stored whose URL and keys matter alone.
    fn subject(url: u128, surrogate_keys: &[u128]) -> Subject<'_> {
        Subject { url, target: "a.test/", surrogate_keys }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn order(soft: bool, targets: &[PurgeTarget]) -> PurgeOrder {
        PurgeOrder { targets: targets.to_vec(), soft }
    }

    fn floor(purges: &Purges) -> Position {
        purges.tables.read().floor
    }

    #[test]
    fn an_order_touches_what_it_names_and_was_stored_before_it() {
        use PurgeTarget::{All, SurrogateKey, Url};
        use PurgeVerdict::{Hard, Soft, Untouched};
        // The orders at second 1, 2, ...; what they say about something stored before the first, and before the last.
        type Orders<'a> = &'a [(bool, PurgeTarget)];
        let rows: [(&str, Orders<'_>, PurgeVerdict, PurgeVerdict); 9] = [
            ("its url, hard", &[(false, Url(URL))], Hard, Hard),
            ("its key, hard", &[(false, SurrogateKey(KEY))], Hard, Hard),
            ("everything, hard", &[(false, All)], Hard, Hard),
            ("another url", &[(false, Url(OTHER))], Untouched, Untouched),
            ("a key with the hash of its url", &[(false, SurrogateKey(URL)), (false, Url(KEY))], Untouched, Untouched),
            ("its url, soft", &[(true, Url(URL))], Soft(at(1)), Soft(at(1))),
            ("soft twice", &[(true, Url(URL)), (true, SurrogateKey(KEY))], Soft(at(1)), Soft(at(2))),
            ("soft, then hard", &[(true, Url(URL)), (false, Url(URL))], Hard, Hard),
            ("hard, then soft", &[(false, Url(URL)), (true, Url(URL))], Hard, Soft(at(2))),
        ];
        for (name, orders, first, last) in rows {
            let purges = Purges::new(SEED);
            for (index, (soft, target)) in orders.iter().enumerate() {
                let position = purges.apply(&order(*soft, &[*target]), at(index as u64 + 1));
                assert_eq!(position, index as u64 + 1, "{name}");
            }
            let end = purges.position();
            assert_eq!(purges.check(0, &subject(URL, &[KEY])), first, "{name}: stored before all");
            assert_eq!(purges.check(end - 1, &subject(URL, &[KEY])), last, "{name}: stored before the last");
            assert_eq!(purges.check(end, &subject(URL, &[KEY])), Untouched, "{name}: stored after all");
        }
    }

    #[test]
    fn an_order_without_targets_takes_no_position() {
        let purges = Purges::new(SEED);
        assert_eq!(purges.apply(&order(false, &[]), at(1)), 0);
        assert_eq!(purges.apply(&order(false, &[PurgeTarget::All]), at(1)), 1);
    }

    #[test]
    fn what_was_stored_before_a_forgotten_order_counts_as_purged() {
        let purges = Purges::with_max(SEED, 2);
        for hash in [10, 11] {
            purges.apply(&order(true, &[PurgeTarget::Url(hash)]), at(1));
        }
        assert_eq!((floor(&purges), purges.check(0, &subject(URL, &[]))), (0, PurgeVerdict::Untouched));
        // 10 is named anew, so 11 (order 2) is the oldest when the third comes.
        purges.apply(&order(true, &[PurgeTarget::Url(10)]), at(3));
        purges.apply(&order(true, &[PurgeTarget::Url(12)]), at(4));
        assert_eq!(floor(&purges), 2);
        assert_eq!(
            purges.check(1, &subject(URL, &[])),
            PurgeVerdict::Hard,
            "it may have been the url that was forgotten"
        );
        assert_eq!(purges.check(2, &subject(URL, &[])), PurgeVerdict::Untouched);
        assert_eq!(purges.check(2, &subject(10, &[])), PurgeVerdict::Soft(at(3)));
    }

    #[test]
    fn one_order_with_more_targets_than_are_remembered_purges_more_not_less() {
        let purges = Purges::with_max(SEED, 2);
        let targets: Vec<_> = (0..5).map(PurgeTarget::Url).collect();
        let position = purges.apply(&order(false, &targets), at(1));
        for url in 0..9 {
            assert_eq!(purges.check(position - 1, &subject(url, &[])), PurgeVerdict::Hard, "{url}");
            assert_eq!(purges.check(position, &subject(url, &[])), PurgeVerdict::Untouched, "{url}");
        }
    }

    #[test]
    fn memory_does_not_grow_with_orders_for_the_same_url() {
        let purges = Purges::with_max(SEED, 4);
        for second in 0..10_000 {
            purges.apply(&order(true, &[PurgeTarget::Url(URL), PurgeTarget::Url(URL)]), at(second));
        }
        let tables = purges.tables.read();
        assert!(tables.urls.order.len() <= 128, "{}", tables.urls.order.len());
        assert!(tables.urls.records[&URL].soft.len() <= SOFT_HISTORY_MAX);
        assert_eq!(tables.floor, 0);
    }

    #[test]
    fn keys_that_are_forgotten_purge_what_has_keys_and_nothing_else() {
        let purges = Purges::with_max(SEED, 2);
        for hash in [10, 11, 12] {
            purges.apply(&order(false, &[PurgeTarget::SurrogateKey(hash)]), at(1));
        }
        assert_eq!(purges.check(0, &subject(URL, &[])), PurgeVerdict::Untouched);
        assert_eq!(purges.check(0, &subject(URL, &[KEY])), PurgeVerdict::Hard, "key 10 may have been this one");
        assert_eq!(purges.check(1, &subject(URL, &[KEY])), PurgeVerdict::Untouched);
    }

    #[test]
    fn what_is_restored_says_what_it_said_before() {
        use PurgeVerdict::{Hard, Soft, Untouched};
        let purges = Purges::new(SEED);
        let hard = order(false, &[PurgeTarget::Url(URL)]);
        let soft = order(true, &[PurgeTarget::SurrogateKey(KEY)]);
        purges.restore(3, [(5, hard, at(1)), (9, soft, at(2))]);
        let said = |stored_at| purges.check(stored_at, &subject(URL, &[KEY]));
        assert_eq!([2, 4, 5, 8, 9].map(said), [Hard, Hard, Soft(at(2)), Soft(at(2)), Untouched]);
        assert_eq!(purges.check(2, &subject(OTHER, &[])), Hard, "below the floor");
        assert_eq!(purges.apply(&order(false, &[PurgeTarget::All]), at(3)), 10, "it goes on from there");
    }

    #[test]
    fn the_texts_of_targets_are_case_sensitive_and_seeded() {
        assert_ne!(text_hash(1, "course:42"), text_hash(1, "Course:42"));
        assert_ne!(text_hash(1, "course:42"), text_hash(2, "course:42"));
        assert_eq!(text_hash(1, "course:42"), text_hash(1, "course:42"));
    }

    #[test]
    fn paths_prefixes_and_hosts_touch_what_lies_there() {
        let path = |text| PurgeTarget::path(SEED, text);
        let prefix = |text| PurgeTarget::prefix(SEED, text);
        let host = |text| PurgeTarget::host(SEED, text);
        for (target, text, touched) in [
            (path("a.test/x"), "a.test/x", true),
            (path("a.test/x"), "a.test/x?q=1", true),
            (path("a.test/x"), "a.test/x/y", false),
            (path("a.test/x"), "a.test:81/x", false),
            (prefix("a.test/x"), "a.test/x", true),
            (prefix("a.test/x"), "a.test/xy/z?q", true),
            (prefix("a.test/x/"), "a.test/x", false),
            (prefix("a.test/x/"), "a.test/x/y", true),
            (prefix("a.test/"), "b.test/", false),
            (prefix("a.test/longer/than/that"), "a.test/", false),
            (host("a.test"), "a.test/x?q=1", true),
            (host("a.test"), "a.test:81/x", true),
            (host("a.test"), "a.test.b/x", false),
            (host("[::1]"), "[::1]:81/x", true),
            (host("[::1]"), "[::1]/x", true),
        ] {
            let purges = Purges::new(SEED);
            purges.apply(&order(false, &[target]), at(1));
            let verdict = purges.check(0, &Subject { url: URL, target: text, surrogate_keys: &[] });
            assert_eq!(verdict == PurgeVerdict::Hard, touched, "{target:?} {text}");
        }
    }

    #[test]
    fn prefixes_of_more_lengths_than_a_look_tries_raise_the_floor() {
        let purges = Purges::new(SEED);
        let text = |length: usize| format!("a.test/{}", "x".repeat(length));
        for length in 0..=PREFIX_LENGTHS_MAX {
            assert_eq!(floor(&purges), 0, "{length}");
            purges.apply(&order(false, &[PurgeTarget::prefix(SEED, &text(length))]), at(1));
        }
        assert_eq!(floor(&purges), 1, "the first prefix is forgotten, and what it may have meant is purged");
        let elsewhere = Subject { url: URL, target: "b.test/", surrogate_keys: &[] };
        assert_eq!(purges.check(0, &elsewhere), PurgeVerdict::Hard);
        assert_eq!(purges.check(1, &elsewhere), PurgeVerdict::Untouched);
        purges.apply(&order(false, &[PurgeTarget::prefix(SEED, &text(3)[..9])]), at(2));
        assert_eq!(floor(&purges), 1, "a length that is known costs nothing");
    }

    #[test]
    fn after_an_unknown_order_everything_older_counts_as_purged() {
        let purges = Purges::new(SEED);
        let position = purges.forget_all();
        assert_eq!(purges.check(position - 1, &subject(URL, &[])), PurgeVerdict::Hard);
        assert_eq!(purges.check(position, &subject(URL, &[])), PurgeVerdict::Untouched);
    }

    /// What the naive way compares.
    #[derive(Debug, Clone)]
    enum Named {
        Url(&'static str),
        Path(&'static str),
        Prefix(&'static str),
        Host(&'static str),
        SurrogateKey(&'static str),
        All,
    }

    impl Named {
        fn target(&self) -> PurgeTarget {
            match self {
                Self::Url(text) => PurgeTarget::Url(text_hash(SEED, text)),
                Self::Path(text) => PurgeTarget::path(SEED, text),
                Self::Prefix(text) => PurgeTarget::prefix(SEED, text),
                Self::Host(text) => PurgeTarget::host(SEED, text),
                Self::SurrogateKey(text) => PurgeTarget::surrogate_key(SEED, text),
                Self::All => PurgeTarget::All,
            }
        }

        fn touches(&self, stored: &Thing) -> bool {
            let path = stored.target.split('?').next().unwrap();
            match self {
                Self::Url(text) => *text == stored.target,
                Self::Path(text) => *text == path,
                Self::Prefix(text) => path.starts_with(text),
                Self::Host(text) => path.split(['/', ':']).next() == Some(text),
                Self::SurrogateKey(text) => stored.surrogate_keys.contains(text),
                Self::All => true,
            }
        }
    }

    /// Something stored.
    struct Thing {
        target: &'static str,
        surrogate_keys: &'static [&'static str],
    }

    const TARGETS: [&str; 8] =
        ["a.test/", "a.test/x", "a.test/x?q=1", "a.test/x/y", "a.test:81/x", "a.test:81/xy?q", "b.test/x", "b.test/x?"];
    const PREFIXES: [&str; 6] = ["a.test/", "a.test/x", "a.test/x/", "a.test:81/x", "b.test/x", "b.test/xyz"];
    const KEYS: [&str; 4] = ["k", "l", "m", "n"];
    const THINGS: [Thing; 6] = [
        Thing { target: TARGETS[1], surrogate_keys: &[] },
        Thing { target: TARGETS[2], surrogate_keys: &["k"] },
        Thing { target: TARGETS[3], surrogate_keys: &["l", "m"] },
        Thing { target: TARGETS[5], surrogate_keys: &["n", "k"] },
        Thing { target: TARGETS[7], surrogate_keys: &[] },
        Thing { target: "c.test/", surrogate_keys: &["o"] },
    ];

    /// Keeps every order and looks at each.
    #[derive(Default)]
    struct Naive(Vec<(Vec<Named>, bool, SystemTime)>);

    impl Naive {
        fn check(&self, stored_at: Position, stored: &Thing) -> PurgeVerdict {
            let mut verdict = PurgeVerdict::Untouched;
            for (named, soft, now) in &self.0[usize::try_from(stored_at).unwrap()..] {
                match (named.iter().any(|named| named.touches(stored)), soft, verdict) {
                    (false, ..) | (true, true, PurgeVerdict::Hard) => {}
                    (true, false, _) => verdict = PurgeVerdict::Hard,
                    (true, true, PurgeVerdict::Untouched) => verdict = PurgeVerdict::Soft(*now),
                    (true, true, PurgeVerdict::Soft(at)) => verdict = PurgeVerdict::Soft(at.min(*now)),
                }
            }
            verdict
        }
    }

    /// Few names, so that orders meet responses and each other; now and then many soft ones in a row.
    fn orders(most: usize) -> impl Strategy<Value = Vec<(Vec<Named>, bool, SystemTime)>> {
        let named = prop_oneof![
            8 => prop::sample::select(&TARGETS[..]).prop_map(Named::Url),
            4 => prop::sample::select(&PREFIXES[..]).prop_map(Named::Path),
            4 => prop::sample::select(&PREFIXES[..]).prop_map(Named::Prefix),
            2 => prop::sample::select(&["a.test", "b.test", "test"][..]).prop_map(Named::Host),
            8 => prop::sample::select(&KEYS[..]).prop_map(Named::SurrogateKey),
            1 => Just(Named::All),
        ];
        let order = (prop::collection::vec(named, 1..3), any::<bool>(), 0..50_u64)
            .prop_map(|(named, soft, second)| (named, soft, at(second)));
        prop::collection::vec(order, 0..most)
    }

    /// Gives both the same orders, then what both say of every thing stored at every position.
    fn both(purges: &Purges, orders: Vec<(Vec<Named>, bool, SystemTime)>) -> Vec<(PurgeVerdict, PurgeVerdict)> {
        for (named, soft, now) in &orders {
            let targets: Vec<_> = named.iter().map(Named::target).collect();
            purges.apply(&order(*soft, &targets), *now);
        }
        let naive = Naive(orders);
        let mut said = Vec::new();
        for stored_at in 0..=purges.position() {
            for thing in &THINGS {
                let keys: Vec<_> = thing.surrogate_keys.iter().map(|key| text_hash(SEED, key)).collect();
                let url = text_hash(SEED, thing.target);
                let subject = Subject { url, target: thing.target, surrogate_keys: &keys };
                said.push((purges.check(stored_at, &subject), naive.check(stored_at, thing)));
            }
        }
        said
    }

    proptest! {
        #[test]
        fn it_says_what_looking_at_every_order_says(orders in orders(SOFT_HISTORY_MAX)) {
            for (said, meant) in both(&Purges::new(SEED), orders) {
                prop_assert_eq!(said, meant);
            }
        }

        #[test]
        fn what_it_forgets_only_makes_it_stricter(orders in orders(60), max in 1..5_usize) {
            let severity = |verdict| match verdict {
                PurgeVerdict::Untouched => (0, std::cmp::Reverse(None)),
                PurgeVerdict::Soft(at) => (1, std::cmp::Reverse(Some(at))),
                PurgeVerdict::Hard => (2, std::cmp::Reverse(None)),
            };
            let purges = Purges::with_max(SEED, max);
            for (said, meant) in both(&purges, orders) {
                prop_assert!(severity(said) >= severity(meant), "{:?} where {:?}", said, meant);
            }
            prop_assert_eq!(purges.check(purges.position(), &subject(0, &[0])), PurgeVerdict::Untouched);
        }
    }
}
