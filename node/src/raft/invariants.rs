//! The invariants of one replica, numbered as in the [module's](super) essay.
//!
//! Each check costs at most one step per follower, so they run after every step wherever debug
//! assertions are on, which includes the simulation. What concerns several replicas (election
//! safety across nodes, log matching, leader completeness) is checked from outside.

use super::core::{Raft, RoleState};
use super::message::SnapshotMeta;
use super::ready::HardState;
use super::standing::Standing;
use crate::base::Index;

/// What was true after the last step, for what must never go back.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hard_state: HardState,
    commit: Index,
    snapshot: SnapshotMeta,
}

impl Raft {
    /// Checks the invariants where that is switched on.
    pub(super) fn check_after_step(&mut self) {
        if cfg!(debug_assertions) || self.config.check_invariants {
            self.check_invariants();
        }
    }

    fn check_invariants(&mut self) {
        self.check_never_back();
        self.check_order();
        self.durable.check(self.log.last_index());
        self.check_role();
        self.check_comparison();
        self.seen =
            Seen { hard_state: self.hard_state, commit: self.commit, snapshot: self.snapshot };
    }

    fn check_never_back(&self) {
        let (old, new) = (self.seen.hard_state, self.hard_state);
        assert!(new.term >= old.term, "R1: term went back from {} to {}", old.term, new.term);
        if new.term == old.term && old.vote.is_some() {
            assert!(new.vote == old.vote, "R1: vote changed from {old:?} to {new:?}");
        }
        let (old, new) = (self.seen.commit, self.commit);
        assert!(new >= old, "R4: commit index of {} went back from {old} to {new}", self.id());
        let (old, new) = (self.seen.snapshot.index, self.snapshot.index);
        assert!(new >= old, "R7: snapshot of {} went back from {old} to {new}", self.id());
    }

    fn check_comparison(&self) {
        if !self.is_comparing() {
            return;
        }
        let (state, last) = (self.hard_state, self.log.last_index());
        let has_past = state != HardState::default() || last > 0;
        assert!(
            self.leader.is_none() && (!has_past || self.standing == Standing::Unsure),
            "R9: {} is {} with {state:?}, a log to {last}, and follows {:?}",
            self.id(),
            self.standing,
            self.leader
        );
    }

    fn check_order(&self) {
        let (base, last) = (self.log.base(), self.log.last_index());
        let (snapshot, handed_out) = (self.snapshot.index, self.apply_next - 1);
        assert!(
            base.index <= snapshot
                && snapshot <= handed_out
                && self.applied <= handed_out
                && handed_out <= self.commit
                && self.commit <= last,
            "R2: {}: base {}, snapshot {snapshot}, applied {}, handed out {handed_out}, \
             commit {}, last {last}",
            self.id(),
            base.index,
            self.applied,
            self.commit
        );
        let last_term = self.log.last_term();
        assert!(
            base.term <= last_term && last_term <= self.term(),
            "R2: {}: base term {}, last term {last_term}, term {}",
            self.id(),
            base.term,
            self.term()
        );
    }

    /// A leader counts copies of entries of its own term alone; older ones are committed with them.
    /// [Raft §5.4.2, Figure 8]
    fn check_own_commit(&self) {
        let (old, new) = (self.seen.commit, self.commit);
        assert!(
            new == old || self.log.term_at(new) == Some(self.term()),
            "R4: leads in {} and commits {new}, of {:?}",
            self.term(),
            self.log.term_at(new)
        );
    }

    fn check_role(&self) {
        match &self.role {
            RoleState::Leader(leader) => {
                assert!(self.leader == Some(self.id()), "R5: leads, follows {:?}", self.leader);
                assert!(self.durable.hard_state_is_durable(), "R5: leads a term not durable");
                let last = self.log.last_index();
                assert!(self.log.last_term() == self.term(), "R5: leads without own entry");
                assert!(leader.settled <= self.commit, "R8: settled {}", leader.settled);
                self.check_own_commit();
                for (peer, progress) in &leader.progress {
                    let (matched, next) = (progress.match_index, progress.next_index);
                    assert!(
                        matched < next && next <= last + 1,
                        "R8: {peer} matches {matched}, next {next}, the log ends at {last}"
                    );
                    let (count, bytes) = progress.in_flight();
                    assert!(
                        count <= self.config.inflight_count_max && (count > 0 || bytes == 0),
                        "R8: {count} appends of {bytes} bytes in flight to {peer}"
                    );
                }
            }
            RoleState::Follower(follower) => {
                assert!(self.leader != Some(self.id()), "R5: follows itself");
                let last = self.log.last_index();
                assert!(
                    follower.verified <= last,
                    "R3: verified up to {}, the log ends at {last}",
                    follower.verified
                );
            }
            RoleState::PreCandidate(_) => {
                assert!(self.leader.is_none(), "R5: campaigns against {:?}", self.leader);
            }
            RoleState::Candidate(_) => {
                assert!(self.leader.is_none(), "R5: campaigns against {:?}", self.leader);
                let vote = self.hard_state.vote;
                assert!(vote == Some(self.id()), "R5: candidate that voted for {vote:?}");
            }
        }
    }
}
