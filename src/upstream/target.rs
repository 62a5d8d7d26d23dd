//! What pingora is told about one peer: address, TLS, timeouts, and when two connections are alike.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use pingora_core::{
    protocols::{ALPN, l4::socket::SocketAddr as AnyAddr, tls::CaType},
    upstreams::peer::{Peer as PingoraPeer, PeerOptions},
    utils::tls::{WrappedX509, parse_x509},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use xxhash_rust::xxh3::xxh3_64;

use super::config::{Config, Tls};

/// Certificates that one `ca` file may hold; the system's bundle has about 150.
const AUTHORITIES_MAX: usize = 1_000;

/// Where a peer listens, once names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Ip(SocketAddr),
    Unix(PathBuf),
}

/// One peer in pingora's eyes, built once.
#[derive(Clone)]
pub(super) struct Target {
    address: AnyAddr,
    tls: bool,
    sni: String,
    /// Connections of targets with the same number may stand in for each other. Made of the pool, the peer and the TLS
    /// settings, so that it survives a reload that leaves them alone; pingora's own number leaves the authorities out.
    alike: u64,
    options: PeerOptions,
}

/// Why a peer cannot be told to pingora.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("{0:?} is no path for a unix socket: {1}")]
    Path(PathBuf, std::io::Error),
}

impl Target {
    /// `host` is the host part of the address as written, without brackets; `None` for a unix socket.
    pub(super) fn new(config: &Config, id: &str, place: &Place, host: Option<&str>) -> Result<Self, TargetError> {
        let address = match place {
            Place::Ip(address) => AnyAddr::Inet(*address),
            Place::Unix(path) => AnyAddr::Unix(unix(path)?),
        };
        let mut options = PeerOptions::new();
        // `Connector` holds one deadline over TCP and TLS together, since a route may set its own; these would each
        // start anew and be fixed when the pool is built.
        options.connection_timeout = None;
        options.total_connection_timeout = None;
        // The exchange reads and writes under its own deadlines.
        options.read_timeout = None;
        options.write_timeout = None;
        options.idle_timeout = Some(config.timeouts.keepalive);
        options.alpn = ALPN::H1;
        let mut sni = String::new();
        if let Some(tls) = &config.tls {
            // An empty name would make pingora skip verification, hence never empty.
            sni = tls.sni.as_deref().or(host).unwrap_or("localhost").to_owned();
            options.verify_cert = tls.verify;
            options.verify_hostname = tls.verify;
            options.ca = tls.ca.as_deref().map(|path| authorities(&config.name, path));
        }
        let alike = alike(&config.name, id, place, config.tls.as_ref(), &sni);
        Ok(Self { address, tls: config.tls.is_some(), sni, alike, options })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("address", &self.address).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl PingoraPeer for Target {
    fn address(&self) -> &AnyAddr {
        &self.address
    }

    fn tls(&self) -> bool {
        self.tls
    }

    fn sni(&self) -> &str {
        &self.sni
    }

    fn reuse_hash(&self) -> u64 {
        self.alike
    }

    fn get_peer_options(&self) -> Option<&PeerOptions> {
        Some(&self.options)
    }

    /// The number above is a hash of the operator's own words, so a pooled connection leads where it should. Asking the
    /// kernel on each reuse costs a call, and refuses unix sockets whose server bound them by a relative path.
    fn matches_fd<V: std::os::fd::AsRawFd>(&self, _fd: V) -> bool {
        true
    }
}

fn unix(path: &Path) -> Result<std::os::unix::net::SocketAddr, TargetError> {
    std::os::unix::net::SocketAddr::from_pathname(path).map_err(|error| TargetError::Path(path.to_owned(), error))
}

fn alike(pool: &str, id: &str, place: &Place, tls: Option<&Tls>, sni: &str) -> u64 {
    // Debug text quotes its strings, so that no two settings run into one.
    xxh3_64(format!("{pool:?} {id:?} {place:?} {tls:?} {sni:?}").as_bytes())
}

/// The certificates of a `ca` file. What cannot be read leaves the list empty, and an empty list verifies nobody: the
/// pool fails closed and says why in the diagnostics.
fn authorities(pool: &str, path: &Path) -> Arc<CaType> {
    let found = match CertificateDer::pem_file_iter(path) {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(upstream = pool, path = %path.display(), %error, "the file of authorities cannot be read; no peer will be trusted");
            return Arc::new([]);
        }
    };
    let mut list = Vec::new();
    for certificate in found.take(AUTHORITIES_MAX) {
        match certificate.map(|der| der.to_vec()) {
            // pingora's parser panics on what it cannot read, so ask first.
            Ok(der) if x509_parser::parse_x509_certificate(&der).is_ok() => {
                list.push(WrappedX509::new(der, parse_x509))
            }
            Ok(_) => {
                tracing::error!(upstream = pool, path = %path.display(), "a certificate among the authorities is malformed; left out")
            }
            Err(error) => {
                tracing::error!(upstream = pool, path = %path.display(), %error, "the file of authorities is malformed; the rest of it is left out");
                break;
            }
        }
    }
    list.into()
}
