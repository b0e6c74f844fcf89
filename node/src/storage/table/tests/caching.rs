//! What the cache saves, and what it keeps.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Entry, Kind, MemoryFile, build, open, options};
use crate::storage::table::block::{Block, BlockBuilder};
use crate::storage::table::{BlockCache, Compression, PlaceHash, Table};
use crate::storage::{Cell, Content};

fn entries() -> Vec<Entry> {
    let entry = |n: u32| Entry {
        place: n.to_be_bytes().to_vec(),
        version: u64::from(n),
        kind: Kind::Value(vec![9; 30]),
    };
    (0..200).map(entry).collect()
}

/// Returns a block of about so many bytes.
fn block(bytes: usize) -> Block {
    let mut builder = BlockBuilder::default();
    let value = vec![0; bytes];
    builder.push(&Cell { place: b"p", version: 1, content: Content::Value(&value) }, 0);
    Block::new(builder.finish(<[u8]>::to_vec).into()).unwrap()
}

#[test]
fn block_read_once_is_read_from_the_cache() {
    let (bytes, meta) = build(7, &options(Compression::Lz4), &entries());
    let (file, table) = open(&bytes, &meta).unwrap();
    let place = 77_u32.to_be_bytes();
    let mut found = Vec::new();
    let opened = file.read_count();
    for _ in 0..3 {
        found.push(table.get(&place, PlaceHash::of(&place)).unwrap().unwrap());
    }
    assert_eq!(file.read_count(), opened + 1);
    let pointers: Vec<_> =
        found.iter().map(|found| found.value.as_ref().unwrap().as_ptr()).collect();
    assert!(pointers.iter().all(|pointer| *pointer == pointers[0]), "the value is not copied");
}

#[test]
fn absent_place_is_not_looked_for_in_the_file() {
    let (bytes, meta) = build(7, &options(Compression::Lz4), &entries());
    let (file, table) = open(&bytes, &meta).unwrap();
    let opened = file.read_count();
    for n in 1_000_u32..2_000 {
        let place = [&[0, 0, 0, 50], n.to_be_bytes().as_slice()].concat();
        assert_eq!(table.get(&place, PlaceHash::of(&place)), Ok(None));
        assert_eq!(table.row_deleted(&place, PlaceHash::of(&place)), Ok(None));
    }
    // All of them would lie in one block.
    assert!(file.read_count() - opened <= 1, "{} reads", file.read_count() - opened);
}

#[test]
fn cursor_without_cache_leaves_the_cache_as_it_is() {
    let (bytes, meta) = build(7, &options(Compression::None), &entries());
    let cache = Arc::new(BlockCache::new(1 << 20));
    let file = MemoryFile::new(&bytes);
    let table = Arc::new(Table::open(file, "t".to_owned(), &meta, &cache).unwrap());
    for (mut cursor, fills) in
        [(Arc::clone(&table).cursor().without_cache(), false), (Arc::clone(&table).cursor(), true)]
    {
        cursor.seek(b"").unwrap();
        while cursor.current().is_some() {
            cursor.advance().unwrap();
        }
        assert_eq!(cache.bytes() > 0, fills);
    }
    drop(table);
    assert_eq!(cache.bytes(), 0, "nobody reads a dropped table");
}

#[test]
fn block_asked_for_again_outlives_a_scan() {
    let cache = BlockCache::new(100_000);
    cache.put(1, 0, &block(1_000));
    for offset in 0..1_000 {
        assert!(cache.get(1, 0).is_some(), "gone after {offset}");
        cache.put(2, offset, &block(1_000));
    }
    assert!(cache.get(2, 999).is_none(), "it was full, and this is read once");
    cache.put(2, 999, &block(1_000));
    assert!(cache.get(2, 999).is_some(), "read again");
    for offset in 1_000..2_000 {
        cache.put(2, offset, &block(1_000));
        cache.put(2, offset, &block(1_000));
    }
    assert!(cache.get(2, 0).is_none(), "what is read again takes its place");
    assert!(cache.bytes() > 90_000, "{} of 100,000 bytes", cache.bytes());
}

proptest! {
    #[test]
    fn cache_stays_within_its_bytes_and_never_mixes_blocks_up(
        bytes_max in prop_oneof![0_usize..50_000, Just(4 << 20)],
        steps in prop::collection::vec((0_u64..4, 0_u64..30, 0_u8..10), 1..300),
    ) {
        let cache = BlockCache::new(bytes_max);
        let bytes_of = |number: u64, offset: u64| usize::try_from(number * 1_000 + offset).unwrap();
        for (number, offset, step) in steps {
            match step {
                0 => cache.forget(number),
                1..5 => cache.put(number, offset, &block(bytes_of(number, offset))),
                _ => {}
            }
            let found = cache.get(number, offset);
            if step == 0 {
                prop_assert!(found.is_none());
            }
            if let Some(found) = found {
                let expected = block(bytes_of(number, offset)).memory_bytes();
                prop_assert_eq!(found.memory_bytes(), expected);
            }
            prop_assert!(cache.bytes() <= bytes_max);
        }
        for number in 0..4 {
            cache.forget(number);
        }
        prop_assert_eq!(cache.bytes(), 0);
    }
}
