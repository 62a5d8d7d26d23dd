//! HTTP/2 connections: streams side by side, flow control, what is malformed, and how they end.

use std::{future::poll_fn, net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{Method, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::support::{Edge, Gate, ask, cacheable, configured, edge, eventually, get, origin, page, within};

/// More than any buffer or window between a client and an origin, all together.
const BUFFERED_MAX: usize = 64 * 1024 * 1024;
const STALLED: Duration = Duration::from_millis(500);

type Client = SendRequest<Bytes>;
type Ended = JoinHandle<Result<(), h2::Error>>;

/// A connection with prior knowledge, and what becomes of it.
async fn open(address: SocketAddr, builder: &Builder) -> (Client, Ended) {
    let stream = TcpStream::connect(address).await.expect("the edge listens");
    let (client, connection) = within(builder.handshake(stream)).await.expect("the edge speaks HTTP/2");
    (client, tokio::spawn(connection))
}

fn request(method: Method, target: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://a.test{target}")).body(()).expect("a request")
}

async fn send(client: &Client, request: Request<()>) -> ResponseFuture {
    let mut ready = within(client.clone().ready()).await.expect("the connection is open");
    ready.send_request(request, true).expect("a stream").0
}

/// The body to its end.
async fn read(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = within(body.data()).await {
        let piece = piece?;
        let _ = body.flow_control().release_capacity(piece.len());
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// An edge in front of a bare listener, which a test speaks for itself.
async fn before(address: SocketAddr, server: &str) -> Edge {
    configured(&format!(
        "version: 1
server: {{ listeners: [ {{ address: \"{{listener}}\" }} ], {server} }}
admin: {{ address: \"{{admin}}\" }}
log: {{ access: {{ to: none }} }}
upstreams: {{ origin: {{ peers: [ \"{address}\" ] }} }}
routes: [ {{ name: any, match: {{ path: \"/{{*rest}}\" }}, upstream: origin }} ]
"
    ))
    .start()
    .await
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

#[tokio::test]
async fn streams_of_one_connection_are_served_side_by_side() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/held", page("held").held(&gate));
    origin.serve("/quick", page("quick"));
    let edge = edge(&origin).uncached().start().await;
    let (client, _) = open(edge.address, &Builder::new()).await;
    let mut held = Vec::new();
    for _ in 0..90 {
        held.push(send(&client, request(Method::GET, "/held")).await);
    }
    gate.reached_by(90).await;
    let quick = within(send(&client, request(Method::GET, "/quick")).await).await.expect("not behind the others");
    assert_eq!(read(quick.into_body()).await.expect("a body"), b"quick");
    gate.open();
    for response in held {
        let response = within(response).await.expect("an answer");
        assert_eq!(read(response.into_body()).await.expect("a body"), b"held");
    }
}

#[tokio::test]
async fn a_client_with_tiny_windows_gets_all_of_every_answer() {
    let origin = origin().await;
    let body: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
    origin.serve("/stored", cacheable(body.clone()));
    origin.serve("/passed", page(body.clone()).field("Cache-Control", "no-store").chunked());
    let edge = edge(&origin).start().await;
    let mut builder = Builder::new();
    builder.initial_window_size(1_000);
    let (client, _) = open(edge.address, &builder).await;
    let mut reading = Vec::new();
    for number in 0..20 {
        let target = if number % 2 == 0 { "/stored" } else { "/passed" };
        let response = send(&client, request(Method::GET, target)).await;
        reading.push(tokio::spawn(async move { read(within(response).await.expect("an answer").into_body()).await }));
    }
    for reading in reading {
        assert!(within(reading).await.expect("a task").expect("a body") == body);
    }
}

#[tokio::test]
async fn an_upload_goes_as_fast_as_the_origin_takes_it() {
    let (listener, address) = listener().await;
    let edge = before(address, "limits: { body_bytes: 1GiB }").await;
    let (client, _) = open(edge.address, &Builder::new()).await;
    let mut ready = within(client.ready()).await.expect("the connection is open");
    let (response, mut body) = ready.send_request(request(Method::POST, "/"), false).expect("a stream");
    let (mut upstream, _) = within(listener.accept()).await.expect("the edge dials");
    let mut sent = 0;
    let mut next = async || {
        body.reserve_capacity(64 * 1024);
        let room = tokio::time::timeout(STALLED, poll_fn(|context| body.poll_capacity(context))).await;
        let room = room.ok()?.expect("an open stream").expect("an open stream");
        body.send_data(vec![7; room].into(), false).expect("an open stream");
        Some(room)
    };
    while let Some(room) = next().await {
        sent += room;
        assert!(sent < BUFFERED_MAX, "nothing holds the client back");
    }
    body.reserve_capacity(0);
    body.send_data(Bytes::new(), true).expect("an open stream");
    let mut seen = Vec::new();
    while !seen.ends_with(b"0\r\n\r\n") {
        assert!(within(upstream.read_buf(&mut seen)).await.expect("more of it") > 0);
    }
    assert!(seen.iter().filter(|byte| **byte == 7).count() == sent, "nothing is lost");
    upstream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it is taken");
    assert_eq!(within(response).await.expect("an answer").status(), 204);
}

#[tokio::test]
async fn a_stream_that_its_client_resets_ends_at_the_origin_too() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/held", page("held").held(&gate));
    let edge = edge(&origin).uncached().logged().start().await;
    let (client, _) = open(edge.address, &Builder::new()).await;
    let response = send(&client, request(Method::GET, "/held")).await;
    gate.reached_by(1).await;
    drop(response);
    origin.connected(0).await;
    eventually("the request has ended", || edge.metric("edge_upstream_active_requests") == 0.0).await;
    assert_eq!(edge.metric("edge_requests_total{status=\"499\"}"), 1.0);
    assert_eq!(edge.records().await[0]["client_gone"], true);
}

#[tokio::test]
async fn a_stream_that_is_reset_does_not_end_the_fill_that_it_began() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/held", cacheable("held").held(&gate));
    let edge = edge(&origin).start().await;
    let (client, _) = open(edge.address, &Builder::new()).await;
    let response = send(&client, request(Method::GET, "/held")).await;
    gate.reached_by(1).await;
    drop(response);
    eventually("the client is gone", || edge.metric("edge_requests_total{status=\"499\"}") == 1.0).await;
    gate.open();
    assert_eq!(edge.get("/held").await.text(), "held");
    assert!(edge.get("/held").await.is_hit());
    assert_eq!(origin.hits("/held"), 1);
}

#[tokio::test]
async fn a_connection_that_goes_takes_its_streams_with_it() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/held", page("held").held(&gate));
    let edge = edge(&origin).uncached().start().await;
    let (client, connection) = open(edge.address, &Builder::new()).await;
    let _responses =
        [send(&client, request(Method::GET, "/held")).await, send(&client, request(Method::GET, "/held")).await];
    gate.reached_by(2).await;
    connection.abort();
    origin.connected(0).await;
    eventually("the connection has ended", || edge.running.connections().open() == 0).await;
}

#[tokio::test]
async fn an_early_answer_arrives_whole_before_the_upload_is_refused() {
    let origin = origin().await;
    let large = "x".repeat(150_000);
    let edge =
        edge(&origin).route(&format!("name: no, match: {{ path: /no }}, respond: {{ status: 403, body: {large} }}"));
    let edge = edge.start().await;
    let mut builder = Builder::new();
    builder.initial_window_size(10_000);
    let (client, _) = open(edge.address, &builder).await;
    for _ in 0..3 {
        let mut ready = within(client.clone().ready()).await.expect("the connection is open");
        let (response, mut body) = ready.send_request(request(Method::POST, "/no"), false).expect("a stream");
        body.send_data(vec![7; 10_000].into(), false).expect("an open stream");
        let response = within(response).await.expect("an answer");
        assert_eq!(response.status(), 403);
        assert_eq!(read(response.into_body()).await.expect("all of it").len(), large.len());
        let reason = within(poll_fn(|context| body.poll_reset(context))).await.expect("a reset");
        assert_eq!(reason, Reason::NO_ERROR);
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_a_stream_error() {
    let origin = origin().await;
    origin.answer("/echo", |asked| page(asked.body.clone()));
    let edge = edge(&origin).start().await;
    let (client, _) = open(edge.address, &Builder::new()).await;
    for sent in [5, 15] {
        let mut ready = within(client.clone().ready()).await.expect("the connection is open");
        let mut announced = request(Method::POST, "/echo");
        announced.headers_mut().insert("content-length", 10.into());
        let (response, mut body) = ready.send_request(announced, false).expect("a stream");
        body.send_data(vec![7; sent].into(), true).expect("an open stream");
        let error = within(response).await.expect_err("no answer");
        assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{sent}");
    }
    assert_eq!(origin.hits("/echo"), 0);
    let fine = within(send(&client, request(Method::GET, "/echo")).await).await.expect("the connection goes on");
    assert_eq!(fine.status(), 200);
}

#[tokio::test]
async fn what_is_too_much_or_contradicts_itself_is_refused() {
    let origin = origin().await;
    origin.serve("/a", page("a"));
    let limits = "limits: { header_bytes: 8KiB, header_count: 20, target_bytes: 1KiB, body_bytes: 1000 }";
    let edge = edge(&origin).server(limits).start().await;
    let (client, _) = open(edge.address, &Builder::new()).await;
    let of = |change: &dyn Fn(&mut Request<()>)| {
        let mut request = request(Method::GET, "/a");
        change(&mut request);
        request
    };
    let long = "x".repeat(9_000);
    let rows = [
        (of(&|request| drop(request.headers_mut().insert("x", long.parse().unwrap()))), 431),
        (of(&|request| (0..30).for_each(|_| _ = request.headers_mut().append("x", 1.into()))), 431),
        (of(&|request| *request.uri_mut() = format!("http://a.test/{}", "x".repeat(1_100)).parse().unwrap()), 414),
        (of(&|request| drop(request.headers_mut().insert("host", "b.test".parse().unwrap()))), 400),
        (of(&|request| drop(request.headers_mut().insert("host", "a.test".parse().unwrap()))), 200),
        (of(&|request| *request.uri_mut() = "http://a.test/%00".parse().unwrap()), 400),
        (of(&|request| *request.method_mut() = Method::TRACE), 405),
    ];
    for (request, status) in rows {
        let said = format!("{request:.300?}");
        let response = within(send(&client, request).await).await.unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(response.status(), status, "{said}");
    }
    let connect = Request::builder().method(Method::CONNECT).uri("a.test:443").body(()).expect("a request");
    assert_eq!(within(send(&client, connect).await).await.expect("an answer").status(), 405);
    let large = within(edge.http2()).await.ask(&ask("POST", "/a").body("x".repeat(1_001))).await;
    assert_eq!(large.status, 413);
    assert_eq!(origin.hits("/a"), 1);
}

/// A field as HPACK spells it without its tables.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, name.len() as u8];
    field.extend_from_slice(name.as_bytes());
    field.push(value.len() as u8);
    field.extend_from_slice(value.as_bytes());
    field
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Sends a request of these fields alone and gives the first frame that is about its stream or ends the connection:
/// its type and payload.
async fn first_frame(address: SocketAddr, fields: &[(&str, &str)]) -> (u8, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("the edge listens");
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    said.extend(frame(4, 0, 0, &[]));
    said.extend(frame(1, 0x5, 1, &block));
    stream.write_all(&said).await.expect("it is taken");
    loop {
        let mut head = [0; 9];
        within(stream.read_exact(&mut head)).await.expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        within(stream.read_exact(&mut payload)).await.expect("its payload");
        if head[8] == 1 || head[3] == 7 {
            return (head[3], payload);
        }
    }
}

#[tokio::test]
async fn fields_that_http_2_forbids_reset_their_stream() {
    let origin = origin().await;
    origin.serve("/", page("a"));
    let edge = edge(&origin).start().await;
    let good = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;
    assert_eq!(first_frame(edge.address, &good).await.0, HEADERS);
    for bad in [
        ("X-Upper", "1"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("keep-alive", "1"),
        ("te", "gzip"),
        (":late", "1"),
    ] {
        let fields: Vec<_> = good.into_iter().chain([bad]).collect();
        let (kind, payload) = first_frame(edge.address, &fields).await;
        // PROTOCOL_ERROR, of the stream or, as the crate has it for names, of the connection.
        assert!(
            [RST_STREAM, GOAWAY].contains(&kind) && payload.ends_with(&[0, 0, 0, 1]),
            "{bad:?}: {kind} {payload:?}"
        );
    }
    assert_eq!(origin.hits("/"), 1);
}

#[tokio::test]
async fn split_cookies_reach_the_origin_as_one() {
    let origin = origin().await;
    origin.serve("/a", page("a"));
    let edge = edge(&origin).uncached().start().await;
    let asked = get("/a").field("cookie", "a=1").field("cookie", "b=2").field("te", "trailers");
    assert_eq!(edge.http2().await.ask(&asked).await.status, 200);
    let seen = &origin.asked()[0];
    assert_eq!((seen.field("cookie").as_deref(), seen.field("te")), (Some("a=1; b=2"), None));
    assert_eq!((seen.field("host").as_deref(), seen.field("via").as_deref()), (Some("a.test"), Some("2 eduham-edge")));
}

#[tokio::test]
async fn answers_without_content_end_with_their_head() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello").etag("\"1\""));
    origin.serve("/none", page("").status("204 No Content"));
    let edge = edge(&origin).start().await;
    let (client, _) = open(edge.address, &Builder::new()).await;
    let check = async |request: Request<()>, status: u16, length: Option<&str>| {
        let response: Response<RecvStream> = within(send(&client, request).await).await.expect("an answer");
        assert_eq!(response.status(), status);
        let announced = response.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned());
        assert_eq!(announced.as_deref(), length);
        assert!(response.body().is_end_stream(), "{status}: nothing follows the head");
    };
    for _ in 0..2 {
        check(request(Method::HEAD, "/a"), 200, Some("5")).await;
        let mut conditional = request(Method::GET, "/a");
        conditional.headers_mut().insert("if-none-match", "\"1\"".parse().unwrap());
        check(conditional, 304, None).await;
    }
    check(request(Method::GET, "/none"), 204, None).await;
}

#[tokio::test]
async fn an_interim_response_comes_first_and_trailers_stay_behind() {
    let origin = origin().await;
    origin.answer("/hints", |asked| page(asked.body.clone()).interim("103 Early Hints\r\nLink: </a.css>; rel=preload"));
    let edge = edge(&origin).uncached().start().await;
    let (client, _) = open(edge.address, &Builder::new()).await;
    let mut ready = within(client.ready()).await.expect("the connection is open");
    let (mut response, mut body) = ready.send_request(request(Method::POST, "/hints"), false).expect("a stream");
    body.send_data("hello".into(), false).expect("an open stream");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-late", 1.into());
    body.send_trailers(trailers).expect("an open stream");
    let interim = within(poll_fn(|context| response.poll_informational(context))).await.expect("one").expect("one");
    assert_eq!(
        (interim.status().as_u16(), &interim.headers()["link"]),
        (103, &"</a.css>; rel=preload".parse().unwrap())
    );
    let response = within(response).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(read(response.into_body()).await.expect("a body"), b"hello");
    assert_eq!(origin.asked()[0].field("x-late"), None);
}

#[tokio::test]
async fn a_leaving_edge_says_goaway_and_lets_streams_finish() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/held", page("held").held(&gate));
    let edge = edge(&origin).start().await;
    let (client, connection) = open(edge.address, &Builder::new()).await;
    let response = send(&client, request(Method::GET, "/held")).await;
    gate.reached_by(1).await;
    let Edge { running, .. } = edge;
    let draining = tokio::spawn(running.drain(std::future::pending()));
    // Once GOAWAY is here no stream begins; before it one may.
    let refused = async {
        while let Ok(mut ready) = client.clone().ready().await {
            if ready.send_request(request(Method::GET, "/late"), true).is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within(refused).await;
    gate.open();
    let response = within(response).await.expect("the stream finishes");
    assert_eq!(read(response.into_body()).await.expect("a body"), b"held");
    drop(client);
    within(connection).await.expect("a task").expect("it ends without an error");
    within(draining).await.expect("nothing is left to wait for");
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_after_a_while() {
    let origin = origin().await;
    let edge = configured(&format!(
        "version: 1
server: {{ listeners: [ {{ address: \"{{listener}}\", http2: {{ idle: 300ms }} }} ] }}
admin: {{ address: \"{{admin}}\" }}
log: {{ access: {{ to: none }} }}
upstreams: {{ origin: {{ peers: [ \"{}\" ] }} }}
routes: [ {{ name: any, match: {{ path: \"/{{*rest}}\" }}, upstream: origin }} ]
",
        origin.address()
    ))
    .start()
    .await;
    let gate = Gate::closed();
    origin.serve("/held", page("held").held(&gate));
    let (client, ended) = open(edge.address, &Builder::new()).await;
    let response = send(&client, request(Method::GET, "/held")).await;
    gate.reached_by(1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.open();
    assert_eq!(within(response).await.expect("a stream is no idleness").status(), 200);
    within(ended).await.expect("a task").expect("it ends without an error");
    eventually("the connection has ended", || edge.running.connections().open() == 0).await;
}

#[tokio::test]
async fn a_client_that_only_opens_and_resets_is_sent_away() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/held", page("held").held(&gate));
    let edge = edge(&origin).uncached().start().await;
    let (client, ended) = open(edge.address, &Builder::new()).await;
    let mut opened = 0;
    let attack = async {
        while let Ok(mut ready) = client.clone().ready().await {
            let Ok((response, _)) = ready.send_request(request(Method::GET, "/held"), true) else { break };
            opened += 1;
            // Served, and given up then: no limit on streams that were never begun sees it.
            if opened % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(response);
            assert!(opened < 100_000, "nothing bounds it");
        }
    };
    within(attack).await;
    let error = within(ended).await.expect("a task").expect_err("the connection ends");
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{error}");
    eventually("nothing is left of it", || edge.metric("edge_upstream_active_requests") == 0.0).await;
    assert!(origin.hits("/held") < 2_000);
}
