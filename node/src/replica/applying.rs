//! Committed entries on their way to the state machine: what somebody waits for goes first.
//!
//! Nobody waits for what a follower applies, but its leader waits for its log. Applying a batch
//! takes about as long as syncing it, and both are done on one thread. So a follower puts off
//! applying while its log has something to sync or a message is to leave.
//!
//! # Invariants
//! 1. A leader applies at once: its clients wait for it.
//! 2. Nothing waits for more than [`TURNS_MAX`] turns of the loop, whatever else happens.
//! 3. Entries are applied in the order in which they were committed.

use crate::raft::Committed;

/// Most turns of the loop by which applying is put off: two for the log to be synced, one for the
/// acknowledgement to leave. Too many: followers lag behind under load.
const TURNS_MAX: u32 = 3;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Applying {
    entries: Vec<Committed>,
    /// Turns that they have waited for.
    turns: u32,
    /// This turn has something for the log or for a peer.
    is_pressed: bool,
}

impl Applying {
    /// Adds what comes next.
    pub(super) fn add(&mut self, committed: Vec<Committed>) {
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

    /// Takes all that is there, to be applied now.
    pub(super) fn take(&mut self) -> Vec<Committed> {
        std::mem::take(&mut self.entries)
    }
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
        let indexes: Vec<_> = applying.take().iter().map(|one| one.entry.index).collect();
        assert_eq!(indexes, [1, 2]);
        assert!(applying.take().is_empty());
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
}
