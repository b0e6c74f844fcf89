//! What is on this node's disk, and which messages wait for it.
//!
//! The core hands out numbered persist requests and is told when they are durable. In between it
//! goes on: it may take entries back that are still being written, and change its term. So each
//! request in flight remembers up to which index it makes the log *as it is now* durable, and
//! truncation lowers that mark. A late completion can then never vouch for entries that have
//! replaced the ones it wrote, although index and even length may be the same.
//!
//! A message that tells of a term or a vote waits until the hard state of the moment it was made
//! is durable. Acknowledgements of entries are not queued at all: they are made from the marks
//! here when a [`Ready`](super::Ready) is taken, so they are never stale.

use std::collections::VecDeque;

use super::message::Message;
use super::ready::PersistId;
use crate::base::{Index, Instant, NodeId, Term};
use crate::{planted, probe};

/// Most messages that wait for the disk. Too small: what a slow disk delays is lost as well, and
/// sent again later. Too large: a full disk fills the memory.
pub(super) const HELD_MAX: usize = 4096;

/// One persist request that is not durable yet.
#[derive(Debug)]
struct InFlight {
    id: PersistId,
    /// Up to here it makes today's log durable; 0 if it holds nothing of it.
    last: Index,
    since: Instant,
}

/// The state of the disk as the core knows it.
#[derive(Debug)]
pub(super) struct Durable {
    /// The log as it is now is durable up to here.
    index: Index,
    /// First entry that no persist request holds yet.
    entries_next: Index,
    /// Every request up to this one is durable.
    through: PersistId,
    /// The last request handed out.
    issued: PersistId,
    /// The request that holds the newest hard state, possibly one not handed out yet.
    hard_state_id: PersistId,
    in_flight: VecDeque<InFlight>,
    held: VecDeque<(PersistId, NodeId, Message)>,
}

impl Durable {
    /// Starts with everything up to `last` on the disk.
    pub(super) fn new(last: Index) -> Self {
        Self {
            index: last,
            entries_next: last + 1,
            through: 0,
            issued: 0,
            hard_state_id: 0,
            in_flight: VecDeque::new(),
            held: VecDeque::new(),
        }
    }

    /// Returns up to where the log as it is now is durable.
    pub(super) fn index(&self) -> Index {
        self.index
    }

    /// Returns the first entry that has to go into the next request.
    pub(super) fn entries_next(&self) -> Index {
        self.entries_next
    }

    /// Notes that term or vote changed: the next request will hold them.
    pub(super) fn hard_state_changed(&mut self) {
        self.hard_state_id = self.issued + 1;
    }

    /// Tells whether the next request has to hold the hard state.
    pub(super) fn hard_state_is_due(&self) -> bool {
        self.hard_state_id > self.issued
    }

    /// Tells whether the newest term and vote would survive a crash now.
    pub(super) fn hard_state_is_durable(&self) -> bool {
        self.hard_state_id <= self.through || planted!("W10")
    }

    /// Notes that the log was cut after `last`.
    pub(super) fn truncated(&mut self, last: Index) {
        self.index = self.index.min(last);
        self.entries_next = self.entries_next.min(last + 1);
        for request in &mut self.in_flight {
            if request.last > last {
                probe!("raft.truncates_while_persisting");
                request.last = last;
            }
        }
    }

    /// Notes that a durable snapshot covers everything up to `index`, the log after it kept.
    pub(super) fn covered(&mut self, index: Index) {
        self.index = self.index.max(index);
        self.entries_next = self.entries_next.max(index + 1);
    }

    /// Notes that a durable snapshot up to `index` replaced the whole log.
    pub(super) fn reset(&mut self, index: Index) {
        self.truncated(index);
        self.covered(index);
    }

    /// Hands out the number of the next request, which holds the log up to `last`.
    pub(super) fn issue(&mut self, last: Index, now: Instant) -> PersistId {
        self.issued += 1;
        self.entries_next = last + 1;
        self.in_flight.push_back(InFlight { id: self.issued, last, since: now });
        self.issued
    }

    /// Notes that every request up to `through` is durable; tells whether that was news.
    pub(super) fn completed(&mut self, through: PersistId) -> bool {
        assert!(through <= self.issued, "persisted {through}, issued only {}", self.issued);
        if through <= self.through {
            return false;
        }
        self.through = through;
        while let Some(request) = self.in_flight.pop_front_if(|request| request.id <= through) {
            self.index = self.index.max(request.last);
        }
        true
    }

    /// Returns the message if it may leave now; keeps it until the hard state is durable if not.
    pub(super) fn hold(&mut self, to: NodeId, message: Message) -> Option<(NodeId, Message)> {
        if self.hard_state_is_durable() {
            return Some((to, message));
        }
        // All of them are sent again in time, and a full disk may last for days.
        if self.held.len() < HELD_MAX {
            self.held.push_back((self.hard_state_id, to, message));
        }
        None
    }

    /// Takes a message that may leave now. One of a term before `term` is dropped: true, but
    /// nobody waits for it.
    pub(super) fn release(&mut self, term: Term) -> Option<(NodeId, Message)> {
        let through = self.through;
        loop {
            let (_, to, message) = self.held.pop_front_if(|(id, _, _)| *id <= through)?;
            if message.term() >= term {
                return Some((to, message));
            }
            probe!("raft.stale_persisted_ignored");
        }
    }

    /// Returns since when the oldest request has been waiting for the disk.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|request| request.since)
    }

    /// Asserts what holds at any moment, given the end of the log. [R3]
    pub(super) fn check(&self, last: Index) {
        assert!(self.index <= last, "R3: durable up to {}, log ends at {last}", self.index);
        let entries_next = self.entries_next;
        assert!(
            self.index < entries_next && entries_next <= last + 1,
            "R3: durable {}, next to persist {entries_next}, log ends at {last}",
            self.index
        );
        assert!(
            self.through <= self.issued && self.hard_state_id <= self.issued + 1,
            "R3: durable request {}, hard state in {}, issued {}",
            self.through,
            self.hard_state_id,
            self.issued
        );
        if let Some((id, _, message)) = self.held.front() {
            assert!(*id > self.through, "R3: {message} is held for {id}, which is durable");
        }
    }
}
