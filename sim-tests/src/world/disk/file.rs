//! The disk as a node sees it: [`Disk`] and [`File`] over the state that the world keeps.

use std::future::pending;
use std::sync::Arc;

use mangrove::env::{Disk, DiskError, DiskErrorKind, File};

use super::{DiskId, DiskState, InodeId, Refusal, SyncTarget};
use crate::world::clock::{Sleep, Until};
use crate::world::core::Core;
use crate::world::{Fence, Shared};

/// The disk of a machine for one process on it, or a view of what a power loss would leave.
///
/// Once the process is dead, its operations have no effect and never return.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
    disk: DiskId,
    fence: Fence,
    /// Present in views only: drops the view with its last user.
    _view: Option<Arc<View>>,
}

/// An open file of a [`SimDisk`].
pub struct SimFile {
    disk: SimDisk,
    inode: InodeId,
    path: String,
}

/// Owns a disk that nobody but an observer sees.
struct View {
    shared: Arc<Shared>,
    disk: DiskId,
}

impl Drop for View {
    fn drop(&mut self) {
        let view = self.shared.with(|state| state.disks.remove(&self.disk));
        drop(view);
    }
}

impl SimDisk {
    pub(in crate::world) fn new(shared: &Arc<Shared>, disk: DiskId, fence: Fence) -> Self {
        Self { shared: Arc::clone(shared), disk, fence, _view: None }
    }

    pub(in crate::world) fn view(shared: &Arc<Shared>, disk: DiskId, fence: Fence) -> Self {
        let view = Some(Arc::new(View { shared: Arc::clone(shared), disk }));
        Self { shared: Arc::clone(shared), disk, fence, _view: view }
    }

    /// Runs `f` on the disk; `None` if the process is dead.
    fn with<R>(&self, f: impl FnOnce(&mut DiskState, &mut Core) -> R) -> Option<R> {
        self.shared.with(|state| {
            if !state.is_open(self.fence) {
                return None;
            }
            let core = &mut state.core;
            state.disks.get_mut(&self.disk).map(|disk| f(disk, core))
        })
    }

    /// Runs `f` on the disk; a dead process waits for ever.
    async fn run<R>(&self, f: impl FnOnce(&mut DiskState, &mut Core) -> R) -> R {
        match self.with(f) {
            Some(result) => result,
            None => pending().await,
        }
    }

    /// Waits as long as the disk makes a write wait. No timer, if it does not.
    async fn wait(&self) {
        let until = self.run(|disk, core| {
            let until = disk.write_until(core);
            (until > core.now()).then_some(until)
        });
        if let Some(until) = until.await {
            Sleep::new(&self.shared, Until::World(until)).await;
        }
    }

    async fn sync_target(&self, target: SyncTarget) -> Result<(), Refusal> {
        let answer = self.run(|disk, core| disk.begin_sync(core, target)).await;
        match answer.await {
            Ok(result) => result,
            // The power went away under it.
            Err(_) => pending().await,
        }
    }
}

fn error(operation: &'static str, path: &str) -> impl FnOnce(Refusal) -> DiskError {
    move |(kind, message)| DiskError {
        kind,
        operation,
        path: path.to_owned(),
        message: message.to_owned(),
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &str) -> Result<SimFile, DiskError> {
        let inode = self.run(|disk, _| disk.open(path)).await.map_err(error("open", path))?;
        Ok(SimFile { disk: self.clone(), inode, path: path.to_owned() })
    }

    async fn create(&self, path: &str) -> Result<SimFile, DiskError> {
        self.wait().await;
        let inode = self.run(|disk, core| disk.create(core, path)).await;
        let inode = inode.map_err(error("create", path))?;
        Ok(SimFile { disk: self.clone(), inode, path: path.to_owned() })
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.wait().await;
        self.run(|disk, core| disk.rename(core, from, to)).await.map_err(error("rename", from))
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.wait().await;
        self.run(|disk, core| disk.remove(core, path)).await.map_err(error("remove", path))
    }

    async fn create_dir(&self, path: &str) -> Result<(), DiskError> {
        self.wait().await;
        let made = self.run(|disk, core| disk.create_directory(core, path)).await;
        made.map_err(error("create_dir", path))
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        self.run(|disk, _| disk.list(path)).await.map_err(error("list", path))
    }

    async fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        let is_there = self.run(|disk, _| disk.find_directory(path)).await;
        is_there.map_err(error("sync_dir", path))?;
        let target = SyncTarget::Directory(path.to_owned());
        self.sync_target(target).await.map_err(error("sync_dir", path))
    }
}

/// What a process that is already dead gets from the calls that cannot wait.
const DEAD: Refusal = (DiskErrorKind::Io, "the process is dead");

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let read = self.disk.with(|disk, core| disk.read(core, self.inode, offset, buffer));
        read.unwrap_or(Err(DEAD)).map_err(error("read", &self.path))
    }

    fn len(&self) -> Result<u64, DiskError> {
        let len = self.disk.with(|disk, _| disk.len(self.inode));
        len.ok_or(DEAD).map_err(error("stat", &self.path))
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.wait().await;
        let written = self.disk.run(|disk, core| disk.write(core, self.inode, offset, bytes));
        written.await.map_err(error("write", &self.path))
    }

    async fn truncate(&self, len: u64) -> Result<(), DiskError> {
        self.disk.wait().await;
        let cut = self.disk.run(|disk, core| disk.truncate(core, self.inode, len));
        cut.await.map_err(error("truncate", &self.path))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        let target = SyncTarget::File(self.inode);
        self.disk.sync_target(target).await.map_err(error("sync", &self.path))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        // A dead process has closed its files already.
        if self.disk.with(|disk, _| disk.close(self.inode)).is_none() {}
    }
}
