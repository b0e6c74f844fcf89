//! A read of many cells by their places that takes more than one turn of the loop, and is of one
//! state.
//!
//! A `multi_get` may ask for ten thousand cells, each in a block of its own on disk. It has no
//! pages to be closed, and promises one state of the store, so it goes on as a walk over a row
//! does (see [`row_read`](super::row_read)): the cells are read in the order asked, each as it is
//! when its turn comes, and what is written meanwhile to one that *was* read is taken into what
//! was found. When the last one is read, all of them are as they are at that moment.
//!
//! # Invariants
//! 1. What was found is what a read of the same cells would find now.

use super::query::{Cell, Query, QueryReply};
use super::read::{self, CELL_BYTES, QueryError};
use crate::base::{Column, Key};
use crate::codec::keycode;
use crate::probe;
use crate::storage::{Change, Engine};

/// A read of many cells; see the [module](self).
#[derive(Debug)]
pub(super) struct CellsRead {
    /// What it is for: a `multi_get`.
    query: Query,
    /// Those that were read, in the order asked.
    found: Vec<Option<Cell>>,
    /// What they count in the answer.
    bytes: usize,
    /// The places of all cells with their positions, sorted. Without further turns nobody needs
    /// them.
    places: Vec<(Vec<u8>, usize)>,
}

impl CellsRead {
    /// Begins to read what a `multi_get` wants.
    pub(super) fn of(query: &Query) -> Self {
        Self { query: query.clone(), found: Vec::new(), bytes: 0, places: Vec::new() }
    }

    pub(super) fn query(&self) -> &Query {
        &self.query
    }

    /// Tells whether nothing more is to be read.
    pub(super) fn is_whole(&self) -> bool {
        self.found.len() == wanted(&self.query).len()
    }

    /// Returns the answer.
    pub(super) fn into_cells(self) -> QueryReply {
        QueryReply::Cells(self.found)
    }

    /// Reads on, past so many bytes at most, but one cell at least; returns how many there were.
    pub(super) fn read_some(
        &mut self,
        engine: &impl Engine,
        bytes_max: usize,
    ) -> Result<usize, QueryError> {
        let wanted = wanted(&self.query);
        let mut passed_bytes = 0;
        for (key, column) in wanted.iter().skip(self.found.len()) {
            let cell = read::get(engine, key, column)?;
            passed_bytes += CELL_BYTES + cell.as_ref().map_or(0, |cell| cell.value.len());
            self.bytes += read::bytes_of(cell.as_ref());
            read::check_answer(self.bytes)?;
            self.found.push(cell);
            if passed_bytes >= bytes_max {
                break;
            }
        }
        if self.found.len() < wanted.len() && self.places.is_empty() {
            self.places = places(wanted);
        }
        Ok(passed_bytes)
    }

    /// Takes in what was written at `version` after the last turn.
    pub(super) fn on_write(&mut self, version: u64, changes: &[Change<'_>]) {
        for change in changes {
            match *change {
                Change::Set { place, value } if self.is_wanted(place) => {
                    probe!("cells_read.read_cell_is_set");
                    // It has been through the same checks already.
                    if let Ok(cell) = read::cell(read::copied(value), version) {
                        self.put(place, |asked| asked == place, Some(&cell));
                    }
                }
                Change::Delete { place } => self.put(place, |asked| asked == place, None),
                Change::DeleteRow { row } => self.put(row, |asked| asked.starts_with(row), None),
                Change::Set { .. } => {}
            }
        }
    }

    /// Returns where the places from `start` on begin.
    fn position(&self, start: &[u8]) -> usize {
        self.places.partition_point(|(place, _)| **place < *start)
    }

    fn is_wanted(&self, place: &[u8]) -> bool {
        self.places.get(self.position(place)).is_some_and(|(asked, _)| *asked == *place)
    }

    /// Makes `cell` what was found at the places from `start` on, as long as they are meant. What
    /// was not read yet is read as it is then.
    fn put(&mut self, start: &[u8], is_meant: impl Fn(&[u8]) -> bool, cell: Option<&Cell>) {
        let asked = self.places.iter().skip(self.position(start));
        for (_, position) in asked.take_while(|(place, _)| is_meant(place)) {
            let Some(found) = self.found.get_mut(*position) else { continue };
            self.bytes -= read::bytes_of(found.as_ref());
            self.bytes += read::bytes_of(cell);
            *found = cell.cloned();
        }
    }
}

/// Returns which cells a `multi_get` asks for.
fn wanted(query: &Query) -> &[(Key, Column)] {
    let Query::MultiGet { cells } = query else { return &[] };
    cells
}

fn places(cells: &[(Key, Column)]) -> Vec<(Vec<u8>, usize)> {
    let place = |(position, (key, column)): (usize, &(Key, Column))| {
        (keycode::encode_cell(key.as_bytes(), column.as_bytes()), position)
    };
    let mut places: Vec<(Vec<u8>, usize)> = cells.iter().enumerate().map(place).collect();
    places.sort_unstable();
    places
}
