//! The lane of an HTTP/1.1 connection: plain hits are answered in its own loop, several to one write.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pingora_core::protocols::Stream;

use crate::{
    proxy::{Edge, exchange::Begun, lane, receive::Connection},
    wire::io::{self, IoError, Outgoing},
};

/// Answers that are written at once, pipelined ones or those of streams. Who asks for more gets them in turns, and what is written is
/// recorded in time.
pub const ANSWERS_MAX: usize = 64;
/// Bytes of heads and bodies after which they are written.
const BYTES_MAX: u64 = 64 * 1024;
/// Answers for which there is room while nothing is to be written: few clients pipeline, and all of them are idle at times.
const ROOM_KEPT: usize = 8;

/// Answers on their way out, in order.
pub struct Lane<'a> {
    edge: &'a Arc<Edge>,
    connection: &'a Connection,
    out: Outgoing,
    answered: Vec<Answered>,
    bytes: u64,
}

struct Answered {
    to: lane::Answered,
    /// Bytes of head and body, and how many of them, the last ones, were not written.
    head: u64,
    length: u64,
    unsent: u64,
}

impl<'a> Lane<'a> {
    pub fn new(edge: &'a Arc<Edge>, connection: &'a Connection) -> Self {
        Self { edge, connection, out: Outgoing::new(), answered: Vec::new(), bytes: 0 }
    }

    /// Takes a request and answers it if it is a plain hit; else it is left there, for the long way.
    pub fn take(&mut self, request: &mut Option<Begun<'_>>, keep_alive: bool) {
        let Some(hit) = request.as_mut().and_then(Begun::hit) else { return };
        let Some(begun) = request else { return };
        let length = hit.length();
        let out = self.out.head();
        let before = out.len();
        begun.write_head(&hit, keep_alive, out);
        let head = (out.len() - before) as u64;
        hit.push_to(&mut self.out);
        self.bytes += head + length;
        let to = request.take().map(lane::Answered::of);
        self.answered.extend(to.map(|to| Answered { to, head, length, unsent: 0 }));
    }

    pub fn is_empty(&self) -> bool {
        self.answered.is_empty()
    }

    /// Must what is there be written before more is added? A head cannot follow pieces of a body.
    pub fn is_full(&self) -> bool {
        self.answered.len() >= ANSWERS_MAX || self.bytes >= BYTES_MAX || self.out.pieces() > 0
    }

    /// Writes what is there, and records whose answers they were.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn flush(&mut self, to: &mut Stream, within: Duration) -> Result<(), IoError> {
        if self.answered.is_empty() {
            return Ok(());
        }
        // What goes out at once has one time.
        let first = (self.out.pieces() > 0).then(Instant::now);
        let written = io::write_all(to, &mut self.out, within).await;
        if written.is_err() {
            self.note_unsent();
        }
        let last = Instant::now();
        for Answered { to, length, unsent, .. } in self.answered.drain(..) {
            let (sent, times) = (length.saturating_sub(unsent), [first.unwrap_or(last), last]);
            to.record(self.edge, self.connection, unsent > 0, sent, times);
        }
        self.answered.shrink_to(ROOM_KEPT);
        self.bytes = 0;
        written
    }

    /// What was not written is the end of it; at least the last answer did not arrive.
    fn note_unsent(&mut self) {
        let mut unsent = self.out.bytes().max(1) as u64;
        for answered in self.answered.iter_mut().rev() {
            answered.unsent = unsent.min(answered.head + answered.length);
            unsent -= answered.unsent;
        }
    }
}
