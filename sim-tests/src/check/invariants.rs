//! All invariant checkers of the primary-backup mode behind one door.
//!
//! The harness tells what it saw of a node, as an [`Observation`]; this value tells every checker
//! that needs to know, and keeps the first violation. An observation costs a few look-ups in maps,
//! so a run can afford to report every event.
//!
//! Order matters in one way only: of one event of a node, its hard state is to be told first, then
//! its log, then what it committed and applied. A commit is judged by the term that the node had.

use std::collections::{BTreeMap, BTreeSet};

use mangrove::base::{Index, NodeId, RequestSeq, SessionId, Term};

use super::committed_immutable::CommittedImmutable;
use super::durability::Durability;
use super::election_safety::ElectionSafety;
use super::leader_completeness::LeaderCompleteness;
use super::log_matching::LogMatching;
use super::mirror::{Log, Mirror, Stamp};
use super::own_disk::{DiskNews, OwnDisk};
use super::session_order::SessionOrder;
use super::state_machine_safety::StateMachineSafety;
use super::term_monotonic::TermMonotonic;
use super::{Violation, broken};

/// What was seen of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// It leads in its term; to be told at its election, may be told again.
    Leader {
        /// The term.
        term: Term,
    },
    /// It leads no longer.
    Resigned,
    /// Term and vote in its memory.
    HardState {
        /// The term.
        term: Term,
        /// Its vote in that term.
        vote: Option<NodeId>,
    },
    /// An answer left it that others rely on: a granted vote, an accepted append.
    Promise {
        /// The term in the answer.
        term: Term,
        /// If it is a vote: for whom.
        vote: Option<NodeId>,
    },
    /// An entry entered its log, replacing what was at its index and after it.
    Append {
        /// Where.
        index: Index,
        /// Term of the entry.
        term: Term,
        /// Checksum of what it carries.
        crc: u32,
    },
    /// Its log was cut.
    Truncate {
        /// The first index that is gone.
        from: Index,
    },
    /// It considers an entry committed; to be told for each entry in order.
    Commit {
        /// Where.
        index: Index,
        /// Term of the entry.
        term: Term,
        /// Checksum of what it carries.
        crc: u32,
    },
    /// Its commit and applied index, as it says itself.
    Progress {
        /// Commit index.
        commit: Index,
        /// Applied index.
        applied: Index,
    },
    /// Its state machine applied an entry.
    Applied {
        /// Where.
        index: Index,
        /// Term of the entry.
        term: Term,
        /// Rolling hash after it.
        hash: u64,
    },
    /// A write of a session took effect in its state machine.
    Effect {
        /// Where.
        index: Index,
        /// The session.
        session: SessionId,
        /// The write.
        seq: RequestSeq,
        /// What the client said with it: it has all answers below.
        acked_below: RequestSeq,
    },
    /// It cut its log behind a snapshot of its own.
    Snapshot {
        /// Last index covered.
        index: Index,
        /// Term of that entry.
        term: Term,
    },
    /// It installed a snapshot that it received.
    Installed {
        /// Last index covered.
        index: Index,
        /// Term of that entry.
        term: Term,
        /// Rolling hash of the state in it, if known.
        hash: Option<u64>,
    },
    /// It started with what it found on its disk.
    Restart(Box<Restart>),
    /// Something about its disk: what befell it, or what the node says of it.
    Disk(DiskNews),
    /// It has got a new disk, with nothing on it.
    Wiped,
    /// Its disk has lost what it had called durable, and the node cannot know it.
    LiedTo,
}

/// What a node found on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restart {
    /// The term.
    pub term: Term,
    /// The vote.
    pub vote: Option<NodeId>,
    /// Whether it says that there may have been a later term or vote; believed if its disk has met
    /// a fault.
    pub vote_lost: bool,
    /// Snapshot and log.
    pub log: Log,
    /// Index of the state that the state machine starts from.
    pub applied: Index,
    /// Rolling hash of that state, if known.
    pub hash: Option<u64>,
}

/// All invariant checkers. See the [module](self).
#[derive(Debug, Default)]
pub struct Invariants {
    mirror: Mirror,
    election_safety: ElectionSafety,
    log_matching: LogMatching,
    leader_completeness: LeaderCompleteness,
    state_machine_safety: StateMachineSafety,
    committed_immutable: CommittedImmutable,
    term_monotonic: TermMonotonic,
    own_disk: OwnDisk,
    durability: Durability,
    session_order: SessionOrder,
    first: Option<Violation>,
    observed: u64,
}

impl Invariants {
    /// Takes note of what was seen of `node` at `at` (event number or simulated nanoseconds).
    pub fn observe(
        &mut self,
        at: u64,
        node: NodeId,
        observation: &Observation,
    ) -> Result<(), Violation> {
        self.observed += 1;
        let result = self.dispatch(at, node, observation);
        self.keep(result)
    }

    fn dispatch(
        &mut self,
        at: u64,
        node: NodeId,
        observation: &Observation,
    ) -> Result<(), Violation> {
        match observation {
            Observation::Leader { term } => {
                self.election_safety.observe_leader(at, node, *term)?;
                self.leader_completeness.observe_leader(at, node, *term, &mut self.mirror)
            }
            Observation::Resigned => {
                self.leader_completeness.observe_resigned(node);
                Ok(())
            }
            Observation::HardState { term, vote } => {
                self.term_monotonic.observe_hard_state(at, node, *term, *vote)
            }
            Observation::Promise { term, vote } => {
                self.term_monotonic.observe_promise(at, node, *term, *vote)
            }
            Observation::Append { index, term, crc } => {
                self.append(at, node, *index, Stamp { term: *term, crc: *crc })
            }
            Observation::Truncate { from } => {
                self.note_cut(node, from.saturating_sub(1));
                self.mirror.log(node).truncate(*from);
                self.committed_immutable.observe_truncate(at, node, *from)
            }
            Observation::Commit { index, term, crc } => {
                self.commit(at, node, *index, Stamp { term: *term, crc: *crc })
            }
            Observation::Progress { commit, applied } => {
                self.term_monotonic.observe_progress(at, node, *commit, *applied)
            }
            Observation::Applied { index, term, hash } => {
                self.state_machine_safety.observe_applied(at, node, (*index, *term), *hash)
            }
            Observation::Effect { index, session, seq, acked_below } => {
                self.session_order.observe_effect(at, node, *index, (*session, *seq), *acked_below)
            }
            Observation::Snapshot { index, term } => self.snapshot(at, node, (*index, *term)),
            Observation::Installed { index, term, hash } => {
                self.snapshot(at, node, (*index, *term))?;
                self.state_machine_safety.observe_restored(at, node, *index, *hash)
            }
            Observation::Restart(restart) => self.restart(at, node, restart),
            Observation::Disk(news) => self.own_disk.observe(at, node, news),
            Observation::Wiped => {
                self.term_monotonic.observe_wiped(node);
                self.forget_log(node);
                Ok(())
            }
            Observation::LiedTo => {
                self.term_monotonic.observe_lied_to(node);
                self.forget_log(node);
                Ok(())
            }
        }
    }

    fn forget_log(&mut self, node: NodeId) {
        *self.mirror.log(node) = Log::default();
        self.own_disk.observe_fault(node, true);
        self.leader_completeness.observe_resigned(node);
    }

    fn append(
        &mut self,
        at: u64,
        node: NodeId,
        index: Index,
        stamp: Stamp,
    ) -> Result<(), Violation> {
        let log = self.mirror.log(node);
        let last = log.last_index();
        if log.at(index) == Some(stamp) && index == last {
            return Ok(());
        }
        if index <= last {
            let is_same = log.at(index) == Some(stamp);
            self.committed_immutable.observe_truncate(at, node, index)?;
            self.note_cut(node, if is_same { index } else { index.saturating_sub(1) });
        }
        let log = self.mirror.log(node);
        if !log.put(index, stamp) {
            let (base, term) = (log.base_index, stamp.term);
            let what = format!(
                "{node} appended {index}@{term} to a log of entries {}..={last}",
                base.saturating_add(1)
            );
            return broken("log_matching", at, what);
        }
        let prev_term = log.term_at(index - 1).unwrap_or(0);
        let place = (index, stamp.term);
        self.log_matching.observe_append(at, node, place, prev_term, stamp.crc)
    }

    /// Takes note that what the log of `node` has after an entry is about to be replaced.
    fn note_cut(&mut self, node: NodeId, last: Index) {
        let kept = (last, self.mirror.log(node).term_at(last).unwrap_or_default());
        let term = self.term_monotonic.term_of(node).unwrap_or(Term::MAX);
        self.own_disk.observe_cut(node, kept, term);
    }

    fn commit(
        &mut self,
        at: u64,
        node: NodeId,
        index: Index,
        stamp: Stamp,
    ) -> Result<(), Violation> {
        self.committed_immutable.observe_commit(at, node, index, stamp)?;
        match self.term_monotonic.term_of(node) {
            Some(term) => {
                let mirror = &mut self.mirror;
                self.leader_completeness.observe_commit(at, index, stamp, term, mirror)
            }
            None => Ok(()),
        }
    }

    fn snapshot(
        &mut self,
        at: u64,
        node: NodeId,
        (index, term): (Index, Term),
    ) -> Result<(), Violation> {
        if let Some((committed, _)) = self.committed_immutable.at(index)
            && committed != term
        {
            let what =
                format!("{node} has a snapshot of {index}@{term}, committed was {committed}");
            return broken("committed_immutable", at, what);
        }
        let log = self.mirror.log(node);
        let is_kept = index <= log.base_index || log.term_at(index) == Some(term);
        log.start_after(index, term);
        if !is_kept {
            self.note_cut(node, index);
        }
        self.own_disk.observe_tables(node, index);
        Ok(())
    }

    fn restart(&mut self, at: u64, node: NodeId, restart: &Restart) -> Result<(), Violation> {
        let hard_state = (restart.term, restart.vote);
        self.leader_completeness.observe_resigned(node);
        self.committed_immutable.observe_restart(node, restart.log.base_index);
        *self.mirror.log(node) = restart.log.clone();
        let mut prev = restart.log.base_term;
        for (index, stamp) in (restart.log.base_index + 1..).zip(&restart.log.entries) {
            let place = (index, stamp.term);
            self.log_matching.observe_append(at, node, place, prev, stamp.crc)?;
            prev = stamp.term;
        }
        self.state_machine_safety.observe_restored(at, node, restart.applied, restart.hash)?;
        let may_forget = restart.vote_lost && self.own_disk.has_lost_log(node);
        let applied = restart.applied;
        self.term_monotonic.observe_restart(at, node, hard_state, applied, may_forget)?;
        self.own_disk.observe_restart(at, node, &restart.log, restart.vote_lost)
    }

    /// Takes note that a client was told that the write at `index` was applied.
    pub fn observe_acknowledged(&mut self, at: u64, index: Index) -> Result<(), Violation> {
        let entry = self.committed_immutable.at(index);
        self.durability.observe_acknowledged(at, index, entry);
        let result = match entry {
            Some(_) => Ok(()),
            None => broken(
                "durability",
                at,
                format!("the write at {index} was acknowledged, but no node had committed it"),
            ),
        };
        self.keep(result)
    }

    /// Compares every acknowledged write with what is on the disks of the voters.
    pub fn check_disks(
        &mut self,
        at: u64,
        disks: &BTreeMap<NodeId, Log>,
        excused: &BTreeSet<NodeId>,
    ) -> Result<(), Violation> {
        let result = self.durability.check(at, disks, excused);
        self.keep(result)
    }

    /// Returns the last index that any node considered committed.
    pub fn committed(&self) -> Index {
        self.committed_immutable.last()
    }

    /// Returns the first violation of the run.
    pub fn first(&self) -> Option<&Violation> {
        self.first.as_ref()
    }

    /// Returns how many observations were made: a run with none checked nothing.
    pub fn observed(&self) -> u64 {
        self.observed
    }

    fn keep(&mut self, result: Result<(), Violation>) -> Result<(), Violation> {
        if let Err(violation) = &result {
            self.first.get_or_insert_with(|| violation.clone());
        }
        result
    }
}
