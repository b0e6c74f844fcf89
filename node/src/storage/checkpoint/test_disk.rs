//! A disk in memory that knows what is durable, and loses power at any operation.
//!
//! It follows the contract of [`crate::env`] to the letter: what was synced survives, and of the
//! rest what a test chooses, name by name. Sectors are left to the simulation.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::env::{Disk, DiskError, DiskErrorKind, File};

/// Runs a future that waits for nothing but its turn.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// What survives a power loss besides what must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survives {
    /// Whether bytes do that were not synced.
    pub(super) bytes: bool,
    /// Which changes of names do that were not synced, the oldest in the lowest bit.
    pub(super) names: u32,
}

impl Survives {
    /// Nothing does.
    pub(super) const NOTHING: Self = Self { bytes: false, names: 0 };

    /// Returns every choice for the bytes, and for the last few changes of names.
    pub(super) fn choices() -> impl Iterator<Item = Self> {
        (0..16).flat_map(|names| [false, true].map(|bytes| Self { bytes, names }))
    }
}

/// A change of names that is not durable.
#[derive(Debug, Clone)]
struct NameChange {
    removed: Option<String>,
    added: Option<(String, usize)>,
}

impl NameChange {
    fn make(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(name) = &self.removed {
            names.remove(name);
        }
        if let Some((name, inode)) = &self.added {
            names.insert(name.clone(), *inode);
        }
    }
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    durable_names: BTreeMap<String, usize>,
    names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    /// Changes and syncs so far.
    operation_count: usize,
    /// The operation at which the power goes.
    power_until: Option<usize>,
    /// Bytes that fit on the disk.
    space_bytes: Option<usize>,
}

/// The disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct TestDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
pub(super) struct TestFile {
    disk: TestDisk,
    inode: usize,
}

fn error(kind: DiskErrorKind, operation: &'static str, path: &str) -> DiskError {
    let message = format!("{kind:?}");
    DiskError { kind, operation, path: path.to_owned(), message }
}

impl State {
    fn change_names(&mut self, change: NameChange) {
        change.make(&mut self.names);
        self.name_changes.push(change);
    }
}

impl TestDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a change or sync; fails once the power is gone.
    fn operate(&self, operation: &'static str) -> Result<MutexGuard<'_, State>, DiskError> {
        let mut state = self.state();
        if state.power_until.is_some_and(|until| state.operation_count >= until) {
            return Err(error(DiskErrorKind::Io, operation, "(no power)"));
        }
        state.operation_count += 1;
        Ok(state)
    }

    /// Lets the power go at the given operation, counted from the first one ever.
    pub(super) fn lose_power_at(&self, operation: usize) {
        self.state().power_until = Some(operation);
    }

    pub(super) fn operation_count(&self) -> usize {
        self.state().operation_count
    }

    /// Limits the disk to so many bytes.
    pub(super) fn set_space(&self, bytes: Option<usize>) {
        self.state().space_bytes = bytes;
    }

    /// Gives the power back, as if only the process had ended.
    pub(super) fn restart(&self) {
        self.state().power_until = None;
    }

    /// Returns the disk as it is after the power came back.
    pub(super) fn after_power_loss(&self, survives: Survives) -> Self {
        let state = self.state();
        let inodes = state.inodes.iter().map(|inode| {
            let bytes = if survives.bytes { &inode.current } else { &inode.durable };
            Inode { durable: bytes.clone(), current: bytes.clone() }
        });
        let mut names = state.durable_names.clone();
        for (bit, change) in state.name_changes.iter().enumerate() {
            if bit < 32 && survives.names >> bit & 1 == 1 {
                change.make(&mut names);
            }
        }
        let inodes = inodes.collect();
        let after = State { inodes, durable_names: names.clone(), names, ..State::default() };
        Self { state: Arc::new(Mutex::new(after)) }
    }

    /// Changes the bytes of a file behind everybody's back.
    pub(super) fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names.get(path).copied();
        let inode = inode.and_then(|inode| state.inodes.get_mut(inode));
        let inode = inode.unwrap_or_else(|| panic!("there is no {path}"));
        change(&mut inode.current);
        inode.durable = inode.current.clone();
    }

    /// Returns the bytes of a file.
    pub(super) fn contents(&self, path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.tamper(path, |contents| bytes.clone_from(contents));
        bytes
    }

    /// Returns all names of a directory.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let prefix = format!("{directory}/");
        let state = self.state();
        state
            .names
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect()
    }
}

impl Disk for TestDisk {
    type File = TestFile;

    async fn open(&self, path: &str) -> Result<TestFile, DiskError> {
        match self.state().names.get(path) {
            Some(inode) => Ok(TestFile { disk: self.clone(), inode: *inode }),
            None => Err(error(DiskErrorKind::NotFound, "open", path)),
        }
    }

    async fn create(&self, path: &str) -> Result<TestFile, DiskError> {
        let mut state = self.operate("create")?;
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        assert!(!state.names.contains_key(path), "no two files of these tests share a name");
        state.change_names(NameChange { removed: None, added: Some((path.to_owned(), inode)) });
        Ok(TestFile { disk: self.clone(), inode })
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.operate("rename")?;
        let inode = state.names.get(from).copied();
        let inode = inode.ok_or_else(|| error(DiskErrorKind::NotFound, "rename", from))?;
        let (removed, added) = (Some(from.to_owned()), Some((to.to_owned(), inode)));
        state.change_names(NameChange { removed, added });
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        let mut state = self.operate("remove")?;
        if !state.names.contains_key(path) {
            return Err(error(DiskErrorKind::NotFound, "remove", path));
        }
        state.change_names(NameChange { removed: Some(path.to_owned()), added: None });
        Ok(())
    }

    async fn create_dir(&self, _path: &str) -> Result<(), DiskError> {
        Ok(())
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        Ok(self.names(path))
    }

    async fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        let mut state = self.operate("sync_dir")?;
        if !path.is_empty() {
            state.durable_names = state.names.clone();
            state.name_changes.clear();
        }
        Ok(())
    }
}

impl TestFile {
    fn with<T>(&self, look: impl FnOnce(&mut Inode) -> T) -> T {
        let mut state = self.disk.state();
        match state.inodes.get_mut(self.inode) {
            Some(inode) => look(inode),
            None => unreachable!("files are never forgotten"),
        }
    }
}

impl File for TestFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.with(|inode| {
            let rest = inode.current.get(offset..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    fn len(&self) -> Result<u64, DiskError> {
        Ok(self.with(|inode| u64::try_from(inode.current.len()).unwrap_or(u64::MAX)))
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let state = self.disk.operate("write")?;
        let used: usize = state.inodes.iter().map(|inode| inode.current.len()).sum();
        let fits = state.space_bytes.is_none_or(|space| used + bytes.len() <= space);
        drop(state);
        let kept = if fits { bytes } else { &bytes[..bytes.len() / 2] };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.with(|inode| {
            let end = (offset + kept.len()).max(inode.current.len());
            inode.current.resize(end, 0);
            inode.current[offset..offset + kept.len()].copy_from_slice(kept);
        });
        if fits { Ok(()) } else { Err(error(DiskErrorKind::NoSpace, "write", "(full)")) }
    }

    async fn truncate(&self, len: u64) -> Result<(), DiskError> {
        drop(self.disk.operate("truncate")?);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.with(|inode| inode.current.resize(len, 0));
        Ok(())
    }

    async fn sync(&self) -> Result<(), DiskError> {
        drop(self.disk.operate("sync")?);
        self.with(|inode| inode.durable.clone_from(&inode.current));
        Ok(())
    }
}
