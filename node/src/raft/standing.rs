//! Who has forgotten: the founding of a cluster, and the way back of a disk that was lost, or of
//! the last vote on it.
//!
//! A replica with an empty disk belongs to a cluster that is new, or it has lost everything: the
//! entries that it acknowledged, and the votes that it gave. It cannot tell which, nor can the one
//! who starts it be trusted to. If it voted, it could elect somebody who lacks what is committed
//! by its own word, or a second leader of a term. So whoever is [new](Standing::New) takes part in
//! nothing before *all* others have answered how they stand, and then:
//!
//! - If so many are whole that at least one of them holds each committed entry, its disk was lost.
//!   It enters the latest term of all, where it has no vote left, because every term in which it
//!   can have voted was entered before by the one who asked for the vote. And it remembers the end
//!   of the longest log of all: until its own log has got there it votes as if it had it, and does
//!   not campaign, as with a damaged disk. So it counts again at once, and has its share soon.
//! - If all others are new as well, the cluster is to be founded. It says so to its disk and then
//!   to the others, and takes part when all of them have said the same: after that, whoever comes
//!   back *founding* needs nobody's word that nothing was forgotten. Without this step, who starts
//!   again too soon would find one node whole, one new, and never enough.
//! - If too few are whole, more disks were lost than a cluster can bear. It keeps silent and goes
//!   on asking, because a log that lacks committed entries would be taken for all there is.
//!
//! A question carries a number that belongs to this start, so that an answer to the disk before is
//! not taken for one to this. Answers stay true while the others go on: what matters is what was
//! forgotten, and that was before the question.
//!
//! # Why all, and why the vote
//! A vote may be on its way for longer than its voter exists. If a majority's answers were enough,
//! the candidate need not be among them: the new disk would acknowledge an entry in the old term,
//! and the vote arrive after that and elect a leader without it. Recovery without stable storage
//! has been published with this hole more than once [Michael '17].
//!
//! # A disk that says too little
//! Both records of the last vote are damaged; or the state is lost, and nothing is left that tells
//! how far it went ([`Standing::Unsure`]). That replica asks the others as a new one does, and for
//! the same reasons needs all of them, and enough that are whole. It keeps what it has meanwhile,
//! and afterwards a vote that it still knows to be of the latest term.
//!
//! # A disk that is older than it was
//! Nothing tells it from a sound one, nor one that lied about a sync. Only a leader to which the
//! replica had acknowledged more finds out, by the first append that it refuses, and says so until
//! the follower has all of that again ([`Message::Forgotten`]). From then on it is *filling*, as
//! after an exchange, and has no vote left in the term. So such a disk is a danger for as long as
//! it takes to hear from its leader, and not for as long as it takes to be filled.
//!
//! # Left out
//! What an older disk had promised to others than the present leader.
//!
//! # Sources
//! \[VRR §4.3\] recovery by asking the others; Michael et al., *Recovering Shared Objects Without
//! Stable Storage* (DISC 2017), on what such protocols got wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bincode::{Decode, Encode};
use serde::Serialize;

use super::core::Raft;
use super::message::{Message, SnapshotMeta};
use super::quorum;
use super::ready::HardState;
use crate::base::{Instant, NodeId, Term};
use crate::{planted, probe};

/// What a replica knows of its own past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Standing {
    /// It has forgotten nothing that it knows of.
    #[default]
    Whole,
    /// Its disk is empty, and nobody knows yet why. Never on a disk.
    New,
    /// All others were new when it was.
    Founding,
    /// Its disk was lost, is damaged, or is older than it was; it may have had everything up to
    /// here.
    Filling(SnapshotMeta),
    /// It may have given a vote, or acknowledged entries, and knows nothing of it.
    Unsure,
}

impl Standing {
    /// Tells whether a cluster may still be in its founding.
    fn is_beginning(self) -> bool {
        matches!(self, Self::New | Self::Founding)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::New => f.write_str("new"),
            Self::Founding => f.write_str("founding"),
            Self::Filling(last) => write!(f, "filling to {last}"),
            Self::Unsure => f.write_str("unsure"),
        }
    }
}

/// What a replica that does not take part yet waits for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaited {
    /// The answers of these.
    Answers(Vec<NodeId>),
    /// All are new: that these say so to their disks, too.
    Founding(Vec<NodeId>),
    /// All have answered, and the disks of these are not whole, either: too many to know what was
    /// lost. One of them has to come back with its old disk.
    WholeDisk(Vec<NodeId>),
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &[NodeId]| {
            let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            names.join(", ")
        };
        match self {
            Self::Answers(nodes) => write!(f, "{} to answer", list(nodes)),
            Self::Founding(nodes) if nodes.is_empty() => {
                f.write_str("all others to found the cluster with it")
            }
            Self::Founding(nodes) => write!(f, "{} to found the cluster with it", list(nodes)),
            Self::WholeDisk(nodes) => {
                write!(f, "one of {} to come back with its old disk", list(nodes))
            }
        }
    }
}

/// How another replica stands.
#[derive(Debug, Clone, Copy)]
struct Answer {
    standing: Standing,
    term: Term,
    last: SnapshotMeta,
}

/// What a replica has to know before it takes part.
#[derive(Debug)]
pub(super) struct Comparison {
    nonce: u64,
    answers: BTreeMap<NodeId, Answer>,
    pub(super) resend_deadline: Instant,
}

impl Comparison {
    /// Begins to ask, at once.
    pub(super) fn new(nonce: u64, now: Instant) -> Self {
        Self { nonce, answers: BTreeMap::new(), resend_deadline: now }
    }

    fn count(&self, is_meant: impl Fn(Standing) -> bool) -> usize {
        self.answers.values().filter(|answer| is_meant(answer.standing)).count()
    }

    /// Returns the latest term, and the end of the longest log.
    fn latest(&self) -> (Term, SnapshotMeta) {
        let term = self.answers.values().map(|answer| answer.term).max();
        let last = self.answers.values().map(|answer| (answer.last.term, answer.last.index)).max();
        let (last_term, index) = last.unwrap_or_default();
        (term.unwrap_or_default(), SnapshotMeta { index, term: last_term })
    }
}

impl Raft {
    /// Returns what the replica knows of its own past.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Tells whether the replica does not take part yet.
    pub fn is_comparing(&self) -> bool {
        self.comparison.is_some()
    }

    /// Returns what the replica waits for, if it does not take part yet.
    pub fn awaited(&self) -> Option<Awaited> {
        let comparison = self.comparison.as_ref()?;
        let those = |is_meant: &dyn Fn(Option<Standing>) -> bool| -> Vec<NodeId> {
            let standing = |peer| comparison.answers.get(peer).map(|answer| answer.standing);
            self.peers.iter().filter(|peer| is_meant(standing(peer))).copied().collect()
        };
        let silent = those(&|standing| standing.is_none());
        Some(if !silent.is_empty() {
            Awaited::Answers(silent)
        } else if self.standing == Standing::Founding {
            Awaited::Founding(those(&|standing| standing == Some(Standing::New)))
        } else {
            Awaited::WholeDisk(those(&|standing| standing != Some(Standing::Whole)))
        })
    }

    fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
        self.standing_is_due = true;
        self.durable.hard_state_changed();
    }

    /// Takes a question or an answer about a past.
    pub(super) fn on_past(&mut self, from: NodeId, message: &Message) {
        if let Message::Compare { nonce } = *message {
            self.on_compare(from, nonce);
        }
        if let Message::Standing { term, nonce, standing, last } = *message {
            self.on_standing(from, nonce, Answer { standing, term, last });
        }
    }

    /// Answers how this replica stands, as soon as its disk says the same of term and standing.
    fn on_compare(&mut self, from: NodeId, nonce: u64) {
        let (last_term, index) = self.end_it_vouches_for();
        let last = SnapshotMeta { index, term: last_term };
        let (term, standing) = (self.term(), self.standing);
        self.send(from, Message::Standing { term, nonce, standing, last });
    }

    /// Takes another's answer.
    fn on_standing(&mut self, from: NodeId, nonce: u64, answer: Answer) {
        let Some(comparison) = self.comparison.as_mut().filter(|asked| asked.nonce == nonce) else {
            probe!("raft.late_standing_ignored");
            return;
        };
        comparison.answers.insert(from, answer);
        match self.standing {
            Standing::New | Standing::Unsure => self.weigh_loss(),
            Standing::Founding => self.weigh_as_founding(),
            Standing::Whole | Standing::Filling(_) => {}
        }
    }

    /// Takes part again, once it is known what can have been lost at most.
    fn weigh_loss(&mut self) {
        let (nodes, peers) = (self.peers.len() + 1, self.peers.len());
        let Some(comparison) = &self.comparison else { return };
        if comparison.answers.len() < peers {
            return;
        }
        let is_new = self.standing == Standing::New;
        if is_new && comparison.count(Standing::is_beginning) == peers {
            probe!("raft.founding");
            self.set_standing(Standing::Founding);
            self.ask_again(Duration::ZERO);
            return;
        }
        // Any majority that has committed something has one of these among it.
        let needed = nodes - quorum::majority(nodes) + 1;
        let whole = comparison.count(|standing| standing == Standing::Whole);
        if whole < needed {
            probe!("raft.too_many_disks_are_new");
            return;
        }
        if is_new {
            probe!("raft.lost_disk_is_filled");
        } else {
            probe!("raft.unsure_of_its_promises");
        }
        let (term, last) = comparison.latest();
        self.comparison = None;
        if term > self.term() {
            self.hard_state = HardState { term, vote: None };
        }
        if self.hard_state.vote.is_none() && self.term() > 0 && !planted!("R53") {
            // In that one it may have voted.
            self.hard_state.vote = Some(self.id());
        }
        let (last_term, index) = self.end_it_vouches_for().max((last.term, last.index));
        let last = SnapshotMeta { index, term: last_term };
        self.damaged_last = Some(last);
        self.set_standing(Standing::Filling(last));
        self.reset_election_timer();
        self.check_recovery();
    }

    fn weigh_as_founding(&mut self) {
        let peers = self.peers.len();
        let Some(comparison) = &self.comparison else { return };
        let others_are_done = comparison.count(|standing| !standing.is_beginning()) > 0;
        let all_know = comparison.count(|standing| standing != Standing::New) == peers;
        if others_are_done || all_know {
            self.take_part();
        }
    }

    /// Takes part from now on, with nothing forgotten.
    fn take_part(&mut self) {
        self.comparison = None;
        self.set_standing(Standing::Whole);
        self.reset_election_timer();
    }

    /// Takes the leader's word that this replica had acknowledged what it has no more.
    pub(super) fn on_forgotten(&mut self, last: SnapshotMeta) {
        if self.end_it_vouches_for() >= (last.term, last.index) {
            return;
        }
        probe!("raft.follower_is_told_what_it_lost");
        if self.hard_state.vote.is_none() {
            // It may have had one in this term, for anybody.
            self.hard_state.vote = Some(self.id());
        }
        self.damaged_last = Some(last);
        self.set_standing(Standing::Filling(last));
    }

    /// Notes that what was lost is there again.
    pub(super) fn note_filled(&mut self) {
        if matches!(self.standing, Standing::Filling(_)) {
            self.set_standing(Standing::Whole);
        }
    }

    /// Asks all others again: what they have answered may have changed.
    pub(super) fn tick_comparison(&mut self) {
        let Some(comparison) = &self.comparison else { return };
        if self.now < comparison.resend_deadline {
            return;
        }
        let nonce = comparison.nonce;
        for peer in self.peers.clone() {
            self.send(peer, Message::Compare { nonce });
        }
        self.ask_again(self.config.heartbeat_interval);
    }

    fn ask_again(&mut self, after: Duration) {
        let deadline = self.now + after;
        if let Some(comparison) = &mut self.comparison {
            comparison.resend_deadline = deadline;
        }
    }
}
