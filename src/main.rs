//! Entry point: the commands are in [`eduham_edge::cli`].

use std::process::ExitCode;

/// The system's allocator costs a fifth of a passed request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    eduham_edge::cli::main(std::env::args_os())
}
