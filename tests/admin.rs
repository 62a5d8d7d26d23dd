//! The control listener over real sockets, and the commands that ask it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use eduham_edge::{
    admin::{
        self, Config, Explain, FleetView, NodeView, Parts, PeerCommand, PeerState, PeerView, Purge, PurgeNodes,
        PurgeReceipt, PurgeRefusal, PurgeRequest, PurgeUrl, PurgeView, Question, Readiness, Right, SetStateError,
        Token, Unreachable, UpstreamView, Upstreams,
    },
    front::ListenAddress,
    telemetry::Metrics,
};
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::watch,
    task::JoinHandle,
};

/// Remembers what it was asked; refuses hosts that begin with `bad`, fails at the surrogate key `broken`, and cannot tell the fleet of the surrogate key `far`.
#[derive(Default)]
struct Purged(Mutex<Vec<PurgeRequest>>);

impl Purge for Purged {
    fn purge(&self, request: PurgeRequest, _token: String) -> BoxFuture<'_, Result<PurgeReceipt, PurgeRefusal>> {
        let far = request.surrogate_keys.iter().any(|key| key == "far");
        let refused = request.urls.iter().position(|url| url.host.starts_with("bad"));
        let broken = request.surrogate_keys.iter().any(|key| key == "broken");
        self.0.lock().push(request);
        Box::pin(async move {
            match refused {
                None if broken => Err(PurgeRefusal::Failed { reason: "it panicked".into() }),
                Some(index) => Err(PurgeRefusal::Url { index, reason: "goes above the root".into() }),
                None => Ok(PurgeReceipt {
                    id: "7".into(),
                    position: None,
                    matched: Some(2),
                    bytes: None,
                    complete: !far,
                    nodes: PurgeNodes::alone(),
                    fleet: far.then_some(Unreachable::Unreachable),
                }),
            }
        })
    }

    fn purges(&self) -> Vec<PurgeView> {
        vec![purge_view()]
    }

    fn find(&self, id: String) -> BoxFuture<'_, Option<PurgeView>> {
        Box::pin(async move { (id == "7").then(purge_view) })
    }

    fn fleet(&self) -> BoxFuture<'_, FleetView> {
        Box::pin(async {
            let (id, region, config) = ("edge-1".into(), None, "abc".into());
            let (position, lag) = (Some(7), Some(0));
            let node = NodeView { id, region, config, state: "live", position, lag, silent_ms: 12 };
            FleetView { connected: true, position: 7, nodes: vec![node] }
        })
    }
}

fn purge_view() -> PurgeView {
    PurgeView {
        id: "7".into(),
        node: "edge-1".into(),
        at: SystemTime::UNIX_EPOCH,
        position: None,
        urls: vec!["a.test/".into()],
        surrogate_keys: Vec::new(),
        prefixes: Vec::new(),
        hosts: Vec::new(),
        all: false,
        soft: true,
        ignore_query: false,
        matched: Some(2),
        bytes: None,
        complete: None,
        nodes: None,
    }
}

/// Two pools: `learning` is well, `collab` is what it was set to.
struct Pools(Mutex<PeerState>);

impl Upstreams for Pools {
    fn list(&self) -> Vec<UpstreamView> {
        let upstream = |name: &str, id: &str, state| {
            let address = "127.0.0.1:1".into();
            let peer = PeerView { id: id.into(), address, state, weight: 1, backup: false, active: 0 };
            UpstreamView { name: name.into(), usable: state == PeerState::Up, peers: vec![peer] }
        };
        vec![upstream("collab", "unix:/run/c1", *self.0.lock()), upstream("learning", "l1", PeerState::Up)]
    }

    fn set_state(&self, upstream: &str, peer: &str, command: PeerCommand) -> Result<(), SetStateError> {
        match (upstream, peer) {
            ("collab", "unix:/run/c1") => {
                *self.0.lock() = match command {
                    PeerCommand::Drain => PeerState::Draining,
                    PeerCommand::Ready => PeerState::Up,
                    PeerCommand::Down => PeerState::Down,
                };
                Ok(())
            }
            ("collab" | "learning", _) => Err(SetStateError::NoPeer { upstream: upstream.into(), peer: peer.into() }),
            _ => Err(SetStateError::NoUpstream(upstream.into())),
        }
    }
}

/// Knows no request.
struct Unexplained;

impl Explain for Unexplained {
    fn explain(&self, _: Question) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { Err("no such URL".into()) })
    }
}

/// A control listener on port 0.
struct Control {
    address: SocketAddr,
    purged: Arc<Purged>,
    readiness: Arc<Readiness>,
    pools: Arc<Pools>,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

fn config() -> Config {
    Config {
        address: ListenAddress::Tcp(([127, 0, 0, 1], 0).into()),
        metrics_token: false,
        ready_require: Vec::new(),
        tokens: Vec::new(),
    }
}

fn with_tokens() -> Config {
    let token = |name: &str, allow: &[Right]| {
        let value = format!("{name}-secret");
        Token { name: name.into(), value, allow: allow.to_vec() }
    };
    let tokens = vec![
        token("reader", &[Right::Read]),
        token("cms", &[Right::Purge]),
        token("operator", &[Right::Drain, Right::Config]),
        token("root", &[Right::All]),
        Token { name: "empty".into(), value: String::new(), allow: vec![Right::All] },
    ];
    Config { tokens, ..config() }
}

async fn control(config: Config) -> Control {
    let listener = admin::bind(&config.address).await.unwrap();
    let address = match listener.address().unwrap() {
        ListenAddress::Tcp(address) => address,
        ListenAddress::Unix(_) => ([0, 0, 0, 0], 0).into(),
    };
    let purged = Arc::new(Purged::default());
    let readiness = Arc::new(Readiness::new());
    readiness.config_loaded();
    readiness.listeners_bound();
    readiness.first_health_round_done();
    let pools = Arc::new(Pools(Mutex::new(PeerState::Up)));
    let parts = Parts {
        metrics: Arc::new(Metrics::new()),
        purge: purged.clone(),
        upstreams: pools.clone(),
        explain: Arc::new(Unexplained),
        readiness: readiness.clone(),
        config,
        node: "edge-1".into(),
    };
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(admin::serve(listener, parts, stopped));
    Control { address, purged, readiness, pools, stop, served }
}

/// Names and values, of header fields or environment variables.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// `body` is JSON where it is, else a string.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, request: Request<String>) -> Answer {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request.map(Full::<bytes::Bytes>::from)).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

impl Control {
    async fn ask(&self, method: Method, path: &str, fields: Fields<'_>, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        exchange(TcpStream::connect(self.address).await.unwrap(), request.body(body.to_owned()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, &[("content-type", "application/json")], &body.to_string()).await
    }
}

#[tokio::test]
async fn a_node_is_ready_when_it_waits_for_nothing_and_tells_what_it_waits_for() {
    let control = control(config()).await;
    let answer = control.get("/readyz").await;
    assert_eq!((answer.status, answer.body), (200, json!({"status": "ok", "node": "edge-1"})));

    control.readiness.set_draining(true);
    for path in ["/readyz", "/healthz"] {
        let answer = control.get(path).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body, json!({"status": "unready", "node": "edge-1", "reasons": ["draining"]}));
    }
    assert_eq!(control.get("/livez").await.status, 200, "a node that drains is alive");

    let reasons: Vec<&str> = Readiness::new().reasons().into_iter().map(Into::into).collect();
    assert_eq!(reasons, ["config-not-loaded", "listeners-not-bound", "first-health-round-pending"]);
}

#[tokio::test]
async fn an_upstream_without_a_usable_peer_degrades_the_node_and_unreadies_it_only_if_required() {
    let rows = [(vec![], 200, "degraded"), (vec!["learning"], 200, "degraded"), (vec!["collab"], 503, "unready")];
    for (require, status, word) in rows {
        let ready_require: Vec<String> = require.into_iter().map(str::to_owned).collect();
        let control = control(Config { ready_require, ..config() }).await;
        *control.pools.0.lock() = PeerState::Down;
        let answer = control.get("/readyz").await;
        let body = json!({"status": word, "node": "edge-1", "upstreams": {"collab": "no usable peer"}});
        assert_eq!((answer.status, answer.body), (status, body));
    }
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let answer = control(config()).await.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.body.as_str().unwrap();
    assert!(text.contains("# TYPE edge_draining gauge\nedge_draining 0\n"), "{text}");
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_what_exists() {
    let control = control(config()).await;
    for (method, path, status) in [(Method::GET, "/nothing", 404), (Method::GET, "/purge", 405)] {
        let answer = control.ask(method, path, &[], "").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.body["status"], status);
        assert!(answer.body["endpoints"].as_array().unwrap().contains(&json!("POST /purge")), "{:?}", answer.body);
    }
}

#[tokio::test]
async fn a_token_may_do_what_it_is_allowed_and_no_more() {
    let control = control(Config { metrics_token: true, ..with_tokens() }).await;
    let peer = "/upstreams/collab/peers/unix:%2Frun%2Fc1";
    let tokens = [
        None,
        Some("Bearer reader-secreT"),
        Some("Bearer "),
        Some("Bearer reader-secret"),
        Some("bearer cms-secret"),
        Some("Bearer operator-secret"),
        Some("Bearer root-secret"),
    ];
    let rows = [
        (Method::GET, "/livez", "", [200, 200, 200, 200, 200, 200, 200]),
        (Method::GET, "/readyz", "", [200, 200, 200, 200, 200, 200, 200]),
        (Method::GET, "/healthz", "", [200, 200, 200, 200, 200, 200, 200]),
        (Method::GET, "/metrics", "", [401, 401, 401, 200, 403, 403, 200]),
        (Method::GET, "/upstreams", "", [401, 401, 401, 200, 403, 403, 200]),
        (Method::POST, "/purge", r#"{"all":true}"#, [401, 401, 401, 403, 200, 403, 200]),
        (Method::POST, peer, r#"{"state":"ready"}"#, [401, 401, 401, 403, 403, 200, 200]),
        (Method::GET, "/purges", "", [401, 401, 401, 200, 403, 403, 200]),
        (Method::GET, "/purges/7", "", [401, 401, 401, 200, 403, 403, 200]),
        (Method::GET, "/purges/8", "", [401, 401, 401, 404, 403, 403, 404]),
        (Method::GET, "/fleet", "", [401, 401, 401, 200, 403, 403, 200]),
        (Method::GET, "/nothing", "", [401, 401, 401, 404, 403, 403, 404]),
    ];
    for (method, path, body, expected) in rows {
        for (token, expected) in tokens.iter().zip(expected) {
            let mut fields = vec![("content-type", "application/json")];
            fields.extend(token.map(|token| ("authorization", token)));
            let answer = control.ask(method.clone(), path, &fields, body).await;
            assert_eq!(answer.status, expected, "{method} {path} with {token:?}: {:?}", answer.body);
            let challenged = answer.headers.contains_key("www-authenticate");
            assert_eq!(challenged, matches!(expected, 401 | 403), "{method} {path} with {token:?}");
        }
    }
}

#[tokio::test]
async fn metrics_are_open_unless_a_token_is_asked_for() {
    assert_eq!(control(with_tokens()).await.get("/metrics").await.status, 200);
    let no_token_exists = Config { metrics_token: true, ..config() };
    assert_eq!(control(no_token_exists).await.get("/metrics").await.status, 401);
}

#[tokio::test]
async fn what_a_foreign_page_could_send_is_refused() {
    let (open, guarded) = (control(config()).await, control(with_tokens()).await);
    let json = ("content-type", "application/json");
    let own = open.address.to_string();
    let own_origin = format!("http://{own}");
    let rows: [(&str, Fields<'_>, u16); 14] = [
        ("no page", &[json], 200),
        ("with a charset", &[("content-type", "Application/JSON; charset=utf-8")], 200),
        ("localhost", &[json, ("host", "localhost:9901")], 200),
        ("another loopback address", &[json, ("host", "127.0.0.9:9901")], 200),
        ("a loopback address of IPv6", &[json, ("host", "[::1]:9901")], 200),
        ("the node's name", &[json, ("host", "edge-1")], 200),
        ("its own page", &[json, ("host", &own), ("origin", &own_origin)], 200),
        ("a name that was rebound", &[json, ("host", "evil.test")], 421),
        ("a name that looks like an address", &[json, ("host", "127.0.0.1.evil.test")], 421),
        ("a foreign address", &[json, ("host", "192.0.2.1")], 421),
        ("a foreign page", &[json, ("origin", "https://evil.test")], 403),
        ("a sandboxed page", &[json, ("origin", "null")], 403),
        ("a form", &[("content-type", "text/plain")], 415),
        ("nothing said", &[], 415),
    ];
    for (name, fields, expected) in rows {
        let answer = open.ask(Method::POST, "/purge", fields, r#"{"all":true}"#).await;
        assert_eq!(answer.status, expected, "{name}: {:?}", answer.body);
    }
    assert_eq!(open.purged.0.lock().len(), 7, "only those that were answered 200");
    assert_eq!(open.ask(Method::GET, "/upstreams", &[("host", "evil.test")], "").await.status, 421);
    assert_eq!(open.ask(Method::GET, "/readyz", &[("host", "edge.test")], "").await.status, 200);
    let named = [json, ("host", "edge.internal:9901"), ("authorization", "Bearer cms-secret")];
    let answer = guarded.ask(Method::POST, "/purge", &named, r#"{"all":true}"#).await;
    assert_eq!(answer.status, 200, "no page knows a token, so any name will do with one");
}

#[tokio::test]
async fn a_purge_is_receipted() {
    let control = control(config()).await;
    let body = json!({
        "urls": ["https://A.test./learn/a?x=1&y", "http://a.test:8080", "https://[2001:db8::1]:443/b/../c"],
        "surrogate_keys": ["course:42"], "soft": true, "wait": true, "timeout": "2s",
        "prefixes": ["https://A.test/learn/"], "hosts": ["B.test.", "[2001:db8::1]"], "dry_run": false, "ignore_query": true,
        "all": false,
    });
    let answer = control.post("/purge", &body).await;
    let nodes = json!({"live": 1, "acknowledged": 1, "lost": []});
    let receipt = json!({"id": "7", "matched": 2, "bytes": null, "complete": true, "nodes": nodes});
    assert_eq!((answer.status, answer.body), (200, receipt));
    let url = |host: &str, port, path: &str, query: Option<&str>| {
        let (host, path, query) = (host.into(), path.into(), query.map(str::to_owned));
        PurgeUrl { host, port, path, query }
    };
    let expected = PurgeRequest {
        urls: vec![
            url("a.test", None, "/learn/a", Some("x=1&y")),
            url("a.test", Some(8080), "/", None),
            url("[2001:db8::1]", None, "/b/../c", None),
        ],
        surrogate_keys: vec!["course:42".into()],
        prefixes: vec![url("a.test", None, "/learn/", None)],
        hosts: vec!["b.test".into(), "[2001:db8::1]".into()],
        all: false,
        soft: true,
        dry_run: false,
        ignore_query: true,
        wait: true,
        timeout: Duration::from_secs(2),
    };
    assert_eq!(*control.purged.0.lock(), [expected]);
}

#[tokio::test]
async fn a_purge_that_the_fleet_does_not_know_of_yet_is_answered_503() {
    let answer = control(config()).await.post("/purge", &json!({"surrogate_keys": ["far"]})).await;
    assert_eq!((answer.status, &answer.body["fleet"], &answer.body["id"]), (503, &json!("unreachable"), &json!("7")));
    assert_eq!(answer.body["complete"], false);
}

#[tokio::test]
async fn purges_and_the_fleet_are_shown() {
    let control = control(config()).await;
    let purges = control.get("/purges").await.body;
    assert_eq!(
        (&purges["purges"][0]["id"], &purges["purges"][0]["at"]),
        (&json!("7"), &json!("1970-01-01T00:00:00.000Z"))
    );
    assert_eq!(control.get("/purges/7").await.body["urls"], json!(["a.test/"]));
    let fleet = control.get("/fleet").await.body;
    assert_eq!(
        (&fleet["position"], &fleet["nodes"][0]["id"], &fleet["nodes"][0]["lag"]),
        (&json!(7), &json!("edge-1"), &json!(0))
    );
}

#[tokio::test]
async fn a_purge_that_cannot_be_is_refused_with_the_entry_that_is_wrong() {
    let control = control(config()).await;
    let rows = [
        (json!({}), 400, "names nothing"),
        (json!({"all": "yes"}), 400, "not a purge"),
        (json!({"url": ["https://a.test/"]}), 400, "unknown field `url`"),
        (json!("all"), 400, "not a purge"),
        (json!({"urls": ["https://a.test/", "/b"]}), 400, "urls[1] is not absolute"),
        (json!({"urls": ["ftp://a.test/"]}), 400, "urls[0] is neither http nor https"),
        (json!({"urls": ["https://u:p@a.test/"]}), 400, "urls[0] names a user"),
        (json!({"urls": ["https://a.test/#b"]}), 400, "urls[0] has a fragment"),
        (json!({"urls": ["https://a.test:99999/"]}), 400, "urls[0] "),
        (json!({"urls": ["https://a b.test/"]}), 400, "urls[0] is not a URL"),
        (json!({"urls": ["https://bad.test/"]}), 400, "urls[0] goes above the root"),
        (json!({"surrogate_keys": ["broken"]}), 500, "the purge failed inside the edge: it panicked"),
        (json!({"surrogate_keys": ["a", ""]}), 400, "surrogate_keys[1] must be"),
        (json!({"surrogate_keys": ["a b"]}), 400, "surrogate_keys[0] must be"),
        (json!({"surrogate_keys": ["x".repeat(257)]}), 400, "surrogate_keys[0] must be"),
        (json!({"surrogate_keys": vec!["x"; 1001]}), 400, "at most 1000"),
        (json!({"all": true, "timeout": "10"}), 400, "`timeout`: a duration needs its unit"),
        (json!({"all": true, "timeout": "1m"}), 400, "`timeout` may be at most 25s"),
        (json!({"prefixes": ["https://a.test/", "/a"]}), 400, "prefixes[1] is not absolute"),
        (json!({"prefixes": ["https://a.test/?q"]}), 400, "prefixes[0] has a query"),
        (json!({"hosts": ["a.test:80"]}), 400, "hosts[0] is no host"),
        (json!({"hosts": ["a.test", "https://a.test"]}), 400, "hosts[1] is no host"),
        (json!({"all": true, "ignore_query": true}), 400, "`ignore_query` is about `urls`"),
    ];
    for (body, status, words) in rows {
        let answer = control.post("/purge", &body).await;
        assert_eq!(answer.status, status, "{body}: {:?}", answer.body);
        assert!(answer.body["detail"].as_str().unwrap().contains(words), "{body}: {:?}", answer.body);
    }
    let large = json!({"surrogate_keys": ["x".repeat(1024 * 1024 + 1)]});
    let answer = control.post("/purge", &large).await;
    assert_eq!((answer.status, &answer.body["status"]), (413, &json!(413)));
}

#[tokio::test]
async fn an_operator_sets_the_state_of_a_peer() {
    let control = control(config()).await;
    let path = "/upstreams/collab/peers/unix:%2Frun%2Fc1";
    for (word, state) in [("drain", "draining"), ("down", "down"), ("ready", "up")] {
        let answer = control.post(path, &json!({"state": word, "fleet": false})).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["peers"][0]["state"], state);
        assert_eq!(control.get("/upstreams").await.body["upstreams"][0], answer.body);
    }
    let rows = [
        ("/upstreams/nobody/peers/l1", json!({"state": "drain"}), 404),
        ("/upstreams/learning/peers/l9", json!({"state": "drain"}), 404),
        (path, json!({"state": "off"}), 400),
        (path, json!({"state": "drain", "fleet": true}), 422),
    ];
    for (path, body, status) in rows {
        assert_eq!(control.post(path, &body).await.status, status, "{path} {body}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_served_and_an_abandoned_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let _control = control(Config { address: ListenAddress::Unix(path.clone()), ..config() }).await;
    let request = Request::builder().uri("/upstreams").header("host", "anything").body(String::new()).unwrap();
    let answer = exchange(UnixStream::connect(&path).await.unwrap(), request).await;
    assert_eq!(answer.status, 200);
    let taken = admin::bind(&ListenAddress::Unix(path)).await.unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse, "one that is listened on is left alone");
}

#[tokio::test]
async fn told_to_stop_it_ends_idle_connections_and_accepts_no_more() {
    let control = control(config()).await;
    let mut idle = TcpStream::connect(control.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    control.stop.send(true).unwrap();
    idle.read_to_end(&mut Vec::new()).await.unwrap();
    control.served.await.unwrap();
    assert!(TcpStream::connect(control.address).await.is_err());
}

/// Runs the binary; gives its exit code, stdout and stderr.
async fn command(arguments: &[&str], environment: Fields<'_>) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_eduham-edge"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_purge_command_prints_the_receipt_and_exits_by_what_happened() {
    let control = control(with_tokens()).await;
    let admin = format!("http://{}", control.address);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "cms-secret\n").unwrap();
    let file = file.to_str().unwrap();
    let token = ("EDUHAM_EDGE_TOKEN", "cms-secret");
    let receipt = "purge 7 applied by 1 of 1 nodes, 2 responses\n";
    let json = concat!(
        r#"{"bytes":null,"complete":true,"id":"7","matched":2,"#,
        r#""nodes":{"acknowledged":1,"live":1,"lost":[]}}"#,
        "\n"
    );
    let rows: [(&[&str], Fields<'_>, i32, &str, &str); 13] = [
        (&["--admin", &admin, "--all", "--wait"], &[token], 0, receipt, ""),
        (&["--admin", &admin, "--token-file", file, "--url", "https://a.test/"], &[], 0, receipt, ""),
        (&["--surrogate-key", "a", "--format", "json"], &[token, ("EDUHAM_EDGE_ADMIN", &admin)], 0, json, ""),
        (
            &["--soft"],
            &[token, ("EDUHAM_EDGE_ADMIN", &admin), ("EDUHAM_EDGE_URL", "http://a.test/ http://b.test/")],
            0,
            receipt,
            "",
        ),
        (
            &["--admin", &admin, "--prefix", "https://a.test/x", "--host", "a.test", "--dry-run"],
            &[token],
            0,
            "would purge 2 responses, too many to count bytes\n",
            "",
        ),
        (&["--admin", &admin, "--surrogate-key", "far"], &[token], 1, "", "the fleet is unreachable"),
        (&["--admin", &admin, "--all", "--ignore-query"], &[token], 2, "", "required arguments were not provided"),
        (&["--admin", &admin, "--all"], &[], 1, "", "401: a token is needed"),
        (&["--admin", &admin, "--url", "/a"], &[token], 1, "", "400: urls[0] is not absolute"),
        (&["--admin", "unix:/nowhere.sock", "--all"], &[], 1, "", "cannot connect to unix:/nowhere.sock"),
        (&["--admin", &admin, "--token-file", "/nowhere", "--all"], &[], 1, "", "cannot read the token from /nowhere"),
        (&["--admin", &admin], &[token], 2, "", "required arguments were not provided"),
        (&["--admin", "https://127.0.0.1", "--all"], &[token], 2, "", "write it as http://"),
    ];
    for (arguments, environment, code, out, error) in rows {
        let arguments: Vec<&str> = ["purge"].iter().chain(arguments).copied().collect();
        let (exit, stdout, stderr) = command(&arguments, environment).await;
        assert_eq!((exit, stdout.as_str()), (code, out), "{arguments:?}: {stderr}");
        assert!(stderr.contains(error) && stderr.is_empty() == error.is_empty(), "{arguments:?}: {stderr}");
    }
    let asked = control.purged.0.lock();
    assert_eq!(asked.len(), 6);
    assert!(asked[0].all && asked[0].wait && !asked[0].soft);
    assert_eq!((asked[3].urls.len(), asked[3].soft), (2, true));
    assert_eq!((asked[4].prefixes.len(), asked[4].hosts.len(), asked[4].dry_run), (1, 1, true));
}

#[tokio::test]
async fn the_healthcheck_command_exits_by_what_the_node_says() {
    let control = control(config()).await;
    let admin = format!("http://{}", control.address);
    let ready = ["healthcheck", "--admin", &admin];
    let live = ["healthcheck", "--admin", &admin, "--live"];
    assert_eq!(command(&ready, &[]).await, (0, String::new(), String::new()));
    control.readiness.set_draining(true);
    let (exit, _, words) = command(&ready, &[]).await;
    assert!(exit == 1 && words.contains("503") && words.contains("draining"), "{words}");
    assert_eq!(command(&live, &[]).await.0, 0);
    assert_eq!(command(&["healthcheck", "--admin", "unix:/nowhere.sock"], &[]).await.0, 1);
}
