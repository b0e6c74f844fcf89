//! What a node keeps on its disk: the write-ahead log, and the cells with their checkpoint.
//!
//! Both replication modes use it. It stands on [`crate::env::Disk`] and knows neither which
//! protocol fills the log nor what the cells mean.

pub mod error;
pub mod wal;

pub use error::StorageError;
