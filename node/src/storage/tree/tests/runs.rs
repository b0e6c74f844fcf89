//! What compactions are made for: few runs, and little that is superfluous.

use proptest::prelude::*;

use super::*;
use crate::storage::table::TableMeta;
use crate::storage::test_disk::Faults;

/// Cells of these tests are all about as long, so that counts of them are counts of bytes.
const VALUE_BYTES: usize = 40;

fn set(key: u8, column: u8) -> Edit {
    Edit::Set(key, column, VALUE_BYTES)
}

fn small(number: u32) -> u8 {
    u8::try_from(number).unwrap()
}

/// Returns a tree with one run of sixteen rows with cells in twenty even columns.
fn of_320_cells(disk: &TestDisk) -> (Opened, Cells) {
    let sets: Vec<Edit> = (0..320).map(|n| set(small(n % 16), small(n / 16 * 2))).collect();
    let ((mut tree, mut keeper, recovery), model) = filled(disk, &sets, 40);
    settle(&mut tree, &mut keeper).unwrap();
    ((tree, keeper, recovery), model)
}

/// Returns how many bytes the newest table of level 0 makes superfluous, in thousandths of itself.
fn share_of_newest(keeper: &Keeper<TestDisk>) -> u64 {
    let newest = keeper.version.levels[0][0].meta();
    keeper.superfluous.of(newest) * 1000 / newest.bytes
}

#[test]
fn what_a_table_makes_superfluous_is_estimated_by_what_it_overwrites() {
    // Of 24 cells, for tables of 200 bytes a block; cells of small tables take more space each.
    for (quarters, expected) in [(0, 0..1), (2, 400..900), (4, 1000..1500)] {
        let disk = TestDisk::default();
        let ((mut tree, mut keeper, _), mut model) = of_320_cells(&disk);
        for n in 0..320_u32 {
            let is_new = n.wrapping_mul(0x9E37_79B9) >> 30 >= quarters;
            write(&mut tree, &mut model, &set(small(n % 16), small(n / 16 * 2) + u8::from(is_new)));
        }
        flush(&mut tree, &mut keeper).unwrap();
        let share = share_of_newest(&keeper);
        assert!(expected.contains(&share), "{share} for {quarters} of 4 quarters");
        // It is the same after a start, which has nothing but the tables.
        let (_, reopened, _) = open(&disk);
        assert_eq!(reopened.superfluous, keeper.superfluous);
    }
}

#[test]
fn tombstones_are_superfluous_themselves_and_a_rows_hides_all_of_its_cells() {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), mut model) = of_320_cells(&disk);
    for n in 0..10 {
        write(&mut tree, &mut model, &Edit::Delete(4, n * 2));
    }
    flush(&mut tree, &mut keeper).unwrap();
    let deletes = share_of_newest(&keeper);
    assert!(deletes > 1500, "{deletes}: each hides a longer cell, and is none");
    write(&mut tree, &mut model, &Edit::DeleteRow(5));
    flush(&mut tree, &mut keeper).unwrap();
    let newest = keeper.version.levels[0][0].meta().clone();
    let row_bytes = 20 * bytes_of_a_cell(&keeper);
    let covered = keeper.superfluous.of(&newest) - newest.bytes;
    assert!((row_bytes * 3 / 4..row_bytes * 5 / 4).contains(&covered), "{covered}, {row_bytes}");
    // It is the same after a start, which has nothing but the tables.
    let (_, reopened, _) = open(&disk);
    assert_eq!(reopened.superfluous, keeper.superfluous);
}

/// Returns how long a cell of the last level is.
fn bytes_of_a_cell(keeper: &Keeper<TestDisk>) -> u64 {
    let tables = keeper.version.levels.last().unwrap().iter().map(|table| table.meta());
    let sums = |(bytes, count), meta: &TableMeta| (bytes + meta.bytes, count + meta.cell_count);
    let (bytes, count) = tables.fold((0, 0), sums);
    bytes / count
}

#[test]
fn long_row_gives_its_space_back_when_it_is_deleted() {
    let disk = TestDisk::default();
    let mut sets: Vec<Edit> = (0..240).map(|column| set(7, column)).collect();
    sets.extend((0..60).map(|column| set(8, column)));
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &sets, 40);
    settle(&mut tree, &mut keeper).unwrap();
    write(&mut tree, &mut model, &Edit::DeleteRow(7));
    flush(&mut tree, &mut keeper).unwrap();
    settle(&mut tree, &mut keeper).unwrap();
    assert_eq!(cells(&tree, &[], None).unwrap(), model);
    let tables = keeper.version().levels.iter().flatten();
    let entries: u64 = tables.map(|table| table.meta().cell_count).sum();
    assert!(entries <= 61, "{entries} entries for 60 cells");
}

#[test]
fn tombstones_of_short_rows_make_little_superfluous() {
    let disk = TestDisk::default();
    let sets: Vec<Edit> = (0..200).map(|key| set(key, 1)).collect();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &sets, 40);
    settle(&mut tree, &mut keeper).unwrap();
    for n in 0..5 {
        write(&mut tree, &mut model, &Edit::DeleteRow(n * 31));
    }
    flush(&mut tree, &mut keeper).unwrap();
    let newest = keeper.version.levels[0][0].meta();
    let (covered, cell) = (keeper.superfluous.of(newest), bytes_of_a_cell(&keeper));
    assert!(covered < 20 * cell, "{covered} of cells of {cell}");
}

#[test]
fn estimate_reads_little_however_long_values_are() {
    let disk = TestDisk::default();
    let sets: Vec<Edit> = (0..8).map(|key| Edit::Set(key, 1, 300 << 10)).collect();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &sets, 8);
    settle(&mut tree, &mut keeper).unwrap();
    for edit in &sets {
        write(&mut tree, &mut model, edit);
    }
    write(&mut tree, &mut model, &Edit::DeleteRow(9));
    let before = disk.read_bytes();
    flush(&mut tree, &mut keeper).unwrap();
    let read = disk.read_bytes() - before;
    assert!(read < 700 << 10, "{read} bytes: one block for cells, and perhaps one for rows");
    assert!(share_of_newest(&keeper) > 800, "{}", share_of_newest(&keeper));
}

#[test]
fn table_that_cannot_be_read_makes_all_superfluous_and_breaks_nothing() {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), mut model) = of_320_cells(&disk);
    for n in 0..40 {
        write(&mut tree, &mut model, &set(n % 4 * 4, 100 + n / 4));
    }
    flush(&mut tree, &mut keeper).unwrap();
    let newest = keeper.version.levels[0][0].path().to_owned();
    disk.set_faults(Faults { unreadable: Some((newest, 0)), ..Faults::default() });
    keeper.superfluous = super::super::superfluous::Superfluous::default();
    let levels = keeper.version.levels.clone();
    keeper.superfluous.update(&levels);
    assert!(share_of_newest(&keeper) > 800, "{}", share_of_newest(&keeper));
}

/// Fills a store with 2000 cells in random order, 20 for each flush; returns how often a cell was
/// written again on average, in tenths.
fn tenths_written_again(runs_max: usize) -> u64 {
    let disk = TestDisk::default();
    let options = TreeOptions { runs_max, ..OPTIONS };
    let (mut tree, mut keeper, _) = run(super::super::open(disk.clone(), DIR, options)).unwrap();
    let mut model = Cells::new();
    let (mut written, mut known) = (0, std::collections::BTreeSet::new());
    for n in 0..2_000_u32 {
        // Prime to 251, so all keys come, and one after the other they are all over the range.
        let (key, column) = (small(n * 37 % 251), small(n / 251) + 1);
        write(&mut tree, &mut model, &set(key, column));
        if n % 20 != 19 {
            continue;
        }
        flush(&mut tree, &mut keeper).unwrap();
        while keeper.needs_compaction() {
            if let Some(version) = run(keeper.compact_step()).unwrap() {
                tree.adopt(version);
                for table in keeper.version.levels.iter().skip(1).flatten() {
                    let meta = table.meta();
                    written += if known.insert(meta.number) { meta.cell_count } else { 0 };
                }
            }
        }
    }
    assert_eq!(cells(&tree, &[], None).unwrap(), model);
    let sizes = keeper.version().level_sizes();
    let runs = sizes.iter().skip(1).filter(|(bytes, _)| *bytes > 0).count();
    assert!((1..=runs_max).contains(&runs), "{sizes:?}");
    written * 10 / 2_000
}

/// Fills a store in random order; returns the most bytes of tables that one compaction merged up
/// to each of these counts of cells.
fn most_bytes_merged(counts: &[u32]) -> Vec<u64> {
    let disk = TestDisk::default();
    let options = TreeOptions { runs_max: 5, ..OPTIONS };
    let (mut tree, mut keeper, _) = run(super::super::open(disk.clone(), DIR, options)).unwrap();
    let (mut model, mut most, mut all) = (Cells::new(), 0, Vec::new());
    for n in 0..*counts.last().unwrap() {
        write(&mut tree, &mut model, &set(small(n * 37 % 251), small(n * 101 % 241) + 1));
        if n % 20 == 19 {
            flush(&mut tree, &mut keeper).unwrap();
        }
        while let Some(plan) = keeper.plan.clone() {
            let tables = keeper.version.levels.iter().flatten().map(|table| table.meta());
            let is_input = |number| plan.upper.contains(number) || plan.lower.contains(number);
            let input = tables.filter(|table| !plan.is_move && is_input(&table.number));
            most = most.max(input.map(|table| table.bytes).sum());
            let mut steps = std::iter::repeat_with(|| run(keeper.compact_step()).unwrap());
            tree.adopt(steps.find_map(|version| version).unwrap());
        }
        if counts.contains(&(n + 1)) {
            all.push(most);
        }
    }
    assert_eq!(cells(&tree, &[], None).unwrap(), model);
    all
}

#[test]
fn what_one_merge_takes_does_not_grow_with_the_store() {
    // Level 0 alone has up to 5 kB, and 2.1 kB are merged at a time.
    let most = most_bytes_merged(&[800, 1_600, 2_400]);
    assert!(most.iter().all(|bytes| *bytes < 9_000), "{most:?}");
}

#[test]
fn store_that_only_grows_is_written_again_less_often_the_more_runs_it_may_have() {
    let written = [1, 2, 5].map(tenths_written_again);
    assert!(written.is_sorted_by(|a, b| a > b), "{written:?}");
    assert!(written[2] < 70, "{written:?}, of 33 times that level 0 was full");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However cells are overwritten and deleted, little superfluous is left in the end.
    #[test]
    fn superfluous_space_is_bounded(
        keys in 20_u8..60,
        edits in proptest::collection::vec((any::<u8>(), 1_u8..20, 0_u8..10), 400..1500),
        flush_each in 15_usize..60,
    ) {
        let disk = TestDisk::default();
        let edits = edits.into_iter().map(|(key, column, kind)| match kind {
            0 => Edit::Delete(key % keys, column),
            _ => set(key % keys, column),
        });
        let edits: Vec<Edit> = edits.collect();
        let ((mut tree, mut keeper, _), model) = filled(&disk, &edits, flush_each);
        settle(&mut tree, &mut keeper).unwrap();
        prop_assert_eq!(&cells(&tree, &[], None).unwrap(), &model);
        let tables = keeper.version().levels.iter().flatten();
        let entries: u64 = tables.map(|table| table.meta().cell_count).sum();
        let live = u64::try_from(model.len()).unwrap();
        // What is estimated from a few dozen cells may be a quarter off.
        let sizes = keeper.version().level_sizes();
        prop_assert!(entries * 10 <= live * 17 + 400, "{} for {}: {:?}", entries, live, sizes);
    }
}
