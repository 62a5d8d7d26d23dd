//! `Cache-Control`, `Pragma` and `CDN-Cache-Control`: text becomes directives (RFC 9111 5.2, RFC 9213).

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

pub(super) const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// What larger delta-seconds are taken for (RFC 9111 1.2.2).
pub(super) const DELTA_SECONDS_MAX: u64 = 1 << 31;

/// Names in one `no-cache="..."` or `private="..."`; more than any response has fields makes the directive whole.
const SCOPE_NAMES_MAX: usize = 100;

/// What a client asks of caches on the way (RFC 9111 5.2.1, RFC 5861 section 4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Also true for `Pragma: no-cache` in a request without `Cache-Control` (RFC 9111 5.4).
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    pub no_transform: bool,
    /// An argument that is no number counts as 0.
    pub max_age: Option<Duration>,
    pub min_fresh: Option<Duration>,
    pub max_stale: Option<MaxStale>,
    pub stale_if_error: Option<Duration>,
}

/// `max-stale`: how stale an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxStale {
    /// Without an argument: of any age.
    Any,
    Within(Duration),
}

/// What an origin allows caches to do (RFC 9111 5.2.2, RFC 5861). The first of repeated directives counts, and an
/// argument that is no number counts as 0 (RFC 9111 4.2.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    pub public: bool,
    pub private: Scope,
    pub no_cache: Scope,
    pub no_store: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    /// Nothing is compressed here.
    pub no_transform: bool,
    /// Said to clients; nothing follows from it here.
    pub immutable: bool,
    pub max_age: Option<Duration>,
    pub s_maxage: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
}

/// How far `no-cache` or `private` reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// The directive is absent.
    #[default]
    Nothing,
    /// Only these fields: the response is stored without them.
    Fields(Vec<HeaderName>),
    /// The whole response.
    Whole,
}

impl RequestDirectives {
    /// Reads all lines of `Cache-Control`, else `Pragma`.
    pub fn parse(fields: &HeaderMap) -> Self {
        let mut found = Self::default();
        let says_something = |name: &HeaderName| *name == header::CACHE_CONTROL || *name == header::PRAGMA;
        if !fields.keys().any(says_something) {
            return found;
        }
        if !fields.contains_key(header::CACHE_CONTROL) {
            found.no_cache = directives(fields, &header::PRAGMA).any(|d| d.is("no-cache"));
            return found;
        }
        for directive in directives(fields, &header::CACHE_CONTROL) {
            match directive.name {
                name if name.eq_ignore_ascii_case(b"no-cache") => found.no_cache = true,
                name if name.eq_ignore_ascii_case(b"no-store") => found.no_store = true,
                name if name.eq_ignore_ascii_case(b"only-if-cached") => found.only_if_cached = true,
                name if name.eq_ignore_ascii_case(b"no-transform") => found.no_transform = true,
                name if name.eq_ignore_ascii_case(b"max-age") => first(&mut found.max_age, directive.seconds_or_zero()),
                name if name.eq_ignore_ascii_case(b"min-fresh") => {
                    found.min_fresh = found.min_fresh.or(directive.seconds());
                }
                name if name.eq_ignore_ascii_case(b"max-stale") => {
                    let within = match directive.argument {
                        Argument::None => Some(MaxStale::Any),
                        _ => directive.seconds().map(MaxStale::Within),
                    };
                    found.max_stale = found.max_stale.or(within);
                }
                name if name.eq_ignore_ascii_case(b"stale-if-error") => {
                    found.stale_if_error = found.stale_if_error.or(directive.seconds());
                }
                _ => {}
            }
        }
        found
    }
}

impl ResponseDirectives {
    /// Reads all lines of `Cache-Control`.
    pub fn parse(fields: &HeaderMap) -> Self {
        let mut found = Self::default();
        for directive in directives(fields, &header::CACHE_CONTROL) {
            match directive.name {
                name if name.eq_ignore_ascii_case(b"public") => found.public = true,
                name if name.eq_ignore_ascii_case(b"private") => found.private.widen(directive.scope()),
                name if name.eq_ignore_ascii_case(b"no-cache") => found.no_cache.widen(directive.scope()),
                name if name.eq_ignore_ascii_case(b"no-store") => found.no_store = true,
                name if name.eq_ignore_ascii_case(b"must-revalidate") => found.must_revalidate = true,
                name if name.eq_ignore_ascii_case(b"proxy-revalidate") => found.proxy_revalidate = true,
                name if name.eq_ignore_ascii_case(b"must-understand") => found.must_understand = true,
                name if name.eq_ignore_ascii_case(b"no-transform") => found.no_transform = true,
                name if name.eq_ignore_ascii_case(b"immutable") => found.immutable = true,
                name if name.eq_ignore_ascii_case(b"max-age") => first(&mut found.max_age, directive.seconds_or_zero()),
                name if name.eq_ignore_ascii_case(b"s-maxage") => {
                    first(&mut found.s_maxage, directive.seconds_or_zero());
                }
                name if name.eq_ignore_ascii_case(b"stale-while-revalidate") => {
                    first(&mut found.stale_while_revalidate, directive.seconds_or_zero());
                }
                name if name.eq_ignore_ascii_case(b"stale-if-error") => {
                    first(&mut found.stale_if_error, directive.seconds_or_zero());
                }
                _ => {}
            }
        }
        found
    }

    /// Reads `CDN-Cache-Control` as the structured field that it is. `None` when it is absent, empty, no dictionary,
    /// or gives a known directive a value of another type: then it is as if it were not there (RFC 9213 2.1).
    pub fn targeted(fields: &HeaderMap) -> Option<Self> {
        let mut lines = fields.get_all(CDN_CACHE_CONTROL).iter();
        let mut text = lines.next()?.as_bytes().to_vec();
        for line in lines {
            text.extend_from_slice(b", ");
            text.extend_from_slice(line.as_bytes());
        }
        let dictionary: Dictionary = Parser::new(&text).parse().ok()?;
        if dictionary.is_empty() {
            return None;
        }
        let mut found = Self::default();
        for (name, entry) in &dictionary {
            let flag = |to: &mut bool| match entry {
                ListEntry::Item(item) => item.bare_item.as_boolean().map(|value| *to = value),
                ListEntry::InnerList(_) => None,
            };
            let seconds = |to: &mut Option<Duration>| match entry {
                ListEntry::Item(item) => item.bare_item.as_integer().map(|value| {
                    let value = u64::try_from(i64::from(value)).unwrap_or(0).min(DELTA_SECONDS_MAX);
                    *to = Some(Duration::from_secs(value));
                }),
                ListEntry::InnerList(_) => None,
            };
            let scope = |to: &mut Scope| match entry {
                ListEntry::Item(item) => match &item.bare_item {
                    BareItem::Boolean(false) => Some(()),
                    BareItem::Boolean(true) => {
                        *to = Scope::Whole;
                        Some(())
                    }
                    BareItem::String(names) => {
                        *to = Scope::of_names(names.as_str().as_bytes());
                        Some(())
                    }
                    _ => None,
                },
                ListEntry::InnerList(_) => None,
            };
            match name.as_str() {
                "public" => flag(&mut found.public)?,
                "private" => scope(&mut found.private)?,
                "no-cache" => scope(&mut found.no_cache)?,
                "no-store" => flag(&mut found.no_store)?,
                "must-revalidate" => flag(&mut found.must_revalidate)?,
                "proxy-revalidate" => flag(&mut found.proxy_revalidate)?,
                "must-understand" => flag(&mut found.must_understand)?,
                "no-transform" => flag(&mut found.no_transform)?,
                "immutable" => flag(&mut found.immutable)?,
                "max-age" => seconds(&mut found.max_age)?,
                "s-maxage" => seconds(&mut found.s_maxage)?,
                "stale-while-revalidate" => seconds(&mut found.stale_while_revalidate)?,
                "stale-if-error" => seconds(&mut found.stale_if_error)?,
                _ => {}
            }
        }
        Some(found)
    }
}

impl Scope {
    /// Of `"a, b"`; what names no field at all is the whole response, the safer reading.
    fn of_names(list: &[u8]) -> Self {
        let names: Vec<_> = list
            .split(|&b| b == b',')
            .map(|name| name.trim_ascii())
            .filter(|name| !name.is_empty())
            .map(HeaderName::from_bytes)
            .take(SCOPE_NAMES_MAX + 1)
            .filter_map(Result::ok)
            .collect();
        if names.is_empty() || names.len() > SCOPE_NAMES_MAX { Self::Whole } else { Self::Fields(names) }
    }

    fn widen(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Fields(names), Self::Fields(more)) => names.extend(more),
            (Self::Whole, _) | (_, Self::Nothing) => {}
            (_, other) => *self = other,
        }
    }
}

fn first<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

/// One directive as written.
struct Directive<'a> {
    name: &'a [u8],
    argument: Argument<'a>,
}

enum Argument<'a> {
    None,
    Token(&'a [u8]),
    /// Without the quotes, escapes as they are.
    Quoted(&'a [u8]),
    /// Something follows the name, but it is no argument.
    Malformed,
}

impl Directive<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// delta-seconds, bare or quoted (RFC 9111 5.2: recipients ought to accept both).
    fn seconds(&self) -> Option<Duration> {
        match self.argument {
            Argument::Token(digits) | Argument::Quoted(digits) => delta_seconds(digits),
            Argument::None | Argument::Malformed => None,
        }
    }

    /// Invalid freshness information is taken as stale (RFC 9111 4.2.1).
    fn seconds_or_zero(&self) -> Duration {
        self.seconds().unwrap_or_default()
    }

    /// Field names stand in quotes (RFC 9111 5.2.2.4); whatever else follows, the directive is the whole one.
    fn scope(&self) -> Scope {
        match self.argument {
            Argument::Quoted(names) => Scope::of_names(names),
            Argument::None | Argument::Token(_) | Argument::Malformed => Scope::Whole,
        }
    }
}

/// `1*DIGIT`, larger values capped (RFC 9111 1.2.2).
pub(super) fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().fold(0u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Duration::from_secs(value.min(DELTA_SECONDS_MAX)))
}

/// All directives of all lines of a field, in order.
fn directives<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Directive<'a>> {
    fields.get_all(name).iter().flat_map(|line| Scanner(line.as_bytes()))
}

/// Reads `name[=argument]` between commas, so that nothing inside a quoted string is taken for a directive.
struct Scanner<'a>(&'a [u8]);

impl<'a> Iterator for Scanner<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Directive<'a>> {
        loop {
            let start = self.0.iter().position(|b| !matches!(b, b',' | b' ' | b'\t'))?;
            self.0 = &self.0[start..];
            let name = self.token();
            if name.is_empty() {
                self.skip_element();
                continue;
            }
            let argument = match self.0.first() {
                Some(b'=') => {
                    self.0 = &self.0[1..];
                    if self.0.first() == Some(&b'"') {
                        self.quoted()
                    } else {
                        match self.token() {
                            [] => Argument::Malformed,
                            value => Argument::Token(value),
                        }
                    }
                }
                _ => Argument::None,
            };
            let argument = if self.skip_element() { argument } else { Argument::Malformed };
            return Some(Directive { name, argument });
        }
    }
}

impl<'a> Scanner<'a> {
    fn token(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|&b| !is_token_byte(b)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        token
    }

    /// Stands at the opening quote.
    fn quoted(&mut self) -> Argument<'a> {
        let Some(length) = quoted_length(self.0) else {
            self.0 = &[];
            return Argument::Malformed;
        };
        let (quoted, rest) = self.0.split_at(length);
        self.0 = rest;
        Argument::Quoted(&quoted[1..length - 1])
    }

    /// Moves to the comma that ends the element; false when there was more than white space before it.
    fn skip_element(&mut self) -> bool {
        let mut clean = true;
        while let Some(&b) = self.0.first() {
            match b {
                b',' => break,
                b' ' | b'\t' => self.0 = &self.0[1..],
                b'"' => {
                    clean = false;
                    self.0 = quoted_length(self.0).map_or(&[], |length| &self.0[length..]);
                }
                _ => {
                    clean = false;
                    self.0 = &self.0[1..];
                }
            }
        }
        clean
    }
}

/// The length of the quoted-string at the start, both quotes included; `None` when it is not closed.
pub(super) fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// tchar of RFC 9110 5.6.2.
fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
