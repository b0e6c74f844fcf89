//! The replica's inbox: everything that happens to a replica arrives here, in batches.
//!
//! Connections, the log task and the state task push; the replica's loop takes all that has
//! arrived with one swap. So a busy loop sees large batches, which become one disk write, one
//! message per follower and one wake-up per connection: the batching of the hot path starts here.
//!
//! # Invariants
//! 1. Bounded: requests are admitted up to a limit (beyond it they are answered `Overloaded` at
//!    once); a peer's reader waits while more than [`PEER_BYTES_MAX`] of messages are queued.
//! 2. Once closed, nothing is accepted and every waiter is woken.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::outbox::ClientOutbox;
use super::persist::PersistEvent;
use super::state::StateEvent;
use crate::base::NodeId;
use crate::wire::{Consistency, PeerMessage, RequestBody, RequestError, ResponseBody};

/// Bytes of undelivered peer messages after which readers of peer connections wait.
const PEER_BYTES_MAX: usize = 32 << 20;

/// A client's request on its way to the loop.
pub struct Submitted {
    /// Where the answer goes.
    pub outbox: Arc<ClientOutbox>,
    /// The client's id of the request.
    pub id: u64,
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

/// What reaches the loop from its connections and helpers; bounded where strangers fill it.
pub struct Inbox {
    state: Mutex<State>,
    waker: AtomicWaker,
    room: Notify,
    requests_admitted: AtomicUsize,
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
    pub(super) fn new(requests_max: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            waker: AtomicWaker::new(),
            room: Notify::new(),
            requests_admitted: AtomicUsize::new(0),
            requests_max,
        })
    }

    /// Admits a request, or answers it at once if it cannot be.
    pub fn submit(&self, request: Submitted) {
        let admitted = self.requests_admitted.fetch_add(1, Ordering::Relaxed) < self.requests_max;
        let refusal = if admitted {
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
        self.requests_admitted.fetch_sub(1, Ordering::Relaxed);
        request.outbox.reply(request.id, ResponseBody::Error(refusal));
    }

    /// Takes a request off the count of unanswered ones.
    pub(super) fn answered(&self) {
        let before = self.requests_admitted.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "more answers than requests");
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
    /// have ended; the latter may have before.
    pub(super) fn has_ended(&self, arrivals: &mut Arrivals, is_state_over: bool) -> bool {
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
        events.clone().any(is_log) && (is_state_over || events.any(is_state))
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
