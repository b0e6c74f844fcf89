//! What can go wrong with a node's own files.

use crate::env::{DiskError, DiskErrorKind};

/// A failure of the node's own storage. Except for a full disk, it stops the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The disk refused an operation.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Bytes that were durable once are damaged, and the damage cannot be worked around.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// The damaged file.
        path: String,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The files were written by a newer or a foreign program.
    #[error("{path}: found {found}; what is taken is {expected}")]
    Format {
        /// The file.
        path: String,
        /// What it says it is.
        found: String,
        /// What would be understood.
        expected: &'static str,
    },
}

impl StorageError {
    /// Tells whether something that was stored is lost, as far as this shows: a copy from elsewhere
    /// may take its place. What another version wrote, and what is only out of reach, is not.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            Self::Disk(error) => error.is_loss(),
            Self::Format { .. } => false,
        }
    }

    /// Tells whether the disk is full: the one failure that passes by itself.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Disk(error) if error.kind == DiskErrorKind::NoSpace)
    }
}
