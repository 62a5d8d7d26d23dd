//! The cache key: what makes two requests ask for the same thing, before `Vary`.

use std::{borrow::Cow, fmt::Write};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{
    pattern::Glob,
    policy::{Carries, Policy, QueryRule},
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
    /// The text is `scheme://host:port/path?query#fingerprint`, the query being what the policy keeps of it, by name; then
    /// the fields and cookies that the policy names, each on a line of its own.
    #[expect(clippy::too_many_arguments, reason = "a key is made of just these")]
    pub fn new(
        seed: u64,
        scheme: &str,
        host: &str,
        port: Option<u16>,
        path: &str,
        query: Option<&str>,
        fields: &HeaderMap,
        policy: &Policy,
    ) -> Self {
        const AROUND: usize = "://?#".len() + 16;
        let query = keyed_query(query, policy);
        let query = query.as_deref();
        let port_length = port.map_or(0, |port| 2 + port.checked_ilog10().unwrap_or_default() as usize);
        let length = scheme.len() + host.len() + port_length + path.len() + query.map_or(0, str::len) + AROUND;
        // Most keys are just so long, or by the `?` shorter: then nothing is moved.
        let mut text = String::with_capacity(length - usize::from(query.is_none()));
        text.push_str(scheme);
        text.push_str("://");
        push_target(&mut text, host, port, path, query);
        // `#` is in no host, path or query, so the parts cannot run into each other.
        text.push('#');
        push_hexadecimal(&mut text, policy.key_fingerprint);
        push_fields(&mut text, fields, policy);
        Self { hash: xxh3_128_with_seed(text.as_bytes(), seed), text: text.into() }
    }

    /// The key with this text, as a tier kept it.
    pub fn restored(seed: u64, text: &str) -> Self {
        Self { hash: xxh3_128_with_seed(text.as_bytes(), seed), text: text.into() }
    }

    /// The seeded hash of the text. A hit compares the text too.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// `scheme://host:port`, the port only where it is not the scheme's.
    pub fn origin(&self) -> &str {
        let host = self.text.find("://").map_or(0, |at| at + 3);
        let end = self.text[host..].find(['/', '#']).map_or(self.text.len(), |at| host + at);
        &self.text[..end]
    }

    /// [`url_hash`] of what this key keeps of its URL.
    pub fn url_hash(&self, seed: u64) -> u128 {
        let from = self.text.find("://").map_or(0, |at| at + 3);
        let to = self.text.find('#').unwrap_or(self.text.len());
        xxh3_128_with_seed(&self.text.as_bytes()[from..to], seed)
    }
}

/// What a purge of a URL and invalidation address: all variants, both schemes, all policies.
///
/// Keys under a policy that drops parameters answer to the URL without them: purging, ask also for the
/// [`keyed_query`] of the policy that the URL's route has.
pub fn url_hash(seed: u64, host: &str, port: Option<u16>, path: &str, query: Option<&str>) -> u128 {
    let mut text = String::with_capacity(host.len() + path.len() + query.map_or(0, str::len) + ":65535?".len());
    push_target(&mut text, host, port, path, query);
    xxh3_128_with_seed(text.as_bytes(), seed)
}

fn push_target(text: &mut String, host: &str, port: Option<u16>, path: &str, query: Option<&str>) {
    text.push_str(host);
    if let Some(port) = port {
        text.push(':');
        push_decimal(text, port);
    }
    text.push_str(path);
    if let Some(query) = query {
        text.push('?');
        push_sorted(text, query);
    }
}

fn push_decimal(text: &mut String, number: u16) {
    let mut digits = [0; 5];
    let (mut first, mut left) = (digits.len(), number);
    while left > 0 || first == digits.len() {
        first -= 1;
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    text.push_str(std::str::from_utf8(&digits[first..]).expect("digits are text"));
}

/// 16 digits.
fn push_hexadecimal(text: &mut String, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits: [u8; 16] = std::array::from_fn(|at| DIGITS[(number >> (60 - 4 * at)) as usize & 15]);
    text.push_str(std::str::from_utf8(&digits).expect("digits are text"));
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

/// `\nname=value` of each field that the policy names, `\nname!` where it is absent, and `\n;name=value` of each cookie.
/// What is no visible ASCII is escaped: no value can look like another line.
fn push_fields(text: &mut String, fields: &HeaderMap, policy: &Policy) {
    for name in &policy.key_headers {
        let _ = write!(text, "\n{name}");
        let mut lines = fields.get_all(name).iter().peekable();
        text.push(if lines.peek().is_some() { '=' } else { '!' });
        for (at, line) in lines.enumerate() {
            let _ = write!(text, "{}{}", if at > 0 { "," } else { "" }, line.as_bytes().escape_ascii());
        }
    }
    if policy.key_cookies.is_empty() {
        return;
    }
    let mut cookies: Vec<_> = cookies(fields).filter(|(name, _)| any(&policy.key_cookies, name)).collect();
    cookies.sort_by_key(|(name, _)| *name);
    for (name, pair) in cookies {
        let value = &pair[name.len()..];
        let _ = write!(text, "\n;{name}{}", value.escape_ascii());
    }
}

/// The query that a fill sends: what the key drops, the fill drops, unless the policy says otherwise; the order is the
/// client's. `None` where nothing is left of it.
pub fn forwarded_query<'a>(query: Option<&'a str>, policy: &Policy) -> Option<Cow<'a, str>> {
    if policy.query.forwards_all { query.map(Cow::Borrowed) } else { keyed_query(query, policy) }
}

/// What the key keeps of a query.
pub fn keyed_query<'a>(query: Option<&'a str>, policy: &Policy) -> Option<Cow<'a, str>> {
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
    policy.bypass.by(fields, query).map(|by| match by {
        Carried::Header(_) => Reason::BypassHeader,
        Carried::Cookie(_) => Reason::BypassCookie,
        Carried::Query(_) => Reason::BypassQuery,
    })
}

/// Does the policy want this request to be answered anew?
pub fn refreshes(policy: &Policy, fields: &HeaderMap, query: Option<&str>) -> bool {
    policy.refresh.by(fields, query).is_some()
}

/// What of a [`Carries`] a request has, by the name of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried<'r> {
    Header(&'r str),
    Cookie(&'r str),
    Query(&'r str),
}

impl Carries {
    /// By what of it, if anything, a request is meant: a field, else a cookie, else a parameter.
    pub fn by<'r>(&self, fields: &'r HeaderMap, query: Option<&'r str>) -> Option<Carried<'r>> {
        if !self.headers.is_empty()
            && let Some(name) = fields.keys().map(HeaderName::as_str).find(|name| any(&self.headers, name))
        {
            return Some(Carried::Header(name));
        }
        if !self.cookies.is_empty()
            && let Some(name) = cookie_names(fields).find(|name| any(&self.cookies, name))
        {
            return Some(Carried::Cookie(name));
        }
        if self.query.is_empty() {
            return None;
        }
        parameter_names(query).find(|name| any(&self.query, name)).map(Carried::Query)
    }
}

/// `Cookie` as the origin sees it; `None`: not at all.
pub fn forwarded_cookies(fields: &HeaderMap, policy: &Policy) -> Option<HeaderValue> {
    let kept = |name: &str| policy.forward_cookies.as_ref().is_none_or(|names| any(names, name));
    let mut text = Vec::new();
    for (_, pair) in cookies(fields).filter(|(name, _)| kept(name)) {
        if !text.is_empty() {
            text.extend_from_slice(b"; ");
        }
        text.extend_from_slice(pair);
    }
    if text.is_empty() { None } else { HeaderValue::from_bytes(&text).ok() }
}

/// Is a cookie in these fields that is no part of the key?
pub fn has_unkeyed_cookie(fields: &HeaderMap, policy: &Policy) -> bool {
    if policy.key_cookies.is_empty() {
        return fields.contains_key(header::COOKIE);
    }
    let lines = fields.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|&b| b == b';'));
    // A pair without a readable name is in no key.
    let pairs = lines.filter(|pair| !pair.trim_ascii().is_empty()).count();
    cookies(fields).filter(|(name, _)| any(&policy.key_cookies, name)).count() < pairs
}

/// The cookies of all lines (HTTP/2 may split them), by name, and each whole: `a=b`. A cookie whose name is no text cannot
/// be named by a rule.
fn cookies(fields: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    fields
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b';'))
        .map(<[u8]>::trim_ascii)
        .filter_map(|pair| {
            let name = pair.split(|&b| b == b'=').next()?;
            Some((std::str::from_utf8(name.trim_ascii()).ok()?, pair))
        })
        .filter(|(name, _)| !name.is_empty())
}

/// The names of the cookies of a request, as policies see them.
pub fn cookie_names(fields: &HeaderMap) -> impl Iterator<Item = &str> {
    cookies(fields).map(|(name, _)| name)
}

/// The names of the parameters of a query, as policies see them.
pub fn parameter_names(query: Option<&str>) -> impl Iterator<Item = &str> {
    query.into_iter().flat_map(|query| query.split('&')).map(parameter_name)
}

fn any(globs: &[Glob], name: &str) -> bool {
    globs.iter().any(|glob| glob.matches(name))
}

fn parameter_name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}
