//! The index in pieces, each under a lock of its own: one that grows stops next to nobody.

use parking_lot::RwLock;

use super::{
    index::{Index, part_id},
    record::{Header, Kind},
};

/// Enough that a piece of a million records is copied within a millisecond when it grows.
const SHARDS: usize = 64;

/// What is of one family, or of one part, is in one piece.
pub struct Shards(Box<[RwLock<Index>]>);

impl Shards {
    /// Empty ones that segments are yet to be read into.
    pub fn recovering() -> Self {
        Self((0..SHARDS).map(|_| RwLock::new(Index::recovering())).collect())
    }

    /// Where a family is.
    pub fn family(&self, family: u128) -> &RwLock<Index> {
        // A seeded hash.
        &self.0[(family as usize) % SHARDS]
    }

    /// Where a part is.
    pub fn part(&self, id: u64) -> &RwLock<Index> {
        // A count.
        &self.0[(id as usize) % SHARDS]
    }

    /// Where what this record says belongs.
    pub fn record(&self, header: &Header) -> &RwLock<Index> {
        match header.kind {
            Kind::Part => self.part(part_id(header)),
            Kind::Head | Kind::Tombstone | Kind::Purge => self.family(header.id),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &RwLock<Index>> {
        self.0.iter()
    }

    /// Heads and parts.
    pub fn records(&self) -> usize {
        self.all().map(|index| index.read().records()).sum()
    }

    /// Cache keys that have heads here.
    pub fn keys(&self) -> usize {
        self.all().map(|index| index.read().keys()).sum()
    }
}
