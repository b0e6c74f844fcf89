//! Looks at some of a table's places, and asks filters for them: how many cells two tables have
//! in common, without merging them.

use super::block::BlockCursor;
use super::bloom::PlaceHash;
use super::reader::Table;
use crate::env::File;
use crate::storage::{Content, StorageError};

/// Blocks that a sample is taken from, evenly over the table.
const SAMPLED_BLOCKS: usize = 8;

/// Bytes of blocks that are read for a sample, one block at least: where each value is a block of
/// its own, a start would otherwise read a good part of the store.
const SAMPLED_BYTES: u64 = 256 << 10;

/// Cells that are taken from each of them.
const SAMPLED_CELLS: usize = 8;

impl<F: File> Table<F> {
    /// Calls `visit` with the places of up to 64 cells, from all over the table; fewer where blocks
    /// are long, and row tombstones are no cells. The cache is left as it is.
    ///
    /// # Errors
    /// A block cannot be read; what was visited before counts.
    pub fn sample(&self, mut visit: impl FnMut(&[u8])) -> Result<(), StorageError> {
        let count = self.index.frame_count();
        let count_u64 = u64::try_from(count).unwrap_or(u64::MAX);
        let fitting = SAMPLED_BYTES.saturating_mul(count_u64).checked_div(self.sections.bloom);
        let fitting = usize::try_from(fitting.unwrap_or(0)).unwrap_or(usize::MAX);
        let chosen = count.min(SAMPLED_BLOCKS).min(fitting.max(1));
        let mut bytes_left = SAMPLED_BYTES;
        for number in 0..chosen {
            let Some(located) = self.index.frame(number * count / chosen) else { return Ok(()) };
            if bytes_left == 0 {
                return Ok(());
            }
            bytes_left = bytes_left.saturating_sub(u64::from(located.bytes));
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

    /// Returns how many [boundaries](Self::boundary) there are.
    pub fn boundary_count(&self) -> usize {
        self.index.frame_count().saturating_sub(1)
    }

    /// Returns a place between a block and the next one, not before the last place of the one, and
    /// how long that block is. Reads nothing.
    pub fn boundary(&self, position: usize) -> Option<(&[u8], u64)> {
        self.index.frame(position + 1)?;
        let located = self.index.frame(position)?;
        Some((self.index.separator(located), u64::from(located.bytes)))
    }

    /// Tells whether the table has a tombstone of the row whose first place is `prefix`. Where the
    /// filter does not know, a block is read, and taken from `bytes_left`; `None` if none are left.
    /// The cache is left as it is.
    ///
    /// # Errors
    /// The block cannot be read.
    pub fn deletes_row(
        &self,
        prefix: &[u8],
        bytes_left: &mut u64,
    ) -> Result<Option<bool>, StorageError> {
        let hash = PlaceHash::of(prefix).of_row();
        if self.meta.row_tombstone_count == 0 || !self.bloom.may_contain(hash) {
            return Ok(Some(false));
        }
        let Some(located) = self.index.frame(self.index.find(prefix)) else {
            return Ok(Some(false));
        };
        if *bytes_left == 0 {
            return Ok(None);
        }
        *bytes_left = bytes_left.saturating_sub(u64::from(located.bytes));
        let block = self.read_block(located)?;
        let found = block.find_row(prefix);
        let found = found.map_err(|what| self.source.corrupt(located.offset, what))?;
        Ok(Some(found.is_some()))
    }

    /// Tells whether the table may have a cell at the place with this hash: no, or perhaps. Reads
    /// nothing.
    pub fn may_have(&self, hash: PlaceHash) -> bool {
        self.bloom.may_contain(hash)
    }
}
