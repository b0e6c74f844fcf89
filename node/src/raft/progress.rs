//! What the leader knows of one follower, and what it may send to it next.
//!
//! ```text
//!            Matched                     PeerLost, Rejected
//!  Probe ─────────────▶ Replicate ─────────────────────────▶ Probe
//!    │                      │
//!    └──── what comes next was compacted ────▶ Snapshot ──── Installed, Matched ──▶ Replicate
//! ```
//! *Probe*: where the logs agree is not known. One empty append at a time asks, at once and then
//! with every heartbeat, so a dead follower costs no payload. *Replicate*: appends flow without
//! waiting for answers, as far as the window allows. *Snapshot*: a snapshot is being sent.
//!
//! An append lost without a trace shows at the next heartbeat, which carries the index *before*
//! the next entry to send: the follower rejects it, and the state falls back to Probe.

use std::collections::VecDeque;
use std::fmt;

use super::log::Log;
use super::message::{Entry, SnapshotMeta};
use super::snapshot::Transfer;
use crate::base::{Index, Instant, Term};
use crate::{planted, probe};

/// How a follower is being replicated to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressState {
    /// Searching for the last entry both logs share.
    Probe,
    /// Streaming entries.
    Replicate,
    /// Sending a snapshot, because the entries that the follower needs are gone.
    Snapshot,
}

impl fmt::Display for ProgressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Probe => "probe",
            Self::Replicate => "replicate",
            Self::Snapshot => "snapshot",
        })
    }
}

/// One follower as its leader sees it.
#[derive(Debug)]
pub struct Progress {
    /// Highest index known to be durable there and equal to the leader's. [Raft Figure 2]
    pub match_index: Index,
    /// Next entry to send. [Raft Figure 2]
    pub next_index: Index,
    /// How it is being replicated to.
    pub state: ProgressState,
    /// When it last answered in this term.
    pub(super) contact: Instant,
    /// Highest read round that it confirmed.
    pub(super) round: u64,
    /// A message must leave even if it carries no entry: probe, heartbeat or read round.
    pub(super) due: bool,
    /// The last entry that it had acknowledged and has lost, until it has that again.
    pub(super) forgotten: Option<SnapshotMeta>,
    /// The snapshot being sent, in state Snapshot.
    pub(super) transfer: Option<Transfer>,
    /// Last index and bytes of every append that was not acknowledged yet.
    in_flight: VecDeque<(Index, usize)>,
    in_flight_bytes: usize,
}

impl Progress {
    /// Starts probing at the end of the leader's log.
    pub(super) fn new(last_index: Index, now: Instant) -> Self {
        Self {
            match_index: 0,
            next_index: last_index + 1,
            state: ProgressState::Probe,
            contact: now,
            round: 0,
            due: true,
            forgotten: None,
            transfer: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// Tells whether another append fits the window of `count_max` messages and `bytes_max`.
    pub(super) fn has_room(&self, count_max: usize, bytes_max: usize) -> bool {
        self.in_flight.len() < count_max && self.in_flight_bytes < bytes_max
    }

    /// Returns messages and bytes in flight.
    pub(super) fn in_flight(&self) -> (usize, usize) {
        (self.in_flight.len(), self.in_flight_bytes)
    }

    /// Notes an append that ends at `last` and carries `bytes`.
    pub(super) fn sent(&mut self, last: Index, bytes: usize) {
        assert!(last >= self.next_index, "sent up to {last}, next was {}", self.next_index);
        self.next_index = last + 1;
        self.in_flight.push_back((last, bytes));
        self.in_flight_bytes += bytes;
    }

    /// Notes that the follower has everything up to `index`, and can be streamed to if the log
    /// still has what follows.
    pub(super) fn matched(&mut self, index: Index, log: &Log) {
        self.match_index = self.match_index.max(index);
        self.forgotten = self.forgotten.filter(|last| last.index > index);
        self.next_index = self.next_index.max(index + 1);
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(last, _)| *last <= index) {
            self.in_flight_bytes -= bytes;
        }
        match self.state {
            ProgressState::Probe => {
                self.state = ProgressState::Replicate;
                self.count_unacknowledged(log);
            }
            ProgressState::Snapshot if self.match_index >= log.base().index => {
                self.state = ProgressState::Replicate;
                self.transfer = None;
                self.next_index = self.match_index + 1;
            }
            ProgressState::Replicate | ProgressState::Snapshot => {}
        }
    }

    /// Counts what the follower has and has not acknowledged yet as in flight. One that is
    /// [behind](super::Input::Behind) would else get another window from each new leader.
    fn count_unacknowledged(&mut self, log: &Log) {
        let last = self.next_index - 1;
        if last <= self.match_index {
            return;
        }
        assert!(self.in_flight.is_empty(), "{} appends in flight in a probe", self.in_flight.len());
        let held = log.entries_from(self.match_index + 1).take_while(|entry| entry.index <= last);
        self.in_flight_bytes = held.map(Entry::weight).sum();
        self.in_flight.push_back((last, self.in_flight_bytes));
    }

    /// Notes that the follower's log differs at `prev`, and that nothing after `hint` (an index
    /// and the term there) can be the same. [Raft §5.3, end]
    pub(super) fn rejected(&mut self, prev: Index, hint: (Index, Term), log: &Log) {
        let stale = match self.state {
            ProgressState::Snapshot => true,
            ProgressState::Probe => prev + 1 != self.next_index,
            ProgressState::Replicate => prev < self.match_index || prev >= self.next_index,
        };
        if stale {
            probe!("raft.stale_rejection_ignored");
            return;
        }
        let shared = log.last_not_after(hint.0.min(prev.saturating_sub(1)), hint.1);
        if shared < self.match_index {
            // Its disk lied, or is an older copy: count it no longer for what it has lost.
            probe!("raft.follower_lost_acknowledged");
            if !planted!("R54") {
                self.note_forgotten(log);
            }
            self.match_index = shared;
        }
        self.probe_from(shared + 1);
    }

    /// Notes that the follower has less than it had acknowledged.
    fn note_forgotten(&mut self, log: &Log) {
        let term = log.term_at(self.match_index);
        // What is cut off the log is committed, and so is its end.
        let last = term.map_or(log.base(), |term| SnapshotMeta { index: self.match_index, term });
        let known = self.forgotten.filter(|known| known.index > last.index);
        self.forgotten = Some(known.unwrap_or(last));
    }

    /// Notes that messages in flight may be lost.
    pub(super) fn lost(&mut self) {
        if self.state == ProgressState::Replicate {
            self.probe_from(self.match_index + 1);
        }
    }

    /// Starts sending a snapshot.
    pub(super) fn needs_snapshot(&mut self, transfer: Transfer) {
        self.forget_in_flight();
        self.state = ProgressState::Snapshot;
        self.transfer = Some(transfer);
    }

    fn probe_from(&mut self, next: Index) {
        self.forget_in_flight();
        self.state = ProgressState::Probe;
        self.next_index = next;
        self.due = true;
    }

    fn forget_in_flight(&mut self) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }
}
