//! All pools of one configuration, and the tasks that keep them true.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

use super::{
    config::{Config, PeerAddress},
    connect::Connector,
    health,
    pool::Pool,
    resolve,
};
use crate::telemetry::Metrics;

/// How late an idle connection may be closed.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The pools by name.
pub struct Pools(BTreeMap<String, Arc<Pool>>);

impl Pools {
    pub fn new(configs: &[Arc<Config>], metrics: &Metrics) -> Self {
        Self(configs.iter().map(|config| (config.name.clone(), Pool::new(config.clone(), metrics))).collect())
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Pool>> {
        self.0.get(name)
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.0.values()
    }

    /// Whether every peer with health checks was probed and every name looked up once; from then on it stays so.
    pub fn first_round_done(&self) -> bool {
        self.iter().all(|pool| pool.first_round_done())
    }

    /// Looks names up and probes peers until `shutdown` turns true or its sender is gone.
    pub async fn run(self: Arc<Self>, connector: Arc<Connector>, mut shutdown: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for pool in self.iter() {
            tasks.spawn(run_pool(pool.clone(), connector.clone()));
            tasks.spawn(sweep(pool.clone()));
        }
        // An error says that the sender is gone. Dropping the set ends the tasks at their next await.
        let _ = shutdown.wait_for(|stop| *stop).await;
    }
}

/// Closes idle connections in time, also where there is no traffic. Ends by being dropped.
async fn sweep(pool: Arc<Pool>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        for peer in pool.peers().iter() {
            peer.idle().sweep(Instant::now());
        }
    }
}

/// One task per name and per probed peer. Ends by being dropped.
async fn run_pool(pool: Arc<Pool>, connector: Arc<Connector>) {
    let mut changes = pool.changes();
    let mut tasks = JoinSet::new();
    for (index, peer) in pool.config().peers.iter().enumerate() {
        if let PeerAddress::Name(name, port) = &peer.address {
            tasks.spawn(resolve::follow(pool.clone(), index, name.clone(), *port));
        }
    }
    loop {
        if let Some(health) = &pool.config().health {
            for peer in pool.peers().iter().filter(|peer| !peer.watch()) {
                let host = health::host(&pool.config().host, peer);
                tasks.spawn(health::watch(peer.clone(), health.clone(), host, connector.clone()));
            }
        }
        tokio::select! {
            // The pool, held here, owns the sender: this ends only by a change.
            _ = changes.changed() => {}
            // A peer that left the pool.
            Some(_) = tasks.join_next() => {}
        }
    }
}
