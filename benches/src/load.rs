//! A closed-loop load on a Mangrove cluster: so many clients, each with one request in flight.
//!
//! The generator is that of the program ([`mangrove::trial::load`]), so that `mangrove bench` and
//! the benchmarks measure in the same way; here is the part of it that these need.

use std::time::Duration;

use bytes::Bytes;
use mangrove::client::{Client, Level, connect};
use mangrove::env::real::RealEnv;
use mangrove::trial::load;

pub use mangrove::trial::load::key;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Durable writes of one cell.
    Set,
    /// Linearizable reads of one cell.
    Get,
}

/// A load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// What is asked.
    pub kind: Kind,
    /// How many replicas must have answered; means nothing in the primary-backup mode.
    pub level: Level,
    /// Clients, each with a connection of its own and one request in flight.
    pub connection_count: usize,
    /// How long.
    pub duration: Duration,
    /// Keys are drawn uniformly from so many.
    pub key_count: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Where the keys' random numbers start.
    pub seed: u64,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Requests answered per second.
    pub per_second: f64,
    /// Their latencies.
    pub latencies: load::Series,
    /// Requests that failed.
    pub error_count: u64,
}

impl Outcome {
    /// Returns a percentile of the latency in milliseconds.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        self.latencies.percentile_ms(percentile)
    }
}

/// Runs a load to its end.
pub async fn run(addresses: &[String], load: Load) -> Outcome {
    let client = |number: usize| {
        // A client asks the first node that answers, so each begins with another one.
        let mut addresses = addresses.to_vec();
        let first = number % addresses.len().max(1);
        addresses.rotate_left(first);
        connect(addresses).with_level(load.level)
    };
    let clients: Vec<_> = (0..load.connection_count).map(client).collect();
    let wanted = load::Load {
        connections: load.connection_count,
        read_share: if load.kind == Kind::Get { 1.0 } else { 0.0 },
        key_count: u32::try_from(load.key_count).unwrap_or(u32::MAX),
        value_bytes: load.value_bytes,
        duration: load.duration,
        seed: load.seed,
        ..load::Load::default()
    };
    let outcome = load::run(&RealEnv::client(), &clients, &wanted, |_, _| {}).await;
    Outcome {
        per_second: outcome.per_second(),
        latencies: outcome.all(),
        error_count: outcome.error_count(),
    }
}

/// Makes one request; tells whether it was answered.
pub async fn ask(client: &Client<RealEnv>, kind: Kind, key: Bytes, value: &Bytes) -> bool {
    match kind {
        Kind::Set => client.set(key, value.clone()).await.is_ok(),
        Kind::Get => client.get(key).await.is_ok(),
    }
}

/// Writes `count` cells in batches, so that a cluster has data.
pub async fn fill(addresses: &[String], count: u64, value_bytes: usize) {
    let client = connect(addresses.iter().cloned());
    let filled = load::fill(&client, (0, count), value_bytes, |_| {}).await;
    filled.expect("the cluster takes writes");
}
