//! Brings what can be read out of a damaged store, and knows what cannot.
//!
//! The walks over all tables are merged as in any other read, by version. What was in a damaged
//! block is missing from the merge, so an older cell may come out in place of a newer one, or of a
//! deleted one. Where that may be is known: within the [`Lost`] ranges, for cells that are not
//! newer than everything that the damaged table held. What is outside of them is as it was.

use std::ops::Bound;

use super::examine::{PlaceRange, StoreReport, TableReport};
use super::merge::{Source, Visible};
use crate::codec::keycode;
use crate::env::{Disk, File};
use crate::storage::table::{CellRun, Piece, TableWalk};
use crate::storage::{Cell, StorageError};

/// Cells that are lost, and with them the certainty about their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The damaged file.
    pub path: String,
    /// Where they were: whole rows, if a lost tombstone may have deleted such.
    pub range: PlaceRange,
    /// No lost cell was newer.
    pub version_max: u64,
    /// Cells that were read of that range although a lost one may be newer.
    pub stale_count: u64,
}

impl Lost {
    /// Takes account of a cell that was read.
    pub fn note(&mut self, place: &[u8], version: u64) {
        if version <= self.version_max && self.range.contains(place) {
            self.stale_count += 1;
        }
    }

    /// Returns what is lost of the cells of a table.
    fn of(table: &TableReport) -> impl Iterator<Item = Self> {
        let meta = &table.meta;
        let may_hit_rows = meta.row_tombstone_count > 0 || meta.cell_count == 0;
        let wounds = table.wounds.iter().filter(|wound| !wound.is_salvageable);
        wounds.filter_map(move |wound| {
            let range = wound.range.clone()?;
            Some(Self {
                path: table.path.clone(),
                range: if may_hit_rows { rows_of(range) } else { range },
                version_max: meta.version_max,
                stale_count: 0,
            })
        })
    }
}

/// Widens a range to all of the rows that begin in it.
fn rows_of(range: PlaceRange) -> PlaceRange {
    let PlaceRange { start, end } = range;
    let end = match end {
        Bound::Included(place) | Bound::Excluded(place) => {
            Bound::Excluded(keycode::row_end(keycode::row_prefix(&place)))
        }
        Bound::Unbounded => Bound::Unbounded,
    };
    PlaceRange { start, end }
}

/// The cells that can be read of a store.
pub struct Salvage<F: File> {
    cells: Visible<SalvageCursor<F>>,
    lost: Vec<Lost>,
}

/// Begins with the first cell of what `report` has found in `dir`.
///
/// # Errors
/// The disk refuses.
pub async fn salvage<D: Disk>(
    disk: &D,
    report: &StoreReport,
) -> Result<Salvage<D::File>, StorageError> {
    let mut sources = Vec::new();
    for table in &report.tables {
        let file = match disk.open(&table.path).await {
            Ok(file) => file,
            // One that is lost is among the wounds.
            Err(error) if error.is_loss() => continue,
            Err(error) => return Err(error.into()),
        };
        let walk = TableWalk::open(file, table.path.clone(), table.meta.number)?;
        sources.push(SalvageCursor::new(walk, table.meta.version_max));
    }
    let lost = report.tables.iter().flat_map(Lost::of).collect();
    Ok(Salvage { cells: Visible::new(sources, None, None, usize::MAX)?, lost })
}

impl<F: File> Salvage<F> {
    /// Returns the cell at hand, which has a value; `None` after the last.
    pub fn current(&self) -> Option<Cell<'_>> {
        self.cells.current()
    }

    /// Takes account of the cell at hand and goes on to the next.
    ///
    /// # Errors
    /// None: what cannot be read is passed over.
    pub fn advance(&mut self) -> Result<(), StorageError> {
        if let Some(cell) = self.cells.current() {
            self.lost.iter_mut().for_each(|lost| lost.note(cell.place, cell.version));
        }
        self.cells.advance()
    }

    /// Returns what is lost, with the counts of the cells so far.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }
}

/// Goes through the good blocks of a table.
struct SalvageCursor<F> {
    walk: TableWalk<F>,
    run: Option<CellRun>,
    version_max: u64,
}

impl<F: File> SalvageCursor<F> {
    fn new(walk: TableWalk<F>, version_max: u64) -> Self {
        let mut cursor = Self { walk, run: None, version_max };
        cursor.settle();
        cursor
    }

    /// Goes on to the next good block while the one at hand is at its end.
    fn settle(&mut self) {
        while self.run.as_ref().is_none_or(|run| run.current().is_none()) {
            match self.walk.next_piece() {
                Some(Piece::Cells(run)) => self.run = Some(run),
                Some(Piece::Damage { .. }) => {}
                None => {
                    self.run = None;
                    return;
                }
            }
        }
    }
}

impl<F: File> Source for SalvageCursor<F> {
    fn current(&self) -> Option<Cell<'_>> {
        self.run.as_ref()?.current()
    }

    fn advance(&mut self) -> Result<(), StorageError> {
        if let Some(run) = &mut self.run {
            run.advance();
        }
        self.settle();
        Ok(())
    }

    /// Goes forward only, which is the way that a merge goes.
    fn seek(&mut self, place: &[u8]) -> Result<(), StorageError> {
        while self.current().is_some_and(|cell| cell.place < place) {
            self.advance()?;
        }
        Ok(())
    }

    fn version_max(&self) -> u64 {
        self.version_max
    }
}
