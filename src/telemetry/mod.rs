//! What the edge tells about itself: metrics, access record, diagnostics.

mod access;
mod config;
pub mod diagnostics;
mod metrics;
mod redact;
mod route_metrics;

pub use access::{AccessLog, AccessLogError, AccessRecord};
pub use config::{Access, AccessTo, Config};
pub use metrics::Metrics;
pub use route_metrics::{CacheResult, ROUTES_MAX, RouteMetrics};
