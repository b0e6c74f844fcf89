//! The `sim` program: runs seeds, replays one, and proves that planted bugs are found.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program around the simulation is real"
)]
#![expect(clippy::exit, reason = "the exit code is the verdict")]

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use sim_tests::bugs::{self, Hunting};
use sim_tests::case::{Case, Expected};
use sim_tests::compare;
use sim_tests::crash::{self, Plan as CrashPlan};
use sim_tests::determinism::{self, Proof};
use sim_tests::golden;
use sim_tests::history::jsonl;
use sim_tests::hunt;
use sim_tests::options::{Leak, Mode, Options, Plan, Profile};
use sim_tests::report;
use sim_tests::run::{Keep, Report, run_case};
use sim_tests::shrink::{self, Budget};
use sim_tests::swarm::{self, Swarm};
use sim_tests::world::Record;

/// A tenth of a run is spent in the allocator, with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs Mangrove in a simulated world: crashes, power loss, bad disks, bad networks, wrong clocks,
/// all from one seed.
#[derive(Parser)]
#[command(
    name = "sim",
    after_help = "Examples:\n  cargo sim run --seeds 1000\n  cargo sim replay 42 --trace \
                  trace.txt\n  cargo sim shrink 42 --output small.json\n  \
                  cargo sim bugs --only R3,W1\n  cargo sim run --mode masterless\n  \
                  cargo sim compare --seeds 20\n\n\
                  Exit codes: 0 no violation, 1 violation found \
                  or vacuous run, 2 usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds and sums up what happened.
    Run {
        /// Replication mode.
        #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
        mode: Mode,
        /// What the runs are mostly about.
        #[arg(long, value_enum, default_value_t = Profile::Standard)]
        profile: Profile,
        /// How many fresh seeds; they begin at a number drawn from the clock, which is printed.
        #[arg(long, default_value_t = 100, conflicts_with = "seed_range")]
        seeds: u64,
        /// These seeds, A..B (B excluded).
        #[arg(long, value_parser = parse_range)]
        seed_range: Option<(u64, u64)>,
        /// Runs at the same time; default: one per processor.
        #[arg(long)]
        jobs: Option<usize>,
        /// How to print the summary.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Runs one seed or replay file and prints its trace, ending with the hash of everything.
    Replay {
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
        /// Print only the last line.
        #[arg(long)]
        quiet: bool,
    },
    /// Runs seeds in several processes and compares everything that happens in them.
    ///
    /// Each event and, every tenth of a simulated second, everything that is durable on each disk
    /// must be the same in a process of its own, in a process that runs one seed after the other
    /// with another layout of its memory, and in another build if one is named.
    Determinism {
        /// Replication mode.
        #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
        mode: Mode,
        /// What the runs are mostly about.
        #[arg(long, value_enum, default_value_t = Profile::Standard)]
        profile: Profile,
        /// How many fresh seeds.
        #[arg(long, default_value_t = 10, conflicts_with = "seed_range")]
        seeds: u64,
        /// These seeds, A..B (B excluded).
        #[arg(long, value_parser = parse_range)]
        seed_range: Option<(u64, u64)>,
        /// The `sim` program of another build, such as target/debug/sim.
        #[arg(long)]
        against: Option<PathBuf>,
        /// Let something in that no seed decides: the comparison must fail.
        #[arg(long, value_enum, hide = true)]
        leak: Option<Leak>,
    },
    /// Runs seeds and writes everything that happens in them to standard output.
    #[command(hide = true)]
    Witness {
        #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
        mode: Mode,
        #[arg(long, value_enum, default_value_t = Profile::Standard)]
        profile: Profile,
        #[arg(long, value_enum)]
        leak: Option<Leak>,
        seeds: Vec<u64>,
    },
    /// Makes a failing run small: few decisions by which the same checker still speaks.
    Shrink {
        #[command(flatten)]
        which: Which,
        /// Runs at the same time; default: one per processor.
        #[arg(long)]
        jobs: Option<usize>,
        /// Stop after so many runs.
        #[arg(long, default_value_t = 4000)]
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
    },
    /// Writes a run as one HTML page to look at.
    Report {
        #[command(flatten)]
        which: Which,
        /// Where to.
        #[arg(long, default_value = "report.html")]
        out: PathBuf,
        /// Write its last moments as a picture to this file.
        #[arg(long)]
        svg: Option<PathBuf>,
    },
    /// Shrinks failures of different planted bugs, and tells how small they became.
    ShrinkAll {
        /// How many failures.
        #[arg(long, default_value_t = 20)]
        failures: usize,
        /// Runs at the same time; default: one per processor.
        #[arg(long)]
        jobs: Option<usize>,
        /// How to print the table.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Loses power at every step of a store's life, in every way up to a bound, and recovers.
    CrashPoints {
        /// Operations of the script that uses the store.
        #[arg(long, default_value_t = 200)]
        operations: u64,
        /// Most images of one boundary between two steps of the disk.
        #[arg(long, default_value_t = 1000)]
        images: usize,
        /// The seed of the script.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Switch a planted bug on, and stop at what it does.
        #[arg(long)]
        planted: Option<String>,
    },
    /// Writes a data directory as this version does, for a fixture that later ones must read.
    #[command(hide = true)]
    Golden {
        /// Where to.
        directory: PathBuf,
    },
    /// Tries fresh seeds of every mode and profile for hours, and makes small what fails.
    ///
    /// Most time goes where most is found. Of each kind of failure the seed that failed the soonest
    /// is kept, shrunk when the time is over, and written into the folder with its story, its page
    /// and a test. The same command goes on where the last one stopped.
    Hunt {
        /// How long, as 30s, 10m or 2h; making failures small comes on top.
        #[arg(long, default_value = "10m", value_parser = parse_time)]
        budget: std::time::Duration,
        /// Where everything is kept.
        #[arg(long, default_value = "hunt")]
        folder: PathBuf,
        /// Runs at the same time; default: one per processor.
        #[arg(long)]
        jobs: Option<usize>,
        /// Switch a planted bug on.
        #[arg(long)]
        planted: Option<String>,
        /// How to print the tables.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Runs both replication modes through the same accidents, and shows how they bear them.
    ///
    /// The primary-backup mode and the masterless one, asked at QUORUM and at ONE, get the same
    /// faults, seeds and requests. What clients could measure is written as a table and as one HTML
    /// page with pictures.
    Compare {
        /// Runs of each scenario with each of the three.
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Only these scenarios, separated by commas.
        #[arg(long, value_delimiter = ',', value_parser = scenario)]
        only: Vec<&'static compare::Scenario>,
        /// Runs at the same time; default: one per processor.
        #[arg(long)]
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
    },
    /// Switches on one planted bug after the other and counts the seeds until it is found.
    Bugs {
        /// Those of this replication mode.
        #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
        mode: Mode,
        /// Only these, separated by commas.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Give a bug up after so many seeds.
        #[arg(long, default_value_t = 1000)]
        seeds_max: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Hunt each so many times, in ranges of seeds that follow each other.
        #[arg(long, default_value_t = 1)]
        ranges: u64,
        /// Hunt each again without one class of faults after the other.
        #[arg(long)]
        ablate: bool,
        /// Write the matrix to this file, as a page of the documentation.
        #[arg(long)]
        markdown: Option<PathBuf>,
        /// How to print the table.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// Which run.
#[derive(clap::Args)]
struct Which {
    /// A seed, or a replay file.
    #[arg(value_name = "SEED|FILE")]
    run: String,
    /// The replication mode in which the seed was run.
    #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
    mode: Mode,
    /// The profile under which the seed was run.
    #[arg(long, value_enum, default_value_t = Profile::Standard)]
    profile: Profile,
    /// Switch a planted bug on.
    #[arg(long)]
    planted: Option<String>,
}

impl Which {
    /// Returns a name for files that are made of it.
    fn stem(&self) -> String {
        let stem = Path::new(&self.run).file_stem().and_then(|stem| stem.to_str());
        format!("seed-{}", stem.unwrap_or("run"))
    }

    /// Draws the case of the seed, or reads the file.
    fn case(&self) -> Case {
        let planted = self.planted.as_deref().map(known_bug);
        if let Ok(seed) = self.run.parse::<u64>() {
            let plan = Plan { mode: self.mode, profile: self.profile };
            return Case::drawn(Options { planted, ..plan.draw(seed) });
        }
        let text = std::fs::read_to_string(&self.run).unwrap_or_else(|error| {
            refuse(&format!("{} is no seed, and cannot be read: {error}", self.run))
        });
        let case = Case::from_json(&text);
        let mut case = case.unwrap_or_else(|error| refuse(&format!("{}: {error}", self.run)));
        if planted.is_some() {
            case.options.planted = planted;
        }
        case
    }
}

/// Ends the program with what is wrong with its arguments.
fn refuse(what: &str) -> ! {
    eprintln!("{what}");
    std::process::exit(2);
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (low, high) = text.split_once("..").ok_or("a range is written A..B")?;
    let number = |part: &str| part.trim().parse::<u64>().map_err(|error| error.to_string());
    let (low, high) = (number(low)?, number(high)?);
    if low < high { Ok((low, high)) } else { Err(format!("{low}..{high} is empty")) }
}

fn main() {
    let found = match Arguments::parse().command {
        Command::Run { mode, profile, seeds, seed_range, jobs, output } => {
            let (first, end) = seed_range.unwrap_or_else(|| fresh_range(seeds));
            let jobs = jobs.unwrap_or_else(processors);
            let plan = Plan { mode, profile };
            run_swarm(&Swarm { first, end, jobs, progress: true, plan }, output)
        }
        Command::Replay { which, without, write, trace, history, quiet } => {
            let mut case = which.case();
            if let Err(error) = case.leave_out(&without) {
                refuse(&error.to_string());
            }
            replay(&case, &Outputs { write, trace, history, quiet })
        }
        Command::Shrink { which, jobs, runs_max, cpu_seconds_max, output, scenario } => {
            let jobs = jobs.unwrap_or_else(processors);
            let budget = Budget { jobs, runs_max, cpu_seconds_max };
            shrink_one(&which, budget, output, scenario)
        }
        Command::Report { which, out, svg } => write_report(&which.case(), &out, svg),
        Command::ShrinkAll { failures, jobs, output } => {
            shrink_all(failures, jobs.unwrap_or_else(processors), output)
        }
        Command::Determinism { mode, profile, seeds, seed_range, against, leak } => {
            let (first, end) = seed_range.unwrap_or_else(|| fresh_range(seeds));
            let plan = Plan { mode, profile };
            prove(plan, first..end, against, leak)
        }
        Command::Witness { mode, profile, leak, seeds } => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            determinism::testify(Plan { mode, profile }, &seeds, leak, &mut out).is_err()
        }
        Command::CrashPoints { operations, images, seed, planted } => {
            let planted = planted.as_deref().map(known_bug);
            let stop_at_first = planted.is_some();
            explore(&CrashPlan { seed, operations, images_max: images, planted, stop_at_first })
        }
        Command::Golden { directory } => write_golden(&directory),
        Command::Hunt { budget, folder, jobs, planted, output } => {
            let planted = planted.as_deref().map(known_bug);
            let jobs = jobs.unwrap_or_else(processors);
            let first_seed = fresh_range(1).0;
            hunt_on(&hunt::Hunt { folder, budget, jobs, first_seed, planted }, output)
        }
        Command::Compare { seeds, first_seed, only, jobs, out, cases, output } => {
            let all = || compare::SCENARIOS.iter().collect();
            let scenarios = if only.is_empty() { all() } else { only };
            let jobs = jobs.unwrap_or_else(processors);
            let plan = compare::Plan { scenarios, first_seed, seeds, jobs };
            if let Some(folder) = cases {
                write_cases(&plan, &folder);
            }
            compare_modes(&plan, &out, output)
        }
        Command::Bugs { mode, only, seeds_max, first_seed, ranges, ablate, markdown, output } => {
            for code in &only {
                known_bug(code);
            }
            let jobs = processors();
            let hunting = Hunting { mode, only, first_seed, seeds_max, ranges, jobs };
            hunt_planted(&hunting, ablate, markdown, output)
        }
    };
    std::process::exit(i32::from(found));
}

fn scenario(name: &str) -> Result<&'static compare::Scenario, String> {
    compare::Scenario::named(name).ok_or_else(|| {
        let names: Vec<&str> = compare::SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("there are {}", names.join(", "))
    })
}

fn parse_time(text: &str) -> Result<std::time::Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*seconds)
    });
    parsed
        .map(std::time::Duration::from_secs)
        .ok_or_else(|| "a time is written 30s, 10m or 2h".into())
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
        Output::Json => println!("{}", state.to_json()),
        Output::Table => println!("{}", state.to_table()),
    }
    if state.has_finds() {
        eprintln!("what was found is in {}", hunt.folder.display());
    }
    state.has_finds()
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
    let runs: u64 = plan.scenarios.iter().map(|_| plan.seeds * 3).sum();
    let bar = ProgressBar::new(runs);
    let (rows, broken) = compare::compare(plan, || bar.inc(1));
    bar.finish_and_clear();
    if output == Output::Json {
        println!("{}", compare::to_json(&rows));
    } else {
        println!("{}", compare::to_table(&rows));
    }
    for line in &broken {
        eprintln!("a promise is broken: {line}");
    }
    write(out, &compare::page(&rows));
    eprintln!("the page is in {}", out.display());
    !broken.is_empty()
}

/// Runs many seeds; tells whether one failed, or all of them prove nothing.
fn run_swarm(swarm: &Swarm, output: Output) -> bool {
    let summary = swarm::run_seeds(swarm);
    if output == Output::Json {
        println!("{}", summary.to_json());
    } else {
        println!("{}", summary.to_table());
    }
    if summary.is_vacuous() {
        eprintln!(
            "the run is vacuous: {} seeds and never observable: {}",
            swarm.end - swarm.first,
            summary.unobserved().join(", ")
        );
    }
    summary.failures() > 0 || summary.is_vacuous()
}

/// Explores crash points; tells whether one lost something.
fn explore(plan: &CrashPlan) -> bool {
    let begin = std::time::Instant::now();
    let exploration = crash::explore(plan);
    println!(
        "{exploration}\n{:.1} s on the clock, on one processor",
        begin.elapsed().as_secs_f64()
    );
    exploration.violation_count > 0
}

/// Hunts planted bugs; tells whether one was missed.
fn hunt_planted(
    hunting: &Hunting,
    ablate: bool,
    markdown: Option<PathBuf>,
    output: Output,
) -> bool {
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
        println!("{}", bugs::to_json(&hunts));
    } else {
        println!("{}", bugs::to_table(&hunts));
    }
    hunts.iter().any(|hunt| hunt.found.is_none())
}

/// Compares the runs of seeds; tells whether two of them differ.
fn prove(
    plan: Plan,
    seeds: std::ops::Range<u64>,
    other_build: Option<PathBuf>,
    leak: Option<Leak>,
) -> bool {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("cannot find this program: {error}");
            std::process::exit(2);
        }
    };
    if !determinism::can_fix_layout() {
        eprintln!("without `setarch -R` the layouts of memory differ only at random");
    }
    let proof = Proof { plan, seeds, program, other_build, leak };
    let bar = ProgressBar::new(proof.seeds.end - proof.seeds.start);
    let proven = determinism::prove(&proof, |_| bar.inc(1));
    bar.finish_and_clear();
    match &proven {
        Ok(agreement) => println!("{plan}: {agreement}"),
        Err(disagreement) => {
            println!("{plan}: {disagreement}\nagain: {}", determinism::command(&proof));
        }
    }
    proven.is_err()
}

/// Writes the golden data directory; tells whether that failed.
fn write_golden(directory: &Path) -> bool {
    let files = golden::make();
    let saved = files.and_then(|files| {
        golden::save(&files, directory).map_err(|error| error.to_string())?;
        Ok(files.len())
    });
    match saved {
        Ok(count) => println!("{count} files in {}", directory.display()),
        Err(what) => eprintln!("cannot write {}: {what}", directory.display()),
    }
    !directory.join("NODE").exists()
}

fn known_bug(code: &str) -> &'static str {
    bugs::find(code).unwrap_or_else(|| {
        refuse(&format!("there is no planted bug {code}; `cargo sim bugs` lists them"))
    })
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

/// Writes a run as a page, and its last moments as a picture; tells whether it broke a promise.
fn write_report(case: &Case, out: &Path, svg: Option<PathBuf>) -> bool {
    let report = run_case(case, Keep { trace: Record::Nothing, log: true });
    write(out, &report::page(case, &report));
    println!("open {} in a browser", out.display());
    if let Some(path) = svg {
        write(&path, &report::last_moments(case, &report));
    }
    print_verdict(&report);
    report.violation.is_some()
}

/// Shrinks failures of different planted bugs; tells whether one of them could not be.
fn shrink_all(failures: usize, jobs: usize, output: Output) -> bool {
    let progress = |row: &shrink::Row| eprintln!("{}", row.to_line());
    let rows = shrink::shrink_planted(failures, jobs, progress);
    if output == Output::Json {
        println!("{}", shrink::rows_to_json(&rows));
    } else {
        println!("{}", shrink::rows_to_table(&rows));
    }
    rows.len() < failures
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
    println!(
        "{} events, {:.1} simulated seconds, {} requests answered, {} elections, hash {:016x}",
        report.event_count,
        report.simulated.as_secs_f64(),
        report.acknowledged,
        report.elections,
        report.hash
    );
}

fn write(path: &Path, text: &str) {
    if let Err(error) = std::fs::write(path, text) {
        eprintln!("cannot write {}: {error}", path.display());
        std::process::exit(2);
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Draws a range of seeds that was hardly ever run before.
fn fresh_range(count: u64) -> (u64, u64) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = since.map_or(1, |since| since.as_secs() * 100_000);
    (first, first + count)
}
