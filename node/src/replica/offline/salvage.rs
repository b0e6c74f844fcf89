//! Everything that can still be read of a node whose store is damaged.
//!
//! The good blocks of the tables are merged into the tables of a scratch store, and what the
//! write-ahead log has after them is carried out on it by the same state machine that would have;
//! the result is scanned. So the newest writes, which are in no table yet, are not forgotten.
//!
//! It is said what cannot be trusted. A write of the log with a condition on a cell that is lost
//! is carried out or not by what is left of that cell; such are counted. If the sessions are lost,
//! a write that its client has sent twice is carried out twice. And the last entries of the log of
//! a node that was not alone may never have been committed. Which sessions are pushed out is part
//! of the state, so the machine must be told of as many as the node's was.
//!
//! Of a node of the masterless mode the cells come in the order of their partitions. Tombstones in
//! the tables are not brought along: where one lay only in a damaged place, or hides something that
//! only the log has, what was deleted is there again. A node that knows that it lacks something,
//! and has not got it back from the others yet, does not know which cells that concerns.
//!
//! Which mode a node is of says its name plate. If that cannot be read, the log does: no record is
//! written by both. Tables alone tell it least, for a young node has none.

use std::ops::ControlFlow;

use super::super::dynamo::recovery::judge;
use super::super::identity;
use super::super::persist::{
    KIND_DAMAGED, KIND_ENTRY, KIND_HARD_STATE, KIND_INSTALL, KIND_RECORDS, KIND_RECOVERED,
    KIND_STANDING,
};
use super::super::recovery;
use super::super::start::{STATE_DIR, WAL_DIR};
use super::super::state::meta;
use crate::base::Index;
use crate::codec::{self, keycode};
use crate::dynamo::placement::{NOTE_PREFIX, without_prefix};
use crate::dynamo::{self, notes};
use crate::env::Disk;
use crate::kv::{CellStore, Command, Machine};
use crate::raft::{Entry, EntryKind};
use crate::storage::engine::Visitor;
use crate::storage::tree::{self, Lost, StoreReport, Tree, TreeOptions};
use crate::storage::wal::Torn;
use crate::storage::{
    Cell, Content, Engine, PurgeFloors, SnapshotPoint, StorageError, let_others_run, wal,
};

/// Bytes of cells that are copied at a time.
const COPIED_BYTES: usize = 1 << 20;

/// No log gets so far: stamps begin with the milliseconds since 1970.
const POSITION_MAX: Index = 1 << 48;

/// What became of the store, and what of it is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvageReport {
    /// What was found damaged.
    pub store: StoreReport,
    /// Whether the node is one of the masterless mode.
    pub is_masterless: bool,
    /// The cells that are lost or uncertain.
    pub lost: Vec<Lost>,
    /// What came from the log.
    pub log: LogReport,
    /// Cells that were brought out.
    pub cell_count: u64,
}

/// What came from the write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogReport {
    /// Why nothing did, if the log cannot be read at all.
    pub failure: Option<String>,
    /// It has no record, and the tables tell that it had: what came after them is lost.
    pub is_gone: bool,
    /// Damaged places in it, whether they cost anything or not.
    pub damage: Vec<wal::Damage>,
    /// Entries that were carried out.
    pub entry_count: u64,
    /// The last of them, or of the tables if there are none.
    pub last: Index,
    /// The node is one of the masterless mode and lacks requests that it may have acknowledged, of
    /// any cells.
    pub is_incomplete: bool,
    /// The last entry that may be lost, if any is.
    pub lost_through: Option<Index>,
    /// Where the log ends in what looks like a write that a crash interrupted: it was never
    /// acknowledged, unless just that place is rotten, or the file was cut off there.
    pub torn: Option<Torn>,
    /// Writes whose conditions concern a lost cell: they may have ended otherwise.
    pub doubtful_count: u64,
    /// The sessions are lost: a write that was sent twice may have been carried out twice.
    pub sessions_are_lost: bool,
}

impl LogReport {
    /// Takes note of what is wrong with the log of a node whose tables are at `applied`.
    fn note(&mut self, log: wal::Recovery, applied: Index) {
        self.is_gone = log.is_blank() && applied > 0;
        (self.damage, self.torn) = (log.damage, log.torn);
    }
}

/// Reads everything that can be read from the directory of a node that does not run, and calls
/// `visit` for each cell, in order, with place, value and version, until it breaks. `scratch` is
/// an empty directory with room for another copy of the state; `sessions_max` is how many sessions
/// a node of the primary-backup mode was told to remember.
///
/// # Errors
/// Another version of the program wrote the files, or the disk of `scratch` refuses. Damage is no
/// error.
pub async fn salvage<D: Disk>(
    disk: &D,
    scratch: &D,
    sessions_max: usize,
    visit: &mut Visitor<'_>,
) -> Result<SalvageReport, StorageError> {
    let store = tree::examine(disk, STATE_DIR, |_| {}).await?;
    let is_masterless = is_masterless(disk, &store).await;
    let (tree, mut lost) = copy_tables(disk, scratch, &store, is_masterless).await?;
    if is_masterless {
        return salvage_masterless(disk, tree, (store, lost), visit).await;
    }
    let mut log = LogReport { sessions_are_lost: store.extra.is_none(), ..LogReport::default() };
    let extra = store.extra.clone().unwrap_or_else(Machine::<Tree<D>>::extra_without_sessions);
    let mut machine = Machine::restore(tree, &extra, sessions_max)?;
    replay_log(disk, &mut machine, &lost, &mut log).await?;
    let mut cell_count = 0;
    for range in &mut lost {
        range.stale_count = 0;
    }
    machine.engine().scan(&[], None, &mut |place, value, version| {
        cell_count += 1;
        for range in &mut lost {
            range.note(place, version);
        }
        visit(place, value, version)
    })?;
    Ok(SalvageReport { store, is_masterless, lost, log, cell_count })
}

/// Tells whether the directory is of a node of the masterless mode. If the name plate is damaged,
/// too, the log tells; if that is empty, the tables: a stamp is far above any position of a log.
async fn is_masterless<D: Disk>(disk: &D, store: &StoreReport) -> bool {
    if let Some(owner) = identity::owner(disk).await {
        return owner.mode.is_masterless();
    }
    let log = wal::inspect(disk, WAL_DIR).await.unwrap_or_default();
    let told = log.records.iter().find_map(|record| is_kind_masterless(record.kind));
    told.unwrap_or_else(|| {
        // The others do not say anything of themselves.
        let known = store.tables.iter().filter(|table| table.meta.cell_count > 0);
        let newest = known.map(|table| table.meta.version_max).max().unwrap_or(0);
        newest > store.applied.map_or(POSITION_MAX, |applied| applied.index)
    })
}

/// Tells whether it is the masterless mode that writes log records of this kind; `None` if neither
/// mode does.
fn is_kind_masterless(kind: u8) -> Option<bool> {
    match kind {
        KIND_RECORDS | KIND_DAMAGED => Some(true),
        KIND_HARD_STATE | KIND_ENTRY | KIND_INSTALL | KIND_RECOVERED | KIND_STANDING => Some(false),
        _ => None,
    }
}

/// Copies what can be read of the tables into the scratch store.
async fn copy_tables<D: Disk>(
    disk: &D,
    scratch: &D,
    store: &StoreReport,
    is_masterless: bool,
) -> Result<(Tree<D>, Vec<Lost>), StorageError> {
    let (mut tree, mut keeper, _) =
        tree::open(scratch.clone(), STATE_DIR, TreeOptions::default()).await?;
    let mut salvage = tree::salvage(disk, store).await?;
    if is_masterless {
        // Nobody compacts the scratch store, and the cells have stamps for versions.
        keeper.set_purge_floors(PurgeFloors::none());
    }
    keeper.begin_replacement().await?;
    let mut cells: Vec<(Vec<u8>, u64, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    let mut newest = 0;
    loop {
        let cell = salvage.current();
        if let Some(Cell { place, version, content: Content::Value(value) }) = cell {
            bytes += place.len() + value.len();
            newest = version.max(newest);
            cells.push((place.to_vec(), version, value.to_vec()));
        }
        let is_over = cell.is_none();
        if is_over || bytes >= COPIED_BYTES {
            let full = cells.iter().map(|(place, version, value)| Cell {
                place,
                version: *version,
                content: Content::Value(value),
            });
            keeper.push_replacement(full).await?;
            cells.clear();
            bytes = 0;
            let_others_run().await;
        }
        if is_over {
            break;
        }
        salvage.advance()?;
    }
    let known = store.tables.iter().filter(|table| table.meta.cell_count > 0);
    let newest = known.map(|table| table.meta.version_max).max().unwrap_or(0).max(newest);
    // Without a manifest: no entry that changed a cell of the tables is later.
    let newest = if is_masterless { 0 } else { newest };
    let at = store.applied.unwrap_or(SnapshotPoint { index: newest, term: 0 });
    let extra = store.extra.clone().unwrap_or_default();
    tree.adopt(keeper.finish_replacement(at, extra.into()).await?);
    Ok((tree, salvage.lost().to_vec()))
}

/// Goes on where the tables of a node of the masterless mode are copied.
async fn salvage_masterless<D: Disk>(
    disk: &D,
    tree: Tree<D>,
    (store, mut lost): (StoreReport, Vec<Lost>),
    visit: &mut Visitor<'_>,
) -> Result<SalvageReport, StorageError> {
    let mut cells = CellStore::new(tree);
    let at_start = cells.applied();
    let mut log = LogReport { last: at_start, ..LogReport::default() };
    match wal::inspect(disk, WAL_DIR).await {
        Ok(found) => {
            match judge(&found, cells.applied()) {
                Ok(judged) => log.is_incomplete = judged.is_damaged,
                Err(error) => log.failure = Some(error.to_string()),
            }
            for record in found.records.iter().filter(|record| record.kind == KIND_RECORDS) {
                let records = codec::decode::<Vec<dynamo::Record>>(&record.payload);
                let Ok(records) = records.map_err(|error| log.failure = Some(error.to_string()))
                else {
                    break;
                };
                if record.tag > cells.applied() {
                    cells.apply(record.tag, &records)?;
                    log.entry_count += 1;
                    log.last = record.tag;
                    let_others_run().await;
                }
            }
            log.note(found, at_start);
        }
        Err(error) if is_out_of_reach(&error) => return Err(error),
        Err(error) => log.failure = Some(error.to_string()),
    }
    log.is_incomplete |= notes_damage(cells.engine())?;
    for range in &mut lost {
        range.stale_count = 0;
    }
    let mut cell_count = 0;
    cells.engine().scan(&[], Some(&NOTE_PREFIX), &mut |place, value, version| {
        cell_count += 1;
        for range in &mut lost {
            range.note(place, version);
        }
        visit(without_prefix(place), value, version)
    })?;
    Ok(SalvageReport { store, is_masterless: true, lost, log, cell_count })
}

/// Tells whether a node of the masterless mode has a note that it lacks something.
fn notes_damage(tree: &impl Engine) -> Result<bool, StorageError> {
    let mut is_noted = false;
    tree.scan(&NOTE_PREFIX, None, &mut |place, _, _| {
        is_noted = notes::is_damaged(place);
        if is_noted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(is_noted)
}

/// Carries out what the log has after the tables.
async fn replay_log<D: Disk>(
    disk: &D,
    machine: &mut Machine<Tree<D>>,
    lost: &[Lost],
    report: &mut LogReport,
) -> Result<(), StorageError> {
    report.last = machine.applied().index;
    let log = match wal::inspect(disk, WAL_DIR).await {
        Ok(log) => log,
        Err(error) if is_out_of_reach(&error) => return Err(error),
        Err(error) => {
            report.failure = Some(error.to_string());
            return Ok(());
        }
    };
    let (entries, damaged_last) = match recovery::entries(&log, meta(machine.applied())) {
        Ok(entries) => entries,
        Err(error) => {
            report.failure = Some(error.to_string());
            return Ok(());
        }
    };
    report.lost_through = damaged_last.map(|last| last.index);
    report.note(log, machine.applied().index);
    for Entry { index, term, kind } in entries {
        match kind {
            EntryKind::Noop => machine.skip(index, term),
            EntryKind::Command(command) => {
                report.doubtful_count += u64::from(is_doubtful(command.as_bytes(), lost));
                if report.sessions_are_lost {
                    machine.apply_unnumbered(index, term, command.as_bytes())?;
                } else {
                    machine.apply(index, term, command.as_bytes())?;
                }
            }
        }
        report.entry_count += 1;
        report.last = index;
        let_others_run().await;
    }
    Ok(())
}

/// Tells whether a log may well be as it was, and only this process may not open it: to bring out
/// the rest without it would be to lose it.
fn is_out_of_reach(error: &StorageError) -> bool {
    matches!(error, StorageError::Disk(error) if !error.is_loss())
}

/// Tells whether the outcome of a command depends on cells that are lost.
fn is_doubtful(command: &[u8], lost: &[Lost]) -> bool {
    let Ok(Command::Write { batch, .. }) = codec::decode::<Command>(command) else { return false };
    batch.conditions.iter().any(|condition| {
        let (key, column) = (condition.key.as_bytes(), condition.column.as_bytes());
        let place = keycode::encode_cell(key, column);
        lost.iter().any(|lost| lost.range.contains(&place))
    })
}
