//! What is answered from the store, and what a client is told about it.

use crate::support::{Answer, ask, cacheable, edge, get, origin, page};

#[tokio::test]
async fn a_hit_says_its_age_and_a_miss_says_that_it_was_stored() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello").field("X-Own", "1"));
    let edge = edge(&origin).start().await;
    let miss = edge.get("/a").await;
    assert_eq!(miss.cache_status(), "fwd=uri-miss; stored");
    assert_eq!(miss.field("age"), None, "{miss:?}");
    edge.advance(20);
    let hit = edge.get("/a").await;
    assert_eq!(hit.cache_status(), "hit; ttl=40");
    assert_eq!(hit.field("age").as_deref(), Some("20"));
    assert_eq!((hit.field("x-own"), hit.field("via")), (Some("1".into()), Some("1.1 eduham-edge".into())));
    edge.advance(40);
    let expired = edge.get("/a").await;
    assert_eq!(expired.cache_status(), "fwd=stale; stored; detail=stale");
    assert_eq!(origin.hits("/a"), 2);
    assert_eq!((edge.results("miss"), edge.results("hit"), edge.results("expired")), (1, 1, 1));
}

#[tokio::test]
async fn an_age_that_came_from_another_cache_is_kept_and_grows() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello").field("Age", "10"));
    let edge = edge(&origin).start().await;
    assert_eq!(edge.get("/a").await.field("age").as_deref(), Some("10"));
    edge.advance(5);
    assert_eq!(edge.get("/a").await.field("age").as_deref(), Some("15"));
}

#[tokio::test]
async fn fields_that_no_cache_names_are_for_the_first_client_alone() {
    let origin = origin().await;
    let answer = page("hello").field("Cache-Control", "max-age=60, no-cache=\"x-first\"").field("X-First", "1");
    origin.serve("/a", answer);
    let edge = edge(&origin).start().await;
    assert_eq!(edge.get("/a").await.field("x-first").as_deref(), Some("1"));
    let hit = edge.get("/a").await;
    assert!(hit.is_hit() && hit.field("x-first").is_none(), "{hit:?}");
}

#[tokio::test]
async fn what_the_origin_says_to_caches_alone_is_not_told_to_clients() {
    let origin = origin().await;
    let answer = page("hello").field("CDN-Cache-Control", "max-age=60").field("Surrogate-Key", "k");
    origin.serve("/a", answer.field("Cache-Tag", "t").field("Cache-Control", "no-store"));
    let edge = edge(&origin).start().await;
    for expected_hit in [false, true] {
        let answer = edge.get("/a").await;
        assert_eq!(answer.is_hit(), expected_hit);
        for name in ["cdn-cache-control", "surrogate-key", "cache-tag"] {
            assert_eq!(answer.field(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn what_may_not_be_stored_is_refused_with_the_reason() {
    let rows = [
        ("/no-store", page("x").field("Cache-Control", "no-store"), "no-store"),
        ("/private", page("x").field("Cache-Control", "private, max-age=60"), "private"),
        ("/cookie", cacheable("x").field("Set-Cookie", "a=1"), "set-cookie"),
        ("/star", cacheable("x").field("Vary", "*"), "vary-star"),
        ("/nothing", page("x"), "no-freshness"),
        ("/until-close", cacheable("x").close_delimited(), "close-delimited"),
        ("/partial", cacheable("x").status("206 Partial Content").field("Content-Range", "bytes 0-0/9"), "partial"),
    ];
    let origin = origin().await;
    let edge = edge(&origin).start().await;
    for (path, answer, reason) in rows {
        origin.serve(path, answer);
        for hits in 1..=2 {
            let answer = edge.get(path).await;
            assert_eq!(answer.cache_status(), format!("fwd=uri-miss; detail={reason}"), "{path}");
            assert_eq!((answer.text(), answer.cut, origin.hits(path)), ("x", false, hits), "{path}");
        }
        assert_eq!(edge.metric(&format!("edge_cache_refusals_total{{reason=\"{reason}\"}}")), 2.0, "{path}");
    }
}

#[tokio::test]
async fn a_private_answer_never_reaches_another_client() {
    let origin = origin().await;
    origin.answer("/me", |asked| {
        page(asked.field("x-user").unwrap_or_default()).field("Cache-Control", "private, max-age=60")
    });
    let edge = edge(&origin).start().await;
    for user in ["ada", "bob", "ada"] {
        assert_eq!(edge.ask(&get("/me").field("X-User", user)).await.text(), user);
    }
    assert_eq!(edge.purge(r#"{"all":true}"#).await["matched"], 0, "nothing is stored");
}

#[tokio::test]
async fn set_cookie_is_refused_or_stored_as_the_policy_says() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello").field("Set-Cookie", "theme=dark"));
    let refusing = edge(&origin).start().await;
    let storing = edge(&origin).policy("set_cookie: store").start().await;
    for (edge, expected_hit) in [(refusing, false), (storing, true)] {
        let _ = edge.get("/a").await;
        let second = edge.get("/a").await;
        assert_eq!((second.is_hit(), second.field("set-cookie").as_deref()), (expected_hit, Some("theme=dark")));
    }
}

#[tokio::test]
async fn a_forwarded_cookie_needs_a_lifetime_of_the_origin() {
    let origin = origin().await;
    origin.serve("/silent", page("x").field("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"));
    origin.serve("/explicit", cacheable("x"));
    let edge = edge(&origin).policy("default_ttl: 1m").start().await;
    let with_cookie = |path| get(path).field("Cookie", "a=1");
    for _ in 0..2 {
        assert_eq!(edge.ask(&with_cookie("/silent")).await.cache_status(), "fwd=uri-miss; detail=cookie-forwarded");
    }
    assert!(edge.get("/silent").await.cache_status().contains("stored"));
    assert!(edge.ask(&with_cookie("/silent")).await.is_hit(), "what was stored without a cookie is for all");
    assert!(edge.ask(&with_cookie("/explicit")).await.cache_status().contains("stored"));
}

#[tokio::test]
async fn vary_keeps_variants_apart_and_finds_them_again() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        cacheable(asked.field("accept-language").unwrap_or("none".into())).field("Vary", "Accept-Language")
    });
    let edge = edge(&origin).start().await;
    let of = |language| get("/a").field("Accept-Language", language);
    assert_eq!(edge.ask(&of("de")).await.cache_status(), "fwd=uri-miss; stored");
    assert_eq!(edge.ask(&of("fr")).await.cache_status(), "fwd=vary-miss; stored");
    for (language, text) in [("de", "de"), ("fr", "fr"), ("it", "it")] {
        let answer = edge.ask(&of(language)).await;
        assert_eq!((answer.text(), answer.is_hit()), (text, language != "it"), "{answer:?}");
    }
    assert_eq!(edge.get("/a").await.text(), "none");
    assert_eq!(origin.hits("/a"), 4);
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get_and_else_asked_of_the_origin() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello"));
    let edge = edge(&origin).start().await;
    let cold = edge.ask(&ask("HEAD", "/a")).await;
    assert_eq!((cold.status, cold.field("content-length").as_deref(), cold.body.len()), (200, Some("5"), 0));
    assert_eq!(origin.asked()[0].method, "HEAD");
    assert_eq!(edge.get("/a").await.cache_status(), "fwd=uri-miss; stored");
    let mut connection = edge.connect().await;
    let warm = connection.ask(&ask("HEAD", "/a")).await;
    assert_eq!((warm.is_hit(), warm.field("content-length").as_deref()), (true, Some("5")));
    assert_eq!(connection.ask(&get("/a")).await.text(), "hello", "nothing followed the head");
    assert_eq!(origin.hits("/a"), 2);
}

#[tokio::test]
async fn a_304_of_the_origin_updates_the_fields_of_later_hits() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let version = asked.hits_before.to_string();
        page("hello").field("Cache-Control", "max-age=10").field("X-Version", &version).etag("\"v\"")
    });
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    edge.advance(11);
    let validated = edge.get("/a").await;
    assert_eq!(validated.cache_status(), "fwd=stale; fwd-status=304; stored; detail=stale");
    assert_eq!(
        (validated.status, validated.text(), validated.field("x-version").as_deref()),
        (200, "hello", Some("1"))
    );
    let hit = edge.get("/a").await;
    assert_eq!((hit.cache_status(), hit.field("x-version").as_deref()), ("hit; ttl=10".into(), Some("1")));
    assert_eq!((edge.results("revalidated"), origin.hits("/a")), (1, 2));
}

#[tokio::test]
async fn a_304_about_something_else_makes_the_edge_ask_for_the_whole() {
    let origin = origin().await;
    origin.answer("/a", |asked| match asked.hits_before {
        0 => page("old").field("Cache-Control", "max-age=10").field("ETag", "\"old\""),
        1 => page("").status("304 Not Modified").field("ETag", "\"other\""),
        _ => cacheable("new").field("ETag", "\"new\""),
    });
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    edge.advance(11);
    assert_eq!(edge.get("/a").await.text(), "new");
    let asked = origin.asked_for("/a");
    assert_eq!(asked[1].field("if-none-match").as_deref(), Some("\"old\""));
    assert_eq!((asked.len(), asked[2].field("if-none-match")), (3, None));
    assert_eq!(edge.get("/a").await.text(), "new");
}

#[tokio::test]
async fn a_304_that_withdraws_the_permission_to_store_is_answered_and_forgotten() {
    let origin = origin().await;
    origin.answer("/a", |asked| match asked.hits_before {
        0 => page("hello").field("Cache-Control", "max-age=10").etag("\"v\""),
        _ => page("hello").field("Cache-Control", "no-store").etag("\"v\""),
    });
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    edge.advance(11);
    for _ in 0..2 {
        let answer = edge.get("/a").await;
        assert_eq!((answer.status, answer.text(), answer.is_hit()), (200, "hello", false), "{answer:?}");
    }
}

#[tokio::test]
async fn conditions_of_clients_are_decided_on_what_is_stored() {
    let origin = origin().await;
    let modified = "Wed, 01 Jan 2020 00:00:00 GMT";
    origin.serve("/a", cacheable("hello").field("Last-Modified", modified).field("ETag", "\"v\""));
    let edge = edge(&origin).start().await;
    for (name, value, status) in [
        ("If-None-Match", "\"v\"", 304),
        ("If-None-Match", "W/\"v\", \"w\"", 304),
        ("If-None-Match", "\"w\"", 200),
        ("If-Modified-Since", modified, 304),
        ("If-Modified-Since", "Tue, 31 Dec 2019 00:00:00 GMT", 200),
        ("If-Match", "\"v\"", 200),
        ("If-Unmodified-Since", modified, 200),
    ] {
        let answer = edge.ask(&get("/a").field(name, value)).await;
        assert_eq!(answer.status, status, "{name}: {value}");
        assert_eq!(answer.body.is_empty(), status == 304);
    }
    assert_eq!(origin.hits("/a"), 1, "also the first one, which asked with a condition, stored the whole");
    assert_eq!(origin.asked()[0].field("if-none-match"), None);
}

#[tokio::test]
async fn a_condition_that_the_stored_response_does_not_meet_is_asked_of_the_origin() {
    let origin = origin().await;
    origin.answer("/a", |asked| match asked.field("if-match").as_deref() {
        Some("\"new\"") => page("new").field("ETag", "\"new\""),
        Some(_) => page("").status("412 Precondition Failed"),
        None => cacheable("old").field("ETag", "\"old\""),
    });
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    let newer = edge.ask(&get("/a").field("If-Match", "\"new\"")).await;
    assert_eq!((newer.status, newer.text()), (200, "new"));
    assert_eq!(newer.cache_status(), "fwd=request; detail=conditional");
    assert_eq!(edge.ask(&get("/a").field("If-Match", "\"other\"")).await.status, 412);
    assert_eq!(edge.get("/a").await.text(), "old");
}

fn range(path: &str, range: &str) -> crate::support::Ask {
    get(path).field("Range", range)
}

#[tokio::test]
async fn ranges_are_cut_from_what_is_stored() {
    let origin = origin().await;
    let body: String = ('a'..='z').cycle().take(1000).collect();
    origin.serve("/a", cacheable(body.clone()).field("ETag", "\"v\"").field("Content-Type", "text/plain"));
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    let found = |answer: &Answer| (answer.status, answer.field("content-range"));
    for (asked, from, to) in [("bytes=0-9", 0, 10), ("bytes=990-", 990, 1000), ("bytes=-5", 995, 1000)] {
        let answer = edge.ask(&range("/a", asked)).await;
        assert_eq!(found(&answer), (206, Some(format!("bytes {from}-{}/1000", to - 1))), "{asked}");
        assert_eq!(answer.text(), &body[from..to], "{asked}");
        assert!(answer.is_hit());
    }
    let unsatisfiable = edge.ask(&range("/a", "bytes=1000-")).await;
    assert_eq!(found(&unsatisfiable), (416, Some("bytes */1000".into())));
    let several = edge.ask(&range("/a", "bytes=0-1,500-502")).await;
    let content_type = several.field("content-type").unwrap_or_default();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("a multipart answer");
    let part = |from: usize, to: usize| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {from}-{}/1000\r\n\r\n{}",
            to - 1,
            &body[from..to]
        )
    };
    assert_eq!(several.text(), format!("{}{}\r\n--{boundary}--\r\n", part(0, 2), part(500, 503)));
    for (tag, status) in [("\"v\"", 206), ("\"w\"", 200)] {
        assert_eq!(edge.ask(&range("/a", "bytes=0-9").field("If-Range", tag)).await.status, status, "{tag}");
    }
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test]
async fn a_range_of_what_is_stale_is_cut_after_its_validation() {
    let origin = origin().await;
    origin.serve("/a", page("hello").field("Cache-Control", "max-age=10").etag("\"v\""));
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    edge.advance(11);
    let answer = edge.ask(&range("/a", "bytes=1-3")).await;
    assert_eq!((answer.status, answer.text()), (206, "ell"));
    assert_eq!(answer.cache_status(), "fwd=stale; fwd-status=304; stored; detail=stale");
    assert_eq!(origin.asked()[1].field("range").as_deref(), Some("bytes=1-3"), "nobody wants more of a newer one");
}

#[tokio::test]
async fn a_head_of_the_origin_freshens_or_ends_what_is_stored() {
    let origin = origin().await;
    for (path, etag, expected) in
        [("/same", "\"v\"", "hit; ttl=5"), ("/other", "\"w\"", "fwd=stale; stored; detail=stale")]
    {
        let fresh = || page("hello").field("Cache-Control", "max-age=10").field("ETag", "\"v\"");
        origin.serve(path, fresh());
        let edge = edge(&origin).start().await;
        let _ = edge.get(path).await;
        edge.advance(11);
        origin.serve(path, page("hello").field("Cache-Control", "max-age=10").field("ETag", etag));
        let head = edge.ask(&ask("HEAD", path)).await;
        assert_eq!((head.status, head.cache_status()), (200, "fwd=stale; detail=method".into()), "{path}");
        edge.advance(5);
        let status = edge.get(path).await.cache_status();
        assert!(status == expected || path == "/other" && status.starts_with("fwd="), "{path}: {status}");
    }
}

#[tokio::test]
async fn a_range_that_is_not_stored_is_asked_of_the_origin_as_that_range() {
    let origin = origin().await;
    origin.serve("/a", page("ell").status("206 Partial Content").field("Content-Range", "bytes 1-3/5"));
    let edge = edge(&origin).start().await;
    let answer = edge.ask(&range("/a", "bytes=1-3")).await;
    assert_eq!((answer.status, answer.text()), (206, "ell"));
    assert_eq!(answer.field("content-range").as_deref(), Some("bytes 1-3/5"));
    assert_eq!(answer.cache_status(), "fwd=uri-miss; detail=no-freshness");
    assert_eq!(origin.asked()[0].field("range").as_deref(), Some("bytes=1-3"));
}

#[tokio::test]
async fn clients_may_ask_for_more_than_the_store_has_unless_the_policy_ignores_them() {
    let rows = [
        ("no-cache", "fwd=request; stored; detail=request-no-cache"),
        ("max-age=5", "fwd=request; stored; detail=request-max-age"),
        ("min-fresh=70", "fwd=request; stored; detail=request-min-fresh"),
    ];
    let origin = origin().await;
    origin.serve("/a", cacheable("hello"));
    let honouring = edge(&origin).start().await;
    let ignoring = edge(&origin).policy("client_directives: ignore").start().await;
    for edge in [&honouring, &ignoring] {
        let _ = edge.get("/a").await;
        edge.advance(10);
    }
    for (directive, expected) in rows {
        let request = get("/a").field("Cache-Control", directive);
        assert!(ignoring.ask(&request).await.is_hit(), "{directive}");
        assert_eq!(honouring.ask(&request).await.cache_status(), expected, "{directive}");
        honouring.advance(10);
    }
}

#[tokio::test]
async fn only_if_cached_is_answered_from_the_store_or_with_504() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello"));
    let edge = edge(&origin).start().await;
    let request = get("/a").field("Cache-Control", "only-if-cached");
    assert_eq!(edge.ask(&request).await.status, 504);
    assert_eq!(origin.hits("/a"), 0);
    let _ = edge.get("/a").await;
    assert_eq!(edge.ask(&request).await.text(), "hello");
}

#[tokio::test]
async fn a_request_with_no_store_leaves_nothing_behind() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello"));
    let edge = edge(&origin).start().await;
    for _ in 0..2 {
        let answer = edge.ask(&get("/a").field("Cache-Control", "no-store")).await;
        assert_eq!(answer.cache_status(), "fwd=uri-miss; detail=request-no-store");
    }
    assert_eq!(edge.get("/a").await.cache_status(), "fwd=uri-miss; stored");
}

#[tokio::test]
async fn a_get_with_a_body_is_passed_with_it_and_not_stored() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello"));
    let edge = edge(&origin).start().await;
    let answer = edge.ask(&get("/a").body("query")).await;
    assert_eq!(answer.cache_status(), "fwd=bypass; detail=request-body");
    assert_eq!(origin.asked()[0].body, b"query");
    assert_eq!(edge.get("/a").await.cache_status(), "fwd=uri-miss; stored");
}

#[tokio::test]
async fn what_the_policy_bypasses_is_neither_looked_up_nor_stored() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello"));
    let edge = edge(&origin)
        .policy("bypass: { cookies: [ \"sess*\" ], headers: [ x-preview ], query: [ draft ] }")
        .start()
        .await;
    let rows = [
        (get("/a").field("Cookie", "a=1; session=2"), "bypass-cookie"),
        (get("/a").field("X-Preview", "1"), "bypass-header"),
        (get("/a?draft=1"), "bypass-query"),
    ];
    for (request, reason) in &rows {
        assert_eq!(edge.ask(request).await.cache_status(), format!("fwd=bypass; detail={reason}"));
    }
    assert_eq!(edge.get("/a").await.cache_status(), "fwd=uri-miss; stored");
    for (request, _) in &rows {
        assert!(!edge.ask(request).await.is_hit());
    }
    assert_eq!(edge.results("bypass"), 6);
}

#[tokio::test]
async fn the_key_drops_and_sorts_parameters_and_the_origin_sees_those_that_are_keyed() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(asked.target.clone()));
    let ignoring = edge(&origin).policy("key: { query: { ignore: [ \"utm_*\" ] } }").start().await;
    assert_eq!(ignoring.get("/a?b=2&utm_source=x&a=1").await.text(), "/a?b=2&a=1");
    for target in ["/a?a=1&b=2", "/a?b=2&a=1&utm_medium=y"] {
        assert!(ignoring.get(target).await.is_hit(), "{target}");
    }
    for target in ["/a?a=1&b=3", "/a?a=1", "/a?a=1&b"] {
        assert!(!ignoring.get(target).await.is_hit(), "{target}");
    }
    let only = edge(&origin).policy("key: { query: { only: [ page ] } }").start().await;
    assert_eq!(only.get("/a?x=1&page=2").await.text(), "/a?page=2");
    assert!(only.get("/a?page=2&y=3").await.is_hit());
}

#[tokio::test]
async fn hosts_and_forms_of_a_path_share_a_key_where_they_are_the_same() {
    let origin = origin().await;
    origin.answer("/a/b", |asked| cacheable(asked.field("host").unwrap_or_default()));
    let edge = edge(&origin).start().await;
    let of = |host, path| get(path).field("Host", host);
    assert_eq!(edge.ask(&of("a.test", "/a/b")).await.text(), "a.test");
    for (host, path, expected_hit) in [
        ("A.TEST", "/a/b", true),
        ("a.test:80", "/a/b", true),
        ("a.test", "/a/./c/../b", true),
        ("a.test", "/%61/b", true),
        ("a.test:8080", "/a/b", false),
        ("b.test", "/a/b", false),
    ] {
        assert_eq!(edge.ask(&of(host, path)).await.is_hit(), expected_hit, "{host}{path}");
    }
}

#[tokio::test]
async fn http_2_and_http_1_share_what_is_stored() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello"));
    let edge = edge(&origin).start().await;
    let http2 = edge.http2().await;
    assert_eq!(http2.ask(&get("/a")).await.cache_status(), "fwd=uri-miss; stored");
    assert!(edge.get("/a").await.is_hit());
    let hit = http2.ask(&get("/a")).await;
    assert_eq!((hit.is_hit(), hit.text()), (true, "hello"));
}
