//! EduHam Edge: an HTTP cache, sticky WebSocket router and API gateway on pingora's core.
//!
//! # Layout, in reading order
//!
//! - [`config`]: the operator's YAML becomes a [`config::Config`] that cannot be wrong.
//! - [`wire`]: HTTP/1.1 heads and bodies, read and written strictly.
//! - [`cache`]: the law (RFC 9111 and friends), pure functions.
//! - [`store`]: stored responses, fills in progress, purge.
//! - [`fleet`]: what nodes tell each other: the purge log and who is a member; [`redis`]: the only owner of Redis connections.
//! - [`upstream`]: pools of peers, health, choice.
//! - [`proxy`]: one `Exchange` walks the steps of a request.
//! - [`front`]: the front door: listeners, HTTP/1.1 and HTTP/2 loops, the tunnel.
//! - [`explain`]: why, in words: of a request offline, and of a URL on a node.
//! - [`admin`]: the control listener.
//! - [`telemetry`]: metrics, access record, diagnostics.
//! - [`app`]: assembly and lifecycle; [`cli`]: the commands; [`clock`]: the only reader of time.

pub mod admin;
pub mod app;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod explain;
pub mod fleet;
pub mod front;
pub mod proxy;
pub mod redis;
pub mod store;
pub mod telemetry;
pub mod upstream;
pub mod wire;
