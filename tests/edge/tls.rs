//! Listeners: TLS, its deadlines and its refusals, and the other kinds of address.

use std::{path::Path, sync::Arc};

use eduham_edge::{
    app::{self, Bound, StartError},
    clock::Clock,
    config::{self, FixedEnvironment, Options},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Connection, Edge, configured, eventually, get, within};

/// Every edge here answers by itself.
const ROUTES: &str = "log: { access: { to: none } }
routes: [ { name: home, match: { path: \"/{*rest}\" }, respond: { status: 200, body: home } } ]\n";

/// A certificate of its own authority in a directory of its own.
pub struct Certificate {
    directory: tempfile::TempDir,
    der: CertificateDer<'static>,
}

pub fn certificate(names: &[&str]) -> Certificate {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("cert.pem"), made.cert.pem()).expect("it is written");
    std::fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).expect("it is written");
    Certificate { directory, der: made.cert.der().clone() }
}

impl Certificate {
    /// The `tls` of a listener that has this certificate.
    pub fn tls(&self, keys: &str) -> String {
        let at = self.directory.path().display();
        format!("tls: {{ certificates: [ {{ cert: \"{at}/cert.pem\", key: \"{at}/key.pem\" }} ]{keys} }}")
    }

    /// A client that trusts it.
    pub fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("it is its own authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that exist")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(client))
    }

    async fn edge(&self, tls: &str, server: &str) -> Edge {
        let yaml = format!(
            "version: 1\nserver: {{ listeners: [ {{ address: \"{{listener}}\", {} }} ]{server} }}\n\
             admin: {{ address: \"{{admin}}\" }}\n{ROUTES}",
            self.tls(tls)
        );
        configured(&yaml).start().await
    }
}

pub const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

async fn connect(edge: &Edge, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    secure(TcpStream::connect(edge.address).await?, client).await
}

/// The handshake of a client that means `a.test`.
pub async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    plain: S,
    client: &TlsConnector,
) -> std::io::Result<TlsStream<S>> {
    within(client.connect(ServerName::try_from("a.test").expect("a name"), plain)).await
}

/// One request over a connection that ends with it.
async fn ask<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("an answer and its end");
    answer
}

#[tokio::test]
async fn the_protocol_is_what_client_and_edge_agree_on() {
    let certificate = certificate(&["a.test"]);
    let edge = certificate.edge("", "").await;
    for (alpn, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = connect(&edge, &certificate.client(BOTH, alpn)).await.expect("a handshake");
        let chosen = stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(chosen.as_deref(), agreed, "{alpn:?}");
        if agreed == Some("h2") {
            let (mut client, connection) = within(h2::client::handshake(stream)).await.expect("HTTP/2");
            tokio::spawn(connection);
            let request = http::Request::get("https://a.test/").body(()).expect("a request");
            let (response, _) = client.send_request(request, true).expect("a stream");
            let response = within(response).await.expect("an answer");
            assert_eq!(response.status(), 200);
            let request = http::Request::get("https://b.test/").body(()).expect("a request");
            let (response, _) = client.send_request(request, true).expect("a stream");
            assert_eq!(within(response).await.expect("an answer").status(), 421);
        } else {
            assert!(ask(stream, "a.test").await.starts_with("HTTP/1.1 200 "));
        }
    }
    assert_eq!(edge.metric("edge_tls_handshakes_total{version=\"TLSv1.3\"}"), 4.0);
    let client = certificate.client(&[&rustls::version::TLS12], &[]);
    connect(&edge, &client).await.expect("a handshake");
    eventually("it is counted", || edge.metric("edge_tls_handshakes_total{version=\"TLSv1.2\"}") == 1.0).await;
}

#[tokio::test]
async fn a_client_below_the_least_version_gets_no_connection() {
    let certificate = certificate(&["a.test"]);
    let edge = certificate.edge(", min_version: \"1.3\"", "").await;
    assert!(connect(&edge, &certificate.client(&[&rustls::version::TLS12], &[])).await.is_err());
    let newer = connect(&edge, &certificate.client(BOTH, &[])).await.expect("a handshake");
    assert!(ask(newer, "a.test").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(edge.metric("edge_connections_refused_total{reason=\"tls\"}"), 1.0);
}

#[tokio::test]
async fn a_host_that_the_certificate_does_not_serve_is_misdirected() {
    let certificate = certificate(&["a.test", "*.b.test"]);
    let edge = certificate.edge("", "").await;
    let client = certificate.client(BOTH, &["http/1.1"]);
    for (host, status) in [
        ("a.test", 200),
        ("A.Test.", 200),
        ("a.test:443", 200),
        ("www.b.test", 200),
        ("b.test", 421),
        ("c.test", 421),
        ("127.0.0.1", 421),
    ] {
        let answer = ask(connect(&edge, &client).await.expect("a handshake"), host).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn who_does_not_shake_hands_is_left_and_disturbs_nobody() {
    let certificate = certificate(&["a.test"]);
    let edge = certificate.edge("", ", limits: { header_timeout: 300ms }").await;
    let mut silent = edge.connect().await;
    let mut plain = edge.connect().await;
    plain.send_bytes(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(silent.closed().await);
    // At most an alert, never an answer.
    plain.closed().await;
    eventually("both are refused", || edge.metric("edge_connections_refused_total{reason=\"tls\"}") == 2.0).await;
    let stream = connect(&edge, &certificate.client(BOTH, &[])).await.expect("a handshake");
    assert!(ask(stream, "a.test").await.starts_with("HTTP/1.1 200 "));
}

/// Starts what cannot start.
async fn fails(yaml: &str, directory: &Path) -> StartError {
    let options = Options { no_files: true };
    let loaded = config::parse(yaml, "test.yaml", directory, &FixedEnvironment::default(), options);
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    match app::start(loaded, Clock::system()).await {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named_when_the_edge_does_not_start() {
    let good = certificate(&["a.test"]);
    let other = certificate(&["a.test"]);
    let at = good.directory.path();
    std::fs::write(at.join("empty.pem"), "").expect("it is written");
    std::fs::copy(other.directory.path().join("key.pem"), at.join("other.pem")).expect("it is copied");
    for (cert, key, words) in [
        ("none.pem", "key.pem", "none.pem"),
        ("empty.pem", "key.pem", "empty.pem holds no certificate"),
        ("key.pem", "key.pem", "key.pem holds no certificate"),
        ("cert.pem", "empty.pem", "empty.pem"),
        ("cert.pem", "other.pem", "do not go together"),
    ] {
        let yaml = format!(
            "version: 1\nserver: {{ listeners: [ {{ address: \"127.0.0.1:0\", tls: {{ certificates: [ {{ cert: {cert}, key: {key} }} ] }} }} ] }}\n\
             admin: {{ address: \"127.0.0.1:0\" }}\n{ROUTES}"
        );
        let error = fails(&yaml, at).await.to_string();
        assert!(error.starts_with("listener 127.0.0.1:0: ") && error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound socket");
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (listener, admin, words) in [
        (address.to_string(), "127.0.0.1:0".to_owned(), format!("cannot listen on {address}: ")),
        ("127.0.0.1:0".to_owned(), address.to_string(), format!("cannot listen on admin {address}: ")),
    ] {
        let yaml = format!(
            "version: 1\nserver: {{ listeners: [ {{ address: \"{listener}\" }} ] }}\nadmin: {{ address: \"{admin}\" }}\n{ROUTES}"
        );
        let error = fails(&yaml, directory.path()).await.to_string();
        assert!(error.starts_with(&words) && error.contains("in use"), "{error}");
    }
}

#[tokio::test]
async fn a_listener_may_do_nothing_but_redirect_to_https() {
    let yaml = format!(
        "version: 1\nserver: {{ listeners: [ {{ address: \"{{listener}}\", redirect_to_https: true }} ] }}\n\
         admin: {{ address: \"{{admin}}\" }}\n{ROUTES}"
    );
    let edge = configured(&yaml).start().await;
    let answer = edge.ask(&get("/a/./b?c=%64").field("Host", "A.test:8080")).await;
    assert_eq!((answer.status, answer.field("location").as_deref()), (308, Some("https://a.test/a/b?c=d")));
    let http2 = edge.http2().await;
    assert_eq!(http2.ask(&get("/x")).await.field("location").as_deref(), Some("https://a.test/x"));
}

#[tokio::test]
async fn a_unix_socket_is_a_listener_like_any_other_and_is_taken_over_from_the_dead() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("edge.sock");
    // Left behind by a process that died.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let yaml = format!(
        "version: 1\nserver: {{ listeners: [ {{ address: \"{{listener}}\" }}, {{ address: \"unix:{}\" }} ] }}\n\
         admin: {{ address: \"{{admin}}\" }}\n{ROUTES}",
        path.display()
    );
    let edge = configured(&yaml).start().await;
    assert_eq!(edge.running.addresses()[1], Bound::Unix(path.clone()));
    let stream = UnixStream::connect(&path).await.expect("the edge listens");
    assert!(ask(stream, "a.test").await.starts_with("HTTP/1.1 200 "));
    let again = yaml.replace("{listener}", "127.0.0.1:0").replace("{admin}", "127.0.0.1:0");
    let error = fails(&again, directory.path()).await.to_string();
    assert!(error.contains("edge.sock") && error.contains("in use"), "one that lives is left alone: {error}");
    let Edge { running, .. } = edge;
    within(running.stop()).await;
    assert!(!path.exists(), "nothing is left behind");
}

#[tokio::test]
async fn several_edges_share_a_port_where_all_of_them_say_so() {
    let of = |listener: &str, keys: &str| {
        format!(
            "version: 1\nserver: {{ reuse_port: true, listeners: [ {{ address: \"{listener}\" }} ] {keys} }}\n\
             admin: {{ address: \"{{admin}}\" }}\n{ROUTES}"
        )
    };
    let first = configured(&of("{listener}", "")).start().await;
    let second = configured(&of(&first.address.to_string(), "")).start().await;
    let served = |edge: &Edge| edge.metric("edge_requests_total");
    let mut asked = 0;
    while served(&first) == 0.0 || served(&second) == 0.0 {
        // The kernel spreads connections by a hash of their ports.
        assert!(asked < 200, "one of them gets nothing");
        assert_eq!(first.get("/").await.status, 200);
        asked += 1;
    }
    let alone = of(&first.address.to_string(), "").replace("reuse_port: true, ", "").replace("{admin}", "127.0.0.1:0");
    let error = fails(&alone, Path::new("/")).await.to_string();
    assert!(error.contains("in use"), "{error}");
}

#[tokio::test]
async fn connections_over_the_ceiling_are_closed_at_once_and_room_is_made_by_those_that_leave() {
    let yaml = format!(
        "version: 1\nserver: {{ listeners: [ {{ address: \"{{listener}}\" }} ], limits: {{ connections: 2 }} }}\n\
         admin: {{ address: \"{{admin}}\" }}\n{ROUTES}"
    );
    let edge = configured(&yaml).start().await;
    let mut open: Vec<Connection> = Vec::new();
    for _ in 0..2 {
        let mut connection = edge.connect().await;
        assert_eq!(connection.ask(&get("/")).await.status, 200);
        open.push(connection);
    }
    assert_eq!(edge.metric("edge_connections"), 2.0);
    assert!(edge.connect().await.closed().await);
    assert_eq!(edge.metric("edge_connections_refused_total{reason=\"limit\"}"), 1.0);
    open.pop();
    eventually("there is room", || edge.running.connections().open() == 1).await;
    assert_eq!(edge.get("/").await.status, 200);
}
