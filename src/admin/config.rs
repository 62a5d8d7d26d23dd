//! What the control listener is told by `admin` in the configuration.

use crate::front::ListenAddress;

/// `admin`
#[derive(Debug, Clone)]
pub struct Config {
    pub address: ListenAddress,
    /// Must `/metrics` come with a token that may read?
    pub metrics_token: bool,
    /// Upstreams without which this node is not ready (`admin.ready.require`).
    pub ready_require: Vec<String>,
    pub tokens: Vec<Token>,
}

/// `admin.tokens[]`: who may do what.
#[derive(Clone)]
pub struct Token {
    pub name: String,
    /// The secret itself, read from its file when the configuration is.
    pub value: String,
    pub allow: Vec<Right>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("allow", &self.allow).finish_non_exhaustive()
    }
}

/// What a token allows: `read` = every GET, `purge` = purging, `drain` = peers and drain, `config` = reload and log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Right {
    Read,
    Purge,
    Drain,
    Config,
    All,
}
