//! Stored responses: a head and parts, found by key and variant; fills in progress; purge.
//!
//! What is read here has been looked at by the purge tables; whether it may be used for a request is the law's
//! question ([`crate::cache`]). A body larger than `memory::INLINE_MAX` lies in parts, and so does every body of which only
//! some is here: a range that was asked for, slices, what eviction left. What is missing is fetched under the strong
//! validator of what is there, or the whole is.
//!
//! # Tiers
//!
//! Memory comes first and alone answers without waiting. What lies `below` keeps everything that is stored, as far as its
//! sizes allow, from the moment it is stored: so an eviction from memory moves nothing, a fill depends on no tier, and a tier that
//! fails is one tier less. What memory has not is looked up below once for all who want it, and put into memory again, where
//! TinyLFU says whether it stays. Purges are held against every response wherever it comes from; an order is acknowledged when
//! it is in the journal of each tier that outlives the process, and a start reads that journal first.

mod below;
mod body;
mod coded;
mod config;
mod disk;
mod encoded;
mod fill;
mod find;
mod flights;
mod memory;
mod publish;
mod purge;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use moka::sync::Cache;
use prometheus::IntGauge;

pub use body::{Body, INLINE_MAX, PART_BYTES, Part, Parts};
pub use config::{Config, Memory};
pub use disk::{Config as DiskConfig, OBJECT_MAX as DISK_OBJECT_MAX, OpenError, SIZE_MIN as DISK_SIZE_MIN};
pub use fill::{BEHIND_MAX, Broken, Coming, Failure, Fill, Outcome, Reader};
pub use find::{Found, Lookup, Piece, Read, Variant};
pub use publish::{Place, Writing};
pub use purge::{Position, PurgeOrder, PurgeTarget, PurgeVerdict, Purges, Subject, text_hash};

use below::Below;
use disk::{Disk, Kept};

use crate::{
    cache::{Key, Meta, VariantKey},
    telemetry::Metrics,
    wire::Prebuilt,
};

/// Fetches that readers may share at once; one more is made by its client alone. Each holds at most `object_max` of
/// memory, or [`BEHIND_MAX`] and what waits to be written.
const FILLS_MAX: usize = 10_000;
/// Keys remembered as not collapsible, as failing, and as asked for so often.
const REMEMBERED_MAX: u64 = 100_000;
/// Keys up to which what a purge matches is counted; beyond, nothing is said of that. A walk over so many in memory takes some tens
/// of milliseconds of a thread.
const COUNTED_MAX: u64 = 100_000;
/// Keys below memory up to which a purge counts them before it acts, and gives their places back after: each is a read.
const WALKED_BELOW_MAX: u64 = 2_000;
/// After a failure a key that may answer stale is tried again once in so long (docs/configuration.md: cache.NAME.stale_if_error).
const FAILING_FOR: Duration = Duration::from_secs(1);

/// A response in the store.
#[derive(Debug)]
pub struct Stored {
    pub meta: Meta,
    pub body: Body,
    pub key: Arc<Key>,
    /// The values of the fields that `Vary` names, in the request that brought it.
    pub variant: VariantKey,
    /// Purges after this one touch it.
    pub position: Position,
    /// What a purge of its URL names.
    pub url: u128,
    /// And cache groups.
    surrogate_keys: Box<[u128]>,
    /// The last purge that was found not to touch it: saves asking again.
    checked: AtomicU64,
    /// The head of plain hits, once there has been one: as the origin said it, and as a policy's `browser_ttl` has it.
    pub heads: [OnceLock<Box<Prebuilt>>; 2],
    copies: coded::Copies,
}

impl Stored {
    fn weight(&self) -> u64 {
        // A line is there as a field, and in as many texts of a hit as there may be, between `: ` and CRLF.
        const FIELD: usize = 32;
        const TEXT: usize = 4;
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            let length = name.as_str().len() + value.len();
            (length + FIELD) + self.heads.len() * (length + TEXT)
        };
        let head = self.meta.fields.iter().map(line).sum::<usize>();
        let body = match &self.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Parts(parts) => size_of_val(parts.all()),
        };
        (head + body + self.key.text().len()) as u64
    }

    /// What purges look at.
    fn subject(&self) -> Subject<'_> {
        Subject { url: self.url, target: target(self.key.text()), surrogate_keys: &self.surrogate_keys }
    }

    fn is_same_variant(&self, other: &Self) -> bool {
        self.variant == other.variant && self.meta.vary() == other.meta.vary()
    }

    /// Would a request with these fields get this variant? (RFC 9111 4.1)
    pub fn is_selected_by(&self, request: &HeaderMap) -> bool {
        self.variant.matches(self.meta.vary(), request)
    }
}

/// The target in the text of a key, which is `scheme://host:port/path?query#...`; `#` is in no host, path or query.
fn target(key: &str) -> &str {
    let target = key.split_once("://").map_or(key, |(_, target)| target);
    target.split_once('#').map_or(target, |(target, _)| target)
}

/// How far counting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// A purge waits for it.
    Quick,
    /// It is all that was asked for.
    Thorough,
}

/// Stored responses and the bytes of their bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub matched: u64,
    pub bytes: u64,
}

/// A fill that later requests may join, and the URL that a purge of it would name.
struct InProgress {
    fill: Arc<Fill>,
    url: u128,
}

pub struct Store {
    memory: Arc<memory::Memory>,
    below: Arc<Below>,
    /// Bytes of the largest body that some tier keeps.
    object_max: u64,
    /// Parts are named alike in all tiers, those of an earlier process included.
    next_part: AtomicU64,
    purges: Purges,
    place: Option<String>,
    fills: Mutex<HashMap<u128, InProgress>>,
    uncollapsible: Cache<u128, Instant>,
    failing: Cache<u128, Instant>,
    /// How often keys that are not stored were asked for.
    uses: Cache<u128, u32>,
    seed: u64,
    fills_running: IntGauge,
    fills_waiting: IntGauge,
    metrics: Metrics,
}

impl Store {
    /// Opens the tiers. `fresh` is random: hashes that are seeded with it cannot be guessed from outside, and parts that are
    /// counted from it are not those of an earlier process. A tier on disk keeps the seed that it has. Reads and writes files.
    ///
    /// # Errors
    /// When the folder of the disk tier cannot be had.
    pub fn open(config: &Config, fresh: u64, metrics: &Metrics) -> Result<Self, OpenError> {
        let memory = Arc::new(memory::Memory::new(&config.memory, metrics));
        let mut seed = fresh;
        let mut disk = None;
        let mut restored = None;
        if let Some(config) = &config.disk {
            let in_use = Arc::clone(&memory);
            let is_kept = move |kept| match kept {
                Kept::Family(family) => in_use.knows(family),
                Kept::Part(part) => in_use.holds(part),
            };
            let (opened, found) = Disk::open(config.clone(), fresh, Box::new(is_kept), metrics)?;
            seed = opened.seed();
            (disk, restored) = (Some(opened), Some(found));
        }
        let purges = Purges::new(seed);
        let mut place = None;
        if let Some(restored) = restored {
            let journal = encoded::journal(restored.orders);
            purges.restore(restored.floor, journal.orders);
            place = journal.place;
        }
        Ok(Self {
            object_max: config.object_max(),
            memory,
            below: Arc::new(Below::new(disk, seed, metrics)),
            next_part: AtomicU64::new(fresh),
            purges,
            place,
            fills: Mutex::new(HashMap::new()),
            uncollapsible: Cache::new(REMEMBERED_MAX),
            failing: Cache::new(REMEMBERED_MAX),
            uses: Cache::new(REMEMBERED_MAX),
            seed,
            fills_running: metrics.fills.with_label_values(&["running"]),
            fills_waiting: metrics.fills.with_label_values(&["waiting"]),
            metrics: metrics.clone(),
        })
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Bytes of the largest body that some tier keeps.
    pub fn object_max(&self) -> u64 {
        self.object_max
    }

    /// Bytes of the largest body that is gathered in memory, which keeps none that is larger.
    pub fn gathered_max(&self) -> u64 {
        self.memory.object_max().max(INLINE_MAX)
    }

    /// Where purges are now; a fetch takes it before it begins.
    pub fn position(&self) -> Position {
        self.purges.position()
    }

    /// Forgets one stored response.
    pub fn remove(&self, stored: &Arc<Stored>) {
        if self.memory.remove(stored) {
            self.below.remove(stored);
        }
    }

    /// Issues a purge: it holds when this returns. What it took is reclaimed later, by [`reclaim`](Self::reclaim).
    pub fn apply(&self, order: &PurgeOrder, now: SystemTime) {
        let position = self.purges.apply(order, now);
        if !order.targets.is_empty() {
            self.below.journal(&disk::Order { position, bytes: encoded::order_to_bytes(order, now) });
        }
        self.detach_fills(order);
    }

    /// Keeps, behind the orders that have been applied, how far whoever gives them has come.
    pub fn note_place(&self, place: &str) {
        self.below.journal(&disk::Order { position: self.position(), bytes: encoded::place_to_bytes(place) });
    }

    /// The last [`note_place`](Self::note_place) of an earlier process, if what it stored is still here.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// Waits until all orders until now are where later processes find them; false when that failed.
    pub async fn durable(&self) -> bool {
        self.below.journaled().await
    }

    /// Orders may have been missed: everything that was stored until now, or is on its way, counts as purged.
    pub fn forget_all(&self) {
        let position = self.purges.forget_all();
        let order = PurgeOrder { targets: vec![PurgeTarget::All], soft: false };
        // It says the same to who reads it.
        let bytes = encoded::order_to_bytes(&order, SystemTime::UNIX_EPOCH);
        self.below.journal(&disk::Order { position, bytes });
        self.detach_fills(&order);
    }

    /// What a purge would match; `None` where more is stored than is counted. Walks the tiers: call it off the workers.
    pub fn count(&self, order: &PurgeOrder, effort: Effort) -> Option<Counted> {
        let below_max = match effort {
            Effort::Quick => WALKED_BELOW_MAX,
            Effort::Thorough => COUNTED_MAX,
        };
        if self.memory.usage().1 > COUNTED_MAX || self.below.keys() > below_max {
            return None;
        }
        let purges = Purges::new(self.seed);
        purges.apply(order, SystemTime::UNIX_EPOCH);
        let mut counted = Counted::default();
        let mut seen = HashSet::new();
        let mut look = |name, position, subject: &Subject<'_>, held| {
            let is_touched = !matches!(purges.check(0, subject), PurgeVerdict::Untouched);
            let is_there = || !matches!(self.purges.check(position, subject), PurgeVerdict::Hard);
            if is_touched && is_there() && seen.insert(name) {
                counted.matched += 1;
                counted.bytes += held;
            }
        };
        for stored in self.memory.walk() {
            let name = (stored.key.hash(), stored.variant_hash(self.seed));
            look(name, stored.position, &stored.subject(), stored.body.held());
        }
        self.below.walk(|head, subject, held| {
            look((head.family, head.variant), head.position, subject, held);
            true
        });
        Some(counted)
    }

    /// Gives back the space of what purges have taken. Walks memory, and the tiers below only where they hold little: else what is left
    /// there goes when it is found or with its segment. Call it off the workers, and not for every purge.
    pub fn reclaim(&self) {
        for stored in self.memory.walk() {
            if self.is_purged(&stored) {
                self.memory.remove(&stored);
            }
        }
        if self.below.keys() <= WALKED_BELOW_MAX {
            self.below
                .walk(|head, subject, _| !matches!(self.purges.check(head.position, subject), PurgeVerdict::Hard));
        }
    }

    /// What is on its way began before the purge: those who already read it go on, later requests begin anew. Which surrogate keys it
    /// will have is not known yet, so only an order of URLs alone leaves others in peace.
    fn detach_fills(&self, order: &PurgeOrder) {
        let is_touched = |url: u128| {
            order.targets.iter().any(|target| match target {
                PurgeTarget::Url(named) => *named == url,
                _ => true,
            })
        };
        self.fills().retain(|_, running| {
            let touched = is_touched(running.url);
            if touched {
                self.fills_running.dec();
            }
            !touched
        });
    }

    fn fills(&self) -> std::sync::MutexGuard<'_, HashMap<u128, InProgress>> {
        // The map is whole between any two statements that could panic.
        self.fills.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the fill under `id`, or begins one: then the caller is its writer and must run it. `is_outdated` asks whether
    /// the store has something newer than the caller has seen there. It is asked only where no fill runs: one that ran has
    /// stored what it brought before it ended, so its answer is final.
    pub fn join_fill(&self, id: u128, url: u128, is_outdated: impl FnOnce() -> bool) -> Joined {
        let mut fills = self.fills();
        if let Some(running) = fills.get(&id) {
            return Joined::Waiter(Arc::clone(&running.fill));
        }
        if is_outdated() {
            return Joined::Outdated;
        }
        if fills.len() >= FILLS_MAX {
            return Joined::Full;
        }
        let fill = Fill::new();
        fills.insert(id, InProgress { fill: Arc::clone(&fill), url });
        self.fills_running.inc();
        Joined::Writer(fill)
    }

    /// Begins a fill in the place of `late`: later requests join this one, and so does who waits for the head of `late`.
    pub fn replace_fill(&self, id: u128, url: u128, late: &Fill) -> Arc<Fill> {
        let fill = Fill::new();
        late.succeed(Arc::clone(&fill));
        if self.fills().insert(id, InProgress { fill: Arc::clone(&fill), url }).is_none() {
            self.fills_running.inc();
        }
        fill
    }

    /// Counts a request that waits for the head of a fill, for as long as the guard lives.
    pub fn waiting(&self) -> Waiting {
        self.fills_waiting.inc();
        Waiting(self.fills_waiting.clone())
    }

    /// Is there a fetch under `id` that others may join?
    pub fn is_filling(&self, id: u128) -> bool {
        self.fills().contains_key(&id)
    }

    /// The fill is over: nobody joins it any more.
    pub fn end_fill(&self, id: u128, fill: &Arc<Fill>) {
        let mut fills = self.fills();
        if fills.get(&id).is_some_and(|present| Arc::ptr_eq(&present.fill, fill)) {
            fills.remove(&id);
            self.fills_running.dec();
        }
    }

    /// Was the answer under `id` lately not storable?
    pub fn is_uncollapsible(&self, id: u128, now: Instant) -> bool {
        self.uncollapsible.get(&id).is_some_and(|until| now < until)
    }

    /// The answer was not storable: requests do not wait for each other until then.
    pub fn set_uncollapsible(&self, id: u128, until: Instant) {
        self.uncollapsible.insert(id, until);
    }

    /// The answer was storable after all.
    pub fn clear_uncollapsible(&self, id: u128) {
        if self.uncollapsible.contains_key(&id) {
            self.uncollapsible.invalidate(&id);
        }
    }

    /// Counts that `key` was asked for and is not stored: was that often enough for storing it?
    pub fn is_used_enough(&self, key: &Key, min_uses: u32) -> bool {
        let counted = || {
            let uses = self.uses.entry(key.hash());
            let uses = uses.and_upsert_with(|uses| uses.map_or(1, |uses| uses.into_value().saturating_add(1)));
            uses.into_value()
        };
        min_uses <= 1 || counted() >= min_uses
    }

    /// What [`is_used_enough`](Self::is_used_enough) would say. Counts nothing.
    pub fn would_be_used_enough(&self, key: &Key, min_uses: u32) -> bool {
        min_uses <= 1 || self.uses.get(&key.hash()).unwrap_or(0).saturating_add(1) >= min_uses
    }

    /// Did a fetch under `id` fail within the last second?
    pub fn is_failing(&self, id: u128, now: Instant) -> bool {
        self.failing.get(&id).is_some_and(|since| now.duration_since(since) < FAILING_FOR)
    }

    pub fn set_failing(&self, id: u128, now: Instant) {
        self.failing.insert(id, now);
    }

    /// Waits until what was given to lower tiers is there, and what they had at the start is known: for who looks at files.
    pub async fn settled(&self) {
        self.below.settled().await;
    }

    /// Writes what waits to be written, and lets go of files. Blocks.
    pub fn close(&self) {
        self.below.close();
    }

    /// Brings the gauges up to date; called when they are read.
    pub fn observe(&self) {
        self.below.observe(&self.metrics);
        let (bytes, keys) = self.memory.usage();
        self.metrics.cache_stored_bytes.with_label_values(&["memory"]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.metrics.cache_stored_responses.with_label_values(&["memory"]).set(i64::try_from(keys).unwrap_or(i64::MAX));
    }
}

/// A request that waits for the head of a fill.
pub struct Waiting(IntGauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What came of asking for a fill.
pub enum Joined {
    Writer(Arc<Fill>),
    Waiter(Arc<Fill>),
    /// A fill has ended since the caller looked in the store: look again.
    Outdated,
    /// Too many fills: fetch alone.
    Full,
}
