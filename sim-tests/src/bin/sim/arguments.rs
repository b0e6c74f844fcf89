//! What the program can be asked for.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sim_tests::case::Case;
use sim_tests::compare;
use sim_tests::options::{Mode, Options, Plan, Profile};

use crate::{bug_of, fresh_range, one, proof, refuse, seeds};

/// Runs Mangrove in a simulated world: crashes, power loss, bad disks, bad networks, wrong clocks,
/// all from one seed.
#[derive(Parser)]
#[command(
    name = "sim",
    after_help = "Examples:\n  cargo sim run --seeds 1000\n  cargo sim replay 42 --trace \
                  trace.txt\n  \
                  cargo sim shrink SEED --output small.json    (of a run that fails)\n  \
                  cargo sim branch SEED --out branch.html      (of a run that fails)\n  \
                  cargo sim bugs --only R3,W1\n  cargo sim run --mode masterless\n  \
                  cargo sim compare --seeds 20\n  cargo sim liveness --seeds 300\n\n\
                  Exit codes: 0 nothing wrong; 1 a promise was broken, a run was vacuous or too \
                  slow, or (bugs) a planted bug was missed; 2 usage, or a file cannot be read or \
                  written."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Run(seeds::Run),
    Replay(one::Replay),
    Determinism(proof::Determinism),
    #[command(hide = true)]
    Witness(proof::Witness),
    Shrink(one::Shrink),
    Report(one::Report),
    Branch(one::Branch),
    Explore(seeds::Explore),
    ShrinkAll(one::ShrinkAll),
    CrashPoints(seeds::CrashPoints),
    ClusterCrashPoints(seeds::ClusterCrashPoints),
    #[command(hide = true)]
    Golden(proof::Golden),
    Hunt(seeds::Hunt),
    Compare(seeds::Compare),
    Liveness(seeds::Liveness),
    Bugs(seeds::Bugs),
}

impl Command {
    /// Does it; tells whether it found something.
    pub(crate) fn run(self) -> bool {
        match self {
            Self::Run(command) => command.run(),
            Self::Replay(command) => command.run(),
            Self::Determinism(command) => command.run(),
            Self::Witness(command) => command.run(),
            Self::Shrink(command) => command.run(),
            Self::Report(command) => command.run(),
            Self::Branch(command) => command.run(),
            Self::Explore(command) => command.run(),
            Self::ShrinkAll(command) => command.run(),
            Self::CrashPoints(command) => command.run(),
            Self::ClusterCrashPoints(command) => command.run(),
            Self::Golden(command) => command.run(),
            Self::Hunt(command) => command.run(),
            Self::Compare(command) => command.run(),
            Self::Liveness(command) => command.run(),
            Self::Bugs(command) => command.run(),
        }
    }
}

/// Which runs: all but how many fresh seeds, which each command has its own default for, `seeds`.
#[derive(Args)]
pub(crate) struct Runs {
    /// Replication mode.
    #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
    mode: Mode,
    /// What the runs are mostly about.
    #[arg(long, value_enum, default_value_t = Profile::Standard)]
    profile: Profile,
    /// These seeds, A..B (B excluded).
    #[arg(long, value_parser = parse_range)]
    seed_range: Option<(u64, u64)>,
}

impl Runs {
    pub(crate) fn plan(&self) -> Plan {
        Plan { mode: self.mode, profile: self.profile }
    }

    /// Returns the first seed and the one after the last: those named, or so many fresh ones.
    pub(crate) fn range(&self, seeds: u64) -> (u64, u64) {
        self.seed_range.unwrap_or_else(|| fresh_range(seeds))
    }
}

/// Which run.
#[derive(Args)]
pub(crate) struct Which {
    /// A seed, or a replay file.
    #[arg(value_name = "SEED|FILE")]
    pub(crate) run: String,
    /// The replication mode in which the seed was run; default: primary-backup.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// The profile under which the seed was run; default: standard.
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// Switch a planted bug on: docs/bugs-primary-backup.md and docs/bugs-masterless.md list them.
    #[arg(long)]
    pub(crate) planted: Option<String>,
    /// Let a client write from the moment of healing on, as `sim liveness` does.
    #[arg(long)]
    timed: bool,
}

impl Which {
    /// Returns a name for files that are made of it.
    pub(crate) fn stem(&self) -> String {
        let stem = Path::new(&self.run).file_stem().and_then(|stem| stem.to_str());
        format!("seed-{}", stem.unwrap_or("run"))
    }

    /// Returns which run it is, as it is to be named to people.
    pub(crate) fn name(&self, case: &Case) -> String {
        let mut name = self.run.clone();
        if name.parse::<u64>().is_ok() {
            let plan = Plan { mode: case.options.mode(), profile: case.options.profile };
            name = format!("seed {name} ({plan})");
        }
        if let Some(code) = &self.planted {
            name = format!("{name} with the planted bug {code}");
        }
        if self.timed { format!("{name}, timed") } else { name }
    }

    /// Draws the case of the seed, or reads the file.
    pub(crate) fn case(&self) -> Case {
        if let Ok(seed) = self.run.parse::<u64>() {
            let mode = self.mode.unwrap_or(Mode::PrimaryBackup);
            let plan = Plan { mode, profile: self.profile.unwrap_or(Profile::Standard) };
            let planted = self.planted.as_deref().map(|code| bug_of(mode, code));
            let case = Case::drawn(Options { planted, ..plan.draw(seed) });
            return Case { is_timed: self.timed, ..case };
        }
        let text = std::fs::read_to_string(&self.run).unwrap_or_else(|error| {
            refuse(&format!("{} is no seed, and cannot be read: {error}", self.run))
        });
        let case = Case::from_json(&text);
        let mut case = case.unwrap_or_else(|error| refuse(&format!("{}: {error}", self.run)));
        for name in &case.ignored {
            eprintln!("{}: the setting {name:?} is ignored: there is none any more", self.run);
        }
        let mode = case.options.mode();
        if self.mode.is_some_and(|named| named != mode) || self.profile.is_some() {
            refuse(&format!("{} says itself in which mode and profile it runs", self.run));
        }
        if let Some(code) = &self.planted {
            case.options.planted = Some(bug_of(mode, code));
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

pub(crate) fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (low, high) = text.split_once("..").ok_or("a range is written A..B")?;
    let number = |part: &str| part.trim().parse::<u64>().map_err(|error| error.to_string());
    let (low, high) = (number(low)?, number(high)?);
    if low < high { Ok((low, high)) } else { Err(format!("{low}..{high} is empty")) }
}

/// Most seeds of one command: more than anybody runs, and sums of them stay numbers.
const SEEDS_MAX: u64 = 1 << 32;

/// Greatest seed that others are counted from.
const FIRST_SEED_MAX: u64 = 1 << 63;

/// Reads how many seeds.
pub(crate) fn parse_seeds(text: &str) -> Result<u64, String> {
    let count = parse_count(text).ok().filter(|count| *count <= SEEDS_MAX);
    count.ok_or_else(|| format!("a number from 1 to {SEEDS_MAX} is wanted"))
}

/// Reads a seed that others are counted from.
pub(crate) fn parse_first_seed(text: &str) -> Result<u64, String> {
    let seed = text.parse().ok().filter(|seed| *seed <= FIRST_SEED_MAX);
    seed.ok_or_else(|| format!("a number from 0 to {FIRST_SEED_MAX} is wanted"))
}

/// Reads a number of things of which there must be one.
pub(crate) fn parse_count<N: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<N, String> {
    let count = text.parse::<N>().ok().filter(|count| *count >= N::from(1));
    count.ok_or_else(|| "a number from 1 on is wanted".into())
}

pub(crate) fn scenario(name: &str) -> Result<&'static compare::Scenario, String> {
    compare::Scenario::named(name).ok_or_else(|| {
        let names: Vec<&str> = compare::SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("there are {}", names.join(", "))
    })
}

pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*seconds)
    });
    let parsed = parsed.filter(|seconds| *seconds > 0);
    parsed.map(Duration::from_secs).ok_or_else(|| "a time is written 30s, 10m or 2h".into())
}
