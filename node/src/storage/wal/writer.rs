//! The writing side: append, write, sync, and the life of the segments.

use std::collections::VecDeque;

use super::chunk::{Chunk, Fields};
use super::examine::Segment;
use super::record::{HEADER_BYTES, Role};
use super::segment::{self, Fill, Filled, Spare, never_retry};
use super::{Options, Record, Sequence, StorageError};
use crate::env::{Disk, DiskError, File};
use crate::storage::let_others_run;
use crate::{planted, probe};

/// Appends to a log. See the [module](super) for the order of calls.
///
/// Its futures are not to be dropped before they are done: a write that nobody waits for any more
/// leaves the writer without its buffer. The one task that owns the writer ends with the node.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    disk: D,
    dir: String,
    segment_bytes: u64,
    preamble: Vec<Record>,
    /// The file of the newest segment in `segments`.
    active: D::File,
    segments: VecDeque<Segment>,
    /// The next segment, unless a step towards it is taken just now.
    spare: Option<Spare<D::File>>,
    is_spare_taken: bool,
    /// Every write is synced at once.
    expects_syncs: bool,
    /// There may be critical records.
    has_critical: bool,
    /// Chunks that end their segments, waiting to be written before `open`.
    full: VecDeque<Chunk>,
    /// The chunk that takes the next record.
    open: Chunk,
    next: Sequence,
    written: Sequence,
    durable: Sequence,
    /// The highest durable sequence that any encoded record tells of.
    told: Sequence,
    /// As `told`, of what was handed to the disk.
    told_written: Sequence,
    /// As `told`, of what survives a power loss.
    told_durable: Sequence,
    poison: Option<StorageError>,
}

/// Where a [`Writer`] starts.
pub(super) struct Start<D: Disk> {
    pub(super) disk: D,
    pub(super) dir: String,
    pub(super) options: Options,
    pub(super) active: D::File,
    pub(super) segments: Vec<Segment>,
    pub(super) open: Chunk,
    pub(super) next: Sequence,
}

impl<D: Disk> Writer<D> {
    /// Continues a log in which everything before `start.next` is durable.
    pub(super) fn new(start: Start<D>) -> Self {
        let last = start.next.saturating_sub(1);
        let active = start.segments.last().map(|segment| segment.first);
        assert!(active == Some(start.open.segment), "{active:?} is not {}", start.open.segment);
        Self {
            disk: start.disk,
            dir: start.dir,
            segment_bytes: start.options.segment_bytes,
            preamble: Vec::new(),
            active: start.active,
            segments: start.segments.into(),
            spare: None,
            is_spare_taken: false,
            expects_syncs: false,
            has_critical: true,
            full: VecDeque::new(),
            open: start.open,
            next: start.next,
            written: last,
            durable: last,
            told: last,
            told_written: last,
            told_durable: last,
            poison: None,
        }
    }

    /// Tells that every [`write`](Self::write) will be followed by a [`sync`](Self::sync) at once.
    pub fn expect_syncs(&mut self) {
        self.expects_syncs = true;
        self.active.expect_syncs();
    }

    /// Tells that no record of this log is critical. So a segment of which something is lost goes
    /// like any other, by its tags: no vote can be among it.
    pub fn expect_no_critical(&mut self) {
        self.has_critical = false;
    }

    /// Returns the last sequence that was handed to the disk.
    pub fn written(&self) -> Sequence {
        self.written
    }

    /// Returns the last sequence that survives a power loss, with all before it.
    pub fn durable(&self) -> Sequence {
        self.durable
    }

    /// Returns the sequence that the next record gets.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// Returns how many bytes wait for [`write`](Self::write).
    pub fn buffered_bytes(&self) -> usize {
        self.full.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() + self.open.bytes.len()
    }

    /// Returns the bytes that the live segments hold, without their unused ends.
    pub fn wal_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.used_bytes).sum()
    }

    /// Returns how many segments there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Sets the records that every new segment begins with, in place of those set before.
    ///
    /// They must say everything that critical records have said so far, so that all segments
    /// before may go. To be called before the first append, and with every critical append.
    pub fn set_preamble(&mut self, records: Vec<Record>) {
        self.preamble = records;
    }

    /// Buffers a record, its payload appended to the given buffer by `payload`; returns its
    /// sequence. No I/O.
    ///
    /// The payload must stay within [`RECORD_BYTES_MAX`](super::RECORD_BYTES_MAX).
    pub fn append(&mut self, kind: u8, tag: u64, payload: impl FnOnce(&mut Vec<u8>)) -> Sequence {
        let mut start = self.open.open_record();
        payload(&mut self.open.bytes);
        if self.open.is_over_capacity() && !self.open.fresh {
            start = self.move_to_next_segment(start);
        }
        let fields = self.fields(kind, tag, Role::Single);
        self.open.close_record(start, fields);
        self.open.fresh = false;
        fields.sequence
    }

    /// Buffers a record that must survive a rotten sector: twice in a row, in different sectors.
    ///
    /// Returns the second copy's sequence; the first has the one before. Recovery returns both.
    pub fn append_critical(
        &mut self,
        kind: u8,
        tag: u64,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Sequence {
        assert!(self.has_critical, "a critical record of kind {kind} in a log that has none");
        let mut encoded = Vec::new();
        payload(&mut encoded);
        let copy = segment::to_u64(encoded.len() + HEADER_BYTES);
        let both = 2 * (copy + segment::apart_bytes(self.open.capacity));
        if self.open.end() + both > self.open.capacity && !self.open.fresh {
            self.begin_next_segment();
        }
        self.open.fresh = false;
        self.push_critical(kind, tag, &encoded)
    }

    fn push_critical(&mut self, kind: u8, tag: u64, payload: &[u8]) -> Sequence {
        let first = self.fields(kind, tag, Role::First);
        self.open.push(first, payload);
        let second = self.fields(kind, tag, Role::Second);
        self.open.push(second, payload);
        second.sequence
    }

    /// Takes the next sequence.
    fn fields(&mut self, kind: u8, tag: u64, role: Role) -> Fields {
        let sequence = self.next;
        self.next += 1;
        self.told = self.durable;
        Fields { kind, role, sequence, tag, durable: self.durable }
    }

    /// Takes the record that was opened at `start` along to a new segment; returns its new start.
    fn move_to_next_segment(&mut self, start: usize) -> usize {
        let record = self.open.bytes.split_off(start);
        self.begin_next_segment();
        let start = self.open.bytes.len();
        self.open.bytes.extend_from_slice(&record);
        start
    }

    /// Closes the open chunk and begins one for a new segment, with its preamble.
    fn begin_next_segment(&mut self) {
        assert!(self.next > self.open.segment, "segment {} begins twice", self.next);
        let bytes = segment::next_size(self.open.capacity, self.segment_bytes);
        let next = Chunk::begin(self.next, bytes);
        let mut full = std::mem::replace(&mut self.open, next);
        full.pad_to_sector();
        self.full.push_back(full);
        let preamble = std::mem::take(&mut self.preamble);
        for Record { kind, tag, payload } in &preamble {
            let last = self.push_critical(*kind, *tag, payload);
            self.open.preamble_last = Some(last);
        }
        self.preamble = preamble;
    }

    /// Hands everything buffered to the disk; one write, unless a segment ends.
    ///
    /// # Errors
    /// `NoSpace` ([`StorageError::is_no_space`]): what is not written stays buffered, at its
    /// place; call again later. Any other error is final.
    pub async fn write(&mut self) -> Result<(), StorageError> {
        self.check()?;
        while let Some(mut chunk) = self.full.pop_front() {
            let result = self.write_chunk(&mut chunk).await;
            if result.is_err() {
                self.full.push_front(chunk);
                return self.remember(result);
            }
        }
        // The next batch begins with a sector of its own: no write touches a sector that holds
        // durable bytes.
        let mut open = std::mem::take(&mut self.open);
        open.pad_to_sector();
        let result = self.write_chunk(&mut open).await;
        self.open = open;
        if result.is_ok() {
            self.told_written = self.told;
        }
        self.remember(result)
    }

    async fn write_chunk(&mut self, chunk: &mut Chunk) -> Result<(), StorageError> {
        if chunk.bytes.is_empty() {
            return Ok(());
        }
        if self.segments.back().is_none_or(|active| active.first != chunk.segment) {
            self.rotate(chunk.segment, chunk.capacity).await?;
        }
        self.active.write_at(chunk.offset, &chunk.bytes).await?;
        self.note_written(chunk);
        Ok(())
    }

    /// Takes note that a chunk is in the active segment.
    fn note_written(&mut self, chunk: &mut Chunk) {
        chunk.advance();
        assert!(chunk.last >= self.written, "{} written after {}", chunk.last, self.written);
        self.written = chunk.last;
        if let Some(active) = self.segments.back_mut() {
            active.used_bytes = chunk.offset;
            active.tag_max = active.tag_max.max(chunk.tag_max);
            active.critical |= chunk.critical;
            active.preamble_last = chunk.preamble_last;
        }
    }

    /// Does [`write`](Self::write) and [`sync`](Self::sync) with one way to the disk, for a caller
    /// whose thread has other work until then; where a segment ends, one after the other.
    ///
    /// # Errors
    /// As of [`write`](Self::write), after which it may be called again, and of
    /// [`sync`](Self::sync).
    pub async fn write_and_sync_aside(&mut self) -> Result<(), StorageError> {
        self.check()?;
        if self.needs_next_segment() || self.open.bytes.is_empty() {
            self.write().await?;
            return self.sync().await;
        }
        let mut open = std::mem::take(&mut self.open);
        open.pad_to_sector();
        let bytes = std::mem::take(&mut open.bytes);
        let done = self.active.write_and_sync_aside(open.offset, bytes).await;
        open.bytes = done.bytes;
        let written = done.written.map_err(StorageError::from);
        if written.is_ok() {
            self.note_written(&mut open);
            self.told_written = self.told;
        }
        self.open = open;
        self.remember(written)?;
        let synced = self.note_synced(done.synced, self.told_written, self.written);
        self.remember(synced)
    }

    /// Tells whether the next [`write`](Self::write) ends the active segment, so that
    /// [`take_fill`](Self::take_fill) must have been given back.
    pub fn needs_next_segment(&self) -> bool {
        let active = self.segments.back().map(|segment| segment.first);
        !self.full.is_empty() || !self.open.bytes.is_empty() && active != Some(self.open.segment)
    }

    /// Makes the spare the active segment, which begins with the sequence `first` and has `bytes`.
    ///
    /// Before the name exists, everything before it is durable: the name is evidence of that.
    async fn rotate(&mut self, first: Sequence, bytes: u64) -> Result<(), StorageError> {
        self.sync_active().await?;
        assert!(self.durable + 1 == first, "{first} begins a segment, durable {}", self.durable);
        while !self.spare.as_ref().is_some_and(Spare::is_ready) {
            probe!("wal.waits_for_next_segment");
            let fill = self.begin_fill((bytes, segment::FILL_STEP_BYTES_MAX));
            self.end_fill(fill.carry_out().await)?;
        }
        let (from, to) = (segment::spare_path(&self.dir), segment::path(&self.dir, first));
        self.disk.rename(&from, &to).await?;
        if !planted!("W4") {
            self.disk.sync_dir(&self.dir).await.map_err(never_retry)?;
        }
        if let Some(spare) = self.spare.take() {
            self.active = spare.into_file();
        }
        self.told_durable = self.durable;
        self.segments.push_back(Segment {
            first,
            used_bytes: 0,
            tag_max: 0,
            critical: false,
            preamble_last: None,
        });
        Ok(())
    }

    /// Makes the next segment a little readier than the active one is full: takes the steps of
    /// [`take_fill`](Self::take_fill), one after the other.
    ///
    /// # Errors
    /// As of [`give_back`](Self::give_back).
    pub async fn prepare(&mut self) -> Result<(), StorageError> {
        while let Some(fill) = self.take_fill() {
            let_others_run().await;
            let had_space = self.give_back(fill.carry_out().await)?;
            if !had_space {
                break;
            }
        }
        Ok(())
    }

    /// Returns the step that makes the next segment a little readier than the active one is full,
    /// if one is due. It is to be [carried out](Fill::carry_out) and [given
    /// back](Self::give_back), and there is no other until then.
    ///
    /// To be asked for after every [`sync`](Self::sync), once those who wait for it have been told.
    /// It does as much as the batches have asked for, or large ones would get ahead of the zeros,
    /// and one of them would wait for a whole segment of these.
    pub fn take_fill(&mut self) -> Option<Fill<D>> {
        if self.is_spare_taken || self.poison.is_some() {
            return None;
        }
        let due = self.zeros_due()?;
        Some(self.begin_fill(due))
    }

    fn begin_fill(&mut self, due: (u64, u64)) -> Fill<D> {
        assert!(!self.is_spare_taken, "two steps towards the segment after {:?}", self.open);
        self.is_spare_taken = true;
        Fill::new((&self.disk, &self.dir, self.expects_syncs), due, self.spare.take())
    }

    /// Takes back a step that was carried out; tells whether there was space for it.
    ///
    /// # Errors
    /// Final; a full disk is none, because the segment is not needed yet.
    pub fn give_back(&mut self, filled: Filled<D>) -> Result<bool, StorageError> {
        match self.end_fill(filled) {
            Err(error) if error.is_no_space() => {
                probe!("wal.has_no_space_for_next_segment");
                Ok(false)
            }
            result => self.remember(result).map(|()| true),
        }
    }

    fn end_fill(&mut self, filled: Filled<D>) -> Result<(), StorageError> {
        assert!(self.is_spare_taken, "a step towards the next segment that nobody has taken");
        self.is_spare_taken = false;
        self.spare = filled.spare;
        filled.result
    }

    /// Returns the size of the next segment and how many zeros it should have and has not yet.
    fn zeros_due(&self) -> Option<(u64, u64)> {
        let (filled, target) = self.spare.as_ref().map_or_else(
            || (0, segment::next_size(self.open.capacity, self.segment_bytes)),
            Spare::progress,
        );
        // Ready when the active one is eight ninths full: evenly, so that no phase is slower.
        let due = 9 * u128::from(self.open.end()) * u128::from(target)
            / (8 * u128::from(self.open.capacity.max(1)));
        let due = u64::try_from(due).unwrap_or(target).min(target);
        due.checked_sub(filled).filter(|step| *step > 0).map(|step| (target, step))
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// Final: what was written is in an unknown state for ever, and so is the writer. It is never
    /// tried again. [Fsync '20]
    pub async fn sync(&mut self) -> Result<(), StorageError> {
        self.check()?;
        let result = self.sync_active().await;
        self.remember(result)
    }

    async fn sync_active(&mut self) -> Result<(), StorageError> {
        let through = self.written;
        if through > self.durable { self.sync_file(through).await } else { Ok(()) }
    }

    /// Syncs the active segment, after which everything up to `through` is durable.
    async fn sync_file(&mut self, through: Sequence) -> Result<(), StorageError> {
        let told = self.told_written;
        let result = self.active.sync().await;
        self.note_synced(result, told, through)
    }

    /// Takes note of how a sync ended that covers everything up to `through`, and records that
    /// tell of everything up to `told`.
    fn note_synced(
        &mut self,
        result: Result<(), DiskError>,
        told: Sequence,
        through: Sequence,
    ) -> Result<(), StorageError> {
        let result = result.map_err(never_retry);
        if !planted!("W2") {
            result?;
        }
        self.told_durable = told;
        self.durable = through;
        Ok(())
    }

    /// Tells the disk what is durable, if no record does yet. For idle moments after a sync.
    ///
    /// A small write that need not be synced. Once it reaches the disk, damage in the last batch
    /// is known to be rot and not an unfinished write.
    ///
    /// # Errors
    /// As of [`write`](Self::write), but a full disk is none: then there is no mark.
    pub async fn mark(&mut self) -> Result<(), StorageError> {
        self.check()?;
        if self.buffered_bytes() > 0 || self.told == self.durable {
            return Ok(());
        }
        let sequence = self.open.last;
        let mark = Fields { kind: 0, role: Role::Mark, sequence, tag: 0, durable: self.durable };
        // What it is a witness of must not go bad together with it.
        self.open.move_apart();
        // In a full segment the mark goes behind its end, for the last batch must have a witness
        // however long the next one is in coming.
        self.open.push(mark, &[]);
        self.told = self.durable;
        match self.write().await {
            Err(error) if error.is_no_space() => {
                // It is taken back: behind the end of its segment it would keep the next record
                // from a new one that needs no space any more.
                probe!("wal.takes_a_mark_back");
                self.open.bytes.clear();
                self.told = self.told_written;
                Ok(())
            }
            result => result,
        }
    }

    /// Removes the oldest segments, as long as all their tags are at most `tag`.
    ///
    /// The active segment stays, and every segment whose critical records have not been said again
    /// by a durable preamble.
    ///
    /// # Errors
    /// The disk refused to remove a file; final unless `NoSpace`.
    pub async fn remove_through(&mut self, tag: u64) -> Result<(), StorageError> {
        self.check()?;
        let result = self.remove_oldest(tag).await;
        self.remember(result)
    }

    async fn remove_oldest(&mut self, tag: u64) -> Result<(), StorageError> {
        let tag = if planted!("W6") { u64::MAX } else { tag };
        if self.segments.len() > 1 && self.told_durable < self.durable {
            self.witness().await?;
        }
        while let Some(oldest) = self.segments.front().filter(|_| self.segments.len() > 1) {
            if !self.is_removable(oldest, tag) {
                break;
            }
            probe!("wal.removes_segment");
            self.disk.remove(&segment::path(&self.dir, oldest.first)).await?;
            // One at a time: if removals were lost in any order, a hole among the segments could
            // be one of them, or a lost segment.
            self.disk.sync_dir(&self.dir).await.map_err(never_retry)?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Makes it known for good what is durable: without that, rot in the newest preamble could be
    /// taken for an unfinished write when no older one is left.
    async fn witness(&mut self) -> Result<(), StorageError> {
        self.mark().await?;
        self.sync_file(self.durable).await
    }

    /// Makes it known for good what is durable, before the process ends as it should: while nobody
    /// runs, nobody scrubs, and the last batch would be without a witness until the next start.
    ///
    /// # Errors
    /// As of [`sync`](Self::sync). A full disk is none: then there is no mark.
    pub async fn close(&mut self) -> Result<(), StorageError> {
        self.check()?;
        if self.told_durable == self.durable {
            return Ok(());
        }
        let result = self.witness().await;
        self.remember(result)
    }

    fn is_removable(&self, oldest: &Segment, tag: u64) -> bool {
        let later = self.segments.iter().skip(1);
        let mut preambles = later.filter_map(|segment| segment.preamble_last);
        let is_said_again = preambles.any(|last| last <= self.told_durable);
        oldest.tag_max <= tag && (!oldest.critical || !self.has_critical || is_said_again)
    }

    fn check(&self) -> Result<(), StorageError> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    /// Remembers an error that no later call may get past.
    fn remember(&mut self, result: Result<(), StorageError>) -> Result<(), StorageError> {
        if let Err(error) = &result
            && !error.is_no_space()
        {
            probe!("wal.is_poisoned");
            self.poison = Some(error.clone());
        }
        result
    }
}
