//! Looks at a store that nobody works on: reads all of it, changes none of it.
//!
//! A start reads the root and the ends of the tables, the scrubber a little at a time; this reads
//! every byte, does not stop at the first damage, and says for each which cells it concerns. The
//! good part of a damaged table is what a [`TableWalk`] still finds in it.
//!
//! If the manifest is lost, the tables are taken for what they say of themselves. Which of them
//! the state consisted of is then unknown.

use std::ops::Bound;
use std::sync::Arc;

use super::manifest::{self, Found, Manifest};
use super::recovery::read_extra_file;
use super::verdict::{self, Verdict};
use super::{extra_path, table_path};
use crate::env::Disk;
use crate::storage::table::{BlockCache, Piece, Table, TableMeta, TableWalk, read_own_meta};
use crate::storage::{SnapshotPoint, StorageError, let_others_run};

/// Blocks that are verified before others get their turn.
const STEP_BLOCKS: u64 = 64;

/// Places from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceRange {
    /// Where they begin.
    pub start: Bound<Vec<u8>>,
    /// Where they end.
    pub end: Bound<Vec<u8>>,
}

impl PlaceRange {
    /// All places.
    pub const ALL: Self = Self { start: Bound::Unbounded, end: Bound::Unbounded };

    /// Returns the range of all places of a table.
    fn of(meta: &TableMeta) -> Self {
        if meta.cell_count == 0 {
            return Self::ALL;
        }
        let (first, last) = (meta.first.clone(), meta.last.clone());
        Self { start: Bound::Included(first), end: Bound::Included(last) }
    }

    /// Tells whether a place is one of them.
    pub fn contains(&self, place: &[u8]) -> bool {
        let is_after_start = match &self.start {
            Bound::Included(start) => start.as_slice() <= place,
            Bound::Excluded(start) => start.as_slice() < place,
            Bound::Unbounded => true,
        };
        is_after_start
            && match &self.end {
                Bound::Included(end) => place <= end.as_slice(),
                Bound::Excluded(end) => place < end.as_slice(),
                Bound::Unbounded => true,
            }
    }
}

/// A place in a file that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wound {
    /// The file.
    pub path: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// The cells that a node cannot read because of it; `None` if it concerns no cells.
    pub range: Option<PlaceRange>,
    /// Whether [`salvage`](super::salvage) reads those cells nevertheless: what is damaged is
    /// needed to find them, but is not them.
    pub is_salvageable: bool,
}

impl Wound {
    /// Says what an error that concerns no cells means for the file at `path`.
    pub(crate) fn of(error: &StorageError, path: &str) -> Self {
        let (path, offset, what) = match error {
            StorageError::Corrupt { path, offset, what } => (path.clone(), *offset, what.clone()),
            StorageError::Disk(_) | StorageError::Format { .. } => {
                (path.to_owned(), 0, error.to_string())
            }
        };
        Self { path, offset, what, range: None, is_salvageable: true }
    }
}

/// What became of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableReport {
    /// Its file.
    pub path: String,
    /// Which level it is of; `None` if the manifest is lost.
    pub level: Option<usize>,
    /// What is known of it without reading it. Without any cells if not even that is known.
    pub meta: TableMeta,
    /// What is damaged, in the order of the file.
    pub wounds: Vec<Wound>,
}

/// What became of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReport {
    /// The state that it holds; `None` if the manifest is lost.
    pub applied: Option<SnapshotPoint>,
    /// What was captured with the cells; `None` if it cannot be read.
    pub extra: Option<Vec<u8>>,
    /// The tables, as they were given to `on_table`.
    pub tables: Vec<TableReport>,
    /// What is damaged besides tables.
    pub wounds: Vec<Wound>,
}

impl StoreReport {
    /// Returns everything that is damaged.
    pub fn all_wounds(&self) -> impl Iterator<Item = &Wound> {
        self.wounds.iter().chain(self.tables.iter().flat_map(|table| &table.wounds))
    }

    /// Tells whether everything is as it was written.
    pub fn is_whole(&self) -> bool {
        self.all_wounds().next().is_none()
    }
}

/// Reads and verifies the whole store in `dir`; `on_table` is told of each table when it has been
/// read. Writes nothing.
///
/// # Errors
/// There is no such directory, another version of the program wrote a file, or this process may not
/// open it. Damage is no error but what this is to find.
pub async fn examine<D: Disk>(
    disk: &D,
    dir: &str,
    mut on_table: impl FnMut(&TableReport),
) -> Result<StoreReport, StorageError> {
    let mut report =
        StoreReport { applied: None, extra: None, tables: Vec::new(), wounds: Vec::new() };
    match read_manifest(disk, dir, &mut report.wounds).await? {
        Some(manifest) => {
            report.applied = Some(manifest.applied);
            report.extra = extra_of(disk, dir, &manifest, &mut report.wounds).await?;
            report.tables = named_tables(dir, &manifest);
        }
        None => report.tables = tables_by_name(disk, dir).await?,
    }
    let cache = Arc::new(BlockCache::new(0));
    for table in &mut report.tables {
        // One that says nothing of itself has been examined.
        if table.wounds.is_empty() {
            examine_table(disk, table, &cache).await?;
        }
        on_table(table);
    }
    Ok(report)
}

/// Reads the manifest, and the verdict on it if there is one.
async fn read_manifest<D: Disk>(
    disk: &D,
    dir: &str,
    wounds: &mut Vec<Wound>,
) -> Result<Option<Manifest>, StorageError> {
    let path = format!("{dir}/{}", manifest::NAME);
    let manifest = match Manifest::load(disk, dir).await {
        Ok(Found::Whole(manifest)) => Some(manifest),
        Ok(Found::HalfDamaged(manifest)) => {
            let what = "one of its two copies is damaged; the next start mends it".to_owned();
            wounds.push(Wound { path, offset: 0, what, range: None, is_salvageable: true });
            Some(manifest)
        }
        Ok(Found::Nothing) => {
            let what = "there is no manifest".to_owned();
            let range = Some(PlaceRange::ALL);
            wounds.push(Wound { path, offset: 0, what, range, is_salvageable: true });
            None
        }
        Err(error) if !error.is_loss() => return Err(error),
        Err(error) => {
            wounds.push(Wound { range: Some(PlaceRange::ALL), ..Wound::of(&error, &path) });
            None
        }
    };
    let generation = manifest.as_ref().map_or(0, |manifest| manifest.generation);
    if let Some(verdict) = Verdict::load(disk, dir, generation).await? {
        let Verdict { path, offset, what, .. } = verdict;
        wounds.push(Wound {
            path: format!("{dir}/{}", verdict::NAME),
            offset: 0,
            what: format!("the node has found {path} damaged at byte {offset}: {what}"),
            range: None,
            is_salvageable: true,
        });
    }
    Ok(manifest)
}

/// Reads what was captured with the cells.
async fn extra_of<D: Disk>(
    disk: &D,
    dir: &str,
    manifest: &Manifest,
    wounds: &mut Vec<Wound>,
) -> Result<Option<Vec<u8>>, StorageError> {
    let Some(extra) = &manifest.extra else { return Ok(Some(Vec::new())) };
    match read_extra_file(disk, dir, extra).await {
        Ok(bytes) => Ok(Some(bytes.to_vec())),
        Err(error) if !error.is_loss() => Err(error),
        Err(error) => {
            wounds.push(Wound::of(&error, &extra_path(dir, extra.number)));
            Ok(None)
        }
    }
}

/// Returns the tables of a manifest, not examined yet.
fn named_tables(dir: &str, manifest: &Manifest) -> Vec<TableReport> {
    let levels = manifest.levels.iter().enumerate();
    let tables = levels.flat_map(|(level, metas)| metas.iter().map(move |meta| (level, meta)));
    let report = |(level, meta): (usize, &TableMeta)| TableReport {
        path: table_path(dir, meta.number),
        level: Some(level),
        meta: meta.clone(),
        wounds: Vec::new(),
    };
    tables.map(report).collect()
}

/// Returns every table in the directory, with what it says of itself; not examined yet, but for
/// those that say nothing.
async fn tables_by_name<D: Disk>(disk: &D, dir: &str) -> Result<Vec<TableReport>, StorageError> {
    let names = disk.list(dir).await?;
    let mut numbers: Vec<u64> =
        names.iter().filter_map(|name| name.strip_prefix("table-")?.parse().ok()).collect();
    // The newest first, as far as their numbers tell.
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let mut tables = Vec::new();
    for number in numbers {
        let path = table_path(dir, number);
        let meta = match disk.open(&path).await {
            Ok(file) => read_own_meta(file, path.clone(), number),
            Err(error) => Err(error.into()),
        };
        let (meta, unreadable) = match meta {
            Ok(meta) => (meta, None),
            Err(error) if !error.is_loss() => return Err(error),
            Err(error) => (unknown_meta(number), Some(error)),
        };
        let mut report = TableReport { path, level: None, meta, wounds: Vec::new() };
        if let Some(error) = unreadable {
            report.wounds = wounds_of_table(disk, &report, &error).await;
        }
        tables.push(report);
    }
    Ok(tables)
}

/// Returns the meta of a table that does not say anything: of no cells, but perhaps the newest.
fn unknown_meta(number: u64) -> TableMeta {
    TableMeta { version_min: 0, version_max: u64::MAX, ..TableMeta::of_nothing(number) }
}

/// Reads a table to its last byte, and notes its wounds.
async fn examine_table<D: Disk>(
    disk: &D,
    report: &mut TableReport,
    cache: &Arc<BlockCache>,
) -> Result<(), StorageError> {
    let verified = async {
        let file = disk.open(&report.path).await?;
        let table = Table::open(file, report.path.clone(), &report.meta, cache)?;
        let mut next = Some(0);
        while let Some(block) = next {
            next = table.verify(block, STEP_BLOCKS)?.next_block;
            let_others_run().await;
        }
        Ok::<(), StorageError>(())
    };
    match verified.await {
        Ok(()) => Ok(()),
        Err(error) if !error.is_loss() => Err(error),
        Err(error) => {
            report.wounds = wounds_of_table(disk, report, &error).await;
            Ok(())
        }
    }
}

/// Finds everything that is damaged in a table of which `error` is known.
async fn wounds_of_table<D: Disk>(
    disk: &D,
    report: &TableReport,
    error: &StorageError,
) -> Vec<Wound> {
    let (path, meta) = (&report.path, &report.meta);
    let whole = Wound { range: Some(PlaceRange::of(meta)), ..Wound::of(error, path) };
    let opened = disk.open(path).await.map_err(StorageError::from);
    let walk = opened.and_then(|file| TableWalk::open(file, path.clone(), meta.number));
    let Ok(walk) = walk else { return vec![Wound { is_salvageable: false, ..whole }] };
    let mut gaps = gaps(walk, report).await;
    let is_hit = |gap: &&mut Gap| (gap.offset..gap.end).contains(&whole.offset);
    let is_of_disk = matches!(error, StorageError::Disk(_));
    let cause = match gaps.iter_mut().find(|gap| is_of_disk || is_hit(gap)) {
        Some(gap) => {
            gap.wound.what.clone_from(&whole.what);
            None
        }
        // The cells are whole; what leads to them is not.
        None => Some(whole),
    };
    let lost = gaps.into_iter().map(|gap| gap.wound);
    lost.chain(cause).collect()
}

/// Bytes of a table whose cells are lost.
struct Gap {
    offset: u64,
    end: u64,
    wound: Wound,
}

/// Returns the stretches of a table whose cells are lost.
async fn gaps<F: crate::env::File>(mut walk: TableWalk<F>, report: &TableReport) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    let whole = PlaceRange::of(&report.meta);
    let mut last: Option<Vec<u8>> = None;
    // Whether the range of the last gap still lacks its end.
    let mut is_open = false;
    while let Some(piece) = walk.next_piece() {
        match piece {
            Piece::Cells(run) => {
                if let (true, Some(cell), Some(gap)) = (is_open, run.current(), gaps.last_mut())
                    && let Some(range) = &mut gap.wound.range
                {
                    range.end = Bound::Excluded(cell.place.to_vec());
                }
                is_open = false;
                last = Some(run.last().to_vec());
            }
            // What follows the last cell holds none.
            Piece::Damage { .. } if last.is_some() && last.as_ref() == last_of(report) => break,
            Piece::Damage { offset, bytes } if is_open => {
                if let Some(gap) = gaps.last_mut() {
                    gap.end = offset + bytes;
                }
            }
            Piece::Damage { offset, bytes } => {
                let start = last.clone().map_or(whole.start.clone(), Bound::Excluded);
                let wound = Wound {
                    path: report.path.clone(),
                    offset,
                    what: format!("{bytes} bytes are not what was written there"),
                    range: Some(PlaceRange { start, end: whole.end.clone() }),
                    is_salvageable: false,
                };
                gaps.push(Gap { offset, end: offset + bytes, wound });
                is_open = true;
            }
        }
        let_others_run().await;
    }
    if !is_open {
        gaps.extend(gap_at_the_end(&walk, report, last));
    }
    gaps
}

/// Returns what is missing of a table whose file ends just behind the block that ends with `last`.
fn gap_at_the_end<F: crate::env::File>(
    walk: &TableWalk<F>,
    report: &TableReport,
    last: Option<Vec<u8>>,
) -> Option<Gap> {
    if walk.is_over() || last.is_some() && last.as_ref() == last_of(report) {
        return None;
    }
    let whole = PlaceRange::of(&report.meta);
    let offset = walk.offset();
    let start = last.map_or(whole.start, Bound::Excluded);
    let wound = Wound {
        path: report.path.clone(),
        offset,
        what: "the file ends before its last block".to_owned(),
        range: Some(PlaceRange { start, end: whole.end }),
        is_salvageable: false,
    };
    Some(Gap { offset, end: report.meta.bytes.max(offset + 1), wound })
}

/// Returns the last place of a table, if that is known.
fn last_of(report: &TableReport) -> Option<&Vec<u8>> {
    Some(&report.meta.last).filter(|_| report.meta.cell_count > 0)
}
