//! What the store is told by `store` in the configuration.

use super::disk;

/// `store`: the tiers.
#[derive(Debug, Clone)]
pub struct Config {
    pub memory: Memory,
    pub disk: Option<disk::Config>,
}

impl Config {
    /// Bytes of the largest body that some tier keeps.
    pub fn object_max(&self) -> u64 {
        self.memory.object_max.max(self.disk.as_ref().map_or(0, |disk| disk.object_max))
    }

    /// The key of the configuration that says so.
    pub fn object_max_key(&self) -> &'static str {
        if self.object_max() == self.memory.object_max { "store.memory.object_max" } else { "store.disk.object_max" }
    }
}

/// `store.memory`
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes, bookkeeping included.
    pub size: u64,
    /// Bytes of the largest body kept here.
    pub object_max: u64,
}
