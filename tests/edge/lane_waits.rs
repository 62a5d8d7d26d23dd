//! The lane behind a client that takes its answers late: whose time that is, and what may happen meanwhile.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::{
    lane::{in_lane, varied},
    support::{Edge, cacheable, edge, eventually, origin, page, within},
};

/// Longer than any step of a test that does not wait; what must not be counted is at least so long.
const LONG: Duration = Duration::from_millis(300);

/// Sends `requests` over a connection that takes no whole answer before it is read, and lets the edge wait [`LONG`] with the first
/// one in its hands; gives the client's side, from which nothing has been read, and when that was over.
async fn kept_waiting(edge: &Edge, requests: &str) -> (DuplexStream, Instant) {
    const ROOM: usize = 200;
    assert!(requests.len() < ROOM, "they come together");
    let (near, mut far) = tokio::io::duplex(ROOM);
    edge.serve(Box::new(near));
    within(far.write_all(requests.as_bytes())).await.expect("it is taken");
    let mut one = [0];
    // An answer is on its way, and has no room.
    within(far.read_exact(&mut one)).await.expect("an answer");
    assert_eq!(one, *b"H");
    let began = Instant::now();
    eventually("it has waited", || began.elapsed() >= LONG).await;
    (far, Instant::now())
}

#[tokio::test]
async fn the_time_for_a_head_begins_when_the_answers_before_it_have_been_taken() {
    let origin = origin().await;
    origin.serve("/page", cacheable(varied(3_000)));
    let edge = edge(&origin).server(&format!("limits: {{ header_timeout: {}ms }}", LONG.as_millis())).start().await;
    let _ = edge.get("/page").await;
    edge.settled().await;
    let (mut client, taken) = kept_waiting(&edge, "GET /page HTTP/1.1\r\nHost: a.test\r\n\r\nGET /page HT").await;
    let mut answers = Vec::new();
    within(client.read_to_end(&mut answers)).await.expect("both answers and the end");
    let answers = String::from_utf8_lossy(&answers);
    assert!(answers.starts_with("TTP/1.1 200 ") && answers.contains("HTTP/1.1 408 "), "{answers}");
    assert!(taken.elapsed() >= LONG, "the client still had its time");
    assert_eq!(in_lane(&edge), 1);
}

#[tokio::test]
async fn a_request_begins_when_the_answers_before_it_have_been_taken() {
    let origin = origin().await;
    origin.serve("/page", cacheable(varied(3_000)));
    origin.serve("/no", page("no").field("Cache-Control", "no-store"));
    let edge = edge(&origin).logged().start().await;
    let _ = edge.get("/page").await;
    edge.settled().await;
    let both =
        "GET /page HTTP/1.1\r\nHost: a.test\r\n\r\nGET /no HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let (mut client, taken) = kept_waiting(&edge, both).await;
    within(client.read_to_end(&mut Vec::new())).await.expect("both answers and the end");
    let records = edge.records().await;
    let most = taken.elapsed().as_secs_f64() * 1_000.0;
    let (page, no) = (&records[1], &records[2]);
    let lasted = |record: &serde_json::Value, what: &str| record[what].as_f64().expect("a number");
    assert!(lasted(page, "duration_ms") >= LONG.as_secs_f64() * 1_000.0, "{page}");
    for what in ["duration_ms", "time_to_first_byte_ms"] {
        assert!(lasted(no, what) <= most, "{what} of at most {most}: {no}");
    }
}

#[tokio::test]
async fn a_purge_while_the_answers_before_it_are_taken_touches_a_request() {
    let origin = origin().await;
    origin.serve("/page", cacheable(varied(3_000)));
    origin.serve("/text", cacheable("a".repeat(9_000)).field("Content-Type", "text/plain"));
    let edge = edge(&origin).policy("compress: { types: [ \"text/*\" ] }").start().await;
    for path in ["/page", "/text"] {
        let _ = edge.get(path).await;
        edge.settled().await;
    }
    let get = |path: &str, close: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{close}\r\n");
    let both = get("/page", "") + &get("/text", "Connection: close\r\n");
    for (purges, hits) in [(false, 2), (true, 1)] {
        let (mut client, _) = kept_waiting(&edge, &both).await;
        if purges {
            edge.purge(r#"{"all":true}"#).await;
        }
        let mut answers = Vec::new();
        within(client.read_to_end(&mut answers)).await.expect("both answers and the end");
        let answers = String::from_utf8_lossy(&answers);
        assert_eq!(answers.matches("eduham-edge; hit").count(), hits, "purged: {purges}");
    }
    assert_eq!(in_lane(&edge), 2, "what may have copies went the long way");
}
