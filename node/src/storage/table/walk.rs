//! Goes through the cells of a table of which parts are damaged, past what cannot be read.
//!
//! For repair alone. A [`Table`](super::Table) finds its blocks by the index, and is not opened
//! when the end of its file is damaged. A walk needs neither: frames say themselves where they
//! belong and how long they are, so it goes from one to the next, and behind a damaged one looks
//! for the next that is whole and at its place.

use bytes::Bytes;

use super::TableMeta;
use super::block::{Block, BlockCursor};
use super::frame::{self, HEADER_BYTES, Home, Kind};
use super::reader::{read_meta, read_tail};
use super::source::Source;
use crate::env::File;
use crate::probe;
use crate::storage::{Cell, StorageError};

/// Bytes that are searched at a time for the next frame; what cannot be read is passed over in
/// such steps.
const SEARCHED_BYTES: u64 = 4 << 10;

/// Goes through a table from its first cell on.
pub struct TableWalk<F> {
    source: Source<F>,
    offset: u64,
    is_over: bool,
}

/// What a walk comes upon.
#[derive(Debug)]
pub enum Piece {
    /// An undamaged block of cells.
    Cells(CellRun),
    /// Bytes that are no whole block.
    Damage {
        /// Where they begin.
        offset: u64,
        /// How many there are.
        bytes: u64,
    },
}

/// The cells of one block, all of which can be read.
#[derive(Debug)]
pub struct CellRun {
    cursor: BlockCursor,
    last: Vec<u8>,
}

impl CellRun {
    /// Takes a block if every entry of it can be read.
    fn of(block: &Block) -> Option<Self> {
        let mut last = Vec::new();
        let mut cursor = BlockCursor::new(block.clone(), Vec::new()).ok()?;
        while let Some(cell) = cursor.current() {
            cell.place.clone_into(&mut last);
            cursor.advance().ok()?;
        }
        Some(Self { cursor: BlockCursor::new(block.clone(), Vec::new()).ok()?, last })
    }

    /// Returns the cell at hand; `None` after the last.
    pub fn current(&self) -> Option<Cell<'_>> {
        self.cursor.current()
    }

    /// Goes on to the next cell.
    pub fn advance(&mut self) {
        let advanced = self.cursor.advance();
        assert!(advanced.is_ok(), "{advanced:?} in a block whose entries were all read before");
    }

    /// Returns the place of the last cell of the block.
    pub fn last(&self) -> &[u8] {
        &self.last
    }
}

impl<F: File> TableWalk<F> {
    /// Begins at the start of the table `number`, whatever state its file is in.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn open(file: F, path: String, number: u64) -> Result<Self, StorageError> {
        let bytes = file.len()?;
        let source = Source::new(file, path, number, bytes)?;
        Ok(Self { source, offset: 0, is_over: false })
    }

    /// Returns what comes next; `None` behind the last block.
    pub fn next_piece(&mut self) -> Option<Piece> {
        if self.is_over || self.offset >= self.source.bytes() {
            return None;
        }
        let offset = self.offset;
        match self.frame_at(offset) {
            Some((Kind::Cells, body, end)) => {
                self.offset = end;
                let run = Block::new(body).ok().and_then(|block| CellRun::of(&block));
                Some(run.map_or(Piece::Damage { offset, bytes: end - offset }, Piece::Cells))
            }
            Some((Kind::Bloom | Kind::Index | Kind::Meta, ..)) => {
                self.is_over = true;
                None
            }
            None => {
                probe!("table.walk_passes_damage");
                self.offset = self.next_frame(offset + 1);
                Some(Piece::Damage { offset, bytes: self.offset - offset })
            }
        }
    }

    /// Tells whether the walk has come to what follows the last block, and not only to the end of a
    /// file that is too short.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns where the next piece would begin.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the frame at `offset`, if it is whole; returns where it ends, too.
    fn frame_at(&self, offset: u64) -> Option<(Kind, Bytes, u64)> {
        let header_bytes = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
        let header = self.source.read(offset, header_bytes).ok()?;
        let home = Home { number: self.source.number(), offset };
        let (kind, bytes) = frame::peek(home, &header)?;
        let body = self.source.read_frame(kind, offset, bytes).ok()?;
        Some((kind, body, offset + bytes))
    }

    /// Returns where the next whole frame begins, at `from` or behind it, or the end of the file.
    fn next_frame(&self, from: u64) -> u64 {
        let len = self.source.bytes();
        let overlap = u64::try_from(frame::MAGIC.len()).unwrap_or(u64::MAX) - 1;
        let mut start = from;
        while start < len {
            let bytes = (SEARCHED_BYTES + overlap).min(len - start);
            let window = self.source.read(start, bytes).unwrap_or_default();
            let magics = window.windows(frame::MAGIC.len()).zip(start..);
            let mut found = magics.filter(|(bytes, _)| *bytes == frame::MAGIC);
            if let Some((_, offset)) = found.find(|(_, offset)| self.frame_at(*offset).is_some()) {
                return offset;
            }
            start = start.saturating_add(SEARCHED_BYTES);
        }
        len
    }
}

/// Reads what a table says of itself, for want of a manifest.
///
/// # Errors
/// The end of the file is damaged or cannot be read, or another version of the program wrote it.
pub fn read_own_meta<F: File>(
    file: F,
    path: String,
    number: u64,
) -> Result<TableMeta, StorageError> {
    let bytes = file.len()?;
    let source = Source::new(file, path, number, bytes)?;
    let tail = Source::<F>::twice(|| read_tail(&source))?;
    Ok(read_meta(&source, &tail)?.0)
}
