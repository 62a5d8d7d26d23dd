//! Pools against origins in this process: health, names, unix sockets, connections and their reuse, TLS to the origin.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use eduham_edge::{
    telemetry::Metrics,
    upstream::{
        Ask, Balance, Config, ConnectError, Connector, Health, HostPolicy, NoPeer, Peer, PeerAddress, PeerConfig,
        PeerState, Pool, Pools, Retries, RetryWhen, StatusPattern, Timeouts, Tls,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

/// No test needs this long; one that does is stuck.
const STUCK: Duration = Duration::from_secs(20);
/// So long that in a test it never comes.
const NEVER: Duration = Duration::from_secs(3600);

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SICK: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
const LEAVING: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 20\r\n\r\n{\"state\":\"draining\"}";

/// An origin that answers every request with the same words, until it is told others.
struct Origin {
    address: SocketAddr,
    words: watch::Sender<&'static str>,
    requests: Arc<AtomicUsize>,
    /// Heads of requests as they came.
    heads: mpsc::UnboundedReceiver<String>,
    task: JoinHandle<()>,
}

impl Origin {
    async fn start(words: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (words, told) = watch::channel(words);
        let (heads_to, heads) = mpsc::unbounded_channel();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, told.clone(), count.clone(), heads_to.clone()));
            }
        });
        Self { address, words, requests, heads, task }
    }

    fn say(&self, words: &'static str) {
        self.words.send_replace(words);
    }

    /// Refuses connections from now on.
    async fn stop(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

/// Answers each head on one connection; empty words close it.
async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    words: watch::Receiver<&'static str>,
    count: Arc<AtomicUsize>,
    heads: mpsc::UnboundedSender<String>,
) {
    let mut head = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut head).await {
        if head.ends_with(b"\r\n\r\n") {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = heads.send(String::from_utf8_lossy(&head).into_owned());
            head.clear();
            let words = *words.borrow();
            if words.is_empty() || stream.write_all(words.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

fn peer(id: &str, address: PeerAddress) -> PeerConfig {
    PeerConfig { id: id.to_owned(), address, weight: 1, backup: false }
}

fn at(address: SocketAddr) -> PeerAddress {
    PeerAddress::Ip(address)
}

fn timeouts() -> Timeouts {
    Timeouts { connect: STUCK, first_byte: STUCK, between_bytes: STUCK, keepalive: STUCK, total: None }
}

fn config(peers: Vec<PeerConfig>) -> Config {
    Config {
        name: "origin".to_owned(),
        peers,
        balance: Balance::RoundRobin,
        host: HostPolicy::Client,
        tls: None,
        health: None,
        panic_percent: 50,
        timeouts: timeouts(),
        retries: Retries {
            max: 2,
            budget_percent: 20,
            when: vec![RetryWhen::Connect],
            non_idempotent: false,
            body_max: 64 * 1024,
        },
    }
}

/// Probes so close together that tests do not wait, with a timeout that no busy machine reaches.
fn health() -> Health {
    Health {
        path: "/healthz".to_owned(),
        interval: Duration::from_millis(10),
        timeout: STUCK,
        rise: 2,
        fall: 2,
        expect: vec![StatusPattern::Class(2), StatusPattern::Class(3)],
    }
}

/// Pools that run, and the pool called `origin`.
struct Running {
    pools: Arc<Pools>,
    pool: Arc<Pool>,
    connector: Arc<Connector>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(config: Config) -> Self {
        let pools = Arc::new(Pools::new(&[Arc::new(config)], &Metrics::new()));
        let pool = pools.get("origin").unwrap().clone();
        let connector = Arc::new(Connector::new().unwrap());
        let (shutdown, stopped) = watch::channel(false);
        let task = tokio::spawn(pools.clone().run(connector.clone(), stopped));
        Self { pools, pool, connector, shutdown, task }
    }

    /// Waits until something about the pool is true.
    async fn until(&self, what: &str, condition: impl Fn(&Pool) -> bool) {
        let mut changes = self.pool.changes();
        let wait = async {
            while !condition(&self.pool) {
                changes.changed().await.unwrap();
            }
        };
        assert!(timeout(STUCK, wait).await.is_ok(), "{what}: {:?}", self.pool.peers());
    }

    async fn until_state(&self, id: &str, state: PeerState) {
        let what = format!("{id} becomes {state:?}");
        self.until(&what, |pool| pool.peer(id).is_some_and(|peer| peer.state() == state)).await;
    }

    fn place(&self, room: &str) -> String {
        self.pool.choose(&Ask { sticky: Some(room), tried: &[] }).unwrap().peer().id().to_string()
    }
}

/// A pool without tasks, and a connector.
fn still(config: Config) -> (Arc<Pool>, Connector) {
    let pools = Pools::new(&[Arc::new(config)], &Metrics::new());
    (pools.get("origin").unwrap().clone(), Connector::new().unwrap())
}

fn only(pool: &Pool) -> Arc<Peer> {
    pool.peers().first().unwrap().clone()
}

/// One exchange on a connection.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized)) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; GOOD.len()];
    timeout(STUCK, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_sick_peer_goes_down_and_comes_back_with_its_rooms() {
    let (a, b) = (Origin::start(GOOD).await, Origin::start(GOOD).await);
    let mut config = config(vec![peer("c1", at(a.address)), peer("c2", at(b.address))]);
    config.health = Some(health());
    let running = Running::start(config);
    running.until_state("c1", PeerState::Up).await;
    running.until_state("c2", PeerState::Up).await;
    let rooms: Vec<_> = (0..100).map(|number| format!("doc:{number}")).collect();
    let places = || rooms.iter().map(|room| running.place(room)).collect::<Vec<_>>();
    let before = places();
    assert!(before.iter().any(|id| id == "c1") && before.iter().any(|id| id == "c2"));

    for words in [SICK, "", "SSH-2.0-OpenSSH\r\n\r\n"] {
        a.say(words);
        running.until_state("c1", PeerState::Down).await;
        assert!(places().iter().all(|id| id == "c2"), "after {words:?}");
        a.say(GOOD);
        running.until_state("c1", PeerState::Up).await;
        assert_eq!(places(), before, "after {words:?}");
    }
    running.shutdown.send_replace(true);
    timeout(STUCK, running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_peer_that_says_it_is_draining_gets_nothing_new() {
    let (a, b) = (Origin::start(GOOD).await, Origin::start(GOOD).await);
    let mut config = config(vec![peer("c1", at(a.address)), peer("c2", at(b.address))]);
    config.health = Some(health());
    let running = Running::start(config);
    running.until_state("c1", PeerState::Up).await;
    running.until_state("c2", PeerState::Up).await;
    a.say(LEAVING);
    running.until_state("c1", PeerState::Draining).await;
    for number in 0..20 {
        assert_eq!(running.place(&format!("doc:{number}")), "c2");
        assert_eq!(*running.pool.choose(&Ask::default()).unwrap().peer().id(), "c2");
    }
    a.say(GOOD);
    running.until_state("c1", PeerState::Up).await;
}

#[tokio::test]
async fn the_first_probe_decides_alone_and_ends_the_first_round() {
    let (mut good, sick) = (Origin::start(GOOD).await, Origin::start(SICK).await);
    let mut config = config(vec![peer("a", at(good.address)), peer("b", at(sick.address))]);
    config.health = Some(Health { interval: NEVER, rise: 9, fall: 9, ..health() });
    config.host = HostPolicy::Literal("learning.test".parse().unwrap());
    let running = Running::start(config);
    assert!(!running.pools.first_round_done(), "nothing ran yet");
    assert!(running.pool.usable(), "a peer not probed yet is in service");
    running.until_state("a", PeerState::Up).await;
    running.until_state("b", PeerState::Down).await;
    assert!(running.pools.first_round_done());
    assert_eq!(good.requests.load(Ordering::SeqCst), 1);
    let head = good.heads.recv().await.unwrap();
    assert!(head.starts_with("GET /healthz HTTP/1.1\r\nHost: learning.test\r\n"), "{head}");
}

#[tokio::test]
async fn a_failed_connect_takes_a_dead_peer_out_at_once() {
    let (a, b) = (Origin::start(GOOD).await, Origin::start(GOOD).await);
    let mut config = config(vec![peer("a", at(a.address)), peer("b", at(b.address))]);
    config.health = Some(Health { interval: NEVER, fall: 9, ..health() });
    let running = Running::start(config);
    running.until_state("a", PeerState::Up).await;
    running.until_state("b", PeerState::Up).await;
    a.stop().await;
    let dead = running.pool.peer("a").unwrap();
    let error = running.connector.connect(&dead, &timeouts(), false).await.unwrap_err();
    assert_eq!((error, error.reason()), (ConnectError::Refused, "connection_refused"));
    running.until_state("a", PeerState::Down).await;
    assert_eq!(running.pool.peer("b").unwrap().state(), PeerState::Up);
}

#[tokio::test]
async fn a_name_becomes_a_peer_for_each_of_its_addresses() {
    let origin = Origin::start(GOOD).await;
    let name = PeerAddress::Name("localhost".to_owned(), origin.address.port());
    let running = Running::start(config(vec![peer("l1", name)]));
    let id = format!("l1#{}", origin.address);
    running.until("localhost resolves", |pool| pool.peer(&id).is_some()).await;
    assert!(running.pools.first_round_done());
    let peer = running.pool.peer(&id).unwrap();
    assert_eq!(peer.address(), format!("localhost:{}", origin.address.port()));
    let mut connection = running.connector.connect(&peer, &timeouts(), false).await.unwrap();
    assert_eq!(exchange(&mut connection.stream).await, GOOD);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_has_no_peers_and_holds_nobody_up() {
    // RFC 6761 6.4: `.invalid` never resolves.
    let running = Running::start(config(vec![peer("l1", PeerAddress::Name("nowhere.invalid".to_owned(), 80))]));
    running.until("the lookup ends", |_| running.pools.first_round_done()).await;
    let nobody = running.pool.choose(&Ask::default()).unwrap_err();
    assert_eq!((nobody, nobody.reason()), (NoPeer::Unresolved, "dns_error"));
}

#[tokio::test]
async fn a_peer_listens_on_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("origin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (_words, told) = watch::channel(GOOD);
    let (heads, _kept) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, told.clone(), Arc::default(), heads.clone()));
        }
    });
    let mut config = config(vec![peer("u", PeerAddress::Unix(path))]);
    config.health = Some(health());
    let running = Running::start(config);
    running.until_state("u", PeerState::Up).await;
    let peer = running.pool.peer("u").unwrap();
    assert_eq!(peer.address(), "localhost");
    for reused in [false, true, true] {
        let mut connection = running.connector.connect(&peer, &timeouts(), false).await.unwrap();
        assert_eq!(connection.reused, reused);
        assert_eq!(exchange(&mut connection.stream).await, GOOD);
        running.connector.release(&peer, connection, STUCK);
    }
}

#[tokio::test]
async fn a_unix_socket_that_is_not_there_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let (pool, connector) = still(config(vec![peer("u", PeerAddress::Unix(dir.path().join("none.sock")))]));
    let error = connector.connect(&only(&pool), &timeouts(), false).await.unwrap_err();
    assert_eq!((error, error.reason()), (ConnectError::Unavailable, "destination_unavailable"));
}

#[tokio::test]
async fn an_idle_connection_is_used_again_unless_a_fresh_one_is_asked_for() {
    let origin = Origin::start(GOOD).await;
    let (pool, connector) = still(config(vec![peer("a", at(origin.address))]));
    let peer = only(&pool);
    // fresh, kept afterwards for; reused
    let rows = [
        (false, STUCK, false),
        (false, STUCK, true),
        (true, Duration::ZERO, false), // the idle one is left where it is
        (false, Duration::ZERO, true), // and not given back this time
        (false, STUCK, false),
    ];
    for (row, (fresh, keepalive, reused)) in rows.into_iter().enumerate() {
        let mut connection = connector.connect(&peer, &timeouts(), fresh).await.unwrap();
        assert_eq!(connection.reused, reused, "row {row}");
        assert_eq!(exchange(&mut connection.stream).await, GOOD);
        connector.release(&peer, connection, keepalive);
    }
}

#[tokio::test]
async fn a_connection_that_the_origin_closed_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (pool, connector) = still(config(vec![peer("a", at(listener.local_addr().unwrap()))]));
    let peer = only(&pool);
    let connection = connector.connect(&peer, &timeouts(), false).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    connector.release(&peer, connection, STUCK);
    drop(accepted);
    // The end of the stream is in the kernel already; the runtime gets turns to hear of it.
    let stale = async {
        loop {
            let connection = connector.connect(&peer, &timeouts(), false).await.unwrap();
            if !connection.reused {
                return;
            }
            connector.release(&peer, connection, STUCK);
            tokio::task::yield_now().await;
        }
    };
    timeout(STUCK, stale).await.unwrap();
}

#[tokio::test]
async fn a_connection_with_words_that_nobody_asked_for_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (pool, connector) = still(config(vec![peer("a", at(listener.local_addr().unwrap()))]));
    let peer = only(&pool);
    let mut connection = connector.connect(&peer, &timeouts(), false).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    // The first byte is read, so that the second is known to have come.
    accepted.write_all(b"xy").await.unwrap();
    assert_eq!(connection.stream.read_u8().await.unwrap(), b'x');
    connector.release(&peer, connection, STUCK);
    assert!(!connector.connect(&peer, &timeouts(), false).await.unwrap().reused);
}

#[tokio::test]
async fn pools_do_not_share_connections() {
    let origin = Origin::start(GOOD).await;
    let other = Config { name: "other".to_owned(), ..config(vec![peer("a", at(origin.address))]) };
    let pools = Pools::new(&[config(vec![peer("a", at(origin.address))]), other].map(Arc::new), &Metrics::new());
    let connector = Connector::new().unwrap();
    let [mine, theirs] = ["origin", "other"].map(|name| only(pools.get(name).unwrap()));
    let connection = connector.connect(&mine, &timeouts(), false).await.unwrap();
    connector.release(&mine, connection, STUCK);
    assert!(!connector.connect(&theirs, &timeouts(), false).await.unwrap().reused);
    assert!(connector.connect(&mine, &timeouts(), false).await.unwrap().reused);
    assert_eq!(pools.iter().map(|pool| pool.config().name.as_str()).collect::<Vec<_>>(), ["origin", "other"]);
}

/// An origin with a certificate for `origin.test` and 127.0.0.1, and the authority that gave it.
struct TlsOrigin {
    address: SocketAddr,
    ca: PathBuf,
    dir: tempfile::TempDir,
}

impl TlsOrigin {
    async fn start() -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["origin.test".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, authority_certificate.pem()).unwrap();

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let acceptor = pingora_core::listeners::tls::Acceptor::from_server_config(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (_words, told) = watch::channel(GOOD);
            while let Ok((stream, _)) = listener.accept().await {
                let stream = pingora_core::protocols::l4::stream::Stream::from(stream);
                if let Ok(stream) = acceptor.tls_handshake(stream).await {
                    tokio::spawn(answer(stream, told.clone(), Arc::default(), mpsc::unbounded_channel().0));
                }
            }
        });
        Self { address, ca, dir }
    }
}

#[tokio::test]
async fn the_origins_certificate_is_verified_against_authority_and_name() {
    let origin = TlsOrigin::start().await;
    let other = TlsOrigin::start().await;
    let broken = origin.dir.path().join("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let absent = origin.dir.path().join("absent.pem");
    let mine = Some(origin.ca.clone());
    let untrusted = Err(ConnectError::Certificate);
    let rows = [
        (Some("origin.test"), mine.clone(), true, Ok(())),
        (None, mine.clone(), true, Ok(())), // the address itself is in the certificate
        (Some("other.test"), mine.clone(), true, untrusted),
        (Some("origin.test"), Some(other.ca.clone()), true, untrusted),
        (Some("origin.test"), Some(broken), true, untrusted),
        (Some("origin.test"), Some(absent), true, untrusted),
        (Some("other.test"), mine, false, Ok(())),
    ];
    for (sni, ca, verify, expected) in rows {
        let mut config = config(vec![peer("t", at(origin.address))]);
        let what = format!("{sni:?} {ca:?} verify {verify}");
        config.tls = Some(Tls { sni: sni.map(str::to_owned), ca, verify });
        let (pool, connector) = still(config);
        let peer = only(&pool);
        let made = connector.connect(&peer, &timeouts(), false).await;
        assert_eq!(made.as_ref().map(|_| ()).map_err(|error| *error), expected, "{what}");
        if let Ok(mut connection) = made {
            assert_eq!(exchange(&mut connection.stream).await, GOOD, "{what}");
            connector.release(&peer, connection, STUCK);
            assert!(connector.connect(&peer, &timeouts(), false).await.unwrap().reused, "{what}");
        }
    }
}

#[tokio::test]
async fn a_connect_that_fails_or_hangs_has_its_own_reason() {
    let gone = Origin::start(GOOD).await.stop().await;
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let babbling = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (hangs, babbles) = (silent.local_addr().unwrap(), babbling.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = babbling.accept().await {
            let _ = stream.write_all(b"this is no handshake").await;
        }
    });
    let rows = [
        (babbles, STUCK, ConnectError::Tls, "tls_protocol_error"),
        (hangs, Duration::from_millis(20), ConnectError::Timeout, "connection_timeout"),
        (gone, STUCK, ConnectError::Refused, "connection_refused"),
    ];
    for (address, connect, expected, reason) in rows {
        let mut config = config(vec![peer("t", at(address))]);
        config.tls = Some(Tls { sni: Some("origin.test".to_owned()), ca: None, verify: true });
        let (pool, connector) = still(config);
        let timeouts = Timeouts { connect, ..timeouts() };
        let error = connector.connect(&only(&pool), &timeouts, false).await.unwrap_err();
        assert_eq!((error, error.reason()), (expected, reason));
    }
}
