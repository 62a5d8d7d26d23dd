//! What one exchange asks the law, in the order it asks: aside? usable? alone? shareable? The exchange asks, and so does
//! whoever explains what it would do.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, header};

use super::{
    coding::Negotiated,
    conditional::{Precondition, evaluate},
    directives::RequestDirectives,
    freshness::LifetimeSource,
    key, language,
    meta::Meta,
    policy::{ClientDirectives, Policy},
    reason::Reason,
    reuse::{Reuse, reuse},
    status::Fwd,
    storable::RequestView,
    validation::has_strong_validator,
};

/// Why the cache has no part in this request: it is neither looked up nor stored. `has_body`: a body on GET has no
/// meaning, but an origin may give it one, and such an answer is for nobody else.
pub fn aside(request: &RequestView<'_>, query: Option<&str>, has_body: bool, policy: &Policy) -> Option<(Fwd, Reason)> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Some((Fwd::Method, Reason::Method));
    }
    let reason = key::bypass(policy, request.fields, query).or_else(|| has_body.then_some(Reason::RequestBody));
    reason.map(|reason| (Fwd::Bypass, reason))
}

/// The client's directives as far as the policy honours them.
pub fn directives(fields: &HeaderMap, policy: &Policy) -> RequestDirectives {
    match policy.client_directives {
        ClientDirectives::Honour => RequestDirectives::parse(fields),
        ClientDirectives::Ignore => RequestDirectives::default(),
    }
}

/// Takes `Accept-Language` for one of the policy's languages, where it names any: keys, variants and the origin see that.
pub fn normalise_language(fields: &mut Arc<HeaderMap>, policy: &Policy) {
    if policy.languages.is_empty() {
        return;
    }
    if let Some(language) = language::preferred(fields, &policy.languages)
        && let Ok(language) = HeaderValue::from_str(language)
    {
        Arc::make_mut(fields).insert(header::ACCEPT_LANGUAGE, language);
    }
}

/// Settles in which coding this request is answered where the policy compresses, and takes `Accept-Encoding` for that.
pub fn normalise_encoding(fields: &mut Arc<HeaderMap>, directives: &RequestDirectives, policy: &Policy) -> Negotiated {
    let compress = policy.compress.as_ref();
    compress.map_or(Negotiated::Nothing, |compress| compress.negotiate(Arc::make_mut(fields), directives))
}

/// Leaves the cookies that the origin sees of a request whose answer may be shared.
pub fn limit_cookies(fields: &mut HeaderMap, policy: &Policy) {
    if policy.forward_cookies.is_some() {
        match key::forwarded_cookies(fields, policy) {
            Some(cookies) => _ = fields.insert(header::COOKIE, cookies),
            None => _ = fields.remove(header::COOKIE),
        }
    }
}

/// What a stored response is to a request whose key and variant it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Past its lifetime, its stale windows and `keep`: as if it had been dropped already.
    Outlived,
    /// It answers, or is validated, or is of no use.
    Reuse(Reuse),
    /// It could answer, but cannot say that a precondition is false (RFC 9111 4.3.2).
    PreconditionFailed,
}

/// Decides what a stored response is to a request now. Without a validator nothing outlives its time but what clients
/// with `max-stale` may ask for, until it is evicted. `trusted`: a node that may not have heard of a purge asks, since
/// one may have meant this.
pub fn usable(
    meta: &Meta,
    request: &RequestView<'_>,
    directives: &RequestDirectives,
    policy: &Policy,
    now: SystemTime,
    (soft_purged_at, trusted): (Option<SystemTime>, bool),
) -> Use {
    let since = now.duration_since(meta.response_time()).unwrap_or_default();
    if meta.has_validator() && since > meta.retention(policy) {
        return Use::Outlived;
    }
    let reuse = match trusted {
        true => reuse(meta, request, directives, policy, now, soft_purged_at),
        false => Reuse::Validate(Reason::Purged),
    };
    if reuse.fwd().is_none() && evaluate(request, meta) == Precondition::Failed {
        return Use::PreconditionFailed;
    }
    Use::Reuse(reuse)
}

impl Reuse {
    /// Is the origin asked, now or behind?
    pub fn asks(self) -> bool {
        !matches!(self, Self::Fresh | Self::StaleAllowed)
    }

    /// Where some of its bytes are not here: may they be added to it? Without a strong validator nothing can be that is
    /// stale.
    pub fn may_be_completed(self, meta: &Meta) -> bool {
        self.fwd().is_none() || has_strong_validator(meta)
    }

    /// Why the request goes forward, if it does (RFC 9211 2.2).
    pub fn fwd(self) -> Option<Fwd> {
        match self {
            Self::Fresh | Self::StaleAllowed | Self::StaleWhileRevalidate => None,
            Self::Validate(Reason::RequestNoCache | Reason::RequestMaxAge | Reason::RequestMinFresh) => {
                Some(Fwd::Request)
            }
            Self::Validate(_) => Some(Fwd::Stale),
            Self::Unusable(_) => Some(Fwd::Miss),
        }
    }
}

/// What the lookup has found out for whoever asks the origin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// Nothing is stored for the URI.
    pub uri_miss: bool,
    /// What is stored cannot say that a precondition is false.
    pub precondition_failed: bool,
    /// Something is stored that is to be validated or completed.
    pub held: bool,
}

/// Why the answer of the origin will be for this client alone. `is_used_enough` counts, and is asked only where it matters.
pub fn alone(
    request: &RequestView<'_>,
    directives: &RequestDirectives,
    standing: Standing,
    is_used_enough: impl FnOnce() -> bool,
) -> Option<Reason> {
    if directives.no_store {
        Some(Reason::RequestNoStore)
    } else if standing.precondition_failed {
        Some(Reason::Conditional)
    } else if request.method == Method::HEAD {
        Some(Reason::Method)
    } else if standing.uri_miss && !is_used_enough() {
        Some(Reason::MinUses)
    } else if request.fields.contains_key(header::IF_RANGE) && !standing.held {
        // Which of two answers it is, the client's own validator says.
        Some(Reason::Partial)
    } else {
        None
    }
}

/// Why nothing may be stored of this response although its head is storable: what went with the request, or how the
/// body comes. `sent` are the fields that the origin saw.
///
/// # Errors
/// The reason.
pub fn shareable(meta: &Meta, sent: &HeaderMap, policy: &Policy, body: Arrival, object_max: u64) -> Result<(), Reason> {
    if key::has_unkeyed_cookie(sent, policy) && !meta.lifetime().source.is_explicit() {
        return Err(Reason::CookieForwarded);
    }
    if body.until_close {
        return Err(Reason::CloseDelimited);
    }
    if body.length.is_some_and(|length| length > object_max) {
        return Err(Reason::TooLarge);
    }
    Ok(())
}

/// How a body comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Where the head says it.
    pub length: Option<u64>,
    /// It ends with the connection: cut short it would look whole.
    pub until_close: bool,
}

impl LifetimeSource {
    /// Did the origin itself say how long?
    pub fn is_explicit(self) -> bool {
        matches!(self, Self::SMaxage | Self::MaxAge | Self::Expires)
    }
}
