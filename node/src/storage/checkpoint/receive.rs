//! Takes another node's checkpoint, piece by piece.

use super::writer::UnfinishedFile;
use super::{Checkpoint, Loaded, load};
use crate::env::Disk;
use crate::probe;
use crate::storage::{SnapshotPoint, StorageError, Store};

/// Receives one snapshot; made by [`Checkpoints::receiver`](super::Checkpoints::receiver).
pub struct SnapshotReceiver<D: Disk> {
    point: SnapshotPoint,
    file: UnfinishedFile<D>,
}

/// A received snapshot, durable and loaded.
#[derive(Debug)]
pub struct Received<F> {
    /// For [`Checkpoints::adopt`](super::Checkpoints::adopt).
    pub checkpoint: Checkpoint<F>,
    /// Its cells.
    pub store: Store,
    /// What was captured with them.
    pub extra: Vec<u8>,
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
        Self { point, file: UnfinishedFile::new(disk, path) }
    }

    /// Returns the state that is being received.
    pub fn point(&self) -> SnapshotPoint {
        self.point
    }

    /// Returns how many bytes are stored: where the next piece begins.
    pub fn stored(&self) -> u64 {
        self.file.bytes()
    }

    /// Stores the piece that begins at `offset`; returns how many bytes are stored then.
    ///
    /// # Errors
    /// [`ReceiveError::Misplaced`] for a piece that comes twice or too early: nothing changes.
    /// After a full disk the same piece may be tried again.
    pub async fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, ReceiveError> {
        let stored = self.stored();
        if offset != stored {
            probe!("checkpoint.piece_is_misplaced");
            return Err(ReceiveError::Misplaced { stored });
        }
        self.file.append(bytes).await?;
        Ok(self.stored())
    }

    /// Verifies every bit of the snapshot and loads it; it has no name and no effect yet.
    ///
    /// # Errors
    /// It is damaged or of another state, or the disk refuses. The file is removed then.
    pub async fn verify(mut self) -> Result<VerifiedSnapshot<D>, ReceiveError> {
        let (file, path) = self.file.file().await?;
        match load(file, path).await {
            Ok(loaded) if loaded.point() == self.point => {
                Ok(VerifiedSnapshot { point: self.point, file: self.file, loaded })
            }
            Ok(loaded) => {
                let what = format!("it holds {:?} instead of {:?}", loaded.point(), self.point);
                self.file.discard().await;
                Err(ReceiveError::Damaged(what))
            }
            Err(error @ StorageError::Disk(_)) => {
                self.file.discard().await;
                Err(error.into())
            }
            Err(error @ (StorageError::Corrupt { .. } | StorageError::Format { .. })) => {
                probe!("checkpoint.received_damaged");
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
/// entries *before* the snapshot gets its name; see `replica::recovery`.
pub struct VerifiedSnapshot<D: Disk> {
    point: SnapshotPoint,
    file: UnfinishedFile<D>,
    loaded: Loaded,
}

impl<D: Disk> VerifiedSnapshot<D> {
    /// Returns the state that it holds.
    pub fn point(&self) -> SnapshotPoint {
        self.point
    }

    /// Makes it durable under its name.
    ///
    /// # Errors
    /// The disk refuses. The file is removed then.
    pub async fn install(self) -> Result<Received<D::File>, StorageError> {
        let checkpoint = self.file.publish(self.point).await?;
        Ok(Received { checkpoint, store: self.loaded.store, extra: self.loaded.extra })
    }

    /// Gives it up and removes it.
    pub async fn discard(self) {
        self.file.discard().await;
    }
}
