//! Where the bytes of a stored body are: beside the head, or in a sparse set of parts.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

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

/// Some bytes of a body: at most [`PART_BYTES`](super::PART_BYTES).
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

    /// With those of `newer` that lie in no part of this; `None` where that would be too many.
    pub fn with(&self, newer: &[Part]) -> Option<Self> {
        let mut parts = self.parts.to_vec();
        parts.extend(
            newer.iter().filter(|new| !self.parts.iter().any(|old| old.start < new.end() && new.start < old.end())),
        );
        parts.sort_unstable_by_key(|part| part.start);
        let whole = self.length.div_ceil(super::PART_BYTES as u64);
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
        let more = parts.with(&[part(0, 2), part(4, 6), part(5, 10)]).expect("few");
        assert_eq!(more.all(), [part(0, 2), part(2, 5), part(5, 10)]);
        assert!(Body::Parts(more).is_whole());
    }

    #[test]
    fn scattered_parts_are_bounded() {
        let mut parts = Parts::new(10_000, Vec::new());
        let mut kept = 0;
        for at in 0..1_000 {
            match parts.with(&[part(at * 3, at * 3 + 1)]) {
                Some(more) => (parts, kept) = (more, kept + 1),
                None => break,
            }
        }
        assert_eq!(kept, SCATTERED_MAX + 1);
    }
}
