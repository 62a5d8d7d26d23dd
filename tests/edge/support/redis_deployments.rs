//! Real Redis in more than one process: a cluster of six, and a master that sentinels watch.

use std::{collections::HashMap, process::Command};

use super::{
    gate::eventually,
    redis_server::{RedisServer, free_port},
};

/// In memory alone, and a replica gets that at once.
const KEEPS_NOTHING: [&str; 4] = ["--save", "", "--repl-diskless-sync-delay", "0"];

/// Three masters, each with a replica that takes over when it is gone.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let bus = free_port().to_string();
            let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"];
            nodes.push(RedisServer::start_with(&[&arguments[..], &KEEPS_NOTHING].concat()).await);
        }
        let cluster = Self { nodes };
        let addresses = cluster.nodes.iter().map(|node| node.address().to_string());
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .expect("redis-cli is missing; scripts/setup.sh test brings it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        eventually("every node knows the cluster", || {
            cluster
                .nodes
                .iter()
                .all(|node| node.ask::<String>("CLUSTER INFO").is_ok_and(|told| told.contains("cluster_state:ok")))
        })
        .await;
        cluster
    }

    /// Names three of the nodes; the others are found by asking these.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().take(3).map(|node| node.address().to_string()).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// Kills the master that has this key.
    pub fn kill_master_of(&mut self, key: &str) {
        // Who does not have it says who does, as an error; so does a replica.
        let has_it = |node: &RedisServer| node.ask::<bool>(&format!("EXISTS {key}")).is_ok();
        let at = self.nodes.iter().position(has_it);
        self.nodes[at.expect("some node has every key")].kill();
    }
}

/// A master, its replica, and three sentinels of which two decide.
pub struct RedisSentinels {
    master: RedisServer,
    /// Of the master; it becomes the next.
    _replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    pub async fn start() -> Self {
        let master = RedisServer::start_with(&KEEPS_NOTHING).await;
        let port = master.address().port();
        let port = port.to_string();
        let replica =
            RedisServer::start_with(&[&KEEPS_NOTHING[..], &["--replicaof", "127.0.0.1", &port]].concat()).await;
        eventually("the replica has what its master has", || {
            says(&replica, "INFO replication", "master_link_status:up")
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let settings = format!(
                "sentinel.conf=sentinel monitor main 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds main 1000\n\
                 sentinel failover-timeout main 3000\n"
            );
            sentinels.push(RedisServer::start_with(&[&settings, "--sentinel"]).await);
        }
        let watched = Self { master, _replica: replica, sentinels };
        eventually("the sentinels know each other and the replica", || {
            watched.sentinels.iter().all(|sentinel| {
                let told = sentinel.ask::<HashMap<String, String>>("SENTINEL MASTER main").unwrap_or_default();
                let is = |name: &str, number: &str| told.get(name).is_some_and(|told| told == number);
                is("num-slaves", "1") && is("num-other-sentinels", "2")
            })
        })
        .await;
        watched
    }

    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!("redis+sentinel://{}/main", addresses.join(","))
    }

    pub fn kill_master(&mut self) {
        self.master.kill();
    }
}

/// Does its answer to `command` say this?
fn says(server: &RedisServer, command: &str, word: &str) -> bool {
    server.ask::<String>(command).is_ok_and(|told| told.contains(word))
}
