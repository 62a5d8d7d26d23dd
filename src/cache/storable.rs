//! May this response be stored (RFC 9111 section 3), and as what (3.1)?

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{
    date,
    directives::{CDN_CACHE_CONTROL, RequestDirectives, ResponseDirectives, Scope},
    freshness::{Facts, LifetimeSource, Times, corrected_initial_age},
    groups,
    meta::{Meta, Staleness},
    pattern::Glob,
    policy::{ClientDirectives, Policy, SetCookie},
    range::Span,
    reason::Reason,
    surrogate::{self, CACHE_TAG, SURROGATE_KEY},
    validation::has_strong_validator,
    vary::Vary,
};

const EDGE_REQUIRES: HeaderName = HeaderName::from_static("edge-requires");

/// What is never stored: fields of the connection (RFC 9110 7.6.1), of a proxy's own (RFC 9111 3.1), of the framing,
/// trailers being dropped; and `Age`, which is told anew each time.
static NEVER_STORED: [HeaderName; 13] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::AGE,
    HeaderName::from_static("http2-settings"),
];

/// What neither `Connection` nor a list of `private` or `no-cache` takes away: without these the law would judge the
/// stored response otherwise when it is freshened. They are never fields of a connection (RFC 9110 7.6.1).
static ALWAYS_STORED: [HeaderName; 6] =
    [header::CACHE_CONTROL, CDN_CACHE_CONTROL, EDGE_REQUIRES, header::VARY, SURROGATE_KEY, CACHE_TAG];

/// The request as the law sees it.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    pub method: &'a Method,
    pub fields: &'a HeaderMap,
}

/// A response as received from the origin.
#[derive(Debug, Clone, Copy)]
pub struct ResponseView<'a> {
    pub status: StatusCode,
    /// Without the framing fields.
    pub fields: &'a HeaderMap,
    /// The length of the body where the head says it; of a response to HEAD, the length that a GET would have had.
    pub complete_length: Option<u64>,
}

/// Stores the head of a final response to a GET: what is kept of it, or why nothing is.
///
/// # Errors
/// The reason for which the response must not be stored, or would be of no use.
pub fn store(
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    times: Times,
    policy: &Policy,
) -> Result<Meta, Reason> {
    if request.method != Method::GET {
        return Err(Reason::Method);
    }
    if policy.client_directives == ClientDirectives::Honour && RequestDirectives::parse(request.fields).no_store {
        return Err(Reason::RequestNoStore);
    }
    if let (Some(length), Some(max)) = (response.complete_length, policy.object_max)
        && length > max
    {
        return Err(Reason::TooLarge);
    }
    let received =
        Received { fields: response.fields.clone(), age: corrected_initial_age(response.fields, times), times };
    admit(request, response.status, received, policy)
}

/// Stores the head of a 206 to a GET as that of the representation that it is part of (RFC 9111 3.3): what is kept of it
/// under the status 200, and which bytes came.
///
/// A 206 whose `Content-Length` contradicts its `Content-Range` can be kept only where nothing can ever be combined with it,
/// that is without a strong validator, and where it claims to reach the end: then the end is where the body ends.
///
/// # Errors
/// As [`store`]; `Partial` for several ranges, an unknown length, and a span that the body contradicts.
pub fn store_part(
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    times: Times,
    policy: &Policy,
) -> Result<(Meta, Span), Reason> {
    let mut span = Span::of(response.fields).ok_or(Reason::Partial)?;
    let mut fields = response.fields.clone();
    fields.remove(header::CONTENT_RANGE);
    let whole = ResponseView { status: StatusCode::OK, fields: &fields, complete_length: Some(span.length) };
    let meta = store(request, &whole, times, policy)?;
    if let Some(length) = response.complete_length
        && length != span.end - span.start
    {
        // From the beginning on it would pass for the whole.
        if length == 0 || span.start == 0 || span.end != span.length || has_strong_validator(&meta) {
            return Err(Reason::Partial);
        }
        span = Span { start: span.start, end: span.start + length, length: span.start + length };
    }
    Ok((meta, span))
}

/// A head as received, or as merged by freshening.
pub(super) struct Received {
    pub(super) fields: HeaderMap,
    /// At `times.response_time`.
    pub(super) age: Duration,
    pub(super) times: Times,
}

/// The rules of section 3 in their order.
pub(super) fn admit(
    request: &RequestView<'_>,
    status: StatusCode,
    received: Received,
    policy: &Policy,
) -> Result<Meta, Reason> {
    let Received { fields, age: corrected_initial_age, times } = received;
    let (directives, is_targeted) = effective_directives(&fields, policy);
    may_store(request, status, &directives)?;
    if fields.contains_key(EDGE_REQUIRES) {
        return Err(Reason::EdgeRequires);
    }
    let vary = if policy.ignore_origin.vary { Vary::None } else { Vary::parse(&fields) };
    if vary == Vary::Star {
        return Err(Reason::VaryStar);
    }
    let surrogate_keys = surrogate::parse(&fields)?;
    groups::parse(&fields)?;
    let mut fields = stored_fields(fields, &directives, times);
    if fields.contains_key(header::SET_COOKIE) {
        match &policy.set_cookie {
            SetCookie::Store => {}
            SetCookie::Strip(names) if sets_only(&fields, names) => _ = fields.remove(header::SET_COOKIE),
            SetCookie::Strip(_) | SetCookie::Refuse => return Err(Reason::SetCookie),
        }
    }

    let date = date::field(&fields, &header::DATE).unwrap_or(times.response_time);
    let facts = Facts {
        status,
        fields: &fields,
        directives: &directives,
        targeted: is_targeted,
        ignores_expires: policy.ignore_origin.expires,
        date,
        response_time: times.response_time,
    };
    let by_policy = policy.status_ttl.of(status).is_some() || policy.names_status(status, &fields);
    if !facts.is_explicit() && !facts.allows_heuristic() && !by_policy {
        return Err(Reason::Status);
    }
    let lifetime = facts.lifetime(policy);
    let no_cache = directives.no_cache == Scope::Whole;
    let meta = Meta {
        status,
        corrected_initial_age,
        response_time: times.response_time,
        lifetime,
        stale_while_revalidate: directives.stale_while_revalidate,
        stale_if_error: directives.stale_if_error,
        no_cache,
        never_stale: no_cache
            || directives.must_revalidate
            || directives.proxy_revalidate
            || directives.s_maxage.is_some(),
        date,
        has_etag: fields.contains_key(header::ETAG),
        last_modified: date::field(&fields, &header::LAST_MODIFIED),
        vary,
        surrogate_keys,
        fields,
    };
    is_of_use(meta, policy)
}

/// Those of a valid `CDN-Cache-Control` (then true), else those of `Cache-Control` (RFC 9213 2.2).
/// What the policy does not listen to is not among them.
pub(super) fn effective_directives(fields: &HeaderMap, policy: &Policy) -> (ResponseDirectives, bool) {
    let ignored = &policy.ignore_origin;
    let (mut directives, targeted) = match ResponseDirectives::targeted(fields) {
        Some(directives) => (directives, true),
        None if ignored.cache_control => (ResponseDirectives::default(), false),
        None => (ResponseDirectives::parse(fields), false),
    };
    if ignored.no_cache {
        directives.no_cache = Scope::Nothing;
    }
    if ignored.private {
        directives.private = Scope::Nothing;
    }
    directives.no_store &= !ignored.no_store;
    directives.must_revalidate &= !ignored.must_revalidate;
    directives.proxy_revalidate &= !ignored.must_revalidate;
    (directives, targeted)
}

/// Are the names of all cookies that are set among these?
fn sets_only(fields: &HeaderMap, names: &[Glob]) -> bool {
    set_cookie_names(fields).all(|name| name.is_some_and(|name| names.iter().any(|glob| glob.matches(name))))
}

/// The names of the cookies that a response sets; `None` of one whose name is no text, which no rule can name.
pub fn set_cookie_names(fields: &HeaderMap) -> impl Iterator<Item = Option<&str>> {
    fields.get_all(header::SET_COOKIE).iter().map(|line| {
        let name = line.as_bytes().split(|&b| b == b'=' || b == b';').next().unwrap_or_default().trim_ascii();
        std::str::from_utf8(name).ok()
    })
}

/// RFC 9111 section 3 but for freshness.
fn may_store(request: &RequestView<'_>, status: StatusCode, directives: &ResponseDirectives) -> Result<(), Reason> {
    match status.as_u16() {
        100..=199 => return Err(Reason::Interim),
        // A 416 is about the range that was asked for.
        206 | 416 => return Err(Reason::Partial),
        304 | 412 => return Err(Reason::Conditional),
        428 | 429 | 431 | 511 => return Err(Reason::Status),
        _ => {}
    }
    if directives.must_understand && !is_understood(status) {
        return Err(Reason::MustUnderstand);
    }
    if directives.no_store && !directives.must_understand {
        return Err(Reason::NoStore);
    }
    if directives.private == Scope::Whole {
        return Err(Reason::Private);
    }
    let shareable = directives.must_revalidate || directives.public || directives.s_maxage.is_some();
    if request.fields.contains_key(header::AUTHORIZATION) && !shareable {
        return Err(Reason::Authorization);
    }
    Ok(())
}

/// Refuses what no later request could be answered with; it would only push out what one could.
fn is_of_use(meta: Meta, policy: &Policy) -> Result<Meta, Reason> {
    if meta.has_validator() {
        return Ok(meta);
    }
    if meta.lifetime.source == LifetimeSource::None {
        return Err(Reason::NoFreshness);
    }
    let windows = meta.stale_while_revalidate_window(policy).max(meta.stale_if_error_window(policy));
    match meta.staleness(meta.response_time) {
        _ if meta.no_cache => Err(Reason::NoCache),
        Staleness::Stale(since) if since >= windows => Err(Reason::ExpiredOnArrival),
        _ => Ok(meta),
    }
}

/// RFC 9111 3.1, and `Date` where the origin gave none (RFC 9110 6.6.1).
pub(super) fn stored_fields(mut fields: HeaderMap, directives: &ResponseDirectives, times: Times) -> HeaderMap {
    let named: Vec<_> = fields
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let scoped = [&directives.no_cache, &directives.private].into_iter().flat_map(|scope| match scope {
        Scope::Fields(names) => names.as_slice(),
        Scope::Nothing | Scope::Whole => &[],
    });
    let taken = named.iter().chain(scoped).filter(|name| !ALWAYS_STORED.contains(name));
    for name in NEVER_STORED.iter().chain(taken) {
        fields.remove(name);
    }
    fields.entry(header::DATE).or_insert_with(|| date::format(times.response_time));
    fields
}

/// Final statuses whose caching this cache knows (RFC 9110 section 15, RFC 5842, 7725).
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=411 | 413..=415 | 417 | 421 | 422 | 426 | 451 | 500..=505
    )
}
