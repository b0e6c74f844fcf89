//! Listed keys: a key that is listed has a cell that may be there.
//!
//! **Property.** If a listing shows a key, then to one of its cells an operation wrote a value that
//! began before the listing ended, and did not fail. And not all of these cells were deleted: to
//! one of them the value has a stamp above each deletion that was acknowledged, or shown by a read,
//! before the listing began, by replicas of which the listing met one.
//!
//! **Why the obvious check is wrong.** A listing tells no stamps and not which cell is there, so it
//! is no read of any one of them. What it leaves *out* is a read, of every cell of these keys: the
//! checkers of reads see that ([`acknowledged_floor`](super::acknowledged_floor),
//! [`monotonic_reads`](super::monotonic_reads), [`session_order`](super::session_order)). What it
//! shows is only wrong if no cell explains it.
//!
//! **What is skipped.** A cell that an operation with an unknown stamp may have written: it
//! explains any listing. What a session alone has met.
//!
//! # Sources
//! As for [`no_resurrection`](super::no_resurrection); ghosts of ranges.

use std::collections::BTreeMap;

use super::bounds::{Bound, Bounds};
use super::ledger::Ledger;
use super::monotonic_reads::shown;
use crate::check::{Violation, broken};
use crate::history::{CellId, EventKind, OpId, RowId, ValueId};

/// A key that will be listed, and what is known of its cells when the listing begins.
type Listed = (RowId, Vec<(CellId, Option<Bound>)>);

/// What is known while the events go by.
struct Known {
    bounds: Bounds,
    listings: BTreeMap<OpId, Vec<Listed>>,
    /// By read that is under way, the bounds of its cells when it began.
    reads: BTreeMap<OpId, Vec<Option<Bound>>>,
}

/// Checks every listing of a history.
pub fn check(ledger: &Ledger<'_>) -> Result<(), Violation> {
    let history = ledger.history;
    let mut known = Known {
        bounds: Bounds::new(history.cell_count()),
        listings: BTreeMap::new(),
        reads: BTreeMap::new(),
    };
    for event in history.events() {
        if event.kind == EventKind::Invoke {
            known.begin(ledger, event.op);
        } else if let Some(row) = known.end(ledger, event.op) {
            let what = format!(
                "{} shows {}, of which no cell can be there",
                history.describe(event.op),
                history.row_text(row),
            );
            return broken("listed_keys", event.time_ns, what);
        }
    }
    Ok(())
}

impl Known {
    fn begin(&mut self, ledger: &Ledger<'_>, op: OpId) {
        if !ledger.is_read(op) {
            return;
        }
        let needed = ledger.setting.holders_needed(ledger.read_count(op));
        let bound = |cell| self.bounds.get(cell, needed).map(|(bound, _)| bound);
        let found = ledger.reads_of(op).into_iter().map(|seen| bound(seen.cell)).collect();
        let listed = ledger
            .listed_by(op)
            .into_iter()
            .map(|(row, cells)| (row, cells.iter().map(|cell| (*cell, bound(*cell))).collect()));
        let listed = listed.collect();
        self.reads.insert(op, found);
        self.listings.insert(op, listed);
    }

    /// Takes note of an answer; returns a key that it must not have shown, if there is one.
    fn end(&mut self, ledger: &Ledger<'_>, op: OpId) -> Option<RowId> {
        let ended = ledger.history.op(op).ended.unwrap_or(u32::MAX);
        let is_explained = |(_, cells): &Listed| {
            cells.iter().any(|(cell, bound)| ledger.may_be_there(*cell, *bound, ended))
        };
        let listed = self.listings.remove(&op).unwrap_or_default();
        if let Some((row, _)) = listed.into_iter().find(|listed| !is_explained(listed)) {
            return Some(row);
        }
        if let Some(before) = self.reads.remove(&op) {
            let (count, operation) = (ledger.read_count(op), ledger.history.op(op));
            for (seen, before) in ledger.reads_of(op).iter().zip(before) {
                if let Some(bound) = shown(ledger, op, seen, before) {
                    let holders = ledger.setting.showing(count, operation, bound);
                    self.bounds.raise(seen.cell, holders, bound, op);
                }
            }
        }
        if let Some((_, stamp, count)) = ledger.acknowledged(op) {
            let holders = ledger.setting.holders(count, ledger.history.op(op));
            for (cell, value) in ledger.effects_of(op) {
                let bound = Bound { stamp, is_deleted: value == ValueId::ABSENT };
                self.bounds.raise(cell, holders, bound, op);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use mangrove::dynamo::Level::{One, Quorum};

    use super::super::{acknowledged_floor, monotonic_reads, session_order};
    use super::*;
    use crate::check::masterless::fixture::Script;
    use crate::history::Call;

    #[test]
    fn key_of_nobody_is_refused() {
        let mut script = Script::new();
        script.keys(&["k"], None, Quorum);
        assert!(check(&script.ledger()).is_err());
        let mut script = Script::new();
        script.set_failed("k/a", "never");
        script.keys(&["k"], None, Quorum);
        assert!(check(&script.ledger()).is_err());
        let mut script = Script::new();
        script.set_unknown("k/a", "maybe");
        script.keys(&["k"], None, Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
    }

    #[test]
    fn key_whose_cells_are_deleted_is_refused() {
        let mut script = Script::new();
        script.set("k/a", "a1", Quorum, 10);
        script.set("k/b", "b1", Quorum, 11);
        script.delete("k/a", Quorum, 20);
        script.keys(&["k"], None, Quorum);
        assert_eq!(check(&script.ledger()), Ok(()), "the other cell is there");
        script.delete("k/b", Quorum, 21);
        script.keys(&[], None, Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.keys(&["k"], None, Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn key_of_a_deleted_row_is_refused() {
        let mut script = Script::new();
        script.set("k/a", "a1", Quorum, 10);
        let row = script.history.row("k");
        script.write(Call::DeleteRow { row }, Quorum, 20);
        script.keys(&["k"], None, Quorum);
        assert!(check(&script.ledger()).is_err());
        let mut script = Script::new();
        script.set("k/a", "ahead", Quorum, 30);
        let row = script.history.row("k");
        script.write(Call::DeleteRow { row }, Quorum, 20);
        script.keys(&["k"], None, Quorum);
        assert_eq!(check(&script.ledger()), Ok(()), "what has a larger stamp is there");
    }

    #[test]
    fn deletion_that_a_listing_showed_stays() {
        let mut script = Script::new();
        script.set("k/a", "a1", Quorum, 10);
        script.delete_unknown("k/a");
        script.keys(&["k"], None, Quorum);
        script.keys(&[], None, Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.keys(&["k"], None, Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn levels_that_do_not_overlap_promise_nothing() {
        let mut script = Script::new();
        script.set("k/a", "a1", Quorum, 10);
        script.delete("k/a", Quorum, 20);
        script.keys(&["k"], None, One);
        assert_eq!(check(&script.ledger()), Ok(()));
    }

    #[test]
    fn key_that_is_missing_is_a_read_of_its_cells() {
        let mut script = Script::new();
        script.session(1).set("k/a", "a1", Quorum, 10);
        script.session(1).keys(&["j"], Some("k"), Quorum);
        assert_eq!(acknowledged_floor::check(&script.ledger()), Ok(()), "beyond its page");
        script.session(1).keys(&[], None, Quorum);
        assert!(acknowledged_floor::check(&script.ledger()).is_err());
        assert!(session_order::check(&script.ledger()).is_err());
        let mut script = Script::new();
        script.set_unknown("k/a", "maybe");
        script.get("k/a", Some(("maybe", 10)), Quorum);
        script.keys(&[], None, Quorum);
        assert!(monotonic_reads::check(&script.ledger()).is_err());
    }
}
