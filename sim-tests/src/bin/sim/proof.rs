//! Commands by which the simulation and its fixtures are checked themselves.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use sim_tests::determinism::{self, Proof};
use sim_tests::golden;
use sim_tests::options::{Leak, Mode, Plan, Profile};

use crate::arguments::{Runs, parse_seeds};
use crate::{refuse, say};

/// Runs seeds in several processes and compares everything that happens in them.
///
/// Each event and, every tenth of a simulated second, everything that is durable on each disk
/// must be the same in a process of its own, in a process that runs one seed after the other
/// with another layout of its memory, and in another build if one is named.
#[derive(Args)]
pub(crate) struct Determinism {
    #[command(flatten)]
    runs: Runs,
    /// How many fresh seeds.
    #[arg(long, default_value_t = 10, value_parser = parse_seeds)]
    #[arg(conflicts_with = "seed_range")]
    seeds: u64,
    /// The `sim` program of another build, such as target/debug/sim.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Let something in that no seed decides: the comparison must fail.
    #[arg(long, value_enum, hide = true)]
    leak: Option<Leak>,
}

impl Determinism {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { runs, seeds, against, leak } = self;
        if let Some(build) = against.as_ref().filter(|build| !build.is_file()) {
            refuse(&format!("there is no program {}", build.display()));
        }
        let (first, end) = runs.range(seeds);
        prove(runs.plan(), first..end, against, leak)
    }
}

/// Runs seeds and writes everything that happens in them to standard output.
#[derive(Args)]
pub(crate) struct Witness {
    #[arg(long, value_enum, default_value_t = Mode::PrimaryBackup)]
    mode: Mode,
    #[arg(long, value_enum, default_value_t = Profile::Standard)]
    profile: Profile,
    #[arg(long, value_enum)]
    leak: Option<Leak>,
    seeds: Vec<u64>,
}

impl Witness {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { mode, profile, leak, seeds } = self;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        determinism::testify(Plan { mode, profile }, &seeds, leak, &mut out).is_err()
    }
}

/// Writes a data directory as this version does, for a fixture that later ones must read.
#[derive(Args)]
pub(crate) struct Golden {
    /// Directory to write to.
    directory: PathBuf,
}

impl Golden {
    /// Tells whether it found something.
    pub(crate) fn run(self) -> bool {
        let Self { directory } = self;
        write_golden(&directory)
    }
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
        Ok(agreement) => say!("{plan}: {agreement}"),
        Err(disagreement) => {
            say!("{plan}: {disagreement}\nagain: {}", determinism::command(&proof));
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
        Ok(count) => say!("{count} files in {}", directory.display()),
        Err(what) => eprintln!("cannot write {}: {what}", directory.display()),
    }
    !directory.join("NODE").exists()
}
