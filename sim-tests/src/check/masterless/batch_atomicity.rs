//! Bulk writes: in the end all of one or nothing.
//!
//! **Property.** Once the cluster is healed: if any cell of a bulk write is visible with its stamp
//! on a disk, or was ever shown to a reader, or the write was acknowledged, then *every* cell of it
//! is there, or something larger in its place.
//!
//! **Why the obvious check is wrong.** Atomic is not isolated: while a bulk write over several
//! partitions is under way, readers may see half of it, and must be allowed to. And half of it may
//! stay invisible for ever because other writes with larger stamps came; a cell counts against it
//! only if what is in it is *older* (planted bug D30: the coordinator dies in mid-batch and nobody
//! takes over).
//!
//! A cell that a hint is kept of for one of its replicas is still to come, to that one and from
//! there to the others: replicas that all lack it, because the one that had it has an older disk
//! now, are equal, and a run waits for no more before this looks. That hints arrive in the end, the
//! runs show that have no other mechanism.
//!
//! **What is skipped.** Deletions that may be purged: under a floor nothing can be told from
//! nothing. Nor can it on a disk that forgot the deletion after the others had purged it. Bulk
//! writes in doubt of which no value was ever seen. And, if a disk was lost, those within one set
//! of replicas that were not acknowledged by more disks than may be lost: they are no batch but a
//! log record at each replica, and the disk that alone had it may have given a part to others.
//!
//! # Sources
//! Cassandra's logged batches.

use std::collections::BTreeSet;

use mangrove::base::{NodeId, Stamp};

use super::ledger::{Ledger, Loss};
use super::stores::Stores;
use crate::check::{Violation, broken};
use crate::history::{Call, CellId, OpId, Outcome, ValueId};

/// Checks all bulk writes.
pub fn check(ledger: &Ledger<'_>, stores: &Stores, at: u64) -> Result<(), Violation> {
    let history = ledger.history;
    let on_disk: BTreeSet<Stamp> =
        stores.visible(history).into_iter().map(|(_, _, stamp)| stamp).collect();
    for (op, operation) in ledger.ops() {
        if !matches!(operation.call, Call::Bulk(_)) || operation.outcome == Outcome::Fail {
            continue;
        }
        // A stamp is known if it was told or met; what was only shown may have been lost with the
        // one disk that had it.
        let Some(stamp) = ledger.stamp_of(op) else { continue };
        let is_on_disk = on_disk.contains(&stamp);
        let was_acknowledged = ledger
            .acknowledged(op)
            .is_some_and(|(_, _, count)| ledger.setting.holders(count, operation) > 0);
        let may_be_half = !is_on_disk || is_one_record(ledger, stores, op);
        if may_be_half && !was_acknowledged && ledger.setting.loss != Loss::default() {
            continue;
        }
        if let Some(cell) = missing(ledger, stores, op, stamp) {
            let what = format!(
                "{} lacks what this wrote, of which other parts took effect: {}",
                history.cell_text(cell),
                history.describe(op),
            );
            return broken("batch_atomicity", at, what);
        }
    }
    Ok(())
}

/// Tells whether all cells of a bulk write have the same replicas.
fn is_one_record(ledger: &Ledger<'_>, stores: &Stores, op: OpId) -> bool {
    let effects = ledger.effects_of(op).into_iter();
    let replicas = |(cell, _): (CellId, ValueId)| -> BTreeSet<NodeId> {
        let place = stores.place(ledger.history, cell);
        stores.replicas(&place).map(|(node, _)| node).collect()
    };
    effects.map(replicas).collect::<BTreeSet<_>>().len() <= 1
}

/// Returns a cell of a bulk write that is on some disk older than the write left it.
fn missing(ledger: &Ledger<'_>, stores: &Stores, op: OpId, stamp: Stamp) -> Option<CellId> {
    let effects = ledger.effects_of(op).into_iter();
    let is_missing = |(cell, value): &(CellId, ValueId)| {
        let place = stores.place(ledger.history, *cell);
        let may_be_purged =
            *value == ValueId::ABSENT || ledger.may_be_deleted(*cell, stamp, u32::MAX);
        if stores.replicas(&place).any(|(replica, _)| stores.is_owed(replica, &place, stamp)) {
            return false;
        }
        stores.replicas(&place).any(|(_, store)| {
            let is_forgotten = may_be_purged
                && ledger.setting.loss.unnoticed.is_some()
                && store.visible(&place).is_none();
            !is_forgotten && !store.has(&place, stamp, may_be_purged)
        })
    };
    effects.filter(is_missing).map(|(cell, _)| cell).next()
}

#[cfg(test)]
mod tests {
    use mangrove::dynamo::Level::Quorum;

    use super::*;
    use crate::check::masterless::fixture::{Script, noticed, stamp, unnoticed};

    fn half() -> (Script, Stores) {
        let mut script = Script::new();
        let call = script.bulk_call(&[("a", Some("a1")), ("b", Some("b1"))]);
        script.unknown(call);
        (script, Stores::of_three())
    }

    fn learned<'a>(script: &'a Script, stores: &Stores) -> Ledger<'a> {
        let mut ledger = script.ledger();
        ledger.learn(stores);
        ledger
    }

    #[test]
    fn half_of_a_bulk_write_is_refused() {
        let (script, mut stores) = half();
        assert_eq!(check(&learned(&script, &stores), &stores, 0), Ok(()));
        stores.put_all("a", Some("a1"), stamp(10));
        assert!(check(&learned(&script, &stores), &stores, 0).is_err());
        stores.put_all("b", Some("b1"), stamp(10));
        assert_eq!(check(&learned(&script, &stores), &stores, 0), Ok(()));
    }

    #[test]
    fn overwritten_cell_is_no_missing_cell_and_an_older_one_is() {
        let (script, mut stores) = half();
        stores.put_all("a", Some("a1"), stamp(10));
        stores.put_all("b", Some("older"), stamp(9));
        assert!(check(&learned(&script, &stores), &stores, 0).is_err());
        stores.put_all("b", Some("newer"), stamp(11));
        assert_eq!(check(&learned(&script, &stores), &stores, 0), Ok(()));
    }

    #[test]
    fn acknowledged_bulk_write_must_be_there_even_if_nothing_of_it_is() {
        let mut script = Script::new();
        let call = script.bulk_call(&[("a", Some("a1")), ("b", Some("b1"))]);
        script.write(call, Quorum, 10);
        let stores = Stores::of_three();
        assert!(check(&learned(&script, &stores), &stores, 0).is_err());
    }

    #[test]
    fn bulk_write_that_was_only_shown_must_be_there_too() {
        let (mut script, stores) = half();
        script.get("a", Some(("a1", 10)), Quorum);
        assert!(check(&learned(&script, &stores), &stores, 0).is_err());
        script.setting.loss = noticed(u32::MAX);
        assert_eq!(check(&learned(&script, &stores), &stores, 0), Ok(()));
    }

    #[test]
    fn half_of_one_record_may_be_left_if_its_disk_was_lost_and_nobody_counts_on_it() {
        let loss = noticed(u32::MAX);
        let (mut script, mut stores) = half();
        stores.put_all("a", Some("a1"), stamp(10));
        script.setting.loss = loss;
        assert_eq!(check(&learned(&script, &stores), &stores, 0), Ok(()));
        let (mut script, mut stores) = (Script::new(), Stores::of_three());
        let call = script.bulk_call(&[("a", Some("a1")), ("b", Some("b1"))]);
        script.write(call, Quorum, 10);
        script.setting.loss = loss;
        stores.put_all("a", Some("a1"), stamp(10));
        assert!(check(&learned(&script, &stores), &stores, 0).is_err(), "another disk had it");
    }

    /// The accident: two replicas, one of which was down and is owed its share; the other got an
    /// older disk. The hint was on its way when both were found equal.
    #[test]
    fn part_that_a_hint_is_kept_for_is_still_to_come() {
        let (script, mut stores) = half();
        stores.put_all("a", Some("a1"), stamp(10));
        let entry = stores.entry("b", Some("b1"), stamp(10));
        assert!(check(&learned(&script, &stores), &stores, 0).is_err());
        stores.nodes.get_mut(&NodeId(1)).unwrap().put_hint(NodeId(2), &entry);
        assert_eq!(check(&learned(&script, &stores), &stores, 0), Ok(()));
    }

    #[test]
    fn deletion_of_a_bulk_write_counts_until_a_floor_has_passed_it() {
        let mut script = Script::new();
        let call = script.bulk_call(&[("a", Some("a1")), ("b", None)]);
        script.unknown(call);
        let mut stores = Stores::of_three();
        stores.put_all("a", Some("a1"), stamp(10));
        assert!(check(&learned(&script, &stores), &stores, 0).is_err());
        script.setting.loss = unnoticed(u32::MAX);
        assert_eq!(check(&learned(&script, &stores), &stores, 0), Ok(()));
        script.setting.loss = Loss::default();
        for node in 1..=3 {
            stores.set_floors(node, stamp(10));
        }
        assert_eq!(check(&learned(&script, &stores), &stores, 0), Ok(()));
    }
}
