//! A run written down: every decision by its name, so that it can be kept, changed and shrunk.
//!
//! A seed means a run only as long as nobody changes how options, faults and operations are drawn
//! from it. A *case* lists them instead. It is kept in a *replay file*, which people can read and
//! edit, and it says what came of it, so that a later replay can name the first event that is
//! different.
//!
//! # Layout
//! JSON, one decision a line ([`file`]):
//!
//! | field | what it holds |
//! |---|---|
//! | `version` | 1 |
//! | `about` | a line for people |
//! | `mode`, `planted` | how the cluster replicates; the planted bug that is on |
//! | `seed` | where everything comes from that is not listed: fates, election time-outs |
//! | `profile` | if present, what is not listed is drawn from the seed as a swarm does |
//! | `options` | [settings] that differ from the plain ones, or from the drawn ones |
//! | `faults` | each with name, time and action; if absent, drawn |
//! | `operations` | each with name, time and request; if absent, drawn |
//! | `without` | names of drawn faults and operations that are left out |
//! | `timed` | if true, a client writes from the moment of healing on, as in `sim liveness` |
//! | `fates` | single segments and syncs that are decided, not drawn |
//! | `reseed` | if present, from when on all that is drawn is drawn anew |
//! | `expected` | what came of it: who spoke, the hash, the main events, a digest of each event |
//!
//! Times are in milliseconds, to the nanosecond. An unknown setting or version is an error; one
//! that there once was is ignored, and whoever reads the file is told.
//!
//! # Invariants
//! 1. The case that [`Case::written`] makes of a run is that run again: the same hash.
//! 2. A case is itself again after writing and reading.
//!
//! # Left out
//! What a node draws for itself: it comes from streams (see `world::fate`), so a case that leaves
//! something out is near the one that it came from, and not beside it in every nanosecond.

pub mod directed;
mod file;
mod serial;
pub mod settings;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::file::FileError;
pub(crate) use self::serial::{level, list_ms, ms};
use crate::nemesis::{self, Fault, FaultId};
use crate::operation::{Drawn, Operation, OperationId};
use crate::options::{FaultClasses, Options, Plan, Profile};
use crate::run::Report;
use crate::world::{Decided, LogEntry, Reseed};

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct Case {
    /// A line for people.
    pub about: String,
    /// Everything that is decided once for the whole run.
    pub options: Options,
    /// The faults, in the order of their times; `None` if they are drawn.
    pub faults: Option<Vec<Fault>>,
    /// The operations of all clients; `None` if they are drawn.
    pub operations: Option<Vec<Operation>>,
    /// Drawn faults that are left out.
    pub without_faults: BTreeSet<FaultId>,
    /// Drawn operations that are left out.
    pub without_operations: BTreeSet<OperationId>,
    /// Fates that are not drawn.
    pub decided: Vec<Decided>,
    /// From when on everything is drawn anew, if at all: what is listed stays.
    pub reseed: Option<Reseed>,
    /// Whether somebody writes from the moment of healing on, and is [timed](crate::liveness).
    pub is_timed: bool,
    /// What came of it when it was written down.
    pub expected: Option<Expected>,
    /// Settings of its file that there once were, and that say nothing any more.
    pub ignored: Vec<String>,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Who spoke, if anybody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checker: Option<String>,
    /// What was said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// Hash of everything that happened, in hexadecimal.
    pub hash: String,
    /// The main events, one line each.
    pub events: Vec<String>,
    /// Four hexadecimal digits for each event of the trace.
    pub digest: String,
}

/// Where a run left what was expected of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The number of the event in the trace, from 0.
    pub position: usize,
    /// What happened instead; `None` if the run was over.
    pub event: Option<String>,
    /// The last main event before it, if there was one.
    pub after: Option<String>,
    /// The main event that was expected next, if there was one.
    pub expected: Option<String>,
}

impl Case {
    /// Makes the case of a seed as a swarm runs it.
    pub fn drawn(options: Options) -> Self {
        Self {
            about: String::new(),
            options,
            faults: None,
            operations: None,
            without_faults: BTreeSet::new(),
            without_operations: BTreeSet::new(),
            decided: Vec::new(),
            reseed: None,
            is_timed: false,
            expected: None,
            ignored: Vec::new(),
        }
    }

    /// Makes a case with plain options in which nothing happens.
    pub fn plain(plan: Plan, seed: u64) -> Self {
        let options = settings::plain(plan.mode, seed);
        Self { faults: Some(Vec::new()), operations: Some(Vec::new()), ..Self::drawn(options) }
    }

    /// Returns the faults, in the order of their times.
    pub fn faults(&self) -> Vec<Fault> {
        if let Some(listed) = &self.faults {
            return listed.clone();
        }
        let mut drawn = nemesis::faults(&self.options, self.reseed);
        drawn.retain(|fault| !self.without_faults.contains(&fault.id));
        drawn
    }

    /// Returns the operations of a client until the faults are over, in the order of their times.
    pub fn operations_of(&self, client: u32) -> Vec<Operation> {
        match &self.operations {
            Some(listed) => {
                let own = listed.iter().filter(|operation| operation.id.client == client);
                own.cloned().collect()
            }
            None => Drawn::new(&self.options, client)
                .reseeded(self.reseed)
                .take_while(|operation| operation.at < self.options.fault_phase)
                .filter(|operation| !self.without_operations.contains(&operation.id))
                .collect(),
        }
    }

    /// Returns the case with everything listed that it came to in this run of it.
    #[must_use]
    pub fn written(&self, report: &Report) -> Self {
        let asked: BTreeSet<OperationId> = report.asked.iter().copied().collect();
        let clients = 1..=u32::try_from(self.options.client_count).unwrap_or(u32::MAX);
        let all = clients.flat_map(|client| self.operations_of(client));
        let operations = all.filter(|operation| asked.contains(&operation.id)).collect();
        Self {
            about: self.about.clone(),
            options: only_what_matters(&self.options),
            faults: Some(report.struck.clone()),
            operations: Some(operations),
            without_faults: BTreeSet::new(),
            without_operations: BTreeSet::new(),
            decided: self.decided.clone(),
            reseed: self.reseed,
            is_timed: self.is_timed,
            expected: Some(Expected::of(report)),
            ignored: Vec::new(),
        }
    }

    /// Returns how many decisions a reader must take in: faults, operations, settings that are
    /// not the plain ones, and decided fates.
    pub fn decision_count(&self) -> usize {
        let faults = self.faults.as_ref().map_or(0, Vec::len);
        let operations = self.operations.as_ref().map_or(0, Vec::len);
        let settings = settings::unlike_plain(&self.options).len();
        faults + operations + settings + self.decided.len()
    }
}

/// Makes plain what has no effect once faults and operations are listed.
fn only_what_matters(options: &Options) -> Options {
    let plain = settings::plain(options.mode(), options.seed);
    let mut kept = Options {
        profile: Profile::Standard,
        key_count: plain.key_count,
        think_time: plain.think_time,
        fault_pause: plain.fault_pause,
        mix: plain.mix,
        faults: FaultClasses { clock: options.faults.clock, ..FaultClasses::NONE },
        ..options.clone()
    };
    kept.tuning.value_bytes_max = plain.tuning.value_bytes_max;
    if let (Some(kept), Some(plain)) = (&mut kept.masterless, &plain.masterless) {
        kept.levels = plain.levels;
    }
    kept
}

/// Kinds of events that a person needs to know what a run was.
const MAIN_EVENTS: &[&str] = &[
    "nemesis",
    "quorum",
    "start",
    "crash",
    "power_off",
    "exit",
    "ended",
    "pause",
    "resume",
    "role",
];

impl Expected {
    /// Takes down what came of a run.
    pub fn of(report: &Report) -> Self {
        let main = report.log.iter().filter(|entry| is_main(entry));
        Self {
            checker: report.violation.as_ref().map(|violation| violation.checker.to_owned()),
            what: report.violation.as_ref().map_or(String::new(), |found| found.what.clone()),
            hash: hash_of(report),
            events: main.map(LogEntry::line).collect(),
            digest: report.log.iter().filter_map(LogEntry::digest).collect(),
        }
    }

    /// Tells in words whether a run is the one that was written down. Frequent events are in no
    /// digest, only in the hash: which bytes were read and written, and when.
    pub fn compared(&self, report: &Report) -> String {
        match self.divergence(report) {
            Some(divergence) => {
                format!("this is not the run that was written down: {divergence}")
            }
            None if self.hash == hash_of(report) => {
                "every event is as it was written down".to_owned()
            }
            None => "every event that is told is the same, but bytes that were read or written \
                     are not"
                .to_owned(),
        }
    }

    /// Returns the first event in which a run differs from this, if there is one.
    pub fn divergence(&self, report: &Report) -> Option<Divergence> {
        let events: Vec<&LogEntry> =
            report.log.iter().filter(|entry| entry.digest().is_some()).collect();
        let expected: Vec<&str> = pieces(&self.digest);
        let same = |position: &usize| {
            let digest = events.get(*position).and_then(|event| event.digest());
            digest.as_deref() == expected.get(*position).copied()
        };
        let position = (0..events.len().max(expected.len())).find(|at| !same(at))?;
        let main_before: Vec<String> = events
            .iter()
            .take(position)
            .filter(|event| is_main(event))
            .map(|event| event.line())
            .collect();
        Some(Divergence {
            position,
            event: events.get(position).map(|event| event.line()),
            after: main_before.last().cloned(),
            expected: self.events.get(main_before.len()).cloned(),
        })
    }
}

fn hash_of(report: &Report) -> String {
    format!("{:016x}", report.hash)
}

fn is_main(entry: &LogEntry) -> bool {
    entry.kind().is_some_and(|kind| MAIN_EVENTS.contains(&kind))
}

/// Cuts a digest into its events.
fn pieces(digest: &str) -> Vec<&str> {
    (0..digest.len() / 4).filter_map(|at| digest.get(at * 4..at * 4 + 4)).collect()
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the first event that differs is number {}", self.position)?;
        match &self.event {
            Some(event) => write!(f, ":\n  now      {event}")?,
            None => write!(f, ":\n  now      the run was over")?,
        }
        if let Some(after) = &self.after {
            write!(f, "\n  after    {after}")?;
        }
        match &self.expected {
            Some(expected) => write!(f, "\n  expected, as the next main event  {expected}"),
            None => Ok(()),
        }
    }
}

/// Returns the operations by their names.
pub fn by_name(operations: &[Operation]) -> BTreeMap<OperationId, &Operation> {
    operations.iter().map(|operation| (operation.id, operation)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_with_another_hash_is_not_the_one_that_was_written_down() {
        let report = |hash| Report { hash, ..Report::empty(1) };
        let expected = Expected::of(&report(7));
        assert_eq!(expected.compared(&report(7)), "every event is as it was written down");
        let other = expected.compared(&report(8));
        assert!(other.ends_with("but bytes that were read or written are not"), "{other}");
        let longer = Expected { digest: "0123".to_owned(), ..expected };
        let other = longer.compared(&report(7));
        assert!(other.contains("the first event that differs is number 0"), "{other}");
    }
}
