//! The one door to the outside world: clock, disk, network, tasks and randomness.
//!
//! All code above is generic over [`Env`], so that the same node runs in two worlds: [`real`] on
//! tokio, and the simulated world of `sim-tests`. Nothing outside `env/real` names tokio's clock,
//! network, file system or spawning; clippy's disallowed lists enforce it.
//!
//! # The contract
//! Stated here in prose and in `conformance` (feature `testing`) as tests that both worlds pass.
//!
//! *Clock.* `now` never goes back and is meaningful on one node only. `wall` may jump, drift and
//! go back. `sleep` ends at its time or later, never earlier.
//!
//! *Disk.* Paths are relative to the node's own directory, `/`-separated. A read sees every
//! completed write of this process. What survives a power loss is only: bytes of a file that a
//! completed `sync` of it covered, and names (creations, renames, removals) that a completed
//! `sync_dir` of their directory covered. Bytes written but not synced may survive wholly, partly
//! (by sector) or not, in any order. An error of `sync` means that the bytes since the last sync
//! are in an unknown state for ever: the caller stops the node and never tries again. `NoSpace`
//! from a write means that the write may have happened partly; repeating it at the same offset is
//! safe. An open file stays readable and writable after its name is removed or replaced.
//!
//! *Network.* Reliable ordered byte streams that may stall, reset, or be half open for ever: every
//! wait needs a deadline of the caller's. A write that succeeded says nothing about delivery, and
//! what was written before a stream was dropped may arrive minutes later.
//!
//! *Tasks.* A panic in a task ends the node. Tasks are polled in an unspecified order.
//!
//! # Left out
//! Cancellation of tasks: a task ends when the channel it reads from closes.

#[cfg(feature = "testing")]
pub mod conformance;
pub mod real;

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::base::{Instant, Rng, WallTime};

/// Everything a node may ask of the world it runs in. Cheap to clone.
pub trait Env: Clone + Send + Sync + 'static {
    /// The node's own directory.
    type Disk: Disk;
    /// The network as this node sees it.
    type Net: Net;

    /// Returns the monotonic time of this node.
    fn now(&self) -> Instant;

    /// Returns the wall-clock time of this node.
    fn wall(&self) -> WallTime;

    /// Waits for `duration` on this node's clock.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;

    /// Starts a task that runs until it ends by itself or the node does.
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static);

    /// Starts a task that computes for milliseconds at a time, and that others had better not wait
    /// for: it may have a processor of its own. Like any other task otherwise.
    fn spawn_aside(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(name, task);
    }

    /// Returns a stream of randomness for `purpose`; a different one at each start of the node.
    fn rng(&self, purpose: &str) -> Rng;

    /// Returns the disk.
    fn disk(&self) -> &Self::Disk;

    /// Returns the network.
    fn net(&self) -> &Self::Net;
}

/// A directory tree that outlives the node. See the [module](self) for what survives what.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: File;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`] if there is none of that name.
    fn open(&self, path: &str) -> impl Future<Output = Result<Self::File, DiskError>> + Send;

    /// Creates an empty file, or empties an existing one.
    fn create(&self, path: &str) -> impl Future<Output = Result<Self::File, DiskError>> + Send;

    /// Gives the file at `from` the name `to`, replacing what was there. Atomic.
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Removes the name of a file.
    fn remove(&self, path: &str) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Creates a directory and its parents; fine if it exists.
    fn create_dir(&self, path: &str) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Returns the names of the files and directories in a directory, sorted; "" is the root.
    fn list(&self, path: &str) -> impl Future<Output = Result<Vec<String>, DiskError>> + Send;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &str) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Tells whether [`hold_back`](Self::hold_back) does anything: only where faults were asked
    /// for when the node was started.
    fn can_hold_back(&self) -> bool {
        false
    }

    /// Keeps whatever is written to data files from now on from the medium, as if a power cut were
    /// to hit a disk that lies about its cache when the process ends. The log is not concerned, and
    /// keeps what the data files will lack. For tests of a whole node.
    ///
    /// # Errors
    /// The disk refuses; nothing is held back then.
    fn hold_back(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// An open file. Positioned reads are plain calls: they are served from the page cache.
pub trait File: Send + Sync + 'static {
    /// Reads into `buffer` from `offset`; returns how much, less than asked only at the end.
    ///
    /// # Errors
    /// The medium cannot give the bytes back. That is never "not found".
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError>;

    /// Returns the length in bytes.
    fn len(&self) -> Result<u64, DiskError>;

    /// Tells whether the file has no bytes.
    fn is_empty(&self) -> Result<bool, DiskError> {
        Ok(self.len()? == 0)
    }

    /// Writes all of `bytes` at `offset`, growing the file as needed (a gap reads as zeros).
    fn write_at(
        &self,
        offset: u64,
        bytes: &[u8],
    ) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Tells that whole sectors will be written from now on, each synced at once, and seldom read:
    /// a log. A hint that changes no promise; the file may be written past its cache.
    fn expect_syncs(&mut self) {}

    /// Cuts the file, or grows it with zeros, to `len` bytes.
    fn truncate(&self, len: u64) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Makes every write that completed before this call durable.
    fn sync(&self) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Does [`write_at`](Self::write_at) and then [`sync`](Self::sync), unless the write failed,
    /// for a caller whose thread has other work until both are done. For a log alone: data files
    /// may be [held back](Disk::hold_back).
    fn write_and_sync_aside(
        &self,
        offset: u64,
        bytes: Vec<u8>,
    ) -> impl Future<Output = WrittenAside> + Send {
        async move {
            let written = self.write_at(offset, &bytes).await;
            let synced = if written.is_ok() { self.sync().await } else { Ok(()) };
            WrittenAside { bytes, written, synced }
        }
    }
}

/// What became of [`File::write_and_sync_aside`]. The write has succeeded or may be tried again as
/// after [`File::write_at`]; the sync is as final as that of [`File::sync`].
#[derive(Debug)]
pub struct WrittenAside {
    /// What was to be written, given back.
    pub bytes: Vec<u8>,
    /// How the write ended.
    pub written: Result<(), DiskError>,
    /// How the sync ended; without meaning if the write failed.
    pub synced: Result<(), DiskError>,
}

/// What a disk refused, in terms that the caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// There is no file of that name.
    NotFound,
    /// No space, or over a quota. Reads and removals still work.
    NoSpace,
    /// The directory is in use by another process.
    Locked,
    /// The process, or the machine, has as many files open as it may. Nothing is wrong on the disk.
    TooManyFiles,
    /// The process may not do it: the file is another user's, or the file system is never written.
    /// Nothing is known to be wrong with what is there.
    Denied,
    /// Anything else: the medium failed.
    Io,
}

/// A disk operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {path}: {message}")]
pub struct DiskError {
    /// What kind of failure.
    pub kind: DiskErrorKind,
    /// The operation: "open", "write", "sync", ….
    pub operation: &'static str,
    /// The path within the node's directory.
    pub path: String,
    /// What the system said.
    pub message: String,
}

impl DiskError {
    /// Tells whether what was asked for may be lost: it is gone, or the medium failed. Else it is
    /// only out of reach, and whoever can reach it finds it as it was.
    pub fn is_loss(&self) -> bool {
        match self.kind {
            DiskErrorKind::NotFound | DiskErrorKind::Io => true,
            DiskErrorKind::NoSpace
            | DiskErrorKind::Locked
            | DiskErrorKind::TooManyFiles
            | DiskErrorKind::Denied => false,
        }
    }
}

/// Byte streams between nodes and from clients. Addresses are `host:port`.
pub trait Net: Clone + Send + Sync + 'static {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// An open port.
    type Listener: Listener<Stream = Self::Stream>;

    /// Opens a port; port 0 picks a free one.
    fn listen(&self, address: &str)
    -> impl Future<Output = std::io::Result<Self::Listener>> + Send;

    /// Connects. May hang for very long: give it a deadline.
    fn connect(&self, address: &str) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;

    /// Lets what has not left yet be thrown away when the stream is dropped, also by the end of
    /// the process, instead of being delivered whenever the other side can be reached again. For a
    /// side that waits for the answers to all that it has written and still wants to be done.
    /// A hint: what has left is out of reach.
    fn discard_on_drop(&self, _stream: &Self::Stream) -> std::io::Result<()> {
        Ok(())
    }
}

/// An open port.
pub trait Listener: Send + 'static {
    /// One connection.
    type Stream;

    /// Waits for the next connection; returns it with the other side's address, for logs.
    fn accept(&mut self) -> impl Future<Output = std::io::Result<(Self::Stream, String)>> + Send;

    /// Returns the address that was opened, with the real port.
    fn local_address(&self) -> String;
}

/// What came first of two futures.
#[derive(Debug)]
pub enum First<A, B> {
    /// The first one; also when both were ready.
    A(A),
    /// The second one.
    B(B),
}

/// Waits for the first of two futures; asks the first one first, the same in every run.
pub async fn race<A: Future, B: Future>(a: A, b: B) -> First<A::Output, B::Output> {
    use futures_util::future::{Either, select};
    match select(std::pin::pin!(a), std::pin::pin!(b)).await {
        Either::Left((output, _)) => First::A(output),
        Either::Right((output, _)) => First::B(output),
    }
}

/// Runs `future` for at most `limit`; `None` when the time is over first.
pub async fn timeout<E: Env, F: Future>(env: &E, limit: Duration, future: F) -> Option<F::Output> {
    match race(future, env.sleep(limit)).await {
        First::A(output) => Some(output),
        First::B(()) => None,
    }
}
