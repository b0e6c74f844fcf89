//! The `mangrove` program; see [`mangrove::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mangrove::cli::run()
}
