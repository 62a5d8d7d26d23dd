//! Of a node: what is stored of a URL now, and what a request would get.

use std::{
    fmt,
    time::{Instant, SystemTime},
};

use http::HeaderMap;
use serde::Serialize;

use super::{
    Explanation, Outcome, Scene,
    changes::{self, Facts},
    request::{Ask, AskError},
    reusing, rules,
    walk::{Cached, Walk},
};
use crate::{
    cache::{self, Coding, Reason, RequestView, Standing},
    proxy::{
        decision::{Fetch, Looked, Step},
        lookup::fill_id,
    },
    store::{Found, Lookup, Store},
};

/// Variants that are told; a policy allows no more than some dozens.
const VARIANTS_MAX: usize = 100;

/// What the store knows under a key.
#[derive(Debug, Clone, Serialize)]
pub struct StoreTold {
    pub variants: Vec<VariantTold>,
    /// A fetch for everybody is under way.
    pub fill_runs: bool,
    /// The last answer was not storable: requests do not wait for each other for a while.
    pub uncollapsible: bool,
    /// The last fetch failed within a second.
    pub failing: bool,
    /// Where purges are now.
    pub position: u64,
}

/// A stored response.
#[derive(Debug, Clone, Serialize)]
pub struct VariantTold {
    /// Does this request select it?
    pub selected: bool,
    /// The fields that `Vary` names, as they were in the request that brought it.
    pub vary: Vec<String>,
    pub status: u16,
    pub bytes: u64,
    /// Content codings that there are copies in.
    pub codings: Vec<&'static str>,
    /// Seconds.
    pub age: u64,
    /// Seconds.
    pub lifetime: u64,
    /// What the lifetime comes from.
    pub source: &'static str,
    /// Seconds left; negative: stale for so long.
    pub ttl: i64,
    pub tier: &'static str,
    pub surrogate_keys: Vec<String>,
    /// Purges after this position touch it.
    pub position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<&'static str>,
}

/// Explains a request that would come at `now`. `trusted`: this node has heard of every purge.
///
/// # Errors
/// When there is no such request.
pub fn live(
    scene: Scene<'_>,
    store: &Store,
    trusted: bool,
    ask: &Ask,
    now: SystemTime,
) -> Result<Explanation, AskError> {
    let mut walk = Walk::new(scene, ask)?;
    let cached = match walk.until_key() {
        Ok(cached) => cached,
        Err(outcome) => return Ok(walk.ended(outcome)),
    };
    let request = walk.taken.request.fields.clone();
    let told = told(store, &cached, &request, now);
    let method = walk.taken.request.method.clone();
    let query = walk.taken.request.target.query().map(str::to_owned);
    let nothing = HeaderMap::new();
    let view = RequestView { method: &method, fields: &request };
    let Cached { route, policy, key, directives } = &cached;
    let facts = Facts::of_request(scene, &route.name, policy, &request, query.as_deref(), &nothing);
    let mut ttl = None;
    let looked = match cache::refreshes(policy, &request, query.as_deref()) {
        true => {
            walk.telling.push(Step::Refresh);
            walk.telling.tell_reason(Reason::Refresh, "its fields and query", "not looked up", &facts);
            None
        }
        false => Some(store.lookup(key, &request)),
    };
    let outcome = match looked {
        Some(Lookup::Found(found)) => {
            let meta = &found.stored.meta;
            let facts = changes::facts_of(facts, meta, now);
            ttl = Some(match found.soft_purged {
                Some(purged) => meta.ttl_after_purge(now, purged),
                None => meta.ttl(now),
            });
            reusing::reuse(&mut walk.telling, &cached, &view, meta, &facts, (now, found.soft_purged, trusted))
        }
        missed => {
            let uri_miss = matches!(missed, Some(Lookup::Miss));
            let standing = Standing { uri_miss, precondition_failed: false, held: false };
            // Asking here is no use.
            let used_enough = || policy.min_uses <= 1 || store.uses(key).saturating_add(1) >= policy.min_uses;
            let looked = match missed {
                Some(Lookup::VaryMiss(_)) => Some((Looked::VaryMiss, "other variants alone")),
                Some(_) => Some((Looked::Miss, "nothing stored")),
                None => None,
            };
            if let Some((looked, outcome)) = looked {
                walk.telling.push(Step::Lookup(looked));
                walk.telling.tell(rules::LOOKUP, "the key and the fields that Vary names", outcome, None);
            }
            if cache::only_if_cached(directives, policy) {
                walk.telling.push(Step::OnlyIfCached);
                walk.telling.tell_reason(Reason::OnlyIfCached, "only-if-cached", "504: nothing stored", &facts);
                Outcome::Refused
            } else if let Some(reason) = cache::alone(&view, directives, standing, used_enough) {
                walk.telling.push(Step::Alone(reason));
                walk.telling.tell_reason(reason, method.as_str(), "for this client alone, nothing stored", &facts);
                Outcome::Bypassed
            } else {
                let fetch = if told.fill_runs { Fetch::Waiter } else { Fetch::Writer };
                let place = walk.telling.place(&route.name, "collapse.wait");
                let outcome = if told.fill_runs { "waits for the fetch under way" } else { "asks the origin" };
                walk.telling.push(Step::Fetch(fetch));
                walk.telling.tell(rules::FETCH, "fetches under way", outcome, place);
                Outcome::Fetched
            }
        }
    };
    let cache_status = walk.telling.cache_status(ttl);
    let mut explanation = walk.ended(outcome);
    explanation.cache_status = cache_status;
    explanation.store = Some(told);
    Ok(explanation)
}

fn told(store: &Store, cached: &Cached, request: &HeaderMap, now: SystemTime) -> StoreTold {
    let key = &cached.key;
    let vary = match store.lookup(key, request) {
        Lookup::Found(found) => Some(found.stored.meta.vary().clone()),
        Lookup::VaryMiss(vary) => Some(vary),
        Lookup::Miss => None,
    };
    let id = fill_id(key, vary.as_ref(), request);
    let variants = store.variants(key).into_iter().take(VARIANTS_MAX);
    StoreTold {
        variants: variants.map(|found| variant(&found, request, now)).collect(),
        fill_runs: store.is_filling(id),
        uncollapsible: store.is_uncollapsible(id, Instant::now()),
        failing: store.is_failing(id, Instant::now()),
        position: store.position(),
    }
}

fn variant(found: &Found, request: &HeaderMap, now: SystemTime) -> VariantTold {
    let (stored, purged) = (&found.stored, found.soft_purged);
    let meta = &stored.meta;
    let lifetime = meta.lifetime();
    VariantTold {
        selected: stored.is_selected_by(request),
        vary: stored.variant.shown().collect(),
        status: meta.status.as_u16(),
        bytes: stored.body.length(),
        codings: stored.codings().into_iter().map(Coding::name).collect(),
        age: meta.age(now).as_secs(),
        lifetime: lifetime.duration.as_secs(),
        source: lifetime.source.into(),
        ttl: purged.map_or_else(|| meta.ttl(now), |purged| meta.ttl_after_purge(now, purged)),
        tier: "memory",
        surrogate_keys: meta.surrogate_keys().iter().map(|key| key.as_str().to_owned()).collect(),
        position: stored.position,
        purged: purged.map(|_| "soft"),
    }
}

impl fmt::Display for StoreTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Stored under this key: {}", self.variants.len())?;
        for variant in &self.variants {
            let mark = if variant.selected { "*" } else { " " };
            let VariantTold { status, bytes, age, lifetime, source, ttl, tier, position, .. } = variant;
            write!(f, "{mark} {status}, {bytes} bytes in {tier}, age {age}s of {lifetime}s by {source}, ttl {ttl}s")?;
            write!(f, ", position {position}")?;
            variant.vary.iter().try_for_each(|field| write!(f, ", {field}"))?;
            if !variant.surrogate_keys.is_empty() {
                write!(f, ", surrogate keys {}", variant.surrogate_keys.join(" "))?;
            }
            if !variant.codings.is_empty() {
                write!(f, ", copies in {}", variant.codings.join(" "))?;
            }
            writeln!(f, "{}", if variant.purged.is_some() { ", soft-purged" } else { "" })?;
        }
        let marks = [
            (self.fill_runs, "a fetch is under way"),
            (self.uncollapsible, "not collapsed"),
            (self.failing, "failing"),
        ];
        for (_, mark) in marks.into_iter().filter(|(is, _)| *is) {
            writeln!(f, "  {mark}")?;
        }
        writeln!(f, "  purge position {}", self.position)
    }
}
