//! What reads the state machine.

use bincode::{Decode, Encode};

use crate::base::{Column, Index, Key, Value};

/// Cells up to which a `multi_get` is read like so many `get`s, at once.
const FEW_CELLS: usize = 16;

/// When a cell was written: the log index of the command, growing over the whole store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Version(pub Index);

/// A value and when it was written.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Cell {
    /// The value.
    pub value: Value,
    /// When it was written.
    pub version: Version,
}

/// A read. Every one sees a single state of the store.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// One cell.
    Get {
        /// The key.
        key: Key,
        /// The column.
        column: Column,
    },
    /// Several cells of one state.
    MultiGet {
        /// Their places.
        cells: Vec<(Key, Column)>,
    },
    /// Columns of one key, sorted by bytes, both bounds inclusive, either open.
    Slice {
        /// The key.
        key: Key,
        /// First column.
        start: Option<Column>,
        /// Last column.
        stop: Option<Column>,
        /// At most this many columns; the store may return fewer, see `next`.
        limit: u32,
    },
    /// Keys that have at least one column, sorted by bytes.
    Keys {
        /// First key (inclusive).
        start: Option<Key>,
        /// Last key (inclusive).
        stop: Option<Key>,
        /// Only keys that begin so.
        prefix: Key,
        /// At most this many keys; the store may return fewer, see `next`.
        limit: u32,
    },
    /// Whole cells in order of (key, column), for export.
    Scan {
        /// First place (inclusive).
        start: Option<(Key, Column)>,
        /// Only keys that begin so.
        prefix: Key,
        /// At most this many cells; the store may return fewer, see `next`.
        limit: u32,
    },
}

impl Query {
    /// Tells whether it may read so much that it takes turns with others: a range, in which there
    /// may be any number of cells and tombstones, or more than a few cells.
    pub fn takes_turns(&self) -> bool {
        match self {
            Self::Get { .. } => false,
            Self::MultiGet { cells } => cells.len() > FEW_CELLS,
            Self::Slice { .. } | Self::Keys { .. } | Self::Scan { .. } => true,
        }
    }
}

/// The answer to a query. A page may be empty and yet not be the last one: only if there is no
/// `next`, there is nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum QueryReply {
    /// To `Get`.
    Cell(Option<Cell>),
    /// To `MultiGet`, in the order asked.
    Cells(Vec<Option<Cell>>),
    /// To `Slice`.
    Columns {
        /// The columns.
        columns: Vec<(Column, Cell)>,
        /// Where the next page starts, if the page was closed before the end. There need be no such
        /// column.
        next: Option<Column>,
    },
    /// To `Keys`.
    Keys {
        /// The keys.
        keys: Vec<Key>,
        /// Where the next page starts, if the page was closed before the end. There need be no such
        /// key.
        next: Option<Key>,
    },
    /// To `Scan`.
    Scanned {
        /// The cells.
        cells: Vec<(Key, Column, Cell)>,
        /// Where the next page starts, if the page was closed before the end. There need be no such
        /// cell.
        next: Option<(Key, Column)>,
    },
}
