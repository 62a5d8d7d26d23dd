//! From the operator's YAML to a [`Config`] that cannot be wrong, or to every problem at once.

use std::sync::Arc;

use crate::{admin, cache, front, proxy::routing, store, telemetry, upstream};

/// Everything that one edge needs to run. Made only by resolving a file: what is here is valid.
#[derive(Debug, Clone)]
pub struct Config {
    pub node: Node,
    pub server: front::Config,
    pub admin: admin::Config,
    pub store: store::Config,
    /// Named cache policies, in the order of their names.
    pub policies: Vec<Arc<cache::Policy>>,
    pub upstreams: Vec<Arc<upstream::Config>>,
    pub routing: routing::Routing,
    pub log: telemetry::Config,
}

/// Who this edge is among its like.
#[derive(Debug, Clone)]
pub struct Node {
    /// `node.id`; `auto` is the host's name.
    pub id: String,
    /// `node.region`, if named.
    pub region: Option<String>,
}
