//! What was decided about one request, step by step: the one value that `Cache-Status`, the record, the metrics and
//! `explain` are made from.

use http::StatusCode;

use crate::{
    cache::{CacheStatus, Fwd, LifetimeSource, Reason, Reuse},
    telemetry::CacheResult,
};

/// Steps of one request: nine before a fetch, and each of at most four fetches adds three. Beyond it the last step is
/// overwritten, so that the end is always there.
pub const STEPS_MAX: usize = 20;

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
        let mut soft_purged = false;
        let mut is_writer = false;
        for step in self.steps() {
            match *step {
                Step::Route(Routed::Cached) => {}
                Step::Route(Routed::Uncached) => status.fwd = Some(Fwd::Bypass),
                Step::Route(_) => return None,
                Step::Aside(fwd, reason) => (status.fwd, status.detail) = (Some(fwd), Some(reason)),
                Step::Lookup(Looked::Miss | Looked::Outlived) => status.fwd = Some(Fwd::UriMiss),
                Step::Lookup(Looked::VaryMiss) => status.fwd = Some(Fwd::VaryMiss),
                Step::Lookup(looked) => soft_purged = looked == Looked::SoftPurged,
                Step::Reuse(reuse) => {
                    status.fwd = reuse.fwd();
                    status.hit = status.fwd.is_none();
                    status.detail = match reuse {
                        Reuse::Fresh => None,
                        Reuse::StaleAllowed | Reuse::StaleWhileRevalidate => Some(stale(soft_purged)),
                        Reuse::Validate(reason) | Reuse::Unusable(reason) => Some(reason),
                    };
                }
                Step::Precondition => {
                    (status.hit, status.fwd, status.detail) = (false, Some(Fwd::Request), Some(Reason::Conditional));
                }
                Step::Missing => {
                    // A stale one is validated, whatever of it is here.
                    status.fwd = status.fwd.or(Some(Fwd::Partial));
                    status.detail = status.detail.filter(|_| !status.hit);
                    status.hit = false;
                }
                Step::OnlyIfCached => status.detail = Some(Reason::OnlyIfCached),
                Step::Alone(reason) => status.detail = Some(reason),
                Step::Fetch(fetch) => {
                    is_writer = matches!(fetch, Fetch::Writer | Fetch::SecondWriter);
                    status.collapsed = fetch == Fetch::Waiter;
                }
                Step::Store(Ok(_)) => status.stored = is_writer,
                Step::Store(Err(reason)) => {
                    // For all waiters at once; each fetches for itself then.
                    (status.stored, status.collapsed, status.detail) = (false, false, Some(reason));
                }
                Step::Freshened => {
                    (status.fwd_status, status.stored) = (Some(StatusCode::NOT_MODIFIED.as_u16()), is_writer)
                }
                Step::Failed => status.collapsed = false,
                Step::StaleIfError => {
                    status = CacheStatus { hit: true, detail: Some(stale(soft_purged)), ..CacheStatus::default() };
                }
            }
        }
        status.ttl = ttl.filter(|_| status.hit);
        (!self.steps().is_empty()).then_some(status)
    }

    /// What the metrics count; `None` where the route has no cache policy or none was chosen.
    pub fn result(&self) -> Option<CacheResult> {
        let mut result = None;
        let (mut validating, mut partial) = (false, false);
        for step in self.steps() {
            result = match *step {
                Step::Route(Routed::Cached) => Some(CacheResult::Miss),
                Step::Route(_) => None,
                Step::Aside(..) => Some(CacheResult::Bypass),
                Step::Reuse(Reuse::Fresh | Reuse::StaleAllowed) => Some(CacheResult::Hit),
                Step::Reuse(Reuse::StaleWhileRevalidate) => Some(CacheResult::StaleUpdating),
                Step::Reuse(Reuse::Validate(_)) => {
                    validating = true;
                    result
                }
                Step::Missing => {
                    partial = true;
                    Some(CacheResult::Miss)
                }
                Step::Precondition | Step::OnlyIfCached | Step::Alone(_) | Step::Failed => Some(CacheResult::Miss),
                Step::Fetch(Fetch::Waiter) => Some(CacheResult::Collapsed),
                Step::Fetch(_) => Some(CacheResult::Miss),
                Step::Store(Ok(_)) if result == Some(CacheResult::Collapsed) => result,
                Step::Store(Ok(_)) if partial => Some(CacheResult::Partial),
                Step::Store(Ok(_)) if validating => Some(CacheResult::Expired),
                Step::Store(Ok(_)) => Some(CacheResult::Miss),
                Step::Store(Err(_)) => Some(CacheResult::Refused),
                Step::Freshened => Some(CacheResult::Revalidated),
                Step::StaleIfError => Some(CacheResult::StaleError),
                Step::Lookup(_) | Step::Reuse(Reuse::Unusable(_)) => result,
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
        let rows: [(&[Step], Option<&str>, Option<&str>); 15] = [
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
                ],
                Some("fwd=partial; stored"),
                Some("partial"),
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
            assert_eq!(decision.result().map(CacheResult::as_str), result, "{steps:?}");
        }
    }

    #[test]
    fn a_decision_is_small_and_keeps_its_end() {
        assert!(size_of::<Decision>() <= 96, "{}", size_of::<Decision>());
        let mut decision = Decision::default();
        for _ in 0..STEPS_MAX + 3 {
            decision.push(Step::Failed);
        }
        decision.push(Step::StaleIfError);
        assert_eq!(decision.steps().len(), STEPS_MAX);
        assert_eq!(decision.steps().last(), Some(&Step::StaleIfError));
    }
}
