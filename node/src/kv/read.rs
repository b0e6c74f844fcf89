//! Answers queries from an engine, page by page.
//!
//! A page is closed by its count or its bytes, whichever is reached first, and says where the
//! next one starts: at the very item that did not fit. So a reader that follows `next` sees every
//! item once, if nothing is written in between; and no `next` means that there is nothing more.
//!
//! # Left out
//! One state over several pages: each page sees the state of its moment.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::query::{Cell, Query, QueryReply, Version};
use crate::base::limits::{MULTI_GET_BYTES_MAX, PAGE_BYTES_MAX, PAGE_COUNT_MAX};
use crate::base::{Column, Key, Value};
use crate::codec::{DecodeError, keycode};
use crate::planted;
use crate::storage::{Engine, StorageError, Stored};

/// Bytes that an item of an answer counts besides its key, column and value.
pub(super) const ITEM_OVERHEAD_BYTES: usize = 32;

/// Columns of a key that are passed over one by one before the rest of them is jumped over.
const PASSED_COLUMNS_MAX: usize = 8;

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

/// Answers a query from the state of `engine`.
pub(super) fn answer(engine: &impl Engine, query: &Query) -> Result<QueryReply, QueryError> {
    match query {
        Query::Get { key, column } => Ok(QueryReply::Cell(get(engine, key, column)?)),
        Query::MultiGet { cells } => multi_get(engine, cells),
        Query::Slice { key, start, stop, limit } => {
            let first = start.as_ref().map_or(&[][..], Column::as_bytes);
            let end = match stop {
                Some(stop) => place_after(key, stop),
                None => keycode::encode_key_end(key.as_bytes()),
            };
            let start = keycode::encode_cell(key.as_bytes(), first);
            slice(engine, &start, &end, Page::new(*limit))
        }
        Query::Keys { start, stop, prefix, limit } => {
            let start = start.as_ref().map(|key| keycode::encode_key(key.as_bytes()));
            let stop = stop.as_ref().map(|key| keycode::encode_key_end(key.as_bytes()));
            let (start, end) = within_prefix(prefix, start, stop);
            keys(engine, start, end.as_deref(), Page::new(*limit))
        }
        Query::Scan { start, prefix, limit } => {
            let start = start
                .as_ref()
                .map(|(key, column)| keycode::encode_cell(key.as_bytes(), column.as_bytes()));
            let (start, end) = within_prefix(prefix, start, None);
            scan(engine, &start, end.as_deref(), Page::new(*limit))
        }
    }
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
    let mut cells = Vec::with_capacity(places.len().min(PAGE_COUNT_MAX));
    let mut bytes = 0;
    for (key, column) in places {
        let cell = get(engine, key, column)?;
        bytes += ITEM_OVERHEAD_BYTES + cell.as_ref().map_or(0, |cell| cell.value.len());
        if bytes > MULTI_GET_BYTES_MAX {
            return Err(QueryError::AnswerTooLarge { bytes_max: MULTI_GET_BYTES_MAX });
        }
        cells.push(cell);
    }
    Ok(QueryReply::Cells(cells))
}

fn slice(
    engine: &impl Engine,
    start: &[u8],
    end: &[u8],
    mut page: Page<(Column, Cell)>,
) -> Result<QueryReply, QueryError> {
    let mut next = None;
    visit(engine, start, Some(end), &mut |place, value, version| {
        let (_, column) = keycode::decode_place(place).map_err(|error| unreadable(&error))?;
        if page.is_full() {
            next = Some(column);
            return Ok(ControlFlow::Break(()));
        }
        let bytes = column.len() + value.len();
        page.push((column, cell(Bytes::copy_from_slice(value), version)?), bytes);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(QueryReply::Columns { columns: page.items, next })
}

fn keys(
    engine: &impl Engine,
    mut start: Vec<u8>,
    end: Option<&[u8]>,
    mut page: Page<Key>,
) -> Result<QueryReply, QueryError> {
    let mut next = None;
    loop {
        let mut jump = None;
        let mut passed_columns = 0;
        visit(engine, &start, end, &mut |place, _, _| {
            let (key, _) = keycode::decode_place(place).map_err(|error| unreadable(&error))?;
            if page.items.last() == Some(&key) {
                passed_columns += 1;
                if passed_columns < PASSED_COLUMNS_MAX {
                    return Ok(ControlFlow::Continue(()));
                }
                jump = Some(keycode::encode_key_end(key.as_bytes()));
                return Ok(ControlFlow::Break(()));
            }
            if page.is_full() {
                next = (!planted!("R57")).then_some(key);
                return Ok(ControlFlow::Break(()));
            }
            passed_columns = 0;
            let bytes = key.len();
            page.push(key, bytes);
            Ok(ControlFlow::Continue(()))
        })?;
        match jump {
            Some(after) => start = after,
            None => return Ok(QueryReply::Keys { keys: page.items, next }),
        }
    }
}

fn scan(
    engine: &impl Engine,
    start: &[u8],
    end: Option<&[u8]>,
    mut page: Page<(Key, Column, Cell)>,
) -> Result<QueryReply, QueryError> {
    let mut next = None;
    visit(engine, start, end, &mut |place, value, version| {
        let (key, column) = keycode::decode_place(place).map_err(|error| unreadable(&error))?;
        if page.is_full() {
            next = Some((key, column));
            return Ok(ControlFlow::Break(()));
        }
        let bytes = key.len() + column.len() + value.len();
        page.push((key, column, cell(Bytes::copy_from_slice(value), version)?), bytes);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(QueryReply::Scanned { cells: page.items, next })
}

/// Called for each cell of a scan with place, value and version, until it breaks or fails.
type FallibleVisitor<'v> =
    dyn FnMut(&[u8], &[u8], u64) -> Result<ControlFlow<()>, StorageError> + 'v;

/// Scans with a visitor that may fail.
fn visit(
    engine: &impl Engine,
    start: &[u8],
    end: Option<&[u8]>,
    visitor: &mut FallibleVisitor<'_>,
) -> Result<(), StorageError> {
    let mut outcome = Ok(());
    engine.scan(start, end, &mut |place, value, version| {
        visitor(place, value, version).unwrap_or_else(|error| {
            outcome = Err(error);
            ControlFlow::Break(())
        })
    })?;
    outcome
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

fn cell(value: Bytes, version: u64) -> Result<Cell, StorageError> {
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
