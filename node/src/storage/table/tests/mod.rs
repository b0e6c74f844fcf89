//! Tables as a whole: what goes in comes out, and damage is found wherever it is.

mod caching;
mod damage;
mod golden;
mod round_trip;
mod runs;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BlockCache, Compression, Table, TableBuilder, TableMeta, TableOptions};
use crate::env::{DiskError, DiskErrorKind, File};
use crate::storage::{Cell, Content, StorageError};

/// A file in memory whose bytes a test may change, and whose reads it may spoil.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryFile {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// How many reads from now on give wrong bytes.
    wrong_reads: usize,
    /// How many reads from now on fail.
    failed_reads: usize,
    read_count: usize,
}

impl MemoryFile {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let state = State { bytes: bytes.to_vec(), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tamper(&self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.state().bytes);
    }

    pub(super) fn spoil(&self, wrong_reads: usize, failed_reads: usize) {
        let mut state = self.state();
        state.wrong_reads = wrong_reads;
        state.failed_reads = failed_reads;
    }

    pub(super) fn read_count(&self) -> usize {
        self.state().read_count
    }
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let mut state = self.state();
        state.read_count += 1;
        if state.failed_reads > 0 {
            state.failed_reads -= 1;
            let (path, message) = ("memory".to_owned(), "spoiled".to_owned());
            return Err(DiskError { kind: DiskErrorKind::Io, operation: "read", path, message });
        }
        let rest = state.bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        if state.wrong_reads > 0 && len > 0 {
            state.wrong_reads -= 1;
            buffer[len / 2] ^= 0x10;
        }
        Ok(len)
    }

    fn len(&self) -> Result<u64, DiskError> {
        Ok(u64::try_from(self.state().bytes.len()).unwrap())
    }

    async fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<(), DiskError> {
        unreachable!("a table is only read")
    }

    async fn truncate(&self, _len: u64) -> Result<(), DiskError> {
        unreachable!("a table is only read")
    }

    async fn sync(&self) -> Result<(), DiskError> {
        unreachable!("a table is only read")
    }
}

/// An entry that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) place: Vec<u8>,
    pub(super) version: u64,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    RowDeleted,
    Deleted,
    Value(Vec<u8>),
}

impl Entry {
    pub(super) fn cell(&self) -> Cell<'_> {
        let content = match &self.kind {
            Kind::RowDeleted => Content::RowDeleted,
            Kind::Deleted => Content::Deleted,
            Kind::Value(value) => Content::Value(value),
        };
        Cell { place: &self.place, version: self.version, content }
    }

    pub(super) fn of(cell: Cell<'_>) -> Self {
        let kind = match cell.content {
            Content::RowDeleted => Kind::RowDeleted,
            Content::Deleted => Kind::Deleted,
            Content::Value(value) => Kind::Value(value.to_vec()),
        };
        Self { place: cell.place.to_vec(), version: cell.version, kind }
    }
}

/// Returns options with which even small tables have many blocks.
pub(super) fn options(compression: Compression) -> TableOptions {
    TableOptions { block_bytes: 100, bloom_bits_per_cell: 10, compression }
}

pub(super) fn build(
    number: u64,
    options: &TableOptions,
    entries: &[Entry],
) -> (Vec<u8>, TableMeta) {
    let mut builder = TableBuilder::new(number, options);
    let mut bytes = Vec::new();
    for entry in entries {
        builder.push(entry.cell());
        bytes.extend_from_slice(&builder.take_bytes());
    }
    let (rest, meta) = builder.finish();
    bytes.extend_from_slice(&rest);
    (bytes, meta)
}

pub(super) fn open(
    bytes: &[u8],
    meta: &TableMeta,
) -> Result<(MemoryFile, Arc<Table<MemoryFile>>), StorageError> {
    let file = MemoryFile::new(bytes);
    let cache = Arc::new(BlockCache::new(1 << 20));
    let table = Table::open(file.clone(), "tables/7".to_owned(), meta, &cache)?;
    Ok((file, Arc::new(table)))
}
