//! An open table: finds single cells in it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::block::Block;
use super::bloom::{Bloom, PlaceHash};
use super::cache::BlockCache;
use super::cursor::TableCursor;
use super::footer::{self, Sections, TAIL_BYTES, Tail};
use super::frame::Kind;
use super::index::{Index, Located};
use super::source::Source;
use super::{FORMAT, TableMeta};
use crate::env::File;
use crate::storage::StorageError;

/// An open table; see the [module](super). Shared by all who read it.
///
/// When it is dropped, so are its blocks in the cache.
pub struct Table<F> {
    pub(super) source: Source<F>,
    pub(super) meta: TableMeta,
    pub(super) sections: Sections,
    pub(super) index: Index,
    pub(super) bloom: Bloom,
    cache: Forgetful,
}

/// The cache, and whose blocks it need not keep any longer than this lives.
struct Forgetful {
    cache: Arc<BlockCache>,
    number: u64,
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

/// The newest that a table has of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// When it was written.
    pub version: u64,
    /// The value; `None` if it is [`Content::Deleted`](crate::storage::Content::Deleted). The
    /// bytes are those of the cached block, all of which stays in memory as long as they do.
    pub value: Option<Bytes>,
}

impl<F: File> Table<F> {
    /// Opens the table that `expected` describes, as the manifest has it. Reads and verifies the
    /// end of the file: filter, index and meta.
    ///
    /// # Errors
    /// [`StorageError::Format`] if a newer program wrote it; [`StorageError::Corrupt`] if it is
    /// damaged, or is not that table.
    pub fn open(
        file: F,
        path: String,
        expected: &TableMeta,
        cache: &Arc<BlockCache>,
    ) -> Result<Self, StorageError> {
        let source = Source::new(file, path, expected.number, expected.bytes)?;
        let tail = Source::<F>::twice(|| read_tail(&source))?;
        let (meta, sections) = read_meta(&source, &tail)?;
        if meta != *expected {
            return Err(source.corrupt(sections.meta, "the meta of another table"));
        }
        let bloom = read_bloom(&source, &sections)?;
        let index = read_index(&source, &sections)?;
        let cache = Forgetful { cache: Arc::clone(cache), number: meta.number };
        Ok(Self { source, meta, sections, index, bloom, cache })
    }

    /// Returns what is known of the table without reading it.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// Returns the path of its file.
    pub fn path(&self) -> &str {
        self.source.path()
    }

    /// Returns how many blocks of cells it has; see [`Table::verify`].
    pub fn block_count(&self) -> u64 {
        u64::try_from(self.index.frame_count()).unwrap_or(u64::MAX)
    }

    /// Returns how much memory it takes as long as it is open, cached blocks not counted.
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.bloom.memory_bytes()
    }

    /// Finds the cell at `place`, whose hash is `hash`; `None` if the table has none. A row's
    /// tombstone is no cell: ask [`row_deleted`](Self::row_deleted).
    ///
    /// # Errors
    /// The block that may hold it cannot be read.
    pub fn get(&self, place: &[u8], hash: PlaceHash) -> Result<Option<Found>, StorageError> {
        if !self.bloom.may_contain(hash) {
            return Ok(None);
        }
        let Some((located, block)) = self.block_of(place)? else { return Ok(None) };
        block.find_cell(place).map_err(|what| self.source.corrupt(located.offset, what))
    }

    /// Finds the tombstone of the row whose first place is `prefix`; returns its version. `hash`
    /// is the hash of that place. Costs nothing in a table without such tombstones.
    ///
    /// # Errors
    /// The block that may hold it cannot be read.
    pub fn row_deleted(&self, prefix: &[u8], hash: PlaceHash) -> Result<Option<u64>, StorageError> {
        if self.meta.row_tombstone_count == 0 || !self.bloom.may_contain(hash.of_row()) {
            return Ok(None);
        }
        let Some((located, block)) = self.block_of(prefix)? else { return Ok(None) };
        block.find_row(prefix).map_err(|what| self.source.corrupt(located.offset, what))
    }

    /// Returns a cursor that stands nowhere yet; [`seek`](TableCursor::seek) it.
    pub fn cursor(self: Arc<Self>) -> TableCursor<F> {
        TableCursor::new(self)
    }

    /// Returns the one block that may hold `place`.
    fn block_of(&self, place: &[u8]) -> Result<Option<(&Located, Block)>, StorageError> {
        match self.index.frame(self.index.find(place)) {
            Some(located) => Ok(Some((located, self.block(located)?))),
            None => Ok(None),
        }
    }

    /// Returns a block, from the cache if it is there; if not, it is put there.
    pub(super) fn block(&self, at: &Located) -> Result<Block, StorageError> {
        let cache = &self.cache.cache;
        if let Some(block) = cache.get(self.meta.number, at.offset) {
            return Ok(block);
        }
        let block = self.read_block(at)?;
        cache.put(self.meta.number, at.offset, &block);
        Ok(block)
    }

    /// Reads a block from the file, whether the cache has it or not.
    pub(super) fn read_block(&self, at: &Located) -> Result<Block, StorageError> {
        let body = self.source.read_frame(Kind::Cells, at.offset, u64::from(at.bytes))?;
        Block::new(body).map_err(|what| self.source.corrupt(at.offset, what))
    }
}

/// Reads the last bytes of the file.
pub(super) fn read_tail<F: File>(source: &Source<F>) -> Result<Tail, StorageError> {
    let tail_bytes = u64::try_from(TAIL_BYTES).unwrap_or(u64::MAX);
    let offset = source.bytes().saturating_sub(tail_bytes);
    let bytes = source.read(offset, tail_bytes)?;
    let tail = Tail::decode(&bytes).ok_or_else(|| source.corrupt(offset, "no tail of a table"))?;
    if tail.format != FORMAT {
        let found = format!("table format {}", tail.format);
        let path = source.path().to_owned();
        return Err(StorageError::Format { path, found, expected: "table format 1" });
    }
    let meta_end = tail.meta_offset.checked_add(u64::from(tail.meta_bytes));
    let is_home = tail.number == source.number() && tail.bytes == source.bytes();
    if !is_home || meta_end != Some(offset) {
        let what = format!("the tail of table {} of {} bytes", tail.number, tail.bytes);
        return Err(source.corrupt(offset, what));
    }
    Ok(tail)
}

/// Reads what the table says of itself.
pub(super) fn read_meta<F: File>(
    source: &Source<F>,
    tail: &Tail,
) -> Result<(TableMeta, Sections), StorageError> {
    let offset = tail.meta_offset;
    let body = source.read_frame(Kind::Meta, offset, u64::from(tail.meta_bytes))?;
    let meta = footer::decode_meta(&body, offset);
    meta.ok_or_else(|| source.corrupt(offset, "a meta that cannot be"))
}

/// Reads the filter.
pub(super) fn read_bloom<F: File>(
    source: &Source<F>,
    sections: &Sections,
) -> Result<Bloom, StorageError> {
    let bytes = sections.index.saturating_sub(sections.bloom);
    let body = source.read_frame(Kind::Bloom, sections.bloom, bytes)?;
    Bloom::decode(&body).map_err(|what| source.corrupt(sections.bloom, what))
}

/// Reads the index.
pub(super) fn read_index<F: File>(
    source: &Source<F>,
    sections: &Sections,
) -> Result<Index, StorageError> {
    let bytes = sections.meta.saturating_sub(sections.index);
    let body = source.read_frame(Kind::Index, sections.index, bytes)?;
    let index = Index::decode(body, sections.bloom);
    index.map_err(|what| source.corrupt(sections.index, what))
}

impl<F> fmt::Debug for Table<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("meta", &self.meta).finish_non_exhaustive()
    }
}
