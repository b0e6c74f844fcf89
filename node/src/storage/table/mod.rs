//! Sorted tables: immutable files of cells in the order of their places.
//!
//! A memtable that is full, and every merge of older tables, is written down as a table by a
//! [`TableBuilder`] and read from then on by a [`Table`]: single cells with [`Table::get`], ranges
//! with a [`TableCursor`]. Nothing in a table ever changes; a newer cell stands in a newer table.
//! Which tables there are, and which of them is asked first, is not known here. Building is pure
//! (cells in, bytes out; somebody else writes them), reading is synchronous: one positioned read
//! for a block that the [`BlockCache`] does not hold, or for many blocks where all are wanted.
//!
//! A table is opened from its end: tail, meta, index and filter are read, verified, and kept in
//! memory, about 2 % of the file for cells of 116 B. A read of an absent place then ends at the
//! Bloom filter in 99 of 100 cases without touching the file; any other read finds by
//! the index the one block that may hold the place.
//!
//! The disk is not believed. Every byte of the file lies in a frame or the tail, each under a
//! checksum that is checked whenever it is read from the file; a frame also says which table and
//! which offset it was written for, so that a block that a misdirected write left here, or an
//! older file's block that a lost write left standing, is found although it is whole. What fails
//! is read once more, since a transfer may fail once; then it is [`StorageError::Corrupt`], never
//! "not found". What is verified may still be malformed in the hands of a stranger with a
//! checksum program: decoding never panics, and allocates no more than the bytes at hand justify.
//!
//! # Invariants
//! 1. Entries strictly ascend by [`Cell::order`]; the builder asserts it.
//! 2. The two entries that a place may have (its row's tombstone, then the cell) are in one block,
//!    and in one stretch between two restarts.
//! 3. Every place, and every row's tombstone on its own, is in the filter.
//! 4. The bytes are a function of number, options and cells alone.
//! 5. A number stands for the same bytes as long as a cache lives.
//!
//! # Left out
//! Index and filter in the cache: they are a fiftieth of the data, and a table whose index has to
//! be read first answers twice as late. Encryption. A dictionary for the compression of small
//! values.
//!
//! # Layout
//! Integers are little-endian; `varint` is the usual seven bits a byte, lowest first.
//! ```text
//! file     cells-frame+ │ bloom-frame │ index-frame │ meta-frame │ tail     (nothing after it)
//!
//! frame    magic 4D 54 │ kind u8 │ packing u8 │ crc u32 │ table number u64 │ offset in file u64
//!          │ packed_bytes u32 │ body_bytes u32 │ packed body        kind: 1 cells … 4 meta
//!          crc: of all of the frame but itself.      packing: 0 as it is, 1 LZ4 block
//!
//! cells    base version u64 │ entry+ │ restart u32+ │ restart_count u32
//! entry    shared varint │ suffix_bytes varint │ value_bytes × 4 + kind varint
//!          │ version varint │ suffix │ value     kind: 0 value, 1 deleted, 2 row deleted
//!          `shared` bytes of the place are those of the entry before (all that agree), 0 at a
//!          restart; every 8th entry or so is one, and `restart` is its offset in the body.
//!          The version is stored as its distance from the base (zigzag).
//! bloom    line of 64 B * │ probe_count u32                      see `bloom`
//! index    (frame_bytes u32 │ separator_bytes u32 │ separator)+  one for each cells-frame, in
//!          order; last place of the frame ≤ separator < first place of the next one
//! meta     number │ bytes │ cell_count │ tombstone_count │ row_tombstone_count │ version_min
//!          │ version_max │ bloom offset │ index offset, each u64 │ first_bytes u32 │ first │ last
//! tail     magic "MGRVTABL" │ format u32 │ meta-frame bytes u32 │ meta-frame offset u64
//!          │ table number u64 │ bytes of the file u64 │ crc u32 of the 40 bytes before
//! ```
//! The tail has this form in every format, so that a newer file is told from a damaged one.

mod block;
mod bloom;
mod builder;
mod cache;
mod cursor;
mod footer;
mod frame;
mod index;
mod reader;
mod run;
mod sample;
mod source;
mod varint;
mod verify;
mod walk;

#[cfg(test)]
mod tests;

pub use bloom::PlaceHash;
pub use builder::TableBuilder;
pub use cache::BlockCache;
pub use cursor::TableCursor;
pub use reader::{Found, Table};
pub use verify::Verified;
pub use walk::{CellRun, Piece, TableWalk, read_own_meta};

#[cfg(doc)]
use super::{Cell, StorageError};
use crate::codec::{Decode, Encode};

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// How a table is built. Readers need none of it: the file says how it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    /// Bytes of cells after which a block is closed; one cell more may exceed it.
    pub block_bytes: usize,
    /// Bits of the Bloom filter for each cell; 0 for no filter. 10 let 1 % of absent places pass.
    pub bloom_bits_per_cell: u32,
    /// How blocks are packed.
    pub compression: Compression,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { block_bytes: 4 << 10, bloom_bits_per_cell: 10, compression: Compression::None }
    }
}

/// How blocks are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// With LZ4, where that saves an eighth or more. Packing text takes twice as long as building
    /// the block (2 M cells of 116 B a second in all, against 6 M): what is soon merged again is
    /// better left as it is.
    Lz4,
}

/// What is known of a table without reading it; kept in the file itself and in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TableMeta {
    /// The number by which the table is told from all others, ever.
    pub number: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Entries of all kinds, tombstones included; at least one.
    pub cell_count: u64,
    /// Entries that are [`Content::Deleted`](super::Content::Deleted).
    pub tombstone_count: u64,
    /// Entries that are [`Content::RowDeleted`](super::Content::RowDeleted).
    pub row_tombstone_count: u64,
    /// Place of the first entry.
    pub first: Vec<u8>,
    /// Place of the last entry.
    pub last: Vec<u8>,
    /// Smallest version of an entry.
    pub version_min: u64,
    /// Largest version of an entry.
    pub version_max: u64,
}

impl TableMeta {
    /// Returns what is known of the table `number` before anything is: no entries, no versions.
    pub(in crate::storage) fn of_nothing(number: u64) -> Self {
        Self {
            number,
            bytes: 0,
            cell_count: 0,
            tombstone_count: 0,
            row_tombstone_count: 0,
            first: Vec::new(),
            last: Vec::new(),
            version_min: u64::MAX,
            version_max: 0,
        }
    }
}
