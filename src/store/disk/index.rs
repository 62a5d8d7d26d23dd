//! What is on disk and where, in memory: about 64 bytes a record. One piece of it; [`Shards`](super::shards::Shards) has all.
//!
//! It names only records that are written whole, the newest of each variant and of each part. While the tier recovers,
//! segments are read from the newest to the oldest, so that what is there already is newer than what is being read, and what
//! was removed meanwhile is remembered until all have been read.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use super::record::{HEADER_BYTES, Header, Kind};

/// Variants of one family that are taken up again at the start; what more there are was not to be kept long.
pub const VARIANTS_MAX: usize = 1_024;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct At {
    pub segment: u32,
    pub offset: u32,
    pub head_len: u32,
    pub body_len: u32,
}

impl At {
    pub fn new(segment: u32, offset: u32, header: &Header) -> Self {
        Self { segment, offset, head_len: header.head_len, body_len: header.body_len }
    }

    pub fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.head_len) + u64::from(self.body_len)
    }
}

#[derive(Debug)]
struct Entry {
    /// Of a head.
    variant: u64,
    at: At,
    /// Read since it was written here.
    used: AtomicBool,
}

impl Entry {
    fn new(variant: u64, at: At) -> Self {
        Self { variant, at, used: AtomicBool::new(false) }
    }
}

#[derive(Debug)]
struct PartEntry {
    at: At,
    crc: u32,
    used: AtomicBool,
}

impl PartEntry {
    fn new(header: &Header, at: At) -> Self {
        Self { at, crc: header.body_crc, used: AtomicBool::new(false) }
    }
}

/// What a part is stored under.
pub fn part_id(header: &Header) -> u64 {
    // Written from 64 bits.
    header.id as u64
}

/// Most keys have one variant: a list for each would cost more than the entries.
#[derive(Debug)]
enum Family {
    One(Entry),
    /// Newest first; never empty.
    Many(Vec<Entry>),
}

impl Family {
    fn entries(&self) -> &[Entry] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(entries) => entries,
        }
    }
}

#[derive(Debug, Default)]
pub struct Index {
    families: HashMap<u128, Family>,
    parts: HashMap<u64, PartEntry>,
    heads: usize,
    /// Heads that wait to be written, by the number of the order to do so: the last one of each variant.
    pending: HashMap<(u128, u64), u64>,
    /// Heads that went while segments are still being read; `None` when all have been.
    gone: Option<HashSet<(u128, u64)>>,
}

impl Index {
    /// An empty one that segments are yet to be read into.
    pub fn recovering() -> Self {
        Self { gone: Some(HashSet::new()), ..Self::default() }
    }

    /// All segments have been read.
    pub fn recovered(&mut self) {
        self.gone = None;
    }

    /// A part that has just been written.
    pub fn insert_part(&mut self, header: &Header, at: At) {
        self.parts.insert(part_id(header), PartEntry::new(header, at));
    }

    /// What is here of a variant is no longer what is stored of it: nothing is, or soon the head of the put `next`. True when
    /// there was something, or when that may turn up in a segment that has not been read.
    pub fn supersede(&mut self, family: u128, variant: u64, next: Option<u64>) -> bool {
        let waited = match next {
            Some(put) => self.pending.insert((family, variant), put),
            None => self.pending.remove(&(family, variant)),
        };
        self.note_gone(family, variant);
        self.take(family, variant) || waited.is_some() || self.gone.is_some()
    }

    /// Is the head of this put still what is to be stored of its variant?
    pub fn is_pending(&self, family: u128, variant: u64, put: u64) -> bool {
        self.pending.get(&(family, variant)) == Some(&put)
    }

    /// A head that has just been written; false when it has been superseded meanwhile.
    pub fn commit(&mut self, header: &Header, put: u64, at: At, variants_max: usize) -> bool {
        if !self.is_pending(header.id, header.variant, put) {
            return false;
        }
        self.pending.remove(&(header.id, header.variant));
        self.take(header.id, header.variant);
        self.add(header.id, Entry::new(header.variant, at), variants_max, false);
        true
    }

    /// A record of an earlier run, older than all that are here.
    pub fn recover(&mut self, header: &Header, at: At) {
        match header.kind {
            Kind::Head => {
                let is_known = self.find(header.id, header.variant).is_some();
                let is_gone = self.gone.as_ref().is_some_and(|gone| gone.contains(&(header.id, header.variant)));
                if !is_known && !is_gone {
                    self.add(header.id, Entry::new(header.variant, at), VARIANTS_MAX, true);
                }
            }
            Kind::Part => {
                self.parts.entry(part_id(header)).or_insert_with(|| PartEntry::new(header, at));
            }
            Kind::Tombstone => {
                if self.find(header.id, header.variant).is_none() {
                    self.note_gone(header.id, header.variant);
                }
            }
            Kind::Purge => {}
        }
    }

    fn add(&mut self, family: u128, entry: Entry, variants_max: usize, oldest: bool) {
        let mut entries = match self.families.remove(&family) {
            None => Vec::new(),
            Some(Family::One(other)) => vec![other],
            Some(Family::Many(entries)) => entries,
        };
        entries.insert(if oldest { entries.len() } else { 0 }, entry);
        self.heads += 1;
        while entries.len() > variants_max.max(1)
            && let Some(oldest) = entries.pop()
        {
            self.heads -= 1;
            self.note_gone(family, oldest.variant);
        }
        let joined = match <[Entry; 1]>::try_from(entries) {
            Ok([entry]) => Family::One(entry),
            Err(entries) => Family::Many(entries),
        };
        self.families.insert(family, joined);
    }

    fn find(&self, family: u128, variant: u64) -> Option<&Entry> {
        self.families.get(&family)?.entries().iter().find(|entry| entry.variant == variant)
    }

    fn note_gone(&mut self, family: u128, variant: u64) {
        if let Some(gone) = &mut self.gone {
            gone.insert((family, variant));
        }
    }

    /// Takes an entry out of a family.
    fn take(&mut self, family: u128, variant: u64) -> bool {
        let is_meant = |entry: &Entry| entry.variant == variant;
        let Some(found) = self.families.get_mut(&family) else { return false };
        let before = found.entries().len();
        if let Family::Many(entries) = found {
            entries.retain(|entry| !is_meant(entry));
        }
        let left = found.entries().iter().filter(|entry| !is_meant(entry)).count();
        if left == 0 {
            self.families.remove(&family);
        }
        self.heads -= before - left;
        left < before
    }

    /// Forgets a record, if it is still the one that is meant.
    pub fn remove_at(&mut self, header: &Header, at: At) -> bool {
        match header.kind {
            Kind::Head => self.remove_head_at(header.id, at),
            Kind::Part => self.remove_part_at(part_id(header), at),
            Kind::Tombstone | Kind::Purge => false,
        }
    }

    /// As [`Index::remove_at`], of a head. An older one of its variant, in a segment that has not been read, does not come back.
    pub fn remove_head_at(&mut self, family: u128, at: At) -> bool {
        let entries = self.families.get(&family).map(Family::entries).unwrap_or_default();
        let Some(variant) = entries.iter().find(|entry| entry.at == at).map(|entry| entry.variant) else {
            return false;
        };
        self.note_gone(family, variant);
        self.take(family, variant)
    }

    pub fn remove_part_at(&mut self, id: u64, at: At) -> bool {
        let is_meant = self.parts.get(&id).is_some_and(|entry| entry.at == at);
        is_meant && self.parts.remove(&id).is_some()
    }

    /// Is this record the one that the index names? Then, whether it was used since it was written; it counts as unused from
    /// now on.
    pub fn take_use(&self, header: &Header, at: At) -> Option<bool> {
        let (found, used) = match header.kind {
            Kind::Head => self.find(header.id, header.variant).map(|entry| (entry.at, &entry.used))?,
            Kind::Part => self.parts.get(&part_id(header)).map(|entry| (entry.at, &entry.used))?,
            Kind::Tombstone | Kind::Purge => return None,
        };
        (found == at).then(|| used.swap(false, Ordering::Relaxed))
    }

    /// The record is somewhere else now.
    pub fn move_to(&mut self, header: &Header, to: At) {
        match header.kind {
            Kind::Head => {
                let entries = match self.families.get_mut(&header.id) {
                    Some(Family::One(entry)) => std::slice::from_mut(entry),
                    Some(Family::Many(entries)) => &mut entries[..],
                    None => return,
                };
                if let Some(entry) = entries.iter_mut().find(|entry| entry.variant == header.variant) {
                    entry.at = to;
                }
            }
            Kind::Part => {
                if let Some(entry) = self.parts.get_mut(&part_id(header)) {
                    entry.at = to;
                }
            }
            Kind::Tombstone | Kind::Purge => {}
        }
    }

    /// The variants of a family, newest first.
    pub fn heads(&self, family: u128) -> Vec<At> {
        self.families
            .get(&family)
            .map(|family| family.entries().iter().map(|entry| entry.at).collect())
            .unwrap_or_default()
    }

    pub fn knows(&self, family: u128) -> bool {
        self.families.contains_key(&family)
    }

    pub fn use_head(&self, family: u128, at: At) {
        let entries = self.families.get(&family).map(Family::entries).unwrap_or_default();
        if let Some(entry) = entries.iter().find(|entry| entry.at == at) {
            entry.used.store(true, Ordering::Relaxed);
        }
    }

    /// Where a part is, and its checksum.
    pub fn part(&self, id: u64) -> Option<(At, u32)> {
        self.parts.get(&id).map(|entry| (entry.at, entry.crc))
    }

    /// As [`Index::part`], for who is going to read it.
    pub fn use_part(&self, id: u64) -> Option<At> {
        let entry = self.parts.get(&id)?;
        entry.used.store(true, Ordering::Relaxed);
        Some(entry.at)
    }

    /// Every head, in no order.
    pub fn all_heads(&self) -> impl Iterator<Item = (u128, At)> {
        self.families.iter().flat_map(|(family, entries)| entries.entries().iter().map(|entry| (*family, entry.at)))
    }

    /// Cache keys that have heads here.
    pub fn keys(&self) -> usize {
        self.families.len()
    }

    /// Heads and parts.
    pub fn records(&self) -> usize {
        self.heads + self.parts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: Kind, id: u128, variant: u64) -> Header {
        Header { variant, ..Header::new(kind, id, b"", b"").unwrap() }
    }

    fn insert(index: &mut Index, header: &Header, at: At) {
        index.supersede(header.id, header.variant, Some(at.offset.into()));
        assert!(index.commit(header, at.offset.into(), at, 64));
    }

    fn at(offset: u32) -> At {
        At { segment: 1, offset, head_len: 0, body_len: 0 }
    }

    #[test]
    fn a_later_head_takes_the_place_of_its_variant_alone() {
        let mut index = Index::default();
        for (variant, offset) in [(1, 10), (2, 20), (1, 30)] {
            insert(&mut index, &header(Kind::Head, 7, variant), at(offset));
        }
        assert_eq!(index.heads(7), [at(30), at(20)], "newest first");
        assert_eq!((index.keys(), index.records()), (1, 2));
        assert!(!index.remove_head_at(7, at(10)), "it is not there any more");
        assert!(index.supersede(7, 1, None) && !index.supersede(7, 1, None));
        assert_eq!(index.heads(7), [at(20)]);
        assert!(index.supersede(7, 2, None));
        assert_eq!((index.keys(), index.records()), (0, 0));
    }

    #[test]
    fn what_was_superseded_while_it_waited_is_not_committed() {
        let mut index = Index::default();
        let header = header(Kind::Head, 7, 1);
        assert!(!index.supersede(7, 1, Some(100)), "nothing was there");
        assert!(index.supersede(7, 1, Some(200)));
        assert!(!index.commit(&header, 100, at(10), 64) && index.commit(&header, 200, at(20), 64));
        index.supersede(7, 1, Some(300));
        assert!(index.supersede(7, 1, None) && !index.commit(&header, 300, at(30), 64));
        assert!(index.heads(7).is_empty());
    }

    #[test]
    fn a_family_keeps_its_newest_variants() {
        let mut index = Index::default();
        for variant in 0..100 {
            insert(&mut index, &header(Kind::Head, 7, variant), at(variant as u32));
        }
        assert_eq!((index.heads(7).len(), index.records()), (64, 64));
        assert_eq!(index.heads(7)[0], at(99));
    }

    #[test]
    fn what_is_recovered_is_older_than_what_is_there_and_than_what_went_meanwhile() {
        let mut index = Index::recovering();
        insert(&mut index, &header(Kind::Head, 1, 0), at(100));
        index.supersede(2, 0, None);
        index.recover(&header(Kind::Tombstone, 3, 0), at(90));
        index.recover(&header(Kind::Head, 5, 0), at(80));
        assert!(index.remove_head_at(5, at(80)), "it could not be read");
        insert(&mut index, &header(Kind::Head, 6, 0), at(101));
        let newer = header(Kind::Head, 6, 1);
        index.supersede(6, 1, Some(102));
        assert!(index.commit(&newer, 102, at(102), 1), "one variant may be kept");
        for family in 1..=6 {
            index.recover(&header(Kind::Head, family, 0), at(50));
        }
        index.recovered();
        let heads: Vec<_> = (1..=6).map(|family| index.heads(family)).collect();
        assert_eq!(heads, [vec![at(100)], vec![], vec![], vec![at(50)], vec![], vec![at(102)]]);
        assert_eq!(index.records(), 3);
    }

    #[test]
    fn a_tombstone_does_not_touch_what_came_after_it() {
        let mut index = Index::recovering();
        index.recover(&header(Kind::Head, 1, 0), at(100));
        index.recover(&header(Kind::Tombstone, 1, 0), at(90));
        index.recover(&header(Kind::Head, 1, 0), at(80));
        assert_eq!(index.heads(1), [at(100)]);
    }

    #[test]
    fn use_is_noted_once_and_of_the_record_that_is_meant() {
        let mut index = Index::default();
        let (head, part) = (header(Kind::Head, 1, 0), header(Kind::Part, 2, 0));
        insert(&mut index, &head, at(1));
        index.insert_part(&part, at(2));
        index.use_head(1, at(1));
        assert_eq!(index.use_part(2), Some(at(2)));
        assert_eq!((index.take_use(&head, at(1)), index.take_use(&part, at(2))), (Some(true), Some(true)));
        assert_eq!((index.take_use(&head, at(1)), index.take_use(&head, at(9))), (Some(false), None));
    }
}
