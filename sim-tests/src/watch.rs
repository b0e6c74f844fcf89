//! Watches every step of every node and tells the checkers.
//!
//! A [`NodeWatch`] is the observer of one process; all of them report to the one [`Watch`] of the
//! run, which knows what a person in no place of the cluster could know: what all nodes do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mangrove::base::checksum::crc32;
use mangrove::base::{Index, Instant, NodeId, Term};
use mangrove::codec;
use mangrove::dynamo::{self, Dynamo, PersistId, Record};
use mangrove::env::DiskErrorKind;
use mangrove::kv::{Command, CommandReply};
use mangrove::raft::{
    self, AppendOutcome, Entry, EntryKind, Input, Message, Raft, Ready, Recovered, Role,
    SnapshotMeta, SnapshotOutcome, Standing,
};
use mangrove::replica::{Observer, StartError, StopReason};
use mangrove::storage::StorageError;

use tokio::sync::Notify;

use crate::check::Violation;
use crate::check::exactly_once::Effects;
use crate::check::invariants::{Invariants, Observation, Restart};
use crate::check::mirror::{Log, Stamp};
use crate::check::own_disk::DiskNews;
use crate::options::Options;
use crate::world::{EPOCH_MS, Happening, Host, World};

/// Roles by the number that stands for them in a [log](crate::world::Log).
pub const ROLES: [&str; 4] = ["follower", "pre-candidate", "candidate", "leader"];

/// See the [module](self).
pub struct Watch {
    world: World,
    /// Whether nodes sync before they acknowledge.
    syncs_first: bool,
    state: Mutex<State>,
    /// Told when somebody comes to lead, and when a leader learns of a commit.
    leads: Notify,
}

struct State {
    nodes: BTreeMap<NodeId, NodeState>,
    invariants: Invariants,
    effects: Effects,
    elections: u64,
    reign: Option<Reign>,
}

/// A leader that is one: a majority has taken something from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// Who.
    pub leader: NodeId,
    /// In which term.
    pub term: Term,
    /// Since when it knew that an entry of its own term is committed.
    pub since: Duration,
}

/// What is known of one node.
#[derive(Debug, Clone, Default)]
struct NodeState {
    role: Option<Role>,
    term: Term,
    applied: Index,
    commit: Index,
    damaged: bool,
    /// The others have told the node what it has forgotten, and its disk says so.
    knows_lack: bool,
    /// It has been whole, with the disk that it has; masterless mode.
    was_whole: bool,
    /// Hints that the node has dropped in this life, as it says; masterless mode.
    hints_dropped: u64,
    /// How often its disk had refused something before this life.
    refused: u64,
}

impl Watch {
    /// Starts to watch a cluster.
    pub fn new(world: &World, options: &Options) -> Arc<Self> {
        let nodes = (1..=options.node_count).map(|node| (NodeId(node), NodeState::default()));
        let invariants = Invariants::default();
        let (nodes, effects) = (nodes.collect(), Effects::default());
        let state = State { nodes, invariants, effects, elections: 0, reign: None };
        Arc::new(Self {
            world: world.clone(),
            syncs_first: !options.relaxed_sync,
            state: Mutex::new(state),
            leads: Notify::new(),
        })
    }

    /// Returns the first violation that was found.
    pub fn violation(&self) -> Option<Violation> {
        self.lock().invariants.first().cloned()
    }

    /// Returns the leader of the highest term that has one.
    pub fn leader(&self) -> Option<NodeId> {
        let state = self.lock();
        let leaders = state.nodes.iter().filter(|(_, node)| node.role == Some(Role::Leader));
        leaders.max_by_key(|(_, node)| node.term).map(|(id, _)| *id)
    }

    /// Returns who leads among these nodes, if it does so in a term that none of them has left.
    pub fn leader_among(&self, nodes: &BTreeSet<u64>) -> Option<NodeId> {
        let state = self.lock();
        let among = state.nodes.iter().filter(|(id, _)| nodes.contains(&id.0));
        let is_leader = |node: &NodeState| node.role == Some(Role::Leader);
        let (id, latest) = among.max_by_key(|(_, node)| (node.term, is_leader(node)))?;
        is_leader(latest).then_some(*id)
    }

    /// Returns the reign of the highest term; it may be over.
    pub fn reign(&self) -> Option<Reign> {
        self.lock().reign
    }

    /// Returns the term that a node was last seen in.
    pub fn term_of(&self, node: NodeId) -> Term {
        self.lock().nodes.get(&node).map_or(0, |state| state.term)
    }

    /// Waits until somebody comes to lead, or a leader learns of a commit.
    pub async fn leader_comes(&self) {
        self.leads.notified().await;
    }

    /// Returns how many leaders were elected.
    pub fn election_count(&self) -> u64 {
        self.lock().elections
    }

    /// Returns where the values of writes have taken effect so far.
    pub fn effects(&self) -> Effects {
        self.lock().effects.clone()
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

    /// Tells whether a node that has lost what it was told to be durable has heard from the others
    /// what that was, for good.
    pub fn knows_lack(&self, node: NodeId) -> bool {
        self.lock().nodes.get(&node).is_some_and(|state| state.knows_lack)
    }

    /// Tells whether a masterless node has been whole, with the disk that it has.
    pub fn was_whole(&self, node: NodeId) -> bool {
        self.lock().nodes.get(&node).is_some_and(|state| state.was_whole)
    }

    /// Returns how many hints a node says that it has dropped.
    pub fn hints_dropped(&self, node: NodeId) -> u64 {
        self.lock().nodes.get(&node).map_or(0, |state| state.hints_dropped)
    }

    /// Returns the last entry that a node knows to be committed, since its last start.
    pub fn commit_of(&self, node: NodeId) -> Index {
        self.lock().nodes.get(&node).map_or(0, |state| state.commit)
    }

    /// Notes that a node's disk was damaged.
    pub fn set_damaged(&self, node: NodeId) {
        if let Some(state) = self.lock().nodes.get_mut(&node) {
            state.damaged = true;
        }
    }

    /// Notes that a node has lost what it was told to be durable, so it cannot keep its promises.
    pub fn set_amnesic(&self, node: NodeId) {
        self.forget(node);
        self.observe(node, &Observation::LiedTo);
    }

    /// Notes that a node has got an empty disk, which it sees.
    pub fn set_exchanged(&self, node: NodeId) {
        self.forget(node);
        self.observe(node, &Observation::Wiped);
    }

    fn forget(&self, node: NodeId) {
        if let Some(state) = self.lock().nodes.get_mut(&node) {
            (state.commit, state.knows_lack, state.was_whole) = (0, false, false);
        }
    }

    /// Notes that a fault has taken or altered something on a node's disk that was durable, or was
    /// said to be; whether the log may be among it.
    pub fn note_fault(&self, node: NodeId, of_log: bool) {
        self.observe(node, &Observation::Disk(DiskNews::Fault { of_log }));
    }

    /// Judges why a node stopped by itself: there must have been a reason. Returns it in words.
    pub fn judge_stop(&self, (node, host): (NodeId, Host), reason: &StopReason) -> String {
        match reason {
            StopReason::Requested => {}
            StopReason::Condemned(error) | StopReason::Storage(error) => {
                self.judge_failure((node, host), error);
            }
        }
        reason.to_string()
    }

    /// Judges why a node did not start, in the same way.
    pub fn judge_failed_start(&self, (node, host): (NodeId, Host), error: &StartError) -> String {
        match error {
            StartError::Foreign(error)
            | StartError::NamePlate(error)
            | StartError::Storage(error) => {
                self.judge_failure((node, host), error);
            }
            StartError::Damaged { what } => {
                self.note_complaint(node, format!("it does not start: {what}"));
            }
            StartError::Listen { .. } | StartError::InUse(_) | StartError::Config(_) => {}
        }
        format!("cannot start: {error}")
    }

    /// Judges a failure of storage: something is lost, or the node's own disk has refused something
    /// since the process was started.
    fn judge_failure(&self, (node, host): (NodeId, Host), error: &StorageError) {
        let is_refusal = match error {
            StorageError::Disk(error) => match error.kind {
                // Nothing that was there is ever missing.
                DiskErrorKind::NotFound => false,
                DiskErrorKind::NoSpace
                | DiskErrorKind::Locked
                | DiskErrorKind::TooManyFiles
                | DiskErrorKind::Denied
                | DiskErrorKind::Io => true,
            },
            StorageError::Corrupt { .. } | StorageError::Format { .. } => false,
        };
        let refused = self.world.disk_refused_count(host);
        let before = self.lock().nodes.get(&node).map_or(0, |state| state.refused);
        let is_explained = is_refusal && refused > before;
        if !is_explained {
            self.note_complaint(node, format!("it stops: {error}"));
        }
    }

    /// Notes that a node says that its disk has lost something.
    fn note_complaint(&self, node: NodeId, what: String) {
        self.observe(node, &Observation::Disk(DiskNews::SaysLost { what }));
    }

    /// Compares the acknowledged writes with the disks; the `excused` ones were lied to.
    pub fn check_disks(
        &self,
        acknowledged: &[Index],
        disks: &BTreeMap<NodeId, Log>,
        excused: &BTreeSet<NodeId>,
    ) -> Option<Violation> {
        let at = self.now();
        let mut state = self.lock();
        for index in acknowledged {
            if let Err(violation) = state.invariants.observe_acknowledged(at, *index) {
                return Some(violation);
            }
        }
        state.invariants.check_disks(at, disks, excused).err()
    }

    fn observe(&self, node: NodeId, observation: &Observation) {
        let at = self.now();
        // The first violation is kept; the run asks for it.
        self.lock().invariants.observe(at, node, observation).ok();
    }

    fn now(&self) -> u64 {
        u64::try_from(self.world.now().as_nanos()).unwrap_or(u64::MAX)
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
    role: Option<Role>,
    term: Term,
    /// How it stands, as its disk says.
    standing: Standing,
    /// The request that holds what the others have told it that it lacks, if that is under way.
    told: Option<raft::PersistId>,
    /// Whether somebody keeps a log.
    is_logged: bool,
    /// What the log was told last of how the node is.
    status: Vec<(&'static str, u64)>,
}

impl NodeWatch {
    /// Watches a process of `node`.
    pub fn new(watch: &Arc<Watch>, node: NodeId, host: Host) -> Self {
        let is_logged = watch.world.is_logged();
        let refused = watch.world.disk_refused_count(host);
        if let Some(state) = watch.lock().nodes.get_mut(&node) {
            state.refused = refused;
        }
        Self {
            watch: Arc::clone(watch),
            node,
            host,
            role: None,
            term: 0,
            standing: Standing::Whole,
            told: None,
            is_logged,
            status: Vec::new(),
        }
    }

    /// Tells the log what the core sends.
    fn log_sent<M>(&self, sent: &[(NodeId, M)], text: impl Fn(&M) -> String) {
        for (to, message) in sent {
            let what = || Happening::Sent { to: to.0, message: text(message) };
            self.watch.world.note(self.host, what);
        }
    }

    /// Tells the log how the node is, if that has changed.
    fn log_status(&mut self, status: Vec<(&'static str, u64)>) {
        if self.status != status {
            self.watch.world.note(self.host, || Happening::Status(status.clone()));
            self.status = status;
        }
    }

    fn observe(&self, observation: &Observation) {
        self.watch.observe(self.node, observation);
    }

    /// Looks at the watch once for several observations.
    fn report(&self) -> Report<'_> {
        Report { at: self.watch.now(), node: self.node, state: self.watch.lock() }
    }

    /// Returns what the node lets others rely on by a message, of its log on its disk.
    fn acknowledged_in(&self, core: &Raft, message: &Message) -> Option<Observation> {
        match message {
            Message::AppendReply { outcome: AppendOutcome::Matched { index }, .. } => {
                self.acknowledged(core, *index, core.log().term_at(*index)?)
            }
            Message::SnapshotReply { meta, outcome: SnapshotOutcome::Installed, .. } => {
                self.acknowledged(core, meta.index, meta.term)
            }
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::Append { .. }
            | Message::AppendReply { outcome: AppendOutcome::Rejected { .. }, .. }
            | Message::SnapshotChunk { .. }
            | Message::SnapshotReply {
                outcome: SnapshotOutcome::Stored { .. } | SnapshotOutcome::Failed,
                ..
            }
            | Message::Compare { .. }
            | Message::Standing { .. }
            | Message::Forgotten { .. } => None,
        }
    }

    /// Returns what a leader counts itself for, as it counts a follower for what that acknowledges.
    fn counted_by(&self, core: &Raft) -> Option<Observation> {
        let index = core.durable_index();
        let term = core.log().term_at(index).filter(|_| core.role() == Role::Leader)?;
        self.acknowledged(core, index, term)
    }

    fn acknowledged(&self, core: &Raft, index: Index, term: Term) -> Option<Observation> {
        let told_in = core.term();
        let news = DiskNews::Acknowledged { index, term, told_in };
        // What is not synced yet may be lost, if that is what the nodes were told to do.
        (self.watch.syncs_first && index > 0).then_some(Observation::Disk(news))
    }

    fn with(&self, change: impl FnOnce(&mut NodeState)) {
        if let Some(node) = self.watch.lock().nodes.get_mut(&self.node) {
            change(node);
        }
    }

    fn on_role(&mut self, core: &Raft) {
        let (role, term) = (core.role(), core.term());
        if self.role == Some(role) && self.term == term {
            return;
        }
        if self.role == Some(Role::Leader) {
            self.observe(&Observation::Resigned);
        }
        if role == Role::Leader {
            self.observe(&Observation::Leader { term });
            self.watch.lock().elections += 1;
            self.watch.leads.notify_one();
        }
        (self.role, self.term) = (Some(role), term);
        self.watch
            .world
            .trace(Some(self.host), "role", (term, 0), || format!("{role} in term {term}"));
    }
}

/// Several observations of one node in one instant.
struct Report<'a> {
    at: u64,
    node: NodeId,
    state: MutexGuard<'a, State>,
}

impl Report<'_> {
    fn observe(&mut self, observation: &Observation) {
        // The first violation is kept; the run asks for it.
        self.state.invariants.observe(self.at, self.node, observation).ok();
    }
}

impl Observer for NodeWatch {
    fn on_start(&mut self, _now: Instant, recovered: &Recovered, hash: u64) {
        let log = log_of(recovered);
        let (last, applied) = (log.last_index(), recovered.snapshot.index);
        self.watch.world.trace(Some(self.host), "recovered", (last, applied), || {
            let hard_state = recovered.hard_state;
            format!(
                "{} term {} vote {:?} log {}..{last} damaged {:?}",
                recovered.standing,
                hard_state.term,
                hard_state.vote,
                log.base_index,
                recovered.damaged_last
            )
        });
        self.with(|node| {
            let NodeState { damaged, knows_lack, refused, .. } = *node;
            *node = NodeState { applied, damaged, knows_lack, refused, ..NodeState::default() };
        });
        self.standing = recovered.standing;
        if let Some(what) = lack_of(recovered) {
            self.watch.note_complaint(self.node, what);
        }
        self.observe(&Observation::Restart(Box::new(Restart {
            term: recovered.hard_state.term,
            vote: recovered.hard_state.vote,
            vote_lost: matches!(recovered.standing, Standing::Unsure | Standing::New),
            log,
            applied,
            hash: Some(hash),
        })));
    }

    fn on_input(&mut self, _now: Instant, _core: &Raft, input: &Input) {
        match input {
            Input::Peer { from, message } => {
                let numbers = (from.0, kind_of(message));
                self.watch
                    .world
                    .trace(Some(self.host), "recv", numbers, || format!("from {from} {message}"));
            }
            Input::SnapshotTaken { meta } => {
                self.observe(&Observation::Snapshot { index: meta.index, term: meta.term });
            }
            Input::Persisted { through } => {
                if self.told.take_if(|told| *told <= *through).is_some() {
                    self.with(|node| node.knows_lack = true);
                }
            }
            Input::PeerLost { .. }
            | Input::Propose { .. }
            | Input::Read { .. }
            | Input::Applied { .. }
            | Input::Behind { .. }
            | Input::Stuck { .. }
            | Input::SnapshotData { .. }
            | Input::SnapshotStored { .. }
            | Input::SnapshotInstalled { .. }
            | Input::SnapshotFailed { .. } => {}
        }
    }

    fn on_ready(&mut self, _now: Instant, core: &Raft, ready: &Ready) {
        let hard_state = core.hard_state();
        let hard_state = Observation::HardState { term: hard_state.term, vote: hard_state.vote };
        self.report().observe(&hard_state);
        self.on_role(core);
        if let Some(persist) = &ready.persist
            && let Some(filling @ Standing::Filling(_)) = persist.standing
            && filling != self.standing
        {
            (self.standing, self.told) = (filling, Some(persist.id));
        }
        let mut report = self.report();
        for entry in ready.persist.iter().flat_map(|persist| &persist.entries) {
            report.observe(&Observation::Append {
                index: entry.index,
                term: entry.term,
                crc: crc_of(entry),
            });
        }
        for (to, message) in &ready.send {
            let told = [promise_of(*to, message), self.acknowledged_in(core, message)];
            told.iter().flatten().for_each(|told| report.observe(told));
        }
        if let Some(counted) = self.counted_by(core) {
            report.observe(&counted);
        }
        for committed in &ready.apply {
            let entry = &committed.entry;
            report.observe(&Observation::Commit {
                index: entry.index,
                term: entry.term,
                crc: crc_of(entry),
            });
        }
        let (commit, applied) = (core.commit_index(), core.applied_index());
        report.observe(&Observation::Progress { commit, applied });
        let (role, term) = (core.role(), core.term());
        let is_whole =
            !core.is_recovering() && !core.is_comparing() && commit > 0 && role != Role::Leader;
        if let Some(node) = report.state.nodes.get_mut(&self.node) {
            if role == Role::Leader && commit > node.commit {
                self.watch.leads.notify_one();
            }
            node.role = Some(role);
            node.term = term;
            node.commit = commit;
            node.damaged &= !is_whole;
        }
        let is_followed = role == Role::Leader && core.log().term_at(commit) == Some(term);
        if is_followed && report.state.reign.is_none_or(|reign| reign.term < term) {
            let since = Duration::from_nanos(report.at);
            report.state.reign = Some(Reign { leader: self.node, term, since });
        }
        drop(report);
        if self.is_logged {
            self.log_sent(&ready.send, ToString::to_string);
            self.log_status(vec![
                ("role", number_of(role)),
                ("term", term),
                ("log", core.last_index()),
                ("commit", commit),
                ("applied", applied),
            ]);
        }
    }

    fn on_applied(
        &mut self,
        _now: Instant,
        entry: &Entry,
        reply: Option<&CommandReply>,
        hash: u64,
    ) {
        let Entry { index, term, .. } = *entry;
        self.watch.world.trace(Some(self.host), "applied", (index, hash), || {
            format!("{index}@{term} {reply:?}")
        });
        let effect = effect_of(entry, reply);
        let mut report = self.report();
        report.observe(&Observation::Applied { index, term, hash });
        let at = report.at;
        report.state.effects.observe(at, entry, reply);
        if let Some(effect) = effect {
            report.observe(&effect);
        }
        if let Some(node) = report.state.nodes.get_mut(&self.node) {
            node.applied = index;
        }
    }

    fn on_installed(&mut self, _now: Instant, meta: SnapshotMeta, hash: u64) {
        let SnapshotMeta { index, term } = meta;
        self.watch.world.trace(Some(self.host), "installed", (index, term), || {
            format!("snapshot {index}@{term}")
        });
        self.observe(&Observation::Installed { index, term, hash: Some(hash) });
        self.with(|node| node.applied = index);
    }

    fn on_masterless_start(&mut self, _now: Instant, recovered: &dynamo::Recovered) {
        let dynamo::Recovered { generation_step, persisted, notes, is_damaged } = recovered;
        self.watch.world.trace(
            Some(self.host),
            "recovered",
            (*persisted, *generation_step),
            || {
                let notes = notes.len();
                format!(
                    "{generation_step} on, {persisted} persisted, {notes} notes, lost {is_damaged}"
                )
            },
        );
        self.with(|node| {
            let NodeState { damaged, was_whole, refused, .. } = *node;
            *node = NodeState { damaged, was_whole, refused, ..NodeState::default() };
        });
        let (persisted, is_damaged) = (*persisted, *is_damaged);
        self.observe(&Observation::Disk(DiskNews::Started { persisted, is_damaged }));
    }

    fn on_masterless_input(&mut self, _now: Instant, _core: &Dynamo, input: &dynamo::Input) {
        if let dynamo::Input::Persisted { through } = input
            && self.watch.syncs_first
        {
            self.observe(&Observation::Disk(DiskNews::Persisted { through: *through }));
        }
        if let dynamo::Input::Peer { from, message } = input {
            let numbers = (from.0, kind_of_masterless(message));
            self.watch
                .world
                .trace(Some(self.host), "recv", numbers, || format!("from {from} {message:?}"));
        }
    }

    fn on_masterless_ready(&mut self, _now: Instant, core: &Dynamo, ready: &dynamo::Ready) {
        for (token, reply) in &ready.replies {
            self.watch
                .world
                .trace(Some(self.host), "reply", (*token, 0), || format!("{token}: {reply:?}"));
        }
        if self.is_logged {
            self.log_sent(&ready.send, |message| format!("{message:?}"));
            self.log_status(masterless_status(&core.status()));
        }
        let (is_whole, hints_dropped) = (core.is_whole(), core.hints_dropped());
        self.with(|node| {
            node.damaged &= !is_whole;
            node.was_whole |= is_whole;
            node.hints_dropped = hints_dropped;
        });
    }

    fn on_masterless_applied(&mut self, _now: Instant, id: PersistId, records: &[Record]) {
        self.watch
            .world
            .trace(Some(self.host), "applied", (id, 0), || format!("{id}: {records:?}"));
    }
}

/// Returns how a masterless node is: its clock and floor in milliseconds since the world began.
fn masterless_status(status: &dynamo::DynamoStatus) -> Vec<(&'static str, u64)> {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let hints: usize = status.hints.values().map(|(count, _)| *count).sum();
    let since = |stamp: mangrove::base::Stamp| stamp.ms().saturating_sub(EPOCH_MS);
    vec![
        ("clock ms", since(status.clock)),
        ("floor ms", since(status.floor_min)),
        ("hints", number(hints)),
        ("batches", number(status.batches)),
        ("to persist", number(status.records_waiting + status.records_in_flight)),
        ("trees to make", number(status.merkle_unknown)),
        ("comparing", status.sync_sessions),
        ("whole", u64::from(status.is_whole)),
    ]
}

fn number_of(role: Role) -> u64 {
    match role {
        Role::Follower => 0,
        Role::PreCandidate => 1,
        Role::Candidate => 2,
        Role::Leader => 3,
    }
}

/// Returns a number for the kind of a message, for the hash of the trace.
fn kind_of_masterless(message: &dynamo::Message) -> u64 {
    match message {
        dynamo::Message::Heartbeat(_) => 9,
        dynamo::Message::Write { .. } => 10,
        dynamo::Message::WriteReply { .. } => 11,
        dynamo::Message::Read { .. } => 12,
        dynamo::Message::ReadReply { .. } => 13,
        dynamo::Message::BatchStore { .. } => 14,
        dynamo::Message::BatchStored { .. } => 15,
        dynamo::Message::BatchDone { .. } => 16,
        dynamo::Message::Sync(_) => 17,
        dynamo::Message::Repair { .. } => 18,
        dynamo::Message::BatchLate { .. } => 19,
    }
}

/// Returns a recovered log as the checkers know it.
pub fn log_of(recovered: &Recovered) -> Log {
    let stamp = |entry: &Entry| Stamp { term: entry.term, crc: crc_of(entry) };
    Log {
        base_index: recovered.snapshot.index,
        base_term: recovered.snapshot.term,
        entries: recovered.entries.iter().map(stamp).collect(),
        lost_through: recovered.damaged_last.map(|last| (last.term, last.index)),
    }
}

fn crc_of(entry: &Entry) -> u32 {
    match &entry.kind {
        EntryKind::Noop => 0,
        EntryKind::Command(command) => crc32(command.as_bytes()),
    }
}

/// Returns what a node says that its disk has lost, if it says so.
fn lack_of(recovered: &Recovered) -> Option<String> {
    let (standing, damaged_last) = (recovered.standing, recovered.damaged_last);
    let is_lacking = match standing {
        Standing::Unsure | Standing::Filling(_) => true,
        // A new disk says nothing of the one before.
        Standing::Whole | Standing::New | Standing::Founding => damaged_last.is_some(),
    };
    is_lacking.then(|| {
        let lacks = damaged_last
            .map_or("nothing that it knows of".to_owned(), |last| format!("entries up to {last}"));
        format!("it starts {standing} and lacks {lacks}")
    })
}

/// Returns what a message promises that others rely on.
fn promise_of(to: NodeId, message: &Message) -> Option<Observation> {
    match message {
        Message::VoteReply { term, granted: true } => {
            Some(Observation::Promise { term: *term, vote: Some(to) })
        }
        Message::AppendReply { term, outcome: AppendOutcome::Matched { .. }, .. }
        | Message::Standing { term, .. } => Some(Observation::Promise { term: *term, vote: None }),
        Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Vote { .. }
        | Message::VoteReply { granted: false, .. }
        | Message::Append { .. }
        | Message::AppendReply { outcome: AppendOutcome::Rejected { .. }, .. }
        | Message::SnapshotChunk { .. }
        | Message::SnapshotReply { .. }
        | Message::Compare { .. }
        | Message::Forgotten { .. } => None,
    }
}

/// Returns the write of a session that took effect with this entry, if one did.
fn effect_of(entry: &Entry, reply: Option<&CommandReply>) -> Option<Observation> {
    let Some(CommandReply::Applied(version)) = reply else { return None };
    let EntryKind::Command(command) = &entry.kind else { return None };
    // A retried write is answered with the version that it got the first time.
    if version.0 != entry.index {
        return None;
    }
    match codec::decode(command.as_bytes()) {
        Ok(Command::Write { session, seq, acked_below, .. }) => {
            Some(Observation::Effect { index: entry.index, session, seq, acked_below })
        }
        _ => None,
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
        Message::Compare { .. } => 20,
        Message::Standing { .. } => 21,
        Message::Forgotten { .. } => 22,
    }
}

#[cfg(test)]
mod tests {
    use mangrove::env::{Disk as _, DiskError, Env as _};

    use super::*;
    use crate::world::{WorldOptions, run_seed};

    /// Starts two machines with a full disk each, has these refuse something, and judges a stop of
    /// the first.
    fn verdict(refusing: &'static [usize]) -> Option<&'static str> {
        let result = run_seed(1, WorldOptions::default(), move |world| async move {
            let hosts = ["n1", "n2"].map(|name| world.add_server(name));
            let watch = Watch::new(&world, &Options::draw(1));
            for host in hosts {
                world.start(host, |_| std::future::pending()).await;
                world.change_disk(host, |disk| disk.quota_bytes = Some(0));
                // What it refused to an earlier process explains nothing.
                assert!(world.env(host).unwrap().disk().create("before").await.is_err());
            }
            let first = NodeWatch::new(&watch, NodeId(1), hosts[0]);
            let mut error = DiskError {
                kind: DiskErrorKind::NoSpace,
                operation: "create",
                path: "file".to_owned(),
                message: "for no reason".to_owned(),
            };
            for at in refusing {
                let env = world.env(hosts[*at]).unwrap();
                error = env.disk().create("file").await.err().unwrap();
            }
            let reason = StopReason::Storage(StorageError::Disk(error));
            watch.judge_stop((NodeId(1), first.host), &reason);
            watch.violation().map(|violation| violation.checker)
        });
        result.unwrap_or_else(|failure| panic!("{failure}"))
    }

    #[test]
    fn node_that_stops_for_its_disk_was_refused_something_by_that_one() {
        assert_eq!(verdict(&[0]), None);
        assert_eq!(verdict(&[1, 0]), None);
        assert_eq!(verdict(&[]), Some("damage_without_cause"));
        assert_eq!(verdict(&[1]), Some("damage_without_cause"), "another disk did");
    }
}
