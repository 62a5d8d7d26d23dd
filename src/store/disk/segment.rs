//! Segment files: records one behind the other, and beside each full one a summary of their headers.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::BufMut;

use super::record::{Cursor, HEADER_BYTES, Header, checksum};

const SUMMARY_MAGIC: [u8; 4] = *b"EHs1";
/// Before the entries: magic, length of the segment.
const SUMMARY_HEAD: usize = 12;
const SUMMARY_ENTRY: usize = 4 + HEADER_BYTES;
/// How the names of summaries end that are not whole yet.
const DRAFT: &str = "new";
/// Read at once while looking for headers: some small records, or next to nothing of a large one.
const SCAN_BYTES: usize = 4 * 1024;

/// An open segment. The file outlives its name: who reads an evicted one reads on.
#[derive(Debug)]
pub struct Segment {
    pub id: u32,
    file: File,
    /// Bytes written whole.
    len: AtomicU64,
}

impl Segment {
    /// Begins a new one.
    pub fn create(folder: &Path, id: u32) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path(folder, id))?;
        Ok(Self { id, file, len: AtomicU64::new(0) })
    }

    /// One of an earlier run, all of its bytes taken for whole until it has been scanned.
    pub fn open(folder: &Path, id: u32) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path(folder, id))?;
        let len = AtomicU64::new(file.metadata()?.len());
        Ok(Self { id, file, len })
    }

    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Appends a record in pieces; where it begins. After an error the file is as long as before, or the error says that it
    /// is not to be appended to again.
    pub fn append(&self, pieces: &[&[u8]]) -> io::Result<u32> {
        let begin = self.len();
        let offset = u32::try_from(begin).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut at = begin;
        for piece in pieces {
            if let Err(error) = self.file.write_all_at(piece, at) {
                // What is left of it would be cut off at the next start; it may as well go now.
                let _ = self.file.set_len(begin);
                return Err(error);
            }
            at += piece.len() as u64;
        }
        self.len.store(at, Ordering::Release);
        Ok(offset)
    }

    /// Cuts a torn end off.
    pub fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    pub fn read(&self, offset: u32, len: u64) -> io::Result<Vec<u8>> {
        if u64::from(offset) + len > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?];
        self.file.read_exact_at(&mut bytes, u64::from(offset))?;
        Ok(bytes)
    }

    /// All headers up to the first place that is none, and how far that is.
    pub fn scan(&self) -> io::Result<Scanned> {
        let end = self.len();
        let (mut window, mut window_at) = (Vec::new(), 0_u64);
        let mut scanned = Scanned { records: Vec::new(), len: 0 };
        while scanned.len + HEADER_BYTES as u64 <= end {
            let at = scanned.len;
            let inside = at >= window_at && at + HEADER_BYTES as u64 <= window_at + window.len() as u64;
            if !inside {
                window.resize(SCAN_BYTES.min(usize::try_from(end - at).unwrap_or(SCAN_BYTES)), 0);
                self.file.read_exact_at(&mut window, at)?;
                window_at = at;
            }
            let Some(header) = Header::decode(&window[(at - window_at) as usize..]) else { break };
            let Ok(offset) = u32::try_from(at) else { break };
            if at + header.record_len() > end {
                break;
            }
            scanned.records.push((offset, header));
            scanned.len = at + header.record_len();
        }
        Ok(scanned)
    }

    /// All headers, from the summary if there is a good one, else by looking.
    pub fn records(&self, folder: &Path) -> io::Result<Vec<(u32, Header)>> {
        let summary =
            fs::read(summary_path(folder, self.id)).ok().and_then(|bytes| Summary::decode(&bytes, self.len()));
        match summary {
            Some(records) => Ok(records),
            None => self.scan().map(|scanned| scanned.records),
        }
    }
}

/// What a segment was found to hold.
pub struct Scanned {
    pub records: Vec<(u32, Header)>,
    /// Bytes up to the end of the last whole record.
    pub len: u64,
}

/// The headers of a segment while it is written.
#[derive(Debug, Default)]
pub struct Summary(Vec<u8>);

impl Summary {
    pub fn of(records: &[(u32, Header)]) -> Self {
        let mut summary = Self::default();
        records.iter().for_each(|(offset, header)| summary.add(*offset, header));
        summary
    }

    pub fn add(&mut self, offset: u32, header: &Header) {
        self.0.put_u32_le(offset);
        self.0.put_slice(&header.encode());
    }

    /// Writes it beside a segment of `len` bytes, whole or not at all.
    pub fn write(&self, folder: &Path, id: u32, len: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(SUMMARY_HEAD + self.0.len() + 4);
        bytes.put_slice(&SUMMARY_MAGIC);
        bytes.put_u64_le(len);
        bytes.put_slice(&self.0);
        bytes.put_u32_le(checksum(&bytes));
        let draft = folder.join(format!("{id:08x}.{DRAFT}"));
        let written = File::create(&draft)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&draft, summary_path(folder, id)));
        if written.is_err() {
            // Half of it would only take room.
            let _ = fs::remove_file(draft);
        }
        written
    }

    /// The headers, if this is the summary of a segment of `len` bytes.
    fn decode(bytes: &[u8], len: u64) -> Option<Vec<(u32, Header)>> {
        let (rest, crc) = bytes.split_last_chunk()?;
        if u32::from_le_bytes(*crc) != checksum(rest) {
            return None;
        }
        let mut from = Cursor(rest);
        if from.array()? != SUMMARY_MAGIC || from.u64()? != len || from.0.len() % SUMMARY_ENTRY != 0 {
            return None;
        }
        from.0
            .chunks_exact(SUMMARY_ENTRY)
            .map(|entry| {
                let (offset, header) = entry.split_first_chunk()?;
                let (offset, header) = (u32::from_le_bytes(*offset), Header::decode(header)?);
                (u64::from(offset) + header.record_len() <= len).then_some((offset, header))
            })
            .collect()
    }
}

fn path(folder: &Path, id: u32) -> PathBuf {
    folder.join(format!("{id:08x}.seg"))
}

fn summary_path(folder: &Path, id: u32) -> PathBuf {
    folder.join(format!("{id:08x}.sum"))
}

/// Removes a segment and its summary.
pub fn remove(folder: &Path, id: u32) -> io::Result<()> {
    // A segment without summary is read by looking.
    let _ = fs::remove_file(summary_path(folder, id));
    fs::remove_file(path(folder, id))
}

/// The summary no longer describes what the segment is going to be.
pub fn forget_summary(folder: &Path, id: u32) -> io::Result<()> {
    match fs::remove_file(summary_path(folder, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what a process left that was killed while it wrote a file that was to become whole at once.
pub fn remove_drafts(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == DRAFT) {
            // It only takes room.
            let _ = fs::remove_file(path);
        }
    }
}

/// The segments in a folder, oldest first.
pub fn list(folder: &Path) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let id =
            name.to_str().and_then(|name| name.strip_suffix(".seg")).and_then(|id| u32::from_str_radix(id, 16).ok());
        ids.extend(id);
    }
    ids.sort_unstable();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::{super::record::Kind, *};

    fn record(id: u128, body: &[u8]) -> (Header, Vec<u8>) {
        let header = Header::new(Kind::Part, id, b"", body).unwrap();
        let bytes = [&header.encode()[..], body].concat();
        (header, bytes)
    }

    #[test]
    fn a_summary_says_what_looking_says_and_a_bad_one_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path(), 3).unwrap();
        let mut summary = Summary::default();
        for id in 0..100_u128 {
            // Now and then larger than what is read at once.
            let (header, bytes) = record(id, &vec![7; if id % 10 == 0 { 2 * SCAN_BYTES } else { 100 }]);
            summary.add(segment.append(&[&bytes]).unwrap(), &header);
        }
        let looked = segment.scan().unwrap();
        assert_eq!((looked.records.len(), looked.len), (100, segment.len()));
        summary.write(folder.path(), 3, segment.len()).unwrap();
        let bytes = fs::read(summary_path(folder.path(), 3)).unwrap();
        assert_eq!(Summary::decode(&bytes, segment.len()).unwrap(), looked.records);
        assert!(Summary::decode(&bytes, segment.len() + 1).is_none(), "it is of another state of the segment");
        for at in [0, 5, 20, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Summary::decode(&bad, segment.len()).is_none(), "{at}");
        }
        assert_eq!(list(folder.path()).unwrap(), [3]);
        remove(folder.path(), 3).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_scan_ends_where_the_bytes_are_torn() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path(), 0).unwrap();
        let whole = segment.append(&[&record(1, b"one").1]).map(|_| segment.len()).unwrap();
        segment.append(&[&record(2, b"two").1]).unwrap();
        for len in whole..segment.len() {
            segment.truncate(len).unwrap();
            let scanned = Segment::open(folder.path(), 0).unwrap().scan().unwrap();
            assert_eq!((scanned.records.len(), scanned.len), (1, whole), "{len}");
            segment.append(&[&record(2, b"two").1[(len - whole) as usize..]]).unwrap();
        }
    }
}
