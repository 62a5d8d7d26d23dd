//! The disk tier: append-only segments of records, found through an index in memory.
//!
//! # How it works
//!
//! A stored response is a head record and, where its body is large, part records. A response is committed by its head, which
//! comes after its parts and lists their checksums; so whatever happens, what is read of a body is what was stored of it, and what
//! is not there is known. Records are
//! appended to the newest segment by one thread ([`writer`]), fed by a bounded queue that never makes a worker wait: what does
//! not fit is not stored here. Other threads ([`reader`]) read by place and verify every byte before they give it out.
//!
//! Space is made by dropping the oldest segment whole; what was used since it was written, here or in the memory tier, is
//! appended anew first. Half of a segment at most survives so, which makes the cost of an eviction constant per victim.
//!
//! # How it comes back
//!
//! At the start the purge journal is read ([`journal`]), which is all that must be known before anything is served. Then the
//! segments are read into the index, the newest first ([`recover`]), and after a moment behind: until one has been read, its keys
//! are misses. A full segment
//! has a summary of its headers beside it; the others are scanned, and a torn end is cut off. `kill -9` needs no more: what a
//! process wrote outlives it in the kernel. After a loss of power checksums tell what was lost.
//!
//! # When it fails
//!
//! A full file system and errors of the device make the tier do without writing for [`RETRY_AFTER`], then it tries again with a
//! new segment. Nothing waits for it and nothing fails because of it.

mod breaker;
mod index;
mod journal;
mod orders;
mod queue;
mod reader;
mod record;
mod recover;
mod segment;
mod shards;
mod writer;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use prometheus::IntCounter;
use tokio::sync::{oneshot, watch};

pub use index::At;
pub use journal::NotDurable;
pub use orders::Order;
pub use reader::{HeadRead, ReadError};
pub use record::{Cursor, Head, KEYS_MAX, PartRef};

use breaker::Breaker;
use journal::Journal;
use queue::Queue;
use reader::Asked;
use record::BODY_BYTES_MAX;
use segment::Segment;
use shards::Shards;
use writer::Job;

use crate::telemetry::Metrics;

/// `store.disk`
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder, whose name is final.
    pub path: PathBuf,
    /// Bytes of all segments.
    pub size: u64,
    /// Bytes of the largest body kept here.
    pub object_max: u64,
    /// Percent of the file system that stays free.
    pub min_free: f64,
}

/// Bytes that the smallest tier needs: eight segments that each hold any record.
pub const SIZE_MIN: u64 = 8 * SEGMENT_BYTES_MIN;
/// Bytes of the largest body that one head can list in parts of 1 MiB, with room for ranges that lie across them.
pub const OBJECT_MAX: u64 = 4 * 1024 * 1024 * 1024;
const SEGMENT_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// A segment of the usual tier. Small enough that one is copied in a fraction of a second.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Segments of a large tier, each of which is an open file.
const SEGMENTS_MAX: u64 = 1_024;
/// Offsets are 32 bits.
const SEGMENT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// Bytes that wait to be written. A second of a slow disk; larger bodies come part by part.
pub const WRITE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Records that wait to be written; each is a few hundred bytes beyond its own.
const WRITES_MAX: usize = 16 * 1024;
/// Reads that wait; at some 100 us each the last one waits a quarter of a second. One more is a miss.
const READS_MAX: usize = 8 * 1024;
/// Threads that read: enough to keep one device busy.
const READERS: usize = 4;
/// How long nothing is written after a failure, or read after several.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Failed reads in a row: of one bad place there may be some, of a bad device there are more.
const READ_FAILURES_MAX: u32 = 8;
/// A device that takes longer than this is slower than any origin.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long is waited for what has been given to be written; a device that takes longer hangs.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// How long a start waits for the segments: some hundred thousand records are read within that, and of more the newest, which
/// are the likeliest to be asked for. Ready within a second all the same.
const RECOVER_WITHIN: Duration = Duration::from_millis(400);
/// Tombstones that wait while nothing can be written. One forgotten lets an older response come back at the next start, which
/// purges still see.
const REMOVED_MAX: usize = 100_000;

/// Why the tier does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} is in use by {holder}: give every edge its own store.disk.path, or put {{node}} in it")]
    Locked { path: PathBuf, holder: String },
    #[error("{path}: cannot {action}: {error}")]
    Io { path: PathBuf, action: &'static str, error: io::Error },
}

/// No room in the queue of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk tier is behind with writing")]
pub struct Behind;

/// What another tier may know to be in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Family(u128),
    Part(u64),
}

/// Says whether something about to be evicted is in use elsewhere, so that it survives.
pub type IsKept = Box<dyn Fn(Kept) -> bool + Send + Sync>;

/// What is told at the start: what the purges were.
#[derive(Debug)]
pub struct Restored {
    /// What was stored before this position counts as purged.
    pub floor: u64,
    /// In their sequence.
    pub orders: Vec<Order>,
}

/// A part that stays readable.
#[derive(Debug, Clone)]
pub struct Pinned {
    id: u64,
    segment: Arc<Segment>,
    at: At,
}

/// The open tier. Closes when it is dropped.
pub struct Disk {
    shared: Arc<Shared>,
    journal: Mutex<Journal>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    seed: u64,
    next_put: AtomicU64,
    /// Held as long as the tier is open.
    lock: Mutex<Option<File>>,
}

/// What the threads share.
struct Shared {
    config: Config,
    segment_bytes: u64,
    index: Shards,
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    next_segment: AtomicU32,
    writes: Queue<Job>,
    reads: Queue<Asked>,
    /// Heads that are gone and whose tombstones are to be written.
    removed: Mutex<Vec<(u128, u64)>>,
    is_kept: IsKept,
    reading: Breaker,
    writing: Breaker,
    recovering: watch::Sender<bool>,
    /// The same, for the start, which waits without a runtime.
    recovered: Mutex<bool>,
    recovers: Condvar,
    closing: AtomicBool,
    counters: Counters,
}

struct Counters {
    queue: IntCounter,
    write: IntCounter,
    read: IntCounter,
    checksum: IntCounter,
    recover: IntCounter,
    evicted: IntCounter,
}

impl Shared {
    fn folder(&self) -> &Path {
        &self.config.path
    }

    fn segment(&self, id: u32) -> Option<Arc<Segment>> {
        self.segments.read().get(&id).cloned()
    }

    /// Bytes of all segments.
    fn bytes(&self) -> u64 {
        self.segments.read().values().map(|segment| segment.len()).sum()
    }

    /// A head is gone from the index; that is to be written.
    fn bury(&self, family: u128, variant: u64) {
        let mut removed = self.removed.lock();
        if removed.len() < REMOVED_MAX {
            removed.push((family, variant));
        }
    }
}

impl Disk {
    /// Opens the folder, making it if need be; `fresh` seeds the hashes of a new one.
    ///
    /// Returns when the purge journal has been read, and segments as far as that takes next to no time; the others are read behind.
    ///
    /// # Errors
    /// When another process has the folder, or it cannot be used.
    pub fn open(config: Config, fresh: u64, is_kept: IsKept, metrics: &Metrics) -> Result<(Self, Restored), OpenError> {
        let path = config.path.clone();
        let failed = |action| {
            let path = path.clone();
            move |error| OpenError::Io { path, action, error }
        };
        fs::create_dir_all(&path).map_err(failed("make this folder"))?;
        let lock = lock(&path)?;
        segment::remove_drafts(&path);
        let read = Journal::read(&path).map_err(failed("read the purge journal"))?;
        let mut ids = segment::list(&path).map_err(failed("list the segments"))?;
        let is_there = read.is_some();
        let read = match read {
            Some(read) => read,
            None => {
                // Orders that may have meant what is stored are unknown, or keys are hashed with another seed.
                if !ids.is_empty() {
                    tracing::warn!(path = %path.display(), "no whole purge journal: what is stored on disk is dropped");
                }
                for id in std::mem::take(&mut ids) {
                    segment::remove(&path, id).map_err(failed("remove a segment"))?;
                }
                orders::Read { seed: fresh, floor: 0, orders: Vec::new() }
            }
        };
        let errors = |operation| metrics.store_errors.with_label_values(&["disk", operation]);
        let journal =
            Journal::start(&path, &read, is_there, errors("journal")).map_err(failed("remove the purge journal"))?;
        let next_segment = ids.last().map_or(0, |last| last + 1);
        let mut segments = BTreeMap::new();
        for id in ids {
            match Segment::open(&path, id) {
                Ok(segment) => _ = segments.insert(id, Arc::new(segment)),
                Err(error) => {
                    errors("recover").inc();
                    tracing::warn!(%error, segment = id, "a segment of the disk tier cannot be opened");
                }
            }
        }
        metrics.store_capacity.with_label_values(&["disk"]).set(i64::try_from(config.size).unwrap_or(i64::MAX));
        let counters = Counters {
            queue: errors("queue"),
            write: errors("write"),
            read: errors("read"),
            checksum: errors("checksum"),
            recover: errors("recover"),
            evicted: metrics.cache_evictions.with_label_values(&["disk", "size"]),
        };
        let shared = Arc::new(Shared {
            segment_bytes: segment_bytes(config.size),
            config,
            index: Shards::recovering(),
            next_segment: AtomicU32::new(next_segment),
            segments: RwLock::new(segments),
            writes: Queue::new(WRITES_MAX, WRITE_BYTES_MAX),
            reads: Queue::new(READS_MAX, u64::MAX),
            removed: Mutex::new(Vec::new()),
            is_kept,
            reading: Breaker::new(READ_FAILURES_MAX, RETRY_AFTER),
            // A full file system does not get better by trying.
            writing: Breaker::new(1, RETRY_AFTER),
            recovering: watch::Sender::new(true),
            recovered: Mutex::new(false),
            recovers: Condvar::new(),
            closing: AtomicBool::new(false),
            counters,
        });
        let mut threads = Vec::new();
        let mut spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name).spawn(run).map_err(failed("start a thread"))?;
            threads.push(thread);
            Ok(())
        };
        let position = read.position();
        let writing = Arc::clone(&shared);
        spawn("disk-writer".into(), Box::new(move || writer::run(&writing, position)))?;
        for number in 0..READERS {
            let reading = Arc::clone(&shared);
            spawn(format!("disk-reader-{number}"), Box::new(move || reader::run(&reading)))?;
        }
        let disk = Self {
            shared,
            journal: Mutex::new(journal),
            threads: Mutex::new(threads),
            seed: read.seed,
            next_put: AtomicU64::new(0),
            lock: Mutex::new(Some(lock)),
        };
        let mut recovered = disk.shared.recovered.lock();
        if !*recovered {
            disk.shared.recovers.wait_for(&mut recovered, RECOVER_WITHIN);
        }
        drop(recovered);
        Ok((disk, Restored { floor: read.floor, orders: read.orders }))
    }

    /// What keys in this folder are hashed with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Bytes of the largest body kept here.
    pub fn object_max(&self) -> u64 {
        self.shared.config.object_max
    }

    /// Has a part written, at most 1 MiB; the head that lists it comes later.
    ///
    /// # Errors
    /// When the writer is behind: the body is not to be stored here then.
    pub fn put_part(&self, id: u64, bytes: Bytes) -> Result<(), Behind> {
        debug_assert!(bytes.len() <= BODY_BYTES_MAX as usize, "parts are cut before they come here");
        let weight = bytes.len() as u64;
        self.push(Job::Part { id, bytes }, weight)
    }

    /// Has a stored response written, with a small body in it or after all of its parts, whose checksums are filled in. What
    /// was stored of this variant is gone from now on, whatever comes. Of more than `variants_max` the oldest goes.
    ///
    /// # Errors
    /// When the writer is behind.
    pub fn put_head(&self, head: Head, inline: Bytes, variants_max: usize) -> Result<(), Behind> {
        let (family, variant) = (head.family, head.variant);
        let put = self.next_put.fetch_add(1, Ordering::Relaxed);
        let replaced = self.shared.index.family(family).write().supersede(family, variant, Some(put));
        let weight = (inline.len() + head.meta.len() + 1024) as u64;
        let pushed = self.push(Job::Head { head, inline, put, variants_max }, weight);
        if pushed.is_err() {
            self.shared.index.family(family).write().supersede(family, variant, None);
            if replaced {
                self.shared.bury(family, variant);
            }
        }
        pushed
    }

    fn push(&self, job: Job, weight: u64) -> Result<(), Behind> {
        if self.shared.writes.try_push(job, weight) {
            return Ok(());
        }
        self.shared.counters.queue.inc();
        Err(Behind)
    }

    /// Forgets a variant, also for later runs.
    pub fn remove(&self, family: u128, variant: u64) {
        if self.shared.index.family(family).write().supersede(family, variant, None) {
            self.shared.bury(family, variant);
            // A full queue will come to it by itself.
            let _ = self.shared.writes.try_push(Job::Bury, 0);
        }
    }

    /// Forgets a head that was read from here; a purge that touches it makes later runs do the same.
    pub fn forget(&self, family: u128, at: At) {
        self.shared.index.family(family).write().remove_head_at(family, at);
    }

    /// Where the variants of a key are, newest first. Memory alone is asked.
    pub fn heads(&self, family: u128) -> Vec<At> {
        self.shared.index.family(family).read().heads(family)
    }

    pub fn knows(&self, family: u128) -> bool {
        self.shared.index.family(family).read().knows(family)
    }

    /// Is this part here? Memory alone is asked.
    pub fn has_part(&self, id: u64) -> bool {
        self.shared.index.part(id).read().part(id).is_some()
    }

    /// Holds a part so that an eviction does not take it away while it is read; `None` when it is gone already, and while reading
    /// is left alone: an answer that counts on it could not be ended.
    pub fn pin(&self, id: u64) -> Option<Pinned> {
        if self.shared.reading.is_open(Instant::now()) {
            return None;
        }
        // While the lock is held, what the index names is not evicted.
        let segments = self.shared.segments.read();
        let at = self.shared.index.part(id).read().use_part(id)?;
        Some(Pinned { id, segment: Arc::clone(segments.get(&at.segment)?), at })
    }

    /// Reads a head, and the body where it is small.
    ///
    /// # Errors
    /// When it is not there any more, or cannot be read as it was written: then it is forgotten.
    pub async fn read_head(&self, family: u128, at: At) -> Result<HeadRead, ReadError> {
        self.shared.index.family(family).read().use_head(family, at);
        let (reply, answer) = oneshot::channel();
        self.ask(Asked::Head { family, at, reply })?;
        self.answer(answer).await
    }

    /// Reads a part that is held.
    ///
    /// # Errors
    /// When it cannot be read as it was written.
    pub async fn read_pinned(&self, pinned: &Pinned) -> Result<Bytes, ReadError> {
        let Pinned { id, segment, at } = pinned.clone();
        let (reply, answer) = oneshot::channel();
        self.ask(Asked::Part { id, segment, at, reply })?;
        self.answer(answer).await
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, ReadError>>) -> Result<T, ReadError> {
        match tokio::time::timeout(READ_WITHIN, answer).await {
            Ok(answer) => {
                if matches!(answer, Ok(Ok(_))) {
                    self.shared.reading.worked();
                }
                answer.unwrap_or(Err(ReadError::Closed))
            }
            Err(_) => {
                self.shared.counters.read.inc();
                self.shared.reading.failed(Instant::now());
                Err(ReadError::Busy)
            }
        }
    }

    fn ask(&self, asked: Asked) -> Result<(), ReadError> {
        if self.shared.reading.is_open(Instant::now()) {
            return Err(ReadError::Busy);
        }
        if self.shared.reads.try_push(asked, 0) {
            return Ok(());
        }
        self.shared.counters.queue.inc();
        Err(ReadError::Busy)
    }

    /// Has an order of purge written.
    pub fn journal(&self, order: Order) {
        self.journal.lock().append(order);
    }

    /// Answers when all orders until now are where the next process finds them: then they may be acknowledged.
    ///
    /// # Errors
    /// When they are not, or not for a long time.
    pub async fn journaled(&self) -> Result<(), NotDurable> {
        let written = self.journal.lock().written();
        match tokio::time::timeout(WRITE_WITHIN, written).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(NotDurable),
        }
    }

    /// Looks at every head, in the sequence in which they lie; those for which `is_wanted` is false are forgotten. Blocks for
    /// as long as that takes.
    pub fn walk(&self, mut is_wanted: impl FnMut(&Head, u64) -> bool) {
        let mut heads = Vec::new();
        self.shared.index.all().for_each(|index| heads.extend(index.read().all_heads()));
        heads.sort_unstable_by_key(|(_, at)| (at.segment, at.offset));
        for (family, at) in heads {
            // What went meanwhile is not there; what cannot be read is found out by who wants it.
            if let Ok(head) = reader::head_alone(&self.shared, family, at)
                && !is_wanted(&head, head.stored_bytes(at.body_len))
            {
                self.forget(family, at);
            }
        }
    }

    /// Are reads and writes tried?
    pub fn is_up(&self) -> bool {
        let now = Instant::now();
        !self.shared.reading.is_open(now) && !self.shared.writing.is_open(now)
    }

    /// Bytes and cache keys held.
    pub fn usage(&self) -> (u64, u64) {
        (self.shared.bytes(), self.shared.index.keys() as u64)
    }

    /// Waits until all that has been given is written, or was not to be; false where the writer is far behind or hangs.
    pub async fn written(&self) -> bool {
        tokio::time::timeout(WRITE_WITHIN, self.flushed()).await.unwrap_or(false)
    }

    async fn flushed(&self) -> bool {
        let (done, answer) = oneshot::channel();
        self.shared.writes.try_push(Job::Flush(done), 0) && answer.await.is_ok()
    }

    /// Waits until all that has been given is written, and all segments have been read: for who looks at files.
    pub async fn settled(&self) {
        self.flushed().await;
        let mut recovering = self.shared.recovering.subscribe();
        let _ = recovering.wait_for(|recovering| !recovering).await;
    }

    /// Writes what waits and lets the folder go. Blocks.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.writes.close();
        self.shared.reads.close();
        for thread in self.threads.lock().drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        self.journal.lock().close();
        self.lock.lock().take();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("path", &self.shared.config.path).finish_non_exhaustive()
    }
}

/// How large segments of a tier of this size are: at least eight, so that one is a small part of it.
fn segment_bytes(size: u64) -> u64 {
    let usual = (size / 8).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES);
    usual.max(size / SEGMENTS_MAX).min(SEGMENT_BYTES_MAX)
}

/// Takes the folder for this process.
fn lock(path: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::Io { path: path.to_path_buf(), action: "lock this folder", error };
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(path.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                id => format!("process {id}"),
            };
            return Err(OpenError::Locked { path: path.to_path_buf(), holder });
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    // For who finds it taken; the lock itself does not depend on it.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

#[cfg(test)]
mod tests;
