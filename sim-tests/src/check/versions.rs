//! Versions: what a client is told of a cell's version is the index of the write that made it.
//!
//! **Property.** A value that a read shows has the version of the entry of the log by which it took
//! effect, and so has the value that a failed condition names. The answer to an acknowledged write
//! tells the same. A client relies on it: a condition may ask for the version that was read.
//!
//! **Why the obvious check is wrong.** "Versions of a cell never go back" holds of zeros, too, and
//! of the index of some other write. That an acknowledged version is committed somewhere says
//! nothing of *what* is committed there. Values are unique, so the one index at which a value took
//! effect is known, and no other will do; of a retry it is that of the first try.
//!
//! **What is skipped.** Deletes, which carry no value, so that nobody knows where they took effect;
//! what the value is, which the checkers of clients ask. The masterless mode, whose versions are
//! stamps: [`origin`](super::masterless::origin).

use std::collections::BTreeMap;

use mangrove::base::Index;

use super::client::reads;
use super::exactly_once::{Effects, end_of, values};
use super::{Violation, broken};
use crate::history::{CellId, History, OpId, Operation, Outcome, ValueId};

/// What the answer to one operation told of versions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Of a write that was acknowledged: its version.
    pub written: Option<Index>,
    /// The version of each value that was shown.
    pub found: BTreeMap<CellId, Index>,
}

/// Compares the versions that clients were told with where the values took effect.
pub fn check(
    history: &History,
    told: &BTreeMap<OpId, Told>,
    effects: &Effects,
) -> Result<(), Violation> {
    for (id, operation) in (0..).map(OpId).zip(history.ops()) {
        let Some(told) = told.get(&id) else { continue };
        if let Some((value, version)) = wrong(history, operation, told, effects) {
            let name = history.value_text(value).unwrap_or_default();
            let version = version.map_or("no version".to_owned(), |told| format!("version {told}"));
            let what = format!(
                "{} told of {name} {version}, which took effect at {:?}",
                history.describe(id),
                effects.of(name)
            );
            return broken("versions", end_of(history, operation), what);
        }
    }
    Ok(())
}

/// Returns a value of which another version was told than where it took effect, and that version.
fn wrong(
    history: &History,
    operation: &Operation,
    told: &Told,
    effects: &Effects,
) -> Option<(ValueId, Option<Index>)> {
    let Outcome::Ok(answer) = &operation.outcome else { return None };
    let shown = reads(history, &operation.call, answer).into_iter();
    // Of a condition that held, the value is known and no version was told.
    let shown = shown.filter_map(|(cell, value)| Some((value, Some(*told.found.get(&cell)?))));
    let written = values(&operation.call).into_iter().filter(|_| !answer.is_refusal());
    let written = written.map(|value| (value, told.written));
    let is_wrong = |(value, version): &(ValueId, Option<Index>)| {
        let name = history.value_text(*value);
        name.is_some_and(|name| effects.of(name) != version.as_slice())
    };
    shown.chain(written).find(is_wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Bulk, Call};

    /// A history of one process, and what it was told.
    #[derive(Default)]
    struct Script {
        history: History,
        told: BTreeMap<OpId, Told>,
        effects: Effects,
    }

    impl Script {
        fn ask(&mut self, call: Call, answer: Answer, told: Told) {
            let process = self.history.new_process();
            let op = self.history.invoke(process, call, 1);
            self.history.ok(op, answer, 2);
            self.told.insert(op, told);
        }

        /// Begins with a value that took effect at 5, and of which that was told.
        fn new() -> (Self, CellId, ValueId) {
            let mut script = Self::default();
            let cell = script.history.cell("k", "");
            let (value, _) = script.history.written_value("c1.2", 20);
            script.ask(Call::Set { cell, value }, Answer::Done, written(5));
            script.effects.note("c1.2", 5, 3);
            (script, cell, value)
        }

        fn verdict(&self) -> Option<&'static str> {
            let verdict = check(&self.history, &self.told, &self.effects);
            verdict.err().map(|violation| violation.checker)
        }
    }

    fn written(version: Index) -> Told {
        Told { written: Some(version), ..Told::default() }
    }

    fn found(cell: CellId, version: Index) -> Told {
        Told { found: BTreeMap::from([(cell, version)]), ..Told::default() }
    }

    const WRONG: Option<&str> = Some("versions");

    #[test]
    fn version_that_is_read_is_where_the_value_took_effect() {
        for (version, verdict) in [(5, None), (0, WRONG), (4, WRONG), (6, WRONG)] {
            let (mut script, cell, value) = Script::new();
            script.ask(Call::Get { cell }, Answer::Value(value), found(cell, version));
            assert_eq!(script.verdict(), verdict, "get, {version}");
            let (mut script, cell, value) = Script::new();
            let page = Answer::Page { cells: [(cell, value)].into(), next: None };
            script.ask(Call::Scan(Box::default()), page, found(cell, version));
            assert_eq!(script.verdict(), verdict, "scan, {version}");
            let (mut script, cell, value) = Script::new();
            let call = Call::Cas { cell, old: ValueId::ABSENT, new: ValueId::ABSENT };
            let refused = Answer::Tried { applied: false, current: Some(value) };
            script.ask(call, refused, found(cell, version));
            assert_eq!(script.verdict(), verdict, "refused, {version}");
        }
    }

    #[test]
    fn version_that_a_write_was_told_is_its_own() {
        for (version, verdict) in [(7, None), (5, WRONG), (8, WRONG)] {
            let (mut script, cell, old) = Script::new();
            let (new, _) = script.history.written_value("c1.3", 20);
            script.effects.note("c1.3", 7, 3);
            let applied = Answer::Tried { applied: true, current: None };
            script.ask(Call::Cas { cell, old, new }, applied, written(version));
            assert_eq!(script.verdict(), verdict, "{version}");
        }
        let (mut script, cell, value) = Script::new();
        script.ask(Call::Set { cell, value }, Answer::Done, Told::default());
        assert_eq!(script.verdict(), WRONG, "it was told none");
    }

    #[test]
    fn every_value_of_a_batch_has_the_version_of_the_batch() {
        for (second, verdict) in [(6, None), (7, WRONG)] {
            let (mut script, cell, _) = Script::new();
            let mut bulk = Bulk { cells: vec![(cell, ValueId::ABSENT)], ..Bulk::default() };
            for (name, index) in [("c1.3+1", 6), ("c1.3+2", second)] {
                let (value, _) = script.history.written_value(name, 20);
                bulk.cells.push((cell, value));
                script.effects.note(name, index, 3);
            }
            script.ask(Call::Bulk(Box::new(bulk)), Answer::Done, written(6));
            assert_eq!(script.verdict(), verdict);
        }
    }

    #[test]
    fn what_tells_no_version_is_none_of_it() {
        let (mut script, cell, _) = Script::new();
        script.ask(Call::Delete { cell }, Answer::Done, written(9));
        script.ask(Call::Get { cell }, Answer::Value(ValueId::ABSENT), Told::default());
        let process = script.history.new_process();
        let (value, _) = script.history.written_value("c1.4", 20);
        let op = script.history.invoke(process, Call::Set { cell, value }, 3);
        script.history.info(op, 4);
        script.effects.note("c1.4", 11, 3);
        assert_eq!(script.verdict(), None);
    }
}
