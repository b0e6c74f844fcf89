//! Estimates how much of a store is superfluous: what newer entries have overwritten or deleted,
//! and tombstones themselves.
//!
//! How much that is decides what compaction is worth. A store that only grows has nothing
//! superfluous, however many tables it is in, and writing it again gains no space; one whose cells
//! are overwritten again and again has as much of it as all tables above the last run hold.
//!
//! Nobody counts it exactly without a merge. So of each new table a few dozen cells are taken, and
//! the filters of all older tables are asked for them: the share that is there is the share of the
//! table's cells that lie over older ones. How often filters say yes for no reason is found out by
//! the same number of questions for nothing, and taken off.
//!
//! Rows of one cell are deleted, and rows of ten million. A long row shows in the index of a table:
//! both sides of the boundaries between many blocks are of that row. So up to [`BOUNDARIES`] of the
//! older tables' boundaries are asked for, whether the new table deletes the row that goes on
//! there; the share that it does is the share of what is stored that it deletes, but for a cell
//! of each row: of a row of `n` cells, `n - 1` are followed by another one of it. That estimate is
//! right to some hundredths of the store, and so is the sum of many. What filters say here is
//! looked up, for one false answer in a hundred would be as much as a hundredth of the store.
//!
//! The estimate is of the table, not of the moment: what it lies over is merged further down, and
//! is there still. It costs some ten microseconds for each table, eight blocks of which are read,
//! and for one with tombstones of rows some ten more and a block for each row that it is found to
//! delete; so it is not kept, but made anew at the start.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::LEVEL_COUNT;
use super::version::{Levels, rows_end, rows_start, tables_at};
use crate::codec::keycode;
use crate::env::File;
use crate::storage::table::{PlaceHash, Table, TableMeta};

/// Boundaries between blocks of older tables at which a table is asked whether it deletes the row
/// there: what a deleted row takes is estimated to a fraction of the store.
const BOUNDARIES: usize = 256;

/// Boundaries are asked for in steps of so many, modulo their number: all over the older tables
/// from the beginning, since it may have to end early.
const BOUNDARY_STEP: usize = 157;

/// Bytes of blocks that are read to look for tombstones of rows; one block may exceed it.
const LOOKED_UP_BYTES: u64 = 256 << 10;

/// For each table above the last level, how many bytes of the store it makes superfluous.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Superfluous {
    bytes: BTreeMap<u64, u64>,
}

impl Superfluous {
    /// Returns how many bytes a table makes superfluous, its own tombstones included.
    pub(super) fn of(&self, table: &TableMeta) -> u64 {
        self.bytes.get(&table.number).copied().unwrap_or(0)
    }

    /// Estimates it for tables that are new, and forgets those that are gone.
    pub(super) fn update<F: File>(&mut self, levels: &Levels<F>) {
        let mut bytes = BTreeMap::new();
        for (level, tables) in levels.iter().enumerate().take(LEVEL_COUNT - 1) {
            for (position, table) in tables.iter().enumerate() {
                let number = table.meta().number;
                let estimate =
                    self.bytes.get(&number).copied().unwrap_or_else(|| {
                        Older::than(levels, level, position).covered_bytes(table)
                    });
                bytes.insert(number, estimate);
            }
        }
        self.bytes = bytes;
    }

    /// Sets what is known of a table.
    #[cfg(test)]
    pub(super) fn set(&mut self, number: u64, bytes: u64) {
        self.bytes.insert(number, bytes);
    }
}

/// The tables whose entries are older than those of another.
struct Older<'a, F> {
    /// Those of level 0, which overlap.
    flushed: &'a [Arc<Table<F>>],
    /// Levels that are sorted.
    sorted: &'a [Vec<Arc<Table<F>>>],
}

impl<'a, F: File> Older<'a, F> {
    fn than(levels: &'a Levels<F>, level: usize, position: usize) -> Self {
        let flushed = levels.first().filter(|_| level == 0);
        let flushed = flushed.and_then(|tables| tables.get(position + 1..)).unwrap_or_default();
        Self { flushed, sorted: levels.get(level + 1..).unwrap_or_default() }
    }

    /// Estimates how many bytes of these tables a newer one covers, with its own tombstones.
    fn covered_bytes(&self, table: &Table<F>) -> u64 {
        let meta = table.meta();
        let tombstones = meta.tombstone_count + meta.row_tombstone_count;
        let own_cell_bytes = meta.bytes.checked_div(meta.cell_count).unwrap_or(0);
        let tombstone_bytes = tombstones.saturating_mul(own_cell_bytes);
        let tables = self.flushed.iter().chain(self.sorted.iter().flatten());
        let (bytes, count) = tables.fold((0_u64, 0_u64), |(bytes, count), older| {
            (bytes + older.meta().bytes, count + older.meta().cell_count)
        });
        let Some(older_cell_bytes) = bytes.checked_div(count) else { return tombstone_bytes };
        let cells = meta.cell_count.saturating_sub(meta.row_tombstone_count);
        let (covering, of) = self.covering_share(table);
        // A cell of each row does not show at boundaries.
        let covered = (cells.saturating_mul(covering) / of) + meta.row_tombstone_count;
        let covered = covered.saturating_mul(older_cell_bytes);
        let covered = covered.saturating_add(self.bytes_of_deleted_rows(table));
        covered.min(bytes).saturating_add(tombstone_bytes)
    }

    /// Estimates how many bytes of these tables are in rows that a newer one deletes, but for a
    /// cell of each.
    fn bytes_of_deleted_rows(&self, table: &Table<F>) -> u64 {
        let meta = table.meta();
        if meta.row_tombstone_count == 0 {
            return 0;
        }
        let (start, end) = (rows_start(meta), rows_end(meta));
        let is_reached =
            |older: &&Arc<Table<F>>| *older.meta().last >= *start && *older.meta().first < *end;
        let (mut reached, mut count) = (Vec::new(), 0_usize);
        for older in self.flushed.iter().chain(self.sorted.iter().flatten()).filter(is_reached) {
            reached.push((count, older));
            count += older.boundary_count();
        }
        let chosen = count.min(BOUNDARIES);
        let numbers = (0..BOUNDARIES).map(|number| number * BOUNDARY_STEP % BOUNDARIES);
        let boundaries = numbers.filter(|number| *number < chosen).filter_map(|number| {
            let position = number * count / chosen;
            let next = reached.partition_point(|(before, _)| *before <= position);
            let (before, older) = reached.get(next.checked_sub(1)?)?;
            older.boundary(position - before)
        });
        let bytes: u64 = reached.iter().map(|(_, older)| older.meta().bytes).sum();
        let (deleted, of) = deleted_share(table, &boundaries.collect::<Vec<_>>());
        let share = u128::from(bytes) * u128::from(deleted) / u128::from(of.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Estimates the share of a newer table's cells that these tables have, too, as a fraction.
    fn covering_share(&self, table: &Table<F>) -> (u64, u64) {
        let (mut asked, mut found, mut wrong) = (0_u64, 0_u64, 0_u64);
        let sampled = table.sample(|place| {
            let may_have = |hash| {
                tables_at(self.flushed, self.sorted, place).any(|older| older.may_have(hash))
            };
            let hash = PlaceHash::of(place);
            asked += 1;
            found += u64::from(may_have(hash));
            wrong += u64::from(may_have(hash.of_nothing()));
        });
        match asked.saturating_sub(wrong) {
            of @ 1.. if sampled.is_ok() => (found.saturating_sub(wrong), of),
            // Without filters, or with a table that cannot be read, everything may be superfluous.
            _ => (1, 1),
        }
    }
}

/// Returns how many bytes of the blocks before these boundaries are of rows that go on behind them
/// and that the table deletes, and of how many bytes in all.
fn deleted_share<F: File>(table: &Table<F>, boundaries: &[(&[u8], u64)]) -> (u64, u64) {
    let (mut deleted, mut asked, mut bytes_left) = (0_u64, 0_u64, LOOKED_UP_BYTES);
    let mut known = BTreeMap::new();
    for &(place, bytes) in boundaries {
        let row = keycode::row_prefix(place);
        // What lies between two rows is a part of a key.
        let is_deleted = if row.len() == place.len() {
            false
        } else if let Some(is_deleted) = known.get(row) {
            *is_deleted
        } else {
            // What cannot be read may be superfluous.
            let Some(found) = table.deletes_row(row, &mut bytes_left).unwrap_or(Some(true)) else {
                break;
            };
            known.insert(row, found);
            found
        };
        deleted += if is_deleted { bytes } else { 0 };
        asked += bytes;
    }
    (deleted, asked)
}
