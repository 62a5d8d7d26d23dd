//! Edges on one Redis: what one purges no other serves, and what they do when they cannot hear of each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use eduham_edge::{
    app,
    clock::Clock,
    config::{self, FixedEnvironment},
    fleet::{self, Fleet, NodeCard, Order, Sink, WhenCutOff},
    redis,
    telemetry::Metrics,
};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;

use crate::support::{
    Apart, Ask, Connection, Edge, Gate, Lines, Origin, RedisServer, ask, cacheable, configured, edge, edge::Builder,
    eventually, eventually_async, gate::STUCK, get, origin, reset, waiting, within,
};

/// Short, so that tests see leases lapse; long enough for a busy machine to beat in time.
const LEASE: Duration = Duration::from_secs(1);

pub fn member(origin: &Origin, redis: &str, id: &str, fleet: &str) -> Builder {
    edge(origin)
        .policy("stale_if_error: 1h")
        .upstream("retries: { max: 0 }")
        .section(&format!("node: {{ id: {id}, region: north }}"))
        .section(&format!("redis: {{ url: \"{redis}\", timeout: 2s }}"))
        .section(&format!("fleet: {{ lease: {}ms {fleet} }}", LEASE.as_millis()))
}

const HOUR: Duration = Duration::from_secs(3600);

/// A node that is no edge, and does nothing of itself.
fn bare(redis: &RedisServer, id: &str, history: Duration) -> Fleet {
    let url = redis.url().parse().expect("a URL");
    let config = fleet::Config {
        redis: Some(redis::Config { url, prefix: "eh:".into(), timeout: STUCK }),
        lease: LEASE,
        history,
        when_cut_off: WhenCutOff::Serve,
    };
    Fleet::new(config, NodeCard { id: id.into(), ..NodeCard::default() }, None, &Metrics::new(), Instant::now())
}

/// Stores nothing, and counts how often it forgets that.
#[derive(Default)]
struct Nothing(AtomicUsize);

impl Nothing {
    fn forgotten(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Sink for Nothing {
    fn apply(&self, _: &Order, _: SystemTime) {}

    fn forget_all(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn reached(&self, _: &str) {}

    fn made_durable(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

async fn read(edge: &Edge, path: &str) -> Value {
    serde_json::from_str(edge.control(&get(path)).await.text()).expect("JSON")
}

async fn reasons(edge: &Edge) -> Vec<String> {
    let reasons = read(edge, "/readyz").await["reasons"].clone();
    serde_json::from_value(reasons).unwrap_or_default()
}

pub async fn ready(edge: &Edge) {
    eventually_async("it is ready", async || reasons(edge).await.is_empty()).await;
}

/// Two members, e1 and e2, that are ready.
async fn two(origin: &Origin, redis: &RedisServer) -> (Edge, Edge) {
    let start = |id| member(origin, &redis.url(), id, "").start();
    let (one, two) = (start("e1").await, start("e2").await);
    ready(&one).await;
    ready(&two).await;
    (one, two)
}

/// A purge that may not be complete.
async fn purge(edge: &Edge, order: &str) -> (u16, Value) {
    let answer = edge.control(&ask("POST", "/purge").field("Content-Type", "application/json").body(order)).await;
    (answer.status, serde_json::from_str(answer.text()).expect("JSON"))
}

/// Purges until every node has acknowledged it: a log that has just begun waits for those it does not know yet.
async fn acknowledged(edge: &Edge, order: &str) -> Value {
    let (status, receipt) = purge(edge, order).await;
    assert_eq!((status, &receipt["complete"]), (200, &true.into()), "{receipt}");
    receipt
}

/// Waits until an edge stands so to its fleet: `fleet_connected`.
pub async fn connected(edge: &Edge, expected: f64) {
    eventually("it stands so", || edge.metric("edge_fleet_connected") == expected).await;
}

#[tokio::test]
async fn a_purge_on_one_edge_acts_on_all_and_they_say_so() {
    let (redis, origin) = (RedisServer::start(false).await, origin().await);
    origin.serve("/a", cacheable("x").field("Surrogate-Key", "k"));
    let (one, two) = two(&origin, &redis).await;
    for (n, order) in [
        r#"{"urls":["http://a.test/a"],"wait":true}"#,
        r#"{"prefixes":["http://a.test/"],"wait":true}"#,
        r#"{"hosts":["a.test"],"wait":true}"#,
        r#"{"surrogate_keys":["k"],"wait":true}"#,
        r#"{"all":true,"wait":true}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let _ = (one.get("/a").await, two.get("/a").await);
        assert!(one.get("/a").await.is_hit() && two.get("/a").await.is_hit(), "{order}");
        let receipt = acknowledged(&one, order).await;
        assert_eq!((&receipt["nodes"]["live"], &receipt["nodes"]["acknowledged"]), (&2.into(), &2.into()), "{receipt}");
        assert_eq!(receipt["position"], n + 2, "the log begins with an entry of its own");
        assert!(!two.get("/a").await.is_hit() && !one.get("/a").await.is_hit(), "{order}");
        let purges = read(&two, "/purges").await;
        assert_eq!((&purges["purges"][0]["id"], &purges["purges"][0]["node"]), (&receipt["id"], &"e1".into()));
        let found = read(&two, &format!("/purges/{}", receipt["id"].as_str().expect("a text"))).await;
        assert_eq!((&found["complete"], &found["nodes"]["acknowledged"]), (&true.into(), &2.into()), "{found}");
    }
    let fleet = read(&two, "/fleet").await;
    let nodes: Vec<_> = fleet["nodes"].as_array().expect("a list").iter().collect();
    assert_eq!(nodes.len(), 2, "{fleet}");
    for (node, id) in nodes.into_iter().zip(["e1", "e2"]) {
        assert_eq!((&node["id"], &node["region"], &node["state"]), (&id.into(), &"north".into(), &"live".into()));
        assert_eq!((&node["position"], &node["lag"]), (&6.into(), &0.into()), "{node}");
    }
    assert_eq!((one.metric("edge_fleet_nodes"), one.metric("edge_purge_lag_seconds")), (2.0, 0.0));
    assert_eq!(one.metric("edge_redis_up{use=\"fleet\"}"), 1.0);
    within(one.running.stop()).await;
    let receipt = acknowledged(&two, r#"{"all":true,"wait":true}"#).await;
    assert_eq!(receipt["nodes"]["live"], 1, "who says goodbye is not waited for");
}

#[tokio::test]
async fn an_unsafe_request_to_one_edge_invalidates_on_all() {
    let (redis, origin) = (RedisServer::start(false).await, origin().await);
    origin.serve("/a", cacheable("x"));
    let (one, two) = two(&origin, &redis).await;
    let _ = two.get("/a").await;
    assert!(two.get("/a").await.is_hit());
    assert_eq!(one.ask(&ask("POST", "/a")).await.status, 200);
    eventually("the other has heard of it", || two.metric("edge_purges_total{kind=\"unsafe_method\"}") == 1.0).await;
    assert!(!two.get("/a").await.is_hit());
    assert_eq!(read(&two, "/purges").await["purges"], Value::Array(Vec::new()), "that is for what operators do");
    eventually_async("it has come back", async || read(&one, "/fleet").await["position"] == 2).await;
    assert_eq!(one.metric("edge_purges_total{kind=\"unsafe_method\"}"), 1.0, "what acts at once and comes back is one");
}

#[tokio::test]
async fn a_node_that_is_silent_is_lost_unless_it_serves_nothing_then() {
    for (policy, complete) in [("", false), (", when_cut_off: revalidate", true), (", when_cut_off: stop", true)] {
        let (redis, origin) = (RedisServer::start(false).await, origin().await);
        let one = member(&origin, &redis.url(), "e1", "").start().await;
        ready(&one).await;
        let two = Apart::start(member(&origin, &redis.url(), "e2", policy)).await;
        eventually_async("both are there", async || {
            read(&one, "/fleet").await["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2)
        })
        .await;
        drop(two);
        let (status, receipt) = purge(&one, r#"{"all":true,"wait":true,"timeout":"20s"}"#).await;
        assert_eq!((status, &receipt["complete"]), (200, &complete.into()), "{policy}: {receipt}");
        assert_eq!((&receipt["nodes"]["live"], &receipt["nodes"]["lost"][0]), (&1.into(), &"e2".into()), "{receipt}");
        let back = member(&origin, &redis.url(), "e2", policy).start().await;
        ready(&back).await;
        assert_eq!(acknowledged(&one, r#"{"all":true,"wait":true}"#).await["nodes"]["live"], 2, "{policy}");
    }
}

#[tokio::test]
async fn a_purge_while_redis_is_gone_acts_here_and_is_published_later() {
    let (mut redis, origin) = (RedisServer::start(true).await, origin().await);
    origin.serve("/a", cacheable("x"));
    let (one, two) = two(&origin, &redis).await;
    let _ = (one.get("/a").await, two.get("/a").await);
    redis.kill();
    let (status, receipt) = purge(&one, r#"{"urls":["http://a.test/a"],"wait":true}"#).await;
    assert_eq!((status, &receipt["fleet"], &receipt["complete"]), (503, &"unreachable".into(), &false.into()));
    assert_eq!(receipt["matched"], 1);
    assert!(!one.get("/a").await.is_hit(), "it acts here");
    assert!(two.get("/a").await.is_hit(), "nobody has told the other");
    redis.restart().await;
    eventually_async("the other has heard of it", async || {
        read(&two, "/purges").await["purges"][0]["id"] == receipt["id"]
    })
    .await;
    assert!(!two.get("/a").await.is_hit());
    let found = read(&one, &format!("/purges/{}", receipt["id"].as_str().expect("a text"))).await;
    assert_eq!(found["position"], 2, "{found}");
    assert_eq!(one.metric("edge_purges_total{kind=\"url\"}"), 1.0, "what acts before it is published is one");
}

#[tokio::test]
async fn a_redis_that_is_not_there_keeps_a_node_from_being_ready_and_from_what_is_stored() {
    let (mut redis, origin) = (RedisServer::start(false).await, origin().await);
    redis.kill();
    origin.serve("/a", cacheable("x").etag("\"1\""));
    let one = member(&origin, &redis.url(), "e1", "").start().await;
    assert_eq!(reasons(&one).await, ["purge-log-behind"]);
    let _ = one.get("/a").await;
    let again = one.get("/a").await;
    assert_eq!((again.status, &*again.cache_status()), (200, "fwd=stale; fwd-status=304; stored; detail=purged"));
    redis.restart().await;
    ready(&one).await;
    let _ = one.get("/a").await;
    assert!(one.get("/a").await.is_hit());
}

#[tokio::test]
async fn a_node_that_is_cut_off_does_what_it_is_told() {
    for (policy, status, cache_status) in [
        ("serve", 200, "hit; ttl=60"),
        ("revalidate", 200, "fwd=stale; fwd-status=304; stored; detail=purged"),
        ("stop", 503, ""),
    ] {
        let (mut redis, origin) = (RedisServer::start(true).await, origin().await);
        origin.serve("/a", cacheable("x").etag("\"1\""));
        let one = member(&origin, &redis.url(), "e1", &format!(", when_cut_off: {policy}")).start().await;
        ready(&one).await;
        connected(&one, 1.0).await;
        let _ = one.get("/a").await;
        redis.kill();
        connected(&one, 0.0).await;
        let answer = one.get("/a").await;
        assert_eq!((answer.status, &*answer.cache_status()), (status, cache_status), "{policy}");
        if policy == "stop" {
            assert_eq!(reasons(&one).await, ["cut-off"]);
        }
        let lag = one.metric("edge_purge_lag_seconds");
        assert!(lag >= LEASE.as_secs_f64(), "{lag}");
        eventually("it grows", || one.metric("edge_purge_lag_seconds") > lag).await;
        if policy == "revalidate" {
            origin.serve("/a", reset());
            assert_eq!(one.get("/a").await.status, 502, "what a purge may have taken is not served in its place");
            origin.serve("/a", cacheable("x").etag("\"1\""));
        }
        redis.restart().await;
        connected(&one, 1.0).await;
        ready(&one).await;
        eventually("it has caught up", || one.metric("edge_purge_lag_seconds") == 0.0).await;
        let _ = one.get("/a").await;
        assert!(one.get("/a").await.is_hit(), "{policy}");
    }
}

#[tokio::test]
async fn a_log_that_was_lost_makes_every_node_forget_what_it_stored() {
    let (redis, origin) = (RedisServer::start(false).await, origin().await);
    origin.serve("/a", cacheable("x"));
    let (one, two) = two(&origin, &redis).await;
    acknowledged(&one, r#"{"all":true,"wait":true}"#).await;
    for loss in ["FLUSHALL", "DEL {eh:purge}:log", "DEL {eh:purge}:epoch", "DEL {eh:purge}:n", "XDEL {eh:purge}:log"] {
        // Both have a place, and something stored that no order names.
        let place = read(&one, "/fleet").await["position"].clone();
        let _ = (one.get("/a").await, two.get("/a").await);
        assert!(one.get("/a").await.is_hit() && two.get("/a").await.is_hit(), "{loss}");
        let loss = if loss.starts_with("XDEL") { format!("{loss} {place}-0") } else { loss.to_owned() };
        redis.command(&loss);
        for edge in [&one, &two] {
            eventually_async("it has forgotten", async || !edge.get("/a").await.is_hit()).await;
        }
        // Not before both have gone on from there.
        let (status, receipt) = purge(&two, r#"{"surrogate_keys":["k"],"wait":true,"timeout":"20s"}"#).await;
        assert_eq!((status, &receipt["complete"]), (200, &true.into()), "{loss}: {receipt}");
        assert_eq!(receipt["nodes"]["live"], 2, "{loss}: {receipt}");
    }
}

#[tokio::test]
async fn a_gap_in_the_log_counts_as_a_purge_of_everything() {
    let (redis, origin) = (RedisServer::start(true).await, origin().await);
    origin.serve("/a", cacheable("x"));
    let (one, two) = two(&origin, &redis).await;
    let _ = two.get("/a").await;
    assert!(two.get("/a").await.is_hit());
    let position = read(&one, "/fleet").await["position"].as_u64().expect("a number");
    // As if entries after its place had come and gone.
    let n = position + 3;
    let script = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('XADD', KEYS[2], ARGV[1] .. '-0', \
                  'id', 'z', 'prev', 'y', 'node', 'e9', 'at', '0', 'order', '{}', 'logged', '0')";
    redis.command(&format!("EVAL \"{script}\" 2 {{eh:purge}}:n {{eh:purge}}:log {n}"));
    eventually_async("it has forgotten", async || !two.get("/a").await.is_hit()).await;
    eventually_async("it is at the end", async || read(&two, "/fleet").await["position"] == n).await;
}

#[tokio::test]
async fn a_second_live_node_of_one_id_does_not_start_and_a_dead_ones_id_is_free() {
    let redis = RedisServer::start(false).await;
    let yaml = |lease: &str| {
        format!(
            "version: 1\nnode: {{ id: e1 }}\nserver: {{ listeners: [ {{ address: \"127.0.0.1:0\" }} ] }}\n\
             admin: {{ address: \"127.0.0.1:0\" }}\nredis: {{ url: \"{}\", timeout: 2s }}\nfleet: {{ lease: {lease} }}\n\
             log: {{ access: {{ to: none }} }}\nroutes: []\n",
            redis.url()
        )
    };
    let start = async |lease: &str| {
        let environment = FixedEnvironment::default();
        let loaded = config::parse(&yaml(lease), "t.yaml", ".".as_ref(), &environment, config::Options::default());
        app::start(loaded.expect("a configuration"), Clock::system()).await
    };
    let first = Apart::start(configured(&yaml("1h"))).await;
    let refused = within(start("1h")).await.map(|_| ()).expect_err("the id is held");
    assert!(refused.to_string().contains("another live node of the fleet has the id e1"), "{refused}");
    drop(first);
    // Its lease holds for an hour; this one looks for a shorter time whether it still beats.
    let second = within(start("1s")).await.expect("nobody holds it");
    within(second.stop()).await;
}

#[tokio::test]
async fn a_purge_that_waits_does_not_end_before_a_slow_node_has_it() {
    let (redis, origin) = (RedisServer::start(false).await, origin().await);
    let one = member(&origin, &redis.url(), "e1", "").start().await;
    ready(&one).await;
    // A node that beats and applies nothing.
    let now = "99999999999999";
    redis.command(&format!("HSET {{eh:purge}}:seen slow \"i {now} 1000\""));
    redis.command("HSET {eh:purge}:nodes slow {}");
    let (status, receipt) = purge(&one, r#"{"all":true,"wait":true,"timeout":"1500ms"}"#).await;
    assert_eq!((status, &receipt["complete"]), (200, &false.into()), "{receipt}");
    assert_eq!((&receipt["nodes"]["live"], &receipt["nodes"]["acknowledged"]), (&2.into(), &1.into()), "{receipt}");
    let mut connection = Connection::open(one.address).await;
    assert_eq!(connection.ask(&get("/a")).await.status, 404, "the edge is well");
}

#[tokio::test]
async fn a_log_is_no_older_than_it_is() {
    let redis = RedisServer::start(false).await;
    let node = bare(&redis, "e1", HOUR);
    let begun = Instant::now();
    within(node.join(&Nothing::default())).await;
    let age = within(node.members()).await.expect("Redis answers").age;
    // Milliseconds are whole on both sides.
    assert!(age <= begun.elapsed() + Duration::from_millis(2), "{age:?}");
}

#[tokio::test]
async fn a_node_whose_lease_holds_is_not_forgotten_however_short_the_history_is() {
    let redis = RedisServer::start(false).await;
    let node = bare(&redis, "e1", HOUR);
    within(node.join(&Nothing::default())).await;
    // Its last beat is longer ago than the history of `node`.
    redis.command("HSET {eh:purge}:seen patient \"i 0 99999999999999\"");
    for _ in 0..2 {
        let members = within(node.members()).await.expect("Redis answers");
        let live: Vec<_> = members.live().map(|member| member.card.id.as_str()).collect();
        assert_eq!(live, ["e1", "patient"]);
    }
}

#[tokio::test]
async fn who_missed_one_purge_after_a_long_silence_forgets_nothing() {
    let redis = RedisServer::start(false).await;
    let (issuer, behind) = (bare(&redis, "e1", Duration::ZERO), bare(&redis, "e2", Duration::ZERO));
    let (stored, others) = (Nothing::default(), Nothing::default());
    let all_entries_are_older_than_the_history = async || {
        let age = async || within(issuer.members()).await.expect("Redis answers").age;
        let since = age().await;
        eventually_async("time passes", async || age().await > since + Duration::from_millis(1)).await;
    };
    within(issuer.join(&others)).await;
    within(behind.join(&stored)).await;
    assert_eq!(stored.forgotten(), 1, "whatever it stored before it was a member");
    for (purges, forgotten) in [(1, 1), (2, 2)] {
        all_entries_are_older_than_the_history().await;
        let issued = issuer.issue(&purges.to_string(), &Order::everything(), SystemTime::UNIX_EPOCH, &others).await;
        assert!(matches!(issued, fleet::Issued::Published { n, .. } if n == purges + 1), "{issued:?}");
        within(behind.join(&stored)).await;
        assert_eq!(stored.forgotten(), forgotten, "after {purges} purges that it has not read");
    }
}

#[tokio::test]
async fn a_node_that_redis_forgets_alone_is_missed_and_one_that_left_is_not() {
    let redis = RedisServer::start(false).await;
    let (one, sink) = (Arc::new(bare(&redis, "e1", HOUR)), Arc::new(Nothing::default()));
    let (silent, polite) = (bare(&redis, "silent", HOUR), bare(&redis, "polite", HOUR));
    for node in [&*one, &silent, &polite] {
        within(node.join(&*sink)).await;
    }
    let (_going, stopping) = watch::channel(false);
    tokio::spawn(Arc::clone(&one).run(Arc::clone(&sink) as Arc<dyn Sink>, stopping));
    let members = async || {
        let members = within(one.members()).await.expect("Redis answers");
        members.all.iter().map(|member| member.card.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(members().await, ["e1", "polite", "silent"]);
    within(polite.leave()).await;
    assert_eq!(members().await, ["e1", "silent"]);
    // A part of what Redis knows, as after a return to an earlier state of it.
    redis.command("DEL {eh:purge}:seen");
    assert_eq!(members().await, ["e1", "silent"]);
    let issued = one.issue("a", &Order::everything(), SystemTime::UNIX_EPOCH, &*sink).await;
    let fleet::Issued::Published { epoch, n } = issued else { panic!("{issued:?}") };
    let acknowledged = within(one.acknowledged(&epoch, n, STUCK)).await;
    // It is waited for until its lease has lapsed, and may serve what it has.
    assert_eq!((acknowledged.lost, acknowledged.complete), (vec!["silent".to_owned()], false));
    within(silent.join(&*sink)).await;
    within(polite.join(&*sink)).await;
    assert_eq!(members().await, ["e1", "polite", "silent"]);
}

#[tokio::test]
async fn a_node_that_stops_tells_what_is_still_to_be_told() {
    let (redis, origin) = (RedisServer::start(false).await, origin().await);
    let one = member(&origin, &redis.url(), "e1", "").start().await;
    ready(&one).await;
    let stops = bare(&redis, "e2", HOUR);
    within(stops.join(&Nothing::default())).await;
    for _ in 0..2 {
        stops.tell(Order { hosts: vec!["a.test".into()], ..Order::default() }, SystemTime::UNIX_EPOCH);
    }
    within(stops.leave()).await;
    eventually("the other has heard of it", || one.metric("edge_purges_total{kind=\"host\"}") == 2.0).await;
}

#[tokio::test]
async fn a_node_that_redis_answers_and_that_has_no_lease_is_not_connected() {
    let (redis, origin) = (RedisServer::start(false).await, origin().await);
    let one = member(&origin, &redis.url(), "e1", "").start().await;
    connected(&one, 1.0).await;
    assert_eq!(read(&one, "/fleet").await["connected"], true);
    // Another process holds its name.
    redis.command("HSET {eh:purge}:seen e1 \"other 99999999999999 1000\"");
    connected(&one, 0.0).await;
    let fleet = read(&one, "/fleet").await;
    assert_eq!((&fleet["connected"], &fleet["nodes"][0]["silent_ms"]), (&false.into(), &0.into()), "{fleet}");
}

#[tokio::test]
async fn a_purge_that_its_own_node_jumps_over_is_still_written_down() {
    let redis = RedisServer::start(false).await;
    let (node, other, sink) = (bare(&redis, "e1", HOUR), bare(&redis, "e2", HOUR), Nothing::default());
    within(node.join(&sink)).await;
    within(other.join(&Nothing::default())).await;
    let _ = within(other.issue("a", &Order::everything(), SystemTime::UNIX_EPOCH, &Nothing::default())).await;
    // What it has applied last is gone, so its next beat forgets everything and goes on at the end, which is its own purge.
    redis.command("XDEL {eh:purge}:log 1-0");
    let order = Order::everything();
    let (issued, _) =
        within(async { tokio::join!(node.issue("b", &order, SystemTime::UNIX_EPOCH, &sink), node.join(&sink)) }).await;
    assert!(matches!(issued, fleet::Issued::Published { n: 3, .. }), "{issued:?}");
    assert_eq!((node.position(), sink.forgotten()), (3, 2), "it has jumped");
    assert_eq!(node.history().find("b").and_then(|record| record.position), Some(3));
}

#[tokio::test]
async fn a_purge_goes_on_and_is_in_the_audit_when_its_caller_goes_away() {
    let (lines, _kept) = Lines::of_this_thread();
    let (redis, origin) = (RedisServer::start(false).await, origin().await);
    origin.serve("/a", cacheable("x"));
    let yaml = format!(
        "version: 1\nserver: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}\n\
         admin: {{ address: \"{{admin}}\", tokens: [ {{ name: cms, value: cms-secret-16byte, allow: [ purge ] }} ] }}\n\
         log: {{ access: {{ to: none }} }}\nredis: {{ url: \"{}\", timeout: 20s }}\n\
         upstreams: {{ origin: {{ peers: [ \"{}\" ] }} }}\ncache: {{ test: {{}} }}\n\
         routes: [ {{ name: pages, match: {{}}, upstream: origin, cache: test }} ]\n",
        redis.url(),
        origin.address()
    );
    let edge = configured(&yaml).start().await;
    let http2 = edge.http2().await;
    let authorized = |ask: Ask| ask.field("Authorization", "Bearer cms-secret-16byte");
    // What is published now waits: Redis takes no writes for longer than this test.
    redis.command("CLIENT PAUSE 100000 WRITE");
    // Streams of one connection begin in their order: the purge has begun when the request after it is answered.
    let purge = authorized(ask("PURGE", "/a"));
    tokio::select! {
        biased;
        answer = http2.begin(&purge) => panic!("{}", answer.answer.status),
        _ = async { (http2.ask(&get("/b")).await, http2.ask(&get("/b")).await) } => {}
    }
    let mut control = Connection::open(edge.admin).await;
    let json = ask("POST", "/purge").field("Content-Type", "application/json").body(r#"{"hosts":["a.test","b.test"]}"#);
    control.send(&authorized(json).field("Host", &edge.admin.to_string())).await;
    assert_eq!(edge.control(&get("/livez")).await.status, 200, "the purge before it has begun");
    drop(control);
    assert_eq!(edge.control(&get("/livez")).await.status, 200, "and its caller is missed");
    assert_eq!(lines.with("action=\"purge\"").len(), 0, "neither has been issued");
    redis.command("CLIENT UNPAUSE");
    eventually("both are in the audit", || lines.with("action=\"purge\"").len() == 2).await;
    for what in ["what=\"url a.test/a\"", "what=\"host a.test and 1 more\""] {
        let line = lines.with(what).pop().expect(what);
        assert!(line.contains("audit") && line.contains("token=\"cms\"") && line.contains("soft=false"), "{line}");
    }
    assert_eq!(edge.metric("edge_purges_total{kind=\"url\"}") + edge.metric("edge_purges_total{kind=\"host\"}"), 3.0);
}

#[tokio::test]
async fn a_node_that_is_cut_off_joins_no_fetch_unless_it_serves_as_ever() {
    for (policy, fetches) in [("serve", 1), ("revalidate", 2)] {
        let (mut redis, origin) = (RedisServer::start(false).await, origin().await);
        let gate = Gate::closed();
        origin.serve("/a", cacheable("x").held(&gate));
        // Who waits does not become a second writer.
        let one = member(&origin, &redis.url(), "e1", &format!(", when_cut_off: {policy}"));
        let one = one.policy("collapse: { wait: 1h }").start().await;
        ready(&one).await;
        connected(&one, 1.0).await;
        let (first, second) = tokio::join!(one.get("/a"), async {
            gate.reached_by(1).await;
            redis.kill();
            connected(&one, 0.0).await;
            // Some other node may have purged it by now.
            let (answer, ()) = tokio::join!(one.get("/a"), async {
                match policy {
                    "serve" => waiting(&one, 1).await,
                    _ => gate.reached_by(2).await,
                }
                gate.open();
            });
            answer
        });
        assert_eq!((first.status, second.status, origin.hits("/a")), (200, 200, fetches), "{policy}");
    }
}

#[tokio::test]
async fn a_node_with_a_disk_tier_comes_back_with_what_it_stored_and_hears_what_it_missed() {
    let (redis, origin) = (RedisServer::start(false).await, origin().await);
    for path in ["/kept", "/purged", "/missed"] {
        origin.serve(path, cacheable(path));
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let disk = format!("store: {{ disk: {{ path: \"{}\", size: 64MiB, min_free: 0% }} }}", folder.path().display());
    let with_disk = || member(&origin, &redis.url(), "e1", "").section(&disk).start();
    let one = with_disk().await;
    let two = member(&origin, &redis.url(), "e2", "").start().await;
    ready(&one).await;
    ready(&two).await;
    for path in ["/kept", "/purged", "/missed"] {
        one.get(path).await;
    }
    one.settled().await;
    acknowledged(&two, r#"{"urls":["http://a.test/purged"],"wait":true}"#).await;
    within(one.running.edge().store.settled()).await;
    within(one.running.stop()).await;
    purge(&two, r#"{"urls":["http://a.test/missed"]}"#).await;
    let one = with_disk().await;
    ready(&one).await;
    within(one.running.edge().store.settled()).await;
    assert!(one.get("/kept").await.is_hit());
    for path in ["/purged", "/missed"] {
        assert!(!one.get(path).await.is_hit(), "{path}");
    }
    // What it has missed is not in the log any more: it may have meant anything.
    within(one.running.edge().store.settled()).await;
    within(one.running.stop()).await;
    for _ in 0..2 {
        purge(&two, r#"{"urls":["http://a.test/other"]}"#).await;
    }
    redis.command("XTRIM {eh:purge}:log MAXLEN 1");
    let one = with_disk().await;
    ready(&one).await;
    within(one.running.edge().store.settled()).await;
    for path in ["/kept", "/purged", "/missed"] {
        assert!(!one.get(path).await.is_hit(), "{path}");
    }
}
