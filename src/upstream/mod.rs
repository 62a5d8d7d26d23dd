//! Pools of peers: choosing one, knowing their health, connecting.
//!
//! A [`Pool`] is what the configuration calls an upstream: peers that give the same answers. [`Pool::choose`] hands out a
//! [`Lease`] on one peer; while it lives the request counts as active there. The choice goes down a ladder and stops at
//! the first step on which somebody stands:
//!
//! 1. peers in service; with them, when fewer than `panic` of all are in service, those that health took out;
//! 2. backup peers in service;
//! 3. nobody is in service and `panic` is not 0: peers that say they are leaving, but no new rooms for them;
//! 4. then those that health took out, then backups that health took out;
//! 5. the same ladder among the peers that this request has already tried.
//!
//! On a step a room (`Ask::sticky`) goes to the peer with the highest rendezvous score, everything else by the pool's
//! `balance`. A room therefore moves only when its own peer leaves its step, and returns when that peer does.
//!
//! Health is a task per peer ([`Pools::run`]); it alone writes what a probe found, so the states need no lock to be read.
//! A connect that fails during traffic asks for a probe at once, and that probe decides alone: a dead peer is out after
//! one round trip, not after `fall` intervals.

mod balance;
mod budget;
mod config;
mod connect;
mod health;
mod idle;
mod peer;
mod pool;
mod pools;
mod resolve;
#[cfg(test)]
mod sample;
mod series;
mod target;

pub use config::{
    Balance, Config, Health, HostPolicy, PeerAddress, PeerConfig, Retries, RetryWhen, StatusPattern, Timeouts, Tls,
};
pub use connect::{CONNECTIONS_IDLE_MAX, ConnectError, Connection, Connector, ConnectorError};
pub use peer::{Admin, Peer, PeerId, PeerState};
pub use pool::{Ask, Lease, NoPeer, PEERS_MAX, Pool, Source};
pub use pools::Pools;
