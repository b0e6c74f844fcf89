//! The node itself: its parts, and the dispatch of everything that can happen to it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Clock;
use super::config::Config;
use super::context::{Context, Owner, Then};
use super::detector::Detector;
use super::floor::Floors;
use super::merkle::Trees;
use super::message::{Message, RequestId, SyncMessage, WriteOutcome};
use super::read::Reads;
use super::ready::{Found, Input, ReadId, Ready, Recovered};
use super::sync::Sync;
use crate::base::{Core, Instant, NodeId, Rng, Stamp};

/// How a node is, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DynamoStatus {
    /// The other nodes that are believed to be up.
    pub up: Vec<NodeId>,
    /// The latest stamp given or seen.
    pub clock: Stamp,
    /// Whether the node has all it ever acknowledged.
    pub is_whole: bool,
    /// Reads under way.
    pub pending_reads: usize,
    /// Background comparisons under way.
    pub background_reads: usize,
    /// Bytes of Merkle trees.
    pub merkle_bytes: usize,
    /// Partitions whose tree is not known yet.
    pub merkle_unknown: usize,
    /// Sessions of anti-entropy that were completed since the start.
    pub sync_sessions: u64,
    /// When a session with each peer was completed last.
    pub synced: BTreeMap<NodeId, Instant>,
    /// The least floor of the partitions held here.
    pub floor_min: Stamp,
}

/// One node of the masterless protocol, as a plain value. See the [module](super).
#[derive(Debug)]
pub struct Dynamo {
    context: Context,
    reads: Reads,
    trees: Trees,
    sync: Sync,
    floors: Floors,
}

impl Dynamo {
    /// Starts a node with what it found on its disk.
    pub fn new(config: Config, recovered: Recovered, rng: Rng, now: Instant) -> Self {
        config.check();
        let mut context = Context::new(config, Clock::default(), Detector::default(), rng, now);
        let floors = Floors::new(&mut context, &recovered);
        Self {
            reads: Reads::new(&context),
            trees: Trees::new(&context),
            sync: Sync::new(&context),
            floors,
            context,
        }
    }

    /// Returns a stamp that no write is older than which this node still has to deliver, and
    /// that none which it will ever coordinate is older than.
    fn low_water(&self) -> Stamp {
        self.context.clock.last()
    }

    fn on_peer(&mut self, from: NodeId, message: Message) {
        if let Message::WriteReply { id, outcome } = message {
            return self.on_write_reply(from, id, outcome);
        }
        let low_water = self.low_water();
        let context = &mut self.context;
        match message {
            Message::Read { id, ranges, digest_only } => {
                self.reads.on_read_message(context, from, id, ranges, digest_only);
            }
            Message::ReadReply { id, reply } => self.reads.on_read_reply(context, from, id, reply),
            Message::Sync(
                message @ (SyncMessage::Fence { .. }
                | SyncMessage::Fenced { .. }
                | SyncMessage::Floor { .. }),
            ) => self.floors.on_sync_message(context, low_water, from, message),
            Message::Sync(message) => {
                let (trees, floors) = (&self.trees, &mut self.floors);
                self.sync.on_sync_message(context, trees, floors, from, message);
            }
            Message::Heartbeat(_)
            | Message::Write { .. }
            | Message::Repair { .. }
            | Message::WriteReply { .. }
            | Message::BatchStore { .. }
            | Message::BatchStored { .. }
            | Message::BatchDone { .. } => {}
        }
    }

    fn on_write_reply(&mut self, from: NodeId, id: RequestId, outcome: WriteOutcome) {
        let Some(owner) = self.context.answered(from, id) else { return };
        let context = &mut self.context;
        match owner {
            Owner::Reads => self.reads.on_write_reply(context, from, id, outcome),
            Owner::Sync => {
                self.sync.on_write_reply(context, &mut self.floors, from, id, outcome);
            }
            Owner::Writes | Owner::Hints | Owner::Batches | Owner::Trees | Owner::Floors => {}
        }
    }

    fn on_store_read(&mut self, id: ReadId, found: Found) {
        let Some(owner) = self.context.was_read(id) else { return };
        let context = &mut self.context;
        match owner {
            Owner::Reads => self.reads.on_store_read(context, id, found),
            Owner::Trees => self.trees.on_store_read(context, id, found),
            Owner::Sync => {
                self.sync.on_store_read(context, id, found);
            }
            Owner::Writes | Owner::Hints | Owner::Batches | Owner::Floors => {}
        }
    }

    fn on_done(&mut self, then: Then) {
        let context = &mut self.context;
        match then {
            Then::OwnWrite(id) => {
                let own = context.id();
                self.on_write_reply(own, id, WriteOutcome::Stored);
            }
            Then::Part(Owner::Floors, tag) => self.floors.on_persisted(context, tag),
            _ => {}
        }
    }
}

impl Core for Dynamo {
    type Input = Input;
    type Ready = Ready;

    fn step(&mut self, now: Instant, input: Input) {
        self.context.now = self.context.now.max(now);
        match input {
            Input::Peer { from, message } => self.on_peer(from, message),
            Input::PeerLost { peer } => {
                self.reads.on_peer_lost(&mut self.context, peer);
                self.sync.on_peer_lost(&mut self.context, peer);
            }
            Input::Read { token, level, ranges } => {
                self.reads.on_client_read(&mut self.context, token, level, ranges);
            }
            Input::Forget { token } => self.reads.on_forget(&mut self.context, token),
            Input::Persisted { through } => {
                for then in self.context.persisted(through) {
                    self.on_done(then);
                }
            }
            Input::StoreRead { id, found } => self.on_store_read(id, found),
            Input::Applied { deltas } => self.trees.on_applied(deltas),
            Input::Wall { .. } | Input::Write { .. } | Input::DiskFull | Input::DiskHasSpace => {}
        }
    }

    fn tick(&mut self, now: Instant) {
        self.context.now = self.context.now.max(now);
        self.reads.tick(&mut self.context);
        self.trees.tick(&mut self.context);
        self.sync.tick(&mut self.context, &self.trees, &mut self.floors);
        let low_water = self.low_water();
        self.floors.tick(&mut self.context, &self.trees, low_water);
    }

    fn take_ready(&mut self) -> Ready {
        self.context.take_ready()
    }

    fn deadline(&self) -> Instant {
        let context = &self.context;
        let deadlines = [
            self.reads.deadline(),
            self.trees.deadline(),
            self.sync.deadline(),
            self.floors.deadline(),
        ];
        let far = context.now + Duration::from_secs(1);
        deadlines.into_iter().flatten().min().unwrap_or(far)
    }
}
