//! From a history to what the engine searches: operations as reads, clauses and writes.
//!
//! Every request of the store is one atomic step, *if its condition holds on the state, write these
//! cells*. What a client was told turns into the condition, so the engine needs to know no request:
//!
//! - a **read** is a cell that must have a certain value (a get's answer, the old value of an
//!   applied compare-and-set, a cell of a multi get, a cell missing from a slice);
//! - a **clause** is a list of comparisons of which at least one must hold (a compare-and-set that
//!   was not applied: the cell differs from the old value; a key that was listed: one of its
//!   columns is there; a conditional bulk that was refused: one condition does not hold, or the
//!   one of the cell that the store named);
//! - **writes** are the cells that get a value. Deleting is writing *absent*.
//!
//! An operation that failed never happened and is dropped. One with an unknown outcome is *pending*
//! from its invocation on, for ever; only its successful variant matters, because an unsuccessful
//! one changes nothing and nobody saw its answer. So an unknown read is dropped too.
//!
//! Cells that ever occur in one operation together form a **group** (transitively), and groups are
//! checked one by one: linearizability is local to objects that share no operation
//! [Herlihy & Wing '90 §3.3], and a group is such an object.

use std::collections::{BTreeMap, BTreeSet};

use super::Options;
use super::rules::{Mutant, Rule};
use crate::history::{
    Answer, Bulk, Call, CellId, EventKind, Expected, History, OpId, Operation, Outcome, ValueId,
};

/// A comparison of a cell with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Literal {
    cell: CellId,
    value: ValueId,
    equal: bool,
}

#[derive(Debug, Default)]
struct Raw {
    reads: Vec<(CellId, ValueId)>,
    clauses: Vec<Vec<Literal>>,
    writes: Vec<(CellId, ValueId)>,
    pending: bool,
}

/// A value of a cell inside a group: its place in [`Group::values`], different for every cell.
pub(super) type Place = u32;

/// A comparison of the value of a cell of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    pub(super) cell: u32,
    pub(super) place: Place,
    pub(super) equal: bool,
}

/// An operation as the engine sees it; cells are places in [`Group::cells`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) reads: Box<[(u32, Place)]>,
    pub(super) clauses: Box<[Box<[Test]>]>,
    pub(super) writes: Box<[(u32, Place)]>,
}

impl Step {
    /// Tells whether it changes nothing wherever it is legal.
    pub(super) fn is_inert(&self) -> bool {
        self.writes.iter().all(|write| self.reads.contains(write))
    }

    /// Tells whether it writes a cell; its writes are sorted by cell.
    pub(super) fn writes_cell(&self, cell: u32) -> bool {
        self.writes.binary_search_by_key(&cell, |write| write.0).is_ok()
    }

    /// Returns the places that the clauses compare with, each once.
    pub(super) fn compared(&self) -> BTreeSet<Place> {
        self.clauses.iter().flatten().map(|test| test.place).collect()
    }
}

/// A step and what is known about it.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) id: OpId,
    pub(super) step: Step,
    /// Its outcome is unknown: it may be placed anywhere after its invocation, or nowhere.
    pub(super) pending: bool,
    /// Operations of one class are alike in condition and effect.
    pub(super) class: u32,
    /// Position of its end among the events; the largest number if it is pending.
    pub(super) ended: u32,
    /// It changes nothing wherever it is legal.
    pub(super) inert: bool,
    /// It writes, unconditionally, nothing but values that nobody observes.
    pub(super) unseen: bool,
}

/// A value that a cell can have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    /// `None`: some value that nobody observed.
    pub(super) observed: Option<ValueId>,
    /// How many operations write it, and one more if it is there at the start.
    pub(super) sources: u32,
    /// How many operations with an answer read it.
    pub(super) reads: u32,
    /// How many operations with an answer write it.
    pub(super) writers: u32,
    /// How many pending operations write it.
    pub(super) pending_writers: u32,
    /// How many pending operations need it to be there.
    pub(super) pending_readers: u32,
    /// How many operations with an answer compare with it in a clause.
    pub(super) compared: u32,
    /// How many pending operations do.
    pub(super) pending_compared: u32,
}

/// What happens next in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    Invoke(u32),
    Return(u32),
}

/// Cells that are checked as one object.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) cells: Vec<CellId>,
    pub(super) initial: Box<[Place]>,
    pub(super) values: Vec<Value>,
    pub(super) ops: Vec<Op>,
    pub(super) happenings: Vec<Happening>,
    /// The class of each step, where operations alike share one.
    pub(super) classes: BTreeMap<Step, u32>,
    pub(super) class_count: u32,
}

/// Splits the history into groups.
pub(super) fn groups(history: &History, options: &Options) -> Vec<Group> {
    let raws: Vec<Option<Raw>> = history.ops().iter().map(|op| lower(history, op)).collect();
    let mut union = Union::new(history.cell_count());
    for raw in raws.iter().flatten() {
        let mut cells = raw.cells();
        if let Some(first) = cells.next() {
            cells.for_each(|cell| union.join(first, cell));
        }
    }
    let mut group_of_root = BTreeMap::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut place_of_cell = vec![(0, 0); history.cell_count()];
    for (cell, place) in place_of_cell.iter_mut().enumerate() {
        let cell = CellId(u32::try_from(cell).unwrap_or(u32::MAX));
        let group = *group_of_root.entry(union.root(cell)).or_insert_with(|| {
            groups.push(Group::default());
            groups.len() - 1
        });
        *place = (group, number(groups[group].cells.len()));
        groups[group].cells.push(cell);
    }
    let mut by_group: Vec<Vec<(OpId, Raw)>> = Vec::new();
    by_group.resize_with(groups.len(), Vec::new);
    let mut position_of = vec![None; raws.len()];
    for (op, raw) in raws.into_iter().enumerate() {
        let Some(raw) = raw else { continue };
        let group = match raw.cells().next() {
            Some(first) => place_of_cell[first.0 as usize].0,
            None if raw.clauses.is_empty() => continue,
            // A listed key that no operation could have written: an object of its own.
            None => {
                groups.push(Group::default());
                by_group.push(Vec::new());
                groups.len() - 1
            }
        };
        position_of[op] = Some((group, number(by_group[group].len()), raw.pending));
        by_group[group].push((OpId(number(op)), raw));
    }
    for event in history.events() {
        let Some((group, op, pending)) = position_of[event.op.0 as usize] else { continue };
        match event.kind {
            EventKind::Invoke => groups[group].happenings.push(Happening::Invoke(op)),
            EventKind::End if pending => {}
            EventKind::End => groups[group].happenings.push(Happening::Return(op)),
        }
    }
    for (group, raws) in groups.iter_mut().zip(by_group) {
        group.fill(history, raws, |cell| place_of_cell[cell.0 as usize].1, options);
    }
    groups
}

/// Returns the cells that an operation looks at or writes, as far as its outcome tells.
pub(super) fn cells_of(history: &History, op: OpId) -> Vec<CellId> {
    let raw = history.ops().get(op.0 as usize).and_then(|op| lower(history, op));
    let mut cells: Vec<CellId> = raw.iter().flat_map(Raw::cells).collect();
    cells.sort_unstable();
    cells.dedup();
    cells
}

impl Raw {
    fn cells(&self) -> impl Iterator<Item = CellId> {
        let read = self.reads.iter().map(|(cell, _)| *cell);
        let compared = self.clauses.iter().flatten().map(|literal| literal.cell);
        let written = self.writes.iter().map(|(cell, _)| *cell);
        read.chain(compared).chain(written)
    }
}

fn lower(history: &History, op: &Operation) -> Option<Raw> {
    let mut raw = Raw::default();
    match &op.outcome {
        Outcome::Fail => return None,
        Outcome::Open | Outcome::Info => {
            raw.pending = true;
            lower_applied(history, &op.call, &mut raw);
            if raw.writes.iter().all(|write| raw.reads.contains(write)) {
                return None;
            }
        }
        Outcome::Ok(Answer::Tried { applied: false, current }) => {
            lower_refused(&op.call, *current, &mut raw);
        }
        Outcome::Ok(Answer::Refused { cell, current }) => {
            raw.reads.push((*cell, *current));
            if let Call::Bulk(bulk) = &op.call {
                lower_unmet(bulk, Some(*cell), &mut raw);
            }
        }
        Outcome::Ok(answer) => {
            lower_applied(history, &op.call, &mut raw);
            lower_answer(history, &op.call, answer, &mut raw);
        }
    }
    raw.reads.sort_unstable();
    raw.reads.dedup();
    raw.clauses.sort_unstable();
    Some(raw)
}

/// Adds what an operation needs and does if it is carried out, except what it answers.
fn lower_applied(history: &History, call: &Call, raw: &mut Raw) {
    match call {
        Call::Set { cell, value } => raw.writes.push((*cell, *value)),
        Call::Delete { cell } => raw.writes.push((*cell, ValueId::ABSENT)),
        Call::Cas { cell, old, new } => {
            raw.reads.push((*cell, *old));
            raw.writes.push((*cell, *new));
        }
        Call::DeleteRow { row } => {
            raw.writes.extend(history.cells_of(*row).iter().map(|cell| (*cell, ValueId::ABSENT)));
        }
        Call::Bulk(bulk) => {
            for (cell, expected) in &bulk.conditions {
                match expected {
                    Expected::Value(value) => raw.reads.push((*cell, *value)),
                    Expected::Present => raw.clauses.push(vec![present(*cell)]),
                    Expected::Opaque => {}
                }
            }
            raw.writes = bulk_writes(history, bulk);
        }
        Call::Get { .. } | Call::MultiGet(_) | Call::Slice(_) | Call::Keys(_) | Call::Scan(_) => {}
    }
}

fn bulk_writes(history: &History, bulk: &Bulk) -> Vec<(CellId, ValueId)> {
    let emptied = bulk.rows.iter().flat_map(|row| history.cells_of(*row));
    let mut writes: BTreeMap<CellId, ValueId> =
        emptied.map(|cell| (*cell, ValueId::ABSENT)).collect();
    writes.extend(bulk.cells.iter().copied());
    writes.into_iter().collect()
}

/// Adds what must have held when an operation with conditions was refused.
fn lower_refused(call: &Call, current: Option<ValueId>, raw: &mut Raw) {
    match call {
        Call::Cas { cell, old, .. } => {
            raw.reads.extend(current.map(|current| (*cell, current)));
            raw.clauses.push(vec![Literal { cell: *cell, value: *old, equal: false }]);
        }
        Call::Bulk(bulk) => lower_unmet(bulk, None, raw),
        Call::Get { .. }
        | Call::Set { .. }
        | Call::Delete { .. }
        | Call::MultiGet(_)
        | Call::DeleteRow { .. }
        | Call::Slice(_)
        | Call::Keys(_)
        | Call::Scan(_) => {}
    }
}

/// Adds that one of the conditions of a bulk does not hold, or of those on one cell. There may be
/// none on that cell: then nothing explains the answer.
fn lower_unmet(bulk: &Bulk, on: Option<CellId>, raw: &mut Raw) {
    let mut clause = Vec::new();
    for (cell, expected) in &bulk.conditions {
        if on.is_some_and(|on| on != *cell) {
            continue;
        }
        match expected {
            Expected::Value(value) => {
                clause.push(Literal { cell: *cell, value: *value, equal: false });
            }
            Expected::Present => clause.push(Literal { equal: true, ..present(*cell) }),
            // It may be this one that did not hold: nothing follows.
            Expected::Opaque => return,
        }
    }
    clause.sort_unstable();
    raw.clauses.push(clause);
}

/// Adds what the answer of a read says about the state.
fn lower_answer(history: &History, call: &Call, answer: &Answer, raw: &mut Raw) {
    match answer {
        Answer::Done | Answer::Tried { .. } | Answer::Refused { .. } => {}
        Answer::Value(value) => {
            raw.reads.extend(history.covered(call, None).into_iter().map(|cell| (cell, *value)));
        }
        Answer::Values(cells) => raw.reads.extend(cells.iter().copied()),
        Answer::Page { cells, next } => {
            raw.reads.extend(cells.iter().copied());
            let found: BTreeMap<CellId, ValueId> = cells.iter().copied().collect();
            let covered = history.covered(call, next.as_deref()).into_iter();
            let missing = covered.filter(|cell| !found.contains_key(cell));
            raw.reads.extend(missing.map(|cell| (cell, ValueId::ABSENT)));
        }
        Answer::Rows { rows, next } => {
            let Call::Keys(range) = call else { return };
            for row in rows {
                // A listed row of which the history names no cell gives an empty clause, which
                // nothing satisfies: nobody can have written it.
                raw.clauses.push(history.cells_of(*row).iter().copied().map(present).collect());
            }
            for row in history.covered_rows(range, next.as_deref()) {
                if !rows.contains(&row) {
                    let cells = history.cells_of(row).iter();
                    raw.reads.extend(cells.map(|cell| (*cell, ValueId::ABSENT)));
                }
            }
        }
    }
}

fn present(cell: CellId) -> Literal {
    Literal { cell, value: ValueId::ABSENT, equal: false }
}

impl Group {
    fn fill(
        &mut self,
        history: &History,
        raws: Vec<(OpId, Raw)>,
        place_of: impl Fn(CellId) -> u32,
        options: &Options,
    ) {
        let places = self.name_values(&raws, options);
        let place = |cell: CellId, value: ValueId| {
            places.get(&(cell, value)).copied().unwrap_or(place_of(cell))
        };
        self.initial = self.cells.iter().map(|cell| place(*cell, ValueId::ABSENT)).collect();
        for first in &self.initial {
            self.values[*first as usize].sources += 1;
        }
        for (id, raw) in raws {
            let cells = |list: &[(CellId, ValueId)]| {
                list.iter().map(|(cell, value)| (place_of(*cell), place(*cell, *value))).collect()
            };
            let test = |literal: &Literal| Test {
                cell: place_of(literal.cell),
                place: place(literal.cell, literal.value),
                equal: literal.equal,
            };
            let clause = |clause: &Vec<Literal>| clause.iter().map(test).collect();
            let step = Step {
                reads: cells(&raw.reads),
                clauses: raw.clauses.iter().map(clause).collect(),
                writes: cells(&raw.writes),
            };
            let fresh = self.class_count;
            let class = if options.rules.has(Rule::Symmetry) {
                *self.classes.entry(step.clone()).or_insert(fresh)
            } else {
                fresh
            };
            self.class_count += u32::from(class == fresh);
            let ended = history.op(id).ended.filter(|_| !raw.pending).unwrap_or(u32::MAX);
            let (inert, unseen) = self.kind_of(&step);
            let pending = raw.pending;
            self.push(Op { id, step, pending, class, ended, inert, unseen });
        }
    }

    /// Gives every observed value of every cell a place; the first places, one for each cell,
    /// stand for all values of the cell that nobody observed (rule 3).
    fn name_values(
        &mut self,
        raws: &[(OpId, Raw)],
        options: &Options,
    ) -> BTreeMap<(CellId, ValueId), Place> {
        let value = |observed| Value {
            observed,
            sources: 0,
            reads: 0,
            writers: 0,
            pending_writers: 0,
            pending_readers: 0,
            compared: 0,
            pending_compared: 0,
        };
        self.values = vec![value(None); self.cells.len()];
        let mut places = BTreeMap::new();
        let mut observe = |cell, observed, values: &mut Vec<Value>| {
            places.entry((cell, observed)).or_insert_with(|| {
                values.push(value(Some(observed)));
                number(values.len() - 1)
            });
        };
        let all = !options.rules.has(Rule::Unobserved);
        for (_, raw) in raws {
            for (cell, value) in &raw.reads {
                observe(*cell, *value, &mut self.values);
            }
            if options.mutant != Some(Mutant::UnobservedIgnoresClauses) {
                for literal in raw.clauses.iter().flatten() {
                    observe(literal.cell, literal.value, &mut self.values);
                }
            }
            if all {
                for (cell, value) in &raw.writes {
                    observe(*cell, *value, &mut self.values);
                }
            }
        }
        if all {
            for cell in self.cells.clone() {
                observe(cell, ValueId::ABSENT, &mut self.values);
            }
        }
        places
    }

    /// Returns whether a step changes nothing, and whether it is an unseen write (rule 5).
    fn kind_of(&self, step: &Step) -> (bool, bool) {
        let inert = step.is_inert();
        // The first places are those of unobserved values.
        let unobserved = |(_, place): &(u32, Place)| (*place as usize) < self.cells.len();
        let unconditional = step.reads.is_empty() && step.clauses.is_empty();
        (inert, unconditional && !inert && step.writes.iter().all(unobserved))
    }

    fn push(&mut self, op: Op) {
        for (_, place) in &op.step.reads {
            let value = &mut self.values[*place as usize];
            if op.pending { value.pending_readers += 1 } else { value.reads += 1 }
        }
        for place in op.step.compared() {
            let value = &mut self.values[place as usize];
            if op.pending { value.pending_compared += 1 } else { value.compared += 1 }
        }
        for (_, place) in &op.step.writes {
            let value = &mut self.values[*place as usize];
            value.sources += 1;
            if op.pending { value.pending_writers += 1 } else { value.writers += 1 }
        }
        self.ops.push(op);
    }
}

/// Union-find over cells, with path halving.
struct Union(Vec<u32>);

impl Union {
    fn new(cells: usize) -> Self {
        Self((0..number(cells)).collect())
    }

    fn root(&mut self, cell: CellId) -> u32 {
        let mut at = cell.0;
        while self.0[at as usize] != at {
            self.0[at as usize] = self.0[self.0[at as usize] as usize];
            at = self.0[at as usize];
        }
        at
    }

    fn join(&mut self, a: CellId, b: CellId) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[b as usize] = a;
    }
}

pub(super) fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
