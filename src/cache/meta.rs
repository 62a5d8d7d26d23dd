//! What the law keeps of a stored response: its head, and every fact that a later request needs, derived once.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{freshness::Lifetime, groups, policy::Policy, surrogate::SurrogateKey, vary::Vary};

/// The head of a stored response. Made by [`store`](super::store), changed only by freshening, which makes a new one.
#[derive(Debug, Clone)]
pub struct Meta {
    pub status: StatusCode,
    /// As stored: `Date` is always there; connection fields, fields that `no-cache="..."` and `private="..."` name,
    /// `Age`, `Content-Length` and `Transfer-Encoding` never are.
    pub fields: HeaderMap,
    pub(super) corrected_initial_age: Duration,
    pub(super) response_time: SystemTime,
    pub(super) lifetime: Lifetime,
    /// The origin's own windows; `None`: it said nothing.
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
    /// `no-cache` without field names.
    pub(super) no_cache: bool,
    /// `no-cache`, `must-revalidate`, `proxy-revalidate` or `s-maxage`: never answered with when stale.
    pub(super) never_stale: bool,
    /// `Date`, or the time of receipt where that is invalid.
    pub(super) date: SystemTime,
    pub(super) has_etag: bool,
    pub(super) last_modified: Option<SystemTime>,
    pub(super) vary: Vary,
    pub(super) surrogate_keys: Box<[SurrogateKey]>,
}

impl Meta {
    /// The current age (RFC 9111 4.2.3). A clock that was set back makes nothing younger than it was when received.
    pub fn age(&self, now: SystemTime) -> Duration {
        self.corrected_initial_age + self.resident(now)
    }

    /// Whole seconds of freshness left, rounded down; negative when stale.
    pub fn ttl(&self, now: SystemTime) -> i64 {
        match self.staleness(now) {
            Staleness::Fresh(left) => left.as_secs().cast_signed(),
            Staleness::Stale(since) => {
                let whole = since.as_secs() + u64::from(since.subsec_nanos() > 0);
                -whole.cast_signed()
            }
        }
    }

    /// [`Meta::ttl`], where a soft purge may have expired it at some instant.
    pub fn ttl_at(&self, now: SystemTime, soft_purged: Option<SystemTime>) -> i64 {
        let ttl = self.ttl(now);
        let Some(purged) = soft_purged else { return ttl };
        let since = now.duration_since(purged).unwrap_or_default();
        let whole = since.as_secs() + u64::from(since.subsec_nanos() > 0);
        ttl.min(-whole.cast_signed())
    }

    /// How long the response is fresh, and who said so.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// When the head came, by this node's clock: of the last response that freshened it.
    pub fn response_time(&self) -> SystemTime {
        self.response_time
    }

    pub fn etag(&self) -> Option<&HeaderValue> {
        self.fields.get(header::ETAG)
    }

    pub fn last_modified(&self) -> Option<&HeaderValue> {
        self.fields.get(header::LAST_MODIFIED)
    }

    /// Is there something to validate it by?
    pub fn has_validator(&self) -> bool {
        self.has_etag || self.last_modified.is_some()
    }

    pub fn vary(&self) -> &Vary {
        &self.vary
    }

    /// Sorted, each once.
    pub fn surrogate_keys(&self) -> &[SurrogateKey] {
        &self.surrogate_keys
    }

    /// The groups on its origin that it is in (RFC 9875); sorted, each once. Read from its fields each time.
    pub fn groups(&self) -> Box<[Box<str>]> {
        // Over a limit it would not have been stored.
        groups::parse(&self.fields).unwrap_or_default()
    }

    /// How long after [`Meta::response_time`] it may be dropped: past its lifetime and the larger stale window, and
    /// with a validator past the policy's `keep` too.
    pub fn retention(&self, policy: &Policy) -> Duration {
        let windows = self.stale_while_revalidate_window(policy).max(self.stale_if_error_window(policy));
        let useful = (self.lifetime.duration + windows).saturating_sub(self.counted_age());
        useful + if self.has_validator() { policy.keep } else { Duration::ZERO }
    }

    /// Who says how long it may be answered stale while it is validated.
    pub fn stale_window(&self) -> StaleWindow {
        match self.stale_while_revalidate {
            _ if self.never_stale => StaleWindow::Forbidden,
            Some(_) => StaleWindow::Origin,
            None => StaleWindow::Policy,
        }
    }

    /// The origin's own window beats the policy's; there is none where stale answers are forbidden.
    pub(super) fn stale_while_revalidate_window(&self, policy: &Policy) -> Duration {
        if self.never_stale {
            return Duration::ZERO;
        }
        self.stale_while_revalidate.unwrap_or(policy.stale_while_revalidate)
    }

    /// As [`Meta::stale_while_revalidate_window`].
    pub(super) fn stale_if_error_window(&self, policy: &Policy) -> Duration {
        if self.never_stale {
            return Duration::ZERO;
        }
        self.stale_if_error.unwrap_or(policy.stale_if_error)
    }

    /// Fresh for how long, or stale since when (RFC 9111 4.2: fresh while the lifetime exceeds the age).
    pub(super) fn staleness(&self, now: SystemTime) -> Staleness {
        let age = self.counted_age() + self.resident(now);
        match self.lifetime.duration.checked_sub(age) {
            Some(left) if !left.is_zero() => Staleness::Fresh(left),
            _ => Staleness::Stale(age - self.lifetime.duration),
        }
    }

    /// The age at receipt that the lifetime is held against.
    fn counted_age(&self) -> Duration {
        if self.lifetime.source.counts_from_receipt() { Duration::ZERO } else { self.corrected_initial_age }
    }

    fn resident(&self, now: SystemTime) -> Duration {
        now.duration_since(self.response_time).unwrap_or_default()
    }
}

/// Who says for how long a stale response may still be answered, while it is validated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StaleWindow {
    /// Nobody can: stale answers are forbidden.
    Forbidden,
    /// The response itself.
    Origin,
    #[default]
    Policy,
}

/// On which side of its expiry a stored response is, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Staleness {
    Fresh(Duration),
    Stale(Duration),
}
