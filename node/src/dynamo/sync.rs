//! Anti-entropy: sessions in which two replicas make what they share equal.
//!
//! Repairs and hints heal what somebody noticed; this heals the rest, and is the only thing that
//! promises that replicas become equal. [`super::core`] lets time pass here and brings messages,
//! answers of the own store and acknowledgements. [`super::merkle`] knows the trees,
//! [`super::outline`] compares pages, [`super::floor`] is told what was compared completely.
//!
//! # The life of a session
//! Each node begins one session at a time, with its peers in turn. It sends the **roots** of the
//! partitions that both hold; the peer answers with the **leaves** of those that differ. A write
//! under way makes a difference that is none soon, and looking for it means reading a partition.
//! So a moment later the same is asked again about these partitions, and only leaves that differ
//! both times are looked into. For each of these the first node reads a page of the entries in
//! the leaves that differ and sends its **outline**, places and stamps; the peer reads its own
//! page and answers with the **difference**: entries that the outline lacks, and places of which
//! it wants the entries. The first node stores the ones, sends the others, and goes on with the
//! next page when both nodes have acknowledged what they were given. The peer keeps no state
//! between two answers.
//!
//! # Loss, repetition, and writes meanwhile
//! Each question has a name of its own, and only the answer to the last one counts. A question
//! without an answer ends the session; a later one begins from the roots, and finds equal what
//! was exchanged. An exchanged entry is stored by the rule of every write, so it may arrive twice
//! and late; one that was deleted and forgotten meanwhile is refused by the floor. A write that
//! arrives between the last roots and a page makes a difference that is none: it costs a page,
//! and the exchange changes nothing.
//!
//! # Never in the way
//! The store reads a page at a time, limited in bytes; between two pages the session waits until
//! its [rate](super::Config::sync_bytes_per_second) allows the next one. To find the entries of a
//! few leaves the store reads all of the partition, and that is what counts. So a replica that
//! lacks everything is filled at that rate, while everything else goes on.
//!
//! # What a complete comparison is good for
//! If each leaf of a partition was equal at one of the looks, or all its pages were exchanged and
//! acknowledged, then this node has what the peer had when the session began. So it may take over
//! the peer's floor, unless something older than that arrived meanwhile ([`Floors::adopt`]); a
//! steward's round has done one more replica; and a node that is not whole has done one more of
//! the comparisons that make it whole, if it has the peer's floor then. The first of these waits
//! until nobody counts any more what the node had before its disk was lost ([`super::floor`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::context::{Context, Owner, Then};
use super::core::DynamoStatus;
use super::floor::{self, Floors};
use super::merge;
use super::merkle::{LEAF_COUNT, Trees};
use super::message::{Chunk, Message, Outlined, RequestId, SyncMessage, WriteOutcome};
use super::outline;
use super::placement::{Partition, partition_of_place, place_in};
use super::ready::{Found, ReadId, Record, StoreRead};
use crate::base::{Entry, Instant, NodeId, Payload, Stamp};
use crate::{planted, probe};

/// The session that this node has begun, and the answers that it owes to others'.
#[derive(Debug)]
pub(super) struct Sync {
    session: Option<Session>,
    /// When the next session begins, at the earliest.
    next: Instant,
    /// Before that no page is read: the rate is used up.
    free: Instant,
    /// The peer of the last session.
    last_peer: Option<NodeId>,
    /// Where the next session with a peer goes on.
    cursors: BTreeMap<NodeId, Partition>,
    /// The comparisons that are missing until the node is whole; empty if it is.
    missing: BTreeMap<Partition, BTreeSet<NodeId>>,
    /// So long may others count what the lost disk of this node had acknowledged, unless they
    /// have heard of this start.
    counted_until: Instant,
    /// Pages of others' sessions that the own store reads.
    answering: BTreeMap<ReadId, Answering>,
    /// Sessions completed.
    completed_count: u64,
    /// When each partition was last compared completely with whom.
    compared: BTreeMap<(NodeId, Partition), Instant>,
}

/// A session that this node has begun.
#[derive(Debug)]
struct Session {
    peer: NodeId,
    /// The attempt to raise floors that wants it.
    raise: Option<RequestId>,
    /// The question that is to be answered.
    question: RequestId,
    /// Without progress it ends then.
    deadline: Instant,
    /// The roots that were sent.
    asked: BTreeMap<Partition, u64>,
    /// Partitions that differed at the first look, and in which leaves, until the second one; the
    /// peer's floor with it.
    suspects: BTreeMap<Partition, (Vec<u16>, Stamp)>,
    /// Partitions that differ and are not compared yet.
    todo: VecDeque<Work>,
    /// Partitions that were compared completely.
    completed: BTreeSet<Partition>,
    step: Step,
}

/// A partition that is compared.
#[derive(Debug)]
struct Work {
    partition: Partition,
    leaves: Vec<u16>,
    /// Where the next page begins.
    start: Payload,
    /// The peer's floor, the least that it told.
    floor: Stamp,
    /// Nothing was left out so far.
    is_complete: bool,
}

/// What a session waits for.
#[derive(Debug)]
enum Step {
    /// For the answer to the roots.
    Roots,
    /// For the time of the second look.
    LookingAgain(Instant),
    /// For the rate to allow a page.
    Pausing,
    /// For the own store.
    Reading(ReadId),
    /// For the answer to the outline of this page.
    Outlined(Chunk),
    /// For acknowledgements of these writes; then the next page begins there.
    Writing { waiting: BTreeMap<u64, RequestId>, next: Option<Payload> },
}

/// An outline that is to be compared.
#[derive(Debug)]
struct Answering {
    from: NodeId,
    id: RequestId,
    partition: Partition,
    outline: Vec<Outlined>,
    covered: Option<Payload>,
    floor: Stamp,
}

/// Returns the time between two sessions; a node that is not whole answers nobody until they are
/// done.
fn interval(context: &Context) -> Duration {
    let config = &context.config;
    let usual = config.sync_interval;
    if context.is_whole { usual } else { usual.min(config.refill_interval) }
}

/// Beginning and ending.
impl Sync {
    /// Starts; if the node is not whole, with everything to compare.
    pub(super) fn new(context: &Context) -> Self {
        let placement = &context.config.placement;
        let mut missing = BTreeMap::new();
        if !context.is_whole {
            for partition in 0..placement.partition_count() {
                let replicas = placement.replicas(partition);
                let others: BTreeSet<NodeId> =
                    replicas.iter().copied().filter(|node| *node != context.id()).collect();
                if replicas.contains(&context.id()) && !others.is_empty() {
                    missing.insert(partition, others);
                }
            }
        }
        Self {
            session: None,
            next: context.now + interval(context),
            free: context.now,
            last_peer: None,
            cursors: BTreeMap::new(),
            missing,
            counted_until: context.now + context.config.counting_max(),
            answering: BTreeMap::new(),
            completed_count: 0,
            compared: BTreeMap::new(),
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, context: &mut Context, trees: &Trees, floors: &mut Floors) {
        if self.missing.is_empty() && !context.is_whole {
            floor::on_whole(context);
        }
        match &self.session {
            Some(session) if session.deadline <= context.now => {
                probe!("dynamo.sync_gives_up");
                self.end(context, floors);
            }
            Some(Session { step: Step::LookingAgain(when), .. }) if *when <= context.now => {
                self.look_again(context, trees, floors);
            }
            Some(_) => self.read_page(context),
            None if self.next <= context.now => self.begin(context, trees, floors),
            None => {}
        }
    }

    fn begin(&mut self, context: &mut Context, trees: &Trees, floors: &mut Floors) {
        self.next = context.now + interval(context);
        if self.may_count(context) {
            probe!("dynamo.refill_waits_for_others");
            let soon = context.now + context.config.heartbeat_interval;
            self.next = soon.min(self.counted_until);
            return;
        }
        let (raise, peer, partitions) = match floors.wanted(context) {
            Some((raise, peer, partitions)) => (Some(raise), peer, partitions),
            None => match self.next_peer(context) {
                Some((peer, partitions)) => (None, peer, partitions),
                None => return,
            },
        };
        let roots = roots_of(context, trees, &partitions);
        context.forget_arrivals();
        let question = context.next_id();
        self.session = Some(Session {
            peer,
            raise,
            question,
            deadline: context.now + context.config.sync_timeout,
            asked: roots.iter().map(|(partition, root, _)| (*partition, *root)).collect(),
            suspects: BTreeMap::new(),
            todo: VecDeque::new(),
            completed: BTreeSet::new(),
            step: Step::Roots,
        });
        if roots.is_empty() {
            return self.end(context, floors);
        }
        context.send(peer, Message::Sync(SyncMessage::Roots { id: question, roots }));
    }

    /// Tells whether others may still count what the disk of this node had acknowledged before it
    /// was lost: then what they count it with may come after a comparison. See `floor`.
    fn may_count(&self, context: &Context) -> bool {
        let heartbeat = |peer| context.detector.heartbeat(peer);
        let has_heard = |peer| heartbeat(peer).is_some_and(|h| h.heard == context.generation);
        !context.is_whole
            && context.now < self.counted_until
            && !context.config.peers().all(has_heard)
            && !planted!("D72")
    }

    /// Chooses whom to compare what with.
    fn next_peer(&mut self, context: &Context) -> Option<(NodeId, Vec<Partition>)> {
        let after = self.last_peer;
        let peers: BTreeSet<NodeId> = context.config.peers().collect();
        let in_turn = peers.iter().filter(|peer| Some(**peer) > after).chain(&peers);
        for &peer in in_turn.take(peers.len()) {
            if !context.detector.is_up(peer, context.now) {
                continue;
            }
            let partitions = self.next_partitions(context, peer);
            if !partitions.is_empty() {
                self.last_peer = Some(peer);
                return Some((peer, partitions));
            }
        }
        None
    }

    fn next_partitions(&mut self, context: &Context, peer: NodeId) -> Vec<Partition> {
        let count_max = context.config.sync_partitions_max;
        if !self.missing.is_empty() {
            let missing = self.missing.iter().filter(|(_, peers)| peers.contains(&peer));
            return missing.map(|(partition, _)| *partition).take(count_max).collect();
        }
        let placement = &context.config.placement;
        let from = self.cursors.get(&peer).copied().unwrap_or_default();
        let is_shared = |partition: &Partition| {
            placement.is_replica(peer, *partition) && placement.is_replica(context.id(), *partition)
        };
        let in_turn = (from..placement.partition_count()).chain(0..from).filter(is_shared);
        let partitions: Vec<Partition> = in_turn.take(count_max).collect();
        if let Some(last) = partitions.last() {
            self.cursors.insert(peer, (last + 1) % placement.partition_count());
        }
        partitions
    }

    /// Ends the session, whatever it has come to.
    fn end(&mut self, context: &mut Context, floors: &mut Floors) {
        let Some(session) = self.session.take() else { return };
        if let Step::Writing { waiting, .. } = session.step {
            for id in waiting.into_values() {
                context.forget(id);
            }
        }
        if !session.asked.is_empty() && session.completed.len() == session.asked.len() {
            self.completed_count += 1;
        }
        if let Some(raise) = session.raise {
            floors.on_compared(context, raise, session.peer, &session.completed);
        }
        let is_urgent = floors.wanted(context).is_some() || !context.is_whole;
        if is_urgent && !session.completed.is_empty() {
            self.next = context.now;
        }
    }

    /// A partition was compared completely with the session's peer, which has that floor; perhaps
    /// by a root that is the own one still.
    fn complete(
        &mut self,
        context: &mut Context,
        floors: &mut Floors,
        partition: Partition,
        floor: Stamp,
        is_equal_now: bool,
    ) {
        let Some(session) = &mut self.session else { return };
        session.completed.insert(partition);
        self.compared.insert((session.peer, partition), context.now);
        // A node is not whole without the floors: of what was deleted and forgotten it has nothing.
        let has_floor = floors.adopt(context, partition, floor, is_equal_now);
        if let Some(peers) = self.missing.get_mut(&partition).filter(|_| has_floor) {
            peers.remove(&session.peer);
            if peers.is_empty() {
                self.missing.remove(&partition);
            }
            if self.missing.is_empty() {
                floor::on_whole(context);
            }
        }
    }

    /// What was in flight to a peer may be lost: a session with it ends at the next tick.
    pub(super) fn on_peer_lost(&mut self, context: &mut Context, peer: NodeId) {
        if let Some(session) = self.session.as_mut().filter(|session| session.peer == peer) {
            session.deadline = context.now;
        }
    }

    /// Returns when it must be ticked.
    pub(super) fn deadline(&self) -> Instant {
        match &self.session {
            Some(Session { step: Step::Pausing, deadline, .. }) => self.free.min(*deadline),
            Some(Session { step: Step::LookingAgain(when), .. }) => *when,
            Some(session) => session.deadline,
            None => self.next,
        }
    }

    /// Checks its invariants.
    pub(super) fn check(&self, context: &Context) {
        assert!(
            context.is_whole || self.session.is_none() || !self.missing.is_empty(),
            "D12: nothing to compare, but not whole"
        );
        if let Some(session) = &self.session {
            let is_asked = session.completed.iter().all(|of| session.asked.contains_key(of));
            assert!(is_asked, "D12: completed {:?} of {:?}", session.completed, session.asked);
        }
    }

    /// Tells how it is.
    pub(super) fn status(&self, context: &Context, status: &mut DynamoStatus) {
        status.sync_sessions = self.completed_count;
        let placement = &context.config.placement;
        let own = context.id();
        for partition in 0..placement.partition_count() {
            let replicas = placement.replicas(partition);
            if !replicas.contains(&own) {
                continue;
            }
            for &peer in replicas.iter().filter(|node| **node != own) {
                let compared = self.compared.get(&(peer, partition)).copied();
                let synced = status.synced.entry(peer).or_insert(compared);
                *synced = compared.min(*synced);
            }
        }
    }
}

/// Driving the own session.
impl Sync {
    /// The peer answers the roots.
    fn on_leaves(
        &mut self,
        context: &mut Context,
        trees: &Trees,
        floors: &mut Floors,
        differing: Vec<(Partition, Vec<u64>, Stamp)>,
        unknown: &[Partition],
    ) {
        let Some(session) = &mut self.session else { return };
        let suspects = std::mem::take(&mut session.suspects);
        // Who needs the comparison does not wait for a second look, and there is no third one.
        let is_first = suspects.is_empty() && session.raise.is_none() && context.is_whole;
        let mut equal: BTreeMap<Partition, (Stamp, bool)> =
            session.asked.keys().map(|partition| (*partition, (Stamp::ZERO, true))).collect();
        equal.retain(|partition, _| !unknown.contains(partition));
        if !suspects.is_empty() {
            equal.retain(|partition, _| suspects.contains_key(partition));
        }
        for (partition, theirs, floor) in differing {
            if equal.remove(&partition).is_none() || theirs.len() != usize::from(LEAF_COUNT) {
                continue;
            }
            let Some(mine) = trees.leaves(context, partition) else { continue };
            let differs_now = differing_leaves(mine, &theirs);
            let (leaves, floor) = match suspects.get(&partition) {
                Some((before, known)) => {
                    let is_still = |leaf: &u16| before.contains(leaf);
                    (differs_now.iter().copied().filter(is_still).collect(), floor.min(*known))
                }
                None => (differs_now.clone(), floor),
            };
            if leaves.is_empty() {
                if !suspects.is_empty() {
                    probe!("dynamo.sync_difference_was_none");
                }
                equal.insert(partition, (floor, differs_now.is_empty()));
            } else if is_first {
                session.suspects.insert(partition, (leaves, floor));
            } else {
                let start = place_in(partition, &[]);
                session.todo.push_back(Work { partition, leaves, start, floor, is_complete: true });
            }
        }
        let is_same = |of| trees.root(context, of) == session.asked.get(&of).copied();
        let equal: Vec<_> = equal
            .into_iter()
            .map(|(of, (floor, is_equal))| (of, floor, is_equal && is_same(of)))
            .collect();
        session.step = Step::Pausing;
        for (partition, floor, is_equal_now) in equal {
            self.complete(context, floors, partition, floor, is_equal_now);
        }
        match &mut self.session {
            Some(session) if !session.suspects.is_empty() => {
                let when = context.now + context.config.sync_second_look;
                session.step = Step::LookingAgain(when);
                session.deadline = when + context.config.sync_timeout;
            }
            _ => self.go_on(context, floors),
        }
    }

    /// Asks again about the partitions that differed.
    fn look_again(&mut self, context: &mut Context, trees: &Trees, floors: &mut Floors) {
        let Some(session) = &mut self.session else { return };
        let partitions: Vec<Partition> = session.suspects.keys().copied().collect();
        let roots = roots_of(context, trees, &partitions);
        session.suspects.retain(|of, _| roots.iter().any(|(partition, _, _)| partition == of));
        if roots.is_empty() {
            return self.end(context, floors);
        }
        session.asked.extend(roots.iter().map(|(partition, root, _)| (*partition, *root)));
        session.question = context.next_id();
        session.step = Step::Roots;
        let id = session.question;
        context.send(session.peer, Message::Sync(SyncMessage::Roots { id, roots }));
    }

    /// Goes on with the next page, or ends.
    fn go_on(&mut self, context: &mut Context, floors: &mut Floors) {
        match &mut self.session {
            Some(session) if session.todo.is_empty() => self.end(context, floors),
            Some(session) => {
                session.step = Step::Pausing;
                session.deadline = self.free.max(context.now) + context.config.sync_timeout;
                self.read_page(context);
            }
            None => {}
        }
    }

    /// Reads the next page, if it is time.
    fn read_page(&mut self, context: &mut Context) {
        let Some(session) = &mut self.session else { return };
        let Some(work) = session.todo.front() else { return };
        if !matches!(session.step, Step::Pausing) || self.free > context.now {
            return;
        }
        let read = StoreRead::LeafEntries {
            partition: work.partition,
            leaves: work.leaves.clone(),
            start: work.start.clone(),
            bytes_max: context.config.sync_bytes_max,
        };
        session.step = Step::Reading(context.read_store(Owner::Sync, read));
        session.deadline = context.now + context.config.sync_timeout;
    }

    /// The own store has read the page: tells its outline.
    fn send_outline(&mut self, context: &mut Context, mut page: Chunk) {
        let Some(session) = &mut self.session else { return };
        let Some(work) = session.todo.front() else { return };
        page.floor = page.floor.min(context.floor(work.partition));
        outline::limit(&mut page, context.config.sync_outline_count_max);
        session.question = context.next_id();
        let outline = SyncMessage::Outline {
            id: session.question,
            partition: work.partition,
            leaves: work.leaves.clone(),
            outline: outline::outline_of(&page),
            start: work.start.clone(),
            covered: page.covered.clone(),
            floor: page.floor,
        };
        context.send(session.peer, Message::Sync(outline));
        session.step = Step::Outlined(page);
    }

    /// The peer answers the outline: stores here and there what is lacking.
    fn on_difference(&mut self, context: &mut Context, floors: &mut Floors, answer: Difference) {
        let Some(session) = &mut self.session else { return };
        let Some(work) = session.todo.front_mut() else { return };
        let Step::Outlined(page) = &session.step else { return };
        work.floor = work.floor.min(answer.floor);
        let next = [&page.covered, &answer.covered].into_iter().flatten().min().cloned();
        if next.as_ref().is_some_and(|next| *next <= work.start) {
            probe!("dynamo.sync_page_without_progress");
            return self.end(context, floors);
        }
        let mut mine = Vec::new();
        for entry in answer.entries {
            let is_ours = partition_of_place(entry.place.as_bytes()) == Some(work.partition);
            let is_refused = is_ours && context.refuses(&entry, true);
            if is_refused && !outline::is_stray(page, &entry) {
                probe!("dynamo.sync_refuses_ghost");
            } else if is_ours && context.clock.observe(entry.stamp) {
                if is_refused {
                    probe!("dynamo.sync_takes_stray");
                }
                mine.push(entry);
            } else {
                work.is_complete = false;
            }
        }
        let mut theirs = Vec::new();
        let own_floor = context.floor(work.partition);
        for (place, is_row) in answer.wanted {
            let order = (place.as_bytes(), !is_row);
            let found = page.entries.binary_search_by(|entry| entry.order().cmp(&order));
            let Some(entry) = found.ok().and_then(|at| page.entries.get(at)) else { continue };
            if merge::is_ghost_between(entry.stamp, own_floor, answer.floor) {
                probe!("dynamo.sync_finds_own_ghost");
                mine.extend(outline::eraser(entry));
            } else if !floor::is_under(entry.stamp, answer.floor) {
                theirs.push(entry.clone());
            }
        }
        let read = bytes_of(&page.entries).saturating_mul(usize::from(LEAF_COUNT));
        let bytes = read / work.leaves.len().max(1) + bytes_of(&mine);
        let (own, peer) = (context.id(), session.peer);
        let mut waiting = BTreeMap::new();
        for (node, entries) in [(own, mine), (peer, theirs)] {
            if !entries.is_empty() {
                let id = context.write(Owner::Sync, node, entries);
                waiting.insert(id.number, id);
            }
        }
        session.step = Step::Writing { waiting, next };
        session.deadline = context.now + context.config.sync_timeout;
        self.charge(context, bytes);
        self.finish_page(context, floors);
    }

    /// Somebody answers a write of the session.
    pub(super) fn on_write_reply(
        &mut self,
        context: &mut Context,
        floors: &mut Floors,
        _from: NodeId,
        id: RequestId,
        outcome: WriteOutcome,
    ) {
        let Some(session) = &mut self.session else { return };
        let Step::Writing { waiting, .. } = &mut session.step else { return };
        if waiting.remove(&id.number).is_none() {
            return;
        }
        if outcome != WriteOutcome::Stored {
            probe!("dynamo.sync_write_not_stored");
            if let Some(work) = session.todo.front_mut() {
                work.is_complete = false;
            }
        }
        self.finish_page(context, floors);
    }

    /// Goes on when everything of the page is acknowledged.
    fn finish_page(&mut self, context: &mut Context, floors: &mut Floors) {
        let Some(session) = &mut self.session else { return };
        let Step::Writing { waiting, next } = &mut session.step else { return };
        if !waiting.is_empty() {
            return;
        }
        match (next.take(), session.todo.front_mut()) {
            (Some(next), Some(work)) => work.start = next,
            _ => {
                if let Some(work) = session.todo.pop_front().filter(|work| work.is_complete) {
                    self.complete(context, floors, work.partition, work.floor, false);
                }
            }
        }
        self.go_on(context, floors);
    }

    /// Uses some of the rate up.
    fn charge(&mut self, context: &Context, bytes: usize) {
        const NANOS: u64 = 1_000_000_000;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let nanos = bytes.saturating_mul(NANOS) / context.config.sync_bytes_per_second.max(1);
        self.free = self.free.max(context.now) + Duration::from_nanos(nanos);
    }
}

/// A [`SyncMessage::Difference`], without its name.
struct Difference {
    entries: Vec<Entry>,
    wanted: Vec<(Payload, bool)>,
    covered: Option<Payload>,
    floor: Stamp,
}

/// Messages and answers.
impl Sync {
    /// A message of a session; of fences and floors `floors` hears directly.
    pub(super) fn on_sync_message(
        &mut self,
        context: &mut Context,
        trees: &Trees,
        floors: &mut Floors,
        from: NodeId,
        message: SyncMessage,
    ) {
        match message {
            SyncMessage::Roots { id, roots } => {
                answer_roots(context, trees, floors, from, id, roots);
            }
            SyncMessage::Leaves { id, differing, unknown } => {
                if self.expects(from, id, |step| matches!(step, Step::Roots)) {
                    self.on_leaves(context, trees, floors, differing, &unknown);
                }
            }
            SyncMessage::Outline { id, partition, leaves, outline, start, covered, floor } => {
                let is_shared = context.config.placement.is_replica(context.id(), partition)
                    && context.config.placement.is_replica(from, partition);
                if !is_shared || leaves.len() > usize::from(LEAF_COUNT) {
                    return;
                }
                let bytes_max = context.config.sync_bytes_max;
                let read = StoreRead::LeafEntries { partition, leaves, start, bytes_max };
                let read = context.read_store(Owner::Sync, read);
                let answering = Answering { from, id, partition, outline, covered, floor };
                self.answering.insert(read, answering);
            }
            SyncMessage::Difference { id, entries, wanted, covered, floor } => {
                if self.expects(from, id, |step| matches!(step, Step::Outlined(_))) {
                    let answer = Difference { entries, wanted, covered, floor };
                    self.on_difference(context, floors, answer);
                }
            }
            SyncMessage::Fence { .. } | SyncMessage::Fenced { .. } | SyncMessage::Floor { .. } => {}
        }
    }

    /// Tells whether that is the answer that the session waits for.
    fn expects(&self, from: NodeId, id: RequestId, is_step: fn(&Step) -> bool) -> bool {
        self.session.as_ref().is_some_and(|session| {
            session.peer == from && session.question == id && is_step(&session.step)
        })
    }

    /// The own store answers.
    pub(super) fn on_store_read(&mut self, context: &mut Context, read: ReadId, found: Found) {
        let Found::Chunks(mut chunks) = found else { return };
        let Some(mut page) = chunks.pop() else { return };
        if let Some(answering) = self.answering.remove(&read) {
            page.floor = page.floor.min(context.floor(answering.partition));
            return answer_outline(context, answering, &page);
        }
        let step = self.session.as_ref().map(|session| &session.step);
        if matches!(step, Some(Step::Reading(reading)) if *reading == read) {
            self.send_outline(context, page);
        }
    }
}

/// Returns what a peer is told of these partitions, as far as their trees are known.
fn roots_of(
    context: &Context,
    trees: &Trees,
    partitions: &[Partition],
) -> Vec<(Partition, u64, Stamp)> {
    let root = |partition: &Partition| {
        let root = trees.root(context, *partition)?;
        Some((*partition, root, context.floor(*partition)))
    };
    partitions.iter().filter_map(root).collect()
}

/// Returns the leaves that two trees do not have in common.
fn differing_leaves(mine: &[u64], theirs: &[u64]) -> Vec<u16> {
    let pairs = (0..LEAF_COUNT).zip(mine.iter().zip(theirs));
    pairs.filter(|(_, (mine, theirs))| mine != theirs).map(|(leaf, _)| leaf).collect()
}

/// Answers a peer's roots.
fn answer_roots(
    context: &mut Context,
    trees: &Trees,
    floors: &mut Floors,
    from: NodeId,
    id: RequestId,
    roots: Vec<(Partition, u64, Stamp)>,
) {
    if roots.len() > context.config.sync_partitions_max {
        return;
    }
    let mut differing = Vec::new();
    let mut unknown = Vec::new();
    for (partition, theirs, floor) in roots {
        let is_shared = context.config.placement.is_replica(from, partition);
        let known = trees.root(context, partition).zip(trees.leaves(context, partition));
        let Some((mine, leaves)) = known.filter(|_| is_shared) else {
            unknown.push(partition);
            continue;
        };
        let own_floor = context.floor(partition);
        if mine != theirs || own_floor != floor {
            differing.push((partition, leaves.to_vec(), own_floor));
        }
        if mine == theirs {
            floors.adopt(context, partition, floor, true);
        }
    }
    context.send(from, Message::Sync(SyncMessage::Leaves { id, differing, unknown }));
}

/// Answers a peer's outline with what the own store has there.
fn answer_outline(context: &mut Context, answering: Answering, page: &Chunk) {
    let Answering { from, id, outline, covered, floor, .. } = answering;
    let end = [&page.covered, &covered].into_iter().flatten().min();
    let compared = outline::compare(page, &outline, floor, end);
    // Without space they would gather, and be found again by each session.
    if !compared.erased.is_empty() && !context.is_disk_full {
        context.persist(Record::Entries(compared.erased), Then::Nothing);
    }
    let is_shorter = end != covered.as_ref();
    let answer = SyncMessage::Difference {
        id,
        entries: compared.entries,
        wanted: compared.wanted,
        covered: end.filter(|_| is_shorter).cloned(),
        floor: page.floor,
    };
    context.send(from, Message::Sync(answer));
}

fn bytes_of(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::bytes).sum()
}
