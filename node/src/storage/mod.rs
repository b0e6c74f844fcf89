//! What a node keeps on its disk: the write-ahead log, and the cells with their checkpoint.
//!
//! Both replication modes use it. It stands on [`crate::env::Disk`] and knows neither which
//! protocol fills the log nor what the cells mean.
//!
//! The cells stand behind the trait [`Engine`], of which there are two. [`Tree`] keeps the newest
//! writes in memory and the rest in sorted [tables](table), of which there may be far more than
//! memory holds. [`Store`] keeps everything in memory, made durable as a whole from time to time
//! ([`checkpoint`]). With either, the write-ahead log covers what came since: after a crash, open
//! what is on disk, then apply the log from there on.

pub mod cell;
pub mod checkpoint;
pub mod engine;
pub mod error;
pub mod memtable;
pub mod store;
pub mod table;
pub mod tree;
pub mod wal;

#[cfg(test)]
pub(crate) mod test_disk;

pub use cell::{Cell, Content};
pub use checkpoint::{Checkpoints, StoreRecovery};
pub use engine::{Change, CheckpointChunk, CheckpointEngine, Engine, SnapshotPoint, Stored};
pub use error::StorageError;
pub use store::Store;
pub use tree::Tree;
