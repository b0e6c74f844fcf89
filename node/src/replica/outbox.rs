//! Outboxes: encoded bytes on their way to a client or a peer.
//!
//! The replica's loop encodes straight into the buffer of the connection and wakes its task,
//! which writes everything that has gathered with one call.
//!
//! # Invariants
//! 1. Bounded: a client's outbox holds the answers of at most its requests in flight, which the
//!    connection limits by not reading on, and beyond [`ANSWER_BYTES_MAX`] reads are refused
//!    instead of answered; a peer's outbox drops messages beyond
//!    [`PEER_OUTBOX_BYTES_MAX`], which the protocol treats like any lost message.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::base::Stamp;
use crate::codec::{encode_frame, encode_into};
use crate::wire::{PeerMessageRef, Response, ResponseBody};

/// Bytes of answers queued for one connection after which its reads are refused: it asks faster
/// than it takes in. A few of the longest answers.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Bytes queued for one peer after which further messages are dropped.
const PEER_OUTBOX_BYTES_MAX: usize = 32 << 20;

/// Answers on their way to one client connection.
#[derive(Default)]
pub struct ClientOutbox {
    state: Mutex<ClientState>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct ClientState {
    bytes: Vec<u8>,
    in_flight: usize,
}

impl ClientOutbox {
    /// Counts a request that will be answered here.
    pub fn expect_reply(&self) {
        self.lock().in_flight += 1;
    }

    /// Encodes the answer to request `id`, which met no stamp, and wakes the connection.
    pub fn reply(&self, id: u64, body: ResponseBody) {
        self.reply_seen(id, Stamp::ZERO, body);
    }

    /// Encodes the answer to request `id`, which met stamps up to `seen`, and wakes the
    /// connection.
    pub fn reply_seen(&self, id: u64, seen: Stamp, body: ResponseBody) {
        let mut state = self.lock();
        assert!(state.in_flight > 0, "an answer to request {id} that nobody asked");
        state.in_flight -= 1;
        let response = Response { id, seen, body };
        encode_frame(&mut state.bytes, |buffer| encode_into(&response, buffer));
        drop(state);
        self.waker.wake();
    }

    /// Tells whether reads are to be refused rather than answered here.
    pub fn is_full(&self) -> bool {
        self.lock().bytes.len() > ANSWER_BYTES_MAX
    }

    /// Returns how many requests are unanswered and how many bytes of answers are queued.
    pub fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.in_flight, state.bytes.len())
    }

    /// Moves the queued answers into `into`, which must be empty; pending if there are none.
    pub fn poll_take(&self, context: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<()> {
        assert!(into.is_empty(), "the last answers are not written");
        self.waker.register(context.waker());
        let mut state = self.lock();
        if state.bytes.is_empty() {
            return Poll::Pending;
        }
        std::mem::swap(&mut state.bytes, into);
        Poll::Ready(())
    }

    fn lock(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages on their way to one peer.
#[derive(Default)]
pub struct PeerOutbox {
    state: Mutex<PeerState>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct PeerState {
    bytes: Vec<u8>,
    connected: bool,
    closed: bool,
}

impl PeerOutbox {
    /// Encodes a message, or drops it when the peer is not connected or too far behind.
    pub fn send(&self, message: PeerMessageRef<'_>) {
        let mut state = self.lock();
        if !state.connected {
            return;
        }
        if state.bytes.len() > PEER_OUTBOX_BYTES_MAX {
            crate::probe!("replica.peer_message_dropped");
            return;
        }
        encode_frame(&mut state.bytes, |buffer| encode_into(&message, buffer));
        drop(state);
        self.waker.wake();
    }

    /// Starts or stops taking messages; either way, drops the ones that are queued.
    pub fn set_connected(&self, connected: bool) {
        let mut state = self.lock();
        state.connected = connected;
        state.bytes = Vec::new();
    }

    /// Ends the outbox: its connection task stops.
    pub fn close(&self) {
        self.lock().closed = true;
        self.waker.wake();
    }

    /// Tells whether the outbox has ended.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Moves the queued bytes into `into`, which must be empty; pending if there are none and
    /// the outbox is open.
    pub fn poll_take(&self, context: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<()> {
        assert!(into.is_empty(), "the last messages are not written");
        self.waker.register(context.waker());
        let mut state = self.lock();
        if state.bytes.is_empty() && !state.closed {
            return Poll::Pending;
        }
        std::mem::swap(&mut state.bytes, into);
        Poll::Ready(())
    }

    fn lock(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Value;
    use crate::kv::{Cell, QueryReply, Version};

    #[test]
    fn outbox_is_full_when_answers_are_not_fetched() {
        let outbox = ClientOutbox::default();
        let value = Value::new(vec![7; 1 << 20]).unwrap();
        let cell = Cell { value, version: Version(1) };
        for id in 0..32 {
            assert!(!outbox.is_full(), "after {id} MiB");
            outbox.expect_reply();
            outbox.reply(id, ResponseBody::Query(QueryReply::Cell(Some(cell.clone()))));
        }
        assert!(outbox.is_full());
        let mut taken = Vec::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(outbox.poll_take(&mut context, &mut taken).is_ready());
        assert!(taken.len() > ANSWER_BYTES_MAX && !outbox.is_full());
    }
}
