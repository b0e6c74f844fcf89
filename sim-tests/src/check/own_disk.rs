//! What a node says of its own disk is true. [Raft §5.3, CTRL]
//!
//! **Property.** What a node was heard to call durable is there when it starts again: the last
//! entry that it acknowledged is in its log, of the same term, or covered by its tables; its tables
//! have not gone back; and in the masterless mode the last persist request that its core was told
//! of. (`acknowledged_is_durable`) Whatever it says that it has lost, when it starts or because it
//! stops, a fault of its disk may have taken. (`damage_without_cause`)
//!
//! **Why the obvious check is wrong.** To believe a node that its disk is damaged is to be told
//! nothing: it asks the others, is filled, and in the end everything is there again, however it was
//! lost. So the harness tells of each fault that takes something, and whoever says that it lacks
//! something without one has lost it by itself. A power loss is no such fault, and neither is a
//! write or a sync that failed. They take what was not synced, of which nobody was told, and to
//! tell that from damage is what recovery is for.
//!
//! To demand the entry that was acknowledged last for ever is wrong as well. It need not be
//! committed, and a later leader may replace it, in the log or by a snapshot. So the mark goes back
//! where the log is cut, but only in a later term than that of the last answer: a leader takes
//! nothing back in its own. An installed snapshot may have replaced the log on the disk before
//! anybody saw it; then the tables are of a later term than the entry.
//!
//! **What is skipped.** Nodes that answer before they sync: the harness does not tell what those
//! acknowledge. What was acknowledged before a fault, which may have taken it. Where on the disk
//! the fault was, and where the node says that it lacks something: one that has met a fault is
//! believed to the end of the run, for rot may be found late.

use std::collections::BTreeMap;

use mangrove::base::{Index, NodeId, Term};

use super::mirror::Log;
use super::{Violation, broken};

/// Who speaks if something is gone that was acknowledged.
const DURABLE: &str = "acknowledged_is_durable";
/// Who speaks if a node complains for no reason.
const CAUSE: &str = "damage_without_cause";

/// What was seen of a disk, or heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskNews {
    /// A fault has taken or altered something that was durable, or was said to be.
    Fault {
        /// The log may be among it.
        of_log: bool,
    },
    /// Its node says that it has lost something.
    SaysLost {
        /// What, in its own words.
        what: String,
    },
    /// Its node lets others rely on it that the log is durable up to here.
    Acknowledged {
        /// The last entry.
        index: Index,
        /// Term of that entry.
        term: Term,
        /// The term in which the node says so.
        told_in: Term,
    },
    /// The masterless core of its node was told that everything up to this request is durable.
    Persisted {
        /// The last persist request.
        through: u64,
    },
    /// A masterless node started with what it found there.
    Started {
        /// The last persist request that it found.
        persisted: u64,
        /// Whether it says that some may be missing.
        is_damaged: bool,
    },
}

/// An entry that others rely on.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    index: Index,
    term: Term,
    /// The term of the last answer that said so.
    told_in: Term,
}

/// What is known of one disk.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    acknowledged: Option<Acknowledged>,
    /// The last entry that is in tables.
    tables: Index,
    /// The last persist request of the masterless mode.
    persisted: u64,
    /// A fault has taken something from it.
    has_lost: bool,
    /// A fault may have taken something from its log.
    has_lost_log: bool,
}

/// Remembers for each node what its disk must hold.
#[derive(Debug, Default)]
pub struct OwnDisk {
    nodes: BTreeMap<NodeId, Seen>,
}

impl OwnDisk {
    /// Takes note of what was seen or heard of the disk of `node`.
    pub fn observe(&mut self, at: u64, node: NodeId, news: &DiskNews) -> Result<(), Violation> {
        match news {
            DiskNews::Fault { of_log } => {
                self.observe_fault(node, *of_log);
                Ok(())
            }
            DiskNews::SaysLost { what } => self.observe_complaint(at, node, what),
            DiskNews::Acknowledged { index, term, told_in } => {
                self.observe_acknowledged(node, (*index, *term), *told_in);
                Ok(())
            }
            DiskNews::Persisted { through } => {
                let seen = self.nodes.entry(node).or_default();
                seen.persisted = seen.persisted.max(*through);
                Ok(())
            }
            DiskNews::Started { persisted, is_damaged } => {
                self.observe_start(at, node, *persisted, *is_damaged)
            }
        }
    }

    /// Takes note that a fault has taken something from the disk of `node`, or all of it.
    pub fn observe_fault(&mut self, node: NodeId, of_log: bool) {
        let seen = self.nodes.entry(node).or_default();
        let has_lost_log = seen.has_lost_log || of_log;
        *seen = Seen { has_lost: true, has_lost_log, ..Seen::default() };
    }

    /// Tells whether a fault may have taken something from the log of `node`.
    pub fn has_lost_log(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|seen| seen.has_lost_log)
    }

    fn observe_complaint(&self, at: u64, node: NodeId, what: &str) -> Result<(), Violation> {
        if self.nodes.get(&node).is_some_and(|seen| seen.has_lost) {
            return Ok(());
        }
        let what = format!("no fault has taken anything from the disk of {node}, but {what}");
        broken(CAUSE, at, what)
    }

    fn observe_acknowledged(&mut self, node: NodeId, (index, term): (Index, Term), told_in: Term) {
        let seen = self.nodes.entry(node).or_default();
        // Who has acknowledged more to an earlier leader still has it, or its log was cut.
        if seen.acknowledged.is_none_or(|before| before.index <= index) {
            seen.acknowledged = Some(Acknowledged { index, term, told_in });
        }
    }

    /// Takes note that `node`, now in `term`, has replaced what its log had after an entry, which
    /// is the last that may still be on its disk for sure.
    pub fn observe_cut(&mut self, node: NodeId, kept: (Index, Term), term: Term) {
        if let Some(seen) = self.nodes.get_mut(&node)
            && let Some(acknowledged) = &mut seen.acknowledged
            && acknowledged.index > kept.0
            && acknowledged.told_in < term
        {
            (acknowledged.index, acknowledged.term) = kept;
        }
    }

    /// Takes note that `node` has durable tables up to `index`.
    pub fn observe_tables(&mut self, node: NodeId, index: Index) {
        let seen = self.nodes.entry(node).or_default();
        seen.tables = seen.tables.max(index);
    }

    /// Takes note that `node` restarted with this log and its tables; `vote_lost` tells whether it
    /// says that it does not know what it promised.
    pub fn observe_restart(
        &mut self,
        at: u64,
        node: NodeId,
        log: &Log,
        vote_lost: bool,
    ) -> Result<(), Violation> {
        let seen = self.nodes.entry(node).or_default();
        if log.base_index < seen.tables && !seen.has_lost {
            let what = format!(
                "{node} had tables up to {}, and came back with tables up to {}",
                seen.tables, log.base_index
            );
            return broken(DURABLE, at, what);
        }
        seen.tables = log.base_index;
        let Some(Acknowledged { index, term, .. }) = seen.acknowledged else { return Ok(()) };
        if index <= log.base_index || log.term_at(index) == Some(term) {
            return Ok(());
        }
        let is_replaced = log.base_term > term;
        let is_lacked = log.lost_through.is_some_and(|lost| lost >= (term, index))
            || (vote_lost && seen.has_lost);
        if is_replaced || is_lacked {
            seen.acknowledged = None;
            return Ok(());
        }
        let held =
            log.term_at(index).map_or("nothing".to_owned(), |held| format!("{index}@{held}"));
        let what = format!(
            "{node} had acknowledged the log up to {index}@{term}, and came back with {held} there \
             and a log of entries {}..={}",
            log.base_index.saturating_add(1),
            log.last_index()
        );
        broken(DURABLE, at, what)
    }

    /// Takes note of the start of a masterless node.
    fn observe_start(
        &mut self,
        at: u64,
        node: NodeId,
        persisted: u64,
        is_damaged: bool,
    ) -> Result<(), Violation> {
        let told = self.nodes.get(&node).map_or(0, |seen| seen.persisted);
        // Who has nothing cannot know whether it ever had, and calls itself damaged at first.
        if is_damaged && (persisted > 0 || told > 0) {
            let what = format!(
                "it starts damaged with {persisted} persist requests, of {told} that were durable"
            );
            self.observe_complaint(at, node, &what)?;
        }
        if persisted < told && !is_damaged {
            let what =
                format!("{node} had persisted {told} requests, and came back with {persisted}");
            return broken(DURABLE, at, what);
        }
        // Damaged nodes may count anew.
        self.nodes.entry(node).or_default().persisted = persisted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::mirror::Stamp;
    use super::*;

    const NODE: NodeId = NodeId(1);

    /// A log behind tables that end with this entry, with entries of these terms.
    fn log((base_index, base_term): (Index, Term), terms: &[Term]) -> Log {
        let entries = terms.iter().map(|term| Stamp { term: *term, crc: 7 }).collect();
        Log { base_index, base_term, entries, lost_through: None }
    }

    fn acknowledged(index: Index, term: Term, told_in: Term) -> DiskNews {
        DiskNews::Acknowledged { index, term, told_in }
    }

    fn told(news: &[DiskNews]) -> OwnDisk {
        let mut disk = OwnDisk::default();
        for news in news {
            disk.observe(1, NODE, news).unwrap();
        }
        disk
    }

    fn restart(disk: &mut OwnDisk, log: &Log) -> Option<&'static str> {
        disk.observe_restart(2, NODE, log, false).err().map(|violation| violation.checker)
    }

    fn who(disk: &mut OwnDisk, news: &DiskNews) -> Option<&'static str> {
        disk.observe(3, NODE, news).err().map(|violation| violation.checker)
    }

    fn complaint() -> DiskNews {
        DiskNews::SaysLost { what: "it starts unsure".to_owned() }
    }

    #[test]
    fn acknowledged_entry_is_there_after_a_restart() {
        let mut disk = told(&[acknowledged(2, 1, 1), acknowledged(3, 1, 1)]);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1, 1, 1])), None, "and one more");
        assert_eq!(restart(&mut disk, &log((2, 1), &[1])), None);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1])), Some(DURABLE), "tables went back");
        let mut disk = told(&[acknowledged(3, 1, 1)]);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1])), Some(DURABLE), "one is gone");
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1, 2])), Some(DURABLE), "another one");
        assert_eq!(restart(&mut disk, &log((4, 2), &[])), None, "in tables");
        let mut disk = told(&[acknowledged(3, 1, 1), acknowledged(2, 1, 2)]);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1])), Some(DURABLE), "less was told later");
    }

    #[test]
    fn mark_goes_back_with_the_log_in_a_later_term() {
        let mut disk = told(&[acknowledged(5, 2, 2)]);
        disk.observe_cut(NODE, (3, 1), 3);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1, 1])), None);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1])), Some(DURABLE), "what is left of it");
        let mut disk = told(&[acknowledged(5, 2, 2)]);
        disk.observe_cut(NODE, (3, 1), 2);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1, 1])), Some(DURABLE), "the same leader");
        let mut disk = told(&[acknowledged(5, 2, 2), acknowledged(5, 2, 3)]);
        disk.observe_cut(NODE, (3, 1), 3);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1, 1])), Some(DURABLE), "told again");
        let mut disk = told(&[acknowledged(5, 2, 2)]);
        disk.observe_cut(NODE, (6, 2), 3);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1, 1, 1])), Some(DURABLE), "cut behind it");
    }

    #[test]
    fn snapshot_of_a_later_term_may_have_replaced_it() {
        let mut disk = told(&[acknowledged(5, 2, 2)]);
        assert_eq!(restart(&mut disk, &log((3, 3), &[])), None);
        let mut disk = told(&[acknowledged(5, 2, 2)]);
        assert_eq!(restart(&mut disk, &log((3, 2), &[])), Some(DURABLE));
    }

    #[test]
    fn entry_that_the_node_knows_to_lack_is_guarded() {
        let lacking = |lost| Log { lost_through: Some(lost), ..log((0, 0), &[1]) };
        for (lost, verdict) in [((2, 5), None), ((3, 1), None), ((2, 4), Some(DURABLE))] {
            let mut disk = told(&[acknowledged(5, 2, 2)]);
            assert_eq!(restart(&mut disk, &lacking(lost)), verdict, "{lost:?}");
        }
        let unsure = |disk: &mut OwnDisk| disk.observe_restart(2, NODE, &log((0, 0), &[]), true);
        let mut disk = told(&[DiskNews::Fault { of_log: true }, acknowledged(5, 2, 2)]);
        assert_eq!(unsure(&mut disk), Ok(()), "it asks for all");
        let mut disk = told(&[acknowledged(5, 2, 2)]);
        assert!(unsure(&mut disk).is_err(), "for no reason");
    }

    #[test]
    fn fault_may_take_what_was_acknowledged_before_it() {
        let mut disk = told(&[acknowledged(3, 1, 1), DiskNews::Fault { of_log: true }]);
        disk.observe_tables(NODE, 2);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1])), None, "rot in tables is found late");
        let mut disk = told(&[DiskNews::Fault { of_log: false }, acknowledged(3, 1, 1)]);
        assert_eq!(restart(&mut disk, &log((0, 0), &[1])), Some(DURABLE), "not what came after it");
    }

    #[test]
    fn complaint_has_a_cause() {
        assert_eq!(who(&mut told(&[]), &complaint()), Some(CAUSE));
        for of_log in [false, true] {
            let mut disk = told(&[DiskNews::Fault { of_log }]);
            assert_eq!(disk.has_lost_log(NODE), of_log);
            assert_eq!(who(&mut disk, &complaint()), None);
            assert_eq!(who(&mut disk, &complaint()), None, "again");
        }
        let mut disk = told(&[]);
        disk.observe_fault(NodeId(2), true);
        assert_eq!(who(&mut disk, &complaint()), Some(CAUSE), "another disk");
        assert!(!disk.has_lost_log(NODE));
    }

    #[test]
    fn masterless_node_has_what_was_persisted_or_says_why_not() {
        let started = |persisted, is_damaged| DiskNews::Started { persisted, is_damaged };
        let mut disk = told(&[started(0, true), started(0, true)]);
        assert_eq!(who(&mut disk, &started(4, false)), None, "more than it was told of");
        assert_eq!(who(&mut disk, &DiskNews::Persisted { through: 6 }), None);
        assert_eq!(who(&mut disk, &DiskNews::Persisted { through: 5 }), None);
        assert_eq!(who(&mut disk, &started(6, false)), None);
        assert_eq!(who(&mut disk, &started(5, false)), Some(DURABLE));
        assert_eq!(who(&mut disk, &started(6, true)), Some(CAUSE));
        assert_eq!(who(&mut disk, &started(0, true)), Some(CAUSE), "as if it were new");
        assert_eq!(who(&mut disk, &DiskNews::Fault { of_log: true }), None);
        assert_eq!(who(&mut disk, &started(5, true)), None);
        assert_eq!(who(&mut disk, &started(2, true)), None, "it counts anew");
        assert_eq!(who(&mut disk, &DiskNews::Persisted { through: 3 }), None);
        assert_eq!(who(&mut disk, &started(2, false)), Some(DURABLE), "after the fault");
    }
}
