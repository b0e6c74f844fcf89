//! Damage anywhere in the file: it is reported, or it changes nothing. Never a wrong answer.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::round_trip::{any_options, entries};
use super::{Entry, Kind, MemoryFile, build, open, options};
use crate::storage::StorageError;
use crate::storage::table::block::{Block, BlockCursor};
use crate::storage::table::bloom::Bloom;
use crate::storage::table::footer::{Tail, decode_meta};
use crate::storage::table::{BlockCache, Compression, PlaceHash, Table, TableMeta};

/// Reads all there is, in every way; the first error, or `Ok` if all was as it should be.
fn read_all(file: MemoryFile, meta: &TableMeta, entries: &[Entry]) -> Result<(), StorageError> {
    let cache = Arc::new(BlockCache::new(0));
    let table = Arc::new(Table::open(file, "tables/7".to_owned(), meta, &cache)?);
    let mut first_error = Ok(());
    let mut cursor = Arc::clone(&table).cursor();
    let mut walked = cursor.seek(b"");
    for entry in entries {
        let hash = PlaceHash::of(&entry.place);
        let outcome = match &entry.kind {
            Kind::RowDeleted => table.row_deleted(&entry.place, hash).map(|found| {
                assert_eq!(found, Some(entry.version), "{entry:?}");
            }),
            Kind::Deleted | Kind::Value(_) => table.get(&entry.place, hash).map(|found| {
                let found = found.unwrap_or_else(|| panic!("{entry:?} was not found"));
                let kind = found.value.map_or(Kind::Deleted, |value| Kind::Value(value.to_vec()));
                assert_eq!((found.version, kind), (entry.version, entry.kind.clone()));
            }),
        };
        first_error = first_error.and(outcome);
        if walked.is_ok() {
            assert_eq!(cursor.current().map(Entry::of).as_ref(), Some(entry));
            walked = cursor.advance();
        }
    }
    if walked.is_ok() {
        assert_eq!(cursor.current(), None, "an entry too many");
    }
    let verified = table.verify(0, u64::MAX).map(|_| ());
    assert!(verified.is_err() || (walked.is_ok() && first_error.is_ok()), "verify found nothing");
    first_error.and(walked).and(verified)
}

/// Returns a small table of every kind of entry with several blocks.
fn sample() -> Vec<Entry> {
    let mut entries = Vec::new();
    for n in 0..24_u64 {
        let place = format!("row {n:03}\0\0").into_bytes();
        if n % 5 == 0 {
            entries.push(Entry { place: place.clone(), version: 50, kind: Kind::RowDeleted });
        }
        let kind = if n % 7 == 3 { Kind::Deleted } else { Kind::Value(vec![b'v'; 9]) };
        entries.push(Entry { place, version: 1_000 - n * 3, kind });
    }
    entries
}

#[track_caller]
fn assert_corrupt(outcome: &Result<(), StorageError>, bytes: u64) {
    match outcome {
        Err(StorageError::Corrupt { path, offset, .. }) => {
            assert_eq!(path, "tables/7");
            assert!(*offset < bytes, "damage at {offset} of {bytes}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_flipped_bit_is_found() {
    for compression in [Compression::None, Compression::Lz4] {
        let entries = sample();
        let (bytes, meta) = build(7, &options(compression), &entries);
        assert_eq!(read_all(MemoryFile::new(&bytes), &meta, &entries), Ok(()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let outcome = read_all(MemoryFile::new(&damaged), &meta, &entries);
            assert_corrupt(&outcome, meta.bytes);
        }
    }
}

#[test]
fn file_cut_or_grown_is_found() {
    let entries = sample();
    let (bytes, meta) = build(7, &options(Compression::Lz4), &entries);
    for len in 0..bytes.len() {
        let outcome = read_all(MemoryFile::new(&bytes[..len]), &meta, &entries);
        assert_corrupt(&outcome, meta.bytes);
    }
    let grown = [bytes.as_slice(), &[0]].concat();
    assert!(read_all(MemoryFile::new(&grown), &meta, &entries).is_err());
}

#[test]
fn sector_lost_is_found() {
    let entries = sample();
    let (bytes, meta) = build(7, &options(Compression::None), &entries);
    for start in (0..bytes.len()).step_by(64) {
        let mut damaged = bytes.clone();
        let end = (start + 64).min(bytes.len());
        damaged[start..end].fill(0);
        assert_corrupt(&read_all(MemoryFile::new(&damaged), &meta, &entries), meta.bytes);
    }
}

#[test]
fn block_of_another_table_or_offset_is_found() {
    // All of one shape, so that the frames are of one length.
    let entry = |n: u8| Entry { place: vec![n], version: 5, kind: Kind::Value(vec![n; 9]) };
    let entries: Vec<Entry> = (0..60).map(entry).collect();
    let (bytes, meta) = build(7, &options(Compression::None), &entries);
    let (stale, other) = build(6, &options(Compression::None), &entries);
    assert_eq!(meta.bytes, other.bytes);
    let (_, table) = open(&bytes, &meta).unwrap();
    let first = *table.index.frame(0).unwrap();
    let second = *table.index.frame(1).unwrap();
    let end = usize::try_from(second.offset).unwrap();
    assert_eq!(first.bytes, second.bytes, "the two may be mistaken for each other");

    let mut misdirected = bytes.clone();
    misdirected.copy_within(..end, end);
    let outcome = read_all(MemoryFile::new(&misdirected), &meta, &entries);
    let Err(StorageError::Corrupt { offset, what, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((offset, what.as_str()), (second.offset, "what table 7 has at byte 0"));

    let mut mixed = bytes.clone();
    mixed[..end].copy_from_slice(&stale[..end]);
    let outcome = read_all(MemoryFile::new(&mixed), &meta, &entries);
    let Err(StorageError::Corrupt { offset, what, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((offset, what.as_str()), (0, "what table 6 has at byte 0"));

    let outcome = open(&stale, &meta).map(|_| ());
    assert!(matches!(outcome, Err(StorageError::Corrupt { .. })), "{outcome:?}");
}

#[test]
fn meta_of_the_manifest_must_be_that_of_the_file() {
    let entries = sample();
    let (bytes, meta) = build(7, &options(Compression::None), &entries);
    let wrong = TableMeta { version_max: meta.version_max + 1, ..meta };
    let outcome = open(&bytes, &wrong).map(|_| ());
    let Err(StorageError::Corrupt { what, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(what, "the meta of another table");
}

#[test]
fn table_of_a_newer_format_is_refused_as_such() {
    let (mut bytes, meta) = build(7, &options(Compression::None), &sample());
    let tail_start = bytes.len() - 44;
    let tail = Tail::decode(&bytes[tail_start..]).unwrap();
    let newer = Tail { format: 2, ..tail }.encode();
    bytes[tail_start..].copy_from_slice(&newer);
    let outcome = open(&bytes, &meta).map(|_| ());
    let Err(StorageError::Format { found, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(found, "table format 2");
}

#[test]
fn read_that_fails_once_is_read_again() {
    let entries = sample();
    let (bytes, meta) = build(7, &options(Compression::Lz4), &entries);
    let (file, table) = open(&bytes, &meta).unwrap();
    let place = &entries[5].place;
    for (wrong_reads, failed_reads) in [(1, 0), (0, 1)] {
        file.spoil(wrong_reads, failed_reads);
        let before = file.read_count();
        assert!(table.verify(0, 1).is_ok(), "{wrong_reads} {failed_reads}");
        assert_eq!(file.read_count() - before, 2);
    }
    // What cannot be read is as good as damaged.
    for (wrong_reads, failed_reads) in [(2, 0), (0, 2)] {
        file.spoil(wrong_reads, failed_reads);
        let outcome = table.get(place, PlaceHash::of(place));
        assert!(matches!(outcome, Err(StorageError::Corrupt { .. })), "{outcome:?}");
    }
    assert!(table.get(place, PlaceHash::of(place)).unwrap().is_some());
}

#[test]
fn cursor_after_an_error_never_comes_to_an_end() {
    let entries = sample();
    let (bytes, meta) = build(7, &options(Compression::None), &entries);
    let (file, table) = open(&bytes, &meta).unwrap();
    let second = table.index.frame(1).unwrap().offset;
    let at = usize::try_from(second).unwrap() + 40;
    file.tamper(|bytes| bytes[at] ^= 1);
    for mut cursor in [Arc::clone(&table).cursor(), Arc::clone(&table).cursor().without_cache()] {
        cursor.seek(b"").unwrap();
        let mut steps = 0;
        let error = loop {
            match cursor.advance() {
                Ok(()) => assert!(cursor.current().is_some(), "ended after {steps}"),
                Err(error) => break error,
            }
            steps += 1;
        };
        let StorageError::Corrupt { offset, .. } = &error else { panic!("{error}") };
        assert_eq!(*offset, second);
        assert_eq!(cursor.current(), None);
        assert_eq!(cursor.advance(), Err(error));
        cursor.seek(&entries[0].place).unwrap();
        assert_eq!(cursor.current().map(Entry::of).as_ref(), Some(&entries[0]));
    }
}

proptest! {
    #[test]
    fn damage_in_any_table_is_found(
        entries in entries(),
        options in any_options(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let (mut bytes, meta) = build(7, &options, &entries);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let outcome = read_all(MemoryFile::new(&bytes), &meta, &entries);
        prop_assert!(matches!(outcome, Err(StorageError::Corrupt { .. })), "{:?}", outcome);
    }

    /// What has the right checksum may still have been made by a stranger.
    #[test]
    fn decoders_never_panic_on_foreign_bytes(
        foreign in prop::collection::vec(prop_oneof![Just(0_u8), 0_u8..20, any::<u8>()], 0..120),
        place in prop::collection::vec(0_u8..4, 0..4),
    ) {
        let bytes = Bytes::from(foreign);
        if let Ok(block) = Block::new(bytes.clone()) {
            let _found = (block.find_cell(&place), block.find_row(&place));
            if let Ok(mut cursor) = BlockCursor::new(block, Vec::new()) {
                let mut steps = 0;
                while cursor.current().is_some() && cursor.advance().is_ok() {
                    steps += 1;
                    prop_assert!(steps <= bytes.len());
                }
                let _sought = cursor.seek(&place);
            }
        }
        let _bloom = Bloom::decode(&bytes);
        let _meta = decode_meta(&bytes, 1_000);
        let _tail = Tail::decode(&bytes);
    }

    /// Bodies that were right once, changed below the checksum.
    #[test]
    fn blocks_changed_below_the_checksum_never_panic(
        entries in entries(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        place in prop::collection::vec(0_u8..4, 0..4),
    ) {
        let mut builder = crate::storage::table::block::BlockBuilder::default();
        for entry in &entries {
            let cell = entry.cell();
            builder.push(&cell, builder.shared(cell.place));
        }
        let mut body = builder.finish(<[u8]>::to_vec);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let len = body.len();
        if let Ok(block) = Block::new(body.into()) {
            let _found = (block.find_cell(&place), block.find_row(&place));
            if let Ok(mut cursor) = BlockCursor::new(block, Vec::new()) {
                let mut steps = 0;
                while cursor.current().is_some() && cursor.advance().is_ok() {
                    steps += 1;
                    prop_assert!(steps <= len);
                }
                let _sought = cursor.seek(&place);
            }
        }
    }
}
