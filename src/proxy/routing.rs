//! The route table: sites, routes, and what a request must look like to be theirs.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Method, StatusCode};
use ipnet::IpNet;

use crate::{
    cache::{Glob, Policy},
    upstream,
};

/// `sites` and top-level `routes`.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    pub sites: Vec<Site>,
    /// Of all other hosts, and of HTTP/1.0 without `Host`.
    pub routes: Vec<Arc<Route>>,
}

/// `sites[]`: hosts that have routes of their own.
#[derive(Debug, Clone)]
pub struct Site {
    pub hosts: Vec<HostPattern>,
    pub routes: Vec<Arc<Route>>,
}

/// A host name in lower case without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(String),
    /// `*.b.test` is kept as `b.test`: one or more labels before it.
    Suffix(String),
}

/// `routes[]`: the first one that matches decides; there is no falling through.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: String,
    /// The `route` label of metrics; default the name.
    pub metrics: String,
    pub matches: Match,
    pub action: Action,
    pub cache: Option<Arc<Policy>>,
    pub sticky: Option<Sticky>,
    pub websocket: Option<WebSocket>,
    pub upstream_path: Option<UpstreamPath>,
    /// The upstream's timeouts with this route's own keys put over them; `None` without an upstream.
    pub timeouts: Option<upstream::Timeouts>,
    /// The same for retries.
    pub retries: Option<upstream::Retries>,
    pub limits: RouteLimits,
}

/// A route has exactly one of these.
#[derive(Debug, Clone)]
pub enum Action {
    /// The name of an upstream that exists.
    Upstream(String),
    Redirect(Redirect),
    Respond(Respond),
}

impl Action {
    /// The upstream's name.
    pub fn upstream(&self) -> Option<&str> {
        match self {
            Self::Upstream(name) => Some(name),
            Self::Redirect(_) | Self::Respond(_) => None,
        }
    }
}

/// `redirect: { to: "https://{host}{path_and_query}", status: 308 }`
#[derive(Debug, Clone)]
pub struct Redirect {
    /// Placeholders: `{scheme}`, `{host}`, `{path}`, `{query}`, `{path_and_query}`, and the route's path parameters.
    pub to: String,
    pub status: StatusCode,
}

/// `respond: { status, file | body, headers }`; a file is read when the configuration is.
#[derive(Debug, Clone)]
pub struct Respond {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: bytes::Bytes,
}

/// `match`: keys AND, lists OR; an empty list of a key means the key was not given.
#[derive(Debug, Clone, Default)]
pub struct Match {
    pub paths: Vec<PathPattern>,
    pub hosts: Vec<HostPattern>,
    /// `GET` has been made to imply `HEAD`.
    pub methods: Vec<Method>,
    pub scheme: Option<Scheme>,
    pub headers: Vec<(HeaderName, Vec<ValuePattern>)>,
    pub query: Vec<(String, Vec<ValuePattern>)>,
    pub cookies: Vec<(String, Vec<ValuePattern>)>,
    pub client_ip: Vec<IpNet>,
    /// Listener addresses as written in `server.listeners[].address`.
    pub listeners: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// How the value of a header, query parameter or cookie must look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePattern {
    /// Exact or with `*`.
    Like(Glob),
    /// `"!*"`
    Absent,
}

/// `/a/{name}/b`, `/a/{*rest}`: `{name}` is one non-empty segment, `{*rest}` everything below, also nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// As written.
    pub text: String,
    pub segments: Vec<Segment>,
}

impl PathPattern {
    /// The names of its parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Parameter(name) | Segment::Rest(name) => Some(name.as_str()),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// The text between two slashes, normalised as request paths are; may be empty.
    Literal(String),
    Parameter(String),
    /// Only ever the last.
    Rest(String),
}

/// `sticky`: what keeps the requests of a room on one peer.
#[derive(Debug, Clone)]
pub struct Sticky {
    /// The first source present decides.
    pub by: Vec<StickySource>,
    pub otherwise: StickyElse,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickySource {
    Path(String),
    Query(String),
    Cookie(String),
    Header(HeaderName),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StickyElse {
    ClientIp,
    Random,
    Refuse,
}

/// `websocket`: the route takes upgrades.
#[derive(Debug, Clone)]
pub struct WebSocket {
    /// Without a byte in either direction for so long, the socket is closed.
    pub idle_timeout: Duration,
    /// Allowed `Origin` values; empty: any.
    pub origins: Vec<Glob>,
}

/// `upstream_path: { strip, add }`: prefixes removed from and put before the path that the origin sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamPath {
    pub strip: Option<String>,
    pub add: Option<String>,
}

/// A route's own `limits`; `None` = the server's.
#[derive(Debug, Clone, Default)]
pub struct RouteLimits {
    pub body_bytes: Option<u64>,
    pub body_timeout: Option<Duration>,
}
