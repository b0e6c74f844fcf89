//! `mangrove crash-test` as a user runs it, a few rounds of each variant; and the fault that it
//! uses, one step at a time.

use std::fs;

use mangrove::client::{BatchBuilder, ClientError};
use mangrove::wire::Outcome;
use real_tests::{RealCluster, block_on, run_program};

/// Arguments of nodes that make tables soon, and may be asked to lose them.
const FAULTY: [&str; 7] = [
    "--debug-faults",
    "--memtable-bytes",
    "64KiB",
    "--flush-log-bytes",
    "64KiB",
    "--wal-segment-bytes",
    "64KiB",
];

/// Bytes of a value of which a few hundred fill several memtables.
const VALUE_BYTES: usize = 1 << 10;
const CELL_COUNT: usize = 600;

/// Runs some rounds of one variant and demands that every promise is kept.
fn rounds_of(mode: &str, rounds: u32) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let data = directory.path().join("crash").display().to_string();
    let rounds = rounds.to_string();
    let arguments =
        ["crash-test", "--mode", mode, "--rounds", &rounds, "--data", &data, "--output", "json"];
    let done = run_program(&arguments, b"");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}\n{errors}");
    let verdict: serde_json::Value = serde_json::from_str(&said).expect("the verdict is JSON");
    assert_eq!(verdict["kept"], true, "{said}");
    assert_eq!(verdict["total"]["rounds"].to_string(), rounds, "{said}");
    for count in ["kills", "sets", "bulks", "loss_requests", "checked_cells"] {
        assert!(verdict["total"][count].as_u64() > Some(0), "no {count}: {said}");
    }
}

#[test]
fn single_node_keeps_its_promises() {
    rounds_of("single", 6);
}

#[test]
fn primary_backup_cluster_keeps_its_promises() {
    rounds_of("primary-backup", 6);
}

#[test]
fn masterless_cluster_keeps_its_promises() {
    rounds_of("masterless", 6);
}

fn value(number: usize) -> String {
    format!("{number:0VALUE_BYTES$}")
}

/// Fills several tables, a part of it after the node was asked to lose what it writes to them.
async fn fill(cluster: &RealCluster) {
    let client = cluster.client();
    for number in 0..CELL_COUNT {
        let loss = if number == CELL_COUNT / 2 { 1.0 } else { 0.0 };
        let faulty = client.with_debug_table_loss(loss);
        faulty.set(format!("k{number:05}"), value(number)).await.expect("it is taken");
    }
}

async fn assert_filled(cluster: &RealCluster) {
    let client = cluster.client();
    for number in 0..CELL_COUNT {
        let cell = client.get(format!("k{number:05}")).await.expect("it answers");
        let cell = cell.unwrap_or_else(|| unreachable!("k{number:05} is lost"));
        assert_eq!(cell.value.as_bytes(), value(number).as_bytes(), "k{number:05}");
    }
}

#[test]
fn tables_lost_by_a_node_alone_come_back_from_its_log() {
    block_on(async {
        let mut cluster = RealCluster::prepare(1, &FAULTY);
        cluster.start_node(1);
        fill(&cluster).await;
        let before = cluster.status(1).await.unwrap();
        let held = cluster.data(1).join("tables.held");
        assert!(held.is_dir(), "nothing is held back");
        cluster.kill(1);
        let manifest =
            |place: &str| fs::read(cluster.data(1).join(place).join("MANIFEST")).unwrap();
        assert_ne!(manifest("tables"), manifest("tables.held"), "no table was written meanwhile");
        cluster.start_node(1);
        assert_filled(&cluster).await;
        assert!(!held.exists(), "it was lost once");
        let after = cluster.status(1).await.unwrap();
        assert!(after.commit_index >= before.commit_index, "{after:?} after {before:?}");
        // What was rebuilt is as durable as anything.
        cluster.restart(1);
        assert_filled(&cluster).await;
    });
}

#[test]
fn tables_lost_by_every_node_come_back_from_their_logs() {
    block_on(async {
        for mode in ["primary-backup", "masterless"] {
            let arguments = [&FAULTY[..], &["--mode", mode]].concat();
            let mut cluster = RealCluster::prepare(3, &arguments);
            for node in cluster.numbers() {
                cluster.start_node(node);
            }
            cluster.client().set("ready", "yes").await.expect("it is taken");
            for address in cluster.addresses() {
                let asked = cluster.client().debug_table_loss_at(address, 1.0).await;
                asked.expect("it was started with the switch");
            }
            fill(&cluster).await;
            let held = |node: usize| cluster.data(node).join("tables.held");
            for node in cluster.numbers() {
                assert!(held(node).is_dir(), "{mode}: node {node} holds nothing back");
            }
            for node in cluster.numbers() {
                cluster.kill(node);
            }
            for node in cluster.numbers() {
                cluster.start_node(node);
            }
            assert_filled(&cluster).await;
            for node in cluster.numbers() {
                let held = cluster.data(node).join("tables.held");
                assert!(!held.exists(), "{mode}: node {node} has not lost its tables");
            }
        }
    });
}

#[test]
fn node_without_the_switch_refuses_the_fault_and_writes_nothing() {
    block_on(async {
        for mode in ["primary-backup", "masterless"] {
            let mut cluster = RealCluster::prepare(1, &["--mode", mode]);
            cluster.start_node(1);
            let faulty = cluster.client().with_debug_table_loss(0.5);
            let batch = BatchBuilder::new().set("a", "1").set("b", "2").build().unwrap();
            for error in
                [faulty.set("a", "1").await.unwrap_err(), faulty.bulk_set(batch).await.unwrap_err()]
            {
                assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
                assert!(matches!(error, ClientError::Invalid(_)), "{error}");
                assert!(error.to_string().contains("--debug-faults"), "{error}");
            }
            let asked = cluster.client().debug_table_loss_at(cluster.address(1), 0.5).await;
            assert!(matches!(asked, Err(ClientError::Invalid(_))), "{asked:?}");
            assert_eq!(cluster.client().get("a").await.unwrap(), None, "{mode}");
            let arguments = ["set", "a", "1", "--debug-table-loss", "1", "--cluster"];
            let done = run_program(&[&arguments[..], &[cluster.address(1)]].concat(), b"");
            assert_eq!(done.status.code(), Some(2), "{done:?}");
        }
    });
}
