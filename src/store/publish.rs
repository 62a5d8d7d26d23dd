//! Storing: a response is put together of what has come, and given to every tier.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use super::{
    Body, Fill, INLINE_MAX, PART_BYTES, Part, Parts, Position, PurgeVerdict, Store, Stored,
    below::Verdict,
    body::{cut, each_part, joined},
    coded::Copies,
    text_hash,
};
use crate::cache::{self, Key, Meta, Span, VariantKey, group_text};

/// Variants that a freshening may leave: it adds one only where `Vary` changes, and the next new one brings the
/// policy's maximum to bear.
const FRESHENED_MAX: usize = 10_000;

/// What names a response that is about to be stored.
#[derive(Debug, Clone)]
pub struct Place {
    pub key: Arc<Key>,
    pub url: u128,
    /// The position when its fetch began.
    pub position: Position,
    /// Variants of this key that may be stored; the oldest goes first.
    pub variants_max: usize,
}

/// A body that is written below while it comes.
#[derive(Debug)]
pub struct Writing {
    /// What has been given away.
    parts: Vec<Part>,
    /// Where the next one begins.
    at: u64,
    /// Less than a part.
    pending: Vec<Bytes>,
    waiting: usize,
}

impl Store {
    /// Stores a response whose body has come whole. Answers with the response also when a purge that came
    /// meanwhile keeps it out of the store.
    pub fn publish(&self, place: Place, meta: Meta, variant: VariantKey, chunks: &[Bytes]) -> Arc<Stored> {
        let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let body = if length <= INLINE_MAX {
            Body::Inline(joined(chunks, length))
        } else {
            Body::Parts(Parts::new(length, self.keep_parts(chunks, 0)))
        };
        let variants_max = place.variants_max;
        let stored = Arc::new(self.stored(place, meta, variant, body));
        self.put(&stored, variants_max);
        stored
    }

    /// The body of what is in memory alone.
    pub(super) fn keep_in_memory(&self, bytes: &Bytes) -> Body {
        let length = bytes.len() as u64;
        if length <= INLINE_MAX {
            return Body::Inline(bytes.clone());
        }
        let (mut parts, mut at) = (Vec::new(), 0);
        each_part(std::slice::from_ref(bytes), |bytes| {
            let part = self.new_part(at, &bytes);
            at = part.end();
            self.memory.keep(&part, bytes);
            parts.push(part);
        });
        Body::Parts(Parts::new(length, parts))
    }

    /// Gives some bytes of a body, the first of which is at `start`, to the tiers.
    fn keep_parts(&self, chunks: &[Bytes], start: u64) -> Vec<Part> {
        let length: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let mut parts = Vec::new();
        let mut at = start;
        each_part(chunks, |bytes| {
            let part = self.new_part(at, &bytes);
            at = part.end();
            self.below.put_part(part.id, &bytes);
            if length <= self.memory.object_max() {
                self.memory.keep(&part, bytes);
            }
            parts.push(part);
        });
        parts
    }

    fn new_part(&self, start: u64, bytes: &Bytes) -> Part {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Part { id: self.next_part.fetch_add(1, Ordering::Relaxed), start, length }
    }

    /// Has the body of a fill written below while it comes; its first byte is at `start` of the representation.
    pub fn write_through(&self, fill: &Fill, start: u64) -> Writing {
        fill.write_through(Arc::clone(&self.below), start);
        Writing { parts: Vec::new(), at: start, pending: Vec::new(), waiting: 0 }
    }

    /// Goes on with it. False when the lower tier cannot follow: then it is not going to be stored.
    pub fn write(&self, writing: &mut Writing, fill: &Fill, piece: &Bytes) -> bool {
        writing.pending.push(piece.clone());
        writing.waiting += piece.len();
        writing.waiting < PART_BYTES || self.write_parts(writing, fill, PART_BYTES)
    }

    /// Writes what makes parts of at least so many bytes.
    fn write_parts(&self, writing: &mut Writing, fill: &Fill, least: usize) -> bool {
        let pending = std::mem::take(&mut writing.pending);
        writing.waiting = 0;
        let mut follows = true;
        each_part(&pending, |bytes| {
            if bytes.len() < least {
                writing.waiting = bytes.len();
                writing.pending.push(bytes);
                return;
            }
            let part = self.new_part(writing.at, &bytes);
            writing.at = part.end();
            writing.parts.push(part);
            follows &= self.below.put_part(part.id, &bytes) && fill.note_part(part);
        });
        follows
    }

    /// Stores the response whose body has been written whole, or the `span` of it.
    pub async fn publish_written(
        &self,
        place: Place,
        meta: Meta,
        variant: VariantKey,
        span: Option<&Span>,
        mut writing: Writing,
        fill: &Fill,
    ) {
        // What is found is there: until then the fill is joined.
        if !self.write_parts(&mut writing, fill, 1) || !self.below.written().await {
            return;
        }
        match span {
            Some(span) => {
                let add = |there: Parts| there.under(&writing.parts).unwrap_or(there);
                self.join(place, meta, variant, span.length, add).await;
            }
            None => {
                let variants_max = place.variants_max;
                let body = Body::Parts(Parts::new(writing.at, writing.parts));
                self.put(&Arc::new(self.stored(place, meta, variant, body)), variants_max);
            }
        }
    }

    /// Stores some bytes of a body, beside those that are stored already of the same one: they must have the same strong
    /// validator (RFC 9111 3.4). Else they take the place of what is stored.
    pub async fn publish_part(&self, place: Place, meta: Meta, variant: VariantKey, span: &Span, chunks: &[Bytes]) {
        self.join(place, meta, variant, span.length, |there| self.filled(there, span, chunks)).await;
    }

    /// `there` with what `span` adds to it. Where that would scatter it too much, what is there stays.
    fn filled(&self, there: Parts, span: &Span, chunks: &[Bytes]) -> Parts {
        let gaps = there.gaps(span.start..span.end);
        if !there.has_room_for(&gaps) {
            return there;
        }
        let newer = gaps.into_iter().flat_map(|gap| {
            let pieces = cut(chunks, gap.start - span.start..gap.end - span.start);
            self.keep_parts(&pieces, gap.start)
        });
        there.with(newer)
    }

    /// Stores what `add` makes of the parts that are stored already of this very body of `length` bytes.
    async fn join(&self, place: Place, meta: Meta, variant: VariantKey, length: u64, add: impl FnOnce(Parts) -> Parts) {
        let variants_max = place.variants_max;
        let nothing = Parts::new(length, Vec::new());
        let mut stored = self.stored(place, meta, variant, Body::Parts(nothing.clone()));
        if self.is_purged(&stored) {
            return;
        }
        let family = stored.key.hash();
        let is_same =
            |other: &Stored, stored: &Stored| other.is_same_variant(stored) && other.key.text() == stored.key.text();
        // Memory may not have kept what the rest of it is stored under.
        let in_memory = self.memory.family(family);
        let below = match in_memory.is_some_and(|family| family.variants.iter().any(|other| is_same(other, &stored))) {
            true => None,
            false => {
                let meant = |other: &Arc<Stored>, _: &str| match is_same(other, &stored) {
                    true => Verdict::Meant,
                    false => Verdict::Another,
                };
                self.below.find(family, meant).await.map(|(stored, _)| stored)
            }
        };
        let put = self.memory.put_with(family, variants_max, |others| {
            let mut there = nothing;
            let other = others.iter().find(|other| is_same(other, &stored)).or(below.as_ref());
            if let Some(other) = other
                && other.body.length() == length
                && cache::same_entity(&other.meta, &stored.meta)
                && !matches!(self.verdict(other), PurgeVerdict::Hard)
            {
                match &other.body {
                    Body::Inline(_) => {
                        stored.body = other.body.clone();
                        return Arc::new(stored);
                    }
                    Body::Parts(parts) => there = self.without_lost(parts),
                }
            }
            stored.body = self.inlined(Body::Parts(add(there)));
            Arc::new(stored)
        });
        self.below.put(&put, variants_max);
    }

    /// Parts that were evicted make room for their successors.
    pub(super) fn without_lost(&self, parts: &Parts) -> Parts {
        let here = parts.all().iter().filter(|part| self.holds(part)).copied().collect();
        Parts::new(parts.length(), here)
    }

    /// A small body that has become whole lies beside its head.
    pub(super) fn inlined(&self, body: Body) -> Body {
        let length = body.length();
        if length > INLINE_MAX || !body.is_whole() {
            return body;
        }
        let Body::Parts(parts) = &body else { return body };
        let pieces: Option<Vec<_>> = parts.all().iter().map(|part| self.memory.part(part)).collect();
        pieces.map_or(body, |pieces| Body::Inline(joined(&pieces, length)))
    }

    /// Stores a freshened head over the body that is already here, and over its coded copies.
    pub fn freshen(&self, old: &Stored, position: Position, meta: Meta, variant: VariantKey) -> Arc<Stored> {
        let place = Place { key: Arc::clone(&old.key), url: old.url, position, variants_max: FRESHENED_MAX };
        let stored = Arc::new(self.stored(place, meta, variant, old.body.clone()));
        stored.inherit(old);
        self.put(&stored, FRESHENED_MAX);
        stored
    }

    pub(super) fn stored(&self, place: Place, meta: Meta, variant: VariantKey, body: Body) -> Stored {
        let keys = meta.surrogate_keys().iter().map(|key| text_hash(self.seed, key.as_str()));
        let groups = meta.groups();
        let groups = groups.iter().map(|group| text_hash(self.seed, &group_text(place.key.origin(), group)));
        let surrogate_keys = keys.chain(groups).collect();
        Stored {
            meta,
            body,
            key: place.key,
            variant,
            position: place.position,
            url: place.url,
            surrogate_keys,
            checked: AtomicU64::new(place.position),
            heads: Default::default(),
            copies: Copies::default(),
        }
    }

    pub(super) fn put(&self, stored: &Arc<Stored>, variants_max: usize) {
        if !self.is_purged(stored) {
            self.memory.put(Arc::clone(stored), variants_max);
            self.below.put(stored, variants_max);
        }
    }

    pub(super) fn is_purged(&self, stored: &Stored) -> bool {
        matches!(self.purges.check(stored.position, &stored.subject()), PurgeVerdict::Hard)
    }
}
