//! Commands about one run: replay it, make it small, look at it.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use sim_tests::case::{Case, Expected};
use sim_tests::check::liveness::Recovery;
use sim_tests::history::jsonl;
use sim_tests::report;
use sim_tests::run::{Keep, Report, run_case};
use sim_tests::shrink::{self, Budget};
use sim_tests::world::Record;

use crate::arguments::{Output, Which};
use crate::write;

/// What becomes of a replay besides its verdict.
pub(crate) struct Outputs {
    pub(crate) write: Option<PathBuf>,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) history: Option<PathBuf>,
    pub(crate) quiet: bool,
}

pub(crate) fn replay(case: &Case, outputs: &Outputs) -> bool {
    let Outputs { write: replay_file, trace, history, quiet } = outputs;
    if !quiet {
        println!("seed {}: {}", case.options.seed, case.options);
    }
    let log = replay_file.is_some() || case.expected.is_some();
    let lines = if *quiet && trace.is_none() { Record::Nothing } else { Record::Lines };
    let report = run_case(case, Keep { trace: lines, log });
    match trace {
        Some(path) => write(path, &(report.trace.join("\n") + "\n")),
        None if *quiet => {}
        None => report.trace.iter().for_each(|line| println!("{line}")),
    }
    if let Some(path) = history {
        let mut lines = Vec::new();
        if let Err(error) = jsonl::write(&report.history, &mut lines) {
            eprintln!("cannot encode the history: {error}");
        }
        write(path, &String::from_utf8_lossy(&lines));
    }
    if let Some(path) = replay_file {
        write(path, &case.written(&report).to_json());
    }
    if let Some(expected) = &case.expected {
        print_divergence(expected, &report);
    }
    print_verdict(&report);
    report.violation.is_some()
}

fn print_divergence(expected: &Expected, report: &Report) {
    let spoke = report.violation.as_ref().map(|violation| violation.checker);
    if spoke != expected.checker.as_deref() {
        let name = |checker: Option<&str>| checker.unwrap_or("nobody").to_owned();
        println!("{} was to speak, and {} did", name(expected.checker.as_deref()), name(spoke));
    }
    match expected.divergence(report) {
        Some(divergence) => println!("this is not the run that was written down: {divergence}"),
        None => println!("every event is as it was written down"),
    }
}

fn print_verdict(report: &Report) {
    if let Some(violation) = &report.violation {
        println!("seed {}: VIOLATION of {}", report.seed, violation.checker);
        println!("{violation}");
    } else {
        println!("seed {}: no violation", report.seed);
    }
    print_recovery(&report.recovery);
    println!(
        "{} events, {:.1} simulated seconds, {} requests answered, {} elections, hash {:016x}",
        report.event_count,
        report.simulated.as_secs_f64(),
        report.acknowledged,
        report.elections,
        report.hash
    );
}

/// Tells how long each step after healing took, if the run was timed.
fn print_recovery(recovery: &Recovery) {
    let Recovery { leader_ns, serve_ns, converge_ns } = recovery;
    let steps = [
        ("a leader", leader_ns),
        ("the first acknowledged write", serve_ns),
        ("equal replicas", converge_ns),
    ];
    for (step, took) in steps {
        if let Some(took) = took {
            println!("from healing to {step}: {:?}", std::time::Duration::from_nanos(*took));
        }
    }
}

/// Shrinks one failure, prints its story, and tells whether there was one.
pub(crate) fn shrink_one(
    which: &Which,
    budget: Budget,
    output: Option<PathBuf>,
    scenario: Option<PathBuf>,
) -> bool {
    let mut case = which.case();
    if case.about.is_empty() {
        let planted = which.planted.as_ref().map(|code| format!(" with the planted bug {code}"));
        case.about = format!("Shrunk from {}{}.", which.run, planted.unwrap_or_default());
    }
    let bar = ProgressBar::new_spinner();
    let shrunk = shrink::shrink(&case, budget, &bar);
    bar.finish_and_clear();
    let shrunk = match shrunk {
        Ok(shrunk) => shrunk,
        Err(sound) => {
            println!("{sound}");
            return false;
        }
    };
    println!("{}", shrink::in_words(&shrunk.case, &shrunk.report));
    println!(
        "{} decisions are left of {}, after {} runs and {:.1} CPU s",
        shrunk.after, shrunk.before, shrunk.runs, shrunk.cpu_seconds
    );
    let path = output.unwrap_or_else(|| format!("{}.shrunk.json", which.stem()).into());
    write(&path, &shrunk.case.to_json());
    println!("see it again: cargo sim replay {}", path.display());
    if let Some(test) = shrink::to_rust(&shrunk.case, &shrunk.report) {
        match scenario {
            Some(path) => write(&path, &test),
            None => println!("\nas a test for sim-tests/tests/it/regress/:\n\n{test}"),
        }
    }
    true
}

/// Shrinks failures of different planted bugs; tells whether one of them could not be.
pub(crate) fn shrink_all(failures: usize, jobs: usize, output: Output) -> bool {
    let progress = |row: &shrink::Row| eprintln!("{}", row.to_line());
    let rows = shrink::shrink_planted(failures, jobs, progress);
    if output == Output::Json {
        println!("{}", shrink::rows_to_json(&rows));
    } else {
        println!("{}", shrink::rows_to_table(&rows));
    }
    rows.len() < failures
}

/// Writes a run as a page, and its last moments as a picture; tells whether it broke a promise.
pub(crate) fn write_report(case: &Case, out: &Path, svg: Option<PathBuf>) -> bool {
    let report = run_case(case, Keep { trace: Record::Nothing, log: true });
    write(out, &report::page(case, &report));
    println!("open {} in a browser", out.display());
    if let Some(path) = svg {
        write(&path, &report::last_moments(case, &report));
    }
    print_verdict(&report);
    report.violation.is_some()
}
