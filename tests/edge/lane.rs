//! The lane gives what the long way gives: byte for byte, record for record; and what is not plain does not take it.

use std::{collections::HashMap, fmt::Write as _, sync::atomic::Ordering};

use proptest::{collection::vec, option, prelude::*, sample::select};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Edge, Origin, Page, cacheable, configured, edge, eventually, get, origin, page, within};

/// Of hits: how many took the lane.
pub fn in_lane(edge: &Edge) -> usize {
    edge.metric("edge_lane_requests_total") as usize
}

fn open_lane(edge: &Edge, open: bool) {
    edge.running.edge().lane.store(open, Ordering::Relaxed);
}

/// An answer as it came, but for its request id; and the id.
#[derive(Debug, Clone, PartialEq)]
struct Raw {
    head: String,
    body: Vec<u8>,
}

impl Raw {
    fn is_fresh_hit(&self) -> bool {
        self.head.lines().any(|line| {
            line.starts_with("cache-status:") && line.contains("eduham-edge; hit; ttl=") && !line.contains("detail")
        })
    }
}

/// Asks over a connection of its own.
async fn raw(edge: &Edge, request: &str) -> (Raw, String) {
    let mut stream = within(TcpStream::connect(edge.address)).await.expect("the edge listens");
    within(stream.write_all(request.as_bytes())).await.expect("it is taken");
    next_raw(&mut stream, &mut Vec::new(), request.starts_with("HEAD")).await
}

/// The same request over HTTP/2, without what belongs to an HTTP/1.1 connection.
async fn raw_http2(edge: &Edge, request: &str) -> (Raw, String) {
    let stream = within(TcpStream::connect(edge.address)).await.expect("the edge listens");
    let (mut client, connection) = within(h2::client::handshake(stream)).await.expect("the edge speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let (first, fields) = request.split_once("\r\n").expect("a request line");
    let mut first = first.split(' ');
    let (method, target) = (first.next().expect("a method"), first.next().expect("a target"));
    let fields: Vec<_> = fields.lines().filter_map(|line| line.split_once(": ")).collect();
    let host = fields.iter().find(|(name, _)| *name == "Host").expect("a host").1;
    let uri = if target.starts_with('/') { format!("http://{host}{target}") } else { target.to_owned() };
    let mut asked = http::Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        if !["Host", "Connection", "Upgrade", "Content-Length"].contains(&name) {
            asked = asked.header(name, value);
        }
    }
    client = within(client.ready()).await.expect("an open connection");
    let (answer, _) = client.send_request(asked.body(()).expect("a request"), true).expect("a stream");
    let (parts, mut stream) = within(answer).await.expect("an answer").into_parts();
    let mut head = format!("{}\n", parts.status);
    for (name, value) in &parts.headers {
        let _ = writeln!(head, "{name}: {}", value.to_str().expect("a head is ASCII here"));
    }
    let mut body = Vec::new();
    while let Some(piece) = within(stream.data()).await {
        let piece = piece.expect("a whole body");
        let _ = stream.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    connection.abort();
    let id = parts.headers["x-request-id"].to_str().expect("an id").to_owned();
    (Raw { head: head.replace(&id, "ID"), body }, id)
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    async fn ask(self, edge: &Edge, request: &str) -> (Raw, String) {
        match self {
            Self::Http1 => raw(edge, request).await,
            Self::Http2 => raw_http2(edge, request).await,
        }
    }
}

/// The next answer on this connection, of which `buf` has been read.
async fn next_raw(stream: &mut TcpStream, buf: &mut Vec<u8>, is_head: bool) -> (Raw, String) {
    let end = loop {
        if let Some(at) = buf.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        assert_ne!(within(stream.read_buf(buf)).await.expect("an answer"), 0, "the connection closed");
    };
    let head: Vec<u8> = buf.drain(..end).collect();
    let mut head = String::from_utf8(head).expect("a head is ASCII here");
    let value = |head: &str, name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_default().to_owned()
    };
    let id = value(&head, "x-request-id");
    head = head.replace(&id, "ID");
    let has_body = !is_head && !head.starts_with("HTTP/1.1 204") && !head.starts_with("HTTP/1.1 304");
    let length: usize = value(&head, "content-length").parse().unwrap_or_default();
    while has_body && buf.len() < length {
        assert_ne!(within(stream.read_buf(buf)).await.expect("a body"), 0, "the connection closed");
    }
    let body = buf.drain(..if has_body { length } else { 0 }).collect();
    (Raw { head, body }, id)
}

/// What an origin says of one path, and how much.
#[derive(Debug, Clone)]
struct Stored {
    status: &'static str,
    fields: Vec<(&'static str, &'static str)>,
    length: usize,
}

impl Stored {
    fn page(&self) -> Page {
        let body: Vec<u8> = (0..self.length).map(|at| (at % 251) as u8).collect();
        self.fields.iter().fold(page(body).status(self.status), |page, (name, value)| page.field(name, value))
    }
}

fn stored() -> impl Strategy<Value = Stored> {
    let fresh = vec![
        ("Cache-Control", "max-age=60"),
        ("Cache-Control", "public, max-age=100, immutable"),
        ("Cache-Control", "max-age=1, s-maxage=70, no-transform"),
        ("Cache-Control", "no-cache"),
        ("Cache-Control", "max-age=40, must-revalidate"),
        ("CDN-Cache-Control", "max-age=50"),
        ("Expires", "Sat, 28 Nov 2026 00:00:00 GMT"),
        ("X-None", "1"),
    ];
    let other = vec![
        ("Content-Type", "text/html; charset=utf-8"),
        ("ETag", "\"a\""),
        ("ETag", "W/\"b\""),
        ("Last-Modified", "Mon, 23 Nov 2026 00:00:00 GMT"),
        ("Date", "Tue, 24 Nov 2026 02:21:00 GMT"),
        ("Age", "7"),
        ("Vary", "X-A"),
        ("Vary", "Accept-Language, X-A"),
        ("Surrogate-Key", "a b"),
        ("Cache-Tag", "a, c"),
        ("Cache-Status", "other; hit; ttl=9"),
        ("Via", "1.1 other"),
        ("X-Request-Id", "of-the-origin"),
        ("Accept-Ranges", "none"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("Content-Language", "de"),
        ("Expires", "0"),
        ("Server", "origin"),
        ("Connection", "X-Twice"),
    ];
    let statuses = vec!["200 OK", "200 OK", "200 OK", "404 Not Found", "204 No Content", "301 Moved", "410 Gone"];
    let lengths = vec![0, 5, 5, 900, 900, 3_900, 5_000, 66_000, 66_000, 1_100_000];
    (select(statuses), vec(select(fresh), 1..3), vec(select(other), 0..8), select(lengths)).prop_map(
        |(status, mut fields, others, length)| {
            fields.extend(others);
            Stored { status, fields, length: if status.starts_with("204") { 0 } else { length } }
        },
    )
}

fn policy() -> impl Strategy<Value = String> {
    let keys = vec![
        "browser_ttl: 30s",
        "default_ttl: 1m",
        "status_ttl: { 404: 10s }",
        "client_directives: ignore",
        "languages: [ en, de ]",
        "key: { query: { ignore: [ \"utm_*\" ] }, headers: [ x-a ], cookies: [ lang ] }",
        "bypass: { cookies: [ admin ], query: [ nocache ] }",
        "refresh: { headers: [ x-refresh ] }",
        "stale_while_revalidate: 20s",
        "compress: { types: [ \"text/*\" ] }",
    ];
    proptest::sample::subsequence(keys.clone(), 0..keys.len()).prop_map(|keys| keys.join(", "))
}

/// A request as it is written, and whether it is one for the lane.
#[derive(Debug, Clone)]
struct Asked {
    text: String,
    is_plain: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let plain = vec![
        "Accept-Language: de-CH, en;q=0.5",
        "X-A: 1",
        "X-A: 2",
        "Cookie: lang=de",
        "Cookie: admin=1",
        "Cookie: other=1; lang=en",
        "X-Refresh: 1",
        "Cache-Control: max-age=10",
        "Cache-Control: no-cache",
        "Cache-Control: max-stale",
        "Cache-Control: min-fresh=20",
        "Cache-Control: only-if-cached",
        "Cache-Control: no-store",
        "Pragma: no-cache",
        "User-Agent: a",
        "Referer: http://a.test/?token=1",
        "Content-Length: 0",
        "TE: trailers",
        "Connection: X-A",
        "Upgrade: websocket",
        "X-Forwarded-Proto: https",
    ];
    let special = vec![
        "Range: bytes=0-3",
        "Range: bytes=9999999-",
        "If-None-Match: \"a\"",
        "If-Match: \"c\"",
        "If-Modified-Since: Tue, 24 Nov 2026 00:00:00 GMT",
        "If-Unmodified-Since: Sun, 22 Nov 2026 00:00:00 GMT",
        "Authorization: Basic YQ==",
    ];
    let versions =
        vec![("1.1", ""), ("1.1", "Connection: close\r\n"), ("1.0", ""), ("1.0", "Connection: keep-alive\r\n")];
    let targets =
        vec!["/p0", "/p1", "/p0?a=1", "/p1?utm_x=1", "/p0?nocache=1", "/%701", "http://b.test/p0", "/x/../p1"];
    let hosts = vec!["a.test", "A.Test:80", "b.test"];
    (
        select(vec!["GET", "GET", "GET", "HEAD", "OPTIONS"]),
        select(targets),
        select(hosts),
        select(versions),
        vec(select(plain), 0..4),
        option::weighted(0.2, select(special)),
    )
        .prop_map(|(method, target, host, (version, connection), mut lines, special)| {
            lines.dedup_by_key(|line| line.split(':').next());
            let mut text = format!("{method} {target} HTTP/{version}\r\nHost: {host}\r\n{connection}");
            for line in lines.iter().copied().chain(special) {
                // Twice it would be refused.
                if !(line.starts_with("Content-Length") && text.contains("Content-Length")) {
                    let _ = write!(text, "{line}\r\n");
                }
            }
            text.push_str("\r\n");
            Asked { text, is_plain: special.is_none() && method != "OPTIONS" }
        })
}

#[derive(Debug, Clone)]
enum Act {
    Ask(Asked),
    Wait(u64),
    Purge { soft: bool },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => asked().prop_map(Act::Ask),
        1 => (1..40_u64).prop_map(Act::Wait),
        1 => any::<bool>().prop_map(|soft| Act::Purge { soft }),
    ]
}

/// What a record says, but for the request's name and how long it took.
fn comparable(mut record: serde_json::Value) -> serde_json::Value {
    let fields = record.as_object_mut().expect("a record is an object");
    for name in ["request_id", "trace_id", "duration_ms", "time_to_first_byte_ms"] {
        fields.remove(name);
    }
    record
}

/// Asks everything by both ways; gives the ids of the two answers to each request that was compared.
async fn both_ways(edge: &Edge, protocol: Protocol, acts: &[Act]) -> Vec<(String, String)> {
    let mut ids = Vec::new();
    for act in acts {
        let asked = match act {
            Act::Wait(seconds) => {
                edge.advance(*seconds);
                continue;
            }
            Act::Purge { soft } => {
                edge.purge(&format!(r#"{{"all":true,"soft":{soft}}}"#)).await;
                continue;
            }
            Act::Ask(asked) => asked,
        };
        open_lane(edge, false);
        // Whatever this brings about is stored before the two that are compared.
        let _ = protocol.ask(edge, &asked.text).await;
        edge.settled().await;
        let before = in_lane(edge);
        let (long, one) = protocol.ask(edge, &asked.text).await;
        edge.settled().await;
        assert_eq!(in_lane(edge), before, "the lane is closed");
        open_lane(edge, true);
        let (short, other) = protocol.ask(edge, &asked.text).await;
        edge.settled().await;
        // What may have coded copies goes the long way, and says so in `Vary`; no origin here does.
        let may_be_coded = long.head.to_ascii_lowercase().contains("accept-encoding");
        let expected = usize::from(asked.is_plain && long.is_fresh_hit() && !may_be_coded);
        let text = &asked.text;
        eventually("it is counted", || in_lane(edge) == before + expected).await;
        if long.is_fresh_hit() {
            assert_eq!(long.head, short.head, "{text}");
            assert!(long.body == short.body, "{text}: bodies differ");
            ids.push((one, other));
        }
    }
    ids
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_lane_and_the_long_way_give_the_same_answers_and_records(
        pages in vec(stored(), 2),
        policy in policy(),
        protocol in select(vec![Protocol::Http1, Protocol::Http2]),
        acts in vec(act(), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let origin = origin().await;
            for (at, page) in pages.iter().enumerate() {
                let page = page.page();
                origin.answer(&format!("/p{at}"), move |_| page.clone());
            }
            let edge = edge(&origin).policy(&policy).logged().start().await;
            let ids = both_ways(&edge, protocol, &acts).await;
            let records = edge.records().await;
            let records: HashMap<String, serde_json::Value> = records
                .into_iter()
                .map(|record| (record["request_id"].as_str().expect("an id").to_owned(), comparable(record)))
                .collect();
            for (long, short) in ids {
                assert_eq!(records[&long], records[&short]);
            }
        });
    }
}

/// Bytes `0..` of which every stretch is another.
pub fn varied(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// An edge that has stored what [`body_of`] names, but for `/no`.
pub async fn three_hits_and_one_that_is_none() -> (Origin, Edge) {
    let origin = origin().await;
    for path in ["/small", "/page", "/large"] {
        origin.serve(path, cacheable(body_of(path)));
    }
    origin.serve("/no", page(body_of("/no")).field("Cache-Control", "no-store"));
    let edge = edge(&origin).start().await;
    for path in ["/small", "/page", "/large", "/no"] {
        let _ = edge.get(path).await;
        edge.settled().await;
    }
    (origin, edge)
}

/// What its origin says there.
pub fn body_of(path: &str) -> Vec<u8> {
    match path {
        "/small" => b"small".to_vec(),
        "/page" => varied(3_000),
        "/large" => varied(3_000_000),
        _ => b"no".to_vec(),
    }
}

#[tokio::test]
async fn pipelined_hits_are_answered_in_order_with_what_is_no_hit_between_them() {
    let (_origin, edge) = three_hits_and_one_that_is_none().await;
    let row = ["/small", "/page", "/page", "/page", "/no", "/small", "/large", "/small", "/large", "/page"];
    let mut connection = edge.connect().await;
    let one = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let many: String = row.iter().cycle().take(200).map(|path| one("HEAD", path) + &one("GET", path)).collect();
    connection.send_bytes((many + "GET bad\r\n\r\n").as_bytes()).await;
    for path in row.iter().cycle().take(200) {
        let head = connection.answer("HEAD").await;
        let whole = connection.answer("GET").await;
        let expected = body_of(path);
        assert!(whole.status == 200 && whole.body == expected, "{path}");
        assert_eq!(head.field("content-length"), Some(expected.len().to_string()), "{path}");
    }
    assert_eq!(connection.answer("GET").await.status, 400, "what came before it was answered");
    assert!(connection.closed().await);
    assert_eq!(in_lane(&edge), 360);
    assert_eq!(edge.results("hit"), 360);
    let sent = edge.metric("edge_cache_bytes_total{result=\"hit\"}");
    assert_eq!(sent, f64::from(60 * 5 + 80 * 3_000 + 40 * 3_000_000));
}

#[tokio::test]
async fn a_client_that_does_not_take_a_hit_is_left_and_recorded() {
    let origin = origin().await;
    origin.serve("/large", cacheable(varied(24_000_000)));
    origin.serve("/small", cacheable("small"));
    let edge = edge(&origin).server("limits: { body_timeout: 300ms }").logged().start().await;
    let _ = (edge.get("/large").await, edge.get("/small").await);
    edge.settled().await;
    let mut stream = within(TcpStream::connect(edge.address)).await.expect("the edge listens");
    let both = "GET /small HTTP/1.1\r\nHost: a.test\r\n\r\nGET /large HTTP/1.1\r\nHost: a.test\r\n\r\n";
    within(stream.write_all(both.as_bytes())).await.expect("it is taken");
    eventually("it is left", || edge.metric("edge_requests_total{status=\"499\"}") == 1.0).await;
    assert_eq!(in_lane(&edge), 2);
    let records = edge.records().await;
    let (small, large) = (&records[2], &records[3]);
    assert_eq!((&small["target"], &small["status"], &small["bytes_sent"]), (&"/small".into(), &200.into(), &5.into()));
    assert_eq!((&large["status"], &large["client_gone"]), (&499.into(), &true.into()), "{large}");
    let sent = large["bytes_sent"].as_u64().expect("a number");
    assert!((1..24_000_000).contains(&sent), "what was written counts: {sent}");
}

#[tokio::test]
async fn a_client_that_takes_a_hit_slowly_gets_it_whole() {
    let origin = origin().await;
    origin.serve("/large", cacheable(varied(24_000_000)));
    let edge = edge(&origin).start().await;
    let _ = edge.get("/large").await;
    edge.settled().await;
    let mut connection = edge.connect().await;
    let head = connection.ask_head(&get("/large")).await;
    assert!(head.is_hit());
    let mut body = Vec::new();
    while body.len() < 24_000_000 {
        assert!(connection.body(24_000, &mut body).await, "at {}", body.len());
        tokio::task::yield_now().await;
    }
    assert!(body == varied(24_000_000));
    eventually("it is counted", || in_lane(&edge) == 1).await;
}

#[tokio::test]
async fn what_asks_for_more_than_the_answer_goes_the_long_way() {
    let origin = origin().await;
    origin.answer("/rt/a", |_| cacheable("a").etag("\"a\""));
    origin.answer("/a", |_| cacheable("a").etag("\"a\""));
    let rooms =
        "name: rooms, match: { path: \"/rt/{room}\" }, upstream: origin, cache: test, sticky: { by: [ path.room ] }";
    let edge = edge(&origin).route(rooms).start().await;
    for path in ["/a", "/rt/a"] {
        let _ = edge.get(path).await;
    }
    edge.settled().await;
    assert!(edge.get("/a").await.is_hit());
    eventually("it is counted", || in_lane(&edge) == 1).await;
    let conditional = |field: &str, value: &str| get("/a").field(field, value);
    for (ask, status) in [
        (get("/rt/a"), 200),
        (conditional("If-None-Match", "\"a\""), 304),
        (conditional("Range", "bytes=0-0"), 206),
        (conditional("Authorization", "Basic YQ=="), 200),
    ] {
        let answer = edge.ask(&ask).await;
        assert!(answer.status == status && answer.is_hit(), "{:?}: {answer:?}", ask.fields);
    }
    assert_eq!(in_lane(&edge), 1);
    edge.purge(r#"{"all":true,"soft":true}"#).await;
    assert!(!edge.get("/a").await.is_hit(), "what was purged is validated");
    edge.advance(3_600);
    assert!(!edge.get("/a").await.is_hit(), "what is stale too");
    assert_eq!(in_lane(&edge), 1);
}

#[tokio::test]
async fn two_policies_tell_browsers_of_one_stored_response_each_in_its_own_way() {
    let origin = origin().await;
    origin.serve("/a", cacheable("a"));
    let yaml = format!(
        "version: 1
server: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}
admin: {{ address: \"{{admin}}\" }}
log: {{ access: {{ to: none }} }}
upstreams: {{ origin: {{ peers: [ \"{}\" ] }} }}
cache:
  plain: {{}}
  short: {{ browser_ttl: 5s }}
  long: {{ browser_ttl: 1000s }}
routes:
  - {{ name: short, match: {{ path: /a, headers: {{ x-way: short }} }}, upstream: origin, cache: short }}
  - {{ name: long, match: {{ path: /a, headers: {{ x-way: long }} }}, upstream: origin, cache: long }}
  - {{ name: plain, match: {{ path: /a }}, upstream: origin, cache: plain }}
",
        origin.address()
    );
    let edge = configured(&yaml).start().await;
    let _ = edge.get("/a").await;
    edge.settled().await;
    for (age, way, expected) in [
        (0, "short", "max-age=5"),
        (0, "long", "max-age=1000"),
        (0, "plain", "max-age=60"),
        (9, "long", "max-age=1009"),
        (9, "short", "max-age=14"),
        (9, "plain", "max-age=60"),
    ] {
        let now = edge.get("/a").await.field("age");
        if now.as_deref() != Some(&age.to_string()) {
            edge.advance(age);
        }
        let answer = edge.ask(&get("/a").field("X-Way", way)).await;
        assert!(answer.is_hit());
        assert_eq!(answer.field("cache-control").as_deref(), Some(expected), "{way} at {age}");
        assert_eq!(answer.field("age"), Some(age.to_string()));
    }
    eventually("all of them are counted", || in_lane(&edge) == 12).await;
}

#[tokio::test]
async fn an_edge_that_leaves_says_so_with_a_hit_and_closes() {
    let origin = origin().await;
    origin.serve("/a", cacheable("a"));
    let edge = edge(&origin).start().await;
    let mut connection = edge.connect().await;
    for _ in 0..2 {
        assert_eq!(connection.ask(&get("/a")).await.field("connection"), None);
        edge.settled().await;
    }
    edge.running.edge().draining.send_replace(true);
    let answer = connection.ask(&get("/a")).await;
    assert!(answer.is_hit() && answer.field("connection").as_deref() == Some("close"), "{answer:?}");
    assert!(connection.closed().await);
    eventually("both are counted", || in_lane(&edge) == 2).await;
}
