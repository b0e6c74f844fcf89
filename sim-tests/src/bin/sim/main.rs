//! The `sim` program: runs seeds, replays one, and proves that planted bugs are found.
//!
//! Each command is a structure with its arguments and what it prints: those about many runs in
//! `seeds`, about one in `one`, about the simulation itself in `proof`. What they do is in the
//! library.
#![expect(clippy::print_stderr, reason = "a program talks to its user")]
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

use std::io::Write as _;
use std::path::Path;

use clap::Parser as _;
use sim_tests::bugs;
use sim_tests::options::Mode;

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

/// Returns a planted bug that runs in that mode can show: one of the mode, or of the storage, which
/// both have.
fn bug_of(mode: Mode, code: &str) -> &'static str {
    let code = known_bug(code);
    if !code.starts_with('W') && !is_hunted(mode, code) {
        refuse(&format!("{code} is a bug of the other replication mode: say so with --mode"));
    }
    code
}

/// Tells whether a planted bug is one of those that are hunted in that mode.
fn is_hunted(mode: Mode, code: &str) -> bool {
    bugs::of(mode).iter().any(|bug| bug.code == code)
}

/// Prints a line. Whoever reads may have seen enough, as `head` has: then the exit code says the
/// rest.
macro_rules! say {
    ($($arguments:tt)*) => {
        crate::print_line(format_args!($($arguments)*))
    };
}
pub(crate) use say;

fn print_line(line: std::fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{line}")
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        eprintln!("cannot print: {error}");
        std::process::exit(2);
    }
}

/// Ends the program, before it works for long, if a file cannot be written to that place.
fn check_place(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
        refuse(&format!("cannot write {}: no file can be there", path.display()));
    }
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
