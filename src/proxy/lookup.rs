//! Step 3 on a cached route: what is stored, may it be used, and who fetches what is not.

use std::{
    ops::Range,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{
    HeaderMap, Method,
    header::{CACHE_CONTROL, PRAGMA},
};
use tokio::sync::mpsc;

use super::{
    asking::Sought,
    decision::{Looked, Routed, Step},
    downstream::{ClientGone, RequestBody, ResponseSink},
    exchange::Exchange,
    fetch::OriginRequest,
    refill::{Ask, Refill, Told},
    routing::Route,
    synth::Refusal,
    unkeyed,
};
use crate::{
    cache::{self, ClientDirectives, Key, Policy, RequestDirectives, RequestView, Reuse, Standing, Use, Vary},
    store::{Fill, Found, Joined, Lookup, Place, Stored},
    upstream::Pool,
};

/// What the lookup found out, for whoever fetches.
pub struct Wanted {
    pub policy: Arc<Policy>,
    pub route: Arc<Route>,
    pub pool: Arc<Pool>,
    pub sticky: Option<String>,
    pub key: Arc<Key>,
    pub directives: RequestDirectives,
    /// What the store had for this request when it looked, whatever came of it.
    pub seen: Option<Arc<Stored>>,
    /// Other variants are stored, or are coming, and differ by this.
    pub vary: Option<Vary>,
    /// Stored, but not to be used as it is.
    pub stale: Option<Found>,
    /// Stored, but not all that is asked for.
    pub holding: Option<Found>,
    /// Asking for parts has been no success.
    pub whole_only: bool,
    /// What the last look in the store came to, as the law asks it.
    pub standing: Standing,
}

/// What the cache says of a request before anybody has to be waited for.
pub enum Ahead {
    /// It has no part in it.
    Aside,
    /// It was looked up.
    Looked(Look),
    /// Memory has nothing for it, and a tier below may.
    Below(Look),
}

/// What a look in the store found out.
pub struct Look {
    pub key: Key,
    pub directives: RequestDirectives,
    pub findings: Findings,
}

/// What is stored for a request, and what that means for it.
#[derive(Default)]
pub struct Findings {
    found: Option<Found>,
    /// As in [`Wanted`].
    vary: Option<Vary>,
    standing: Standing,
    answer: Answer,
}

#[derive(Default)]
enum Answer {
    /// What was found does not answer.
    #[default]
    None,
    /// It lacks something that is asked for, which may be added to it.
    Holding,
    /// It answers, or does once it is validated; decided at this time.
    Usable(Reuse, SystemTime),
}

/// A stored response that answers, or does once it is validated.
pub struct Usable {
    pub found: Found,
    pub reuse: Reuse,
    /// When that was decided.
    pub now: SystemTime,
}

impl Findings {
    /// What is fresh, and when that was decided.
    pub fn fresh(&self) -> Option<(&Found, SystemTime)> {
        match (&self.found, &self.answer) {
            (Some(found), Answer::Usable(Reuse::Fresh, now)) => Some((found, *now)),
            _ => None,
        }
    }

    fn vary_miss(vary: Vary) -> Self {
        Self { vary: Some(vary), ..Self::default() }
    }

    fn uri_miss(found: Option<Found>) -> Self {
        Self { found, standing: Standing { uri_miss: true, ..Standing::default() }, ..Self::default() }
    }
}

impl Wanted {
    pub fn sought(&self) -> Sought<'_> {
        Sought {
            policy: &self.policy,
            key: &self.key,
            vary: self.vary.as_ref(),
            holding: self.holding.as_ref().map(|found| &*found.stored),
            whole_only: self.whole_only,
        }
    }

    /// Takes in what the last look found; what may answer is given back.
    fn note(&mut self, findings: Findings) -> Option<Usable> {
        let Findings { found, vary, standing, answer } = findings;
        (self.stale, self.holding) = (None, None);
        self.standing = standing;
        self.vary = vary.or(self.vary.take());
        let found = found?;
        self.seen = Some(Arc::clone(&found.stored));
        match answer {
            Answer::None => None,
            Answer::Holding => {
                self.holding = Some(found);
                None
            }
            Answer::Usable(reuse, now) => Some(Usable { found, reuse, now }),
        }
    }

    pub fn fill_id(&self, ask: &Ask, request: &HeaderMap) -> u128 {
        self.sought().fill_id(ask, request)
    }

    /// What a purge of the URL names.
    pub fn url(&self, seed: u64) -> u128 {
        self.key.url_hash(seed)
    }
}

impl Exchange<'_> {
    /// Answers from the store, or sees to it that something gets there.
    pub async fn cached<B: RequestBody, S: ResponseSink>(
        &mut self,
        route: &Arc<Route>,
        policy: &Arc<Policy>,
        pool: &Arc<Pool>,
        sticky: Option<String>,
        body: &mut B,
        sink: &mut S,
    ) -> Result<(), ClientGone> {
        let ahead = match self.ahead.take() {
            Some(ahead) => *ahead,
            None => self.look_ahead(policy, !body.is_empty()),
        };
        let Look { key, directives, findings } = match ahead {
            Ahead::Looked(look) => look,
            Ahead::Below(mut look) => {
                let looked = self.edge.store.find(&look.key, &self.request.fields).await;
                look.findings = self.judge(&look.directives, policy, looked);
                look
            }
            Ahead::Aside => {
                let request = self.origin_request(route, pool, sticky);
                return self.pass(pool, request, body, sink).await;
            }
        };
        let mut wanted = Wanted {
            policy: Arc::clone(policy),
            route: Arc::clone(route),
            pool: Arc::clone(pool),
            sticky,
            key: Arc::new(key),
            directives,
            seen: None,
            vary: None,
            stale: None,
            holding: None,
            whole_only: false,
            standing: Standing::default(),
        };
        if let Some(usable) = wanted.note(findings)
            && self.answer_with(&mut wanted, usable, sink).await?
        {
            return Ok(());
        }
        if cache::only_if_cached(&wanted.directives, policy) {
            self.decide(Step::OnlyIfCached);
            return self.deliver_refusal(sink, &Refusal::OnlyIfCached).await;
        }
        wanted.standing.held = wanted.stale.is_some() || wanted.holding.is_some();
        let view = RequestView { method: &self.request.method, fields: &self.request.fields };
        let is_used_enough = || self.edge.store.is_used_enough(&wanted.key, policy.min_uses);
        match cache::alone(&view, &wanted.directives, wanted.standing, is_used_enough) {
            Some(reason) => {
                self.decide(Step::Alone(reason));
                let request = self.shared_request(&wanted);
                self.pass(pool, request, body, sink).await
            }
            None => self.answer_from_fill(wanted, sink).await,
        }
    }

    /// Asks the cache as far as nobody has to be waited for.
    pub(super) fn look_ahead(&mut self, policy: &Policy, has_body: bool) -> Ahead {
        self.decide(Step::Route(Routed::Cached));
        let view = RequestView { method: &self.request.method, fields: &self.request.fields };
        if let Some((fwd, reason)) = cache::aside(&view, self.request.target.query(), has_body, policy) {
            self.decide(Step::Aside(fwd, reason));
            return Ahead::Aside;
        }
        let directives = cache::directives(&self.request.fields, policy);
        cache::normalise_language(&mut self.request.fields, policy);
        self.trace.negotiated = cache::normalise_encoding(&mut self.request.fields, &directives, policy);
        let key = self.key(policy);
        self.trace.key_hash = Some(key.hash());
        let findings = if cache::refreshes(policy, &self.request.fields, self.request.target.query()) {
            self.decide(Step::Refresh);
            Findings::default()
        } else {
            match self.edge.store.lookup(&key, &self.request.fields) {
                Lookup::VaryMiss(_) | Lookup::Miss if self.edge.store.is_below(&key) => {
                    return Ahead::Below(Look { key, directives, findings: Findings::default() });
                }
                looked => self.judge(&directives, policy, looked),
            }
        };
        Ahead::Looked(Look { key, directives, findings })
    }

    /// The cache key under this policy.
    pub fn key(&self, policy: &Policy) -> Key {
        let request = &self.request;
        Key::new(
            self.edge.store.seed(),
            request.scheme.as_str(),
            &request.authority.host,
            request.port(),
            request.target.path(),
            request.target.query(),
            &request.fields,
            policy,
        )
    }

    /// What the origin is asked where the answer may be shared: without what the key drops, and without what would shape the
    /// answer for others.
    fn shared_request(&self, wanted: &Wanted) -> OriginRequest {
        let mut request = self.origin_request(&wanted.route, &wanted.pool, wanted.sticky.clone());
        request.is_shared = true;
        let query = cache::forwarded_query(self.request.target.query(), &wanted.policy);
        request.target = self.origin_target(&wanted.route, query.as_deref());
        unkeyed::strip(&mut request.fields, &wanted.policy.key_headers);
        cache::limit_cookies(&mut request.fields, &wanted.policy);
        request
    }

    /// Answers from the store if the law allows; else `wanted` says what was found.
    pub(super) async fn answer_from_store<S: ResponseSink>(
        &mut self,
        wanted: &mut Wanted,
        sink: &mut S,
    ) -> Result<bool, ClientGone> {
        // In every tier.
        let looked = self.edge.store.find(&wanted.key, &self.request.fields).await;
        let findings = self.judge(&wanted.directives, &wanted.policy, looked);
        match wanted.note(findings) {
            Some(usable) => self.answer_with(wanted, usable, sink).await,
            None => Ok(false),
        }
    }

    /// What was looked up is for this request: why it answers, or why not.
    fn judge(&mut self, directives: &RequestDirectives, policy: &Policy, looked: Lookup) -> Findings {
        let found = match looked {
            Lookup::Found(found) => found,
            Lookup::VaryMiss(vary) => {
                self.decide(Step::Lookup(Looked::VaryMiss));
                return Findings::vary_miss(vary);
            }
            Lookup::Miss => {
                self.decide(Step::Lookup(Looked::Miss));
                return Findings::uri_miss(None);
            }
        };
        let now = self.edge.clock.now();
        let view = RequestView { method: &self.request.method, fields: &self.request.fields };
        let meta = &found.stored.meta;
        let purge = (found.soft_purged, self.edge.fleet.is_trusted());
        let used = cache::usable(meta, &view, directives, policy, now, purge);
        if used == Use::Outlived {
            self.decide(Step::Lookup(Looked::Outlived));
            self.edge.store.remove(&found.stored);
            return Findings::uri_miss(Some(found));
        }
        self.decide(Step::Lookup(if found.soft_purged.is_some() { Looked::SoftPurged } else { Looked::Found }));
        let Use::Reuse(reuse) = used else {
            self.decide(Step::Precondition);
            let standing = Standing { precondition_failed: true, ..Standing::default() };
            return Findings { found: Some(found), standing, ..Findings::default() };
        };
        // A fetch for this variant is none for the others.
        let vary = reuse.asks().then(|| meta.vary().clone());
        self.decide(Step::Reuse(reuse));
        if !matches!(reuse, Reuse::Unusable(_)) && self.missing(&found.stored).is_some() {
            self.decide(Step::Missing);
            let answer = if reuse.may_be_completed(meta) { Answer::Holding } else { Answer::None };
            return Findings { found: Some(found), vary, answer, ..Findings::default() };
        }
        let answer = if matches!(reuse, Reuse::Unusable(_)) { Answer::None } else { Answer::Usable(reuse, now) };
        Findings { found: Some(found), vary, answer, ..Findings::default() }
    }

    /// Answers with what is stored if it may be used as it is.
    async fn answer_with<S: ResponseSink>(
        &mut self,
        wanted: &mut Wanted,
        usable: Usable,
        sink: &mut S,
    ) -> Result<bool, ClientGone> {
        let Usable { found, reuse, .. } = usable;
        match reuse {
            Reuse::Fresh | Reuse::StaleAllowed => self.deliver_stored(sink, &found.stored, found.soft_purged).await,
            Reuse::StaleWhileRevalidate => {
                self.revalidate_behind(wanted, &found);
                self.deliver_stored(sink, &found.stored, found.soft_purged).await
            }
            Reuse::Validate(_) => {
                let id = wanted.fill_id(&self.ask_for(wanted), &self.request.fields);
                if self.edge.store.is_failing(id, Instant::now())
                    && let Some(found) = self.covering_error(wanted, &found)
                {
                    // It failed a moment ago: nobody waits for the next failure.
                    self.decide(Step::StaleIfError);
                    return self.deliver_stored(sink, &found.stored, found.soft_purged).await;
                }
                wanted.stale = Some(found);
                Ok(false)
            }
            Reuse::Unusable(_) => Ok(false),
        }
    }

    /// What was found, if it may stand in for an origin that has failed. A purge may have come while the origin was asked.
    pub(super) fn covering_error(&self, wanted: &Wanted, found: &Found) -> Option<Found> {
        let now = self.edge.clock.now();
        let found = self.edge.store.again(found).filter(|_| self.edge.fleet.is_trusted())?;
        let (meta, soft_purged) = (&found.stored.meta, found.soft_purged);
        cache::may_answer_error(meta, &wanted.directives, &wanted.policy, now, soft_purged).then_some(found)
    }

    /// Which of the bytes that this request gets are not here.
    fn missing(&self, stored: &Stored) -> Option<Range<u64>> {
        self.asking().missing(stored)
    }

    /// What to ask the origin for.
    pub(super) fn ask_for(&self, wanted: &Wanted) -> Ask {
        self.asking().ask_for(&wanted.sought())
    }

    /// Validates while the stale answer is already on its way; one fetch at a time.
    fn revalidate_behind(&self, wanted: &Wanted, found: &Found) {
        let ask = self.ask_for(wanted);
        let id = wanted.fill_id(&ask, &self.request.fields);
        if self.edge.store.is_failing(id, Instant::now()) {
            return;
        }
        if let Joined::Writer(fill) = self.join(wanted, id) {
            self.refill(wanted, ask, id, fill, Some(found.clone()), None);
        }
    }

    /// Begins a fetch for the store.
    pub fn refill(
        &self,
        wanted: &Wanted,
        ask: Ask,
        fill_id: u128,
        fill: Arc<Fill>,
        validating: Option<Found>,
        client: Option<mpsc::Sender<Told>>,
    ) {
        let mut request = self.shared_request(wanted);
        request.method = Method::GET;
        if wanted.policy.client_directives == ClientDirectives::Ignore {
            request.fields.remove(CACHE_CONTROL);
            request.fields.remove(PRAGMA);
        }
        // In this order: what a purge before the position has touched is not validated, and a purge after it touches what comes.
        let position = self.edge.store.position();
        let validating = validating.and_then(|found| self.edge.store.again(&found));
        let narrowed = wanted.policy.for_path(self.request.target.path());
        let metrics = self.trace.metrics.clone().unwrap_or_else(|| Arc::clone(self.snapshot.router.unmatched()));
        Refill {
            edge: Arc::clone(self.edge),
            pool: Arc::clone(&wanted.pool),
            policy: narrowed.map_or_else(|| Arc::clone(&wanted.policy), Arc::new),
            metrics,
            ask,
            request,
            selecting: HeaderMap::clone(&self.request.fields),
            place: Place {
                key: Arc::clone(&wanted.key),
                url: wanted.key.url_hash(self.edge.store.seed()),
                position,
                variants_max: wanted.policy.variants_max,
            },
            fill_id,
            fill,
            validating,
            client,
        }
        .spawn();
    }
}
