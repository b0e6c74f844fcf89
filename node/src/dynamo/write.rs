//! Writes: the coordinator's side and the replica's.
//!
//! The coordinator gives all entries of a request one stamp and sends each replica its share in
//! one message, so that a replica has all of its share or nothing. All replicas are sent theirs;
//! the level says only how many acknowledgements the client waits for, of each set of replicas
//! that is touched. The own share goes to the own disk like anybody else's.
//!
//! A request stays under way until each share is *settled*: acknowledged, or durably hinted, or
//! dropped and counted. A hint is never an acknowledgement; the target's answer to it is one: a
//! node that was only believed down, for a moment, then counts like the others. After the time-out
//! nobody knows whether the write happened, and the client is told just that.
//!
//! If the shares differ, all or nothing needs more than a log record: see `batch.rs`, which keeps
//! the request until it is settled.
//!
//! A replica makes a share durable, applies it, and acknowledges; in this order.
//!
//! # What counts
//! A replica whose disk is lost acknowledges nothing any more, whatever it has said. As soon as the
//! coordinator hears of that it takes the acknowledgement back and sends the share again, under a
//! new name, so that a late answer of the old disk is none. If it does not hear of it, an answer
//! after the time-out counts for nothing: by then such a replica may be [whole](super::floor)
//! again, and have compared itself with others that had not got their shares. So the time-out is
//! looked at when acknowledgements are counted, and not only when it is noticed that time has
//! passed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::batch::Batches;
use super::context::{Context, Owner, Then};
use super::hint::Hints;
use super::message::{Message, RequestId, WriteOutcome};
use super::placement::{Placement, partition_of_place};
use super::ready::{Change, Level, Record, Reply, Token};
use crate::base::limits::FRAME_BYTES_MAX;
use crate::base::{Entry, Instant, NodeId, Stamp};
use crate::{planted, probe};

/// Most bytes of one request: it must fit a message and a note, with what they add.
pub(super) const WRITE_BYTES_MAX: usize = FRAME_BYTES_MAX - (64 << 10);
/// Writes given up within this time are remembered as one.
const LINGERING_STEP: Duration = Duration::from_millis(100);

/// What a client wants written.
#[derive(Debug)]
pub(super) struct ClientWrite {
    pub(super) token: Token,
    pub(super) level: Level,
    pub(super) seen: Stamp,
    pub(super) changes: Vec<Change>,
}

/// The writes that this node coordinates, and those that it stores for others.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pending: BTreeMap<Stamp, Pending>,
    /// When a request must be looked at.
    timers: BTreeSet<(Instant, Stamp)>,
    tokens: BTreeMap<Token, Stamp>,
    /// Of the messages without an answer.
    sent: BTreeMap<u64, (Stamp, NodeId)>,
    /// Of the hints of the requests under way, delivered ones excepted.
    hints: BTreeMap<(NodeId, u64), Stamp>,
    /// Bytes of entries of the requests under way.
    bytes: usize,
    /// Bytes of others' writes that wait for the disk.
    replica_bytes: usize,
    /// Writes given up: they may still reach a replica until then.
    lingering: VecDeque<(Instant, Stamp)>,
}

/// A request under way.
#[derive(Debug)]
struct Pending {
    /// Who waits; nobody any more once it is answered.
    token: Option<Token>,
    sets: Vec<ReplicaSet>,
    shares: BTreeMap<NodeId, Share>,
    bytes: usize,
    /// When it is answered with a time-out.
    deadline: Instant,
    phase: Phase,
    /// It is kept as a batch.
    is_batch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The batch is not durable yet, and nothing was sent.
    Storing,
    /// The shares were sent; who has not acknowledged at that time gets a hint.
    Sent { hint_at: Instant },
    /// So it was.
    Hinted,
}

/// Replicas of which the level asks for some.
#[derive(Debug)]
struct ReplicaSet {
    nodes: Vec<NodeId>,
    needed: usize,
}

/// What one replica gets.
#[derive(Debug)]
struct Share {
    entries: Vec<Entry>,
    id: Option<RequestId>,
    state: ShareState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShareState {
    /// It may be on its way.
    Waiting,
    /// The replica has it: durable and applied.
    Acknowledged,
    /// A hint of that number is on its way to the disk.
    Hinting(u64),
    /// A hint of that number is durable.
    Hinted(u64),
    /// The replica does not want it, and never will.
    Refused,
    /// There is no room for a hint, or there are no hints.
    GivenUp,
}

/// Entries by who gets them.
pub(super) struct Shares {
    /// The different sets of replicas.
    pub(super) sets: Vec<Vec<NodeId>>,
    /// What each node gets.
    pub(super) by_node: BTreeMap<NodeId, Vec<Entry>>,
}

impl Shares {
    /// Divides entries among the replicas; `None` if one lies in no partition.
    pub(super) fn of(placement: &Placement, entries: &[Entry]) -> Option<Self> {
        let mut shares = Self { sets: Vec::new(), by_node: BTreeMap::new() };
        for entry in entries {
            let nodes = placement.replicas(partition_of_place(entry.place.as_bytes())?);
            if nodes.is_empty() {
                return None;
            }
            for &node in nodes {
                shares.by_node.entry(node).or_default().push(entry.clone());
            }
            let mut nodes = nodes.to_vec();
            nodes.sort_unstable();
            if !shares.sets.contains(&nodes) {
                shares.sets.push(nodes);
            }
        }
        Some(shares)
    }
}

/// The coordinator's side.
impl Writes {
    /// A client wants to write; the clock can give a stamp.
    pub(super) fn on_client_write(
        &mut self,
        context: &mut Context,
        hints: &mut Hints,
        batches: &mut Batches,
        write: ClientWrite,
    ) {
        let token = write.token;
        match self.admit(context, batches, write) {
            Ok((stamp, pending)) => {
                self.tokens.insert(token, stamp);
                self.bytes += pending.bytes;
                self.timers.insert((pending.deadline, stamp));
                let is_batch = pending.is_batch;
                if is_batch {
                    batches.begin(context, stamp, entries_of(&pending));
                }
                let old = self.pending.insert(stamp, pending);
                assert!(old.is_none(), "D1: {stamp} was given twice");
                if !is_batch {
                    self.send_shares(context, hints, batches, stamp);
                }
            }
            Err(reply) => context.reply(token, reply),
        }
    }

    /// Checks a request and gives it a stamp, or tells why not; then nothing was done.
    fn admit(
        &self,
        context: &mut Context,
        batches: &Batches,
        write: ClientWrite,
    ) -> Result<(Stamp, Pending), Reply> {
        let ClientWrite { token, level, seen, changes } = write;
        let is_delete = changes.iter().any(|change| is_tombstone(&change.written));
        let mut entries: Vec<Entry> = changes
            .into_iter()
            .map(|Change { place, written }| Entry { place, stamp: Stamp::ZERO, written })
            .collect();
        let bytes = bytes_of(&entries);
        if entries.is_empty() || bytes > WRITE_BYTES_MAX {
            return Err(Reply::Invalid("a write has one change at least, and fits a message"));
        }
        let shares = Shares::of(&context.config.placement, &entries);
        let shares = shares.ok_or(Reply::Invalid("a place is in no partition"))?;
        if context.is_disk_full {
            return Err(Reply::DiskFull);
        }
        // A batch keeps the request in one piece on two disks, and one log record cannot be torn.
        let is_batch = shares.sets.len() > 1 && !planted!("D30");
        let config = &context.config;
        if self.pending.len() >= config.pending_writes_max
            || self.bytes + bytes > config.pending_write_bytes_max
            || is_batch && !batches.has_room(config, bytes)
        {
            probe!("dynamo.write_overloaded");
            return Err(Reply::Overloaded);
        }
        let sets = available_sets(context, level, shares.sets)?;
        if is_batch && !Batches::has_candidate(context) {
            probe!("dynamo.batch_without_holder");
            return Err(Reply::Unavailable { needed: 2, alive: 1 });
        }
        if let Err(ahead_ms) = context.clock.observe_client(seen) {
            return Err(Reply::ClockSkew { ahead_ms });
        }
        let stamp = context.clock.give(is_delete).ok_or(Reply::Overloaded)?;
        for entry in &mut entries {
            entry.stamp = stamp;
        }
        let mut by_node = shares.by_node;
        for entry in by_node.values_mut().flatten() {
            entry.stamp = stamp;
        }
        let share =
            |(node, entries)| (node, Share { entries, id: None, state: ShareState::Waiting });
        let pending = Pending {
            token: Some(token),
            sets,
            shares: by_node.into_iter().map(share).collect(),
            bytes,
            deadline: context.now + context.config.write_timeout,
            phase: Phase::Storing,
            is_batch,
        };
        Ok((stamp, pending))
    }

    /// The batch is durable here and at its holder: its shares may go.
    pub(super) fn on_batch_kept(
        &mut self,
        context: &mut Context,
        hints: &mut Hints,
        batches: &mut Batches,
        stamp: Stamp,
    ) {
        self.send_shares(context, hints, batches, stamp);
    }

    fn send_shares(
        &mut self,
        context: &mut Context,
        hints: &mut Hints,
        batches: &mut Batches,
        stamp: Stamp,
    ) {
        let Some(pending) = self.pending.get_mut(&stamp) else { return };
        let hint_at = context.now + context.config.hint_after;
        pending.phase = Phase::Sent { hint_at };
        self.timers.insert((hint_at, stamp));
        let mut down = Vec::new();
        for (&node, share) in &mut pending.shares {
            if context.detector.is_up(node, context.now) || !context.config.repair.hints {
                let id = context.write(Owner::Writes, node, share.entries.clone());
                share.id = Some(id);
                self.sent.insert(id.number, (stamp, node));
            } else {
                down.push(node);
            }
        }
        for node in down {
            self.hint(context, hints, stamp, node);
        }
        self.look_at(context, batches, stamp);
    }

    /// Makes a hint of a share that is not settled; the own disk needs none.
    fn hint(&mut self, context: &mut Context, hints: &mut Hints, stamp: Stamp, node: NodeId) {
        let Some(pending) = self.pending.get_mut(&stamp) else { return };
        let Some(share) = pending.shares.get_mut(&node) else { return };
        if node == context.id() || share.state != ShareState::Waiting {
            return;
        }
        if !context.config.repair.hints {
            return;
        }
        share.state = match hints.add(context, node, stamp, &share.entries) {
            Some(number) => {
                self.hints.insert((node, number), stamp);
                ShareState::Hinting(number)
            }
            None => ShareState::GivenUp,
        };
    }

    /// A hint is durable.
    pub(super) fn on_hint_stored(
        &mut self,
        context: &mut Context,
        batches: &mut Batches,
        target: NodeId,
        number: u64,
    ) {
        let Some(&stamp) = self.hints.get(&(target, number)) else { return };
        let Some(pending) = self.pending.get_mut(&stamp) else { return };
        let Some(share) = pending.shares.get_mut(&target) else { return };
        if share.state == ShareState::Hinting(number) {
            share.state = ShareState::Hinted(number);
        }
        self.look_at(context, batches, stamp);
    }

    /// The target of a hint has acknowledged it.
    pub(super) fn on_hint_delivered(
        &mut self,
        context: &mut Context,
        batches: &mut Batches,
        target: NodeId,
        number: u64,
    ) {
        let Some(stamp) = self.hints.remove(&(target, number)) else { return };
        let Some(pending) = self.pending.get_mut(&stamp) else { return };
        let Some(share) = pending.shares.get_mut(&target) else { return };
        probe!("dynamo.hint_delivered_while_the_write_waits");
        share.state = ShareState::Acknowledged;
        self.look_at(context, batches, stamp);
    }

    /// A replica, perhaps this node, answers a share.
    pub(super) fn on_write_reply(
        &mut self,
        context: &mut Context,
        hints: &mut Hints,
        batches: &mut Batches,
        id: RequestId,
        outcome: WriteOutcome,
    ) {
        let Some((stamp, node)) = self.sent.remove(&id.number) else { return };
        let Some(pending) = self.pending.get_mut(&stamp) else { return };
        let Some(share) = pending.shares.get_mut(&node) else { return };
        share.id = None;
        match outcome {
            WriteOutcome::Stored => {
                if let Some(number) = share.hint() {
                    self.hints.remove(&(node, number));
                }
                share.state = ShareState::Acknowledged;
            }
            WriteOutcome::Refused if share.state == ShareState::Waiting => {
                probe!("dynamo.write_refused");
                share.state = ShareState::Refused;
            }
            WriteOutcome::DiskFull => {
                probe!("dynamo.replica_disk_full");
                self.hint(context, hints, stamp, node);
            }
            WriteOutcome::Refused => {}
        }
        self.look_at(context, batches, stamp);
    }

    /// The disk of a replica was lost: its shares are sent anew, under new names, so that nothing
    /// counts that it said before.
    pub(super) fn on_disk_lost(&mut self, context: &mut Context, node: NodeId) {
        let hint_at = context.now + context.config.hint_after;
        for (&stamp, pending) in &mut self.pending {
            let share = pending.shares.get_mut(&node);
            let Some(share) = share.filter(|_| pending.phase != Phase::Storing) else { continue };
            if let Some(id) = share.id.take() {
                self.sent.remove(&id.number);
                context.forget(id);
            }
            if matches!(share.state, ShareState::Acknowledged | ShareState::Refused) {
                probe!("dynamo.acknowledgement_is_void");
                share.state = ShareState::Waiting;
            }
            if share.state != ShareState::Waiting {
                continue;
            }
            let id = context.write(Owner::Writes, node, share.entries.clone());
            share.id = Some(id);
            self.sent.insert(id.number, (stamp, node));
            if pending.phase == Phase::Hinted {
                pending.phase = Phase::Sent { hint_at };
                self.timers.insert((hint_at, stamp));
            }
        }
    }

    /// The own disk has no space for the own share, and was not asked for any. Returns whether the
    /// share is to wait for space; a request that concerns nobody else ends here.
    pub(super) fn on_own_disk_full(&mut self, context: &mut Context, id: RequestId) -> bool {
        let Some(&(stamp, _)) = self.sent.get(&id.number) else { return false };
        let Some(pending) = self.pending.get_mut(&stamp) else { return false };
        if pending.shares.len() > 1 || pending.is_batch {
            return true;
        }
        if let Some(token) = pending.token.take() {
            context.reply(token, Reply::DiskFull);
            self.tokens.remove(&token);
        }
        self.remove(context, stamp);
        false
    }

    /// A client does not wait any more. The write goes on.
    pub(super) fn on_forget(&mut self, context: &mut Context, batches: &mut Batches, token: Token) {
        let Some(stamp) = self.tokens.remove(&token) else { return };
        if let Some(pending) = self.pending.get_mut(&stamp) {
            pending.token = None;
        }
        self.look_at(context, batches, stamp);
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, context: &mut Context, hints: &mut Hints, batches: &mut Batches) {
        while let Some(&(at, stamp)) = self.timers.first().filter(|(at, _)| *at <= context.now) {
            self.timers.remove(&(at, stamp));
            self.on_timer(context, hints, stamp);
            self.look_at(context, batches, stamp);
        }
        while self.lingering.front().is_some_and(|(until, _)| *until <= context.now) {
            self.lingering.pop_front();
        }
    }

    fn on_timer(&mut self, context: &mut Context, hints: &mut Hints, stamp: Stamp) {
        let Some(pending) = self.pending.get_mut(&stamp) else { return };
        if matches!(pending.phase, Phase::Sent { hint_at } if hint_at <= context.now) {
            pending.phase = Phase::Hinted;
            let waiting = pending.shares.iter().filter(|(_, s)| s.state == ShareState::Waiting);
            let late: Vec<NodeId> = waiting.map(|(&node, _)| node).collect();
            for node in late {
                self.send_again(context, stamp, node);
                self.hint(context, hints, stamp, node);
            }
        }
        let Some(pending) = self.pending.get_mut(&stamp) else { return };
        if pending.deadline > context.now {
            return;
        }
        if let Some(token) = pending.token.take() {
            probe!("dynamo.write_times_out");
            self.tokens.remove(&token);
            let planted = Reply::Unavailable { needed: 1, alive: 0 };
            context.reply(token, if planted!("D36") { planted } else { Reply::Timeout });
        }
        if !context.config.repair.hints && pending.phase != Phase::Storing {
            for (_, share) in pending.shares.iter_mut().filter(|(_, share)| share.is_open()) {
                share.state = ShareState::GivenUp;
            }
        }
    }

    /// Sends a share that may have been lost to a node that is there.
    fn send_again(&self, context: &mut Context, stamp: Stamp, node: NodeId) {
        let share = self.pending.get(&stamp).and_then(|pending| pending.shares.get(&node));
        let Some(Share { entries, id: Some(id), .. }) = share else { return };
        if node != context.id() && context.detector.is_up(node, context.now) {
            context.send(node, Message::Write { id: *id, entries: entries.clone() });
        }
    }

    /// Answers a request if enough replicas have it, and ends it if it is settled.
    fn look_at(&mut self, context: &mut Context, batches: &mut Batches, stamp: Stamp) {
        let Some(pending) = self.pending.get_mut(&stamp) else { return };
        // Time may have stood still here for longer than a lost disk is waited for.
        let is_in_time = context.now < pending.deadline || planted!("D73");
        if is_in_time
            && pending.is_enough()
            && let Some(token) = pending.token.take()
        {
            self.tokens.remove(&token);
            context.reply(token, Reply::Written { stamp });
        }
        if pending.token.is_some() || pending.shares.values().any(Share::is_open) {
            return;
        }
        let is_complete = !pending.shares.values().any(|share| share.state == ShareState::GivenUp);
        let is_batch = pending.is_batch;
        let is_safe = pending.outlives_any_disk(context.id());
        self.remove(context, stamp);
        if is_batch {
            batches.on_settled(context, stamp, is_complete && is_safe);
        } else if !is_complete {
            probe!("dynamo.write_given_up");
            self.linger(context, stamp);
        }
    }

    /// Remembers a write that may still reach somebody, so that no floor passes it too early.
    fn linger(&mut self, context: &Context, stamp: Stamp) {
        let until = context.now + context.config.floor_age;
        match self.lingering.back_mut() {
            Some((last, low)) if until.since(*last) < LINGERING_STEP => *low = stamp.min(*low),
            _ => self.lingering.push_back((until, stamp)),
        }
    }

    fn remove(&mut self, context: &mut Context, stamp: Stamp) {
        let Some(pending) = self.pending.remove(&stamp) else { return };
        self.bytes -= pending.bytes;
        self.timers.remove(&(pending.deadline, stamp));
        if let Phase::Sent { hint_at } = pending.phase {
            self.timers.remove(&(hint_at, stamp));
        }
        for (node, share) in pending.shares {
            if let Some(id) = share.id {
                self.sent.remove(&id.number);
                context.forget(id);
            }
            if let Some(number) = share.hint() {
                self.hints.remove(&(node, number));
            }
        }
    }
}

/// The replica's side.
impl Writes {
    /// A peer wants entries stored here.
    pub(super) fn on_write_message(
        &mut self,
        context: &mut Context,
        from: NodeId,
        id: RequestId,
        entries: Vec<Entry>,
    ) {
        self.store(context, from, id, entries, false);
    }

    /// A peer wants entries stored here that a replica has.
    pub(super) fn on_repair_message(
        &mut self,
        context: &mut Context,
        from: NodeId,
        id: RequestId,
        entries: Vec<Entry>,
    ) {
        self.store(context, from, id, entries, true);
    }

    fn store(
        &mut self,
        context: &mut Context,
        from: NodeId,
        id: RequestId,
        mut entries: Vec<Entry>,
        is_repair: bool,
    ) {
        let bytes = bytes_of(&entries);
        if self.replica_bytes + bytes > context.config.replica_bytes_max && self.replica_bytes > 0 {
            probe!("dynamo.replica_overloaded");
            return;
        }
        let count = entries.len();
        let is_fit = entries.iter().all(|entry| is_fit(context, entry));
        entries.retain(|entry| is_fit && !context.refuses(entry, is_repair));
        let outcome = if !is_fit || entries.len() < count {
            probe!("dynamo.replica_refuses");
            WriteOutcome::Refused
        } else if context.is_disk_full {
            WriteOutcome::DiskFull
        } else {
            WriteOutcome::Stored
        };
        if entries.is_empty() || context.is_disk_full || planted!("D34") {
            context.send(from, Message::WriteReply { id, outcome });
        }
        if entries.is_empty() || context.is_disk_full {
            return;
        }
        let then = if planted!("D34") {
            Then::Nothing
        } else {
            self.replica_bytes += bytes;
            Then::Acknowledge { to: from, id, outcome, bytes }
        };
        context.persist(Record::Entries(entries), then);
    }

    /// A peer's entries are durable and applied, or there was no space for them.
    pub(super) fn on_replicated(
        &mut self,
        context: &mut Context,
        to: NodeId,
        message: Message,
        bytes: usize,
    ) {
        self.replica_bytes -= bytes;
        context.send(to, message);
    }
}

/// What others ask of it.
impl Writes {
    /// Returns the smallest stamp of a write that may still change a replica.
    pub(super) fn low_water(&self) -> Option<Stamp> {
        let lingering = self.lingering.iter().map(|(_, stamp)| *stamp);
        self.pending.keys().next().copied().into_iter().chain(lingering).min()
    }

    /// Returns when it must be ticked, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns how many requests are under way, and their bytes.
    pub(super) fn pending(&self) -> (usize, usize) {
        (self.pending.len(), self.bytes)
    }

    /// Returns the bytes of others' writes that wait for the disk.
    pub(super) fn replica_bytes(&self) -> usize {
        self.replica_bytes
    }

    /// Tells whether something is still to be done about a request.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn is_pending(&self, stamp: Stamp) -> bool {
        self.pending.contains_key(&stamp)
    }

    /// Checks its invariants.
    pub(super) fn check(&self, context: &Context) {
        let bytes: usize = self.pending.values().map(|pending| pending.bytes).sum();
        assert!(bytes == self.bytes, "D5: {bytes} bytes of writes, counted {}", self.bytes);
        let (count, config) = (self.pending.len(), &context.config);
        assert!(
            count <= config.pending_writes_max && bytes <= config.pending_write_bytes_max,
            "D5: {count} writes of {bytes} bytes"
        );
        for (token, stamp) in &self.tokens {
            let waiting = self.pending.get(stamp).and_then(|pending| pending.token);
            assert!(waiting == Some(*token), "D3: #{token} waits for {stamp}: {waiting:?}");
        }
        for (&number, (stamp, node)) in &self.sent {
            let share = self.pending.get(stamp).and_then(|pending| pending.shares.get(node));
            let id = share.and_then(|share| share.id).map(|id| id.number);
            assert!(id == Some(number), "D4: message {number} of {stamp} to {node}: {id:?}");
        }
        for ((node, number), stamp) in &self.hints {
            let share = self.pending.get(stamp).and_then(|pending| pending.shares.get(node));
            assert!(share.is_some(), "D4: hint {number} for {node} of {stamp}, which is no more");
        }
        for (stamp, pending) in &self.pending {
            let is_owed = pending.token.is_some() || pending.shares.values().any(Share::is_open);
            assert!(is_owed, "D4: {stamp} is settled, and still under way");
        }
    }
}

impl Pending {
    /// Tells whether of each set of replicas enough have acknowledged.
    fn is_enough(&self) -> bool {
        self.sets.iter().all(|set| {
            let shares = set.nodes.iter().filter_map(|node| self.shares.get(node));
            shares.filter(|share| share.is_acknowledged()).count() >= set.needed
        })
    }

    /// Tells whether what each set of replicas gets is on two disks, or on all of its replicas'.
    /// All hints lie on the disk of node `own`, which is perhaps a replica, too: a disk that is
    /// lost, or comes back older, takes them along. And a hint may be dropped when it is old.
    fn outlives_any_disk(&self, own: NodeId) -> bool {
        let has_it = |node: &NodeId| {
            let state = self.shares.get(node).map(|share| share.state);
            matches!(state, Some(ShareState::Acknowledged | ShareState::Refused))
        };
        let disk = |node: &NodeId| match self.shares.get(node)?.state {
            ShareState::Acknowledged | ShareState::Refused => Some(*node),
            ShareState::Hinted(_) => Some(own),
            ShareState::Waiting | ShareState::Hinting(_) | ShareState::GivenUp => None,
        };
        let are_enough = |set: &ReplicaSet| {
            let disks: BTreeSet<NodeId> = set.nodes.iter().filter_map(disk).collect();
            disks.len() >= 2 || set.nodes.iter().all(has_it)
        };
        planted!("D54") || self.sets.iter().all(are_enough)
    }
}

impl Share {
    fn is_acknowledged(&self) -> bool {
        self.state == ShareState::Acknowledged
            || (planted!("D1") && self.state != ShareState::Waiting)
    }

    /// Returns the number of its hint, if there is one.
    fn hint(&self) -> Option<u64> {
        match self.state {
            ShareState::Hinting(number) | ShareState::Hinted(number) => Some(number),
            ShareState::Waiting
            | ShareState::Acknowledged
            | ShareState::Refused
            | ShareState::GivenUp => None,
        }
    }

    /// Tells whether it is not settled yet.
    fn is_open(&self) -> bool {
        matches!(self.state, ShareState::Waiting | ShareState::Hinting(_))
    }
}

/// Returns the sets of replicas with how many of each are needed, if enough are up.
fn available_sets(
    context: &Context,
    level: Level,
    sets: Vec<Vec<NodeId>>,
) -> Result<Vec<ReplicaSet>, Reply> {
    let mut available = Vec::with_capacity(sets.len());
    for nodes in sets {
        let needed = level.needed(nodes.len());
        let needed = needed.ok_or(Reply::Invalid("more replicas are asked for than there are"))?;
        let alive = nodes.iter().filter(|&&node| context.detector.is_up(node, context.now)).count();
        if alive < needed {
            probe!("dynamo.write_unavailable");
            let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
            return Err(Reply::Unavailable { needed: count(needed), alive: count(alive) });
        }
        available.push(ReplicaSet { nodes, needed });
    }
    Ok(available)
}

/// Returns all entries of a request, each once.
fn entries_of(pending: &Pending) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for share in pending.shares.values() {
        entries.extend(share.entries.iter().cloned());
    }
    entries.sort_by(|a, b| a.order().cmp(&b.order()));
    entries.dedup_by(|a, b| a.order() == b.order());
    entries
}

/// Tells whether an entry may be stored here: the place is this node's, and its stamp can be one.
fn is_fit(context: &mut Context, entry: &Entry) -> bool {
    let Some(partition) = partition_of_place(entry.place.as_bytes()) else { return false };
    let is_here = context.config.placement.replicas(partition).contains(&context.config.id);
    is_here && context.clock.observe(entry.stamp)
}

fn is_tombstone(written: &crate::base::Written) -> bool {
    !matches!(written, crate::base::Written::Value(_))
}

pub(super) fn bytes_of(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::bytes).sum()
}
