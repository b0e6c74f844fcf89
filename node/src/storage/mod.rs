//! What a node keeps on its disk: the write-ahead log, and the cells with their checkpoint.
//!
//! Both replication modes use it. It stands on [`crate::env::Disk`] and knows neither which
//! protocol fills the log nor what the cells mean.
//!
//! The cells stand behind the trait [`Engine`]: the newest value of every place in memory
//! ([`Store`]), made durable as a whole from time to time ([`checkpoint`]), with the write-ahead
//! log covering what came since. After a crash: load the newest checkpoint, then apply the log
//! from there on.
//!
//! # Left out
//! Data larger than memory. A log-structured merge tree is to take the place of [`Store`] behind
//! the same trait.

pub mod cell;
pub mod checkpoint;
pub mod engine;
pub mod error;
pub mod memtable;
pub mod store;
pub mod table;
pub mod wal;

#[cfg(test)]
pub(crate) mod test_disk;

pub use cell::{Cell, Content};
pub use checkpoint::{Checkpoints, StoreRecovery};
pub use engine::{Change, CheckpointChunk, CheckpointEngine, Engine, SnapshotPoint, Stored};
pub use error::StorageError;
pub use store::Store;
