//! Two edges on one Redis, read and purged while an edge and Redis are killed and come back, and while an edge's link to Redis is slow or
//! swallows everything: no read is older than a purge that every node had acknowledged before the read began.
//!
//! The origin has a number for each page. Who changes a page takes the next number and purges until that is acknowledged; then the number
//! is the page's floor. Who reads a page looks at its floor *first*. `EDUHAM_SOAK_READS` and `EDUHAM_SOAK_PURGES` ask for more; the seed
//! is printed, and `EDUHAM_SEED` repeats it as far as clocks and threads do.

use std::{
    fs::File,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::support::{Apart, Origin, RedisServer, cacheable, edge, edge::Builder, gate::STUCK, origin};

const READS: usize = 2_000;
const PURGES: usize = 60;
const PAGES: usize = 5;
const READERS: usize = 4;
const WRITERS: usize = 2;
/// Of the purges, after how many something is killed.
const PURGES_PER_FAULT: usize = 8;

/// What each edge's link to Redis takes for a piece, in milliseconds: the second is far away.
const LINKS: [u64; 2] = [0, 10];

/// A way to Redis that takes its time, and that can be cut so that nobody notices at once.
struct Link {
    url: String,
    cut: watch::Sender<bool>,
}

impl Link {
    async fn to(redis: &RedisServer, milliseconds: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("bound"));
        let (cut, server) = (watch::Sender::new(false), redis.address());
        let link = Self { url, cut: cut.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let cut = cut.subscribe();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    let late = Duration::from_millis(milliseconds);
                    tokio::select! {
                        () = carry(from_client, to_server, late, cut.clone()) => {}
                        () = carry(from_server, to_client, late, cut) => {}
                    }
                });
            }
        });
        link
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    late: Duration,
    mut cut: watch::Receiver<bool>,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        tokio::time::sleep(late).await;
        if cut.wait_for(|cut| !cut).await.is_err() || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// A page's number at the origin, and the one that every read from now on must reach.
#[derive(Default)]
struct PageState {
    number: AtomicU64,
    floor: AtomicU64,
}

/// What everybody shares.
struct World {
    pages: Vec<PageState>,
    /// Traffic and control listener of each edge; its port changes with each start.
    edges: Mutex<[(SocketAddr, SocketAddr); 2]>,
    reads: AtomicUsize,
    hits: AtomicUsize,
    acknowledged: AtomicUsize,
    /// Receipts that named each edge as lost.
    lost: [AtomicUsize; 2],
    over: AtomicBool,
    random: AtomicU64,
}

impl World {
    /// The next number of a sequence that the seed decides (splitmix64).
    fn random(&self, below: usize) -> usize {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 33) as usize % below
    }

    fn edge(&self, which: usize) -> (SocketAddr, SocketAddr) {
        self.edges.lock()[which]
    }
}

/// One request over a connection of its own; nothing where nobody is there or the answer breaks off.
async fn exchange(to: SocketAddr, request: String) -> Option<(u16, String)> {
    let mut text = String::new();
    let asked = async {
        let mut stream = TcpStream::connect(to).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        stream.read_to_string(&mut text).await.ok()
    };
    tokio::time::timeout(STUCK, asked).await.ok()??;
    let status = text.get(9..12)?.parse().ok()?;
    Some((status, text))
}

async fn read(world: &World, page: usize, edge: usize) {
    let floor = world.pages[page].floor.load(Ordering::SeqCst);
    let (edge, _) = world.edge(edge);
    let request = format!("GET /{page} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let Some((200, answer)) = exchange(edge, request).await else { return };
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return };
    let Some(number) = body.strip_suffix('.') else { return };
    let number: u64 = number.parse().expect("the origin's number");
    assert!(number >= floor, "page {page} is {number}, {floor} was acknowledged before it was asked for: {head}");
    world.reads.fetch_add(1, Ordering::Relaxed);
    world.hits.fetch_add(usize::from(head.contains("; hit")), Ordering::Relaxed);
}

/// Changes a page and purges it, some way, until that is acknowledged or given up. Then looks at once whether it has worked.
async fn change(world: &World) {
    let page = world.random(PAGES);
    let number = world.pages[page].number.fetch_add(1, Ordering::SeqCst) + 1;
    let what = match world.random(4) {
        0 => format!(r#""urls":["http://a.test/{page}"]"#),
        1 => format!(r#""surrogate_keys":["page:{page}"]"#),
        2 => format!(r#""prefixes":["http://a.test/{page}"]"#),
        _ => r#""hosts":["a.test"]"#.to_owned(),
    };
    let body = format!(r#"{{{what},"wait":true,"timeout":"5s"}}"#);
    for _ in 0..10 {
        let (_, admin) = world.edge(world.random(2));
        let request = format!(
            "POST /purge HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(admin, request).await;
        for (id, lost) in world.lost.iter().enumerate() {
            let names = |receipt: &str| receipt_names_lost(receipt, id);
            lost.fetch_add(answer.as_ref().is_some_and(|(_, receipt)| names(receipt)).into(), Ordering::Relaxed);
        }
        if answer.is_some_and(|(status, answer)| status == 200 && answer.contains(r#""complete":true"#)) {
            // Another writer may have come further with this page.
            world.pages[page].floor.fetch_max(number, Ordering::SeqCst);
            world.acknowledged.fetch_add(1, Ordering::Relaxed);
            for edge in [0, 1] {
                read(world, page, edge).await;
            }
            return;
        }
    }
}

/// `"lost":["e0","e1"]`
fn receipt_names_lost(receipt: &str, id: usize) -> bool {
    let lost = receipt.split_once("\"lost\":[").and_then(|(_, lost)| lost.split_once(']'));
    lost.is_some_and(|(lost, _)| lost.contains(&format!("\"e{id}\"")))
}

/// Does an edge say that it hears of no purges?
async fn is_cut_off(world: &World, id: usize) -> bool {
    let (_, admin) = world.edge(id);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    exchange(admin, request).await.is_some_and(|(_, text)| text.contains("\nedge_fleet_connected 0"))
}

/// A node whose stored responses outlive it: memory holds next to nothing.
fn member(origin: &Origin, link: &Link, id: usize, folder: &Path) -> Builder {
    let seconds = "lease: 1s, history: 1h, when_cut_off: ";
    // One of each: what is lost may serve, and is waited for; or it may not, and is not.
    let policy = ["serve", "revalidate"][id];
    edge(origin)
        .policy("stale_while_revalidate: 0s, stale_if_error: 1h")
        .section(&format!("node: {{ id: e{id} }}"))
        .section(&format!("redis: {{ url: \"{}\", timeout: 500ms }}", link.url))
        .section(&format!("fleet: {{ {seconds}{policy} }}"))
        .section(&format!(
            "store: {{ memory: {{ size: 4KiB }}, disk: {{ path: \"{}\", size: 16MiB, min_free: 0% }} }}",
            folder.display()
        ))
}

/// Has the process that had this folder let it go?
fn is_free(folder: &Path) -> bool {
    File::open(folder.join("lock")).expect("it was in use").try_lock().is_ok()
}

fn asked_for(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_an_acknowledged_purge() {
    let (reads, purges) = (asked_for("EDUHAM_SOAK_READS", READS), asked_for("EDUHAM_SOAK_PURGES", PURGES));
    let seed = asked_for("EDUHAM_SEED", eduham_edge::proxy::ids::random() as usize);
    eprintln!("EDUHAM_SEED={seed}, {reads} reads, {purges} purges");
    for durable in [true, false] {
        run(reads / 2, purges / 2, seed, durable).await;
    }
}

async fn run(reads: usize, purges: usize, seed: usize, durable: bool) {
    let begun = Instant::now();
    let (mut redis, origin) = (RedisServer::start(durable).await, origin().await);
    let addresses = |edge: &Apart| (edge.address, edge.admin);
    let links = [Link::to(&redis, LINKS[0]).await, Link::to(&redis, LINKS[1]).await];
    let folders = [0, 1].map(|_| tempfile::tempdir().expect("a temporary directory"));
    let start = |id: usize| Apart::start(member(&origin, &links[id], id, folders[id].path()));
    let [one, two] = [0, 1].map(start);
    let (one, two) = (one.await, two.await);
    let now = [addresses(&one), addresses(&two)];
    let mut edges = [Some(one), Some(two)];
    let world = Arc::new(World {
        pages: (0..PAGES).map(|_| PageState::default()).collect(),
        edges: Mutex::new(now),
        reads: AtomicUsize::new(0),
        hits: AtomicUsize::new(0),
        acknowledged: AtomicUsize::new(0),
        lost: [const { AtomicUsize::new(0) }; 2],
        over: AtomicBool::new(false),
        random: AtomicU64::new(seed as u64),
    });
    for page in 0..PAGES {
        let world = Arc::clone(&world);
        origin.answer(&format!("/{page}"), move |_| {
            let number = world.pages[page].number.load(Ordering::SeqCst);
            cacheable(format!("{number}."))
                .etag(&format!("\"{number}\""))
                .field("Surrogate-Key", &format!("page:{page}"))
        });
    }
    let mut tasks = JoinSet::new();
    for _ in 0..READERS {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            while !world.over.load(Ordering::Relaxed) {
                read(&world, world.random(PAGES), world.random(2)).await;
            }
        });
    }
    for _ in 0..WRITERS {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            while !world.over.load(Ordering::Relaxed) {
                change(&world).await;
            }
        });
    }
    // Faults, one after the other, each after some more purges that went well.
    let mut next_fault = PURGES_PER_FAULT / 2;
    let (mut faults, mut cuts) = (0, 0);
    let (mut progress, mut last) = (Instant::now(), (0, 0));
    loop {
        if let Some(ended) = tasks.try_join_next() {
            ended.expect("no read is too old");
        }
        let now = (world.reads.load(Ordering::Relaxed), world.acknowledged.load(Ordering::Relaxed));
        if now != last {
            (progress, last) = (Instant::now(), now);
        }
        assert!(progress.elapsed() < 2 * STUCK, "nothing goes on: {now:?} reads and purges");
        if now.0 >= reads && now.1 >= purges {
            break;
        }
        if now.1 < purges && now.1 >= next_fault {
            next_fault += PURGES_PER_FAULT;
            faults += 1;
            let id = world.random(2);
            match faults % 3 {
                1 => {
                    redis.kill();
                    // Some purges find nobody there.
                    read_some(&world, &mut tasks, 50).await;
                    redis.restart().await;
                }
                2 => {
                    let named = world.lost[id].load(Ordering::Relaxed);
                    links[id].cut.send_replace(true);
                    // Its lease lapses by its own clock, then by that of Redis.
                    until(&mut tasks, "it is cut off", async || is_cut_off(&world, id).await).await;
                    until(&mut tasks, "it is lost", async || world.lost[id].load(Ordering::Relaxed) > named).await;
                    read_some(&world, &mut tasks, 50).await;
                    links[id].cut.send_replace(false);
                    cuts += 1;
                }
                _ => {
                    drop(edges[id].take());
                    read_some(&world, &mut tasks, 50).await;
                    until(&mut tasks, "its folder is free", async || is_free(folders[id].path())).await;
                    let edge = start(id).await;
                    world.edges.lock()[id] = addresses(&edge);
                    edges[id] = Some(edge);
                }
            }
        }
        tokio::task::yield_now().await;
    }
    world.over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no read is too old");
    }
    let hits = world.hits.load(Ordering::Relaxed);
    assert!(hits > 0 && faults >= 3, "something was stored, and something was killed: {hits} hits, {faults} faults");
    assert!(cuts > 0, "a lease has lapsed");
    eprintln!("durable: {durable}: {last:?} reads and purges, {hits} hits, {faults} faults, {:?}", begun.elapsed());
}

/// Lets so many reads happen, of those that still can.
async fn read_some(world: &World, tasks: &mut JoinSet<()>, count: usize) {
    let enough = world.reads.load(Ordering::Relaxed) + count;
    until(tasks, "some reads", async || world.reads.load(Ordering::Relaxed) >= enough).await;
}

/// Gives way until something has happened.
async fn until(tasks: &mut JoinSet<()>, what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !happened().await {
        if let Some(ended) = tasks.try_join_next() {
            ended.expect("no read is too old");
        }
        assert!(begun.elapsed() < STUCK, "never happened: {what}");
        tokio::task::yield_now().await;
    }
}
