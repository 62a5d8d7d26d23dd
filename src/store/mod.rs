//! Stored responses: a head and parts, found by key and variant; fills in progress; purge.
//!
//! What is read here has been looked at by the purge tables; whether it may be used for a request is the law's
//! question ([`crate::cache`]). A body larger than `memory::INLINE_MAX` lies in parts, and so does every body of which only
//! some is here: a range that was asked for, slices, what eviction left. What is missing is fetched under the strong
//! validator of what is there, or the whole is.

mod body;
mod coded;
mod config;
mod fill;
mod memory;
mod purge;

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use moka::sync::Cache;
use prometheus::IntGauge;

pub use body::{Body, Part, Parts};
pub use config::{Config, Memory};
pub use fill::{BEHIND_MAX, Broken, Coming, Failure, Fill, Outcome, Reader};
pub use memory::{INLINE_MAX, PART_BYTES, Read};
pub use purge::{Position, PurgeOrder, PurgeTarget, PurgeVerdict, Purges, Subject, text_hash};

use crate::{
    cache::{self, Key, Meta, Span, VariantKey, Vary, group_text},
    telemetry::Metrics,
    wire::Prebuilt,
};

/// Fetches that readers may share at once; one more is made by its client alone. Each holds at most
/// `object_max` or [`BEHIND_MAX`] bytes.
const FILLS_MAX: usize = 10_000;
/// Keys remembered as not collapsible, as failing, and as asked for so often.
const REMEMBERED_MAX: u64 = 100_000;
/// Variants that a freshening may leave: it adds one only where `Vary` changes, and the next new one brings the
/// policy's maximum to bear.
const FRESHENED_MAX: usize = 10_000;
/// Keys up to which a purge counts what it matches; beyond, its receipt says nothing of that. A walk over so many takes some tens of
/// milliseconds of a thread.
const COUNTED_MAX: u64 = 100_000;
/// After a failure a key that may answer stale is tried again once in so long (contract: Stale).
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
        let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
        // Twice: as fields, and as the text of a hit.
        let head = 2 * self.meta.fields.iter().map(line).sum::<usize>();
        let body = match &self.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Parts(parts) => size_of_val(parts.all()),
        };
        (head + body + self.key.text().len()) as u64
    }

    /// What purges look at.
    fn subject(&self) -> Subject<'_> {
        // A key's text is `scheme://host:port/path?query#...`, and `#` is in no host, path or query.
        let text = self.key.text();
        let target = text.split_once("://").map_or(text, |(_, target)| target);
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        Subject { url: self.url, target, surrogate_keys: &self.surrogate_keys }
    }

    fn is_same_variant(&self, other: &Self) -> bool {
        self.variant == other.variant && self.meta.vary() == other.meta.vary()
    }

    /// Would a request with these fields get this variant? (RFC 9111 4.1)
    pub fn is_selected_by(&self, request: &HeaderMap) -> bool {
        self.variant.matches(self.meta.vary(), request)
    }
}

/// A stored response and what purges say of it.
#[derive(Debug, Clone)]
pub struct Found {
    pub stored: Arc<Stored>,
    /// Soft-purged at this instant: expired since then.
    pub soft_purged: Option<SystemTime>,
}

#[derive(Debug, Clone)]
pub enum Lookup {
    Found(Found),
    /// The key is known, this variant of it is not. What the newest of the others says of `Vary`.
    VaryMiss(Vary),
    Miss,
}

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
    memory: memory::Memory,
    purges: Purges,
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
    /// `seed` keeps hashes from being guessed from outside.
    pub fn new(config: &Config, seed: u64, metrics: &Metrics) -> Self {
        Self {
            memory: memory::Memory::new(&config.memory, metrics),
            purges: Purges::new(seed),
            fills: Mutex::new(HashMap::new()),
            uncollapsible: Cache::new(REMEMBERED_MAX),
            failing: Cache::new(REMEMBERED_MAX),
            uses: Cache::new(REMEMBERED_MAX),
            seed,
            fills_running: metrics.fills.with_label_values(&["running"]),
            fills_waiting: metrics.fills.with_label_values(&["waiting"]),
            metrics: metrics.clone(),
        }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Bytes of the largest body that some tier keeps.
    pub fn object_max(&self) -> u64 {
        self.memory.object_max()
    }

    /// Where purges are now; a fetch takes it before it begins.
    pub fn position(&self) -> Position {
        self.purges.position()
    }

    /// The stored response that a request with these fields selects.
    pub fn lookup(&self, key: &Key, request: &HeaderMap) -> Lookup {
        let Some(family) = self.memory.family(key.hash()) else { return Lookup::Miss };
        let mut other = None;
        for stored in &family.variants {
            if stored.key.text() != key.text() {
                // Two texts, one hash: the older response is not this one.
                continue;
            }
            if !stored.is_selected_by(request) {
                other = other.or(Some(stored));
                continue;
            }
            match self.verdict(stored) {
                PurgeVerdict::Untouched => {
                    return Lookup::Found(Found { stored: Arc::clone(stored), soft_purged: None });
                }
                PurgeVerdict::Soft(at) => {
                    return Lookup::Found(Found { stored: Arc::clone(stored), soft_purged: Some(at) });
                }
                PurgeVerdict::Hard => self.memory.remove(stored),
            }
        }
        other.map_or(Lookup::Miss, |other| Lookup::VaryMiss(other.meta.vary().clone()))
    }

    /// [`Store::lookup`], where only what is there matters.
    pub fn found(&self, key: &Key, request: &HeaderMap) -> Option<Found> {
        match self.lookup(key, request) {
            Lookup::Found(found) => Some(found),
            Lookup::VaryMiss(_) | Lookup::Miss => None,
        }
    }

    /// Every variant under a key, and when a soft purge expired it. For people who ask.
    pub fn variants(&self, key: &Key) -> Vec<Found> {
        let family = self.memory.family(key.hash());
        let variants = family.iter().flat_map(|family| &family.variants);
        let of_key = variants.filter(|stored| stored.key.text() == key.text());
        let found = of_key.filter_map(|stored| {
            let soft_purged = match self.verdict(stored) {
                PurgeVerdict::Untouched => None,
                PurgeVerdict::Soft(at) => Some(at),
                PurgeVerdict::Hard => return None,
            };
            Some(Found { stored: Arc::clone(stored), soft_purged })
        });
        found.collect()
    }

    /// What was found a while ago, as purges leave it now; `None`: it is not to be used any more.
    pub fn again(&self, found: &Found) -> Option<Found> {
        let stored = Arc::clone(&found.stored);
        match self.verdict(&stored) {
            PurgeVerdict::Untouched => Some(Found { stored, soft_purged: None }),
            PurgeVerdict::Soft(at) => Some(Found { stored, soft_purged: Some(at) }),
            PurgeVerdict::Hard => None,
        }
    }

    fn verdict(&self, stored: &Stored) -> PurgeVerdict {
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

    /// The bytes of `range`, or nothing when some of them are not here.
    pub fn bytes(&self, stored: &Stored, range: Range<u64>) -> Option<Vec<Bytes>> {
        self.memory.bytes(&stored.body, range)
    }

    /// What is here of a body from `at` on.
    pub fn read(&self, stored: &Stored, at: u64) -> Read {
        self.memory.read(&stored.body, at)
    }

    /// The first bytes of `range` that are not here.
    pub fn hole(&self, stored: &Stored, range: Range<u64>) -> Option<Range<u64>> {
        let mut at = range.start;
        while at < range.end {
            match self.memory.hole(&stored.body, at) {
                Ok(end) => at = end,
                Err(mut end) => {
                    // What follows may be missing too.
                    while end < range.end
                        && let Err(further) = self.memory.hole(&stored.body, end)
                    {
                        end = further;
                    }
                    return Some(at..end.min(range.end));
                }
            }
        }
        None
    }

    /// Stores a response whose body has come whole. Answers with the response also when a purge that came
    /// meanwhile keeps it out of the store.
    pub fn publish(&self, place: Place, meta: Meta, variant: VariantKey, chunks: &[Bytes]) -> Arc<Stored> {
        let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let body = self.memory.keep_body(chunks, length);
        let variants_max = place.variants_max;
        let stored = Arc::new(self.stored(place, meta, variant, body));
        self.put(&stored, variants_max);
        stored
    }

    /// Stores some bytes of a body, beside those that are stored already of the same one: they must have the same strong
    /// validator (RFC 9111 3.4). Else they take the place of what is stored.
    pub fn publish_part(&self, place: Place, meta: Meta, variant: VariantKey, span: &Span, chunks: &[Bytes]) {
        let variants_max = place.variants_max;
        let nothing = Parts::new(span.length, Vec::new());
        let mut stored = self.stored(place, meta, variant, Body::Parts(nothing.clone()));
        if self.is_purged(&stored) {
            return;
        }
        self.memory.put_with(stored.key.hash(), variants_max, |others| {
            let mut there = nothing;
            let other =
                others.iter().find(|other| other.is_same_variant(&stored) && other.key.text() == stored.key.text());
            if let Some(other) = other
                && other.body.length() == span.length
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
            stored.body = self.inlined(Body::Parts(self.filled(there, span, chunks)));
            Arc::new(stored)
        });
    }

    /// `there` with what `span` adds to it. Where that would scatter it too much, what is there stays.
    fn filled(&self, there: Parts, span: &Span, chunks: &[Bytes]) -> Parts {
        let gaps = there.gaps(span.start..span.end);
        if !there.has_room_for(&gaps) {
            return there;
        }
        let newer = gaps.into_iter().flat_map(|gap| {
            let pieces = body::cut(chunks, gap.start - span.start..gap.end - span.start);
            self.memory.keep_parts(&pieces, gap.start)
        });
        there.with(newer)
    }

    /// Parts that were evicted make room for their successors.
    fn without_lost(&self, parts: &Parts) -> Parts {
        let here = parts.all().iter().filter(|part| self.memory.holds(part)).copied().collect();
        Parts::new(parts.length(), here)
    }

    /// A small body that has become whole lies beside its head.
    fn inlined(&self, body: Body) -> Body {
        let length = body.length();
        if length > INLINE_MAX || !body.is_whole() {
            return body;
        }
        self.memory.bytes(&body, 0..length).map_or(body, |pieces| Body::Inline(memory::joined(&pieces, length)))
    }

    /// Stores a freshened head over the body that is already here, and over its coded copies.
    pub fn freshen(&self, old: &Stored, position: Position, meta: Meta, variant: VariantKey) -> Arc<Stored> {
        let place = Place { key: Arc::clone(&old.key), url: old.url, position, variants_max: FRESHENED_MAX };
        let stored = Arc::new(self.stored(place, meta, variant, old.body.clone()));
        stored.inherit(old);
        self.put(&stored, FRESHENED_MAX);
        stored
    }

    fn stored(&self, place: Place, meta: Meta, variant: VariantKey, body: Body) -> Stored {
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
            copies: coded::Copies::default(),
        }
    }

    fn put(&self, stored: &Arc<Stored>, variants_max: usize) {
        if !self.is_purged(stored) {
            self.memory.put(Arc::clone(stored), variants_max);
        }
    }

    fn is_purged(&self, stored: &Stored) -> bool {
        matches!(self.purges.check(stored.position, &stored.subject()), PurgeVerdict::Hard)
    }

    /// Forgets one stored response.
    pub fn remove(&self, stored: &Arc<Stored>) {
        self.memory.remove(stored);
    }

    /// Issues a purge: it holds when this returns. What it took is reclaimed later, by [`reclaim`](Self::reclaim).
    pub fn apply(&self, order: &PurgeOrder, now: SystemTime) {
        self.purges.apply(order, now);
        self.detach_fills(order);
    }

    /// Orders may have been missed: everything that was stored until now, or is on its way, counts as purged.
    pub fn forget_all(&self) {
        self.purges.forget_all();
        self.detach_fills(&PurgeOrder { targets: vec![PurgeTarget::All], soft: false });
    }

    /// What a purge would match; `None` where more than `COUNTED_MAX` is stored. Walks the tier: call it off the workers.
    pub fn count(&self, order: &PurgeOrder) -> Option<Counted> {
        if self.memory.usage().1 > COUNTED_MAX {
            return None;
        }
        let purges = Purges::new(self.seed);
        purges.apply(order, SystemTime::UNIX_EPOCH);
        let mut counted = Counted::default();
        for stored in self.memory.walk() {
            let is_touched = !matches!(purges.check(0, &stored.subject()), PurgeVerdict::Untouched);
            if is_touched && !matches!(self.verdict(&stored), PurgeVerdict::Hard) {
                counted.matched += 1;
                counted.bytes += stored.body.held();
            }
        }
        Some(counted)
    }

    /// Gives back the space of what purges have taken. Walks the tier: call it off the workers, and not for every purge.
    pub fn reclaim(&self) {
        for stored in self.memory.walk() {
            if matches!(self.verdict(&stored), PurgeVerdict::Hard) {
                self.memory.remove(&stored);
            }
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

    /// Brings the gauges up to date; called when they are read.
    pub fn observe(&self) {
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
