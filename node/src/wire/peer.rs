//! What one node sends another, whatever the replication mode that they run.
//!
//! Which mode it is was settled by the handshake: a message of the other mode ends the connection.

use bincode::{Decode, Encode};

use crate::{dynamo, raft};

/// A message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PeerMessage {
    /// Of the primary-backup mode.
    Raft(raft::Message),
    /// Of the masterless mode.
    Dynamo(dynamo::Message),
}

/// A [`PeerMessage`] that is only lent, to be encoded: the bytes are the same.
#[derive(Debug, Clone, Copy, Encode)]
pub enum PeerMessageRef<'a> {
    /// Of the primary-backup mode.
    Raft(&'a raft::Message),
    /// Of the masterless mode.
    Dynamo(&'a dynamo::Message),
}

impl PeerMessage {
    /// Tells whether it is of the masterless mode.
    pub fn is_masterless(&self) -> bool {
        matches!(self, Self::Dynamo(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::dynamo::{Message, RequestId, WriteOutcome};

    #[test]
    fn lent_message_encodes_as_the_owned_one() {
        let id = RequestId { generation: 7, number: 300 };
        let message = Message::WriteReply { id, outcome: WriteOutcome::DiskFull };
        let lent = codec::encode(&PeerMessageRef::Dynamo(&message));
        assert_eq!(codec::decode(&lent), Ok(PeerMessage::Dynamo(message)));
        let message = raft::Message::SnapshotReply {
            term: 3,
            meta: raft::SnapshotMeta { index: 4, term: 2 },
            outcome: raft::SnapshotOutcome::Failed,
        };
        let lent = codec::encode(&PeerMessageRef::Raft(&message));
        assert_eq!(codec::decode(&lent), Ok(PeerMessage::Raft(message)));
    }
}
