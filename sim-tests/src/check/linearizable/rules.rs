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
    /// a way to place the operations is right before the renaming exactly if it is after.
    Unobserved,
    /// **4a. Eager reads.** An open operation that changes nothing is placed as soon as the state
    /// allows it. *Sound:* the state stays the same, so every way to finish without it placed is
    /// one with it placed.
    EagerReads,
    /// **4b. Antichain.** Of configurations that differ only in the pending operations they used,
    /// one that used more than another is dropped. *Sound:* what is unused may stay unused, so the
    /// other one can be finished in the same way.
    Antichain,
    /// **4c. Useful pending operations.** A pending operation is placed only if some value that it
    /// writes still has a reader to come, or its cell occurs in a clause. *Sound:* else leave it
    /// out: the cells differ from before only until they are overwritten, and nobody looks.
    UsefulPending,
    /// **5. Unseen writes.** When a write overwrites cells blindly, every open unconditional write
    /// of unobserved values to some of the same cells is placed just before it, unless the cells
    /// occur in a clause. *Sound:* nobody can look in between, and left out of where it was it is
    /// missed by nobody, as in 4c.
    UnseenWrites,
    /// **6. Locality.** For the return of o only operations connected with it by a chain of
    /// conflicts (two that share a cell which one of them writes) among the open ones are tried.
    /// *Sound:* one that has no chain to o commutes with everything between itself and o, so it can
    /// be placed after o; it has not returned, hence it may.
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
    /// Rule 5 without clauses.
    UnseenIgnoresClauses,
    /// Rule 5 before a write that reads the cell.
    UnseenBeforeReader,
    /// Rule 6 without operations that only read.
    LocalityIgnoresReads,
}

impl Mutant {
    /// All mutants.
    pub const ALL: [Self; 14] = [
        Self::FutureReadsIgnoresWriters,
        Self::FutureReadsCountsItself,
        Self::FutureReadsIgnoresPending,
        Self::SymmetryLastFirst,
        Self::SymmetryPendingFirst,
        Self::UnobservedIgnoresClauses,
        Self::EagerWrites,
        Self::AntichainKeepsMore,
        Self::AntichainIgnoresPlaced,
        Self::UsefulIgnoresClauses,
        Self::UsefulIgnoresPending,
        Self::UnseenIgnoresClauses,
        Self::UnseenBeforeReader,
        Self::LocalityIgnoresReads,
    ];
}
