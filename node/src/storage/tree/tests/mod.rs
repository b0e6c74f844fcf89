//! Tests of the table store: against a plain map, on a disk that does its worst.

mod damage;
mod directed;
mod examine;
mod formats;
mod model;
#[cfg(feature = "testing")]
mod planted;
mod power;
mod runs;
mod turns;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Keeper, Recovery, Tree, TreeOptions, Version};
use crate::storage::engine::{Change, Engine};
use crate::storage::table::{Compression, TableOptions};
use crate::storage::test_disk::{TestDisk, run};
use crate::storage::{SnapshotPoint, StorageError};

const DIR: &str = "tree";

/// Sizes at which a few hundred cells make several levels of several tables.
const OPTIONS: TreeOptions = TreeOptions {
    memtable_bytes: 1 << 10,
    frozen_max: 2,
    table_bytes: 700,
    level0_tables: 3,
    level0_tables_max: 6,
    base_bytes: 1 << 10,
    runs_max: 2,
    step_bytes: 600,
    cache_bytes: 8 << 10,
    table: TableOptions {
        block_bytes: 200,
        bloom_bits_per_cell: 10,
        compression: Compression::None,
    },
};

/// Place to value and version.
type Cells = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// A change of a model and of a tree.
#[derive(Debug, Clone)]
enum Edit {
    Set(u8, u8, usize),
    Delete(u8, u8),
    DeleteRow(u8),
}

/// Returns the bytes of a key, in the order of the numbers. Most are so long that their heads, by
/// which places are compared first, are equal.
fn key_bytes(key: u8) -> Vec<u8> {
    let long = if key < 4 { &[][..] } else { b"a key of nineteen b" };
    [long, &[key]].concat()
}

fn row(key: u8) -> Vec<u8> {
    crate::codec::keycode::encode_key(&key_bytes(key))
}

fn place(key: u8, column: u8) -> Vec<u8> {
    let column = if column == 0 { &[][..] } else { &[column][..] };
    crate::codec::keycode::encode_cell(&key_bytes(key), column)
}

fn value(version: u64, len: usize) -> Vec<u8> {
    let mut value = version.to_be_bytes().to_vec();
    value.resize(8 + len, u8::try_from(version % 251).unwrap_or(0));
    value
}

fn point(index: u64) -> SnapshotPoint {
    SnapshotPoint { index, term: 1 }
}

fn extra(index: u64) -> Vec<u8> {
    format!("captured at {index}").into_bytes()
}

/// Makes one edit the next entry of a tree and of a model.
fn write(tree: &mut Tree<TestDisk>, model: &mut Cells, edit: &Edit) {
    let at = point(tree.applied().index + 1);
    match *edit {
        Edit::Set(key, column, len) => {
            let (place, value) = (place(key, column), value(at.index, len));
            tree.write(at, &[Change::Set { place: &place, value: &value }]);
            model.insert(place, (value, at.index));
        }
        Edit::Delete(key, column) => {
            let place = place(key, column);
            tree.write(at, &[Change::Delete { place: &place }]);
            model.remove(&place);
        }
        Edit::DeleteRow(key) => {
            let row = row(key);
            tree.write(at, &[Change::DeleteRow { row: &row }]);
            model.retain(|place, _| !place.starts_with(&row));
        }
    }
}

fn cells(tree: &Tree<TestDisk>, start: &[u8], end: Option<&[u8]>) -> Result<Cells, StorageError> {
    let mut cells = Cells::new();
    let mut last: Option<Vec<u8>> = None;
    tree.scan(start, end, &mut |place, value, version| {
        assert!(last.as_deref() < Some(place), "{place:?} after {last:?}");
        last = Some(place.to_vec());
        cells.insert(place.to_vec(), (value.to_vec(), version));
        ControlFlow::Continue(())
    })?;
    Ok(cells)
}

fn cells_of(version: &Arc<Version<TestDisk>>) -> Result<Cells, StorageError> {
    let mut cursor = version.cursor()?;
    let mut cells = Cells::new();
    while let Some(cell) = cursor.current() {
        if let crate::storage::Content::Value(value) = cell.content {
            cells.insert(cell.place.to_vec(), (value.to_vec(), cell.version));
        }
        cursor.advance()?;
    }
    Ok(cells)
}

/// Freezes the memtable and flushes it.
fn flush(tree: &mut Tree<TestDisk>, keeper: &mut Keeper<TestDisk>) -> Result<(), StorageError> {
    let frozen = tree.freeze(extra(tree.applied().index));
    tree.adopt(run(keeper.flush(&frozen))?);
    Ok(())
}

/// Compacts until all is well; returns how many compactions that took.
fn settle(tree: &mut Tree<TestDisk>, keeper: &mut Keeper<TestDisk>) -> Result<usize, StorageError> {
    let mut count = 0;
    for _ in 0..10_000 {
        if !keeper.needs_compaction() {
            return Ok(count);
        }
        if let Some(version) = run(keeper.compact_step())? {
            tree.adopt(version);
            count += 1;
        }
    }
    panic!("compaction never ends: {:?}", keeper.version());
}

type Opened = (Tree<TestDisk>, Keeper<TestDisk>, Recovery);

fn try_open(disk: &TestDisk) -> Result<Opened, StorageError> {
    run(super::open(disk.clone(), DIR, OPTIONS))
}

fn open(disk: &TestDisk) -> Opened {
    match try_open(disk) {
        Ok(opened) => opened,
        Err(error) => panic!("{error}"),
    }
}

/// Does all edits, flushing every few; ends with everything on disk.
fn filled(disk: &TestDisk, edits: &[Edit], flush_each: usize) -> (Opened, Cells) {
    let (mut tree, mut keeper, recovery) = open(disk);
    let mut model = Cells::new();
    for chunk in edits.chunks(flush_each) {
        for edit in chunk {
            write(&mut tree, &mut model, edit);
        }
        flush(&mut tree, &mut keeper).expect("the disk is well");
    }
    ((tree, keeper, recovery), model)
}

/// A script of edits that spreads over a few rows, and deletes some.
fn script(count: u64) -> Vec<Edit> {
    script_over(6, count)
}

fn script_over(keys: u64, count: u64) -> Vec<Edit> {
    let mut rng = crate::base::Rng::new(7);
    let mut edit = || {
        let key = u8::try_from(rng.range(0, keys)).unwrap_or(0);
        let column = u8::try_from(rng.range(0, 20)).unwrap_or(0);
        match rng.range(0, 20) {
            0 => Edit::DeleteRow(key),
            1..4 => Edit::Delete(key, column),
            len => Edit::Set(key, column, usize::try_from(len * 4).unwrap_or(0)),
        }
    };
    (0..count).map(|_| edit()).collect()
}
