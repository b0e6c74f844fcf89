//! The pruning rules of the engine, why each is sound, and the mistakes one can make in them.
//!
//! A configuration is *viable* if what it has not placed yet can still be placed so that every
//! answer is right and every order of real time is kept. The engine may drop a configuration only
//! if it is not viable, or if another one that it keeps is viable whenever this one is. Among the
//! ways to finish a viable configuration think of one that uses the fewest pending operations and,
//! among those, places the fewest operations before the one that must return now. Each rule keeps
//! some such way alive and never makes it longer; that is why they may be combined freely.
//!
//! Each rule can be switched off (the tests compare all of it with none of it and with a plain
//! exhaustive search), and for each there are mutants: the plausible mistakes, of which the tests
//! demand that the comparison finds every one.

/// A pruning rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// **1. Future reads.** A value must not be overwritten while an operation with an answer still
    /// has to read it, if nothing that could write it again is left. *Sound:* that operation must
    /// be placed later, and would then find the value gone for ever; the configuration is not
    /// viable. "Left" counts future writers too, which is why the whole history must be known.
    FutureReads,
    /// **2. Symmetry.** Of operations alike in condition and effect that could be placed now, only
    /// the one that returns first is tried; the pending ones after all that return. *Sound:* in a
    /// way that places b now and its like a later, swap them: both are invoked, their effects are
    /// the same, b (which returns later, or never) does fit where a was, because a had to fit there
    /// before its own, earlier, return.
    Symmetry,
    /// **3. Unobserved values.** All values of a cell that nobody reads or compares with count as
    /// one. *Sound:* conditions compare with observed values only, so they cannot tell them apart;
    /// a way to place the operations is right before the renaming exactly if it is after. The same
    /// holds in the middle of a history for the values that no operation which may still be placed
    /// reads or compares with.
    Unobserved,
    /// **4a. Eager reads.** An open operation that changes nothing is placed as soon as the state
    /// allows it. *Sound:* the state stays the same, so every way to finish without it placed is
    /// one with it placed.
    EagerReads,
    /// **4b. Antichain.** Of configurations of the same state one is dropped if another one used no
    /// more pending operations and, of the open operations, has those placed that this one has,
    /// except that it may have placed more that change nothing, and that it may be free to leave
    /// out (rule 5) what this one placed or still has to place. *Sound:* what is unused may stay
    /// unused, and what is free may be placed or not, so the other one can be finished in the same
    /// way.
    Antichain,
    /// **4c. Useful operations.** A pending operation, or an excused one, is placed only if some
    /// value that it writes still has a reader to come, or it overwrites a value that a clause to
    /// come does not want, or writes one that a clause wants. *Sound:* else leave it out. Until its
    /// cells are overwritten they then hold what they held before; no read sees the difference, and
    /// a clause that it made true, and that is false without it, is one of those two.
    ///
    /// Beyond that, a pending operation waits until somebody open notices it, unless something that
    /// could be placed now overwrites a cell that it writes or looks at, and what it writes to
    /// *another* cell is noticed later. *Sound:* it has no deadline. Behind what returns now it
    /// does the same, if nothing between reads what it wrote or overwrites a cell that it touches;
    /// and if something between overwrites the only cell that anybody would notice, nobody notices.
    UsefulPending,
    /// **5. Unseen writes.** When a write overwrites cells blindly, every open unconditional write
    /// of unobserved values to some of the same cells is *excused*: it may be left out, as if it
    /// were pending, because it can have taken effect just before, where nobody could look. Until
    /// it returns it may also still be placed where a clause needs it (then 4c holds for it as
    /// well). *Sound:* both are orders that real time allows, and with it excused no more is tried
    /// than with it unplaced.
    UnseenWrites,
    /// **6. Locality.** For the return of o only open operations are tried that are connected with
    /// it by a chain of conflicts (two that share a cell which one of them writes), through
    /// operations that can still be placed before o: what they read is there, or something else
    /// than o can write it. *Sound:* what is placed before o without such a chain commutes with
    /// everything between itself and o, so it can be placed after o; it has not returned, hence it
    /// may.
    Locality,
}

/// Which rules are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules(u8);

impl Rules {
    /// All rules.
    pub const ALL: Self = Self(u8::MAX);
    /// No rule: the plain just-in-time search.
    pub const NONE: Self = Self(0);

    /// Switches one rule off.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self(self.0 & !Self::bit(rule))
    }

    /// Tells whether a rule is on.
    pub const fn has(self, rule: Rule) -> bool {
        self.0 & Self::bit(rule) != 0
    }

    const fn bit(rule: Rule) -> u8 {
        1 << match rule {
            Rule::FutureReads => 0,
            Rule::Symmetry => 1,
            Rule::Unobserved => 2,
            Rule::EagerReads => 3,
            Rule::Antichain => 4,
            Rule::UsefulPending => 5,
            Rule::UnseenWrites => 6,
            Rule::Locality => 7,
        }
    }
}

/// A plausible mistake in a rule, for the tests of the checker only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Rule 1 without asking whether the value can be written again.
    FutureReadsIgnoresWriters,
    /// Rule 1 without seeing that the operation itself is the last reader (a compare-and-set).
    FutureReadsCountsItself,
    /// Rule 1 without pending writers of the same value.
    FutureReadsIgnoresPending,
    /// Rule 2 with the last return first.
    SymmetryLastFirst,
    /// Rule 2 with the pending operation before the open one.
    SymmetryPendingFirst,
    /// Rule 3 without the values that refused operations compare with.
    UnobservedIgnoresClauses,
    /// Rule 3 without the pending operations that may still read a value.
    UnobservedIgnoresPending,
    /// Rule 3 without the clauses that may still compare with a value.
    UnobservedForgetsClauses,
    /// Rule 4a also for writes of what is there already.
    EagerWrites,
    /// Rule 4b the wrong way round.
    AntichainKeepsMore,
    /// Rule 4b without comparing which open operations are placed.
    AntichainIgnoresPlaced,
    /// Rule 4c without clauses.
    UsefulIgnoresClauses,
    /// Rule 4c without pending readers.
    UsefulIgnoresPending,
    /// Rule 4c without looking at what else writes the cells.
    UsefulIgnoresContest,
    /// Rule 4c without looking at what else writes the cells that the operation looks at.
    UsefulIgnoresOwnReads,
    /// Rule 4c taking another pending operation for the operation itself.
    UsefulMiscountsItself,
    /// Rule 5 without clauses.
    UnseenIgnoresClauses,
    /// Rule 5 before a write that reads the cell.
    UnseenBeforeReader,
    /// Rule 6 without operations that only read.
    LocalityIgnoresReads,
    /// Rule 6 without pending operations that can write what is read.
    LocalityIgnoresPending,
}

impl Mutant {
    /// All mutants.
    pub const ALL: [Self; 20] = [
        Self::FutureReadsIgnoresWriters,
        Self::FutureReadsCountsItself,
        Self::FutureReadsIgnoresPending,
        Self::SymmetryLastFirst,
        Self::SymmetryPendingFirst,
        Self::UnobservedIgnoresClauses,
        Self::UnobservedIgnoresPending,
        Self::UnobservedForgetsClauses,
        Self::EagerWrites,
        Self::AntichainKeepsMore,
        Self::AntichainIgnoresPlaced,
        Self::UsefulIgnoresClauses,
        Self::UsefulIgnoresPending,
        Self::UsefulIgnoresContest,
        Self::UsefulIgnoresOwnReads,
        Self::UsefulMiscountsItself,
        Self::UnseenIgnoresClauses,
        Self::UnseenBeforeReader,
        Self::LocalityIgnoresReads,
        Self::LocalityIgnoresPending,
    ];
}
