//! A scriptable HTTP/1.1 origin: it says exactly the bytes that a test wants, when the test wants them.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::gate::{Gate, within};

/// An origin on a port of its own.
pub struct Origin {
    address: SocketAddr,
    script: Arc<Script>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

type Answers = Box<dyn Fn(&Asked) -> Page + Send + Sync>;

struct Script {
    pages: Mutex<HashMap<String, Arc<Answers>>>,
    /// Paths whose answer does not wait for the request's body.
    early: Mutex<HashSet<String>>,
    asked: watch::Sender<Vec<Asked>>,
    /// Grows: idle connections close. True: all connections end.
    idle: watch::Sender<u64>,
    killed: watch::Sender<u64>,
    /// Connections open now, and opened ever.
    connections: watch::Sender<(usize, usize)>,
}

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Requests that this connection had carried before.
    pub earlier: usize,
    /// How many requests for this path came before.
    pub hits_before: usize,
    pub at: Instant,
}

impl Asked {
    /// All lines of a field, joined.
    pub fn field(&self, name: &str) -> Option<String> {
        joined(&self.fields, name)
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// All lines of a field, joined by commas.
pub fn joined(fields: &[(String, String)], name: &str) -> Option<String> {
    let lines: Vec<&str> =
        fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// An answer. Made by [`page`] and changed by its methods.
#[derive(Clone)]
pub struct Page {
    status: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    framing: Framing,
    interim: Vec<String>,
    before_head: Option<Gate>,
    before_byte: Option<(usize, Gate)>,
    cut_at: Option<usize>,
    close: bool,
    validates: bool,
    /// Said in place of all else.
    raw: Option<Vec<u8>>,
    silent: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length,
    Chunked,
    Close,
}

/// 200 with a body and its `Content-Length`, at once.
pub fn page(body: impl Into<Vec<u8>>) -> Page {
    Page {
        status: "200 OK".into(),
        fields: Vec::new(),
        body: body.into(),
        framing: Framing::Length,
        interim: Vec::new(),
        before_head: None,
        before_byte: None,
        cut_at: None,
        close: false,
        validates: false,
        raw: None,
        silent: false,
    }
}

/// A page that may be stored for a minute.
pub fn cacheable(body: impl Into<Vec<u8>>) -> Page {
    page(body).field("Cache-Control", "max-age=60")
}

/// No answer: the connection closes.
pub fn reset() -> Page {
    Page { silent: true, ..page("") }
}

/// Exactly these bytes, after which the connection closes.
pub fn raw(bytes: impl Into<Vec<u8>>) -> Page {
    Page { raw: Some(bytes.into()), ..page("") }
}

impl Page {
    /// `404 Not Found`
    pub fn status(mut self, line: &str) -> Self {
        self.status = line.into();
        self
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// With this `ETag`, and 304 for those who have it already.
    pub fn etag(self, tag: &str) -> Self {
        Self { validates: true, ..self.field("ETag", tag) }
    }

    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// The body ends with the connection.
    pub fn close_delimited(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// An interim response first, such as `103 Early Hints\r\nLink: </a.css>`.
    pub fn interim(mut self, head: &str) -> Self {
        self.interim.push(head.into());
        self
    }

    /// Nothing is said until the gate opens.
    pub fn held(mut self, gate: &Gate) -> Self {
        self.before_head = Some(gate.clone());
        self
    }

    /// Head and the first `bytes` of the body come; the rest when the gate opens.
    pub fn held_after(mut self, bytes: usize, gate: &Gate) -> Self {
        self.before_byte = Some((bytes, gate.clone()));
        self
    }

    /// The connection closes after so many bytes of the body.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut_at = Some(bytes);
        self
    }

    /// The connection closes after the answer, as announced.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

pub async fn origin() -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let script = Arc::new(Script {
        pages: Mutex::default(),
        early: Mutex::default(),
        asked: watch::Sender::new(Vec::new()),
        idle: watch::Sender::new(0),
        killed: watch::Sender::new(0),
        connections: watch::Sender::new((0, 0)),
    });
    let accepting = Mutex::new(Some(tokio::spawn(accept(listener, Arc::clone(&script)))));
    Origin { address, script, accepting }
}

impl Origin {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers `path` (or, first, a path with this query) so from now on. What has no page is 404.
    pub fn serve(&self, path: &str, page: Page) {
        self.answer(path, move |_| page.clone());
    }

    /// Answers `path` by what is asked.
    pub fn answer(&self, path: &str, answers: impl Fn(&Asked) -> Page + Send + Sync + 'static) {
        self.script.pages.lock().insert(path.into(), Arc::new(Box::new(answers)));
    }

    /// Answers `path` before it has read the request's body, which it never does; then the connection ends.
    pub fn serve_early(&self, path: &str, page: Page) {
        self.script.early.lock().insert(path.into());
        self.serve(path, page.closing());
    }

    /// Every request so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.script.asked.borrow().clone()
    }

    /// The requests for a path, whatever their query.
    pub fn asked_for(&self, path: &str) -> Vec<Asked> {
        self.script.asked.borrow().iter().filter(|asked| asked.path() == path).cloned().collect()
    }

    pub fn hits(&self, path: &str) -> usize {
        self.script.asked.borrow().iter().filter(|asked| asked.path() == path).count()
    }

    /// Waits until a path has been asked for so often.
    pub async fn hit(&self, path: &str, times: usize) {
        let mut changes = self.script.asked.subscribe();
        let hit = changes.wait_for(|asked| asked.iter().filter(|asked| asked.path() == path).count() >= times);
        let _ = within(hit).await.expect("the origin is there");
    }

    /// Connections opened so far.
    pub fn connections(&self) -> usize {
        self.script.connections.borrow().1
    }

    /// Waits until so many connections are open.
    pub async fn connected(&self, open: usize) {
        let mut changes = self.script.connections.subscribe();
        let _ = within(changes.wait_for(|(now, _)| *now == open)).await.expect("the origin is there");
    }

    /// Closes the connections that carry no request now.
    pub fn close_idle(&self) {
        self.script.idle.send_modify(|count| *count += 1);
    }

    /// Ends at once: no connection is left, and new ones are refused.
    pub async fn kill(&self) {
        let accepting = self.accepting.lock().take();
        if let Some(accepting) = accepting {
            accepting.abort();
            let _ = accepting.await;
        }
        self.script.killed.send_modify(|count| *count += 1);
        self.connected(0).await;
    }

    /// Listens again where it did.
    pub async fn restart(&self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is still free");
        *self.accepting.lock() = Some(tokio::spawn(accept(listener, Arc::clone(&self.script))));
    }
}

async fn accept(listener: TcpListener, script: Arc<Script>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        script.connections.send_modify(|(open, ever)| {
            *open += 1;
            *ever += 1;
        });
        let script = Arc::clone(&script);
        tokio::spawn(async move {
            let mut killed = script.killed.subscribe();
            tokio::select! {
                biased;
                _ = killed.changed() => {}
                _ = serve(stream, &script) => {}
            }
            script.connections.send_modify(|(open, _)| *open -= 1);
        });
    }
}

/// Answers the requests of a connection in order.
async fn serve(mut stream: TcpStream, script: &Script) -> std::io::Result<()> {
    let mut buf = Vec::new();
    let mut earlier = 0;
    let mut idle = script.idle.subscribe();
    loop {
        let asked = loop {
            if let Some(end) = find(&buf, b"\r\n\r\n") {
                break read_request(&mut stream, &mut buf, end, earlier, script).await?;
            }
            tokio::select! {
                biased;
                read = stream.read_buf(&mut buf) => if read? == 0 { return Ok(()) },
                _ = idle.changed(), if buf.is_empty() => return Ok(()),
            }
        };
        earlier += 1;
        let path = asked.path().to_owned();
        let mut asked = asked;
        script.asked.send_modify(|all| {
            asked.hits_before = all.iter().filter(|other| other.path() == path).count();
            all.push(asked.clone());
        });
        let answers = {
            let pages = script.pages.lock();
            pages.get(&asked.target).or_else(|| pages.get(&path)).cloned()
        };
        let page = answers.map_or_else(|| page("no such page").status("404 Not Found"), |answers| answers(&asked));
        if !say(&mut stream, &asked, page).await? {
            return Ok(());
        }
        // Idle connections are those that wait from now on.
        idle.mark_unchanged();
    }
}

async fn read_request(
    stream: &mut TcpStream,
    buf: &mut Vec<u8>,
    end: usize,
    earlier: usize,
    script: &Script,
) -> std::io::Result<Asked> {
    let head = String::from_utf8_lossy(&buf[..end]).into_owned();
    buf.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default().to_owned(), first.next().unwrap_or_default().to_owned());
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let is_early = script.early.lock().contains(target.split('?').next().unwrap_or_default());
    let body = if is_early {
        Vec::new()
    } else if joined(&fields, "transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let line = take_line(stream, buf).await?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            let chunk = take(stream, buf, length + 2).await?;
            if length == 0 {
                break body;
            }
            body.extend_from_slice(&chunk[..length]);
        }
    } else {
        let length = joined(&fields, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        take(stream, buf, length).await?
    };
    Ok(Asked { method, target, fields, body, earlier, hits_before: 0, at: Instant::now() })
}

async fn take(stream: &mut TcpStream, buf: &mut Vec<u8>, length: usize) -> std::io::Result<Vec<u8>> {
    while buf.len() < length {
        if stream.read_buf(buf).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buf.drain(..length).collect())
}

async fn take_line(stream: &mut TcpStream, buf: &mut Vec<u8>) -> std::io::Result<String> {
    loop {
        if let Some(end) = find(buf, b"\r\n") {
            let line = String::from_utf8_lossy(&buf[..end]).into_owned();
            buf.drain(..end + 2);
            return Ok(line);
        }
        if stream.read_buf(buf).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

/// Says a page; false when the connection ends with it.
async fn say(stream: &mut TcpStream, asked: &Asked, page: Page) -> std::io::Result<bool> {
    if let Some(gate) = &page.before_head {
        // Who asked may leave while we wait: then nobody is to be told.
        let mut nothing = [0; 1];
        tokio::select! {
            biased;
            () = gate.pass() => {}
            Ok(0) = stream.peek(&mut nothing) => return Ok(false),
        }
    }
    if page.silent {
        return Ok(false);
    }
    if let Some(raw) = &page.raw {
        stream.write_all(raw).await?;
        return Ok(false);
    }
    for interim in &page.interim {
        stream.write_all(format!("HTTP/1.1 {interim}\r\n\r\n").as_bytes()).await?;
    }
    let etag = joined(&page.fields, "etag");
    let not_modified = page.validates && etag.is_some() && asked.field("if-none-match") == etag;
    let status = if not_modified { "304 Not Modified" } else { &page.status };
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in &page.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let bodyless = not_modified || status.starts_with("204") || status.starts_with("304");
    match page.framing {
        _ if bodyless => {}
        Framing::Length if joined(&page.fields, "content-length").is_none() => {
            head.push_str(&format!("Content-Length: {}\r\n", page.body.len()));
        }
        Framing::Length | Framing::Close => {}
        Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
    }
    if page.close {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    let ends = page.close || page.framing == Framing::Close;
    if bodyless || asked.method == "HEAD" {
        return Ok(!ends);
    }
    let held = page.before_byte.as_ref().map_or(page.body.len(), |(bytes, _)| *bytes);
    let (first, second) = page.body.split_at(held.min(page.body.len()));
    let mut left = page.cut_at.unwrap_or(usize::MAX);
    for (index, part) in [first, second].into_iter().enumerate() {
        if index == 1
            && let Some((_, gate)) = &page.before_byte
        {
            gate.pass().await;
        }
        let part = &part[..part.len().min(left)];
        left -= part.len();
        match page.framing {
            Framing::Chunked if !part.is_empty() => {
                stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await?;
                stream.write_all(part).await?;
                stream.write_all(b"\r\n").await?;
            }
            _ => stream.write_all(part).await?,
        }
        if left == 0 {
            return Ok(false);
        }
    }
    if page.framing == Framing::Chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(!ends)
}
