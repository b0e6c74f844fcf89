//! Every decoder and every recovery that bytes from outside can reach, as one `fn(&[u8])` each.
//!
//! A target must not panic, hang or allocate without bound, whatever it is fed, and nothing that
//! was altered may be taken for the truth. Each is plain Rust for the stable toolchain:
//! `tests/corpus.rs` replays the inputs kept in `corpus/` and some thousands around them; the
//! program `fuzz` has libFuzzer search for more (README.md).
//!
//! Three kinds of targets, because a checksum stops a fuzzer:
//!
//! - *bare*: the format has no checksum, or the target reads it [blind](blind::blindly), so the
//!   input is what stands behind all checksums. What decodes must encode to what decodes the same.
//! - *altered*: the input says how whole and valid files are [altered](edits). Whatever is read
//!   from them must be what was written, or an error.
//! - *structured*: the input is a script, for a store, a cluster, or a merge. A model or the
//!   invariant checkers tell what is wrong.

pub mod blind;
mod bounds;
mod bytes_file;
mod decoders;
pub mod edits;
pub mod replay;
mod structured;

/// The simulation's own file, read here because its package needs the simulator.
#[path = "../../sim-tests/src/history/mod.rs"]
pub mod history;

pub use bounds::check;

/// A target; its name is also its folder in `corpus/`.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub what: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Makes inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What one input may allocate: so many bytes, and so many for each of its own.
    pub bytes_max: (usize, usize),
}

/// All targets.
pub const TARGETS: &[&[Target]] = &[decoders::TARGETS, structured::TARGETS];

/// Returns all targets, one after the other.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    TARGETS.iter().copied().flatten()
}

/// Returns the target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    targets().find(|target| target.name == name)
}
