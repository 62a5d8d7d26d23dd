//! The binary as an operator runs it: signals, exit codes, and what it says when it cannot start.

#[path = "support/process.rs"]
mod process;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use process::{Running, STUCK, ask, eventually, free_address};

/// A directory with a configuration, and the ports that it names.
struct Place {
    directory: tempfile::TempDir,
    traffic: SocketAddr,
    admin: SocketAddr,
}

impl Place {
    /// `server` are further keys of it.
    fn new(server: &str) -> Self {
        let [traffic, admin] = [(); 2].map(|()| free_address());
        let place = Self { directory: tempfile::tempdir().expect("a temporary directory"), traffic, admin };
        place.write(&format!(
            "version: 1
server: {{ workers: 2, listeners: [ {{ address: \"{traffic}\" }} ] {server} }}
admin: {{ address: \"{admin}\" }}
log: {{ access: {{ to: access.log }} }}
routes: [ {{ name: home, match: {{ path: \"/{{*rest}}\" }}, respond: {{ status: 200, body: home }} }} ]
"
        ));
        place
    }

    fn write(&self, yaml: &str) {
        std::fs::write(self.path("edge.yaml"), yaml).expect("it is written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eduham-edge"));
        command.args(["run", "-c"]).arg(self.path("edge.yaml")).current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts the binary and waits until it is ready.
    fn run(&self) -> Running {
        Running::ready(&mut self.command(), self.admin)
    }

    /// Runs what must not start: its exit code and what it says on stderr.
    fn fails(&self) -> (Option<i32>, String) {
        let mut running = Running(self.command().spawn().expect("it starts"));
        let status = running.wait();
        let mut words = String::new();
        running.0.stderr.take().expect("piped").read_to_string(&mut words).expect("text");
        let mut data = String::new();
        running.0.stdout.take().expect("piped").read_to_string(&mut data).expect("text");
        assert_eq!(data, "", "words are for stderr");
        (status.code(), words)
    }
}

/// Reads one answer whose body is `home`; none when the connection ended first.
fn answer(stream: &mut TcpStream) -> Option<String> {
    let mut answer = Vec::new();
    let mut buf = [0; 4096];
    while !answer.ends_with(b"\r\n\r\nhome") {
        match stream.read(&mut buf) {
            Ok(read @ 1..) => answer.extend_from_slice(&buf[..read]),
            _ => return None,
        }
    }
    String::from_utf8(answer).ok()
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn sigterm_under_load_loses_no_request_and_every_one_is_in_the_log() {
    let place = Place::new("");
    let mut edge = place.run();
    let (told, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (told, asked, to) = (Arc::clone(&told), Arc::clone(&asked), place.traffic);
            thread::spawn(move || {
                let mut stream = TcpStream::connect(to).expect("the edge listens");
                stream.set_read_timeout(Some(STUCK)).expect("a socket");
                loop {
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("a kept connection is open");
                    let answer = answer(&mut stream).expect("a request that was taken is answered");
                    asked.fetch_add(1, Ordering::SeqCst);
                    if answer.contains("connection: close\r\n") {
                        assert!(told.load(Ordering::SeqCst), "not before the signal");
                        return;
                    }
                }
            })
        })
        .collect();
    eventually("there is load", || asked.load(Ordering::SeqCst) > 200);
    told.store(true, Ordering::SeqCst);
    edge.signal("TERM");
    for client in clients {
        client.join().expect("a client that lost nothing");
    }
    assert!(edge.wait().success());
    assert!(TcpStream::connect(place.traffic).is_err());
    assert_eq!(lines(&place.path("access.log")), asked.load(Ordering::SeqCst));
}

#[test]
fn a_second_signal_and_sigint_stop_at_once() {
    let place = Place::new(", drain: { delay: 1h, deadline: 1h }");
    for signals in [&["TERM", "TERM"][..], &["QUIT", "INT"], &["INT"]] {
        let mut edge = place.run();
        let mut kept = TcpStream::connect(place.traffic).expect("the edge listens");
        kept.set_read_timeout(Some(STUCK)).expect("a socket");
        kept.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("it is taken");
        answer(&mut kept).expect("an answer");
        edge.signal(signals[0]);
        if let Some(second) = signals.get(1) {
            eventually("it is unready", || {
                ask(place.admin, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 503 "))
            });
            assert!(ask(place.traffic, "/").is_some_and(|answer| answer.ends_with("home")), "it still serves");
            edge.signal(second);
        }
        assert!(edge.wait().success(), "{signals:?}");
    }
}

#[test]
fn sigusr1_opens_the_log_anew_while_it_runs_and_while_it_drains() {
    let place = Place::new(", drain: { delay: 1h }");
    let mut edge = place.run();
    let (log, rotated) = (place.path("access.log"), place.path("access.log.1"));
    let rotate = |edge: &Running| {
        ask(place.traffic, "/").expect("an answer");
        eventually("it is logged", || lines(&log) == 1);
        std::fs::rename(&log, &rotated).expect("the log is there");
        edge.signal("USR1");
        eventually("there is a new log", || log.exists());
        assert_eq!((lines(&log), lines(&rotated)), (0, 1));
    };
    rotate(&edge);
    edge.signal("TERM");
    eventually("it drains", || ask(place.admin, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 503 ")));
    rotate(&edge);
    edge.signal("INT");
    assert!(edge.wait().success());
}

#[test]
fn what_cannot_start_says_why_and_ends_with_1() {
    let place = Place::new("");
    let taken = TcpListener::bind(place.traffic).expect("the port is free");
    let (code, words) = place.fails();
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains(&format!("cannot listen on {}: ", place.traffic)) && words.contains("in use"), "{words}");
    drop(taken);
    place.write("version: 1\nserver: { listeners: [ { addresses: \"127.0.0.1:0\" } ], workers: many }\n");
    let (code, words) = place.fails();
    assert_eq!(code, Some(1), "{words}");
    for problem in ["edge.yaml:2:", "addresses", "many"] {
        assert!(words.contains(problem), "{problem} is not in {words}");
    }
}
