//! Takes another node's state, piece by piece.

use bytes::Bytes;

use super::read::{Contents, Summary, verify};
use super::remove_if_there;
use crate::env::{Disk, File};
use crate::probe;
use crate::storage::{SnapshotPoint, StorageError};

/// Receives one snapshot; made by [`Transfers::receiver`](super::Transfers::receiver).
pub struct SnapshotReceiver<D: Disk> {
    point: SnapshotPoint,
    file: IncomingFile<D>,
}

/// A piece or a whole snapshot was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The piece does not begin where the one before it ended.
    #[error("{stored} bytes of the snapshot are stored: go on from there")]
    Misplaced {
        /// Bytes that are stored.
        stored: u64,
    },
    /// The snapshot is not what it should be; what was received of it is thrown away.
    #[error("the received snapshot cannot be used: {0}")]
    Damaged(String),
    /// The own disk refuses. Except for a full one, it stops the node.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl<D: Disk> SnapshotReceiver<D> {
    pub(super) fn new(disk: D, path: String, point: SnapshotPoint) -> Self {
        Self { point, file: IncomingFile { disk, path, file: None, bytes: 0 } }
    }

    /// Returns the state that is being received.
    pub fn point(&self) -> SnapshotPoint {
        self.point
    }

    /// Returns how many bytes are stored: where the next piece begins.
    pub fn stored(&self) -> u64 {
        self.file.bytes
    }

    /// Stores the piece that begins at `offset`; returns how many bytes are stored then.
    ///
    /// # Errors
    /// [`ReceiveError::Misplaced`] for a piece that comes twice or too early: nothing changes.
    /// After a full disk the same piece may be tried again.
    pub async fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, ReceiveError> {
        let stored = self.stored();
        if offset != stored {
            probe!("snapshot.piece_is_misplaced");
            return Err(ReceiveError::Misplaced { stored });
        }
        self.file.append(bytes).await?;
        Ok(self.stored())
    }

    /// Verifies every bit of the snapshot; it has no effect yet.
    ///
    /// # Errors
    /// It is damaged or of another state, or the disk refuses. The file is removed then.
    pub async fn verify(mut self) -> Result<VerifiedSnapshot<D>, ReceiveError> {
        let (file, path) = self.file.file().await?;
        match verify(file, path).await {
            Ok(summary) if summary.point == self.point => {
                Ok(VerifiedSnapshot { file: self.file, summary })
            }
            Ok(summary) => {
                let what = format!("it holds {:?} instead of {:?}", summary.point, self.point);
                self.file.discard().await;
                Err(ReceiveError::Damaged(what))
            }
            Err(error @ StorageError::Disk(_)) => {
                self.file.discard().await;
                Err(error.into())
            }
            Err(error @ (StorageError::Corrupt { .. } | StorageError::Format { .. })) => {
                probe!("snapshot.received_damaged");
                self.file.discard().await;
                Err(ReceiveError::Damaged(error.to_string()))
            }
        }
    }

    /// Gives the transfer up and removes what was received.
    pub async fn discard(self) {
        self.file.discard().await;
    }
}

/// A whole, undamaged snapshot, not installed yet.
///
/// The two steps are apart because the log has to say that a snapshot is about to replace its
/// entries *before* it does; see `replica::recovery`.
pub struct VerifiedSnapshot<D: Disk> {
    file: IncomingFile<D>,
    summary: Summary,
}

impl<D: Disk> VerifiedSnapshot<D> {
    /// Returns the state that it holds.
    pub fn point(&self) -> SnapshotPoint {
        self.summary.point
    }

    /// Returns what was captured with the cells.
    pub fn extra(&self) -> &Bytes {
        &self.summary.extra
    }

    /// Returns its cells, from the first on.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn contents(&mut self) -> Result<Contents<'_, D::File>, StorageError> {
        let (file, path) = self.file.file().await?;
        Contents::open(file, path)
    }

    /// Removes it: it has been installed, or given up.
    pub async fn discard(self) {
        self.file.discard().await;
    }
}

/// The file that pieces are collected in.
struct IncomingFile<D: Disk> {
    disk: D,
    path: String,
    file: Option<D::File>,
    bytes: u64,
}

impl<D: Disk> IncomingFile<D> {
    /// Returns the file with its path, creating it if need be.
    async fn file(&mut self) -> Result<(&D::File, &str), StorageError> {
        if self.file.is_none() {
            self.file = Some(self.disk.create(&self.path).await?);
        }
        match &self.file {
            Some(file) => Ok((file, &self.path)),
            None => unreachable!("{} was created just now", self.path),
        }
    }

    /// Appends bytes; repeating it after a failure is safe.
    async fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let offset = self.bytes;
        self.file().await?.0.write_at(offset, bytes).await?;
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Removes the file. Failing to is of no consequence: the next start removes it.
    async fn discard(mut self) {
        if self.file.take().is_none() {
            return;
        }
        if let Err(error) = remove_if_there(&self.disk, &self.path).await {
            tracing::warn!(path = self.path, %error, "a received snapshot stays for now");
        }
    }
}
