//! One connection with its deadline and breaker, for one use.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{Histogram, IntGauge};
use redis::{FromRedisValue, RedisError};
use tokio::sync::Notify;

use super::{Command, Config, connection::Connection};
use crate::telemetry::Metrics;

/// Failures in a row after which Redis is left alone for a while, and after which a connection that only times out is given up:
/// a link that swallows everything shows no other sign.
const FAILURES_MAX: u32 = 3;

/// How long Redis is left alone at first, and at most. Every further failure doubles it.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Of connecting, names and TLS included; callers wait for it no longer than for a command.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It failed a moment ago, and this is why; nothing was sent.
    #[error("Redis is left alone for a moment after failures, the last one: {0}")]
    LeftAlone(Arc<str>),
    /// Whether the command was carried out is unknown.
    #[error("no answer from Redis within {0:?}")]
    Timeout(Duration),
    /// Whether the command was carried out is unknown.
    #[error("the connection to Redis broke: {0}")]
    Broken(Arc<RedisError>),
    /// Redis refused.
    #[error("Redis says: {0}")]
    Refused(Arc<RedisError>),
    /// It answered something that was not asked for.
    #[error("Redis gives an answer that makes no sense; does something else use the same keys?")]
    Nonsense,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Short commands that many callers send at once.
    Commands,
    /// Reads that wait for something to happen. How long they take says nothing.
    Blocking,
}

/// A Redis for one use. Clones share the connection.
#[derive(Clone)]
pub struct Redis(Arc<Owner>);

struct Owner {
    config: Config,
    name: String,
    purpose: Purpose,
    state: Mutex<State>,
    /// A connection came, or will not.
    changed: Notify,
    up: IntGauge,
    duration: Histogram,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Counts connections, so that a failure of an old one does not end a new one.
    generation: u64,
    connecting: bool,
    failures: u32,
    left_alone_until: Option<Instant>,
    /// The last failure.
    why: Arc<str>,
    /// Was it said that Redis cannot be used? Once is enough, until it can.
    told: bool,
}

impl Redis {
    /// Connects when it is first asked something. `name` is the label `use` of the metrics.
    pub fn new(config: &Config, name: &str, purpose: Purpose, metrics: &Metrics) -> Self {
        let up = metrics.redis_up.with_label_values(&[name]);
        let duration = metrics.redis_duration.with_label_values(&[name]);
        let (state, changed) = (Mutex::default(), Notify::new());
        Self(Arc::new(Owner { config: config.clone(), name: name.to_owned(), purpose, state, changed, up, duration }))
    }

    /// Asks within the configured time.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn query<T: FromRedisValue>(&self, command: &Command) -> Result<T, Error> {
        self.query_within(command, self.0.config.timeout).await
    }

    /// Asks within `timeout`, connecting included.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn query_within<T: FromRedisValue>(&self, command: &Command, timeout: Duration) -> Result<T, Error> {
        let started = Instant::now();
        let owner = &self.0;
        let asked = async {
            let (mut connection, generation) = self.connection().await?;
            match connection.query(&command.0).await {
                Ok(value) => Ok(value),
                Err(error) => Err(owner.failed(generation, error)),
            }
        };
        let answer = match tokio::time::timeout(timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                let error = Error::Timeout(timeout);
                owner.leave_alone(&mut owner.lock(), &error);
                Err(error)
            }
        };
        if owner.purpose == Purpose::Commands && !matches!(answer, Err(Error::LeftAlone(_))) {
            owner.duration.observe(started.elapsed().as_secs_f64());
        }
        if answer.is_ok() {
            owner.worked();
        }
        answer
    }

    /// The connection, waiting for one that is being made.
    async fn connection(&self) -> Result<(Connection, u64), Error> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.0.lock();
                if state.left_alone_until.is_some_and(|until| Instant::now() < until) {
                    return Err(Error::LeftAlone(Arc::clone(&state.why)));
                }
                if let Some(connection) = &state.connection {
                    return Ok((connection.clone(), state.generation));
                }
                if !state.connecting {
                    state.connecting = true;
                    tokio::spawn(Arc::clone(&self.0).connect());
                }
            }
            changed.await;
        }
    }
}

/// Ends `connecting` also when the task ends otherwise.
struct Connecting(Arc<Owner>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.lock().connecting = false;
        self.0.changed.notify_waiters();
    }
}

impl Owner {
    async fn connect(self: Arc<Self>) {
        let connecting = Connecting(Arc::clone(&self));
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, Connection::open(&self.config.url, CONNECT_TIMEOUT)).await;
        let mut state = self.lock();
        let opened = match opened {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no connection within {CONNECT_TIMEOUT:?}")),
        };
        match opened {
            Ok(connection) => {
                state.connection = Some(connection);
                state.generation += 1;
            }
            Err(why) => {
                // Nobody is there: there is no use in trying twice more at once.
                state.failures = state.failures.max(FAILURES_MAX - 1);
                self.leave_alone(&mut state, &why);
            }
        }
        drop(state);
        drop(connecting);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worked(&self) {
        let mut state = self.lock();
        state.failures = 0;
        state.left_alone_until = None;
        if std::mem::take(&mut state.told) {
            tracing::info!(r#use = self.name, at = %self.config.url.deployment, "Redis can be used again");
        }
        self.up.set(1);
    }

    /// One more failure; from [`FAILURES_MAX`] on nobody asks for a while.
    fn leave_alone(&self, state: &mut State, why: &impl ToString) {
        state.failures += 1;
        state.why = why.to_string().into();
        self.up.set(0);
        if state.failures >= FAILURES_MAX {
            let doublings = (state.failures - FAILURES_MAX).min(8);
            let pause = (PAUSE_FIRST * 2_u32.pow(doublings)).min(PAUSE_LONGEST);
            state.left_alone_until = Some(Instant::now() + pause);
            // A connection on which nothing comes back any more is no better than none.
            state.connection = None;
            if !std::mem::replace(&mut state.told, true) {
                let (at, why) = (&self.config.url.deployment, &*state.why);
                tracing::warn!(r#use = self.name, %at, why, "Redis cannot be used");
            }
        }
    }

    fn failed(&self, generation: u64, error: RedisError) -> Error {
        let broken = error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error();
        // A server that was a master, or that is not yet one again: the next connection may find a better one.
        let elsewhere = error.is_cluster_error()
            || error.code().is_some_and(|code| matches!(code, "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN"));
        if broken || elsewhere {
            let mut state = self.lock();
            if state.generation == generation {
                state.connection = None;
            }
            self.leave_alone(&mut state, &error);
        }
        let error = Arc::new(error);
        if broken { Error::Broken(error) } else { Error::Refused(error) }
    }
}
