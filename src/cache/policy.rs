//! A named cache policy: what the operator adds to the law.

use std::time::Duration;

use super::pattern::Glob;

/// `cache.NAME` of the configuration. Durations are whole milliseconds; `None` means "not said".
#[derive(Debug, Clone)]
pub struct Policy {
    pub name: String,
    /// Freshness lifetime where the origin is silent; `None`: heuristic, zero: none.
    pub default_ttl: Option<Duration>,
    /// Replaces the freshness lifetime of what is storable anyway (never of a 5xx).
    pub force_ttl: Option<Duration>,
    pub status_ttl: StatusTtl,
    /// Where the origin says nothing about stale (RFC 5861).
    pub stale_while_revalidate: Duration,
    /// Where the origin says nothing about stale (RFC 5861).
    pub stale_if_error: Duration,
    /// Kept past every window, for validation only.
    pub keep: Duration,
    pub query: QueryRule,
    pub bypass: Bypass,
    pub collapse: Collapse,
    /// Bytes of a body that may be stored; `None`: what the store's tiers allow.
    pub object_max: Option<u64>,
    /// Are `Cache-Control` and `Pragma` of requests honoured?
    pub client_directives: ClientDirectives,
    pub set_cookie: SetCookie,
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
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            keep: Duration::ZERO,
            query: QueryRule::default(),
            bypass: Bypass::default(),
            collapse: Collapse {
                wait: Duration::from_secs(10),
                expired: CollapseExpired::Fetch,
                uncacheable_for: Duration::from_secs(60),
            },
            object_max: None,
            client_directives: ClientDirectives::Honour,
            set_cookie: SetCookie::Refuse,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie {
    /// Not stored.
    Refuse,
    /// Stored as received.
    Store,
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
}

/// `bypass`: a request that carries one of these is neither looked up nor stored.
#[derive(Debug, Clone, Default)]
pub struct Bypass {
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
