//! A fill: one fetch in progress that any number of readers share.
//!
//! The fetch runs in a task of its own. It never waits for a reader while what it brings will be stored, it outlives
//! its client, and it fails alone: readers see the error, never a short body. What is too large for memory is written to a
//! lower tier while it comes, and who is behind reads it there. What turns out too large to store is kept only within
//! [`BEHIND_MAX`] of the fastest reader, and then the fetch does wait for that reader.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::Notify;

use super::{Part, Stored, below::Below};
use crate::cache::{Meta, Reason, Span, VariantKey};

/// What a body that is not going to be stored may hold in memory; a reader further behind is cut off.
pub const BEHIND_MAX: u64 = 16 * 1024 * 1024;

/// What of a body may wait to be written to a lower tier; one that is further behind does without it.
pub const UNWRITTEN_MAX: u64 = 64 * 1024 * 1024;

/// How the head of the answer turned out.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Storable: all readers whose request selects it may have it while it comes.
    Storing(Arc<Coming>),
    /// A 304 freshened what was stored.
    Freshened(Arc<Stored>),
    /// What was asked for as a part of what is stored is no part of it any more: begin anew.
    Changed,
    /// Not for sharing: every reader fetches for itself; the writer's client takes what came.
    Released(Reason),
    /// There is no answer.
    Failed(Failure),
}

/// The head of a response that is on its way into the store.
#[derive(Debug)]
pub struct Coming {
    pub meta: Meta,
    /// Of the body that comes, if the origin said.
    pub length: Option<u64>,
    /// Which bytes come, of a 206; `None`: all.
    pub span: Option<Span>,
    /// What selected it.
    pub variant: VariantKey,
}

impl Coming {
    /// Of the whole body, where it is known.
    pub fn complete_length(&self) -> Option<u64> {
        self.span.map(|span| span.length).or(self.length)
    }
}

/// Why a fetch brought nothing, in the words of RFC 9209 where it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What a client is told.
    pub status: StatusCode,
    /// `Proxy-Status` error type.
    pub error: &'static str,
}

impl Failure {
    /// The edge itself failed.
    pub const INTERNAL: Self = Self { status: StatusCode::BAD_GATEWAY, error: "proxy_internal_error" };
}

/// The body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("the origin's body broke off")]
    Origin,
    #[error("this reader fell too far behind")]
    TooSlow,
}

/// Shared by the fetching task and its readers.
#[derive(Debug)]
pub struct Fill {
    state: Mutex<State>,
    changed: Notify,
    /// Told when the fastest reader has moved on.
    read: Notify,
}

/// A body that is written to a lower tier while it comes.
#[derive(Debug)]
struct Through {
    below: Arc<Below>,
    /// Where in the representation the first byte of this fill is.
    start: u64,
    parts: Vec<Part>,
    /// How many of them are there.
    written: usize,
}

impl Through {
    /// Offset in the fill to which everything can be read below.
    fn end(&mut self) -> u64 {
        while self.parts.get(self.written).is_some_and(|part| self.below.holds(part)) {
            self.written += 1;
        }
        self.parts[..self.written].last().map_or(0, |part| part.end() - self.start)
    }
}

#[derive(Debug)]
struct State {
    outcome: Option<Outcome>,
    chunks: VecDeque<Bytes>,
    /// Offset of the first byte of `chunks`.
    base: u64,
    /// Offset after the last byte.
    len: u64,
    end: Option<Result<(), Broken>>,
    /// Does what comes go into the store?
    storing: bool,
    through: Option<Through>,
    readers: usize,
    /// How far the fastest reader is.
    fastest: u64,
    /// When a waiter last became a second writer.
    second_writer: Option<Instant>,
    /// The fill of the second writer, where one took this one's place.
    successor: Option<Arc<Fill>>,
}

impl Fill {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                outcome: None,
                chunks: VecDeque::new(),
                base: 0,
                len: 0,
                end: None,
                storing: true,
                through: None,
                readers: 0,
                fastest: 0,
                second_writer: None,
                successor: None,
            }),
            changed: Notify::new(),
            read: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fetch has a head, or none. The first call counts.
    pub fn decide(&self, outcome: Outcome) {
        self.lock().outcome.get_or_insert(outcome);
        self.changed.notify_waiters();
    }

    /// One more piece of the body.
    pub fn push(&self, piece: Bytes) {
        let mut state = self.lock();
        state.len += piece.len() as u64;
        state.chunks.push_back(piece);
        if !state.storing {
            state.forget_behind();
        } else if state.through.is_some() {
            state.forget_written();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The body is too large for memory: from now on it is forgotten here as far as it can be read below. `start` is where in the
    /// representation it begins.
    pub fn write_through(&self, below: Arc<Below>, start: u64) {
        self.lock().through = Some(Through { below, start, parts: Vec::new(), written: 0 });
    }

    /// A part of it has been given to the lower tier. False when too much waits there, or was not taken.
    pub fn note_part(&self, part: Part) -> bool {
        let mut state = self.lock();
        let len = state.len;
        let Some(through) = &mut state.through else { return false };
        through.parts.push(part);
        // What is noted may not have been pushed yet.
        len.saturating_sub(through.end()) <= UNWRITTEN_MAX
    }

    /// The body is not going to be stored after all: from now on only what readers may need is kept.
    pub fn give_up_storing(&self) {
        let mut state = self.lock();
        state.storing = false;
        state.forget_behind();
        drop(state);
        // Who waits for what is gone now waits for nothing.
        self.changed.notify_waiters();
    }

    /// Waits until the fastest reader is near enough; false when nobody reads. Returns at once while storing.
    pub async fn room(&self) -> bool {
        loop {
            let notified = self.read.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.lock();
                if state.storing || state.readers > 0 && state.len - state.fastest <= BEHIND_MAX {
                    return true;
                }
                if state.readers == 0 {
                    return false;
                }
            }
            notified.await;
        }
    }

    /// The body has ended, well or not.
    pub fn finish(&self, result: Result<(), Broken>) {
        self.lock().end.get_or_insert(result);
        self.changed.notify_waiters();
    }

    /// Everything that has come, if nothing was forgotten.
    pub fn collected(&self) -> Option<Vec<Bytes>> {
        let state = self.lock();
        (state.base == 0).then(|| state.chunks.iter().cloned().collect())
    }

    pub fn outcome(&self) -> Option<Outcome> {
        self.lock().outcome.clone()
    }

    /// Who waits here waits for `successor` from now on: it began later, but this one is late.
    pub fn succeed(&self, successor: Arc<Self>) {
        let mut state = self.lock();
        // The others, whose time is up soon after, do not become writers of further fills one after the other.
        successor.lock().second_writer = state.second_writer;
        state.successor = Some(successor);
        drop(state);
        self.changed.notify_waiters();
    }

    fn successor(&self) -> Option<Arc<Self>> {
        self.lock().successor.clone()
    }

    /// May this waiter, whose time is up, become a second writer? One may per `wait`.
    pub fn take_second_writer(&self, now: Instant, wait: Duration) -> bool {
        let mut state = self.lock();
        let free = state.second_writer.is_none_or(|last| now.duration_since(last) >= wait);
        if free {
            state.second_writer = Some(now);
        }
        free
    }

    /// A reader from the first byte. Who wants the body must be one before the head has come: a body that is not going to
    /// be stored ends when nobody reads it.
    pub fn reader(self: &Arc<Self>) -> Reader {
        self.lock().readers += 1;
        Reader { fill: Arc::clone(self), at: 0 }
    }
}

impl State {
    fn forget_behind(&mut self) {
        self.forget_to(self.fastest.saturating_sub(BEHIND_MAX));
    }

    fn forget_written(&mut self) {
        let written = self.through.as_mut().map_or(0, Through::end);
        self.forget_to(written.min(self.len.saturating_sub(BEHIND_MAX)));
    }

    fn forget_to(&mut self, keep_from: u64) {
        while let Some(first) = self.chunks.front()
            && self.base + first.len() as u64 <= keep_from
        {
            self.base += first.len() as u64;
            self.chunks.pop_front();
        }
    }

    /// The part below that `at` lies in, and how far in it, where it is no longer here.
    fn below(&self, at: u64) -> Option<(Arc<Below>, Part, usize)> {
        let through = self.through.as_ref().filter(|_| at < self.base)?;
        let at = through.start + at;
        let part = through.parts.get(through.parts.partition_point(|part| part.end() <= at))?;
        Some((Arc::clone(&through.below), *part, usize::try_from(at.checked_sub(part.start)?).ok()?))
    }

    /// What follows `at`: up to `pieces_max` pieces.
    fn after(&self, at: u64, pieces_max: usize) -> Vec<Bytes> {
        let mut found = Vec::new();
        // From the back: a reader is usually near the end.
        let mut first = self.chunks.len();
        let mut start = self.len;
        while first > 0 && start > at {
            first -= 1;
            start -= self.chunks[first].len() as u64;
        }
        let mut offset = start;
        for chunk in self.chunks.iter().skip(first).take(pieces_max) {
            let skip = at.saturating_sub(offset).min(chunk.len() as u64) as usize;
            if skip < chunk.len() {
                found.push(chunk.slice(skip..));
            }
            offset += chunk.len() as u64;
        }
        found
    }
}

/// One reader's place in the body of a fill.
#[derive(Debug)]
pub struct Reader {
    fill: Arc<Fill>,
    at: u64,
}

impl Reader {
    /// Pieces handed out at once: one vectored write's worth.
    const PIECES_MAX: usize = 64;

    /// Waits for the head, of this fill or of one that took its place, which is then the one that is read; `None` when
    /// `within` has passed without one.
    pub async fn head(&mut self, within: Duration) -> Option<Outcome> {
        let wait = async {
            loop {
                let fill = Arc::clone(&self.fill);
                let notified = fill.changed.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if let Some(outcome) = fill.outcome() {
                    return outcome;
                }
                match fill.successor() {
                    Some(successor) => *self = successor.reader(),
                    None => notified.await,
                }
            }
        };
        tokio::time::timeout(within, wait).await.ok()
    }

    /// The fill that is read.
    pub fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// The next pieces, waiting for them if need be; empty at the end.
    pub async fn next(&mut self) -> Result<Vec<Bytes>, Broken> {
        loop {
            let fill = Arc::clone(&self.fill);
            let notified = fill.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let behind = fill.lock().below(self.at);
            if let Some((below, part, skip)) = behind {
                return self.read_below(&below, part, skip).await;
            }
            if let Some(result) = self.ready() {
                return result;
            }
            notified.await;
        }
    }

    async fn read_below(&mut self, below: &Below, part: Part, skip: usize) -> Result<Vec<Bytes>, Broken> {
        let held = below.hold(&part).ok_or(Broken::TooSlow)?;
        let bytes = below.read(&part, &held).await.ok_or(Broken::TooSlow)?;
        let bytes = bytes.slice(skip..);
        self.at += bytes.len() as u64;
        Ok(vec![bytes])
    }

    /// The next pieces if there are any here now, or the end.
    pub fn ready(&mut self) -> Option<Result<Vec<Bytes>, Broken>> {
        let mut state = self.fill.lock();
        if self.at < state.base {
            // Where it is below, reading takes a moment. Where storing was given up it may be nowhere.
            return state.below(self.at).is_none().then_some(Err(Broken::TooSlow));
        }
        if self.at < state.len {
            let pieces = state.after(self.at, Self::PIECES_MAX);
            self.at += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            if self.at > state.fastest {
                state.fastest = self.at;
                drop(state);
                self.fill.read.notify_one();
            }
            return Some(Ok(pieces));
        }
        state.end.map(|end| end.map(|()| Vec::new()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.lock().readers -= 1;
        self.fill.read.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::telemetry::Metrics;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    async fn read_all(mut reader: Reader) -> Result<Vec<u8>, Broken> {
        let mut all = Vec::new();
        loop {
            let pieces = reader.next().await?;
            if pieces.is_empty() {
                return Ok(all);
            }
            pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        }
    }

    #[tokio::test]
    async fn every_reader_gets_the_whole_body_whenever_it_came() {
        let fill = Fill::new();
        let early = tokio::spawn(read_all(fill.reader()));
        fill.push(bytes("one "));
        let middle = tokio::spawn(read_all(fill.reader()));
        fill.push(bytes("two"));
        fill.finish(Ok(()));
        let late = tokio::spawn(read_all(fill.reader()));
        for reader in [early, middle, late] {
            assert_eq!(reader.await.expect("no panic"), Ok(b"one two".to_vec()));
        }
    }

    #[tokio::test]
    async fn a_broken_body_is_an_error_and_never_an_end() {
        let fill = Fill::new();
        fill.push(bytes("half"));
        fill.finish(Err(Broken::Origin));
        assert_eq!(read_all(fill.reader()).await, Err(Broken::Origin));
    }

    #[tokio::test]
    async fn what_is_not_stored_is_kept_only_near_the_fastest_reader() {
        let fill = Fill::new();
        let slow = fill.reader();
        let mut fast = fill.reader();
        fill.give_up_storing();
        let piece = Bytes::from(vec![0; 1024 * 1024]);
        for _ in 0..40 {
            assert!(fill.room().await);
            fill.push(piece.clone());
            assert!(!fast.next().await.expect("pieces are there").is_empty());
        }
        fill.finish(Ok(()));
        assert_eq!(read_all(slow).await, Err(Broken::TooSlow));
        assert_eq!(read_all(fast).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn who_is_behind_a_write_that_was_given_up_is_cut_off() {
        let fill = Fill::new();
        let (slow, mut fast) = (fill.reader(), fill.reader());
        // To no tier: nothing of it can be read below.
        fill.write_through(Arc::new(Below::new(None, 7, &Metrics::new())), 0);
        fill.give_up_storing();
        let piece = Bytes::from(vec![0; 1024 * 1024]);
        for _ in 0..40 {
            fill.push(piece.clone());
            assert!(!fast.next().await.expect("pieces are there").is_empty());
        }
        drop(fast);
        assert_eq!(read_all(slow).now_or_never(), Some(Err(Broken::TooSlow)));
        assert!(!fill.room().await, "nobody is left to fetch it for");
    }

    #[tokio::test]
    async fn nobody_reading_stops_what_is_not_stored() {
        let fill = Fill::new();
        assert!(fill.room().await, "while storing, readers do not matter");
        fill.give_up_storing();
        assert!(!fill.room().await);
    }

    #[tokio::test]
    async fn who_waits_for_a_late_fill_is_answered_by_its_successor() {
        let (late, second) = (Fill::new(), Fill::new());
        let waiter = tokio::spawn({
            let mut reader = late.reader();
            async move { (reader.head(Duration::from_secs(3600)).await, reader) }
        });
        tokio::task::yield_now().await;
        late.succeed(Arc::clone(&second));
        second.decide(Outcome::Released(Reason::NoStore));
        let (outcome, reader) = waiter.await.expect("no panic");
        assert!(matches!(outcome, Some(Outcome::Released(Reason::NoStore))) && Arc::ptr_eq(reader.fill(), &second));
    }

    #[tokio::test]
    async fn a_wait_that_ran_out_makes_one_second_writer_at_a_time() {
        let fill = Fill::new();
        let (now, wait) = (Instant::now(), Duration::from_secs(10));
        assert!(fill.reader().head(Duration::ZERO).await.is_none());
        assert!(fill.take_second_writer(now, wait));
        assert!(!fill.take_second_writer(now, wait));
        assert!(fill.take_second_writer(now + wait, wait));
        let successor = Fill::new();
        fill.succeed(Arc::clone(&successor));
        assert!(!successor.take_second_writer(now + wait + wait / 2, wait), "also among those who moved on");
        assert!(successor.take_second_writer(now + wait + wait, wait));
    }
}
