//! What is stored: found in memory or below it, and read piece by piece.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use bytes::Bytes;
use http::HeaderMap;

use super::{
    Body, Part, PurgeVerdict, Store, Stored,
    below::{Held, Spot, Verdict},
};
use crate::cache::{Key, Vary};

/// Variants that a promotion may leave in memory: it adds to them what was stored before.
const PROMOTED_MAX: usize = 10_000;

/// A stored response and what purges say of it.
#[derive(Debug, Clone)]
pub struct Found {
    pub stored: Arc<Stored>,
    /// Soft-purged at this instant: expired since then.
    pub soft_purged: Option<SystemTime>,
}

/// A variant and the nearest tier that has it.
#[derive(Debug, Clone)]
pub struct Variant {
    pub found: Found,
    pub tier: &'static str,
}

#[derive(Debug, Clone)]
pub enum Lookup {
    Found(Found),
    /// The key is known, this variant of it is not. What the newest of the others says of `Vary`.
    VaryMiss(Vary),
    Miss,
}

impl Store {
    /// The stored response that a request with these fields selects, wherever it is. Waits only for what memory has not.
    pub async fn find(&self, key: &Key, request: &HeaderMap) -> Lookup {
        let above = self.lookup(key, request);
        if matches!(above, Lookup::Found(_)) || !self.below.knows(key.hash()) {
            return above;
        }
        // In a box: the future of a request that is answered from memory stays as small as it is.
        Box::pin(self.find_below(above, key, request)).await
    }

    async fn find_below(&self, above: Lookup, key: &Key, request: &HeaderMap) -> Lookup {
        let mut other = match above {
            Lookup::VaryMiss(vary) => Some(vary),
            Lookup::Found(_) | Lookup::Miss => None,
        };
        let found = self.below.find(key.hash(), |stored, _| {
            if stored.key.text() != key.text() {
                return Verdict::Another;
            }
            if matches!(self.verdict(stored), PurgeVerdict::Hard) {
                return Verdict::Gone;
            }
            if stored.is_selected_by(request) {
                return Verdict::Meant;
            }
            other.get_or_insert_with(|| stored.meta.vary().clone());
            Verdict::Another
        });
        let Some((stored, spot)) = found.await else { return other.map_or(Lookup::Miss, Lookup::VaryMiss) };
        self.promote(&stored, spot);
        // A hard purge may have come in this very moment.
        self.as_found(stored).map_or(Lookup::Miss, Lookup::Found)
    }

    /// What was found a while ago, as purges leave it now; `None`: it is not to be used any more.
    pub fn again(&self, found: &Found) -> Option<Found> {
        self.as_found(Arc::clone(&found.stored))
    }

    fn as_found(&self, stored: Arc<Stored>) -> Option<Found> {
        let soft_purged = match self.verdict(&stored) {
            PurgeVerdict::Untouched => None,
            PurgeVerdict::Soft(at) => Some(at),
            PurgeVerdict::Hard => return None,
        };
        Some(Found { stored, soft_purged })
    }

    /// Puts what was found below into memory, unless there is something newer by now.
    fn promote(&self, stored: &Arc<Stored>, spot: Spot) {
        let family = stored.key.hash();
        self.memory.put_if(stored, PROMOTED_MAX, || self.below.is_current(family, spot));
    }

    /// The stored response in memory that a request with these fields selects. Never waits.
    pub fn lookup(&self, key: &Key, request: &HeaderMap) -> Lookup {
        let Some(family) = self.memory.family(key.hash()) else { return Lookup::Miss };
        let mut other = None;
        for stored in &family.variants {
            if stored.key.text() != key.text() {
                // Two texts, one hash: the older response is not this one.
                continue;
            }
            // First of all: what was purged is no other variant either.
            let Some(found) = self.as_found(Arc::clone(stored)) else {
                self.memory.remove(stored);
                continue;
            };
            if stored.is_selected_by(request) {
                return Lookup::Found(found);
            }
            other = other.or(Some(stored));
        }
        other.map_or(Lookup::Miss, |other| Lookup::VaryMiss(other.meta.vary().clone()))
    }

    /// Every variant under a key, newest first, and when a soft purge expired it. For people who ask.
    pub async fn variants(&self, key: &Key) -> Vec<Variant> {
        let mut found: Vec<Variant> = Vec::new();
        let mut look = |stored: &Arc<Stored>, tier| {
            if stored.key.text() != key.text() {
                return Verdict::Another;
            }
            let Some(it) = self.as_found(Arc::clone(stored)) else { return Verdict::Gone };
            if !found.iter().any(|there| there.found.stored.is_same_variant(stored)) {
                found.push(Variant { found: it, tier });
            }
            Verdict::Another
        };
        let family = self.memory.family(key.hash());
        for stored in family.iter().flat_map(|family| &family.variants) {
            look(stored, "memory");
        }
        self.below.find(key.hash(), |stored, tier| look(stored, tier)).await;
        found
    }

    /// [`Store::find`], where only what is there matters.
    pub async fn found(&self, key: &Key, request: &HeaderMap) -> Option<Found> {
        match self.find(key, request).await {
            Lookup::Found(found) => Some(found),
            Lookup::VaryMiss(_) | Lookup::Miss => None,
        }
    }

    pub(super) fn verdict(&self, stored: &Stored) -> PurgeVerdict {
        let position = self.purges.position();
        if stored.checked.load(Ordering::Acquire) == position {
            return PurgeVerdict::Untouched;
        }
        let verdict = self.purges.check(stored.position, &stored.subject());
        if matches!(verdict, PurgeVerdict::Untouched) {
            stored.checked.store(position, Ordering::Release);
        }
        verdict
    }

    /// May a tier below have something under this key that memory has not? Costs no I/O.
    pub fn is_below(&self, key: &Key) -> bool {
        self.below.knows(key.hash())
    }

    /// The bytes of a body, or nothing when some of them are not in memory. Never waits.
    pub fn in_memory(&self, stored: &Stored) -> Option<Vec<Bytes>> {
        match &stored.body {
            Body::Inline(bytes) => Some(vec![bytes.clone()]),
            Body::Parts(parts) if stored.body.is_whole() => {
                parts.all().iter().map(|part| self.memory.part(part)).collect()
            }
            Body::Parts(_) => None,
        }
    }

    /// The bytes of `range` in pieces that stay readable, or nothing when some of them are not here.
    pub fn hold(&self, stored: &Stored, range: Range<u64>) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let mut piece = match &stored.body {
                Body::Inline(bytes) => Piece {
                    range: at..bytes.len() as u64,
                    from: From::Memory(bytes.slice(usize::try_from(at).ok()?..)),
                },
                Body::Parts(parts) => {
                    let part = parts.at(at).ok()?;
                    let from = match self.memory.part(&part) {
                        Some(bytes) => From::Memory(bytes.slice((at - part.start) as usize..)),
                        None => From::Below(part, self.below.hold(&part)?),
                    };
                    Piece { range: at..part.end(), from }
                }
            };
            piece.range.end = piece.range.end.min(range.end);
            at = piece.range.end;
            pieces.push(piece);
        }
        Some(pieces)
    }

    /// The bytes of a piece of a body; nothing when its tier failed.
    pub async fn bytes(&self, stored: &Stored, piece: &Piece) -> Option<Bytes> {
        let length = (piece.range.end - piece.range.start) as usize;
        match &piece.from {
            From::Memory(bytes) => Some(bytes.slice(..length)),
            From::Below(part, held) => {
                // Somebody else may have read it meanwhile.
                let bytes = match self.memory.part(part) {
                    Some(bytes) => bytes,
                    None => {
                        let bytes = self.below.read(part, held).await?;
                        if stored.body.length() <= self.memory.object_max() {
                            self.memory.keep(part, bytes.clone());
                        }
                        bytes
                    }
                };
                let skip = (piece.range.start - part.start) as usize;
                Some(bytes.slice(skip..skip + length))
            }
        }
    }

    /// What is here of a body from `at` on, which must be before its end.
    pub async fn read(&self, stored: &Stored, at: u64) -> Read {
        let end = match &stored.body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::Parts(parts) => match parts.at(at) {
                Ok(part) => part.end(),
                Err(until) => return Read::Hole { until },
            },
        };
        if let Some(pieces) = self.hold(stored, at..end)
            && let Some(piece) = pieces.first()
            && let Some(bytes) = self.bytes(stored, piece).await
        {
            return Read::Bytes(bytes);
        }
        Read::Hole { until: end }
    }

    /// The first bytes of `range` that are not here.
    pub fn hole(&self, stored: &Stored, range: Range<u64>) -> Option<Range<u64>> {
        let Body::Parts(parts) = &stored.body else { return None };
        // To where they are here from `at` on, or to where they are not.
        let look = |at| match parts.at(at) {
            Ok(part) if self.holds(&part) => Ok(part.end()),
            Ok(part) => Err(part.end()),
            Err(until) => Err(until),
        };
        let mut at = range.start;
        while at < range.end {
            match look(at) {
                Ok(end) => at = end,
                Err(mut end) => {
                    // What follows may be missing too.
                    while end < range.end
                        && let Err(further) = look(end)
                    {
                        end = further;
                    }
                    return Some(at..end.min(range.end));
                }
            }
        }
        None
    }

    pub(super) fn holds(&self, part: &Part) -> bool {
        self.memory.holds(part.id) || self.below.holds(part)
    }
}

/// Some bytes of a stored body, which stay readable.
#[derive(Debug)]
pub struct Piece {
    /// Of the body.
    pub range: Range<u64>,
    from: From,
}

#[derive(Debug)]
enum From {
    /// From the beginning of the piece on.
    Memory(Bytes),
    /// The part that they lie in.
    Below(Part, Held),
}

/// What is here from some offset on.
#[derive(Debug, Clone)]
pub enum Read {
    /// At least one byte.
    Bytes(Bytes),
    /// Nothing before this offset.
    Hole { until: u64 },
}
