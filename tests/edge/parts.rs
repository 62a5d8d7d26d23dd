//! Partial content: ranges that are stored, put together under one strong validator, and completed; slices.

use std::sync::Arc;

use crate::support::{Answer, Asked, Edge, Gate, Origin, Page, ask, cacheable, edge, get, origin, page, waiting};

/// Bytes that say where they are.
pub fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// An origin's answer from a file, as RFC 9110 has it: `Range`, `If-Range`, `If-Match`, `If-None-Match`.
pub fn file(asked: &Asked, body: &[u8], etag: &str) -> Page {
    let tagged = |page: Page| {
        let page = page.field("Cache-Control", "max-age=60");
        if etag.is_empty() { page } else { page.field("ETag", etag) }
    };
    if asked.field("if-match").is_some_and(|tag| tag != etag) {
        return tagged(page("")).status("412 Precondition Failed");
    }
    if asked.field("if-none-match").is_some_and(|tag| tag == etag) {
        return tagged(page("")).status("304 Not Modified");
    }
    let range = asked.field("range").filter(|_| asked.field("if-range").is_none_or(|tag| tag == etag));
    let Some(range) = range else { return tagged(page(body)) };
    let (first, last) = range.trim_start_matches("bytes=").split_once('-').expect("one range");
    let (from, to) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(from), last) => (from, last.map_or(body.len(), |last| (last + 1).min(body.len()))),
        (Err(_), last) => (body.len() - last.expect("a suffix").min(body.len()), body.len()),
    };
    if from >= to {
        return tagged(page(""))
            .status("416 Range Not Satisfiable")
            .field("Content-Range", &format!("bytes */{}", body.len()));
    }
    let span = format!("bytes {from}-{}/{}", to - 1, body.len());
    tagged(page(&body[from..to])).status("206 Partial Content").field("Content-Range", &span)
}

/// Serves `/f` from a file.
pub fn serve(origin: &Origin, body: &[u8], etag: &'static str) {
    let body: Arc<[u8]> = body.into();
    origin.answer("/f", move |asked| file(asked, &body, etag));
}

async fn range(edge: &Edge, range: &str) -> Answer {
    let answer = edge.ask(&get("/f").field("Range", range)).await;
    edge.settled().await;
    answer
}

/// The ranges that the origin was asked for; `all` where none was named.
fn ranges(origin: &Origin) -> Vec<String> {
    origin.asked().iter().map(|asked| asked.field("range").unwrap_or("all".into())).collect()
}

#[tokio::test]
async fn a_range_that_was_asked_for_answers_what_lies_in_it() {
    let (origin, body) = (origin().await, body(1000));
    serve(&origin, &body, "\"v\"");
    let edge = edge(&origin).start().await;
    let first = range(&edge, "bytes=100-299").await;
    assert_eq!((first.status, first.cache_status()), (206, "fwd=uri-miss; stored".into()));
    for (asked, from, to) in [("bytes=100-299", 100, 300), ("bytes=150-160", 150, 161), ("bytes=299-299", 299, 300)] {
        let answer = range(&edge, asked).await;
        assert!(answer.is_hit() && answer.status == 206 && answer.body == body[from..to], "{asked}: {answer:?}");
        assert_eq!(answer.field("content-range"), Some(format!("bytes {from}-{}/1000", to - 1)));
    }
    assert_eq!(ranges(&origin), ["bytes=100-299"]);
}

#[tokio::test]
async fn what_is_missing_of_a_range_is_all_that_is_asked_for() {
    let (origin, body) = (origin().await, body(1000));
    serve(&origin, &body, "\"v\"");
    let edge = edge(&origin).start().await;
    for (asked, from, to) in [("bytes=0-99", 0, 100), ("bytes=300-399", 300, 400), ("bytes=50-349", 50, 350)] {
        let answer = range(&edge, asked).await;
        assert!(answer.status == 206 && answer.body == body[from..to], "{asked}: {answer:?}");
    }
    assert_eq!(ranges(&origin), ["bytes=0-99", "bytes=300-399", "bytes=100-299"]);
    assert_eq!(origin.asked()[2].field("if-range").as_deref(), Some("\"v\""));
    let joined = range(&edge, "bytes=0-399").await;
    assert!(joined.is_hit() && joined.body == body[..400], "{joined:?}");
}

#[tokio::test]
async fn a_whole_is_completed_and_from_then_on_stored_whole() {
    let (origin, body) = (origin().await, body(200_000));
    serve(&origin, &body, "\"v\"");
    let edge = edge(&origin).start().await;
    for asked in ["bytes=1000-1999", "bytes=50000-119999"] {
        let _ = range(&edge, asked).await;
    }
    let whole = edge.get("/f").await;
    edge.settled().await;
    assert_eq!((whole.status, whole.cache_status()), (200, "fwd=partial; stored".into()));
    assert!(whole.body == body && whole.field("content-range").is_none());
    assert_eq!(ranges(&origin)[2..], ["bytes=0-999", "bytes=2000-49999", "bytes=120000-"]);
    assert_eq!(origin.asked()[3].field("if-match").as_deref(), Some("\"v\""), "once begun, nothing else may come");
    let hit = edge.get("/f").await;
    assert!(hit.is_hit() && hit.body == body);
    assert_eq!(edge.results("partial"), 2);
}

#[tokio::test]
async fn a_file_that_changed_is_not_put_together_with_what_it_was() {
    let (origin, old, new) = (origin().await, body(1000), vec![b'n'; 1000]);
    for asked in ["", "bytes=50-149"] {
        serve(&origin, &old, "\"old\"");
        let edge = edge(&origin).start().await;
        let _ = range(&edge, "bytes=0-99").await;
        serve(&origin, &new, "\"new\"");
        let answer = if asked.is_empty() { edge.get("/f").await } else { range(&edge, asked).await };
        let expected = if asked.is_empty() { &new[..] } else { &new[50..150] };
        assert!(answer.body == expected && answer.field("etag").as_deref() == Some("\"new\""), "{asked}: {answer:?}");
        edge.settled().await;
        assert!(range(&edge, "bytes=0-9").await.body == new[..10]);
    }
}

#[tokio::test]
async fn a_change_in_the_middle_of_an_answer_ends_it() {
    let (origin, old) = (origin().await, body(1000));
    serve(&origin, &old, "\"old\"");
    let edge = edge(&origin).start().await;
    for asked in ["bytes=10-19", "bytes=30-39"] {
        let _ = range(&edge, asked).await;
    }
    let old_body: Arc<[u8]> = old.clone().into();
    origin.answer("/f", move |asked| {
        let changed = asked.field("range").as_deref() == Some("bytes=20-29");
        if changed { file(asked, b"new", "\"new\"") } else { file(asked, &old_body, "\"old\"") }
    });
    let answer = edge.get("/f").await;
    assert!(answer.cut && answer.body == old[..20], "{answer:?}");
    serve(&origin, &[b'n'; 1000], "\"new\"");
    assert!(edge.get("/f").await.body == [b'n'; 1000], "nothing of the old one is left");
}

#[tokio::test]
async fn parts_without_a_strong_validator_are_used_alone() {
    let (origin, body) = (origin().await, body(1000));
    for tag in ["W/\"v\"", ""] {
        serve(&origin, &body, tag);
        let edge = edge(&origin).start().await;
        let _ = range(&edge, "bytes=100-199").await;
        assert!(range(&edge, "bytes=110-119").await.is_hit(), "{tag}");
        let before = origin.asked().len();
        let wider = range(&edge, "bytes=150-249").await;
        assert!(wider.status == 206 && wider.body == body[150..250], "{tag}: {wider:?}");
        let whole = edge.get("/f").await;
        assert!(whole.status == 200 && whole.body == body, "{tag}: {whole:?}");
        let asked = origin.asked();
        assert!(asked[before..].iter().all(|asked| asked.field("if-range").is_none()), "{tag}");
        assert_eq!(asked[before].field("range").as_deref(), Some("bytes=150-249"), "{tag}");
        assert!(asked.last().is_some_and(|last| last.field("range").is_none()), "{tag}");
        edge.settled().await;
    }
}

#[tokio::test]
async fn a_stale_part_is_validated_by_the_fetch_of_what_is_missing() {
    let (origin, body) = (origin().await, body(1000));
    serve(&origin, &body, "\"v\"");
    let edge = edge(&origin).start().await;
    let _ = range(&edge, "bytes=0-99").await;
    edge.advance(61);
    let inside = range(&edge, "bytes=0-9").await;
    assert_eq!(inside.cache_status(), "fwd=stale; fwd-status=304; stored; detail=stale");
    assert!(inside.status == 206 && inside.body == body[..10]);
    edge.advance(61);
    let wider = range(&edge, "bytes=50-149").await;
    assert!(wider.status == 206 && wider.body == body[50..150], "{wider:?}");
    assert!(range(&edge, "bytes=0-149").await.is_hit(), "both halves are fresh again");
    assert_eq!(ranges(&origin), ["bytes=0-99", "bytes=0-9", "bytes=100-149"]);
}

#[tokio::test]
async fn a_client_that_has_it_already_needs_no_missing_part() {
    let (origin, body) = (origin().await, body(1000));
    serve(&origin, &body, "\"v\"");
    let edge = edge(&origin).start().await;
    let _ = range(&edge, "bytes=0-99").await;
    let answer = edge.ask(&get("/f").field("If-None-Match", "\"v\"")).await;
    assert_eq!((answer.status, answer.is_hit()), (304, true));
    let head = edge.ask(&ask("HEAD", "/f")).await;
    assert_eq!((head.status, head.is_hit(), head.field("content-length").as_deref()), (200, true, Some("1000")));
    let unsatisfiable = range(&edge, "bytes=1000-").await;
    assert_eq!((unsatisfiable.status, unsatisfiable.is_hit()), (416, true));
    assert_eq!(unsatisfiable.field("content-range").as_deref(), Some("bytes */1000"));
    let other = edge.ask(&get("/f").field("Range", "bytes=0-9").field("If-Range", "\"w\"")).await;
    assert!(other.status == 200 && other.body == body, "If-Range of another one asks for the whole: {other:?}");
}

#[tokio::test]
async fn several_ranges_are_completed_too() {
    let (origin, body) = (origin().await, body(1000));
    serve(&origin, &body, "\"v\"");
    let edge = edge(&origin).start().await;
    let _ = range(&edge, "bytes=0-99").await;
    let several = range(&edge, "bytes=0-9,500-509").await;
    assert_eq!(several.status, 206);
    let content_type = several.field("content-type").unwrap_or_default();
    assert!(content_type.starts_with("multipart/byteranges"), "{several:?}");
    for part in [&body[..10], &body[500..510]] {
        assert!(several.body.windows(10).any(|window| window == part));
    }
    assert_eq!(ranges(&origin), ["bytes=0-99", "bytes=500-509"]);
}

#[tokio::test]
async fn a_span_that_lies_is_not_stored() {
    let origin = origin().await;
    let rows = [
        ("bytes 0-4/10", "\"v\"", "0123"),
        ("bytes 0-4/*", "\"v\"", "01234"),
        ("bytes 4-0/10", "\"v\"", "01234"),
        ("bytes 0-4/3", "\"v\"", "01234"),
        ("bytes 5-9/10", "\"v\"", "0123"),
        ("bytes 0-4/10", "", "0123"),
        ("bytes 0-9/10", "", "0123"),
    ];
    for (at, (span, etag, text)) in rows.into_iter().enumerate() {
        let path = format!("/{at}");
        let mut answer = cacheable(text).status("206 Partial Content").field("Content-Range", span);
        if !etag.is_empty() {
            answer = answer.field("ETag", etag);
        }
        origin.serve(&path, answer);
        let edge = edge(&origin).start().await;
        for hits in 1..=2 {
            let answer = edge.ask(&get(&path).field("Range", "bytes=0-4")).await;
            assert_eq!((answer.status, answer.text(), origin.hits(&path)), (206, text, hits), "{span}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_range_that_came_without_being_asked_for_is_not_stored() {
    let origin = origin().await;
    origin.serve("/f", cacheable("01234").status("206 Partial Content").field("Content-Range", "bytes 0-4/10"));
    let edge = edge(&origin).start().await;
    for hits in 1..=2 {
        let _ = edge.get("/f").await;
        assert_eq!(origin.hits("/f"), hits);
    }
}

#[tokio::test]
async fn an_origin_without_ranges_gives_the_whole_and_the_client_its_range() {
    let (origin, body) = (origin().await, body(1000));
    origin.serve("/f", cacheable(body.clone()));
    let edge = edge(&origin).start().await;
    let first = range(&edge, "bytes=100-199").await;
    assert!(first.status == 206 && first.body == body[100..200], "{first:?}");
    assert!(range(&edge, "bytes=-10").await.is_hit());
    assert_eq!(origin.hits("/f"), 1);
}

#[tokio::test]
async fn a_range_is_sent_while_it_comes_and_shared() {
    let (origin, body) = (origin().await, body(1000));
    let gate = Gate::closed();
    let (served, held) = (body.clone(), gate.clone());
    origin.answer("/f", move |asked| file(asked, &served, "\"v\"").held_after(50, &held));
    let edge = edge(&origin).start().await;
    let ask = get("/f").field("Range", "bytes=100-299");
    let (mut first, mut second) = (edge.connect().await, edge.connect().await);
    first.send(&ask).await;
    origin.hit("/f", 1).await;
    second.send(&ask).await;
    let mut head = first.head().await;
    assert!(first.body(50, &mut head.body).await && head.body == body[100..150], "the first bytes are there first");
    gate.open();
    assert!(second.answer("GET").await.body == body[100..300]);
    assert_eq!(origin.hits("/f"), 1);
}

#[tokio::test]
async fn a_purge_forgets_all_parts() {
    let (origin, old, new) = (origin().await, body(1000), vec![b'n'; 1000]);
    serve(&origin, &old, "\"v\"");
    let edge = edge(&origin).start().await;
    let _ = range(&edge, "bytes=0-99").await;
    let receipt = edge.purge(r#"{"all":true}"#).await;
    assert_eq!((&receipt["matched"], &receipt["bytes"]), (&1.into(), &100.into()), "the bytes that were there");
    // The same validator, which it should not have.
    serve(&origin, &new, "\"v\"");
    let wider = range(&edge, "bytes=50-149").await;
    assert!(wider.body == new[50..150], "{wider:?}");
}

const SLICED: &str = "slice: 64KiB";

#[tokio::test]
async fn a_large_file_is_fetched_and_stored_in_slices() {
    let (origin, body) = (origin().await, body(300_000));
    serve(&origin, &body, "\"v\"");
    let edge = edge(&origin).policy(SLICED).start().await;
    let seek = range(&edge, "bytes=100000-100009").await;
    assert!(seek.status == 206 && seek.body == body[100_000..100_010], "{seek:?}");
    assert_eq!(ranges(&origin), ["bytes=65536-131071"]);
    let whole = edge.get("/f").await;
    edge.settled().await;
    assert!(whole.status == 200 && whole.body == body);
    assert_eq!(ranges(&origin)[1..], ["bytes=0-65535", "bytes=131072-196607", "bytes=196608-262143", "bytes=262144-"]);
    assert!(origin.asked()[1..].iter().all(|asked| asked.field("if-match").as_deref() == Some("\"v\"")));
    assert!(edge.get("/f").await.is_hit());
    assert!(range(&edge, "bytes=-5").await.is_hit());
}

#[tokio::test]
async fn a_sliced_file_that_changes_ends_the_answer_and_starts_anew() {
    let (origin, old, new) = (origin().await, body(300_000), vec![b'n'; 300_000]);
    let (was, is) = (old.clone(), new.clone());
    origin.answer("/f", move |asked| match asked.field("range").as_deref() {
        Some("bytes=0-65535") if asked.hits_before == 0 => file(asked, &was, "\"old\""),
        _ => file(asked, &is, "\"new\""),
    });
    let edge = edge(&origin).policy(SLICED).start().await;
    let cut = edge.get("/f").await;
    assert!(cut.cut && cut.body == old[..65_536], "{} bytes", cut.body.len());
    edge.settled().await;
    let again = edge.get("/f").await;
    assert!(again.status == 200 && again.body == new);
}

#[tokio::test]
async fn an_odd_part_does_not_keep_a_slice_out() {
    let (origin, body) = (origin().await, body(150_000));
    serve(&origin, &body, "\"v\"");
    let edge = edge(&origin).policy(SLICED).start().await;
    let tail = range(&edge, "bytes=-5").await;
    assert!(tail.status == 206 && tail.body == body[149_995..], "{tail:?}");
    let whole = edge.get("/f").await;
    assert!(whole.status == 200 && whole.body == body);
    edge.settled().await;
    assert!(edge.get("/f").await.is_hit(), "{:?}", ranges(&origin));
}

#[tokio::test]
async fn what_was_no_slice_is_asked_for_whole_for_a_while() {
    let origin = origin().await;
    let body: Arc<[u8]> = body(100_000).into();
    origin.answer("/f", move |asked| file(asked, &body, "\"v\"").field("Cache-Control", "no-store"));
    let edge = edge(&origin).policy(SLICED).start().await;
    for _ in 0..2 {
        assert_eq!(edge.get("/f").await.body.len(), 100_000);
        edge.settled().await;
    }
    assert_eq!(ranges(&origin), ["bytes=0-65535", "all", "all"]);
}

#[tokio::test]
async fn an_error_does_not_replace_parts_that_stale_if_error_covers() {
    let (origin, body) = (origin().await, body(1000));
    let served: Arc<[u8]> = body.clone().into();
    origin.answer("/f", move |asked| match asked.field("range").as_deref() {
        Some("bytes=500-599") => cacheable("broken").status("503 Service Unavailable"),
        _ => file(asked, &served, "\"v\""),
    });
    let edge = edge(&origin).policy("stale_if_error: 1h").start().await;
    let _ = range(&edge, "bytes=0-99").await;
    assert_eq!(range(&edge, "bytes=500-599").await.status, 503);
    let again = range(&edge, "bytes=0-99").await;
    assert!(again.is_hit() && again.body == body[..100], "{again:?}");
}

#[tokio::test]
async fn what_cannot_be_sliced_is_fetched_whole() {
    let (origin, body) = (origin().await, body(100_000));
    let served: Arc<[u8]> = body.clone().into();
    origin.answer("/f", move |asked| file(asked, &served, "W/\"v\""));
    origin.answer("/empty", |asked| file(asked, b"", "\"v\""));
    origin.serve("/plain", cacheable("plain"));
    origin.serve("/gone", cacheable("gone").status("404 Not Found"));
    let edge = edge(&origin).policy(SLICED).start().await;
    let weak = edge.get("/f").await;
    assert!(weak.status == 200 && weak.body == body, "{} bytes", weak.body.len());
    let empty = edge.get("/empty").await;
    assert_eq!((empty.status, empty.body.len()), (200, 0), "{empty:?}");
    let plain = edge.get("/plain").await;
    assert_eq!((plain.status, plain.text()), (200, "plain"));
    assert_eq!(edge.get("/gone").await.status, 404);
    for path in ["/f", "/empty", "/plain", "/gone"] {
        edge.settled().await;
        assert!(edge.get(path).await.is_hit(), "{path}");
    }
}

#[tokio::test]
async fn readers_of_one_sliced_file_share_its_slices() {
    let (origin, body) = (origin().await, body(300_000));
    let gate = Gate::closed();
    let (served, held) = (body.clone(), gate.clone());
    origin.answer("/f", move |asked| file(asked, &served, "\"v\"").held(&held));
    let edge = edge(&origin).policy(SLICED).start().await;
    let ask = get("/f");
    let mut readers = Vec::new();
    for _ in 0..5 {
        let mut reader = edge.connect().await;
        reader.send(&ask).await;
        readers.push(reader);
    }
    waiting(&edge, 4).await;
    gate.open();
    for reader in &mut readers {
        assert!(reader.answer("GET").await.body == body);
    }
    assert_eq!(ranges(&origin).len(), 5, "{:?}", ranges(&origin));
}
