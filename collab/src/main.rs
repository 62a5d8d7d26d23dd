//! `eduham-collab serve`: settings from the environment, a node on a port, a drain on SIGTERM or SIGINT.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use axum::http::HeaderValue;
use clap::{Parser, Subcommand};
use eduham_collab::{
    node::{Node, NodeOptions},
    settings::Settings,
    store::{MIGRATIONS, SqlStore},
};
use eduham_platform::{
    db::Db,
    serve::{Lifecycle, listen},
    settings::Environment,
    telemetry::Telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

/// The collaboration node of EduHam.
///
/// Environment: EDUHAM_COLLAB_LISTEN, EDUHAM_COLLAB_ID, EDUHAM_COLLAB_DRAIN, EDUHAM_COLLAB_ORIGINS, DATABASE_URL,
/// EDUHAM_LOG, EDUHAM_LOG_FORMAT.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves rooms until SIGTERM, then closes them in turn and ends.
    Serve,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { command: Command::Serve } = Cli::parse();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eduham-collab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> anyhow::Result<()> {
    let mut env = Environment::of_process();
    let telemetry = Telemetry::from_env(&mut env);
    let settings = Settings::from_env(&mut env);
    let settings = env.finish(settings)?;
    telemetry.start();

    let db = Db::open(&settings.database, &MIGRATIONS).await?;
    let listener = listen(settings.listen).await?;
    let address = listener.local_addr()?;
    let lifecycle = Lifecycle::new();
    let options = NodeOptions {
        id: HeaderValue::from_str(&settings.id).context("EDUHAM_COLLAB_ID")?,
        origins: settings.origins,
        connections_max: settings.connections_max,
        drain: settings.drain,
    };
    tracing::info!(
        %address, id = settings.id, database = %settings.database, connections_max = settings.connections_max, "serving"
    );
    let node = Node::new(options, Arc::new(SqlStore::new(db.clone())), lifecycle.clone());
    let stopped = {
        let mut serving = std::pin::pin!(node.serve(listener));
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut signals = 0;
        loop {
            tokio::select! {
                ended = &mut serving => break ended,
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            lifecycle.drain();
            signals += 1;
            if signals > 1 {
                tracing::warn!("second signal: dropping what is left");
                return Ok(());
            }
        }
    };
    db.close().await;
    Ok(stopped?)
}
