//! What was decided about one request, step by step: the one value that `Cache-Status`, the record, the metrics and
//! `explain` are made from.

use http::{HeaderValue, StatusCode};

use crate::{
    cache::{CacheStatus, Fwd, LifetimeSource, Reason, Reuse},
    telemetry::CacheResult,
};

/// Steps of one request: nine before a fetch, each of at most four fetches adds three, and each of at most four further looks
/// in the store as many. Beyond it the last step is overwritten, so that the end is always there.
pub const STEPS_MAX: usize = 33;

/// What is said where a route has no cache policy; a test compares it with what is formatted.
const BYPASSED: &str = "eduham-edge; fwd=bypass";

/// The chain of decisions about one request. Small and plain: pushing a step allocates and formats nothing; words are
/// made only when somebody asks for them.
#[derive(Debug, Clone, Copy)]
pub struct Decision {
    steps: [Step; STEPS_MAX],
    length: u8,
}

/// One decision: what it was about and how it came out. Its rule, words, place and advice are in
/// `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Is the request one that we take, and which route takes it?
    Route(Routed),
    /// The cache has no part in it.
    Aside(Fwd, Reason),
    /// What is stored under the key.
    Lookup(Looked),
    /// May what is stored answer?
    Reuse(Reuse),
    /// What is stored cannot say that the client's precondition is false: the origin is asked.
    Precondition,
    /// Some of the bytes that are asked for are not here.
    Missing,
    /// The policy wants the answer anew.
    Refresh,
    /// The client wants nothing but what is stored.
    OnlyIfCached,
    /// The answer will be for this client alone.
    Alone(Reason),
    /// How the origin came to be asked.
    Fetch(Fetch),
    /// May what came be stored?
    Store(Result<LifetimeSource, Reason>),
    /// The origin said 304: the stored response has a new head.
    Freshened,
    /// What is stored and what came make the answer together.
    Completed,
    /// Some of the stored body was evicted in this very moment.
    Evicted,
    /// What came is of another representation than what is stored, or not what was asked for.
    Changed,
    /// The origin failed, now or a moment ago.
    Failed,
    /// What is stored stands in for an origin that failed.
    StaleIfError,
}

/// What became of the choice of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Routed {
    /// The request was refused before.
    Refused,
    /// No route takes it.
    NoRoute,
    /// The route answers by itself.
    Respond,
    /// The route sends the client elsewhere.
    Redirect,
    /// The route makes a socket of it.
    Socket,
    /// The route has no cache policy.
    Uncached,
    /// The route has a cache policy.
    Cached,
}

/// What was found under the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Looked {
    Miss,
    /// Other variants alone.
    VaryMiss,
    /// It was there, past its time, and is gone now.
    Outlived,
    Found,
    /// A soft purge expired it.
    SoftPurged,
}

/// Who asked the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Fetch {
    /// This request, for everybody who wants the same.
    Writer,
    /// Another request, for this one too.
    Waiter,
    /// This request after it had waited in vain for another's.
    SecondWriter,
    /// Another request, in vain, and this one was not to ask.
    WaitExpired,
}

impl Default for Decision {
    fn default() -> Self {
        Self { steps: [Step::Failed; STEPS_MAX], length: 0 }
    }
}

impl Decision {
    pub fn push(&mut self, step: Step) {
        let at = usize::from(self.length).min(STEPS_MAX - 1);
        self.steps[at] = step;
        self.length = at as u8 + 1;
    }

    /// In the order in which they were made.
    pub fn steps(&self) -> &[Step] {
        &self.steps[..usize::from(self.length)]
    }

    /// What `Cache-Status` says; `None` where the edge itself is the origin. `ttl` is that of what is answered with.
    pub fn cache_status(&self, ttl: Option<i64>) -> Option<CacheStatus<'static>> {
        let mut status = CacheStatus::default();
        let (mut soft_purged, mut is_writer) = (false, false);
        // Why the request went forward, and why what came was not for the store.
        let (mut asked, mut refused) = (None, None);
        for step in self.steps() {
            match *step {
                Step::Route(Routed::Cached) => {}
                Step::Route(Routed::Uncached) => status.fwd = Some(Fwd::Bypass),
                Step::Route(_) => return None,
                Step::Aside(fwd, reason) => (status.fwd, asked) = (Some(fwd), Some(reason)),
                Step::Refresh => (status.fwd, asked) = (Some(Fwd::Request), Some(Reason::Refresh)),
                // It may be looked up again, because another's fetch has ended: what was found before counts no more.
                Step::Lookup(looked) => {
                    (status.hit, asked) = (false, None);
                    soft_purged = looked == Looked::SoftPurged;
                    status.fwd = match looked {
                        Looked::Miss | Looked::Outlived => Some(Fwd::UriMiss),
                        Looked::VaryMiss => Some(Fwd::VaryMiss),
                        Looked::Found | Looked::SoftPurged => status.fwd,
                    };
                }
                Step::Reuse(reuse) => {
                    status.fwd = reuse.fwd();
                    status.hit = status.fwd.is_none();
                    asked = match reuse {
                        Reuse::Fresh => None,
                        Reuse::StaleAllowed | Reuse::StaleWhileRevalidate => Some(stale(soft_purged)),
                        Reuse::Validate(reason) | Reuse::Unusable(reason) => Some(reason),
                    };
                }
                Step::Precondition => (status.fwd, asked) = (Some(Fwd::Request), Some(Reason::Conditional)),
                // A stale one is validated, whatever of it is here.
                Step::Missing if status.hit => (status.hit, status.fwd, asked) = (false, Some(Fwd::Partial), None),
                Step::Missing | Step::Completed | Step::Changed => {}
                Step::Evicted => {
                    status = CacheStatus { fwd: status.fwd.or(Some(Fwd::UriMiss)), ..CacheStatus::default() };
                    asked = asked.filter(|_| status.fwd != Some(Fwd::UriMiss));
                }
                Step::OnlyIfCached => asked = Some(Reason::OnlyIfCached),
                Step::Alone(reason) => asked = Some(reason),
                Step::Fetch(fetch) => {
                    is_writer = matches!(fetch, Fetch::Writer | Fetch::SecondWriter);
                    status.collapsed = fetch == Fetch::Waiter;
                }
                Step::Store(Ok(_)) => (status.stored, refused) = (is_writer, None),
                // For all waiters at once; each fetches for itself then.
                Step::Store(Err(reason)) => {
                    (status.stored, status.collapsed, refused) = (false, false, Some(reason));
                }
                Step::Freshened => {
                    status.fwd_status = Some(StatusCode::NOT_MODIFIED.as_u16());
                    status.stored = is_writer;
                }
                Step::Failed => status.collapsed = false,
                Step::StaleIfError => {
                    status = CacheStatus { hit: true, ..CacheStatus::default() };
                    (asked, refused) = (Some(stale(soft_purged)), None);
                }
            }
        }
        status.detail = refused.or(asked);
        status.ttl = ttl.filter(|_| status.hit);
        (!self.steps().is_empty()).then_some(status)
    }

    /// The field itself. What the cache has no part in costs no formatting.
    pub fn cache_status_field(&self, ttl: Option<i64>) -> Option<HeaderValue> {
        match self.steps() {
            [Step::Route(Routed::Uncached)] => Some(HeaderValue::from_static(BYPASSED)),
            _ => HeaderValue::try_from(self.cache_status(ttl)?.to_string()).ok(),
        }
    }

    /// Did the request go forward because it did not want what is stored?
    pub fn by_request(&self) -> bool {
        self.cache_status(None).is_some_and(|status| status.fwd == Some(Fwd::Request))
    }

    /// What the metrics count; `None` where the route has no cache policy or none was chosen.
    pub fn result(&self) -> Option<CacheResult> {
        let mut result = None;
        // A stale response is to be validated.
        let mut validating = false;
        for step in self.steps() {
            result = match *step {
                Step::Route(Routed::Cached) => Some(CacheResult::Miss),
                Step::Route(_) => None,
                Step::Aside(..) => Some(CacheResult::Bypass),
                Step::Reuse(Reuse::Fresh | Reuse::StaleAllowed) => Some(CacheResult::Hit),
                Step::Reuse(Reuse::StaleWhileRevalidate) => Some(CacheResult::StaleUpdating),
                Step::Reuse(reuse) => {
                    validating = matches!(reuse, Reuse::Validate(_));
                    result
                }
                Step::Missing | Step::Evicted | Step::Changed => {
                    validating = false;
                    Some(CacheResult::Miss)
                }
                Step::Lookup(_) => {
                    validating = false;
                    result
                }
                Step::Refresh | Step::Precondition | Step::OnlyIfCached | Step::Alone(_) | Step::Failed => {
                    Some(CacheResult::Miss)
                }
                Step::Fetch(Fetch::Waiter) => Some(CacheResult::Collapsed),
                Step::Fetch(_) => Some(CacheResult::Miss),
                Step::Store(Ok(_)) if result == Some(CacheResult::Collapsed) => result,
                Step::Store(Ok(_)) if validating => Some(CacheResult::Expired),
                Step::Store(Ok(_)) => Some(CacheResult::Miss),
                Step::Store(Err(_)) => {
                    validating = false;
                    Some(CacheResult::Refused)
                }
                Step::Completed => Some(CacheResult::Partial),
                Step::Freshened => Some(CacheResult::Revalidated),
                Step::StaleIfError => Some(CacheResult::StaleError),
            };
        }
        result
    }
}

/// Why what is answered with is stale.
fn stale(soft_purged: bool) -> Reason {
    if soft_purged { Reason::Purged } else { Reason::Stale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_says_what_the_client_and_the_metrics_are_told() {
        use Step::*;
        let cached = Route(Routed::Cached);
        let found = Lookup(Looked::Found);
        let rows: [(&[Step], Option<&str>, Option<&str>); 17] = [
            (&[], None, None),
            (&[Route(Routed::NoRoute)], None, None),
            (&[Route(Routed::Uncached)], Some("fwd=bypass"), None),
            (&[cached, Aside(Fwd::Method, Reason::Method)], Some("fwd=method; detail=method"), Some("bypass")),
            (&[cached, found, Reuse(super::Reuse::Fresh)], Some("hit; ttl=7"), Some("hit")),
            (
                &[cached, Lookup(Looked::SoftPurged), Reuse(super::Reuse::StaleWhileRevalidate)],
                Some("hit; ttl=7; detail=purged"),
                Some("stale_updating"),
            ),
            (
                &[cached, Lookup(Looked::Miss), Fetch(super::Fetch::Writer), Store(Ok(LifetimeSource::MaxAge))],
                Some("fwd=uri-miss; stored"),
                Some("miss"),
            ),
            (
                &[cached, Lookup(Looked::VaryMiss), Fetch(super::Fetch::Waiter), Store(Ok(LifetimeSource::MaxAge))],
                Some("fwd=vary-miss; collapsed"),
                Some("collapsed"),
            ),
            (
                &[cached, Lookup(Looked::Miss), Fetch(super::Fetch::Writer), Store(Err(Reason::NoStore))],
                Some("fwd=uri-miss; detail=no-store"),
                Some("refused"),
            ),
            (
                &[cached, found, Reuse(super::Reuse::Validate(Reason::Stale)), Fetch(super::Fetch::Writer), Freshened],
                Some("fwd=stale; fwd-status=304; stored; detail=stale"),
                Some("revalidated"),
            ),
            (
                &[
                    cached,
                    found,
                    Reuse(super::Reuse::Validate(Reason::RequestNoCache)),
                    Fetch(super::Fetch::Writer),
                    Store(Ok(LifetimeSource::MaxAge)),
                ],
                Some("fwd=request; stored; detail=request-no-cache"),
                Some("expired"),
            ),
            (
                &[
                    cached,
                    found,
                    Reuse(super::Reuse::Validate(Reason::Stale)),
                    Fetch(super::Fetch::Writer),
                    Failed,
                    StaleIfError,
                ],
                Some("hit; ttl=7; detail=stale"),
                Some("stale_error"),
            ),
            (
                &[
                    cached,
                    found,
                    Reuse(super::Reuse::Fresh),
                    Missing,
                    Fetch(super::Fetch::Writer),
                    Store(Ok(LifetimeSource::MaxAge)),
                    Completed,
                ],
                Some("fwd=partial; stored"),
                Some("partial"),
            ),
            (
                &[
                    cached,
                    Lookup(Looked::Miss),
                    Fetch(super::Fetch::Waiter),
                    Store(Err(Reason::NoFreshness)),
                    Fetch(super::Fetch::Writer),
                    Store(Ok(LifetimeSource::MaxAge)),
                ],
                Some("fwd=uri-miss; stored"),
                Some("miss"),
            ),
            (
                &[cached, found, Reuse(super::Reuse::Fresh), Evicted, Fetch(super::Fetch::Waiter), Failed],
                Some("fwd=uri-miss"),
                Some("miss"),
            ),
            (&[cached, Lookup(Looked::Miss), OnlyIfCached], Some("fwd=uri-miss; detail=only-if-cached"), Some("miss")),
            (
                &[
                    cached,
                    Lookup(Looked::Miss),
                    Fetch(super::Fetch::Waiter),
                    Store(Err(Reason::Private)),
                    Fetch(super::Fetch::Writer),
                    Store(Err(Reason::Private)),
                ],
                Some("fwd=uri-miss; detail=private"),
                Some("refused"),
            ),
        ];
        for (steps, status, result) in rows {
            let mut decision = Decision::default();
            steps.iter().for_each(|step| decision.push(*step));
            let told = decision.cache_status(Some(7)).map(|status| status.to_string());
            assert_eq!(told, status.map(|status| format!("eduham-edge; {status}")), "{steps:?}");
            let field = decision.cache_status_field(Some(7));
            assert_eq!(field.as_ref().map(|field| field.to_str().unwrap()), told.as_deref(), "{steps:?}");
            assert_eq!(decision.result().map(CacheResult::as_str), result, "{steps:?}");
        }
    }

    #[test]
    fn a_decision_is_small_and_keeps_its_end() {
        assert!(size_of::<Decision>() <= 136, "{}", size_of::<Decision>());
        let mut decision = Decision::default();
        for _ in 0..STEPS_MAX + 3 {
            decision.push(Step::Failed);
        }
        decision.push(Step::StaleIfError);
        assert_eq!(decision.steps().len(), STEPS_MAX);
        assert_eq!(decision.steps().last(), Some(&Step::StaleIfError));
    }
}
