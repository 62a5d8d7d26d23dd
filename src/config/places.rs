//! Where each key of the configuration is written, so that a decision can name the line that made it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::Serialize;

use super::{
    checked::{Checked, Fields, Value},
    problem::{At, Place, Report},
};

/// Every written key with its place, and for each policy where each of its keys is really written: a policy may have
/// it from one that it extends, and a route may put its own over it.
#[derive(Clone, Default)]
pub struct Places {
    files: Vec<String>,
    /// By path, written keys alone.
    written: BTreeMap<String, Place>,
    /// By the path of the policy, or of the route's `cache` that puts keys over one: its keys, all of them.
    policies: BTreeMap<String, BTreeMap<String, Written>>,
    /// By the route's name, which is unique.
    routes: HashMap<String, RoutePlace>,
}

#[derive(Debug, Clone)]
struct RoutePlace {
    at: At,
    /// The path of its policy in `policies`.
    policy: Option<String>,
}

#[derive(Debug, Clone)]
struct Written {
    at: At,
    written: bool,
}

/// One key and where it stands. Prints as `cache.pages.default_ttl (edge.yaml:14:18)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spot {
    /// The key, as `routes[3].cache.default_ttl`: where it is written, which may be in a policy that is extended.
    pub key: String,
    /// The file as it was named.
    pub file: String,
    /// From 1; of the nearest thing around it, where the key is not written.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// False: the key has its default, and the place is that of the nearest thing around it.
    pub written: bool,
}

impl Places {
    /// Of the keys of `root`, a configuration that has been checked.
    pub(super) fn new(root: &Fields) -> Self {
        let mut places = Self::default();
        root.entries.iter().for_each(|(_, value)| places.collect(value));
        places
    }

    /// The names of the files, once all are read.
    pub(super) fn name_files(&mut self, report: &Report) {
        self.files = report.files.iter().map(|file| file.name.clone()).collect();
    }

    fn collect(&mut self, value: &Checked) {
        if !value.written {
            return;
        }
        self.written.insert(value.at.path.clone(), value.at.place);
        match &value.value {
            Value::List(items) => items.iter().for_each(|item| self.collect(item)),
            Value::Map(entries) => entries.iter().for_each(|(_, value)| self.collect(value)),
            Value::Struct(fields) => fields.entries.iter().for_each(|(_, value)| self.collect(value)),
            _ => {}
        }
    }

    /// Notes the keys of a policy after what it extends has been filled in; `path` as `cache.pages`.
    pub(super) fn policy(&mut self, path: &str, fields: &Fields) {
        let mut keys = BTreeMap::new();
        flatten("", fields, &mut keys);
        self.policies.insert(path.to_owned(), keys);
    }

    /// Notes a route, and the policy it takes by name or by keys of its own.
    pub(super) fn route(&mut self, name: &str, at: &At, cache: &Checked) {
        let policy = match &cache.value {
            Value::Text(name) => Some(format!("cache.{name}")),
            Value::Struct(_) => Some(cache.at.path.clone()),
            _ => None,
        };
        self.routes.insert(name.to_owned(), RoutePlace { at: at.clone(), policy });
    }

    /// Where a key is written, or the nearest thing around it that is.
    pub fn key(&self, path: &str) -> Spot {
        let (place, written) = self.find(path);
        self.spot(path, place, written)
    }

    fn find(&self, path: &str) -> (Place, bool) {
        let mut around = path;
        loop {
            if let Some(place) = self.written.get(around) {
                return (*place, around.len() == path.len());
            }
            match around.rfind(['.', '[']) {
                Some(end) => around = &around[..end],
                None => return (Place { file: 0, line: 1, column: 1 }, false),
            }
        }
    }

    /// The route of this name, as `routes[3]`.
    pub fn route_named(&self, name: &str) -> Option<Spot> {
        let route = self.routes.get(name)?;
        Some(self.spot(&route.at.path, route.at.place, true))
    }

    /// A key of the route of this name, as `match.methods`.
    pub fn of_route(&self, name: &str, key: &str) -> Option<Spot> {
        let route = self.routes.get(name)?;
        let spot = self.key(&format!("{}.{key}", route.at.path));
        Some(if spot.written { spot } else { self.spot(&spot.key, route.at.place, false) })
    }

    /// A key of the policy that the route of this name has, as `collapse.wait`.
    pub fn of_policy(&self, route: &str, key: &str) -> Option<Spot> {
        let policy = self.routes.get(route)?.policy.as_ref()?;
        let found = self.policies.get(policy)?.get(key)?;
        if found.written {
            return Some(self.spot(&found.at.path, found.at.place, true));
        }
        Some(self.spot(&format!("{policy}.{key}"), self.find(policy).0, false))
    }

    fn spot(&self, key: &str, place: Place, written: bool) -> Spot {
        let file = self.files.get(place.file).cloned().unwrap_or_default();
        Spot { key: key.to_owned(), file, line: place.line, column: place.column, written }
    }
}

/// Every leaf of `fields`, by its path below them.
fn flatten(prefix: &str, fields: &Fields, into: &mut BTreeMap<String, Written>) {
    for (name, value) in &fields.entries {
        let path = if prefix.is_empty() { (*name).to_owned() } else { format!("{prefix}.{name}") };
        if let Value::Struct(fields) = &value.value {
            flatten(&path, fields, into);
        }
        into.insert(path, Written { at: value.at.clone(), written: value.written });
    }
}

/// In a resolved configuration that is printed, places would be noise.
impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, file, line, column, written } = self;
        let default = if *written { "" } else { "default, not written; around it " };
        write!(f, "{key} ({default}{file}:{line}:{column})")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{FixedEnvironment, Options, Places, parse};

    const TEXT: &str = r#"version: 1
server: { listeners: [ { address: 127.0.0.1:8080 } ] }
upstreams: { u: { peers: [ 127.0.0.1:1 ] } }
cache:
  base:
    default_ttl: 10s
    collapse: { wait: 2s }
  pages:
    extends: base
    keep: 2h
routes:
  - name: own
    match: { path: /own, methods: GET }
    upstream: u
    cache: { use: pages, keep: 3h }
  - name: pages
    upstream: u
    cache: pages
"#;

    fn places() -> std::sync::Arc<Places> {
        let loaded = parse(TEXT, "edge.yaml", Path::new(""), &FixedEnvironment::default(), Options::default());
        loaded.unwrap().config.places
    }

    #[test]
    fn a_key_of_a_policy_is_found_where_it_is_really_written() {
        let places = places();
        for (route, key, expected) in [
            ("pages", "keep", "cache.pages.keep (edge.yaml:10:11)"),
            ("pages", "default_ttl", "cache.base.default_ttl (edge.yaml:6:18)"),
            ("pages", "collapse.wait", "cache.base.collapse.wait (edge.yaml:7:23)"),
            ("own", "keep", "routes[0].cache.keep (edge.yaml:15:32)"),
            ("own", "default_ttl", "cache.base.default_ttl (edge.yaml:6:18)"),
            ("pages", "set_cookie", "cache.pages.set_cookie (default, not written; around it edge.yaml:9:5)"),
            (
                "own",
                "bypass.cookies",
                "routes[0].cache.bypass.cookies (default, not written; around it edge.yaml:15:12)",
            ),
        ] {
            assert_eq!(places.of_policy(route, key).unwrap().to_string(), expected, "{route} {key}");
        }
    }

    #[test]
    fn routes_and_their_keys_have_places() {
        let places = places();
        assert_eq!(places.route_named("pages").unwrap().to_string(), "routes[1] (edge.yaml:16:5)");
        let methods = places.of_route("own", "match.methods").unwrap();
        assert_eq!(methods.to_string(), "routes[0].match.methods (edge.yaml:13:35)");
        let cache = places.of_route("own", "websocket").unwrap();
        assert_eq!(cache.to_string(), "routes[0].websocket (default, not written; around it edge.yaml:12:5)");
        let store = places.key("store.memory.object_max").to_string();
        assert_eq!(store, "store.memory.object_max (default, not written; around it edge.yaml:1:1)");
        assert_eq!(places.route_named("none"), None);
    }
}
