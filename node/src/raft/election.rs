//! Elections: pre-vote, vote, time-outs, and the leader's doubt about itself.
//!
//! A node that hears from no leader for a randomised time does not raise its term at once: it
//! first asks whether it could win (*pre-vote*), which changes nothing anywhere. So a node that
//! was cut off returns without disturbing a working leader. [Thesis §9.6] Nodes that heard from
//! a leader within the election time-out refuse both questions, and a leader that a majority has
//! not answered for that long steps down (*check-quorum*): together they keep any pattern of
//! one-way and partial disconnection from electing for ever, while a leader that can still reach
//! a majority in both directions stays.
//!
//! Each refusal carries the refuser's term, and a leader of an older term is told so by the
//! answer to its append: whoever is behind catches up, so no two nodes can go on refusing each
//! other.
//!
//! Requests and votes are sent again with every heartbeat interval until they are answered.
//!
//! # A state machine that is stuck
//! A node whose state machine [cannot apply](super::Input::Stuck) what is committed would be a poor
//! leader: it could take no writes. It lets the first of its campaigns be, by which time another
//! one leads if there is one that can. It campaigns at the next, for a leader without space on its
//! disk is better than none, and all others may be stuck as well, or lack entries.
//!
//! # A disk that lies
//! A candidate whose disk lies about the sync of its vote for itself, and loses it, would lead the
//! same term twice, with other entries at the same places. A majority has entered that term, and
//! refuses pre-votes for it. If only its own vote made that majority one, nobody can know: then no
//! good copy of the vote is left in every quorum, which is out of what can be survived.

use std::collections::BTreeMap;

use super::core::{Follower, Leader, Raft, RoleState};
use super::message::{AppendOutcome, Entry, EntryKind, Message, SnapshotMeta, SnapshotOutcome};
use super::progress::Progress;
use super::quorum;
use super::read::Reads;
use super::ready::HardState;
use crate::base::{Index, Instant, NodeId, Term};
use crate::{planted, probe};

/// The answers to a pre-vote or a vote.
#[derive(Debug)]
pub(super) struct Tally {
    answers: BTreeMap<NodeId, bool>,
    pub(super) resend_deadline: Instant,
}

impl Tally {
    fn granted(&self) -> usize {
        self.answers.values().filter(|&&granted| granted).count()
    }
}

impl Raft {
    /// Draws the time until the next campaign anew. [Raft §5.2]
    pub(super) fn reset_election_timer(&mut self) {
        let shortest = self.config.election_timeout;
        let drawn = self.rng.duration(shortest, shortest * 2);
        self.election_deadline = self.now + if planted!("R50") { shortest } else { drawn };
    }

    /// Becomes a follower without a leader, in this term or a newer one.
    pub(super) fn become_follower(&mut self, term: Term) {
        assert!(term >= self.term(), "R1: term regression {} to {term}", self.term());
        self.resign();
        if let RoleState::Leader(_) = self.role {
            self.reset_election_timer();
        }
        // What is committed equals any leader's log (R6), unless it may be lost: see
        // `replication.rs`.
        let verified = if self.config.may_lose_committed { 0 } else { self.commit };
        self.role = RoleState::Follower(Follower::new(verified, self.now));
        self.leader = None;
        if term > self.term() {
            self.set_hard_state(HardState { term, vote: None });
        }
    }

    /// Notes a message of the leader of this term.
    pub(super) fn follow(&mut self, leader: NodeId) {
        let term = self.term();
        if let Some((seen_term, seen)) = self.leader_seen {
            assert!(
                seen_term != term || seen == leader,
                "R5: two leaders in term {term}: {seen} and {leader}, seen by {}",
                self.id()
            );
        }
        if self.leader != Some(leader) {
            self.become_follower(term);
            self.leader = Some(leader);
            self.leader_seen = Some((term, leader));
        }
        self.leader_contact = self.now;
        self.has_yielded = false;
        self.reset_election_timer();
    }

    fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
        self.durable.hard_state_changed();
    }

    /// Decides whether a message is dealt with further: adopts newer terms, answers older ones.
    /// [Raft §5.1]
    pub(super) fn admits_term(&mut self, from: NodeId, message: &Message) -> bool {
        if self.is_comparing() {
            probe!("raft.newcomer_keeps_silent");
            return false;
        }
        let (own, term) = (self.term(), message.term());
        if matches!(message, Message::PreVote { .. } | Message::PreVoteReply { granted: true, .. })
        {
            // These tell of a term that perhaps nobody will ever enter.
            return true;
        }
        if term > own {
            if matches!(message, Message::Vote { .. }) && self.has_live_leader() {
                probe!("raft.vote_refused_for_live_leader");
                return false;
            }
            self.become_follower(term);
        }
        if term < own {
            self.answer_stale(from, message);
        }
        term >= own
    }

    /// Tells the sender of an older term about the newer one, if it would act on the answer.
    fn answer_stale(&mut self, from: NodeId, message: &Message) {
        let term = self.term();
        let answer = match message {
            Message::Vote { .. } => Message::VoteReply { term, granted: false },
            Message::Append { prev_index, .. } => {
                probe!("raft.stale_leader_told");
                let outcome = AppendOutcome::Rejected {
                    prev_index: *prev_index,
                    hint_index: 0,
                    hint_term: 0,
                };
                Message::AppendReply { term, round: 0, outcome }
            }
            Message::SnapshotChunk { meta, .. } => {
                let outcome = SnapshotOutcome::Failed;
                Message::SnapshotReply { term, meta: *meta, outcome }
            }
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. }
            | Message::SnapshotReply { .. }
            | Message::Compare { .. }
            | Message::Standing { .. }
            | Message::Forgotten { .. } => return,
        };
        self.send(from, answer);
    }

    /// Tells whether a leader was heard from, or is this node and was answered by a majority,
    /// within the election time-out.
    fn has_live_leader(&self) -> bool {
        let contact = match &self.role {
            RoleState::Leader(leader) => self.quorum_contact(leader),
            RoleState::Follower(_) => self.leader.map(|_| self.leader_contact),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        };
        contact.is_some_and(|contact| self.now.since(contact) < self.config.election_timeout)
    }

    /// Returns the time since when a majority has been in contact with this leader.
    fn quorum_contact(&self, leader: &Leader) -> Option<Instant> {
        let mut contacts: Vec<Instant> =
            leader.progress.values().map(|progress| progress.contact).collect();
        contacts.push(self.now);
        quorum::majority_value(&mut contacts)
    }

    /// Tells whether a candidate's log is at least as up to date as what this node has, or had
    /// before its disk lost it. [Raft §5.4.1]
    fn is_up_to_date(&self, last: SnapshotMeta) -> bool {
        (last.term, last.index) >= self.end_it_vouches_for()
    }

    /// Returns term and index of the last entry that this node has, or had before its disk lost it.
    pub(super) fn end_it_vouches_for(&self) -> (Term, Index) {
        let own = (self.log.last_term(), self.log.last_index());
        let lost = self.damaged_last.map_or((0, 0), |damaged| (damaged.term, damaged.index));
        own.max(lost)
    }

    /// Answers a pre-vote. Only for a term that this node has not entered: in its own, somebody may
    /// have led already, and even the one who asks, if its disk has lied about a sync and forgotten
    /// the vote for itself. The refusal tells it the term, so it costs one more election time-out.
    pub(super) fn on_pre_vote(&mut self, from: NodeId, term: Term, last: SnapshotMeta) {
        let is_entered = term <= self.term();
        let is_own_vote = term == self.term() && self.hard_state.vote == Some(from);
        let is_free = !is_entered || (is_own_vote && planted!("R51"));
        let granted = is_free && self.is_up_to_date(last) && !self.has_live_leader();
        if !granted {
            probe!("raft.prevote_refused");
        }
        let term = if granted { term } else { self.term() };
        self.send(from, Message::PreVoteReply { term, granted });
    }

    pub(super) fn on_pre_vote_reply(&mut self, from: NodeId, term: Term, granted: bool) {
        let campaign_term = self.term() + 1;
        let RoleState::PreCandidate(tally) = &mut self.role else { return };
        if granted && term != campaign_term {
            return;
        }
        tally.answers.insert(from, granted);
        if tally.granted() >= quorum::majority(self.peers.len() + 1) {
            self.campaign();
        }
    }

    pub(super) fn on_vote(&mut self, from: NodeId, last: SnapshotMeta) {
        let vote_is_free = match self.hard_state.vote {
            Some(vote) => vote == from,
            None => self.leader.is_none(),
        };
        let granted = vote_is_free && self.is_up_to_date(last);
        let term = self.term();
        if granted && self.hard_state.vote.is_none() {
            self.set_hard_state(HardState { term, vote: Some(from) });
        }
        if granted {
            self.reset_election_timer();
        }
        self.send(from, Message::VoteReply { term, granted });
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, granted: bool) {
        let RoleState::Candidate(tally) = &mut self.role else { return };
        tally.answers.insert(from, granted);
        self.maybe_win();
    }

    /// Counts the candidate's own vote, which is given like any other: once it is durable.
    pub(super) fn count_own_vote(&mut self) {
        if !self.durable.hard_state_is_durable() {
            return;
        }
        let id = self.id();
        let RoleState::Candidate(tally) = &mut self.role else { return };
        tally.answers.insert(id, true);
        self.maybe_win();
    }

    fn maybe_win(&mut self) {
        let RoleState::Candidate(tally) = &self.role else { return };
        if tally.granted() >= self.quorum() {
            self.become_leader();
        }
    }

    pub(super) fn tick_election(&mut self) {
        if self.now >= self.election_deadline {
            self.pre_campaign();
            return;
        }
        let resend_deadline = self.now + self.config.heartbeat_interval;
        match &mut self.role {
            RoleState::PreCandidate(tally) | RoleState::Candidate(tally)
                if self.now >= tally.resend_deadline =>
            {
                tally.resend_deadline = resend_deadline;
            }
            RoleState::Follower(_)
            | RoleState::PreCandidate(_)
            | RoleState::Candidate(_)
            | RoleState::Leader(_) => return,
        }
        if self.durable.hard_state_is_durable() {
            self.request_votes();
        }
    }

    /// Asks the others whether this node could win. [Thesis §9.6]
    fn pre_campaign(&mut self) {
        self.become_follower(self.term());
        self.reset_election_timer();
        if self.is_recovering() {
            probe!("raft.recovering_does_not_campaign");
            return;
        }
        if self.disk_is_stalled() || self.term() >= Message::TERM_MAX {
            return;
        }
        if self.is_stuck && !self.has_yielded && !self.peers.is_empty() {
            probe!("raft.stuck_node_yields");
            self.has_yielded = true;
            return;
        }
        let answers = BTreeMap::from([(self.id(), true)]);
        let resend_deadline = self.now + self.config.heartbeat_interval;
        self.role = RoleState::PreCandidate(Tally { answers, resend_deadline });
        if self.quorum() == 1 {
            self.campaign();
        } else {
            self.request_votes();
        }
    }

    /// Enters a new term and asks for votes in it. [Raft §5.2]
    fn campaign(&mut self) {
        let (term, vote) = (self.term() + 1, Some(self.id()));
        self.set_hard_state(HardState { term, vote });
        self.reset_election_timer();
        let resend_deadline = self.now + self.config.heartbeat_interval;
        self.role = RoleState::Candidate(Tally { answers: BTreeMap::new(), resend_deadline });
        self.request_votes();
        self.count_own_vote();
    }

    /// Sends the request of the present role to whoever has not answered it.
    fn request_votes(&mut self) {
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        let term = self.term();
        let (message, tally) = match &self.role {
            RoleState::PreCandidate(tally) => {
                (Message::PreVote { term: term + 1, last_index, last_term }, tally)
            }
            RoleState::Candidate(tally) => (Message::Vote { term, last_index, last_term }, tally),
            RoleState::Follower(_) | RoleState::Leader(_) => return,
        };
        let unanswered: Vec<NodeId> =
            self.peers.iter().copied().filter(|peer| !tally.answers.contains_key(peer)).collect();
        for peer in unanswered {
            self.send(peer, message.clone());
        }
    }

    /// Takes the leadership of the term: appends a no-op and probes every follower. [Raft §8]
    fn become_leader(&mut self) {
        let (id, term, last_index) = (self.id(), self.term(), self.log.last_index());
        assert!(
            self.durable.hard_state_is_durable() && self.hard_state.vote == Some(id),
            "R5: {id} leads term {term} with {:?}, durable or not",
            self.hard_state
        );
        assert!(
            self.leader_seen.is_none_or(|(seen_term, _)| seen_term < term),
            "R5: {id} leads term {term}, which had the leader {:?}",
            self.leader_seen
        );
        let noop = Entry { term, index: last_index + 1, kind: EntryKind::Noop };
        self.log.append(noop);
        let settled = self.commit.min(self.durable.index());
        let unsettled_bytes = self.log.entries_from(settled + 1).map(Entry::weight).sum();
        let progress =
            self.peers.iter().map(|&peer| (peer, Progress::new(last_index, self.now))).collect();
        self.role = RoleState::Leader(Box::new(Leader {
            progress,
            reads: Reads::default(),
            term_start: last_index + 1,
            heartbeat_deadline: self.now + self.config.heartbeat_interval,
            unsettled_bytes,
            settled,
        }));
        self.leader = Some(id);
        self.leader_seen = Some((term, id));
        self.has_yielded = false;
    }

    /// Sends heartbeats when they are due, unless the leadership is in doubt.
    pub(super) fn tick_leader(&mut self) {
        if !self.has_live_leader() {
            probe!("raft.checkquorum_steps_down");
            self.become_follower(self.term());
            return;
        }
        if self.disk_is_stalled() && self.others_can_commit() {
            probe!("raft.disk_stall_steps_down");
            self.become_follower(self.term());
            return;
        }
        let (now, interval) = (self.now, self.config.heartbeat_interval);
        let RoleState::Leader(leader) = &mut self.role else { return };
        if now < leader.heartbeat_deadline {
            return;
        }
        leader.heartbeat_deadline = now + interval;
        for progress in leader.progress.values_mut() {
            progress.due = true;
        }
    }

    /// Tells whether a majority has what this node has not on its disk. If not, because their disks
    /// are full, too, or they are down, nobody gains by another election, and reads would end.
    fn others_can_commit(&self) -> bool {
        let RoleState::Leader(leader) = &self.role else { return false };
        let own = self.durable.index();
        let ahead = leader.progress.values().filter(|progress| progress.match_index > own);
        ahead.count() >= self.quorum()
    }

    fn disk_is_stalled(&self) -> bool {
        let limit = self.config.disk_stall_max;
        self.durable.waiting_since().is_some_and(|since| self.now.since(since) >= limit)
    }
}
