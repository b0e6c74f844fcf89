//! The name plate of a data directory: which node of which cluster it belongs to.
//!
//! Written once, before anything else. A node that is started on a foreign directory is refused
//! instead of mixing two histories.
//!
//! # Layout
//! One frame (see [`crate::codec::frame`]) with the bincode of [`Identity`], in the file `NODE`.

use bincode::{Decode, Encode};
use bytes::BytesMut;

use crate::base::{ClusterId, NodeId};
use crate::codec::{self, FrameDecoder};
use crate::env::{Disk, DiskErrorKind, File};
use crate::storage::StorageError;

const PATH: &str = "NODE";
const PATH_NEW: &str = "NODE.tmp";
const FORMAT_VERSION: u32 = 1;
const BYTES_MAX: usize = 4096;

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Identity {
    format: u32,
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
}

impl Identity {
    pub(super) fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self { format: FORMAT_VERSION, cluster, node }
    }
}

/// Checks that the directory is this node's, or makes it so if it is empty.
///
/// # Errors
/// It belongs to another node, holds foreign files, or the disk fails.
pub(super) async fn claim<D: Disk>(disk: &D, own: &Identity) -> Result<(), StorageError> {
    match disk.open(PATH).await {
        Ok(file) => {
            let found = read(&file)?;
            if &found == own { Ok(()) } else { Err(foreign(&found)) }
        }
        Err(error) if error.kind == DiskErrorKind::NotFound => create(disk, own).await,
        Err(error) => Err(error.into()),
    }
}

async fn create<D: Disk>(disk: &D, own: &Identity) -> Result<(), StorageError> {
    let known = ["LOCK", PATH_NEW];
    let names = disk.list("").await?;
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(StorageError::Format {
            path: name.clone(),
            found: "a directory with other files and no NODE file".to_owned(),
            expected: "an empty directory, or one that this node has used before",
        });
    }
    publish(disk, own).await
}

/// Makes the directory this node's, durably.
///
/// # Errors
/// The disk refuses.
pub(super) async fn publish<D: Disk>(disk: &D, own: &Identity) -> Result<(), StorageError> {
    let mut bytes = Vec::new();
    codec::encode_frame(&mut bytes, |buffer| codec::encode_into(own, buffer));
    let file = disk.create(PATH_NEW).await?;
    file.write_at(0, &bytes).await?;
    file.sync().await?;
    disk.rename(PATH_NEW, PATH).await?;
    disk.sync_dir("").await?;
    Ok(())
}

fn read<F: File>(file: &F) -> Result<Identity, StorageError> {
    let corrupt = |what: String| StorageError::Corrupt { path: PATH.to_owned(), offset: 0, what };
    let mut bytes = vec![0; BYTES_MAX];
    let len = file.read_at(0, &mut bytes)?;
    let mut buffer = BytesMut::from(bytes.get(..len).unwrap_or_default());
    let frame = FrameDecoder::new(BYTES_MAX)
        .decode(&mut buffer)
        .map_err(|error| corrupt(error.to_string()))?
        .ok_or_else(|| corrupt("the file is cut short".to_owned()))?;
    codec::decode(&frame).map_err(|error| corrupt(error.to_string()))
}

fn foreign(found: &Identity) -> StorageError {
    StorageError::Format {
        path: PATH.to_owned(),
        found: format!("node {} of cluster {}", found.node, found.cluster),
        expected: "only the node and cluster it was started with first",
    }
}
