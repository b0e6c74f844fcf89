//! The disk of one machine: what its processes see, and what a power loss leaves of it.
//!
//! [`SimDisk`] is what a node is given; the world keeps one [`DiskState`] per machine behind it.
//!
//! A file has two contents. The *cached* one is what reads see: every completed write. The
//! *durable* one is what is on the medium. Between them stand the pending writes in the order of
//! issue; a sync that completes applies those that were issued before it began to the durable
//! content. Names work the same way, with creations, removals and renames as the pending changes
//! and the sync of the directory that holds the (new) name. So a file that was synced but whose
//! directory was not may be lost, and so may everything below a directory whose own name was not
//! synced.
//!
//! What a power loss keeps of the pending changes is decided in `power`. A crash of the process
//! keeps all of them: they are in the page cache.
//!
//! A sync that fails (D5) drops the writes that it covers: they stay readable until the process
//! restarts, are never durable, and the next sync succeeds. A sync that lies (D6) drops some of
//! them likewise, and says nothing.
//!
//! What the medium loses by itself (D9, D10) is in `rot`.
//!
//! # Invariants
//! 1. Without a power loss, a failed sync or a restart after one, the cached content is the
//!    durable one with the pending writes applied in order.
//! 2. Bytes that a truthful sync covered survive every power loss: a torn write damages only
//!    bytes that were themselves not synced, even within a sector.
//!
//! # Left out
//! Misdirected and phantom writes (D11 to D14): the checks that they would need are those that rot
//! (D10) needs. Renaming and removing directories: the store does neither.

mod bytes;
mod copies;
mod file;
mod look;
mod notes;
mod power;
mod rot;

use std::collections::BTreeMap;

use mangrove::env::DiskErrorKind;
use tokio::sync::oneshot;

use self::bytes::{PAGE_BYTES, SparseBytes};
pub use self::file::{SimDisk, SimFile};
pub use self::look::FileState;
pub use self::power::PowerLoss;
pub use self::rot::Rot;
use super::Host;
use super::core::{Core, Event, bytes_u64};
use super::fate::{Decided, Fate, For, Passing, SyncEnd};
use super::fault::Fault;
use super::log::Happening;
use super::options::DiskOptions;
use super::trace::fold_bytes;

/// One disk of the world, or one view of what would be left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DiskId(pub(super) u64);

/// One file, whatever its name.
type InodeId = u64;

/// Why an operation was refused: kind and message.
type Refusal = (DiskErrorKind, &'static str);

/// Bytes that the medium writes as one, all of them or none, and loses as one.
const SECTOR_BYTES: u64 = 512;

const NOT_FOUND: Refusal = (DiskErrorKind::NotFound, "no such file or directory");
const NO_SPACE: Refusal = (DiskErrorKind::NoSpace, "no space left on device");
const IO_ERROR: Refusal = (DiskErrorKind::Io, "input/output error");
const UNREADABLE: Refusal = (DiskErrorKind::Io, "the sector cannot be read");
const IS_DIRECTORY: Refusal = (DiskErrorKind::Io, "is a directory");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(InodeId),
    Directory,
}

/// A change of a file that is not durable yet.
#[derive(Debug, Clone)]
struct DataChange {
    order: u64,
    kind: DataKind,
}

#[derive(Debug, Clone)]
enum DataKind {
    Write { offset: u64, bytes: Box<[u8]> },
    Zeros { offset: u64, len: u64 },
    Truncate { len: u64 },
}

impl DataKind {
    fn apply(&self, content: &mut SparseBytes) {
        match self {
            Self::Write { offset, bytes } => content.write(*offset, bytes),
            Self::Zeros { offset, len } => content.write_zeros(*offset, *len),
            Self::Truncate { len } => content.truncate(*len),
        }
    }

    fn range(&self) -> (u64, u64) {
        match self {
            Self::Write { offset, bytes } => (*offset, bytes_u64(bytes.len())),
            Self::Zeros { offset, len } => (*offset, *len),
            Self::Truncate { len } => (*len, 0),
        }
    }
}

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
struct NameChange {
    order: u64,
    /// The directory whose sync makes it durable.
    directory: String,
    kind: NameKind,
}

#[derive(Debug, Clone)]
enum NameKind {
    Create { path: String, entry: Entry },
    Remove { path: String },
    Rename { from: String, to: String, inode: InodeId },
}

impl NameKind {
    fn apply(&self, names: &mut BTreeMap<String, Entry>) {
        match self {
            Self::Create { path, entry } => {
                names.insert(path.clone(), *entry);
            }
            Self::Remove { path } => {
                names.remove(path);
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(&Entry::File(*inode)) {
                    names.remove(from);
                }
                names.insert(to.clone(), Entry::File(*inode));
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inode {
    cached: SparseBytes,
    durable: SparseBytes,
    pending: Vec<DataChange>,
    /// Ranges that a failed sync dropped: readable until the process restarts.
    failed: Vec<(u64, u64)>,
    /// Ranges that a sync covered, and did not make durable: it failed, or it lied.
    volatile: Vec<(u64, u64)>,
    /// Whether a sync lied about a write, so that a power loss will show it.
    lied: bool,
    /// Offsets of flipped bits that no read has met yet.
    rotten: Vec<u64>,
    /// Where sectors begin that cannot be read.
    unreadable: Vec<u64>,
    open_count: u32,
    /// The fates of what is done to the file.
    fate: Fate,
    passing: Passing,
}

impl Inode {
    /// Makes an empty file; its fates belong to the name under which it is created.
    fn new(fate: Fate) -> Self {
        Self { fate, passing: Passing::new(fate), ..Self::default() }
    }

    fn change(&mut self, order: u64, kind: DataKind) {
        kind.apply(&mut self.cached);
        let (start, len) = kind.range();
        self.rotten.retain(|at| *at < start || *at >= start + len);
        // What is written as a whole: a medium puts another sector in its place. What is cut off is
        // not, and has its damage still where the file grows again.
        self.unreadable.retain(|at| *at < start || at + SECTOR_BYTES > start + len);
        self.pending.push(DataChange { order, kind });
    }

    /// Takes the pending changes that were issued before `order`.
    fn take_before(&mut self, order: u64) -> Vec<DataChange> {
        let count = self.pending.partition_point(|change| change.order < order);
        self.pending.drain(..count).collect()
    }

    /// Forgets what a failed sync dropped, as a restart of the process does.
    fn forget_failed(&mut self) {
        if self.failed.is_empty() {
            return;
        }
        for (start, len) in std::mem::take(&mut self.failed) {
            self.cached.copy_from(&self.durable, start, len);
            self.note_durable(start, len);
        }
        self.cached.truncate(self.durable.len());
        for change in &self.pending {
            change.kind.apply(&mut self.cached);
        }
    }
}

/// What is being synced.
#[derive(Debug, Clone)]
pub(super) enum SyncTarget {
    File(InodeId),
    Directory(String),
}

/// A sync on its way to the medium.
pub(super) struct SyncJob {
    disk: DiskId,
    /// How often the disk had lost power when the sync began: a later one loses the sync.
    power_loss_count: u64,
    target: SyncTarget,
    before: u64,
    fate: Fate,
    /// How it ends, if that was decided.
    decided: Option<u64>,
    reply: oneshot::Sender<Result<(), Refusal>>,
}

impl SyncJob {
    pub(super) fn disk(&self) -> DiskId {
        self.disk
    }
}

pub(super) struct DiskState {
    id: DiskId,
    host: Host,
    /// Whether nobody but an observer sees it: what is done to it is none of the machine's.
    is_view: bool,
    pub(super) options: DiskOptions,
    fate: Fate,
    /// Syncs that end as was decided.
    decided: Vec<Decided>,
    /// The fates of syncs of directories, and of the waits of writes.
    passing: Passing,
    inodes: BTreeMap<InodeId, Inode>,
    names: BTreeMap<String, Entry>,
    durable_names: BTreeMap<String, Entry>,
    pending_names: Vec<NameChange>,
    inode_count: u64,
    change_count: u64,
    sync_count: u32,
    power_loss_count: u64,
    /// The decision that took the power last, and how often it has.
    power_decision: (u64, u64),
    stalled_until: u64,
    /// How often it has refused something.
    pub(super) refused_count: u64,
}

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl DiskState {
    /// Draws everything anew from now on.
    pub(super) fn reseed(&mut self, number: u64) {
        self.fate = self.fate.reseeded(number);
        self.passing.reseed(number);
        for inode in self.inodes.values_mut() {
            inode.fate = inode.fate.reseeded(number);
            inode.passing.reseed(number);
        }
    }

    pub(super) fn new(
        id: DiskId,
        host: Host,
        options: DiskOptions,
        fate: Fate,
        decided: Vec<Decided>,
    ) -> Self {
        Self {
            id,
            host,
            is_view: false,
            options,
            fate,
            decided,
            passing: Passing::new(fate.named("passing")),
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            inode_count: 0,
            change_count: 0,
            sync_count: 0,
            power_loss_count: 0,
            refused_count: 0,
            power_decision: (0, 0),
            stalled_until: 0,
        }
    }

    fn next_order(&mut self) -> u64 {
        self.change_count += 1;
        self.change_count
    }

    fn change_names(&mut self, directory: &str, kind: NameKind) {
        let order = self.next_order();
        kind.apply(&mut self.names);
        self.pending_names.push(NameChange { order, directory: directory.to_owned(), kind });
    }

    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.names.get(path) == Some(&Entry::Directory)
    }

    fn inode_of(&self, path: &str) -> Result<InodeId, Refusal> {
        match self.names.get(path) {
            Some(Entry::File(inode)) => Ok(*inode),
            Some(Entry::Directory) => Err(IS_DIRECTORY),
            None => Err(NOT_FOUND),
        }
    }

    fn inode(&mut self, inode: InodeId) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }

    /// Returns the bytes that count against the quota: the lengths of all files.
    pub(super) fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.cached.len()).sum()
    }

    fn free_bytes(&self) -> u64 {
        let quota = self.options.quota_bytes;
        quota.map_or(u64::MAX, |quota| quota.saturating_sub(self.used_bytes()))
    }

    fn open(&mut self, path: &str) -> Result<InodeId, Refusal> {
        let inode = self.inode_of(path)?;
        self.inode(inode).open_count += 1;
        Ok(inode)
    }

    fn close(&mut self, inode: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.open_count = inode.open_count.saturating_sub(1);
        }
    }

    fn create(&mut self, core: &mut Core, path: &str) -> Result<InodeId, Refusal> {
        if !self.is_directory(directory_of(path)) {
            return Err(NOT_FOUND);
        }
        if let Ok(inode) = self.inode_of(path) {
            let order = self.next_order();
            self.inode(inode).change(order, DataKind::Truncate { len: 0 });
            self.note_file(core, inode);
            return self.open(path);
        }
        if self.is_directory(path) {
            return Err(IS_DIRECTORY);
        }
        if self.free_bytes() == 0 {
            return Err(self.refuse(core, Fault::D8, NO_SPACE));
        }
        let inode = self.inode_count;
        self.inode_count += 1;
        let made = self.make_inode(path);
        self.inodes.insert(inode, made);
        let (directory, path) = (directory_of(path), path.to_owned());
        self.change_names(directory, NameKind::Create { path, entry: Entry::File(inode) });
        self.note_file(core, inode);
        Ok(inode)
    }

    /// Makes an open file, with what was decided about files of that name.
    fn make_inode(&self, path: &str) -> Inode {
        let mut inode = Inode::new(self.fate.named(path));
        inode.open_count = 1;
        for decided in &self.decided {
            if let Decided::Sync { path: wanted, moment, end, .. } = decided
                && wanted == path
            {
                inode.passing.decide(*moment, end.number());
            }
        }
        inode
    }

    fn rename(&mut self, core: &Core, from: &str, to: &str) -> Result<(), Refusal> {
        let inode = self.inode_of(from)?;
        if !self.is_directory(directory_of(to)) {
            return Err(NOT_FOUND);
        }
        if self.is_directory(to) {
            return Err(IS_DIRECTORY);
        }
        if from != to {
            self.note(core, || Happening::Gone { path: from.to_owned() });
            let (from, directory) = (from.to_owned(), directory_of(to));
            self.change_names(directory, NameKind::Rename { from, to: to.to_owned(), inode });
            self.note_file(core, inode);
        }
        Ok(())
    }

    fn remove(&mut self, core: &Core, path: &str) -> Result<(), Refusal> {
        self.inode_of(path)?;
        self.note(core, || Happening::Gone { path: path.to_owned() });
        self.change_names(directory_of(path), NameKind::Remove { path: path.to_owned() });
        Ok(())
    }

    fn create_directory(&mut self, core: &Core, path: &str) -> Result<(), Refusal> {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for directory in ends.filter_map(|end| path.get(..end)) {
            if self.is_directory(directory) {
                continue;
            }
            if self.names.contains_key(directory) {
                return Err((DiskErrorKind::Io, "not a directory"));
            }
            let kind = NameKind::Create { path: directory.to_owned(), entry: Entry::Directory };
            self.change_names(directory_of(directory), kind);
            self.note_directory(core, directory_of(directory));
        }
        Ok(())
    }

    fn find_directory(&self, path: &str) -> Result<(), Refusal> {
        if self.is_directory(path) { Ok(()) } else { Err(NOT_FOUND) }
    }

    fn list(&self, path: &str) -> Result<Vec<String>, Refusal> {
        self.find_directory(path)?;
        let names = self.names.keys().filter(|name| directory_of(name) == path);
        let names = names.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned());
        Ok(names.collect())
    }

    fn read(
        &mut self,
        core: &mut Core,
        inode: InodeId,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Refusal> {
        let is_view = self.is_view;
        let inode = self.inode(inode);
        let len = inode.cached.read(offset, buffer);
        if inode.is_unreadable(offset, bytes_u64(len)) {
            if !is_view {
                core.faults.observed(Fault::D9);
            }
            self.refused_count += 1;
            return Err(UNREADABLE);
        }
        if !inode.rotten.is_empty() {
            let end = offset.saturating_add(bytes_u64(len));
            let before = inode.rotten.len();
            inode.rotten.retain(|at| *at < offset || *at >= end);
            for _ in inode.rotten.len()..before {
                core.faults.observed(Fault::D10);
            }
        }
        Ok(len)
    }

    fn len(&mut self, inode: InodeId) -> u64 {
        self.inode(inode).cached.len()
    }

    fn write(
        &mut self,
        core: &mut Core,
        inode: InodeId,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let mut result = Ok(());
        let mut len = bytes.len();
        let error = self.options.write_error;
        if error > 0.0 {
            let fate = self.inode(inode).passing.next(core.now());
            if fate.chance(For::WriteError, error) {
                len = fate.index(For::WriteLength, len + 1);
                result = Err(self.refuse(core, Fault::D7, IO_ERROR));
            }
        }
        if self.options.quota_bytes.is_some() {
            let room = self.len(inode).saturating_add(self.free_bytes()).saturating_sub(offset);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            if room < len {
                len = room;
                result = Err(self.refuse(core, Fault::D8, NO_SPACE));
            }
        }
        let bytes = bytes.get(..len).unwrap_or(bytes);
        let mut content = bytes_u64(len);
        if !bytes.is_empty() {
            let order = self.next_order();
            let kind = if is_zero(bytes) {
                DataKind::Zeros { offset, len: bytes_u64(len) }
            } else {
                content ^= fold_bytes(bytes);
                DataKind::Write { offset, bytes: bytes.into() }
            };
            self.inode(inode).change(order, kind);
        }
        core.fold(self.host, "disk.write", (offset ^ inode.rotate_left(40), content));
        self.note_file(core, inode);
        result
    }

    fn truncate(&mut self, core: &mut Core, inode: InodeId, len: u64) -> Result<(), Refusal> {
        let growth = len.saturating_sub(self.len(inode));
        if growth > self.free_bytes() {
            return Err(self.refuse(core, Fault::D8, NO_SPACE));
        }
        let order = self.next_order();
        self.inode(inode).change(order, DataKind::Truncate { len });
        self.note_file(core, inode);
        Ok(())
    }

    fn refuse(&mut self, core: &mut Core, fault: Fault, refusal: Refusal) -> Refusal {
        self.refused_count += 1;
        core.faults.injected(fault);
        core.faults.observed(fault);
        core.event(self.host, "disk.refuses", (0, 0), || {
            format!("{}: {}", fault.code(), refusal.1)
        });
        refusal
    }

    /// Returns until when the disk makes a write wait; a time in the past if not at all.
    fn write_until(&mut self, core: &mut Core) -> u64 {
        let range = self.options.write_time;
        let time = if range.1.is_zero() {
            0
        } else {
            self.passing.next(core.now()).nanos(For::WriteTime, range)
        };
        self.busy_until(core, time)
    }

    /// Returns when an operation that takes `time` on a healthy disk is over.
    fn busy_until(&self, core: &mut Core, time: u64) -> u64 {
        let now = core.now();
        if self.stalled_until > now {
            core.faults.observed(Fault::D15);
        }
        if self.options.slowness > 1 && time > 0 {
            core.faults.injected(Fault::D15);
            core.faults.observed(Fault::D15);
        }
        let time = time.saturating_mul(u64::from(self.options.slowness));
        self.stalled_until.max(now).saturating_add(time)
    }

    /// Starts a sync; the answer comes through the channel.
    fn begin_sync(
        &mut self,
        core: &mut Core,
        target: SyncTarget,
    ) -> oneshot::Receiver<Result<(), Refusal>> {
        let (reply, answer) = oneshot::channel();
        let now = core.now();
        let (fate, decided) = match &target {
            SyncTarget::File(inode) => self.inode(*inode).passing.next_decided(now),
            SyncTarget::Directory(path) => (self.passing.next(now).named(path), None),
        };
        let time = fate.nanos(For::SyncTime, self.options.sync_time);
        let at = self.busy_until(core, time);
        let before = self.change_count + 1;
        let power_loss_count = self.power_loss_count;
        let job = SyncJob { disk: self.id, power_loss_count, target, before, fate, decided, reply };
        self.sync_count += 1;
        if at <= core.now() {
            self.complete_sync(core, job);
        } else {
            core.insert(at, Event::Sync(job));
        }
        answer
    }

    /// Completes a sync: this is the instant at which what it covers becomes durable.
    pub(super) fn complete_sync(&mut self, core: &mut Core, job: SyncJob) {
        if job.power_loss_count != self.power_loss_count {
            return;
        }
        if self.stalled_until > core.now() {
            core.faults.observed(Fault::D15);
            core.insert(self.stalled_until, Event::Sync(job));
            return;
        }
        self.sync_count = self.sync_count.saturating_sub(1);
        let nameless = self.files_without_durable_name(core);
        let result = match &job.target {
            SyncTarget::File(inode) => self.sync_file(core, *inode, &job),
            SyncTarget::Directory(path) => self.sync_directory(core, path, &job),
        };
        core.fold(self.host, "disk.sync", (job.before, u64::from(result.is_ok())));
        match &job.target {
            SyncTarget::File(inode) => self.note_file(core, *inode),
            SyncTarget::Directory(path) => self.note_names(core, path, &nameless),
        }
        if job.reply.send(result).is_err() {
            // Whoever asked has been killed meanwhile; the medium does not care.
        }
    }

    /// Tells whether a sync fails, and if not, whether it lies.
    fn sync_end(&self, job: &SyncJob) -> (bool, bool) {
        if let Some(end) = job.decided {
            return (end == SyncEnd::Fails.number(), end == SyncEnd::Lies.number());
        }
        let fails = job.fate.chance(For::SyncError, self.options.sync_error);
        (fails, !fails && job.fate.chance(For::SyncLie, self.options.sync_lie))
    }

    fn sync_file(&mut self, core: &mut Core, inode: InodeId, job: &SyncJob) -> Result<(), Refusal> {
        let (fails, lies) = self.sync_end(job);
        let host = self.host;
        let file = self.inode(inode);
        let mut changes = file.take_before(job.before);
        if lies && !changes.is_empty() {
            let total = changes.len();
            let spared = bytes_u64(job.fate.index(For::Lie(0), total));
            let mut position = 0;
            changes.retain(|change| {
                position += 1;
                let is_kept = position - 1 != spared && job.fate.chance(For::Lie(position), 0.5);
                file.note_sync(&change.kind, is_kept);
                is_kept
            });
            file.lied = true;
            let lost = bytes_u64(total - changes.len());
            core.faults.injected(Fault::D6);
            core.event(host, "disk.lies", (inode, lost), || {
                format!("D6: {lost} of {total} writes stay volatile")
            });
        } else {
            for change in &changes {
                file.note_sync(&change.kind, !fails);
            }
        }
        if fails {
            file.failed.extend(changes.iter().map(|change| change.kind.range()));
            return Err(self.refuse(core, Fault::D5, IO_ERROR));
        }
        for change in changes {
            change.kind.apply(&mut file.durable);
        }
        Ok(())
    }

    fn sync_directory(
        &mut self,
        core: &mut Core,
        path: &str,
        job: &SyncJob,
    ) -> Result<(), Refusal> {
        let (fails, lies) = self.sync_end(job);
        if fails {
            return Err(self.refuse(core, Fault::D5, IO_ERROR));
        }
        if lies {
            core.faults.injected(Fault::D6);
            core.event(self.host, "disk.lies", (0, 0), || format!("D6: directory {path:?}"));
            return Ok(());
        }
        let durable = &mut self.durable_names;
        self.pending_names.retain(|change| {
            let covered = change.order < job.before && change.directory == path;
            if covered {
                change.kind.apply(durable);
            }
            !covered
        });
        self.sweep();
        Ok(())
    }

    /// Gives back files that no name, pending or not, and no open file refers to.
    fn sweep(&mut self) {
        let mut live = Vec::with_capacity(self.names.len() * 2);
        let names = self.names.values().chain(self.durable_names.values());
        live.extend(names.filter_map(|entry| match entry {
            Entry::File(inode) => Some(*inode),
            Entry::Directory => None,
        }));
        live.extend(self.pending_names.iter().filter_map(|change| match &change.kind {
            NameKind::Create { entry: Entry::File(inode), .. } | NameKind::Rename { inode, .. } => {
                Some(*inode)
            }
            NameKind::Create { .. } | NameKind::Remove { .. } => None,
        }));
        live.sort_unstable();
        self.inodes.retain(|id, inode| inode.open_count > 0 || live.binary_search(id).is_ok());
    }

    /// Tells whether a sync is under way: the best moment for a crash.
    pub(super) fn is_busy(&self) -> bool {
        self.sync_count > 0
    }

    /// Returns until when it does nothing; a time that has passed if it works.
    pub(super) fn stalled_until(&self) -> u64 {
        self.stalled_until
    }

    /// Freezes all reads and writes that reach the medium until a time of the world.
    pub(super) fn stall(&mut self, until: u64) {
        self.stalled_until = self.stalled_until.max(until);
    }

    /// The process that used the disk is gone: the page cache stays.
    pub(super) fn process_ended(&mut self, core: &Core) {
        let had_failed: Vec<InodeId> = self
            .inodes
            .iter()
            .filter(|(_, inode)| !inode.failed.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for inode in self.inodes.values_mut() {
            inode.open_count = 0;
            inode.forget_failed();
        }
        self.sweep();
        for inode in had_failed {
            self.note_file(core, inode);
        }
    }
}

/// Tells whether all bytes are zeros; many at a time, for a log segment is filled with them.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}
