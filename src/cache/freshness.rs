//! Freshness lifetime and age (RFC 9111 4.2), with the policy's lifetimes in their places.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    date,
    directives::{ResponseDirectives, delta_seconds},
    policy::{Policy, StatusTtl},
};

/// Heuristic freshness: this part of the time since `Last-Modified` (RFC 9111 4.2.2 names 10%).
const HEURISTIC_DIVISOR: u32 = 10;

/// Heuristic freshness goes no further: a day's wrong guess is enough.
const HEURISTIC_MAX: Duration = Duration::from_secs(86_400);

/// When a response was asked for and when its head came, by this node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub request_time: SystemTime,
    pub response_time: SystemTime,
}

/// How long a response is fresh, and who said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    pub duration: Duration,
    pub source: LifetimeSource,
}

/// The sources of a freshness lifetime, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::EnumIter, strum::IntoStaticStr, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum LifetimeSource {
    /// A `ttl` rule of the policy.
    TtlRule,
    /// `force_ttl` of the policy.
    ForceTtl,
    /// `s-maxage`, of `CDN-Cache-Control` where that is valid.
    SMaxage,
    /// `max-age`, of `CDN-Cache-Control` where that is valid.
    MaxAge,
    /// `Expires` minus `Date`.
    Expires,
    /// `status_ttl` of the policy.
    StatusTtl,
    /// `default_ttl` of the policy.
    DefaultTtl,
    /// A tenth of the time since `Last-Modified`.
    Heuristic,
    /// Nobody said anything: lifetime 0.
    None,
}

impl LifetimeSource {
    /// Policy lifetimes count from receipt, whatever age the response had then.
    pub fn counts_from_receipt(self) -> bool {
        matches!(self, Self::TtlRule | Self::ForceTtl | Self::StatusTtl | Self::DefaultTtl)
    }
}

/// What the lifetime of a response is derived from.
pub(super) struct Facts<'a> {
    pub(super) status: StatusCode,
    pub(super) fields: &'a HeaderMap,
    pub(super) directives: &'a ResponseDirectives,
    /// The directives are those of `CDN-Cache-Control`: `Expires` is ignored (RFC 9213 2.2).
    pub(super) targeted: bool,
    /// The policy does not listen to `Expires`.
    pub(super) ignores_expires: bool,
    /// `Date`, or the time of receipt.
    pub(super) date: SystemTime,
    pub(super) response_time: SystemTime,
}

impl Facts<'_> {
    /// Does the origin itself say how long the response is fresh (RFC 9111 section 3)?
    pub(super) fn is_explicit(&self) -> bool {
        self.directives.s_maxage.is_some() || self.directives.max_age.is_some() || self.has_expires()
    }

    /// May a lifetime be guessed (RFC 9111 4.2.2: heuristically cacheable, or marked `public`)?
    pub(super) fn allows_heuristic(&self) -> bool {
        self.directives.public || is_heuristically_cacheable(self.status)
    }

    /// The first source that has something to say.
    pub(super) fn lifetime(&self, policy: &Policy) -> Lifetime {
        let Lifetime { duration, source } = self.said(policy);
        // Spread by the moment of receipt, of which no two are the same.
        let received = self.response_time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let spread = xxh3_64(&received.as_nanos().to_le_bytes()) as f64 / u64::MAX as f64;
        let part = (1.0 - policy.ttl_jitter * spread).clamp(0.0, 1.0);
        let duration = if policy.ttl_jitter > 0.0 { duration.mul_f64(part) } else { duration };
        Lifetime { duration, source }
    }

    fn said(&self, policy: &Policy) -> Lifetime {
        let from = |duration, source| Lifetime { duration, source };
        if let Some((ttl, source)) = policy.forced_ttl(self.status, self.fields) {
            from(ttl, source)
        } else if let Some(ttl) = self.directives.s_maxage {
            from(ttl, LifetimeSource::SMaxage)
        } else if let Some(ttl) = self.directives.max_age {
            from(ttl, LifetimeSource::MaxAge)
        } else if self.has_expires() {
            // An `Expires` that is no date lies in the past (RFC 9111 5.3).
            let expires = date::field(self.fields, &header::EXPIRES).unwrap_or(SystemTime::UNIX_EPOCH);
            let seconds = date::seconds(expires).saturating_sub(date::seconds(self.date));
            from(Duration::from_secs(seconds), LifetimeSource::Expires)
        } else if let Some(ttl) = policy.status_ttl.of(self.status) {
            from(ttl, LifetimeSource::StatusTtl)
        } else if !self.allows_heuristic() {
            from(Duration::ZERO, LifetimeSource::None)
        } else if let Some(ttl) = policy.default_ttl {
            from(ttl, LifetimeSource::DefaultTtl)
        } else if let Some(modified) = date::field(self.fields, &header::LAST_MODIFIED) {
            let since = Duration::from_secs(date::seconds(self.date).saturating_sub(date::seconds(modified)));
            from((since / HEURISTIC_DIVISOR).min(HEURISTIC_MAX), LifetimeSource::Heuristic)
        } else {
            from(Duration::ZERO, LifetimeSource::None)
        }
    }

    fn has_expires(&self) -> bool {
        !self.targeted && !self.ignores_expires && self.fields.contains_key(header::EXPIRES)
    }
}

impl StatusTtl {
    /// The lifetime of a status; a code beats its class.
    pub fn of(&self, status: StatusCode) -> Option<Duration> {
        let code = status.as_u16();
        let class = |&&(digit, _): &&(u8, Duration)| u16::from(digit) == code / 100;
        self.codes
            .iter()
            .find(|(of, _)| *of == code)
            .map(|(_, ttl)| *ttl)
            .or_else(|| self.classes.iter().find(class).map(|(_, ttl)| *ttl))
    }
}

/// RFC 9111 4.2.3: what the age was when the response was received.
pub fn corrected_initial_age(fields: &HeaderMap, times: Times) -> Duration {
    let response_delay = times.response_time.duration_since(times.request_time).unwrap_or_default();
    let apparent_age = date::field(fields, &header::DATE).map_or(Duration::ZERO, |date| {
        Duration::from_secs(date::seconds(times.response_time).saturating_sub(date::seconds(date)))
    });
    apparent_age.max(age_value(fields) + response_delay)
}

/// `Age` as received: the first member of the first line counts, and what is no number is ignored (RFC 9111 5.1).
fn age_value(fields: &HeaderMap) -> Duration {
    fields
        .get(header::AGE)
        .and_then(|value| value.as_bytes().split(|&b| b == b',').next())
        .and_then(|member| delta_seconds(member.trim_ascii()))
        .unwrap_or_default()
}

/// Statuses that may be stored on a guess (RFC 9110 15.1; 206 is a matter of its own).
fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}
