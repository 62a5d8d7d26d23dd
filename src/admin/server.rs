//! Binds the control listener, accepts its connections under limits, and knows its paths.

use std::{convert::Infallible, io, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{Parts, explain, guard, probes, problem::Problem, purge, upstreams};
use crate::front::ListenAddress;

/// Connections at once; a fleet of scrapers, probes and publishers needs some dozens. Over it new ones wait.
const CONNECTIONS_MAX: usize = 256;

/// Bytes of a request body: [`purge::TARGETS_MAX`] long URLs fit.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// From the first byte of a head to its last, and between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// From the head of a request to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What connections get to end in once the listener is told to.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Every path with what it is for, as a request for an unknown one is told.
const ENDPOINTS: [&str; 11] = [
    "GET /livez",
    "GET /readyz",
    "GET /healthz",
    "GET /metrics",
    "GET /upstreams",
    "POST /upstreams/{upstream}/peers/{id}",
    "POST /purge",
    "GET /purges",
    "GET /purges/{id}",
    "GET /fleet",
    "GET /explain?url=&method=",
];

/// The bound control listener.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Where it listens; the port that the system chose if it was 0.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<ListenAddress> {
        Ok(match self {
            Self::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                ListenAddress::Unix(address.as_pathname().map(Path::to_path_buf).unwrap_or_default())
            }
        })
    }
}

/// Binds `admin.address`. A socket file that nobody listens on any more is replaced.
///
/// # Errors
/// When the address is taken or not this machine's.
pub async fn bind(address: &ListenAddress) -> io::Result<Listener> {
    match address {
        ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
        ListenAddress::Unix(path) => {
            let abandoned = tokio::net::UnixStream::connect(path)
                .await
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if abandoned {
                std::fs::remove_file(path)?;
            }
            UnixListener::bind(path).map(Listener::Unix)
        }
    }
}

/// Answers on `listener` until `shutdown` turns true, then lets requests in progress end.
pub async fn serve(listener: Listener, parts: Parts, mut shutdown: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router(parts, matches!(listener, Listener::Unix(_))));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            _ = shutdown.wait_for(|told| *told) => break,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!(%error, "the control listener cannot accept; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (service, mut shutdown) = (service.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let connection = http.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let by_itself = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                _ = shutdown.wait_for(|told| *told) => None,
            };
            let ended = match by_itself {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the control listener ended early");
            }
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // What is cut then is aborted with the set.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
}

/// Either kind of client connection.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

async fn accept(
    listener: &Listener,
    slots: &Arc<Semaphore>,
) -> io::Result<(Box<dyn Stream>, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let stream: Box<dyn Stream> = match listener {
        Listener::Tcp(listener) => Box::new(listener.accept().await?.0),
        Listener::Unix(listener) => Box::new(listener.accept().await?.0),
    };
    Ok((stream, slot))
}

/// What handlers share.
pub(super) struct Control {
    pub(super) parts: Parts,
    /// A unix socket is out of a browser's reach, and its `Host` means nothing.
    pub(super) unix: bool,
}

fn router(parts: Parts, unix: bool) -> Router {
    let control = Arc::new(Control { parts, unix });
    Router::new()
        .route("/upstreams", get(upstreams::list))
        .route("/upstreams/{upstream}/peers/{id}", post(upstreams::set_state))
        .route("/purge", post(purge::purge))
        .route("/purges", get(purge::list))
        .route("/purges/{id}", get(purge::find))
        .route("/fleet", get(purge::fleet))
        .route("/explain", get(explain::explain))
        .route("/metrics", get(metrics))
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/healthz", get(probes::ready))
        .fallback(unknown)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&control), guard::check))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(in_time))
        .with_state(control)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {REQUEST_TIMEOUT:?}; was the whole body sent?");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
        }
    }
}

async fn metrics(State(control): State<Arc<Control>>) -> Response {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, TEXT)], control.parts.metrics.encode()).into_response()
}

async fn unknown() -> Result<Infallible, Problem> {
    Err(Problem::new(StatusCode::NOT_FOUND, "nothing is here; `endpoints` lists what exists")
        .with_endpoints(&ENDPOINTS))
}

async fn method_not_allowed() -> Result<Infallible, Problem> {
    Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method; `endpoints` lists what exists")
        .with_endpoints(&ENDPOINTS))
}
