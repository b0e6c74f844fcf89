//! A window for the simulation: what a replica does, as it does it.
//!
//! The checkers of the simulation look at every step of every node through this. The shipped
//! program observes nothing: `()` is an observer whose calls are empty and compile to nothing.

use crate::base::Instant;
use crate::dynamo::{self, Dynamo, PersistId, Record};
use crate::kv::CommandReply;
use crate::raft::{Entry, Input, Raft, Ready, Recovered, SnapshotMeta};

/// Watches one replica. Must not influence it.
pub trait Observer: Send + 'static {
    /// The replica starts from what it found on its disk.
    ///
    /// Its state machine is in the state of the recovered snapshot; `hash` as in
    /// [`on_applied`](Self::on_applied).
    fn on_start(&mut self, _now: Instant, _recovered: &Recovered, _hash: u64) {}

    /// The core is about to take an input.
    fn on_input(&mut self, _now: Instant, _core: &Raft, _input: &Input) {}

    /// The core has said what is to be done, and nothing of it has happened yet.
    fn on_ready(&mut self, _now: Instant, _core: &Raft, _ready: &Ready) {}

    /// An entry was applied, with this answer if it was a command; `hash` covers all commands and
    /// answers up to it.
    fn on_applied(
        &mut self,
        _now: Instant,
        _entry: &Entry,
        _reply: Option<&CommandReply>,
        _hash: u64,
    ) {
    }

    /// The state machine was replaced by a snapshot of the leader's; `hash` as above.
    fn on_installed(&mut self, _now: Instant, _meta: SnapshotMeta, _hash: u64) {}

    /// A replica of the masterless mode starts from what it found on its disk.
    fn on_masterless_start(&mut self, _now: Instant, _recovered: &dynamo::Recovered) {}

    /// The masterless core is about to take an input.
    fn on_masterless_input(&mut self, _now: Instant, _core: &Dynamo, _input: &dynamo::Input) {}

    /// The masterless core has said what is to be done, and nothing of it has happened yet.
    fn on_masterless_ready(&mut self, _now: Instant, _core: &Dynamo, _ready: &dynamo::Ready) {}

    /// The records of a persist request were applied to the store, at a start from the log or
    /// because the masterless core said so.
    fn on_masterless_applied(&mut self, _now: Instant, _id: PersistId, _records: &[Record]) {}
}

impl Observer for () {}
