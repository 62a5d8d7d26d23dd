//! Preconditions of requests (RFC 9110, section 13), as pure functions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// What tells one representation from another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Validators {
    /// A strong entity tag, with its quotes.
    pub etag: String,
    /// Only where it changes whenever the bytes do.
    pub last_modified: Option<SystemTime>,
}

impl Validators {
    /// Writes `ETag` and `Last-Modified`.
    pub fn write(&self, headers: &mut HeaderMap) {
        // Our tags are hex digits in quotes.
        if let Ok(etag) = HeaderValue::try_from(&self.etag) {
            headers.insert(header::ETAG, etag);
        }
        if let Some(at) = self.last_modified
            && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(at))
        {
            headers.insert(header::LAST_MODIFIED, date);
        }
    }
}

/// Whether `If-Match` or, without it, `If-Unmodified-Since` asks for another representation: 412.
#[must_use]
pub fn precondition_failed(request: &HeaderMap, validators: &Validators) -> bool {
    if request.contains_key(header::IF_MATCH) {
        return !lists(request, header::IF_MATCH, |tag| tag == validators.etag);
    }
    match (date(request, header::IF_UNMODIFIED_SINCE), validators.last_modified) {
        (Some(since), Some(modified)) => to_the_second(modified) > since,
        _ => false,
    }
}

/// Whether `If-None-Match` or, without it, `If-Modified-Since` says that the client has it already: 304.
#[must_use]
pub fn not_modified(request: &HeaderMap, validators: &Validators) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        // Weak comparison: `W/` does not count (RFC 9110, 8.8.3.2).
        return lists(request, header::IF_NONE_MATCH, |tag| tag.strip_prefix("W/").unwrap_or(tag) == validators.etag);
    }
    match (date(request, header::IF_MODIFIED_SINCE), validators.last_modified) {
        (Some(since), Some(modified)) => to_the_second(modified) <= since,
        _ => false,
    }
}

/// Whether `If-Range`, if any, still holds, so that `Range` counts (RFC 9110, 13.1.5).
#[must_use]
pub fn range_holds(request: &HeaderMap, validators: &Validators) -> bool {
    let Some(value) = request.get(header::IF_RANGE) else { return true };
    let Ok(value) = value.to_str() else { return false };
    if value.starts_with('"') || value.starts_with("W/") {
        return value == validators.etag;
    }
    match (httpdate::parse_http_date(value), validators.last_modified) {
        (Ok(at), Some(modified)) => to_the_second(modified) == at,
        _ => false,
    }
}

/// Whether a list of entity tags is `*` or has one that `matches`. A comma may stand inside a tag.
fn lists(request: &HeaderMap, name: HeaderName, matches: impl Fn(&str) -> bool) -> bool {
    request.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|mut rest| {
        if rest.trim() == "*" {
            return true;
        }
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let opening = if rest.starts_with("W/\"") { 3 } else { 1 };
            let Some(length) = rest.get(opening..).and_then(|inside| inside.find('"')) else { return false };
            let (tag, after) = rest.split_at(opening + length + 1);
            if matches(tag) {
                return true;
            }
            rest = after;
        }
    })
}

/// The one valid date of a field.
fn date(request: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(request.get(name)?.to_str().ok()?).ok()
}

fn to_the_second(at: SystemTime) -> SystemTime {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Tue, 24 Nov 2026 04:00:00 GMT";
    const LATER: &str = "Tue, 24 Nov 2026 04:00:01 GMT";
    const EARLIER: &str = "Tue, 24 Nov 2026 03:59:59 GMT";

    fn validators() -> Validators {
        let at = httpdate::parse_http_date(DATE).expect("a date") + Duration::from_millis(300);
        Validators { etag: "\"a,b\"".into(), last_modified: Some(at) }
    }

    fn request(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_the_client_has_already_is_not_sent_again() {
        type Fields = &'static [(&'static str, &'static str)];
        let rows: [(Fields, bool); 11] = [
            (&[], false),
            (&[("if-none-match", "\"a,b\"")], true),
            (&[("if-none-match", "W/\"a,b\"")], true),
            (&[("if-none-match", "\"x\", \"y\" , \"a,b\"")], true),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"a,b\"")], true),
            (&[("if-none-match", "*")], true),
            (&[("if-none-match", "a,b")], false),
            (&[("if-none-match", "\"x\""), ("if-modified-since", LATER)], false),
            (&[("if-modified-since", DATE)], true),
            (&[("if-modified-since", EARLIER)], false),
            (&[("if-modified-since", "yesterday")], false),
        ];
        for (fields, expected) in rows {
            assert_eq!(not_modified(&request(fields), &validators()), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_request_for_another_representation_fails() {
        for (name, value, expected) in [
            ("if-match", "\"a,b\"", false),
            ("if-match", "*", false),
            ("if-match", "W/\"a,b\"", true),
            ("if-match", "\"x\"", true),
            ("if-unmodified-since", DATE, false),
            ("if-unmodified-since", EARLIER, true),
        ] {
            assert_eq!(precondition_failed(&request(&[(name, value)]), &validators()), expected, "{name}: {value}");
        }
    }

    #[test]
    fn a_range_counts_only_for_the_representation_it_was_meant_for() {
        assert!(range_holds(&request(&[]), &validators()));
        for (value, expected) in
            [("\"a,b\"", true), ("\"x\"", false), ("W/\"a,b\"", false), (DATE, true), (LATER, false), ("?", false)]
        {
            assert_eq!(range_holds(&request(&[("if-range", value)]), &validators()), expected, "{value}");
        }
    }
}
