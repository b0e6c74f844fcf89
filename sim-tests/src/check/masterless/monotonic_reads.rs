//! Monotonic quorum reads: what a read has shown, no later quorum read takes back.
//!
//! **Property.** If a read of R replicas ended before another one of R' began, and R + R' > N,
//! then the second shows in each cell the stamp of the first or a larger one – also of a write that
//! nobody ever acknowledged, and also when the first found the cell deleted.
//!
//! **Why the obvious check is wrong.** Reads that overlap in time may each see the other order, so
//! only the *end* of the one and the *beginning* of the other count. And the floor of acknowledged
//! writes does not imply it: a write that reached one replica and timed out is below no floor; the
//! first read that shows it must have put it on R replicas before it answered (blocking read
//! repair; planted bugs D19 and D20).
//!
//! **What is skipped.** Pairs with R + R' ≤ N. The stamp of a tombstone of a read that covers
//! several cells: it is only known to be above what the cell was known to have. And while a
//! disk may have ghosts ([`Unnoticed`](super::ledger::Unnoticed)), that it has none where a read
//! that asked it found nothing.
//!
//! # Sources
//! "Monotonic quorum reads" of Cassandra's blocking read repair.

use std::collections::BTreeMap;

use super::bounds::{Bound, Bounds};
use super::ledger::{Ledger, Seen};
use crate::check::{Violation, broken};
use crate::history::{Call, EventKind, OpId, ValueId};

/// Checks every pair of reads of a history.
pub fn check(ledger: &Ledger<'_>) -> Result<(), Violation> {
    let Ledger { history, setting, .. } = ledger;
    let mut bounds = Bounds::new(history.cell_count());
    let mut open: BTreeMap<OpId, Vec<Option<(Bound, OpId)>>> = BTreeMap::new();
    for event in history.events() {
        let op = event.op;
        if !ledger.is_read(op) {
            continue;
        }
        let count = ledger.read_count(op);
        let found = ledger.reads_of(op);
        if event.kind == EventKind::Invoke {
            let needed = setting.holders_needed(count);
            open.insert(op, found.iter().map(|seen| bounds.get(seen.cell, needed)).collect());
            continue;
        }
        let ended = history.op(op).ended.unwrap_or(u32::MAX);
        for (seen, before) in found.iter().zip(open.remove(&op).unwrap_or_default()) {
            if let Some((bound, by)) = before
                && !ledger.is_within(seen, bound, ended)
            {
                let what = format!(
                    "{} takes back in {} what was shown before: {}",
                    history.describe(op),
                    history.cell_text(seen.cell),
                    history.describe(by),
                );
                return broken("monotonic_reads", event.time_ns, what);
            }
            if let Some(bound) = shown(ledger, op, seen, before.map(|(bound, _)| bound)) {
                let holders = setting.showing(count, history.op(op), bound);
                bounds.raise(seen.cell, holders, bound, op);
            }
        }
    }
    Ok(())
}

/// Returns what a read proves that its replicas have.
pub(super) fn shown(
    ledger: &Ledger<'_>,
    op: OpId,
    seen: &Seen,
    before: Option<Bound>,
) -> Option<Bound> {
    if seen.value != ValueId::ABSENT {
        return seen.stamp.map(|stamp| Bound { stamp, is_deleted: false });
    }
    // Of a read of one cell, the largest stamp met is that of its tombstone, if it is still there.
    let alone = matches!(ledger.history.op(op).call, Call::Get { .. });
    let met = ledger.history.terms(op).map(|terms| terms.seen).filter(|_| alone);
    let above = before.map(|bound| bound.stamp);
    let stamp = met.max(above).filter(|stamp| stamp.version() > 0)?;
    Some(Bound { stamp, is_deleted: true })
}

#[cfg(test)]
mod tests {
    use mangrove::dynamo::Level::{All, One, Quorum};

    use super::super::ledger::Unnoticed;
    use super::*;
    use crate::check::masterless::fixture::{Script, unnoticed};

    #[test]
    fn unknown_write_that_was_shown_may_not_vanish() {
        let mut script = Script::new();
        script.set("k", "old", Quorum, 10);
        script.set_unknown("k", "maybe");
        script.get("k", Some(("maybe", 20)), Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.get("k", Some(("old", 10)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn unknown_write_may_surface_late() {
        let mut script = Script::new();
        script.set("k", "old", Quorum, 10);
        script.set_unknown("k", "maybe");
        script.get("k", Some(("old", 10)), Quorum);
        script.get("k", Some(("maybe", 20)), Quorum);
        script.get("k", Some(("maybe", 20)), Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
    }

    #[test]
    fn overlapping_reads_may_differ() {
        let mut script = Script::new();
        script.set("k", "old", Quorum, 10);
        script.set_unknown("k", "maybe");
        let slow = script.begin_get("k", Quorum);
        script.get("k", Some(("maybe", 20)), Quorum);
        script.end_get(slow, Some(("old", 10)));
        assert_eq!(check(&script.ledger()), Ok(()));
    }

    #[test]
    fn reads_of_one_replica_promise_nothing_to_each_other() {
        let mut script = Script::new();
        script.set("k", "old", All, 10);
        script.set_unknown("k", "maybe");
        script.get("k", Some(("maybe", 20)), One);
        script.get("k", Some(("old", 10)), Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.get("k", Some(("old", 10)), All);
        assert!(check(&script.ledger()).is_err(), "one of all has it");
    }

    #[test]
    fn deletion_that_was_shown_stays() {
        let mut script = Script::new();
        script.set("k", "value", One, 10);
        script.delete_unknown("k");
        script.get("k", Some(("value", 10)), Quorum);
        script.get_deleted("k", 20, Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.get("k", Some(("value", 10)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn deletion_that_was_shown_is_hidden_by_all_but_an_old_disk() {
        let mut script = Script::new();
        script.set("k", "value", All, 10);
        script.delete("k", Quorum, 20);
        script.get_deleted("k", 20, All);
        script.get("k", Some(("value", 10)), One);
        assert!(check(&script.ledger()).is_err());
        script.setting.loss = unnoticed(0);
        assert_eq!(check(&script.ledger()), Ok(()), "it alone was asked");
        let Unnoticed { node, lost_at, .. } = script.setting.loss.unnoticed.unwrap();
        let equal_at = script.event_count() - 4;
        script.setting.loss.unnoticed = Some(Unnoticed { node, lost_at, equal_at });
        assert!(check(&script.ledger()).is_err(), "the ghosts are gone");
        script.setting.loss = unnoticed(0);
        script.get("k", Some(("value", 10)), Quorum);
        assert!(check(&script.ledger()).is_err(), "another one was asked, too");
    }

    #[test]
    fn deletion_whose_stamp_is_not_told_is_above_what_was_shown() {
        let mut script = Script::new();
        script.set("k", "value", One, 10);
        script.delete_unknown("k");
        script.get("k", Some(("value", 10)), Quorum);
        script.get("k", None, Quorum);
        script.get("k", Some(("value", 10)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }
}
