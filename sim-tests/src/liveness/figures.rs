//! How long each step after healing took, over many runs.

use std::collections::BTreeMap;
use std::time::Duration;

use mangrove::base::NodeId;
use mangrove::dynamo::{Config, Placement};

use crate::masterless::options::Mechanism;
use crate::options::{Mode, Options};
use crate::run::Report;
use crate::swarm::{float, percentile};

/// What a cluster has to do after healing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Somebody leads, and goes on leading.
    Leader,
    /// A write is acknowledged, in the masterless mode at QUORUM.
    Write,
    /// All replicas have the same; in the masterless mode by this mechanism.
    Convergence(Option<Mechanism>),
}

impl Step {
    /// Returns its name for people.
    pub fn name(self) -> String {
        match self {
            Self::Leader => "a leader".to_owned(),
            Self::Write => "first acknowledged write".to_owned(),
            Self::Convergence(None) => "all replicas equal".to_owned(),
            Self::Convergence(Some(by)) => format!("all replicas equal, by {}", by.name()),
        }
    }

    /// Returns its name for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Write => "first_write",
            Self::Convergence(None) => "convergence",
            Self::Convergence(Some(Mechanism::All)) => "convergence_by_all",
            Self::Convergence(Some(Mechanism::AntiEntropy)) => "convergence_by_anti_entropy",
            Self::Convergence(Some(Mechanism::Hints)) => "convergence_by_hints",
            Self::Convergence(Some(Mechanism::Reads)) => "convergence_by_reads",
        }
    }

    /// Returns what its time is counted in, and what that is called: the time-out or the interval
    /// of the run that decides how fast the step can be.
    fn unit(self, options: &Options) -> (Duration, &'static str) {
        let Some(masterless) = &options.masterless else {
            return (options.tuning.election_timeout, "election time-outs");
        };
        match self {
            Self::Leader | Self::Write | Self::Convergence(None | Some(Mechanism::Reads)) => {
                (masterless.request_timeout, "request time-outs")
            }
            Self::Convergence(Some(Mechanism::All | Mechanism::AntiEntropy)) => {
                (masterless.sync_interval, "anti-entropy rounds")
            }
            Self::Convergence(Some(Mechanism::Hints)) => (hint_retry(), "hint retries"),
        }
    }
}

/// Returns the time until a hint is sent again, which no run draws.
fn hint_retry() -> Duration {
    let nodes = vec![NodeId(1)];
    let placement = Placement::new(&nodes, 1, 1);
    Config::new(NodeId(1), nodes, placement).hint_retry
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its seed.
    pub seed: u64,
    /// How long the step took.
    pub took: Duration,
    /// What that is counted in.
    pub unit: Duration,
}

impl Sample {
    /// Returns the time in thousandths of the unit.
    fn unit_thousandths(&self) -> u64 {
        let share = self.took.as_nanos() * 1_000 / self.unit.as_nanos().max(1);
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns the time in units.
    pub fn units(&self) -> f64 {
        float(self.unit_thousandths()) / 1e3
    }

    /// Returns the time in milliseconds.
    pub fn ms(&self) -> f64 {
        float(self.micros()) / 1e3
    }
}

/// How long one step took, in all runs of which it was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The step.
    pub step: Step,
    /// What its units are called.
    pub unit: &'static str,
    /// The runs.
    pub samples: Vec<Sample>,
}

impl Series {
    /// Returns how many runs there are.
    pub fn runs(&self) -> u64 {
        u64::try_from(self.samples.len()).unwrap_or(u64::MAX)
    }

    /// Returns a percentile in milliseconds; 100 for the longest.
    pub fn ms(&self, percent: usize) -> f64 {
        let all: Vec<u64> = self.samples.iter().map(Sample::micros).collect();
        float(percentile(&all, percent)) / 1e3
    }

    /// Returns a percentile in units; 100 for the most.
    pub fn units(&self, percent: usize) -> f64 {
        let all: Vec<u64> = self.samples.iter().map(Sample::unit_thousandths).collect();
        float(percentile(&all, percent)) / 1e3
    }

    /// Returns the run that took the most units.
    pub fn slowest(&self) -> Option<&Sample> {
        self.samples.iter().max_by_key(|sample| (sample.unit_thousandths(), sample.took))
    }

    /// Returns the run that took the longest on the clock.
    pub fn longest(&self) -> Option<&Sample> {
        self.samples.iter().max_by_key(|sample| sample.took)
    }
}

/// Sorts what each run took by steps.
pub(super) fn collect(mode: Mode, runs: &[(Options, Report)]) -> Vec<Series> {
    let mut all: BTreeMap<Step, Series> = BTreeMap::new();
    for (options, report) in runs.iter().filter(|(_, report)| report.violation.is_none()) {
        let recovery = report.recovery;
        let leader = recovery.leader_ns.filter(|_| mode == Mode::PrimaryBackup);
        let steps = [
            (Step::Leader, leader),
            (Step::Write, recovery.serve_ns),
            (Step::Convergence(report.mechanism), recovery.converge_ns),
        ];
        for (step, took) in steps {
            let Some(took) = took else { continue };
            let (unit, name) = step.unit(options);
            let series = all.entry(step).or_insert(Series { step, unit: name, samples: vec![] });
            let took = Duration::from_nanos(took);
            series.samples.push(Sample { seed: report.seed, took, unit });
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_units_and_longest_time_can_be_of_different_runs() {
        let ms = Duration::from_millis;
        let sample = |seed, took, unit| Sample { seed, took: ms(took), unit: ms(unit) };
        let samples = vec![sample(1, 900, 200), sample(2, 1_000, 1_000), sample(3, 100, 500)];
        let series = Series { step: Step::Leader, unit: "election time-outs", samples };
        assert_eq!(series.slowest().map(|sample| (sample.seed, sample.units())), Some((1, 4.5)));
        assert_eq!(series.longest().map(|sample| (sample.seed, sample.ms())), Some((2, 1_000.0)));
        assert_eq!([50, 100].map(|at| format!("{:.1}", series.units(at))), ["1.0", "4.5"]);
    }
}
