//! Reads of the masterless mode: ranges as chunks, notes in pages, leaves from scratch.
//!
//! A chunk is closed by its count or its bytes, but never before it has got one entry ahead: who
//! goes on where a chunk ends comes to the end. All ranges of one read share a budget, so that the
//! answer fits a message. Each range may take an equal part of what the ones before it have left;
//! when nothing is left, the chunks that follow cover nothing, and are asked for again.
//!
//! Tombstones are entries like any other here, for the others must hear of them. What a page does
//! not want, or what a row's tombstone hides, is passed over, and there may be any amount of it: so
//! a page is closed by what it has passed over, too, perhaps before it has any entry.

use std::ops::ControlFlow;

use super::cell_store::CellStore;
use super::read::unreadable;
use crate::base::limits::MULTI_GET_BYTES_MAX;
use crate::base::{Entry, Payload, Stamp, TooLarge, Written};
use crate::codec::{DecodeError, keycode};
use crate::dynamo::placement::{self, PREFIX_BYTES};
use crate::dynamo::{Chunk, Found, Partition, Range, StoreRead, merkle};
use crate::probe;
use crate::storage::{Cell, Content, Engine, StorageError};

/// Bytes of entries after which the chunks of one read are closed; one entry more may exceed it.
const CHUNKS_BYTES_MAX: usize = MULTI_GET_BYTES_MAX;

/// Bytes that a page passes for each byte that it may have, before it is closed all the same.
/// Too small: many short pages; too large: the loop stands still meanwhile.
const PASSED_PER_WANTED: usize = 4;

/// Where a chunk is closed.
#[derive(Debug, Clone, Copy)]
struct Limit {
    count: usize,
    bytes: usize,
}

impl<E: Engine> CellStore<E> {
    /// Reads on behalf of the core.
    ///
    /// # Errors
    /// The own storage failed.
    pub fn read(&mut self, read: &StoreRead) -> Result<Found, StorageError> {
        match read {
            StoreRead::Ranges(ranges) => self.chunks(ranges).map(Found::Chunks),
            StoreRead::Notes { prefix, start, bytes_max } => {
                self.notes(prefix.as_bytes(), start.as_bytes(), *bytes_max)
            }
            StoreRead::Leaves { partition, floor, start, bytes_max } => {
                let page = self.leaves(*partition, *floor, start.as_bytes(), *bytes_max)?;
                let next = page.next.as_ref();
                self.unread = next.map(|next| (*partition, next.as_bytes().to_vec()));
                let LeavesPage { leaves, next, tombstone } = page;
                Ok(Found::Leaves { leaves, next, tombstone })
            }
            StoreRead::LeafEntries { partition, leaves, start, bytes_max } => {
                let limit = Limit { count: usize::MAX, bytes: *bytes_max };
                let chunk = self.chunk(*partition, start.as_bytes(), None, limit, Some(leaves))?;
                Ok(Found::Chunks(vec![chunk]))
            }
        }
    }

    /// Reads ranges, one chunk for each.
    ///
    /// # Errors
    /// The own storage failed.
    pub fn chunks(&self, ranges: &[Range]) -> Result<Vec<Chunk>, StorageError> {
        let mut chunks = Vec::with_capacity(ranges.len());
        let mut bytes_left = CHUNKS_BYTES_MAX;
        for (range, ranges_left) in ranges.iter().zip((1..=ranges.len()).rev()) {
            if bytes_left == 0 {
                let (covered, floor) = (Some(range.start.clone()), self.floor(range.partition));
                chunks.push(Chunk { entries: Vec::new(), covered, floor });
                continue;
            }
            let count = usize::try_from(range.limit).unwrap_or(usize::MAX);
            let limit = Limit { count, bytes: bytes_left.div_ceil(ranges_left) };
            let end = range.end.as_ref().map(Payload::as_bytes);
            let chunk = self.chunk(range.partition, range.start.as_bytes(), end, limit, None)?;
            let bytes: usize = chunk.entries.iter().map(Entry::bytes).sum();
            // With few entries for each range, where they end is as long as they are.
            let covered = chunk.covered.as_ref().map_or(0, Payload::len);
            bytes_left = bytes_left.saturating_sub(bytes + covered);
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// Reads a stretch of a partition; with `leaves`, of the rows that lie in those.
    fn chunk(
        &self,
        partition: Partition,
        start: &[u8],
        end: Option<&[u8]>,
        limit: Limit,
        leaves: Option<&[u16]>,
    ) -> Result<Chunk, StorageError> {
        let prefix = placement::prefix(partition);
        let partition_end = after_prefix(&prefix);
        let start = start.max(&prefix[..]);
        let end = [end, partition_end.as_deref()].into_iter().flatten().min();
        let mut rows = Rows { leaves, row: Vec::new(), is_wanted: leaves.is_none() };
        let mut growing = Growing::new(limit);
        let mut chunk = Chunk { floor: self.floor(partition), ..Chunk::default() };
        if end.is_some_and(|end| end <= start) {
            return Ok(chunk);
        }
        if let Some(end) = end
            && leaves.is_none()
            && end.strip_suffix(&[0]) == Some(start)
        {
            chunk.entries = self.entries_at(start)?;
            return Ok(chunk);
        }
        let row = keycode::row_prefix(start);
        if row.len() < start.len()
            && rows.is_wanted(start)
            && let Some(version) = self.engine().get_raw(start)?.row_deleted
        {
            let above = Cell { place: row, version, content: Content::RowDeleted };
            growing.above(entry_of(above)?);
        }
        let mut outcome = Ok(());
        let passed_bytes_max = limit.bytes.saturating_mul(PASSED_PER_WANTED);
        let passed = self.engine().scan_raw_some(start, end, passed_bytes_max, &mut |cell| {
            if !rows.is_wanted(cell.place) {
                return ControlFlow::Continue(());
            }
            let taken = growing.take(cell);
            taken.unwrap_or_else(|error| {
                outcome = Err(error);
                ControlFlow::Break(())
            })
        })?;
        outcome?;
        if let Some(place) = &passed.next {
            // The rest of it in the next page: the loop has others to serve.
            probe!("store_read.chunk_ends_with_what_it_passed");
            growing.covered = Some(payload(place)?);
        }
        (chunk.entries, chunk.covered) = (growing.entries, growing.covered);
        Ok(chunk)
    }

    /// Returns what a chunk of one place holds. A point read has filters, a scan does not.
    fn entries_at(&self, place: &[u8]) -> Result<Vec<Entry>, StorageError> {
        let raw = self.engine().get_raw(place)?;
        let above = raw.row_deleted.map(|version| {
            let place = keycode::row_prefix(place);
            Cell { place, version, content: Content::RowDeleted }
        });
        let newest = raw.visible().map(|newest| {
            let content = newest.value.as_deref().map_or(Content::Deleted, Content::Value);
            Cell { place, version: newest.version, content }
        });
        above.into_iter().chain(newest).map(entry_of).collect()
    }

    fn notes(&self, prefix: &[u8], start: &[u8], bytes_max: usize) -> Result<Found, StorageError> {
        let mut notes: Vec<(Payload, Payload)> = Vec::new();
        let (mut bytes, mut is_more, mut outcome) = (0_usize, false, Ok(()));
        let end = after_prefix(prefix);
        self.engine().scan(start.max(prefix), end.as_deref(), &mut |place, content, _| {
            is_more = !notes.is_empty() && bytes.saturating_add(content.len()) > bytes_max;
            if is_more {
                return ControlFlow::Break(());
            }
            bytes = bytes.saturating_add(place.len() + content.len());
            match payload(place).and_then(|place| Ok((place, payload(content)?))) {
                Ok(note) => notes.push(note),
                Err(error) => {
                    outcome = Err(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        outcome?;
        Ok(Found::Notes { notes, is_more })
    }

    /// Reads a page of a partition for its leaves. The tombstone of a row and the cell at the same
    /// place stay together.
    fn leaves(
        &self,
        partition: Partition,
        floor: Stamp,
        start: &[u8],
        bytes_max: usize,
    ) -> Result<LeavesPage, StorageError> {
        let mut hashes = vec![0; usize::from(merkle::LEAF_COUNT)];
        let prefix = placement::prefix(partition);
        let end = after_prefix(&prefix);
        let (mut bytes, mut last, mut next) = (0_usize, Vec::new(), None);
        let mut tombstone = Stamp::ZERO;
        let (start, passed_bytes_max) =
            (start.max(&prefix), bytes_max.saturating_mul(PASSED_PER_WANTED));
        let visit = &mut |cell: Cell<'_>| {
            if bytes >= bytes_max && last != cell.place {
                next = Some(payload(cell.place));
                return ControlFlow::Break(());
            }
            let value = if let Content::Value(value) = cell.content { value.len() } else { 0 };
            bytes = bytes.saturating_add(cell.place.len() + value + 1);
            last.clear();
            last.extend_from_slice(cell.place);
            let stamp = Stamp::from_version(cell.version);
            let is_tombstone = !matches!(cell.content, Content::Value(_));
            let is_row = cell.content == Content::RowDeleted;
            if is_tombstone {
                tombstone = stamp.max(tombstone);
            }
            if !(is_tombstone && stamp <= floor)
                && let Some(leaf) = hashes.get_mut(usize::from(merkle::leaf_of(cell.place)))
            {
                *leaf ^= merkle::entry_hash(cell.place, is_row, stamp, is_tombstone);
            }
            ControlFlow::Continue(())
        };
        let passed = self.engine().scan_raw_some(start, end.as_deref(), passed_bytes_max, visit)?;
        let next = next.or_else(|| passed.next.map(|place| payload(&place)));
        Ok(LeavesPage { leaves: hashes, next: next.transpose()?, tombstone })
    }
}

/// What a [`Found::Leaves`] is made of.
struct LeavesPage {
    leaves: Vec<u64>,
    next: Option<Payload>,
    tombstone: Stamp,
}

/// The entries of a chunk so far.
struct Growing {
    limit: Limit,
    entries: Vec<Entry>,
    /// Of those in the range; a row's tombstone that lies before it does not count.
    count: usize,
    bytes: usize,
    covered: Option<Payload>,
}

impl Growing {
    fn new(limit: Limit) -> Self {
        Self { limit, entries: Vec::new(), count: 0, bytes: 0, covered: None }
    }

    /// Takes the tombstone of the row in which the range begins.
    fn above(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push(entry);
    }

    /// Takes the next entry of the range, or closes the chunk before it. The tombstone of a row
    /// and the cell at the same place stay together.
    fn take(&mut self, cell: Cell<'_>) -> Result<ControlFlow<()>, StorageError> {
        let is_full = self.count >= self.limit.count || self.bytes >= self.limit.bytes;
        let last = self.entries.last().map(|entry| entry.place.as_bytes());
        if is_full && self.count > 0 && last != Some(cell.place) {
            self.covered = Some(payload(cell.place)?);
            return Ok(ControlFlow::Break(()));
        }
        let entry = entry_of(cell)?;
        self.count += 1;
        self.bytes += entry.bytes();
        self.entries.push(entry);
        Ok(ControlFlow::Continue(()))
    }
}

/// Tells which rows are wanted, looking at each only once.
struct Rows<'l> {
    /// `None`: all of them.
    leaves: Option<&'l [u16]>,
    row: Vec<u8>,
    is_wanted: bool,
}

impl Rows<'_> {
    fn is_wanted(&mut self, place: &[u8]) -> bool {
        let Some(leaves) = self.leaves else { return true };
        let is_known = self.row.len() > PREFIX_BYTES && place.starts_with(&self.row);
        if !is_known {
            self.row.clear();
            self.row.extend_from_slice(keycode::row_prefix(place));
            self.is_wanted = leaves.contains(&merkle::leaf_of(place));
        }
        self.is_wanted
    }
}

/// Returns the first place after all that begin with `prefix`; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

fn entry_of(cell: Cell<'_>) -> Result<Entry, StorageError> {
    let written = match cell.content {
        Content::Value(value) => Written::Value(payload(value)?),
        Content::Deleted => Written::Deleted,
        Content::RowDeleted => Written::RowDeleted,
    };
    let stamp = Stamp::from_version(cell.version);
    Ok(Entry { place: payload(cell.place)?, stamp, written })
}

fn payload(bytes: &[u8]) -> Result<Payload, StorageError> {
    let too_large = |error: TooLarge| unreadable(&DecodeError::TooLarge(error.what));
    Payload::new(bytes.to_vec()).map_err(too_large)
}
