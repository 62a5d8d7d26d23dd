//! The edge as a whole, in this process: from a client's bytes over the cache to an origin's, and back.

mod support;

mod http1;
mod http2;
mod lifecycle;
mod smoke;
mod soak;
mod sockets;
mod tls;

mod cache_cases;

mod reuse;

mod collapsing;

mod stale;

mod purging;

mod bodies;

mod forwarding;
