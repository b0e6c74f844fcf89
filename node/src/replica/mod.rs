//! The shell: the one place where a protocol core meets the environment.
//!
//! [`Replica`] owns the core, the state machine and the queues, and runs one loop: take what has
//! arrived, step the core, carry out what it wants. The loop never waits for a disk or a peer:
//! - the *log task* (`persist`) makes state durable and reports back;
//! - the *state task* (`state`) writes tables and moves pieces of snapshots;
//! - one *peer task* per peer and one *connection task* per client move bytes ([`crate::server`]).
//!
//! ```text
//!  clients ─► connection tasks ─┐                         ┌─► log task ──► write-ahead log
//!                               ├─► inbox ─► the loop ────┼─► state task ──► tables
//!  peers ──► connection tasks ──┘    ▲     core, machine  └─► outboxes ─► peers, clients
//!                                    └────── reports ◄──────── (log, state tasks)
//! ```
//!
//! # Invariants
//! 1. Nothing leaves before the core hands it out, and the core hands out nothing that needs an
//!    fsync before the log task has reported that fsync.
//! 2. Every admitted request is answered exactly once.
//! 3. A storage failure other than a full disk ends the node; nothing is tried again.
//!
//! # Left out
//! Votes, commit rules, quorums: see [`crate::raft`]. Bytes on the wire: see [`crate::server`].

mod alarm;
mod applying;
pub mod config;
mod disk_full;
mod dynamo;
mod ending;
mod gathering;
mod identity;
mod inbox;
mod observer;
pub mod offline;
mod outbox;
mod pending;
pub mod persist;
mod reading;
pub mod recovery;
mod saving;
mod shell;
mod stalls;
mod start;
mod state;

#[cfg(test)]
mod tests;

pub use crate::dynamo::placement::{PARTITION_COUNT_MAX, partition_of_place, without_prefix};
pub use crate::storage::snapshot::DIRECTORY as TRANSFER_DIR;
pub use config::{
    Compression, Masterless, NodeConfig, Repair, Replication, SESSIONS_MAX_USUAL, SyncPolicy,
};
pub use dynamo::MasterlessReplica;
#[cfg(feature = "testing")]
pub use dynamo::judge_masterless_log;
pub use ending::StopReason;
#[cfg(feature = "testing")]
pub use identity::reread_name_plate;
pub use identity::{PATH as NAME_PLATE, cluster_of, mode_of};
pub use inbox::{Inbox, Submitted};
pub use observer::Observer;
pub use outbox::{ClientOutbox, KEPT_BYTES_MAX, PeerOutbox};
pub use shell::Replica;
pub use start::{STATE_DIR, StartError, WAL_DIR, dump_log};
