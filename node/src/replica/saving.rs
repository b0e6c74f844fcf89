//! The loop's side of saving the state: a client takes a snapshot away, piece by piece.
//!
//! The first piece is asked of the leader, which makes sure that it leads as for any read. Then
//! everything applied is flushed, and the state task answers with the first piece of that version:
//! what was acknowledged before the request is in it. Further pieces are of the same version,
//! whoever leads by then, and are asked of the same node, which keeps it for a minute after the
//! last one. A node that does not have it (any more) says so. Who does not fetch its answers gets
//! no further pieces, as with reads: one that takes each before it asks for the next holds too
//! little for that.

use super::observer::Observer;
use super::pending::{Asks, PendingRequest};
use super::shell::Replica;
use super::state::{SaveRead, Saved, StateJob};
use crate::base::Payload;
use crate::env::Env;
use crate::raft::Token;
use crate::storage::{Engine, SnapshotPoint};
use crate::wire::{RequestError, ResponseBody, SavedPiece, SavedState};

/// Most pieces that are being read. Each takes memory, and delays the flushes behind it.
const READING_COUNT_MAX: usize = 4;

/// What clients are saving.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// Pieces that the state task was asked for.
    reading_count: usize,
}

impl<E: Env, O: Observer> Replica<E, O> {
    /// Has the first piece read of a state with everything that is applied now.
    pub(super) fn begin_save(&mut self, request: PendingRequest, bytes_max: u32) {
        let tree = self.machine.engine();
        let at_least = tree.applied();
        let is_frozen = tree.frozen_through() >= at_least;
        let may_freeze = tree.may_flush() && self.flush.installing.is_none();
        let is_refused = self.is_saving_enough() || request.outbox.is_full();
        if is_refused || !(is_frozen || may_freeze) {
            crate::probe!("replica.save_is_refused");
            return self.fail(&request, RequestError::Overloaded);
        }
        let now = self.env.now();
        if !is_frozen {
            self.begin_flush(now);
        }
        let PendingRequest { outbox, id, .. } = request;
        let token = self.pending.insert(now, outbox, id, Asks::Piece);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        self.push_save(SaveRead { token, wanted: None, at_least, offset: 0, bytes_max });
    }

    /// Has a further piece read.
    pub(super) fn read_saved(
        &mut self,
        token: Token,
        wanted: SavedState,
        offset: u64,
        bytes_max: u32,
    ) {
        let is_full = self.pending.get_mut(token).is_some_and(|asked| asked.outbox.is_full());
        if self.is_saving_enough() || is_full {
            crate::probe!("replica.piece_is_refused");
            if let Some(request) = self.pending.remove(token) {
                self.fail(&request, RequestError::Overloaded);
            }
            return;
        }
        let wanted = SnapshotPoint { index: wanted.index, term: wanted.term };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let (wanted, at_least) = (Some(wanted), wanted);
        self.push_save(SaveRead { token, wanted, at_least, offset, bytes_max });
    }

    fn is_saving_enough(&self) -> bool {
        self.saving.reading_count >= READING_COUNT_MAX
    }

    fn push_save(&mut self, save: SaveRead) {
        self.saving.reading_count += 1;
        self.state.push(StateJob::Save(save));
    }

    /// Answers with a piece.
    pub(super) fn on_saved(&mut self, token: Token, saved: Saved) {
        self.saving.reading_count = self.saving.reading_count.saturating_sub(1);
        // Without an entry the request has run out of time already.
        let Some(request) = self.pending.remove(token) else { return };
        match saved {
            Saved::Piece(piece) => {
                let Ok(data) = Payload::new(piece.bytes) else {
                    return self.fail(&request, RequestError::Overloaded);
                };
                let state = SavedState { index: piece.point.index, term: piece.point.term };
                let (offset, is_last) = (piece.offset, piece.done);
                let piece = SavedPiece { state, offset, data, is_last };
                self.answer(&request, ResponseBody::Snapshot(Some(piece)));
            }
            Saved::Gone => self.answer(&request, ResponseBody::Snapshot(None)),
            Saved::DiskFull => self.fail(&request, RequestError::DiskFull),
        }
    }
}
