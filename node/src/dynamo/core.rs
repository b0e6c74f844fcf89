//! The node itself: its parts, and the dispatch of everything that can happen to it.
//!
//! [`Dynamo::step`] and [`Dynamo::tick`] hand an input to the part that it concerns; the parts
//! note in the context what they want done, and [`Dynamo::take_ready`] returns that. Records of
//! many requests gather in the context until the disk has time: then they are one persist request.

use std::collections::{BTreeMap, VecDeque};

use super::batch::{Batches, Next};
use super::clock::Clock;
use super::config::Config;
use super::context::{Context, Owner, Then};
use super::detector::Detector;
use super::floor::{self, Floors};
use super::hint::Hints;
use super::merge;
use super::merkle::Trees;
use super::message::{Chunk, Heartbeat, Message, Range, RequestId, SyncMessage, WriteOutcome};
use super::notes::{self, Kind};
use super::read::Reads;
use super::ready::{Found, Input, Level, PersistId, ReadId, Ready, Recovered, Token};
use super::sync::Sync;
use super::waiting::Waiting;
use super::write::{ClientWrite, Writes};
use crate::base::{Core, Instant, NodeId, Payload, Rng, Stamp};
use crate::{planted, probe};

/// How a node is, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DynamoStatus {
    /// The start of this node; 0 before it knows it.
    pub generation: u64,
    /// The other nodes that are believed to be up.
    pub up: Vec<NodeId>,
    /// The latest stamp given or seen.
    pub clock: Stamp,
    /// Milliseconds by which the own wall clock is ahead of the others', if that is too much to
    /// take writes.
    pub too_far_ahead_ms: Option<u64>,
    /// Whether the node has all it ever acknowledged.
    pub is_whole: bool,
    /// Whether there is no space on its disk.
    pub is_disk_full: bool,
    /// Whether it refuses clients' writes because its disk may have lost which stamps it gave.
    pub refuses_writes: bool,
    /// Client requests that wait for the start or the clock.
    pub waiting: usize,
    /// Bytes of changes in them.
    pub waiting_bytes: usize,
    /// Records that wait for the disk.
    pub records_waiting: usize,
    /// Records that the disk was given.
    pub records_in_flight: usize,
    /// Writes under way.
    pub pending_writes: usize,
    /// Bytes of entries of these.
    pub pending_write_bytes: usize,
    /// Bytes of others' writes that wait for the disk.
    pub replica_bytes: usize,
    /// Number and bytes of the hints kept for each node.
    pub hints: BTreeMap<NodeId, (usize, usize)>,
    /// Hints that were dropped since the start: too old, too many, refused, or damaged.
    pub hints_dropped: u64,
    /// Batches kept, own and others'.
    pub batches: usize,
    /// Their bytes.
    pub batch_bytes: usize,
    /// No write that this node knows of and that is not finished is older.
    pub low_water: Stamp,
    /// Reads under way.
    pub pending_reads: usize,
    /// Background comparisons under way.
    pub background_reads: usize,
    /// Bytes of answers kept of the reads under way.
    pub pending_read_bytes: usize,
    /// Merkle trees, known or not.
    pub merkle_count: usize,
    /// Bytes of Merkle trees.
    pub merkle_bytes: usize,
    /// Bytes of them if all are known: what they can take.
    pub merkle_bytes_max: usize,
    /// Partitions whose tree is not known yet.
    pub merkle_unknown: usize,
    /// Sessions of anti-entropy that were completed since the start.
    pub sync_sessions: u64,
    /// Since when all that this node shares with a peer has been compared, of each peer that it
    /// shares a partition with; `None` if some of it was not yet.
    pub synced: BTreeMap<NodeId, Option<Instant>>,
    /// The least floor of the partitions held here.
    pub floor_min: Stamp,
}

/// One node of the masterless protocol, as a plain value. See the [module](super).
#[derive(Debug)]
pub struct Dynamo {
    pub(super) context: Context,
    pub(super) writes: Writes,
    pub(super) hints: Hints,
    pub(super) batches: Batches,
    pub(super) reads: Reads,
    pub(super) trees: Trees,
    pub(super) sync: Sync,
    pub(super) floors: Floors,
    pub(super) startup: Startup,
    /// How far a start's generation goes beyond those that are known: see [`Recovered`].
    generation_step: u64,
    /// The last start that the disk knows of, this one excepted.
    last_generation: u64,
    /// The disk may have lost the ceiling: it lost something, or it has forgotten a start.
    has_lost_ceiling: bool,
    /// Requests that wait for the start or for a stamp, with when they came.
    pub(super) waiting: VecDeque<(Instant, Waiting)>,
    pub(super) waiting_bytes: usize,
    heartbeat_at: Instant,
    /// No stamps before this: see [`wait_out_the_ceiling`](Self::wait_out_the_ceiling).
    stamps_at: Instant,
    /// Whoever is up has been heard of by then: see [`refuses_writes`](Self::refuses_writes) and
    /// [`release_clock`](Self::release_clock).
    others_by: Instant,
    placement_hash: u64,
    pub(super) seen: super::invariants::Seen,
}

/// How far the start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Startup {
    /// The wall clock has not been read.
    NoWall {
        /// The least that the generation may be.
        generation_min: u64,
        is_damaged: bool,
    },
    /// The generation is on its way to the disk; nothing may be sent.
    Silent,
    /// The node takes part.
    Started,
}

/// Starting.
impl Dynamo {
    /// Starts a node with what it found on its disk. It takes part once it has read the wall
    /// clock and made durable that it started once more.
    pub fn new(config: Config, recovered: Recovered, rng: Rng, now: Instant) -> Self {
        config.check();
        let Recovered { generation_step, persisted, is_damaged, .. } = recovered;
        assert!(generation_step > 0, "every start has a generation of its own");
        let generation_step = if planted!("D62") { 1 } else { generation_step };
        let known = |wanted: Kind| {
            let note = recovered
                .notes
                .iter()
                .find(|(place, _)| Kind::of(place.as_bytes()) == Some(wanted));
            note.map(|(_, content)| content.as_bytes())
        };
        let ceiling = known(Kind::Ceiling).and_then(notes::ceiling).unwrap_or_default();
        let last_generation = known(Kind::Generation).and_then(notes::number).unwrap_or(0);
        let was_damaged = known(Kind::Damaged).is_some();
        let (clock, detector) = (Clock::new(&config, ceiling), Detector::new(&config));
        let mut context = Context::new(config, clock, detector, rng, now);
        context.recover(persisted);
        context.is_whole = !(is_damaged || was_damaged);
        let placement_hash = context.config.placement.hash();
        let floors = Floors::new(&mut context, &recovered);
        let mut dynamo = Self {
            writes: Writes::default(),
            hints: Hints::default(),
            batches: Batches::default(),
            reads: Reads::new(&context),
            trees: Trees::new(&context),
            sync: Sync::new(&context),
            floors,
            context,
            startup: Startup::NoWall {
                generation_min: last_generation.saturating_add(generation_step),
                is_damaged,
            },
            generation_step,
            last_generation,
            has_lost_ceiling: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            heartbeat_at: now,
            stamps_at: now,
            others_by: now,
            placement_hash,
            seen: super::invariants::Seen::default(),
        };
        dynamo.recover(recovered.notes);
        dynamo
    }

    /// Gives each note to whom it concerns.
    fn recover(&mut self, notes: Vec<(Payload, Payload)>) {
        for (place, content) in notes {
            let content = content.as_bytes();
            match Kind::of(place.as_bytes()) {
                Some(Kind::Hint { target, number }) => self.hints.recover(target, number, content),
                Some(Kind::Batch(batch)) => self.batches.recover(&self.context, batch, content),
                Some(
                    Kind::Generation | Kind::Ceiling | Kind::Damaged | Kind::Fence | Kind::Floor(_),
                ) => {}
                None => {
                    probe!("dynamo.unknown_note");
                }
            }
        }
    }

    /// Learns what the own wall clock shows, and what the others' do by now.
    fn read_clocks(&mut self, own_ms: u64) {
        let common_ms = self.context.detector.common_ms(own_ms, self.context.now);
        self.context.clock.on_wall(own_ms, common_ms);
    }

    fn on_wall(&mut self, ms: u64) {
        self.read_clocks(ms);
        let Startup::NoWall { generation_min, is_damaged } = self.startup else { return };
        // A disk that lost the generation would begin with a small one, and the others would take
        // every word for a late one of an earlier start.
        let generation = if is_damaged { generation_min.max(ms) } else { generation_min };
        self.context.generation = generation;
        if is_damaged {
            probe!("dynamo.starts_damaged");
            self.context.persist(notes::keep(Kind::Damaged), Then::Nothing);
        }
        let has_peers = self.context.config.nodes.len() > 1;
        if has_peers && !self.context.is_whole {
            self.wait_out_the_ceiling();
            self.others_by = self.context.now + self.context.detector.first_patience();
        } else if has_peers && !planted!("D75") {
            // Its disk may be older than it can know.
            self.context.clock.hold();
        }
        let note = notes::keep_number(Kind::Generation, generation);
        self.context.persist(note, Then::Generation);
        self.startup = Startup::Silent;
    }

    /// The disk may have lost the ceiling: gives no stamps before a majority has told what it
    /// has seen, and the wall clock has passed whatever ceiling there was. Where nobody is whole,
    /// the cluster begins: no stamp was ever given.
    fn wait_out_the_ceiling(&mut self) {
        let step = self.context.config.ceiling_step;
        self.stamps_at = self.context.now + step + step / 4;
        self.has_lost_ceiling = true;
        self.context.clock.hold();
    }

    /// Tells whether clients' writes are refused, each at once, because the disk may have lost the
    /// ceiling: there is no stamp for them before a long time, and other nodes have some. A new
    /// cluster is over that as soon as its nodes have heard of each other, so while this may be
    /// one, writes wait; and so they do while a start only waits to hear from a majority.
    pub fn refuses_writes(&self) -> bool {
        let context = &self.context;
        if !context.clock.is_held() || !self.has_lost_ceiling {
            return false;
        }
        let is_whole = |peer| context.detector.heartbeat(peer).is_some_and(|h| h.is_whole);
        let may_begin = !context.is_whole && !context.config.peers().any(is_whole);
        !may_begin || context.now >= self.others_by
    }

    /// Has the clock give stamps if it may by now: with a ceiling that is not known to be lost, as
    /// soon as a majority has told what it has seen, or would have told it if it were up.
    fn release_clock(&mut self) {
        let context = &mut self.context;
        if !context.clock.is_held() {
            return;
        }
        let has_majority = context.detector.heard_count() + 1 > context.config.nodes.len() / 2;
        if !self.has_lost_ceiling {
            let is_alone = self.startup == Startup::Started && self.others_by <= context.now;
            if is_alone && !has_majority {
                probe!("dynamo.start_hears_no_majority");
            }
            if is_alone || has_majority {
                context.clock.release(false);
            }
            return;
        }
        let is_late = self.stamps_at <= context.now || planted!("D63");
        let heartbeat = |peer| context.detector.heartbeat(peer);
        let begins = !context.is_whole
            && context.config.peers().all(|peer| heartbeat(peer).is_some_and(|h| !h.is_whole));
        if has_majority {
            context.clock.hear_majority();
        }
        if has_majority && (is_late || begins) {
            context.clock.release(begins);
        }
    }
}

/// What others say.
impl Dynamo {
    fn on_peer(&mut self, from: NodeId, message: Message) {
        let is_known = from != self.context.id() && self.context.config.nodes.contains(&from);
        if !is_known || self.startup != Startup::Started {
            return;
        }
        let context = &mut self.context;
        match message {
            Message::Heartbeat(heartbeat) => self.on_heartbeat(from, heartbeat),
            Message::Write { id, entries } => {
                self.writes.on_write_message(context, from, id, entries);
            }
            Message::WriteReply { id, outcome } => self.on_write_reply(from, id, outcome),
            Message::Read { id, ranges, digest_only } => {
                self.reads.on_read_message(context, from, id, ranges, digest_only);
            }
            Message::ReadReply { id, reply } => self.reads.on_read_reply(context, from, id, reply),
            Message::Repair { id, entries } => {
                self.writes.on_repair_message(context, from, id, entries);
            }
            Message::BatchStore { batch, entries } => {
                self.batches.on_batch_store(context, from, batch, &entries);
            }
            Message::BatchStored { batch } => {
                let next = self.batches.on_batch_stored(context, from, batch);
                self.follow_batch(next);
            }
            Message::BatchLate { batch } => self.batches.on_batch_late(context, from, batch),
            Message::BatchDone { batch } => self.batches.on_batch_done(context, batch),
            Message::Sync(
                message @ (SyncMessage::Fence { .. }
                | SyncMessage::Fenced { .. }
                | SyncMessage::Floor { .. }),
            ) => {
                let low_water = self.low_water();
                self.floors.on_sync_message(&mut self.context, low_water, from, message);
            }
            Message::Sync(message) => {
                let (trees, floors) = (&self.trees, &mut self.floors);
                self.sync.on_sync_message(context, trees, floors, from, message);
            }
        }
    }

    fn on_heartbeat(&mut self, from: NodeId, heartbeat: Heartbeat) {
        if heartbeat.placement != self.placement_hash {
            probe!("dynamo.peer_with_another_placement");
            return;
        }
        let (heard, is_whole) = (heartbeat.heard, heartbeat.is_whole);
        let context = &mut self.context;
        context.clock.observe(heartbeat.clock);
        let is_new = context.detector.on_heartbeat(from, heartbeat, context.now);
        self.release_clock();
        self.read_clocks(self.context.clock.wall_ms());
        if is_new && !is_whole {
            self.on_disk_lost(from);
        }
        if is_new {
            let heartbeat = self.heartbeat(from);
            self.context.send(from, Message::Heartbeat(heartbeat));
        }
        self.hints.on_peer_heard(&mut self.context, from, is_new);
        if heard > self.context.generation {
            self.begin_again(heard);
        } else if !self.has_lost_ceiling && self.has_forgotten(heard) {
            probe!("dynamo.earlier_start_was_forgotten");
            self.wait_out_the_ceiling();
            self.others_by = self.context.now;
        }
    }

    /// Tells whether the disk has forgotten a start that somebody has heard of.
    fn has_forgotten(&self, heard: u64) -> bool {
        heard > self.last_generation && heard != self.context.generation
    }

    /// A peer was started with a disk that had lost something: what it acknowledged and answered
    /// before counts no more. It is told that it was heard only after this; see `floor`.
    fn on_disk_lost(&mut self, peer: NodeId) {
        let Self { context, writes, hints, batches, reads, .. } = self;
        let number = context.next_number();
        if !planted!("D71") {
            hints.on_peer_lost(context, peer);
            writes.on_disk_lost(context, peer);
            reads.on_disk_lost(context, peer);
        }
        if !planted!("D74") {
            batches.on_disk_lost(context, peer);
        }
        if !planted!("D71") && !planted!("D74") {
            context.check_forgotten(peer, number);
        }
    }

    /// The disk has forgotten some starts: begins one that is later than all that others know of,
    /// or they would take every word for a late one of an earlier start. What was asked meanwhile
    /// and is not answered counts as lost.
    fn begin_again(&mut self, heard: u64) {
        probe!("dynamo.generation_was_forgotten");
        self.context.generation = heard.saturating_add(self.generation_step);
        let note = notes::keep_number(Kind::Generation, self.context.generation);
        self.context.persist(note, Then::Generation);
        self.startup = Startup::Silent;
        self.wait_out_the_ceiling();
        self.others_by = self.context.now;
    }

    fn heartbeat(&self, to: NodeId) -> Heartbeat {
        Heartbeat {
            generation: self.context.generation,
            heard: self.context.detector.heard(to),
            wall_ms: self.context.clock.wall_ms(),
            clock: self.context.clock.last(),
            placement: self.placement_hash,
            low_water: self.low_water(),
            is_whole: self.context.is_whole,
        }
    }

    /// Returns a stamp that no unfinished or future write of this node lies below.
    fn low_water(&self) -> Stamp {
        let parts = [self.writes.low_water(), self.hints.low_water(), self.batches.low_water()];
        parts.into_iter().flatten().fold(self.context.clock.low(), Stamp::min)
    }

    fn on_peer_lost(&mut self, peer: NodeId) {
        let context = &mut self.context;
        context.detector.on_peer_lost(peer, context.now);
        self.hints.on_peer_lost(context, peer);
        self.reads.on_peer_lost(context, peer);
        self.sync.on_peer_lost(context, peer);
    }

    fn on_write_reply(&mut self, from: NodeId, id: RequestId, outcome: WriteOutcome) {
        let Some(owner) = self.context.answered(from, id) else {
            probe!("dynamo.acknowledgement_nobody_waits_for");
            return;
        };
        let Self { context, writes, hints, batches, reads, sync, floors, .. } = self;
        match owner {
            Owner::Writes => writes.on_write_reply(context, hints, batches, id, outcome),
            Owner::Hints => {
                if let Some((node, number)) = hints.on_write_reply(context, id, outcome) {
                    writes.on_hint_delivered(context, batches, node, number);
                }
            }
            Owner::Batches => batches.on_write_reply(context, id, outcome),
            Owner::Reads => reads.on_write_reply(context, from, id, outcome),
            Owner::Sync => sync.on_write_reply(context, floors, from, id, outcome),
            Owner::Trees | Owner::Floors => {
                assert!(owner == Owner::Writes, "D4: {owner:?} wrote {id:?}, and never writes");
            }
        }
    }

    fn follow_batch(&mut self, next: Next) {
        if let Next::Send(batch) = next {
            let Self { context, writes, hints, batches, .. } = self;
            writes.on_batch_kept(context, hints, batches, batch);
        }
    }
}

/// What clients say.
impl Dynamo {
    /// Tells whether a read at that level is answered by what this node's own store has in these
    /// ranges, and by nothing else: then [`own_answer`](Self::own_answer) makes the answer of it,
    /// and [`Input::Read`] is not needed.
    pub fn may_answer_alone(&mut self, level: Level, ranges: &[Range]) -> bool {
        self.startup == Startup::Started
            && self.reads.may_answer_alone(&self.context, level, ranges)
    }

    /// Makes the answer to a read of what the own store has in its ranges: the chunks of a
    /// [`Reply::Read`](super::Reply::Read) and the largest stamp that was met.
    pub fn own_answer(mut chunks: Vec<Chunk>) -> (Vec<Chunk>, Stamp) {
        probe!("dynamo.read_answered_alone");
        let seen = chunks.iter().map(merge::largest_stamp).max().unwrap_or_default();
        chunks.iter_mut().for_each(merge::strip);
        (chunks, seen)
    }

    fn on_forget(&mut self, token: Token) {
        self.waiting.retain(|(_, waiting)| waiting.token() != token);
        self.waiting_bytes = self.waiting.iter().map(|(_, waiting)| waiting.bytes()).sum();
        self.writes.on_forget(&mut self.context, &mut self.batches, token);
        self.reads.on_forget(&mut self.context, token);
    }
}

/// What the own disk says.
impl Dynamo {
    /// There is no space. What the disk was asked for waits there; of what it was not, those who
    /// can do without are told, and the rest waits here.
    fn on_disk_full(&mut self) {
        probe!("dynamo.disk_full");
        for pending in self.context.on_disk_full() {
            let context = &mut self.context;
            match pending.then {
                Then::Acknowledge { to, id, bytes, .. } => {
                    let outcome = WriteOutcome::DiskFull;
                    let message = Message::WriteReply { id, outcome };
                    self.writes.on_replicated(context, to, message, bytes);
                }
                Then::BatchHeld { batch, .. } => self.batches.on_held_disk_full(context, batch),
                Then::OwnWrite(id) | Then::OwnRefused(id) => match context.owner(id) {
                    Some(Owner::Writes) if self.writes.on_own_disk_full(context, id) => {
                        context.keep(pending);
                    }
                    Some(Owner::Writes) | None => context.forget(id),
                    Some(_) => context.done(Then::OwnDiskFull(id)),
                },
                Then::Nothing
                | Then::OwnDiskFull(_)
                | Then::Generation
                | Then::Ceiling(_)
                | Then::HintStored(..)
                | Then::BatchKept(_)
                | Then::Part(..) => context.keep(pending),
            }
        }
    }

    fn on_store_read(&mut self, id: ReadId, found: Found) {
        let Some(owner) = self.context.was_read(id) else { return };
        let Self { context, hints, batches, reads, trees, sync, .. } = self;
        match owner {
            Owner::Hints => hints.on_store_read(context, id, found),
            Owner::Batches => batches.on_store_read(context, id, found),
            Owner::Reads => reads.on_store_read(context, id, found),
            Owner::Trees => trees.on_store_read(id, found),
            Owner::Sync => sync.on_store_read(context, id, found),
            Owner::Writes | Owner::Floors => {
                assert!(owner == Owner::Reads, "D4: {owner:?} read {id}, and never reads");
            }
        }
    }

    /// Does what follows from a durable record.
    fn follow(&mut self, then: Then) {
        let Self { context, writes, hints, batches, floors, .. } = self;
        let own = context.id();
        match then {
            Then::Nothing => {}
            Then::OwnWrite(id) => self.on_write_reply(own, id, WriteOutcome::Stored),
            Then::OwnDiskFull(id) => self.on_write_reply(own, id, WriteOutcome::DiskFull),
            Then::OwnRefused(id) => self.on_write_reply(own, id, WriteOutcome::Refused),
            Then::Acknowledge { to, id, outcome, bytes } => {
                writes.on_replicated(context, to, Message::WriteReply { id, outcome }, bytes);
            }
            Then::Generation => {
                self.startup = Startup::Started;
                if !self.has_lost_ceiling {
                    self.others_by = context.now + context.detector.first_patience();
                }
                self.send_heartbeats();
                self.serve_reads();
            }
            Then::Ceiling(ms) => context.clock.on_ceiling(ms),
            Then::HintStored(target, number) => {
                hints.on_stored(context, target, number);
                writes.on_hint_stored(context, batches, target, number);
            }
            Then::BatchKept(batch) => {
                let next = batches.on_kept(batch);
                self.follow_batch(next);
            }
            Then::BatchHeld { batch, from } => batches.on_held(context, batch, from),
            Then::Part(Owner::Floors, tag) => floors.on_persisted(context, tag),
            Then::Part(owner, tag) => {
                assert!(owner == Owner::Floors, "D4: {owner:?} persisted {tag}, and never does");
            }
        }
    }

    fn send_heartbeats(&mut self) {
        self.context.clock.follow_wall();
        let peers: Vec<NodeId> = self.context.config.peers().collect();
        for peer in peers {
            let heartbeat = self.heartbeat(peer);
            self.context.send(peer, Message::Heartbeat(heartbeat));
        }
        self.heartbeat_at = self.context.now + self.context.config.heartbeat_interval;
    }

    /// Ends a step: does all that follows from it.
    fn finish_step(&mut self) {
        loop {
            while let Some(then) = self.context.take_done() {
                self.follow(then);
            }
            // Without space they would gather: the next one is as good.
            if !self.context.is_disk_full
                && let Some(ceiling) = self.context.clock.take_wanted_ceiling()
            {
                self.context.persist(notes::keep_ceiling(ceiling), Then::Ceiling(ceiling.ms));
            }
            self.serve_waiting();
            let Some(then) = self.context.take_done() else { break };
            self.follow(then);
        }
        self.check_after_step();
    }
}

/// What can be asked of it.
impl Dynamo {
    /// Returns the node's id.
    pub fn id(&self) -> NodeId {
        self.context.id()
    }

    /// Returns how the node is configured.
    pub fn config(&self) -> &Config {
        &self.context.config
    }

    /// Tells whether a node is believed to be up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.context.detector.is_up(node, self.context.now)
    }

    /// Returns the floor of a partition: tombstones up to it may be purged.
    pub fn floor(&self, partition: super::Partition) -> Stamp {
        self.context.floor(partition)
    }

    /// Returns the last persist request that the core has made.
    pub fn persist_last(&self) -> PersistId {
        self.context.persist_last()
    }

    /// Tells whether the node has all that any other replica has.
    pub fn is_whole(&self) -> bool {
        self.context.is_whole
    }

    /// Returns how many hints were dropped since the node started.
    pub fn hints_dropped(&self) -> u64 {
        self.hints.dropped()
    }

    /// Tells how the node is.
    pub fn status(&self) -> DynamoStatus {
        let context = &self.context;
        let (records_waiting, records_in_flight) = context.records();
        let (pending_writes, pending_write_bytes) = self.writes.pending();
        let (batches, batch_bytes) = self.batches.kept();
        let mut status = DynamoStatus {
            generation: context.generation,
            up: context.config.peers().filter(|&peer| self.is_up(peer)).collect(),
            clock: context.clock.last(),
            too_far_ahead_ms: context.clock.too_far_ahead_ms(),
            is_whole: context.is_whole,
            is_disk_full: context.is_disk_full,
            refuses_writes: self.refuses_writes(),
            waiting: self.waiting.len(),
            waiting_bytes: self.waiting_bytes,
            records_waiting,
            records_in_flight,
            pending_writes,
            pending_write_bytes,
            replica_bytes: self.writes.replica_bytes(),
            hints: self.hints.kept(),
            hints_dropped: self.hints.dropped(),
            batches,
            batch_bytes,
            low_water: self.low_water(),
            ..DynamoStatus::default()
        };
        self.reads.status(&mut status);
        self.trees.status(context, &mut status);
        self.sync.status(context, &mut status);
        floor::status(context, &mut status);
        status
    }
}

impl Core for Dynamo {
    type Input = Input;
    type Ready = Ready;

    fn step(&mut self, now: Instant, input: Input) {
        self.context.now = self.context.now.max(now);
        match input {
            Input::Wall { ms } => self.on_wall(ms),
            Input::Peer { from, message } => self.on_peer(from, message),
            Input::PeerLost { peer } => self.on_peer_lost(peer),
            Input::Write { token, level, seen, changes } => {
                self.on_client_write(ClientWrite { token, level, seen, changes });
            }
            Input::Read { .. } => self.on_client_read(input),
            Input::Forget { token } => self.on_forget(token),
            Input::Persisted { through } => self.context.on_persisted(through),
            Input::DiskFull => self.on_disk_full(),
            Input::DiskHasSpace => self.context.is_disk_full = false,
            Input::StoreRead { id, found } => self.on_store_read(id, found),
            Input::Applied { leaves } => {
                self.trees.on_applied(leaves);
                self.context.on_applied();
            }
        }
        self.finish_step();
    }

    fn tick(&mut self, now: Instant) {
        self.context.now = self.context.now.max(now);
        self.release_clock();
        self.end_waiting();
        if self.startup == Startup::Started {
            if self.heartbeat_at <= self.context.now {
                self.send_heartbeats();
            }
            let Self { context, writes, hints, batches, reads, trees, sync, floors, .. } = self;
            writes.tick(context, hints, batches);
            hints.tick(context);
            batches.tick(context);
            reads.tick(context);
            trees.tick(context);
            sync.tick(context, trees, floors);
            let low_water = self.low_water();
            self.floors.tick(&mut self.context, &self.trees, low_water);
        }
        self.finish_step();
    }

    fn take_ready(&mut self) -> Ready {
        self.context.take_ready()
    }

    fn deadline(&self) -> Instant {
        let context = &self.context;
        let waiting = self.waiting.front();
        let waiting = waiting.map(|(since, _)| *since + context.config.write_timeout);
        if self.startup != Startup::Started {
            let patience = context.now + context.config.heartbeat_interval;
            return waiting.map_or(patience, |at| at.min(patience));
        }
        let deadlines = [
            waiting,
            self.writes.deadline(),
            self.hints.deadline(),
            self.batches.deadline(&context.config),
            self.reads.deadline(),
            self.trees.deadline(),
            Some(self.sync.deadline()),
            Some(self.floors.deadline()),
        ];
        deadlines.into_iter().flatten().fold(self.heartbeat_at, Instant::min)
    }
}
