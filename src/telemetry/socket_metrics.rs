//! The counters of one socket, resolved when it opens.

use prometheus::{IntCounter, IntGauge};

use super::Metrics;

/// Counts one open socket for as long as it lives, and its bytes.
pub struct SocketMetrics {
    open: IntGauge,
    pub from_client: IntCounter,
    pub to_client: IntCounter,
    closes: prometheus::IntCounterVec,
    route: String,
}

impl SocketMetrics {
    pub fn new(metrics: &Metrics, route: &str, upstream: &str, peer: &str) -> Self {
        let open = metrics.websocket_connections.with_label_values(&[route, upstream, peer]);
        open.inc();
        Self {
            open,
            from_client: metrics.websocket_bytes.with_label_values(&[route, "in"]),
            to_client: metrics.websocket_bytes.with_label_values(&[route, "out"]),
            closes: metrics.websocket_closes.clone(),
            route: route.to_owned(),
        }
    }

    /// The socket has ended.
    pub fn closed(&self, reason: &str) {
        self.closes.with_label_values(&[&self.route, reason]).inc();
    }
}

impl Drop for SocketMetrics {
    fn drop(&mut self) {
        self.open.dec();
    }
}
