//! The boundary behind which the cells are kept: what the floor above may ask of a store.
//!
//! [`crate::kv`] is the only caller. It sees an ordered map from *places*
//! (bytes, compared bytewise; [`crate::codec::keycode`] makes them) to values, each with the
//! version at which it was written. Whether the map is a tree in memory or a stack of sorted
//! files is this floor's business, so every read may fail, and a write cannot: it goes to memory.
//!
//! Versions come about in one of two ways, and a store sees one of them in all its life. The
//! state machine of the primary-backup mode writes with [`write`](Engine::write): versions are
//! positions of the log. In the masterless mode the writes of many nodes arrive in any order, each
//! with a version of its own; [`write_stamped`](Engine::write_stamped) takes them, and the raw
//! reads let the caller see what is there, tombstones included, before it writes and when it
//! compares itself with another node.
//!
//! Durability is not part of a write. The log holds every write until the engine has put the
//! state up to one log position on disk, in small steps while writes go on: see
//! [`tree`](super::tree).
//!
//! # Invariants
//! 1. The position only grows, by each write, in the same step as the changes it covers.
//! 2. What is written beats what is there: it has a greater version than anything at its place,
//!    and than its row's tombstone if it is a cell; or the same, and counts nevertheless.
//!
//! # Left out
//! Undo and old versions: a write is committed before it gets here.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::table::Found;
use super::{Cell, PurgeFloors, StorageError};
use crate::base::{Index, Term};

/// A position in the log, and by it the state after every write up to and including it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SnapshotPoint {
    /// Last log entry that the state covers; 0 for the empty state.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
}

/// What is kept at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The value, a copy of its own.
    pub value: Bytes,
    /// Log index of the write.
    pub version: u64,
}

/// All that is known of a place, tombstones included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Raw {
    /// The newest entry of the place itself, whether or not its row's tombstone hides it.
    pub newest: Option<Found>,
    /// The version of the newest tombstone of the place's row.
    pub row_deleted: Option<u64>,
}

impl Raw {
    /// Returns the newest entry of the place, unless its row's tombstone hides it.
    pub fn visible(&self) -> Option<&Found> {
        self.newest
            .as_ref()
            .filter(|newest| self.row_deleted.is_none_or(|row| newest.version >= row))
    }
}

/// One change of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Sets a cell.
    Set {
        /// Where.
        place: &'a [u8],
        /// The new value.
        value: &'a [u8],
    },
    /// Deletes a cell; deleting what is absent is fine.
    Delete {
        /// Where.
        place: &'a [u8],
    },
    /// Deletes all cells of a row that earlier writes left; fine if there are none.
    DeleteRow {
        /// What all its places begin with, and no others: see
        /// [`row_prefix`](crate::codec::keycode::row_prefix).
        row: &'a [u8],
    },
}

/// How far a scan got that may pass only so much; see [`Engine::scan_some`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passed {
    /// Bytes of all entries that it passed, whether anybody saw them or not.
    pub bytes: usize,
    /// The first place that it did not come to because that was enough. What goes on there sees
    /// what this one would have seen.
    pub next: Option<Vec<u8>>,
}

/// Called for each cell of a scan with place, value and version, until it breaks.
pub type Visitor<'v> = dyn FnMut(&[u8], &[u8], u64) -> ControlFlow<()> + 'v;

/// Called for each entry of a raw scan until it breaks.
pub type RawVisitor<'v> = dyn FnMut(Cell<'_>) -> ControlFlow<()> + 'v;

/// A store of cells; see the [module](self).
pub trait Engine {
    /// Returns what is kept at `place`.
    ///
    /// # Errors
    /// The store cannot tell. That is never "not found".
    fn get(&self, place: &[u8]) -> Result<Option<Stored>, StorageError>;

    /// Returns the version of what is kept at `place`. It may read as much as
    /// [`get`](Self::get), but copies nothing.
    ///
    /// # Errors
    /// As of [`get`](Self::get).
    fn version_of(&self, place: &[u8]) -> Result<Option<u64>, StorageError>;

    /// Visits the cells of `start..end` in order (`None`: to the end) until `visit` breaks.
    ///
    /// However few cells there are, it may pass any number of tombstones, of overwritten cells and
    /// of cells that a row's tombstone hides.
    ///
    /// # Errors
    /// Some cell of the range cannot be read; those before it may have been visited.
    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        self.scan_some(start, end, usize::MAX, visit).map(drop)
    }

    /// As [`scan`](Self::scan), but stops when it has passed `bytes_max` bytes of entries of any
    /// kind, each with an overhead, and as many more as the last place has. It passes one place at
    /// least, so who goes on where it stopped comes to the end.
    ///
    /// # Errors
    /// As of [`scan`](Self::scan).
    fn scan_some(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        bytes_max: usize,
        visit: &mut Visitor<'_>,
    ) -> Result<Passed, StorageError>;

    /// Makes the changes of the log entry `at`, in order, with its index as their version.
    ///
    /// An entry that changes nothing is written too, without changes: the position moves. No
    /// place is changed twice, and a row is deleted before its cells are set: such a deletion
    /// does not concern cells of the same entry.
    ///
    /// # Panics
    /// If `at` is not after [`applied`](Engine::applied).
    fn write(&mut self, at: SnapshotPoint, changes: &[Change<'_>]);

    /// Returns what is known of `place`, tombstones included.
    ///
    /// # Errors
    /// The store cannot tell.
    fn get_raw(&self, place: &[u8]) -> Result<Raw, StorageError>;

    /// Visits the entries of `start..end` in order (`None`: to the end) until `visit` breaks: the
    /// newest of each place, tombstones included, but nothing that its row's tombstone hides; and
    /// the newest tombstone of each row whose first place is in the range, before the row's cells.
    ///
    /// # Errors
    /// Some entry of the range cannot be read; those before it may have been visited.
    fn scan_raw(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut RawVisitor<'_>,
    ) -> Result<(), StorageError> {
        self.scan_raw_some(start, end, usize::MAX, visit).map(drop)
    }

    /// As [`scan_raw`](Self::scan_raw), but stops as [`scan_some`](Self::scan_some) does: never
    /// between two entries of one place.
    ///
    /// # Errors
    /// As of [`scan_raw`](Self::scan_raw).
    fn scan_raw_some(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        bytes_max: usize,
        visit: &mut RawVisitor<'_>,
    ) -> Result<Passed, StorageError>;

    /// Writes entries, each with its own version, in order, and moves the position to `at`.
    ///
    /// The caller has looked at what is there: see invariant 2. What belongs to one position may
    /// come in several calls, with reads in between; nothing may make the state durable there.
    ///
    /// # Panics
    /// If `at` is before [`applied`](Engine::applied), or an entry older than what memory holds.
    fn write_stamped(&mut self, at: SnapshotPoint, entries: &[Cell<'_>]);

    /// Sets which tombstones the store may forget. What they rest on must have been written to
    /// the store before, for they take effect together with it.
    fn set_purge_floors(&mut self, floors: PurgeFloors);

    /// Returns the last position written.
    fn applied(&self) -> SnapshotPoint;

    /// Returns how many cells there are; an estimate where counting would mean reading them all.
    fn cell_count(&self) -> u64;
}
