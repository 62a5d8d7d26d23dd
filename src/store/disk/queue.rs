//! A bounded queue between the workers, which never wait, and the threads of the disk, which do.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Holds at most so many things that weigh at most so much.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    items_max: usize,
    weight_max: u64,
}

struct State<T> {
    items: VecDeque<(T, u64)>,
    weight: u64,
    closed: bool,
}

impl<T> Queue<T> {
    pub fn new(items_max: usize, weight_max: u64) -> Self {
        Self {
            state: Mutex::new(State { items: VecDeque::new(), weight: 0, closed: false }),
            ready: Condvar::new(),
            items_max,
            weight_max,
        }
    }

    /// False when there is no room, or when it is closed. Never waits for a reader.
    #[must_use]
    pub fn try_push(&self, item: T, weight: u64) -> bool {
        let mut state = self.state.lock();
        let fits = state.items.len() < self.items_max && state.weight + weight <= self.weight_max;
        if state.closed || !fits {
            return false;
        }
        state.weight += weight;
        state.items.push_back((item, weight));
        drop(state);
        self.ready.notify_one();
        true
    }

    /// Waits for the next thing; `None` once it is closed and empty. Blocks: for threads of the disk.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some((item, weight)) = state.items.pop_front() {
                state.weight -= weight;
                return Some(item);
            }
            if state.closed {
                return None;
            }
            self.ready.wait(&mut state);
        }
    }

    /// What is there now.
    pub fn take_all(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.weight = 0;
        state.items.drain(..).map(|(item, _)| item).collect()
    }

    /// Takes nothing more; what waits is still given out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn it_is_full_by_number_or_by_weight_and_never_waits() {
        let queue = Queue::new(2, 100);
        assert!(queue.try_push("a", 60));
        assert!(!queue.try_push("too heavy", 60));
        assert!(queue.try_push("b", 40));
        assert!(!queue.try_push("too many", 0));
        assert_eq!((queue.pop(), queue.pop()), (Some("a"), Some("b")));
        assert!(queue.try_push("room again", 100));
    }

    #[test]
    fn what_waits_when_it_is_closed_is_still_given_out() {
        let queue = Arc::new(Queue::new(10, 10));
        assert!(queue.try_push(1, 1));
        queue.close();
        assert!(!queue.try_push(2, 1));
        assert_eq!((queue.pop(), queue.pop()), (Some(1), None));
    }

    #[test]
    fn who_waits_is_woken_by_the_end() {
        let queue = Arc::new(Queue::<u8>::new(1, 1));
        let waiter = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.pop()
        });
        queue.close();
        assert_eq!(waiter.join().expect("no panic"), None);
    }
}
