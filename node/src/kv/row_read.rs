//! A read within one row that takes more than one turn of the loop, and is of one state.
//!
//! A row may have any number of tombstones between two cells, and a page of columns, or the answer
//! whether a key has any, is one state of the store. So a walk over a row cannot simply end where
//! a turn does: neither has a later page the same state, nor can the place of a column be named in
//! a page of keys. Instead the walk goes on in the next turn from where it stopped, and what is
//! written meanwhile to the part that it has *covered* is taken into what it has found, while the
//! rest is read as it is when the walk gets there. Whenever it comes to the end, it has the row as
//! it is at that moment.
//!
//! A walk that would begin anew when its row is written might never come to an end, just where it
//! is needed: in a queue. And holding the old state for it would mean to freeze the memtable, for
//! which only the newest entry of a place exists.
//!
//! # Invariants
//! 1. What was found is what a read of the covered part would find now.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::query::{Cell, Query, QueryReply, Version};
use super::read::{self, ITEM_OVERHEAD_BYTES, unreadable};
use crate::base::limits::{PAGE_BYTES_MAX, PAGE_COUNT_MAX};
use crate::base::{Column, Key, Value};
use crate::codec::{DecodeError, keycode};
use crate::probe;
use crate::storage::{Change, Engine, StorageError};

/// A walk over a row; see the [module](self).
#[derive(Debug)]
pub(super) struct RowRead {
    /// What it is for.
    query: Query,
    key: Key,
    /// Places.
    start: Vec<u8>,
    end: Vec<u8>,
    /// Everything before this place is known; `None`: everything that is wanted.
    covered: Option<Vec<u8>>,
    found: BTreeMap<Column, Cell>,
    bytes: usize,
    count_max: usize,
    /// Where the next page starts.
    next: Option<Column>,
}

impl RowRead {
    /// Begins to read what a slice wants.
    pub(super) fn of_slice(
        query: &Query,
        key: &Key,
        (start, end): (Vec<u8>, Vec<u8>),
        limit: u32,
    ) -> Self {
        let covered = Some(start.clone());
        let count_max = usize::try_from(limit).unwrap_or(usize::MAX).min(PAGE_COUNT_MAX);
        let (query, key) = (query.clone(), key.clone());
        let (found, bytes, next) = (BTreeMap::new(), 0, None);
        Self { query, key, start, end, covered, found, bytes, count_max, next }
    }

    /// Goes on to look for a first column of `key`, which has none before the place `covered`.
    pub(super) fn of_keys(query: &Query, key: &Key, covered: Vec<u8>) -> Self {
        let start = keycode::encode_key(key.as_bytes());
        let end = keycode::encode_key_end(key.as_bytes());
        Self { covered: Some(covered), ..Self::of_slice(query, key, (start, end), 1) }
    }

    pub(super) fn query(&self) -> &Query {
        &self.query
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the first place after all that are wanted.
    pub(super) fn end(&self) -> &[u8] {
        &self.end
    }

    /// Tells whether anything was found.
    pub(super) fn is_any(&self) -> bool {
        !self.found.is_empty()
    }

    /// Tells whether nothing more is to be read.
    pub(super) fn is_whole(&self) -> bool {
        let is_keys = matches!(self.query, Query::Keys { .. });
        // What found no room may be all that is left of a key, so it is read again.
        let is_enough = if is_keys { self.is_any() } else { self.next.is_some() };
        is_enough || self.covered.is_none()
    }

    /// Returns the page of a slice.
    pub(super) fn into_columns(self) -> QueryReply {
        QueryReply::Columns { columns: self.found.into_iter().collect(), next: self.next }
    }

    /// Reads on, past so many bytes at most; returns how many there were.
    pub(super) fn read_some(
        &mut self,
        engine: &impl Engine,
        bytes_max: usize,
    ) -> Result<usize, StorageError> {
        let Some(from) = self.covered.clone().filter(|_| !self.is_whole()) else { return Ok(0) };
        let end = self.end.clone();
        let passed = read::visit(engine, &from, Some(&end), bytes_max, &mut |place, value, at| {
            let column = column_of(place)?;
            if self.is_full() {
                self.next = Some(column);
                return Ok(ControlFlow::Break(()));
            }
            self.put(column, read::cell(read::copied(value), at)?);
            let is_whole = self.is_whole();
            Ok(if is_whole { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if let Some(place) = &passed.next
            && self.is_full()
        {
            // Whether there is anything more is for the next page to see.
            self.next = Some(column_of(place)?);
        }
        self.covered = passed.next;
        Ok(passed.bytes)
    }

    /// Takes in what was written at `version` after the last turn.
    pub(super) fn on_write(&mut self, version: u64, changes: &[Change<'_>]) {
        for change in changes {
            match *change {
                Change::Set { place, value } if self.is_covered(place) => {
                    probe!("row_read.covered_cell_is_set");
                    // Both have been through the same checks already.
                    let (Ok(column), Ok(value)) =
                        (column_of(place), Value::new(read::copied(value)))
                    else {
                        continue;
                    };
                    self.put(column, Cell { value, version: Version(version) });
                    self.let_go();
                }
                Change::Delete { place } if self.is_covered(place) => {
                    probe!("row_read.covered_cell_is_deleted");
                    if let Ok(column) = column_of(place) {
                        self.take_out(&column);
                    }
                }
                Change::DeleteRow { row } if self.start.starts_with(row) => {
                    (self.found, self.bytes) = (BTreeMap::new(), 0);
                }
                Change::Set { .. } | Change::Delete { .. } | Change::DeleteRow { .. } => {}
            }
        }
    }

    fn is_covered(&self, place: &[u8]) -> bool {
        let end = self.covered.as_deref().unwrap_or(&self.end);
        *place >= *self.start && place < end
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.count_max || self.bytes >= PAGE_BYTES_MAX
    }

    fn put(&mut self, column: Column, cell: Cell) {
        self.take_out(&column);
        self.bytes += bytes_of(&column, &cell);
        self.found.insert(column, cell);
    }

    fn take_out(&mut self, column: &Column) {
        if let Some(cell) = self.found.remove(column) {
            self.bytes -= bytes_of(column, &cell);
        }
    }

    /// Leaves to the next page what has no room any more.
    fn let_go(&mut self) {
        while let Some((column, cell)) = self.found.last_key_value() {
            let count_before_last = self.found.len() - 1;
            let bytes_before_last = self.bytes - bytes_of(column, cell);
            if count_before_last < self.count_max && bytes_before_last < PAGE_BYTES_MAX {
                return;
            }
            probe!("row_read.page_overflows");
            let column = column.clone();
            self.take_out(&column);
            self.covered = Some(keycode::encode_cell(self.key.as_bytes(), column.as_bytes()));
            self.next = Some(column);
        }
    }
}

fn bytes_of(column: &Column, cell: &Cell) -> usize {
    ITEM_OVERHEAD_BYTES + column.len() + cell.value.len()
}

fn column_of(place: &[u8]) -> Result<Column, StorageError> {
    let decoded = keycode::decode_place(place);
    decoded.map(|(_, column)| column).map_err(|error: DecodeError| unreadable(&error))
}
