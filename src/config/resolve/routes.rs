//! `sites` and `routes`: who answers which request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::{
    Resolver,
    cache::Policies,
    upstreams::{self, Upstreams},
};
use crate::{
    cache::Glob,
    config::{
        checked::{Checked, Fields},
        values,
        walk::{read_at_most, words_of},
    },
    front,
    proxy::routing::{
        Action, HostPattern, Match, PathPattern, Redirect, Respond, Route, RouteLimits, Routing, Scheme, Segment, Site,
        Sticky, StickyElse, StickySource, UpstreamPath, ValuePattern, WebSocket,
    },
};

/// Largest file of `respond`: it is held in memory.
const RESPOND_BYTES_MAX: u64 = 16 << 20;

/// What a route may name.
struct Named<'a> {
    server: &'a front::Config,
    policies: &'a Policies,
    upstreams: &'a Upstreams,
}

pub(super) fn routing(
    root: &Fields,
    server: &front::Config,
    policies: &Policies,
    upstreams: &Upstreams,
    resolver: &mut Resolver<'_>,
) -> Routing {
    let named = Named { server, policies, upstreams };
    let sites = root.get("sites");
    let site_fields = || sites.items().iter().filter_map(Checked::fields);
    let lists = || site_fields().map(|site| site.get("routes")).chain([root.get("routes")]);
    let names = lists().flat_map(Checked::items).filter_map(|route| {
        let name = route.fields()?.get("name");
        Some((name.text()?.to_owned(), &name.at))
    });
    resolver.unique("the route", names);
    let hosts = site_fields().flat_map(|site| site.get("hosts").items());
    let hosts = hosts.filter_map(|host| Some((host.text()?.trim_end_matches('.').to_ascii_lowercase(), &host.at)));
    resolver.unique("the host", hosts);
    let sites = site_fields().map(|site| {
        let hosts = site.get("hosts");
        if hosts.items().is_empty() && !hosts.is_bad() {
            resolver.problem(&hosts.at, "found no host, expected at least one", None);
        }
        Site { hosts: host_patterns(hosts), routes: routes(site.get("routes"), &named, resolver) }
    });
    let sites = sites.collect();
    Routing { sites, routes: routes(root.get("routes"), &named, resolver) }
}

fn routes(list: &Checked, named: &Named<'_>, resolver: &mut Resolver<'_>) -> Vec<Arc<Route>> {
    let mut routes: Vec<Arc<Route>> = Vec::new();
    for value in list.items() {
        let Some(route) = value.fields().and_then(|fields| route(fields, named, resolver)) else { continue };
        if let Some(before) = routes.iter().find(|before| takes_all(&before.matches)) {
            let message = format!("no request reaches this route: \"{}\" before it takes them all", before.name);
            resolver.report.warn(&value.at, message, None);
        }
        routes.push(Arc::new(route));
    }
    routes
}

/// Does it match every request?
fn takes_all(matches: &Match) -> bool {
    let Match { paths, hosts, methods, scheme, headers, query, cookies, client_ip, listeners } = matches;
    let any_path = paths.is_empty() || paths.iter().any(|path| matches!(path.segments[..], [Segment::Rest(_)]));
    let any_rest = hosts.is_empty() && methods.is_empty() && scheme.is_none() && headers.is_empty() && query.is_empty();
    any_path && any_rest && cookies.is_empty() && client_ip.is_empty() && listeners.is_empty()
}

fn route(fields: &Fields, named: &Named<'_>, resolver: &mut Resolver<'_>) -> Option<Route> {
    let matches =
        fields.fields("match").map(|fields| self::matches(fields, named.server, resolver)).unwrap_or_default();
    let action = action(fields, &matches, resolver);
    let upstream =
        fields.text("upstream").is_some().then(|| named.upstreams.find(fields.get("upstream"), resolver)).flatten();
    if !fields.wrote("upstream") && !fields.wrote("split") {
        needs_upstream(fields, resolver);
    }
    let cache = named.policies.of_route(fields.get("cache"), resolver);
    let put_over = |name: &str| -> Option<Fields> {
        let base = upstream?.0.fields(name)?;
        Some(fields.fields(name).map_or_else(|| base.clone(), |own| own.over(base)))
    };
    let limits = fields.fields("limits");
    let (timeouts, retries) = (put_over("timeouts"), put_over("retries"));
    let name = fields.text("name")?.to_owned();
    resolver.places.route(&name, &fields.at, fields.get("cache"));
    Some(Route {
        metrics: fields.text("metrics").unwrap_or(&name).to_owned(),
        name,
        sticky: fields.fields("sticky").map(|sticky| self::sticky(sticky, &matches, resolver)),
        websocket: fields.fields("websocket").map(|websocket| WebSocket {
            idle_timeout: websocket.duration("idle_timeout"),
            origins: websocket.get("origins").texts().map(Glob::new).collect(),
        }),
        matches,
        action: action?,
        cache,
        upstream_path: fields.fields("upstream_path").map(|path| upstream_path(path, resolver)),
        timeouts: timeouts.as_ref().map(upstreams::timeouts),
        retries: retries.as_ref().map(upstreams::retries),
        limits: RouteLimits {
            body_bytes: limits.and_then(|limits| limits.get("body_bytes").size()),
            body_timeout: limits.and_then(|limits| limits.get("body_timeout").duration()),
        },
    })
}

/// Keys that mean nothing where the edge itself answers.
fn needs_upstream(fields: &Fields, resolver: &mut Resolver<'_>) {
    for name in ["cache", "sticky", "websocket", "upstream_path", "timeouts", "retries"] {
        let value = fields.get(name);
        if value.written && value.word() != Some("none") {
            resolver.problem(
                &value.at,
                format!("found {name} on a route without an upstream, expected the key left out"),
                None,
            );
        }
    }
}

/// What a route does; exactly one key may say it.
fn action(fields: &Fields, matches: &Match, resolver: &mut Resolver<'_>) -> Option<Action> {
    const ACTIONS: [&str; 3] = ["upstream", "redirect", "respond"];
    // `split` is rejected where it is found; the route is not blamed a second time.
    let written: Vec<_> = ACTIONS.into_iter().filter(|name| fields.wrote(name)).collect();
    let split = fields.wrote("split");
    match written[..] {
        [] if !split => {
            resolver.problem(&fields.at, "found no action, expected one of upstream, split, redirect, respond", None);
            None
        }
        [_, second, ..] => {
            let message = format!(
                "found {} together, expected exactly one of upstream, split, redirect, respond",
                written.join(" and ")
            );
            resolver.problem(&fields.get(second).at, message, None);
            None
        }
        _ => {
            let upstream = fields.text("upstream").map(|name| Action::Upstream(name.to_owned()));
            let redirect = || Some(Action::Redirect(redirect(fields.fields("redirect")?, matches, resolver)?));
            upstream.or_else(redirect).or_else(|| Some(Action::Respond(respond(fields.fields("respond")?, resolver)?)))
        }
    }
}

fn redirect(fields: &Fields, matches: &Match, resolver: &mut Resolver<'_>) -> Option<Redirect> {
    const PLACEHOLDERS: [&str; 5] = ["scheme", "host", "path", "query", "path_and_query"];
    let to = fields.get("to");
    let text = to.text()?;
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let after = &rest[open + 1..];
        let Some(close) = after.find('}') else {
            resolver.problem(&to.at, "found { without }, expected a placeholder such as {host}", None);
            break;
        };
        let name = &after[..close];
        let in_every_path = !matches.paths.is_empty()
            && matches.paths.iter().all(|path| values::parameters(path).any(|parameter| parameter == name));
        if !PLACEHOLDERS.contains(&name) && !in_every_path {
            let known = PLACEHOLDERS.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
            let message = format!("found {{{name}}}, expected {known} or a parameter of every path of the route");
            resolver.problem(&to.at, message, None);
        }
        rest = &after[close + 1..];
    }
    if values::header_value(text).is_err() {
        resolver.problem(&to.at, "found control characters, expected what a Location field can carry", None);
    }
    Some(Redirect { to: text.to_owned(), status: status(fields) })
}

fn status(fields: &Fields) -> StatusCode {
    u16::try_from(fields.int("status")).ok().and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK)
}

/// Fields of a response that the edge frames itself.
const FRAMING: [&str; 3] = ["content-length", "transfer-encoding", "connection"];

fn respond(fields: &Fields, resolver: &mut Resolver<'_>) -> Option<Respond> {
    let (file, body) = (fields.get("file"), fields.get("body"));
    if file.written && body.written {
        resolver.problem(&body.at, "found body together with file, expected one of them", None);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in fields.get("headers").map() {
        if FRAMING.contains(&name.to_ascii_lowercase().as_str()) {
            resolver.problem(
                &value.at,
                format!("found {name}, expected a field that the edge does not set itself"),
                None,
            );
        }
        if let (Ok(name), Some(Ok(value))) = (values::header_name(name), value.text().map(values::header_value)) {
            headers.append(name, value);
        }
    }
    let body = match file.path() {
        Some(path) if !resolver.no_files => match read_at_most(path, RESPOND_BYTES_MAX) {
            Ok(content) => Bytes::from(content),
            Err(error) => {
                resolver.problem(
                    &file.at,
                    format!("found {}, expected a file: {}", path.display(), words_of(&error)),
                    None,
                );
                return None;
            }
        },
        Some(_) => Bytes::new(),
        None => body.text().map(|text| Bytes::from(text.to_owned())).unwrap_or_default(),
    };
    let status = status(fields);
    let is_bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if is_bodiless && (file.written || fields.wrote("body")) {
        resolver.problem(
            &fields.get("status").at,
            format!("found a body with status {}, expected none", status.as_u16()),
            None,
        );
    }
    Some(Respond { status, headers, body })
}

fn host_patterns(value: &Checked) -> Vec<HostPattern> {
    value.texts().filter_map(|text| values::host_pattern(text).ok()).collect()
}

fn value_patterns(value: &Checked) -> Vec<ValuePattern> {
    value.texts().filter_map(|text| values::value_pattern(text).ok()).collect()
}

fn matches(fields: &Fields, server: &front::Config, resolver: &mut Resolver<'_>) -> Match {
    for name in ["path", "host", "methods", "client_ip", "listener"] {
        let value = fields.get(name);
        if value.written && value.items().is_empty() && !value.is_bad() {
            resolver.problem(&value.at, "found an empty list, expected at least one item or the key left out", None);
        }
    }
    let paths: Vec<PathPattern> =
        fields.get("path").texts().filter_map(|text| values::path_pattern(text).ok()).collect();
    let mut methods: Vec<Method> = fields.get("methods").texts().filter_map(|text| values::method(text).ok()).collect();
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    let named =
        |name: &str| fields.get(name).map().iter().map(|(name, value)| (name.clone(), value_patterns(value))).collect();
    Match {
        paths,
        hosts: host_patterns(fields.get("host")),
        methods,
        scheme: fields.get("scheme").word().map(|word| if word == "https" { Scheme::Https } else { Scheme::Http }),
        headers: {
            let headers = fields.get("headers").map().iter();
            headers.filter_map(|(name, value)| Some((values::header_name(name).ok()?, value_patterns(value)))).collect()
        },
        query: named("query"),
        cookies: named("cookies"),
        client_ip: fields.get("client_ip").texts().filter_map(|text| values::network(text).ok()).collect(),
        listeners: listeners(fields.get("listener"), server, resolver),
    }
}

/// Listener addresses in the one way that a listener prints its own.
fn listeners(value: &Checked, server: &front::Config, resolver: &mut Resolver<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for item in value.items() {
        let Some(address) = super::server::address(item, resolver) else { continue };
        let known = || server.listeners.iter().map(|listener| listener.address.to_string());
        if !known().any(|known| known == address.to_string()) {
            let names: Vec<String> = known().collect();
            resolver.unknown_name(
                &item.at,
                &address.to_string(),
                "the address of a listener",
                names.iter().map(String::as_str),
            );
        }
        found.push(address.to_string());
    }
    found
}

fn sticky(fields: &Fields, matches: &Match, resolver: &mut Resolver<'_>) -> Sticky {
    let by = fields.get("by");
    if by.items().is_empty() && !by.is_bad() {
        resolver.problem(&by.at, "found an empty list, expected at least one source", None);
    }
    let mut sources = Vec::new();
    for item in by.items() {
        let Some(Ok(source)) = item.text().map(values::sticky_source) else { continue };
        if let StickySource::Path(name) = &source
            && !matches.paths.iter().any(|path| values::parameters(path).any(|parameter| parameter == name))
        {
            let known = matches.paths.iter().flat_map(values::parameters);
            resolver.unknown_name(&item.at, name, "a parameter of the route's path", known);
        }
        sources.push(source);
    }
    let otherwise = fields.choose(
        "else",
        &[("client_ip", StickyElse::ClientIp), ("random", StickyElse::Random), ("refuse", StickyElse::Refuse)],
    );
    Sticky { by: sources, otherwise }
}

fn upstream_path(fields: &Fields, resolver: &mut Resolver<'_>) -> UpstreamPath {
    let text = |name| fields.text(name).map(str::to_owned);
    if !fields.wrote("strip") && !fields.wrote("add") {
        resolver.problem(&fields.at, "found neither strip nor add, expected one of them", None);
    }
    UpstreamPath { strip: text("strip"), add: text("add") }
}
