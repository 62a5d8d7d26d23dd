//! The real binary and unmodified clients: y-websocket in Node.js against `eduham-collab serve`, killed and restarted.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long a process may take to be there; machines with other work on them are slow.
const START_MAX: Duration = Duration::from_secs(30);

/// The client scripts, with their dependencies installed from the lock file.
fn clients() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients");
        let lock = std::fs::File::open(directory.join("package-lock.json")).expect("the lock file of the clients");
        // Tests are processes of their own: one installs, the others wait.
        lock.lock().expect("a lock on the lock file");
        let installed = directory.join("node_modules/.package-lock.json");
        let age = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
        if age(&installed) < age(&directory.join("package-lock.json")) || age(&installed).is_none() {
            let installing =
                Command::new("npm").args(["ci", "--no-fund", "--no-audit"]).current_dir(&directory).output();
            let installing = installing.expect("npm is needed: apt-get install npm, or https://nodejs.org");
            assert!(installing.status.success(), "npm ci: {}", String::from_utf8_lossy(&installing.stderr));
        }
        directory
    })
}

fn script(name: &str) -> Command {
    let mut node = Command::new("node");
    node.arg(clients().join(name));
    node
}

/// Runs a script to its end and returns what it printed.
fn run(mut script: Command) -> String {
    let output = script.output().expect("node (20 or newer) is needed: apt-get install nodejs, or https://nodejs.org");
    assert!(output.status.success(), "{script:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A collaboration node as a process; killed when dropped.
struct Node {
    process: Child,
    address: SocketAddr,
}

impl Node {
    fn start(id: &str, address: SocketAddr, database: &Path) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_eduham-collab"))
            .arg("serve")
            .env("EDUHAM_COLLAB_LISTEN", address.to_string())
            .env("EDUHAM_COLLAB_ID", id)
            .env("EDUHAM_COLLAB_DRAIN", "1s")
            .env("DATABASE_URL", format!("sqlite://{}", database.display()))
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the node starts");
        let mut node = Self { process, address };
        let give_up = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < give_up, "the node does not listen");
            assert!(node.process.try_wait().expect("a child").is_none(), "the node has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        node
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL: nothing is saved, nobody is told.
    fn kill(mut self) -> SocketAddr {
        self.process.kill().expect("a process");
        self.process.wait().expect("a child");
        self.address
    }

    fn terminate(&self) {
        let status = Command::new("kill").arg(self.process.id().to_string()).status();
        assert!(status.expect("kill").success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.process.wait().expect("a child").code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// An address that nobody listens on, as far as one can know.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

/// Many clients in one process of Node.js, told what to do line by line.
struct Storm {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Storm {
    fn start(clients: usize, rooms: usize, urls: &[String]) -> Self {
        let mut node = script("storm.mjs");
        node.args([clients.to_string(), rooms.to_string(), "room-".into(), urls.join(",")]);
        let mut process = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node is needed");
        let commands = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, commands, answers }
    }

    fn tell(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").expect("the storm listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the storm answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not an answer: {line:?}"));
        assert_eq!(answer["error"], Value::Null, "{command}");
        answer
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn two_clients_exchange_text_and_presence_and_a_killed_node_has_kept_the_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = directory.path().join("eduham.db");
    let node = Node::start("c1", free_address(), &database);
    let mut two = script("two-clients.mjs");
    two.args([&node.url(), "board:1"]);
    let said: Value = serde_json::from_str(&run(two)).expect("a JSON line");
    assert_eq!(said["nodes"], json!(["c1"]));
    assert_eq!(said["text"], "grüße \u{1f600}\u{1d11e} ");

    // The room is empty, so it is saved at once; the newcomer proves it before the kill, whatever the machine does.
    let give_up = Instant::now() + START_MAX;
    let flushed = |url: &str| {
        let mut metrics = String::new();
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("connects");
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").expect("sends");
        std::io::Read::read_to_string(&mut stream, &mut metrics).expect("reads");
        metrics.lines().any(|line| line.strip_prefix("rt_flushes_total ").is_some_and(|count| count != "0"))
    };
    while !flushed(&node.url()) {
        assert!(Instant::now() < give_up, "the room is not saved");
        std::thread::sleep(Duration::from_millis(50));
    }
    let address = node.kill();
    let node = Node::start("c1", address, &database);
    let mut fresh = script("fresh.mjs");
    fresh.args([&node.url(), "board:1"]);
    assert_eq!(run(fresh), said["text"].as_str().expect("text"));
}

#[test]
fn clients_come_back_after_a_kill_and_every_edit_that_was_seen_is_in_all_and_in_the_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = directory.path().join("eduham.db");
    let node = Node::start("c1", free_address(), &database);
    let mut storm = Storm::start(30, 3, &[node.url()]);
    storm.tell(&json!({"do": "connect"}));
    storm.tell(&json!({"do": "edit", "each": 2}));
    storm.tell(&json!({"do": "wait-seen"}));
    storm.tell(&json!({"do": "edit", "each": 1}));

    let address = node.kill(); // in the middle of it, and before anything of the last round is saved
    storm.tell(&json!({"do": "edit", "each": 1}));
    let mut node = Node::start("c1", address, &database);
    storm.tell(&json!({"do": "wait-converged"}));
    let report = storm.tell(&json!({"do": "report"}));
    storm.tell(&json!({"do": "stop"}));

    node.terminate();
    assert_eq!(node.exit_code(), Some(0), "it drains and saves");
    let node = Node::start("c2", address, &database);
    for (room, found) in report["rooms"].as_object().expect("rooms") {
        assert_eq!(found["missing"], json!([]), "{room}");
        let mut fresh = script("fresh.mjs");
        fresh.args([&node.url(), room]);
        let text = run(fresh);
        assert_eq!(text, found["text"].as_str().expect("text"), "{room}");
        let seen: BTreeSet<_> = found["seen"].as_array().expect("tokens").iter().filter_map(Value::as_str).collect();
        assert!(seen.len() >= 20 && seen.iter().all(|token| text.contains(token)), "{room}: {seen:?}");
    }
}

#[test]
fn a_stopping_node_sends_its_clients_to_the_next_one_with_1012() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = directory.path().join("eduham.db");
    let mut node = Node::start("c1", free_address(), &database);
    let address = node.address;
    let mut storm = Storm::start(12, 4, &[node.url()]);
    storm.tell(&json!({"do": "connect"}));
    storm.tell(&json!({"do": "edit", "each": 1}));
    storm.tell(&json!({"do": "wait-seen"}));
    node.terminate();
    assert_eq!(node.exit_code(), Some(0));
    let next = Node::start("c2", address, &database);
    storm.tell(&json!({"do": "wait-converged"}));
    let sockets = storm.tell(&json!({"do": "sockets"}));
    assert_eq!(sockets["codes"]["1012"], 12, "{sockets}");
    let report = storm.tell(&json!({"do": "report"}));
    assert!(report["rooms"].as_object().expect("rooms").values().all(|room| room["node"] == "c2"), "{report}");
    drop((storm, next));
}
