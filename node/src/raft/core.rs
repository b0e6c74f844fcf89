//! The replica itself: its state, and the dispatch of everything that can happen to it.
//!
//! [`Raft::step`] and [`Raft::tick`] change the state and note what is owed; only
//! [`Raft::take_ready`] turns that into messages, persist requests and answers. A thousand
//! proposals between two calls cost a thousand appends to the log in memory, and then one append
//! message per follower and one persist request.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use super::durable::Durable;
use super::election::Tally;
use super::invariants::Seen;
use super::log::Log;
use super::message::{Entry, EntryKind, Message, SnapshotMeta};
use super::progress::Progress;
use super::quorum;
use super::read::Reads;
use super::ready::{Committed, HardState, Input, Persist, Ready, Recovered, Reply, Token};
use super::snapshot::Incoming;
use super::standing::{Comparison, Standing};
use crate::base::{Core, Index, Instant, NodeId, Payload, Rng, Term};
use crate::{planted, probe};

/// How one replica behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The replica's own node.
    pub id: NodeId,
    /// Every voter, itself included.
    pub voters: Vec<NodeId>,
    /// Shortest time without a leader before campaigning; each time is drawn anew between this
    /// and its double. Must exceed several heartbeats and the slowest fsync and round trip, or
    /// the cluster keeps electing; all of it is time without service after a leader's death.
    pub election_timeout: Duration,
    /// Time between two heartbeats. Also the resend interval of everything else.
    pub heartbeat_interval: Duration,
    /// A leader whose disk has not finished a request for this long steps down, so that a dead
    /// disk does not keep a cluster with other working disks from taking writes.
    pub disk_stall_max: Duration,
    /// Payload bytes of one append message; one entry is sent even if it is larger.
    pub append_bytes_max: usize,
    /// Entries of one append message.
    pub append_entries_max: usize,
    /// Unacknowledged append messages per follower. Too small: the network's delay limits
    /// throughput.
    pub inflight_count_max: usize,
    /// Unacknowledged payload bytes per follower (one message more may exceed it).
    pub inflight_bytes_max: usize,
    /// Bytes that may wait to be committed and durable here; above it proposals are answered
    /// [`Reply::Overloaded`].
    pub uncommitted_bytes_max: usize,
    /// Reads that may wait; above it they are answered [`Reply::Overloaded`]. They wait until they
    /// are served, although their clients may have given up long before. Too small: reads are
    /// refused that would have been served. Too large: memory, where none is served for days.
    pub reads_max: usize,
    /// Bytes of one piece of a snapshot.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of entries that are committed while a received snapshot is installed, from which on no
    /// more are acknowledged. Too small: the leader waits for a follower that it may need. Too
    /// large: memory.
    pub held_bytes_max: usize,
    /// Entries kept behind a snapshot, so that followers a little behind need no snapshot.
    pub log_entries_kept: u64,
    /// Bytes of entries kept there, at most: see [`Entry::weight`](super::Entry::weight). Too
    /// small: followers that were away for a moment need a snapshot; too large: memory.
    pub log_bytes_kept: usize,
    /// The shell reports entries as durable before they are synced. A power loss of several nodes
    /// may then take what is committed, see [`Raft::contradicted_by`].
    pub may_lose_committed: bool,
    /// Check the invariants after every step even without debug assertions.
    pub check_invariants: bool,
}

impl Config {
    /// Returns the defaults for one of `voters`.
    pub fn new(id: NodeId, voters: Vec<NodeId>) -> Self {
        Self {
            id,
            voters,
            election_timeout: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(60),
            disk_stall_max: Duration::from_secs(3),
            append_bytes_max: 1 << 20,
            append_entries_max: 4096,
            inflight_count_max: 64,
            inflight_bytes_max: 16 << 20,
            uncommitted_bytes_max: 64 << 20,
            reads_max: 32_768,
            snapshot_chunk_bytes: 256 << 10,
            held_bytes_max: 64 << 20,
            log_entries_kept: 10_000,
            log_bytes_kept: 64 << 20,
            may_lose_committed: false,
            check_invariants: false,
        }
    }
}

/// What a replica is at the moment. [Raft §5.1]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Answers others; follows a leader, if there is one.
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Takes proposals and reads.
    Leader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// The role with the state that only it has.
#[derive(Debug)]
pub(super) enum RoleState {
    Follower(Follower),
    PreCandidate(Tally),
    Candidate(Tally),
    Leader(Box<Leader>),
}

/// What a follower owes its leader.
#[derive(Debug)]
pub(super) struct Follower {
    /// The log is known to equal the leader's up to here, durable or not.
    pub(super) verified: Index,
    /// Highest index acknowledged to this leader.
    pub(super) acknowledged: Index,
    /// Highest read round heard from this leader.
    pub(super) round: u64,
    /// An append has to be answered even if nothing more has become durable.
    pub(super) reply_due: bool,
    /// When the leader was last answered.
    pub(super) replied: Instant,
}

/// What only a leader has. [Raft Figure 2, "Volatile state on leaders"]
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) progress: BTreeMap<NodeId, Progress>,
    pub(super) reads: Reads,
    /// Its first entry, the no-op: committed means that the commit index is up to date.
    pub(super) term_start: Index,
    pub(super) heartbeat_deadline: Instant,
    /// Bytes of the entries after `settled`.
    pub(super) unsettled_bytes: usize,
    /// Committed and durable here up to this index.
    pub(super) settled: Index,
}

/// A proposal in the log whose client waits.
#[derive(Debug)]
pub(super) struct Proposal {
    index: Index,
    term: Term,
    token: Token,
}

/// One replica of the primary-backup protocol, as a plain value. See the [module](super).
#[derive(Debug)]
pub struct Raft {
    pub(super) config: Config,
    /// The other voters.
    pub(super) peers: Vec<NodeId>,
    pub(super) rng: Rng,
    pub(super) now: Instant,
    pub(super) hard_state: HardState,
    pub(super) log: Log,
    pub(super) durable: Durable,
    /// The newest own snapshot.
    pub(super) snapshot: SnapshotMeta,
    pub(super) damaged_last: Option<SnapshotMeta>,
    pub(super) standing: Standing,
    /// The next persist request has to hold the standing, with the hard state.
    pub(super) standing_is_due: bool,
    /// What the replica has to know before it takes part, if it does not yet.
    pub(super) comparison: Option<Comparison>,
    pub(super) commit: Index,
    pub(super) applied: Index,
    /// Next entry to hand to the state machine.
    pub(super) apply_next: Index,
    /// As a follower it acknowledges nothing after this, however much it has.
    pub(super) acknowledge_max: Option<Index>,
    /// The state machine cannot apply what there is.
    pub(super) is_stuck: bool,
    /// It has let a campaign be for that reason, since there was a leader.
    pub(super) has_yielded: bool,
    pub(super) role: RoleState,
    pub(super) leader: Option<NodeId>,
    /// The latest leader heard of, with its term: there must never be two of one term.
    pub(super) leader_seen: Option<(Term, NodeId)>,
    /// When the leader was last heard from; meaningful while there is one.
    pub(super) leader_contact: Instant,
    pub(super) election_deadline: Instant,
    pub(super) proposals: VecDeque<Proposal>,
    pub(super) incoming: Option<Incoming>,
    /// What has to leave with the next ready value.
    pub(super) out: Ready,
    pub(super) seen: Seen,
}

impl Raft {
    /// Starts a replica with what it found on its disk; it begins as a follower.
    pub fn new(config: Config, recovered: Recovered, rng: Rng, now: Instant) -> Self {
        assert!(
            config.voters.contains(&config.id),
            "{} is none of the voters {:?}",
            config.id,
            config.voters
        );
        assert!(
            config.heartbeat_interval < config.election_timeout && config.inflight_count_max > 0,
            "a configuration that cannot work: {config:?}"
        );
        let found = recovered.hard_state;
        let Recovered { mut hard_state, snapshot, entries, damaged_last, standing } = recovered;
        let log = recovered_log(snapshot, entries);
        if log.last_term() > hard_state.term {
            // A disk that kept entries and lost their term: no vote was given in that one.
            hard_state = HardState { term: log.last_term(), vote: None };
        }
        if planted!("R2") {
            hard_state.vote = None;
        }
        let mut peers = config.voters.clone();
        peers.retain(|&voter| voter != config.id);
        peers.sort_unstable();
        peers.dedup();
        let has_begun = hard_state != HardState::default() || log.last_index() > 0;
        let standing = known_standing(standing, (has_begun, peers.is_empty()), damaged_last);
        let asks = matches!(standing, Standing::New | Standing::Founding | Standing::Unsure);
        let nonce = rng.split("comparison").next_u64();
        let mut raft = Self {
            config,
            peers,
            rng,
            now,
            hard_state,
            durable: Durable::new(log.last_index()),
            log,
            snapshot,
            damaged_last,
            standing,
            standing_is_due: false,
            comparison: asks.then(|| Comparison::new(nonce, now)),
            commit: snapshot.index,
            applied: snapshot.index,
            apply_next: snapshot.index + 1,
            acknowledge_max: None,
            is_stuck: false,
            has_yielded: false,
            role: RoleState::Follower(Follower::new(snapshot.index, now)),
            leader: None,
            leader_seen: None,
            leader_contact: now,
            election_deadline: now,
            proposals: VecDeque::new(),
            incoming: None,
            out: Ready::default(),
            seen: Seen::default(),
        };
        if raft.term() != found.term {
            raft.durable.hard_state_changed();
        }
        raft.become_follower(raft.hard_state.term);
        raft.reset_election_timer();
        if raft.peers.is_empty() {
            raft.election_deadline = now;
        }
        raft.check_recovery();
        raft
    }

    /// Returns the node's id.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Returns how the replica was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the latest term the node has seen.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Returns what the node is at the moment.
    pub fn role(&self) -> Role {
        match &self.role {
            RoleState::Follower(_) => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// Returns the leader of the term, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Returns term and vote, durable or not.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Returns the last entry known to be committed.
    pub fn commit_index(&self) -> Index {
        self.commit
    }

    /// Returns the last entry that the state machine has reported as applied.
    pub fn applied_index(&self) -> Index {
        self.applied
    }

    /// Returns the index of the last entry of the log.
    pub fn last_index(&self) -> Index {
        self.log.last_index()
    }

    /// Returns the term of the last entry of the log.
    pub fn last_term(&self) -> Term {
        self.log.last_term()
    }

    /// Returns up to where the log is durable here.
    pub fn durable_index(&self) -> Index {
        self.durable.index()
    }

    /// Returns the newest own snapshot.
    pub fn snapshot(&self) -> SnapshotMeta {
        self.snapshot
    }

    /// Returns the log as far as it is not compacted.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Returns the followers as seen by this node, if it is the leader; else nothing.
    pub fn progress(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        let leader = match &self.role {
            RoleState::Leader(leader) => Some(leader),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        };
        leader.into_iter().flat_map(|leader| leader.progress.iter().map(|(&id, p)| (id, p)))
    }

    /// Tells whether the node still lacks entries that its disk lost.
    pub fn is_recovering(&self) -> bool {
        self.damaged_last.is_some()
    }

    /// Tells whether the state machine is [stuck](Input::Stuck), as it was last said.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    pub(super) fn quorum(&self) -> usize {
        quorum::majority(self.peers.len() + 1)
    }

    /// Sends a message that tells of this node's term, as soon as that term is durable.
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let sent = self.durable.hold(to, message);
        self.out.send.extend(sent);
    }

    fn on_peer(&mut self, from: NodeId, message: Message) {
        let is_sane = self.peers.contains(&from) && message.is_well_formed();
        if !is_sane {
            return;
        }
        if let Message::Compare { .. } | Message::Standing { .. } = message {
            self.on_past(from, &message);
        } else if self.admits_term(from, &message) {
            self.on_protocol(from, message);
        }
    }

    /// Does what a message of this term asks for.
    fn on_protocol(&mut self, from: NodeId, message: Message) {
        match message {
            Message::PreVote { term, last_index, last_term } => {
                self.on_pre_vote(from, term, SnapshotMeta { index: last_index, term: last_term });
            }
            Message::PreVoteReply { term, granted } => self.on_pre_vote_reply(from, term, granted),
            Message::Vote { last_index, last_term, .. } => {
                self.on_vote(from, SnapshotMeta { index: last_index, term: last_term });
            }
            Message::VoteReply { granted, .. } => self.on_vote_reply(from, granted),
            Message::Append { prev_index, prev_term, entries, commit, round, .. } => {
                self.follow(from);
                let prev = SnapshotMeta { index: prev_index, term: prev_term };
                self.on_append(from, prev, entries, commit, round);
            }
            Message::AppendReply { round, outcome, .. } => {
                self.on_append_reply(from, round, outcome);
            }
            Message::SnapshotChunk { meta, offset, data, done, .. } => {
                self.follow(from);
                self.on_snapshot_chunk(from, meta, offset, data, done);
            }
            Message::SnapshotReply { meta, outcome, .. } => {
                self.on_snapshot_reply(from, meta, outcome);
            }
            Message::Forgotten { last, .. } => {
                self.follow(from);
                self.on_forgotten(last);
            }
            Message::Compare { .. } | Message::Standing { .. } => {}
        }
    }

    fn on_propose(&mut self, token: Token, command: Payload) {
        let term = self.term();
        let uncommitted_bytes_max = self.config.uncommitted_bytes_max;
        let RoleState::Leader(leader) = &mut self.role else {
            self.out.replies.push((token, Reply::NotLeader { leader: self.leader }));
            return;
        };
        let entry =
            Entry { term, index: self.log.last_index() + 1, kind: EntryKind::Command(command) };
        let bytes = entry.weight();
        if leader.unsettled_bytes + bytes > uncommitted_bytes_max && leader.unsettled_bytes > 0 {
            probe!("raft.overloaded");
            self.out.replies.push((token, Reply::Overloaded));
            return;
        }
        leader.unsettled_bytes += bytes;
        self.proposals.push_back(Proposal { index: entry.index, term, token });
        self.log.append(entry);
    }

    fn on_read(&mut self, token: Token) {
        let commit = self.commit;
        match &mut self.role {
            RoleState::Leader(leader) if leader.reads.count() >= self.config.reads_max => {
                probe!("raft.too_many_reads_wait");
                self.out.replies.push((token, Reply::Overloaded));
            }
            RoleState::Leader(leader) => {
                leader.reads.add(token);
                if planted!("R32") {
                    leader.reads.start(commit);
                    leader.reads.confirm();
                }
            }
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.out.replies.push((token, Reply::NotLeader { leader: self.leader }));
            }
        }
    }

    fn on_applied(&mut self, through: Index) {
        assert!(through < self.apply_next, "applied {through}, handed out to {}", self.apply_next);
        self.applied = self.applied.max(through);
    }

    fn on_persisted(&mut self, through: u64) {
        if !self.durable.completed(through) {
            return;
        }
        let term = self.term();
        while let Some(message) = self.durable.release(term) {
            self.out.send.push(message);
        }
        self.check_recovery();
        self.count_own_vote();
        self.maybe_commit();
    }

    /// Ends the recovery from a damaged disk once the durable log has caught up again.
    pub(super) fn check_recovery(&mut self) {
        let Some(damaged_last) = self.damaged_last else { return };
        let durable = self.durable.index();
        let term = self.log.term_at(durable).unwrap_or(0);
        if (term, durable) >= (damaged_last.term, damaged_last.index) {
            probe!("raft.recovers_from_damage");
            self.damaged_last = None;
            self.note_filled();
        }
    }

    /// Ends a leadership: nobody may wait for an answer that this node can no longer give.
    pub(super) fn resign(&mut self) {
        let reads = match &mut self.role {
            RoleState::Leader(leader) => leader.reads.take(),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => return,
        };
        let not_leader = Reply::NotLeader { leader: None };
        self.out.replies.extend(reads.into_iter().map(|token| (token, not_leader)));
        if planted!("R44") {
            return;
        }
        let reply = if planted!("R46") { not_leader } else { Reply::Unknown };
        self.out.replies.extend(self.proposals.drain(..).map(|proposal| (proposal.token, reply)));
    }

    /// Returns the committed entries that the state machine has not been given yet.
    fn take_committed(&mut self) -> Vec<Committed> {
        // Between the last piece of a received snapshot and its installation the state machine
        // belongs to the snapshot.
        if self.apply_next > self.commit || self.incoming.as_ref().is_some_and(|i| i.installing) {
            return Vec::new();
        }
        let mut committed = Vec::new();
        for entry in self.log.entries_from(self.apply_next) {
            if entry.index > self.commit {
                break;
            }
            while self.proposals.pop_front_if(|waiting| waiting.index < entry.index).is_some() {}
            let token = self
                .proposals
                .pop_front_if(|waiting| {
                    waiting.index == entry.index && (waiting.term == entry.term || planted!("R44"))
                })
                .map(|waiting| waiting.token);
            committed.push(Committed { entry: entry.clone(), token });
        }
        assert!(
            committed.first().is_some_and(|first| first.entry.index == self.apply_next),
            "entry {} is committed and not in the log after {:?}",
            self.apply_next,
            self.log.base()
        );
        self.apply_next = self.commit + 1;
        committed
    }

    fn take_persist(&mut self) -> Option<Persist> {
        let (first, last) = (self.durable.entries_next(), self.log.last_index());
        let hard_state = self.durable.hard_state_is_due().then_some(self.hard_state);
        if hard_state.is_none() && first > last {
            return None;
        }
        let entries =
            if first > last { Vec::new() } else { self.log.entries_from(first).cloned().collect() };
        let is_news = std::mem::take(&mut self.standing_is_due) || self.standing != Standing::Whole;
        let standing = hard_state.filter(|_| is_news).map(|_| self.standing);
        let id = self.durable.issue(last, self.now);
        Some(Persist { id, hard_state, standing, entries })
    }
}

impl Core for Raft {
    type Input = Input;
    type Ready = Ready;

    fn step(&mut self, now: Instant, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Peer { from, message } => self.on_peer(from, message),
            Input::PeerLost { peer } => self.on_peer_lost(peer),
            Input::Propose { token, command } => self.on_propose(token, command),
            Input::Read { token } => self.on_read(token),
            Input::Persisted { through } => self.on_persisted(through),
            Input::Applied { through } => self.on_applied(through),
            Input::Behind { acknowledge_max } => self.acknowledge_max = acknowledge_max,
            Input::Stuck { is_stuck } => self.is_stuck = is_stuck,
            Input::SnapshotTaken { meta } => self.on_snapshot_taken(meta),
            Input::SnapshotData { to, meta, offset, data, done } => {
                self.on_snapshot_data(to, meta, offset, data, done);
            }
            Input::SnapshotStored { meta, offset } => self.on_snapshot_stored(meta, offset),
            Input::SnapshotInstalled { meta } => self.on_snapshot_installed(meta),
            Input::SnapshotFailed { meta } => self.on_snapshot_failed(meta),
        }
        self.check_after_step();
    }

    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        match &self.role {
            _ if self.is_comparing() => self.tick_comparison(),
            RoleState::Leader(_) => self.tick_leader(),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.tick_election();
            }
        }
        self.check_after_step();
    }

    fn take_ready(&mut self) -> Ready {
        self.start_reads();
        self.send_appends();
        self.send_acknowledgement();
        self.serve_reads();
        let mut ready = std::mem::take(&mut self.out);
        ready.apply = self.take_committed();
        ready.persist = self.take_persist();
        self.check_after_step();
        ready
    }

    fn deadline(&self) -> Instant {
        if let Some(comparison) = &self.comparison {
            return comparison.resend_deadline;
        }
        match &self.role {
            RoleState::Follower(_) => self.election_deadline,
            RoleState::PreCandidate(tally) | RoleState::Candidate(tally) => {
                self.election_deadline.min(tally.resend_deadline)
            }
            RoleState::Leader(leader) => leader.heartbeat_deadline,
        }
    }
}

impl Follower {
    /// Starts to follow a leader that has everything up to `verified`, which is no news to it.
    pub(super) fn new(verified: Index, now: Instant) -> Self {
        Self { verified, acknowledged: verified, round: 0, reply_due: false, replied: now }
    }
}

/// Returns what the replica has to think of its own past. Whoever has a term or an entry has taken
/// part, so its founding is over, as it is for one who is alone and has nobody to ask.
fn known_standing(
    found: Standing,
    (has_begun, is_alone): (bool, bool),
    lost: Option<SnapshotMeta>,
) -> Standing {
    match found {
        Standing::New | Standing::Founding if has_begun || is_alone || planted!("R52") => {
            Standing::Whole
        }
        Standing::Filling(_) if lost.is_none() => Standing::Whole,
        Standing::Unsure if is_alone || planted!("R55") => Standing::Whole,
        Standing::New
        | Standing::Founding
        | Standing::Whole
        | Standing::Filling(_)
        | Standing::Unsure => found,
    }
}

/// Builds the log from what the disk holds.
///
/// After a received snapshot replaced a conflicting log, old entries may still follow it on the
/// disk. They can be told: theirs is an older term than the snapshot's. Keeping them would make
/// the log look older than it is, and votes would be given to candidates that lack the snapshot.
fn recovered_log(snapshot: SnapshotMeta, entries: Vec<Entry>) -> Log {
    let mut log = Log::new(snapshot);
    for entry in entries {
        if entry.index <= snapshot.index {
            continue;
        }
        if entry.term < snapshot.term {
            probe!("raft.recovers_without_stale_suffix");
            break;
        }
        log.append(entry);
    }
    log
}
