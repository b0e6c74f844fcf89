//! The disk that the script works on, and the record of all that it did.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use mangrove::base::Index;
use mangrove::env::{Disk, DiskError, DiskErrorKind, File};
use mangrove::raft::HardState;

use super::medium::{InodeId, Medium, directory_of};

/// Something that was done to the disk, or is to be known when the power goes.
#[derive(Clone)]
pub(super) enum Step {
    Create(String),
    Write { inode: InodeId, offset: usize, bytes: Arc<[u8]> },
    Sync(InodeId),
    SyncDirectory(String),
    Rename { from: String, to: String },
    Remove(String),
    Note(Note),
}

/// What the promise is from here on.
#[derive(Debug, Clone)]
pub(super) enum Note {
    /// Entries up to this one may be found from now on.
    Appended(Index),
    /// Entries up to this one must be found.
    Acknowledged(Index),
    /// This vote may be found from now on.
    Voting(HardState),
    /// This vote, or one that was begun later, must be found.
    Voted(HardState),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(path) => write!(f, "create {path}"),
            Self::Write { inode, offset, bytes } => {
                write!(f, "write {} bytes at {offset} of file {inode}", bytes.len())
            }
            Self::Sync(inode) => write!(f, "sync file {inode}"),
            Self::SyncDirectory(directory) => write!(f, "sync the directory {directory:?}"),
            Self::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Self::Remove(path) => write!(f, "remove {path}"),
            Self::Note(note) => write!(f, "{note:?}"),
        }
    }
}

#[derive(Default)]
struct State {
    medium: Medium,
    steps: Vec<Step>,
}

/// A disk that records; clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct CrashDisk {
    state: Arc<Mutex<State>>,
    /// Whether every operation gives others their turn first.
    yields: bool,
}

impl CrashDisk {
    /// Returns an empty disk whose operations take turns with one another.
    pub(super) fn taking_turns() -> Self {
        Self { state: Arc::default(), yields: true }
    }

    /// Returns a disk that holds `medium`.
    pub(super) fn holding(medium: Medium) -> Self {
        let state = Arc::new(Mutex::new(State { medium, steps: Vec::new() }));
        Self { state, yields: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records what is to be known.
    pub(super) fn note(&self, note: Note) {
        self.lock().steps.push(Step::Note(note));
    }

    /// Takes the record out.
    pub(super) fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut self.lock().steps)
    }

    /// Returns what the disk holds.
    pub(super) fn medium(&self) -> Medium {
        self.lock().medium.clone()
    }

    async fn take_turn(&self) {
        let mut waited = !self.yields;
        poll_fn(|context| {
            if waited {
                return Poll::Ready(());
            }
            waited = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    async fn perform(&self, step: Step) {
        self.take_turn().await;
        let mut state = self.lock();
        state.medium.apply(&step);
        state.steps.push(step);
    }

    fn find(&self, operation: &'static str, path: &str) -> Result<InodeId, DiskError> {
        self.lock().medium.names.get(path).copied().ok_or_else(|| DiskError {
            kind: DiskErrorKind::NotFound,
            operation,
            path: path.to_owned(),
            message: "no such file".to_owned(),
        })
    }
}

impl Disk for CrashDisk {
    type File = CrashFile;

    async fn open(&self, path: &str) -> Result<CrashFile, DiskError> {
        let inode = self.find("open", path)?;
        Ok(CrashFile { disk: self.clone(), inode })
    }

    async fn create(&self, path: &str) -> Result<CrashFile, DiskError> {
        self.perform(Step::Create(path.to_owned())).await;
        let inode = self.find("create", path)?;
        Ok(CrashFile { disk: self.clone(), inode })
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.find("rename", from)?;
        self.perform(Step::Rename { from: from.to_owned(), to: to.to_owned() }).await;
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.find("remove", path)?;
        self.perform(Step::Remove(path.to_owned())).await;
        Ok(())
    }

    /// Directories are simply there.
    async fn create_dir(&self, _path: &str) -> Result<(), DiskError> {
        Ok(())
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        let state = self.lock();
        let names: &BTreeMap<String, InodeId> = &state.medium.names;
        let inside = names.keys().filter(|name| directory_of(name) == path);
        Ok(inside.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect())
    }

    async fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        self.perform(Step::SyncDirectory(path.to_owned())).await;
        Ok(())
    }
}

/// An open file of a [`CrashDisk`].
pub(super) struct CrashFile {
    disk: CrashDisk,
    inode: InodeId,
}

impl CrashFile {
    fn cached(&self) -> Arc<Vec<u8>> {
        let state = self.disk.lock();
        state.medium.inodes.get(self.inode).map_or_else(Arc::default, |f| Arc::clone(&f.cached))
    }
}

impl File for CrashFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let content = self.cached();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = content.get(offset..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(target), Some(source)) = (buffer.get_mut(..count), rest.get(..count)) {
            target.copy_from_slice(source);
        }
        Ok(count)
    }

    fn len(&self) -> Result<u64, DiskError> {
        Ok(u64::try_from(self.cached().len()).unwrap_or(u64::MAX))
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.disk.perform(Step::Write { inode: self.inode, offset, bytes: bytes.into() }).await;
        Ok(())
    }

    /// Nothing of the store ever cuts a file.
    async fn truncate(&self, len: u64) -> Result<(), DiskError> {
        let (kind, operation) = (DiskErrorKind::Io, "truncate");
        let message = format!("to {len} bytes: not recorded here");
        Err(DiskError { kind, operation, path: format!("file {}", self.inode), message })
    }

    async fn sync(&self) -> Result<(), DiskError> {
        self.disk.perform(Step::Sync(self.inode)).await;
        Ok(())
    }
}
