//! Purge by generations: an order is written down once and compared with what a response was stored under. Nothing is searched.
//!
//! Every order takes the next [`Position`], a dense number that is no clock. A fill carries the position that was in force when it
//! started; what is stored is then touched by exactly the orders after it. So an order costs the same however much is stored, and a
//! response whose fetch began before an order is caught even if it is stored after it.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A dense number that each order takes; 0 = before any.
pub type Position = u64;

/// URLs remembered, and surrogate keys remembered. One costs about 100 bytes, so both tables stay near 20 MB; a course platform
/// publishes some thousand pages a day, so they hold weeks. Over it the floor rises.
pub const PURGED_MAX: usize = 100_000;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeTarget {
    /// The hash of a URL without its scheme: all variants, slices, methods, both schemes.
    Url(u128),
    /// [`surrogate_hash`] of a key.
    SurrogateKey(u128),
    All,
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

/// The hash by which a surrogate key is known. Keys are case-sensitive. `seed` is the process's, so that nobody can construct collisions.
pub fn surrogate_hash(seed: u64, key: &str) -> u128 {
    xxh3_128_with_seed(key.as_bytes(), seed)
}

/// All orders that still matter.
#[derive(Debug)]
pub struct Purges {
    /// The last order applied. Written only with `tables` locked, after they hold the order.
    position: AtomicU64,
    tables: RwLock<Tables>,
}

#[derive(Debug)]
struct Tables {
    urls: Table,
    surrogate_keys: Table,
    all: Record,
    /// The newest order that was forgotten: what was stored before it counts as hard-purged.
    floor: Position,
}

impl Purges {
    pub fn new() -> Self {
        Self::with_max(PURGED_MAX)
    }

    /// Remembers at most `max` URLs and `max` surrogate keys.
    pub fn with_max(max: usize) -> Self {
        let tables =
            Tables { urls: Table::new(max), surrogate_keys: Table::new(max), all: Record::default(), floor: 0 };
        Self { position: AtomicU64::new(0), tables: RwLock::new(tables) }
    }

    /// The last order applied. A fill takes it before it asks the origin. One atomic load.
    pub fn position(&self) -> Position {
        self.position.load(Ordering::Acquire)
    }

    /// What was stored before this position counts as hard-purged, because an order that may have meant it was forgotten.
    pub fn floor(&self) -> Position {
        self.tables.read().floor
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
                PurgeTarget::SurrogateKey(hash) => tables.surrogate_keys.note(hash, position, soft),
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

    /// What the orders after `stored_at` say about a response with this URL hash and these surrogate key hashes.
    ///
    /// One atomic comparison while nothing was purged since. Otherwise the cost is one look for the URL and for each key, so a caller
    /// does well to keep the position it read *before* this call as the new `stored_at` of a response that is `Untouched`.
    pub fn check(&self, stored_at: Position, url: u128, surrogate_keys: &[u128]) -> PurgeVerdict {
        if stored_at == self.position() {
            return PurgeVerdict::Untouched;
        }
        let tables = self.tables.read();
        if stored_at < tables.floor {
            return PurgeVerdict::Hard;
        }
        let records = std::iter::once(&tables.all)
            .chain(tables.urls.find(url))
            .chain(surrogate_keys.iter().filter_map(|&key| tables.surrogate_keys.find(key)));
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

impl Default for Purges {
    fn default() -> Self {
        Self::new()
    }
}

/// The orders that named one thing.
#[derive(Debug, Default)]
struct Record {
    /// The last hard one; 0 = none.
    hard: Position,
    /// Soft ones after the last hard one, oldest first, at most [`SOFT_HISTORY_MAX`].
    soft: Vec<(Position, SystemTime)>,
    /// The last one of either kind.
    last: Position,
}

impl Record {
    fn note(&mut self, position: Position, soft: Option<SystemTime>) {
        self.last = position;
        let Some(at) = soft else {
            self.hard = position;
            // Whatever an earlier soft order touches, this one touches harder.
            self.soft = Vec::new();
            return;
        };
        if self.soft.len() == SOFT_HISTORY_MAX {
            let (_, oldest) = self.soft.remove(0);
            if let Some((_, next)) = self.soft.first_mut() {
                *next = oldest.min(*next);
            }
        }
        self.soft.push((position, at));
    }

    /// When the first soft order after `stored_at` happened; should the clock have been set back in between, the earliest.
    fn soft_after(&self, stored_at: Position) -> Option<SystemTime> {
        self.soft.iter().filter(|(position, _)| *position > stored_at).map(|(_, at)| *at).min()
    }
}

/// Records by hash, the longest unnamed forgotten first.
#[derive(Debug)]
struct Table {
    max: usize,
    records: HashMap<u128, Record, BuildHasherDefault<HashedAlready>>,
    /// Every order in its sequence; one that is not the last of its hash is passed over.
    order: VecDeque<(Position, u128)>,
}

impl Table {
    fn new(max: usize) -> Self {
        Self { max: max.max(1), records: HashMap::default(), order: VecDeque::new() }
    }

    fn find(&self, hash: u128) -> Option<&Record> {
        self.records.get(&hash)
    }

    /// Writes an order down. Gives the position of the newest order that had to be forgotten for it.
    fn note(&mut self, hash: u128, position: Position, soft: Option<SystemTime>) -> Option<Position> {
        let mut forgotten = None;
        if !self.records.contains_key(&hash) && self.records.len() == self.max {
            forgotten = self.forget_oldest();
        }
        let record = match self.records.entry(hash) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Record::default()),
        };
        // The same hash twice in one order stands once in the sequence.
        if record.last != position {
            self.order.push_back((position, hash));
        }
        record.note(position, soft);
        // Things named again and again leave old places in the sequence; sweeping them when they are as many as the records
        // costs each order one step in the long run.
        if self.order.len() > 2 * self.records.len().max(64) {
            let records = &self.records;
            self.order.retain(|(position, hash)| records.get(hash).is_some_and(|record| record.last == *position));
        }
        forgotten
    }

    fn forget_oldest(&mut self) -> Option<Position> {
        while let Some((position, hash)) = self.order.pop_front() {
            if let Entry::Occupied(entry) = self.records.entry(hash)
                && entry.get().last == position
            {
                entry.remove();
                return Some(position);
            }
        }
        None
    }
}

/// Keys are seeded hashes: hashing them again would only cost time.
#[derive(Debug, Default)]
struct HashedAlready(u64);

impl Hasher for HashedAlready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_ne_bytes(word);
        }
    }

    fn write_u128(&mut self, value: u128) {
        // Both halves are uniform; the low one alone would do.
        self.0 = (value as u64) ^ ((value >> 64) as u64);
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

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn order(soft: bool, targets: &[PurgeTarget]) -> PurgeOrder {
        PurgeOrder { targets: targets.to_vec(), soft }
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
            let purges = Purges::new();
            for (index, (soft, target)) in orders.iter().enumerate() {
                let position = purges.apply(&order(*soft, &[*target]), at(index as u64 + 1));
                assert_eq!(position, index as u64 + 1, "{name}");
            }
            let end = purges.position();
            assert_eq!(purges.check(0, URL, &[KEY]), first, "{name}: stored before all");
            assert_eq!(purges.check(end - 1, URL, &[KEY]), last, "{name}: stored before the last");
            assert_eq!(purges.check(end, URL, &[KEY]), Untouched, "{name}: stored after all");
        }
    }

    #[test]
    fn an_order_without_targets_takes_no_position() {
        let purges = Purges::new();
        assert_eq!(purges.apply(&order(false, &[]), at(1)), 0);
        assert_eq!(purges.apply(&order(false, &[PurgeTarget::All]), at(1)), 1);
    }

    #[test]
    fn what_was_stored_before_a_forgotten_order_counts_as_purged() {
        let purges = Purges::with_max(2);
        for hash in [10, 11] {
            purges.apply(&order(true, &[PurgeTarget::Url(hash)]), at(1));
        }
        assert_eq!((purges.floor(), purges.check(0, URL, &[])), (0, PurgeVerdict::Untouched));
        // 10 is named anew, so 11 (order 2) is the oldest when the third comes.
        purges.apply(&order(true, &[PurgeTarget::Url(10)]), at(3));
        purges.apply(&order(true, &[PurgeTarget::Url(12)]), at(4));
        assert_eq!(purges.floor(), 2);
        assert_eq!(purges.check(1, URL, &[]), PurgeVerdict::Hard, "it may have been the url that was forgotten");
        assert_eq!(purges.check(2, URL, &[]), PurgeVerdict::Untouched);
        assert_eq!(purges.check(2, 10, &[]), PurgeVerdict::Soft(at(3)));
    }

    #[test]
    fn one_order_with_more_targets_than_are_remembered_purges_more_not_less() {
        let purges = Purges::with_max(2);
        let targets: Vec<_> = (0..5).map(PurgeTarget::Url).collect();
        let position = purges.apply(&order(false, &targets), at(1));
        for url in 0..9 {
            assert_eq!(purges.check(position - 1, url, &[]), PurgeVerdict::Hard, "{url}");
            assert_eq!(purges.check(position, url, &[]), PurgeVerdict::Untouched, "{url}");
        }
    }

    #[test]
    fn memory_does_not_grow_with_orders_for_the_same_url() {
        let purges = Purges::with_max(4);
        for second in 0..10_000 {
            purges.apply(&order(true, &[PurgeTarget::Url(URL), PurgeTarget::Url(URL)]), at(second));
        }
        let tables = purges.tables.read();
        assert!(tables.urls.order.len() <= 128, "{}", tables.urls.order.len());
        assert!(tables.urls.records[&URL].soft.len() <= SOFT_HISTORY_MAX);
        assert_eq!(tables.floor, 0);
    }

    #[test]
    fn surrogate_keys_are_case_sensitive_and_seeded() {
        assert_ne!(surrogate_hash(1, "course:42"), surrogate_hash(1, "Course:42"));
        assert_ne!(surrogate_hash(1, "course:42"), surrogate_hash(2, "course:42"));
        assert_eq!(surrogate_hash(1, "course:42"), surrogate_hash(1, "course:42"));
    }

    /// Keeps every order and looks at each.
    #[derive(Default)]
    struct Naive(Vec<(PurgeOrder, SystemTime)>);

    impl Naive {
        fn check(&self, stored_at: Position, url: u128, surrogate_keys: &[u128]) -> PurgeVerdict {
            let mut verdict = PurgeVerdict::Untouched;
            for (order, now) in &self.0[usize::try_from(stored_at).unwrap()..] {
                let touches = order.targets.iter().any(|target| match target {
                    PurgeTarget::Url(hash) => *hash == url,
                    PurgeTarget::SurrogateKey(hash) => surrogate_keys.contains(hash),
                    PurgeTarget::All => true,
                });
                match (touches, order.soft, verdict) {
                    (false, ..) | (true, true, PurgeVerdict::Hard) => {}
                    (true, false, _) => verdict = PurgeVerdict::Hard,
                    (true, true, PurgeVerdict::Untouched) => verdict = PurgeVerdict::Soft(*now),
                    (true, true, PurgeVerdict::Soft(at)) => verdict = PurgeVerdict::Soft(at.min(*now)),
                }
            }
            verdict
        }
    }

    /// Small numbers, so that orders meet responses and each other; now and then many soft ones in a row.
    fn orders(
        targets: impl Strategy<Value = PurgeTarget>,
        most: usize,
    ) -> impl Strategy<Value = Vec<(PurgeOrder, SystemTime)>> {
        let order = (prop::collection::vec(targets, 1..3), any::<bool>(), 0..50_u64)
            .prop_map(|(targets, soft, second)| (PurgeOrder { targets, soft }, at(second)));
        prop::collection::vec(order, 0..most)
    }

    fn target() -> impl Strategy<Value = PurgeTarget> {
        prop_oneof![
            8 => (0..6_u128).prop_map(PurgeTarget::Url),
            8 => (0..6_u128).prop_map(PurgeTarget::SurrogateKey),
            1 => Just(PurgeTarget::All),
        ]
    }

    proptest! {
        #[test]
        fn it_says_what_looking_at_every_order_says(orders in orders(target(), SOFT_HISTORY_MAX)) {
            let (purges, mut naive) = (Purges::new(), Naive::default());
            for (order, now) in orders {
                purges.apply(&order, now);
                naive.0.push((order, now));
            }
            for stored_at in 0..=purges.position() {
                for (url, keys) in [(0, vec![]), (1, vec![0]), (2, vec![1, 2]), (9, vec![5, 3])] {
                    prop_assert_eq!(purges.check(stored_at, url, &keys), naive.check(stored_at, url, &keys));
                }
            }
        }

        #[test]
        fn what_it_forgets_only_makes_it_stricter(orders in orders(target(), 60), max in 1..5_usize) {
            let (purges, mut naive) = (Purges::with_max(max), Naive::default());
            for (order, now) in orders {
                purges.apply(&order, now);
                naive.0.push((order, now));
            }
            let severity = |verdict| match verdict {
                PurgeVerdict::Untouched => (0, std::cmp::Reverse(None)),
                PurgeVerdict::Soft(at) => (1, std::cmp::Reverse(Some(at))),
                PurgeVerdict::Hard => (2, std::cmp::Reverse(None)),
            };
            for stored_at in 0..=purges.position() {
                for (url, keys) in [(0, vec![]), (1, vec![0]), (2, vec![1, 2]), (9, vec![5, 3])] {
                    let (said, meant) = (purges.check(stored_at, url, &keys), naive.check(stored_at, url, &keys));
                    prop_assert!(severity(said) >= severity(meant), "{:?} where {:?}", said, meant);
                }
            }
            prop_assert_eq!(purges.check(purges.position(), 0, &[0]), PurgeVerdict::Untouched);
        }
    }
}
