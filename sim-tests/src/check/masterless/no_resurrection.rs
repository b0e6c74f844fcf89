//! No resurrection: what is deleted stays deleted.
//!
//! **Property.** Nothing with a stamp at or below an acknowledged delete's is visible at its place
//! ever after: not to reads whose replicas overlap those that acknowledged the delete, and, once
//! the cluster is healed, not on any replica's disk, whatever the level of the delete was. The same
//! for the deletion of a row and for the deletions in a bulk write.
//!
//! **Why the obvious check is wrong.** Waiting for a deleted value to be read again misses most
//! resurrections: a node that was away comes back with the value after the tombstone was purged
//! elsewhere (planted bug D26), and the value waits on its disk until some read of one replica, or
//! the next repair, meets it. And "absent after a delete" is too strict: a later write, or one
//! whose clock was ahead, may fill the cell again.
//!
//! **What is skipped.** Reads at levels that do not overlap the delete's; deletions in doubt.
//!
//! # Sources
//! Cassandra's zombies (`gc_grace_seconds`), `tombstone_gc = repair` of `ScyllaDB`.

use super::acknowledged_floor::check_bounds;
use super::bounds::{Bound, Bounds};
use super::ledger::Ledger;
use super::stores::Stores;
use crate::check::{Violation, broken};
use crate::history::ValueId;

const CHECKER: &str = "no_resurrection";

/// Checks every read of a history.
pub fn check_reads(ledger: &Ledger<'_>) -> Result<(), Violation> {
    check_bounds(ledger, CHECKER, |bound| bound.is_deleted)
}

/// Checks every replica's disk, after healing.
pub fn check_stores(ledger: &Ledger<'_>, stores: &Stores, at: u64) -> Result<(), Violation> {
    let history = ledger.history;
    let mut bounds = Bounds::new(history.cell_count());
    for (op, operation) in ledger.ops() {
        let Some((_, stamp, count)) = ledger.acknowledged(op) else { continue };
        let holders = ledger.setting.holders(count, operation);
        let deleted = ledger.effects_of(op).into_iter();
        for (cell, _) in deleted.filter(|(_, value)| *value == ValueId::ABSENT) {
            bounds.raise(cell, holders, Bound { stamp, is_deleted: true }, op);
        }
    }
    for (node, cell, stamp) in stores.visible(history) {
        let Some((bound, by)) = bounds.get(cell, 1) else { continue };
        if !bound.admits(stamp) {
            let what = format!(
                "the disk of node {node} has {} with stamp {stamp}, although it was deleted: {}",
                history.cell_text(cell),
                history.describe(by),
            );
            return broken(CHECKER, at, what);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mangrove::dynamo::Level::{One, Quorum};

    use super::*;
    use crate::check::masterless::fixture::{Script, stamp};
    use crate::history::Call;

    #[test]
    fn deleted_value_that_is_read_again_is_refused() {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        script.delete("k", Quorum, 20);
        script.get("k", None, Quorum);
        assert_eq!(check_reads(&script.ledger()), Ok(()));
        script.get("k", Some(("value", 10)), Quorum);
        assert!(check_reads(&script.ledger()).is_err());
    }

    #[test]
    fn write_with_a_larger_stamp_survives_the_delete() {
        let mut script = Script::new();
        script.set("k", "ahead", Quorum, 30);
        script.delete("k", Quorum, 20);
        script.get("k", Some(("ahead", 30)), Quorum);
        assert_eq!(check_reads(&script.ledger()), Ok(()));
    }

    #[test]
    fn deleted_row_hides_all_its_columns() {
        let mut script = Script::new();
        script.set("k/a", "value", Quorum, 10);
        let row = script.history.row("k");
        script.write(Call::DeleteRow { row }, Quorum, 20);
        script.get("k/a", Some(("value", 10)), Quorum);
        assert!(check_reads(&script.ledger()).is_err());
    }

    #[test]
    fn deleted_value_on_any_disk_is_refused_whatever_the_level() {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        script.delete("k", One, 20);
        let mut stores = Stores::of_three();
        stores.put(1, "k", None, stamp(20));
        assert_eq!(check_stores(&script.ledger(), &stores, 0), Ok(()));
        stores.put(2, "k", Some("value"), stamp(10));
        assert!(check_stores(&script.ledger(), &stores, 0).is_err());
    }
}
