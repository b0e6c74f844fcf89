//! Outboxes: encoded bytes on their way to a client or a peer.
//!
//! The replica's loop encodes straight into the buffer of the connection and wakes its task,
//! which writes everything that has gathered with one call.
//!
//! # Invariants
//! 1. Bounded: a client's outbox holds the answers of at most its requests in flight, which the
//!    connection limits by not reading on; and beyond [`ANSWER_BYTES_MAX`] only short ones, besides
//!    the few pieces of snapshots that are being read by then: reads and further pieces get an
//!    error instead, and so do commands whose outcome carries a cell. All clients' outboxes
//!    together are bounded in the same way by [`ANSWERS_BYTES_MAX`]: beyond it only those get long
//!    answers that hold no more than a page, so that whoever fetches what it asks for is served
//!    beside many who do not. Short are errors, statuses (what is wrong must be seen) and outcomes
//!    without a cell; each is always given, to as many requests as may be in flight. A peer's
//!    outbox drops messages beyond [`PEER_OUTBOX_BYTES_MAX`], which the protocol treats like any
//!    lost message.
//! 2. A request is answered once. With the answer its bytes leave the count of its inbox.
//! 3. The bytes of an answer count, in its outbox and over all of them, until it is written to the
//!    connection or the outbox is gone: as long as they take up memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::inbox::{Unanswered, number};
use crate::base::Stamp;
use crate::base::limits::{ANSWERS_BYTES_MAX, PAGE_BYTES_MAX};
use crate::codec::{encode_frame, encode_into};
use crate::kv::CommandReply;
use crate::wire::{PeerMessageRef, Response, ResponseBody};

/// Bytes of answers queued for one connection after which no more long ones are given: it asks
/// faster than it takes in. A few of the longest answers.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Bytes queued for one peer after which further messages are dropped.
const PEER_OUTBOX_BYTES_MAX: usize = 32 << 20;

/// Buffers of a client's connection that grew beyond this are given back once they are empty.
pub const KEPT_BYTES_MAX: usize = 1 << 20;

/// Bytes of answers in all outboxes of an inbox.
#[derive(Debug, Default)]
pub(super) struct Unfetched(AtomicU64);

impl Unfetched {
    fn add(&self, bytes: usize) {
        self.0.fetch_add(number(bytes), Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        let before = self.0.fetch_sub(number(bytes), Ordering::Relaxed);
        assert!(before >= number(bytes), "{bytes} bytes of answers leave, of {before}");
    }

    fn is_too_much(&self) -> bool {
        self.0.load(Ordering::Relaxed) > number(ANSWERS_BYTES_MAX)
    }
}

/// Answers on their way to one client connection.
pub struct ClientOutbox {
    state: Mutex<ClientState>,
    waker: AtomicWaker,
    /// Of the inbox that the requests go to.
    unanswered: Arc<Unanswered>,
    /// Of the same inbox.
    unfetched: Arc<Unfetched>,
}

#[derive(Default)]
struct ClientState {
    bytes: Vec<u8>,
    /// How many the connection has taken and not written yet.
    taken_bytes: usize,
    /// The requests in flight, by their numbers. They are answered in about that order.
    expected: VecDeque<Expected>,
    next_number: u64,
    /// The connection is gone: nobody fetches anything.
    is_left: bool,
}

/// A request that will be answered.
struct Expected {
    number: u64,
    /// What the client calls it. Nothing keeps a client from giving two the same id.
    id: u64,
    bytes: usize,
}

impl ClientOutbox {
    pub(super) fn new(unanswered: Arc<Unanswered>, unfetched: Arc<Unfetched>) -> Self {
        Self { state: Mutex::default(), waker: AtomicWaker::new(), unanswered, unfetched }
    }

    /// Takes note of a request that will be answered here, and that the client calls `id`; returns
    /// the number to answer it by. `bytes` is what it has when it is submitted, else 0.
    pub fn expect_reply(&self, id: u64, bytes: usize) -> u64 {
        let mut state = self.lock();
        let number = state.next_number;
        state.next_number += 1;
        state.expected.push_back(Expected { number, id, bytes });
        number
    }

    /// Encodes the answer to a request, which met no stamp, and wakes the connection.
    pub fn reply(&self, number: u64, body: ResponseBody) {
        self.reply_seen(number, Stamp::ZERO, body);
    }

    /// Encodes the answer to a request, which met stamps up to `seen`, and wakes the connection.
    pub fn reply_seen(&self, number: u64, seen: Stamp, body: ResponseBody) {
        let mut state = self.lock();
        let place = state.expected.binary_search_by_key(&number, |expected| expected.number);
        let Some(request) = place.ok().and_then(|place| state.expected.remove(place)) else {
            unreachable!("an answer to request {number}, which nobody asks or which has one")
        };
        let response = Response { id: request.id, seen, body };
        let before = state.bytes.len();
        encode_frame(&mut state.bytes, |buffer| encode_into(&response, buffer));
        self.unfetched.add(state.bytes.len() - before);
        drop(state);
        self.unanswered.remove_bytes(request.bytes);
        self.waker.wake();
    }

    /// Takes note that the connection is gone.
    pub fn leave(&self) {
        self.lock().is_left = true;
    }

    /// Tells whether the connection is gone, so that nobody waits for an answer.
    pub fn is_left(&self) -> bool {
        self.lock().is_left
    }

    /// Tells whether reads, and pieces of snapshots, are to be refused rather than answered here.
    pub fn is_full(&self) -> bool {
        let state = self.lock();
        let held_bytes = state.bytes.len() + state.taken_bytes;
        let is_one_of_too_many = held_bytes > PAGE_BYTES_MAX && self.unfetched.is_too_much();
        is_one_of_too_many || state.bytes.len() > ANSWER_BYTES_MAX
    }

    /// Tells whether this outcome of a command is to be told here. One that carries no cell always
    /// is: it is as short as an error in its place.
    pub(super) fn has_room_for(&self, reply: &CommandReply) -> bool {
        !matches!(reply, CommandReply::ConditionFailed { current: Some(_), .. }) || !self.is_full()
    }

    /// Returns how many requests are unanswered, and how many bytes of answers are not written yet.
    pub fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.expected.len(), state.bytes.len() + state.taken_bytes)
    }

    /// Moves the queued answers into `into`, which must be empty: what was moved before is written.
    /// Pending if there are none; `into` keeps no more room then than small answers need.
    pub fn poll_take(&self, context: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<()> {
        assert!(into.is_empty(), "the last answers are not written");
        if into.capacity() > KEPT_BYTES_MAX {
            *into = Vec::new();
        }
        self.waker.register(context.waker());
        let mut state = self.lock();
        self.unfetched.remove(std::mem::take(&mut state.taken_bytes));
        if state.bytes.is_empty() {
            return Poll::Pending;
        }
        std::mem::swap(&mut state.bytes, into);
        state.taken_bytes = into.len();
        Poll::Ready(())
    }

    fn lock(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClientOutbox {
    fn drop(&mut self) {
        let state = self.lock();
        self.unfetched.remove(state.bytes.len() + state.taken_bytes);
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
    use crate::wire::RequestError;

    fn outbox() -> ClientOutbox {
        ClientOutbox::new(Arc::default(), Arc::default())
    }

    /// Gives an answer of about so many bytes.
    fn answer(outbox: &ClientOutbox, bytes: usize) {
        let number = outbox.expect_reply(7, 0);
        outbox.reply(number, ResponseBody::Error(RequestError::Invalid("x".repeat(bytes))));
    }

    #[test]
    fn outbox_is_full_when_answers_are_not_fetched() {
        let outbox = outbox();
        let value = Value::new(vec![7; 1 << 20]).unwrap();
        let cell = Cell { value, version: Version(1) };
        let conflict = CommandReply::ConditionFailed { position: 0, current: Some(cell.clone()) };
        for id in 0..32 {
            assert!(!outbox.is_full(), "after {id} MiB");
            assert!(outbox.has_room_for(&conflict), "after {id} MiB");
            let number = outbox.expect_reply(id, 0);
            outbox.reply(number, ResponseBody::Query(QueryReply::Cell(Some(cell.clone()))));
        }
        assert!(outbox.is_full() && !outbox.has_room_for(&conflict));
        assert!(outbox.has_room_for(&CommandReply::Applied(Version(1))), "it is short");
        let absent = CommandReply::ConditionFailed { position: 0, current: None };
        assert!(outbox.has_room_for(&absent), "it is short");
        let mut taken = Vec::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(outbox.poll_take(&mut context, &mut taken).is_ready());
        assert!(taken.len() > ANSWER_BYTES_MAX && !outbox.is_full());
        assert!(outbox.has_room_for(&conflict));
    }

    #[test]
    fn long_answers_to_all_are_bounded_beside_those_to_each() {
        let unfetched = Arc::<Unfetched>::default();
        let new = || ClientOutbox::new(Arc::default(), Arc::clone(&unfetched));
        let (hoarder, honest) = (new(), new());
        answer(&hoarder, PAGE_BYTES_MAX);
        answer(&honest, PAGE_BYTES_MAX / 2);
        assert!(!hoarder.is_full() && !honest.is_full());
        // What others hold.
        unfetched.add(ANSWERS_BYTES_MAX);
        assert!(hoarder.is_full() && !honest.is_full(), "one of them fetches its answers");
        let (mut taken, mut context) = (Vec::new(), Context::from_waker(std::task::Waker::noop()));
        assert!(hoarder.poll_take(&mut context, &mut taken).is_ready());
        assert!(hoarder.is_full(), "what is taken is not written");
        taken.clear();
        assert!(hoarder.poll_take(&mut context, &mut taken).is_pending());
        assert!(!hoarder.is_full(), "it is written");
        answer(&hoarder, PAGE_BYTES_MAX);
        assert!(hoarder.is_full());
        unfetched.remove(ANSWERS_BYTES_MAX);
        assert!(!hoarder.is_full(), "others have fetched theirs");
        drop(hoarder);
        assert!(honest.poll_take(&mut context, &mut taken).is_ready());
        assert!(unfetched.0.load(Ordering::Relaxed) > number(PAGE_BYTES_MAX / 2), "not written");
        drop(honest);
        assert_eq!(unfetched.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn outboxes_of_one_inbox_count_together() {
        let inbox = crate::replica::Inbox::new(9);
        let (first, second) = (inbox.new_outbox(), inbox.new_outbox());
        answer(&first, 3 << 20);
        answer(&second, 5 << 20);
        let queued = first.load().1 + second.load().1;
        assert!(queued > 8 << 20, "{queued}");
        assert_eq!(first.unfetched.0.load(Ordering::Relaxed), number(queued));
        drop(first);
        assert_eq!(second.unfetched.0.load(Ordering::Relaxed), number(second.load().1));
    }

    #[test]
    fn buffers_that_grew_are_given_back() {
        let outbox = outbox();
        let (mut taken, mut context) = (Vec::new(), Context::from_waker(std::task::Waker::noop()));
        for bytes in [4 << 20, 1] {
            answer(&outbox, bytes);
            assert!(outbox.poll_take(&mut context, &mut taken).is_ready());
            assert!(taken.len() > bytes, "{} bytes", taken.len());
            taken.clear();
        }
        let queued = outbox.lock().bytes.capacity();
        assert!(queued < 1 << 20 && taken.capacity() < 1 << 20, "{queued} {}", taken.capacity());
    }

    #[test]
    fn requests_are_told_apart_although_their_ids_are_the_same() {
        let outbox = outbox();
        let numbers: Vec<u64> = (0..3).map(|_| outbox.expect_reply(7, 0)).collect();
        assert_eq!(numbers, [0, 1, 2]);
        for (number, left) in [(1, 2), (0, 1), (2, 0)] {
            outbox.reply(number, ResponseBody::Snapshot(None));
            assert_eq!(outbox.load().0, left);
        }
        assert_eq!(outbox.expect_reply(7, 0), 3, "numbers are not used again");
    }
}
