//! The tunnel: bytes both ways between a client and its collaboration node, in a small task of its own.
//!
//! No buffer exists while nothing is in flight: what is read lies on the stack of one poll and goes straight out; only
//! what the other side does not take at once is kept, and then nothing more is read from this side. A side that has
//! ended is passed on as a half-close; one that takes nothing more is still read to its end.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use pingora_core::protocols::Stream;
use prometheus::IntCounter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use crate::proxy::websocket::Socket;

/// Bytes of one read: a typical update fits, and a poll's stack stays small.
const READ_BYTES: usize = 16 * 1024;

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Close {
    /// The client ended its side first.
    Client,
    /// The node ended its side first.
    Upstream,
    /// No byte in either direction for `idle_timeout`.
    Idle,
    /// A connection broke.
    Error,
    /// The edge stopped.
    Shutdown,
}

/// What a socket carried, and how it ended.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    pub close: Close,
    pub from_client: u64,
    pub to_client: u64,
}

/// Carries bytes until both sides have ended, or `cut` has. `early` is what the client sent behind its handshake. Gives
/// the client back if it may still be talking: it is not to be reset before it has read the node's last words.
pub async fn carry(
    client: Stream,
    early: Bytes,
    socket: Socket,
    cut: impl Future<Output = ()>,
) -> (Carried, Option<Stream>) {
    let Socket { upstream, early: late, lease, websocket, metrics } = socket;
    let mut tunnel = Tunnel {
        client,
        upstream,
        up: Direction::new(early, metrics.from_client.clone()),
        down: Direction::new(late.freeze(), metrics.to_client.clone()),
        first: None,
        idle: websocket.idle_timeout,
        active: Instant::now(),
        timer: Box::pin(tokio::time::sleep(websocket.idle_timeout)),
    };
    let carried = tokio::select! {
        biased;
        carried = &mut tunnel => carried,
        () = cut => tunnel.carried(Close::Shutdown),
    };
    metrics.closed(carried.close.into());
    drop(lease);
    let talking = carried.close != Close::Shutdown && matches!(tunnel.up.end, End::Open | End::Refused);
    (carried, talking.then_some(tunnel.client))
}

struct Tunnel {
    client: Stream,
    upstream: Stream,
    up: Direction,
    down: Direction,
    /// The side that ended first.
    first: Option<Close>,
    idle: Duration,
    active: Instant,
    timer: Pin<Box<Sleep>>,
}

/// One way: what was read and not yet taken, and how far its end has got.
struct Direction {
    pending: Bytes,
    end: End,
    bytes: u64,
    counter: IntCounter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The reading side has ended; the writing side is to be told.
    Read,
    Done,
    /// The writing side takes nothing more. What it said before may still be on its way.
    Refused,
}

impl Direction {
    fn new(pending: Bytes, counter: IntCounter) -> Self {
        let bytes = pending.len() as u64;
        counter.inc_by(bytes);
        Self { pending, end: End::Open, bytes, counter }
    }

    /// Moves what can be moved; ready when this way has ended. An error means that `from` is broken: it can neither say nor
    /// be told anything more.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        active: &mut Instant,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.pending.is_empty() {
                match ready!(Pin::new(&mut *to).poll_write(context, &self.pending)) {
                    Ok(0) | Err(_) => return self.refused(),
                    Ok(written) => self.pending.advance(written),
                }
                *active = Instant::now();
            }
            self.pending = Bytes::new();
            match self.end {
                End::Open => {}
                End::Read => {
                    // A peer that has gone completely cannot be told any more.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(context));
                    self.end = End::Done;
                    return Poll::Ready(Ok(()));
                }
                End::Done | End::Refused => return Poll::Ready(Ok(())),
            }
            let mut room = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut room);
            match Pin::new(&mut *from).poll_read(context, &mut read) {
                Poll::Pending => {
                    // TLS keeps records until it is flushed.
                    return match ready!(Pin::new(&mut *to).poll_flush(context)) {
                        Ok(()) => Poll::Pending,
                        Err(_) => self.refused(),
                    };
                }
                Poll::Ready(result) => result?,
            }
            let data = read.filled();
            if data.is_empty() {
                self.end = End::Read;
                continue;
            }
            *active = Instant::now();
            self.bytes += data.len() as u64;
            self.counter.inc_by(data.len() as u64);
            let written = match Pin::new(&mut *to).poll_write(context, data) {
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(_)) => return self.refused(),
                Poll::Pending => 0,
            };
            if written < data.len() {
                self.pending = Bytes::copy_from_slice(&data[written..]);
            }
        }
    }

    fn refused(&mut self) -> Poll<io::Result<()>> {
        self.pending = Bytes::new();
        self.end = End::Refused;
        Poll::Ready(Ok(()))
    }
}

impl Future for Tunnel {
    type Output = Carried;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Carried> {
        let this = self.get_mut();
        let up = this.up.poll(context, &mut this.client, &mut this.upstream, &mut this.active);
        let down = this.down.poll(context, &mut this.upstream, &mut this.client, &mut this.active);
        let close = match (up, down) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Some(this.first.unwrap_or(Close::Error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Some(*this.first.get_or_insert(Close::Client)),
            (Poll::Ready(Ok(())), Poll::Pending) => {
                this.first.get_or_insert(if this.up.end == End::Refused { Close::Error } else { Close::Client });
                None
            }
            (Poll::Pending, Poll::Ready(Ok(()))) => {
                this.first.get_or_insert(if this.down.end == End::Refused { Close::Error } else { Close::Upstream });
                None
            }
            (Poll::Pending, Poll::Pending) => None,
        };
        let close = match close {
            Some(close) => Some(close),
            None => this.poll_idle(context),
        };
        match close {
            Some(close) => Poll::Ready(this.carried(close)),
            None => Poll::Pending,
        }
    }
}

impl Tunnel {
    fn carried(&self, close: Close) -> Carried {
        Carried { close, from_client: self.up.bytes, to_client: self.down.bytes }
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Option<Close> {
        while self.timer.as_mut().poll(context).is_ready() {
            let quiet = self.active.elapsed();
            if quiet >= self.idle {
                return Some(Close::Idle);
            }
            self.timer.as_mut().reset(tokio::time::Instant::now() + (self.idle - quiet));
        }
        None
    }
}
