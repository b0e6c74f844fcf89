//! The newest entries, sorted, in memory: tombstones included.
//!
//! The [`Tree`](super::Tree) writes into an active one, freezes it when it is full, and starts
//! another; a frozen one is read until a table holds its entries. It keeps the newest entry of
//! each place only: whoever wants an older state pins tables.
//!
//! An entry is one allocation for version, place and value, and beside it, in the B-tree's node,
//! the first 16 bytes of the place as one number: nearly all comparisons are settled by that
//! number, without following the pointer to the place.
//!
//! Row tombstones lie apart, in a map that is empty for nearly always. They hide what is older
//! by its version, here as in every other source, so deleting a row costs the same however long
//! it is.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, btree_map, btree_set};
use std::fmt;
use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;

use super::merge::Source;
use crate::storage::cell::head_of;
use crate::storage::{Cell, Content, StorageError};

/// Bytes of an entry besides its place and its value: the allocation's header, its share of a
/// node of the B-tree (two thirds full on average) and of the allocator.
const ENTRY_OVERHEAD_BYTES: usize = 80;

/// What the processor fetches at once.
const CACHE_LINE_BYTES: usize = 64;

/// Bytes before the place: version and length of the place.
const HEADER_BYTES: usize = 12;

/// Set in the length of the place if the entry is a tombstone.
const DELETED: u32 = 1 << 31;

/// What entries are compared by: the first bytes of the place as a number, then the place.
trait Position {
    fn head(&self) -> u128;
    fn place(&self) -> &[u8];
}

/// ```text
/// version u64 LE │ place_len u32 LE, its top bit set for a tombstone │ place │ value
/// ```
struct Entry {
    head: u128,
    bytes: Box<[u8]>,
}

/// A place that is looked for.
struct Probe<'a> {
    head: u128,
    place: &'a [u8],
}

impl Entry {
    fn new(place: &[u8], value: Option<&[u8]>, version: u64) -> Self {
        let place_len = u32::try_from(place.len()).unwrap_or(u32::MAX);
        assert!(place_len < DELETED, "place of {} bytes", place.len());
        let marked = if value.is_some() { place_len } else { place_len | DELETED };
        let value = value.unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + place.len() + value.len());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&marked.to_le_bytes());
        bytes.extend_from_slice(place);
        bytes.extend_from_slice(value);
        Self { head: head_of(place), bytes: bytes.into_boxed_slice() }
    }

    /// Takes the entry apart. The constructor sees to it that this works for every entry.
    fn cell(&self) -> Cell<'_> {
        let split = || {
            let (version, rest) = self.bytes.split_first_chunk::<8>()?;
            let (marked, rest) = rest.split_first_chunk::<4>()?;
            let marked = u32::from_le_bytes(*marked);
            let place_len = usize::try_from(marked & !DELETED).ok()?;
            let (place, value) = rest.split_at_checked(place_len)?;
            let content =
                if marked & DELETED == 0 { Content::Value(value) } else { Content::Deleted };
            Some(Cell { place, version: u64::from_le_bytes(*version), content })
        };
        split().unwrap_or(Cell { place: &[], version: 0, content: Content::Deleted })
    }

    fn is_tombstone(&self) -> bool {
        self.cell().content == Content::Deleted
    }
}

impl Position for Entry {
    fn head(&self) -> u128 {
        self.head
    }

    fn place(&self) -> &[u8] {
        self.cell().place
    }
}

impl Position for Probe<'_> {
    fn head(&self) -> u128 {
        self.head
    }

    fn place(&self) -> &[u8] {
        self.place
    }
}

fn compare(a: &(impl Position + ?Sized), b: &(impl Position + ?Sized)) -> Ordering {
    a.head().cmp(&b.head()).then_with(|| a.place().cmp(b.place()))
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl Ord for dyn Position + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialOrd for dyn Position + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Position + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn Position + '_ {}

impl<'a> Borrow<dyn Position + 'a> for Entry {
    fn borrow(&self) -> &(dyn Position + 'a) {
        self
    }
}

/// Entries sorted by place; see the [module](self).
#[derive(Default)]
pub(super) struct Memtable {
    cells: BTreeSet<Entry>,
    rows: BTreeMap<Box<[u8]>, u64>,
    bytes: usize,
    /// Values less tombstones: what this memtable adds to the number of cells if each value is
    /// at a new place, and each tombstone hides a cell.
    cell_delta: i64,
}

impl Memtable {
    /// Puts a value, or with `None` a tombstone, at a place.
    pub(super) fn put(&mut self, place: &[u8], value: Option<&[u8]>, version: u64) {
        let entry = Entry::new(place, value, version);
        self.bytes += entry.bytes.len() + ENTRY_OVERHEAD_BYTES;
        self.cell_delta += if value.is_some() { 1 } else { -1 };
        if let Some(old) = self.cells.replace(entry) {
            let newer = old.cell().version;
            assert!(newer <= version, "entry of version {version} after one of {newer}");
            self.bytes -= old.bytes.len() + ENTRY_OVERHEAD_BYTES;
            self.cell_delta -= if old.is_tombstone() { -1 } else { 1 };
        }
    }

    /// Puts a tombstone on the row that begins with `row`.
    pub(super) fn delete_row(&mut self, row: &[u8], version: u64) {
        match self.rows.insert(row.into(), version) {
            Some(newer) => assert!(newer <= version, "row deleted at {version} after {newer}"),
            None => self.bytes += row.len() + ENTRY_OVERHEAD_BYTES,
        }
    }

    /// Returns the entry at a place; row tombstones are no such entries.
    pub(super) fn get(&self, place: &[u8]) -> Option<Cell<'_>> {
        let probe = Probe { head: head_of(place), place };
        self.cells.get(&probe as &dyn Position).map(Entry::cell)
    }

    /// Returns the version of the tombstone of the row that begins with `row`.
    pub(super) fn row_deleted(&self, row: &[u8]) -> Option<u64> {
        if self.rows.is_empty() { None } else { self.rows.get(row).copied() }
    }

    /// Tells whether there is any row tombstone.
    pub(super) fn has_rows_deleted(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Returns about how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }

    /// Returns by how much it changes the number of cells, if nothing is written twice.
    pub(super) fn cell_delta(&self) -> i64 {
        self.cell_delta
    }

    /// Returns a cursor that stands on the first entry.
    pub(super) fn cursor(&self) -> MemtableCursor<'_> {
        let mut cursor = MemtableCursor {
            memtable: self,
            cells: self.cells.range::<Entry, _>(..),
            rows: self.rows.range::<[u8], _>(..),
            cell: None,
            row: None,
        };
        cursor.cell = cursor.cells.next();
        cursor.row = cursor.next_row();
        cursor
    }
}

impl fmt::Debug for Memtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cells, rows) = (self.cells.len(), self.rows.len());
        write!(f, "Memtable({cells} entries and {rows} deleted rows in {} bytes)", self.bytes)
    }
}

/// A memtable that nobody needs, to be freed bit by bit: at once, its many small allocations take
/// some ten milliseconds, which the node's loop does not have.
#[derive(Debug)]
pub(super) enum Retired {
    /// Somebody may still hold it.
    Shared(Arc<Memtable>),
    /// What is left of it.
    Rest(RestOfMemtable),
}

/// Entries that wait to be freed.
pub(super) struct RestOfMemtable(btree_set::IntoIter<Entry>);

impl Retired {
    /// Frees so many entries; returns what is left.
    pub(super) fn free_some(self, count: usize) -> Option<Self> {
        let mut rest = match self {
            Self::Shared(memtable) => match Arc::try_unwrap(memtable) {
                Ok(memtable) => RestOfMemtable(memtable.cells.into_iter()),
                Err(shared) => return Some(Self::Shared(shared)),
            },
            Self::Rest(rest) => rest,
        };
        let freed_count = rest.0.by_ref().take(count).count();
        (freed_count == count).then_some(Self::Rest(rest))
    }
}

impl fmt::Debug for RestOfMemtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries to be freed", self.0.len())
    }
}

/// Goes through the entries of a memtable in order.
pub(super) struct MemtableCursor<'a> {
    memtable: &'a Memtable,
    cells: btree_set::Range<'a, Entry>,
    rows: btree_map::Range<'a, Box<[u8]>, u64>,
    cell: Option<&'a Entry>,
    row: Option<(&'a [u8], u64)>,
}

impl<'a> MemtableCursor<'a> {
    /// Looks at the next entries once. They lie all over the memory: whoever takes them one by one
    /// waits for each, while the processor fetches many at a time that nothing waits for.
    pub(super) fn fetch(&self, count: usize) {
        for entry in self.cells.clone().take(count) {
            let lines = entry.bytes.chunks(CACHE_LINE_BYTES);
            black_box(lines.fold(0, |sum, line| sum ^ line.first().unwrap_or(&0)));
        }
    }

    fn next_row(&mut self) -> Option<(&'a [u8], u64)> {
        self.rows.next().map(|(row, version)| (&**row, *version))
    }

    /// Tells whether a row tombstone comes next: it stands before a cell of the same place.
    fn is_at_row(&self) -> bool {
        match (self.row, self.cell) {
            (Some((row, _)), Some(cell)) => row <= cell.place(),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

impl Source for MemtableCursor<'_> {
    fn current(&self) -> Option<Cell<'_>> {
        if let Some((row, version)) = self.row
            && self.is_at_row()
        {
            return Some(Cell { place: row, version, content: Content::RowDeleted });
        }
        self.cell.map(Entry::cell)
    }

    fn advance(&mut self) -> Result<(), StorageError> {
        if self.is_at_row() {
            self.row = self.next_row();
        } else {
            self.cell = self.cells.next();
        }
        Ok(())
    }

    fn seek(&mut self, place: &[u8]) -> Result<(), StorageError> {
        let probe = Probe { head: head_of(place), place };
        let start = Bound::Included(&probe as &dyn Position);
        self.cells = self.memtable.cells.range::<dyn Position, _>((start, Bound::Unbounded));
        self.rows = self.memtable.rows.range::<[u8], _>((Bound::Included(place), Bound::Unbounded));
        self.cell = self.cells.next();
        self.row = self.next_row();
        Ok(())
    }

    fn version_max(&self) -> u64 {
        u64::MAX
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Kept = (Vec<u8>, u64, Option<Vec<u8>>);

    fn kept(memtable: &Memtable, from: &[u8]) -> Vec<Kept> {
        let mut cursor = memtable.cursor();
        cursor.seek(from).unwrap();
        let mut kept = Vec::new();
        while let Some(cell) = cursor.current() {
            let value = match cell.content {
                Content::Value(value) => Some(value.to_vec()),
                Content::Deleted => None,
                Content::RowDeleted => Some(b"row".to_vec()),
            };
            kept.push((cell.place.to_vec(), cell.version, value));
            cursor.advance().unwrap();
        }
        kept
    }

    proptest! {
        #[test]
        fn entries_come_back_in_order(
            puts in prop::collection::vec(
                (prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..20),
                 prop::option::of(prop::collection::vec(any::<u8>(), 0..4))),
                0..50,
            ),
            from in prop::collection::vec(any::<u8>(), 0..3),
        ) {
            let mut memtable = Memtable::default();
            let mut model = BTreeMap::new();
            for (version, (place, value)) in (1..).zip(&puts) {
                memtable.put(place, value.as_deref(), version);
                model.insert(place.clone(), (version, value.clone()));
            }
            for (place, (version, value)) in &model {
                let content = value.as_ref().map_or(Content::Deleted, |v| Content::Value(v));
                let expected = Cell { place, version: *version, content };
                prop_assert_eq!(memtable.get(place), Some(expected));
            }
            let all = model.into_iter().filter(|(place, _)| *place >= from);
            let all = all.map(|(place, (version, value))| (place, version, value));
            let all: Vec<Kept> = all.collect();
            prop_assert_eq!(kept(&memtable, &from), all);
        }
    }

    #[test]
    fn row_tombstone_stands_before_the_cell_of_its_place() {
        let mut memtable = Memtable::default();
        memtable.put(b"a\0\0", Some(b"1"), 1);
        memtable.delete_row(b"a\0\0", 2);
        memtable.put(b"a\0\0x", None, 2);
        let expected: Vec<Kept> = vec![
            (b"a\0\0".to_vec(), 2, Some(b"row".to_vec())),
            (b"a\0\0".to_vec(), 1, Some(b"1".to_vec())),
            (b"a\0\0x".to_vec(), 2, None),
        ];
        assert_eq!(kept(&memtable, b"a"), expected);
        assert_eq!((memtable.row_deleted(b"a\0\0"), memtable.cell_delta()), (Some(2), 0));
    }

    #[test]
    fn bytes_are_those_of_what_is_kept() {
        let mut memtable = Memtable::default();
        memtable.put(b"a", Some(&[1; 100]), 1);
        let first = memtable.bytes();
        memtable.put(b"a", Some(&[2; 100]), 2);
        assert_eq!(memtable.bytes(), first);
        memtable.put(b"a", None, 3);
        assert_eq!(memtable.bytes(), first - 100);
    }
}
