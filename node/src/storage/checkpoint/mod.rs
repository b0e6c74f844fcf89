//! The directory `checkpoint/`: the newest durable state of the cells, and how it gets there.
//!
//! A checkpoint is one file, `checkpoint-<index>-<term>`, that holds all cells as they were after
//! that log entry, and the bytes that were captured with them. The shell writes its own ones with
//! a [`CheckpointWriter`], the bytes coming from [`CheckpointEngine::checkpoint_chunk`]; it hands
//! out pieces of the newest with [`Checkpoints::read_chunk`], and takes those of another node's
//! with a [`SnapshotReceiver`]. A snapshot on the wire *is* such a file.
//!
//! Writers and receivers are values of their own, so that a task can carry their I/O while the
//! node's loop keeps the [`Checkpoints`], whose calls (after [`Checkpoints::open`]) never wait.
//!
//! ```text
//! own state      Engine::checkpoint_chunk ─▶ CheckpointWriter::append … finish ─┐
//!                                                                              ├▶ adopt
//! from a leader  Message::SnapshotChunk ──▶ SnapshotReceiver::append … install ─┘    │
//!                                                  to followers ◀─ read_chunk ◀──────┘
//! ```
//!
//! A full disk is harmless here: the file that could not be written is thrown away, the one
//! before it stays, the log is not cut, and the next try may succeed.
//!
//! # Invariants
//! 1. A file gets its final name only after all its bytes are durable.
//! 2. An older file is removed only after the newer one's name is durable. So a crash at any
//!    moment leaves the old one, the new one, or both.
//! 3. What was damaged on disk is never taken for empty: its file is kept, as `*.damaged`, and
//!    every start reports it until a checkpoint at least as new is durable.
//!
//! # Left out
//! Incremental checkpoints: each one writes all cells. Repair from another node: the shell asks
//! for a snapshot when [`StoreRecovery::damaged`] says so.
//!
//! # Sources
//! Write aside, sync, rename, sync the directory: why each step is needed is shown in [ALICE '14].

pub mod format;
mod load;
mod receive;
mod writer;

#[cfg(test)]
mod tests;

pub(super) use load::let_others_run;
pub use load::{Loaded, load};
pub use receive::{ReceiveError, Received, SnapshotReceiver, VerifiedSnapshot};
pub use writer::CheckpointWriter;

use std::cmp::Reverse;

use super::{SnapshotPoint, StorageError, Store};
use crate::env::{Disk, DiskErrorKind, File};
use crate::probe;

#[cfg(doc)]
use super::CheckpointEngine;

/// The directory of the checkpoints within the node's own.
pub const DIRECTORY: &str = "checkpoint";

/// A durable checkpoint and its open file, which stays readable after its name is gone.
#[derive(Debug)]
pub struct Checkpoint<F> {
    /// The state it holds.
    pub point: SnapshotPoint,
    /// Bytes of the file.
    pub bytes: u64,
    file: F,
}

/// What a node finds in the directory when it starts.
#[derive(Debug)]
pub struct StoreRecovery {
    /// The cells of the newest whole checkpoint, or none at all.
    pub store: Store,
    /// What was captured with them; empty if there was no checkpoint.
    pub extra: Vec<u8>,
    /// Set if a newer state than that of `store` was durable once and is lost: the log may have
    /// been cut up to it. The node must get a snapshot at least as new before it is of use.
    pub damaged: Option<Damage>,
}

/// A checkpoint that was durable once, and cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The state that it held.
    pub point: SnapshotPoint,
    /// Where the damaged file is now.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

/// A piece of a checkpoint's bytes, for a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPiece {
    /// The checkpoint that it is of.
    pub point: SnapshotPoint,
    /// Where in its bytes.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether they are the last.
    pub done: bool,
}

/// A checkpoint that pieces are read from.
#[derive(Debug)]
struct Open<F> {
    checkpoint: Checkpoint<F>,
    /// Whether somebody read from it since it was last asked.
    in_use: bool,
}

/// The checkpoints of one node; see the [module](self).
#[derive(Debug)]
pub struct Checkpoints<D: Disk> {
    disk: D,
    newest: Option<Open<D::File>>,
    /// An older one, whose name is gone, for a transfer that began with it.
    older: Option<Open<D::File>>,
    /// Counts the temporary files of this run, so that no two share a name.
    tmp_count: u64,
}

impl<D: Disk> Checkpoints<D> {
    /// Opens the directory, loads the newest whole checkpoint, and clears away the rest.
    ///
    /// May be interrupted and repeated any number of times with the same result.
    ///
    /// # Errors
    /// The disk fails, or a checkpoint was written by another version of the program. Damage is
    /// not an error, but part of the result.
    pub async fn open(disk: D) -> Result<(Self, StoreRecovery), StorageError> {
        disk.create_dir(DIRECTORY).await?;
        disk.sync_dir("").await?;
        let names = sorted_names(&disk).await?;
        let mut damages = Vec::new();
        let mut found = None;
        let mut leftovers = Vec::new();
        for name in &names {
            match name.role {
                Role::Damaged => damages.push(name.damage("found damaged at an earlier start")),
                Role::Whole if found.is_none() => match load_named(&disk, name).await? {
                    Ok(loaded) => found = Some(loaded),
                    Err(what) => damages.push(set_aside(&disk, name, what).await?),
                },
                Role::Whole | Role::Temporary => leftovers.push(name.path()),
            }
        }
        // The name that was found may be one that the last run had no time to make durable.
        disk.sync_dir(DIRECTORY).await?;
        for path in leftovers {
            disk.remove(&path).await?;
        }
        let point = found.as_ref().map(|(checkpoint, _)| checkpoint.point);
        let damaged = damages.into_iter().find(|damage| Some(damage.point) > point);
        let (newest, store, extra) = match found {
            Some((checkpoint, loaded)) => {
                (Some(Open { checkpoint, in_use: false }), loaded.store, loaded.extra)
            }
            None => (None, Store::default(), Vec::new()),
        };
        let recovery = StoreRecovery { store, extra, damaged };
        Ok((Self { disk, newest, older: None, tmp_count: 0 }, recovery))
    }

    /// Returns the newest durable checkpoint.
    pub fn newest(&self) -> Option<&Checkpoint<D::File>> {
        self.newest.as_ref().map(|open| &open.checkpoint)
    }

    /// Begins to write a checkpoint of the own state. No I/O yet.
    pub fn writer(&mut self) -> CheckpointWriter<D> {
        CheckpointWriter::new(self.disk.clone(), self.tmp_path("own"))
    }

    /// Begins to receive the snapshot of the state at `point`. No I/O yet.
    pub fn receiver(&mut self, point: SnapshotPoint) -> SnapshotReceiver<D> {
        SnapshotReceiver::new(self.disk.clone(), self.tmp_path("incoming"), point)
    }

    /// Takes note of a checkpoint that a writer or a receiver has finished.
    ///
    /// The one before it can still be read from while a transfer uses it.
    pub fn adopt(&mut self, checkpoint: Checkpoint<D::File>) {
        let point = checkpoint.point;
        if self.newest().is_some_and(|newest| newest.point > point) {
            probe!("checkpoint.finished_one_is_old");
            return;
        }
        let replaced = self.newest.replace(Open { checkpoint, in_use: false });
        // One older file at most: the one whose transfer has been going on for longer.
        self.older = [self.older.take(), replaced].into_iter().flatten().find(|open| open.in_use);
        if let Some(older) = &mut self.older {
            older.in_use = false;
        }
    }

    /// Reads a piece of at most `bytes_max` bytes, of the checkpoint `wanted` if that is still
    /// open, else of the newest from its beginning; `None` if there is no checkpoint.
    ///
    /// # Errors
    /// The file cannot be read. Its checksums are not verified here, but by who receives it.
    pub fn read_chunk(
        &mut self,
        wanted: Option<SnapshotPoint>,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Option<SnapshotPiece>, StorageError> {
        for open in [&mut self.newest, &mut self.older].into_iter().flatten() {
            if Some(open.checkpoint.point) == wanted && offset <= open.checkpoint.bytes {
                open.in_use = true;
                return open.checkpoint.read_at(offset, bytes_max).map(Some);
            }
        }
        if wanted.is_some() {
            probe!("checkpoint.transfer_starts_over");
        }
        let Some(newest) = &mut self.newest else { return Ok(None) };
        newest.in_use = true;
        newest.checkpoint.read_at(0, bytes_max).map(Some)
    }

    fn tmp_path(&mut self, purpose: &str) -> String {
        self.tmp_count += 1;
        format!("{DIRECTORY}/{purpose}-{}{TMP_SUFFIX}", self.tmp_count)
    }
}

impl<F: File> Checkpoint<F> {
    fn read_at(&self, offset: u64, bytes_max: usize) -> Result<SnapshotPiece, StorageError> {
        let rest = self.bytes.saturating_sub(offset);
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(bytes_max.max(1));
        let mut bytes = vec![0; len];
        let read = self.file.read_at(offset, &mut bytes)?;
        if read != len {
            let path = Name::whole(self.point).path();
            let what = format!("{read} bytes instead of {len}");
            return Err(StorageError::Corrupt { path, offset, what });
        }
        let end = offset + u64::try_from(len).unwrap_or(u64::MAX);
        Ok(SnapshotPiece { point: self.point, offset, bytes, done: end == self.bytes })
    }
}

const TMP_SUFFIX: &str = ".tmp";
const DAMAGED_SUFFIX: &str = ".damaged";

/// What a file of the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A checkpoint.
    Whole,
    /// A checkpoint that was found damaged.
    Damaged,
    /// Left over from a run that ended before it was finished.
    Temporary,
}

/// A name in the directory.
#[derive(Debug, Clone)]
struct Name {
    role: Role,
    point: SnapshotPoint,
    text: String,
}

impl Name {
    /// Returns the name of a checkpoint.
    fn whole(point: SnapshotPoint) -> Self {
        let text = format!("checkpoint-{}-{}", point.index, point.term);
        Self { role: Role::Whole, point, text }
    }

    /// Understands a name; `None` if it is none of ours.
    fn parse(text: String) -> Option<Self> {
        if text.ends_with(TMP_SUFFIX) {
            return Some(Self { role: Role::Temporary, point: SnapshotPoint::default(), text });
        }
        let (stem, role) = match text.strip_suffix(DAMAGED_SUFFIX) {
            Some(stem) => (stem, Role::Damaged),
            None => (text.as_str(), Role::Whole),
        };
        let (index, term) = stem.strip_prefix("checkpoint-")?.split_once('-')?;
        let point = SnapshotPoint { index: index.parse().ok()?, term: term.parse().ok()? };
        Some(Self { role, point, text })
    }

    fn path(&self) -> String {
        format!("{DIRECTORY}/{}", self.text)
    }

    fn damage(&self, what: &str) -> Damage {
        Damage { point: self.point, path: self.path(), what: what.to_owned() }
    }
}

/// Returns the names that are ours, the newest state first.
async fn sorted_names<D: Disk>(disk: &D) -> Result<Vec<Name>, StorageError> {
    let names = disk.list(DIRECTORY).await?;
    let mut names: Vec<Name> = names.into_iter().filter_map(Name::parse).collect();
    names.sort_by_key(|name| Reverse(name.point));
    Ok(names)
}

/// Loads the checkpoint of that name, or says what is wrong with it.
async fn load_named<D: Disk>(
    disk: &D,
    name: &Name,
) -> Result<Result<(Checkpoint<D::File>, Loaded), String>, StorageError> {
    let path = name.path();
    let file = disk.open(&path).await?;
    let loaded = match load(&file, &path).await {
        Ok(loaded) => loaded,
        // A sector that cannot be read is as good as a damaged one: the state can be had from
        // another node.
        Err(error @ (StorageError::Corrupt { .. } | StorageError::Disk(_))) => {
            return Ok(Err(error.to_string()));
        }
        Err(error @ StorageError::Format { .. }) => return Err(error),
    };
    let point = loaded.point();
    if point != name.point {
        return Ok(Err(format!("{path} holds the state at {point:?}")));
    }
    Ok(Ok((Checkpoint { point, bytes: loaded.bytes, file }, loaded)))
}

/// Renames a damaged checkpoint, so that it is kept, and not taken for a good one again.
async fn set_aside<D: Disk>(disk: &D, name: &Name, what: String) -> Result<Damage, StorageError> {
    probe!("checkpoint.found_damaged");
    let path = format!("{}{DAMAGED_SUFFIX}", name.path());
    disk.rename(&name.path(), &path).await?;
    disk.sync_dir(DIRECTORY).await?;
    Ok(Damage { point: name.point, path, what })
}

/// Removes what the durable checkpoint at `point` has made superfluous.
async fn remove_superseded<D: Disk>(disk: &D, point: SnapshotPoint) -> Result<(), StorageError> {
    for name in sorted_names(disk).await? {
        let superseded = match name.role {
            Role::Whole => name.point < point,
            Role::Damaged => name.point <= point,
            // Somebody may be writing it at this moment.
            Role::Temporary => false,
        };
        if superseded {
            remove_if_there(disk, &name.path()).await?;
        }
    }
    Ok(())
}

/// Removes a name; fine if it is gone.
async fn remove_if_there<D: Disk>(disk: &D, path: &str) -> Result<(), StorageError> {
    match disk.remove(path).await {
        Err(error) if error.kind != DiskErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
