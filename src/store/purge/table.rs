//! What is remembered of orders: a record for each thing that was named, in bounded tables that forget the longest unnamed first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
    time::SystemTime,
};

use super::{PREFIX_LENGTHS_MAX, Position, SOFT_HISTORY_MAX};

/// The orders that named one thing.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The last hard one; 0 = none.
    pub(super) hard: Position,
    /// Soft ones after the last hard one, oldest first, at most [`SOFT_HISTORY_MAX`].
    pub(super) soft: Vec<(Position, SystemTime)>,
    /// The last one of either kind.
    last: Position,
}

impl Record {
    pub(super) fn note(&mut self, position: Position, soft: Option<SystemTime>) {
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
    pub(super) fn soft_after(&self, stored_at: Position) -> Option<SystemTime> {
        self.soft.iter().filter(|(position, _)| *position > stored_at).map(|(_, at)| *at).min()
    }
}

/// Records by hash, the longest unnamed forgotten first.
#[derive(Debug)]
pub(super) struct Table {
    max: usize,
    pub(super) records: HashMap<u128, Record, BuildHasherDefault<HashedAlready>>,
    /// Every order in its sequence; one that is not the last of its hash is passed over.
    pub(super) order: VecDeque<(Position, u128)>,
}

impl Table {
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), records: HashMap::default(), order: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn find(&self, hash: u128) -> Option<&Record> {
        self.records.get(&hash)
    }

    /// Writes an order down. Gives the position of the newest order that had to be forgotten for it.
    pub(super) fn note(&mut self, hash: u128, position: Position, soft: Option<SystemTime>) -> Option<Position> {
        self.remember(hash, position, soft).map(|(_, forgotten)| forgotten)
    }

    /// As [`note`](Self::note), and says what was forgotten.
    fn remember(&mut self, hash: u128, position: Position, soft: Option<SystemTime>) -> Option<(u128, Position)> {
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

    fn forget_oldest(&mut self) -> Option<(u128, Position)> {
        while let Some((position, hash)) = self.order.pop_front() {
            if let Entry::Occupied(entry) = self.records.entry(hash)
                && entry.get().last == position
            {
                entry.remove();
                return Some((hash, position));
            }
        }
        None
    }
}

/// Records of prefixes, found by trying every length that one of them has.
#[derive(Debug)]
pub(super) struct Prefixes {
    table: Table,
    /// How long each prefix is.
    length_of: HashMap<u128, usize, BuildHasherDefault<HashedAlready>>,
    /// How many prefixes have a length; at most [`PREFIX_LENGTHS_MAX`] lengths.
    lengths: BTreeMap<usize, usize>,
}

impl Prefixes {
    pub(super) fn new(max: usize) -> Self {
        Self { table: Table::new(max), length_of: HashMap::default(), lengths: BTreeMap::new() }
    }

    /// The records of all prefixes of `path`.
    pub(super) fn of(&self, path: &str, hash: impl Fn(&str) -> u128) -> impl Iterator<Item = &Record> {
        // A prefix ends between two characters, and so does what it is a prefix of there.
        let cuts = self.lengths.range(..=path.len()).filter_map(move |(length, _)| path.get(..*length));
        cuts.filter_map(move |prefix| self.table.find(hash(prefix)))
    }

    /// As [`Table::note`].
    pub(super) fn note(
        &mut self,
        hash: u128,
        length: usize,
        position: Position,
        soft: Option<SystemTime>,
    ) -> Option<Position> {
        let mut forgotten = None;
        while !self.lengths.contains_key(&length) && self.lengths.len() >= PREFIX_LENGTHS_MAX {
            let Some((oldest, at)) = self.table.forget_oldest() else { break };
            self.forget_length(oldest);
            forgotten = forgotten.max(Some(at));
        }
        if self.length_of.insert(hash, length).is_none() {
            *self.lengths.entry(length).or_default() += 1;
        }
        if let Some((oldest, at)) = self.table.remember(hash, position, soft) {
            self.forget_length(oldest);
            forgotten = forgotten.max(Some(at));
        }
        forgotten
    }

    fn forget_length(&mut self, hash: u128) {
        if let Some(length) = self.length_of.remove(&hash)
            && let Some(count) = self.lengths.get_mut(&length)
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }
}

/// Keys are seeded hashes: hashing them again would only cost time.
#[derive(Debug, Default)]
pub(super) struct HashedAlready(u64);

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
