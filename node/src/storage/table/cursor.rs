//! Walks through the entries of a table in order.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::block::{BlockCursor, Malformed};
use super::reader::Table;
use super::run::Run;
use crate::env::File;
use crate::storage::{Cell, StorageError};

/// A position in a table. Keeps the table open.
///
/// Begins nowhere, and is nowhere after the last entry. After an error, each further
/// [`advance`](Self::advance) gives the same error: an end that is none is never believed.
pub struct TableCursor<F> {
    table: Arc<Table<F>>,
    /// Reads past the cache, if it is to be left as it is.
    run: Option<Run>,
    /// Position of the block in the index.
    position: usize,
    block: Option<BlockCursor>,
    /// A buffer for the places of the next block.
    buffer: Vec<u8>,
    failed: Option<StorageError>,
}

impl<F: File> TableCursor<F> {
    pub(super) fn new(table: Arc<Table<F>>) -> Self {
        Self { table, run: None, position: 0, block: None, buffer: Vec::new(), failed: None }
    }

    /// Returns the cursor with the cache left as it is: what it reads is not put there. For those
    /// who read every block once.
    #[must_use]
    pub fn without_cache(mut self) -> Self {
        self.run = Some(Run::default());
        self
    }

    /// Returns the table.
    pub fn table(&self) -> &Arc<Table<F>> {
        &self.table
    }

    /// Returns the entry at which the cursor stands.
    pub fn current(&self) -> Option<Cell<'_>> {
        self.block.as_ref()?.current()
    }

    /// Goes to the first entry whose place is `place` or after it; the empty place is before all.
    ///
    /// # Errors
    /// The block of that entry cannot be read. The cursor then stands nowhere.
    pub fn seek(&mut self, place: &[u8]) -> Result<(), StorageError> {
        self.failed = None;
        let outcome = self.try_seek(place);
        self.settle(outcome)
    }

    fn try_seek(&mut self, place: &[u8]) -> Result<(), StorageError> {
        let position = self.table.index.find(place);
        if self.block.is_none() || position != self.position {
            self.enter(position)?;
        }
        let Some(block) = &mut self.block else { return Ok(()) };
        let sought = block.seek(place);
        let is_past = block.current().is_none();
        self.well_formed(sought)?;
        if is_past { self.enter(position + 1) } else { Ok(()) }
    }

    /// Goes to the next entry, or past the last one; stays where it is when it is nowhere.
    ///
    /// # Errors
    /// The next block cannot be read. The cursor then stands nowhere.
    pub fn advance(&mut self) -> Result<(), StorageError> {
        let Some(block) = &mut self.block else {
            return self.failed.clone().map_or(Ok(()), Err);
        };
        let advanced = block.advance();
        if advanced.is_ok() && block.current().is_some() {
            return Ok(());
        }
        let outcome = self.well_formed(advanced).and_then(|()| self.enter(self.position + 1));
        self.settle(outcome)
    }

    /// Goes to the first entry of a block, or past the last entry if there is no such block.
    fn enter(&mut self, position: usize) -> Result<(), StorageError> {
        if let Some(left) = self.block.take() {
            self.buffer = left.into_buffer();
        }
        self.position = position;
        let block = match &mut self.run {
            Some(run) => run.block(&self.table, position)?,
            None => self.table.index.frame(position).map(|at| self.table.block(at)).transpose()?,
        };
        let Some(block) = block else { return Ok(()) };
        let entered = BlockCursor::new(block, mem::take(&mut self.buffer));
        self.block = Some(self.well_formed(entered)?);
        Ok(())
    }

    fn well_formed<T>(&self, outcome: Result<T, Malformed>) -> Result<T, StorageError> {
        outcome.map_err(|what| {
            let offset = self.table.index.frame(self.position).map_or(0, |frame| frame.offset);
            self.table.source.corrupt(offset, what)
        })
    }

    fn settle(&mut self, outcome: Result<(), StorageError>) -> Result<(), StorageError> {
        if let Err(error) = &outcome {
            self.block = None;
            self.failed = Some(error.clone());
        }
        outcome
    }
}

impl<F> fmt::Debug for TableCursor<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, position, .. } = self;
        f.debug_struct("TableCursor")
            .field("table", table)
            .field("position", position)
            .finish_non_exhaustive()
    }
}
