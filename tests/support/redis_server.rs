//! A real redis-server of a test's own, on a port that was free, which can be killed and started again.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long it may take to answer.
const STUCK: Duration = Duration::from_secs(20);

/// Ends with its test.
pub struct RedisServer {
    port: u16,
    directory: tempfile::TempDir,
    durable: bool,
    child: Option<Child>,
}

impl RedisServer {
    /// A `durable` one forgets nothing that it has answered when it is killed, the other everything.
    pub async fn start(durable: bool) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self { port, directory, durable, child: None };
        server.restart().await;
        server
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Without a word to anybody.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it has ended");
        }
    }

    /// Starts again on the same port.
    pub async fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.args(["--appendonly", if self.durable { "yes" } else { "no" }, "--appendfsync", "always"]);
        command.arg("--dir").arg(self.directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("redis-server is missing; scripts/setup.sh test brings it");
        self.child = Some(child);
        let begun = Instant::now();
        while !self.answers() {
            assert!(begun.elapsed() < STUCK, "redis-server does not answer");
            tokio::task::yield_now().await;
        }
    }

    /// Has it read its files and answers?
    fn answers(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = [0; 5];
        let asked = stream.set_read_timeout(Some(STUCK)).and_then(|()| stream.write_all(b"PING\r\n"));
        asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && &answer == b"+PONG"
    }

    /// One command, its words without spaces in them, over a connection of its own.
    pub fn command(&self, command: &str) {
        use std::io::{BufRead as _, BufReader, Write as _};
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it answers");
        stream.set_read_timeout(Some(STUCK)).expect("a timeout");
        stream.write_all(format!("{command}\r\n").as_bytes()).expect("it listens");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("it answers");
        assert!(!answer.starts_with('-'), "{command}: {answer}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
