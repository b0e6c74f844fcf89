//! What was pushed is found again, by every way of reading.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Entry, Kind, MemoryFile, build, open, options};
use crate::base::limits::{COLUMN_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::storage::table::{
    Compression, Found, PlaceHash, Table, TableBuilder, TableCursor, TableOptions,
};
use crate::storage::{Cell, Content};

/// Returns entries in order, with places that share much and rows that are deleted.
pub(super) fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let place = prop::collection::vec(prop_oneof![Just(0_u8), Just(255), 0_u8..4], 0..7);
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let content = (any::<bool>(), prop::option::of(prop::option::of(value)));
    let entry = (content, 0_u64..1 << 40, any::<u64>());
    prop::collection::btree_map(place, entry, 1..120).prop_map(|cells| {
        let mut entries = Vec::new();
        for (place, ((row, cell), version, other)) in cells {
            if row && (cell.is_none() || version % 4 == 0) {
                let place = place.clone();
                entries.push(Entry { place, version: other, kind: Kind::RowDeleted });
            }
            if let Some(value) = cell {
                let kind = value.map_or(Kind::Deleted, Kind::Value);
                entries.push(Entry { place, version, kind });
            }
        }
        if entries.is_empty() {
            entries.push(Entry { place: vec![7], version: 7, kind: Kind::Deleted });
        }
        entries
    })
}

pub(super) fn any_options() -> impl Strategy<Value = TableOptions> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Lz4)];
    (1_usize..400, 0_u32..12, compression).prop_map(
        |(block_bytes, bloom_bits_per_cell, compression)| TableOptions {
            block_bytes,
            bloom_bits_per_cell,
            compression,
        },
    )
}

/// Returns all entries from `place` on.
fn walk(table: &Arc<Table<MemoryFile>>, place: &[u8]) -> Vec<Entry> {
    let mut cursor = Arc::clone(table).cursor();
    cursor.seek(place).unwrap();
    let mut found = Vec::new();
    while let Some(cell) = cursor.current() {
        found.push(Entry::of(cell));
        cursor.advance().unwrap();
    }
    cursor.advance().unwrap();
    assert_eq!(cursor.current(), None, "there is nothing after the end");
    found
}

proptest! {
    #[test]
    fn table_has_what_was_pushed_and_nothing_else(
        entries in entries(),
        options in any_options(),
        others in prop::collection::vec(prop::collection::vec(0_u8..4, 0..7), 20),
    ) {
        let (bytes, meta) = build(7, &options, &entries);
        let (_, table) = open(&bytes, &meta).unwrap();
        prop_assert_eq!(walk(&table, b""), entries.clone());
        let mut cells = BTreeMap::new();
        let mut rows = BTreeMap::new();
        for Entry { place, version, kind } in entries.clone() {
            let value = match kind {
                Kind::RowDeleted => {
                    rows.insert(place, version);
                    continue;
                }
                Kind::Deleted => None,
                Kind::Value(value) => Some(value.into()),
            };
            cells.insert(place, Found { version, value });
        }
        let mut cursor = Arc::clone(&table).cursor().without_cache();
        for place in entries.iter().map(|entry| &entry.place).chain(&others) {
            let hash = PlaceHash::of(place);
            prop_assert_eq!(table.get(place, hash).unwrap(), cells.get(place).cloned());
            prop_assert_eq!(table.row_deleted(place, hash).unwrap(), rows.get(place).copied());
            let expected = entries.iter().find(|entry| entry.place >= *place);
            cursor.seek(place).unwrap();
            prop_assert_eq!(cursor.current().map(Entry::of), expected.cloned());
        }
        let verified = table.verify(0, u64::MAX).unwrap();
        prop_assert_eq!((verified.next_block, verified.bytes), (None, meta.bytes));
        prop_assert_eq!(verified.cell_count, meta.cell_count);
    }

    #[test]
    fn meta_describes_the_cells(entries in entries(), options in any_options()) {
        let (bytes, meta) = build(7, &options, &entries);
        let count = |kind: &Kind| entries.iter().filter(|entry| entry.kind == *kind).count();
        let versions = entries.iter().map(|entry| entry.version);
        prop_assert_eq!(meta.number, 7);
        prop_assert_eq!(usize::try_from(meta.bytes).unwrap(), bytes.len());
        prop_assert_eq!(usize::try_from(meta.cell_count).unwrap(), entries.len());
        prop_assert_eq!(usize::try_from(meta.tombstone_count).unwrap(), count(&Kind::Deleted));
        let rows = usize::try_from(meta.row_tombstone_count).unwrap();
        prop_assert_eq!(rows, count(&Kind::RowDeleted));
        prop_assert_eq!(Some(&meta.first), entries.first().map(|entry| &entry.place));
        prop_assert_eq!(Some(&meta.last), entries.last().map(|entry| &entry.place));
        prop_assert_eq!(Some(meta.version_min), versions.clone().min());
        prop_assert_eq!(Some(meta.version_max), versions.max());
    }
}

#[test]
fn table_is_the_same_however_its_bytes_are_taken() {
    let entries: Vec<Entry> = (0..500_u32)
        .map(|n| Entry {
            place: n.to_be_bytes().to_vec(),
            version: n.into(),
            kind: Kind::Value(vec![1; 20]),
        })
        .collect();
    let options = options(Compression::Lz4);
    let (piecewise, meta) = build(7, &options, &entries);
    let mut builder = TableBuilder::new(7, &options);
    for entry in &entries {
        builder.push(entry.cell());
    }
    assert_eq!(builder.cell_count(), 500);
    let estimate = builder.estimated_bytes();
    assert!(estimate.abs_diff(meta.bytes) < meta.bytes / 5, "{estimate} of {}", meta.bytes);
    assert_eq!(builder.finish(), (piecewise, meta));
}

#[test]
fn tables_and_cursors_may_be_used_by_any_thread() {
    fn assert_shared<T: Send + Sync + 'static>() {}
    assert_shared::<Table<MemoryFile>>();
    assert_shared::<TableCursor<MemoryFile>>();
    assert_shared::<TableBuilder>();
}

#[test]
fn cells_of_the_largest_size_fit() {
    let large = |n: u8| Entry {
        place: vec![n; 2 * KEY_BYTES_MAX + COLUMN_BYTES_MAX],
        version: u64::MAX - u64::from(n),
        kind: Kind::Value(vec![n; VALUE_BYTES_MAX]),
    };
    let entries: Vec<Entry> = (0..4).map(large).collect();
    for compression in [Compression::None, Compression::Lz4] {
        let (bytes, meta) = build(7, &options(compression), &entries);
        let (_, table) = open(&bytes, &meta).unwrap();
        assert_eq!(walk(&table, b""), entries);
        let place = &entries[3].place;
        assert!(table.get(place, PlaceHash::of(place)).unwrap().is_some());
    }
}

#[test]
fn cells_out_of_order_are_refused() {
    let row = Cell { place: b"p", version: 2, content: Content::RowDeleted };
    let cell = Cell { content: Content::Deleted, ..row };
    let before = Cell { place: b"o", ..cell };
    for (first, second) in [(cell, before), (cell, cell), (row, row), (cell, row)] {
        let refused = std::panic::catch_unwind(|| {
            let mut builder = TableBuilder::new(7, &options(Compression::None));
            builder.push(first);
            builder.push(second);
        });
        let message = refused.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("does not follow"), "{message}");
    }
}

#[test]
fn table_is_verified_in_steps() {
    let entries: Vec<Entry> =
        (0..90).map(|n| Entry { place: vec![n], version: 1, kind: Kind::Deleted }).collect();
    let (bytes, meta) = build(7, &options(Compression::None), &entries);
    let (_, table) = open(&bytes, &meta).unwrap();
    assert!(table.block_count() > 3, "{} blocks", table.block_count());
    let (mut next, mut verified_bytes, mut cell_count) = (Some(0), 0, 0);
    while let Some(from) = next {
        let verified = table.verify(from, 1).unwrap();
        verified_bytes += verified.bytes;
        cell_count += verified.cell_count;
        assert_eq!(verified.next_block.unwrap_or(table.block_count()), from + 1);
        next = verified.next_block;
    }
    assert_eq!((verified_bytes, cell_count), (meta.bytes, meta.cell_count));
}
