//! Validating a stored response (RFC 9111 4.3.1), freshening it by a 304 (4.3.4) or by a HEAD (4.3.5), and putting parts under
//! one head (3.4).

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    date,
    freshness::{Times, corrected_initial_age},
    meta::Meta,
    policy::{Policy, SetCookie},
    reason::Reason,
    storable::{Received, RequestView, ResponseView, admit, effective_directives, stored_fields},
};

/// The preconditions to send: both validators, where there are both.
pub fn conditional_fields(meta: &Meta) -> Vec<(HeaderName, HeaderValue)> {
    let if_none_match = meta.etag().map(|etag| (header::IF_NONE_MATCH, etag.clone()));
    // A `Last-Modified` that is no date is no validator.
    let modified = meta.last_modified.and(meta.last_modified());
    let if_modified_since = modified.map(|date| (header::IF_MODIFIED_SINCE, date.clone()));
    if_none_match.into_iter().chain(if_modified_since).collect()
}

/// The stored head after a 304 to [`conditional_fields`]: all its fields replace the stored ones (RFC 9111 3.2), and
/// freshness is told anew. `Vary` and with it the variant's key may change.
///
/// A 304 without any validator freshens too: the request that it answers named only this response's.
///
/// # Errors
/// `ValidatorMismatch` when the 304 is about another response; else the reason why the response, so updated, must not
/// be stored (say, the 304 says `no-store`). Either way the answer is an unconditional request.
pub fn freshen(
    meta: &Meta,
    request: &RequestView<'_>,
    not_modified: &ResponseView<'_>,
    times: Times,
    policy: &Policy,
) -> Result<Meta, Reason> {
    if !identifies(meta, not_modified.fields) {
        return Err(Reason::ValidatorMismatch);
    }
    update(meta, request, not_modified.fields, times, policy)
}

/// The stored head after a 206 of the same representation (RFC 9111 3.4): its fields replace the stored ones, but for those
/// that speak of the part alone.
///
/// # Errors
/// `ValidatorMismatch` when the two do not have the same strong validator; else as [`freshen`].
pub fn combine(
    meta: &Meta,
    request: &RequestView<'_>,
    part: &ResponseView<'_>,
    times: Times,
    policy: &Policy,
) -> Result<Meta, Reason> {
    let strong_etag = meta.etag().is_some_and(|etag| !is_weak(etag));
    let same = match part.fields.get(header::ETAG) {
        Some(etag) => strong_etag && meta.etag() == Some(etag),
        // Without a tag its date must say it; that it was asked for under a condition is not trusted.
        None => {
            !strong_etag
                && date::field(part.fields, &header::LAST_MODIFIED) == strong_date(meta)
                && strong_date(meta).is_some()
        }
    };
    if !same {
        return Err(Reason::ValidatorMismatch);
    }
    let mut fields = part.fields.clone();
    fields.remove(header::CONTENT_RANGE);
    update(meta, request, &fields, times, policy)
}

/// Do both heads belong to the same bytes? Only strong validators can say so (RFC 9110 8.8.1).
pub fn same_entity(a: &Meta, b: &Meta) -> bool {
    match (a.etag(), b.etag()) {
        (Some(a), Some(b)) => !is_weak(a) && a == b,
        (None, None) => strong_date(a).is_some() && strong_date(a) == strong_date(b),
        _ => false,
    }
}

/// Is there a validator under which parts may be combined?
pub fn has_strong_validator(meta: &Meta) -> bool {
    strong_validator(meta).is_some()
}

/// What `If-Range` takes: an entity tag that is not weak, or a date that is strong.
pub fn strong_validator(meta: &Meta) -> Option<&HeaderValue> {
    match meta.etag() {
        Some(etag) => Some(etag).filter(|etag| !is_weak(etag)),
        None => strong_date(meta).and(meta.last_modified()),
    }
}

/// `Last-Modified` where the response was made at least a second after it (RFC 9110 8.8.2.2).
fn strong_date(meta: &Meta) -> Option<std::time::SystemTime> {
    meta.last_modified.filter(|modified| date::seconds(meta.date) > date::seconds(*modified))
}

/// What the response to a forwarded HEAD means for a stored response to GET.
#[derive(Debug)]
pub enum HeadOutcome {
    /// Not a 200: nothing.
    Unchanged,
    /// It is the same response: keep it under this head.
    Freshened(Box<Meta>),
    /// It is another one by now: the stored response counts as stale from here on.
    Outdated(Reason),
}

/// RFC 9111 4.3.5. `stored_length`: of the stored body.
pub fn freshen_by_head(
    meta: &Meta,
    stored_length: u64,
    request: &RequestView<'_>,
    head: &ResponseView<'_>,
    times: Times,
    policy: &Policy,
) -> HeadOutcome {
    if request.method != Method::HEAD || head.status != StatusCode::OK {
        return HeadOutcome::Unchanged;
    }
    let same = |name: &HeaderName| head.fields.get(name).is_none_or(|value| meta.fields.get(name) == Some(value));
    let same_length = head.complete_length.is_none_or(|length| length == stored_length);
    if meta.status != StatusCode::OK || !same(&header::ETAG) || !same(&header::LAST_MODIFIED) || !same_length {
        return HeadOutcome::Outdated(Reason::ValidatorMismatch);
    }
    match update(meta, request, head.fields, times, policy) {
        Ok(meta) => HeadOutcome::Freshened(Box::new(meta)),
        Err(reason) => HeadOutcome::Outdated(reason),
    }
}

/// RFC 9111 4.3.4: a strong validator must be the stored one; of weak ones, one must correspond.
fn identifies(meta: &Meta, fields: &HeaderMap) -> bool {
    let etag = fields.get(header::ETAG);
    if let Some(etag) = etag.filter(|etag| !is_weak(etag)) {
        return meta.etag() == Some(etag);
    }
    let modified = date::field(fields, &header::LAST_MODIFIED);
    if etag.is_none() && modified.is_none() {
        return true;
    }
    let same_etag = etag.is_some_and(|etag| meta.etag().is_some_and(|stored| weak_match(etag, stored)));
    same_etag || (modified.is_some() && modified == meta.last_modified)
}

fn update(
    meta: &Meta,
    request: &RequestView<'_>,
    newer: &HeaderMap,
    times: Times,
    policy: &Policy,
) -> Result<Meta, Reason> {
    let (directives, _) = effective_directives(newer, policy);
    let age = corrected_initial_age(newer, times);
    // What is never stored does not update either (RFC 9111 3.2); a `Date` is there from here on.
    let newer = stored_fields(newer.clone(), &directives, times);
    let mut fields = meta.fields.clone();
    for name in newer.keys() {
        // A cookie in a 304 is for the one who asked.
        if *name == header::SET_COOKIE && policy.set_cookie != SetCookie::Store {
            continue;
        }
        fields.remove(name);
        for value in newer.get_all(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    admit(request, meta.status, Received { fields, age, times }, policy)
}

/// `W/"..."` (RFC 9110 8.8.3).
pub(super) fn is_weak(etag: &HeaderValue) -> bool {
    etag.as_bytes().starts_with(b"W/")
}

/// Weak comparison (RFC 9110 8.8.3.2).
pub(super) fn weak_match(a: &HeaderValue, b: &HeaderValue) -> bool {
    opaque(a.as_bytes()) == opaque(b.as_bytes())
}

pub(super) fn opaque(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}
