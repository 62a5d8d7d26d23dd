//! Texts with a shape: addresses, networks, names, path patterns. One parser each, for the check and for resolving.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use crate::redis::Url as RedisUrl;
use crate::{
    cache::Glob,
    front::ListenAddress,
    proxy::{
        routing::{HostPattern, PathPattern, Segment, StickySource, ValuePattern},
        target::{BadTarget, Target},
    },
    telemetry,
    upstream::{PeerAddress, RetryWhen, StatusPattern},
};

/// Longest name of a route, policy, upstream, peer or token: it is a metric label.
const NAME_BYTES_MAX: usize = 128;

/// Longest path pattern; request targets are shorter by `server.limits.target_bytes` anyway.
const PATH_BYTES_MAX: usize = 4096;

/// `eduham-1`: what metrics, logs and other keys call something.
pub(super) fn name(text: &str) -> Result<(), String> {
    let valid = (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'));
    if !valid {
        return Err(format!("a name is 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 _ - . :"));
    }
    if matches!(text, "none" | "auto") { Err("none and auto have a meaning of their own".to_owned()) } else { Ok(()) }
}

/// `127.0.0.1:8080`, `[::]:443`, `unix:/run/edge.sock`
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("the path is missing".to_owned()),
        Some(path) => Ok(ListenAddress::Unix(path.into())),
        None => match text.parse() {
            Ok(address) => Ok(ListenAddress::Tcp(address)),
            Err(_) if text.parse::<std::net::IpAddr>().is_ok() => Err("the port is missing".to_owned()),
            Err(_) => Err(String::new()),
        },
    }
}

/// `127.0.0.1:8101`, `learning.internal:443`, `unix:/run/learning.sock`
pub(super) fn peer_address(text: &str) -> Result<PeerAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() {
            Err("the path is missing".to_owned())
        } else {
            Ok(PeerAddress::Unix(path.into()))
        };
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err("port 0 cannot be connected to".to_owned())
        } else {
            Ok(PeerAddress::Ip(address))
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or("the port is a number from 1 to 65535")?;
    host_name(host)?;
    Ok(PeerAddress::Name(host.to_ascii_lowercase(), port))
}

/// A DNS name (RFC 1123 2.1), underscores allowed as container networks use them.
pub(super) fn host_name(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() <= 253 && name.split('.').all(label) { Ok(()) } else { Err(format!("\"{text}\" is no host name")) }
}

/// `redis://..`, `rediss://..`, `redis+cluster://..`, `redis+sentinel://..`
pub(super) fn redis_url(text: &str) -> Result<(), String> {
    text.parse::<RedisUrl>().map(drop).map_err(|error| error.to_string())
}

/// `a.test`, `*.b.test`, an IP address; without a port.
pub(super) fn host_pattern(text: &str) -> Result<HostPattern, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    if lower.parse::<std::net::IpAddr>().is_ok() || lower.starts_with('[') && lower.ends_with(']') {
        return Ok(HostPattern::Exact(lower.to_owned()));
    }
    if lower.contains(':') {
        return Err("a host is written without its port".to_owned());
    }
    match lower.strip_prefix("*.") {
        Some(suffix) => host_name(suffix).map(|()| HostPattern::Suffix(suffix.to_owned())),
        None if lower.contains('*') => Err("a star stands only for whole labels in front, as *.b.test".to_owned()),
        None => host_name(lower).map(|()| HostPattern::Exact(lower.to_owned())),
    }
}

/// `10.0.0.0/8`, or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => {
            let network: IpNet = text.parse().map_err(|_| String::new())?;
            if network.addr() == network.network() {
                Ok(network)
            } else {
                Err(format!("bits after the prefix are set; write {}", network.trunc()))
            }
        }
    }
}

pub(super) fn method(text: &str) -> Result<Method, String> {
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(format!("methods are in capitals; write {}", text.to_ascii_uppercase()));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| String::new())
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| String::new())
}

pub(super) fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "control characters cannot be sent in a field".to_owned())
}

/// `text/html`, `text/*` or `*`; no parameters.
pub(super) fn media_type(text: &str) -> Result<(), String> {
    let is_word = |word: &str| !word.is_empty() && !word.contains(['/', ';', ',', ' ']);
    let is_type = text.split_once('/').is_some_and(|(kind, subtype)| is_word(kind) && is_word(subtype));
    if is_type || text == "*" { Ok(()) } else { Err(String::new()) }
}

/// A value of `host`: what can be sent in the field `Host`.
pub(super) fn host_literal(text: &str) -> Result<HeaderValue, String> {
    let authority: http::uri::Authority = text.parse().map_err(|_| String::new())?;
    if authority.as_str().contains('@') { Err(String::new()) } else { header_value(text) }
}

/// `204` or `2xx`
pub(super) fn status_pattern(text: &str) -> Result<StatusPattern, String> {
    if let Some(digit) = text.strip_suffix("xx") {
        return match digit.as_bytes() {
            [digit @ b'1'..=b'5'] => Ok(StatusPattern::Class(digit - b'0')),
            _ => Err(String::new()),
        };
    }
    match text.parse() {
        Ok(code @ 100..=599) if text.len() == 3 => Ok(StatusPattern::Code(code)),
        _ => Err(String::new()),
    }
}

/// `connect`, `reset` or a status of 500 to 599
pub(super) fn retry_when(text: &str) -> Result<RetryWhen, String> {
    match text {
        "connect" => Ok(RetryWhen::Connect),
        "reset" => Ok(RetryWhen::Reset),
        _ => match text.parse() {
            Ok(status @ 500..=599) => Ok(RetryWhen::Status(status)),
            _ => Err(String::new()),
        },
    }
}

/// `path.room`, `query.room`, `cookie.eh_room`, `header.x-eh-room`
pub(super) fn sticky_source(text: &str) -> Result<StickySource, String> {
    let (source, name) = text.split_once('.').ok_or(String::new())?;
    if name.is_empty() {
        return Err("the name after the point is missing".to_owned());
    }
    match source {
        "path" => Ok(StickySource::Path(name.to_owned())),
        "query" => Ok(StickySource::Query(name.to_owned())),
        "cookie" => Ok(StickySource::Cookie(name.to_owned())),
        "header" => header_name(name).map(StickySource::Header),
        _ => Err(String::new()),
    }
}

/// Exact, with `*`, or `!*` for absent.
pub(super) fn value_pattern(text: &str) -> Result<ValuePattern, String> {
    match text {
        "!*" => Ok(ValuePattern::Absent),
        text if text.starts_with('!') => Err("only !* is known: the value is absent".to_owned()),
        text => Ok(ValuePattern::Like(Glob::new(text))),
    }
}

/// `/a/{name}/b`, `/a/{*rest}`
pub(super) fn path_pattern(text: &str) -> Result<PathPattern, String> {
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("it is longer than {PATH_BYTES_MAX} bytes"));
    }
    let Some(path) = text.strip_prefix('/') else { return Err("it begins with /".to_owned()) };
    let parts: Vec<_> = path.split('/').collect();
    let mut segments = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let segment = segment(part)?;
        if let Segment::Parameter(_) | Segment::Rest(_) = segment {
            let name = part.trim_matches(['{', '}', '*']);
            if names.contains(&name) {
                return Err(format!("the parameter {{{name}}} is there twice"));
            }
            names.push(name);
        }
        if matches!(segment, Segment::Rest(_)) && index + 1 < parts.len() {
            return Err(format!("{part} can only be the last segment"));
        }
        segments.push(segment);
    }
    Ok(PathPattern { text: text.to_owned(), segments })
}

fn segment(part: &str) -> Result<Segment, String> {
    let parameter = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
    match parameter {
        Some(inner) => {
            let (name, rest) = match inner.strip_prefix('*') {
                Some(name) => (name, true),
                None => (inner, false),
            };
            let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !valid {
                return Err(format!("{part} is no parameter; its name is of A-Z a-z 0-9 _"));
            }
            Ok(if rest { Segment::Rest(name.to_owned()) } else { Segment::Parameter(name.to_owned()) })
        }
        None if part.contains(['{', '}']) => Err(format!("{part}: a parameter is a whole segment")),
        None if part.contains('*') => Err("a star is written {*name}, as the last segment".to_owned()),
        None if part.contains(['?', '#']) => Err("a path has no query; use match.query".to_owned()),
        None => literal_segment(part).map(Segment::Literal),
    }
}

/// A segment in the one form that request paths are normalised to.
fn literal_segment(part: &str) -> Result<String, String> {
    const DOTS: &str = "dot segments are never in a request path";
    // A request path is ASCII; other letters come encoded.
    let encoded: String = part
        .bytes()
        .map(|byte| if byte.is_ascii() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    let target = Target::parse(&format!("/{encoded}")).map_err(|error| match error {
        BadTarget::AboveRoot => DOTS.to_owned(),
        other => other.to_string(),
    })?;
    let segment = &target.path()[1..];
    if segment.is_empty() && !part.is_empty() { Err(DOTS.to_owned()) } else { Ok(segment.to_owned()) }
}

/// The path parameters that a pattern names.
pub(super) fn parameters(pattern: &PathPattern) -> impl Iterator<Item = &str> {
    pattern.segments.iter().filter_map(|segment| match segment {
        Segment::Parameter(name) | Segment::Rest(name) => Some(name.as_str()),
        Segment::Literal(_) => None,
    })
}

/// A prefix of paths, for `upstream_path`.
pub(super) fn path_prefix(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err("it begins with /".to_owned());
    }
    text[1..].split('/').try_for_each(|part| {
        if part.contains(['{', '}', '?', '#', '*']) {
            Err("a prefix has no parameters and no query".to_owned())
        } else {
            literal_segment(part).map(drop)
        }
    })
}

/// A path that a health check asks for, query allowed.
pub(super) fn request_target(text: &str) -> Result<(), String> {
    match text.parse::<http::uri::PathAndQuery>() {
        Ok(target) if text.starts_with('/') && target.as_str() == text => Ok(()),
        _ => Err("it begins with / and is a path, with a query if need be".to_owned()),
    }
}

/// A filter of `tracing`: `info`, `warn,edge=debug`. Stricter than `tracing`, for which a misspelt level is a target.
pub(super) fn log_level(text: &str) -> Result<(), String> {
    let levels = ["trace", "debug", "info", "warn", "error", "off"];
    for part in text.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !levels.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(format!("\"{part}\" is not trace, debug, info, warn, error or off, alone or after target="));
        }
    }
    telemetry::diagnostics::filter(text).map(drop).map_err(|error| error.to_string())
}

/// Where the access record goes, if not to one of the words.
pub(super) fn log_path(text: &str) -> Result<(), String> {
    if text.contains(['/', '.']) { Ok(()) } else { Err("a file is written with / or . in its path".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_pattern_is_kept_in_the_form_of_normalised_requests() {
        let literal = |text: &str| Segment::Literal(text.to_owned());
        let rest = |text: &str| Segment::Rest(text.to_owned());
        for (text, segments) in [
            ("/", vec![literal("")]),
            ("/a/{name}/b", vec![literal("a"), Segment::Parameter("name".to_owned()), literal("b")]),
            ("/a/{*rest}", vec![literal("a"), rest("rest")]),
            ("/{*rest}", vec![rest("rest")]),
            ("/a/", vec![literal("a"), literal("")]),
            ("/%7ea/%2f%5c", vec![literal("~a"), literal("%2F%5C")]),
            ("/é", vec![literal("%C3%A9")]),
        ] {
            assert_eq!(path_pattern(text).map(|pattern| pattern.segments), Ok(segments), "{text}");
        }
        for text in
            ["a", "", "/{*a}/b", "/{a}/{a}", "/x{a}", "/*", "/a?b", "/a/../b", "/%4", "/{}", "/{a-b}", "/a b", "/\\"]
        {
            assert!(path_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_lower_case_and_stars_stand_for_labels() {
        for (text, expected) in [
            ("A.test.", Ok(HostPattern::Exact("a.test".to_owned()))),
            ("*.b.test", Ok(HostPattern::Suffix("b.test".to_owned()))),
            ("127.0.0.1", Ok(HostPattern::Exact("127.0.0.1".to_owned()))),
            ("[::1]", Ok(HostPattern::Exact("[::1]".to_owned()))),
        ] {
            assert_eq!(host_pattern(text), expected, "{text}");
        }
        for text in ["a.test:80", "a*.test", "*", "-a.test", "a..test", ""] {
            assert!(host_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_listeners_and_peers() {
        assert!(matches!(listen_address("[::]:443"), Ok(ListenAddress::Tcp(_))));
        assert!(matches!(listen_address("unix:/run/a.sock"), Ok(ListenAddress::Unix(_))));
        for text in ["localhost:80", "127.0.0.1", "unix:", ":80", "::1:80:x"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
        assert_eq!(peer_address("Learning.internal:443"), Ok(PeerAddress::Name("learning.internal".to_owned(), 443)));
        for text in ["127.0.0.1", "127.0.0.1:0", "a b:1", "a:70000", "unix:", "http://a:1"] {
            assert!(peer_address(text).is_err(), "{text}");
        }
    }
}
