//! The law of `cache/`, tested from outside: by rows, by properties, and beside another implementation.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod peer;
mod properties;
mod rows;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eduham_edge::cache::{
    Bypass, ClientDirectives, Collapse, CollapseExpired, Policy, QueryRule, SetCookie, StatusTtl,
};

/// When every response is received: 24 November 2026, 02:21:37 GMT.
fn receipt() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_486_897)
}

/// A policy that adds nothing to the RFC.
fn plain_policy() -> Policy {
    Policy {
        name: "plain".to_owned(),
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
        key_fingerprint: 0,
    }
}
