//! HTTP/1.1 connections: order, keep-alive, deadlines, limits, and bodies that nobody reads.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Ask, Connection, Gate, Origin, ask, configured, edge, eventually, get, origin, page, within};

/// Longer than what is gathered before an origin is asked, and than what is read to keep a connection.
const LONG: usize = 1024 * 1024;

async fn echoing() -> Origin {
    let origin = origin().await;
    origin.answer("/echo", |asked| page(asked.body.clone()).field("X-Method", &asked.method));
    origin.serve("/a", page("a"));
    origin
}

/// A route that answers by itself, and reads no body.
const REFUSING: &str = "name: no, match: { path: /no }, respond: { status: 403, body: no }";

fn chunked(target: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n")
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_whatever_their_bodies() {
    let origin = echoing().await;
    let edge = edge(&origin).start().await;
    let mut connection = edge.connect().await;
    let post =
        |body: &str| format!("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let long = "x".repeat(LONG);
    let all = [
        post("one"),
        chunked("/echo") + "3\r\ntwo\r\n0\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(),
        post(&long),
        "HEAD /a HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(),
        post(""),
        "GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned(),
    ];
    connection.send_bytes(&all.concat().into_bytes()).await;
    for expected in ["one", "two", "a", long.as_str()] {
        let answer = connection.answer("POST").await;
        assert!(answer.status == 200 && answer.text() == expected, "{:?} is not {expected:.10}", answer.status);
    }
    let head = connection.answer("HEAD").await;
    assert_eq!(head.field("content-length").as_deref(), Some("1"));
    assert_eq!(connection.answer("POST").await.text(), "");
    assert_eq!(connection.answer("GET").await.text(), "a");
    assert!(connection.closed().await);
}

#[tokio::test]
async fn a_connection_is_kept_as_its_version_and_its_client_say() {
    let origin = echoing().await;
    let edge = edge(&origin).start().await;
    let rows = [
        ("HTTP/1.1", "", None),
        ("HTTP/1.1", "Connection: close\r\n", Some("close")),
        ("HTTP/1.1", "Connection: x, Close\r\n", Some("close")),
        ("HTTP/1.0", "", Some("close")),
        ("HTTP/1.0", "Connection: keep-alive\r\n", Some("keep-alive")),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", Some("close")),
    ];
    for (version, field, said) in rows {
        let mut connection = edge.connect().await;
        let request = format!("GET /a {version}\r\nHost: a.test\r\n{field}\r\n");
        connection.send_bytes(request.as_bytes()).await;
        let answer = connection.answer("GET").await;
        assert_eq!((answer.text(), answer.field("connection").as_deref()), ("a", said), "{request}");
        if said == Some("close") {
            assert!(connection.closed().await, "{request}");
        } else {
            assert_eq!(connection.ask(&get("/a")).await.text(), "a", "{request}");
        }
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_chunks() {
    let origin = echoing().await;
    origin.serve("/chunks", page("in chunks").chunked());
    let edge = edge(&origin).uncached().start().await;
    let mut connection = edge.connect().await;
    connection.send_bytes(b"GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let answer = connection.answer("GET").await;
    assert_eq!((answer.text(), answer.field("transfer-encoding")), ("in chunks", None));
    assert_eq!(answer.field("connection").as_deref(), Some("close"), "its end is the end of the connection");
}

#[tokio::test]
async fn a_client_that_stops_is_told_or_left_by_the_deadline_it_missed() {
    let origin = echoing().await;
    let limits = "limits: { header_timeout: 300ms, body_timeout: 300ms, idle_timeout: 300ms }";
    let edge = edge(&origin).server(limits).start().await;
    let stopped = [
        ("GET /a HTTP/1.1\r\nHost: a.te".to_owned(), Some("head-timeout")),
        ("PRI * HT".to_owned(), Some("head-timeout")),
        ("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nhalf".to_owned(), Some("timeout")),
        (format!("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LONG}\r\n\r\nhalf"), Some("timeout")),
        (chunked("/echo") + "5\r\nhalf", Some("timeout")),
        (String::new(), None),
    ];
    for (said, reason) in stopped {
        let mut connection = edge.connect().await;
        connection.send_bytes(said.as_bytes()).await;
        if let Some(reason) = reason {
            let answer = connection.answer("GET").await;
            assert_eq!((answer.status, answer.field("connection").as_deref()), (408, Some("close")), "{said:.60}");
            assert!(answer.text().contains(&format!("\"reason\":\"{reason}\"")), "{said:.60}: {}", answer.text());
        }
        assert!(connection.closed().await, "{said:.60}: and nothing else is said");
    }
    let mut idle = edge.connect().await;
    assert_eq!(idle.ask(&get("/a")).await.text(), "a");
    assert!(idle.closed().await, "an idle connection is closed without a word");
}

#[tokio::test]
async fn a_client_that_drips_its_head_has_one_deadline_for_all_of_it() {
    let origin = echoing().await;
    let edge = edge(&origin).server("limits: { header_timeout: 400ms }").start().await;
    let stream = TcpStream::connect(edge.address).await.expect("the edge listens");
    let (mut read, mut write) = stream.into_split();
    let drip = tokio::spawn(async move {
        for byte in b"GET /a HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let started = Instant::now();
    let mut answer = Vec::new();
    // Reset or closed: the drip may arrive after the end.
    let _ = within(read.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    assert!(started.elapsed() < Duration::from_secs(10), "bytes do not buy time");
    drip.abort();
}

#[tokio::test]
async fn a_route_may_have_limits_of_its_own() {
    let origin = echoing().await;
    let own = "name: own, match: { path: /echo }, upstream: origin, limits: { body_bytes: 10, body_timeout: 200ms }";
    let edge = edge(&origin).route(own).start().await;
    assert_eq!(edge.ask(&ask("POST", "/echo").body("0123456789")).await.status, 200);
    assert_eq!(edge.ask(&ask("POST", "/echo").body("0123456789x")).await.status, 413);
    let mut connection = edge.connect().await;
    connection.send_bytes((chunked("/echo") + "5\r\nhalf").as_bytes()).await;
    assert_eq!(connection.answer("POST").await.status, 408);
}

#[tokio::test]
async fn what_is_too_much_or_unknown_is_refused_with_its_own_status() {
    let origin = echoing().await;
    let limits = "limits: { header_bytes: 4KiB, header_count: 20, target_bytes: 1KiB, body_bytes: 1000 }";
    let edge = edge(&origin).server(limits).start().await;
    let get = |fields: &str| format!("GET /a HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
    let rows = [
        (get(&format!("X: {}\r\n", "x".repeat(5000))), 431),
        (get(&"X: x\r\n".repeat(30)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(1100)), 414),
        ("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1001\r\n\r\n".to_owned(), 413),
        (chunked("/echo") + "3e9\r\n", 413),
        (chunked("/echo") + &format!("200\r\n{0}\r\n200\r\n{0}\r\n", "x".repeat(512)), 413),
        ("GET /a HTTP/1.1\r\n\r\n".to_owned(), 400),
        (get("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
        (chunked("/echo") + "zz\r\n", 400),
        (get("Transfer-Encoding: gzip, chunked\r\n"), 501),
        ("GET /a HTTP/2.0\r\nHost: a.test\r\n\r\n".to_owned(), 505),
        (get("Expect: a-miracle\r\n"), 417),
        ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(), 405),
    ];
    for (request, status) in rows {
        let mut connection = edge.connect().await;
        connection.send_bytes(request.as_bytes()).await;
        let answer = connection.answer("GET").await;
        assert_eq!(answer.status, status, "{request:.80}: {}", answer.text());
        if status != 405 {
            assert_eq!(answer.field("connection").as_deref(), Some("close"), "{request:.80}");
            assert!(connection.closed().await, "{request:.80}");
        }
    }
    assert_eq!(origin.hits("/a"), 0, "an origin hears of none");
}

#[tokio::test]
async fn a_small_body_that_nobody_reads_does_not_cost_the_connection() {
    let origin = echoing().await;
    let edge = edge(&origin).route(REFUSING).start().await;
    let mut connection = edge.connect().await;
    for _ in 0..3 {
        let answer = connection.ask(&ask("POST", "/no").body("x".repeat(100_000))).await;
        assert_eq!((answer.status, answer.text(), answer.field("connection")), (403, "no", None));
    }
    assert_eq!(connection.ask(&get("/a")).await.text(), "a");
}

#[tokio::test]
async fn a_large_body_that_nobody_reads_ends_the_connection_after_the_answer() {
    let origin = echoing().await;
    let edge = edge(&origin).route(REFUSING).start().await;
    for body in ["Content-Length: 16777216\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut stream = TcpStream::connect(edge.address).await.expect("the edge listens");
        let head = format!("POST /no HTTP/1.1\r\nHost: a.test\r\n{body}\r\n");
        stream.write_all(head.as_bytes()).await.expect("it is taken");
        if body.starts_with('T') {
            stream.write_all(b"1000000\r\n").await.expect("it is taken");
        }
        // Like clients that read only when they have written all.
        within(stream.write_all(&vec![b'x'; 16 * LONG])).await.expect("all of it is taken");
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.expect("the answer is not lost to a reset");
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n\r\nno"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn who_waits_to_be_told_is_told_before_the_body_or_not_at_all() {
    let origin = echoing().await;
    let edge = edge(&origin).route(REFUSING).start().await;
    let expecting = |target: &str, length: usize| {
        format!("POST {target} HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    for length in [5, LONG] {
        let mut connection = edge.connect().await;
        connection.send_bytes(expecting("/echo", length).as_bytes()).await;
        assert_eq!(connection.interim().await, 100);
        connection.send_bytes(&vec![b'x'; length]).await;
        assert_eq!(connection.answer("POST").await.body.len(), length);
        assert_eq!(connection.ask(&get("/a")).await.text(), "a", "the connection goes on");
    }
    assert!(origin.asked_for("/echo").iter().all(|asked| asked.field("expect").is_none()));
    // Whether the body follows now is the client's choice: the next bytes could be either.
    let mut connection = edge.connect().await;
    connection.send_bytes(expecting("/no", 5).as_bytes()).await;
    let answer = connection.answer("POST").await;
    assert_eq!((answer.status, answer.interim.len()), (403, 0));
    assert_eq!(answer.field("connection").as_deref(), Some("close"));
    assert!(connection.closed().await);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_upload_takes_the_request_with_it() {
    let (listener, address) = listener().await;
    let edge = configured(&format!(
        "version: 1
server: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}
admin: {{ address: \"{{admin}}\" }}
log: {{ access: {{ to: access.log }} }}
upstreams: {{ origin: {{ peers: [ \"{address}\" ] }} }}
routes: [ {{ name: any, match: {{ path: \"/{{*rest}}\" }}, upstream: origin }} ]
"
    ))
    .start()
    .await;
    let mut client = edge.connect().await;
    client
        .send_bytes(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LONG}\r\n\r\nhalf").as_bytes())
        .await;
    let (mut upstream, _) = within(listener.accept()).await.expect("the edge dials");
    let mut seen = Vec::new();
    while !seen.ends_with(b"half") {
        within(upstream.read_buf(&mut seen)).await.expect("head and the first bytes");
    }
    drop(client);
    assert_eq!(within(upstream.read_buf(&mut seen)).await.unwrap_or(0), 0, "the origin sees the end");
    eventually("the request has ended", || edge.metric("edge_upstream_active_requests") == 0.0).await;
    eventually("the connection has ended", || edge.metric("edge_connections") == 0.0).await;
    let records = edge.records().await;
    assert_eq!((&records[0]["status"], &records[0]["client_gone"]), (&499.into(), &true.into()), "{records:?}");
}

async fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

#[tokio::test]
async fn an_origin_may_answer_before_it_has_all_and_the_client_hears_it() {
    let (listener, address) = listener().await;
    let edge = configured(&format!(
        "version: 1
server: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}
admin: {{ address: \"{{admin}}\" }}
log: {{ access: {{ to: none }} }}
upstreams: {{ origin: {{ peers: [ \"{address}\" ] }} }}
routes: [ {{ name: any, match: {{ path: \"/{{*rest}}\" }}, upstream: origin }} ]
"
    ))
    .start()
    .await;
    let answering = tokio::spawn(async move {
        let (mut upstream, _) = listener.accept().await.expect("the edge dials");
        let mut seen = Vec::new();
        while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
            upstream.read_buf(&mut seen).await.expect("a head");
        }
        let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much";
        upstream.write_all(answer).await.expect("it is taken");
        upstream.shutdown().await.expect("it ends");
        // Takes the rest, as servers do that want to be heard.
        let mut sink = Vec::new();
        let _ = upstream.read_to_end(&mut sink).await;
    });
    let mut client = edge.connect().await;
    let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", 64 * LONG);
    client.send_bytes(head.as_bytes()).await;
    client.send_bytes(&vec![0; LONG]).await;
    let answer = client.answer("POST").await;
    assert_eq!((answer.status, answer.text()), (413, "too much"));
    assert_eq!(answer.field("connection").as_deref(), Some("close"), "nobody reads what is left of the body");
    within(answering).await.expect("the origin is let go");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_left_after_a_while() {
    let origin = origin().await;
    origin.serve("/large", page(vec![b'x'; 32 * LONG]));
    let edge = edge(&origin).uncached().server("limits: { body_timeout: 300ms }").start().await;
    let mut client = TcpStream::connect(edge.address).await.expect("the edge listens");
    client.write_all(b"GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("it is taken");
    origin.hit("/large", 1).await;
    eventually("the client is left", || edge.metric("edge_connections") == 0.0).await;
    origin.connected(0).await;
    assert_eq!(edge.metric("edge_requests_total{status=\"499\"}"), 1.0);
}

#[tokio::test]
async fn head_announces_what_get_would_have_had() {
    let origin = echoing().await;
    let edge = edge(&origin).start().await;
    let mut connection = edge.connect().await;
    for _ in 0..2 {
        let answer = connection.ask(&ask("HEAD", "/a")).await;
        assert_eq!((answer.status, answer.field("content-length").as_deref()), (200, Some("1")));
        assert_eq!(connection.ask(&get("/a")).await.text(), "a");
    }
}

#[tokio::test]
async fn a_leaving_edge_tells_each_connection_with_its_next_answer() {
    let origin = echoing().await;
    let gate = Gate::closed();
    origin.serve("/held", page("held").held(&gate));
    let edge = edge(&origin).start().await;
    let told = |connection: Connection, ask: Ask| async move {
        let mut connection = connection;
        let answer = connection.ask(&ask).await;
        assert_eq!((answer.status, answer.field("connection").as_deref()), (200, Some("close")));
        assert!(connection.closed().await);
    };
    let (mut kept, mut idle, mut busy) = (edge.connect().await, edge.connect().await, edge.connect().await);
    assert_eq!(kept.ask(&get("/a")).await.field("connection"), None);
    assert_eq!(idle.ask(&get("/a")).await.field("connection"), None);
    busy.send(&get("/held")).await;
    gate.reached_by(1).await;
    edge.running.edge().draining.send_replace(true);
    told(kept, get("/a")).await;
    told(edge.connect().await, get("/a")).await;
    assert!(idle.closed().await, "one that says nothing is closed without a word");
    gate.open();
    let answer = busy.answer("GET").await;
    assert_eq!((answer.text(), answer.field("connection").as_deref()), ("held", Some("close")));
}
