//! Exactly once: what a client was told of a write is what the state machines did with it.
//!
//! **Property.** A write that was acknowledged took effect at one index of the log. A write that
//! failed for certain, or whose condition was refused, took effect nowhere. One whose outcome is
//! unknown took effect at one index at most. Each value is written by one operation alone, so an
//! operation is recognised by the values in its batch, however often and under whatever session
//! and number it was sent.
//!
//! **Why the obvious check is wrong.** The clients' checkers see a write that must not be there if
//! somebody reads it before it is overwritten, and most are overwritten soon; that it was there
//! twice they can hardly see at all. [`session_order`](super::session_order) sees the second effect
//! of the same number, and not that of a write which the client numbered anew. Looking for a value
//! in the log is wrong as well: a retry is an entry of its own and carries the value again, and a
//! condition that does not hold any more stands in the log, too. What counts is an entry of which a
//! state machine says that it was applied *there*.
//!
//! **What is skipped.** Where an effect lies in real time, and what the answers contain:
//! [`linearizable`](super::linearizable) asks that. Deletes, which carry no value. Whether all
//! values of a batch took effect together: they are in one entry. Runs in which somebody has lost
//! more than can be mended and cannot know it.
//!
//! [`replay`](super::replay) demands more of the same evidence, session by session and answer by
//! answer, where somebody has collected all of it.

use std::collections::{BTreeMap, BTreeSet};

use mangrove::base::Index;
use mangrove::codec;
use mangrove::kv::{Command, CommandReply, Mutation};
use mangrove::raft::{Entry, EntryKind};

use super::{Violation, broken};
use crate::history::{Call, History, Operation, Outcome, ValueId, name_of};

/// Remembers where values took effect, on any node.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// Entries that are known already: every node applies them, some more than once.
    known: BTreeSet<Index>,
    /// Where each value did, and when that was seen first.
    by_value: BTreeMap<String, BTreeMap<Index, u64>>,
}

impl Effects {
    /// Takes note that a state machine has applied an entry and given this answer, at a time.
    pub fn observe(&mut self, at: u64, entry: &Entry, reply: Option<&CommandReply>) {
        let Some(CommandReply::Applied(version)) = reply else { return };
        // A retry is answered with the version that it got the first time.
        if version.0 != entry.index || self.known.contains(&entry.index) {
            return;
        }
        let EntryKind::Command(command) = &entry.kind else { return };
        let Ok(Command::Write { batch, .. }) = codec::decode(command.as_bytes()) else { return };
        self.known.insert(entry.index);
        for mutation in &batch.mutations {
            // What is not whole is not what the client wrote.
            if let Mutation::Set { value, .. } = mutation
                && let Some(name) = name_of(value.as_bytes())
            {
                self.note(name, entry.index, at);
            }
        }
    }

    pub(super) fn note(&mut self, name: &str, index: Index, at: u64) {
        self.by_value.entry(name.to_owned()).or_default().entry(index).or_insert(at);
    }

    /// Returns where the value of that name took effect.
    pub(super) fn of(&self, name: &str) -> Vec<Index> {
        self.by_value.get(name).into_iter().flat_map(BTreeMap::keys).copied().collect()
    }

    /// Returns when the value of that name was last seen to take effect; 0 if it never was.
    fn last_at(&self, name: &str) -> u64 {
        self.by_value.get(name).into_iter().flat_map(BTreeMap::values).copied().max().unwrap_or(0)
    }
}

/// Compares what clients were told with what took effect.
pub fn check(history: &History, effects: &Effects) -> Result<(), Violation> {
    for operation in history.ops() {
        for value in values(&operation.call) {
            if let Some(name) = history.value_text(value)
                && let Some(what) = flaw(&operation.outcome, &effects.of(name))
            {
                let process = operation.process.0;
                let what = format!("the write of {name} by process {process} {what}");
                // Before both, the failure may still be undecided.
                let at = end_of(history, operation).max(effects.last_at(name));
                return broken("exactly_once", at, what);
            }
        }
    }
    Ok(())
}

/// Says what is wrong, if anything is, with a write that ended so and took effect there.
fn flaw(outcome: &Outcome, places: &[Index]) -> Option<String> {
    let told = match outcome {
        Outcome::Open | Outcome::Info => None,
        Outcome::Fail => Some((false, "failed for certain")),
        Outcome::Ok(answer) if answer.is_refusal() => Some((false, "was refused")),
        Outcome::Ok(_) => Some((true, "was acknowledged")),
    };
    match (told, places) {
        (_, [first, second, ..]) => Some(format!("took effect at {first} and again at {second}")),
        (Some((false, told)), [index]) => Some(format!("{told}, but took effect at {index}")),
        (Some((true, told)), []) => Some(format!("{told}, but took effect nowhere")),
        (Some((true, _)) | None, [_]) | (Some((false, _)) | None, []) => None,
    }
}

/// Returns the values that a call writes.
pub(super) fn values(call: &Call) -> Vec<ValueId> {
    let mut values = match call {
        Call::Set { value, .. } => vec![*value],
        Call::Cas { new, .. } => vec![*new],
        Call::Bulk(bulk) => bulk.cells.iter().map(|(_, value)| *value).collect(),
        Call::Get { .. }
        | Call::Delete { .. }
        | Call::MultiGet(_)
        | Call::DeleteRow { .. }
        | Call::Slice(_)
        | Call::Keys(_)
        | Call::Scan(_) => Vec::new(),
    };
    values.retain(|value| *value != ValueId::ABSENT);
    values
}

/// Returns when an operation ended, or began if it did not end.
pub(super) fn end_of(history: &History, operation: &Operation) -> u64 {
    let position = operation.ended.unwrap_or(operation.invoked);
    let position = usize::try_from(position).unwrap_or(usize::MAX);
    history.events().get(position).map_or(0, |event| event.time_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Bulk, Expected};
    use mangrove::base::{Column, Key, Payload, RequestSeq, SessionId, Value};
    use mangrove::kv::{Batch, Version};

    /// How an operation ends in a test.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum End {
        Open,
        Unknown,
        Failed,
        Done,
        Refused,
        Applied,
    }

    /// Judges one operation whose first value took effect at these indexes.
    fn verdict(end: End, places: &[Index]) -> Option<&'static str> {
        let mut history = History::new();
        let (cell, process) = (history.cell("k", ""), history.new_process());
        let (value, _) = history.written_value("c1.2", 20);
        let call = match end {
            End::Refused | End::Applied => Call::Cas { cell, old: ValueId::ABSENT, new: value },
            End::Open | End::Unknown | End::Failed | End::Done => Call::Set { cell, value },
        };
        let op = history.invoke(process, call, 7);
        match end {
            End::Open => {}
            End::Unknown => {
                history.info(op, 9);
            }
            End::Failed => history.fail(op, 9),
            End::Done => history.ok(op, Answer::Done, 9),
            End::Refused | End::Applied => {
                let answer = Answer::Tried { applied: end == End::Applied, current: None };
                history.ok(op, answer, 9);
            }
        }
        let mut effects = Effects::default();
        effects.note("c1.1", 3, 3);
        for index in places {
            effects.note("c1.2", *index, 3);
        }
        check(&history, &effects).err().map(|violation| {
            assert_eq!(violation.at, if end == End::Open { 7 } else { 9 });
            violation.checker
        })
    }

    #[test]
    fn only_what_was_acknowledged_took_effect_and_once() {
        let wrong = Some("exactly_once");
        for (end, nowhere, once) in [
            (End::Open, None, None),
            (End::Unknown, None, None),
            (End::Failed, None, wrong),
            (End::Refused, None, wrong),
            (End::Done, wrong, None),
            (End::Applied, wrong, None),
        ] {
            assert_eq!(verdict(end, &[]), nowhere, "{end:?}, nowhere");
            assert_eq!(verdict(end, &[5]), once, "{end:?}, once");
            assert_eq!(verdict(end, &[5, 5]), once, "{end:?}, once on two nodes");
            assert_eq!(verdict(end, &[5, 6]), wrong, "{end:?}, twice");
        }
    }

    #[test]
    fn failure_is_as_late_as_the_answer_and_the_last_effect() {
        let mut history = History::new();
        let (cell, process) = (history.cell("k", ""), history.new_process());
        let (value, _) = history.written_value("c1.2", 20);
        let op = history.invoke(process, Call::Set { cell, value }, 7);
        history.ok(op, Answer::Done, 9);
        for (second, at) in [(8, 9), (30, 30)] {
            let mut effects = Effects::default();
            effects.note("c1.2", 5, 6);
            effects.note("c1.2", 6, second);
            // Another node carries it out later.
            effects.note("c1.2", 5, 40);
            assert_eq!(check(&history, &effects).map_err(|found| found.at), Err(at));
        }
    }

    #[test]
    fn every_value_of_a_batch_counts() {
        let mut history = History::new();
        let process = history.new_process();
        let mut bulk =
            Bulk { cells: vec![(history.cell("d", ""), ValueId::ABSENT)], ..Bulk::default() };
        for name in ["c1.2+1", "c1.2+2"] {
            let (value, _) = history.written_value(name, 20);
            bulk.cells.push((history.cell("k", ""), value));
        }
        let op = history.invoke(process, Call::Bulk(Box::new(bulk)), 1);
        history.ok(op, Answer::Done, 2);
        let mut effects = Effects::default();
        effects.note("c1.2+1", 4, 3);
        assert!(check(&history, &effects).is_err(), "one is missing");
        effects.note("c1.2+2", 4, 3);
        assert_eq!(check(&history, &effects), Ok(()));
    }

    #[test]
    fn refused_bulk_that_took_effect_is_caught() {
        let mut history = History::new();
        let (cell, process) = (history.cell("k", ""), history.new_process());
        let (value, _) = history.written_value("c1.2+1", 20);
        let conditions = vec![(history.cell("l", ""), Expected::Present)];
        let bulk = Bulk { conditions, cells: vec![(cell, value)], ..Bulk::default() };
        let op = history.invoke(process, Call::Bulk(Box::new(bulk)), 1);
        let refused = Answer::Refused { cell: history.cell("l", ""), current: ValueId::ABSENT };
        history.ok(op, refused, 2);
        let mut effects = Effects::default();
        assert_eq!(check(&history, &effects), Ok(()));
        effects.note("c1.2+1", 4, 3);
        assert!(check(&history, &effects).is_err());
    }

    /// Makes an entry that writes these bytes.
    fn entry(index: Index, seq: u64, value: &str) -> Entry {
        let (key, value) = (Key::new("k").unwrap(), Value::new(value.to_owned()).unwrap());
        let command = Command::Write {
            session: SessionId(1),
            seq: RequestSeq(seq),
            acked_below: RequestSeq(0),
            batch: Batch::new().set(key, Column::default(), value),
        };
        let command = Payload::new(codec::encode(&command)).unwrap();
        Entry { term: 1, index, kind: EntryKind::Command(command) }
    }

    #[test]
    fn effect_is_where_the_state_machine_says() {
        let (_, bytes) = History::new().written_value("c1.2", 20);
        let applied = |index| CommandReply::Applied(Version(index));
        let mut effects = Effects::default();
        // On two nodes; then a retry, and a condition that does not hold.
        effects.observe(3, &entry(5, 1, &bytes), Some(&applied(5)));
        effects.observe(3, &entry(5, 1, &bytes), Some(&applied(5)));
        effects.observe(3, &entry(6, 1, &bytes), Some(&applied(5)));
        let refused = CommandReply::ConditionFailed { position: 0, current: None };
        effects.observe(3, &entry(7, 2, &bytes), Some(&refused));
        effects.observe(3, &Entry { term: 1, index: 8, kind: EntryKind::Noop }, None);
        assert_eq!(effects.of("c1.2"), [5]);
        // What was numbered anew has an effect of its own.
        effects.observe(3, &entry(9, 3, &bytes), Some(&applied(9)));
        assert_eq!(effects.of("c1.2"), [5, 9]);
        effects.observe(3, &entry(10, 4, &format!("{bytes}?")), Some(&applied(10)));
        assert_eq!(effects.of("c1.2"), [5, 9], "that is another value");
    }
}
