//! Requests of clients before the node can do them: while it starts, or has no stamp to give.
//!
//! Called by the core with each request, after each step, and as time passes. What waits is served
//! in the order in which it came, but for reads that the start was enough for, and no longer than
//! a write may take.
//!
//! A start takes an fsync, and so does a ceiling: that is worth waiting for. So is the first word
//! of a majority, a round trip later. A node whose disk may have lost the ceiling gives no stamps
//! for seconds (`clock.rs`), and others would take the write meanwhile. So it
//! [refuses](Dynamo::refuses_writes) writes at once, those that wait included, and says that
//! nothing was done. Reads need no stamp, and what other nodes have it store is none of this.

use super::core::{Dynamo, Startup};
use super::plan;
use super::ready::{Change, Input, Reply, Token};
use super::write::ClientWrite;
use crate::base::Instant;
use crate::probe;

/// A client's request that waits.
#[derive(Debug)]
pub(super) enum Waiting {
    Write(ClientWrite),
    Read(Token, Input),
}

impl Dynamo {
    /// Does what a client wants written, or has it wait.
    pub(super) fn on_client_write(&mut self, write: ClientWrite) {
        let is_first = !self.waiting.iter().any(|(_, w)| matches!(w, Waiting::Write(_)));
        if self.can_serve() && is_first {
            self.serve_write(write);
        } else if self.refuses_writes() {
            self.refuse_write(&write);
        } else {
            self.wait(Waiting::Write(write));
        }
    }

    /// Tells whether a write can be done or refused now. A clock that seems too far ahead is given
    /// time to hear from a majority of the nodes.
    fn can_serve(&self) -> bool {
        let clock = &self.context.clock;
        let is_ahead = clock.too_far_ahead_ms().is_some() && clock.common_ms().is_some();
        self.startup == Startup::Started && (is_ahead || clock.can_give())
    }

    fn serve_write(&mut self, write: ClientWrite) {
        if let Some(ahead_ms) = self.context.clock.too_far_ahead_ms() {
            probe!("dynamo.own_clock_too_far_ahead");
            return self.context.reply(write.token, Reply::ClockSkew { ahead_ms });
        }
        let Self { context, writes, hints, batches, .. } = self;
        writes.on_client_write(context, hints, batches, write);
    }

    fn refuse_write(&mut self, write: &ClientWrite) {
        probe!("dynamo.write_refused_before_ready");
        self.context.reply(write.token, Reply::NotReady);
    }

    /// Reads what a client wants to know, or has it wait for the start.
    pub(super) fn on_client_read(&mut self, input: Input) {
        let Input::Read { token, .. } = &input else { return };
        if self.startup != Startup::Started {
            return self.wait(Waiting::Read(*token, input));
        }
        if let Input::Read { token, level, ranges } = input {
            self.reads.on_client_read(&mut self.context, token, level, ranges);
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        let (bytes, config) = (waiting.bytes(), &self.context.config);
        if self.waiting.len() >= config.waiting_count_max
            || self.waiting_bytes + bytes > config.waiting_bytes_max
        {
            probe!("dynamo.too_many_wait_for_the_clock");
            self.context.reply(waiting.token(), Reply::Overloaded);
            return;
        }
        probe!("dynamo.request_waits_for_the_clock");
        self.waiting_bytes += bytes;
        self.waiting.push_back((self.context.now, waiting));
    }

    /// The node has just started: serves the reads for which that is enough, whatever clock the
    /// writes before them wait for. The others wait for the same time, in which whoever they need
    /// may be heard of.
    pub(super) fn serve_reads(&mut self) {
        for (since, waiting) in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Read(_, Input::Read { level, ref ranges, .. })
                    if plan::is_enough_up(&self.context, level, ranges) =>
                {
                    probe!("dynamo.read_is_served_before_the_clock");
                    self.waiting_bytes -= waiting.bytes();
                    let Waiting::Read(_, input) = waiting else { continue };
                    self.on_client_read(input);
                }
                Waiting::Write(_) | Waiting::Read(..) => self.waiting.push_back((since, waiting)),
            }
        }
    }

    /// Serves what waited, as far as it can be.
    pub(super) fn serve_waiting(&mut self) {
        while self.can_serve() {
            let Some((_, waiting)) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= waiting.bytes();
            match waiting {
                Waiting::Write(write) => self.serve_write(write),
                Waiting::Read(_, input) => self.on_client_read(input),
            }
        }
        if self.refuses_writes() {
            for (since, waiting) in std::mem::take(&mut self.waiting) {
                self.end_or_keep(since, waiting);
            }
        }
    }

    /// Refuses a write that waits for a stamp, and serves a read, which waits for the start alone.
    fn end_or_keep(&mut self, since: Instant, waiting: Waiting) {
        if matches!(waiting, Waiting::Read(..)) && self.startup != Startup::Started {
            self.waiting.push_back((since, waiting));
            return;
        }
        self.waiting_bytes -= waiting.bytes();
        match waiting {
            Waiting::Write(write) => self.refuse_write(&write),
            Waiting::Read(_, input) => self.on_client_read(input),
        }
    }

    /// Ends what has waited too long.
    pub(super) fn end_waiting(&mut self) {
        let timeout = self.context.config.write_timeout;
        let now = self.context.now;
        while let Some((_, waiting)) =
            self.waiting.pop_front_if(|(since, _)| *since + timeout <= now)
        {
            probe!("dynamo.waited_too_long_for_the_clock");
            self.waiting_bytes -= waiting.bytes();
            let clock = &self.context.clock;
            let has_started = self.startup == Startup::Started;
            let is_write = matches!(waiting, Waiting::Write(_));
            let reply = match clock.too_far_ahead_ms() {
                Some(ahead_ms) if is_write && has_started => Reply::ClockSkew { ahead_ms },
                _ if !has_started || clock.is_held() => Reply::NotReady,
                _ => Reply::Overloaded,
            };
            self.context.reply(waiting.token(), reply);
        }
    }
}

impl Waiting {
    /// Returns what names the request.
    pub(super) fn token(&self) -> Token {
        match self {
            Self::Write(write) => write.token,
            Self::Read(token, _) => *token,
        }
    }

    /// Returns about how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Write(write) => write.changes.iter().map(Change::bytes).sum(),
            Self::Read(_, Input::Read { ranges, .. }) => {
                ranges.iter().map(|range| range.start.len()).sum()
            }
            Self::Read(..) => 0,
        }
    }
}
