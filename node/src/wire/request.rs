//! What a client asks.

use bincode::{Decode, Encode};

use crate::base::Payload;
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
}
