//! The file `DAMAGED`: the verdict that the state is not to be trusted any more.
//!
//! Opening the store reads the tables' ends, not all of their blocks, so a start would not notice
//! what a read has found. Who finds damage, and has other nodes to get the state from, writes it
//! down here; every start finds the state lost then, until another one has replaced it.
//!
//! # Layout
//! ```text
//! generation u64 LE │ offset u64 LE │ path_len u32 LE │ path │ what │ crc u32 LE of all before
//! ```
//! The verdict is on the manifest of that generation and those before it. If the verdict itself
//! is damaged, it is on whatever is there: to get a good state once more does no harm.

use super::sync;
use crate::base::checksum::crc32;
use crate::env::{Disk, DiskErrorKind, File};
use crate::storage::StorageError;
use crate::{planted, probe};

/// Name of the file.
pub(super) const NAME: &str = "DAMAGED";

/// Longest verdict that is believed.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was found damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The last manifest that it is on.
    pub(super) generation: u64,
    /// The damaged file.
    pub(super) path: String,
    /// Where in it.
    pub(super) offset: u64,
    /// What is wrong there.
    pub(super) what: String,
}

impl Verdict {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        let path_len = u32::try_from(self.path.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&path_len.to_le_bytes());
        bytes.extend_from_slice(self.path.as_bytes());
        bytes.extend_from_slice(self.what.as_bytes());
        bytes.extend_from_slice(&crc32(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (covered, crc) = bytes.split_last_chunk::<4>()?;
        if crc32(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (generation, rest) = covered.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (path_len, rest) = rest.split_first_chunk::<4>()?;
        let path_len = usize::try_from(u32::from_le_bytes(*path_len)).ok()?;
        let (path, what) = match rest.split_at_checked(path_len) {
            None if planted!("F23") => rest.split_at(path_len),
            split => split?,
        };
        Some(Self {
            generation: u64::from_le_bytes(*generation),
            path: String::from_utf8_lossy(path).into_owned(),
            offset: u64::from_le_bytes(*offset),
            what: String::from_utf8_lossy(what).into_owned(),
        })
    }

    /// Writes it down, durably.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) async fn publish<D: Disk>(&self, disk: &D, dir: &str) -> Result<(), StorageError> {
        let file = disk.create(&format!("{dir}/{NAME}")).await?;
        file.write_at(0, &self.encode()).await?;
        sync(&file).await?;
        super::sync_dir(disk, dir).await
    }

    /// Takes whatever verdict there is back, durably: another state stands in for the damaged one.
    ///
    /// Its generation alone does not tell: one that cannot be read is on every state, also on one
    /// that others rely on by the time a power loss brings the file back.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) async fn withdraw<D: Disk>(disk: &D, dir: &str) -> Result<(), StorageError> {
        match disk.remove(&format!("{dir}/{NAME}")).await {
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        probe!("tree.verdict_is_withdrawn");
        super::sync_dir(disk, dir).await
    }

    /// Reads the verdict on the manifest of `generation`, if there is one.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) async fn load<D: Disk>(
        disk: &D,
        dir: &str,
        generation: u64,
    ) -> Result<Option<Self>, StorageError> {
        let path = format!("{dir}/{NAME}");
        let file = match disk.open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let len = file.len()?.min(FILE_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = file.read_at(0, &mut bytes);
        let verdict = read.ok().and_then(|read| Self::decode(bytes.get(..read)?));
        let verdict = verdict.unwrap_or_else(|| {
            let what = "it was found damaged, what of it cannot be read any more".to_owned();
            Self { generation: u64::MAX, path, offset: 0, what }
        });
        Ok(Some(verdict).filter(|verdict| verdict.generation >= generation))
    }
}

/// Reads the verdict in a file of these bytes, and returns the file as it would be written again;
/// `None` if it is damaged.
#[cfg(feature = "testing")]
pub fn reread_verdict(bytes: &[u8]) -> Option<Vec<u8>> {
    Verdict::decode(bytes).map(|verdict| verdict.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::test_disk::{Survives, TestDisk, run};

    const DIR: &str = "tables";

    fn verdict() -> Verdict {
        let (path, what) = ("tables/table-7".to_owned(), "a block".to_owned());
        Verdict { generation: 9, path, offset: 4096, what }
    }

    #[test]
    fn verdict_stands_until_a_later_manifest() {
        let disk = TestDisk::default();
        run(disk.create_dir(DIR)).unwrap();
        assert_eq!(run(Verdict::load(&disk, DIR, 0)), Ok(None));
        run(verdict().publish(&disk, DIR)).unwrap();
        assert_eq!(run(Verdict::load(&disk, DIR, 9)), Ok(Some(verdict())));
        assert_eq!(run(Verdict::load(&disk, DIR, 10)), Ok(None));
    }

    #[test]
    fn verdict_that_is_withdrawn_does_not_come_back_with_a_power_loss() {
        let disk = TestDisk::default();
        run(disk.create_dir(DIR)).unwrap();
        run(verdict().publish(&disk, DIR)).unwrap();
        run(Verdict::withdraw(&disk, DIR)).unwrap();
        let disk = disk.after_power_loss(Survives::NOTHING);
        assert_eq!(run(Verdict::load(&disk, DIR, 9)), Ok(None));
        assert_eq!(run(Verdict::withdraw(&disk, DIR)), Ok(()), "there is none any more");
    }

    #[test]
    fn verdict_damaged_anywhere_is_on_whatever_is_there() {
        let bytes = verdict().encode();
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            assert_eq!(Verdict::decode(&damaged), None, "byte {position}");
            assert_eq!(Verdict::decode(&bytes[..position]), None, "cut at {position}");
        }
        let disk = TestDisk::default();
        run(disk.create_dir(DIR)).unwrap();
        drop(run(disk.create(&format!("{DIR}/{NAME}"))).unwrap());
        assert!(run(Verdict::load(&disk, DIR, 1_000)).unwrap().is_some());
    }
}
