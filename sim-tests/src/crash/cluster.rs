//! Crash points of a whole cluster: power is lost at every step of every disk of a short run.
//!
//! The [store's](super) crash points go through all that a power loss may leave of one disk, and
//! know what must be found there. What a *cluster* owes is owed by several disks together: a vote,
//! a write that two of three have, a batch that is half handed out. So here a short run is played
//! once to learn when its disks do something, and then again and again, each time with one power
//! loss at one of those moments: right after a step, and right before the next one. The node that
//! did it loses power alone, or all nodes do; what was not synced is lost, or a random part of it
//! is. After each the run goes on, is healed, and is judged as any run of a swarm.
//!
//! # Left out
//! A second power loss in the same run, and other faults beside it: the swarm has them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde_json::json;

use crate::case::{Case, settings};
use crate::nemesis::{Action, Fault, FaultId};
use crate::options::{Mode, Options};
use crate::parallel;
use crate::run::{Keep, Report, run_case};
use crate::world::Happening;

/// Length of the run, but for its end.
const LENGTH: Duration = Duration::from_secs(4);

/// Mean pause of a client between two requests.
const THINK_TIME: Duration = Duration::from_millis(60);

/// Clients.
const CLIENTS: u64 = 2;

/// Time until a node has power again.
const DOWN: Duration = Duration::from_millis(200);

/// Bytes of log between two flushes, and of a segment: so few that a short run has some of each.
const FLUSH_LOG_BYTES: u64 = 1 << 11;
const SEGMENT_BYTES: u64 = 1 << 12;

/// What to explore.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How the cluster replicates.
    pub mode: Mode,
    /// Where the requests and their timing come from.
    pub seed: u64,
    /// Most moments that are tried; more are thinned out evenly.
    pub moments_max: usize,
    /// Runs at the same time.
    pub jobs: usize,
    /// The planted bug that is switched on, if any.
    pub planted: Option<&'static str>,
}

/// What an exploration came to.
#[derive(Debug, Clone, Default)]
pub struct Exploration {
    /// Steps that the disks took in the run without a power loss.
    pub steps: usize,
    /// Moments between them.
    pub moments: usize,
    /// Those of them that were tried.
    pub moments_tried: usize,
    /// Runs.
    pub runs: usize,
    /// Requests that were answered in all of them.
    pub acknowledged: u64,
    /// The runs that broke a promise, with what was said.
    pub violations: Vec<(Case, String)>,
}

/// A power loss: when, and of which node if not of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    at: Duration,
    node: u64,
}

/// Plays the run once, and then with each power loss; `progress` hears of each run, with how many
/// there will be.
pub fn explore(plan: &Plan, progress: impl Fn(usize) + Sync) -> Exploration {
    let calm = calm(plan);
    let report = run_case(&calm, Keep { log: true, ..Keep::default() });
    if let Some(violation) = report.violation {
        let violations = vec![(calm, violation.to_string())];
        return Exploration { runs: 1, violations, ..Exploration::default() };
    }
    let (steps, moments) = moments(&report);
    let stride = moments.len().div_ceil(plan.moments_max.max(1)).max(1);
    let tried: Vec<Moment> = moments.iter().copied().step_by(stride).collect();
    let all: Vec<u64> = (1..=calm.options.node_count).collect();
    let mut cases = Vec::new();
    for moment in &tried {
        for nodes in [vec![moment.node], all.clone()] {
            for strict in [true, false] {
                cases.push(with_power_loss(&calm, moment.at, nodes.clone(), strict));
            }
        }
    }
    let total = cases.len();
    let work = |case: &Case| {
        let report = run_case(case, Keep::default());
        (report.acknowledged, report.violation.map(|violation| violation.to_string()))
    };
    let outcomes = parallel::map(&cases, plan.jobs, work, |_| progress(total));
    let acknowledged = outcomes.iter().map(|(acknowledged, _)| acknowledged).sum();
    let broken = |(case, (_, what)): (Case, (u64, Option<String>))| what.map(|what| (case, what));
    Exploration {
        steps,
        moments: moments.len(),
        moments_tried: tried.len(),
        runs: total + 1,
        acknowledged,
        violations: cases.into_iter().zip(outcomes).filter_map(broken).collect(),
    }
}

/// Makes the run in which nothing goes wrong.
fn calm(plan: &Plan) -> Case {
    let plain = settings::plain(plan.mode, plan.seed);
    let mut options = Options {
        fault_phase: LENGTH,
        think_time: THINK_TIME,
        client_count: CLIENTS,
        planted: plan.planted,
        ..plain
    };
    options.tuning.flush_log_bytes = FLUSH_LOG_BYTES;
    options.tuning.wal_segment_bytes = SEGMENT_BYTES;
    Case { faults: Some(Vec::new()), ..Case::drawn(options) }
}

fn with_power_loss(calm: &Case, at: Duration, nodes: Vec<u64>, strict: bool) -> Case {
    let action = Action::PowerLoss { nodes, strict, while_busy: false, down: DOWN };
    let fault = Fault { id: FaultId(1), at, instead_of: None, action };
    Case { faults: Some(vec![fault]), ..calm.clone() }
}

/// Returns how many steps the disks took until the run was over, and the moments right after and
/// right before each.
fn moments(report: &Report) -> (usize, Vec<Moment>) {
    // One step may be told in several entries.
    let mut steps = BTreeSet::new();
    let mut moments = BTreeSet::new();
    for entry in &report.log {
        let at = Duration::from_nanos(entry.at);
        let is_step = matches!(
            entry.what,
            Happening::File { .. } | Happening::Directory { .. } | Happening::Gone { .. }
        );
        if !is_step || at >= LENGTH {
            continue;
        }
        let name = entry.host.as_deref().unwrap_or_default();
        let Some(node) = name.strip_prefix('n').and_then(|number| number.parse().ok()) else {
            continue;
        };
        steps.insert(Moment { at, node });
        let nanosecond = Duration::from_nanos(1);
        moments.insert(Moment { at: at.saturating_sub(nanosecond), node });
        moments.insert(Moment { at: at + nanosecond, node });
    }
    (steps.len(), moments.into_iter().collect())
}

impl Exploration {
    /// Returns it for programs; of a run that failed, its power loss and what was said.
    pub fn to_json(&self) -> String {
        let failure =
            |(case, what): &(Case, String)| json!({ "faults": case.faults, "what": what });
        json!({
            "steps": self.steps, "moments": self.moments, "moments_tried": self.moments_tried,
            "runs": self.runs, "acknowledged": self.acknowledged,
            "violations": self.violations.iter().map(failure).collect::<Vec<_>>(),
        })
        .to_string()
    }
}

impl fmt::Display for Exploration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps of all disks; power lost at {} of the {} moments right before and after \
             them, of one node and of all, strictly and in part: {} runs, {} requests answered, {} \
             violations",
            self.steps,
            self.moments_tried,
            self.moments,
            self.runs,
            self.acknowledged,
            self.violations.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::LogEntry;

    #[test]
    fn every_change_of_a_disk_is_a_step_and_is_so_once() {
        let told = |at, host: &str, what| LogEntry { at, host: Some(host.to_owned()), what };
        let file = || {
            let path = "wal/1".to_owned();
            Happening::File { path, cached: 0, pending: 0, is_name_durable: false }
        };
        let directory = || Happening::Directory { path: "wal".to_owned(), pending: 1 };
        let gone = Happening::Gone { path: "wal/0".to_owned() };
        let log = vec![
            told(10, "n1", directory()),
            told(20, "n1", file()),
            told(20, "n1", directory()),
            told(20, "n2", gone),
            told(30, "c1", file()),
        ];
        let (steps, moments) = moments(&Report { log, ..Report::empty(1) });
        assert_eq!(steps, 3);
        let at = |nanos, node| Moment { at: Duration::from_nanos(nanos), node };
        assert_eq!(moments, [at(9, 1), at(11, 1), at(19, 1), at(19, 2), at(21, 1), at(21, 2)]);
    }
}
