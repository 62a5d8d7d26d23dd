//! Where documents outlive rooms: updates appended to a table, folded into snapshots, on SQLite or PostgreSQL.
//!
//! Any number of nodes may write one document. Updates commute and may be repeated, so no lock says who owns it; a
//! sequence number per document, dense and in the order of commits, lets a node see what others have added.
//!
//! Reads take the rows first and the snapshot second. A compaction between the two then shows its changes twice, never
//! not at all.

use bytes::Bytes;
use eduham_platform::db::{Db, DbError, MigrationSql, MigrationStep, Migrations};
use futures::{FutureExt, future::BoxFuture};
use sqlx::Row;

use crate::document::{self, BadUpdate};

/// The schema of this service; its own table of migrations, because the learning backend may share the database.
pub const MIGRATIONS: Migrations = Migrations {
    table: "_migrations_collab",
    steps: &[MigrationStep {
        version: 1,
        name: "documents",
        sql: MigrationSql::Forked {
            sqlite: include_str!("../migrations/sqlite/0001_documents.sql"),
            postgres: include_str!("../migrations/postgres/0001_documents.sql"),
        },
    }],
};

/// Tries to take the next sequence number while other nodes take theirs.
const APPEND_TRIES_MAX: usize = 16;

/// How far a node has read a document's updates; 0 is the beginning.
pub type Seq = i64;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Other nodes took every number that was tried.
    #[error("no sequence number after {APPEND_TRIES_MAX} tries")]
    Contended,
    /// Stored bytes that cannot be read.
    #[error("a stored update cannot be read: {0}")]
    Unreadable(#[from] BadUpdate),
    /// The work was lost to a panic or a shutdown.
    #[error("interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// What was stored after some point.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The updates, a snapshot first if there is a newer one.
    pub updates: Vec<Bytes>,
    /// How far this reaches.
    pub seq: Seq,
}

/// A store of documents. Tests have one that fails on demand.
pub trait Store: Send + Sync + 'static {
    /// Everything that was stored after `after`.
    fn load<'a>(&'a self, document: &'a str, after: Seq) -> BoxFuture<'a, Result<Stored, StoreError>>;

    /// Adds an update and returns its number. More than `after + 1` says that others have written since `after`.
    fn append<'a>(&'a self, document: &'a str, update: Bytes) -> BoxFuture<'a, Result<Seq, StoreError>>;

    /// Folds the rows into the snapshot. False when another node did so at the same time.
    fn compact<'a>(&'a self, document: &'a str) -> BoxFuture<'a, Result<bool, StoreError>>;
}

/// The store in a database.
#[derive(Debug, Clone)]
pub struct SqlStore {
    db: Db,
}

struct Snapshot {
    version: i64,
    seq: Seq,
    bytes: Bytes,
}

impl SqlStore {
    /// A store in a database that was opened with [`MIGRATIONS`].
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    async fn rows(&self, document: &str, after: Seq) -> Result<Vec<(Seq, Bytes)>, sqlx::Error> {
        let rows = sqlx::query("SELECT seq, bytes FROM doc_updates WHERE doc_id = $1 AND seq > $2 ORDER BY seq")
            .bind(document)
            .bind(after)
            .fetch_all(self.db.reader())
            .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<Vec<u8>, _>(1)?.into()))).collect()
    }

    async fn snapshot(&self, document: &str, after: Seq) -> Result<Option<Snapshot>, sqlx::Error> {
        let row = sqlx::query("SELECT version, seq, bytes FROM doc_snapshots WHERE doc_id = $1 AND seq > $2")
            .bind(document)
            .bind(after)
            .fetch_optional(self.db.reader())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let bytes = row.try_get::<Vec<u8>, _>(2)?.into();
        Ok(Some(Snapshot { version: row.try_get(0)?, seq: row.try_get(1)?, bytes }))
    }

    async fn try_append(&self, document: &str, update: &[u8]) -> Result<Seq, sqlx::Error> {
        let mut transaction = self.db.begin().await?;
        let row = sqlx::query(
            "INSERT INTO doc_updates (doc_id, seq, bytes) \
             SELECT CAST($1 AS TEXT), 1 + COALESCE(MAX(seq), 0), $2 FROM ( \
                 SELECT seq FROM doc_updates WHERE doc_id = $1 \
                 UNION ALL SELECT seq FROM doc_snapshots WHERE doc_id = $1 \
             ) AS taken \
             RETURNING seq",
        )
        .bind(document)
        .bind(update)
        .fetch_one(&mut *transaction)
        .await?;
        let seq = row.try_get(0)?;
        transaction.commit().await?;
        Ok(seq)
    }

    async fn replace_snapshot(&self, document: &str, old: i64, seq: Seq, bytes: Vec<u8>) -> Result<bool, sqlx::Error> {
        let mut transaction = self.db.begin().await?;
        let statement = if old == 0 {
            "INSERT INTO doc_snapshots (doc_id, version, seq, bytes) VALUES ($1, 1 + $2, $3, $4) ON CONFLICT DO NOTHING"
        } else {
            "UPDATE doc_snapshots SET version = 1 + $2, seq = $3, bytes = $4 WHERE doc_id = $1 AND version = $2"
        };
        let replaced = sqlx::query(statement)
            .bind(document)
            .bind(old)
            .bind(seq)
            .bind(bytes)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if replaced == 0 {
            return Ok(false); // rolled back: the rows stay for the snapshot that won
        }
        sqlx::query("DELETE FROM doc_updates WHERE doc_id = $1 AND seq <= $2")
            .bind(document)
            .bind(seq)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }
}

impl Store for SqlStore {
    fn load<'a>(&'a self, document: &'a str, after: Seq) -> BoxFuture<'a, Result<Stored, StoreError>> {
        async move {
            let rows = self.rows(document, after).await?;
            let snapshot = self.snapshot(document, after).await?;
            let mut stored = Stored { updates: Vec::new(), seq: after };
            for (seq, bytes) in snapshot.map(|snapshot| (snapshot.seq, snapshot.bytes)).into_iter().chain(rows) {
                stored.seq = stored.seq.max(seq);
                stored.updates.push(bytes);
            }
            Ok(stored)
        }
        .boxed()
    }

    fn append<'a>(&'a self, document: &'a str, update: Bytes) -> BoxFuture<'a, Result<Seq, StoreError>> {
        async move {
            for _ in 0..APPEND_TRIES_MAX {
                match self.try_append(document, &update).await {
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {}
                    other => return Ok(other?),
                }
            }
            Err(StoreError::Contended)
        }
        .boxed()
    }

    fn compact<'a>(&'a self, document: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let rows = self.rows(document, 0).await?;
            let Some(&(last, _)) = rows.last() else { return Ok(false) };
            let snapshot = self.snapshot(document, 0).await?;
            let version = snapshot.as_ref().map_or(0, |snapshot| snapshot.version);
            let seq = snapshot.as_ref().map_or(last, |snapshot| snapshot.seq.max(last));
            let updates: Vec<_> =
                snapshot.into_iter().map(|s| s.bytes).chain(rows.into_iter().map(|(_, bytes)| bytes)).collect();
            let bytes = tokio::task::spawn_blocking(move || document::compact(&updates)).await??;
            Ok(self.replace_snapshot(document, version, seq, bytes).await?)
        }
        .boxed()
    }
}
