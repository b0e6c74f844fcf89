//! Election safety: at most one leader in a term. [Raft §5.2, Figure 3]
//!
//! **Property.** If a node leads in term t, no other node ever leads in term t.
//!
//! **Why the obvious check is wrong.** Counting the nodes that lead *at this moment* finds both too
//! much and too little. Too much: an isolated old leader and the new one lead at once, in different
//! terms, and that is allowed. Too little: two leaders of one term need not overlap; the first may
//! have crashed before the second was elected, and both may have acknowledged writes at the same
//! index. So the check is over the whole run and keyed by term, and it is told of every leadership,
//! however short.
//!
//! **What is skipped.** How the votes came about: [`term_monotonic`](super::term_monotonic) watches
//! that nobody votes twice.

use std::collections::BTreeMap;

use mangrove::base::{NodeId, Term};

use super::{Violation, broken};

/// Remembers who led in which term.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leader_of: BTreeMap<Term, NodeId>,
}

impl ElectionSafety {
    /// Takes note that `node` leads in `term`; may be told as often as one likes.
    pub fn observe_leader(&mut self, at: u64, node: NodeId, term: Term) -> Result<(), Violation> {
        let leader = *self.leader_of.entry(term).or_insert(node);
        if leader == node {
            return Ok(());
        }
        broken("election_safety", at, format!("{leader} and {node} both led in term {term}"))
    }

    /// Returns in how many terms somebody led.
    pub fn leader_count(&self) -> usize {
        self.leader_of.len()
    }
}
