//! The fault atlas: what a run may be held to, by what its disks have lost.
//!
//! A store cannot survive everything. What it owes depends on how many copies of a record can have
//! been lost at the same time, and on whether those who lost them know it. So every run is put in
//! one of three classes, by what really happened in it, and is judged by the contract of its class:
//!
//! - [Must survive](Contract::MustSurvive): of each record, every quorum has a good copy left.
//!   Everything is demanded: no acknowledged write is lost, and the cluster serves after healing.
//! - [May halt, must not lie](Contract::MayHalt): more is lost, and every loser notices it (rot).
//!   What is answered must be right, and nothing must be answered: a cluster that cannot know what
//!   was acknowledged stays silent.
//! - [Out of the model](Contract::OutOfModel): more is lost, and somebody cannot notice it (a lying
//!   fsync, an old disk); in the masterless mode, more at all. Nobody may read what nobody wrote.
//!
//! Everything else (crashes, power losses, partitions, full disks, clocks) loses nothing that was
//! durable, so it never changes the class.
//!
//! A node that has lost something counts to the end of the run, even if the others have given it
//! back long ago: that errs on the side of demanding less. The masterless mode, which has no log
//! that tells what was acknowledged, promises to bear the loss of one disk.
//!
//! # Sources
//! One good copy of each record in every quorum: the fault atlas of `TigerBeetle`; halting rather
//! than guessing: \[CTRL\] (FAST 2018).

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// What a run is held to; see the [module](self). The later one demands less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Contract {
    /// Everything.
    #[default]
    MustSurvive,
    /// What is answered is right; nothing must be answered.
    MayHalt,
    /// Nothing is made up.
    OutOfModel,
}

impl Contract {
    /// Every contract.
    pub const ALL: [Self; 3] = [Self::MustSurvive, Self::MayHalt, Self::OutOfModel];

    /// Returns its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::MustSurvive => "must survive",
            Self::MayHalt => "may halt, must not lie",
            Self::OutOfModel => "out of the model",
        }
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which disks have lost something that was durable, or was said to be.
#[derive(Debug, Clone)]
pub struct Atlas {
    /// Most nodes that may have, if everything is to be survived.
    bound: usize,
    /// Whether the others know what a node that noticed its loss must have had.
    has_log: bool,
    /// Nodes that notice it when they start, or when they read it (rot).
    noticed: BTreeSet<u64>,
    /// Nodes that cannot notice it (a lying fsync, an old disk).
    unnoticed: BTreeSet<u64>,
    /// When the last loss that nobody can notice was over; not while one is under way.
    unnoticed_until: Option<Duration>,
}

impl Atlas {
    /// Begins with sound disks of a cluster of the primary-backup mode.
    pub fn of_log(node_count: u64) -> Self {
        // A quorum and these are all nodes.
        let minority = node_count.saturating_sub(1) / 2;
        Self::new(usize::try_from(minority).unwrap_or(usize::MAX), true)
    }

    /// Begins with sound disks of a masterless cluster.
    pub fn of_replicas() -> Self {
        Self::new(1, false)
    }

    fn new(bound: usize, has_log: bool) -> Self {
        Self {
            bound,
            has_log,
            noticed: BTreeSet::new(),
            unnoticed: BTreeSet::new(),
            unnoticed_until: None,
        }
    }

    /// Takes note of a loss that the node notices.
    pub fn note_noticed(&mut self, node: u64) {
        self.noticed.insert(node);
    }

    /// Takes note of a loss that the node cannot notice and that was over at that time: what the
    /// disk is given from then on it keeps. `None`: it goes on, as while a disk lies.
    pub fn note_unnoticed(&mut self, node: u64, until: Option<Duration>) {
        self.unnoticed.insert(node);
        self.unnoticed_until = until;
    }

    /// Tells whether a disk has lost something that its node notices.
    pub fn has_noticed(&self) -> bool {
        !self.noticed.is_empty()
    }

    /// Returns the first node whose disk has lost something that it cannot notice.
    pub fn unnoticed(&self) -> Option<u64> {
        self.unnoticed.first().copied()
    }

    /// Returns when the last such loss was over; `None` if one is under way, or there was none.
    pub fn unnoticed_until(&self) -> Option<Duration> {
        self.unnoticed_until
    }

    /// Tells whether a node's disk has lost something.
    pub fn has_lost(&self, node: u64) -> bool {
        self.noticed.contains(&node) || self.unnoticed.contains(&node)
    }

    /// Returns what the run is held to.
    pub fn contract(&self) -> Contract {
        let losers = self.noticed.union(&self.unnoticed).count();
        if losers <= self.bound {
            Contract::MustSurvive
        } else if self.has_log && self.unnoticed.is_empty() {
            Contract::MayHalt
        } else {
            Contract::OutOfModel
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(mut atlas: Atlas, noticed: &[u64], unnoticed: &[u64]) -> Contract {
        for node in noticed {
            atlas.note_noticed(*node);
        }
        for node in unnoticed {
            atlas.note_unnoticed(*node, None);
        }
        atlas.contract()
    }

    #[test]
    fn minority_is_survived_however_it_lost() {
        for (nodes, most) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
            let all: Vec<u64> = (1..=5).collect();
            let of = |count: usize| contract(Atlas::of_log(nodes), &all[..count], &[]);
            assert_eq!(of(most), Contract::MustSurvive, "{nodes} nodes");
            assert_eq!(of(most + 1), Contract::MayHalt, "{nodes} nodes");
        }
        assert_eq!(contract(Atlas::of_log(3), &[2], &[2]), Contract::MustSurvive, "one node");
    }

    #[test]
    fn who_cannot_notice_cannot_halt() {
        assert_eq!(contract(Atlas::of_log(3), &[1], &[2]), Contract::OutOfModel);
        assert_eq!(contract(Atlas::of_log(5), &[1], &[2]), Contract::MustSurvive);
        assert_eq!(contract(Atlas::of_replicas(), &[1], &[]), Contract::MustSurvive);
        assert_eq!(contract(Atlas::of_replicas(), &[1, 2], &[]), Contract::OutOfModel);
    }

    #[test]
    fn loss_that_nobody_notices_has_an_end_unless_it_goes_on() {
        let mut atlas = Atlas::of_replicas();
        atlas.note_noticed(2);
        assert_eq!((atlas.unnoticed(), atlas.unnoticed_until()), (None, None));
        for (until, known) in [(None, None), (Some(5), Some(5)), (Some(9), Some(9)), (None, None)] {
            atlas.note_unnoticed(2, until.map(Duration::from_secs));
            let end = atlas.unnoticed_until().map(|end| end.as_secs());
            assert_eq!((atlas.unnoticed(), end), (Some(2), known));
        }
    }
}
