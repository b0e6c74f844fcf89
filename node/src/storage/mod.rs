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
pub mod snapshot;
pub mod table;
pub mod tree;
pub mod wal;

#[cfg(test)]
pub(crate) mod test_disk;

pub use cell::{Cell, Content};
pub use engine::{Change, Engine, SnapshotPoint, Stored};
pub use error::StorageError;
pub use tree::Tree;

use std::future::poll_fn;
use std::task::Poll;

/// Gives the other tasks a turn.
pub(crate) async fn let_others_run() {
    let mut asked = false;
    poll_fn(|context| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
