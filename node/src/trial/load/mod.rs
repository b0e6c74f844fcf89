//! A load on a store: requests from many connections, and how long each of them took.
//!
//! One generator serves `mangrove bench`, `mangrove compare` and the benchmarks, for Mangrove and
//! for its [peers](super::peers): what is compared is asked in the same way.
//!
//! # Closed and open loops
//! In a *closed loop* each of `connections × in flight` workers sends its next request when the
//! last one is answered. It finds the highest throughput, and hides pauses: while the store stands
//! still, nobody asks. In an *open loop* request number *i* is due at *i / rate*, whatever has
//! become of those before it, and its latency counts from that moment; when all workers wait, the
//! requests that are due meanwhile wait, too, and that is in their latencies. So nothing is left
//! out because the store was slow. What still waits when the time is over is not sent any more, and
//! counted: a store that takes less than the rate is asked for no longer than any other.
//!
//! # Layout
//! ```text
//! keys      which key is next        target  who is asked
//! generate  the workers              record  what came out
//! ```

mod generate;
mod keys;
mod record;
mod target;

use std::time::Duration;

pub use self::generate::{NUMBER_BYTES, fill, fill_each, run};
pub use self::keys::{Distribution, key};
pub(in crate::trial) use self::record::float;
pub use self::record::{Outcome, Series, Slice};
pub use self::target::{Failure, Target};

/// What is asked, by how many, for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Connections, each of a client of its own.
    pub connections: usize,
    /// Requests under way on each of them.
    pub in_flight: usize,
    /// Share of the requests that are reads, 0 to 1.
    pub read_share: f64,
    /// Which keys are asked for.
    pub distribution: Distribution,
    /// How many keys there are.
    pub key_count: u32,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Time before anything is recorded.
    pub warm_up: Duration,
    /// Time that is recorded.
    pub duration: Duration,
    /// Requests after the warm-up after which it ends, even before the time is over.
    pub requests_max: Option<u64>,
    /// Requests due in each second, in an open loop; a closed loop if there is none.
    pub rate: Option<f64>,
    /// Whether reads are compared with what was acknowledged before. Then each key has one writer.
    pub finds_stale: bool,
    /// What is random follows from it.
    pub seed: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            connections: 64,
            in_flight: 1,
            read_share: 0.0,
            distribution: Distribution::Uniform,
            key_count: 1_000_000,
            value_bytes: 100,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(10),
            requests_max: None,
            rate: None,
            finds_stale: false,
            seed: 0,
        }
    }
}
