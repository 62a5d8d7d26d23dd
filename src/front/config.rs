//! What the front door is told by `server` in the configuration.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

pub use crate::wire::UnderscoreHeaders;

/// `server`: listeners and what every client connection is held to.
#[derive(Debug, Clone)]
pub struct Config {
    /// Worker threads of the runtime.
    pub workers: usize,
    /// `SO_REUSEPORT` on every TCP listener, so that several edges share an address.
    pub reuse_port: bool,
    pub listeners: Vec<Listener>,
    /// Networks whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub limits: Limits,
    pub drain: Drain,
}

/// One address that clients connect to.
#[derive(Debug, Clone)]
pub struct Listener {
    pub address: ListenAddress,
    /// Answer every request with a redirect to `https`.
    pub redirect_to_https: bool,
    pub http2: Http2,
    pub tls: Option<Tls>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `127.0.0.1:8080`, `[::1]:8080`; port 0 lets the system choose.
    Tcp(std::net::SocketAddr),
    /// `unix:/run/edge.sock`
    Unix(PathBuf),
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Http2 {
    /// Concurrent streams per connection.
    pub streams: u32,
    /// A connection without streams is closed after this.
    pub idle: Duration,
}

/// One certificate per listener for now.
#[derive(Debug, Clone)]
pub struct Tls {
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    pub min_version: TlsVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// `server.limits`; a route may narrow some of them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one request head, request line included.
    pub header_bytes: usize,
    /// Field lines of one request head.
    pub header_count: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
    /// Bytes of a request body.
    pub body_bytes: u64,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Between two reads of a request body, and between two writes of a response.
    pub body_timeout: Duration,
    /// Between two requests on a connection.
    pub idle_timeout: Duration,
    /// Connections of this edge at once; `auto` is (descriptor limit - 1,000) / 2.
    pub connections: usize,
    /// What happens to a request field with `_` in its name.
    pub underscore_headers: UnderscoreHeaders,
}

/// `server.drain`: how the edge leaves.
#[derive(Debug, Clone)]
pub struct Drain {
    /// Unready but still accepting, with `Connection: close` and GOAWAY.
    pub delay: Duration,
    /// From the end of `delay` until what is left is cut.
    pub deadline: Duration,
}
