//! Pools of peers: choosing one, knowing their health, connecting.

mod config;

pub use config::{
    Balance, Config, Health, HostPolicy, PeerAddress, PeerConfig, Retries, RetryWhen, StatusPattern, Timeouts, Tls,
};
