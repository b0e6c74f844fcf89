//! The `mangrove` program; see [`mangrove::cli`].

use std::process::ExitCode;

/// With the system's allocator a quarter of a loaded node's own processor time goes into it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mangrove::cli::run()
}
