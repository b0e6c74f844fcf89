//! Commands about one run: replay it, make it small, look at it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sim_tests::atlas::Contract;
use sim_tests::branch::{self, Effort, Moment};
use sim_tests::case::{Case, Expected};
use sim_tests::check::liveness::Recovery;
use sim_tests::healing::Alone;
use sim_tests::history::jsonl;
use sim_tests::report;
use sim_tests::run::{self, Keep, run_case};
use sim_tests::shrink::{self, Budget, Failure};
use sim_tests::world::Record;

use crate::arguments::{Output, Which, parse_count};
use crate::{check_place, processors, refuse, say, write};

/// Runs one seed or replay file and prints its trace, ending with the hash of everything.
#[derive(Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    which: Which,
    /// Leave out faults and operations by their names, separated by commas, as f12,c2.17.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Write every decision of the run to this replay file.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Write the trace to this file instead of printing it.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Write the history of the clients to this file, as JSON Lines.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Print only how it ended, without the trace.
    #[arg(long)]
    quiet: bool,
}

impl Replay {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { which, without, write, trace, history, quiet } = self;
        let mut case = which.case();
        if let Err(error) = case.leave_out(&without) {
            refuse(&error.to_string());
        }
        replay(&case, &Outputs { write, trace, history, quiet })
    }
}

/// Makes a failing run small: few decisions by which the same checker still speaks.
#[derive(Args)]
pub(crate) struct Shrink {
    #[command(flatten)]
    which: Which,
    /// Runs at the same time; default: one per processor.
    #[arg(long, value_parser = parse_count::<usize>)]
    jobs: Option<usize>,
    /// Stop after so many runs.
    #[arg(long, default_value_t = 4000, value_parser = parse_count::<u64>)]
    runs_max: u64,
    /// Stop after so many processor seconds.
    #[arg(long, default_value_t = 50.0)]
    cpu_seconds_max: f64,
    /// Write what is left to this replay file.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Write it as a test in Rust to this file.
    #[arg(long)]
    scenario: Option<PathBuf>,
}

impl Shrink {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { which, jobs, runs_max, cpu_seconds_max, output, scenario } = self;
        let jobs = jobs.unwrap_or_else(processors);
        let budget = Budget { jobs, runs_max, cpu_seconds_max };
        for path in output.iter().chain(&scenario) {
            check_place(path);
        }
        shrink_one(&which, budget, output, scenario)
    }
}

/// Shrinks failures of different planted bugs, and tells how small they became.
#[derive(Args)]
pub(crate) struct ShrinkAll {
    /// How many failures.
    #[arg(long, default_value_t = 20, value_parser = parse_count::<usize>)]
    failures: usize,
    /// Runs at the same time; default: one per processor.
    #[arg(long, value_parser = parse_count::<usize>)]
    jobs: Option<usize>,
    /// How to print the table.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl ShrinkAll {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { failures, jobs, output } = self;
        shrink_all(failures, jobs.unwrap_or_else(processors), output)
    }
}

/// Writes a run as one HTML page to look at.
#[derive(Args)]
pub(crate) struct Report {
    #[command(flatten)]
    which: Which,
    /// Write the page to this file.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
    /// Write its last moments as a picture to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

impl Report {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { which, out, svg } = self;
        write_report(&which.case(), &out, svg)
    }
}

/// Continues a run in many ways, and shows when its failure was decided.
///
/// The run is replayed up to a moment; from there on everything is drawn anew: when messages
/// arrive, how long disks take, and the faults and requests that the seed draws. (What a replay
/// file lists stays.) Without --reseed-from, moments all along a failing run are tried. Where
/// the share that fails rises the most, it was decided, and the events there are printed.
#[derive(Args)]
pub(crate) struct Branch {
    #[command(flatten)]
    which: Which,
    /// Only from this moment, in place of a page (--out): the number of a line of the trace, from
    /// 0 (1234), a time as the trace prints it (12.345678), or the first time that a rare path is
    /// taken (probe:NAME).
    #[arg(long, value_name = "EVENT")]
    reseed_from: Option<Moment>,
    /// Continuations of each moment.
    #[arg(long, default_value_t = 20, value_parser = parse_count::<u64>)]
    branches: u64,
    /// Moments that are tried, before the search for the decisive one.
    #[arg(long, default_value_t = 16)]
    points: u32,
    /// Runs at the same time; default: one per processor.
    #[arg(long, value_parser = parse_count::<usize>)]
    jobs: Option<usize>,
    /// Write the run as a page, with its odds, to this file; not with --reseed-from.
    #[arg(long, conflicts_with = "reseed_from")]
    out: Option<PathBuf>,
    /// Write the first continuation that fails to this replay file; needs --reseed-from.
    #[arg(long, requires = "reseed_from")]
    write: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Branch {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { which, reseed_from, branches, points, jobs, out, write, output } = self;
        let jobs = jobs.unwrap_or_else(processors);
        let effort = Effort { branches, points, jobs };
        match reseed_from {
            Some(moment) => branch_at(&which.case(), &moment, effort, write, output),
            None => branch(&which.case(), effort, out, output),
        }
    }
}

/// What becomes of a replay besides its verdict.
struct Outputs {
    write: Option<PathBuf>,
    trace: Option<PathBuf>,
    history: Option<PathBuf>,
    quiet: bool,
}

fn replay(case: &Case, outputs: &Outputs) -> bool {
    let Outputs { write: replay_file, trace, history, quiet } = outputs;
    if !quiet {
        say!("seed {}: {}", case.options.seed, case.options);
    }
    let log = replay_file.is_some() || case.expected.is_some();
    let lines = if *quiet && trace.is_none() { Record::Nothing } else { Record::Lines };
    let report = run_case(case, Keep { trace: lines, log });
    match trace {
        Some(path) => write(path, &(report.trace.join("\n") + "\n")),
        None if *quiet => {}
        None => report.trace.iter().for_each(|line| say!("{line}")),
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

fn print_divergence(expected: &Expected, report: &run::Report) {
    let spoke = report.violation.as_ref().map(|violation| violation.checker);
    if spoke != expected.checker.as_deref() {
        let name = |checker: Option<&str>| checker.unwrap_or("nobody").to_owned();
        say!("{} was to speak, and {} did", name(expected.checker.as_deref()), name(spoke));
    }
    say!("{}", expected.compared(report));
}

fn print_verdict(report: &run::Report) {
    if let Some(violation) = &report.violation {
        say!("seed {}: VIOLATION of {}", report.seed, violation.checker);
        say!("{violation}");
    } else {
        say!("seed {}: no violation", report.seed);
    }
    if report.contract != Contract::MustSurvive {
        let end = if report.is_halted { "it did not serve in the end" } else { "it served" };
        say!("its disks lost so much that it is held to this: {}; {end}", report.contract);
    }
    match report.alone {
        Alone::NotTried => {}
        Alone::Skipped => say!("no quorum had to serve alone"),
        Alone::Served { healing, after, .. } => {
            say!("a quorum alone served after {after:?} ({})", healing.name());
        }
    }
    print_recovery(&report.recovery);
    say!(
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
            say!("from healing to {step}: {:?}", Duration::from_nanos(*took));
        }
    }
}

/// Shrinks one failure, prints its story, and tells whether there was one.
fn shrink_one(
    which: &Which,
    budget: Budget,
    output: Option<PathBuf>,
    scenario: Option<PathBuf>,
) -> bool {
    let mut case = which.case();
    if case.about.is_empty() {
        case.about = format!("Shrunk from {}.", which.name(&case));
    }
    let bar = ProgressBar::new_spinner();
    let shrunk = shrink::shrink(&case, budget, &bar);
    bar.finish_and_clear();
    let shrunk = match shrunk {
        Ok(shrunk) => shrunk,
        Err(sound) => {
            say!("{sound}");
            return false;
        }
    };
    say!("{}", shrink::in_words(&shrunk.case, &shrunk.report));
    say!(
        "{} decisions are left of {}, after {} runs and {:.1} CPU s",
        shrunk.after,
        shrunk.before,
        shrunk.runs,
        shrunk.cpu_seconds
    );
    if shrunk.taken_back > 0 {
        say!(
            "the last {} steps were taken back: what they left did not fail again",
            shrunk.taken_back
        );
    }
    let path = output.unwrap_or_else(|| format!("{}.shrunk.json", which.stem()).into());
    write(&path, &shrunk.case.to_json());
    say!("see it again: cargo sim replay {}", path.display());
    if let Some(test) = shrink::to_rust(&shrunk.case, &shrunk.report) {
        match scenario {
            Some(path) => write(&path, &test),
            None => say!("\nas a test for sim-tests/tests/it/regress/:\n\n{test}"),
        }
    }
    true
}

/// Shrinks failures of different planted bugs; tells whether one of them could not be.
fn shrink_all(failures: usize, jobs: usize, output: Output) -> bool {
    let progress = |row: &shrink::Row| eprintln!("{}", row.to_line());
    let rows = shrink::shrink_planted(failures, jobs, progress);
    if output == Output::Json {
        say!("{}", shrink::rows_to_json(&rows));
    } else {
        say!("{}", shrink::rows_to_table(&rows));
    }
    rows.len() < failures
}

/// Writes a run as a page, and its last moments as a picture; tells whether it broke a promise.
fn write_report(case: &Case, out: &Path, svg: Option<PathBuf>) -> bool {
    let report = run_case(case, Keep { trace: Record::Nothing, log: true });
    write(out, &report::page(case, &report));
    say!("open {} in a browser", out.display());
    if let Some(path) = svg {
        write(&path, &report::last_moments(case, &report));
    }
    print_verdict(&report);
    report.violation.is_some()
}

/// Shows how likely a failure was all along a run; tells whether there was one.
fn branch(case: &Case, effort: Effort, out: Option<PathBuf>, output: Output) -> bool {
    let bar = continuations_bar();
    let odds = branch::odds(case, effort, &bar);
    bar.finish_and_clear();
    let Ok(odds) = odds else {
        refuse("the run breaks no promise: name a moment with --reseed-from")
    };
    match output {
        Output::Json => say!("{}", odds.to_json()),
        Output::Table => say!("{}", odds.to_text()),
    }
    if let Some(path) = out {
        write(&path, &report::page_with_odds(case, &odds));
        eprintln!("open {} in a browser", path.display());
    }
    true
}

/// Continues a run from one moment; tells whether a continuation failed.
fn branch_at(
    case: &Case,
    moment: &Moment,
    effort: Effort,
    file: Option<PathBuf>,
    output: Output,
) -> bool {
    let run = run_case(case, Keep { log: true, ..Keep::default() });
    let Some(at) = moment.locate(&run) else {
        let lines = run.log.iter().filter(|entry| entry.kind().is_some()).count();
        refuse(&format!("there is no {moment} in this run, whose trace has {lines} lines"))
    };
    let failure = run.violation.as_ref().map(Failure::of);
    let bar = continuations_bar();
    let point =
        branch::try_at(case, failure.as_ref(), at, effort.branches, effort.jobs, || bar.inc(1));
    bar.finish_and_clear();
    match output {
        Output::Json => say!("{}", point.to_json()),
        Output::Table => {
            let what = failure.map_or("in some way".to_owned(), |failure| format!("by {failure}"));
            say!(
                "from {:.6} s on drawn anew: {} of {} fail {what}, {} otherwise",
                at.as_secs_f64(),
                point.failed,
                point.branches,
                point.failed_otherwise
            );
        }
    }
    if let (Some(path), Some(number)) = (file, point.first_failed) {
        let case = branch::branch(case, at, number);
        let report = run_case(&case, Keep { log: true, ..Keep::default() });
        write(&path, &case.written(&report).to_json());
        eprintln!("see the first of them again: cargo sim replay {}", path.display());
    }
    point.failed + point.failed_otherwise > 0
}

fn continuations_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} continuations  {elapsed}") {
        bar.set_style(style);
    }
    bar
}
