//! Serving: readiness, graceful drain on SIGTERM or SIGINT, and a bound on how long that takes.
//!
//! The order of a stop: the state becomes `draining` (so that `/healthz` answers 503 and edges send nobody new); for
//! `delay` connections are still accepted; then the listener closes, requests in flight end, and tasks that were spawned
//! on [`Lifecycle::tasks`] (sockets, workers) end by themselves when they see [`Lifecycle::draining`]. What is left at
//! the deadline is dropped. A second signal ends the wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why serving ended otherwise than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}; is another process using it?")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    /// The listener failed.
    #[error("serving failed: {0}")]
    Serve(std::io::Error),
    /// No signals can be received.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

/// What a service says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not yet able to answer.
    Starting,
    /// Answering.
    Ready,
    /// Answering what is there, wanting nobody new.
    Draining,
}

/// The life of one process, shared by all its parts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    started: Arc<AtomicBool>,
    draining: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// A process that is starting.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starting is over.
    pub fn ready(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// From now on nobody new is wanted; cannot be taken back.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Where the process stands.
    #[must_use]
    pub fn state(&self) -> State {
        if self.draining.is_cancelled() {
            State::Draining
        } else if self.started.load(Ordering::Acquire) {
            State::Ready
        } else {
            State::Starting
        }
    }

    /// Cancelled when the drain begins.
    #[must_use]
    pub const fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Tasks that a stop waits for, besides requests: upgraded sockets, workers.
    #[must_use]
    pub const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// `/healthz` (`{"state":"ready"}`; 503 while draining, which tells an edge to drain this peer) and `/readyz` (200
    /// only when ready). Both are `no-store`.
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let (health, ready) = (self.clone(), self.clone());
        Router::new()
            .route("/healthz", get(async move || health.answer(|state| state != State::Draining)))
            .route("/readyz", get(async move || ready.answer(|state| state == State::Ready)))
    }

    fn answer(&self, good: impl Fn(State) -> bool) -> Response {
        #[derive(Serialize)]
        struct Body {
            state: State,
        }
        let state = self.state();
        let status = if good(state) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, [(header::CACHE_CONTROL, "no-store")], Json(Body { state })).into_response()
    }
}

/// How long a stop may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drain {
    /// How long connections are still accepted while `/healthz` says `draining`.
    pub delay: Duration,
    /// How long requests and tasks in flight may take after that.
    pub deadline: Duration,
}

impl Default for Drain {
    /// No delay, ten seconds.
    fn default() -> Self {
        Self { delay: Duration::ZERO, deadline: Duration::from_secs(10) }
    }
}

/// A listener on `address`.
///
/// # Errors
/// The address is taken or not ours.
pub async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// Serves `app` until SIGTERM or SIGINT, or until somebody calls [`Lifecycle::drain`], then drains.
///
/// # Errors
/// Signals or the listener cannot be used.
pub async fn serve(listener: TcpListener, app: Router, lifecycle: Lifecycle, drain: Drain) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;

    // Answers are written whole: waiting for more bytes (Nagle) would only add latency.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
    });
    let stop_accepting = CancellationToken::new();
    let stopped = stop_accepting.clone();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move { stopped.cancelled().await });
    let mut server = tokio::spawn(async move { server.await });

    lifecycle.ready();
    tokio::select! {
        () = lifecycle.draining().cancelled() => {}
        () = either(&mut terminate, &mut interrupt) => {}
        ended = &mut server => return flatten(ended),
    }

    tracing::info!(delay = ?drain.delay, deadline = ?drain.deadline, "draining");
    lifecycle.drain();
    lifecycle.tasks().close();
    let aborter = server.abort_handle();
    let quiet = async {
        tokio::time::sleep(drain.delay).await;
        stop_accepting.cancel();
        let ended = flatten(server.await);
        lifecycle.tasks().wait().await;
        ended
    };
    tokio::select! {
        ended = tokio::time::timeout(drain.delay + drain.deadline, quiet) => if let Ok(ended) = ended {
            return ended;
        } else {
            tracing::warn!(tasks = lifecycle.tasks().len(), "the drain deadline has passed: dropping what is left");
        },
        () = either(&mut terminate, &mut interrupt) => tracing::warn!("second signal: dropping what is left"),
    }
    aborter.abort();
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn flatten(ended: Result<std::io::Result<()>, tokio::task::JoinError>) -> Result<(), ServeError> {
    match ended {
        Ok(result) => result.map_err(ServeError::Serve),
        Err(join) => Err(ServeError::Serve(std::io::Error::other(join))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get_head(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        answer
    }

    #[tokio::test]
    async fn a_drain_answers_503_on_healthz_lets_requests_and_tasks_end_and_then_stops() {
        let lifecycle = Lifecycle::new();
        let gate = CancellationToken::new();
        let (opened, entered) = (gate.clone(), CancellationToken::new());
        let inside = entered.clone();
        let slow = get(async move || {
            inside.cancel();
            opened.cancelled().await;
            "done"
        });
        let app = lifecycle.routes().route("/slow", slow);
        let listener = listen(([127, 0, 0, 1], 0).into()).await.expect("listens");
        let address = listener.local_addr().expect("bound");
        assert_eq!(lifecycle.state(), State::Starting);
        let drain = Drain { delay: Duration::ZERO, deadline: Duration::from_secs(60) };
        let server = tokio::spawn(serve(listener, app.clone(), lifecycle.clone(), drain));

        let slow = tokio::spawn(async move { get_head(address, "/slow").await });
        entered.cancelled().await;
        assert_eq!(lifecycle.state(), State::Ready);
        assert!(get_head(address, "/healthz").await.contains("{\"state\":\"ready\"}"));

        let (draining, task_ended) = (lifecycle.draining().clone(), CancellationToken::new());
        let ended = task_ended.clone();
        lifecycle.tasks().spawn(async move {
            draining.cancelled().await;
            ended.cancel();
        });
        lifecycle.drain();
        task_ended.cancelled().await;
        assert!(!server.is_finished(), "a request is still in flight");
        gate.cancel();
        assert!(slow.await.expect("no panic").ends_with("done"));
        server.await.expect("no panic").expect("stops cleanly");
    }

    #[tokio::test]
    async fn healthz_tells_edges_to_drain_this_peer() {
        let lifecycle = Lifecycle::new();
        let ask = async |path: &'static str| {
            let router: Router = lifecycle.routes();
            let listener = listen(([127, 0, 0, 1], 0).into()).await.expect("listens");
            let address = listener.local_addr().expect("bound");
            let server = tokio::spawn(async move { axum::serve(listener, router).await });
            let answer = get_head(address, path).await;
            server.abort();
            answer
        };
        assert!(ask("/readyz").await.starts_with("HTTP/1.1 503 "));
        lifecycle.ready();
        assert!(ask("/readyz").await.starts_with("HTTP/1.1 200 "));
        lifecycle.drain();
        let answer = ask("/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("{\"state\":\"draining\"}"), "{answer}");
        assert!(answer.contains("cache-control: no-store\r\n"));
    }
}
