//! Loads and peers for the benchmarks.
//!
//! The cluster is measured as its users meet it: real processes of the release build, real
//! fsyncs, the shipped client library, one request in flight per connection. What it is compared
//! with runs in the same minutes on the same machine, turn by turn, so that ratios mean something
//! even where absolute figures do not. A benchmark measures; it never asserts on time.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks measure the real machine"
)]
#![expect(clippy::expect_used, reason = "a benchmark stops when the machine fails it")]

pub mod load;
pub mod machine;
pub mod mourning;
pub mod redis;

pub use mangrove::trial::chart as plot;

/// Returns a count as a number to reckon with; exact up to 2^53.
pub fn float(count: u64) -> f64 {
    const HALF: f64 = 4_294_967_296.0;
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).map_or(0.0, f64::from);
    half(count >> 32) * HALF + half(count)
}
