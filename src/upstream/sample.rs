//! Pools for the unit tests of this room.

use std::{sync::Arc, time::Duration};

use super::{
    config::{
        Balance, Config, Health, HostPolicy, PeerAddress, PeerConfig, Retries, RetryWhen, StatusPattern, Timeouts,
    },
    peer::{Finding, Peer},
    pool::Pool,
};
use crate::telemetry::Metrics;

/// A pool with health checks whose peers are written `a`, `b*3` (weight 3), `c!` (backup).
pub(super) fn pool(balance: Balance, peers: &str) -> Arc<Pool> {
    Pool::new(Arc::new(config(balance, peers)), &Metrics::new())
}

pub(super) fn config(balance: Balance, peers: &str) -> Config {
    let seconds = Duration::from_secs;
    let mut port = 0;
    let peers = peers.split_whitespace().map(|word| {
        port += 1;
        let (word, backup) = word.strip_suffix('!').map_or((word, false), |word| (word, true));
        let (id, weight) = word.split_once('*').unwrap_or((word, "1"));
        let address = PeerAddress::Ip(([127, 0, 0, 1], port).into());
        PeerConfig { id: id.to_owned(), address, weight: weight.parse().expect("a weight"), backup }
    });
    Config {
        name: "sample".to_owned(),
        peers: peers.collect(),
        balance,
        host: HostPolicy::Client,
        tls: None,
        health: Some(Health {
            path: "/healthz".to_owned(),
            interval: seconds(1),
            timeout: seconds(1),
            rise: 2,
            fall: 2,
            expect: vec![StatusPattern::Class(2)],
        }),
        panic_percent: 50,
        timeouts: Timeouts {
            connect: seconds(1),
            first_byte: seconds(1),
            between_bytes: seconds(1),
            keepalive: seconds(1),
            total: None,
        },
        retries: Retries {
            max: 2,
            budget_percent: 20,
            when: vec![RetryWhen::Connect],
            non_idempotent: false,
            body_max: 64 * 1024,
        },
    }
}

pub(super) fn peer(pool: &Pool, id: &str) -> Arc<Peer> {
    pool.peer(id).expect("a peer of the sample")
}

/// Makes the last probes of a peer bad, good or draining, as many as it takes.
pub(super) fn probe(pool: &Pool, id: &str, finding: &Finding) {
    let health = pool.config().health.as_ref().expect("the sample has health checks");
    for _ in 0..health.rise.max(health.fall) {
        peer(pool, id).record(finding, health.rise, health.fall, false);
    }
}

pub(super) fn bad() -> Finding {
    Finding::Bad("status 500".to_owned())
}
