//! The checkers: every promise of the store, one property a file.
//!
//! Two families for the primary-backup mode; the [masterless] mode has its own. The *invariant*
//! checkers watch the nodes: the harness tells them after each event what a node appended,
//! committed, applied, and they answer at once when that contradicts what they saw before. The
//! *client* checkers judge the [history](crate::history) after the run and know nothing of nodes.
//! Neither asks the other: a bug in the protocol that no client noticed is still a bug, and so is
//! a wrong answer of a cluster whose invariants all held. Three compare the one with the other:
//! [`exactly_once`] and [`versions`] do after each run, [`replay`] where all evidence was
//! collected.
//!
//! Each file says its property in words, why the obvious check is wrong, what it leaves out, and
//! where the property is from.

pub mod client;
pub mod committed_immutable;
pub mod durability;
pub mod election_safety;
pub mod exactly_once;
pub mod invariants;
pub mod leader_completeness;
pub mod linearizable;
pub mod liveness;
pub mod log_matching;
pub mod masterless;
pub mod mirror;
pub mod mute;
pub mod own_disk;
pub mod replay;
pub mod session_order;
pub mod state_machine_safety;
pub mod term_monotonic;
pub mod versions;

use std::fmt;

pub use invariants::{Invariants, Observation, Restart};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which checker found it.
    pub checker: &'static str,
    /// What is wrong, with all values that a person needs.
    pub what: String,
    /// When: the number of the event, or the simulated time in nanoseconds, as the harness counts.
    pub at: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.checker, self.at, self.what)
    }
}

impl std::error::Error for Violation {}

/// Says that a promise was broken, unless that checker is [mute].
pub(crate) fn broken(checker: &'static str, at: u64, what: String) -> Result<(), Violation> {
    if mute::is(checker) { Ok(()) } else { Err(Violation { checker, what, at }) }
}
