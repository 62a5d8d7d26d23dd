//! From checked values to a [`Config`], with every problem that lies between keys.
//!
//! Values that were bad are zero here; that is harmless, because a configuration with a problem is never used.

mod cache;
mod operations;
mod routes;
mod server;
mod upstreams;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Config,
    checked::{Checked, Fields},
    environment::Environment,
    places::Places,
    problem::{At, Report, did_you_mean},
};
use crate::upstream;

/// What resolving needs to know beside the values.
struct Resolver<'a> {
    report: &'a mut Report,
    environment: &'a dyn Environment,
    no_files: bool,
    places: Places,
}

pub(super) fn resolve(root: &Fields, environment: &dyn Environment, no_files: bool, report: &mut Report) -> Config {
    let mut resolver = Resolver { report, environment, no_files, places: Places::new(root) };
    let resolver = &mut resolver;
    let node = operations::node(root.get("node"), resolver);
    let server = server::server(root.get("server"), resolver);
    let admin = operations::admin(root.get("admin"), root.get("upstreams"), &server, resolver);
    let fleet = operations::fleet(root.get("fleet"), root.get("redis"), resolver);
    let store = operations::store(root.get("store"), &node, resolver);
    let cache = cache::Policies::new(root.get("cache"), resolver);
    let upstreams = upstreams::Upstreams::new(root.get("upstreams"), resolver);
    let routing = routes::routing(root, &server, &cache, &upstreams, resolver);
    warn_of_unused(root, &routing, &admin, resolver);
    Config {
        node,
        server,
        admin,
        fleet,
        store,
        policies: cache.all(),
        upstreams: upstreams.all(),
        routing,
        log: operations::log(root.get("log"), resolver),
        places: Arc::new(resolver.places()),
    }
}

impl Resolver<'_> {
    fn places(&mut self) -> Places {
        let mut places = std::mem::take(&mut self.places);
        places.name_files(self.report);
        places
    }

    fn problem(&mut self, at: &At, message: impl Into<String>, hint: Option<String>) {
        self.report.problem(at, message, hint);
    }

    /// Reports a name that is not defined; `what` as "an upstream", `defined` every name that is.
    fn unknown_name<'n>(&mut self, at: &At, name: &str, what: &str, defined: impl Iterator<Item = &'n str>) {
        let defined: Vec<_> = defined.collect();
        let names =
            if defined.is_empty() { "none is defined".to_owned() } else { format!("defined: {}", defined.join(", ")) };
        let hint = did_you_mean(name, defined);
        self.problem(at, format!("found \"{name}\", expected {what}: {names}"), hint);
    }

    /// Reports values that are there twice; the first one stays.
    fn unique<'v>(&mut self, what: &str, values: impl Iterator<Item = (String, &'v At)>) {
        let mut seen: BTreeMap<String, &At> = BTreeMap::new();
        for (value, at) in values {
            match seen.get(&value) {
                Some(first) => {
                    let first = self.report.name_of(first.place);
                    self.problem(
                        at,
                        format!("found {what} \"{value}\" a second time, expected it once: the first is at {first}"),
                        None,
                    );
                }
                None => {
                    seen.insert(value, at);
                }
            }
        }
    }
}

/// Definitions that nothing names do no harm, but are seldom meant.
fn warn_of_unused(
    root: &Fields,
    routing: &crate::proxy::routing::Routing,
    admin: &crate::admin::Config,
    resolver: &mut Resolver<'_>,
) {
    let routes = || routing.sites.iter().flat_map(|site| &site.routes).chain(&routing.routes);
    let upstream_used = |name: &str| {
        routes().any(|route| matches!(&route.action, crate::proxy::routing::Action::Upstream(used) if used == name))
            || admin.ready_require.iter().any(|required| required == name)
    };
    for (name, upstream) in root.get("upstreams").map() {
        if !upstream_used(name) {
            resolver.report.warn(&upstream.at, "no route uses this upstream", None);
        }
    }
    let extends = |name: &str| {
        let policies = root.get("cache").map();
        policies.iter().any(|(_, policy)| policy.fields().and_then(|fields| fields.text("extends")) == Some(name))
    };
    for (name, policy) in root.get("cache").map() {
        let used = routes().any(|route| route.cache.as_ref().is_some_and(|policy| policy.name == *name));
        if !used && !extends(name) {
            resolver.report.warn(&policy.at, "no route uses this policy", None);
        }
    }
}

/// The structure of a key that has one by default; `None` only for a bad value.
fn structure(value: &Checked) -> Option<&Fields> {
    value.fields()
}

/// Names of a map, for "unknown name" problems.
fn names(map: &Checked) -> impl Iterator<Item = &str> {
    map.map().iter().map(|(name, _)| name.as_str())
}

type UpstreamConfig = Arc<upstream::Config>;
