//! The control listener: what operators, load balancers, Prometheus and publishers ask of one node.
//!
//! It knows the parts it asks only by the traits of [`Parts`], and nothing of the way of a request. Three things are asked without a
//! token (`/livez`, `/readyz`, `/healthz`), `/metrics` where `metrics_token` is off; all else needs a token with the right to it as
//! soon as one is configured, and what changes something also must come from where it claims to (`guard`).

mod config;
mod explain;
mod guard;
mod parts;
mod probes;
mod problem;
mod purge;
mod server;
mod upstreams;

pub use config::{Config, Right, Token};
pub use parts::{
    Explain, FleetView, NodeView, Parts, PeerCommand, PeerState, PeerView, Purge, PurgeNodes, PurgeReceipt,
    PurgeRefusal, PurgeRequest, PurgeUrl, PurgeView, Question, Readiness, SetStateError, Unreachable, UnreadyReason,
    UpstreamView, Upstreams,
};
pub use server::{Listener, bind, serve};
