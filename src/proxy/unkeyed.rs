//! What of one client's request must not shape an answer that is for all.
//!
//! Origins and their frameworks take the URL, the host, the scheme or the method from such fields. None of them is part of a
//! cache key, so that whoever sends one could have the answer to another question stored for everybody.

use http::{HeaderMap, HeaderName};

/// Fields of which an origin may take another URL, host, scheme, client or method. By their beginning.
const PREFIXES: [&str; 5] = ["x-forwarded-", "x-original-", "x-rewrite-", "x-http-method", "x-override-"];
/// And by their whole name.
const NAMES: [&str; 14] = [
    "x-method-override",
    "x-http-host-override",
    "x-http-path-override",
    "x-http-destinationurl",
    "x-host",
    "x-proxy-url",
    "x-url-scheme",
    "front-end-https",
    "client-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "x-wap-profile",
];
/// Those that the edge itself writes, anew or from what a trusted proxy said.
const OURS: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// Takes them out of what an origin is asked for everybody; those that the policy's key has stay.
pub fn strip(fields: &mut HeaderMap, keyed: &[HeaderName]) {
    let gone: Vec<_> =
        fields.keys().filter(|name| is_unkeyed(name.as_str()) && !keyed.contains(name)).cloned().collect();
    for name in gone {
        fields.remove(name);
    }
}

fn is_unkeyed(name: &str) -> bool {
    !OURS.contains(&name) && (NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_the_key_has_stays() {
        let mut fields = HeaderMap::new();
        for name in
            ["x-original-url", "x-forwarded-port", "x-forwarded-for", "x-host", "accept", "x-http-method-override"]
        {
            fields.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        strip(&mut fields, &[HeaderName::from_static("x-host")]);
        let mut left: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-forwarded-for", "x-host"]);
    }
}
