//! What the store is told by `store` in the configuration.

use super::disk;

/// `store`: the tiers.
#[derive(Debug, Clone)]
pub struct Config {
    pub memory: Memory,
    pub disk: Option<disk::Config>,
}

/// `store.memory`
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes, bookkeeping included.
    pub size: u64,
    /// Bytes of the largest body kept here.
    pub object_max: u64,
}
