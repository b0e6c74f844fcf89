//! Answers queries from an engine, page by page, and turn by turn.
//!
//! A page is closed by its count or its bytes, whichever is reached first, and says where the
//! next one starts: at the very item that did not fit. So a reader that follows `next` sees every
//! item once, if nothing is written in between; and no `next` means that there is nothing more.
//!
//! The loop has others to serve, and what a page has passed over counts as much as what it has
//! found: a queue that was emptied is tombstones by the million, and one that reads it must not
//! keep the node from its heartbeats. So a turn passes so many bytes of entries, of any kind, and
//! no more. What becomes of the query then depends on what it promises:
//!
//! - `scan` names a cell where it goes on, so its page is closed there, perhaps without any cell.
//! - `keys` names a key, so its page is closed between two rows. In the first row of a page
//!   that would be no step forward: there it reads on in a later turn (`row_read`).
//! - `slice` is a page of columns as they are at one moment, and whoever reads a row expects no
//!   less as long as its cells fit a page, whatever lies between them. It reads on in later turns
//!   until its page is full or the row ends.
//! - `multi_get` has no pages. If its cells are many, each counts as the block that may have to be
//!   read for it, and it reads on in later turns, too (`cells_read`). A few cells are read at once
//!   and count nothing, as if each had been asked for alone.
//!
//! The masterless mode goes on in more rounds of small reads instead: see [`super::plan`].
//!
//! # Left out
//! One state over several pages: each page sees the state of its moment.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::cells_read::CellsRead;
use super::query::{Cell, Query, QueryReply, Version};
use super::row_read::RowRead;
use crate::base::limits::{MULTI_GET_BYTES_MAX, PAGE_BYTES_MAX, PAGE_COUNT_MAX};
use crate::base::{Column, Key, Value};
use crate::codec::{DecodeError, keycode};
use crate::storage::{Change, Engine, Passed, StorageError, Stored};
use crate::{planted, probe};

/// Bytes that an item of an answer counts besides its key, column and value.
pub(super) const ITEM_OVERHEAD_BYTES: usize = 32;

/// Columns of a key that are passed over one by one before the rest of them is jumped over.
const PASSED_COLUMNS_MAX: usize = 8;

/// Bytes that jumping over the rest of a key counts as passed: the scan begins anew.
const JUMP_BYTES: usize = 4 << 10;

/// Bytes that a cell counts as passed besides its value, if many are asked for by their places: a
/// block of a table, which must be read and verified if it is not in memory. Less, and a turn with
/// cold tables is longer than an election timeout.
pub(super) const CELL_BYTES: usize = 4 << 10;

/// A query was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The answer would be too large, and a `multi_get` has no pages.
    #[error("the answer is over the limit of {bytes_max} bytes: ask for fewer cells")]
    AnswerTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The store cannot tell.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What one turn has made of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The answer; `None` if it takes more turns.
    pub reply: Option<QueryReply>,
    /// Bytes of entries that it was read past. A cell, or a few, that are asked for by their places
    /// count nothing.
    pub passed_bytes: usize,
}

/// What a query has come to.
#[derive(Debug)]
pub(super) enum Progress {
    Done(QueryReply),
    /// It is to go on in a later turn.
    More(LongRead),
}

/// A read that takes more than one turn, and is of one state.
#[derive(Debug)]
pub(super) enum LongRead {
    Row(Box<RowRead>),
    Cells(Box<CellsRead>),
}

impl LongRead {
    /// Returns what it is for.
    pub(super) fn query(&self) -> &Query {
        match self {
            Self::Row(row) => row.query(),
            Self::Cells(cells) => cells.query(),
        }
    }

    /// Takes in what was written at `version` after the last turn.
    pub(super) fn on_write(&mut self, version: u64, changes: &[Change<'_>]) {
        match self {
            Self::Row(row) => row.on_write(version, changes),
            Self::Cells(cells) => cells.on_write(version, changes),
        }
    }
}

/// Tells whether a query surely does not come to its end in a turn of `bytes_max` bytes.
pub(super) fn takes_more_turns(query: &Query, bytes_max: usize) -> bool {
    let Query::MultiGet { cells } = query else { return false };
    query.takes_turns() && cells.len().saturating_sub(1).saturating_mul(CELL_BYTES) >= bytes_max
}

/// Answers a query from the state of `engine`, or begins to: past `bytes_max` bytes in this turn.
/// Returns how many there were.
pub(super) fn answer(
    engine: &impl Engine,
    query: &Query,
    bytes_max: usize,
) -> Result<(Progress, usize), QueryError> {
    match query {
        Query::Get { key, column } => {
            Ok((Progress::Done(QueryReply::Cell(get(engine, key, column)?)), 0))
        }
        Query::MultiGet { .. } if query.takes_turns() => {
            go_on(engine, LongRead::Cells(Box::new(CellsRead::of(query))), bytes_max)
        }
        Query::MultiGet { cells } => Ok((Progress::Done(multi_get(engine, cells)?), 0)),
        Query::Slice { key, start, stop, limit } => {
            let first = start.as_ref().map_or(&[][..], Column::as_bytes);
            let end = match stop {
                Some(stop) if planted!("R65") => {
                    keycode::encode_cell(key.as_bytes(), stop.as_bytes())
                }
                Some(stop) => place_after(key, stop),
                None => keycode::encode_key_end(key.as_bytes()),
            };
            let start = keycode::encode_cell(key.as_bytes(), first);
            let row = RowRead::of_slice(query, key, (start, end), *limit);
            go_on(engine, LongRead::Row(Box::new(row)), bytes_max)
        }
        Query::Keys { start, stop, prefix, limit } => {
            let start = start.as_ref().map(|key| keycode::encode_key(key.as_bytes()));
            let stop = stop.as_ref().map(|key| keycode::encode_key_end(key.as_bytes()));
            let (start, end) = within_prefix(prefix, start, stop);
            let keys = Keys { query, end, page: Page::new(*limit), next: None };
            keys.read(engine, start, bytes_max.max(1))
        }
        Query::Scan { start, prefix, limit } => {
            let start = start
                .as_ref()
                .map(|(key, column)| keycode::encode_cell(key.as_bytes(), column.as_bytes()));
            let (start, end) = within_prefix(prefix, start, None);
            scan(engine, (&start, end.as_deref()), Page::new(*limit), bytes_max)
        }
    }
}

/// Goes on with a query that takes more than one turn.
pub(super) fn go_on(
    engine: &impl Engine,
    read: LongRead,
    bytes_max: usize,
) -> Result<(Progress, usize), QueryError> {
    match read {
        LongRead::Row(row) => go_on_in_row(engine, row, bytes_max),
        LongRead::Cells(mut cells) => {
            let passed_bytes = cells.read_some(engine, bytes_max)?;
            let progress = if cells.is_whole() {
                Progress::Done(cells.into_cells())
            } else {
                probe!("read.cells_take_more_turns");
                Progress::More(LongRead::Cells(cells))
            };
            Ok((progress, passed_bytes))
        }
    }
}

/// Goes on with a query that has come to read within a row.
fn go_on_in_row(
    engine: &impl Engine,
    mut row: Box<RowRead>,
    bytes_max: usize,
) -> Result<(Progress, usize), QueryError> {
    let passed_bytes = row.read_some(engine, bytes_max)?;
    if !row.is_whole() {
        return Ok((Progress::More(LongRead::Row(row)), passed_bytes));
    }
    let Query::Keys { stop, prefix, limit, .. } = row.query() else {
        return Ok((Progress::Done(row.into_columns()), passed_bytes));
    };
    let stop = stop.as_ref().map(|key| keycode::encode_key_end(key.as_bytes()));
    let (start, end) = within_prefix(prefix, Some(row.end().to_vec()), stop);
    let mut keys = Keys { query: row.query(), end, page: Page::new(*limit), next: None };
    if row.is_any() {
        keys.page.push(row.key().clone(), row.key().len());
    }
    let rest_bytes = bytes_max.saturating_sub(passed_bytes);
    let (progress, more_bytes) = keys.read(engine, start, rest_bytes)?;
    Ok((progress, passed_bytes + more_bytes))
}

/// Returns the cell at (`key`, `column`).
pub(super) fn get(
    engine: &impl Engine,
    key: &Key,
    column: &Column,
) -> Result<Option<Cell>, StorageError> {
    let place = keycode::encode_cell(key.as_bytes(), column.as_bytes());
    let stored = engine.get(&place)?;
    stored.map(|Stored { value, version }| cell(value, version)).transpose()
}

fn multi_get(engine: &impl Engine, places: &[(Key, Column)]) -> Result<QueryReply, QueryError> {
    let mut cells = Vec::with_capacity(places.len());
    let mut bytes = 0;
    for (key, column) in places {
        let cell = get(engine, key, column)?;
        bytes += bytes_of(cell.as_ref());
        check_answer(bytes)?;
        cells.push(cell);
    }
    Ok(QueryReply::Cells(cells))
}

/// Returns what a cell counts in the answer to a `multi_get`.
pub(super) fn bytes_of(cell: Option<&Cell>) -> usize {
    ITEM_OVERHEAD_BYTES + cell.map_or(0, |cell| cell.value.len())
}

/// Refuses an answer to a `multi_get` that is too large.
pub(super) fn check_answer(bytes: usize) -> Result<(), QueryError> {
    if bytes > MULTI_GET_BYTES_MAX {
        return Err(QueryError::AnswerTooLarge { bytes_max: MULTI_GET_BYTES_MAX });
    }
    Ok(())
}

/// A page of keys on its way.
struct Keys<'q> {
    query: &'q Query,
    end: Option<Vec<u8>>,
    page: Page<Key>,
    /// Where the next page starts.
    next: Option<Key>,
}

impl Keys<'_> {
    /// Lists the keys from the place `start` on, the start of a row.
    fn read(
        mut self,
        engine: &impl Engine,
        mut start: Vec<u8>,
        bytes_max: usize,
    ) -> Result<(Progress, usize), QueryError> {
        let mut passed_bytes = 0;
        loop {
            let rest_bytes = bytes_max.saturating_sub(passed_bytes);
            let passed = self.read_until_jump(engine, &start, rest_bytes)?;
            passed_bytes += passed.bytes;
            let Some(place) = passed.next.filter(|_| self.next.is_none()) else {
                return Ok((self.close(), passed_bytes));
            };
            let (key, _) = keycode::decode_place(&place).map_err(|error| unreadable(&error))?;
            if self.page.items.last() == Some(&key) {
                start = keycode::encode_key_end(key.as_bytes());
                passed_bytes += JUMP_BYTES;
            } else if self.is_step_forward(&key) {
                probe!("read.page_of_keys_ends_with_its_turn");
                self.next = Some(key);
                return Ok((self.close(), passed_bytes));
            } else {
                probe!("read.key_takes_more_turns");
                let row = RowRead::of_keys(self.query, &key, place);
                return Ok((Progress::More(LongRead::Row(Box::new(row))), passed_bytes));
            }
        }
    }

    /// Lists keys until a row is to be left early. If there is no `next` in the page then, that of
    /// the scan is where it has stopped: in a row that is to be left, or because its turn is over.
    fn read_until_jump(
        &mut self,
        engine: &impl Engine,
        start: &[u8],
        bytes_max: usize,
    ) -> Result<Passed, StorageError> {
        let (mut jump, mut passed_columns) = (None, 0);
        let end = self.end.clone();
        let passed = visit(engine, start, end.as_deref(), bytes_max, &mut |place, _, _| {
            let (key, _) = keycode::decode_place(place).map_err(|error| unreadable(&error))?;
            if self.page.items.last() == Some(&key) {
                passed_columns += 1;
                if passed_columns < PASSED_COLUMNS_MAX {
                    return Ok(ControlFlow::Continue(()));
                }
                jump = Some(place.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            // Without this, a turn that is over would go on key by key.
            if self.page.is_full() || bytes_max == 0 {
                self.next = (!planted!("R57")).then_some(key);
                return Ok(ControlFlow::Break(()));
            }
            passed_columns = 0;
            let bytes = key.len();
            self.page.push(key, bytes);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Passed { next: jump.or(passed.next), ..passed })
    }

    /// Tells whether a next page that starts at `key` would be another one than this.
    fn is_step_forward(&self, key: &Key) -> bool {
        let Query::Keys { start: Some(start), .. } = self.query else { return true };
        key > start
    }

    fn close(self) -> Progress {
        Progress::Done(QueryReply::Keys { keys: self.page.items, next: self.next })
    }
}

fn scan(
    engine: &impl Engine,
    (start, end): (&[u8], Option<&[u8]>),
    mut page: Page<(Key, Column, Cell)>,
    bytes_max: usize,
) -> Result<(Progress, usize), QueryError> {
    let decoded = |place: &[u8]| keycode::decode_place(place).map_err(|error| unreadable(&error));
    let mut next = None;
    let passed = visit(engine, start, end, bytes_max, &mut |place, value, version| {
        let (key, column) = decoded(place)?;
        if page.is_full() {
            next = Some((key, column));
            return Ok(ControlFlow::Break(()));
        }
        let bytes = key.len() + column.len() + value.len();
        let version = if planted!("R61") { 0 } else { version };
        page.push((key, column, cell(copied(value), version)?), bytes);
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(place) = passed.next {
        probe!("read.page_of_cells_ends_with_its_turn");
        next = Some(decoded(&place)?);
    }
    Ok((Progress::Done(QueryReply::Scanned { cells: page.items, next }), passed.bytes))
}

/// Called for each cell of a scan with place, value and version, until it breaks or fails.
pub(super) type FallibleVisitor<'v> =
    dyn FnMut(&[u8], &[u8], u64) -> Result<ControlFlow<()>, StorageError> + 'v;

/// Scans past `bytes_max` bytes at most, with a visitor that may fail.
pub(super) fn visit(
    engine: &impl Engine,
    start: &[u8],
    end: Option<&[u8]>,
    bytes_max: usize,
    visitor: &mut FallibleVisitor<'_>,
) -> Result<Passed, StorageError> {
    let mut outcome = Ok(());
    let passed = engine.scan_some(start, end, bytes_max, &mut |place, value, version| {
        visitor(place, value, version).unwrap_or_else(|error| {
            outcome = Err(error);
            ControlFlow::Break(())
        })
    })?;
    outcome.map(|()| passed)
}

/// Narrows a range of places to the keys that begin with `prefix`.
pub(super) fn within_prefix(
    prefix: &Key,
    start: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
) -> (Vec<u8>, Option<Vec<u8>>) {
    let first = keycode::encode_prefix(prefix.as_bytes());
    let start = start.map_or(first.clone(), |start| start.max(first));
    let end = [end, keycode::encode_prefix_end(prefix.as_bytes())].into_iter().flatten().min();
    (start, end)
}

/// Returns the first place after (`key`, `column`): columns end a place, so one byte more.
pub(super) fn place_after(key: &Key, column: &Column) -> Vec<u8> {
    let mut place = keycode::encode_cell(key.as_bytes(), column.as_bytes());
    place.push(0);
    place
}

/// Returns a value that keeps nothing else in memory.
pub(super) fn copied(value: &[u8]) -> Bytes {
    Bytes::copy_from_slice(value)
}

pub(super) fn cell(value: Bytes, version: u64) -> Result<Cell, StorageError> {
    let value = Value::new(value).map_err(|error| DecodeError::TooLarge(error.what));
    Ok(Cell { value: value.map_err(|error| unreadable(&error))?, version: Version(version) })
}

/// The store holds what this floor never puts into it.
pub(super) fn unreadable(error: &DecodeError) -> StorageError {
    StorageError::Corrupt { path: "cells".to_owned(), offset: 0, what: error.to_string() }
}

/// The items of a page so far.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    count_max: usize,
    bytes: usize,
}

impl<T> Page<T> {
    pub(super) fn new(limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { items: Vec::new(), count_max: limit.min(PAGE_COUNT_MAX), bytes: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= self.count_max || self.bytes >= PAGE_BYTES_MAX
    }

    pub(super) fn push(&mut self, item: T, bytes: usize) {
        self.bytes += ITEM_OVERHEAD_BYTES + bytes;
        self.items.push(item);
    }
}
