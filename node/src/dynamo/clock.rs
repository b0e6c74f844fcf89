//! The source of stamps.

use crate::base::Stamp;

/// Gives stamps.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Stamp,
    wall_ms: Option<u64>,
}

impl Clock {
    /// Returns what the wall clock showed last; 0 before the first time.
    pub(super) fn wall_ms(&self) -> u64 {
        self.wall_ms.unwrap_or_default()
    }

    /// Returns the latest stamp given or seen.
    pub(super) fn last(&self) -> Stamp {
        self.last
    }

    /// Takes note of a stamp that was met; false if it lies too far ahead to be believed.
    pub(super) fn observe(&mut self, stamp: Stamp) -> bool {
        self.last = self.last.max(stamp);
        true
    }
}
