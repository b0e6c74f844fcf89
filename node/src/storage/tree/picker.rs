//! Chooses what to compact: a plain function of the tables.
//!
//! Every level has a *score*, 1000 where it is as full as it may be, and the fullest is compacted
//! into the next level in use. Level 0 is full with [`TreeOptions::level0_tables`] tables, and
//! already when what it may make superfluous below is three tenths of it, or with the levels in
//! between 45 hundredths of the last one, so that a store takes at most half as much more space
//! than its cells. A tombstone counts there as much as a cell that
//! it may hide; a table of any level that is mostly tombstones goes down at once.
//!
//! From level 0 all tables are taken, since they overlap; from another level the one table that
//! has least below it, for what is below is written again. Tables of the target level are taken
//! where the *rows* of the input reach, so that a row's tombstone meets the row's cells; and small
//! neighbours are taken along, so that no level falls to pieces. A table with nothing below it is
//! not written again, but only named in its new level.
//!
//! Where tombstones are kept until a [floor](PurgeFloors) lets them go, they come to rest in the
//! last level, and a table of it that holds many is merged with itself once they may go.

use std::collections::BTreeSet;

use super::version::{rows_end, rows_start};
use super::{LEVEL_COUNT, TreeOptions};
use crate::storage::PurgeFloors;
use crate::storage::table::TableMeta;

/// Score at which a level is full.
const FULL: u64 = 1000;

/// What level 0 may hold, in thousandths of what is below it, before its bytes demand compaction.
const LEVEL0_SHARE: u64 = 300;

/// What all levels above the last may hold, in thousandths of the last, before level 0 is
/// compacted earlier than its count demands: all of that may be superfluous.
const ABOVE_LAST_SHARE: u64 = 450;

/// What level 0 may always hold, in thousandths of the last level.
const LEVEL0_SHARE_MIN: u64 = 100;

/// How many cells a row tombstone is taken to hide. How many it does, only the compaction finds
/// out; too few leave a deleted row's space in use for longer, too many make for more writing.
const CELLS_PER_ROW: u64 = 32;

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
    let scored = (0..LEVEL_COUNT - 1).map(|level| (score(levels, level, options), level));
    // Among equal scores the highest level: it is the one that is read most.
    let fullest =
        scored.filter(|(score, _)| *score >= FULL).max_by_key(|(s, l)| (*s, LEVEL_COUNT - l));
    match fullest {
        Some((_, 0)) => Some(plan_level0(levels, options)),
        Some((_, level)) => least_below(levels, level, options),
        None => tombstones(levels, options),
    }
}

fn bytes_of(tables: &[&TableMeta]) -> u64 {
    tables.iter().map(|table| table.bytes).sum()
}

fn level<'l, 'm>(levels: &'l [Vec<&'m TableMeta>], index: usize) -> &'l [&'m TableMeta] {
    levels.get(index).map_or(&[], Vec::as_slice)
}

fn score(levels: &[Vec<&TableMeta>], index: usize, options: &TreeOptions) -> u64 {
    let tables = level(levels, index);
    if tables.is_empty() {
        return 0;
    }
    if index == 0 {
        return level0_score(levels, options);
    }
    let wanted = wanted_bytes(levels, index, options);
    bytes_of(tables).saturating_mul(FULL).checked_div(wanted).unwrap_or(u64::MAX)
}

fn level0_score(levels: &[Vec<&TableMeta>], options: &TreeOptions) -> u64 {
    let tables = level(levels, 0);
    let count = u64::try_from(tables.len()).unwrap_or(u64::MAX);
    let count_max = u64::try_from(options.level0_tables.max(1)).unwrap_or(u64::MAX);
    let by_count = count.saturating_mul(FULL) / count_max;
    let below = levels.get(1..).unwrap_or_default();
    let below_bytes: u64 = below.iter().map(|tables| bytes_of(tables)).sum();
    let below_cells: u64 = below.iter().flatten().map(|table| table.cell_count).sum();
    if below_cells == 0 {
        return if count >= 2 { by_count.max(FULL) } else { by_count };
    }
    let hidden = |table: &&TableMeta| {
        table.tombstone_count + table.row_tombstone_count.saturating_mul(CELLS_PER_ROW)
    };
    let tombstones: u64 = tables.iter().map(hidden).sum();
    let hidden_bytes = tombstones.saturating_mul(below_bytes / below_cells);
    let weight = bytes_of(tables).saturating_add(hidden_bytes);
    let allowed = level0_bytes_allowed(below_bytes, bytes_of(level(levels, LEVEL_COUNT - 1)));
    by_count.max(weight.saturating_mul(FULL) / allowed)
}

/// Returns what level 0 may hold, of what is below it, and what of that is in the last level.
fn level0_bytes_allowed(below_bytes: u64, last_bytes: u64) -> u64 {
    let share = |bytes: u64, share: u64| bytes.saturating_mul(share) / 1000;
    let between_bytes = below_bytes.saturating_sub(last_bytes);
    let rest = share(last_bytes, ABOVE_LAST_SHARE).saturating_sub(between_bytes);
    let allowed = rest.max(share(last_bytes, LEVEL0_SHARE_MIN));
    allowed.min(share(below_bytes, LEVEL0_SHARE)).max(1)
}

/// Returns how much a level below level 0 should hold; 0 if it is not in use.
fn wanted_bytes(levels: &[Vec<&TableMeta>], index: usize, options: &TreeOptions) -> u64 {
    let mut wanted = bytes_of(level(levels, LEVEL_COUNT - 1));
    for below in (index + 1..LEVEL_COUNT).rev() {
        if wanted <= options.base_bytes {
            return 0;
        }
        wanted /= options.fanout.max(2);
        assert!(below > index, "level {below} is not below {index}");
    }
    wanted.max(1)
}

/// Returns the first level that level 0 may be merged into: nothing older lies above it.
fn first_level(levels: &[Vec<&TableMeta>], options: &TreeOptions) -> usize {
    let is_in_use = |index: &usize| {
        !level(levels, *index).is_empty() || wanted_bytes(levels, *index, options) > 0
    };
    (1..LEVEL_COUNT - 1).find(is_in_use).unwrap_or(LEVEL_COUNT - 1)
}

fn plan_level0(levels: &[Vec<&TableMeta>], options: &TreeOptions) -> Plan {
    plan(levels, level(levels, 0), first_level(levels, options), options)
}

/// Plans for the table of a level that overlaps least, for its size, with the next level in use.
fn least_below(levels: &[Vec<&TableMeta>], index: usize, options: &TreeOptions) -> Option<Plan> {
    let cost = |table: &&TableMeta| {
        let below = bytes_of(&reached(level(levels, index + 1), &[*table]));
        below.saturating_mul(1000) / table.bytes.max(1)
    };
    let table = level(levels, index).iter().copied().min_by_key(cost)?;
    Some(plan(levels, &[table], index + 1, options))
}

/// Plans for a table that is mostly tombstones, and so keeps space from being given back.
fn tombstones(levels: &[Vec<&TableMeta>], options: &TreeOptions) -> Option<Plan> {
    for index in 1..LEVEL_COUNT - 1 {
        let is_heavy = |table: &&&TableMeta| {
            (table.tombstone_count + table.row_tombstone_count) * 2 > table.cell_count
        };
        if let Some(table) = level(levels, index).iter().find(is_heavy) {
            return Some(plan(levels, &[*table], index + 1, options));
        }
    }
    None
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
    let table = level(levels, LEVEL_COUNT - 1).iter().find(may_shrink)?;
    let (target, upper, lower) = (LEVEL_COUNT - 1, Vec::new(), vec![table.number]);
    Some(Plan { target, upper, lower, is_move: false })
}

/// Tells whether a quarter of a table's entries or more are tombstones.
pub(super) fn is_worth_a_purge(table: &TableMeta) -> bool {
    (table.tombstone_count + table.row_tombstone_count).saturating_mul(4) >= table.cell_count
}

/// Returns the tables of a sorted level that share a row's places with any in the range of input.
fn reached<'m>(tables: &[&'m TableMeta], input: &[&TableMeta]) -> Vec<&'m TableMeta> {
    let start = input.iter().map(|table| rows_start(table)).min().unwrap_or_default();
    let end = input.iter().map(|table| rows_end(table)).max().unwrap_or_default();
    let from = tables.partition_point(|table| *table.last < *start);
    let ahead = tables.iter().skip(from).take_while(|table| table.first < end);
    ahead.copied().collect()
}

fn plan(
    levels: &[Vec<&TableMeta>],
    upper: &[&TableMeta],
    target: usize,
    options: &TreeOptions,
) -> Plan {
    let below = level(levels, target);
    let mut lower = reached(below, upper);
    let tombstone_count: u64 =
        upper.iter().map(|table| table.tombstone_count + table.row_tombstone_count).sum();
    let is_small = |table: &TableMeta| table.bytes < options.table_bytes / 4;
    let is_move = lower.is_empty()
        && (target < LEVEL_COUNT - 1 || tombstone_count == 0)
        && are_apart(upper)
        && !upper.iter().any(|table| is_small(table));
    if !is_move {
        take_small_neighbours(below, upper, &mut lower, is_small);
    }
    let numbers = |tables: &[&TableMeta]| tables.iter().map(|table| table.number).collect();
    Plan { target, upper: numbers(upper), lower: numbers(&lower), is_move }
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

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: TreeOptions = TreeOptions {
        memtable_bytes: 100,
        frozen_max: 2,
        table_bytes: 100,
        level0_tables: 4,
        level0_tables_max: 12,
        base_bytes: 1000,
        fanout: 10,
        step_bytes: 100,
        cache_bytes: 0,
        table: crate::storage::table::TableOptions {
            block_bytes: 100,
            bloom_bits_per_cell: 10,
            compression: crate::storage::table::Compression::None,
        },
    };

    /// A table of 100 bytes and ten cells in rows of single letters.
    fn table(number: u64, first: u8, last: u8) -> TableMeta {
        TableMeta {
            number,
            bytes: 100,
            cell_count: 10,
            tombstone_count: 0,
            row_tombstone_count: 0,
            first: vec![first, 0, 0],
            last: vec![last, 0, 0],
            version_min: 1,
            version_max: 9,
        }
    }

    /// Picks with these tables in levels 0, 5 and 6.
    fn picked(
        flushed: &[TableMeta],
        middle: &[TableMeta],
        last: &[TableMeta],
    ) -> Option<(usize, Vec<u64>, Vec<u64>, bool)> {
        let mut levels: Vec<Vec<&TableMeta>> = vec![Vec::new(); LEVEL_COUNT];
        for (level, tables) in [(0, flushed), (5, middle), (6, last)] {
            levels[level] = tables.iter().collect();
        }
        let plan = pick(&levels, &OPTIONS)?;
        Some((plan.target, plan.upper, plan.lower, plan.is_move))
    }

    fn run_of(count: u8) -> Vec<TableMeta> {
        (0..count).map(|n| table(100 + u64::from(n), b'a' + 2 * n, b'b' + 2 * n)).collect()
    }

    #[test]
    fn small_part_of_the_store_may_wait_in_level_0() {
        assert_eq!(picked(&[table(1, b'a', b'z')], &[], &run_of(4)), None);
        assert_eq!(picked(&[], &[], &run_of(4)), None);
    }

    #[test]
    fn level_0_may_hold_less_the_more_is_in_between() {
        let allowed = [1000, 1200, 1400, 2000].map(|below| level0_bytes_allowed(below, 1000));
        assert_eq!(allowed, [300, 250, 100, 100]);
    }

    #[test]
    fn level_0_goes_down_whole_when_it_is_a_large_part() {
        let flushed = [table(2, b'c', b'd'), table(1, b'c', b'e')];
        let expected = (6, vec![2, 1], vec![101, 102], false);
        assert_eq!(picked(&flushed, &[], &run_of(5)), Some(expected));
    }

    #[test]
    fn level_0_goes_to_the_level_above_a_large_one() {
        let flushed = [4, 3, 2, 1].map(|number| table(number, b'a', b'b'));
        let expected = (5, vec![4, 3, 2, 1], vec![], false);
        assert_eq!(picked(&flushed, &[], &run_of(11)), Some(expected));
    }

    #[test]
    fn full_level_gives_the_table_that_has_least_below() {
        let middle = [table(1, b'a', b'g'), table(2, b'h', b'i'), table(3, b'k', b'p')];
        let expected = (6, vec![2], vec![103, 104], false);
        assert_eq!(picked(&[], &middle, &run_of(11)), Some(expected));
    }

    #[test]
    fn table_with_nothing_below_moves_unless_it_is_a_tombstone() {
        let mut above = [table(1, b'y', b'z')];
        let below = run_of(3);
        assert_eq!(picked(&[], &above, &below), Some((6, vec![1], vec![], true)));
        above[0].tombstone_count = 1;
        assert_eq!(picked(&[], &above, &below), Some((6, vec![1], vec![], false)));
    }

    #[test]
    fn small_neighbours_are_taken_along() {
        let flushed = [table(2, b'e', b'f'), table(1, b'e', b'f')];
        let mut below = run_of(5);
        below[1].bytes = 20;
        below[3].bytes = 20;
        let expected = (6, vec![2, 1], vec![101, 102, 103], false);
        assert_eq!(picked(&flushed, &[], &below), Some(expected));
    }

    #[test]
    fn few_row_tombstones_weigh_as_many_cells() {
        let mut flushed = [table(1, b'a', b'z')];
        flushed[0].row_tombstone_count = 2;
        assert!(picked(&flushed, &[], &run_of(9)).is_some_and(|(target, ..)| target == 6));
    }

    #[test]
    fn table_of_tombstones_goes_down_at_once() {
        let mut middle = [table(1, b'a', b'b')];
        middle[0].tombstone_count = 9;
        let expected = (6, vec![1], vec![100], false);
        assert_eq!(picked(&[], &middle, &run_of(11)), Some(expected));
    }

    #[test]
    fn table_of_the_last_level_is_purged_once_its_floors_are_above_it() {
        let mut last = run_of(2);
        last[1].tombstone_count = 3;
        let mut levels: Vec<Vec<&TableMeta>> = vec![Vec::new(); LEVEL_COUNT];
        levels[LEVEL_COUNT - 1] = last.iter().collect();
        let mut floors = PurgeFloors::none();
        let (none, number) = (BTreeSet::new(), last[1].number);
        let purged = |floors: &PurgeFloors, spared: &BTreeSet<u64>| {
            purge(&levels, floors, spared).map(|plan| (plan.target, plan.upper, plan.lower))
        };
        for prefix in [[b'a', 0], [b'c', 0], [b'd', 0]] {
            floors.raise(prefix, 8);
        }
        assert_eq!(purged(&floors, &none), None);
        for prefix in [[b'c', 0], [b'd', 0]] {
            floors.raise(prefix, 9);
        }
        assert_eq!(purged(&floors, &none), Some((6, vec![], vec![number])));
        assert_eq!(purged(&floors, &BTreeSet::from([number])), None);
        assert_eq!(purged(&PurgeFloors::default(), &none), None);
    }

    #[test]
    fn rows_that_go_on_in_the_next_table_are_taken_whole() {
        let flushed = [table(2, b'c', b'c'), table(1, b'c', b'c')];
        let mut below = run_of(3);
        below[0].last = vec![b'c', 0, 0, 5];
        below[1].first = vec![b'c', 0, 0, 7];
        let expected = (6, vec![2, 1], vec![100, 101], false);
        assert_eq!(picked(&flushed, &[], &below), Some(expected));
    }
}
