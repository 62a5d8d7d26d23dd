//! One connection: its socket on one side, its room on the other.
//!
//! Generic over the socket, so that tests use a pair of channels. Everything a client may do wrong ends here: messages
//! that are too large, too many or not this protocol, and silence.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message};
use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    metrics::Metrics,
    protocol::{ClientMessage, KEEPALIVE},
    queue::{CloseReason, Next},
    rooms::Membership,
};

/// Bytes of one message. Larger is a picture in a text document.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Changes of the document that a connection may send in a second, on average. Its socket is read more slowly beyond.
pub const UPDATES_PER_SECOND_MAX: u32 = 30;
/// Changes that it may send at once: a paste, or what was typed while away.
pub const UPDATES_BURST_MAX: u32 = 120;
/// Other messages in a second: each client of a full room sends back the presence of 200, once per change.
pub const OTHERS_PER_SECOND_MAX: u32 = 500;
/// Other messages at once.
pub const OTHERS_BURST_MAX: u32 = 1_000;

/// y-websocket clients drop a socket on which no *message* came for 30 s; pings do not count in browsers.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(20);
/// How often a ping asks whether the peer is there.
const PING_EVERY: Duration = Duration::from_secs(25);
/// Two pings without any answer: the peer is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long one message may take to be written, and the peer to answer a close.
const SEND_MAX: Duration = Duration::from_secs(20);
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client closed it, or the network did.
    Client,
    /// This node closed it.
    Closed(CloseReason),
}

/// Carries messages between `socket` and the room until one of them ends.
pub async fn run<S, E>(mut socket: S, mut membership: Membership, metrics: &Metrics) -> End
where
    S: Stream<Item = Result<Message, E>> + Sink<Message, Error = E> + Unpin,
{
    metrics.connections.inc();
    let end = carry(&mut socket, &mut membership, metrics).await;
    membership.leave().await;
    if let End::Closed(reason) = end {
        metrics.closes.with_label_values(&[reason.word()]).inc();
        // Whether the peer hears the goodbye is its affair; it gets a moment to.
        let _late = timeout(CLOSE_MAX, goodbye(&mut socket, reason)).await;
    }
    metrics.connections.dec();
    end
}

async fn carry<S, E>(socket: &mut S, membership: &mut Membership, metrics: &Metrics) -> End
where
    S: Stream<Item = Result<Message, E>> + Sink<Message, Error = E> + Unpin,
{
    let [received, sent] = ["received", "sent"].map(|direction| metrics.messages.with_label_values(&[direction]));
    let start = Instant::now();
    let mut updates = Allowance::new(UPDATES_PER_SECOND_MAX, UPDATES_BURST_MAX, start);
    let mut others = Allowance::new(OTHERS_PER_SECOND_MAX, OTHERS_BURST_MAX, start);
    let (mut heard, mut spoken, mut pinged) = (start, start, start);
    // Until then the socket is not read.
    let mut read_from = start;
    loop {
        let now = Instant::now();
        let may_read = read_from <= now;
        let frame = tokio::select! {
            message = socket.next(), if may_read => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Binary(frame))) => {
                        received.inc();
                        if frame.len() > MESSAGE_BYTES_MAX {
                            return End::Closed(CloseReason::TooLarge);
                        }
                        let Ok(message) = ClientMessage::decode(&frame) else {
                            return End::Closed(CloseReason::Malformed);
                        };
                        let allowance = match message {
                            ClientMessage::Step2(_) | ClientMessage::Update(_) => &mut updates,
                            _ => &mut others,
                        };
                        read_from = allowance.take(heard);
                        membership.send(message).await;
                        continue;
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue, // answered by the WebSocket layer
                    Some(Ok(Message::Text(_))) => return End::Closed(CloseReason::Malformed),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Client,
                }
            }
            next = membership.queue.next() => match next {
                Next::Frame(frame) => {
                    spoken = Instant::now();
                    sent.inc();
                    Message::Binary(frame)
                }
                Next::Close(reason) => return End::Closed(reason),
            },
            () = sleep_until(spoken + KEEPALIVE_AFTER) => {
                spoken = Instant::now();
                Message::Binary(Bytes::from_static(&KEEPALIVE))
            }
            () = sleep_until(pinged + PING_EVERY) => {
                pinged = Instant::now();
                // A socket that we do not read is not silent.
                if may_read && pinged.duration_since(heard) >= SILENCE_MAX {
                    return End::Closed(CloseReason::Timeout);
                }
                Message::Ping(Bytes::new())
            }
            () = sleep_until(read_from), if !may_read => continue,
        };
        match timeout(SEND_MAX, socket.send(frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Client,
            Err(_) => return End::Closed(CloseReason::Overflow),
        }
    }
}

async fn goodbye<S, E>(socket: &mut S, reason: CloseReason)
where
    S: Stream<Item = Result<Message, E>> + Sink<Message, Error = E> + Unpin,
{
    let frame = CloseFrame { code: reason.code(), reason: reason.word().into() };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

/// A token bucket that is never empty: beyond the burst it says how long to wait.
#[derive(Debug)]
struct Allowance {
    interval: Duration,
    burst: Duration,
    /// When the bucket would be full.
    full_at: Instant,
}

impl Allowance {
    fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second;
        Self { interval, burst: interval * burst, full_at: now }
    }

    /// Takes one and says when the next may come.
    fn take(&mut self, now: Instant) -> Instant {
        self.full_at = self.full_at.max(now) + self.interval;
        self.full_at.checked_sub(self.burst).map_or(now, |from| from.max(now))
    }
}
