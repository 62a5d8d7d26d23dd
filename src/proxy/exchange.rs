//! One request and its answer: the value that walks the steps.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, StatusCode};

use super::{
    Edge, Snapshot,
    decision::{Decision, Routed, Step},
    downstream::{ClientGone, RequestBody, RequestBodyError, ResponseSink},
    fetch::{OriginRequest, Seen},
    fields::{self, Hop},
    lookup::Ahead,
    receive::{self, Connection, Request},
    route::Asked,
    routing::{Action, Redirect, Route},
    synth::{self, Refusal, Synthetic},
    websocket::{Opened, Socket},
};
use crate::{
    cache::{Meta, Negotiated},
    telemetry::RouteMetrics,
    upstream::Pool,
    wire::RequestHead,
};

/// A request on its way, what is known of it so far, and what the record will say.
pub struct Exchange<'a> {
    pub edge: &'a Arc<Edge>,
    /// The configuration that it began with.
    pub snapshot: Arc<Snapshot>,
    pub connection: &'a Connection,
    pub request: Request,
    pub trace: Trace,
    /// What the short way found out before it gave up.
    pub ahead: Option<Box<Ahead>>,
}

/// A request that has been taken, before its first step.
pub struct Begun<'a> {
    pub exchange: Exchange<'a>,
    /// Why it is refused, if it is.
    pub refusal: Option<Refusal>,
}

/// A request that was taken, without what it borrows: for a task of its own, or until its answer is written.
pub struct Parked {
    snapshot: Arc<Snapshot>,
    request: Request,
    trace: Trace,
    ahead: Option<Box<Ahead>>,
    refusal: Option<Refusal>,
}

impl Begun<'_> {
    /// Sets it aside.
    pub fn park(self) -> Parked {
        let Self { exchange: Exchange { snapshot, request, trace, ahead, .. }, refusal } = self;
        Parked { snapshot, request, trace, ahead, refusal }
    }
}

impl Parked {
    /// Goes on with it, on the same edge and connection.
    pub fn resume<'a>(self, edge: &'a Arc<Edge>, connection: &'a Connection) -> Begun<'a> {
        let Self { snapshot, request, trace, ahead, refusal } = self;
        Begun { exchange: Exchange { edge, snapshot, connection, request, trace, ahead }, refusal }
    }
}

/// What the steps leave behind for the record and the metrics.
#[derive(Default)]
pub struct Trace {
    pub route: Option<Arc<Route>>,
    pub metrics: Option<Arc<RouteMetrics>>,
    pub status: u16,
    /// What was decided, step by step.
    pub decision: Decision,
    pub key_hash: Option<u128>,
    pub age: Option<Duration>,
    pub ttl: Option<i64>,
    pub seen: Seen,
    /// In which coding the client is answered from the store.
    pub negotiated: Negotiated,
    /// May there be coded copies of what is answered with?
    pub has_codings: bool,
    pub first_byte: Option<Duration>,
    pub error: Option<&'static str>,
    pub client_gone: bool,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// The answer's fields as far as the record wants them.
    pub answered: HeaderMap,
    /// `CDN-Cache-Control` and `Surrogate-Key` as the origin sent them.
    pub from_origin: HeaderMap,
}

/// How an exchange ended, as far as the connection must know.
pub enum Ended {
    Answered,
    /// The connection is a socket from now on.
    Switched(Box<Socket>, Box<Opened>),
}

/// Takes a request.
pub fn begin<'a>(edge: &'a Arc<Edge>, connection: &'a Connection, head: RequestHead) -> Begun<'a> {
    let started = Instant::now();
    let snapshot = edge.snapshot.load_full();
    let id = edge.ids.next();
    let proxies = &snapshot.config.server.trusted_proxies;
    let (request, refusal) = receive::receive(connection, head, id, started, proxies);
    let exchange = Exchange { edge, snapshot, connection, request, trace: Trace::default(), ahead: None };
    Begun { exchange, refusal }
}

/// Runs one request to its end: answered, recorded and counted.
pub async fn run<B: RequestBody, S: ResponseSink>(begun: Begun<'_>, body: &mut B, sink: &mut S) -> Ended {
    let Begun { mut exchange, refusal } = begun;
    let ended = match refusal {
        None => {
            let abandoned = sink.abandoned();
            tokio::select! {
                biased;
                ended = exchange.answer(body, sink) => ended,
                // Fetches for the store are tasks of their own and go on.
                () = abandoned => Err(ClientGone),
            }
        }
        Some(refusal) => exchange.deliver_refusal(sink, &refusal).await.map(|()| None),
    };
    match ended {
        Ok(Some(socket)) => {
            let Exchange { snapshot, request, trace, .. } = exchange;
            Ended::Switched(socket, Box::new(Opened { snapshot, request, trace }))
        }
        ended => {
            let gone = ended.is_err();
            exchange.record(gone, body.received(), sink.sent());
            if gone && sink.started() {
                sink.abort();
            }
            Ended::Answered
        }
    }
}

/// Answers a request whose head could not be taken: told, recorded and counted like any other.
pub async fn refuse<S: ResponseSink>(edge: &Arc<Edge>, connection: &Connection, refusal: &Refusal, sink: &mut S) {
    let request = Request::unknown(connection, edge.ids.next(), Instant::now());
    let snapshot = edge.snapshot.load_full();
    let mut exchange = Exchange { edge, snapshot, connection, request, trace: Trace::default(), ahead: None };
    let gone = exchange.deliver_refusal(sink, refusal).await.is_err();
    exchange.record(gone, 0, sink.sent());
}

impl Exchange<'_> {
    async fn answer<B: RequestBody, S: ResponseSink>(
        &mut self,
        body: &mut B,
        sink: &mut S,
    ) -> Result<Option<Box<Socket>>, ClientGone> {
        if self.edge.fleet.is_stopped() {
            self.deliver_refusal(sink, &Refusal::CutOff).await?;
            return Ok(None);
        }
        if self.request.method.as_str() == "PURGE" {
            self.purge_by_method(sink).await?;
            return Ok(None);
        }
        if self.connection.redirect_to_https {
            self.decide(Step::Route(Routed::Redirect));
            let to = format!("https://{}{}", self.request.authority.host, self.request.target.path_and_query());
            self.deliver_synthetic(sink, synth::redirect(StatusCode::PERMANENT_REDIRECT, &to), false).await?;
            return Ok(None);
        }
        let Some(route) = self.choose_route() else {
            self.trace.metrics = Some(Arc::clone(self.snapshot.router.unmatched()));
            self.decide(Step::Route(Routed::NoRoute));
            self.deliver_refusal(sink, &Refusal::NoRoute).await?;
            return Ok(None);
        };
        match &route.action {
            Action::Respond(respond) => {
                self.decide(Step::Route(Routed::Respond));
                let fields = respond.headers.clone();
                let synthetic = Synthetic { status: respond.status, fields, body: respond.body.clone() };
                self.deliver_synthetic(sink, synthetic, false).await?;
                Ok(None)
            }
            Action::Redirect(redirect) => {
                self.decide(Step::Route(Routed::Redirect));
                let to = self.redirect_target(&route, redirect);
                self.deliver_synthetic(sink, synth::redirect(redirect.status, &to), false).await?;
                Ok(None)
            }
            Action::Upstream(name) => {
                let Some(pool) = self.snapshot.pools.get(name).cloned() else {
                    // The configuration names upstreams that exist; this cannot be reached but by a reload's mistake.
                    self.deliver_refusal(sink, &Refusal::NoRoute).await?;
                    return Ok(None);
                };
                self.forward(&route, &pool, body, sink).await
            }
        }
    }

    async fn forward<B: RequestBody, S: ResponseSink>(
        &mut self,
        route: &Arc<Route>,
        pool: &Arc<Pool>,
        body: &mut B,
        sink: &mut S,
    ) -> Result<Option<Box<Socket>>, ClientGone> {
        let sticky = match self.sticky(route) {
            Ok(sticky) => sticky,
            Err(refusal) => {
                self.decide(Step::Route(Routed::Refused));
                self.deliver_refusal(sink, &refusal).await?;
                return Ok(None);
            }
        };
        if let Some(websocket) = &route.websocket
            && self.request.wants_websocket()
        {
            self.decide(Step::Route(Routed::Socket));
            return self.open_socket(route, websocket, pool, sticky, body.is_empty(), sink).await;
        }
        let body_max = route.limits.body_bytes.unwrap_or(self.snapshot.config.server.limits.body_bytes);
        body.limit(body_max, route.limits.body_timeout);
        if body.length().is_some_and(|length| length > body_max) {
            self.decide(Step::Route(Routed::Refused));
            self.deliver_refusal(sink, &Refusal::Body(RequestBodyError::TooLarge)).await?;
            return Ok(None);
        }
        match &route.cache {
            Some(policy) => self.cached(route, &Arc::clone(policy), pool, sticky, body, sink).await?,
            None => {
                self.decide(Step::Route(Routed::Uncached));
                let request = self.origin_request(route, pool, sticky);
                self.pass(pool, request, body, sink).await?;
            }
        }
        Ok(None)
    }

    pub(super) fn choose_route(&mut self) -> Option<Arc<Route>> {
        if let Some(chosen) = &self.trace.route {
            return Some(Arc::clone(chosen));
        }
        let asked = Asked {
            method: &self.request.method,
            scheme: self.request.scheme,
            host: self.request.host(),
            path: self.request.target.path(),
            query: self.request.target.query(),
            fields: &self.request.fields,
            client_ip: self.request.client_ip,
            listener: &self.connection.listener,
        };
        let choice = self.snapshot.router.choose(&asked)?;
        self.trace.route = Some(Arc::clone(&choice.route));
        self.trace.metrics = Some(Arc::clone(&choice.metrics));
        Some(Arc::clone(&choice.route))
    }

    /// What the origin is asked, from what the client asked.
    pub fn origin_request(&self, route: &Arc<Route>, pool: &Arc<Pool>, sticky: Option<String>) -> OriginRequest {
        let host = self.request.authority.to_text();
        let hop = Hop {
            version: self.request.version,
            scheme: self.request.scheme,
            host: &host,
            peer: &self.connection.peer_text,
            trusted: self.connection.trusted,
            id: &self.request.id,
        };
        let (fields, lines) = fields::to_origin(&self.request.fields, &hop);
        OriginRequest {
            method: self.request.method.clone(),
            target: self.origin_target(route, self.request.target.query()),
            fields,
            lines,
            client_host: host,
            timeouts: route.timeouts.unwrap_or(pool.config().timeouts),
            route: Arc::clone(route),
            pool: Arc::clone(pool),
            sticky,
            is_shared: false,
        }
    }

    /// Path and query as the origin sees them.
    pub fn origin_target(&self, route: &Route, query: Option<&str>) -> String {
        let mut path = self.request.target.path();
        let mut target = String::with_capacity(path.len() + 16);
        if let Some(rewrite) = &route.upstream_path {
            if let Some(strip) = &rewrite.strip {
                path = path.strip_prefix(strip.trim_end_matches('/')).unwrap_or(path);
            }
            if let Some(add) = &rewrite.add {
                target.push_str(add.trim_end_matches('/'));
            }
            if !path.starts_with('/') {
                target.push('/');
            }
        }
        target.push_str(path);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        target
    }

    fn redirect_target(&self, route: &Route, redirect: &Redirect) -> String {
        let target = &self.request.target;
        let mut to = redirect
            .to
            .replace("{scheme}", self.request.scheme.as_str())
            .replace("{host}", &self.request.authority.host)
            .replace("{path_and_query}", target.path_and_query())
            .replace("{path}", target.path())
            .replace("{query}", target.query().unwrap_or_default());
        for name in route.matches.paths.iter().flat_map(|pattern| pattern.parameters()) {
            if let Some(value) = super::route::path_parameter(&route.matches.paths, target.path(), name) {
                to = to.replace(&format!("{{{name}}}"), value);
            }
        }
        to
    }

    /// Notes one decision.
    pub fn decide(&mut self, step: Step) {
        self.trace.decision.push(step);
    }

    /// The answer is made from a stored head.
    pub fn note_reused(&mut self, meta: &Meta, now: SystemTime, soft_purged: Option<SystemTime>) {
        self.trace.age = Some(meta.age(now));
        self.trace.ttl = Some(meta.ttl_at(now, soft_purged));
        self.note_origin_fields(&meta.fields);
    }
}
