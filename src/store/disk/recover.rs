//! Reads the segments of earlier runs into the index, from the newest to the oldest, while the tier already serves.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    Shared,
    index::At,
    record::Header,
    segment::{self, Segment, Summary},
};

/// Records put into the index between two looks whether their segment is still there.
const BATCH: usize = 1_024;

/// Reads the newest segment by looking, cuts a torn end off, and gives its headers, so that it can be appended to.
pub fn newest(shared: &Shared, segment: &Segment, position: u64) -> io::Result<Summary> {
    let scanned = segment.scan()?;
    if scanned.len < segment.len() {
        tracing::info!(segment = segment.id, from = segment.len(), to = scanned.len, "a torn end is cut off");
        segment.truncate(scanned.len)?;
    }
    segment::forget_summary(shared.folder(), segment.id)?;
    index(shared, segment.id, &scanned.records, position);
    Ok(Summary::of(&scanned.records))
}

/// Reads the others. `position` is the last purge that the journal knows.
pub fn others(shared: &Arc<Shared>, mut segments: Vec<Arc<Segment>>, position: u64) {
    let (began, count) = (Instant::now(), segments.len());
    while let Some(segment) = segments.pop() {
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
        match segment.records(shared.folder()) {
            Ok(records) => index(shared, segment.id, &records, position),
            Err(error) => {
                shared.counters.recover.inc();
                tracing::warn!(%error, segment = segment.id, "a segment of the disk tier cannot be read");
            }
        }
    }
    shared.index.all().for_each(|index| index.write().recovered());
    shared.recovering.send_replace(false);
    *shared.recovered.lock() = true;
    shared.recovers.notify_all();
    let (records, took) = (shared.index.records(), began.elapsed());
    tracing::info!(segments = count, records, ?took, "what is stored on disk is known again");
}

/// The later ones first. What was stored under a purge that is not in the journal is left out: that position will be taken by
/// another order, which would not touch it.
fn index(shared: &Shared, id: u32, records: &[(u32, Header)], position: u64) {
    for batch in records.rchunks(BATCH) {
        // Evicted meanwhile. What was read of it just before is found out by who wants it.
        if shared.segment(id).is_none() {
            return;
        }
        for (offset, header) in batch.iter().rev().filter(|(_, header)| header.position <= position) {
            shared.index.record(header).write().recover(header, At::new(id, *offset, header));
        }
    }
}
