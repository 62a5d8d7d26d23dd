//! Bodies: whole, or visibly cut off; of any size.

use crate::support::{Gate, cacheable, edge, eventually, get, origin, page, raw};

/// Bytes that do not repeat in any unit that a cache cuts by.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[tokio::test]
async fn bodies_of_every_size_come_as_they_were_the_first_time_and_from_the_store() {
    let origin = origin().await;
    let edge = edge(&origin).start().await;
    let sizes = [0, 1, 65_535, 65_536, 65_537, 1_048_576, 1_048_577, 3_000_000];
    for size in sizes {
        let body = bytes(size);
        for chunked in [false, true] {
            let path = format!("/{size}/{chunked}");
            let answer = cacheable(body.clone()).field("ETag", "\"v\"");
            origin.serve(&path, if chunked { answer.chunked() } else { answer });
            let _ = edge.get(&path).await;
            for expected_hit in [true, true] {
                let answer = edge.get(&path).await;
                assert!(answer.body == body && !answer.cut, "{path}");
                assert_eq!(answer.is_hit(), expected_hit, "{path}");
                assert_eq!(answer.field("content-length"), Some(size.to_string()), "{path}");
            }
            if size > 70_000 {
                let (from, to) = (size - 70_000, size - 9);
                let part = edge.ask(&get(&path).field("Range", &format!("bytes={from}-{}", to - 1))).await;
                assert!(part.status == 206 && part.body == body[from..to], "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_cut_off_for_clients_and_not_stored() {
    let origin = origin().await;
    let edge = edge(&origin).upstream("retries: { max: 0 }").start().await;
    let rows = [
        ("/length", cacheable(bytes(5000)).cut_after(100)),
        ("/chunked", cacheable(bytes(5000)).chunked().cut_after(100)),
        (
            "/no-last-chunk",
            raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ),
        (
            "/bad-chunk",
            raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"),
        ),
        ("/private", page(bytes(5000)).field("Cache-Control", "private").cut_after(100)),
    ];
    for (path, answer) in rows {
        origin.serve(path, answer);
        for hits in 1..=2 {
            let answer = edge.get(path).await;
            assert!(answer.cut && answer.status == 200, "{path}: {answer:?}");
            edge.settled().await;
            assert_eq!(origin.hits(path), hits, "{path}");
        }
        let http2 = edge.http2().await.ask(&get(path)).await;
        assert!(http2.cut, "{path}: {http2:?}");
    }
    assert_eq!(edge.purge(r#"{"all":true}"#).await["matched"], 0);
}

#[tokio::test]
async fn a_body_that_stalls_is_cut_off_and_not_stored() {
    let origin = origin().await;
    let never = Gate::closed();
    origin.serve("/a", cacheable(bytes(5000)).held_after(100, &never));
    let edge = edge(&origin).upstream("timeouts: { between_bytes: 50ms }").start().await;
    for hits in 1..=2 {
        let answer = edge.get("/a").await;
        assert!(answer.cut && answer.body == bytes(5000)[..100], "{answer:?}");
        edge.settled().await;
        assert_eq!(origin.hits("/a"), hits);
    }
    assert!(edge.metric("edge_upstream_failures_total{reason=\"connection_read_timeout\"}") > 0.0);
}

#[tokio::test]
async fn every_reader_of_a_body_that_breaks_off_sees_it_cut_off() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/a", cacheable(bytes(5000)).held_after(100, &gate).cut_after(200));
    let edge = edge(&origin).start().await;
    let mut readers = Vec::new();
    for _ in 0..5 {
        let mut reader = edge.connect().await;
        let head = reader.ask_head(&get("/a")).await;
        readers.push((reader, head));
    }
    gate.open();
    for (mut reader, mut answer) in readers {
        reader.rest("GET", &mut answer).await;
        assert!(answer.cut && answer.body == bytes(5000)[..200], "{answer:?}");
    }
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test]
async fn what_is_larger_than_object_max_streams_through_and_is_not_stored() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/known", cacheable(bytes(200_000)).held_after(150_000, &gate));
    origin.serve("/unknown", cacheable(bytes(200_000)).chunked().held_after(150_000, &gate));
    let edge = edge(&origin).policy("object_max: 100KiB").start().await;
    let mut begun = Vec::new();
    for path in ["/known", "/unknown"] {
        let mut connection = edge.connect().await;
        let mut head = connection.ask_head(&get(path)).await;
        if path == "/known" {
            // The origin has not said all of it, and the client has what it said.
            assert!(connection.body(150_000, &mut head.body).await);
        }
        begun.push((connection, head));
    }
    eventually("both are known to be too large", || {
        edge.metric("edge_cache_refusals_total{reason=\"too-large\"}") == 2.0
    })
    .await;
    gate.open();
    let (mut known, mut first) = begun.remove(0);
    let mut rest = Vec::new();
    assert!(known.body(50_000, &mut rest).await);
    first.body.extend(rest);
    let (mut unknown, mut second) = begun.remove(0);
    unknown.rest("GET", &mut second).await;
    assert!(first.body == bytes(200_000) && second.body == bytes(200_000) && !second.cut);
    edge.settled().await;
    for path in ["/known", "/unknown"] {
        let again = edge.get(path).await;
        assert!(again.body == bytes(200_000) && !again.is_hit(), "{path}");
        assert_eq!(origin.hits(path), 2, "{path}");
    }
}

#[tokio::test]
async fn a_response_that_lost_a_part_to_eviction_counts_as_not_stored() {
    let origin = origin().await;
    let edge = edge(&origin).section("store: { memory: { size: 16MiB, object_max: 4MiB } }").start().await;
    let body = bytes(3_000_000);
    let paths: Vec<String> = (0..12).map(|index| format!("/{index}")).collect();
    for path in &paths {
        origin.serve(path, cacheable(body.clone()));
        assert!(edge.get(path).await.body == body);
        edge.settled().await;
    }
    assert!(edge.metric("edge_cache_evictions_total{reason=\"size\"}") > 0.0);
    let mut hits = 0;
    for path in &paths {
        let answer = edge.get(path).await;
        assert!(answer.body == body && !answer.cut, "{path}");
        hits += usize::from(answer.is_hit());
    }
    assert!((1..12).contains(&hits), "{hits} of 12 fit in 8 MiB");
    assert!(edge.metric("edge_cache_stored_bytes") <= 16.0 * 1024.0 * 1024.0);
}
