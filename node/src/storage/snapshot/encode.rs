//! Encodes a pinned state, a piece at a time.

use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, BlockKind, Encoder, Footer};
use crate::env::Disk;
use crate::storage::tree::{Version, VersionCursor};
use crate::storage::{Content, SnapshotPoint, StorageError};

/// Bytes after which a block is closed. A constant, so that the bytes depend on the state alone.
const BLOCK_BYTES: usize = 64 << 10;

/// Turns a [`Version`] into the bytes of a snapshot. The version's files stay until it is done.
pub struct SnapshotEncoder<D: Disk> {
    point: SnapshotPoint,
    extra: Bytes,
    cursor: VersionCursor<D>,
    stage: Stage,
    cell_count: u64,
    /// The block that is being filled.
    body: Vec<u8>,
    encoder: Encoder,
}

/// How far the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There are none.
    Start,
    /// There are cells before the cursor.
    Cells,
    /// All cells, and so many bytes of the extra.
    Extra(usize),
    /// Everything.
    Done,
}

impl<D: Disk> SnapshotEncoder<D> {
    /// Begins with the first cell.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn begin(version: &Arc<Version<D>>) -> Result<Self, StorageError> {
        Ok(Self {
            point: version.applied,
            extra: version.extra.clone(),
            cursor: version.cursor()?,
            stage: Stage::Start,
            cell_count: 0,
            body: Vec::new(),
            encoder: Encoder::default(),
        })
    }

    /// Appends the next block of the snapshot to `bytes`; returns whether it was the last.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn step(&mut self, bytes: &mut Vec<u8>) -> Result<bool, StorageError> {
        match self.stage {
            Stage::Start => {
                self.encoder.push_preamble(bytes);
                self.stage = Stage::Cells;
            }
            Stage::Cells => self.push_cells(bytes)?,
            Stage::Extra(sent) => self.push_extra(sent, bytes),
            Stage::Done => return Ok(true),
        }
        Ok(false)
    }

    fn push_cells(&mut self, bytes: &mut Vec<u8>) -> Result<(), StorageError> {
        while let Some(cell) = self.cursor.current() {
            if let Content::Value(value) = cell.content {
                format::push_cell(cell.place, cell.version, value, &mut self.body);
                self.cell_count += 1;
            }
            self.cursor.advance()?;
            if self.body.len() >= BLOCK_BYTES {
                break;
            }
        }
        if self.body.is_empty() {
            self.stage = Stage::Extra(0);
            return Ok(());
        }
        self.encoder.push_block(BlockKind::Cells, &self.body, bytes);
        self.body.clear();
        Ok(())
    }

    fn push_extra(&mut self, sent: usize, bytes: &mut Vec<u8>) {
        let rest = self.extra.get(sent..).unwrap_or_default();
        if !rest.is_empty() {
            let part = rest.get(..BLOCK_BYTES).unwrap_or(rest);
            self.encoder.push_block(BlockKind::Extra, part, bytes);
            self.stage = Stage::Extra(sent + part.len());
            return;
        }
        let footer = Footer {
            point: self.point,
            cell_count: self.cell_count,
            extra_bytes: u64::try_from(self.extra.len()).unwrap_or(u64::MAX),
        };
        self.encoder.push_block(BlockKind::Footer, &footer.encode(), bytes);
        self.stage = Stage::Done;
    }
}
