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
use super::placement::{Partition, Placement, partition_of_place};
use super::ready::{Persist, PersistId, ReadId, Ready, Record, Reply, StoreRead, Token};
use crate::base::{Entry, Instant, NodeId, Rng, Stamp};
use crate::{planted, probe};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// The own node has acknowledged a write that [`Context::write`] gave it.
    OwnWrite(RequestId),
    /// A peer's write is acknowledged with that outcome.
    Acknowledge { to: NodeId, id: RequestId, outcome: WriteOutcome, bytes: usize },
    /// The own disk has no space for such a write.
    OwnDiskFull(RequestId),
    /// The own node does not want such a write, or a part of it; the rest is stored.
    OwnRefused(RequestId),
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
    /// `on_persisted(tag)` of a part.
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
    floors: ByPartition,
    /// The latest floor noted of each partition, durable or not. Kept by `floor`.
    noted_floors: ByPartition,
    /// Up to which stamp only repairs and replayed batches are taken. Kept by `floor`.
    pub(super) fence: Stamp,
    /// The latest tombstone that was applied in each partition since the start.
    tombstones: ByPartition,
    /// What was applied since the own session of anti-entropy began, or the last one.
    arrived: Lowest,
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
    /// What follows from what is durable, for each apply that is not reported yet; and what is
    /// applied.
    applying: VecDeque<(Vec<Then>, Lowest)>,
    /// What follows from what is durable and applied.
    done: VecDeque<Then>,
    persist_last: PersistId,
    out: Ready,
}

/// A stamp of each partition; the smallest where none was set. They are asked for after every step
/// of the core, by checks over all partitions.
#[derive(Debug, Clone)]
struct ByPartition(Vec<Stamp>);

impl ByPartition {
    fn new(placement: &Placement) -> Self {
        Self(vec![Stamp::ZERO; usize::from(placement.partition_count())])
    }

    fn get(&self, partition: Partition) -> Stamp {
        self.0.get(usize::from(partition)).copied().unwrap_or_default()
    }

    /// Raises a stamp that is lower. Nothing is kept of a partition that does not exist: that
    /// there are so many is not for a note or another node to say.
    fn raise(&mut self, partition: Partition, stamp: Stamp) {
        if let Some(known) = self.0.get_mut(usize::from(partition)) {
            *known = stamp.max(*known);
        }
    }
}

impl Context {
    pub(super) fn new(
        config: Config,
        clock: Clock,
        detector: Detector,
        rng: Rng,
        now: Instant,
    ) -> Self {
        let none = ByPartition::new(&config.placement);
        Self {
            now,
            config,
            clock,
            detector,
            rng,
            generation: 0,
            is_whole: true,
            is_disk_full: false,
            floors: none.clone(),
            noted_floors: none.clone(),
            fence: Stamp::ZERO,
            tombstones: none,
            arrived: Lowest::default(),
            next_number: 1,
            next_read: 1,
            waiting: BTreeMap::new(),
            reading: BTreeMap::new(),
            gathered: VecDeque::new(),
            in_flight: VecDeque::new(),
            applying: VecDeque::new(),
            done: VecDeque::new(),
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
        self.floors.get(partition)
    }

    /// Sets the floor of a partition, whose note is durable.
    pub(super) fn set_floor(&mut self, partition: Partition, floor: Stamp) {
        let old = self.floors.get(partition);
        self.floors.raise(partition, floor);
        assert!(old <= floor, "D9: the floor of {partition} went back from {old} to {floor}");
        let noted = self.noted_floor(partition);
        assert!(floor <= noted, "D9: floor {floor} of {partition}, noted {noted}");
    }

    /// A floor is on its way to the disk.
    pub(super) fn note_floor(&mut self, partition: Partition, floor: Stamp) {
        self.noted_floors.raise(partition, floor);
    }

    /// Returns the floor of a partition as it will be when all notes are durable.
    pub(super) fn noted_floor(&self, partition: Partition) -> Stamp {
        self.noted_floors.get(partition)
    }

    /// An own session of anti-entropy begins.
    pub(super) fn forget_arrivals(&mut self) {
        self.arrived = Lowest::default();
    }

    /// Tells whether something of that partition, up to that stamp, was taken in since the own
    /// session of anti-entropy began, by a way other than that session; or is on its way to the
    /// store from before.
    pub(super) fn has_arrival(&self, partition: Partition, stamp: Stamp) -> bool {
        self.arrived.has(partition, stamp) || self.is_arriving(partition, stamp)
    }

    /// Tells whether something of that partition, up to that stamp, is on its way to the store.
    pub(super) fn is_arriving(&self, partition: Partition, stamp: Stamp) -> bool {
        let mut lowest = Lowest::default();
        for pending in self.in_flight.iter().flat_map(|(_, pending)| pending).chain(&self.gathered)
        {
            lowest.add_record(self, pending);
        }
        let mut applying = self.applying.iter().map(|(_, lowest)| lowest).chain([&lowest]);
        applying.any(|lowest| lowest.has(partition, stamp))
    }

    /// Tells whether an entry must not be stored: it was everywhere once, or its coordinator
    /// gave it up; see `floor`. A repair, or the share of a batch that is replayed, passes the
    /// fence.
    pub(super) fn refuses(&self, entry: &Entry, is_repair: bool) -> bool {
        let floor = partition_of_place(entry.place.as_bytes()).map(|of| self.noted_floor(of));
        let is_late = !is_repair && entry.stamp <= self.fence;
        is_late || floor.is_none_or(|floor| floor::is_under(entry.stamp, floor))
    }

    /// Returns the latest tombstone that was applied in a partition since the start.
    pub(super) fn last_tombstone(&self, partition: Partition) -> Stamp {
        self.tombstones.get(partition)
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

    /// Has a record made durable and applied, and then what follows. If there is no space it waits
    /// until there is.
    pub(super) fn persist(&mut self, record: Record, then: Then) {
        self.gathered.push_back(Pending { record, then });
    }

    /// Has a node, this one or another, store entries. Its answer comes to the owner's
    /// `on_write_reply`, at most once; if the owner waits no more it says so by
    /// [`forget`](Self::forget).
    pub(super) fn write(&mut self, owner: Owner, to: NodeId, entries: Vec<Entry>) -> RequestId {
        let id = self.next_id();
        self.waiting.insert(id.number, (owner, to));
        // Who replays a batch keeps it until all have it: no fence may tear it. See `floor`.
        let is_replay = owner == Owner::Batches && !planted!("D67");
        let is_repair = matches!(owner, Owner::Reads | Owner::Sync) || is_replay;
        if to == self.id() {
            self.write_here(owner, id, entries, is_repair);
        } else if is_repair {
            self.send(to, Message::Repair { id, entries });
        } else {
            self.send(to, Message::Write { id, entries });
        }
        id
    }

    /// Has this node store entries, by the rules that hold for a peer's.
    fn write_here(
        &mut self,
        owner: Owner,
        id: RequestId,
        mut entries: Vec<Entry>,
        is_repair: bool,
    ) {
        let count = entries.len();
        // A session has compared them with what is here, and knows more than the floor does.
        if owner != Owner::Sync {
            entries.retain(|entry| !self.refuses(entry, is_repair) || planted!("D56"));
        }
        let is_refused = entries.len() < count;
        if is_refused {
            probe!("dynamo.own_write_refused");
        }
        if entries.is_empty() {
            self.done(Then::OwnRefused(id));
        } else if self.is_disk_full && owner != Owner::Writes {
            self.done(Then::OwnDiskFull(id));
        } else {
            let then = if is_refused { Then::OwnRefused(id) } else { Then::OwnWrite(id) };
            self.persist(Record::Entries(entries), then);
        }
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
        // The own disk knows of no generations, which may change while it is busy.
        let is_late = id.generation != self.generation && from != self.id();
        if is_late || of != from {
            return None;
        }
        self.waiting.remove(&id.number);
        Some(owner)
    }

    /// Returns the number of the next question.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Checks that no acknowledgement of a peer is waited for that was asked for before `number`.
    /// What a session has exchanged is no promise to anybody.
    pub(super) fn check_forgotten(&self, peer: NodeId, number: u64) {
        let mut earlier = self.waiting.range(..number).map(|(_, waiting)| *waiting);
        let owner = earlier.find(|(owner, of)| *of == peer && *owner != Owner::Sync);
        assert!(owner.is_none(), "D14: {owner:?} waits for what {peer} had on a lost disk");
    }

    /// Takes an answer of the own store: returns who waits for it.
    pub(super) fn was_read(&mut self, id: ReadId) -> Option<Owner> {
        self.reading.remove(&id)
    }

    /// Returns who waits for an acknowledgement.
    pub(super) fn owner(&self, id: RequestId) -> Option<Owner> {
        self.waiting.get(&id.number).map(|(owner, _)| *owner)
    }

    /// Something is to follow before the step ends.
    pub(super) fn done(&mut self, then: Then) {
        self.done.push_back(then);
    }

    /// Takes the next of what follows.
    pub(super) fn take_done(&mut self) -> Option<Then> {
        self.done.pop_front()
    }

    /// Persist requests go on from the last one that is durable.
    pub(super) fn recover(&mut self, persisted: PersistId) {
        self.persist_last = persisted;
    }

    /// Every persist request up to `through` is durable: has their records applied.
    ///
    /// What follows waits for the report of that. It is more than a matter of order: the trees
    /// learn of the records by that report, and a session of anti-entropy that went on before
    /// would tell the other side roots without them.
    pub(super) fn on_persisted(&mut self, through: PersistId) {
        assert!(through <= self.persist_last, "D2: {through} is durable of {}", self.persist_last);
        while let Some((id, pending)) = self.in_flight.pop_front_if(|(id, _)| *id <= through) {
            let mut records = Vec::with_capacity(pending.len());
            let mut follows = Vec::with_capacity(pending.len());
            let mut lowest = Lowest::default();
            for pending in pending {
                lowest.add_record(self, &pending);
                self.note_tombstones(&pending.record);
                records.push(pending.record);
                follows.push(pending.then);
            }
            self.applying.push_back((follows, lowest));
            self.out.apply.push((id, records));
        }
    }

    /// The oldest apply is reported: has done what follows.
    pub(super) fn on_applied(&mut self) {
        let applied = self.applying.pop_front();
        assert!(applied.is_some(), "D2: an apply is reported that was not asked for");
        if let Some((follows, lowest)) = applied {
            self.arrived.add_all(&lowest);
            self.done.extend(follows);
        }
    }

    /// There is no space: takes everything that the disk was not asked for yet, oldest first.
    pub(super) fn on_disk_full(&mut self) -> Vec<Pending> {
        self.is_disk_full = true;
        self.gathered.drain(..).collect()
    }

    /// Has a record wait for space.
    pub(super) fn keep(&mut self, kept: Pending) {
        self.gathered.push_back(kept);
    }

    /// Returns the last persist request that was made.
    pub(super) fn persist_last(&self) -> PersistId {
        self.persist_last
    }

    /// Returns how many records wait for the disk, and how many it has been given.
    pub(super) fn records(&self) -> (usize, usize) {
        (self.gathered.len(), self.in_flight.iter().map(|(_, pending)| pending.len()).sum())
    }

    fn note_tombstones(&mut self, record: &Record) {
        let Record::Entries(entries) = record else { return };
        for entry in entries.iter().filter(|entry| entry.is_tombstone()) {
            if let Some(partition) = partition_of_place(entry.place.as_bytes()) {
                self.tombstones.raise(partition, entry.stamp);
            }
        }
    }

    /// Returns what is to be done by now.
    pub(super) fn take_ready(&mut self) -> Ready {
        let mut ready = std::mem::take(&mut self.out);
        ready.persist = self.take_persist();
        ready
    }

    /// Gathers what waits for the disk into one request, unless it has enough to do.
    fn take_persist(&mut self) -> Option<Persist> {
        let is_busy = self.in_flight.len() >= self.config.persists_max;
        if is_busy || self.is_disk_full || self.gathered.is_empty() {
            return None;
        }
        let (mut bytes, mut pending) = (0, Vec::new());
        while let Some(next) = self.gathered.pop_front_if(|next| {
            bytes += record_bytes(&next.record);
            bytes <= self.config.persist_bytes_max || pending.is_empty()
        }) {
            pending.push(next);
        }
        self.persist_last += 1;
        let records = pending.iter().map(|pending| pending.record.clone()).collect();
        self.in_flight.push_back((self.persist_last, pending));
        Some(Persist { id: self.persist_last, records })
    }

    /// Checks its invariants.
    pub(super) fn check(&self) {
        let ids: Vec<PersistId> = self.in_flight.iter().map(|(id, _)| *id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "D2: persist requests out of order: {ids:?}");
        assert!(
            ids.last().is_none_or(|last| *last <= self.persist_last)
                && ids.len() <= self.config.persists_max,
            "D2: the disk has {ids:?}, the last is {}",
            self.persist_last
        );
        assert!(self.done.is_empty(), "D2: not done: {:?}", self.done);
    }
}

/// The smallest stamp of some entries, by partition.
#[derive(Debug, Default)]
struct Lowest(BTreeMap<Partition, Stamp>);

impl Lowest {
    /// Tells whether there is one of that partition up to `stamp`.
    fn has(&self, partition: Partition, stamp: Stamp) -> bool {
        self.0.get(&partition).is_some_and(|low| *low <= stamp)
    }

    fn add(&mut self, partition: Partition, stamp: Stamp) {
        let low = self.0.entry(partition).or_insert(stamp);
        *low = stamp.min(*low);
    }

    fn add_all(&mut self, other: &Self) {
        for (partition, stamp) in &other.0 {
            self.add(*partition, *stamp);
        }
    }

    /// Adds the entries of a record, unless it is the own session of anti-entropy that waits for
    /// them.
    fn add_record(&mut self, context: &Context, pending: &Pending) {
        let Record::Entries(entries) = &pending.record else { return };
        let is_exchanged = |id| context.owner(id) == Some(Owner::Sync);
        if matches!(pending.then, Then::OwnWrite(id) | Then::OwnRefused(id) if is_exchanged(id)) {
            return;
        }
        for entry in entries {
            if let Some(partition) = partition_of_place(entry.place.as_bytes()) {
                self.add(partition, entry.stamp);
            }
        }
    }
}

fn record_bytes(record: &Record) -> usize {
    match record {
        Record::Entries(entries) => entries.iter().map(Entry::bytes).sum(),
        Record::Note { place, content } => {
            place.len() + content.as_ref().map_or(0, crate::base::Payload::len)
        }
    }
}
