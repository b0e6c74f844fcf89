//! A snapshot that is being sent: a file without a name, written as far as it was asked for.

use std::sync::Arc;

use super::{SnapshotEncoder, SnapshotPiece};
use crate::env::{Disk, File};
use crate::storage::tree::Version;
use crate::storage::{SnapshotPoint, StorageError, let_others_run};

/// Where a position in the bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// In what is in the file, or right behind it.
    Within,
    /// In what is still to be made, perhaps.
    Ahead,
    /// Behind the end of the snapshot.
    Beyond,
}

/// See the [module](self).
pub(super) struct Outgoing<D: Disk> {
    point: SnapshotPoint,
    path: String,
    file: D::File,
    /// Bytes in the file.
    bytes: u64,
    /// Makes the rest of it, and pins the tables until there is none.
    encoder: Option<SnapshotEncoder<D>>,
    is_in_use: bool,
    /// Somebody read the last piece.
    was_read: bool,
}

impl<D: Disk> Outgoing<D> {
    /// Begins the snapshot of a version.
    pub(super) async fn begin(
        disk: &D,
        path: &str,
        version: &Arc<Version<D>>,
    ) -> Result<Self, StorageError> {
        let file = disk.create(path).await?;
        // An open file needs no name, and what has none need not be cleared away.
        super::remove_if_there(disk, path).await?;
        let encoder = Some(SnapshotEncoder::begin(version)?);
        let point = version.applied;
        let (path, is_in_use, was_read) = (path.to_owned(), false, false);
        Ok(Self { point, path, file, bytes: 0, encoder, is_in_use, was_read })
    }

    /// Returns the state that it is of.
    pub(super) fn point(&self) -> SnapshotPoint {
        self.point
    }

    /// Tells whether somebody read from it since [`take_use`](Self::take_use).
    pub(super) fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    /// Tells whether somebody has read all of it.
    pub(super) fn was_read(&self) -> bool {
        self.was_read
    }

    /// Forgets that somebody read from it.
    pub(super) fn take_use(&mut self) {
        self.is_in_use = false;
    }

    /// Tells where `offset` is.
    pub(super) fn locate(&self, offset: u64) -> Position {
        if offset <= self.bytes {
            Position::Within
        } else if self.encoder.is_some() {
            Position::Ahead
        } else {
            Position::Beyond
        }
    }

    /// Makes more bytes if `offset` is ahead, about `bytes_max` of them; tells where it is then.
    pub(super) async fn approach(
        &mut self,
        offset: u64,
        bytes_max: u64,
    ) -> Result<Position, StorageError> {
        self.is_in_use = true;
        self.reach(offset.min(self.bytes.saturating_add(bytes_max))).await?;
        Ok(self.locate(offset))
    }

    /// Makes the bytes before `end`, if there are so many.
    async fn reach(&mut self, end: u64) -> Result<(), StorageError> {
        let mut block = Vec::new();
        while self.bytes < end
            && let Some(encoder) = &mut self.encoder
        {
            block.clear();
            if encoder.step(&mut block)? {
                self.encoder = None;
            }
            self.file.write_at(self.bytes, &block).await?;
            self.bytes += u64::try_from(block.len()).unwrap_or(u64::MAX);
            let_others_run().await;
        }
        Ok(())
    }

    /// Reads a piece from [within](Position::Within).
    pub(super) async fn read(
        &mut self,
        offset: u64,
        bytes_max: usize,
    ) -> Result<SnapshotPiece, StorageError> {
        self.is_in_use = true;
        let wanted = u64::try_from(bytes_max.max(1)).unwrap_or(u64::MAX);
        // One byte more tells whether there is more.
        self.reach(offset.saturating_add(wanted).saturating_add(1)).await?;
        let len = self.bytes.saturating_sub(offset).min(wanted);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let read = self.file.read_at(offset, &mut bytes)?;
        if read != bytes.len() {
            let what = format!("{read} bytes instead of {len}");
            return Err(StorageError::Corrupt { path: self.path.clone(), offset, what });
        }
        let done = self.encoder.is_none() && offset + len == self.bytes;
        self.was_read |= done;
        Ok(SnapshotPiece { point: self.point, offset, bytes, done })
    }
}
