//! Replication: the leader's appends, the follower's checks, the commit index.
//!
//! The leader sends entries while its own disk is still writing them; its own copy counts like a
//! follower's, once durable, so entries may be committed by followers alone. Each append names
//! the entry before its first; a follower that has that entry has the same log before it too.
//! [Raft §5.3]
//!
//! An acknowledgement names the *durable* part of what is known to equal the leader's log, and is
//! made when a ready value is taken: any number of appends and fsyncs between two calls is
//! answered by one message. It is sent again with each heartbeat, so a lost one costs nothing.
//!
//! A follower whose state machine cannot keep up ([`Input::Behind`](super::Input::Behind))
//! acknowledges nothing beyond what it has room for. It still takes what it is sent, answers
//! heartbeats and read rounds, votes, and learns the commit index; but the window that its leader
//! has for it fills, and no more is sent. A leader that has a majority without it goes on; one that
//! has not waits. What the follower has yet to apply is committed, so that for its part it waits
//! for nobody. One whose state machine is about to be replaced by a snapshot does the same when too
//! much waits for that: see `snapshot.rs`.
//!
//! Only an entry of the leader's own term is committed by counting; everything before it then is
//! committed too. [Raft §5.4.2, Figure 8]
//!
//! # What is committed, and lost
//! Where entries are acknowledged before they are synced
//! ([`may_lose_committed`](Config::may_lose_committed)), a power loss of several nodes may take
//! committed ones from so many that somebody is elected without them; and who had synced tables, or
//! kept its power, still has them. Its state is of another history then, and has to go. A new
//! leader's first entry, or one before it, is at the place of a lost one, so the leader names it
//! there; [`Raft::contradicted_by`] recognizes that by the term, also below the base of the log,
//! because terms never decrease along it.
//!
//! Until then nothing may be acknowledged of it that such a leader would count. So what is
//! committed is not taken for verified in the term of a new leader, only what the leader has named
//! and that is not contradicted. Of that, what lies below the base may still differ. But it is of
//! an older term than the leader's, and by counting those nothing is committed; or the base is of
//! the leader's own term, and came from it with all that is before.

use super::core::{Config, Raft, RoleState};
use super::log::Log;
use super::message::{AppendOutcome, Entry, Message, SnapshotMeta};
use super::progress::{Progress, ProgressState};
use super::quorum;
use super::ready::Reply;
use super::snapshot::Transfer;
use crate::base::{Index, NodeId, Term};
use crate::{planted, probe};

/// What an append says besides its entries.
struct Header {
    term: Term,
    commit: Index,
    round: u64,
}

impl Raft {
    /// Sends every follower what it may be sent now.
    pub(super) fn send_appends(&mut self) {
        let (term, commit) = (self.term(), self.commit);
        let RoleState::Leader(leader) = &mut self.role else { return };
        let header = Header { term, commit, round: leader.reads.round() };
        for (&peer, progress) in &mut leader.progress {
            if progress.state != ProgressState::Snapshot
                && self.log.term_at(progress.next_index - 1).is_none()
            {
                probe!("raft.follower_needs_snapshot");
                progress.needs_snapshot(Transfer::new());
            }
            if let Some(last) = progress.forgotten.filter(|_| progress.due) {
                self.out.send.push((peer, Message::Forgotten { term, last }));
            }
            if let Some(read) = progress.next_snapshot_read(peer, &self.config, self.now) {
                self.out.snapshot_reads.push(read);
            }
            while let Some(message) = next_append(&self.config, &self.log, &header, progress) {
                self.out.send.push((peer, message));
            }
        }
    }

    /// Takes entries from the leader. [Raft Figure 2, `AppendEntries`]
    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        prev: SnapshotMeta,
        entries: Vec<Entry>,
        commit: Index,
        round: u64,
    ) {
        let held = self.log.term_at(prev.index);
        if prev.index <= self.commit {
            // Committed: the leader has it too, whatever this node still holds of it.
            assert!(
                held.is_none_or(|held| held == prev.term),
                "R6: {} committed {}@{held:?}, the leader {from} of term {} has {}@{}",
                self.id(),
                prev.index,
                self.term(),
                prev.index,
                prev.term
            );
        } else if held != Some(prev.term) {
            self.reject_append(from, prev, round);
            return;
        }
        let is_empty = entries.is_empty();
        let last = prev.index + u64::try_from(entries.len()).unwrap_or(0);
        self.append_entries(prev.index, entries);
        let (log_last, durable, now) = (self.log.last_index(), self.durable.index(), self.now);
        let RoleState::Follower(follower) = &mut self.role else { return };
        follower.verified = follower.verified.max(last);
        // New entries are answered once, when they are durable; what the leader waits for
        // otherwise, and the sign of life that it needs from a slow disk, at once.
        follower.reply_due |= is_empty
            || last <= durable
            || round > follower.round
            || now.since(follower.replied) >= self.config.heartbeat_interval;
        follower.round = follower.round.max(round);
        let verified = if planted!("R22") { log_last } else { last };
        self.advance_commit(commit.min(verified));
    }

    /// Returns the first entry that a leader's message names in the place of another one that is
    /// committed here.
    ///
    /// That breaks R6, and the next step with it would panic, unless what is committed
    /// [may be lost](Config::may_lose_committed): then the shell is to ask here before each step,
    /// and to give its state up for the leader's.
    pub fn contradicted_by(&self, from: NodeId, message: &Message) -> Option<SnapshotMeta> {
        let is_of_leader = self.peers.contains(&from)
            && message.is_well_formed()
            && message.term() >= self.term()
            && !self.is_comparing();
        if !is_of_leader {
            return None;
        }
        match message {
            Message::Append { prev_index, prev_term, entries, .. } => {
                let prev = SnapshotMeta { index: *prev_index, term: *prev_term };
                let entries = entries.iter();
                let named =
                    entries.map(|entry| SnapshotMeta { index: entry.index, term: entry.term });
                std::iter::once(prev).chain(named).find(|named| self.contradicts(*named))
            }
            Message::SnapshotChunk { meta, .. } => {
                Some(*meta).filter(|meta| self.contradicts(*meta))
            }
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. }
            | Message::SnapshotReply { .. }
            | Message::Forgotten { .. }
            | Message::Compare { .. }
            | Message::Standing { .. } => None,
        }
    }

    /// Tells whether another entry than this one is committed in its place.
    fn contradicts(&self, named: SnapshotMeta) -> bool {
        if named.index > self.commit {
            return false;
        }
        match self.log.term_at(named.index) {
            Some(held) => held != named.term,
            None => named.term > self.log.base().term,
        }
    }

    /// Tells the leader where the logs may still agree. [Raft §5.3, end]
    fn reject_append(&mut self, from: NodeId, prev: SnapshotMeta, round: u64) {
        let limit = self.log.last_index().min(prev.index - 1);
        let hint_index = self.log.last_not_after(limit, prev.term).max(self.commit);
        let hint_term = self.log.term_at(hint_index).unwrap_or(0);
        let outcome = AppendOutcome::Rejected { prev_index: prev.index, hint_index, hint_term };
        self.send(from, Message::AppendReply { term: self.term(), round, outcome });
    }

    /// Appends what the log does not have, after cutting off what differs. What is the same
    /// stays: a late append may be shorter than what has been acknowledged since.
    fn append_entries(&mut self, prev_index: Index, mut entries: Vec<Entry>) {
        let base = self.log.base().index;
        let mut same = entries
            .iter()
            .take_while(|entry| {
                entry.index <= base || self.log.term_at(entry.index) == Some(entry.term)
            })
            .count();
        if planted!("R20") {
            let first = self.commit.max(prev_index) - prev_index;
            same = entries.len().min(usize::try_from(first).unwrap_or(0));
        }
        if planted!("R49") {
            let held = self.log.last_index().saturating_sub(prev_index);
            same = entries.len().min(usize::try_from(held).unwrap_or(0));
        }
        entries.drain(..same);
        let Some(first) = entries.first() else { return };
        if first.index <= self.log.last_index() {
            probe!("raft.truncates_conflict");
            self.truncate_log(first.index - 1);
        }
        for entry in entries {
            self.log.append(entry);
        }
    }

    fn truncate_log(&mut self, last: Index) {
        assert!(
            last >= self.commit,
            "R6: {} would truncate to {last}, committed up to {}",
            self.id(),
            self.commit
        );
        self.log.truncate(last);
        self.durable.truncated(last);
    }

    /// Answers the leader's appends, and tells it what has become durable since.
    pub(super) fn send_acknowledgement(&mut self) {
        let (Some(to), term) = (self.leader, self.term()) else { return };
        if !self.durable.hard_state_is_durable() {
            return;
        }
        let (durable, now) = (self.acknowledgeable(), self.now);
        let RoleState::Follower(follower) = &mut self.role else { return };
        let verified = follower.verified;
        let index = if planted!("R3") { verified } else { verified.min(durable) };
        if !follower.reply_due && index <= follower.acknowledged {
            return;
        }
        follower.reply_due = false;
        follower.replied = now;
        follower.acknowledged = follower.acknowledged.max(index);
        let outcome = AppendOutcome::Matched { index };
        let reply = Message::AppendReply { term, round: follower.round, outcome };
        self.out.send.push((to, reply));
    }

    /// Returns up to where a follower may say that it has the log.
    pub(super) fn acknowledgeable(&self) -> Index {
        let durable = self.durable.index();
        let held = self.incoming.as_ref().and_then(|incoming| incoming.acknowledge_max);
        match self.acknowledge_max.into_iter().chain(held).min() {
            Some(last) if last < durable => {
                probe!("raft.follower_is_behind");
                last
            }
            Some(_) | None => durable,
        }
    }

    /// Takes a follower's answer. [Raft Figure 2, "Rules for Servers: Leaders"]
    pub(super) fn on_append_reply(&mut self, from: NodeId, round: u64, outcome: AppendOutcome) {
        let last_index = self.log.last_index();
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.contact = self.now;
        progress.round = progress.round.max(round.min(leader.reads.round()));
        match outcome {
            AppendOutcome::Matched { index } if index <= last_index => {
                progress.matched(index, &self.log);
            }
            // Beyond the own log: no follower of this term can have said that.
            AppendOutcome::Matched { .. } => {}
            AppendOutcome::Rejected { prev_index, hint_index, hint_term } => {
                progress.rejected(prev_index, (hint_index, hint_term), &self.log);
            }
        }
        self.maybe_commit();
        self.confirm_reads();
    }

    pub(super) fn on_peer_lost(&mut self, peer: NodeId) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        if let Some(progress) = leader.progress.get_mut(&peer) {
            progress.lost();
        }
    }

    /// Commits what a majority has made durable, if this node leads. [Raft §5.3, §5.4.2]
    pub(super) fn maybe_commit(&mut self) {
        let RoleState::Leader(leader) = &self.role else { return };
        let own = if planted!("R4") { self.log.last_index() } else { self.durable.index() };
        let mut matches = vec![own];
        matches.extend(leader.progress.values().map(|progress| progress.match_index));
        let reached = if planted!("R9") {
            quorum::majority_value_sorted(&matches)
        } else if planted!("R58") {
            matches.iter().min().copied()
        } else {
            quorum::majority_value(&mut matches)
        };
        let reached = reached.unwrap_or(0);
        if reached > self.commit {
            if self.log.term_at(reached) == Some(self.term()) || planted!("R7") {
                self.advance_commit(reached);
            } else {
                probe!("raft.commit_waits_for_own_term");
            }
        }
        self.settle();
    }

    pub(super) fn advance_commit(&mut self, index: Index) {
        let last = self.log.last_index();
        assert!(index <= last, "R2: {} commits {index}, its log ends at {last}", self.id());
        let before = self.commit;
        self.commit = before.max(index);
        self.count_held(before);
    }

    /// Frees the room of entries that are committed and durable here.
    fn settle(&mut self) {
        let through = self.commit.min(self.durable.index());
        let RoleState::Leader(leader) = &mut self.role else { return };
        if through <= leader.settled {
            return;
        }
        let count = usize::try_from(through - leader.settled).unwrap_or(usize::MAX);
        let settled = self.log.entries_from(leader.settled + 1).take(count);
        leader.unsettled_bytes -= settled.map(Entry::weight).sum::<usize>();
        leader.settled = through;
    }

    /// Starts a read round if reads wait for one and none is under way. [Thesis §6.4]
    pub(super) fn start_reads(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        if !leader.reads.wants_round() {
            return;
        }
        if self.commit < leader.term_start && !planted!("R33") {
            probe!("raft.read_waits_for_own_term");
            return;
        }
        leader.reads.start(self.commit);
        for progress in leader.progress.values_mut() {
            progress.due = true;
        }
        self.confirm_reads();
    }

    /// Confirms the newest read round once a majority has answered it.
    fn confirm_reads(&mut self) {
        let quorum = self.quorum();
        let RoleState::Leader(leader) = &mut self.role else { return };
        if !leader.reads.is_confirming() {
            return;
        }
        let round = leader.reads.round();
        let answered = leader.progress.values().filter(|progress| progress.round >= round).count();
        if answered + 1 >= quorum {
            leader.reads.confirm();
        }
    }

    /// Answers the reads whose index the state machine has reached.
    pub(super) fn serve_reads(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let served = leader.reads.serve(self.applied);
        self.out.replies.extend(served.into_iter().map(|token| (token, Reply::ReadReady)));
    }
}

/// Returns the next append for a follower, or `None` if none may or need be sent now.
fn next_append(
    config: &Config,
    log: &Log,
    header: &Header,
    progress: &mut Progress,
) -> Option<Message> {
    let mut prev_index = progress.next_index - 1;
    let mut entries = Vec::new();
    if progress.state == ProgressState::Replicate && progress.next_index <= log.last_index() {
        if progress.has_room(config.inflight_count_max, config.inflight_bytes_max) {
            entries = next_entries(config, log, progress);
        } else {
            probe!("raft.window_full");
        }
    }
    if entries.is_empty() && !std::mem::take(&mut progress.due) {
        return None;
    }
    progress.due = false;
    if progress.state == ProgressState::Snapshot {
        // A heartbeat: nothing is known to match, but before the first entry all logs agree.
        prev_index = 0;
    }
    let prev_term = if prev_index == 0 { 0 } else { log.term_at(prev_index)? };
    let Header { term, commit, round } = *header;
    Some(Message::Append { term, prev_index, prev_term, entries, commit, round })
}

/// Takes the next entries for a follower, as many as one message may carry.
fn next_entries(config: &Config, log: &Log, progress: &mut Progress) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    for entry in log.entries_from(progress.next_index).take(config.append_entries_max.max(1)) {
        if !entries.is_empty() && bytes + entry.weight() > config.append_bytes_max {
            break;
        }
        bytes += entry.weight();
        entries.push(entry.clone());
    }
    if let Some(last) = entries.last() {
        progress.sent(last.index, bytes);
    }
    entries
}
