//! The `sim` program: runs seeds, replays one, and proves that planted bugs are found.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program around the simulation is real"
)]
#![expect(clippy::exit, reason = "the exit code is the verdict")]

mod arguments;
mod one;
mod proof;
mod seeds;

use std::path::Path;

use clap::Parser as _;
use sim_tests::bugs::{self, Hunting};
use sim_tests::compare;
use sim_tests::crash::Plan as CrashPlan;
use sim_tests::determinism;
use sim_tests::hunt;
use sim_tests::options::Plan;
use sim_tests::shrink::Budget;
use sim_tests::swarm::Swarm;

use crate::arguments::{Arguments, Command};
use crate::one::Outputs;

/// A tenth of a run is spent in the allocator, with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let found = match Arguments::parse().command {
        Command::Run { mode, profile, seeds, seed_range, jobs, output } => {
            let (first, end) = seed_range.unwrap_or_else(|| fresh_range(seeds));
            let (plan, jobs) = (Plan { mode, profile }, jobs.unwrap_or_else(processors));
            seeds::run_swarm(&Swarm { first, end, jobs, progress: true, plan }, output)
        }
        Command::Replay { which, without, write, trace, history, quiet } => {
            let mut case = which.case();
            if let Err(error) = case.leave_out(&without) {
                refuse(&error.to_string());
            }
            one::replay(&case, &Outputs { write, trace, history, quiet })
        }
        Command::Shrink { which, jobs, runs_max, cpu_seconds_max, output, scenario } => {
            let jobs = jobs.unwrap_or_else(processors);
            let budget = Budget { jobs, runs_max, cpu_seconds_max };
            one::shrink_one(&which, budget, output, scenario)
        }
        Command::Report { which, out, svg } => one::write_report(&which.case(), &out, svg),
        Command::ShrinkAll { failures, jobs, output } => {
            one::shrink_all(failures, jobs.unwrap_or_else(processors), output)
        }
        Command::Determinism { mode, profile, seeds, seed_range, against, leak } => {
            let (first, end) = seed_range.unwrap_or_else(|| fresh_range(seeds));
            let plan = Plan { mode, profile };
            proof::prove(plan, first..end, against, leak)
        }
        Command::Witness { mode, profile, leak, seeds } => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            determinism::testify(Plan { mode, profile }, &seeds, leak, &mut out).is_err()
        }
        Command::CrashPoints { operations, images, seed, planted } => {
            let planted = planted.as_deref().map(known_bug);
            let stop_at_first = planted.is_some();
            seeds::explore(&CrashPlan {
                seed,
                operations,
                images_max: images,
                planted,
                stop_at_first,
            })
        }
        Command::Golden { directory } => proof::write_golden(&directory),
        Command::Hunt { budget, folder, jobs, planted, output } => {
            let planted = planted.as_deref().map(known_bug);
            let jobs = jobs.unwrap_or_else(processors);
            let first_seed = fresh_range(1).0;
            seeds::hunt_on(&hunt::Hunt { folder, budget, jobs, first_seed, planted }, output)
        }
        Command::Compare { seeds, first_seed, only, jobs, out, cases, output } => {
            let all = || compare::SCENARIOS.iter().collect();
            let scenarios = if only.is_empty() { all() } else { only };
            let jobs = jobs.unwrap_or_else(processors);
            let plan = compare::Plan { scenarios, first_seed, seeds, jobs };
            if let Some(folder) = cases {
                seeds::write_cases(&plan, &folder);
            }
            seeds::compare_modes(&plan, &out, output)
        }
        Command::Liveness(asked) => seeds::measure_liveness(&asked),
        Command::Bugs { mode, only, seeds_max, first_seed, ranges, ablate, markdown, output } => {
            for code in &only {
                known_bug(code);
            }
            let jobs = processors();
            let hunting = Hunting { mode, only, first_seed, seeds_max, ranges, jobs };
            seeds::hunt_planted(&hunting, ablate, markdown, output)
        }
    };
    std::process::exit(i32::from(found));
}

/// Ends the program with what is wrong with its arguments.
fn refuse(what: &str) -> ! {
    eprintln!("{what}");
    std::process::exit(2);
}

fn known_bug(code: &str) -> &'static str {
    bugs::find(code).unwrap_or_else(|| {
        refuse(&format!("there is no planted bug {code}; `cargo sim bugs` lists them"))
    })
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
