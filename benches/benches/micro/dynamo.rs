//! The masterless core: a coordinator's QUORUM write and QUORUM read of one cell.
//!
//! Measured is the coordinator alone, one of three nodes that hold everything. A write goes until
//! all three replicas have it, so it includes the acknowledgement after which the client is
//! answered, and the third one, after which the coordinator forgets it. A read asks the own store
//! for the cell and one peer for a digest, which agree. Disk, store and peers answer at once, by a
//! few lines here.
//!
//! # Left out
//! The replicas' side; repairs, hints, batches; heartbeats, anti-entropy and comparisons in the
//! background, which are a matter of time, and time stands still.

use criterion::{BatchSize, Criterion};
use mangrove::base::{Column, Core, Entry, Instant, NodeId, Payload, Rng, Stamp, Written};
use mangrove::dynamo::{
    Change, Chunk, Config, Dynamo, Found, Heartbeat, Input, LeafChanges, Level, Message, Placement,
    Range, ReadReply, Ready, Recovered, Reply, RequestId, Token, WriteOutcome,
};
use mangrove::kv::{Plan, Query};

use super::{VALUE, key};

const NOW: Instant = Instant::from_nanos(0);

/// What all wall clocks show, in milliseconds.
const WALL_MS: u64 = 10_000;

/// The coordinator, and its peers.
const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

/// As many as a cluster has unless it is configured otherwise.
const PARTITION_COUNT: u16 = 256;

/// Every request is over before the next one.
const TOKEN: Token = 1;

/// Measures it.
pub(crate) fn measure(criterion: &mut Criterion) {
    let mut coordinator = Coordinator::start();
    let (write, read) = (coordinator.write(), coordinator.read());
    let replies = coordinator.take(write.clone());
    assert!(matches!(replies.as_slice(), [(TOKEN, Reply::Written { .. })]), "{replies:?}");
    assert_eq!(coordinator.core.status().pending_writes, 0, "every replica has it");
    let replies = coordinator.take(read.clone());
    let [(TOKEN, Reply::Read { chunks, .. })] = replies.as_slice() else {
        unreachable!("the cell was read, and not {replies:?}")
    };
    let found = chunks.iter().flat_map(|chunk| &chunk.entries);
    assert!(found.eq(&coordinator.chunk.entries), "the cell is there: {chunks:?}");

    let mut group = criterion.benchmark_group("dynamo");
    for (name, request) in [("quorum_write", write), ("quorum_read", read)] {
        group.bench_function(name, |bencher| {
            let next = || request.clone();
            bencher.iter_batched(next, |input| coordinator.take(input), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// A coordinator, with the disk, the store and the peers that answer it.
struct Coordinator {
    core: Dynamo,
    /// What each replica has of the cell.
    chunk: Chunk,
    /// What a peer says who is asked for the digest of that.
    digest: ReadReply,
}

impl Coordinator {
    /// Starts it, and has it hear of its peers.
    fn start() -> Self {
        let nodes = vec![N1, N2, N3];
        let placement = Placement::new(&nodes, nodes.len(), PARTITION_COUNT);
        let (hash, place) = (placement.hash(), placement.cell(key(1).as_bytes(), &[]));
        let place = Payload::new(place).expect("a short place");
        let stamp = Stamp::new(WALL_MS, 0, N2);
        let entries = vec![Entry { place, stamp, written: value() }];
        let config = Config::new(N1, nodes, placement);
        let recovered = Recovered { generation_step: 1, ..Recovered::default() };
        let core = Dynamo::new(config, recovered, Rng::new(1), NOW);
        let chunk = Chunk { entries, ..Chunk::default() };
        let mut coordinator = Self { core, chunk, digest: ReadReply::NotReady };
        coordinator.take(Input::Wall { ms: WALL_MS });
        for from in [N2, N3] {
            let heartbeat = Heartbeat {
                generation: 1,
                clock: Stamp::ZERO,
                wall_ms: WALL_MS,
                heard: 0,
                placement: hash,
                low_water: Stamp::ZERO,
                is_whole: true,
            };
            coordinator.take(Input::Peer { from, message: Message::Heartbeat(heartbeat) });
        }
        coordinator.learn_digest();
        coordinator
    }

    /// Asks for the digest of the cell: this node is a replica like the others.
    fn learn_digest(&mut self) {
        let id = RequestId { generation: 1, number: 1 };
        let message = Message::Read { id, ranges: self.ranges(), digest_only: true };
        self.core.step(NOW, Input::Peer { from: N2, message });
        let ready = self.core.take_ready();
        self.answer_reads(ready);
        for (_, message) in self.core.take_ready().send {
            if let Message::ReadReply { reply, .. } = message {
                self.digest = reply;
            }
        }
        assert!(matches!(self.digest, ReadReply::Digest(_)), "{:?}", self.digest);
    }

    /// Returns what a query for the cell asks for.
    fn ranges(&self) -> Vec<Range> {
        let query = Query::Get { key: key(1), column: Column::default() };
        Plan::new(&query, &self.core.config().placement).ranges().to_vec()
    }

    fn read(&self) -> Input {
        Input::Read { token: TOKEN, level: Level::Quorum, ranges: self.ranges() }
    }

    fn write(&self) -> Input {
        let places = self.chunk.entries.iter().map(|entry| entry.place.clone());
        let changes = places.map(|place| Change { place, written: value() }).collect();
        Input::Write { token: TOKEN, level: Level::Quorum, seen: Stamp::ZERO, changes }
    }

    /// Takes an input and does all that follows; returns the answers to clients.
    fn take(&mut self, input: Input) -> Vec<(Token, Reply)> {
        self.core.step(NOW, input);
        let mut answered = Vec::new();
        loop {
            let mut ready = self.core.take_ready();
            answered.append(&mut ready.replies);
            if ready == Ready::default() {
                return answered;
            }
            for _ in ready.apply.drain(..) {
                self.core.step(NOW, Input::Applied { leaves: LeafChanges::default() });
            }
            if let Some(persist) = ready.persist.take() {
                self.core.step(NOW, Input::Persisted { through: persist.id });
            }
            for (from, message) in ready.send.drain(..) {
                if let Some(message) = self.answer(&message) {
                    self.core.step(NOW, Input::Peer { from, message });
                }
            }
            self.answer_reads(ready);
        }
    }

    /// Answers what the own store is asked for.
    fn answer_reads(&mut self, ready: Ready) {
        for (id, _) in ready.reads {
            let found = Found::Chunks(vec![self.chunk.clone()]);
            self.core.step(NOW, Input::StoreRead { id, found });
        }
    }

    /// Answers a message as a peer does that has a quick disk.
    fn answer(&self, message: &Message) -> Option<Message> {
        if let Message::Write { id, .. } = message {
            return Some(Message::WriteReply { id: *id, outcome: WriteOutcome::Stored });
        }
        let Message::Read { id, .. } = message else { return None };
        Some(Message::ReadReply { id: *id, reply: self.digest.clone() })
    }
}

fn value() -> Written {
    Written::Value(Payload::new(VALUE.to_vec()).expect("a short value"))
}
