//! Writes access records from a thread of its own, so that a slow disk never slows a request.

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
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

use super::{
    access::AccessRecord,
    config::{Access, AccessTo},
    redact::Redactor,
};

/// How long the writer lets lines gather before it writes them: one write for many lines, and a tail that still feels live.
const GATHER: Duration = Duration::from_millis(20);

/// Enough for one efficient write; the writer does not gather further.
const BATCH_BYTES: usize = 64 * 1024;

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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::SystemTime};

    use serde_json::Value;

    use super::*;

    fn access(to: AccessTo, buffer: usize) -> Access {
        Access { to, buffer, redact_query: vec!["token".into(), "sig".into()] }
    }

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "dropped").unwrap()
    }

    fn record(target: &str) -> AccessRecord<'_> {
        AccessRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_210_096_007),
            node: "edge-1",
            request_id: "r1",
            trace_id: None,
            client_ip: std::net::IpAddr::from([192, 0, 2, 1]).into(),
            listener: "127.0.0.1:8080",
            method: "GET",
            scheme: "https",
            host: Some("a.test"),
            target,
            protocol: "HTTP/1.1",
            tls_version: None,
            route: Some("pages"),
            policy: None,
            config: None,
            status: 200,
            bytes_received: 0,
            bytes_sent: 5,
            content_type: None,
            range: None,
            cache_status: Some("hit"),
            detail: None,
            key_hash: Some(0xabc),
            variant: None,
            age: Some(3),
            ttl: Some(-2),
            request_cache_control: None,
            request_cookie: false,
            request_authorization: false,
            response_cache_control: None,
            cdn_cache_control: None,
            vary: None,
            etag: None,
            expires: None,
            last_modified: None,
            set_cookie: false,
            surrogate_keys: None,
            upstream: None,
            peer: None,
            upstream_status: None,
            tries: None,
            time_to_first_byte_ms: Some(Duration::from_micros(87)),
            duration_ms: Duration::from_micros(1_250),
            origin_ms: None,
            error: None,
            client_gone: false,
            user_agent: Some("a \"quoted\" one"),
            referer: Some("https://a.test/?SIG=1"),
            close_reason: None,
        }
    }

    #[test]
    fn a_record_is_one_line_in_its_order_and_holds_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::start(&access(AccessTo::File(path.clone()), 1 << 20), counter()).unwrap();
        assert!(log.enabled());
        log.write(&record("/a?token=abc&x=1"));
        assert!(log.close(Duration::from_secs(10)));
        let expected = concat!(
            r#"{"time":"2024-02-29T12:34:56.007Z","node":"edge-1","request_id":"r1","client_ip":"192.0.2.1","#,
            r#""listener":"127.0.0.1:8080","method":"GET","scheme":"https","host":"a.test","#,
            r#""target":"/a?token=REDACTED&x=1","protocol":"HTTP/1.1","route":"pages","status":200,"#,
            r#""bytes_received":0,"bytes_sent":5,"cache_status":"hit","#,
            r#""key_hash":"00000000000000000000000000000abc","age":3,"ttl":-2,"#,
            r#""time_to_first_byte_ms":0.087,"duration_ms":1.25,"#,
            r#""user_agent":"a \"quoted\" one","referer":"https://a.test/?SIG=REDACTED"}"#,
            "\n"
        );
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    }

    /// A writer that tells when it is entered and waits until its gate is open.
    struct Gated {
        entered: mpsc::Sender<()>,
        gate: Arc<(Mutex<bool>, Condvar)>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The test may have heard enough.
            let _ = self.entered.send(());
            let mut open = self.gate.0.lock();
            while !*open {
                self.gate.1.wait(&mut open);
            }
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn records_are_dropped_and_counted_while_the_writer_is_blocked_and_the_rest_is_written() {
        let (entered, heard) = mpsc::channel();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let (written, dropped) = (Arc::new(Mutex::new(Vec::new())), counter());
        let writer = Gated { entered, gate: gate.clone(), written: written.clone() };
        let line = serde_json::to_vec(&AccessRecord { referer: None, ..record("/a") }).unwrap().len() + 1;
        let log = AccessLog::to_writer(Box::new(writer), &access(AccessTo::Stdout, 4 * line), dropped.clone()).unwrap();
        let write = |target| log.write(&AccessRecord { referer: None, ..record(target) });

        write("/a");
        heard.recv().unwrap();
        // One line is in the writer's hands, three more fit.
        for _ in 0..8 {
            write("/b");
        }
        assert_eq!(dropped.get(), 5);
        assert!(!log.close(Duration::ZERO), "that something is unwritten is told");
        *gate.0.lock() = true;
        gate.1.notify_all();
        assert!(log.close(Duration::from_secs(10)));
        write("/c");
        assert_eq!(dropped.get(), 6, "what comes after the end");

        let written = String::from_utf8(written.lock().clone()).unwrap();
        let targets: Vec<Value> =
            written.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["target"].clone()).collect();
        assert_eq!(targets, ["/a", "/b", "/b", "/b"]);
    }

    /// Its first write takes ten bytes, its second fails, all others succeed.
    struct Failing {
        writes: u32,
        entered: mpsc::Sender<u32>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            // The test may have heard enough.
            let _ = self.entered.send(self.writes);
            let fits = match self.writes {
                1 => 10,
                2 => return Err(io::ErrorKind::StorageFull.into()),
                _ => bytes.len(),
            };
            self.written.lock().extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn after_a_failed_write_the_next_record_begins_its_own_line() {
        let (entered, heard) = mpsc::channel();
        let (written, dropped) = (Arc::new(Mutex::new(Vec::new())), counter());
        let writer = Failing { writes: 0, entered, written: written.clone() };
        let log = AccessLog::to_writer(Box::new(writer), &access(AccessTo::Stdout, 1 << 20), dropped.clone()).unwrap();
        log.write(&record("/a"));
        assert_eq!((heard.recv(), heard.recv()), (Ok(1), Ok(2)));
        log.write(&record("/b"));
        assert!(log.close(Duration::from_secs(10)));
        assert_eq!(dropped.get(), 1);
        let written = String::from_utf8(written.lock().clone()).unwrap();
        let (torn, whole) = written.split_once('\n').unwrap();
        assert_eq!(torn, r#"{"time":"2"#);
        assert_eq!(serde_json::from_str::<Value>(whole).unwrap()["target"], "/b");
    }

    #[test]
    fn a_log_file_that_was_moved_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let log = AccessLog::start(&access(AccessTo::File(path.clone()), 1 << 20), counter()).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.write(&record("/new"));
        assert!(log.close(Duration::from_secs(10)));
        assert!(std::fs::read_to_string(&path).unwrap().contains("/new"));
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "");
    }

    #[test]
    fn nothing_is_written_where_no_record_is_wanted() {
        let dropped = counter();
        let log = AccessLog::start(&access(AccessTo::None, 0), dropped.clone()).unwrap();
        log.write(&record("/a"));
        assert!(!log.enabled() && log.close(Duration::ZERO));
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let to = AccessTo::File("/nowhere/at/all/access.log".into());
        let error = AccessLog::start(&access(to, 1), counter()).unwrap_err().to_string();
        assert!(error.starts_with("log.access.to: cannot append to /nowhere/at/all/access.log: "), "{error}");
    }
}
