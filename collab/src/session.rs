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

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use futures::channel::mpsc::{self, SendError};

    use super::*;
    use crate::{
        document::tests::Client,
        protocol::Outgoing,
        rooms::{
            Rooms,
            tests::{MemoryStore, name, rooms_over},
        },
    };

    /// The server's side of a socket in memory.
    struct TestSocket {
        incoming: mpsc::UnboundedReceiver<Result<Message, SendError>>,
        outgoing: mpsc::Sender<Message>,
    }

    impl Stream for TestSocket {
        type Item = Result<Message, SendError>;

        fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.incoming.poll_next_unpin(context)
        }
    }

    impl Sink<Message> for TestSocket {
        type Error = SendError;

        fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
            self.outgoing.poll_ready(context)
        }

        fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), SendError> {
            self.outgoing.start_send(message)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
            self.outgoing.poll_flush_unpin(context)
        }

        fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
            self.outgoing.poll_close_unpin(context)
        }
    }

    /// The client's side, and the session that serves it.
    struct Peer {
        to: mpsc::UnboundedSender<Result<Message, SendError>>,
        from: mpsc::Receiver<Message>,
        session: tokio::task::JoinHandle<End>,
    }

    impl Peer {
        async fn enter(rooms: &Rooms) -> Self {
            let membership = rooms.join(&name("r")).await.unwrap();
            let (to, incoming) = mpsc::unbounded();
            let (outgoing, from) = mpsc::channel(4);
            let socket = TestSocket { incoming, outgoing };
            let session = tokio::spawn(async move { run(socket, membership, &Metrics::new()).await });
            Self { to, from, session }
        }

        fn send(&self, frame: impl Into<Bytes>) {
            self.to.unbounded_send(Ok(Message::Binary(frame.into()))).unwrap();
        }

        async fn frame(&mut self) -> Bytes {
            loop {
                match self.from.next().await {
                    Some(Message::Binary(frame)) => return frame,
                    Some(Message::Ping(_)) => self.to.unbounded_send(Ok(Message::Pong(Bytes::new()))).unwrap(),
                    other => panic!("not a frame: {other:?}"),
                }
            }
        }

        /// The close code, once everything before it has been read.
        async fn close_code(&mut self) -> Option<u16> {
            while let Some(message) = self.from.next().await {
                if let Message::Close(frame) = message {
                    return frame.map(|frame| frame.code);
                }
            }
            None
        }
    }

    fn rooms() -> Rooms {
        rooms_over(&Arc::new(MemoryStore::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_speaks_first_and_gets_step_2_then_step_1() {
        let mut peer = Peer::enter(&rooms()).await;
        peer.send(vec![0, 0, 1, 0]);
        assert_eq!(peer.frame().await[..2], [0, 1]);
        assert_eq!(peer.frame().await[..2], [0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_sends_the_other_gets() {
        let rooms = rooms();
        let (mut ann, mut ben) = (Peer::enter(&rooms).await, Peer::enter(&rooms).await);
        let frame = Outgoing::Update(Client::new(7).insert(0, "hi")).encode();
        ann.send(frame.clone());
        assert_eq!(ann.frame().await, frame);
        assert_eq!(ben.frame().await, frame);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_client_hears_something_every_20_seconds_and_stays() {
        let mut peer = Peer::enter(&rooms()).await;
        let start = Instant::now();
        for round in 1..=5 {
            assert_eq!(peer.frame().await, &KEEPALIVE[..]);
            assert_eq!(start.elapsed().as_secs(), round * 20);
        }
        assert!(!peer.session.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_nothing_is_given_up() {
        let mut peer = Peer::enter(&rooms()).await;
        assert_eq!(peer.close_code().await, Some(4500));
        assert_eq!(peer.session.await.unwrap(), End::Closed(CloseReason::Timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_ends_the_connection_for_good() {
        let too_large = Message::Binary(vec![0; MESSAGE_BYTES_MAX + 1].into());
        for (message, code) in [
            (Message::Text("{}".into()), 4400),
            (Message::Binary(Bytes::from_static(&[0, 9, 0])), 4400),
            (Message::Binary(Bytes::from_static(&[0, 2, 3, 9, 9, 9])), 4400), // no update inside
            (too_large, 4413),
        ] {
            let mut peer = Peer::enter(&rooms()).await;
            peer.to.unbounded_send(Ok(message)).unwrap();
            assert_eq!(peer.close_code().await, Some(code));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_updates_are_read_slowly_and_none_is_lost() {
        let mut peer = Peer::enter(&rooms()).await;
        let (client, start) = (Client::new(7), Instant::now());
        let count = UPDATES_BURST_MAX + 2 * UPDATES_PER_SECOND_MAX;
        for _ in 0..count {
            peer.send(Outgoing::Update(client.insert(u32::MAX, "x")).encode());
        }
        let mut burst = 0;
        for _ in 0..count {
            peer.frame().await;
            burst += u32::from(start.elapsed() < Duration::from_millis(10));
        }
        assert_eq!(start.elapsed().as_secs(), 1);
        assert!((UPDATES_BURST_MAX - 1..=UPDATES_BURST_MAX + 1).contains(&burst), "{burst}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off_with_4500() {
        let rooms = rooms();
        let (mut quick, mut stuck) = (Peer::enter(&rooms).await, Peer::enter(&rooms).await);
        let client = Client::new(7);
        for _ in 0..400 {
            quick.send(Outgoing::Update(client.insert(u32::MAX, "x")).encode());
            quick.frame().await;
        }
        assert_eq!(stuck.close_code().await, Some(4500));
        assert_eq!(stuck.session.await.unwrap(), End::Closed(CloseReason::Overflow));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_frees_its_place() {
        let rooms = rooms();
        let peer = Peer::enter(&rooms).await;
        drop(peer.to);
        assert_eq!(peer.session.await.unwrap(), End::Client);
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(rooms.is_empty());
    }
}
