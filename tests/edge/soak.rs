//! Sockets opened one after the other and side by side: none fails, and nothing is left of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{configured, eventually, within};

/// `EDUHAM_SOAK_UPGRADES` asks for another number.
const UPGRADES: usize = 1_000;
/// Clients side by side: as many again in two more rounds of the same number.
const CLIENTS: usize = 8;

const HANDSHAKE: &str = "GET /rt/a HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// A masked text frame, `hello`.
const FRAME: [u8; 11] = [0x81, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o'];

/// Agrees to every handshake, the first bytes right behind it, then echoes.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buf = Vec::with_capacity(1024);
                while !buf.windows(4).any(|window| window == b"\r\n\r\n") {
                    if stream.read_buf(&mut buf).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let end = buf.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_default() + 4;
                let mut said = SWITCHED.as_bytes().to_vec();
                said.extend_from_slice(&buf[end..]);
                buf = said;
                while stream.write_all(&buf).await.is_ok() {
                    buf.clear();
                    if stream.read_buf(&mut buf).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// One socket from its handshake to its end; every other one speaks without waiting for the 101.
async fn socket(edge: SocketAddr, eager: bool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(edge).await?;
    let mut said = HANDSHAKE.as_bytes().to_vec();
    if eager {
        said.extend_from_slice(&FRAME);
    }
    stream.write_all(&said).await?;
    let mut heard = Vec::with_capacity(512);
    let mut spoke = eager;
    loop {
        if stream.read_buf(&mut heard).await? == 0 {
            return Err(std::io::Error::other(format!("ended after {:?}", String::from_utf8_lossy(&heard))));
        }
        let Some(end) = heard.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        if !heard.starts_with(b"HTTP/1.1 101 ") {
            return Err(std::io::Error::other(format!("{:?}", String::from_utf8_lossy(&heard))));
        }
        if !spoke {
            spoke = true;
            stream.write_all(&FRAME).await?;
        }
        if heard.len() - (end + 4) >= FRAME.len() {
            return if heard.ends_with(&FRAME) { Ok(()) } else { Err(std::io::Error::other("another echo")) };
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_upgrade_of_a_long_row_succeeds() {
    let upgrades = std::env::var("EDUHAM_SOAK_UPGRADES").map_or(UPGRADES, |number| number.parse().expect("a number"));
    let address = echo().await;
    let edge = configured(&format!(
        "version: 1
server: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}
admin: {{ address: \"{{admin}}\" }}
log: {{ access: {{ to: none }} }}
upstreams: {{ collab: {{ peers: [ {{ id: c1, address: \"{address}\" }} ], balance: rendezvous }} }}
routes:
  - {{ name: rooms, match: {{ path: \"/rt/{{room}}\" }}, upstream: collab, sticky: {{ by: [ path.room ] }}, websocket: {{}} }}
"
    ))
    .start()
    .await;
    let to = edge.address;
    for number in 0..upgrades {
        if let Err(error) = within(socket(to, number.is_multiple_of(2))).await {
            panic!("upgrade {number} of {upgrades}: {error}");
        }
    }
    let begun = Arc::new(AtomicUsize::new(0));
    let clients = (0..CLIENTS).map(|_| {
        let begun = Arc::clone(&begun);
        tokio::spawn(async move {
            loop {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if number >= upgrades {
                    return;
                }
                if let Err(error) = within(socket(to, number.is_multiple_of(2))).await {
                    panic!("upgrade {number} of {upgrades}, {CLIENTS} at a time: {error}");
                }
            }
        })
    });
    for client in futures::future::join_all(clients).await {
        client.expect("every upgrade succeeds");
    }
    assert_eq!(edge.metric("edge_websocket_opens_total{result=\"opened\"}"), 2.0 * upgrades as f64);
    eventually("every socket has ended", || edge.metric("edge_websocket_connections") == 0.0).await;
    eventually("every connection has ended", || edge.running.connections().open() == 0).await;
    assert_eq!(edge.metric("edge_upstream_active_requests"), 0.0);
}
