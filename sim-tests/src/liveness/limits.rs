//! How slow a cluster may become before that is a fault of ours.

use std::fmt;

use super::figures::{Series, Step};
use crate::options::Mode;

/// Runs from which on percentiles are judged: of fewer, the 99th is hardly another number than the
/// longest, and says more about the seeds than about the code.
pub const JUDGED_SEEDS: u64 = 200;

/// What a step may take, in its units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// What 99 of 100 runs may take; judged of [`JUDGED_SEEDS`] runs or more.
    pub p99: f64,
    /// What any run may take.
    pub max: f64,
}

/// Returns the limit of a step.
pub fn limit(mode: Mode, step: Step) -> Limit {
    match (mode, step) {
        (Mode::PrimaryBackup, Step::Leader) => Limit { p99: 100.0, max: 100.0 },
        (_, _) => Limit { p99: 100.0, max: 100.0 },
    }
}

/// A limit that was exceeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Excess {
    /// Of which step.
    pub step: Step,
    /// What was exceeded: a percentile, or the longest run.
    pub figure: &'static str,
    /// What it was, and what it may be.
    pub units: (f64, f64),
    /// What the units are called.
    pub unit: &'static str,
    /// The seed of the slowest run.
    pub seed: u64,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, figure, units, unit, seed } = self;
        let (took, limit) = units;
        let name = step.name();
        write!(f, "{name}: {figure} is {took:.2} {unit}, the limit {limit:.2}; slowest seed {seed}")
    }
}

/// Returns every limit that is exceeded.
pub fn exceeded(mode: Mode, all: &[Series]) -> Vec<Excess> {
    let mut found = Vec::new();
    for series in all {
        let Limit { p99, max } = limit(mode, series.step);
        let Some(slowest) = series.slowest() else { continue };
        let is_judged = series.runs() >= JUDGED_SEEDS;
        let figures =
            [("p99", series.units(99), p99, is_judged), ("max", series.units(100), max, true)];
        for (figure, took, limit, is_judged) in figures {
            if is_judged && took > limit {
                let (step, unit, seed) = (series.step, series.unit, slowest.seed);
                found.push(Excess { step, figure, units: (took, limit), unit, seed });
            }
        }
    }
    found
}
