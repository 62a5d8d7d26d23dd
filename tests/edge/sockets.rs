//! Sockets: which node a room goes to, the handshake, and bytes both ways.

use std::{net::SocketAddr, time::Duration};

use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};

use crate::support::{Ask, Edge, configured, edge, eventually, get, origin, page, raw, within};

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// More than all buffers between two ends of a loopback connection hold together, the edge's included.
const BUFFERED_MAX: usize = 64 * 1024 * 1024;
/// Who takes no byte for so long does not take any.
const STALLED: Duration = Duration::from_millis(500);

/// A collaboration node: says its name, then echoes.
struct Node {
    name: &'static str,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

async fn node(name: &'static str) -> Node {
    let mut node = Node { name, address: ([127, 0, 0, 1], 0).into(), accepting: None };
    node.restart().await;
    node
}

impl Node {
    async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is free");
        self.address = listener.local_addr().expect("a bound socket");
        let name = self.name;
        self.accepting = Some(tokio::spawn(async move {
            let mut sockets = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sockets.spawn(echo(name, stream));
            }
        }));
    }

    /// Ends at once, with every socket.
    async fn kill(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }
}

async fn echo(name: &'static str, stream: TcpStream) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let _ = socket.send(Message::text(name)).await;
    while let Some(Ok(message)) = socket.next().await {
        let sent = match message {
            Message::Text(_) | Message::Binary(_) => socket.send(message).await,
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// An edge whose rooms are at these nodes.
async fn rooms(nodes: &[(&str, SocketAddr)], websocket: &str) -> Edge {
    let peers: Vec<String> =
        nodes.iter().map(|(id, address)| format!("{{ id: {id}, address: \"{address}\" }}")).collect();
    configured(&format!(
        "version: 1
server: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}
admin: {{ address: \"{{admin}}\" }}
log: {{ access: {{ to: access.log }} }}
upstreams:
  collab: {{ peers: [ {} ], balance: rendezvous }}
routes:
  - name: rooms
    match: {{ path: \"/rt/{{room}}\" }}
    upstream: collab
    sticky: {{ by: [ path.room ] }}
    websocket: {{ {websocket} }}
  - {{ name: rest, match: {{ path: \"/{{*rest}}\" }}, upstream: collab }}
",
        peers.join(", ")
    ))
    .start()
    .await
}

fn handshake(target: &str) -> Ask {
    bare(target).field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").field("Sec-WebSocket-Version", "13")
}

fn bare(target: &str) -> Ask {
    get(target).field("Connection", "Upgrade").field("Upgrade", "websocket")
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

async fn join(edge: &Edge, room: &str) -> Socket {
    let url = format!("ws://{}/rt/{room}", edge.address);
    within(tokio_tungstenite::connect_async(url)).await.expect("the room opens").0
}

async fn next(socket: &mut Socket) -> Message {
    within(socket.next()).await.expect("the socket is open").expect("a message")
}

/// The node that a room is at.
async fn home(edge: &Edge, room: &str) -> String {
    let mut socket = join(edge, room).await;
    let name = next(&mut socket).await.into_text().expect("its name").to_string();
    within(socket.close(None)).await.expect("it closes");
    name
}

/// Both ends of a socket through the edge, as bare connections.
async fn ends(edge: &Edge, node: &TcpListener) -> (TcpStream, TcpStream) {
    let client = async {
        let mut client = TcpStream::connect(edge.address).await.expect("the edge listens");
        client.write_all(RAW_HANDSHAKE.as_bytes()).await.expect("it is taken");
        let head = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    };
    let node = async {
        let (mut node, _) = node.accept().await.expect("the edge dials");
        read_head(&mut node).await;
        node.write_all(SWITCHED.as_bytes()).await.expect("it is taken");
        node
    };
    within(async { tokio::join!(client, node) }).await
}

const RAW_HANDSHAKE: &str = "GET /rt/a HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Reads a head to its last byte and no further.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.expect("a head"));
    }
    String::from_utf8(head).expect("a head is text")
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

#[tokio::test]
async fn the_rooms_of_a_dead_node_move_and_come_back_and_no_other_does() {
    let (mut first, second) = (node("c1").await, node("c2").await);
    let edge = rooms(&[("c1", first.address), ("c2", second.address)], "").await;
    let names: Vec<String> = (0..24).map(|number| format!("course:{number}")).collect();
    let mut before = Vec::new();
    for room in &names {
        before.push(home(&edge, room).await);
        assert_eq!(home(&edge, room).await, *before.last().unwrap(), "a room has one home");
    }
    assert!(before.iter().any(|home| home == "c1") && before.iter().any(|home| home == "c2"), "{before:?}");
    first.kill().await;
    for room in &names {
        assert_eq!(home(&edge, room).await, "c2", "{room}: the handshake is tried on the next node");
    }
    first.restart().await;
    let mut after = Vec::new();
    for room in &names {
        after.push(home(&edge, room).await);
    }
    assert_eq!(before, after);
    assert_eq!(edge.metric("edge_websocket_opens_total{result=\"opened\"}"), 24.0 * 4.0);
}

#[tokio::test]
async fn a_socket_of_a_dead_node_ends_and_the_next_one_is_at_another() {
    let mut nodes = [node("c1").await, node("c2").await];
    let edge = rooms(&[("c1", nodes[0].address), ("c2", nodes[1].address)], "").await;
    let mut socket = join(&edge, "a").await;
    let at = next(&mut socket).await.into_text().expect("its name").to_string();
    let dead = nodes.iter_mut().find(|node| node.name == at).expect("one of them");
    dead.kill().await;
    assert!(!matches!(within(socket.next()).await, Some(Ok(_))), "the client sees the end");
    assert_ne!(home(&edge, "a").await, at);
}

#[tokio::test]
async fn a_handshake_is_checked_before_a_node_hears_of_it() {
    let (listener, address) = listener().await;
    let edge = rooms(&[("c1", address)], r#"origins: [ "https://*.b.test" ]"#).await;
    let good = || handshake("/rt/a").field("Origin", "https://www.b.test");
    let key = |key: &str| bare("/rt/a").field("Sec-WebSocket-Version", "13").field("Sec-WebSocket-Key", key);
    let rows = [
        (handshake("/rt/a%20b"), 400, "bad-room"),
        (handshake(&format!("/rt/{}", "x".repeat(129))), 400, "bad-room"),
        (bare("/rt/a").field("Sec-WebSocket-Version", "13"), 400, "bad-handshake"),
        (key("short"), 400, "bad-handshake"),
        (key("dGhlIHNhbXBsZSBub25jZQ==").field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), 400, "bad-handshake"),
        (bare("/rt/a").field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), 400, "bad-handshake"),
        (good().body("x"), 400, "bad-handshake"),
        (bare("/rt/a").field("Sec-WebSocket-Version", "8"), 426, "websocket-version"),
        (handshake("/rt/a"), 403, "origin-not-allowed"),
        (handshake("/rt/a").field("Origin", "https://b.test.evil.test"), 403, "origin-not-allowed"),
    ];
    for (ask, status, reason) in rows {
        let answer = edge.ask(&ask).await;
        assert_eq!(answer.status, status, "{:?}", ask.fields);
        assert!(answer.text().contains(&format!("\"reason\":\"{reason}\"")), "{}", answer.text());
        if status == 426 {
            assert_eq!(answer.field("sec-websocket-version").as_deref(), Some("13"));
        }
    }
    let opened = async {
        let (mut node, _) = listener.accept().await.expect("the edge dials");
        let head = read_head(&mut node).await;
        node.write_all(SWITCHED.as_bytes()).await.expect("it is taken");
        head
    };
    let good = good();
    let (head, answer) = within(async { tokio::join!(opened, edge.ask(&good)) }).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(
        (answer.field("upgrade").as_deref(), answer.field("connection").as_deref()),
        (Some("websocket"), Some("Upgrade"))
    );
    assert!(
        head.to_lowercase().contains("\r\nupgrade: websocket\r\n")
            && head.to_lowercase().contains("\r\nconnection: upgrade\r\n"),
        "{head}"
    );
    assert!(edge.metric("edge_websocket_opens_total{result=\"refused\"}") >= 8.0);
}

#[tokio::test]
async fn an_empty_body_does_not_keep_a_socket_from_opening() {
    let (listener, address) = listener().await;
    let edge = rooms(&[("c1", address)], "").await;
    let mut client = TcpStream::connect(edge.address).await.expect("the edge listens");
    let head = RAW_HANDSHAKE.replace("Host:", "Content-Length: 0\r\nHost:");
    client.write_all(head.as_bytes()).await.expect("it is taken");
    let (mut node, _) = within(listener.accept()).await.expect("the edge dials");
    read_head(&mut node).await;
    node.write_all(SWITCHED.as_bytes()).await.expect("it is taken");
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
    // Not a request, though it looks like one.
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("it is taken");
    assert!(read_head(&mut node).await.starts_with("GET / HTTP/1.1\r\nHost: a.test\r\n"));
}

#[tokio::test]
async fn a_node_that_declines_is_heard_and_one_that_is_not_there_is_502() {
    let origin = origin().await;
    origin.serve("/rt/full", page("no seat").status("403 Forbidden").field("X-Why", "full"));
    let edge = rooms(&[("c1", origin.address())], "").await;
    let mut connection = edge.connect().await;
    let answer = connection.ask(&handshake("/rt/full")).await;
    assert_eq!((answer.status, answer.text()), (403, "no seat"));
    assert_eq!(answer.field("x-why").as_deref(), Some("full"));
    assert_eq!(connection.ask(&handshake("/rt/full")).await.status, 403, "the connection goes on");
    assert_eq!(edge.metric("edge_websocket_opens_total{result=\"rejected\"}"), 2.0);
    origin.kill().await;
    let answer = connection.ask(&handshake("/rt/full")).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.field("proxy-status").as_deref(), Some("eduham-edge; error=connection_refused"));
    assert_eq!(edge.metric("edge_websocket_opens_total{result=\"failed\"}"), 1.0);
}

#[tokio::test]
async fn bytes_right_behind_the_handshake_are_not_lost_on_either_side() {
    let (listener, address) = listener().await;
    let edge = rooms(&[("c1", address)], "").await;
    let mut client = TcpStream::connect(edge.address).await.expect("the edge listens");
    client.write_all(format!("{RAW_HANDSHAKE}early").as_bytes()).await.expect("it is taken");
    let (mut node, _) = within(listener.accept()).await.expect("the edge dials");
    read_head(&mut node).await;
    node.write_all(format!("{SWITCHED}first").as_bytes()).await.expect("it is taken");
    read_head(&mut client).await;
    let mut read = [0; 5];
    within(client.read_exact(&mut read)).await.expect("the node's first bytes");
    assert_eq!(&read, b"first");
    within(node.read_exact(&mut read)).await.expect("the client's early bytes");
    assert_eq!(&read, b"early");
}

#[tokio::test]
async fn a_side_that_has_ended_still_hears_the_other() {
    for client_first in [true, false] {
        let (listener, address) = listener().await;
        let edge = rooms(&[("c1", address)], "").await;
        let (client, node) = ends(&edge, &listener).await;
        let (mut first, mut second) = if client_first { (client, node) } else { (node, client) };
        first.write_all(b"last words").await.expect("it is taken");
        first.shutdown().await.expect("it ends");
        let mut heard = String::new();
        within(second.read_to_string(&mut heard)).await.expect("the end is passed on");
        assert_eq!(heard, "last words");
        second.write_all(b"and an answer").await.expect("the other way is open");
        second.shutdown().await.expect("it ends");
        let mut heard = String::new();
        within(first.read_to_string(&mut heard)).await.expect("the end is passed on");
        assert_eq!(heard, "and an answer");
        let reason = if client_first { "client" } else { "upstream" };
        let closes = format!("edge_websocket_closes_total{{reason=\"{reason}\"}}");
        eventually("the socket has ended", || edge.metric(&closes) == 1.0).await;
        assert_eq!(edge.metric("edge_websocket_connections"), 0.0);
        assert_eq!(edge.metric("edge_upstream_active_requests"), 0.0);
    }
}

#[tokio::test]
async fn a_side_that_reads_nothing_stalls_the_other_and_loses_nothing() {
    for client_reads in [true, false] {
        let (listener, address) = listener().await;
        let edge = rooms(&[("c1", address)], "").await;
        let (client, node) = ends(&edge, &listener).await;
        let (mut reader, mut writer) = if client_reads { (client, node) } else { (node, client) };
        let chunk = [7; 64 * 1024];
        let mut sent = 0;
        while let Ok(written) = tokio::time::timeout(STALLED, writer.write(&chunk)).await {
            sent += written.expect("the socket is open");
            assert!(sent < BUFFERED_MAX, "nothing holds the writer back");
        }
        drop(tokio::spawn(async move {
            let _ = writer.shutdown().await;
            let _ = writer.read_u8().await;
        }));
        let mut got = 0;
        let mut buf = vec![0; 256 * 1024];
        loop {
            match within(reader.read(&mut buf)).await.expect("the socket is open") {
                0 => break,
                read => got += read,
            }
        }
        assert_eq!(got, sent);
    }
}

#[tokio::test]
async fn what_a_node_said_before_it_left_reaches_a_slow_client_that_still_talks() {
    let (listener, address) = listener().await;
    let edge = rooms(&[("c1", address)], "").await;
    let (mut client, mut node) = ends(&edge, &listener).await;
    let chunk = [7; 64 * 1024];
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(STALLED, node.write(&chunk)).await {
        sent += written.expect("the socket is open");
    }
    assert!(sent > 0);
    drop(node);
    // To nobody: the edge is told so while it still holds bytes for the client.
    for _ in 0..3 {
        client.write_all(b"?").await.expect("the edge takes it");
        tokio::task::yield_now().await;
    }
    let mut got = 0;
    let mut buf = vec![0; 256 * 1024];
    while let Ok(read @ 1..) = within(client.read(&mut buf)).await {
        got += read;
    }
    // What lay in the node's own kernel went with it; what the edge and the client's kernel held did not.
    assert!(got > 0);
    eventually("the socket has ended", || edge.metric("edge_websocket_connections") == 0.0).await;
}

#[tokio::test]
async fn a_client_that_still_talks_when_its_node_has_broken_is_not_reset() {
    let (listener, address) = listener().await;
    let edge = rooms(&[("c1", address)], "").await;
    let (mut client, mut node) = ends(&edge, &listener).await;
    node.write_all(b"last words").await.expect("it is taken");
    client.write_all(b"never read").await.expect("it is taken");
    within(node.peek(&mut [0; 1])).await.expect("it has come");
    // With bytes unread the kernel resets instead of ending.
    drop(node);
    let mut heard = String::new();
    within(client.read_to_string(&mut heard)).await.expect("an end, not a reset");
    assert_eq!(heard, "last words");
    for _ in 0..2 {
        client.write_all(b"still talking").await.expect("nobody listens, but nothing breaks");
        tokio::task::yield_now().await;
    }
    client.shutdown().await.expect("it ends");
    assert_eq!(within(client.read(&mut [0; 1])).await.expect("an end, not a reset"), 0);
}

#[tokio::test]
async fn a_socket_without_a_byte_is_closed_and_one_that_talks_is_not() {
    let node = node("c1").await;
    let edge = rooms(&[("c1", node.address)], "idle_timeout: 400ms").await;
    let mut silent = join(&edge, "a").await;
    let mut talking = join(&edge, "b").await;
    next(&mut silent).await;
    next(&mut talking).await;
    let silence = async { while let Some(Ok(_)) = within(silent.next()).await {} };
    let talk = async {
        loop {
            talking.send(Message::text("hello")).await.expect("the socket is open");
            next(&mut talking).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = silence => {}
        () = talk => {}
    }
    talking.send(Message::text("still here")).await.expect("the socket is open");
    // The echo of the last word before may still be on its way.
    while next(&mut talking).await != Message::text("still here") {}
    assert_eq!(edge.metric("edge_websocket_closes_total{reason=\"idle\"}"), 1.0);
    assert_eq!(edge.metric("edge_websocket_connections"), 1.0);
}

#[tokio::test]
async fn a_large_message_arrives_as_it_was() {
    let node = node("c1").await;
    let edge = rooms(&[("c1", node.address)], "").await;
    let url = format!("ws://{}/rt/a", edge.address);
    let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    let opened = tokio_tungstenite::connect_async_with_config(url, Some(config), false);
    let mut socket = within(opened).await.expect("the room opens").0;
    next(&mut socket).await;
    let large: Vec<u8> = (0..12 * 1024 * 1024u32).map(|at| (at % 251) as u8).collect();
    let (mut send, mut receive) = socket.split();
    let sending = send.send(Message::binary(large.clone()));
    let (sent, got) = within(async { tokio::join!(sending, receive.next()) }).await;
    sent.expect("it is sent");
    assert!(got.expect("it comes back").expect("whole").into_data() == large);
}

#[tokio::test]
async fn a_socket_is_counted_and_leaves_two_records() {
    let node = node("c1").await;
    let edge = rooms(&[("c1", node.address)], "").await;
    let mut socket = join(&edge, "a").await;
    next(&mut socket).await;
    socket.send(Message::text("hello")).await.expect("the socket is open");
    next(&mut socket).await;
    let series = |labels: &str| edge.metric(&format!("edge_websocket_{labels}"));
    assert_eq!(series("connections{route=\"rooms\",upstream=\"collab\",peer=\"c1\"}"), 1.0);
    assert_eq!(edge.metric("edge_upstream_active_requests{upstream=\"collab\",peer=\"c1\"}"), 1.0);
    assert_eq!(edge.metric("edge_requests_total{route=\"rooms\",method=\"GET\",status=\"101\"}"), 1.0);
    within(socket.close(None)).await.expect("it closes");
    while let Some(Ok(_)) = within(socket.next()).await {}
    drop(socket);
    eventually("the socket has ended", || series("connections") == 0.0).await;
    // Frame heads and, from clients, masks: 6 + 5 and 6 + 0 in; 2 + 2, 2 + 5 and 2 + 0 out.
    assert_eq!(series("bytes_total{route=\"rooms\",direction=\"in\"}"), 17.0);
    assert_eq!(series("bytes_total{route=\"rooms\",direction=\"out\"}"), 13.0);
    assert_eq!(edge.metric("edge_sticky_decisions_total{route=\"rooms\",source=\"hash\"}"), 1.0);
    let closes = series("closes_total{route=\"rooms\"}");
    assert_eq!(closes, 1.0);
    let records = edge.records().await;
    assert_eq!(records.len(), 2, "{records:?}");
    let (open, close) = (&records[0], &records[1]);
    assert_eq!((&open["status"], &close["status"]), (&101.into(), &101.into()));
    assert_eq!(open["request_id"], close["request_id"]);
    assert!(open["close_reason"].is_null(), "{open}");
    assert!(close["close_reason"].is_string(), "{close}");
    assert_eq!((&close["bytes_received"], &close["bytes_sent"]), (&17.into(), &13.into()));
    assert_eq!((&close["peer"], &close["upstream"]), (&"c1".into(), &"collab".into()));
}

#[tokio::test]
async fn a_socket_that_the_edge_cuts_when_it_stops_says_so() {
    let node = node("c1").await;
    let edge = rooms(&[("c1", node.address)], "").await;
    let mut socket = join(&edge, "a").await;
    next(&mut socket).await;
    let records = edge.records().await;
    assert_eq!(records.last().expect("a record")["close_reason"], "shutdown");
    assert!(!matches!(within(socket.next()).await, Some(Ok(_))), "the client sees the end");
}

#[tokio::test]
async fn an_upgrade_is_passed_on_only_where_sockets_are_and_only_to_websocket() {
    let origin = origin().await;
    origin.serve("/a", page("plain"));
    origin.serve("/rt/a", page("plain"));
    let edge = rooms(&[("c1", origin.address())], "").await;
    let h2c = |target| {
        get(target)
            .field("Connection", "Upgrade, HTTP2-Settings")
            .field("Upgrade", "h2c")
            .field("HTTP2-Settings", "AAMAAABk")
    };
    for ask in [handshake("/a"), h2c("/a"), h2c("/rt/a")] {
        let answer = edge.ask(&ask).await;
        assert_eq!((answer.status, answer.text()), (200, "plain"), "{:?}", ask.fields);
    }
    assert_eq!(origin.asked().len(), 3);
    for asked in origin.asked() {
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(asked.field(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn an_origin_that_switches_without_being_asked_is_not_followed() {
    let origin = origin().await;
    origin.serve("/a", raw(SWITCHED));
    for edge in [edge(&origin), edge(&origin).uncached()] {
        let edge = edge.start().await;
        assert_eq!(edge.get("/a").await.status, 502);
    }
}
