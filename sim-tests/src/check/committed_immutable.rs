//! What is committed never changes. [Raft §5.4]
//!
//! **Property.** Once a node considers the entry at an index committed, every node that ever
//! considers that index committed has the same entry there, and no node removes or replaces an
//! entry of its own log that it considers committed.
//!
//! **Why the obvious check is wrong.** Comparing the committed prefixes of the nodes that are up
//! misses the case that matters most: all nodes that knew of the commit crash, and the others
//! commit something else. So the first sight of a committed entry is remembered for the whole run.
//! And comparing only commits lets a node truncate below its own commit index and append the same
//! entries again: no harm yet, but a crash in between would lose an acknowledged write.
//!
//! **What is skipped.** The commit index of a node after a restart: it is volatile in Raft, so it
//! starts over from the snapshot.

use std::collections::BTreeMap;

use mangrove::base::{Index, NodeId, Term};

use super::mirror::Stamp;
use super::{Violation, broken};

/// Remembers every committed entry.
#[derive(Debug, Default)]
pub struct CommittedImmutable {
    committed: BTreeMap<Index, (Stamp, NodeId)>,
    commit_of: BTreeMap<NodeId, Index>,
}

impl CommittedImmutable {
    /// Takes note that `node` considers an entry committed.
    pub fn observe_commit(
        &mut self,
        at: u64,
        node: NodeId,
        index: Index,
        stamp: Stamp,
    ) -> Result<(), Violation> {
        let commit = self.commit_of.entry(node).or_default();
        *commit = index.max(*commit);
        let (known, first) = *self.committed.entry(index).or_insert((stamp, node));
        if known == stamp {
            return Ok(());
        }
        let what = format!(
            "{first} committed {index}@{} ({:08x}), {node} committed {index}@{} ({:08x})",
            known.term, known.crc, stamp.term, stamp.crc
        );
        broken("committed_immutable", at, what)
    }

    /// Takes note that `node` drops its entries from `from` on.
    pub fn observe_truncate(
        &mut self,
        at: u64,
        node: NodeId,
        from: Index,
    ) -> Result<(), Violation> {
        let commit = self.commit_of.get(&node).copied().unwrap_or(0);
        if from > commit {
            return Ok(());
        }
        let what = format!("{node} dropped its log from {from} on, committed up to {commit}");
        broken("committed_immutable", at, what)
    }

    /// Takes note that `node` restarted with a snapshot up to `snapshot`.
    pub fn observe_restart(&mut self, node: NodeId, snapshot: Index) {
        self.commit_of.insert(node, snapshot);
    }

    /// Returns the last index that any node considered committed.
    pub fn last(&self) -> Index {
        self.committed.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// Returns what was committed at an index.
    pub fn at(&self, index: Index) -> Option<(Term, u32)> {
        self.committed.get(&index).map(|(stamp, _)| (stamp.term, stamp.crc))
    }
}
