//! The plainest possible judge of a history, against which the quick one is compared.
//!
//! A store that runs one request after the other, and a search through all orders that real time
//! allows [Wing & Gong '93]. It shares nothing with the checker under test: requests are *run*, and
//! the answers compared, where the checker turns answers into conditions.

use sim_tests::history::{
    Answer, Bulk, Call, CellId, Expected, History, Operation, Outcome, RowId, ValueId,
};

/// The value of every cell.
type State = Vec<ValueId>;

/// Tells whether a history is linearizable.
pub(crate) fn is_linearizable(history: &History) -> bool {
    let happened = |op: &&Operation| op.outcome != Outcome::Fail;
    let ops: Vec<&Operation> = history.ops().iter().filter(happened).collect();
    assert!(ops.len() <= 64, "too many operations for a search through all orders: {}", ops.len());
    let state = vec![ValueId::ABSENT; history.cell_count()];
    search(history, &ops, (1_u64 << ops.len()) - 1, &state)
}

fn search(history: &History, ops: &[&Operation], left: u64, state: &State) -> bool {
    let is_left = |position: usize| left & (1 << position) != 0;
    let answered = |op: &Operation| matches!(op.outcome, Outcome::Ok(_));
    let first_end = (0..ops.len())
        .filter(|position| is_left(*position) && answered(ops[*position]))
        .filter_map(|position| ops[position].ended)
        .min();
    // Operations without answer may be left out.
    let Some(first_end) = first_end else { return true };
    (0..ops.len()).any(|position| {
        is_left(position)
            && ops[position].invoked < first_end
            && outcomes(history, ops[position], state)
                .iter()
                .any(|next| search(history, ops, left & !(1 << position), next))
    })
}

/// Returns the states that an operation can lead to with the answer that it got.
fn outcomes(history: &History, op: &Operation, state: &State) -> Vec<State> {
    run(history, &op.call, state)
        .into_iter()
        .filter(|(_, answer)| match &op.outcome {
            Outcome::Ok(told) => says_the_same(told, answer),
            Outcome::Open | Outcome::Info | Outcome::Fail => true,
        })
        .map(|(next, _)| next)
        .collect()
}

fn says_the_same(told: &Answer, real: &Answer) -> bool {
    match (told, real) {
        (
            Answer::Tried { applied, current: None },
            Answer::Tried { applied: really_applied, .. },
        ) => applied == really_applied,
        (Answer::Values(told), Answer::Values(real)) => sorted(told) == sorted(real),
        (Answer::Page { cells: told, next: None }, Answer::Page { cells: real, next: None }) => {
            sorted(told) == sorted(real)
        }
        (Answer::Rows { rows: told, next: None }, Answer::Rows { rows: real, next: None }) => {
            sorted(told) == sorted(real)
        }
        _ => told == real,
    }
}

fn sorted<T: Clone + Ord>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort();
    list
}

/// Runs a request; more than one result only where a condition cannot be judged.
pub(crate) fn run(history: &History, call: &Call, state: &State) -> Vec<(State, Answer)> {
    let at = |cell: CellId| state[cell.0 as usize];
    let found = |cells: Vec<CellId>| -> Box<[(CellId, ValueId)]> {
        let cells = cells.into_iter().map(|cell| (cell, at(cell)));
        cells.filter(|(_, value)| *value != ValueId::ABSENT).collect()
    };
    let mut next = state.clone();
    let answer = match call {
        Call::Get { cell } => Answer::Value(at(*cell)),
        Call::Set { cell, value } => {
            next[cell.0 as usize] = *value;
            Answer::Done
        }
        Call::Delete { cell } => {
            next[cell.0 as usize] = ValueId::ABSENT;
            Answer::Done
        }
        Call::Cas { cell, old, new } => {
            let (current, applied) = (at(*cell), at(*cell) == *old);
            if applied {
                next[cell.0 as usize] = *new;
            }
            Answer::Tried { applied, current: (!applied).then_some(current) }
        }
        Call::Bulk(bulk) => return run_bulk(history, bulk, state),
        Call::MultiGet(cells) => {
            Answer::Values(cells.iter().map(|cell| (*cell, at(*cell))).collect())
        }
        Call::DeleteRow { row } => {
            empty_row(history, *row, &mut next);
            Answer::Done
        }
        Call::Slice(_) | Call::Scan(_) => {
            Answer::Page { cells: found(history.covered(call, None)), next: None }
        }
        Call::Keys(range) => {
            let exists = |row: &RowId| !found(history.cells_of(*row).to_vec()).is_empty();
            let rows = history.covered_rows(range, None).into_iter().filter(exists).collect();
            Answer::Rows { rows, next: None }
        }
    };
    vec![(next, answer)]
}

fn run_bulk(history: &History, bulk: &Bulk, state: &State) -> Vec<(State, Answer)> {
    let mut next = state.clone();
    for row in &bulk.rows {
        empty_row(history, *row, &mut next);
    }
    for (cell, value) in &bulk.cells {
        next[cell.0 as usize] = *value;
    }
    if bulk.conditions.is_empty() {
        return vec![(next, Answer::Done)];
    }
    let holds = |(cell, expected): &(CellId, Expected)| match expected {
        Expected::Value(value) => state[cell.0 as usize] == *value,
        Expected::Present => state[cell.0 as usize] != ValueId::ABSENT,
        Expected::Opaque => true,
    };
    let unclear = bulk.conditions.iter().any(|(_, expected)| *expected == Expected::Opaque);
    let applied = (next, Answer::Tried { applied: true, current: None });
    let refused = (state.clone(), Answer::Tried { applied: false, current: None });
    match (bulk.conditions.iter().all(holds), unclear) {
        (true, true) => vec![applied, refused],
        (true, false) => vec![applied],
        (false, _) => vec![refused],
    }
}

fn empty_row(history: &History, row: RowId, state: &mut State) {
    for cell in history.cells_of(row) {
        state[cell.0 as usize] = ValueId::ABSENT;
    }
}
