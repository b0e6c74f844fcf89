//! One sorted sequence out of many: the merge of memtables and tables, and its rule.
//!
//! Several sources may hold an entry of the same place. A [`Merge`] brings all of them in order,
//! the one that counts first: of a place, row tombstones before cells, then the highest version,
//! then the newer source. [`Visible`] makes of that what a reader sees, the live cells: the first
//! entry of a place counts, unless its row has a tombstone of a greater version; and where a
//! tombstone hides many cells, whatever is wholly older than it jumps to the end of the row. Who
//! compares stores sees the tombstones that count as well.
//!
//! What nobody sees has to be passed all the same, and there may be any amount of it: a queue whose
//! items are written and deleted leaves nothing but tombstones. So [`Visible`] counts what it
//! passes, and stops after so much, before the next place; a place has one or two entries for each
//! source.
//!
//! A row tombstone is compared by version with *every* cell of its row, whichever source that
//! lies in. So nothing depends on compactions moving a row as a whole: a row may be longer than
//! a table, and its tombstone may lie below the cells that it hides.

use std::cmp::{Ordering, Reverse};

use crate::codec::keycode;
use crate::probe;
use crate::storage::cell::head_of;
use crate::storage::{Cell, Content, Passed, StorageError};

/// Hidden cells of a row that are passed one by one before the rest of the row is jumped over.
const HIDDEN_CELLS_MAX: u32 = 8;

/// Bytes that an entry counts as passed besides its place and its value: that it has to be looked
/// for at all costs about as much as copying so many.
pub(super) const PASSED_OVERHEAD_BYTES: usize = 64;

/// Bytes that a source counts as passed when it jumps over the rest of a row: it searches a block.
const JUMP_BYTES: usize = 4 << 10;

/// A sorted sequence of entries, with a current one.
pub(super) trait Source {
    /// Returns the entry at hand; `None` after the last.
    fn current(&self) -> Option<Cell<'_>>;

    /// Goes on to the next entry.
    fn advance(&mut self) -> Result<(), StorageError>;

    /// Goes to the first entry at or after `place`, forward or back.
    fn seek(&mut self, place: &[u8]) -> Result<(), StorageError>;

    /// Returns a version that no entry of the source exceeds.
    fn version_max(&self) -> u64;
}

/// All entries of several sources in order; see the [module](self).
pub(super) struct Merge<S> {
    /// The newest source first.
    sources: Vec<S>,
    /// Sources that are not at their end, as a binary heap by their entry at hand.
    heap: Vec<Waiting>,
}

/// A source that is not at its end.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// Of the place at hand: nearly all comparisons are settled by it.
    head: u128,
    /// Which source.
    index: usize,
}

impl<S: Source> Merge<S> {
    /// Merges sources, the newest first, from where each of them stands.
    pub(super) fn new(sources: Vec<S>) -> Self {
        let mut merge = Self { heap: Vec::with_capacity(sources.len()), sources };
        merge.order();
        merge
    }

    /// Returns the entry at hand; `None` after the last.
    pub(super) fn current(&self) -> Option<Cell<'_>> {
        self.heap.first().and_then(|first| self.sources.get(first.index)?.current())
    }

    /// Goes on to the next entry.
    pub(super) fn advance(&mut self) -> Result<(), StorageError> {
        let Some(first) = self.heap.first_mut() else { return Ok(()) };
        let Some(source) = self.sources.get_mut(first.index) else { return Ok(()) };
        source.advance()?;
        match source.current() {
            Some(cell) => first.head = head_of(cell.place),
            None => {
                self.heap.swap_remove(0);
            }
        }
        self.sink(0);
        Ok(())
    }

    /// Moves the sources whose entries are all older than `version` on to `place`, unless they
    /// are past it; returns how many were moved.
    fn skip_older(&mut self, place: &[u8], version: u64) -> Result<usize, StorageError> {
        let mut moved_count = 0;
        for source in &mut self.sources {
            let is_before = source.current().is_some_and(|cell| cell.place < place);
            if is_before && source.version_max() < version {
                source.seek(place)?;
                moved_count += 1;
            }
        }
        self.order();
        Ok(moved_count)
    }

    /// Builds the heap anew.
    fn order(&mut self) {
        self.heap.clear();
        let waiting = self.sources.iter().enumerate().filter_map(|(index, source)| {
            Some(Waiting { head: head_of(source.current()?.place), index })
        });
        self.heap.extend(waiting);
        for position in (0..self.heap.len() / 2).rev() {
            self.sink(position);
        }
    }

    /// Lets the source at a position of the heap sink to where it belongs.
    fn sink(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            let right = left + 1;
            if left >= self.heap.len() {
                return;
            }
            let is_right = right < self.heap.len() && self.is_before(right, left);
            let child = if is_right { right } else { left };
            if !self.is_before(child, position) {
                return;
            }
            self.heap.swap(child, position);
            position = child;
        }
    }

    /// Tells whether the source at one position of the heap comes before that at another.
    fn is_before(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.heap.get(a), self.heap.get(b)) else { return false };
        let order = a.head.cmp(&b.head).then_with(|| self.compare(a.index, b.index));
        order == Ordering::Less
    }

    /// Compares the entries at hand of two sources by all that they are sorted by.
    fn compare(&self, a_index: usize, b_index: usize) -> Ordering {
        let at = |index: usize| self.sources.get(index)?.current();
        // One that cannot be read stands nowhere; whoever asks it to go on is told so.
        let (Some(a), Some(b)) = (at(a_index), at(b_index)) else { return Ordering::Equal };
        let order = a.order().cmp(&b.order());
        order.then_with(|| (Reverse(a.version), a_index).cmp(&(Reverse(b.version), b_index)))
    }
}

/// The newest tombstone of the row that a walk in order is in.
#[derive(Debug, Default)]
pub(super) struct RowTombstone {
    row: Vec<u8>,
    version: Option<u64>,
}

impl RowTombstone {
    /// Takes note of a tombstone; tells whether it is newer than what was known of its row.
    pub(super) fn note(&mut self, row: &[u8], version: u64) -> bool {
        if self.row != row {
            self.version = None;
            self.row.clear();
            self.row.extend_from_slice(row);
        }
        let is_news = self.version.is_none_or(|known| known < version);
        self.version = self.version.max(Some(version));
        is_news
    }

    /// Tells whether it hides a cell.
    pub(super) fn hides(&self, place: &[u8], version: u64) -> bool {
        // `row` ends with its terminator, so that no other row's places begin with it.
        self.version.is_some_and(|deleted| version < deleted) && place.starts_with(&self.row)
    }
}

/// A place that was dealt with, so that older entries of it are passed over.
#[derive(Debug, Default)]
pub(super) struct LastPlace(Option<Vec<u8>>);

impl LastPlace {
    /// Takes note of a place; tells whether it is another one than the last.
    pub(super) fn note(&mut self, place: &[u8]) -> bool {
        let last = match &mut self.0 {
            Some(last) if last == place => return false,
            last => last.get_or_insert_default(),
        };
        last.clear();
        last.extend_from_slice(place);
        true
    }
}

/// The live cells of several sources in order; see the [module](self).
pub(super) struct Visible<S> {
    merge: Merge<S>,
    tombstone: RowTombstone,
    last: LastPlace,
    end: Option<Vec<u8>>,
    /// Whether tombstones that count are visible, too.
    is_raw: bool,
    /// Bytes of entries that it may pass.
    bytes_max: usize,
    passed_bytes: usize,
    /// The place at which they were spent: the last one that it comes to.
    last_place: Option<Vec<u8>>,
}

impl<S: Source> Visible<S> {
    /// Shows what is visible of sources, the newest first, before `end`. Each of them stands at
    /// the same place; if that is within a row, `tombstone` is the row's newest in any of them.
    /// It ends early when it has passed `bytes_max` bytes.
    pub(super) fn new(
        sources: Vec<S>,
        end: Option<&[u8]>,
        tombstone: Option<(&[u8], u64)>,
        bytes_max: usize,
    ) -> Result<Self, StorageError> {
        Self::begin(sources, end, tombstone, (false, bytes_max))
    }

    /// Shows the same, and the newest tombstones of places and rows.
    pub(super) fn raw(
        sources: Vec<S>,
        end: Option<&[u8]>,
        tombstone: Option<(&[u8], u64)>,
        bytes_max: usize,
    ) -> Result<Self, StorageError> {
        Self::begin(sources, end, tombstone, (true, bytes_max))
    }

    fn begin(
        sources: Vec<S>,
        end: Option<&[u8]>,
        tombstone: Option<(&[u8], u64)>,
        (is_raw, bytes_max): (bool, usize),
    ) -> Result<Self, StorageError> {
        let mut visible = Self {
            merge: Merge::new(sources),
            tombstone: RowTombstone::default(),
            last: LastPlace::default(),
            end: end.map(<[u8]>::to_vec),
            is_raw,
            bytes_max,
            passed_bytes: 0,
            last_place: None,
        };
        if let Some((row, version)) = tombstone {
            visible.tombstone.note(row, version);
        }
        visible.settle()?;
        Ok(visible)
    }

    /// Returns the cell at hand, which has a value unless this is raw; `None` after the last.
    pub(super) fn current(&self) -> Option<Cell<'_>> {
        self.merge.current().filter(|cell| self.is_within(cell))
    }

    /// Tells how far it got, and whether it ended before everything was shown.
    pub(super) fn passed(&self) -> Passed {
        let rest = self.merge.current().filter(|cell| self.is_before_end(cell));
        let next = rest.filter(|cell| !self.is_within(cell)).map(|cell| cell.place.to_vec());
        Passed { bytes: self.passed_bytes, next }
    }

    /// Tells whether an entry is before the end, and it may be come to. What comes after that is
    /// not even looked at, for there may be any number of tombstones.
    fn is_within(&self, cell: &Cell<'_>) -> bool {
        self.is_before_end(cell) && self.last_place.as_deref().is_none_or(|last| cell.place == last)
    }

    fn is_before_end(&self, cell: &Cell<'_>) -> bool {
        self.end.as_deref().is_none_or(|end| cell.place < end)
    }

    /// Goes on to the next cell.
    pub(super) fn advance(&mut self) -> Result<(), StorageError> {
        self.pass()?;
        self.settle()
    }

    /// Goes on to the next entry, and counts the one at hand.
    fn pass(&mut self) -> Result<(), StorageError> {
        if let Some(cell) = self.merge.current() {
            let value = if let Content::Value(value) = cell.content { value.len() } else { 0 };
            let bytes = PASSED_OVERHEAD_BYTES + cell.place.len() + value;
            self.passed_bytes = self.passed_bytes.saturating_add(bytes);
            if self.passed_bytes >= self.bytes_max && self.last_place.is_none() {
                self.last_place = Some(cell.place.to_vec());
            }
        }
        self.merge.advance()
    }

    /// Passes over what is not visible.
    fn settle(&mut self) -> Result<(), StorageError> {
        let mut hidden_count = 0;
        while let Some(cell) = self.merge.current() {
            if !self.is_within(&cell) {
                return Ok(());
            }
            if cell.content == Content::RowDeleted {
                if self.tombstone.note(cell.place, cell.version) && self.is_raw {
                    return Ok(());
                }
                hidden_count = 0;
            } else if self.tombstone.hides(cell.place, cell.version) {
                hidden_count += 1;
            } else if self.last.note(cell.place)
                && (self.is_raw || cell.content != Content::Deleted)
            {
                return Ok(());
            }
            if hidden_count >= HIDDEN_CELLS_MAX {
                probe!("tree.scan_skips_a_deleted_row");
                hidden_count = 0;
                let end = keycode::row_end(&self.tombstone.row);
                let version = self.tombstone.version.unwrap_or_default();
                let moved_count = self.merge.skip_older(&end, version)?;
                self.passed_bytes = self.passed_bytes.saturating_add(moved_count * JUMP_BYTES);
            } else {
                self.pass()?;
            }
        }
        Ok(())
    }
}
