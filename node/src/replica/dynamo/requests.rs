//! The loop's side of clients in the masterless mode: requests in, answers out.
//!
//! A write is one question to the core. A query may take several: its [`Plan`] says which ranges
//! to read, looks at what came back, and asks again until the page is full.

use std::sync::Arc;

use super::super::inbox::Submitted;
use super::super::observer::Observer;
use super::super::outbox::ClientOutbox;
use super::super::pending::{Asks, PendingRequest, Reads};
use super::MasterlessReplica;
use crate::base::{Instant, Payload, Stamp};
use crate::dynamo::{Change, Chunk, Dynamo, Input, Reply, Token};
use crate::env::Env;
use crate::kv::{CommandReply, Plan, Query, QueryReply, RefusedCommand, Step, Version, changes};
use crate::wire::{Consistency, RequestBody, RequestError, ResponseBody};

/// A write that the core has not been given yet.
pub(super) struct HeldWrite {
    token: Token,
    consistency: Consistency,
    changes: Vec<Change>,
}

impl<E: Env, O: Observer> MasterlessReplica<E, O> {
    pub(super) fn on_request(&mut self, now: Instant, request: Submitted) {
        let Submitted { outbox, id, consistency, body, .. } = request;
        match body {
            // The fault has been seen to where the request came in.
            RequestBody::Command(command) | RequestBody::FaultyCommand { command, .. } => {
                self.on_command(now, (outbox, id), consistency, &command);
            }
            RequestBody::Query(query) => self.on_query(now, (outbox, id), consistency, &query),
            RequestBody::Status => {
                let status = Box::new(self.status(now));
                self.inbox.answered();
                outbox.reply(id, ResponseBody::Status(status));
            }
            RequestBody::Snapshot { .. } => {
                let what = "a snapshot is one state of the whole store, and here every node has \
                            its own: take the cells with `mangrove export`";
                self.refuse(&outbox, id, RequestError::Unsupported(what.to_owned()));
            }
        }
    }

    fn refuse(&self, outbox: &ClientOutbox, id: u64, error: RequestError) {
        self.inbox.answered();
        outbox.reply(id, ResponseBody::Error(error));
    }

    fn on_command(
        &mut self,
        now: Instant,
        (outbox, id): (Arc<ClientOutbox>, u64),
        consistency: Consistency,
        command: &Payload,
    ) {
        if self.disk_full.any() {
            crate::probe!("replica.masterless_write_refused_disk_full");
            return self.refuse(&outbox, id, RequestError::DiskFull);
        }
        let changes = match changes(command.as_bytes(), &self.placement) {
            Ok(changes) => changes,
            Err(error @ RefusedCommand::Unsupported(_)) => {
                return self.refuse(&outbox, id, RequestError::Unsupported(error.to_string()));
            }
            Err(error @ (RefusedCommand::Malformed(_) | RefusedCommand::Invalid(_))) => {
                return self.refuse(&outbox, id, RequestError::Invalid(error.to_string()));
            }
        };
        let token = self.pending.insert(now, outbox, id, Asks::Outcome);
        self.held.add(now, HeldWrite { token, consistency, changes });
    }

    /// Tells whether writes wait for the tables. Those that are refused anyway wait for nothing.
    pub(super) fn is_held_back(&self) -> bool {
        self.store.engine().is_stalled() && !self.core.refuses_writes()
    }

    /// Gives the core the writes that have gathered, unless more are worth waiting for or the
    /// tables do not keep up with them.
    pub(super) fn release_held(&mut self, now: Instant) {
        self.stalls.note(now, self.store.engine().is_stalled(), self.config.node);
        if self.held.deadline().is_none() {
            return;
        }
        if self.is_held_back() {
            crate::probe!("replica.masterless_writes_wait_for_tables");
            return;
        }
        for HeldWrite { token, consistency, changes } in self.held.take(now, true) {
            // A request that has been answered meanwhile shall not take effect.
            if self.pending.contains(token) {
                let Consistency { level, seen } = consistency;
                self.step(now, Input::Write { token, level, seen, changes });
            }
        }
    }

    fn on_query(
        &mut self,
        now: Instant,
        (outbox, id): (Arc<ClientOutbox>, u64),
        Consistency { level, .. }: Consistency,
        query: &Query,
    ) {
        if outbox.is_full() {
            crate::probe!("replica.masterless_answers_wait_for_their_reader");
            return self.refuse(&outbox, id, RequestError::Overloaded);
        }
        let mut reads = Reads { plan: Plan::new(query, &self.placement), level, seen: Stamp::ZERO };
        let ranges = reads.plan.ranges();
        if (ranges.is_empty() || self.core.may_answer_alone(level, ranges))
            && let Some(done) = self.read_alone(&mut reads)
        {
            self.inbox.answered();
            let body = done.map_or_else(ResponseBody::Error, ResponseBody::Query);
            return outbox.reply_seen(id, reads.seen, body);
        }
        let ranges = reads.plan.ranges().to_vec();
        let token = self.pending.insert(now, outbox, id, Asks::Reads(Box::new(reads)));
        self.step(now, Input::Read { token, level, ranges });
    }

    /// Answers a query by what the own store has, if that is enough.
    fn read_alone(&mut self, reads: &mut Reads) -> Option<Result<QueryReply, RequestError>> {
        let chunks = match self.store.chunks(reads.plan.ranges()) {
            Ok(chunks) => chunks,
            Err(error) => {
                self.fail_storage(error);
                return Some(Err(RequestError::ShuttingDown));
            }
        };
        let (chunks, seen) = Dynamo::own_answer(chunks);
        reads.seen = seen;
        match reads.plan.on_chunks(chunks) {
            Ok(Step::Ask(_)) => None,
            Ok(Step::Done(reply)) => Some(Ok(reply)),
            Err(error) => Some(Err(RequestError::Invalid(error.to_string()))),
        }
    }

    pub(super) fn on_reply(&mut self, now: Instant, token: Token, reply: Reply) {
        let error = match reply {
            Reply::Written { stamp } => {
                let Some(request) = self.pending.remove(token) else { return };
                let version = Version(stamp.version());
                // Such an answer is short, so that it goes into a full outbox, too.
                let body = ResponseBody::Command(CommandReply::Applied(version));
                return self.answer(&request, stamp, body);
            }
            Reply::Read { chunks, seen } => return self.on_chunks(now, token, chunks, seen),
            Reply::Unavailable { needed, alive } => RequestError::Unavailable { needed, alive },
            Reply::Timeout => RequestError::Timeout,
            Reply::Overloaded => RequestError::Overloaded,
            Reply::DiskFull => RequestError::DiskFull,
            Reply::Invalid(what) => RequestError::Invalid(what.to_owned()),
            Reply::ClockSkew { ahead_ms } => RequestError::ClockSkew { ahead_ms },
            Reply::NotReady => RequestError::NotReady,
        };
        if let Some(request) = self.pending.remove(token) {
            self.fail(&request, error);
        }
    }

    /// Takes what was read for a query: answers it, or reads on.
    fn on_chunks(&mut self, now: Instant, token: Token, chunks: Vec<Chunk>, seen: Stamp) {
        // Without an entry the request has run out of time already.
        let Some(request) = self.pending.get_mut(token) else { return };
        let Asks::Reads(reads) = &mut request.asks else {
            unreachable!("request {token} did not ask to read")
        };
        reads.seen = reads.seen.max(seen);
        let (level, seen) = (reads.level, reads.seen);
        let done: Result<QueryReply, RequestError> = match reads.plan.on_chunks(chunks) {
            Ok(Step::Ask(ranges)) => {
                return self.step(now, Input::Read { token, level, ranges });
            }
            Ok(Step::Done(reply)) => Ok(reply),
            Err(error) => Err(RequestError::Invalid(error.to_string())),
        };
        let Some(request) = self.pending.remove(token) else { return };
        match done {
            Ok(_) if request.outbox.is_full() => self.fail(&request, RequestError::Overloaded),
            Ok(reply) => self.answer(&request, seen, ResponseBody::Query(reply)),
            Err(error) => self.fail(&request, error),
        }
    }

    fn answer(&self, request: &PendingRequest, seen: Stamp, body: ResponseBody) {
        self.inbox.answered();
        request.outbox.reply_seen(request.id, seen, body);
    }

    pub(super) fn fail(&self, request: &PendingRequest, error: RequestError) {
        self.answer(request, Stamp::ZERO, ResponseBody::Error(error));
    }

    /// Answers requests that have waited too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let overdue = self.pending.take_overdue(now);
        let tokens: Vec<Token> = overdue.iter().map(|(token, _)| *token).collect();
        let held = self.held.forget(&tokens, |write| write.token);
        for (token, request) in overdue {
            if held.contains(&token) {
                // The tables did not keep up, and nobody was told of it: it did not take effect.
                crate::probe!("replica.masterless_write_is_held_back_too_long");
                self.fail(&request, RequestError::Overloaded);
                continue;
            }
            crate::probe!("replica.masterless_request_times_out");
            self.fail(&request, RequestError::Timeout);
            self.step(now, Input::Forget { token });
        }
    }
}
