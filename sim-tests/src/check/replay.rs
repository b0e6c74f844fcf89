//! Replay: every answer is the one that the committed log gives at its index, and the indices
//! respect real time.
//!
//! **Property.** Carry out the committed commands one after the other. Each answer to a write is
//! the one that its command gets there. Each answer to a read is the state at some index – at *the*
//! index, where the node said it. And if one operation ended before another began, its index is not
//! above the other's; if the other is a write, it is below.
//!
//! **Why the obvious check is wrong.** A black-box search finds wrong answers without asking the
//! store, but it needs luck in the workload: a value nobody reads, two writes nobody tells apart,
//! and the bug is masked. Here nothing is searched and nothing is masked, because the store itself
//! says where everything took effect and every answer must agree with that, byte by byte and
//! version by version, in O(n log n) for any request. On its own it would be fooled by a store
//! whose log lies consistently; therefore [`linearizable`](super::linearizable) runs too.
//!
//! The index of a read is not always known. Then the *earliest* index that explains it is assumed:
//! indices only ever forbid smaller ones later, so the earliest accuses nobody wrongly, and if it
//! contradicts what follows, every other would.
//!
//! The model below is a second, plain implementation of the state machine; that it is written
//! independently of the first is the point.
//!
//! **What is skipped.** How many sessions a node keeps: an entry that all nodes refused because its
//! session was gone is marked so by the harness. Whether a page could have been longer. The runs of
//! the swarm do not collect what all this takes; [`exactly_once`](super::exactly_once) asks them
//! the smaller question whether each write took effect as its client was told.
//!
//! # Sources
//! The idea is etcd's (its robustness tests replay the log of the members).

use std::collections::BTreeMap;

use mangrove::base::{Column, Index, Key, RequestSeq, SessionId, Value};
use mangrove::kv::{
    Batch, Cell, Command, CommandReply, Condition, Expectation, Mutation, Query, QueryReply,
    Version,
};

use super::{Violation, broken};

/// A committed entry that carries a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its index.
    pub index: Index,
    /// The command.
    pub command: Command,
    /// The state machines refused it, because of its session (too old, or forgotten).
    pub refused: bool,
}

/// What a client asked and was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// When it was sent, on a clock that all clients share; equal times are concurrent.
    pub invoked: u64,
    /// When the answer came; `None` if none came.
    pub ended: Option<u64>,
    /// What it was.
    pub request: Request,
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A write, however often it was sent.
    Write {
        /// Its session.
        session: SessionId,
        /// Its number in the session.
        seq: RequestSeq,
        /// What the client was told.
        told: Told,
    },
    /// A linearizable read that was answered.
    Read {
        /// What was asked.
        query: Query,
        /// The answer.
        reply: QueryReply,
        /// Index of the state that answered, if the node said it.
        applied: Option<Index>,
    },
}

/// What a client was told about its write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The answer of the state machine.
    Reply(CommandReply),
    /// It was certainly not applied.
    NotApplied,
    /// Nobody knows.
    Unknown,
}

/// The versions of one cell: from which index on it had which value.
type Versions = Vec<(Index, Option<Value>)>;
type VersionsRef<'a> = &'a [(Index, Option<Value>)];

/// Replays `log`, in order of its indices, and compares with all that clients were told.
pub fn check(log: &[Logged], asked: &[Asked]) -> Result<(), Violation> {
    let mut model = Model::default();
    for entry in log {
        model.apply(entry);
    }
    model.compare(asked)
}

#[derive(Debug, Default)]
struct Model {
    cells: BTreeMap<(Key, Column), Versions>,
    effects: BTreeMap<(SessionId, RequestSeq), (Index, CommandReply)>,
    last: Index,
}

impl Model {
    fn apply(&mut self, entry: &Logged) {
        assert!(entry.index > self.last, "log goes from {} to {}", self.last, entry.index);
        self.last = entry.index;
        let Command::Write { session, seq, batch, .. } = &entry.command else { return };
        if entry.refused || self.effects.contains_key(&(*session, *seq)) {
            return;
        }
        let reply = self.carry_out(entry.index, batch);
        self.effects.insert((*session, *seq), (entry.index, reply));
    }

    fn carry_out(&mut self, index: Index, batch: &Batch) -> CommandReply {
        for (position, condition) in (0..).zip(&batch.conditions) {
            let current = self.current(&condition.key, &condition.column);
            if !holds(condition, current.as_ref()) {
                return CommandReply::ConditionFailed { position, current };
            }
        }
        for mutation in &batch.mutations {
            match mutation {
                Mutation::Set { key, column, value } => {
                    self.write(index, key.clone(), column.clone(), Some(value.clone()));
                }
                Mutation::Delete { key, column } => {
                    self.write(index, key.clone(), column.clone(), None);
                }
                Mutation::DeleteRow { key } => {
                    let from = (key.clone(), Column::default());
                    let row = self.cells.range_mut(from..).take_while(|(place, _)| place.0 == *key);
                    row.for_each(|(_, versions)| push(versions, index, None));
                }
            }
        }
        CommandReply::Applied(Version(index))
    }

    fn current(&self, key: &Key, column: &Column) -> Option<Cell> {
        let versions = self.cells.get(&(key.clone(), column.clone()))?;
        let (version, value) = versions.last()?;
        Some(Cell { value: value.clone()?, version: Version(*version) })
    }

    fn write(&mut self, index: Index, key: Key, column: Column, value: Option<Value>) {
        push(self.cells.entry((key, column)).or_default(), index, value);
    }

    /// Compares everything in the order in which it happened at the clients.
    fn compare(&self, asked: &[Asked]) -> Result<(), Violation> {
        // At equal times invocations come first, so that equal times are concurrent.
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(asked.len() * 2);
        for (position, one) in asked.iter().enumerate() {
            moments.push((one.invoked, false, position));
            moments.extend(one.ended.map(|ended| (ended, true, position)));
        }
        moments.sort_unstable();
        let mut floor = 0;
        let mut floor_of = vec![0; asked.len()];
        for (at, is_end, position) in moments {
            let one = &asked[position];
            if is_end {
                floor = floor.max(self.judge(at, one, floor_of[position])?);
            } else {
                floor_of[position] = floor;
                self.judge_effect(at, one, floor)?;
            }
        }
        Ok(())
    }

    /// Judges where a write took effect, whatever the client was told; every operation that ended
    /// before its invocation has an index of at most `floor`.
    fn judge_effect(&self, at: u64, one: &Asked, floor: Index) -> Result<(), Violation> {
        let Request::Write { session, seq, told } = &one.request else { return Ok(()) };
        let Some((index, reply)) = self.effects.get(&(*session, *seq)) else { return Ok(()) };
        if *index <= floor {
            let what = format!(
                "{session:?}{seq:?} took effect at {index}, but before it was sent something \
                 ended that took effect at {floor} or was read there"
            );
            return broken("replay", at, what);
        }
        if *told == Told::NotApplied && matches!(reply, CommandReply::Applied(_)) {
            let what = format!("{session:?}{seq:?} failed for certain, but was applied at {index}");
            return broken("replay", at, what);
        }
        Ok(())
    }

    /// Judges an answer; returns the index at which it took effect.
    fn judge(&self, at: u64, one: &Asked, floor: Index) -> Result<Index, Violation> {
        match &one.request {
            Request::Write { session, seq, told: Told::Reply(told) } => {
                self.judge_write(at, (*session, *seq), told)
            }
            Request::Write { .. } => Ok(0),
            Request::Read { query, reply, applied } => {
                self.judge_read(at, (query, reply), *applied, floor)
            }
        }
    }

    fn judge_write(
        &self,
        at: u64,
        request: (SessionId, RequestSeq),
        told: &CommandReply,
    ) -> Result<Index, Violation> {
        if !matches!(told, CommandReply::Applied(_) | CommandReply::ConditionFailed { .. }) {
            return Ok(0);
        }
        let name = format!("{:?}{:?}", request.0, request.1);
        let what = match self.effects.get(&request) {
            None => format!("{name} was answered {told:?}, but is not in the committed log"),
            Some((index, reply)) if reply == told => return Ok(*index),
            Some((index, reply)) => {
                format!("{name} was answered {told:?}, but at {index} the answer is {reply:?}")
            }
        };
        broken("replay", at, what).map(|()| 0)
    }

    fn judge_read(
        &self,
        at: u64,
        (query, reply): (&Query, &QueryReply),
        applied: Option<Index>,
        floor: Index,
    ) -> Result<Index, Violation> {
        let demands = match self.demands(query, reply) {
            Ok(demands) => demands,
            Err(flaw) => {
                return broken("replay", at, format!("{query:?} → {reply:?}: {flaw}")).map(|()| 0);
            }
        };
        let what = match (applied, earliest(&demands, applied.unwrap_or(floor).max(floor))) {
            (Some(applied), _) if applied < floor => format!(
                "was served at index {applied}, but before it was sent something ended that took \
                 effect at {floor} or was read there"
            ),
            (Some(applied), Some(index)) if index == applied => return Ok(index),
            (None, Some(index)) => return Ok(index),
            (Some(applied), _) => format!("is not the state at index {applied}"),
            (None, None) => format!("is not the state at any index from {floor} on"),
        };
        broken("replay", at, format!("{query:?} → {reply:?} {what}")).map(|()| 0)
    }

    /// Returns what an answer demands of the state, or why no state can give it.
    fn demands<'a>(
        &'a self,
        query: &Query,
        reply: &'a QueryReply,
    ) -> Result<Vec<Demand<'a>>, &'static str> {
        match (query, reply) {
            (Query::Get { key, column }, QueryReply::Cell(cell)) => {
                Ok(vec![self.demand((key, column), cell.as_ref())])
            }
            (Query::MultiGet { cells }, QueryReply::Cells(found)) => {
                if cells.len() != found.len() {
                    return Err("not as many answers as cells");
                }
                let pairs = cells.iter().zip(found);
                let demand = |((key, column), cell): (&(Key, Column), &'a Option<Cell>)| {
                    self.demand((key, column), cell.as_ref())
                };
                Ok(pairs.map(demand).collect())
            }
            (Query::Slice { key, start, stop, .. }, QueryReply::Columns { columns, next }) => {
                let from = (key.clone(), start.clone().unwrap_or_default());
                let inside = |(held, column): &(Key, Column)| {
                    held == key
                        && stop.as_ref().is_none_or(|stop| column <= stop)
                        && next.as_ref().is_none_or(|next| column < next)
                };
                let found = columns.iter();
                let found: Vec<_> =
                    found.map(|(column, cell)| ((key.clone(), column.clone()), cell)).collect();
                self.range(&from, inside, &found)
            }
            (Query::Scan { start, prefix, .. }, QueryReply::Scanned { cells, next }) => {
                let first = (prefix.clone(), Column::default());
                let from = start.clone().map_or(first.clone(), |start| start.max(first));
                let inside = |place: &(Key, Column)| {
                    place.0.as_bytes().starts_with(prefix.as_bytes())
                        && next.as_ref().is_none_or(|next| place < next)
                };
                let found = cells.iter();
                let found: Vec<_> = found
                    .map(|(key, column, cell)| ((key.clone(), column.clone()), cell))
                    .collect();
                self.range(&from, inside, &found)
            }
            (Query::Keys { start, stop, prefix, .. }, QueryReply::Keys { keys, next }) => {
                let from = start.clone().map_or(prefix.clone(), |start| start.max(prefix.clone()));
                let inside = |key: &Key| {
                    key.as_bytes().starts_with(prefix.as_bytes())
                        && stop.as_ref().is_none_or(|stop| key <= stop)
                        && next.as_ref().is_none_or(|next| key < next)
                };
                self.keys(&from, inside, keys)
            }
            _ => Err("the answer is not one to this question"),
        }
    }

    fn demand<'a>(&'a self, (key, column): (&Key, &Column), cell: Option<&'a Cell>) -> Demand<'a> {
        let versions = self.cells.get(&(key.clone(), column.clone()));
        Demand::Cell(versions.map_or(&[], Vec::as_slice), cell)
    }

    /// Demands exactly the cells `found` of those from `from` on while they are `inside`.
    fn range<'a>(
        &'a self,
        from: &(Key, Column),
        inside: impl Fn(&(Key, Column)) -> bool,
        found: &[((Key, Column), &'a Cell)],
    ) -> Result<Vec<Demand<'a>>, &'static str> {
        if !found.is_sorted_by(|a, b| a.0 < b.0) {
            return Err("not sorted, or something twice");
        }
        if found.iter().any(|(place, _)| place < from || !inside(place)) {
            return Err("something outside of what was asked");
        }
        let mut left = found.iter().peekable();
        let mut demands = Vec::new();
        let held = self.cells.range(from.clone()..).take_while(|(place, _)| inside(place));
        for (place, versions) in held {
            let cell = left.next_if(|(found, _)| found == place).map(|(_, cell)| *cell);
            demands.push(Demand::Cell(versions, cell));
        }
        if left.next().is_some() {
            return Err("a cell that was never written");
        }
        Ok(demands)
    }

    fn keys(
        &self,
        from: &Key,
        inside: impl Fn(&Key) -> bool,
        found: &[Key],
    ) -> Result<Vec<Demand<'_>>, &'static str> {
        if !found.is_sorted_by(|a, b| a < b) {
            return Err("not sorted, or something twice");
        }
        if found.iter().any(|key| key < from || !inside(key)) {
            return Err("something outside of what was asked");
        }
        let mut rows: BTreeMap<&Key, Vec<VersionsRef<'_>>> = BTreeMap::new();
        let first = (from.clone(), Column::default());
        let held = self.cells.range(first..).take_while(|(place, _)| inside(&place.0));
        for (place, versions) in held {
            rows.entry(&place.0).or_default().push(versions);
        }
        if found.iter().any(|key| !rows.contains_key(key)) {
            return Err("a key that was never written");
        }
        let mut demands = Vec::new();
        for (key, columns) in rows {
            if found.binary_search(key).is_ok() {
                demands.push(Demand::Row(columns));
            } else {
                demands.extend(columns.into_iter().map(|versions| Demand::Cell(versions, None)));
            }
        }
        Ok(demands)
    }
}

/// What must hold of the state at an index.
enum Demand<'a> {
    /// A cell is this, or absent.
    Cell(VersionsRef<'a>, Option<&'a Cell>),
    /// At least one of these cells exists.
    Row(Vec<VersionsRef<'a>>),
}

impl Demand<'_> {
    /// Returns the first index from `from` on at which it holds.
    fn earliest(&self, from: Index) -> Option<Index> {
        match self {
            Self::Cell(versions, Some(cell)) => {
                let Version(index) = cell.version;
                let position = versions.binary_search_by_key(&index, |version| version.0).ok()?;
                if versions[position].1.as_ref() != Some(&cell.value) {
                    return None;
                }
                let over = versions.get(position + 1).map_or(Index::MAX, |version| version.0);
                (from < over).then_some(from.max(index))
            }
            Self::Cell(versions, None) => next_where(versions, from, Option::is_none),
            Self::Row(columns) => columns
                .iter()
                .filter_map(|versions| next_where(versions, from, Option::is_some))
                .min(),
        }
    }
}

/// Returns the first index from `from` on at which the value of a cell satisfies `wanted`.
fn next_where(
    versions: VersionsRef<'_>,
    from: Index,
    wanted: impl Fn(&Option<Value>) -> bool,
) -> Option<Index> {
    let after = versions.partition_point(|(index, _)| *index <= from);
    let now = after.checked_sub(1).map_or(&None, |position| &versions[position].1);
    if wanted(now) {
        return Some(from);
    }
    versions[after..].iter().find(|(_, value)| wanted(value)).map(|(index, _)| *index)
}

/// Returns the first index from `from` on at which all demands hold.
fn earliest(demands: &[Demand<'_>], from: Index) -> Option<Index> {
    let mut index = from;
    loop {
        let mut next = index;
        for demand in demands {
            next = demand.earliest(next)?;
        }
        if next == index {
            return Some(index);
        }
        index = next;
    }
}

fn holds(condition: &Condition, current: Option<&Cell>) -> bool {
    match &condition.expected {
        Expectation::Absent => current.is_none(),
        Expectation::Present => current.is_some(),
        Expectation::Value(value) => current.is_some_and(|cell| cell.value == *value),
        Expectation::Version(version) => current.is_some_and(|cell| cell.version == *version),
    }
}

/// Adds a version; a later one of the same index replaces the earlier one.
fn push(versions: &mut Versions, index: Index, value: Option<Value>) {
    let exists = versions.last().is_some_and(|(_, value)| value.is_some());
    match versions.last_mut() {
        Some((last, held)) if *last == index => *held = value,
        _ if value.is_none() && !exists => {}
        _ => versions.push((index, value)),
    }
}
