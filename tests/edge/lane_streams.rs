//! The lane on HTTP/2: streams that come together, and hits that do not fit the window of theirs.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pingora_core::protocols::l4;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::{
    lane::{body_of, in_lane, three_hits_and_one_that_is_none, varied},
    support::{Edge, cacheable, configured, edge, eventually, origin, within},
    tls::{BOTH, certificate, secure},
};

/// A connection whose streams take so much before their client says more, and the client's side of it.
async fn http2(edge: &Edge, window: u32) -> h2::client::SendRequest<bytes::Bytes> {
    http2_over(within(TcpStream::connect(edge.address)).await.expect("the edge listens"), window).await
}

async fn http2_over<S>(stream: S, window: u32) -> h2::client::SendRequest<bytes::Bytes>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::client::Builder::new();
    let handshake =
        builder.initial_window_size(window).initial_connection_window_size(window.max(65_535)).handshake(stream);
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
    let (_origin, edge) = three_hits_and_one_that_is_none().await;
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
        assert!(parts.status == 200 && body == body_of(path), "{path}");
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

/// A client's side that reads only when nothing else in this thread can go on: by then its edge has filled what it may fill.
struct Late {
    io: UnixStream,
    /// How often it has given way before this read.
    gave_way: usize,
}

impl Late {
    /// More tasks than a connection has, each of which wakes another.
    const TURNS: usize = 32;
}

impl AsyncRead for Late {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.gave_way < Self::TURNS {
            self.gave_way += 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = ready!(Pin::new(&mut self.io).poll_read(context, buf));
        self.gave_way = 0;
        Poll::Ready(read)
    }
}

impl AsyncWrite for Late {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[tokio::test]
async fn the_end_of_a_hit_over_tls_arrives_at_a_client_that_reads_late() {
    let certificate = certificate(&["a.test"]);
    let origin = origin().await;
    origin.serve("/large", cacheable(varied(3_000_000)));
    let yaml = format!(
        "version: 1
server: {{ listeners: [ {{ address: \"{{listener}}\" , {} }} ] }}
admin: {{ address: \"{{admin}}\" }}
log: {{ access: {{ to: none }} }}
upstreams: {{ origin: {{ peers: [ \"{}\" ] }} }}
cache: {{ test: {{}} }}
routes: [ {{ name: pages, match: {{ path: \"/{{*rest}}\" }}, upstream: origin, cache: test }} ]
",
        certificate.tls(""),
        origin.address()
    );
    let edge = configured(&yaml).start().await;
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    // What waits in the session is more than the socket takes.
    socket2::SockRef::from(&near).set_send_buffer_size(16 * 1024).expect("a small socket");
    edge.serve(Box::new(l4::stream::Stream::from(near)));
    let client = certificate.client(BOTH, &["h2"]);
    let stream = secure(Late { io: far, gave_way: 0 }, &client).await.expect("a handshake");
    let mut client = http2_over(stream, 16_000_000).await;
    for hits in 0..3 {
        let answer = within(send(&mut client, "/large").await).await.expect("an answer");
        assert!(read(answer.into_body()).await == varied(3_000_000), "after {hits} hits");
        eventually("it is counted", || in_lane(&edge) == hits).await;
        edge.settled().await;
    }
}
