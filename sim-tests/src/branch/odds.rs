//! How likely a failure was along a run, and what decided it.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;

use super::{Point, after, try_at};
use crate::case::Case;
use crate::run::{Keep, Report, run_case};
use crate::shrink::{Failure, Sound};
use crate::world::{Happening, LogEntry};

/// Things that happened in a stretch that is short enough to be read.
const SHORT: usize = 24;

/// Times that the stretch of the steepest rise is cut in two.
const CUTS_MAX: u32 = 16;

/// How much to try.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Continuations of each moment.
    pub branches: u64,
    /// Moments before the search for the steepest rise.
    pub points: u32,
    /// Runs at the same time.
    pub jobs: usize,
}

/// How likely a failure was along a run.
#[derive(Debug)]
pub struct Odds {
    /// The failure.
    pub failure: Failure,
    /// When it came by what the checker says, since the world began.
    pub failed_at: Duration,
    /// The moments that were tried, in their order.
    pub points: Vec<Point>,
    /// Where the odds rise the most.
    pub decisive: Decisive,
    /// The run, with its log.
    pub report: Report,
}

/// A short stretch of a run after which it fails much more often than before.
#[derive(Debug)]
pub struct Decisive {
    /// Its begin.
    pub from: Point,
    /// Its end.
    pub till: Point,
    /// What happened in it, one line each.
    pub events: Vec<String>,
}

/// Measures how likely the failure of a case was at moments all along it, and narrows the steepest
/// rise down.
///
/// # Errors
/// The case breaks no promise.
pub fn odds(case: &Case, effort: Effort, bar: &ProgressBar) -> Result<Odds, Sound> {
    let report = run_case(case, Keep { log: true, ..Keep::default() });
    let violation = report.violation.as_ref().ok_or(Sound)?;
    let failure = Failure::of(violation);
    let failed_at = Duration::from_nanos(violation.at).min(report.simulated);
    let try_here =
        |at| try_at(case, Some(&failure), at, effort.branches, effort.jobs, || bar.inc(1));
    let step = failed_at / effort.points.max(1);
    let mut points: Vec<Point> = (0..effort.points).map(|at| try_here(step * at)).collect();
    // What a checker calls the time of a failure need not be when it was decided.
    if failed_at < report.simulated {
        points.push(try_here(failed_at));
    }
    // At its end the run has failed: nothing is left to be drawn.
    let branches = effort.branches;
    let failed = Point {
        at: report.simulated,
        branches,
        failed: branches,
        failed_otherwise: 0,
        first_failed: Some(0),
    };
    points.push(failed);
    for _ in 0..CUTS_MAX {
        let steepest = steepest(&points);
        let [from, till] = points.get(steepest..steepest + 2).unwrap_or_default() else { break };
        let between = stretch(&report.log, from.at, till.at);
        if between.len() <= SHORT {
            break;
        }
        let Some(middle) = between.get(between.len() / 2).map(after) else { break };
        if middle <= from.at || middle >= till.at {
            break;
        }
        points.insert(steepest + 1, try_here(middle));
    }
    let steepest = steepest(&points);
    let end = points.get(steepest + 1).copied().unwrap_or(failed);
    let from = points.get(steepest).copied().unwrap_or(end);
    let events = stretch(&report.log, from.at, end.at).iter().map(LogEntry::line).collect();
    let decisive = Decisive { from, till: end, events };
    Ok(Odds { failure, failed_at, points, decisive, report })
}

/// Returns the position of the point after which the odds rise the most.
fn steepest(points: &[Point]) -> usize {
    let rises = points.windows(2).map(|pair| match pair {
        [before, after] => after.failed.saturating_sub(before.failed),
        _ => 0,
    });
    // Of equal ones the last: nearest to the failure.
    rises.enumerate().max_by_key(|(at, rise)| (*rise, *at)).map_or(0, |(at, _)| at)
}

/// Returns what happened from one moment to another, without how files grew.
fn stretch(log: &[LogEntry], from: Duration, till: Duration) -> Vec<LogEntry> {
    let is_in = |entry: &&LogEntry| {
        let at = Duration::from_nanos(entry.at);
        from <= at && at < till
    };
    let is_told = |entry: &&LogEntry| match &entry.what {
        Happening::Event { .. } | Happening::Sent { .. } | Happening::Probe(_) => true,
        Happening::Status(_)
        | Happening::File { .. }
        | Happening::Directory { .. }
        | Happening::Gone { .. } => false,
    };
    log.iter().filter(is_in).filter(is_told).cloned().collect()
}

impl Odds {
    /// Returns them for people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} at {:.6} s\n\n  from then on drawn anew   fails so\n",
            self.failure,
            self.failed_at.as_secs_f64()
        );
        for point in &self.points {
            let percent = point.percent();
            let bar = "█".repeat(usize::try_from(percent / 4).unwrap_or(0));
            // Writing to a string cannot fail.
            _ = write!(text, "  {:>16.6} s   {percent:>10} %  {bar}", point.at.as_secs_f64());
            if point.failed_otherwise > 0 {
                _ = write!(text, " ({} otherwise)", point.failed_otherwise);
            }
            text.push('\n');
        }
        let Decisive { from, till, events } = &self.decisive;
        _ = writeln!(
            text,
            "\nthe steepest rise, from {} % to {} % of {} continuations, is from {:.6} s to \
             {:.6} s:",
            from.percent(),
            till.percent(),
            till.branches,
            from.at.as_secs_f64(),
            till.at.as_secs_f64(),
        );
        for event in events.iter().take(SHORT) {
            _ = writeln!(text, "{event}");
        }
        if events.len() > SHORT {
            _ = writeln!(text, "and {} more", events.len() - SHORT);
        }
        text
    }

    /// Returns them for programs.
    pub fn to_json(&self) -> String {
        let Decisive { from, till, events } = &self.decisive;
        json!({
            "failure": self.failure.to_string(), "failed_at_s": self.failed_at.as_secs_f64(),
            "points": self.points.iter().map(Point::json).collect::<Vec<_>>(),
            "decisive": { "from": from.json(), "till": till.json(), "events": events },
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: u64, failed: u64) -> Point {
        let at = Duration::from_millis(at);
        Point { at, branches: 10, failed, failed_otherwise: 0, first_failed: None }
    }

    #[test]
    fn steepest_rise_is_the_last_of_equal_ones() {
        let points = [point(0, 1), point(1, 4), point(2, 3), point(3, 6), point(4, 10)];
        assert_eq!(steepest(&points), 3);
        let points = [point(0, 1), point(1, 4), point(2, 3), point(3, 6), point(4, 7)];
        assert_eq!(steepest(&points), 2);
        assert_eq!(steepest(&points[..1]), 0);
    }
}
