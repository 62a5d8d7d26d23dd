//! Idle connections to one peer, the one used last on top.
//!
//! pingora's own pool watches every idle connection with a task of its own, which costs a spawn, a wake-up and a timer
//! per request. Here a connection that the origin has closed is noticed when it is taken, or by the sweep.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Instant,
};

use parking_lot::Mutex;
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use super::connect::Connection;

/// The connections of one peer that wait for the next exchange.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<VecDeque<Waiting>>);

#[derive(Debug)]
struct Waiting {
    connection: Connection,
    until: Instant,
    _counted: Counted,
}

/// Counts one idle connection among all of an edge for as long as it waits.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// None when `max` are counted already.
    pub(super) fn new(count: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let counted = Self(Arc::clone(count));
        (before < max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Idle {
    /// Keeps a connection until then.
    pub(super) fn put(&self, connection: Connection, until: Instant, counted: Counted) {
        self.0.lock().push_back(Waiting { connection, until, _counted: counted });
    }

    /// The connection used last that is still good; those before it that are not are closed.
    pub(super) fn take(&self, now: Instant) -> Option<Connection> {
        loop {
            // The lock ends before a connection is looked at or closed.
            let mut waiting = self.0.lock().pop_back()?;
            if now < waiting.until && is_quiet(&mut waiting.connection.stream) {
                return Some(waiting.connection);
            }
        }
    }

    /// Closes what is over, or was closed by the origin.
    pub(super) fn sweep(&self, now: Instant) {
        // Closed after the lock has ended.
        let mut over = Vec::new();
        let mut waiting = self.0.lock();
        let mut at = 0;
        while at < waiting.len() {
            if now < waiting[at].until && is_quiet(&mut waiting[at].connection.stream) {
                at += 1;
            } else {
                over.extend(waiting.remove(at));
            }
        }
        drop(waiting);
    }
}

/// Has the origin neither closed nor said anything unasked? Costs no system call while the runtime has seen nothing.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    let mut room = ReadBuf::new(&mut byte);
    let mut nobody = Context::from_waker(Waker::noop());
    Pin::new(stream).poll_read(&mut nobody, &mut room).is_pending()
}
