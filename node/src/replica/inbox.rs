//! The replica's inbox: everything that happens to a replica arrives here, in batches.
//!
//! Connections, the log task and the state task push; the replica's loop takes all that has
//! arrived with one swap. So a busy loop sees large batches, which become one disk write, one
//! message per follower and one wake-up per connection: the batching of the hot path starts here.
//!
//! # Invariants
//! 1. Bounded: requests are admitted up to a number, and up to [`REQUESTS_BYTES_MAX`] (beyond
//!    either they are answered `Overloaded` at once); a peer's reader waits while more than
//!    [`PEER_BYTES_MAX`] of messages are queued.
//! 2. A request counts from its admission to its answer, wherever it waits in between. Its bytes
//!    are taken off by the outbox that gets the answer, which gets exactly one.
//! 3. Long requests that have begun to arrive take [`PARTIAL_REQUESTS_BYTES_MAX`] at most: each has
//!    room for what is missing of it, until it is whole or its connection ends.
//! 4. Once closed, nothing is accepted and every waiter is woken.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};

use super::outbox::{ClientOutbox, Unfetched};
use super::persist::PersistEvent;
use super::state::StateEvent;
use crate::base::NodeId;
use crate::base::limits::{PARTIAL_REQUESTS_BYTES_MAX, REQUESTS_BYTES_MAX};
use crate::wire::{Consistency, PeerMessage, RequestBody, RequestError, ResponseBody};

/// Bytes of undelivered peer messages after which readers of peer connections wait.
const PEER_BYTES_MAX: usize = 32 << 20;

/// Bits of an [`Unanswered`] that count bytes; the others count requests.
const BYTES_BITS: u32 = 36;

/// One request in an [`Unanswered`].
const ONE_REQUEST: u64 = 1 << BYTES_BITS;

/// A client's request on its way to the loop.
pub struct Submitted {
    /// Where the answer goes; an outbox of the inbox that the request is submitted to.
    pub outbox: Arc<ClientOutbox>,
    /// The number of the request there; see [`ClientOutbox::expect_reply`].
    pub id: u64,
    /// Its bytes, as the outbox was told.
    pub bytes: usize,
    /// How strong the answer must be.
    pub consistency: Consistency,
    /// What is asked.
    pub body: RequestBody,
}

/// What else can happen to a replica.
pub(super) enum Event {
    Persist(PersistEvent),
    State(StateEvent),
    PeerLost(NodeId),
    Shutdown,
}

/// Everything that arrived since the last look.
#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) events: Vec<Event>,
    pub(super) messages: Vec<(NodeId, PeerMessage)>,
    pub(super) requests: Vec<Submitted>,
}

impl Arrivals {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.messages.is_empty() && self.requests.is_empty()
    }
}

/// Which of a replica's tasks have said that they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Over {
    pub(super) log: bool,
    pub(super) state: bool,
}

/// How many requests are not answered yet, and how many bytes they have: two numbers in one, so
/// that admitting a request costs one addition. A request that is refused is in it for a moment.
///
/// Neither number comes near the end of its bits: a request has a byte at least, so that the limit
/// of bytes is one of requests, too.
#[derive(Debug, Default)]
pub(super) struct Unanswered(AtomicU64);

impl Unanswered {
    /// Adds a request; returns how many requests and bytes there were before.
    fn add(&self, bytes: usize) -> (usize, usize) {
        split(self.0.fetch_add(ONE_REQUEST + number(bytes), Ordering::Relaxed))
    }

    /// Takes a request off, but not its bytes.
    fn remove_request(&self) {
        let (requests, _) = split(self.0.fetch_sub(ONE_REQUEST, Ordering::Relaxed));
        assert!(requests > 0, "more answers than requests");
    }

    /// Takes off the bytes of a request.
    pub(super) fn remove_bytes(&self, bytes: usize) {
        let (_, before) = split(self.0.fetch_sub(number(bytes), Ordering::Relaxed));
        assert!(before >= bytes, "an answered request had {bytes} bytes, and all had {before}");
    }
}

/// Returns how many requests and how many bytes a number stands for.
fn split(both: u64) -> (usize, usize) {
    let part = |part: u64| usize::try_from(part).unwrap_or(usize::MAX);
    (part(both >> BYTES_BITS), part(both % ONE_REQUEST))
}

/// Returns a number of bytes as a counter holds it.
pub(super) fn number(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What reaches the loop from its connections and helpers; bounded where strangers fill it.
pub struct Inbox {
    state: Mutex<State>,
    waker: AtomicWaker,
    room: Notify,
    unanswered: Arc<Unanswered>,
    unfetched: Arc<Unfetched>,
    /// Bytes of room for what is missing of requests.
    partial: Arc<Semaphore>,
    requests_max: usize,
}

#[derive(Default)]
struct State {
    arrivals: Arrivals,
    peer_bytes: usize,
    closed: bool,
}

impl Inbox {
    /// Makes an empty inbox that admits at most `requests_max` unanswered requests.
    pub(crate) fn new(requests_max: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            waker: AtomicWaker::new(),
            room: Notify::new(),
            unanswered: Arc::default(),
            unfetched: Arc::default(),
            partial: Arc::new(Semaphore::new(PARTIAL_REQUESTS_BYTES_MAX)),
            requests_max,
        })
    }

    /// Makes the outbox of a connection that submits its requests here.
    pub fn new_outbox(&self) -> Arc<ClientOutbox> {
        let (unanswered, unfetched) = (&self.unanswered, &self.unfetched);
        Arc::new(ClientOutbox::new(Arc::clone(unanswered), Arc::clone(unfetched)))
    }

    /// Waits for room for so many bytes that are missing of a request. It is given back when what
    /// is returned is dropped. Whoever has waited longest comes first, so all come in the end if
    /// nobody keeps its room for ever.
    pub fn room_for(
        &self,
        bytes: usize,
    ) -> impl Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + use<> {
        Arc::clone(&self.partial).acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Leaves room for so many bytes alone.
    #[cfg(test)]
    pub(crate) fn limit_partial(&self, bytes: usize) {
        self.partial.forget_permits(PARTIAL_REQUESTS_BYTES_MAX - bytes);
    }

    /// Admits a request, or answers it at once if it cannot be.
    pub fn submit(&self, request: Submitted) {
        let (requests, bytes) = self.unanswered.add(request.bytes);
        let has_room = bytes.saturating_add(request.bytes) <= REQUESTS_BYTES_MAX;
        let refusal = if requests < self.requests_max && has_room {
            let mut state = self.lock();
            if !state.closed {
                state.arrivals.requests.push(request);
                drop(state);
                self.waker.wake();
                return;
            }
            RequestError::ShuttingDown
        } else {
            crate::probe!("replica.request_refused_overloaded");
            RequestError::Overloaded
        };
        self.answered();
        request.outbox.reply(request.id, ResponseBody::Error(refusal));
    }

    /// Takes a request off the count of unanswered ones; its outbox takes off its bytes.
    pub(super) fn answered(&self) {
        self.unanswered.remove_request();
    }

    /// Delivers a peer's message of `bytes` on the wire; waits while too much is queued.
    /// Returns false once the replica has stopped.
    pub async fn deliver(&self, from: NodeId, message: PeerMessage, bytes: usize) -> bool {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.closed {
                    return false;
                }
                if state.peer_bytes <= PEER_BYTES_MAX {
                    state.peer_bytes += bytes;
                    state.arrivals.messages.push((from, message));
                    drop(state);
                    self.waker.wake();
                    return true;
                }
            }
            crate::probe!("replica.peer_reader_waits");
            room.await;
        }
    }

    /// Says that the connection to `peer` broke: what was in flight to it may be lost.
    pub fn peer_lost(&self, peer: NodeId) {
        self.push(Event::PeerLost(peer));
    }

    /// Asks the replica to stop.
    pub fn shut_down(&self) {
        self.push(Event::Shutdown);
    }

    pub(super) fn push(&self, event: Event) {
        self.lock().arrivals.events.push(event);
        self.waker.wake();
    }

    /// Adds what has arrived to `arrivals`, and tells whether both the log task and the state task
    /// have ended, be it before.
    pub(super) fn has_ended(&self, arrivals: &mut Arrivals, over: Over) -> bool {
        let mut state = self.lock();
        let arrived = std::mem::take(&mut state.arrivals);
        drop(state);
        arrivals.events.extend(arrived.events);
        arrivals.requests.extend(arrived.requests);
        let is_state = |event: &Event| matches!(event, Event::State(StateEvent::Fatal(_)));
        let is_log = |event: &Event| {
            matches!(event, Event::Persist(PersistEvent::Stopped | PersistEvent::Failed(_)))
        };
        let mut events = arrivals.events.iter();
        (over.log || events.clone().any(is_log)) && (over.state || events.any(is_state))
    }

    /// Tells whether the replica has stopped.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until the replica has stopped.
    pub async fn closed(&self) {
        loop {
            let room = self.room.notified();
            if self.is_closed() {
                return;
            }
            room.await;
        }
    }

    /// Stops accepting; returns what was still queued.
    pub(super) fn close(&self) -> Arrivals {
        let mut state = self.lock();
        state.closed = true;
        let rest = std::mem::take(&mut state.arrivals);
        drop(state);
        self.room.notify_waiters();
        rest
    }

    /// Moves everything that has arrived into `into`, which must be empty.
    pub(super) fn take(&self, into: &mut Arrivals) {
        assert!(into.is_empty(), "arrivals of the last look are not handled");
        let mut state = self.lock();
        std::mem::swap(&mut state.arrivals, into);
        let was_full = state.peer_bytes > PEER_BYTES_MAX;
        state.peer_bytes = 0;
        drop(state);
        if was_full {
            self.room.notify_waiters();
        }
    }

    /// Waits until something has arrived or `sleep` ends; true if the sleep did.
    pub(super) async fn wait(&self, mut sleep: Pin<&mut (dyn Future<Output = ()> + Send)>) -> bool {
        std::future::poll_fn(move |context: &mut Context<'_>| {
            self.waker.register(context.waker());
            if !self.lock().arrivals.is_empty() {
                return Poll::Ready(false);
            }
            sleep.as_mut().poll(context).map(|()| true)
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::BytesMut;

    use super::*;
    use crate::base::limits::FRAME_BYTES_MAX;
    use crate::codec::{self, FrameDecoder};
    use crate::wire::Response;

    /// Submits a request that says that it has so many bytes.
    fn submit(inbox: &Inbox, outbox: &Arc<ClientOutbox>, bytes: usize) {
        let id = outbox.expect_reply(7, bytes);
        let (outbox, consistency) = (Arc::clone(outbox), Consistency::default());
        inbox.submit(Submitted { outbox, id, bytes, consistency, body: RequestBody::Status });
    }

    /// Answers what has been admitted, as the loop does; returns how many requests that were.
    fn answer_all(inbox: &Inbox) -> usize {
        let mut arrivals = Arrivals::default();
        inbox.take(&mut arrivals);
        for request in &arrivals.requests {
            inbox.answered();
            request.outbox.reply(request.id, ResponseBody::Snapshot(None));
        }
        arrivals.requests.len()
    }

    /// Takes the errors out of an outbox.
    fn errors(outbox: &ClientOutbox) -> Vec<RequestError> {
        let (mut taken, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
        let is_empty = outbox.poll_take(&mut context, &mut taken).is_pending();
        assert_eq!(is_empty, taken.is_empty(), "it is pending while there is nothing");
        let (decoder, mut buffer) = (FrameDecoder::new(1 << 10), BytesMut::from(&taken[..]));
        let mut errors = Vec::new();
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            let response: Response = codec::decode(&frame).unwrap();
            assert_eq!(response.id, 7, "the id is the client's");
            if let ResponseBody::Error(error) = response.body {
                errors.push(error);
            }
        }
        errors
    }

    fn unanswered(inbox: &Inbox) -> (usize, usize) {
        split(inbox.unanswered.0.load(Ordering::Relaxed))
    }

    #[test]
    fn requests_beyond_the_bytes_are_refused_until_others_are_answered() {
        let inbox = Inbox::new(100);
        let (first, second) = (inbox.new_outbox(), inbox.new_outbox());
        submit(&inbox, &first, REQUESTS_BYTES_MAX - 10);
        submit(&inbox, &second, 11);
        assert_eq!(errors(&second), [RequestError::Overloaded]);
        submit(&inbox, &second, 10);
        assert!(errors(&second).is_empty(), "it has room");
        assert_eq!(unanswered(&inbox), (2, REQUESTS_BYTES_MAX));
        submit(&inbox, &first, 1);
        assert_eq!(errors(&first), [RequestError::Overloaded]);
        assert_eq!(answer_all(&inbox), 2);
        assert_eq!(unanswered(&inbox), (0, 0));
        submit(&inbox, &second, FRAME_BYTES_MAX);
        assert_eq!(unanswered(&inbox), (1, FRAME_BYTES_MAX));
        assert!(errors(&second).is_empty(), "it has room");
    }

    #[test]
    fn requests_beyond_the_number_are_refused_with_their_bytes() {
        let inbox = Inbox::new(2);
        let outbox = inbox.new_outbox();
        for _ in 0..3 {
            submit(&inbox, &outbox, 5);
        }
        assert_eq!(errors(&outbox), [RequestError::Overloaded]);
        assert_eq!(unanswered(&inbox), (2, 10));
        assert_eq!(outbox.load().0, 2, "they are to be answered");
        assert_eq!(answer_all(&inbox), 2);
        assert_eq!(unanswered(&inbox), (0, 0));
    }

    #[test]
    fn closed_inbox_refuses_and_owes_nothing() {
        let inbox = Inbox::new(2);
        let outbox = inbox.new_outbox();
        assert!(inbox.close().is_empty());
        submit(&inbox, &outbox, 5);
        assert_eq!(errors(&outbox), [RequestError::ShuttingDown]);
        assert_eq!(unanswered(&inbox), (0, 0));
    }
}
