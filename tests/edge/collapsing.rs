//! Many readers of one fetch: nobody waits for what is not for him, and nobody slows another.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::{Answer, Edge, Gate, cacheable, edge, get, origin, page, waiting, within};

/// So many readers of one cold page.
const CROWD: usize = 1_000;
/// HTTP/2 streams of one connection.
const STREAMS: usize = 100;

/// Asks for a path by so many connections at once.
fn crowd(edge: &Arc<Edge>, path: &'static str, readers: usize) -> JoinSet<Answer> {
    let mut answers = JoinSet::new();
    for _ in 0..readers {
        let edge = Arc::clone(edge);
        answers.spawn(async move { edge.get(path).await });
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_of_a_cold_page_cost_one_request() {
    let origin = origin().await;
    let (body_gate, heads) = (Gate::closed(), Gate::closed());
    let body: Vec<u8> = (0..5_000u32).flat_map(u32::to_be_bytes).collect();
    origin.serve("/a", cacheable(body.clone()).held_after(1000, &body_gate));
    let edge = edge(&origin).start().await;
    // One that leaves in the middle, and one that never reads.
    let mut leaver = edge.connect().await;
    assert_eq!(leaver.ask_head(&get("/a")).await.status, 200);
    let mut idler = edge.connect().await;
    idler.send(&get("/a")).await;
    drop(leaver);
    let mut answers = JoinSet::new();
    for _ in 0..CROWD / STREAMS {
        let connection = Arc::new(edge.http2().await);
        for _ in 0..STREAMS {
            let (connection, heads) = (Arc::clone(&connection), heads.clone());
            answers.spawn(async move {
                let begun = connection.begin(&get("/a")).await;
                heads.pass().await;
                begun.rest().await
            });
        }
    }
    // All of them have a head, and nobody has the whole body.
    heads.reached_by(CROWD).await;
    body_gate.open();
    heads.open();
    while let Some(answer) = within(answers.join_next()).await {
        let answer = answer.expect("no panic");
        assert!(!answer.cut && answer.body == body);
        assert_eq!(answer.cache_status(), "fwd=uri-miss; collapsed");
    }
    assert_eq!(origin.hits("/a"), 1);
    assert!(edge.get("/a").await.is_hit());
    drop(idler);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_want_another_variant_than_is_coming_share_a_fetch_of_their_own() {
    let origin = origin().await;
    let (head, body) = (Gate::closed(), Gate::closed());
    let (held_head, held_body) = (head.clone(), body.clone());
    origin.answer("/a", move |asked| {
        let language = asked.field("x-language").unwrap_or_default();
        let page = cacheable(language.repeat(50)).field("Vary", "X-Language");
        if language == "en" { page.held(&held_head) } else { page.held_after(10, &held_body) }
    });
    let edge = Arc::new(edge(&origin).start().await);
    let mut answers = JoinSet::new();
    let want = |language: &str| {
        let (edge, request) = (Arc::clone(&edge), get("/a").field("X-Language", language));
        async move { edge.connect().await.ask(&request).await }
    };
    answers.spawn(want("en"));
    head.reached_by(1).await;
    for _ in 0..5 {
        answers.spawn(want("fr"));
    }
    waiting(&edge, 5).await;
    head.open();
    body.reached_by(1).await;
    body.open();
    while let Some(answer) = within(answers.join_next()).await {
        assert_eq!(answer.expect("no panic").body.len(), 100);
    }
    assert_eq!(origin.hits("/a"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_comes_while_his_variant_is_on_its_way_reads_along() {
    let origin = origin().await;
    let (head, body) = (Gate::closed(), Gate::closed());
    let (held_head, held_body) = (head.clone(), body.clone());
    origin.answer("/a", move |asked| {
        let language = asked.field("x-language").unwrap_or_default();
        let page = cacheable(language.repeat(50)).field("Vary", "X-Language");
        if language == "en" { page.held(&held_head) } else { page.held_after(10, &held_body) }
    });
    let edge = Arc::new(edge(&origin).start().await);
    let ask = |language: &str| {
        let (edge, request) = (Arc::clone(&edge), get("/a").field("X-Language", language));
        async move { edge.connect().await.ask(&request).await }
    };
    let (mut english, mut french) = (JoinSet::new(), JoinSet::new());
    english.spawn(ask("en"));
    head.reached_by(1).await;
    french.spawn(ask("fr"));
    waiting(&edge, 1).await;
    head.open();
    body.reached_by(1).await;
    // The first is stored, the second has begun: only now is it known by what they differ.
    assert_eq!(within(english.join_next()).await.expect("one").expect("no panic").body.len(), 100);
    let mut late = edge.connect().await;
    let begun = late.ask_head(&get("/a").field("X-Language", "fr")).await;
    assert_eq!(begun.cache_status(), "fwd=vary-miss; collapsed");
    body.open();
    assert_eq!(within(french.join_next()).await.expect("one").expect("no panic").body.len(), 100);
    assert_eq!(origin.hits("/a"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_storable_releases_all_at_once_and_is_not_collapsed_for_a_while() {
    let origin = origin().await;
    let (first, others) = (Gate::closed(), Gate::closed());
    let (held_first, held_others) = (first.clone(), others.clone());
    origin.answer("/me", move |asked| {
        let gate = if asked.hits_before == 0 { &held_first } else { &held_others };
        page(asked.hits_before.to_string()).field("Cache-Control", "private").held(gate)
    });
    let edge = Arc::new(edge(&origin).start().await);
    let mut answers = crowd(&edge, "/me", 20);
    first.reached_by(1).await;
    waiting(&edge, 19).await;
    first.open();
    // Nineteen requests are at the origin at the same time.
    others.reached_by(19).await;
    others.open();
    let mut bodies = Vec::new();
    while let Some(answer) = within(answers.join_next()).await {
        bodies.push(answer.expect("no panic").text().to_owned());
    }
    bodies.sort();
    bodies.dedup();
    assert_eq!((bodies.len(), origin.hits("/me")), (20, 20), "everybody has an answer of his own");
    // The key is known not to be collapsible now: nobody waits for the first.
    let again = Gate::closed();
    let held = again.clone();
    origin.answer("/me", move |_| page("x").field("Cache-Control", "private").held(&held));
    let mut answers = crowd(&edge, "/me", 5);
    again.reached_by(5).await;
    again.open();
    while let Some(answer) = within(answers.join_next()).await {
        assert_eq!(answer.expect("no panic").text(), "x");
    }
}

#[tokio::test]
async fn waiters_of_another_variant_fetch_for_themselves() {
    let origin = origin().await;
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer("/a", move |asked| {
        let language = asked.field("accept-language").unwrap_or_default();
        let answer = cacheable(language.clone()).field("Vary", "Accept-Language");
        if asked.hits_before == 0 { answer.held(&held) } else { answer }
    });
    let edge = Arc::new(edge(&origin).start().await);
    let mut answers = JoinSet::new();
    for language in ["de", "de", "fr"] {
        let edge = Arc::clone(&edge);
        answers.spawn(async move { (language, edge.ask(&get("/a").field("Accept-Language", language)).await) });
    }
    gate.reached_by(1).await;
    waiting(&edge, 2).await;
    gate.open();
    while let Some(answer) = within(answers.join_next()).await {
        let (language, answer) = answer.expect("no panic");
        assert_eq!(answer.text(), language);
    }
}

#[tokio::test]
async fn a_wait_that_runs_out_makes_a_second_fetch_that_answers_all() {
    let origin = origin().await;
    let (never, second) = (Gate::closed(), Gate::closed());
    let (held_first, held_second) = (never.clone(), second.clone());
    origin.answer("/a", move |asked| {
        let gate = if asked.hits_before == 0 { &held_first } else { &held_second };
        cacheable(format!("answer {}", asked.hits_before)).held(gate)
    });
    let edge = Arc::new(edge(&origin).policy("collapse: { wait: 50ms }").start().await);
    let mut writer = edge.connect().await;
    writer.send(&get("/a")).await;
    never.reached_by(1).await;
    let mut answers = crowd(&edge, "/a", 5);
    second.reached_by(1).await;
    assert!(edge.metric("edge_collapse_expired_total") >= 1.0);
    second.open();
    while let Some(answer) = within(answers.join_next()).await {
        let answer = answer.expect("no panic");
        assert!(answer.text().starts_with("answer ") && answer.text() != "answer 0", "{answer:?}");
    }
    never.open();
    assert_eq!(writer.answer("GET").await.text(), "answer 0");
}

#[tokio::test]
async fn waits_that_run_out_one_after_the_other_make_one_fetch_in_each_wait() {
    const WAIT: Duration = Duration::from_millis(300);
    let origin = origin().await;
    let never = Gate::closed();
    origin.serve("/a", cacheable("late").held(&never));
    let edge = Arc::new(edge(&origin).policy("collapse: { wait: 300ms }").start().await);
    let started = Instant::now();
    let mut answers = crowd(&edge, "/a", 200);
    origin.hit("/a", 4).await;
    never.open();
    while let Some(answer) = within(answers.join_next()).await {
        assert_eq!(answer.expect("no panic").text(), "late");
    }
    let waits = started.elapsed().as_millis() / WAIT.as_millis();
    let further = origin.hits("/a") as u128 - 1;
    assert!(further <= waits, "{further} further fetches in {waits} waits");
}

#[tokio::test]
async fn a_wait_that_runs_out_is_an_error_where_the_policy_says_so() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/a", cacheable("late").held(&gate));
    let edge = edge(&origin).policy("collapse: { wait: 50ms, expired: error }").start().await;
    let mut writer = edge.connect().await;
    writer.send(&get("/a")).await;
    gate.reached_by(1).await;
    let refused = edge.get("/a").await;
    assert_eq!(refused.status, 504);
    assert!(refused.text().contains("collapse-expired"), "{refused:?}");
    gate.open();
    assert_eq!(writer.answer("GET").await.text(), "late");
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test]
async fn the_client_that_began_a_fetch_may_leave_before_its_answer() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/a", cacheable("hello").held(&gate));
    let edge = edge(&origin).start().await;
    let mut writer = edge.connect().await;
    writer.send(&get("/a")).await;
    gate.reached_by(1).await;
    let mut waiter = edge.connect().await;
    waiter.send(&get("/a")).await;
    waiting(&edge, 1).await;
    drop(writer);
    gate.open();
    assert_eq!(waiter.answer("GET").await.text(), "hello");
    assert!(edge.get("/a").await.is_hit());
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test]
async fn the_client_that_began_a_fetch_may_leave_in_the_middle_of_its_answer() {
    let origin = origin().await;
    let gate = Gate::closed();
    let body = vec![b'x'; 500_000];
    origin.serve("/a", cacheable(body.clone()).held_after(10, &gate));
    let edge = edge(&origin).start().await;
    let mut writer = edge.connect().await;
    writer.send(&get("/a")).await;
    let mut head = writer.head().await;
    assert!(writer.body(10, &mut head.body).await);
    let mut waiter = edge.connect().await;
    waiter.send(&get("/a")).await;
    assert_eq!(waiter.head().await.status, 200);
    drop(writer);
    gate.open();
    let mut got = Vec::new();
    assert!(waiter.body(body.len(), &mut got).await);
    edge.settled().await;
    assert!(edge.get("/a").await.is_hit());
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test]
async fn a_reader_that_never_reads_slows_nobody() {
    let origin = origin().await;
    let body = vec![b'x'; 20_000_000];
    origin.serve("/big", cacheable(body.clone()));
    let edge = edge(&origin).section("store: { memory: { size: 200MiB } }").start().await;
    // It began the fetch, and its socket is full.
    let mut idler = edge.connect().await;
    idler.send(&get("/big")).await;
    origin.hit("/big", 1).await;
    let answer = edge.get("/big").await;
    assert_eq!((answer.body.len(), answer.cut), (body.len(), false));
    assert_eq!(origin.hits("/big"), 1);
    drop(idler);
}

#[tokio::test]
async fn a_failed_fetch_fails_once_and_waiters_share_one_new_fetch() {
    let origin = origin().await;
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer("/a", move |asked| match asked.hits_before {
        0 => crate::support::reset().held(&held),
        _ => cacheable("hello"),
    });
    let edge = Arc::new(edge(&origin).upstream("retries: { max: 0 }").start().await);
    let mut writer = edge.connect().await;
    writer.send(&get("/a")).await;
    gate.reached_by(1).await;
    let mut answers = crowd(&edge, "/a", 5);
    waiting(&edge, 5).await;
    gate.open();
    assert_eq!(writer.answer("GET").await.status, 502);
    while let Some(answer) = within(answers.join_next()).await {
        assert_eq!(answer.expect("no panic").text(), "hello");
    }
    assert_eq!(origin.hits("/a"), 2);
}
