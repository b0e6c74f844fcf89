//! A data directory belongs to one node, and to the cluster it was made for.

use std::fs::{self, File};
use std::time::Duration;

use real_tests::{NodeProcess, RealCluster, block_on, free_address};

/// Longest time for a node to find out that it cannot start.
const LIMIT: Duration = Duration::from_secs(20);

/// Makes a node of a cluster of its own on a directory that is not its own, and returns what it
/// says when it gives up.
async fn refusal_of(cluster: &RealCluster, node: usize, id: &str, cluster_id: &str) -> String {
    let log = cluster.scratch().join("second.log");
    let address = free_address();
    let (members, data) = (format!("{id}={address}"), cluster.data(node).display().to_string());
    let arguments = [
        ["serve", "--node", id],
        ["--listen", &address, "--cluster-id"],
        [cluster_id, "--members", &members],
    ];
    let mut arguments: Vec<String> =
        arguments.as_flattened().iter().map(ToString::to_string).collect();
    arguments.extend(["--data".to_owned(), data]);
    File::create(&log).expect("the log can be written");
    let mut second = NodeProcess::new(arguments, &log);
    second.start();
    let status = second.ended(LIMIT).await;
    assert!(!status.success(), "it must not run: {}", second.log());
    second.log()
}

#[test]
fn second_node_on_the_same_directory_is_refused_by_name() {
    block_on(async {
        let cluster = RealCluster::start(1).await;
        let said = refusal_of(&cluster, 1, "1", &cluster.id().to_string()).await;
        assert!(said.contains("another node is running"), "{said}");
        assert!(said.contains(&cluster.data(1).display().to_string()), "{said}");
        cluster.client().set("k", "v").await.unwrap();
    });
}

#[test]
fn directory_of_another_node_or_cluster_is_refused() {
    block_on(async {
        let mut cluster = RealCluster::start(1).await;
        cluster.client().set("k", "v").await.unwrap();
        cluster.kill(1);
        let ours = cluster.id().to_string();
        for (node, cluster_id) in [("2", ours.as_str()), ("1", "00000000000000aa")] {
            let said = refusal_of(&cluster, 1, node, cluster_id).await;
            let owner = format!("node n1 of cluster {ours}");
            assert!(said.contains(&owner) && said.contains("--data"), "{said}");
        }
        cluster.start_node(1);
        assert!(cluster.client().get("k").await.unwrap().is_some(), "nothing was touched");
    });
}

#[test]
fn directory_with_one_damaged_name_plate_is_used_and_with_two_says_what_to_do() {
    block_on(async {
        let mut cluster = RealCluster::start(1).await;
        cluster.client().set("k", "v").await.unwrap();
        let plate = cluster.data(1).join("NODE");
        let whole = fs::read(&plate).unwrap();
        let flip = |bytes: &mut Vec<u8>, copy: usize| bytes[copy + 13] ^= 1;
        for copy in [0, 4096] {
            cluster.kill(1);
            let mut bytes = whole.clone();
            flip(&mut bytes, copy);
            fs::write(&plate, bytes).unwrap();
            cluster.start_node(1);
            assert!(cluster.client().get("k").await.unwrap().is_some());
            assert_eq!(fs::read(&plate).unwrap(), whole, "copy {copy} is not mended");
        }
        cluster.kill(1);
        let mut bytes = whole.clone();
        flip(&mut bytes, 0);
        flip(&mut bytes, 4096);
        fs::write(&plate, &bytes).unwrap();
        let said = refusal_of(&cluster, 1, "1", &cluster.id().to_string()).await;
        assert!(said.contains("NODE is damaged") && said.contains("store salvage"), "{said}");
        assert_eq!(fs::read(&plate).unwrap(), bytes, "it was changed");
        // What it says helps.
        fs::write(&plate, whole).unwrap();
        cluster.start_node(1);
        assert!(cluster.client().get("k").await.unwrap().is_some());
    });
}
