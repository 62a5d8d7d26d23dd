//! The front door: a pingora `ServerApp` per listener.
//!
//! pingora accepts; everything from the first byte on is ours. A connection is counted and, over the ceiling, refused;
//! then comes TLS where the listener has it, then the loop of its protocol: `h1` or `h2`. A socket leaves its
//! connection's task for the `tunnel`.

mod config;
mod h1;
mod h2;
mod held;
mod lane;
mod leaving;
mod linger;
mod tls;
mod tunnel;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::BytesMut;
use futures::{FutureExt, future::BoxFuture};
use pingora_core::{
    apps::ServerApp,
    protocols::{Stream, l4},
    server::ShutdownWatch,
};
use prometheus::IntGauge;
use tokio::sync::{Notify, watch};

pub use config::{Config, Drain, Http2, Limits, ListenAddress, Listener, Tls, TlsVersion, UnderscoreHeaders};
pub use tls::{Terminator, TlsError};

use crate::{
    proxy::{
        Edge,
        downstream::Door,
        fields::PeerText,
        receive::{Connection, is_trusted},
        routing::Scheme,
    },
    wire::Authority,
};

/// Every client connection of an edge, counted.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    /// Listeners of which a task lives: one that accepts, or one of a connection that may not be counted yet.
    listeners: AtomicUsize,
    changed: Notify,
    /// True once what is left is to end at once.
    cut: watch::Sender<bool>,
}

impl Connections {
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until the last one has ended and no more can come.
    pub async fn ended(&self) {
        loop {
            let notified = self.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.open() == 0 && self.listeners.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Ends every connection at once.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Resolves when connections are cut.
    fn until_cut(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut cut = self.cut.subscribe();
        async move {
            // Nobody can cut any more: then nobody will.
            if cut.wait_for(|cut| *cut).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Counts one more, unless there are `max` already.
    fn enter(self: &Arc<Self>, max: usize, gauge: &IntGauge) -> Option<Guard> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        gauge.inc();
        let guard = Guard { connections: Arc::clone(self), gauge: gauge.clone() };
        (before < max).then_some(guard)
    }
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub struct Guard {
    connections: Arc<Connections>,
    gauge: IntGauge,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.gauge.dec();
        if self.connections.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.connections.changed.notify_waiters();
        }
    }
}

/// A connection that was let in.
struct Entered {
    guard: Guard,
    terminator: Option<Arc<Terminator>>,
}

impl Door for Entered {
    fn serves(&self, host: &str) -> bool {
        self.terminator.as_ref().is_none_or(|terminator| terminator.serves(host))
    }

    fn until_cut(&self) -> BoxFuture<'static, ()> {
        self.guard.connections.until_cut().boxed()
    }
}

/// A listener's application in pingora's hands: each task that pingora makes for a connection holds it, so that it lives as
/// long as any of them.
pub struct App(Arc<Front>);

impl App {
    pub fn new(front: Arc<Front>) -> Self {
        front.connections.listeners.fetch_add(1, Ordering::AcqRel);
        Self(front)
    }

    /// Serves a connection until it ends or is cut.
    pub async fn serve(&self, plain: Stream) {
        let cut = self.0.connections.until_cut();
        tokio::select! {
            biased;
            () = self.0.serve(plain) => {}
            () = cut => {}
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if self.0.connections.listeners.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.connections.changed.notify_waiters();
        }
    }
}

#[async_trait]
impl ServerApp for App {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        self.serve(stream).await;
        None
    }
}

/// What a listener's connections share.
pub struct Front {
    edge: Arc<Edge>,
    listener: Listener,
    /// The listener's address as configured.
    label: Arc<str>,
    /// What stands for the host of an HTTP/1.0 request without one.
    local: Authority,
    terminator: Option<Arc<Terminator>>,
    connections: Arc<Connections>,
    gauge: IntGauge,
}

impl Front {
    /// Reads the listener's certificate.
    pub fn new(edge: Arc<Edge>, listener: Listener, connections: Arc<Connections>) -> Result<Self, TlsError> {
        let label = listener.address.to_string();
        let terminator = listener.tls.as_ref().map(Terminator::new).transpose()?.map(Arc::new);
        let local = match &listener.address {
            ListenAddress::Tcp(address) => authority(*address),
            ListenAddress::Unix(_) => Authority { host: "localhost".into(), port: None },
        };
        let gauge = edge.metrics.connections.with_label_values(&[&label]);
        Ok(Self { edge, listener, label: label.into(), local, terminator, connections, gauge })
    }

    async fn serve(&self, plain: Stream) {
        let peer =
            plain.get_socket_digest().and_then(|digest| digest.peer_addr().and_then(|peer| peer.as_inet().copied()));
        let snapshot = self.edge.snapshot.load_full();
        let server = &snapshot.config.server;
        let Some(guard) = self.connections.enter(server.limits.connections, &self.gauge) else {
            self.edge.metrics.connections_refused.with_label_values(&["limit"]).inc();
            return;
        };
        let (stream, tls_version, is_http2) = match &self.terminator {
            None => (plain, None, false),
            Some(terminator) => {
                // Listeners of ours are plain: what pingora hands over is the bare socket.
                let Ok(plain) = plain.into_any().downcast::<l4::stream::Stream>() else { return };
                match terminator.secure(*plain, server.limits.header_timeout).await {
                    Ok(secured) => {
                        self.edge.metrics.tls_handshakes.with_label_values(&[secured.version, "unknown"]).inc();
                        (secured.stream, Some(secured.version), secured.is_http2)
                    }
                    Err(error) => {
                        tracing::debug!(%error, peer = ?peer, "no TLS connection");
                        self.edge.metrics.connections_refused.with_label_values(&["tls"]).inc();
                        return;
                    }
                }
            }
        };
        let connection = Arc::new(Connection {
            trusted: is_trusted(&server.trusted_proxies, peer.map(|peer| peer.ip())),
            peer,
            peer_text: PeerText::new(peer.map(|peer| peer.ip())),
            listener: Arc::clone(&self.label),
            scheme: if tls_version.is_some() { Scheme::Https } else { Scheme::Http },
            tls_version,
            redirect_to_https: self.listener.redirect_to_https,
            local: self.local.clone(),
            door: Box::new(Entered { guard, terminator: self.terminator.clone() }),
        });
        drop(snapshot);
        if is_http2 {
            h2::serve(&self.edge, &connection, stream, BytesMut::new(), &self.listener.http2).await;
        } else if let h1::Left::Http2(stream, prefix) = h1::serve(&self.edge, &connection, stream).await {
            h2::serve(&self.edge, &connection, stream, prefix, &self.listener.http2).await;
        }
    }
}

fn authority(address: SocketAddr) -> Authority {
    let host = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    Authority { host: host.into(), port: Some(address.port()) }
}
