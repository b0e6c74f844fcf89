//! Everything that can be chosen about one node, already validated; see [`crate::cli`] for where
//! the values come from.

use std::time::Duration;

use crate::base::hash::mix64;
use crate::base::{ClusterId, NodeId};
pub use crate::dynamo::Repair;
use crate::dynamo::{self, Placement};
pub use crate::storage::table::Compression;
use crate::storage::tree::TreeOptions;
use crate::wire::Mode;

/// Client sessions that are remembered if nobody says how many.
pub const SESSIONS_MAX_USUAL: usize = 10_000;

/// Configuration of one node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its own id.
    pub node: NodeId,
    /// Address to listen on, `host:port`.
    pub listen: String,
    /// Every member of the cluster, itself included, with the address to reach it.
    pub members: Vec<(NodeId, String)>,
    /// How the cluster replicates; the same on all of its nodes, for ever.
    pub replication: Replication,
    /// Shortest time without a leader after which a node campaigns; each time is drawn anew from
    /// this to its double. Too small: needless elections under load. Too large: long gaps.
    pub election_timeout: Duration,
    /// Time between two heartbeats of an idle leader; well below the election time-out.
    pub heartbeat_interval: Duration,
    /// When writes are acknowledged.
    pub sync_policy: SyncPolicy,
    /// A segment of the write-ahead log that has so many bytes is followed by another.
    pub wal_segment_bytes: u64,
    /// What was written is flushed to a table when the log has grown by this many bytes since the
    /// last time, or when it takes [`TreeOptions::memtable_bytes`]. Too small: much writing. Too
    /// large: long restarts.
    pub flush_log_bytes: u64,
    /// Sizes of the table store.
    pub tree: TreeOptions,
    /// Bytes of tables that are verified each second, to find rot while other nodes still have
    /// the data; 0 for none.
    pub scrub_bytes_per_second: u64,
    /// Entries kept in memory after a flush, so that followers a little behind need no
    /// snapshot.
    pub log_entries_kept: u64,
    /// Bytes of committed entries that wait for the tables at which a follower acknowledges no
    /// more, so that its leader sends no more. Too small: a follower whose disk is slow for a
    /// while needs a snapshot. Too large: memory, and a long wait if that follower is elected.
    pub behind_bytes_max: usize,
    /// Most entries of one append message. Too small: one round trip for every few writes.
    pub append_entries_max: usize,
    /// Bytes of one piece of a snapshot that a follower is sent.
    pub snapshot_chunk_bytes: usize,
    /// Most client sessions that are remembered; the least recently used are pushed out. The same
    /// on all nodes of a primary-backup cluster, for ever.
    pub sessions_max: usize,
    /// Bytes of entries that one read of a range passes in a turn of the loop, in the
    /// primary-backup mode; tombstones and overwritten cells count like any, and each cell of a
    /// large `multi_get` as a block. Too small: pages of few items, and reads of rows that take
    /// many turns. Too large: elections, for the loop sends no heartbeats meanwhile.
    pub read_turn_bytes: usize,
    /// Most connections at a time.
    pub connections_max: usize,
    /// Most requests that wait for an answer, over all connections.
    pub requests_max: usize,
    /// Longest wait for a quorum before a request is answered `Timeout`.
    pub request_timeout: Duration,
}

/// How a cluster replicates.
#[derive(Debug, Clone)]
pub enum Replication {
    /// One node leads, the others follow.
    PrimaryBackup,
    /// Every node takes requests.
    Masterless(Masterless),
}

/// What can be chosen about the masterless mode.
#[derive(Debug, Clone)]
pub struct Masterless {
    /// Replicas of each partition, at most one on each node. The same on all nodes, for ever.
    pub replication_factor: usize,
    /// Partitions of the cluster. Too few: anti-entropy compares much to find little. Too many:
    /// memory for their trees. The same on all nodes, for ever.
    pub partition_count: u16,
    /// How replicas that missed a write get it, besides anti-entropy.
    pub repair: Repair,
    /// Time-outs and limits of the protocol in place of the usual ones, for simulations; what the
    /// fields above say, and who the nodes are, is not taken from here.
    pub limits: Option<Box<dynamo::Config>>,
}

impl Default for Masterless {
    fn default() -> Self {
        Self {
            replication_factor: 3,
            partition_count: 256,
            repair: Repair { hints: true, reads: true },
            limits: None,
        }
    }
}

/// When a write counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before every acknowledgement: an acknowledged write survives the power loss of all nodes.
    Always,
    /// Every so often: a node that loses power forgets the writes of the last interval. Those are
    /// lost that no other node has, or has any more when it is back; if there is no other, all. A
    /// crash of processes loses nothing.
    Interval(Duration),
}

impl NodeConfig {
    /// Returns the defaults for a node of the given cluster.
    pub fn new(
        cluster: ClusterId,
        node: NodeId,
        listen: &str,
        members: Vec<(NodeId, String)>,
    ) -> Self {
        Self {
            cluster,
            node,
            listen: listen.to_owned(),
            members,
            replication: Replication::PrimaryBackup,
            election_timeout: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(60),
            sync_policy: SyncPolicy::Always,
            wal_segment_bytes: 64 << 20,
            flush_log_bytes: 64 << 20,
            tree: TreeOptions::default(),
            scrub_bytes_per_second: 4 << 20,
            log_entries_kept: 10_000,
            behind_bytes_max: 64 << 20,
            append_entries_max: 4096,
            snapshot_chunk_bytes: 256 << 10,
            sessions_max: SESSIONS_MAX_USUAL,
            // More than a full page has, so that a page without tombstones takes one turn.
            read_turn_bytes: 4 << 20,
            connections_max: 4_096,
            requests_max: 16_384,
            request_timeout: Duration::from_secs(5),
        }
    }

    /// Returns who holds what, in the masterless mode; the same on all nodes.
    pub fn placement(&self) -> Option<Placement> {
        let Replication::Masterless(masterless) = &self.replication else { return None };
        let mut nodes: Vec<NodeId> = self.members.iter().map(|(node, _)| *node).collect();
        nodes.sort_unstable();
        let Masterless { replication_factor, partition_count, .. } = *masterless;
        Some(Placement::new(&nodes, replication_factor, partition_count))
    }

    /// Returns what peers and clients are told about how the cluster replicates.
    pub fn mode(&self) -> Mode {
        match self.placement() {
            Some(placement) => Mode::Masterless { placement: placement.hash() },
            None => Mode::PrimaryBackup { group: self.group() },
        }
    }

    /// Returns the hash of what all nodes of the primary-backup mode must have alike: who they
    /// are, of which each counts a majority, and how many sessions a state has.
    fn group(&self) -> u64 {
        let mut nodes: Vec<NodeId> = self.members.iter().map(|(node, _)| *node).collect();
        nodes.sort_unstable();
        let sessions_max = u64::try_from(self.sessions_max).unwrap_or(u64::MAX);
        nodes.iter().fold(sessions_max, |hash, node| mix64(hash, node.0))
    }
}

impl SyncPolicy {
    /// Tells whether a power loss of several nodes can take a write from all disks that count.
    pub(super) fn may_lose_committed(self) -> bool {
        match self {
            SyncPolicy::Always => false,
            SyncPolicy::Interval(_) => true,
        }
    }
}

impl NodeConfig {
    /// Says when writes are acknowledged, and what that promises.
    pub(super) fn sync_in_words(&self) -> String {
        let SyncPolicy::Interval(interval) = self.sync_policy else {
            return "always: an acknowledged write survives the power loss of all nodes".to_owned();
        };
        let forgets = "a node that loses power forgets the writes of that time";
        let lost = match &self.replication {
            _ if self.copies_max() == 1 => "they are lost: no other node has them",
            Replication::PrimaryBackup => {
                "they are lost if more nodes fail before it has them again"
            }
            Replication::Masterless(_) => {
                "they are lost if no other replica has them, as may be after --level one, or none \
                 any more when it is back"
            }
        };
        format!("every {} ms: {forgets}; {lost}", interval.as_millis())
    }

    /// Returns how many nodes have a write in the end.
    fn copies_max(&self) -> usize {
        let nodes = self.members.len();
        match &self.replication {
            Replication::PrimaryBackup => nodes,
            Replication::Masterless(masterless) => masterless.replication_factor.min(nodes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(nodes: u64, replication: Replication) -> NodeConfig {
        let members = (1..=nodes).map(|node| (NodeId(node), format!("n{node}"))).collect();
        let sync_policy = SyncPolicy::Interval(Duration::from_millis(20));
        let usual = NodeConfig::new(ClusterId(1), NodeId(1), "n1", members);
        NodeConfig { replication, sync_policy, ..usual }
    }

    /// The accident: a cluster of one node said that a write is lost only if more nodes fail, and
    /// so did the masterless mode, where one replica may have acknowledged it alone.
    #[test]
    fn nobody_is_promised_other_nodes_that_need_not_have_a_write() {
        let masterless = |replication_factor| {
            Replication::Masterless(Masterless { replication_factor, ..Masterless::default() })
        };
        for (nodes, replication, said) in [
            (1, Replication::PrimaryBackup, "no other node has them"),
            (3, Replication::PrimaryBackup, "if more nodes fail"),
            (1, masterless(3), "no other node has them"),
            (3, masterless(1), "no other node has them"),
            (3, masterless(3), "--level one"),
        ] {
            let mut config = config(nodes, replication);
            let shown = config.sync_in_words();
            assert!(shown.starts_with("every 20 ms: ") && shown.contains(said), "{shown}");
            config.sync_policy = SyncPolicy::Always;
            assert!(config.sync_in_words().starts_with("always: "));
        }
    }
}
