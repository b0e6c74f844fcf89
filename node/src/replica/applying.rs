//! Committed entries on their way to the state machine: what somebody waits for goes first, and
//! what the tables have no room for waits.
//!
//! Nobody waits for what a follower applies, but its leader waits for its log. Applying a batch
//! takes about as long as syncing it, and both are done on one thread. So a follower puts off
//! applying while its log has something to sync or a message is to leave.
//!
//! A leader takes no writes while its tables do not keep up. A follower does not choose what it is
//! sent, and if it applied everything, a slow disk would let level 0 or the memtables grow without
//! end. So it applies nothing while its store [is behind](crate::storage::Tree::is_stalled); the
//! entries are in its log, and wait here. They are of the leader's pace, so they are bounded, too:
//! from some number of bytes on the follower [acknowledges](crate::raft::Input::Behind) no more,
//! and its leader sends none. Heartbeats, votes and reads of others go on. Then the entries are
//! applied in pieces, a piece each turn of the loop, so that it has time for everything else, and a
//! flush after each.
//!
//! A follower that becomes the leader meanwhile takes no writes, and answers no reads, before it
//! has applied what waits: a read waits for what was committed before it. What a leader has
//! proposed itself in its term it applies at once, also while its store is behind: that is no more
//! than it lets wait to be committed.
//!
//! If the store is behind because the disk is full, it may be so for days. Then a leader applies
//! what waits all the same, for its reads wait for that. It refuses writes meanwhile, so each time
//! that a node is elected costs it memory for what waited, once. A follower is not elected as long
//! as another one can be: it tells its core that it is [stuck](crate::raft::Input::Stuck).
//!
//! # Invariants
//! 1. A leader applies at once what it has proposed: its clients wait for it.
//! 2. Nothing waits for more than [`TURNS_MAX`] turns of the loop, whatever else happens, unless it
//!    waits for the tables. A leader's waits for no tables that have no space.
//! 3. Entries are applied in the order in which they were committed.
//! 4. What waits takes no more than the bytes at which acknowledging ends, and the window that a
//!    leader has for a follower.
//!
//! # Left out
//! Telling the leader why: to it the follower is slow. A leader that has cut its log meanwhile
//! sends a snapshot, which takes the place of what waits; its tables need no compaction. A follower
//! with space is not kept from being elected: its log is as good as the others', and it is about to
//! have applied it.

use crate::base::Index;
use crate::raft::{Committed, Entry};

/// Most turns of the loop by which applying is put off: two for the log to be synced, one for the
/// acknowledgement to leave. Too many: followers lag behind under load.
const TURNS_MAX: u32 = 3;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Applying {
    entries: Vec<Committed>,
    /// What they count for in limits of bytes.
    bytes: usize,
    /// Turns that they have waited for.
    turns: u32,
    /// This turn has something for the log or for a peer.
    is_pressed: bool,
    /// Some of them have waited for the tables, or were more than one piece.
    lags: bool,
    /// The last entry to be acknowledged, while too many wait.
    acknowledge_max: Option<Index>,
}

impl Applying {
    /// Adds what comes next.
    pub(super) fn add(&mut self, committed: Vec<Committed>) {
        self.bytes += committed.iter().map(weight).sum::<usize>();
        if self.entries.is_empty() {
            self.entries = committed;
        } else {
            self.entries.extend(committed);
        }
    }

    /// Takes note that this turn has something for the log or for a peer.
    pub(super) fn press(&mut self) {
        self.is_pressed = true;
    }

    /// Tells whether what is there is left to a later turn, which is to come at once.
    pub(super) fn puts_off(&mut self, leads: bool, is_syncing: bool) -> bool {
        let is_pressed = std::mem::take(&mut self.is_pressed) || is_syncing;
        let puts_off = is_pressed && !leads && !self.entries.is_empty() && self.turns < TURNS_MAX;
        self.turns = if puts_off { self.turns + 1 } else { 0 };
        puts_off
    }

    /// Returns what is to be applied next.
    pub(super) fn first(&self) -> Option<&Entry> {
        self.entries.first().map(|first| &first.entry)
    }

    /// Takes note that what is there waits for the tables.
    pub(super) fn hold(&mut self) {
        self.lags = !self.entries.is_empty();
    }

    /// Tells whether some of what is there has waited for the tables, or for its turn.
    pub(super) fn lags(&self) -> bool {
        self.lags
    }

    /// Takes what is to be applied now: all that is there, but no more than about so many bytes.
    pub(super) fn take(&mut self, bytes_max: usize) -> Vec<Committed> {
        if self.bytes <= bytes_max {
            (self.bytes, self.lags) = (0, false);
            return std::mem::take(&mut self.entries);
        }
        let mut bytes = 0;
        let fit = self.entries.iter().take_while(|committed| {
            bytes += weight(committed);
            bytes <= bytes_max
        });
        let count = fit.count().clamp(1, self.entries.len());
        let taken: Vec<Committed> = self.entries.drain(..count).collect();
        self.bytes -= taken.iter().map(weight).sum::<usize>();
        self.lags = !self.entries.is_empty();
        taken
    }

    /// Forgets the entries up to this one: a snapshot has taken their place.
    pub(super) fn forget_through(&mut self, last: Index) {
        self.entries.retain(|committed| committed.entry.index > last);
        self.bytes = self.entries.iter().map(weight).sum();
        self.lags &= !self.entries.is_empty();
    }

    /// Decides anew up to where may be acknowledged: no further for now, if so many bytes wait.
    /// Tells whether that is news.
    pub(super) fn limit(&mut self, bytes_max: usize) -> bool {
        let last = self.entries.last().map(|last| last.entry.index);
        let is_full = self.bytes >= bytes_max && last.is_some();
        let limit = self.acknowledge_max.or(last).filter(|_| is_full);
        std::mem::replace(&mut self.acknowledge_max, limit) != limit
    }

    /// Returns the last entry to be acknowledged, if too many wait.
    pub(super) fn acknowledge_max(&self) -> Option<Index> {
        self.acknowledge_max
    }
}

fn weight(committed: &Committed) -> usize {
    committed.entry.weight()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Entry, EntryKind};

    fn committed(index: u64) -> Vec<Committed> {
        let entry = Entry { term: 1, index, kind: EntryKind::Noop };
        vec![Committed { entry, token: None }]
    }

    #[test]
    fn follower_applies_when_its_log_and_its_acknowledgement_are_on_their_way() {
        let mut applying = Applying::default();
        applying.add(committed(1));
        applying.press();
        assert!(applying.puts_off(false, true), "an append has come");
        applying.add(committed(2));
        applying.press();
        assert!(applying.puts_off(false, false), "it is durable: its acknowledgement leaves");
        assert!(!applying.puts_off(false, false), "nobody waits for anything");
        let indexes: Vec<_> = applying.take(usize::MAX).iter().map(|one| one.entry.index).collect();
        assert_eq!(indexes, [1, 2]);
        assert!(applying.take(usize::MAX).is_empty());
    }

    #[test]
    fn slow_disk_does_not_put_off_applying_for_long() {
        let mut applying = Applying::default();
        applying.add(committed(1));
        let turns = (0..10).take_while(|_| applying.puts_off(false, true)).count();
        assert_eq!(turns, 3);
    }

    #[test]
    fn leader_applies_at_once_and_nothing_is_put_off_without_entries() {
        let mut applying = Applying::default();
        applying.press();
        assert!(!applying.puts_off(false, true), "nothing to put off");
        applying.add(committed(1));
        applying.press();
        assert!(!applying.puts_off(true, true));
    }

    #[test]
    fn what_has_waited_for_the_tables_is_applied_in_pieces() {
        let bytes = committed(1).iter().map(weight).sum::<usize>();
        let mut applying = Applying::default();
        (1..=5).for_each(|index| applying.add(committed(index)));
        assert!(!applying.lags());
        applying.hold();
        let mut taken = Vec::new();
        while applying.lags() {
            let piece = applying.take(2 * bytes);
            taken.push(piece.iter().map(|one| one.entry.index).collect::<Vec<_>>());
        }
        assert_eq!(taken, [vec![1, 2], vec![3, 4], vec![5]]);
        applying.add(committed(6));
        assert_eq!(applying.take(0).len(), 1, "one is taken, however large");
        applying.hold();
        assert!(!applying.lags(), "nothing waits");
    }

    #[test]
    fn acknowledging_ends_where_too_much_waits_and_goes_on_when_less_does() {
        let bytes = committed(1).iter().map(weight).sum::<usize>();
        let mut applying = Applying::default();
        assert!(!applying.limit(0), "nothing waits");
        let limit = |applying: &mut Applying| {
            let is_news = applying.limit(3 * bytes);
            (is_news, applying.acknowledge_max())
        };
        (1..=2).for_each(|index| applying.add(committed(index)));
        assert_eq!(limit(&mut applying), (false, None));
        applying.add(committed(3));
        assert_eq!(limit(&mut applying), (true, Some(3)));
        applying.add(committed(4));
        assert_eq!(limit(&mut applying), (false, Some(3)), "it does not follow what comes");
        applying.take(bytes);
        assert_eq!(limit(&mut applying), (false, Some(3)));
        applying.take(bytes);
        assert_eq!(limit(&mut applying), (true, None));
        (5..=9).for_each(|index| applying.add(committed(index)));
        assert_eq!(limit(&mut applying), (true, Some(9)));
        applying.forget_through(8);
        assert_eq!(applying.first().map(|entry| entry.index), Some(9));
        assert_eq!(limit(&mut applying), (true, None));
    }
}
