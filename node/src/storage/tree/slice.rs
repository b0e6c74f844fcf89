//! Cuts out of the store what can be merged into the last level on its own.
//!
//! A table may go into the last level only together with everything older that overlaps it: the
//! tables of older runs, and those of the last level. That is its [`descent`](Slice::descent).
//! What is newer may stay above it, or [ride along](Slice::with_riders): where it lies within the
//! stretch that is written anew anyway, nothing more of the last level has to be read for it.

use std::ops::Bound;

use super::LAST_LEVEL;
use super::version::{rows_end, rows_start};
use crate::storage::table::TableMeta;

/// Tables that are merged into the last level together.
#[derive(Debug, Clone)]
pub(super) struct Slice<'m> {
    /// Tables of upper levels.
    pub(super) upper: Vec<&'m TableMeta>,
    /// Tables of the last level, neighbours of one another.
    pub(super) lower: Vec<&'m TableMeta>,
}

impl<'m> Slice<'m> {
    /// Returns tables of a level with all that is older and overlaps them.
    pub(super) fn descent(
        levels: &[Vec<&'m TableMeta>],
        level: usize,
        tables: &[&'m TableMeta],
    ) -> Self {
        let mut upper = tables.to_vec();
        for below in levels.iter().take(LAST_LEVEL).skip(level + 1) {
            let Some((first, last)) = extent(&upper) else { break };
            upper.extend_from_slice(overlapping(below, first, last));
        }
        let lower = levels.get(LAST_LEVEL).map(|last| reached(last, &upper));
        Self { upper, lower: lower.unwrap_or_default().to_vec() }
    }

    /// Adds every table of a run whose own descent is part of the slice already.
    #[must_use]
    pub(super) fn with_riders(mut self, levels: &[Vec<&'m TableMeta>]) -> Self {
        let both = [self.upper.as_slice(), &self.lower].concat();
        let Some((first, last)) = extent(&both) else { return self };
        // The stretch in which everything older than the run at hand is part of the slice.
        let mut clear = Stretch { from: Bound::Included(first), to: Bound::Included(last) };
        for tables in levels.iter().take(LAST_LEVEL).skip(1).rev() {
            let near = overlapping(tables, first, last);
            let is_chosen =
                |table: &&TableMeta| self.upper.iter().any(|one| one.number == table.number);
            let riders: Vec<&TableMeta> = near
                .iter()
                .filter(|table| !is_chosen(table) && clear.holds(table))
                .copied()
                .collect();
            for table in near.iter().filter(|table| !is_chosen(table)) {
                clear = clear.without(table);
            }
            self.upper.extend(riders);
        }
        self
    }

    /// Returns the bytes of all its tables.
    pub(super) fn bytes(&self) -> u64 {
        bytes_of(&self.upper) + bytes_of(&self.lower)
    }
}

/// A stretch of places.
#[derive(Debug, Clone, Copy)]
struct Stretch<'m> {
    from: Bound<&'m [u8]>,
    to: Bound<&'m [u8]>,
}

impl<'m> Stretch<'m> {
    /// Tells whether all of a table is in it.
    fn holds(&self, table: &TableMeta) -> bool {
        let (first, last) = (table.first.as_slice(), table.last.as_slice());
        let begins = match self.from {
            Bound::Included(from) => from <= first,
            Bound::Excluded(from) => from < first,
            Bound::Unbounded => true,
        };
        let ends = match self.to {
            Bound::Included(to) => last <= to,
            Bound::Excluded(to) => last < to,
            Bound::Unbounded => true,
        };
        begins && ends
    }

    /// Returns the stretch with the places of a table cut off, if that sticks out of it; the part
    /// before it where the table sticks out at the end, the part behind it otherwise.
    fn without(self, table: &'m TableMeta) -> Self {
        if self.holds(table) || !self.touches(table) {
            return self;
        }
        let sticks_out_before = match self.from {
            Bound::Included(from) => table.first.as_slice() < from,
            Bound::Excluded(from) => table.first.as_slice() <= from,
            Bound::Unbounded => false,
        };
        if sticks_out_before {
            Self { from: Bound::Excluded(&table.last), ..self }
        } else {
            Self { to: Bound::Excluded(&table.first), ..self }
        }
    }

    fn touches(&self, table: &TableMeta) -> bool {
        let (first, last) = (table.first.as_slice(), table.last.as_slice());
        let after_begin = match self.from {
            Bound::Included(from) => from <= last,
            Bound::Excluded(from) => from < last,
            Bound::Unbounded => true,
        };
        let before_end = match self.to {
            Bound::Included(to) => first <= to,
            Bound::Excluded(to) => first < to,
            Bound::Unbounded => true,
        };
        after_begin && before_end
    }
}

/// Returns the bytes of tables.
pub(super) fn bytes_of(tables: &[&TableMeta]) -> u64 {
    tables.iter().map(|table| table.bytes).sum()
}

/// Returns the first and the last place of tables; `None` if there is no table.
pub(super) fn extent<'m>(tables: &[&'m TableMeta]) -> Option<(&'m [u8], &'m [u8])> {
    let first = tables.iter().map(|table| table.first.as_slice()).min()?;
    let last = tables.iter().map(|table| table.last.as_slice()).max()?;
    Some((first, last))
}

/// Returns the tables of a sorted level with places from `first` to `last`.
pub(super) fn overlapping<'l, 'm>(
    tables: &'l [&'m TableMeta],
    first: &[u8],
    last: &[u8],
) -> &'l [&'m TableMeta] {
    let from = tables.partition_point(|table| *table.last < *first);
    let to = tables.partition_point(|table| *table.first <= *last);
    tables.get(from..to.max(from)).unwrap_or_default()
}

/// Returns the tables of a sorted level that share a row's places with any in the range of input:
/// a row's tombstone shall meet the row's cells.
pub(super) fn reached<'l, 'm>(
    tables: &'l [&'m TableMeta],
    input: &[&TableMeta],
) -> &'l [&'m TableMeta] {
    let start = input.iter().map(|table| rows_start(table)).min().unwrap_or_default();
    let end = input.iter().map(|table| rows_end(table)).max().unwrap_or_default();
    let from = tables.partition_point(|table| *table.last < *start);
    let to = tables.partition_point(|table| table.first < end);
    tables.get(from..to.max(from)).unwrap_or_default()
}
