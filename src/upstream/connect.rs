//! Connections to peers: new ones under one deadline, used ones from a bounded pool.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use pingora_core::{
    ErrorType,
    connectors::{ConnectorOptions, TransportConnector},
    protocols::Stream,
};

use super::{config::Timeouts, idle::Counted, peer::Peer};
use crate::wire::io::{READ_HEAD, Timer};

/// Idle connections that one edge keeps to all peers together; one more is closed instead of kept. Each costs a
/// descriptor and a buffer of [`READ_HEAD`] here, and a descriptor at the origin.
pub const CONNECTIONS_IDLE_MAX: usize = 1024;

/// Makes and keeps connections. One per edge.
pub struct Connector {
    transport: TransportConnector,
    /// Connections that wait, of all peers.
    idle: Arc<AtomicUsize>,
}

/// A connection to a peer, for one exchange at a time.
#[derive(Debug)]
pub struct Connection {
    pub stream: Stream,
    /// Of its reads, for as long as it lives.
    pub timer: Timer,
    /// What has been read and not yet looked at. Empty between two exchanges; its room is used again.
    pub buf: BytesMut,
    /// It has carried an exchange before: the origin may have closed it in the very moment.
    pub reused: bool,
}

/// Why there is no connection. Nothing of the request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("the peer refuses connections")]
    Refused,
    #[error("the connection was not made in time")]
    Timeout,
    #[error("there is no route to the peer")]
    Unroutable,
    /// No unix socket there, reset while connecting.
    #[error("the peer is not there")]
    Unavailable,
    #[error("the peer's certificate is not trusted")]
    Certificate,
    #[error("the TLS handshake failed")]
    Tls,
    /// No descriptor or no local port left.
    #[error("the edge has no means left to connect")]
    Exhausted,
}

/// The connector cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The environment names authorities that are not there.
    #[error("{variable} names {path:?}, which cannot be read: {error}")]
    Authorities { variable: &'static str, path: PathBuf, error: std::io::Error },
}

impl Connector {
    /// Loads the system's authorities (`SSL_CERT_FILE`, `SSL_CERT_DIR` or the usual places); none at all is not an error.
    pub fn new() -> Result<Self, ConnectorError> {
        // pingora panics on what cannot be read here, so ask first.
        for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
                std::fs::metadata(&path).map_err(|error| ConnectorError::Authorities { variable, path, error })?;
            }
        }
        // pingora's pool stays empty: idle connections lie with their peers.
        let transport = TransportConnector::new(Some(ConnectorOptions::new(1)));
        Ok(Self { transport, idle: Arc::default() })
    }

    /// A connection to `peer`: an idle one, unless `fresh`, else a new one within `timeouts.connect`, TLS included.
    ///
    /// A failure makes the peer suspect, so that its health is looked at; it is not counted as a failure of a try.
    pub async fn connect(&self, peer: &Peer, timeouts: &Timeouts, fresh: bool) -> Result<Connection, ConnectError> {
        if !fresh && let Some(connection) = peer.idle().take(Instant::now()) {
            return Ok(connection);
        }
        let start = Instant::now();
        match self.dial(peer, timeouts.connect).await {
            Ok(stream) => {
                peer.observe_connect(start.elapsed());
                Ok(Connection { stream, timer: Timer::default(), buf: BytesMut::new(), reused: false })
            }
            Err(error) => {
                if error != ConnectError::Exhausted {
                    peer.suspect();
                }
                Err(error)
            }
        }
    }

    /// Gives a connection back whose exchange ended cleanly on both sides; it is kept idle for at most `keepalive`, and
    /// looked at when it is taken again. One that is not given back closes when it is dropped. Call it within the runtime.
    pub fn release(&self, peer: &Peer, mut connection: Connection, keepalive: Duration) {
        if keepalive.is_zero() || peer.retired() {
            return;
        }
        if let Some(counted) = Counted::new(&self.idle, CONNECTIONS_IDLE_MAX) {
            connection.reused = true;
            connection.buf = kept(connection.buf);
            peer.idle().put(connection, Instant::now() + keepalive, counted);
        }
    }

    /// A new connection.
    pub(super) async fn dial(&self, peer: &Peer, within: Duration) -> Result<Stream, ConnectError> {
        match pingora_timeout::timeout(within, self.transport.new_stream(peer.target())).await {
            Ok(made) => made.map_err(|error| {
                tracing::debug!(peer = %peer.id(), %error, "connect failed");
                ConnectError::from(&*error)
            }),
            Err(_) => Err(ConnectError::Timeout),
        }
    }
}

impl ConnectError {
    /// The error type of RFC 9209 2.3.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Refused => "connection_refused",
            Self::Timeout => "connection_timeout",
            Self::Unroutable => "destination_ip_unroutable",
            Self::Unavailable => "destination_unavailable",
            Self::Certificate => "tls_certificate_error",
            Self::Tls => "tls_protocol_error",
            Self::Exhausted => "proxy_internal_error",
        }
    }
}

impl From<&pingora_core::Error> for ConnectError {
    fn from(error: &pingora_core::Error) -> Self {
        match error.etype() {
            ErrorType::ConnectRefused => Self::Refused,
            ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Self::Timeout,
            ErrorType::ConnectNoRoute => Self::Unroutable,
            ErrorType::InvalidCert => Self::Certificate,
            // rustls' own error is only left as text.
            ErrorType::TLSHandshakeFailure if error.to_string().contains("certificate") => Self::Certificate,
            ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => Self::Tls,
            ErrorType::InternalError | ErrorType::BindError | ErrorType::SocketError => Self::Exhausted,
            _ => Self::Unavailable,
        }
    }
}

/// The read buffer of a connection that waits, if it is one for heads: not grown for a body, and nobody holds a piece of it.
fn kept(mut buf: BytesMut) -> BytesMut {
    let is_for_heads = buf.try_reclaim(READ_HEAD) && !buf.try_reclaim(READ_HEAD + 1);
    if is_for_heads { buf } else { BytesMut::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_connection_keeps_a_buffer_for_heads_and_none_that_bodies_have_grown() {
        let read = |room: usize, bytes: usize| {
            let mut buf = BytesMut::new();
            buf.reserve(room);
            buf.extend_from_slice(&vec![b'x'; bytes]);
            (buf.split_to(bytes), buf)
        };
        let (piece, buf) = read(READ_HEAD, 100);
        assert_eq!(kept(buf).capacity(), 0, "somebody holds a piece of it");
        drop(piece);
        let (piece, buf) = read(READ_HEAD, 100);
        drop(piece);
        assert_eq!(kept(buf).capacity(), READ_HEAD);
        let (piece, buf) = read(4 * READ_HEAD, 4 * READ_HEAD);
        drop(piece);
        assert_eq!(kept(buf).capacity(), 0);
    }
}
