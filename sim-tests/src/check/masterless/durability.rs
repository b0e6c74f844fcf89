//! Durability: what was acknowledged at W is on the disks of W replicas.
//!
//! **Property.** At every check, for each write that was acknowledged by W replicas and each of its
//! cells: on the durable disks of at least W replicas of that cell there is the write or something
//! larger.
//!
//! **Why the obvious check is wrong.** As in the primary-backup mode, memory and words prove
//! nothing, and waiting for a power loss of just those W nodes takes for ever; the disks are asked
//! what would be left *now*. New is that "it is there" cannot mean "this value is there": a larger
//! stamp has rightly replaced it, or a row's tombstone hides it, or both the tombstone and what it
//! hid were purged, which only a floor at or above the write allows.
//!
//! **What is skipped.** Acknowledgements that counted a disk which has lost them since
//! ([`Loss`](super::Loss)), and before healing any that may have counted a damaged one.
//!
//! # Sources
//! [Fsync '20]; planted bugs D1, D2, D34.

use super::ledger::Ledger;
use super::stores::Stores;
use crate::check::{Violation, broken};
use crate::history::ValueId;

/// Checks all writes that were acknowledged so far; each may be missing on so many disks that are
/// known to be damaged at the moment.
pub fn check(
    ledger: &Ledger<'_>,
    stores: &Stores,
    at: u64,
    damaged_count: u32,
) -> Result<(), Violation> {
    let history = ledger.history;
    for (op, operation) in ledger.ops() {
        let Some((_, stamp, count)) = ledger.acknowledged(op) else { continue };
        let held = ledger.setting.holders(count, operation);
        let demanded = held.min(count.saturating_sub(damaged_count));
        for (cell, value) in ledger.effects_of(op) {
            let place = stores.place(history, cell);
            let may_be_purged =
                value == ValueId::ABSENT || ledger.may_be_deleted(cell, stamp, u32::MAX);
            let holders: Vec<_> = stores
                .replicas(&place)
                .filter(|(_, store)| store.has(&place, stamp, may_be_purged))
                .map(|(node, _)| node)
                .collect();
            if u32::try_from(holders.len()).unwrap_or(u32::MAX) < demanded {
                let what = format!(
                    "in {} only the disks of {holders:?} have what {demanded} replicas \
                     acknowledged: {}",
                    history.cell_text(cell),
                    history.describe(op),
                );
                return broken("durability", at, what);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mangrove::base::{NodeId, Stamp};
    use mangrove::dynamo::Level::{One, Quorum};

    use super::super::ledger::Loss;
    use super::*;
    use crate::check::masterless::fixture::{Script, noticed, stamp, unnoticed};

    #[test]
    fn acknowledged_write_must_be_on_as_many_disks() {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        let mut stores = Stores::of_three();
        stores.put(1, "k", Some("value"), stamp(10));
        assert!(check(&script.ledger(), &stores, 0, 0).is_err());
        stores.put(2, "k", Some("value"), stamp(10));
        assert_eq!(check(&script.ledger(), &stores, 0, 0), Ok(()));
    }

    #[test]
    fn something_larger_is_as_good() {
        let mut script = Script::new();
        script.set("k/a", "value", Quorum, 10);
        let mut stores = Stores::of_three();
        stores.put(1, "k/a", Some("newer"), stamp(11));
        stores.delete_row(2, "k", stamp(12));
        assert_eq!(check(&script.ledger(), &stores, 0, 0), Ok(()));
    }

    #[test]
    fn purged_deletion_counts_under_a_floor_only() {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        script.delete("k", Quorum, 20);
        let mut stores = Stores::of_three();
        assert!(check(&script.ledger(), &stores, 0, 0).is_err());
        stores.set_floors(1, stamp(20));
        stores.set_floors(3, stamp(20));
        assert_eq!(check(&script.ledger(), &stores, 0, 0), Ok(()));
    }

    #[test]
    fn floor_does_not_explain_a_value_that_nobody_deleted() {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        let mut stores = Stores::of_three();
        for node in 1..=3 {
            stores.set_floors(node, stamp(20));
        }
        assert!(check(&script.ledger(), &stores, 0, 0).is_err());
    }

    #[test]
    fn disk_that_forgot_is_excused() {
        let mut script = Script::new();
        script.set("k", "one", One, 10);
        script.set("k", "two", Quorum, 20);
        let mut stores = Stores::of_three();
        stores.put(2, "k", Some("two"), stamp(20));
        script.setting.loss = unnoticed(u32::MAX);
        assert_eq!(check(&script.ledger(), &stores, 0, 0), Ok(()));
        script.setting.loss = noticed(u32::MAX);
        assert!(check(&script.ledger(), &stores, 0, 0).is_err());
        assert_eq!(check(&script.ledger(), &stores, 0, 1), Ok(()), "until it is whole again");
    }

    #[test]
    fn what_a_disk_is_given_after_its_loss_it_has() {
        let mut script = Script::new();
        script.set("a", "before", Quorum, 10);
        let lost_at = script.event_count();
        script.set("k", "after", Quorum, 20);
        let mut stores = Stores::of_three();
        stores.put(1, "a", Some("before"), stamp(10));
        stores.put(1, "k", Some("after"), stamp(20));
        script.setting.loss = unnoticed(lost_at);
        assert!(check(&script.ledger(), &stores, 0, 0).is_err());
        assert_eq!(check(&script.ledger(), &stores, 0, 1), Ok(()), "until it is whole again");
        stores.put(3, "k", Some("after"), stamp(20));
        assert_eq!(check(&script.ledger(), &stores, 0, 0), Ok(()));
    }

    #[test]
    fn what_an_old_disk_was_given_by_its_own_node_alone_may_be_taken_for_a_ghost() {
        for (level, node, is_excused) in [(One, 3, true), (One, 1, false), (Quorum, 3, false)] {
            let mut script = Script::new();
            let call = script.set_call("k", "value");
            let op = script.begin(call, level);
            script.acknowledge_at(op, Stamp::new(10, 0, NodeId(node)));
            script.setting.loss = unnoticed(0);
            let verdict = check(&script.ledger(), &Stores::of_three(), 0, 0);
            assert_eq!(verdict.is_ok(), is_excused, "{level:?}, stamped by node {node}");
        }
    }

    #[test]
    fn what_one_disk_alone_is_given_may_be_in_a_table_that_it_gives_up() {
        let mut script = Script::new();
        script.set("k", "value", One, 10);
        let stores = Stores::of_three();
        script.setting.loss = unnoticed(0);
        assert!(check(&script.ledger(), &stores, 0, 0).is_err());
        script.setting.loss = Loss { noticed: Some(u32::MAX), ..script.setting.loss };
        assert_eq!(check(&script.ledger(), &stores, 0, 0), Ok(()));
    }
}
