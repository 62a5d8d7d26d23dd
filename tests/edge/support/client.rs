//! Clients that show everything: an HTTP/1.1 one that speaks bytes, and an HTTP/2 one.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{gate::within, origin::joined};

/// A request as it is written.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub fn ask(method: &str, target: &str) -> Ask {
    Ask { method: method.into(), target: target.into(), fields: Vec::new(), body: Vec::new() }
}

pub fn get(target: &str) -> Ask {
    ask("GET", target)
}

impl Ask {
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// With this body and its `Content-Length`.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.field("Content-Length", &length)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if joined(&self.fields, "host").is_none() {
            text.push_str("Host: a.test\r\n");
        }
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer, whole or as far as it came.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    /// In the order in which they came.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Interim responses before it.
    pub interim: Vec<(u16, Vec<(String, String)>)>,
    /// It broke off before its end.
    pub cut: bool,
}

impl Answer {
    /// All lines of a field, joined.
    pub fn field(&self, name: &str) -> Option<String> {
        joined(&self.fields, name)
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// What our cache says that it did, without its name: `hit; ttl=60`.
    pub fn cache_status(&self) -> String {
        let status = self.field("cache-status").unwrap_or_default();
        status.strip_prefix("eduham-edge; ").unwrap_or(&status).to_owned()
    }

    pub fn is_hit(&self) -> bool {
        self.cache_status().starts_with("hit")
    }
}

/// One HTTP/1.1 connection.
pub struct Connection {
    stream: TcpStream,
    buf: Vec<u8>,
    closed: bool,
}

/// How the body of an answer ends.
#[derive(Clone, Copy)]
enum End {
    Length(usize),
    Chunked,
    Close,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the edge listens"))
    }

    pub fn over(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, buf: Vec::new(), closed: false }
    }

    /// One request and its answer.
    pub async fn ask(&mut self, ask: &Ask) -> Answer {
        self.send(ask).await;
        self.answer(&ask.method).await
    }

    /// One request and the head of its answer.
    pub async fn ask_head(&mut self, ask: &Ask) -> Answer {
        self.send(ask).await;
        self.head().await
    }

    pub async fn send(&mut self, ask: &Ask) {
        self.send_bytes(&ask.bytes()).await;
    }

    /// Sends these bytes; that the other side takes no more is seen when it is read from.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = within(self.stream.write_all(bytes)).await;
    }

    /// The next answer, to a request of this method.
    pub async fn answer(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        self.rest(method, &mut answer).await;
        answer
    }

    /// The head of the next answer, interim responses before it.
    pub async fn head(&mut self) -> Answer {
        let mut interim = Vec::new();
        loop {
            let Some(end) = self.until(b"\r\n\r\n").await else {
                return Answer { cut: true, interim, ..Answer::default() };
            };
            let head: Vec<u8> = self.buf.drain(..end).collect();
            let head = String::from_utf8_lossy(&head).into_owned();
            let mut lines = head.split("\r\n");
            let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
            let status = status.unwrap_or_else(|| panic!("not an answer: {head:?}"));
            let fields: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            if (100..200).contains(&status) && status != 101 {
                interim.push((status, fields));
            } else {
                return Answer { status, fields, interim, ..Answer::default() };
            }
        }
    }

    /// The next interim response, whose final one has not come yet.
    pub async fn interim(&mut self) -> u16 {
        let end = self.until(b"\r\n\r\n").await.expect("the connection is open");
        let head: Vec<u8> = self.buf.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("not an answer: {head:?}"))
    }

    /// The body of an answer whose head has come.
    pub async fn rest(&mut self, method: &str, answer: &mut Answer) {
        if answer.cut || method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return;
        }
        let end = if answer.field("transfer-encoding").is_some() {
            End::Chunked
        } else {
            let length = answer.field("content-length").and_then(|length| length.parse().ok());
            length.map_or(End::Close, End::Length)
        };
        answer.cut = match end {
            End::Length(length) => !self.body(length, &mut answer.body).await,
            End::Close => {
                while self.fill().await {}
                answer.body.append(&mut self.buf);
                false
            }
            End::Chunked => loop {
                let Some(end) = self.until(b"\r\n").await else { break true };
                let line: Vec<u8> = self.buf.drain(..end).collect();
                let length = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).expect("a chunk size");
                if !self.body(length, &mut answer.body).await || self.until(b"\r\n").await != Some(2) {
                    break true;
                }
                self.buf.drain(..2);
                if length == 0 {
                    break false;
                }
            },
        };
    }

    /// The next `length` bytes of a body; less when it breaks off, and then false.
    pub async fn body(&mut self, length: usize, into: &mut Vec<u8>) -> bool {
        while self.buf.len() < length && self.fill().await {}
        let whole = self.buf.len() >= length;
        into.extend(self.buf.drain(..length.min(self.buf.len())));
        whole
    }

    /// Waits until the other side has closed, and nothing more came.
    pub async fn closed(&mut self) -> bool {
        while self.fill().await {}
        self.buf.is_empty()
    }

    async fn until(&mut self, word: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.buf.windows(word.len()).position(|window| window == word) {
                return Some(at + word.len());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Reads what comes; false at the end of the connection, also when it was reset.
    async fn fill(&mut self) -> bool {
        if !self.closed {
            self.closed = !matches!(within(self.stream.read_buf(&mut self.buf)).await, Ok(1..));
        }
        !self.closed
    }
}

/// One HTTP/2 connection, without TLS.
pub struct Http2(h2::client::SendRequest<Bytes>);

impl Http2 {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the edge listens");
        let (send, connection) = within(h2::client::handshake(stream)).await.expect("the edge speaks HTTP/2");
        tokio::spawn(async move {
            // How it ends is seen by its requests.
            let _ = connection.await;
        });
        Self(send)
    }

    /// One request and its answer; `cut` when the stream was reset.
    pub async fn ask(&self, ask: &Ask) -> Answer {
        self.begin(ask).await.rest().await
    }

    /// One request and the head of its answer.
    pub async fn begin(&self, ask: &Ask) -> Begun {
        let mut request = http::Request::builder().method(&*ask.method).uri(format!("http://a.test{}", ask.target));
        for (name, value) in &ask.fields {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("a valid request");
        let mut ready = within(self.0.clone().ready()).await.expect("the connection is open");
        let (response, mut body) = ready.send_request(request, ask.body.is_empty()).expect("a stream");
        if !ask.body.is_empty() {
            body.send_data(ask.body.clone().into(), true).expect("an open stream");
        }
        let Ok(response) = within(response).await else {
            return Begun { answer: Answer { cut: true, ..Answer::default() }, body: None };
        };
        let fields = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let answer = Answer { status: response.status().as_u16(), fields, ..Answer::default() };
        Begun { answer, body: Some(response.into_body()) }
    }
}

/// An HTTP/2 answer whose head has come.
pub struct Begun {
    pub answer: Answer,
    body: Option<h2::RecvStream>,
}

impl Begun {
    /// The whole answer.
    pub async fn rest(self) -> Answer {
        let Self { mut answer, body } = self;
        let Some(mut body) = body else { return answer };
        while let Some(piece) = within(body.data()).await {
            let Ok(piece) = piece else {
                answer.cut = true;
                break;
            };
            let _ = body.flow_control().release_capacity(piece.len());
            answer.body.extend_from_slice(&piece);
        }
        answer
    }
}
