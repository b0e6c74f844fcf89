//! What a node keeps on its disk: the write-ahead log, and the cells in sorted tables.
//!
//! Both replication modes use it. It stands on [`crate::env::Disk`] and knows neither which
//! protocol fills the log nor what the cells mean.
//!
//! The cells stand behind the trait [`Engine`]: what is new in memory, the rest in sorted tables
//! ([`tree`]), with the write-ahead log covering what is in memory alone. After a crash: open the
//! tables, then apply the log from there on. To another node the state goes as a [`snapshot`].

pub mod cell;
pub mod engine;
pub mod error;
pub mod purge;
pub mod snapshot;
pub mod table;
pub mod tree;
pub mod wal;

#[cfg(any(test, feature = "testing"))]
pub mod test_disk;

pub use cell::{Cell, Content};
pub use engine::{Change, Engine, Passed, Raw, SnapshotPoint, Stored};
pub use error::StorageError;
pub use purge::PurgeFloors;
pub use tree::Tree;

/// Gives the other tasks a turn, those included that only now hear from the network.
///
/// On tokio that is more than to be woken again at once: as long as some task can run, tokio looks
/// at the network after every 61 turns only, which may be ten milliseconds of merging.
pub(crate) async fn let_others_run() {
    tokio::task::yield_now().await;
}
