//! Step 4: one exchange with an origin: choose a peer, connect, send, read the head; again elsewhere where allowed.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header::UPGRADE};
use pingora_core::protocols::Stream;
use tokio::io::AsyncRead;

use super::{Edge, fields, routing::Route};
use crate::{
    cache::Times,
    store::{Broken, Failure},
    upstream::{self, Connection, HostPolicy, Lease, PeerId, Pool, Retries, RetryWhen, Timeouts},
    wire::{
        self, BodyReader, Framing, HeadLimits, HeadReader, Lines, ResponseHead, Step,
        io::{IoError, Outgoing, Timer},
    },
};

/// What an origin's head may weigh: more than a client's, since it carries surrogate keys and cookies.
pub const ORIGIN_HEAD: HeadLimits = HeadLimits {
    header_bytes: 64 * 1024,
    header_count: 200,
    target_bytes: 0,
    underscore_headers: wire::UnderscoreHeaders::Pass,
};
/// A wait that something else bounds.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);
/// Interim responses before the final one; an origin that sends more is not answering.
pub const INTERIM_MAX: usize = 16;

/// What is asked of an origin.
#[derive(Clone)]
pub struct OriginRequest {
    pub method: Method,
    /// Path and query as the origin is to see them.
    pub target: String,
    /// `Host` under `host: client`.
    pub client_host: String,
    pub fields: HeaderMap,
    /// What we say beside them: who asks, by which way, under which name.
    pub lines: Lines,
    pub timeouts: Timeouts,
    pub route: Arc<Route>,
    pub pool: Arc<Pool>,
    /// The room, where the route is sticky.
    pub sticky: Option<String>,
    /// May the answer be for others too? Then nothing goes with it that would shape it for one.
    pub is_shared: bool,
}

impl OriginRequest {
    /// The route's, or its upstream's.
    pub fn retries(&self) -> &Retries {
        self.route.retries.as_ref().unwrap_or(&self.pool.config().retries)
    }
}

/// The body that goes with it, where it is at hand.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    pub framing: Option<u64>,
    pub pieces: Vec<Bytes>,
}

/// An origin's answer: its head, and its body still to be read.
pub struct OriginResponse<R = Stream> {
    pub status: StatusCode,
    /// Hop-by-hop fields removed, `Date` present.
    pub fields: HeaderMap,
    pub length: Option<u64>,
    pub framing: Framing,
    pub times: Times,
    pub body: Box<OriginBody<R>>,
    pub seen: Seen,
}

/// What the record says of the origin's part.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub peer: Option<PeerId>,
    pub status: Option<u16>,
    pub tries: u32,
    /// From the last try's request to its response head.
    pub took: Option<Duration>,
}

/// Takes interim responses while the final one is awaited.
pub trait Interim: Send {
    fn relay(&mut self, status: StatusCode, fields: HeaderMap) -> impl Future<Output = ()> + Send;
}

/// Drops interim responses.
pub struct Discard;

impl Interim for Discard {
    async fn relay(&mut self, _: StatusCode, _: HeaderMap) {}
}

/// A try that brought no answer.
#[derive(Debug, Clone, Copy)]
struct Failed {
    failure: Failure,
    /// Nothing of the request had been sent.
    unsent: bool,
    /// It went over a connection that had been used before and brought not one byte.
    stale: bool,
    when: Option<RetryWhen>,
}

/// Asks `pool`, with further tries as the request's retries allow. The body must be at hand.
pub async fn fetch(
    edge: &Edge,
    pool: &Arc<Pool>,
    request: &OriginRequest,
    payload: &Payload,
    interim: &mut impl Interim,
) -> Result<OriginResponse, (Failure, Seen)> {
    let mut tries = Tries::new(edge, pool, request);
    loop {
        let (lease, fresh) = tries.next_peer()?;
        let started = Instant::now();
        let asked_at = edge.clock.now();
        match attempt(edge, &lease, fresh, request, payload, interim).await {
            Ok((head, source)) => {
                let status = head.status.as_u16();
                let took = started.elapsed();
                lease.peer().observe_first_byte(took);
                if tries.again_after_status(&lease, status) {
                    continue;
                }
                tries.seen.status = Some(status);
                tries.seen.took = Some(took);
                let times = Times { request_time: asked_at, response_time: edge.clock.now() };
                return Ok(respond(head, times, source, lease, request.timeouts, started, tries.seen));
            }
            Err(failed) => tries.after_failure(&lease, failed)?,
        }
    }
}

/// Counts tries and says whether there may be another.
pub struct Tries<'a> {
    pool: &'a Arc<Pool>,
    request: &'a OriginRequest,
    edge: &'a Edge,
    tried: Vec<PeerId>,
    left: u32,
    fresh: bool,
    pub seen: Seen,
    last: Option<Failure>,
}

impl<'a> Tries<'a> {
    pub fn new(edge: &'a Edge, pool: &'a Arc<Pool>, request: &'a OriginRequest) -> Self {
        pool.note_request(Instant::now());
        Self {
            pool,
            request,
            edge,
            tried: Vec::new(),
            left: request.retries().max,
            fresh: false,
            seen: Seen::default(),
            last: None,
        }
    }

    /// The peer to ask now, and whether only over a new connection.
    pub fn next_peer(&mut self) -> Result<(Lease, bool), (Failure, Seen)> {
        let ask = upstream::Ask { sticky: self.request.sticky.as_deref(), tried: &self.tried };
        match self.pool.choose(&ask) {
            Ok(lease) => {
                self.seen.tries += 1;
                self.seen.peer = Some(lease.peer().id().clone());
                Ok((lease, std::mem::take(&mut self.fresh)))
            }
            Err(_) => {
                let none = Failure { status: StatusCode::SERVICE_UNAVAILABLE, error: "destination_unavailable" };
                Err((self.last.unwrap_or(none), self.seen.clone()))
            }
        }
    }

    /// Counts the status; true when it is one that is tried again elsewhere.
    fn again_after_status(&mut self, lease: &Lease, status: u16) -> bool {
        lease.peer().count_status(status);
        let retries = self.request.retries();
        let wanted = retries.when.contains(&RetryWhen::Status(status))
            && (self.request.method.is_idempotent() || retries.non_idempotent)
            && self.pool.peers().len() > 1;
        wanted && self.take(lease)
    }

    /// Counts the failure; an error when this was the last try.
    fn after_failure(&mut self, lease: &Lease, failed: Failed) -> Result<(), (Failure, Seen)> {
        lease.peer().count_failure(failed.failure.error);
        self.last = Some(failed.failure);
        let repeatable = failed.unsent || self.request.method.is_idempotent() || self.request.retries().non_idempotent;
        if failed.stale && repeatable {
            // The origin closed an idle connection in the moment we took it: not a failure of the peer. Once, and over
            // a connection that cannot be stale.
            self.fresh = true;
            return Ok(());
        }
        let wanted = failed.when.is_some_and(|when| self.request.retries().when.contains(&when));
        if wanted && repeatable && self.take(lease) { Ok(()) } else { Err((failed.failure, self.seen.clone())) }
    }

    fn take(&mut self, lease: &Lease) -> bool {
        if self.left == 0 || !self.pool.retry_allowed(self.request.retries(), Instant::now()) {
            return false;
        }
        self.left -= 1;
        self.tried.push(lease.peer().id().clone());
        true
    }

    /// A connection for a request whose body is not at hand: failures to connect are tried again.
    pub async fn connect(&mut self) -> Result<(Lease, Stream), (Failure, Seen)> {
        loop {
            // A body that is gone cannot be sent twice: only a new connection is sure not to be stale.
            let (lease, _) = self.next_peer()?;
            match self.edge.connector.connect(lease.peer(), &self.request.timeouts, true).await {
                Ok(connection) => return Ok((lease, connection.stream)),
                Err(error) => self.after_failure(&lease, connect_failed(error))?,
            }
        }
    }
}

fn connect_failed(error: upstream::ConnectError) -> Failed {
    let status = match error {
        upstream::ConnectError::Timeout => StatusCode::GATEWAY_TIMEOUT,
        upstream::ConnectError::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    Failed {
        failure: Failure { status, error: error.reason() },
        unsent: true,
        stale: false,
        when: Some(RetryWhen::Connect),
    }
}

async fn attempt(
    edge: &Edge,
    lease: &Lease,
    fresh: bool,
    request: &OriginRequest,
    payload: &Payload,
    interim: &mut impl Interim,
) -> Result<(ResponseHead, Source), Failed> {
    let connection = edge.connector.connect(lease.peer(), &request.timeouts, fresh).await.map_err(connect_failed)?;
    let Connection { stream, timer, buf, reused } = connection;
    let mut source = Source { stream, timer, buf };
    let mut out = outgoing(lease, request, payload.framing.map_or(Framing::None, Framing::Length));
    out.extend(payload.pieces.iter().cloned());
    if let Err(error) = wire::io::write_all(&mut source.stream, &mut out, request.timeouts.between_bytes).await {
        // The origin may have answered before it closed; without an answer this is what failed.
        tracing::debug!(peer = %lease.peer().id(), %error, "the request was not taken");
    }
    match read_head(&mut source, request, Some(request.timeouts.first_byte), interim).await {
        Ok(head) => Ok((head, source)),
        Err(error) => Err(error.failed(reused && source.buf.is_empty())),
    }
}

/// Where an answer is read from.
pub struct Source<R = Stream> {
    pub stream: R,
    pub timer: Timer,
    /// What has been read and not yet looked at.
    pub buf: BytesMut,
}

/// The request head as it goes to this peer.
pub fn outgoing(lease: &Lease, request: &OriginRequest, framing: Framing) -> Outgoing {
    let host = match &request.pool.config().host {
        HostPolicy::Client => &request.client_host,
        HostPolicy::Peer => lease.peer().address(),
        HostPolicy::Literal(host) => host.to_str().unwrap_or_default(),
    };
    let OriginRequest { method, target, fields, lines, .. } = request;
    let mut out = Outgoing::new();
    wire::write_request_head(out.head(), method, target, host, fields, lines, framing);
    out
}

/// Why no head came.
#[derive(Debug)]
pub enum NoHead {
    Closed,
    Timeout,
    Malformed,
}

impl NoHead {
    pub fn failure(&self) -> Failure {
        match self {
            Self::Closed => Failure { status: StatusCode::BAD_GATEWAY, error: "connection_terminated" },
            Self::Timeout => Failure { status: StatusCode::GATEWAY_TIMEOUT, error: "http_response_timeout" },
            Self::Malformed => Failure { status: StatusCode::BAD_GATEWAY, error: "http_protocol_error" },
        }
    }

    fn failed(&self, stale: bool) -> Failed {
        let closed = matches!(self, Self::Closed);
        Failed {
            failure: self.failure(),
            unsent: false,
            stale: stale && closed,
            when: closed.then_some(RetryWhen::Reset),
        }
    }
}

/// Reads the final head; what follows it stays in the buffer. Safe to be dropped and called again.
pub async fn read_head<R: AsyncRead + Unpin + Send>(
    from: &mut Source<R>,
    request: &OriginRequest,
    within: Option<Duration>,
    interim: &mut impl Interim,
) -> Result<ResponseHead, NoHead> {
    let Source { stream, timer, buf } = from;
    let deadline = within.map(|within| Instant::now() + within);
    let mut reader = HeadReader::new(ORIGIN_HEAD);
    for _ in 0..=INTERIM_MAX {
        let head = loop {
            match reader.response(buf, &request.method) {
                Ok(Some(head)) => break head,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, target = %request.target, "the origin's answer is not HTTP");
                    return Err(NoHead::Malformed);
                }
            }
            // Without a deadline of its own this waits as long as the request body keeps coming.
            let left = deadline.map_or(FOREVER, |at| at.saturating_duration_since(Instant::now()));
            match wire::io::read_some(stream, buf, wire::io::READ_HEAD, left, timer).await {
                Ok(0) | Err(IoError::Io(_)) => return Err(NoHead::Closed),
                Ok(_) => {}
                Err(IoError::Timeout(_)) => return Err(NoHead::Timeout),
            }
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS && !request.fields.contains_key(UPGRADE) {
            tracing::warn!(target = %request.target, "the origin switched protocols without being asked to");
            return Err(NoHead::Malformed);
        }
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(head);
        }
        if head.status != StatusCode::CONTINUE {
            let mut fields = head.fields;
            fields::strip_hop_by_hop(&mut fields);
            interim.relay(head.status, fields).await;
        }
    }
    Err(NoHead::Malformed)
}

/// Turns a head and a connection into an answer.
pub fn respond<R>(
    head: ResponseHead,
    times: Times,
    source: Source<R>,
    lease: Lease,
    timeouts: Timeouts,
    started: Instant,
    seen: Seen,
) -> OriginResponse<R> {
    let mut response_fields = head.fields;
    fields::from_origin(&mut response_fields, times.response_time);
    OriginResponse {
        status: head.status,
        fields: response_fields,
        length: head.content_length,
        framing: head.framing,
        times,
        body: Box::new(OriginBody {
            stream: Some(source.stream),
            timer: source.timer,
            buf: source.buf,
            reader: BodyReader::new(head.framing, None),
            keep_alive: head.keep_alive,
            lease,
            timeouts,
            started,
        }),
        seen,
    }
}

/// The body of an origin's answer and the connection that it comes from.
pub struct OriginBody<R = Stream> {
    stream: Option<R>,
    timer: Timer,
    buf: BytesMut,
    reader: BodyReader,
    keep_alive: bool,
    lease: Lease,
    timeouts: Timeouts,
    started: Instant,
}

impl<R: AsyncRead + Unpin + Send> OriginBody<R> {
    /// What has come already, or the end (an empty answer), without waiting.
    pub fn ready(&mut self) -> Option<Result<Vec<Bytes>, Broken>> {
        let mut pieces = Vec::new();
        loop {
            match self.reader.read(&mut self.buf) {
                Ok(Step::Data(piece)) => pieces.push(piece),
                Ok(Step::More) if pieces.is_empty() => return None,
                Ok(Step::End) if pieces.is_empty() => {
                    self.lease.peer().observe_duration(self.started.elapsed());
                    return Some(Ok(Vec::new()));
                }
                Ok(Step::More | Step::End) => return Some(Ok(pieces)),
                Err(error) => {
                    tracing::warn!(peer = %self.lease.peer().id(), %error, "the origin's body is broken");
                    self.fail("http_protocol_error");
                    return Some(Err(Broken::Origin));
                }
            }
        }
    }

    /// The next pieces; empty at the end. A body that breaks off is an error.
    pub async fn next(&mut self) -> Result<Vec<Bytes>, Broken> {
        loop {
            if let Some(ready) = self.ready() {
                return ready;
            }
            let Some(stream) = &mut self.stream else { return Err(Broken::Origin) };
            let within = self.timeouts.between_bytes;
            match wire::io::read_some(stream, &mut self.buf, wire::io::READ_BODY, within, &mut self.timer).await {
                Ok(0) => {
                    if self.reader.eof().is_ok() {
                        self.keep_alive = false;
                        self.lease.peer().observe_duration(self.started.elapsed());
                        return Ok(Vec::new());
                    }
                    self.fail("http_response_incomplete");
                    return Err(Broken::Origin);
                }
                Ok(_) => {}
                Err(IoError::Timeout(_)) => {
                    self.fail("connection_read_timeout");
                    return Err(Broken::Origin);
                }
                Err(IoError::Io(_)) => {
                    self.fail("connection_terminated");
                    return Err(Broken::Origin);
                }
            }
        }
    }

    /// The peer that answers, and what made the choice.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    fn fail(&mut self, reason: &'static str) {
        self.keep_alive = false;
        self.stream = None;
        self.lease.peer().count_failure(reason);
    }

    /// Takes the connection out: what was read beyond the head, the stream, and the lease that counts it.
    pub fn into_parts(self) -> (BytesMut, Option<R>, Lease) {
        (self.buf, self.stream, self.lease)
    }

    /// Did it end cleanly, so that the connection may carry another exchange?
    pub fn is_reusable(&self) -> bool {
        self.keep_alive && self.reader.is_end() && self.buf.is_empty()
    }
}

impl OriginBody<Stream> {
    /// Gives the connection back if the answer ended cleanly; else it is closed.
    pub fn release(mut self, edge: &Edge) {
        if self.is_reusable()
            && let Some(stream) = self.stream.take()
        {
            let connection = Connection { stream, timer: self.timer, buf: self.buf, reused: true };
            edge.connector.release(self.lease.peer(), connection, self.timeouts.keepalive);
        }
    }
}
