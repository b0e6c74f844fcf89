//! The disk's side of the table store: makes one version after the other.
//!
//! Every change of the files ends in [`publish`](Keeper::publish): all that the next version
//! names is durable, then its manifest is, then it counts. What fails before that leaves the old
//! version as it is, and the files that were begun are removed; only a failed sync, or a disk that
//! fails otherwise, ends it all.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::compaction::{Compaction, manifest_levels, metas, moved};
use super::manifest::{self, ExtraFile, Manifest};
use super::output::{Output, Place, remove};
use super::picker::{self, Plan};
use super::recovery::Damage;
use super::scrub::Scrubber;
use super::superfluous::Superfluous;
use super::verdict::{self, Verdict};
use super::version::{Levels, Version};
use super::{LEVEL_COUNT, TreeOptions, extra_path, number_of, sync_dir};
use crate::env::{Disk, DiskError, DiskErrorKind};
use crate::storage::table::{BlockCache, Table};
use crate::storage::{Cell, PurgeFloors, SnapshotPoint, StorageError};
use crate::{planted, probe};

/// Most steps that a compaction makes besides one, before others get their turn: some
/// milliseconds.
const STEPS_MORE_MAX: usize = 15;

/// The table store as the task that writes sees it; see the [module](super).
///
/// On any error but a full disk the node stops. After a full disk everything is as before the
/// call, which may be repeated; a compaction or replacement under way is given up.
pub struct Keeper<D: Disk> {
    pub(super) place: Place<D>,
    pub(super) options: TreeOptions,
    pub(super) version: Arc<Version<D>>,
    pub(super) next_number: u64,
    pub(super) extra: Option<ExtraFile>,
    pub(super) damage: Option<Damage>,
    pub(super) scrubber: Scrubber,
    /// Which tombstones may go, as of the version.
    pub(super) floors: PurgeFloors,
    /// Tables of the last level that keep their tombstones whatever the floors say.
    unpurged: BTreeSet<u64>,
    /// What the version's tables make superfluous.
    pub(super) superfluous: Superfluous,
    /// What is to be done next, or is under way.
    pub(super) plan: Option<Plan>,
    compaction: Option<Compaction<D>>,
    replacement: Option<Output<D>>,
    /// Tables that the manifest does not name any more.
    obsolete: Vec<Arc<Table<D::File>>>,
    /// Other files that it does not name any more.
    obsolete_paths: Vec<String>,
    is_poisoned: bool,
}

/// What a start has found, for [`Keeper::new`].
pub(super) struct Start<D: Disk> {
    pub(super) version: Arc<Version<D>>,
    pub(super) next_number: u64,
    pub(super) extra: Option<ExtraFile>,
    pub(super) damage: Option<Damage>,
}

impl<D: Disk> Keeper<D> {
    pub(super) fn new(place: Place<D>, options: TreeOptions, start: Start<D>) -> Self {
        let Start { version, next_number, extra, damage } = start;
        let mut superfluous = Superfluous::default();
        superfluous.update(&version.levels);
        let plan = picker::pick(&metas(&version.levels), &superfluous, &options);
        // Whoever writes with stamps knows floors, and has yet to name them.
        let floors =
            if version.is_stamped() { PurgeFloors::none() } else { PurgeFloors::default() };
        Self {
            place,
            options,
            version,
            next_number,
            extra,
            damage,
            scrubber: Scrubber::default(),
            floors,
            unpurged: BTreeSet::new(),
            superfluous,
            plan,
            compaction: None,
            replacement: None,
            obsolete: Vec::new(),
            obsolete_paths: Vec::new(),
            is_poisoned: false,
        }
    }

    /// Returns the newest version.
    pub fn version(&self) -> &Arc<Version<D>> {
        &self.version
    }

    /// Returns the cache of blocks that all tables share.
    pub fn cache(&self) -> &Arc<BlockCache> {
        &self.place.cache
    }

    /// Tells whether the state is undamaged, as far as is known.
    pub fn is_whole(&self) -> bool {
        self.damage.is_none()
    }

    /// Makes every later start find the state damaged, by what `error` says, until another state
    /// has replaced it. Nothing is written any more.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn condemn(&mut self, error: &StorageError) -> Result<(), StorageError> {
        let (path, offset, what) = match error {
            StorageError::Corrupt { path, offset, what } => (path.clone(), *offset, what.clone()),
            StorageError::Disk(_) | StorageError::Format { .. } => {
                (self.place.dir.clone(), 0, error.to_string())
            }
        };
        let verdict = Verdict { generation: self.version.generation, path, offset, what };
        self.is_poisoned = true;
        verdict.publish(&self.place.disk, &self.place.dir).await
    }

    /// Sets which tombstones compactions may forget, right after the start and as the state on
    /// disk says. From then on each flush brings what was set at the [`Tree`](super::Tree).
    pub fn set_purge_floors(&mut self, floors: PurgeFloors) {
        self.floors = floors;
        if self.compaction.is_none() {
            self.plan = self.next_plan();
        }
    }

    fn next_plan(&self) -> Option<Plan> {
        let tables = metas(&self.version.levels);
        picker::pick(&tables, &self.superfluous, &self.options)
            .or_else(|| picker::purge(&tables, &self.floors, &self.unpurged))
    }

    /// Takes note of the tables that a purge has left with many tombstones: older entries may
    /// still lie above them. They are not purged again before something else rewrites them.
    fn spare_unpurged(&mut self, before: &Version<D>) {
        let last = |version: &Version<D>| version.levels.last().cloned().unwrap_or_default();
        let known: BTreeSet<u64> = last(before).iter().map(|table| table.meta().number).collect();
        let is_spared = |number: &u64| !known.contains(number) || self.unpurged.contains(number);
        let tables = last(&self.version);
        let heavy = tables.iter().filter(|table| picker::is_worth_a_purge(table.meta()));
        let heavy = heavy.map(|table| table.meta().number);
        self.unpurged = heavy.filter(is_spared).collect();
    }

    /// Tells whether [`compact_step`](Self::compact_step) has something to do.
    pub fn needs_compaction(&self) -> bool {
        self.compaction.is_some() || self.plan.is_some()
    }

    /// Tells whether writes are held back until a compaction has made room in level 0: see
    /// [`Tree::is_stalled`](super::Tree::is_stalled).
    pub fn is_stalled(&self) -> bool {
        self.version.flushed_count() >= self.options.level0_tables_max
    }

    /// Returns how many steps a compaction is to make before others get their turn: more and more
    /// of them, the closer level 0 comes to where writes are held back. A writer whose turns are
    /// long would otherwise leave so little to compactions that it has to wait for seconds in the
    /// end.
    pub fn steps_due(&self) -> usize {
        let over = self.version.flushed_count().saturating_sub(self.options.level0_tables.max(1));
        1 + (over * over).min(STEPS_MORE_MAX)
    }

    /// Goes on with the most urgent compaction, by about 64 KiB of what it reads. Returns the
    /// new version when it is complete; `None` before, or if there is nothing to do.
    ///
    /// # Errors
    /// A table is damaged, or the disk refuses; see [`Keeper`].
    pub async fn compact_step(&mut self) -> Result<Option<Arc<Version<D>>>, StorageError> {
        self.check_usable()?;
        match self.try_compact_step().await {
            Ok(version) => Ok(version),
            Err(error) => {
                let error = self.judge(error);
                self.give_compaction_up().await;
                Err(error)
            }
        }
    }

    async fn try_compact_step(&mut self) -> Result<Option<Arc<Version<D>>>, StorageError> {
        if self.compaction.is_none() {
            let Some(plan) = self.plan.clone() else { return Ok(None) };
            if plan.is_move {
                let levels = moved(&plan, &self.version);
                return self.publish_levels(levels).await.map(Some);
            }
            let output = Output::new(self.place.clone());
            let floors = self.floors.clone();
            self.compaction =
                Some(Compaction::begin(plan, &self.version, output, floors, &self.options)?);
        }
        let Some(compaction) = &mut self.compaction else { return Ok(None) };
        if !compaction.step(self.options.step_bytes.max(1), &mut self.next_number).await? {
            return Ok(None);
        }
        let levels = compaction.finish(&self.version).await?;
        let before = compaction.is_purge().then(|| Arc::clone(&self.version));
        sync_dir(&self.place.disk, &self.place.dir).await?;
        let version = self.publish_levels(levels).await?;
        self.compaction = None;
        if let Some(before) = before {
            probe!("tree.floor_purges_a_table");
            self.spare_unpurged(&before);
        }
        self.plan = self.next_plan();
        Ok(Some(version))
    }

    /// Begins to take a whole new state, which replaces everything once it is complete; one that
    /// is under way is given up.
    ///
    /// # Errors
    /// A failed disk is not written to again.
    pub async fn begin_replacement(&mut self) -> Result<(), StorageError> {
        self.check_disk()?;
        self.abort_replacement().await;
        self.replacement = Some(Output::new(self.place.clone()));
        Ok(())
    }

    /// Takes cells of the new state; all of them come strictly ascending by place.
    ///
    /// Give it some hundred KiB at a time: one call writes what it is given.
    ///
    /// # Errors
    /// The disk refuses; the replacement is given up then.
    ///
    /// # Panics
    /// If the cells do not ascend, or no replacement was begun.
    pub async fn push_replacement(
        &mut self,
        cells: impl Iterator<Item = Cell<'_>> + Send,
    ) -> Result<(), StorageError> {
        self.check_disk()?;
        let Some(output) = &mut self.replacement else {
            unreachable!("no replacement of {:?} was begun", self.version)
        };
        let next_number = &mut self.next_number;
        let push_all = async {
            for cell in cells {
                if output.is_full_before(cell.place) {
                    output.close_table().await?;
                }
                output.push(cell, next_number);
            }
            output.write().await
        };
        match push_all.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let error = self.judge(error);
                self.abort_replacement().await;
                Err(error)
            }
        }
    }

    /// Makes the cells that were pushed the whole state at `applied`. What was there before is
    /// obsolete, damage included.
    ///
    /// # Errors
    /// The disk refuses; the replacement is given up then.
    ///
    /// # Panics
    /// If the state is older than the one before, or no replacement was begun.
    pub async fn finish_replacement(
        &mut self,
        applied: SnapshotPoint,
        extra: Bytes,
    ) -> Result<Arc<Version<D>>, StorageError> {
        self.check_disk()?;
        assert!(applied >= self.version.applied, "{applied:?} replaces {:?}", self.version);
        match self.try_finish_replacement(applied, extra).await {
            Ok(version) => Ok(version),
            Err(error) => {
                let error = self.judge(error);
                self.abort_replacement().await;
                Err(error)
            }
        }
    }

    async fn try_finish_replacement(
        &mut self,
        applied: SnapshotPoint,
        extra: Bytes,
    ) -> Result<Arc<Version<D>>, StorageError> {
        let Some(output) = &mut self.replacement else {
            unreachable!("no replacement of {:?} was begun", self.version)
        };
        let tables = output.finish_all().await?;
        let file = self.write_extra(&extra).await?;
        let mut levels: Levels<D::File> = vec![Vec::new(); LEVEL_COUNT];
        if let Some(last) = levels.last_mut() {
            *last = tables;
        }
        sync_dir(&self.place.disk, &self.place.dir).await?;
        self.give_compaction_up().await;
        let version = self.publish(levels, applied, extra, file).await?;
        self.replacement = None;
        self.forget_damage().await?;
        Ok(version)
    }

    /// Another state has taken the place of a damaged one; before anybody relies on it.
    pub(super) async fn forget_damage(&mut self) -> Result<(), StorageError> {
        if self.damage.take().is_some() {
            probe!("tree.damage_is_replaced");
            Verdict::withdraw(&self.place.disk, &self.place.dir).await?;
            self.obsolete_paths.extend(self.unnamed_paths().await?);
        }
        Ok(())
    }

    /// Gives a replacement up and removes what was written of it; fine if there is none.
    pub async fn abort_replacement(&mut self) {
        if let Some(output) = self.replacement.take() {
            self.discard(output).await;
        }
    }

    /// Removes the files that no version names any more and nobody reads.
    pub async fn collect(&mut self) {
        let obsolete = std::mem::take(&mut self.obsolete).into_iter();
        let (free, used): (Vec<_>, Vec<_>) =
            obsolete.partition(|table| Arc::strong_count(table) == 1);
        self.obsolete = used;
        for table in free {
            remove(&self.place.disk, table.path()).await;
        }
        for path in std::mem::take(&mut self.obsolete_paths) {
            remove(&self.place.disk, &path).await;
        }
    }

    /// Returns how many obsolete files wait for their last reader.
    pub fn obsolete_count(&self) -> usize {
        self.obsolete.len() + self.obsolete_paths.len()
    }

    /// Makes other tables the same state.
    async fn publish_levels(
        &mut self,
        levels: Levels<D::File>,
    ) -> Result<Arc<Version<D>>, StorageError> {
        let version = Arc::clone(&self.version);
        self.publish(levels, version.applied, version.extra.clone(), self.extra).await
    }

    /// Makes a version that counts; all of its files are durable, and so are their names.
    pub(super) async fn publish(
        &mut self,
        levels: Levels<D::File>,
        applied: SnapshotPoint,
        extra: Bytes,
        extra_file: Option<ExtraFile>,
    ) -> Result<Arc<Version<D>>, StorageError> {
        let generation = self.version.generation + 1;
        let version = Arc::new(Version::new(applied, extra, generation, levels));
        version.check();
        assert!(
            !(version.is_stamped() && self.floors.is_everything()),
            "{version:?} has stamps, and nobody has said which tombstones may go"
        );
        let manifest = Manifest {
            generation,
            next_number: self.next_number,
            applied,
            extra: extra_file,
            levels: manifest_levels(&version.levels),
        };
        let numbers = |version: &Version<D>| -> BTreeSet<u64> {
            version.levels.iter().flatten().map(|table| table.meta().number).collect()
        };
        let kept = numbers(&version);
        let before = self.version.levels.iter().flatten();
        let gone = before.filter(|table| !kept.contains(&table.meta().number));
        let gone: Vec<Arc<Table<D::File>>> = gone.cloned().collect();
        if planted!("W6") {
            for table in &gone {
                remove(&self.place.disk, table.path()).await;
            }
        }
        if let Err(error) = manifest.publish(&self.place.disk, &self.place.dir).await {
            // After any other failure the new manifest may be the one that the next start finds.
            if error.is_no_space() {
                let tmp = format!("{}/{}", self.place.dir, manifest::TMP_NAME);
                remove(&self.place.disk, &tmp).await;
                if let Some(new) = extra_file.filter(|_| self.extra != extra_file) {
                    remove(&self.place.disk, &extra_path(&self.place.dir, new.number)).await;
                }
            }
            return Err(error);
        }
        self.obsolete.extend(gone);
        if let Some(old) = self.extra.filter(|_| self.extra != extra_file) {
            self.obsolete_paths.push(extra_path(&self.place.dir, old.number));
        }
        self.extra = extra_file;
        self.version = Arc::clone(&version);
        self.superfluous.update(&version.levels);
        if self.compaction.is_none() {
            self.plan = self.next_plan();
        }
        Ok(version)
    }

    /// Fails if nothing may be written.
    pub(super) fn check_usable(&self) -> Result<(), StorageError> {
        self.check_disk()?;
        match &self.damage {
            None => Ok(()),
            Some(Damage { path, offset, what, .. }) => {
                let (path, offset, what) = (path.clone(), *offset, what.clone());
                Err(StorageError::Corrupt { path, offset, what })
            }
        }
    }

    /// Fails if the disk has failed before.
    pub(super) fn check_disk(&self) -> Result<(), StorageError> {
        if !self.is_poisoned {
            return Ok(());
        }
        let message = "the disk has failed before, nothing is written any more".to_owned();
        let (path, operation) = (self.place.dir.clone(), "write");
        Err(DiskError { kind: DiskErrorKind::Io, operation, path, message }.into())
    }

    /// Takes note of a failure that nothing may follow.
    pub(super) fn judge(&mut self, error: StorageError) -> StorageError {
        if matches!(error, StorageError::Disk(_)) && !error.is_no_space() {
            probe!("tree.disk_fails_for_good");
            self.is_poisoned = true;
        }
        error
    }

    pub(super) async fn give_compaction_up(&mut self) {
        if let Some(compaction) = self.compaction.take() {
            probe!("tree.compaction_is_given_up");
            self.discard(compaction.into_output()).await;
        }
    }

    /// Removes tables that were not published. After a failure that left open whether they are,
    /// they stay: the next start knows.
    pub(super) async fn discard(&self, output: Output<D>) {
        if !self.is_poisoned {
            output.discard().await;
        }
    }

    /// Returns the files of the directory that are ours, and that nothing names.
    async fn unnamed_paths(&self) -> Result<Vec<String>, StorageError> {
        let named = self.version.levels.iter().flatten().chain(&self.obsolete);
        let mut numbers: Vec<u64> = named.map(|table| table.meta().number).collect();
        numbers.extend(self.extra.map(|extra| extra.number));
        let names = self.place.disk.list(&self.place.dir).await?;
        Ok(unnamed(&names, &numbers, &self.place.dir))
    }
}

/// Returns the paths of those files that are ours, and bear none of these numbers.
pub(super) fn unnamed(names: &[String], numbers: &[u64], dir: &str) -> Vec<String> {
    let is_unnamed = |name: &&String| match number_of(name) {
        Some(number) => !numbers.contains(&number),
        // Its manifest is out of date, if the state is whole.
        None => *name == manifest::TMP_NAME || *name == verdict::NAME,
    };
    names.iter().filter(is_unnamed).map(|name| format!("{dir}/{name}")).collect()
}
