//! The tables that make one state, by level.
//!
//! A version never changes; the [`Keeper`](super::Keeper) makes the next one. Whoever holds one
//! keeps its files from being removed, so it is also what a snapshot is written from.
//!
//! Level 0 holds flushed memtables: each may hold any place, the newest table is first. Every
//! other level is one sorted sequence cut into tables, so a place can be in one table of it; an
//! entry of a place in a level is newer than one in any level below. What holds for places does
//! not hold for rows: see [`merge`](super::merge). Newer means that it was written later here; that
//! its version is greater then, the writer sees to.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::LEVEL_COUNT;
use super::merge::{Source, Visible};
use crate::codec::keycode;
use crate::env::{Disk, File};
use crate::storage::table::{Found, PlaceHash, Table, TableCursor, TableMeta};
use crate::storage::{Cell, SnapshotPoint, StorageError};

/// Tables by level.
pub(super) type Levels<F> = Vec<Vec<Arc<Table<F>>>>;

/// A stable state on disk: tables that never change. Its files stay as long as somebody holds it.
pub struct Version<D: Disk> {
    /// The state that it is.
    pub applied: SnapshotPoint,
    /// What was captured with the cells.
    pub extra: Bytes,
    /// Counts the versions.
    pub(super) generation: u64,
    pub(super) levels: Levels<D::File>,
    /// Whether any table holds a row tombstone.
    has_rows_deleted: bool,
}

impl<D: Disk> Version<D> {
    /// Makes a version of tables that are as the [module](self) says.
    pub(super) fn new(
        applied: SnapshotPoint,
        extra: Bytes,
        generation: u64,
        levels: Levels<D::File>,
    ) -> Self {
        let mut tables = levels.iter().flatten();
        let has_rows_deleted = tables.any(|table| table.meta().row_tombstone_count > 0);
        Self { applied, extra, generation, levels, has_rows_deleted }
    }

    /// Returns how many tables were flushed and wait for a compaction: those of level 0.
    pub(super) fn flushed_count(&self) -> usize {
        self.levels.first().map_or(0, Vec::len)
    }

    /// Returns how many tables there are.
    pub fn table_count(&self) -> usize {
        self.levels.iter().map(Vec::len).sum()
    }

    /// Returns how many bytes the tables take.
    pub fn bytes(&self) -> u64 {
        self.levels.iter().flatten().map(|table| table.meta().bytes).sum()
    }

    /// Returns the bytes and tables of each level, the newest first.
    pub fn level_sizes(&self) -> Vec<(u64, usize)> {
        let size = |tables: &Vec<Arc<Table<D::File>>>| {
            (tables.iter().map(|table| table.meta().bytes).sum(), tables.len())
        };
        self.levels.iter().map(size).collect()
    }

    /// Returns about how many cells it holds; too many while places are in several levels.
    pub fn cell_count(&self) -> u64 {
        let counts = self.levels.iter().flatten().map(|table| {
            let meta = table.meta();
            let hidden = meta.tombstone_count.saturating_mul(2) + meta.row_tombstone_count;
            i64::try_from(meta.cell_count).unwrap_or(i64::MAX)
                - i64::try_from(hidden).unwrap_or(i64::MAX)
        });
        u64::try_from(counts.sum::<i64>()).unwrap_or(0)
    }

    /// Returns the entry of a place that counts among all tables; its row is not looked at.
    pub(super) fn get(&self, place: &[u8]) -> Result<Option<Found>, StorageError> {
        let hash = PlaceHash::of(place);
        for table in self.tables_at(place) {
            if let Some(found) = table.get(place, hash)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns the greatest version of a tombstone of the row that begins with `row`.
    pub(super) fn row_deleted(&self, row: &[u8]) -> Result<Option<u64>, StorageError> {
        let mut deleted = None;
        let hash = PlaceHash::of(row);
        for table in self.tables_at(row).filter(|table| table.meta().row_tombstone_count > 0) {
            deleted = deleted.max(table.row_deleted(row, hash)?);
        }
        Ok(deleted)
    }

    /// Tells whether any table holds a row tombstone.
    pub(super) fn has_rows_deleted(&self) -> bool {
        self.has_rows_deleted
    }

    /// Returns the tables that may hold a place, the newest first.
    fn tables_at(&self, place: &[u8]) -> impl Iterator<Item = &Arc<Table<D::File>>> {
        let (flushed, sorted) = self.levels.split_first().unzip();
        tables_at(flushed.map_or(&[], Vec::as_slice), sorted.unwrap_or_default(), place)
    }

    /// Returns the sources of all tables, the newest first; they stand nowhere yet.
    pub(super) fn sources(&self, fills_cache: bool) -> Vec<LevelCursor<D::File>> {
        let mut levels = self.levels.iter();
        let flushed = levels.next().into_iter().flatten();
        let flushed = flushed.map(|table| LevelCursor::new(vec![Arc::clone(table)], fills_cache));
        let sorted = levels.filter(|tables| !tables.is_empty());
        flushed.chain(sorted.map(|tables| LevelCursor::new(tables.clone(), fills_cache))).collect()
    }

    /// Returns a cursor on the first of the live cells, which reads around the cache.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn cursor(self: &Arc<Self>) -> Result<VersionCursor<D>, StorageError> {
        let mut sources = self.sources(false);
        for source in &mut sources {
            source.seek(&[])?;
        }
        let cells = Visible::new(sources, None, None, usize::MAX)?;
        Ok(VersionCursor { version: Arc::clone(self), cells })
    }

    /// Checks what holds for every version.
    pub(super) fn check(&self) {
        assert!(self.levels.len() == LEVEL_COUNT, "{} levels", self.levels.len());
        for tables in self.levels.iter().skip(1) {
            for pair in tables.windows(2) {
                if let [a, b] = pair {
                    let (a, b) = (a.meta(), b.meta());
                    assert!(a.last < b.first, "tables {} and {} overlap", a.number, b.number);
                }
            }
        }
    }

    /// Tells whether any entry has a version that is no position of the log up to this state: then
    /// versions are stamps.
    pub(super) fn is_stamped(&self) -> bool {
        let mut tables = self.levels.iter().flatten();
        tables.any(|table| table.meta().version_max > self.applied.index)
    }
}

impl<D: Disk> fmt::Debug for Version<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, sizes) = (self.applied.index, self.level_sizes());
        write!(f, "Version({} at {index}, levels {sizes:?})", self.generation)
    }
}

/// Goes through the live cells of a [`Version`] in order.
pub struct VersionCursor<D: Disk> {
    /// Keeps the files from being removed.
    version: Arc<Version<D>>,
    cells: Visible<LevelCursor<D::File>>,
}

impl<D: Disk> VersionCursor<D> {
    /// Returns the version whose cells they are.
    pub fn version(&self) -> &Arc<Version<D>> {
        &self.version
    }

    /// Returns the cell at hand, which has a value; `None` after the last.
    pub fn current(&self) -> Option<Cell<'_>> {
        self.cells.current()
    }

    /// Goes on to the next cell.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn advance(&mut self) -> Result<(), StorageError> {
        self.cells.advance()
    }
}

/// Goes through tables that follow one another; stands at the end until it is sent somewhere.
pub(super) struct LevelCursor<F: File> {
    tables: Vec<Arc<Table<F>>>,
    next: usize,
    cursor: Option<TableCursor<F>>,
    version_max: u64,
    fills_cache: bool,
}

impl<F: File> LevelCursor<F> {
    /// Makes a cursor over tables sorted by place.
    pub(super) fn new(tables: Vec<Arc<Table<F>>>, fills_cache: bool) -> Self {
        let version_max = tables.iter().map(|table| table.meta().version_max).max().unwrap_or(0);
        Self { tables, next: 0, cursor: None, version_max, fills_cache }
    }

    /// Opens the next table while the one at hand is at its end.
    fn settle(&mut self, place: &[u8]) -> Result<(), StorageError> {
        while self.cursor.as_ref().is_none_or(|cursor| cursor.current().is_none()) {
            let Some(table) = self.tables.get(self.next) else {
                self.cursor = None;
                return Ok(());
            };
            self.next += 1;
            let mut cursor = Arc::clone(table).cursor();
            if !self.fills_cache {
                cursor = cursor.without_cache();
            }
            cursor.seek(place)?;
            self.cursor = Some(cursor);
        }
        Ok(())
    }
}

impl<F: File> Source for LevelCursor<F> {
    fn current(&self) -> Option<Cell<'_>> {
        self.cursor.as_ref()?.current()
    }

    fn advance(&mut self) -> Result<(), StorageError> {
        if let Some(cursor) = &mut self.cursor {
            cursor.advance()?;
        }
        self.settle(&[])
    }

    fn seek(&mut self, place: &[u8]) -> Result<(), StorageError> {
        let target = self.tables.partition_point(|table| *table.meta().last < *place);
        if let Some(cursor) = &mut self.cursor
            && self.next == target + 1
        {
            return cursor.seek(place);
        }
        self.cursor = None;
        self.next = target;
        self.settle(place)
    }

    fn version_max(&self) -> u64 {
        self.version_max
    }
}

/// Returns those of tables of level 0, and of sorted levels, that may hold a place, in their order.
pub(super) fn tables_at<'a, F: File>(
    flushed: &'a [Arc<Table<F>>],
    sorted: &'a [Vec<Arc<Table<F>>>],
    place: &[u8],
) -> impl Iterator<Item = &'a Arc<Table<F>>> {
    let flushed = flushed
        .iter()
        .filter(move |table| *table.meta().first <= *place && *place <= *table.meta().last);
    flushed.chain(sorted.iter().filter_map(move |tables| {
        let next = tables.partition_point(|table| *table.meta().last < *place);
        tables.get(next).filter(|table| *table.meta().first <= *place)
    }))
}

/// Returns the first place that no row of the table reaches: its last row may go on in others.
pub(super) fn rows_end(meta: &TableMeta) -> Vec<u8> {
    keycode::row_end(keycode::row_prefix(&meta.last))
}

/// Returns the first place of the first row of the table.
pub(super) fn rows_start(meta: &TableMeta) -> &[u8] {
    keycode::row_prefix(&meta.first)
}
