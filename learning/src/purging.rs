//! Telling edges what to forget: an outbox, delivered after the commit that filled it.
//!
//! Publishing writes the surrogate keys in its own transaction ([`enqueue`]), so that a purge exists exactly when the
//! change does. A worker delivers each row to every edge that is configured, until that edge acknowledges it
//! (`POST /purge` with `wait`, answered 200 and not `"complete": false`). A purge may be sent more than once, never not at
//! all: it is the same purge each time. What is delivered is remembered per edge, so a restart goes on where it was.
//!
//! A row is done when every configured edge has it; the serving process, which knows that there is no edge, marks rows
//! done as well. Several processes may deliver at once: a delivery is taken with a lease before it is sent.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime},
};

use eduham_platform::{
    clock::{self, unix_ms},
    db::Db,
    ids::new_id,
    settings::Secret,
};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use sqlx::{Any, Row, Transaction};
use tokio_util::sync::CancellationToken;

use crate::settings::EdgeAdmin;

/// How often the worker looks for new rows, which other processes may write.
const POLL: Duration = Duration::from_millis(500);
/// How long one call may take: the edge's own `timeout` of 10 s for its fleet, and some more.
const CALL_MAX: Duration = Duration::from_secs(15);
/// For how long a delivery that was taken is left alone by others.
const LEASE: Duration = Duration::from_secs(30);
/// The wait after a first failure; it doubles with each further one.
const BACKOFF: Duration = Duration::from_millis(500);
/// The longest wait: an edge that comes back is told within a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Rows delivered in one round.
const ROUND_MAX: i64 = 100;
/// Bytes of an edge's answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long rows that are done are kept, for an operator who asks what happened.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why no purger could be made.
#[derive(Debug, thiserror::Error)]
pub enum PurgerError {
    /// The client's TLS part, which is never used.
    #[error("no client for the edges: {0}")]
    Tls(#[from] rustls::Error),
    /// The client.
    #[error("no client for the edges: {0}")]
    Client(#[from] reqwest::Error),
}

/// Why an edge has not acknowledged.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it answered {status}: {body}")]
    Status { status: u16, body: String },
    #[error("not every node of its fleet has acknowledged: {0}")]
    Incomplete(String),
}

/// Writes what edges must forget, as a part of `transaction`.
///
/// # Errors
/// What the database says.
pub async fn enqueue(
    transaction: &mut Transaction<'_, Any>,
    keys: &[String],
    now: SystemTime,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO purge_outbox (id, keys, state, created_at) VALUES ($1, $2, 'pending', $3)")
        .bind(new_id(now))
        .bind(keys.join(" "))
        .bind(unix_ms(now))
        .execute(&mut **transaction)
        .await
        .map(drop)
}

/// How many rows are not done.
///
/// # Errors
/// What the database says.
pub async fn pending(db: &Db) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM purge_outbox WHERE state = 'pending'").fetch_one(db.reader()).await
}

/// What became of one delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// To whom.
    pub edge: EdgeAdmin,
    /// The keys, separated by spaces.
    pub keys: String,
    /// Why not, if not.
    pub refused: Option<String>,
}

/// How far a row has got with one edge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Known {
    /// The edge has it.
    Done,
    /// To be tried again at this time, in milliseconds since 1970.
    Due(i64),
}

/// Delivers the outbox to the configured edges. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Purger {
    db: Db,
    client: reqwest::Client,
    edges: Vec<EdgeAdmin>,
    token: Option<Secret>,
}

impl Purger {
    /// A purger for these edges.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(db: Db, edges: Vec<EdgeAdmin>, token: Option<Secret>) -> Result<Self, PurgerError> {
        // Edges are reached by plain HTTP (`EdgeAdmin` takes nothing else): the client trusts no certificate at all.
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(CALL_MAX)
            .connect_timeout(Duration::from_secs(2))
            .redirect(reqwest::redirect::Policy::none())
            // A proxy of the environment is for the world, not for the machine beside us.
            .no_proxy()
            .build()?;
        Ok(Self { db, client, edges, token })
    }

    /// Whether there is any edge to tell.
    #[must_use]
    pub fn has_edges(&self) -> bool {
        !self.edges.is_empty()
    }

    /// Delivers until `stop`, which ends it between two rounds.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = match self.round(clock::now()).await {
                Ok(_) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "the outbox cannot be read; trying again");
                    BACKOFF_MAX.min(POLL * 10)
                }
            };
        }
    }

    /// Delivers everything that is due, oldest first, and marks done what every edge has.
    ///
    /// # Errors
    /// What the database says.
    pub async fn round(&self, now: SystemTime) -> Result<Vec<Delivery>, sqlx::Error> {
        let rows = self.pending_rows().await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut known = self.known_deliveries().await?;
        // Edges do not wait for one another: one that hangs would delay all.
        let told = futures::future::join_all(self.edges.iter().map(|edge| self.tell(edge, &rows, &known, now))).await;
        let mut deliveries = Vec::new();
        for told in told {
            for (id, delivery) in told? {
                if delivery.refused.is_none() {
                    known.insert((id, delivery.edge.as_str().to_owned()), Known::Done);
                }
                deliveries.push(delivery);
            }
        }
        let mut settled = false;
        for (id, _) in &rows {
            // Edges that are no longer configured do not count.
            let has_it = |edge: &EdgeAdmin| known.get(&(id.clone(), edge.as_str().to_owned())) == Some(&Known::Done);
            if self.edges.iter().all(has_it) {
                let done = "UPDATE purge_outbox SET state = 'done' WHERE id = $1";
                sqlx::query(done).bind(id).execute(self.db.writer()).await?;
                settled = true;
            }
        }
        if settled {
            self.forget_before(now.checked_sub(KEPT).unwrap_or(SystemTime::UNIX_EPOCH)).await?;
        }
        Ok(deliveries)
    }

    /// Ids and keys, the oldest first.
    async fn pending_rows(&self) -> Result<Vec<(String, String)>, sqlx::Error> {
        let sql = "SELECT id, keys FROM purge_outbox WHERE state = 'pending' ORDER BY created_at, id LIMIT $1";
        let rows = sqlx::query(sql).bind(ROUND_MAX).fetch_all(self.db.reader()).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("keys")?))).collect()
    }

    /// How far pending rows have got, by row and edge.
    async fn known_deliveries(&self) -> Result<HashMap<(String, String), Known>, sqlx::Error> {
        let sql = "SELECT d.outbox_id, d.edge, d.state, d.next_at FROM purge_deliveries d \
                   JOIN purge_outbox o ON o.id = d.outbox_id WHERE o.state = 'pending'";
        let rows = sqlx::query(sql).fetch_all(self.db.reader()).await?;
        rows.iter()
            .map(|row| {
                let state: String = row.try_get("state")?;
                let known = if state == "done" { Known::Done } else { Known::Due(row.try_get("next_at")?) };
                Ok(((row.try_get("outbox_id")?, row.try_get("edge")?), known))
            })
            .collect()
    }

    async fn forget_before(&self, before: SystemTime) -> Result<(), sqlx::Error> {
        let deliveries = "DELETE FROM purge_deliveries WHERE outbox_id IN \
                          (SELECT id FROM purge_outbox WHERE state = 'done' AND created_at < $1)";
        for sql in [deliveries, "DELETE FROM purge_outbox WHERE state = 'done' AND created_at < $1"] {
            sqlx::query(sql).bind(unix_ms(before)).execute(self.db.writer()).await?;
        }
        Ok(())
    }

    /// Delivers rows to one edge until it refuses one: what it refuses now it would refuse for the others too.
    async fn tell(
        &self,
        edge: &EdgeAdmin,
        rows: &[(String, String)],
        known: &HashMap<(String, String), Known>,
        now: SystemTime,
    ) -> Result<Vec<(String, Delivery)>, sqlx::Error> {
        let mut deliveries = Vec::new();
        for (id, keys) in rows {
            match known.get(&(id.clone(), edge.as_str().to_owned())) {
                Some(Known::Done) => continue,
                Some(Known::Due(at)) if *at > unix_ms(now) => continue,
                Some(Known::Due(_)) | None => {}
            }
            // Another process may have been faster.
            let Some(attempts) = self.take(id, edge, now).await? else { continue };
            let refusal = self.purge(edge, keys).await.err().map(|refusal| refusal.to_string());
            self.remember(id, edge, attempts, refusal.as_deref(), now).await?;
            match &refusal {
                None => tracing::info!(%edge, keys, attempts, "purged"),
                Some(why) => tracing::warn!(%edge, keys, attempts, why, "not purged; trying again"),
            }
            let refused = refusal.is_some();
            deliveries.push((id.clone(), Delivery { edge: edge.clone(), keys: keys.clone(), refused: refusal }));
            if refused {
                break;
            }
        }
        Ok(deliveries)
    }

    /// Takes a delivery that is due, for the time of a lease; answers which attempt this is.
    async fn take(&self, id: &str, edge: &EdgeAdmin, now: SystemTime) -> Result<Option<i64>, sqlx::Error> {
        let insert = "INSERT INTO purge_deliveries (outbox_id, edge, state, attempts, next_at) \
                      VALUES ($1, $2, 'pending', 0, 0) ON CONFLICT (outbox_id, edge) DO NOTHING";
        sqlx::query(insert).bind(id).bind(edge.as_str()).execute(self.db.writer()).await?;
        let take = "UPDATE purge_deliveries SET attempts = attempts + 1, next_at = $3 \
                    WHERE outbox_id = $1 AND edge = $2 AND state = 'pending' AND next_at <= $4 RETURNING attempts";
        let row = sqlx::query(take)
            .bind(id)
            .bind(edge.as_str())
            .bind(unix_ms(now + LEASE))
            .bind(unix_ms(now))
            .fetch_optional(self.db.writer())
            .await?;
        row.map(|row| row.try_get("attempts")).transpose()
    }

    async fn remember(
        &self,
        id: &str,
        edge: &EdgeAdmin,
        attempts: i64,
        refusal: Option<&str>,
        now: SystemTime,
    ) -> Result<(), sqlx::Error> {
        let state = if refusal.is_none() { "done" } else { "pending" };
        let update = "UPDATE purge_deliveries SET state = $3, next_at = $4, last_error = $5 \
                      WHERE outbox_id = $1 AND edge = $2 AND state = 'pending'";
        sqlx::query(update)
            .bind(id)
            .bind(edge.as_str())
            .bind(state)
            .bind(unix_ms(now + backoff(attempts, RandomState::new().hash_one(id))))
            .bind(refusal)
            .execute(self.db.writer())
            .await
            .map(drop)
    }

    async fn purge(&self, edge: &EdgeAdmin, keys: &str) -> Result<(), Refusal> {
        #[derive(Deserialize)]
        struct Receipt {
            complete: Option<bool>,
        }
        let keys: Vec<_> = keys.split_whitespace().collect();
        let body = serde_json::json!({ "surrogate_keys": keys, "wait": true });
        let mut call = self.client.post(format!("{edge}/purge")).json(&body);
        if let Some(token) = &self.token {
            call = call.bearer_auth(token.reveal());
        }
        let unreachable = |error: reqwest::Error| Refusal::Unreachable(innermost(&error));
        let mut response = call.send().await.map_err(unreachable)?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            let room = ANSWER_BYTES_MAX - answer.len();
            answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        let status = response.status().as_u16();
        let body = String::from_utf8_lossy(&answer).chars().take(200).collect();
        if status != 200 {
            return Err(Refusal::Status { status, body });
        }
        match serde_json::from_slice::<Receipt>(&answer) {
            Ok(Receipt { complete: Some(false) }) => Err(Refusal::Incomplete(body)),
            _ => Ok(()),
        }
    }
}

/// How long to wait after this many attempts: doubling, with a random half so that many processes spread.
fn backoff(attempts: i64, random: u64) -> Duration {
    let doublings = u32::try_from(attempts.clamp(1, 10) - 1).unwrap_or_default();
    let whole = BACKOFF.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    let share = (random % 1024) as u32;
    whole / 2 + whole / 2 * share / 1024
}

/// What reqwest's nested errors are about.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_are_spread() {
        for (attempts, least, most) in [(1, 250, 500), (2, 500, 1_000), (4, 2_000, 4_000), (40, 30_000, 60_000)] {
            for random in [0, 511, 1023, u64::MAX] {
                let wait = backoff(attempts, random).as_millis();
                assert!((least..=most).contains(&wait), "{attempts} attempts: {wait} ms");
            }
        }
    }
}
