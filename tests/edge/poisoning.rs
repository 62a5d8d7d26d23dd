//! The leak guard, second half: each test plants a way for one person's request to shape the answer for all, or to have it
//! under another key, and shows that it does not.

use crate::{
    leaks::{bob_after_ada, reflect},
    support::{ask, cacheable, edge, get, origin, raw},
};

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
async fn connection_cannot_take_away_what_picks_the_variant() {
    let origin = origin().await;
    for name in ["accept-language", "origin", "x-device"] {
        origin.answer(&format!("/{name}"), move |asked| {
            cacheable(asked.field(name).unwrap_or("nobody".into())).field("Vary", name)
        });
    }
    let edge = edge(&origin).policy("key: { headers: [ x-device ] }").start().await;
    for name in ["accept-language", "origin", "x-device"] {
        let (path, value) = (format!("/{name}"), "de");
        let evil = get(&path).field(name, value).field("Connection", name);
        let bob = bob_after_ada(&edge, &evil, &get(&path).field(name, value)).await;
        assert_eq!(bob.text(), value, "{name}: {bob:?}");
    }
}

#[tokio::test]
async fn what_is_asked_aside_of_the_cache_changes_nothing_in_it() {
    let origin = origin().await;
    origin.answer("/a", |asked| {
        let whose = asked.field("x-original-url").or(asked.field("cookie")).unwrap_or("all".into());
        cacheable("page").etag("\"v\"").field("X-Whose", &whose)
    });
    let edge = edge(&origin).policy("bypass: { cookies: [ sid ] }").start().await;
    let _ = edge.get("/a").await;
    edge.settled().await;
    for evil in
        [ask("HEAD", "/a").field("Cookie", "sid=ada"), ask("HEAD", "/a").field("X-Original-URL", "/evil").body("x")]
    {
        assert_eq!(edge.ask(&evil).await.status, 200);
        edge.settled().await;
        let bob = edge.get("/a").await;
        assert!(bob.is_hit() && bob.field("x-whose").as_deref() == Some("all"), "{bob:?}");
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
async fn who_somebody_is_cannot_be_claimed() {
    let origin = origin().await;
    for name in ["x-eduham-user", "x-eduham-roles", "edge-fetch", "edge-peer"] {
        let path = format!("/{name}");
        reflect(&origin, &path, name, &[("Cache-Control", "max-age=60")]);
        let edge = edge(&origin).start().await;
        assert_eq!(edge.ask(&get(&path).field(name, "root")).await.text(), "nobody", "{name}");
    }
}
