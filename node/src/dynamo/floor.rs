//! Floors: what must not come back, and which tombstones may be forgotten.
//!
//! The **floor** of a partition is a stamp F, known durably to a replica, with a proof behind it:
//! *every write up to F that is, or ever will be, on any replica was on every replica.* From that
//! three things follow. A tombstone up to F may be forgotten: what it deletes is on nobody any
//! more who has not deleted it. An entry up to F at whose place a replica with floor F has nothing
//! was deleted: whoever still shows it is an old disk, and what it shows is a *ghost*
//! ([`super::merge`], [`super::outline`]). And a write up to F that arrives now and is not there
//! is late, or a ghost, and is [refused](Context::refuses). Only a disk that was lost, and comes
//! back older, may bring what no replica had when F was raised: a *stray*, newer than what is at
//! its place, which a session of anti-entropy takes ([`super::outline`]).
//!
//! Age alone would prove nothing: a node that was away for longer than any age brings the deleted
//! back. So the floor of a partition is raised by its first replica, the *steward*, in three
//! stages, and only while every node of the cluster is up and whole.
//!
//! # First: nothing up to F is still to come
//! Where can a write up to F be, that no replica has yet?
//! - *Not yet stamped.* Every node gives stamps larger than all it has given or seen, over
//!   restarts too; so its **low water** is a stamp that it will not go below. (A disk that comes
//!   back older has forgotten it; see below.)
//! - *With its coordinator*: in flight to replicas whose answer is waited for, kept as a hint, or
//!   part of a batch, as with the batch's holders. The low water is not larger than any of these,
//!   either. For a write that somebody still wants delivered, F must wait; a batch, above all,
//!   would be torn in two if one partition's floor refused what another partition's replicas have.
//! - *In the network*: a message sent long ago by a coordinator that has given the write up, held
//!   up by a connection that hung. Nobody knows of it, so no low water can tell.
//!
//! So the steward asks every node for a **fence** at F: the durable promise that its low water is
//! larger than F, and that from now on it takes no write up to F. The promise is written through
//! the log behind everything that arrived earlier, and confirmed when it is applied: what passed
//! before the fence is in the store by then, where the next stage finds it. A node whose low
//! water is not larger answers so, and the steward tries again later with a lower F.
//!
//! A fence refuses only writes that nobody waits for; their clients were told that the outcome
//! is unknown, or that it is done because enough *other* replicas had it. It holds for the whole
//! node, and if the floor is never raised after it nothing is lost. Repairs and exchanges pass
//! it: they carry what a replica *has*. So do the shares of a batch that is replayed: who replays
//! it keeps it, so that the attempt fails for want of his promise, or has kept it until replicas
//! had it ([`super::batch`]). Without that, an attempt that is given up would leave fences at some
//! nodes only, and these would tear the batch.
//!
//! # Then: gather, and spread
//! Now the writes up to F that exist are those that some replica has, and only exchange between
//! replicas moves them. The steward compares its partitions with every other replica, everything
//! exchanged both ways and acknowledged. After this **first round** it has all of it itself. But
//! the replica that was compared first has not got what only a later one had; so in a **second
//! round** everybody gets what the steward has gathered. A repair by a read meanwhile carries what
//! was on a replica before its fence, so it adds nothing that is not gathered anyway. Now every
//! replica has every write up to F, or something newer at its place. The steward notes the floor,
//! durably, and tells the others.
//!
//! A session that fails, a node that goes down, a tree that is not known: the partition is left
//! out, and the next attempt begins from the start. What was exchanged is not lost.
//!
//! # Who learns of it
//! A replica that is whole takes the steward's word, if it has made the promise in the same life:
//! one that was started again since then may have come back with an older disk. Who misses the
//! word learns the floor from anybody who has it: when it has compared the whole partition with a
//! replica whose floor is F, it has what that one has, less the ghosts, so F is true of it as well
//! ([`Floors::adopt`]). No fence keeps ghosts out while they compare, so that counts only if
//! nothing up to F has arrived meanwhile by another way; else it is for the next comparison.
//!
//! # Why an old disk does not resurrect anything
//! A node comes back with an older disk, and nobody knows. Its data are old, but so is its floor:
//! both come from the same log, the floor behind what it rests on. A value on it that was deleted
//! meanwhile is smaller than the tombstone T. A replica either still has T, which wins; or has
//! forgotten it, and then its floor is at least T and larger than the old node's floor, so the
//! value is a ghost to it: its reads drop it, its stores refuse it, and when the old node compares
//! itself with it, the old node erases it before it takes over the floor. The old disk may hold
//! hints and batches as well, which the node delivers: to itself by the same rule as to others.
//!
//! Nor may what that node writes *anew* come under a floor, or it would be taken for a ghost. Its
//! ceiling is old, and its wall clock may have been set back, but the others' stamps only grow:
//! each node had passed F before it promised the fence, its heartbeats tell how far it is, and its
//! restarts begin at its ceiling. So the first one that is heard leads past every floor there is.
//! Until a majority is heard the node gives no stamps, unless it is cut off for so long that it
//! goes on alone: [`super::clock`] says what remains then.
//!
//! # Wholeness
//! A node that *knows* that its disk lost something ([`Recovered::is_damaged`]) knows nothing of
//! what it acknowledged, so its floors are void: it forgets them, durably, together with a note
//! that it is damaged. It takes writes and gives what it has, but answers no reads, so no quorum
//! rests on it, and no floor is raised, until it has compared each of its partitions completely
//! with **every other replica**: a write acknowledged by it and one other is on that other, and
//! any of them may be the one. Then it erases the note and is whole ([`super::sync`]).
//!
//! That is true only of what the other one has when they are compared. A coordinator may have the
//! word of the lost disk, and get the other's later: then it would count a copy that is nowhere
//! any more, of a write that the comparison did not find. A read may count likewise what it was
//! told, or repaired. So the rule is: *when the first comparison begins, nobody will ever again
//! count what the lost disk said.* All that was counted before is on the other replica by then. It
//! rests on three things:
//! - Who hears of a start that is not whole takes back all that the node acknowledged or answered
//!   in its earlier ones, and waits under new names only ([`super::write`], [`super::read`]).
//! - Who has not heard of it counts nothing after the time-out of a request, be it that it was cut
//!   off, or that its process stood still; and every request whose share the lost disk has stored
//!   is older than the start.
//! - So the node begins when every other node has said in a heartbeat that it has heard of this
//!   start; or, if one does not, when the time-outs of all such requests are over
//!   ([`Config::counting_max`](super::Config)). A node that is down for good delays it by that
//!   time, and no more: it counts nothing, and its next start knows nothing of what it counted.
//!   This alone rests on clocks: on how fast they run, and not on what they show.
//!
//! A batch is not counted but kept. Who keeps one begins anew when it hears of such a start
//! ([`super::batch`]). If the first that it hears is that the node is whole again, because they
//! were cut off from each other all the time, it does not: then another disk must be lost before a
//! half of the batch is.
//!
//! # Invariants
//! - **D9** A floor never goes back.
//! - **D13** The fence never goes back, and is durable before a round begins.
//!
//! # Left out
//! Deletion by time to live; raising while a node is down: tombstones stay until it is back.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{Context, Owner, Then};
use super::core::DynamoStatus;
use super::merkle::Trees;
use super::message::{Message, RequestId, SyncMessage};
use super::notes::{self, Kind};
use super::placement::Partition;
use super::ready::{Record, Recovered};
use crate::base::{Instant, NodeId, Stamp};
use crate::{planted, probe};

/// Rounds of comparison: one gathers, one spreads.
const ROUNDS: u32 = 2;

/// Tells whether a write of that stamp was on every replica once: where it is not any more, it
/// was deleted.
pub(super) fn is_under(stamp: Stamp, floor: Stamp) -> bool {
    stamp <= floor && !planted!("D51")
}

/// Tells whether a node with that low water has no write up to `stamp` to deliver.
fn is_settled(low_water: Stamp, stamp: Stamp) -> bool {
    low_water > stamp || planted!("D50")
}

/// The raising of floors by this node, and its part in that of others.
#[derive(Debug)]
pub(super) struct Floors {
    raise: Option<Raise>,
    /// When the next attempt begins.
    next: Instant,
    /// Notes on their way to the disk, by the tag of the last of them.
    persisting: BTreeMap<u64, Noted>,
    tags: u64,
    /// The fence as far as it is durable.
    fenced: Stamp,
    /// The last question of each steward that this node has answered in this life; only of a
    /// promise comes a floor.
    answered: BTreeMap<NodeId, RequestId>,
}

/// An attempt to raise floors.
#[derive(Debug)]
struct Raise {
    /// Names the question for fences.
    id: RequestId,
    floor: Stamp,
    /// The partitions for which nothing has failed yet.
    partitions: BTreeSet<Partition>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// These nodes have not promised yet.
    Fencing { missing: BTreeSet<NodeId>, deadline: Instant },
    /// These replicas are still to be compared with in this round.
    Round { round: u32, missing: BTreeSet<NodeId> },
    /// The notes are on their way to the disk.
    Noting,
}

/// What follows when notes are durable.
#[derive(Debug)]
enum Noted {
    /// The fence, for a steward's question; and the low water when it was set.
    Fence { stamp: Stamp, asker: NodeId, id: RequestId, low_water: Stamp },
    /// Floors; and whether they are to be told to the other replicas.
    Floors { partitions: Vec<Partition>, floor: Stamp, is_raised: bool },
}

impl Floors {
    /// Starts with what the node remembers.
    pub(super) fn new(context: &mut Context, recovered: &Recovered) -> Self {
        let mut floors = Self {
            raise: None,
            next: context.now + context.config.floor_interval,
            persisting: BTreeMap::new(),
            tags: 0,
            fenced: Stamp::ZERO,
            answered: BTreeMap::new(),
        };
        let notes = recovered.notes.iter();
        let known =
            notes.filter_map(|(place, content)| Some((Kind::of(place.as_bytes())?, content)));
        let mut is_damaged = recovered.is_damaged;
        let mut partitions = Vec::new();
        for (kind, content) in known {
            let stamp = notes::number(content.as_bytes()).map(Stamp::from_version);
            let stamp = stamp.unwrap_or_default();
            match kind {
                Kind::Floor(partition) => partitions.push((partition, stamp)),
                Kind::Fence => floors.fenced = stamp,
                Kind::Damaged => is_damaged = true,
                Kind::Generation | Kind::Ceiling | Kind::Hint { .. } | Kind::Batch(_) => {}
            }
        }
        context.fence = floors.fenced;
        if is_damaged {
            probe!("dynamo.forgets_floors");
            forget_all(context, partitions.iter().map(|(partition, _)| *partition));
        } else {
            let count = context.config.placement.partition_count();
            for (partition, floor) in partitions.into_iter().filter(|(of, _)| *of < count) {
                context.note_floor(partition, floor);
                context.set_floor(partition, floor);
            }
        }
        floors
    }

    fn persist(&mut self, context: &mut Context, last: Record, noted: Noted) {
        self.tags += 1;
        self.persisting.insert(self.tags, noted);
        context.persist(last, Then::Part(Owner::Floors, self.tags));
    }

    /// The whole partition was compared with a replica of that floor in the course of the own
    /// session, or right now, by its root alone. What arrived meanwhile was not compared: if it may
    /// be a ghost, the next comparison has to find it first, and false is returned.
    pub(super) fn adopt(
        &mut self,
        context: &mut Context,
        partition: Partition,
        floor: Stamp,
        is_equal_now: bool,
    ) -> bool {
        if floor <= context.noted_floor(partition) {
            return true;
        }
        let has_arrival = if is_equal_now {
            context.is_arriving(partition, floor)
        } else {
            context.has_arrival(partition, floor)
        };
        if has_arrival && !planted!("D57") {
            probe!("dynamo.floor_adoption_meets_an_arrival");
            return false;
        }
        probe!("dynamo.adopts_floor");
        self.note_floors(context, vec![partition], floor, false);
        true
    }

    /// Makes floors durable, of those partitions that have a lower one.
    fn note_floors(
        &mut self,
        context: &mut Context,
        mut partitions: Vec<Partition>,
        floor: Stamp,
        is_raised: bool,
    ) {
        partitions.retain(|partition| floor > context.noted_floor(*partition));
        for partition in &partitions {
            context.note_floor(*partition, floor);
        }
        let mut records = partitions
            .iter()
            .map(|partition| notes::keep_number(Kind::Floor(*partition), floor.version()));
        let Some(last) = records.next_back() else {
            if is_raised {
                self.raise = None;
            }
            return;
        };
        for record in records {
            context.persist(record, Then::Nothing);
        }
        self.persist(context, last, Noted::Floors { partitions, floor, is_raised });
    }

    /// Notes are durable and applied.
    pub(super) fn on_persisted(&mut self, context: &mut Context, tag: u64) {
        match self.persisting.remove(&tag) {
            Some(Noted::Fence { stamp, asker, id, low_water }) => {
                self.fenced = self.fenced.max(stamp);
                self.answer_fence(context, asker, id, low_water);
            }
            Some(Noted::Floors { partitions, floor, is_raised }) => {
                for partition in &partitions {
                    context.set_floor(*partition, floor);
                }
                if is_raised && let Some(raise) = self.raise.take() {
                    tell(context, raise.id, &partitions, floor);
                }
            }
            None => {}
        }
    }

    /// A message about fences and floors; `low_water` is this node's own.
    pub(super) fn on_sync_message(
        &mut self,
        context: &mut Context,
        low_water: Stamp,
        from: NodeId,
        message: SyncMessage,
    ) {
        match message {
            SyncMessage::Fence { id, stamp } => self.on_fence(context, low_water, from, id, stamp),
            SyncMessage::Fenced { id, low_water } => self.on_fenced(context, from, id, low_water),
            SyncMessage::Floor { id, partitions, floor } => {
                let is_steward = |of: &Partition| {
                    let replicas = context.config.placement.replicas(*of);
                    replicas.first() == Some(&from) && replicas.contains(&context.id())
                };
                // Not whole, or restarted meanwhile, perhaps with an older disk: it has not what
                // the steward has seen here.
                let has_promised = self.answered.get(&from) == Some(&id) || planted!("D58");
                if context.is_whole && has_promised {
                    let partitions = partitions.into_iter().filter(is_steward).collect();
                    self.note_floors(context, partitions, floor, false);
                }
            }
            SyncMessage::Roots { .. }
            | SyncMessage::Leaves { .. }
            | SyncMessage::Outline { .. }
            | SyncMessage::Difference { .. } => {}
        }
    }
}

/// Fences.
impl Floors {
    /// A steward, perhaps this node, asks for the promise.
    fn on_fence(
        &mut self,
        context: &mut Context,
        low_water: Stamp,
        from: NodeId,
        id: RequestId,
        stamp: Stamp,
    ) {
        if !context.is_whole {
            return;
        }
        if !is_settled(low_water, stamp) || self.fenced >= stamp {
            return self.answer_fence(context, from, id, low_water);
        }
        if context.is_disk_full {
            // It would wait with all that come after it: the steward asks again.
            return;
        }
        context.fence = context.fence.max(stamp);
        let note = notes::keep_number(Kind::Fence, context.fence.version());
        let noted = Noted::Fence { stamp: context.fence, asker: from, id, low_water };
        self.persist(context, note, noted);
    }

    fn answer_fence(&mut self, context: &mut Context, to: NodeId, id: RequestId, low_water: Stamp) {
        self.answered.insert(to, id);
        if to == context.id() {
            self.on_fenced(context, to, id, low_water);
        } else {
            context.send(to, Message::Sync(SyncMessage::Fenced { id, low_water }));
        }
    }

    /// A node, perhaps this one, has answered.
    fn on_fenced(&mut self, context: &mut Context, from: NodeId, id: RequestId, low_water: Stamp) {
        let Some(raise) = self.raise.as_mut().filter(|raise| raise.id == id) else { return };
        let Stage::Fencing { missing, .. } = &mut raise.stage else { return };
        if !is_settled(low_water, raise.floor) {
            probe!("dynamo.floor_meets_unsettled_write");
            self.raise = None;
            return;
        }
        missing.remove(&from);
        if missing.is_empty() {
            self.begin_round(context, 1);
        }
    }
}

/// Raising.
impl Floors {
    /// Lets time pass; `low_water` is this node's own.
    pub(super) fn tick(&mut self, context: &mut Context, trees: &Trees, low_water: Stamp) {
        let is_silent = self.raise.as_ref().is_some_and(|raise| match &raise.stage {
            Stage::Fencing { deadline, .. } => *deadline <= context.now,
            Stage::Round { .. } => !is_everybody_up(context),
            Stage::Noting => false,
        });
        if is_silent {
            probe!("dynamo.floor_gives_up");
            self.raise = None;
        }
        if self.next <= context.now {
            self.next = context.now + context.config.floor_interval;
            if self.raise.is_none() {
                self.begin(context, trees, low_water);
            }
        }
    }

    fn begin(&mut self, context: &mut Context, trees: &Trees, low_water: Stamp) {
        if !is_everybody_up(context) {
            return;
        }
        let Some(floor) = candidate(context, low_water) else { return };
        let is_due = |partition: &Partition| {
            let is_steward =
                context.config.placement.replicas(*partition).first() == Some(&context.id());
            let old = context.floor(*partition);
            is_steward && old < floor && trees.may_forget(context, *partition, old)
        };
        let partitions: BTreeSet<Partition> = (0..context.config.placement.partition_count())
            .filter(is_due)
            .take(context.config.sync_partitions_max)
            .collect();
        if partitions.is_empty() {
            return;
        }
        let id = context.next_id();
        let missing = context.config.nodes.iter().copied().collect();
        let deadline = context.now + context.config.sync_timeout;
        let stage = Stage::Fencing { missing, deadline };
        self.raise = Some(Raise { id, floor, partitions, stage });
        let peers: Vec<NodeId> = context.config.peers().collect();
        for peer in peers {
            context.send(peer, Message::Sync(SyncMessage::Fence { id, stamp: floor }));
        }
        self.on_fence(context, low_water, context.id(), id, floor);
    }

    fn begin_round(&mut self, context: &mut Context, round: u32) {
        let Some(raise) = &mut self.raise else { return };
        assert!(
            raise.floor <= self.fenced,
            "D13: {} gathers up to {}, its fence is {}",
            context.id(),
            raise.floor,
            self.fenced
        );
        let placement = &context.config.placement;
        let replicas = raise.partitions.iter().flat_map(|of| placement.replicas(*of));
        let missing: BTreeSet<NodeId> =
            replicas.copied().filter(|node| *node != context.id()).collect();
        if round <= ROUNDS && !missing.is_empty() {
            raise.stage = Stage::Round { round, missing };
            return;
        }
        raise.stage = Stage::Noting;
        let (partitions, floor) = (raise.partitions.iter().copied().collect(), raise.floor);
        probe!("dynamo.raises_floor");
        self.note_floors(context, partitions, floor, true);
    }

    /// Returns the comparison that an attempt waits for: its name, with whom, of what.
    pub(super) fn wanted(&self, context: &Context) -> Option<(RequestId, NodeId, Vec<Partition>)> {
        let raise = self.raise.as_ref()?;
        let Stage::Round { missing, .. } = &raise.stage else { return None };
        let peer = *missing.first()?;
        let placement = &context.config.placement;
        let shared = raise.partitions.iter().copied().filter(|of| placement.is_replica(peer, *of));
        Some((raise.id, peer, shared.collect()))
    }

    /// A wanted comparison is over, complete for these partitions.
    pub(super) fn on_compared(
        &mut self,
        context: &mut Context,
        id: RequestId,
        peer: NodeId,
        completed: &BTreeSet<Partition>,
    ) {
        let Some(raise) = self.raise.as_mut().filter(|raise| raise.id == id) else { return };
        let Stage::Round { round, missing } = &mut raise.stage else { return };
        let placement = &context.config.placement;
        raise.partitions.retain(|of| completed.contains(of) || !placement.is_replica(peer, *of));
        missing.remove(&peer);
        if missing.is_empty() {
            let next = *round + 1;
            self.begin_round(context, next);
        }
    }

    /// Returns when it must be ticked.
    pub(super) fn deadline(&self) -> Instant {
        match self.raise.as_ref().map(|raise| &raise.stage) {
            Some(Stage::Fencing { deadline, .. }) => self.next.min(*deadline),
            _ => self.next,
        }
    }

    /// Checks its invariants.
    pub(super) fn check(&self, context: &Context) {
        let (fenced, fence) = (self.fenced, context.fence);
        assert!(fenced <= fence, "D13: the durable fence {fenced} is above {fence}");
    }
}

/// Tells how the floors of the partitions held here are.
pub(super) fn status(context: &Context, status: &mut DynamoStatus) {
    let placement = &context.config.placement;
    let held = (0..placement.partition_count())
        .filter(|partition| placement.is_replica(context.id(), *partition));
    let floors = held.map(|partition| context.floor(partition));
    status.floor_min = floors.min().unwrap_or_default();
}

/// The node has all that any other replica has: it is whole again.
pub(super) fn on_whole(context: &mut Context) {
    assert!(!context.is_whole, "{} was whole before", context.id());
    probe!("dynamo.becomes_whole");
    context.is_whole = true;
    context.persist(notes::erase(Kind::Damaged), Then::Nothing);
}

/// Returns the largest stamp that may become a floor now, as far as the heartbeats tell.
fn candidate(context: &Context, low_water: Stamp) -> Option<Stamp> {
    let age = u64::try_from(context.config.floor_age.as_millis()).unwrap_or(u64::MAX);
    let ms = context.clock.last().ms().checked_sub(age)?;
    let aged = Stamp::new(ms, 0, NodeId(0));
    let told = context.config.peers().filter_map(|peer| context.detector.heartbeat(peer));
    let low_waters = told.map(|heartbeat| heartbeat.low_water).chain([low_water]);
    let lower = |floor: Stamp, low_water: Stamp| {
        let below = Stamp::from_version(low_water.version().saturating_sub(1));
        if is_settled(low_water, floor) { floor } else { below }
    };
    Some(low_waters.fold(aged, lower))
}

/// Tells whether every node is up and whole, as far as the heartbeats tell.
fn is_everybody_up(context: &Context) -> bool {
    let is_well = |peer: NodeId| {
        let heartbeat = context.detector.heartbeat(peer);
        heartbeat.is_some_and(|heartbeat| heartbeat.is_whole)
            && context.detector.is_up(peer, context.now)
    };
    context.is_whole && context.config.peers().all(is_well)
}

/// Tells the other replicas of these partitions the floor that is durable here.
fn tell(context: &mut Context, id: RequestId, partitions: &[Partition], floor: Stamp) {
    let peers: Vec<NodeId> = context.config.peers().collect();
    for peer in peers {
        let placement = &context.config.placement;
        let held = partitions.iter().copied().filter(|of| placement.is_replica(peer, *of));
        let partitions: Vec<Partition> = held.collect();
        if !partitions.is_empty() {
            context.send(peer, Message::Sync(SyncMessage::Floor { id, partitions, floor }));
        }
    }
}

/// The disk lost something: no floor is true any more.
fn forget_all(context: &mut Context, partitions: impl Iterator<Item = Partition>) {
    context.is_whole = false;
    // First the note: if only a part of this becomes durable, the next start does it again.
    context.persist(notes::keep(Kind::Damaged), Then::Nothing);
    for partition in partitions {
        context.persist(notes::erase(Kind::Floor(partition)), Then::Nothing);
    }
}
