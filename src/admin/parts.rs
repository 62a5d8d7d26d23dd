//! What the control listener asks of the rest of the node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use serde::Serialize;

use super::Config;
use crate::telemetry::{Metrics, rfc3339_ms};

/// Handles on everything that the control listener shows or changes.
#[derive(Clone)]
pub struct Parts {
    pub metrics: Arc<Metrics>,
    pub purge: Arc<dyn Purge>,
    pub upstreams: Arc<dyn Upstreams>,
    pub explain: Arc<dyn Explain>,
    pub readiness: Arc<Readiness>,
    pub config: Config,
    /// The node's id.
    pub node: String,
}

/// Whoever can purge stored responses.
pub trait Purge: Send + Sync {
    /// Applies the whole request, or refuses the whole of it. When it answers, no read of this node sees anything older. A dry run
    /// counts and does nothing; everything else is in the audit, under the name of `token`, whether or not the answer is waited for.
    fn purge(&self, request: PurgeRequest, token: String) -> BoxFuture<'_, Result<PurgeReceipt, PurgeRefusal>>;

    /// The last purges that were applied here, the newest first.
    fn purges(&self) -> Vec<PurgeView>;

    /// One of them, and how far it has come.
    fn find(&self, id: String) -> BoxFuture<'_, Option<PurgeView>>;

    /// The nodes that purge together.
    fn fleet(&self) -> BoxFuture<'_, FleetView>;
}

/// `POST /purge`, its words understood and its bounds checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeRequest {
    pub urls: Vec<PurgeUrl>,
    pub surrogate_keys: Vec<String>,
    /// Without a query; their path is a beginning.
    pub prefixes: Vec<PurgeUrl>,
    /// Lower case, without ports.
    pub hosts: Vec<String>,
    pub all: bool,
    /// Expire in place of forget.
    pub soft: bool,
    /// Count what would be touched, and do nothing.
    pub dry_run: bool,
    /// URLs are meant whatever their query.
    pub ignore_query: bool,
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
    #[error("prefixes[{index}] {reason}")]
    Prefix { index: usize, reason: String },
    #[error("the purge failed inside the edge: {reason}")]
    Failed { reason: String },
}

/// What a purge did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PurgeReceipt {
    pub id: String,
    /// Its place in the fleet's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Stored responses of this node that were touched; `null` where there are too many to count.
    pub matched: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// From now on no node that serves has anything older.
    pub complete: bool,
    pub nodes: PurgeNodes,
    /// The fleet does not know of it yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Unreachable>,
}

/// `"unreachable"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unreachable {
    Unreachable,
}

/// A purge that was applied here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PurgeView {
    pub id: String,
    /// The node that issued it.
    pub node: String,
    /// By that node's clock.
    #[serde(serialize_with = "rfc3339_ms")]
    pub at: SystemTime,
    pub position: Option<u64>,
    pub urls: Vec<String>,
    pub surrogate_keys: Vec<String>,
    pub prefixes: Vec<String>,
    pub hosts: Vec<String>,
    pub all: bool,
    pub soft: bool,
    pub ignore_query: bool,
    pub matched: Option<u64>,
    pub bytes: Option<u64>,
    /// Only where one purge is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<PurgeNodes>,
}

/// `GET /fleet`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetView {
    /// Can this node hear of purges now?
    pub connected: bool,
    /// The last entry of the log that this node has applied.
    pub position: u64,
    pub nodes: Vec<NodeView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeView {
    pub id: String,
    pub region: Option<String>,
    /// The hash of its configuration.
    pub config: String,
    /// `live` or `lost`
    pub state: &'static str,
    /// The last entry that it has said to have applied.
    pub position: Option<u64>,
    /// Entries that it has not applied yet.
    pub lag: Option<u64>,
    /// Since it was last heard of.
    pub silent_ms: u64,
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

/// Whoever can say what a request would get now, and why.
pub trait Explain: Send + Sync {
    /// The explanation as JSON.
    ///
    /// # Errors
    /// Why there is no such request.
    fn explain(&self, question: Question) -> BoxFuture<'_, Result<serde_json::Value, String>>;
}

/// `GET /explain`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Absolute.
    pub url: String,
    pub method: http::Method,
    /// `Name: value`
    pub headers: Vec<String>,
}

/// Is this node fit to be sent traffic? About the node alone: upstreams are asked apart.
#[derive(Debug, Default)]
pub struct Readiness {
    config_loaded: AtomicBool,
    listeners_bound: AtomicBool,
    first_health_round: AtomicBool,
    /// The fleet's purges up to now are still to be read; never on a node without a fleet.
    purge_log_behind: AtomicBool,
    cut_off: AtomicBool,
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
    /// The purge log has not been read to its end.
    PurgeLogBehind,
    /// Cut off from its fleet with `when_cut_off: stop`.
    CutOff,
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

    pub fn set_purge_log_behind(&self, behind: bool) {
        self.purge_log_behind.store(behind, Ordering::Release);
    }

    pub fn set_cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Release);
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
            (self.purge_log_behind.load(Ordering::Acquire), UnreadyReason::PurgeLogBehind),
            (self.cut_off.load(Ordering::Acquire), UnreadyReason::CutOff),
            (self.is_draining(), UnreadyReason::Draining),
        ];
        waits.into_iter().filter_map(|(waits, reason)| waits.then_some(reason)).collect()
    }
}
