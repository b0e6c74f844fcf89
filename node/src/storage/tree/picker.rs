//! Chooses what to compact: a plain function of the tables, and of what they make superfluous.
//!
//! Every level below level 0 that is in use holds one *run*, a sorted sequence of tables; what is
//! in a run is newer than what is in a lower one. Every run more is one more for each read to ask,
//! and may hold what makes entries below superfluous; every merge writes all of its input again.
//! So runs are left alone as long as there are few, and little is superfluous:
//!
//! 1. *Level 0* is merged into a new run above the others when it has
//!    [`TreeOptions::level0_tables`]. While the store is no larger than
//!    [`TreeOptions::base_bytes`], it has one run: level 0 is merged into it already when it is
//!    three tenths of it. It goes into the first run, too, if it reaches little of that, or if no
//!    level is left and writes would soon be held back.
//! 2. *More than [`TreeOptions::runs_max`] runs*, or no level for another one: of all stretches of
//!    neighbours the one is merged that costs fewest bytes, divided by the square of how many runs
//!    there are less. Runs of one size are merged together, and a large one not for the sake of a
//!    small one. (By the count itself middling runs are merged over and over: on paper, a store
//!    that grows from 50 to 500 times what level 0 holds is written again 22 times, and 7 by the
//!    square.)
//! 3. *Much is [superfluous]*, 38 hundredths of what is not: runs are merged into the last one,
//!    from that one on which gives most for the bytes that it costs. A row's tombstone counts for
//!    about what it deletes, however long the row is.
//! 4. A table that is mostly tombstones goes down at once, unless much is below it.
//!
//! A merge of runs takes [`TreeOptions::level0_tables`] tables or so at a time, the first of the
//! upper run and whatever they reach below, so that no merge keeps level 0 waiting for long or
//! needs much space meanwhile. All decisions are made anew after each. Tables are taken where the
//! *rows* of the input reach, so that a row's tombstone meets the row's cells; and small neighbours
//! are taken along, so that no level falls to pieces. A table with nothing below it is not written
//! again, but only named in its new level; unless it comes from level 0 and is to be packed.
//!
//! For the first table to reach no more than that, each table that a compaction writes ends where
//! it would reach another table of a run of which it reaches half of that. It then has a
//! sixty-fourth of [`TreeOptions::table_bytes`] at least: above a run that is 256 times as long,
//! tables reach more. Those are cut once more when their turn has come, and so are tables that were
//! flushed and moved down, or written before there was as much below them. So what one merge takes
//! does not grow with the store. But
//!
//! - it takes a few times as much if it goes through several runs of about the same length: what it
//!   reaches in one reaches somewhat farther in the next.
//! - Rows are taken whole. One of 10 GB is merged at once, with all its cells.
//! - Level 0 goes as a whole into a store of up to [`TreeOptions::base_bytes`], or twice as much
//!   for space. When writes would soon be held back and no level is left, it goes into the first
//!   run, with what it reaches there; if writes come faster than merges for long, that run grows.
//!
//! Where tombstones are kept until a [floor](PurgeFloors) lets them go, they come to rest in the
//! last level, and a table of it that holds many is merged with itself once they may go.
//!
//! [superfluous]: super::superfluous

use std::collections::BTreeSet;

use super::superfluous::Superfluous;
use super::version::{rows_end, rows_start};
use super::{LEVEL_COUNT, TreeOptions};
use crate::storage::PurgeFloors;
use crate::storage::table::{Compression, TableMeta};

/// The level in which all comes to rest.
const LAST: usize = LEVEL_COUNT - 1;

/// What level 0 may hold, in thousandths of the only run.
const LEVEL0_SHARE: u64 = 300;

/// What may be superfluous, in thousandths of what is not. With what indexes and filters take, and
/// blocks that are not full, a store then has half as much more on disk than it has cells.
const SUPERFLUOUS_SHARE: u64 = 380;

/// What level 0 may reach of the first run, in thousandths of itself, to go into it.
const REACHED_SHARE: u64 = 250;

/// A compaction to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The level that gets the result.
    pub(super) target: usize,
    /// Numbers of the tables of upper levels that go in; none if tables of the target are written
    /// anew by themselves.
    pub(super) upper: Vec<u64>,
    /// Numbers of the tables of the target level that go in.
    pub(super) lower: Vec<u64>,
    /// Whether the upper tables may change their level as they are.
    pub(super) is_move: bool,
}

/// Returns the most urgent compaction; `None` if all is well.
pub(super) fn pick(
    levels: &[Vec<&TableMeta>],
    superfluous: &Superfluous,
    options: &TreeOptions,
) -> Option<Plan> {
    let store = Store { levels, superfluous, options };
    store
        .sinking_run()
        .or_else(|| store.level0_plan().filter(|_| store.has_room() || store.is_crowded()))
        .or_else(|| store.merge_of_runs())
        .or_else(|| store.level0_plan())
        .or_else(|| store.merge_for_space())
        .or_else(|| store.tombstones())
}

/// What a choice is made from.
#[derive(Clone, Copy)]
struct Store<'a, 'm> {
    levels: &'a [Vec<&'m TableMeta>],
    superfluous: &'a Superfluous,
    options: &'a TreeOptions,
}

impl<'m> Store<'_, 'm> {
    fn level(&self, index: usize) -> &[&'m TableMeta] {
        level(self.levels, index)
    }

    /// Returns what is in a level and all below it.
    fn bytes_from(&self, index: usize) -> u64 {
        (index..LEVEL_COUNT).map(|index| bytes_of(self.level(index))).sum()
    }

    /// Returns what a level and all below it make superfluous.
    fn superfluous_from(&self, index: usize) -> u64 {
        let tables = (index..LEVEL_COUNT).flat_map(|index| self.level(index));
        tables.map(|table| self.superfluous.of(table)).sum()
    }

    /// Returns the highest level that holds a run; the last level if none does.
    fn first_run(&self) -> usize {
        (1..LAST).find(|index| !self.level(*index).is_empty()).unwrap_or(LAST)
    }

    /// Tells whether there is a level for another run.
    fn has_room(&self) -> bool {
        self.level(1).is_empty()
    }

    /// Tells whether level 0 is half way from where it is due to where writes are held back.
    fn is_crowded(&self) -> bool {
        let TreeOptions { level0_tables, level0_tables_max, .. } = *self.options;
        self.level(0).len() >= level0_tables.midpoint(level0_tables_max)
    }

    /// Plans for a run with an empty level below it to go there, so that new ones have room above.
    /// The last level takes no tombstones without need.
    fn sinking_run(&self) -> Option<Plan> {
        let may_sink = |index: &usize| {
            let tables = self.level(*index);
            let is_clean = tombstone_count(tables) == 0;
            let below = index + 1;
            !tables.is_empty() && self.level(below).is_empty() && (below < LAST || is_clean)
        };
        let index = (1..LAST).rev().find(may_sink)?;
        let upper = self.level(index).iter().map(|table| table.number).collect();
        Some(Plan { target: index + 1, upper, lower: Vec::new(), is_move: true })
    }

    /// Plans for level 0, if it is due.
    fn level0_plan(&self) -> Option<Plan> {
        let tables = self.level(0);
        let below_bytes = self.bytes_from(1);
        let is_small = below_bytes <= self.options.base_bytes;
        let is_due = if tables.len() >= self.options.level0_tables.max(1) {
            !tables.is_empty()
        } else if below_bytes == 0 {
            tables.len() >= 2
        } else {
            let weight = bytes_of(tables).max(self.superfluous_from(0) - self.superfluous_from(1));
            is_small && weight.saturating_mul(1000) > below_bytes.saturating_mul(LEVEL0_SHARE)
        };
        is_due.then(|| if is_small { self.level0_and_all() } else { self.level0_as_run() })
    }

    /// Plans for level 0 to go into the last level, with all that it reaches on the way.
    fn level0_and_all(&self) -> Plan {
        let upper = self.with_reached(self.level(0).to_vec(), 1..LAST);
        plan(self.levels, &upper, LAST, self.options)
    }

    /// Plans for level 0 to become a run above the others; or a part of the first one, if it
    /// reaches little of it, or there is no level left.
    fn level0_as_run(&self) -> Plan {
        let (tables, first) = (self.level(0), self.first_run());
        let reached = bytes_of(&reached(self.level(first), tables));
        let is_part =
            reached.saturating_mul(1000) <= bytes_of(tables).saturating_mul(REACHED_SHARE);
        let target = if is_part || !self.has_room() { first } else { first - 1 };
        plan(self.levels, tables, target, self.options)
    }

    /// Plans for the cheapest stretch of runs to become one, if there are too many, or no level is
    /// left for another one: the last level is empty as long as the run above it has tombstones.
    fn merge_of_runs(&self) -> Option<Plan> {
        let runs = (1..LEVEL_COUNT).filter(|index| !self.level(*index).is_empty());
        let runs: Vec<usize> = runs.collect();
        let are_few = runs.len() <= self.options.runs_max.max(1);
        if are_few && (self.has_room() || runs.len() < 2) {
            return None;
        }
        let stretches =
            (0..runs.len()).flat_map(|from| (from + 2..=runs.len()).map(move |to| (from, to)));
        let cost = |stretch: &&[usize]| {
            let bytes: u64 = stretch.iter().map(|index| bytes_of(self.level(*index))).sum();
            let less = to_u64(stretch.len() - 1);
            bytes.checked_div(less * less).unwrap_or(u64::MAX)
        };
        let stretches = stretches.filter_map(|(from, to)| runs.get(from..to));
        let cheapest = stretches.min_by_key(cost)?;
        Some(self.merge(*cheapest.first()?, *cheapest.last()?))
    }

    /// Plans for runs to be merged into the last one, if too much is superfluous.
    fn merge_for_space(&self) -> Option<Plan> {
        let (bytes, superfluous) = (self.bytes_from(0), self.superfluous_from(0));
        let allowed = bytes.saturating_sub(superfluous).saturating_mul(SUPERFLUOUS_SHARE);
        if superfluous.saturating_mul(1000) <= allowed {
            return None;
        }
        let gain = |index: usize| self.superfluous_from(index);
        // Bytes written for each that is given back.
        let cost = |index: &usize| {
            self.bytes_from(*index)
                .saturating_mul(1000)
                .checked_div(gain(*index))
                .unwrap_or(u64::MAX)
        };
        let runs = (1..LAST).filter(|index| !self.level(*index).is_empty());
        let best = runs.min_by_key(cost);
        if self.level(0).is_empty() || gain(1).saturating_mul(2) > superfluous {
            return Some(self.merge(best?, LAST));
        }
        // Mostly by what is in level 0, all of which goes down at once: as far as that is not long.
        let is_short = bytes <= self.options.base_bytes.saturating_mul(2);
        Some(if is_short { self.level0_and_all() } else { self.level0_as_run() })
    }

    /// Plans for a part of a run to be merged into a lower one: for its first tables, with what
    /// they reach in between and there. If one of these reaches too much, it is cut before.
    fn merge(&self, from: usize, target: usize) -> Plan {
        if let Some(cut) = self.cut_of_the_first(from, target) {
            return cut;
        }
        let bytes_max = self.options.merge_bytes_max();
        let tables = self.level(from);
        let mut upper = Vec::new();
        for count in 1..=tables.len() {
            let chosen = tables.get(..count).unwrap_or_default().to_vec();
            let wider = self.with_reached(chosen, from + 1..target);
            let lower_bytes = bytes_of(&reached(self.level(target), &wider));
            if !upper.is_empty() && bytes_of(&wider) + lower_bytes > bytes_max {
                break;
            }
            upper = wider;
        }
        plan(self.levels, &upper, target, self.options)
    }

    /// Plans for one table of those that go down with the first of a run to be cut, if it reaches
    /// too much by itself: one that was flushed, was written when less was below it, or could not
    /// be cut as short as that.
    fn cut_of_the_first(&self, from: usize, target: usize) -> Option<Plan> {
        let mut reaching = Vec::new();
        for index in from..target {
            let tables = self.level(index);
            let here = if index == from {
                tables.iter().take(1).copied().collect()
            } else {
                reached(tables, &reaching)
            };
            let mut wide = here.iter().filter(|table| self.is_wide(table, index + 1..target + 1));
            if let Some(table) = wide.next() {
                return Some(cut(index, table));
            }
            reaching.extend(here);
        }
        None
    }

    /// Tells whether a table reaches more of a level than is merged at a time, and would not if it
    /// were cut.
    fn is_wide(&self, table: &TableMeta, below: std::ops::Range<usize>) -> bool {
        let bytes_max = self.options.reach_bytes_max().saturating_mul(2);
        is_far(self.levels, below, (&table.first, &table.last), bytes_max)
    }

    /// Plans for a table that is mostly tombstones, and so keeps space from being given back; not
    /// if much would be written for it, as where it lies in a long row.
    fn tombstones(&self) -> Option<Plan> {
        let bytes_max = self.options.merge_bytes_max();
        for index in 1..LAST {
            let (tables, below) = (self.level(index), self.level(index + 1));
            let is_heavy = |table: &&TableMeta| tombstone_count(&[*table]) * 2 > table.cell_count;
            for table in tables.iter().copied().filter(is_heavy) {
                if self.is_wide(table, index + 1..index + 2) {
                    return Some(cut(index, table));
                }
                if bytes_of(&reached(below, &[table])) <= bytes_max {
                    return Some(plan(self.levels, &[table], index + 1, self.options));
                }
            }
        }
        None
    }

    /// Adds to tables what they reach in lower levels, and what that reaches in turn: nothing of a
    /// place may pass by what is older.
    fn with_reached(
        &self,
        mut tables: Vec<&'m TableMeta>,
        below: std::ops::Range<usize>,
    ) -> Vec<&'m TableMeta> {
        for index in below {
            tables.extend(reached(self.level(index), &tables));
        }
        tables
    }
}

fn bytes_of(tables: &[&TableMeta]) -> u64 {
    tables.iter().map(|table| table.bytes).sum()
}

fn tombstone_count(tables: &[&TableMeta]) -> u64 {
    tables.iter().map(|table| table.tombstone_count + table.row_tombstone_count).sum()
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn level<'l, 'm>(levels: &'l [Vec<&'m TableMeta>], index: usize) -> &'l [&'m TableMeta] {
    levels.get(index).map_or(&[], Vec::as_slice)
}

/// Plans for a table to be written anew in its level, cut where it reaches too much.
fn cut(index: usize, table: &TableMeta) -> Plan {
    Plan { target: index, upper: Vec::new(), lower: vec![table.number], is_move: false }
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
    let table = level(levels, LAST).iter().find(may_shrink)?;
    let (target, upper, lower) = (LAST, Vec::new(), vec![table.number]);
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

/// Tells whether the places from one to another are in more than one table of any of these levels,
/// and in more than so many bytes of them.
fn is_far(
    levels: &[Vec<&TableMeta>],
    below: std::ops::Range<usize>,
    (first, last): (&[u8], &[u8]),
    bytes_max: u64,
) -> bool {
    below.into_iter().any(|index| {
        let tables = level(levels, index);
        let from = tables.partition_point(|table| *table.last < *first);
        let to = tables.partition_point(|table| *table.first <= *last);
        let spanned = tables.get(from..to).unwrap_or_default();
        spanned.len() > 1 && bytes_of(spanned) > bytes_max
    })
}

/// Plans for tables of levels above the target, and for what they reach in it.
fn plan(
    levels: &[Vec<&TableMeta>],
    upper: &[&TableMeta],
    target: usize,
    options: &TreeOptions,
) -> Plan {
    let below = level(levels, target);
    let mut lower = reached(below, upper);
    let is_small = |table: &TableMeta| table.bytes < options.table_bytes / 4;
    let flushed = level(levels, 0);
    let is_flushed = |table: &TableMeta| flushed.iter().any(|other| other.number == table.number);
    // Level 0 is not packed.
    let is_to_be_packed = options.table.compression != Compression::None
        && upper.iter().any(|table| is_flushed(table));
    let is_move = lower.is_empty()
        && !is_to_be_packed
        && (target < LAST || tombstone_count(upper) == 0)
        && are_apart(upper)
        && !upper.iter().any(|table| is_small(table));
    if !is_move {
        // Between tables that were cut for what they reach it would be cut again.
        let is_taken = |table: &TableMeta, ends: (&[u8], &[u8])| {
            let bytes_max = options.reach_bytes_max();
            is_small(table) && !is_far(levels, target + 1..LEVEL_COUNT, ends, bytes_max)
        };
        take_small_neighbours(below, upper, &mut lower, is_taken);
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

/// Adds the tables right before and right after the input to what goes in, if they are small:
/// `is_taken` is asked with the places between which they and the input would be one table.
fn take_small_neighbours<'m>(
    below: &[&'m TableMeta],
    upper: &[&TableMeta],
    lower: &mut Vec<&'m TableMeta>,
    is_taken: impl Fn(&TableMeta, (&[u8], &[u8])) -> bool,
) {
    let first = upper.iter().chain(lower.iter()).map(|table| &table.first).min();
    let last = upper.iter().chain(lower.iter()).map(|table| &table.last).max();
    let (Some(first), Some(last)) = (first.cloned(), last.cloned()) else { return };
    let before = below.iter().rev().find(|table| table.last < first);
    let after = below.iter().find(|table| table.first > last);
    if let Some(before) = before.filter(|table| is_taken(table, (&table.first, &first))) {
        lower.insert(0, before);
    }
    if let Some(after) = after.filter(|table| is_taken(table, (&last, &table.last))) {
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
        runs_max: 3,
        step_bytes: 100,
        cache_bytes: 0,
        table: crate::storage::table::TableOptions {
            block_bytes: 100,
            bloom_bits_per_cell: 10,
            compression: Compression::None,
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

    /// Picks with these tables in these levels, of which some make so much superfluous.
    fn picked_of(tables: &[(usize, &[TableMeta])], covered: &[(u64, u64)]) -> Option<Plan> {
        let mut levels: Vec<Vec<&TableMeta>> = vec![Vec::new(); LEVEL_COUNT];
        for (level, tables) in tables {
            levels[*level] = tables.iter().collect();
        }
        let mut superfluous = Superfluous::default();
        for (number, bytes) in covered {
            superfluous.set(*number, *bytes);
        }
        pick(&levels, &superfluous, &OPTIONS)
    }

    fn plan_of(target: usize, upper: &[u64], lower: &[u64], is_move: bool) -> Plan {
        Plan { target, upper: upper.to_vec(), lower: lower.to_vec(), is_move }
    }

    /// Picks with these tables in levels 0 and 6.
    fn picked(flushed: &[TableMeta], last: &[TableMeta]) -> Option<Plan> {
        picked_of(&[(0, flushed), (6, last)], &[])
    }

    /// Tables one after the other, from number 100 on.
    fn run_of(count: u8) -> Vec<TableMeta> {
        run_from(100, count)
    }

    fn run_from(number: u64, count: u8) -> Vec<TableMeta> {
        (0..count).map(|n| table(number + u64::from(n), b'a' + 2 * n, b'b' + 2 * n)).collect()
    }

    #[test]
    fn small_part_of_the_store_may_wait_in_level_0() {
        assert_eq!(picked(&[table(1, b'a', b'z')], &run_of(4)), None);
        assert_eq!(picked(&[], &run_of(4)), None);
    }

    #[test]
    fn level_0_of_a_small_store_goes_down_whole_when_it_is_a_large_part() {
        let flushed = [table(2, b'c', b'd'), table(1, b'c', b'e')];
        assert_eq!(picked(&flushed, &run_of(5)), Some(plan_of(6, &[2, 1], &[101, 102], false)));
        let tables = [(0, &flushed[..]), (5, &run_from(200, 2)), (6, &run_of(3))];
        let expected = Some(plan_of(6, &[2, 1, 201], &[101, 102], false));
        assert_eq!(picked_of(&tables, &[]), expected, "with what lies in between");
    }

    #[test]
    fn level_0_becomes_a_run_above_a_large_one() {
        let flushed = [4, 3, 2, 1].map(|number| table(number, b'a', b'd'));
        assert_eq!(picked(&flushed[1..], &run_of(11)), None);
        assert_eq!(picked(&flushed, &run_of(11)), Some(plan_of(5, &[4, 3, 2, 1], &[], false)));
    }

    #[test]
    fn level_0_goes_into_a_large_run_that_it_hardly_reaches() {
        let flushed = [4, 3, 2, 1].map(|number| table(number, b'a', b'b'));
        assert_eq!(picked(&flushed, &run_of(11)), Some(plan_of(6, &[4, 3, 2, 1], &[100], false)));
        let ascending = [4, 3, 2, 1].map(|n| table(u64::from(n), b'w' + n, b'w' + n));
        assert_eq!(picked(&ascending, &run_of(11)), Some(plan_of(6, &[4, 3, 2, 1], &[], true)));
    }

    #[test]
    fn cheapest_stretch_of_too_many_runs_is_merged() {
        let [two, three, four] =
            [(200, 2), (300, 3), (400, 4)].map(|(n, count)| run_from(n, count));
        let large = run_of(12);
        let runs = [(4, &three[..]), (5, &four), (6, &large)];
        assert_eq!(picked_of(&runs, &[]), None, "three are not too many");
        // Two of the small ones cost 500 and 700, all three 900 / 4, and all four 2000 / 9.
        let runs = [(3, &two[..]), (4, &three), (5, &four), (6, &large)];
        let expected = Some(plan_of(5, &[200, 300], &[400], false));
        assert_eq!(picked_of(&runs, &[]), expected, "as far as 400 bytes of them");
    }

    #[test]
    fn part_of_a_run_takes_what_it_reaches_on_the_way_down() {
        let (upper, mut last) = (run_from(300, 1), run_of(11));
        for table in &mut last {
            table.bytes = 300;
        }
        let mut wide = [table(200, b'b', b'e')];
        wide[0].bytes = 800;
        let runs = [(3, &upper[..]), (4, &wide), (5, &run_from(400, 8)), (6, &last)];
        let expected = Some(plan_of(5, &[300, 200], &[400, 401, 402], false));
        assert_eq!(picked_of(&runs, &[]), expected, "not 400 alone: 200 goes down with its places");
    }

    #[test]
    fn runs_are_merged_when_the_last_level_takes_none_and_no_other_is_left() {
        let mut runs = [1, 2, 3, 4, 5].map(|n| (n, run_from(100 * to_u64(n), 11)));
        runs[4].1[3].tombstone_count = 1;
        let flushed = [4, 3, 2, 1].map(|number| table(number, b'a', b'd'));
        let mut levels: Vec<Vec<&TableMeta>> = vec![flushed.iter().collect()];
        levels.extend(runs.iter().map(|(_, run)| run.iter().collect::<Vec<_>>()));
        levels.push(Vec::new());
        let options = TreeOptions { runs_max: 5, ..OPTIONS };
        let picked = pick(&levels, &Superfluous::default(), &options);
        let is_of_runs = |plan: Plan| plan.target == 5 && plan.upper.first() == Some(&100);
        assert!(picked.is_some_and(is_of_runs));
        levels[1].clear();
        let picked = pick(&levels, &Superfluous::default(), &options);
        assert_eq!(picked, Some(plan_of(1, &[4, 3, 2, 1], &[], false)));
    }

    #[test]
    fn level_0_waits_for_runs_when_there_is_no_level_left() {
        let flushed = [4, 3, 2, 1].map(|number| table(number, b'a', b'd'));
        let runs = [1, 2, 3, 4, 5, 6].map(|n| (n, run_from(100 * to_u64(n), 11)));
        let mut tables: Vec<(usize, &[TableMeta])> = vec![(0, &flushed)];
        tables.extend(runs.iter().map(|(level, run)| (*level, &run[..])));
        let is_of_runs = |plan: Plan| plan.target == 6 && plan.upper.first() == Some(&100);
        assert!(picked_of(&tables, &[]).is_some_and(is_of_runs));
        tables.remove(1);
        assert_eq!(picked_of(&tables, &[]), Some(plan_of(1, &[4, 3, 2, 1], &[], false)));
        let crowd = [8, 7, 6, 5, 4, 3, 2, 1].map(|number| table(number, b'a', b'd'));
        tables[0].1 = &crowd;
        tables.insert(1, (1, &runs[0].1));
        let expected = Some(plan_of(1, &[8, 7, 6, 5, 4, 3, 2, 1], &[100, 101], false));
        assert_eq!(picked_of(&tables, &[]), expected, "12 hold writes back");
    }

    #[test]
    fn runs_go_down_when_much_is_superfluous() {
        let [upper, middle, last] =
            [(200, 2), (300, 4), (100, 11)].map(|(n, count)| run_from(n, count));
        let runs = [(4, &upper[..]), (5, &middle), (6, &last)];
        assert_eq!(picked_of(&runs, &[(200, 100), (301, 300)]), None, "not more than 38 in 100");
        // The middle one gives 400 for 1500, both together 500 for 1700.
        let both = picked_of(&runs, &[(200, 100), (301, 400)]);
        assert_eq!(both, Some(plan_of(6, &[200, 300], &[100], false)));
        let middle = picked_of(&runs, &[(200, 10), (301, 500)]);
        assert_eq!(middle, Some(plan_of(6, &[300, 301], &[100, 101], false)));
    }

    #[test]
    fn level_0_goes_down_when_it_makes_much_superfluous() {
        let flushed = [table(2, b'a', b'd'), table(1, b'a', b'd')];
        let covered = [(1, 200), (2, 400)];
        let long = [(0, &flushed[..]), (5, &run_from(200, 10)), (6, &run_of(11))];
        assert_eq!(picked_of(&long, &[(1, 300), (2, 400)]), Some(plan_of(4, &[2, 1], &[], false)));
        let short = [(0, &flushed[..]), (6, &run_of(11))];
        assert_eq!(picked_of(&short, &covered), Some(plan_of(6, &[2, 1], &[100, 101], false)));
    }

    #[test]
    fn run_sinks_to_the_next_one_unless_tombstones_would_come_to_rest() {
        let run = run_from(300, 2);
        let sunk = picked_of(&[(3, &run), (6, &run_of(11))], &[]);
        assert_eq!(sunk, Some(plan_of(4, &[300, 301], &[], true)));
        assert_eq!(picked_of(&[(5, &run)], &[]), Some(plan_of(6, &[300, 301], &[], true)));
        let mut deleted = run.clone();
        deleted[1].tombstone_count = 1;
        assert_eq!(picked_of(&[(4, &deleted)], &[]), Some(plan_of(5, &[300, 301], &[], true)));
        assert_eq!(picked_of(&[(5, &deleted)], &[]), None);
    }

    #[test]
    fn small_neighbours_are_taken_along() {
        let flushed = [table(2, b'e', b'f'), table(1, b'e', b'f')];
        let mut below = run_of(5);
        below[1].bytes = 20;
        below[3].bytes = 20;
        let expected = Some(plan_of(6, &[2, 1], &[101, 102, 103], false));
        assert_eq!(picked(&flushed, &below), expected);
    }

    #[test]
    fn small_neighbour_that_was_cut_for_what_it_reaches_is_left() {
        let flushed = [4, 3, 2, 1].map(|number| table(number, b'g', b'h'));
        let mut run = run_from(200, 8);
        run[2].bytes = 20;
        run[4].bytes = 20;
        let plan = |last: &[TableMeta]| picked_of(&[(0, &flushed), (5, &run), (6, last)], &[]);
        let mut last = run_of(11);
        assert_eq!(plan(&last), Some(plan_of(5, &[4, 3, 2, 1], &[202, 203, 204], false)));
        for table in &mut last {
            table.bytes = 150;
        }
        assert_eq!(plan(&last), Some(plan_of(5, &[4, 3, 2, 1], &[203], false)));
    }

    #[test]
    fn table_of_tombstones_goes_down_at_once() {
        let mut middle = [table(1, b'a', b'b')];
        middle[0].tombstone_count = 9;
        let expected = Some(plan_of(6, &[1], &[100], false));
        assert_eq!(picked_of(&[(5, &middle), (6, &run_of(11))], &[]), expected);
    }

    #[test]
    fn table_that_reaches_too_much_is_cut_before_it_is_merged() {
        let (wide, last) = ([table(200, b'a', b'w')], run_of(11));
        let cut = Some(plan_of(5, &[], &[200], false));
        assert_eq!(picked_of(&[(5, &wide), (6, &last)], &[(200, 500)]), cut);
        let narrow = [table(200, b'a', b'h'), table(201, b'i', b'w')];
        let runs = [(5, &narrow[..]), (6, &last)];
        let expected = Some(plan_of(6, &[200], &[100, 101, 102, 103], false));
        assert_eq!(picked_of(&runs, &[(200, 500)]), expected, "400 are not too much");
        // One that goes along from a level in between is cut there.
        let upper = run_from(300, 4);
        let runs = [(3, &upper[..]), (4, &upper), (5, &wide), (6, &last)];
        assert_eq!(picked_of(&runs, &[(300, 500)]), cut);
        let mut deleted = wide.clone();
        deleted[0].tombstone_count = 9;
        assert_eq!(picked_of(&[(5, &deleted), (6, &last)], &[]), cut);
        // Within one row it cannot be cut.
        let mut row = run_from(100, 11);
        for (number, table) in row.iter_mut().enumerate() {
            let number = u8::try_from(number).unwrap();
            (table.first, table.last) = (vec![b'a', 0, 0, number, 1], vec![b'a', 0, 0, number, 2]);
        }
        (deleted[0].first, deleted[0].last) = (vec![b'a', 0, 0, 3, 1], vec![b'a', 0, 0, 3, 2]);
        assert_eq!(picked_of(&[(5, &deleted), (6, &row)], &[]), None, "1100 for 100");
    }

    #[test]
    fn table_of_the_last_level_is_purged_once_its_floors_are_above_it() {
        let mut last = run_of(2);
        last[1].tombstone_count = 3;
        let mut levels: Vec<Vec<&TableMeta>> = vec![Vec::new(); LEVEL_COUNT];
        levels[LAST] = last.iter().collect();
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
        assert_eq!(picked(&flushed, &below), Some(plan_of(6, &[2, 1], &[100, 101], false)));
    }
}
