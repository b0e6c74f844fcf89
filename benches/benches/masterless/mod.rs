//! The masterless mode beside the primary-backup mode: two clusters of three on one machine, asked
//! in turn, so that whatever else the machine does meets both.
//!
//! Then what the death of a coordinator costs its clients, and what the nodes hold in memory.

use std::time::{Duration, Instant};

use benches::load::{self, Kind, Load};
use benches::machine::{fdatasync_median, median, memory_bytes, spread};
use bytes::Bytes;
use mangrove::base::Rng;
use mangrove::client::{ClientOptions, Level, connect};
use real_tests::RealCluster;

use super::{CONNECTIONS, KEY_COUNT, Series, VALUE_BYTES};

/// Clients in the measurement of a death: enough for a third of them to matter.
const MOURNERS: usize = 48;
/// How long they ask before the death, and after it.
const BEFORE_DEATH: Duration = Duration::from_secs(2);
const AFTER_DEATH: Duration = Duration::from_secs(4);

/// A cluster and the processes of its nodes.
struct Running {
    cluster: RealCluster,
    addresses: Vec<String>,
    nodes: Vec<u32>,
}

impl Running {
    fn new(mut cluster: RealCluster, is_pinned: bool) -> Self {
        let numbers: Vec<_> = cluster.numbers().collect();
        let nodes: Vec<u32> = numbers.iter().map(|&node| cluster.node(node).process_id()).collect();
        if is_pinned && let Err(error) = spread(&nodes) {
            println!("nodes not pinned: {error}");
        }
        Self { addresses: cluster.addresses().to_vec(), cluster, nodes }
    }
}

/// Measures both modes and prints what came out.
pub(super) async fn measure(rounds: u64, seconds: u64, is_pinned: bool) {
    let one = Running::new(RealCluster::start(3).await, is_pinned);
    let other = Running::new(RealCluster::start_masterless(3, &[]).await, is_pinned);
    let fdatasync = fdatasync_median(&one.cluster.scratch());
    println!("machine: fdatasync p50 {:.3} ms", fdatasync.as_secs_f64() * 1000.0);
    let load = |kind, level, seed| Load {
        kind,
        level,
        connection_count: CONNECTIONS,
        duration: Duration::from_secs(seconds),
        key_count: KEY_COUNT,
        value_bytes: VALUE_BYTES,
        seed,
    };
    let [mut sets, mut gets, mut writes, mut reads, mut quorum_reads] =
        std::array::from_fn(|_| Series::default());
    for round in 0..rounds {
        sets.run(&one.addresses, &one.nodes, load(Kind::Set, Level::Quorum, round)).await;
        writes.run(&other.addresses, &other.nodes, load(Kind::Set, Level::Quorum, round)).await;
        gets.run(&one.addresses, &one.nodes, load(Kind::Get, Level::Quorum, round)).await;
        reads.run(&other.addresses, &other.nodes, load(Kind::Get, Level::One, round)).await;
        let at_quorum = load(Kind::Get, Level::Quorum, round);
        quorum_reads.run(&other.addresses, &other.nodes, at_quorum).await;
    }
    println!(
        "{CONNECTIONS} connections, 1 in flight, 16 B keys, \
         {VALUE_BYTES} B values, medians of {rounds} rounds"
    );
    let named = [
        ("primary-backup: durable set", &mut sets),
        ("masterless: set at quorum", &mut writes),
        ("primary-backup: linearizable get", &mut gets),
        ("masterless: get at one", &mut reads),
        ("masterless: get at quorum", &mut quorum_reads),
    ];
    let mut per_second = Vec::new();
    for (name, series) in named {
        per_second.push(series.print(name).0);
        series.print_cpu(name);
    }
    if let [set, write, get, read, _] = per_second.as_slice() {
        println!("writes at quorum: {:.2} x primary-backup's sets", write / set);
        println!("reads at one: {:.2} x primary-backup's gets", read / get);
    }
    drop(one);
    memory(other).await;
    death(is_pinned).await;
}

async fn memory(mut running: Running) {
    load::fill(&running.addresses, KEY_COUNT, VALUE_BYTES).await;
    running.cluster.wait_until_converged().await;
    for node in running.cluster.numbers() {
        let (now, peak) = memory_bytes(running.cluster.node(node).process_id());
        println!("node {node}: {} MB for 1 M cells of 100 B (peak {} MB)", now >> 20, peak >> 20);
    }
}

/// What one client met around the death of a node.
struct Mourner {
    /// Longest time from one answer to the next.
    gap: Duration,
    error_count: u64,
}

/// Kills a node that coordinates for a third of all clients.
async fn death(is_pinned: bool) {
    let mut running = Running::new(RealCluster::start_masterless(3, &[]).await, is_pinned);
    for kind in [Kind::Set, Kind::Get] {
        let end = Instant::now() + BEFORE_DEATH + AFTER_DEATH;
        let begin = |number| {
            let mut addresses = running.addresses.clone();
            addresses.rotate_left(number % 3);
            tokio::spawn(mourn(addresses, kind, number, end))
        };
        let mourners: Vec<_> = (0..MOURNERS).map(begin).collect();
        tokio::time::sleep(BEFORE_DEATH).await;
        running.cluster.kill(1);
        let (mut widowed, mut others, mut errors) = (Vec::new(), Vec::new(), 0);
        for (number, mourner) in mourners.into_iter().enumerate() {
            let Mourner { gap, error_count } = mourner.await.expect("a client does not panic");
            if number % 3 == 0 {
                widowed.push(gap)
            } else {
                others.push(gap)
            }
            errors += error_count;
        }
        println!(
            "a coordinator dies, {kind:?} at quorum: longest gap of its clients p50 {} ms, max {} ms, \
             of the others max {} ms; requests in doubt {errors} of {MOURNERS} clients; \
             one time-out is {} ms",
            median(&mut widowed).unwrap_or_default().as_millis(),
            widowed.iter().max().map_or(0, Duration::as_millis),
            others.iter().max().map_or(0, Duration::as_millis),
            ClientOptions::default().try_timeout.as_millis(),
        );
        running.cluster.start_node(1);
        running.cluster.wait_until_converged().await;
    }
}

/// Asks until `end`, and takes note of how long nothing was answered.
async fn mourn(addresses: Vec<String>, kind: Kind, number: usize, end: Instant) -> Mourner {
    let client = connect(addresses).with_level(Level::Quorum);
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut rng = Rng::new(5).split(&format!("mourner.{number}"));
    let mut mourner = Mourner { gap: Duration::ZERO, error_count: 0 };
    let mut answered = Instant::now();
    while Instant::now() < end {
        let key = load::key(rng.range(0, KEY_COUNT));
        if load::ask(&client, kind, key, &value).await {
            mourner.gap = mourner.gap.max(answered.elapsed());
            answered = Instant::now();
        } else {
            mourner.error_count += 1;
        }
    }
    mourner.gap = mourner.gap.max(answered.elapsed());
    mourner
}
