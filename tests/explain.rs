//! Labelled cases of `explain`: the true cause, its place in the YAML, and changes that flip the outcome when applied.
//!
//! A case is a row of `tests/explain/*.yaml`. What `explain` names as changes must be what the row says; each is then
//! applied as it was named, to the configuration, the response or the request, and explained again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use eduham_edge::{
    config::{self, FixedEnvironment, Options},
    explain::{Answer, Ask, Change, Explanation, Party, Scene, offline},
    proxy::route::Router,
    telemetry::Metrics,
};
use serde::Deserialize;

/// When all of it happens.
const NOW: &str = "Tue, 24 Nov 2026 12:00:00 GMT";

/// Cases that there are at least.
const CASES_MIN: usize = 40;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The whole configuration; else [`Case::policy`] counts.
    config: Option<String>,
    /// Lines of the policy `pages`, which all requests have.
    #[serde(default)]
    policy: String,
    #[serde(default = "url")]
    url: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: Vec<String>,
    /// Status and fields; `@N` is a date N seconds after now. No response: nothing is known of the origin.
    #[serde(default)]
    response: Vec<String>,
    #[serde(default = "body")]
    body: String,
    /// The end of the body is the end of the connection.
    #[serde(default)]
    until_close: bool,
    /// Seconds until the request comes again.
    #[serde(default)]
    after: u64,

    /// `stored, then hit`
    outcome: String,
    /// The rule.
    cause: String,
    /// `cache.pages.keep (edge.yaml:6:11)`
    place: Option<String>,
    /// What is named as a change, and the outcome when it is applied.
    #[serde(default)]
    changes: BTreeMap<String, String>,
    cache_status: Option<String>,
}

fn url() -> String {
    "http://a.test/x".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn body() -> String {
    "hello".to_owned()
}

impl Case {
    fn config(&self) -> String {
        let policy: String = self.policy.lines().fold(String::new(), |mut lines, line| {
            let _ = writeln!(lines, "    {line}");
            lines
        });
        self.config.clone().unwrap_or_else(|| {
            format!(
                "version: 1\nserver: {{ listeners: [ {{ address: 127.0.0.1:8080 }} ] }}\n\
                 upstreams: {{ origin: {{ peers: [ 127.0.0.1:8101 ] }} }}\ncache:\n  pages:\n    collapse: {{ wait: 5s }}\n{policy}\
                 routes:\n  - name: pages\n    upstream: origin\n    cache: pages\n"
            )
        })
    }

    fn answer(&self) -> Option<Vec<u8>> {
        let (status, fields) = self.response.split_first()?;
        let mut text = format!("HTTP/1.1 {status} Some\n");
        for field in fields {
            let _ = match field.split_once(": @") {
                Some((name, seconds)) => writeln!(text, "{name}: {}", date(seconds.parse().unwrap())),
                None => writeln!(text, "{field}"),
            };
        }
        let has = |name: &str| fields.iter().any(|field| field.to_lowercase().starts_with(name));
        if !self.until_close && !has("content-length") && !has("transfer-encoding") {
            let _ = writeln!(text, "content-length: {}", self.body.len());
        }
        let _ = write!(text, "\n{}", self.body);
        Some(text.into_bytes())
    }

    fn explain(&self, config: &str) -> Result<Explanation, String> {
        let (environment, options) = (FixedEnvironment::default(), Options::default());
        let loaded = config::parse(config, "edge.yaml", Path::new(""), &environment, options);
        let loaded = loaded.map_err(|problems| format!("{problems}\n{config}"))?;
        let (config, metrics) = (&loaded.config, Metrics::new());
        let router = Router::new(&config.routing, |label| metrics.route(label));
        let object_max = config.store.object_max();
        let scene = Scene { config, router: &router, hash: &loaded.hash, object_max, seed: None };
        let ask = Ask { url: self.url.clone(), method: self.method.parse().unwrap(), headers: self.headers.clone() };
        let answer = self.answer().map(|bytes| Answer::parse(&bytes)).transpose().map_err(|error| error.to_string())?;
        let after = Duration::from_secs(self.after);
        offline(scene, &ask, answer.as_ref(), now(), after).map_err(|error| error.to_string())
    }

    fn failures(&self) -> Vec<String> {
        let explanation = match self.explain(&self.config()) {
            Ok(explanation) => explanation,
            Err(error) => return vec![error],
        };
        let mut failures = Vec::new();
        let mut same = |what: &str, found: String, expected: String| {
            if found != expected {
                failures.push(format!("{what}: expected {expected}, found {found}"));
            }
        };
        let (verdict, told) = explanation.deciding();
        same("outcome", explanation.summary(), self.outcome.clone());
        same("cause", verdict.cause.to_owned(), self.cause.clone());
        let place = verdict.place.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        same("place", place, self.place.clone().unwrap_or_else(|| "none".to_owned()));
        if let Some(expected) = &self.cache_status {
            let next = explanation.next.as_ref().and_then(|next| next.cache_status.as_ref());
            let status = next.or(explanation.cache_status.as_ref());
            same("Cache-Status", status.cloned().unwrap_or_default(), format!("eduham-edge; {expected}"));
        }
        let changes = told.map(|told| &told.changes[..]).unwrap_or_default();
        let named: Vec<_> = changes.iter().map(named).collect();
        let mut expected: Vec<_> = self.changes.keys().cloned().collect();
        let mut sorted = named.clone();
        sorted.sort_unstable();
        expected.sort_unstable();
        same("changes", format!("{sorted:?}"), format!("{expected:?}"));
        for (change, named) in changes.iter().zip(&named) {
            let Some(expected) = self.changes.get(named) else { continue };
            let (case, config) = self.with(change);
            match case.explain(&config) {
                Ok(explanation) => same(&format!("after {change}"), explanation.summary(), expected.clone()),
                Err(error) => same(&format!("after {change}"), error, expected.clone()),
            }
            if *expected == self.outcome {
                same(&format!("after {change}"), "the same outcome".to_owned(), "another one".to_owned());
            }
        }
        failures
    }

    /// The case with a change applied as it was named, and its configuration.
    fn with(&self, change: &Change) -> (Self, String) {
        let mut case = self.clone();
        let mut config = self.config();
        let Change { of, key, to, .. } = change;
        match (of, key.as_str()) {
            (Party::Config, path) => {
                let mut yaml = serde_yaml::from_str(&config).unwrap();
                *find(&mut yaml, path) = serde_yaml::from_str(to.as_deref().unwrap_or("null")).unwrap();
                config = serde_yaml::to_string(&yaml).unwrap();
            }
            (Party::Origin, "status") => case.response[0] = to.clone().unwrap(),
            (Party::Origin, name) => set(&mut case.response, name, to.as_deref()),
            (Party::Client, "method") => case.method = to.clone().unwrap(),
            (Party::Client, name) => set(&mut case.headers, name, to.as_deref()),
        }
        (case, config)
    }
}

/// `config cache.pages.keep`, `origin etag`, `client cookie`
fn named(change: &Change) -> String {
    format!("{} {}", <&str>::from(change.of), change.key)
}

fn set(lines: &mut Vec<String>, name: &str, to: Option<&str>) {
    lines.retain(|line| !line.split(':').next().unwrap().eq_ignore_ascii_case(name));
    lines.extend(to.map(|to| format!("{name}: {to}")));
}

/// The value at `routes[0].cache.keep`, made if it is not there.
fn find<'y>(yaml: &'y mut serde_yaml::Value, path: &str) -> &'y mut serde_yaml::Value {
    path.split('.').fold(yaml, |at, part| {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, Some(index.trim_end_matches(']').parse::<usize>().unwrap())),
            None => (part, None),
        };
        if !at.is_mapping() {
            *at = serde_yaml::Value::Mapping(serde_yaml::Mapping::new());
        }
        let value = at.as_mapping_mut().unwrap().entry(name.into()).or_insert(serde_yaml::Value::Null);
        match index {
            Some(index) => &mut value[index],
            None => value,
        }
    })
}

fn now() -> SystemTime {
    httpdate::parse_http_date(NOW).unwrap()
}

fn date(seconds: i64) -> String {
    let by = Duration::from_secs(seconds.unsigned_abs());
    httpdate::fmt_http_date(if seconds < 0 { now() - by } else { now() + by })
}

#[test]
fn explain_names_the_cause_and_its_place_and_what_it_names_flips_the_outcome() {
    let mut files: Vec<_> = fs::read_dir("tests/explain").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut report = String::new();
    let (mut count, mut flipped) = (0, 0);
    for file in files {
        let cases: Vec<Case> = serde_yaml::from_str(&fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for case in cases {
            count += 1;
            flipped += case.changes.len();
            for failure in case.failures() {
                let _ = writeln!(report, "{}: {}: {failure}", file.display(), case.name);
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
    assert!(count >= CASES_MIN, "{count} cases");
    println!("{count} cases, {flipped} changes applied");
}

#[test]
fn without_a_node_there_is_no_hash_of_a_key() {
    let cases: Vec<Case> = serde_yaml::from_str("[ { name: any, outcome: any, cause: any } ]").unwrap();
    let explanation = cases[0].explain(&cases[0].config()).unwrap();
    let key = serde_json::to_value(explanation.key.unwrap()).unwrap();
    assert!(key["text"].as_str().unwrap().starts_with("http://a.test/x#"), "{key}");
    assert!(key.get("hash").is_none(), "each node has a seed of its own: {key}");
}
