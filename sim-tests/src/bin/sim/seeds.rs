//! Commands that run many seeds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sim_tests::branch::{self, Exploration};
use sim_tests::bugs::{self, Hunting};
use sim_tests::case::Case;
use sim_tests::compare;
use sim_tests::crash::{self, Plan as CrashPlan, cluster};
use sim_tests::hunt;
use sim_tests::liveness;
use sim_tests::options::{Mode, Profile};
use sim_tests::swarm::{self, Swarm};

use crate::arguments::{
    Output, Runs, parse_count, parse_first_seed, parse_seeds, parse_time, scenario,
};
use crate::{
    bug_of, check_place, fresh_range, is_hunted, known_bug, processors, refuse, say, write,
};

/// Runs many seeds and sums up what happened.
#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    runs: Runs,
    /// How many fresh seeds; they begin at a number drawn from the clock, which is printed.
    #[arg(long, default_value_t = 100, value_parser = parse_seeds)]
    #[arg(conflicts_with = "seed_range")]
    seeds: u64,
    /// Runs at the same time; default: one per processor.
    #[arg(long, value_parser = parse_count::<usize>)]
    jobs: Option<usize>,
    /// How to print the summary.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Run {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { runs, seeds, jobs, output } = self;
        let (plan, (first, end)) = (runs.plan(), runs.range(seeds));
        let jobs = jobs.unwrap_or_else(processors);
        run_swarm(&Swarm { first, end, jobs, progress: true, plan }, output)
    }
}

/// Tries fresh seeds of both modes, of all profiles but beyond, and makes small what fails.
///
/// It goes on for as long as it is told to, and most time goes where most is found. Of each kind
/// of failure the seed that failed the soonest is kept, shrunk when the time is over, and written
/// into the folder with its story, its page and a test. The same command goes on where the last
/// one stopped.
#[derive(Args)]
pub(crate) struct Hunt {
    /// How long, as 30s, 10m or 2h; making failures small comes on top.
    #[arg(long, default_value = "10m", value_parser = parse_time)]
    budget: Duration,
    /// Where everything is kept.
    #[arg(long, default_value = "hunt")]
    folder: PathBuf,
    /// Runs at the same time; default: one per processor.
    #[arg(long, value_parser = parse_count::<usize>)]
    jobs: Option<usize>,
    /// Switch a planted bug on: docs/bugs-primary-backup.md and docs/bugs-masterless.md list them.
    #[arg(long)]
    planted: Option<String>,
    /// How to print the tables.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Hunt {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { budget, folder, jobs, planted, output } = self;
        let planted = planted.as_deref().map(known_bug);
        let jobs = jobs.unwrap_or_else(processors);
        let first_seed = fresh_range(1).0;
        hunt_on(&hunt::Hunt { folder, budget, jobs, first_seed, planted }, output)
    }
}

/// Runs seeds, and continues in many ways from the rare paths that few of them take.
///
/// A rare path of the nodes is marked by a probe. What lies behind one is tried more often in
/// this way than by as many fresh seeds. What fails is written into the folder as replay files.
#[derive(Args)]
pub(crate) struct Explore {
    #[command(flatten)]
    runs: Runs,
    /// How many fresh seeds.
    #[arg(long, default_value_t = 200, value_parser = parse_seeds)]
    #[arg(conflicts_with = "seed_range")]
    seeds: u64,
    /// A path is rare if at most so many of the seeds take it.
    #[arg(long, default_value_t = 3)]
    rare: u64,
    /// Continuations from each rare path.
    #[arg(long, default_value_t = 20, value_parser = parse_count::<u64>)]
    branches: u64,
    /// Switch a planted bug on: docs/bugs-primary-backup.md and docs/bugs-masterless.md list them.
    #[arg(long)]
    planted: Option<String>,
    /// Runs at the same time; default: one per processor.
    #[arg(long, value_parser = parse_count::<usize>)]
    jobs: Option<usize>,
    /// Where failures are written.
    #[arg(long, default_value = "explored")]
    folder: PathBuf,
    /// How to print the table.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Explore {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { runs, seeds, rare, branches, planted, jobs, folder, output } = self;
        let (plan, (first, end)) = (runs.plan(), runs.range(seeds));
        let planted = planted.as_deref().map(|code| bug_of(plan.mode, code));
        let jobs = jobs.unwrap_or_else(processors);
        let exploration = Exploration { plan, planted, first, end, rare, branches, jobs };
        explore_rare(&exploration, &folder, output)
    }
}

/// Runs both replication modes through the same accidents, and shows how they bear them.
///
/// The primary-backup mode and the masterless one, asked at QUORUM and at ONE, get the same
/// faults, seeds and requests. What clients could measure is written as a table and as one HTML
/// page with pictures.
#[derive(Args)]
pub(crate) struct Compare {
    /// Runs of each scenario with each of the three.
    #[arg(long, default_value_t = 10, value_parser = parse_seeds)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1, value_parser = parse_first_seed)]
    first_seed: u64,
    /// Only these scenarios, separated by commas: calm, leader-dies, minority, bridge, slow-disk,
    /// clock-skew, clock-skew-cut, rolling-restart, power-loss.
    #[arg(long, value_delimiter = ',', value_parser = scenario)]
    only: Vec<&'static compare::Scenario>,
    /// Runs at the same time; default: one per processor.
    #[arg(long, value_parser = parse_count::<usize>)]
    jobs: Option<usize>,
    /// Write the page to this file.
    #[arg(long, default_value = "compare.html")]
    out: PathBuf,
    /// Write the first run of each as a replay file into this folder, for `sim replay` and
    /// `sim report`.
    #[arg(long)]
    cases: Option<PathBuf>,
    /// How to print the table.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Compare {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { seeds, first_seed, only, jobs, out, cases, output } = self;
        let all = || compare::SCENARIOS.iter().collect();
        let scenarios = if only.is_empty() { all() } else { only };
        let jobs = jobs.unwrap_or_else(processors);
        let plan = compare::Plan { scenarios, first_seed, seeds, jobs };
        if let Some(folder) = cases {
            write_cases(&plan, &folder);
        }
        compare_modes(&plan, &out, output)
    }
}

/// Measures how fast clusters are back after healing, and how much of one each fault leaves.
///
/// The seeds are run as `sim run` does, but somebody asks from the moment of healing on. Times
/// to a leader, to the first acknowledged write and to equal replicas are distributions, and
/// the exit code is 1 if they exceed their limits; from 200 runs on percentiles are judged.
/// Then faults of each kind strike alone under a steady load, for curves of what was available.
/// Everything is written as tables and as one HTML page with pictures.
#[derive(Args)]
pub(crate) struct Liveness {
    #[command(flatten)]
    runs: Runs,
    /// How many fresh seeds; they begin at a number drawn from the clock.
    #[arg(long, default_value_t = 200, value_parser = parse_seeds)]
    #[arg(conflicts_with = "seed_range")]
    seeds: u64,
    /// Runs of each kind of fault, for the curves; 0 leaves them out.
    #[arg(long, default_value_t = 20)]
    curves: u64,
    /// Switch a planted bug on in the runs whose healing is timed: are they slower?
    /// docs/bugs-primary-backup.md and docs/bugs-masterless.md list the bugs.
    #[arg(long)]
    planted: Option<String>,
    /// Runs at the same time; default: one per processor.
    #[arg(long, value_parser = parse_count::<usize>)]
    jobs: Option<usize>,
    /// Write the page to this file.
    #[arg(long, default_value = "liveness.html")]
    out: PathBuf,
    /// How to print the tables.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Liveness {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let ((first, end), runs) = (self.runs.range(self.seeds), self.runs.plan());
        if runs.profile == Profile::Beyond {
            refuse("what happens beyond what can be mended has no limits: take another profile");
        }
        let plan = liveness::Plan {
            runs,
            seeds: first..end,
            curve_seeds: self.curves,
            planted: self.planted.as_deref().map(|code| bug_of(runs.mode, code)),
            jobs: self.jobs.unwrap_or_else(processors),
        };
        let bar = ProgressBar::new(plan.run_count());
        let measured = liveness::measure(&plan, || bar.inc(1));
        bar.finish_and_clear();
        match self.output {
            Output::Json => say!("{}", liveness::to_json(&measured)),
            Output::Table => say!("{}", liveness::to_table(&measured)),
        }
        for line in &measured.broken {
            eprintln!("a promise is broken: {line}");
        }
        write(&self.out, &liveness::page(&measured));
        eprintln!("the page is in {}", self.out.display());
        !measured.broken.is_empty() || measured.is_too_slow()
    }
}

/// Switches on one planted bug after the other and counts the seeds until it is found.
#[derive(Args)]
pub(crate) struct Bugs {
    /// Those of this replication mode.
    #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
    mode: Mode,
    /// Only these, separated by commas: docs/bugs-primary-backup.md and docs/bugs-masterless.md
    /// list them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Give a bug up after so many seeds.
    #[arg(long, default_value_t = 1000, value_parser = parse_seeds)]
    seeds_max: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1, value_parser = parse_first_seed)]
    first_seed: u64,
    /// Hunt each so many times, in ranges of seeds that follow each other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    ranges: u64,
    /// Hunt each again without one class of faults after the other, and without the checker that
    /// spoke first.
    #[arg(long)]
    ablate: bool,
    /// Write the matrix to this file, as a page of the documentation.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// How to print the table.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Bugs {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { mode, only, seeds_max, first_seed, ranges, ablate, markdown, output } = self;
        if let Some(code) = only.iter().find(|code| !is_hunted(mode, known_bug(code))) {
            refuse(&format!("{code} is hunted in the other replication mode: say so with --mode"));
        }
        let jobs = processors();
        let hunting = Hunting { mode, only, first_seed, seeds_max, ranges, jobs };
        hunt_planted(&hunting, ablate, markdown, output)
    }
}

/// Loses power at every step of a store's life, in every way up to a bound, and recovers.
#[derive(Args)]
pub(crate) struct CrashPoints {
    /// Operations of the script that uses the store.
    #[arg(long, default_value_t = 200, value_parser = parse_count::<u64>)]
    operations: u64,
    /// Most images of one boundary between two steps of the disk.
    #[arg(long, default_value_t = 1000, value_parser = parse_count::<usize>)]
    images: usize,
    /// The seed of the script.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Switch a planted bug on, and stop at what it does: docs/bugs-primary-backup.md and
    /// docs/bugs-masterless.md list them.
    #[arg(long)]
    planted: Option<String>,
    /// How to print what it came to.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl CrashPoints {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { operations, images, seed, planted, output } = self;
        let planted = planted.as_deref().map(known_bug);
        if let Some(code) = planted.filter(|code| !code.starts_with('W')) {
            refuse(&format!("{code} is a bug of a replication mode: here the store runs alone"));
        }
        let stop_at_first = planted.is_some();
        let plan = CrashPlan { seed, operations, images_max: images, planted, stop_at_first };
        explore(&plan, output)
    }
}

/// Loses power at every step of every disk of a short run of a whole cluster.
///
/// The run is played once without a fault, to learn when its disks do something, and then with one
/// power loss at each of those moments, right before and right after it: of that node and of all,
/// strictly and in part. A step is a write, a creation, a renaming, a removal, or a sync of a file
/// or a directory. There are some thousand such moments: --moments says how many are tried.
#[derive(Args)]
pub(crate) struct ClusterCrashPoints {
    /// Replication mode.
    #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
    mode: Mode,
    /// The seed of the run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Most moments that are tried; more are thinned out evenly.
    #[arg(long, default_value_t = 1000, value_parser = parse_count::<usize>)]
    moments: usize,
    /// Switch a planted bug on: docs/bugs-primary-backup.md and docs/bugs-masterless.md list them.
    #[arg(long)]
    planted: Option<String>,
    /// Runs at the same time; default: one per processor.
    #[arg(long, value_parser = parse_count::<usize>)]
    jobs: Option<usize>,
    /// Where runs that fail are written.
    #[arg(long, default_value = "crash-points")]
    folder: PathBuf,
    /// How to print what it came to.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl ClusterCrashPoints {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { mode, seed, moments, planted, jobs, folder, output } = self;
        let planted = planted.as_deref().map(|code| bug_of(mode, code));
        let jobs = jobs.unwrap_or_else(processors);
        let bar = ProgressBar::new(0);
        let plan = cluster::Plan { mode, seed, moments_max: moments, jobs, planted };
        let exploration = cluster::explore(&plan, |total| {
            bar.set_length(u64::try_from(total).unwrap_or(u64::MAX));
            bar.inc(1);
        });
        bar.finish_and_clear();
        match output {
            Output::Json => say!("{}", exploration.to_json()),
            Output::Table => say!("{exploration}"),
        }
        let failures = exploration.violations.iter().map(|(case, what)| (case, what.clone()));
        write_failures(&folder, &failures.collect::<Vec<_>>());
        !exploration.violations.is_empty()
    }
}

/// Runs many seeds; tells whether one failed, or all of them prove nothing.
fn run_swarm(swarm: &Swarm, output: Output) -> bool {
    let summary = swarm::run_seeds(swarm);
    if output == Output::Json {
        say!("{}", summary.to_json());
    } else {
        say!("{}", summary.to_table());
    }
    if summary.is_vacuous() {
        eprintln!(
            "the run is vacuous: {} seeds and never observable: {}",
            swarm.end - swarm.first,
            summary.missing().join(", ")
        );
    }
    summary.failures() > 0 || summary.is_vacuous()
}

/// Hunts for as long as there is time; tells whether anything was found, now or before.
fn hunt_on(hunt: &hunt::Hunt, output: Output) -> bool {
    let style = ProgressStyle::with_template("{spinner} {pos} seeds, {msg}  {elapsed}");
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = style {
        bar.set_style(style);
    }
    let state = hunt::hunt(hunt, &bar);
    bar.finish_and_clear();
    let state = state
        .unwrap_or_else(|error| refuse(&format!("cannot use {}: {error}", hunt.folder.display())));
    match output {
        Output::Json => say!("{}", state.to_json()),
        Output::Table => say!("{}", state.to_table()),
    }
    if state.has_finds() {
        eprintln!("what was found is in {}", hunt.folder.display());
    }
    state.has_finds()
}

/// Hunts planted bugs; tells whether one was missed.
fn hunt_planted(
    hunting: &Hunting,
    ablate: bool,
    markdown: Option<PathBuf>,
    output: Output,
) -> bool {
    if let Some(path) = &markdown {
        check_place(path);
    }
    let hunts = bugs::hunt_all(hunting, |hunt| eprintln!("{}", hunt.to_line()));
    let ablations = if ablate {
        bugs::ablate_all(&hunts, hunting.jobs, |ablation| eprintln!("{}", ablation.to_line()))
    } else {
        Vec::new()
    };
    if let Some(path) = markdown {
        write(&path, &bugs::to_markdown(hunting, &hunts, &ablations));
    }
    if output == Output::Json {
        say!("{}", bugs::to_json(&hunts));
    } else {
        say!("{}", bugs::to_table(&hunts));
    }
    hunts.iter().any(|hunt| hunt.found.is_none())
}

/// Explores crash points; tells whether one lost something.
fn explore(plan: &CrashPlan, output: Output) -> bool {
    let begin = std::time::Instant::now();
    let exploration = crash::explore(plan);
    let seconds = begin.elapsed().as_secs_f64();
    match output {
        Output::Json => say!("{}", exploration.to_json()),
        Output::Table => say!("{exploration}\n{seconds:.1} s on the clock, on one processor"),
    }
    exploration.violation_count > 0
}

/// Writes the first run of each scenario with each subject as a replay file.
fn write_cases(plan: &compare::Plan, folder: &Path) {
    if let Err(error) = std::fs::create_dir_all(folder) {
        refuse(&format!("cannot make {}: {error}", folder.display()));
    }
    for scenario in &plan.scenarios {
        for subject in compare::Subject::ALL {
            let name = format!("{}-{}.json", scenario.name, subject.code());
            let case = scenario.case(subject, plan.first_seed);
            write(&folder.join(name), &case.to_json());
        }
    }
}

/// Compares the modes; tells whether one broke a promise.
fn compare_modes(plan: &compare::Plan, out: &Path, output: Output) -> bool {
    check_place(out);
    let runs: u64 = plan.run_count();
    let bar = ProgressBar::new(runs);
    let (rows, broken) = compare::compare(plan, || bar.inc(1));
    bar.finish_and_clear();
    if output == Output::Json {
        say!("{}", compare::to_json(&rows));
    } else {
        say!("{}", compare::to_table(&rows));
    }
    for line in &broken {
        eprintln!("a promise is broken: {line}");
    }
    write(out, &compare::page(&rows));
    eprintln!("the page is in {}", out.display());
    !broken.is_empty()
}

/// Continues from rare paths; tells whether anything failed.
fn explore_rare(exploration: &Exploration, folder: &Path, output: Output) -> bool {
    let bar = ProgressBar::new(exploration.seed_count());
    let (explored, found) = branch::explore(exploration, |total| {
        bar.set_length(total);
        bar.inc(1);
    });
    bar.finish_and_clear();
    match output {
        Output::Json => say!("{}", branch::explored_to_json(exploration, &explored, &found)),
        Output::Table => say!("{}", branch::explored_to_table(exploration, &explored)),
    }
    let failure = |found: &branch::Found| {
        let behind = found.probe.unwrap_or("a plain seed");
        format!("behind {behind}: {}", found.what)
    };
    let failures = found.iter().map(|found| (&found.case, failure(found)));
    write_failures(folder, &failures.collect::<Vec<_>>());
    !found.is_empty()
}

/// Writes runs that failed as replay files, and says how to see each again.
fn write_failures(folder: &Path, failures: &[(&Case, String)]) {
    for (number, (case, what)) in (1..).zip(failures) {
        if let Err(error) = std::fs::create_dir_all(folder) {
            refuse(&format!("cannot make {}: {error}", folder.display()));
        }
        let path = folder.join(format!("{number}.json"));
        eprintln!("{what}\n  replay: cargo sim replay {}", path.display());
        write(&path, &case.to_json());
    }
}
