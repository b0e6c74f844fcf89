//! The loop's side of reads that pass over much: turn by turn.
//!
//! A read of a range passes so many bytes in a turn of the loop at most
//! ([`NodeConfig::read_turn_bytes`]), whether it finds anything in them or not, and so does one of
//! many cells, each of which counts as a block. Many such reads at a time must not hold the loop up
//! either: when they have passed so much together, those that come after wait for the next turn,
//! one of them at least, and then again as many as have room. Reads of one cell, or of a few, never
//! wait. What is not answered in its turn goes on in later ones.
//!
//! Those *long* reads take turns by connection, a few connections at a time, each with one read:
//! the store keeps what each of these has found, and that takes memory. So a read that takes
//! seconds holds up the others of its own connection, and not those of all. A client that gets no
//! answer in time often closes the connection and asks again on another one; a connection that is
//! gone gets no more turns.
//!
//! So the reads of a turn pass four times that many bytes at most, and between two turns the loop
//! hears from its peers and sends its heartbeats.
//!
//! A read may be answered after the node has ceased to lead: what it must see was applied when the
//! core let it go, and whatever it sees besides is committed.
//!
//! [`NodeConfig::read_turn_bytes`]: super::NodeConfig::read_turn_bytes

use std::collections::VecDeque;
use std::sync::Arc;

use super::observer::Observer;
use super::outbox::ClientOutbox;
use super::pending::{Asks, PendingRequest};
use super::shell::Replica;
use crate::env::Env;
use crate::kv::{QueryError, Turn};
use crate::raft::Token;
use crate::wire::{RequestError, ResponseBody};

/// Long reads that are under way at a time. Each keeps an answer's worth of memory. Too small: that
/// many long reads hold up all others until they have run out of time. Too large: memory, and each
/// read waits for the turns of that many.
const LONG_COUNT_MAX: usize = 4;

/// Reads that wait for a turn of the loop. Requests that have run out of time are not taken out.
#[derive(Default)]
pub(super) struct Reading {
    /// Those that came when the turn's reads had passed enough.
    fresh: VecDeque<Token>,
    /// Those that take several turns. What is under way are the first reads of the first
    /// [`LONG_COUNT_MAX`] connections at most, which take turns.
    long: VecDeque<Line>,
    /// What the reads of this turn have passed.
    passed_bytes: usize,
}

/// The long reads of one connection, in the order in which they came.
struct Line {
    outbox: Arc<ClientOutbox>,
    reads: VecDeque<Token>,
}

impl Reading {
    /// Tells whether the loop must come again at once.
    pub(super) fn wants_turn(&self) -> bool {
        !(self.fresh.is_empty() && self.long.is_empty())
    }

    /// Has a read of a connection wait for its turns.
    fn push_long(&mut self, outbox: Arc<ClientOutbox>, token: Token) {
        match self.long.iter_mut().find(|line| Arc::ptr_eq(&line.outbox, &outbox)) {
            Some(line) => line.reads.push_back(token),
            None => self.long.push_back(Line { outbox, reads: [token].into() }),
        }
    }

    /// Gives a connection back whose first read had a turn: the others under way come first.
    fn take_turns(&mut self, line: Line) {
        self.long.insert(self.long.len().min(LONG_COUNT_MAX - 1), line);
    }

    /// Gives a connection back none of whose reads is under way, if it has any.
    fn queue(&mut self, line: Line) {
        if !line.reads.is_empty() {
            self.long.push_back(line);
        }
    }
}

impl<E: Env, O: Observer> Replica<E, O> {
    /// Answers a read whose time has come, or has it wait for a turn.
    pub(super) fn begin_read(&mut self, token: Token, request: PendingRequest) {
        let Asks::Answer(query) = &request.asks else { return };
        if self.reading.passed_bytes >= self.config.read_turn_bytes && query.takes_turns() {
            crate::probe!("replica.read_waits_for_a_turn");
            self.reading.fresh.push_back(token);
            self.pending.put_back(token, request);
            return;
        }
        self.try_read(token, request);
    }

    /// Uses the turn for reads that wait: for fresh ones while there is room, but for one at least,
    /// and for one of the long ones.
    pub(super) fn read_on(&mut self) {
        while let Some(token) = self.reading.fresh.pop_front() {
            // Without an entry the request has run out of time already.
            if let Some(request) = self.pending.remove(token) {
                self.try_read(token, request);
            }
            if self.stop.is_some() || self.reading.passed_bytes >= self.config.read_turn_bytes {
                break;
            }
        }
        if self.stop.is_none() {
            self.read_long();
        }
        self.reading.passed_bytes = 0;
    }

    /// Reads for the first time.
    fn try_read(&mut self, token: Token, request: PendingRequest) {
        let Asks::Answer(query) = &request.asks else { return };
        if request.outbox.is_full() {
            crate::probe!("replica.answers_wait_for_their_reader");
            return self.fail(&request, RequestError::Overloaded);
        }
        let turn = self.machine.query(query, self.config.read_turn_bytes);
        let outbox = Arc::clone(&request.outbox);
        if !self.end_turn(token, request, turn) {
            crate::probe!("replica.read_takes_more_turns");
            self.reading.push_long(outbox, token);
        }
    }

    /// Goes on with the first of the long reads.
    fn read_long(&mut self) {
        while let Some(mut line) = self.reading.long.pop_front() {
            let Some(token) = line.reads.pop_front() else { continue };
            let Some(request) = self.pending.remove(token) else {
                // It has run out of time. Who had no turn yet keeps its place.
                if self.machine.stop_reading(token) {
                    self.reading.queue(line);
                } else if !line.reads.is_empty() {
                    self.reading.long.push_front(line);
                }
                continue;
            };
            if line.outbox.is_left() {
                crate::probe!("replica.nobody_waits_for_a_long_read");
                self.machine.stop_reading(token);
                self.fail(&request, RequestError::Timeout);
                self.reading.long.push_front(line);
                continue;
            }
            if self.give_turn(token, request) {
                self.reading.queue(line);
            } else {
                line.reads.push_front(token);
                self.reading.take_turns(line);
            }
            return;
        }
    }

    /// Gives a long read one turn; tells whether it was answered.
    fn give_turn(&mut self, token: Token, request: PendingRequest) -> bool {
        let Asks::Answer(query) = &request.asks else { return true };
        let turn = self.machine.read_on(token, query, self.config.read_turn_bytes);
        self.end_turn(token, request, turn)
    }

    /// Answers a read, or lets it wait on; tells whether it was answered.
    fn end_turn(
        &mut self,
        token: Token,
        request: PendingRequest,
        turn: Result<Turn, QueryError>,
    ) -> bool {
        match turn {
            Ok(Turn { reply, passed_bytes }) => {
                let passed_bytes = self.reading.passed_bytes.saturating_add(passed_bytes);
                self.reading.passed_bytes = passed_bytes;
                let Some(reply) = reply else {
                    self.pending.put_back(token, request);
                    return false;
                };
                if request.outbox.is_full() {
                    self.fail(&request, RequestError::Overloaded);
                } else {
                    self.answer(&request, ResponseBody::Query(reply));
                }
            }
            Err(QueryError::Storage(error)) => {
                self.fail(&request, RequestError::ShuttingDown);
                self.fail_storage(error);
            }
            Err(error) => self.fail(&request, RequestError::Invalid(error.to_string())),
        }
        true
    }
}
