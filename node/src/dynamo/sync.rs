//! Anti-entropy.

use super::context::Context;
use super::core::DynamoStatus;
use super::floor::Floors;
use super::merkle::Trees;
use super::message::{RequestId, SyncMessage, WriteOutcome};
use super::ready::{Found, ReadId};
use crate::base::{Instant, NodeId};

/// The session that this node has begun.
#[derive(Debug, Default)]
pub(super) struct Sync {}

impl Sync {
    /// Starts.
    pub(super) fn new(_context: &Context) -> Self {
        Self::default()
    }

    /// A message of a session; of fences and floors `floors` hears directly.
    pub(super) fn on_sync_message(
        &mut self,
        _context: &mut Context,
        _trees: &mut Trees,
        _floors: &mut Floors,
        _from: NodeId,
        _message: SyncMessage,
    ) {
    }

    /// The own store answers.
    pub(super) fn on_store_read(
        &mut self,
        _context: &mut Context,
        _trees: &mut Trees,
        _floors: &mut Floors,
        _id: ReadId,
        _found: Found,
    ) {
    }

    /// The other side, or this node, answers a write of the session.
    pub(super) fn on_write_reply(
        &mut self,
        _context: &mut Context,
        _floors: &mut Floors,
        _from: NodeId,
        _id: RequestId,
        _outcome: WriteOutcome,
    ) {
    }

    /// What was in flight to a peer may be lost.
    pub(super) fn on_peer_lost(&mut self, _context: &mut Context, _peer: NodeId) {}

    /// Lets time pass.
    pub(super) fn tick(
        &mut self,
        _context: &mut Context,
        _trees: &mut Trees,
        _floors: &mut Floors,
    ) {
    }

    /// Returns when it must be ticked, if ever.
    pub(super) fn deadline(&self, _context: &Context) -> Option<Instant> {
        None
    }

    /// Checks its invariants.
    pub(super) fn check(&self, _context: &Context) {}

    /// Tells how it is.
    pub(super) fn status(&self, _status: &mut DynamoStatus) {}
}
