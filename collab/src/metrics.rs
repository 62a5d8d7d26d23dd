//! What a node counts about itself, for Prometheus.

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder, core::Collector,
    process_collector::ProcessCollector,
};

/// The metrics of a node; cheap to clone, one registry each, so that tests do not share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Rooms in memory.
    pub rooms: IntGauge,
    /// Open sockets.
    pub connections: IntGauge,
    /// Protocol messages, by `direction`: received, sent.
    pub messages: IntCounterVec,
    /// Sockets closed by this node, by `reason`.
    pub closes: IntCounterVec,
    /// Handshakes answered otherwise than with 101, by `reason`.
    pub refusals: IntCounterVec,
    /// Sockets closed because they did not read what they were sent.
    pub send_queue_overflows: IntCounter,
    /// Batches of updates written to the store.
    pub flushes: IntCounter,
    /// Batches that could not be written; they are tried again.
    pub flush_failures: IntCounter,
    /// Documents whose rows were folded into a snapshot.
    pub compactions: IntCounter,
    /// Rooms that ended by a panic.
    pub room_failures: IntCounter,
    /// Sockets that a drain has still to close.
    pub drain_remaining: IntGauge,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let labelled = |name: &str, help: &str, label: &str| {
            add(&registry, IntCounterVec::new(Opts::new(name, help), &[label]).expect("a constant name and label"))
        };
        let counter = |name: &str, help: &str| add(&registry, IntCounter::new(name, help).expect("a constant name"));
        let gauge = |name: &str, help: &str| add(&registry, IntGauge::new(name, help).expect("a constant name"));
        let metrics = Self {
            rooms: gauge("rt_rooms", "Rooms in memory"),
            connections: gauge("rt_connections", "Open sockets"),
            messages: labelled("rt_messages_total", "Protocol messages", "direction"),
            closes: labelled("rt_closes_total", "Sockets closed by this node", "reason"),
            refusals: labelled("rt_handshakes_refused_total", "Handshakes not answered with 101", "reason"),
            send_queue_overflows: counter("rt_send_queue_overflow_total", "Sockets closed for reading too slowly"),
            flushes: counter("rt_flushes_total", "Batches of updates written to the store"),
            flush_failures: counter("rt_flush_failures_total", "Batches of updates that could not be written"),
            compactions: counter("rt_compactions_total", "Documents folded into a snapshot"),
            room_failures: counter("rt_room_failures_total", "Rooms that ended by a panic"),
            drain_remaining: gauge("rt_drain_remaining", "Sockets that a drain has still to close"),
            registry,
        };
        metrics.registry.register(Box::new(ProcessCollector::for_self())).expect("each name is registered once");
        for direction in ["received", "sent"] {
            metrics.messages.with_label_values(&[direction]);
        }
        metrics
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_under_its_name() {
        let metrics = Metrics::new();
        metrics.rooms.inc();
        metrics.flush_failures.inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("\nrt_rooms 1\n"), "{text}");
        assert!(text.contains("\nrt_flush_failures_total 1\n"), "{text}");
        assert!(text.contains("rt_messages_total{direction=\"sent\"} 0"), "{text}");
    }
}
