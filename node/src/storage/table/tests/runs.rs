//! Blocks that are read many at a time.

use std::sync::Arc;

use super::{Entry, Kind, MemoryFile, build, open, options};
use crate::storage::StorageError;
use crate::storage::table::{Compression, Table, TableCursor};

/// Returns entries of more than a thousand blocks, many runs of them.
fn many() -> Vec<Entry> {
    let entry = |number: u32| {
        let kind = Kind::Value(vec![b'v'; 70]);
        Entry { place: number.to_be_bytes().to_vec(), version: 7, kind }
    };
    (0..3_000).map(entry).collect()
}

fn sample() -> (Vec<Entry>, MemoryFile, Arc<Table<MemoryFile>>) {
    let entries = many();
    let (bytes, meta) = build(7, &options(Compression::None), &entries);
    let (file, table) = open(&bytes, &meta).unwrap();
    (entries, file, table)
}

/// Goes to the end, or to what cannot be read; returns what came before.
fn walk(cursor: &mut TableCursor<MemoryFile>) -> (Vec<Entry>, Result<(), StorageError>) {
    let mut found = Vec::new();
    let mut result = cursor.seek(b"");
    while let (Ok(()), Some(cell)) = (&result, cursor.current()) {
        found.push(Entry::of(cell));
        result = cursor.advance();
    }
    (found, result)
}

#[test]
fn cursor_past_the_cache_reads_many_blocks_at_a_time() {
    let (entries, file, table) = sample();
    let opened = file.read_count();
    let (found, result) = walk(&mut Arc::clone(&table).cursor().without_cache());
    assert_eq!((found, result), (entries, Ok(())));
    let (reads, blocks) = (file.read_count() - opened, table.index.frame_count());
    assert!(blocks > 1_000 && reads < 20, "{reads} reads of {blocks} blocks");
}

#[test]
fn look_at_one_place_past_the_cache_reads_one_block() {
    let (entries, file, table) = sample();
    let mut cursor = Arc::clone(&table).cursor().without_cache();
    for number in [1_000, 2_000, 20] {
        let before = file.read_count();
        cursor.seek(&entries[number].place).unwrap();
        assert_eq!(cursor.current().map(Entry::of).as_ref(), Some(&entries[number]));
        assert_eq!(file.read_count() - before, 1, "of entry {number}");
    }
}

/// What is damaged is told from what was only read together with it.
#[test]
fn damage_in_a_run_is_that_of_its_own_block() {
    let (entries, file, table) = sample();
    for number in [0, 1, 2, 40, 41, 700] {
        let frame = *table.index.frame(number).unwrap();
        let at = usize::try_from(frame.offset).unwrap() + 40;
        file.tamper(|bytes| bytes[at] ^= 1);
        let (found, result) = walk(&mut Arc::clone(&table).cursor().without_cache());
        let Err(StorageError::Corrupt { offset, .. }) = result else { panic!("{result:?}") };
        assert_eq!(offset, frame.offset, "block {number}");
        assert_eq!(found, entries[..found.len()], "before block {number}");
        let next = &entries[found.len()].place;
        assert_eq!(table.index.find(next), number, "nothing before block {number} is left out");
        file.tamper(|bytes| bytes[at] ^= 1);
    }
}

/// A transfer of a whole run may fail where every block of it is well.
#[test]
fn run_that_cannot_be_read_is_read_block_by_block() {
    for (wrong_reads, failed_reads) in [(1, 0), (0, 1)] {
        let (entries, file, table) = sample();
        let mut cursor = Arc::clone(&table).cursor().without_cache();
        cursor.seek(b"").unwrap();
        file.spoil(wrong_reads, failed_reads);
        let mut found = Vec::new();
        while let Some(cell) = cursor.current() {
            found.push(Entry::of(cell));
            cursor.advance().unwrap();
        }
        assert_eq!(found, entries, "after {wrong_reads} wrong and {failed_reads} failed reads");
    }
}
