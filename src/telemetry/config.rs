//! What logging is told by `log` in the configuration.

use std::path::PathBuf;

/// `log`
#[derive(Debug, Clone)]
pub struct Config {
    /// A `tracing` filter: `info`, `warn,edge=debug`.
    pub level: String,
    pub access: Access,
}

/// `log.access`: the access record.
#[derive(Debug, Clone)]
pub struct Access {
    pub to: AccessTo,
    /// Bytes that may wait for the writer; over it records are dropped and counted.
    pub buffer: usize,
    /// Query parameters whose values are never written, lower case.
    pub redact_query: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTo {
    None,
    Stdout,
    Stderr,
    File(PathBuf),
}
