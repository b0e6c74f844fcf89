//! The name plate of a data directory: which node of which cluster it belongs to.
//!
//! Written once, before anything else. A node that is started on a foreign directory is refused
//! instead of mixing two histories.
//!
//! One flipped bit in it would keep a node with a sound log and sound tables away for ever. So the
//! file holds its content twice, each copy in a block of its own: one may rot or be lost, and the
//! other still says it all. A start that needed only one of them writes both anew, aside, synced,
//! and renamed over the old file; a crash leaves the old file or the new one. Both copies are
//! always of one making, so no crash leaves copies that differ. If they do, somebody has put them
//! together, nothing tells which one the log and the tables belong to, and the node is refused.
//!
//! # Layout
//! ```text
//! file   copy │ the same again
//! copy   frame │ zeros to 4096 bytes
//! ```
//! The frame (see [`crate::codec::frame`]) in the file `NODE` has the bincode of
//! ```text
//! (1 u32, cluster, node)                  in the primary-backup mode, as versions before wrote it
//! (2 u32, cluster, node, placement u64)   in the masterless mode: the hash of who holds what
//! (3 u32, cluster, node, group u64)       in the primary-backup mode: the hash of its nodes
//! ```
//! A name plate of the first kind gives way to one of the third at the next start. Versions before
//! wrote the frame once, with nothing after it, and read the first copy of two; such a file gets
//! its second copy at the next start.

use std::fmt;

use bytes::BytesMut;
use tracing::{info, warn};

use super::config::NodeConfig;
use crate::base::{ClusterId, NodeId};
use crate::codec::{self, DecodeError, FrameDecoder};
use crate::env::{Disk, DiskErrorKind, File};
use crate::storage::StorageError;
use crate::wire::Mode;
use crate::{planted, probe};

/// Name of the file.
pub const PATH: &str = "NODE";
const PATH_NEW: &str = "NODE.tmp";
const FORMAT_GROUPLESS: u32 = 1;
const FORMAT_MASTERLESS: u32 = 2;
const FORMAT_PRIMARY_BACKUP: u32 = 3;

/// Bytes of a copy with its zeros: no disk loses more at once.
const COPY_BYTES: usize = 4096;

/// Where the second copy begins.
const SECOND_AT: u64 = 4096;

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
        let mut copy = Vec::with_capacity(COPY_BYTES);
        codec::encode_frame(&mut copy, |buffer| self.encode_into(buffer));
        assert!(copy.len() <= COPY_BYTES, "a name plate of {} bytes", copy.len());
        copy.resize(COPY_BYTES, 0);
        copy.repeat(2)
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

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {}, {}", self.node, self.cluster, self.mode)
    }
}

/// What the file says, and whether it is to be written anew.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    identity: Identity,
    flaw: Option<Flaw>,
}

/// Why a file that says whose directory it is does not say it twice.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    /// It ends after the first copy: a version before wrote it.
    OneCopy,
    /// One of the two is damaged.
    Damaged(StorageError),
}

/// Returns whose directory it is; `None` if that cannot be told.
pub(super) async fn owner<D: Disk>(disk: &D) -> Option<Identity> {
    let file = disk.open(PATH).await.ok()?;
    read(&file).ok().map(|found| found.identity)
}

/// Returns how the cluster replicates that the directory is of; `None` if that cannot be told.
pub async fn mode_of<D: Disk>(disk: &D) -> Option<Mode> {
    owner(disk).await.map(|owner| owner.mode)
}

/// Returns which cluster the directory is of; `None` if that cannot be told.
pub async fn cluster_of<D: Disk>(disk: &D) -> Option<ClusterId> {
    owner(disk).await.map(|owner| owner.cluster)
}

/// Returns what is damaged of the name plate of a node that does not run, and whether its other
/// copy still says whose the directory is. Changes nothing.
///
/// # Errors
/// This process may not open it.
pub(super) async fn damage<D: Disk>(
    disk: &D,
) -> Result<Option<(StorageError, bool)>, StorageError> {
    let file = match disk.open(PATH).await {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        Err(error) if error.is_loss() => return Ok(Some((error.into(), false))),
        Err(error) => return Err(error.into()),
    };
    Ok(match read(&file) {
        Ok(Found { flaw: Some(Flaw::Damaged(error)), .. }) => Some((error, true)),
        Ok(Found { flaw: None | Some(Flaw::OneCopy), .. }) => None,
        Err(error) => Some((error, false)),
    })
}

/// Checks that the directory is this node's, or makes it so if it is empty. Mends a name plate of
/// which only one copy is whole.
///
/// # Errors
/// It belongs to another node, holds foreign files, or the disk fails;
/// [`StorageError::Corrupt`] if its name plate does not say whose it is.
pub(super) async fn claim<D: Disk>(disk: &D, own: &Identity) -> Result<(), StorageError> {
    let found = match disk.open(PATH).await {
        Ok(file) => read(&file)?,
        Err(error) if error.kind == DiskErrorKind::NotFound => return create(disk, own).await,
        Err(error) => return Err(error.into()),
    };
    if found.identity.is_before(own) {
        return publish(disk, own).await;
    }
    if &found.identity != own {
        return Err(foreign(&found.identity, own));
    }
    match found.flaw {
        None => Ok(()),
        Some(flaw) => mend(disk, own, &flaw).await,
    }
}

/// Writes both copies anew.
async fn mend<D: Disk>(disk: &D, own: &Identity, flaw: &Flaw) -> Result<(), StorageError> {
    let node = own.node;
    if let Flaw::Damaged(error) = flaw {
        probe!("replica.name_plate_copy_is_damaged");
        warn!(%node, %error, "one copy of the name plate is damaged; the other one is whole");
    }
    match publish(disk, own).await {
        Ok(()) => {
            info!(%node, "the name plate is written anew: both copies are whole");
            Ok(())
        }
        // The file is as it was, and one copy is enough to start with.
        Err(error) if error.is_no_space() => {
            warn!(%node, %error, "the name plate has one copy until a start with space");
            Ok(())
        }
        Err(error) => Err(error),
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

/// Reads both copies.
fn read<F: File>(file: &F) -> Result<Found, StorageError> {
    let first = read_copy(file, 0);
    let first = first.and_then(|copy| copy.ok_or_else(|| corrupt(0, "it is empty".to_owned())));
    match (first, read_copy(file, SECOND_AT)) {
        (Ok(identity), Ok(None)) => Ok(Found { identity, flaw: Some(Flaw::OneCopy) }),
        (Ok(first), Ok(Some(second))) if first == second => {
            Ok(Found { identity: first, flaw: None })
        }
        (Ok(first), Ok(Some(second))) => {
            let what = format!("its copies differ: the first is of {first}, this one of {second}");
            Err(corrupt(SECOND_AT, what))
        }
        // What another version wrote is not damaged, and not for this one to mend.
        (Err(error @ StorageError::Format { .. }), _)
        | (_, Err(error @ StorageError::Format { .. }))
        | (Err(error), Ok(None) | Err(_)) => Err(error),
        (Ok(identity), Err(error)) | (Err(error), Ok(Some(identity))) => {
            Ok(Found { identity, flaw: Some(Flaw::Damaged(error)) })
        }
    }
}

/// Reads the copy at `offset`; `None` if the file ends before it.
fn read_copy<F: File>(file: &F, offset: u64) -> Result<Option<Identity>, StorageError> {
    let damaged = |what: String| corrupt(offset, what);
    let mut block = BytesMut::zeroed(COPY_BYTES);
    // A block that cannot be read is as good as a damaged one.
    let len = file.read_at(offset, &mut block).map_err(|error| damaged(error.to_string()))?;
    if len == 0 {
        return Ok(None);
    }
    block.truncate(if planted!("F14") { len.saturating_sub(1) } else { len });
    let frame = FrameDecoder::new(COPY_BYTES)
        .decode(&mut block)
        .map_err(|error| damaged(error.to_string()))?
        .ok_or_else(|| damaged("the file is cut short".to_owned()))?;
    if block.iter().any(|byte| *byte != 0) {
        return Err(damaged("there are bytes after its end".to_owned()));
    }
    // The checksum is right, so this is what somebody wrote.
    Identity::decode(&frame).map(Some).map_err(|error| StorageError::Format {
        path: PATH.to_owned(),
        found: format!("another version ({error})"),
        expected: "formats 1 to 3",
    })
}

fn corrupt(offset: u64, what: String) -> StorageError {
    StorageError::Corrupt { path: PATH.to_owned(), offset, what }
}

/// Reads the name plate in `file`, and returns the file as it would be written again.
///
/// # Errors
/// The bytes are no name plate.
#[cfg(feature = "testing")]
pub fn reread_name_plate<F: File>(file: &F) -> Result<Vec<u8>, StorageError> {
    Ok(read(file)?.identity.to_file())
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
    StorageError::Format { path: PATH.to_owned(), found: found.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use super::super::start::explain_claim;
    use super::*;
    use crate::base::Rng;
    use crate::storage::test_disk::{Faults, Survives, TestDisk, run};

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

    /// Returns the bytes of a copy of two, or the file as versions before wrote it.
    fn frame(body: &impl codec::Encode) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_frame(&mut bytes, |buffer| codec::encode_into(body, buffer));
        bytes
    }

    fn disk_with(plate: Vec<u8>) -> TestDisk {
        let disk = TestDisk::default();
        disk.plant(PATH, plate);
        disk
    }

    /// The accident: one flipped bit kept a node whose log and tables were sound away for ever.
    #[test]
    fn plate_damaged_at_any_byte_of_one_copy_is_read_and_mended() {
        let own = identity(Mode::PrimaryBackup { group: 7 });
        let whole = own.to_file();
        assert_eq!(whole.len(), 2 * COPY_BYTES);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            let disk = disk_with(damaged);
            assert_eq!(run(owner(&disk)), Some(own.clone()), "byte {at}");
            run(claim(&disk, &own)).unwrap();
            assert!(disk.contents(PATH) == whole, "byte {at} is not mended");
            let after = disk.after_power_loss(Survives::NOTHING);
            assert!(after.contents(PATH) == whole, "byte {at} is not mended durably");
        }
    }

    #[test]
    fn plate_with_a_lost_block_is_read_and_mended() {
        let own = identity(Mode::Masterless { placement: 7 });
        for lost in [0, SECOND_AT] {
            let disk = disk_with(own.to_file());
            let unreadable = Some((PATH.to_owned(), lost + 600));
            disk.set_faults(Faults { unreadable, ..Faults::default() });
            assert_eq!(run(owner(&disk)), Some(own.clone()));
            run(claim(&disk, &own)).unwrap();
            assert!(disk.operation_count() > 0, "nothing was written anew");
        }
        // The file system may have lost the end, or brings back zeros.
        let losses: [fn(&mut Vec<u8>); 4] = [
            |bytes| bytes.truncate(COPY_BYTES),
            |bytes| bytes.truncate(COPY_BYTES + 5),
            |bytes| bytes[..COPY_BYTES].fill(0),
            |bytes| bytes[COPY_BYTES..].fill(0),
        ];
        for (number, lose) in losses.iter().enumerate() {
            let mut bytes = own.to_file();
            lose(&mut bytes);
            let disk = disk_with(bytes);
            run(claim(&disk, &own)).unwrap();
            assert!(disk.contents(PATH) == own.to_file(), "loss {number} is not mended");
        }
    }

    #[test]
    fn plate_with_both_copies_damaged_is_refused_and_left_with_what_to_do() {
        let own = identity(Mode::PrimaryBackup { group: 7 });
        let frame_bytes = frame(&(FORMAT_PRIMARY_BACKUP, own.cluster, own.node, 7_u64)).len();
        let copies = [0..frame_bytes, COPY_BYTES..COPY_BYTES + frame_bytes];
        for first in copies[0].clone() {
            for second in copies[1].clone() {
                let mut bytes = own.to_file();
                bytes[first] ^= 1;
                bytes[second] ^= 1;
                let disk = disk_with(bytes);
                assert_eq!(run(owner(&disk)), None);
                let refused = run(claim(&disk, &own)).unwrap_err();
                assert!(matches!(refused, StorageError::Corrupt { offset: 0, .. }), "{refused}");
                assert_eq!(disk.operation_count(), 0, "it was changed");
                let said = explain_claim(refused).to_string();
                assert!(said.contains("NODE is damaged") && said.contains("salvage"), "{said}");
            }
        }
        let mut old = frame(&(FORMAT_PRIMARY_BACKUP, own.cluster, own.node, 7_u64));
        old[13] ^= 1;
        for bytes in [Vec::new(), vec![0; 2 * COPY_BYTES], old] {
            let refused = run(claim(&disk_with(bytes), &own));
            assert!(matches!(refused, Err(StorageError::Corrupt { .. })), "{refused:?}");
        }
    }

    /// No crash leaves copies that differ: nothing tells which one the data belongs to.
    #[test]
    fn plate_whose_copies_differ_is_refused_to_both_owners() {
        let [one, two] = [1, 2].map(|group| identity(Mode::PrimaryBackup { group }));
        let mut bytes = one.to_file();
        bytes.truncate(COPY_BYTES);
        bytes.extend(&two.to_file()[COPY_BYTES..]);
        let disk = disk_with(bytes);
        for own in [&one, &two] {
            let refused = run(claim(&disk, own)).unwrap_err();
            assert!(refused.to_string().contains("its copies differ"), "{refused}");
        }
        assert_eq!((run(owner(&disk)), disk.operation_count()), (None, 0));
    }

    #[test]
    fn plate_of_a_newer_version_is_not_mended_over() {
        let own = identity(Mode::PrimaryBackup { group: 7 });
        let newer = frame(&(9_u32, own.cluster, own.node, 7_u64));
        for damaged in [None, Some(13), Some(COPY_BYTES + 13)] {
            let mut bytes = newer.clone();
            bytes.resize(COPY_BYTES, 0);
            let mut bytes = bytes.repeat(2);
            if let Some(at) = damaged {
                bytes[at] ^= 1;
            }
            let disk = disk_with(bytes);
            let refused = run(claim(&disk, &own));
            assert!(matches!(refused, Err(StorageError::Format { .. })), "{refused:?}");
            assert_eq!(disk.operation_count(), 0);
        }
    }

    #[test]
    fn plate_of_an_older_version_gets_its_second_copy_at_any_power_loss() {
        let (cluster, node) = (ClusterId(0xBEEF), NodeId(300));
        let backup = identity(Mode::PrimaryBackup { group: 7 });
        for (old, own) in [
            (frame(&(FORMAT_GROUPLESS, cluster, node)), &backup),
            (frame(&(FORMAT_PRIMARY_BACKUP, cluster, node, 7_u64)), &backup),
            (
                frame(&(FORMAT_MASTERLESS, cluster, node, 7_u64)),
                &identity(Mode::Masterless { placement: 7 }),
            ),
        ] {
            assert!(each_power_loss_of_a_claim(&disk_with(old), own) > 4);
        }
    }

    #[test]
    fn plate_is_made_and_mended_whole_at_any_power_loss() {
        let own = identity(Mode::PrimaryBackup { group: 7 });
        assert!(each_power_loss_of_a_claim(&TestDisk::default(), &own) > 4);
        for copy in [0, COPY_BYTES] {
            let mut bytes = own.to_file();
            bytes[copy + 13] ^= 1;
            assert!(each_power_loss_of_a_claim(&disk_with(bytes), &own) > 4);
        }
    }

    /// Takes the power at each step of a claim of the disk as it is, and demands that the next
    /// start makes a whole name plate of whatever is left; returns how many steps there are.
    fn each_power_loss_of_a_claim(before: &TestDisk, own: &Identity) -> usize {
        for step in 0.. {
            let mut is_done = false;
            for lot in 0..64 {
                let disk = before.after_process_end();
                disk.lose_power_at(step);
                is_done = run(claim(&disk, own)).is_ok();
                disk.power_loss(&mut Rng::new(lot), 0.5);
                assert!(!is_done || disk.contents(PATH) == own.to_file(), "step {step} is lost");
                assert_eq!(run(claim(&disk, own)), Ok(()), "step {step}, lot {lot}");
                assert!(disk.contents(PATH) == own.to_file(), "step {step}, lot {lot}");
            }
            if is_done {
                return step;
            }
        }
        0
    }

    #[test]
    fn full_disk_keeps_no_node_away_whose_plate_has_one_copy() {
        let own = identity(Mode::PrimaryBackup { group: 7 });
        let mut damaged = own.to_file();
        damaged[13] ^= 1;
        let old = frame(&(FORMAT_PRIMARY_BACKUP, own.cluster, own.node, 7_u64));
        for bytes in [damaged, old] {
            let disk = disk_with(bytes.clone());
            disk.set_faults(Faults { no_space: true, ..Faults::default() });
            run(claim(&disk, &own)).unwrap();
            assert!(disk.contents(PATH) == bytes, "the whole copy was touched");
            disk.set_faults(Faults::default());
            run(claim(&disk, &own)).unwrap();
            assert!(disk.contents(PATH) == own.to_file());
            // Any other failure of the disk stops the node.
            let disk = disk_with(bytes);
            disk.set_faults(Faults { fail_sync: true, ..Faults::default() });
            assert!(matches!(run(claim(&disk, &own)), Err(StorageError::Disk(_))));
        }
    }
}
