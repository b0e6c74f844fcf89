//! The primary-backup protocol: Raft as a plain value.

pub mod message;
pub mod ready;

pub use message::{AppendOutcome, Entry, EntryKind, Message, SnapshotMeta, SnapshotOutcome};
pub use ready::{
    Committed, HardState, Input, Persist, PersistId, Ready, Recovered, Reply, SnapshotRead,
    SnapshotWrite, Token,
};
