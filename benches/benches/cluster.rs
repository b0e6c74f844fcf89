//! The real three-node cluster under load, beside a single Redis with `appendfsync always`.
//!
//! `cargo bench -p benches --bench cluster [-- --rounds N --seconds S] [--pin]`
//!
//! `cargo bench -p benches --bench cluster -- masterless` measures that mode beside the other.
//!
//! The kernel places the nodes, as it does for users. With `--pin` they get a processor each, in
//! turn, the leader first ([`spread`] says why).
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Duration;

use benches::load::{self, Kind, Load, Outcome};
use benches::machine::{cpu_ms, fdatasync_median, median, memory_bytes, spread};
use benches::redis::{Figures, Redis};
use mangrove::client::Level;
use real_tests::{RealCluster, block_on};

mod masterless;

/// The load costs as little as it can: it is on the same processors.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 64;
const VALUE_BYTES: usize = 100;
const KEY_COUNT: u64 = 1_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |flag: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == flag);
        let value = at.and_then(|at| arguments.get(at + 1));
        value.and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let is_pinned = arguments.iter().any(|argument| argument == "--pin");
    let (rounds, seconds) = (number("--rounds", 5), number("--seconds", 4));
    if arguments.iter().any(|argument| argument == "masterless") {
        block_on(masterless::measure(rounds, seconds, is_pinned));
    } else {
        block_on(measure(rounds, seconds, is_pinned));
    }
}

/// Medians over the rounds of one kind of request.
#[derive(Default)]
struct Series {
    per_second: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    /// Processor time of the nodes, and of the load, per 1,000 requests.
    nodes_cpu_ms: Vec<f64>,
    load_cpu_ms: Vec<f64>,
    errors: u64,
}

impl Series {
    fn add(&mut self, outcome: &Outcome) {
        self.per_second.push(outcome.per_second);
        self.p50_ms.push(outcome.percentile_ms(50.0));
        self.p99_ms.push(outcome.percentile_ms(99.0));
        self.errors += outcome.error_count;
    }

    fn add_figures(&mut self, figures: Figures) {
        self.per_second.push(figures.per_second);
        self.p50_ms.push(figures.p50_ms);
        self.p99_ms.push(figures.p99_ms);
    }

    /// Runs a load on a cluster of these processes and adds its outcome.
    async fn run(&mut self, addresses: &[String], nodes: &[u32], load: Load) {
        let cpu = || (cpu_ms(nodes), cpu_ms(&[std::process::id()]));
        let before = cpu();
        let outcome = load::run(addresses, load).await;
        let after = cpu();
        self.add(&outcome);
        let thousands = outcome.per_second * load.duration.as_secs_f64() / 1000.0;
        self.nodes_cpu_ms.push((after.0 - before.0) / thousands);
        self.load_cpu_ms.push((after.1 - before.1) / thousands);
    }

    fn print_cpu(&mut self, name: &str) {
        let nodes = median(&mut self.nodes_cpu_ms).unwrap_or_default();
        let load = median(&mut self.load_cpu_ms).unwrap_or_default();
        println!("{name:<34} CPU per 1,000: all nodes {nodes:.1} ms, load {load:.1} ms");
    }

    fn print(&mut self, name: &str) -> (f64, f64) {
        let per_second = median(&mut self.per_second).unwrap_or_default();
        let p50 = median(&mut self.p50_ms).unwrap_or_default();
        let p99 = median(&mut self.p99_ms).unwrap_or_default();
        let errors = self.errors;
        println!(
            "{name:<34} {per_second:>10.0}/s  p50 {p50:>7.3} ms  p99 {p99:>7.3} ms  errors {errors}"
        );
        (per_second, p99)
    }
}

async fn measure(rounds: u64, seconds: u64, is_pinned: bool) {
    let mut cluster = RealCluster::start(3).await;
    let addresses = cluster.addresses().to_vec();
    let scratch = cluster.scratch();
    // The leader first: who shares its processor is the same in every run.
    let leader = cluster.wait_for_leader().await;
    let followers = cluster.numbers().filter(|node| *node != leader);
    let numbers: Vec<_> = std::iter::once(leader).chain(followers).collect();
    let nodes: Vec<u32> = numbers.iter().map(|&node| cluster.process_id(node)).collect();
    if is_pinned {
        match spread(&nodes) {
            Ok(given) => println!("nodes pinned to processors {given:?}"),
            Err(error) => println!("nodes not pinned: {error}"),
        }
    }
    let fdatasync = fdatasync_median(&scratch);
    println!("machine: fdatasync p50 {:.3} ms", fdatasync.as_secs_f64() * 1000.0);
    let redis = Redis::start(&scratch);
    if redis.is_none() {
        println!("redis-server is not installed: no ratios (apt-get install redis-server)");
    }
    let load = |kind, connection_count, seed| Load {
        kind,
        level: Level::Quorum,
        connection_count,
        duration: Duration::from_secs(seconds),
        key_count: KEY_COUNT,
        value_bytes: VALUE_BYTES,
        seed,
    };
    let [mut sets, mut gets, mut redis_sets, mut redis_gets] =
        std::array::from_fn(|_| Series::default());
    for round in 0..rounds {
        if let Some(redis) = &redis
            && let Some((set, get)) = redis.measure(CONNECTIONS, seconds * 60_000)
        {
            redis_sets.add_figures(set);
            redis_gets.add_figures(get);
        }
        sets.run(&addresses, &nodes, load(Kind::Set, CONNECTIONS, round)).await;
        gets.run(&addresses, &nodes, load(Kind::Get, CONNECTIONS, round)).await;
    }
    println!(
        "{CONNECTIONS} connections, 1 in flight, 16 B keys, \
         {VALUE_BYTES} B values, medians of {rounds} rounds"
    );
    let set = sets.print("mangrove, 3 nodes: durable set");
    let get = gets.print("mangrove, 3 nodes: linearizable get");
    sets.print_cpu("mangrove, 3 nodes: durable set");
    gets.print_cpu("mangrove, 3 nodes: linearizable get");
    if redis.is_some() {
        let redis_set = redis_sets.print("redis, 1 node: set, fsync always");
        let redis_get = redis_gets.print("redis, 1 node: get");
        println!("ratio of sets {:.2} (p99 {:.1} x)", set.0 / redis_set.0, set.1 / redis_set.1);
        println!("ratio of gets {:.2} (p99 {:.1} x)", get.0 / redis_get.0, get.1 / redis_get.1);
    }
    drop(redis);
    one_connection(&addresses, load(Kind::Set, 1, 77), &scratch).await;
    memory(&mut cluster).await;
}

async fn one_connection(addresses: &[String], load: Load, scratch: &std::path::Path) {
    let fdatasync = fdatasync_median(scratch).as_secs_f64() * 1000.0;
    let one = load::run(addresses, load).await;
    let p50 = one.percentile_ms(50.0);
    println!(
        "1 connection: durable set p50 {p50:.3} ms = {:.1} x fdatasync ({fdatasync:.3} ms)",
        p50 / fdatasync
    );
}

async fn memory(cluster: &mut RealCluster) {
    load::fill(cluster.addresses(), KEY_COUNT, VALUE_BYTES).await;
    cluster.wait_until_caught_up().await;
    for node in cluster.numbers() {
        let process = cluster.process_id(node);
        let (now, peak) = memory_bytes(process);
        println!("node {node}: {} MB for 1 M cells of 100 B (peak {} MB)", now >> 20, peak >> 20);
    }
}
