//! Work that many want and one does: the others wait for what it brings.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// Work in progress, by what it is for. Holds only what somebody waits for.
pub struct Flights<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

impl<K: Eq + Hash + Copy, V: Clone> Flights<K, V> {
    pub fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// What `work` brings, or the work for the same key that somebody else has begun. When whoever began it goes away, the next
    /// one does it.
    pub async fn once(&self, key: K, work: impl Future<Output = V>) -> V {
        let cell = Arc::clone(self.0.lock().entry(key).or_default());
        let place = Place { flights: self, key, cell };
        place.cell.get_or_init(|| work).await.clone()
    }
}

/// A place among those who wait.
struct Place<'a, K: Eq + Hash + Copy, V> {
    flights: &'a Flights<K, V>,
    key: K,
    cell: Arc<OnceCell<V>>,
}

impl<K: Eq + Hash + Copy, V> Drop for Place<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock();
        // Who comes after the end does the work anew: what it brought may be gone by then.
        let is_over = self.cell.initialized() || Arc::strong_count(&self.cell) == 2;
        if is_over && flights.get(&self.key).is_some_and(|there| Arc::ptr_eq(there, &self.cell)) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicU32, Ordering},
    };

    use futures::{FutureExt as _, future::join_all};
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn one_does_the_work_and_all_have_it() {
        let (flights, done) = (Flights::new(), AtomicU32::new(0));
        let gate = Notify::new();
        let work = || async {
            gate.notified().await;
            done.fetch_add(1, Ordering::Relaxed)
        };
        let mut all = pin!(join_all((0..10).map(|_| flights.once(1, work()))));
        assert!(all.as_mut().now_or_never().is_none());
        gate.notify_one();
        assert_eq!(all.await, [0; 10]);
        assert!(flights.0.lock().is_empty());
        gate.notify_one();
        assert_eq!(flights.once(1, work()).await, 1, "it is done anew");
    }

    #[tokio::test]
    async fn when_who_does_it_goes_away_the_next_one_does_it() {
        let flights = Flights::new();
        {
            let first = flights.once(1, std::future::pending());
            assert!(first.now_or_never().is_none());
        }
        assert!(flights.0.lock().is_empty(), "nobody waits");
        let mut second = pin!(flights.once(1, async { "second" }));
        {
            let mut first = pin!(flights.once(2, std::future::pending()));
            assert!(first.as_mut().now_or_never().is_none());
            let mut third = pin!(flights.once(2, async { "third" }));
            assert!(third.as_mut().now_or_never().is_none(), "it waits for the first");
            assert_eq!(second.as_mut().now_or_never(), Some("second"));
        }
        assert!(flights.0.lock().is_empty());
    }
}
