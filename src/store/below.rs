//! The tiers below memory. What they have is asked for only when memory has it not, and once for all who want it.
//!
//! A tier is a variant of [`Tier`]: it says by itself which heads it may have of a key, reads them, keeps what it is given without
//! ever making the giver wait, and counts what it could not do. Nothing here fails a fill or a request.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use prometheus::Histogram;

use super::{
    Body, Part, Stored, Subject,
    disk::{self, Disk, Pinned},
    encoded,
    flights::Flights,
};
use crate::telemetry::Metrics;

/// A tier below memory.
enum Tier {
    Disk { disk: Disk, lookups: Histogram },
}

/// Where a tier has the head of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spot {
    Disk(disk::At),
}

/// A part that can be read, whatever is evicted meanwhile.
#[derive(Debug, Clone)]
pub struct Held(Pinned);

/// All of them, the nearest first.
pub struct Below {
    tiers: Vec<Tier>,
    seed: u64,
    heads: Flights<(u128, Spot), Option<Arc<Stored>>>,
    parts: Flights<u64, Option<Bytes>>,
}

impl Below {
    pub fn new(disk: Option<Disk>, seed: u64, metrics: &Metrics) -> Self {
        let lookups = metrics.cache_lookup.with_label_values(&["disk"]);
        let tiers = disk.into_iter().map(|disk| Tier::Disk { disk, lookups: lookups.clone() }).collect();
        Self { tiers, seed, heads: Flights::new(), parts: Flights::new() }
    }

    /// May one of them have something under this key? Costs no I/O.
    pub fn knows(&self, family: u128) -> bool {
        self.tiers.iter().any(|tier| tier.knows(family))
    }

    /// The newest response under this key that is meant, and where it was. `verdict` is given the tier's name; heads that it finds
    /// gone are forgotten.
    pub async fn find(
        &self,
        family: u128,
        mut verdict: impl FnMut(&Arc<Stored>, &'static str) -> Verdict,
    ) -> Option<(Arc<Stored>, Spot)> {
        for tier in &self.tiers {
            let began = Instant::now();
            let found = self.find_in(tier, family, &mut verdict).await;
            tier.observe(began);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    async fn find_in(
        &self,
        tier: &Tier,
        family: u128,
        verdict: &mut impl FnMut(&Arc<Stored>, &'static str) -> Verdict,
    ) -> Option<(Arc<Stored>, Spot)> {
        for spot in tier.spots(family) {
            let read = self.heads.once((family, spot), async {
                let (head, inline) = tier.read(family, spot).await?;
                Stored::from_head(self.seed, &head, inline).map(Arc::new)
            });
            let Some(stored) = read.await else { continue };
            match verdict(&stored, tier.name()) {
                Verdict::Meant => return Some((stored, spot)),
                Verdict::Another => {}
                Verdict::Gone => tier.forget(family, spot),
            }
        }
        None
    }

    /// Is this still what that place holds? Costs no I/O.
    pub fn is_current(&self, family: u128, spot: Spot) -> bool {
        self.tiers.iter().any(|tier| tier.spots(family).contains(&spot))
    }

    /// Takes a part of a body whose head may follow. False when no tier did: a head that lists it is not kept either.
    pub fn put_part(&self, id: u64, bytes: &Bytes) -> bool {
        let mut taken = false;
        for tier in &self.tiers {
            taken |= match tier {
                Tier::Disk { disk, .. } => disk.put_part(id, bytes.clone()).is_ok(),
            };
        }
        taken
    }

    /// Takes a response whose parts have been given before; what was there of this variant is gone.
    pub fn put(&self, stored: &Stored, variants_max: usize) {
        for tier in &self.tiers {
            if stored.body.held() > tier.object_max() {
                tier.remove(stored.key.hash(), stored.variant_hash(self.seed));
                continue;
            }
            let inline = match &stored.body {
                Body::Inline(bytes) => bytes.clone(),
                Body::Parts(_) => Bytes::new(),
            };
            match tier {
                // It has been counted.
                Tier::Disk { disk, .. } => _ = disk.put_head(stored.to_head(self.seed), inline, variants_max),
            }
        }
    }

    /// Forgets a variant, also for later runs.
    pub fn remove(&self, stored: &Stored) {
        for tier in &self.tiers {
            tier.remove(stored.key.hash(), stored.variant_hash(self.seed));
        }
    }

    /// Is this part in one of them? Costs no I/O.
    pub fn holds(&self, part: &Part) -> bool {
        self.tiers.iter().any(|Tier::Disk { disk, .. }| disk.has_part(part.id))
    }

    /// Sees to it that a part stays readable.
    pub fn hold(&self, part: &Part) -> Option<Held> {
        self.tiers.iter().find_map(|Tier::Disk { disk, .. }| disk.pin(part.id)).map(Held)
    }

    /// Reads a part that is held.
    pub async fn read(&self, part: &Part, held: &Held) -> Option<Bytes> {
        let read = self.parts.once(part.id, async {
            for Tier::Disk { disk, .. } in &self.tiers {
                match disk.read_pinned(&held.0).await {
                    Ok(bytes) => return Some(bytes),
                    Err(error) => tracing::debug!(%error, "a part is not read"),
                }
            }
            None
        });
        read.await.filter(|bytes| bytes.len() == part.length as usize)
    }

    /// Looks at every head, with what purges look at and the bytes stored of its body; those for which `is_wanted` is false are
    /// forgotten. Blocks.
    pub fn walk(&self, mut is_wanted: impl FnMut(&disk::Head, &Subject<'_>, u64) -> bool) {
        for Tier::Disk { disk, .. } in &self.tiers {
            disk.walk(|head, bytes| {
                // What cannot be understood is not wanted.
                encoded::subject(head).is_some_and(|subject| is_wanted(head, &subject, bytes))
            });
        }
    }

    /// Cache keys that they have something under.
    pub fn keys(&self) -> u64 {
        self.tiers.iter().map(|Tier::Disk { disk, .. }| disk.usage().1).sum()
    }

    /// Has an order of purge written wherever something outlives this process.
    pub fn journal(&self, order: &disk::Order) {
        for Tier::Disk { disk, .. } in &self.tiers {
            disk.journal(order.clone());
        }
    }

    /// Waits until all orders until now have been; false when that failed.
    pub async fn journaled(&self) -> bool {
        let mut durable = true;
        for Tier::Disk { disk, .. } in &self.tiers {
            durable &= disk.journaled().await.is_ok();
        }
        durable
    }

    /// Brings the gauges up to date.
    pub fn observe(&self, metrics: &Metrics) {
        for tier in &self.tiers {
            let Tier::Disk { disk, .. } = tier;
            let (bytes, keys) = disk.usage();
            let set = |gauge: &prometheus::IntGaugeVec, value: u64| {
                gauge.with_label_values(&[tier.name()]).set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&metrics.cache_stored_bytes, bytes);
            set(&metrics.cache_stored_responses, keys);
            set(&metrics.store_up, disk.is_up().into());
        }
    }

    /// Waits until what was given is written, or will not be; false where no tier came so far in time.
    pub async fn written(&self) -> bool {
        let mut written = false;
        for Tier::Disk { disk, .. } in &self.tiers {
            written |= disk.written().await;
        }
        written
    }

    /// Waits until everything that was given is written, and all that was there at the start is known.
    pub async fn settled(&self) {
        for Tier::Disk { disk, .. } in &self.tiers {
            disk.settled().await;
        }
    }

    /// Has everything written and lets go of what is held. Blocks.
    pub fn close(&self) {
        for Tier::Disk { disk, .. } in &self.tiers {
            disk.close();
        }
    }
}

impl std::fmt::Debug for Below {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tiers.iter().map(Tier::name)).finish()
    }
}

impl Tier {
    fn name(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "disk",
        }
    }

    fn object_max(&self) -> u64 {
        match self {
            Self::Disk { disk, .. } => disk.object_max(),
        }
    }

    fn knows(&self, family: u128) -> bool {
        match self {
            Self::Disk { disk, .. } => disk.knows(family),
        }
    }

    fn spots(&self, family: u128) -> Vec<Spot> {
        match self {
            Self::Disk { disk, .. } => disk.heads(family).into_iter().map(Spot::Disk).collect(),
        }
    }

    async fn read(&self, family: u128, spot: Spot) -> Option<(disk::Head, Bytes)> {
        match (self, spot) {
            (Self::Disk { disk, .. }, Spot::Disk(at)) => match disk.read_head(family, at).await {
                Ok(read) => Some((read.head, read.inline)),
                Err(error) => {
                    tracing::debug!(%error, "a stored response is not read");
                    None
                }
            },
        }
    }

    fn forget(&self, family: u128, spot: Spot) {
        match (self, spot) {
            (Self::Disk { disk, .. }, Spot::Disk(at)) => disk.forget(family, at),
        }
    }

    fn remove(&self, family: u128, variant: u64) {
        match self {
            Self::Disk { disk, .. } => disk.remove(family, variant),
        }
    }

    fn observe(&self, began: Instant) {
        match self {
            Self::Disk { lookups, .. } => lookups.observe(began.elapsed().as_secs_f64()),
        }
    }
}

/// What is to become of a head that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Meant,
    /// Of another request.
    Another,
    /// Purged.
    Gone,
}
