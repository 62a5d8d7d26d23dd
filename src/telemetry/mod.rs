//! What the edge tells about itself: metrics, access record, diagnostics.

mod access;
mod access_log;
mod config;
pub mod diagnostics;
mod metrics;
mod redact;
mod route_metrics;
mod socket_metrics;

pub use access::AccessRecord;
pub use access::rfc3339_ms;
pub use access_log::{AccessLog, AccessLogError};
pub use config::{Access, AccessTo, Config};
pub use metrics::Metrics;
pub use route_metrics::{CacheResult, ROUTES_MAX, RouteMetrics};

pub use socket_metrics::SocketMetrics;
