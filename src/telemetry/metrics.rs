//! Every metric with its name, labels and meaning. Labels are bounded: never a URL.

use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::route_metrics::Routes;

/// Seconds, from a memory hit to a slow origin.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Seconds, from memory to a slow disk.
const LOOKUP_SECONDS: [f64; 8] = [0.000_001, 0.000_005, 0.000_02, 0.000_1, 0.000_5, 0.002, 0.01, 0.1];

/// A histogram of lookups, whose buckets are finer.
type LookupVec = HistogramVec;

macro_rules! metrics {
    ($( $field:ident: $kind:ident($name:literal $(, [$($label:literal),+])?) $help:literal; )+) => {
        /// The families of one edge, in a registry of its own so that several edges fit in a process.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Registry,
            /// What [`Metrics::route`] has given out.
            pub(super) routes: Routes,
            $( #[doc = $help] pub $field: $kind, )+
        }

        impl Metrics {
            /// Registers every family.
            ///
            /// # Panics
            /// When two families share a name: a broken invariant of the list below.
            pub fn new() -> Self {
                let registry = Registry::new_custom(Some("edge".into()), None).expect("the prefix is a valid name");
                $( let $field = make!($kind, $name, $help $(, [$($label),+])?);
                   registry.register(Box::new($field.clone())).expect("family names are unique"); )+
                Self { registry, routes: Routes::default(), $( $field, )+ }
            }
        }
    };
}

macro_rules! make {
    (IntCounter, $name:literal, $help:literal) => { IntCounter::new($name, $help).expect("a valid name") };
    (Gauge, $name:literal, $help:literal) => { Gauge::new($name, $help).expect("a valid name") };
    (IntGauge, $name:literal, $help:literal) => { IntGauge::new($name, $help).expect("a valid name") };
    (IntCounterVec, $name:literal, $help:literal, [$($label:literal),+]) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),+]).expect("valid names")
    };
    (IntGaugeVec, $name:literal, $help:literal, [$($label:literal),+]) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),+]).expect("valid names")
    };
    (LookupVec, $name:literal, $help:literal, [$($label:literal),+]) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(LOOKUP_SECONDS.to_vec()), &[$($label),+])
            .expect("valid names")
    };
    (HistogramVec, $name:literal, $help:literal, [$($label:literal),+]) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()), &[$($label),+]).expect("valid names")
    };
}

metrics! {
    requests: IntCounterVec("requests_total", ["route", "method", "status"]) "Requests answered.";
    errors: IntCounterVec("errors_total", ["route", "reason"]) "Answers that the edge made because something failed.";
    request_duration: HistogramVec("request_duration_seconds", ["route"]) "From the request head to the last byte of the answer; sockets excluded.";
    time_to_first_byte: HistogramVec("time_to_first_byte_seconds", ["route", "cache"]) "From the request head to the first byte of the answer.";
    response_bytes: IntCounterVec("response_bytes_total", ["route"]) "Body bytes sent to clients.";
    connections: IntGaugeVec("connections", ["listener"]) "Client connections open.";
    connections_refused: IntCounterVec("connections_refused_total", ["reason"]) "Client connections closed at once.";
    tls_handshakes: IntCounterVec("tls_handshakes_total", ["version", "resumed"]) "TLS handshakes completed.";
    tls_certificate_not_after: IntGaugeVec("tls_certificate_not_after_timestamp_seconds", ["name"]) "When a certificate expires.";
    cache_requests: IntCounterVec("cache_requests_total", ["route", "result"]) "Client requests on cached routes by what the cache did.";
    cache_bytes: IntCounterVec("cache_bytes_total", ["route", "result"]) "Body bytes sent on cached routes by what the cache did.";
    cache_refusals: IntCounterVec("cache_refusals_total", ["route", "reason"]) "Responses that were not stored.";
    cache_stored_bytes: IntGaugeVec("cache_stored_bytes", ["tier"]) "Bytes stored, bookkeeping included.";
    cache_stored_responses: IntGaugeVec("cache_stored_responses", ["tier"]) "Cache keys that have stored responses.";
    cache_evictions: IntCounterVec("cache_evictions_total", ["tier", "reason"]) "Stored things removed.";
    cache_lookup: LookupVec("cache_lookup_duration_seconds", ["tier"]) "Time to find a stored response, or that there is none.";
    store_capacity: IntGaugeVec("store_capacity_bytes", ["tier"]) "Bytes that a tier may hold.";
    fills: IntGaugeVec("fills", ["state"]) "Fetches in progress that clients share: running; and requests that wait for the head of one: waiting.";
    store_errors: IntCounterVec("store_errors_total", ["tier", "operation"]) "What a tier could not do; it did without.";
    store_up: IntGaugeVec("store_up", ["tier"]) "1 while a tier is read and written, 0 while it is left alone after failures.";
    collapse_expired: IntCounter("collapse_expired_total") "Waiters whose collapse wait ran out.";
    lane_requests: IntCounterVec("lane_requests_total", ["route"]) "Plain hits answered in their connection's own loop; a subset of requests.";
    compress_jobs: IntGauge("compress_jobs") "Coded copies of stored responses that wait to be made or are being made.";
    compressions: IntCounterVec("compressions_total", ["coding", "result"]) "Coded copies asked for: made, in-vain (too little saved), dropped (too many waited), evicted (some of the body was gone), failed.";
    purges: IntCounterVec("purges_total", ["kind"]) "Purges applied.";
    purge_lag: Gauge("purge_lag_seconds") "Seconds since this node was known to have applied every purge of its fleet; grows while it is cut off.";
    fleet_connected: IntGauge("fleet_connected") "1 while this node hears of the fleet's purges.";
    fleet_nodes: IntGauge("fleet_nodes") "Live nodes of the fleet, this one included.";
    redis_up: IntGaugeVec("redis_up", ["use"]) "1 while Redis answers.";
    redis_duration: HistogramVec("redis_duration_seconds", ["use"]) "Time of one command, connecting included.";
    upstream_requests: IntCounterVec("upstream_requests_total", ["upstream", "peer", "status"]) "Answers from origins.";
    upstream_connect: HistogramVec("upstream_connect_seconds", ["upstream"]) "Time to a new connection.";
    upstream_first_byte: HistogramVec("upstream_first_byte_seconds", ["upstream"]) "From the request to the response head.";
    upstream_duration: HistogramVec("upstream_duration_seconds", ["upstream"]) "From the request to the last byte of the response.";
    upstream_failures: IntCounterVec("upstream_failures_total", ["upstream", "peer", "reason"]) "Tries that failed.";
    upstream_retries: IntCounterVec("upstream_retries_total", ["upstream"]) "Further tries.";
    upstream_retries_refused: IntCounterVec("upstream_retries_refused_total", ["upstream"]) "Further tries that the budget forbade.";
    upstream_peer_state: IntGaugeVec("upstream_peer_state", ["upstream", "peer", "state"]) "1 for the state a peer is in, 0 for the others.";
    upstream_active_requests: IntGaugeVec("upstream_active_requests", ["upstream", "peer"]) "Requests and sockets on a peer.";
    websocket_connections: IntGaugeVec("websocket_connections", ["route", "upstream", "peer"]) "Sockets open.";
    websocket_opens: IntCounterVec("websocket_opens_total", ["route", "result"]) "Upgrades asked for.";
    websocket_bytes: IntCounterVec("websocket_bytes_total", ["route", "direction"]) "Bytes carried by sockets.";
    websocket_closes: IntCounterVec("websocket_closes_total", ["route", "reason"]) "Sockets ended.";
    sticky_decisions: IntCounterVec("sticky_decisions_total", ["route", "source"]) "How a sticky request found its peer.";
    log_dropped: IntCounter("log_dropped_total") "Access records dropped because the writer was behind.";
    draining: IntGauge("draining") "1 while the edge is leaving.";
    config_last_reload_successful: IntGauge("config_last_reload_successful") "1 when the last configuration read was good.";
    config_last_reload_success_timestamp: IntGauge("config_last_reload_success_timestamp_seconds") "When the configuration in use was read.";
    config_info: IntGaugeVec("config_info", ["hash"]) "1 for the configuration in use.";
    build_info: IntGaugeVec("build_info", ["version", "revision"]) "1 for this build.";
}

impl Metrics {
    /// The exposition text of every family, the process's own included.
    pub fn encode(&self) -> String {
        let mut families = self.registry.gather();
        families.extend(prometheus::gather());
        let mut text = String::new();
        // Encoding into a string fails only for a family without a name.
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics were not encoded");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
