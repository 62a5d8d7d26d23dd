//! The edge as a whole, in this process: from a client's bytes over the cache to an origin's, and back.

mod support;

mod smoke;

mod cache_cases;

mod reuse;

mod cold_object;
mod collapsing;

mod stale;

mod disk;
mod parts;

mod policy;

mod compression;

mod leaks;

mod poisoning;
mod purging;

mod fleet;
mod fleet_deployments;

mod history;

mod bodies;

mod forwarding;

mod http1;

mod http2;

mod tls;

mod sockets;

mod lifecycle;

mod soak;

mod explain;

mod lane;
mod lane_streams;
mod lane_waits;
