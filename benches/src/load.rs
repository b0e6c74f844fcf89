//! A closed-loop load on a Mangrove cluster: so many clients, each with one request in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use mangrove::base::Rng;
use mangrove::client::{BatchBuilder, Client, Level, connect};
use mangrove::env::real::RealEnv;

/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

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
    /// Latencies in microseconds.
    pub latencies: Histogram<u64>,
    /// Requests that failed.
    pub error_count: u64,
}

impl Outcome {
    /// Returns a percentile of the latency in milliseconds.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        let micros = self.latencies.value_at_percentile(percentile);
        f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0
    }
}

/// Returns a key of 16 bytes, as `redis-benchmark` makes them.
pub fn key(number: u64) -> Bytes {
    Bytes::from(format!("key:{number:012}"))
}

/// Runs a load to its end.
pub async fn run(addresses: &[String], load: Load) -> Outcome {
    let stopped = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for number in 0..load.connection_count {
        // A client asks the first node that answers, so each begins with another one.
        let mut addresses = addresses.to_vec();
        let first = number % addresses.len().max(1);
        addresses.rotate_left(first);
        let client = connect(addresses).with_level(load.level);
        let rng = Rng::new(load.seed).split(&format!("client.{number}"));
        tasks.push(tokio::spawn(one_client(client, rng, load, Arc::clone(&stopped))));
    }
    let begin = Instant::now();
    tokio::time::sleep(load.duration).await;
    stopped.store(true, Ordering::Relaxed);
    let elapsed = begin.elapsed();
    let mut latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("valid bounds");
    let mut error_count = 0;
    for task in tasks {
        let (one, errors) = task.await.expect("a client does not panic");
        latencies.add(one).expect("equal bounds");
        error_count += errors;
    }
    let answered = f64::from(u32::try_from(latencies.len()).unwrap_or(u32::MAX));
    Outcome { per_second: answered / elapsed.as_secs_f64(), latencies, error_count }
}

/// Makes one request; tells whether it was answered.
pub async fn ask(client: &Client<RealEnv>, kind: Kind, key: Bytes, value: &Bytes) -> bool {
    match kind {
        Kind::Set => client.set(key, value.clone()).await.is_ok(),
        Kind::Get => client.get(key).await.is_ok(),
    }
}

async fn one_client(
    client: Client<RealEnv>,
    mut rng: Rng,
    load: Load,
    stopped: Arc<AtomicBool>,
) -> (Histogram<u64>, u64) {
    let mut latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("valid bounds");
    let mut error_count = 0;
    let value = Bytes::from(vec![b'x'; load.value_bytes]);
    while !stopped.load(Ordering::Relaxed) {
        let key = key(rng.range(0, load.key_count));
        let begin = Instant::now();
        let answered = ask(&client, load.kind, key, &value).await;
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
        if answered {
            latencies.saturating_record(micros);
        } else {
            error_count += 1;
        }
    }
    (latencies, error_count)
}

/// Writes `count` cells in batches, so that a cluster has data.
pub async fn fill(addresses: &[String], count: u64, value_bytes: usize) {
    const BATCH: u64 = 500;
    let client = connect(addresses.to_vec());
    let value = Bytes::from(vec![b'x'; value_bytes]);
    let mut next = 0;
    while next < count {
        let mut batch = BatchBuilder::new();
        let end = (next + BATCH).min(count);
        for number in next..end {
            batch = batch.set(key(number), value.clone());
        }
        let batch = batch.build().expect("a small batch");
        client.bulk_set(batch).await.expect("the cluster takes writes");
        next = end;
    }
}
