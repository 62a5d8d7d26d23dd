//! Which fields travel, in both directions: hop-by-hop, forwarding, `Via`, what is ours alone.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, COOKIE, DATE, EXPECT, FORWARDED, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE, VIA,
    },
};

use super::{ids::RequestId, routing::Scheme};
use crate::wire::Version;

/// The name that we sign with in `Via`, `CDN-Loop` and `Cache-Status`.
pub const PSEUDONYM: &str = "eduham-edge";

pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// httpoxy: a CGI origin would read it as `HTTP_PROXY`.
const PROXY: HeaderName = HeaderName::from_static("proxy");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields about one connection only (RFC 9110 7.6.1), and those that a gateway ends.
const HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// What an origin says to us alone (contract: HTTP fields).
const FROM_ORIGIN_TO_US: [HeaderName; 4] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("edge-requires"),
];

/// Names in one `Connection` field that are followed; more is an attack on the cost of removing them.
const CONNECTION_NAMES_MAX: usize = 16;

/// Fields that `Connection` may not take away: the message would change its meaning.
fn is_protected(name: &HeaderName) -> bool {
    use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, SET_COOKIE};
    [AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE].contains(name)
}

/// Removes hop-by-hop fields and those that `Connection` names (RFC 9110 7.6.1).
pub fn strip_hop_by_hop(fields: &mut HeaderMap) {
    if fields.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = fields
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .take(CONNECTION_NAMES_MAX)
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !is_protected(name))
            .collect();
        for name in named {
            fields.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        fields.remove(name);
    }
}

/// What the forwarding fields of a request are made from.
pub struct Hop<'a> {
    pub version: Version,
    pub scheme: Scheme,
    /// As the client named it: `host[:port]`.
    pub host: &'a str,
    /// Of the connection; none for a unix socket.
    pub peer: Option<IpAddr>,
    /// Are the forwarding fields that came with the request believed?
    pub trusted: bool,
    pub id: &'a RequestId,
}

/// The fields that the origin sees, from those that the client sent.
pub fn to_origin(mut fields: HeaderMap, hop: &Hop<'_>) -> HeaderMap {
    strip_hop_by_hop(&mut fields);
    fields.remove(EXPECT);
    let ours: Vec<HeaderName> = fields
        .keys()
        .filter(|name| name.as_str().starts_with("edge-") || name.as_str().starts_with("x-eduham-"))
        .cloned()
        .collect();
    for name in ours {
        fields.remove(name);
    }
    join_cookies(&mut fields);
    forwarding(&mut fields, hop);
    append(&mut fields, VIA, &format!("{} {PSEUDONYM}", via_version(hop.version)));
    append(&mut fields, CDN_LOOP, PSEUDONYM);
    fields.insert(X_REQUEST_ID, hop.id.value());
    if !(hop.trusted && fields.contains_key(TRACEPARENT)) {
        fields.insert(TRACEPARENT, hop.id.traceparent());
    }
    fields
}

/// HTTP/2 may split `Cookie` over field lines; HTTP/1.1 wants one (RFC 9113 8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    if fields.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = Vec::new();
    for value in fields.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        fields.insert(COOKIE, joined);
    }
}

/// `Forwarded` (RFC 7239) and its older relations: appended to what a trusted proxy said, else made anew.
fn forwarding(fields: &mut HeaderMap, hop: &Hop<'_>) {
    if !hop.trusted {
        fields.remove(FORWARDED);
        fields.remove(X_FORWARDED_FOR);
        fields.remove(X_FORWARDED_PROTO);
        fields.remove(X_FORWARDED_HOST);
        fields.remove(HeaderName::from_static("x-real-ip"));
    }
    let node = match hop.peer {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        None => "unknown".to_owned(),
    };
    append(fields, FORWARDED, &format!("for={node};proto={};host=\"{}\"", hop.scheme.as_str(), hop.host));
    if let Some(ip) = hop.peer {
        append(fields, X_FORWARDED_FOR, &ip.to_string());
    }
    if !fields.contains_key(X_FORWARDED_PROTO) {
        fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static(hop.scheme.as_str()));
    }
    if !fields.contains_key(X_FORWARDED_HOST)
        && let Ok(host) = HeaderValue::from_str(hop.host)
    {
        fields.insert(X_FORWARDED_HOST, host);
    }
}

/// Adds one more member to a list field, on its own line where there is none yet.
pub fn append(fields: &mut HeaderMap, name: HeaderName, member: &str) {
    let value = match fields.get(&name) {
        None => HeaderValue::from_str(member),
        Some(_) => {
            let mut joined = Vec::new();
            for line in fields.get_all(&name) {
                joined.extend_from_slice(line.as_bytes());
                joined.extend_from_slice(b", ");
            }
            joined.extend_from_slice(member.as_bytes());
            HeaderValue::from_bytes(&joined)
        }
    };
    if let Ok(value) = value {
        fields.insert(name, value);
    }
}

fn via_version(version: Version) -> &'static str {
    match version {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
        Version::Http2 => "2",
    }
}

/// Did this request pass through us already? (RFC 8586; `Via` as the older sign.)
pub fn is_looping(fields: &HeaderMap) -> bool {
    let names_us = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| {
            value
                .split(',')
                .any(|member| member.split_ascii_whitespace().any(|word| word.split(';').next() == Some(PSEUDONYM)))
        })
    };
    fields.get_all(CDN_LOOP).iter().any(names_us) || fields.get_all(VIA).iter().any(names_us)
}

/// Removes from an origin's response what is not for clients, and gives it a `Date` (RFC 9110 6.6.1).
pub fn from_origin(fields: &mut HeaderMap, received: std::time::SystemTime) {
    strip_hop_by_hop(fields);
    if !fields.contains_key(DATE)
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(received))
    {
        fields.insert(DATE, date);
    }
}

/// Removes what the origin said to us alone.
pub fn strip_for_client(fields: &mut HeaderMap) {
    for name in &FROM_ORIGIN_TO_US {
        fields.remove(name);
    }
}

/// What every answer says of the way it came.
pub fn sign_answer(fields: &mut HeaderMap, id: &RequestId) {
    append(fields, VIA, "1.1 eduham-edge");
    fields.insert(X_REQUEST_ID, id.value());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        fields
    }

    fn hop(trusted: bool, id: &RequestId) -> Hop<'_> {
        Hop {
            version: Version::Http11,
            scheme: Scheme::Http,
            host: "a.test",
            peer: Some([192, 0, 2, 1].into()),
            trusted,
            id,
        }
    }

    #[test]
    fn fields_of_the_connection_stay_on_the_connection() {
        let mut sent = fields(&[
            ("connection", "close, X-Hop , host"),
            ("x-hop", "1"),
            ("host", "a.test"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("x-end", "2"),
        ]);
        strip_hop_by_hop(&mut sent);
        assert_eq!(sent, fields(&[("host", "a.test"), ("x-end", "2")]));
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        let id = RequestId::from_parts(1, 2);
        let seen = to_origin(
            fields(&[
                ("x-forwarded-for", "10.0.0.1"),
                ("forwarded", "for=10.0.0.1"),
                ("x-eduham-user", "root"),
                ("edge-fetch", "shared"),
            ]),
            &hop(false, &id),
        );
        assert_eq!(seen["x-forwarded-for"], "192.0.2.1");
        assert_eq!(seen["forwarded"], "for=192.0.2.1;proto=http;host=\"a.test\"");
        assert!(!seen.contains_key("x-eduham-user") && !seen.contains_key("edge-fetch"));
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_appended_to() {
        let id = RequestId::from_parts(1, 2);
        let seen = to_origin(
            fields(&[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "https"), ("via", "1.1 a")]),
            &hop(true, &id),
        );
        assert_eq!(seen["x-forwarded-for"], "10.0.0.1, 192.0.2.1");
        assert_eq!(seen["x-forwarded-proto"], "https");
        assert_eq!(seen["via"], "1.1 a, 1.1 eduham-edge");
    }

    #[test]
    fn a_request_that_passed_us_is_known_again() {
        for (name, value, expected) in [
            ("cdn-loop", "other, eduham-edge; v=1", true),
            ("cdn-loop", "eduham-edge-2", false),
            ("via", "1.1 eduham-edge", true),
            ("via", "1.1 varnish", false),
        ] {
            assert_eq!(is_looping(&fields(&[(name, value)])), expected, "{name}: {value}");
        }
    }

    #[test]
    fn split_cookies_are_joined_for_http_1() {
        let id = RequestId::from_parts(1, 2);
        let seen = to_origin(fields(&[("cookie", "a=1"), ("cookie", "b=2")]), &hop(false, &id));
        assert_eq!(seen["cookie"], "a=1; b=2");
    }
}
