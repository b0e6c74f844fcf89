//! A cluster of cores without a runtime: what the golden traces and the properties share.
//!
//! Every effect of a [`Ready`] is a separate thing to be done, later or never: messages wait in
//! the network, persist requests and committed entries in queues of their node. A crash loses
//! what its node had queued; only [`Disk`] survives. The [`Oracle`] looks at everything that
//! happens and panics when a promise is broken.

mod oracle;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{
    Committed, Config, Entry, EntryKind, HardState, Input, Message, Persist, PersistId, Raft,
    Ready, Recovered, Reply, Role, SnapshotMeta, SnapshotRead, SnapshotWrite, Standing, Token,
};
use crate::base::{Core, Index, Instant, NodeId, Payload, Rng, Term};
use oracle::Oracle;

/// A message on its way.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: Message,
}

/// What survives a crash of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    /// By index; after a received snapshot old entries may still be here, as in a real log.
    pub(super) entries: BTreeMap<Index, Entry>,
    pub(super) snapshot: SnapshotMeta,
    pub(super) snapshot_bytes: Vec<u8>,
    /// Set by a test that damages the disk.
    pub(super) damaged_last: Option<SnapshotMeta>,
    pub(super) standing: Standing,
}

/// The state machine: the commands in the order they were applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) applied: SnapshotMeta,
    pub(super) bytes: Vec<u8>,
}

/// One node: its core unless it is down, its disk, and what it was asked to do.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) raft: Option<Raft>,
    pub(super) disk: Disk,
    pub(super) machine: Machine,
    pub(super) persists: VecDeque<Persist>,
    applies: VecDeque<Committed>,
    reads: VecDeque<SnapshotRead>,
    writes: VecDeque<SnapshotWrite>,
    received: Vec<u8>,
    starts: u64,
}

/// The cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) network: VecDeque<Envelope>,
    /// Copies of messages, for a test that delivers them again much later.
    pub(super) copies: Vec<Envelope>,
    pub(super) now: Instant,
    pub(super) oracle: Oracle,
    /// Nodes whose disk requests wait for [`Cluster::persist`] even in [`Cluster::settle`].
    pub(super) slow_disks: BTreeSet<NodeId>,
    /// Lines about what happened, if they are wanted.
    pub(super) trace: Option<Vec<String>>,
    configure: fn(&mut Config, u64),
    tokens: Token,
    seed: u64,
}

impl Disk {
    /// Makes a request durable.
    fn persist(&mut self, persist: &Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
            self.standing = persist.standing.unwrap_or_default();
        }
        if let Some(first) = persist.entries.first() {
            self.entries.split_off(&first.index);
        }
        self.entries.extend(persist.entries.iter().map(|entry| (entry.index, entry.clone())));
    }

    /// Returns what a node that starts finds.
    fn recovered(&self) -> Recovered {
        let mut entries: Vec<Entry> = Vec::new();
        for (&index, entry) in self.entries.range(self.snapshot.index + 1..) {
            let last = entries.last().map_or(self.snapshot.index, |last| last.index);
            if index != last + 1 {
                break;
            }
            entries.push(entry.clone());
        }
        let mut recovered = Recovered {
            hard_state: self.hard_state,
            snapshot: self.snapshot,
            entries,
            damaged_last: self.damaged_last,
            standing: self.standing,
        };
        if let Standing::Filling(lost) = self.standing {
            recovered.lack(lost);
        }
        recovered
    }

    /// Tells whether the entry survives a crash here: as itself, within a snapshot, or as
    /// something that the node knows it has lost.
    pub(super) fn holds(&self, index: Index, term: Term) -> bool {
        let lost = match self.standing {
            Standing::Filling(last) => (last.term, last.index),
            Standing::New | Standing::Unsure => (Term::MAX, Index::MAX),
            Standing::Whole | Standing::Founding => (0, 0),
        };
        self.snapshot.index >= index
            || lost >= (term, index)
            || self.entries.get(&index).is_some_and(|entry| entry.term == term)
            || self.damaged_last.is_some_and(|last| (last.term, last.index) >= (term, index))
    }

    /// Loses every entry after `last`, as a disk that lied about an fsync does.
    pub(super) fn lose_after(&mut self, last: Index) {
        self.entries.split_off(&(last + 1));
    }
}

impl Machine {
    fn apply(&mut self, entry: &Entry) {
        let (index, applied) = (entry.index, self.applied.index);
        assert!(index == applied + 1, "applied {index} after {applied}");
        self.applied = SnapshotMeta { index, term: entry.term };
        if let EntryKind::Command(command) = &entry.kind {
            self.bytes.extend_from_slice(command.as_bytes());
        }
    }
}

impl Node {
    /// Returns the core, which must be up.
    pub(super) fn raft(&self) -> &Raft {
        let Some(raft) = &self.raft else { panic!("the node is down") };
        raft
    }
}

impl Cluster {
    /// Starts `count` nodes n1, n2, … with empty disks.
    pub(super) fn new(count: u64, seed: u64, configure: fn(&mut Config, u64)) -> Self {
        let node = || Node {
            raft: None,
            disk: Disk::default(),
            machine: Machine::default(),
            persists: VecDeque::new(),
            applies: VecDeque::new(),
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            received: Vec::new(),
            starts: 0,
        };
        let mut cluster = Self {
            nodes: (1..=count).map(|id| (NodeId(id), node())).collect(),
            network: VecDeque::new(),
            copies: Vec::new(),
            now: Instant::from_nanos(0),
            oracle: Oracle::default(),
            slow_disks: BTreeSet::new(),
            trace: None,
            configure,
            tokens: 0,
            seed,
        };
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster
    }

    /// Returns every node.
    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Returns a node.
    pub(super) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    /// Tells whether a node is up.
    pub(super) fn is_up(&self, id: NodeId) -> bool {
        self.node(id).raft.is_some()
    }

    /// Returns the leader of the newest term, if there is one.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let cores = self.nodes.values().filter_map(|node| node.raft.as_ref());
        cores
            .filter(|raft| raft.role() == Role::Leader)
            .max_by_key(|raft| raft.term())
            .map(Raft::id)
    }

    /// Starts a node that is down with what its disk holds.
    pub(super) fn start(&mut self, id: NodeId) {
        if self.is_up(id) {
            return;
        }
        let mut config = Config::new(id, self.ids());
        let (now, seed) = (self.now, self.seed);
        (self.configure)(&mut config, seed);
        config.check_invariants = true;
        let node = self.node_mut(id);
        node.starts += 1;
        let rng = Rng::new(seed).split(&format!("{id} start {}", node.starts));
        let machine =
            Machine { applied: node.disk.snapshot, bytes: node.disk.snapshot_bytes.clone() };
        node.machine = machine;
        let recovered = node.disk.recovered();
        node.raft = Some(Raft::new(config, recovered, rng, now));
        self.oracle.started(id);
        self.pump(id);
    }

    /// Stops a node. Of its disk requests the first `written` became durable all the same.
    pub(super) fn crash(&mut self, id: NodeId, written: usize) {
        let node = self.node_mut(id);
        node.raft = None;
        for persist in node.persists.drain(..).take(written) {
            node.disk.persist(&persist);
        }
        node.applies.clear();
        node.reads.clear();
        node.writes.clear();
        node.received.clear();
        self.oracle.crashed(id);
        self.note(format!("{id} ✗ crashes"));
    }

    /// Stops a node, and damages the last `count` entries on its disk: when it starts it finds
    /// out that something is missing, and up to where.
    pub(super) fn damage(&mut self, id: NodeId, count: u64) {
        self.crash(id, 0);
        let disk = &mut self.node_mut(id).disk;
        let recovered = disk.recovered();
        let Some(last) = recovered.entries.last() else { return };
        let last = SnapshotMeta { index: last.index, term: last.term };
        let known = disk.damaged_last.unwrap_or_default();
        let newer = (last.term, last.index) > (known.term, known.index);
        disk.damaged_last = Some(if newer { last } else { known });
        let kept = last.index.saturating_sub(count).max(disk.snapshot.index);
        disk.lose_after(kept);
    }

    /// Stops a node, and exchanges its disk for an empty one.
    pub(super) fn exchange(&mut self, id: NodeId) {
        self.crash(id, 0);
        self.node_mut(id).disk = Disk { standing: Standing::New, ..Disk::default() };
    }

    /// Stops a node, and has its disk forget all records of terms, votes and standing: what is left
    /// is what its log tells.
    pub(super) fn lose_vote(&mut self, id: NodeId) {
        self.crash(id, 0);
        let disk = &mut self.node_mut(id).disk;
        let recovered = disk.recovered();
        let last = recovered.last();
        disk.hard_state = HardState { term: last.term, vote: None };
        let has_past = last.index > 0;
        disk.standing = if has_past { Standing::Unsure } else { Standing::New };
    }

    /// Gives a node an input and carries out what it wants, as far as that is just queueing.
    pub(super) fn step(&mut self, id: NodeId, input: Input) {
        let now = self.now;
        let Some(raft) = &mut self.node_mut(id).raft else { return };
        let before = (raft.role(), raft.term());
        raft.step(now, input);
        self.stepped(id, before);
    }

    /// Lets a node see the time.
    pub(super) fn tick(&mut self, id: NodeId) {
        let now = self.now;
        let Some(raft) = &mut self.node_mut(id).raft else { return };
        let before = (raft.role(), raft.term());
        raft.tick(now);
        self.stepped(id, before);
    }

    fn stepped(&mut self, id: NodeId, before: (Role, Term)) {
        let raft = self.node(id).raft();
        let (role, term, leader) = (raft.role(), raft.term(), raft.leader());
        if (role, term) != before {
            let leader = leader.map_or(String::new(), |leader| format!(" of {leader}"));
            let leader = if role == Role::Follower { leader } else { String::new() };
            self.note(format!("{id}@{term} ⇨ {role}{leader}"));
        }
        self.pump(id);
    }

    fn pump(&mut self, id: NodeId) {
        let Some(raft) = &mut self.node_mut(id).raft else { return };
        let Ready { persist, send, apply, replies, snapshot_reads, snapshot_writes } =
            raft.take_ready();
        self.oracle.looked_at(&self.nodes, id);
        for (to, message) in send {
            Oracle::check_sent(&self.nodes, id, to, &message);
            self.network.push_back(Envelope { from: id, to, message });
        }
        for (token, reply) in replies {
            self.note(format!("{id} answers #{token} {reply:?}"));
            let applied = self.node(id).machine.applied.index;
            self.oracle.answered(token, reply, applied);
        }
        let node = self.node_mut(id);
        node.persists.extend(persist);
        node.applies.extend(apply);
        node.reads.extend(snapshot_reads);
        node.writes.extend(snapshot_writes);
    }

    /// Proposes a fresh command at a node.
    pub(super) fn propose(&mut self, id: NodeId) {
        self.propose_many(id, 1);
    }

    /// Proposes fresh commands at a node, all of them before it says what to do.
    pub(super) fn propose_many(&mut self, id: NodeId, count: usize) {
        for _ in 0..count {
            self.tokens += 1;
            let (now, token) = (self.now, self.tokens);
            let Ok(command) = Payload::new(token.to_le_bytes().to_vec()) else { return };
            let Some(raft) = &mut self.node_mut(id).raft else { return };
            raft.step(now, Input::Propose { token, command });
            self.oracle.proposed(id, token);
        }
        self.pump(id);
    }

    /// Asks a node for a read.
    pub(super) fn read(&mut self, id: NodeId) {
        self.tokens += 1;
        let token = self.tokens;
        if self.is_up(id) {
            self.oracle.asked(id, token);
            self.step(id, Input::Read { token });
        }
    }

    /// Makes a node's oldest disk requests durable and reports them together.
    pub(super) fn persist(&mut self, id: NodeId, count: usize) {
        let node = self.node_mut(id);
        let mut through: Option<PersistId> = None;
        let mut lines = Vec::new();
        for _ in 0..count.min(node.persists.len()) {
            let Some(persist) = node.persists.pop_front() else { break };
            node.disk.persist(&persist);
            lines.push(format!("{id} ✓ {}", describe(&persist)));
            through = Some(persist.id);
        }
        for line in lines {
            self.note(line);
        }
        if let Some(through) = through {
            self.step(id, Input::Persisted { through });
        }
    }

    /// Applies a node's committed entries and reports them together.
    pub(super) fn apply(&mut self, id: NodeId, count: usize) {
        for _ in 0..count {
            let node = self.node_mut(id);
            let Some(Committed { entry, token }) = node.applies.pop_front() else { break };
            node.machine.apply(&entry);
            self.oracle.applied(&entry, token);
            let token = token.map_or(String::new(), |token| format!(" for #{token}"));
            self.note(format!("{id} applies {entry}{token}"));
        }
        let through = self.node(id).machine.applied.index;
        if self.node(id).raft.as_ref().is_some_and(|raft| raft.applied_index() < through) {
            self.step(id, Input::Applied { through });
        }
    }

    /// Takes a snapshot of a node's state machine.
    pub(super) fn snapshot(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let meta = node.machine.applied;
        if node.raft.is_none() || meta.index <= node.disk.snapshot.index {
            return;
        }
        node.disk.snapshot = meta;
        node.disk.snapshot_bytes = node.machine.bytes.clone();
        self.note(format!("{id} ✓ snapshot {meta}"));
        self.step(id, Input::SnapshotTaken { meta });
    }

    /// Reads or stores one piece of a snapshot; a complete one is found damaged if told so.
    pub(super) fn transfer(&mut self, id: NodeId, damaged: bool) {
        let node = self.node_mut(id);
        if let Some(read) = node.reads.pop_front() {
            let input = node.disk.read_snapshot(&read);
            self.step(id, input);
            return;
        }
        let Some(write) = node.writes.pop_front() else { return };
        self.store(id, write, damaged);
    }

    fn store(&mut self, id: NodeId, write: SnapshotWrite, damaged: bool) {
        let SnapshotWrite { meta, offset, data, done } = write;
        // A shell applies what it was given before it lets a snapshot replace the state.
        self.apply(id, usize::MAX);
        let node = self.node_mut(id);
        if offset == 0 {
            node.received.clear();
        }
        let stored = u64::try_from(node.received.len()).unwrap_or(u64::MAX);
        assert!(stored == offset, "{id} stores a piece at {offset} after {stored} bytes");
        node.received.extend_from_slice(data.as_bytes());
        let input = if !done {
            Input::SnapshotStored { meta, offset: offset + u64::try_from(data.len()).unwrap_or(0) }
        } else if damaged {
            node.received.clear();
            Input::SnapshotFailed { meta }
        } else {
            let bytes = std::mem::take(&mut node.received);
            node.disk.snapshot = meta;
            node.disk.snapshot_bytes.clone_from(&bytes);
            node.machine = Machine { applied: meta, bytes };
            self.note(format!("{id} ✓ installs {meta}"));
            Input::SnapshotInstalled { meta }
        };
        self.step(id, input);
    }

    /// Delivers a message that was taken from the network.
    pub(super) fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        if !self.is_up(to) {
            self.lose(&Envelope { from, to, message });
            return;
        }
        self.note(format!("{from}@{} → {to} {message}", message.term()));
        self.step(to, Input::Peer { from, message });
    }

    /// Notes that a message that was taken from the network is lost.
    pub(super) fn lose(&mut self, envelope: &Envelope) {
        let Envelope { from, to, message } = envelope;
        self.note(format!("{from}@{} ⇥ {to} {message}", message.term()));
    }

    /// Does everything that is to be done without time passing, in order, with the connections
    /// for which `cut` holds losing what they carry.
    pub(super) fn settle(&mut self, cut: impl Fn(NodeId, NodeId) -> bool) {
        const ROUNDS_MAX: usize = 10_000;
        for _ in 0..ROUNDS_MAX {
            let mut quiet = true;
            for id in self.ids() {
                let node = self.node(id);
                let persists = if self.slow_disks.contains(&id) { 0 } else { node.persists.len() };
                let transfers = node.reads.len() + node.writes.len();
                quiet &= persists + node.applies.len() + transfers == 0;
                self.persist(id, persists);
                self.apply(id, usize::MAX);
                for _ in 0..transfers {
                    self.transfer(id, false);
                }
            }
            for _ in 0..self.network.len() {
                let Some(envelope) = self.network.pop_front() else { break };
                quiet = false;
                if cut(envelope.from, envelope.to) {
                    self.lose(&envelope);
                } else {
                    self.deliver(envelope);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Delivers `count` messages in order, with everything done in between.
    pub(super) fn flow(&mut self, count: usize) {
        for _ in 0..count {
            self.work();
            let Some(envelope) = self.network.pop_front() else { break };
            self.deliver(envelope);
        }
        self.work();
    }

    /// Delivers messages in order, except those to be lost, until something has come true.
    pub(super) fn flow_until(
        &mut self,
        lost: impl Fn(&Envelope) -> bool,
        done: impl Fn(&Self) -> bool,
    ) {
        while !done(self) {
            self.work();
            let Some(envelope) = self.network.pop_front() else {
                panic!("it does not come true, and nothing is on its way")
            };
            if lost(&envelope) {
                self.lose(&envelope);
            } else {
                self.deliver(envelope);
            }
        }
    }

    /// Does what every node was asked to do by now; returns how much that was.
    fn work(&mut self) -> usize {
        let mut done = 0;
        for id in self.ids() {
            let node = self.node(id);
            let persists = if self.slow_disks.contains(&id) { 0 } else { node.persists.len() };
            let transfers = node.reads.len() + node.writes.len();
            done += persists + node.applies.len() + transfers;
            self.persist(id, persists);
            self.apply(id, usize::MAX);
            for _ in 0..transfers {
                self.transfer(id, false);
            }
        }
        done
    }

    /// Lets time pass in small steps, with everything done in between.
    pub(super) fn run(&mut self, time: Duration, cut: impl Fn(NodeId, NodeId) -> bool) {
        const STEP: Duration = Duration::from_millis(10);
        let end = self.now + time;
        while self.now < end {
            self.settle(&cut);
            self.now = self.now + STEP;
            for id in self.ids() {
                self.tick_if_due(id);
            }
        }
        self.settle(&cut);
    }

    /// Ticks a node if its deadline has passed, as a shell does.
    pub(super) fn tick_if_due(&mut self, id: NodeId) {
        if self.node(id).raft.as_ref().is_some_and(|raft| raft.deadline() <= self.now) {
            self.tick(id);
        }
    }

    /// Adds a line to the trace.
    pub(super) fn note(&mut self, line: String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }
}

impl Disk {
    fn read_snapshot(&self, read: &SnapshotRead) -> Input {
        let meta = self.snapshot;
        let offset = if read.meta == Some(meta) { read.offset } else { 0 };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.snapshot_bytes.len());
        let end = (start + read.bytes_max).min(self.snapshot_bytes.len());
        let bytes = self.snapshot_bytes.get(start..end).unwrap_or_default();
        let data = Payload::new(bytes.to_vec()).unwrap_or_default();
        let done = end == self.snapshot_bytes.len();
        Input::SnapshotData { to: read.to, meta, offset, data, done }
    }
}

fn describe(persist: &Persist) -> String {
    let mut parts = vec!["persists".to_owned()];
    if let Some(HardState { term, vote }) = persist.hard_state {
        parts.push(format!("term={term}"));
        parts.extend(vote.map(|vote| format!("vote={vote}")));
    }
    parts.extend(persist.standing.map(|standing| format!("({standing})")));
    parts.extend(persist.entries.iter().map(ToString::to_string));
    parts.join(" ")
}

/// Tells whether a reply says that its request was never done.
fn is_refusal(reply: Reply) -> bool {
    match reply {
        Reply::NotLeader { .. } | Reply::Overloaded => true,
        Reply::ReadReady | Reply::Unknown => false,
    }
}
