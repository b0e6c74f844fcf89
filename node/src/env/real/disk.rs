//! The operating system's files, below one locked directory.
//!
//! Reads and writes go through the page cache with plain positioned calls, on the caller's
//! thread: handing 4 KiB to another thread costs more than copying them. What may wait long for
//! the medium runs on tokio's blocking threads, so that it does not hold up the runtime.
//!
//! The sync of a little data is done in place, too, as long as the disk is quick ([`Pace`]): the
//! way to another thread and back costs 25 µs of a 100 µs fdatasync and four system calls. While
//! it lasts the node does nothing else, and what arrives meanwhile becomes the next batch. Should
//! the disk stall in such a sync, the whole node stands still for once, which the protocols must
//! bear anyhow (a paused process looks the same); after it, syncs are made on other threads. So are
//! those of a caller that has other work meanwhile, with the write before them, which waits for the
//! medium as well if it goes past the page cache ([`File::write_and_sync_aside`]): a leader under
//! load reads requests and sends answers, and gives a sixth more of them.
//!
//! A log, whose small writes are each synced at once ([`File::expect_syncs`]), is written past the
//! page cache as long as the disk is quick: with three processes on one disk that takes 50 µs of
//! processor time instead of 75 for 4 KiB and their sync, and 300 µs instead of 360. It also spares
//! what was synced before: the page cache writes whole pages, neighbouring sectors included.
//!
//! One operation is one `DiskError` with its name and path; a caller's path is relative, so a
//! message says `wal/3.log`, and what the system said about it.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is the door: it opens real files"
)]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::holding::{Holding, HoldingPlaces};
use crate::base::Rng;
use crate::env::{Disk, DiskError, DiskErrorKind, File, WrittenAside};

/// Name of the file whose lock says that a process works in the directory.
const LOCK: &str = "LOCK";

/// Most bytes that a sync in place may have to bring to the medium.
const IN_PLACE_BYTES_MAX: u64 = 128 << 10;

/// A sync that takes longer makes the disk a slow one.
const QUICK_MAX: Duration = Duration::from_millis(10);

/// So many quick syncs on other threads make it a quick one again.
const QUICK_COUNT: u32 = 16;

/// The open flag for writes past the page cache, where it is known.
const DIRECT_FLAG: Option<i32> = if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
    Some(0o40_000)
} else if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
    Some(0o200_000)
} else {
    None
};

/// What offset and length of a write past the page cache are multiples of, on most disks.
const DIRECT_UNIT: usize = 512;

/// What its address in memory is a multiple of: a page satisfies every disk.
const DIRECT_ALIGN: usize = 4096;

/// A directory of the operating system's file system, held by this process alone.
#[derive(Clone, Debug)]
pub struct RealDisk {
    held: Option<Arc<Held>>,
    pace: Arc<Pace>,
    /// Faults on request, if any can be asked for.
    holding: Option<Arc<Holding>>,
}

/// Whether the disk is quick enough to be waited for in place.
#[derive(Debug, Default)]
struct Pace {
    /// Quick syncs that are still wanted before the next one in place.
    wanted: AtomicU32,
}

impl Pace {
    fn is_quick(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) == 0
    }

    fn note(&self, elapsed: Duration) {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let next = if elapsed > QUICK_MAX { QUICK_COUNT } else { wanted.saturating_sub(1) };
        self.wanted.store(next, Ordering::Relaxed);
    }
}

/// The directory and the lock on it; the lock goes with the last clone of the disk.
#[derive(Debug)]
struct Held {
    root: PathBuf,
    _lock: fs::File,
}

/// An open file of the operating system.
#[derive(Debug)]
pub struct RealFile {
    file: Arc<fs::File>,
    path: Arc<str>,
    pace: Arc<Pace>,
    /// Bytes written through this handle since its last sync.
    unsynced: AtomicU64,
    /// The way past the page cache.
    direct: Option<Arc<Direct>>,
    /// Of a data file that may be held back from the medium.
    holding: Option<Arc<Holding>>,
}

/// A second handle of a file, for writes past the page cache.
#[derive(Debug)]
struct Direct {
    file: fs::File,
    /// Room for one write, at an address that the disk accepts.
    room: Mutex<Vec<u8>>,
    /// The disk wants larger units.
    is_refused: AtomicBool,
}

impl Direct {
    /// Opens the file once more; `None` where the system or the file system does not have it.
    fn open(file: &fs::File) -> Option<Self> {
        // By descriptor: the name may have been given to another file since.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = fs::OpenOptions::new().write(true).custom_flags(DIRECT_FLAG?).open(path).ok()?;
        Some(Self { file, room: Mutex::default(), is_refused: AtomicBool::new(false) })
    }

    /// Tells whether such a write can be tried.
    fn takes(&self, offset: u64, bytes: usize) -> bool {
        let in_units = bytes.is_multiple_of(DIRECT_UNIT)
            && usize::try_from(offset).is_ok_and(|offset| offset.is_multiple_of(DIRECT_UNIT));
        in_units && to_u64(bytes) <= IN_PLACE_BYTES_MAX && !self.is_refused.load(Ordering::Relaxed)
    }

    /// Writes all of `bytes`, unless the disk wants larger units: false.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if room.len() < bytes.len() + DIRECT_ALIGN {
            room.resize(bytes.len() + DIRECT_ALIGN, 0);
        }
        let start = room.as_ptr().align_offset(DIRECT_ALIGN);
        let Some(aligned) = room.get_mut(start..).and_then(|rest| rest.get_mut(..bytes.len()))
        else {
            return Ok(false);
        };
        aligned.copy_from_slice(bytes);
        match self.file.write_all_at(aligned, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.is_refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl RealFile {
    fn new(file: fs::File, path: Arc<str>, pace: Arc<Pace>, holding: Option<Arc<Holding>>) -> Self {
        let (file, unsynced) = (Arc::new(file), AtomicU64::new(0));
        Self { file, path, pace, unsynced, direct: None, holding }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write(&self.file, self.direct.as_deref(), &self.pace, offset, bytes)
    }

    /// fdatasync: it covers the bytes and the length, which is all that a reader needs.
    async fn sync_data(&self) -> Result<(), DiskError> {
        let unsynced = self.unsynced.swap(0, Ordering::Relaxed);
        let begin = Instant::now();
        let is_small = unsynced <= IN_PLACE_BYTES_MAX;
        let done = if is_small && self.pace.is_quick() {
            self.file.sync_data().map_err(|error| failed("sync", &self.path, &error))
        } else {
            let file = Arc::clone(&self.file);
            blocking("sync", &self.path, move || file.sync_data()).await
        };
        if is_small {
            self.pace.note(begin.elapsed());
        }
        if let (Some(holding), Ok(())) = (&self.holding, &done) {
            holding.on_synced(&self.path);
        }
        done
    }

    /// Opens any file of the machine, for reading alone.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open_to_read(path: &Path) -> Result<Self, DiskError> {
        let shown = path.display().to_string();
        let file = fs::OpenOptions::new().read(true).open(path);
        let file = file.map_err(|error| failed("open", &shown, &error))?;
        Ok(Self::new(file, Arc::from(shown), Arc::default(), None))
    }
}

impl RealDisk {
    /// Makes the directory if need be, durably, and locks it.
    pub(super) fn open(root: &Path) -> Result<Self, DiskError> {
        let shown = root.display().to_string();
        create_durably(root).map_err(|error| failed("create", &shown, &error))?;
        let lock = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(root.join(LOCK))
            .map_err(|error| failed_at(&root.join(LOCK), "lock", &shown, &error))?;
        match lock.try_lock() {
            Ok(()) => {
                let held = Held { root: root.to_owned(), _lock: lock };
                Ok(Self { held: Some(Arc::new(held)), pace: Arc::default(), holding: None })
            }
            Err(fs::TryLockError::WouldBlock) => Err(DiskError {
                kind: DiskErrorKind::Locked,
                operation: "lock",
                path: shown,
                message: "another node is running on this directory".to_owned(),
            }),
            Err(fs::TryLockError::Error(error)) => Err(failed("lock", &shown, &error)),
        }
    }

    /// Makes a disk on which every operation fails: that of a client.
    pub(super) fn absent() -> Self {
        Self { held: None, pace: Arc::default(), holding: None }
    }

    /// Lets happen to the data files what was asked for in the last life of the node; may be asked
    /// for it in this one if there is randomness for it.
    pub(super) fn with_holding(
        mut self,
        places: HoldingPlaces,
        rng: Option<Rng>,
    ) -> Result<(Self, bool), DiskError> {
        let Some(held) = &self.held else { return Ok((self, false)) };
        let recovered = Holding::recover(&held.root, places);
        let was_held = recovered.map_err(|error| failed("recover", places.data, &error))?;
        self.holding = rng.map(|rng| Arc::new(Holding::new(&held.root, places, rng)));
        Ok((self, was_held))
    }

    /// Runs a change of names, which must not happen while data files are copied.
    fn change(&self, path: &str, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match &self.holding {
            Some(holding) if holding.is_data(path) => holding.change(change),
            Some(_) | None => change(),
        }
    }

    /// Returns the absolute place of a caller's path, which must lie below the directory.
    fn place(&self, operation: &'static str, path: &str) -> Result<PathBuf, DiskError> {
        let refused = |why: &str| failed(operation, path, &io::Error::other(why));
        let Some(held) = &self.held else { return Err(refused("a client has no disk")) };
        let relative = Path::new(path);
        if relative.components().all(|part| matches!(part, Component::Normal(_))) {
            Ok(held.root.join(relative))
        } else {
            Err(refused("the path leaves the node's directory"))
        }
    }

    /// Returns the place of a file, which needs a name.
    fn file_place(&self, operation: &'static str, path: &str) -> Result<PathBuf, DiskError> {
        let place = self.place(operation, path)?;
        if path.is_empty() || path == LOCK {
            return Err(failed(operation, path, &io::Error::other("not a name for a file")));
        }
        Ok(place)
    }

    fn open_with(
        &self,
        operation: &'static str,
        path: &str,
        options: &fs::OpenOptions,
    ) -> Result<RealFile, DiskError> {
        let place = self.file_place(operation, path)?;
        let holding = self.holding.as_ref().filter(|holding| holding.is_data(path));
        let opened = match holding {
            Some(holding) => holding.change(|| options.open(&place)),
            None => options.open(&place),
        };
        let file = opened.map_err(|error| failed_at(&place, operation, path, &error))?;
        Ok(RealFile::new(file, path.into(), Arc::clone(&self.pace), holding.map(Arc::clone)))
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    async fn open(&self, path: &str) -> Result<RealFile, DiskError> {
        self.open_with("open", path, fs::OpenOptions::new().read(true).write(true))
    }

    async fn create(&self, path: &str) -> Result<RealFile, DiskError> {
        if let Some(holding) = &self.holding {
            holding.end_for(path).map_err(|error| failed("create", path, &error))?;
        }
        let mut options = fs::OpenOptions::new();
        self.open_with("create", path, options.read(true).write(true).create(true).truncate(true))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let (old, new) = (self.file_place("rename", from)?, self.file_place("rename", to)?);
        let renamed = self.change(from, || fs::rename(old, new));
        renamed.map_err(|error| failed("rename", from, &error))?;
        if let Some(holding) = &self.holding {
            holding.on_renamed(from, to);
        }
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        let place = self.file_place("remove", path)?;
        if self.holding.as_ref().is_some_and(|holding| holding.keeps(path, &place)) {
            return Ok(());
        }
        let removed = self.change(path, || fs::remove_file(place));
        removed.map_err(|error| failed("remove", path, &error))
    }

    async fn create_dir(&self, path: &str) -> Result<(), DiskError> {
        let place = self.place("create directory", path)?;
        fs::create_dir_all(place).map_err(|error| failed("create directory", path, &error))
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        let place = self.place("list", path)?;
        names_in(&place, path.is_empty()).map_err(|error| failed("list", path, &error))
    }

    async fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        let place = self.place("sync directory", path)?;
        blocking("sync directory", path, move || fs::File::open(place)?.sync_all()).await
    }

    fn can_hold_back(&self) -> bool {
        self.holding.is_some()
    }

    fn hold_back(&self) -> Result<(), DiskError> {
        let Some(holding) = &self.holding else { return Ok(()) };
        let begun = holding.begin().map_err(|error| failed("hold back", "", &error))?;
        tracing::debug!(is_holding = begun, "data files are held back from the medium");
        Ok(())
    }
}

impl File for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        read_fully(&self.file, offset, buffer).map_err(|error| failed("read", &self.path, &error))
    }

    fn len(&self) -> Result<u64, DiskError> {
        let metadata = self.file.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| failed("stat", &self.path, &error))
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.unsynced.fetch_add(to_u64(bytes.len()), Ordering::Relaxed);
        let written = match &self.holding {
            Some(holding) => holding.write(&self.path, || self.write(offset, bytes)),
            None => self.write(offset, bytes),
        };
        written.map_err(|error| failed("write", &self.path, &error))
    }

    fn expect_syncs(&mut self) {
        self.direct = Direct::open(&self.file).map(Arc::new);
    }

    async fn truncate(&self, len: u64) -> Result<(), DiskError> {
        let file = Arc::clone(&self.file);
        blocking("truncate", &self.path, move || file.set_len(len)).await
    }

    async fn sync(&self) -> Result<(), DiskError> {
        self.sync_data().await
    }

    /// One way to another thread and back for both. A write past the page cache waits for the
    /// medium, too.
    async fn write_and_sync_aside(&self, offset: u64, bytes: Vec<u8>) -> WrittenAside {
        let (file, direct) = (Arc::clone(&self.file), self.direct.clone());
        let pace = Arc::clone(&self.pace);
        assert!(self.holding.is_none(), "{} is held back, and written aside", self.path);
        self.unsynced.store(0, Ordering::Relaxed);
        let work = move || {
            let begin = Instant::now();
            let written = write(&file, direct.as_deref(), &pace, offset, &bytes);
            let synced = if written.is_ok() { file.sync_data() } else { Ok(()) };
            if to_u64(bytes.len()) <= IN_PLACE_BYTES_MAX {
                pace.note(begin.elapsed());
            }
            (bytes, written, synced)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok((bytes, written, synced)) => {
                let written = written.map_err(|error| failed("write", &self.path, &error));
                let synced = synced.map_err(|error| failed("sync", &self.path, &error));
                WrittenAside { bytes, written, synced }
            }
            // The runtime is being torn down: whether the work was done is unknown.
            Err(error) => {
                let synced = Err(failed("sync", &self.path, &io::Error::other(error)));
                WrittenAside { bytes: Vec::new(), written: Ok(()), synced }
            }
        }
    }
}

/// Writes all of `bytes`, past the page cache if there is such a way and the disk is quick.
fn write(
    file: &fs::File,
    direct: Option<&Direct>,
    pace: &Pace,
    offset: u64,
    bytes: &[u8],
) -> io::Result<()> {
    if let Some(direct) = direct
        && direct.takes(offset, bytes.len())
        && pace.is_quick()
    {
        let begin = Instant::now();
        let done = direct.write(offset, bytes)?;
        let elapsed = begin.elapsed();
        if elapsed > QUICK_MAX {
            pace.note(elapsed);
        }
        if done {
            return Ok(());
        }
    }
    file.write_all_at(bytes, offset)
}

/// Runs what waits for the medium on a thread that may wait.
async fn blocking(
    operation: &'static str,
    path: &str,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), DiskError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(operation, path, &error)),
        // The runtime is being torn down: whether the work was done is unknown.
        Err(error) => Err(failed(operation, path, &io::Error::other(error))),
    }
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Fills `buffer` from `offset` as far as the file goes; returns how far that was.
fn read_fully(file: &fs::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let position = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        match file.read_at(rest, position) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Returns the sorted names in a directory. The lock is no business of the caller's, and a name
/// that is not UTF-8 was not made through this interface.
fn names_in(place: &Path, is_root: bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(place)? {
        if let Ok(name) = entry?.file_name().into_string()
            && !(is_root && name == LOCK)
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes a directory with its parents, and makes the new names durable; its own name also if it is
/// there, for whoever made it may have had no time for that.
fn create_durably(root: &Path) -> io::Result<()> {
    let root = std::path::absolute(root)?;
    let is_there = root.exists();
    let parents = parents_to_sync(&root, Path::exists);
    fs::create_dir_all(&root)?;
    for parent in parents {
        match fs::File::open(parent).and_then(|parent| parent.sync_all()) {
            Err(error) if is_there && is_out_of_reach(&error) => {
                let parent = parent.display();
                tracing::debug!(%parent, %error, "the directory's own name is not synced");
            }
            synced => synced?,
        }
    }
    Ok(())
}

/// Returns the directories above `root`, which is absolute, in which a name is to be made durable:
/// that of `root` at every start, and those of all above it that are missing.
fn parents_to_sync(root: &Path, exists: impl Fn(&Path) -> bool) -> Vec<&Path> {
    let missing_count = root.ancestors().take_while(|place| !exists(place)).count();
    root.ancestors().take(missing_count.max(1)).filter_map(Path::parent).collect()
}

/// Tells whether a directory that others have made cannot be synced because it is closed to us, or
/// in a file system that is never written or knows no syncs of directories.
fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// What the system says when no more files may be open: ENFILE and EMFILE, which the standard
/// library has no kind for.
const TOO_MANY_FILES: [i32; 2] = [23, 24];

/// Puts an error of the system, or our own, into the terms that callers act on.
fn failed(operation: &'static str, path: &str, error: &io::Error) -> DiskError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
    let kind = match error.kind() {
        _ if error.raw_os_error().is_some_and(|number| TOO_MANY_FILES.contains(&number)) => {
            DiskErrorKind::TooManyFiles
        }
        io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::NoSpace,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DiskErrorKind::Denied
        }
        _ => DiskErrorKind::Io,
    };
    let path = if path.is_empty() { "." } else { path };
    DiskError { kind, operation, path: path.to_owned(), message: error.to_string() }
}

/// As [`failed`]. Whoever is denied a file is told whose that is, and what to do.
fn failed_at(place: &Path, operation: &'static str, path: &str, error: &io::Error) -> DiskError {
    let mut failed = failed(operation, path, error);
    if failed.kind == DiskErrorKind::Denied {
        failed.message.push_str(&advice_on_denial(place, error));
    }
    failed
}

fn advice_on_denial(place: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return "; mount it so that it can be written. If it was, the system has met an error of \
                the disk: see its log"
            .to_owned();
    }
    let own = rustix::process::geteuid().as_raw();
    let owner = fs::metadata(place).map(|metadata| metadata.uid()).ok();
    let whose = match owner.filter(|owner| *owner != own) {
        Some(owner) => format!("it is a file of user {owner}, and this is user {own}"),
        None => format!("this is user {own}"),
    };
    format!("; {whose}: give the whole directory to one user (chown -R), and run the node as that")
}

// What any disk must do is in `env::conformance`; here is what only this one promises.
#[cfg(test)]
mod tests {
    use super::super::tests::block_on;
    use super::*;

    fn fresh() -> (tempfile::TempDir, RealDisk) {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("an unused directory");
        (directory, disk)
    }

    #[test]
    fn second_open_is_refused_until_the_last_clone_is_gone() {
        let (directory, disk) = fresh();
        let clone = disk.clone();
        drop(disk);
        let error = RealDisk::open(directory.path()).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Locked);
        let shown = error.to_string();
        assert!(shown.contains(&directory.path().display().to_string()), "{shown}");
        assert!(shown.contains("another node is running on this directory"), "{shown}");
        drop(clone);
        RealDisk::open(directory.path()).unwrap();
    }

    #[test]
    fn missing_parents_are_made() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("a/b/c");
        let disk = RealDisk::open(&root).unwrap();
        assert!(root.is_dir());
        assert_eq!(block_on(disk.list("")), Ok(vec![]), "the lock is hidden");
    }

    /// Found by reading: who was killed between making the directory and syncing its name left one
    /// that no later start synced either.
    #[test]
    fn own_name_is_synced_at_every_start_and_those_above_when_they_are_made() {
        let root = Path::new("/srv/store/node");
        let synced = |there: &[&str]| {
            let exists = |place: &Path| there.iter().any(|name| place == Path::new(name));
            let parents = parents_to_sync(root, exists).into_iter();
            parents.map(|place| place.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(synced(&["/", "/srv", "/srv/store", "/srv/store/node"]), ["/srv/store"]);
        assert_eq!(synced(&["/", "/srv", "/srv/store"]), ["/srv/store"]);
        assert_eq!(synced(&["/"]), ["/srv/store", "/srv", "/"]);
        assert!(parents_to_sync(Path::new("/"), |_| true).is_empty(), "it has no name");
    }

    #[test]
    fn parent_that_cannot_be_synced_keeps_no_node_away_and_a_failing_one_does() {
        let [denied, invalid, read_only, failed, full] = [13, 22, 30, 5, 28].map(|code| {
            let error = io::Error::from_raw_os_error(code);
            is_out_of_reach(&error)
        });
        assert!(denied && invalid && read_only);
        assert!(!failed && !full);
    }

    #[test]
    fn directory_that_is_a_file_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("file");
        fs::write(&place, "x").unwrap();
        let error = RealDisk::open(&place).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Io, "{error}");
        assert!(error.to_string().contains("file"), "{error}");
    }

    #[test]
    fn path_outside_the_directory_is_refused() {
        let (_directory, disk) = fresh();
        for path in ["../x", "/etc/passwd", "a/../../x", "", LOCK] {
            let error = block_on(disk.create(path)).unwrap_err();
            assert_eq!((error.kind, error.operation), (DiskErrorKind::Io, "create"), "{error}");
        }
    }

    #[test]
    fn missing_names_are_not_found_with_operation_and_path() {
        let (_directory, disk) = fresh();
        let error = block_on(disk.open("wal/1")).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::NotFound);
        assert!(error.to_string().starts_with("cannot open wal/1: "), "{error}");
        assert_eq!(block_on(disk.remove("x")).unwrap_err().kind, DiskErrorKind::NotFound);
        assert_eq!(block_on(disk.rename("x", "y")).unwrap_err().kind, DiskErrorKind::NotFound);
        assert_eq!(block_on(disk.list("x")).unwrap_err().kind, DiskErrorKind::NotFound);
        assert_eq!(block_on(disk.sync_dir("x")).unwrap_err().kind, DiskErrorKind::NotFound);
    }

    #[test]
    fn log_reads_as_written_past_the_cache_and_through_it() {
        let (_directory, disk) = fresh();
        let mut file = block_on(disk.create("log")).unwrap();
        block_on(file.write_at(0, &[1; 4096])).unwrap();
        file.expect_syncs();
        // Whole sectors, then bytes that no disk takes past the cache, then sectors again.
        for (offset, byte, len) in [(512, 2, 1024), (2000, 3, 100), (1536, 4, 512), (4096, 5, 512)]
        {
            block_on(file.write_at(offset, &vec![byte; len])).unwrap();
            block_on(file.sync()).unwrap();
            let mut read = vec![0; len];
            assert_eq!(file.read_at(offset, &mut read), Ok(len));
            assert_eq!(read, vec![byte; len]);
        }
        assert_eq!(file.len(), Ok(4608));
        let mut sectors = vec![0; 4608];
        assert_eq!(file.read_at(0, &mut sectors), Ok(4608));
        assert_eq!((sectors[0], sectors[511], sectors[512], sectors[2047]), (1, 1, 2, 4));
        assert_eq!((sectors[2048], sectors[2099], sectors[2100], sectors[4095]), (3, 3, 1, 1));
    }

    #[test]
    fn log_on_a_slow_disk_is_written_through_the_cache() {
        let (_directory, disk) = fresh();
        let mut file = block_on(disk.create("log")).unwrap();
        file.expect_syncs();
        disk.pace.note(QUICK_MAX * 2);
        block_on(file.write_at(0, &[7; 512])).unwrap();
        let room = file.direct.as_ref().map(|direct| direct.room.lock().unwrap().len());
        assert!(room.is_none_or(|bytes| bytes == 0), "{room:?}");
    }

    #[test]
    fn full_disk_is_told_apart() {
        for code in [28, 122] {
            let error = failed("write", "wal/1", &io::Error::from_raw_os_error(code));
            assert_eq!(error.kind, DiskErrorKind::NoSpace, "{error}");
        }
        let error = failed("sync", "wal/1", &io::Error::from_raw_os_error(5));
        assert_eq!(error.kind, DiskErrorKind::Io, "{error}");
    }

    /// The accident: a command that somebody had run once as root left files that the node could
    /// not open, and took for damaged.
    #[test]
    fn file_that_may_not_be_opened_is_told_apart_with_advice() {
        let (directory, _) = fresh();
        for (code, advice) in [(1, "chown -R"), (13, "chown -R"), (30, "mount it")] {
            let error = io::Error::from_raw_os_error(code);
            let error = failed_at(directory.path(), "open", "tables/MANIFEST", &error);
            assert_eq!((error.kind, error.is_loss()), (DiskErrorKind::Denied, false), "{error}");
            assert!(error.message.contains(advice), "{error}");
        }
        let error = io::Error::from_raw_os_error(13);
        let error = failed_at(Path::new("/no/such/place"), "open", "x", &error);
        let own = format!("this is user {}", rustix::process::geteuid().as_raw());
        assert!(error.message.contains(&own), "{error}");
    }

    #[test]
    fn client_has_no_disk() {
        let error = block_on(RealDisk::absent().list("")).unwrap_err();
        assert_eq!(error.to_string(), "cannot list .: a client has no disk");
    }
}
