//! Every decoder and every recovery that bytes from outside can reach, as one `fn(&[u8])` each.
//!
//! A target must not panic, hang or allocate without bound, whatever it is fed, and nothing that
//! was altered may be taken for the truth. Each is plain Rust for the stable toolchain:
//! `tests/corpus.rs` replays the inputs kept in `corpus/` and some thousands around them, as does
//! `sim-tests/tests/fuzz.rs` in the project's `cargo test`; a program of each target, in `bin/`,
//! has libFuzzer search for more (README.md).
//!
//! Three kinds of targets, because a checksum stops a fuzzer:
//!
//! - *bare*: the format has no checksum, or the target reads it [blind](blind::blindly), so the
//!   input is what stands behind all checksums. What decodes must encode to what decodes the same.
//! - *altered*: the input says how whole and valid files are [altered](edits). Whatever is read
//!   from them must be what was written, or an error.
//! - *structured*: the input is a script, for a store, a cluster, or a merge. A model or the
//!   invariant checkers tell what is wrong.

#![expect(clippy::disallowed_types, reason = "the harness measures real time")]
#![expect(clippy::disallowed_methods, reason = "the harness measures real time")]

pub mod blind;
mod bounds;
mod bytes_file;
pub mod decoders;
pub mod edits;
pub mod replay;
pub mod structured;

/// The simulation's own file, read here because its package needs the simulator.
#[path = "../../sim-tests/src/history/mod.rs"]
pub mod history;

use std::fs;
use std::path::Path;

pub use bounds::check;

/// What a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One format, read from bytes: a small input takes a few microseconds.
    Decoder,
    /// What a node or a command makes of whole files.
    Recovery,
    /// A script: the input says what happens.
    Script,
}

/// A target; its name is also its folder in `corpus/`.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it is about, in a few words.
    pub what: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Makes inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What one input may allocate: so many bytes, and so many for each of its own.
    pub bytes_max: (usize, usize),
}

/// Returns all targets, one after the other.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    decoders::TARGETS.iter().chain(structured::TARGETS)
}

/// Returns the target of that name. A program of one target asks at compile time, and then has
/// nothing in it of the others: libFuzzer looks at all counters of a program after each input.
///
/// # Panics
/// If there is none.
pub const fn named(name: &str) -> Target {
    let tables = [decoders::TARGETS, structured::TARGETS];
    let mut table = 0;
    while table < tables.len() {
        let mut at = 0;
        while at < tables[table].len() {
            if is_same(tables[table][at].name, name) {
                return tables[table][at];
            }
            at += 1;
        }
        table += 1;
    }
    panic!("no target has the name of this program")
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// Makes a program of the target that has its name: with the feature `libfuzzer` one that
/// libFuzzer drives, else one that runs the files that it is given.
#[macro_export]
macro_rules! program {
    () => {
        const TARGET: $crate::Target = $crate::named(env!("CARGO_BIN_NAME"));

        #[cfg(feature = "libfuzzer")]
        libfuzzer_sys::fuzz_target!(
            init: $crate::prepare(&TARGET),
            |input: &[u8]| $crate::check(&TARGET, input)
        );

        #[cfg(not(feature = "libfuzzer"))]
        fn main() {
            $crate::replay::files(&TARGET);
        }
    };
}

/// Prepares a program of one target. With `MANGROVE_FUZZ_SEEDS` it only writes the inputs that the
/// target begins with into that folder; with `MANGROVE_FUZZ_PLANTED` a planted fault is on.
pub fn prepare(target: &Target) {
    if let Some(folder) = std::env::var_os("MANGROVE_FUZZ_SEEDS") {
        let written = write_seeds(target, Path::new(&folder));
        std::process::exit(i32::from(written.is_err()));
    }
    if let Ok(code) = std::env::var("MANGROVE_FUZZ_PLANTED") {
        mangrove::base::planted::turn_on(Some(code.leak()));
    }
}

fn write_seeds(target: &Target, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:03}")), seed)?;
    }
    Ok(())
}
