//! Origin: what is read was written, by exactly one operation, with exactly one stamp.
//!
//! **Property.** For each (cell, value, stamp) that was read, or is on a disk after healing: an
//! operation wrote that value to that cell, it began before the read ended, and nobody was told
//! that it failed. One operation has one stamp, in all cells and for ever; one stamp belongs to one
//! operation. A stamp was given by a node of the cluster.
//!
//! Nobody decides between two writes in this mode, so one with conditions never takes effect.
//!
//! So the columns of a bulk write never mix across stamps in a way nobody wrote: a stamp that is
//! seen in two cells is of one operation, and both values are of that operation.
//!
//! **Why the obvious check is wrong.** That every value read was written at all says nothing about
//! last-writer-wins: a hint delivered with a new stamp (planted bug D9) or a retry that takes a
//! new one (D32) serves values that were truly written, and lets them win over newer ones. Only
//! the pair with the stamp tells, and the same value with two stamps is evidence even if nobody
//! was hurt yet.
//!
//! **What is skipped.** Deletions in doubt: their stamps are told to nobody. Two operations with
//! one stamp that a node gave whose disk forgot, unknown to itself, how far its clock was: they
//! are told apart by their cells, and a tie in one cell is decided alike everywhere.
//!
//! # Sources
//! Every other checker of the mode relies on this one: they believe stamps.

use std::collections::BTreeMap;

use mangrove::base::Stamp;

use super::ledger::{Ledger, Seen};
use super::stores::Stores;
use crate::check::{Violation, broken};
use crate::history::{Call, EventKind, OpId, Outcome, ValueId};

const CHECKER: &str = "origin";

/// What is known of stamps so far.
#[derive(Default)]
struct Stamps {
    of_op: BTreeMap<OpId, (Stamp, OpId)>,
    owner: BTreeMap<Stamp, OpId>,
}

/// Checks every read and every acknowledgement of a history.
pub fn check(ledger: &Ledger<'_>) -> Result<(), Violation> {
    let history = ledger.history;
    let mut stamps = Stamps::default();
    for event in history.events() {
        if event.kind == EventKind::Invoke {
            continue;
        }
        let op = event.op;
        let fault = ledger
            .acknowledged(op)
            .and_then(|(_, stamp, _)| stamps.note(ledger, op, stamp, op))
            .or_else(|| check_read(ledger, op, &mut stamps))
            .or_else(|| check_conditions(ledger, op));
        if let Some(what) = fault {
            return broken(CHECKER, event.time_ns, format!("{}: {what}", history.describe(op)));
        }
    }
    Ok(())
}

/// Checks every value on the disks, also in cells that nobody ever asked for.
pub fn check_stores(ledger: &Ledger<'_>, stores: &Stores, at: u64) -> Result<(), Violation> {
    if let Some((node, name, stamp)) = stores.unnamed(ledger.history) {
        let what = format!("the disk of {node} has in {name} at {stamp} what nobody wrote there");
        return broken(CHECKER, at, what);
    }
    for (cell, value, stamp) in stores.values(ledger.history) {
        let name = ledger.history.cell_text(cell);
        let Some(writer) = value.and_then(|value| ledger.writer_of(cell, value)) else {
            let what = format!("a disk has in {name} at {stamp} what nobody wrote there");
            return broken(CHECKER, at, what);
        };
        let what = match (&ledger.history.op(writer).outcome, ledger.stamp_of(writer)) {
            (Outcome::Fail, _) => "it failed",
            (_, Some(known)) if known != stamp => "it has another stamp elsewhere",
            _ => continue,
        };
        let writer = ledger.history.describe(writer);
        let what = format!("a disk has in {name} at {stamp} what was written by {writer}: {what}");
        return broken(CHECKER, at, what);
    }
    Ok(())
}

/// Returns what is wrong if a write with conditions was answered as one that was tried.
fn check_conditions(ledger: &Ledger<'_>, op: OpId) -> Option<String> {
    let operation = ledger.history.op(op);
    let is_answered = matches!(operation.outcome, Outcome::Ok(_));
    let has_conditions = match &operation.call {
        Call::Bulk(bulk) => !bulk.conditions.is_empty(),
        Call::Cas { .. } => true,
        Call::Get { .. }
        | Call::Set { .. }
        | Call::Delete { .. }
        | Call::MultiGet(_)
        | Call::DeleteRow { .. }
        | Call::Slice(_)
        | Call::Keys(_)
        | Call::Scan(_) => false,
    };
    (is_answered && has_conditions).then(|| "this mode has no conditions".to_owned())
}

fn check_read(ledger: &Ledger<'_>, op: OpId, stamps: &mut Stamps) -> Option<String> {
    let ended = ledger.history.op(op).ended?;
    let met = ledger.history.terms(op).map(|terms| terms.seen).unwrap_or_default();
    for seen in ledger.reads_of(op) {
        if seen.value == ValueId::ABSENT {
            continue;
        }
        let name = ledger.history.cell_text(seen.cell);
        let Some(writer) = ledger.writer_of(seen.cell, seen.value) else {
            return Some(format!("nobody wrote that to {name}"));
        };
        let operation = ledger.history.op(writer);
        let written_by = || format!("in {name}, written by {}", ledger.history.describe(writer));
        if operation.outcome == Outcome::Fail {
            return Some(format!("it shows what a failed operation wrote: {}", written_by()));
        }
        if operation.invoked >= ended {
            return Some(format!("it shows what was written later: {}", written_by()));
        }
        if let Some(fault) = check_stamp(ledger, op, &seen, met, writer, stamps) {
            return Some(format!("{fault}: {}", written_by()));
        }
    }
    None
}

fn check_stamp(
    ledger: &Ledger<'_>,
    op: OpId,
    seen: &Seen,
    met: Stamp,
    writer: OpId,
    stamps: &mut Stamps,
) -> Option<String> {
    // Conditions and the like carry no terms.
    ledger.history.terms(op)?;
    let Some(stamp) = seen.stamp else {
        return Some("it shows a value without a stamp".to_owned());
    };
    if stamp > met {
        return Some(format!("it shows {stamp} and says that {met} is the largest it met"));
    }
    stamps.note(ledger, writer, stamp, op)
}

impl Stamps {
    /// Takes note that `by` learned that the write `op` has that stamp.
    fn note(&mut self, ledger: &Ledger<'_>, op: OpId, stamp: Stamp, by: OpId) -> Option<String> {
        let (known, first) = *self.of_op.entry(op).or_insert((stamp, by));
        if known != stamp {
            let first = ledger.history.describe(first);
            return Some(format!("it has the stamp {stamp}, and {known} according to {first}"));
        }
        let owner = *self.owner.entry(stamp).or_insert(op);
        if owner != op && !ledger.setting.may_repeat(stamp) {
            let owner = ledger.history.describe(owner);
            return Some(format!("its stamp {stamp} is also that of {owner}"));
        }
        (stamp.node().0 == 0).then(|| format!("no node gives stamps like {stamp}"))
    }
}

#[cfg(test)]
mod tests {
    use mangrove::dynamo::Level::Quorum;

    use super::*;
    use crate::check::masterless::fixture::{Script, stamp};
    use crate::history::{Answer, Bulk, Expected};

    #[test]
    fn value_of_nobody_or_of_another_cell_is_refused() {
        let mut script = Script::new();
        script.get("k", Some(("phantom", 10)), Quorum);
        assert!(check(&script.ledger()).is_err());
        let mut script = Script::new();
        script.set("a", "value", Quorum, 10);
        script.get("b", Some(("value", 10)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn value_on_a_disk_in_a_cell_that_nobody_named_is_refused() {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        let mut stores = Stores::of_three();
        stores.put_all("k", Some("value"), stamp(10));
        stores.put_all("never-deleted", None, stamp(10));
        assert_eq!(check_stores(&script.ledger(), &stores, 9), Ok(()));
        stores.put_all("never-named", Some("value"), stamp(10));
        let found = check_stores(&script.ledger(), &stores, 9).unwrap_err();
        assert!(found.what.contains("never-named/"), "{found}");
    }

    #[test]
    fn unknown_write_may_be_read_and_failed_one_may_not() {
        let mut script = Script::new();
        script.set_unknown("k", "maybe");
        script.get("k", Some(("maybe", 10)), Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.set_failed("k", "never");
        script.get("k", Some(("never", 20)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn one_write_never_has_two_stamps() {
        let mut script = Script::new();
        script.set("k", "value", Quorum, 10);
        script.get("k", Some(("value", 11)), Quorum);
        assert!(check(&script.ledger()).is_err());
        let mut script = Script::new();
        script.set_unknown("k", "maybe");
        script.get("k", Some(("maybe", 10)), Quorum);
        script.get("k", Some(("maybe", 12)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn two_writes_never_have_one_stamp() {
        let mut script = Script::new();
        script.set("a", "one", Quorum, 10);
        script.set("b", "other", Quorum, 10);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn columns_of_a_bulk_write_do_not_mix() {
        let mut script = Script::new();
        let call = script.bulk_call(&[("k/a", Some("a1")), ("k/b", Some("b1"))]);
        script.write(call, Quorum, 10);
        script.get("k/a", Some(("a1", 10)), Quorum);
        script.get("k/b", Some(("b1", 10)), Quorum);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.get("k/b", Some(("b1", 9)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn bulk_with_conditions_neither_answers_nor_takes_effect() {
        let bulk = |script: &mut Script| {
            let conditions = vec![(script.cell("k"), Expected::Present)];
            let cells = vec![(script.cell("l"), script.history.value("never"))];
            let bulk = Bulk { conditions, cells, ..Bulk::default() };
            script.begin(Call::Bulk(Box::new(bulk)), Quorum)
        };
        for applied in [true, false] {
            let mut script = Script::new();
            let op = bulk(&mut script);
            assert_eq!(check(&script.ledger()), Ok(()));
            script.history.ok(op, Answer::Tried { applied, current: None }, 9);
            assert!(check(&script.ledger()).is_err(), "applied: {applied}");
        }
        let mut script = Script::new();
        let op = bulk(&mut script);
        script.history.fail(op, 9);
        assert_eq!(check(&script.ledger()), Ok(()));
        script.get("l", Some(("never", 10)), Quorum);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn read_that_ends_before_the_write_begins_cannot_see_it() {
        let mut script = Script::new();
        script.get("k", Some(("later", 10)), Quorum);
        script.set("k", "later", Quorum, 10);
        assert!(check(&script.ledger()).is_err());
    }

    #[test]
    fn stamp_of_no_node_is_refused() {
        let mut script = Script::new();
        let cell = script.cell("k");
        let value = script.history.value("value");
        let op = script.begin(Call::Set { cell, value }, Quorum);
        script.acknowledge_at(op, Stamp::from_version(stamp(10).version() - 1));
        assert!(check(&script.ledger()).is_err());
    }
}
