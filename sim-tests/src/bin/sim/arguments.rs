//! What the program can be asked for.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use sim_tests::case::Case;
use sim_tests::compare;
use sim_tests::options::{Leak, Mode, Options, Plan, Profile};

use crate::{known_bug, refuse};

/// Runs Mangrove in a simulated world: crashes, power loss, bad disks, bad networks, wrong clocks,
/// all from one seed.
#[derive(Parser)]
#[command(
    name = "sim",
    after_help = "Examples:\n  cargo sim run --seeds 1000\n  cargo sim replay 42 --trace \
                  trace.txt\n  cargo sim shrink 42 --output small.json\n  \
                  cargo sim bugs --only R3,W1\n  cargo sim run --mode masterless\n  \
                  cargo sim compare --seeds 20\n  cargo sim liveness --seeds 300\n\n\
                  Exit codes: 0 no violation, 1 violation found, \
                  vacuous run or too slow, 2 usage."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
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
    /// Measures how fast clusters are back after healing, and how much of one each fault leaves.
    ///
    /// The seeds are run as `sim run` does, but somebody asks from the moment of healing on. Times
    /// to a leader, to the first acknowledged write and to equal replicas are distributions, and
    /// the exit code is 1 if they exceed their limits; from 200 runs on percentiles are judged.
    /// Then faults of each kind strike alone under a steady load, for curves of what was available.
    /// Everything is written as tables and as one HTML page with pictures.
    Liveness(Liveness),
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
pub(crate) struct Which {
    /// A seed, or a replay file.
    #[arg(value_name = "SEED|FILE")]
    pub(crate) run: String,
    /// The replication mode in which the seed was run.
    #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
    mode: Mode,
    /// The profile under which the seed was run.
    #[arg(long, value_enum, default_value_t = Profile::Standard)]
    profile: Profile,
    /// Switch a planted bug on.
    #[arg(long)]
    pub(crate) planted: Option<String>,
    /// Let a client write from the moment of healing on, as `sim liveness` does.
    #[arg(long)]
    timed: bool,
}

/// What of liveness is to be measured.
#[derive(clap::Args)]
pub(crate) struct Liveness {
    /// Replication mode.
    #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
    pub(crate) mode: Mode,
    /// What the runs are mostly about.
    #[arg(long, value_enum, default_value_t = Profile::Standard)]
    pub(crate) profile: Profile,
    /// How many fresh seeds; they begin at a number drawn from the clock.
    #[arg(long, default_value_t = 200, conflicts_with = "seed_range")]
    pub(crate) seeds: u64,
    /// These seeds, A..B (B excluded).
    #[arg(long, value_parser = parse_range)]
    pub(crate) seed_range: Option<(u64, u64)>,
    /// Runs of each kind of fault, for the curves; 0 leaves them out.
    #[arg(long, default_value_t = 20)]
    pub(crate) curves: u64,
    /// Switch a planted bug on in the runs whose healing is timed: are they slower?
    #[arg(long)]
    pub(crate) planted: Option<String>,
    /// Runs at the same time; default: one per processor.
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    /// Write the page to this file.
    #[arg(long, default_value = "liveness.html")]
    pub(crate) out: PathBuf,
    /// How to print the tables.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

impl Which {
    /// Returns a name for files that are made of it.
    pub(crate) fn stem(&self) -> String {
        let stem = Path::new(&self.run).file_stem().and_then(|stem| stem.to_str());
        format!("seed-{}", stem.unwrap_or("run"))
    }

    /// Draws the case of the seed, or reads the file.
    pub(crate) fn case(&self) -> Case {
        let planted = self.planted.as_deref().map(known_bug);
        if let Ok(seed) = self.run.parse::<u64>() {
            let plan = Plan { mode: self.mode, profile: self.profile };
            let case = Case::drawn(Options { planted, ..plan.draw(seed) });
            return Case { is_timed: self.timed, ..case };
        }
        let text = std::fs::read_to_string(&self.run).unwrap_or_else(|error| {
            refuse(&format!("{} is no seed, and cannot be read: {error}", self.run))
        });
        let case = Case::from_json(&text);
        let mut case = case.unwrap_or_else(|error| refuse(&format!("{}: {error}", self.run)));
        if planted.is_some() {
            case.options.planted = planted;
        }
        case.is_timed |= self.timed;
        case
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
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
