//! The binary as a process of its own: started, asked, told by signals, killed.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Nothing that is expected takes so long, on however busy a machine.
pub const STUCK: Duration = Duration::from_secs(20);

/// A process that does not outlive its test.
pub struct Running(pub Child);

impl Running {
    /// Starts an edge whose words nobody reads, and waits until its control listener says that it is ready.
    pub fn ready(command: &mut Command, admin: SocketAddr) -> Self {
        let mut running = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
        eventually("the edge is ready", || {
            assert!(running.0.try_wait().expect("a child").is_none(), "it ended");
            ask(admin, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        });
        running
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.0.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            match self.0.try_wait().expect("a child") {
                Some(status) => return status,
                None => assert!(begun.elapsed() < STUCK, "it does not end"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("a bound socket")
}

pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < STUCK, "never happened: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// One request over a connection of its own; what comes until its end.
pub fn ask(to: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(STUCK)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
