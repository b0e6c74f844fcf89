//! Commands by which the simulation and its fixtures are checked themselves.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use sim_tests::determinism::{self, Proof};
use sim_tests::golden;
use sim_tests::options::{Leak, Plan};

/// Compares the runs of seeds; tells whether two of them differ.
pub(crate) fn prove(
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
pub(crate) fn write_golden(directory: &Path) -> bool {
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
