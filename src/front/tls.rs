//! TLS on a listener: one certificate, ALPN, and the names that the certificate serves.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pingora_core::{
    listeners::tls::Acceptor,
    protocols::{Stream, l4},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::config::{Tls, TlsVersion};

/// Protocols offered, best first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a listener's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {error}", path = path.display())]
    Read { path: PathBuf, error: rustls::pki_types::pem::Error },
    #[error("{path} holds no certificate", path = .0.display())]
    NoCertificate(PathBuf),
    #[error("{path}: the certificate cannot be read", path = .0.display())]
    BadCertificate(PathBuf),
    #[error("{cert} and {key} do not go together: {error}", cert = cert.display(), key = key.display())]
    Mismatch { cert: PathBuf, key: PathBuf, error: rustls::Error },
}

/// Why a handshake brought no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("the handshake took too long")]
    Timeout,
    #[error("the handshake failed")]
    Failed,
}

/// A connection after its handshake.
pub struct Secured {
    pub stream: Stream,
    pub version: &'static str,
    pub is_http2: bool,
}

/// A listener's TLS.
pub struct Terminator {
    acceptor: Acceptor,
    names: Names,
}

impl Terminator {
    /// Reads certificate and key.
    pub fn new(config: &Tls) -> Result<Self, TlsError> {
        let chain = read_chain(&config.cert)?;
        let key = PrivateKeyDer::from_pem_file(&config.key)
            .map_err(|error| TlsError::Read { path: config.key.clone(), error })?;
        let names = Names::of(&chain[0]).ok_or_else(|| TlsError::BadCertificate(config.cert.clone()))?;
        let versions: &[_] = match config.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS12, &rustls::version::TLS13],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mismatch = |error| TlsError::Mismatch { cert: config.cert.clone(), key: config.key.clone(), error };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(mismatch)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(mismatch)?;
        server.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        Ok(Self { acceptor: Acceptor::from_server_config(Arc::new(server)), names })
    }

    /// Shakes hands within `within`.
    pub async fn secure(&self, plain: l4::stream::Stream, within: Duration) -> Result<Secured, HandshakeError> {
        match pingora_timeout::timeout(within, self.acceptor.tls_handshake(plain)).await {
            Err(_) => Err(HandshakeError::Timeout),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                Err(HandshakeError::Failed)
            }
            Ok(Ok(stream)) => {
                let stream: Stream = Box::new(stream);
                let version = stream.get_ssl().and_then(|tls| tls.version()).map_or("TLS", written);
                let is_http2 = stream.selected_alpn_proto() == Some(pingora_core::protocols::ALPN::H2);
                Ok(Secured { version, is_http2, stream })
            }
        }
    }

    /// Does the certificate serve this host (RFC 9110 4.3.4)?
    pub fn serves(&self, host: &str) -> bool {
        self.names.serves(host)
    }
}

/// A version as the world writes it; rustls has underscores.
fn written(version: &'static str) -> &'static str {
    match version {
        "TLSv1_2" => "TLSv1.2",
        "TLSv1_3" => "TLSv1.3",
        other => other,
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |error| TlsError::Read { path: path.to_owned(), error };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
    if chain.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

/// The subject alternative names of a certificate (RFC 9525 6.3).
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    exact: Vec<String>,
    /// `*.b.test` as `b.test`: exactly one label before it.
    wildcards: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let mut names = Self::default();
        let alternatives = certificate.subject_alternative_name().ok()?;
        for name in alternatives.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => match name.strip_prefix("*.") {
                    Some(parent) => names.wildcards.push(parent.to_ascii_lowercase()),
                    None => names.exact.push(name.to_ascii_lowercase()),
                },
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    names.addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok());
                }
                _ => {}
            }
        }
        Some(names)
    }

    fn serves(&self, host: &str) -> bool {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.exact.iter().any(|name| name == host)
            || host.split_once('.').is_some_and(|(_, parent)| self.wildcards.iter().any(|name| name == parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_serves_its_names_and_no_others() {
        let names = ["a.test", "*.b.test", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let names = Names::of(made.cert.der()).expect("names");
        for (host, expected) in [
            ("a.test", true),
            ("x.b.test", true),
            ("x.y.b.test", false),
            ("b.test", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("c.test", false),
        ] {
            assert_eq!(names.serves(host), expected, "{host}");
        }
    }
}
