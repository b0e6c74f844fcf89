//! How a node is, for operators: the same in both modes, as far as it can be.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::base::{ClusterId, Index, NodeId, Term};
use crate::raft::Awaited;

/// How a node is, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// The cluster.
    #[serde(serialize_with = "cluster_as_text")]
    pub cluster: ClusterId,
    /// Replication mode: "primary-backup" or "masterless".
    pub mode: String,
    /// "leader", "follower", "candidate", "pre-candidate", "recovering", or "new" while it waits
    /// for the word of all others because its disk is empty; in the masterless mode "replica", or
    /// "recovering" while it gets back what its disk lost, or takes no writes because its disk may
    /// have lost which stamps it gave.
    pub role: String,
    /// What a node waits for that does not take part yet: a new one, or a recovering one that does
    /// not know what it has promised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaited: Option<Awaited>,
    /// Current term; 0 in the masterless mode.
    pub term: Term,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Last entry of the log; in the masterless mode, as below, of this node's own log.
    pub last_index: Index,
    /// Last committed entry; in the masterless mode the last durable one.
    pub commit_index: Index,
    /// Last applied entry.
    pub applied_index: Index,
    /// Last entry whose effect is in tables on disk.
    pub snapshot_index: Index,
    /// The other nodes, as the leader sees them (empty elsewhere); in the masterless mode, where
    /// they are.
    pub peers: Vec<PeerStatus>,
    /// Cells in the store.
    pub cell_count: u64,
    /// Client sessions.
    pub session_count: u64,
    /// Bytes of the write-ahead log on disk.
    pub wal_bytes: u64,
    /// Bytes of the tables on disk.
    pub table_bytes: u64,
    /// When writes are acknowledged: "always: …" or "every N ms: …", with the promise in words.
    pub sync_policy: String,
    /// Whether writes are refused because the disk is full.
    pub disk_full: bool,
    /// Whether writes wait for compactions, which do not keep up with them: a leader or a node of
    /// the masterless mode takes none meanwhile, a follower applies none.
    pub writes_wait: bool,
    /// How many milliseconds they have waited so since the node started.
    pub writes_waited_ms: u64,
    /// What the node's wall clock shows, in milliseconds since 1970 (UTC), so that operators see
    /// clocks that are off. Nothing else in the node depends on it.
    pub wall_ms: u64,
    /// Version of the program.
    pub version: String,
    /// What only a node of the masterless mode has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masterless: Option<MasterlessStatus>,
}

/// One peer, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Where it is reached.
    pub address: String,
    /// Last entry known to be durable there.
    pub match_index: Index,
    /// Entries it is behind.
    pub lag: u64,
    /// "probe", "replicate" or "snapshot"; in the masterless mode "up" or "down".
    pub state: String,
}

/// How a node of the masterless mode is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct MasterlessStatus {
    /// Replicas of each partition.
    pub replication_factor: u32,
    /// Partitions of the cluster.
    pub partition_count: u32,
    /// How replicas that missed a write get it, besides anti-entropy: "read-repair",
    /// "hinted-handoff", "both" or "none".
    pub repair: String,
    /// Whether it has all that it ever acknowledged. A node that lost its disk has not, and
    /// answers no reads, until it has got its share from the others.
    pub is_whole: bool,
    /// The nodes that it believes to be up, itself included.
    pub up: Vec<NodeId>,
    /// Writes that wait for nodes that missed them, per node; empty if there are none.
    pub hints: Vec<HintStatus>,
    /// Hints that were dropped since the start, because there were too many or they were too old:
    /// anti-entropy brings those writes.
    pub hints_dropped: u64,
    /// Batches that are kept until all of their parts are where they belong.
    pub batch_count: u64,
    /// Writes of clients under way.
    pub pending_write_count: u64,
    /// Reads of clients under way.
    pub pending_read_count: u64,
    /// Memory of the Merkle trees, in bytes.
    pub merkle_bytes: u64,
    /// Partitions whose Merkle tree is not built yet since the start.
    pub unknown_tree_count: u32,
    /// Comparisons with other nodes that this one has begun and completed since the start.
    pub sync_count: u64,
    /// The last full comparison with each of the other nodes that hold some of the same partitions.
    pub syncs: Vec<SyncStatus>,
    /// Every write up to this time, in milliseconds since 1970, is on every replica; 0 if that is
    /// not known of every partition yet.
    pub floor_ms: u64,
    /// The node's hybrid clock, in milliseconds since 1970: the latest stamp given or seen.
    pub clock_ms: u64,
    /// Milliseconds by which the node's wall clock is ahead of the other nodes', if that is so much
    /// that it takes no writes.
    pub clock_ahead_ms: Option<u64>,
    /// What the node holds in memory for requests and for repair, each with its limit. Hints have
    /// theirs for each node: [`hints`](Self::hints).
    pub memory: Vec<MemoryStatus>,
}

/// Something that a node holds in memory, and how much of it that may be.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct MemoryStatus {
    /// What: "writes", "reads", …
    pub what: String,
    /// How many.
    pub count: u64,
    /// Limit of their number; `None` if only their bytes are limited.
    pub count_max: Option<u64>,
    /// Their bytes; 0 if only their number is limited.
    pub bytes: u64,
    /// Limit of their bytes; `None` if only their number is limited.
    pub bytes_max: Option<u64>,
}

/// The hints that wait for one node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct HintStatus {
    /// For whom.
    pub target: NodeId,
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Number after which the oldest are dropped.
    pub count_max: u64,
    /// Bytes after which the oldest are dropped.
    pub bytes_max: u64,
}

/// Anti-entropy with one node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct SyncStatus {
    /// With whom.
    pub peer: NodeId,
    /// Milliseconds since which everything that both hold has been compared; `None` if some of it
    /// was not yet, since the start.
    pub last_ms_ago: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn cluster_as_text<S: serde::Serializer>(
    cluster: &ClusterId,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(cluster)
}
