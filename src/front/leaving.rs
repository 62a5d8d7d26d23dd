//! The sign that the edge is leaving, as a connection that waits for its next request watches for it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Poll, Waker},
    time::Duration,
};

use tokio::{sync::watch, task::coop::unconstrained};

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
    /// `draining` of the edge.
    pub fn of(draining: &watch::Sender<bool>) -> Self {
        let seen = draining.subscribe();
        let mut told = seen.clone();
        // A task that has used up its budget is told to wait without having been registered.
        let wait = Box::pin(unconstrained(async move {
            let _ = told.wait_for(|is_draining| *is_draining).await;
        }));
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

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Context};

    use tokio::task::coop;

    use super::*;

    /// As a task is that has read much.
    fn exhaust_budget(context: &mut Context<'_>) {
        while let Poll::Ready(proceed) = coop::poll_proceed(context) {
            proceed.made_progress();
        }
    }

    #[tokio::test]
    async fn a_connection_that_has_done_much_is_told_too() {
        let draining = watch::Sender::new(false);
        let told = tokio::spawn({
            let mut leaving = Leaving::of(&draining);
            async move {
                let mut begun = pin!(leaving.begun());
                let mut is_first = true;
                poll_fn(|context| {
                    if std::mem::take(&mut is_first) {
                        exhaust_budget(context);
                    }
                    begun.as_mut().poll(context)
                })
                .await;
            }
        });
        // It is woken once to go on with a new budget, and then only by the sign.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        draining.send_replace(true);
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        assert!(told.is_finished());
    }
}
