//! What every client was promised, in the plainest words: three direct checks of a history.
//!
//! Whatever they find, [`linearizable`](super::linearizable) finds too. They exist for their
//! messages: "process 4 read a value that only a failed write wrote" says where to look, "no order
//! explains this answer" does not. All are O(n log n) and look at one cell at a time.
//!
//! - **No phantom.** A value that was read was written to that cell by an operation that was
//!   invoked before the read ended and did not fail.
//! - **Fail means never.** No read ever returns what only a failed operation wrote (planted bug
//!   R46).
//! - **No lost write.** A read does not return a value that was certainly overwritten before the
//!   read began: each operation that could have written the value had ended before some
//!   acknowledged write began that itself ended before the read began. For the reads after the end
//!   of all faults this is the check for lost acknowledged writes; it is made for every read.
//!
//! **Why the obvious check is wrong.** "The final value is the last acknowledged one" accuses the
//! store of the order of two concurrent writes, and of an unknown write that took effect late.
//!
//! **What is skipped.** Everything that needs two cells or two reads to be seen, such as a key that
//! is listed although none of its cells is there; and conditions that were refused, beyond the cell
//! that the store named.

use std::collections::BTreeMap;

use super::{Violation, broken};
use crate::history::{
    Answer, Call, CellId, Event, EventKind, Expected, History, OpId, Outcome, ValueId,
};

/// What is known of the writers of one value to one cell.
#[derive(Debug, Clone, Copy, Default)]
struct Writers {
    /// Events at which the first that did not fail began, and the last ended.
    began: Option<u32>,
    ended: u32,
    /// One that failed.
    failed: Option<OpId>,
}

/// A write: where it began, and which it was.
type Write = (u32, OpId);

/// Makes all checks; returns the first violation in order of events.
pub fn check(history: &History) -> Result<(), Violation> {
    let writers = writers(history);
    // By cell: of the acknowledged writes that have ended, the one that began last.
    let mut newest: Vec<Option<Write>> = vec![None; history.cell_count()];
    let mut newest_at_start: BTreeMap<OpId, Vec<Option<Write>>> = BTreeMap::new();
    for event in history.events() {
        let op = history.op(event.op);
        let Outcome::Ok(answer) = &op.outcome else { continue };
        let reads = reads(history, &op.call, answer);
        if event.kind == EventKind::Invoke {
            let floors = reads.iter().map(|(cell, _)| newest[cell.0 as usize]);
            newest_at_start.insert(event.op, floors.collect());
            continue;
        }
        let floors = newest_at_start.remove(&event.op).unwrap_or_default();
        for ((cell, value), floor) in reads.iter().zip(&floors) {
            let known = writers.get(&(*cell, *value)).copied().unwrap_or_default();
            phantom(history, event, (*cell, *value), known)?;
            lost(history, event, (*cell, *value), known, *floor)?;
        }
        if !answer.is_refusal() {
            for (cell, _) in writes(history, &op.call) {
                let held = &mut newest[cell.0 as usize];
                if held.is_none_or(|(began, _)| began < op.invoked) {
                    *held = Some((op.invoked, event.op));
                }
            }
        }
    }
    Ok(())
}

/// Makes the first check alone: what is read was written.
pub fn check_phantoms(history: &History) -> Result<(), Violation> {
    let writers = writers(history);
    for event in history.events().iter().filter(|event| event.kind != EventKind::Invoke) {
        let op = history.op(event.op);
        let Outcome::Ok(answer) = &op.outcome else { continue };
        for (cell, value) in reads(history, &op.call, answer) {
            let known = writers.get(&(cell, value)).copied().unwrap_or_default();
            phantom(history, event, (cell, value), known)?;
        }
    }
    Ok(())
}

fn phantom(
    history: &History,
    event: &Event,
    (cell, value): (CellId, ValueId),
    known: Writers,
) -> Result<(), Violation> {
    let ended = history.op(event.op).ended.unwrap_or(u32::MAX);
    if value == ValueId::ABSENT || known.began.is_some_and(|began| began < ended) {
        return Ok(());
    }
    let reader = history.describe(event.op);
    let cell = history.cell_text(cell);
    let what = match (known.failed, known.began) {
        (Some(failed), None) => format!(
            "{reader} saw in {cell} what only a failed operation wrote: {}",
            history.describe(failed)
        ),
        (_, Some(began)) => {
            format!("{reader} saw in {cell} what was first written at event {began}")
        }
        (None, None) => format!("{reader} saw in {cell} what nobody ever wrote"),
    };
    let checker = if known.failed.is_some() { "failed_is_invisible" } else { "no_phantom" };
    broken(checker, event.time_ns, what)
}

fn lost(
    history: &History,
    event: &Event,
    (cell, value): (CellId, ValueId),
    known: Writers,
    floor: Option<Write>,
) -> Result<(), Violation> {
    let Some((began, newest)) = floor else { return Ok(()) };
    let own = writes(history, &history.op(newest).call);
    if known.ended > began || own.contains(&(cell, value)) {
        return Ok(());
    }
    let what = format!(
        "{} did not see in {} the acknowledged {}, nor anything later",
        history.describe(event.op),
        history.cell_text(cell),
        history.describe(newest)
    );
    broken("no_lost_write", event.time_ns, what)
}

fn writers(history: &History) -> BTreeMap<(CellId, ValueId), Writers> {
    let mut writers: BTreeMap<(CellId, ValueId), Writers> = BTreeMap::new();
    for (id, op) in (0..).map(OpId).zip(history.ops()) {
        if matches!(&op.outcome, Outcome::Ok(answer) if answer.is_refusal()) {
            continue;
        }
        for place in writes(history, &op.call) {
            let known = writers.entry(place).or_default();
            if op.outcome == Outcome::Fail {
                known.failed = Some(id);
                continue;
            }
            known.began.get_or_insert(op.invoked);
            let certain = matches!(op.outcome, Outcome::Ok(_));
            let ended = op.ended.filter(|_| certain).unwrap_or(u32::MAX);
            known.ended = known.ended.max(ended);
        }
    }
    writers
}

/// Returns what a call writes if it is applied; of a cell that is named twice, the last value.
pub(super) fn writes(history: &History, call: &Call) -> Vec<(CellId, ValueId)> {
    match call {
        Call::Set { cell, value } => vec![(*cell, *value)],
        Call::Delete { cell } => vec![(*cell, ValueId::ABSENT)],
        Call::Cas { cell, new, .. } => vec![(*cell, *new)],
        Call::DeleteRow { row } => {
            history.cells_of(*row).iter().map(|cell| (*cell, ValueId::ABSENT)).collect()
        }
        Call::Bulk(bulk) => {
            let emptied = bulk.rows.iter().flat_map(|row| history.cells_of(*row));
            let mut cells: BTreeMap<CellId, ValueId> =
                emptied.map(|cell| (*cell, ValueId::ABSENT)).collect();
            cells.extend(bulk.cells.iter().copied());
            cells.into_iter().collect()
        }
        Call::Get { .. } | Call::MultiGet(_) | Call::Slice(_) | Call::Keys(_) | Call::Scan(_) => {
            Vec::new()
        }
    }
}

/// Returns the values of cells that an answer shows.
pub(super) fn reads(history: &History, call: &Call, answer: &Answer) -> Vec<(CellId, ValueId)> {
    match (call, answer) {
        (Call::Get { cell }, Answer::Value(value)) => vec![(*cell, *value)],
        (Call::Cas { cell, old, .. }, Answer::Tried { applied: true, .. }) => vec![(*cell, *old)],
        (Call::Cas { cell, .. }, Answer::Tried { current: Some(current), .. }) => {
            vec![(*cell, *current)]
        }
        (Call::Bulk(bulk), Answer::Tried { applied: true, .. }) => {
            let value = |(cell, expected): &(CellId, Expected)| match expected {
                Expected::Value(value) => Some((*cell, *value)),
                Expected::Present | Expected::Opaque => None,
            };
            bulk.conditions.iter().filter_map(value).collect()
        }
        (_, Answer::Refused { cell, current }) => vec![(*cell, *current)],
        (_, Answer::Values(cells)) => cells.to_vec(),
        (_, Answer::Page { cells, next }) => {
            let mut found: BTreeMap<CellId, ValueId> = cells.iter().copied().collect();
            for cell in history.covered(call, next.as_deref()) {
                found.entry(cell).or_insert(ValueId::ABSENT);
            }
            found.into_iter().collect()
        }
        (Call::Keys(range), Answer::Rows { rows, next }) => {
            // Of a key that is listed, any cell may be the one that is there.
            let mut covered = history.covered_rows(range, next.as_deref());
            covered.retain(|row| !rows.contains(row));
            let cells = covered.iter().flat_map(|row| history.cells_of(*row));
            cells.map(|cell| (*cell, ValueId::ABSENT)).collect()
        }
        _ => Vec::new(),
    }
}
