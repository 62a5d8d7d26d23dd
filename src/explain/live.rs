//! Of a node: what is stored of a URL now, and what a request would get.

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::HeaderMap;
use serde::Serialize;

use super::{
    Explanation, Outcome, Scene,
    changes::{self, Facts},
    coding,
    fetching::{self, Fills, Unanswered},
    request::{Ask, AskError},
    reusing, rules,
    telling::Telling,
    walk::{Cached, Walk},
};
use crate::{
    cache::{self, Coding, Reason, RequestView, Reuse, Standing, Use, Vary},
    proxy::{
        asking::{Asking, Sought},
        decision::{Looked, Step},
    },
    store::{Found, Lookup, Store, Stored, Variant},
};

/// Variants that are told, the newest, and the one that the request selects. A policy may allow 10,000: the answer is for people, and
/// made while others are answered.
const VARIANTS_MAX: usize = 100;

/// What the store knows under a key.
#[derive(Debug, Clone, Serialize)]
pub struct StoreTold {
    /// Variants that are stored; all of them are told, or the newest hundred.
    pub count: usize,
    pub variants: Vec<VariantTold>,
    /// A fetch for everybody is under way that would bring what this request gets.
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

/// A node, as far as it decides about requests.
pub struct Node<'a> {
    pub store: &'a Store,
    /// It has heard of every purge.
    pub is_trusted: bool,
    /// It is cut off from its fleet, and answers nothing.
    pub is_stopped: bool,
}

/// What is stored for a request, as far as that says what would be asked for.
#[derive(Default)]
struct Seen {
    vary: Option<Vary>,
    holding: Option<Arc<Stored>>,
    /// To be validated.
    stale: Option<Found>,
    ttl: Option<i64>,
}

/// Explains a request that would come at `now`.
///
/// # Errors
/// When there is no such request.
pub async fn live(scene: Scene<'_>, node: &Node<'_>, ask: &Ask, now: SystemTime) -> Result<Explanation, AskError> {
    let mut walk = Walk::new(scene, ask)?;
    let cached = match walk.until_key(node.is_stopped) {
        Ok(cached) => cached,
        Err(outcome) => return Ok(walk.ended(outcome)),
    };
    let request = walk.taken.request.fields.clone();
    let variants = node.store.variants(&cached.key).await;
    let looked = lookup(&variants, &request);
    let method = walk.taken.request.method.clone();
    let query = walk.taken.request.target.query().map(str::to_owned);
    let nothing = HeaderMap::new();
    let view = RequestView { method: &method, fields: &request };
    let Cached { route, policy, key, negotiated, .. } = &cached;
    let store = node.store;
    let mut facts = Facts::of_request(scene, &route.name, policy, &request, query.as_deref(), &nothing);
    let asking = Asking { store, request: view, negotiated: *negotiated, compress: policy.compress.as_ref() };
    let found;
    let telling = &mut walk.telling;
    let mut seen = Seen::default();
    let answers = if cache::refreshes(policy, &request, query.as_deref()) {
        telling.push(Step::Refresh);
        telling.tell_reason(Reason::Refresh, "its fields and query", "not looked up", &facts);
        Err(Unanswered::because(Standing::default(), Outcome::Fetched))
    } else {
        match looked {
            Lookup::Found(stored) => {
                found = stored;
                facts = changes::facts_of(facts, &found.stored.meta, now, found.soft_purged);
                let used = (now, found.soft_purged, node.is_trusted);
                let used = reusing::reuse(telling, &cached, &view, &found.stored.meta, &facts, used);
                examine(telling, &cached, &asking, &found, used, now, &mut seen)
            }
            Lookup::VaryMiss(vary) => {
                seen.vary = Some(vary);
                missed(telling, Looked::VaryMiss, "other variants alone")
            }
            Lookup::Miss => missed(telling, Looked::Miss, "nothing stored"),
        }
    };
    let holding = seen.holding.as_deref();
    let sought = Sought { policy, key, vary: seen.vary.as_ref(), holding, whole_only: false };
    let told = told(store, &variants, sought.fill_id(&asking.ask_for(&sought), &request), &request, now);
    let outcome = answers.unwrap_or_else(|unanswered| {
        if told.failing
            && node.is_trusted
            && let Some(Found { stored, soft_purged }) = &seen.stale
            && cache::may_answer_error(&stored.meta, &cached.directives, policy, now, *soft_purged)
        {
            telling.push(Step::StaleIfError);
            let place = telling.place(&route.name, "stale_if_error");
            telling.tell(rules::STALE_IF_ERROR, "a fetch failed within a second", "it answers stale at once", place);
            return Outcome::Stale;
        }
        let is_used_enough = || store.would_be_used_enough(key, policy.min_uses);
        let (runs, uncollapsible, untrusted) = (told.fill_runs, told.uncollapsible, !node.is_trusted);
        let fills = Fills { runs, uncollapsible, untrusted };
        fetching::fetch(telling, &cached, &view, &facts, unanswered, is_used_enough, fills)
    });
    let cache_status = telling.cache_status(seen.ttl);
    let mut explanation = walk.ended(outcome);
    explanation.cache_status = cache_status;
    explanation.store = Some(told);
    Ok(explanation)
}

fn missed(telling: &mut Telling<'_>, looked: Looked, outcome: &str) -> Result<Outcome, Unanswered> {
    telling.push(Step::Lookup(looked));
    telling.tell(rules::LOOKUP, "the key and the fields that Vary names", outcome, None);
    let uri_miss = matches!(looked, Looked::Miss);
    Err(Unanswered::missed(Standing { uri_miss, ..Standing::default() }))
}

/// What was found: is all of it here that is asked for, and in which coding?
fn examine(
    telling: &mut Telling<'_>,
    cached: &Cached,
    asking: &Asking<'_>,
    found: &Found,
    used: Use,
    now: SystemTime,
    seen: &mut Seen,
) -> Result<Outcome, Unanswered> {
    let (stored, meta) = (&found.stored, &found.stored.meta);
    let answers = reusing::answers(used);
    let Use::Reuse(reuse) = used else { return answers };
    seen.ttl = Some(meta.ttl_at(now, found.soft_purged));
    seen.vary = reuse.asks().then(|| meta.vary().clone());
    let missing = if matches!(reuse, Reuse::Unusable(_)) { None } else { asking.missing(stored) };
    if let Some(missing) = missing {
        telling.push(Step::Missing);
        let held = reuse.may_be_completed(meta);
        let told = if held { "asked for, to be added to what is here" } else { "nothing can be added to what is here" };
        let input = format!("bytes {}-{} are not here", missing.start, missing.end.saturating_sub(1));
        telling.tell(rules::MISSING, input, told, None);
        seen.holding = held.then(|| Arc::clone(stored));
        let outcome = if held { Outcome::Completed } else { Outcome::Fetched };
        return Err(Unanswered::because(Standing { held, ..Standing::default() }, outcome));
    }
    if let Reuse::Validate(_) = reuse {
        seen.stale = Some(found.clone());
    }
    coding::copy(telling, cached, meta, Some(stored.body.length()), |coding| {
        let name = coding.name();
        match asking.copy(stored) {
            Some(copy) => format!("the copy in {name}, {} bytes", copy.body.length()),
            None if stored.is_coded_in_vain(coding) => {
                format!("the bytes as they are: in {name} they are hardly fewer")
            }
            None if !stored.body.is_whole() => "the bytes as they are: some are not here".to_owned(),
            None => format!("the bytes as they are, until a copy in {name} is made"),
        }
    });
    answers
}

/// What the store answers to a request where these are the variants.
fn lookup(variants: &[Variant], request: &HeaderMap) -> Lookup {
    let selected = variants.iter().find(|variant| variant.found.stored.is_selected_by(request));
    match (selected, variants.first()) {
        (Some(variant), _) => Lookup::Found(variant.found.clone()),
        (None, Some(newest)) => Lookup::VaryMiss(newest.found.stored.meta.vary().clone()),
        (None, None) => Lookup::Miss,
    }
}

/// `id`: of the fetch that would bring what is sought.
fn told(store: &Store, variants: &[Variant], id: u128, request: &HeaderMap, now: SystemTime) -> StoreTold {
    let selected = variants.iter().position(|variant| variant.found.stored.is_selected_by(request));
    let told = variants.iter().enumerate().filter(|(at, _)| *at < VARIANTS_MAX || Some(*at) == selected);
    StoreTold {
        count: variants.len(),
        variants: told.map(|(_, found)| variant(found, request, now)).collect(),
        fill_runs: store.is_filling(id),
        uncollapsible: store.is_uncollapsible(id, Instant::now()),
        failing: store.is_failing(id, Instant::now()),
        position: store.position(),
    }
}

fn variant(variant: &Variant, request: &HeaderMap, now: SystemTime) -> VariantTold {
    let Variant { found: Found { stored, soft_purged: purged }, tier } = variant;
    let purged = *purged;
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
        ttl: meta.ttl_at(now, purged),
        tier,
        surrogate_keys: meta.surrogate_keys().iter().map(|key| key.as_str().to_owned()).collect(),
        position: stored.position,
        purged: purged.map(|_| "soft"),
    }
}

impl fmt::Display for StoreTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variants.len() {
            all if all == self.count => writeln!(f, "Stored under this key: {all}")?,
            told => writeln!(f, "Stored under this key: {told} of {}", self.count)?,
        }
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

#[cfg(test)]
mod tests {
    use super::StoreTold;

    #[test]
    fn variants_that_are_not_told_are_counted() {
        let first_line = |count| {
            let (fill_runs, uncollapsible, failing, position) = (false, false, false, 0);
            let told = StoreTold { count, variants: Vec::new(), fill_runs, uncollapsible, failing, position };
            told.to_string().lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(first_line(0), "Stored under this key: 0");
        assert_eq!(first_line(7), "Stored under this key: 0 of 7");
    }
}
