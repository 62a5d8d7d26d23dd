//! What is taken out of the store: by purge, and by requests that change things.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::task::JoinSet;

use crate::support::{
    Edge, Gate, Page, ask, cacheable, configured, edge, eventually, get, origin, page, reset, within,
};

async fn hit(edge: &Edge, target: &str) -> bool {
    edge.get(target).await.is_hit()
}

#[tokio::test]
async fn a_purge_by_url_takes_all_variants_and_what_the_key_drops() {
    let origin = origin().await;
    origin.answer("/a", |_| cacheable("x").field("Vary", "Accept-Language"));
    origin.serve("/b", cacheable("x"));
    let edge = edge(&origin).policy("key: { query: { ignore: [ \"utm_*\" ] } }").start().await;
    let german = get("/a?q=1").field("Accept-Language", "de");
    for _ in 0..2 {
        let _ = (edge.get("/a?q=1").await, edge.ask(&german).await, edge.get("/b").await);
    }
    let receipt = edge.purge(r#"{"urls":["http://a.test/a?utm_source=mail&q=1"]}"#).await;
    assert_eq!((&receipt["matched"], &receipt["complete"]), (&2.into(), &true.into()), "{receipt}");
    assert!(!hit(&edge, "/a?q=1").await && !edge.ask(&german).await.is_hit());
    assert!(hit(&edge, "/b").await);
    assert_eq!(edge.metric("edge_purges_total{kind=\"url\"}"), 1.0);
}

#[tokio::test]
async fn a_variant_that_was_purged_is_no_other_variant() {
    let origin = origin().await;
    origin.answer("/a", |_| cacheable("x").field("Vary", "Accept-Language"));
    let edge = edge(&origin).start().await;
    let in_language = |language| get("/a").field("Accept-Language", language);
    edge.ask(&in_language("de")).await;
    // What clients change is not cleared away: it is found when it is looked for.
    edge.ask(&ask("POST", "/a")).await;
    assert_eq!(edge.ask(&in_language("en")).await.cache_status(), "fwd=uri-miss; stored");
    assert_eq!(edge.ask(&in_language("fr")).await.cache_status(), "fwd=vary-miss; stored");
}

#[tokio::test]
async fn a_purge_by_key_takes_what_carries_it_and_one_of_all_takes_all() {
    let origin = origin().await;
    origin.serve("/1", cacheable("x").field("Surrogate-Key", "course:1 course:all"));
    origin.serve("/2", cacheable("x").field("Cache-Tag", "course:2, course:all"));
    origin.serve("/3", cacheable("x"));
    let edge = edge(&origin).start().await;
    let fill = async || {
        for path in ["/1", "/2", "/3"] {
            let _ = edge.get(path).await;
        }
    };
    for (order, matched, left) in [
        (r#"{"surrogate_keys":["course:1"]}"#, 1, [false, true, true]),
        (r#"{"surrogate_keys":["course:all"]}"#, 2, [false, false, true]),
        (r#"{"surrogate_keys":["course"]}"#, 0, [true, true, true]),
        (r#"{"all":true}"#, 3, [false, false, false]),
    ] {
        fill().await;
        assert_eq!(edge.purge(order).await["matched"], matched, "{order}");
        for (path, left) in ["/1", "/2", "/3"].into_iter().zip(left) {
            assert_eq!(hit(&edge, path).await, left, "{order} {path}");
        }
    }
}

#[tokio::test]
async fn prefixes_hosts_and_urls_of_any_query_take_what_lies_there() {
    let origin = origin().await;
    let targets = ["/", "/a", "/a?q=1", "/a/b", "/ab?q"];
    for target in targets {
        origin.serve(target.split('?').next().unwrap(), cacheable("x"));
    }
    let edge = edge(&origin).start().await;
    for (order, left) in [
        (r#"{"prefixes":["https://A.test/a"]}"#, [true, false, false, false, false]),
        (r#"{"prefixes":["http://a.test/%61/"]}"#, [true, true, true, false, true]),
        (r#"{"prefixes":["http://b.test/"]}"#, [true; 5]),
        (r#"{"hosts":["a.TEST"]}"#, [false; 5]),
        (r#"{"hosts":["b.test"]}"#, [true; 5]),
        (r#"{"urls":["http://a.test/a"]}"#, [true, false, true, true, true]),
        (r#"{"urls":["http://a.test/a?z"],"ignore_query":true}"#, [true, false, false, true, true]),
    ] {
        for target in targets {
            let _ = edge.get(target).await;
        }
        let gone = left.iter().filter(|left| !**left).count();
        let dry = format!(r#"{{"dry_run":true,{}"#, &order[1..]);
        for _ in 0..2 {
            let counted = edge.purge(&dry).await;
            assert_eq!((&counted["matched"], &counted["bytes"]), (&gone.into(), &gone.into()), "{dry}");
        }
        for target in targets {
            assert!(hit(&edge, target).await, "a dry run does nothing: {dry} {target}");
        }
        assert_eq!(edge.purge(order).await["matched"], gone, "{order}");
        for (target, left) in targets.into_iter().zip(left) {
            assert_eq!(hit(&edge, target).await, left, "{order} {target}");
        }
    }
}

#[tokio::test]
async fn what_was_purged_gives_its_space_back() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x".repeat(10_000)));
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    edge.settled().await;
    assert!(edge.metric("edge_cache_stored_bytes") > 10_000.0);
    edge.purge(r#"{"all":true}"#).await;
    eventually("it is cleared away", || edge.metric("edge_cache_stored_bytes") == 0.0).await;
}

#[tokio::test]
async fn purges_are_remembered() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x"));
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    let read = async |path: &str| -> serde_json::Value {
        let answer = edge.control(&get(path)).await;
        serde_json::from_str(answer.text()).expect("JSON")
    };
    let first = edge.purge(r#"{"urls":["http://a.test/a?b"],"soft":true}"#).await;
    let second = edge.purge(r#"{"hosts":["a.test"],"wait":true}"#).await;
    let _ = edge.ask(&ask("POST", "/a")).await;
    let purges = read("/purges").await["purges"].clone();
    let ids: Vec<_> = purges.as_array().expect("a list").iter().map(|purge| &purge["id"]).collect();
    assert_eq!(ids, [&second["id"], &first["id"]], "the newest first, and not what clients do");
    let found = read(&format!("/purges/{}", first["id"].as_str().expect("a text"))).await;
    assert_eq!(
        (&found["urls"][0], &found["soft"], &found["complete"]),
        (&"a.test/a?b".into(), &true.into(), &true.into())
    );
    assert_eq!((&found["at"], &found["node"]), (&"2026-11-24T02:21:37.400Z".into(), &"edge-test".into()));
    assert_eq!((&second["matched"], &second["complete"]), (&1.into(), &true.into()));
    let fleet = read("/fleet").await;
    assert_eq!((&fleet["connected"], &fleet["nodes"][0]["id"]), (&true.into(), &"edge-test".into()));
}

#[tokio::test]
async fn the_method_purge_takes_its_url_with_a_token_that_may() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x"));
    let token = |name: &str, allow: &str| format!("{{ name: {name}, value: {name}-secret, allow: [ {allow} ] }}");
    let tokens = [token("cms", "purge"), token("reader", "read")].join(", ");
    let yaml = format!(
        "version: 1\nserver: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}\n\
         admin: {{ address: \"{{admin}}\", tokens: [ {tokens} ] }}\nlog: {{ access: {{ to: none }} }}\n\
         upstreams: {{ origin: {{ peers: [ \"{}\" ] }} }}\ncache: {{ test: {{}} }}\n\
         routes: [ {{ name: pages, match: {{}}, upstream: origin, cache: test }} ]\n",
        origin.address()
    );
    let edge = configured(&yaml).start().await;
    for (authorization, status, left) in [
        (None, 401, true),
        (Some("Bearer other-secret"), 401, true),
        (Some("Bearer reader-secret"), 403, true),
        (Some("Bearer cms-secret"), 200, false),
    ] {
        let _ = edge.get("/a").await;
        let mut purge = ask("PURGE", "/a");
        if let Some(value) = authorization {
            purge = purge.field("Authorization", value);
        }
        let answer = edge.ask(&purge).await;
        assert_eq!(answer.status, status, "{authorization:?}: {}", answer.text());
        assert_eq!(hit(&edge, "/a").await, left, "{authorization:?}");
    }
    assert!(!origin.asked().iter().any(|asked| asked.method == "PURGE"), "it is not for the origin");
}

#[tokio::test]
async fn what_was_purged_is_not_served_when_the_origin_fails_unless_softly() {
    for (soft, status) in [(false, 502), (true, 200)] {
        let origin = origin().await;
        origin.serve("/a", cacheable("x"));
        let edge = edge(&origin).policy("stale_if_error: 1h").upstream("retries: { max: 0 }").start().await;
        let _ = edge.get("/a").await;
        edge.purge(&format!(r#"{{"all":true,"soft":{soft}}}"#)).await;
        origin.serve("/a", reset());
        assert_eq!(edge.get("/a").await.status, status, "soft: {soft}");
    }
}

#[tokio::test]
async fn what_is_purged_while_the_origin_is_asked_does_not_stand_in_for_it() {
    for (soft, status) in [(false, 502), (true, 200)] {
        let origin = origin().await;
        let gate = Gate::closed();
        let held = gate.clone();
        origin.answer("/a", move |asked| if asked.hits_before == 0 { cacheable("x") } else { reset().held(&held) });
        let edge = edge(&origin).policy("stale_if_error: 1d").upstream("retries: { max: 0 }").start().await;
        let _ = edge.get("/a").await;
        edge.advance(3601);
        let mut early = edge.connect().await;
        early.send(&get("/a")).await;
        gate.reached_by(1).await;
        edge.purge(&format!(r#"{{"all":true,"soft":{soft}}}"#)).await;
        gate.open();
        assert_eq!(early.answer("GET").await.status, status, "soft: {soft}");
    }
}

#[tokio::test]
async fn what_is_purged_while_the_answers_before_it_are_read_slowly_is_not_answered() {
    let origin = origin().await;
    // More than the sockets between take.
    origin.serve("/large", cacheable(vec![b'x'; 24 << 20]));
    origin.answer("/a", |asked| page(format!("version {}", asked.hits_before)).field("Cache-Control", "max-age=1"));
    let edge = edge(&origin).policy("stale_while_revalidate: 1h").start().await;
    let _ = (edge.get("/large").await, edge.get("/a").await);
    edge.advance(2);
    let mut slow = edge.connect().await;
    slow.send_bytes(b"GET /large HTTP/1.1\r\nHost: a.test\r\n\r\nGET /a HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let mut first = slow.head().await;
    assert!(first.is_hit());
    edge.purge(r#"{"urls":["http://a.test/a"]}"#).await;
    slow.rest("GET", &mut first).await;
    assert_eq!(first.body.len(), 24 << 20);
    assert_eq!(slow.answer("GET").await.text(), "version 1");
}

#[tokio::test]
async fn a_soft_purge_makes_stale_and_is_validated() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x").etag("\"v\""));
    let edge = edge(&origin).start().await;
    let _ = edge.get("/a").await;
    assert_eq!(edge.purge(r#"{"urls":["http://a.test/a"],"soft":true}"#).await["matched"], 1);
    assert_eq!(edge.get("/a").await.cache_status(), "fwd=stale; fwd-status=304; stored; detail=purged");
    assert!(hit(&edge, "/a").await, "what was validated after the purge is fresh");
}

#[tokio::test]
async fn a_purge_during_a_fetch_keeps_its_answer_out_of_the_store() {
    for order in [r#"{"urls":["http://a.test/a"]}"#, r#"{"surrogate_keys":["k"]}"#, r#"{"all":true}"#] {
        let origin = origin().await;
        let gate = Gate::closed();
        let held = gate.clone();
        origin.answer("/a", move |asked| {
            let answer = cacheable(format!("version {}", asked.hits_before)).field("Surrogate-Key", "k");
            if asked.hits_before == 0 { answer.held_after(3, &held) } else { answer }
        });
        let edge = edge(&origin).start().await;
        let mut early = edge.connect().await;
        let mut first = early.ask_head(&get("/a")).await;
        edge.purge(order).await;
        // Who asks after the purge does not get what was fetched before it.
        assert_eq!(edge.get("/a").await.text(), "version 1", "{order}");
        gate.open();
        early.rest("GET", &mut first).await;
        assert_eq!(first.text(), "version 0", "{order}");
        edge.settled().await;
        assert_eq!(edge.get("/a").await.text(), "version 1", "{order}");
    }
}

#[tokio::test]
async fn a_purge_before_the_head_has_come_is_not_answered_with_it_either() {
    for order in [r#"{"urls":["http://a.test/a"]}"#, r#"{"surrogate_keys":["k"]}"#] {
        let origin = origin().await;
        let gate = Gate::closed();
        let held = gate.clone();
        origin.answer("/a", move |asked| {
            let answer = cacheable(format!("version {}", asked.hits_before)).field("Surrogate-Key", "k");
            if asked.hits_before == 0 { answer.held(&held) } else { answer }
        });
        let edge = edge(&origin).start().await;
        let mut early = edge.connect().await;
        early.send(&get("/a")).await;
        gate.reached_by(1).await;
        edge.purge(order).await;
        let mut late = edge.connect().await;
        late.send(&get("/a")).await;
        eventually("the late one is in", || edge.running.connections().open() == 2).await;
        gate.open();
        assert_eq!(late.answer("GET").await.text(), "version 1", "{order}");
        assert_eq!(early.answer("GET").await.text(), "version 0", "{order}");
        edge.settled().await;
        assert_eq!(edge.get("/a").await.text(), "version 1", "{order}");
    }
}

#[tokio::test]
async fn an_unsafe_request_invalidates_its_target_and_what_its_answer_names() {
    let changed = |status: &str| page("done").status(status);
    let rows: [(&str, Page, [bool; 3]); 6] = [
        ("POST", changed("200 OK"), [false, true, true]),
        ("PUT", changed("204 No Content"), [false, true, true]),
        ("DELETE", changed("303 See Other").field("Location", "/list"), [false, false, true]),
        ("PATCH", changed("200 OK").field("Content-Location", "http://a.test/item"), [false, true, false]),
        ("POST", changed("200 OK").field("Location", "http://b.test/list"), [false, true, true]),
        ("POST", changed("500 Internal Server Error"), [true, true, true]),
    ];
    for (method, answer, left) in rows {
        let origin = origin().await;
        for path in ["/a", "/list", "/item"] {
            origin.serve(path, cacheable("x"));
        }
        let edge = edge(&origin).upstream("retries: { max: 0 }").start().await;
        for path in ["/a", "/list", "/item"] {
            let _ = edge.get(path).await;
        }
        let read = cacheable("x");
        origin.answer("/a", move |asked| if asked.method == "GET" { read.clone() } else { answer.clone() });
        let answer = edge.ask(&ask(method, "/a").body("new")).await;
        assert_eq!(answer.cache_status(), "fwd=method; detail=method", "{method}");
        for (path, left) in ["/a", "/list", "/item"].into_iter().zip(left) {
            assert_eq!(hit(&edge, path).await, left, "{method} {path} {answer:?}");
        }
    }
}

#[tokio::test]
async fn an_unsafe_request_on_a_route_without_a_cache_invalidates_the_cached_route() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x"));
    let edge = edge(&origin)
        .policy("key: { query: { ignore: [ \"*\" ] } }")
        .route("name: writes, match: { path: \"/{*rest}\", methods: [ POST ] }, upstream: origin")
        .start()
        .await;
    let _ = edge.get("/a").await;
    assert!(hit(&edge, "/a?x=1").await);
    let passed = edge.ask(&ask("POST", "/a?y=2").body("new")).await;
    assert_eq!(passed.field("cache-status").as_deref(), Some("eduham-edge; fwd=bypass"));
    assert!(!hit(&edge, "/a").await);
}

#[tokio::test]
async fn an_unsafe_request_invalidates_the_cache_groups_that_its_answer_names_on_its_origin() {
    let origin = origin().await;
    let in_groups = |groups: &str| cacheable("x").field("Cache-Groups", groups);
    origin.serve("/one", in_groups(r#""course:7", "list""#));
    origin.serve("/two", in_groups(r#""course:7""#));
    origin.serve("/other", in_groups(r#""course:8""#));
    origin.serve("/unnamed", cacheable("x").field("Surrogate-Key", "course:7"));
    let names =
        |status: &str| page("done").status(status).field("Cache-Group-Invalidation", r#""course:7";why="edited""#);
    origin.answer("/edit", move |_| names("200 OK"));
    let paths = ["/one", "/two", "/other", "/unnamed"];
    let edge = edge(&origin).start().await;
    for (method, host, left) in [
        ("GET", "a.test", [true, true, true, true]),
        ("POST", "b.test", [true, true, true, true]),
        ("POST", "a.test", [false, false, true, true]),
    ] {
        for path in paths {
            let _ = edge.get(path).await;
        }
        let _ = edge.ask(&ask(method, "/edit").field("Host", host)).await;
        for (path, left) in paths.into_iter().zip(left) {
            assert_eq!(hit(&edge, path).await, left, "{method} {host}: {path}");
        }
    }
}

#[tokio::test]
async fn a_purge_of_a_host_that_only_a_site_serves_finds_its_policy() {
    let origin = origin().await;
    origin.serve("/a", cacheable("x"));
    let edge = configured(&format!(
        "version: 1\nserver: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}\nadmin: {{ address: \"{{admin}}\" }}\n\
         log: {{ access: {{ to: none }} }}\ncache: {{ pages: {{ key: {{ query: {{ only: [ page ] }} }} }} }}\n\
         upstreams: {{ origin: {{ peers: [ \"{}\" ] }} }}\n\
         sites: [ {{ hosts: [ \"*.b.test\" ], routes: [ {{ name: all, match: {{ path: \"/{{*rest}}\" }}, upstream: origin, cache: pages }} ] }} ]\n",
        origin.address()
    ))
    .start()
    .await;
    let request = get("/a?page=1&x=2").field("Host", "www.b.test");
    let _ = edge.ask(&request).await;
    assert!(edge.ask(&request).await.is_hit());
    assert_eq!(edge.purge(r#"{"urls":["https://www.b.test/a?y=3&page=1"]}"#).await["matched"], 1);
    assert!(!edge.ask(&request).await.is_hit());
}

/// Readers beside a writer that changes a page so often.
const CHANGES: u64 = 40;
const READERS: usize = 8;

/// Changes a page and says so by `tell`, while others read it: whoever asks after that gets the new one or a newer.
async fn nobody_reads_what_was_before(policy: &str, tell: impl AsyncFn(&Edge)) {
    let origin = origin().await;
    let version = Arc::new(AtomicU64::new(0));
    let current = Arc::clone(&version);
    origin.answer("/a", move |asked| match asked.method.as_str() {
        "GET" => cacheable(current.load(Ordering::SeqCst).to_string()).field("Surrogate-Key", "k"),
        _ => page("changed"),
    });
    let edge = Arc::new(edge(&origin).policy(policy).start().await);
    // What is announced; grows after `tell`.
    let floor = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (edge, floor) = (Arc::clone(&edge), Arc::clone(&floor));
        readers.spawn(async move {
            let mut connection = edge.connect().await;
            let mut hits = 0;
            loop {
                let least = floor.load(Ordering::SeqCst);
                let answer = connection.ask(&get("/a")).await;
                let got: u64 = answer.text().parse().expect("a version");
                assert!(got >= least, "{got} after {least}: {answer:?}");
                hits += usize::from(answer.is_hit());
                if least == CHANGES {
                    return hits;
                }
            }
        });
    }
    for change in 1..=CHANGES {
        version.store(change, Ordering::SeqCst);
        tell(&edge).await;
        floor.store(change, Ordering::SeqCst);
        // Time to store it again.
        let _ = edge.get("/a").await;
    }
    let hits: usize = within(readers.join_all()).await.iter().sum();
    assert!(hits > 0, "something was stored meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_purge_nobody_reads_what_was_before() {
    let orders = [r#"{"urls":["http://a.test/a"]}"#, r#"{"surrogate_keys":["k"]}"#, r#"{"all":true}"#];
    for order in orders {
        nobody_reads_what_was_before("", async move |edge| {
            edge.purge(order).await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_unsafe_request_nobody_reads_what_was_before() {
    nobody_reads_what_was_before("stale_while_revalidate: 1h", async |edge| {
        assert_eq!(edge.ask(&ask("POST", "/a").body("new")).await.text(), "changed");
    })
    .await;
}
