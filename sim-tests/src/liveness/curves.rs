//! How much of a cluster can be used around one fault of each kind.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Plan;
use super::kinds::{self, Kind};
use crate::case::Case;
use crate::history::{EventKind, Outcome};
use crate::operation::OperationId;
use crate::parallel;
use crate::run::{Keep, Report, run_case};
use crate::swarm::float;

/// When the fault shows, since the cluster was started.
pub(super) const FAULT_AT: Duration = Duration::from_secs(7);

/// How much of the time before it is looked at: what is usual.
pub(super) const BEFORE: Duration = Duration::from_millis(2_500);

/// How much of the time after it.
pub(super) const AFTER: Duration = Duration::from_secs(10);

/// Length of a slice of a curve.
pub(super) const SLICE: Duration = Duration::from_millis(250);

/// Within which time of being due a request must be answered to count: more than three time-outs
/// of these runs, so that a client can try another node, and about what a person waits for.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Per cent of the requests from which on a cluster is as usual: a slice of one run has 37.
const USUAL: f64 = 95.0;

/// The share of requests that were available, slice by slice around a fault of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curve {
    /// The kind of fault.
    pub kind: &'static str,
    /// What it is shown with.
    pub group: &'static str,
    /// Runs.
    pub runs: u64,
    /// Requests that were due in each slice, of all runs.
    due: Vec<u64>,
    /// Those of them that were available.
    available: Vec<u64>,
}

impl Curve {
    fn new(kind: &Kind) -> Self {
        let slices = nanos(BEFORE + AFTER) / nanos(SLICE);
        let zeros = vec![0; usize::try_from(slices).unwrap_or(0)];
        let (kind, group) = (kind.name, kind.group);
        Self { kind, group, runs: 0, due: zeros.clone(), available: zeros }
    }

    /// Takes in a run.
    fn add(&mut self, case: &Case, report: &Report) {
        self.runs += 1;
        let ends = ends_of(report);
        for operation in case.operations.iter().flatten() {
            let Some(since) = operation.at.checked_sub(FAULT_AT.saturating_sub(BEFORE)) else {
                continue;
            };
            let slice = usize::try_from(nanos(since) / nanos(SLICE)).unwrap_or(usize::MAX);
            let (Some(due), Some(available)) =
                (self.due.get_mut(slice), self.available.get_mut(slice))
            else {
                continue;
            };
            *due += 1;
            let in_time = nanos(operation.at + PATIENCE);
            *available += u64::from(ends.get(&operation.id).is_some_and(|end| *end <= in_time));
        }
    }

    fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        for (sums, more) in [(&mut self.due, &other.due), (&mut self.available, &other.available)] {
            for (sum, one) in sums.iter_mut().zip(more) {
                *sum += one;
            }
        }
    }

    /// Returns the seconds since the fault at which each slice begins, and the per cent of its
    /// requests that were available.
    pub fn shares(&self) -> Vec<(f64, f64)> {
        let counts = self.due.iter().zip(&self.available);
        let share = |(due, available): (&u64, &u64)| {
            if *due == 0 { 100.0 } else { float(*available) * 100.0 / float(*due) }
        };
        let begins = (0_u32..).map(|at| f64::from(at) * SLICE.as_secs_f64());
        begins.map(|begin| begin - BEFORE.as_secs_f64()).zip(counts.map(share)).collect()
    }

    fn shares_after(&self) -> impl DoubleEndedIterator<Item = (f64, f64)> {
        self.shares().into_iter().filter(|(begin, _)| *begin >= 0.0)
    }

    /// Returns the lowest share of a slice after the fault, in per cent.
    pub fn lowest(&self) -> f64 {
        self.shares_after().map(|(_, share)| share).fold(100.0, f64::min)
    }

    /// Returns for how many seconds nothing would have been available, had it been all or nothing.
    pub fn lost_seconds(&self) -> f64 {
        let lost = |(_, share): (f64, f64)| (100.0 - share) / 100.0 * SLICE.as_secs_f64();
        self.shares_after().map(lost).sum()
    }

    /// Returns after how many seconds the share was as usual and stayed so; `None` if it was not
    /// within the time that is looked at.
    pub fn usual_after(&self) -> Option<f64> {
        let mut low = self.shares_after().filter(|(_, share)| *share < USUAL);
        let usual = low.next_back().map_or(0.0, |(begin, _)| begin + SLICE.as_secs_f64());
        (usual < AFTER.as_secs_f64()).then_some(usual)
    }
}

/// Returns when each request was answered.
fn ends_of(report: &Report) -> BTreeMap<OperationId, u64> {
    let answered = report.history.events().iter().filter(|event| {
        let operation = report.history.op(event.op);
        event.kind == EventKind::End && matches!(operation.outcome, Outcome::Ok(_))
    });
    answered.filter_map(|event| Some((*report.names.get(&event.op)?, event.time_ns))).collect()
}

/// Tells whether the fault of a run could be done: a node that leads cannot be lied to.
fn has_struck(report: &Report) -> bool {
    !report.struck.iter().any(|fault| fault.action.kind() == "lie")
        || report.faults.get(crate::world::Fault::D6.code()).is_some_and(|(done, _)| *done > 0)
}

/// Runs the faults of every kind; returns the curves, and what promises were broken.
pub(super) fn draw(plan: &Plan, progress: &(impl Fn() + Sync)) -> (Vec<Curve>, Vec<String>) {
    let mode = plan.runs.mode;
    let seeds = plan.seeds.start..plan.seeds.start + plan.curve_seeds;
    let tasks: Vec<(&Kind, u64)> =
        kinds::of_mode(mode).flat_map(|kind| seeds.clone().map(move |seed| (kind, seed))).collect();
    let work = |(kind, seed): &(&Kind, u64)| {
        let (mut curve, mut broken) = (Curve::new(kind), None);
        if let Some(case) = kind.case(mode, *seed) {
            let report = run_case(&case, Keep::default());
            if has_struck(&report) {
                curve.add(&case, &report);
            }
            broken = report.violation.map(|found| format!("{}, seed {seed}: {found}", kind.name));
        }
        (curve, broken)
    };
    let done = parallel::map(&tasks, plan.jobs, work, |_| progress());
    let mut curves: Vec<Curve> = Vec::new();
    let mut all_broken = Vec::new();
    for (curve, broken) in done {
        match curves.last_mut().filter(|last| last.kind == curve.kind) {
            Some(last) => last.merge(&curve),
            None => curves.push(curve),
        }
        all_broken.extend(broken);
    }
    (curves, all_broken)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::KINDS;

    #[test]
    fn share_that_falls_and_comes_back_is_told_in_three_figures() {
        let mut curve = Curve::new(&KINDS[0]);
        curve.due.fill(4);
        curve.available.fill(4);
        // The fault is at the tenth slice.
        curve.available[10] = 0;
        curve.available[12] = 3;
        assert_eq!((curve.lowest(), curve.usual_after()), (0.0, Some(0.75)));
        assert!((curve.lost_seconds() - 0.3125).abs() < 1e-9, "{}", curve.lost_seconds());
        assert_eq!(curve.shares()[10], (0.0, 0.0));
    }

    #[test]
    fn curve_that_stays_low_is_never_usual() {
        let mut curve = Curve::new(&KINDS[0]);
        curve.due.fill(1);
        assert_eq!((curve.usual_after(), curve.lost_seconds()), (None, 10.0));
    }
}
