//! The threads that read: every byte is verified before it is given out.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Shared,
    index::At,
    record::{HEADER_BYTES, Head, Header, Kind, PartRef, checksum},
    segment::Segment,
};

/// Why something is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("it has been evicted")]
    Gone,
    #[error("it cannot be read")]
    Io,
    #[error("it is not what was written")]
    Corrupt,
    #[error("too many reads wait")]
    Busy,
    #[error("the disk tier is closed")]
    Closed,
}

/// A head as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadRead {
    pub head: Head,
    /// The body, where it lies in the record; else it is in those of the parts that are still there.
    pub inline: Bytes,
}

/// What a worker waits for.
pub enum Asked {
    Head { family: u128, at: At, reply: oneshot::Sender<Result<HeadRead, ReadError>> },
    Part { id: u64, segment: Arc<Segment>, at: At, reply: oneshot::Sender<Result<Bytes, ReadError>> },
}

/// Reads until the queue is closed.
pub fn run(shared: &Shared) {
    while let Some(asked) = shared.reads.pop() {
        // Who asked may be gone.
        match asked {
            Asked::Head { reply, .. } if reply.is_closed() => {}
            Asked::Part { reply, .. } if reply.is_closed() => {}
            Asked::Head { family, at, reply } => {
                let _ = reply.send(head(shared, family, at));
            }
            Asked::Part { id, segment, at, reply } => {
                let read = read_part(&segment, id, at);
                if let Err(error) = read {
                    count(shared, error);
                    shared.index.part(id).write().remove_part_at(id, at);
                }
                let _ = reply.send(read);
            }
        }
    }
}

fn head(shared: &Shared, family: u128, at: At) -> Result<HeadRead, ReadError> {
    let read = read_head(shared, family, at);
    if let Err(error) = read {
        count(shared, error);
        shared.index.family(family).write().remove_head_at(family, at);
    }
    read
}

/// What could not be read is forgotten by the caller: an eviction leaves nothing else behind either.
fn count(shared: &Shared, error: ReadError) {
    match error {
        ReadError::Corrupt => shared.counters.checksum.inc(),
        ReadError::Io => {
            shared.counters.read.inc();
            shared.reading.failed(Instant::now());
        }
        ReadError::Gone | ReadError::Busy | ReadError::Closed => {}
    }
}

fn read(segment: &Segment, at: At, len: u64) -> Result<Bytes, ReadError> {
    segment.read(at.offset, len).map(Bytes::from).map_err(|error| {
        tracing::warn!(%error, segment = at.segment, "the disk tier cannot be read");
        ReadError::Io
    })
}

fn read_head(shared: &Shared, family: u128, at: At) -> Result<HeadRead, ReadError> {
    let segment = shared.segment(at.segment).ok_or(ReadError::Gone)?;
    let record = read(&segment, at, at.record_len())?;
    let header = Header::decode(&record).filter(|header| header.kind == Kind::Head && header.id == family);
    let header = header.ok_or(ReadError::Corrupt)?;
    let (head, inline) = header.verify(&record).ok_or(ReadError::Corrupt)?;
    let mut head = Head::decode(&header, &record.slice_ref(head)).ok_or(ReadError::Corrupt)?;
    // A part that was evicted, or that is not the one that was listed, is a hole.
    let is_here = |part: &PartRef| {
        let there = shared.index.part(part.id).read().part(part.id);
        there.is_some_and(|(at, crc)| (at.body_len, crc) == (part.len, part.crc))
    };
    if !head.parts.iter().all(is_here) {
        head.parts = head.parts.iter().copied().filter(is_here).collect();
    }
    Ok(HeadRead { head, inline: record.slice_ref(inline) })
}

/// A head without the body behind it.
pub fn head_alone(shared: &Shared, family: u128, at: At) -> Result<Head, ReadError> {
    let segment = shared.segment(at.segment).ok_or(ReadError::Gone)?;
    let record = read(&segment, at, (HEADER_BYTES as u64) + u64::from(at.head_len))?;
    let header = Header::decode(&record).filter(|header| header.kind == Kind::Head && header.id == family);
    let header = header.ok_or(ReadError::Corrupt)?;
    let head = record.slice(HEADER_BYTES..);
    if checksum(&head) != header.head_crc {
        return Err(ReadError::Corrupt);
    }
    Head::decode(&header, &head).ok_or(ReadError::Corrupt)
}

fn read_part(segment: &Segment, id: u64, at: At) -> Result<Bytes, ReadError> {
    let record = read(segment, at, at.record_len())?;
    let header = Header::decode(&record).filter(|header| (header.kind, header.id) == (Kind::Part, id.into()));
    let header = header.ok_or(ReadError::Corrupt)?;
    let (_, bytes) = header.verify(&record).ok_or(ReadError::Corrupt)?;
    Ok(record.slice_ref(bytes))
}
