//! What the fleet is told by `fleet` and `redis` in the configuration.

use std::time::Duration;

use crate::redis::Config as RedisConfig;

/// The shortest lease: with less between its beats, a node that a busy machine holds up for a moment is lost.
pub const LEASE_MIN: Duration = Duration::from_secs(1);

/// `fleet`
#[derive(Debug, Clone)]
pub struct Config {
    /// `fleet.redis`, else `redis`; without either this node is its own fleet.
    pub redis: Option<RedisConfig>,
    /// A node that is silent for so long is lost; at least [`LEASE_MIN`].
    pub lease: Duration,
    /// How long purges are kept for nodes that come back; no shorter than the lease.
    pub history: Duration,
    pub when_cut_off: WhenCutOff,
}

impl Config {
    /// Does a node that is cut off ask the origin about everything?
    pub fn revalidates_when_cut_off(&self) -> bool {
        self.when_cut_off == WhenCutOff::Revalidate
    }
}

/// What a node does that cannot hear of purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, serde::Serialize, serde::Deserialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum WhenCutOff {
    /// Goes on; a purge is not complete until the node is back.
    Serve,
    /// Asks the origin before it uses anything stored, for each request anew: a fetch that began earlier may bring what was purged since.
    Revalidate,
    /// Answers nothing but 503.
    Stop,
}
