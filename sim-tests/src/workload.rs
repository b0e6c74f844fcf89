//! The load: client processes that use the shipped client library and record what they are told.
//!
//! Each process asks one request after the other, with random pauses. All share a *window* of a
//! few keys, so that they meet; the window moves on to new keys every so often, so that the
//! histories of single keys stay short enough to be checked. Written values are unique within a
//! run, so that every read tells which write it saw.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mangrove::base::{Column, Index, Key, Rng, Stamp, Value};
use mangrove::client::{BatchBuilder, CasResult, Client, ClientError, ClientOptions};
use mangrove::dynamo::Level;
use mangrove::env::Env;
use mangrove::kv::{Cell, Expectation, Version};
use mangrove::wire::Outcome;

use crate::check::masterless::stores::PADDING;
use crate::history::{
    Answer, Bulk, Call, CellId, History, OpId, Process, Session, Slice, Terms, ValueId, text,
};
use crate::masterless::options::LevelMix;
use crate::options::{Options, RequestMix};

/// Operations on one window of keys before it moves on.
const WINDOW_OPERATIONS: u64 = 250;

/// Columns that cells of one key are spread over; the first is plain key-value data.
const COLUMNS: [&str; 3] = ["", "a", "b"];

/// What all client processes of a run share.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    key_count: u64,
    value_bytes_max: u64,
}

#[derive(Debug)]
struct State {
    history: History,
    operations: u64,
    values: u64,
    stopped: bool,
    acknowledged: u64,
    versions: Vec<Index>,
    /// What the answer that is being taken in tells of stamps.
    told: Told,
}

/// What an answer tells of stamps.
#[derive(Debug, Default)]
struct Told {
    written: Option<Stamp>,
    found: BTreeMap<CellId, Stamp>,
}

/// A cell of the current window.
struct Place {
    key: String,
    column: &'static str,
    id: CellId,
}

impl Shared {
    /// Starts with an empty history.
    pub fn new(options: &Options) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                history: History::new(),
                operations: 0,
                values: 0,
                stopped: false,
                acknowledged: 0,
                versions: Vec::new(),
                told: Told::default(),
            }),
            key_count: options.key_count,
            value_bytes_max: options.tuning.value_bytes_max,
        })
    }

    /// Tells all processes to end after their current request.
    pub fn stop(&self) {
        self.lock().stopped = true;
    }

    /// Returns how many requests were answered.
    pub fn acknowledged(&self) -> u64 {
        self.lock().acknowledged
    }

    /// Returns the log index of every acknowledged write.
    pub fn acknowledged_writes(&self) -> Vec<Index> {
        self.lock().versions.clone()
    }

    /// Returns a copy of the history so far.
    pub fn history(&self) -> History {
        self.lock().history.clone()
    }

    /// Returns how many events the history has.
    pub fn event_count(&self) -> u32 {
        u32::try_from(self.lock().history.events().len()).unwrap_or(u32::MAX)
    }

    /// Takes the history out.
    pub fn take_history(&self) -> History {
        std::mem::take(&mut self.lock().history)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn place(&mut self, rng: &mut Rng, key_count: u64) -> Place {
        let window = self.operations / WINDOW_OPERATIONS;
        let key = format!("k{window}-{}", rng.range(0, key_count));
        // Most data is plain; columns are for slices and bulks.
        let column = if rng.chance(0.7) { "" } else { COLUMNS[rng.index(COLUMNS.len())] };
        let id = self.history.cell(&key, column);
        Place { key, column, id }
    }

    /// Draws a value that nobody has written; returns its name and its bytes.
    fn value(&mut self, rng: &mut Rng, bytes_max: u64) -> (ValueId, String) {
        self.values += 1;
        let mut bytes = format!("v{}", self.values);
        let id = self.history.value(&bytes);
        let len = usize::try_from(rng.range(8, bytes_max.max(9))).unwrap_or(8);
        while bytes.len() < len {
            bytes.push(PADDING);
        }
        (id, bytes)
    }

    fn written(&mut self, version: Version) -> Answer {
        self.versions.push(version.0);
        self.told.written = Some(Stamp::from_version(version.0));
        Answer::Done
    }

    /// Notes what the answer to `op` told of stamps; returns the largest.
    fn note_told(&mut self, op: OpId) -> Stamp {
        let told = std::mem::take(&mut self.told);
        let Some(mut terms) = self.history.terms(op).cloned() else { return Stamp::ZERO };
        terms.seen = told.found.values().copied().max().unwrap_or_default();
        terms.stamp = told.written;
        terms.found = told.found;
        let largest = terms.seen.max(told.written.unwrap_or_default());
        self.history.set_terms(op, terms);
        largest
    }

    /// Takes in what was found in a cell.
    fn found(&mut self, id: CellId, cell: Option<&Cell>) -> ValueId {
        if let Some(cell) = cell {
            self.told.found.insert(id, Stamp::from_version(cell.version.0));
        }
        self.read(cell)
    }

    fn read(&mut self, cell: Option<&Cell>) -> ValueId {
        match cell {
            Some(cell) => {
                let read = text(cell.value.as_bytes());
                self.history.value(read.trim_end_matches(PADDING))
            }
            None => ValueId::ABSENT,
        }
    }
}

/// One client process.
pub struct ClientProcess<E: Env> {
    env: E,
    client: Client<E>,
    addresses: Vec<String>,
    shared: Arc<Shared>,
    rng: Rng,
    process: Process,
    mix: RequestMix,
    think_time: Duration,
    /// What the masterless mode adds.
    strength: Option<Strength>,
    /// Returns the time of the run in nanoseconds, the same for all processes.
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// How strong the answers must be that a process asks for.
struct Strength {
    levels: LevelMix,
    rng: Rng,
    session: Session,
    /// The client promises that it reads its own writes and never goes back, at any level.
    is_bound: bool,
    /// The largest stamp that it was told.
    token: Stamp,
    /// Of the present request.
    level: Level,
}

impl Strength {
    fn draw(options: &Options, process: Process) -> Option<Self> {
        let masterless = options.masterless.as_ref()?;
        let mut rng = Rng::new(options.seed).split(&format!("client.{}.levels", process.0));
        Some(Self {
            levels: masterless.levels,
            is_bound: rng.chance(masterless.session_chance),
            rng,
            session: Session(process.0),
            token: Stamp::ZERO,
            level: Level::Quorum,
        })
    }
}

/// Requests that a process may draw.
#[derive(Clone, Copy)]
enum Kind {
    Get,
    Set,
    Delete,
    Cas,
    BulkSet,
    MultiGet,
    Row,
    DeleteRow,
    Status,
}

impl<E: Env> ClientProcess<E> {
    /// Makes a process that talks to the nodes at `addresses`.
    pub fn new(
        env: &E,
        addresses: Vec<String>,
        options: &Options,
        shared: &Arc<Shared>,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        let process = shared.lock().history.new_process();
        let strength = Strength::draw(options, process);
        let limits = ClientOptions {
            connect_timeout: Duration::from_millis(500),
            try_timeout: match &options.masterless {
                Some(masterless) => masterless.request_timeout * 2,
                None => options.tuning.election_timeout * 2,
            },
            request_timeout: Duration::from_secs(5),
            session: strength.as_ref().is_some_and(|strength| strength.is_bound),
            ..ClientOptions::default()
        };
        Self {
            strength,
            client: Client::connect(env.clone(), addresses.clone(), limits),
            addresses,
            env: env.clone(),
            shared: Arc::clone(shared),
            rng: Rng::new(options.seed).split(&format!("client.{}", process.0)),
            process,
            mix: options.mix,
            think_time: options.think_time,
            clock,
        }
    }

    /// Asks until the load is stopped.
    pub async fn run(mut self) {
        while !self.shared.lock().stopped {
            let think = self.think_time;
            let pause = self.rng.duration(Duration::ZERO, think * 2);
            self.env.sleep(pause).await;
            let kind = self.draw_kind();
            self.request(kind).await;
        }
    }

    /// Reads every cell that the history knows, once; retries until `attempts` are used up.
    ///
    /// Returns false if some cell could not be read.
    pub async fn read_everything(&mut self, attempts: u32) -> bool {
        let cells: Vec<CellId> = {
            let state = self.shared.lock();
            let count = u32::try_from(state.history.cell_count()).unwrap_or(u32::MAX);
            (0..count).map(CellId).collect()
        };
        for chunk in cells.chunks(16) {
            let mut left = attempts;
            while !self.multi_get(chunk.to_vec()).await {
                left -= 1;
                if left == 0 {
                    return false;
                }
            }
        }
        true
    }

    /// Asks at that level from now on; only the masterless mode has levels.
    pub fn ask_at(&mut self, level: Level) {
        if let Some(strength) = &mut self.strength {
            strength.level = level;
            self.client = self.client.with_level(level);
        }
    }

    /// Waits.
    pub async fn pause(&self, length: Duration) {
        self.env.sleep(length).await;
    }

    /// Sets one fresh cell; returns whether it was acknowledged.
    pub async fn set_one(&mut self) -> bool {
        let before = self.shared.acknowledged();
        self.request(Kind::Set).await;
        self.shared.acknowledged() > before
    }

    fn draw_kind(&mut self) -> Kind {
        let RequestMix { get, set, delete, delete_row, cas, bulk_set, multi_get, status } =
            self.mix;
        let weights = [
            (Kind::Get, get),
            (Kind::Set, set),
            (Kind::Delete, delete),
            (Kind::Cas, cas),
            (Kind::BulkSet, bulk_set),
            (Kind::MultiGet, multi_get),
            (Kind::Row, multi_get.min(1)),
            (Kind::DeleteRow, delete_row),
            (Kind::Status, status),
        ];
        let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.range(0, total);
        for (kind, weight) in weights {
            if drawn < weight {
                return kind;
            }
            drawn -= weight;
        }
        Kind::Get
    }

    async fn request(&mut self, kind: Kind) {
        self.shared.lock().operations += 1;
        if let Some(strength) = &mut self.strength {
            let level = strength.levels.draw(&mut strength.rng);
            self.ask_at(level);
        }
        match kind {
            Kind::Get => self.get().await,
            Kind::Set => self.set().await,
            Kind::Delete => self.delete().await,
            Kind::Cas => self.compare_and_set().await,
            Kind::BulkSet => self.bulk_set().await,
            Kind::MultiGet => {
                let count = self.rng.range(2, 5);
                let cells = (0..count).map(|_| self.draw_place().id).collect();
                self.multi_get(cells).await;
            }
            Kind::Row => self.row().await,
            Kind::DeleteRow => self.delete_row().await,
            Kind::Status => self.status().await,
        }
    }

    async fn get(&mut self) {
        let place = self.draw_place();
        let op = self.invoke(Call::Get { cell: place.id });
        let result = self.client.get_cell(place.key, place.column).await;
        self.end(op, result, |state, cell| Answer::Value(state.found(place.id, cell.as_ref())));
    }

    async fn set(&mut self) {
        let place = self.draw_place();
        let (value, bytes) = self.draw_value();
        let op = self.invoke(Call::Set { cell: place.id, value });
        let result = self.client.set_cell(place.key, place.column, bytes).await;
        self.end(op, result, State::written);
    }

    async fn delete(&mut self) {
        let place = self.draw_place();
        let op = self.invoke(Call::Delete { cell: place.id });
        let result = self.client.delete_cell(place.key, place.column).await;
        self.end(op, result, State::written);
    }

    async fn delete_row(&mut self) {
        let place = self.draw_place();
        let row = self.shared.lock().history.row(&place.key);
        let op = self.invoke(Call::DeleteRow { row });
        let result = self.client.delete_row(place.key).await;
        self.end(op, result, State::written);
    }

    async fn compare_and_set(&mut self) {
        // Reads first, so that the expectation has a chance to hold.
        let place = self.draw_place();
        let op = self.invoke(Call::Get { cell: place.id });
        let result = self.client.get_cell(place.key.clone(), place.column).await;
        let seen = result.as_ref().ok().cloned();
        self.end(op, result, |state, cell| Answer::Value(state.read(cell.as_ref())));
        let Some(seen) = seen else { return };
        let old = self.shared.lock().read(seen.as_ref());
        let (new, bytes) = self.draw_value();
        let expected = match seen {
            Some(cell) => Expectation::Value(cell.value),
            None => Expectation::Absent,
        };
        let op = self.invoke(Call::Cas { cell: place.id, old, new });
        let new = Value::new(bytes).ok();
        let result = self.client.compare_and_set(place.key, place.column, expected, new).await;
        self.end(op, result, |state, result| match result {
            CasResult::Applied(version) => {
                state.versions.push(version.0);
                Answer::Tried { applied: true, current: None }
            }
            CasResult::Conflict { current, .. } => {
                Answer::Tried { applied: false, current: Some(state.read(current.as_ref())) }
            }
        });
    }

    async fn bulk_set(&mut self) {
        let mut builder = BatchBuilder::new();
        let mut bulk = Bulk::default();
        for _ in 0..self.rng.range(2, 6) {
            let place = self.draw_place();
            if self.rng.chance(0.8) {
                let (value, bytes) = self.draw_value();
                bulk.cells.push((place.id, value));
                builder = builder.set_cell(place.key, place.column, bytes);
            } else {
                bulk.cells.push((place.id, ValueId::ABSENT));
                builder = builder.delete_cell(place.key, place.column);
            }
        }
        let Ok(batch) = builder.build() else { return };
        let op = self.invoke(Call::Bulk(Box::new(bulk)));
        let result = self.client.bulk_set(batch).await;
        self.end(op, result, State::written);
    }

    /// Reads several cells; returns whether that was answered.
    async fn multi_get(&mut self, mut cells: Vec<CellId>) -> bool {
        cells.sort_unstable();
        cells.dedup();
        let places = cells.iter().map(|cell| self.place_of(*cell)).collect();
        let op = self.invoke(Call::MultiGet(cells.clone().into_boxed_slice()));
        let result = self.client.multi_get(places).await;
        let answered = result.is_ok();
        self.end(op, result, |state, found| {
            let values = cells.iter().zip(&found);
            let values = values.map(|(cell, found)| (*cell, state.found(*cell, found.as_ref())));
            Answer::Values(values.collect())
        });
        answered
    }

    async fn row(&mut self) {
        let place = self.draw_place();
        let row = self.shared.lock().history.row(&place.key);
        let op = self.invoke(Call::Slice(Box::new(Slice { row, start: None, stop: None })));
        let result = self.client.row(place.key.clone()).await;
        self.end(op, result, |state, columns| {
            let cells = columns.iter().map(|(column, cell)| {
                let id = state.history.cell(&text(place.key.as_bytes()), &text(column.as_bytes()));
                (id, state.found(id, Some(cell)))
            });
            Answer::Page { cells: cells.collect(), next: None }
        });
    }

    /// Asks one node how it is, as an operator would; it must not claim what cannot be.
    async fn status(&mut self) {
        let at = self.rng.index(self.addresses.len());
        let Some(address) = self.addresses.get(at) else { return };
        let Ok(status) = self.client.status(address).await else { return };
        assert!(
            status.applied_index <= status.commit_index.max(status.snapshot_index),
            "{address} has applied more than is committed: {status:?}"
        );
    }

    fn place_of(&self, cell: CellId) -> (Key, Column) {
        let state = self.shared.lock();
        let name = state.history.cell_text(cell);
        let (key, column) = name.split_once('/').unwrap_or((name, ""));
        let key = Key::new(key.to_owned()).unwrap_or_default();
        (key, Column::new(column.to_owned()).unwrap_or_default())
    }

    fn draw_place(&mut self) -> Place {
        self.shared.lock().place(&mut self.rng, self.shared.key_count)
    }

    fn draw_value(&mut self) -> (ValueId, String) {
        self.shared.lock().value(&mut self.rng, self.shared.value_bytes_max)
    }

    fn invoke(&mut self, call: Call) -> OpId {
        let now = (self.clock)();
        let mut state = self.shared.lock();
        let op = state.history.invoke(self.process, call, now);
        if let Some(strength) = &self.strength {
            let mut terms = Terms::asked(strength.level, strength.session, strength.token);
            terms.is_bound = strength.is_bound;
            state.history.set_terms(op, terms);
        }
        op
    }

    fn end<T>(
        &mut self,
        op: OpId,
        result: Result<T, ClientError>,
        answer: impl FnOnce(&mut State, T) -> Answer,
    ) {
        let now = (self.clock)();
        let mut state = self.shared.lock();
        match result {
            Ok(found) => {
                state.told = Told::default();
                let answer = answer(&mut state, found);
                if let Some(strength) = &mut self.strength {
                    strength.token = state.note_told(op).max(strength.token);
                }
                state.history.ok(op, answer, now);
                state.acknowledged += 1;
            }
            Err(error) => match error.outcome() {
                Outcome::NotApplied => state.history.fail(op, now),
                Outcome::Unknown => self.process = state.history.info(op, now),
            },
        }
    }
}
