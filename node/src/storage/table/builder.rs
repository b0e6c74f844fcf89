//! Turns cells, in order, into the bytes of a table.
//!
//! Pure: whoever calls takes the bytes that are complete from time to time and writes them one
//! behind the other, so that a table of any size is built in bounded memory, but for eight bytes a
//! cell for the filter and the index.

use std::fmt;
use std::mem;

use super::block::BlockBuilder;
use super::bloom::{Bloom, PlaceHash};
use super::footer::{self, Sections, Tail};
use super::frame::{Home, Kind, Sealer};
use super::index::IndexBuilder;
use super::{Compression, TableMeta, TableOptions};
use crate::storage::{Cell, Content};

/// Builds a table; see the [module](super).
pub struct TableBuilder {
    options: TableOptions,
    /// What is known so far; `bytes` is how long the sealed frames are together.
    meta: TableMeta,
    /// Complete bytes that nobody has taken yet.
    bytes: Vec<u8>,
    block: BlockBuilder,
    index: IndexBuilder,
    hashes: Vec<PlaceHash>,
    sealer: Sealer,
    /// Whether the last entry is a row's tombstone, which a cell of the same place may follow.
    after_row: bool,
}

impl TableBuilder {
    /// Begins the table `number`.
    pub fn new(number: u64, options: &TableOptions) -> Self {
        Self {
            options: *options,
            meta: TableMeta::of_nothing(number),
            bytes: Vec::new(),
            block: BlockBuilder::default(),
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            sealer: Sealer::new(options.compression),
            after_row: false,
        }
    }

    /// Appends an entry.
    ///
    /// # Panics
    /// If it does not come after the last one by [`Cell::order`].
    pub fn push(&mut self, cell: Cell<'_>) {
        let is_row = cell.content == Content::RowDeleted;
        let shared = self.block.shared(cell.place);
        let same_place = self.assert_order(&cell, is_row, shared);
        if self.block.len() >= self.options.block_bytes && !same_place {
            self.seal_block(Some(cell.place));
        }
        if self.meta.cell_count == 0 {
            self.meta.first = cell.place.to_vec();
        }
        let hash = PlaceHash::of(cell.place);
        self.hashes.push(if is_row { hash.of_row() } else { hash });
        self.block.push(&cell, shared);
        self.after_row = is_row;
        self.meta.cell_count += 1;
        self.meta.tombstone_count += u64::from(cell.content == Content::Deleted);
        self.meta.row_tombstone_count += u64::from(is_row);
        self.meta.version_min = self.meta.version_min.min(cell.version);
        self.meta.version_max = self.meta.version_max.max(cell.version);
    }

    /// Tells whether the entry, whose place shares so many bytes with the last one, has the same.
    fn assert_order(&self, cell: &Cell<'_>, is_row: bool, shared: usize) -> bool {
        if self.meta.cell_count == 0 {
            return false;
        }
        let last = self.block.last();
        let (rest, last_rest) = (cell.place.get(shared), last.get(shared));
        let same_place = rest.is_none() && last_rest.is_none();
        // Neither has the same byte there, and a place comes after all that it begins with.
        let follows = if same_place { self.after_row && !is_row } else { rest > last_rest };
        assert!(follows, "{:?} does not follow {last:?}", cell.place);
        same_place
    }

    /// Returns the place of the last entry pushed; empty before the first.
    pub fn last_place(&self) -> &[u8] {
        self.block.last()
    }

    fn home(&self) -> Home {
        Home { number: self.meta.number, offset: self.meta.bytes }
    }

    /// Completes the block; `next` is the place after it.
    fn seal_block(&mut self, next: Option<&[u8]>) {
        let home = self.home();
        let (sealer, bytes) = (&mut self.sealer, &mut self.bytes);
        let frame_bytes = self.block.finish(|body| sealer.seal(Kind::Cells, home, body, bytes));
        self.index.push(frame_bytes, self.block.last(), next);
        self.meta.bytes += u64::from(frame_bytes);
    }

    /// Returns the bytes that are complete, to be written behind those taken before.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        // The next ones will be about as many.
        let next = Vec::with_capacity(self.bytes.len());
        mem::replace(&mut self.bytes, next)
    }

    /// Returns about how long the file would be if it were finished now.
    pub fn estimated_bytes(&self) -> u64 {
        let index = to_u64(self.index.body().len());
        let filter = self.meta.cell_count * u64::from(self.options.bloom_bits_per_cell) / 8;
        self.meta.bytes + to_u64(self.block.len()) + index + filter
    }

    /// Returns how many entries were pushed.
    pub fn cell_count(&self) -> u64 {
        self.meta.cell_count
    }

    /// Completes the table: returns the bytes that were not taken, and what it has become.
    ///
    /// # Panics
    /// If no entry was pushed: a table of none has no first place.
    pub fn finish(mut self) -> (Vec<u8>, TableMeta) {
        assert!(self.meta.cell_count > 0, "table {} of no cells", self.meta.number);
        if self.block.len() > 0 {
            self.seal_block(None);
        }
        self.meta.last = self.block.last().to_vec();
        let mut plain = Sealer::new(Compression::None);

        let bloom = self.meta.bytes;
        let filter = Bloom::new(&self.hashes, self.options.bloom_bits_per_cell).encode();
        let sealed = plain.seal(Kind::Bloom, self.home(), &filter, &mut self.bytes);
        self.meta.bytes += u64::from(sealed);

        let index = self.meta.bytes;
        let home = self.home();
        let sealed = self.sealer.seal(Kind::Index, home, self.index.body(), &mut self.bytes);
        self.meta.bytes += u64::from(sealed);

        let sections = Sections { bloom, index, meta: self.meta.bytes };
        let home = self.home();
        self.meta.bytes = footer::file_bytes(sections.meta, &self.meta);
        let body = footer::encode_meta(&self.meta, &sections);
        let sealed = plain.seal(Kind::Meta, home, &body, &mut self.bytes);
        let tail = Tail::new(&self.meta, sealed, sections.meta).encode();
        self.bytes.extend_from_slice(&tail);
        let end = sections.meta + u64::from(sealed) + to_u64(tail.len());
        assert!(end == self.meta.bytes, "a table of {end} bytes, not {}", self.meta.bytes);
        (self.bytes, self.meta)
    }
}

impl fmt::Debug for TableBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, meta, .. } = self;
        f.debug_struct("TableBuilder").field("options", options).field("meta", meta).finish()
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
