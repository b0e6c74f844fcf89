//! Every request of the client library against three real nodes, once.

use mangrove::base::{Column, Key, Value};
use mangrove::client::{BatchBuilder, CasResult, KeyRange};
use mangrove::kv::{Cell, Expectation};
use mangrove::wire::Outcome;
use real_tests::{RealCluster, block_on};

fn text(cell: Option<Cell>) -> Option<String> {
    cell.map(|cell| String::from_utf8_lossy(cell.value.as_bytes()).into_owned())
}

fn column(name: &'static str) -> Column {
    Column::new(name).expect("a short name")
}

#[test]
fn cell_is_set_read_and_deleted() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let client = cluster.client();
        assert_eq!(client.get("k").await.unwrap(), None);
        let first = client.set("k", "one").await.unwrap();
        let second = client.set("k", "two").await.unwrap();
        assert!(second > first, "versions grow: {first:?} → {second:?}");
        let cell = client.get("k").await.unwrap().unwrap();
        assert_eq!(cell.version, second);
        assert_eq!(text(Some(cell)).as_deref(), Some("two"));
        client.delete("k").await.unwrap();
        client.delete("k").await.unwrap();
        assert_eq!(client.get("k").await.unwrap(), None);
    });
}

#[test]
fn rows_and_keys_are_sorted_and_bounded() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let client = cluster.client();
        let batch = BatchBuilder::new()
            .set_cell("row/b", "2", "b2")
            .set_cell("row/a", "3", "a3")
            .set_cell("row/a", "1", "a1")
            .set_cell("row/a", "2", "a2");
        client.bulk_set(batch.build().unwrap()).await.unwrap();

        let names = |row: &[(Column, Cell)]| -> Vec<Column> {
            row.iter().map(|(column, _)| column.clone()).collect()
        };
        let row = client.row("row/a").await.unwrap();
        assert_eq!(names(&row), [column("1"), column("2"), column("3")]);
        let slice = client.slice("row/a", Some(column("2")), None).await.unwrap();
        assert_eq!(names(&slice), [column("2"), column("3")], "both bounds are inclusive");
        let slice = client.slice("row/a", None, Some(column("2"))).await.unwrap();
        assert_eq!(names(&slice), [column("1"), column("2")]);
        assert_eq!(client.row("row/none").await.unwrap(), []);

        let mut pages = client.keys(KeyRange::prefix("row/").unwrap()).page_limit(1);
        let mut keys = Vec::new();
        while let Some(page) = pages.next_page().await.unwrap() {
            keys.extend(page);
        }
        assert_eq!(keys, [Key::new("row/a").unwrap(), Key::new("row/b").unwrap()]);

        client.delete_row("row/a").await.unwrap();
        assert_eq!(client.row("row/a").await.unwrap(), []);
        let mut pages = client.keys(KeyRange::prefix("row/").unwrap());
        let page = pages.next_page().await.unwrap();
        assert_eq!(page, Some(vec![Key::new("row/b").unwrap()]), "a key goes with its columns");
    });
}

#[test]
fn batch_applies_wholly_or_not_at_all() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let client = cluster.client();
        client.set("taken", "yes").await.unwrap();

        let batch =
            BatchBuilder::new().expect_absent("taken", "").set("a", "1").set("b", "1").delete("x");
        let answer = client.conditional_bulk(batch.build().unwrap()).await.unwrap();
        assert!(matches!(answer, CasResult::Conflict { position: 0, .. }), "{answer:?}");
        assert_eq!(client.get("a").await.unwrap(), None);

        let batch =
            BatchBuilder::new().expect_absent("free", "").set("a", "2").set("b", "2").delete("x");
        let answer = client.conditional_bulk(batch.build().unwrap()).await.unwrap();
        let CasResult::Applied(version) = answer else { unreachable!("{answer:?}") };
        let cells = ["a", "b", "x"].map(|key| (Key::new(key).unwrap(), column("")));
        let cells = client.multi_get(cells.to_vec()).await.unwrap();
        let versions: Vec<_> = cells.iter().flatten().map(|cell| cell.version).collect();
        assert_eq!(versions, [version, version], "one batch, one version: {cells:?}");
    });
}

#[test]
fn compare_and_set_tells_what_was_there() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let client = cluster.client();
        let value = |text: &'static str| Value::new(text).expect("a short value");
        let absent = Expectation::Absent;
        let taken = client.compare_and_set("lock", "", absent.clone(), Some(value("me"))).await;
        let CasResult::Applied(version) = taken.unwrap() else { unreachable!("it was absent") };
        let refused = client.compare_and_set("lock", "", absent, Some(value("you"))).await.unwrap();
        let CasResult::Conflict { current, .. } = refused else { unreachable!("{refused:?}") };
        assert_eq!(text(current).as_deref(), Some("me"));
        let mine = Expectation::Version(version);
        let released = client.compare_and_set("lock", "", mine, None).await.unwrap();
        assert!(matches!(released, CasResult::Applied(_)), "{released:?}");
        assert_eq!(client.get("lock").await.unwrap(), None);
    });
}

#[test]
fn too_large_is_refused_as_not_applied_and_the_largest_is_stored() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let client = cluster.client();
        let error = client.set("k", vec![7; Value::BYTES_MAX + 1]).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert!(error.to_string().contains("value"), "{error}");
        client.set("k", vec![7; Value::BYTES_MAX]).await.unwrap();
        let cell = client.get("k").await.unwrap().unwrap();
        assert_eq!(cell.value.len(), Value::BYTES_MAX);
    });
}

#[test]
fn every_node_says_how_it_is() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        cluster.client().set("k", "v").await.unwrap();
        cluster.wait_until_caught_up().await;
        let leader = cluster.wait_for_leader().await;
        for node in cluster.numbers() {
            let status = cluster.status(node).await.unwrap();
            assert_eq!(status.cluster, cluster.id());
            assert_eq!(status.role, if node == leader { "leader" } else { "follower" });
            assert_eq!(status.peers.len(), if node == leader { 2 } else { 0 }, "{status:?}");
            assert_eq!(status.cell_count, 1, "{status:?}");
        }
    });
}

#[test]
fn single_node_cluster_serves_alone() {
    block_on(async {
        let mut cluster = RealCluster::start(1).await;
        let client = cluster.client();
        client.set("k", "v").await.unwrap();
        cluster.restart(1);
        assert_eq!(text(client.get("k").await.unwrap()).as_deref(), Some("v"));
    });
}
