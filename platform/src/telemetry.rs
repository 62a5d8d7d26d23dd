//! Logs of a backend: `tracing` to stderr, as text or as JSON lines.

use std::{io::IsTerminal, str::FromStr};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::Environment;

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why a [`Format`] could not be read.
#[derive(Debug, thiserror::Error)]
#[error("no such log format")]
pub struct NoSuchFormat;

impl FromStr for Format {
    type Err = NoSuchFormat;

    fn from_str(text: &str) -> Result<Self, NoSuchFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(NoSuchFormat),
        }
    }
}

/// What is logged and how: `EDUHAM_LOG` and `EDUHAM_LOG_FORMAT`.
#[derive(Debug)]
pub struct Telemetry {
    filter: EnvFilter,
    format: Format,
}

impl Telemetry {
    /// Reads both variables; the default is `info` as text.
    pub fn from_env(env: &mut Environment) -> Self {
        // sqlx logs each slow statement and every notice of PostgreSQL at info: the services say what matters themselves.
        let default = EnvFilter::new("info,sqlx=warn");
        let filter = env.value("EDUHAM_LOG", default, "a filter such as info or eduham_learning=debug,info");
        let format = env.value("EDUHAM_LOG_FORMAT", Format::Text, "text or json");
        Self { filter, format }
    }

    /// Starts logging; a second call in the same process changes nothing.
    pub fn start(self) {
        let registry = tracing_subscriber::registry().with(self.filter);
        let started = match self.format {
            Format::Text => registry
                .with(fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr))
                .try_init(),
            Format::Json => {
                registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
            }
        };
        // The only error is that a subscriber exists already, which then stays.
        drop(started);
    }
}
