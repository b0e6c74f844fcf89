//! What the log of every node holds, as far as the harness told.
//!
//! Several checkers need to ask "what does node n have at index i?". They ask this copy and not
//! the node, because a node that forgets an entry silently would answer for itself. The copy keeps
//! term and checksum of each entry, nothing else.
//!
//! It mirrors the log in the node's *memory*; what is on the disk is the business of
//! [`durability`](super::durability).

use std::collections::BTreeMap;

use mangrove::base::{Index, NodeId, Term};

/// An entry: its term and the checksum of what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Term of the entry.
    pub term: Term,
    /// Checksum of what it carries.
    pub crc: u32,
}

/// The log of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Last index that a snapshot covers; 0 if there is none.
    pub base_index: Index,
    /// Term of that entry.
    pub base_term: Term,
    /// The entries after it.
    pub entries: Vec<Stamp>,
    /// Term and index of the last entry that it may have held and lost, if the node knows that it
    /// did: it votes as if it held all up to there.
    pub lost_through: Option<(Term, Index)>,
}

impl Log {
    /// Returns the last index.
    pub fn last_index(&self) -> Index {
        self.base_index + u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    /// Returns the entry at `index`, if it is in the log and not covered by the snapshot.
    pub fn at(&self, index: Index) -> Option<Stamp> {
        let position = index.checked_sub(self.base_index + 1)?;
        self.entries.get(usize::try_from(position).ok()?).copied()
    }

    /// Returns the term at `index`, also of the last entry that the snapshot covers.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base_index { Some(self.base_term) } else { Some(self.at(index)?.term) }
    }

    /// Removes everything from `index` on.
    pub fn truncate(&mut self, index: Index) {
        let kept = index.saturating_sub(self.base_index + 1);
        self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// Puts an entry at `index`, replacing what was there and after it; tells whether it fits.
    pub fn put(&mut self, index: Index, stamp: Stamp) -> bool {
        if index <= self.base_index || index > self.last_index() + 1 {
            return false;
        }
        self.truncate(index);
        self.entries.push(stamp);
        true
    }

    /// Starts the log after a snapshot; what follows it stays if the log has the snapshot's last
    /// entry.
    pub fn start_after(&mut self, index: Index, term: Term) {
        if index <= self.base_index {
            return;
        }
        if self.term_at(index) == Some(term) {
            let covered = usize::try_from(index - self.base_index).unwrap_or(usize::MAX);
            self.entries.drain(..covered.min(self.entries.len()));
        } else {
            self.entries.clear();
        }
        (self.base_index, self.base_term) = (index, term);
    }
}

/// The logs of all nodes.
#[derive(Debug, Default)]
pub struct Mirror {
    logs: BTreeMap<NodeId, Log>,
}

impl Mirror {
    /// Returns the log of a node, empty if nothing is known of it.
    pub fn log(&mut self, node: NodeId) -> &mut Log {
        self.logs.entry(node).or_default()
    }
}
