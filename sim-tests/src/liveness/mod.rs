//! How fast a cluster is back after everything has healed, and how much of it is there meanwhile.
//!
//! The checker of [liveness](crate::check::liveness) says that a cluster is well again within a
//! minute. A cluster that takes ten times as long as it did before passes all the same. So here the
//! times of many runs are kept as [distributions](Series), and there are [limits](Limit) to them.
//!
//! # After healing
//! The runs are those of an ordinary swarm: the same options, faults and requests of each seed. But
//! there the load ends with the faults, and the first to write again is a client that waits until
//! the replicas are equal. What it is told says nothing about how soon it could have been told it.
//! So in a run that is *timed* one more client, the [`Asker`], writes from the moment of healing on
//! until it is answered. It speaks through the shipped client library, which knows nobody yet and
//! has to find out who takes writes: the time is what a user waits. The switch is a part of the
//! [case](crate::case::Case) and off elsewhere, so ordinary runs are what they were; `cargo sim
//! replay SEED --timed` shows a run as it was measured.
//!
//! *Healing* is one moment: nothing is wrong from then on. A disk that stalls cannot be healed, so
//! the faults go on until the last stall is over. From that moment three things are timed:
//! - *A leader* (primary-backup mode): whoever leads in the end knew that an entry of its own term
//!   is committed, so that a majority had followed it. That is no time at all if it was so before
//!   healing, and a leader that does not last does not count.
//! - *The first acknowledged write*, in the masterless mode at QUORUM.
//! - *All replicas equal*: that write was acknowledged, and every node has applied all that is
//!   committed; or, in the masterless mode, the disks hold the same, and no batch is open. Each
//!   mechanism by which that can come about is counted for itself.
//!
//! The times are also told in the time-outs and intervals of the run that decide how fast a step
//! can be, because runs draw them, and limits are set in them.
//!
//! # While something is wrong
//! In the runs of a swarm a fault strikes every few seconds, most of them while others last: what a
//! client misses then is the sum of all that is wrong, and belongs to no kind of fault. Runs in
//! which a fault happens to be alone are few, and those of them with long faults fewer. So the
//! [curves](Curve) have runs of their own: one fault at a time that is known, drawn as the nemesis
//! draws it, under the load and the time-outs of [`compare`](crate::compare). Of faults that the
//! nemesis aims at the leader now and then, those that it aims are taken: they are the worst.
//!
//! A request is *available* if it is answered within [`PATIENCE`] of the time when it was due.
//! Refused, unknown, late, and not asked because its client still waited for the one before: all of
//! them are not.
//!
//! # Left out
//! How much longer a recovery takes with more data: the runs of a swarm have little.

mod asker;
mod curves;
mod figures;
mod kinds;
mod limits;
mod page;
mod table;

use std::ops::Range;

pub use self::asker::Asker;
pub use self::curves::{Curve, PATIENCE};
pub use self::figures::{Sample, Series, Step};
pub use self::kinds::{KINDS, Kind};
pub use self::limits::{Excess, JUDGED_SEEDS, Limit, exceeded, limit};
pub use self::page::page;
pub use self::table::{to_json, to_table};
use crate::case::Case;
use crate::options::{self, Mode, Options};
use crate::parallel;
use crate::run::{Keep, Report, run_case};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the runs after whose healing is measured are.
    pub runs: options::Plan,
    /// Their seeds.
    pub seeds: Range<u64>,
    /// Runs of each kind of fault, for the curves; their seeds begin with the first.
    pub curve_seeds: u64,
    /// The planted bug that is switched on in them, if any.
    pub planted: Option<&'static str>,
    /// Runs at the same time.
    pub jobs: usize,
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// What the runs were.
    pub runs: options::Plan,
    /// The planted bug that was switched on in them, if any.
    pub planted: Option<&'static str>,
    /// How long each step after healing took.
    pub series: Vec<Series>,
    /// What could be used while something was wrong.
    pub curves: Vec<Curve>,
    /// What promises were broken: a line each.
    pub broken: Vec<String>,
}

impl Plan {
    /// Returns how many runs that makes.
    pub fn run_count(&self) -> u64 {
        let kinds = u64::try_from(kinds::of_mode(self.runs.mode).count()).unwrap_or(u64::MAX);
        self.seeds.end - self.seeds.start + self.curve_seeds * kinds
    }
}

impl Measured {
    /// Returns the command that shows the run of a seed as it was measured.
    pub fn again(&self, seed: u64) -> String {
        self.again_with(&seed.to_string())
    }

    fn again_with(&self, seed: &str) -> String {
        timed_replay(self.runs, self.planted, seed)
    }

    /// Tells whether a limit is exceeded.
    pub fn is_too_slow(&self) -> bool {
        !exceeded(self.runs, &self.series).is_empty()
    }
}

/// Runs everything; `progress` hears of each run that is over.
pub fn measure(plan: &Plan, progress: impl Fn() + Sync) -> Measured {
    let (recoveries, mut broken) = recover(plan, &progress);
    let (curves, of_curves) = curves::draw(plan, &progress);
    broken.extend(of_curves);
    let series = figures::collect(plan.runs.mode, &recoveries);
    Measured { runs: plan.runs, planted: plan.planted, series, curves, broken }
}

fn timed_replay(runs: options::Plan, planted: Option<&str>, seed: &str) -> String {
    let planted = planted.map_or(String::new(), |code| format!(" --planted {code}"));
    format!("cargo sim replay {seed}{}{planted} --timed", runs.flags())
}

/// Runs the seeds, and times each after healing.
fn recover(plan: &Plan, progress: &(impl Fn() + Sync)) -> (Vec<(Options, Report)>, Vec<String>) {
    let seeds: Vec<u64> = plan.seeds.clone().collect();
    let work = |seed: &u64| {
        let options = Options { planted: plan.planted, ..plan.runs.draw(*seed) };
        let case = Case { is_timed: true, ..Case::drawn(options) };
        let report = run_case(&case, Keep::default());
        (case.options, slim(report))
    };
    let runs = parallel::map(&seeds, plan.jobs, work, |_| progress());
    let broken = runs.iter().filter_map(|(_, report)| {
        let violation = report.violation.as_ref()?;
        let replay = timed_replay(plan.runs, plan.planted, &report.seed.to_string());
        Some(format!("seed {}: {violation}\n  replay: {replay}", report.seed))
    });
    let broken = broken.collect();
    (runs, broken)
}

/// Leaves out of a report what is large and not needed.
fn slim(report: Report) -> Report {
    Report {
        recovery: report.recovery,
        mechanism: report.mechanism,
        violation: report.violation,
        ..Report::empty(report.seed)
    }
}

/// Returns with whom the curves of a mode are drawn.
fn subject(mode: Mode) -> crate::compare::Subject {
    match mode {
        Mode::PrimaryBackup => crate::compare::Subject::PrimaryBackup,
        Mode::Masterless => crate::compare::Subject::Quorum,
    }
}
