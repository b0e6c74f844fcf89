//! Leader completeness: a leader has everything that was committed before it. [Raft §5.4.3]
//!
//! **Property.** If an entry was committed in term t, the log of every leader of a term above t has
//! it (or a snapshot that covers it).
//!
//! **Why the obvious check is wrong.** "Every leader has every committed entry" is false: an old
//! leader that was cut off does not have what its successor committed, and need not. "Every leader
//! has the entries of lower *terms* that are committed" is false as well: an entry of term 2 may be
//! committed as late as in term 4 (by an entry of term 4 after it), and the leader of term 3 may
//! lack it – that is Figure 8 of the paper. What counts is the term in which it *was committed*. We
//! see a commit when a node learns of it, and that node's term is the real one or a later one;
//! taking it may excuse a leader, but never accuses one wrongly.
//!
//! One entry is looked up for each election, not the whole prefix: if the leader has the last entry
//! that was committed below its term, then by [`log_matching`](super::log_matching) it has all
//! before. In the other direction, when a commit is seen while a leader of a higher term is already
//! in office, that leader is asked for the entry.
//!
//! **What is skipped.** Leaders that resigned before the commit was seen: their log may have
//! changed since.

use std::collections::BTreeMap;

use mangrove::base::{Index, NodeId, Term};

use super::mirror::{Mirror, Stamp};
use super::{Violation, broken};

/// Remembers what was committed in which term, and who leads.
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    /// The last entry of those that were first seen committed in a term.
    last_in: BTreeMap<Term, (Index, Stamp)>,
    seen: Index,
    in_office: BTreeMap<NodeId, Term>,
}

impl LeaderCompleteness {
    /// Takes note that `node` became leader of `term`; to be told once, at its election.
    pub fn observe_leader(
        &mut self,
        at: u64,
        node: NodeId,
        term: Term,
        mirror: &mut Mirror,
    ) -> Result<(), Violation> {
        if self.in_office.insert(node, term) == Some(term) {
            return Ok(());
        }
        let below = self.last_in.range(..term).map(|(_, last)| *last);
        match below.max_by_key(|(index, _)| *index) {
            Some(last) => Self::demand(at, node, term, last, mirror),
            None => Ok(()),
        }
    }

    /// Takes note that an entry was seen committed at a node whose term is `in_term`.
    pub fn observe_commit(
        &mut self,
        at: u64,
        index: Index,
        stamp: Stamp,
        in_term: Term,
        mirror: &mut Mirror,
    ) -> Result<(), Violation> {
        if index <= self.seen {
            return Ok(());
        }
        self.seen = index;
        self.last_in.insert(in_term, (index, stamp));
        for (node, term) in self.in_office.range(..).filter(|(_, term)| **term > in_term) {
            Self::demand(at, *node, *term, (index, stamp), mirror)?;
        }
        Ok(())
    }

    /// Takes note that `node` is no longer a leader.
    pub fn observe_resigned(&mut self, node: NodeId) {
        self.in_office.remove(&node);
    }

    fn demand(
        at: u64,
        node: NodeId,
        term: Term,
        (index, stamp): (Index, Stamp),
        mirror: &mut Mirror,
    ) -> Result<(), Violation> {
        let log = mirror.log(node);
        if index <= log.base_index || log.at(index) == Some(stamp) {
            return Ok(());
        }
        let what = format!(
            "{node} leads in term {term} without the committed entry {index}@{}: it has {}",
            stamp.term,
            match log.at(index) {
                Some(other) => format!("{index}@{} ({:08x}) there", other.term, other.crc),
                None => format!("nothing after {}", log.last_index()),
            }
        );
        broken("leader_completeness", at, what)
    }
}
