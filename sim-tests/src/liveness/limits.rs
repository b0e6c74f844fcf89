//! How slow a cluster may become before that is a fault of ours.

use std::fmt;

use super::figures::{Series, Step};
use crate::masterless::options::Mechanism;
use crate::options::{Mode, Plan, Profile};

/// Runs from which on percentiles are judged: of fewer, the 99th is hardly another number than the
/// longest, and says more about the seeds than about the code.
pub const JUDGED_SEEDS: u64 = 200;

/// What a step may take, in its units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// What 99 of 100 runs may take; judged of [`JUDGED_SEEDS`] runs of the step or more.
    pub p99: f64,
    /// What any run may take.
    pub max: f64,
}

/// By how much a limit lies above what was measured when it was set: fresh seeds differ from those
/// of then by a tenth or a third, and a cluster that has become twice as slow is to be noticed.
const MARGIN: f64 = 2.0;

impl Limit {
    /// Returns the limit that belongs to what was measured: the 99th percentile, and the longest.
    const fn above(p99: f64, max: f64) -> Self {
        Self { p99: p99 * MARGIN, max: max * MARGIN }
    }
}

/// A leader: an election time-out is waited for by whoever has heard of nobody, up to twice as
/// long as it is drawn, and a split vote doubles that. All figures are those of seeds 1001 to 2000,
/// or of 1 to 400 of the storage profile if they are larger.
const LEADER: Limit = Limit::above(2.8, 3.7);

/// A first acknowledged write: a leader, and a client that finds it, with a pause between tries.
const WRITE: Limit = Limit::above(2.9, 3.9);

/// Equal replicas: nodes that were started by the healing recover, are found, and get their log, or
/// a snapshot piece by piece.
const CONVERGENCE: Limit = Limit::above(3.9, 5.3);

/// The same under the storage profile: what is recovered are thousands of records and tables, from
/// disks that were the worst, and a node whose tables are damaged gets everything anew.
const STORAGE_CONVERGENCE: Limit = Limit::above(7.1, 24.4);

/// A first acknowledged write at QUORUM: at worst the first node that is asked waits for a replica
/// that recovers, for one request time-out, and so does the second. One that gives no stamps yet,
/// because its disk was exchanged, says so at once.
const MASTERLESS_WRITE: Limit = Limit::above(1.3, 2.1);

/// Equal replicas by everything: rounds alone take few. The longest waited for a batch to end,
/// which takes a takeover after 2 to 6 s. Another holder that has settled it does not answer, and
/// whoever took it over asks one after the other, for up to 20 s.
const BY_ALL: Limit = Limit::above(36.0, 104.0);

/// By anti-entropy alone: the same, and whoever has lost its disk compares with all others.
const BY_ANTI_ENTROPY: Limit = Limit::above(47.0, 104.0);

/// By hints alone: they are sent as soon as a heartbeat is heard, and again after the retry.
const BY_HINTS: Limit = Limit::above(5.5, 6.0);

/// By reads alone: everything is read once more, and what a node waits for is a time-out.
const BY_READS: Limit = Limit::above(7.0, 9.7);

/// Returns the limit of a step.
pub fn limit(runs: Plan, step: Step) -> Limit {
    match (runs.mode, step) {
        (_, Step::Leader) => LEADER,
        (Mode::PrimaryBackup, Step::Write) => WRITE,
        (Mode::Masterless, Step::Write) => MASTERLESS_WRITE,
        (_, Step::Convergence(None)) => match runs.profile {
            // Runs that may halt are not timed.
            Profile::Standard | Profile::Beyond | Profile::Requests => CONVERGENCE,
            Profile::Storage | Profile::Forgetful => STORAGE_CONVERGENCE,
        },
        (_, Step::Convergence(Some(Mechanism::All))) => BY_ALL,
        (_, Step::Convergence(Some(Mechanism::AntiEntropy))) => BY_ANTI_ENTROPY,
        (_, Step::Convergence(Some(Mechanism::Hints))) => BY_HINTS,
        (_, Step::Convergence(Some(Mechanism::Reads))) => BY_READS,
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
pub fn exceeded(runs: Plan, all: &[Series]) -> Vec<Excess> {
    let mut found = Vec::new();
    for series in all {
        let Limit { p99, max } = limit(runs, series.step);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::liveness::Sample;

    /// Runs that took so many units each, with seeds from 1 on.
    fn series(units: impl Iterator<Item = f64>) -> Series {
        let unit = Duration::from_millis(100);
        let sample = |(seed, units)| Sample { seed, took: unit.mul_f64(units), unit };
        let samples = (1..).zip(units).map(sample).collect();
        Series { step: Step::Leader, unit: "election time-outs", samples }
    }

    fn figures(of: &Series) -> Vec<(&'static str, u64)> {
        let found = exceeded(Plan::default(), std::slice::from_ref(of));
        found.into_iter().map(|excess| (excess.figure, excess.seed)).collect()
    }

    #[test]
    fn one_run_may_be_slow_and_one_in_fifty_may_not() {
        let slow = LEADER.p99 + 0.1;
        let with = |every: u64| (1..=400).map(move |at| if at % every == 0 { slow } else { 1.0 });
        assert_eq!(figures(&series(with(400))), []);
        assert_eq!(figures(&series(with(50))), [("p99", 400)]);
    }

    #[test]
    fn few_runs_are_judged_by_the_longest_alone() {
        let all_slow = |count| series((0..count).map(|_| LEADER.p99 + 0.1));
        assert_eq!(figures(&all_slow(199)), []);
        assert_eq!(figures(&all_slow(200)), [("p99", 200)]);
        let hangs = series([1.0, LEADER.max + 0.1, 1.0].into_iter());
        assert_eq!(figures(&hangs), [("max", 2)]);
    }
}
