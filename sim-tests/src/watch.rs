//! Watches every step of every node and tells the checkers.
//!
//! A [`NodeWatch`] is the observer of one process; all of them report to the one [`Watch`] of the
//! run, which knows what a person in no place of the cluster could know: what all nodes do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mangrove::base::{Index, Instant, NodeId, Term};
use mangrove::raft::{Input, Message, Raft, Ready, Recovered, Role};
use mangrove::replica::Observer;

use crate::check::Violation;
use crate::world::{Host, World};

/// See the [module](self).
pub struct Watch {
    world: World,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, NodeState>,
    violation: Option<Violation>,
    elections: u64,
}

/// What is known of one node.
#[derive(Debug, Clone, Default)]
struct NodeState {
    role: Option<Role>,
    term: Term,
    applied: Index,
    commit: Index,
    damaged: bool,
}

impl Watch {
    /// Starts to watch a cluster.
    pub fn new(world: &World, node_count: u64) -> Arc<Self> {
        let nodes = (1..=node_count).map(|node| (NodeId(node), NodeState::default())).collect();
        let state = State { nodes, ..State::default() };
        Arc::new(Self { world: world.clone(), state: Mutex::new(state) })
    }

    /// Returns the first violation that was found.
    pub fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    /// Returns the leader of the highest term that has one.
    pub fn leader(&self) -> Option<NodeId> {
        let state = self.lock();
        let leaders = state.nodes.iter().filter(|(_, node)| node.role == Some(Role::Leader));
        leaders.max_by_key(|(_, node)| node.term).map(|(id, _)| *id)
    }

    /// Returns how many leaders were elected.
    pub fn election_count(&self) -> u64 {
        self.lock().elections
    }

    /// Returns the applied index of every node.
    pub fn applied(&self) -> BTreeMap<NodeId, Index> {
        self.lock().nodes.iter().map(|(id, node)| (*id, node.applied)).collect()
    }

    /// Returns the highest commit index of all nodes.
    pub fn commit_max(&self) -> Index {
        self.lock().nodes.values().map(|node| node.commit).max().unwrap_or(0)
    }

    /// Tells whether a node's disk was damaged and the node has not caught up since.
    pub fn is_damaged(&self, node: NodeId) -> bool {
        self.lock().nodes.get(&node).is_some_and(|state| state.damaged)
    }

    /// Notes that a node's disk was damaged.
    pub fn set_damaged(&self, node: NodeId) {
        if let Some(state) = self.lock().nodes.get_mut(&node) {
            state.damaged = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The observer of one process.
pub struct NodeWatch {
    watch: Arc<Watch>,
    node: NodeId,
    host: Host,
}

impl NodeWatch {
    /// Watches a process of `node`.
    pub fn new(watch: &Arc<Watch>, node: NodeId, host: Host) -> Self {
        Self { watch: Arc::clone(watch), node, host }
    }
}

impl Observer for NodeWatch {
    fn on_start(&mut self, _now: Instant, recovered: &Recovered, applied: Index) {
        let last = recovered.entries.last().map_or(recovered.snapshot.index, |entry| entry.index);
        self.watch.world.trace(Some(self.host), "recovered", (last, applied), || {
            format!("term {} last {last} applied {applied}", recovered.hard_state.term)
        });
        let mut state = self.watch.lock();
        let damaged = state.nodes.get(&self.node).is_some_and(|node| node.damaged);
        let known = NodeState { applied, damaged, ..NodeState::default() };
        state.nodes.insert(self.node, known);
    }

    fn on_input(&mut self, _now: Instant, _core: &Raft, input: &Input) {
        if let Input::Peer { from, message } = input {
            self.watch.world.trace(Some(self.host), "recv", (from.0, kind_of(message)), || {
                format!("from {from} {message:?}")
            });
        }
    }

    fn on_ready(&mut self, _now: Instant, core: &Raft, _ready: &Ready) {
        let (role, term) = (core.role(), core.term());
        let mut state = self.watch.lock();
        let Some(node) = state.nodes.get_mut(&self.node) else { return };
        let changed = node.role != Some(role) || node.term != term;
        node.role = Some(role);
        node.term = term;
        node.commit = core.commit_index();
        if !core.is_recovering() && node.commit > 0 && role != Role::Leader {
            node.damaged = false;
        }
        if changed {
            if role == Role::Leader {
                state.elections += 1;
            }
            drop(state);
            self.watch.world.trace(Some(self.host), "role", (term, 0), || {
                format!("{role} in term {term}")
            });
        }
    }

    fn on_applied(&mut self, _now: Instant, index: Index, term: Term, hash: u64) {
        self.watch.world.trace(Some(self.host), "applied", (index, hash), || {
            format!("{index}@{term} hash {hash:016x}")
        });
        if let Some(node) = self.watch.lock().nodes.get_mut(&self.node) {
            node.applied = index;
        }
    }

    fn on_installed(&mut self, _now: Instant, index: Index, term: Term) {
        self.watch.world.trace(Some(self.host), "installed", (index, term), || {
            format!("snapshot {index}@{term}")
        });
        if let Some(node) = self.watch.lock().nodes.get_mut(&self.node) {
            node.applied = index;
        }
    }
}

/// Returns a number for the kind of a message, for the hash of the trace.
fn kind_of(message: &Message) -> u64 {
    match message {
        Message::PreVote { .. } => 1,
        Message::PreVoteReply { .. } => 2,
        Message::Vote { .. } => 3,
        Message::VoteReply { .. } => 4,
        Message::Append { .. } => 5,
        Message::AppendReply { .. } => 6,
        Message::SnapshotChunk { .. } => 7,
        Message::SnapshotReply { .. } => 8,
    }
}
