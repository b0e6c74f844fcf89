//! Hints: who missed an acknowledged write is owed it, and the debt is on a disk or confessed.
//!
//! **Property.** For each acknowledged write and each replica of its cells, some time after the
//! acknowledgement: the replica has applied it (or something larger), or some node keeps a durable
//! hint of it for that replica, or its coordinator counts dropped hints in its status.
//!
//! **Why the obvious check is wrong.** Demanding it at once accuses a coordinator that still waits
//! for the third answer; demanding it of every write accuses a coordinator that died before its
//! time was up, which anti-entropy makes good. So only coordinators that have run since before the
//! request began are asked, and only about writes older than a deadline. Looking into the
//! coordinator's memory would show hints that a crash takes along (planted bug D7).
//!
//! **What is skipped.** Replicas whose disk forgot what they had acknowledged: their hints were
//! rightly erased.
//!
//! # Sources
//! \[Dynamo §4.6\].

use std::collections::{BTreeMap, BTreeSet};

use mangrove::base::NodeId;

use super::ledger::Ledger;
use super::stores::Stores;
use crate::check::{Violation, broken};
use crate::history::ValueId;

/// What the harness knows of a node that coordinates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Coordinator {
    /// Since when it has run without a break, in nanoseconds; `None`: it does not run.
    pub running_since_ns: Option<u64>,
    /// Hints that it has dropped, as it says.
    pub dropped: u64,
}

/// When, and who is asked.
#[derive(Debug, Clone)]
pub struct Inquiry {
    /// Simulated time, in nanoseconds.
    pub at: u64,
    /// Acknowledgements that are older than that are checked.
    pub deadline_ns: u64,
    /// By node.
    pub coordinators: BTreeMap<NodeId, Coordinator>,
    /// Replicas whose disk has forgotten something.
    pub forgetful: BTreeSet<NodeId>,
}

/// Checks all acknowledged writes that are old enough.
pub fn check(ledger: &Ledger<'_>, stores: &Stores, inquiry: &Inquiry) -> Result<(), Violation> {
    let history = ledger.history;
    let time_of = |event: u32| history.events().get(event as usize).map(|event| event.time_ns);
    for (op, operation) in ledger.ops() {
        let Some((_, stamp, _)) = ledger.acknowledged(op) else { continue };
        let began = time_of(operation.invoked).unwrap_or(u64::MAX);
        let ended = operation.ended.and_then(time_of).unwrap_or(u64::MAX);
        let coordinator = inquiry.coordinators.get(&stamp.node()).copied().unwrap_or_default();
        let has_run = coordinator.running_since_ns.is_some_and(|since| since < began);
        let is_due = ended.saturating_add(inquiry.deadline_ns) < inquiry.at;
        if !has_run || !is_due || coordinator.dropped > 0 {
            continue;
        }
        for (cell, value) in ledger.effects_of(op) {
            let place = stores.place(history, cell);
            let may_be_purged =
                value == ValueId::ABSENT || ledger.may_be_deleted(cell, stamp, u32::MAX);
            for (replica, store) in stores.replicas(&place) {
                let is_hinted = || stores.is_owed(replica, &place, stamp);
                let is_excused = inquiry.forgetful.contains(&replica);
                if is_excused || store.has(&place, stamp, may_be_purged) || is_hinted() {
                    continue;
                }
                let what = format!(
                    "node {replica} has not got {} and nobody keeps a hint for it: {}",
                    history.cell_text(cell),
                    history.describe(op),
                );
                return broken("hint_accounting", inquiry.at, what);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mangrove::dynamo::Level::Quorum;

    use super::*;
    use crate::check::masterless::fixture::{Script, stamp};

    fn inquiry(since_ns: Option<u64>, dropped: u64) -> Inquiry {
        let coordinator = Coordinator { running_since_ns: since_ns, dropped };
        Inquiry {
            at: 60_000_000_000,
            deadline_ns: 10_000_000_000,
            coordinators: BTreeMap::from([(NodeId(1), coordinator)]),
            forgetful: BTreeSet::new(),
        }
    }

    fn two_of_three() -> (Script, Stores) {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        let mut stores = Stores::of_three();
        stores.put(1, "k", Some("value"), stamp(10));
        stores.put(2, "k", Some("value"), stamp(10));
        (script, stores)
    }

    #[test]
    fn missed_write_needs_a_hint() {
        let (script, mut stores) = two_of_three();
        assert!(check(&script.ledger(), &stores, &inquiry(Some(0), 0)).is_err());
        let entry = stores.entry("k", Some("value"), stamp(10));
        stores.nodes.get_mut(&NodeId(1)).unwrap().put_hint(NodeId(3), &entry);
        assert_eq!(check(&script.ledger(), &stores, &inquiry(Some(0), 0)), Ok(()));
    }

    #[test]
    fn hint_of_another_stamp_or_for_another_node_does_not_count() {
        let (script, mut stores) = two_of_three();
        let other = stores.entry("k", Some("value"), stamp(11));
        let entry = stores.entry("k", Some("value"), stamp(10));
        let keeper = stores.nodes.get_mut(&NodeId(1)).unwrap();
        keeper.put_hint(NodeId(3), &other);
        keeper.put_hint(NodeId(2), &entry);
        assert!(check(&script.ledger(), &stores, &inquiry(Some(0), 0)).is_err());
    }

    #[test]
    fn dropped_hints_that_are_confessed_are_no_fault() {
        let (script, stores) = two_of_three();
        assert_eq!(check(&script.ledger(), &stores, &inquiry(Some(0), 1)), Ok(()));
    }

    #[test]
    fn coordinator_that_has_died_since_is_not_asked() {
        let (script, stores) = two_of_three();
        for since in [None, Some(50_000_000_000)] {
            assert_eq!(check(&script.ledger(), &stores, &inquiry(since, 0)), Ok(()));
        }
    }

    #[test]
    fn replica_whose_disk_forgot_is_excused() {
        let (script, stores) = two_of_three();
        let mut inquiry = inquiry(Some(0), 0);
        inquiry.forgetful.insert(NodeId(3));
        assert_eq!(check(&script.ledger(), &stores, &inquiry), Ok(()));
    }
}
