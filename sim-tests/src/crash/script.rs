//! The script: a store in use as a node uses it, all of its parts at work, from one seed.
//!
//! The log side and the tables' side of a node are tasks of their own, so their disk operations
//! interleave. Here each operation of the tables mostly runs with one of the log, and the seed
//! decides after every disk operation which of them goes on.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mangrove::base::{Index, NodeId, Rng};
use mangrove::codec::{self, keycode};
use mangrove::raft::{HardState, SnapshotMeta};
use mangrove::replica::persist::{KIND_ENTRY, KIND_HARD_STATE, KIND_INSTALL};
use mangrove::replica::{STATE_DIR, WAL_DIR};
use mangrove::storage::table::TableOptions;
use mangrove::storage::tree::{self, Frozen, Keeper, TreeOptions};
use mangrove::storage::wal::{self, Record, Writer};
use mangrove::storage::{Cell, Content, Engine as _, SnapshotPoint, StorageError, Tree};

use super::history::{Cells, History, Write};
use super::trace::{CrashDisk, Note, Step};
use super::verify::apply_log;

/// Rows that the script writes to.
const ROW_COUNT: u64 = 10;
/// Columns of a row.
const COLUMNS: [&str; 3] = ["", "a", "b"];
/// Compaction steps of one operation at most.
const COMPACTION_STEPS_MAX: usize = 200;

/// Sizes so small that a few writes fill everything.
pub(super) const TREE_OPTIONS: TreeOptions = TreeOptions {
    memtable_bytes: 1 << 10,
    frozen_max: 2,
    table_bytes: 2 << 10,
    level0_tables: 2,
    level0_tables_max: 6,
    base_bytes: 4 << 10,
    runs_max: 2,
    step_bytes: 700,
    cache_bytes: 8 << 10,
    table: TableOptions {
        block_bytes: 256,
        bloom_bits_per_cell: 10,
        compression: mangrove::storage::table::Compression::None,
    },
};

/// The smallest segments that there are.
pub(super) const WAL_OPTIONS: wal::Options = wal::Options { segment_bytes: 4096 };

/// What the script did: every step on the disk, and what was written.
pub(super) struct Recording {
    pub(super) steps: Vec<Step>,
    pub(super) history: History,
    /// Why the script could not go on, although nothing went wrong with the disk.
    pub(super) failure: Option<String>,
}

/// Something for the log to do.
enum LogJob {
    /// Write the entries from this index on, to the last.
    Entries(Index),
    /// Write a vote.
    Vote(HardState),
    /// Tell what is durable.
    Mark,
    /// Remove what tables hold up to this entry.
    RemoveThrough(Index),
}

/// Something for the tables to do.
enum StateJob {
    Flush(Frozen),
    Compact,
}

type Version = std::sync::Arc<tree::Version<CrashDisk>>;

struct Script {
    disk: CrashDisk,
    rng: Rng,
    turns: Rng,
    tree: Tree<CrashDisk>,
    keeper: Keeper<CrashDisk>,
    writer: Writer<CrashDisk>,
    history: History,
    hard_state: HardState,
    unflushed: VecDeque<Frozen>,
}

/// Runs so many operations, or as many as the store can bear.
pub(super) fn record(seed: u64, operations: u64) -> Recording {
    let disk = CrashDisk::taking_turns();
    let root = Rng::new(seed).split("crash");
    run(async {
        let mut script = match Script::begin(&disk, &root).await {
            Ok(script) => script,
            Err(error) => {
                let failure = Some(error.to_string());
                let history = History::default();
                return Recording { steps: disk.take_steps(), history, failure };
            }
        };
        let (mut done, mut failure) = (0, None);
        while done < operations && failure.is_none() {
            match script.operation().await {
                Ok(count) => done += count,
                Err(error) => failure = Some(error.to_string()),
            }
        }
        Recording { steps: disk.take_steps(), history: script.history, failure }
    })
}

impl Script {
    async fn begin(disk: &CrashDisk, root: &Rng) -> Result<Self, StorageError> {
        let (tree, keeper, _) = tree::open(disk.clone(), STATE_DIR, TREE_OPTIONS).await?;
        let (writer, _) = wal::open(disk, WAL_DIR, WAL_OPTIONS).await?;
        Ok(Self {
            disk: disk.clone(),
            rng: root.split("script"),
            turns: root.split("turns"),
            tree,
            keeper,
            writer,
            history: History::default(),
            hard_state: HardState { term: 1, vote: None },
            unflushed: VecDeque::new(),
        })
    }

    /// Does the next operation, or two at a time; returns how many.
    async fn operation(&mut self) -> Result<u64, StorageError> {
        match self.rng.range(0, 100) {
            0..50 => {
                let job = self.draw_log_job();
                self.work(Some(job), None).await
            }
            50..62 => {
                self.freeze();
                Ok(1)
            }
            62..78 => {
                if self.unflushed.is_empty() {
                    self.freeze();
                }
                let flush = self.unflushed.pop_front().map(StateJob::Flush);
                self.with_log_job(flush).await
            }
            78..92 => self.with_log_job(Some(StateJob::Compact)).await,
            92..96 => self.replace().await,
            _ => self.restart().await,
        }
    }

    async fn with_log_job(&mut self, state: Option<StateJob>) -> Result<u64, StorageError> {
        let log = if self.rng.chance(0.7) { Some(self.draw_log_job()) } else { None };
        self.work(log, state).await
    }

    fn freeze(&mut self) {
        if self.tree.may_freeze() {
            let extra = self.history.extra(self.tree.applied().index);
            let frozen = self.tree.freeze(extra);
            self.unflushed.push_back(frozen);
        }
    }

    fn draw_log_job(&mut self) -> LogJob {
        match self.rng.range(0, 20) {
            0..14 => {
                let first = self.history.last() + 1;
                for _ in 0..self.rng.range(1, 6) {
                    let writes = self.draw_writes();
                    self.history.append(self.hard_state.term, writes);
                }
                LogJob::Entries(first)
            }
            14..16 => {
                let vote = Some(NodeId(self.rng.range(1, 4))).filter(|_| self.rng.chance(0.7));
                LogJob::Vote(HardState { term: self.hard_state.term + 1, vote })
            }
            16..18 => LogJob::Mark,
            _ => {
                let kept = self.rng.range(0, 4);
                LogJob::RemoveThrough(self.tree.durable().index.saturating_sub(kept))
            }
        }
    }

    fn draw_writes(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        let row_of = |rng: &mut Rng| format!("row {}", rng.range(0, ROW_COUNT)).into_bytes();
        if self.rng.chance(0.1) {
            let row = keycode::encode_key(&row_of(&mut self.rng));
            writes.push(Write::DeleteRow { row });
        }
        let mut places = Vec::new();
        for _ in 0..self.rng.range(1, 5) {
            let row = row_of(&mut self.rng);
            let column = COLUMNS[self.rng.index(COLUMNS.len())];
            let place = keycode::encode_cell(&row, column.as_bytes());
            if places.contains(&place) {
                continue;
            }
            places.push(place.clone());
            if self.rng.chance(0.2) {
                writes.push(Write::Delete { place });
                continue;
            }
            let sizes = [8, 20, 20, 60, 400];
            let len = sizes[self.rng.index(sizes.len())];
            let value: Vec<u8> = (0..len).map(|_| self.rng.next_u64().to_le_bytes()[0]).collect();
            writes.push(Write::Set { place, value });
        }
        writes
    }

    /// Does a job of the log and one of the tables side by side; returns how many there were.
    async fn work(
        &mut self,
        log: Option<LogJob>,
        state: Option<StateJob>,
    ) -> Result<u64, StorageError> {
        let count = u64::from(log.is_some()) + u64::from(state.is_some());
        let entries_from = match &log {
            Some(LogJob::Entries(first)) => *first,
            _ => Index::MAX,
        };
        if let Some(LogJob::Vote(hard_state)) = &log {
            self.hard_state = *hard_state;
        }
        let Self { disk, writer, keeper, history, turns, .. } = self;
        let logged = async {
            match log {
                Some(job) => log_job(disk, writer, history, job).await,
                None => Ok(()),
            }
        };
        let stored = async {
            match state {
                Some(job) => state_job(keeper, job).await,
                None => Ok(Vec::new()),
            }
        };
        let (logged, stored) = interleave(logged, stored, turns).await;
        logged?;
        for version in stored? {
            self.tree.adopt(version);
        }
        self.apply_from(entries_from);
        self.keeper.collect().await;
        Ok(count)
    }

    /// Applies the entries from an index on, which are durable.
    fn apply_from(&mut self, first: Index) {
        let mut index = first;
        while let Some(position) = self.history.at(index) {
            let writes = position.writes.iter().flatten();
            let changes: Vec<_> = writes.map(Write::as_change).collect();
            self.tree.write(SnapshotPoint { index, term: position.term }, &changes);
            index += 1;
        }
    }

    /// Takes the state of another node, as a snapshot brings it.
    async fn replace(&mut self) -> Result<u64, StorageError> {
        let term = self.hard_state.term;
        let index = self.history.last() + self.rng.range(1, 9);
        let mut cells = Cells::clone(&self.history.cells(self.history.last()).unwrap_or_default());
        for write in (0..6).flat_map(|_| self.draw_writes()) {
            if let Write::Set { place, value } = write {
                cells.insert(place, (index, value));
            }
        }
        let meta = SnapshotMeta { index, term };
        self.writer.append(KIND_INSTALL, 0, |buffer| codec::encode_into(&meta, buffer));
        self.writer.write().await?;
        self.writer.sync().await?;
        self.disk.note(Note::Appended(index));
        self.history.replace(index, term, cells);
        let cells = self.history.cells(index).unwrap_or_default();
        self.keeper.begin_replacement().await?;
        let all: Vec<_> = cells.iter().collect();
        for some in all.chunks(4) {
            let cells = some.iter().map(|(place, (version, value))| Cell {
                place,
                version: *version,
                content: Content::Value(value),
            });
            self.keeper.push_replacement(cells).await?;
        }
        let extra = self.history.extra(index).into();
        let point = SnapshotPoint { index, term };
        let version = self.keeper.finish_replacement(point, extra).await?;
        self.disk.note(Note::Acknowledged(index));
        self.unflushed.clear();
        self.tree.adopt(version);
        self.keeper.collect().await;
        Ok(1)
    }

    /// The process ends and starts again; the machine stays up.
    async fn restart(&mut self) -> Result<u64, StorageError> {
        let disk = self.disk.clone();
        let (mut tree, keeper, tables) = tree::open(disk.clone(), STATE_DIR, TREE_OPTIONS).await?;
        let (mut writer, log) = wal::open(&disk, WAL_DIR, WAL_OPTIONS).await?;
        let found = apply_log(&mut tree, &tables, &log, &self.history);
        let last = self.history.last();
        if found.as_ref().map(|found| found.position) != Ok(last) {
            let what = format!("a restart finds {found:?} instead of {last}");
            return Err(StorageError::Corrupt { path: WAL_DIR.to_owned(), offset: 0, what });
        }
        if self.hard_state.term > 1 {
            writer.set_preamble(vec![vote_record(&self.hard_state)]);
        }
        self.unflushed.clear();
        (self.tree, self.keeper, self.writer) = (tree, keeper, writer);
        Ok(1)
    }
}

fn vote_record(hard_state: &HardState) -> Record {
    Record { kind: KIND_HARD_STATE, tag: 0, payload: codec::encode(hard_state) }
}

/// Does what the log task of a node does, and notes what is promised and when.
async fn log_job(
    disk: &CrashDisk,
    writer: &mut Writer<CrashDisk>,
    history: &History,
    job: LogJob,
) -> Result<(), StorageError> {
    match job {
        LogJob::Entries(first) => {
            let last = history.last();
            disk.note(Note::Appended(last));
            for entry in (first..=last).filter_map(|index| history.entry(index)) {
                writer.append(KIND_ENTRY, entry.index, |buffer| codec::encode_into(&entry, buffer));
            }
            writer.write().await?;
            writer.sync().await?;
            disk.note(Note::Acknowledged(last));
            writer.prepare().await
        }
        LogJob::Vote(hard_state) => {
            disk.note(Note::Voting(hard_state));
            writer.append_critical(KIND_HARD_STATE, 0, |buffer| {
                codec::encode_into(&hard_state, buffer);
            });
            writer.set_preamble(vec![vote_record(&hard_state)]);
            writer.write().await?;
            writer.sync().await?;
            disk.note(Note::Voted(hard_state));
            writer.prepare().await
        }
        LogJob::Mark => writer.mark().await,
        LogJob::RemoveThrough(index) => writer.remove_through(index).await,
    }
}

/// Does what the state task of a node does; returns the versions that it made.
async fn state_job(
    keeper: &mut Keeper<CrashDisk>,
    job: StateJob,
) -> Result<Vec<Version>, StorageError> {
    match job {
        StateJob::Flush(frozen) => Ok(vec![keeper.flush(&frozen).await?]),
        StateJob::Compact => {
            let mut versions = Vec::new();
            let mut left = COMPACTION_STEPS_MAX;
            while keeper.needs_compaction() && left > 0 {
                left -= 1;
                versions.extend(keeper.compact_step().await?);
            }
            Ok(versions)
        }
    }
}

/// Runs two futures to their ends; the lot decides who goes on.
async fn interleave<A: Future, B: Future>(a: A, b: B, lot: &mut Rng) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut from_a, mut from_b) = (None, None);
    std::future::poll_fn(move |context| {
        let first = from_b.is_some() || (from_a.is_none() && lot.chance(0.5));
        if first {
            if let Poll::Ready(output) = a.as_mut().poll(context) {
                from_a = Some(output);
            }
        } else if let Poll::Ready(output) = b.as_mut().poll(context) {
            from_b = Some(output);
        }
        match (from_a.take(), from_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (from_a, from_b) = (a, b);
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

/// Runs a future that waits for nothing but its turn.
pub(super) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}
