//! Step 2: which route a request takes. First match wins, and there is no falling through.
//!
//! Routes of a host are kept in a tree of path segments, so that choosing costs the depth of the path and not the
//! number of routes.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::IpAddr,
    sync::Arc,
};

use http::{HeaderMap, Method, header::COOKIE};
use memchr::memchr;
use smallvec::SmallVec;

use super::routing::{HostPattern, Match, PathPattern, Route, Routing, Scheme, Segment, ValuePattern};
use crate::telemetry::RouteMetrics;

/// Candidates looked at for one request before the rest of the table is taken as not matching: overlapping
/// parameter patterns multiply, and this bounds the walk.
const CANDIDATES_MAX: usize = 1_024;

/// Routes by their place in the table; few match one path.
type Candidates = SmallVec<[usize; 8]>;

/// What `match` may look at.
pub struct Asked<'a> {
    pub method: &'a Method,
    pub scheme: Scheme,
    /// Lower case, without port and trailing dot; none for HTTP/1.0 without `Host`.
    pub host: Option<&'a str>,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub fields: &'a HeaderMap,
    pub client_ip: Option<IpAddr>,
    pub listener: &'a str,
}

/// A route with what it needs at run time.
#[derive(Debug)]
pub struct Choice {
    pub route: Arc<Route>,
    pub metrics: Arc<RouteMetrics>,
}

/// The whole table of one configuration.
#[derive(Debug)]
pub struct Router {
    exact: HashMap<String, Arc<Table>>,
    /// Longest suffix first.
    suffixes: Vec<(String, Arc<Table>)>,
    default: Table,
    unmatched: Arc<RouteMetrics>,
}

impl Router {
    /// `metrics` gives each route its handles; routes that share a label share them.
    pub fn new(routing: &Routing, mut metrics: impl FnMut(&str) -> Arc<RouteMetrics>) -> Self {
        let mut exact = HashMap::new();
        let mut suffixes = Vec::new();
        for site in &routing.sites {
            let table = Arc::new(Table::new(&site.routes, &mut metrics));
            for host in &site.hosts {
                match host {
                    HostPattern::Exact(name) => drop(exact.insert(name.clone(), Arc::clone(&table))),
                    HostPattern::Suffix(name) => suffixes.push((name.clone(), Arc::clone(&table))),
                }
            }
        }
        suffixes.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let default = Table::new(&routing.routes, &mut metrics);
        Self { exact, suffixes, default, unmatched: metrics("none") }
    }

    /// The route and the values of its path parameters, in the pattern's order.
    pub fn choose(&self, asked: &Asked<'_>) -> Option<&Choice> {
        self.table(asked.host).choose(asked)
    }

    /// The routes before the chosen one, or all where there is none, each with the first key that kept it from being it.
    pub fn passed_over(&self, asked: &Asked<'_>) -> Vec<(&Route, Condition)> {
        let table = self.table(asked.host);
        let candidates = table.candidates(asked);
        let mut passed = Vec::new();
        for (at, choice) in table.choices.iter().enumerate() {
            let condition = match candidates.binary_search(&at) {
                Ok(_) => mismatch(&choice.route.matches, asked),
                Err(_) => Some(Condition::Path),
            };
            let Some(condition) = condition else { break };
            passed.push((&*choice.route, condition));
        }
        passed
    }

    /// Metrics of requests that no route takes.
    pub fn unmatched(&self) -> &Arc<RouteMetrics> {
        &self.unmatched
    }

    fn table(&self, host: Option<&str>) -> &Table {
        let Some(host) = host else { return &self.default };
        if let Some(table) = self.exact.get(host) {
            return table;
        }
        self.suffixes.iter().find(|(suffix, _)| is_below(host, suffix)).map_or(&self.default, |(_, table)| table)
    }
}

/// Is `host` one or more labels before `suffix`?
fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| !rest.is_empty())
}

/// The routes of one host, in order, and the tree that finds them.
#[derive(Debug, Default)]
struct Table {
    choices: Vec<Choice>,
    tree: Node,
    /// Routes that match any path.
    anywhere: Vec<usize>,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<String, Node, BuildHasherDefault<Fnv>>,
    parameter: Option<Box<Node>>,
    /// Routes whose pattern ends here.
    ends: Vec<usize>,
    /// Routes that take everything below here.
    rest: Vec<usize>,
}

impl Table {
    fn new(routes: &[Arc<Route>], metrics: &mut impl FnMut(&str) -> Arc<RouteMetrics>) -> Self {
        let mut table = Self::default();
        for (at, route) in routes.iter().enumerate() {
            table.choices.push(Choice { route: Arc::clone(route), metrics: metrics(&route.metrics) });
            if route.matches.paths.is_empty() {
                table.anywhere.push(at);
            }
            for pattern in &route.matches.paths {
                table.tree.insert(&pattern.segments, at);
            }
        }
        table
    }

    /// The routes whose path the request has, in order.
    fn candidates(&self, asked: &Asked<'_>) -> Candidates {
        let mut candidates = Candidates::from_slice(&self.anywhere);
        self.tree.collect(asked.path.strip_prefix('/'), &mut candidates);
        candidates.sort_unstable();
        candidates
    }

    fn choose(&self, asked: &Asked<'_>) -> Option<&Choice> {
        let candidates = self.candidates(asked);
        let mut candidates = candidates.iter().map(|at| &self.choices[*at]);
        candidates.find(|choice| mismatch(&choice.route.matches, asked).is_none())
    }
}

impl Node {
    fn insert(&mut self, segments: &[Segment], route: usize) {
        match segments.split_first() {
            None => self.ends.push(route),
            Some((Segment::Literal(text), below)) => {
                self.literal.entry(text.clone()).or_default().insert(below, route);
            }
            Some((Segment::Parameter(_), below)) => {
                self.parameter.get_or_insert_default().insert(below, route);
            }
            Some((Segment::Rest(_), _)) => self.rest.push(route),
        }
    }

    /// `path` is what follows the slash after this node; `None`: there was no such slash.
    fn collect(&self, path: Option<&str>, found: &mut Candidates) {
        if found.len() >= CANDIDATES_MAX {
            return;
        }
        let Some(path) = path else {
            found.extend_from_slice(&self.ends);
            return;
        };
        found.extend_from_slice(&self.rest);
        let (segment, below) = match memchr(b'/', path.as_bytes()) {
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => (path, None),
        };
        if let Some(node) = self.literal.get(segment) {
            node.collect(below, found);
        }
        if let Some(node) = &self.parameter
            && !segment.is_empty()
        {
            node.collect(below, found);
        }
    }
}

/// FNV-1a: a few steps for a short segment. Only an operator puts segments into the tree, so nobody can make them collide.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A key of `match` that a request does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Path,
    Methods,
    Host,
    Scheme,
    ClientIp,
    Listener,
    /// Which one of the route's.
    Header(usize),
    Query(usize),
    Cookie(usize),
}

impl Condition {
    /// The key, as `match.headers.x-a`.
    pub fn key(self, rule: &Match) -> String {
        match self {
            Self::Path => "match.path".to_owned(),
            Self::Methods => "match.methods".to_owned(),
            Self::Host => "match.host".to_owned(),
            Self::Scheme => "match.scheme".to_owned(),
            Self::ClientIp => "match.client_ip".to_owned(),
            Self::Listener => "match.listener".to_owned(),
            Self::Header(at) => format!("match.headers.{}", rule.headers[at].0),
            Self::Query(at) => format!("match.query.{}", rule.query[at].0),
            Self::Cookie(at) => format!("match.cookies.{}", rule.cookies[at].0),
        }
    }
}

/// The first key of `match`, but the path, which the tree has already answered, that the request does not meet.
fn mismatch(rule: &Match, asked: &Asked<'_>) -> Option<Condition> {
    if !rule.methods.is_empty() && !rule.methods.contains(asked.method) {
        return Some(Condition::Methods);
    }
    if !rule.hosts.is_empty() && !asked.host.is_some_and(|host| rule.hosts.iter().any(|rule| host_matches(rule, host)))
    {
        return Some(Condition::Host);
    }
    if rule.scheme.is_some_and(|scheme| scheme != asked.scheme) {
        return Some(Condition::Scheme);
    }
    if !rule.client_ip.is_empty()
        && !asked.client_ip.is_some_and(|ip| rule.client_ip.iter().any(|net| net.contains(&ip)))
    {
        return Some(Condition::ClientIp);
    }
    if !rule.listeners.is_empty() && !rule.listeners.iter().any(|listener| listener == asked.listener) {
        return Some(Condition::Listener);
    }
    let header = |(name, patterns): &(http::HeaderName, Vec<ValuePattern>)| {
        !any_value(patterns, asked.fields.get_all(name).iter().filter_map(|value| value.to_str().ok()))
    };
    let query = |(name, patterns): &(String, Vec<ValuePattern>)| !any_value(patterns, query_values(asked.query, name));
    let cookie =
        |(name, patterns): &(String, Vec<ValuePattern>)| !any_value(patterns, cookie_values(asked.fields, name));
    let headers = || rule.headers.iter().position(header).map(Condition::Header);
    let queries = || rule.query.iter().position(query).map(Condition::Query);
    headers().or_else(queries).or_else(|| rule.cookies.iter().position(cookie).map(Condition::Cookie))
}

fn host_matches(rule: &HostPattern, host: &str) -> bool {
    match rule {
        HostPattern::Exact(name) => name == host,
        HostPattern::Suffix(name) => is_below(host, name),
    }
}

fn any_value<'a>(patterns: &[ValuePattern], values: impl Iterator<Item = &'a str>) -> bool {
    let mut present = false;
    for value in values {
        present = true;
        if patterns.iter().any(|pattern| matches!(pattern, ValuePattern::Like(glob) if glob.matches(value))) {
            return true;
        }
    }
    !present && patterns.contains(&ValuePattern::Absent)
}

/// The values of a query parameter, as received.
pub fn query_values<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.unwrap_or_default().split('&').filter_map(move |pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name && !pair.is_empty()).then_some(value)
    })
}

/// The values of a cookie of a request (RFC 6265 4.2).
pub fn cookie_values<'a>(fields: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    fields.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';')).filter_map(
        move |pair| {
            let (found, value) = pair.trim().split_once('=')?;
            (found == name).then_some(value)
        },
    )
}

/// The value of a path parameter of the pattern that matches `path`.
pub fn path_parameter<'a>(patterns: &[PathPattern], path: &'a str, name: &str) -> Option<&'a str> {
    patterns.iter().find_map(|pattern| {
        let mut rest = path.strip_prefix('/');
        let mut found = None;
        for segment in &pattern.segments {
            let here = rest?;
            if let Segment::Rest(parameter) = segment {
                return if parameter == name { Some(here) } else { found };
            }
            let (text, below) = match here.split_once('/') {
                Some((text, below)) => (text, Some(below)),
                None => (here, None),
            };
            match segment {
                Segment::Literal(literal) if literal != text => return None,
                Segment::Parameter(_) if text.is_empty() => return None,
                Segment::Parameter(parameter) if parameter == name => found = Some(text),
                _ => {}
            }
            rest = below;
        }
        if rest.is_none() { found } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::Glob,
        proxy::routing::{Action, Respond, RouteLimits, Site},
        telemetry::Metrics,
    };

    fn pattern(text: &str) -> PathPattern {
        let segments = text
            .strip_prefix('/')
            .expect("patterns begin with a slash")
            .split('/')
            .map(|segment| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                Some(name) => match name.strip_prefix('*') {
                    Some(name) => Segment::Rest(name.into()),
                    None => Segment::Parameter(name.into()),
                },
                None => Segment::Literal(segment.into()),
            })
            .collect();
        PathPattern { text: text.into(), segments }
    }

    fn route(name: &str, matches: Match) -> Arc<Route> {
        Arc::new(Route {
            name: name.into(),
            metrics: name.into(),
            matches,
            action: Action::Respond(Respond {
                status: http::StatusCode::OK,
                headers: HeaderMap::new(),
                body: bytes::Bytes::new(),
            }),
            cache: None,
            sticky: None,
            websocket: None,
            upstream_path: None,
            timeouts: None,
            retries: None,
            limits: RouteLimits::default(),
        })
    }

    fn at(paths: &[&str]) -> Match {
        Match { paths: paths.iter().map(|path| pattern(path)).collect(), ..Match::default() }
    }

    fn router(routing: &Routing) -> Router {
        let metrics = Metrics::new();
        Router::new(routing, |label| metrics.route(label))
    }

    fn chosen(router: &Router, host: Option<&str>, path: &str) -> Option<String> {
        let fields = HeaderMap::new();
        let asked = Asked {
            method: &Method::GET,
            scheme: Scheme::Http,
            host,
            path,
            query: None,
            fields: &fields,
            client_ip: None,
            listener: "",
        };
        router.choose(&asked).map(|choice| choice.route.name.clone())
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let routing = Routing {
            sites: vec![],
            routes: vec![
                route("room", at(&["/rt/{room}"])),
                route("below", at(&["/a/{*rest}"])),
                route("exact", at(&["/a/b"])),
                route("both", at(&["/x/{id}/y", "/z"])),
                route("all", at(&["/{*rest}"])),
            ],
        };
        let router = router(&routing);
        for (path, expected) in [
            ("/rt/1", Some("room")),
            ("/rt/", Some("all")),
            ("/rt/1/2", Some("all")),
            ("/a/b", Some("below")),
            ("/a/", Some("below")),
            ("/a", Some("all")),
            ("/x/7/y", Some("both")),
            ("/z", Some("both")),
            ("/", Some("all")),
            ("//a", Some("all")),
        ] {
            assert_eq!(chosen(&router, None, path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn an_exact_host_beats_the_longest_wildcard_beats_the_rest() {
        let site = |host, name| Site { hosts: vec![host], routes: vec![route(name, at(&["/{*rest}"]))] };
        let routing = Routing {
            sites: vec![
                site(HostPattern::Suffix("test".into()), "short"),
                site(HostPattern::Suffix("b.test".into()), "long"),
                site(HostPattern::Exact("a.b.test".into()), "exact"),
            ],
            routes: vec![route("top", at(&["/{*rest}"]))],
        };
        let router = router(&routing);
        for (host, expected) in [
            (Some("a.b.test"), "exact"),
            (Some("c.d.b.test"), "long"),
            (Some("b.test"), "short"),
            (Some("test"), "top"),
            (None, "top"),
        ] {
            assert_eq!(chosen(&router, host, "/").as_deref(), Some(expected), "{host:?}");
        }
    }

    #[test]
    fn every_key_of_match_must_hold() {
        let like = |text: &str| vec![ValuePattern::Like(Glob::new(text))];
        let rule = Match {
            headers: vec![(http::HeaderName::from_static("x-a"), like("v*"))],
            query: vec![("q".into(), vec![ValuePattern::Absent])],
            cookies: vec![("c".into(), like("1"))],
            ..Match::default()
        };
        let asked = |fields: &HeaderMap, query: Option<&str>| {
            let asked = Asked {
                method: &Method::GET,
                scheme: Scheme::Http,
                host: None,
                path: "/",
                query,
                fields,
                client_ip: None,
                listener: "",
            };
            mismatch(&rule, &asked).map(|condition| condition.key(&rule))
        };
        let mut fields = HeaderMap::new();
        fields.insert("x-a", http::HeaderValue::from_static("v1"));
        fields.insert("cookie", http::HeaderValue::from_static("b=2; c=1"));
        assert_eq!(asked(&fields, None), None);
        assert_eq!(asked(&fields, Some("q=1")).as_deref(), Some("match.query.q"));
        fields.remove("cookie");
        assert_eq!(asked(&fields, None).as_deref(), Some("match.cookies.c"));
    }

    #[test]
    fn a_path_parameter_is_read_from_the_pattern_that_matches() {
        let patterns = [pattern("/rt/{room}"), pattern("/files/{*rest}")];
        for (path, name, expected) in [
            ("/rt/r1", "room", Some("r1")),
            ("/rt/r1/x", "room", None),
            ("/files/a/b", "rest", Some("a/b")),
            ("/rt/r1", "other", None),
        ] {
            assert_eq!(path_parameter(&patterns, path, name), expected, "{path} {name}");
        }
    }
}
