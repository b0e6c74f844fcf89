//! A saved snapshot as the first state of a new cluster.
//!
//! Every member is given the same file before any of them is started. Each then has the state at
//! the same position, term and index, no log after it, and no vote: to the protocol that is a
//! cluster of followers that have all cut their logs at the same entry, so the first leader goes
//! on from there. The term that the first start takes is that of the position, in which nobody of
//! this cluster has voted; the first election is in the next one.
//!
//! The sessions of clients come with the state. They do no harm: the id of a new one is made of its
//! position and a number that its client has drawn, and one that meets a known id moves on to the
//! next that is free. Taking them out would make another state of it.
//!
//! A node whose log is gone must not be taken for such a one. So the log gets a first record, which
//! says that this state was installed, and that there is no vote before it.
//!
//! # Invariants
//! 1. The name plate comes last. A directory in which a restoration was interrupted is refused by
//!    a node, which would else take part with nothing.

use super::super::config::NodeConfig;
use super::super::identity::{self, Identity};
use super::super::persist::KIND_INSTALL;
use super::super::start::{STATE_DIR, WAL_DIR};
use super::super::state::meta;
use crate::codec;
use crate::env::{Disk, File};
use crate::kv::Machine;
use crate::planted;
use crate::storage::snapshot::{Contents, Summary, verify};
use crate::storage::{StorageError, let_others_run, tree, wal};

/// Why a snapshot was not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Only a new node can be given a state.
    #[error("there is {name:?} in the data directory already")]
    NotEmpty {
        /// A file in it.
        name: String,
    },
    /// A snapshot is a position of a log that all nodes share, which the masterless mode has not.
    #[error(
        "a snapshot is of the primary-backup mode; for a masterless cluster, start the nodes, then \
         `mangrove import` what `mangrove export` wrote"
    )]
    Masterless,
    /// The file is damaged, or the disk refuses.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Makes the snapshot in `file` the state of a node that has never run; `path` is for errors.
///
/// # Errors
/// The directory is not empty, the snapshot is damaged, or the disk refuses. The directory is then
/// of no use, and no node starts on it.
pub async fn restore<D: Disk, F: File>(
    disk: &D,
    config: &NodeConfig,
    file: &F,
    path: &str,
) -> Result<Summary, RestoreError> {
    if config.mode().is_masterless() {
        return Err(RestoreError::Masterless);
    }
    let names = disk.list("").await.map_err(StorageError::from)?;
    if let Some(name) = names.into_iter().find(|name| name != "LOCK") {
        return Err(RestoreError::NotEmpty { name });
    }
    if planted!("F22") {
        identity::publish(disk, &Identity::of(config)).await?;
    }
    let summary = verify(file, path).await?;
    let (mut tree, mut keeper, _) = tree::open(disk.clone(), STATE_DIR, config.tree).await?;
    keeper.begin_replacement().await?;
    let mut contents = Contents::open(file, path)?;
    while contents.next_block()? {
        keeper.push_replacement(contents.cells()).await?;
        let_others_run().await;
    }
    let extra = summary.extra.clone();
    tree.adopt(keeper.finish_replacement(summary.point, extra).await?);
    // What a start would refuse is better refused now.
    Machine::restore(tree, &summary.extra, config.sessions_max)?;
    begin_log(disk, config, &summary).await?;
    identity::publish(disk, &Identity::of(config)).await?;
    Ok(summary)
}

/// Begins the log of a node whose first state this is.
async fn begin_log<D: Disk>(
    disk: &D,
    config: &NodeConfig,
    summary: &Summary,
) -> Result<(), StorageError> {
    let options = wal::Options { segment_bytes: config.wal_segment_bytes };
    let (mut log, _) = wal::open(disk, WAL_DIR, options).await?;
    let installed = meta(summary.point);
    log.append_critical(KIND_INSTALL, 0, |buffer| codec::encode_into(&installed, buffer));
    log.write().await?;
    log.sync().await?;
    log.close().await
}
