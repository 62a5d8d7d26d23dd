//! The sign that the edge is leaving, as a connection that waits for its next request watches for it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Poll, Waker},
    time::Duration,
};

use tokio::sync::watch;

use crate::proxy::Edge;

/// How long a connection may still ask after the edge has begun to leave, or after it was told to end: its client may be sending just
/// now, and is then told with its answer.
pub const LAST_WORD: Duration = Duration::from_secs(1);

/// When the edge begins to leave, as a connection that waits sees it. One registration for its life, and one look at a number
/// per wait.
pub struct Leaving {
    began: bool,
    seen: watch::Receiver<bool>,
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Who is woken by `wait`.
    waker: Option<Waker>,
}

impl Leaving {
    pub fn of(edge: &Edge) -> Self {
        let seen = edge.draining.subscribe();
        let mut told = seen.clone();
        let wait = Box::pin(async move {
            let _ = told.wait_for(|is_draining| *is_draining).await;
        });
        let began = *seen.borrow();
        Self { began, seen, wait, waker: None }
    }

    /// An edge never changes its mind, so that any change is this one.
    pub fn has_begun(&self) -> bool {
        self.began || self.seen.has_changed().unwrap_or(true)
    }

    /// Ends when it does.
    pub async fn begun(&mut self) {
        poll_fn(|context| {
            let is_registered = self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
            if is_registered && !self.has_begun() {
                return Poll::Pending;
            }
            self.waker = Some(context.waker().clone());
            self.wait.as_mut().poll(context)
        })
        .await;
    }
}
