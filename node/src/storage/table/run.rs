//! Reads blocks that follow one another many at a time, past the cache.
//!
//! Whoever merges tables or sends them reads every block once and in order, and most of what that
//! costs is the way to the file and back. How much is read grows with what has been asked for in a
//! row, so that a look at one block reads one block.

use std::ops::Range;

use bytes::Bytes;

use super::block::Block;
use super::frame::Kind;
use super::index::Located;
use super::reader::Table;
use crate::env::File;
use crate::storage::StorageError;

/// Most bytes that are read at a time; a block that is longer is read alone.
const RUN_BYTES_MAX: u64 = 64 << 10;

/// Blocks of a table that were read together.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Where they begin in the file.
    offset: u64,
    bytes: Bytes,
    /// The position in the index that comes next if blocks are asked for in order.
    next: usize,
    /// Bytes to read at a time if it does.
    bytes_max: u64,
}

impl Run {
    /// Returns the block at a position of the table's index, verified; `None` after the last.
    ///
    /// # Errors
    /// It cannot be read, alone and twice, whatever was read together with it.
    pub(super) fn block<F: File>(
        &mut self,
        table: &Table<F>,
        position: usize,
    ) -> Result<Option<Block>, StorageError> {
        let Some(at) = table.index.frame(position) else { return Ok(None) };
        let in_order = position == self.next && position > 0;
        self.bytes_max = if in_order { (2 * self.bytes_max).min(RUN_BYTES_MAX) } else { 0 };
        self.bytes_max = self.bytes_max.max(u64::from(at.bytes));
        self.next = position + 1;
        if self.range_of(at).is_none() {
            self.read(table, position, at);
        }
        let block = self.range_of(at).and_then(|range| {
            let frame = self.bytes.slice(range);
            let body = table.source.open_frame(Kind::Cells, at.offset, &frame).ok()?;
            Block::new(body).ok()
        });
        // What is wrong, and whether it still is when it is read again, is for the table to say.
        block.map_or_else(|| table.read_block(at), Ok).map(Some)
    }

    /// Reads the blocks from a position on; nothing if that fails.
    fn read<F: File>(&mut self, table: &Table<F>, position: usize, at: &Located) {
        self.offset = at.offset;
        self.bytes = Bytes::new();
        let following = (position..).map_while(|position| table.index.frame(position));
        let ends = following.map(|at| at.offset + u64::from(at.bytes) - self.offset);
        let fitting = ends.take_while(|end| *end <= self.bytes_max).last();
        let Some(bytes) = fitting else { return };
        if let Ok(bytes) = table.source.read(self.offset, bytes) {
            self.bytes = bytes;
        }
    }

    /// Returns where a block is among the bytes, if it is.
    fn range_of(&self, at: &Located) -> Option<Range<usize>> {
        let start = usize::try_from(at.offset.checked_sub(self.offset)?).ok()?;
        let end = start.checked_add(usize::try_from(at.bytes).ok()?)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}
