//! The HTTP/1.1 loop of a connection: one head, one exchange, again, in order.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncWrite, ReadHalf, WriteHalf};

use super::{
    Limits,
    lane::Lane,
    leaving::{LAST_WORD, Leaving},
    linger::linger,
    tunnel,
};
use crate::{
    proxy::{
        Edge,
        downstream::{ClientGone, OutgoingHead, RequestBody, RequestBodyError, ResponseSink},
        exchange::{self, Begun, Ended},
        receive::Connection,
        synth::Refusal,
        websocket::{Opened, Socket},
    },
    wire::{
        self, BodyError, BodyReader, BodyWriter, Framing, HeadLimits, HeadReader, RequestHead, Step, Version,
        io::{IoError, Outgoing, Timer},
    },
};

/// What an HTTP/2 client says first (RFC 9113 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A body that nobody wanted is read up to here to keep the connection; a larger one costs it.
const DISCARD_MAX: u64 = 256 * 1024;
/// Pieces that are gathered before they are written: one vectored write.
const GATHER_PIECES_MAX: usize = 64;
/// Bytes that are gathered before they are written.
const GATHER_BYTES_MAX: usize = 256 * 1024;

/// How the loop ended.
pub enum Left {
    Closed,
    /// The client speaks HTTP/2 without having been asked: these are its first bytes.
    Http2(Stream, BytesMut),
}

/// What comes after waiting for a head.
enum Next {
    Head(RequestHead),
    Http2,
    Refused(Refusal),
    Closed,
}

/// Serves a connection until it ends.
pub async fn serve(edge: &Arc<Edge>, connection: &Arc<Connection>, mut io: Stream) -> Left {
    let mut input = BytesMut::new();
    let mut timer = Timer::default();
    let mut leaving = Leaving::of(&edge.draining);
    let mut is_first = true;
    let mut lane = Lane::new(edge, connection);
    let mut limits = edge.snapshot.load().config.server.limits;
    let mut reader = HeadReader::new(head_limits(&limits));
    loop {
        let next =
            next_head(&mut io, &mut input, &mut timer, &limits, is_first, &mut reader, &mut leaving, &mut lane).await;
        is_first = false;
        match next {
            Next::Head(head) => {
                let way = Way::of(&head);
                let mut rest = Some(exchange::begin(edge, connection, head));
                if let Some(begun) = &rest {
                    limits = begun.exchange.snapshot.config.server.limits;
                    reader.limit(head_limits(&limits));
                }
                let keep_alive = way.keep_alive && !leaving.has_begun();
                if way.is_bodyless() {
                    lane.take(&mut rest, keep_alive);
                }
                if rest.is_none() && keep_alive && !lane.is_full() {
                    continue;
                }
                let is_behind = !lane.is_empty();
                let kept = match (lane.flush(&mut io, limits.body_timeout).await, rest) {
                    (Err(_), _) => Kept::Cut,
                    (Ok(()), Some(mut begun)) => {
                        if is_behind {
                            begun.begin_again(Instant::now());
                        }
                        serve_one(begun, &way, &mut io, &mut input, &limits).await
                    }
                    (Ok(()), None) if keep_alive => Kept::Open,
                    (Ok(()), None) => Kept::Linger,
                };
                match kept {
                    Kept::Open => {}
                    Kept::Linger => {
                        linger(&mut io).await;
                        return Left::Closed;
                    }
                    Kept::Cut => return Left::Closed,
                    Kept::Switched(socket, opened) => {
                        switch(edge, connection, io, input.freeze(), *socket, *opened);
                        return Left::Closed;
                    }
                }
            }
            Next::Http2 => return Left::Http2(io, input),
            Next::Refused(refusal) => {
                let mut sink = Sink::new(Out::Whole(&mut io), Version::Http11, false, limits.body_timeout);
                exchange::refuse(edge, connection, &refusal, &mut sink).await;
                linger(&mut io).await;
                return Left::Closed;
            }
            Next::Closed => return Left::Closed,
        }
    }
}

/// The socket lives in a small task of its own; the big one of this connection ends.
fn switch(edge: &Arc<Edge>, connection: &Arc<Connection>, io: Stream, early: Bytes, socket: Socket, opened: Opened) {
    let (edge, connection) = (Arc::clone(edge), Arc::clone(connection));
    tokio::spawn(async move {
        let cut = connection.door.until_cut();
        let (carried, talking) = tunnel::carry(io, early, socket, cut).await;
        opened.closed(&edge, &connection, carried.close.into(), carried.from_client, carried.to_client);
        if let Some(mut client) = talking {
            // Seldom needed, so it does not count in the size of every socket's task.
            let leaving = Box::pin(linger(&mut client));
            tokio::select! {
                () = leaving => {}
                () = connection.door.until_cut() => {}
            }
        }
    });
}

/// Waits for the next head: idle time to its first byte, then one deadline to its last. Whatever is answered is written
/// before: how long the client takes for that is no time of its next head.
#[expect(clippy::too_many_arguments, reason = "the state of the loop, taken apart")]
async fn next_head(
    io: &mut Stream,
    input: &mut BytesMut,
    timer: &mut Timer,
    limits: &Limits,
    is_first: bool,
    reader: &mut HeadReader,
    leaving: &mut Leaving,
    lane: &mut Lane<'_>,
) -> Next {
    let mut begun: Option<Instant> = None;
    loop {
        let may_be_http2 =
            is_first && !input.is_empty() && PREFACE.starts_with(&input[..input.len().min(PREFACE.len())]);
        if may_be_http2 && input.len() >= PREFACE.len() {
            return Next::Http2;
        }
        let head = if may_be_http2 { Ok(None) } else { reader.request(input) };
        if let Ok(Some(head)) = head {
            return Next::Head(head);
        }
        if lane.flush(io, limits.body_timeout).await.is_err() {
            return Next::Closed;
        }
        if let Err(bad) = head {
            return Next::Refused(Refusal::BadRequest(bad));
        }
        if !input.is_empty() {
            begun.get_or_insert_with(Instant::now);
        }
        let read = match begun {
            Some(begun) => {
                let left = limits.header_timeout.saturating_sub(begun.elapsed());
                wire::io::read_some(io, input, 0, left, timer).await
            }
            None => {
                let is_leaving = leaving.has_begun();
                let within = match (is_first, is_leaving) {
                    (true, _) => limits.header_timeout,
                    (false, true) => LAST_WORD.min(limits.idle_timeout),
                    (false, false) => limits.idle_timeout,
                };
                tokio::select! {
                    biased;
                    read = wire::io::read_some(io, input, 0, within, timer) => read,
                    () = leaving.begun(), if !is_leaving => continue,
                }
            }
        };
        match read {
            Ok(0) if input.is_empty() => return Next::Closed,
            // Half a head is no request, and its sender waits for no answer.
            Ok(0) | Err(IoError::Io(_)) => return Next::Closed,
            Ok(_) => {}
            Err(IoError::Timeout(_)) if begun.is_some() => return Next::Refused(Refusal::HeadTimeout),
            Err(IoError::Timeout(_)) => return Next::Closed,
        }
    }
}

fn head_limits(limits: &Limits) -> HeadLimits {
    let Limits { header_bytes, header_count, target_bytes, underscore_headers, .. } = *limits;
    HeadLimits { header_bytes, header_count, target_bytes, underscore_headers }
}

/// What may be done with the connection after an exchange.
enum Kept {
    Open,
    /// It ends; the client may still be sending.
    Linger,
    /// It ends at once, so that the client sees that its answer is cut off.
    Cut,
    Switched(Box<Socket>, Box<Opened>),
}

/// What of a request head the connection must know.
struct Way {
    version: Version,
    keep_alive: bool,
    framing: Framing,
    expect_continue: bool,
}

impl Way {
    fn of(head: &RequestHead) -> Self {
        let RequestHead { version, keep_alive, framing, expect_continue, .. } = *head;
        Self { version, keep_alive, framing, expect_continue }
    }

    fn is_bodyless(&self) -> bool {
        matches!(self.framing, Framing::None | Framing::Length(0))
    }
}

async fn serve_one(begun: Begun<'_>, way: &Way, io: &mut Stream, input: &mut BytesMut, limits: &Limits) -> Kept {
    let Way { version, keep_alive, framing, expect_continue } = *way;
    let within = limits.body_timeout;
    if way.is_bodyless() {
        let mut sink = Sink::new(Out::Whole(io), version, keep_alive, within);
        let ended = exchange::run(begun, &mut Body::none(), &mut sink).await;
        if let Ended::Switched(socket, opened) = ended {
            return Kept::Switched(socket, opened);
        }
        return sink.kept();
    }
    let length = if let Framing::Length(length) = framing { Some(length) } else { None };
    let left = AtomicU64::new(length.unwrap_or(u64::MAX));
    let (read, write) = tokio::io::split(io);
    let mut body = Body {
        io: Some(read),
        input: Some(input),
        reader: BodyReader::new(framing, Some(limits.body_bytes)),
        length,
        left: Some(&left),
        limit: u64::MAX,
        within,
        timer: Timer::default(),
        failed: None,
    };
    let mut sink = Sink::new(Out::Half(write), version, keep_alive, within);
    sink.unread = Some(&left);
    sink.promised = !expect_continue;
    exchange::run(begun, &mut body, &mut sink).await;
    match sink.kept() {
        Kept::Open if body.discard().await => Kept::Open,
        Kept::Open => Kept::Linger,
        kept => kept,
    }
}

/// The body of an HTTP/1.1 request.
struct Body<'a> {
    io: Option<ReadHalf<&'a mut Stream>>,
    input: Option<&'a mut BytesMut>,
    reader: BodyReader,
    length: Option<u64>,
    /// What is to come, where the sink can see it.
    left: Option<&'a AtomicU64>,
    limit: u64,
    within: Duration,
    timer: Timer,
    failed: Option<RequestBodyError>,
}

impl Body<'_> {
    fn none() -> Self {
        Self {
            io: None,
            input: None,
            reader: BodyReader::new(Framing::None, None),
            length: None,
            left: None,
            limit: u64::MAX,
            within: Duration::ZERO,
            timer: Timer::default(),
            failed: None,
        }
    }

    /// Reads what is left, if it is little; true when the next head may follow.
    async fn discard(&mut self) -> bool {
        let until = self.reader.received() + DISCARD_MAX;
        loop {
            match self.next().await {
                Ok(None) => return true,
                Ok(Some(_)) if self.reader.received() <= until => {}
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, RequestBodyError> {
        let (Some(io), Some(input)) = (&mut self.io, &mut self.input) else { return Ok(None) };
        loop {
            match self.reader.read(input) {
                Ok(Step::Data(_)) if self.reader.received() > self.limit => return Err(RequestBodyError::TooLarge),
                Ok(Step::Data(piece)) => return Ok(Some(piece)),
                Ok(Step::End) => return Ok(None),
                Ok(Step::More) => {}
                Err(BodyError::TooLarge) => return Err(RequestBodyError::TooLarge),
                Err(_) => return Err(RequestBodyError::Malformed),
            }
            match wire::io::read_some(io, input, wire::io::READ_BODY, self.within, &mut self.timer).await {
                Ok(0) | Err(IoError::Io(_)) => return Err(RequestBodyError::Gone),
                Ok(_) => {}
                Err(IoError::Timeout(_)) => return Err(RequestBodyError::Timeout),
            }
        }
    }
}

impl RequestBody for Body<'_> {
    fn is_empty(&self) -> bool {
        self.io.is_none() || self.length == Some(0)
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn limit(&mut self, bytes: u64, within: Option<Duration>) {
        self.limit = bytes;
        self.within = within.unwrap_or(self.within);
    }

    async fn next(&mut self) -> Result<Option<Bytes>, RequestBodyError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let read = self.read().await;
        self.failed = read.as_ref().err().copied();
        if let Some(left) = self.left {
            match self.length {
                _ if self.reader.is_end() => left.store(0, Ordering::Relaxed),
                Some(length) => left.store(length.saturating_sub(self.reader.received()), Ordering::Relaxed),
                None => {}
            }
        }
        read
    }

    fn received(&self) -> u64 {
        self.reader.received()
    }
}

/// The writing side of a connection, whole or split off for an upload.
enum Out<'a> {
    Whole(&'a mut Stream),
    Half(WriteHalf<&'a mut Stream>),
}

impl AsyncWrite for Out<'_> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Whole(io) => Pin::new(io).poll_write(context, data),
            Self::Half(io) => Pin::new(io).poll_write(context, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Whole(io) => Pin::new(io).poll_write_vectored(context, slices),
            Self::Half(io) => Pin::new(io).poll_write_vectored(context, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Whole(io) => Pin::new(io).poll_flush(context),
            Self::Half(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Whole(io) => Pin::new(io).poll_shutdown(context),
            Self::Half(io) => Pin::new(io).poll_shutdown(context),
        }
    }
}

/// Where an HTTP/1.1 answer goes.
struct Sink<'a> {
    io: Out<'a>,
    version: Version,
    keep_alive: bool,
    within: Duration,
    out: Outgoing,
    waiting: usize,
    writer: Option<BodyWriter>,
    state: Progress,
    sent: u64,
    /// Bytes of the request's body that nobody has read yet.
    unread: Option<&'a AtomicU64>,
    /// Whether the client sends its body without being told to.
    promised: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Nothing,
    Begun,
    Ended,
    Failed,
}

impl<'a> Sink<'a> {
    fn new(io: Out<'a>, version: Version, keep_alive: bool, within: Duration) -> Self {
        Self {
            io,
            version,
            keep_alive,
            within,
            out: Outgoing::new(),
            waiting: 0,
            writer: None,
            state: Progress::Nothing,
            sent: 0,
            unread: None,
            promised: true,
        }
    }

    /// Can the rest of the request's body be read past to the next request? Not when it is long or nobody knows how
    /// long, and not when the client waits to be told whether to send it: what comes next could then be either
    /// (RFC 9110 10.1.1).
    fn can_be_skipped(&self) -> bool {
        let left = self.unread.map_or(0, |unread| unread.load(Ordering::Relaxed));
        left == 0 || (self.promised && left <= DISCARD_MAX)
    }

    fn kept(&self) -> Kept {
        match self.state {
            Progress::Ended if self.keep_alive => Kept::Open,
            Progress::Ended => Kept::Linger,
            Progress::Nothing | Progress::Begun | Progress::Failed => Kept::Cut,
        }
    }

    async fn write(&mut self) -> Result<(), ClientGone> {
        self.waiting = 0;
        if self.out.is_empty() {
            return Ok(());
        }
        match wire::io::write_all(&mut self.io, &mut self.out, self.within).await {
            Ok(()) => Ok(()),
            Err(_) => {
                self.state = Progress::Failed;
                Err(ClientGone)
            }
        }
    }
}

impl ResponseSink for Sink<'_> {
    /// A client that ended its side may still read, and one that left is noticed when it is written to.
    fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }

    async fn interim(&mut self, status: StatusCode, fields: &HeaderMap) -> Result<(), ClientGone> {
        // HTTP/1.0 knows no interim responses (RFC 9110 15.2).
        if self.version == Version::Http10 || self.state != Progress::Nothing {
            return Ok(());
        }
        self.promised |= status == StatusCode::CONTINUE;
        wire::write_response_head(self.out.head(), self.version, status, fields, Framing::None, None, true);
        self.write().await
    }

    async fn head(&mut self, head: &OutgoingHead) -> Result<(), ClientGone> {
        let (framing, announced) = head.length.framing(self.version);
        self.keep_alive &= !head.close && framing != Framing::UntilClose && self.can_be_skipped();
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let keep_alive = self.keep_alive || switching;
        let out = self.out.head();
        wire::write_response_head(out, self.version, head.status, &head.fields, framing, announced, keep_alive);
        self.writer = Some(BodyWriter::new(framing));
        self.state = Progress::Begun;
        Ok(())
    }

    async fn body(&mut self, piece: Bytes) -> Result<(), ClientGone> {
        let Some(writer) = &mut self.writer else { return Err(ClientGone) };
        let length = piece.len();
        if writer.data(piece, &mut self.out).is_err() {
            // More than was announced: what follows could be taken for another answer.
            self.state = Progress::Failed;
            return Err(ClientGone);
        }
        self.sent += length as u64;
        self.waiting += length;
        if self.waiting >= GATHER_BYTES_MAX || self.out.pieces() >= GATHER_PIECES_MAX {
            return self.write().await;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ClientGone> {
        self.write().await
    }

    async fn end(&mut self) -> Result<(), ClientGone> {
        let Some(writer) = &mut self.writer else { return Err(ClientGone) };
        if writer.end(&mut self.out).is_err() {
            self.state = Progress::Failed;
            return Err(ClientGone);
        }
        self.write().await?;
        self.state = Progress::Ended;
        Ok(())
    }

    fn abort(&mut self) {
        self.state = Progress::Failed;
    }

    fn started(&self) -> bool {
        self.state != Progress::Nothing
    }

    fn sent(&self) -> u64 {
        self.sent
    }
}
