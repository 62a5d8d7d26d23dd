//! The front door: a pingora `ServerApp` per listener.

mod config;

pub use config::{Config, Drain, Http2, Limits, ListenAddress, Listener, Tls, TlsVersion, UnderscoreHeaders};
