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
    /// What it is started with beyond its address.
    arguments: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// A `durable` one forgets nothing that it has answered when it is killed, the other everything.
    pub async fn start(durable: bool) -> Self {
        let appends = if durable { "yes" } else { "no" };
        Self::start_with(&["--appendonly", appends, "--appendfsync", "always", "--save", ""]).await
    }

    /// With these arguments in place of how it keeps things. The first may be a file of settings, which is made anew with its text:
    /// `NAME=TEXT`; a sentinel has nothing else.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { port: free_port(), directory, arguments, child: None };
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
        let mut arguments = self.arguments.as_slice();
        if let [first, rest @ ..] = arguments
            && let Some((name, text)) = first.split_once('=')
        {
            let settings = self.directory.path().join(name);
            std::fs::write(&settings, text).expect("a file can be written");
            command.arg(settings);
            arguments = rest;
        }
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]).args(arguments);
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

    /// One command, as a person would type it, over a connection of its own.
    pub fn command(&self, command: &str) {
        self.ask::<redis::Value>(command).unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    /// What it answers to one command.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        use redis::ConnectionLike as _;
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(STUCK)?;
        connection.set_read_timeout(Some(STUCK))?;
        let answer = connection.req_packed_command(format!("{command}\r\n").as_bytes())?.extract_error()?;
        Ok(redis::from_redis_value(answer)?)
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
