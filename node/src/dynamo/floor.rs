//! Floors.

use super::context::Context;
use super::core::DynamoStatus;
use super::placement::Partition;
use crate::base::{Instant, NodeId, Stamp};

/// The raising of floors.
#[derive(Debug, Default)]
pub(super) struct Floors {}

impl Floors {
    /// A steward tells a new floor of its partition.
    pub(super) fn on_floor(
        &mut self,
        _context: &mut Context,
        _from: NodeId,
        _partition: Partition,
        _floor: Stamp,
    ) {
    }

    /// A record is durable and applied.
    pub(super) fn on_persisted(&mut self, _context: &mut Context, _tag: u64) {}

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
