//! Edges on a Redis of many processes: purges go on when the one that had the log is gone.

use serde_json::Value;

use crate::support::{
    Edge, Origin, ask, cacheable, edge, eventually_async, get, origin,
    redis_deployments::{RedisCluster, RedisSentinels},
};

/// The key of the log; all keys of a fleet lie where it lies.
const LOG: &str = "{eh:purge}:log";

async fn json(edge: &Edge, path: &str) -> Value {
    serde_json::from_str(edge.control(&get(path)).await.text()).expect("JSON")
}

async fn member(origin: &Origin, redis: &str, id: &str) -> Edge {
    let edge = edge(origin)
        .section(&format!("node: {{ id: {id} }}"))
        .section(&format!("redis: {{ url: \"{redis}\", timeout: 2s }}"))
        .section("fleet: { lease: 2s }")
        .start()
        .await;
    eventually_async("it is ready", async || edge.control(&get("/readyz")).await.status == 200).await;
    edge
}

/// Is it acknowledged by both that everything is purged?
async fn purges_both(edge: &Edge) -> bool {
    let order = r#"{"all":true,"wait":true,"timeout":"2s"}"#;
    let answer = edge.control(&ask("POST", "/purge").field("Content-Type", "application/json").body(order)).await;
    let receipt: Value = serde_json::from_str(answer.text()).expect("JSON");
    receipt["complete"] == Value::Bool(true) && receipt["nodes"]["acknowledged"] == 2
}

/// Two edges purge each other's stored responses, before and after `kill` has taken away who has the log.
async fn purges_survive(url: &str, kill: impl FnOnce()) {
    let origin = origin().await;
    origin.serve("/a", cacheable("x"));
    let (one, two) = (member(&origin, url, "e1").await, member(&origin, url, "e2").await);
    let is_purged_on_both = async |by: &Edge| {
        // A purge that could not be published at first may still come.
        eventually_async("both have it", async || one.get("/a").await.is_hit() && two.get("/a").await.is_hit()).await;
        eventually_async("both have acknowledged", async || purges_both(by).await).await;
        assert!(!one.get("/a").await.is_hit() && !two.get("/a").await.is_hit());
    };
    is_purged_on_both(&one).await;
    is_purged_on_both(&two).await;
    kill();
    is_purged_on_both(&one).await;
    is_purged_on_both(&two).await;
    eventually_async("both stand at the same place", async || {
        json(&one, "/fleet").await["position"] == json(&two, "/fleet").await["position"]
    })
    .await;
}

#[tokio::test]
async fn purges_go_on_when_a_cluster_loses_the_master_of_the_log() {
    let mut cluster = RedisCluster::start().await;
    let url = cluster.url();
    purges_survive(&url, || cluster.kill_master_of(LOG)).await;
}

#[tokio::test]
async fn purges_go_on_when_sentinels_have_made_another_server_the_master() {
    let mut watched = RedisSentinels::start().await;
    let url = watched.url();
    purges_survive(&url, || watched.kill_master()).await;
}
