//! What is done with the files of a node that does not run: looking, salvaging, restoring.
//!
//! The commands of an operator who has lost something ([`crate::cli`]) end here, because only the
//! shell knows both of a node's stores, the log and the tables. All of them work on a directory
//! that they hold the lock of.
//!
//! | | reads | writes |
//! |---|---|---|
//! | [`verify_store`] | every byte of the tables, and the name plate | nothing |
//! | [`salvage()`] | what is whole of tables and log | a scratch directory |
//! | [`restore()`] | a saved snapshot | the data directory of a node that has never run |
//!
//! # Left out
//! Mending a damaged store in its place: in a cluster the others have the state, and alone nothing
//! tells what the damaged bytes were.

mod restore;
mod salvage;
#[cfg(test)]
mod tests;

pub use restore::{RestoreError, restore};
pub use salvage::{LogReport, SalvageReport, salvage};

use super::identity;
use super::start::STATE_DIR;
use crate::env::Disk;
use crate::storage::StorageError;
pub use crate::storage::snapshot::{Summary as SnapshotSummary, verify as verify_snapshot};
pub use crate::storage::tree::{Lost, PlaceRange, StoreReport, TableReport, Wound};

/// Reads and verifies every byte of the tables of a node that does not run, and its name plate, if
/// it has one; `on_table` is told of each table when it has been read. Changes nothing.
///
/// # Errors
/// There are no tables, another version of the program wrote them, or this process may not open
/// them. Damage is no error.
pub async fn verify_store<D: Disk>(
    disk: &D,
    on_table: impl FnMut(&TableReport),
) -> Result<StoreReport, StorageError> {
    let mut report = crate::storage::tree::examine(disk, STATE_DIR, on_table).await?;
    if let Some((error, is_mended)) = identity::damage(disk).await? {
        let mut wound = Wound::of(&error, identity::PATH);
        wound.what.push_str(if is_mended {
            "; the next start mends it from the other copy"
        } else {
            "; the node does not start, and says what to do"
        });
        report.wounds.push(wound);
    }
    Ok(report)
}
