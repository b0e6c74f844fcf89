//! The boundary behind which the cells are kept: what the state machine may ask of a store.
//!
//! The state machine of [`crate::kv`] is the only caller. It sees an ordered map from *places*
//! (bytes, compared bytewise; [`crate::codec::keycode`] makes them) to values, each with the
//! version at which it was written. Whether the map is a tree in memory or a stack of sorted
//! files is this floor's business, so every read may fail, and a write cannot: it goes to memory.
//!
//! Durability is not part of a write. The log holds every write until the engine has put the
//! state up to one log position on disk, in small steps while writes go on. How, differs:
//! [`Tree`](super::Tree) writes what is new as a sorted file; a [`CheckpointEngine`] writes the
//! whole state, [`begin_checkpoint`](CheckpointEngine::begin_checkpoint) and then
//! [`checkpoint_chunk`](CheckpointEngine::checkpoint_chunk) until the last one. Either way the
//! engine itself only produces bytes; somebody else writes them to the disk, so that the loop that
//! applies commands never waits for it.
//!
//! # Invariants
//! 1. The position only grows, by each write, in the same step as the changes it covers.
//! 2. A checkpoint is the state at the position where it began, whatever is written meanwhile.
//!
//! # Left out
//! Undo and old versions: a write is committed before it gets here.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::StorageError;
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

/// A piece of a checkpoint's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointChunk {
    /// The bytes that follow those of the chunk before; may be empty.
    pub bytes: Vec<u8>,
    /// On the last chunk: the state that the whole stands for.
    pub complete: Option<SnapshotPoint>,
}

/// Called for each cell of a scan with place, value and version, until it breaks.
pub type Visitor<'v> = dyn FnMut(&[u8], &[u8], u64) -> ControlFlow<()> + 'v;

/// A store of cells; see the [module](self).
pub trait Engine {
    /// Returns what is kept at `place`.
    ///
    /// # Errors
    /// The store cannot tell. That is never "not found".
    fn get(&self, place: &[u8]) -> Result<Option<Stored>, StorageError>;

    /// Visits the cells of `start..end` in order (`None`: to the end) until `visit` breaks.
    ///
    /// # Errors
    /// Some cell of the range cannot be read; those before it may have been visited.
    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError>;

    /// Makes the changes of the log entry `at`, in order, with its index as their version.
    ///
    /// An entry that changes nothing is written too, without changes: the position moves. No
    /// place is changed twice, and a row is deleted before its cells are set: such a deletion
    /// does not concern cells of the same entry.
    ///
    /// # Panics
    /// If `at` is not after [`applied`](Engine::applied).
    fn write(&mut self, at: SnapshotPoint, changes: &[Change<'_>]);

    /// Returns the last position written.
    fn applied(&self) -> SnapshotPoint;

    /// Returns how many cells there are; an estimate where counting would mean reading them all.
    fn cell_count(&self) -> u64;
}

/// A store that becomes durable as a whole, by checkpoints.
pub trait CheckpointEngine: Engine {
    /// Begins a checkpoint of the state as it is now; one that is under way is given up.
    ///
    /// `extra` is kept with the cells and comes back with them: it must belong to the same
    /// position.
    fn begin_checkpoint(&mut self, extra: Vec<u8>);

    /// Returns the next bytes of the checkpoint under way, about `bytes_max` of them (one large
    /// cell more may exceed it); `None` if no checkpoint is under way.
    ///
    /// Bounded work, too: a chunk may be short, even empty, without being the last.
    fn checkpoint_chunk(&mut self, bytes_max: usize) -> Option<CheckpointChunk>;

    /// Gives up the checkpoint under way, if any.
    fn abort_checkpoint(&mut self);
}
