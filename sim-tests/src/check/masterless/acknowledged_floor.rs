//! The floor of acknowledged writes: a quorum read sees what was acknowledged before it began.
//!
//! **Property.** If a write was acknowledged by W replicas before a read of R replicas began, and
//! R + W > N, then the read shows that write or one with a larger stamp, in every cell of both.
//!
//! **Why the obvious check is wrong.** "The read returns the last acknowledged value" demands
//! linearizability, which the mode does not have: of two writes the one with the larger *stamp*
//! counts, whichever was acknowledged later, and a write that timed out may be shown or not. And a
//! cell that is empty may be empty rightly: any deletion with a larger stamp explains it, also one
//! that nobody acknowledged, so long as it had begun.
//!
//! **What is skipped.** Pairs with R + W ≤ N, which promise nothing; acknowledgements that counted
//! a disk which has lost them since ([`Loss`](super::Loss)).
//!
//! # Sources
//! \[Dynamo §4.5\] (R + W > N).

use std::collections::BTreeMap;

use super::bounds::{Bound, Bounds};
use super::ledger::Ledger;
use crate::check::{Violation, broken};
use crate::history::{EventKind, OpId, ValueId};

/// Checks every read of a history.
pub fn check(ledger: &Ledger<'_>) -> Result<(), Violation> {
    check_bounds(ledger, "acknowledged_floor", |_| true)
}

/// The same for those effects of writes that `counts` picks.
pub(super) fn check_bounds(
    ledger: &Ledger<'_>,
    checker: &'static str,
    counts: impl Fn(Bound) -> bool,
) -> Result<(), Violation> {
    let Ledger { history, setting, .. } = ledger;
    let mut bounds = Bounds::new(history.cell_count());
    let mut open: BTreeMap<OpId, Vec<Option<(Bound, OpId)>>> = BTreeMap::new();
    for event in history.events() {
        let op = event.op;
        if event.kind == EventKind::Invoke {
            if ledger.is_read(op) {
                let needed = setting.holders_needed(ledger.read_count(op));
                let cells = ledger.reads_of(op).into_iter();
                open.insert(op, cells.map(|seen| bounds.get(seen.cell, needed)).collect());
            }
            continue;
        }
        let ended = history.op(op).ended.unwrap_or(u32::MAX);
        for (seen, floor) in ledger.reads_of(op).iter().zip(open.remove(&op).unwrap_or_default()) {
            let Some((bound, by)) = floor else { continue };
            if !ledger.is_within(seen, bound, ended) {
                let what = format!(
                    "{} does not see in {} what was acknowledged before, nor anything larger: {}",
                    history.describe(op),
                    history.cell_text(seen.cell),
                    history.describe(by),
                );
                return broken(checker, event.time_ns, what);
            }
        }
        if let Some((_, stamp, count)) = ledger.acknowledged(op) {
            let holders = setting.holders(count, history.op(op));
            for (cell, value) in ledger.effects_of(op) {
                let bound = Bound { stamp, is_deleted: value == ValueId::ABSENT };
                if counts(bound) {
                    bounds.raise(cell, holders, bound, op);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mangrove::dynamo::Level::{All, One, Quorum};

    use super::*;
    use crate::check::masterless::fixture::{Script, noticed, unnoticed};

    #[test]
    fn quorum_read_that_misses_an_acknowledged_write_is_refused() {
        let mut script = Script::new();
        script.set("k", "old", Quorum, 10);
        script.set("k", "new", Quorum, 20);
        script.get("k", Some(("old", 10)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn larger_stamp_explains_a_read_whenever_it_was_acknowledged() {
        let mut script = Script::new();
        script.set("k", "ahead", Quorum, 30);
        script.set("k", "behind", Quorum, 20);
        script.get("k", Some(("ahead", 30)), Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.get("k", Some(("behind", 20)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn levels_that_do_not_overlap_promise_nothing() {
        let mut script = Script::new();
        script.set("k", "old", Quorum, 10);
        script.set("k", "new", One, 20);
        script.get("k", Some(("old", 10)), Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.get("k", Some(("old", 10)), All);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn write_that_is_acknowledged_while_the_read_is_under_way_may_be_missed() {
        let mut script = Script::new();
        script.set("k", "old", Quorum, 10);
        let read = script.begin_get("k", Quorum);
        script.set("k", "new", Quorum, 20);
        script.end_get(read, Some(("old", 10)));
        assert_eq!(check(&script.ledger()), Ok(()));
    }

    #[test]
    fn empty_cell_needs_a_deletion_that_may_be_larger() {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        script.get("k", None, Quorum);
        assert!(check(&script.ledger()).is_err(), "nobody deleted it");
        let mut script = Script::new();
        script.delete("k", Quorum, 5);
        script.set("k", "value", Quorum, 10);
        script.get("k", None, Quorum);
        assert!(check(&script.ledger()).is_err(), "the deletion is older");
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        script.delete_unknown("k");
        script.get("k", None, Quorum);
        assert_eq!(check(&script.ledger()), Ok(()), "a deletion in doubt explains it");
        script.delete_failed("k");
        assert_eq!(check(&script.ledger()), Ok(()));
    }

    #[test]
    fn batch_that_sets_what_it_deletes_explains_only_that_older_values_are_gone() {
        let set_again = |script: &mut Script| {
            script.set("k/a", "old", Quorum, 10);
            script.row_call("k", &[("k/a", Some("new"))])
        };
        let mut script = Script::new();
        let call = set_again(&mut script);
        script.unknown(call);
        script.get("k/a", None, Quorum);
        assert_eq!(check(&script.ledger()), Ok(()), "one replica has the row's tombstone alone");
        script.get("k/a", Some(("new", 5)), One);
        assert!(check(&script.ledger()).is_err(), "the deletion is older, as it turns out");
        let mut script = Script::new();
        let call = set_again(&mut script);
        script.write(call, Quorum, 20);
        script.get("k/a", Some(("new", 20)), Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.get("k/a", None, Quorum);
        assert!(check(&script.ledger()).is_err(), "its own deletion does not hide it");
    }

    #[test]
    fn failed_deletion_explains_nothing() {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        script.delete_failed("k");
        script.get("k", None, Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn disk_that_forgot_excuses_one_acknowledgement_only() {
        let mut script = Script::new();
        script.set("k", "old", All, 10);
        script.set("k", "new", Quorum, 20);
        script.get("k", Some(("old", 10)), Quorum);
        script.setting.loss = unnoticed(u32::MAX);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.get("k", None, Quorum);
        assert!(check(&script.ledger()).is_err(), "two of three still have the old one");
        script.setting.loss = noticed(u32::MAX);
        assert!(check(&script.ledger()).is_err(), "it answers no reads until it is whole");
    }

    #[test]
    fn disk_that_forgot_keeps_what_it_is_given_later() {
        let mut script = Script::new();
        script.set("k", "old", Quorum, 10);
        let lost_at = script.event_count();
        script.set("k", "new", Quorum, 20);
        script.get("k", Some(("old", 10)), Quorum);
        script.setting.loss = unnoticed(lost_at);
        assert!(check(&script.ledger()).is_err(), "the loss was over before it began");
        script.setting.loss = unnoticed(lost_at + 1);
        assert_eq!(check(&script.ledger()), Ok(()), "it was under way");
    }
}
