//! `explain`: what an edge with this configuration does with a request, and why.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use http::Method;

use super::Format;
use crate::{
    config::{self, Environment, Loaded, Options, Problems},
    explain::{Answer, AnswerError, Ask, AskError, Explanation, Scene, offline},
    proxy::route::Router,
    telemetry::Metrics,
};

/// Bytes of the largest response that `--response` names, be it a file or a pipe: it is in memory.
const RESPONSE_BYTES_MAX: u64 = 64 << 20;

/// Why the edge does with a request what it does, and what would change it. Nothing is asked or started
#[derive(Debug, Clone, clap::Args)]
pub struct ExplainArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", env = "EDUHAM_EDGE_CONFIG")]
    pub config: PathBuf,
    /// The URL that is asked for
    #[arg(value_name = "URL")]
    pub url: String,
    /// The method
    #[arg(short = 'X', long = "method", value_name = "METHOD", default_value = "GET", env = "EDUHAM_EDGE_METHOD")]
    pub method: Method,
    /// A field of the request (repeatable)
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// A file with what the origin would send: an HTTP/1.1 response, head and body
    #[arg(long, value_name = "FILE", env = "EDUHAM_EDGE_RESPONSE")]
    pub response: Option<PathBuf>,
    /// How long after the first the same request comes again
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = config::duration, env = "EDUHAM_EDGE_AFTER")]
    pub after: Duration,
    /// How the explanation is printed
    #[arg(long, value_enum, default_value_t, env = "EDUHAM_EDGE_FORMAT")]
    pub format: Format,
}

#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("{0}\nthe configuration must be right before it can be explained")]
    Config(#[from] Problems),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot read {}: {error}", .path.display())]
    Response { path: PathBuf, error: io::Error },
    #[error(
        "{} has more than {}: give its head, with the Content-Length that it has, and the beginning of its body",
        .path.display(), config::print_size(RESPONSE_BYTES_MAX)
    )]
    TooLarge { path: PathBuf },
    #[error("{}: {error}", .path.display())]
    Answer { path: PathBuf, error: AnswerError },
    #[error("cannot write the explanation: {0}")]
    Output(#[from] io::Error),
}

/// Explains, and writes the explanation to `out`.
///
/// # Errors
/// When the configuration, the request or the response is none, or `out` cannot be written to.
pub fn explain(
    args: &ExplainArgs,
    environment: &dyn Environment,
    now: SystemTime,
    out: &mut dyn io::Write,
) -> Result<(), ExplainError> {
    let loaded = config::load_with(&args.config, environment, Options { no_files: false })?;
    let answer = args.response.as_deref().map(read).transpose()?;
    let ask = Ask { url: args.url.clone(), method: args.method.clone(), headers: args.headers.clone() };
    let explanation = explain_loaded(&loaded, &ask, answer.as_ref(), now, args.after)?;
    match args.format {
        Format::Text => write!(out, "{explanation}")?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &explanation).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

fn explain_loaded(
    loaded: &Loaded,
    ask: &Ask,
    answer: Option<&Answer>,
    now: SystemTime,
    after: Duration,
) -> Result<Explanation, AskError> {
    let metrics = Metrics::new();
    let config = &loaded.config;
    let router = Router::new(&config.routing, |label| metrics.route(label));
    let scene =
        Scene { config, router: &router, hash: &loaded.hash, object_max: config.store.object_max(), seed: None };
    offline(scene, ask, answer, now, after)
}

fn read(path: &Path) -> Result<Answer, ExplainError> {
    let response = |error| ExplainError::Response { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    // What the file system says of its length is 0 for a pipe.
    fs::File::open(path).map_err(response)?.take(RESPONSE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(response)?;
    if bytes.len() as u64 > RESPONSE_BYTES_MAX {
        return Err(ExplainError::TooLarge { path: path.to_owned() });
    }
    Answer::parse(&bytes).map_err(|error| ExplainError::Answer { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::read;

    #[test]
    fn a_response_without_an_end_is_refused_with_what_to_do() {
        let error = read(Path::new("/dev/zero")).expect_err("it has no end");
        assert_eq!(
            error.to_string(),
            "/dev/zero has more than 64MiB: give its head, with the Content-Length that it has, and the beginning of its body"
        );
    }
}
