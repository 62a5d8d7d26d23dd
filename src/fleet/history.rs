//! The last purges that this node has applied, for operators.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::Order;

/// Purges that are remembered, the oldest forgotten first. One costs about 500 bytes.
const PURGES_MAX: usize = 1_000;

/// A purge that was applied here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub id: String,
    /// Who issued it.
    pub node: String,
    /// When, by that node's clock.
    pub at: SystemTime,
    pub order: Order,
    /// Its place in the log; `None` while it is not published, and on a node without a fleet.
    pub position: Option<u64>,
    /// What it matched on this node, where that was counted.
    pub counted: Option<(u64, u64)>,
}

/// See [`Record`].
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Record>>);

impl History {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Record>> {
        // The list is whole between any two statements that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a purge down; one that is there already gets what is new of it.
    pub fn note(&self, record: Record) {
        let mut records = self.lock();
        if let Some(known) = records.iter_mut().rev().find(|known| known.id == record.id) {
            known.position = record.position.or(known.position);
            return;
        }
        if records.len() == PURGES_MAX {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// What a purge matched here.
    pub fn count(&self, id: &str, counted: Option<(u64, u64)>) {
        if let Some(record) = self.lock().iter_mut().rev().find(|record| record.id == id) {
            record.counted = counted;
        }
    }

    /// The newest first.
    pub fn list(&self) -> Vec<Record> {
        self.lock().iter().rev().cloned().collect()
    }

    pub fn find(&self, id: &str) -> Option<Record> {
        self.lock().iter().rev().find(|record| record.id == id).cloned()
    }
}
