//! What a node says of a URL, and what the record says of each request: both come from the decision.

use std::time::SystemTime;

use eduham_edge::store::{PurgeOrder, PurgeTarget};
use serde_json::Value;

use crate::{
    fleet::{connected, member, ready},
    parts::{body, file, serve},
    support::{
        Answer, Ask, Edge, Gate, RedisServer, ask, cacheable, edge, eventually, eventually_async, get, origin, page,
        reset, waiting,
    },
};

async fn explained(edge: &Edge, url: &str, language: &str) -> serde_json::Value {
    let path = format!("/explain?url={url}&header=Accept-Language:%20{language}");
    let answer = edge.control(&get(&path)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(answer.text()).expect("an explanation is JSON")
}

#[tokio::test]
async fn a_node_explains_a_url_from_what_it_has_stored() {
    let origin = origin().await;
    let response = page("hello").field("Cache-Control", "max-age=60").field("Vary", "Accept-Language");
    origin.serve("/a", response.field("Surrogate-Key", "course:1 page:2"));
    let edge = edge(&origin).policy("stale_if_error: 1h").start().await;
    let _ = edge.ask(&get("/a").field("Accept-Language", "de")).await;
    edge.advance(10);

    let found = explained(&edge, "http://a.test/a", "de").await;
    assert_eq!((&found["outcome"], &found["cause"]), (&"hit".into(), &"fresh".into()), "{found}");
    assert_eq!(found["cache_status"], "eduham-edge; hit; ttl=50");
    assert_eq!(found["result"], "hit");
    assert_eq!(found["route"]["policy"], "test");
    let stored = &found["store"]["variants"][0];
    assert_eq!((&stored["age"], &stored["lifetime"], &stored["ttl"]), (&10.into(), &60.into(), &50.into()));
    assert_eq!(
        (&stored["source"], &stored["bytes"], &stored["tier"]),
        (&"max-age".into(), &5.into(), &"memory".into())
    );
    assert_eq!(stored["vary"][0], "accept-language=de");
    assert_eq!(stored["surrogate_keys"][1], "page:2");
    assert_eq!(stored["selected"], true);

    let other = explained(&edge, "http://a.test/a", "en").await;
    assert_eq!((&other["outcome"], &other["result"]), (&"fetched".into(), &"miss".into()), "{other}");
    assert_eq!(other["cache_status"], "eduham-edge; fwd=vary-miss");
    assert_eq!(other["store"]["variants"][0]["selected"], false);

    edge.advance(60);
    let stale = explained(&edge, "http://a.test/a", "de").await;
    assert_eq!((&stale["outcome"], &stale["cause"]), (&"validated".into(), &"stale".into()), "{stale}");
    let decided = stale["steps"].as_array().unwrap().iter().rfind(|told| told["rule"] == stale["cause"]).unwrap();
    let changes = decided["changes"].as_array().unwrap();
    assert!(changes.iter().any(|change| change["key"] == "cache.test.stale_while_revalidate"), "{changes:?}");
    // Asking changes nothing.
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn a_record_has_what_decided_and_no_secret() {
    let origin = origin().await;
    let response = page("hello").field("Cache-Control", "max-age=60").field("Vary", "Accept-Language, Cookie");
    origin.serve("/a", response.field("Last-Modified", "Tue, 24 Nov 2026 00:00:00 GMT"));
    let edge = edge(&origin).policy("browser_ttl: 5s").logged().start().await;
    let said = told(&edge, &get("/a")).await;
    let asked = get("/a").field("Accept-Language", "de").field("Cookie", "session=secret");
    let _ = edge.ask(&asked).await;
    let _ = edge.ask(&asked.field("Authorization", "Basic c2VjcmV0")).await;
    let records = edge.records().await;
    for (record, status) in records.iter().zip(["miss", "hit"]) {
        assert_eq!(record["cache_status"], status, "{record}");
        assert_eq!(record["key_hash"], said["key"]["hash"]);
        assert_eq!(record["variant"], "accept-language=de; cookie not shown");
        assert_eq!(record["response_cache_control"], "max-age=60");
        assert_eq!(record["last_modified"], "Tue, 24 Nov 2026 00:00:00 GMT");
        assert_eq!(record["request_cookie"], true);
        assert!(!record.to_string().contains("secret") && !record.to_string().contains("c2VjcmV0"), "{record}");
    }
    assert_eq!(records[1]["request_authorization"], true);
}

#[tokio::test]
async fn an_explanation_is_asked_for_by_url_method_and_headers() {
    let origin = origin().await;
    let edge = edge(&origin).start().await;
    for (query, expected) in [
        ("url=http%3A%2F%2Fa.test%2F.%2Fx%3Fy%3D1&method=HEAD", Ok(("HEAD", "http://a.test/x?y=1", "bypassed"))),
        ("url=http://a.test/", Ok(("GET", "http://a.test/", "fetched"))),
        ("url=http://a.test/&header=Cache-Control:+only-if-cached", Ok(("GET", "http://a.test/", "refused"))),
        ("url=http://a.test/../x", Ok(("GET", "http://a.test/", "refused"))),
        ("", Err("`url` is missing")),
        ("url=ftp://a.test/", Err("must begin with http://")),
        ("url=http://a%20b/", Err("host")),
        ("url=http://a.test/&method=A%20B", Err("is no method")),
        ("url=http://a.test/&header=nothing", Err("Name: value")),
        ("uri=http://a.test/", Err("is no parameter")),
    ] {
        let answer = edge.control(&get(&format!("/explain?{query}"))).await;
        let body: serde_json::Value = serde_json::from_str(answer.text()).expect("JSON");
        match expected {
            Ok((method, url, outcome)) => {
                let request = &body["request"];
                assert_eq!((&request["method"], &request["url"]), (&method.into(), &url.into()), "{query}");
                assert_eq!(body["outcome"], outcome, "{query}: {body}");
            }
            Err(words) => {
                let detail = body["detail"].as_str().expect("a problem");
                assert!(answer.status == 400 && detail.contains(words), "{query}: {detail}");
            }
        }
    }
    assert_eq!(origin.asked().len(), 0);
}

/// Asks a node what it would do with a request to `http://a.test`.
async fn told(edge: &Edge, asked: &Ask) -> Value {
    let encoded = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let mut path =
        format!("/explain?method={}&url={}", asked.method, encoded(&format!("http://a.test{}", asked.target)));
    for (name, value) in &asked.fields {
        path.push_str(&format!("&header={}", encoded(&format!("{name}: {value}"))));
    }
    let answer = edge.control(&get(&path)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(answer.text()).expect("an explanation is JSON")
}

/// Outcome, cause, and `Cache-Status` without its name.
fn verdict(told: &Value) -> (&str, &str, &str) {
    let text = |key: &str| told[key].as_str().unwrap_or_default();
    let status = text("cache_status");
    (text("outcome"), text("cause"), status.strip_prefix("eduham-edge; ").unwrap_or(status))
}

/// `Cache-Status` without what only the origin's answer could say.
fn foreseeable(answer: &Answer) -> String {
    answer.cache_status().replace("; fwd-status=304", "").replace("; stored", "")
}

fn step<'t>(told: &'t Value, rule: &str) -> &'t str {
    let steps = told["steps"].as_array().expect("steps");
    let step = steps.iter().rfind(|step| step["rule"] == rule).unwrap_or_else(|| panic!("no {rule}: {told}"));
    step["outcome"].as_str().expect("words")
}

/// What brings an edge into a state.
enum Before {
    Asked(Ask),
    Passed(u64),
    SoftPurged,
    /// Everything, and what it took is not cleared away yet.
    Purged,
    /// The origin says nothing any more.
    Failed,
}

/// Policy, entity tag, what came before, the request; its outcome, cause and `Cache-Status`, and the status.
type Row = (&'static str, &'static str, Vec<Before>, Ask, (&'static str, &'static str, &'static str), u16);

#[tokio::test]
async fn a_node_says_beforehand_what_an_exchange_does_then() {
    use Before::{Asked, Failed, Passed, Purged, SoftPurged};
    let whole = || get("/f");
    let with = |name: &str, value: &str| get("/f").field(name, value);
    let part = || with("Range", "bytes=100-199");
    let stale = || vec![Asked(whole()), Passed(70)];
    let rows: Vec<Row> = vec![
        ("", "\"v\"", vec![], whole(), ("fetched", "fetch", "fwd=uri-miss"), 200),
        ("", "\"v\"", vec![Asked(whole())], whole(), ("hit", "fresh", "hit; ttl=60"), 200),
        ("", "\"v\"", vec![Asked(whole())], ask("HEAD", "/f"), ("hit", "fresh", "hit; ttl=60"), 200),
        ("", "\"v\"", stale(), whole(), ("validated", "stale", "fwd=stale; detail=stale"), 200),
        (
            "",
            "\"v\"",
            stale(),
            with("Cache-Control", "only-if-cached"),
            ("refused", "only-if-cached", "fwd=stale; detail=only-if-cached"),
            504,
        ),
        ("", "\"v\"", stale(), ask("HEAD", "/f"), ("bypassed", "method", "fwd=stale; detail=method"), 200),
        (
            "",
            "\"v\"",
            stale(),
            with("Cache-Control", "no-store"),
            ("bypassed", "request-no-store", "fwd=stale; detail=request-no-store"),
            200,
        ),
        (
            "",
            "\"v\"",
            vec![Asked(whole())],
            with("If-Match", "\"other\""),
            ("bypassed", "conditional", "fwd=request; detail=conditional"),
            412,
        ),
        (
            "",
            "\"v\"",
            vec![Asked(whole())],
            with("Cache-Control", "min-fresh=100"),
            ("validated", "request-min-fresh", "fwd=request; detail=request-min-fresh"),
            200,
        ),
        ("", "\"v\"", vec![Asked(part())], part(), ("hit", "fresh", "hit; ttl=60"), 206),
        ("", "\"v\"", vec![Asked(part())], whole(), ("completed", "missing", "fwd=partial"), 200),
        ("", "", vec![Asked(part())], whole(), ("completed", "missing", "fwd=partial"), 200),
        (
            "",
            "\"v\"",
            vec![Asked(part()), Passed(70)],
            whole(),
            ("completed", "missing", "fwd=stale; detail=stale"),
            200,
        ),
        ("", "", vec![Asked(part()), Passed(70)], whole(), ("fetched", "missing", "fwd=stale; detail=stale"), 200),
        ("", "\"v\"", vec![], with("If-Range", "\"v\""), ("bypassed", "partial", "fwd=uri-miss; detail=partial"), 200),
        (
            "stale_while_revalidate: 1h",
            "\"v\"",
            stale(),
            whole(),
            ("stale", "stale-while-revalidate", "hit; ttl=-10; detail=stale"),
            200,
        ),
        (
            "stale_while_revalidate: 1h",
            "\"v\"",
            vec![Asked(part()), Passed(70)],
            whole(),
            ("completed", "missing", "fwd=partial"),
            200,
        ),
        (
            "",
            "\"v\"",
            vec![Asked(whole()), SoftPurged],
            whole(),
            ("validated", "purged", "fwd=stale; detail=purged"),
            200,
        ),
        (
            "stale_if_error: 1h",
            "\"v\"",
            vec![Asked(whole()), Passed(70), Failed],
            whole(),
            ("stale", "stale-if-error", "hit; ttl=-10; detail=stale"),
            200,
        ),
        ("keep: 0s", "\"v\"", stale(), whole(), ("fetched", "keep", "fwd=uri-miss"), 200),
        (
            "keep: 0s, min_uses: 2, refresh: { headers: [ x-new ] }",
            "\"v\"",
            vec![Asked(with("X-New", "1")), Passed(70)],
            whole(),
            ("bypassed", "min-uses", "fwd=uri-miss; detail=min-uses"),
            200,
        ),
        (
            "refresh: { headers: [ x-new ] }",
            "\"v\"",
            vec![Asked(whole())],
            with("X-New", "1"),
            ("fetched", "refresh", "fwd=request; detail=refresh"),
            200,
        ),
        (
            "min_uses: 2, refresh: { headers: [ x-new ] }",
            "",
            vec![Asked(get("/v").field("X-New", "1").field("X-Of", "a")), Purged],
            get("/v").field("X-Of", "b"),
            ("bypassed", "min-uses", "fwd=uri-miss; detail=min-uses"),
            200,
        ),
        ("", "\"v\"", vec![Asked(whole())], ask("PURGE", "/f"), ("refused", "purge", ""), 401),
    ];
    for (policy, etag, before, asked, expected, status) in rows {
        let origin = origin().await;
        serve(&origin, &body(1000), etag);
        origin.serve("/v", cacheable("x").field("Vary", "X-Of"));
        let edge = edge(&origin).policy(policy).upstream("retries: { max: 0 }").start().await;
        let mut has_failed = false;
        for step in before {
            match step {
                Asked(asked) => _ = edge.ask(&asked).await,
                Passed(seconds) => edge.advance(seconds),
                SoftPurged => _ = edge.purge(r#"{"urls":["http://a.test/f"],"soft":true}"#).await,
                Purged => {
                    let order = PurgeOrder { targets: vec![PurgeTarget::All], soft: false };
                    edge.running.edge().store.apply(&order, SystemTime::UNIX_EPOCH);
                }
                Failed => has_failed = true,
            }
            edge.settled().await;
        }
        let row = format!("{policy:?} {etag:?} {} {:?}", asked.method, asked.fields);
        let said = if has_failed {
            origin.serve("/f", reset());
            // What has failed is not tried again within a second: it has failed at this moment.
            let mut said = Value::Null;
            eventually_async("it has just failed", async || {
                let _ = edge.get("/f").await;
                said = told(&edge, &asked).await;
                said["store"]["failing"] == true
            })
            .await;
            said
        } else {
            told(&edge, &asked).await
        };
        assert_eq!(verdict(&said), expected, "{row}: {said}");
        let answer = edge.ask(&asked).await;
        assert_eq!((foreseeable(&answer).as_str(), answer.status), (expected.2, status), "{row}: {answer:?}");
    }
}

#[tokio::test]
async fn a_node_says_who_will_wait_for_the_fetch_that_runs() {
    let part = || get("/f").field("Range", "bytes=0-99");
    for (policy, first, second, expected, waits) in [
        ("", get("/f"), get("/f"), ("fetched", "fetch", "fwd=uri-miss; collapsed"), true),
        ("", part(), part(), ("fetched", "fetch", "fwd=uri-miss; collapsed"), true),
        ("", get("/f"), part(), ("fetched", "fetch", "fwd=uri-miss"), false),
        ("slice: 64KiB, ", get("/f"), part(), ("fetched", "fetch", "fwd=uri-miss; collapsed"), true),
        (
            "refresh: { headers: [ x-new ] }, ",
            get("/f"),
            get("/f").field("X-New", "1"),
            ("fetched", "refresh", "fwd=request; detail=refresh"),
            false,
        ),
    ] {
        let (origin, gate) = (origin().await, Gate::closed());
        let (held, bytes) = (gate.clone(), body(1000));
        origin.answer("/f", move |asked| file(asked, &bytes, "\"v\"").held(&held));
        // Who waits does not become a second writer.
        let edge = edge(&origin).policy(&format!("{policy}collapse: {{ wait: 1h }}")).start().await;
        let (_, answer) = tokio::join!(edge.ask(&first), async {
            gate.reached_by(1).await;
            let said = told(&edge, &second).await;
            assert_eq!(verdict(&said), expected, "{policy} {second:?}: {said}");
            let (answer, ()) = tokio::join!(edge.ask(&second), async {
                match waits {
                    true => waiting(&edge, 1).await,
                    false => gate.reached_by(2).await,
                }
                gate.open();
            });
            answer
        });
        assert_eq!(foreseeable(&answer), expected.2, "{policy} {second:?}");
    }
}

#[tokio::test]
async fn a_node_knows_of_the_very_range_that_it_was_not_for_sharing() {
    let origin = origin().await;
    let span = page("x").status("206 Partial Content").field("Content-Range", "bytes 0-0/9");
    origin.serve("/f", span.field("Cache-Control", "no-store"));
    let edge = edge(&origin).start().await;
    let part = get("/f").field("Range", "bytes=0-0");
    let _ = edge.ask(&part).await;
    edge.settled().await;
    let (of_part, of_whole) = (told(&edge, &part).await, told(&edge, &get("/f")).await);
    assert_eq!(
        (&of_part["store"]["uncollapsible"], &of_whole["store"]["uncollapsible"]),
        (&true.into(), &false.into())
    );
    assert!(step(&of_part, "fetch").contains("not for sharing"), "{of_part}");
}

#[tokio::test]
async fn a_node_says_in_which_coding_a_request_is_answered_and_why_not() {
    let origin = origin().await;
    let text = "what is always the same\n".repeat(200);
    let html = |body: &str| cacheable(body).field("Content-Type", "text/html");
    origin.serve("/f", html(&text));
    origin.serve("/small", html("small"));
    origin.serve("/image", cacheable(&*text).field("Content-Type", "image/png"));
    origin.serve("/signed", html(&text).field("Content-Digest", "x"));
    let edge = edge(&origin).policy("compress: {}").start().await;
    let accepting = |path: &str| get(path).field("Accept-Encoding", "gzip, br");
    for (path, words) in [
        ("/f", "until a copy in br is made"),
        ("/small", "min_size"),
        ("/image", "media type"),
        ("/signed", "the very bytes"),
    ] {
        let _ = edge.ask(&accepting(path)).await;
        edge.settled().await;
        let said = told(&edge, &accepting(path)).await;
        assert!(step(&said, "compress").contains(words), "{path}: {said}");
        assert_eq!(verdict(&said), ("hit", "fresh", "hit; ttl=60"), "{path}");
    }
    // The second reader has it made.
    let _ = edge.ask(&accepting("/f")).await;
    let jobs = &edge.running.edge().metrics.compress_jobs;
    eventually("the copy is made", || jobs.get() == 0).await;
    let said = told(&edge, &accepting("/f")).await;
    let answer = edge.ask(&accepting("/f")).await;
    assert_eq!(answer.field("content-encoding").as_deref(), Some("br"));
    assert_eq!(step(&said, "compress"), format!("the copy in br, {} bytes", answer.body.len()));
    for (asked, words) in [
        (get("/f"), "accepts no coding"),
        (accepting("/f").field("Range", "bytes=0-9"), "a range, If-Match or no-transform"),
    ] {
        let said = told(&edge, &asked).await;
        assert!(step(&said, "compress").contains(words), "{said}");
    }
}

#[tokio::test]
async fn a_node_that_is_cut_off_says_what_that_means() {
    for (policy, expected, status) in [
        ("serve", ("hit", "fresh", "hit; ttl=60"), 200),
        ("revalidate", ("validated", "purged", "fwd=stale; detail=purged"), 200),
        ("stop", ("refused", "cut-off", ""), 503),
    ] {
        let (mut redis, origin) = (RedisServer::start(false).await, origin().await);
        origin.serve("/f", cacheable("x").etag("\"1\""));
        let edge = member(&origin, &redis.url(), "e1", &format!(", when_cut_off: {policy}")).start().await;
        ready(&edge).await;
        connected(&edge, 1.0).await;
        let _ = edge.get("/f").await;
        edge.settled().await;
        redis.kill();
        connected(&edge, 0.0).await;
        let said = told(&edge, &get("/f")).await;
        assert_eq!(verdict(&said), expected, "{policy}: {said}");
        let answer = edge.get("/f").await;
        assert_eq!((foreseeable(&answer).as_str(), answer.status), (expected.2, status), "{policy}");
        if policy == "revalidate" {
            let steps = said["steps"].as_array().expect("steps");
            let asked = steps.iter().rfind(|step| step["rule"] == "purged").expect("the cause");
            assert_eq!(asked["changes"][0]["key"], "fleet.when_cut_off");
            assert!(step(&said, "fetch").contains("by itself"), "{said}");
        }
    }
}

#[tokio::test]
async fn of_many_variants_the_newest_are_told_and_the_one_that_is_meant() {
    let origin = origin().await;
    origin.serve("/f", cacheable("x").field("Vary", "X-Of"));
    let edge = edge(&origin).policy("variants_max: 200").start().await;
    let of = |at: u32| get("/f").field("X-Of", &at.to_string());
    for at in 0..102 {
        let _ = edge.ask(&of(at)).await;
    }
    edge.settled().await;
    for (at, told_of, selected) in [(0, 101, true), (101, 100, true), (500, 100, false)] {
        let said = told(&edge, &of(at)).await;
        assert_eq!(said["store"]["count"], 102);
        let variants = said["store"]["variants"].as_array().expect("variants");
        let is_told = variants.iter().any(|variant| variant["selected"] == true);
        assert_eq!((variants.len(), is_told), (told_of, selected), "{at}");
    }
}

#[tokio::test]
async fn what_is_advised_of_a_stale_response_lets_it_answer() {
    let told_of = async |policy: &str, cache_control: &str, purged: bool| {
        let origin = origin().await;
        origin.serve("/f", page("hello").field("Cache-Control", cache_control).etag("\"v\""));
        let edge = edge(&origin).policy(policy).start().await;
        let _ = edge.get("/f").await;
        edge.settled().await;
        if purged {
            let _ = edge.purge(r#"{"urls":["http://a.test/f"],"soft":true}"#).await;
        }
        edge.advance(300);
        told(&edge, &get("/f")).await
    };
    // What the origin says, whether it is purged, and whose word is named that would let it answer stale.
    for (cache_control, purged, advised) in [
        ("max-age=3600", true, &["config cache.test.stale_while_revalidate"][..]),
        ("max-age=3600, stale-while-revalidate=5", true, &["origin cache-control"]),
        ("max-age=3600, must-revalidate", true, &[]),
        ("max-age=60, stale-while-revalidate=5", false, &["origin cache-control"]),
    ] {
        let said = told_of("", cache_control, purged).await;
        let cause = if purged { "purged" } else { "stale" };
        assert_eq!((&said["outcome"], &said["cause"]), (&"validated".into(), &cause.into()), "{cache_control}: {said}");
        let steps = said["steps"].as_array().expect("steps");
        let decided = steps.iter().rfind(|step| step["rule"] == cause).expect("the cause");
        let changes = decided["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        // What would make it fresh is beside the point.
        let windows: Vec<_> = changes.iter().filter(|change| change["note"].to_string().contains("stale")).collect();
        let named = windows.iter().map(|change| format!("{} {}", change["of"], change["key"]).replace('"', ""));
        assert_eq!(named.collect::<Vec<_>>(), advised, "{cache_control}: {decided}");
        for change in windows {
            let to = change["to"].as_str().expect("a value");
            let after = match change["of"].as_str() {
                Some("config") => told_of(&format!("stale_while_revalidate: {to}"), cache_control, purged).await,
                _ => told_of("", to, purged).await,
            };
            assert_eq!(after["outcome"], "stale", "{cache_control}: {to}: {after}");
        }
    }
}
