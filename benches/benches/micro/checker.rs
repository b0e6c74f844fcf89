//! The linearizability checker: a good history of 10,000 operations of 5 clients on 8 keys.
//!
//! The history is that of an atomic store: each operation takes effect at some time between its
//! invocation and its answer, while others are under way. Two of five read, two write a value of
//! their own, one writes on condition of what was there when it was asked.
//!
//! # Left out
//! Unknown outcomes, operations on several cells, and bad histories, which cost more: the test
//! `checker_long_histories_are_decided` prints what.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput};
use mangrove::base::Rng;
use sim_tests::check::linearizable::{self, Options, Verdict};
use sim_tests::history::{Answer, Call, CellId, History, OpId, Process, ValueId};

use super::count;

const OPERATIONS: usize = 10_000;
const CLIENTS: usize = 5;
const KEYS: usize = 8;

/// Measures it.
pub(crate) fn measure(criterion: &mut Criterion) {
    let history = history();
    let options = Options::default();
    let report = linearizable::check(&history, &options);
    assert_eq!(report.verdict, Verdict::Valid, "the history is good");
    assert_eq!((history.ops().len(), report.groups), (OPERATIONS, KEYS), "and as long as it says");

    let mut group = criterion.benchmark_group("checker");
    group.throughput(Throughput::Elements(count(OPERATIONS)));
    group.sample_size(20);
    group.bench_function("10000_operations", |bencher| {
        bencher.iter(|| linearizable::check(black_box(&history), &options));
    });
    group.finish();
}

/// How far a client's operation has come.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Asked(OpId),
    /// It has taken effect, and is not answered yet.
    Applied(OpId, Answer),
}

/// Makes the history, the same every time.
fn history() -> History {
    let mut rng = Rng::new(1);
    let mut history = History::new();
    let cells: Vec<CellId> = (0..KEYS).map(|key| history.cell(&format!("k{key}"), "")).collect();
    let mut state: BTreeMap<CellId, ValueId> =
        cells.iter().map(|cell| (*cell, ValueId::ABSENT)).collect();
    let mut clients: Vec<(Process, Phase)> =
        (0..CLIENTS).map(|_| (history.new_process(), Phase::Idle)).collect();
    for time_ns in 0.. {
        let is_over = history.ops().len() == OPERATIONS;
        if is_over && clients.iter().all(|(_, phase)| *phase == Phase::Idle) {
            break;
        }
        let (process, phase) = &mut clients[rng.index(CLIENTS)];
        *phase = match std::mem::replace(phase, Phase::Idle) {
            Phase::Idle if is_over => Phase::Idle,
            Phase::Idle => {
                let cell = cells[rng.index(KEYS)];
                let call = call(&mut rng, &mut history, cell, &state);
                Phase::Asked(history.invoke(*process, call, time_ns))
            }
            Phase::Asked(op) => Phase::Applied(op, apply(&history.op(op).call, &mut state)),
            Phase::Applied(op, answer) => {
                history.ok(op, answer, time_ns);
                Phase::Idle
            }
        };
    }
    history
}

/// Draws what a client asks of a cell. No value is written twice.
fn call(
    rng: &mut Rng,
    history: &mut History,
    cell: CellId,
    state: &BTreeMap<CellId, ValueId>,
) -> Call {
    let value = history.value(&format!("v{}", history.ops().len()));
    match rng.range(0, 5) {
        0 | 1 => Call::Get { cell },
        2 | 3 => Call::Set { cell, value },
        _ => Call::Cas { cell, old: value_of(cell, state), new: value },
    }
}

fn value_of(cell: CellId, state: &BTreeMap<CellId, ValueId>) -> ValueId {
    state.get(&cell).copied().unwrap_or(ValueId::ABSENT)
}

/// Lets a call take effect; returns what the client is told.
fn apply(call: &Call, state: &mut BTreeMap<CellId, ValueId>) -> Answer {
    match call {
        Call::Get { cell } => Answer::Value(value_of(*cell, state)),
        Call::Set { cell, value } => {
            state.insert(*cell, *value);
            Answer::Done
        }
        Call::Cas { cell, old, new } => {
            let applied = value_of(*cell, state) == *old;
            if applied {
                state.insert(*cell, *new);
            }
            Answer::Tried { applied, current: None }
        }
        Call::Delete { .. }
        | Call::Bulk(_)
        | Call::MultiGet(_)
        | Call::DeleteRow { .. }
        | Call::Slice(_)
        | Call::Keys(_)
        | Call::Scan(_) => unreachable!("no client asks for {call:?}"),
    }
}
