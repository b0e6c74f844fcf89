//! A window for the simulation: what a replica does, as it does it.
//!
//! The checkers of the simulation look at every step of every node through this. The shipped
//! program observes nothing: `()` is an observer whose calls are empty and compile to nothing.

use crate::base::{Index, Instant, Term};
use crate::raft::{Input, Raft, Ready, Recovered};

/// Watches one replica. Must not influence it.
pub trait Observer: Send + 'static {
    /// The replica starts from what it found on its disk.
    fn on_start(&mut self, _now: Instant, _recovered: &Recovered, _applied: Index) {}

    /// The core is about to take an input.
    fn on_input(&mut self, _now: Instant, _core: &Raft, _input: &Input) {}

    /// The core has said what is to be done, and nothing of it has happened yet.
    fn on_ready(&mut self, _now: Instant, _core: &Raft, _ready: &Ready) {}

    /// An entry was applied; `hash` covers all commands and answers up to it.
    fn on_applied(&mut self, _now: Instant, _index: Index, _term: Term, _hash: u64) {}

    /// The state machine was replaced by a snapshot of the leader's.
    fn on_installed(&mut self, _now: Instant, _index: Index, _term: Term) {}
}

impl Observer for () {}
