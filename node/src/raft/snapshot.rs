//! Snapshots: cutting the own log, and sending a follower what the log no longer has.
//!
//! A snapshot travels in pieces, one at a time: the leader's shell reads a piece, the core sends
//! it, the follower's shell stores it, and the answer says how much the follower has. Whatever
//! gets lost on the way, the leader sends again after an election time-out from where the
//! follower last was, and the follower always answers where it really is; so a transfer resumes
//! after lost messages, and starts over after a restart. Heartbeats go on meanwhile; a follower
//! that does not answer them is sent no pieces. [Raft §7, Figure 13]
//!
//! The last piece is the point of no return: from there the state machine belongs to the
//! snapshot, and committed entries are held back until it is installed. Only a new leader sends
//! any: one whose log begins early enough, to whom this node is a follower like others. If they
//! become too many, the node acknowledges no more until the snapshot is in place or found damaged,
//! as one that is [behind](super::Input::Behind).
//!
//! # Left out
//! Several pieces in flight: one piece per round trip is 256 KiB, faster than the disks it comes
//! from in the networks that this is made for. Keeping the log while a follower fetches: with
//! [`Config::log_entries_kept`](super::Config::log_entries_kept) well above what is written
//! during a transfer the follower finds what comes next; if not, it gets the next snapshot.

use super::core::{Config, Raft, RoleState};
use super::log::Log;
use super::message::{Entry, Message, SnapshotMeta, SnapshotOutcome};
use super::progress::{Progress, ProgressState};
use super::ready::{SnapshotRead, SnapshotWrite};
use crate::base::{Index, Instant, NodeId, Payload};
use crate::{planted, probe};

/// A snapshot on its way to a follower.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Which one; `None` until the first piece was read.
    meta: Option<SnapshotMeta>,
    /// How much the follower has, as far as the leader knows.
    offset: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The next piece has to be read.
    Idle,
    /// A piece is being read; read again if that takes until then.
    Reading(Instant),
    /// A piece was sent; read and send it again if there is no answer until then.
    Sent(Instant),
    /// The follower could not use it; start over then.
    Pausing(Instant),
}

/// A snapshot on its way from a leader.
#[derive(Debug)]
pub(super) struct Incoming {
    meta: SnapshotMeta,
    /// Bytes stored.
    offset: u64,
    /// A piece is being stored.
    writing: bool,
    /// The last piece was handed out: the snapshot will be installed, or found damaged.
    pub(super) installing: bool,
    /// Bytes of the entries that were committed since then.
    held_bytes: usize,
    /// The last entry to be acknowledged, because those are too many.
    pub(super) acknowledge_max: Option<Index>,
}

impl Transfer {
    /// Starts with any snapshot, from its beginning.
    pub(super) fn new() -> Self {
        Self { meta: None, offset: 0, phase: Phase::Idle }
    }

    fn restart(&mut self, phase: Phase) {
        *self = Self { phase, ..Self::new() };
    }
}

impl Progress {
    /// Returns the read of the next piece, if it is due and the follower is there.
    pub(super) fn next_snapshot_read(
        &mut self,
        to: NodeId,
        config: &Config,
        now: Instant,
    ) -> Option<SnapshotRead> {
        let transfer = self.transfer.as_mut()?;
        if now.since(self.contact) >= config.election_timeout {
            return None;
        }
        match transfer.phase {
            Phase::Idle => {}
            Phase::Reading(deadline) | Phase::Sent(deadline) | Phase::Pausing(deadline) => {
                if now < deadline {
                    return None;
                }
                probe!("raft.snapshot_piece_repeated");
            }
        }
        transfer.phase = Phase::Reading(now + config.election_timeout);
        let (meta, offset) = (transfer.meta, transfer.offset);
        Some(SnapshotRead { to, meta, offset, bytes_max: config.snapshot_chunk_bytes })
    }

    fn is_reading(&mut self) -> Option<&mut Transfer> {
        self.transfer.as_mut().filter(|transfer| matches!(transfer.phase, Phase::Reading(_)))
    }
}

impl Raft {
    /// Cuts the log behind an own snapshot that is durable.
    pub(super) fn on_snapshot_taken(&mut self, meta: SnapshotMeta) {
        if meta.index <= self.snapshot.index {
            return;
        }
        let applied = self.apply_next - 1;
        assert!(meta.index <= applied, "R7: snapshot at {}, applied {applied}", meta.index);
        let term = self.log.term_at(meta.index);
        assert!(term == Some(meta.term), "R7: snapshot {meta:?}, the log has {term:?} there");
        self.snapshot = meta;
        self.durable.covered(meta.index);
        self.check_recovery();
        self.maybe_commit();
        let (entries, bytes) = (self.config.log_entries_kept, self.config.log_bytes_kept);
        self.log.compact(self.log.behind(meta.index.min(self.applied), entries, bytes));
    }

    /// Sends a piece that was read for a follower.
    pub(super) fn on_snapshot_data(
        &mut self,
        to: NodeId,
        meta: SnapshotMeta,
        offset: u64,
        data: Payload,
        done: bool,
    ) {
        let (term, deadline) = (self.term(), self.now + self.config.election_timeout);
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let Some(transfer) = progress.is_reading() else { return };
        if transfer.meta != Some(meta) {
            // The first piece of all, or the snapshot was replaced by a newer one meanwhile.
            transfer.offset = 0;
        }
        if transfer.offset != offset {
            transfer.restart(Phase::Idle);
            return;
        }
        transfer.meta = Some(meta);
        transfer.phase = Phase::Sent(deadline);
        let message = Message::SnapshotChunk { term, meta, offset, data, done };
        self.out.send.push((to, message));
    }

    /// Takes a follower's answer to a piece.
    pub(super) fn on_snapshot_reply(
        &mut self,
        from: NodeId,
        meta: SnapshotMeta,
        outcome: SnapshotOutcome,
    ) {
        let (now, pause) = (self.now, self.config.election_timeout);
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.contact = now;
        let is_of_transfer = progress.transfer.as_ref().is_some_and(|t| t.meta == Some(meta));
        if progress.state != ProgressState::Snapshot || !is_of_transfer {
            return;
        }
        match outcome {
            SnapshotOutcome::Installed => {
                finish_transfer(progress, meta.index, &self.log);
                self.maybe_commit();
            }
            SnapshotOutcome::Stored { offset } => {
                let Some(transfer) = &mut progress.transfer else { return };
                if matches!(transfer.phase, Phase::Sent(_)) {
                    transfer.offset = offset;
                    transfer.phase = Phase::Idle;
                }
            }
            SnapshotOutcome::Failed => {
                probe!("raft.snapshot_starts_over");
                if let Some(transfer) = &mut progress.transfer {
                    transfer.restart(Phase::Pausing(now + pause));
                }
            }
        }
    }

    /// Takes a piece from the leader. [Raft Figure 13]
    pub(super) fn on_snapshot_chunk(
        &mut self,
        from: NodeId,
        meta: SnapshotMeta,
        offset: u64,
        data: Payload,
        done: bool,
    ) {
        if self.incoming.as_ref().is_some_and(|incoming| incoming.installing) {
            return;
        }
        if self.has_all_of(meta) && !planted!("R26") {
            probe!("raft.snapshot_not_needed");
            self.incoming = None;
            // That it has all of it is an acknowledgement. Without one the leader asks again.
            if self.acknowledgeable() >= meta.index {
                self.reply_snapshot(from, meta, SnapshotOutcome::Installed);
            }
            return;
        }
        let incoming = match &mut self.incoming {
            Some(incoming) if incoming.meta == meta => incoming,
            other => other.insert(Incoming::new(meta)),
        };
        if incoming.writing {
            return;
        }
        if offset != incoming.offset {
            probe!("raft.snapshot_resumed");
            let offset = incoming.offset;
            self.reply_snapshot(from, meta, SnapshotOutcome::Stored { offset });
            return;
        }
        incoming.writing = true;
        incoming.installing = done;
        self.out.snapshot_writes.push(SnapshotWrite { meta, offset, data, done });
    }

    /// Tells whether the log holds everything the snapshot stands for, and notes that it is
    /// committed if so.
    fn has_all_of(&mut self, meta: SnapshotMeta) -> bool {
        if meta.index <= self.commit {
            return true;
        }
        if self.log.term_at(meta.index) != Some(meta.term) {
            return false;
        }
        self.advance_commit(meta.index);
        true
    }

    pub(super) fn on_snapshot_stored(&mut self, meta: SnapshotMeta, offset: u64) {
        let Some(incoming) = &mut self.incoming else { return };
        if incoming.meta != meta || incoming.installing || !incoming.writing {
            return;
        }
        incoming.writing = false;
        incoming.offset = offset;
        if let Some(leader) = self.leader.filter(|&leader| leader != self.id()) {
            self.reply_snapshot(leader, meta, SnapshotOutcome::Stored { offset });
        }
    }

    /// Goes on from the state of an installed snapshot.
    pub(super) fn on_snapshot_installed(&mut self, meta: SnapshotMeta) {
        if !self.incoming.as_ref().is_some_and(|i| i.meta == meta && i.installing) {
            return;
        }
        self.incoming = None;
        if self.log.term_at(meta.index) == Some(meta.term) && !planted!("R26") {
            probe!("raft.snapshot_installed_under_log");
            self.durable.covered(meta.index);
        } else {
            probe!("raft.snapshot_replaces_log");
            self.replace_log(meta);
        }
        self.snapshot = meta;
        self.commit = self.commit.max(meta.index);
        self.applied = meta.index;
        self.apply_next = meta.index + 1;
        self.check_recovery();
        if let RoleState::Follower(follower) = &mut self.role {
            follower.verified = follower.verified.max(meta.index);
        }
        if let Some(leader) = self.leader.filter(|&leader| leader != self.id()) {
            self.reply_snapshot(leader, meta, SnapshotOutcome::Installed);
        }
    }

    /// Throws the log away, which the snapshot contradicts or leaves behind.
    fn replace_log(&mut self, meta: SnapshotMeta) {
        let is_leader = matches!(self.role, RoleState::Leader(_));
        assert!(!is_leader, "R6: {} leads without the committed {meta:?}", self.id());
        if planted!("R26") {
            self.commit = meta.index;
            self.role = RoleState::Follower(super::core::Follower::new(meta.index, self.now));
        }
        assert!(
            meta.index >= self.commit,
            "R6: snapshot {meta:?} would replace a log committed up to {}",
            self.commit
        );
        self.log = Log::new(meta);
        self.durable.reset(meta.index);
    }

    pub(super) fn on_snapshot_failed(&mut self, meta: SnapshotMeta) {
        if self.incoming.as_ref().is_none_or(|incoming| incoming.meta != meta) {
            return;
        }
        probe!("raft.snapshot_failed");
        self.incoming = None;
        if let Some(leader) = self.leader.filter(|&leader| leader != self.id()) {
            self.reply_snapshot(leader, meta, SnapshotOutcome::Failed);
        }
    }

    /// Counts what was committed after `before`, if it is held back.
    pub(super) fn count_held(&mut self, before: Index) {
        let commit = self.commit;
        let Some(incoming) = self.incoming.as_mut().filter(|i| i.installing) else { return };
        let held = self.log.entries_from(before + 1).take_while(|entry| entry.index <= commit);
        incoming.held_bytes += held.map(Entry::weight).sum::<usize>();
        if incoming.held_bytes >= self.config.held_bytes_max && incoming.acknowledge_max.is_none() {
            probe!("raft.too_much_waits_for_a_snapshot");
            incoming.acknowledge_max = Some(commit);
        }
    }

    fn reply_snapshot(&mut self, to: NodeId, meta: SnapshotMeta, outcome: SnapshotOutcome) {
        self.send(to, Message::SnapshotReply { term: self.term(), meta, outcome });
    }
}

impl Incoming {
    fn new(meta: SnapshotMeta) -> Self {
        Self {
            meta,
            offset: 0,
            writing: false,
            installing: false,
            held_bytes: 0,
            acknowledge_max: None,
        }
    }
}

/// Goes back to the log after a follower has installed the snapshot that ends at `index`.
fn finish_transfer(progress: &mut Progress, index: Index, log: &Log) {
    progress.matched(index, log);
    if progress.state == ProgressState::Snapshot {
        // Compacted past it in the meantime: send the newer one.
        probe!("raft.snapshot_outdated");
        progress.needs_snapshot(Transfer::new());
    }
}
