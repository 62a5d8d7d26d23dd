//! May this stored response answer this request now (RFC 9111 section 4), also when stale (4.2.4, RFC 5861)?

use std::time::{Duration, SystemTime};

use http::Method;

use super::{
    directives::{MaxStale, RequestDirectives},
    meta::{Meta, Staleness},
    policy::{ClientDirectives, Policy},
    reason::Reason,
    storable::RequestView,
};

/// What a stored response is to a request whose key and variant it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Answer with it.
    Fresh,
    /// Answer with it and validate it behind (RFC 5861 section 3).
    StaleWhileRevalidate,
    /// Answer with it: the client takes stale answers (`max-stale`).
    StaleAllowed,
    /// Validate it first.
    Validate(Reason),
    /// It does not answer this request at all.
    Unusable(Reason),
}

/// Decides. `soft_purged_at`: expired at that instant if not before, stale windows start there.
pub fn reuse(
    meta: &Meta,
    request: &RequestView<'_>,
    directives: &RequestDirectives,
    policy: &Policy,
    now: SystemTime,
    soft_purged_at: Option<SystemTime>,
) -> Reuse {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Reuse::Unusable(Reason::Method);
    }
    if meta.no_cache {
        return Reuse::Validate(Reason::NoCache);
    }
    let asked = Asked::of(directives, policy);
    if asked.no_cache {
        return Reuse::Validate(Reason::RequestNoCache);
    }
    // Age has whole seconds, so that within its first second nothing is older than `max-age=0`: that asks for a
    // validation nonetheless.
    if asked.max_age.is_some_and(|max_age| max_age.is_zero() || meta.age(now) > max_age) {
        return Reuse::Validate(Reason::RequestMaxAge);
    }
    let (since, purged) = match expiry(meta, now, soft_purged_at) {
        Expiry::Fresh(left) if asked.min_fresh.is_some_and(|min_fresh| left < min_fresh) => {
            return Reuse::Validate(Reason::RequestMinFresh);
        }
        Expiry::Fresh(_) => return Reuse::Fresh,
        Expiry::Stale { since, purged } => (since, purged),
    };
    if meta.never_stale {
        return Reuse::Validate(if purged { Reason::Purged } else { Reason::MustRevalidate });
    }
    if asked.min_fresh.is_some() {
        return Reuse::Validate(Reason::RequestMinFresh);
    }
    match asked.max_stale {
        // A client that names a `max-age` and no `max-stale` takes no stale answer (RFC 9111 5.2.1.1).
        None if asked.max_age.is_some() => return Reuse::Validate(Reason::RequestMaxAge),
        _ if since < meta.stale_while_revalidate_window(policy) => return Reuse::StaleWhileRevalidate,
        // What an operator declared out of date is not answered because a client is modest.
        _ if purged => {}
        Some(MaxStale::Any) => return Reuse::StaleAllowed,
        Some(MaxStale::Within(limit)) if since <= limit => return Reuse::StaleAllowed,
        _ => {}
    }
    Reuse::Validate(if purged { Reason::Purged } else { Reason::Stale })
}

/// May it stand in for an origin that failed (RFC 5861 section 4)? The client's `stale-if-error` counts where the
/// origin has none and nobody purged. Never where stale answers are forbidden, or where the client asked for a validation.
pub fn may_answer_error(
    meta: &Meta,
    directives: &RequestDirectives,
    policy: &Policy,
    now: SystemTime,
    soft_purged_at: Option<SystemTime>,
) -> bool {
    let asked = Asked::of(directives, policy);
    if meta.no_cache || asked.no_cache {
        return false;
    }
    match expiry(meta, now, soft_purged_at) {
        Expiry::Fresh(_) => true,
        Expiry::Stale { .. } if meta.never_stale => false,
        Expiry::Stale { since, purged } => {
            let window = meta.stale_if_error_window(policy);
            let asked_for = asked.stale_if_error.filter(|_| meta.stale_if_error.is_none() && !purged);
            since < window.max(asked_for.unwrap_or_default())
        }
    }
}

/// Is the client content with 504 rather than a fetch (RFC 9111 5.2.1.7)?
pub fn only_if_cached(directives: &RequestDirectives, policy: &Policy) -> bool {
    Asked::of(directives, policy).only_if_cached
}

/// The client's directives as far as the policy honours them.
struct Asked<'a>(&'a RequestDirectives);

impl<'a> Asked<'a> {
    fn of(directives: &'a RequestDirectives, policy: &Policy) -> Self {
        static NOTHING: RequestDirectives = RequestDirectives {
            no_cache: false,
            no_store: false,
            only_if_cached: false,
            no_transform: false,
            max_age: None,
            min_fresh: None,
            max_stale: None,
            stale_if_error: None,
        };
        match policy.client_directives {
            ClientDirectives::Honour => Self(directives),
            ClientDirectives::Ignore => Self(&NOTHING),
        }
    }
}

impl std::ops::Deref for Asked<'_> {
    type Target = RequestDirectives;

    fn deref(&self) -> &RequestDirectives {
        self.0
    }
}

enum Expiry {
    Fresh(Duration),
    /// Since when, and whether a purge was first.
    Stale {
        since: Duration,
        purged: bool,
    },
}

fn expiry(meta: &Meta, now: SystemTime, soft_purged_at: Option<SystemTime>) -> Expiry {
    // A purge of a later instant than `now` is one of a clock that was set back: it counts.
    let purged_since = soft_purged_at.map(|at| now.duration_since(at).unwrap_or_default());
    match (meta.staleness(now), purged_since) {
        (Staleness::Fresh(left), None) => Expiry::Fresh(left),
        (Staleness::Stale(since), Some(purged)) if purged > since => Expiry::Stale { since: purged, purged: true },
        (Staleness::Stale(since), _) => Expiry::Stale { since, purged: false },
        (Staleness::Fresh(_), Some(since)) => Expiry::Stale { since, purged: true },
    }
}
