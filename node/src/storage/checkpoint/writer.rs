//! Files that become checkpoints: written under a temporary name, then published.

use super::{Checkpoint, DIRECTORY, Name, remove_if_there, remove_superseded};
use crate::env::{Disk, File};
use crate::planted;
use crate::storage::{SnapshotPoint, StorageError};

/// Writes a checkpoint of the own state; made by [`Checkpoints::writer`](super::Checkpoints).
///
/// On any error the caller gives it up with [`discard`](Self::discard). If the error is a full
/// disk that is all; any other stops the node.
pub struct CheckpointWriter<D: Disk> {
    file: UnfinishedFile<D>,
}

impl<D: Disk> CheckpointWriter<D> {
    pub(super) fn new(disk: D, path: String) -> Self {
        Self { file: UnfinishedFile::new(disk, path) }
    }

    /// Appends bytes of the checkpoint.
    ///
    /// # Errors
    /// The disk refuses; the bytes may be there partly.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.append(bytes).await
    }

    /// Makes the checkpoint durable under its name, then removes older ones.
    ///
    /// `point` is what came with the last chunk.
    ///
    /// # Errors
    /// The disk refuses. The file is then removed as far as that is possible.
    pub async fn finish(self, point: SnapshotPoint) -> Result<Checkpoint<D::File>, StorageError> {
        self.file.publish(point).await
    }

    /// Removes the unfinished file.
    pub async fn discard(self) {
        self.file.discard().await;
    }
}

/// A file that has no final name yet.
pub(super) struct UnfinishedFile<D: Disk> {
    disk: D,
    path: String,
    file: Option<D::File>,
    bytes: u64,
}

impl<D: Disk> UnfinishedFile<D> {
    pub(super) fn new(disk: D, path: String) -> Self {
        Self { disk, path, file: None, bytes: 0 }
    }

    /// Returns how many bytes were appended.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the file with its path, creating it if need be.
    pub(super) async fn file(&mut self) -> Result<(&D::File, &str), StorageError> {
        if self.file.is_none() {
            self.file = Some(self.disk.create(&self.path).await?);
        }
        match &self.file {
            Some(file) => Ok((file, &self.path)),
            None => unreachable!("{} was created just now", self.path),
        }
    }

    /// Appends bytes; repeating it after a failure is safe.
    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let offset = self.bytes;
        self.file().await?.0.write_at(offset, bytes).await?;
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Gives the file its final name, all of it durable, then removes what it supersedes.
    pub(super) async fn publish(
        mut self,
        point: SnapshotPoint,
    ) -> Result<Checkpoint<D::File>, StorageError> {
        match self.make_durable(point).await {
            Ok(file) => Ok(Checkpoint { point, bytes: self.bytes, file }),
            Err(error) => {
                self.discard().await;
                Err(error)
            }
        }
    }

    async fn make_durable(&mut self, point: SnapshotPoint) -> Result<D::File, StorageError> {
        let (file, path) = self.file().await?;
        if !planted!("W5") {
            file.sync().await?;
        }
        let path = path.to_owned();
        self.disk.rename(&path, &Name::whole(point).path()).await?;
        self.disk.sync_dir(DIRECTORY).await?;
        remove_superseded(&self.disk, point).await?;
        match self.file.take() {
            Some(file) => Ok(file),
            None => unreachable!("{path} was synced just now"),
        }
    }

    /// Removes the file. Failing to is of no consequence: the next start removes it.
    pub(super) async fn discard(mut self) {
        if self.file.take().is_none() {
            return;
        }
        if let Err(error) = remove_if_there(&self.disk, &self.path).await {
            tracing::warn!(path = self.path, %error, "an unfinished checkpoint stays for now");
        }
    }
}
