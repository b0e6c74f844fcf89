//! Reads a snapshot back: a block at a time, believing nothing that is not verified.
//!
//! Memory is that of one block. Between blocks other tasks get their turn, because a snapshot is
//! received while a node takes part in its cluster.

use bytes::Bytes;

use super::format::{
    self, BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Chain, FORMAT, Footer, MAGIC, PREAMBLE_BYTES,
};
use crate::base::checksum::crc32;
use crate::base::limits::{POSITION_MAX, SNAPSHOT_BLOCK_BYTES_MAX};
use crate::env::File;
use crate::storage::{Cell, SnapshotPoint, StorageError, let_others_run};
use crate::{planted, probe};

/// What a whole and undamaged snapshot holds besides its cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The state that it is of.
    pub point: SnapshotPoint,
    /// What was captured with the cells.
    pub extra: Bytes,
    /// How many cells there are.
    pub cell_count: u64,
}

/// Verifies the snapshot in `file`, every bit; `path` is for errors.
///
/// # Errors
/// [`StorageError::Corrupt`] if any bit of it is not as it was written, [`StorageError::Format`]
/// if another version of the program wrote it, [`StorageError::Disk`] if it cannot be read.
pub async fn verify<F: File>(file: &F, path: &str) -> Result<Summary, StorageError> {
    let mut contents = Contents::open(file, path)?;
    while contents.next_block()? {
        let_others_run().await;
    }
    let Contents { footer, extra, .. } = contents;
    match footer {
        Some(Footer { point, cell_count, .. }) => {
            Ok(Summary { point, extra: extra.into(), cell_count })
        }
        None => unreachable!("{path} ends without a footer, and nobody said so"),
    }
}

/// The contents of a snapshot, a verified block at a time.
pub struct Contents<'f, F: File> {
    reader: BlockReader<'f, F>,
    cell_count: u64,
    last_place: Option<Vec<u8>>,
    newest_version: u64,
    extra: Vec<u8>,
    stage: Option<BlockKind>,
    footer: Option<Footer>,
}

impl<'f, F: File> Contents<'f, F> {
    /// Begins with the first cell; `path` is for errors.
    ///
    /// # Errors
    /// As of [`verify`].
    pub fn open(file: &'f F, path: &'f str) -> Result<Self, StorageError> {
        Ok(Self {
            reader: BlockReader::open(file, path)?,
            cell_count: 0,
            last_place: None,
            newest_version: 0,
            extra: Vec::new(),
            stage: None,
            footer: None,
        })
    }

    /// Reads and verifies the next block; false once there is none.
    ///
    /// # Errors
    /// As of [`verify`].
    pub fn next_block(&mut self) -> Result<bool, StorageError> {
        if self.footer.is_some() {
            return Ok(false);
        }
        let kind = self.reader.next_block()?;
        if self.stage.is_some_and(|stage| stage > kind) {
            return Err(self.reader.corrupt(format!("{kind:?} block out of order")));
        }
        self.stage = Some(kind);
        match kind {
            BlockKind::Cells => self.check_cells()?,
            BlockKind::Extra => self.extra.extend_from_slice(&self.reader.body),
            BlockKind::Footer => self.footer = Some(self.check_footer()?),
        }
        Ok(true)
    }

    /// Returns the cells of the block at hand; none if it holds something else.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let is_cells = self.stage == Some(BlockKind::Cells);
        let mut body = if is_cells { self.reader.body.as_slice() } else { &[] };
        std::iter::from_fn(move || format::take_cell(&mut body))
    }

    fn check_cells(&mut self) -> Result<(), StorageError> {
        let mut body = self.reader.body.as_slice();
        while !body.is_empty() {
            let Some(cell) = format::take_cell(&mut body) else {
                return Err(self.reader.corrupt("a block ends within a cell".to_owned()));
            };
            if self.last_place.as_deref().is_some_and(|last| last >= cell.place) {
                return Err(self.reader.corrupt("cells out of order".to_owned()));
            }
            let last_place = self.last_place.get_or_insert_default();
            last_place.clear();
            last_place.extend_from_slice(cell.place);
            self.newest_version = self.newest_version.max(cell.version);
            self.cell_count += 1;
        }
        Ok(())
    }

    /// Compares the footer with what came before it.
    fn check_footer(&self) -> Result<Footer, StorageError> {
        let reader = &self.reader;
        let Some(footer) = Footer::decode(&reader.body) else {
            return Err(reader.corrupt(format!("footer of {} bytes", reader.body.len())));
        };
        let found = Footer {
            point: footer.point,
            cell_count: self.cell_count,
            extra_bytes: u64::try_from(self.extra.len()).unwrap_or(u64::MAX),
        };
        if found != footer {
            return Err(reader.corrupt(format!("footer says {footer:?}, found {found:?}")));
        }
        let SnapshotPoint { index, term } = footer.point;
        if !(1..=POSITION_MAX).contains(&index) || term > POSITION_MAX {
            return Err(reader.corrupt(format!("a state at {:?}", footer.point)));
        }
        if self.newest_version > index {
            return Err(reader.corrupt(format!(
                "a cell of version {} in a state of {:?}",
                self.newest_version, footer.point
            )));
        }
        if reader.offset != reader.len {
            return Err(reader.corrupt(format!("{} bytes after the footer", reader.ahead())));
        }
        Ok(footer)
    }
}

/// Reads one verified block after the other.
struct BlockReader<'f, F: File> {
    file: &'f F,
    path: &'f str,
    /// Bytes of the file.
    len: u64,
    /// Where the next block begins.
    offset: u64,
    /// Covers every block up to there.
    chain: Chain,
    /// The body of the last block read.
    body: Vec<u8>,
}

impl<'f, F: File> BlockReader<'f, F> {
    /// Reads and checks the preamble.
    fn open(file: &'f F, path: &'f str) -> Result<Self, StorageError> {
        let (chain, expected) = Chain::preamble();
        let len = file.len()?;
        let mut reader = Self { file, path, len, offset: 0, chain, body: Vec::new() };
        let mut preamble = [0; PREAMBLE_BYTES];
        reader.read_exact(0, &mut preamble)?;
        if preamble != expected {
            return Err(reader.wrong_preamble(&preamble));
        }
        reader.offset = u64::try_from(PREAMBLE_BYTES).unwrap_or(u64::MAX);
        Ok(reader)
    }

    /// Tells a file of another format from a damaged one.
    fn wrong_preamble(&self, preamble: &[u8; PREAMBLE_BYTES]) -> StorageError {
        if let Some((covered, crc)) = preamble.split_last_chunk::<4>()
            && crc32(covered) == u32::from_le_bytes(*crc)
            && let Some((magic, format)) = covered.split_last_chunk::<4>()
            && *magic == MAGIC
        {
            let format = u32::from_le_bytes(*format);
            assert!(format != FORMAT, "preamble {preamble:?} differs, yet not in its format");
            let (path, found) = (self.path.to_owned(), format!("snapshot format {format}"));
            return StorageError::Format { path, found, expected: "snapshot format 1" };
        }
        self.corrupt("this is not the beginning of a snapshot".to_owned())
    }

    /// Reads the next block into `body`. Damage is believed only when it is read a second time:
    /// what was wrong may have been the reading.
    fn next_block(&mut self) -> Result<BlockKind, StorageError> {
        match self.read_block() {
            Err(StorageError::Corrupt { .. } | StorageError::Disk(_)) => {
                let again = self.read_block();
                if again.is_ok() {
                    probe!("snapshot.second_read_helps");
                }
                again
            }
            read => read,
        }
    }

    fn read_block(&mut self) -> Result<BlockKind, StorageError> {
        let mut header = [0; BLOCK_HEADER_BYTES];
        self.read_exact(self.offset, &mut header)?;
        let header = BlockHeader::decode(header);
        let Some(kind) = BlockKind::from_code(header.kind) else {
            return Err(self.corrupt(format!("block of unknown kind {}", header.kind)));
        };
        let body_bytes = usize::try_from(header.len).unwrap_or(usize::MAX);
        let header_bytes = u64::try_from(BLOCK_HEADER_BYTES).unwrap_or(u64::MAX);
        let end = self.offset + header_bytes + u64::from(header.len);
        let is_longer = body_bytes > SNAPSHOT_BLOCK_BYTES_MAX || end > self.len;
        if is_longer && !planted!("F13") {
            return Err(self.corrupt(format!("{kind:?} block of {body_bytes} bytes")));
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(body_bytes, 0);
        self.read_exact(self.offset + header_bytes, &mut body)?;
        let mut chain = self.chain;
        let computed = chain.extend(header.kind, &body);
        if computed != header.crc && !planted!("F12") {
            let stored = header.crc;
            return Err(self.corrupt(format!(
                "{kind:?} block with checksum {stored:08x}, computed {computed:08x}"
            )));
        }
        self.body = body;
        self.chain = chain;
        self.offset = end;
        Ok(kind)
    }

    /// Fills `buffer` from `offset`.
    fn read_exact(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let read = self.file.read_at(offset, buffer)?;
        if read == buffer.len() {
            return Ok(());
        }
        Err(self.corrupt(format!("the file ends after {} bytes", self.len)))
    }

    fn ahead(&self) -> u64 {
        self.len.saturating_sub(self.offset)
    }

    /// Reports damage of the block at hand.
    fn corrupt(&self, what: String) -> StorageError {
        StorageError::Corrupt { path: self.path.to_owned(), offset: self.offset, what }
    }
}
