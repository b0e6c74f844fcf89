//! Whether there is space on the disk.

use tracing::{info, warn};

use crate::base::NodeId;

/// Who has no space on the disk.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct DiskFull {
    /// For the log: what is to be made durable waits.
    pub(super) log: bool,
    /// For tables.
    pub(super) tables: bool,
}

impl DiskFull {
    pub(super) fn any(self) -> bool {
        self.log || self.tables
    }

    /// Takes over how it is now, and tells the operator of `node` if that is news.
    pub(super) fn set(&mut self, now: Self, node: NodeId) {
        match (self.any(), now.any()) {
            (false, true) => warn!(%node, "the disk is full: writes are refused"),
            (true, false) => info!(%node, "the disk has space again"),
            (false, false) | (true, true) => {}
        }
        *self = now;
    }
}
