//! Keys of a cache policy, each by what an operator would see of it.

use crate::support::{Gate, ask, cacheable, edge, get, origin, page};

#[tokio::test]
async fn ttl_rules_go_by_path_type_and_status() {
    let origin = origin().await;
    for path in ["/video/a", "/x.html", "/gone", "/other"] {
        let kind = if path == "/x.html" { "text/html" } else { "text/plain" };
        let status = if path == "/gone" { "404 Not Found" } else { "200 OK" };
        origin.serve(path, cacheable("x").field("Content-Type", kind).status(status));
    }
    let rules = r#"ttl: [ { match: { path: "/video/{*rest}" }, force_ttl: 1h }, { match: { content_type: text/html }, force_ttl: 2m },
                          { match: { status: 4xx }, force_ttl: 5s } ]"#;
    let edge = edge(&origin).policy(rules).start().await;
    for (path, ttl) in [("/video/a", 3600), ("/x.html", 120), ("/gone", 5), ("/other", 60)] {
        let _ = edge.get(path).await;
        assert_eq!(edge.get(path).await.cache_status(), format!("hit; ttl={ttl}"), "{path}");
    }
}

#[tokio::test]
async fn browser_ttl_is_what_clients_get_and_lasts_from_now() {
    let origin = origin().await;
    let answer = page("x").field("Cache-Control", "s-maxage=600, no-transform, immutable").etag("\"v\"");
    origin.serve("/a", answer.field("Expires", "Wed, 01 Jan 2020 00:00:00 GMT"));
    origin.serve("/private", page("x").field("Cache-Control", "private, max-age=60"));
    let edge = edge(&origin).policy("browser_ttl: 30s").start().await;
    for (seconds, expected) in [(0, "max-age=30"), (100, "max-age=130")] {
        edge.advance(seconds);
        for conditional in [false, true] {
            let ask = if conditional { get("/a").field("If-None-Match", "\"v\"") } else { get("/a") };
            let answer = edge.ask(&ask).await;
            let control = answer.field("cache-control");
            assert_eq!(control, Some(format!("{expected}, no-transform, immutable")), "{answer:?}");
            assert_eq!(answer.field("expires"), None);
        }
    }
    let private = edge.get("/private").await;
    assert_eq!(private.field("cache-control").as_deref(), Some("private, max-age=60"), "not ours to change");
}

#[tokio::test]
async fn jitter_spreads_lifetimes_and_only_shortens_them() {
    let origin = origin().await;
    let edge = edge(&origin).policy("ttl_jitter: 50%").start().await;
    let mut seen = std::collections::BTreeSet::new();
    for at in 0..20 {
        let path = format!("/{at}");
        origin.serve(&path, page("x").field("Cache-Control", "max-age=1000"));
        let _ = edge.get(&path).await;
        let status = edge.get(&path).await.cache_status();
        let ttl: u64 = status.strip_prefix("hit; ttl=").and_then(|ttl| ttl.parse().ok()).expect("a hit");
        assert!((499..=1000).contains(&ttl), "{ttl}");
        seen.insert(ttl);
        edge.advance(1);
    }
    assert!(seen.len() > 10, "{seen:?}");
}

#[tokio::test]
async fn fields_and_cookies_can_be_part_of_the_key() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let of = |name| asked.field(name).unwrap_or("none".into());
        cacheable(format!("{} {}", of("x-device"), of("cookie")))
    });
    let edge = edge(&origin).policy("key: { headers: [ x-device ], cookies: [ lang ] }").start().await;
    let asks = [
        get("/a"),
        get("/a").field("X-Device", "phone"),
        get("/a").field("X-Device", "phone").field("Cookie", "lang=de"),
        get("/a").field("Cookie", "lang=de"),
        get("/a").field("Cookie", "lang=fr"),
    ];
    for ask in &asks {
        assert!(!edge.ask(ask).await.is_hit(), "{:?}", ask.fields);
    }
    for (ask, text) in asks.iter().zip(["none none", "phone none", "phone lang=de", "none lang=de", "none lang=fr"]) {
        let answer = edge.ask(ask).await;
        assert!(answer.is_hit() && answer.text() == text, "{answer:?}");
    }
    let other = edge.ask(&get("/a").field("Cookie", "sid=1; lang=de")).await;
    assert!(other.is_hit() && other.text() == "none lang=de", "{other:?}");
    let receipt = edge.purge(r#"{"urls":["http://a.test/a"]}"#).await;
    assert_eq!(receipt["matched"], 5, "a URL is all of them");
}

#[tokio::test]
async fn a_keyed_cookie_may_have_a_lifetime_of_the_policy() {
    let origin = origin().await;
    origin.serve("/a", page("x"));
    let edge = edge(&origin).policy("default_ttl: 1m, key: { cookies: [ lang ] }").start().await;
    let of = |cookie| get("/a").field("Cookie", cookie);
    assert_eq!(edge.ask(&of("lang=de")).await.cache_status(), "fwd=uri-miss; stored");
    assert_eq!(edge.ask(&of("lang=fr; sid=1")).await.cache_status(), "fwd=uri-miss; detail=cookie-forwarded");
}

#[tokio::test]
async fn the_origin_sees_the_cookies_that_are_named() {
    let origin = origin().await;
    origin.answer("/a", |asked| page(asked.field("cookie").unwrap_or("none".into())));
    let edge = edge(&origin).policy("default_ttl: 1m, forward_cookies: [ \"lang*\" ]").start().await;
    let first = edge.ask(&get("/a").field("Cookie", "sid=1; lang=de; _ga=2; lang2=fr")).await;
    assert_eq!(
        (first.text(), first.cache_status()),
        ("lang=de; lang2=fr", "fwd=uri-miss; detail=cookie-forwarded".into())
    );
    let none = edge.ask(&get("/a").field("Cookie", "sid=1")).await;
    assert_eq!((none.text(), none.cache_status()), ("none", "fwd=uri-miss; stored".into()), "nothing was forwarded");
    let post = edge.ask(&ask("POST", "/a").field("Cookie", "sid=1").body("x")).await;
    assert_eq!(post.text(), "sid=1", "what is for nobody else keeps its cookies");
}

#[tokio::test]
async fn languages_make_as_many_variants() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        cacheable(asked.field("accept-language").unwrap_or("none".into())).field("Vary", "Accept-Language")
    });
    let edge = edge(&origin).policy("languages: [ en, de ]").start().await;
    for (accept, expected) in [
        ("de-CH, en;q=0.3", "de"),
        ("de", "de"),
        ("it", "en"),
        ("en-GB;q=0.2, de;q=0.9", "de"),
        ("", "en"),
        ("fr, *", "en"),
    ] {
        let ask = if accept.is_empty() { get("/a") } else { get("/a").field("Accept-Language", accept) };
        assert_eq!(edge.ask(&ask).await.text(), expected, "{accept}");
    }
    assert_eq!(origin.hits("/a"), 2);
}

#[tokio::test]
async fn a_refresh_is_not_looked_up_but_stored() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(asked.hits_before.to_string()));
    let edge = edge(&origin).policy("refresh: { headers: [ x-refresh ] }").start().await;
    assert_eq!(edge.get("/a").await.text(), "0");
    let fresh = edge.ask(&get("/a").field("X-Refresh", "1")).await;
    assert_eq!((fresh.text(), fresh.cache_status()), ("1", "fwd=request; stored; detail=refresh".into()));
    let hit = edge.get("/a").await;
    assert_eq!((hit.text(), hit.is_hit()), ("1", true));
}

#[tokio::test]
async fn what_is_rarely_asked_for_is_not_stored() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x"));
    let edge = edge(&origin).policy("min_uses: 3").start().await;
    for expected in
        ["fwd=uri-miss; detail=min-uses", "fwd=uri-miss; detail=min-uses", "fwd=uri-miss; stored", "hit; ttl=60"]
    {
        assert_eq!(edge.get("/a").await.cache_status(), expected);
    }
}

#[tokio::test]
async fn the_oldest_variant_makes_room() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(asked.field("x-v").unwrap_or_default()).field("Vary", "X-V"));
    let edge = edge(&origin).policy("variants_max: 2").start().await;
    let of = |variant: &str| get("/a").field("X-V", variant);
    for variant in ["1", "2", "3"] {
        let _ = edge.ask(&of(variant)).await;
        edge.settled().await;
    }
    for (variant, expected_hit) in [("2", true), ("3", true), ("1", false)] {
        assert_eq!(edge.ask(&of(variant)).await.is_hit(), expected_hit, "{variant}");
    }
}

#[tokio::test]
async fn the_origin_may_see_what_the_key_drops() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(asked.target.clone()));
    let edge = edge(&origin).policy("key: { query: { ignore: [ utm ], forward: all } }").start().await;
    assert_eq!(edge.get("/a?utm=1&b=2").await.text(), "/a?utm=1&b=2");
    assert!(edge.get("/a?b=2").await.is_hit());
}

#[tokio::test]
async fn cookies_that_do_not_matter_are_stripped() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x").field("Set-Cookie", "_ga=1; Path=/"));
    origin.serve("/b", cacheable("x").field("Set-Cookie", "_ga=1").field("Set-Cookie", "sid=1"));
    let edge = edge(&origin).policy("set_cookie: strip, strip_set_cookie: [ \"_ga*\" ]").start().await;
    for (path, expected_hit) in [("/a", true), ("/b", false)] {
        let _ = edge.get(path).await;
        let second = edge.get(path).await;
        assert_eq!((second.is_hit(), second.field("set-cookie").is_some()), (expected_hit, !expected_hit), "{path}");
    }
}

#[tokio::test]
async fn the_origin_is_not_listened_to_where_the_policy_says_so() {
    let origin = origin().await;
    origin.serve("/a", page("x").field("Cache-Control", "no-store, private"));
    let edge = edge(&origin).policy("ignore_origin: [ cache-control ], default_ttl: 1m").start().await;
    let _ = edge.get("/a").await;
    let hit = edge.get("/a").await;
    assert!(hit.is_hit() && hit.field("cache-control").as_deref() == Some("no-store, private"), "{hit:?}");
}

#[tokio::test]
async fn after_the_wait_all_get_an_error_where_the_policy_says_so() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/a", cacheable("x").held(&gate));
    let edge = edge(&origin).policy("collapse: { wait: 50ms, expired: error }").start().await;
    let (mut writer, mut waiter) = (edge.connect().await, edge.connect().await);
    writer.send(&get("/a")).await;
    gate.reached_by(1).await;
    waiter.send(&get("/a")).await;
    assert_eq!(waiter.answer("GET").await.status, 504);
    gate.open();
    assert_eq!(writer.answer("GET").await.text(), "x");
    assert_eq!(origin.hits("/a"), 1);
}
