//! Stale answers: while a fetch validates behind, and in place of an origin that fails.

use std::time::Duration;

use futures::future::join_all;

use crate::support::{Gate, Page, ask, cacheable, edge, eventually_async, get, origin, page, raw, reset};

/// Fresh for ten seconds.
fn short(body: &str) -> Page {
    page(body).field("Cache-Control", "max-age=10")
}

#[tokio::test]
async fn stale_while_revalidate_answers_at_once_and_fetches_once_behind() {
    let origin = origin().await;
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer("/a", move |asked| match asked.hits_before {
        0 => short("old"),
        _ => short("new").held(&held),
    });
    let edge = edge(&origin).policy("stale_while_revalidate: 1m").start().await;
    let _ = edge.get("/a").await;
    edge.advance(15);
    for _ in 0..5 {
        let answer = edge.get("/a").await;
        assert_eq!((answer.text(), answer.cache_status()), ("old", "hit; ttl=-5; detail=stale".into()));
    }
    gate.reached_by(1).await;
    gate.open();
    edge.settled().await;
    assert_eq!(edge.get("/a").await.text(), "new");
    assert_eq!((origin.hits("/a"), edge.results("stale_updating")), (2, 5));
}

#[tokio::test]
async fn what_may_be_validated_is_kept_for_so_long_and_then_fetched_anew() {
    let origin = origin().await;
    origin.serve("/a", short("hello").etag("\"v\""));
    let edge = edge(&origin).policy("keep: 30s").start().await;
    let mut seen = Vec::new();
    // Fresh for 10 s, kept for 30 s more; the validation begins both anew.
    for after in [0, 39, 41] {
        edge.advance(after);
        seen.push(edge.get("/a").await.cache_status());
    }
    let validated = "fwd=stale; fwd-status=304; stored; detail=stale";
    assert_eq!(seen, ["fwd=uri-miss; stored", validated, "fwd=uri-miss; stored"]);
}

#[tokio::test]
async fn beyond_the_window_a_client_waits_for_the_validation() {
    let origin = origin().await;
    origin.answer("/a", |asked| short(&asked.hits_before.to_string()));
    let edge = edge(&origin).policy("stale_while_revalidate: 1m").start().await;
    let _ = edge.get("/a").await;
    edge.advance(71);
    assert_eq!(edge.get("/a").await.text(), "1");
}

/// How an origin fails.
type Failure = fn() -> Page;

#[tokio::test]
async fn a_failing_origin_is_covered_by_what_is_stale_and_back_when_it_is_back() {
    let failures: [(&str, Failure); 6] = [
        ("reset", reset),
        ("nonsense", || raw("who is there?\r\n\r\n")),
        ("500", || page("x").status("500 Internal Server Error")),
        ("502", || page("x").status("502 Bad Gateway")),
        ("503", || page("x").status("503 Service Unavailable").field("Cache-Control", "max-age=60")),
        ("504", || page("x").status("504 Gateway Timeout")),
    ];
    // At once, since each waits for the second in which a failing key is not tried again.
    join_all(failures.map(|(name, failure)| covered_and_back(name, failure))).await;
}

async fn covered_and_back(name: &str, failure: Failure) {
    let origin = origin().await;
    origin.serve("/a", short("old"));
    let edge = edge(&origin).policy("stale_if_error: 1m").upstream("retries: { max: 0 }").start().await;
    let _ = edge.get("/a").await;
    edge.advance(15);
    origin.answer("/a", move |_| failure());
    for _ in 0..3 {
        let answer = edge.get("/a").await;
        assert_eq!((answer.status, answer.text()), (200, "old"), "{name}");
        assert_eq!(answer.cache_status(), "hit; ttl=-5; detail=stale", "{name}");
    }
    assert_eq!(edge.results("stale_error"), 3, "{name}");
    let strict = edge.ask(&get("/a").field("Cache-Control", "no-cache")).await;
    assert!(strict.status >= 500, "{name}: {strict:?}");
    origin.serve("/a", short("new"));
    eventually_async("it is back", async || edge.get("/a").await.text() == "new").await;
    assert!(edge.get("/a").await.is_hit(), "{name}");
    // Beyond the window the failure is told.
    origin.answer("/a", move |_| failure());
    edge.advance(71);
    assert!(edge.get("/a").await.status >= 500, "{name}");
}

#[tokio::test]
async fn an_origin_that_is_gone_or_silent_is_covered_too() {
    let origin = origin().await;
    let never = Gate::closed();
    origin.serve("/a", short("old"));
    let edge = edge(&origin)
        .policy("stale_if_error: 1m")
        .upstream("timeouts: { first_byte: 50ms }, retries: { max: 0 }")
        .start()
        .await;
    let _ = edge.get("/a").await;
    edge.advance(15);
    origin.serve("/a", short("late").held(&never));
    assert_eq!(edge.get("/a").await.text(), "old", "silent");
    origin.kill().await;
    eventually_async("the dead origin is asked", async || {
        assert_eq!(edge.get("/a").await.text(), "old", "gone");
        edge.metric("edge_upstream_failures_total{reason=\"connection_refused\"}") > 0.0
    })
    .await;
    origin.restart().await;
    origin.serve("/a", short("new"));
    eventually_async("it is back", async || edge.get("/a").await.text() == "new").await;
}

#[tokio::test]
async fn a_failing_origin_is_asked_again_once_a_second() {
    let origin = origin().await;
    origin.answer("/a", |asked| match asked.hits_before {
        0 => short("old"),
        _ => page("").status("503 Service Unavailable"),
    });
    let edge = edge(&origin).policy("stale_if_error: 1m").start().await;
    let _ = edge.get("/a").await;
    edge.advance(15);
    eventually_async("it is asked a second time", async || {
        assert_eq!(edge.get("/a").await.text(), "old");
        origin.hits("/a") == 3
    })
    .await;
    let asked = origin.asked_for("/a");
    assert!(asked[2].at.duration_since(asked[1].at) >= Duration::from_secs(1));
}

#[tokio::test]
async fn no_stale_answer_is_given_where_the_origin_forbids_it() {
    for directive in ["max-age=10, must-revalidate", "max-age=10, proxy-revalidate", "s-maxage=10", "no-cache"] {
        let origin = origin().await;
        origin.answer("/a", move |asked| match asked.hits_before {
            0 => page("old").field("Cache-Control", directive).field("ETag", "\"v\""),
            _ => reset(),
        });
        let edge = edge(&origin)
            .policy("stale_if_error: 1h, stale_while_revalidate: 1h")
            .upstream("retries: { max: 0 }")
            .start()
            .await;
        assert!(edge.get("/a").await.cache_status().contains("stored"), "{directive}");
        edge.advance(15);
        let answer = edge.get("/a").await;
        assert_eq!(answer.status, 502, "{directive}");
        assert_eq!(answer.field("proxy-status").as_deref(), Some("eduham-edge; error=connection_terminated"));
    }
}

#[tokio::test]
async fn an_error_does_not_replace_what_covers_it_but_a_404_does() {
    let origin = origin().await;
    origin.serve("/a", short("old"));
    let edge = edge(&origin).policy("stale_if_error: 1m, status_ttl: { 5xx: 1m, 404: 1m }").start().await;
    let _ = edge.get("/a").await;
    edge.advance(15);
    origin.serve("/a", cacheable("broken").status("500 Internal Server Error"));
    assert_eq!(edge.get("/a").await.text(), "old");
    origin.serve("/a", page("gone").status("404 Not Found"));
    eventually_async("it is asked again", async || edge.get("/a").await.status == 404).await;
    assert_eq!((edge.get("/a").await.text(), edge.get("/a").await.is_hit()), ("gone", true));
    let head = edge.ask(&ask("HEAD", "/a")).await;
    assert_eq!((head.status, head.is_hit()), (404, true));
}
