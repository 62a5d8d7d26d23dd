//! The leak guard, first half: each test plants a way for one person's answer to reach another, and shows that it does not.

use crate::support::{Answer, Ask, Edge, Gate, Origin, ask, cacheable, edge, get, origin, page, waiting};

const SECRET: &str = "the account of ada";
/// What an operator might say who wants much to be cached.
const EAGER: &str = "default_ttl: 1h, stale_while_revalidate: 1h, stale_if_error: 1d";

/// Serves `path` with what `name` said, under these fields.
pub fn reflect(origin: &Origin, path: &str, name: &'static str, fields: &'static [(&'static str, &'static str)]) {
    origin.answer(path, move |asked| {
        let said = asked.field(name).unwrap_or("nobody".into());
        fields.iter().fold(page(said), |page, (name, value)| page.field(name, value))
    });
}

/// Ada asks, then Bob: Bob's answer.
pub async fn bob_after_ada(edge: &Edge, ada: &Ask, bob: &Ask) -> Answer {
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
    let mut connections = Vec::new();
    for user in 0..10 {
        let mut connection = edge.connect().await;
        connection.send(&get("/a").field("X-User", &user.to_string())).await;
        if user == 0 {
            origin.hit("/a", 1).await;
        }
        connections.push((user, connection));
    }
    waiting(&edge, 9).await;
    gate.open();
    for (user, connection) in &mut connections {
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
    waiting(&edge, 1).await;
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
