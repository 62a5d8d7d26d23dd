//! For tests: a private PostgreSQL cluster on a unix socket, gone with the value.

use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};
use tempfile::TempDir;

use crate::db::DatabaseUrl;

/// How long a cluster may take to accept connections; it takes well below a second on an idle machine.
const START_MAX: Duration = Duration::from_secs(60);

/// A PostgreSQL server of this test's own. Dropping it stops the server and removes its files.
#[derive(Debug)]
pub struct PostgresCluster {
    place: TempDir,
    owner: Option<(u32, u32)>,
    programs: PathBuf,
    server: Child,
    databases: AtomicU32,
}

impl PostgresCluster {
    /// Makes and starts a cluster.
    ///
    /// # Panics
    /// With what to do, when PostgreSQL is not installed or does not start: a missing part fails a test.
    pub async fn start() -> Self {
        let programs = newest_programs(Path::new("/usr/lib/postgresql"))
            .expect("PostgreSQL's initdb is needed in /usr/lib/postgresql/*/bin: apt-get install postgresql");
        // The server refuses to run as root: it then runs as the user that the package made.
        let owner = running_as_root().then(|| {
            ids_of_user("postgres")
                .expect("the tests run as root, so the user `postgres` is needed: apt-get install postgresql")
        });
        let place = tempfile::Builder::new().prefix("eh-pg-").tempdir().expect("a temporary directory");
        if let Some((user, group)) = owner {
            chown(place.path(), Some(user), Some(group)).expect("the directory becomes the server's");
        }
        let data = place.path().join("data");
        let mut initdb = command(&programs.join("initdb"), owner, place.path());
        initdb
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data);
        let made = initdb.output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let log = fs::File::create(place.path().join("log")).expect("a log file");
        let mut server = command(&programs.join("postgres"), owner, place.path());
        server.arg("-D").arg(&data).arg("-k").arg(place.path()).stdout(Stdio::null()).stderr(log);
        let set =
            ["listen_addresses=", "fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB"];
        server.args(set.iter().flat_map(|setting| ["-c", setting]));
        let server = server.spawn().expect("postgres runs");
        let cluster = Self { place, owner, programs, server, databases: AtomicU32::new(0) };
        cluster.wait_until_it_answers().await;
        cluster
    }

    /// A new, empty database.
    ///
    /// # Panics
    /// The server does not make it.
    pub async fn database(&self) -> DatabaseUrl {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = AnyConnection::connect(&self.url("postgres")).await.expect("the cluster answers");
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("a database is made");
        connection.close().await.expect("the connection closes");
        self.url(&name).parse().expect("our own URL")
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.place.path().display())
    }

    async fn wait_until_it_answers(&self) {
        sqlx::any::install_default_drivers();
        let url = self.url("postgres");
        let give_up = Instant::now() + START_MAX;
        loop {
            match AnyConnection::connect(&url).await {
                Ok(connection) => return connection.close().await.expect("the connection closes"),
                Err(error) if Instant::now() > give_up => {
                    let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
                    panic!("PostgreSQL does not start: {error}\n{log}");
                }
                // A server that starts has no event to wait for: its socket is asked until it answers.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for PostgresCluster {
    fn drop(&mut self) {
        let mut stop = command(&self.programs.join("pg_ctl"), self.owner, self.place.path());
        stop.args(["stop", "--mode=immediate", "--silent", "-D"]).arg(self.place.path().join("data"));
        if !stop.stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
            drop(self.server.kill());
        }
        drop(self.server.wait());
    }
}

fn command(program: &Path, owner: Option<(u32, u32)>, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).stdin(Stdio::null());
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

fn newest_programs(root: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(root).ok()?.flatten();
    let installed = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs.join("initdb").is_file().then_some((version, programs))
    });
    installed.max().map(|(_version, programs)| programs)
}

fn running_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // A process' own directory in /proc belongs to the user that it runs as.
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn ids_of_user(name: &str) -> io::Result<(u32, u32)> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no user {name} in /etc/passwd"));
    let users = fs::read_to_string("/etc/passwd")?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let fields = fields.ok_or_else(missing)?;
    let number = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).ok_or_else(missing);
    Ok((number(2)?, number(3)?))
}
