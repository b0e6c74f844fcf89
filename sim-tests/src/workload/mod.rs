//! The load: client processes that use the shipped client library and record what they are told.
//!
//! Each process asks one request after the other, by a timetable: the
//! [operations](crate::operation) that the seed draws for its client, or those that a
//! [case](crate::case) lists. A client that may have several requests in flight is as many
//! processes, which share its session and its timetable. Written values are unique within a run, so
//! that every read tells which write it saw; one that is not whole is taken for what nobody wrote.

mod pages;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use mangrove::base::{Column, Index, Key, Rng, Stamp, Value};
use mangrove::client::{BatchBuilder, CasResult, Client, ClientError, ClientOptions};
use mangrove::dynamo::Level;
use mangrove::env::Env;
use mangrove::kv::{Cell as FoundCell, Expectation, Version};
use mangrove::wire::Outcome;

use crate::check::liveness::SERVE_MAX;
use crate::check::versions;
use crate::history::{
    Answer, Bulk, Call, CellId, Expected, History, OpId, Process, RowId, Session, Terms, ValueId,
};
use crate::operation::{Cell, Demand, Drawn, Operation, OperationId, Request};
use crate::options::Options;

/// Tries of a write after healing. A disk may have been full and then have stalled: the node
/// notices the space only after the stall, which lasts seconds.
const SERVE_ATTEMPTS: u32 = 40;
/// Pause after each of them: a node notices only after a while that its disk has space again.
pub(crate) const SERVE_PAUSE: Duration = Duration::from_millis(200);
/// Most pages of one listing that a client asks for. Each is a request of its own.
const PAGES_MAX: usize = 4;

/// What all client processes of a run share.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    history: History,
    /// Which operation of the timetables each one of the history belongs to.
    names: BTreeMap<OpId, OperationId>,
    /// Operations that were not missed, in the order in which they were waited for.
    asked: Vec<OperationId>,
    stopped: bool,
    acknowledged: u64,
    versions: Vec<Index>,
    /// What the answer that is being taken in tells of stamps.
    told: Told,
    /// What all answers of the primary-backup mode told of versions.
    all_told: BTreeMap<OpId, versions::Told>,
}

/// What an answer tells of stamps.
#[derive(Debug, Default)]
struct Told {
    written: Option<Stamp>,
    found: BTreeMap<CellId, Stamp>,
}

impl Shared {
    /// Starts with an empty history.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                history: History::new(),
                names: BTreeMap::new(),
                asked: Vec::new(),
                stopped: false,
                acknowledged: 0,
                versions: Vec::new(),
                told: Told::default(),
                all_told: BTreeMap::new(),
            }),
        })
    }

    /// Returns the operations that were not missed, in the order in which they were waited for.
    pub fn asked(&self) -> Vec<OperationId> {
        self.lock().asked.clone()
    }

    /// Returns which operation of the timetables each one of the history belongs to.
    pub fn names(&self) -> BTreeMap<OpId, OperationId> {
        self.lock().names.clone()
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

    /// Takes out what the clients of the primary-backup mode were told of versions.
    pub fn take_told(&self) -> BTreeMap<OpId, versions::Told> {
        std::mem::take(&mut self.lock().all_told)
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

    /// Keeps what the answer to `op` told of versions.
    fn keep_told(&mut self, op: OpId) {
        let Told { written, found } = std::mem::take(&mut self.told);
        let found = found.into_iter().map(|(cell, stamp)| (cell, stamp.version())).collect();
        let told = versions::Told { written: written.map(Stamp::version), found };
        self.all_told.insert(op, told);
    }

    /// Takes in what was found in a cell.
    fn found(&mut self, id: CellId, cell: Option<&FoundCell>) -> ValueId {
        if let Some(cell) = cell {
            self.told.found.insert(id, Stamp::from_version(cell.version.0));
        }
        self.read(cell)
    }

    /// Takes in what became of a batch with conditions on these cells.
    fn tried(&mut self, conditions: &[(CellId, Expected)], result: CasResult) -> Answer {
        match result {
            CasResult::Applied(version) => {
                self.written(version);
                Answer::Tried { applied: true, current: None }
            }
            CasResult::Conflict { position, current } => {
                let failed = usize::try_from(position).ok().and_then(|at| conditions.get(at));
                let Some((cell, _)) = failed else {
                    panic!("condition {position} of {conditions:?} does not hold, it is said")
                };
                Answer::Refused { cell: *cell, current: self.found(*cell, current.as_ref()) }
            }
        }
    }

    /// Returns a batch that deletes rows as a history has it: with their deletion first. So what
    /// the batch wrote to them before is left out, as if nobody had ever asked for it: whoever sees
    /// it sees what nobody wrote.
    fn emptying(
        &mut self,
        before: Vec<(CellId, ValueId)>,
        rows: &[String],
        after: Vec<(CellId, ValueId)>,
    ) -> Bulk {
        let rows: Vec<RowId> = rows.iter().map(|key| self.history.row(key)).collect();
        let mut cells = before;
        cells.retain(|(cell, _)| !rows.contains(&self.history.row_of(*cell)));
        cells.extend(after);
        Bulk { rows, cells, ..Bulk::default() }
    }

    /// Returns what is to be demanded of a cell, for the store and for the history, if this was
    /// just read.
    ///
    /// A version stands for the value that had it: each is written by one operation alone.
    fn demanded(&mut self, demand: Demand, seen: Option<FoundCell>) -> (Expectation, Expected) {
        let value = Expected::Value(self.read(seen.as_ref()));
        match (demand, seen) {
            (Demand::Present, _) => (Expectation::Present, Expected::Present),
            (Demand::Absent, _) => (Expectation::Absent, Expected::Value(ValueId::ABSENT)),
            (Demand::Unchanged | Demand::SameVersion, None) => (Expectation::Absent, value),
            (Demand::Unchanged, Some(cell)) => (Expectation::Value(cell.value), value),
            (Demand::SameVersion, Some(cell)) => (Expectation::Version(cell.version), value),
        }
    }

    fn read(&mut self, cell: Option<&FoundCell>) -> ValueId {
        match cell {
            Some(cell) => self.history.read_value(cell.value.as_bytes()),
            None => ValueId::ABSENT,
        }
    }
}

/// What a client does, and when.
#[derive(Debug, Clone)]
pub enum Timetable {
    /// What the seed draws, for ever.
    Drawn(Box<Drawn>),
    /// These, in the order of their times.
    Listed(std::vec::IntoIter<Operation>),
}

impl Timetable {
    /// Returns what is the turn of one of `count` processes.
    fn share(&self, turn: u32, count: u32) -> impl Iterator<Item = Operation> + use<> {
        self.clone().filter(move |operation| operation.id.number % count == turn)
    }
}

impl Iterator for Timetable {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        match self {
            Self::Drawn(drawn) => drawn.next(),
            Self::Listed(listed) => listed.next(),
        }
    }
}

/// Clients that the run itself needs, numbered after all that the options can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// Reads everything when all is over.
    Reader,
    /// Reads everything again and again, so that reads repair.
    Repairer,
    /// Writes from the moment of healing on, in a run that is timed.
    Asker,
    /// Writes and reads while a quorum is alone.
    OfQuorum,
}

impl Helper {
    /// Returns the number of the client.
    pub fn client(self) -> u32 {
        match self {
            Self::Reader => 901,
            Self::Repairer => 902,
            Self::Asker => 903,
            Self::OfQuorum => 904,
        }
    }
}

/// One client process.
pub struct ClientProcess<E: Env> {
    env: E,
    client: Client<E>,
    addresses: Vec<String>,
    shared: Arc<Shared>,
    process: Process,
    /// What it is doing.
    doing: OperationId,
    /// How many processes the client is.
    in_flight: u32,
    /// What the masterless mode adds.
    strength: Option<Strength>,
    /// Returns the time of the run in nanoseconds, the same for all processes.
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Returns the addresses in the order in which a client asks them.
fn in_turn(addresses: &[String], client: u32, options: &Options) -> Vec<String> {
    let mut addresses = addresses.to_vec();
    if options.masterless.as_ref().is_some_and(|masterless| masterless.spread) {
        let first = usize::try_from(client).unwrap_or(0) % addresses.len().max(1);
        addresses.rotate_left(first);
    }
    addresses
}

/// How strong the answers must be that a process asks for.
struct Strength {
    session: Session,
    /// The client promises that it reads its own writes and never goes back, at any level.
    is_bound: bool,
    /// The largest stamp that it was told.
    token: Stamp,
    /// Of the present request.
    level: Level,
}

impl Strength {
    fn draw(options: &Options, client: u32) -> Option<Self> {
        let masterless = options.masterless.as_ref()?;
        let mut rng = Rng::new(options.seed).split(&format!("client.{client}.session"));
        Some(Self {
            is_bound: rng.chance(masterless.session_chance),
            session: Session(client),
            token: Stamp::ZERO,
            level: Level::Quorum,
        })
    }
}

impl<E: Env> ClientProcess<E> {
    /// Makes a process that talks to the nodes at `addresses`.
    pub fn new(
        env: &E,
        client: u32,
        addresses: Vec<String>,
        options: &Options,
        shared: &Arc<Shared>,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        let process = shared.lock().history.new_process();
        let strength = Strength::draw(options, client);
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
        let in_flight = u32::try_from(options.in_flight).unwrap_or(u32::MAX);
        Self {
            // A session of the masterless mode has one token.
            in_flight: if strength.is_some() { 1 } else { in_flight.max(1) },
            strength,
            client: Client::connect(env.clone(), in_turn(&addresses, client, options), limits),
            addresses,
            env: env.clone(),
            shared: Arc::clone(shared),
            process,
            doing: OperationId { client, number: 0 },
            clock,
        }
    }

    /// Makes one more process of the same client, which shares connections and session with it.
    fn beside(&self) -> Self {
        Self {
            env: self.env.clone(),
            client: self.client.clone(),
            addresses: self.addresses.clone(),
            shared: Arc::clone(&self.shared),
            process: self.shared.lock().history.new_process(),
            doing: self.doing,
            in_flight: self.in_flight,
            strength: None,
            clock: Arc::clone(&self.clock),
        }
    }

    /// Asks by the timetable, until the load is stopped. Of several processes, each has the
    /// operations with the numbers of its turn, so that what becomes of one changes no other's.
    pub async fn run(self, timetable: Timetable) {
        let count = self.in_flight;
        let others: Vec<Self> = (1..count).map(|_| self.beside()).collect();
        let processes = std::iter::once(self).chain(others).zip(0..);
        let all = processes.map(|(process, turn)| process.ask_all(timetable.share(turn, count)));
        join_all(all).await;
    }

    /// Asks for one after the other; misses what is due while it is busy.
    async fn ask_all(mut self, operations: impl Iterator<Item = Operation>) {
        for operation in operations {
            let since_start = Duration::from_nanos(self.env.now().as_nanos());
            let Some(pause) = operation.at.checked_sub(since_start) else { continue };
            self.shared.lock().asked.push(operation.id);
            self.env.sleep(pause).await;
            if self.shared.lock().stopped {
                return;
            }
            self.perform(&operation).await;
        }
    }

    /// Reads every cell and every row that the history knows, once; retries until `attempts` are
    /// used up.
    ///
    /// Returns false if something could not be read.
    pub async fn read_everything(&mut self, attempts: u32) -> bool {
        let cells: Vec<CellId> = {
            let state = self.shared.lock();
            let count = u32::try_from(state.history.cell_count()).unwrap_or(u32::MAX);
            (0..count).map(CellId).collect()
        };
        for chunk in cells.chunks(16) {
            let mut left = attempts;
            while self.multi_get(chunk.to_vec()).await.is_none() {
                left -= 1;
                if left == 0 {
                    return false;
                }
            }
        }
        // Who reads a cell sees its row's tombstone; a row of which nobody knows a cell may have
        // one as well.
        for key in self.rows_without_cells() {
            let mut left = attempts;
            while !self.row(&key).await {
                left -= 1;
                if left == 0 {
                    return false;
                }
            }
        }
        true
    }

    fn rows_without_cells(&self) -> Vec<String> {
        let state = self.shared.lock();
        let count = u32::try_from(state.history.row_count()).unwrap_or(u32::MAX);
        let rows = (0..count).map(RowId);
        let empty = rows.filter(|row| state.history.cells_of(*row).is_empty());
        empty.map(|row| state.history.row_text(row).to_owned()).collect()
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
        self.doing.number += 1;
        self.set(&Cell::new("served", ""), 8).await
    }

    /// Sets a fresh cell until that is acknowledged; returns whether it was within [`SERVE_MAX`]
    /// of `healed`, by the clock of the run.
    pub async fn serve_after(&mut self, healed: Duration) -> bool {
        let deadline_ns = u64::try_from((healed + SERVE_MAX).as_nanos()).unwrap_or(u64::MAX);
        for _ in 0..SERVE_ATTEMPTS {
            let is_acknowledged = self.set_one().await;
            let is_late = (self.clock)() > deadline_ns;
            if is_acknowledged || is_late {
                return is_acknowledged && !is_late;
            }
            self.pause(SERVE_PAUSE).await;
        }
        false
    }

    /// Does one operation of the timetable.
    async fn perform(&mut self, operation: &Operation) {
        self.doing = operation.id;
        if let Some(level) = operation.level {
            self.ask_at(level);
        }
        match &operation.request {
            Request::Get(cell) => self.get(cell).await,
            Request::Set { cell, bytes } => {
                self.set(cell, *bytes).await;
            }
            Request::Delete(cell) => self.delete(cell).await,
            Request::CompareAndSet { cell, bytes } => self.compare_and_set(cell, *bytes).await,
            Request::BulkSet(cells) => self.bulk_set(cells).await,
            Request::MultiGet(cells) => {
                let cells = cells.iter().map(|cell| self.id_of(cell)).collect();
                self.multi_get(cells).await;
            }
            Request::Row(key) => {
                self.row(key).await;
            }
            Request::DeleteRow(key) => self.delete_row(key).await,
            Request::Status(node) => self.status(*node).await,
            Request::BulkIf { conditions, cells } => self.bulk_if(conditions, cells).await,
            Request::BulkRows { before, rows, after } => self.bulk_rows(before, rows, after).await,
            Request::Keys { prefix, start, stop, limit } => {
                let mut start = start.clone();
                for _ in 0..PAGES_MAX {
                    let page = self.keys(prefix, start.as_deref(), stop.as_deref(), *limit).await;
                    let Some(next) = page else { return };
                    start = Some(next);
                }
            }
            Request::Scan { prefix, start, limit } => {
                let mut start = start.clone();
                for _ in 0..PAGES_MAX {
                    let Some(next) = self.scan(prefix, start.as_ref(), *limit).await else {
                        return;
                    };
                    start = Some(next);
                }
            }
            Request::Slice { key, start, stop, limit } => {
                let mut start = start.clone();
                for _ in 0..PAGES_MAX {
                    let page = self.slice(key, start.as_deref(), stop.as_deref(), *limit).await;
                    let Some(next) = page else { return };
                    start = Some(next);
                }
            }
        }
    }

    async fn get(&mut self, cell: &Cell) {
        let id = self.id_of(cell);
        let op = self.invoke(Call::Get { cell: id });
        let result = self.client.get_cell(cell.key().to_owned(), cell.column().to_owned()).await;
        self.end(op, result, |state, cell| Answer::Value(state.found(id, cell.as_ref())));
    }

    /// Sets a cell; returns whether that was acknowledged.
    async fn set(&mut self, cell: &Cell, bytes: u64) -> bool {
        let (id, (value, bytes)) = (self.id_of(cell), self.value(0, bytes));
        let op = self.invoke(Call::Set { cell: id, value });
        let (key, column) = (cell.key().to_owned(), cell.column().to_owned());
        let result = self.client.set_cell(key, column, bytes).await;
        let is_acknowledged = result.is_ok();
        self.end(op, result, State::written);
        is_acknowledged
    }

    async fn delete(&mut self, cell: &Cell) {
        let op = self.invoke(Call::Delete { cell: self.id_of(cell) });
        let (key, column) = (cell.key().to_owned(), cell.column().to_owned());
        let result = self.client.delete_cell(key, column).await;
        self.end(op, result, State::written);
    }

    async fn delete_row(&mut self, key: &str) {
        let row = self.shared.lock().history.row(key);
        let op = self.invoke(Call::DeleteRow { row });
        let result = self.client.delete_row(key.to_owned()).await;
        self.end(op, result, State::written);
    }

    async fn compare_and_set(&mut self, cell: &Cell, bytes: u64) {
        // Reads first, so that the expectation has a chance to hold.
        let id = self.id_of(cell);
        let (key, column) = (cell.key().to_owned(), cell.column().to_owned());
        let op = self.invoke(Call::Get { cell: id });
        let result = self.client.get_cell(key.clone(), column.clone()).await;
        let seen = result.as_ref().ok().cloned();
        self.end(op, result, |state, cell| Answer::Value(state.found(id, cell.as_ref())));
        let Some(seen) = seen else { return };
        let old = self.shared.lock().read(seen.as_ref());
        let (new, bytes) = self.value(0, bytes);
        let expected = match seen {
            Some(cell) => Expectation::Value(cell.value),
            None => Expectation::Absent,
        };
        let op = self.invoke(Call::Cas { cell: id, old, new });
        let new = Value::new(bytes).ok();
        let result = self.client.compare_and_set(key, column, expected, new).await;
        self.end(op, result, |state, result| match result {
            CasResult::Applied(version) => {
                state.written(version);
                Answer::Tried { applied: true, current: None }
            }
            CasResult::Conflict { current, .. } => {
                Answer::Tried { applied: false, current: Some(state.found(id, current.as_ref())) }
            }
        });
    }

    async fn bulk_set(&mut self, cells: &[(Cell, Option<u64>)]) {
        let (builder, cells) = self.add_writes(BatchBuilder::new(), cells, 1);
        self.bulk(builder, Bulk { cells, ..Bulk::default() }).await;
    }

    async fn bulk_rows(
        &mut self,
        before: &[(Cell, Option<u64>)],
        rows: &[String],
        after: &[(Cell, Option<u64>)],
    ) {
        let (builder, written) = self.add_writes(BatchBuilder::new(), before, 1);
        let builder = rows.iter().fold(builder, |builder, key| builder.delete_row(key.clone()));
        let first = u32::try_from(before.len()).unwrap_or(u32::MAX).saturating_add(1);
        let (builder, last) = self.add_writes(builder, after, first);
        let bulk = self.shared.lock().emptying(written, rows, last);
        self.bulk(builder, bulk).await;
    }

    /// Asks for a batch without conditions, which stands so in the history.
    async fn bulk(&mut self, builder: BatchBuilder, bulk: Bulk) {
        let Ok(batch) = builder.build() else { return };
        let op = self.invoke(Call::Bulk(Box::new(bulk)));
        let result = self.client.bulk_set(batch).await;
        self.end(op, result, State::written);
    }

    async fn bulk_if(&mut self, conditions: &[(Cell, Demand)], cells: &[(Cell, Option<u64>)]) {
        // Reads first, so that the expectations have a chance to hold.
        let places = conditions.iter().map(|(cell, _)| self.id_of(cell)).collect();
        let Some(mut found) = self.multi_get(places).await else { return };
        let mut builder = BatchBuilder::new();
        let mut expected = Vec::with_capacity(conditions.len());
        for (cell, demand) in conditions {
            let id = self.id_of(cell);
            let seen = found.remove(&id).flatten();
            let (demanded, known) = self.shared.lock().demanded(*demand, seen);
            expected.push((id, known));
            builder = builder.expect(cell.key().to_owned(), cell.column().to_owned(), demanded);
        }
        let (builder, cells) = self.add_writes(builder, cells, 1);
        let bulk = Bulk { conditions: expected.clone(), cells, ..Bulk::default() };
        let Ok(batch) = builder.build() else { return };
        let op = self.invoke(Call::Bulk(Box::new(bulk)));
        let result = self.client.conditional_bulk(batch).await;
        self.end(op, result, |state, result| state.tried(&expected, result));
    }

    /// Adds writes with fresh values to a batch, the first at that position of it; returns them for
    /// the history, too.
    fn add_writes(
        &self,
        mut builder: BatchBuilder,
        cells: &[(Cell, Option<u64>)],
        first: u32,
    ) -> (BatchBuilder, Vec<(CellId, ValueId)>) {
        let mut written = Vec::with_capacity(cells.len());
        for (position, (cell, bytes)) in (first..).zip(cells) {
            let id = self.id_of(cell);
            let (key, column) = (cell.key().to_owned(), cell.column().to_owned());
            if let Some(bytes) = bytes {
                let (value, bytes) = self.value(position, *bytes);
                written.push((id, value));
                builder = builder.set_cell(key, column, bytes);
            } else {
                written.push((id, ValueId::ABSENT));
                builder = builder.delete_cell(key, column);
            }
        }
        (builder, written)
    }

    /// Reads several cells; returns what was answered.
    async fn multi_get(
        &mut self,
        mut cells: Vec<CellId>,
    ) -> Option<BTreeMap<CellId, Option<FoundCell>>> {
        cells.sort_unstable();
        cells.dedup();
        let places = cells.iter().map(|cell| self.place_of(*cell)).collect();
        let op = self.invoke(Call::MultiGet(cells.clone().into_boxed_slice()));
        let result = self.client.multi_get(places).await;
        let answered = result.as_ref().ok();
        let answered = answered.map(|found| cells.iter().copied().zip(found.clone()).collect());
        self.end(op, result, |state, found| {
            let values = cells.iter().zip(&found);
            let values = values.map(|(cell, found)| (*cell, state.found(*cell, found.as_ref())));
            Answer::Values(values.collect())
        });
        answered
    }

    /// Asks one node how it is, as an operator would; it must not claim what cannot be.
    async fn status(&mut self, node: u64) {
        let at = usize::try_from(node.saturating_sub(1)).unwrap_or(usize::MAX);
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
        (self::key(key), self::column(column))
    }

    fn id_of(&self, cell: &Cell) -> CellId {
        self.shared.lock().history.cell(cell.key(), cell.column())
    }

    /// Makes a value that nobody else writes; returns its number and its bytes.
    fn value(&self, position: u32, len: u64) -> (ValueId, String) {
        let name = match position {
            0 => self.doing.to_string(),
            position => format!("{}+{position}", self.doing),
        };
        let len = usize::try_from(len).unwrap_or(name.len());
        self.shared.lock().history.written_value(&name, len)
    }

    fn invoke(&mut self, call: Call) -> OpId {
        let now = (self.clock)();
        let mut state = self.shared.lock();
        let op = state.history.invoke(self.process, call, now);
        state.names.insert(op, self.doing);
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
                } else {
                    state.keep_told(op);
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

/// Makes a key of its text; one that is over the limit would be nobody's.
fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap_or_default()
}

/// Makes a column of its text.
fn column(text: &str) -> Column {
    Column::new(text.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::client;

    /// Lets a client read these bytes of a value of 20, and asks who minds.
    fn verdict_on(found: impl FnOnce(&str) -> String) -> Option<&'static str> {
        let shared = Shared::new();
        let mut state = shared.lock();
        let (cell, process) = (state.history.cell("k", ""), state.history.new_process());
        let (value, bytes) = state.history.written_value("c1.2", 20);
        let op = state.history.invoke(process, Call::Set { cell, value }, 1);
        state.history.ok(op, Answer::Done, 2);
        let op = state.history.invoke(process, Call::Get { cell }, 3);
        let value = Value::new(found(&bytes)).unwrap();
        let read = state.read(Some(&FoundCell { value, version: Version(1) }));
        state.history.ok(op, Answer::Value(read), 4);
        client::check(&state.history).err().map(|violation| violation.checker)
    }

    #[test]
    fn value_that_is_read_in_part_is_one_that_nobody_wrote() {
        assert_eq!(verdict_on(str::to_owned), None);
        for len in [4, 5, 19] {
            let cut = verdict_on(|bytes| bytes[..len].to_owned());
            assert_eq!(cut, Some("no_phantom"), "{len} bytes");
        }
        let longer = verdict_on(|bytes| format!("{bytes}{}", &bytes[19..]));
        assert_eq!(longer, Some("no_phantom"));
        assert_eq!(verdict_on(|bytes| bytes.replace("c1.2", "c1.3")), Some("no_phantom"));
    }

    /// Lets one batch write `k` and `l`, delete the row `k` and write `k/a`, and a client read one
    /// cell after it; tells who minds.
    fn verdict_after_batch(cell: &str, found: Option<&str>) -> Option<&'static str> {
        let shared = Shared::new();
        let mut state = shared.lock();
        let history = &mut state.history;
        let process = history.new_process();
        let written =
            ["k", "k/a", "l"].map(|name| (history.cell_named(name), history.value("old")));
        for (cell, value) in written {
            let op = history.invoke(process, Call::Set { cell, value }, 1);
            history.ok(op, Answer::Done, 2);
        }
        let before = ["k", "l"].map(|name| (history.cell_named(name), history.value("before")));
        let after = vec![(history.cell_named("k/a"), history.value("after"))];
        let bulk = state.emptying(before.to_vec(), &["k".to_owned()], after);
        let history = &mut state.history;
        let op = history.invoke(process, Call::Bulk(Box::new(bulk)), 3);
        history.ok(op, Answer::Done, 4);
        let cell = history.cell_named(cell);
        let value = found.map_or(ValueId::ABSENT, |found| history.value(found));
        let op = history.invoke(process, Call::Get { cell }, 5);
        history.ok(op, Answer::Value(value), 6);
        client::check(history).err().map(|violation| violation.checker)
    }

    #[test]
    fn row_that_a_batch_deletes_has_what_was_written_after_and_nothing_else() {
        assert_eq!(verdict_after_batch("k", None), None);
        assert_eq!(verdict_after_batch("k", Some("before")), Some("no_phantom"));
        assert_eq!(verdict_after_batch("k", Some("old")), Some("no_lost_write"));
        assert_eq!(verdict_after_batch("k/a", Some("after")), None);
        assert_eq!(verdict_after_batch("k/a", None), Some("no_lost_write"));
        assert_eq!(verdict_after_batch("k/a", Some("old")), Some("no_lost_write"));
        assert_eq!(verdict_after_batch("l", Some("before")), None, "it is of another row");
        assert_eq!(verdict_after_batch("l", None), Some("no_lost_write"));
    }

    /// Returns the numbers that each of several processes of a client has of its operations.
    fn numbers(in_flight: u32) -> Vec<Vec<u32>> {
        let listed = Drawn::new(&Options::draw(3), 1).take(7).collect::<Vec<_>>();
        let timetable = Timetable::Listed(listed.into_iter());
        let shares = (0..in_flight).map(|turn| timetable.share(turn, in_flight));
        shares.map(|share| share.map(|operation| operation.id.number).collect()).collect()
    }

    #[test]
    fn processes_of_a_client_share_its_operations() {
        assert_eq!(numbers(1), [vec![1, 2, 3, 4, 5, 6, 7]]);
        assert_eq!(numbers(3), [vec![3, 6], vec![1, 4, 7], vec![2, 5]]);
    }

    #[test]
    fn demand_that_was_met_by_what_was_read_is_what_the_history_expects() {
        let shared = Shared::new();
        let mut state = shared.lock();
        let (value, bytes) = state.history.written_value("c1.2", 20);
        let cell = FoundCell { value: Value::new(bytes).unwrap(), version: Version(7) };
        let absent = Expected::Value(ValueId::ABSENT);
        for (demand, seen, expectation, expected) in [
            (
                Demand::Unchanged,
                Some(&cell),
                Expectation::Value(cell.value.clone()),
                Expected::Value(value),
            ),
            (
                Demand::SameVersion,
                Some(&cell),
                Expectation::Version(Version(7)),
                Expected::Value(value),
            ),
            (Demand::Unchanged, None, Expectation::Absent, absent),
            (Demand::SameVersion, None, Expectation::Absent, absent),
            (Demand::Present, None, Expectation::Present, Expected::Present),
            (Demand::Absent, Some(&cell), Expectation::Absent, absent),
        ] {
            let demanded = state.demanded(demand, seen.cloned());
            assert_eq!(demanded, (expectation, expected), "{demand:?} of {seen:?}");
        }
    }

    #[test]
    fn refusal_names_the_cell_of_its_condition() {
        let shared = Shared::new();
        let mut state = shared.lock();
        let conditions = ["k", "l"].map(|key| (state.history.cell(key, ""), Expected::Present));
        let conflict = CasResult::Conflict { position: 1, current: None };
        let refused = Answer::Refused { cell: conditions[1].0, current: ValueId::ABSENT };
        assert_eq!(state.tried(&conditions, conflict), refused);
        let applied = Answer::Tried { applied: true, current: None };
        assert_eq!(state.tried(&conditions, CasResult::Applied(Version(5))), applied);
        assert_eq!(state.versions, [5]);
    }
}
