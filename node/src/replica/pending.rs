//! Requests that wait for their answer, by the token that the core knows them by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::outbox::ClientOutbox;
use crate::base::{Instant, Stamp};
use crate::dynamo::Level;
use crate::kv::{Plan, Query};
use crate::raft::Token;

/// What a request waits for.
pub(super) enum Asks {
    /// The outcome of a command.
    Outcome,
    /// The answer to a query.
    Answer(Query),
    /// The first piece of a snapshot, of so many bytes at most.
    Snapshot(u32),
    /// A further piece.
    Piece,
    /// The answer to a query of the masterless mode, which takes several reads.
    Reads(Box<Reads>),
}

/// A query of the masterless mode on its way to its answer.
pub(super) struct Reads {
    pub(super) plan: Plan,
    pub(super) level: Level,
    /// The largest stamp that was met so far.
    pub(super) seen: Stamp,
}

/// A request that waits.
pub(super) struct PendingRequest {
    pub(super) outbox: Arc<ClientOutbox>,
    pub(super) id: u64,
    pub(super) asks: Asks,
    deadline: Instant,
}

/// All requests that wait. Tokens grow and all requests wait equally long, so the first one is
/// always the next to run out of time.
pub(super) struct PendingRequests {
    requests: BTreeMap<Token, PendingRequest>,
    next_token: Token,
    timeout: Duration,
}

impl PendingRequests {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { requests: BTreeMap::new(), next_token: 1, timeout }
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        outbox: Arc<ClientOutbox>,
        id: u64,
        asks: Asks,
    ) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        let deadline = now + self.timeout;
        self.requests.insert(token, PendingRequest { outbox, id, asks, deadline });
        token
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<PendingRequest> {
        self.requests.remove(&token)
    }

    /// Lets a request that was taken out wait on, until the same time.
    pub(super) fn put_back(&mut self, token: Token, request: PendingRequest) {
        self.requests.insert(token, request);
    }

    /// Returns a request that still waits.
    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut PendingRequest> {
        self.requests.get_mut(&token)
    }

    /// Tells whether the request still waits.
    pub(super) fn contains(&self, token: Token) -> bool {
        self.requests.contains_key(&token)
    }

    /// Takes out the requests that have waited too long, in the order of their tokens.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<(Token, PendingRequest)> {
        let mut overdue = Vec::new();
        while let Some(first) = self.requests.first_entry()
            && first.get().deadline <= now
        {
            overdue.push(first.remove_entry());
        }
        overdue
    }

    /// Takes out the oldest request.
    pub(super) fn remove_first(&mut self) -> Option<PendingRequest> {
        self.requests.pop_first().map(|(_, request)| request)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.first_key_value().map(|(_, request)| request.deadline)
    }
}
