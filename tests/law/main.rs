//! The law of `cache/`, tested from outside: by rows, by properties, and beside another implementation.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod codings;
mod peer;
mod properties;
mod rows;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eduham_edge::cache::Policy;

/// When every response is received: 24 November 2026, 02:21:37 GMT.
fn receipt() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_486_897)
}

/// A policy that adds nothing to the RFC.
fn plain_policy() -> Policy {
    Policy { name: "plain".to_owned(), ..Policy::default() }
}
