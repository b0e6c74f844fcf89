//! The `sim` program: runs seeds, replays one, and proves that planted bugs are found.
//!
//! Each command is a structure with its arguments and what it prints: those about many runs in
//! `seeds`, about one in `one`, about the simulation itself in `proof`. What they do is in the
//! library.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program around the simulation is real"
)]
#![expect(clippy::exit, reason = "the exit code is the verdict")]

mod arguments;
mod one;
mod proof;
mod seeds;

use std::path::Path;

use clap::Parser as _;
use sim_tests::bugs;

use crate::arguments::Arguments;

/// A tenth of a run is spent in the allocator, with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let found = Arguments::parse().command.run();
    std::process::exit(i32::from(found));
}

/// Ends the program with what is wrong with its arguments.
fn refuse(what: &str) -> ! {
    eprintln!("{what}");
    std::process::exit(2);
}

fn known_bug(code: &str) -> &'static str {
    bugs::find(code).unwrap_or_else(|| {
        refuse(&format!(
            "there is no planted bug {code}; docs/bugs-primary-backup.md and \
             docs/bugs-masterless.md list them"
        ))
    })
}

fn write(path: &Path, text: &str) {
    if let Err(error) = std::fs::write(path, text) {
        eprintln!("cannot write {}: {error}", path.display());
        std::process::exit(2);
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Draws a range of seeds that was hardly ever run before.
fn fresh_range(count: u64) -> (u64, u64) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = since.map_or(1, |since| since.as_secs() * 100_000);
    (first, first + count)
}
