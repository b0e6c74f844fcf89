//! How long the linearizability checker takes on long histories: printed, not asserted, because a
//! busy machine is no bug. To see it:
//! `cargo test --profile sim -p sim-tests checker_long -- --nocapture`.
//!
//! What is asserted is the verdict and the number of *steps*, which is the same on every machine.

use std::io::Write as _;

use mangrove::base::Rng;
use sim_tests::check::linearizable::{self, Options, Report, Verdict};
use sim_tests::history::{History, Outcome};

use crate::check_random::{self, Reach, Shape};

/// Steps that a history may cost for each of its operations.
const STEPS_PER_OP_MAX: u64 = 400;

fn keys(rows: usize, processes: usize, ops: usize, info: f64) -> Shape {
    Shape { rows, columns: 1, values: 0, processes, ops, info, reach: Reach::Cell }
}

fn maps(rows: usize, columns: usize, info: f64, reach: Reach) -> Shape {
    Shape { rows, columns, values: 0, processes: 10, ops: 10_000, info, reach }
}

/// Takes the last acknowledged set of the first half away, as a store that loses a write does.
fn lose_a_write(history: &History) -> History {
    let mut lost = history.prefix(0);
    let ok_set = |op: &&sim_tests::history::Operation| {
        matches!(op.outcome, Outcome::Ok(_))
            && matches!(op.call, sim_tests::history::Call::Set { .. })
    };
    let half = history.ops().len() / 2;
    // One whose value was read.
    let read = |op: &&sim_tests::history::Operation| {
        let sim_tests::history::Call::Set { cell, value } = op.call else { return false };
        history.ops().iter().any(|other| {
            matches!(other.call, sim_tests::history::Call::Get { cell: read } if read == cell)
                && other.outcome == Outcome::Ok(sim_tests::history::Answer::Value(value))
        })
    };
    let victim = history.ops()[..half].iter().rev().filter(ok_set).find(read).map(|op| op.invoked);
    for event in history.events() {
        let op = history.op(event.op);
        if op.invoked as usize == lost.events().len() {
            lost.invoke(op.process, op.call.clone(), event.time_ns);
            continue;
        }
        match &op.outcome {
            // The value was read, so a set that failed must not have been seen.
            Outcome::Ok(_) if Some(op.invoked) == victim => lost.fail(event.op, event.time_ns),
            Outcome::Ok(answer) => lost.ok(event.op, answer.clone(), event.time_ns),
            Outcome::Fail => lost.fail(event.op, event.time_ns),
            Outcome::Open | Outcome::Info => {
                lost.info(event.op, event.time_ns);
            }
        }
    }
    lost
}

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measures the checker, not the simulated world"
)]
fn measure(name: &str, history: &History) -> Report {
    let begun = std::time::Instant::now();
    let report = linearizable::check(history, &Options::default());
    let took = begun.elapsed();
    let verdict = match &report.verdict {
        Verdict::Valid => "valid",
        Verdict::Invalid(_) => "invalid",
        Verdict::Undecided(_) => "undecided",
    };
    let line = format!(
        "{name:<44} {verdict:<9} {:>8.1} ms  {:>8} steps  {:>4} configurations  {:>3} groups\n",
        took.as_secs_f64() * 1e3,
        report.steps,
        report.configs_max,
        report.groups,
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap_or_default();
    report
}

#[test]
fn checker_long_histories_are_decided() {
    let shapes = [
        ("1,000 ops, 10 keys, 5 processes", keys(10, 5, 1_000, 0.0)),
        ("10,000 ops, 50 keys, 20 processes", keys(50, 20, 10_000, 0.0)),
        ("10,000 ops, 50 keys, 20 processes, 5% info", keys(50, 20, 10_000, 0.05)),
        ("10,000 ops, 5 keys, 20 processes, 5% info", keys(5, 20, 10_000, 0.05)),
        ("10,000 ops, 10 keys, 20 processes, 20% info", keys(10, 20, 10_000, 0.2)),
        ("10,000 ops, 1 key, 10 processes, 1% info", keys(1, 10, 10_000, 0.01)),
        ("100,000 ops, 100 keys, 20 processes, 1% info", keys(100, 20, 100_000, 0.01)),
        ("10,000 ops, 20 rows of 3 cells", maps(20, 3, 0.0, Reach::Row)),
        ("10,000 ops, 20 rows of 3 cells, 5% info", maps(20, 3, 0.05, Reach::Row)),
        ("10,000 ops, map of 30 cells", maps(10, 3, 0.0, Reach::Map)),
        ("10,000 ops, map of 30 cells, 1% info", maps(10, 3, 0.01, Reach::Map)),
        (
            "2,000 ops, map of 30 cells, 5% info",
            Shape { ops: 2_000, ..maps(10, 3, 0.05, Reach::Map) },
        ),
        ("10,000 ops, map of 30 cells, listings", maps(10, 3, 0.0, Reach::Listings)),
    ];
    for (seed, (name, shape)) in (0..).zip(shapes) {
        let history = check_random::history(&mut Rng::new(seed), shape);
        let report = measure(name, &history);
        assert_eq!(report.verdict, Verdict::Valid, "{name}");
        let ops = u64::try_from(history.ops().len()).unwrap();
        let steps_max = ops * STEPS_PER_OP_MAX;
        assert!(report.steps <= steps_max, "{name}: {} steps, not {steps_max}", report.steps);
        let lost = lose_a_write(&history);
        let report = measure("  … with a lost write", &lost);
        assert!(matches!(report.verdict, Verdict::Invalid(_)), "{name} with a lost write");
    }
}
