//! The history of a run: what every client asked, when, and what it was told.
//!
//! The workload records into it, the client-level checkers read it, and [`jsonl`] writes it out so
//! that a judge outside this project can be asked about the same run.
//!
//! A history is a sequence of events in the order in which they happened at the clients; an
//! operation is the pair of its invocation and its end. The end is `ok` (with an answer), `fail`
//! (certainly not applied) or `info` (the outcome is unknown: it may take effect at any later time,
//! or never). The *order of the events* is the truth about real time; the clock reading of an event
//! is for people. A client that does not know what became of its operation cannot go on under the
//! same process id, because that process would then have two operations in flight: the id is
//! retired and the client goes on under a new one, as in Jepsen.
//!
//! Names are interned: cells (`key/column`), rows (keys) and values are small numbers, so a history
//! of 100,000 operations is a few megabytes and comparing two values is comparing two integers.
//!
//! # Invariants
//! - H1: a process has at most one operation in flight and none after an `info`.
//! - H2: an operation ends at most once; an answer has the shape of its call.
//!
//! A harness that breaks one is wrong itself, so recording asserts them; reading a file reports
//! them as errors.
//!
//! # Left out
//! Versions and log indices of the primary-backup mode: black-box checkers must not believe them.
//! The replay checker, which does use them, has its own input. The masterless mode, whose promises
//! are about versions, adds [`Terms`] to its operations.
//!
//! # Sources
//! \[Jepsen\] (history format, `info`, process ids), [Herlihy & Wing '90] (histories).

mod filler;
pub mod jsonl;
mod terms;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use filler::name_of;
pub use terms::{Session, Terms};

/// A cell, `key/column`, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId(pub u32);

/// A row: a key with all its columns, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u32);

/// A value as a number; [`ValueId::ABSENT`] when there is no such cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

impl ValueId {
    /// There is no such cell (`null` in a file).
    pub const ABSENT: Self = Self(0);
}

/// An operation: its position among the invocations of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// A logical single-threaded client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u32);

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Reads one cell.
    Get {
        /// Which.
        cell: CellId,
    },
    /// Writes one cell.
    Set {
        /// Which.
        cell: CellId,
        /// The new value.
        value: ValueId,
    },
    /// Deletes one cell.
    Delete {
        /// Which.
        cell: CellId,
    },
    /// Writes one cell if it has the expected value (either may be absent).
    Cas {
        /// Which.
        cell: CellId,
        /// The expected value.
        old: ValueId,
        /// The new value.
        new: ValueId,
    },
    /// Writes several cells, all or none.
    Bulk(Box<Bulk>),
    /// Reads several cells of one state.
    MultiGet(Box<[CellId]>),
    /// Deletes all columns of a key.
    DeleteRow {
        /// The key.
        row: RowId,
    },
    /// Reads columns of one key; both bounds open reads the row.
    Slice(Box<Slice>),
    /// Lists keys that have a column.
    Keys(Box<Range>),
    /// Lists cells.
    Scan(Box<Range>),
}

/// An atomic bulk write: where all conditions hold, rows are emptied, then cells written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bulk {
    /// All must hold.
    pub conditions: Vec<(CellId, Expected)>,
    /// Rows that are emptied first.
    pub rows: Vec<RowId>,
    /// Cells that are then written; the last one wins where a cell is named twice.
    pub cells: Vec<(CellId, ValueId)>,
}

/// A condition of a bulk write on one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The cell has this value (or is absent).
    Value(ValueId),
    /// The cell exists, with any value.
    Present,
    /// Something a history cannot judge, such as a version.
    Opaque,
}

/// A read of columns `start..=stop` of one key; an open bound is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The key.
    pub row: RowId,
    /// First column.
    pub start: Option<Box<str>>,
    /// Last column.
    pub stop: Option<Box<str>>,
}

/// A range of keys (of [`Call::Keys`]) or cells (of [`Call::Scan`], whose bounds are cells).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    /// Only keys that begin so.
    pub prefix: Box<str>,
    /// The first, inclusive.
    pub start: Option<Box<str>>,
    /// The last, inclusive.
    pub stop: Option<Box<str>>,
}

/// What a client was told of an operation that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To set, delete, delete row and bulk without conditions.
    Done,
    /// To get.
    Value(ValueId),
    /// To multi get: the cells asked for.
    Values(Box<[(CellId, ValueId)]>),
    /// To slice and scan: the cells found.
    Page {
        /// The cells that exist.
        cells: Box<[(CellId, ValueId)]>,
        /// Where the next page starts (a column for slice, a cell for scan), if it was cut.
        next: Option<Box<str>>,
    },
    /// To keys.
    Rows {
        /// The keys that exist.
        rows: Box<[RowId]>,
        /// Where the next page starts, if it was cut.
        next: Option<Box<str>>,
    },
    /// To compare-and-set and bulk with conditions.
    Tried {
        /// Whether the conditions held and it was applied.
        applied: bool,
        /// What was there instead, if the store said so (compare-and-set only).
        current: Option<ValueId>,
    },
    /// To bulk with conditions: it was not applied, and the store said which one did not hold.
    Refused {
        /// The cell of that condition.
        cell: CellId,
        /// What was there instead.
        current: ValueId,
    },
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended; at the end of the history that is the same as [`Outcome::Info`].
    Open,
    /// It took effect once between its invocation and now, with this answer.
    Ok(Answer),
    /// It certainly never took effect and never will.
    Fail,
    /// Unknown.
    Info,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub process: Process,
    /// For what.
    pub call: Call,
    /// What became of it.
    pub outcome: Outcome,
    /// Position of the invocation among the events.
    pub invoked: u32,
    /// Position of the end among the events.
    pub ended: Option<u32>,
}

/// Which end of an operation an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The client sent its request.
    Invoke,
    /// The client got an answer or gave up.
    End,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Of which operation.
    pub op: OpId,
    /// Which end of it.
    pub kind: EventKind,
    /// When, in nanoseconds of simulated time.
    pub time_ns: u64,
}

#[derive(Debug, Clone, Default)]
struct Names {
    texts: Vec<Arc<str>>,
    ids: BTreeMap<Arc<str>, u32>,
}

impl Names {
    fn intern(&mut self, text: &str) -> (u32, bool) {
        if let Some(&id) = self.ids.get(text) {
            return (id, false);
        }
        let id = number(self.texts.len());
        let shared: Arc<str> = Arc::from(text);
        self.texts.push(Arc::clone(&shared));
        self.ids.insert(shared, id);
        (id, true)
    }

    fn text(&self, id: u32) -> &str {
        &self.texts[id as usize]
    }
}

/// A recorded history. See the [module](self).
#[derive(Debug, Clone)]
pub struct History {
    ops: Vec<Operation>,
    events: Vec<Event>,
    cells: Names,
    row_of: Vec<RowId>,
    rows: Names,
    cells_of: Vec<Vec<CellId>>,
    values: Names,
    /// Bytes of each value, for those that were made here.
    lengths: BTreeMap<ValueId, usize>,
    busy: BTreeSet<Process>,
    retired: BTreeSet<Process>,
    next_process: u32,
    terms: BTreeMap<OpId, Terms>,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

/// Why an event cannot follow the events before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disorder {
    /// H1 broken: two operations in flight.
    #[error("process {0} has an operation in flight already")]
    Busy(u32),
    /// H1 broken: operation after an unknown outcome.
    #[error("process {0} was retired by an unknown outcome")]
    Retired(u32),
    /// H2 broken: an end without invocation.
    #[error("process {0} has no operation in flight")]
    Idle(u32),
    /// H2 broken: an answer of the wrong shape.
    #[error("the answer does not fit the operation of process {0}")]
    Shape(u32),
}

impl History {
    /// Starts an empty history: every cell is absent.
    pub fn new() -> Self {
        let mut values = Names::default();
        values.intern("\0absent");
        Self {
            ops: Vec::new(),
            events: Vec::new(),
            cells: Names::default(),
            row_of: Vec::new(),
            rows: Names::default(),
            cells_of: Vec::new(),
            values,
            lengths: BTreeMap::new(),
            busy: BTreeSet::new(),
            retired: BTreeSet::new(),
            next_process: 0,
            terms: BTreeMap::new(),
        }
    }

    /// Interns a cell by key and column; pass bytes through [`text`] first.
    pub fn cell(&mut self, key: &str, column: &str) -> CellId {
        self.cell_named(&format!("{key}/{column}"))
    }

    /// Interns a cell by its name in a file: `key/column`, or `key` for the empty column.
    pub fn cell_named(&mut self, name: &str) -> CellId {
        let (key, column) = split_cell(name);
        let (id, new) = self.cells.intern(&format!("{key}/{column}"));
        if new {
            let row = self.row(key);
            self.row_of.push(row);
            self.cells_of[row.0 as usize].push(CellId(id));
        }
        CellId(id)
    }

    /// Interns a row.
    pub fn row(&mut self, key: &str) -> RowId {
        let (id, new) = self.rows.intern(key);
        if new {
            self.cells_of.push(Vec::new());
        }
        RowId(id)
    }

    /// Interns a value.
    pub fn value(&mut self, text: &str) -> ValueId {
        ValueId(self.values.intern(text).0)
    }

    /// Returns the value of that name, if it was ever interned.
    pub fn value_named(&self, text: &str) -> Option<ValueId> {
        self.values.ids.get(text).copied().map(ValueId)
    }

    /// Interns the value of a name, and makes its bytes: `len` of them, or as many as its name has
    /// if that is more. Only these bytes will be recognised as that value.
    pub fn written_value(&mut self, name: &str, len: usize) -> (ValueId, String) {
        let (value, bytes) = (self.value(name), filler::filled(name, len));
        self.lengths.insert(value, bytes.len());
        (value, bytes)
    }

    /// Interns what was read: a value that was written, if these are its bytes from the first to
    /// the last; else a foreign one, which nobody wrote.
    pub fn read_value(&mut self, bytes: &[u8]) -> ValueId {
        match self.value_of(bytes) {
            Some(value) => value,
            None => self.value(&foreign(bytes)),
        }
    }

    /// Returns the value that was written with exactly these bytes, if one was.
    pub fn value_of(&self, bytes: &[u8]) -> Option<ValueId> {
        let named = |name: &str, len: Option<usize>| {
            let value = self.value_named(name);
            value.filter(|value| self.lengths.get(value).copied() == len)
        };
        let made = name_of(bytes).and_then(|name| named(name, Some(bytes.len())));
        // Who writes a history by hand names values and makes no bytes.
        made.or_else(|| named(&text(bytes), None))
    }

    /// Returns a process id that was never used.
    pub fn new_process(&mut self) -> Process {
        let process = Process(self.next_process);
        self.next_process += 1;
        process
    }

    /// Records that `process` asked for `call`; returns the name of the operation.
    pub fn invoke(&mut self, process: Process, call: Call, time_ns: u64) -> OpId {
        if let Err(disorder) = self.admits(process) {
            panic!("the workload broke H1: {disorder}");
        }
        let op = OpId(number(self.ops.len()));
        self.next_process = self.next_process.max(process.0 + 1);
        self.busy.insert(process);
        self.ops.push(Operation {
            process,
            call,
            outcome: Outcome::Open,
            invoked: number(self.events.len()),
            ended: None,
        });
        self.events.push(Event { op, kind: EventKind::Invoke, time_ns });
        op
    }

    /// Tells whether `process` may invoke now.
    pub fn admits(&self, process: Process) -> Result<(), Disorder> {
        if self.busy.contains(&process) {
            return Err(Disorder::Busy(process.0));
        }
        if self.retired.contains(&process) {
            return Err(Disorder::Retired(process.0));
        }
        Ok(())
    }

    /// Records that `op` took effect with `answer`.
    pub fn ok(&mut self, op: OpId, answer: Answer, time_ns: u64) {
        let call = &self.op(op).call;
        assert!(answer.fits(call), "H2: {answer:?} does not answer {call:?}");
        self.end(op, Outcome::Ok(answer), time_ns);
    }

    /// Records that `op` certainly was not applied.
    pub fn fail(&mut self, op: OpId, time_ns: u64) {
        self.end(op, Outcome::Fail, time_ns);
    }

    /// Records that nobody knows what became of `op`; retires its process and returns the one
    /// under which the client goes on.
    pub fn info(&mut self, op: OpId, time_ns: u64) -> Process {
        self.end(op, Outcome::Info, time_ns);
        let process = self.op(op).process;
        self.retired.insert(process);
        self.new_process()
    }

    /// Notes the terms of an operation; later ones replace those of its invocation.
    pub fn set_terms(&mut self, op: OpId, terms: Terms) {
        self.terms.insert(op, terms);
    }

    /// Returns the terms of an operation, if it has any.
    pub fn terms(&self, op: OpId) -> Option<&Terms> {
        self.terms.get(&op)
    }

    fn end(&mut self, id: OpId, outcome: Outcome, time_ns: u64) {
        let position = number(self.events.len());
        let op = &mut self.ops[id.0 as usize];
        assert!(op.ended.is_none(), "H2: {id:?} ended twice: {:?}, then {outcome:?}", op.outcome);
        op.outcome = outcome;
        op.ended = Some(position);
        self.busy.remove(&op.process);
        self.events.push(Event { op: id, kind: EventKind::End, time_ns });
    }

    /// Returns the history as it was after its first `events` events.
    #[must_use]
    pub fn prefix(&self, events: usize) -> Self {
        let mut prefix = self.clone();
        prefix.events.truncate(events);
        prefix.ops.retain(|op| (op.invoked as usize) < events);
        let op_count = number(prefix.ops.len());
        prefix.terms.retain(|op, _| op.0 < op_count);
        for op in &mut prefix.ops {
            if op.ended.is_some_and(|ended| ended as usize >= events) {
                (op.outcome, op.ended) = (Outcome::Open, None);
            }
        }
        let open = prefix.ops.iter().filter(|op| op.ended.is_none());
        prefix.busy = open.map(|op| op.process).collect();
        let unknown = prefix.ops.iter().filter(|op| op.outcome == Outcome::Info);
        prefix.retired = unknown.map(|op| op.process).collect();
        prefix
    }

    /// Returns all operations in order of invocation.
    pub fn ops(&self) -> &[Operation] {
        &self.ops
    }

    /// Returns all events in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Returns the position of the first event after a time.
    pub fn first_after(&self, time_ns: u64) -> u32 {
        number(self.events.partition_point(|event| event.time_ns <= time_ns))
    }

    /// Returns one operation.
    pub fn op(&self, op: OpId) -> &Operation {
        &self.ops[op.0 as usize]
    }

    /// Returns how many different cells were named.
    pub fn cell_count(&self) -> usize {
        self.row_of.len()
    }

    /// Returns how many different rows were named.
    pub fn row_count(&self) -> usize {
        self.cells_of.len()
    }

    /// Returns the row of a cell.
    pub fn row_of(&self, cell: CellId) -> RowId {
        self.row_of[cell.0 as usize]
    }

    /// Returns the cells of a row that the history names.
    pub fn cells_of(&self, row: RowId) -> &[CellId] {
        &self.cells_of[row.0 as usize]
    }

    /// Returns the name of a cell, `key/column`.
    pub fn cell_text(&self, cell: CellId) -> &str {
        self.cells.text(cell.0)
    }

    /// Returns the key of a row.
    pub fn row_text(&self, row: RowId) -> &str {
        self.rows.text(row.0)
    }

    /// Returns the text of a value, `None` if it stands for an absent cell.
    pub fn value_text(&self, value: ValueId) -> Option<&str> {
        (value != ValueId::ABSENT).then(|| self.values.text(value.0))
    }

    /// Returns the cells that a slice, scan or row read covers, up to where its page was cut.
    pub fn covered(&self, call: &Call, next: Option<&str>) -> Vec<CellId> {
        match call {
            Call::Slice(slice) => {
                let inside = |cell: &CellId| {
                    let column = split_cell(self.cell_text(*cell)).1;
                    slice.start.as_deref().is_none_or(|start| start <= column)
                        && slice.stop.as_deref().is_none_or(|stop| column <= stop)
                        && next.is_none_or(|next| column < next)
                };
                self.cells_of(slice.row).iter().copied().filter(inside).collect()
            }
            Call::Scan(range) => {
                let inside = |cell: &CellId| {
                    let place = split_cell(self.cell_text(*cell));
                    place.0.starts_with(&*range.prefix)
                        && range.start.as_deref().is_none_or(|start| split_cell(start) <= place)
                        && range.stop.as_deref().is_none_or(|stop| place <= split_cell(stop))
                        && next.is_none_or(|next| place < split_cell(next))
                };
                (0..number(self.cell_count())).map(CellId).filter(inside).collect()
            }
            Call::Get { cell }
            | Call::Set { cell, .. }
            | Call::Delete { cell }
            | Call::Cas { cell, .. } => vec![*cell],
            Call::MultiGet(cells) => cells.to_vec(),
            Call::Bulk(bulk) => bulk.cells.iter().map(|(cell, _)| *cell).collect(),
            Call::DeleteRow { row } => self.cells_of(*row).to_vec(),
            Call::Keys(_) => Vec::new(),
        }
    }

    /// Returns the rows that a listing of keys covers, up to where its page was cut.
    pub fn covered_rows(&self, range: &Range, next: Option<&str>) -> Vec<RowId> {
        let inside = |row: &RowId| {
            let key = self.row_text(*row);
            key.starts_with(&*range.prefix)
                && range.start.as_deref().is_none_or(|start| start <= key)
                && range.stop.as_deref().is_none_or(|stop| key <= stop)
                && next.is_none_or(|next| key < next)
        };
        (0..number(self.row_count())).map(RowId).filter(inside).collect()
    }

    /// Describes an operation for a person: who, what, when, and what became of it.
    pub fn describe(&self, op: OpId) -> String {
        let operation = self.op(op);
        let name = jsonl::f(&operation.call);
        let key = jsonl::key(self, &operation.call);
        let value = jsonl::asked(self, &operation.call);
        let key = key.as_str().map_or(String::new(), |key| format!(" {key}"));
        let value = if value.is_null() { String::new() } else { format!(" {value}") };
        let outcome = match &operation.outcome {
            Outcome::Open => "no answer".to_owned(),
            Outcome::Fail => "failed".to_owned(),
            Outcome::Info => "unknown".to_owned(),
            Outcome::Ok(Answer::Done) => "ok".to_owned(),
            Outcome::Ok(Answer::Tried { applied: true, .. }) => "applied".to_owned(),
            Outcome::Ok(Answer::Tried { applied: false, .. }) => "not applied".to_owned(),
            Outcome::Ok(Answer::Refused { cell, current }) => {
                let (cell, value) = (self.cell_text(*cell), self.value_text(*current));
                format!("not applied, {cell} = {}", value.unwrap_or("absent"))
            }
            Outcome::Ok(answer) => {
                format!("ok {}", jsonl::answered(self, &operation.call, answer))
            }
        };
        let ended = operation.ended.map_or(String::new(), |ended| ended.to_string());
        let process = operation.process.0;
        let invoked = operation.invoked;
        let terms = self.terms(op).map_or(String::new(), |terms| {
            let stamp = terms.stamp.map_or(String::new(), |stamp| format!(", stamp {stamp}"));
            format!(" at {:?}{stamp}", terms.level)
        });
        format!(
            "process {process} {name}{key}{value} → {outcome}{terms} (events {invoked}–{ended})"
        )
    }
}

impl Answer {
    /// Tells whether it says that a condition did not hold, so that nothing took effect.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Tried { applied: false, .. } | Self::Refused { .. })
    }

    /// Tells whether this is the shape of an answer to `call`.
    pub fn fits(&self, call: &Call) -> bool {
        match call {
            Call::Get { .. } => matches!(self, Self::Value(_)),
            Call::Set { .. } | Call::Delete { .. } | Call::DeleteRow { .. } => {
                matches!(self, Self::Done)
            }
            Call::Cas { .. } => matches!(self, Self::Tried { .. }),
            Call::Bulk(bulk) if bulk.conditions.is_empty() => matches!(self, Self::Done),
            Call::Bulk(_) => {
                matches!(self, Self::Tried { current: None, .. } | Self::Refused { .. })
            }
            Call::MultiGet(_) => matches!(self, Self::Values(_)),
            Call::Slice(_) | Call::Scan(_) => matches!(self, Self::Page { .. }),
            Call::Keys(_) => matches!(self, Self::Rows { .. }),
        }
    }
}

/// Splits the name of a cell into key and column.
pub fn split_cell(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((name, ""))
}

/// Turns bytes into the text of a key, column or value, one to one: `%`, `/`, `*` and what is not
/// printable ASCII is written as `%` and two hexadecimal digits. The order of plain names is kept.
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if (b' '..=b'~').contains(&byte) && !matches!(byte, b'%' | b'/' | b'*') {
            text.push(char::from(byte));
        } else {
            text.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }
    text
}

/// Names what no client wrote. No written value has such a name.
fn foreign(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    format!("?{} ({} bytes)", text(shown), bytes.len())
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('?').to_ascii_uppercase()
}

/// Numbers an element of a list; a history of more than four billion does not fit in memory.
fn number(len: usize) -> u32 {
    assert!(u32::try_from(len).is_ok(), "history of {len} elements is too long");
    u32::try_from(len).unwrap_or(u32::MAX)
}
