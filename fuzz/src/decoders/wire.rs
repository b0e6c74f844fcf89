//! What comes over a connection.

use std::fmt::Debug;
use std::sync::OnceLock;

use bytes::BytesMut;
use mangrove::base::checksum::crc32;
use mangrove::base::{
    Column, Entry, Key, NodeId, Payload, RequestSeq, SessionId, Stamp, Value, Written,
};
use mangrove::cli::fuzzed;
use mangrove::codec::frame::HEADER_BYTES;
use mangrove::codec::{self, Decode, DecodeError, Encode, FrameDecoder, encode_frame};
use mangrove::kv::{Batch, Command, Condition, Expectation, Mutation, Query, QueryReply, Version};
use mangrove::replica::NodeConfig;
use mangrove::wire::handshake::MAGIC;
use mangrove::wire::{
    Consistency, Hello, Identity, Level, Mode, PROTOCOL_VERSION, PeerMessage, Refusal, Request,
    RequestBody, RequestError, Response, ResponseBody, Welcome,
};
use mangrove::{dynamo, kv, raft, server};

use crate::blind::blindly;

/// Longest body in the frame target: short enough to be exceeded.
const BODY_BYTES_MAX: usize = 64;

/// Decodes, encodes and decodes again.
pub(super) fn stable<T: Decode<()> + Encode + Debug + PartialEq>(bytes: &[u8]) -> Option<T> {
    let value = codec::decode::<T>(bytes).ok()?;
    let again = codec::decode::<T>(&codec::encode(&value));
    assert_eq!(again.as_ref(), Ok(&value), "what decodes must survive encoding");
    let shorter = bytes.split_last().map(|(_, shorter)| codec::decode::<T>(shorter));
    assert!(shorter.is_none_or(|shorter| shorter.is_err()), "a value fills its bytes exactly");
    Some(value)
}

/// ```text
/// flags u8: blind (bit 7), count of lengths (bits 0 to 2) │ lengths u8* │ stream
/// ```
pub(super) fn frame(input: &[u8]) {
    let Some((&flags, rest)) = input.split_first() else { return };
    let (lengths, stream) = rest.split_at(usize::from(flags & 7).min(rest.len()));
    if flags & 0x80 == 0 {
        frames(lengths, stream);
    } else {
        blindly(|| frames(lengths, stream));
    }
}

fn frames(lengths: &[u8], stream: &[u8]) {
    let whole = cut(stream, [stream.len()].into_iter());
    let lengths = lengths.iter().map(|&length| usize::from(length).max(1)).cycle();
    let pieces = cut(stream, lengths.chain([1].into_iter().cycle()));
    assert_eq!(whole, pieces, "how a stream arrives does not matter");
    let (bodies, _) = whole;
    let mut offset = 0;
    for body in &bodies {
        let start = offset + HEADER_BYTES;
        assert_eq!(stream.get(start..start + body.len()), Some(body.as_slice()), "the body");
        let stored = stream[offset + 8..start].try_into().ok().map(u32::from_le_bytes);
        assert_eq!(stored, Some(crc32(body)), "nothing is believed without its checksum");
        assert!(body.len() <= BODY_BYTES_MAX, "a body of {} bytes", body.len());
        offset = start + body.len();
    }
    let mut again = Vec::new();
    for body in &bodies {
        encode_frame(&mut again, |buffer| buffer.extend_from_slice(body));
    }
    assert_eq!(again, stream[..offset], "a frame has one encoding");
}

/// Feeds a stream in pieces; returns the bodies, and what ended them.
fn cut(
    stream: &[u8],
    mut lengths: impl Iterator<Item = usize>,
) -> (Vec<Vec<u8>>, Option<DecodeError>) {
    let decoder = FrameDecoder::new(BODY_BYTES_MAX);
    let (mut buffer, mut bodies, mut rest) = (BytesMut::new(), Vec::new(), stream);
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(lengths.next().unwrap_or(1).min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = tail;
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(body)) => bodies.push(body.to_vec()),
                Ok(None) => break,
                Err(error) => return (bodies, Some(error)),
            }
        }
    }
    (bodies, None)
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let mut stream = Vec::new();
    for len in [0, 1, 40] {
        encode_frame(&mut stream, |buffer| buffer.resize(buffer.len() + len, 7));
    }
    let blind = |stream: &mut Vec<u8>| {
        blindly(|| encode_frame(stream, |buffer| buffer.extend_from_slice(b"blind")));
    };
    let mut unseen = Vec::new();
    blind(&mut unseen);
    vec![
        [&[0][..], &stream].concat(),
        [&[3, 1, 12, 5][..], &stream].concat(),
        [&[0x82, 12, 3][..], &unseen, &unseen].concat(),
        vec![1, 1, 0xFF, 0xFF, 0xFF, 0x7F, 1, 2, 3, 4, 5, 6, 7, 8],
    ]
}

struct Nodes {
    primary_backup: (NodeConfig, Mode),
    masterless: (NodeConfig, Mode),
}

fn nodes() -> &'static Nodes {
    static NODES: OnceLock<Nodes> = OnceLock::new();
    let node = |mode: &str| {
        let text = format!(
            "cluster_id = \"7a11\"\nnode = 2\nlisten = \"127.0.0.1:7102\"\n{mode}\n\
             members = [\"1=127.0.0.1:7101\", \"2=127.0.0.1:7102\", \"3=127.0.0.1:7103\"]\n"
        );
        let config = match fuzzed::configuration(&text) {
            Ok(config) => config,
            Err(error) => panic!("{error}"),
        };
        let mode = config.mode();
        (config, mode)
    };
    NODES.get_or_init(|| Nodes {
        primary_backup: node(""),
        masterless: node("mode = \"masterless\"\nreplication_factor = 3\npartitions = 8"),
    })
}

/// ```text
/// mode u8: masterless (bit 0), blind (bit 7), a Welcome instead (bit 1) │ stream
/// ```
pub(super) fn handshake(input: &[u8]) {
    let Some((&mode, stream)) = input.split_first() else { return };
    if mode & 2 != 0 {
        stable::<Welcome>(stream);
        return;
    }
    let nodes = nodes();
    let (config, own) = if mode & 1 == 0 { &nodes.primary_backup } else { &nodes.masterless };
    let answer = || server::answer_to(config, *own, &mut BytesMut::from(stream));
    let answer = if mode & 0x80 == 0 { answer() } else { blindly(answer) };
    let Ok(Some(answer)) = answer else { return };
    // A frame that was taken is whole; what it says is judged here once more.
    let Some(hello) = stream.get(HEADER_BYTES..).and_then(|rest| {
        let len = u32::from_le_bytes(*stream.first_chunk()?);
        stable::<Hello>(rest.get(..usize::try_from(len).ok()?)?)
    }) else {
        panic!("{answer:?} to what is no Hello")
    };
    let speaks = hello.magic == MAGIC && hello.version == PROTOCOL_VERSION;
    let is_right = match hello.identity {
        Identity::Client { cluster } => cluster.is_none_or(|cluster| cluster == config.cluster),
        Identity::Peer { cluster, from, to, mode } => {
            let is_peer = [NodeId(1), NodeId(3)].contains(&from) && to == NodeId(2);
            cluster == config.cluster && is_peer && mode == *own
        }
    };
    assert_eq!(answer.is_ok(), speaks && is_right, "{answer:?} to {hello:?}");
    if let Err(refusal) = answer {
        stable::<Welcome>(&codec::encode(&Welcome::Refused(refusal)));
    }
}

pub(super) fn handshake_seeds() -> Vec<Vec<u8>> {
    let nodes = nodes();
    let mut seeds = Vec::new();
    for (mode, (config, own)) in [(0, &nodes.primary_backup), (1, &nodes.masterless)] {
        let identities = [
            Identity::Client { cluster: None },
            Identity::Client { cluster: Some(config.cluster) },
            Identity::Peer { cluster: config.cluster, from: NodeId(1), to: NodeId(2), mode: *own },
        ];
        for identity in identities {
            let hello = Hello { magic: MAGIC, version: PROTOCOL_VERSION, identity };
            for blind in [0, 0x80] {
                let mut seed = vec![mode | blind];
                let encode = |buffer: &mut Vec<u8>| codec::encode_into(&hello, buffer);
                if blind == 0 {
                    encode_frame(&mut seed, encode);
                } else {
                    blindly(|| encode_frame(&mut seed, encode));
                }
                seeds.push(seed);
            }
        }
    }
    let (cluster, node) = (nodes.masterless.0.cluster, NodeId(2));
    let welcomes = [
        Welcome::Accepted { cluster, node, mode: nodes.primary_backup.1 },
        Welcome::Refused(Refusal::Mode {
            ours: nodes.masterless.1,
            theirs: nodes.primary_backup.1,
        }),
        Welcome::Refused(Refusal::Node { ours: node, wanted: NodeId(1) }),
    ];
    seeds.extend(welcomes.iter().map(|welcome| [vec![2], codec::encode(welcome)].concat()));
    seeds
}

pub(super) fn request(input: &[u8]) {
    let Some(request) = stable::<Request>(input) else { return };
    match &request.body {
        RequestBody::Query(query) => drop(kv::validate_query(query)),
        RequestBody::Command(command) | RequestBody::FaultyCommand { command, .. } => {
            self::command(command.as_bytes());
        }
        RequestBody::Status | RequestBody::Snapshot { .. } => {}
    }
}

pub(super) fn request_seeds() -> Vec<Vec<u8>> {
    let consistency = Consistency { level: Level::Two, seen: Stamp::from_version(1 << 40) };
    let bodies = [
        RequestBody::Status,
        RequestBody::Query(Query::Get { key: key("k"), column: column("c") }),
        RequestBody::Query(Query::MultiGet { cells: vec![(key("k"), column("c")); 3] }),
        RequestBody::Query(Query::Keys {
            start: Some(key("a")),
            stop: None,
            prefix: key("a"),
            limit: 300,
        }),
        RequestBody::Snapshot { wanted: None, offset: 0, bytes_max: 1 << 20 },
    ];
    let commands = command_seeds().into_iter();
    let commands = commands.filter_map(|command| Payload::new(command).ok());
    let bodies = bodies.into_iter().chain(commands.map(RequestBody::Command));
    bodies.map(|body| codec::encode(&Request { id: 300, consistency, body })).collect()
}

pub(super) fn response(input: &[u8]) {
    if let Some(Response { body: ResponseBody::Error(error), .. }) = stable::<Response>(input) {
        // Whatever a node answers, the client says what became of the request.
        drop((error.outcome(), error.to_string()));
    }
}

pub(super) fn response_seeds() -> Vec<Vec<u8>> {
    let cell = || kv::Cell { value: value("v"), version: Version(9) };
    let bodies = [
        ResponseBody::Command(kv::CommandReply::ConditionFailed {
            position: 1,
            current: Some(cell()),
        }),
        ResponseBody::Query(QueryReply::Cells(vec![Some(cell()), None, None])),
        ResponseBody::Query(QueryReply::Scanned {
            cells: vec![(key("k"), column("c"), cell())],
            next: Some((key("l"), column(""))),
        }),
        ResponseBody::Error(RequestError::Overloaded),
        ResponseBody::Snapshot(None),
    ];
    let seen = Stamp::from_version(1 << 30);
    bodies.into_iter().map(|body| codec::encode(&Response { id: 3, seen, body })).collect()
}

pub(super) fn peer_message(input: &[u8]) {
    if let Some(message) = stable::<PeerMessage>(input) {
        let is_dynamo = matches!(message, PeerMessage::Dynamo(_));
        assert_eq!(message.is_masterless(), is_dynamo, "{message:?}");
    }
}

pub(super) fn peer_message_seeds() -> Vec<Vec<u8>> {
    let id = dynamo::RequestId { generation: 7, number: 300 };
    let chunk = dynamo::Chunk { entries: entries(), covered: None, floor: Stamp::ZERO };
    let log_entry = |index| raft::Entry {
        index,
        term: 3,
        kind: raft::EntryKind::Command(Payload::new("command").unwrap_or_default()),
    };
    let messages = [
        PeerMessage::Dynamo(dynamo::Message::ReadReply {
            id,
            reply: dynamo::ReadReply::Data(vec![chunk]),
        }),
        PeerMessage::Dynamo(dynamo::Message::BatchStore {
            batch: Stamp::from_version(77),
            entries: entries(),
        }),
        PeerMessage::Dynamo(dynamo::Message::Sync(dynamo::SyncMessage::Leaves {
            id,
            differing: vec![(3, vec![1, 2, 3 << 40], Stamp::ZERO)],
            unknown: vec![4, 5],
        })),
        PeerMessage::Raft(raft::Message::SnapshotReply {
            term: 3,
            meta: raft::SnapshotMeta { index: 4, term: 2 },
            outcome: raft::SnapshotOutcome::Failed,
        }),
        PeerMessage::Raft(raft::Message::Standing {
            term: 3,
            nonce: 1 << 40,
            standing: raft::Standing::Filling(raft::SnapshotMeta { index: 300, term: 2 }),
            last: raft::SnapshotMeta { index: 4, term: 2 },
        }),
        PeerMessage::Raft(raft::Message::Forgotten {
            term: 3,
            last: raft::SnapshotMeta { index: 4, term: 2 },
        }),
    ];
    let mut seeds: Vec<Vec<u8>> = messages.iter().map(codec::encode).collect();
    seeds.push(codec::encode(&vec![log_entry(1), log_entry(2)]));
    seeds
}

/// What the state machine does with an entry's bytes before it applies them.
pub(super) fn command(input: &[u8]) {
    if let Some(Command::Write { batch, .. }) = stable::<Command>(input)
        && kv::validate_batch(&batch).is_ok()
    {
        drop(stable::<Batch>(&codec::encode(&batch)));
    }
}

pub(super) fn command_seeds() -> Vec<Vec<u8>> {
    let mutations = vec![
        Mutation::Set { key: key("k"), column: column("c"), value: value("v") },
        Mutation::Delete { key: key("k"), column: column("") },
        Mutation::DeleteRow { key: key("r") },
    ];
    let expectations = [
        Expectation::Absent,
        Expectation::Present,
        Expectation::Value(value("v")),
        Expectation::Version(Version(300)),
    ];
    let condition = |expected| Condition { key: key("k"), column: column("c"), expected };
    let conditions = expectations.into_iter().map(condition).collect();
    let write = |batch| Command::Write {
        session: SessionId(3),
        seq: RequestSeq(300),
        acked_below: RequestSeq(299),
        batch,
    };
    let commands = [
        Command::Register { nonce: 1 << 40 },
        Command::RegisterByIndex { nonce: 1 << 40 },
        write(Batch { conditions: Vec::new(), mutations: mutations.clone() }),
        write(Batch { conditions, mutations }),
    ];
    commands.iter().map(codec::encode).collect()
}

/// ```text
/// kind u8 (modulo five) │ payload
/// ```
pub(super) fn log_record(input: &[u8]) {
    let Some((&kind, payload)) = input.split_first() else { return };
    match kind % 5 {
        0 => drop(stable::<raft::HardState>(payload)),
        1 => drop(stable::<raft::Entry>(payload)),
        2 => drop(stable::<raft::SnapshotMeta>(payload)),
        3 => drop(stable::<Vec<dynamo::Record>>(payload)),
        _ => drop(stable::<(raft::Standing, raft::HardState)>(payload)),
    }
}

pub(super) fn log_record_seeds() -> Vec<Vec<u8>> {
    let place = Payload::new("place").unwrap_or_default();
    let records = vec![
        dynamo::Record::Entries(entries()),
        dynamo::Record::Note { place: place.clone(), content: Some(place.clone()) },
        dynamo::Record::Note { place, content: None },
    ];
    let hard_state = raft::HardState { term: 300, vote: Some(NodeId(2)) };
    let entry = raft::Entry { index: 7, term: 3, kind: raft::EntryKind::Noop };
    vec![
        [vec![0], codec::encode(&hard_state)].concat(),
        [vec![1], codec::encode(&entry)].concat(),
        [vec![2], codec::encode(&raft::SnapshotMeta { index: 300, term: 7 })].concat(),
        [vec![3], codec::encode(&records)].concat(),
        [vec![4], codec::encode(&(raft::Standing::Founding, hard_state))].concat(),
    ]
}

/// Entries of every kind.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |place: &str, version, written| Entry {
        place: Payload::new(place.to_owned()).unwrap_or_default(),
        stamp: Stamp::from_version(version),
        written,
    };
    vec![
        entry("a\0\0", 7, Written::RowDeleted),
        entry("a\0\0c", 8, Written::Value(Payload::new("v").unwrap_or_default())),
        entry("b\0\0", 1 << 40, Written::Deleted),
    ]
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap_or_default()
}

pub(crate) fn column(text: &str) -> Column {
    Column::new(text.to_owned()).unwrap_or_default()
}

pub(super) fn value(text: &str) -> Value {
    Value::new(text.to_owned()).unwrap_or_default()
}
