//! Reads a table from its file and checks all that can be checked, a few blocks at a time.

use super::block::{Block, BlockCursor};
use super::bloom::PlaceHash;
use super::index::Located;
use super::reader::{Table, read_bloom, read_index, read_meta, read_tail};
use super::source::Source;
use crate::env::File;
use crate::storage::{Content, StorageError};

/// What [`Table::verify`] has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The block to go on with; `None` if the table has been verified to its last byte.
    pub next_block: Option<u64>,
    /// Bytes that were read.
    pub bytes: u64,
    /// Entries in them.
    pub cell_count: u64,
    /// Bytes of the blocks, unpacked: what it has cost to look at them.
    pub unpacked_bytes: u64,
}

impl<F: File> Table<F> {
    /// Verifies up to `block_count` blocks from `from_block` on, as they are in the file and not
    /// in the cache; after the last one also what follows the blocks in the file. Besides the
    /// checksums it looks whether order, index, filter and meta agree with the cells.
    ///
    /// # Errors
    /// The first damage.
    pub fn verify(&self, from_block: u64, block_count: u64) -> Result<Verified, StorageError> {
        let mut verified =
            Verified { next_block: None, bytes: 0, cell_count: 0, unpacked_bytes: 0 };
        let end = from_block.saturating_add(block_count);
        for position in from_block..end.min(self.block_count()) {
            let position = usize::try_from(position).unwrap_or(usize::MAX);
            let Some(located) = self.index.frame(position) else { break };
            let block = self.read_block(located)?;
            let unpacked_bytes = u64::try_from(block.memory_bytes()).unwrap_or(u64::MAX);
            let before = position.checked_sub(1).and_then(|before| self.index.frame(before));
            let checked = self.check_block(block, before, located);
            let cell_count = checked.map_err(|what| self.source.corrupt(located.offset, what))?;
            verified.bytes += u64::from(located.bytes);
            verified.cell_count += cell_count;
            verified.unpacked_bytes += unpacked_bytes;
        }
        if end < self.block_count() {
            verified.next_block = Some(end);
            return Ok(verified);
        }
        self.verify_end()?;
        verified.bytes += self.meta.bytes.saturating_sub(self.sections.bloom);
        Ok(verified)
    }

    /// Looks at every entry of a block; returns how many there are.
    fn check_block(
        &self,
        block: Block,
        before: Option<&Located>,
        located: &Located,
    ) -> Result<u64, &'static str> {
        block.check_searchable()?;
        let mut cursor = BlockCursor::new(block, Vec::new())?;
        let mut last: Option<(Vec<u8>, bool)> = None;
        let mut cell_count = 0;
        while let Some(cell) = cursor.current() {
            let order = cell.order();
            let follows = match &last {
                Some((place, kind)) => (place.as_slice(), *kind) < order,
                None => before.is_none_or(|before| self.index.separator(before) < cell.place),
            };
            let hash = PlaceHash::of(cell.place);
            let is_row = cell.content == Content::RowDeleted;
            let versions = self.meta.version_min..=self.meta.version_max;
            match () {
                () if !follows => return Err("an entry out of order"),
                () if !versions.contains(&cell.version) => return Err("an impossible version"),
                () if is_row && self.meta.row_tombstone_count == 0 => {
                    return Err("a row's tombstone in a table without any");
                }
                () if !self.bloom.may_contain(if is_row { hash.of_row() } else { hash }) => {
                    return Err("an entry that the filter does not know");
                }
                () => {}
            }
            let (place, kind) = order;
            last = Some((place.to_vec(), kind));
            cell_count += 1;
            cursor.advance()?;
        }
        match last {
            Some((place, _)) if place.as_slice() <= self.index.separator(located) => Ok(cell_count),
            _ => Err("an entry that the index does not know"),
        }
    }

    /// Reads again what was read when the table was opened.
    fn verify_end(&self) -> Result<(), StorageError> {
        let source = &self.source;
        let tail = Source::<F>::twice(|| read_tail(source))?;
        let (meta, sections) = read_meta(source, &tail)?;
        if (&meta, &sections) != (&self.meta, &self.sections) {
            return Err(source.corrupt(tail.meta_offset, "a meta that has changed"));
        }
        if read_bloom(source, &sections)? != self.bloom {
            return Err(source.corrupt(sections.bloom, "a filter that has changed"));
        }
        if read_index(source, &sections)? != self.index {
            return Err(source.corrupt(sections.index, "an index that has changed"));
        }
        Ok(())
    }
}
