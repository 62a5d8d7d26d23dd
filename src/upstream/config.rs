//! What one pool of peers is told by `upstreams.NAME` in the configuration.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// `upstreams.NAME`.
#[derive(Debug, Clone)]
pub struct Config {
    pub name: String,
    pub peers: Vec<PeerConfig>,
    pub balance: Balance,
    pub host: HostPolicy,
    pub tls: Option<Tls>,
    pub health: Option<Health>,
    /// Below this share of usable peers, in percent, health is ignored.
    pub panic_percent: u8,
    pub timeouts: Timeouts,
    pub retries: Retries,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// `id`, default the address as written. Unique in its pool; what rendezvous hashes.
    pub id: String,
    pub address: PeerAddress,
    /// 0 = drain.
    pub weight: u32,
    /// Used only when no other peer is usable.
    pub backup: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAddress {
    Ip(SocketAddr),
    /// A name and a port; every address it resolves to becomes a peer `id#address`.
    Name(String, u16),
    Unix(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastRequests,
    Rendezvous,
}

/// What goes into `Host` to the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPolicy {
    /// What the client asked for.
    Client,
    /// The peer's address.
    Peer,
    Literal(http::HeaderValue),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Name for SNI and for verification; `None`: the host part of the peer's address as written.
    pub sni: Option<String>,
    /// A PEM file of authorities; `None`: the system's.
    pub ca: Option<PathBuf>,
    pub verify: bool,
}

/// Active health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// Good probes in a row that bring a peer up. The first probe decides alone.
    pub rise: u32,
    /// Bad probes in a row that take it down.
    pub fall: u32,
    pub expect: Vec<StatusPattern>,
}

/// `204` or `2xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusPattern {
    Code(u16),
    Class(u8),
}

impl StatusPattern {
    pub fn matches(self, status: u16) -> bool {
        match self {
            Self::Code(code) => status == code,
            Self::Class(digit) => status / 100 == u16::from(digit),
        }
    }
}

/// `timeouts`; a route may set its own, key by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From the end of the request to the response head.
    pub first_byte: Duration,
    /// Between two reads of a response body.
    pub between_bytes: Duration,
    /// How long an idle connection is kept.
    pub keepalive: Duration,
    /// Of the whole exchange with the origin.
    pub total: Option<Duration>,
}

/// `retries`; a route may set its own, key by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Further tries after the first.
    pub max: u32,
    /// Retries may be at most this share of the requests of the last 10 s (at least 3 a second).
    pub budget_percent: u8,
    pub when: Vec<RetryWhen>,
    /// Also POST and PATCH after something was sent.
    pub non_idempotent: bool,
    /// A request body up to this size is kept for a retry.
    pub body_max: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryWhen {
    Connect,
    Reset,
    Status(u16),
}
