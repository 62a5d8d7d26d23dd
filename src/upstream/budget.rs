//! The retry budget: retries are a share of the requests of the last ten seconds, so that a sick origin is not stormed.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use parking_lot::Mutex;

/// Seconds that the budget looks back.
const WINDOW: u64 = 10;
/// Retries that are free each second, so that a quiet pool may retry at all.
const FREE_PER_SECOND: u64 = 3;

/// One second of the window.
#[derive(Debug, Default)]
struct Slot {
    second: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
}

/// Counts of the last [`WINDOW`] seconds in a ring.
#[derive(Debug)]
pub(super) struct Budget {
    start: Instant,
    slots: [Slot; WINDOW as usize],
    /// Retries are rare: one decision at a time keeps the budget exact.
    deciding: Mutex<()>,
}

impl Budget {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, slots: Default::default(), deciding: Mutex::new(()) }
    }

    /// A request began (its first try, not a retry).
    pub(super) fn note_request(&self, now: Instant) {
        self.slot(self.second(now)).requests.fetch_add(1, Relaxed);
    }

    /// Takes one retry out of the budget: `percent` of the requests of the window, or three a second.
    pub(super) fn take_retry(&self, percent: u8, now: Instant) -> bool {
        let second = self.second(now);
        let _deciding = self.deciding.lock();
        let slot = self.slot(second);
        let (mut requests, mut retries) = (0, 0);
        for each in self.slots.iter().filter(|each| each.second.load(Relaxed) + WINDOW > second) {
            requests += each.requests.load(Relaxed);
            retries += each.retries.load(Relaxed);
        }
        let allowed =
            slot.retries.load(Relaxed) < FREE_PER_SECOND || (retries + 1) * 100 <= requests * u64::from(percent);
        if allowed {
            slot.retries.fetch_add(1, Relaxed);
        }
        allowed
    }

    /// Seconds since the start, from 1 so that a fresh slot (0) is never current.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() + 1
    }

    /// The slot of a second, emptied by whoever comes first. A count that lands while another thread empties may be lost:
    /// one request in a busy second.
    fn slot(&self, second: u64) -> &Slot {
        let slot = &self.slots[(second % WINDOW) as usize];
        let seen = slot.second.load(Relaxed);
        if seen < second && slot.second.compare_exchange(seen, second, Relaxed, Relaxed).is_ok() {
            slot.requests.store(0, Relaxed);
            slot.retries.store(0, Relaxed);
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retries_stay_within_the_budget() {
        // requests, percent, further seconds, retries granted out of many asked at that moment
        let rows = [
            (0, 20, 0, 3, "three a second are free"),
            (10, 20, 0, 3, "a share below the free ones adds nothing"),
            (100, 20, 0, 20, "a fifth of the requests"),
            (100, 0, 0, 3, "no share"),
            (100, 100, 0, 100, "as many as requests"),
            (100, 20, 9, 20, "requests of nine seconds ago still count"),
            (100, 20, 10, 3, "those of ten seconds ago do not"),
            (100, 20, 1000, 3, "nor older ones"),
        ];
        for (requests, percent, later, granted, what) in rows {
            let start = Instant::now();
            let budget = Budget::new(start);
            (0..requests).for_each(|_| budget.note_request(start));
            let now = start + Duration::from_secs(later);
            let got = (0..1000).filter(|_| budget.take_retry(percent, now)).count();
            assert_eq!(got, granted, "{what}");
        }
    }

    #[test]
    fn the_free_retries_come_back_each_second() {
        let start = Instant::now();
        let budget = Budget::new(start);
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            assert_eq!((0..10).filter(|_| budget.take_retry(20, now)).count(), 3, "second {second}");
        }
    }

    #[test]
    fn a_share_used_up_is_free_again_when_its_second_leaves_the_window() {
        let start = Instant::now();
        let budget = Budget::new(start);
        (0..1000).for_each(|_| budget.note_request(start));
        assert_eq!((0..1000).filter(|_| budget.take_retry(20, start)).count(), 200);
        let later = start + Duration::from_secs(10);
        (0..1000).for_each(|_| budget.note_request(later));
        assert_eq!((0..1000).filter(|_| budget.take_retry(20, later)).count(), 200);
    }
}
