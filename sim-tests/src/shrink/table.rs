//! How small failures become: a table over failures of different planted bugs.

use std::fmt::Write as _;

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;

use super::{Budget, shrink};
use crate::bugs::{self, Bug};
use crate::case::Case;
use crate::check::Violation;
use crate::options::{Mode, Options, Plan, Profile};
use crate::run::{Keep, run_case};
use crate::swarm::percentile;

/// Seeds among which a failure of a bug is looked for.
const SEEDS: u64 = 60;

/// Processor seconds after which a failure is small enough.
const CPU_SECONDS_MAX: f64 = 50.0;

/// One failure that was shrunk.
#[derive(Debug, Clone)]
pub struct Row {
    /// The planted bug.
    pub bug: Bug,
    /// The seed that showed it first.
    pub seed: u64,
    /// Who spoke.
    pub checker: &'static str,
    /// Decisions before.
    pub before: usize,
    /// Decisions that are left.
    pub after: usize,
    /// Runs that it took.
    pub runs: u64,
    /// Processor seconds that it took.
    pub cpu_seconds: f64,
    /// Whether the same checker speaks when what was written is read and run again.
    pub is_shown_again: bool,
    /// Whether it breaks no promise without the bug.
    pub holds_without: bool,
}

impl Row {
    /// Returns one line for people.
    pub fn to_line(&self) -> String {
        format!(
            "{:<5} seed {:>4}: {} of {} decisions left, {:.1} CPU s, {}",
            self.bug.code, self.seed, self.after, self.before, self.cpu_seconds, self.checker
        )
    }
}

/// Shrinks the first failure of one planted bug after the other, of both modes, until there are
/// so many; bugs that the first seeds do not show are passed over.
pub fn shrink_planted(failures: usize, jobs: usize, progress: impl Fn(&Row)) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut modes = [(Mode::PrimaryBackup, 0), (Mode::Masterless, 0)];
    while rows.len() < failures {
        let mut is_over = true;
        for (mode, next) in &mut modes {
            let Some(bug) = bugs::of(*mode).get(*next) else { continue };
            (*next, is_over) = (*next + 1, false);
            if let Some(row) = shrink_first(*bug, *mode, jobs).filter(|_| rows.len() < failures) {
                progress(&row);
                rows.push(row);
            }
        }
        if is_over {
            break;
        }
    }
    rows
}

/// Shrinks the first failure of a planted bug, if the first seeds show one.
pub fn shrink_first(bug: Bug, mode: Mode, jobs: usize) -> Option<Row> {
    let plan = Plan { mode, profile: Profile::Standard };
    let draw = |seed| Case::drawn(Options { planted: Some(bug.code), ..plan.draw(seed) });
    let fails = |seed: &u64| run_case(&draw(*seed), Keep::default()).violation.is_some();
    let seed = (1..=SEEDS).find(fails)?;
    let budget = Budget { jobs, runs_max: 4000, cpu_seconds_max: CPU_SECONDS_MAX };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    let shrunk = shrink(&draw(seed), budget, &bar).ok()?;
    let checker = |violation: &Violation| violation.checker;
    let spoke = shrunk.report.violation.as_ref().map(checker)?;
    let again = Case::from_json(&shrunk.case.to_json()).ok()?;
    let mut sound = again.clone();
    sound.options.planted = None;
    let again = run_case(&again, Keep::default());
    Some(Row {
        holds_without: run_case(&sound, Keep::default()).violation.is_none(),
        bug,
        seed,
        checker: spoke,
        before: shrunk.before,
        after: shrunk.after,
        runs: shrunk.runs,
        cpu_seconds: shrunk.cpu_seconds,
        is_shown_again: again.violation.as_ref().map(checker) == Some(spoke),
    })
}

/// Returns the rows for people.
pub fn rows_to_table(rows: &[Row]) -> String {
    let mut table = comfy_table::Table::new();
    // "again": what was written fails in the same way; "holds": not so without the bug.
    table.set_header([
        "bug",
        "seed",
        "checker",
        "decisions",
        "left",
        "runs",
        "CPU s",
        "again",
        "holds",
    ]);
    for row in rows {
        table.add_row([
            row.bug.code.to_owned(),
            row.seed.to_string(),
            row.checker.to_owned(),
            row.before.to_string(),
            row.after.to_string(),
            row.runs.to_string(),
            format!("{:.1}", row.cpu_seconds),
            (if row.is_shown_again { "yes" } else { "NO" }).to_owned(),
            (if row.holds_without { "yes" } else { "NO" }).to_owned(),
        ]);
    }
    let left: Vec<u64> = rows.iter().map(|row| u64::try_from(row.after).unwrap_or(0)).collect();
    let most = rows.iter().map(|row| row.cpu_seconds).fold(0.0, f64::max);
    let shown = rows.iter().filter(|row| row.is_shown_again).count();
    let mut text = table.to_string();
    // Writing to a string cannot fail.
    write!(
        text,
        "\n{} failures: median {} decisions left, at most {}; at most {most:.1} CPU s; {shown} of \
         them fail again by the same checker",
        rows.len(),
        percentile(&left, 50),
        percentile(&left, 100),
    )
    .ok();
    text
}

/// Returns the rows for programs.
pub fn rows_to_json(rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "bug": row.bug.code, "seed": row.seed, "checker": row.checker,
                "before": row.before, "after": row.after, "runs": row.runs,
                "cpu_seconds": row.cpu_seconds, "again": row.is_shown_again,
                "holds_without": row.holds_without,
            })
        })
        .collect();
    json!(rows).to_string()
}
