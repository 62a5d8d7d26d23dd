//! `purge`: asks one node to purge, for itself or for its fleet.

use std::{io::Write, path::PathBuf};

use http::{Method, StatusCode};

use super::{
    Format, TOKEN_ENV,
    control::{self, Admin, ClientError},
};

/// Purge stored responses
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target").required(true).multiple(true))]
pub(super) struct Args {
    /// The node's control listener: http://HOST:PORT or unix:/PATH
    #[arg(long, env = "EDUHAM_EDGE_ADMIN", default_value = super::ADMIN_DEFAULT, value_name = "URL")]
    admin: Admin,
    /// A file with the token; without it EDUHAM_EDGE_TOKEN is used
    #[arg(long, env = "EDUHAM_EDGE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// An absolute URL: all its variants and methods, both schemes (repeatable; in the environment separated by spaces)
    #[arg(long, env = "EDUHAM_EDGE_URL", group = "target", value_name = "URL", value_delimiter = ' ')]
    url: Vec<String>,
    /// Everything that carries this surrogate key (repeatable; in the environment separated by spaces)
    #[arg(long, env = "EDUHAM_EDGE_SURROGATE_KEY", group = "target", value_name = "KEY", value_delimiter = ' ')]
    surrogate_key: Vec<String>,
    /// All URLs that begin so, as https://a.test/courses/ (repeatable; in the environment separated by spaces)
    #[arg(long, env = "EDUHAM_EDGE_PREFIX", group = "target", value_name = "URL", value_delimiter = ' ')]
    prefix: Vec<String>,
    /// Everything of this host, on all its ports (repeatable; in the environment separated by spaces)
    #[arg(long, env = "EDUHAM_EDGE_HOST", group = "target", value_name = "HOST", value_delimiter = ' ')]
    host: Vec<String>,
    /// Everything
    #[arg(long, env = "EDUHAM_EDGE_ALL", group = "target")]
    all: bool,
    /// Expire in place of forget: still served where stale is allowed
    #[arg(long, env = "EDUHAM_EDGE_SOFT")]
    soft: bool,
    /// The URLs are meant whatever their query
    #[arg(long, env = "EDUHAM_EDGE_IGNORE_QUERY", requires = "url")]
    ignore_query: bool,
    /// Count what would be touched on this node, and do nothing
    #[arg(long, env = "EDUHAM_EDGE_DRY_RUN")]
    dry_run: bool,
    /// Return only when every live node has applied it
    #[arg(long, env = "EDUHAM_EDGE_WAIT")]
    wait: bool,
    /// How long to wait for them, as 10s
    #[arg(long, env = "EDUHAM_EDGE_TIMEOUT", requires = "wait", value_name = "DURATION")]
    timeout: Option<String>,
    /// How the receipt is printed
    #[arg(long, env = "EDUHAM_EDGE_FORMAT", value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PurgeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read the token from {path}: {source}")]
    Token { path: PathBuf, source: std::io::Error },
    #[error("the purge was not accepted: {0}")]
    Refused(String),
    #[error(
        "the fleet is unreachable: purge {0} acts on this node now and is published when the log can be reached again"
    )]
    Unreachable(String),
    #[error("the purge is not complete: {acknowledged} of {live} nodes have applied it, lost: {lost}")]
    Incomplete { acknowledged: u64, live: u64, lost: String },
    #[error("cannot write the receipt: {0}")]
    Output(#[from] std::io::Error),
}

/// Purges and prints the receipt.
///
/// # Errors
/// When the node cannot be asked or refuses, and with `--wait` when not every node has applied it.
pub(super) fn run(args: &Args) -> Result<(), PurgeError> {
    let token = match &args.token_file {
        Some(path) => {
            Some(std::fs::read_to_string(path).map_err(|source| PurgeError::Token { path: path.clone(), source })?)
        }
        None => std::env::var(TOKEN_ENV).ok(),
    };
    let body = serde_json::json!({
        "urls": args.url, "surrogate_keys": args.surrogate_key, "prefixes": args.prefix, "hosts": args.host, "all": args.all,
        "soft": args.soft, "dry_run": args.dry_run, "wait": args.wait, "timeout": args.timeout,
        "ignore_query": args.ignore_query,
    });
    let token = token.as_deref().map(str::trim);
    let answer = control::ask(&args.admin, Method::POST, "/purge", token, Some(body.to_string().into_bytes()))?;
    let receipt: serde_json::Value =
        serde_json::from_slice(&answer.body).map_err(|_| PurgeError::Refused(answer.problem()))?;
    if receipt["fleet"] == "unreachable" {
        return Err(PurgeError::Unreachable(receipt["id"].as_str().unwrap_or_default().to_owned()));
    }
    if answer.status != StatusCode::OK {
        return Err(PurgeError::Refused(answer.problem()));
    }
    let (live, acknowledged) = (&receipt["nodes"]["live"], &receipt["nodes"]["acknowledged"]);
    let mut out = std::io::stdout().lock();
    match args.format {
        Format::Json => writeln!(out, "{receipt}")?,
        Format::Text => {
            let counted =
                |count: &serde_json::Value, unit: &str| count.as_u64().map(|count| format!(", {count} {unit}"));
            if args.dry_run {
                let counted =
                    |count: &serde_json::Value| count.as_u64().map_or("too many to count".into(), |n| n.to_string());
                writeln!(
                    out,
                    "would purge {} responses, {} bytes",
                    counted(&receipt["matched"]),
                    counted(&receipt["bytes"])
                )?;
                return Ok(());
            }
            writeln!(
                out,
                "purge {} applied by {acknowledged} of {live} nodes{}{}",
                receipt["id"].as_str().unwrap_or_default(),
                counted(&receipt["matched"], "responses").unwrap_or_default(),
                counted(&receipt["bytes"], "bytes").unwrap_or_default(),
            )?;
        }
    }
    if args.wait && receipt["complete"] != true {
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
        let lost = receipt["nodes"]["lost"].to_string();
        return Err(PurgeError::Incomplete { acknowledged: number(acknowledged), live: number(live), lost });
    }
    Ok(())
}
