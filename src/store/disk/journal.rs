//! The purge journal: every order that the stored responses of this folder have to be held against, durable before it is
//! acknowledged.
//!
//! Its first record names the seed by which keys are hashed and the floor: what was stored before that position counts as
//! purged, because orders that may have meant it were forgotten. Without a whole journal nothing in the folder may be served, so
//! when one cannot be written it is removed, and begun anew with everything before it below the floor.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use prometheus::IntCounter;
use tokio::sync::oneshot;

use super::{
    orders::{Order, Read, decode, encode_first, encode_order},
    queue::Queue,
};

/// Bytes of the journal before the older half of it is forgotten: some hundred thousand orders, as many as are remembered in
/// memory. Read in well under a second at the start.
pub const JOURNAL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Orders that wait to be written, some seconds of very many.
const WAITING_MAX: usize = 16 * 1_024;
/// The order acts, but may be forgotten when this process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the purge could not be written to the disk tier's journal")]
pub struct NotDurable;

enum Waiting {
    Order(Order),
    /// Wants to know when all before it is durable.
    Asked(oneshot::Sender<Result<(), NotDurable>>),
}

/// Writes orders, in a thread of its own.
pub struct Journal {
    queue: Arc<Queue<Waiting>>,
    /// The position of an order that found no room in the queue; 0 = none.
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Reads the journal of a folder; `None` when there is none that can be trusted.
    pub fn read(folder: &Path) -> io::Result<Option<Read>> {
        let bytes = match fs::read(path(folder)) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(decode(&bytes))
    }

    /// Goes on with the journal that was read, or begins one for what `read` says. Where that cannot be written it is tried
    /// again with each order.
    ///
    /// # Errors
    /// When there is a journal that a later process would believe, and it can neither be written nor removed.
    pub fn start(folder: &Path, read: &Read, is_there: bool, errors: IntCounter) -> io::Result<Self> {
        let writer = Writer::begin(folder, read, is_there, errors)?;
        let queue = Arc::new(Queue::new(WAITING_MAX, u64::MAX));
        let lost = Arc::new(AtomicU64::new(0));
        let thread = thread::Builder::new().name("disk-journal".into()).spawn({
            let (queue, lost) = (Arc::clone(&queue), Arc::clone(&lost));
            move || writer.run(&queue, &lost)
        })?;
        Ok(Self { queue, lost, thread: Some(thread) })
    }

    /// Has an order written. One for which there is no room counts as one for everything, to later processes.
    pub fn append(&self, order: Order) {
        let position = order.position;
        if !self.queue.try_push(Waiting::Order(order), 0) {
            self.lost.fetch_max(position, Ordering::AcqRel);
        }
    }

    /// Answers when all orders until now are durable.
    pub fn written(&self) -> oneshot::Receiver<Result<(), NotDurable>> {
        let (done, answer) = oneshot::channel();
        if !self.queue.try_push(Waiting::Asked(done), 0) {
            let (refused, refusal) = oneshot::channel();
            let _ = refused.send(Err(NotDurable));
            return refusal;
        }
        answer
    }

    /// Writes what waits, then ends.
    pub fn close(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // It panics only with us.
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    folder: PathBuf,
    seed: u64,
    /// `None` after a failure: what is in the folder must not be trusted before a new journal is there.
    file: Option<File>,
    len: u64,
    position: u64,
    errors: IntCounter,
}

impl Writer {
    fn begin(folder: &Path, read: &Read, is_there: bool, errors: IntCounter) -> io::Result<Self> {
        let mut writer = Self {
            folder: folder.to_path_buf(),
            seed: read.seed,
            file: None,
            len: 0,
            position: read.position(),
            errors,
        };
        if is_there && read.len() <= JOURNAL_BYTES_MAX && writer.go_on(read.len()).is_ok() {
            return Ok(writer);
        }
        if let Err(error) = writer.rewrite(read.floor, &read.orders) {
            writer.failed(&error)?;
        }
        Ok(writer)
    }

    /// Appends to the journal of an earlier process, whose torn end is cut off: that takes no room of a full file system.
    fn go_on(&mut self, len: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(path(&self.folder))?;
        file.set_len(len)?;
        file.seek(io::SeekFrom::End(0))?;
        (self.file, self.len) = (Some(file), len);
        Ok(())
    }

    fn run(mut self, queue: &Queue<Waiting>, lost: &AtomicU64) {
        while let Some(first) = queue.pop() {
            // Whatever waits is made durable together.
            let (mut orders, mut asked) = (Vec::new(), Vec::new());
            for waiting in std::iter::once(first).chain(queue.take_all()) {
                match waiting {
                    Waiting::Order(order) => orders.push(order),
                    Waiting::Asked(done) => asked.push(done),
                }
            }
            let lost = lost.swap(0, Ordering::AcqRel);
            let mut held = Ok(());
            if lost > 0 {
                self.position = self.position.max(lost);
                held = self.failed(&io::Error::other("more purges came than could be written"));
            }
            let written = self.append(orders.iter());
            let result = match (held, written) {
                // Whatever was there before is gone with the journal that is new.
                (_, Ok(())) => Ok(()),
                (_, Err(error)) => self.failed(&error).map_err(|_| NotDurable),
            };
            for done in asked {
                // Who asked may be gone.
                let _ = done.send(result);
            }
        }
    }

    fn append<'a>(&mut self, orders: impl Iterator<Item = &'a Order>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for order in orders {
            self.position = self.position.max(order.position);
            bytes.extend_from_slice(&encode_order(order).ok_or(io::ErrorKind::InvalidInput)?);
        }
        let Some(file) = &mut self.file else {
            // Everything until now falls below the floor, these orders with it.
            return self.rewrite(self.position, &[]);
        };
        if bytes.is_empty() {
            return Ok(());
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        self.len += bytes.len() as u64;
        if self.len > JOURNAL_BYTES_MAX {
            let read = Journal::read(&self.folder)?.ok_or(io::ErrorKind::InvalidData)?;
            self.rewrite(read.floor, &read.orders)?;
        }
        Ok(())
    }

    /// Writes a new journal in the place of the old one: of the orders the newest that fit into half of it.
    fn rewrite(&mut self, floor: u64, orders: &[Order]) -> io::Result<()> {
        let total: u64 = orders.iter().map(Order::len).sum();
        let (mut first, mut floor) = (0, floor);
        let mut left = total;
        while total > JOURNAL_BYTES_MAX && left > JOURNAL_BYTES_MAX / 2 {
            left -= orders[first].len();
            floor = floor.max(orders[first].position);
            first += 1;
        }
        let mut bytes = encode_first(self.seed, floor).ok_or(io::ErrorKind::InvalidInput)?;
        for order in &orders[first..] {
            bytes.extend_from_slice(&encode_order(order).ok_or(io::ErrorKind::InvalidInput)?);
        }
        let draft = self.folder.join("purges.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&draft)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(&draft, path(&self.folder))?;
        File::open(&self.folder)?.sync_all()?;
        self.len = bytes.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    /// An order that acted here is not in the journal: nothing that is stored now may be served by a later process. Once the journal
    /// is gone that is certain, which is as good as the order in it.
    fn failed(&mut self, error: &io::Error) -> io::Result<()> {
        tracing::error!(%error, "the purge journal cannot be written; to a later process everything on disk is purged");
        self.errors.inc();
        self.file = None;
        let gone = match fs::remove_file(path(&self.folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(&self.folder).and_then(|folder| folder.sync_all()),
        };
        if let Err(error) = &gone {
            tracing::error!(%error, folder = %self.folder.display(), "empty this folder before the next start");
        }
        gone
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("purges")
}

#[cfg(test)]
mod tests {
    use super::{super::record::HEADER_BYTES, *};

    fn order(position: u64, text: &str) -> Order {
        Order { position, bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }

    fn errors() -> IntCounter {
        IntCounter::new("errors", "errors").unwrap()
    }

    fn empty(seed: u64) -> Read {
        Read { seed, floor: 0, orders: Vec::new() }
    }

    #[test]
    fn what_was_acknowledged_is_read_again_and_a_torn_end_was_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(folder.path(), &empty(7), false, errors()).unwrap();
        for position in 1..=3 {
            journal.append(order(position, "some url"));
        }
        journal.written().blocking_recv().unwrap().unwrap();
        journal.close();
        let bytes = fs::read(path(folder.path())).unwrap();
        let whole = Journal::read(folder.path()).unwrap().unwrap();
        assert_eq!((whole.seed, whole.orders.len(), whole.position()), (7, 3, 3));
        let last = bytes.len() - (HEADER_BYTES + "some url".len());
        for cut in last..bytes.len() {
            let read = decode(&Bytes::copy_from_slice(&bytes[..cut])).unwrap();
            assert_eq!((read.orders.len(), read.position()), (2, 2), "{cut}");
        }
        assert_eq!(decode(&Bytes::copy_from_slice(&bytes[..HEADER_BYTES - 1])), None);
    }

    #[test]
    fn a_changed_byte_anywhere_makes_it_untrustworthy() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(folder.path(), &empty(7), false, errors()).unwrap();
        for position in 1..=3 {
            journal.append(order(position, "u"));
        }
        journal.close();
        let bytes = fs::read(path(folder.path())).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert_eq!(decode(&Bytes::from(bad)), None, "{at}");
        }
    }

    #[test]
    fn a_journal_that_grew_too_large_forgets_its_older_half_below_the_floor() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::begin(folder.path(), &empty(7), false, errors()).unwrap();
        let text = "x".repeat(64 * 1024);
        let count = JOURNAL_BYTES_MAX / text.len() as u64 + 1;
        for position in 1..=count {
            writer.append([order(position, &text)].iter()).unwrap();
        }
        let read = Journal::read(folder.path()).unwrap().unwrap();
        assert_eq!(read.position(), count);
        assert!(read.floor > 0 && read.floor + read.orders.len() as u64 == count, "{} of {count}", read.floor);
        assert!(fs::metadata(path(folder.path())).unwrap().len() <= JOURNAL_BYTES_MAX);
    }

    #[test]
    fn an_order_that_found_no_room_is_one_for_everything() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(folder.path(), &empty(7), false, errors()).unwrap();
        journal.append(order(1, "a"));
        journal.lost.store(2, Ordering::Release);
        journal.written().blocking_recv().unwrap().unwrap();
        journal.close();
        assert_eq!(Journal::read(folder.path()).unwrap(), Some(Read { seed: 7, floor: 2, orders: Vec::new() }));
    }

    #[test]
    fn after_a_failure_everything_before_it_falls_below_the_floor() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::begin(folder.path(), &empty(7), false, errors()).unwrap();
        writer.append([order(1, "a")].iter()).unwrap();
        writer.failed(&io::Error::other("a test")).unwrap();
        assert_eq!(Journal::read(folder.path()).unwrap(), None, "a process that starts now trusts nothing");
        writer.append([order(3, "c")].iter()).unwrap();
        assert_eq!(Journal::read(folder.path()).unwrap(), Some(Read { seed: 7, floor: 3, orders: Vec::new() }));
    }
    #[test]
    fn a_full_file_system_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(folder.path(), &empty(7), false, errors()).unwrap();
        journal.append(order(1, "a"));
        journal.close();
        let read = Journal::read(folder.path()).unwrap().unwrap();
        // Whatever is written anew finds no room.
        std::os::unix::fs::symlink("/dev/full", folder.path().join("purges.new")).unwrap();
        let journal = Journal::start(folder.path(), &read, true, errors()).unwrap();
        journal.append(order(2, "b"));
        journal.written().blocking_recv().unwrap().unwrap();
        drop(journal);
        let read = Journal::read(folder.path()).unwrap().unwrap();
        assert_eq!(read.position(), 2, "what is there is appended to");
        fs::remove_file(path(folder.path())).unwrap();
        let failures = errors();
        let journal = Journal::start(folder.path(), &empty(7), false, failures.clone()).unwrap();
        journal.append(order(3, "c"));
        journal.written().blocking_recv().unwrap().expect("a later process trusts nothing, which is as good");
        assert_eq!((Journal::read(folder.path()).unwrap(), failures.get()), (None, 2));
        fs::remove_file(folder.path().join("purges.new")).unwrap();
        journal.append(order(4, "d"));
        journal.written().blocking_recv().unwrap().unwrap();
        assert_eq!(Journal::read(folder.path()).unwrap(), Some(Read { seed: 7, floor: 4, orders: Vec::new() }));
    }
}
