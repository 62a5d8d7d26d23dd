//! What the configuration says of a Redis: where it is, what its keys begin with, how long a command may take.

use std::{fmt, str::FromStr, time::Duration};

use percent_encoding::percent_decode_str;

/// Servers that one URL may name; the others are found by asking these.
const ADDRESSES_MAX: usize = 64;

/// `redis` at the top level, or of one use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub url: Url,
    /// What every key begins with.
    pub prefix: String,
    /// Of one command.
    pub timeout: Duration,
}

/// Where a Redis is: `redis://`, `redis+cluster://`, `redis+sentinel://`, each also as `rediss..` over TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    pub tls: bool,
    pub username: Option<String>,
    pub password: Option<String>,
    pub database: i64,
    pub deployment: Deployment,
}

/// What answers at a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deployment {
    Single(Address),
    /// Some nodes of a cluster.
    Cluster(Vec<Address>),
    /// Sentinels, and the name of the master that they watch.
    Sentinel {
        sentinels: Vec<Address>,
        master: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

/// For people: `a:6379`, `a:7000, b:7001`, `main of a:26379, b:26379`.
impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = match self {
            Self::Single(address) => std::slice::from_ref(address),
            Self::Cluster(nodes) => nodes,
            Self::Sentinel { sentinels, master } => {
                write!(f, "{master} of ")?;
                sentinels
            }
        };
        for (index, address) in addresses.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why a text is no URL of a Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    #[error("the scheme is redis, rediss, redis+cluster, rediss+cluster, redis+sentinel or rediss+sentinel")]
    Scheme,
    #[error("an address is HOST, HOST:PORT or [IPV6]:PORT")]
    Address,
    #[error("several addresses are for redis+cluster and redis+sentinel; at most {ADDRESSES_MAX}")]
    Addresses,
    #[error("the name of the master is missing: redis+sentinel://HOST:PORT/MASTER")]
    Master,
    #[error("what follows the address is the number of a database, which a cluster does not have")]
    Database,
    #[error("a % in user or password is followed by two hexadecimal digits that make UTF-8")]
    Encoding,
}

/// The usual ports of a server and of a sentinel.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::Scheme)?;
        let (transport, kind) =
            scheme.split_once('+').map_or((scheme, None), |(transport, kind)| (transport, Some(kind)));
        let tls = match transport {
            "redis" => false,
            "rediss" => true,
            _ => return Err(BadUrl::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, servers) =
            authority.rsplit_once('@').map_or((None, authority), |(user, servers)| (Some(user), servers));
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((name, password)) => (decoded(name)?, decoded(password)?),
            None => (None, None),
        };
        let default = if kind == Some("sentinel") { SENTINEL_PORT } else { PORT };
        let addresses = servers.split(',').map(|text| address(text, default)).collect::<Result<Vec<_>, _>>()?;
        if addresses.len() > ADDRESSES_MAX {
            return Err(BadUrl::Addresses);
        }
        let (deployment, database) = match kind {
            None => match <[Address; 1]>::try_from(addresses) {
                Ok([address]) => (Deployment::Single(address), path),
                Err(_) => return Err(BadUrl::Addresses),
            },
            Some("cluster") if path.is_empty() => (Deployment::Cluster(addresses), path),
            Some("cluster") => return Err(BadUrl::Database),
            Some("sentinel") => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                let master = decoded(master)?.ok_or(BadUrl::Master)?;
                (Deployment::Sentinel { sentinels: addresses, master }, database)
            }
            Some(_) => return Err(BadUrl::Scheme),
        };
        let database = match database {
            "" => 0,
            number => number.parse::<u16>().map_err(|_| BadUrl::Database)?.into(),
        };
        Ok(Self { tls, username, password, database, deployment })
    }
}

fn decoded(text: &str) -> Result<Option<String>, BadUrl> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| BadUrl::Encoding)?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

fn address(text: &str, default: u16) -> Result<Address, BadUrl> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(BadUrl::Address)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| BadUrl::Address)?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(BadUrl::Address)?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    let port = match port {
        None => default,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(BadUrl::Address)?,
    };
    if is_host { Ok(Address { host: host.to_owned(), port }) } else { Err(BadUrl::Address) }
}

/// Without the password.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, username, database, deployment, password: _ } = self;
        f.debug_struct("Url")
            .field("tls", tls)
            .field("username", username)
            .field("database", database)
            .field("deployment", deployment)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_one_server_a_cluster_or_sentinels() {
        let at = |host: &str, port| Address { host: host.to_owned(), port };
        let plain = |deployment| Url { tls: false, username: None, password: None, database: 0, deployment };
        let rows = [
            ("redis://127.0.0.1:6380", plain(Deployment::Single(at("127.0.0.1", 6380)))),
            ("redis://cache.internal", plain(Deployment::Single(at("cache.internal", 6379)))),
            ("redis://[::1]:7000/", plain(Deployment::Single(at("::1", 7000)))),
            (
                "rediss://edge:p%40ss@a/3",
                Url {
                    tls: true,
                    username: Some("edge".into()),
                    password: Some("p@ss".into()),
                    database: 3,
                    deployment: Deployment::Single(at("a", 6379)),
                },
            ),
            ("redis://:secret@a", Url { password: Some("secret".into()), ..plain(Deployment::Single(at("a", 6379))) }),
            ("redis+cluster://a:7000,b:7001", plain(Deployment::Cluster(vec![at("a", 7000), at("b", 7001)]))),
            (
                "rediss+sentinel://a,b:5/main/2",
                Url {
                    tls: true,
                    database: 2,
                    ..plain(Deployment::Sentinel { sentinels: vec![at("a", 26379), at("b", 5)], master: "main".into() })
                },
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (text, problem) in [
            ("127.0.0.1:6379", BadUrl::Scheme),
            ("http://a", BadUrl::Scheme),
            ("redis+ring://a", BadUrl::Scheme),
            ("redis://", BadUrl::Address),
            ("redis://a:0", BadUrl::Address),
            ("redis://a:x", BadUrl::Address),
            ("redis://a b", BadUrl::Address),
            ("redis://[::1", BadUrl::Address),
            ("redis://a,b", BadUrl::Addresses),
            ("redis://a/main", BadUrl::Database),
            ("redis+cluster://a/1", BadUrl::Database),
            ("redis+sentinel://a", BadUrl::Master),
            ("redis://%ff@a", BadUrl::Encoding),
        ] {
            assert_eq!(text.parse::<Url>(), Err(problem), "{text}");
        }
    }

    #[test]
    fn where_a_redis_is_can_be_read() {
        for (text, expected) in [
            ("redis://edge:secret@cache.internal", "cache.internal:6379"),
            ("redis://[::1]:7000", "[::1]:7000"),
            ("redis+cluster://a:7000,b:7001", "a:7000, b:7001"),
            ("redis+sentinel://a,b/main", "main of a:26379, b:26379"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.deployment.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url: Url = "redis://edge:secret@a".parse().unwrap();
        assert!(!format!("{url:?}").contains("secret"));
    }
}
