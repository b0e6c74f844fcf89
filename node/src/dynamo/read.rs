//! Reads.

use super::context::Context;
use super::core::DynamoStatus;
use super::message::{Range, ReadReply, RequestId, WriteOutcome};
use super::ready::{Found, Level, ReadId, Token};
use crate::base::{Instant, NodeId};

/// The reads that this node coordinates.
#[derive(Debug, Default)]
pub(super) struct Reads {}

impl Reads {
    /// Starts.
    pub(super) fn new(_context: &Context) -> Self {
        Self::default()
    }

    /// A client wants to read.
    pub(super) fn on_client_read(
        &mut self,
        _context: &mut Context,
        _token: Token,
        _level: Level,
        _ranges: Vec<Range>,
    ) {
    }

    /// A client does not wait any more.
    pub(super) fn on_forget(&mut self, _context: &mut Context, _token: Token) {}

    /// A peer asks what is here.
    pub(super) fn on_read_message(
        &mut self,
        _context: &mut Context,
        _from: NodeId,
        _id: RequestId,
        _ranges: Vec<Range>,
        _digest_only: bool,
    ) {
    }

    /// A replica answers a read.
    pub(super) fn on_read_reply(
        &mut self,
        _context: &mut Context,
        _from: NodeId,
        _id: RequestId,
        _reply: ReadReply,
    ) {
    }

    /// The own store answers.
    pub(super) fn on_store_read(&mut self, _context: &mut Context, _id: ReadId, _found: Found) {}

    /// A replica, perhaps this node, answers a repair.
    pub(super) fn on_write_reply(
        &mut self,
        _context: &mut Context,
        _from: NodeId,
        _id: RequestId,
        _outcome: WriteOutcome,
    ) {
    }

    /// What was in flight to a peer may be lost.
    pub(super) fn on_peer_lost(&mut self, _context: &mut Context, _peer: NodeId) {}

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
