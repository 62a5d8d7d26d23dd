//! The outbox against edges that fail and come back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use eduham_learning::{
    purging::{Purger, pending},
    schema::MIGRATIONS,
    settings::EdgeAdmin,
};
use eduham_platform::db::Db;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, now};

/// An edge's control listener that answers what it is told and remembers what it was asked.
struct FakeEdge {
    admin: EdgeAdmin,
    answer: Arc<Mutex<(u16, Value)>>,
    calls: mpsc::UnboundedReceiver<(HeaderMap, Value)>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    answer: Arc<Mutex<(u16, Value)>>,
    called: mpsc::UnboundedSender<(HeaderMap, Value)>,
}

impl FakeEdge {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let admin = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
        let answer = Arc::new(Mutex::new((200, json!({ "id": "1", "complete": true }))));
        let (called, calls) = mpsc::unbounded_channel();
        let shared = Shared { answer: Arc::clone(&answer), called };
        let app = Router::new().route("/purge", post(Self::purge)).with_state(shared);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self { admin, answer, calls, server }
    }

    async fn purge(
        State(shared): State<Shared>,
        headers: HeaderMap,
        Json(body): Json<Value>,
    ) -> (StatusCode, Json<Value>) {
        shared.called.send((headers, body)).expect("the test listens");
        let (status, body) = shared.answer.lock().expect("not poisoned").clone();
        (StatusCode::from_u16(status).expect("a status"), Json(body))
    }

    fn answers(&self, status: u16, body: Value) {
        *self.answer.lock().expect("not poisoned") = (status, body);
    }
}

impl Drop for FakeEdge {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn purger(bench: &Bench, edges: &[&FakeEdge]) -> Purger {
    let edges = edges.iter().map(|edge| edge.admin.clone()).collect();
    Purger::new(bench.app.db.clone(), edges, Some("token-1".into())).expect("a purger")
}

async fn waiting(bench: &Bench) -> i64 {
    pending(&bench.app.db).await.expect("counts")
}

pub(crate) async fn a_publication_is_told_to_every_edge_until_each_has_it(bench: Bench) {
    let mut good = FakeEdge::start().await;
    let mut bad = FakeEdge::start().await;
    let purger = purger(&bench, &[&good, &bad]);
    assert_eq!(purger.round(now()).await.expect("runs"), []);
    let course = bench.sample().await.course_id;

    bad.answers(503, json!({ "fleet": "unreachable" }));
    let deliveries = purger.round(now()).await.expect("runs");
    assert_eq!(deliveries.len(), 2);
    assert_eq!(deliveries[0].refused, None);
    assert!(deliveries[1].refused.as_ref().is_some_and(|why| why.contains("503")), "{deliveries:?}");
    let (headers, body) = good.calls.recv().await.expect("was asked");
    assert_eq!(body, json!({ "surrogate_keys": ["catalog", format!("course:{course}")], "wait": true }));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["authorization"], "Bearer token-1");
    bad.calls.recv().await.expect("was asked");
    assert_eq!(waiting(&bench).await, 1);

    // Not again at once, and the one that has it not again at all.
    assert_eq!(purger.round(now()).await.expect("runs"), []);
    bad.answers(200, json!({ "complete": false, "nodes": { "lost": ["edge-3"] } }));
    let later = now() + Duration::from_secs(2);
    let deliveries = purger.round(later).await.expect("runs");
    assert_eq!(deliveries.len(), 1);
    assert!(deliveries[0].refused.as_ref().is_some_and(|why| why.contains("edge-3")), "{deliveries:?}");
    assert_eq!(waiting(&bench).await, 1);

    bad.answers(200, json!({ "complete": true }));
    let deliveries = purger.round(later + Duration::from_secs(4)).await.expect("runs");
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].refused, None);
    assert_eq!(waiting(&bench).await, 0);
    assert!(good.calls.try_recv().is_err(), "one purge for one publication");

    // What is done is kept for a while and then forgotten.
    bench
        .import(&bench.folder(&[
            ("course.yaml", "title: T\nsummary: s\nmodules: [{ title: m, lessons: [a.md] }]\n"),
            ("a.md", "# A\n"),
        ]))
        .await;
    purger.round(now() + Duration::from_secs(8 * 24 * 3600)).await.expect("runs");
    assert_eq!(bench.number("SELECT COUNT(*) FROM purge_outbox").await, 0);
    assert_eq!(bench.number("SELECT COUNT(*) FROM purge_deliveries").await, 0);
}

pub(crate) async fn deliveries_survive_a_restart(bench: Bench) {
    let mut good = FakeEdge::start().await;
    let gone = FakeEdge::start().await;
    gone.server.abort();
    bench.sample().await;
    let first = purger(&bench, &[&good, &gone]);
    let deliveries = first.round(now()).await.expect("runs");
    assert!(deliveries[1].refused.as_ref().is_some_and(|why| why.contains("cannot be reached")), "{deliveries:?}");
    good.calls.recv().await.expect("was asked");
    bench.app.db.close().await;

    let back = FakeEdge::start().await;
    let db = Db::open(&bench.url, &MIGRATIONS).await.expect("opens again");
    // The edge that was gone has come back under another address; the old one is no longer configured.
    let second = Purger::new(db.clone(), vec![good.admin.clone(), back.admin.clone()], None).expect("a purger");
    let deliveries = second.round(now() + Duration::from_secs(1)).await.expect("runs");
    assert_eq!(deliveries.len(), 1);
    assert_eq!((&deliveries[0].edge, &deliveries[0].refused), (&back.admin, &None));
    assert_eq!(pending(&db).await.expect("counts"), 0);
    assert!(good.calls.try_recv().is_err(), "what has it is not told again");
    db.close().await;
}

pub(crate) async fn without_an_edge_the_serving_process_marks_rows_done(bench: Bench) {
    bench.sample().await;
    assert_eq!(waiting(&bench).await, 1);
    assert_eq!(purger(&bench, &[]).round(now()).await.expect("runs"), []);
    assert_eq!(waiting(&bench).await, 0);
}

pub(crate) async fn the_worker_finds_what_another_process_has_published(bench: Bench) {
    let mut edge = FakeEdge::start().await;
    let purger = purger(&bench, &[&edge]);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let worker = tokio::spawn(async move { purger.run(&stopped).await });
    bench.sample().await;
    edge.calls.recv().await.expect("the worker asks");
    stop.cancel();
    worker.await.expect("the worker ends");
}
