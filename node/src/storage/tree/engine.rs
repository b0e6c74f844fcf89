//! The loop's side of the table store: the memtables over a version, as one ordered map.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::TreeOptions;
use super::memtable::{Memtable, MemtableCursor, Retired};
use super::merge::{Source, Visible};
use super::version::{LevelCursor, Version};
use crate::codec::keycode;
use crate::env::{Disk, File};
use crate::planted;
use crate::storage::engine::{
    Change, Engine, Passed, Raw, RawVisitor, SnapshotPoint, Stored, Visitor,
};
use crate::storage::table::Found;
use crate::storage::{Cell, Content, PurgeFloors, StorageError};

/// Shortest value that is handed out as a part of its block, which it keeps in memory.
const SHARED_BYTES_MIN: usize = 2 << 10;

/// A memtable that takes no more writes, to be flushed; cheap to clone.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// The state after its last entry.
    pub point: SnapshotPoint,
    /// What was captured with that state.
    pub extra: Bytes,
    pub(super) memtable: Arc<Memtable>,
    /// Which tombstones may go once this is on disk.
    pub(super) floors: PurgeFloors,
    /// Everything since the first entry is in it, so it may take the place of a damaged state.
    pub is_all: bool,
}

/// The table store as the loop sees it; see the [module](super).
#[derive(Debug)]
pub struct Tree<D: Disk> {
    options: TreeOptions,
    active: Memtable,
    /// The oldest first.
    frozen: VecDeque<Frozen>,
    version: Arc<Version<D>>,
    applied: SnapshotPoint,
    floors: PurgeFloors,
    /// Memtables that nobody needs.
    retired: Vec<Retired>,
}

impl<D: Disk> Tree<D> {
    pub(super) fn new(version: Arc<Version<D>>, options: TreeOptions, floors: PurgeFloors) -> Self {
        let applied = version.applied;
        let (active, frozen) = (Memtable::default(), VecDeque::new());
        Self { options, active, frozen, version, applied, floors, retired: Vec::new() }
    }

    /// Tells whether the memtable is full.
    pub fn is_flush_due(&self) -> bool {
        self.active.bytes() >= self.options.memtable_bytes
    }

    /// Tells whether the disk does not keep up: writes are to be held back until a version is
    /// adopted.
    pub fn is_stalled(&self) -> bool {
        let waiting = self.frozen.len() >= self.options.frozen_max.max(1) && self.is_flush_due();
        waiting || self.version.flushed_count() >= self.options.level0_tables_max
    }

    /// Tells whether another memtable may be frozen: not too many wait to be flushed.
    pub fn may_freeze(&self) -> bool {
        self.frozen.len() < self.options.frozen_max.max(1)
    }

    /// Tells whether another memtable may be frozen and become a table: not too many wait to be
    /// flushed, and level 0 has room. Whoever asks this before each freezing keeps level 0 within
    /// [`TreeOptions::level0_bound`].
    pub fn may_flush(&self) -> bool {
        self.may_freeze() && self.version.flushed_count() < self.options.level0_tables_max
    }

    /// Returns how many tables level 0 has once all that is frozen is flushed.
    pub fn level0_count(&self) -> usize {
        self.version.flushed_count() + self.frozen.len()
    }

    /// Asserts that level 0 is within its bound, right after a memtable was frozen because it
    /// [might be flushed](Self::may_flush).
    pub fn check_level0(&self) {
        let (count, count_max) = (self.level0_count(), self.options.level0_bound());
        assert!(count <= count_max, "level 0 grows to {count} tables, its bound is {count_max}");
    }

    /// Returns the last position that is frozen, or on disk: what comes after it is in the memtable
    /// that takes the writes.
    pub fn frozen_through(&self) -> SnapshotPoint {
        self.frozen.back().map_or(self.version.applied, |frozen| frozen.point)
    }

    /// Returns about how much memory the memtables take, in bytes.
    pub fn memtable_bytes(&self) -> u64 {
        let frozen = self.frozen.iter().map(|frozen| frozen.memtable.bytes());
        self.active.bytes() + frozen.sum::<u64>()
    }

    /// Freezes the memtable as it is, empty or not, and starts another.
    ///
    /// `extra` is kept with the cells and comes back with them: it must belong to the state as it
    /// is now. What this returns is flushed in the order in which it was frozen.
    pub fn freeze(&mut self, extra: Vec<u8>) -> Frozen {
        let memtable = Arc::new(std::mem::take(&mut self.active));
        let floors = self.floors.clone();
        let (point, extra) = (self.applied, extra.into());
        let frozen = Frozen { point, extra, memtable, floors, is_all: false };
        self.frozen.push_back(frozen.clone());
        frozen
    }

    /// Takes a newer version over from the [`Keeper`](super::Keeper), and lets the memtables go
    /// that it covers. A state later than the own one, from another node, replaces everything.
    ///
    /// # Panics
    /// If the version is older than the one before.
    pub fn adopt(&mut self, version: Arc<Version<D>>) {
        assert!(
            version.generation >= self.version.generation
                && version.applied >= self.version.applied,
            "{version:?} comes after {:?}",
            self.version
        );
        while self.frozen.front().is_some_and(|frozen| frozen.point <= version.applied) {
            let frozen = self.frozen.pop_front();
            self.retired.extend(frozen.map(|frozen| Retired::Shared(frozen.memtable)));
        }
        if version.applied > self.applied {
            assert!(self.frozen.is_empty(), "frozen at {:?}, before {version:?}", self.applied);
            let active = Arc::new(std::mem::take(&mut self.active));
            self.retired.push(Retired::Shared(active));
            self.applied = version.applied;
        }
        self.version = version;
    }

    /// Frees some entries of a memtable that nobody needs, twice as many as were written, so that
    /// it is gone long before the next one is.
    fn free_some(&mut self, written: usize) {
        let rest = self.retired.pop().and_then(|retired| retired.free_some(2 * written + 1));
        self.retired.extend(rest);
    }

    /// Returns the newest state on disk. Its files stay while it is held.
    pub fn pin(&self) -> Arc<Version<D>> {
        Arc::clone(&self.version)
    }

    /// Returns the position up to which the log is superfluous: what is on disk.
    pub fn durable(&self) -> SnapshotPoint {
        if planted!("W17")
            && let Some(frozen) = self.frozen.back()
        {
            return frozen.point;
        }
        self.version.applied
    }

    /// Returns the memtables, the newest first.
    fn memtables(&self) -> impl Iterator<Item = &Memtable> {
        let frozen = self.frozen.iter().rev().map(|frozen| &*frozen.memtable);
        std::iter::once(&self.active).chain(frozen)
    }

    /// Returns the newest entry of a place; its row is not looked at.
    fn newest(&self, place: &[u8]) -> Result<Option<Found>, StorageError> {
        match self.memtables().find_map(|memtable| memtable.get(place)) {
            Some(Cell { content: Content::Value(value), version, .. }) => {
                Ok(Some(Found { value: Some(Bytes::copy_from_slice(value)), version }))
            }
            Some(Cell { version, .. }) => Ok(Some(Found { value: None, version })),
            None => {
                let found = self.version.get(place)?;
                Ok(found.map(|found| Found { value: found.value.map(apart), ..found }))
            }
        }
    }

    /// Returns the version of the newest tombstone of the row that begins with `row`.
    fn row_deleted(&self, row: &[u8]) -> Result<Option<u64>, StorageError> {
        let in_memory = self.memtables().filter_map(|memtable| memtable.row_deleted(row)).max();
        // A tombstone was written only if it was newer than every one that was there.
        if in_memory.is_some() { Ok(in_memory) } else { self.version.row_deleted(row) }
    }

    /// Returns all sources, the newest first, each from `start` on.
    fn sources(&self, start: &[u8]) -> Result<Vec<ReadSource<'_, D::File>>, StorageError> {
        let memtables = self.memtables().map(|memtable| ReadSource::Memory(memtable.cursor()));
        let tables = self.version.sources(true).into_iter().map(ReadSource::Tables);
        let mut sources: Vec<ReadSource<'_, D::File>> = memtables.chain(tables).collect();
        for source in &mut sources {
            source.seek(start)?;
        }
        Ok(sources)
    }

    /// Returns the newest tombstone of the row of a place, with the row.
    fn tombstone_over<'p>(&self, place: &'p [u8]) -> Result<Option<(&'p [u8], u64)>, StorageError> {
        let is_possible =
            self.version.has_rows_deleted() || self.memtables().any(Memtable::has_rows_deleted);
        if !is_possible {
            return Ok(None);
        }
        let row = keycode::row_prefix(place);
        Ok(self.row_deleted(row)?.map(|version| (row, version)))
    }
}

impl<D: Disk> Engine for Tree<D> {
    fn get(&self, place: &[u8]) -> Result<Option<Stored>, StorageError> {
        let Some(Found { value: Some(value), version }) = self.newest(place)? else {
            return Ok(None);
        };
        let tombstone = self.tombstone_over(place)?;
        let is_hidden = tombstone.is_some_and(|(_, deleted)| version < deleted);
        Ok((!is_hidden).then_some(Stored { value, version }))
    }

    fn version_of(&self, place: &[u8]) -> Result<Option<u64>, StorageError> {
        let newest = match self.memtables().find_map(|memtable| memtable.get(place)) {
            Some(Cell { content: Content::Value(_), version, .. }) => Some(version),
            Some(Cell { content: Content::Deleted | Content::RowDeleted, .. }) => None,
            None => {
                let found = self.version.get(place)?.filter(|found| found.value.is_some());
                found.map(|found| found.version)
            }
        };
        let Some(version) = newest else { return Ok(None) };
        let tombstone = self.tombstone_over(place)?;
        let is_hidden = tombstone.is_some_and(|(_, deleted)| version < deleted);
        Ok((!is_hidden).then_some(version))
    }

    fn scan_some(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        bytes_max: usize,
        visit: &mut Visitor<'_>,
    ) -> Result<Passed, StorageError> {
        let above = self.tombstone_over(start)?;
        let mut cells = Visible::new(self.sources(start)?, end, above, bytes_max)?;
        while let Some(cell) = cells.current() {
            if let Content::Value(value) = cell.content
                && visit(cell.place, value, cell.version) == ControlFlow::Break(())
            {
                return Ok(Passed { next: None, ..cells.passed() });
            }
            cells.advance()?;
        }
        Ok(cells.passed())
    }

    fn write(&mut self, at: SnapshotPoint, changes: &[Change<'_>]) {
        assert!(
            at.index > self.applied.index && at.term >= self.applied.term,
            "write at {at:?} after {:?}",
            self.applied
        );
        for change in changes {
            match *change {
                Change::Set { place, value } => self.active.put(place, Some(value), at.index),
                Change::Delete { place } => self.active.put(place, None, at.index),
                Change::DeleteRow { row } => self.active.delete_row(row, at.index),
            }
        }
        self.applied = at;
        self.free_some(changes.len());
    }

    fn get_raw(&self, place: &[u8]) -> Result<Raw, StorageError> {
        let newest = self.newest(place)?;
        let row_deleted = self.tombstone_over(place)?.map(|(_, version)| version);
        Ok(Raw { newest, row_deleted })
    }

    fn scan_raw_some(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        bytes_max: usize,
        visit: &mut RawVisitor<'_>,
    ) -> Result<Passed, StorageError> {
        // The tombstone of a row that begins at `start` is in the range: the scan comes upon it.
        let above = self.tombstone_over(start)?.filter(|(row, _)| *row < start);
        let mut cells = Visible::raw(self.sources(start)?, end, above, bytes_max)?;
        while let Some(cell) = cells.current() {
            if visit(cell) == ControlFlow::Break(()) {
                return Ok(Passed { next: None, ..cells.passed() });
            }
            cells.advance()?;
        }
        Ok(cells.passed())
    }

    fn write_stamped(&mut self, at: SnapshotPoint, entries: &[Cell<'_>]) {
        assert!(
            at >= self.applied && (entries.is_empty() || at > self.frozen_through()),
            "write at {at:?} after {:?}, frozen through {:?}",
            self.applied,
            self.frozen_through()
        );
        for entry in entries {
            match entry.content {
                Content::Value(value) => self.active.put(entry.place, Some(value), entry.version),
                Content::Deleted => self.active.put(entry.place, None, entry.version),
                Content::RowDeleted => self.active.delete_row(entry.place, entry.version),
            }
        }
        self.applied = at;
        self.free_some(entries.len());
    }

    fn set_purge_floors(&mut self, floors: PurgeFloors) {
        self.floors = floors;
    }

    fn applied(&self) -> SnapshotPoint {
        self.applied
    }

    /// An estimate: what is overwritten or deleted counts until compactions have found that out.
    fn cell_count(&self) -> u64 {
        let in_memory = self.memtables().map(Memtable::cell_delta).sum::<i64>();
        self.version.cell_count().saturating_add_signed(in_memory)
    }
}

/// Copies a value out of its block, unless it is the better part of it.
fn apart(value: Bytes) -> Bytes {
    if value.len() < SHARED_BYTES_MIN { Bytes::copy_from_slice(&value) } else { value }
}

/// What a scan reads from.
enum ReadSource<'a, F: File> {
    Memory(MemtableCursor<'a>),
    Tables(LevelCursor<F>),
}

impl<F: File> Source for ReadSource<'_, F> {
    fn current(&self) -> Option<Cell<'_>> {
        match self {
            Self::Memory(cursor) => cursor.current(),
            Self::Tables(cursor) => cursor.current(),
        }
    }

    fn advance(&mut self) -> Result<(), StorageError> {
        match self {
            Self::Memory(cursor) => cursor.advance(),
            Self::Tables(cursor) => cursor.advance(),
        }
    }

    fn seek(&mut self, place: &[u8]) -> Result<(), StorageError> {
        match self {
            Self::Memory(cursor) => cursor.seek(place),
            Self::Tables(cursor) => cursor.seek(place),
        }
    }

    fn version_max(&self) -> u64 {
        match self {
            Self::Memory(cursor) => cursor.version_max(),
            Self::Tables(cursor) => cursor.version_max(),
        }
    }
}
