//! Random small histories, half of them right: a simulated atomic store with slow, lost and unknown
//! answers, and then now and then a wrong answer.

use mangrove::base::Rng;
use sim_tests::history::{
    Answer, Bulk, Call, CellId, Expected, History, OpId, Outcome, Process, Range, RowId, Slice,
    ValueId,
};

use crate::check_naive::run;

/// The kind of history to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Rows.
    pub(crate) rows: usize,
    /// Columns of each.
    pub(crate) columns: usize,
    /// Values that are written more than once; 0: every written value is new.
    pub(crate) values: usize,
    /// Processes that are never retired.
    pub(crate) processes: usize,
    /// Operations.
    pub(crate) ops: usize,
    /// How often an outcome is unknown.
    pub(crate) info: f64,
    /// What operations on several cells occur.
    pub(crate) reach: Reach,
}

/// How far an operation reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// One cell.
    Cell,
    /// Some cells of one row.
    Row,
    /// Some cells.
    Map,
    /// Some cells, and listings of all.
    Listings,
    /// Mostly writes of one cell on condition of another.
    Cross,
}

struct Flight {
    op: OpId,
    process: usize,
    answer: Option<Answer>,
    fate: Fate,
}

#[derive(PartialEq)]
enum Fate {
    Ok,
    Info,
    Fail,
}

struct Maker<'a> {
    rng: &'a mut Rng,
    shape: Shape,
    history: History,
    cells: Vec<CellId>,
    rows: Vec<RowId>,
    written: Vec<ValueId>,
    state: Vec<ValueId>,
    processes: Vec<Option<Process>>,
    flights: Vec<Flight>,
    limbo: Vec<OpId>,
    time: u64,
}

/// Makes a history of that shape.
pub(crate) fn history(rng: &mut Rng, shape: Shape) -> History {
    let mut maker = Maker::new(rng, shape);
    while maker.history.ops().len() < shape.ops || !maker.flights.is_empty() {
        maker.step();
    }
    maker.history
}

impl<'a> Maker<'a> {
    fn new(rng: &'a mut Rng, shape: Shape) -> Self {
        let mut history = History::new();
        let mut cells = Vec::new();
        let mut rows = Vec::new();
        for row in 0..shape.rows {
            rows.push(history.row(&format!("k{row}")));
            for column in 0..shape.columns {
                cells.push(history.cell(&format!("k{row}"), &format!("c{column}")));
            }
        }
        let written = (0..shape.values).map(|value| history.value(&format!("v{value}"))).collect();
        let processes = (0..shape.processes).map(|_| Some(history.new_process())).collect();
        let state = vec![ValueId::ABSENT; cells.len()];
        Self {
            rng,
            shape,
            history,
            cells,
            rows,
            written,
            state,
            processes,
            flights: Vec::new(),
            limbo: Vec::new(),
            time: 0,
        }
    }

    fn step(&mut self) {
        self.time += 1;
        if !self.limbo.is_empty() && self.rng.chance(0.1) {
            let position = self.rng.index(self.limbo.len());
            let op = self.limbo.swap_remove(position);
            self.take_effect(op);
            return;
        }
        let idle: Vec<usize> =
            (0..self.processes.len()).filter(|slot| self.processes[*slot].is_some()).collect();
        let more = self.history.ops().len() < self.shape.ops && !idle.is_empty();
        if more && (self.flights.is_empty() || self.rng.chance(0.45)) {
            let slot = idle[self.rng.index(idle.len())];
            self.invoke(slot);
        } else if !self.flights.is_empty() {
            let position = self.rng.index(self.flights.len());
            self.advance(position);
        }
    }

    fn invoke(&mut self, slot: usize) {
        let call = self.call();
        let Some(process) = self.processes[slot].take() else { return };
        let op = self.history.invoke(process, call, self.time);
        let fate = match self.rng.unit() {
            drawn if drawn < self.shape.info => Fate::Info,
            drawn if drawn > 0.97 => Fate::Fail,
            _ => Fate::Ok,
        };
        self.flights.push(Flight { op, process: slot, answer: None, fate });
    }

    /// Lets an operation take effect, or end if it has.
    fn advance(&mut self, position: usize) {
        let flight = &self.flights[position];
        let (op, slot) = (flight.op, flight.process);
        let process = self.history.op(op).process;
        match (&flight.fate, flight.answer.is_some()) {
            (Fate::Fail, _) => {
                self.history.fail(op, self.time);
                self.processes[slot] = Some(process);
            }
            (Fate::Info, _) => {
                self.limbo.push(op);
                self.processes[slot] = Some(self.history.info(op, self.time));
            }
            (Fate::Ok, false) => {
                let answer = self.take_effect(op);
                self.flights[position].answer = Some(answer);
                return;
            }
            (Fate::Ok, true) => {
                let answer = self.flights[position].answer.take();
                self.history.ok(op, answer.unwrap_or(Answer::Done), self.time);
                self.processes[slot] = Some(process);
            }
        }
        self.flights.swap_remove(position);
    }

    fn take_effect(&mut self, op: OpId) -> Answer {
        let mut results = run(&self.history, &self.history.op(op).call, &self.state);
        let (state, answer) = results.swap_remove(self.rng.index(results.len()));
        self.state = state;
        if let Answer::Tried { applied: false, current } = answer {
            let told = self.rng.chance(0.3);
            return Answer::Tried { applied: false, current: current.filter(|_| told) };
        }
        answer
    }

    fn a_cell(&mut self) -> CellId {
        self.cells[self.rng.index(self.cells.len())]
    }

    fn new_value(&mut self) -> ValueId {
        if self.shape.values > 0 {
            return self.written[self.rng.index(self.written.len())];
        }
        let value = self.history.value(&format!("u{}", self.written.len()));
        self.written.push(value);
        value
    }

    fn old_value(&mut self) -> ValueId {
        if self.written.is_empty() || self.rng.chance(0.25) {
            return ValueId::ABSENT;
        }
        self.written[self.rng.index(self.written.len())]
    }

    fn some_cells(&mut self) -> Vec<CellId> {
        let mut cells = self.cells.clone();
        if self.shape.reach == Reach::Row {
            let row = self.rows[self.rng.index(self.rows.len())];
            cells = self.history.cells_of(row).to_vec();
        }
        while cells.len() > 1 && (cells.len() > 3 || self.rng.chance(0.4)) {
            cells.swap_remove(self.rng.index(cells.len()));
        }
        cells
    }

    fn call(&mut self) -> Call {
        let kinds = match self.shape.reach {
            Reach::Cell => 10,
            Reach::Cross if self.rng.chance(0.5) => return Call::Bulk(Box::new(self.cross())),
            Reach::Cross => 8,
            Reach::Row | Reach::Map => 16,
            Reach::Listings => 17,
        };
        match self.rng.range(0, kinds) {
            0..=2 => Call::Get { cell: self.a_cell() },
            3..=6 => Call::Set { cell: self.a_cell(), value: self.new_value() },
            7 => Call::Delete { cell: self.a_cell() },
            8 | 9 => {
                Call::Cas { cell: self.a_cell(), old: self.old_value(), new: self.new_value() }
            }
            10 | 11 => Call::MultiGet(self.some_cells().into()),
            12..=14 => Call::Bulk(Box::new(self.bulk())),
            15 => {
                let row = self.rows[self.rng.index(self.rows.len())];
                let start = self.rng.chance(0.5).then(|| Box::from("c1"));
                Call::Slice(Box::new(Slice { row, start, stop: None }))
            }
            _ => match self.rng.range(0, 3) {
                0 => Call::DeleteRow { row: self.rows[self.rng.index(self.rows.len())] },
                1 => Call::Keys(Box::default()),
                _ => Call::Scan(Box::new(Range { prefix: "k".into(), ..Range::default() })),
            },
        }
    }

    fn cross(&mut self) -> Bulk {
        let mut bulk = Bulk::default();
        let expected = match self.rng.range(0, 4) {
            0 => Expected::Present,
            _ => Expected::Value(self.old_value()),
        };
        bulk.conditions.push((self.a_cell(), expected));
        bulk.cells.push((self.a_cell(), self.new_value()));
        if self.rng.chance(0.2) {
            bulk.cells.push((self.a_cell(), self.new_value()));
        }
        bulk
    }

    fn bulk(&mut self) -> Bulk {
        let mut bulk = Bulk::default();
        for cell in self.some_cells() {
            let value = if self.rng.chance(0.2) { ValueId::ABSENT } else { self.new_value() };
            bulk.cells.push((cell, value));
        }
        if self.shape.reach != Reach::Row && self.rng.chance(0.1) {
            bulk.rows.push(self.rows[self.rng.index(self.rows.len())]);
        }
        while self.rng.chance(0.5) && bulk.conditions.len() < 2 {
            let expected = match self.rng.range(0, 8) {
                0 => Expected::Opaque,
                1 | 2 => Expected::Present,
                _ => Expected::Value(self.old_value()),
            };
            let cell = match self.shape.reach {
                // Groups stay as small as the rows.
                Reach::Row => bulk.cells.first().map(|(cell, _)| *cell),
                Reach::Cell | Reach::Map | Reach::Listings | Reach::Cross => None,
            };
            let cell = cell.unwrap_or_else(|| self.a_cell());
            bulk.conditions.push((cell, expected));
        }
        bulk
    }
}

/// Returns the history with the answers of some operations changed: often no longer linearizable.
pub(crate) fn spoil(rng: &mut Rng, history: &History) -> History {
    let mut spoilt = History::new();
    let mut values = vec![ValueId::ABSENT];
    for op in history.ops() {
        if let Call::Set { value, .. } | Call::Cas { new: value, .. } = &op.call {
            values.push(*value);
        }
        if let Call::Bulk(bulk) = &op.call {
            values.extend(bulk.cells.iter().map(|(_, value)| *value));
        }
    }
    spoilt.clone_from(&history.prefix(0));
    for event in history.events() {
        let op = history.op(event.op);
        if op.invoked as usize == spoilt.events().len() {
            spoilt.invoke(op.process, op.call.clone(), event.time_ns);
            continue;
        }
        match &op.outcome {
            Outcome::Fail => spoilt.fail(event.op, event.time_ns),
            // What took effect perhaps is now said not to have.
            Outcome::Info if rng.chance(0.3) => spoilt.fail(event.op, event.time_ns),
            Outcome::Open | Outcome::Info => {
                spoilt.info(event.op, event.time_ns);
            }
            Outcome::Ok(answer) => {
                let mut answer = answer.clone();
                if rng.chance(0.4) {
                    change(rng, &mut answer, &values);
                }
                spoilt.ok(event.op, answer, event.time_ns);
            }
        }
    }
    spoilt
}

fn change(rng: &mut Rng, answer: &mut Answer, values: &[ValueId]) {
    match answer {
        Answer::Value(value) => *value = values[rng.index(values.len())],
        Answer::Values(cells) if !cells.is_empty() => {
            cells[rng.index(cells.len())].1 = values[rng.index(values.len())];
        }
        Answer::Page { cells, .. } if !cells.is_empty() => {
            let mut fewer = cells.to_vec();
            fewer.swap_remove(rng.index(fewer.len()));
            *cells = fewer.into();
        }
        Answer::Rows { rows, .. } if !rows.is_empty() => {
            let mut fewer = rows.to_vec();
            fewer.swap_remove(rng.index(fewer.len()));
            *rows = fewer.into();
        }
        Answer::Tried { applied, current } => {
            *applied = !*applied;
            *current = None;
        }
        Answer::Done
        | Answer::Values(_)
        | Answer::Page { .. }
        | Answer::Rows { .. }
        | Answer::Refused { .. } => {}
    }
}
