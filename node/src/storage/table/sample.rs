//! Looks at some of a table's places, and asks filters for them: how many cells two tables have
//! in common, without merging them.

use super::block::BlockCursor;
use super::bloom::PlaceHash;
use super::reader::Table;
use crate::env::File;
use crate::storage::{Content, StorageError};

/// Blocks that a sample is taken from, evenly over the table.
const SAMPLED_BLOCKS: usize = 8;

/// Cells that are taken from each of them.
const SAMPLED_CELLS: usize = 8;

impl<F: File> Table<F> {
    /// Calls `visit` with the places of up to 64 cells, from all over the table; row tombstones
    /// are no cells. The cache is left as it is.
    ///
    /// # Errors
    /// A block cannot be read; what was visited before counts.
    pub fn sample(&self, mut visit: impl FnMut(&[u8])) -> Result<(), StorageError> {
        let count = self.index.frame_count();
        let chosen = count.min(SAMPLED_BLOCKS);
        for number in 0..chosen {
            let Some(located) = self.index.frame(number * count / chosen) else { return Ok(()) };
            let block = self.read_block(located)?;
            let corrupt = |what| self.source.corrupt(located.offset, what);
            let mut cursor = BlockCursor::new(block, Vec::new()).map_err(corrupt)?;
            for _ in 0..SAMPLED_CELLS {
                let Some(cell) = cursor.current() else { break };
                if cell.content != Content::RowDeleted {
                    visit(cell.place);
                }
                cursor.advance().map_err(corrupt)?;
            }
        }
        Ok(())
    }

    /// Tells whether the table may have a cell at the place with this hash: no, or perhaps. Reads
    /// nothing.
    pub fn may_have(&self, hash: PlaceHash) -> bool {
        self.bloom.may_contain(hash)
    }
}
