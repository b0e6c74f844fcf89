//! A disk in memory that can do to a log what disks do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::Rng;
use crate::env::{Disk, DiskError, DiskErrorKind, File};

const SECTOR: usize = 512;

/// The disk of one node. Its futures never wait.
#[derive(Clone, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<Tree>>);

#[derive(Default)]
struct Tree {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    faults: Faults,
    write_count: usize,
    sync_count: usize,
}

/// What is to go wrong.
#[derive(Default, Clone)]
pub(super) struct Faults {
    /// Writes and creations fail.
    pub(super) no_space: bool,
    /// File syncs fail, and what was pending is clean but not durable.
    pub(super) fail_sync: bool,
    /// Fail every operation after this many more.
    pub(super) fail_after: Option<u32>,
    /// The next write stores this many bytes and fails.
    pub(super) short_write: Option<usize>,
    /// Reads of this path that touch this offset fail.
    pub(super) unreadable: Option<(String, u64)>,
}

#[derive(Default, Clone)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

pub(super) struct MemoryFile {
    disk: MemoryDisk,
    inode: usize,
    path: String,
}

fn error(kind: DiskErrorKind, operation: &'static str, path: &str) -> DiskError {
    DiskError { kind, operation, path: path.to_owned(), message: "as told".to_owned() }
}

impl MemoryDisk {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.tree().faults = faults;
    }

    pub(super) fn write_count(&self) -> usize {
        self.tree().write_count
    }

    pub(super) fn sync_count(&self) -> usize {
        self.tree().sync_count
    }

    /// Returns the files of a directory and their content.
    pub(super) fn files(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let tree = self.tree();
        let inside = tree.names.iter().filter(|(name, _)| name.starts_with(&format!("{dir}/")));
        inside.map(|(name, &inode)| (name.clone(), tree.inodes[inode].content.clone())).collect()
    }

    /// Puts a file there, durably.
    pub(super) fn plant(&self, path: &str, content: Vec<u8>) {
        let mut tree = self.tree();
        let inode = tree.inodes.len();
        tree.inodes.push(Inode { durable: content.clone(), content, pending: Vec::new() });
        tree.names.insert(path.to_owned(), inode);
        tree.durable_names.insert(path.to_owned(), inode);
    }

    /// Changes bytes of a file in place, durably.
    pub(super) fn damage(&self, path: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut tree = self.tree();
        let inode = tree.names[path];
        change(&mut tree.inodes[inode].content);
        change(&mut tree.inodes[inode].durable);
    }

    /// Takes a name away, durably.
    pub(super) fn lose(&self, path: &str) {
        let mut tree = self.tree();
        tree.names.remove(path);
        tree.durable_names.remove(path);
    }

    /// Loses what was not synced: each sector of each write and each name change is kept with the
    /// given chance, independently of all others.
    pub(super) fn power_loss(&self, rng: &mut Rng, kept: f64) {
        let mut tree = self.tree();
        for inode in &mut tree.inodes {
            for (offset, bytes) in std::mem::take(&mut inode.pending) {
                let mut at = offset;
                let end = offset + bytes.len();
                while at < end {
                    let sector_end = ((at / SECTOR + 1) * SECTOR).min(end);
                    if rng.chance(kept) {
                        let piece = &bytes[at - offset..sector_end - offset];
                        write(&mut inode.durable, at, piece);
                    }
                    at = sector_end;
                }
            }
            inode.content = inode.durable.clone();
        }
        for change in std::mem::take(&mut tree.pending_names) {
            if rng.chance(kept) {
                change.apply(&mut tree.durable_names);
            }
        }
        tree.names = tree.durable_names.clone();
        tree.faults = Faults::default();
    }

    fn check(
        &self,
        operation: &'static str,
        path: &str,
        needs_space: bool,
    ) -> Result<(), DiskError> {
        let faults = &mut self.tree().faults;
        if needs_space && faults.no_space {
            return Err(error(DiskErrorKind::NoSpace, operation, path));
        }
        match &mut faults.fail_after {
            Some(0) => Err(error(DiskErrorKind::Io, operation, path)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn find(&self, operation: &'static str, path: &str) -> Result<usize, DiskError> {
        let found = self.tree().names.get(path).copied();
        found.ok_or_else(|| error(DiskErrorKind::NotFound, operation, path))
    }

    fn change(&self, change: NameChange) {
        let mut tree = self.tree();
        change.apply(&mut tree.names);
        tree.pending_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    async fn open(&self, path: &str) -> Result<MemoryFile, DiskError> {
        let inode = self.find("open", path)?;
        Ok(MemoryFile { disk: self.clone(), inode, path: path.to_owned() })
    }

    async fn create(&self, path: &str) -> Result<MemoryFile, DiskError> {
        self.check("create", path, true)?;
        // An existing file is emptied; as nobody relies on its bytes, a new one does as well.
        let inode = {
            let mut tree = self.tree();
            tree.inodes.push(Inode::default());
            tree.inodes.len() - 1
        };
        self.change(NameChange::Link(path.to_owned(), inode));
        Ok(MemoryFile { disk: self.clone(), inode, path: path.to_owned() })
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.check("rename", from, true)?;
        let inode = self.find("rename", from)?;
        self.change(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.check("remove", path, false)?;
        self.find("remove", path)?;
        self.change(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    async fn create_dir(&self, _path: &str) -> Result<(), DiskError> {
        Ok(())
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        let prefix = format!("{path}/");
        let names = self.tree().names.keys().cloned().collect::<Vec<_>>();
        Ok(names.iter().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    async fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        self.check("sync_dir", path, false)?;
        let mut tree = self.tree();
        tree.pending_names.clear();
        tree.durable_names = tree.names.clone();
        Ok(())
    }
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let tree = self.disk.tree();
        if let Some((path, bad)) = &tree.faults.unreadable
            && *path == self.path
            && (offset..offset + buffer.len() as u64).contains(bad)
        {
            return Err(error(DiskErrorKind::Io, "read", path));
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let content = tree.inodes[self.inode].content.get(offset..).unwrap_or_default();
        // Short reads are allowed only at the end.
        let count = content.len().min(buffer.len());
        buffer[..count].copy_from_slice(&content[..count]);
        Ok(count)
    }

    fn len(&self) -> Result<u64, DiskError> {
        Ok(self.disk.tree().inodes[self.inode].content.len() as u64)
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.check("write", &self.path, true)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut tree = self.disk.tree();
        tree.write_count += 1;
        let short = tree.faults.short_write;
        let bytes = short.and_then(|short| bytes.get(..short)).unwrap_or(bytes);
        let inode = &mut tree.inodes[self.inode];
        write(&mut inode.content, offset, bytes);
        inode.pending.push((offset, bytes.to_vec()));
        match short {
            Some(_) => Err(error(DiskErrorKind::Io, "write", &self.path)),
            None => Ok(()),
        }
    }

    async fn truncate(&self, len: u64) -> Result<(), DiskError> {
        let _ = len;
        Err(error(DiskErrorKind::Io, "truncate (the log never does)", &self.path))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        self.disk.check("sync", &self.path, false)?;
        let mut tree = self.disk.tree();
        tree.sync_count += 1;
        let fails = tree.faults.fail_sync;
        let inode = &mut tree.inodes[self.inode];
        inode.pending.clear();
        if fails {
            return Err(error(DiskErrorKind::Io, "sync", &self.path));
        }
        inode.durable = inode.content.clone();
        Ok(())
    }
}
