//! What a node answers to a client, and what every error says about the request's outcome.

use bincode::{Decode, Encode};

use super::request::SavedState;
use super::status::Status;
use crate::base::{NodeId, Payload, Stamp};
use crate::kv::{CommandReply, QueryReply};

/// The answer to the request with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Response {
    /// Id of the request.
    pub id: u64,
    /// The largest stamp that was met on the way to the answer, of a write, a value or a
    /// tombstone; zero in the primary-backup mode, and for what has none.
    pub seen: Stamp,
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
    /// Fewer replicas are known to be up than the consistency level asks for.
    #[error("the consistency level needs {needed} replicas, and {alive} are up")]
    Unavailable {
        /// How many the level needs.
        needed: u32,
        /// How many are believed to be up.
        alive: u32,
    },
    /// The wall clock of the node, or what the client says it has seen, is too far ahead of what
    /// the node knows of the other nodes' clocks.
    #[error(
        "a write would be stamped {ahead_ms} ms ahead of the clocks of the other nodes: set the \
         clock of this node, or ask another one"
    )]
    ClockSkew {
        /// How far.
        ahead_ms: u64,
    },
    /// Not enough nodes answered in time; a command may still happen.
    #[error("not enough nodes answered in time")]
    Timeout,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The node has not started yet, or its disk was exchanged and it takes no writes for the first
    /// seconds. Others do.
    #[error("the node is not ready: it starts, or its disk was exchanged; ask another one")]
    NotReady,
}

impl RequestError {
    /// Says what became of a *write* that was answered so; reads never change anything.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotLeader { .. }
            | Self::Overloaded
            | Self::DiskFull
            | Self::Invalid(_)
            | Self::Unsupported(_)
            | Self::Unavailable { .. }
            | Self::ClockSkew { .. }
            | Self::NotReady => Outcome::NotApplied,
            Self::LeadershipLost | Self::Timeout | Self::ShuttingDown => Outcome::Unknown,
        }
    }
}
