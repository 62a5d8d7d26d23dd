//! What clients are told about freshness in place of the origin's word (`browser_ttl`).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::directives::{ResponseDirectives, Scope};

/// What the field begins with, before the number.
pub const BROWSER_PREFIX: &str = "max-age=";

/// The number: `ttl` from now on, for a cache that counts `age` too.
pub fn browser_max_age(ttl: Duration, age: Duration) -> u64 {
    ttl.as_secs() + age.as_secs()
}

/// Makes the response last `ttl` from now on in the client's cache: `max-age` counts the age that it has already. Of the
/// origin's `Cache-Control` stay `private`, `no-transform` and `immutable`; `Expires` goes.
pub fn set_browser_ttl(fields: &mut HeaderMap, ttl: Duration, age: Duration) {
    let said = ResponseDirectives::parse(fields);
    let mut text = format!("{BROWSER_PREFIX}{}", browser_max_age(ttl, age));
    for (holds, word) in [
        (said.private == Scope::Whole, ", private"),
        (said.no_transform, ", no-transform"),
        (said.immutable, ", immutable"),
    ] {
        if holds {
            text.push_str(word);
        }
    }
    fields.remove(header::EXPIRES);
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.insert(header::CACHE_CONTROL, value);
    }
}
