//! The name plate of a data directory: which node of which cluster it belongs to.
//!
//! Written once, before anything else. A node that is started on a foreign directory is refused
//! instead of mixing two histories.
//!
//! # Layout
//! One frame (see [`crate::codec::frame`]) in the file `NODE`, with the bincode of
//! ```text
//! (1 u32, cluster, node)                  in the primary-backup mode, as versions before wrote it
//! (2 u32, cluster, node, placement u64)   in the masterless mode: the hash of who holds what
//! (3 u32, cluster, node, group u64)       in the primary-backup mode: the hash of its nodes
//! ```
//! A name plate of the first kind gives way to one of the third at the next start.

use bytes::BytesMut;

use super::config::NodeConfig;
use crate::base::{ClusterId, NodeId};
use crate::codec::{self, DecodeError, FrameDecoder};
use crate::env::{Disk, DiskErrorKind, File};
use crate::planted;
use crate::storage::StorageError;
use crate::wire::Mode;

const PATH: &str = "NODE";
const PATH_NEW: &str = "NODE.tmp";
const FORMAT_GROUPLESS: u32 = 1;
const FORMAT_MASTERLESS: u32 = 2;
const FORMAT_PRIMARY_BACKUP: u32 = 3;
const BYTES_MAX: usize = 4096;

/// What a name plate without a group says: any may be meant.
const ANY_GROUP: Mode = Mode::PrimaryBackup { group: 0 };

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) mode: Mode,
}

impl Identity {
    /// Returns whose directory a node with this configuration needs.
    pub(super) fn of(config: &NodeConfig) -> Self {
        Self { cluster: config.cluster, node: config.node, mode: config.mode() }
    }

    /// Returns the bytes of the file.
    fn to_file(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_frame(&mut bytes, |buffer| self.encode_into(buffer));
        bytes
    }

    fn encode_into(&self, buffer: &mut Vec<u8>) {
        let Self { cluster, node, mode } = *self;
        match mode {
            ANY_GROUP => codec::encode_into(&(FORMAT_GROUPLESS, cluster, node), buffer),
            Mode::PrimaryBackup { group } => {
                codec::encode_into(&(FORMAT_PRIMARY_BACKUP, cluster, node, group), buffer);
            }
            Mode::Masterless { placement } => {
                codec::encode_into(&(FORMAT_MASTERLESS, cluster, node, placement), buffer);
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if let Ok((FORMAT_GROUPLESS, cluster, node)) =
            codec::decode::<(u32, ClusterId, NodeId)>(bytes)
        {
            return Ok(Self { cluster, node, mode: ANY_GROUP });
        }
        let (format, cluster, node, hash) = codec::decode::<(u32, ClusterId, NodeId, u64)>(bytes)?;
        let mode = match format {
            FORMAT_MASTERLESS => Mode::Masterless { placement: hash },
            FORMAT_PRIMARY_BACKUP => Mode::PrimaryBackup { group: hash },
            _ => return Err(DecodeError::Malformed(format!("format {format}"))),
        };
        Ok(Self { cluster, node, mode })
    }

    /// Tells whether it is the name plate of `other`, from before there were groups.
    fn is_before(&self, other: &Self) -> bool {
        let is_same_node = (self.cluster, self.node) == (other.cluster, other.node);
        is_same_node && self.mode == ANY_GROUP && !other.mode.is_masterless()
    }
}

/// Returns whose directory it is; `None` if that cannot be told.
pub(super) async fn owner<D: Disk>(disk: &D) -> Option<Identity> {
    let file = disk.open(PATH).await.ok()?;
    read(&file).ok()
}

/// Returns how the cluster replicates that the directory is of; `None` if that cannot be told.
pub async fn mode_of<D: Disk>(disk: &D) -> Option<Mode> {
    owner(disk).await.map(|owner| owner.mode)
}

/// Checks that the directory is this node's, or makes it so if it is empty.
///
/// # Errors
/// It belongs to another node, holds foreign files, or the disk fails.
pub(super) async fn claim<D: Disk>(disk: &D, own: &Identity) -> Result<(), StorageError> {
    match disk.open(PATH).await {
        Ok(file) => {
            let found = read(&file)?;
            if &found == own {
                return Ok(());
            }
            if found.is_before(own) {
                return publish(disk, own).await;
            }
            Err(foreign(&found, own))
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
    let file = disk.create(PATH_NEW).await?;
    file.write_at(0, &own.to_file()).await?;
    file.sync().await?;
    disk.rename(PATH_NEW, PATH).await?;
    disk.sync_dir("").await?;
    Ok(())
}

fn read<F: File>(file: &F) -> Result<Identity, StorageError> {
    let corrupt = |what: String| StorageError::Corrupt { path: PATH.to_owned(), offset: 0, what };
    let mut bytes = vec![0; BYTES_MAX];
    let len = file.read_at(0, &mut bytes)?;
    let len = if planted!("F14") { len.saturating_sub(1) } else { len };
    let mut buffer = BytesMut::from(bytes.get(..len).unwrap_or_default());
    let frame = FrameDecoder::new(BYTES_MAX)
        .decode(&mut buffer)
        .map_err(|error| corrupt(error.to_string()))?
        .ok_or_else(|| corrupt("the file is cut short".to_owned()))?;
    Identity::decode(&frame).map_err(|error| corrupt(error.to_string()))
}

/// Reads the name plate in `file`, and returns the file as it would be written again.
///
/// # Errors
/// The bytes are no name plate.
#[cfg(feature = "testing")]
pub fn reread_name_plate<F: File>(file: &F) -> Result<Vec<u8>, StorageError> {
    Ok(read(file)?.to_file())
}

fn foreign(found: &Identity, own: &Identity) -> StorageError {
    let is_same_node = (found.cluster, found.node) == (own.cluster, own.node);
    let expected = match (found.mode.is_masterless(), own.mode.is_masterless()) {
        _ if !is_same_node => "only the node and cluster it was started with first",
        (true, true) => {
            "the --members, --replication-factor and --partitions it was started with first"
        }
        (true, false) | (false, true) => {
            "the --mode it was started with first; to change it, export and import into another \
             cluster"
        }
        (false, false) => "the --members (their ids) and --sessions-max it was started with first",
    };
    StorageError::Format {
        path: PATH.to_owned(),
        found: format!("node {} of cluster {}, {}", found.node, found.cluster, found.mode),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::test_disk::{TestDisk, run};

    fn identity(mode: Mode) -> Identity {
        Identity { cluster: ClusterId(0xBEEF), node: NodeId(300), mode }
    }

    #[test]
    fn both_modes_have_a_name_plate_that_is_read_back() {
        let group = u64::MAX;
        for mode in
            [ANY_GROUP, Mode::PrimaryBackup { group }, Mode::Masterless { placement: u64::MAX }]
        {
            let mut bytes = Vec::new();
            identity(mode).encode_into(&mut bytes);
            assert_eq!(Identity::decode(&bytes), Ok(identity(mode)));
            bytes.push(0);
            assert!(Identity::decode(&bytes).is_err());
        }
        assert!(Identity::decode(&codec::encode(&(9_u32, 1_u64, 2_u64, 3_u64))).is_err());
    }

    #[test]
    fn complaint_about_a_foreign_directory_names_what_to_change() {
        let masterless = |placement| identity(Mode::Masterless { placement });
        let backup = |group| identity(Mode::PrimaryBackup { group });
        let other_node = Identity { node: NodeId(2), ..backup(1) };
        for (found, own, advice) in [
            (masterless(1), masterless(2), "--replication-factor"),
            (masterless(1), backup(1), "--mode"),
            (backup(1), masterless(1), "--mode"),
            (backup(1), backup(2), "--sessions-max"),
            (other_node, backup(1), "the node and cluster"),
        ] {
            let complaint = foreign(&found, &own).to_string();
            assert!(complaint.contains(advice), "{complaint}");
        }
    }

    /// The accident: a node that was started again with fewer --members, or other --sessions-max,
    /// took part, and counted other majorities, or made other states, than the others.
    #[test]
    fn directory_is_refused_to_another_group_and_an_older_name_plate_gets_one() {
        let [one, two] = [1, 2].map(|group| identity(Mode::PrimaryBackup { group }));
        let disk = TestDisk::default();
        run(publish(&disk, &identity(ANY_GROUP))).unwrap();
        run(claim(&disk, &one)).unwrap();
        assert_eq!(run(owner(&disk)), Some(one.clone()));
        run(claim(&disk, &one)).unwrap();
        let refused = run(claim(&disk, &two));
        assert!(matches!(refused, Err(StorageError::Format { .. })), "{refused:?}");
    }
}
