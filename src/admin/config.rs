//! What the control listener is told by `admin` in the configuration.

use http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq;

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

/// Why a token is not good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied<'a> {
    Missing,
    Unknown,
    /// This token, of this name, does not allow it.
    NotAllowed(&'a str),
}

impl Config {
    /// The token that a request carries, if it has the right.
    pub(super) fn token(&self, right: Right, headers: &HeaderMap) -> Result<&Token, Denied<'_>> {
        let given = headers.get(header::AUTHORIZATION).ok_or(Denied::Missing)?;
        let token = bearer(given.as_bytes()).and_then(|given| find(&self.tokens, given)).ok_or(Denied::Unknown)?;
        let allowed = token.allow.iter().any(|allowed| *allowed == right || *allowed == Right::All);
        if allowed { Ok(token) } else { Err(Denied::NotAllowed(&token.name)) }
    }

    /// Who asks, if they may purge by this request on the traffic port; else the status of the refusal. Without tokens nobody may:
    /// whoever is served there is not whoever reaches the control listener.
    ///
    /// # Errors
    /// 401 or 403.
    pub fn may_purge(&self, headers: &HeaderMap) -> Result<&str, StatusCode> {
        self.token(Right::Purge, headers).map(|token| token.name.as_str()).map_err(|denied| match denied {
            Denied::Missing | Denied::Unknown => StatusCode::UNAUTHORIZED,
            Denied::NotAllowed(_) => StatusCode::FORBIDDEN,
        })
    }
}

/// The token of `Bearer TOKEN`; the scheme's case does not matter (RFC 9110 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

/// Compares with every token, each in constant time, so that the time taken tells nothing of how much was right.
fn find<'a>(tokens: &'a [Token], given: &[u8]) -> Option<&'a Token> {
    let mut found = None;
    for token in tokens {
        let same = bool::from(token.value.as_bytes().ct_eq(given));
        if same && !given.is_empty() {
            found = Some(token);
        }
    }
    found
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
