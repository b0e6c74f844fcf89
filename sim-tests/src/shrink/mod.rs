//! Makes a failing run small: fewer faults, operations, clients, nodes, odd options and seconds, as
//! long as the same checker speaks.
//!
//! Every decision of a [case](crate::case) has a name and a fate of its own, so one can be taken
//! away without making another run of it. That is what delta debugging needs: of a list of
//! decisions, parts are left out, the larger ones first, and what is left is kept if it still
//! fails. The lists are gone through in the order in which they are cheap to be rid of: first time
//! is cut off at its end, then faults, clients, operations, nodes and options go, then single
//! faults are made simpler and time is squeezed, and all of it again until nothing helps. Sizes
//! that something waits for are halved before operations go, because a failure that needs a flush
//! keeps as many operations as fill what is flushed.
//!
//! A run that lacks something differs in small ways everywhere, because nodes draw for themselves.
//! So a case that holds is tried again under other seeds, which decide nothing that is listed,
//! before it is taken for good: if it is small, or if there are few to be tried, as while large
//! parts are left out. Otherwise a failure by a narrow margin would keep everything it began with.
//!
//! Candidates are tried side by side and the first of those that fail is taken, so that the result
//! is the same for any number of jobs.
//!
//! # Invariants
//! 1. What is returned was run, and the same checker spoke; if an assertion did, at the same place.
//! 2. Nothing is added: every decision that is left was one of the case, or is a simpler one.
//!
//! # Sources
//! \[ddmin\] (Zeller & Hildebrandt 2002).

mod scenario;
mod simpler;
mod story;
mod table;

use std::fmt;
use std::time::Duration;

use indicatif::ProgressBar;

pub use self::scenario::to_rust;
pub use self::story::{Turn, in_words, of_action, turns};
pub use self::table::{Row, rows_to_json, rows_to_table, shrink_first, shrink_planted};
use crate::case::{Case, Expected, settings};
use crate::check::Violation;
use crate::run::{Keep, Report, run_case};
use crate::swarm::cpu_seconds;
use crate::world::{Happening, LogEntry, Record};

/// Other seeds under which a small case is tried before it is said to hold.
const OTHER_SEEDS: u64 = 3;

/// Decisions below which a case is small.
const SMALL: usize = 60;

/// Candidates that are few, so that each is worth more than one run.
const FEW: usize = 8;

/// Rounds after which what is left is good enough.
const ROUNDS_MAX: u32 = 4;

/// Parts of a time that may do instead of it, the shortest first.
const EIGHTHS: [u32; 5] = [1, 2, 4, 6, 7];

/// Steps of time that are easy to read, the longest first.
const GRIDS: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(1), Duration::from_micros(100)];

/// How much is spent on a case.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Runs at the same time.
    pub jobs: usize,
    /// Most runs.
    pub runs_max: u64,
    /// Most processor seconds.
    pub cpu_seconds_max: f64,
}

/// A case that was made small.
#[derive(Debug)]
pub struct Shrunk {
    /// What is left of it.
    pub case: Case,
    /// The run of it.
    pub report: Report,
    /// Decisions before.
    pub before: usize,
    /// Decisions that are left.
    pub after: usize,
    /// Steps that were taken back at the end, because what they left did not fail again.
    pub taken_back: usize,
    /// Runs that it took.
    pub runs: u64,
    /// Processor seconds that it took.
    pub cpu_seconds: f64,
}

/// The case breaks no promise.
#[derive(Debug, thiserror::Error)]
#[error("the run breaks no promise: there is nothing to shrink")]
pub struct Sound;

/// By what a failure is known: who spoke, and where, if it was an assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The checker.
    pub checker: &'static str,
    place: Option<String>,
}

impl Failure {
    /// Returns by what a violation is known.
    pub fn of(violation: &Violation) -> Self {
        let place = violation.what.rsplit_once('(').and_then(|(_, end)| end.strip_suffix(')'));
        let is_assertion = violation.checker == "assertion";
        let place = place.filter(|_| is_assertion).map(str::to_owned);
        Self { checker: violation.checker, place }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} at {place}", self.checker),
            None => f.write_str(self.checker),
        }
    }
}

/// Makes a case small.
///
/// # Errors
/// The case breaks no promise.
pub fn shrink(case: &Case, budget: Budget, bar: &ProgressBar) -> Result<Shrunk, Sound> {
    let cpu_begin = cpu_seconds();
    let report = run_case(case, Keep::default());
    let failure = Failure::of(report.violation.as_ref().ok_or(Sound)?);
    let mut written = case.written(&report);
    written.expected = None;
    let before = written.decision_count();
    let mut shrinker = Shrinker {
        best: written,
        before: vec![case.clone()],
        failure,
        budget,
        runs: 1,
        cpu_begin,
        bar: bar.clone(),
        end: end_of(&report),
    };
    shrinker.all();
    let keep = Keep { trace: Record::Lines, log: true };
    let Shrinker { best, before: steps, failure, runs, .. } = shrinker;
    let (mut case, report, taken_back) =
        last_that_fails(best, steps, &failure, |case| run_case(case, keep));
    case.expected = Some(Expected::of(&report));
    let after = case.decision_count();
    let cpu_seconds = cpu_seconds() - cpu_begin;
    let runs = runs + 1 + u64::try_from(taken_back).unwrap_or(0);
    Ok(Shrunk { case, report, before, after, taken_back, runs, cpu_seconds })
}

/// Runs what is left once more, as it will be written, and takes steps back until it fails as it
/// is to; returns how many. The first case is the one that was to be shrunk.
fn last_that_fails(
    best: Case,
    mut before: Vec<Case>,
    failure: &Failure,
    run: impl Fn(&Case) -> Report,
) -> (Case, Report, usize) {
    let (mut case, mut taken_back) = (best, 0);
    loop {
        let report = run(&case);
        let found = report.violation.as_ref().map(Failure::of);
        let Some(last) = before.pop().filter(|_| found.as_ref() != Some(failure)) else {
            return (case, report, taken_back);
        };
        (case, taken_back) = (last, taken_back + 1);
    }
}

/// Something that can be left out of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Fault(crate::nemesis::FaultId),
    Operation(crate::operation::OperationId),
    Client(u32),
    Setting(&'static str),
    Fate(usize),
}

struct Shrinker {
    best: Case,
    /// What was the best before, the latest last.
    before: Vec<Case>,
    failure: Failure,
    budget: Budget,
    runs: u64,
    cpu_begin: f64,
    bar: ProgressBar,
    /// When the checker spoke in the best run.
    end: Duration,
}

impl Shrinker {
    fn all(&mut self) {
        self.cut();
        for _ in 0..ROUNDS_MAX {
            let before = (self.best.decision_count(), self.best.options.fault_phase);
            self.leave_out("faults", faults_of);
            self.leave_out("clients", clients_of);
            self.sooner();
            self.leave_out("operations", operations_of);
            self.cut();
            self.fewer_nodes();
            self.leave_out("options", settings_of);
            self.leave_out("fates", fates_of);
            self.simpler_faults();
            self.squeeze();
            self.round();
            let after = (self.best.decision_count(), self.best.options.fault_phase);
            if after == before || self.is_spent() {
                return;
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.runs >= self.budget.runs_max
            || cpu_seconds() - self.cpu_begin >= self.budget.cpu_seconds_max
    }

    fn say(&self, what: &str) {
        self.bar.set_message(format!(
            "{what}: {} decisions left after {} runs",
            self.best.decision_count(),
            self.runs
        ));
        self.bar.tick();
    }

    /// Takes the first of `count` candidates that still fails; returns which.
    fn take_first(&mut self, count: usize, make: impl Fn(&Case, usize) -> Case) -> Option<usize> {
        let found = self.take_first_under(0, count, &make);
        if found.is_some() || (self.best.decision_count() > SMALL && count > FEW) {
            return found;
        }
        // A case may fail by a narrow margin of time.
        (1..=OTHER_SEEDS).find_map(|step| self.take_first_under(step, count, &make))
    }

    /// The same under another seed, if `step` is not 0.
    fn take_first_under(
        &mut self,
        step: u64,
        count: usize,
        make: &impl Fn(&Case, usize) -> Case,
    ) -> Option<usize> {
        let jobs = self.budget.jobs.max(1);
        for first in (0..count).step_by(jobs) {
            if self.is_spent() {
                return None;
            }
            let made = (first..count.min(first + jobs)).map(|at| make(&self.best, at));
            let together: Vec<Case> = made.map(|case| reseeded(case, step)).collect();
            let reports = run_together(&together);
            self.runs += u64::try_from(together.len()).unwrap_or(0);
            let fails = |report: &Report| {
                report.violation.as_ref().map(Failure::of).as_ref() == Some(&self.failure)
            };
            if let Some(at) = reports.iter().position(fails) {
                let (case, report) = (together.get(at)?, reports.get(at)?);
                let better = Case { expected: None, ..case.written(report) };
                self.before.push(std::mem::replace(&mut self.best, better));
                self.end = end_of(report);
                return Some(first + at);
            }
        }
        None
    }

    /// Leaves out parts of one kind, larger sets of them first.
    fn leave_out(&mut self, what: &str, parts_of: fn(&Case) -> Vec<Part>) {
        let mut size = parts_of(&self.best).len();
        while size > 0 && !self.is_spent() {
            self.say(what);
            let mut from = 0;
            loop {
                // What is left was written anew by each run that failed.
                let parts = parts_of(&self.best);
                let rest = parts.get(from..).unwrap_or_default();
                let sets: Vec<&[Part]> = rest.chunks(size).collect();
                let make = |case: &Case, at: usize| {
                    without(case, sets.get(at).copied().unwrap_or_default())
                };
                match self.take_first(sets.len(), make) {
                    Some(at) => from += at * size,
                    None => break,
                }
            }
            size /= 2;
        }
    }

    /// Ends the faults when the promise was broken; if that does not do, as early as possible.
    fn cut(&mut self) {
        self.say("time");
        let phase = self.best.options.fault_phase;
        let end = self.end + Duration::from_millis(1);
        if end < phase && self.take_first(1, |case, _| ending_at(case, end)).is_some() {
            return;
        }
        self.take_first(EIGHTHS.len(), |case, at| {
            ending_at(case, phase * EIGHTHS.get(at).copied().unwrap_or(8) / 8)
        });
    }

    fn fewer_nodes(&mut self) {
        self.say("nodes");
        let fewer = simpler::node_counts(&self.best);
        self.take_first(fewer.len(), |case, at| {
            simpler::with_nodes(case, fewer.get(at).copied().unwrap_or(3))
        });
    }

    /// Lets less be written before something is flushed, so that fewer operations do.
    fn sooner(&mut self) {
        self.say("sizes");
        loop {
            let smaller = simpler::sizes(&self.best);
            let taken = self.take_first(smaller.len(), |case, at| {
                smaller.get(at).map_or_else(|| case.clone(), |tuning| simpler::tuned(case, tuning))
            });
            if taken.is_none() || self.is_spent() {
                return;
            }
        }
    }

    /// Makes each fault as simple as it can be.
    fn simpler_faults(&mut self) {
        self.say("simpler faults");
        let mut at = 0;
        while let Some(fault) = self.best.faults.as_ref().and_then(|faults| faults.get(at)) {
            let actions = simpler::actions(&fault.action);
            let make = |case: &Case, which: usize| match actions.get(which) {
                Some(action) => simpler::with_action(case, at, action.clone()),
                None => case.clone(),
            };
            if self.take_first(actions.len(), make).is_none() {
                at += 1;
            }
            if self.is_spent() {
                return;
            }
        }
    }

    /// Lets everything follow sooner.
    fn squeeze(&mut self) {
        self.say("pauses");
        self.take_first(EIGHTHS.len(), |case, at| {
            simpler::squeezed(case, EIGHTHS.get(at).copied().unwrap_or(8), 8)
        });
    }
}

impl Shrinker {
    /// Gives everything a time that is easy to read.
    fn round(&mut self) {
        self.say("round times");
        self.take_first(GRIDS.len(), |case, at| {
            simpler::rounded(case, GRIDS.get(at).copied().unwrap_or(Duration::from_nanos(1)))
        });
    }
}

/// Runs cases side by side.
fn run_together(cases: &[Case]) -> Vec<Report> {
    std::thread::scope(|scope| {
        let run = |case| scope.spawn(move || run_case(case, Keep::default()));
        let running: Vec<_> = cases.iter().map(run).collect();
        let ended = running.into_iter().map(|run| match run.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect()
    })
}

/// Returns when the promise was broken.
fn end_of(report: &Report) -> Duration {
    let at = report.violation.as_ref().map_or(u64::MAX, |violation| violation.at);
    report.simulated.min(Duration::from_nanos(at))
}

/// Returns the case under another seed, which decides only what is not listed.
fn reseeded(mut case: Case, step: u64) -> Case {
    if step > 0 {
        case.options.seed = case.options.seed.wrapping_mul(31).wrapping_add(step);
    }
    case
}

/// Returns the case with the faults over at that time.
fn ending_at(case: &Case, end: Duration) -> Case {
    let mut case = case.clone();
    case.options.fault_phase = end;
    case.faults.iter_mut().for_each(|faults| faults.retain(|fault| fault.at < end));
    case.operations.iter_mut().for_each(|all| all.retain(|operation| operation.at < end));
    case
}

fn faults_of(case: &Case) -> Vec<Part> {
    case.faults.iter().flatten().map(|fault| Part::Fault(fault.id)).collect()
}

fn operations_of(case: &Case) -> Vec<Part> {
    let mut all: Vec<_> = case.operations.iter().flatten().collect();
    all.sort_by_key(|operation| operation.at);
    all.iter().map(|operation| Part::Operation(operation.id)).collect()
}

fn clients_of(case: &Case) -> Vec<Part> {
    let mut clients: Vec<u32> =
        case.operations.iter().flatten().map(|operation| operation.id.client).collect();
    clients.sort_unstable();
    clients.dedup();
    clients.into_iter().map(Part::Client).collect()
}

/// Settings that make sense only together: a heartbeat is to be shorter than an election time-out,
/// a floor older than a write can be late, and whoever repairs nothing must compare.
const TOGETHER: [&[&str]; 4] = [
    &["election_timeout_ms", "heartbeat_interval_ms"],
    &["tree.level0_tables", "tree.level0_tables_max"],
    &["request_timeout_ms", "hint_after_ms", "floor_age_ms", "batch_takeover_ms"],
    &["mechanism", "repair.hints", "repair.reads", "sync_interval_ms", "floor_interval_ms"],
];

/// Returns the settings that go with one, itself included.
fn with_friends(name: &str) -> Vec<&str> {
    let friends = TOGETHER.iter().find(|together| together.contains(&name));
    friends.map_or_else(|| vec![name], |together| together.to_vec())
}

fn settings_of(case: &Case) -> Vec<Part> {
    // When the faults end is not a matter of taste, and nodes are counted elsewhere.
    let is_free = |name: &&str| !matches!(*name, "fault_phase_ms" | "nodes" | "clients");
    let odd = settings::unlike_plain(&case.options);
    let all = settings::all(&case.options).map(|setting| setting.name);
    all.filter(|name| odd.contains_key(*name)).filter(is_free).map(Part::Setting).collect()
}

fn fates_of(case: &Case) -> Vec<Part> {
    (0..case.decided.len()).map(Part::Fate).collect()
}

/// Returns the case without some of its parts.
fn without(case: &Case, parts: &[Part]) -> Case {
    let mut case = case.clone();
    let plain = settings::plain(case.options.mode(), case.options.seed);
    for part in parts {
        let Part::Setting(name) = part else { continue };
        let friends = with_friends(name);
        for setting in settings::all(&plain).filter(|setting| friends.contains(&setting.name)) {
            setting.copy(&plain, &mut case.options);
        }
    }
    let gone = |part: Part| parts.contains(&part);
    case.faults.iter_mut().for_each(|all| all.retain(|fault| !gone(Part::Fault(fault.id))));
    case.operations.iter_mut().for_each(|all| {
        all.retain(|operation| {
            !gone(Part::Operation(operation.id)) && !gone(Part::Client(operation.id.client))
        });
    });
    let kept = (0..).zip(case.decided).filter(|(at, _)| !gone(Part::Fate(*at)));
    case.decided = kept.map(|(_, fate)| fate).collect();
    case.options.client_count = simpler::last_client(&case);
    case
}

/// Returns the names of the kinds of events that a story is made of.
fn is_turn(entry: &LogEntry) -> bool {
    match &entry.what {
        Happening::Event { kind, text, .. } => match *kind {
            "role" => text.starts_with("leader"),
            "ended" => true,
            _ => false,
        },
        Happening::Sent { .. }
        | Happening::Status(_)
        | Happening::File { .. }
        | Happening::Directory { .. }
        | Happening::Probe(_)
        | Happening::Gone { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Plan;

    #[test]
    fn steps_after_which_it_does_not_fail_again_are_taken_back() {
        let case =
            |about: &str| Case { about: about.to_owned(), ..Case::plain(Plan::default(), 1) };
        let found = |checker| Violation { checker, what: String::new(), at: 0 };
        let failure = Failure::of(&found("durability"));
        for (failing, wanted) in [(3, (3, 0)), (1, (1, 2)), (0, (0, 3))] {
            let run = |case: &Case| {
                let step: usize = case.about.parse().unwrap();
                let checker = if step <= failing { "durability" } else { "liveness" };
                Report { violation: Some(found(checker)), ..Report::empty(1) }
            };
            let before = vec![case("0"), case("1"), case("2")];
            let (last, report, taken_back) = last_that_fails(case("3"), before, &failure, run);
            assert_eq!((last.about.parse().unwrap(), taken_back), wanted);
            assert_eq!(report.violation.map(|found| found.checker), Some("durability"));
        }
    }
}
