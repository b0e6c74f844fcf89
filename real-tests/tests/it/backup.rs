//! A cluster's state taken away in a file and brought back in another cluster; a damaged store.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use real_tests::{RealCluster, block_on, run_program};

/// How many cells are imported.
const RECORD_COUNT: usize = 6_000;

/// Runs the program; returns its exit code, and what it said.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = run_program(arguments, b"");
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code(), said)
}

#[track_caller]
fn ok(arguments: &[&str]) -> String {
    let (code, said) = run(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

fn import(cluster: &RealCluster, name: &str, version: usize) {
    let lines: Vec<String> = (0..RECORD_COUNT)
        .map(|number| {
            let (key, column) = (number / 4, number % 4);
            format!(
                "{{\"key\":\"row/{key:05}\",\"column\":\"{column}\",\"value\":\"{version} {}\"}}\n",
                "x".repeat(number % 90)
            )
        })
        .collect();
    let file = cluster.scratch().join(name);
    fs::write(&file, lines.concat()).expect("the file is written");
    ok(&["import", text(&file), "--cluster", &cluster.addresses().join(",")]);
}

fn export(cluster: &RealCluster) -> Vec<u8> {
    let file = cluster.scratch().join("out.jsonl");
    ok(&["export", "--file", text(&file), "--cluster", &cluster.addresses().join(",")]);
    fs::read(&file).expect("the file is there")
}

/// Gives every node of a cluster that was never started the state in a file.
fn restore(cluster: &RealCluster, file: &Path) {
    let nodes = cluster.numbers().zip(cluster.addresses());
    let members: Vec<String> = nodes.map(|(id, address)| format!("{id}={address}")).collect();
    for node in cluster.numbers() {
        let data = cluster.data(node);
        let (code, said) = restore_node(file, node, &data, &cluster.id(), &members.join(","));
        assert!(code == Some(0) && said.contains("every other member"), "{said}");
    }
}

/// Restores the only node of a cluster of another id.
fn restore_alone(file: &Path, data: &Path, address: &str) -> (Option<i32>, String) {
    restore_node(file, 1, data, &1, &format!("1={address}"))
}

fn restore_node(
    file: &Path,
    node: usize,
    data: &Path,
    cluster_id: &impl Display,
    members: &str,
) -> (Option<i32>, String) {
    run(&[
        "snapshot",
        "restore",
        text(file),
        "--node",
        &node.to_string(),
        "--data",
        text(data),
        "--cluster-id",
        &cluster_id.to_string(),
        "--members",
        members,
    ])
}

#[test]
fn saved_state_makes_a_new_cluster_with_the_same_cells() {
    block_on(async {
        let mut old = RealCluster::start(3).await;
        import(&old, "one.jsonl", 1);
        ok(&["delete", "row/00007", "--row", "--cluster", &old.addresses().join(",")]);
        let backup = old.scratch().join("backup.snapshot");
        // A node that does not lead is asked: it names the one that does.
        let leader = old.wait_for_leader().await;
        let follower = old.numbers().find(|node| *node != leader).expect("there are three");
        ok(&["snapshot", "save", text(&backup), "--cluster", old.address(follower)]);
        let expected = export(&old);
        import(&old, "two.jsonl", 2);
        assert_ne!(export(&old), expected, "what is written later is not in the file");

        let said = ok(&["snapshot", "verify", text(&backup), "--output", "json"]);
        assert!(said.contains(&format!("\"cells\":{}", RECORD_COUNT - 4)), "{said}");

        let mut new = RealCluster::prepare(3, &[]);
        restore(&new, &backup);
        let (code, said) = restore_alone(&backup, &new.data(1), new.address(1));
        assert_eq!(code, Some(2), "no new node: {said}");
        new.numbers().for_each(|node| new.start_node(node));
        new.wait_for_leader().await;
        assert!(export(&new) == expected, "the cells of the new cluster are those of the old");
        // It goes on like any other, also when its leader dies.
        let addresses = new.addresses().join(",");
        ok(&["set", "after", "restoration", "--cluster", &addresses]);
        let leader = new.wait_for_leader().await;
        new.restart(leader);
        new.wait_until_caught_up().await;
        assert!(ok(&["get", "after", "--cluster", &addresses]).contains("restoration"));
    });
}

#[test]
fn flipped_bit_of_a_saved_state_is_found_and_not_restored() {
    block_on(async {
        let cluster = RealCluster::start(1).await;
        import(&cluster, "one.jsonl", 1);
        let backup = cluster.scratch().join("backup.snapshot");
        ok(&["snapshot", "save", text(&backup), "--cluster", cluster.address(1)]);
        let whole = fs::read(&backup).expect("the file is there");
        for at in [3, 20, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&backup, damaged).expect("the file is written");
            let (code, said) = run(&["snapshot", "verify", text(&backup)]);
            assert!(code == Some(6) && said.contains("damaged at byte"), "byte {at}: {said}");
        }
        let data = cluster.scratch().join("new");
        let (code, _) = restore_alone(&backup, &data, "127.0.0.1:1");
        assert!(code == Some(6) && !data.exists(), "nothing is made of it");
    });
}

#[test]
fn damaged_store_of_a_lone_node_is_said_and_salvaged() {
    block_on(async {
        let mut cluster = RealCluster::start(1).await;
        import(&cluster, "one.jsonl", 1);
        let (data, address) = (cluster.data(1), cluster.address(1).to_owned());
        // Everything so far goes to a table; what follows is in the log alone.
        let backup = cluster.scratch().join("backup.snapshot");
        ok(&["snapshot", "save", text(&backup), "--cluster", &address]);
        ok(&["set", "newest", "in the log", "--cluster", &address]);
        let expected = export(&cluster);
        let (code, said) = run(&["store", "verify", text(&data)]);
        assert!(code == Some(6) && said.contains("is running on this directory"), "{said}");
        cluster.kill(1);
        assert!(ok(&["store", "verify", text(&data)]).contains("ok"));
        let out = cluster.scratch().join("salvaged.jsonl");
        ok(&["store", "salvage", text(&data), "--to", text(&out)]);
        assert!(fs::read(&out).expect("it is there") == expected, "nothing was damaged");

        let table = table_of(&data);
        let mut bytes = fs::read(&table).expect("it is there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&table, bytes).expect("it is written");
        let (code, said) = run(&["store", "verify", text(&data), "--output", "json"]);
        assert_eq!(code, Some(6), "{said}");
        assert!(said.contains("\"damage\":\"tables/table-"), "{said}");
        assert!(said.contains("\"after\":{") && said.contains("\"key\":\"row/0"), "{said}");
        assert!(said.contains("mangrove store salvage"), "{said}");
        let (code, said) = run(&["store", "salvage", text(&data), "--to", text(&out)]);
        assert!(code == Some(6) && said.contains("lost: cells after \"row/0"), "{said}");
        let salvaged = fs::read_to_string(&out).expect("it is there");
        let expected = String::from_utf8(expected).expect("lines of text");
        let (kept, all) = (salvaged.lines().count(), expected.lines().count());
        assert!(kept < all && kept > all - 400, "{kept} of {all}");
        assert!(salvaged.lines().all(|line| expected.contains(line)));
        assert!(salvaged.contains("in the log"));
        let left: Vec<_> =
            fs::read_dir(cluster.scratch()).expect("a directory").flatten().collect();
        let is_scratch = |name: &str| name.contains("scratch") || name.contains("partial");
        assert!(!left.iter().any(|entry| is_scratch(&entry.file_name().to_string_lossy())));
    });
}

/// Returns the longest table of a node.
fn table_of(data: &Path) -> PathBuf {
    let tables = fs::read_dir(data.join("tables")).expect("a directory").flatten();
    let tables = tables.map(|entry| entry.path()).filter(|path| text(path).contains("table-"));
    tables.max_by_key(|path| fs::metadata(path).map_or(0, |data| data.len())).expect("a table")
}
