//! Log matching: logs that agree at one place agree on all before it. [Raft §5.3, Figure 3]
//!
//! **Property.** If two logs have an entry with the same index and term, the logs are the same up
//! to that index.
//!
//! **Why the obvious check is wrong.** Comparing every pair of logs after every event costs nodes²
//! times the length of the log, so one would do it rarely – and miss a wrong suffix that is
//! truncated in between. The property is inductive instead: it holds for ever if the pair (index,
//! term) determines *what the entry carries and the term of the entry before it*, over all nodes
//! and the whole run. The entry before it then has an index and a term too, and so on down to the
//! start. That is one map look-up for each appended entry, and no entry is missed.
//!
//! It is also stronger than comparing the logs of the moment: an entry that a crashed node lost is
//! still compared with the ones that others append later.
//!
//! **What is skipped.** The term before the first entry after a snapshot of which the harness did
//! not tell the term.

use std::collections::BTreeMap;

use mangrove::base::{Index, NodeId, Term};

use super::{Violation, broken};

#[derive(Debug, Clone, Copy)]
struct Known {
    crc: u32,
    prev_term: Term,
    node: NodeId,
}

/// Remembers every entry that any log ever held.
#[derive(Debug, Default)]
pub struct LogMatching {
    entries: BTreeMap<(Index, Term), Known>,
}

impl LogMatching {
    /// Takes note of an entry in the log of `node`; `prev_term` is the term of the entry before it
    /// (0 before the first).
    pub fn observe_append(
        &mut self,
        at: u64,
        node: NodeId,
        place: (Index, Term),
        prev_term: Term,
        crc: u32,
    ) -> Result<(), Violation> {
        let (index, term) = place;
        if prev_term > term {
            let what = format!("{node} appended {index}@{term} after an entry of term {prev_term}");
            return broken("log_matching", at, what);
        }
        let known = *self.entries.entry(place).or_insert(Known { crc, prev_term, node });
        if known.crc != crc {
            let what = format!(
                "entry {index}@{term} carries {:08x} on {}, but {crc:08x} on {node}",
                known.crc, known.node
            );
            return broken("log_matching", at, what);
        }
        if known.prev_term != prev_term {
            let what = format!(
                "entry {index}@{term} follows term {} on {}, but term {prev_term} on {node}",
                known.prev_term, known.node
            );
            return broken("log_matching", at, what);
        }
        Ok(())
    }
}
