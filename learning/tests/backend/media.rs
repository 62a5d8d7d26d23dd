//! Pictures and videos, whole and in part.

use axum::http::Method;

use crate::{
    answers::between,
    support::{Bench, now},
};

const YAML: &str = "title: T\nsummary: s\nmodules: [{ title: m, lessons: [film.webm] }]\n";

/// Publishes a video of 200,000 bytes, more than is read at once; answers with its address.
async fn film(bench: &Bench, content: &[u8]) -> String {
    let folder = bench.folder(&[("course.yaml", &YAML.replace("film.webm", "{ file: film.webm, title: Film }"))]);
    std::fs::write(folder.join("film.webm"), content).expect("written");
    bench.import(&folder).await;
    let page = bench.get("/courses/t/lessons/film").await;
    format!("/media/{}", between(page.text(), "src=\"/media/", "\""))
}

pub(crate) async fn ranges_conditions_and_heads_are_exact(bench: Bench) {
    let content: Vec<u8> = (0..200_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let url = film(&bench, &content).await;
    let whole = bench.get(&url).await;
    assert_eq!((whole.status.as_u16(), whole.body.as_ref()), (200, content.as_slice()));
    assert_eq!(whole.field("content-type"), "video/webm");
    assert_eq!(whole.field("content-length"), "200000");
    assert_eq!(whole.field("accept-ranges"), "bytes");
    let etag = whole.field("etag").to_owned();
    assert_eq!(etag, format!("\"{}\"", url.split('/').nth(3).expect("the hash")));
    let date = httpdate::fmt_http_date(now());
    assert_eq!(whole.field("last-modified"), date);

    let head = bench.send(Method::HEAD, &url, &[]).await;
    let mut fields = whole.headers.clone();
    assert_eq!((head.status, &head.headers, head.body.len()), (whole.status, &fields, 0));
    fields.remove("content-length");

    let early = "Sun, 06 Nov 1994 08:49:37 GMT";
    type Fields<'a> = &'a [(&'a str, &'a str)];
    let rows: [(Fields<'_>, u16, &str, std::ops::Range<usize>); 20] = [
        (&[("range", "bytes=0-0")], 206, "bytes 0-0/200000", 0..1),
        (&[("range", "bytes=65530-131080")], 206, "bytes 65530-131080/200000", 65530..131_081),
        (&[("range", "bytes=199990-")], 206, "bytes 199990-199999/200000", 199_990..200_000),
        (&[("range", "bytes=-10")], 206, "bytes 199990-199999/200000", 199_990..200_000),
        (&[("range", "bytes=10-999999")], 206, "bytes 10-199999/200000", 10..200_000),
        (&[("range", "bytes=200000-")], 416, "bytes */200000", 0..0),
        (&[("range", "bytes=5-2")], 200, "", 0..200_000),
        (&[("range", "bytes=0-1,5-6")], 200, "", 0..200_000),
        (&[("range", "bytes=0-0"), ("if-range", &etag)], 206, "bytes 0-0/200000", 0..1),
        (&[("range", "bytes=0-0"), ("if-range", &date)], 206, "bytes 0-0/200000", 0..1),
        (&[("range", "bytes=0-0"), ("if-range", "\"other\"")], 200, "", 0..200_000),
        (&[("range", "bytes=0-0"), ("if-range", early)], 200, "", 0..200_000),
        (&[("if-none-match", &etag)], 304, "", 0..0),
        (&[("if-none-match", "*")], 304, "", 0..0),
        (&[("if-none-match", "\"other\""), ("if-modified-since", &date)], 200, "", 0..200_000),
        (&[("if-modified-since", &date)], 304, "", 0..0),
        (&[("if-none-match", &etag), ("range", "bytes=0-0")], 304, "", 0..0),
        (&[("if-match", &etag), ("range", "bytes=0-0")], 206, "bytes 0-0/200000", 0..1),
        (&[("if-match", "\"other\""), ("range", "bytes=0-0")], 412, "", 0..0),
        (&[("if-unmodified-since", early)], 412, "", 0..0),
    ];
    for (request, status, content_range, part) in rows {
        let answer = bench.send(Method::GET, &url, request).await;
        assert_eq!(answer.status.as_u16(), status, "{request:?}");
        assert_eq!(answer.field("content-range"), content_range, "{request:?}");
        assert_eq!(answer.body.as_ref(), &content[part.clone()], "{request:?}");
        let stored = matches!(status, 200 | 206 | 304);
        assert_eq!(answer.field("cache-control").contains("immutable"), stored, "{request:?}");
        if matches!(status, 200 | 206) {
            assert_eq!(answer.field("content-length"), part.len().to_string(), "{request:?}");
        }
        if stored {
            assert_eq!(answer.field("etag"), etag, "{request:?}");
            assert_ne!(answer.field("surrogate-key"), "", "{request:?}");
        }
    }
    let head = bench.send(Method::HEAD, &url, &[("range", "bytes=-10")]).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (206, 0));
}

pub(crate) async fn only_addresses_that_were_published_exist(bench: Bench) {
    let url = film(&bench, b"film").await;
    let [asset, sha256] = [url.split('/').nth(2).expect("asset"), url.split('/').nth(3).expect("hash")];
    let other = "0".repeat(64);
    for wrong in [
        format!("/media/{asset}/{sha256}/other.webm"),
        format!("/media/{asset}/{other}/film.webm"),
        format!("/media/{other}/{sha256}/film.webm"),
        format!("/media/{asset}/{sha256}/..%2Ffilm.webm"),
        format!("/media/{asset}/%2e%2e/film.webm"),
    ] {
        let answer = bench.get(&wrong).await;
        assert_eq!((answer.status.as_u16(), answer.field("cache-control")), (404, "no-store"), "{wrong}");
    }
}
