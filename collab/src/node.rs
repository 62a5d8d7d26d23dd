//! A node: the HTTP side, and the order of a stop.
//!
//! `axum::serve` forgets a connection once it is a WebSocket, so a stop goes by our own count: say `draining`, save
//! everything, close the rooms in turn (while the listener stays open: rooms whose turn has not come get their joiners,
//! and the edge reads `/healthz`), then close the listener and wait for the last sockets.

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State, WebSocketUpgrade, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use eduham_platform::serve::{Lifecycle, State as LifeState};
use serde::Serialize;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    document::DOC_BYTES_MAX,
    metrics::Metrics,
    rooms::{JoinError, RoomName, Rooms},
    session::{self, MESSAGE_BYTES_MAX},
    store::Store,
};

/// Names the node on every answer to a handshake, so that an operator sees where a room landed.
pub const NODE_HEADER: HeaderName = HeaderName::from_static("x-collab-node");

/// The WebSocket layer's own buffer for reading; its default of 128 KiB is what an idle connection would cost.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// What may be left unwritten of a message; the largest is a whole document.
const WRITE_BUFFER_BYTES_MAX: usize = 2 * DOC_BYTES_MAX;
/// The WebSocket layer drops a connection without a word beyond its limit, so ours comes first and says why.
const LAYER_MESSAGE_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// How long the last sockets may take to end after their rooms have.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What a client is told to wait before it tries again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// A node, ready to be served. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    id: HeaderValue,
    origins: Vec<String>,
    connections_max: usize,
    drain: Duration,
    rooms: Rooms,
    metrics: Metrics,
    lifecycle: Lifecycle,
    connections: AtomicUsize,
    sockets: TaskTracker,
}

/// What a node needs to know of its settings.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its peer id.
    pub id: HeaderValue,
    /// Web origins that may connect; empty means all.
    pub origins: Vec<String>,
    /// Sockets that it may hold.
    pub connections_max: usize,
    /// Over how long sockets are closed at a stop.
    pub drain: Duration,
}

/// Why a handshake is not answered with 101.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
enum Refused {
    RoomName,
    Origin,
    NodeFull,
    Draining,
}

impl Node {
    /// A node over a store.
    pub fn new(options: NodeOptions, store: Arc<dyn Store>, lifecycle: Lifecycle) -> Self {
        let metrics = Metrics::new();
        Self(Arc::new(Inner {
            id: options.id,
            origins: options.origins,
            connections_max: options.connections_max,
            drain: options.drain,
            rooms: Rooms::new(store, metrics.clone(), lifecycle.draining().clone()),
            metrics,
            lifecycle,
            connections: AtomicUsize::new(0),
            sockets: TaskTracker::new(),
        }))
    }

    /// The routes.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/rt/v1/collab/{room}", get(enter))
            .route("/healthz", get(health))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }

    /// Serves until [`Lifecycle::drain`] was called and everything has ended.
    pub async fn serve(&self, listener: TcpListener) -> std::io::Result<()> {
        let listener = listener.tap_io(|stream| {
            // Messages are written whole: waiting for more bytes (Nagle) would only add latency.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY not set");
            }
        });
        let stop = CancellationToken::new();
        let server = axum::serve(listener, self.router()).with_graceful_shutdown(stop.clone().cancelled_owned());
        let mut server = tokio::spawn(server.into_future());
        let lifecycle = &self.0.lifecycle;
        lifecycle.ready();
        tokio::select! {
            () = lifecycle.draining().cancelled() => {}
            ended = &mut server => return ended.unwrap_or_else(|join| Err(std::io::Error::other(join))),
        }
        tracing::info!(rooms = self.0.rooms.len(), over = ?self.0.drain, "draining");
        self.0.rooms.drain(self.0.drain).await;
        self.0.sockets.close();
        stop.cancel();
        if timeout(STOP_MAX, self.0.sockets.wait()).await.is_err() {
            tracing::warn!(sockets = self.0.sockets.len(), "some sockets did not end: dropped");
        }
        // Keep-alive connections without a request end at once; a scraper in flight gets its answer.
        match timeout(STOP_MAX, &mut server).await {
            Ok(ended) => ended.unwrap_or_else(|join| Err(std::io::Error::other(join))),
            Err(_) => {
                server.abort();
                Ok(())
            }
        }
    }

    fn refuse(&self, why: Refused) -> Response {
        self.0.metrics.refusals.with_label_values(&[<&str>::from(why)]).inc();
        let id = (NODE_HEADER, self.0.id.clone());
        match why {
            Refused::RoomName => {
                let text = "a room is named by 1 to 128 characters of A-Z a-z 0-9 . _ : ~ -\n";
                (StatusCode::BAD_REQUEST, [id], text).into_response()
            }
            Refused::Origin => {
                let text = "pages of this origin may not connect; see EDUHAM_COLLAB_ORIGINS\n";
                (StatusCode::FORBIDDEN, [id], text).into_response()
            }
            Refused::NodeFull | Refused::Draining => {
                let retry = (header::RETRY_AFTER, RETRY_AFTER);
                (StatusCode::SERVICE_UNAVAILABLE, [id, retry], "this node takes nobody new; try again\n")
                    .into_response()
            }
        }
    }
}

/// `GET /rt/v1/collab/{room}`: the handshake.
async fn enter(
    State(node): State<Node>,
    room: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Some(room) = room.ok().and_then(|Path(room)| room.parse::<RoomName>().ok()) else {
        return node.refuse(Refused::RoomName);
    };
    if !origin_allowed(&node.0.origins, headers.get(header::ORIGIN)) {
        return node.refuse(Refused::Origin);
    }
    if node.0.rooms.is_open(&room).is_err() {
        return node.refuse(Refused::Draining);
    }
    let Some(seat) = Seat::take(&node) else {
        return node.refuse(Refused::NodeFull);
    };
    let (id, task) = (node.0.id.clone(), node.0.sockets.token());
    let mut response = upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(LAYER_MESSAGE_BYTES_MAX)
        .max_frame_size(LAYER_MESSAGE_BYTES_MAX)
        .on_upgrade(async move |socket| {
            let _counted = (seat, task);
            match node.0.rooms.join(&room).await {
                Ok(membership) => {
                    let end = session::run(socket, membership, &node.0.metrics).await;
                    tracing::debug!(%room, ?end, "socket ended");
                }
                // The socket is dropped: the client tries again, and is routed elsewhere.
                Err(JoinError::Draining | JoinError::Closing) => {}
            }
        });
    response.headers_mut().insert(NODE_HEADER, id);
    response
}

/// A page's origin must be on the list; programs that are not browsers send none.
fn origin_allowed(allowed: &[String], origin: Option<&HeaderValue>) -> bool {
    let Some(origin) = origin.filter(|_| !allowed.is_empty()) else { return true };
    allowed.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
}

/// One of the connections that the node may hold.
struct Seat(Node);

impl Seat {
    fn take(node: &Node) -> Option<Self> {
        let taken = node.0.connections.fetch_add(1, Ordering::Relaxed);
        let seat = Self(node.clone()); // gives the place back when it is dropped
        (taken < node.0.connections_max).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `GET /healthz`: what the edge asks once a second.
async fn health(State(node): State<Node>) -> Response {
    #[derive(Serialize)]
    struct Health {
        state: LifeState,
        conns: usize,
        rooms: usize,
    }
    let state = node.0.lifecycle.state();
    let status = if state == LifeState::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let conns = node.0.connections.load(Ordering::Relaxed);
    let health = Health { state, conns, rooms: node.0.rooms.len() };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(health)).into_response()
}

/// `GET /metrics`.
async fn metrics(State(node): State<Node>) -> Response {
    match node.0.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{SinkExt, StreamExt};
    use tokio::task::JoinHandle;
    use tokio_tungstenite::{
        connect_async,
        tungstenite::{Error, Message, client::IntoClientRequest, handshake::client::Response as Handshake},
    };

    use super::*;
    use crate::rooms::tests::MemoryStore;

    type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

    struct Running {
        base: String,
        lifecycle: Lifecycle,
        serving: JoinHandle<std::io::Result<()>>,
    }

    async fn node(origins: &[&str], connections_max: usize) -> Running {
        let options = NodeOptions {
            id: HeaderValue::from_static("c1"),
            origins: origins.iter().map(ToString::to_string).collect(),
            connections_max,
            drain: Duration::ZERO,
        };
        let lifecycle = Lifecycle::new();
        let node = Node::new(options, Arc::new(MemoryStore::default()), lifecycle.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let serving = tokio::spawn(async move { node.serve(listener).await });
        Running { base, lifecycle, serving }
    }

    impl Running {
        async fn enter(&self, room: &str, origin: Option<&str>) -> Result<(Socket, Handshake), Error> {
            let mut request = format!("ws://{}/rt/v1/collab/{room}", self.base).into_client_request()?;
            if let Some(origin) = origin {
                request.headers_mut().insert("origin", origin.parse().unwrap());
            }
            connect_async(request).await
        }

        async fn refused(&self, room: &str, origin: Option<&str>) -> (u16, String) {
            match self.enter(room, origin).await {
                Err(Error::Http(response)) => {
                    let node = response.headers()["x-collab-node"].to_str().unwrap().to_owned();
                    (response.status().as_u16(), node)
                }
                other => panic!("not refused: {:?}", other.map(|(_, handshake)| handshake)),
            }
        }

        async fn get(&self, path: &str) -> String {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut stream = tokio::net::TcpStream::connect(&self.base).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn the_handshake_names_the_node_and_the_socket_speaks_y_websocket() {
        let node = node(&[], 10).await;
        let (mut socket, handshake) = node.enter("board:1~a", None).await.unwrap();
        assert_eq!(handshake.status().as_u16(), 101);
        assert_eq!(handshake.headers()["x-collab-node"], "c1");
        socket.send(Message::Binary(Bytes::from_static(&[0, 0, 1, 0]))).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap().into_data();
        assert_eq!(answer[..2], [0, 1]);
        let health = node.get("/healthz").await;
        assert!(health.ends_with(r#"{"state":"ready","conns":1,"rooms":1}"#), "{health}");
        let metrics = node.get("/metrics").await;
        assert!(metrics.contains("\nrt_connections 1\n") && metrics.contains("\nrt_rooms 1\n"), "{metrics}");
    }

    #[tokio::test]
    async fn a_name_that_is_none_is_400() {
        let node = node(&[], 10).await;
        for room in ["a%20b", "a%2Fb", "%FF", &"x".repeat(129)] {
            assert_eq!(node.refused(room, None).await, (400, "c1".into()), "{room}");
        }
    }

    #[tokio::test]
    async fn only_listed_origins_connect_from_pages() {
        let node = node(&["https://eduham.example"], 10).await;
        assert_eq!(node.refused("r", Some("https://evil.example")).await.0, 403);
        assert!(node.enter("r", Some("https://eduham.example")).await.is_ok());
        assert!(node.enter("r", None).await.is_ok(), "not a browser");
    }

    #[tokio::test]
    async fn a_full_node_says_503_until_somebody_leaves() {
        let node = node(&[], 1).await;
        let (mut first, _) = node.enter("r", None).await.unwrap();
        assert_eq!(node.refused("r", None).await.0, 503);
        first.close(None).await.unwrap();
        while first.next().await.is_some() {}
        // The server counts the socket until its own side has ended, a moment later.
        while node.enter("r", None).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_draining_node_closes_with_1012_and_ends() {
        let node = node(&[], 10).await;
        let (mut socket, _) = node.enter("r", None).await.unwrap();
        socket.send(Message::Binary(Bytes::from_static(&[3]))).await.unwrap();
        node.lifecycle.drain();
        let code = loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        };
        assert_eq!(code, Some(1012));
        while socket.next().await.is_some() {}
        node.serving.await.unwrap().unwrap();
    }
}
