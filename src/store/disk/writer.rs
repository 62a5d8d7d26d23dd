//! The one thread that writes: appends records, begins segments, evicts the oldest.

use std::{io, sync::Arc, thread, time::Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Kept, Shared,
    index::At,
    record::{Head, Header, Kind, PARTS_MAX, PartRef},
    recover,
    segment::{self, Segment, Summary},
};

/// Bytes written between two looks at the free space of the file system.
const LOOK_EVERY: u64 = 8 * 1024 * 1024;
/// Of a segment that is evicted, the share that may survive.
const SURVIVORS_PERCENT: u64 = 50;
/// Records in the index; each is about 64 bytes of memory, so this is 2.5 GB of them. Over it the oldest segment goes.
const RECORDS_MAX: usize = 40_000_000;

/// What the workers want written.
pub enum Job {
    Part {
        id: u64,
        bytes: Bytes,
    },
    Head {
        head: Head,
        inline: Bytes,
        put: u64,
        variants_max: usize,
    },
    /// There are tombstones to be written.
    Bury,
    Flush(oneshot::Sender<()>),
}

struct Writer<'a> {
    shared: &'a Arc<Shared>,
    active: Option<Active>,
    unlooked: u64,
}

struct Active {
    segment: Arc<Segment>,
    summary: Summary,
}

/// Recovers, then writes until the queue is closed.
pub fn run(shared: &Arc<Shared>, position: u64) {
    let mut writer = Writer { shared, active: None, unlooked: u64::MAX };
    let recovering = writer.recover(position);
    while let Some(job) = shared.writes.pop() {
        writer.bury();
        writer.job(job);
    }
    writer.bury();
    writer.seal();
    if let Some(recovering) = recovering {
        // It ends early when the tier closes; a panic of it has been said.
        let _ = recovering.join();
    }
}

impl Writer<'_> {
    /// Takes up the newest segment, and has the others read behind.
    fn recover(&mut self, position: u64) -> Option<thread::JoinHandle<()>> {
        let mut segments: Vec<_> = self.shared.segments.read().values().cloned().collect();
        if let Some(newest) = segments.pop() {
            match recover::newest(self.shared, &newest, position) {
                Ok(summary) => self.active = Some(Active { segment: newest, summary }),
                Err(error) => {
                    self.shared.counters.recover.inc();
                    tracing::warn!(%error, segment = newest.id, "the newest segment of the disk tier cannot be read");
                }
            }
        }
        let shared = Arc::clone(self.shared);
        let others = move || recover::others(&shared, segments, position);
        match thread::Builder::new().name("disk-recover".into()).spawn(others) {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::warn!(%error, "what is stored on disk is not read again");
                None
            }
        }
    }

    fn job(&mut self, job: Job) {
        match job {
            Job::Part { id, bytes } => {
                if let Some(header) = Header::new(Kind::Part, id.into(), &[], &bytes)
                    && let Some(at) = self.write(&header, &[], &bytes)
                {
                    self.shared.index.part(id).write().insert_part(&header, at);
                }
            }
            Job::Head { head, inline, put, variants_max } => {
                let (family, variant) = (head.family, head.variant);
                let is_pending = self.shared.index.family(family).read().is_pending(family, variant, put);
                if is_pending && !self.head(head, &inline, put, variants_max) {
                    self.shared.index.family(family).write().supersede(family, variant, None);
                    // An older one must not come back at the next start.
                    self.shared.bury(family, variant);
                }
            }
            Job::Bury => {}
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
    }

    /// The commit. A part that is not there, since the writer was behind or it has been evicted, is a hole; false when nothing is
    /// left.
    fn head(&mut self, mut head: Head, inline: &Bytes, put: u64, variants_max: usize) -> bool {
        let listed = std::mem::take(&mut head.parts);
        let had_parts = !listed.is_empty();
        let there = listed.into_iter().filter_map(|part| {
            let (at, crc) = self.shared.index.part(part.id).read().part(part.id)?;
            (at.body_len == part.len).then_some(PartRef { crc, ..part })
        });
        head.parts = there.collect();
        if had_parts && head.parts.is_empty() || head.parts.len() > PARTS_MAX {
            return false;
        }
        let bytes = head.encode();
        let Some(header) = Header::new(Kind::Head, head.family, &bytes, inline) else { return false };
        let header = Header { position: head.position, variant: head.variant, ..header };
        let Some(at) = self.write(&header, &bytes, inline) else { return false };
        // Superseded meanwhile: who did it sees to the rest.
        self.shared.index.record(&header).write().commit(&header, put, at, variants_max);
        true
    }

    /// Writes the tombstones that wait.
    fn bury(&mut self) {
        if self.is_down() {
            return;
        }
        let removed = std::mem::take(&mut *self.shared.removed.lock());
        for (family, variant) in removed {
            if let Some(header) = Header::new(Kind::Tombstone, family, &[], &[])
                && self.write(&Header { variant, ..header }, &[], &[]).is_none()
            {
                self.shared.bury(family, variant);
            }
        }
    }

    fn is_down(&self) -> bool {
        self.shared.writing.is_open(Instant::now())
    }

    /// Writes a record and says where; `None` when that was not possible.
    fn write(&mut self, header: &Header, head: &[u8], body: &[u8]) -> Option<At> {
        if self.is_down() {
            return None;
        }
        match self.append(header, head, body) {
            Ok(at) => {
                self.shared.writing.worked();
                Some(at)
            }
            Err(error) => {
                tracing::error!(%error, "the disk tier cannot be written to, it is left alone for a while");
                self.shared.counters.write.inc();
                self.shared.writing.failed(Instant::now());
                self.seal();
                self.unlooked = u64::MAX;
                None
            }
        }
    }

    fn append(&mut self, header: &Header, head: &[u8], body: &[u8]) -> io::Result<At> {
        let len = header.record_len();
        self.unlooked = self.unlooked.saturating_add(len);
        let is_full = |active: &Active| active.segment.len() + len > self.shared.segment_bytes;
        if self.active.as_ref().is_none_or(is_full) {
            self.begin()?;
        } else if self.unlooked >= LOOK_EVERY {
            self.make_room()?;
        }
        match self.append_here(header, head, body) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.evict_oldest()? => {
                self.append_here(header, head, body)
            }
            result => result,
        }
    }

    fn append_here(&mut self, header: &Header, head: &[u8], body: &[u8]) -> io::Result<At> {
        let active = self.active.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let offset = active.segment.append(&[&header.encode(), head, body])?;
        active.summary.add(offset, header);
        Ok(At::new(active.segment.id, offset, header))
    }

    /// Ends the segment that is written: its summary goes beside it.
    fn seal(&mut self) {
        if let Some(Active { segment, summary }) = self.active.take()
            && let Err(error) = summary.write(self.shared.folder(), segment.id, segment.len())
        {
            // It is scanned then.
            tracing::debug!(%error, segment = segment.id, "no summary was written");
        }
    }

    /// Begins a segment, for which there is room when this returns.
    fn begin(&mut self) -> io::Result<()> {
        self.seal();
        let id = self.shared.next_segment.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let segment = match Segment::create(self.shared.folder(), id) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.evict_oldest()? => {
                Segment::create(self.shared.folder(), id)
            }
            result => result,
        };
        let segment = Arc::new(segment?);
        self.shared.segments.write().insert(id, Arc::clone(&segment));
        self.active = Some(Active { segment, summary: Summary::default() });
        self.make_room()
    }

    /// Evicts until the segment that is written may become full, with room for what survives the next eviction.
    fn make_room(&mut self) -> io::Result<()> {
        let active = self.active.as_ref().map_or(0, |active| active.segment.len());
        let ahead = self.shared.segment_bytes.saturating_sub(active);
        let survivors = self.shared.segment_bytes * SURVIVORS_PERCENT / 100;
        loop {
            let is_over = self.shared.bytes() + ahead + survivors > self.shared.config.size
                || self.shared.index.records() > RECORDS_MAX;
            let is_scarce = self.unlooked >= LOOK_EVERY && self.is_scarce()?;
            if !is_over && !is_scarce {
                self.unlooked = 0;
                return Ok(());
            }
            if !self.evict_oldest()? {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    "less of the file system is free than min_free",
                ));
            }
        }
    }

    /// Is less of the file system free than is to stay free?
    fn is_scarce(&self) -> io::Result<bool> {
        let space = rustix::fs::statvfs(self.shared.folder())?;
        Ok((space.f_bavail as f64) < space.f_blocks as f64 * self.shared.config.min_free / 100.0)
    }

    /// Drops the oldest segment; what was used since it was written is appended anew. False when there is none but the one that
    /// is written.
    fn evict_oldest(&mut self) -> io::Result<bool> {
        let oldest = self.shared.segments.read().values().next().cloned();
        let active = self.active.as_ref().map(|active| active.segment.id);
        let Some(oldest) = oldest.filter(|oldest| Some(oldest.id) != active) else { return Ok(false) };
        let mut left = self.shared.segment_bytes * SURVIVORS_PERCENT / 100;
        // What cannot be read any more cannot survive either.
        for (offset, header) in oldest.records(self.shared.folder()).unwrap_or_default() {
            let at = At::new(oldest.id, offset, &header);
            let Some(used) = self.shared.index.record(&header).read().take_use(&header, at) else { continue };
            let survives = (used || self.is_kept(&header)) && header.record_len() <= left;
            // Where the file system is full nothing survives, but space is made.
            if survives && self.keep(&oldest, offset, &header).unwrap_or(false) {
                left -= header.record_len();
            } else if self.shared.index.record(&header).write().remove_at(&header, at) {
                self.shared.counters.evicted.inc();
            }
        }
        self.shared.segments.write().remove(&oldest.id);
        segment::remove(self.shared.folder(), oldest.id)?;
        Ok(true)
    }

    fn is_kept(&self, header: &Header) -> bool {
        (self.shared.is_kept)(match header.kind {
            Kind::Part => Kept::Part(header.id as u64),
            _ => Kept::Family(header.id),
        })
    }

    /// Appends a record of an old segment to the one that is written. False when it is not what was written once, or finds no
    /// room in this segment.
    fn keep(&mut self, from: &Segment, offset: u32, header: &Header) -> io::Result<bool> {
        let Some(active) = &mut self.active else { return Ok(false) };
        if active.segment.len() + header.record_len() > self.shared.segment_bytes {
            return Ok(false);
        }
        let Ok(record) = from.read(offset, header.record_len()) else { return Ok(false) };
        if Header::decode(&record) != Some(*header) || header.verify(&record).is_none() {
            return Ok(false);
        }
        let to = active.segment.append(&[&record])?;
        active.summary.add(to, header);
        let at = At::new(active.segment.id, to, header);
        let mut index = self.shared.index.record(header).write();
        // Superseded in this very moment: then the copy is for nobody, and must not come back at the next start.
        if index.take_use(header, At::new(from.id, offset, header)).is_some() {
            index.move_to(header, at);
        } else if header.kind == Kind::Head {
            drop(index);
            self.shared.bury(header.id, header.variant);
        }
        Ok(true)
    }
}
