//! The tail of the replicated log that has not been compacted, in memory.
//!
//! The core asks it for terms and entries; the disk copy belongs to the shell and follows through
//! [`Persist`](super::Persist). Entries share their command bytes, so cloning one for a message,
//! for the disk and for the state machine costs a reference count each.
//!
//! # Invariants
//! Indexes have no gap, terms never decrease, and the entry before the first (the *base*) is
//! known by index and term, so that every append can be checked against its predecessor.
//!
//! # Left out
//! Reading compacted entries back from the disk: a follower that needs them gets a snapshot.

use std::collections::VecDeque;

use super::message::{Entry, SnapshotMeta};
use crate::base::{Index, Term};

/// The log after its base, oldest entry first.
#[derive(Debug, Clone, Default)]
pub struct Log {
    base: SnapshotMeta,
    entries: VecDeque<Entry>,
}

impl Log {
    /// Starts an empty log after `base`.
    pub fn new(base: SnapshotMeta) -> Self {
        Self { base, entries: VecDeque::new() }
    }

    /// Returns the entry before the first by index and term; index 0 when nothing was compacted.
    pub fn base(&self) -> SnapshotMeta {
        self.base
    }

    /// Returns the index of the first entry that is (or would be) held.
    pub fn first_index(&self) -> Index {
        self.base.index + 1
    }

    /// Returns the index of the last entry, or of the base if there is none.
    pub fn last_index(&self) -> Index {
        self.entries.back().map_or(self.base.index, |entry| entry.index)
    }

    /// Returns the term of the last entry, or of the base if there is none.
    pub fn last_term(&self) -> Term {
        self.entries.back().map_or(self.base.term, |entry| entry.term)
    }

    /// Returns the term of the entry at `index`, the base included; `None` outside.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Returns the entry at `index`, if it is held.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.position(index)?)
    }

    /// Returns the entries from `index` on (from the first one held, if that is later).
    pub fn entries_from(&self, index: Index) -> impl Iterator<Item = &Entry> {
        let start = self.position(index).unwrap_or(0).min(self.entries.len());
        self.entries.range(start..)
    }

    /// Returns the largest index up to `limit` whose entry may be of `term` or an older one.
    ///
    /// Both sides of a rejected append use it to skip a whole term per round trip. What lies
    /// below the base is unknown and counts as old enough. [Raft §5.3, end]
    pub fn last_not_after(&self, limit: Index, term: Term) -> Index {
        if self.base.term > term {
            return limit.min(self.base.index.saturating_sub(1));
        }
        let old = self.entries.partition_point(|entry| entry.term <= term);
        limit.min(self.base.index.saturating_add(u64::try_from(old).unwrap_or(u64::MAX)))
    }

    /// Adds an entry at the end.
    pub fn append(&mut self, entry: Entry) {
        let (last, last_term) = (self.last_index(), self.last_term());
        assert!(entry.index == last + 1, "log gap: entry {} after {last}", entry.index);
        assert!(
            entry.term >= last_term,
            "term regression in the log: {}@{} after {last}@{last_term}",
            entry.index,
            entry.term
        );
        self.entries.push_back(entry);
    }

    /// Removes every entry after `last`.
    pub fn truncate(&mut self, last: Index) {
        assert!(last >= self.base.index, "truncated to {last}, before base {}", self.base.index);
        let kept = self.position(last + 1).unwrap_or(0);
        self.entries.truncate(kept);
    }

    /// Drops the entries up to `index`, which becomes the base; nothing if it is not held.
    pub fn compact(&mut self, index: Index) {
        let Some(entry) = self.entry(index) else { return };
        self.base = SnapshotMeta { index, term: entry.term };
        let dropped = self.entries.partition_point(|entry| entry.index <= index);
        self.entries.drain(..dropped);
    }

    /// Returns how far to compact at most so that `entries` stay behind `through`, but of those no
    /// more than fit into `bytes`.
    pub fn behind(&self, through: Index, entries: u64, bytes: usize) -> Index {
        let kept = self.entries.iter().rev().skip_while(|entry| entry.index > through);
        let mut kept_bytes = 0;
        let fit = kept.take(usize::try_from(entries).unwrap_or(usize::MAX)).take_while(|entry| {
            kept_bytes += entry.weight();
            kept_bytes <= bytes
        });
        through.saturating_sub(u64::try_from(fit.count()).unwrap_or(u64::MAX))
    }

    fn position(&self, index: Index) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first_index())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::EntryKind;

    fn log(base: (Index, Term), terms: &[Term]) -> Log {
        let mut log = Log::new(SnapshotMeta { index: base.0, term: base.1 });
        for &term in terms {
            log.append(Entry { term, index: log.last_index() + 1, kind: EntryKind::Noop });
        }
        log
    }

    #[test]
    fn log_empty_ends_at_its_base() {
        let log = log((7, 3), &[]);
        assert_eq!((log.first_index(), log.last_index(), log.last_term()), (8, 7, 3));
        assert_eq!((log.term_at(7), log.term_at(6), log.term_at(8)), (Some(3), None, None));
    }

    #[test]
    fn log_compacted_keeps_the_rest() {
        let mut log = log((0, 0), &[1, 1, 2, 3]);
        log.compact(3);
        assert_eq!(log.base(), SnapshotMeta { index: 3, term: 2 });
        assert_eq!(log.entries_from(1).map(|e| e.index).collect::<Vec<_>>(), [4]);
        log.compact(2);
        assert_eq!(log.base().index, 3, "what is gone cannot be compacted again");
    }

    #[test]
    fn log_is_compacted_so_far_that_what_stays_behind_is_bounded() {
        let log = log((2, 1), &[1; 8]);
        let entry_bytes = log.entry(3).unwrap().weight();
        assert_eq!(log.behind(8, 3, usize::MAX), 5, "three entries up to 8 stay");
        assert_eq!(log.behind(8, 3, 2 * entry_bytes), 6, "only two of them fit");
        assert_eq!(log.behind(8, 3, entry_bytes - 1), 8, "none fits");
        assert_eq!(log.behind(8, 99, usize::MAX), 2, "no more than there are");
        assert_eq!(log.behind(99, 1, usize::MAX), 98, "nothing is known of what comes later");
    }

    #[test]
    fn log_truncated_forgets_the_suffix() {
        let mut log = log((2, 1), &[1, 2, 2]);
        log.truncate(3);
        assert_eq!((log.last_index(), log.last_term()), (3, 1));
        log.truncate(2);
        assert_eq!((log.last_index(), log.last_term()), (2, 1));
    }

    #[test]
    fn last_not_after_skips_whole_terms() {
        let log = log((2, 2), &[2, 4, 4, 6]);
        assert_eq!(log.last_not_after(6, 5), 5);
        assert_eq!(log.last_not_after(6, 3), 3);
        assert_eq!(log.last_not_after(4, 9), 4);
        assert_eq!(log.last_not_after(6, 2), 3);
        assert_eq!(log.last_not_after(6, 1), 1, "below the base is unknown, not excluded");
    }
}
