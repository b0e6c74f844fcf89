//! State machine safety: who has applied as much is in the same state. [Raft §5.4.3, Figure 3]
//!
//! **Property.** Two nodes that have applied up to the same index have applied the same entries in
//! the same order, and their state machines are in the same state.
//!
//! **Why the obvious check is wrong.** Comparing the entries that are applied finds a wrong log,
//! but not a state machine that depends on something else than the log: a hash map's order, a
//! clock, an eviction that counts differently after a restart from a snapshot. Comparing the whole
//! state after every entry finds that and is far too slow. So each node keeps a rolling hash: of
//! the entries it applied *and the answers that the state machine gave*, which is O(1) for an entry
//! and part of the snapshot, hence goes on across restarts and installs. The first node to apply an
//! index says what the hash must be; all others are compared with it, however much later they come.
//!
//! That hash is of what went in and what came out, and blind to what the store makes of it: a flush
//! or a compaction that loses a cell, a snapshot that lacks one, an installation that leaves an old
//! one behind, a restart that counts sessions differently. None of them leaves a mark in it before
//! an answer depends on it, and only a leader answers. So once, when a run is over that was to be
//! survived, the state of each node is made again from its tables and the log after them, by its
//! own recovery, and [`Contents`] compares hashes of all cells and sessions. Two nodes are compared
//! wherever both can be brought to the same entry; not only the index must be the same, because
//! the last entries of a log may not be committed.
//!
//! **What is skipped.** A node that applies an entry twice after a crash is told by
//! [`Self::observe_restored`](StateMachineSafety::observe_restored) from where it starts again.
//! Whole states of disks that were lied to, and of those that rot has made unreadable where the
//! others are read. What a running node has in memory and its disk does not say: its answers are
//! judged by the clients' checkers.

use std::collections::BTreeMap;

use mangrove::base::{Index, NodeId, Term};

use super::{Violation, broken};

/// Remembers the state at every index.
#[derive(Debug, Default)]
pub struct StateMachineSafety {
    states: BTreeMap<Index, (Term, u64, NodeId)>,
    applied: BTreeMap<NodeId, Index>,
}

impl StateMachineSafety {
    /// Takes note that `node` applied the entry at `index` of `term`, and its hash after it.
    pub fn observe_applied(
        &mut self,
        at: u64,
        node: NodeId,
        (index, term): (Index, Term),
        hash: u64,
    ) -> Result<(), Violation> {
        if let Some(last) = self.applied.insert(node, index)
            && index != last + 1
        {
            let what = format!("{node} applied {index}@{term} after {last}");
            return broken("state_machine_safety", at, what);
        }
        let (known_term, known, first) = *self.states.entry(index).or_insert((term, hash, node));
        if (known_term, known) == (term, hash) {
            return Ok(());
        }
        let what = format!(
            "at index {index} {first} is in state {known:016x} after an entry of term \
             {known_term}, {node} in {hash:016x} after one of term {term}"
        );
        broken("state_machine_safety", at, what)
    }

    /// Takes note that the state of `node` is now the one at `index`: it restarted, or installed a
    /// snapshot. The hash is compared if it is known.
    pub fn observe_restored(
        &mut self,
        at: u64,
        node: NodeId,
        index: Index,
        hash: Option<u64>,
    ) -> Result<(), Violation> {
        self.applied.insert(node, index);
        match (self.states.get(&index), hash) {
            (Some((_, known, first)), Some(hash)) if *known != hash => {
                let what = format!(
                    "{node} restored index {index} in state {hash:016x}, {first} was in \
                     {known:016x} there"
                );
                broken("state_machine_safety", at, what)
            }
            _ => Ok(()),
        }
    }
}

/// Remembers the hash of the whole state at every position where a node's was made again.
#[derive(Debug, Default)]
pub struct Contents {
    states: BTreeMap<(Index, Term), (u64, NodeId)>,
}

impl Contents {
    /// Takes note of the hash of all cells and sessions that `node` has after the entry at
    /// `index` of `term`.
    pub fn observe(
        &mut self,
        at: u64,
        node: NodeId,
        (index, term): (Index, Term),
        hash: u64,
    ) -> Result<(), Violation> {
        let (known, first) = *self.states.entry((index, term)).or_insert((hash, node));
        if known == hash {
            return Ok(());
        }
        let what = format!(
            "after {index}@{term} the cells or sessions on the disk of {node} have hash \
             {hash:016x}, those on the disk of {first} {known:016x}"
        );
        broken("state_machine_safety", at, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells of states as (node, index, term, hash); returns whether all go together.
    fn is_one(states: &[(u64, Index, Term, u64)]) -> bool {
        let mut contents = Contents::default();
        states.iter().all(|&(node, index, term, hash)| {
            contents.observe(1, NodeId(node), (index, term), hash).is_ok()
        })
    }

    #[test]
    fn whole_states_are_the_same_after_the_same_entry() {
        assert!(is_one(&[(1, 8, 2, 77), (2, 8, 2, 77), (3, 9, 2, 78), (1, 9, 2, 78)]));
        assert!(is_one(&[(1, 8, 2, 77), (2, 8, 3, 78)]), "other entries");
        assert!(!is_one(&[(1, 8, 2, 77), (2, 8, 2, 78)]));
        assert!(!is_one(&[(1, 8, 2, 77), (2, 9, 2, 78), (3, 9, 2, 79)]), "not the first");
    }
}
