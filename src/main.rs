//! Entry point: the commands are in [`eduham_edge::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    eduham_edge::cli::main(std::env::args_os())
}
