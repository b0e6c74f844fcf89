//! What lies behind rare moments: continuations from where few seeds come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use super::{Moment, branch};
use crate::case::Case;
use crate::options::{Options, Plan};
use crate::parallel;
use crate::run::{Keep, run_case};

/// What to explore.
#[derive(Debug, Clone)]
pub struct Exploration {
    /// What the runs are.
    pub plan: Plan,
    /// A planted bug that is on in all runs.
    pub planted: Option<&'static str>,
    /// The first seed.
    pub first: u64,
    /// The seed after the last.
    pub end: u64,
    /// A path is rare if at most so many seeds take it.
    pub rare: u64,
    /// Continuations of each rare moment.
    pub branches: u64,
    /// Runs at the same time.
    pub jobs: usize,
}

/// A rare path, and what lay behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explored {
    /// The probe that marks it.
    pub probe: &'static str,
    /// How many seeds took it.
    pub seeds: u64,
    /// The first of them, which was continued.
    pub seed: u64,
    /// From when on.
    pub at: Duration,
    /// How many of the continuations failed.
    pub failed: u64,
    /// Paths that some continuations took and no seed did.
    pub new_probes: BTreeSet<&'static str>,
}

/// A run that failed.
#[derive(Debug, Clone)]
pub struct Found {
    /// It, to be replayed.
    pub case: Case,
    /// What was said.
    pub what: String,
    /// From which rare path it was continued; `None` for a plain seed.
    pub probe: Option<&'static str>,
}

/// What one run came to.
struct Outcome {
    probes: BTreeSet<&'static str>,
    violation: Option<String>,
}

fn outcome_of(case: &Case) -> Outcome {
    let report = run_case(case, Keep::default());
    let violation = report.violation.map(|violation| violation.to_string());
    Outcome { probes: report.probes.into_keys().collect(), violation }
}

impl Exploration {
    fn case(&self, seed: u64) -> Case {
        Case::drawn(Options { planted: self.planted, ..self.plan.draw(seed) })
    }

    /// Returns how many seeds are run before anything is continued.
    pub fn seed_count(&self) -> u64 {
        self.end - self.first
    }
}

/// Runs the seeds, and continues from each rare path; `progress` hears of each run, with how many
/// are known to come.
pub fn explore(
    exploration: &Exploration,
    progress: impl Fn(u64) + Sync,
) -> (Vec<Explored>, Vec<Found>) {
    let Exploration { first, end, jobs, branches, .. } = *exploration;
    let seeds: Vec<u64> = (first..end).collect();
    let work = |seed: &u64| outcome_of(&exploration.case(*seed));
    let outcomes = parallel::map(&seeds, jobs, work, |_| progress(exploration.seed_count()));
    let mut takers: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    let mut found = Vec::new();
    for (seed, outcome) in seeds.iter().zip(outcomes) {
        for probe in outcome.probes {
            takers.entry(probe).or_default().push(*seed);
        }
        if let Some(what) = outcome.violation {
            found.push(Found { case: exploration.case(*seed), what, probe: None });
        }
    }
    let known: BTreeSet<&'static str> = takers.keys().copied().collect();
    let count = |seeds: &[u64]| u64::try_from(seeds.len()).unwrap_or(u64::MAX);
    let rare: Vec<(&'static str, Vec<u64>)> =
        takers.into_iter().filter(|(_, seeds)| count(seeds) <= exploration.rare).collect();
    let rare_count = u64::try_from(rare.len()).unwrap_or(u64::MAX);
    let total = exploration.seed_count() + rare_count.saturating_mul(branches);
    let mut explored = Vec::new();
    for (probe, seeds) in rare {
        let Some(seed) = seeds.first().copied() else { continue };
        let case = exploration.case(seed);
        let logged = run_case(&case, Keep { log: true, ..Keep::default() });
        let Some(at) = Moment::Probe(probe.to_owned()).locate(&logged) else { continue };
        let numbers: Vec<u64> = (0..branches).collect();
        let work = |number: &u64| outcome_of(&branch(&case, at, *number));
        let outcomes = parallel::map(&numbers, jobs, work, |_| progress(total));
        let mut here = Explored {
            probe,
            seeds: count(&seeds),
            seed,
            at,
            failed: 0,
            new_probes: BTreeSet::new(),
        };
        for (number, outcome) in (0..).zip(outcomes) {
            here.new_probes.extend(outcome.probes.difference(&known));
            if let Some(what) = outcome.violation {
                here.failed += 1;
                found.push(Found { case: branch(&case, at, number), what, probe: Some(probe) });
            }
        }
        explored.push(here);
    }
    (explored, found)
}

/// Returns what was explored for people.
pub fn to_table(exploration: &Exploration, explored: &[Explored]) -> String {
    let mut table = comfy_table::Table::new();
    table.set_header(["rare path", "seeds", "continued", "from s", "failed", "new paths"]);
    for row in explored {
        let new: Vec<&str> = row.new_probes.iter().copied().collect();
        table.add_row([
            row.probe.to_owned(),
            row.seeds.to_string(),
            row.seed.to_string(),
            format!("{:.3}", row.at.as_secs_f64()),
            format!("{} of {}", row.failed, exploration.branches),
            new.join(" "),
        ]);
    }
    table.to_string()
}

/// Returns what was explored for programs.
pub fn to_json(exploration: &Exploration, explored: &[Explored], found: &[Found]) -> String {
    let row = |row: &Explored| {
        json!({
            "probe": row.probe, "seeds": row.seeds, "continued": row.seed,
            "from_s": row.at.as_secs_f64(), "failed": row.failed, "new_probes": row.new_probes,
        })
    };
    let find = |found: &Found| {
        json!({
            "seed": found.case.options.seed, "what": found.what, "probe": found.probe,
            "branch": found.case.reseed.map(|reseed| reseed.number),
        })
    };
    json!({
        "seeds": exploration.seed_count(), "branches": exploration.branches,
        "explored": explored.iter().map(row).collect::<Vec<_>>(),
        "found": found.iter().map(find).collect::<Vec<_>>(),
    })
    .to_string()
}
