//! Chooses what to compact: a plain function of the tables.
//!
//! What is above the last level may be superfluous, all of it: that is what may be more than
//! [`ABOVE_SHARE`] of the last level for a while, and not for long. And level 0 may hold
//! [`TreeOptions::level0_tables`] tables, since every read asks all of them. The store is as full
//! as it may be where one of the two has a *score* of 1000.
//!
//! - A small store, up to [`TreeOptions::base_bytes`], has its last level alone: everything above
//!   is merged into it.
//! - In a larger one level 0 becomes a *run*, one sorted sequence in a level of its own, and is
//!   written once for that, whatever the size of the store. Where it is but a short stretch of the
//!   places, it goes to the last level at once; where nothing is below, as it is.
//! - Runs are merged into the last level *slice* by slice: always the slice that has most above
//!   it for what has to be written again. So slices take turns, and the one whose turn it is has
//!   twice as much above it as there is on average. A run is cut where tables of the last level
//!   end, so that a slice is one or two of those.
//! - There are five levels for runs. When all are taken, the two neighbours are merged with each
//!   other that are smallest.
//!
//! A tombstone counts with what it may hide, for that may be superfluous, too; a table of a run
//! that is mostly tombstones goes down at once. Tables of the last level are taken where the
//! *rows* of the input reach, so that a row's tombstone meets the row's cells; and small
//! neighbours are taken along, so that the level does not fall to pieces.
//!
//! Where tombstones are kept until a [floor](PurgeFloors) lets them go, they come to rest in the
//! last level, and a table of it that holds many is merged with itself once they may go.

use std::collections::BTreeSet;

use super::slice::{Slice, bytes_of, extent, overlapping, reached};
use super::{LAST_LEVEL, TreeOptions};
use crate::storage::PurgeFloors;
use crate::storage::table::TableMeta;

/// Score at which something is full.
const FULL: u64 = 1000;

/// What all levels above the last may hold, in thousandths of the last: with the 7 % that cells of
/// 116 B take in a table besides, a store takes at most half as much more space than its cells.
const ABOVE_SHARE: u64 = 380;

/// What a hidden cell weighs, in thousandths of its bytes: it makes as much superfluous above as
/// half of what is live may be.
const HIDDEN_WEIGHT: u64 = 1500;

/// How many cells a row tombstone is taken to hide. How many it does, only the compaction finds
/// out; too few leave a deleted row's space in use for longer, too many make for more writing.
const CELLS_PER_ROW: u64 = 32;

/// Most that a slice has, in tables of the usual size, if there is a choice.
const SLICE_TABLES_MAX: u64 = 8;

/// Most slices that are compared with one another, for the sake of stores of terabytes.
const SLICES_MAX: usize = 1000;

/// A compaction to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The level that gets the result.
    pub(super) target: usize,
    /// Numbers of the tables of upper levels that go in.
    pub(super) upper: Vec<u64>,
    /// Numbers of the tables of the target level that go in.
    pub(super) lower: Vec<u64>,
    /// Whether the upper tables may change their level as they are.
    pub(super) is_move: bool,
}

/// Returns the most urgent compaction; `None` if all is well.
pub(super) fn pick(levels: &[Vec<&TableMeta>], options: &TreeOptions) -> Option<Plan> {
    let last = levels.get(LAST_LEVEL).map_or(&[][..], Vec::as_slice);
    let cell_count: u64 = last.iter().map(|table| table.cell_count).sum();
    let cell_bytes = bytes_of(last).checked_div(cell_count).unwrap_or(0);
    Picker { levels, options, cell_bytes }.pick()
}

/// The tables that there are, and what is wanted of them.
struct Picker<'l, 'm> {
    levels: &'l [Vec<&'m TableMeta>],
    options: &'l TreeOptions,
    /// How many bytes a cell of the last level takes on average.
    cell_bytes: u64,
}

impl<'l, 'm> Picker<'l, 'm> {
    fn level(&self, index: usize) -> &'l [&'m TableMeta] {
        self.levels.get(index).map_or(&[], Vec::as_slice)
    }

    /// Returns the levels that hold runs, the newest first.
    fn runs(&self) -> impl Iterator<Item = (usize, &'l [&'m TableMeta])> {
        let runs = (1..LAST_LEVEL).map(|index| (index, self.level(index)));
        runs.filter(|(_, tables)| !tables.is_empty())
    }

    fn pick(&self) -> Option<Plan> {
        let flushed = self.level(0);
        let has_runs = self.runs().next().is_some();
        if self.level(LAST_LEVEL).is_empty() && !has_runs {
            // The first table is no burden.
            return (flushed.len() >= 2).then(|| self.everything());
        }
        let (by_count, by_weight) = (self.count_score(), self.weight_score());
        if by_count.max(by_weight) < FULL {
            return self.tombstones();
        }
        if bytes_of(self.level(LAST_LEVEL)) <= self.options.base_bytes {
            return Some(self.everything());
        }
        let is_mostly_flushed = self.weight(flushed) * 2 > self.weight_above();
        if by_count >= by_weight || is_mostly_flushed { Some(self.flushed()) } else { self.slice() }
    }

    fn count_score(&self) -> u64 {
        let count_max = to_u64(self.options.level0_tables.max(1));
        to_u64(self.level(0).len()).saturating_mul(FULL) / count_max
    }

    fn weight_score(&self) -> u64 {
        let allowed = bytes_of(self.level(LAST_LEVEL)).saturating_mul(ABOVE_SHARE) / 1000;
        self.weight_above().saturating_mul(FULL) / allowed.max(1)
    }

    /// Returns how many bytes tables may make superfluous: their own, and those of what they hide.
    fn weight(&self, tables: &[&TableMeta]) -> u64 {
        let hidden = |table: &&TableMeta| {
            table.tombstone_count + table.row_tombstone_count.saturating_mul(CELLS_PER_ROW)
        };
        let hidden_count: u64 = tables.iter().map(hidden).sum();
        let hidden_bytes = hidden_count.saturating_mul(self.cell_bytes);
        bytes_of(tables).saturating_add(hidden_bytes.saturating_mul(HIDDEN_WEIGHT) / 1000)
    }

    fn weight_above(&self) -> u64 {
        (0..LAST_LEVEL).map(|index| self.weight(self.level(index))).sum()
    }

    /// Plans to merge all that is above the last level into it.
    fn everything(&self) -> Plan {
        let above: Vec<&TableMeta> =
            self.levels.iter().take(LAST_LEVEL).flatten().copied().collect();
        let lower = reached(self.level(LAST_LEVEL), &above).to_vec();
        self.plan_last(Slice { upper: above, lower })
    }

    /// Plans for level 0, all of it, since its tables overlap.
    fn flushed(&self) -> Plan {
        let flushed = self.level(0);
        let descent = Slice::descent(self.levels, 0, flushed);
        // As a run it would be written once more, and then with a slice each.
        if descent.bytes() <= bytes_of(flushed).saturating_mul(3) {
            return self.plan_last(descent);
        }
        let newest = self.runs().next().map_or(LAST_LEVEL, |(index, _)| index);
        if newest > 1 {
            return self.plan_run(newest - 1, flushed);
        }
        // No level is free: two runs become one, or the newest takes level 0 in.
        let runs: Vec<(usize, &[&TableMeta])> = self.runs().collect();
        let cost = |pair: &&[(usize, &[&TableMeta])]| {
            pair.iter().map(|(_, tables)| bytes_of(tables)).sum::<u64>()
        };
        let newest_bytes = bytes_of(self.level(newest));
        match runs.windows(2).min_by_key(cost) {
            Some(pair @ [(_, upper), (target, _)]) if cost(&pair) < newest_bytes => {
                self.plan_run(*target, upper)
            }
            _ => self.plan_run(newest, flushed),
        }
    }

    /// Plans for the slice of the runs that has most above the last level for what is in it.
    fn slice(&self) -> Option<Plan> {
        let mut older: Vec<&[&TableMeta]> = Vec::new();
        let mut seeds: Vec<(usize, &TableMeta)> = Vec::new();
        let mut runs: Vec<(usize, &[&TableMeta])> = self.runs().collect();
        runs.reverse();
        for (index, tables) in runs {
            let is_lowest = |table: &&&TableMeta| {
                older.iter().all(|older| overlapping(older, &table.first, &table.last).is_empty())
            };
            seeds.extend(tables.iter().filter(is_lowest).map(|table| (index, *table)));
            older.push(tables);
        }
        let step = seeds.len().div_ceil(SLICES_MAX).max(1);
        let slices = seeds.into_iter().step_by(step).map(|(index, seed)| {
            Slice::descent(self.levels, index, &[seed]).with_riders(self.levels)
        });
        let bytes_max = self.options.table_bytes.saturating_mul(SLICE_TABLES_MAX);
        // The one that gains most of those that are small enough, or else the smallest.
        let rank = |slice: &Slice<'_>| {
            let lower_bytes = bytes_of(&slice.lower).max(1);
            let gain = self.weight(&slice.upper).saturating_mul(1000) / lower_bytes;
            let excess = slice.bytes().saturating_sub(bytes_max);
            (std::cmp::Reverse(excess), gain)
        };
        let best = slices.map(|slice| (rank(&slice), slice)).max_by(|a, b| a.0.cmp(&b.0));
        best.map(|(_, slice)| self.plan_last(slice))
    }

    /// Plans for a table that is mostly tombstones, and so keeps space from being given back.
    fn tombstones(&self) -> Option<Plan> {
        let is_heavy = |table: &&&TableMeta| {
            (table.tombstone_count + table.row_tombstone_count) * 2 > table.cell_count
        };
        let mut heavy = self.runs().filter_map(|(index, tables)| {
            tables.iter().find(is_heavy).map(|table| (index, *table))
        });
        let (index, table) = heavy.next()?;
        let slice = Slice::descent(self.levels, index, &[table]).with_riders(self.levels);
        Some(self.plan_last(slice))
    }

    fn plan_run(&self, target: usize, upper: &[&TableMeta]) -> Plan {
        let lower = extent(upper).map(|(first, last)| overlapping(self.level(target), first, last));
        let lower = numbers(lower.unwrap_or_default());
        Plan { target, upper: numbers(upper), lower, is_move: false }
    }

    fn plan_last(&self, slice: Slice<'m>) -> Plan {
        let Slice { upper, mut lower } = slice;
        let has_tombstones =
            upper.iter().any(|table| table.tombstone_count + table.row_tombstone_count > 0);
        let is_small = |table: &TableMeta| table.bytes < self.options.table_bytes / 4;
        let is_move = lower.is_empty()
            && !has_tombstones
            && are_apart(&upper)
            && !upper.iter().any(|table| is_small(table));
        if !is_move {
            take_small_neighbours(self.level(LAST_LEVEL), &upper, &mut lower, is_small);
        }
        Plan { target: LAST_LEVEL, upper: numbers(&upper), lower: numbers(&lower), is_move }
    }
}

fn numbers(tables: &[&TableMeta]) -> Vec<u64> {
    tables.iter().map(|table| table.number).collect()
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Plans for a table of the last level that is written for the tombstones that may go from it,
/// none of those in `spared`; `None` if there is none, or tombstones go by themselves.
pub(super) fn purge(
    levels: &[Vec<&TableMeta>],
    floors: &PurgeFloors,
    spared: &BTreeSet<u64>,
) -> Option<Plan> {
    if floors.is_everything() {
        return None;
    }
    let may_shrink = |table: &&&TableMeta| {
        is_worth_a_purge(table)
            && !spared.contains(&table.number)
            && floors.allow_all(&table.first, &table.last, table.version_max)
    };
    let table = levels.get(LAST_LEVEL)?.iter().find(may_shrink)?;
    let (target, upper, lower) = (LAST_LEVEL, Vec::new(), vec![table.number]);
    Some(Plan { target, upper, lower, is_move: false })
}

/// Tells whether a quarter of a table's entries or more are tombstones.
pub(super) fn is_worth_a_purge(table: &TableMeta) -> bool {
    (table.tombstone_count + table.row_tombstone_count).saturating_mul(4) >= table.cell_count
}

/// Tells whether no two tables overlap.
fn are_apart(tables: &[&TableMeta]) -> bool {
    let mut sorted = tables.to_vec();
    sorted.sort_by(|a, b| a.first.cmp(&b.first));
    sorted.windows(2).all(|pair| match pair {
        [a, b] => a.last < b.first,
        _ => true,
    })
}

/// Adds the tables right before and right after the input to what goes in, if they are small.
fn take_small_neighbours<'m>(
    below: &[&'m TableMeta],
    upper: &[&TableMeta],
    lower: &mut Vec<&'m TableMeta>,
    is_small: impl Fn(&TableMeta) -> bool,
) {
    let first = upper.iter().chain(lower.iter()).map(|table| &table.first).min();
    let last = upper.iter().chain(lower.iter()).map(|table| &table.last).max();
    let (Some(first), Some(last)) = (first.cloned(), last.cloned()) else { return };
    let before = below.iter().rev().find(|table| table.last < first);
    let after = below.iter().find(|table| table.first > last);
    if let Some(before) = before.filter(|table| is_small(table)) {
        lower.insert(0, before);
    }
    if let Some(after) = after.filter(|table| is_small(table)) {
        lower.push(after);
    }
}
