//! A state on its way to another node: one file of all live cells, sent in pieces.
//!
//! A follower that needs entries which the leader has cut off its log gets the leader's state
//! instead. The leader encodes a pinned [`Version`] into a file without a name, as far as the
//! pieces go that were asked for; the pieces are read from the file, so that one may be asked for
//! again. The follower collects them in a file of its own, verifies every bit, and pushes the
//! cells into [`Keeper::push_replacement`].
//!
//! ```text
//! leader     Version ─▶ SnapshotEncoder ─▶ outgoing file ─▶ read_chunk ─┐
//!                                                                       ▼ Message::SnapshotChunk
//! follower   Keeper::replace ◀─ Contents ◀─ verify ◀─ incoming file ◀─ SnapshotReceiver::append
//! ```
//!
//! The same bytes, taken away by a client, are a backup: see `replica::saving` and
//! `replica::offline`.
//!
//! Nothing in the directory outlives a start: what is left over there is removed.
//!
//! # Invariants
//! 1. The bytes are a function of the state alone: a transfer that one leader began can be
//!    continued by another that pinned the same state.
//! 2. A snapshot has an effect only after all of it is there and undamaged.
//!
//! # Left out
//! Sending only what differs from what the follower has.

pub mod format;

mod encode;
mod outgoing;
mod read;
mod receive;
#[cfg(test)]
mod tests;

pub use encode::SnapshotEncoder;
pub use read::{Contents, Summary, verify};
pub use receive::{ReceiveError, SnapshotReceiver, VerifiedSnapshot};

use std::sync::Arc;

use self::outgoing::{Outgoing, Position};
use super::tree::Version;
use super::{SnapshotPoint, StorageError};
use crate::env::{Disk, DiskErrorKind};
use crate::probe;

#[cfg(doc)]
use super::tree::Keeper;

/// The directory of the transfers within the node's own.
pub const DIRECTORY: &str = "snapshot";

/// About how many bytes are made at once for a follower that has more than was made here, from
/// another leader. Too many: flushes wait for seconds. Too few: the follower waits for a time-out
/// too often.
const APPROACH_BYTES_MAX: u64 = 32 << 20;

/// A piece of a snapshot's bytes, for a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPiece {
    /// The state that it is of.
    pub point: SnapshotPoint,
    /// Where in its bytes.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether they are the last.
    pub done: bool,
}

/// The transfers of one node; see the [module](self).
pub struct Transfers<D: Disk> {
    disk: D,
    newest: Option<Outgoing<D>>,
    /// An older one, for a transfer that began with it.
    older: Option<Outgoing<D>>,
    /// Counts the files of this run, so that no two share a name.
    file_count: u64,
}

impl<D: Disk> Transfers<D> {
    /// Opens the directory, and removes what an earlier run has left there.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn open(disk: D) -> Result<Self, StorageError> {
        disk.create_dir(DIRECTORY).await?;
        for name in disk.list(DIRECTORY).await? {
            remove_if_there(&disk, &format!("{DIRECTORY}/{name}")).await?;
        }
        Ok(Self { disk, newest: None, older: None, file_count: 0 })
    }

    /// Returns another set of transfers in the same directory, so that those who take a snapshot
    /// for other ends do not push out the followers'.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { disk: self.disk.clone(), newest: None, older: None, file_count: 0 }
    }

    /// Begins to receive the snapshot of the state at `point`. No I/O yet.
    pub fn receiver(&mut self, point: SnapshotPoint) -> SnapshotReceiver<D> {
        let path = self.next_path("incoming");
        SnapshotReceiver::new(self.disk.clone(), path, point)
    }

    /// Reads a piece of at most `bytes_max` bytes, of the snapshot `wanted` if that is still
    /// being sent, else of `current` from its beginning; `None` while the disk is full, or while
    /// the snapshot has not been made as far as `offset`: the same call brings it nearer.
    ///
    /// # Errors
    /// A table is damaged, or the disk refuses. What the file gives back is not verified here,
    /// but by who receives it.
    pub async fn read_chunk(
        &mut self,
        current: &Arc<Version<D>>,
        wanted: Option<SnapshotPoint>,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Option<SnapshotPiece>, StorageError> {
        match self.try_read_chunk(current, wanted, offset, bytes_max).await {
            Err(error) if error.is_no_space() => {
                probe!("snapshot.no_space_to_send");
                self.forget();
                Ok(None)
            }
            read => read,
        }
    }

    /// Reads a piece of at most `bytes_max` bytes of the snapshot `wanted`; `None` if that is not
    /// being sent (any more), `offset` is behind the end of all pieces so far, or the disk is full.
    ///
    /// # Errors
    /// As of [`read_chunk`](Self::read_chunk).
    pub async fn read_on(
        &mut self,
        wanted: SnapshotPoint,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Option<SnapshotPiece>, StorageError> {
        match self.try_read_on(wanted, offset, bytes_max).await {
            Err(error) if error.is_no_space() => {
                probe!("snapshot.no_space_to_go_on");
                self.forget();
                Ok(None)
            }
            read => read,
        }
    }

    async fn try_read_on(
        &mut self,
        wanted: SnapshotPoint,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Option<SnapshotPiece>, StorageError> {
        for outgoing in [&mut self.newest, &mut self.older].into_iter().flatten() {
            // Whoever reads goes on where the last piece ended. Were more made for a position far
            // ahead, one request of a stranger could have the whole state encoded.
            if outgoing.point() == wanted && outgoing.locate(offset) == Position::Within {
                return outgoing.read(offset, bytes_max).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn try_read_chunk(
        &mut self,
        current: &Arc<Version<D>>,
        wanted: Option<SnapshotPoint>,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Option<SnapshotPiece>, StorageError> {
        for outgoing in [&mut self.newest, &mut self.older].into_iter().flatten() {
            if wanted != Some(outgoing.point()) {
                continue;
            }
            match outgoing.approach(offset, APPROACH_BYTES_MAX).await? {
                Position::Within => return outgoing.read(offset, bytes_max).await.map(Some),
                Position::Ahead => {
                    probe!("snapshot.approaches_the_reader");
                    return Ok(None);
                }
                Position::Beyond => {}
            }
        }
        if wanted.is_some() {
            probe!("snapshot.transfer_starts_over");
        }
        if self.newest.as_ref().is_none_or(|newest| newest.point() != current.applied) {
            let path = self.next_path("outgoing");
            let outgoing = Outgoing::begin(&self.disk, &path, current).await?;
            let replaced = self.newest.replace(outgoing);
            // One older file at most: the one whose transfer has been going on for longer.
            let candidates = [self.older.take(), replaced];
            self.older = candidates.into_iter().flatten().find(Outgoing::is_in_use);
            if let Some(older) = &mut self.older {
                older.take_use();
            }
        }
        match &mut self.newest {
            Some(newest) => newest.read(0, bytes_max).await.map(Some),
            None => unreachable!("the snapshot of {current:?} was begun just now"),
        }
    }

    /// Lets go of the snapshot of the state at `point`, which somebody could not use; but only if
    /// all of it has been read. Before, its bytes have not been judged: its reader has no space, or
    /// has lost count, and others may be in the middle of it.
    pub fn renew(&mut self, point: SnapshotPoint) {
        for place in [&mut self.newest, &mut self.older] {
            place.take_if(|outgoing| outgoing.point() == point && outgoing.was_read());
        }
    }

    /// Lets go of all that is being sent, and with it of the tables that it is made from: the next
    /// piece begins a new file.
    pub fn forget(&mut self) {
        self.newest = None;
        self.older = None;
    }

    fn next_path(&mut self, purpose: &str) -> String {
        self.file_count += 1;
        format!("{DIRECTORY}/{purpose}-{}", self.file_count)
    }
}

/// Removes a name; fine if it is gone.
async fn remove_if_there<D: Disk>(disk: &D, path: &str) -> Result<(), StorageError> {
    match disk.remove(path).await {
        Err(error) if error.kind != DiskErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
