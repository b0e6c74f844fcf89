//! Many continuations of one run: where it went wrong, and what rare moments may lead to.
//!
//! A run is replayed up to a moment, and from there on everything is drawn anew
//! ([`Reseed`]): fates, turns of tasks, and the faults and operations that the seed draws. Those
//! that a case lists stay. One moment has as many continuations as there are numbers.
//!
//! Two questions are asked in this way:
//! - *When was it decided?* [`odds`] asks at moments all along a failing run how many of their
//!   continuations fail in the same way. Before what decided it that is as rare as ever, after it
//!   nearly certain; the steepest rise is narrowed down to a handful of events.
//! - *What does a rare moment lead to?* [`explore`] takes the rare paths that only few seeds reach
//!   and continues from there many times, so that what lies behind them is tried more often than
//!   fresh seeds would.
//!
//! # Left out
//! A process that runs at the moment goes on with its own stream (election time-outs), so a
//! continuation is near the run for a few milliseconds: what differs first is when things arrive.
//!
//! # Sources
//! Restarting a simulation from a prefix: the "multiverse" of Antithesis, and importance splitting
//! in rare-event simulation (Kahn & Harris 1951).

mod explore;
mod odds;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use self::explore::{
    Exploration, Explored, Found, explore, to_json as explored_to_json,
    to_table as explored_to_table,
};
pub use self::odds::{Decisive, Effort, Odds, odds};
use serde_json::{Value as Json, json};

use crate::case::Case;
use crate::parallel;
use crate::run::{Keep, Report, run_case};
use crate::shrink::Failure;
use crate::world::{Happening, LogEntry, Reseed};

/// A moment of a run, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// Right after an event of the trace, by its number from 0.
    Event(usize),
    /// After everything that the trace says happened until this time, in microseconds.
    Micros(u64),
    /// Right after a rare path was taken for the first time.
    Probe(String),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "{text:?} is no moment: the number of a line of the trace (1234), a time as in the \
                 trace (12.345678), or the first time of a rare path \
                 (probe:raft.truncates_conflict)"
            )
        };
        if let Some(name) = text.strip_prefix("probe:") {
            return Ok(Self::Probe(name.to_owned()));
        }
        let Some((seconds, fraction)) = text.split_once('.') else {
            return text.parse().ok().map(Self::Event).ok_or_else(unknown);
        };
        let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
        let (seconds, micros) = (seconds.parse::<u64>(), micros.parse::<u64>());
        match (seconds, micros) {
            (Ok(seconds), Ok(micros)) => {
                Ok(Self::Micros(seconds.saturating_mul(1_000_000).saturating_add(micros)))
            }
            (Err(_), _) | (_, Err(_)) => Err(unknown()),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(number) => write!(f, "event {number}"),
            Self::Micros(at) => write!(f, "{}.{:06}", at / 1_000_000, at % 1_000_000),
            Self::Probe(name) => write!(f, "probe:{name}"),
        }
    }
}

impl Moment {
    /// Returns the time right after it in a run that was logged; `None` if the run has no such
    /// moment.
    pub fn locate(&self, report: &Report) -> Option<Duration> {
        let mut log = report.log.iter();
        let found = match self {
            Self::Event(number) => log.filter(|entry| is_event(entry)).nth(*number),
            // Not after the end of the run.
            Self::Micros(micros) => {
                let is_within = report.log.last().is_some_and(|last| last.at / 1_000 >= *micros);
                log.rev().find(|entry| is_within && entry.at / 1_000 <= *micros)
            }
            Self::Probe(name) => {
                log.find(|entry| matches!(entry.what, Happening::Probe(taken) if taken == name))
            }
        };
        found.map(after)
    }
}

fn is_event(entry: &LogEntry) -> bool {
    matches!(entry.what, Happening::Event { .. })
}

/// Returns the time right after something happened.
fn after(entry: &LogEntry) -> Duration {
    Duration::from_nanos(entry.at + 1)
}

/// How the continuations of one moment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The moment.
    pub at: Duration,
    /// Continuations.
    pub branches: u64,
    /// Those that failed in the way that is asked for.
    pub failed: u64,
    /// Those that failed in another way.
    pub failed_otherwise: u64,
    /// The first that failed in the way that is asked for.
    pub first_failed: Option<u64>,
}

impl Point {
    /// Returns the share of the continuations that failed as asked for, in per cent.
    pub fn percent(&self) -> u64 {
        self.failed * 100 / self.branches.max(1)
    }

    fn json(&self) -> Json {
        json!({
            "at_s": self.at.as_secs_f64(), "branches": self.branches, "failed": self.failed,
            "failed_otherwise": self.failed_otherwise, "first_failed": self.first_failed,
        })
    }

    /// Returns it for programs.
    pub fn to_json(&self) -> String {
        self.json().to_string()
    }
}

/// Returns the case that is continued from a moment in one of many ways.
pub fn branch(case: &Case, at: Duration, number: u64) -> Case {
    Case { reseed: Some(Reseed { at, number }), expected: None, ..case.clone() }
}

/// Continues a case from a moment in so many ways; a failure counts if it is that one, or any if
/// none is asked for.
pub fn try_at(
    case: &Case,
    failure: Option<&Failure>,
    at: Duration,
    branches: u64,
    jobs: usize,
    progress: impl Fn() + Sync,
) -> Point {
    let numbers: Vec<u64> = (0..branches).collect();
    let work = |number: &u64| {
        let report = run_case(&branch(case, at, *number), Keep::default());
        report.violation.as_ref().map(Failure::of)
    };
    let failures = parallel::map(&numbers, jobs, work, |_| progress());
    let mut point = Point { at, branches, failed: 0, failed_otherwise: 0, first_failed: None };
    for (number, found) in (0..).zip(failures) {
        let Some(found) = found else { continue };
        if failure.is_none_or(|wanted| *wanted == found) {
            point.failed += 1;
            point.first_failed = point.first_failed.or(Some(number));
        } else {
            point.failed_otherwise += 1;
        }
    }
    point
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Plan;

    #[test]
    fn moments_are_read_as_the_trace_shows_them() {
        let moment = |text: &str| text.parse::<Moment>();
        assert_eq!(moment("1234"), Ok(Moment::Event(1234)));
        assert_eq!(moment("12.345678"), Ok(Moment::Micros(12_345_678)));
        assert_eq!(moment("0.5"), Ok(Moment::Micros(500_000)));
        assert_eq!(moment("probe:a.b"), Ok(Moment::Probe("a.b".to_owned())));
        assert_eq!(moment("12.345678").unwrap().to_string(), "12.345678");
        assert_eq!(moment("18446744073709551615.9"), Ok(Moment::Micros(u64::MAX)));
        for text in ["", "f12", "1.x", "-1.5", "1.2.3"] {
            assert!(moment(text).is_err(), "{text:?}");
        }
    }

    /// What happened before is the same to the last event, and what comes after is not.
    #[test]
    fn continuation_shares_its_past_with_the_run() {
        for mode in [crate::options::Mode::PrimaryBackup, crate::options::Mode::Masterless] {
            let case = Case::drawn(Plan { mode, ..Plan::default() }.draw(7));
            let logged = Keep { log: true, ..Keep::default() };
            let run = run_case(&case, logged);
            let events = run.log.iter().filter(|entry| is_event(entry)).count();
            let at = Moment::Event(events / 3).locate(&run).unwrap();
            let end = run.log.last().map_or(0, |last| last.at / 1_000);
            assert!(Moment::Micros(end).locate(&run).is_some(), "{mode:?}: the end is in it");
            assert_eq!(
                Moment::Micros(end + 1).locate(&run),
                None,
                "{mode:?}: what is after is not"
            );
            let past = |report: &Report| {
                let nanos = u64::try_from(at.as_nanos()).unwrap();
                report.log.iter().filter(|entry| entry.at < nanos).cloned().collect::<Vec<_>>()
            };
            let [one, other] = [1, 2].map(|number| run_case(&branch(&case, at, number), logged));
            assert!(past(&run).len() > 100, "{mode:?}: there is a past");
            assert_eq!(past(&run), past(&one), "{mode:?}");
            assert_eq!(past(&run), past(&other), "{mode:?}");
            assert_ne!(run.hash, one.hash, "{mode:?}");
            assert_ne!(one.hash, other.hash, "{mode:?}");
            assert_ne!(run.struck, one.struck, "{mode:?}: other faults");
            // Written down, it is that continuation again.
            let written = branch(&case, at, 1).written(&one);
            let again = Case::from_json(&written.to_json()).unwrap();
            assert_eq!(run_case(&again, Keep::default()).hash, one.hash, "{mode:?}");
        }
    }
}
