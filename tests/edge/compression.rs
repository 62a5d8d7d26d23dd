//! Compression at the edge: who gets which coding of what, and what that answer says of itself.

use std::io::Read;

use crate::support::{Answer, Ask, Edge, Gate, Origin, Page, ask, edge, eventually, get, origin, page};

/// Text that shrinks, of so many lines.
fn text(lines: usize) -> String {
    (0..lines).map(|line| format!("<p>line {line}, and what is always the same</p>\n")).collect()
}

/// A page that a policy with `compress: {}` compresses.
fn html(body: impl Into<Vec<u8>>) -> Page {
    tagged(body, "\"v\"")
}

fn tagged(body: impl Into<Vec<u8>>, tag: &str) -> Page {
    page(body).field("Cache-Control", "max-age=60").field("Content-Type", "text/html; charset=utf-8").etag(tag)
}

async fn compressing(origin: &Origin) -> Edge {
    edge(origin).policy("compress: {}").start().await
}

fn accepting(path: &str, accept: &str) -> Ask {
    get(path).field("Accept-Encoding", accept)
}

/// Waits until no copy is being made.
async fn made(edge: &Edge) {
    let jobs = &edge.running.edge().metrics.compress_jobs;
    eventually("all copies are made", || jobs.get() == 0).await;
}

/// Has the copy made that this request wants.
async fn warm(edge: &Edge, ask: &Ask) {
    for _ in 0..2 {
        let _ = edge.ask(ask).await;
    }
    made(edge).await;
}

fn copies(edge: &Edge, result: &str) -> usize {
    edge.metric(&format!("edge_compressions_total{{result=\"{result}\"}}")) as usize
}

/// The body as it was before it was coded.
#[track_caller]
fn decoded(answer: &Answer) -> String {
    let mut plain = String::new();
    let coded = &answer.body[..];
    let read = match answer.field("content-encoding").as_deref() {
        None => return answer.text().to_owned(),
        Some("br") => brotli::Decompressor::new(coded, 4096).read_to_string(&mut plain),
        Some("zstd") => zstd::Decoder::new(coded).and_then(|mut decoder| decoder.read_to_string(&mut plain)),
        Some("gzip") => flate2::read::GzDecoder::new(coded).read_to_string(&mut plain),
        Some(other) => panic!("{other} is not what was asked for"),
    };
    read.expect("what was coded can be decoded");
    plain
}

/// Coding, tag and `Vary` of an answer.
fn said(answer: &Answer) -> (Option<String>, Option<String>, Option<String>) {
    (answer.field("content-encoding"), answer.field("etag"), answer.field("vary"))
}

fn saying(coding: Option<&str>, tag: &str, vary: Option<&str>) -> (Option<String>, Option<String>, Option<String>) {
    (coding.map(Into::into), Some(tag.into()), vary.map(Into::into))
}

#[tokio::test]
async fn a_later_reader_gets_the_coding_that_it_wants_most() {
    let origin = origin().await;
    let text = text(100);
    origin.serve("/a", html(text.clone()));
    let edge = compressing(&origin).await;
    for (accept, coding) in [
        ("gzip, deflate, br, zstd", "br"),
        ("zstd, gzip", "zstd"),
        ("x-gzip", "gzip"),
        ("br;q=0.5, gzip", "gzip"),
        ("br;q=0, *", "zstd"),
    ] {
        warm(&edge, &accepting("/a", accept)).await;
        let answer = edge.ask(&accepting("/a", accept)).await;
        assert!(answer.is_hit(), "{answer:?}");
        assert_eq!(said(&answer), saying(Some(coding), "W/\"v\"", Some("Accept-Encoding")), "{accept}");
        assert_eq!(answer.field("content-length"), Some(answer.body.len().to_string()));
        assert_eq!(answer.field("accept-ranges"), None);
        assert!(answer.body.len() * 4 < text.len(), "{accept}: {} bytes", answer.body.len());
        assert_eq!(decoded(&answer), text, "{accept}");
    }
    for accept in ["identity", "deflate", "*;q=0", "gzip;q=0", "gzip;q=0.5, identity"] {
        let answer = edge.ask(&accepting("/a", accept)).await;
        assert_eq!(said(&answer), saying(None, "\"v\"", Some("Accept-Encoding")), "{accept}");
        assert_eq!(answer.field("accept-ranges").as_deref(), Some("bytes"));
        assert_eq!(answer.text(), text);
    }
    assert_eq!(edge.get("/a").await.field("content-encoding"), None, "nothing was said");
    assert_eq!((origin.hits("/a"), copies(&edge, "made")), (1, 3), "each coding is made once");
}

#[tokio::test]
async fn nobody_waits_for_a_coding() {
    let origin = origin().await;
    origin.serve("/a", html(text(100)));
    let edge = compressing(&origin).await;
    let miss = edge.ask(&accepting("/a", "br")).await;
    assert_eq!(
        said(&miss),
        saying(None, "\"v\"", Some("Accept-Encoding")),
        "what streams is not coded, and may be later"
    );
    let first = edge.ask(&accepting("/a", "br")).await;
    assert!(first.is_hit() && first.field("content-encoding").is_none(), "{first:?}");
    made(&edge).await;
    assert_eq!(edge.ask(&accepting("/a", "br")).await.field("content-encoding").as_deref(), Some("br"));
}

#[tokio::test]
async fn a_head_says_what_a_get_would() {
    let origin = origin().await;
    origin.serve("/a", html(text(100)));
    let edge = compressing(&origin).await;
    let of = |mut answer: Answer| {
        answer.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("x-request-id"));
        answer.fields
    };
    let head = |accept| ask("HEAD", "/a").field("Accept-Encoding", accept);
    let passed = edge.ask(&head("br")).await;
    assert_eq!(said(&passed), saying(None, "\"v\"", Some("Accept-Encoding")), "before anything is stored");
    warm(&edge, &accepting("/a", "br")).await;
    for accept in ["br", "identity"] {
        let answer = edge.ask(&accepting("/a", accept)).await;
        assert_eq!(of(edge.ask(&head(accept)).await), of(answer), "{accept}");
    }
}

#[tokio::test]
async fn validators_match_weakly_whichever_the_client_has() {
    let origin = origin().await;
    origin.serve("/a", html(text(100)));
    let edge = compressing(&origin).await;
    warm(&edge, &accepting("/a", "br")).await;
    // Of gzip there is no copy yet: its reader may have had one from another edge.
    for (accept, tag) in [("br", "W/\"v\""), ("gzip", "W/\"v\""), ("identity", "\"v\"")] {
        for held in ["\"v\"", "W/\"v\"", "\"other\", W/\"v\""] {
            let answer = edge.ask(&accepting("/a", accept).field("If-None-Match", held)).await;
            assert_eq!(answer.status, 304, "{accept} {held}");
            assert_eq!(said(&answer), saying(None, tag, Some("Accept-Encoding")), "{accept} {held}");
        }
        assert_eq!(edge.ask(&accepting("/a", accept).field("If-None-Match", "\"w\"")).await.status, 200);
    }
    let strongly = edge.ask(&accepting("/a", "br").field("If-Match", "\"v\"")).await;
    assert_eq!(said(&strongly), saying(None, "\"v\"", Some("Accept-Encoding")), "the one that has this tag");
}

#[tokio::test]
async fn ranges_are_of_the_identity_and_never_joined_to_a_coding() {
    let origin = origin().await;
    let text = text(100);
    origin.serve("/a", html(text.clone()).field("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"));
    let edge = compressing(&origin).await;
    warm(&edge, &accepting("/a", "br")).await;
    let part = |accept| accepting("/a", accept).field("Range", "bytes=3-9");
    for ask in [part("br"), part("br").field("If-Range", "\"v\"")] {
        let answer = edge.ask(&ask).await;
        assert_eq!((answer.status, answer.text()), (206, &text[3..10]), "{ask:?}", ask = ask.fields);
        assert_eq!(said(&answer), saying(None, "\"v\"", Some("Accept-Encoding")));
    }
    // Who holds the first bytes of a coded copy has this tag, or this date.
    for held in ["W/\"v\"", "Wed, 01 Jan 2020 00:00:00 GMT"] {
        let answer = edge.ask(&part("br").field("If-Range", held)).await;
        assert_eq!((answer.status, decoded(&answer)), (200, text.clone()), "{held}");
        assert_eq!(answer.field("vary").as_deref(), Some("Accept-Encoding"));
    }
    // Who never takes a coding has the bytes as they are.
    let dated = part("identity").field("If-Range", "Wed, 01 Jan 2020 00:00:00 GMT");
    assert_eq!(edge.ask(&dated).await.status, 206);
}

#[tokio::test]
async fn what_should_not_be_compressed_never_is() {
    let origin = origin().await;
    let text = text(100);
    let rows: Vec<(&str, Page)> = vec![
        ("/tiny", html("small")),
        ("/media", page(text.clone()).field("Cache-Control", "max-age=60").field("Content-Type", "image/png")),
        ("/events", page(text.clone()).field("Cache-Control", "max-age=60").field("Content-Type", "text/event-stream")),
        ("/untyped", page(text.clone()).field("Cache-Control", "max-age=60")),
        ("/no-transform", html(text.clone()).field("Cache-Control", "no-transform")),
        ("/targeted", html(text.clone()).field("CDN-Cache-Control", "max-age=60, no-transform")),
        ("/coded", html(text.clone()).field("Content-Encoding", "gzip")),
        ("/repr-digest", html(text.clone()).field("Repr-Digest", "sha-256=:AAAA:")),
        ("/content-digest", html(text.clone()).field("Content-Digest", "sha-256=:AAAA:")),
        ("/signed", html(text.clone()).field("Signature", "a=:AAAA:")),
        ("/teapot", html(text.clone()).status("418 I'm a teapot")),
    ];
    let edge = edge(&origin).policy("compress: { types: [ \"*\" ] }").start().await;
    for (path, page) in rows {
        origin.serve(path, page.clone());
        for _ in 0..3 {
            let answer = edge.ask(&accepting(path, "br, gzip")).await;
            let coding = (path == "/coded").then_some("gzip");
            assert_eq!(answer.field("content-encoding").as_deref(), coding, "{path}");
            assert_eq!(answer.field("vary"), None, "{path}");
        }
        assert_eq!(origin.hits(path), 1, "{path}");
    }
    assert_eq!((copies(&edge, "made"), copies(&edge, "in-vain")), (0, 0));
}

#[tokio::test]
async fn a_client_may_forbid_it() {
    let origin = origin().await;
    origin.serve("/a", html(text(100)));
    let edge = compressing(&origin).await;
    warm(&edge, &accepting("/a", "br")).await;
    let answer = edge.ask(&accepting("/a", "br").field("Cache-Control", "no-transform")).await;
    assert!(answer.is_hit(), "{answer:?}");
    assert_eq!(said(&answer), saying(None, "\"v\"", Some("Accept-Encoding")));
}

#[tokio::test]
async fn what_does_not_shrink_is_tried_once() {
    let origin = origin().await;
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(4000).collect();
    origin.serve("/a", html(noise));
    let edge = compressing(&origin).await;
    for _ in 0..3 {
        warm(&edge, &accepting("/a", "br")).await;
    }
    assert_eq!(edge.ask(&accepting("/a", "br")).await.field("content-encoding"), None);
    assert_eq!(copies(&edge, "in-vain"), 1);
}

#[tokio::test]
async fn browsers_that_spell_it_differently_are_one_variant() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let coding = asked.field("accept-encoding").unwrap_or_default();
        let answer = html(format!("{coding} of the origin")).field("Vary", "Accept-Encoding");
        if coding == "identity" { answer } else { answer.field("Content-Encoding", &coding) }
    });
    let edge = compressing(&origin).await;
    for (accept, coding, is_hit) in [
        ("gzip, deflate, br, zstd", "br", false),
        ("br , gzip", "br", true),
        ("GZIP;q=0.8, BR", "br", true),
        ("gzip", "gzip", false),
        ("x-gzip, deflate", "gzip", true),
        ("identity", "identity", false),
        ("", "identity", true),
        ("deflate", "identity", true),
    ] {
        let answer = edge.ask(&accepting("/a", accept)).await;
        assert_eq!((answer.text(), answer.is_hit()), (&*format!("{coding} of the origin"), is_hit), "{accept}");
        // What the origin coded is passed on as it is.
        let expected = (coding != "identity").then_some(coding);
        assert_eq!(said(&answer), saying(expected, "\"v\"", Some("Accept-Encoding")), "{accept}");
    }
    assert!(edge.get("/a").await.is_hit(), "nothing said is the identity");
    assert_eq!(origin.hits("/a"), 3);
    assert_eq!(copies(&edge, "made"), 0);
}

#[tokio::test]
async fn without_compress_accept_encoding_is_nobodys_business() {
    let origin = origin().await;
    origin.serve("/a", html(text(100)));
    let edge = edge(&origin).start().await;
    for _ in 0..3 {
        let answer = edge.ask(&accepting("/a", "gzip;q=0.5, br")).await;
        assert_eq!(said(&answer), saying(None, "\"v\"", None));
    }
    assert_eq!(origin.asked()[0].field("accept-encoding").as_deref(), Some("gzip;q=0.5, br"));
}

#[tokio::test]
async fn what_is_not_looked_up_goes_to_the_origin_as_it_came() {
    let origin = origin().await;
    origin.serve("/a", html(text(100)));
    let edge = edge(&origin).policy("compress: {}, bypass: { cookies: [ sid ] }").start().await;
    warm(&edge, &accepting("/a", "br")).await;
    let answer = edge.ask(&accepting("/a", "deflate, br").field("Cookie", "sid=1")).await;
    assert_eq!(said(&answer), saying(None, "\"v\"", None));
    assert_eq!(origin.asked()[1].field("accept-encoding").as_deref(), Some("deflate, br"));
}

#[tokio::test]
async fn a_304_keeps_the_copies_and_new_bytes_drop_them() {
    let origin = origin().await;
    let (old, new) = (text(100), text(101));
    let (first, second) = (old.clone(), new.clone());
    origin.answer("/a", move |asked| match (asked.hits_before, asked.field("if-none-match")) {
        (0, _) => html(first.clone()),
        (1, Some(tag)) => page("").status("304 Not Modified").etag(&tag).field("Cache-Control", "max-age=30"),
        _ => tagged(second.clone(), "\"w\""),
    });
    let edge = compressing(&origin).await;
    warm(&edge, &accepting("/a", "br")).await;
    edge.advance(61);
    let freshened = edge.ask(&accepting("/a", "br")).await;
    assert_eq!(said(&freshened), saying(Some("br"), "W/\"v\"", Some("Accept-Encoding")), "{freshened:?}");
    assert_eq!(freshened.field("cache-control").as_deref(), Some("max-age=30"), "under the new head");
    let hit = edge.ask(&accepting("/a", "br")).await;
    assert!(hit.is_hit() && decoded(&hit) == old, "{hit:?}");
    assert_eq!(origin.asked()[1].field("if-none-match").as_deref(), Some("\"v\""), "the origin's own tag");
    edge.advance(31);
    let changed = edge.ask(&accepting("/a", "br")).await;
    assert_eq!(said(&changed), saying(None, "\"w\"", Some("Accept-Encoding")));
    assert!(changed.text() == new);
    warm(&edge, &accepting("/a", "br")).await;
    let hit = edge.ask(&accepting("/a", "br")).await;
    assert_eq!(said(&hit), saying(Some("br"), "W/\"w\"", Some("Accept-Encoding")));
    assert!(decoded(&hit) == new);
    assert_eq!(copies(&edge, "made"), 2);
}

#[tokio::test]
async fn a_purge_takes_the_copies_along() {
    let origin = origin().await;
    origin.serve("/a", html(text(100)));
    let edge = compressing(&origin).await;
    warm(&edge, &accepting("/a", "br")).await;
    origin.serve("/a", html("gone"));
    edge.purge(r#"{"all":true}"#).await;
    for _ in 0..2 {
        assert_eq!(edge.ask(&accepting("/a", "br")).await.text(), "gone");
    }
}

#[tokio::test]
async fn copies_weigh_in_the_memory_tier() {
    let origin = origin().await;
    // Half of it lies beside its head, half of it in parts, coded or not.
    for (path, lines) in [("/small", 1000), ("/large", 30_000)] {
        origin.serve(path, html(text(lines)));
        let edge = compressing(&origin).await;
        let stored = "edge_cache_stored_bytes{tier=\"memory\"}";
        let _ = edge.get(path).await;
        edge.settled().await;
        let before = edge.metric(stored);
        warm(&edge, &accepting(path, "gzip")).await;
        let coded = edge.ask(&accepting(path, "gzip")).await;
        assert_eq!(coded.field("content-encoding").as_deref(), Some("gzip"), "{path}");
        let grown = edge.metric(stored) - before;
        let least = coded.body.len() as f64;
        assert!((least..least + 4096.0).contains(&grown), "{path}: {grown} for {least} bytes");
        edge.purge(r#"{"all":true}"#).await;
        eventually("all of it is given back", || edge.metric(stored) == 0.0).await;
    }
}

#[tokio::test]
async fn large_copies_are_sent_whole_over_both_protocols() {
    let origin = origin().await;
    let text = text(60_000);
    origin.serve("/a", html(text.clone()));
    let edge = compressing(&origin).await;
    for accept in ["br", "zstd", "gzip"] {
        warm(&edge, &accepting("/a", accept)).await;
        let first = edge.ask(&accepting("/a", accept)).await;
        let second = edge.http2().await.ask(&accepting("/a", accept)).await;
        for answer in [first, second] {
            assert_eq!(said(&answer), saying(Some(accept), "W/\"v\"", Some("Accept-Encoding")));
            assert!(decoded(&answer) == text, "{accept}");
        }
    }
}

#[tokio::test]
async fn who_reads_along_with_a_fetch_is_told_of_vary_too() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/a", html(text(100)).held(&gate));
    let edge = std::sync::Arc::new(compressing(&origin).await);
    let asks: Vec<_> = ["br", "gzip", "identity"]
        .map(|accept| {
            let edge = std::sync::Arc::clone(&edge);
            tokio::spawn(async move { edge.ask(&accepting("/a", accept)).await })
        })
        .into();
    crate::support::waiting(&edge, 2).await;
    gate.open();
    for answer in asks {
        let answer = answer.await.expect("no panic");
        assert_eq!(said(&answer), saying(None, "\"v\"", Some("Accept-Encoding")));
    }
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test]
async fn variants_have_copies_of_their_own() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let group = asked.field("x-group").unwrap_or_default();
        html(format!("group {group}\n").repeat(300)).field("Vary", "X-Group")
    });
    let edge = compressing(&origin).await;
    let of = |group| accepting("/a", "br").field("X-Group", group);
    for group in ["a", "b"] {
        warm(&edge, &of(group)).await;
    }
    for group in ["a", "b"] {
        let answer = edge.ask(&of(group)).await;
        assert_eq!(said(&answer), saying(Some("br"), "W/\"v\"", Some("X-Group, Accept-Encoding")));
        assert!(decoded(&answer) == format!("group {group}\n").repeat(300));
    }
    let told = edge.control(&get("/explain?url=http://a.test/a&header=X-Group:a")).await;
    assert!(told.text().contains(r#""codings":["br"]"#), "{}", told.text());
}

#[tokio::test]
async fn an_error_page_is_coded_too() {
    let origin = origin().await;
    let text = text(100);
    origin.serve("/a", html(text.clone()).status("404 Not Found"));
    let edge = compressing(&origin).await;
    warm(&edge, &accepting("/a", "zstd")).await;
    let answer = edge.ask(&accepting("/a", "zstd")).await;
    assert_eq!((answer.status, answer.field("content-encoding").as_deref()), (404, Some("zstd")));
    assert_eq!(decoded(&answer), text);
}

#[tokio::test]
async fn what_is_one_persons_is_neither_stored_nor_coded() {
    let origin = origin().await;
    for (path, control) in [("/private", "private, max-age=60"), ("/no-store", "no-store")] {
        origin.serve(path, page(text(100)).field("Content-Type", "text/html").field("Cache-Control", control));
    }
    // Where an operator has it stored all the same, the length of a coded body would tell of what is in it.
    let edge = edge(&origin).policy("compress: {}, ignore_origin: [ private ]").start().await;
    for path in ["/private", "/no-store"] {
        for _ in 0..3 {
            let answer = edge.ask(&accepting(path, "br")).await;
            assert_eq!((answer.field("content-encoding"), answer.field("vary")), (None, None), "{path}");
        }
        made(&edge).await;
    }
    assert_eq!(copies(&edge, "made"), 0);
}
