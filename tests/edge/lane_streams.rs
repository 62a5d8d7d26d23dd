//! The lane on HTTP/2: streams that come together, and hits that do not fit the window of theirs.

use tokio::net::TcpStream;

use crate::{
    lane::{in_lane, varied},
    support::{Edge, cacheable, edge, eventually, origin, page, within},
};

/// A connection whose streams take so much before their client says more, and the client's side of it.
async fn http2(edge: &Edge, window: u32) -> h2::client::SendRequest<bytes::Bytes> {
    let stream = within(TcpStream::connect(edge.address)).await.expect("the edge listens");
    let handshake = h2::client::Builder::new().initial_window_size(window).handshake(stream);
    let (client, connection) = within(handshake).await.expect("the edge speaks HTTP/2");
    tokio::spawn(async move {
        // How it ends is seen by its requests.
        let _ = connection.await;
    });
    client
}

async fn send(client: &mut h2::client::SendRequest<bytes::Bytes>, path: &str) -> h2::client::ResponseFuture {
    let request = http::Request::get(format!("http://a.test{path}")).body(()).expect("a request");
    *client = within(client.clone().ready()).await.expect("an open connection");
    client.send_request(request, true).expect("a stream").0
}

async fn read(mut stream: h2::RecvStream) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(piece) = within(stream.data()).await {
        let piece = piece.expect("a whole body");
        let _ = stream.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    body
}

#[tokio::test]
async fn streams_that_come_together_are_answered_together_whatever_is_between_them() {
    let origin = origin().await;
    origin.serve("/small", cacheable("small"));
    origin.serve("/page", cacheable(varied(3_000)));
    origin.serve("/large", cacheable(varied(3_000_000)));
    origin.serve("/no", page("no").field("Cache-Control", "no-store"));
    let edge = edge(&origin).start().await;
    for path in ["/small", "/page", "/large", "/no"] {
        let _ = edge.get(path).await;
        edge.settled().await;
    }
    let before = in_lane(&edge);
    let mut client = http2(&edge, 65_535).await;
    let row = ["/small", "/page", "/no", "/large", "/page", "/small", "/small", "/page"];
    let mut answers = Vec::new();
    for path in row.iter().cycle().take(80) {
        answers.push((*path, send(&mut client, path).await));
    }
    let read_one = |(path, answer): (&'static str, h2::client::ResponseFuture)| async move {
        let (parts, stream) = within(answer).await.expect("an answer").into_parts();
        let body = read(stream).await;
        let expected = match path {
            "/small" => b"small".to_vec(),
            "/page" => varied(3_000),
            "/large" => varied(3_000_000),
            _ => b"no".to_vec(),
        };
        assert!(parts.status == 200 && body == expected, "{path}");
    };
    futures::future::join_all(answers.into_iter().map(read_one)).await;
    eventually("all hits are counted", || in_lane(&edge) == before + 70).await;
}

#[tokio::test]
async fn a_hit_that_does_not_fit_its_window_keeps_no_other_stream_waiting() {
    let origin = origin().await;
    origin.serve("/page", cacheable(varied(3_000)));
    origin.serve("/small", cacheable("small"));
    let edge = edge(&origin).logged().start().await;
    let _ = (edge.get("/page").await, edge.get("/small").await);
    edge.settled().await;
    let mut client = http2(&edge, 100).await;
    let (page, left) = (send(&mut client, "/page").await, send(&mut client, "/page").await);
    let small = within(send(&mut client, "/small").await).await.expect("an answer");
    assert_eq!(read(small.into_body()).await, b"small");
    let left = within(left).await.expect("a head");
    drop(left);
    assert!(read(within(page).await.expect("a head").into_body()).await == varied(3_000));
    eventually("all are counted", || in_lane(&edge) == 3).await;
    let records = edge.records().await;
    let statuses: Vec<_> = records.iter().skip(2).map(|record| record["status"].clone()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 499).count(), 1, "{statuses:?}");
}
