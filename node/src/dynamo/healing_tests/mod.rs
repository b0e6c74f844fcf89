//! What reads, anti-entropy and floors promise, one test per sentence, on clusters without a
//! runtime; and for each planted bug of theirs a test that shows it.
//!
//! The clusters are those of `super::harness`. `reads`, `sync`, `floors` and `losses` set up one
//! situation each; `properties` runs arbitrary schedules of writes, reads, crashes, losses and old
//! disks, and then asks whether the replicas become equal and nothing deleted has come back.

#[cfg(test)]
mod floors;
#[cfg(test)]
mod losses;
pub mod properties;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod sync;

use std::time::Duration;

#[cfg(test)]
use super::Input;
use super::harness::{Cluster, Shape};
use super::{Config, Repair};
use crate::base::{Entry, NodeId, Payload, Stamp, Written};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

/// Three nodes, three replicas, and nothing that heals by itself but what reads do.
fn cluster() -> Cluster {
    Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, quiet)
}

fn quiet(config: &mut Config, _: u64) {
    config.repair = Repair { hints: false, reads: false };
    config.sync_interval = HOUR;
    config.floor_interval = HOUR;
}

/// Only anti-entropy heals.
fn syncing(config: &mut Config, seed: u64) {
    quiet(config, seed);
    config.sync_interval = Duration::from_millis(100);
}

/// Anti-entropy, and floors soon.
fn raising(config: &mut Config, seed: u64) {
    syncing(config, seed);
    config.floor_interval = Duration::from_millis(500);
    config.floor_age = SECOND;
    config.write_timeout = Duration::from_millis(200);
    config.hint_after = Duration::from_millis(100);
}

/// A node that there is not any more: what it wrote is older than the cluster.
const OLD: NodeId = NodeId(60);

/// Makes an entry of a write that is `ms` old when the cluster begins at 10,000 ms.
fn entry(cluster: &Cluster, key: &str, value: &str, ms: u64) -> Entry {
    let stamp = Stamp::new(ms, 0, OLD);
    let written = Written::Value(Payload::new(value.as_bytes().to_vec()).unwrap_or_default());
    Entry { place: cluster.place(key), stamp, written }
}

fn tombstone(cluster: &Cluster, key: &str, ms: u64) -> Entry {
    let stamp = Stamp::new(ms, 0, OLD);
    Entry { place: cluster.place(key), stamp, written: Written::Deleted }
}

/// Has entries on a node's disk that nobody wrote while the cluster was watched.
fn plant(cluster: &mut Cluster, at: &[NodeId], entries: &[Entry]) {
    for &id in at {
        cluster.crash(id, 0);
        for entry in entries {
            cluster.plant(id, entry.clone());
        }
        cluster.start(id);
    }
    cluster.run(SECOND, |_, _| false);
}

/// Returns what is on a node's disk under a key.
fn stored(cluster: &Cluster, id: NodeId, key: &str) -> Option<Entry> {
    let place = cluster.place(key);
    cluster.node(id).disk.store.entries.get(&(place.as_bytes().to_vec(), true)).cloned()
}

/// Tells whether all nodes have the same entries, tombstones left out that may be forgotten.
fn are_equal(cluster: &Cluster) -> bool {
    let mut shown = cluster.ids().into_iter().map(|id| visible(cluster, id));
    let first = shown.next();
    shown.all(|other| Some(&other) == first.as_ref())
}

fn visible(cluster: &Cluster, id: NodeId) -> Vec<Entry> {
    let store = &cluster.node(id).disk.store;
    let floor = |entry: &Entry| {
        let partition = super::placement::partition_of_place(entry.place.as_bytes());
        store.floor(partition.unwrap_or_default())
    };
    let is_kept = |entry: &&Entry| !entry.is_tombstone() || entry.stamp > floor(entry);
    store.entries.values().filter(is_kept).cloned().collect()
}
