//! Merges tables into a lower level, step by step.

use std::sync::Arc;

use super::LEVEL_COUNT;
use super::TreeOptions;
use super::manifest::Manifest;
use super::merge::{LastPlace, Merge, RowTombstone, Source};
use super::output::Output;
use super::picker::Plan;
use super::version::{LevelCursor, Levels, Version};
use crate::codec::keycode;
use crate::env::{Disk, File};
use crate::probe;
use crate::storage::table::{Table, TableMeta};
use crate::storage::{Cell, Content, PurgeFloors, StorageError};

/// A compaction under way.
pub(super) struct Compaction<D: Disk> {
    plan: Plan,
    merge: Merge<LevelCursor<D::File>>,
    outside: Outside,
    reach: Reach,
    /// Bytes that a table has at least before it is cut for what it reaches.
    cut_bytes_min: u64,
    floors: PurgeFloors,
    tombstone: RowTombstone,
    last: LastPlace,
    output: Output<D>,
}

/// Why a stretch of a compaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Enough was read for one step.
    Step,
    /// The table at hand is long enough, or reaches far enough.
    Full,
    /// There is nothing more to read.
    End,
}

impl<D: Disk> Compaction<D> {
    /// Begins what the plan says, on the tables of `version`.
    pub(super) fn begin(
        plan: Plan,
        version: &Version<D>,
        output: Output<D>,
        floors: PurgeFloors,
        options: &TreeOptions,
    ) -> Result<Self, StorageError> {
        let chosen = |tables: &[Arc<Table<D::File>>], numbers: &[u64]| {
            let is_chosen = |table: &&Arc<Table<D::File>>| numbers.contains(&table.meta().number);
            tables.iter().filter(is_chosen).cloned().collect::<Vec<_>>()
        };
        let mut sources = Vec::new();
        for (level, tables) in version.levels.iter().enumerate().take(plan.target) {
            let upper = chosen(tables, &plan.upper);
            if level == 0 {
                sources.extend(upper.into_iter().map(|table| LevelCursor::new(vec![table], false)));
            } else if !upper.is_empty() {
                sources.push(LevelCursor::new(upper, false));
            }
        }
        let lower = version.levels.get(plan.target).map(|tables| chosen(tables, &plan.lower));
        sources.push(LevelCursor::new(lower.unwrap_or_default(), false));
        for source in &mut sources {
            source.seek(&[])?;
        }
        let outside = Outside::of(&plan, &version.levels);
        Ok(Self {
            reach: Reach::of(&outside, options.reach_bytes_max()),
            outside,
            // What is only cut is cut wherever it has to be.
            cut_bytes_min: if plan.upper.is_empty() { 0 } else { options.cut_bytes_min() },
            merge: Merge::new(sources),
            floors,
            tombstone: RowTombstone::default(),
            last: LastPlace::default(),
            output,
            plan,
        })
    }

    /// Does the next step, of so many bytes of input; tells whether it was the last one.
    pub(super) async fn step(
        &mut self,
        mut bytes_left: usize,
        next_number: &mut u64,
    ) -> Result<bool, StorageError> {
        loop {
            match self.merge_some(&mut bytes_left, next_number)? {
                Stop::Full => self.output.close_table().await?,
                Stop::Step => {
                    self.output.write().await?;
                    return Ok(false);
                }
                Stop::End => return Ok(true),
            }
        }
    }

    /// Merges until so many bytes of entries were read, or a table is full. No writing.
    fn merge_some(
        &mut self,
        bytes_left: &mut usize,
        next_number: &mut u64,
    ) -> Result<Stop, StorageError> {
        loop {
            let Some(cell) = self.merge.current() else { return Ok(Stop::End) };
            if *bytes_left == 0 {
                return Ok(Stop::Step);
            }
            let is_far = self.reach.is_far_at(&self.outside, cell.place);
            if self.output.is_full_before(cell.place)
                || is_far && self.output.may_close_before(cell.place, self.cut_bytes_min)
            {
                return Ok(Stop::Full);
            }
            *bytes_left = bytes_left.saturating_sub(bytes_of(&cell));
            let is_kept = match cell.content {
                Content::RowDeleted => {
                    self.tombstone.note(cell.place, cell.version)
                        && (!self.floors.allow(cell.place, cell.version)
                            || self.outside.has_older_in_row(cell.place, cell.version))
                }
                Content::Value(_) | Content::Deleted => {
                    !self.tombstone.hides(cell.place, cell.version)
                        && self.last.note(cell.place)
                        && (cell.content != Content::Deleted
                            || !self.floors.allow(cell.place, cell.version)
                            || self.outside.has_older_at(cell.place))
                }
            };
            if is_kept {
                if self.output.is_between_tables() {
                    self.reach.begin(&self.outside, cell.place);
                }
                self.output.push(cell, next_number);
            }
            self.merge.advance()?;
        }
    }

    /// Finishes the new tables; returns the levels with them in the place of what went in.
    ///
    /// `current` may have got more tables in level 0 since the beginning.
    pub(super) async fn finish(
        &mut self,
        current: &Version<D>,
    ) -> Result<Levels<D::File>, StorageError> {
        let tables = self.output.finish_all().await?;
        Ok(replace(&self.plan, current, tables))
    }

    /// Tells whether all that this is for is to let tombstones go.
    pub(super) fn is_purge(&self) -> bool {
        self.plan.upper.is_empty() && self.plan.target == LEVEL_COUNT - 1
    }

    /// Gives it up; returns what it has written.
    pub(super) fn into_output(self) -> Output<D> {
        self.output
    }
}

/// Returns what an entry counts towards a step.
pub(super) fn bytes_of(cell: &Cell<'_>) -> usize {
    let value = match cell.content {
        Content::Value(value) => value.len(),
        Content::Deleted | Content::RowDeleted => 0,
    };
    cell.place.len() + value + 16
}

/// Returns the levels after a plan whose inputs are replaced by `tables`.
fn replace<D: Disk>(
    plan: &Plan,
    current: &Version<D>,
    tables: Vec<Arc<Table<D::File>>>,
) -> Levels<D::File> {
    let mut levels = current.levels.clone();
    for tables in &mut levels {
        tables.retain(|table| {
            let number = table.meta().number;
            !plan.upper.contains(&number) && !plan.lower.contains(&number)
        });
    }
    if let Some(target) = levels.get_mut(plan.target) {
        target.extend(tables);
        target.sort_by(|a, b| a.meta().first.cmp(&b.meta().first));
    }
    levels
}

/// Returns the levels after tables were moved down as they are.
pub(super) fn moved<D: Disk>(plan: &Plan, current: &Version<D>) -> Levels<D::File> {
    probe!("tree.table_moves_down");
    let upper = current.levels.iter().flatten();
    let upper = upper.filter(|table| plan.upper.contains(&table.meta().number));
    replace(plan, current, upper.cloned().collect())
}

/// Returns the metas of a version's tables by level.
pub(super) fn metas<F: File>(levels: &Levels<F>) -> Vec<Vec<&TableMeta>> {
    levels.iter().map(|tables| tables.iter().map(|table| table.meta()).collect()).collect()
}

/// What lies outside a compaction: it decides whether a tombstone is still needed.
///
/// For an entry of the same place that is below the target. For a row everywhere but in level 0,
/// for a row's tombstone may have come down past some of the row's cells. What level 0 holds apart
/// from the input, and what is flushed while the compaction goes on, was written after it, so that
/// nothing in the input hides it.
#[derive(Debug)]
struct Outside {
    /// The levels from 1 on that are not empty, by number; each sorted by place.
    levels: Vec<(usize, Vec<Extent>)>,
    target: usize,
}

/// Where a table reaches, how long it is, and how old its entries may be.
#[derive(Debug)]
struct Extent {
    first: Vec<u8>,
    last: Vec<u8>,
    bytes: u64,
    version_min: u64,
}

impl Outside {
    fn of<F: File>(plan: &Plan, levels: &Levels<F>) -> Self {
        assert!((1..LEVEL_COUNT).contains(&plan.target), "level {}", plan.target);
        let extent = |meta: &TableMeta| Extent {
            first: meta.first.clone(),
            last: meta.last.clone(),
            bytes: meta.bytes,
            version_min: meta.version_min,
        };
        let outside = |tables: &Vec<Arc<Table<F>>>| {
            let metas = tables.iter().map(|table| table.meta());
            let is_input = |number| plan.upper.contains(&number) || plan.lower.contains(&number);
            metas.filter(|meta| !is_input(meta.number)).map(extent).collect::<Vec<_>>()
        };
        let levels = levels.iter().enumerate().skip(1);
        let levels = levels.map(|(level, tables)| (level, outside(tables)));
        let levels = levels.filter(|(_, extents)| !extents.is_empty()).collect();
        Self { levels, target: plan.target }
    }

    /// Returns the tables of one of the levels, by its position among those that are not empty.
    fn extents(&self, level: usize) -> &[Extent] {
        self.levels.get(level).map_or(&[], |(_, extents)| extents)
    }

    /// Tells whether there may be an older entry of a place.
    fn has_older_at(&self, place: &[u8]) -> bool {
        let mut below = self.levels.iter().filter(|(level, _)| *level > self.target);
        below.any(|(_, extents)| {
            let next = extents.partition_point(|extent| *extent.last < *place);
            extents.get(next).is_some_and(|extent| *extent.first <= *place)
        })
    }

    /// Tells whether there may be an older entry in the row that begins with `row`.
    fn has_older_in_row(&self, row: &[u8], version: u64) -> bool {
        let end = keycode::row_end(row);
        self.levels.iter().any(|(_, extents)| {
            let next = extents.partition_point(|extent| *extent.last < *row);
            let mut reaching = extents.iter().skip(next).take_while(|extent| extent.first < end);
            reaching.any(|extent| extent.version_min < version)
        })
    }
}

/// How much of each run below the target the table at hand reaches: what goes down with it when it
/// is merged further.
///
/// Without a bound, a table of few cells from all over a store would take all of the store with
/// it. So a table ends where it would reach another table of a run of which it reaches enough. It
/// ends just between two of the run's tables, so that no table of these is merged with two pieces
/// of what is above. Places come in order, so that this costs one comparison for each.
#[derive(Debug)]
struct Reach {
    /// One for each level below the target that has tables.
    runs: Vec<ReachOfRun>,
    bytes_max: u64,
    /// Where the next table of any of the runs begins.
    next_place: Option<Vec<u8>>,
    is_far: bool,
}

/// How much of one run the table at hand reaches.
#[derive(Debug, Default)]
struct ReachOfRun {
    /// Where it is among the levels that lie [`Outside`].
    level: usize,
    /// The first of its tables that is reached.
    begin: usize,
    /// The first of its tables that begins behind the place at hand.
    next: usize,
    /// How long those are that are reached.
    bytes: u64,
}

impl Reach {
    fn of(outside: &Outside, bytes_max: u64) -> Self {
        let levels = outside.levels.iter().enumerate();
        let below = levels.filter(|(_, (number, _))| *number > outside.target);
        let runs = below.map(|(level, _)| ReachOfRun { level, ..ReachOfRun::default() });
        let mut reach = Self { runs: runs.collect(), bytes_max, next_place: None, is_far: false };
        reach.find_next_place(outside);
        reach
    }

    /// Goes on to a place; tells whether a table that comes so far reaches more than one table of
    /// any run, and more than it is to.
    fn is_far_at(&mut self, outside: &Outside, place: &[u8]) -> bool {
        if self.next_place.as_deref().is_none_or(|next| place < next) {
            return self.is_far;
        }
        for run in &mut self.runs {
            let extents = outside.extents(run.level);
            while let Some(extent) = extents.get(run.next).filter(|next| *next.first <= *place) {
                run.bytes = run.bytes.saturating_add(extent.bytes);
                run.next += 1;
            }
            self.is_far |= run.next - run.begin > 1 && run.bytes > self.bytes_max;
        }
        self.find_next_place(outside);
        self.is_far
    }

    /// Takes note that another table begins, at the place at hand.
    fn begin(&mut self, outside: &Outside, place: &[u8]) {
        self.is_far = false;
        for run in &mut self.runs {
            let at_hand = run.next.checked_sub(1);
            let extent = at_hand.and_then(|at_hand| outside.extents(run.level).get(at_hand));
            let extent = extent.filter(|extent| *extent.last >= *place);
            run.begin = run.next - usize::from(extent.is_some());
            run.bytes = extent.map_or(0, |extent| extent.bytes);
        }
    }

    fn find_next_place(&mut self, outside: &Outside) {
        let nexts = self.runs.iter().filter_map(|run| outside.extents(run.level).get(run.next));
        self.next_place = nexts.map(|extent| &extent.first).min().cloned();
    }
}

/// Returns the numbers of the next version's manifest; see [`Manifest::levels`].
pub(super) fn manifest_levels<F: File>(levels: &Levels<F>) -> Vec<Vec<TableMeta>> {
    let clone = |tables: &Vec<Arc<Table<F>>>| {
        tables.iter().map(|table| table.meta().clone()).collect::<Vec<_>>()
    };
    let metas: Vec<Vec<TableMeta>> = levels.iter().map(clone).collect();
    assert!(metas.len() == Manifest::default().levels.len(), "{} levels", metas.len());
    metas
}
