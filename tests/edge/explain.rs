//! What a node says of a URL, and what the record says of each request: both come from the decision.

use crate::support::{Edge, edge, get, origin, page};

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
    let changes = stale["steps"].as_array().unwrap().last().unwrap()["changes"].as_array().unwrap();
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
    let asked = get("/a").field("Accept-Language", "de").field("Cookie", "session=secret");
    let _ = edge.ask(&asked).await;
    let _ = edge.ask(&asked.field("Authorization", "Basic c2VjcmV0")).await;
    let records = edge.records().await;
    for (record, status) in records.iter().zip(["miss", "hit"]) {
        assert_eq!(record["cache_status"], status, "{record}");
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
