//! The cache key: what makes two requests ask for the same thing, before `Vary`.

use std::{borrow::Cow, fmt::Write};

use http::{HeaderMap, header};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{
    pattern::Glob,
    policy::{Policy, QueryRule},
    reason::Reason,
};

/// A cache key: its text, and the seeded hash under which stores keep it. The method is never part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    hash: u128,
    text: Box<str>,
}

impl Key {
    /// Of a target in its normal form: `scheme` and `host` in lower case, `port` only where it is not the scheme's.
    /// The text is `scheme://host:port/path?query#fingerprint`, the query being what the policy keeps of it, by name.
    pub fn new(
        seed: u64,
        scheme: &str,
        host: &str,
        port: Option<u16>,
        path: &str,
        query: Option<&str>,
        policy: &Policy,
    ) -> Self {
        const AROUND: usize = "://:65535?#".len() + 16;
        let length = scheme.len() + host.len() + path.len() + query.map_or(0, str::len) + AROUND;
        let mut text = String::with_capacity(length);
        text.push_str(scheme);
        text.push_str("://");
        push_target(&mut text, host, port, path, forwarded_query(query, policy).as_deref());
        // `#` is in no host, path or query, so the parts cannot run into each other.
        let _ = write!(text, "#{:016x}", policy.key_fingerprint);
        Self { hash: xxh3_128_with_seed(text.as_bytes(), seed), text: text.into() }
    }

    /// The seeded hash of the text. A hit compares the text too.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// [`url_hash`] of what this key keeps of its URL.
    pub fn url_hash(&self, seed: u64) -> u128 {
        let from = self.text.find("://").map_or(0, |at| at + 3);
        let to = self.text.rfind('#').unwrap_or(self.text.len());
        xxh3_128_with_seed(&self.text.as_bytes()[from..to], seed)
    }
}

/// What a purge of a URL and invalidation address: all variants, both schemes, all policies.
///
/// Keys under a policy that drops parameters answer to the URL without them: purging, ask also for the
/// [`forwarded_query`] of the policy that the URL's route has.
pub fn url_hash(seed: u64, host: &str, port: Option<u16>, path: &str, query: Option<&str>) -> u128 {
    let mut text = String::with_capacity(host.len() + path.len() + query.map_or(0, str::len) + ":65535?".len());
    push_target(&mut text, host, port, path, query);
    xxh3_128_with_seed(text.as_bytes(), seed)
}

fn push_target(text: &mut String, host: &str, port: Option<u16>, path: &str, query: Option<&str>) {
    text.push_str(host);
    if let Some(port) = port {
        let _ = write!(text, ":{port}");
    }
    text.push_str(path);
    if let Some(query) = query {
        text.push('?');
        push_sorted(text, query);
    }
}

/// The parameters in the order of their names; equal names keep their order (the sort is stable).
fn push_sorted(text: &mut String, query: &str) {
    let in_order = query.split('&').is_sorted_by(|a, b| parameter_name(a) <= parameter_name(b));
    if in_order {
        text.push_str(query);
        return;
    }
    let mut parameters: Vec<_> = query.split('&').collect();
    parameters.sort_by_key(|parameter| parameter_name(parameter));
    for (at, parameter) in parameters.into_iter().enumerate() {
        if at > 0 {
            text.push('&');
        }
        text.push_str(parameter);
    }
}

/// The query that a fill sends: what the key drops, the fill drops; the order is the client's.
/// `None` where nothing is left of it.
pub fn forwarded_query<'a>(query: Option<&'a str>, policy: &Policy) -> Option<Cow<'a, str>> {
    let query = query?;
    let rule = &policy.query;
    if rule.only.is_none() && rule.ignore.is_empty() {
        return Some(Cow::Borrowed(query));
    }
    let kept = |parameter: &&str| rule.keeps(parameter_name(parameter));
    if query.split('&').all(|parameter| kept(&parameter)) {
        return Some(Cow::Borrowed(query));
    }
    let mut parameters = query.split('&').filter(kept);
    let mut left = parameters.next()?.to_owned();
    for parameter in parameters {
        left.push('&');
        left.push_str(parameter);
    }
    Some(Cow::Owned(left))
}

impl QueryRule {
    /// Is a parameter of this name part of the key?
    pub fn keeps(&self, name: &str) -> bool {
        match &self.only {
            Some(only) => any(only, name),
            None => !any(&self.ignore, name),
        }
    }
}

/// Why the policy wants this request neither looked up nor stored; `None`: it does not.
pub fn bypass(policy: &Policy, fields: &HeaderMap, query: Option<&str>) -> Option<Reason> {
    let rule = &policy.bypass;
    if !rule.headers.is_empty() && fields.keys().any(|name| any(&rule.headers, name.as_str())) {
        return Some(Reason::BypassHeader);
    }
    if !rule.cookies.is_empty() && cookie_names(fields).any(|name| any(&rule.cookies, name)) {
        return Some(Reason::BypassCookie);
    }
    let mut parameters = query.into_iter().flat_map(|query| query.split('&'));
    if !rule.query.is_empty() && parameters.any(|parameter| any(&rule.query, parameter_name(parameter))) {
        return Some(Reason::BypassQuery);
    }
    None
}

/// `a=b; c=d` in all lines (HTTP/2 may split them). A cookie that is no text cannot be named by a rule.
fn cookie_names(fields: &HeaderMap) -> impl Iterator<Item = &str> {
    fields
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b';'))
        .filter_map(|pair| pair.split(|&b| b == b'=').next())
        .filter_map(|name| std::str::from_utf8(name.trim_ascii()).ok())
        .filter(|name| !name.is_empty())
}

fn any(globs: &[Glob], name: &str) -> bool {
    globs.iter().any(|glob| glob.matches(name))
}

fn parameter_name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}
