//! Which fields travel, in both directions: hop-by-hop, forwarding, `Via`, what is ours alone.

use std::{net::IpAddr, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, COOKIE, DATE, Entry, FORWARDED, VIA},
};

use super::{ids::RequestId, routing::Scheme};
use crate::wire::{Lines, Version};

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

/// Names in one `Connection` field that are followed; more is an attack on the cost of removing them.
const CONNECTION_NAMES_MAX: usize = 16;

/// Fields that `Connection` may not take away: the message would change its meaning.
fn is_protected(name: &HeaderName) -> bool {
    use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, SET_COOKIE};
    [AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE].contains(name)
}

/// The fields that `Connection` names. Rarely any, and then nothing is allocated.
fn named_by_connection(fields: &HeaderMap) -> Vec<HeaderName> {
    if !mentions(fields, |name| *name == CONNECTION) {
        return Vec::new();
    }
    let lines = fields.get_all(CONNECTION);
    let is_usual = |line: &HeaderValue| {
        let line = line.as_bytes();
        line.eq_ignore_ascii_case(b"keep-alive") || line.eq_ignore_ascii_case(b"close")
    };
    if lines.iter().all(is_usual) {
        return Vec::new();
    }
    lines
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .take(CONNECTION_NAMES_MAX)
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // Those about the connection go when the request does; until then they are read here.
        .filter(|name| !is_protected(name) && !is_hop_by_hop(name))
        .collect()
}

/// Is this about one connection only (RFC 9110 7.6.1), or something that a gateway ends? `Proxy` is httpoxy: a CGI origin
/// would read it as `HTTP_PROXY`.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Does an origin say this to us alone? Then no client sees it.
fn is_for_us(name: &HeaderName) -> bool {
    matches!(name.as_str(), "surrogate-key" | "cache-tag" | "cdn-cache-control" | "edge-requires")
}

/// Removes the fields of a request that its `Connection` names: whoever looks at it then, be it for the route, the key, a
/// variant or the origin, sees the same ones. Otherwise a client could take away from the origin what picks the variant,
/// and have what comes stored under it.
pub fn strip_named(fields: &mut Arc<HeaderMap>) {
    let named = named_by_connection(fields);
    if !named.is_empty() {
        remove(Arc::make_mut(fields), |name| named.contains(name));
    }
}

/// Removes hop-by-hop fields and those that `Connection` names (RFC 9110 7.6.1).
pub fn strip_hop_by_hop(fields: &mut HeaderMap) {
    let named = named_by_connection(fields);
    remove(fields, |name| is_hop_by_hop(name) || named.contains(name));
}

/// Removes the fields whose names these are. Of few there are any, so each name is looked at before it is looked up.
fn remove(fields: &mut HeaderMap, is_gone: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = fields.keys().find(|name| is_gone(name)).cloned() {
        fields.remove(name);
    }
}

/// What the forwarding fields of a request are made from.
pub struct Hop<'a> {
    pub version: Version,
    pub scheme: Scheme,
    /// As the client named it: `host[:port]`.
    pub host: &'a str,
    pub peer: &'a PeerText,
    /// Are the forwarding fields that came with the request believed?
    pub trusted: bool,
    pub id: &'a RequestId,
}

/// The peer of a connection, as forwarding fields write it; made once per connection.
#[derive(Debug, Clone)]
pub struct PeerText {
    /// None for a unix socket.
    address: Option<Box<str>>,
    /// `for=...;proto=`
    forwarded: Box<str>,
}

impl PeerText {
    /// `peer`: none for a unix socket.
    pub fn new(peer: Option<IpAddr>) -> Self {
        let (address, node) = match peer {
            Some(IpAddr::V4(ip)) => (Some(ip.to_string().into()), ip.to_string()),
            Some(IpAddr::V6(ip)) => (Some(ip.to_string().into()), format!("\"[{ip}]\"")),
            None => (None, "unknown".to_owned()),
        };
        Self { address, forwarded: format!("for={node};proto=").into() }
    }
}

/// Room for the lines that [`to_origin`] makes.
const LINES: usize = 512;

/// What the origin sees of the client's fields, which have gone through [`strip_named`], and the lines that we add.
pub fn to_origin(fields: &HeaderMap, hop: &Hop<'_>) -> (HeaderMap, Lines) {
    let travels = |name: &HeaderName| !is_hop_by_hop(name) && !is_ours(name) && (hop.trusted || !is_forwarding(name));
    let PeerText { address, forwarded } = hop.peer;
    let mut sent = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let is_written_anew = is_written_anew(name) && (address.is_some() || *name != X_FORWARDED_FOR);
        if travels(name) && !is_written_anew {
            sent.append(name.clone(), value.clone());
        }
    }
    join_cookies(&mut sent);
    let mut lines = Lines::with_capacity(LINES);
    // One more member of a list that may have come with the request; several lines become one.
    let mut list = |name: &HeaderName, member: &[&[u8]]| {
        let member = member.iter().copied();
        if fields.contains_key(name) && travels(name) {
            let before = fields.get_all(name).iter().flat_map(|line| [line.as_bytes(), b", "]);
            lines.add(name, before.chain(member));
        } else {
            lines.add(name, member);
        }
    };
    let (scheme, host) = (hop.scheme.as_str().as_bytes(), hop.host.as_bytes());
    // RFC 7239, and its older relations.
    list(&FORWARDED, &[forwarded.as_bytes(), scheme, b";host=\"", host, b"\""]);
    if let Some(address) = address {
        list(&X_FORWARDED_FOR, &[address.as_bytes()]);
    }
    list(&VIA, &[via(hop.version).as_bytes()]);
    list(&CDN_LOOP, &[PSEUDONYM.as_bytes()]);
    if !sent.contains_key(X_FORWARDED_PROTO) {
        lines.add(&X_FORWARDED_PROTO, [scheme]);
    }
    if !sent.contains_key(X_FORWARDED_HOST) {
        lines.add(&X_FORWARDED_HOST, [host]);
    }
    lines.add(&X_REQUEST_ID, [hop.id.as_bytes()]);
    if !sent.contains_key(TRACEPARENT) {
        // W3C Trace Context: version 00, not sampled.
        lines.add(&TRACEPARENT, [b"00-", hop.id.as_bytes(), b"-", hop.id.span(), b"-00"]);
    }
    (sent, lines)
}

/// Fields that [`to_origin`] writes itself, with what came before them.
fn is_written_anew(name: &HeaderName) -> bool {
    matches!(name.as_str(), "forwarded" | "x-forwarded-for" | "via" | "cdn-loop" | "x-request-id")
}

/// What an edge says to an origin, and no client: always stripped. `Expect` is answered here.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("edge-") || name.starts_with("x-eduham-") || name == "expect"
}

/// Who asked and how, as proxies say it: believed only from trusted ones.
fn is_forwarding(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-real-ip" | "traceparent"
    )
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

/// Adds one more member to a list field; several lines become one.
pub fn append(fields: &mut HeaderMap, name: HeaderName, member: HeaderValue) {
    match fields.entry(name) {
        Entry::Vacant(absent) => {
            absent.insert(member);
        }
        Entry::Occupied(mut present) => {
            let mut joined = Vec::new();
            for line in present.iter() {
                joined.extend_from_slice(line.as_bytes());
                joined.extend_from_slice(b", ");
            }
            joined.extend_from_slice(member.as_bytes());
            if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                present.insert(joined);
            }
        }
    }
}

fn via(version: Version) -> &'static str {
    match version {
        Version::Http10 => "1.0 eduham-edge",
        Version::Http11 => "1.1 eduham-edge",
        Version::Http2 => "2 eduham-edge",
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
    mentions(fields, |name| *name == CDN_LOOP || *name == VIA)
        && (fields.get_all(CDN_LOOP).iter().any(names_us) || fields.get_all(VIA).iter().any(names_us))
}

/// Is one of the names such? A look at each costs less than to look up one that is not there.
fn mentions(fields: &HeaderMap, is_such: impl Fn(&HeaderName) -> bool) -> bool {
    fields.keys().any(is_such)
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
    remove(fields, is_for_us);
}

/// What every answer says of the way it came.
pub fn sign_answer(fields: &mut HeaderMap, id: &RequestId) {
    append(fields, VIA, HeaderValue::from_static(via(Version::Http11)));
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

    fn hop<'a>(trusted: bool, id: &'a RequestId, peer: &'a PeerText) -> Hop<'a> {
        Hop { version: Version::Http11, scheme: Scheme::Http, host: "a.test", peer, trusted, id }
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

    /// Fields and lines together, as the origin reads them.
    fn seen_by_origin(sent: &HeaderMap, hop: &Hop<'_>) -> HeaderMap {
        let (mut seen, lines) = to_origin(sent, hop);
        for line in std::str::from_utf8(lines.as_bytes()).unwrap().lines() {
            let (name, value) = line.split_once(": ").unwrap();
            seen.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        seen
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        let id = RequestId::from_parts(1, 2);
        let seen = seen_by_origin(
            &fields(&[
                ("x-forwarded-for", "10.0.0.1"),
                ("forwarded", "for=10.0.0.1"),
                ("x-eduham-user", "root"),
                ("edge-fetch", "shared"),
            ]),
            &hop(false, &id, &PeerText::new(Some([192, 0, 2, 1].into()))),
        );
        assert_eq!(seen["x-forwarded-for"], "192.0.2.1");
        assert_eq!(seen["forwarded"], "for=192.0.2.1;proto=http;host=\"a.test\"");
        assert_eq!(seen["traceparent"], format!("00-{id}-{span}-00", id = id.as_str(), span = &id.as_str()[16..]));
        assert!(!seen.contains_key("x-eduham-user") && !seen.contains_key("edge-fetch"));
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_appended_to() {
        let id = RequestId::from_parts(1, 2);
        let seen = seen_by_origin(
            &fields(&[
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("via", "1.1 a"),
                ("via", "1.1 b"),
                ("x-request-id", "theirs"),
                ("traceparent", "00-1-2-01"),
            ]),
            &hop(true, &id, &PeerText::new(Some([192, 0, 2, 1].into()))),
        );
        assert_eq!(seen["x-forwarded-for"], "10.0.0.1, 192.0.2.1");
        assert_eq!(seen["x-forwarded-proto"], "https");
        assert_eq!(seen["via"], "1.1 a, 1.1 b, 1.1 eduham-edge");
        assert_eq!(seen["x-request-id"], id.as_str());
        assert_eq!(seen["traceparent"], "00-1-2-01");
        let twice = seen.keys().find(|name| seen.get_all(*name).iter().count() > 1);
        assert_eq!(twice, None, "each is said once");
    }

    #[test]
    fn what_came_over_a_unix_socket_has_no_address_to_add() {
        let id = RequestId::from_parts(1, 2);
        let sent = fields(&[("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1")]);
        let seen = seen_by_origin(&sent, &hop(true, &id, &PeerText::new(None)));
        assert_eq!(seen["x-forwarded-for"], "10.0.0.1");
        assert_eq!(seen["forwarded"], "for=10.0.0.1, for=unknown;proto=http;host=\"a.test\"");
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
        let seen = seen_by_origin(
            &fields(&[("cookie", "a=1"), ("cookie", "b=2")]),
            &hop(false, &id, &PeerText::new(Some([192, 0, 2, 1].into()))),
        );
        assert_eq!(seen["cookie"], "a=1; b=2");
    }
}
