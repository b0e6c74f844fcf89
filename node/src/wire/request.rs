//! What a client asks.

use bincode::{Decode, Encode};

use crate::base::Payload;
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
