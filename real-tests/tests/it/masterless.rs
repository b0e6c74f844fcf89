//! Masterless clusters of real processes: they serve while nodes are dead, and agree afterwards.

use std::fs;
use std::time::Duration;

use mangrove::client::ClientError;
use mangrove::wire::{Level, Outcome};
use real_tests::{Load, NodeProcess, RealCluster, block_on, eventually, free_address, run_program};

/// Cells of an import.
const CELL_COUNT: usize = 2_000;

/// Longest time for a load to get some more writes through.
const LIMIT: Duration = Duration::from_secs(30);

/// Returns the lines of cells whose keys begin with `prefix`, sorted.
fn lines(prefix: &str) -> Vec<String> {
    let line = |number| {
        let (key, column) = (format!("{prefix}/{:05}", number / 10), number % 10);
        format!("{{\"key\":\"{key}\",\"column\":\"{column}\",\"value\":\"{prefix} {number}\"}}\n")
    };
    (0..CELL_COUNT).map(line).collect()
}

/// Imports lines through any node.
fn import(cluster: &RealCluster, lines: &[String], level: &str) {
    let file = cluster.scratch().join("in.jsonl");
    fs::write(&file, lines.concat()).expect("the file can be written");
    let (file, addresses) = (file.display().to_string(), cluster.addresses().join(","));
    let arguments = ["import", &file, "--cluster", &addresses, "--level", level];
    let done = run_program(&arguments, b"");
    assert!(done.status.success(), "{done:?}");
}

/// Returns the lines that one node exports at a level.
fn export(cluster: &RealCluster, node: usize, level: &str) -> Vec<String> {
    let arguments = ["export", "--cluster", cluster.address(node), "--level", level];
    let done = run_program(&arguments, b"");
    assert!(done.status.success(), "{done:?}");
    let text = String::from_utf8(done.stdout).expect("the program writes text");
    text.split_inclusive('\n').map(str::to_owned).collect()
}

/// Writes and reads a cell at a level, through each of these nodes.
async fn assert_serves(cluster: &RealCluster, nodes: &[usize], level: Level) {
    for node in nodes {
        let client = cluster.client_of(*node).with_level(level);
        let (key, value) = (format!("probe/{node}"), format!("{level:?}"));
        client.set(key.clone(), value.clone()).await.expect("it takes writes");
        let read = async || {
            // At level one, another replica than the one that has it may be the quickest.
            let cell = client.get(key.clone()).await.expect("it answers reads")?;
            (cell.value.as_bytes() == value.as_bytes()).then_some(())
        };
        eventually(LIMIT, "the write is seen", read).await;
    }
}

#[test]
fn node_killed_stops_nobody_and_has_everything_when_back() {
    block_on(async {
        let mut cluster = RealCluster::start_masterless(3, &[]).await;
        let (before, during) = (lines("before"), lines("during"));
        import(&cluster, &before, "quorum");
        cluster.kill(3);
        assert_serves(&cluster, &[1, 2], Level::Quorum).await;
        assert_serves(&cluster, &[1, 2], Level::One).await;
        import(&cluster, &during, "quorum");
        let all = cluster.client_of(1).with_level(Level::All);
        let refused = all.set("probe/all", "v").await;
        assert!(refused.is_err(), "not all replicas are there: {refused:?}");

        cluster.start_node(3);
        cluster.wait_until_converged().await;
        cluster.client().delete_row("probe/1").await.unwrap();
        cluster.client().delete_row("probe/2").await.unwrap();
        cluster.client().delete_row("probe/all").await.unwrap();
        cluster.wait_until_converged().await;
        let wanted = [before, during].concat();
        for node in cluster.numbers() {
            // Each node asks itself first.
            let exported = export(&cluster, node, "one");
            assert_eq!(exported.len(), wanted.len(), "of node {node}");
            let differing = wanted.iter().zip(&exported).find(|(line, out)| line != out);
            assert_eq!(differing, None, "line in, line out of node {node}");
        }
    });
}

#[test]
fn node_whose_disk_is_exchanged_answers_when_it_has_its_share_again() {
    block_on(async {
        let mut cluster = RealCluster::start_masterless(3, &[]).await;
        let cells = lines("cells");
        import(&cluster, &cells, "quorum");
        cluster.kill(3);
        fs::remove_dir_all(cluster.data(3)).unwrap();
        cluster.start_node(3);
        // Not before it is whole does it count as a replica; then what it says is the truth.
        assert_eq!(export(&cluster, 3, "one"), cells);
        cluster.wait_until_converged().await;
        assert_eq!(export(&cluster, 3, "one"), cells);
    });
}

#[test]
fn four_nodes_with_four_replicas_serve_levels_one_and_two_with_two_nodes_dead() {
    block_on(async {
        let mut cluster = RealCluster::start_masterless(4, &["--replication-factor", "4"]).await;
        let cells = lines("cells");
        import(&cluster, &cells, "two");
        cluster.kill(3);
        cluster.kill(4);
        for level in [Level::One, Level::Two] {
            assert_serves(&cluster, &[1, 2], level).await;
        }
        for level in [Level::Three, Level::Quorum] {
            let client = cluster.client_of(1).with_level(level);
            let refused = client.get("cells/00000").await;
            assert!(refused.is_err(), "two of four are no {level:?}: {refused:?}");
        }
        assert_eq!(
            cluster.client_of(1).with_level(Level::Two).row("cells/00000").await.unwrap().len(),
            10
        );
        cluster.start_node(3);
        cluster.start_node(4);
        cluster.wait_until_converged().await;
        let first = export(&cluster, 1, "one");
        assert_eq!(first.len(), cells.len() + 2, "the cells and two probes");
        for node in cluster.numbers() {
            assert_eq!(export(&cluster, node, "one"), first, "node {node} has what node 1 has");
        }
    });
}

#[test]
fn all_nodes_killed_at_once_keep_what_they_acknowledged() {
    block_on(async {
        let mut cluster = RealCluster::start_masterless(3, &[]).await;
        let client = cluster.client();
        for _ in 0..2 {
            let load = Load::start(&client, 8);
            let enough = async || (load.acknowledged_count() >= 200).then_some(());
            eventually(LIMIT, "200 writes are acknowledged", enough).await;
            for node in cluster.numbers() {
                cluster.kill(node);
            }
            for node in cluster.numbers() {
                cluster.start_node(node);
            }
            let promises = load.stop().await;
            cluster.wait_until_converged().await;
            promises.check(&client).await;
        }
    });
}

#[test]
fn what_only_a_leader_can_do_is_refused_with_what_to_do_instead() {
    block_on(async {
        let cluster = RealCluster::start_masterless(1, &[]).await;
        let address = cluster.address(1);
        let file = cluster.scratch().join("saved").display().to_string();
        for (command, advice) in [
            (vec!["cas", "k", "--expect-absent", "--set", "v"], "primary-backup"),
            (vec!["snapshot", "save", &file], "mangrove export"),
        ] {
            let answer = run_program(&[&command[..], &["--cluster", address]].concat(), b"");
            assert_eq!(answer.status.code(), Some(2), "{command:?}: {answer:?}");
            let said = String::from_utf8_lossy(&answer.stderr).into_owned();
            assert!(said.contains(advice), "{command:?}: {said}");
        }
        let error = cluster.client().with_level(Level::Two).set("k", "v").await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert!(matches!(error, ClientError::Invalid(_)), "one replica is never two: {error}");
        let status = run_program(&["status", "--cluster", address], b"");
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(said.contains("masterless") && said.contains("hints"), "{said}");
    });
}

#[test]
fn directory_of_the_other_mode_is_refused() {
    block_on(async {
        let mut cluster = RealCluster::start_masterless(1, &[]).await;
        cluster.client().set("k", "v").await.unwrap();
        cluster.kill(1);
        let (id, log) = (cluster.id().to_string(), cluster.scratch().join("second.log"));
        let (data, address) = (cluster.data(1).display().to_string(), free_address());
        let members = format!("1={address}");
        let own = ["serve", "--node", "1", "--cluster-id", &id, "--data", &data];
        let own = [&own[..], &["--members", &members]].concat();
        for (mode, advice) in [
            (vec!["--mode", "primary-backup"], "--mode"),
            (vec!["--mode", "masterless", "--partitions", "7"], "--partitions"),
        ] {
            let arguments = [&own[..], &mode].concat().iter().map(ToString::to_string).collect();
            let mut second = NodeProcess::new(arguments, &log);
            second.start();
            let status = second.ended(LIMIT).await;
            assert!(!status.success() && second.log().contains(advice), "{}", second.log());
        }
        cluster.start_node(1);
        assert!(cluster.client().get("k").await.unwrap().is_some(), "nothing was touched");
    });
}
