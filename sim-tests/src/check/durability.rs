//! Durability: what was acknowledged is on the disks of a majority. [Raft §5.3, Thesis §3.8]
//!
//! **Property.** When a client has been told that its write was applied, the entry is on the
//! *disks* of a majority of the voters, in the log or covered by a snapshot – and is there in the
//! end.
//!
//! **Why the obvious check is wrong.** Looking at what nodes hold in memory, or asking them how far
//! they have synced, is asking the suspect: a follower that acknowledges before its fsync (R3), a
//! leader that counts its own unsynced entry (R4), an fsync that fails and is ignored (W2) all look
//! right until the power goes. Waiting for power losses finds them, but only when enough nodes lose
//! it in the right microsecond. So the harness recovers, from the bytes that would survive a power
//! loss *now*, the log of every node, and this checker counts.
//!
//! **When.** Once, when all is healed and has converged: by then every fsync is over, so of a node
//! that acknowledges too early it finds what a power loss took before. Each node by itself is held
//! to its word all the time ([`own_disk`](super::own_disk)), which needs a crash as well. In
//! between, a node that was hit by a fault may lack what it has yet to find out, or to be given
//! back. (The masterless mode's [looks](super::masterless::durability) go on all along a run.)
//!
//! A node that found its disk damaged and knows how far its log may have reached guards an entry
//! before that as one that holds it: it lets nobody lead who has less. So it counts, if another
//! disk has the entry.
//!
//! **What is skipped.** Nodes whose disk was destroyed or damaged on purpose beyond what a log can
//! know: they are *excused* and count as if they had the entry, because the write was on a majority
//! when it was acknowledged. A cluster with more excused nodes than a minority promises nothing.

use std::collections::{BTreeMap, BTreeSet};

use mangrove::base::{Index, NodeId, Term};

use super::mirror::{Log, Stamp};
use super::{Violation, broken};

/// Remembers every acknowledged write.
#[derive(Debug, Default)]
pub struct Durability {
    acknowledged: BTreeMap<Index, (Option<Stamp>, u64)>,
}

impl Durability {
    /// Takes note that a client was told that the write at `index` was applied. Term and checksum
    /// are compared if they are known, which they are if the harness saw the entry committed.
    pub fn observe_acknowledged(&mut self, at: u64, index: Index, entry: Option<(Term, u32)>) {
        let stamp = entry.map(|(term, crc)| Stamp { term, crc });
        self.acknowledged.entry(index).or_insert((stamp, at));
    }

    /// Returns how many writes were acknowledged.
    pub fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    /// Compares with what is on the disks: for each voter the log that it would recover.
    pub fn check(
        &self,
        at: u64,
        disks: &BTreeMap<NodeId, Log>,
        excused: &BTreeSet<NodeId>,
    ) -> Result<(), Violation> {
        let majority = disks.len() / 2 + 1;
        // Below every snapshot there is nothing to compare.
        let excused_count = disks.keys().filter(|node| excused.contains(node)).count();
        let bases = disks.iter().filter(|(node, _)| !excused.contains(node));
        let lowest = bases.map(|(_, log)| log.base_index).min().unwrap_or(Index::MAX);
        for (index, (stamp, told)) in self.acknowledged.range(lowest.saturating_add(1)..) {
            let has = |log: &Log| {
                *index <= log.base_index
                    || log.at(*index).is_some_and(|held| stamp.is_none_or(|stamp| stamp == held))
            };
            let guards = |log: &Log| {
                let is_before = |lost: (Term, Index)| {
                    stamp.map_or(*index <= lost.1, |stamp| (stamp.term, *index) <= lost)
                };
                !has(log) && log.lost_through.is_some_and(is_before)
            };
            let which = |counts: &dyn Fn(&Log) -> bool| -> Vec<NodeId> {
                let sound = disks.iter().filter(|(node, _)| !excused.contains(node));
                sound.filter(|(_, log)| counts(log)).map(|(node, _)| *node).collect()
            };
            let (holders, guards) = (which(&has), which(&guards));
            let is_gone = holders.is_empty() && excused_count == 0;
            if is_gone || holders.len() + guards.len() + excused_count < majority {
                let term = stamp.map_or(String::new(), |stamp| format!("@{}", stamp.term));
                let what = format!(
                    "the write at {index}{term}, acknowledged at {told}, is only on the disks of \
                     {holders:?} of {:?} (known to be lost: {guards:?}, excused: {excused:?})",
                    disks.keys()
                );
                return broken("durability", at, what);
            }
        }
        Ok(())
    }
}
