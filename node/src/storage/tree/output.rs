//! Writes sorted entries into new tables.

use std::sync::Arc;

use super::{sync, table_path};
use crate::env::{Disk, DiskErrorKind, File};
use crate::storage::let_others_run;
use crate::storage::table::{BlockCache, Table, TableBuilder, TableOptions};
use crate::storage::{Cell, StorageError};

/// Bytes after which a growing table is synced. All of it at the end would keep the disk busy for
/// so long that the log, which everybody waits for, would have to wait, too; but each sync is a
/// wait for the merge, and with many of them it falls behind the writes.
const SYNC_BYTES: u64 = 1 << 20;

/// Where tables go, and how they are made.
#[derive(Debug, Clone)]
pub(super) struct Place<D> {
    pub(super) disk: D,
    pub(super) dir: String,
    pub(super) table: TableOptions,
    /// Bytes after which a table is closed.
    pub(super) table_bytes: u64,
    /// Bytes that are written at a time.
    pub(super) step_bytes: usize,
    pub(super) cache: Arc<BlockCache>,
}

/// Tables in the making, one after the other. They have no effect before a manifest names them.
pub(super) struct Output<D: Disk> {
    place: Place<D>,
    open: Option<Unfinished<D::File>>,
    finished: Vec<Arc<Table<D::File>>>,
    /// Tables that could not be finished.
    begun: Vec<u64>,
}

/// A table that takes entries.
struct Unfinished<F> {
    number: u64,
    builder: TableBuilder,
    file: Option<F>,
    written: u64,
    /// Bytes of it that are durable.
    synced: u64,
}

impl<D: Disk> Output<D> {
    pub(super) fn new(place: Place<D>) -> Self {
        Self { place, open: None, finished: Vec::new(), begun: Vec::new() }
    }

    /// Tells whether the table is to be [closed](Self::close_table) before an entry at `place`:
    /// it is long enough, and the two entries that a place may have stay together.
    pub(super) fn is_full_before(&self, place: &[u8]) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let is_full = open.builder.estimated_bytes() >= self.place.table_bytes;
            is_full && open.builder.last_place() != place
        })
    }

    /// Appends an entry; a new table takes its number from `next_number`. No I/O.
    pub(super) fn push(&mut self, cell: Cell<'_>, next_number: &mut u64) {
        let open = self.open.get_or_insert_with(|| {
            let number = *next_number;
            *next_number += 1;
            let builder = TableBuilder::new(number, &self.place.table);
            Unfinished { number, builder, file: None, written: 0, synced: 0 }
        });
        open.builder.push(cell);
    }

    /// Writes what has come together since the last call.
    pub(super) async fn write(&mut self) -> Result<(), StorageError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let bytes = open.builder.take_bytes();
        open.write(&self.place, &bytes).await
    }

    /// Finishes the table at hand, if any, and makes its bytes durable.
    pub(super) async fn close_table(&mut self) -> Result<(), StorageError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let closed = self.finish(&mut open).await;
        let table = match closed {
            Ok(table) => table,
            Err(error) => {
                self.begun.push(open.number);
                return Err(error);
            }
        };
        self.finished.push(Arc::new(table));
        Ok(())
    }

    async fn finish(&self, open: &mut Unfinished<D::File>) -> Result<Table<D::File>, StorageError> {
        // Each of these takes a few milliseconds of computing.
        let bytes = open.builder.take_bytes();
        open.write(&self.place, &bytes).await?;
        let_others_run().await;
        let empty = TableBuilder::new(open.number, &self.place.table);
        let (rest, meta) = std::mem::replace(&mut open.builder, empty).finish();
        let_others_run().await;
        open.write(&self.place, &rest).await?;
        let Some(file) = open.file.take() else {
            unreachable!("table {} has bytes, so it has a file", open.number)
        };
        sync(&file).await?;
        let_others_run().await;
        assert!(open.written == meta.bytes, "{} bytes of {meta:?}", open.written);
        let path = table_path(&self.place.dir, open.number);
        let table = Table::open(file, path, &meta, &self.place.cache)?;
        let_others_run().await;
        Ok(table)
    }

    /// Finishes the last table and returns all of them. Their names are not durable.
    pub(super) async fn finish_all(&mut self) -> Result<Vec<Arc<Table<D::File>>>, StorageError> {
        self.close_table().await?;
        Ok(self.finished.clone())
    }

    /// Removes all files. Failing to is of no consequence: the next start removes them.
    pub(super) async fn discard(self) {
        let open = self.open.iter().filter(|open| open.file.is_some()).map(|open| open.number);
        let finished = self.finished.iter().map(|table| table.meta().number);
        for number in open.chain(finished).chain(self.begun.iter().copied()).collect::<Vec<_>>() {
            remove(&self.place.disk, &table_path(&self.place.dir, number)).await;
        }
    }
}

impl<F: File> Unfinished<F> {
    /// Appends bytes to the file, in steps.
    async fn write<D: Disk<File = F>>(
        &mut self,
        place: &Place<D>,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            let path = table_path(&place.dir, self.number);
            self.file = Some(place.disk.create(&path).await?);
        }
        if let Some(file) = &self.file {
            write_in_steps(file, self.written, bytes, place.step_bytes).await?;
            self.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if self.written - self.synced >= SYNC_BYTES {
                sync(file).await?;
                self.synced = self.written;
            }
        }
        Ok(())
    }
}

/// Writes bytes a step at a time.
pub(super) async fn write_in_steps<F: File>(
    file: &F,
    mut offset: u64,
    bytes: &[u8],
    step_bytes: usize,
) -> Result<(), StorageError> {
    for step in bytes.chunks(step_bytes.max(1)) {
        file.write_at(offset, step).await?;
        offset += u64::try_from(step.len()).unwrap_or(u64::MAX);
        if bytes.len() > step_bytes {
            let_others_run().await;
        }
    }
    Ok(())
}

/// Removes a file that nothing depends on.
pub(super) async fn remove<D: Disk>(disk: &D, path: &str) {
    match disk.remove(path).await {
        Err(error) if error.kind != DiskErrorKind::NotFound => {
            tracing::warn!(path, %error, "a superfluous file stays for now");
        }
        Ok(()) | Err(_) => {}
    }
}
