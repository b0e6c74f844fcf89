//! What one replica says to another, and the log entry that it carries.
//!
//! Follows the RPCs of [Raft Figure 2 and Figure 13], as one-way messages: an answer is a message
//! of its own, so nothing waits.

use std::fmt;

use bincode::{Decode, Encode};

use super::standing::Standing;
use crate::base::limits::POSITION_MAX;
use crate::base::{Index, Payload, Term};

/// One entry of the replicated log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Term of the leader that appended it.
    pub term: Term,
    /// Position in the log.
    pub index: Index,
    /// What it carries.
    pub kind: EntryKind,
}

/// What a log entry carries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum EntryKind {
    /// Nothing: appended by each new leader, so that it can commit in its own term. [Raft §8]
    Noop,
    /// A command of the state machine, opaque here.
    Command(Payload),
}

/// The state that a snapshot stands for: everything up to and including one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode)]
pub struct SnapshotMeta {
    /// Last entry that the snapshot covers; 0 for the empty state.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
}

/// A message between two replicas. Every one carries its sender's term [Raft §5.1], but for the
/// question of one who knows none.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// "Would you vote for me in `term`?" Changes nothing at the receiver. [Thesis §9.6]
    PreVote {
        /// The term that the sender would campaign in (its own plus one).
        term: Term,
        /// Index of the sender's last entry.
        last_index: Index,
        /// Term of the sender's last entry.
        last_term: Term,
    },
    /// Answer to a pre-vote.
    PreVoteReply {
        /// The asked-for term if granted, else the receiver's own.
        term: Term,
        /// Whether the receiver would vote.
        granted: bool,
    },
    /// "Vote for me." [Raft §5.2]
    Vote {
        /// The candidate's term.
        term: Term,
        /// Index of the candidate's last entry.
        last_index: Index,
        /// Term of the candidate's last entry.
        last_term: Term,
    },
    /// Answer to a vote request; leaves only once the vote is durable.
    VoteReply {
        /// The voter's term.
        term: Term,
        /// Whether the vote was given.
        granted: bool,
    },
    /// Entries for the log, or none as a heartbeat. [Raft §5.3]
    Append {
        /// The leader's term.
        term: Term,
        /// Index of the entry before `entries`.
        prev_index: Index,
        /// Term of that entry.
        prev_term: Term,
        /// Entries that follow it, possibly none.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
        /// Highest read round that this message asks the follower to confirm. [Thesis §6.4]
        round: u64,
    },
    /// Answer to an append.
    AppendReply {
        /// The follower's term.
        term: Term,
        /// Read round of the message that is answered.
        round: u64,
        /// What became of the entries.
        outcome: AppendOutcome,
    },
    /// One piece of a snapshot. [Raft §7, Figure 13]
    SnapshotChunk {
        /// The leader's term.
        term: Term,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Position of `data` in the snapshot's bytes.
        offset: u64,
        /// The bytes.
        data: Payload,
        /// Whether this is the last piece.
        done: bool,
    },
    /// Answer to a piece of a snapshot.
    SnapshotReply {
        /// The follower's term.
        term: Term,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// What became of it.
        outcome: SnapshotOutcome,
    },
    /// "How do you stand?" Asked by one whose disk is empty or unsure; see [`Standing`].
    Compare {
        /// Belongs to this start of the sender.
        nonce: u64,
    },
    /// Answer to that; leaves only once term and standing are durable. The end of the log may not
    /// be: then it asks for more than what a power loss would leave, which does no harm.
    Standing {
        /// The sender's term.
        term: Term,
        /// The number of the question.
        nonce: u64,
        /// What the sender knows of its own past.
        standing: Standing,
        /// The end of its log, or of what its disk has lost of it.
        last: SnapshotMeta,
    },
    /// "You had acknowledged everything up to here, and have it no more." From the leader.
    Forgotten {
        /// The leader's term.
        term: Term,
        /// Last entry that the follower had acknowledged to it.
        last: SnapshotMeta,
    },
}

/// What became of the entries of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum AppendOutcome {
    /// The log equals the leader's up to here, and is durable up to here.
    Matched {
        /// Last durable index known to equal the leader's.
        index: Index,
    },
    /// The entry before the first one is missing or of another term. [Raft §5.3, end]
    Rejected {
        /// The `prev_index` that did not match.
        prev_index: Index,
        /// Where the leader should try next: the follower has nothing that matches after it.
        hint_index: Index,
        /// Term of the follower's entry there, so that the leader can skip whole terms.
        hint_term: Term,
    },
}

/// What became of a piece of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum SnapshotOutcome {
    /// Stored up to this offset; send what follows (also tells a sender where to resume).
    Stored {
        /// Bytes that the follower has.
        offset: u64,
    },
    /// Installed and durable, or not needed: the follower matches up to the snapshot's index.
    Installed,
    /// Could not be used (damaged, or another one is under way): start again later.
    Failed,
}

impl Entry {
    /// Returns what the entry counts for in limits of bytes: its command and its own size.
    pub fn weight(&self) -> usize {
        let command_bytes = match &self.kind {
            EntryKind::Noop => 0,
            EntryKind::Command(command) => command.len(),
        };
        size_of::<Self>() + command_bytes
    }
}

impl Message {
    /// Highest term a message may carry. No cluster lives long enough to reach it; it keeps a
    /// mad peer from pushing the term to where it cannot be raised any more.
    pub const TERM_MAX: Term = POSITION_MAX;

    /// Highest index a message may carry.
    pub const INDEX_MAX: Index = POSITION_MAX;

    /// Returns the term that the message was sent in (or would be voted in, for a pre-vote); 0 for
    /// a question that has none.
    pub fn term(&self) -> Term {
        match self {
            Self::PreVote { term, .. }
            | Self::PreVoteReply { term, .. }
            | Self::Vote { term, .. }
            | Self::VoteReply { term, .. }
            | Self::Append { term, .. }
            | Self::AppendReply { term, .. }
            | Self::SnapshotChunk { term, .. }
            | Self::SnapshotReply { term, .. }
            | Self::Standing { term, .. }
            | Self::Forgotten { term, .. } => *term,
            Self::Compare { .. } => 0,
        }
    }

    /// Tells whether the message is one that a correct replica could have sent at some time: its
    /// numbers are within bounds, its entries without gap, and their terms in order.
    pub fn is_well_formed(&self) -> bool {
        let term = self.term();
        if let Self::Compare { .. } | Self::Standing { .. } = self {
            return self.tells_of_a_past();
        }
        if term == 0 || term > Self::TERM_MAX {
            return matches!(self, Self::PreVoteReply { term: 0, granted: false });
        }
        match self {
            Self::PreVote { last_index, last_term, .. }
            | Self::Vote { last_index, last_term, .. } => {
                *last_index <= Self::INDEX_MAX && *last_term < term
            }
            Self::Append { prev_index, prev_term, entries, .. } => {
                let mut last = (*prev_index, *prev_term);
                *prev_index <= Self::INDEX_MAX
                    // Before the first entry all logs agree.
                    && (*prev_index > 0 || *prev_term == 0)
                    && entries.iter().all(|entry| {
                        let follows = entry.index == last.0 + 1 && entry.term >= last.1;
                        last = (entry.index, entry.term);
                        follows
                    })
                    && last.1 <= term
            }
            Self::AppendReply { outcome, .. } => match outcome {
                AppendOutcome::Matched { index } => *index <= Self::INDEX_MAX,
                AppendOutcome::Rejected { prev_index, hint_index, .. } => {
                    *prev_index <= Self::INDEX_MAX && *hint_index <= Self::INDEX_MAX
                }
            },
            Self::SnapshotChunk { meta, .. } | Self::Forgotten { last: meta, .. } => {
                meta.index > 0 && meta.index <= Self::INDEX_MAX && meta.term <= term
            }
            Self::SnapshotReply { meta, .. } => meta.index <= Self::INDEX_MAX,
            Self::PreVoteReply { .. }
            | Self::VoteReply { .. }
            | Self::Compare { .. }
            | Self::Standing { .. } => true,
        }
    }

    /// Tells whether a log can have ended so in that term, which may be the one before the first.
    fn tells_of_a_past(&self) -> bool {
        let Self::Standing { term, last, .. } = self else { return true };
        *term <= Self::TERM_MAX && last.index <= Self::INDEX_MAX && last.term <= *term
    }
}

impl fmt::Display for SnapshotMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// Shows a message as traces do, without its term: `Append prev=4@2 [5@3 6@3] commit=4`.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = |granted: &bool| if *granted { "granted" } else { "refused" };
        match self {
            Self::PreVote { term, last_index, last_term } => {
                write!(f, "PreVote term={term} last={last_index}@{last_term}")
            }
            Self::PreVoteReply { term, granted } => {
                write!(f, "PreVoteReply term={term} {}", answer(granted))
            }
            Self::Vote { last_index, last_term, .. } => {
                write!(f, "Vote last={last_index}@{last_term}")
            }
            Self::VoteReply { granted, .. } => write!(f, "VoteReply {}", answer(granted)),
            Self::Append { prev_index, prev_term, entries, commit, round, .. } => {
                write!(f, "Append prev={prev_index}@{prev_term}")?;
                match entries.as_slice() {
                    [] => {}
                    [one] => write!(f, " [{one}]")?,
                    [first, second] => write!(f, " [{first} {second}]")?,
                    [first, .., last] => write!(f, " [{first} … {last}]")?,
                }
                write!(f, " commit={commit}")?;
                if *round > 0 { write!(f, " round={round}") } else { Ok(()) }
            }
            Self::AppendReply { round, outcome, .. } => {
                match outcome {
                    AppendOutcome::Matched { index } => write!(f, "Matched {index}")?,
                    AppendOutcome::Rejected { prev_index, hint_index, hint_term } => {
                        write!(f, "Rejected prev={prev_index} hint={hint_index}@{hint_term}")?;
                    }
                }
                if *round > 0 { write!(f, " round={round}") } else { Ok(()) }
            }
            Self::SnapshotChunk { meta, offset, data, done, .. } => {
                let end = if *done { " done" } else { "" };
                write!(f, "SnapshotChunk {meta} offset={offset} bytes={}{end}", data.len())
            }
            Self::SnapshotReply { meta, outcome, .. } => match outcome {
                SnapshotOutcome::Stored { offset } => write!(f, "SnapshotStored {meta} {offset}"),
                SnapshotOutcome::Installed => write!(f, "SnapshotInstalled {meta}"),
                SnapshotOutcome::Failed => write!(f, "SnapshotFailed {meta}"),
            },
            Self::Compare { .. } => f.write_str("Compare"),
            Self::Standing { standing, last, .. } => write!(f, "Standing {standing} last={last}"),
            Self::Forgotten { last, .. } => write!(f, "Forgotten last={last}"),
        }
    }
}
