//! `cache.NAME`: policies, what they extend, and what routes put over them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Resolver, names};
use crate::{
    cache::{Bypass, ClientDirectives, Collapse, CollapseExpired, Glob, Policy, QueryRule, SetCookie, StatusTtl},
    config::{
        checked::{Checked, Fields, Value},
        values,
    },
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
    Policy {
        name: name.to_owned(),
        default_ttl: fields.get("default_ttl").duration(),
        force_ttl: fields.get("force_ttl").duration(),
        status_ttl: status_ttl(fields.get("status_ttl")),
        stale_while_revalidate: fields.duration("stale_while_revalidate"),
        stale_if_error: fields.duration("stale_if_error"),
        keep: fields.duration("keep"),
        key_fingerprint: key_fingerprint(&query),
        query,
        bypass: fields.fields("bypass").map(bypass).unwrap_or_default(),
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
        set_cookie: fields.choose("set_cookie", &[("refuse", SetCookie::Refuse), ("store", SetCookie::Store)]),
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
    QueryRule { ignore, only }
}

fn bypass(fields: &Fields) -> Bypass {
    Bypass {
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
fn key_fingerprint(query: &QueryRule) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut feed = |tag: &str, globs: &[Glob]| {
        let mut names: Vec<_> = globs.iter().map(Glob::as_str).collect();
        names.sort_unstable();
        names.dedup();
        hasher.update(tag.as_bytes());
        hasher.update(&names.len().to_le_bytes());
        for name in names {
            hasher.update(&name.len().to_le_bytes());
            hasher.update(name.as_bytes());
        }
    };
    feed("query.ignore", &query.ignore);
    if let Some(only) = &query.only {
        feed("query.only", only);
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
        };
        let of = |ignore: &[&str], only| key_fingerprint(&rule(ignore, only));
        assert_eq!(of(&["a", "b"], None), of(&["b", "a", "a"], None));
        assert_ne!(of(&["a", "b"], None), of(&["ab"], None));
        assert_ne!(of(&[], None), of(&[], Some(&[])));
        assert_ne!(of(&["a"], None), of(&[], Some(&["a"])));
    }
}
