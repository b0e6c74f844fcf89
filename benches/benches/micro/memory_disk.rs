//! A disk in memory that never fails, never waits and forgets nothing.
//!
//! The log and the table store are measured on it, so that what is left is their own work and one
//! copy of each byte. A sync costs nothing here. The disk of the node's own tests keeps a second
//! copy of everything for power losses, and comes with the feature `testing`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use mangrove::env::{Disk, DiskError, DiskErrorKind, File};

use super::count;

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

/// The disk: files by their path; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<BTreeMap<String, MemoryFile>>>);

/// A file; clones are the same one, and it outlives its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl Disk for MemoryDisk {
    type File = MemoryFile;

    async fn open(&self, path: &str) -> Result<MemoryFile, DiskError> {
        lock(&self.0).get(path).cloned().ok_or_else(|| not_found("open", path))
    }

    async fn create(&self, path: &str) -> Result<MemoryFile, DiskError> {
        let file = MemoryFile::default();
        lock(&self.0).insert(path.to_owned(), file.clone());
        Ok(file)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = lock(&self.0);
        let file = files.remove(from).ok_or_else(|| not_found("rename", from))?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        let removed = lock(&self.0).remove(path);
        removed.map(drop).ok_or_else(|| not_found("remove", path))
    }

    async fn create_dir(&self, _path: &str) -> Result<(), DiskError> {
        Ok(())
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        let prefix = format!("{path}/");
        let files = lock(&self.0);
        let inside = files.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(inside.map(str::to_owned).collect())
    }

    async fn sync_dir(&self, _path: &str) -> Result<(), DiskError> {
        Ok(())
    }
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let content = lock(&self.0);
        let rest = content.get(position(offset)..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn len(&self) -> Result<u64, DiskError> {
        Ok(count(lock(&self.0).len()))
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut content = lock(&self.0);
        let start = position(offset);
        let end = start + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        if let Some(to) = content.get_mut(start..end) {
            to.copy_from_slice(bytes);
        }
        Ok(())
    }

    async fn truncate(&self, len: u64) -> Result<(), DiskError> {
        lock(&self.0).resize(position(len), 0);
        Ok(())
    }

    async fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn not_found(operation: &'static str, path: &str) -> DiskError {
    let message = "there is no such file".to_owned();
    DiskError { kind: DiskErrorKind::NotFound, operation, path: path.to_owned(), message }
}
