//! The metrics of one route, resolved once, so that a request looks up no label.

use std::{collections::HashMap, sync::Arc, sync::OnceLock, time::Duration};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::Metrics;

/// `route` labels; a route beyond them counts as `other`.
pub const ROUTES_MAX: usize = 500;

/// The `route` label beyond [`ROUTES_MAX`], the `method` label of methods that are not in [`METHODS`], the `status` label of what is no
/// status.
const OTHER: &str = "other";

/// The `route` label of requests that match no route, and the `cache` label of those that the cache has no part in.
const NONE: &str = "none";

/// The methods that have a label of their own (RFC 9110 section 9, RFC 5789, and `PURGE`).
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PURGE"];

/// Statuses per method whose counters are kept at hand. Routes answer with a handful; a rarer one is looked up.
const STATUSES_MAX: usize = 16;

/// What the cache did for one client request on a cached route: the label `result`, and `cache_status` in the access record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumCount, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum CacheResult {
    /// Answered from a fresh stored response.
    Hit,
    /// Answered stale while it is being revalidated (RFC 5861 section 3).
    StaleUpdating,
    /// Answered stale because the origin failed (RFC 5861 section 4).
    StaleError,
    /// The origin said 304 and the stored response was answered.
    Revalidated,
    /// A stale stored response was replaced by what the origin sent.
    Expired,
    /// Nothing was stored.
    Miss,
    /// Waited for another request's fetch and was answered from it.
    Collapsed,
    /// A part was stored, the rest came from the origin.
    Partial,
    /// The policy or the request kept the cache out.
    Bypass,
    /// Fetched and not storable.
    Refused,
}

impl CacheResult {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Counters and histograms of one `route` label.
pub struct RouteMetrics {
    route: String,
    metrics: Metrics,
    /// By method, the last for all others.
    requests: [[OnceLock<(u16, IntCounter)>; STATUSES_MAX]; METHODS.len() + 1],
    pub request_duration: Histogram,
    pub response_bytes: IntCounter,
    pub lane_requests: IntCounter,
    uncached_first_byte: OnceLock<Histogram>,
    cached: [OnceLock<Cached>; <CacheResult as strum::EnumCount>::COUNT],
}

/// What is counted by cache result.
struct Cached {
    requests: IntCounter,
    bytes: IntCounter,
    first_byte: Histogram,
}

impl RouteMetrics {
    fn new(route: &str, metrics: &Metrics) -> Self {
        Self {
            route: route.to_owned(),
            metrics: metrics.clone(),
            requests: Default::default(),
            request_duration: metrics.request_duration.with_label_values(&[route]),
            response_bytes: metrics.response_bytes.with_label_values(&[route]),
            lane_requests: metrics.lane_requests.with_label_values(&[route]),
            uncached_first_byte: OnceLock::new(),
            cached: Default::default(),
        }
    }

    /// The `route` label.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Counts a request answered with `status`; 499 when the client left first.
    pub fn request(&self, method: &Method, status: u16) {
        let index = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len());
        for slot in &self.requests[index] {
            let (kept, counter) = slot.get_or_init(|| (status, self.requests_counter(index, status)));
            if *kept == status {
                counter.inc();
                return;
            }
        }
        self.requests_counter(index, status).inc();
    }

    fn requests_counter(&self, method: usize, status: u16) -> IntCounter {
        let method = METHODS.get(method).copied().unwrap_or(OTHER);
        // Origins may send any three digits; only those of a class that exists are labels.
        let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() < 600);
        let status = status.as_ref().map_or(OTHER, StatusCode::as_str);
        self.metrics.requests.with_label_values(&[&self.route, method, status])
    }

    /// Counts an answer that the edge made because something failed.
    pub fn error(&self, reason: &str) {
        self.metrics.errors.with_label_values(&[&self.route, reason]).inc();
    }

    /// Counts a response that was not stored.
    pub fn refusal(&self, reason: &str) {
        self.metrics.cache_refusals.with_label_values(&[&self.route, reason]).inc();
    }

    /// Counts what the cache did for one client request, and the body bytes sent for it.
    pub fn cache(&self, result: CacheResult, bytes: u64) {
        let cached = self.cached(result);
        cached.requests.inc();
        cached.bytes.inc_by(bytes);
    }

    /// From the request head to the first byte of the answer; `None` where the cache has no part.
    pub fn first_byte(&self, result: Option<CacheResult>, after: Duration) {
        let histogram = match result {
            Some(result) => &self.cached(result).first_byte,
            None => self
                .uncached_first_byte
                .get_or_init(|| self.metrics.time_to_first_byte.with_label_values(&[&self.route, NONE])),
        };
        histogram.observe(after.as_secs_f64());
    }

    fn cached(&self, result: CacheResult) -> &Cached {
        self.cached[result as usize].get_or_init(|| {
            let labels = [self.route.as_str(), result.as_str()];
            let of = |family: &IntCounterVec| family.with_label_values(&labels);
            Cached {
                requests: of(&self.metrics.cache_requests),
                bytes: of(&self.metrics.cache_bytes),
                first_byte: self.metrics.time_to_first_byte.with_label_values(&labels),
            }
        })
    }
}

impl std::fmt::Debug for RouteMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteMetrics").field("route", &self.route).finish_non_exhaustive()
    }
}

/// The labels given out so far.
#[derive(Clone, Default)]
pub(super) struct Routes(Arc<Mutex<HashMap<String, Arc<RouteMetrics>>>>);

impl Metrics {
    /// The metrics of a `route` label (a route's `metrics`, default its name), for a configuration to keep at hand. The same label gives the
    /// same metrics; beyond [`ROUTES_MAX`] labels all share `other`.
    pub fn route(&self, label: &str) -> Arc<RouteMetrics> {
        let mut routes = self.routes.0.lock();
        let known = routes.contains_key(label) || label == NONE || routes.len() < ROUTES_MAX;
        let label = if known { label } else { OTHER };
        Arc::clone(routes.entry(label.to_owned()).or_insert_with(|| Arc::new(RouteMetrics::new(label, self))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_method_and_status_also_when_the_table_is_full() {
        let metrics = Metrics::new();
        let route = metrics.route("pages");
        let brew = Method::from_bytes(b"BREW").unwrap();
        for status in (200..240).chain([200, 200, 239, 700, 701]) {
            route.request(&Method::GET, status);
        }
        route.request(&brew, 405);
        let counted = |method: &str, status: &str| metrics.requests.with_label_values(&["pages", method, status]).get();
        let rows = [
            ("GET", "200", 3),
            ("GET", "201", 1),
            ("GET", "239", 2),
            ("GET", "other", 2),
            ("other", "405", 1),
            ("HEAD", "200", 0),
        ];
        for (method, status, expected) in rows {
            assert_eq!(counted(method, status), expected, "{method} {status}");
        }
    }

    #[test]
    fn cache_results_have_the_words_that_dashboards_count() {
        let words: Vec<&str> =
            <CacheResult as strum::VariantArray>::VARIANTS.iter().map(|result| result.as_str()).collect();
        let expected = "hit stale_updating stale_error revalidated expired miss collapsed partial bypass refused";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn the_cache_is_counted_by_result_and_an_uncached_first_byte_has_none() {
        let metrics = Metrics::new();
        let route = metrics.route("pages");
        route.cache(CacheResult::Hit, 100);
        route.cache(CacheResult::Hit, 50);
        route.first_byte(Some(CacheResult::Hit), Duration::from_millis(1));
        route.first_byte(None, Duration::from_millis(1));
        let text = metrics.encode();
        for line in [
            r#"edge_cache_requests_total{result="hit",route="pages"} 2"#,
            r#"edge_cache_bytes_total{result="hit",route="pages"} 150"#,
            r#"edge_time_to_first_byte_seconds_count{cache="hit",route="pages"} 1"#,
            r#"edge_time_to_first_byte_seconds_count{cache="none",route="pages"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn routes_beyond_the_maximum_share_a_label() {
        let metrics = Metrics::new();
        for index in 0..ROUTES_MAX {
            assert_eq!(metrics.route(&format!("route-{index}")).route(), format!("route-{index}"));
        }
        assert_eq!(metrics.route("one-more").route(), "other");
        assert_eq!(metrics.route("another").route(), "other");
        assert_eq!(metrics.route("route-7").route(), "route-7");
        assert_eq!(metrics.route(NONE).route(), "none");
        assert!(Arc::ptr_eq(&metrics.route("route-7"), &metrics.clone().route("route-7")));
    }
}
