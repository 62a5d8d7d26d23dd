//! The disk tier of real processes that are killed: whatever the moment, what was written is there and nothing is torn.
//!
//! `EDUHAM_DISK_KILLS` kills so many times in place of 10. `EDUHAM_DISK_RESPONSES` stores so many responses in place of 300
//! before the one kill of the other test, which then also holds the start against the clock. The seed is printed, and `EDUHAM_SEED`
//! repeats it as far as clocks and threads do.

#[path = "support/process.rs"]
mod process;
#[path = "support/redis_server.rs"]
mod redis_server;

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use process::{Running, STUCK, ask, eventually, free_address};
use redis_server::RedisServer;

/// Random numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let given = std::env::var("EDUHAM_SEED").ok().map(|text| text.parse().expect("a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        eprintln!("EDUHAM_SEED={seed}");
        Self(seed)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn number(name: &str, default: usize) -> (usize, bool) {
    let given = std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    (given.unwrap_or(default), given.is_some())
}

/// The body of `/NUMBER/LENGTH`: bytes that no other path has.
fn body(path: &str) -> Vec<u8> {
    let length = path.rsplit('/').next().and_then(|length| length.parse().ok()).unwrap_or_default();
    path.bytes().chain(*b" ").cycle().take(length).collect()
}

/// Answers every path with its body, to be stored for a day.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                while let Some(head) = head(&mut reader) {
                    let path = head[0].split(' ').nth(1).unwrap_or_default();
                    let body = body(path);
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nCache-Control: max-age=86400\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
                }
            });
        }
    });
    address
}

/// The lines of a head; `None` where the connection ended.
fn head(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return Some(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

/// A connection of a client.
struct Client(BufReader<TcpStream>);

impl Client {
    fn open(to: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(to).ok()?;
        stream.set_read_timeout(Some(STUCK)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self(BufReader::new(stream)))
    }

    /// Asks for a path: whether it was answered with its body, checked byte by byte, or not at all (504). `None`: the edge is gone.
    fn get(&mut self, path: &str, fields: &str) -> Option<bool> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).ok()?;
        let lines = head(&mut self.0)?;
        let length = lines.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut read = vec![0; length?];
        self.0.read_exact(&mut read).ok()?;
        if lines[0].contains(" 504 ") {
            return Some(false);
        }
        assert!(lines[0].contains(" 200 "), "{path}: {}", lines[0]);
        assert!(read == body(path), "{path} was answered with a wrong body");
        Some(true)
    }
}

/// Kills that one folder lives through.
const FOLDER_KILLS: usize = 20;
/// Nothing is fetched for it.
const STORED: &str = "Cache-Control: only-if-cached\r\n";

struct Place {
    directory: tempfile::TempDir,
    traffic: SocketAddr,
    admin: SocketAddr,
}

impl Place {
    fn new(origin: SocketAddr, disk: &str) -> Self {
        Self::with(origin, disk, "")
    }

    fn with(origin: SocketAddr, disk: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = Self { directory, traffic: free_address(), admin: free_address() };
        let yaml = format!(
            "version: 1
server: {{ workers: 2, listeners: [ {{ address: \"{}\" }} ] }}
admin: {{ address: \"{}\" }}
log: {{ access: {{ to: none }} }}
store: {{ memory: {{ size: 1MiB }}, disk: {{ path: disk, min_free: 0%, {disk} }} }}
cache: {{ all: {{}} }}
{more}
upstreams: {{ origin: {{ peers: [ \"{origin}\" ] }} }}
routes: [ {{ name: all, match: {{ path: \"/{{*rest}}\" }}, upstream: origin, cache: all }} ]
",
            place.traffic, place.admin
        );
        std::fs::write(place.directory.path().join("edge.yaml"), yaml).expect("it is written");
        place
    }

    fn folder(&self) -> std::path::PathBuf {
        self.directory.path().join("disk")
    }

    fn run(&self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eduham-edge"));
        command.args(["run", "-c"]).arg(self.directory.path().join("edge.yaml"));
        Running::ready(&mut command, self.admin)
    }

    fn client(&self) -> Client {
        Client::open(self.traffic).expect("the edge listens")
    }

    /// Was a purge of this path acknowledged by every node?
    fn purge(&self, path: &str) -> bool {
        self.receipt(path, true).is_some_and(|receipt| receipt.contains("\"complete\":true"))
    }

    /// What a purge of this path was answered.
    fn receipt(&self, path: &str, wait: bool) -> Option<String> {
        let order = format!(r#"{{"urls":["http://a.test{path}"],"wait":{wait}}}"#);
        let mut stream = TcpStream::connect(self.admin).ok()?;
        let request = format!(
            "POST /purge HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{order}",
            self.admin,
            order.len()
        );
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)).ok()?;
        answer.starts_with("HTTP/1.1 200 ").then_some(answer)
    }
}

/// Paths whose responses lie whole in the segments of a folder, read by the format's description alone.
fn written(folder: &Path) -> HashSet<String> {
    let mut segments: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    let mut paths = HashSet::new();
    for segment in segments {
        let bytes = std::fs::read(segment).expect("a segment");
        let mut at = 0;
        while let Some(header) = bytes.get(at..at + 64) {
            let number = |from: usize| {
                let four = bytes[at + from..at + from + 4].try_into().expect("four bytes");
                u32::from_le_bytes(four) as usize
            };
            let end = at + 64 + number(28) + number(32);
            if end > bytes.len() {
                break;
            }
            // The key of a head is behind its surrogate keys and parts.
            if header[5] == 1 {
                let key = 64 + 32 + 16 * number(64 + 24) + 24 * number(64 + 28) + 1;
                let text = &bytes[at + key + 4..at + key + 4 + number(key)];
                let text = std::str::from_utf8(text).expect("a key is text");
                let path = text.strip_prefix("http://a.test").expect("it is of this host");
                paths.insert(path.split('#').next().unwrap_or_default().to_owned());
            }
            at = end;
        }
    }
    paths
}

/// The paths that are stored; every body is compared.
fn stored<'a>(place: &Place, paths: impl IntoIterator<Item = &'a String>) -> HashSet<String> {
    let mut client = place.client();
    let mut found = HashSet::new();
    for path in paths {
        if client.get(path, STORED).expect("the edge lives") {
            found.insert(path.clone());
        }
    }
    found
}

#[test]
fn killed_at_any_moment_it_loses_nothing_that_was_written_and_serves_nothing_torn() {
    let (kills, _) = number("EDUHAM_DISK_KILLS", 10);
    let mut dice = Dice::new();
    let origin = origin();
    let mut place = Place::new(origin, "size: 1GiB");
    let asked = Mutex::new(HashSet::new());
    // Whose purge was acknowledged, and whose may have come into the journal.
    let (mut purged, mut maybe_purged) = (HashSet::new(), HashSet::new());
    for round in 0..kills {
        if round % FOLDER_KILLS == FOLDER_KILLS - 1 {
            // Everything is looked at after each kill: that must not become ever more.
            place = Place::new(origin, "size: 1GiB");
            asked.lock().expect("no panic").clear();
            purged.clear();
            maybe_purged.clear();
        }
        let mut edge = place.run();
        let moment = Duration::from_millis(dice.roll(200));
        thread::scope(|scope| {
            for worker in 0..4 {
                let mut dice = Dice(dice.roll(u64::MAX >> 1));
                let (place, asked) = (&place, &asked);
                scope.spawn(move || {
                    let Some(mut client) = Client::open(place.traffic) else { return };
                    for step in 0.. {
                        // Most are small, some lie in several parts.
                        let length =
                            [300, 5_000, 70_000, 1_500_000][[0, 0, 0, 0, 0, 1, 1, 1, 2, 3][dice.roll(10) as usize]];
                        let path = format!("/{round}-{worker}-{step}/{length}");
                        asked.lock().expect("no panic").insert(path.clone());
                        if client.get(&path, "").is_none() {
                            return;
                        }
                    }
                });
            }
            thread::sleep(moment);
            let one = asked.lock().expect("no panic").iter().next().cloned();
            if let Some(path) = one {
                maybe_purged.insert(path.clone());
                // Acknowledged, it holds in all processes to come.
                if place.purge(&path) {
                    purged.insert(path);
                }
            }
            edge.signal("KILL");
            edge.wait();
        });
        let asked = asked.lock().expect("no panic");
        let written = written(&place.folder());
        let _edge = place.run();
        // Until a segment has been read its keys are misses.
        let mut found = HashSet::new();
        eventually("everything that was written is found", || {
            found = stored(&place, asked.iter());
            written.iter().all(|path| found.contains(path) || maybe_purged.contains(path))
        });
        assert!(found.is_subset(&written), "nothing else can be there");
        assert!(found.is_disjoint(&purged), "a purged response came back");
    }
}

#[test]
fn after_a_kill_it_serves_at_once_what_it_had() {
    let (responses, timed) = number("EDUHAM_DISK_RESPONSES", 300);
    let place = Place::new(origin(), "size: 4GiB");
    let paths: Arc<Vec<String>> = Arc::new((0..responses).map(|number| format!("/{number}/20000")).collect());
    let mut edge = place.run();
    thread::scope(|scope| {
        for part in paths.chunks(responses.div_ceil(4)) {
            scope.spawn(|| {
                let mut client = place.client();
                part.iter().for_each(|path| assert_eq!(client.get(path, ""), Some(true)));
            });
        }
    });
    eventually("everything is written", || written(&place.folder()).len() == responses);
    edge.signal("KILL");
    edge.wait();

    let begun = Instant::now();
    let _edge = place.run();
    let (ready, begun) = (begun.elapsed(), Instant::now());
    let mut dice = Dice::new();
    let mut client = place.client();
    let (mut drawn, mut hits) = (0, 0);
    while drawn < 2_000.min(responses) {
        let path = &paths[dice.roll(responses as u64) as usize];
        drawn += 1;
        hits += usize::from(client.get(path, STORED).expect("it lives"));
    }
    let took = begun.elapsed();
    println!("{responses} responses: ready after {ready:?}; {hits} hits of {drawn} in the {took:?} after that");
    eventually("everything is found", || stored(&place, paths.iter()).len() == responses);
    if timed {
        let second = Duration::from_secs(1);
        assert!(ready < second && took < second && hits * 100 >= drawn * 95);
    }
    let metrics = ask(place.admin, "/metrics").expect("an answer");
    let nothing_torn = "edge_store_errors_total{operation=\"checksum\",tier=\"disk\"} 0\n";
    assert!(metrics.contains(nothing_torn), "{metrics}");
}

#[tokio::test]
async fn a_node_that_was_killed_comes_back_without_what_was_purged_meanwhile() {
    let (redis, origin) = (RedisServer::start(true).await, origin());
    let member = |id: &str| {
        let fleet = "fleet: { lease: 1s, history: 1h }";
        let more = format!("node: {{ id: {id} }}\nredis: {{ url: \"{}\", timeout: 2s }}\n{fleet}", redis.url());
        Place::with(origin, "size: 64MiB", &more)
    };
    let (one, two) = (member("e1"), member("e2"));
    let (mut first, _second) = (one.run(), two.run());
    let paths = ["/acknowledged/300", "/missed/70000", "/kept/300", "/kept/1500000"].map(str::to_owned);
    let mut client = one.client();
    assert!(paths.iter().all(|path| client.get(path, "") == Some(true)));
    let all = HashSet::from(paths.clone());
    eventually("everything is written", || written(&one.folder()) == all);
    // A log that has just begun waits for those whom it does not know yet.
    eventually("both have acknowledged it", || two.purge(&paths[0]));
    first.signal("KILL");
    first.wait();
    let missed = |path: &str| assert!(two.receipt(path, false).is_some_and(|receipt| receipt.contains("\"position\"")));
    missed(&paths[1]);

    let mut again = one.run();
    let kept = HashSet::from([paths[2].clone(), paths[3].clone()]);
    eventually("the rest is found", || stored(&one, &paths) == kept);
    again.signal("KILL");
    again.wait();

    // What it misses now is not in the log any more when it comes back: it may have meant anything.
    (0..2).for_each(|_| missed("/other/1"));
    redis.command("XTRIM {eh:purge}:log MAXLEN 1");
    let _again = one.run();
    let mut client = one.client();
    // Until the segment has been read its keys are misses; then it is written to.
    assert_eq!(client.get("/new/300", ""), Some(true));
    eventually("the segment has been read", || written(&one.folder()).contains("/new/300"));
    assert!(paths.iter().all(|path| client.get(path, STORED) == Some(false)));
}
