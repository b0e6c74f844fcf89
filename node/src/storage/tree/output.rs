//! Writes sorted entries into new tables.
//!
//! A table that grows is synced every so many steps, and the merge goes on meanwhile: waiting for
//! each of these syncs took a quarter of the time of a large merge. One sync is under way at a
//! time, so that the disk is never further behind than two of these stretches, and a table counts
//! as finished only after a last one that is waited for.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use super::{sync, table_path};
use crate::env::{Disk, DiskErrorKind, File};
use crate::probe;
use crate::storage::let_others_run;
use crate::storage::table::{BlockCache, Table, TableBuilder, TableOptions};
use crate::storage::{Cell, StorageError};

/// Full steps after which a growing table is synced: a MiB, as a rule. All of it at the end would
/// keep the disk busy for so long that the log, which everybody waits for, would have to wait, too.
const SYNC_STEPS: usize = 16;

/// A sync that is under way. Nobody locks it: futures of others may hold a reference to all this.
type Syncing = Mutex<Pin<Box<dyn Future<Output = Result<(), StorageError>> + Send>>>;

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
    file: Option<Arc<F>>,
    written: u64,
    /// How many of the bytes are durable, or will be by the sync under way.
    synced: u64,
    syncing: Option<Syncing>,
}

impl<D: Disk> Output<D> {
    pub(super) fn new(place: Place<D>) -> Self {
        Self { place, open: None, finished: Vec::new(), begun: Vec::new() }
    }

    /// Tells whether the table is to be [closed](Self::close_table) before an entry at `place`:
    /// it is long enough, and the two entries that a place may have stay together.
    pub(super) fn is_full_before(&self, place: &[u8]) -> bool {
        self.may_close_before(place, self.place.table_bytes)
    }

    /// Tells whether there is a table of so many bytes, which may end before an entry at `place`.
    pub(super) fn may_close_before(&self, place: &[u8], bytes: u64) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.builder.estimated_bytes() >= bytes && open.builder.last_place() != place
        })
    }

    /// Tells whether the next entry begins a table.
    pub(super) fn is_between_tables(&self) -> bool {
        self.open.is_none()
    }

    /// Appends an entry; a new table takes its number from `next_number`. No I/O.
    pub(super) fn push(&mut self, cell: Cell<'_>, next_number: &mut u64) {
        let open = self.open.get_or_insert_with(|| {
            let number = *next_number;
            *next_number += 1;
            let builder = TableBuilder::new(number, &self.place.table);
            Unfinished { number, builder, file: None, written: 0, synced: 0, syncing: None }
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
        let file = open.synced_file().await?;
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
            self.file = Some(Arc::new(place.disk.create(&path).await?));
        }
        if let Some(file) = &self.file {
            write_in_steps(&**file, self.written, bytes, place.step_bytes).await?;
            self.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let stretch = SYNC_STEPS.saturating_mul(place.step_bytes);
            if self.written - self.synced >= u64::try_from(stretch).unwrap_or(u64::MAX) {
                self.begin_sync().await?;
            }
        }
        Ok(())
    }

    /// Begins to make durable what is written, after the sync before has ended.
    async fn begin_sync(&mut self) -> Result<(), StorageError> {
        self.wait_for_sync().await?;
        let Some(file) = self.file.clone() else { return Ok(()) };
        self.synced = self.written;
        let mut syncing = Box::pin(async move { sync(&*file).await });
        // Nothing happens before it is asked for the first time.
        match poll_fn(|context| Poll::Ready(syncing.as_mut().poll(context))).await {
            Poll::Ready(synced) => synced,
            Poll::Pending => {
                probe!("tree.merges_while_it_syncs");
                self.syncing = Some(Mutex::new(syncing));
                Ok(())
            }
        }
    }

    async fn wait_for_sync(&mut self) -> Result<(), StorageError> {
        match self.syncing.take() {
            Some(syncing) => syncing.into_inner().unwrap_or_else(PoisonError::into_inner).await,
            None => Ok(()),
        }
    }

    /// Makes all of the file durable and gives it away.
    async fn synced_file(&mut self) -> Result<F, StorageError> {
        self.wait_for_sync().await?;
        let Some(file) = self.file.take() else {
            unreachable!("table {} has bytes, so it has a file", self.number)
        };
        sync(&*file).await?;
        let Some(file) = Arc::into_inner(file) else {
            unreachable!("table {} is shared, though no sync is under way", self.number)
        };
        Ok(file)
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
