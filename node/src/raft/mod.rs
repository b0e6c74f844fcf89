//! The primary-backup protocol: Raft as a plain value.

pub mod core;
mod durable;
mod election;
mod invariants;
pub mod log;
pub mod message;
pub mod progress;
pub mod quorum;
mod read;
pub mod ready;
mod replication;
mod snapshot;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod properties;

pub use self::core::{Config, Raft, Role};
pub use log::Log;
pub use message::{AppendOutcome, Entry, EntryKind, Message, SnapshotMeta, SnapshotOutcome};
pub use progress::{Progress, ProgressState};
pub use ready::{
    Committed, HardState, Input, Persist, PersistId, Ready, Recovered, Reply, SnapshotRead,
    SnapshotWrite, Token,
};
