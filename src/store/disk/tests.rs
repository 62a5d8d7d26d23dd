//! The tier as a whole: what it gives back after anything that may happen to a folder.

use std::collections::HashMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{record::checksum, *};

static NEXT_PART: AtomicU64 = AtomicU64::new(1_000);
const NOBODY: fn(Kept) -> bool = |_| false;

/// Runs what waits.
fn wait<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(what)
}

fn config(path: &Path) -> Config {
    Config { path: path.to_path_buf(), size: SIZE_MIN, object_max: SIZE_MIN, min_free: 0.0 }
}

fn open_with(config: Config, is_kept: impl Fn(Kept) -> bool + Send + Sync + 'static) -> (Disk, Restored, Metrics) {
    let metrics = Metrics::new();
    let (disk, restored) = Disk::open(config, 42, Box::new(is_kept), &metrics).unwrap();
    wait(disk.settled());
    (disk, restored, metrics)
}

fn open(path: &Path) -> Disk {
    open_with(config(path), NOBODY).0
}

/// The folder as a process finds it after this one was killed at this moment.
fn killed(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// Bytes that only this version of this body has.
fn text(family: u128, version: u32, len: usize) -> Bytes {
    let line = format!("{family}.{version} ");
    line.bytes().cycle().take(len).collect()
}

/// A response with a body in its record, or in parts of `part` bytes.
fn put(disk: &Disk, family: u128, version: u32, len: usize, part: Option<usize>) -> Result<(), Behind> {
    put_at(disk, family, version, len, part, 0)
}

fn put_at(
    disk: &Disk,
    family: u128,
    version: u32,
    len: usize,
    part: Option<usize>,
    position: u64,
) -> Result<(), Behind> {
    let whole = text(family, version, len);
    let mut parts = Vec::new();
    for (number, bytes) in part.map(|part| whole.chunks(part)).into_iter().flatten().enumerate() {
        let id = NEXT_PART.fetch_add(1, Ordering::Relaxed);
        disk.put_part(id, Bytes::copy_from_slice(bytes))?;
        let offset = (number * part.unwrap_or_default()) as u64;
        parts.push(PartRef { id, offset, len: bytes.len() as u32, crc: 0 });
    }
    let head = Head {
        family,
        variant: 0,
        position,
        url: family,
        surrogate_keys: Box::new([family + 1]),
        length: Some(len as u64),
        parts: parts.into(),
        meta: Bytes::copy_from_slice(&version.to_le_bytes()),
    };
    disk.put_head(head, if part.is_some() { Bytes::new() } else { whole }, 64)
}

fn flush(disk: &Disk) {
    wait(disk.settled());
}

fn read_part(disk: &Disk, id: u64) -> Result<Bytes, ReadError> {
    let pinned = disk.pin(id).ok_or(ReadError::Gone)?;
    wait(disk.read_pinned(&pinned))
}

/// The version stored of a family, its body having been read whole.
fn version(disk: &Disk, family: u128) -> Option<u32> {
    let at = *disk.heads(family).first()?;
    let read = wait(disk.read_head(family, at)).ok()?;
    let version = u32::from_le_bytes(read.head.meta[..].try_into().unwrap());
    let mut body = read.inline.to_vec();
    let length = usize::try_from(read.head.length.unwrap()).unwrap();
    for part in &read.head.parts {
        if part.offset != body.len() as u64 {
            return None;
        }
        body.extend_from_slice(&read_part(disk, part.id).ok()?);
    }
    if body.len() < length {
        return None;
    }
    assert_eq!(body, text(family, version, length), "a wrong body of {family}");
    Some(version)
}

#[test]
fn what_is_stored_is_read_as_it_was_also_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    put(&disk, 1, 7, 5_000, None).unwrap();
    put(&disk, 2, 8, 2_500_000, Some(1_000_000)).unwrap();
    put(&disk, 3, 9, 0, None).unwrap();
    put(&disk, 1, 10, 20, None).unwrap();
    flush(&disk);
    let expected = [Some(10), Some(8), Some(9), None];
    let versions = |disk: &Disk| [1, 2, 3, 4].map(|family| version(disk, family));
    assert_eq!(versions(&disk), expected);
    assert_eq!(disk.usage().1, 3);
    let copy = killed(folder.path());
    assert_eq!(versions(&open(copy.path())), expected, "after a kill");
    disk.close();
    let again = open(folder.path());
    assert_eq!(versions(&again), expected, "after a stop");
    assert_eq!(again.seed(), 42);
    put(&again, 4, 11, 5, None).unwrap();
    flush(&again);
    assert_eq!(version(&again, 4), Some(11), "the next process goes on writing");
}

#[test]
fn what_was_removed_stays_away() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    put(&disk, 1, 1, 100, None).unwrap();
    put(&disk, 2, 1, 100, None).unwrap();
    flush(&disk);
    disk.remove(1, 0);
    flush(&disk);
    assert_eq!((version(&disk, 1), version(&disk, 2)), (None, Some(1)));
    let copy = killed(folder.path());
    let again = open(copy.path());
    assert_eq!((version(&again, 1), version(&again, 2)), (None, Some(1)));
    put(&again, 1, 3, 100, None).unwrap();
    flush(&again);
    let copy = killed(copy.path());
    assert_eq!(version(&open(copy.path()), 1), Some(3), "what came after the tombstone is not touched by it");
}

#[test]
fn a_head_without_any_of_its_parts_is_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    put(&disk, 1, 1, 100, None).unwrap();
    let head = Head {
        family: 1,
        variant: 0,
        position: 0,
        url: 0,
        surrogate_keys: Box::new([]),
        length: Some(5),
        parts: Box::new([PartRef { id: 77, offset: 0, len: 5, crc: 0 }]),
        meta: Bytes::new(),
    };
    disk.put_head(head, Bytes::new(), 64).unwrap();
    flush(&disk);
    assert_eq!(version(&disk, 1), None, "what it was to replace is gone all the same");
    flush(&disk);
    let copy = killed(folder.path());
    assert_eq!(version(&open(copy.path()), 1), None);
}

#[test]
fn a_part_that_never_came_is_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    disk.put_part(1, Bytes::from_static(b"first")).unwrap();
    let part = |id, offset| PartRef { id, offset, len: 5, crc: 0 };
    let head = Head {
        family: 1,
        variant: 0,
        position: 0,
        url: 0,
        surrogate_keys: Box::new([]),
        length: Some(10),
        parts: Box::new([part(1, 0), part(2, 5)]),
        meta: Bytes::new(),
    };
    disk.put_head(head, Bytes::new(), 64).unwrap();
    flush(&disk);
    let read = wait(disk.read_head(1, disk.heads(1)[0])).unwrap().head;
    assert_eq!(*read.parts, [PartRef { crc: checksum(b"first"), ..part(1, 0) }]);
}

#[test]
fn a_part_that_is_not_the_one_that_was_listed_is_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    put(&disk, 1, 1, 2_000, Some(1_000)).unwrap();
    flush(&disk);
    let read = || wait(disk.read_head(1, disk.heads(1)[0])).unwrap().head.parts;
    let listed = read();
    assert_eq!(listed.len(), 2);
    disk.put_part(listed[0].id, Bytes::from(vec![0; 1_000])).unwrap();
    flush(&disk);
    assert_eq!(*read(), listed[1..]);
}

#[test]
fn a_part_that_is_held_is_read_also_when_it_has_been_evicted() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    put(&disk, 1, 1, 1_000, Some(1_000)).unwrap();
    flush(&disk);
    let id = wait(disk.read_head(1, disk.heads(1)[0])).unwrap().head.parts[0].id;
    let pinned = disk.pin(id).unwrap();
    for family in 100..700 {
        put(&disk, family, 1, 100_000, None).unwrap();
        flush(&disk);
    }
    assert_eq!((version(&disk, 1), read_part(&disk, id)), (None, Err(ReadError::Gone)));
    assert_eq!(wait(disk.read_pinned(&pinned)), Ok(text(1, 1, 1_000)));
    assert!(disk.pin(id).is_none());
}

#[test]
fn space_is_made_by_the_oldest_segment_and_what_is_used_survives() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, _, metrics) = open_with(config(folder.path()), |kept| kept == Kept::Family(2));
    for family in 1..=3 {
        put(&disk, family, 1, 1_000, None).unwrap();
    }
    flush(&disk);
    for family in 100..400 {
        put(&disk, family, 1, 100_000, None).unwrap();
        flush(&disk);
        assert_eq!(version(&disk, 1), Some(1), "it is read again and again");
        assert!(disk.usage().0 <= SIZE_MIN, "{} bytes", disk.usage().0);
    }
    assert_eq!(version(&disk, 2), Some(1), "another tier has it in use");
    assert_eq!((version(&disk, 3), version(&disk, 100)), (None, None), "nobody asked for them");
    assert_eq!(version(&disk, 399), Some(1));
    let evicted = metrics.cache_evictions.with_label_values(&["disk", "size"]).get();
    assert!(evicted > 100, "{evicted}");
    let copy = killed(folder.path());
    let again = open(copy.path());
    let here = |disk: &Disk| (1..400).map(|family| version(disk, family)).collect::<Vec<_>>();
    assert_eq!(here(&again), here(&disk), "the next process finds the same");
}

#[test]
fn a_folder_is_for_one_process_and_says_whose() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    let second = Disk::open(config(folder.path()), 1, Box::new(NOBODY), &Metrics::new());
    let message = second.unwrap_err().to_string();
    assert!(message.contains(&format!("is in use by process {}", std::process::id())), "{message}");
    disk.close();
    open(folder.path());
}

#[test]
fn without_a_whole_purge_journal_nothing_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    put(&disk, 1, 1, 100, None).unwrap();
    let order = Order { position: 1, bytes: Bytes::from_static(b"an order") };
    disk.journal(order.clone());
    wait(disk.journaled()).unwrap();
    disk.close();
    let copy = killed(folder.path());
    let (disk, restored, _) = open_with(config(copy.path()), NOBODY);
    assert_eq!((version(&disk, 1), restored.floor, restored.orders), (Some(1), 0, vec![order]));
    drop(disk);
    let journal = copy.path().join("purges");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[70] ^= 1;
    fs::write(&journal, bytes).unwrap();
    let (disk, restored, _) = open_with(config(copy.path()), NOBODY);
    assert_eq!((version(&disk, 1), restored.orders), (None, vec![]));
}

#[test]
fn what_was_stored_after_an_order_that_is_not_in_the_journal_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    disk.journal(Order { position: 5, bytes: Bytes::new() });
    wait(disk.journaled()).unwrap();
    put_at(&disk, 1, 1, 100, None, 5).unwrap();
    put_at(&disk, 2, 1, 100, None, 6).unwrap();
    flush(&disk);
    let copy = killed(folder.path());
    let again = open(copy.path());
    assert_eq!((version(&again, 1), version(&again, 2)), (Some(1), None));
}

#[test]
fn a_file_system_that_is_full_takes_nothing_and_breaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, _, metrics) = open_with(Config { min_free: 100.0, ..config(folder.path()) }, NOBODY);
    for family in 0..10 {
        put(&disk, family, 1, 100, None).unwrap();
    }
    flush(&disk);
    assert!((0..10).all(|family| version(&disk, family).is_none()));
    assert!(!disk.is_up());
    assert_eq!(metrics.store_errors.with_label_values(&["disk", "write"]).get(), 1, "it is not tried again at once");
}

#[test]
fn a_folder_that_goes_away_takes_the_tier_down_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    put(&disk, 1, 1, 100, None).unwrap();
    flush(&disk);
    let path = folder.path().to_path_buf();
    drop(folder);
    assert_eq!(version(&disk, 1), Some(1), "an open file is still there");
    for family in 2..100 {
        put(&disk, family, 1, 100_000, None).unwrap();
        flush(&disk);
    }
    assert!(!disk.is_up());
    assert_eq!(version(&disk, 99), None);
    disk.journal(Order { position: 1, bytes: Bytes::new() });
    wait(disk.journaled()).expect("an open file takes it");
    disk.close();
    assert!(!path.exists());
}

#[test]
fn a_segment_that_was_cut_behind_our_back_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, _, metrics) = open_with(config(folder.path()), NOBODY);
    put(&disk, 1, 1, 100, None).unwrap();
    flush(&disk);
    File::options().write(true).open(folder.path().join("00000000.seg")).unwrap().set_len(10).unwrap();
    assert_eq!(version(&disk, 1), None);
    assert_eq!(metrics.store_errors.with_label_values(&["disk", "read"]).get(), 1);
    assert!(disk.heads(1).is_empty(), "and is not asked for again");
}

#[test]
fn nothing_is_counted_on_while_reading_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    disk.put_part(7, Bytes::from_static(b"part")).unwrap();
    flush(&disk);
    assert!(disk.pin(7).is_some());
    for _ in 0..READ_FAILURES_MAX {
        disk.shared.reading.failed(Instant::now());
    }
    assert!(disk.pin(7).is_none() && disk.has_part(7));
    disk.shared.reading.worked();
    assert!(disk.pin(7).is_some());
}

#[test]
fn a_segment_that_cannot_be_opened_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    put(&disk, 1, 1, 100, None).unwrap();
    flush(&disk);
    disk.close();
    fs::create_dir(folder.path().join("00000007.seg")).unwrap();
    let (disk, _, metrics) = open_with(config(folder.path()), NOBODY);
    assert_eq!(metrics.store_errors.with_label_values(&["disk", "recover"]).get(), 1);
    for family in 2..100 {
        put(&disk, family, 1, 100_000, None).unwrap();
        flush(&disk);
    }
    assert_eq!((version(&disk, 1), version(&disk, 99)), (Some(1), Some(1)));
}

#[test]
fn a_walk_sees_every_head_and_forgets_what_is_not_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    put(&disk, 1, 1, 100, None).unwrap();
    put(&disk, 2, 1, 3_000, Some(1_000)).unwrap();
    flush(&disk);
    let mut seen = Vec::new();
    disk.walk(|head, bytes| {
        seen.push((head.family, head.surrogate_keys[0], bytes));
        head.family != 1
    });
    assert_eq!(seen, [(1, 2, 100), (2, 3, 3_000)]);
    assert_eq!((version(&disk, 1), version(&disk, 2)), (None, Some(1)));
}

/// What was done to a family, and how long the segment was after it.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Put { family: u128, len: usize, parts: bool },
    Remove { family: u128 },
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        6 => (0..4_u128, 0..400_usize, any::<bool>()).prop_map(|(family, len, parts)| Deed::Put { family, len, parts }),
        1 => (0..4_u128).prop_map(|family| Deed::Remove { family }),
    ];
    prop::collection::vec(deed, 1..14)
}

/// Does them one after the other; what is stored, and how long the segment is, after each.
fn carry_out(disk: &Disk, deeds: &[Deed]) -> Vec<(HashMap<u128, u32>, u64)> {
    let mut stored = HashMap::new();
    let mut history = vec![(stored.clone(), 0)];
    for (number, deed) in deeds.iter().enumerate() {
        match *deed {
            Deed::Put { family, len, parts } => {
                put(disk, family, number as u32, len, parts.then_some(100)).unwrap();
                stored.insert(family, number as u32);
            }
            Deed::Remove { family } => {
                disk.remove(family, 0);
                stored.remove(&family);
            }
        }
        flush(disk);
        history.push((stored.clone(), disk.usage().0));
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_kill_at_any_byte_loses_nothing_that_was_whole(deeds in deeds(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 8)) {
        let folder = tempfile::tempdir().unwrap();
        let disk = open(folder.path());
        let history = carry_out(&disk, &deeds);
        let len = disk.usage().0;
        for cut in cuts {
            let cut = cut.index(len as usize + 1) as u64;
            let copy = killed(folder.path());
            let segment = copy.path().join("00000000.seg");
            if let Ok(file) = File::options().write(true).open(&segment) {
                file.set_len(cut).unwrap();
            }
            let again = open(copy.path());
            let (expected, _) = history.iter().rev().find(|(_, len)| *len <= cut).unwrap();
            for family in 0..4 {
                prop_assert_eq!(version(&again, family), expected.get(&family).copied(), "cut at {} of {}", cut, len);
            }
            // What follows is found again too.
            put(&again, 9, 99, 50, None).unwrap();
            flush(&again);
            let copy = killed(copy.path());
            prop_assert_eq!(version(&open(copy.path()), 9), Some(99));
        }
    }

    #[test]
    fn a_bit_changed_anywhere_never_makes_a_wrong_body(
        deeds in deeds(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 8),
        with_summary in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let disk = open(folder.path());
        let history = carry_out(&disk, &deeds);
        let len = disk.usage().0;
        if with_summary {
            disk.close();
            // Another segment is the newest, so that the summary of this one is read.
            drop(Segment::create(folder.path(), 1).unwrap());
        }
        for (at, bit) in flips.into_iter().filter(|_| len > 0) {
            let at = at.index(len as usize);
            let copy = killed(folder.path());
            let segment = copy.path().join("00000000.seg");
            let mut bytes = fs::read(&segment).unwrap();
            bytes[at] ^= 1 << bit;
            fs::write(&segment, bytes).unwrap();
            let again = open(copy.path());
            let (before, _) = history.iter().rev().find(|(_, len)| *len <= at as u64).unwrap();
            let (after, _) = history.last().unwrap();
            for family in 0..4 {
                // Reading it compares every byte of the body.
                let found = version(&again, family);
                if before.get(&family) == after.get(&family) {
                    prop_assert_eq!(found, before.get(&family).copied(), "it was written whole before byte {}", at);
                }
            }
        }
    }
}
