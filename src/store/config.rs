//! What the store is told by `store` in the configuration.

/// `store`: the tiers. Memory alone for now.
#[derive(Debug, Clone)]
pub struct Config {
    pub memory: Memory,
}

/// `store.memory`
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes, bookkeeping included.
    pub size: u64,
    /// Bytes of the largest body kept here.
    pub object_max: u64,
}
