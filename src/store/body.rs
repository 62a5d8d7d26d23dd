//! Where the bytes of a stored body are: beside the head, or in a sparse set of parts.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};

/// A body up to this size lies beside its head; a larger one is cut into parts.
pub const INLINE_MAX: u64 = 64 * 1024;
/// The unit of large bodies.
pub const PART_BYTES: usize = 1024 * 1024;

/// Parts of one body beyond what a whole one needs; who asks for more scattered ranges is served, but they are not kept.
const SCATTERED_MAX: u64 = 256;

/// A stored body, or as much of it as there is.
#[derive(Debug, Clone)]
pub enum Body {
    /// All of a small body.
    Inline(Bytes),
    /// Some or all of a body. A tier may have lost any part of it.
    Parts(Parts),
}

/// A sparse set of parts.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Bytes of the complete body.
    length: u64,
    /// In order; none is empty, no two overlap.
    parts: Arc<[Part]>,
}

/// Some bytes of a body: at most [`PART_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its name in the memory tier: unique in this process.
    pub id: u64,
    /// Offset of its first byte in the complete body.
    pub start: u64,
    pub length: u32,
}

impl Part {
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.length)
    }
}

impl Parts {
    /// `parts`: in order, not overlapping.
    pub fn new(length: u64, parts: Vec<Part>) -> Self {
        Self { length, parts: parts.into() }
    }

    /// Bytes of the complete body.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// In the order of their offsets.
    pub fn all(&self) -> &[Part] {
        &self.parts
    }

    /// The part that holds the byte at `at`, or where the next one begins (or the body ends).
    pub fn at(&self, at: u64) -> Result<Part, u64> {
        let next = self.parts.partition_point(|part| part.end() <= at);
        match self.parts.get(next) {
            Some(part) if part.start <= at => Ok(*part),
            Some(part) => Err(part.start),
            None => Err(self.length),
        }
    }

    /// Would parts in all of `gaps` not be too many?
    pub fn has_room_for(&self, gaps: &[Range<u64>]) -> bool {
        let part = PART_BYTES as u64;
        let more: u64 = gaps.iter().map(|gap| (gap.end - gap.start).div_ceil(part)).sum();
        self.parts.len() as u64 + more <= self.length.div_ceil(part) + SCATTERED_MAX
    }

    /// With `newer`, which lie in [`gaps`](Self::gaps) of this.
    pub fn with(&self, newer: impl Iterator<Item = Part>) -> Self {
        let mut parts: Vec<_> = self.parts.iter().copied().chain(newer).collect();
        parts.sort_unstable_by_key(|part| part.start);
        Self::new(self.length, parts)
    }

    /// With `newer`, in order, in the place of what they lie over; `None` where that would be too many.
    pub fn under(&self, newer: &[Part]) -> Option<Self> {
        let is_over = |old: &Part| {
            let next = newer.partition_point(|part| part.end() <= old.start);
            newer.get(next).is_some_and(|part| part.start < old.end())
        };
        let mut parts: Vec<_> = self.parts.iter().filter(|old| !is_over(old)).chain(newer).copied().collect();
        parts.sort_unstable_by_key(|part| part.start);
        let whole = self.length.div_ceil(PART_BYTES as u64);
        (parts.len() as u64 <= whole + SCATTERED_MAX).then(|| Self::new(self.length, parts))
    }

    /// What of `range` no part holds.
    pub fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        while at < range.end {
            match self.at(at) {
                Ok(part) => at = part.end(),
                Err(next) => {
                    let end = next.min(range.end);
                    gaps.push(at..end);
                    at = end;
                }
            }
        }
        gaps
    }
}

impl Body {
    /// Bytes of the complete body.
    pub fn length(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Parts(parts) => parts.length,
        }
    }

    /// Bytes that are here.
    pub fn held(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Parts(parts) => parts.parts.iter().map(|part| u64::from(part.length)).sum(),
        }
    }

    /// Was all of it stored?
    pub fn is_whole(&self) -> bool {
        self.held() == self.length()
    }
}

/// The bytes of `range` of what lies in `pieces` one behind the other.
pub fn cut(pieces: &[Bytes], range: Range<u64>) -> Vec<Bytes> {
    let mut found = Vec::new();
    let mut offset = 0;
    for piece in pieces {
        let length = piece.len() as u64;
        let from = range.start.saturating_sub(offset).min(length) as usize;
        let to = range.end.saturating_sub(offset).min(length) as usize;
        if from < to {
            found.push(piece.slice(from..to));
        }
        offset += length;
    }
    found
}

/// The bytes of a body in pieces of [`PART_BYTES`], the last one what is left.
pub fn each_part(chunks: &[Bytes], mut each: impl FnMut(Bytes)) {
    let mut part = BytesMut::new();
    for chunk in chunks {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            if part.capacity() == 0 {
                part.reserve(PART_BYTES);
            }
            let take = rest.len().min(PART_BYTES - part.len());
            part.extend_from_slice(&rest[..take]);
            rest = &rest[take..];
            if part.len() == PART_BYTES {
                each(std::mem::take(&mut part).freeze());
            }
        }
    }
    if !part.is_empty() {
        each(Bytes::copy_from_slice(&part));
    }
}

/// All of it in one piece.
pub fn joined(chunks: &[Bytes], length: u64) -> Bytes {
    let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(start: u64, end: u64) -> Part {
        Part { id: start, start, length: u32::try_from(end - start).expect("small") }
    }

    #[test]
    fn parts_know_what_they_hold_and_what_is_missing() {
        let parts = Parts::new(20, vec![part(2, 5), part(5, 8), part(12, 15)]);
        assert_eq!(parts.at(2), Ok(part(2, 5)));
        assert_eq!(parts.at(7), Ok(part(5, 8)));
        assert_eq!((parts.at(0), parts.at(8), parts.at(15)), (Err(2), Err(12), Err(20)));
        assert_eq!(parts.gaps(0..20), [0..2, 8..12, 15..20]);
        assert_eq!(parts.gaps(3..7), []);
        assert_eq!(parts.gaps(7..16), [8..12, 15..16]);
        let body = Body::Parts(parts);
        assert_eq!((body.length(), body.held(), body.is_whole()), (20, 9, false));
    }

    #[test]
    fn what_is_there_already_stays() {
        let parts = Parts::new(10, vec![part(2, 5)]);
        let gaps = parts.gaps(0..10);
        let more = parts.with(gaps.into_iter().map(|gap| part(gap.start, gap.end)));
        assert_eq!(more.all(), [part(0, 2), part(2, 5), part(5, 10)]);
        assert!(Body::Parts(more).is_whole());
    }

    #[test]
    fn what_has_been_written_takes_the_place_of_what_it_lies_over() {
        let parts = Parts::new(30, vec![part(0, 5), part(5, 10), part(20, 25)]);
        let more = parts.under(&[part(4, 8), part(8, 12), part(25, 30)]).expect("few");
        assert_eq!(more.all(), [part(4, 8), part(8, 12), part(20, 25), part(25, 30)]);
    }

    #[test]
    fn scattered_parts_are_bounded() {
        let mut parts = Parts::new(10_000, Vec::new());
        let mut kept = 0;
        for at in 0..1_000 {
            let gaps = parts.gaps(at * 3..at * 3 + 1);
            if !parts.has_room_for(&gaps) {
                break;
            }
            (parts, kept) = (parts.with(std::iter::once(part(at * 3, at * 3 + 1))), kept + 1);
        }
        assert_eq!(kept, SCATTERED_MAX + 1);
    }

    #[test]
    fn a_range_is_cut_over_the_seams_of_pieces() {
        let pieces = ["0123", "", "4567", "89"].map(|text| Bytes::from_static(text.as_bytes()));
        for (range, expected) in [(0..10, "0123456789"), (3..5, "34"), (4..8, "4567"), (9..10, "9"), (5..5, "")] {
            assert_eq!(cut(&pieces, range).concat(), expected.as_bytes());
        }
    }
}
