//! The commands. Data goes to stdout, words to stderr; exit 0 done, 1 a problem that the message explains, 2 wrong usage.
//!
//! Every flag is also read from `EDUHAM_EDGE_...`; a token never stands on the command line, where other users could see it.

mod check;
mod control;
mod explain;
mod healthcheck;
mod purge;
mod run;
mod schema;

use std::{ffi::OsString, io, process::ExitCode};

use clap::Parser;

use crate::{clock::Clock, config::Machine};

/// Where the token is, when no `--token-file` names another place.
const TOKEN_ENV: &str = "EDUHAM_EDGE_TOKEN";

/// `admin.address` by default.
const ADMIN_DEFAULT: &str = "http://127.0.0.1:9901";

/// The edge of EduHam: HTTP cache, sticky WebSocket router, API gateway
#[derive(Debug, Parser)]
#[command(name = "eduham-edge", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(run::Args),
    /// Is a configuration right?
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    /// Print the JSON Schema of the configuration
    Schema,
    Purge(purge::Args),
    Healthcheck(healthcheck::Args),
}

/// How a command prints what it found or did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people: a line each
    #[default]
    Text,
    /// For programs: one JSON object
    Json,
}

/// Runs the command that `arguments` name, the program's own name first.
pub fn main(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(usage) => {
            // A terminal that is gone cannot be told.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    let done: Result<ExitCode, Box<dyn std::error::Error>> = match cli.command {
        Command::Check(args) => check::check(&args, &Machine, &mut io::stdout()).map_err(Into::into),
        Command::Explain(args) => {
            let now = Clock::system().now();
            explain::explain(&args, &Machine, now, &mut io::stdout()).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::Schema => schema::schema(&mut io::stdout()).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Run(args) => run::run(&args).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Purge(args) => purge::run(&args).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Healthcheck(args) => healthcheck::run(&args).map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("eduham-edge: {error}");
            ExitCode::FAILURE
        }
    }
}
