//! The access record: one JSON line per request, written by a thread of its own so that a slow disk never slows a request.

use std::{
    borrow::Cow,
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{self, Write},
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use serde::{Serialize, Serializer, ser::Error as _};
use time::OffsetDateTime;

use super::{
    config::{Access, AccessTo},
    redact::Redactor,
};

/// How long the writer lets lines gather before it writes them: one write for many lines, and a tail that still feels live.
const GATHER: Duration = Duration::from_millis(20);

/// Enough for one efficient write; the writer does not gather further.
const BATCH_BYTES: usize = 64 * 1024;

/// Everything that is told of one request, in the order it is written. What is `None` is left out. Cookies, `Authorization`, tokens and
/// signatures have no place here; `target` and `referer` are redacted when they are written.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AccessRecord<'a> {
    /// When the record is written: the end of a request, the open and the close of a socket. RFC 3339, UTC, milliseconds.
    #[serde(serialize_with = "rfc3339_ms")]
    pub time: SystemTime,
    /// The node's id.
    pub node: &'a str,
    pub request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    pub client_ip: std::net::IpAddr,
    /// As written in `server.listeners[].address`.
    pub listener: &'a str,
    pub method: &'a str,
    pub scheme: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<&'a str>,
    /// Path and query, normalised.
    pub target: &'a str,
    /// `HTTP/1.1`, `HTTP/2`
    pub protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The cache policy of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'a str>,
    /// The hash of the configuration that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<&'a str>,
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<&'a str>,
    /// The request's `Range`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<&'a str>,
    /// `hit`, `stale_updating`, ...: see [`CacheResult`](super::CacheResult).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_status: Option<&'a str>,
    /// The reason behind `cache_status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "hex")]
    pub key_hash: Option<u128>,
    /// What picked the variant below the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<&'a str>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// Seconds of freshness left; negative = stale for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_cache_control: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_cache_control: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdn_cache_control: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<&'a str>,
    /// Separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surrogate_keys: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
    /// Requests sent to origins, the first included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "milliseconds")]
    pub time_to_first_byte_ms: Option<Duration>,
    #[serde(serialize_with = "milliseconds_of")]
    pub duration_ms: Duration,
    /// From the request to the origin to its response head.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "milliseconds")]
    pub origin_ms: Option<Duration>,
    /// Why the edge made the answer itself, or why it broke off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// The client left first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub client_gone: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referer: Option<&'a str>,
    /// Why a socket ended; only in the record of its close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_reason: Option<&'a str>,
}

fn rfc3339_ms<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let nanos = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let at = i128::try_from(nanos).map_err(S::Error::custom)?;
    let at = OffsetDateTime::from_unix_timestamp_nanos(at).map_err(S::Error::custom)?;
    serializer.collect_str(&format_args!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    ))
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn hex<S: Serializer>(hash: &Option<u128>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:032x}", hash.unwrap_or_default()))
}

/// Milliseconds to three decimals: a memory hit takes some microseconds.
fn milliseconds_of<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_micros() as f64 / 1000.0)
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    milliseconds_of(&duration.unwrap_or_default(), serializer)
}

#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    #[error("log.access.to: cannot append to {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot start the access log's writer thread: {0}")]
    Thread(io::Error),
}

/// Where access records go. Clones write to the same place.
#[derive(Clone)]
pub struct AccessLog(Option<Arc<Handle>>);

/// Ends the writer when the last clone is gone.
struct Handle(Arc<Inner>);

struct Inner {
    queue: Mutex<Queue>,
    /// The writer waits here for lines, and for the end.
    lines: Condvar,
    /// Those who close wait here for the writer.
    written: Condvar,
    reopen: AtomicBool,
    /// Bytes that may wait or be in the writer's hands.
    buffer: usize,
    redactor: Redactor,
    dropped: IntCounter,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    records: u64,
    /// Bytes that the writer has taken and not yet written.
    in_flight: usize,
    closing: bool,
    ended: bool,
}

impl AccessLog {
    /// Opens what `log.access.to` names and starts its writer. `dropped` counts records that are lost (`log_dropped_total`).
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not be started.
    pub fn start(config: &Access, dropped: IntCounter) -> Result<Self, AccessLogError> {
        let sink = match &config.to {
            AccessTo::None => return Ok(Self(None)),
            AccessTo::Stdout => Sink::Stream(Box::new(io::stdout())),
            AccessTo::Stderr => Sink::Stream(Box::new(io::stderr())),
            AccessTo::File(path) => {
                let file = append(path).map_err(|source| AccessLogError::Open { path: path.clone(), source })?;
                Sink::File(path.clone(), file)
            }
        };
        Self::with_sink(sink, config, dropped)
    }

    /// Writes to `writer` in place of what `log.access.to` names.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn to_writer(
        writer: Box<dyn Write + Send>,
        config: &Access,
        dropped: IntCounter,
    ) -> Result<Self, AccessLogError> {
        Self::with_sink(Sink::Stream(writer), config, dropped)
    }

    fn with_sink(sink: Sink, config: &Access, dropped: IntCounter) -> Result<Self, AccessLogError> {
        let inner = Arc::new(Inner {
            queue: Mutex::default(),
            lines: Condvar::new(),
            written: Condvar::new(),
            reopen: AtomicBool::new(false),
            buffer: config.buffer,
            redactor: Redactor::new(&config.redact_query),
            dropped,
        });
        let mut writer = Writer { inner: Arc::clone(&inner), sink, torn: false, failing: false };
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run())
            .map_err(AccessLogError::Thread)?;
        Ok(Self(Some(Arc::new(Handle(inner)))))
    }

    /// Is anything written at all? A caller that asks first saves making the record.
    pub fn enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Hands one record to the writer. Never waits for it: when `buffer` bytes are behind, the record is dropped and counted.
    pub fn write(&self, record: &AccessRecord<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(Handle(inner)) = self.0.as_deref() else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            match inner.serialise(record, line) {
                Ok(()) => inner.append(line),
                Err(error) => {
                    inner.dropped.inc();
                    tracing::error!(%error, "an access record was not serialised");
                }
            }
        });
    }

    /// Opens the file anew before the next line, after it was moved away (SIGUSR1).
    pub fn reopen(&self) {
        if let Some(Handle(inner)) = self.0.as_deref() {
            inner.reopen.store(true, Ordering::Release);
            inner.lines.notify_one();
        }
    }

    /// Ends the writer after it has written what waits. Blocks at most `within`; `false` if lines are still unwritten then.
    /// Records that come later are dropped and counted.
    pub fn close(&self, within: Duration) -> bool {
        let Some(Handle(inner)) = self.0.as_deref() else { return true };
        let deadline = Instant::now() + within;
        inner.end();
        let mut queue = inner.queue.lock();
        while !queue.ended {
            if inner.written.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
        }
        queue.ended
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").field("enabled", &self.enabled()).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Inner {
    fn end(&self) {
        self.queue.lock().closing = true;
        self.lines.notify_one();
    }

    fn serialise(&self, record: &AccessRecord<'_>, line: &mut Vec<u8>) -> serde_json::Result<()> {
        let target = self.redactor.redact(record.target);
        let referer = record.referer.map(|referer| self.redactor.redact(referer));
        if matches!(target, Cow::Owned(_)) || matches!(referer, Some(Cow::Owned(_))) {
            let redacted = AccessRecord { target: &target, referer: referer.as_deref(), ..*record };
            serde_json::to_writer(&mut *line, &redacted)?;
        } else {
            serde_json::to_writer(&mut *line, record)?;
        }
        line.push(b'\n');
        Ok(())
    }

    fn append(&self, line: &[u8]) {
        let mut queue = self.queue.lock();
        if queue.closing || queue.in_flight + queue.bytes.len() + line.len() > self.buffer {
            drop(queue);
            self.dropped.inc();
            return;
        }
        let before = queue.bytes.len();
        queue.bytes.extend_from_slice(line);
        queue.records += 1;
        let after = queue.bytes.len();
        drop(queue);
        // The writer wants to know of the first line and of a full batch; between the two it gathers.
        if before == 0 || (before < BATCH_BYTES && after >= BATCH_BYTES) {
            self.lines.notify_one();
        }
    }
}

enum Sink {
    Stream(Box<dyn Write + Send>),
    File(PathBuf, File),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.write(bytes),
            Self::File(_, file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.flush(),
            Self::File(_, file) => file.flush(),
        }
    }
}

/// The thread that writes.
struct Writer {
    inner: Arc<Inner>,
    sink: Sink,
    /// The last write that failed ended inside a line.
    torn: bool,
    /// The last batch was lost, and was complained about.
    failing: bool,
}

impl Writer {
    fn run(&mut self) {
        let mut batch = Vec::new();
        loop {
            let records = self.next(&mut batch);
            if self.inner.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            self.write(&batch, records);
            let mut queue = self.inner.queue.lock();
            queue.in_flight = 0;
            if queue.closing && queue.bytes.is_empty() {
                break;
            }
        }
        self.inner.queue.lock().ended = true;
        self.inner.written.notify_all();
    }

    /// Waits for lines and swaps them into `batch`, which comes back empty only to reopen or to end.
    fn next(&self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        // A burst leaves a large buffer; it is not kept for ever.
        batch.shrink_to(BATCH_BYTES * 4);
        let mut queue = self.inner.queue.lock();
        while queue.bytes.is_empty() && !queue.closing && !self.inner.reopen.load(Ordering::Acquire) {
            self.inner.lines.wait(&mut queue);
        }
        if queue.bytes.len() < BATCH_BYTES && !queue.closing {
            self.inner.lines.wait_for(&mut queue, GATHER);
        }
        mem::swap(batch, &mut queue.bytes);
        queue.in_flight = batch.len();
        mem::take(&mut queue.records)
    }

    fn write(&mut self, batch: &[u8], records: u64) {
        let mut rest = batch;
        let mut result = if self.torn && !batch.is_empty() { self.sink.write_all(b"\n") } else { Ok(()) };
        while result.is_ok() && !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.torn = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        match result.and_then(|()| self.sink.flush()) {
            Ok(()) => self.failing = false,
            Err(error) => {
                // Lines before the failure were written; counting the batch is simpler and never too few.
                self.inner.dropped.inc_by(records);
                if !mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "access records are lost until the log can be written again");
                }
            }
        }
    }

    fn reopen(&mut self) {
        if let Sink::File(path, file) = &mut self.sink {
            match append(path) {
                Ok(new) => {
                    *file = new;
                    self.torn = false;
                }
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "the access log was not reopened; the old file stays in use")
                }
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
