//! The memory tier: two byte-bounded caches, so that a video does not push out a thousand pages.
//!
//! `families` holds, per cache key, the variants with their heads and small bodies; `parts` holds large bodies in
//! parts. Freshness is the law's business: nothing here expires by time.

use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use moka::{notification::RemovalCause, ops::compute::Op, sync::Cache};
use prometheus::IntCounter;

use super::{Body, Part, Stored, config};
use crate::telemetry::Metrics;

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
        let copies = self.variants.iter().flat_map(|stored| stored.copies.all());
        let weight = |stored: &Stored| stored.weight() + OVERHEAD;
        self.variants.iter().map(|stored| weight(stored)).sum::<u64>()
            + copies.map(|(_, copy)| weight(&copy)).sum::<u64>()
    }
}

/// The hash of a key is hashed already, with a seed that nobody knows outside.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub struct Memory {
    families: Cache<u128, Arc<Family>, BuildHasherDefault<Hashed>>,
    parts: Cache<u64, Bytes>,
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
                .build_with_hasher(BuildHasherDefault::default()),
            parts: Cache::builder()
                .max_capacity(parts_size)
                .weigher(|_, part: &Bytes| u32::try_from(part.len() as u64 + OVERHEAD).unwrap_or(u32::MAX))
                .eviction_listener(move |_, _, cause| part_listener(cause))
                .build(),
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

    /// Keeps a part.
    pub fn keep(&self, part: &Part, bytes: Bytes) {
        self.parts.insert(part.id, bytes);
    }

    /// A part, if it is here.
    pub fn part(&self, part: &Part) -> Option<Bytes> {
        self.parts.get(&part.id)
    }

    /// Is this part still here?
    pub fn holds(&self, part: u64) -> bool {
        self.parts.contains_key(&part)
    }

    /// Is anything of this key here?
    pub fn knows(&self, key: u128) -> bool {
        self.families.contains_key(&key)
    }

    /// Adds a variant, replacing the one with the same selecting fields.
    pub fn put(&self, stored: Arc<Stored>, variants_max: usize) {
        self.put_with(stored.key.hash(), variants_max, |_| Arc::clone(&stored));
    }

    /// Adds the variant that `make` makes of those that are there, replacing the one with the same selecting fields. Gives it.
    pub fn put_with(
        &self,
        key: u128,
        variants_max: usize,
        make: impl FnOnce(&[Arc<Stored>]) -> Arc<Stored>,
    ) -> Arc<Stored> {
        let mut made = None;
        self.families.entry(key).and_compute_with(|present| {
            let others = present.map(|entry| entry.into_value());
            let others = others.as_ref().map_or(&[][..], |family| &family.variants);
            let stored = made.insert(make(others));
            let mut variants = Vec::with_capacity(others.len() + 1);
            for other in others {
                if other.is_same_variant(stored) {
                    self.forget(other, Some(stored));
                } else {
                    variants.push(Arc::clone(other));
                }
            }
            variants.insert(0, Arc::clone(stored));
            while variants.len() > variants_max {
                if let Some(oldest) = variants.pop() {
                    self.forget(&oldest, None);
                }
            }
            Op::Put(Arc::new(Family { variants }))
        });
        made.expect("the closure ran: a computation of the cache always asks it")
    }

    /// Adds a variant as the oldest, if none like it is there and it is still wanted then.
    pub fn put_if(&self, stored: &Arc<Stored>, variants_max: usize, is_wanted: impl FnOnce() -> bool) {
        self.families.entry(stored.key.hash()).and_compute_with(|present| {
            let mut variants = present.map(|entry| entry.into_value().variants.clone()).unwrap_or_default();
            let is_there = variants.iter().any(|other| other.is_same_variant(stored));
            if is_there || variants.len() >= variants_max || !is_wanted() {
                return Op::Nop;
            }
            variants.push(Arc::clone(stored));
            Op::Put(Arc::new(Family { variants }))
        });
    }

    /// Removes one stored response if it is still there; false when there is another one of this variant.
    pub fn remove(&self, stored: &Arc<Stored>) -> bool {
        let (mut removed, mut replaced) = (false, false);
        self.families.entry(stored.key.hash()).and_compute_with(|present| {
            let Some(entry) = present else { return Op::Nop };
            let family = entry.into_value();
            let variants: Vec<_> =
                family.variants.iter().filter(|other| !Arc::ptr_eq(other, stored)).cloned().collect();
            removed = variants.len() < family.variants.len();
            replaced = variants.iter().any(|other| other.is_same_variant(stored));
            if variants.is_empty() { Op::Remove } else { Op::Put(Arc::new(Family { variants })) }
        });
        if removed {
            self.forget(stored, None);
        }
        !replaced
    }

    /// Counts what a stored response weighs now; false when it is not here.
    pub fn weigh_again(&self, stored: &Arc<Stored>) -> bool {
        let mut is_here = false;
        self.families.entry(stored.key.hash()).and_compute_with(|present| {
            let family = present.map(|entry| entry.into_value());
            let family = family.filter(|family| family.variants.iter().any(|other| Arc::ptr_eq(other, stored)));
            is_here = family.is_some();
            family.map_or(Op::Nop, Op::Put)
        });
        is_here
    }

    /// Drops the parts of a stored response and of its copies that `successor` does not go on with.
    pub fn forget(&self, stored: &Stored, successor: Option<&Stored>) {
        self.forget_parts(&stored.body, successor.map(|successor| &successor.body));
        for (coding, copy) in stored.copies.all() {
            let next = successor.and_then(|successor| successor.coded(coding));
            self.forget_parts(&copy.body, next.as_ref().map(|next| &next.body));
        }
    }

    /// Drops the parts of `body` that `successor` does not go on with.
    fn forget_parts(&self, body: &Body, successor: Option<&Body>) {
        let Body::Parts(parts) = body else { return };
        let kept: &[Part] = match successor {
            Some(Body::Parts(parts)) => parts.all(),
            _ => &[],
        };
        for part in parts.all() {
            let goes_on = kept.binary_search_by_key(&part.start, |other| other.start);
            if goes_on.is_ok_and(|at| kept[at].id == part.id) {
                continue;
            }
            self.parts.invalidate(&part.id);
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
