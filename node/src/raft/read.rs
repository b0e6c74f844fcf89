//! Linearizable reads without writing to the log. [Thesis §6.4]
//!
//! A leader may have been deposed without knowing. Before it answers a read it makes sure that it
//! was still the leader *after* the read arrived: it notes its commit index, sends a numbered
//! *round* along with its appends, and once a majority has answered a message of that round, the
//! noted index is at least as new as every write acknowledged before the read arrived. The read
//! is served when the state machine has applied that index.
//!
//! One round is in flight at a time; reads that arrive meanwhile share the next one, so the
//! number of messages does not depend on the number of reads. A lost message needs no special
//! care: every heartbeat carries the number of the newest round.
//!
//! A new leader does not know which entries of older terms are committed until one of its own
//! term is; until then reads wait. [Raft §8]
//!
//! Where the disks of a majority are full that may take days, and so may applying. Nobody tells the
//! core which clients have given up meanwhile, so reads wait in a limited number, and more are
//! refused: see [`Config::reads_max`](super::Config::reads_max).

use std::collections::VecDeque;

use super::ready::Token;
use crate::base::Index;
use crate::{planted, probe};

/// The reads that wait at a leader.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Number of the newest round of this leadership.
    round: u64,
    /// Not in a round yet.
    waiting: Vec<Token>,
    /// In the newest round, with the commit index noted at its start.
    active: Option<(Index, Vec<Token>)>,
    /// Confirmed; waiting until the state machine has applied the index.
    confirmed: VecDeque<(Index, Vec<Token>)>,
    /// How many they are, all together.
    count: usize,
}

impl Reads {
    /// Returns the number of the newest round.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// Returns how many reads wait.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Takes a read.
    pub(super) fn add(&mut self, token: Token) {
        self.count += 1;
        self.waiting.push(token);
    }

    /// Tells whether reads wait for a round that may start now.
    pub(super) fn wants_round(&self) -> bool {
        self.active.is_none() && !self.waiting.is_empty()
    }

    /// Starts a round at the given commit index for every read that waits.
    pub(super) fn start(&mut self, commit: Index) {
        self.round += 1;
        self.active = Some((commit, std::mem::take(&mut self.waiting)));
    }

    /// Notes that a majority has answered the newest round.
    pub(super) fn confirm(&mut self) {
        self.confirmed.extend(self.active.take());
    }

    /// Tells whether the newest round is still to be confirmed.
    pub(super) fn is_confirming(&self) -> bool {
        self.active.is_some()
    }

    /// Takes the reads that may be served by a state machine that has applied `applied`.
    pub(super) fn serve(&mut self, applied: Index) -> Vec<Token> {
        let mut served = Vec::new();
        while let Some((_, tokens)) =
            self.confirmed.pop_front_if(|(index, _)| *index <= applied || planted!("R35"))
        {
            served.extend(tokens);
        }
        self.count -= served.len();
        if !self.confirmed.is_empty() {
            probe!("raft.read_waits_for_apply");
        }
        served
    }

    /// Takes every read, served or not.
    pub(super) fn take(&mut self) -> Vec<Token> {
        let mut tokens = std::mem::take(&mut self.waiting);
        tokens.extend(self.active.take().into_iter().flat_map(|(_, tokens)| tokens));
        tokens.extend(self.confirmed.drain(..).flat_map(|(_, tokens)| tokens));
        let count = std::mem::take(&mut self.count);
        assert!(tokens.len() == count, "{} reads waited, counted {count}", tokens.len());
        tokens
    }
}
