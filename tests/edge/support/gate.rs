//! Gates and waiting: how a test holds a thing still, and how it knows that something has happened, without sleeping.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// No test needs this long for one step; one that does is stuck.
pub const STUCK: Duration = Duration::from_secs(20);

/// Holds whoever waits at it until it is opened. Clones are the same gate.
#[derive(Clone)]
pub struct Gate(watch::Sender<State>);

#[derive(Clone, Copy, Default)]
struct State {
    open: bool,
    waiting: usize,
}

impl Gate {
    pub fn closed() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// Lets everybody through, now and from now on.
    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        self.0.send_modify(|state| state.waiting += 1);
        let mut changes = self.0.subscribe();
        let _ = changes.wait_for(|state| state.open).await;
        self.0.send_modify(|state| state.waiting -= 1);
    }

    /// Waits until at least so many wait here at once.
    pub async fn reached_by(&self, count: usize) {
        let mut changes = self.0.subscribe();
        let reached = changes.wait_for(|state| state.waiting >= count);
        assert!(within(reached).await.is_ok(), "the gate is gone");
    }
}

/// The outcome of something that must not take for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(STUCK, future).await.expect("a step of a test is stuck")
}

/// Waits until `condition` holds, giving way to every other task between two looks. For what has no event of its own to
/// wait for: counters and gauges.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < STUCK, "never happened: {what}");
        tokio::task::yield_now().await;
    }
}

/// [`eventually`] for a condition that asks somebody.
pub async fn eventually_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < STUCK, "never happened: {what}");
    }
}
