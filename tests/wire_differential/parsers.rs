//! The same bytes as hyper and pingora-core read them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pingora_core::protocols::{
    Stream,
    http::v1::{client, server},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A request as far as two parsers must agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenRequest {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: Vec<u8>,
}

/// A final response as far as two parsers must agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenResponse {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

/// More than any input and what is answered to it.
const PIPE: usize = 1 << 20;

/// A connection on which a client sent `bytes` and no more.
async fn connection(bytes: &[u8]) -> (DuplexStream, DuplexStream) {
    let (mut near, far) = tokio::io::duplex(PIPE);
    near.write_all(bytes).await.expect("the pipe takes it");
    near.shutdown().await.expect("the pipe closes");
    (near, far)
}

/// The requests that hyper reads completely, up to its first error.
pub(crate) async fn hyper_requests(bytes: &[u8]) -> Vec<SeenRequest> {
    let (_near, far) = connection(bytes).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            let (method, target) = (head.method.to_string(), head.uri.to_string());
            seen.lock().expect("no panic").push(SeenRequest { method, target, body });
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    // An error ends the connection; what came before it counts.
    let _ =
        hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(far), service).await;
    let seen = seen.lock().expect("no panic");
    seen.clone()
}

/// The requests that pingora-core reads completely, up to its first error.
pub(crate) async fn pingora_requests(bytes: &[u8]) -> Vec<SeenRequest> {
    let (_near, far) = connection(bytes).await;
    let mut seen = Vec::new();
    let mut next: Option<(Stream, _)> = Some((Box::new(far), None));
    while let Some((stream, prefix)) = next.take() {
        let mut session = server::HttpSession::new(stream);
        session.set_pipelining_enabled(true);
        if let Some(prefix) = prefix {
            session.set_pipelined_prefix(prefix);
        }
        if !matches!(session.read_request().await, Ok(Some(_))) {
            break;
        }
        let mut body = Vec::new();
        let complete = loop {
            match session.read_body_bytes().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        if !complete {
            break;
        }
        let head = session.req_header();
        seen.push(SeenRequest {
            method: head.method.to_string(),
            target: String::from_utf8_lossy(head.raw_path()).into_owned(),
            body,
        });
        next = match session.reuse().await {
            Ok(reusable) => reusable.map(|reusable| reusable.into_parts()),
            Err(_) => None,
        };
    }
    seen
}

/// Plays the origin: reads a request head, sends `bytes`, closes.
async fn origin(mut stream: DuplexStream, bytes: Vec<u8>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.expect("a request comes first"));
    }
    stream.write_all(&bytes).await.expect("the pipe takes it");
    stream.shutdown().await.expect("the pipe closes");
    // Until the client has gone: whether it closes with an error does not matter here.
    let _ = stream.read_to_end(&mut request).await;
}

/// The final response to a GET that hyper reads completely.
pub(crate) async fn hyper_response(bytes: &[u8]) -> Option<SeenResponse> {
    let (near, far) = tokio::io::duplex(PIPE);
    let origin = tokio::spawn(origin(far, bytes.to_vec()));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/").header("host", "a").body(Empty::<Bytes>::new()).expect("a request");
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let body = response.into_body().collect().await.ok()?.to_bytes().to_vec();
        Some(SeenResponse { status, body })
    };
    let seen = exchange.await;
    drop(sender);
    connection.abort();
    let _: Result<_, _> = connection.await;
    origin.await.expect("the origin ends");
    seen
}

/// The final response to a GET that pingora-core reads completely.
pub(crate) async fn pingora_response(bytes: &[u8]) -> Option<SeenResponse> {
    let (near, far) = tokio::io::duplex(PIPE);
    let origin = tokio::spawn(origin(far, bytes.to_vec()));
    // The type of a request head is not exported by pingora-core: it is read instead of made.
    let (_client, far) = connection(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut request = server::HttpSession::new(Box::new(far));
    request.read_request().await.expect("a plain request");

    let mut session = client::HttpSession::new(Box::new(near));
    session.write_request_header(Box::new(request.req_header().clone())).await.expect("the origin reads");
    let seen = async {
        let status = loop {
            session.read_response().await.ok()?;
            let status = session.get_status()?;
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                break status;
            }
        };
        let mut body = Vec::new();
        while let Some(piece) = session.read_body_bytes().await.ok()? {
            body.extend_from_slice(&piece);
        }
        Some(SeenResponse { status, body })
    }
    .await;
    drop(session);
    origin.await.expect("the origin ends");
    seen
}
