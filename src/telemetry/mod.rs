//! What the edge tells about itself: metrics, access record, diagnostics.

mod config;
mod metrics;

pub use config::{Access, AccessTo, Config};
pub use metrics::Metrics;
