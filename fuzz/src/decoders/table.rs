//! Files of the table store: tables, the manifest, and all of them together.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use mangrove::base::checksum::crc32;
use mangrove::codec::keycode::{encode_cell, encode_key};
use mangrove::replica::{SESSIONS_MAX_USUAL, STATE_DIR, offline};
use mangrove::storage::table::{
    BlockCache, Compression, Piece, PlaceHash, Table, TableBuilder, TableMeta, TableOptions,
    TableWalk, read_own_meta,
};
use mangrove::storage::test_disk::{TestDisk, run};
use mangrove::storage::tree::{self, TreeOptions};
use mangrove::storage::{Cell, Change, Content, Engine, SnapshotPoint, StorageError};

use crate::blind::blindly;
use crate::bytes_file::BytesFile;
use crate::edits::{self, Files};

/// Bytes that a copy of the manifest is a multiple of.
const SECTOR_BYTES: usize = 4096;

/// Number of the table; a blind one must bear it too.
const NUMBER: u64 = 3;

/// What a table says of a place: the version, and a value or a tombstone.
type Known = BTreeMap<(Vec<u8>, bool), (u64, Option<Vec<u8>>)>;

/// A table and what it holds.
struct Whole {
    bytes: Vec<u8>,
    meta: TableMeta,
    known: Known,
}

fn build(compression: Compression, rows: u8, columns: u8) -> Whole {
    let options = TableOptions { block_bytes: 100, bloom_bits_per_cell: 10, compression };
    let mut builder = TableBuilder::new(NUMBER, &options);
    let mut known = Known::new();
    let mut push = |place: Vec<u8>, version: u64, content: Content<'_>| {
        builder.push(Cell { place: &place, version, content });
        let value = if let Content::Value(value) = content { Some(value.to_vec()) } else { None };
        known.insert((place, content != Content::RowDeleted), (version, value));
    };
    for row in 0..rows {
        let key = [b'k', row];
        if row % 2 == 1 {
            push(encode_key(&key), 900 + u64::from(row), Content::RowDeleted);
        }
        for column in 0..columns {
            let name = [b'c', column];
            let place = encode_cell(&key, if column == 0 { &[] } else { &name });
            let value = vec![b'v'; usize::from(column) * 3];
            let content = if column == 3 { Content::Deleted } else { Content::Value(&value) };
            push(place, 1000 + u64::from(row * 16 + column), content);
        }
    }
    let (bytes, meta) = builder.finish();
    Whole { bytes, meta, known }
}

fn tables() -> &'static [Whole; 2] {
    static TABLES: OnceLock<[Whole; 2]> = OnceLock::new();
    TABLES.get_or_init(|| [build(Compression::None, 6, 8), build(Compression::Lz4, 9, 6)])
}

fn open(file: BytesFile, meta: &TableMeta) -> Result<Arc<Table<BytesFile>>, StorageError> {
    let cache = Arc::new(BlockCache::new(0));
    Table::open(file, "table".to_owned(), meta, &cache).map(Arc::new)
}

/// The whole file, blind.
pub(super) fn table(input: &[u8]) {
    blindly(|| {
        let file = BytesFile::of(input);
        walk(file.clone());
        let own = read_own_meta(file.clone(), "table".to_owned(), NUMBER);
        let Ok(Ok(table)) = own.map(|meta| open(file, &meta)) else { return };
        let verified = verify(&table);
        let mut cursor = Arc::clone(&table).cursor();
        let (mut count, mut last) = (0_u64, None);
        let mut result = cursor.seek(&[]);
        while let (Ok(()), Some(cell)) = (&result, cursor.current()) {
            let found = look_up(&table, cell.place, cell.content == Content::RowDeleted);
            let (place, is_cell) = cell.order();
            let order = (place.to_vec(), is_cell);
            if verified.is_ok() {
                let value =
                    if let Content::Value(value) = cell.content { Some(value) } else { None };
                let value = value.map(<[u8]>::to_vec);
                assert!(last.as_ref() < Some(&order), "{order:?} after {last:?}");
                assert_eq!(found, Ok(Some((cell.version, value))), "{order:?} of a whole table");
            }
            last = Some(order);
            count += 1;
            assert!(count <= input.len() as u64, "{count} cells of {} bytes", input.len());
            result = cursor.advance();
        }
        if let Ok(cell_count) = verified {
            assert_eq!((result, count), (Ok(()), cell_count), "what was verified can be read");
        }
    });
}

/// Verifies a table in steps; returns how many cells it has.
fn verify(table: &Table<BytesFile>) -> Result<u64, StorageError> {
    let (mut from, mut count) = (0, 0);
    loop {
        let verified = table.verify(from, 2)?;
        count += verified.cell_count;
        match verified.next_block {
            Some(next) => from = next,
            None => return Ok(count),
        }
    }
}

type LookedUp = Result<Option<(u64, Option<Vec<u8>>)>, StorageError>;

fn look_up(table: &Table<BytesFile>, place: &[u8], is_row: bool) -> LookedUp {
    let hash = PlaceHash::of(place);
    if is_row {
        return Ok(table.row_deleted(place, hash)?.map(|version| (version, None)));
    }
    let found = table.get(place, hash)?;
    Ok(found.map(|found| (found.version, found.value.map(|value| value.to_vec()))))
}

/// Goes through what the blocks hold without the index; returns it.
fn walk(file: BytesFile) -> Known {
    let mut known = Known::new();
    let mut end = 0;
    let len = file.0.len();
    let opened = TableWalk::open(file, "table".to_owned(), NUMBER);
    let Ok(mut pieces) = opened else { return known };
    while let Some(piece) = pieces.next_piece() {
        match piece {
            Piece::Damage { offset, bytes: damaged } => {
                assert!(offset >= end && damaged > 0, "{damaged} at {offset}, before {end}");
                end = offset + damaged;
            }
            Piece::Cells(mut run) => {
                while let Some(cell) = run.current() {
                    let (place, is_cell) = cell.order();
                    let value = match cell.content {
                        Content::Value(value) => Some(value.to_vec()),
                        Content::Deleted | Content::RowDeleted => None,
                    };
                    known.insert((place.to_vec(), is_cell), (cell.version, value));
                    run.advance();
                }
            }
        }
    }
    assert!(end <= len as u64, "damage up to {end} of {len} bytes");
    known
}

pub(super) fn table_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for compression in [Compression::None, Compression::Lz4] {
        for (rows, columns) in [(1, 1), (2, 5), (4, 8)] {
            seeds.push(blindly(|| build(compression, rows, columns).bytes));
        }
    }
    seeds
}

/// ```text
/// which u8: the table (bit 0), the only row to read (the rest) │ edits
/// ```
pub(super) fn altered(input: &[u8]) {
    let Some((&which, edits)) = input.split_first() else { return };
    let whole = &tables()[usize::from(which & 1)];
    let mut files: Files = vec![("table".to_owned(), Some(whole.bytes.clone()))];
    let is_altered = edits::alter(&mut files, edits);
    let Some((_, Some(bytes))) = files.first() else { return };
    let file = BytesFile::of(bytes);
    for (order, cell) in &walk(file.clone()) {
        assert_eq!(whole.known.get(order), Some(cell), "{order:?} is in no good block");
    }
    let table = match open(file, &whole.meta) {
        Ok(table) => table,
        Err(error) => {
            assert!(is_altered, "a whole table: {error}");
            return;
        }
    };
    for ((place, is_cell), expected) in &whole.known {
        match look_up(&table, place, !is_cell) {
            Ok(found) => assert_eq!(found.as_ref(), Some(expected), "{place:?}"),
            Err(error) => assert!(is_altered, "a whole table: {error}"),
        }
    }
    let absent = encode_cell(&[b'k', which >> 1], b"absent");
    if let Ok(found) = look_up(&table, &absent, false) {
        assert_eq!(found, None, "{absent:?}");
    }
    let mut cursor = Arc::clone(&table).cursor();
    let mut result = cursor.seek(&absent);
    while let (Ok(()), Some(cell)) = (&result, cursor.current()) {
        let (place, is_cell) = cell.order();
        let expected = whole.known.get(&(place.to_vec(), is_cell));
        assert_eq!(expected.map(|(version, _)| *version), Some(cell.version), "{place:?}");
        result = cursor.advance();
    }
    let verified = verify(&table);
    let count = whole.known.len() as u64;
    match verified {
        Ok(found) => assert_eq!((is_altered, found), (false, count), "an altered table is whole"),
        Err(error) => assert!(is_altered, "a whole table: {error}"),
    }
}

pub(super) fn altered_seeds() -> Vec<Vec<u8>> {
    let seeds_of = |which: u8| {
        let files = vec![(String::new(), Some(tables()[usize::from(which)].bytes.clone()))];
        edits::seeds(&files).into_iter().map(move |edit| [vec![which], edit].concat())
    };
    seeds_of(0).chain(seeds_of(1)).collect()
}

/// ```text
/// twist u8: which byte of the second copy is flipped, from its start; 0 for none │ one copy
/// ```
pub(super) fn manifest(input: &[u8]) {
    let Some((&twist, copy)) = input.split_first() else { return };
    let mut bytes = copy.to_vec();
    bytes.resize(copy.len().next_multiple_of(SECTOR_BYTES), 0);
    let len = bytes.len();
    bytes.extend_from_within(..);
    if twist > 0
        && let Some(byte) = bytes.get_mut(len + usize::from(twist) - 1)
    {
        *byte ^= 1;
    }
    blindly(|| {
        let Ok(again) = tree::reread_manifest(&BytesFile::of(&bytes)) else { return };
        let twice = tree::reread_manifest(&BytesFile::of(&again));
        assert_eq!(twice.as_ref(), Ok(&again), "what is read survives writing it");
    });
}

pub(super) fn manifest_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0]];
    for cells in [0, 40] {
        let disk = blindly(|| store(cells));
        let bytes = disk.contents(&format!("{STATE_DIR}/MANIFEST"));
        let copy = &bytes[..bytes.len() / 2];
        let copy = &copy[..copy.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)];
        seeds.extend([0, 1, 40].map(|twist| [&[twist][..], copy].concat()));
    }
    seeds
}

/// ```text
/// blind u8 (bit 0) │ the file
/// ```
pub(super) fn verdict(input: &[u8]) {
    let Some((&blind, bytes)) = input.split_first() else { return };
    let read = || {
        let Some(again) = tree::reread_verdict(bytes) else { return };
        let sealed = bytes.split_last_chunk::<4>();
        let is_sealed = sealed.is_some_and(|(said, crc)| crc32(said).to_le_bytes() == *crc);
        assert!(is_sealed, "nothing is believed without its checksum");
        let twice = tree::reread_verdict(&again);
        assert_eq!(twice.as_ref(), Some(&again), "what is read survives writing it");
    };
    if blind & 1 == 1 { blindly(read) } else { read() }
}

pub(super) fn verdict_seeds() -> Vec<Vec<u8>> {
    let of = |path: &str, what: &str| {
        let disk = store(0);
        let opened = run(tree::open(disk.clone(), STATE_DIR, OPTIONS));
        let Ok((_, mut keeper, _)) = opened else { panic!("a whole store opens") };
        let (path, what) = (path.to_owned(), what.to_owned());
        let condemned = run(keeper.condemn(&StorageError::Corrupt { path, offset: 4096, what }));
        assert_eq!(condemned, Ok(()), "memory takes a verdict");
        disk.contents(&format!("{STATE_DIR}/DAMAGED"))
    };
    let mut seeds = Vec::new();
    for (path, what) in [("", ""), ("tables/table-7", "a block"), ("tabl\u{e9}", "\u{fffd}")] {
        seeds.push([vec![0], of(path, what)].concat());
        seeds.push([vec![1], blindly(|| of(path, what))].concat());
    }
    seeds
}

/// Sizes at which a few dozen cells make several tables.
pub(crate) const OPTIONS: TreeOptions = TreeOptions {
    memtable_bytes: 1 << 10,
    frozen_max: 2,
    table_bytes: 700,
    level0_tables: 3,
    level0_tables_max: 6,
    base_bytes: 1 << 10,
    runs_max: 2,
    step_bytes: 600,
    cache_bytes: 0,
    table: TableOptions {
        block_bytes: 200,
        bloom_bits_per_cell: 10,
        compression: Compression::None,
    },
};

fn place(number: u64) -> Vec<u8> {
    encode_cell(&[b'k', (number % 4) as u8], &[b'c', (number % 13) as u8])
}

/// Makes a store of some entries in several tables.
fn store(entries: u64) -> TestDisk {
    let disk = TestDisk::default();
    let opened = run(tree::open(disk.clone(), STATE_DIR, OPTIONS));
    let Ok((mut tree, mut keeper, _)) = opened else { panic!("a new store") };
    for index in 1..=entries {
        let at = SnapshotPoint { index, term: 1 };
        let (place, value) = (place(index), [index as u8; 24]);
        let change = match index % 11 {
            0 => Change::DeleteRow { row: &encode_key(&[b'k', (index % 4) as u8]) },
            7 => Change::Delete { place: &place },
            _ => Change::Set { place: &place, value: &value },
        };
        tree.write(at, &[change]);
        if index % 10 == 0 {
            let frozen = tree.freeze(format!("captured at {index}").into_bytes());
            if let Ok(version) = run(keeper.flush(&frozen)) {
                tree.adopt(version);
            }
        }
    }
    disk
}

/// A store, and what it holds.
struct WholeStore {
    files: Files,
    cells: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    extra: Vec<u8>,
}

fn whole_store() -> &'static WholeStore {
    static STORE: OnceLock<WholeStore> = OnceLock::new();
    STORE.get_or_init(|| {
        let disk = store(40);
        let files = disk.files(STATE_DIR).into_iter().map(|(name, bytes)| (name, Some(bytes)));
        let files = files.collect();
        let Ok((tree, _, recovery)) = run(tree::open(disk, STATE_DIR, OPTIONS)) else {
            panic!("the store opens")
        };
        let mut cells = BTreeMap::new();
        let scanned = tree.scan(&[], None, &mut |place, value, version| {
            cells.insert(place.to_vec(), (value.to_vec(), version));
            ControlFlow::Continue(())
        });
        assert_eq!(scanned, Ok(()), "the store is well");
        WholeStore { files, cells, extra: recovery.extra.to_vec() }
    })
}

fn planted(files: &Files) -> TestDisk {
    let disk = TestDisk::default();
    for (name, content) in files {
        if let Some(bytes) = content {
            disk.plant(name, bytes.clone());
        }
    }
    disk
}

/// The input is [edits](crate::edits) of all files of a store.
pub(super) fn store_altered(input: &[u8]) {
    let whole = whole_store();
    let mut files = whole.files.clone();
    let is_altered = edits::alter(&mut files, input);
    let disk = planted(&files);
    let report = run(offline::verify_store(&disk, |_| {}));
    if !is_altered {
        let report = report.as_ref().map(offline::StoreReport::is_whole);
        assert_eq!(report, Ok(true), "the store is whole");
    }
    salvage(&disk, whole);
    let opened = run(tree::open(disk, STATE_DIR, OPTIONS));
    let Ok((tree, mut keeper, recovery)) = opened else {
        assert!(is_altered, "the whole store opens");
        return;
    };
    if recovery.damage.is_some() {
        assert!(is_altered, "the whole store is damaged: {recovery:?}");
        return;
    }
    if recovery.applied == SnapshotPoint::default() {
        // Every file of the store is gone: a new one.
        assert!(files.iter().all(|(_, content)| content.is_none()), "{recovery:?}");
        return;
    }
    assert_eq!(recovery.extra, whole.extra, "what was captured");
    for number in 0..52 {
        let place = place(number);
        if let Ok(found) = tree.get(&place) {
            let found = found.map(|stored| (stored.value.to_vec(), stored.version));
            assert_eq!(found.as_ref(), whole.cells.get(&place), "{place:?}");
        }
    }
    let mut seen = 0;
    let scanned = tree.scan(&[], None, &mut |place, value, version| {
        seen += 1;
        let found = (value.to_vec(), version);
        assert_eq!(whole.cells.get(place), Some(&found), "{place:?}");
        ControlFlow::Continue(())
    });
    if scanned.is_ok() {
        assert_eq!(seen, whole.cells.len(), "a scan without an error has every cell");
    }
    let scrubbed = run(keeper.scrub_step(u64::MAX));
    assert!(is_altered || scrubbed.is_ok(), "the whole store: {scrubbed:?}");
    if scrubbed.is_ok() {
        assert_eq!(scanned, Ok(()), "what was scrubbed can be read");
    }
}

/// What is salvaged was written, or lies in a range of which it is said that it may be stale.
fn salvage(disk: &TestDisk, whole: &WholeStore) {
    let mut found = Vec::new();
    let visit = &mut |place: &[u8], value: &[u8], version| {
        found.push((place.to_vec(), value.to_vec(), version));
        ControlFlow::Continue(())
    };
    let salvaged = run(offline::salvage(disk, &TestDisk::default(), SESSIONS_MAX_USUAL, visit));
    let Ok(report) = salvaged else { return };
    let is_doubtful = |place: &[u8]| report.lost.iter().any(|lost| lost.range.contains(place));
    let is_listed = report.store.applied.is_some();
    for (place, value, version) in &found {
        let expected = whole.cells.get(place);
        let is_there = expected.is_some_and(|(v, at)| v == value && at == version);
        assert!(
            is_there || is_doubtful(place) || !is_listed || !report.store.is_whole(),
            "{place:?} at {version} was salvaged, and is said to be certain"
        );
    }
}

pub(super) fn store_altered_seeds() -> Vec<Vec<u8>> {
    edits::seeds(&whole_store().files)
}
