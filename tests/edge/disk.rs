//! The disk tier under the edge: what is stored outlives the process, and what memory lets go.

use std::{path::Path, sync::Arc};

use tempfile::TempDir;

use crate::support::{Edge, Gate, Origin, ask, cacheable, edge, get, origin, page, within};

/// No response stays in memory.
const NO_MEMORY: &str = "memory: { size: 1KiB }";

/// An edge with a disk tier in `folder`.
async fn start(origin: &Origin, folder: &Path, memory: &str) -> Edge {
    start_with(origin, folder, memory, "size: 64MiB", "").await
}

async fn start_with(origin: &Origin, folder: &Path, memory: &str, disk: &str, policy: &str) -> Edge {
    let path = folder.display();
    let store = format!("store: {{ {memory}, disk: {{ path: \"{path}\", min_free: 0%, {disk} }} }}");
    edge(origin).section(&store).policy(policy).start().await
}

/// What was stored is on disk, and what was on disk is known.
async fn settled(edge: &Edge) {
    edge.settled().await;
    let store = &edge.running.edge().store;
    within(store.settled()).await;
    // Memory evicts what is too much when it is looked at.
    store.observe();
}

async fn stop(edge: Edge) {
    settled(&edge).await;
    within(edge.running.stop()).await;
}

/// The folder as the next process finds it if this one is killed now.
fn killed(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a temporary directory");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("it is copied");
    }
    copy
}

/// Bytes that say where they are.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256 + at / 65_536) as u8).collect()
}

#[tokio::test]
async fn a_stored_response_outlives_the_process() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    origin.serve("/small", cacheable("hello").field("ETag", "\"a\"").field("X-Two", "1").field("X-Two", "2"));
    origin.serve("/large", cacheable(body(3_000_000)));
    let first = start(&origin, folder.path(), "memory: { size: 64MiB }").await;
    for path in ["/small", "/large"] {
        assert_eq!(first.get(path).await.cache_status(), "fwd=uri-miss; stored");
    }
    settled(&first).await;
    let killed = killed(folder.path());
    stop(first).await;
    for folder in [folder.path(), killed.path()] {
        let again = start(&origin, folder, "memory: { size: 64MiB }").await;
        settled(&again).await;
        again.advance(10);
        let small = again.get("/small").await;
        assert!(small.is_hit() && small.body == b"hello", "{small:?}");
        assert_eq!((small.field("age"), small.field("x-two")), (Some("10".into()), Some("1, 2".into())));
        let large = again.get("/large").await;
        assert!(large.is_hit() && large.body == body(3_000_000), "{}", large.cache_status());
        let range = again.ask(&get("/large").field("Range", "bytes=1048570-1048580")).await;
        assert_eq!((range.status, &range.body[..]), (206, &body(3_000_000)[1_048_570..=1_048_580]));
        assert!(range.is_hit());
        assert!(again.metric("edge_cache_lookup_duration_seconds_count{tier=\"disk\"}") >= 2.0);
        assert_eq!(again.metric("edge_cache_stored_responses{tier=\"disk\"}"), 2.0);
        assert_eq!(again.metric("edge_store_up{tier=\"disk\"}"), 1.0);
        // From memory now.
        let looked = again.metric("edge_cache_lookup_duration_seconds_count{tier=\"disk\"}");
        assert!(again.get("/small").await.is_hit());
        assert_eq!(again.metric("edge_cache_lookup_duration_seconds_count{tier=\"disk\"}"), looked);
        stop(again).await;
    }
    assert_eq!(origin.asked().len(), 2);
}

#[tokio::test]
async fn what_memory_does_not_keep_is_answered_from_disk_variants_and_ranges_included() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    origin.answer("/v", |asked| {
        cacheable(asked.field("accept-language").unwrap_or_default()).field("Vary", "Accept-Language")
    });
    origin.serve("/large", cacheable(body(3_000_000)));
    let edge = start(&origin, folder.path(), NO_MEMORY).await;
    for _ in 0..3 {
        for language in ["de", "en"] {
            let answer = edge.ask(&get("/v").field("Accept-Language", language)).await;
            assert_eq!(answer.text(), language);
            settled(&edge).await;
        }
        assert_eq!(edge.get("/large").await.body, body(3_000_000));
        settled(&edge).await;
    }
    let ranges = edge.ask(&get("/large").field("Range", "bytes=0-9,2999990-2999999")).await;
    assert!(ranges.status == 206 && ranges.is_hit(), "{ranges:?}");
    let head = edge.ask(&ask("HEAD", "/large")).await;
    assert!(head.is_hit() && head.field("content-length").as_deref() == Some("3000000"));
    assert_eq!(origin.asked().len(), 3, "two variants and a large body");
    let explained = edge.control(&get("/explain?url=http://a.test/v&header=Accept-Language:%20de")).await;
    let explained: serde_json::Value = serde_json::from_str(explained.text()).expect("JSON");
    assert_eq!((&explained["outcome"], &explained["cause"]), (&"hit".into(), &"fresh".into()), "{explained}");
    let variants: Vec<_> = explained["store"]["variants"].as_array().unwrap().iter().collect();
    assert!(variants.len() == 2 && variants.iter().all(|variant| variant["tier"] == "disk"), "{explained}");
    let unknown = edge.ask(&get("/v").field("Accept-Language", "fr")).await;
    assert_eq!(unknown.cache_status(), "fwd=vary-miss; stored");
}

#[tokio::test]
async fn a_body_larger_than_memory_goes_to_disk_while_it_comes() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let (whole, gate) = (body(24 << 20), Gate::closed());
    origin.serve("/film", cacheable(whole.clone()).held_after(20 << 20, &gate));
    let edge = start(&origin, folder.path(), "memory: { size: 4MiB, object_max: 1MiB }").await;
    let mut early = edge.connect().await;
    early.send(&get("/film")).await;
    early.head().await;
    let mut first = Vec::new();
    assert!(early.body(20 << 20, &mut first).await);
    // Who comes now reads the beginning from disk.
    let mut late = edge.connect().await;
    late.send(&get("/film")).await;
    let mut joined = late.head().await;
    assert!(joined.cache_status().contains("collapsed"), "{joined:?}");
    gate.open();
    assert!(early.body(4 << 20, &mut first).await && first == whole);
    late.rest("GET", &mut joined).await;
    assert!(joined.body == whole);
    settled(&edge).await;
    let again = edge.get("/film").await;
    assert!(again.is_hit() && again.body == whole);
    let end = edge.ask(&get("/film").field("Range", "bytes=-5")).await;
    assert!(end.is_hit() && end.body == whole[whole.len() - 5..]);
    assert_eq!(origin.asked().len(), 1);
    let held = edge.metric("edge_cache_stored_bytes{tier=\"memory\"}");
    assert!(held < 1e6, "memory has {held} bytes of it");
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_not_written_to_its_end() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    origin.serve("/endless", cacheable(body(24 << 20)).chunked());
    let memory = "memory: { size: 4MiB, object_max: 1MiB }";
    let edge = start_with(&origin, folder.path(), memory, "size: 64MiB, object_max: 4MiB", "").await;
    assert!(edge.get("/endless").await.body == body(24 << 20));
    settled(&edge).await;
    let written = edge.metric("edge_cache_stored_bytes{tier=\"disk\"}");
    assert!(written < f64::from(6 << 20), "{written} bytes were written of what is not stored");
    assert_eq!(edge.metric("edge_cache_stored_responses{tier=\"disk\"}"), 0.0);
}

#[tokio::test]
async fn while_the_disk_cannot_be_read_what_lies_there_is_fetched() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let paths: Vec<_> = (0..9).map(|number| format!("/{number}")).collect();
    paths.iter().for_each(|path| origin.serve(path, cacheable(body(100_000))));
    // Heads stay in memory, bodies do not.
    let edge = start(&origin, folder.path(), "memory: { size: 4MiB, object_max: 64KiB }").await;
    for path in &paths {
        edge.get(path).await;
    }
    settled(&edge).await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            std::fs::File::options().write(true).open(path).unwrap().set_len(10).unwrap();
        }
    }
    let (last, others) = paths.split_last().unwrap();
    for path in others {
        // What had begun can only break off.
        let mut client = edge.connect().await;
        client.send(&get(path)).await;
        assert!(client.head().await.is_hit() && !client.body(100_000, &mut Vec::new()).await, "{path}");
    }
    assert_eq!(edge.metric("edge_store_up{tier=\"disk\"}"), 0.0, "it is left alone");
    let answer = edge.get(last).await;
    assert!(!answer.is_hit() && answer.body == body(100_000), "{}", answer.cache_status());
}

#[tokio::test]
async fn slices_are_put_together_on_disk() {
    let (origin, folder, whole) = (origin().await, tempfile::tempdir().unwrap(), body(300_000));
    let file: Arc<[u8]> = whole.clone().into();
    origin.answer("/f", move |asked| crate::parts::file(asked, &file, "\"v\""));
    let edge = start_with(&origin, folder.path(), NO_MEMORY, "size: 64MiB", "slice: 64KiB").await;
    for (range, from, to) in
        [("bytes=0-9", 0, 10), ("bytes=200000-200009", 200_000, 200_010), ("bytes=5-70000", 5, 70_001)]
    {
        let answer = edge.ask(&get("/f").field("Range", range)).await;
        assert!(answer.status == 206 && answer.body == whole[from..to], "{range}: {answer:?}");
        settled(&edge).await;
    }
    let fetched = origin.asked().len();
    let killed = killed(folder.path());
    let again = start_with(&origin, killed.path(), NO_MEMORY, "size: 64MiB", "slice: 64KiB").await;
    settled(&again).await;
    for (range, from, to) in [("bytes=0-70000", 0, 70_001), ("bytes=200000-200009", 200_000, 200_010)] {
        let answer = again.ask(&get("/f").field("Range", range)).await;
        assert!(answer.status == 206 && answer.body == whole[from..to] && answer.is_hit(), "{range}: {answer:?}");
    }
    assert_eq!(origin.asked().len(), fetched);
}

#[tokio::test]
async fn a_purge_holds_in_later_processes_too() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    for path in ["/url", "/key", "/soft", "/kept"] {
        origin.serve(path, cacheable(path).field("Surrogate-Key", &format!("key{}", path.replace('/', "-"))));
    }
    let edge = start(&origin, folder.path(), NO_MEMORY).await;
    for path in ["/url", "/key", "/soft", "/kept"] {
        edge.get(path).await;
    }
    settled(&edge).await;
    let receipt = edge.purge(r#"{"urls":["http://a.test/url"]}"#).await;
    assert_eq!((&receipt["matched"], &receipt["bytes"], &receipt["complete"]), (&1.into(), &4.into(), &true.into()));
    edge.purge(r#"{"surrogate_keys":["key-key"]}"#).await;
    let soft = edge.purge(r#"{"surrogate_keys":["key-soft"],"soft":true}"#).await;
    assert_eq!(soft["matched"], 1);
    let killed = killed(folder.path());
    let again = start(&origin, killed.path(), NO_MEMORY).await;
    settled(&again).await;
    assert!(again.get("/kept").await.is_hit());
    assert_eq!(again.get("/url").await.cache_status(), "fwd=uri-miss; stored");
    assert_eq!(again.get("/key").await.cache_status(), "fwd=uri-miss; stored");
    assert!(again.get("/soft").await.cache_status().starts_with("fwd=stale"));
}

#[tokio::test]
async fn an_unsafe_request_invalidates_for_later_processes_too() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    origin.serve("/a", cacheable("a"));
    let edge = start(&origin, folder.path(), NO_MEMORY).await;
    edge.get("/a").await;
    settled(&edge).await;
    assert_eq!(edge.ask(&ask("POST", "/a").body("x")).await.status, 200);
    let killed = killed(folder.path());
    let again = start(&origin, killed.path(), NO_MEMORY).await;
    settled(&again).await;
    assert!(!again.get("/a").await.is_hit());
}

#[tokio::test]
async fn many_readers_of_one_response_are_answered_from_disk_at_once() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    origin.serve("/a", cacheable(body(200_000)));
    let edge = start(&origin, folder.path(), NO_MEMORY).await;
    edge.get("/a").await;
    settled(&edge).await;
    let answers = futures::future::join_all((0..50).map(|_| edge.get("/a"))).await;
    assert!(answers.iter().all(|answer| answer.is_hit() && answer.body == body(200_000)));
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn a_full_file_system_is_one_tier_less() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    origin.serve("/a", cacheable("a"));
    let path = folder.path().display();
    let store =
        format!("store: {{ memory: {{ size: 8MiB }}, disk: {{ path: \"{path}\", size: 64MiB, min_free: 100% }} }}");
    let edge = edge(&origin).section(&store).start().await;
    edge.get("/a").await;
    settled(&edge).await;
    assert!(edge.get("/a").await.is_hit(), "from memory");
    assert_eq!(edge.metric("edge_store_up{tier=\"disk\"}"), 0.0);
    assert_eq!(edge.metric("edge_store_errors_total{tier=\"disk\",operation=\"write\"}"), 1.0);
    assert_eq!(edge.metric("edge_cache_stored_responses{tier=\"disk\"}"), 0.0);
}

#[tokio::test]
async fn a_response_that_cannot_be_read_is_fetched_anew() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    origin.serve("/a", cacheable("a"));
    origin.serve("/large", page(body(200_000)).field("Cache-Control", "max-age=60").field("ETag", "\"v\""));
    let edge = start(&origin, folder.path(), NO_MEMORY).await;
    for path in ["/a", "/large"] {
        edge.get(path).await;
    }
    settled(&edge).await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!(edge.get("/a").await.cache_status(), "fwd=uri-miss; stored");
    assert_eq!(edge.get("/large").await.body, body(200_000));
    assert!(edge.metric("edge_store_errors_total{tier=\"disk\",operation=\"checksum\"}") >= 1.0);
    settled(&edge).await;
    assert!(edge.get("/a").await.is_hit(), "it was written anew");
}
