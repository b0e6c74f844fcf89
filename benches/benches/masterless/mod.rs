//! The masterless mode beside the primary-backup mode: two clusters of three on one machine, asked
//! in turn, so that whatever else the machine does meets both.
//!
//! Then what the death of a coordinator costs its clients, and what the nodes hold in memory.

use std::time::Duration;

use benches::load::{self, Kind, Load};
use benches::machine::{fdatasync_median, median, memory_bytes, spread};
use benches::mourning::{self, Mourning};
use mangrove::client::{ClientOptions, Level};
use real_tests::RealCluster;

use super::{CONNECTIONS, KEY_COUNT, Series, VALUE_BYTES};

/// A cluster and the processes of its nodes.
struct Running {
    cluster: RealCluster,
    addresses: Vec<String>,
    nodes: Vec<u32>,
}

impl Running {
    fn new(mut cluster: RealCluster, is_pinned: bool) -> Self {
        let numbers: Vec<_> = cluster.numbers().collect();
        let nodes: Vec<u32> = numbers.iter().map(|&node| cluster.process_id(node)).collect();
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
        let (now, peak) = memory_bytes(running.cluster.process_id(node));
        println!("node {node}: {} MB for 1 M cells of 100 B (peak {} MB)", now >> 20, peak >> 20);
    }
}

/// Kills a node that coordinates for a third of all clients.
async fn death(is_pinned: bool) {
    let mut running = Running::new(RealCluster::start_masterless(3, &[]).await, is_pinned);
    for kind in [Kind::Set, Kind::Get] {
        let mourning = Mourning { kind, key_count: KEY_COUNT, value_bytes: VALUE_BYTES };
        let addresses = running.addresses.clone();
        let mut gaps = mourning::measure(&addresses, mourning, || running.cluster.kill(1)).await;
        println!(
            "a coordinator dies, {kind:?} at quorum: longest gap of its clients p50 {} ms, max {} \
             ms, of the others max {} ms; {} of {} clients had a request that failed; one time-out \
             is {} ms",
            median(&mut gaps.widowed).unwrap_or_default().as_millis(),
            gaps.widowed.iter().max().map_or(0, Duration::as_millis),
            gaps.others.iter().max().map_or(0, Duration::as_millis),
            gaps.failed_count,
            gaps.widowed.len() + gaps.others.len(),
            ClientOptions::default().try_timeout.as_millis(),
        );
        running.cluster.start_node(1);
        running.cluster.wait_until_converged().await;
    }
}
