//! HTTP/2 on a connection (RFC 9113): plain hits are answered where streams are accepted; every other stream is a task, with one
//! exchange.

use std::{
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use h2::{
    Reason, RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use parking_lot::Mutex;
use pingora_core::protocols::Stream;
use pingora_timeout::fast_timeout::fast_timeout;

use super::{
    Http2, Limits, UnderscoreHeaders,
    held::{Held, Hold},
    lane::ANSWERS_MAX,
    leaving::LAST_WORD,
};
use crate::{
    proxy::{
        Edge,
        downstream::{ClientGone, Length, OutgoingHead, RequestBody, RequestBodyError, ResponseSink},
        exchange::{self, Parked},
        lane,
        receive::Connection,
        synth::Refusal,
    },
    wire::{Authority, BadRequest, Framing, RawTarget, RequestHead, Version},
};

/// What a stream may receive before the exchange takes it; as much again waits in the connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams that the client reset before they were served: rapid reset (CVE-2023-44487) ends here.
const PENDING_RESETS_MAX: usize = 20;
/// A client that has given up so many streams of a connection, and more than half of all, asks in order to make work:
/// rapid reset again, slow enough to be served.
const ABANDONED_MAX: usize = 256;
/// What one stream may have queued for the connection.
const SEND_BUFFER_MAX: usize = 256 * 1024;

/// Serves a connection until it ends. `prefix` is what was read of it already.
pub async fn serve(edge: &Arc<Edge>, connection: &Arc<Connection>, io: Stream, prefix: BytesMut, http2: &Http2) {
    let limits = edge.snapshot.load().config.server.limits;
    let hold = Arc::new(Hold::default());
    let handshake = Builder::new()
        .max_concurrent_streams(http2.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .handshake::<_, Bytes>(Held::new(prefix, io, Arc::clone(&hold)));
    let Ok(Ok(mut server)) = tokio::time::timeout(limits.header_timeout, handshake).await else { return };
    let mut draining = edge.draining.subscribe();
    let mut leaving = false;
    let mut quiet_since: Option<Instant> = None;
    let streams = Arc::new(Streams::default());
    loop {
        if !leaving && *draining.borrow_and_update() {
            leaving = true;
            quiet_since = None;
            server.graceful_shutdown();
        }
        let patience = if leaving { http2.idle.min(LAST_WORD) } else { http2.idle };
        let idle = idle_left(server.has_streams(), &mut quiet_since, patience);
        tokio::select! {
            accepted = poll_fn(|context| next_stream(&mut server, &hold, context, |request, respond| {
                quiet_since = None;
                streams.begun.fetch_add(1, Ordering::Relaxed);
                Taken::answered_at_once(edge, connection, request, respond, &limits, &streams)
            })) => match accepted {
                Some(Ok(taken)) => {
                    if streams.are_abused() {
                        edge.metrics.connections_refused.with_label_values(&["http2-resets"]).inc();
                        server.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        continue;
                    }
                    let (edge, connection, streams) = (Arc::clone(edge), Arc::clone(connection), Arc::clone(&streams));
                    tokio::spawn(async move { taken.serve(&edge, &connection, &streams).await });
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "HTTP/2 connection ended");
                    return;
                }
                None => return,
            },
            _ = draining.changed(), if !leaving => {}
            () = tokio::time::sleep(idle) => {
                if !server.has_streams() && quiet_since.is_some_and(|since| since.elapsed() >= patience) {
                    if leaving {
                        return;
                    }
                    leaving = true;
                    quiet_since = None;
                    server.graceful_shutdown();
                }
            }
        }
    }
}

/// The streams of a connection, counted.
#[derive(Default)]
struct Streams {
    begun: AtomicUsize,
    /// Given up by the client before they were answered.
    abandoned: AtomicUsize,
}

impl Streams {
    fn are_abused(&self) -> bool {
        let abandoned = self.abandoned.load(Ordering::Relaxed);
        abandoned > ABANDONED_MAX && abandoned > self.begun.load(Ordering::Relaxed) / 2
    }
}

/// How long until a connection without streams has been so for `idle`.
fn idle_left(has_streams: bool, quiet_since: &mut Option<Instant>, idle: Duration) -> Duration {
    if has_streams {
        *quiet_since = None;
        return idle;
    }
    let since = *quiet_since.get_or_insert_with(Instant::now);
    idle.saturating_sub(since.elapsed()).max(Duration::from_millis(10))
}

/// The next stream that is not answered at once. What is ready is taken before what was answered is written.
fn next_stream(
    server: &mut h2::server::Connection<Held, Bytes>,
    hold: &Hold,
    context: &mut Context<'_>,
    mut take: impl FnMut(Request<RecvStream>, SendResponse<Bytes>) -> Option<Taken>,
) -> Poll<Option<Result<Taken, h2::Error>>> {
    let (mut answered, mut holds) = (0, true);
    loop {
        let accepted = hold.during(holds, || server.poll_accept(context));
        match accepted {
            Poll::Ready(Some(Ok((request, respond)))) => match take(request, respond) {
                Some(taken) => return Poll::Ready(Some(Ok(taken))),
                None => {
                    answered += 1;
                    holds = answered % ANSWERS_MAX != 0;
                }
            },
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(None),
            // Now it is written.
            Poll::Pending if holds && hold.take_held() => holds = false,
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// A stream that goes on in a task of its own.
struct Taken {
    next: Next,
    stream: RecvStream,
    is_empty: bool,
    length: Option<u64>,
    out: Out,
    limits: Limits,
}

enum Next {
    Exchange(Box<Parked>),
    Refused(BadRequest),
    /// The rest of a plain hit: more than the client takes at once.
    Rest(Vec<Bytes>, lane::Answered, Instant),
}

impl Taken {
    /// Answers a stream if it is a plain hit. What is left to be done is given back.
    fn answered_at_once(
        edge: &Arc<Edge>,
        connection: &Connection,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        limits: &Limits,
        streams: &Streams,
    ) -> Option<Self> {
        let (parts, stream) = request.into_parts();
        let is_empty = stream.is_end_stream();
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length = if is_empty { Some(0) } else { length };
        let taken = |next, stream, out| Some(Self { next, stream, is_empty, length, out, limits: *limits });
        let head = match head_of(parts, is_empty, length, limits) {
            Ok(head) => head,
            Err(bad) => return taken(Next::Refused(bad), stream, Out::Nothing(respond)),
        };
        let mut begun = exchange::begin(edge, connection, head);
        let may_be_hit = is_empty && !streams.are_abused();
        let Some(hit) = may_be_hit.then(|| begun.hit()).flatten() else {
            // Its task begins a little later.
            begun.look_again();
            return taken(Next::Exchange(Box::new(begun.park())), stream, Out::Nothing(respond));
        };
        let (response, is_whole) = response(begun.head(&hit));
        let answered = lane::Answered::of(begun);
        let length = hit.length();
        let is_sent = match respond.send_response(response, is_whole) {
            Err(_) => false,
            Ok(_) if is_whole => true,
            Ok(mut out) => {
                out.reserve_capacity(usize::try_from(length).unwrap_or(usize::MAX).min(SEND_BUFFER_MAX));
                if (out.capacity() as u64) < length {
                    let rest = Next::Rest(hit.into_pieces().collect(), answered, Instant::now());
                    return taken(rest, stream, Out::Begun(out));
                }
                let mut left = length;
                hit.into_pieces().all(|piece| {
                    left -= piece.len() as u64;
                    out.send_data(piece, left == 0).is_ok()
                })
            }
        };
        if !is_sent {
            streams.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        answered.record(edge, connection, !is_sent, if is_sent { length } else { 0 }, [Instant::now(); 2]);
        None
    }

    async fn serve(self, edge: &Arc<Edge>, connection: &Connection, streams: &Streams) {
        let Self { next, stream, is_empty, length, out, limits } = self;
        let mut sink = Sink {
            started: matches!(out, Out::Begun(_)),
            out: Arc::new(Mutex::new(out)),
            whole: false,
            pending: None,
            within: limits.body_timeout,
            failed: false,
            sent: 0,
        };
        match next {
            Next::Exchange(parked) => {
                let mut body = Body {
                    stream,
                    is_empty,
                    length,
                    limit: limits.body_bytes,
                    received: 0,
                    within: limits.body_timeout,
                };
                exchange::run(parked.resume(edge, connection), &mut body, &mut sink).await;
            }
            Next::Refused(bad) => exchange::refuse(edge, connection, &Refusal::BadRequest(bad), &mut sink).await,
            Next::Rest(pieces, answered, first) => {
                let gone = sink.rest(pieces).await.is_err();
                answered.record(edge, connection, gone, sink.sent, [first, Instant::now()]);
            }
        }
        if sink.is_reset() {
            streams.abandoned.fetch_add(1, Ordering::Relaxed);
        } else if sink.failed {
            sink.reset(Reason::INTERNAL_ERROR);
        }
        // Else dropping both ends does what is left: a body that nobody read is refused with NO_ERROR, behind the answer.
    }
}

/// The head of an answer, and whether it is all there is.
fn response(head: OutgoingHead) -> (Response<()>, bool) {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.fields;
    let announced = match head.length {
        Length::None { announced } => announced,
        Length::Known(length) => Some(length),
        Length::Unknown => None,
    };
    if let Some(length) = announced {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    (response, matches!(head.length, Length::None { .. } | Length::Known(0)))
}

/// The head as every other part of the edge knows it.
fn head_of(
    parts: http::request::Parts,
    is_empty: bool,
    length: Option<u64>,
    limits: &Limits,
) -> Result<RequestHead, BadRequest> {
    let mut fields = parts.headers;
    if fields.len() > limits.header_count {
        return Err(BadRequest::TooManyFields);
    }
    let mut hosts = fields.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().ok().and_then(|host| Authority::parse(host).ok()));
    if hosts.next().is_some() {
        return Err(BadRequest::Host);
    }
    let named = parts.uri.authority().map(|authority| Authority::parse(authority.as_str()).ok());
    // `:authority` and `Host`, where both are there, must agree (RFC 9113 8.3.1).
    let authority = match (named, host) {
        (Some(named), Some(host)) if named != host => return Err(BadRequest::Host),
        (Some(Some(authority)), _) | (None, Some(Some(authority))) => authority,
        _ => return Err(BadRequest::Host),
    };
    let target = match parts.uri.path_and_query() {
        _ if parts.method == Method::CONNECT => RawTarget::Authority,
        Some(target) if target.as_str() == "*" => RawTarget::Asterisk,
        Some(target) if target.as_str().len() > limits.target_bytes => return Err(BadRequest::TargetTooLong),
        Some(target) => RawTarget::Origin(target.as_str().into()),
        None => return Err(BadRequest::Target),
    };
    fields.remove(header::HOST);
    fields.remove(header::CONTENT_LENGTH);
    underscores(&mut fields, limits.underscore_headers)?;
    let expect_continue = fields.get(header::EXPECT).is_some_and(|expect| expect == "100-continue");
    Ok(RequestHead {
        method: parts.method,
        target,
        version: Version::Http2,
        authority: Some(authority),
        fields: Arc::new(fields),
        framing: match (is_empty, length) {
            (true, _) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Chunked,
        },
        keep_alive: true,
        expect_continue,
    })
}

fn underscores(fields: &mut HeaderMap, rule: UnderscoreHeaders) -> Result<(), BadRequest> {
    if rule == UnderscoreHeaders::Pass {
        return Ok(());
    }
    let named: Vec<_> = fields.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    match rule {
        UnderscoreHeaders::Reject if !named.is_empty() => Err(BadRequest::UnderscoreField),
        _ => {
            named.iter().for_each(|name| drop(fields.remove(name)));
            Ok(())
        }
    }
}

/// The body of a stream. Trailers are not asked for.
struct Body {
    stream: RecvStream,
    is_empty: bool,
    length: Option<u64>,
    limit: u64,
    received: u64,
    within: Duration,
}

impl RequestBody for Body {
    fn is_empty(&self) -> bool {
        self.is_empty
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn limit(&mut self, bytes: u64, within: Option<Duration>) {
        self.limit = self.limit.min(bytes);
        self.within = within.unwrap_or(self.within);
    }

    async fn next(&mut self) -> Result<Option<Bytes>, RequestBodyError> {
        let piece = match fast_timeout(self.within, self.stream.data()).await {
            Err(_) => return Err(RequestBodyError::Timeout),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(RequestBodyError::Gone),
            Ok(Some(Ok(piece))) => piece,
        };
        self.received += piece.len() as u64;
        if self.received > self.limit {
            return Err(RequestBodyError::TooLarge);
        }
        // The window opens as the exchange takes: backpressure. A stream that is over does not mind.
        let _ = self.stream.flow_control().release_capacity(piece.len());
        Ok(Some(piece))
    }

    fn received(&self) -> u64 {
        self.received
    }
}

/// Where the answer of a stream goes. One piece is held back, so that the last can carry END_STREAM.
struct Sink {
    out: Arc<Mutex<Out>>,
    /// The head was all there is.
    whole: bool,
    pending: Option<Bytes>,
    within: Duration,
    started: bool,
    failed: bool,
    sent: u64,
}

/// A stream's sending side, before and after its head. Shared with who waits for its reset; locked for single calls.
enum Out {
    Nothing(SendResponse<Bytes>),
    Begun(SendStream<Bytes>),
}

impl Out {
    /// Ready once the client has reset the stream, or its connection is gone.
    fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Nothing(respond) => respond.poll_reset(context),
            Self::Begun(stream) => stream.poll_reset(context),
        }
        .map(drop)
    }

    fn stream(&mut self) -> Option<&mut SendStream<Bytes>> {
        match self {
            Self::Nothing(_) => None,
            Self::Begun(stream) => Some(stream),
        }
    }
}

impl Sink {
    async fn send(&mut self, mut piece: Bytes, is_last: bool) -> Result<(), ClientGone> {
        while !piece.is_empty() {
            let wanted = piece.len().min(SEND_BUFFER_MAX);
            if let Some(stream) = self.out.lock().stream() {
                stream.reserve_capacity(wanted);
            }
            let out = &self.out;
            let capacity = poll_fn(|context| match out.lock().stream() {
                Some(stream) => stream.poll_capacity(context),
                None => Poll::Ready(None),
            });
            let room = match fast_timeout(self.within, capacity).await {
                Ok(Some(Ok(room))) => room.min(piece.len()),
                _ => return Err(self.gone()),
            };
            let now = piece.split_to(room);
            let end = is_last && piece.is_empty();
            self.put(now, end)?;
            if end {
                return Ok(());
            }
        }
        if is_last { self.put(Bytes::new(), true) } else { Ok(()) }
    }

    fn put(&mut self, piece: Bytes, end: bool) -> Result<(), ClientGone> {
        let put = self.out.lock().stream().is_some_and(|stream| stream.send_data(piece, end).is_ok());
        if put { Ok(()) } else { Err(self.gone()) }
    }

    /// Sends the rest of an answer.
    async fn rest(&mut self, pieces: Vec<Bytes>) -> Result<(), ClientGone> {
        for piece in pieces {
            self.body(piece).await?;
        }
        self.end().await
    }

    fn gone(&mut self) -> ClientGone {
        self.failed = true;
        ClientGone
    }

    /// Has the client given up this stream?
    fn is_reset(&self) -> bool {
        self.out.lock().poll_reset(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    fn reset(&self, reason: Reason) {
        match &mut *self.out.lock() {
            Out::Nothing(respond) => respond.send_reset(reason),
            Out::Begun(stream) => stream.send_reset(reason),
        }
    }
}

impl ResponseSink for Sink {
    fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        let out = Arc::clone(&self.out);
        poll_fn(move |context| out.lock().poll_reset(context))
    }

    async fn interim(&mut self, status: StatusCode, fields: &HeaderMap) -> Result<(), ClientGone> {
        if self.started {
            return Ok(());
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields.clone();
        match &mut *self.out.lock() {
            Out::Nothing(respond) => respond.send_informational(response).map_err(|_| ClientGone),
            Out::Begun(_) => Ok(()),
        }
    }

    async fn head(&mut self, head: &OutgoingHead) -> Result<(), ClientGone> {
        self.started = true;
        let (response, is_whole) = response(head.clone());
        let begun = {
            let mut out = self.out.lock();
            match &mut *out {
                Out::Nothing(respond) => match respond.send_response(response, is_whole) {
                    Ok(stream) => {
                        *out = Out::Begun(stream);
                        true
                    }
                    Err(_) => false,
                },
                Out::Begun(_) => false,
            }
        };
        self.whole = is_whole;
        if begun { Ok(()) } else { Err(self.gone()) }
    }

    async fn body(&mut self, piece: Bytes) -> Result<(), ClientGone> {
        if piece.is_empty() {
            return Ok(());
        }
        self.sent += piece.len() as u64;
        match self.pending.replace(piece) {
            Some(earlier) => self.send(earlier, false).await,
            None => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), ClientGone> {
        match self.pending.take() {
            Some(piece) => self.send(piece, false).await,
            None => Ok(()),
        }
    }

    async fn end(&mut self) -> Result<(), ClientGone> {
        if self.whole {
            return Ok(());
        }
        let last = self.pending.take().unwrap_or_default();
        self.send(last, true).await
    }

    fn abort(&mut self) {
        self.failed = true;
    }

    fn started(&self) -> bool {
        self.started
    }

    fn sent(&self) -> u64 {
        self.sent
    }
}
