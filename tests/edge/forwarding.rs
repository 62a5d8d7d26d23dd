//! What goes through: to which origin, with which fields, how often, and what is answered without one.

use crate::support::{
    Answer, Gate, ask, cacheable, configured, edge, eventually, eventually_async, get, origin, page, raw, reset, within,
};

#[tokio::test]
async fn routes_may_redirect_or_respond_without_an_origin() {
    let origin = origin().await;
    let edge = edge(&origin)
        .route("name: old, match: { path: \"/old/{page}\" }, redirect: { to: \"https://{host}/new/{page}?{query}\", status: 301 }")
        .route("name: robots, match: { path: /robots.txt }, respond: { status: 200, body: \"User-agent: *\", headers: { content-type: text/plain } }")
        .start()
        .await;
    let moved = edge.get("/old/a?b=1").await;
    assert_eq!((moved.status, moved.field("location").as_deref()), (301, Some("https://a.test/new/a?b=1")));
    let robots = edge.get("/robots.txt").await;
    assert_eq!((robots.text(), robots.field("content-type").as_deref()), ("User-agent: *", Some("text/plain")));
    assert!(robots.field("date").is_some() && robots.field("x-request-id").is_some());
    let head = edge.ask(&ask("HEAD", "/robots.txt")).await;
    assert_eq!((head.body.len(), head.field("content-length").as_deref()), (0, Some("13")));
    assert!(origin.asked().is_empty());
}

#[tokio::test]
async fn a_request_that_no_route_takes_is_404_for_people_and_for_programs() {
    let origin = origin().await;
    let edge = configured(&format!(
        "version: 1\nserver: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}\nadmin: {{ address: \"{{admin}}\" }}\n\
         log: {{ access: {{ to: none }} }}\nupstreams: {{ origin: {{ peers: [ \"{}\" ] }} }}\n\
         routes: [ {{ name: a, match: {{ path: /a }}, upstream: origin }} ]\n",
        origin.address()
    ))
    .start()
    .await;
    for (accept, content_type) in [("text/html", "text/html; charset=utf-8"), ("*/*", "application/problem+json")] {
        let answer = edge.ask(&get("/b").field("Accept", accept)).await;
        assert_eq!((answer.status, answer.field("content-type").as_deref()), (404, Some(content_type)));
        assert_eq!(answer.field("proxy-status").as_deref(), Some("eduham-edge; error=destination_not_found"));
    }
    assert_eq!(edge.metric("edge_requests_total{route=\"none\",status=\"404\"}"), 2.0);
}

#[tokio::test]
async fn the_origin_may_see_another_path() {
    let origin = origin().await;
    origin.answer("/v2/items/1", |asked| cacheable(asked.target.clone()));
    let edge = edge(&origin)
        .route("name: api, match: { path: \"/api/{*rest}\" }, upstream: origin, cache: test, upstream_path: { strip: /api, add: /v2 }")
        .start()
        .await;
    assert_eq!(edge.get("/api/items/1?x=1").await.text(), "/v2/items/1?x=1");
    assert!(edge.get("/api/items/1?x=1").await.is_hit());
}

#[tokio::test]
async fn fields_say_the_way_in_both_directions() {
    let origin = origin().await;
    let answer = page("x").field("Via", "1.1 app").field("Connection", "X-Hop").field("X-Hop", "1").field("X-End", "2");
    origin.serve("/a", answer.field("X-Request-Id", "origin's").field("Keep-Alive", "timeout=5"));
    let edge = edge(&origin).uncached().start().await;
    let answer = edge
        .ask(
            &get("/a")
                .field("X-Forwarded-For", "10.0.0.1")
                .field("Forwarded", "for=10.0.0.1")
                .field("X-Request-Id", "mine")
                .field("Via", "1.1 office")
                .field("CDN-Loop", "other")
                .field("Connection", "X-Secret")
                .field("X-Secret", "1")
                .field("X-EduHam-User", "root")
                .field("X-Kept", "yes"),
        )
        .await;
    let asked = &origin.asked()[0];
    let seen = |name: &str| asked.field(name).unwrap_or_default();
    assert_eq!(seen("host"), "a.test");
    assert_eq!(seen("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen("forwarded"), "for=127.0.0.1;proto=http;host=\"a.test\"");
    assert_eq!((seen("x-forwarded-proto"), seen("x-forwarded-host")), ("http".into(), "a.test".into()));
    assert_eq!(seen("via"), "1.1 office, 1.1 eduham-edge");
    assert_eq!(seen("cdn-loop"), "other, eduham-edge");
    assert_eq!(seen("x-kept"), "yes");
    assert!(seen("traceparent").contains(&seen("x-request-id")) && seen("x-request-id") != "mine");
    for name in ["x-secret", "x-eduham-user", "connection"] {
        assert_eq!(asked.field(name), None, "{name}");
    }
    assert_eq!(answer.field("via").as_deref(), Some("1.1 app, 1.1 eduham-edge"));
    assert_eq!(answer.field("x-request-id"), asked.field("x-request-id"));
    assert_eq!(answer.field("x-end").as_deref(), Some("2"));
    assert_eq!(answer.cache_status(), "fwd=bypass");
    for name in ["x-hop", "keep-alive", "age"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let origin = origin().await;
    origin.serve("/a", page("x"));
    let edge = edge(&origin).uncached().server("trusted_proxies: [ 127.0.0.0/8 ]").start().await;
    let request = get("/a").field("X-Forwarded-For", "192.0.2.7").field("X-Forwarded-Proto", "https");
    let _ = edge.ask(&request).await;
    let asked = &origin.asked()[0];
    assert_eq!(asked.field("x-forwarded-for").as_deref(), Some("192.0.2.7, 127.0.0.1"));
    assert_eq!(asked.field("x-forwarded-proto").as_deref(), Some("https"));
}

#[tokio::test]
async fn a_request_that_comes_round_again_is_508() {
    let origin = origin().await;
    let edge = edge(&origin).start().await;
    let answer = edge.ask(&get("/a").field("CDN-Loop", "eduham-edge")).await;
    assert_eq!(answer.status, 508);
    assert_eq!(answer.field("proxy-status").as_deref(), Some("eduham-edge; error=proxy_loop_detected"));
    assert!(origin.asked().is_empty());
}

#[tokio::test]
async fn a_peer_that_refuses_is_passed_over() {
    let (dead, alive) = (origin().await, origin().await);
    alive.serve("/a", page("x"));
    dead.kill().await;
    let edge =
        edge(&dead).peer(&alive).uncached().upstream("balance: round_robin, retries: { budget: 100% }").start().await;
    for _ in 0..4 {
        assert_eq!(edge.get("/a").await.text(), "x");
    }
    assert_eq!(edge.ask(&ask("POST", "/a").body("new")).await.text(), "x", "nothing of it had been sent");
}

#[tokio::test]
async fn a_status_that_the_policy_names_is_tried_elsewhere_but_once_for_each_peer() {
    let (sick, well) = (origin().await, origin().await);
    sick.serve("/a", page("sick").status("503 Service Unavailable"));
    well.serve("/a", page("well"));
    let edge =
        edge(&sick).peer(&well).uncached().upstream("balance: round_robin, retries: { budget: 100% }").start().await;
    for _ in 0..4 {
        assert_eq!(edge.get("/a").await.text(), "well");
    }
    well.serve("/a", page("sick too").status("503 Service Unavailable"));
    let before = sick.hits("/a") + well.hits("/a");
    assert_eq!(edge.get("/a").await.status, 503);
    assert!(sick.hits("/a") + well.hits("/a") - before <= 3, "one try and two more");
    let only =
        crate::support::edge(&sick).peer(&well).uncached().upstream("retries: { when: [ connect ] }").start().await;
    let before = sick.hits("/a") + well.hits("/a");
    assert_eq!(only.get("/a").await.status, 503);
    assert_eq!(sick.hits("/a") + well.hits("/a") - before, 1);
}

#[tokio::test]
async fn what_was_sent_is_not_sent_again_unless_the_method_allows_it() {
    let origin = origin().await;
    origin.answer("/a", |asked| if asked.hits_before.is_multiple_of(2) { reset() } else { page("done") });
    let edge = edge(&origin).uncached().start().await;
    assert_eq!(edge.ask(&ask("POST", "/a").body("new")).await.status, 502);
    assert_eq!(origin.hits("/a"), 1);
    origin.answer("/b", |asked| if asked.hits_before == 0 { reset() } else { page("done") });
    assert_eq!(edge.ask(&ask("PUT", "/b").body("new")).await.text(), "done");
    assert_eq!(origin.hits("/b"), 2);
}

#[tokio::test]
async fn a_connection_that_went_stale_is_replaced_once() {
    let origin = origin().await;
    // The origin closes a connection when its second request comes, as if it had timed out just then.
    origin.answer("/a", |asked| if asked.earlier > 0 { reset() } else { page("x") });
    let edge = edge(&origin).uncached().upstream("retries: { max: 0 }").start().await;
    for _ in 0..3 {
        assert_eq!(edge.get("/a").await.text(), "x");
    }
    let asked = origin.asked();
    assert_eq!(asked.len(), 5, "each but the first was asked twice");
    assert_eq!(asked.iter().map(|asked| asked.earlier).collect::<Vec<_>>(), [0, 1, 0, 1, 0]);
    let posted = edge.ask(&ask("POST", "/a").body("new")).await;
    assert_eq!((posted.status, origin.hits("/a")), (502, 6), "it may have been acted on");
}

#[tokio::test]
async fn connections_to_the_origin_are_kept_and_closed_ones_noticed() {
    let origin = origin().await;
    origin.serve("/a", page("x"));
    let edge = edge(&origin).uncached().start().await;
    for _ in 0..3 {
        assert_eq!(edge.get("/a").await.text(), "x");
    }
    assert_eq!(origin.connections(), 1);
    origin.close_idle();
    origin.connected(0).await;
    assert_eq!(edge.ask(&ask("POST", "/a").body("new")).await.status, 200);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn an_origin_that_fails_is_told_in_the_words_of_proxy_status() {
    let origin = origin().await;
    let never = Gate::closed();
    origin.serve("/silent", cacheable("late").held(&never));
    origin.serve("/closes", reset());
    origin.serve("/nonsense", raw("SSH-2.0-OpenSSH_9.6\r\n\r\n"));
    let keys = "timeouts: { first_byte: 50ms }, retries: { max: 0 }";
    let cached = edge(&origin).upstream(keys).start().await;
    let passed = edge(&origin).uncached().upstream(keys).start().await;
    let rows = [
        ("/silent", 504, "http_response_timeout"),
        ("/closes", 502, "connection_terminated"),
        ("/nonsense", 502, "http_protocol_error"),
    ];
    let told = |answer: &Answer| answer.field("proxy-status").unwrap_or_default();
    for edge in [&cached, &passed] {
        for (path, status, error) in rows {
            let answer = edge.get(path).await;
            assert_eq!((answer.status, told(&answer)), (status, format!("eduham-edge; error={error}")), "{path}");
            assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
        }
    }
    origin.kill().await;
    for edge in [&cached, &passed] {
        let answer = edge.get("/closes").await;
        assert_eq!((answer.status, told(&answer)), (502, "eduham-edge; error=connection_refused".into()));
    }
    origin.restart().await;
    origin.serve("/closes", page("x"));
    for edge in [&cached, &passed] {
        eventually_async("it is asked again", async || edge.get("/closes").await.text() == "x").await;
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_by_its_length_and_by_count() {
    let origin = origin().await;
    origin.serve("/a", page("x"));
    let edge = edge(&origin).server("limits: { body_bytes: 10 }").start().await;
    assert_eq!(edge.ask(&ask("POST", "/a").body("0123456789")).await.status, 200);
    let long = edge.ask(&ask("POST", "/a").body("0123456789a")).await;
    assert_eq!((long.status, long.text().contains("too-large")), (413, true));
    let mut connection = edge.connect().await;
    let head = "POST /a HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send_bytes(format!("{head}6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n").as_bytes()).await;
    assert_eq!(connection.answer("POST").await.status, 413);
    assert!(within(connection.closed()).await);
    assert!(origin.asked().iter().all(|asked| asked.body.len() <= 10));
}

#[tokio::test]
async fn who_asks_before_sending_a_body_is_told_to_go_on() {
    let origin = origin().await;
    origin.answer("/a", |asked| page(asked.body.clone()));
    let edge = edge(&origin).uncached().start().await;
    let mut connection = edge.connect().await;
    let head = "POST /a HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    connection.send_bytes(head.as_bytes()).await;
    assert_eq!(connection.interim().await, 100);
    connection.send_bytes(b"hello").await;
    assert_eq!(connection.answer("POST").await.text(), "hello");
    assert_eq!(origin.asked()[0].field("expect"), None);
}

#[tokio::test]
async fn early_hints_pass_before_the_answer_and_are_not_stored() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/cached", cacheable("x").interim("103 Early Hints\r\nLink: </a.css>"));
    origin.serve("/passed", page("x").interim("103 Early Hints\r\nLink: </a.css>").held_after(0, &gate));
    let edge = edge(&origin).start().await;
    let answer = edge.get("/cached").await;
    assert_eq!(answer.interim, [(103, vec![("link".to_owned(), "</a.css>".to_owned())])]);
    let hit = edge.get("/cached").await;
    assert!(hit.is_hit() && hit.interim.is_empty() && hit.field("link").is_none(), "{hit:?}");
    let mut connection = edge.connect().await;
    connection.send(&ask("POST", "/passed")).await;
    assert_eq!(connection.interim().await, 103);
    gate.open();
    assert_eq!(connection.answer("POST").await.text(), "x");
}

#[tokio::test]
async fn a_large_upload_streams_and_the_answer_may_come_first() {
    let origin = origin().await;
    let body = vec![b'u'; 3_000_000];
    origin.answer("/a", |asked| page(asked.body.len().to_string()));
    let edge = edge(&origin).uncached().start().await;
    let mut connection = edge.connect().await;
    for _ in 0..2 {
        assert_eq!(connection.ask(&ask("POST", "/a").body(body.clone())).await.text(), "3000000");
    }
    assert!(origin.asked().iter().all(|asked| asked.body == body));
    assert_eq!(edge.http2().await.ask(&ask("POST", "/a").body("small")).await.text(), "5");
}

#[tokio::test]
async fn an_origin_that_answers_before_the_end_of_an_upload_is_heard() {
    let origin = origin().await;
    origin.serve_early("/a", page("too much").status("413 Content Too Large"));
    let edge = edge(&origin).uncached().start().await;
    let mut connection = edge.connect().await;
    // Of a million bytes these come now, the others never.
    let head = "POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n";
    connection.send_bytes(head.as_bytes()).await;
    connection.send_bytes(&[b'u'; 1000]).await;
    let answer = connection.answer("POST").await;
    assert_eq!((answer.status, answer.text(), answer.cut), (413, "too much", false));
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_never_taken_for_whole() {
    let origin = origin().await;
    origin.answer("/a", |asked| page(asked.body.len().to_string()));
    let edge = edge(&origin).uncached().start().await;
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut connection = edge.connect().await;
        let head = format!("POST /a HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n3\r\nabc\r\n");
        connection.send_bytes(head.as_bytes()).await;
        drop(connection);
        eventually("it has ended", || edge.running.connections().open() == 0).await;
    }
    origin.connected(0).await;
    assert!(origin.asked().is_empty(), "the origin never had a whole request: {:?}", origin.asked());
}

#[tokio::test]
async fn odd_methods_and_statuses_pass_unchanged() {
    let origin = origin().await;
    let edge = edge(&origin).start().await;
    for method in ["PUT", "DELETE", "PATCH", "M-SEARCH", "OPTIONS", "PROPFIND"] {
        origin.answer("/m", |asked| page(asked.method.clone()));
        assert_eq!(edge.ask(&ask(method, "/m")).await.text(), method);
    }
    for status in [299, 399, 499, 599, 999] {
        origin.serve("/s", page("x").status(&format!("{status} Odd")));
        assert_eq!(edge.get("/s").await.status, status);
    }
}

#[tokio::test]
async fn records_say_what_happened() {
    let origin = origin().await;
    let answer = cacheable("hello").field("Surrogate-Key", "k1 k2").field("ETag", "\"v\"");
    origin.serve("/a", answer.field("Content-Type", "text/plain"));
    origin.serve("/broken", reset());
    let edge = edge(&origin).upstream("retries: { max: 0 }").logged().start().await;
    let _ = edge.ask(&get("/a?ticket=secret&x=1").field("User-Agent", "test").field("Cookie", "sid=secret")).await;
    edge.advance(7);
    let _ = edge.get("/a?ticket=secret&x=1").await;
    let _ = edge.get("/broken").await;
    assert_eq!(edge.ask(&ask("POST", "/a").body("12345")).await.status, 200);
    origin.serve("/big", page(vec![b'x'; 20_000_000]));
    let mut leaver = edge.connect().await;
    assert_eq!(leaver.ask_head(&get("/big")).await.status, 200);
    drop(leaver);
    eventually("it is noticed", || edge.running.connections().open() == 0).await;
    let records = edge.records().await;
    let [miss, hit, broken, post, left] = &records[..] else { panic!("five records: {records:#?}") };
    let rows = [
        (miss, "method", "GET".into()),
        (miss, "scheme", "http".into()),
        (miss, "host", "a.test".into()),
        (miss, "protocol", "HTTP/1.1".into()),
        (miss, "route", "pages".into()),
        (miss, "policy", "test".into()),
        (miss, "status", 200.into()),
        (miss, "bytes_sent", 5.into()),
        (miss, "content_type", "text/plain".into()),
        (miss, "cache_status", "miss".into()),
        (miss, "surrogate_keys", "k1 k2".into()),
        (miss, "etag", "\"v\"".into()),
        (miss, "response_cache_control", "max-age=60".into()),
        (miss, "upstream", "origin".into()),
        (miss, "peer", origin.address().to_string().into()),
        (miss, "upstream_status", 200.into()),
        (miss, "tries", 1.into()),
        (miss, "user_agent", "test".into()),
        (miss, "client_ip", "127.0.0.1".into()),
        (hit, "cache_status", "hit".into()),
        (hit, "age", 7.into()),
        (hit, "ttl", 53.into()),
        (hit, "key_hash", miss["key_hash"].clone()),
        (broken, "status", 502.into()),
        (broken, "error", "connection_terminated".into()),
        (broken, "cache_status", "miss".into()),
        (post, "method", "POST".into()),
        (post, "bytes_received", 5.into()),
        (post, "cache_status", "bypass".into()),
        (post, "detail", "method".into()),
        (left, "status", 499.into()),
        (left, "client_gone", true.into()),
        (left, "upstream_status", 200.into()),
    ];
    for (record, name, expected) in rows {
        assert_eq!(record[name], expected, "{name} of {record:#}");
    }
    assert!(hit.get("peer").is_none_or(serde_json::Value::is_null), "{hit:#}");
    assert_eq!(miss["time"].as_str().map(str::len), Some("2026-11-24T02:21:37.400Z".len()));
    assert!(!format!("{records:?}").contains("secret"), "{records:#?}");
}
