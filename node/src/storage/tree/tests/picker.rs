//! What is picked for compaction: single situations, and a long life of a store without files.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::base::Rng;
use crate::storage::PurgeFloors;
use crate::storage::table::TableMeta;
use crate::storage::tree::picker::{self, Plan, pick};
use crate::storage::tree::{LAST_LEVEL, LEVEL_COUNT};

const OPTIONS: TreeOptions = TreeOptions {
    memtable_bytes: 100,
    frozen_max: 2,
    table_bytes: 100,
    level0_tables: 4,
    level0_tables_max: 12,
    base_bytes: 400,
    step_bytes: 100,
    cache_bytes: 0,
    table: super::OPTIONS.table,
};

/// A table of 100 bytes and ten cells in rows of single letters.
fn table(number: u64, first: u8, last: u8) -> TableMeta {
    TableMeta {
        number,
        bytes: 100,
        cell_count: 10,
        first: vec![first, 0, 0],
        last: vec![last, 0, 0],
        version_min: 1,
        version_max: 9,
        ..TableMeta::of_nothing(number)
    }
}

/// Picks with these tables by level; returns target, tables from above, and those of the target.
fn picked(tables: &[(usize, &[TableMeta])]) -> Option<(usize, Vec<u64>, Vec<u64>, bool)> {
    let mut levels: Vec<Vec<&TableMeta>> = vec![Vec::new(); LEVEL_COUNT];
    for (level, tables) in tables {
        levels[*level] = tables.iter().collect();
    }
    let plan = pick(&levels, &OPTIONS)?;
    Some((plan.target, plan.upper, plan.lower, plan.is_move))
}

/// Neighbours from `a` on, of two letters each, numbered from 100.
fn last_of(count: u8) -> Vec<TableMeta> {
    (0..count).map(|n| table(100 + u64::from(n), b'a' + 2 * n, b'b' + 2 * n)).collect()
}

#[test]
fn small_part_of_the_store_may_wait() {
    assert_eq!(picked(&[(0, &[table(1, b'a', b'z')]), (6, &last_of(3))]), None);
    assert_eq!(picked(&[(6, &last_of(4))]), None);
    assert_eq!(picked(&[(0, &[table(1, b'a', b'z')])]), None);
    assert_eq!(picked(&[]), None);
}

#[test]
fn first_tables_make_the_last_level() {
    let flushed = [table(2, b'a', b'd'), table(1, b'b', b'e')];
    assert_eq!(picked(&[(0, &flushed)]), Some((6, vec![2, 1], vec![], false)));
}

#[test]
fn all_of_a_small_store_is_merged_where_it_is_reached() {
    let flushed = [table(2, b'c', b'd'), table(1, b'c', b'e')];
    let expected = (6, vec![2, 1], vec![101, 102], false);
    assert_eq!(picked(&[(0, &flushed), (6, &last_of(4))]), Some(expected));
}

#[test]
fn level_0_becomes_a_run_above_the_newest_one() {
    let flushed = [4, 3, 2, 1].map(|number| table(number, b'a', b'z'));
    let last = last_of(13);
    let expected = (5, vec![4, 3, 2, 1], vec![], false);
    assert_eq!(picked(&[(0, &flushed), (6, &last)]), Some(expected));
    let run = [table(9, b'a', b'z')];
    let expected = (4, vec![4, 3, 2, 1], vec![], false);
    assert_eq!(picked(&[(0, &flushed), (5, &run), (6, &last)]), Some(expected));
}

#[test]
fn level_0_of_a_short_stretch_goes_to_the_last_level_at_once() {
    let flushed = [4, 3, 2, 1].map(|number| table(number, b'c', b'd'));
    let run = [table(8, b'a', b'b'), table(9, b'c', b'e')];
    let expected = (6, vec![4, 3, 2, 1, 9], vec![101, 102], false);
    assert_eq!(picked(&[(0, &flushed), (5, &run), (6, &last_of(9))]), Some(expected));
}

#[test]
fn smallest_neighbours_are_merged_when_no_level_is_free() {
    let run = |number, bytes| [TableMeta { bytes, ..table(number, b'a', b'z') }];
    let runs = [run(21, 250), run(22, 30), run(23, 40), run(24, 50), run(25, 60)];
    let flushed = [4, 3, 2, 1].map(|number| TableMeta { bytes: 20, ..table(number, b'a', b'z') });
    let last: Vec<TableMeta> =
        last_of(13).into_iter().map(|table| TableMeta { bytes: 200, ..table }).collect();
    let mut store: Vec<(usize, &[TableMeta])> = vec![(0, &flushed), (6, &last)];
    store.extend((1..).zip(&runs).map(|(level, run)| (level, run.as_slice())));
    assert_eq!(picked(&store), Some((3, vec![22], vec![23], false)));
    let newest = run(21, 60);
    store[2].1 = &newest;
    assert_eq!(picked(&store), Some((1, vec![4, 3, 2, 1], vec![21], false)));
}

#[test]
fn slice_with_most_above_it_goes_down_and_takes_along_what_lies_within() {
    let old = [table(1, b'a', b'b'), table(2, b'c', b'd'), table(3, b'e', b'f')];
    let new = [table(4, b'a', b'd'), table(5, b'e', b'f'), table(6, b'g', b'h')];
    // Table 4 reaches out of the stretch of table 1 and of table 2, table 5 lies in that of 3.
    let expected = (6, vec![3, 5], vec![102], false);
    assert_eq!(picked(&[(4, &new), (5, &old), (6, &last_of(13))]), Some(expected));
}

#[test]
fn table_goes_down_with_everything_older_that_it_overlaps() {
    let old = [table(1, b'b', b'c')];
    let mut new = [table(4, b'a', b'b')];
    new[0].tombstone_count = 9;
    let expected = (6, vec![4, 1], vec![100, 101], false);
    assert_eq!(picked(&[(4, &new), (5, &old), (6, &last_of(13))]), Some(expected));
}

#[test]
fn table_with_nothing_below_moves_unless_it_has_a_tombstone() {
    let mut above = [table(1, b'y', b'z'), table(2, b'w', b'x')];
    above.reverse();
    let below = last_of(5);
    assert_eq!(picked(&[(5, &above), (6, &below)]), Some((6, vec![1], vec![], true)));
    above[1].tombstone_count = 1;
    assert_eq!(picked(&[(5, &above), (6, &below)]), Some((6, vec![2], vec![], true)));
    above[0].tombstone_count = 1;
    assert_eq!(picked(&[(5, &above), (6, &below)]), Some((6, vec![1], vec![], false)));
}

#[test]
fn small_neighbours_are_taken_along() {
    let flushed = [table(2, b'e', b'f'), table(1, b'e', b'f')];
    let mut below = last_of(5);
    below[1].bytes = 20;
    below[3].bytes = 20;
    let expected = (6, vec![2, 1], vec![101, 102, 103], false);
    assert_eq!(picked(&[(0, &flushed), (6, &below)]), Some(expected));
}

#[test]
fn few_row_tombstones_weigh_as_many_cells() {
    let mut flushed = [table(1, b'a', b'z')];
    flushed[0].row_tombstone_count = 2;
    let expected = (5, vec![1], vec![], false);
    assert_eq!(picked(&[(0, &flushed), (6, &last_of(9))]), Some(expected));
}

#[test]
fn table_of_tombstones_goes_down_at_once() {
    let mut run = [table(1, b'a', b'b')];
    run[0].tombstone_count = 6;
    let expected = (6, vec![1], vec![100], false);
    assert_eq!(picked(&[(5, &run), (6, &last_of(13))]), Some(expected));
}

#[test]
fn table_of_the_last_level_is_purged_once_its_floors_are_above_it() {
    let mut last = last_of(2);
    last[1].tombstone_count = 3;
    let mut levels: Vec<Vec<&TableMeta>> = vec![Vec::new(); LEVEL_COUNT];
    levels[LAST_LEVEL] = last.iter().collect();
    let mut floors = PurgeFloors::none();
    let (none, number) = (BTreeSet::new(), last[1].number);
    let purged = |floors: &PurgeFloors, spared: &BTreeSet<u64>| {
        picker::purge(&levels, floors, spared).map(|plan| (plan.target, plan.upper, plan.lower))
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
    let mut below = last_of(3);
    below[0].last = vec![b'c', 0, 0, 5];
    below[1].first = vec![b'c', 0, 0, 7];
    let expected = (6, vec![2, 1], vec![100, 101], false);
    assert_eq!(picked(&[(0, &flushed), (6, &below)]), Some(expected));
}

/// Bytes of an entry in a [`Life`].
const ENTRY_BYTES: u64 = 10;

/// Places, versions, and whether they are tombstones.
type Entries = BTreeMap<u16, (u64, bool)>;

/// A store that has no files: tables of places and versions, to which plans are done.
struct Life {
    levels: Vec<Vec<(TableMeta, Entries)>>,
    /// What each place ought to have.
    newest: Entries,
    next_number: u64,
    version: u64,
}

impl Life {
    fn new() -> Self {
        let levels = vec![Vec::new(); LEVEL_COUNT];
        Self { levels, newest: Entries::new(), next_number: 1, version: 1 }
    }

    fn table(&mut self, entries: Entries) -> (TableMeta, Entries) {
        let number = self.next_number;
        self.next_number += 1;
        let place = |entry: Option<(&u16, _)>| {
            let (place, _) = entry.expect("a table has an entry");
            crate::codec::keycode::encode_key(&place.to_be_bytes())
        };
        let versions = || entries.values().map(|(version, _)| *version);
        let cell_count = u64::try_from(entries.len()).expect("few");
        let tombstones = entries.values().filter(|(_, is_tombstone)| *is_tombstone);
        let meta = TableMeta {
            bytes: cell_count * ENTRY_BYTES,
            cell_count,
            tombstone_count: u64::try_from(tombstones.count()).expect("few"),
            first: place(entries.first_key_value()),
            last: place(entries.last_key_value()),
            version_min: versions().min().unwrap_or(0),
            version_max: versions().max().unwrap_or(0),
            ..TableMeta::of_nothing(number)
        };
        (meta, entries)
    }

    fn flush(&mut self, places: &[(u16, bool)]) {
        let mut entries = Entries::new();
        for (place, is_tombstone) in places {
            self.version += 1;
            entries.insert(*place, (self.version, *is_tombstone));
        }
        self.newest.extend(&entries);
        let table = self.table(entries);
        self.levels[0].insert(0, table);
    }

    fn pick(&self) -> Option<Plan> {
        let metas = |tables: &'_ Vec<(TableMeta, Entries)>| {
            tables.iter().map(|(meta, _)| meta.clone()).collect::<Vec<_>>()
        };
        let levels: Vec<Vec<TableMeta>> = self.levels.iter().map(metas).collect();
        let levels: Vec<Vec<&TableMeta>> =
            levels.iter().map(|tables| tables.iter().collect()).collect();
        pick(&levels, &OPTIONS)
    }

    /// Checks that nothing older than an upper table of the plan stays above the target, and that
    /// nothing of the target is forgotten.
    fn check(&self, plan: &Plan) {
        let overlap = |a: &TableMeta, b: &TableMeta| a.first <= b.last && b.first <= a.last;
        let inputs: Vec<u64> = plan.upper.iter().chain(&plan.lower).copied().collect();
        for number in &plan.lower {
            let is_there = self.levels[plan.target].iter().any(|(meta, _)| meta.number == *number);
            assert!(is_there, "table {number} is not of level {}", plan.target);
        }
        let mut seen = 0;
        let tables = (0..=plan.target).flat_map(|level| &self.levels[level]);
        let mut newer: Vec<&TableMeta> = Vec::new();
        for (meta, _) in tables {
            if inputs.contains(&meta.number) {
                seen += 1;
                newer.push(meta);
            } else {
                let above = newer.iter().find(|newer| overlap(newer, meta));
                assert!(above.is_none(), "{above:?} goes down past {meta:?}: {plan:?}");
            }
        }
        assert_eq!(seen, inputs.len(), "{plan:?} of tables that are there, from above its target");
    }

    /// Does what a plan says, as the keeper does it.
    fn carry_out(&mut self, plan: &Plan) {
        self.check(plan);
        let is_input = |meta: &TableMeta| {
            plan.upper.contains(&meta.number) || plan.lower.contains(&meta.number)
        };
        let mut merged = Entries::new();
        let mut moved = Vec::new();
        for tables in &mut self.levels {
            let (inputs, rest) = std::mem::take(tables).into_iter().partition(|t| is_input(&t.0));
            *tables = rest;
            let inputs: Vec<(TableMeta, Entries)> = inputs;
            for (place, entry) in inputs.iter().flat_map(|(_, entries)| entries) {
                merged.entry(*place).or_insert(*entry);
            }
            moved.extend(inputs);
        }
        if plan.target == LAST_LEVEL && !plan.is_move {
            merged.retain(|_, (_, is_tombstone)| !*is_tombstone);
        }
        let outputs = if plan.is_move { moved } else { self.cut(merged, plan.target) };
        self.levels[plan.target].extend(outputs);
        self.levels[plan.target].sort_by(|a, b| a.0.first.cmp(&b.0.first));
        self.levels[1..LAST_LEVEL].sort_by_key(|tables| !tables.is_empty());
    }

    fn cut(&mut self, merged: Entries, target: usize) -> Vec<(TableMeta, Entries)> {
        let last_of = |table: &(TableMeta, Entries)| *table.1.last_key_value().expect("some").0;
        let borders: Vec<u16> = match target {
            LAST_LEVEL => Vec::new(),
            _ => self.levels[LAST_LEVEL].iter().map(last_of).collect(),
        };
        let mut outputs = Vec::new();
        let mut entries = Entries::new();
        for (place, entry) in merged {
            let is_border = entries.last_key_value().is_some_and(|(last, _)| {
                borders.iter().any(|border| (*last..place).contains(border))
            });
            let bytes = u64::try_from(entries.len()).expect("few") * ENTRY_BYTES;
            if bytes >= OPTIONS.table_bytes || (is_border && bytes >= OPTIONS.table_bytes / 16) {
                outputs.push(self.table(std::mem::take(&mut entries)));
            }
            entries.insert(place, entry);
        }
        if !entries.is_empty() {
            outputs.push(self.table(entries));
        }
        outputs
    }

    /// Checks that levels are in order, and that every place has what it ought to have.
    fn check_state(&self) {
        for tables in self.levels.iter().skip(1) {
            for pair in tables.windows(2) {
                assert!(pair[0].0.last < pair[1].0.first, "{:?} and {:?}", pair[0].0, pair[1].0);
            }
        }
        let mut found = Entries::new();
        for (place, entry) in self.levels.iter().flatten().flat_map(|(_, entries)| entries) {
            found.entry(*place).or_insert(*entry);
        }
        let live = |entries: &Entries| {
            let live = entries.iter().filter(|(_, (_, is_tombstone))| !is_tombstone);
            live.map(|(place, entry)| (*place, *entry)).collect::<Vec<_>>()
        };
        assert_eq!(live(&found), live(&self.newest));
    }

    fn bytes(&self) -> u64 {
        self.levels.iter().flatten().map(|(meta, _)| meta.bytes).sum()
    }

    /// Compacts until nothing is left to do; what is superfluous must be bounded then.
    fn settle(&mut self) {
        let mut count = 0;
        while let Some(plan) = self.pick() {
            self.carry_out(&plan);
            count += 1;
            assert!(count < 1_000, "it never settles: {plan:?}");
        }
        self.check_state();
        let live = self.newest.values().filter(|(_, is_tombstone)| !is_tombstone).count();
        let live = u64::try_from(live).expect("few") * ENTRY_BYTES;
        let levels = || self.levels.iter().map(Vec::len).collect::<Vec<_>>();
        let slack = OPTIONS.table_bytes;
        let bytes = self.bytes();
        assert!(bytes <= live + live / 2 + slack, "{bytes} for {live} in {:?}", levels());
        let above = self.levels.iter().take(LAST_LEVEL).map(Vec::len);
        assert!(above.max() < Some(40) && self.levels[0].len() < OPTIONS.level0_tables);
    }
}

/// Whose places a flush has, and how many of them are deleted in a hundred.
#[derive(Debug, Clone, Copy)]
enum Flush {
    Anywhere(u8),
    /// From a place on, and with how many places in between.
    Near(u16, u8),
    Ascending,
}

#[derive(Debug, Clone, Copy)]
enum Turn {
    Flush(Flush),
    /// So many compactions, with flushes while the last of them goes on.
    Compact(usize),
    Settle,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => prop_oneof![Just(0_u8), 0_u8..100].prop_map(|d| Turn::Flush(Flush::Anywhere(d))),
        2 => (any::<u16>(), 0_u8..60).prop_map(|(at, d)| Turn::Flush(Flush::Near(at, d))),
        1 => Just(Turn::Flush(Flush::Ascending)),
        4 => (1_usize..4).prop_map(Turn::Compact),
        3 => Just(Turn::Settle),
    ]
}

fn places(flush: Flush, rng: &mut Rng, top: &mut u16) -> Vec<(u16, bool)> {
    let place_of = |rng: &mut Rng| match flush {
        Flush::Anywhere(_) => u16::try_from(rng.range(0, 2_000)).unwrap_or(0),
        Flush::Near(at, _) => at % 1_900 + u16::try_from(rng.range(0, 30)).unwrap_or(0),
        Flush::Ascending => 0,
    };
    let deleted = match flush {
        Flush::Anywhere(deleted) | Flush::Near(_, deleted) => u64::from(deleted),
        Flush::Ascending => 0,
    };
    let ascending = matches!(flush, Flush::Ascending);
    let mut places = Vec::new();
    for _ in 0..10 {
        *top = if ascending { *top + 1 } else { *top };
        let place = if ascending { *top } else { place_of(rng) };
        places.push((place, rng.range(0, 100) < deleted));
    }
    places
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_life_keeps_its_order_and_settles_within_its_space(
        turns in prop::collection::vec(turn(), 1..150),
        seed in any::<u64>(),
    ) {
        let mut life = Life::new();
        let (mut rng, mut top) = (Rng::new(seed), 2_000);
        for turn in turns {
            match turn {
                Turn::Flush(flush) => life.flush(&places(flush, &mut rng, &mut top)),
                Turn::Compact(count) => {
                    for _ in 0..count {
                        let Some(plan) = life.pick() else { break };
                        life.flush(&places(Flush::Anywhere(10), &mut rng, &mut top));
                        life.carry_out(&plan);
                    }
                    life.check_state();
                }
                Turn::Settle => life.settle(),
            }
        }
        life.settle();
    }
}

/// What a put costs must not grow with the store: it is what all of this is for.
#[test]
fn random_puts_are_written_few_times_whatever_the_size() {
    let mut life = Life::new();
    let mut rng = Rng::new(1);
    let mut written = Vec::new();
    for _ in 0..20 {
        let (mut put, mut rewritten) = (0, 0);
        for _ in 0..100 {
            let any = |rng: &mut Rng| u16::try_from(rng.range(0, 60_000)).unwrap_or(0);
            let places: Vec<(u16, bool)> = (0..10).map(|_| (any(&mut rng), false)).collect();
            life.flush(&places);
            put += 10 * ENTRY_BYTES;
            while let Some(plan) = life.pick() {
                let inputs = life.levels.iter().flatten().map(|(meta, _)| meta);
                let is_input = |meta: &&TableMeta| {
                    plan.upper.contains(&meta.number) || plan.lower.contains(&meta.number)
                };
                rewritten += inputs.filter(is_input).map(|meta| meta.bytes).sum::<u64>();
                life.carry_out(&plan);
            }
        }
        written.push((rewritten, put));
    }
    life.check_state();
    assert!(written.iter().all(|(rewritten, put)| *rewritten < 9 * *put), "{written:?}");
}
