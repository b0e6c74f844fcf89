//! Writes sorted entries into new tables.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use super::{sync, table_path};
use crate::codec::keycode;
use crate::env::{Disk, DiskErrorKind, File};
use crate::storage::let_others_run;
use crate::storage::table::{BlockCache, Table, TableBuilder, TableOptions};
use crate::storage::{Cell, StorageError};

/// Bytes after which a growing table is synced. All of it at the end would keep the disk busy for
/// so long that the log, which everybody waits for, would have to wait, too.
const SYNC_BYTES: u64 = 256 << 10;

/// What part of a table is enough for one that ends at a border.
const SHORT_SHARE: u64 = 16;

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
    /// Places at which a table is closed although it is short, in order.
    borders: Vec<Vec<u8>>,
    /// How many of them were passed.
    passed: usize,
}

/// A table that takes entries.
struct Unfinished<F> {
    number: u64,
    builder: TableBuilder,
    file: Option<Arc<F>>,
    written: u64,
    /// Bytes that were there when the last sync began.
    synced: u64,
    /// That sync, if it is not over: merging goes on meanwhile.
    syncing: Option<Syncing>,
}

/// A sync under way. The lock is never taken: it makes what is sent between threads shareable.
type Syncing = Mutex<Pin<Box<dyn Future<Output = Result<(), StorageError>> + Send>>>;

impl<D: Disk> Output<D> {
    pub(super) fn new(place: Place<D>) -> Self {
        Self {
            place,
            open: None,
            finished: Vec::new(),
            begun: Vec::new(),
            borders: Vec::new(),
            passed: 0,
        }
    }

    /// Sets the places behind each of which another table begins, in order, if the one before is
    /// not too short to be a table.
    #[must_use]
    pub(super) fn with_borders(self, borders: Vec<Vec<u8>>) -> Self {
        Self { borders, ..self }
    }

    /// Tells whether the table is to be [closed](Self::close_table) before an entry at `place`,
    /// with about `rest_bytes` of entries to come.
    pub(super) fn is_full_before(&mut self, place: &[u8], rest_bytes: u64) -> bool {
        let mut is_border = false;
        while self.borders.get(self.passed).is_some_and(|border| border.as_slice() < place) {
            self.passed += 1;
            is_border = true;
        }
        let Some(open) = &self.open else { return false };
        let (bytes, table_bytes) = (open.builder.estimated_bytes(), self.place.table_bytes);
        if is_border && bytes >= table_bytes / SHORT_SHARE {
            return true;
        }
        // Rather somewhat too long than followed by a short one.
        if bytes < table_bytes || rest_bytes < table_bytes / 2 {
            return false;
        }
        // The two entries that a place may have stay together, and so does a row that may.
        let last = open.builder.last_place();
        let is_same_row = || keycode::row_prefix(last) == keycode::row_prefix(place);
        last != place && (bytes >= table_bytes + table_bytes / 4 || !is_same_row())
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
        let closed = Self::finish(&self.place, &mut open).await;
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

    async fn finish(
        place: &Place<D>,
        open: &mut Unfinished<D::File>,
    ) -> Result<Table<D::File>, StorageError> {
        // Each of these takes a few milliseconds of computing.
        let bytes = open.builder.take_bytes();
        open.write(place, &bytes).await?;
        let_others_run().await;
        let empty = TableBuilder::new(open.number, &place.table);
        let (rest, meta) = std::mem::replace(&mut open.builder, empty).finish();
        let_others_run().await;
        open.write(place, &rest).await?;
        open.sync_is_over().await?;
        // Nobody else holds it: the sync is over.
        let Some(file) = open.file.take().and_then(Arc::into_inner) else {
            unreachable!("table {} has bytes, so it has a file", open.number)
        };
        sync(&file).await?;
        let_others_run().await;
        assert!(open.written == meta.bytes, "{} bytes of {meta:?}", open.written);
        let path = table_path(&place.dir, open.number);
        let table = Table::open(file, path, &meta, &place.cache)?;
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
        let Some(file) = self.file.clone() else { return Ok(()) };
        self.look_at_sync().await?;
        write_in_steps(&*file, self.written, bytes, place.step_bytes).await?;
        self.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.written - self.synced >= SYNC_BYTES {
            self.sync_is_over().await?;
            self.synced = self.written;
            self.syncing = Some(Mutex::new(Box::pin(async move { sync(&*file).await })));
            self.look_at_sync().await?;
        }
        Ok(())
    }

    /// Begins the sync that is under way, or sees whether it is over. After one that failed,
    /// nothing more is written.
    async fn look_at_sync(&mut self) -> Result<(), StorageError> {
        let Some(syncing) = &mut self.syncing else { return Ok(()) };
        let syncing = syncing.get_mut().unwrap_or_else(PoisonError::into_inner);
        match poll_fn(|context| Poll::Ready(syncing.as_mut().poll(context))).await {
            Poll::Ready(done) => {
                self.syncing = None;
                done
            }
            Poll::Pending => Ok(()),
        }
    }

    /// Waits for the sync that is under way, if any.
    async fn sync_is_over(&mut self) -> Result<(), StorageError> {
        match self.syncing.take() {
            Some(syncing) => syncing.into_inner().unwrap_or_else(PoisonError::into_inner).await,
            None => Ok(()),
        }
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
