//! What the nodes remember of clients' sessions.

use mangrove::base::RequestSeq;
use mangrove::codec;
use mangrove::kv::session::Sessions;
use mangrove::kv::{Cell, CommandReply, Version};

use super::wire::value;

/// Sessions that a table may have.
const SESSIONS_MAX: usize = 4;

/// The table of sessions, as it stands in a snapshot.
pub(super) fn table(input: &[u8]) {
    let Ok(table) = Sessions::decode(input, SESSIONS_MAX) else { return };
    let mut again = Vec::new();
    table.encode_into(&mut again);
    let mut twice = Vec::new();
    match Sessions::decode(&again, SESSIONS_MAX) {
        Ok(table) => table.encode_into(&mut twice),
        Err(error) => panic!("{error}"),
    }
    assert!(again == twice, "what is read survives writing it");
}

pub(super) fn table_seeds() -> Vec<Vec<u8>> {
    let answers = vec![
        (RequestSeq(3), CommandReply::Applied(Version(7))),
        (
            RequestSeq(300),
            CommandReply::ConditionFailed {
                position: 1,
                current: Some(Cell { value: value("v"), version: Version(9) }),
            },
        ),
    ];
    let session = |last_used: u64, answers: &[_]| {
        codec::encode(&(last_used, RequestSeq(3), answers.to_vec()))
    };
    let table = |sessions: &[(u64, Vec<u8>)]| {
        let mut bytes = (sessions.len() as u64).to_le_bytes().to_vec();
        for (id, session) in sessions {
            bytes.extend(id.to_le_bytes());
            bytes.extend((session.len() as u32).to_le_bytes());
            bytes.extend_from_slice(session);
        }
        bytes
    };
    vec![
        table(&[]),
        table(&[(1, session(9, &answers))]),
        table(&[(1, session(9, &answers)), (2, session(300, &[]))]),
    ]
}
