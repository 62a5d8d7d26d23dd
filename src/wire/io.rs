//! Bytes from and to a connection: one read, one write, each under a deadline.

use std::{
    collections::VecDeque,
    future::{Future, Pending, pending, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use pingora_timeout::{
    Timeout,
    fast_timeout::{FastOrTokioTimeout, fast_timeout},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::coop::{Unconstrained, unconstrained},
};

/// One read asks for at least so much room: a whole ordinary head, a quarter of a TLS record.
const READ_MIN: usize = 4 * 1024;
/// Room for one read of a response head: small bodies come with it.
pub const READ_HEAD: usize = 16 * 1024;
/// Room for one read of a body.
pub const READ_BODY: usize = 64 * 1024;
/// Slices of one vectored write; the kernel's `UIO_MAXIOV` is 1,024, more than 64 gain nothing.
const SLICES_MAX: usize = 64;
/// Room for a head and a small body.
const FRONT: usize = 1024;
/// What is copied together at most: beyond it a second slice costs less than the copy.
const FRONT_MAX: usize = 4 * 1024;
/// Room for heads that is kept once they are written: what a client with some requests in flight needs, and no more for each
/// one that is idle.
const FRONT_KEPT: usize = 16 * 1024;

/// A timer that is further away has not fired, however it rounds, and is not asked.
const NEAR: Duration = Duration::from_secs(1);

/// Why nothing came or went.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    #[error("timed out after {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The timer of a connection's reads.
///
/// Nearly every read ends long before its deadline, and to register a timer for each costs more than the read. So one
/// that was armed stays armed: it serves every later deadline, and is armed anew when it has fired too early.
#[derive(Default)]
pub struct Timer(Option<Armed>);

struct Armed {
    at: Instant,
    /// Who is woken then.
    waker: Waker,
    /// Long ones are tokio's, which tells a task that has used up its budget to wait without having registered it.
    sleep: Unconstrained<Timeout<Pending<()>, FastOrTokioTimeout>>,
}

impl Timer {
    /// Ready once `deadline` has come.
    fn poll(&mut self, context: &mut Context<'_>, now: Instant, deadline: Instant) -> Poll<()> {
        loop {
            if let Some(armed) = self.0.as_mut().filter(|armed| armed.at <= deadline) {
                let is_far = armed.at.saturating_duration_since(now) > NEAR;
                if is_far && armed.waker.will_wake(context.waker()) {
                    return Poll::Pending;
                }
                armed.waker.clone_from(context.waker());
                let _elapsed = ready!(Pin::new(&mut armed.sleep).poll(context));
                self.0 = None;
            }
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Poll::Ready(());
            }
            let mut sleep = unconstrained(fast_timeout(left, pending()));
            if Pin::new(&mut sleep).poll(context).is_pending() {
                self.0 = Some(Armed { at: deadline, waker: context.waker().clone(), sleep });
                return Poll::Pending;
            }
        }
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Timer").field(&self.0.as_ref().map(|armed| armed.at)).finish()
    }
}

/// Reads once into `buf`; `Ok(0)` is the end of the stream.
pub async fn read_some<R: AsyncRead + Unpin>(
    from: &mut R,
    buf: &mut BytesMut,
    room: usize,
    within: Duration,
    timer: &mut Timer,
) -> Result<usize, IoError> {
    buf.reserve(room.max(READ_MIN));
    let mut read = pin!(from.read_buf(buf));
    let mut deadline = None;
    poll_fn(|context| {
        if let Poll::Ready(read) = read.as_mut().poll(context) {
            return Poll::Ready(read.map_err(IoError::Io));
        }
        // The clock is read only by who has to wait.
        let now = Instant::now();
        let deadline = *deadline.get_or_insert(now + within);
        timer.poll(context, now, deadline).map(|()| Err(IoError::Timeout(within)))
    })
    .await
}

/// What is to be written, in order. What is small is copied together at the front, so that a head and a small body are
/// one slice, and one plain write.
#[derive(Debug)]
pub struct Outgoing {
    front: BytesMut,
    pieces: VecDeque<Bytes>,
}

impl Outgoing {
    pub fn new() -> Self {
        Self { front: BytesMut::with_capacity(FRONT), pieces: VecDeque::new() }
    }

    /// Where a head is written. Heads come before all else.
    pub fn head(&mut self) -> &mut BytesMut {
        debug_assert!(self.pieces.is_empty(), "a head after pieces of a body would overtake them");
        &mut self.front
    }

    /// Adds a piece; one that is small is copied, if nothing large stands before it.
    pub fn push(&mut self, piece: Bytes) {
        if self.pieces.is_empty() && self.front.len() + piece.len() <= FRONT_MAX {
            self.front.extend_from_slice(&piece);
        } else if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// Bytes that are left to be written.
    pub fn bytes(&self) -> usize {
        self.front.len() + self.pieces.iter().map(Bytes::len).sum::<usize>()
    }

    /// Pieces that were not copied.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    pub fn is_empty(&self) -> bool {
        self.front.is_empty() && self.pieces.is_empty()
    }

    /// Writes once, as much as is taken.
    fn poll_write<W: AsyncWrite + Unpin>(&self, to: &mut W, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.pieces.is_empty() {
            return Pin::new(to).poll_write(context, &self.front);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let front = (!self.front.is_empty()).then_some(&self.front[..]);
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(front.into_iter().chain(self.pieces.iter().map(|piece| &piece[..])))
        {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        Pin::new(to).poll_write_vectored(context, &slices[..count])
    }

    /// Takes off what was written.
    fn advance(&mut self, mut written: usize) {
        let step = written.min(self.front.len());
        if step == self.front.len() {
            self.front.clear();
        } else {
            self.front.advance(step);
        }
        written -= step;
        while let Some(piece) = self.pieces.front_mut().filter(|_| self.front.is_empty()) {
            let step = written.min(piece.len());
            piece.advance(step);
            if !piece.is_empty() {
                break;
            }
            written -= step;
            self.pieces.pop_front();
        }
    }

    /// Gives back the room of what has been written, where so many bytes were a head or stood by one.
    fn release(&mut self, front: usize) {
        debug_assert!(self.is_empty(), "what is not written has its room");
        if front > FRONT_KEPT {
            self.front = BytesMut::new();
        }
        if self.pieces.capacity() > SLICES_MAX {
            self.pieces = VecDeque::new();
        }
    }
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::new()
    }
}

impl Extend<Bytes> for Outgoing {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, pieces: I) {
        pieces.into_iter().for_each(|piece| self.push(piece));
    }
}

/// Writes all of it and leaves it empty, without much room. `within` bounds each single write, so that a slow reader is kept
/// and a dead one is not.
pub async fn write_all<W: AsyncWrite + Unpin>(to: &mut W, out: &mut Outgoing, within: Duration) -> Result<(), IoError> {
    let front = out.front.len();
    while !out.is_empty() {
        let written = bounded(within, poll_fn(|context| out.poll_write(to, context))).await?;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        out.advance(written);
    }
    out.release(front);
    bounded(within, to.flush()).await
}

/// Runs `io` under a deadline. Most often it is done at once and needs none.
async fn bounded<T>(within: Duration, io: impl Future<Output = io::Result<T>>) -> Result<T, IoError> {
    let mut io = pin!(io);
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(io.as_mut().poll(context))).await {
        return Ok(done?);
    }
    match fast_timeout(within, io).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(IoError::Timeout(within)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a test waits for what is to come at once, before it is said to hang.
    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_timer_serves_each_read_by_its_own_deadline() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let (mut buf, mut timer) = (BytesMut::new(), Timer::default());
        for within in [LONG, SHORT, LONG] {
            // The read must wait, so that the timer is armed, before what it waits for comes.
            let read = read_some(&mut near, &mut buf, 0, within, &mut timer);
            let (read, written) = tokio::join!(biased; read, far.write_all(b"x"));
            assert_eq!((read.unwrap(), written.unwrap()), (1, ()));
        }
        // Armed for one that was shorter, then for a longer one: it must not end early, nor never.
        let started = Instant::now();
        let late = read_some(&mut near, &mut buf, 0, 3 * SHORT, &mut timer).await;
        assert!(matches!(late, Err(IoError::Timeout(within)) if within == 3 * SHORT));
        assert!(started.elapsed() >= 3 * SHORT);
        let late = read_some(&mut near, &mut buf, 0, SHORT, &mut timer).await;
        assert!(matches!(late, Err(IoError::Timeout(within)) if within == SHORT));
    }

    #[tokio::test]
    async fn everything_arrives_in_order_however_little_is_taken_at_once() {
        let large = vec![b'l'; FRONT_MAX];
        let pieces: [&[u8]; 6] = [b"small", &large, b"", b"after", &large, b"end"];
        for room in [1, 7, 64 * 1024] {
            let (mut near, mut far) = tokio::io::duplex(room);
            let mut out = Outgoing::new();
            out.head().extend_from_slice(b"head");
            out.extend(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)));
            let mut received = Vec::new();
            let write = async {
                write_all(&mut near, &mut out, LONG).await.unwrap();
                drop(near);
            };
            tokio::join!(write, async { far.read_to_end(&mut received).await.unwrap() });
            assert_eq!(received, [b"head", &pieces.concat()[..]].concat(), "{room} bytes at once");
            assert!(out.is_empty());
        }
    }

    #[tokio::test]
    async fn what_is_written_keeps_no_more_room_than_a_few_answers_need() {
        for room in [1_000, 1_000_000] {
            let (mut near, mut far) = tokio::io::duplex(room);
            let mut out = Outgoing::new();
            for _ in 0..200 {
                out.head().extend_from_slice(&[b'h'; 600]);
            }
            out.extend((0..1_000).map(|_| Bytes::from_static(&[b'l'; FRONT_MAX + 1])));
            let write = async {
                write_all(&mut near, &mut out, LONG).await.unwrap();
                drop(near);
            };
            tokio::join!(write, async { far.read_to_end(&mut Vec::new()).await.unwrap() });
            // What was advanced over counts too; room grows by doubling.
            assert!(!out.front.try_reclaim(2 * FRONT_KEPT + 1), "{room}");
            assert!(out.pieces.capacity() <= SLICES_MAX, "{room}");
        }
    }

    #[test]
    fn a_head_and_a_small_body_are_one_piece() {
        let mut out = Outgoing::new();
        out.head().extend_from_slice(b"head");
        out.push("body".into());
        assert_eq!((out.pieces(), &out.front[..]), (0, &b"headbody"[..]));
    }
}
