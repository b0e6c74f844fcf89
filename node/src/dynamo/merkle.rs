//! Merkle trees.

use super::context::Context;
use super::core::DynamoStatus;
use super::placement::Partition;
use super::ready::{Found, ReadId};
use crate::base::Instant;

/// The trees of the partitions that this node holds.
#[derive(Debug, Default)]
pub(super) struct Trees {}

impl Trees {
    /// Applying changed leaves.
    pub(super) fn on_applied(
        &mut self,
        _context: &mut Context,
        _deltas: Vec<(Partition, u16, u64)>,
    ) {
    }

    /// The own store answers.
    pub(super) fn on_store_read(&mut self, _context: &mut Context, _id: ReadId, _found: Found) {}

    /// Lets time pass.
    pub(super) fn tick(&mut self, _context: &mut Context) {}

    /// Returns when it must be ticked, if ever.
    pub(super) fn deadline(&self, _context: &Context) -> Option<Instant> {
        None
    }

    /// Checks its invariants.
    pub(super) fn check(&self, _context: &Context) {}

    /// Tells how it is.
    pub(super) fn status(&self, _status: &mut DynamoStatus) {}
}
