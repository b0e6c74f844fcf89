//! Linearizability of a whole history: every request takes effect at one instant between its
//! invocation and its answer.
//!
//! **Property.** There is an order of all operations that took effect, in which each answer is the
//! one of a store that runs one request after the other, and in which an operation that ended
//! before another began comes first [Herlihy & Wing '90]. Operations with an unknown outcome may
//! stand anywhere after their invocation or be missing; those that failed must be missing.
//!
//! **Why the obvious check is wrong.** Replaying the operations in order of their invocations (or
//! of their ends) rejects right histories: a slow request may take effect before or after a quick
//! one. Trying all orders is right and hopeless. Asking the store for its own order (see
//! [`replay`](crate::check::replay)) is quick, but believes the store. This checker believes only
//! the clients: it is the one that a store cannot fool.
//!
//! `lower` turns requests into reads, clauses and writes and splits them into groups that share no
//! cell; `engine` walks through a group and `search` finds what must have happened before a return;
//! [`rules`] says what makes it quick and why that is right.
//!
//! **What is skipped.** Conditions on versions ([`Expected::Opaque`](crate::history::Expected)),
//! unless whoever records them names the value that had the version. The number of results in a
//! page, and whether a page could have been longer.
//!
//! # Invariants
//! A run that could not be decided is never a pass: [`Verdict::Undecided`] is its own verdict.
//!
//! # Sources
//! [Herlihy & Wing '90] (definition, locality), [Wing & Gong '93] (search), [Lowe '17]
//! (just-in-time linearization). The pruning rules were found by measurement and are proven by
//! fuzzing against an exhaustive search, with mutants.

mod config;
mod engine;
mod lower;
pub mod rules;
mod search;

use std::fmt;

use self::engine::{Engine, Found};
use self::lower::Place;
pub use self::rules::{Mutant, Rule, Rules};
use super::{Violation, broken};
use crate::history::{CellId, History, OpId};

/// How to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most steps of the search over all groups; more is [`Verdict::Undecided`]. A step is one
    /// operation tried in one configuration, a fraction of a microsecond in a release build.
    pub steps_max: u64,
    /// Which pruning rules are used; the tests of the checker switch them off.
    pub rules: Rules,
    /// A mistake to be made; for the tests of the checker.
    pub mutant: Option<Mutant>,
}

impl Default for Options {
    fn default() -> Self {
        // A right history of 10,000 operations takes some 20,000 steps. Five million is a second
        // or two: a run that needs more has a workload that no checker can judge.
        Self { steps_max: 5_000_000, rules: Rules::ALL, mutant: None }
    }
}

/// Whether a history is linearizable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Valid,
    /// It is not, and this is the first answer that shows it.
    Invalid(Counterexample),
    /// The search was given up. This is a failure of the run, not a pass.
    Undecided(Undecided),
}

/// Why a search was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// It took too many steps.
    #[error("gave up after {steps_max} steps")]
    Steps {
        /// The budget.
        steps_max: u64,
    },
    /// More operations on one group were in flight at once than fit the search.
    #[error("more than {open_max} operations in flight on one group of cells")]
    Concurrency {
        /// How many fit.
        open_max: u32,
    },
}

/// The first answer that cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample {
    /// The operation.
    pub op: OpId,
    /// Position of its answer among the events of the history (its line in a file, from 0).
    pub event: u32,
    /// The operation and what its cells could have been before, for a person.
    pub text: String,
}

/// What a check came to, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// How many groups of cells were checked.
    pub groups: usize,
    /// Cells of the largest.
    pub group_cells_max: usize,
    /// Steps of all searches.
    pub steps: u64,
    /// Most configurations held at once.
    pub configs_max: usize,
}

/// Checks a history; the cost is bounded by the budget of steps, twenty times that if it is bad.
pub fn check(history: &History, options: &Options) -> Report {
    let mut report = Report::default();
    if let Some(suspect) = search(history, options, &mut report) {
        let event = first_bad(history, options, suspect);
        report.verdict = Verdict::Invalid(Counterexample::new(history, event));
    }
    report
}

/// Searches all groups; returns the earliest event at which a search failed.
///
/// The rules look at the future, so a search may fail before the answer that is wrong: a value that
/// is read again later must not be overwritten, and that fails at the overwriting already.
fn search(history: &History, options: &Options, report: &mut Report) -> Option<u32> {
    let groups = lower::groups(history, options);
    report.groups = groups.len();
    report.group_cells_max = groups.iter().map(|group| group.cells.len()).max().unwrap_or(0);
    let mut suspect: Option<u32> = None;
    for group in &groups {
        let steps_max = options.steps_max - report.steps.min(options.steps_max);
        let mut engine = Engine::new(group, options, steps_max);
        let found = engine.run();
        let (steps, configs) = engine.effort();
        report.steps += steps;
        report.configs_max = report.configs_max.max(configs);
        match found {
            Found::Valid => {}
            Found::Undecided(Undecided::Steps { .. }) => {
                let steps_max = options.steps_max;
                report.verdict = Verdict::Undecided(Undecided::Steps { steps_max });
            }
            Found::Undecided(undecided) => report.verdict = Verdict::Undecided(undecided),
            Found::Invalid(op) => {
                let event = history.op(group.ops[op as usize].id).ended.unwrap_or(u32::MAX);
                suspect = Some(suspect.map_or(event, |held| held.min(event)));
            }
        }
    }
    suspect
}

/// Returns the first event after which the history is not linearizable, by bisection: every prefix
/// of a linearizable history is linearizable. Not before `suspect`, until which the search had
/// found orders for all that was answered.
fn first_bad(history: &History, options: &Options, suspect: u32) -> u32 {
    let is_bad = |event: u32| {
        let prefix = history.prefix(event as usize + 1);
        search(&prefix, options, &mut Report::default()).is_some()
    };
    let (mut low, mut high) = (suspect, lower::number(history.events().len()).saturating_sub(1));
    while low < high {
        let middle = low + (high - low) / 2;
        if is_bad(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// Checks a history as one of the checkers of a run: undecided is a violation too.
pub fn require(history: &History) -> Result<Report, Violation> {
    let report = check(history, &Options::default());
    let (what, event) = match &report.verdict {
        Verdict::Valid => return Ok(report),
        Verdict::Invalid(counterexample) => (counterexample.text.clone(), counterexample.event),
        // Nobody knows of any answer that it is the first to be wrong.
        Verdict::Undecided(undecided) => {
            let last = lower::number(history.events().len()).saturating_sub(1);
            (format!("not decided: {undecided}"), last)
        }
    };
    let time = history.events().get(event as usize).map_or(0, |event| event.time_ns);
    broken("linearizable", time, what).map(|()| report)
}

impl Default for Report {
    fn default() -> Self {
        Self { verdict: Verdict::Valid, groups: 0, group_cells_max: 0, steps: 0, configs_max: 0 }
    }
}

impl Counterexample {
    fn new(history: &History, event: u32) -> Self {
        let op = history.events().get(event as usize).map_or(OpId(u32::MAX), |event| event.op);
        let mut text = format!("{} has no place in any order", history.describe(op));
        let cells = lower::cells_of(history, op);
        let before = history.prefix(event as usize);
        if let Some(possible) = possible_values(&before, &cells) {
            text.push_str("; just before it could be: ");
            text.push_str(&possible);
        }
        Self { op, event, text }
    }
}

/// Returns what the cells can hold at the end of a history, for a person. Operations that are in
/// flight at the end may still change it.
fn possible_values(history: &History, cells: &[CellId]) -> Option<String> {
    const STEPS_MAX: u64 = 200_000;
    const SHOWN: usize = 8;
    // Without this rule every value keeps its name.
    let rules = Rules::ALL.without(Rule::Unobserved);
    let options = Options { steps_max: STEPS_MAX, rules, mutant: None };
    let mut lines = Vec::new();
    for group in lower::groups(history, &options) {
        let mut asked = (0..).zip(&group.cells).filter(|(_, cell)| cells.contains(cell)).peekable();
        if asked.peek().is_none() {
            continue;
        }
        let mut engine = Engine::new(&group, &options, STEPS_MAX);
        if !matches!(engine.run(), Found::Valid) {
            return None;
        }
        for (position, cell) in asked {
            let possible = engine.possible(position).into_iter();
            let value = |place: Place| match group.values[place as usize].observed {
                Some(value) => history.value_text(value).unwrap_or("absent"),
                None => "any value",
            };
            let values: Vec<&str> = possible.map(value).take(SHOWN).collect();
            lines.push(format!("{} = {}", history.cell_text(*cell), values.join(" or ")));
        }
    }
    Some(lines.join(", "))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("linearizable"),
            Self::Invalid(counterexample) => f.write_str(&counterexample.text),
            Self::Undecided(undecided) => write!(f, "not decided: {undecided}"),
        }
    }
}
