//! A large cold object and a class that wants it at once: one fetch, everybody reads along, slow readers hold up nobody.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    sync::{Notify, OnceCell},
};

use crate::support::{Gate, configured, within};

/// What `EDUHAM_SOAK_COLD=1` asks for: the whole size, and its times are held against the promise.
const SOAK: Size = Size {
    bytes: 10 * 1024 * 1024,
    readers: 200,
    slow: 5,
    speed: Some(Speed { pause: Duration::from_millis(200), rate: 2_000_000 }),
};
/// In the test command: small, as fast as it goes, and slow readers stand still until the fast ones have everything.
/// The object is more than the kernel keeps for a reader.
const CI: Size = Size { bytes: 8 * 1024 * 1024, readers: 20, slow: 3, speed: None };

/// Bytes that the origin sends, and a slow reader reads, at a time.
const STEP: usize = 20 * 1024;
/// A slow reader is so many times slower than the origin.
const SLOWER: u32 = 20;
/// The kernel keeps no more than about this for a slow reader.
const SLOW_BUFFER: u32 = 64 * 1024;
/// Median of what a reader's first byte may come after the first reader's.
const FIRST_BYTE_MAX: Duration = Duration::from_millis(5);
/// What fast readers may take after the origin's last byte.
const LAST_BYTE_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Size {
    bytes: usize,
    readers: usize,
    slow: usize,
    speed: Option<Speed>,
}

#[derive(Clone, Copy)]
struct Speed {
    /// To the origin's first byte.
    pause: Duration,
    /// Bytes a second of the origin.
    rate: u32,
}

/// What a slow reader does after each step.
#[derive(Clone)]
enum Slow {
    Rests(Duration),
    /// Stands still after the first, until this opens.
    Waits(Gate),
}

/// The object: no two of its blocks are alike.
fn object(bytes: usize) -> Vec<u8> {
    (0..bytes as u32 / 4).flat_map(|word| word.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

/// When what happened.
#[derive(Default)]
struct Seen {
    asked: AtomicUsize,
    last_byte: OnceCell<Instant>,
}

async fn origin(size: Size, seen: Arc<Seen>, all_ask: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (seen, all_ask) = (Arc::clone(&seen), Arc::clone(&all_ask));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                seen.asked.fetch_add(1, Ordering::AcqRel);
                all_ask.notified().await;
                if let Some(speed) = size.speed {
                    tokio::time::sleep(speed.pause).await;
                }
                let head =
                    format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n", size.bytes);
                let _ = stream.write_all(head.as_bytes()).await;
                let begun = tokio::time::Instant::now();
                let mut sent = 0;
                for step in object(size.bytes).chunks(STEP) {
                    let _ = stream.write_all(step).await;
                    sent += step.len() as u32;
                    if let Some(speed) = size.speed {
                        tokio::time::sleep_until(begun + Duration::from_secs(1) * sent / speed.rate).await;
                    }
                }
                let _ = seen.last_byte.set(Instant::now());
                let _ = stream.read_u8().await;
            });
        }
    });
    address
}

/// When a reader had its first and its last byte.
struct Read {
    first: Instant,
    last: Instant,
}

/// Reads the object and compares every byte.
async fn read(edge: SocketAddr, expected: Arc<Vec<u8>>, slow: Option<Slow>, asked: Arc<AtomicUsize>) -> Read {
    let socket = TcpSocket::new_v4().expect("a socket");
    if slow.is_some() {
        socket.set_recv_buffer_size(SLOW_BUFFER).expect("a small buffer");
    }
    let mut stream = socket.connect(edge).await.expect("the edge listens");
    stream.write_all(b"GET /video HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("it is taken");
    asked.fetch_add(1, Ordering::AcqRel);
    let mut buf = vec![0; if slow.is_some() { STEP } else { 256 * 1024 }];
    let mut head = Vec::new();
    let mut first = None;
    let mut got = 0;
    while got < expected.len() {
        let read = stream.read(&mut buf).await.expect("the answer goes on");
        assert!(read > 0, "the answer ends after {got} bytes");
        let mut body = &buf[..read];
        if first.is_none() {
            head.extend_from_slice(body);
            let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
            body = &body[body.len() - (head.len() - end - 4)..];
            if body.is_empty() {
                continue;
            }
            first = Some(Instant::now());
        }
        assert!(*body == expected[got..got + body.len()], "other bytes within {} from {got} on", body.len());
        got += body.len();
        match &slow {
            None => {}
            Some(Slow::Rests(pause)) => tokio::time::sleep(*pause).await,
            Some(Slow::Waits(gate)) => gate.pass().await,
        }
    }
    Read { first: first.expect("a first byte"), last: Instant::now() }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_reads_a_cold_object_while_it_comes_and_slow_readers_hold_up_nobody() {
    let is_soak = std::env::var_os("EDUHAM_SOAK_COLD").is_some();
    let size = if is_soak { SOAK } else { CI };
    let (seen, all_ask) = (Arc::new(Seen::default()), Arc::new(Notify::new()));
    let address = origin(size, Arc::clone(&seen), Arc::clone(&all_ask)).await;
    let edge = configured(&format!(
        "version: 1
server: {{ listeners: [ {{ address: \"{{listener}}\" }} ] }}
admin: {{ address: \"{{admin}}\" }}
log: {{ access: {{ to: none }} }}
upstreams: {{ origin: {{ peers: [ \"{address}\" ] }} }}
cache: {{ media: {{}} }}
routes: [ {{ name: media, match: {{ path: \"/{{*rest}}\" }}, upstream: origin, cache: media }} ]
"
    ))
    .start()
    .await;
    let expected = Arc::new(object(size.bytes));
    let resident = resident_bytes();
    let asked = Arc::new(AtomicUsize::new(0));
    let gate = Gate::closed();
    let slowness = match size.speed {
        Some(speed) => Slow::Rests(Duration::from_secs(1) * STEP as u32 * SLOWER / speed.rate),
        None => Slow::Waits(gate.clone()),
    };
    let mut slow_readers: Vec<_> = (0..size.readers)
        .map(|number| {
            let slow = (number < size.slow).then(|| slowness.clone());
            tokio::spawn(read(edge.address, Arc::clone(&expected), slow, Arc::clone(&asked)))
        })
        .collect();
    within(async {
        while asked.load(Ordering::Acquire) < size.readers {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // One who asks: it is the origin's turn only when all do.
    all_ask.notify_one();
    let fast_readers = slow_readers.split_off(size.slow);
    let fast_reads = within(join_all(fast_readers)).await;
    gate.open();
    let slow_reads = join_all(slow_readers).await;
    let reads: Vec<Read> =
        slow_reads.into_iter().chain(fast_reads).collect::<Result<_, _>>().expect("every reader gets the whole object");
    let grown = resident_bytes().saturating_sub(resident);
    assert_eq!(seen.asked.load(Ordering::Acquire), 1, "one request to the origin");
    let last_byte = *seen.last_byte.get().expect("the origin has sent everything");
    let begun = reads.iter().map(|read| read.first).min().expect("readers");
    let mut firsts: Vec<_> = reads.iter().map(|read| read.first - begun).collect();
    firsts.sort_unstable();
    let median = firsts[firsts.len() / 2];
    let fast =
        reads[size.slow..].iter().map(|read| read.last.saturating_duration_since(last_byte)).max().expect("readers");
    let slow =
        reads[..size.slow].iter().map(|read| read.last.saturating_duration_since(last_byte)).max().expect("readers");
    println!(
        "first byte after the first reader's: median {median:?}, worst {:?}; after the origin's last byte: fast readers {fast:?}, \
         slow ones {slow:?}; resident memory grew by {} KiB",
        firsts[firsts.len() - 1],
        grown / 1024
    );
    if is_soak {
        assert!(median <= FIRST_BYTE_MAX, "{median:?}");
        assert!(fast <= LAST_BYTE_MAX, "{fast:?}");
        // The object once in the store, once in parts on their way, and the buffers of this test's own readers.
        assert!(grown <= 2 * size.bytes + size.readers * 512 * 1024, "{grown}");
    }
}
