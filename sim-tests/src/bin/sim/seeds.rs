//! Commands that run many seeds.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use sim_tests::bugs::{self, Hunting};
use sim_tests::compare;
use sim_tests::crash::{self, Plan as CrashPlan};
use sim_tests::hunt;
use sim_tests::liveness;
use sim_tests::options::Plan;
use sim_tests::swarm::{self, Swarm};

use crate::arguments::{Liveness, Output};
use crate::{fresh_range, known_bug, processors, refuse, write};

/// Runs many seeds; tells whether one failed, or all of them prove nothing.
pub(crate) fn run_swarm(swarm: &Swarm, output: Output) -> bool {
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

/// Hunts for as long as there is time; tells whether anything was found, now or before.
pub(crate) fn hunt_on(hunt: &hunt::Hunt, output: Output) -> bool {
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

/// Hunts planted bugs; tells whether one was missed.
pub(crate) fn hunt_planted(
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

/// Explores crash points; tells whether one lost something.
pub(crate) fn explore(plan: &CrashPlan) -> bool {
    let begin = std::time::Instant::now();
    let exploration = crash::explore(plan);
    println!(
        "{exploration}\n{:.1} s on the clock, on one processor",
        begin.elapsed().as_secs_f64()
    );
    exploration.violation_count > 0
}

/// Writes the first run of each scenario with each subject as a replay file.
pub(crate) fn write_cases(plan: &compare::Plan, folder: &Path) {
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
pub(crate) fn compare_modes(plan: &compare::Plan, out: &Path, output: Output) -> bool {
    let runs: u64 = plan.run_count();
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

/// Measures how fast clusters are back; tells whether one is too slow, or broke a promise.
pub(crate) fn measure_liveness(asked: &Liveness) -> bool {
    let (first, end) = asked.seed_range.unwrap_or_else(|| fresh_range(asked.seeds));
    let plan = liveness::Plan {
        runs: Plan { mode: asked.mode, profile: asked.profile },
        seeds: first..end,
        curve_seeds: asked.curves,
        planted: asked.planted.as_deref().map(known_bug),
        jobs: asked.jobs.unwrap_or_else(processors),
    };
    let bar = ProgressBar::new(plan.run_count());
    let measured = liveness::measure(&plan, || bar.inc(1));
    bar.finish_and_clear();
    match asked.output {
        Output::Json => println!("{}", liveness::to_json(&measured)),
        Output::Table => println!("{}", liveness::to_table(&measured)),
    }
    for line in &measured.broken {
        eprintln!("a promise is broken: {line}");
    }
    write(&asked.out, &liveness::page(&measured));
    eprintln!("the page is in {}", asked.out.display());
    !measured.broken.is_empty() || measured.is_too_slow()
}
