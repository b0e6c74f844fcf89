//! What only grows: term, vote, commit index, applied index – also across restarts. [Raft §5.1]
//!
//! **Property.** The term of a node never falls. Within a term its vote, once given, stays. While
//! it runs, its commit and applied index never fall and it applies nothing that is not committed.
//! And after a restart it remembers at least what it *promised* before: no message that left the
//! node spoke of a term above the recovered one, and a vote that left is still known.
//!
//! **Why the obvious check is wrong.** Demanding that the recovered term is at least the last one
//! in memory is too strict: a node may crash between adopting a term and making it durable, and
//! nobody was told. Demanding only that it is at least the last *durable* one is too lax, because a
//! node that answers first and writes later (planted bugs W10, R2) keeps that rule. The line is
//! what others were told. So the harness tells of each answer that leaves: a granted vote, an
//! accepted append. A *request* for votes is no promise: only the candidate's own vote, once
//! counted, is.
//!
//! Who says that the record of its vote is damaged, or its disk empty, need not remember, if a
//! fault of its disk may have taken that record: it is asked first what it knows, and excused only
//! then. Its promises are remembered here, and the next time that it votes it had better find out.
//! Until then it may come back with a vote for itself in the term that it had promised: it has
//! given its vote to nobody, because it cannot know whether it had one left.
//!
//! **What is skipped.** The commit index after a restart: it is volatile.

use std::collections::BTreeMap;

use mangrove::base::{Index, NodeId, Term};

use super::{Violation, broken};

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    term: Term,
    vote: Option<NodeId>,
    promised: Term,
    promised_vote: Option<NodeId>,
    /// It does not know what it promised, and need not.
    is_excused: bool,
    commit: Index,
    applied: Index,
}

/// Remembers for each node what must not fall.
#[derive(Debug, Default)]
pub struct TermMonotonic {
    nodes: BTreeMap<NodeId, Seen>,
}

impl TermMonotonic {
    /// Takes note of term and vote in the memory of `node`.
    pub fn observe_hard_state(
        &mut self,
        at: u64,
        node: NodeId,
        term: Term,
        vote: Option<NodeId>,
    ) -> Result<(), Violation> {
        let seen = self.nodes.entry(node).or_default();
        if term < seen.term {
            let what = format!("the term of {node} fell from {} to {term}", seen.term);
            return broken("term_monotonic", at, what);
        }
        if term == seen.term && seen.vote.is_some() && vote != seen.vote {
            let what = format!("{node} changed its vote in {term}: {:?} → {vote:?}", seen.vote);
            return broken("term_monotonic", at, what);
        }
        (seen.term, seen.vote) = (term, vote);
        Ok(())
    }

    /// Takes note that an answer left `node` which says that it is in `term` and, if it is a
    /// granted vote, for whom.
    pub fn observe_promise(
        &mut self,
        at: u64,
        node: NodeId,
        term: Term,
        vote: Option<NodeId>,
    ) -> Result<(), Violation> {
        let seen = self.nodes.entry(node).or_default();
        if term > seen.promised {
            (seen.promised, seen.promised_vote, seen.is_excused) = (term, vote, false);
            return Ok(());
        }
        if term == seen.promised && vote.is_some() {
            if seen.promised_vote.is_some() && seen.promised_vote != vote {
                let what = format!(
                    "{node} voted twice in term {term}: {:?} and {vote:?}",
                    seen.promised_vote
                );
                return broken("term_monotonic", at, what);
            }
            seen.promised_vote = vote;
        }
        Ok(())
    }

    /// Takes note of commit and applied index of `node`.
    pub fn observe_progress(
        &mut self,
        at: u64,
        node: NodeId,
        commit: Index,
        applied: Index,
    ) -> Result<(), Violation> {
        let seen = self.nodes.entry(node).or_default();
        let (old_commit, old_applied) = (seen.commit, seen.applied);
        if commit < old_commit || applied < old_applied || applied > commit {
            let what = format!(
                "{node} went from commit {old_commit} and applied {old_applied} to commit \
                 {commit} and applied {applied}"
            );
            return broken("term_monotonic", at, what);
        }
        (seen.commit, seen.applied) = (commit, applied);
        Ok(())
    }

    /// Takes note that `node` restarted with this term and vote, its state at index `applied`;
    /// `may_forget` tells whether it says that it has lost what it promised, for a good reason.
    pub fn observe_restart(
        &mut self,
        at: u64,
        node: NodeId,
        (term, vote): (Term, Option<NodeId>),
        applied: Index,
        may_forget: bool,
    ) -> Result<(), Violation> {
        let seen = self.nodes.entry(node).or_default();
        let is_spent = seen.is_excused && vote == Some(node);
        let forgot_vote = seen.promised_vote.is_some() && seen.promised_vote != vote && !is_spent;
        let has_forgotten = term < seen.promised || (term == seen.promised && forgot_vote);
        if has_forgotten && !may_forget {
            let what = format!(
                "{node} came back in term {term} with vote {vote:?}, but had told others of term \
                 {} and vote {:?}",
                seen.promised, seen.promised_vote
            );
            return broken("term_monotonic", at, what);
        }
        let is_excused = seen.is_excused || has_forgotten;
        *seen = Seen { term, vote, is_excused, commit: applied, applied, ..*seen };
        Ok(())
    }

    /// Takes note that `node` has got a new disk. It sees that it is empty, and must not break what
    /// it has promised, though it may have to ask what that can have been.
    pub fn observe_wiped(&mut self, node: NodeId) {
        let seen = self.nodes.entry(node).or_default();
        let Seen { promised, promised_vote, is_excused, .. } = *seen;
        *seen = Seen { promised, promised_vote, is_excused, ..Seen::default() };
    }

    /// Takes note that the disk of `node` has lost what it had called durable, without a trace: the
    /// node cannot know that it promised anything.
    pub fn observe_lied_to(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// Returns the term of a node, as far as is known.
    pub fn term_of(&self, node: NodeId) -> Option<Term> {
        self.nodes.get(&node).map(|seen| seen.term)
    }
}
