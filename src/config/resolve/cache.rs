//! `cache.NAME`: policies, what they extend, and what routes put over them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::HeaderName;
use strum::IntoEnumIterator;

use super::{Resolver, names};
use crate::{
    cache::{
        self, Carries, ClientDirectives, Coding, Collapse, CollapseExpired, Compress, Glob, IgnoreOrigin, PathRule,
        Policy, QueryRule, SetCookie, StatusTtl, TtlRule,
    },
    config::{
        checked::{Checked, Fields, Value},
        values,
    },
    proxy::routing::{PathPattern, Segment},
    upstream::StatusPattern,
};

/// The smallest slice: below it the requests cost more than the bytes.
const SLICE_MIN: u64 = 64 * 1024;

/// The policies by name: their keys, with what they extend filled in, and what they resolve to.
pub(super) struct Policies {
    policies: BTreeMap<String, (Fields, Arc<Policy>)>,
}

impl Policies {
    pub(super) fn new(value: &Checked, resolver: &mut Resolver<'_>) -> Self {
        let mut policies = BTreeMap::new();
        for (name, own) in value.map() {
            let Some(own) = own.fields() else { continue };
            let fields = extended(name, own, value, resolver);
            resolver.places.policy(&own.at.path, &fields);
            let policy = Arc::new(policy(name, &fields, resolver));
            policies.insert(name.clone(), (fields, policy));
        }
        Self { policies }
    }

    /// In the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<Policy>> {
        self.policies.values().map(|(_, policy)| policy.clone()).collect()
    }

    /// A route's `cache`: a name, or a name and keys of its own. `None`: nothing is stored.
    pub(super) fn of_route(&self, value: &Checked, resolver: &mut Resolver<'_>) -> Option<Arc<Policy>> {
        let (name, own) = match &value.value {
            Value::Text(_) => (value, None),
            Value::Struct(fields) => (fields.get("use"), Some(fields)),
            _ => return None,
        };
        let text = name.text()?;
        let Some((base, policy)) = self.policies.get(text) else {
            let defined = self.policies.keys().map(String::as_str);
            resolver.unknown_name(&name.at, text, "the name of a policy", defined);
            return None;
        };
        let Some(own) = own else { return Some(policy.clone()) };
        if own.wrote("extends") {
            let at = &own.get("extends").at;
            resolver.problem(at, "found extends beside use, expected the key left out: use names the policy", None);
        }
        let fields = own.over(base);
        resolver.places.policy(&value.at.path, &fields);
        Some(Arc::new(self::policy(text, &fields, resolver)))
    }
}

/// The keys of a policy over those that it extends.
fn extended(name: &str, own: &Fields, all: &Checked, resolver: &mut Resolver<'_>) -> Fields {
    let mut fields = own.clone();
    let mut chain = vec![name];
    let mut current = own;
    while let Some(base) = current.text("extends") {
        let at = &current.get("extends").at;
        if chain.contains(&base) {
            // Told once, by the policy that comes first by name on the circle.
            let start = chain.iter().position(|link| *link == base).unwrap_or_default();
            if start == 0 && chain.iter().min() == Some(&name) {
                let circle = chain.iter().chain([&base]).copied().collect::<Vec<_>>().join(" -> ");
                resolver.problem(at, format!("found a circle, expected an end: {circle}"), None);
            }
            break;
        }
        let Some((_, under)) = all.map().iter().find(|(defined, _)| defined == base) else {
            if chain.len() == 1 {
                resolver.unknown_name(at, base, "the name of a policy", names(all));
            }
            break;
        };
        let Some(under) = under.fields() else { break };
        fields = fields.over(under);
        chain.push(base);
        current = under;
    }
    fields
}

fn policy(name: &str, fields: &Fields, resolver: &mut Resolver<'_>) -> Policy {
    let query = fields
        .fields("key")
        .and_then(|key| key.fields("query"))
        .map(|query| query_rule(query, resolver))
        .unwrap_or_default();
    let collapse = fields.fields("collapse");
    let slice = fields.get("slice");
    if slice.size().is_some_and(|size| size < SLICE_MIN) {
        resolver.problem(&slice.at, "found a slice below 64KiB, expected at least that: each costs a request", None);
    }
    let key = fields.fields("key");
    let key_headers: Vec<_> = key
        .iter()
        .flat_map(|key| key.get("headers").texts())
        .filter_map(|name| values::header_name(name).ok())
        .collect();
    let key_cookies = key.map(|key| globs(key.get("cookies"))).unwrap_or_default();
    let set_cookie = match fields.get("set_cookie").word() {
        Some("store") => SetCookie::Store,
        Some("strip") => SetCookie::Strip(globs(fields.get("strip_set_cookie"))),
        _ => SetCookie::Refuse,
    };
    let stripped = fields.get("strip_set_cookie");
    if set_cookie == SetCookie::Strip(Vec::new()) {
        let message = "found strip without strip_set_cookie, expected the names of cookies there";
        resolver.problem(&fields.get("set_cookie").at, message, None);
    } else if stripped.written && !stripped.items().is_empty() && !matches!(set_cookie, SetCookie::Strip(_)) {
        let message = "found names of cookies, expected set_cookie: strip beside them";
        resolver.problem(&stripped.at, message, None);
    }
    let ignored = fields.get("ignore_origin");
    if ignored.written {
        for item in ignored.items() {
            let word = item.word().unwrap_or_default();
            resolver.report.warn(&item.at, format!("what the origin says by {word} is not listened to"), None);
        }
    }
    Policy {
        name: name.to_owned(),
        default_ttl: fields.get("default_ttl").duration(),
        force_ttl: fields.get("force_ttl").duration(),
        status_ttl: status_ttl(fields.get("status_ttl")),
        ttl: fields.get("ttl").items().iter().filter_map(Checked::fields).map(ttl_rule).collect(),
        browser_ttl: fields.get("browser_ttl").duration(),
        ttl_jitter: fields.get("ttl_jitter").share().unwrap_or_default() / 100.0,
        stale_while_revalidate: fields.duration("stale_while_revalidate"),
        stale_if_error: fields.duration("stale_if_error"),
        keep: fields.duration("keep"),
        key_fingerprint: key_fingerprint(&query, &key_headers, &key_cookies),
        query,
        key_headers,
        key_cookies,
        bypass: fields.fields("bypass").map(carries).unwrap_or_default(),
        refresh: fields.fields("refresh").map(carries).unwrap_or_default(),
        forward_cookies: match &fields.get("forward_cookies").value {
            Value::List(_) => Some(globs(fields.get("forward_cookies"))),
            _ => None,
        },
        languages: fields.get("languages").texts().map(Box::from).collect(),
        compress: fields.fields("compress").map(|compress| self::compress(compress, resolver)),
        collapse: Collapse {
            wait: collapse.map_or(Duration::ZERO, |collapse| collapse.duration("wait")),
            expired: collapse.map_or(CollapseExpired::Fetch, |collapse| {
                collapse.choose("expired", &[("fetch", CollapseExpired::Fetch), ("error", CollapseExpired::Error)])
            }),
            uncacheable_for: collapse.map_or(Duration::ZERO, |collapse| collapse.duration("uncacheable_for")),
        },
        object_max: fields.get("object_max").size(),
        client_directives: fields
            .choose("client_directives", &[("honour", ClientDirectives::Honour), ("ignore", ClientDirectives::Ignore)]),
        ignore_origin: ignore_origin(ignored),
        set_cookie,
        min_uses: u32::try_from(fields.int("min_uses")).unwrap_or(u32::MAX),
        slice: slice.size().filter(|size| *size >= SLICE_MIN),
        variants_max: usize::try_from(fields.int("variants_max")).unwrap_or(usize::MAX),
    }
}

fn globs(value: &Checked) -> Vec<Glob> {
    value.texts().map(Glob::new).collect()
}

fn query_rule(fields: &Fields, resolver: &mut Resolver<'_>) -> QueryRule {
    let ignore = globs(fields.get("ignore"));
    let only = match &fields.get("only").value {
        Value::List(_) => Some(globs(fields.get("only"))),
        _ => None,
    };
    if only.is_some() && !ignore.is_empty() {
        let at = &fields.get(if fields.wrote("only") { "only" } else { "ignore" }).at;
        resolver.problem(
            at,
            "found only together with ignore, expected one of them",
            Some("a key of an extended policy is taken back by `ignore: []` or `only: none`".to_owned()),
        );
    }
    QueryRule { ignore, only, forwards_all: fields.get("forward").word() == Some("all") }
}

fn compress(fields: &Fields, resolver: &mut Resolver<'_>) -> Compress {
    let written = fields.get("prefer");
    let mut prefer = Vec::new();
    for item in written.items() {
        let Some(coding) = Coding::iter().find(|coding| Some(coding.name()) == item.word()) else { continue };
        if prefer.contains(&coding) {
            let message = format!("found {} twice, expected each coding once", coding.name());
            resolver.problem(&item.at, message, None);
        } else {
            prefer.push(coding);
        }
    }
    if !written.is_bad() && written.items().is_empty() {
        let message = "found no coding, expected at least one; compress: none compresses nothing";
        resolver.problem(&written.at, message, None);
    }
    let types = fields.get("types");
    for item in types.items() {
        let name = item.text().unwrap_or_default().to_ascii_lowercase();
        if !name.contains('*') && cache::is_never_coded(&name) {
            let message = format!(
                "found {name}, expected a type that compression makes smaller and that is not read while it comes"
            );
            resolver.problem(&item.at, message, None);
        }
    }
    let types = types.texts().map(|glob| Glob::new(&glob.to_ascii_lowercase())).collect();
    Compress { prefer, types, min_size: fields.size("min_size") }
}

fn ttl_rule(fields: &Fields) -> TtlRule {
    let mut rule = TtlRule {
        paths: Vec::new(),
        content_types: Vec::new(),
        status_codes: Vec::new(),
        status_classes: Vec::new(),
        force_ttl: fields.duration("force_ttl"),
    };
    let Some(matches) = fields.fields("match") else { return rule };
    let patterns = matches.get("path").texts().filter_map(|text| values::path_pattern(text).ok());
    rule.paths = patterns.map(|pattern| path_rule(&pattern)).collect();
    rule.content_types =
        matches.get("content_type").texts().map(|glob| Glob::new(&glob.to_ascii_lowercase())).collect();
    for status in matches.get("status").texts().filter_map(|text| values::status_pattern(text).ok()) {
        match status {
            StatusPattern::Code(code) => rule.status_codes.push(code),
            StatusPattern::Class(digit) => rule.status_classes.push(digit),
        }
    }
    rule
}

fn path_rule(pattern: &PathPattern) -> PathRule {
    let and_below = matches!(pattern.segments.last(), Some(Segment::Rest(_)));
    let segments = pattern.segments.iter().filter_map(|segment| match segment {
        Segment::Literal(text) => Some(Some(Box::from(text.as_str()))),
        Segment::Parameter(_) => Some(None),
        Segment::Rest(_) => None,
    });
    PathRule::new(segments.collect(), and_below)
}

fn ignore_origin(value: &Checked) -> IgnoreOrigin {
    let names = |name: &str| value.items().iter().any(|item| item.word() == Some(name));
    IgnoreOrigin {
        cache_control: names("cache-control"),
        expires: names("expires"),
        no_cache: names("no-cache"),
        no_store: names("no-store"),
        private: names("private"),
        must_revalidate: names("must-revalidate"),
        vary: names("vary"),
    }
}

fn carries(fields: &Fields) -> Carries {
    Carries {
        cookies: globs(fields.get("cookies")),
        headers: fields.get("headers").texts().map(|name| Glob::new(&name.to_ascii_lowercase())).collect(),
        query: globs(fields.get("query")),
    }
}

fn status_ttl(value: &Checked) -> StatusTtl {
    let mut ttl = StatusTtl::default();
    for (status, lifetime) in value.map() {
        let lifetime = lifetime.duration().unwrap_or_default();
        match values::status_pattern(status) {
            Ok(StatusPattern::Code(code)) => ttl.codes.push((code, lifetime)),
            Ok(StatusPattern::Class(digit)) => ttl.classes.push((digit, lifetime)),
            Err(_) => {}
        }
    }
    ttl.codes.sort_unstable();
    ttl.classes.sort_unstable();
    ttl
}

/// A hash of all that shapes the key. The order in which names are written makes no difference.
fn key_fingerprint(query: &QueryRule, headers: &[HeaderName], cookies: &[Glob]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut feed = |tag: &str, mut names: Vec<&str>| {
        names.sort_unstable();
        names.dedup();
        hasher.update(tag.as_bytes());
        hasher.update(&names.len().to_le_bytes());
        for name in names {
            hasher.update(&name.len().to_le_bytes());
            hasher.update(name.as_bytes());
        }
    };
    feed("query.ignore", query.ignore.iter().map(Glob::as_str).collect());
    if let Some(only) = &query.only {
        feed("query.only", only.iter().map(Glob::as_str).collect());
    }
    if !headers.is_empty() {
        feed("headers", headers.iter().map(HeaderName::as_str).collect());
    }
    if !cookies.is_empty() {
        feed("cookies", cookies.iter().map(Glob::as_str).collect());
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_depends_on_what_shapes_the_key_alone() {
        let rule = |ignore: &[&str], only: Option<&[&str]>| QueryRule {
            ignore: ignore.iter().map(|name| Glob::new(name)).collect(),
            only: only.map(|names| names.iter().map(|name| Glob::new(name)).collect()),
            forwards_all: false,
        };
        let of = |ignore: &[&str], only| key_fingerprint(&rule(ignore, only), &[], &[]);
        assert_eq!(of(&["a", "b"], None), of(&["b", "a", "a"], None));
        assert_ne!(of(&["a", "b"], None), of(&["ab"], None));
        assert_ne!(of(&[], None), of(&[], Some(&[])));
        assert_ne!(of(&["a"], None), of(&[], Some(&["a"])));
    }
}
