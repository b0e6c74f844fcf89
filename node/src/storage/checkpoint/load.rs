//! Reads a checkpoint back: a block at a time, believing nothing that is not verified.
//!
//! Memory is that of the cells themselves and of one block. Between blocks other tasks get their
//! turn, because a snapshot is also loaded while a node takes part in its cluster.

use std::future::poll_fn;
use std::task::Poll;

use super::format::{
    self, BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Chain, FORMAT, Footer, MAGIC, PREAMBLE_BYTES,
};
use crate::base::checksum::crc32;
use crate::base::limits::CHECKPOINT_BLOCK_BYTES_MAX;
use crate::env::File;
use crate::probe;
use crate::storage::memtable::Memtable;
use crate::storage::{Engine, SnapshotPoint, StorageError, Store};

/// What a whole and undamaged checkpoint holds.
#[derive(Debug)]
pub struct Loaded {
    /// The cells, in the state that the checkpoint is of.
    pub store: Store,
    /// What was captured with them.
    pub extra: Vec<u8>,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Loaded {
    /// Returns the state that the checkpoint is of.
    pub fn point(&self) -> SnapshotPoint {
        self.store.applied()
    }
}

/// Verifies and loads the checkpoint in `file`; `path` is for errors.
///
/// # Errors
/// [`StorageError::Corrupt`] if any bit of it is not as it was written, [`StorageError::Format`]
/// if another version of the program wrote it, [`StorageError::Disk`] if it cannot be read.
pub async fn load<F: File>(file: &F, path: &str) -> Result<Loaded, StorageError> {
    let mut reader = BlockReader::open(file, path)?;
    let mut contents = Contents::default();
    loop {
        if let Some(footer) = contents.take(&mut reader)? {
            let bytes = reader.offset;
            let store = Store::restore(contents.cells, footer.point);
            return Ok(Loaded { store, extra: contents.extra, bytes });
        }
        let_others_run().await;
    }
}

/// Gives the other tasks a turn.
pub(in crate::storage) async fn let_others_run() {
    let mut asked = false;
    poll_fn(|context| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What has been loaded so far.
#[derive(Debug, Default)]
struct Contents {
    cells: Memtable,
    last_place: Option<Vec<u8>>,
    newest_version: u64,
    extra: Vec<u8>,
    stage: Option<BlockKind>,
}

impl Contents {
    /// Takes the next block of `reader`; returns the footer once it was that.
    fn take<F: File>(
        &mut self,
        reader: &mut BlockReader<'_, F>,
    ) -> Result<Option<Footer>, StorageError> {
        let kind = reader.next_block()?;
        if self.stage.is_some_and(|stage| stage > kind) {
            return Err(reader.corrupt(format!("{kind:?} block out of order")));
        }
        self.stage = Some(kind);
        match kind {
            BlockKind::Cells => self.take_cells(reader).map(|()| None),
            BlockKind::Extra => {
                self.extra.extend_from_slice(&reader.body);
                Ok(None)
            }
            BlockKind::Footer => self.check_footer(reader).map(Some),
        }
    }

    fn take_cells<F: File>(&mut self, reader: &BlockReader<'_, F>) -> Result<(), StorageError> {
        let mut body = reader.body.as_slice();
        while !body.is_empty() {
            let Some(cell) = format::take_cell(&mut body) else {
                return Err(reader.corrupt("a block ends within a cell".to_owned()));
            };
            if self.last_place.as_deref().is_some_and(|last| last >= cell.place()) {
                return Err(reader.corrupt("cells out of order".to_owned()));
            }
            let last_place = self.last_place.get_or_insert_default();
            last_place.clear();
            last_place.extend_from_slice(cell.place());
            self.newest_version = self.newest_version.max(cell.version());
            self.cells.put(cell);
        }
        Ok(())
    }

    /// Compares the footer with what came before it.
    fn check_footer<F: File>(&self, reader: &BlockReader<'_, F>) -> Result<Footer, StorageError> {
        let Some(footer) = Footer::decode(&reader.body) else {
            return Err(reader.corrupt(format!("footer of {} bytes", reader.body.len())));
        };
        let found = Footer {
            point: footer.point,
            cell_count: u64::try_from(self.cells.len()).unwrap_or(u64::MAX),
            extra_bytes: u64::try_from(self.extra.len()).unwrap_or(u64::MAX),
        };
        if found != footer {
            return Err(reader.corrupt(format!("footer says {footer:?}, found {found:?}")));
        }
        if self.newest_version > footer.point.index {
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
            let (path, found) = (self.path.to_owned(), format!("checkpoint format {format}"));
            return StorageError::Format { path, found, expected: "checkpoint format 1" };
        }
        self.corrupt("this is not the beginning of a checkpoint".to_owned())
    }

    /// Reads the next block into `body`. Damage is believed only when it is read a second time:
    /// what was wrong may have been the reading.
    fn next_block(&mut self) -> Result<BlockKind, StorageError> {
        match self.read_block() {
            Err(StorageError::Corrupt { .. } | StorageError::Disk(_)) => {
                let again = self.read_block();
                if again.is_ok() {
                    probe!("checkpoint.second_read_helps");
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
        if body_bytes > CHECKPOINT_BLOCK_BYTES_MAX || end > self.len {
            return Err(self.corrupt(format!("{kind:?} block of {body_bytes} bytes")));
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(body_bytes, 0);
        self.read_exact(self.offset + header_bytes, &mut body)?;
        let mut chain = self.chain;
        let computed = chain.extend(header.kind, &body);
        if computed != header.crc {
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
