//! The memory tier: two byte-bounded caches, so that a video does not push out a thousand pages.
//!
//! `families` holds, per cache key, the variants with their heads and small bodies; `parts` holds large bodies in
//! parts. Freshness is the law's business: nothing here expires by time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::{Bytes, BytesMut};
use moka::{notification::RemovalCause, ops::compute::Op, sync::Cache};
use prometheus::IntCounter;

use super::{Body, Stored, config};
use crate::telemetry::Metrics;

/// A body up to this size lies beside its head; a larger one is cut into parts.
pub const INLINE_MAX: u64 = 64 * 1024;
/// The unit of large bodies.
pub const PART_BYTES: usize = 1024 * 1024;
/// Variants of one key; the oldest goes first.
pub const VARIANTS_MAX: usize = 64;
/// What one entry costs beyond its bytes: moka's node, the `Arc`s, our structs (measured: about 600).
const OVERHEAD: u64 = 600;
/// Of the tier's bytes, what large bodies may take.
const PARTS_PERCENT: u64 = 50;

/// All variants of one key, newest first.
#[derive(Debug, Clone)]
pub struct Family {
    pub variants: Vec<Arc<Stored>>,
}

impl Family {
    fn weight(&self) -> u64 {
        self.variants.iter().map(|stored| stored.weight() + OVERHEAD).sum()
    }
}

pub struct Memory {
    families: Cache<u128, Arc<Family>>,
    parts: Cache<(u64, u32), Bytes>,
    next_body: AtomicU64,
    object_max: u64,
}

impl Memory {
    pub fn new(config: &config::Memory, metrics: &Metrics) -> Self {
        let parts_size = config.size / 100 * PARTS_PERCENT;
        let evicted = metrics.cache_evictions.with_label_values(&["memory", "size"]);
        metrics.store_capacity.with_label_values(&["memory"]).set(i64::try_from(config.size).unwrap_or(i64::MAX));
        let listener = |counter: IntCounter| {
            move |cause: RemovalCause| {
                if cause == RemovalCause::Size {
                    counter.inc();
                }
            }
        };
        let (family_listener, part_listener) = (listener(evicted.clone()), listener(evicted));
        Self {
            families: Cache::builder()
                .max_capacity(config.size - parts_size)
                .weigher(|_, family: &Arc<Family>| u32::try_from(family.weight()).unwrap_or(u32::MAX))
                .eviction_listener(move |_, _, cause| family_listener(cause))
                .build(),
            parts: Cache::builder()
                .max_capacity(parts_size)
                .weigher(|_, part: &Bytes| u32::try_from(part.len() as u64 + OVERHEAD).unwrap_or(u32::MAX))
                .eviction_listener(move |_, _, cause| part_listener(cause))
                .build(),
            next_body: AtomicU64::new(0),
            object_max: config.object_max,
        }
    }

    /// Bytes of the largest body kept here.
    pub fn object_max(&self) -> u64 {
        self.object_max
    }

    pub fn family(&self, key: u128) -> Option<Arc<Family>> {
        self.families.get(&key)
    }

    /// Puts a body where it belongs by its size.
    pub fn keep_body(&self, chunks: &[Bytes], length: u64) -> Body {
        if length <= INLINE_MAX {
            return Body::Inline(joined(chunks, length));
        }
        let id = self.next_body.fetch_add(1, Ordering::Relaxed);
        let mut part = BytesMut::with_capacity(PART_BYTES);
        let mut count = 0;
        for chunk in chunks {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let take = rest.len().min(PART_BYTES - part.len());
                part.extend_from_slice(&rest[..take]);
                rest = &rest[take..];
                if part.len() == PART_BYTES {
                    self.parts.insert((id, count), part.split().freeze());
                    part.reserve(PART_BYTES);
                    count += 1;
                }
            }
        }
        if !part.is_empty() {
            self.parts.insert((id, count), Bytes::copy_from_slice(&part));
            count += 1;
        }
        Body::Parts { id, count, length }
    }

    /// The whole body, or nothing when a part of it has been evicted. The pieces stay readable from here on.
    pub fn body(&self, body: &Body) -> Option<Vec<Bytes>> {
        match body {
            Body::Inline(bytes) => Some(vec![bytes.clone()]),
            Body::Parts { id, count, .. } => (0..*count).map(|part| self.parts.get(&(*id, part))).collect(),
        }
    }

    /// Adds a variant, replacing the one with the same selecting fields.
    pub fn put(&self, stored: Arc<Stored>) {
        self.families.entry(stored.key.hash()).and_compute_with(|present| {
            let mut variants = vec![Arc::clone(&stored)];
            if let Some(entry) = present {
                let others = entry.into_value();
                variants.extend(others.variants.iter().filter(|other| !other.is_same_variant(&stored)).cloned());
            }
            while variants.len() > VARIANTS_MAX {
                if let Some(oldest) = variants.pop() {
                    self.forget_body(&oldest.body);
                }
            }
            Op::Put(Arc::new(Family { variants }))
        });
    }

    /// Removes one stored response if it is still there.
    pub fn remove(&self, stored: &Arc<Stored>) {
        let mut removed = false;
        self.families.entry(stored.key.hash()).and_compute_with(|present| {
            let Some(entry) = present else { return Op::Nop };
            let family = entry.into_value();
            let variants: Vec<_> =
                family.variants.iter().filter(|other| !Arc::ptr_eq(other, stored)).cloned().collect();
            removed = variants.len() < family.variants.len();
            if variants.is_empty() { Op::Remove } else { Op::Put(Arc::new(Family { variants })) }
        });
        if removed {
            self.forget_body(&stored.body);
        }
    }

    fn forget_body(&self, body: &Body) {
        if let Body::Parts { id, count, .. } = body {
            for part in 0..*count {
                self.parts.invalidate(&(*id, part));
            }
        }
    }

    /// Everything stored now, in no order. Walks the tier: for purge receipts, off the workers.
    pub fn walk(&self) -> impl Iterator<Item = Arc<Stored>> {
        self.families.iter().flat_map(|(_, family)| family.variants.clone())
    }

    /// Bytes and keys held.
    pub fn usage(&self) -> (u64, u64) {
        // The caches count behind their changes; a tier at rest would never catch up.
        self.families.run_pending_tasks();
        self.parts.run_pending_tasks();
        (self.families.weighted_size() + self.parts.weighted_size(), self.families.entry_count())
    }
}

fn joined(chunks: &[Bytes], length: u64) -> Bytes {
    let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    whole.freeze()
}
