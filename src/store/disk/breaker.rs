//! Leaves something alone for a while after it has failed.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Open after so many failures in a row; then one more opens it again.
#[derive(Debug)]
pub struct Breaker {
    failures_max: u32,
    retry_after: Duration,
    failures: AtomicU32,
    open_until: Mutex<Option<Instant>>,
}

impl Breaker {
    pub fn new(failures_max: u32, retry_after: Duration) -> Self {
        Self { failures_max, retry_after, failures: AtomicU32::new(0), open_until: Mutex::new(None) }
    }

    /// Is it to be left alone?
    pub fn is_open(&self, now: Instant) -> bool {
        // Nothing has failed: one load.
        self.failures.load(Ordering::Acquire) >= self.failures_max
            && self.open_until.lock().is_some_and(|until| now < until)
    }

    pub fn failed(&self, now: Instant) {
        if self.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1) >= self.failures_max {
            *self.open_until.lock() = Some(now + self.retry_after);
        }
    }

    pub fn worked(&self) {
        if self.failures.load(Ordering::Acquire) > 0 {
            self.failures.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let breaker = Breaker::new(2, Duration::from_secs(10));
        let now = Instant::now();
        breaker.failed(now);
        breaker.worked();
        breaker.failed(now);
        assert!(!breaker.is_open(now), "not in a row");
        breaker.failed(now);
        assert!(breaker.is_open(now) && breaker.is_open(now + Duration::from_secs(9)));
        let later = now + Duration::from_secs(10);
        assert!(!breaker.is_open(later), "tried again");
        breaker.failed(later);
        assert!(breaker.is_open(later), "one more failure is enough");
        breaker.worked();
        assert!(!breaker.is_open(later));
    }
}
