//! Orders that act on this node and that the others are still to be told.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::Notify;

use super::Order;

/// Things named by the orders that wait. Over it they are replaced by one order for everything: more is purged, never less.
const PENDING_MAX: usize = 10_000;

/// Things named by one entry of the log, where several orders are put into one.
const BATCH_MAX: usize = 1_000;

/// An order that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) order: Order,
    pub(super) at: SystemTime,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: Mutex<VecDeque<Waiting>>,
    came: Notify,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        // The queue is whole between any two statements that could panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, waiting: Waiting) {
        let mut queue = self.lock();
        queue.push_back(waiting);
        if queue.iter().map(|waiting| waiting.order.targets()).sum::<usize>() > PENDING_MAX
            && let Some(last) = queue.pop_back()
        {
            tracing::warn!("too many purges wait to be published; everything will be purged instead");
            queue.clear();
            queue.push_back(Waiting { order: Order::everything(), ..last });
        }
        drop(queue);
        self.came.notify_one();
    }

    /// The next order, with those of clients that follow it put into one.
    pub(super) async fn next(&self) -> Taken<'_> {
        loop {
            if let Some(taken) = self.take() {
                return taken;
            }
            self.came.notified().await;
        }
    }

    pub(super) fn take(&self) -> Option<Taken<'_>> {
        Some(Taken { pending: self, waiting: self.merged()?, told: false })
    }

    /// How many orders wait.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn merged(&self) -> Option<Waiting> {
        let mut queue = self.lock();
        let mut first = queue.pop_front()?;
        while first.order.by_client
            && first.order.targets() < BATCH_MAX
            && let Some(next) = queue.pop_front()
        {
            if !next.order.by_client {
                queue.push_front(next);
                break;
            }
            if let Err(order) = first.order.merge(next.order) {
                queue.push_front(Waiting { order, ..next });
                break;
            }
        }
        Some(first)
    }
}

/// The order whose turn it is. Unless it was told it is the first again when this is dropped, however its publication ended.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    pending: &'a Pending,
    pub(super) waiting: Waiting,
    /// The log has it.
    pub(super) told: bool,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.pending.lock().push_front(self.waiting.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{super::Url, *};

    fn waiting(id: &str, path: &str, by_client: bool) -> Waiting {
        let url = Url { host: "a.test".into(), port: None, target: path.into() };
        let order = Order { urls: vec![url], by_client, ..Order::default() };
        Waiting { id: id.into(), order, at: UNIX_EPOCH }
    }

    #[tokio::test]
    async fn what_clients_changed_is_told_in_one_entry_and_orders_each_in_theirs() {
        let pending = Pending::default();
        for (id, by_client) in [("1", true), ("2", true), ("3", false), ("4", false), ("5", true)] {
            pending.push(waiting(id, "/same", by_client));
        }
        let mut told = Vec::new();
        for _ in 0..4 {
            let mut next = pending.next().await;
            next.told = true;
            told.push((next.waiting.id.clone(), next.waiting.order.urls.len()));
        }
        assert_eq!(told, [("1", 1), ("3", 1), ("4", 1), ("5", 1)].map(|(id, urls)| (id.to_owned(), urls)));
    }

    #[tokio::test]
    async fn too_many_that_wait_become_one_order_for_everything() {
        let pending = Pending::default();
        for n in 0..=PENDING_MAX {
            pending.push(waiting("w", &format!("/{n}"), false));
        }
        let mut next = pending.next().await;
        next.told = true;
        assert_eq!(next.waiting.order, Order::everything());
        assert!(pending.take().is_none());
    }

    #[tokio::test]
    async fn an_order_that_was_not_told_after_all_is_the_first_again() {
        let pending = Pending::default();
        for id in ["1", "2"] {
            pending.push(waiting(id, "/", false));
        }
        drop(pending.next().await);
        assert_eq!((pending.len(), &*pending.next().await.waiting.id), (2, "1"));
    }
}
