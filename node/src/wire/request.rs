//! What a client asks.

use bincode::{Decode, Encode};

use crate::base::{Index, Payload, Term};
use crate::codec;
use crate::kv::Query;

/// A request. Many may be in flight on one connection; answers come in any order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// Chosen by the client, comes back with the answer; unique on its connection.
    pub id: u64,
    /// What is asked.
    pub body: RequestBody,
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
    /// Appends the encoding of the request made of `id` and `body`, without owning the body.
    pub fn encode_parts(id: u64, body: &RequestBody, buffer: &mut Vec<u8>) {
        codec::encode_into(&(id, body), buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_encode_as_the_whole() {
        let request = Request { id: 300, body: RequestBody::Status };
        let mut parts = Vec::new();
        Request::encode_parts(request.id, &request.body, &mut parts);
        assert_eq!(parts, codec::encode(&request));
    }
}
