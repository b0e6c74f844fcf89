//! What the parts of the core share: time, configuration, what is known of the others, and the
//! ready value under construction.
//!
//! A part never does anything itself; it asks the context to send, to reply, to persist or to
//! read. What it asked for comes back through an entry point of the part, named by [`Owner`] and
//! [`Then`]: a write's acknowledgement to its owner, a durable record to what follows from it.

use std::collections::{BTreeMap, VecDeque};

use super::clock::Clock;
use super::config::Config;
use super::detector::Detector;
use super::floor;
use super::message::{Message, RequestId, WriteOutcome};
use super::placement::{Partition, partition_of_place};
use super::ready::{Persist, PersistId, ReadId, Ready, Record, Reply, StoreRead, Token};
use crate::base::{Entry, Instant, NodeId, Rng, Stamp};

/// The part of the core that an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Writes,
    Hints,
    Batches,
    Reads,
    Trees,
    Sync,
    Floors,
}

/// What follows when a record is durable and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing; if there was no space the record is kept and tried again.
    Nothing,
    /// The own node has acknowledged a write that [`Context::write`] gave it.
    OwnWrite(RequestId),
    /// A peer's write is acknowledged with that outcome.
    Acknowledge { to: NodeId, id: RequestId, outcome: WriteOutcome },
    /// The generation is durable: the node may speak.
    Generation,
    /// Stamps may be given up to that millisecond.
    Ceiling(u64),
    /// The hint of that target and number is durable.
    HintStored(NodeId, u64),
    /// The note of the own batch is durable.
    BatchKept(Stamp),
    /// The note of another node's batch is durable.
    BatchHeld { batch: Stamp, from: NodeId },
    /// `on_persisted(tag)` of a part. If there was no space the record is tried again.
    Part(Owner, u64),
}

/// A record on its way to the disk.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) record: Record,
    pub(super) then: Then,
}

/// What the parts share.
#[derive(Debug)]
pub(super) struct Context {
    /// Now, on the monotonic clock.
    pub(super) now: Instant,
    /// How the node is configured, the placement included.
    pub(super) config: Config,
    /// The source of stamps, which also knows the wall time.
    pub(super) clock: Clock,
    /// Who is up, and what the heartbeats told.
    pub(super) detector: Detector,
    /// Randomness.
    pub(super) rng: Rng,
    /// The start of this node; part of every [`RequestId`].
    pub(super) generation: u64,
    /// Whether the node has all it ever acknowledged. Kept by `sync`, with its durable note.
    pub(super) is_whole: bool,
    /// The disk is full: nothing is to be begun that needs it.
    pub(super) is_disk_full: bool,
    /// Floor of each partition as far as it is durable here. Kept by `floor`.
    floors: BTreeMap<Partition, Stamp>,
    /// Up to which stamp only repairs are taken. Kept by `floor`.
    pub(super) fence: Stamp,
    /// The latest tombstone that was applied in each partition since the start.
    tombstones: BTreeMap<Partition, Stamp>,
    next_number: u64,
    next_read: ReadId,
    /// Who waits for an acknowledgement, and of whom.
    waiting: BTreeMap<u64, (Owner, NodeId)>,
    /// Who waits for the own store.
    reading: BTreeMap<ReadId, Owner>,
    /// Records that no persist request has taken yet.
    gathered: VecDeque<Pending>,
    /// Persist requests that the disk has.
    in_flight: VecDeque<(PersistId, Vec<Pending>)>,
    /// What waits for space on the disk.
    deferred: VecDeque<Pending>,
    persist_last: PersistId,
    out: Ready,
}

impl Context {
    pub(super) fn new(
        config: Config,
        clock: Clock,
        detector: Detector,
        rng: Rng,
        now: Instant,
    ) -> Self {
        Self {
            now,
            config,
            clock,
            detector,
            rng,
            generation: 0,
            is_whole: true,
            is_disk_full: false,
            floors: BTreeMap::new(),
            fence: Stamp::ZERO,
            tombstones: BTreeMap::new(),
            next_number: 1,
            next_read: 1,
            waiting: BTreeMap::new(),
            reading: BTreeMap::new(),
            gathered: VecDeque::new(),
            in_flight: VecDeque::new(),
            deferred: VecDeque::new(),
            persist_last: 0,
            out: Ready::default(),
        }
    }

    /// Returns the node's id.
    pub(super) fn id(&self) -> NodeId {
        self.config.id
    }

    /// Returns the floor of a partition as this node knows it.
    pub(super) fn floor(&self, partition: Partition) -> Stamp {
        self.floors.get(&partition).copied().unwrap_or_default()
    }

    /// Sets the floor of a partition, whose note is durable.
    pub(super) fn set_floor(&mut self, partition: Partition, floor: Stamp) {
        let old = self.floors.insert(partition, floor).unwrap_or_default();
        assert!(old <= floor, "D9: the floor of {partition} went back from {old} to {floor}");
    }

    /// Tells whether an entry must not be stored: it was everywhere once, or its coordinator
    /// gave it up; see `floor`. A repair passes the fence.
    pub(super) fn refuses(&self, entry: &Entry, is_repair: bool) -> bool {
        let floor = partition_of_place(entry.place.as_bytes()).map(|of| self.floor(of));
        let is_late = !is_repair && entry.stamp <= self.fence;
        is_late || floor.is_none_or(|floor| floor::is_under(entry.stamp, floor))
    }

    /// Returns the latest tombstone that was applied in a partition since the start.
    pub(super) fn last_tombstone(&self, partition: Partition) -> Stamp {
        self.tombstones.get(&partition).copied().unwrap_or_default()
    }

    /// Returns a name for a question; unique over the node's life.
    pub(super) fn next_id(&mut self) -> RequestId {
        let number = self.next_number;
        self.next_number += 1;
        RequestId { generation: self.generation, number }
    }

    /// Sends a message to another node.
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        assert!(to != self.id(), "{to} sends {message:?} to itself");
        self.out.send.push((to, message));
    }

    /// Answers a client.
    pub(super) fn reply(&mut self, token: Token, reply: Reply) {
        self.out.replies.push((token, reply));
    }

    /// Has a record made durable and applied, and then what follows.
    pub(super) fn persist(&mut self, record: Record, then: Then) {
        self.gathered.push_back(Pending { record, then });
    }

    /// Has a node, this one or another, store entries. Its answer comes to the owner's
    /// `on_write_reply`, at most once; if the owner waits no more it says so by
    /// [`forget`](Self::forget).
    pub(super) fn write(&mut self, owner: Owner, to: NodeId, entries: Vec<Entry>) -> RequestId {
        let id = self.next_id();
        self.waiting.insert(id.number, (owner, to));
        if to == self.id() {
            self.persist(Record::Entries(entries), Then::OwnWrite(id));
        } else if matches!(owner, Owner::Reads | Owner::Sync) {
            self.send(to, Message::Repair { id, entries });
        } else {
            self.send(to, Message::Write { id, entries });
        }
        id
    }

    /// Nobody waits any more for the acknowledgement of that write.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.waiting.remove(&id.number);
    }

    /// Reads from the own store; the answer comes to the owner's `on_store_read`.
    pub(super) fn read_store(&mut self, owner: Owner, read: StoreRead) -> ReadId {
        let id = self.next_read;
        self.next_read += 1;
        self.reading.insert(id, owner);
        self.out.reads.push((id, read));
        id
    }
}

/// What the core needs of the context.
impl Context {
    /// Takes an acknowledgement: returns who waits for it, if anybody does, and only once.
    pub(super) fn answered(&mut self, from: NodeId, id: RequestId) -> Option<Owner> {
        let &(owner, of) = self.waiting.get(&id.number)?;
        if id.generation != self.generation || of != from {
            return None;
        }
        self.waiting.remove(&id.number);
        Some(owner)
    }

    /// Takes an answer of the own store: returns who waits for it.
    pub(super) fn was_read(&mut self, id: ReadId) -> Option<Owner> {
        self.reading.remove(&id)
    }

    /// Every persist request up to `through` is durable: has their records applied, and returns
    /// what follows.
    pub(super) fn persisted(&mut self, through: PersistId) -> Vec<Then> {
        let mut then = Vec::new();
        while let Some((id, pending)) = self.in_flight.pop_front_if(|(id, _)| *id <= through) {
            let mut records = Vec::with_capacity(pending.len());
            for Pending { record, then: next } in pending {
                self.note_tombstones(&record);
                records.push(record);
                then.push(next);
            }
            self.out.apply.push((id, records));
        }
        then
    }

    fn note_tombstones(&mut self, record: &Record) {
        let Record::Entries(entries) = record else { return };
        for entry in entries.iter().filter(|entry| entry.is_tombstone()) {
            if let Some(partition) = partition_of_place(entry.place.as_bytes()) {
                let last = self.tombstones.entry(partition).or_default();
                *last = entry.stamp.max(*last);
            }
        }
    }

    /// Returns what is to be done by now.
    pub(super) fn take_ready(&mut self) -> Ready {
        let mut ready = std::mem::take(&mut self.out);
        ready.persist = self.take_persist();
        ready
    }

    fn take_persist(&mut self) -> Option<Persist> {
        if self.gathered.is_empty() || self.in_flight.len() >= self.config.persists_max {
            return None;
        }
        self.persist_last += 1;
        let pending: Vec<Pending> = self.gathered.drain(..).collect();
        let records = pending.iter().map(|pending| pending.record.clone()).collect();
        self.in_flight.push_back((self.persist_last, pending));
        Some(Persist { id: self.persist_last, records })
    }
}
