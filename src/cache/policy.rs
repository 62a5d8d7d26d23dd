//! A named cache policy: what the operator adds to the law.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{
    coding::Compress,
    freshness::LifetimeSource,
    pattern::{Glob, PathRule},
};

/// `cache.NAME` of the configuration. Durations are whole milliseconds; `None` means "not said".
#[derive(Debug, Clone)]
pub struct Policy {
    pub name: String,
    /// Freshness lifetime where the origin is silent; `None`: heuristic, zero: none.
    pub default_ttl: Option<Duration>,
    /// Replaces the freshness lifetime of what is storable anyway (never of a 5xx).
    pub force_ttl: Option<Duration>,
    pub status_ttl: StatusTtl,
    /// Lifetimes by path, type and status; the first that matches wins, before `force_ttl`.
    pub ttl: Vec<TtlRule>,
    /// What clients get as a lifetime instead of the origin's word.
    pub browser_ttl: Option<Duration>,
    /// The most by which a lifetime is shortened, as a part of it: 0.0 to 1.0.
    pub ttl_jitter: f64,
    /// Where the origin says nothing about stale (RFC 5861).
    pub stale_while_revalidate: Duration,
    /// Where the origin says nothing about stale (RFC 5861).
    pub stale_if_error: Duration,
    /// Kept past every window, for validation only.
    pub keep: Duration,
    pub query: QueryRule,
    /// Request fields that are part of the key.
    pub key_headers: Vec<HeaderName>,
    /// Cookies that are part of the key.
    pub key_cookies: Vec<Glob>,
    /// Requests that are neither looked up nor stored.
    pub bypass: Carries,
    /// Requests that are not looked up, but stored.
    pub refresh: Carries,
    /// Cookies that the origin sees of a request that may be answered for others too; `None`: all.
    pub forward_cookies: Option<Vec<Glob>>,
    /// `Accept-Language` is taken for one of these, the first where none fits; empty: taken as it is.
    pub languages: Vec<Box<str>>,
    /// What is compressed here; `None`: nothing, and `Accept-Encoding` is taken as it is.
    pub compress: Option<Compress>,
    pub collapse: Collapse,
    /// Bytes of a body that may be stored; `None`: what the store's tiers allow.
    pub object_max: Option<u64>,
    /// Are `Cache-Control` and `Pragma` of requests honoured?
    pub client_directives: ClientDirectives,
    /// What of the origin's word is not listened to.
    pub ignore_origin: IgnoreOrigin,
    pub set_cookie: SetCookie,
    /// Stored only when asked for so often.
    pub min_uses: u32,
    /// Large bodies are fetched and stored in aligned slices of so many bytes.
    pub slice: Option<u64>,
    /// Stored variants of one key; the oldest goes first.
    pub variants_max: usize,
    /// A hash of everything in the policy that shapes the key; part of every key.
    pub key_fingerprint: u64,
}

impl Default for Policy {
    /// Adds nothing to the RFCs.
    fn default() -> Self {
        Self {
            name: String::new(),
            default_ttl: None,
            force_ttl: None,
            status_ttl: StatusTtl::default(),
            ttl: Vec::new(),
            browser_ttl: None,
            ttl_jitter: 0.0,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            keep: Duration::ZERO,
            query: QueryRule::default(),
            key_headers: Vec::new(),
            key_cookies: Vec::new(),
            bypass: Carries::default(),
            refresh: Carries::default(),
            forward_cookies: None,
            languages: Vec::new(),
            compress: None,
            collapse: Collapse {
                wait: Duration::from_secs(10),
                expired: CollapseExpired::Fetch,
                uncacheable_for: Duration::from_secs(60),
            },
            object_max: None,
            client_directives: ClientDirectives::Honour,
            ignore_origin: IgnoreOrigin::default(),
            set_cookie: SetCookie::Refuse,
            min_uses: 1,
            slice: None,
            variants_max: 64,
            key_fingerprint: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientDirectives {
    Honour,
    Ignore,
}

/// May a response with `Set-Cookie` be stored?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetCookie {
    /// Not stored.
    Refuse,
    /// Stored without its cookies if these names match all of them.
    Strip(Vec<Glob>),
    /// Stored as received.
    Store,
}

/// `ttl`: a lifetime for responses that match; an empty list matches all.
#[derive(Debug, Clone, PartialEq)]
pub struct TtlRule {
    pub paths: Vec<PathRule>,
    /// Lower-case media types, without parameters.
    pub content_types: Vec<Glob>,
    pub status_codes: Vec<u16>,
    /// By first digit.
    pub status_classes: Vec<u8>,
    pub force_ttl: Duration,
}

impl TtlRule {
    fn matches(&self, status: StatusCode, fields: &HeaderMap) -> bool {
        let code = status.as_u16();
        let by_status = self.status_codes.is_empty() && self.status_classes.is_empty()
            || self.status_codes.contains(&code)
            || self.status_classes.iter().any(|class| u16::from(*class) == code / 100);
        let by_type = self.content_types.is_empty()
            || fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
                let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                self.content_types.iter().any(|glob| glob.matches(&media_type))
            });
        by_status && by_type
    }
}

/// `ignore_origin`: words of the origin that are not listened to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IgnoreOrigin {
    /// All of `Cache-Control`; `CDN-Cache-Control` still counts.
    pub cache_control: bool,
    pub expires: bool,
    pub no_cache: bool,
    pub no_store: bool,
    pub private: bool,
    /// Also `proxy-revalidate`.
    pub must_revalidate: bool,
    pub vary: bool,
}

impl Policy {
    /// This policy for responses to requests for `path`, where that is another one: of the `ttl` rules those that speak of it.
    pub fn for_path(&self, path: &str) -> Option<Self> {
        if self.ttl.iter().all(|rule| rule.paths.is_empty()) {
            return None;
        }
        let mut policy = self.clone();
        policy.ttl.retain(|rule| rule.paths.is_empty() || rule.paths.iter().any(|pattern| pattern.matches(path)));
        Some(policy)
    }

    /// Bytes of the largest body that is stored where a tier keeps `kept`. Slices are units of their own, however large the
    /// whole may be of which one `is_part`.
    pub fn body_max(&self, kept: u64, is_part: bool) -> u64 {
        match self.slice {
            Some(_) if is_part => u64::MAX,
            _ => self.object_max.unwrap_or(u64::MAX).min(kept),
        }
    }

    /// Does the `ttl` rule of such a response speak of its status? Then it may be stored as under `status_ttl`.
    pub(super) fn names_status(&self, status: StatusCode, fields: &HeaderMap) -> bool {
        let rule = self.ttl.iter().find(|rule| rule.matches(status, fields));
        !status.is_server_error()
            && rule.is_some_and(|rule| !rule.status_codes.is_empty() || !rule.status_classes.is_empty())
    }

    /// What replaces the freshness lifetime of such a response; nothing does of a 5xx.
    pub(super) fn forced_ttl(&self, status: StatusCode, fields: &HeaderMap) -> Option<(Duration, LifetimeSource)> {
        if status.is_server_error() {
            return None;
        }
        let rule = self.ttl.iter().find(|rule| rule.matches(status, fields));
        rule.map(|rule| (rule.force_ttl, LifetimeSource::TtlRule))
            .or_else(|| self.force_ttl.map(|ttl| (ttl, LifetimeSource::ForceTtl)))
    }
}

/// `status_ttl`: lifetimes by status where the origin is silent; a code beats its class.
#[derive(Debug, Clone, Default)]
pub struct StatusTtl {
    pub codes: Vec<(u16, Duration)>,
    /// By first digit: `5` for `5xx`.
    pub classes: Vec<(u8, Duration)>,
}

/// `key.query`: which parameters are part of the key.
#[derive(Debug, Clone, Default)]
pub struct QueryRule {
    /// Parameters that are left out. Never together with `only`.
    pub ignore: Vec<Glob>,
    /// Parameters that alone are kept; `Some(vec![])` keeps none.
    pub only: Option<Vec<Glob>>,
    /// Does the origin see all parameters, also those that the key leaves out?
    pub forwards_all: bool,
}

/// `bypass`, `refresh`: requests that carry one of these.
#[derive(Debug, Clone, Default)]
pub struct Carries {
    pub cookies: Vec<Glob>,
    /// Lower-case field names.
    pub headers: Vec<Glob>,
    pub query: Vec<Glob>,
}

/// `collapse`: how long concurrent requests wait for the one fetch.
#[derive(Debug, Clone)]
pub struct Collapse {
    /// Up to the writer's response head.
    pub wait: Duration,
    pub expired: CollapseExpired,
    /// A key whose answer was not storable is not collapsed for so long.
    pub uncacheable_for: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollapseExpired {
    /// One waiter per `wait` becomes a second writer.
    Fetch,
    /// All waiters get 504.
    Error,
}
