//! Stored responses: a head and parts.

mod config;

pub use config::{Config, Memory};
