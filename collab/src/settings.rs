//! The settings of a node, read once from the environment.

use std::{fs, net::SocketAddr, time::Duration};

use eduham_platform::{
    db::DatabaseUrl,
    settings::{Environment, Span},
};

/// The share of the descriptor limit that sockets may use; the rest is for the database, the listener and handshakes.
const SOCKETS_PERCENT: u64 = 90;
/// What is assumed where the limit cannot be read.
const DESCRIPTORS_DEFAULT: u64 = 1_024;

/// Everything an operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `EDUHAM_COLLAB_LISTEN`.
    pub listen: SocketAddr,
    /// `EDUHAM_COLLAB_ID`: the id that the edge's configuration gives this peer; the address when unset.
    pub id: String,
    /// `DATABASE_URL`.
    pub database: DatabaseUrl,
    /// `EDUHAM_COLLAB_DRAIN`: over how long the sockets are closed when the node stops.
    pub drain: Duration,
    /// `EDUHAM_COLLAB_ORIGINS`: the web origins whose pages may connect; empty means all.
    pub origins: Vec<String>,
    /// Sockets that this process may hold; from its descriptor limit.
    pub connections_max: usize,
}

impl Settings {
    /// Reads the environment; what is wrong is collected there.
    pub fn from_env(env: &mut Environment) -> Self {
        let listen = env.value(
            "EDUHAM_COLLAB_LISTEN",
            SocketAddr::from(([127, 0, 0, 1], 8201)),
            "an address and port such as 127.0.0.1:8201",
        );
        Self {
            listen,
            id: env.value("EDUHAM_COLLAB_ID", NodeId(listen.to_string()), "1 to 64 letters, digits and . _ : -").0,
            database: env.value("DATABASE_URL", DatabaseUrl::sqlite("var/eduham.db"), DatabaseUrl::EXPECTS),
            drain: env.value("EDUHAM_COLLAB_DRAIN", Span(Duration::from_secs(10)), "a duration such as 10s").0,
            origins: env.list("EDUHAM_COLLAB_ORIGINS", "origins such as https://eduham.example"),
            connections_max: connections_max(descriptor_limit()),
        }
    }
}

/// A peer id: it becomes a header value.
struct NodeId(String);

/// Not a [`NodeId`].
#[derive(Debug, thiserror::Error)]
#[error("a character is not allowed, or it is too long")]
struct NotANodeId;

impl std::str::FromStr for NodeId {
    type Err = NotANodeId;

    fn from_str(text: &str) -> Result<Self, NotANodeId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-[]#".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(NotANodeId)
        }
    }
}

fn connections_max(descriptors: u64) -> usize {
    usize::try_from(descriptors * SOCKETS_PERCENT / 100).unwrap_or(usize::MAX)
}

/// The soft limit of open files, as the kernel tells it.
fn descriptor_limit() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(DESCRIPTORS_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_suit_one_node_on_this_machine() {
        let mut env = Environment::of::<String, String>([]);
        let settings = Settings::from_env(&mut env);
        assert_eq!(settings.id, "127.0.0.1:8201");
        assert_eq!(settings.database, DatabaseUrl::sqlite("var/eduham.db"));
        assert_eq!(settings.drain, Duration::from_secs(10));
        assert!(env.finish(()).is_ok());
    }

    #[test]
    fn an_id_that_cannot_be_a_header_is_a_problem() {
        let mut env = Environment::of([("EDUHAM_COLLAB_ID", "c 1")]);
        let settings = Settings::from_env(&mut env);
        let problems = env.finish(settings).unwrap_err();
        assert!(problems.to_string().contains("EDUHAM_COLLAB_ID"), "{problems}");
    }

    #[test]
    fn sockets_leave_a_tenth_of_the_descriptors_free() {
        assert_eq!(connections_max(20_000), 18_000);
        assert!(descriptor_limit() > 0);
    }
}
