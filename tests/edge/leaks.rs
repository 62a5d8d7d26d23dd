//! The leak guard: each test plants a way for one person's answer to reach another, or for one person's request to shape
//! the answer for all, and shows that it does not.

use crate::support::{Answer, Ask, Edge, Gate, Origin, ask, cacheable, edge, get, origin, page, raw};

const SECRET: &str = "the account of ada";
/// What an operator might say who wants much to be cached.
const EAGER: &str = "default_ttl: 1h, stale_while_revalidate: 1h, stale_if_error: 1d";

/// Serves `path` with what `name` said, under these fields.
fn reflect(origin: &Origin, path: &str, name: &'static str, fields: &'static [(&'static str, &'static str)]) {
    origin.answer(path, move |asked| {
        let said = asked.field(name).unwrap_or("nobody".into());
        fields.iter().fold(page(said), |page, (name, value)| page.field(name, value))
    });
}

/// Ada asks, then Bob: Bob's answer.
async fn bob_after_ada(edge: &Edge, ada: &Ask, bob: &Ask) -> Answer {
    let first = edge.ask(ada).await;
    assert_eq!(first.status, 200, "{first:?}");
    edge.settled().await;
    edge.ask(bob).await
}

#[tokio::test]
async fn authorization_is_not_shared() {
    let origin = origin().await;
    for (path, fields) in [
        ("/a", &[("Cache-Control", "max-age=60")][..]),
        ("/b", &[]),
        ("/c", &[("Cache-Control", "max-age=60, proxy-revalidate")]),
        ("/d", &[("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "public")]),
    ] {
        reflect(&origin, path, "authorization", fields);
        let edge = edge(&origin).policy(EAGER).start().await;
        let bob = bob_after_ada(&edge, &get(path).field("Authorization", "ada"), &get(path)).await;
        assert_eq!((bob.text(), bob.is_hit()), ("nobody", false), "{path}");
    }
}

#[tokio::test]
async fn an_authorized_range_is_not_shared() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let body = if asked.field("authorization").is_some() { "ada's" } else { "bob's" };
        cacheable(body).status("206 Partial Content").field("Content-Range", "bytes 0-4/10").field("ETag", "\"v\"")
    });
    let edge = edge(&origin).start().await;
    let range = || get("/a").field("Range", "bytes=0-4");
    let _ = edge.ask(&range().field("Authorization", "ada")).await;
    edge.settled().await;
    assert_eq!(edge.ask(&range()).await.text(), "bob's");
}

#[tokio::test]
async fn a_cookie_that_is_set_is_for_one() {
    let origin = origin().await;
    origin.serve("/a", cacheable(SECRET).field("Set-Cookie", "sid=ada"));
    let edge = edge(&origin).policy(EAGER).start().await;
    let bob = bob_after_ada(&edge, &get("/a"), &get("/a")).await;
    assert!(!bob.is_hit());
    assert_eq!(origin.hits("/a"), 2);
}

#[tokio::test]
async fn a_cookie_that_a_304_sets_is_for_one() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let page = page("x").field("Cache-Control", "max-age=10").etag("\"v\"");
        if asked.field("if-none-match").is_some() { page.field("Set-Cookie", "sid=ada") } else { page }
    });
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    edge.advance(11);
    let _ = edge.get("/a").await;
    let bob = edge.get("/a").await;
    assert!(bob.is_hit() && bob.field("set-cookie").is_none(), "{bob:?}");
}

#[tokio::test]
async fn cookies_that_are_stripped_from_the_store_do_not_come_back_by_a_304() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let page = page("x").field("Cache-Control", "max-age=10").etag("\"v\"");
        let name = if asked.field("if-none-match").is_some() { "sid=ada" } else { "_ga=1" };
        page.field("Set-Cookie", name)
    });
    let edge = edge(&origin).policy("set_cookie: strip, strip_set_cookie: [ _ga ]").start().await;
    let _ = edge.get("/a").await;
    edge.advance(11);
    let _ = edge.get("/a").await;
    let bob = edge.get("/a").await;
    assert!(bob.field("set-cookie").is_none_or(|set| !bob.is_hit() && set == "_ga=1"), "{bob:?}");
}

#[tokio::test]
async fn what_is_private_is_for_one() {
    let origin = origin().await;
    for (path, control) in [
        ("/a", "private"),
        ("/b", "private, max-age=60"),
        ("/c", "PRIVATE, s-maxage=60"),
        ("/d", "max-age=60, private=\"\""),
        ("/e", "public, max-age=60, private"),
        ("/f", "no-store"),
        ("/g", "max-age=60,no-store"),
    ] {
        origin
            .answer(path, move |asked| page(asked.field("x-user").unwrap_or_default()).field("Cache-Control", control));
        let edge = edge(&origin).policy(EAGER).start().await;
        let bob = bob_after_ada(&edge, &get(path).field("X-User", "ada"), &get(path).field("X-User", "bob")).await;
        assert_eq!(bob.text(), "bob", "{control}");
    }
}

#[tokio::test]
async fn fields_that_are_private_stay_with_the_first() {
    let origin = origin().await;
    origin.serve(
        "/a",
        page("x")
            .field("Cache-Control", "max-age=60, private=\"x-user, x-mail\"")
            .field("X-User", "ada")
            .field("X-Mail", "a@b"),
    );
    let edge = edge(&origin).start().await;
    let bob = bob_after_ada(&edge, &get("/a"), &get("/a")).await;
    assert!(bob.is_hit() && bob.field("x-user").is_none() && bob.field("x-mail").is_none(), "{bob:?}");
}

#[tokio::test]
async fn vary_cookie_keeps_people_apart() {
    let origin = origin().await;
    reflect(&origin, "/a", "cookie", &[("Cache-Control", "max-age=60"), ("Vary", "Cookie")]);
    let edge = edge(&origin).policy(EAGER).start().await;
    let of = |cookie| get("/a").field("Cookie", cookie);
    assert_eq!(bob_after_ada(&edge, &of("sid=ada"), &of("sid=bob")).await.text(), "sid=bob");
    assert_eq!(edge.get("/a").await.text(), "nobody");
    assert!(edge.ask(&of("sid=ada")).await.is_hit());
}

#[tokio::test]
async fn a_cookie_forbids_lifetimes_that_the_origin_did_not_give() {
    let origin = origin().await;
    reflect(&origin, "/a", "cookie", &[("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")]);
    for policy in [EAGER, "", "status_ttl: { 200: 1h }", "force_ttl: 1h", "ttl: [ { match: {}, force_ttl: 1h } ]"] {
        let edge = edge(&origin).policy(policy).start().await;
        let bob = bob_after_ada(&edge, &get("/a").field("Cookie", "sid=ada"), &get("/a")).await;
        assert_eq!(bob.text(), "nobody", "{policy}");
    }
}

#[tokio::test]
async fn vary_star_is_for_one() {
    let origin = origin().await;
    for (path, vary) in [("/a", "*"), ("/b", "Accept, *"), ("/c", ", *"), ("/d", "not a name")] {
        origin.answer(path, move |asked| cacheable(asked.field("x-user").unwrap_or_default()).field("Vary", vary));
        let edge = edge(&origin).start().await;
        let bob = bob_after_ada(&edge, &get(path).field("X-User", "ada"), &get(path).field("X-User", "bob")).await;
        assert_eq!(bob.text(), "bob", "{vary}");
    }
}

#[tokio::test]
async fn a_suffix_that_looks_static_makes_nothing_static() {
    let origin = origin().await;
    let suffixes = ["/x.css", "/x.js", "%2Fx.css", ";x.css", "%3Fx.css", "%23x.css", "/..%2Fx.png", "%0Ax.css"];
    for suffix in suffixes {
        reflect(&origin, &format!("/account{suffix}"), "cookie", &[]);
    }
    let edge = edge(&origin).policy(EAGER).start().await;
    for suffix in suffixes {
        let path = format!("/account{suffix}");
        let ada = edge.ask(&get(&path).field("Cookie", "sid=ada")).await;
        let bob = edge.get(&path).await;
        assert!(ada.status == 400 || ada.text() == "sid=ada", "{path}: {ada:?}");
        assert!(bob.status == 400 || bob.text() == "nobody" && !bob.is_hit(), "{path}: {bob:?}");
    }
}

#[tokio::test]
async fn dots_and_suffixes_share_nothing_with_the_page_itself() {
    let origin = origin().await;
    origin.serve("/account", page(SECRET).field("Cache-Control", "private"));
    origin.serve("/static/x.css", cacheable("css"));
    let edge = edge(&origin).policy(EAGER).start().await;
    assert_eq!(edge.get("/static/..%2F../account").await.status, 404, "what is encoded stays one segment");
    assert_eq!(edge.get("/static/../account").await.text(), SECRET);
    let again = edge.get("/account").await;
    assert!(!again.is_hit() && origin.hits("/account") == 2, "normalised before it is judged: {again:?}");
}

#[tokio::test]
async fn forwarding_fields_of_strangers_shape_nothing() {
    let origin = origin().await;
    let names = [
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-for",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "forwarded",
        "x-host",
        "x-real-ip",
        "true-client-ip",
        "client-ip",
        "front-end-https",
    ];
    for name in names {
        reflect(&origin, &format!("/{name}"), name, &[("Cache-Control", "max-age=60")]);
    }
    let edge = edge(&origin).start().await;
    for name in names {
        let path = format!("/{name}");
        let bob = bob_after_ada(&edge, &get(&path).field(name, "evil.test"), &get(&path)).await;
        assert!(bob.is_hit() && !bob.text().contains("evil"), "{name}: {bob:?}");
    }
}

#[tokio::test]
async fn fields_that_name_another_url_shape_nothing() {
    let origin = origin().await;
    for name in
        ["x-original-url", "x-rewrite-url", "x-original-uri", "x-original-host", "x-override-url", "x-proxy-url"]
    {
        let path = format!("/{name}");
        reflect(&origin, &path, name, &[("Cache-Control", "max-age=60")]);
        let edge = edge(&origin).start().await;
        let bob = bob_after_ada(&edge, &get(&path).field(name, "/account"), &get(&path)).await;
        assert!(bob.is_hit() && bob.text() == "nobody", "{name}: {bob:?}");
    }
}

#[tokio::test]
async fn fields_that_name_another_method_shape_nothing() {
    let origin = origin().await;
    for name in ["x-http-method", "x-http-method-override", "x-method-override"] {
        let path = format!("/{name}");
        reflect(&origin, &path, name, &[("Cache-Control", "max-age=60")]);
        let edge = edge(&origin).start().await;
        let bob = bob_after_ada(&edge, &get(&path).field(name, "DELETE"), &get(&path)).await;
        assert!(bob.is_hit() && bob.text() == "nobody", "{name}: {bob:?}");
    }
}

#[tokio::test]
async fn names_that_an_origin_may_read_as_others_do_not_reach_it() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let odd: Vec<_> =
            asked.fields.iter().filter(|(_, value)| value.contains("evil")).map(|(name, _)| name.as_str()).collect();
        cacheable(odd.join(" "))
    });
    let edge = edge(&origin).start().await;
    for name in ["X_Forwarded_Host", "X-Forwarded_Host", "Forwarded"] {
        assert_eq!(edge.ask(&get("/a").field(name, "evil")).await.text(), "", "{name}");
        let _ = edge.purge(r#"{"all":true}"#).await;
    }
    for head in
        ["X-Forwarded-Host : evil", " X-Forwarded-Host: evil", "X-A: b\r\n X-Forwarded-Host: evil", "X-\u{b}Host: evil"]
    {
        let mut connection = edge.connect().await;
        connection.send_bytes(format!("GET /a HTTP/1.1\r\nHost: a.test\r\n{head}\r\n\r\n").as_bytes()).await;
        assert_eq!(connection.answer("GET").await.status, 400, "{head:?}");
    }
}

#[tokio::test]
async fn connection_cannot_take_a_cookie_or_credentials_away() {
    let origin = origin().await;
    for name in ["cookie", "authorization"] {
        let path = format!("/{name}");
        reflect(&origin, &path, name, &[]);
        let edge = edge(&origin).policy("default_ttl: 1h").start().await;
        let ada = edge.ask(&get(&path).field(name, "ada").field("Connection", name)).await;
        assert_eq!(
            (ada.text(), ada.field("cache-status").is_some_and(|status| status.contains("stored"))),
            ("ada", false),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_get_with_a_body_is_for_one() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(asked.body.clone()));
    let edge = edge(&origin).start().await;
    let bob = bob_after_ada(&edge, &get("/a").body("evil=1"), &get("/a")).await;
    assert_eq!((bob.text(), bob.is_hit()), ("", false));
    let over = edge.ask(&get("/a").body("evil=2")).await;
    assert_eq!(over.text(), "evil=2", "and what is stored does not answer it");
}

#[tokio::test]
async fn a_parameter_that_the_key_drops_does_not_reach_the_origin() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(asked.target.clone()));
    let edge = edge(&origin).policy("key: { query: { ignore: [ \"utm_*\" ] } }").start().await;
    for query in
        ["utm_a=evil", "utm_a=1;q=evil", "utm_a=1%26q=evil", "%75tm_a=evil", "utm_a[]=evil", "utm_a", "q=1&utm_b=evil"]
    {
        let answer = edge.get(&format!("/a?{query}")).await;
        assert!(!answer.text().contains("evil"), "{query}: {answer:?}");
    }
    assert_eq!(origin.hits("/a"), 2, "all but the last have one key");
}

#[tokio::test]
async fn parameters_that_differ_have_keys_that_differ() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(asked.target.clone()));
    let edge = edge(&origin).start().await;
    let targets = [
        "/a",
        "/a?",
        "/a?b",
        "/a?b=",
        "/a?b=1",
        "/a?b=1&b=2",
        "/a?b=2&b=1",
        "/a?b=1;b=2",
        "/a?b=1%26b=2",
        "/a?B=1",
        "/a?b=%31%00",
        "/a?b=1&",
        "/a?%62=1%3B",
        "/a?b=1+2",
        "/a?b=1%202",
        "/a?b=1%2B2",
    ];
    for target in targets {
        let answer = edge.get(target).await;
        assert!(answer.status == 400 || !answer.is_hit(), "{target}: {answer:?}");
    }
    for target in targets {
        let answer = edge.get(target).await;
        assert!(answer.status == 400 || answer.text() == target || target.contains("%62"), "{target}: {answer:?}");
    }
}

#[tokio::test]
async fn keys_do_not_collide_by_encoding() {
    let origin = origin().await;
    let paths = [
        "/a/b", "/a%2Fb", "/a%5Cb", "/a%3Fb", "/a%23b", "/a%25b", "/a//b", "/a/b/", "/A/b", "/a;b", "/a%3Bb", "/a%20b",
        "/a+b",
    ];
    for path in paths {
        origin.answer(path, |asked| cacheable(asked.target.clone()));
    }
    let edge = edge(&origin).start().await;
    for path in paths {
        assert!(!edge.get(path).await.is_hit(), "{path}");
    }
    for path in paths {
        let answer = edge.get(path).await;
        assert!(answer.is_hit() && answer.text() == path, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn keys_do_not_collide_by_what_fields_hold() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(format!("{:?} {:?}", asked.field("x-a"), asked.field("x-b"))));
    let edge = edge(&origin).policy("key: { headers: [ x-a, x-b ], cookies: [ c ] }").start().await;
    let asks = [
        get("/a").field("X-A", "1\\nx-b=2"),
        get("/a").field("X-A", "1").field("X-B", "2"),
        get("/a").field("X-A", "1,2"),
        get("/a").field("X-A", "!"),
        get("/a").field("X-B", "1"),
        get("/a").field("X-A", "#"),
        get("/a").field("X-A", ""),
        get("/a").field("Cookie", "c=1"),
        get("/a").field("X-B", ";c=1"),
        get("/a"),
    ];
    for (at, ask) in asks.iter().enumerate() {
        assert!(!edge.ask(ask).await.is_hit(), "row {at}");
    }
}

#[tokio::test]
async fn hosts_are_not_mixed() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(asked.field("host").unwrap_or_default()));
    let edge = edge(&origin).start().await;
    for host in ["a.test", "b.test", "a.test:8080", "a.test.evil"] {
        assert_eq!(edge.ask(&get("/a").field("Host", host)).await.text(), host);
    }
    for (hosts, expected) in [
        ("Host: a.test\r\nHost: evil.test", 400),
        ("Host: a.test@evil.test", 400),
        ("Host: a.test/evil", 400),
        ("Host: a.test, evil.test", 400),
    ] {
        let mut connection = edge.connect().await;
        connection.send_bytes(format!("GET /a HTTP/1.1\r\n{hosts}\r\n\r\n").as_bytes()).await;
        assert_eq!(connection.answer("GET").await.status, expected, "{hosts}");
    }
    let mut connection = edge.connect().await;
    connection.send_bytes(b"GET http://b.test/a HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(connection.answer("GET").await.text(), "b.test", "the target's own host counts");
}

#[tokio::test]
async fn a_304_about_another_variant_freshens_nothing() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let language = asked.field("accept-language").unwrap_or_default();
        let page = page(language.clone()).field("Cache-Control", "max-age=10").field("Vary", "Accept-Language");
        match asked.field("if-none-match") {
            // It speaks of the other one.
            Some(_) => {
                page.status("304 Not Modified").field("ETag", if language == "de" { "\"fr\"" } else { "\"de\"" })
            }
            None => page.field("ETag", &format!("\"{language}\"")),
        }
    });
    let edge = edge(&origin).start().await;
    let of = |language| get("/a").field("Accept-Language", language);
    for language in ["de", "fr"] {
        let _ = edge.ask(&of(language)).await;
    }
    edge.advance(11);
    for language in ["de", "fr", "de"] {
        let answer = edge.ask(&of(language)).await;
        assert_eq!((answer.text(), answer.field("etag")), (language, Some(format!("\"{language}\""))));
    }
    let asked = origin.asked();
    assert!(
        asked.iter().filter_map(|asked| asked.field("if-none-match")).all(|tags| !tags.contains(',')),
        "only its own"
    );
}

#[tokio::test]
async fn parts_of_two_variants_are_not_put_together() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let language = asked.field("accept-language").unwrap_or_default();
        let range = asked.field("range").unwrap_or_default();
        let (span, text) = if range == "bytes=0-4" {
            ("bytes 0-4/10", language.repeat(5))
        } else {
            ("bytes 5-9/10", language.repeat(5))
        };
        // An origin whose tags do not tell its variants apart.
        cacheable(text)
            .status("206 Partial Content")
            .field("Content-Range", span)
            .field("ETag", "\"v\"")
            .field("Vary", "Accept-Language")
    });
    let edge = edge(&origin).start().await;
    let of = |language, range| get("/a").field("Accept-Language", language).field("Range", range);
    let _ = edge.ask(&of("d", "bytes=0-4")).await;
    edge.settled().await;
    let _ = edge.ask(&of("f", "bytes=5-9")).await;
    edge.settled().await;
    let all = edge.ask(&of("f", "bytes=0-9")).await;
    assert_eq!(all.text(), "ffffffffff", "{all:?}");
}

#[tokio::test]
async fn those_who_waited_get_no_private_answer() {
    let origin = origin().await;
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer("/a", move |asked| {
        let page = page(asked.field("x-user").unwrap_or_default()).field("Cache-Control", "private");
        if asked.hits_before == 0 { page.held(&held) } else { page }
    });
    let edge = edge(&origin).start().await;
    let mut waiting = Vec::new();
    for user in 0..10 {
        let mut connection = edge.connect().await;
        connection.send(&get("/a").field("X-User", &user.to_string())).await;
        if user == 0 {
            origin.hit("/a", 1).await;
        }
        waiting.push((user, connection));
    }
    gate.open();
    for (user, connection) in &mut waiting {
        assert_eq!(connection.answer("GET").await.text(), user.to_string());
    }
}

#[tokio::test]
async fn those_who_waited_for_another_cookie_get_their_own_variant() {
    let origin = origin().await;
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer("/a", move |asked| {
        let page = cacheable(asked.field("cookie").unwrap_or_default()).field("Vary", "Cookie");
        if asked.hits_before == 0 { page.held(&held) } else { page }
    });
    let edge = edge(&origin).start().await;
    let (mut ada, mut bob) = (edge.connect().await, edge.connect().await);
    ada.send(&get("/a").field("Cookie", "sid=ada")).await;
    origin.hit("/a", 1).await;
    bob.send(&get("/a").field("Cookie", "sid=bob")).await;
    gate.open();
    assert_eq!(ada.answer("GET").await.text(), "sid=ada");
    assert_eq!(bob.answer("GET").await.text(), "sid=bob");
}

#[tokio::test]
async fn a_stale_answer_never_stands_in_for_a_private_one() {
    let origin = origin().await;
    origin.serve("/a", page("for all").field("Cache-Control", "max-age=1").etag("\"v\""));
    let edge = edge(&origin).policy(EAGER).start().await;
    let _ = edge.get("/a").await;
    edge.advance(4000);
    origin.serve("/a", page(SECRET).field("Cache-Control", "private"));
    assert_eq!(edge.get("/a").await.text(), SECRET);
    origin.serve("/a", page("down").status("503 Service Unavailable"));
    let bob = edge.get("/a").await;
    assert_eq!((bob.status, bob.is_hit()), (503, false), "neither the private one nor what it replaced");
}

#[tokio::test]
async fn an_answer_cannot_be_split() {
    let origin = origin().await;
    let evil =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\nX-A: b\rSet-Cookie: sid=evil\r\n\r\nhi";
    origin.serve("/bare-cr", raw(evil));
    origin.serve("/nul", raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\0c\r\n\r\nhi"));
    origin.serve("/surplus", raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"));
    let edge = edge(&origin).upstream("retries: { max: 0 }").start().await;
    for path in ["/bare-cr", "/nul"] {
        assert_eq!(edge.get(path).await.status, 502, "{path}");
    }
    assert_eq!(edge.get("/surplus").await.text(), "hi");
    origin.serve("/next", cacheable("next"));
    assert_eq!(edge.get("/next").await.text(), "next", "what was left over answers nobody");
}

#[tokio::test]
async fn a_redirect_cannot_be_split() {
    let origin = origin().await;
    let edge = edge(&origin)
        .route(r#"name: r, match: { path: "/old/{*rest}" }, redirect: { to: "https://{host}/{rest}" }"#)
        .start()
        .await;
    for target in ["/old/%0d%0aSet-Cookie:%20sid=evil", "/old/a%0Ab", "/old/%E5%98%8A%E5%98%8D"] {
        let answer = edge.get(target).await;
        assert!(answer.field("set-cookie").is_none(), "{target}: {answer:?}");
        assert!(
            answer.status == 400 || answer.field("location").is_some_and(|to| to.is_ascii() && !to.contains('\n')),
            "{target}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn the_first_clients_request_id_is_its_own() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable("x").field("X-Request-Id", &asked.field("x-request-id").unwrap_or_default()));
    let edge = edge(&origin).start().await;
    let ids: Vec<_> =
        [edge.get("/a").await, edge.get("/a").await].iter().map(|answer| answer.field("x-request-id")).collect();
    assert!(ids[0].is_some() && ids[0] != ids[1], "{ids:?}");
}

#[tokio::test]
async fn early_hints_are_for_the_one_who_asked() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x").interim("103 Early Hints\r\nLink: </ada.css>\r\nSet-Cookie: sid=ada"));
    let edge = edge(&origin).start().await;
    let bob = bob_after_ada(&edge, &get("/a"), &get("/a")).await;
    assert!(
        bob.is_hit() && bob.interim.is_empty() && bob.field("link").is_none() && bob.field("set-cookie").is_none(),
        "{bob:?}"
    );
}

#[tokio::test]
async fn a_head_with_credentials_changes_nothing_for_others() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x").field("ETag", "\"v\""));
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    origin.answer("/a", |asked| {
        cacheable("x").field("ETag", "\"v\"").field("X-User", &asked.field("authorization").unwrap_or_default())
    });
    let _ = edge.ask(&ask("HEAD", "/a").field("Authorization", "ada").field("Cache-Control", "no-cache")).await;
    assert!(edge.get("/a").await.field("x-user").is_none_or(|user| user.is_empty()));
}

#[tokio::test]
async fn an_answer_to_a_post_answers_no_get() {
    let origin = origin().await;
    origin.answer("/a", |asked| cacheable(if asked.method == "POST" { SECRET } else { "page" }));
    let edge = edge(&origin).start().await;
    let bob = bob_after_ada(&edge, &ask("POST", "/a").body("user=ada"), &get("/a")).await;
    assert_eq!((bob.text(), bob.is_hit()), ("page", false));
}

#[tokio::test]
async fn who_somebody_is_cannot_be_claimed() {
    let origin = origin().await;
    for name in ["x-eduham-user", "x-eduham-roles", "edge-fetch", "edge-peer"] {
        let path = format!("/{name}");
        reflect(&origin, &path, name, &[("Cache-Control", "max-age=60")]);
        let edge = edge(&origin).start().await;
        assert_eq!(edge.ask(&get(&path).field(name, "root")).await.text(), "nobody", "{name}");
    }
}

#[tokio::test]
async fn what_needs_an_entitlement_is_not_for_all() {
    let origin = origin().await;
    origin.serve("/a", cacheable(SECRET).field("Edge-Requires", "course:42"));
    let edge = edge(&origin).policy(EAGER).start().await;
    let bob = bob_after_ada(&edge, &get("/a"), &get("/a")).await;
    assert!(!bob.is_hit() && bob.field("edge-requires").is_none(), "{bob:?}");
}

#[tokio::test]
async fn an_answer_that_begins_before_a_purge_does_not_outlive_it() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/a", cacheable(SECRET).held(&gate));
    let edge = edge(&origin).start().await;
    let mut ada = edge.connect().await;
    ada.send(&get("/a")).await;
    origin.hit("/a", 1).await;
    let _ = edge.purge(r#"{"urls":["http://a.test/a"]}"#).await;
    gate.open();
    assert_eq!(ada.answer("GET").await.text(), SECRET);
    edge.settled().await;
    origin.serve("/a", cacheable("public"));
    assert_eq!(edge.get("/a").await.text(), "public");
}

#[tokio::test]
async fn a_body_that_broke_off_is_nobodys_page() {
    let origin = origin().await;
    origin.serve("/a", cacheable("half of it").cut_after(4));
    let edge = edge(&origin).upstream("retries: { max: 0 }").start().await;
    assert!(edge.get("/a").await.cut);
    origin.serve("/a", cacheable("whole"));
    assert_eq!(edge.get("/a").await.text(), "whole");
}
