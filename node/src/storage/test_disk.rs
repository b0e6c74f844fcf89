//! A disk in memory that can do to files what disks do, for the tests of this floor and the fuzz
//! targets.
//!
//! It follows the contract of [`crate::env`] to the letter. Of what was not synced, a power loss
//! keeps what a test chooses, or each sector and each change of a name by lot.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::base::Rng;
use crate::env::{Disk, DiskError, DiskErrorKind, File};

const SECTOR: usize = 512;

/// Runs a future that waits for nothing but its turn.
pub fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// The disk of one node; clones are the same disk. Its futures never wait.
#[derive(Debug, Clone, Default)]
pub struct TestDisk(Arc<Mutex<State>>);

/// What is to go wrong.
#[derive(Debug, Default, Clone)]
pub struct Faults {
    /// Writes, creations and renames fail.
    pub no_space: bool,
    /// Writes store what lies before the end of their file, and find no space for the rest.
    pub no_growth: bool,
    /// File syncs fail, and what was pending is clean but not durable.
    pub fail_sync: bool,
    /// Syncs of directories fail after this many more, and what was pending stays so.
    pub fail_sync_dir_after: Option<usize>,
    /// Every change and sync fails after this many more: the power is gone.
    pub fail_after: Option<usize>,
    /// The next write stores this many bytes and fails.
    pub short_write: Option<usize>,
    /// Reads of this path that touch this offset fail.
    pub unreadable: Option<(String, u64)>,
    /// This path may not be opened: its file is another user's.
    pub deny_open: Option<String>,
}

/// What survives a power loss besides what must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survives {
    /// Whether bytes do that were not synced.
    pub bytes: bool,
    /// Which changes of names do that were not synced, the oldest in the lowest bit.
    pub names: u32,
}

impl Survives {
    /// Nothing does.
    pub const NOTHING: Self = Self { bytes: false, names: 0 };
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    faults: Faults,
    /// Bytes that fit on the disk.
    space_bytes: Option<usize>,
    /// Changes and syncs so far.
    operation_count: usize,
    write_count: usize,
    sync_count: usize,
    read_bytes: usize,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Writes that were not synced.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
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

fn error(kind: DiskErrorKind, operation: &'static str, path: &str) -> DiskError {
    DiskError { kind, operation, path: path.to_owned(), message: format!("{kind:?}, as told") }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Inode {
    /// Brings the durable bytes up to date; nearly always that is to append what was written.
    fn sync(&mut self) {
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            write(&mut self.durable, offset, &bytes);
        }
        self.durable.truncate(self.content.len());
    }
}

/// What a test does to the disk.
impl TestDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is to go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Returns how many writes there were.
    pub fn write_count(&self) -> usize {
        self.state().write_count
    }

    /// Returns how many syncs of files there were.
    pub fn sync_count(&self) -> usize {
        self.state().sync_count
    }

    /// Returns how many changes and syncs there were.
    pub fn operation_count(&self) -> usize {
        self.state().operation_count
    }

    /// Returns how many bytes were read.
    pub fn read_bytes(&self) -> usize {
        self.state().read_bytes
    }

    /// Lets the power go at the given operation, counted from the first one ever.
    pub fn lose_power_at(&self, operation: usize) {
        let mut state = self.state();
        state.faults.fail_after = Some(operation.saturating_sub(state.operation_count));
    }
    /// Limits the disk to so many bytes.
    pub fn set_space(&self, bytes: Option<usize>) {
        self.state().space_bytes = bytes;
    }

    /// Returns how many bytes the files take that have a name.
    pub fn used_bytes(&self) -> usize {
        self.state().used_bytes()
    }

    /// Returns the files of a directory and their content.
    pub fn files(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let inside = state.names.iter().filter(|(name, _)| name.starts_with(&format!("{dir}/")));
        inside.map(|(name, &inode)| (name.clone(), state.inodes[inode].content.clone())).collect()
    }

    /// Returns all names of a directory.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let prefix = prefix_of(dir);
        let state = self.state();
        let names =
            state.names.keys().filter_map(|name| name.strip_prefix(&prefix)?.split('/').next());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.dedup();
        names
    }

    /// Returns the bytes of a file.
    pub fn contents(&self, path: &str) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[path]].content.clone()
    }

    /// Puts a file there, durably.
    pub fn plant(&self, path: &str, content: Vec<u8>) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode { durable: content.clone(), content, pending: Vec::new() });
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// Changes bytes of a file in place, durably, behind everybody's back.
    pub fn damage(&self, path: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[path];
        change(&mut state.inodes[inode].content);
        change(&mut state.inodes[inode].durable);
    }

    /// Takes a name away, durably.
    pub fn lose(&self, path: &str) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Takes the names of all files in a directory away, durably.
    pub fn lose_all(&self, dir: &str) {
        for path in self.files(dir).keys() {
            self.lose(path);
        }
    }

    /// Loses what was not synced: each sector of each write and each name change is kept with the
    /// given chance, independently of all others.
    pub fn power_loss(&self, rng: &mut Rng, kept: f64) {
        let mut state = self.state();
        for inode in &mut state.inodes {
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
            inode.content.clone_from(&inode.durable);
        }
        for change in std::mem::take(&mut state.pending_names) {
            if rng.chance(kept) {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        state.faults = Faults::default();
    }

    /// Returns a copy of the disk as the next process finds it; this one stays as it is.
    #[must_use]
    pub fn after_process_end(&self) -> Self {
        let state = self.state();
        let after = State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending_names: state.pending_names.clone(),
            ..State::default()
        };
        Self(Arc::new(Mutex::new(after)))
    }

    /// Returns the disk as it is after the power came back; this one stays as it is.
    #[must_use]
    pub fn after_power_loss(&self, survives: Survives) -> Self {
        let state = self.state();
        let inodes = state.inodes.iter().map(|inode| {
            let bytes = if survives.bytes { &inode.content } else { &inode.durable };
            Inode { durable: bytes.clone(), content: bytes.clone(), pending: Vec::new() }
        });
        let mut names = state.durable_names.clone();
        for (bit, change) in state.pending_names.iter().enumerate() {
            if bit < 32 && survives.names >> bit & 1 == 1 {
                change.apply(&mut names);
            }
        }
        let inodes = inodes.collect();
        let after = State { inodes, durable_names: names.clone(), names, ..State::default() };
        Self(Arc::new(Mutex::new(after)))
    }
}

impl State {
    fn used_bytes(&self) -> usize {
        let named = self.names.values().filter_map(|inode| self.inodes.get(*inode));
        named.map(|inode| inode.content.len()).sum()
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn find(&self, operation: &'static str, path: &str) -> Result<usize, DiskError> {
        let found = self.names.get(path).copied();
        found.ok_or_else(|| error(DiskErrorKind::NotFound, operation, path))
    }
}

/// What the operations have in common.
impl TestDisk {
    /// Counts a change or sync, and fails if it is to fail.
    fn operate(
        &self,
        operation: &'static str,
        path: &str,
        needs_space: bool,
    ) -> Result<MutexGuard<'_, State>, DiskError> {
        let mut state = self.state();
        if needs_space && state.faults.no_space {
            return Err(error(DiskErrorKind::NoSpace, operation, path));
        }
        match &mut state.faults.fail_after {
            Some(0) => return Err(error(DiskErrorKind::Io, operation, path)),
            Some(left) => *left -= 1,
            None => {}
        }
        state.operation_count += 1;
        Ok(state)
    }
}

impl Disk for TestDisk {
    type File = TestFile;

    async fn open(&self, path: &str) -> Result<TestFile, DiskError> {
        let state = self.state();
        if state.faults.deny_open.as_deref() == Some(path) {
            return Err(error(DiskErrorKind::Denied, "open", path));
        }
        let inode = state.find("open", path)?;
        drop(state);
        Ok(TestFile { disk: self.clone(), inode, path: path.to_owned() })
    }

    async fn create(&self, path: &str) -> Result<TestFile, DiskError> {
        let mut state = self.operate("create", path, true)?;
        // An existing file is emptied; as nobody relies on its bytes, a new one does as well.
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change_names(NameChange::Link(path.to_owned(), inode));
        Ok(TestFile { disk: self.clone(), inode, path: path.to_owned() })
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.operate("rename", from, true)?;
        let inode = state.find("rename", from)?;
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        let mut state = self.operate("remove", path, false)?;
        state.find("remove", path)?;
        state.change_names(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    async fn create_dir(&self, _path: &str) -> Result<(), DiskError> {
        Ok(())
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        Ok(self.names(path))
    }

    async fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        let mut state = self.operate("sync_dir", path, false)?;
        match &mut state.faults.fail_sync_dir_after {
            Some(0) => return Err(error(DiskErrorKind::Io, "sync_dir", path)),
            Some(left) => *left -= 1,
            None => {}
        }
        let prefix = prefix_of(path);
        let is_inside =
            |name: &str| name.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'));
        let pending = std::mem::take(&mut state.pending_names);
        for change in pending {
            let (NameChange::Link(name, _)
            | NameChange::Rename(name, ..)
            | NameChange::Unlink(name)) = &change;
            if is_inside(name) {
                change.apply(&mut state.durable_names);
            } else {
                state.pending_names.push(change);
            }
        }
        Ok(())
    }
}

/// Returns what the paths in a directory begin with.
fn prefix_of(dir: &str) -> String {
    if dir.is_empty() { String::new() } else { format!("{dir}/") }
}

/// A file of a [`TestDisk`].
#[derive(Debug)]
pub struct TestFile {
    disk: TestDisk,
    inode: usize,
    path: String,
}

impl File for TestFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let mut state = self.disk.state();
        if let Some((path, bad)) = &state.faults.unreadable
            && *path == self.path
            && (offset..offset + buffer.len() as u64).contains(bad)
        {
            return Err(error(DiskErrorKind::Io, "read", path));
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let content = state.inodes[self.inode].content.get(offset..).unwrap_or_default();
        // Short reads are allowed only at the end.
        let count = content.len().min(buffer.len());
        buffer[..count].copy_from_slice(&content[..count]);
        state.read_bytes += count;
        Ok(count)
    }

    fn len(&self) -> Result<u64, DiskError> {
        Ok(self.disk.state().inodes[self.inode].content.len() as u64)
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.disk.operate("write", &self.path, true)?;
        state.write_count += 1;
        let used = state.used_bytes();
        let fits = state.space_bytes.is_none_or(|space| used + bytes.len() <= space);
        let short = state.faults.short_write;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let room = state.inodes[self.inode].content.len().saturating_sub(offset);
        let (stored, failure) = match short.and_then(|short| bytes.get(..short)) {
            _ if !fits => (&bytes[..bytes.len() / 2], Some(DiskErrorKind::NoSpace)),
            _ if state.faults.no_growth && room < bytes.len() => {
                (&bytes[..room], Some(DiskErrorKind::NoSpace))
            }
            Some(stored) => (stored, Some(DiskErrorKind::Io)),
            None => (bytes, short.map(|_| DiskErrorKind::Io)),
        };
        let inode = &mut state.inodes[self.inode];
        write(&mut inode.content, offset, stored);
        inode.pending.push((offset, stored.to_vec()));
        failure.map_or(Ok(()), |kind| Err(error(kind, "write", &self.path)))
    }

    async fn truncate(&self, len: u64) -> Result<(), DiskError> {
        let _ = len;
        Err(error(DiskErrorKind::Io, "truncate (nobody here does)", &self.path))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        let mut state = self.disk.operate("sync", &self.path, false)?;
        state.sync_count += 1;
        let fails = state.faults.fail_sync;
        let inode = &mut state.inodes[self.inode];
        if fails {
            inode.pending.clear();
            return Err(error(DiskErrorKind::Io, "sync", &self.path));
        }
        inode.sync();
        Ok(())
    }
}
