//! Floors.

use super::context::Context;
use super::core::DynamoStatus;
use super::merkle::Trees;
use super::message::SyncMessage;
use super::ready::Recovered;
use crate::base::{Instant, NodeId, Stamp};
use crate::planted;

/// Tells whether a write of that stamp was on every replica once: where it is not any more, it
/// was deleted.
pub(super) fn is_under(stamp: Stamp, floor: Stamp) -> bool {
    stamp <= floor && !planted!("D51")
}

/// The raising of floors.
#[derive(Debug, Default)]
pub(super) struct Floors {}

impl Floors {
    /// Starts with what the node remembers.
    pub(super) fn new(_context: &mut Context, _recovered: &Recovered) -> Self {
        Self::default()
    }

    /// A message about fences and floors.
    pub(super) fn on_sync_message(
        &mut self,
        _context: &mut Context,
        _low_water: Stamp,
        _from: NodeId,
        _message: SyncMessage,
    ) {
    }

    /// A record is durable and applied.
    pub(super) fn on_persisted(&mut self, _context: &mut Context, _tag: u64) {}

    /// Lets time pass.
    pub(super) fn tick(&mut self, _context: &mut Context, _trees: &Trees, _low_water: Stamp) {}

    /// Returns when it must be ticked, if ever.
    pub(super) fn deadline(&self, _context: &Context) -> Option<Instant> {
        None
    }

    /// Checks its invariants.
    pub(super) fn check(&self, _context: &Context) {}

    /// Tells how it is.
    pub(super) fn status(&self, _status: &mut DynamoStatus) {}
}
