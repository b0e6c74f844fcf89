//! The first frame in each direction of a connection.
//!
//! The connecting side says who it is and whom it wants to talk to; the other side answers with
//! who it is, or why it refuses. Nothing else is read before that. A node that was replaced at an
//! address, a peer of another cluster and a program of another version are all told so, instead
//! of being believed.

use std::fmt;

use bincode::{Decode, Encode};

use crate::base::{ClusterId, NodeId};

/// Version of everything on the wire. A peer must speak the same one.
pub const PROTOCOL_VERSION: u32 = 5;

/// First word of a connection, so that a stranger's bytes are recognised at once: "MGRV".
pub const MAGIC: u32 = u32::from_le_bytes(*b"MGRV");

/// First frame of the connecting side.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// Who connects.
    pub identity: Identity,
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Identity {
    /// Another node of the cluster.
    Peer {
        /// The cluster it belongs to.
        cluster: ClusterId,
        /// Its own id.
        from: NodeId,
        /// Whom it believes to reach.
        to: NodeId,
        /// How it replicates.
        mode: Mode,
    },
    /// A client.
    Client {
        /// The cluster it wants, if it knows.
        cluster: Option<ClusterId>,
    },
}

/// How a cluster replicates; the same on all of its nodes, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Mode {
    /// One node leads, the others follow: [`crate::raft`].
    PrimaryBackup {
        /// Hash of what all nodes must have alike, who they are among it: nodes of different ones
        /// would count different majorities, or make different states of one log.
        group: u64,
    },
    /// Every node takes requests: [`crate::dynamo`].
    Masterless {
        /// Hash of which node holds what: nodes of different ones must not talk to each other.
        placement: u64,
    },
}

impl Mode {
    /// Tells whether any node takes any request.
    pub fn is_masterless(self) -> bool {
        matches!(self, Self::Masterless { .. })
    }

    /// Returns what it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrimaryBackup { .. } => "primary-backup",
            Self::Masterless { .. } => "masterless",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::PrimaryBackup { group: hash } | Self::Masterless { placement: hash }) = self;
        write!(f, "{} ({hash:016x})", self.name())
    }
}

/// First frame of the accepting side.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Welcome {
    /// Go ahead.
    Accepted {
        /// The cluster of this node.
        cluster: ClusterId,
        /// The id of this node.
        node: NodeId,
        /// How its cluster replicates: what a client may ask, and what it may repeat.
        mode: Mode,
    },
    /// The connection is closed after this.
    Refused(Refusal),
}

/// Why a connection is refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// The other side speaks another version.
    #[error("this node speaks protocol version {ours}, not {theirs}: use the same release")]
    Version {
        /// Version of the refusing side.
        ours: u32,
        /// Version of the refused side.
        theirs: u32,
    },
    /// The other side is of another cluster.
    #[error("this node belongs to cluster {ours}, not {theirs}: check the address")]
    Cluster {
        /// Cluster of the refusing side.
        ours: ClusterId,
        /// Cluster of the refused side.
        theirs: ClusterId,
    },
    /// The address belongs to another node.
    #[error("this is node {ours}, not {wanted}: check the addresses of the peers")]
    Node {
        /// The node that was reached.
        ours: NodeId,
        /// The node that was wanted.
        wanted: NodeId,
    },
    /// A peer whose id is not in this cluster's configuration.
    #[error("node {from} is not a member of this cluster")]
    NotAMember {
        /// The stranger.
        from: NodeId,
    },
    /// The other side replicates in another way, or among others.
    #[error(
        "this node runs {ours}, not {theirs}: give all nodes the same --mode, --members, \
         --sessions-max, --replication-factor and --partitions"
    )]
    Mode {
        /// Mode of the refusing side.
        ours: Mode,
        /// Mode of the refused side.
        theirs: Mode,
    },
    /// Too many connections.
    #[error("this node has {connections_max} connections, which is its limit: try again later")]
    TooManyConnections {
        /// The limit.
        connections_max: u32,
    },
}
