//! The control listener.

mod config;

pub use config::{Config, Right, Token};
