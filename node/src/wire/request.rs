//! What a client asks.

use bincode::{Decode, Encode};

use crate::base::{Index, Payload, Stamp, Term};
use crate::codec;
use crate::dynamo::Level;
use crate::kv::Query;

/// A request. Many may be in flight on one connection; answers come in any order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// Chosen by the client, comes back with the answer; unique on its connection.
    pub id: u64,
    /// How strong the answer must be.
    pub consistency: Consistency,
    /// What is asked.
    pub body: RequestBody,
}

/// How strong an answer must be, and what its client has seen before.
///
/// Of the masterless mode; the primary-backup mode always gives the strongest answer there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Consistency {
    /// Of how many replicas an answer is wanted.
    pub level: Level,
    /// The largest stamp that the client has seen: a write gets a larger one.
    pub seen: Stamp,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RequestBody {
    /// Put an encoded [`crate::kv::Command`] into the log.
    Command(Payload),
    /// Answer a query linearizably.
    Query(Query),
    /// Tell how this node is. Answered by any node, at once.
    Status,
    /// Give a piece of the whole state, as a snapshot.
    Snapshot {
        /// Which state, of those that this node has begun to give out; answered by any node.
        /// `None` begins with a new one, which has every write that was acknowledged before;
        /// answered by the leader.
        wanted: Option<SavedState>,
        /// Where in its bytes; 0 for a new one.
        offset: u64,
        /// Most bytes of the piece: 1 to
        /// [`SNAPSHOT_PIECE_BYTES_MAX`](crate::base::limits::SNAPSHOT_PIECE_BYTES_MAX).
        bytes_max: u32,
    },
    /// Put a command into the log, as [`Self::Command`], and maybe lose what is written to data
    /// files from then on when the node ends. Of nodes that were started with that fault switched
    /// on; others refuse it, and the command is not applied.
    FaultyCommand {
        /// The encoded command.
        command: Payload,
        /// How likely it is that data files are held back, in millionths.
        loss_ppm: u32,
    },
}

/// A state of the store that is being saved, by its position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SavedState {
    /// Last log entry that it covers.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
}

impl Request {
    /// Appends the encoding of the request made of these parts, without owning the body.
    pub fn encode_parts(
        id: u64,
        consistency: Consistency,
        body: &RequestBody,
        buffer: &mut Vec<u8>,
    ) {
        codec::encode_into(&(id, consistency, body), buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_encode_as_the_whole() {
        let consistency = Consistency { level: Level::Two, seen: Stamp::from_version(1 << 40) };
        let request = Request { id: 300, consistency, body: RequestBody::Status };
        let mut parts = Vec::new();
        Request::encode_parts(request.id, request.consistency, &request.body, &mut parts);
        assert_eq!(parts, codec::encode(&request));
    }
}
