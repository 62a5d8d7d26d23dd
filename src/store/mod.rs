//! Stored responses: a head and parts.

mod config;
mod purge;

pub use config::{Config, Memory};
pub use purge::{
    PURGED_MAX, Position, PurgeOrder, PurgeTarget, PurgeVerdict, Purges, SOFT_HISTORY_MAX, surrogate_hash,
};
