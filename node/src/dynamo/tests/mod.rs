//! The rules of the write side, one by one.

mod batches;
mod clocks;
mod hints;
mod limits;
mod start;
mod writes;

use std::time::Duration;

use super::harness::{Cluster, Shape};
use super::{Config, Message, Reply, Token};
use crate::base::NodeId;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const N4: NodeId = NodeId(4);
const N5: NodeId = NodeId(5);

/// Three nodes that hold everything.
const THREE: Shape = Shape { nodes: 3, factor: 3, partitions: 8 };
/// Four nodes, two replicas: `a` is on n3 and n4, `d` on n1 and n2, `g` on n2 and n3.
const FOUR: Shape = Shape { nodes: 4, factor: 2, partitions: 8 };

/// Only the write side.
fn plain(config: &mut Config, _: u64) {
    config.ceiling_step = Duration::from_hours(1);
    config.sync_interval = Duration::from_hours(1);
    config.floor_interval = Duration::from_hours(1);
}

/// With ceilings that matter.
fn short(config: &mut Config, seed: u64) {
    plain(config, seed);
    config.ceiling_step = Duration::from_secs(2);
}

fn cluster(shape: Shape) -> Cluster {
    Cluster::new(shape, 1, plain)
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn nothing_cut(_: NodeId, _: NodeId) -> bool {
    false
}

/// Returns a cut that isolates a node.
fn without(lost: NodeId) -> impl Fn(NodeId, NodeId) -> bool {
    move |from, to| from == lost || to == lost
}

fn is_written(cluster: &Cluster, token: Token) -> bool {
    matches!(cluster.oracle.reply(token), Some(Reply::Written { .. }))
}

/// Loses the messages on their way for which `lost` holds.
fn lose(cluster: &mut Cluster, lost: impl Fn(&Message) -> bool) -> usize {
    let before = cluster.network.len();
    cluster.network.retain(|envelope| !lost(&envelope.message));
    before - cluster.network.len()
}
