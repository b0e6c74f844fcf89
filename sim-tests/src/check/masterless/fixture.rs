//! Short histories for the tests of the checkers.

use std::collections::BTreeMap;

use mangrove::base::{NodeId, Stamp};
use mangrove::dynamo::Level;

use super::ledger::{Lead, Ledger, Loss, Setting, Unnoticed};
use crate::history::{Answer, Bulk, Call, CellId, History, OpId, Process, Session, Terms, ValueId};

/// Returns the stamp that a test means by a number: that millisecond, given by node 1.
pub(super) fn stamp(ms: u64) -> Stamp {
    Stamp::new(ms, 0, NodeId(1))
}

/// A loss of what one replica had alone, and until which event it is to be reckoned with.
pub(super) fn noticed(until: u32) -> Loss {
    Loss { noticed: Some(until), unnoticed: None }
}

/// A loss of which nobody knows, and at which event it was over. The replicas do not become equal.
pub(super) fn unnoticed(lost_at: u32) -> Loss {
    let loss = Unnoticed { node: NodeId(3), lost_at, equal_at: u32::MAX };
    Loss { noticed: None, unnoticed: Some(loss) }
}

/// Makes a history line by line. Three replicas.
pub(super) struct Script {
    pub(super) history: History,
    pub(super) setting: Setting,
    pub(super) is_bound: bool,
    time_ns: u64,
    session: Session,
    tokens: BTreeMap<Session, Stamp>,
}

impl Script {
    pub(super) fn new() -> Self {
        Self {
            history: History::new(),
            setting: Setting { replicas: 3, loss: Loss::default(), lead: Lead::ANY },
            is_bound: false,
            time_ns: 0,
            session: Session(0),
            tokens: BTreeMap::new(),
        }
    }

    pub(super) fn ledger(&self) -> Ledger<'_> {
        Ledger::new(&self.history, self.setting)
    }

    /// Returns the position of the next event.
    pub(super) fn event_count(&self) -> u32 {
        u32::try_from(self.history.events().len()).unwrap()
    }

    /// Says whose the next lines are.
    pub(super) fn session(&mut self, number: u32) -> &mut Self {
        self.session = Session(number);
        self
    }

    pub(super) fn forget_token(&mut self, number: u32) {
        self.tokens.remove(&Session(number));
    }

    pub(super) fn cell(&mut self, name: &str) -> CellId {
        self.history.cell_named(name)
    }

    fn tick(&mut self) -> u64 {
        self.time_ns += 1_000_000;
        self.time_ns
    }

    /// Begins an operation under a process of its own.
    pub(super) fn begin(&mut self, call: Call, level: Level) -> OpId {
        let process: Process = self.history.new_process();
        let now = self.tick();
        let op = self.history.invoke(process, call, now);
        let token = self.tokens.get(&self.session).copied().unwrap_or_default();
        let mut terms = Terms::asked(level, self.session, token);
        terms.is_bound = self.is_bound;
        self.history.set_terms(op, terms);
        op
    }

    fn met(&mut self, terms: &Terms) {
        let met = terms.stamp.max(Some(terms.seen)).unwrap_or_default();
        let token = self.tokens.entry(terms.session).or_default();
        *token = (*token).max(met);
    }

    pub(super) fn acknowledge(&mut self, op: OpId, at_ms: u64) {
        self.acknowledge_at(op, stamp(at_ms));
    }

    pub(super) fn acknowledge_at(&mut self, op: OpId, stamp: Stamp) {
        let mut terms = self.history.terms(op).unwrap().clone();
        terms.stamp = Some(stamp);
        self.met(&terms);
        self.history.set_terms(op, terms);
        let now = self.tick();
        self.history.ok(op, Answer::Done, now);
    }

    pub(super) fn write(&mut self, call: Call, level: Level, at_ms: u64) -> OpId {
        let op = self.begin(call, level);
        self.acknowledge(op, at_ms);
        op
    }

    pub(super) fn unknown(&mut self, call: Call) -> OpId {
        let op = self.begin(call, Level::Quorum);
        let now = self.tick();
        self.history.info(op, now);
        op
    }

    pub(super) fn set_call(&mut self, name: &str, value: &str) -> Call {
        let (cell, value) = (self.cell(name), self.history.value(value));
        Call::Set { cell, value }
    }

    pub(super) fn set(&mut self, name: &str, value: &str, level: Level, at_ms: u64) -> OpId {
        let call = self.set_call(name, value);
        self.write(call, level, at_ms)
    }

    pub(super) fn set_unknown(&mut self, name: &str, value: &str) -> OpId {
        let call = self.set_call(name, value);
        self.unknown(call)
    }

    pub(super) fn set_failed(&mut self, name: &str, value: &str) {
        let call = self.set_call(name, value);
        let op = self.begin(call, Level::Quorum);
        let now = self.tick();
        self.history.fail(op, now);
    }

    pub(super) fn delete(&mut self, name: &str, level: Level, at_ms: u64) -> OpId {
        let cell = self.cell(name);
        self.write(Call::Delete { cell }, level, at_ms)
    }

    pub(super) fn delete_unknown(&mut self, name: &str) {
        let cell = self.cell(name);
        self.unknown(Call::Delete { cell });
    }

    pub(super) fn delete_failed(&mut self, name: &str) {
        let cell = self.cell(name);
        let op = self.begin(Call::Delete { cell }, Level::Quorum);
        let now = self.tick();
        self.history.fail(op, now);
    }

    pub(super) fn bulk_call(&mut self, cells: &[(&str, Option<&str>)]) -> Call {
        let cells = cells.iter().map(|(name, value)| {
            let value = value.map_or(ValueId::ABSENT, |value| self.history.value(value));
            (self.history.cell_named(name), value)
        });
        Call::Bulk(Box::new(Bulk { cells: cells.collect(), ..Bulk::default() }))
    }

    /// A batch that deletes a row and then writes cells.
    pub(super) fn row_call(&mut self, row: &str, cells: &[(&str, Option<&str>)]) -> Call {
        let Call::Bulk(mut bulk) = self.bulk_call(cells) else { panic!("a bulk is none") };
        bulk.rows.push(self.history.row(row));
        Call::Bulk(bulk)
    }

    pub(super) fn begin_get(&mut self, name: &str, level: Level) -> OpId {
        let cell = self.cell(name);
        self.begin(Call::Get { cell }, level)
    }

    pub(super) fn end_get(&mut self, op: OpId, found: Option<(&str, u64)>) {
        let at = found.map_or(Stamp::ZERO, |(_, ms)| stamp(ms));
        self.end_get_at(op, found.map(|(value, _)| value), at);
    }

    pub(super) fn end_get_at(&mut self, op: OpId, value: Option<&str>, at: Stamp) {
        let Call::Get { cell } = self.history.op(op).call else { panic!("{op:?} is no get") };
        let mut terms = self.history.terms(op).unwrap().clone();
        terms.seen = at;
        if value.is_some() {
            terms.found.insert(cell, at);
        }
        self.met(&terms);
        self.history.set_terms(op, terms);
        let value = value.map_or(ValueId::ABSENT, |value| self.history.value(value));
        let now = self.tick();
        self.history.ok(op, Answer::Value(value), now);
    }

    /// A get that finds a value with its stamp, or nothing, of which nothing is known.
    pub(super) fn get(&mut self, name: &str, found: Option<(&str, u64)>, level: Level) {
        let op = self.begin_get(name, level);
        self.end_get(op, found);
    }

    /// A listing of all keys that shows these, up to where its page was cut.
    pub(super) fn keys(&mut self, found: &[&str], next: Option<&str>, level: Level) {
        let op = self.begin(Call::Keys(Box::default()), level);
        let rows = found.iter().map(|key| self.history.row(key)).collect();
        let now = self.tick();
        self.history.ok(op, Answer::Rows { rows, next: next.map(Box::from) }, now);
    }

    /// A get that finds a tombstone.
    pub(super) fn get_deleted(&mut self, name: &str, at_ms: u64, level: Level) {
        let op = self.begin_get(name, level);
        self.end_get_at(op, None, stamp(at_ms));
    }
}
