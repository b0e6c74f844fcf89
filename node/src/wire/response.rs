//! What a node answers to a client, and what every error says about the request's outcome.

use bincode::{Decode, Encode};
use serde::Serialize;

use super::request::SavedState;
use crate::base::{ClusterId, Index, NodeId, Payload, Term};
use crate::kv::{CommandReply, QueryReply};

/// The answer to the request with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Response {
    /// Id of the request.
    pub id: u64,
    /// The answer.
    pub body: ResponseBody,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ResponseBody {
    /// To a command: it is committed and applied, and this is the state machine's answer.
    Command(CommandReply),
    /// To a query.
    Query(QueryReply),
    /// To a status request.
    Status(Box<Status>),
    /// It did not work out.
    Error(RequestError),
    /// To a request for a piece of a snapshot; `None` if this node does not have that state (any
    /// more): begin with a new one.
    Snapshot(Option<SavedPiece>),
}

/// A piece of a snapshot's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SavedPiece {
    /// The state that it is of.
    pub state: SavedState,
    /// Where in its bytes.
    pub offset: u64,
    /// The bytes.
    pub data: Payload,
    /// Whether they are the last.
    pub is_last: bool,
}

/// What is certain about a request that got an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did not and will not take effect: it may be repeated as it is.
    NotApplied,
    /// It may have taken effect, or may still do so.
    Unknown,
}

/// Why a request got no proper answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// This node does not lead.
    #[error("this node is not the leader")]
    NotLeader {
        /// Who leads, and where it is reached, as far as this node knows.
        leader: Option<(NodeId, String)>,
    },
    /// The leadership was lost while the write was under way.
    #[error("the leader changed while the write was under way")]
    LeadershipLost,
    /// The node has as much to do as its queues hold.
    #[error("the node is overloaded: try again later")]
    Overloaded,
    /// The disk of the node is full.
    #[error("the disk of the node is full: free some space")]
    DiskFull,
    /// A key, value, batch or page is over its limit, or the request makes no sense.
    #[error("the request is not valid: {0}")]
    Invalid(String),
    /// The mode of this cluster does not have this request.
    #[error("not supported in this replication mode: {0}")]
    Unsupported(String),
    /// The node did not get a quorum's answer in time; for a command, it may still happen.
    #[error("no quorum answered in time")]
    Timeout,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl RequestError {
    /// Says what became of a *write* that was answered so; reads never change anything.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotLeader { .. }
            | Self::Overloaded
            | Self::DiskFull
            | Self::Invalid(_)
            | Self::Unsupported(_) => Outcome::NotApplied,
            Self::LeadershipLost | Self::Timeout | Self::ShuttingDown => Outcome::Unknown,
        }
    }
}

/// How a node is, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// The cluster.
    #[serde(serialize_with = "cluster_as_text")]
    pub cluster: ClusterId,
    /// Replication mode: "primary-backup".
    pub mode: String,
    /// "leader", "follower", "candidate", "pre-candidate", or "recovering".
    pub role: String,
    /// Current term.
    pub term: Term,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Last entry of the log.
    pub last_index: Index,
    /// Last committed entry.
    pub commit_index: Index,
    /// Last applied entry.
    pub applied_index: Index,
    /// Last entry whose effect is in tables on disk.
    pub snapshot_index: Index,
    /// The other nodes, as the leader sees them (empty elsewhere).
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
    /// What the node's wall clock shows, in milliseconds since 1970 (UTC), so that operators see
    /// clocks that are off. Nothing else in the node depends on it.
    pub wall_ms: u64,
    /// Version of the program.
    pub version: String,
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
    /// "probe", "replicate" or "snapshot".
    pub state: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn cluster_as_text<S: serde::Serializer>(
    cluster: &ClusterId,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(cluster)
}
