//! An edge in this process, with a clock that tests move.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use eduham_edge::{
    app::{self, Bound, Running},
    clock::Clock,
    config::{self, FixedEnvironment, Options},
    front::{App, Front},
};
use pingora_core::protocols::Stream;

use super::{
    client::{Answer, Ask, Connection, Http2, ask, get},
    gate::{eventually, within},
    origin::Origin,
};

/// When tests happen: some moment between two seconds, since clocks seldom strike.
const START: Duration = Duration::from_millis(1_795_486_897_400);

/// What an edge is made from. See [`edge`].
#[derive(Default)]
pub struct Builder {
    whole: Option<String>,
    server: Vec<String>,
    sections: Vec<String>,
    policy: Option<String>,
    upstream: Vec<String>,
    peers: Vec<SocketAddr>,
    routes: Vec<String>,
    logs: bool,
}

/// An edge that sends everything to `origin` and caches it by the policy `test`, until it is told otherwise.
pub fn edge(origin: &Origin) -> Builder {
    Builder { peers: vec![origin.address()], policy: Some(String::new()), ..Builder::default() }
}

/// An edge with this configuration. `{listener}` in it is where it listens, `{admin}` its control listener.
pub fn configured(yaml: &str) -> Builder {
    Builder { whole: Some(yaml.into()), ..Builder::default() }
}

impl Builder {
    /// Keys of the policy `test`, as in `default_ttl: 1m, stale_if_error: 1h`.
    pub fn policy(mut self, keys: &str) -> Self {
        self.policy = Some(keys.into());
        self
    }

    /// The last route has no cache.
    pub fn uncached(mut self) -> Self {
        self.policy = None;
        self
    }

    /// Keys of the upstream `origin`, as in `retries: { max: 0 }`.
    pub fn upstream(mut self, keys: &str) -> Self {
        self.upstream.push(keys.into());
        self
    }

    /// One more peer of the upstream `origin`.
    pub fn peer(mut self, origin: &Origin) -> Self {
        self.peers.push(origin.address());
        self
    }

    /// A route before the last one, as in `name: old, match: { path: /old }, redirect: { to: "/new" }`.
    pub fn route(mut self, keys: &str) -> Self {
        self.routes.push(keys.into());
        self
    }

    /// Keys of `server`, as in `limits: { body_bytes: 10 }`.
    pub fn server(mut self, keys: &str) -> Self {
        self.server.push(keys.into());
        self
    }

    /// A top-level key with its value, as in `store: { memory: { size: 8MiB } }`.
    pub fn section(mut self, text: &str) -> Self {
        self.sections.push(text.into());
        self
    }

    /// Keeps its access records for [`Edge::records`].
    pub fn logged(mut self) -> Self {
        self.logs = true;
        self
    }

    fn yaml(&self, log: Option<&Path>) -> String {
        if let Some(whole) = &self.whole {
            return whole.replace("{listener}", "127.0.0.1:0").replace("{admin}", "127.0.0.1:0");
        }
        let mut server = vec![r#"listeners: [ { address: "127.0.0.1:0" } ]"#.to_owned()];
        server.extend(self.server.iter().cloned());
        let to = log.map_or("none".to_owned(), |path| format!("{:?}", path.display().to_string()));
        let peers: Vec<String> = self.peers.iter().map(|peer| format!("\"{peer}\"")).collect();
        let mut upstream = vec![format!("peers: [ {} ]", peers.join(", "))];
        upstream.extend(self.upstream.iter().cloned());
        let mut yaml = format!(
            "version: 1\nserver: {{ {} }}\nadmin: {{ address: \"127.0.0.1:0\" }}\nlog: {{ access: {{ to: {to} }} }}\n\
             upstreams:\n  origin: {{ {} }}\n",
            server.join(", "),
            upstream.join(", "),
        );
        for section in &self.sections {
            yaml.push_str(section);
            yaml.push('\n');
        }
        if let Some(policy) = &self.policy {
            yaml.push_str(&format!("cache:\n  test: {{ {policy} }}\n"));
        }
        yaml.push_str("routes:\n");
        for route in &self.routes {
            yaml.push_str(&format!("  - {{ {route} }}\n"));
        }
        let cache = if self.policy.is_some() { ", cache: test" } else { "" };
        yaml.push_str(&format!("  - {{ name: pages, match: {{ path: \"/{{*rest}}\" }}, upstream: origin{cache} }}\n"));
        yaml
    }

    pub async fn start(self) -> Edge {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = self.logs.then(|| directory.path().join("access.log"));
        let yaml = self.yaml(log.as_deref());
        let environment = FixedEnvironment::default();
        let loaded = config::parse(&yaml, "test.yaml", directory.path(), &environment, Options::default())
            .unwrap_or_else(|problems| panic!("{problems}\n{yaml}"));
        let clock = Clock::manual(UNIX_EPOCH + START);
        let running = app::start(loaded, clock.clone()).await.expect("port 0 is free");
        let tcp = |bound: &Bound| match bound {
            Bound::Tcp(address) => *address,
            Bound::Unix(path) => panic!("{} is no TCP address", path.display()),
        };
        let (address, admin) = (tcp(&running.addresses()[0]), tcp(running.admin()));
        Edge { running, address, admin, clock, directory }
    }
}

/// An edge on threads of its own, so that it can end like a process that is killed: without a word.
pub struct Apart {
    runtime: Option<tokio::runtime::Runtime>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    // Keeps what the edge stands on.
    _edge: Edge,
}

impl Apart {
    pub async fn start(builder: Builder) -> Self {
        let start = move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(1).enable_all().build().expect("threads can be had");
            let edge = runtime.block_on(builder.start());
            Self { runtime: Some(runtime), address: edge.address, admin: edge.admin, _edge: edge }
        };
        tokio::task::spawn_blocking(start).await.expect("the edge starts")
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An edge that serves.
pub struct Edge {
    pub running: Running,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub clock: Clock,
    directory: tempfile::TempDir,
}

impl Edge {
    /// One request over a connection of its own.
    pub async fn ask(&self, ask: &Ask) -> Answer {
        self.connect().await.ask(ask).await
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.ask(&get(target)).await
    }

    pub async fn connect(&self) -> Connection {
        Connection::open(self.address).await
    }

    pub async fn http2(&self) -> Http2 {
        Http2::open(self.address).await
    }

    /// Serves a stream, with the room that a test has given it, like a connection to the first listener.
    pub fn serve(&self, stream: Stream) {
        let edge = Arc::clone(self.running.edge());
        let listener = edge.snapshot.load().config.server.listeners[0].clone();
        let front = Front::new(edge, listener, Arc::default()).expect("a listener that there is");
        let app = App::new(Arc::new(front));
        tokio::spawn(async move { app.serve(stream).await });
    }

    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Moves the clock.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// The sum of all series of a metric that have these labels: `edge_cache_requests_total{result="hit"}`.
    pub fn metric(&self, selector: &str) -> f64 {
        let (name, wanted) = selector.split_once('{').unwrap_or((selector, ""));
        let wanted: Vec<&str> = wanted.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
        let edge = self.running.edge();
        edge.store.observe();
        let text = edge.metrics.encode();
        text.lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| {
                let (of, labels) = series.split_once('{').unwrap_or((series, ""));
                let labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
                of == name && wanted.iter().all(|label| labels.contains(label))
            })
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }

    /// How many requests on cached routes had this result.
    pub fn results(&self, result: &str) -> usize {
        self.metric(&format!("edge_cache_requests_total{{result=\"{result}\"}}")) as usize
    }

    /// Waits until no fetch for the store is in progress.
    pub async fn settled(&self) {
        let running = self.running.edge().metrics.fills.with_label_values(&["running"]);
        eventually("no fetch is in progress", || running.get() == 0).await;
    }

    /// Purges over the control listener: `{"all":true}`; the receipt.
    pub async fn purge(&self, order: &str) -> serde_json::Value {
        let answer = self.control(&ask("POST", "/purge").field("Content-Type", "application/json").body(order)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_str(answer.text()).expect("a receipt")
    }

    /// Asks the control listener.
    pub async fn control(&self, ask: &Ask) -> Answer {
        let ask = ask.clone().field("Host", &self.admin.to_string());
        Connection::open(self.admin).await.ask(&ask).await
    }

    /// Stops, and gives every access record that was written. The edge must have been [`logged`](Builder::logged).
    pub async fn records(self) -> Vec<serde_json::Value> {
        within(self.running.stop()).await;
        let text = std::fs::read_to_string(self.directory.path().join("access.log")).expect("the edge was logged");
        text.lines().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
    }
}

/// Waits until so many requests wait for the fetch of another.
pub async fn waiting(edge: &Edge, requests: usize) {
    let waiting = "edge_fills{state=\"waiting\"}";
    eventually("all of them wait", || edge.metric(waiting) == requests as f64).await;
}
