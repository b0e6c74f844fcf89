//! The look at a damaged store, and what is brought out of it: nothing is claimed that is not so.

use super::*;
use crate::storage::Content;
use crate::storage::tree::{Lost, StoreReport, examine, salvage};

/// Returns a disk with tables in several levels, and what is on it.
fn store() -> (TestDisk, Cells) {
    let disk = TestDisk::default();
    let ((mut tree, mut keeper, _), mut model) = filled(&disk, &script(240), 40);
    settle(&mut tree, &mut keeper).expect("the disk is well");
    for edit in script(270).split_off(240) {
        write(&mut tree, &mut model, &edit);
    }
    flush(&mut tree, &mut keeper).expect("the disk is well");
    run(keeper.collect());
    assert!(tree.pin().level_sizes().iter().filter(|(_, tables)| *tables > 0).count() > 1);
    (disk, model)
}

fn report_of(disk: &TestDisk) -> StoreReport {
    run(examine(disk, DIR, |_| {})).expect("damage is no error")
}

/// Returns what can be read, and what is lost.
fn salvaged(disk: &TestDisk, report: &StoreReport) -> (Cells, Vec<Lost>) {
    let mut salvage = run(salvage(disk, report)).expect("the disk is well");
    let mut cells = Cells::new();
    while let Some(cell) = salvage.current() {
        let Content::Value(value) = cell.content else { unreachable!("{cell:?} is visible") };
        assert!(cells.insert(cell.place.to_vec(), (value.to_vec(), cell.version)).is_none());
        salvage.advance().expect("damage is passed over");
    }
    (cells, salvage.lost().to_vec())
}

/// Checks that all is as it was, but for what is said to be lost.
fn check_honesty(model: &Cells, cells: &Cells, lost: &[Lost], when: &str) {
    for place in model.keys().chain(cells.keys()) {
        let (was, is) = (model.get(place), cells.get(place));
        let excuses = lost.iter().filter(|lost| lost.range.contains(place));
        let newest = excuses.clone().map(|lost| lost.version_max).max();
        match (was, is) {
            (was, is) if was == is => {}
            (Some((_, version)), None) => {
                assert!(newest >= Some(*version), "{place:?} is missing, {when}");
            }
            (_, Some((_, version))) => {
                assert!(newest >= Some(*version), "{place:?} is stale, {when}");
                assert!(excuses.clone().any(|lost| lost.stale_count > 0), "{place:?}, {when}");
            }
            (None, None) => unreachable!("{place:?} is in one of them"),
        }
    }
}

#[test]
fn whole_store_is_found_whole_and_left_alone() {
    let (disk, model) = store();
    let (before, operations) = (disk.files(DIR), disk.operation_count());
    let mut seen = Vec::new();
    let report = run(examine(&disk, DIR, |table| seen.push(table.clone()))).unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((report.applied, &report.tables), (Some(point(270)), &seen));
    assert_eq!(report.extra, Some(extra(270)));
    assert!(report.tables.len() > 2 && report.tables.iter().all(|table| table.level.is_some()));
    assert_eq!(salvaged(&disk, &report), (model, Vec::new()));
    assert_eq!((disk.files(DIR), disk.operation_count()), (before, operations));
}

#[test]
fn any_flipped_bit_is_found_and_takes_no_more_than_is_said() {
    let (disk, model) = store();
    for (path, bytes) in disk.files(DIR) {
        for bit in (0..bytes.len() * 8).step_by(61) {
            disk.damage(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let report = report_of(&disk);
            let when = format!("bit {bit} of {path}");
            let wounds: Vec<_> = report.all_wounds().collect();
            assert!(!wounds.is_empty() && wounds.iter().all(|wound| wound.path == path), "{when}");
            let offset = usize::try_from(wounds[0].offset).unwrap();
            assert!(offset <= bit / 8, "it begins at {offset}, {when}");
            let (cells, lost) = salvaged(&disk, &report);
            check_honesty(&model, &cells, &lost, &when);
            assert!(lost.len() <= 1, "{lost:?}, {when}");
            disk.damage(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        }
    }
}

/// Returns where frames lie that begin with these bytes: cells with `MT\x01`, any with `MT`.
fn frames(bytes: &[u8], start: &[u8]) -> Vec<usize> {
    let starts = bytes.windows(start.len()).enumerate();
    starts.filter(|(_, window)| *window == start).map(|(offset, _)| offset).collect()
}

#[test]
fn each_damaged_block_is_said_and_the_others_are_read() {
    let (disk, model) = store();
    let files = disk.files(DIR);
    let tables: Vec<&String> = files.keys().filter(|path| path.contains("table-")).collect();
    for path in &tables {
        let magics = |bytes: &[u8]| frames(bytes, b"MT\x01");
        for every in 2..4 {
            let damage = |bytes: &mut Vec<u8>| {
                for start in magics(bytes).into_iter().step_by(every) {
                    bytes[start + 40] ^= 0x10;
                }
            };
            disk.damage(path, damage);
            let report = report_of(&disk);
            let table = report.tables.iter().find(|table| table.path == **path).unwrap();
            let blocks = magics(&files[*path]);
            assert_eq!(table.wounds.len(), blocks.len().div_ceil(every), "{table:?}");
            for (wound, start) in table.wounds.iter().zip(blocks.iter().step_by(every)) {
                assert_eq!(usize::try_from(wound.offset), Ok(*start));
                assert!(!wound.is_salvageable);
            }
            let (cells, lost) = salvaged(&disk, &report);
            check_honesty(&model, &cells, &lost, path);
            assert!(!cells.is_empty());
            disk.damage(path, damage);
        }
    }
}

#[test]
fn end_of_a_table_takes_no_cells_with_it() {
    let (disk, model) = store();
    let files = disk.files(DIR);
    let path = files.keys().find(|path| path.contains("table-")).unwrap();
    for cut in [1, 20, 60] {
        let copy = disk.after_process_end();
        copy.damage(path, |bytes| bytes.truncate(bytes.len() - cut));
        let report = report_of(&copy);
        assert!(!report.is_whole());
        assert_eq!(salvaged(&copy, &report), (model.clone(), Vec::new()), "{cut} bytes less");
    }
}

/// The accident: a table that was empty, or ended just behind a block, was said to be salvaged.
#[test]
fn table_that_ends_between_two_blocks_lacks_those_behind() {
    let (disk, model) = store();
    let with_manifest = [disk.after_process_end(), disk];
    with_manifest[0].lose("tree/MANIFEST");
    for (disk, has_manifest) in with_manifest.iter().zip([false, true]) {
        let tables = disk.files(DIR).into_iter().filter(|(path, _)| path.contains("table-"));
        for (path, bytes) in tables {
            let last_block = *frames(&bytes, b"MT\x01").last().unwrap();
            let ends = frames(&bytes, b"MT");
            let behind = *ends.iter().find(|end| **end > last_block).unwrap();
            assert!(ends[0] == 0, "{ends:?}");
            for end in ends {
                let copy = disk.after_process_end();
                copy.damage(&path, |bytes| bytes.truncate(end));
                let report = report_of(&copy);
                let (cells, lost) = salvaged(&copy, &report);
                let when = format!("{path} ends at byte {end}");
                // Without a manifest nothing else tells which block was the last.
                let lacks_some = end <= last_block || !has_manifest && end == behind;
                assert_eq!(lost.len(), usize::from(lacks_some), "{lost:?}, {when}");
                if has_manifest {
                    check_honesty(&model, &cells, &lost, &when);
                }
                let mut wounds = report.all_wounds().filter(|wound| wound.path == path);
                assert!(wounds.all(|wound| !wound.what.contains("instead of 0")), "{report:?}");
            }
        }
    }
}

#[test]
fn lost_table_takes_its_range_with_it() {
    let (disk, model) = store();
    for path in disk.files(DIR).into_keys().filter(|path| path.contains("table-")) {
        let copy = disk.after_process_end();
        copy.lose(&path);
        let report = report_of(&copy);
        let wound = report.all_wounds().next().unwrap();
        assert!(wound.path == path && wound.what.contains("open"), "{wound:?}");
        let (cells, lost) = salvaged(&copy, &report);
        assert_eq!(lost.len(), 1);
        check_honesty(&model, &cells, &lost, &path);
    }
}

#[test]
fn tables_speak_for_themselves_when_the_manifest_is_lost() {
    let (disk, model) = store();
    disk.lose("tree/MANIFEST");
    let report = report_of(&disk);
    assert_eq!(report.applied, None);
    assert!(report.tables.iter().all(|table| table.level.is_none() && table.wounds.is_empty()));
    assert_eq!(salvaged(&disk, &report).0, model);
}

#[test]
fn verdict_is_said() {
    let (disk, _) = store();
    let (_, mut keeper, _) = open(&disk);
    let error =
        StorageError::Corrupt { path: "tree/table-1".to_owned(), offset: 7, what: "a".to_owned() };
    run(keeper.condemn(&error)).unwrap();
    let report = report_of(&disk);
    let wounds: Vec<_> = report.all_wounds().collect();
    assert!(wounds.len() == 1 && wounds[0].what.contains("table-1 damaged at byte 7"));
}
