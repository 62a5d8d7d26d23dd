//! Runs the law's scenario rows: `tests/scenarios/law/*.yaml`, pure, with time as an argument.
//!
//! A row is one response, stored or refused, and what later requests get of it. Fields are written `Name: value`; a
//! value `@N` is the HTTP date N seconds from the receipt of the response. Times are seconds after that receipt.

use std::{
    fmt::Debug,
    fs,
    ops::Range,
    path::Path,
    time::{Duration, SystemTime},
};

use eduham_edge::cache::{
    self, Carries, ClientDirectives, Glob, HeadOutcome, IgnoreOrigin, Key, Meta, Policy, Precondition, QueryRule,
    RequestDirectives, RequestView, ResponseView, Reuse, Selection, SetCookie, StatusTtl, Target, Times, TtlRule,
    VariantKey,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};

use super::{plain_policy, receipt};

#[test]
fn the_law_holds_row_by_row() {
    run("responses", Row::failures);
}

#[test]
fn keys_are_what_the_policy_makes_of_targets() {
    run("keys", KeyRow::failures);
}

#[test]
fn unsafe_methods_invalidate_what_they_change() {
    run("invalidation", InvalidationRow::failures);
}

/// Runs all rows of a folder, and names every row that fails with all that is wrong about it.
pub(super) fn run<R: DeserializeOwned + Named>(folder: &str, failures: impl Fn(&R) -> Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/law").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut rows, mut failed) = (0, Vec::new());
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let parsed: Vec<R> = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for row in parsed {
            rows += 1;
            let wrong = failures(&row);
            if !wrong.is_empty() {
                failed.push(format!("{name}: {} ({})\n    {}", row.name(), row.rfc(), wrong.join("\n    ")));
            }
        }
    }
    assert!(rows > 0, "no rows in {}", folder.display());
    assert!(failed.is_empty(), "{} of {rows} rows failed:\n{}", failed.len(), failed.join("\n"));
}

pub(super) trait Named {
    fn name(&self) -> &str;
    fn rfc(&self) -> &str;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// The section that says so, or `ours` for a rule of our own.
    rfc: String,
    #[serde(default)]
    policy: PolicyText,
    #[serde(default)]
    request: Request,
    #[serde(default)]
    response: Response,
    /// `yes` or the reason why not.
    #[serde(default = "yes")]
    stored: String,
    /// Seconds and source: `3600 max-age`.
    lifetime: Option<String>,
    retention: Option<u64>,
    /// Fields that the stored head has, with these values.
    #[serde(default)]
    has: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
    keys: Option<Vec<String>>,
    #[serde(default)]
    then: Vec<Step>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Request {
    method: Option<String>,
    fields: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Response {
    status: Option<u16>,
    fields: Vec<String>,
    length: Option<u64>,
    /// Seconds between request and head.
    delay: u64,
}

/// One later request and what the law says of it; only what is written is checked.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Step {
    after: f64,
    request: Request,
    soft_purged: Option<f64>,
    /// Another policy than the row's: the operator reloaded.
    policy: Option<PolicyText>,
    variant: Option<bool>,
    /// `fresh`, `stale-while-revalidate`, `stale-allowed`, `validate REASON`, `unusable REASON`.
    reuse: Option<String>,
    answers_error: Option<bool>,
    only_if_cached: Option<bool>,
    age: Option<u64>,
    ttl: Option<i64>,
    /// The preconditions that a validation carries.
    sends: Option<Vec<String>>,
    /// `proceed`, `not-modified`, `failed`.
    precondition: Option<String>,
    /// The names of the fields that a 304 from the store carries, sorted.
    fields_of_304: Option<Vec<String>>,
    /// Of a body of ten bytes: `whole`, `unsatisfiable`, or `0-4 7-9`.
    range: Option<String>,
    /// Of a body of this many bytes instead.
    length: Option<u64>,
    not_modified: Option<Response>,
    /// A 200 to HEAD (or another status) for a stored body of ten bytes.
    head: Option<Response>,
    /// What came of either: `yes`, `unchanged`, or the reason. A freshened head serves the steps after it.
    freshened: Option<String>,
    has: Vec<String>,
    lacks: Vec<String>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, default)]
struct PolicyText {
    default_ttl: Option<u64>,
    force_ttl: Option<u64>,
    /// `404 10` or `5xx 0`.
    status_ttl: Vec<String>,
    stale_while_revalidate: u64,
    stale_if_error: u64,
    keep: u64,
    object_max: Option<u64>,
    ignore_client: bool,
    store_cookies: bool,
    ignore: Vec<String>,
    only: Option<Vec<String>>,
    bypass_cookies: Vec<String>,
    bypass_headers: Vec<String>,
    bypass_query: Vec<String>,
    key_fingerprint: u64,
    forwards_all: bool,
    key_headers: Vec<String>,
    key_cookies: Vec<String>,
    /// `TYPE STATUS SECONDS`, each of the first two `*` for any.
    ttl: Vec<String>,
    /// In percent.
    ttl_jitter: f64,
    ignore_origin: Vec<String>,
    strip_cookies: Option<Vec<String>>,
}

fn ttl_rule(text: &str) -> TtlRule {
    let [media_type, status, seconds] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text:?}") };
    TtlRule {
        paths: Vec::new(),
        content_types: if media_type == "*" { Vec::new() } else { vec![Glob::new(media_type)] },
        status_codes: status.parse().into_iter().collect(),
        status_classes: status.strip_suffix("xx").map(|digit| digit.parse().unwrap()).into_iter().collect(),
        force_ttl: Duration::from_secs(seconds.parse().unwrap()),
    }
}

fn yes() -> String {
    "yes".to_owned()
}

pub(super) fn fields(lines: &[String]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
        let value = match value.trim().strip_prefix('@').map(|seconds| seconds.parse::<i64>().unwrap()) {
            Some(seconds) => httpdate::fmt_http_date(shifted(receipt(), seconds)),
            None => value.trim().to_owned(),
        };
        fields.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    fields
}

fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { time - by } else { time + by }
}

fn method(text: &Option<String>, default: Method) -> Method {
    text.as_ref().map_or(default, |text| text.parse().unwrap())
}

impl Response {
    fn status(&self, default: u16) -> StatusCode {
        StatusCode::from_u16(self.status.unwrap_or(default)).unwrap()
    }

    /// The times of a response whose head comes `at` seconds after the row's receipt.
    fn times(&self, at: f64) -> Times {
        let response_time = receipt() + Duration::from_secs_f64(at);
        Times { request_time: response_time - Duration::from_secs(self.delay), response_time }
    }
}

impl PolicyText {
    fn policy(&self) -> Policy {
        let globs = |names: &[String]| names.iter().map(|name| Glob::new(name)).collect::<Vec<_>>();
        let seconds = Duration::from_secs;
        let mut status_ttl = StatusTtl::default();
        for line in &self.status_ttl {
            let (status, ttl) = line.split_once(' ').unwrap();
            let ttl = seconds(ttl.parse().unwrap());
            match status.strip_suffix("xx") {
                Some(class) => status_ttl.classes.push((class.parse().unwrap(), ttl)),
                None => status_ttl.codes.push((status.parse().unwrap(), ttl)),
            }
        }
        Policy {
            default_ttl: self.default_ttl.map(seconds),
            force_ttl: self.force_ttl.map(seconds),
            status_ttl,
            stale_while_revalidate: seconds(self.stale_while_revalidate),
            stale_if_error: seconds(self.stale_if_error),
            keep: seconds(self.keep),
            query: QueryRule {
                ignore: globs(&self.ignore),
                only: self.only.as_deref().map(globs),
                forwards_all: self.forwards_all,
            },
            bypass: Carries {
                cookies: globs(&self.bypass_cookies),
                headers: globs(&self.bypass_headers),
                query: globs(&self.bypass_query),
            },
            object_max: self.object_max,
            client_directives: if self.ignore_client { ClientDirectives::Ignore } else { ClientDirectives::Honour },
            set_cookie: match &self.strip_cookies {
                Some(names) => SetCookie::Strip(globs(names)),
                None if self.store_cookies => SetCookie::Store,
                None => SetCookie::Refuse,
            },
            key_headers: self.key_headers.iter().map(|name| name.parse().unwrap()).collect(),
            key_cookies: globs(&self.key_cookies),
            ttl: self.ttl.iter().map(|rule| ttl_rule(rule)).collect(),
            ttl_jitter: self.ttl_jitter / 100.0,
            ignore_origin: {
                let names = |name: &str| self.ignore_origin.iter().any(|other| other == name);
                IgnoreOrigin {
                    cache_control: names("cache-control"),
                    expires: names("expires"),
                    no_cache: names("no-cache"),
                    no_store: names("no-store"),
                    private: names("private"),
                    must_revalidate: names("must-revalidate"),
                    vary: names("vary"),
                }
            },
            key_fingerprint: self.key_fingerprint,
            ..plain_policy()
        }
    }
}

/// Collects what differs from the row.
#[derive(Default)]
struct Check(Vec<String>);

impl Check {
    fn same<T: PartialEq + Debug>(&mut self, what: &str, found: T, expected: Option<T>) {
        if let Some(expected) = expected
            && found != expected
        {
            self.0.push(format!("{what}: expected {expected:?}, found {found:?}"));
        }
    }

    fn head(&mut self, meta: &Meta, has: &[String], lacks: &[String]) {
        for (name, value) in &fields(has) {
            let found: Vec<_> = meta.fields.get_all(name).iter().collect();
            if !found.contains(&value) {
                self.0.push(format!("field {name}: expected {value:?}, found {found:?}"));
            }
        }
        for name in lacks {
            if let Some(value) = meta.fields.get(name.as_str()) {
                self.0.push(format!("field {name}: expected none, found {value:?}"));
            }
        }
    }
}

impl Row {
    fn failures(&self) -> Vec<String> {
        let mut check = Check::default();
        let policy = self.policy.policy();
        let request_fields = fields(&self.request.fields);
        let method = method(&self.request.method, Method::GET);
        let request = RequestView { method: &method, fields: &request_fields };
        let response_fields = fields(&self.response.fields);
        let response = ResponseView {
            status: self.response.status(200),
            fields: &response_fields,
            complete_length: self.response.length,
        };
        let mut meta = match cache::store(&request, &response, self.response.times(0.0), &policy) {
            Ok(meta) => meta,
            Err(reason) => {
                check.same("stored", reason.as_str(), Some(&self.stored));
                return check.0;
            }
        };
        check.same("stored", "yes", Some(&self.stored));
        let lifetime = format!("{} {}", meta.lifetime().duration.as_secs(), meta.lifetime().source);
        check.same("lifetime", lifetime, self.lifetime.clone());
        check.same("retention", meta.retention(&policy).as_secs(), self.retention);
        let keys: Vec<_> = meta.surrogate_keys().iter().map(|key| key.as_str().to_owned()).collect();
        check.same("keys", keys, self.keys.clone());
        check.head(&meta, &self.has, &self.lacks);
        let mut variant = VariantKey::of(meta.vary(), &request_fields);
        for step in &self.then {
            let before = check.0.len();
            step.run(&policy, &mut meta, &mut variant, &mut check);
            for line in &mut check.0[before..] {
                *line = format!("after {} s: {line}", step.after);
            }
        }
        check.0
    }
}

impl Step {
    fn run(&self, policy: &Policy, meta: &mut Meta, variant: &mut VariantKey, check: &mut Check) {
        let reloaded = self.policy.as_ref().map(PolicyText::policy);
        let policy = reloaded.as_ref().unwrap_or(policy);
        let now = receipt() + Duration::from_secs_f64(self.after);
        let purged = self.soft_purged.map(|at| receipt() + Duration::from_secs_f64(at));
        let request_fields = fields(&self.request.fields);
        let default = if self.head.is_some() { Method::HEAD } else { Method::GET };
        let method = method(&self.request.method, default);
        let request = RequestView { method: &method, fields: &request_fields };
        let directives = RequestDirectives::parse(&request_fields);

        let same_variant = variant.matches(meta.vary(), &request_fields);
        check.same("variant", same_variant, self.variant);
        let built = VariantKey::of(meta.vary(), &request_fields) == *variant;
        check.same("variant, built", built, Some(same_variant));

        let reuse = match cache::reuse(meta, &request, &directives, policy, now, purged) {
            Reuse::Fresh => "fresh".to_owned(),
            Reuse::StaleWhileRevalidate => "stale-while-revalidate".to_owned(),
            Reuse::StaleAllowed => "stale-allowed".to_owned(),
            Reuse::Validate(reason) => format!("validate {reason}"),
            Reuse::Unusable(reason) => format!("unusable {reason}"),
        };
        check.same("reuse", reuse, self.reuse.clone());
        let answers = cache::may_answer_error(meta, &directives, policy, now, purged);
        check.same("answers_error", answers, self.answers_error);
        check.same("only_if_cached", cache::only_if_cached(&directives, policy), self.only_if_cached);
        check.same("age", meta.age(now).as_secs(), self.age);
        check.same("ttl", meta.ttl(now), self.ttl);
        let sends = cache::conditional_fields(meta)
            .into_iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect::<Vec<_>>();
        check.same("sends", sends, self.sends.clone());
        let precondition = match cache::evaluate(&request, meta) {
            Precondition::Proceed => "proceed",
            Precondition::NotModified => "not-modified",
            Precondition::Failed => "failed",
        };
        check.same("precondition", precondition, self.precondition.as_deref());
        let mut names: Vec<_> = cache::not_modified_fields(meta).keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        check.same("fields_of_304", names, self.fields_of_304.clone());
        let range = match cache::select(&request, meta, self.length.unwrap_or(10)) {
            Selection::Whole => "whole".to_owned(),
            Selection::Unsatisfiable => "unsatisfiable".to_owned(),
            Selection::Single(range) => written(&range),
            Selection::Many(ranges) => ranges.iter().map(written).collect::<Vec<_>>().join(" "),
        };
        check.same("range", range, self.range.clone());

        if let Some(response) = &self.not_modified {
            let newer = fields(&response.fields);
            let view = ResponseView { status: response.status(304), fields: &newer, complete_length: None };
            match cache::freshen(meta, &request, &view, response.times(self.after), policy) {
                Ok(freshened) => {
                    check.same("freshened", "yes", Some(self.freshened.as_deref().unwrap_or("yes")));
                    *variant = VariantKey::of(freshened.vary(), &request_fields);
                    *meta = freshened;
                }
                Err(reason) => {
                    check.same("freshened", reason.as_str(), Some(self.freshened.as_deref().unwrap_or("yes")));
                }
            }
        }
        if let Some(response) = &self.head {
            let newer = fields(&response.fields);
            let view = ResponseView { status: response.status(200), fields: &newer, complete_length: response.length };
            let times = response.times(self.after);
            let outcome = cache::freshen_by_head(meta, 10, &request, &view, times, policy);
            let found = match outcome {
                HeadOutcome::Unchanged => "unchanged",
                HeadOutcome::Outdated(reason) => reason.as_str(),
                HeadOutcome::Freshened(freshened) => {
                    *meta = *freshened;
                    "yes"
                }
            };
            check.same("freshened", found, Some(self.freshened.as_deref().unwrap_or("yes")));
        }
        check.head(meta, &self.has, &self.lacks);
    }
}

fn written(range: &Range<u64>) -> String {
    format!("{}-{}", range.start, range.end - 1)
}

/// A target under a policy: its key, what a fill asks for, whether the policy bypasses it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRow {
    name: String,
    rfc: String,
    #[serde(default)]
    policy: PolicyText,
    /// `scheme://host[:port]/path[?query]`.
    target: String,
    #[serde(default)]
    fields: Vec<String>,
    /// Without the fingerprint.
    key: Option<String>,
    /// The query of the fill; `none` where there is none.
    forwarded: Option<String>,
    bypass: Option<String>,
    /// Other targets with the same key, and such with another.
    #[serde(default)]
    same_as: Vec<String>,
    #[serde(default)]
    other_than: Vec<String>,
    /// URLs whose purge reaches this key, and such whose purge does not.
    #[serde(default)]
    purged_by: Vec<String>,
    #[serde(default)]
    not_purged_by: Vec<String>,
}

impl KeyRow {
    const SEED: u64 = 7;

    fn failures(&self) -> Vec<String> {
        let mut check = Check::default();
        let policy = self.policy.policy();
        let key_of = |target: &str| {
            let t = target_of(target);
            Key::new(
                Self::SEED,
                &t.scheme,
                &t.host,
                t.port,
                &t.path,
                t.query.as_deref(),
                &fields(&self.fields),
                &policy,
            )
        };
        let key = key_of(&self.target);
        let text = key.text().rsplit_once('#').unwrap().0.to_owned();
        check.same("key", text, self.key.clone());
        let query = target_of(&self.target).query;
        let forwarded = cache::forwarded_query(query.as_deref(), &policy);
        check.same("forwarded", forwarded.as_deref().unwrap_or("none"), self.forwarded.as_deref());
        let bypass = cache::bypass(&policy, &fields(&self.fields), query.as_deref());
        check.same("bypass", bypass.map_or("none", cache::Reason::as_str), self.bypass.as_deref());
        for (others, same) in [(&self.same_as, true), (&self.other_than, false)] {
            for other in others {
                check.same(&format!("same key as {other}"), key_of(other) == key, Some(same));
            }
        }
        for (others, reaches) in [(&self.purged_by, true), (&self.not_purged_by, false)] {
            for other in others {
                let t = target_of(other);
                let hash = cache::url_hash(Self::SEED, &t.host, t.port, &t.path, t.query.as_deref());
                check.same(&format!("purged by {other}"), hash == key.url_hash(Self::SEED), Some(reaches));
            }
        }
        check.0
    }
}

fn target_of(url: &str) -> Target {
    let base = Target { scheme: "http".into(), host: "base.test".into(), port: None, path: "/".into(), query: None };
    base.resolve(url).unwrap_or_else(|| panic!("{url} is no target"))
}

/// An unsafe request, its answer, and the URLs that are invalid after it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvalidationRow {
    name: String,
    rfc: String,
    method: String,
    target: String,
    status: u16,
    #[serde(default)]
    fields: Vec<String>,
    invalid: Vec<String>,
}

impl InvalidationRow {
    fn failures(&self) -> Vec<String> {
        let mut check = Check::default();
        let found = cache::invalidated(
            &self.method.parse().unwrap(),
            StatusCode::from_u16(self.status).unwrap(),
            &target_of(&self.target),
            &fields(&self.fields),
        );
        let expected = self.invalid.iter().map(|url| target_of(url)).collect::<Vec<_>>();
        check.same("invalid", found, Some(expected));
        check.0
    }
}

macro_rules! named {
    ($($row:ty),*) => {$(
        impl Named for $row {
            fn name(&self) -> &str {
                &self.name
            }
            fn rfc(&self) -> &str {
                &self.rfc
            }
        }
    )*};
}

named!(Row, KeyRow, InvalidationRow);
