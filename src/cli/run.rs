//! `run`: serves until it is told to leave.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    app::{self, StartError},
    clock::Clock,
    config::{self, Machine, Problems},
    telemetry::diagnostics::{self, DiagnosticsError},
};

/// What tasks get to end in after the edge has stopped.
const RUNTIME_END: Duration = Duration::from_millis(200);

/// Serve, as the configuration says
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration
    #[arg(short, long, value_name = "FILE", env = "EDUHAM_EDGE_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Diagnostics(#[from] DiagnosticsError),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// Serves until SIGTERM or SIGQUIT (drain, then stop), or SIGINT or a second signal (stop at once).
pub(super) fn run(args: &Args) -> Result<(), RunError> {
    let loaded = config::load(&args.config, &Machine)?;
    diagnostics::install(&loaded.config.log.level)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // One worker needs no stealing, and none of the atomics that stealing costs.
    let mut runtime = match loaded.config.server.workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        workers => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(workers);
            runtime
        }
    };
    let runtime = runtime.enable_all().build().map_err(RunError::Runtime)?;
    let served = runtime.block_on(async {
        let mut signals = Signals::new().map_err(RunError::Signals)?;
        let running = app::start(loaded, Clock::system()).await?;
        for bound in running.addresses() {
            tracing::info!(address = %bound, "listening");
        }
        tracing::info!(address = %running.admin(), "control listener");
        loop {
            match signals.next().await {
                Asked::Reopen => running.edge().access.reopen(),
                Asked::Stop => {
                    tracing::info!("stopping at once");
                    running.stop().await;
                    break;
                }
                Asked::Drain => {
                    tracing::info!(connections = running.connections().open(), "draining");
                    let edge = Arc::clone(running.edge());
                    running.drain(signals.hurry(|| edge.access.reopen())).await;
                    break;
                }
            }
        }
        Ok(())
    });
    runtime.shutdown_timeout(RUNTIME_END);
    served
}

enum Asked {
    Drain,
    Stop,
    Reopen,
}

/// The signals that an edge listens to.
struct Signals {
    terminate: Signal,
    quit: Signal,
    interrupt: Signal,
    reopen: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Asked::Drain,
                _ = self.quit.recv() => return Asked::Drain,
                _ = self.interrupt.recv() => return Asked::Stop,
                _ = self.reopen.recv() => return Asked::Reopen,
                _ = self.reload.recv() => tracing::warn!("reloading is not available yet; restart to use a new configuration"),
            }
        }
    }

    /// Waits for whoever does not want to wait for the drain.
    async fn hurry(&mut self, reopen: impl Fn()) {
        while let Asked::Reopen = self.next().await {
            reopen();
        }
    }
}
