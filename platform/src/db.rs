//! The database: SQLite in a file or PostgreSQL by URL, behind one `sqlx::Any` pool pair and one SQL text.
//!
//! Rules for statements that run on both: `$1` placeholders; columns are `TEXT`, `BIGINT`, `DOUBLE PRECISION` or bytes
//! (`BLOB`, `BYTEA`); flags are `BIGINT` 0 or 1; `SUM` and `COUNT` of big columns are cast to `BIGINT`; ids are text and
//! times milliseconds. The few places where the two differ are methods of [`Dialect`].
//!
//! SQLite has one writer connection, whose transactions begin with `BEGIN IMMEDIATE` (a read that turns into a write
//! would fail at once instead of waiting), and some readers that cannot write. Several processes may share the file:
//! each keeps its migrations in a table of its own ([`Migrations::table`]) and a lock file orders their start.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    Any, AnyPool, Executor, SqlSafeStr, Transaction,
    any::AnyPoolOptions,
    migrate::{Migration, MigrationType, Migrator},
};

/// Readers of a SQLite file; each is a thread.
const SQLITE_READERS_MAX: u32 = 4;
/// Connections to PostgreSQL of one process; the server's default ceiling of 100 leaves room for ten of them.
const POSTGRES_CONNECTIONS_MAX: u32 = 10;
/// How long a caller waits for a free connection, and SQLite for another process' write.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The directory or lock file beside a SQLite file.
    #[error("cannot prepare the place of the database {}: {source}; make its directory writable for this user", .path.display())]
    Place { path: PathBuf, source: std::io::Error },
    /// No connection.
    #[error("cannot open the database {url}: {source}")]
    Open { url: String, source: sqlx::Error },
    /// A migration failed; nothing of it was kept.
    #[error("cannot migrate the database ({table}): {source}")]
    Migrate { table: &'static str, source: sqlx::migrate::MigrateError },
    /// A statement failed.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// Which database a process uses.
#[derive(Clone, Eq, PartialEq)]
pub enum DatabaseUrl {
    /// A file, made when it is missing.
    Sqlite(PathBuf),
    /// A PostgreSQL URL; may hold a password.
    Postgres(String),
}

/// Why a [`DatabaseUrl`] could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NotADatabaseUrl {
    /// Neither SQLite nor PostgreSQL.
    #[error("no such kind of database")]
    Kind,
    /// A database in memory would be another one for each connection.
    #[error("a file is needed")]
    NoFile,
    /// What a SQLite URL may not carry.
    #[error("a SQLite URL takes no parameters")]
    Parameters,
}

impl DatabaseUrl {
    /// What a setting that holds one should look like.
    pub const EXPECTS: &str = "sqlite://path/of/file.db or postgres://user:password@host/database";

    /// The file's URL, in the form that [`FromStr`] reads.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self::Sqlite(path.into())
    }
}

impl FromStr for DatabaseUrl {
    type Err = NotADatabaseUrl;

    fn from_str(text: &str) -> Result<Self, NotADatabaseUrl> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = text.strip_prefix("sqlite:").ok_or(NotADatabaseUrl::Kind)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        match path {
            "" | ":memory:" => Err(NotADatabaseUrl::NoFile),
            path if path.contains('?') => Err(NotADatabaseUrl::Parameters),
            path => Ok(Self::Sqlite(path.into())),
        }
    }
}

/// Without the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", ""));
                let (target, _parameters) = rest.split_once('?').unwrap_or((rest, ""));
                write!(f, "{scheme}://{}", target.rsplit_once('@').map_or(target, |(_user, target)| target))
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the two databases differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// SQLite 3 in WAL mode.
    Sqlite,
    /// PostgreSQL 13 or newer.
    Postgres,
}

impl Dialect {
    /// The statement that begins a transaction that will write.
    #[must_use]
    pub const fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// One of two statements.
    #[must_use]
    pub const fn pick(self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self {
            Self::Sqlite => sqlite,
            Self::Postgres => postgres,
        }
    }
}

/// The SQL of one migration.
#[derive(Clone, Copy, Debug)]
pub enum MigrationSql {
    /// The same text for both databases.
    Same(&'static str),
    /// One text each, such as for `BLOB` and `BYTEA`.
    Forked { sqlite: &'static str, postgres: &'static str },
}

/// One step of the schema. Never changed after a release: a later step corrects it.
#[derive(Clone, Copy, Debug)]
pub struct MigrationStep {
    /// Ascending.
    pub version: i64,
    /// For people.
    pub name: &'static str,
    /// Embedded by `include_str!`.
    pub sql: MigrationSql,
}

/// The schema of one service.
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    /// The table that remembers what has run; its own for each service, since they may share a database.
    pub table: &'static str,
    /// In the order of their versions.
    pub steps: &'static [MigrationStep],
}

impl Migrations {
    fn migrator(&self, dialect: Dialect) -> Migrator {
        let steps = self.steps.iter().map(|step| {
            let sql = match step.sql {
                MigrationSql::Same(sql) => sql,
                MigrationSql::Forked { sqlite, postgres } => dialect.pick(sqlite, postgres),
            };
            Migration::new(step.version, step.name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        let mut migrator = Migrator::with_migrations(steps.collect());
        migrator.dangerous_set_table_name(self.table);
        migrator
    }
}

/// An open database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    dialect: Dialect,
    writer: AnyPool,
    reader: AnyPool,
}

impl Db {
    /// Opens the database and brings its schema up to date.
    ///
    /// Any number of processes may do so at once: on SQLite a lock file beside the database orders them, on PostgreSQL
    /// an advisory lock.
    ///
    /// # Errors
    /// The place cannot be written, the server does not answer, or a migration fails.
    pub async fn open(url: &DatabaseUrl, migrations: &Migrations) -> Result<Self, DbError> {
        sqlx::any::install_default_drivers();
        let migrator_error = |source| DbError::Migrate { table: migrations.table, source };
        match url {
            DatabaseUrl::Sqlite(path) => {
                let turn = take_turn(path.clone()).await?;
                let db = Self::open_sqlite(url, path).await?;
                migrations.migrator(db.dialect).run(&db.writer).await.map_err(migrator_error)?;
                drop(turn);
                Ok(db)
            }
            DatabaseUrl::Postgres(text) => {
                let options = AnyPoolOptions::new().max_connections(POSTGRES_CONNECTIONS_MAX).acquire_timeout(WAIT_MAX);
                let pool =
                    options.connect(text).await.map_err(|source| DbError::Open { url: url.to_string(), source })?;
                let db = Self { dialect: Dialect::Postgres, writer: pool.clone(), reader: pool };
                migrations.migrator(db.dialect).run(&db.writer).await.map_err(migrator_error)?;
                Ok(db)
            }
        }
    }

    async fn open_sqlite(url: &DatabaseUrl, path: &Path) -> Result<Self, DbError> {
        // A literal `%`, `?` or `#` in the path would be read as a part of the URL.
        let encoded = path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        let connect = format!("sqlite://{encoded}?mode=rwc");
        let open_error = |source| DbError::Open { url: url.to_string(), source };

        let writer = AnyPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(WAIT_MAX)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute("PRAGMA busy_timeout = 5000").await?;
                    connection.execute("PRAGMA journal_mode = WAL").await?;
                    connection.execute("PRAGMA synchronous = NORMAL").await?;
                    connection.execute("PRAGMA foreign_keys = ON").await?;
                    Ok(())
                })
            })
            .connect(&connect)
            .await
            .map_err(open_error)?;
        let reader = AnyPoolOptions::new()
            .max_connections(SQLITE_READERS_MAX)
            .acquire_timeout(WAIT_MAX)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute("PRAGMA busy_timeout = 5000").await?;
                    connection.execute("PRAGMA query_only = ON").await?;
                    Ok(())
                })
            })
            .connect(&connect)
            .await
            .map_err(open_error)?;
        Ok(Self { dialect: Dialect::Sqlite, writer, reader })
    }

    /// Which of the two this is.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// For statements that only read.
    #[must_use]
    pub const fn reader(&self) -> &AnyPool {
        &self.reader
    }

    /// For single statements that write.
    #[must_use]
    pub const fn writer(&self) -> &AnyPool {
        &self.writer
    }

    /// A transaction that may write from its first statement; dropped without `commit`, it is rolled back.
    ///
    /// # Errors
    /// No connection within five seconds.
    pub async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.writer.begin_with(self.dialect.begin()).await
    }

    /// Whether a statement can run now.
    ///
    /// # Errors
    /// What the database says.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        self.reader.execute("SELECT 1").await.map(drop)
    }

    /// Closes all connections; SQLite then folds its write-ahead log into the file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// The right to open and migrate a SQLite file, until dropped.
///
/// Switching to WAL and running migrations are the two things that SQLite does not order by itself between processes.
async fn take_turn(path: PathBuf) -> Result<File, DbError> {
    let place_error = |path: PathBuf, source| DbError::Place { path, source };
    let taken = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
                fs::create_dir_all(directory)?;
            }
            let mut lock_path = path.into_os_string();
            lock_path.push(".lock");
            let file = File::options().create(true).append(true).open(lock_path)?;
            file.lock()?;
            Ok(file)
        }
    });
    match taken.await {
        Ok(result) => result.map_err(|source| place_error(path, source)),
        Err(join) => Err(place_error(path, std::io::Error::other(join))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIGRATIONS: Migrations = Migrations {
        table: "_migrations_test",
        steps: &[MigrationStep {
            version: 1,
            name: "things",
            sql: MigrationSql::Forked {
                sqlite: "CREATE TABLE things (id TEXT PRIMARY KEY, data BLOB NOT NULL)",
                postgres: "CREATE TABLE things (id TEXT PRIMARY KEY, data BYTEA NOT NULL)",
            },
        }],
    };
    const OTHERS: Migrations = Migrations {
        table: "_migrations_other",
        steps: &[MigrationStep {
            version: 1,
            name: "others",
            sql: MigrationSql::Same("CREATE TABLE others (id TEXT PRIMARY KEY)"),
        }],
    };

    #[test]
    fn urls_are_read_and_shown_without_the_password() {
        for (text, shown) in [
            ("sqlite://var/eduham.db", "sqlite://var/eduham.db"),
            ("sqlite:///srv/eduham.db", "sqlite:///srv/eduham.db"),
            ("sqlite:a.db", "sqlite://a.db"),
            ("postgres://u:secret@db.test/eduham?password=secret", "postgres://db.test/eduham"),
        ] {
            let url: DatabaseUrl = text.parse().expect(text);
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for text in ["", "mysql://a/b", "sqlite::memory:", "sqlite://", "sqlite://a.db?mode=ro"] {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn processes_that_start_together_migrate_one_after_the_other() {
        let place = tempfile::tempdir().expect("a directory");
        let url = DatabaseUrl::sqlite(place.path().join("new/100%.db"));
        let open = |migrations: &'static Migrations| {
            let url = url.clone();
            tokio::spawn(async move { Db::open(&url, migrations).await })
        };
        let opened = [open(&MIGRATIONS), open(&OTHERS), open(&MIGRATIONS), open(&OTHERS)];
        for task in opened {
            let db = task.await.expect("no panic").expect("opens");
            db.ping().await.expect("answers");
        }
        assert!(place.path().join("new/100%.db").is_file());
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_leaves_nothing_and_readers_cannot_write() {
        let place = tempfile::tempdir().expect("a directory");
        let db = Db::open(&DatabaseUrl::sqlite(place.path().join("a.db")), &MIGRATIONS).await.expect("opens");
        let insert = "INSERT INTO things (id, data) VALUES ($1, $2)";
        let count = "SELECT COUNT(*) FROM things";

        let mut transaction = db.begin().await.expect("begins");
        sqlx::query(insert).bind("a").bind(vec![0_u8, 255]).execute(&mut *transaction).await.expect("inserts");
        drop(transaction);
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(db.reader()).await.expect("counts"), 0);

        let refused = sqlx::query(insert).bind("a").bind(vec![1_u8]).execute(db.reader()).await;
        assert!(refused.is_err());

        let mut transaction = db.begin().await.expect("begins");
        sqlx::query(insert).bind("a").bind(vec![0_u8, 255]).execute(&mut *transaction).await.expect("inserts");
        transaction.commit().await.expect("commits");
        let data: Vec<u8> = sqlx::query_scalar("SELECT data FROM things").fetch_one(db.reader()).await.expect("reads");
        assert_eq!(data, [0, 255]);
        db.close().await;
    }
}
