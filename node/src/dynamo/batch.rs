//! Batches: requests that touch several sets of replicas, and still happen as a whole or not at
//! all.
//!
//! The entries of a request that all have the same replicas are one log record at each of them.
//! Otherwise no record holds the request together, and a coordinator that dies in between would
//! leave half of it. So the coordinator keeps the request as a note on its own disk and at one
//! other node, its *holder*, before it sends the first share. Once every share is settled, and is
//! on two disks, it tells the holder that all is done and erases its note. Two, because one may be
//! lost: a share that only its own disk has, as a replica's or as hints, would be gone with it
//! while the others are there.
//!
//! A holder that does not hear of the end in time *replays* the batch: it sends every replica its
//! share, under the original stamps, again and again until all have acknowledged. A coordinator
//! does the same with what it could not settle, and after a restart. Two that replay the same do
//! no harm. But none does it alone: the coordinator may have lost its note, or its last life may
//! have come no further than that note. So a holder that takes over, and a coordinator that found
//! a batch at its start, first has some other node hold it as well. Whoever has promised not to
//! deliver anything as old (see `floor`) tells a coordinator that it is too late; if all who are
//! up do, or nobody answers for long, the batch is sent without.
//!
//! The disk of another keeper may be lost while nobody is started or takes over. Whoever keeps a
//! batch hears of that by the first heartbeat of a start that is not whole, and begins anew: it
//! has the batch held again if that node was to hold it, takes it over if that node was its
//! coordinator, and if it replays it, it sends all shares again, those included that were
//! acknowledged. Else the batch would be on one disk for as long as a replica is away.
//!
//! A node that comes back may have thousands. They take turns, a few at a time, each until it is
//! answered: so they are over soon, and flood nobody.
//!
//! All or nothing is meant in the end, not at every moment: a reader may see some entries before
//! the others. And it is meant of batches. Entries that have the same replicas are not kept as one:
//! if one disk alone has their record, it may give another node a part of it, by a repair or an
//! exchange, and be lost before it gives the rest. At most one replica had acknowledged them then.
//!
//! # Fences
//! A fence is the promise that what is older is over, and is given node by node. The shares that a
//! coordinator sends first meet none: a fence lies below every low water that its steward was told,
//! the coordinator's too, and their stamp does not. But a batch may meet fences half-way: its
//! coordinator asks for a holder, crashes before its own note is durable, and knows nothing of it
//! any more; the question is held up; some nodes promise; and only then it arrives at one that has
//! not. If the others refused their shares by their fences, that one would be left with its own, a
//! half. So fences do not bar shares that are replayed, and tear nothing:
//! 1. Who keeps a batch keeps it until each share is on its replicas, or on one of them at least
//!    and hinted to the rest, so that anti-entropy brings it to all. It promises no fence above it
//!    meanwhile, and took none that its fence had passed, but from somebody who keeps it.
//! 2. A floor needs the promise of every node for the same attempt. So while anybody keeps a batch
//!    by rule 1, no floor is, or is being, raised above it: no replica refuses a share.
//! 3. When nobody keeps it any more, a share that is still under way carries what its replicas
//!    have, as a repair does, and breaks no floor.
//! 4. An older disk may bring a batch back that was over, which floors have passed. Of what it
//!    replays the replicas have had everything, by rule 1: to them it is a ghost like any other of
//!    an old disk (see `floor`).
//!
//! What a coordinator *asks* first, its fate unknown, is barred: it may have forgotten the batch,
//! and floors may be above it. From another node it comes only if that one keeps it; so it is
//! held, though this puts the own low water below what was promised: the other one's is as low, so
//! that no floor rises on the promise. Else a keeper whom all others' fences have passed would have
//! to replay alone, and a half would be left if its disk were lost in between.
//!
//! Two disks that fail at the wrong moment can still tear a batch or a floor: a note that cannot be
//! read any more is dropped while its shares may be under way; and a keeper's disk may come back
//! older within the few seconds in which it has not answered a steward whom the other holder had
//! promised before.
//!
//! # Sources
//! Cassandra's batch log showed the shape.

use std::collections::{BTreeMap, BTreeSet};

use super::config::Config;
use super::context::{Context, Owner, Then};
use super::message::{Message, RequestId, WriteOutcome};
use super::notes::{self, Kind};
use super::placement::partition_of_place;
use super::ready::{Found, ReadId, StoreRead};
use super::write::{Shares, WRITE_BYTES_MAX};
use crate::base::{Entry, Instant, NodeId, Stamp};
use crate::{planted, probe};

/// The batches kept here, this node's and others'.
#[derive(Debug, Default)]
pub(super) struct Batches {
    kept: BTreeMap<Stamp, Kept>,
    bytes: usize,
    reading: BTreeMap<ReadId, Stamp>,
    /// Of the shares of replayed batches.
    sent: BTreeMap<u64, (Stamp, NodeId)>,
    timers: BTreeSet<(Instant, Stamp)>,
    /// Those that wait for their turn to be replayed, and since when.
    queue: BTreeSet<(Instant, Stamp)>,
    /// Those whose turn it is.
    replaying: BTreeSet<Stamp>,
}

/// One of them.
#[derive(Debug)]
struct Kept {
    bytes: usize,
    is_durable: bool,
    /// Nodes that were asked to hold it, if it is the own one.
    asked: Vec<NodeId>,
    /// Those that said they never will.
    late: Vec<NodeId>,
    phase: Phase,
    /// When something is to be done about it.
    due: Option<Instant>,
    /// Since when it waits for its turn.
    queued: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// The own one: it waits for its note and its holder.
    Storing { entries: Vec<Entry>, is_held: bool },
    /// The own one: its shares are under way.
    Writing,
    /// It was somebody else's to send: it waits for its end.
    Holding,
    /// It is sent until all have it.
    Replaying {
        missing: Option<BTreeMap<NodeId, Option<RequestId>>>,
        /// How often nodes were asked to hold it, if none is known to, and nothing is sent yet.
        unheld: Option<u32>,
    },
}

/// How often nodes are asked to hold a batch before it is sent without. Nodes that are up and do
/// not answer have no space, or lost the question.
const HOLD_TRIES_MAX: u32 = 8;

/// What the core does next about the own batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Wait,
    /// It is kept: its shares may be sent.
    Send(Stamp),
}

/// The coordinator's side.
impl Batches {
    /// Tells whether a batch of so many bytes can be kept.
    pub(super) fn has_room(&self, config: &Config, bytes: usize) -> bool {
        self.kept.len() < config.batch_count_max && self.bytes + bytes <= config.batch_bytes_max
    }

    /// Tells whether there is a node that could hold a batch.
    pub(super) fn has_candidate(context: &Context) -> bool {
        !candidates(context, &[]).is_empty()
    }

    /// Keeps an own batch, here and at another node.
    pub(super) fn begin(&mut self, context: &mut Context, batch: Stamp, entries: Vec<Entry>) {
        let (record, head) = notes::keep_entries(Kind::Batch(batch), batch, &entries);
        context.persist(record, Then::BatchKept(batch));
        let phase = Phase::Storing { entries, is_held: false };
        self.insert(batch, Kept::new(head.bytes, false, phase));
        self.ask_holder(context, batch);
    }

    /// Asks a node that was not asked yet to hold an own batch; if all were, all again.
    fn ask_holder(&mut self, context: &mut Context, batch: Stamp) {
        let Some(kept) = self.kept.get_mut(&batch) else { return };
        let Phase::Storing { entries, is_held: false } = &kept.phase else { return };
        let entries = entries.clone();
        ask_to_hold(context, kept, batch, entries);
        let at = context.now + context.config.batch_store_timeout;
        self.set_timer(batch, Some(at));
    }

    /// The own note of a batch is durable.
    pub(super) fn on_kept(&mut self, batch: Stamp) -> Next {
        let Some(kept) = self.kept.get_mut(&batch) else { return Next::Wait };
        kept.is_durable = true;
        self.maybe_send(batch)
    }

    /// A holder has a batch.
    pub(super) fn on_batch_stored(
        &mut self,
        context: &mut Context,
        from: NodeId,
        batch: Stamp,
    ) -> Next {
        let Some(kept) = self.kept.get_mut(&batch) else {
            // One of an earlier start may have been forgotten with the disk that it was on.
            if batch.node() == context.id() && context.clock.gave(batch) {
                // It was over before this holder had it.
                probe!("dynamo.batch_held_too_late");
                context.send(from, Message::BatchDone { batch });
            }
            return Next::Wait;
        };
        if !kept.asked.contains(&from) {
            return Next::Wait;
        }
        match &mut kept.phase {
            Phase::Storing { is_held, .. } => {
                *is_held = true;
                self.set_timer(batch, None);
            }
            Phase::Replaying { unheld: unheld @ Some(_), .. } => {
                *unheld = None;
                self.set_timer(batch, Some(context.now));
            }
            Phase::Replaying { .. } | Phase::Writing | Phase::Holding => {}
        }
        self.maybe_send(batch)
    }

    /// A node will never hold a batch: asks another one, if there is one that was not asked.
    pub(super) fn on_batch_late(&mut self, context: &mut Context, from: NodeId, batch: Stamp) {
        let Some(kept) = self.kept.get_mut(&batch) else { return };
        if !kept.asked.contains(&from) || kept.late.contains(&from) {
            return;
        }
        probe!("dynamo.batch_too_late_for_a_holder");
        kept.late.push(from);
        let is_hopeless = kept.is_late_everywhere(context);
        let has_other = is_hopeless || !candidates(context, &kept.asked).is_empty();
        let needs_holder = matches!(
            kept.phase,
            Phase::Storing { is_held: false, .. } | Phase::Replaying { unheld: Some(_), .. }
        );
        if needs_holder && has_other {
            self.set_timer(batch, Some(context.now));
        }
    }

    fn maybe_send(&mut self, batch: Stamp) -> Next {
        match self.kept.get_mut(&batch) {
            Some(
                kept @ Kept {
                    is_durable: true, phase: Phase::Storing { is_held: true, .. }, ..
                },
            ) => {
                kept.phase = Phase::Writing;
                Next::Send(batch)
            }
            _ => Next::Wait,
        }
    }

    /// All shares of an own batch are settled, or given up. It is safe if none was given up, and
    /// each is on two disks.
    pub(super) fn on_settled(&mut self, context: &mut Context, batch: Stamp, is_safe: bool) {
        if is_safe {
            self.finish(context, batch);
        } else {
            probe!("dynamo.batch_given_up_is_replayed");
            self.replay_from(batch, context.now);
        }
    }

    /// The disk of a node was lost, with whatever it held of batches, and had stored of them.
    pub(super) fn on_disk_lost(&mut self, context: &mut Context, lost: NodeId) {
        let kept: Vec<Stamp> = self.kept.keys().copied().collect();
        for batch in kept {
            self.forget_sent(context, batch);
            let Some(kept) = self.kept.get_mut(&batch) else { continue };
            if kept.begin_anew(batch, lost) {
                probe!("dynamo.batch_begins_anew");
                self.set_timer(batch, Some(context.now));
            }
        }
    }

    /// Forgets a batch that every replica has, and tells those who hold it.
    fn finish(&mut self, context: &mut Context, batch: Stamp) {
        let Some(kept) = self.remove(context, batch) else { return };
        for holder in kept.asked {
            context.send(holder, Message::BatchDone { batch });
        }
    }
}

/// The holder's side.
impl Batches {
    /// A coordinator wants a batch held, or a holder that takes over, even the own one.
    pub(super) fn on_batch_store(
        &mut self,
        context: &mut Context,
        from: NodeId,
        batch: Stamp,
        entries: &[Entry],
    ) {
        if let Some(kept) = self.kept.get(&batch) {
            if kept.is_durable {
                context.send(from, Message::BatchStored { batch });
            }
            return;
        }
        let is_sane = context.config.nodes.contains(&batch.node())
            && !entries.is_empty()
            && entries.iter().map(Entry::bytes).sum::<usize>() <= WRITE_BYTES_MAX
            && entries.iter().all(|entry| entry.stamp == batch && is_placed(entry));
        // Behind the fence the node has promised to have nothing to deliver. That somebody else
        // delivers it keeps all floors below it, and the promise is of no importance.
        let is_kept_there = from != batch.node() && !planted!("D68");
        if is_sane && batch <= context.fence && !is_kept_there {
            probe!("dynamo.batch_behind_the_fence");
            return context.send(from, Message::BatchLate { batch });
        }
        if !is_sane || context.is_disk_full || !context.clock.observe(batch) {
            probe!("dynamo.batch_not_held");
            return;
        }
        let (record, head) = notes::keep_entries(Kind::Batch(batch), batch, entries);
        if !self.has_room(&context.config, head.bytes) {
            probe!("dynamo.batch_has_no_room");
            return;
        }
        context.persist(record, Then::BatchHeld { batch, from });
        self.insert(batch, Kept::new(head.bytes, false, Phase::Holding));
    }

    /// The note of another's batch is durable.
    pub(super) fn on_held(&mut self, context: &mut Context, batch: Stamp, from: NodeId) {
        let Some(kept) = self.kept.get_mut(&batch) else { return };
        kept.is_durable = true;
        let at = context.now + context.config.batch_takeover;
        self.set_timer(batch, Some(at));
        context.send(from, Message::BatchStored { batch });
    }

    /// There was no space for another's batch: its coordinator will ask somebody else.
    pub(super) fn on_held_disk_full(&mut self, context: &mut Context, batch: Stamp) {
        self.remove_quietly(context, batch);
    }

    /// A batch came to its end, by whoever sent it. An own one that is under way does so by itself.
    pub(super) fn on_batch_done(&mut self, context: &mut Context, batch: Stamp) {
        match self.kept.get(&batch).map(|kept| &kept.phase) {
            Some(Phase::Holding | Phase::Replaying { .. }) => self.finish(context, batch),
            Some(Phase::Storing { .. } | Phase::Writing) | None => {}
        }
    }
}

/// Replaying.
impl Batches {
    /// Learns of a batch that is on the disk.
    pub(super) fn recover(&mut self, context: &Context, batch: Stamp, content: &[u8]) {
        let bytes = notes::head(content).map_or(0, |head| head.bytes);
        let is_own = batch.node() == context.id();
        let unheld = (!planted!("D54")).then_some(0);
        let own = Phase::Replaying { missing: None, unheld };
        let phase = if is_own { own } else { Phase::Holding };
        let wait = if is_own { context.config.batch_retry } else { context.config.batch_takeover };
        self.insert(batch, Kept::new(bytes, true, phase));
        self.set_timer(batch, Some(context.now + wait));
    }

    fn replay_from(&mut self, batch: Stamp, at: Instant) {
        if let Some(kept) = self.kept.get_mut(&batch) {
            // It may have begun anew already, and need a holder.
            if !matches!(kept.phase, Phase::Replaying { .. }) {
                kept.phase = Phase::Replaying { missing: None, unheld: None };
            }
            self.set_timer(batch, Some(at));
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, context: &mut Context) {
        while let Some(&(at, batch)) = self.timers.first().filter(|(at, _)| *at <= context.now) {
            self.timers.remove(&(at, batch));
            let Some(kept) = self.kept.get_mut(&batch) else { continue };
            kept.due = None;
            match &kept.phase {
                Phase::Storing { .. } => {
                    probe!("dynamo.batch_asks_another_holder");
                    self.ask_holder(context, batch);
                }
                Phase::Writing => {}
                Phase::Holding => {
                    probe!("dynamo.batch_taken_over");
                    let unheld = (!planted!("D59")).then_some(0);
                    kept.phase = Phase::Replaying { missing: None, unheld };
                    self.queue_up(batch, at);
                }
                Phase::Replaying { .. } => self.queue_up(batch, at),
            }
        }
        while self.has_turn(&context.config) {
            let Some((_, batch)) = self.queue.pop_first() else { break };
            if let Some(kept) = self.kept.get_mut(&batch) {
                kept.queued = None;
            }
            self.replay(context, batch);
        }
        if !self.queue.is_empty() {
            probe!("dynamo.batch_replay_waits");
        }
    }

    /// Ends the turn that a batch had, and has it wait for the next.
    fn queue_up(&mut self, batch: Stamp, since: Instant) {
        self.replaying.remove(&batch);
        if let Some(kept) = self.kept.get_mut(&batch) {
            kept.queued = Some(since);
            self.queue.insert((since, batch));
        }
    }

    fn has_turn(&self, config: &Config) -> bool {
        self.replaying.len() < config.batch_replays_max
    }

    /// Reads a batch to send it once more, unless all who lack it are known to be down.
    fn replay(&mut self, context: &mut Context, batch: Stamp) {
        let at = context.now + context.config.batch_retry;
        self.set_timer(batch, Some(at));
        self.forget_sent(context, batch);
        let Some(kept) = self.kept.get_mut(&batch) else { return };
        if let Phase::Replaying { missing: Some(missing), .. } = &kept.phase {
            let (own, detector) = (context.id(), &context.detector);
            if !missing.keys().any(|&node| node == own || detector.is_up(node, context.now)) {
                return;
            }
        }
        self.replaying.insert(batch);
        let place = Kind::Batch(batch).place();
        let read = StoreRead::Notes { prefix: place.clone(), start: place, bytes_max: 1 };
        let id = context.read_store(Owner::Batches, read);
        self.reading.insert(id, batch);
    }

    /// The entries of a batch were read: sends them to all who are not known to have them.
    pub(super) fn on_store_read(&mut self, context: &mut Context, id: ReadId, found: Found) {
        let Some(batch) = self.reading.remove(&id) else { return };
        let Found::Notes { notes, .. } = found else { return };
        let Some(kept) = self.kept.get_mut(&batch) else { return };
        let Phase::Replaying { unheld, .. } = kept.phase else { return };
        let content = notes.first().map(|(_, content)| content.as_bytes()).unwrap_or_default();
        let entries = notes::entries(content).unwrap_or_default();
        let shares = Shares::of(&context.config.placement, &entries);
        let Some(shares) = shares.filter(|shares| !shares.sets.is_empty()) else {
            probe!("dynamo.batch_damaged");
            self.damaged(context, batch);
            return;
        };
        if let Some(tries) = unheld.filter(|tries| *tries < HOLD_TRIES_MAX)
            && !kept.is_late_everywhere(context)
        {
            probe!("dynamo.batch_needs_a_holder_again");
            if ask_to_hold(context, kept, batch, entries) {
                kept.phase = Phase::Replaying { missing: None, unheld: Some(tries + 1) };
            } else {
                self.replaying.remove(&batch);
            }
            return;
        }
        let Phase::Replaying { missing, .. } = &mut kept.phase else { return };
        let missing = missing
            .get_or_insert_with(|| shares.by_node.keys().map(|&node| (node, None)).collect());
        for (node, entries) in shares.by_node {
            if let Some(waiting) = missing.get_mut(&node) {
                let id = context.write(Owner::Batches, node, entries);
                *waiting = Some(id);
                self.sent.insert(id.number, (batch, node));
            }
        }
    }

    /// A note that cannot be read any more: what it held is left to the other holder.
    fn damaged(&mut self, context: &mut Context, batch: Stamp) {
        self.remove(context, batch);
    }

    /// A replica answers a share of a replayed batch.
    pub(super) fn on_write_reply(
        &mut self,
        context: &mut Context,
        id: RequestId,
        outcome: WriteOutcome,
    ) {
        let Some((batch, node)) = self.sent.remove(&id.number) else { return };
        let Some(kept) = self.kept.get_mut(&batch) else { return };
        let Phase::Replaying { missing: Some(missing), .. } = &mut kept.phase else { return };
        match outcome {
            WriteOutcome::Stored | WriteOutcome::Refused => {
                missing.remove(&node);
            }
            WriteOutcome::DiskFull => {
                missing.insert(node, None);
            }
        }
        if missing.is_empty() {
            probe!("dynamo.batch_replayed");
            self.finish(context, batch);
        } else if missing.values().all(Option::is_none) {
            self.replaying.remove(&batch);
        }
    }

    /// Waits no more for the shares that were sent last time.
    fn forget_sent(&mut self, context: &mut Context, batch: Stamp) {
        let Some(kept) = self.kept.get_mut(&batch) else { return };
        let Phase::Replaying { missing: Some(missing), .. } = &mut kept.phase else { return };
        for id in missing.values_mut().filter_map(Option::take) {
            self.sent.remove(&id.number);
            context.forget(id);
        }
    }
}

/// Bookkeeping.
impl Batches {
    fn insert(&mut self, batch: Stamp, kept: Kept) {
        self.bytes += kept.bytes;
        let old = self.kept.insert(batch, kept);
        assert!(old.is_none(), "D8: batch {batch} is kept twice");
    }

    /// Erases a batch, here and on the disk.
    fn remove(&mut self, context: &mut Context, batch: Stamp) -> Option<Kept> {
        let kept = self.remove_quietly(context, batch)?;
        context.persist(notes::erase(Kind::Batch(batch)), Then::Nothing);
        Some(kept)
    }

    fn remove_quietly(&mut self, context: &mut Context, batch: Stamp) -> Option<Kept> {
        self.forget_sent(context, batch);
        self.set_timer(batch, None);
        self.replaying.remove(&batch);
        let kept = self.kept.remove(&batch)?;
        if let Some(since) = kept.queued {
            self.queue.remove(&(since, batch));
        }
        self.bytes -= kept.bytes;
        Some(kept)
    }

    fn set_timer(&mut self, batch: Stamp, at: Option<Instant>) {
        let Some(kept) = self.kept.get_mut(&batch) else { return };
        if kept.queued.is_some() && at.is_some() {
            // Its turn will come.
            return;
        }
        if let Some(old) = std::mem::replace(&mut kept.due, at) {
            self.timers.remove(&(old, batch));
        }
        self.timers.extend(at.map(|at| (at, batch)));
    }

    /// Returns the smallest stamp of a batch.
    pub(super) fn low_water(&self) -> Option<Stamp> {
        self.kept.keys().next().copied()
    }

    /// Returns when it must be ticked, if ever.
    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        let next = self.queue.first().filter(|_| self.has_turn(config));
        self.timers.first().into_iter().chain(next).map(|(at, _)| *at).min()
    }

    /// Returns how many batches are kept, and their bytes.
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.kept.len(), self.bytes)
    }

    /// Tells whether a batch is kept here.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn is_kept(&self, batch: Stamp) -> bool {
        self.kept.contains_key(&batch)
    }

    /// Checks its invariants.
    pub(super) fn check(&self) {
        let bytes: usize = self.kept.values().map(|kept| kept.bytes).sum();
        assert!(bytes == self.bytes, "D5: {bytes} bytes of batches, counted {}", self.bytes);
        for (batch, kept) in &self.kept {
            if let Some(due) = kept.due {
                assert!(self.timers.contains(&(due, *batch)), "D8: nobody looks after {batch}");
            }
            let is_left = match &kept.phase {
                Phase::Storing { is_held, .. } => *is_held,
                Phase::Writing => true,
                Phase::Holding => !kept.is_durable,
                Phase::Replaying { .. } => false,
            };
            let is_due = kept.due.is_some() || kept.queued.is_some();
            assert!(is_left || is_due, "D8: nothing will end {batch}: {kept:?}");
            if let Some(since) = kept.queued {
                let is_one = self.queue.contains(&(since, *batch)) && kept.due.is_none();
                assert!(is_one && !self.replaying.contains(batch), "D8: {batch} has no turn");
            }
        }
        for batch in &self.replaying {
            assert!(self.kept.contains_key(batch), "D8: {batch} is no more, and has the turn");
        }
        for (number, (batch, _)) in &self.sent {
            assert!(self.kept.contains_key(batch), "D8: {number} is of {batch}, which is no more");
        }
    }
}

impl Kept {
    fn new(bytes: usize, is_durable: bool, phase: Phase) -> Self {
        let (asked, late) = (Vec::new(), Vec::new());
        Self { bytes, is_durable, asked, late, phase, due: None, queued: None }
    }

    /// The disk of a node was lost: has it held and sent as if that node had done nothing for it.
    /// Tells whether something is to be done about it now.
    fn begin_anew(&mut self, batch: Stamp, lost: NodeId) -> bool {
        let was_asked = self.asked.contains(&lost);
        self.asked.retain(|node| *node != lost);
        self.late.retain(|node| *node != lost);
        match &mut self.phase {
            Phase::Storing { is_held, .. } => {
                *is_held &= !was_asked;
                was_asked
            }
            Phase::Writing => {
                if was_asked {
                    self.phase = Phase::Replaying { missing: None, unheld: Some(0) };
                }
                was_asked
            }
            Phase::Holding => self.is_durable && batch.node() == lost,
            Phase::Replaying { missing, unheld } => {
                *missing = None;
                if was_asked {
                    *unheld = Some(0);
                }
                true
            }
        }
    }

    /// Tells whether nobody who is up will ever hold it.
    fn is_late_everywhere(&self, context: &Context) -> bool {
        !self.late.is_empty() && candidates(context, &self.late).is_empty()
    }
}

/// Returns the nodes that may hold a batch, but those.
fn candidates(context: &Context, but: &[NodeId]) -> Vec<NodeId> {
    let up = context.config.peers().filter(|&peer| context.detector.is_up(peer, context.now));
    up.filter(|peer| !but.contains(peer)).collect()
}

/// Asks a node to hold a batch, one that was not asked yet if there is one, and first its
/// coordinator, who may have it; tells whether any is up.
fn ask_to_hold(context: &mut Context, kept: &mut Kept, batch: Stamp, entries: Vec<Entry>) -> bool {
    let mut nodes = candidates(context, &kept.asked);
    if nodes.is_empty() {
        nodes = candidates(context, &kept.late);
    }
    if nodes.is_empty() {
        return false;
    }
    let coordinator = nodes.iter().position(|node| *node == batch.node());
    let drawn = coordinator.unwrap_or_else(|| context.rng.index(nodes.len()));
    let holder = nodes.swap_remove(drawn);
    if !kept.asked.contains(&holder) {
        kept.asked.push(holder);
    }
    context.send(holder, Message::BatchStore { batch, entries });
    true
}

fn is_placed(entry: &Entry) -> bool {
    partition_of_place(entry.place.as_bytes()).is_some()
}
