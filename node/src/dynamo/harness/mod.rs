//! A cluster of cores without a runtime: what the golden traces and the properties share.
//!
//! Messages wait in the network and persist requests in a queue of their node, to be done later
//! or never. A crash loses what its node had queued; only [`Disk`] survives. The [`Oracle`] looks
//! at everything that happens and panics when a promise is broken.

mod describe;
mod oracle;
mod readers;
mod store;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{
    Change, Config, Dynamo, Input, Level, Message, Persist, PersistId, Placement, Ready, Recovered,
    Reply, Token, notes,
};
use crate::base::{Core, Instant, NodeId, Payload, Rng, Stamp, Written};
use oracle::Oracle;
use readers::Readers;
pub(super) use store::Store;

/// What wall clocks show when a cluster begins, in milliseconds.
const WALL_MS: u64 = 10_000;

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
    pub(super) store: Store,
    persisted: PersistId,
    /// It lost something, and has no note of that yet.
    is_damaged: bool,
}

/// One node: its core unless it is down, its disk, and what it was asked to do.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) core: Option<Dynamo>,
    pub(super) disk: Disk,
    /// What was applied.
    pub(super) live: Store,
    pub(super) persists: VecDeque<Persist>,
    /// Milliseconds by which its wall clock is wrong.
    pub(super) skew_ms: i64,
    /// There is no space on its disk.
    pub(super) is_full: bool,
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
    pub(super) readers: Readers,
    pub(super) placement: Placement,
    /// Nodes whose disk requests wait for [`Cluster::persist`] even in [`Cluster::settle`].
    pub(super) slow_disks: BTreeSet<NodeId>,
    /// Lines about what happens, if they are wanted.
    pub(super) trace: Option<Vec<String>>,
    /// What each client session has seen.
    pub(super) seen: BTreeMap<u64, Stamp>,
    /// How far the generation of the next start goes beyond the last.
    pub(super) generation_step: u64,
    configure: fn(&mut Config, u64),
    sessions: BTreeMap<Token, u64>,
    tokens: Token,
    seed: u64,
}

/// What a test wants of a cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) nodes: u64,
    pub(super) factor: usize,
    pub(super) partitions: u16,
}

impl Node {
    /// Returns the core, which must be up.
    pub(super) fn core(&self) -> &Dynamo {
        let Some(core) = &self.core else { panic!("the node is down") };
        core
    }
}

impl Cluster {
    /// Starts nodes n1, n2, … with empty disks, which then know of each other.
    pub(super) fn new(shape: Shape, seed: u64, configure: fn(&mut Config, u64)) -> Self {
        let ids: Vec<NodeId> = (1..=shape.nodes).map(NodeId).collect();
        let mut cluster = Self {
            nodes: ids.iter().map(|&id| (id, Node::default())).collect(),
            network: VecDeque::new(),
            copies: Vec::new(),
            now: Instant::from_nanos(0),
            oracle: Oracle::default(),
            readers: Readers::default(),
            placement: Placement::new(&ids, shape.factor, shape.partitions),
            slow_disks: BTreeSet::new(),
            trace: None,
            seen: BTreeMap::new(),
            generation_step: 1,
            configure,
            sessions: BTreeMap::new(),
            tokens: 0,
            seed,
        };
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster.settle(|_, _| false);
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

    /// Returns the core of a node that is up.
    pub(super) fn core(&self, id: NodeId) -> &Dynamo {
        self.node(id).core()
    }

    /// Tells whether a node is up.
    pub(super) fn is_up(&self, id: NodeId) -> bool {
        self.node(id).core.is_some()
    }

    /// Returns how nodes are configured.
    pub(super) fn config(&self, id: NodeId) -> Config {
        let mut config = Config::new(id, self.ids(), self.placement.clone());
        (self.configure)(&mut config, self.seed);
        config.check_invariants = true;
        config
    }

    /// Starts a node that is down with what its disk holds.
    pub(super) fn start(&mut self, id: NodeId) {
        if self.is_up(id) {
            return;
        }
        let (config, now, seed) = (self.config(id), self.now, self.seed);
        let generation_step = self.generation_step;
        self.oracle.started(id);
        let node = self.node_mut(id);
        node.starts += 1;
        let rng = Rng::new(seed).split(&format!("{id} start {}", node.starts));
        node.live = node.disk.store.clone();
        let notes = node.disk.store.notes.iter();
        let recovered = Recovered {
            generation_step,
            persisted: node.disk.persisted,
            notes: notes
                .map(|(place, content)| {
                    let content = notes::recovered_content(place.as_bytes(), content.as_bytes());
                    (place.clone(), Payload::new(content.to_vec()).unwrap_or_default())
                })
                .collect(),
            is_damaged: node.disk.is_damaged,
        };
        node.core = Some(Dynamo::new(config, recovered, rng, now));
        self.pump(id);
        self.tick(id);
    }

    /// Stops a node. Of its disk requests the first `written` became durable all the same.
    pub(super) fn crash(&mut self, id: NodeId, written: usize) {
        if !self.is_up(id) {
            return;
        }
        let node = self.node_mut(id);
        node.core = None;
        let written = if node.is_full { 0 } else { written };
        for persist in std::mem::take(&mut node.persists).into_iter().take(written) {
            node.disk.persist(&persist);
        }
        self.oracle.crashed(id);
        self.readers.crashed(id);
        self.note(format!("{id} ✗ crashes"));
    }

    /// Stops a node and empties its disk.
    pub(super) fn wipe(&mut self, id: NodeId) {
        self.crash(id, 0);
        self.oracle.wiped();
        self.node_mut(id).disk = Disk { is_damaged: true, ..Disk::default() };
    }

    /// Has a node that is down find out that its disk lost something.
    pub(super) fn damage(&mut self, id: NodeId) {
        self.node_mut(id).disk.is_damaged = true;
    }

    /// Gives a node an input and carries out what it wants, as far as that is just queueing.
    pub(super) fn step(&mut self, id: NodeId, input: Input) {
        let (now, wall_ms) = (self.now, self.wall_ms(id));
        let Some(core) = &mut self.node_mut(id).core else { return };
        core.step(now, Input::Wall { ms: wall_ms });
        core.step(now, input);
        self.pump(id);
    }

    /// Lets a node see the time.
    pub(super) fn tick(&mut self, id: NodeId) {
        let (now, wall_ms) = (self.now, self.wall_ms(id));
        let Some(core) = &mut self.node_mut(id).core else { return };
        core.step(now, Input::Wall { ms: wall_ms });
        core.tick(now);
        self.pump(id);
    }

    /// Ticks a node if its deadline has passed, as a shell does.
    pub(super) fn tick_if_due(&mut self, id: NodeId) {
        if self.node(id).core.as_ref().is_some_and(|core| core.deadline() <= self.now) {
            self.tick(id);
        }
    }

    fn wall_ms(&self, id: NodeId) -> u64 {
        let now_ms = self.now.as_nanos() / 1_000_000;
        (WALL_MS + now_ms).saturating_add_signed(self.node(id).skew_ms)
    }

    /// Carries out what a node wants until it wants nothing more: applies and reads at once, and
    /// queues the rest.
    fn pump(&mut self, id: NodeId) {
        const ROUNDS_MAX: usize = 10_000;
        for _ in 0..ROUNDS_MAX {
            let now = self.now;
            let Some(core) = &mut self.node_mut(id).core else { return };
            let ready = core.take_ready();
            self.oracle.stepped(&self.nodes, &self.placement, id);
            if ready == Ready::default() {
                return;
            }
            let Ready { persist, apply, send, replies, reads } = ready;
            if let Some(persist) = persist {
                self.oracle.persists(id, &persist.records);
                self.node_mut(id).persists.push_back(persist);
            }
            let node = self.node_mut(id);
            for (_, records) in apply {
                let leaves = node.live.apply(&records);
                if let Some(core) = &mut node.core {
                    core.step(now, Input::Applied { leaves });
                }
            }
            for (to, message) in send {
                self.oracle.sent(id, &message);
                self.network.push_back(Envelope { from: id, to, message });
            }
            for (token, reply) in replies {
                self.answered(id, token, &reply);
            }
            let node = self.node_mut(id);
            for (read, wanted) in reads {
                let found = node.live.read(&wanted);
                if let Some(core) = &mut node.core {
                    core.step(now, Input::StoreRead { id: read, found });
                }
            }
        }
        panic!("{id} wants more and more");
    }

    fn answered(&mut self, id: NodeId, token: Token, reply: &Reply) {
        self.note(format!("{id} answers #{token} {}", describe::reply(reply)));
        if self.readers.answered(&self.oracle, token, reply) {
            return;
        }
        self.oracle.answered(&self.nodes, &self.placement, token, reply);
        if let (Reply::Written { stamp }, Some(asked)) = (reply, self.oracle.asked.get(&token)) {
            self.readers.acknowledged(asked.level, &asked.changes, *stamp);
        }
        if let (Reply::Written { stamp }, Some(session)) = (reply, self.sessions.get(&token)) {
            let seen = self.seen.entry(*session).or_default();
            *seen = (*seen).max(*stamp);
        }
    }

    /// Has a client of that session write; returns its token.
    pub(super) fn write(
        &mut self,
        id: NodeId,
        session: u64,
        level: Level,
        changes: Vec<(Payload, Written)>,
    ) -> Token {
        self.tokens += 1;
        let token = self.tokens;
        if !self.is_up(id) {
            return token;
        }
        let seen = self.seen.get(&session).copied().unwrap_or_default();
        self.sessions.insert(token, session);
        self.oracle.asked(token, id, level, seen, changes.clone());
        let changes =
            changes.into_iter().map(|(place, written)| Change { place, written }).collect();
        self.step(id, Input::Write { token, level, seen, changes });
        token
    }

    /// Has a client forget its request.
    pub(super) fn forget(&mut self, id: NodeId, token: Token) {
        self.oracle.forgotten(token);
        self.step(id, Input::Forget { token });
    }

    /// Has a client put a value that is never used again under each key.
    pub(super) fn put(&mut self, id: NodeId, level: Level, keys: &[&str]) -> Token {
        let value = |key: &&str| Written::Value(payload(&format!("{key}{}", self.tokens + 1)));
        let changes = keys.iter().map(|key| (self.place(key), value(key))).collect();
        self.write(id, 0, level, changes)
    }

    /// Returns the place of a key's only cell.
    pub(super) fn place(&self, key: &str) -> Payload {
        let place = self.placement.cell(key.as_bytes(), &[]);
        Payload::new(place).unwrap_or_default()
    }

    /// Makes a node's oldest disk requests durable and reports them together.
    pub(super) fn persist(&mut self, id: NodeId, count: usize) {
        let node = self.node_mut(id);
        if node.is_full {
            return;
        }
        let mut through = None;
        let mut lines = Vec::new();
        for _ in 0..count.min(node.persists.len()) {
            let Some(persist) = node.persists.pop_front() else { break };
            node.disk.persist(&persist);
            lines.extend(describe::persist(&persist).map(|line| format!("{id} ✓ {line}")));
            through = Some(persist.id);
        }
        for line in lines {
            self.note(line);
        }
        if let Some(through) = through {
            self.step(id, Input::Persisted { through });
        }
    }

    /// Fills a node's disk, or makes space on it.
    pub(super) fn fill(&mut self, id: NodeId, is_full: bool) {
        if self.node(id).is_full == is_full {
            return;
        }
        self.node_mut(id).is_full = is_full;
        let input = if is_full { Input::DiskFull } else { Input::DiskHasSpace };
        self.step(id, input);
    }

    /// Delivers a message that was taken from the network.
    pub(super) fn deliver(&mut self, envelope: Envelope) {
        if !self.is_up(envelope.to) {
            self.lose(&envelope);
            return;
        }
        let Envelope { from, to, message } = envelope;
        if let Some(described) = describe::message(&message) {
            self.note(format!("{from} → {to} {described}"));
        }
        self.step(to, Input::Peer { from, message });
    }

    /// Notes that a message that was taken from the network is lost.
    pub(super) fn lose(&mut self, envelope: &Envelope) {
        if let Some(described) = describe::message(&envelope.message) {
            self.note(format!("{} ⇥ {} {described}", envelope.from, envelope.to));
        }
    }

    /// Does everything that is to be done without time passing, in order, with the connections
    /// for which `cut` holds losing what they carry.
    pub(super) fn settle(&mut self, cut: impl Fn(NodeId, NodeId) -> bool) {
        const ROUNDS_MAX: usize = 10_000;
        for _ in 0..ROUNDS_MAX {
            let mut quiet = self.work() == 0;
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

    /// Delivers `count` messages in order, with every disk keeping up in between.
    pub(super) fn flow(&mut self, count: usize) {
        for _ in 0..count {
            self.work();
            let Some(envelope) = self.network.pop_front() else { break };
            self.deliver(envelope);
        }
        self.work();
    }

    /// Does what every disk was asked to do by now; returns how much that was.
    fn work(&mut self) -> usize {
        let mut done = 0;
        for id in self.ids() {
            let node = self.node(id);
            let is_slow = self.slow_disks.contains(&id) || node.is_full;
            let persists = if is_slow { 0 } else { node.persists.len() };
            done += persists;
            self.persist(id, persists);
        }
        done
    }

    /// Lets time pass in small steps, with everything done in between.
    pub(super) fn run(&mut self, time: Duration, cut: impl Fn(NodeId, NodeId) -> bool) {
        const STEP: Duration = Duration::from_millis(10);
        let end = self.now + time;
        while self.now < end {
            self.settle(&cut);
            self.pass(STEP);
        }
        self.settle(&cut);
    }

    /// Lets time pass in one step, of which every node takes note.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for id in self.ids() {
            self.tick_if_due(id);
        }
    }

    /// Adds a line to the trace.
    pub(super) fn note(&mut self, line: String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    /// Shows what is on a node's disk under a key.
    pub(super) fn shown(&self, id: NodeId) -> String {
        let entries = self.node(id).disk.store.entries.values().map(describe::entry);
        entries.collect::<Vec<_>>().join(" ")
    }
}

impl Disk {
    /// Tells whether a node that starts with it will not be whole.
    fn is_damaged(&self) -> bool {
        self.is_damaged || self.store.notes.contains_key(&notes::Kind::Damaged.place())
    }

    /// Makes a request durable.
    fn persist(&mut self, persist: &Persist) {
        let next = self.persisted + 1;
        assert!(persist.id >= next, "request {} is not {next} or later", persist.id);
        self.persisted = persist.id;
        // The first thing that a damaged node notes is that it is damaged.
        self.is_damaged = false;
        self.store.apply(&persist.records);
    }
}

/// Returns text as a payload.
pub(super) fn payload(text: &str) -> Payload {
    Payload::new(text.as_bytes().to_vec()).unwrap_or_default()
}
