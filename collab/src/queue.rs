//! What waits to be sent to one connection: bounded, because a client may read slowly or not at all.
//!
//! A CRDT client that is cut off resynchronises cheaply, so a queue that overflows closes its connection instead of
//! making the room wait or the node's memory grow.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// Messages waiting for one connection: half a minute of a busy room.
pub const QUEUED_MESSAGES_MAX: usize = 256;

/// Bytes waiting for one connection, not counting one answer to a client's step 1, which is bounded by the document.
pub const QUEUED_BYTES_MAX: usize = 1024 * 1024;

/// Why this node closes a connection.
///
/// y-websocket clients reconnect after every code but 4400 to 4499, which are final for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum CloseReason {
    /// The node drains: come back, and be routed to another one.
    Restart,
    /// The client reads more slowly than its room writes.
    Overflow,
    /// The room ended by a fault.
    RoomFailed,
    /// The stored document could not be loaded.
    StoreUnavailable,
    /// As many connections as a room may have.
    RoomFull,
    /// Nothing was heard for too long.
    Timeout,
    /// Not this protocol.
    Malformed,
    /// A message or a document beyond its limit: the same message would come again after a reconnect.
    TooLarge,
}

impl CloseReason {
    /// The WebSocket close code.
    pub fn code(self) -> u16 {
        match self {
            Self::Restart => 1012,
            Self::Overflow | Self::RoomFailed | Self::Timeout => 4500,
            Self::StoreUnavailable | Self::RoomFull => 4503,
            Self::Malformed => 4400,
            Self::TooLarge => 4413,
        }
    }

    /// The word for it in close frames, logs and metrics.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// How a message counts against [`QUEUED_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// In full.
    Full,
    /// Not at all, unless one such message waits already: the answer to a step 1 may be a whole document.
    Answer,
}

/// The queue cannot take the message; it is now closed with [`CloseReason::Overflow`].
#[derive(Debug, PartialEq, Eq)]
pub struct Overflow;

/// The end that a room holds.
#[derive(Debug)]
pub struct Sender(Arc<Queue>);

/// The end that a connection holds.
#[derive(Debug)]
pub struct Receiver(Arc<Queue>);

/// What a connection has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this frame.
    Frame(Bytes),
    /// Say goodbye and end.
    Close(CloseReason),
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<(Bytes, usize)>,
    bytes: usize,
    answer_waits: bool,
    close: Option<CloseReason>,
    receiver_gone: bool,
}

/// A queue for one connection.
pub fn queue() -> (Sender, Receiver) {
    let queue = Arc::new(Queue::default());
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

impl Sender {
    /// Adds a frame, without waiting.
    pub fn push(&self, frame: Bytes, charge: Charge) -> Result<(), Overflow> {
        let mut state = self.0.lock();
        if state.close.is_some() || state.receiver_gone {
            return Ok(()); // nobody will read it
        }
        let free = charge == Charge::Answer && !state.answer_waits;
        let charged = if free { 0 } else { frame.len() };
        // A single frame always fits: it is bounded by the protocol.
        let over = state.bytes > 0 && state.bytes + charged > QUEUED_BYTES_MAX;
        if over || state.frames.len() >= QUEUED_MESSAGES_MAX {
            state.frames.clear();
            state.close = Some(CloseReason::Overflow);
            self.0.changed.notify_one();
            return Err(Overflow);
        }
        state.answer_waits |= free;
        state.bytes += charged;
        state.frames.push_back((frame, charged));
        self.0.changed.notify_one();
        Ok(())
    }

    /// Closes the connection, once it has sent what waits.
    pub fn close(&self, reason: CloseReason) {
        self.0.lock().close.get_or_insert(reason);
        self.0.changed.notify_one();
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.lock().receiver_gone
    }
}

impl Drop for Sender {
    /// A room that ends without a word has failed.
    fn drop(&mut self) {
        self.close(CloseReason::RoomFailed);
    }
}

impl Receiver {
    /// Waits for something to do. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Next {
        loop {
            {
                let mut state = self.0.lock();
                if let Some((frame, charged)) = state.frames.pop_front() {
                    state.bytes -= charged;
                    if charged == 0 {
                        state.answer_waits = false;
                    }
                    return Next::Frame(frame);
                }
                if let Some(reason) = state.close {
                    return Next::Close(reason);
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver_gone = true;
        state.frames = VecDeque::new();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Bytes {
        vec![7; bytes].into()
    }

    #[tokio::test]
    async fn frames_come_in_order_and_then_the_close() {
        let (sender, mut receiver) = queue();
        sender.push(Bytes::from_static(b"1"), Charge::Full).unwrap();
        sender.push(Bytes::from_static(b"2"), Charge::Full).unwrap();
        sender.close(CloseReason::Restart);
        assert_eq!(receiver.next().await, Next::Frame("1".into()));
        assert_eq!(receiver.next().await, Next::Frame("2".into()));
        assert_eq!(receiver.next().await, Next::Close(CloseReason::Restart));
    }

    #[tokio::test]
    async fn too_many_messages_or_bytes_close_it_at_once() {
        let (sender, mut receiver) = queue();
        for _ in 0..QUEUED_MESSAGES_MAX {
            sender.push(frame(1), Charge::Full).unwrap();
        }
        assert_eq!(sender.push(frame(1), Charge::Full), Err(Overflow));
        assert_eq!(receiver.next().await, Next::Close(CloseReason::Overflow));

        let (sender, mut receiver) = queue();
        sender.push(frame(QUEUED_BYTES_MAX), Charge::Full).unwrap();
        assert_eq!(sender.push(frame(1), Charge::Full), Err(Overflow));
        assert_eq!(receiver.next().await, Next::Close(CloseReason::Overflow));
    }

    #[tokio::test]
    async fn one_whole_document_may_wait_besides() {
        let (sender, mut receiver) = queue();
        sender.push(frame(8 * QUEUED_BYTES_MAX), Charge::Answer).unwrap();
        sender.push(frame(1), Charge::Full).unwrap();
        assert!(matches!(receiver.next().await, Next::Frame(_)));
        sender.push(frame(8 * QUEUED_BYTES_MAX), Charge::Answer).unwrap();
        assert_eq!(sender.push(frame(8 * QUEUED_BYTES_MAX), Charge::Answer), Err(Overflow));
    }

    #[tokio::test]
    async fn a_room_that_ends_without_a_word_has_failed() {
        let (sender, mut receiver) = queue();
        let waiting = tokio::spawn(async move { receiver.next().await });
        drop(sender);
        assert_eq!(waiting.await.unwrap(), Next::Close(CloseReason::RoomFailed));
    }
}
