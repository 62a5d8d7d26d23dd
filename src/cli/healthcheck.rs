//! `healthcheck`: is the node ready, or at least alive? For container and service managers.

use http::{Method, StatusCode};

use super::control::{self, Admin, ClientError};

/// Ask whether the node is ready; exit 0 or 1
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node's control listener: http://HOST:PORT or unix:/PATH
    #[arg(long, env = "EDUHAM_EDGE_ADMIN", default_value = super::ADMIN_DEFAULT, value_name = "URL")]
    admin: Admin,
    /// Ask only whether it lives: a node that drains is alive and not ready
    #[arg(long, env = "EDUHAM_EDGE_LIVE")]
    live: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HealthcheckError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("unhealthy: {0}")]
    Unhealthy(String),
}

/// Asks and says what is wrong.
///
/// # Errors
/// When the node cannot be asked, or answers anything but 200.
pub(super) fn run(args: &Args) -> Result<(), HealthcheckError> {
    let path = if args.live { "/livez" } else { "/readyz" };
    let answer = control::ask(&args.admin, Method::GET, path, None, None)?;
    match answer.status {
        StatusCode::OK => Ok(()),
        _ => Err(HealthcheckError::Unhealthy(answer.problem())),
    }
}
