//! Opens a table store: finds the state, or says why it is lost, and clears the rest away.

use std::sync::Arc;

use bytes::Bytes;

use super::engine::Tree;
use super::keeper::{Keeper, Start, unnamed};
use super::manifest::{ExtraFile, Found, Manifest};
use super::output::{Place, remove};
use super::verdict::Verdict;
use super::version::Version;
use super::{LEVEL_COUNT, TreeOptions, extra_path, manifest, number_of, sync_dir, table_path};
use crate::base::checksum::crc32;
use crate::env::{Disk, DiskErrorKind, File};
use crate::probe;
use crate::storage::table::{BlockCache, Table};
use crate::storage::{SnapshotPoint, StorageError};

/// What a start found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The state on disk; that of index 0 if there is none, or it is damaged.
    pub applied: SnapshotPoint,
    /// What was captured with it.
    pub extra: Bytes,
    /// Files that an unfinished write had left, and are gone now.
    pub removed_files: Vec<String>,
    /// Set if a state was durable once and cannot be read now. The tree is empty then, and takes
    /// nothing but a replacement; the files stay as they are, so every start says it again.
    pub damage: Option<Damage>,
}

/// Why the state on disk is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The state that was there, if even that can be told.
    pub point: Option<SnapshotPoint>,
    /// The damaged file.
    pub path: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

impl Damage {
    /// Makes damage of an error that another node's state can heal; gives others back.
    ///
    /// A sector that cannot be read is as good as a damaged one. What this process only may not
    /// open is as good as whole: it would be thrown away for the state that takes its place.
    fn of(error: StorageError, point: Option<SnapshotPoint>) -> Result<Self, StorageError> {
        match error {
            error if !error.is_loss() => Err(error),
            StorageError::Corrupt { path, offset, what } => Ok(Self { point, path, offset, what }),
            StorageError::Disk(error) => {
                Ok(Self { point, path: error.path.clone(), offset: 0, what: error.to_string() })
            }
            StorageError::Format { .. } => Err(error),
        }
    }
}

/// Opens the table store in a directory, which is made if need be.
///
/// May be interrupted and repeated any number of times with the same result.
///
/// # Errors
/// The disk refuses, or another version of the program wrote the files. Damage is not an error,
/// but part of the result.
pub async fn open<D: Disk>(
    disk: D,
    dir: &str,
    options: TreeOptions,
) -> Result<(Tree<D>, Keeper<D>, Recovery), StorageError> {
    disk.create_dir(dir).await?;
    sync_dir(&disk, dir.rsplit_once('/').map_or("", |(parent, _)| parent)).await?;
    let cache_bytes = usize::try_from(options.cache_bytes).unwrap_or(usize::MAX);
    let place = Place {
        disk,
        dir: dir.to_owned(),
        table: options.table,
        table_bytes: options.table_bytes,
        step_bytes: options.step_bytes,
        cache: Arc::new(BlockCache::new(cache_bytes)),
    };
    let names = place.disk.list(dir).await?;
    let start = match find(&place, &names).await? {
        Ok((manifest, is_half_damaged)) => match read(&place, &manifest).await {
            Ok(version) => restored(&place, manifest, version, is_half_damaged).await?,
            Err(error) => {
                let damage = Damage::of(error, Some(manifest.applied))?;
                lost(damage, &names, manifest.generation)
            }
        },
        Err(damage) => {
            let verdict = Verdict::load(&place.disk, dir, 0).await?;
            let generation = verdict.map(|verdict| verdict.generation);
            lost(damage, &names, generation.filter(|at| *at < u64::MAX).unwrap_or(0))
        }
    };
    let removed_files =
        if start.damage.is_some() { Vec::new() } else { clear(&place, &names, &start).await? };
    let next_number = start.next_number.max(number_after(&names));
    let version = Arc::clone(&start.version);
    let recovery = Recovery {
        applied: version.applied,
        extra: version.extra.clone(),
        removed_files,
        damage: start.damage.clone(),
    };
    let keeper = Keeper::new(place, options, Start { next_number, ..start });
    let tree = Tree::new(version, options, keeper.floors.clone());
    Ok((tree, keeper, recovery))
}

/// Finds the manifest, and tells whether one of its copies is damaged. A directory that has none
/// gets one before anything else, so that a lost manifest is never taken for none.
async fn find<D: Disk>(
    place: &Place<D>,
    names: &[String],
) -> Result<Result<(Manifest, bool), Damage>, StorageError> {
    let path = format!("{}/{}", place.dir, manifest::NAME);
    match Manifest::load(&place.disk, &place.dir).await {
        Ok(Found::Nothing) if names.iter().any(|name| number_of(name).is_some()) => {
            let what = "there are tables, but no manifest".to_owned();
            Ok(Err(Damage { point: None, path, offset: 0, what }))
        }
        Ok(Found::Nothing) => {
            let manifest = Manifest { generation: 1, ..Manifest::default() };
            manifest.publish(&place.disk, &place.dir).await?;
            Ok(Ok((manifest, false)))
        }
        Ok(Found::Whole(manifest)) => Ok(Ok((manifest, false))),
        Ok(Found::HalfDamaged(manifest)) => Ok(Ok((manifest, true))),
        Err(error) => Damage::of(error, None).map(Err),
    }
}

/// Opens what a manifest names, unless there is a verdict on it.
async fn read<D: Disk>(place: &Place<D>, manifest: &Manifest) -> Result<Version<D>, StorageError> {
    let verdict = Verdict::load(&place.disk, &place.dir, manifest.generation).await?;
    if let Some(Verdict { path, offset, what, .. }) = verdict {
        return Err(StorageError::Corrupt { path, offset, what });
    }
    let mut levels = vec![Vec::new(); LEVEL_COUNT];
    for (level, metas) in levels.iter_mut().zip(&manifest.levels) {
        for meta in metas {
            let path = table_path(&place.dir, meta.number);
            let file = place.disk.open(&path).await?;
            level.push(Arc::new(Table::open(file, path, meta, &place.cache)?));
        }
    }
    let extra = match &manifest.extra {
        Some(extra) => read_extra(place, extra).await?,
        None => Bytes::new(),
    };
    Ok(Version::new(manifest.applied, extra, manifest.generation, levels))
}

/// Reads what was captured with the cells.
///
/// # Errors
/// The file is damaged or cannot be read.
pub(super) async fn read_extra<D: Disk>(
    place: &Place<D>,
    extra: &ExtraFile,
) -> Result<Bytes, StorageError> {
    read_extra_file(&place.disk, &place.dir, extra).await
}

/// See [`read_extra`].
pub(super) async fn read_extra_file<D: Disk>(
    disk: &D,
    dir: &str,
    extra: &ExtraFile,
) -> Result<Bytes, StorageError> {
    let path = extra_path(dir, extra.number);
    let corrupt = |what: String| StorageError::Corrupt { path: path.clone(), offset: 0, what };
    let file = disk.open(&path).await?;
    let len = file.len()?;
    if len != extra.bytes {
        return Err(corrupt(format!("{len} bytes instead of {}", extra.bytes)));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    for is_last_try in [false, true] {
        // A sector that cannot be read is as good as a damaged one.
        let read = file.read_at(0, &mut bytes).map_err(|error| corrupt(error.to_string()))?;
        let computed = crc32(&bytes);
        if read == bytes.len() && computed == extra.crc {
            break;
        }
        if is_last_try {
            let stored = extra.crc;
            return Err(corrupt(format!("checksum {stored:08x}, computed {computed:08x}")));
        }
    }
    Ok(bytes.into())
}

/// Makes the state that was found the one to start from: durable, name and all.
async fn restored<D: Disk>(
    place: &Place<D>,
    mut manifest: Manifest,
    mut version: Version<D>,
    is_half_damaged: bool,
) -> Result<Start<D>, StorageError> {
    // The manifest may have a name that the last run had no time to make durable.
    sync_dir(&place.disk, &place.dir).await?;
    version.check();
    if is_half_damaged {
        mend(place, &mut manifest).await?;
        version.generation = manifest.generation;
    }
    let Manifest { next_number, extra, .. } = manifest;
    Ok(Start { version: Arc::new(version), next_number, extra, damage: None })
}

/// Writes both copies of a manifest anew, as one of the next generation.
///
/// On a full disk it stays as it is: one copy is enough to start with, and the start may be what
/// frees space. The next version, or the scrubber, brings the other one.
async fn mend<D: Disk>(place: &Place<D>, manifest: &mut Manifest) -> Result<(), StorageError> {
    let dir = place.dir.as_str();
    let renewed = Manifest { generation: manifest.generation + 1, ..manifest.clone() };
    match renewed.publish(&place.disk, dir).await {
        Ok(()) => {
            *manifest = renewed;
            Ok(())
        }
        Err(error) if error.is_no_space() => {
            tracing::warn!(dir, %error, "the manifest has one copy until there is space");
            remove(&place.disk, &format!("{dir}/{}", manifest::TMP_NAME)).await;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Starts with nothing but the knowledge that there was something.
///
/// The state that replaces it counts on from `generation`: a verdict on that one is not on it.
fn lost<D: Disk>(damage: Damage, names: &[String], generation: u64) -> Start<D> {
    probe!("tree.state_is_lost");
    let levels = vec![Vec::new(); LEVEL_COUNT];
    let version = Version::new(SnapshotPoint::default(), Bytes::new(), generation, levels);
    let version = Arc::new(version);
    Start { version, next_number: number_after(names), extra: None, damage: Some(damage) }
}

/// Returns a number that no file bears, nor any greater one.
fn number_after(names: &[String]) -> u64 {
    let last = names.iter().filter_map(|name| number_of(name)).max();
    last.unwrap_or(0) + 1
}

/// Removes the files that the state does not consist of; returns their paths.
async fn clear<D: Disk>(
    place: &Place<D>,
    names: &[String],
    start: &Start<D>,
) -> Result<Vec<String>, StorageError> {
    let tables = start.version.levels.iter().flatten().map(|table| table.meta().number);
    let numbers: Vec<u64> = tables.chain(start.extra.map(|extra| extra.number)).collect();
    let mut removed = Vec::new();
    for path in unnamed(names, &numbers, &place.dir) {
        // The name of a manifest may have become that of the real one meanwhile.
        match place.disk.remove(&path).await {
            Err(error) if error.kind != DiskErrorKind::NotFound => {
                return Err(error.into());
            }
            Ok(()) => removed.push(path),
            Err(_) => {}
        }
    }
    Ok(removed)
}
