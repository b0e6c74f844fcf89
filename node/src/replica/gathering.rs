//! Writes that gather while the log syncs: larger batches at no cost in time.
//!
//! Both modes have one: what is said of a leader here is true of every node of the masterless mode
//! for the writes that it coordinates.
//!
//! A leader that proposes each write as it comes sends its followers a message for each, which
//! they can do nothing with: like the leader's own, their disks still sync the batch before. So
//! while a persist request is under way the writes wait here, and then leave together, as one
//! append to each follower. A lone write never waits. Measured with 64 connections, before there
//! was this: 3.7 appends to each follower for every fsync.
//!
//! When no sync is under way, the clients that the last batch has answered are about to ask again,
//! one after the other. The first of them would get a sync for itself, and all others wait for it.
//! So writes also wait while each turn of the loop brings more of them, until there are about as
//! many as there were before. A turn costs microseconds, and a lone writer never waits for one.
//! Measured with 64 connections: a tenth more writes, with a tenth less processor time for each.
//!
//! # Invariants
//! 1. No write waits longer than [`GATHER_MAX`] for a sync: a leader whose own disk is slow does
//!    not slow down followers that could commit without it. No write waits for more than
//!    [`TURNS_MAX`] turns.
//! 2. Writes leave in the order in which they came.
//! 3. Nobody waits in turns while a sync is under way: its end is an event, and a loop that goes
//!    round meanwhile takes a processor from those who work. In the masterless mode the sync may
//!    be that of a peer's write.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::Instant;
use crate::raft::{PersistId, Token};

/// Longest wait of a write for others: the fsync of a common disk. Too small: no batches on slow
/// disks. Too large: the leader's disk sets the pace for the cluster.
const GATHER_MAX: Duration = Duration::from_millis(2);

/// Most turns of the loop that writes wait for others. Too small: small batches. Too large: a
/// trickle of writes delays the first of them.
const TURNS_MAX: u32 = 10;

/// Writes of one kind; see the [module](self).
#[derive(Debug)]
pub(super) struct Gathering<W> {
    waiting: Vec<W>,
    /// When the first of them came.
    since: Instant,
    /// The last persist request, unless it is durable.
    syncing: Option<PersistId>,
    /// About how many writes left together lately.
    usual: usize,
    /// How many were waiting a turn ago.
    waiting_before: usize,
    /// Turns that they have waited for.
    turns: u32,
}

impl<W> Default for Gathering<W> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            since: Instant::default(),
            syncing: None,
            usual: 0,
            waiting_before: 0,
            turns: 0,
        }
    }
}

impl<W> Gathering<W> {
    /// Adds a write.
    pub(super) fn add(&mut self, now: Instant, write: W) {
        if self.waiting.is_empty() {
            self.since = now;
        }
        self.waiting.push(write);
    }

    /// Forgets the writes of these tokens, which are in order; returns the tokens of those that
    /// there were.
    ///
    /// All at once: when the tables have not kept up, thousands run out of time together.
    pub(super) fn forget(
        &mut self,
        tokens: &[Token],
        token_of: impl Fn(&W) -> Token,
    ) -> BTreeSet<Token> {
        let mut forgotten = BTreeSet::new();
        if tokens.is_empty() {
            return forgotten;
        }
        self.waiting.retain(|write| {
            let token = token_of(write);
            let is_meant = tokens.binary_search(&token).is_ok();
            !(is_meant && forgotten.insert(token))
        });
        forgotten
    }

    /// Forgets the writes that wait.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Takes note that a persist request has been handed to the log.
    pub(super) fn on_persist(&mut self, id: PersistId) {
        self.syncing = Some(id);
    }

    /// Takes note that all requests up to this one are durable.
    pub(super) fn on_persisted(&mut self, through: PersistId) {
        self.syncing = self.syncing.filter(|id| *id > through);
    }

    /// Tells whether a persist request is under way.
    pub(super) fn is_syncing(&self) -> bool {
        self.syncing.is_some()
    }

    /// Returns when the writes that wait must leave, if there are any.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.waiting.is_empty() { None } else { Some(self.since + GATHER_MAX) }
    }

    /// Takes the writes that leave now; `leads` tells whether there is anything to gather for.
    pub(super) fn take(&mut self, now: Instant, leads: bool) -> Vec<W> {
        let is_early = self.deadline().is_some_and(|deadline| now < deadline);
        if leads && self.syncing.is_some() && is_early {
            // A peer's write may have begun this sync between two turns. Its end brings the next.
            self.turns = 0;
            return Vec::new();
        }
        if leads && self.are_more_coming() {
            self.waiting_before = self.waiting.len();
            self.turns += 1;
            return Vec::new();
        }
        if !self.waiting.is_empty() {
            self.usual = usize::midpoint(self.usual, self.waiting.len());
        }
        (self.waiting_before, self.turns) = (0, 0);
        std::mem::take(&mut self.waiting)
    }

    /// Tells whether writes wait for the next turn of the loop, which is to come at once.
    pub(super) fn wants_turn(&self) -> bool {
        self.turns > 0
    }

    /// Tells whether the last turn has brought writes, and another one probably will.
    fn are_more_coming(&self) -> bool {
        let count = self.waiting.len();
        count > self.waiting_before && count < self.usual && self.turns < TURNS_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn gathering() -> Gathering<u64> {
        let mut gathering = Gathering::default();
        gathering.on_persist(3);
        gathering.add(Instant::default(), 7);
        gathering.add(Instant::default() + GATHER_MAX, 8);
        gathering
    }

    #[test]
    fn lone_write_leaves_at_once() {
        let mut gathering = Gathering::default();
        gathering.add(Instant::default(), 1);
        assert_eq!(gathering.take(Instant::default(), true), [1]);
        assert_eq!(gathering.deadline(), None);
    }

    #[test]
    fn writes_leave_together_when_the_sync_before_is_done() {
        let mut gathering = gathering();
        gathering.on_persisted(2);
        assert!(gathering.take(Instant::default(), true).is_empty());
        gathering.on_persisted(3);
        assert_eq!(gathering.take(Instant::default(), true), [7, 8]);
    }

    #[test]
    fn slow_sync_holds_no_write_beyond_the_limit() {
        let mut gathering = gathering();
        let deadline = gathering.deadline().unwrap();
        assert_eq!(deadline, Instant::default() + GATHER_MAX);
        assert_eq!(gathering.take(deadline, true), [7, 8]);
    }

    /// A gathering that has seen batches of 16.
    fn busy() -> Gathering<u64> {
        let mut gathering = Gathering::default();
        for token in 0..16 {
            gathering.add(Instant::default(), token);
        }
        for _ in 0..=TURNS_MAX {
            gathering.take(Instant::default(), true);
        }
        assert!(gathering.usual > 4, "{gathering:?}");
        gathering
    }

    #[test]
    fn writes_wait_for_more_while_each_turn_brings_some() {
        let mut gathering = busy();
        for token in 0..3 {
            gathering.add(Instant::default(), token);
            assert!(gathering.take(Instant::default(), true).is_empty());
            assert!(gathering.wants_turn());
        }
        // The next turn brings none.
        assert_eq!(gathering.take(Instant::default(), true), [0, 1, 2]);
        assert!(!gathering.wants_turn());
    }

    #[test]
    fn writes_leave_when_they_are_as_many_as_before() {
        let mut gathering = busy();
        let usual = u64::try_from(gathering.usual).unwrap();
        for token in 0..usual {
            gathering.add(Instant::default(), token);
        }
        assert_eq!(gathering.take(Instant::default(), true).len(), gathering.usual);
    }

    #[test]
    fn sync_that_begins_meanwhile_ends_the_turns() {
        let mut gathering = busy();
        gathering.add(Instant::default(), 1);
        assert!(gathering.take(Instant::default(), true).is_empty());
        assert!(gathering.wants_turn());
        gathering.on_persist(9);
        assert!(gathering.take(Instant::default(), true).is_empty());
        assert!(!gathering.wants_turn(), "the loop would go round until the sync is done");
        gathering.on_persisted(9);
        gathering.add(Instant::default(), 2);
        assert!(gathering.take(Instant::default(), true).is_empty());
        assert!(gathering.wants_turn());
        assert_eq!(gathering.take(Instant::default(), true), [1, 2]);
    }

    #[test]
    fn forgotten_write_was_there_or_not() {
        let mut gathering = gathering();
        let forget = |gathering: &mut Gathering<u64>, tokens: &[Token]| {
            gathering.forget(tokens, |write| *write).into_iter().collect::<Vec<_>>()
        };
        assert!(forget(&mut gathering, &[6, 9]).is_empty());
        assert_eq!(forget(&mut gathering, &[6, 7, 9]), [7]);
        assert_eq!(gathering.take(Instant::default(), false), [8]);
        assert!(forget(&mut gathering, &[8]).is_empty(), "it has left");
    }

    /// Each of them was once looked for on its own, which held the loop up for some tenths of a
    /// second.
    #[test]
    fn writes_that_run_out_of_time_together_are_looked_at_once() {
        const COUNT: u64 = 10_000;
        let mut gathering = Gathering::default();
        (0..COUNT).for_each(|token| gathering.add(Instant::default(), token));
        let looks = Cell::new(0);
        let token_of = |write: &u64| {
            looks.set(looks.get() + 1);
            *write
        };
        let overdue: Vec<Token> = (0..COUNT - 1).collect();
        assert_eq!(gathering.forget(&overdue, token_of).len(), overdue.len());
        assert_eq!(looks.get(), COUNT);
        assert_eq!(gathering.take(Instant::default(), false), [COUNT - 1]);
    }

    #[test]
    fn node_that_does_not_lead_holds_nothing() {
        assert_eq!(gathering().take(Instant::default(), false), [7, 8]);
    }
}
