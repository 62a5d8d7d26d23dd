//! Step 6: one record and one count per request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, ETAG, EXPIRES, LAST_MODIFIED, RANGE, REFERER, SET_COOKIE,
        USER_AGENT, VARY,
    },
};

use super::{
    exchange::{Exchange, Trace},
    fetch::Seen,
};
use crate::{
    cache::{VariantKey, Vary},
    telemetry::{AccessRecord, CacheResult, RouteMetrics},
    wire::Version,
};

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// What a record says of the origin's response: what decided about storing and reusing it.
const FROM_ORIGIN: [HeaderName; 8] =
    [CACHE_CONTROL, CDN_CACHE_CONTROL, EXPIRES, LAST_MODIFIED, ETAG, VARY, SURROGATE_KEY, SET_COOKIE];
/// The client went away before it had its answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What the metrics count of a request, once it has ended.
pub(super) struct Receipt {
    pub metrics: Arc<RouteMetrics>,
    method: Method,
    status: u16,
    result: Option<CacheResult>,
    pub started: Instant,
    pub first_byte: Option<Duration>,
    error: Option<&'static str>,
}

impl Receipt {
    /// Counts; gives the status that the request had in the end.
    pub fn count(&self, client_gone: bool, bytes_sent: u64, now: Instant) -> u16 {
        let Self { metrics, result, .. } = self;
        let status = if client_gone { CLIENT_CLOSED_REQUEST } else { self.status };
        metrics.request(&self.method, status);
        metrics.request_duration.observe(now.saturating_duration_since(self.started).as_secs_f64());
        metrics.response_bytes.inc_by(bytes_sent);
        if let Some(result) = *result {
            metrics.cache(result, bytes_sent);
        }
        if let Some(after) = self.first_byte {
            metrics.first_byte(*result, after);
        }
        if let Some(error) = self.error {
            metrics.error(error);
        }
        status
    }
}

impl Exchange<'_> {
    /// What the origin's part was.
    pub fn note_origin(&mut self, seen: &Seen, fields: &HeaderMap) {
        self.trace.seen = seen.clone();
        self.note_origin_fields(fields);
    }

    /// What an origin said to the cache, now or when the response was stored.
    pub fn note_origin_fields(&mut self, fields: &HeaderMap) {
        if self.edge.access.enabled() {
            copy(fields, &mut self.trace.from_origin, &FROM_ORIGIN);
        }
    }

    /// What the client was told.
    pub fn note_head(&mut self, fields: &HeaderMap) {
        if self.edge.access.enabled() {
            copy(fields, &mut self.trace.answered, &[CONTENT_TYPE, CACHE_CONTROL]);
        }
    }

    /// Writes the record and counts. The end of every exchange.
    pub fn record(&mut self, client_gone: bool, bytes_received: u64, bytes_sent: u64) {
        self.note_end(client_gone, bytes_received, bytes_sent);
        let status = self.receipt().count(client_gone, bytes_sent, Instant::now());
        self.write_record(status, None);
    }

    /// What the record says of the end.
    pub(super) fn note_end(&mut self, client_gone: bool, bytes_received: u64, bytes_sent: u64) {
        let trace = &mut self.trace;
        (trace.client_gone, trace.bytes_received, trace.bytes_sent) = (client_gone, bytes_received, bytes_sent);
    }

    /// What is counted of it.
    pub(super) fn receipt(&self) -> Receipt {
        let Trace { metrics, status, decision, first_byte, error, .. } = &self.trace;
        Receipt {
            metrics: Arc::clone(metrics.as_ref().unwrap_or_else(|| self.snapshot.router.unmatched())),
            method: self.request.method.clone(),
            status: *status,
            result: decision.result(),
            started: self.request.started,
            first_byte: *first_byte,
            error: *error,
        }
    }

    /// Counts a request that became a socket: how long it lives is no duration of a request.
    pub fn count_socket(&mut self) {
        if let Some(metrics) = &self.trace.metrics {
            metrics.request(&self.request.method, self.trace.status);
        }
    }

    /// What picked the variant, where the response names what picks it.
    fn variant(&self) -> Option<String> {
        if !self.trace.from_origin.contains_key(VARY) || self.trace.decision.result().is_none() {
            return None;
        }
        let vary = Vary::parse(&self.trace.from_origin);
        let fields: Vec<_> = VariantKey::of(&vary, &self.request.fields).shown().collect();
        (!fields.is_empty()).then(|| fields.join("; "))
    }

    /// The record alone; `close_reason` for the end of a socket.
    pub fn write_record(&self, status: u16, close_reason: Option<&str>) {
        if !self.edge.access.enabled() {
            return;
        }
        let (request, trace) = (&self.request, &self.trace);
        let cache_status = trace.decision.cache_status(trace.ttl);
        let host = request.authority.to_string();
        let variant = self.variant();
        self.edge.access.write(&AccessRecord {
            time: self.edge.clock.now(),
            node: &self.snapshot.config.node.id,
            request_id: request.id.as_str(),
            trace_id: Some(request.id.as_str()),
            client_ip: request.client_ip,
            listener: &self.connection.listener,
            method: request.method.as_str(),
            scheme: request.scheme.as_str(),
            host: request.has_host.then_some(host.as_str()),
            target: request.target.path_and_query(),
            protocol: protocol(request.version),
            tls_version: self.connection.tls_version,
            route: trace.route.as_ref().map(|route| route.name.as_str()),
            policy: trace.route.as_ref().and_then(|route| route.cache.as_ref()).map(|policy| policy.name.as_str()),
            config: Some(&self.snapshot.hash),
            status,
            bytes_received: trace.bytes_received,
            bytes_sent: trace.bytes_sent,
            content_type: text(&trace.answered, &CONTENT_TYPE),
            range: text(&request.fields, &RANGE),
            cache_status: trace.decision.result().map(|result| result.as_str()),
            detail: cache_status.and_then(|status| status.detail).map(|reason| reason.as_str()),
            key_hash: trace.key_hash,
            variant: variant.as_deref(),
            age: trace.age.map(|age| age.as_secs()),
            ttl: trace.ttl,
            request_cache_control: text(&request.fields, &CACHE_CONTROL),
            request_cookie: request.fields.contains_key(COOKIE),
            request_authorization: request.fields.contains_key(AUTHORIZATION),
            response_cache_control: if trace.from_origin.is_empty() {
                text(&trace.answered, &CACHE_CONTROL)
            } else {
                text(&trace.from_origin, &CACHE_CONTROL)
            },
            cdn_cache_control: text(&trace.from_origin, &CDN_CACHE_CONTROL),
            vary: text(&trace.from_origin, &VARY),
            etag: text(&trace.from_origin, &ETAG),
            expires: text(&trace.from_origin, &EXPIRES),
            last_modified: text(&trace.from_origin, &LAST_MODIFIED),
            set_cookie: trace.from_origin.contains_key(SET_COOKIE),
            surrogate_keys: text(&trace.from_origin, &SURROGATE_KEY),
            upstream: trace.route.as_ref().and_then(|route| route.action.upstream()),
            peer: trace.seen.peer.as_ref().map(|peer| peer.as_str()),
            upstream_status: trace.seen.status,
            tries: (trace.seen.tries > 0).then_some(trace.seen.tries),
            time_to_first_byte_ms: trace.first_byte,
            duration_ms: request.started.elapsed(),
            origin_ms: trace.seen.took,
            error: trace.error,
            client_gone: trace.client_gone,
            user_agent: text(&request.fields, &USER_AGENT),
            referer: text(&request.fields, &REFERER),
            close_reason,
        });
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        let mut lines = from.get_all(name).iter();
        let Some(first) = lines.next() else { continue };
        let mut value = HeaderValue::clone(first);
        for line in lines {
            let joined = HeaderValue::from_bytes(&[value.as_bytes(), b", ", line.as_bytes()].concat());
            // Two lines that are values are one together.
            value = joined.unwrap_or(value);
        }
        to.insert(name.clone(), value);
    }
}

fn text<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    fields.get(name).and_then(|value| value.to_str().ok())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
    }
}
