//! What a single user expects of a store, by name and in every mode; and what several users that
//! write the same cells in bulk may expect of each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mangrove::base::{Column, Key};
use mangrove::client::{BatchBuilder, Client};
use mangrove::env::real::RealEnv;
use mangrove::kv::Cell;
use real_tests::{RealCluster, block_on};

/// Cells that every bulk write of a test writes.
const CELLS: usize = 12;

/// Bulk writes of each writer.
const BULKS: usize = 60;

/// Writers at a time.
const WRITERS: usize = 4;

/// The ways to run a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Single,
    PrimaryBackup,
    Masterless,
}

impl Mode {
    async fn start(self) -> RealCluster {
        match self {
            Self::Single => RealCluster::start(1).await,
            Self::PrimaryBackup => RealCluster::start(3).await,
            Self::Masterless => RealCluster::start_masterless(3, &[]).await,
        }
    }
}

/// Returns one client for each node, which asks that node first.
fn clients(cluster: &RealCluster) -> Vec<Client<RealEnv>> {
    let rotated = cluster.numbers().map(|node| {
        let mut addresses = cluster.addresses().to_vec();
        addresses.rotate_left(node - 1);
        mangrove::client::connect(addresses)
    });
    rotated.collect()
}

fn text(cell: Option<Cell>) -> Option<String> {
    cell.map(|cell| String::from_utf8_lossy(cell.value.as_bytes()).into_owned())
}

async fn get(client: &Client<RealEnv>, key: &str) -> Option<String> {
    text(client.get(key.to_owned()).await.expect("the cluster answers"))
}

async fn set_then_get(mode: Mode) {
    let cluster = mode.start().await;
    for (node, client) in clients(&cluster).iter().enumerate() {
        client.set("k", format!("v{node}")).await.expect("it is taken");
        for reader in clients(&cluster) {
            assert_eq!(get(&reader, "k").await, Some(format!("v{node}")), "{mode:?}");
        }
    }
}

async fn set_delete_get(mode: Mode) {
    let cluster = mode.start().await;
    for client in clients(&cluster) {
        client.set("k", "v").await.expect("it is taken");
        client.delete("k").await.expect("it is taken");
        for reader in clients(&cluster) {
            assert_eq!(get(&reader, "k").await, None, "{mode:?}");
        }
        client.delete("k").await.expect("what is not there can be deleted");
    }
}

async fn get_without_set(mode: Mode) {
    let cluster = mode.start().await;
    for client in clients(&cluster) {
        assert_eq!(get(&client, "never").await, None, "{mode:?}");
        assert_eq!(client.row("never").await.expect("it answers"), Vec::new(), "{mode:?}");
    }
}

async fn set_set_get(mode: Mode) {
    let cluster = mode.start().await;
    let all = clients(&cluster);
    for round in 0..10 {
        // The second write goes through another node than the first.
        for (client, value) in all.iter().cycle().skip(round).zip(["first", "second"]) {
            client.set("k", format!("{value} {round}")).await.expect("it is taken");
        }
        for reader in &all {
            assert_eq!(get(reader, "k").await, Some(format!("second {round}")), "{mode:?}");
        }
    }
}

async fn set_exit_get(mode: Mode) {
    let mut cluster = mode.start().await;
    // As gently as an operator, and as rudely as a power switch.
    for is_gentle in [true, false] {
        let value = format!("gentle {is_gentle}");
        cluster.client().set("k", value.clone()).await.expect("it is taken");
        for node in cluster.numbers() {
            if is_gentle {
                assert!(cluster.stop(node).await.success(), "{mode:?}: node {node}");
            } else {
                cluster.kill(node);
            }
        }
        for node in cluster.numbers() {
            cluster.start_node(node);
        }
        assert_eq!(get(&cluster.client(), "k").await, Some(value), "{mode:?}");
    }
}

/// Makes tests of one sentence in every mode, each with its name.
macro_rules! in_every_mode {
    ($($sentence:ident)*) => {
        mod single {
            $(#[test] fn $sentence() { super::block_on(super::$sentence(super::Mode::Single)); })*
        }
        mod primary_backup {
            $(#[test] fn $sentence() {
                super::block_on(super::$sentence(super::Mode::PrimaryBackup));
            })*
        }
        mod masterless {
            $(#[test] fn $sentence() {
                super::block_on(super::$sentence(super::Mode::Masterless));
            })*
        }
    };
}

in_every_mode! {
    set_then_get
    set_delete_get
    get_without_set
    set_set_get
    set_exit_get
    bulk_writes_of_the_same_cells_do_not_mix
}

fn cells() -> Vec<(Key, Column)> {
    // Far apart, so that masterless nodes have them in different partitions.
    let keys = (0..CELLS).map(|cell| Key::new(format!("{cell}/bulk")).expect("a short key"));
    keys.map(|key| (key, Column::default())).collect()
}

/// Reads all cells of one state, and returns the different values in them.
async fn values(client: &Client<RealEnv>) -> BTreeSet<Option<String>> {
    let found = client.multi_get(cells()).await.expect("the cluster answers");
    found.into_iter().map(text).collect()
}

/// Writes all cells with one value, again and again.
async fn write_in_bulk(client: Client<RealEnv>, writer: usize) {
    for number in 0..BULKS {
        let mut batch = BatchBuilder::new();
        for (key, _) in cells() {
            batch = batch.set(key.into_bytes(), format!("{writer}/{number}"));
        }
        let batch = batch.build().expect("a small batch");
        client.bulk_set(batch).await.expect("it is taken");
    }
}

/// Reads until it is told to stop, and demands one value in all cells; returns how often.
async fn read_whole(client: Client<RealEnv>, stop: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let seen = values(&client).await;
        assert_eq!(seen.len(), 1, "a reader saw parts of several bulk writes: {seen:?}");
        count += 1;
    }
    count
}

async fn bulk_writes_of_the_same_cells_do_not_mix(mode: Mode) {
    let cluster = mode.start().await;
    let all = clients(&cluster);
    let stop = Arc::<AtomicBool>::default();
    let writers = (0..WRITERS).map(|writer| {
        let client = all[writer % all.len()].clone();
        tokio::spawn(write_in_bulk(client, writer))
    });
    let writers: Vec<_> = writers.collect();
    // Where there is a leader, readers see one state at any moment; elsewhere in the end.
    let readers = all.iter().filter(|_| mode != Mode::Masterless);
    let readers: Vec<_> =
        readers.map(|client| tokio::spawn(read_whole(client.clone(), Arc::clone(&stop)))).collect();
    for writer in writers {
        writer.await.expect("a writer ends without panic");
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.expect("a reader sees whole states") > 0, "it has read something");
    }
    for client in &all {
        let seen = values(client).await;
        assert_eq!(
            seen.len(),
            1,
            "{mode:?}: the last bulk write is not there as a whole: {seen:?}"
        );
        assert!(!seen.contains(&None), "{mode:?}: {seen:?}");
    }
}
