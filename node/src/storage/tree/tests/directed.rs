//! Single situations, each with its outcome.

use super::*;
use crate::storage::Content;
use crate::storage::test_disk::Faults;
use crate::storage::tree::LEVEL_COUNT;

/// Returns every entry on disk, tombstones included.
fn entry_count(version: &Arc<Version<TestDisk>>) -> u64 {
    version.levels.iter().flatten().map(|table| table.meta().cell_count).sum()
}

#[test]
fn deleted_row_gives_its_space_back() {
    let disk = TestDisk::default();
    let sets: Vec<Edit> = (0..200_u8).map(|n| Edit::Set(n % 4, n / 4, 50)).collect();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &sets, 50);
    settle(&mut tree, &mut keeper).unwrap();
    assert_eq!(entry_count(keeper.version()), 200);
    for row in 0..3 {
        write(&mut tree, &mut model, &Edit::DeleteRow(row));
    }
    write(&mut tree, &mut model, &Edit::Set(0, 7, 1));
    assert_eq!(cells(&tree, &[], None).unwrap(), model);
    assert_eq!(tree.get(&place(1, 3)), Ok(None));
    flush(&mut tree, &mut keeper).unwrap();
    assert_eq!(cells(&tree, &[], None).unwrap(), model);
    settle(&mut tree, &mut keeper).unwrap();
    assert_eq!(cells(&tree, &[], None).unwrap(), model);
    assert_eq!(entry_count(keeper.version()), 51, "{:?}", keeper.version());
}

#[test]
fn compaction_gets_longer_turns_the_closer_writes_come_to_a_stall() {
    let disk = TestDisk::default();
    let (mut tree, mut keeper, _) = open(&disk);
    let mut model = Cells::new();
    let mut steps = Vec::new();
    while !keeper.is_stalled() {
        write(&mut tree, &mut model, &Edit::Set(1, 1, 50));
        flush(&mut tree, &mut keeper).unwrap();
        steps.push(keeper.steps_due());
    }
    assert_eq!(steps, [1, 1, 1, 2, 5, 10], "3 tables are no debt, 6 hold writes back");
    settle(&mut tree, &mut keeper).unwrap();
    assert_eq!(keeper.steps_due(), 1, "{:?}", keeper.version());
}

#[test]
fn row_tombstone_and_cells_of_the_same_batch_stay_together() {
    let disk = TestDisk::default();
    let (mut tree, mut keeper, _) = open(&disk);
    let (row, cell) = (row(1), place(1, 5));
    let empty_column = place(1, 0);
    tree.write(point(1), &[Change::Set { place: &cell, value: b"old" }]);
    flush(&mut tree, &mut keeper).unwrap();
    let batch = [
        Change::DeleteRow { row: &row },
        Change::Set { place: &empty_column, value: b"new" },
        Change::Set { place: &cell, value: b"new" },
    ];
    tree.write(point(2), &batch);
    let expected =
        Cells::from([(empty_column, (b"new".to_vec(), 2)), (cell, (b"new".to_vec(), 2))]);
    assert_eq!(cells(&tree, &[], None).unwrap(), expected);
    flush(&mut tree, &mut keeper).unwrap();
    assert_eq!(cells(&tree, &[], None).unwrap(), expected);
    settle(&mut tree, &mut keeper).unwrap();
    assert_eq!(cells(&tree, &[], None).unwrap(), expected);
    assert_eq!(cells(&open(&disk).0, &[], None).unwrap(), expected);
}

#[test]
fn large_store_has_levels_and_each_holds_a_part() {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &script_over(60, 1500), 40);
    assert!(tree.is_stalled(), "{} tables wait", keeper.version().table_count());
    settle(&mut tree, &mut keeper).unwrap();
    assert!(!tree.is_stalled());
    for edits in script_over(60, 1500).chunks(40) {
        for edit in edits {
            write(&mut tree, &mut model, edit);
        }
        flush(&mut tree, &mut keeper).unwrap();
        settle(&mut tree, &mut keeper).unwrap();
    }
    assert_eq!(cells(&tree, &[], None).unwrap(), model);
    let sizes = keeper.version().level_sizes();
    let used = sizes.iter().filter(|(bytes, _)| *bytes > 0).count();
    assert!(used >= 2 && sizes[LEVEL_COUNT - 1].1 > 2, "{sizes:?}");
    run(keeper.collect());
    assert_eq!(keeper.obsolete_count(), 0);
    // What is superfluous is less than 38 hundredths of what is not, by an estimate.
    let (entries, live) = (entry_count(keeper.version()), u64::try_from(model.len()).unwrap());
    assert!(entries * 10 < 16 * live, "{entries} entries for {live} cells: {sizes:?}");
}

#[test]
fn ascending_cells_are_not_written_twice() {
    let disk = TestDisk::default();
    let (mut tree, mut keeper, _) = open(&disk);
    let mut model = Cells::new();
    for key in 0..240 {
        write(&mut tree, &mut model, &Edit::Set(key, 1, 80));
        if key % 12 == 11 {
            flush(&mut tree, &mut keeper).unwrap();
            let before = disk.files(DIR);
            settle(&mut tree, &mut keeper).unwrap();
            let after = disk.files(DIR);
            let is_new = |name: &&String| name.contains("table") && !before.contains_key(*name);
            assert_eq!(after.keys().filter(is_new).count(), 0, "{:?}", keeper.version());
        }
    }
    assert_eq!(cells(&tree, &[], None).unwrap(), model);
    assert_eq!(keeper.version().table_count(), 20);
}

#[test]
fn ascending_cells_are_packed_once_they_leave_level_0() {
    let disk = TestDisk::default();
    let table = TableOptions { compression: Compression::Lz4, block_bytes: 2000, ..OPTIONS.table };
    let options = TreeOptions { table, table_bytes: 7000, ..OPTIONS };
    let (mut tree, mut keeper, _) = run(super::super::open(disk, DIR, options)).unwrap();
    let mut model = Cells::new();
    for key in 0..240 {
        write(&mut tree, &mut model, &Edit::Set(key, 1, 400));
        if key % 12 == 11 {
            flush(&mut tree, &mut keeper).unwrap();
            settle(&mut tree, &mut keeper).unwrap();
        }
    }
    assert_eq!(cells(&tree, &[], None).unwrap(), model);
    assert!(keeper.version().bytes() < 240 * 200, "{:?}", keeper.version());
}

#[test]
fn pinned_version_stays_while_everything_changes() {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), before) = filled(&disk, &script(100), 30);
    let pinned = tree.pin();
    let mut model = before.clone();
    for edit in script(300) {
        write(&mut tree, &mut model, &edit);
    }
    flush(&mut tree, &mut keeper).unwrap();
    settle(&mut tree, &mut keeper).unwrap();
    run(keeper.collect());
    assert!(keeper.obsolete_count() > 0);
    assert_eq!(cells_of(&pinned), Ok(before));
    assert_eq!(pinned.applied, point(100));
    drop(pinned);
    run(keeper.collect());
    assert_eq!(keeper.obsolete_count(), 0);
    assert_eq!(cells(&tree, &[], None), Ok(model));
}

#[test]
fn full_disk_leaves_everything_as_it_was() {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &script(100), 50);
    for edit in script(60) {
        write(&mut tree, &mut model, &edit);
    }
    let frozen = tree.freeze(extra(160));
    run(keeper.collect());
    let before = disk.files(DIR);
    for left in (0..80).map(|n| n * 250) {
        disk.set_space(Some(disk.used_bytes() + left));
        match run(keeper.flush(&frozen)) {
            Err(error) => {
                assert!(error.is_no_space(), "{error}");
                assert!(disk.files(DIR).keys().eq(before.keys()), "with {left} bytes left");
                assert_eq!(cells(&tree, &[], None).as_ref(), Ok(&model));
            }
            Ok(version) => {
                assert!(left > 0, "nothing was written");
                tree.adopt(version);
                disk.set_space(Some(disk.used_bytes() + 100));
                assert!(settle(&mut tree, &mut keeper).is_err_and(|error| error.is_no_space()));
                disk.set_space(None);
                settle(&mut tree, &mut keeper).unwrap();
                assert_eq!(cells(&tree, &[], None), Ok(model));
                return;
            }
        }
    }
    panic!("20 kB are not enough");
}

/// The accident: a flush that found the disk full waited for space that a half-done compaction
/// held, and nobody went on with that one or gave it up.
#[test]
fn flush_without_space_gives_back_what_a_compaction_has_written() {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &script_over(60, 3000), 100);
    for edit in script(10) {
        write(&mut tree, &mut model, &edit);
    }
    let frozen = tree.freeze(extra(3010));
    run(keeper.collect());
    let mut before = disk.used_bytes();
    let is_under_way = (0..10_000).any(|_| {
        if let Some(version) = run(keeper.compact_step()).unwrap() {
            tree.adopt(version);
            run(keeper.collect());
            before = disk.used_bytes();
        }
        disk.used_bytes() > before + 5000
    });
    assert!(is_under_way, "no compaction writes anything");
    disk.set_space(Some(disk.used_bytes() + 50));
    assert!(run(keeper.flush(&frozen)).is_err_and(|error| error.is_no_space()));
    assert_eq!(disk.used_bytes(), before, "the compaction keeps what it has written");
    disk.set_space(None);
    tree.adopt(run(keeper.flush(&frozen)).unwrap());
    settle(&mut tree, &mut keeper).unwrap();
    assert_eq!(cells(&tree, &[], None), Ok(model));
}

#[test]
fn failed_sync_ends_all_writing() {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &script(30), 30);
    let durable = model.clone();
    write(&mut tree, &mut model, &Edit::Set(1, 1, 1));
    let frozen = tree.freeze(Vec::new());
    disk.set_faults(Faults { fail_sync: true, ..Faults::default() });
    assert!(run(keeper.flush(&frozen)).is_err());
    disk.set_faults(Faults::default());
    let syncs = disk.sync_count();
    assert!(run(keeper.flush(&frozen)).is_err_and(|error| !error.is_no_space()));
    assert!(run(keeper.begin_replacement()).is_err());
    assert_eq!(disk.sync_count(), syncs);
    assert_eq!(cells(&tree, &[], None), Ok(model));
    assert_eq!(cells(&open(&disk).0, &[], None), Ok(durable));
}

#[test]
fn manifest_whose_name_may_not_be_durable_keeps_its_files() {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &script(30), 30);
    let before = model.clone();
    write(&mut tree, &mut model, &Edit::Set(1, 1, 1));
    let frozen = tree.freeze(extra(31));
    // The directory is synced before the manifest is written, and after it is renamed.
    disk.set_faults(Faults { fail_sync_dir_after: Some(1), ..Faults::default() });
    assert!(run(keeper.flush(&frozen)).is_err_and(|error| !error.is_no_space()));
    let later = disk.after_process_end();
    let (tree, _, recovery) = open(&later);
    assert_eq!((recovery.damage, cells(&tree, &[], None)), (None, Ok(model)));
    disk.power_loss(&mut crate::base::Rng::new(1), 0.0);
    let (tree, _, recovery) = open(&disk);
    assert_eq!((recovery.damage, cells(&tree, &[], None)), (None, Ok(before)));
}

#[test]
fn same_calls_make_the_same_files() {
    let files = || {
        let disk = TestDisk::default();
        let ((mut tree, mut keeper, _), _) = filled(&disk, &script(500), 40);
        settle(&mut tree, &mut keeper).unwrap();
        run(keeper.collect());
        disk.files(DIR)
    };
    assert_eq!(files(), files());
}

#[test]
fn state_from_another_node_replaces_memory_and_disk() {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &script(100), 40);
    write(&mut tree, &mut model, &Edit::Set(1, 1, 1));
    let frozen = tree.freeze(Vec::new());
    write(&mut tree, &mut model, &Edit::Set(2, 1, 1));
    let cell = crate::storage::Cell { place: b"p", version: 3, content: Content::Value(b"v") };
    let version = run(async {
        keeper.begin_replacement().await?;
        keeper.push_replacement([cell].into_iter()).await?;
        keeper.finish_replacement(point(500), extra(500).into()).await
    });
    tree.adopt(version.unwrap());
    let expected = Cells::from([(b"p".to_vec(), (b"v".to_vec(), 3))]);
    assert_eq!((tree.applied(), cells(&tree, &[], None)), (point(500), Ok(expected.clone())));
    // A flush that was waiting comes too late.
    let late = run(keeper.flush(&frozen)).unwrap();
    assert_eq!(late.applied, point(500));
    let (tree, _, recovery) = open(&disk);
    assert_eq!((recovery.applied, recovery.extra), (point(500), extra(500).into()));
    assert_eq!(cells(&tree, &[], None), Ok(expected));
}

#[test]
fn cell_count_is_right_for_what_was_written_once() {
    let disk = TestDisk::default();
    let sets: Vec<Edit> = (0..100_u8).map(|n| Edit::Set(n, 1, 10)).collect();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &sets, 30);
    assert_eq!(tree.cell_count(), 100);
    write(&mut tree, &mut model, &Edit::Delete(5, 1));
    assert_eq!(tree.cell_count(), 99);
    flush(&mut tree, &mut keeper).unwrap();
    assert_eq!(tree.cell_count(), 99);
    settle(&mut tree, &mut keeper).unwrap();
    assert_eq!(tree.cell_count(), 99);
}
