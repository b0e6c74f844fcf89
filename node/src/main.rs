//! The `mangrove` program; see [`mangrove::cli`].

use std::process::ExitCode;

/// Cheaper than the system's for the many small buffers of requests and cells.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mangrove::cli::run()
}
