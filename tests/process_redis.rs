//! The room that owns Redis connections, against real servers that die, hang and come back.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "support/lines.rs"]
mod lines;
#[path = "support/redis_server.rs"]
mod redis_server;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use eduham_edge::{
    redis::{Command, Config, Error, Purpose, Redis},
    telemetry::Metrics,
};
use lines::Lines;
use redis_server::RedisServer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Longer than anything that is expected to work takes on a busy machine.
const LONG: Duration = Duration::from_secs(10);

fn owner(url: &str, timeout: Duration, metrics: &Metrics) -> Redis {
    let config = Config { url: url.parse().unwrap(), prefix: "t:".into(), timeout };
    Redis::new(&config, "test", Purpose::Commands, metrics)
}

async fn set(redis: &Redis) -> Result<String, Error> {
    redis.query(&Command::new("SET").arg("t:a").arg("1")).await
}

/// Asks until it works.
async fn works(redis: &Redis) {
    let begun = Instant::now();
    while let Err(error) = set(redis).await {
        assert!(begun.elapsed() < LONG, "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn it_connects_when_it_is_first_asked() {
    let server = RedisServer::start(false).await;
    let metrics = Metrics::new();
    let redis = owner(&server.url(), LONG, &metrics);
    assert_eq!(metrics.redis_up.with_label_values(&["test"]).get(), 0);
    assert_eq!(set(&redis).await.unwrap(), "OK");
    let read: Option<String> = redis.query(&Command::new("GET").arg("t:a")).await.unwrap();
    assert_eq!(read.as_deref(), Some("1"));
    assert_eq!(metrics.redis_up.with_label_values(&["test"]).get(), 1);
    assert_eq!(metrics.redis_duration.with_label_values(&["test"]).get_sample_count(), 2);
}

#[tokio::test]
async fn what_redis_refuses_is_an_answer_and_no_failure() {
    let server = RedisServer::start(false).await;
    let metrics = Metrics::new();
    let redis = owner(&server.url(), LONG, &metrics);
    set(&redis).await.unwrap();
    for _ in 0..5 {
        let refused = redis.query::<i64>(&Command::new("LLEN").arg("t:a")).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
    set(&redis).await.unwrap();
    assert_eq!(metrics.redis_up.with_label_values(&["test"]).get(), 1);
}

#[tokio::test]
async fn a_dead_redis_is_left_alone_for_a_moment_and_found_again() {
    let mut server = RedisServer::start(false).await;
    let metrics = Metrics::new();
    let redis = owner(&server.url(), LONG, &metrics);
    set(&redis).await.unwrap();
    server.kill();
    let mut errors = Vec::new();
    while !matches!(errors.last(), Some(Error::LeftAlone(_))) {
        errors.push(set(&redis).await.unwrap_err());
        assert!(errors.len() < 10, "{errors:?}");
    }
    let told = errors.last().unwrap().to_string();
    assert!(told.to_lowercase().contains("connection refused"), "why it is left alone: {told}");
    assert_eq!(metrics.redis_up.with_label_values(&["test"]).get(), 0);
    server.restart().await;
    works(&redis).await;
    assert_eq!(metrics.redis_up.with_label_values(&["test"]).get(), 1);
}

#[tokio::test]
async fn an_outage_is_told_once_with_its_place_and_its_reason() {
    let (lines, _kept) = Lines::of_this_thread();
    let mut server = RedisServer::start(false).await;
    let redis = owner(&server.url(), LONG, &Metrics::new());
    for outages in 1..=2 {
        works(&redis).await;
        server.kill();
        for _ in 0..10 {
            set(&redis).await.unwrap_err();
        }
        let told = lines.with("Redis cannot be used");
        assert_eq!(told.len(), outages, "{told:#?}");
        let last = &told[outages - 1];
        assert!(last.contains("WARN") && last.contains(&server.address().to_string()), "{last}");
        assert!(last.to_lowercase().contains("connection refused") && last.contains("use=\"test\""), "{last}");
        server.restart().await;
        works(&redis).await;
        assert_eq!(lines.with("Redis can be used again").len(), outages);
    }
}

#[tokio::test]
async fn a_redis_that_hangs_costs_no_more_than_the_deadline() {
    // It takes connections into its backlog and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let timeout = Duration::from_millis(20);
    let redis = owner(&format!("redis://{}", silent.local_addr().unwrap()), timeout, &Metrics::new());
    let first = set(&redis).await;
    assert!(matches!(first, Err(Error::Timeout(within)) if within == timeout), "{first:?}");
    let mut left_alone = false;
    for _ in 0..5 {
        left_alone |= matches!(set(&redis).await, Err(Error::LeftAlone(_)));
    }
    assert!(left_alone, "after a few it is not even tried");
}

/// A way to a server that swallows its first connection from when it is told to, and carries every other.
async fn link(server: SocketAddr) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (swallow, swallows) = watch::channel(false);
    tokio::spawn(async move {
        let mut first = Some(swallows);
        while let Ok((mut client, _)) = listener.accept().await {
            let swallows = first.take();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let told = async {
                    match swallows {
                        Some(mut swallows) => _ = swallows.wait_for(|told| *told).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    // Both ends stay open, and nobody reads.
                    () = told => std::future::pending().await,
                }
            });
        }
    });
    (url, swallow)
}

#[tokio::test]
async fn a_link_that_swallows_everything_is_replaced() {
    let server = RedisServer::start(false).await;
    let (url, swallow) = link(server.address()).await;
    let redis = owner(&url, Duration::from_millis(300), &Metrics::new());
    works(&redis).await;
    swallow.send_replace(true);
    for _ in 0..3 {
        assert!(matches!(set(&redis).await, Err(Error::Timeout(_))));
    }
    // Nothing has broken, and the server is well: only because it was given up is there another one.
    server.command("PING");
    works(&redis).await;
}

#[tokio::test]
async fn one_that_blocks_holds_up_nobody_else() {
    let server = RedisServer::start(false).await;
    let metrics = Metrics::new();
    let commands = owner(&server.url(), LONG, &metrics);
    let config = Config { url: server.url().parse().unwrap(), prefix: String::new(), timeout: LONG };
    let log = Redis::new(&config, "log", Purpose::Blocking, &metrics);
    let blocked = tokio::spawn(async move {
        let read = Command::new("BLPOP").arg("t:list").arg(0);
        log.query_within::<Vec<String>>(&read, LONG).await
    });
    set(&commands).await.unwrap();
    commands.query::<i64>(&Command::new("RPUSH").arg("t:list").arg("x")).await.unwrap();
    assert_eq!(blocked.await.unwrap().unwrap(), ["t:list", "x"]);
    assert_eq!(metrics.redis_duration.with_label_values(&["log"]).get_sample_count(), 0);
}
