//! Until when this node may believe that it hears of every purge.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A lease that is renewed by one task and looked at by every request: one load and one look at the monotonic clock.
#[derive(Debug)]
pub(super) struct Lease {
    base: Instant,
    /// Nanoseconds since `base`; 0 = never had.
    until: AtomicU64,
}

impl Lease {
    pub(super) fn new(base: Instant) -> Self {
        Self { base, until: AtomicU64::new(0) }
    }

    /// It holds for `lease` from `sent`, the moment before the beat was sent.
    pub(super) fn renew(&self, sent: Instant, lease: Duration) {
        let until = u64::try_from((sent + lease).duration_since(self.base).as_nanos()).unwrap_or(u64::MAX);
        self.until.fetch_max(until, Ordering::AcqRel);
    }

    pub(super) fn holds(&self, now: Instant) -> bool {
        let now = u64::try_from(now.duration_since(self.base).as_nanos()).unwrap_or(u64::MAX);
        now < self.until.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_from_the_moment_before_its_beat_was_sent() {
        let base = Instant::now();
        let at = |seconds| base + Duration::from_secs(seconds);
        let lease = Lease::new(base);
        assert!(!lease.holds(at(1)), "it was never had");
        lease.renew(at(5), Duration::from_secs(10));
        assert!(lease.holds(at(14)) && !lease.holds(at(15)));
        lease.renew(at(2), Duration::from_secs(10));
        assert!(lease.holds(at(14)), "an answer that comes late shortens nothing");
    }
}
