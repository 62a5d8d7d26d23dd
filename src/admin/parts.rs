//! What the control listener asks of the rest of the node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use serde::Serialize;

use super::Config;
use crate::telemetry::Metrics;

/// Handles on everything that the control listener shows or changes.
#[derive(Clone)]
pub struct Parts {
    pub metrics: Arc<Metrics>,
    pub purge: Arc<dyn Purge>,
    pub upstreams: Arc<dyn Upstreams>,
    pub readiness: Arc<Readiness>,
    pub config: Config,
    /// The node's id.
    pub node: String,
}

/// Whoever can purge stored responses.
pub trait Purge: Send + Sync {
    /// Applies the whole request, or refuses the whole of it. When it answers, no read of this node sees anything older.
    fn purge(&self, request: PurgeRequest) -> BoxFuture<'_, Result<PurgeReceipt, PurgeRefusal>>;
}

/// `POST /purge`, its words understood and its bounds checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeRequest {
    pub urls: Vec<PurgeUrl>,
    pub surrogate_keys: Vec<String>,
    pub all: bool,
    /// Expire in place of forget.
    pub soft: bool,
    /// Answer only when every live node has applied it.
    pub wait: bool,
    /// How long to wait for them.
    pub timeout: Duration,
}

/// An absolute URL, in parts, without its scheme: a purge touches both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeUrl {
    /// Lower case, without a trailing dot; an IPv6 address in brackets.
    pub host: String,
    /// `None`: the default of the scheme that was written.
    pub port: Option<u16>,
    /// As written, not yet normalised; never empty.
    pub path: String,
    /// As written, without `?`.
    pub query: Option<String>,
}

/// Why a purge was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurgeRefusal {
    /// No request could have this target.
    #[error("urls[{index}] {reason}")]
    Url { index: usize, reason: String },
}

/// What a purge did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PurgeReceipt {
    pub id: String,
    /// Stored responses that were touched; `null` where they are not counted, since a purge never scans.
    pub matched: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// From now on no node that serves has anything older.
    pub complete: bool,
    pub nodes: PurgeNodes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PurgeNodes {
    pub live: u32,
    pub acknowledged: u32,
    /// Nodes whose lease lapsed unannounced.
    pub lost: Vec<String>,
}

impl PurgeNodes {
    /// A node without a fleet: it is its own.
    pub fn alone() -> Self {
        Self { live: 1, acknowledged: 1, lost: Vec::new() }
    }
}

/// Whoever knows the pools of peers.
pub trait Upstreams: Send + Sync {
    /// All of them, in the order of their names.
    fn list(&self) -> Vec<UpstreamView>;

    /// Sets what an operator wants of a peer; it holds until another command.
    ///
    /// # Errors
    /// When there is no such upstream or peer.
    fn set_state(&self, upstream: &str, peer: &str, command: PeerCommand) -> Result<(), SetStateError>;
}

/// An upstream at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamView {
    pub name: String,
    /// Would a request find a peer?
    pub usable: bool,
    pub peers: Vec<PeerView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerView {
    pub id: String,
    pub address: String,
    pub state: PeerState,
    pub weight: u32,
    pub backup: bool,
    /// Requests and sockets it has now.
    pub active: u64,
}

/// As in `upstream_peer_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum PeerState {
    Up,
    Down,
    Draining,
    Ejected,
    /// Not probed yet.
    Unknown,
}

/// `POST /upstreams/{upstream}/peers/{id}`
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum PeerCommand {
    /// No new requests but those of rooms that are there.
    Drain,
    /// What health says holds again.
    Ready,
    /// Nothing at all.
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetStateError {
    #[error("there is no upstream `{0}`; GET /upstreams lists those that exist")]
    NoUpstream(String),
    #[error("upstream `{upstream}` has no peer `{peer}`; GET /upstreams lists those that exist")]
    NoPeer { upstream: String, peer: String },
}

/// Is this node fit to be sent traffic? About the node alone: upstreams are asked apart.
#[derive(Debug, Default)]
pub struct Readiness {
    config_loaded: AtomicBool,
    listeners_bound: AtomicBool,
    first_health_round: AtomicBool,
    draining: AtomicBool,
}

/// What a node that is not ready waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum UnreadyReason {
    ConfigNotLoaded,
    ListenersNotBound,
    /// Not every peer has been probed once.
    FirstHealthRoundPending,
    Draining,
}

impl Readiness {
    /// Ready for nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub fn config_loaded(&self) {
        self.config_loaded.store(true, Ordering::Release);
    }

    pub fn listeners_bound(&self) {
        self.listeners_bound.store(true, Ordering::Release);
    }

    pub fn first_health_round_done(&self) {
        self.first_health_round.store(true, Ordering::Release);
    }

    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Why this node is not ready; empty when it is.
    pub fn reasons(&self) -> Vec<UnreadyReason> {
        let waits = [
            (!self.config_loaded.load(Ordering::Acquire), UnreadyReason::ConfigNotLoaded),
            (!self.listeners_bound.load(Ordering::Acquire), UnreadyReason::ListenersNotBound),
            (!self.first_health_round.load(Ordering::Acquire), UnreadyReason::FirstHealthRoundPending),
            (self.is_draining(), UnreadyReason::Draining),
        ];
        waits.into_iter().filter_map(|(waits, reason)| waits.then_some(reason)).collect()
    }
}
