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
//! the same number of questions for nothing, and taken off. A row's tombstone is taken to lie over
//! [`CELLS_PER_ROW`] cells, if anything is below it.
//!
//! The estimate is of the table, not of the moment: what it lies over is merged further down, and
//! is there still. It costs some ten microseconds for each table, eight blocks of which are read;
//! so it is not kept, but made anew at the start.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::LEVEL_COUNT;
use super::version::{Levels, tables_at};
use crate::env::File;
use crate::storage::table::{PlaceHash, Table, TableMeta};

/// How many cells a row tombstone is taken to hide. How many it does, only the compaction finds
/// out; too few leave a deleted row's space in use for longer, too many make for more writing.
const CELLS_PER_ROW: u64 = 32;

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
        let in_rows = meta.row_tombstone_count.saturating_mul(CELLS_PER_ROW);
        let covered = (cells.saturating_mul(covering) / of).saturating_add(in_rows);
        covered.saturating_mul(older_cell_bytes).min(bytes).saturating_add(tombstone_bytes)
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
