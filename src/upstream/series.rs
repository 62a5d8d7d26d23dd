//! The metric handles of a peer, resolved once, so that a request only adds to them.

use std::{collections::HashMap, sync::OnceLock, time::Duration};

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntGauge};
use strum::IntoEnumIterator;

use super::peer::PeerState;
use crate::telemetry::Metrics;

/// Status codes have three digits, the first from 1 to 5 or, from odd origins, up to 9.
const STATUSES: std::ops::Range<u16> = 100..1000;

/// The series of one peer.
pub(super) struct Series {
    metrics: Metrics,
    pool: String,
    peer: String,
    states: Vec<(PeerState, IntGauge)>,
    pub(super) active: IntGauge,
    /// By status - 100; made at the first use, since most never occur.
    statuses: Box<[OnceLock<IntCounter>]>,
    failures: Mutex<HashMap<&'static str, IntCounter>>,
    connect: Histogram,
    first_byte: Histogram,
    duration: Histogram,
}

impl Series {
    pub(super) fn new(metrics: &Metrics, pool: &str, peer: &str) -> Self {
        let states = PeerState::iter()
            .map(|state| {
                let name: &'static str = state.into();
                (state, metrics.upstream_peer_state.with_label_values(&[pool, peer, name]))
            })
            .collect();
        Self {
            pool: pool.to_owned(),
            peer: peer.to_owned(),
            states,
            active: metrics.upstream_active_requests.with_label_values(&[pool, peer]),
            statuses: STATUSES.map(|_| OnceLock::new()).collect(),
            failures: Mutex::default(),
            connect: metrics.upstream_connect.with_label_values(&[pool]),
            first_byte: metrics.upstream_first_byte.with_label_values(&[pool]),
            duration: metrics.upstream_duration.with_label_values(&[pool]),
            metrics: metrics.clone(),
        }
    }

    pub(super) fn show(&self, state: PeerState) {
        for (each, gauge) in &self.states {
            gauge.set(i64::from(*each == state));
        }
    }

    pub(super) fn count_status(&self, status: u16) {
        if let Some(slot) = self.statuses.get(usize::from(status.wrapping_sub(STATUSES.start))) {
            slot.get_or_init(|| {
                let labels = [self.pool.as_str(), &self.peer, &status.to_string()];
                self.metrics.upstream_requests.with_label_values(&labels)
            })
            .inc();
        }
    }

    pub(super) fn count_failure(&self, reason: &'static str) {
        let labels = [self.pool.as_str(), &self.peer, reason];
        self.failures
            .lock()
            .entry(reason)
            .or_insert_with(|| self.metrics.upstream_failures.with_label_values(&labels))
            .inc();
    }

    pub(super) fn observe_connect(&self, took: Duration) {
        self.connect.observe(took.as_secs_f64());
    }

    pub(super) fn observe_first_byte(&self, took: Duration) {
        self.first_byte.observe(took.as_secs_f64());
    }

    pub(super) fn observe_duration(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    /// Takes the series of a removed peer out of the exposition. What is still counted afterwards is not shown.
    pub(super) fn vanish(&self) {
        let peer = [self.pool.as_str(), &self.peer];
        // An error says that there is no such series: that is what is wanted.
        let _ = self.metrics.upstream_active_requests.remove_label_values(&peer);
        for (state, _) in &self.states {
            let name: &'static str = state.into();
            let _ = self.metrics.upstream_peer_state.remove_label_values(&[peer[0], peer[1], name]);
        }
        for (status, _) in STATUSES.zip(&self.statuses).filter(|(_, slot)| slot.get().is_some()) {
            let _ = self.metrics.upstream_requests.remove_label_values(&[peer[0], peer[1], &status.to_string()]);
        }
        for reason in self.failures.lock().keys() {
            let _ = self.metrics.upstream_failures.remove_label_values(&[peer[0], peer[1], reason]);
        }
    }
}
