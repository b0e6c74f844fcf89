//! The loop's side of reads that pass over much: turn by turn.
//!
//! A read of a range passes so many bytes in a turn of the loop at most
//! ([`NodeConfig::read_turn_bytes`]), whether it finds anything in them or not, and so does one of
//! many cells, each of which counts as a block. Many such reads at a time must not hold the loop up
//! either: when they have passed so much together, those that come after wait for the next turn,
//! one of them at least, and then again as many as have room. Reads of one cell, or of a few, never
//! wait. What is not answered in its turn goes on in later ones, one read after the other: the
//! store keeps what one of them has found.
//!
//! So the reads of a turn pass four times that many bytes at most, and between two turns the loop
//! hears from its peers and sends its heartbeats.
//!
//! A read may be answered after the node has ceased to lead: what it must see was applied when the
//! core let it go, and whatever it sees besides is committed.
//!
//! [`NodeConfig::read_turn_bytes`]: super::NodeConfig::read_turn_bytes

use std::collections::VecDeque;

use super::observer::Observer;
use super::pending::{Asks, PendingRequest};
use super::shell::Replica;
use crate::env::Env;
use crate::kv::{QueryError, Turn};
use crate::raft::Token;
use crate::wire::{RequestError, ResponseBody};

/// Reads that wait for a turn of the loop. Requests that have run out of time are not taken out.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Those that came when the turn's reads had passed enough.
    fresh: VecDeque<Token>,
    /// Those that take several turns; the first one is under way.
    long: VecDeque<Token>,
    /// What the reads of this turn have passed.
    passed_bytes: usize,
}

impl Reading {
    /// Tells whether the loop must come again at once.
    pub(super) fn wants_turn(&self) -> bool {
        !(self.fresh.is_empty() && self.long.is_empty())
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
    /// and for the first of the long ones.
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
        while self.stop.is_none()
            && let Some(token) = self.reading.long.front().copied()
        {
            if let Some(request) = self.pending.remove(token) {
                self.read_long(token, request);
                break;
            }
            self.reading.long.pop_front();
        }
        if self.reading.long.is_empty() {
            self.machine.stop_reading();
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
        if !self.end_turn(token, request, turn) {
            crate::probe!("replica.read_takes_more_turns");
            self.reading.long.push_back(token);
        }
    }

    /// Goes on with the first of the long reads.
    fn read_long(&mut self, token: Token, request: PendingRequest) {
        let Asks::Answer(query) = &request.asks else { return };
        let turn = self.machine.read_on(query, self.config.read_turn_bytes);
        if self.end_turn(token, request, turn) {
            self.reading.long.pop_front();
        }
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
