//! Answers queries of the masterless mode: ranges to be read, round by round, until it is enough.
//!
//! Keys are spread over partitions by their hash, so what lies next to each other in an answer
//! comes from all of them. A [`Plan`] asks each partition for a small chunk and merges: only what
//! lies before the *horizon*, the first place that some partition has not told about yet, is in
//! order for certain. Partitions that run low are asked for more, and for more each time, until
//! the page is full or all is told. The shell carries the ranges to the core and the merged chunks
//! back; the plan itself is a plain value.
//!
//! ```text
//! Plan::new ─▶ ranges ─▶ core: replicas, merge, repair ─▶ on_chunks ─▶ Ask(ranges) … Done(reply)
//! ```
//!
//! A page that is closed early says where the next one starts: at the first item that did not fit,
//! or at the horizon. Nothing lies between the last item and there, so nothing is lost; but the
//! next page may turn out to be empty. A plan that has to pass over many tombstones closes its
//! page early, too, as soon as that is a step forward.
//!
//! # Left out
//! One state over several cells: each round sees what the replicas have at its moment. A bound on
//! time: whoever waits for the answer has one.

use std::collections::BTreeMap;

use super::query::{Cell, Query, QueryReply, Version};
use super::read::{ITEM_OVERHEAD_BYTES, Page, QueryError, place_after, within_prefix};
use crate::base::limits::{MULTI_GET_BYTES_MAX, PAGE_BYTES_MAX, PAGE_COUNT_MAX};
use crate::base::{Column, Entry, Key, Payload, Value, Written};
use crate::codec::keycode;
use crate::dynamo::placement::{self, Placement, place_in};
use crate::dynamo::{Chunk, Partition, READ_RANGES_MAX, Range};
use crate::probe;

/// Bytes of the ranges of one round, which must fit a message; one range more may exceed it.
const RANGES_BYTES_MAX: usize = 1 << 20;

/// Bytes of items that wait for the horizon; what lies furthest behind it is read again later.
const WAITING_BYTES_MAX: usize = 8 * PAGE_BYTES_MAX;

/// Rounds after which a page is closed although it is not full, if it is a step forward.
const ROUNDS_MAX: u32 = 24;

/// What a plan wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These ranges are to be read; the chunks go to [`Plan::on_chunks`].
    Ask(Vec<Range>),
    /// The answer.
    Done(QueryReply),
}

/// A query on its way to its answer; see the [module](self).
#[derive(Debug)]
pub struct Plan {
    work: Work,
    /// What is asked for at the moment.
    asked: Vec<Range>,
}

#[derive(Debug)]
enum Work {
    Cells(Cells),
    Pages(Box<Pages>),
}

impl Plan {
    /// Makes the plan for a query that was [validated](super::validate_query).
    pub fn new(query: &Query, placement: &Placement) -> Self {
        let mut work = match query {
            Query::Get { key, column } => {
                Work::Cells(Cells::new([(key, column)].into_iter(), true, placement))
            }
            Query::MultiGet { cells } => {
                let cells = cells.iter().map(|(key, column)| (key, column));
                Work::Cells(Cells::new(cells, false, placement))
            }
            Query::Slice { .. } | Query::Keys { .. } | Query::Scan { .. } => {
                Work::Pages(Box::new(Pages::new(query, placement)))
            }
        };
        let asked = work.ask();
        Self { work, asked }
    }

    /// Returns the ranges that are asked for at the moment. If there are none, there is nothing
    /// to be read: give no chunks.
    pub fn ranges(&self) -> &[Range] {
        &self.asked
    }

    /// Takes the merged chunks of the ranges that were asked for, in the same order.
    ///
    /// # Errors
    /// The answer is too large.
    ///
    /// # Panics
    /// If there are more or fewer chunks than ranges.
    pub fn on_chunks(&mut self, chunks: Vec<Chunk>) -> Result<Step, QueryError> {
        let asked = std::mem::take(&mut self.asked);
        assert!(chunks.len() == asked.len(), "{} chunks for {asked:?}", chunks.len());
        let done = match &mut self.work {
            Work::Cells(cells) => cells.take(&asked, chunks)?,
            Work::Pages(pages) => pages.take(&asked, chunks),
        };
        if let Some(reply) = done {
            return Ok(Step::Done(reply));
        }
        self.asked = self.work.ask();
        Ok(Step::Ask(self.asked.clone()))
    }
}

impl Work {
    fn ask(&mut self) -> Vec<Range> {
        match self {
            Self::Cells(cells) => cells.ask(),
            Self::Pages(pages) => pages.ask(),
        }
    }
}

/// Returns what a range counts towards [`RANGES_BYTES_MAX`].
fn bytes_of(range: &Range) -> usize {
    range.start.len() + range.end.as_ref().map_or(0, Payload::len) + 16
}

/// Takes ranges until they are enough for one round.
fn one_round(ranges: impl Iterator<Item = Range>) -> Vec<Range> {
    let mut bytes = 0;
    let is_room = |range: &Range| {
        let was_room = bytes < RANGES_BYTES_MAX;
        bytes += bytes_of(range);
        was_room
    };
    ranges.take(READ_RANGES_MAX).take_while(is_room).collect()
}

/// Single cells.
#[derive(Debug)]
struct Cells {
    /// One range for each.
    wanted: Vec<Range>,
    found: Vec<Option<Cell>>,
    /// Positions of those that no chunk has covered, in order.
    open: Vec<usize>,
    bytes: usize,
    is_single: bool,
}

impl Cells {
    fn new<'q>(
        cells: impl Iterator<Item = (&'q Key, &'q Column)>,
        is_single: bool,
        placement: &Placement,
    ) -> Self {
        let range = |(key, column): (&Key, &Column)| {
            let partition = placement.partition_of(key.as_bytes());
            let place = keycode::encode_cell(key.as_bytes(), column.as_bytes());
            let start = place_in(partition, &place);
            let end = Some(place_in(partition, &place_after(key, column)));
            Range { partition, start, end, limit: 1 }
        };
        let wanted: Vec<Range> = cells.map(range).collect();
        let (found, open) = (vec![None; wanted.len()], (0..wanted.len()).collect());
        Self { wanted, found, open, bytes: 0, is_single }
    }

    fn ask(&self) -> Vec<Range> {
        one_round(self.open.iter().filter_map(|position| self.wanted.get(*position)).cloned())
    }

    fn take(
        &mut self,
        asked: &[Range],
        chunks: Vec<Chunk>,
    ) -> Result<Option<QueryReply>, QueryError> {
        let rest = self.open.split_off(asked.len().min(self.open.len()));
        let answered = std::mem::take(&mut self.open);
        for ((position, range), chunk) in answered.into_iter().zip(asked).zip(chunks) {
            if chunk.covered.is_some_and(|covered| covered <= range.start) {
                self.open.push(position);
                continue;
            }
            let entry = chunk.entries.iter().find(|e| e.place == range.start && !e.is_tombstone());
            let cell = entry.and_then(cell_of);
            self.bytes += ITEM_OVERHEAD_BYTES + cell.as_ref().map_or(0, |cell| cell.value.len());
            if self.bytes > MULTI_GET_BYTES_MAX && !self.is_single {
                return Err(QueryError::AnswerTooLarge { bytes_max: MULTI_GET_BYTES_MAX });
            }
            if let Some(found) = self.found.get_mut(position) {
                *found = cell;
            }
        }
        self.open.extend(rest);
        if !self.open.is_empty() {
            return Ok(None);
        }
        let found = std::mem::take(&mut self.found);
        Ok(Some(if self.is_single {
            QueryReply::Cell(found.into_iter().next().flatten())
        } else {
            QueryReply::Cells(found)
        }))
    }
}

/// Returns the cell of an entry; `None` if it has no value, or an impossible one.
fn cell_of(entry: &Entry) -> Option<Cell> {
    let Written::Value(value) = &entry.written else { return None };
    let value = Value::new(value.clone().into_bytes()).ok()?;
    Some(Cell { value, version: Version(entry.stamp.version()) })
}

/// A page of a sequence that is spread over partitions. Places here are without their partition.
#[derive(Debug)]
struct Pages {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    parts: Vec<Part>,
    /// What was told and is not in the page, by place.
    waiting: BTreeMap<Vec<u8>, Waiting>,
    waiting_bytes: usize,
    page: Items,
    /// Positions in `parts` of those that are asked.
    asked: Vec<usize>,
    /// Entries to ask each of them for.
    chunk_count: u32,
    round: u32,
}

/// What is known of a partition.
#[derive(Debug)]
struct Part {
    partition: Partition,
    /// Everything before this place was told; `None`: everything.
    covered: Option<Vec<u8>>,
    waiting_count: u32,
}

/// An item that waits for the horizon.
#[derive(Debug)]
struct Waiting {
    part: usize,
    bytes: usize,
    key: Key,
    column: Column,
    /// Not for keys, which are all that is wanted then.
    cell: Option<Cell>,
}

/// The items of the page.
#[derive(Debug)]
enum Items {
    Columns(Page<(Column, Cell)>),
    Keys(Page<Key>),
    Cells(Page<(Key, Column, Cell)>),
}

impl Items {
    fn is_full(&self) -> bool {
        match self {
            Self::Columns(page) => page.is_full(),
            Self::Keys(page) => page.is_full(),
            Self::Cells(page) => page.is_full(),
        }
    }

    fn push(&mut self, item: Waiting) {
        let Waiting { key, column, cell, .. } = item;
        let (key_bytes, column_bytes) = (key.len(), column.len());
        match (self, cell) {
            (Self::Keys(page), _) => page.push(key, key_bytes),
            (Self::Columns(page), Some(cell)) => {
                let bytes = column_bytes + cell.value.len();
                page.push((column, cell), bytes);
            }
            (Self::Cells(page), Some(cell)) => {
                let bytes = key_bytes + column_bytes + cell.value.len();
                page.push((key, column, cell), bytes);
            }
            (Self::Columns(_) | Self::Cells(_), None) => {}
        }
    }

    fn close(&mut self, next: Option<(Key, Column)>) -> QueryReply {
        match self {
            Self::Columns(page) => {
                let columns = std::mem::take(&mut page.items);
                QueryReply::Columns { columns, next: next.map(|(_, column)| column) }
            }
            Self::Keys(page) => {
                let keys = std::mem::take(&mut page.items);
                QueryReply::Keys { keys, next: next.map(|(key, _)| key) }
            }
            Self::Cells(page) => {
                QueryReply::Scanned { cells: std::mem::take(&mut page.items), next }
            }
        }
    }
}

impl Pages {
    fn new(query: &Query, placement: &Placement) -> Self {
        let everywhere = 0..placement.partition_count();
        let (start, end, partitions, page, limit) = match query {
            Query::Slice { key, start, stop, limit } => {
                let first = start.as_ref().map_or(&[][..], Column::as_bytes);
                let end = match stop {
                    Some(stop) => place_after(key, stop),
                    None => keycode::encode_key_end(key.as_bytes()),
                };
                let partition = placement.partition_of(key.as_bytes());
                let start = keycode::encode_cell(key.as_bytes(), first);
                let page = Items::Columns(Page::new(*limit));
                (start, Some(end), partition..partition + 1, page, *limit)
            }
            Query::Keys { start, stop, prefix, limit } => {
                let start = start.as_ref().map(|key| keycode::encode_key(key.as_bytes()));
                let stop = stop.as_ref().map(|key| keycode::encode_key_end(key.as_bytes()));
                let (start, end) = within_prefix(prefix, start, stop);
                (start, end, everywhere, Items::Keys(Page::new(*limit)), *limit)
            }
            Query::Scan { start, prefix, limit } => {
                let start = start
                    .as_ref()
                    .map(|(key, column)| keycode::encode_cell(key.as_bytes(), column.as_bytes()));
                let (start, end) = within_prefix(prefix, start, None);
                (start, end, everywhere, Items::Cells(Page::new(*limit)), *limit)
            }
            Query::Get { .. } | Query::MultiGet { .. } => {
                unreachable!("{query:?} has no pages")
            }
        };
        let is_empty = end.as_ref().is_some_and(|end| *end <= start);
        let covered = (!is_empty).then(|| start.clone());
        let part = |partition| Part { partition, covered: covered.clone(), waiting_count: 0 };
        let parts: Vec<Part> = partitions.map(part).collect();
        let chunk_count = first_chunk_count(limit, parts.len());
        let (waiting, waiting_bytes, asked, round) = (BTreeMap::new(), 0, Vec::new(), 0);
        Self { start, end, parts, waiting, waiting_bytes, page, asked, chunk_count, round }
    }

    /// Chooses the partitions that are low, those at the horizon first.
    fn ask(&mut self) -> Vec<Range> {
        let low_count = self.chunk_count / 4;
        let is_low = |part: &Part| part.covered.is_some() && part.waiting_count <= low_count;
        let horizon = self.horizon().cloned();
        let parts = self.parts.iter().enumerate();
        let mut chosen: Vec<(usize, &Part)> =
            parts.filter(|(_, part)| is_low(part) || part.covered == horizon).collect();
        chosen.sort_by(|(_, a), (_, b)| a.covered.cmp(&b.covered));
        let range = |(_, part): &(usize, &Part)| {
            let start = part.covered.as_deref().unwrap_or_default();
            Range {
                partition: part.partition,
                start: place_in(part.partition, start),
                end: self.end.as_deref().map(|end| place_in(part.partition, end)),
                limit: self.chunk_count,
            }
        };
        chosen.retain(|(_, part)| part.covered.is_some());
        let ranges = one_round(chosen.iter().map(range));
        self.asked = chosen.iter().map(|(position, _)| *position).take(ranges.len()).collect();
        let count_max = u32::try_from(PAGE_COUNT_MAX).unwrap_or(u32::MAX);
        self.chunk_count = self.chunk_count.saturating_mul(2).min(count_max);
        self.round = self.round.saturating_add(1);
        ranges
    }

    /// Returns the first place that some partition has not told about; `None` if there is none.
    fn horizon(&self) -> Option<&Vec<u8>> {
        self.parts.iter().filter_map(|part| part.covered.as_ref()).min()
    }

    fn take(&mut self, asked: &[Range], chunks: Vec<Chunk>) -> Option<QueryReply> {
        let positions = std::mem::take(&mut self.asked);
        for ((position, range), chunk) in positions.into_iter().zip(asked).zip(chunks) {
            self.take_chunk(position, range, chunk);
        }
        self.forget_furthest();
        let horizon = self.horizon().cloned();
        while let Some(first) = self.waiting.first_entry()
            && horizon.as_ref().is_none_or(|horizon| first.key() < horizon)
        {
            if self.page.is_full() {
                let next = (first.get().key.clone(), first.get().column.clone());
                return Some(self.page.close(Some(next)));
            }
            let item = first.remove();
            self.let_go(&item);
            self.page.push(item);
        }
        let Some(horizon) = horizon else { return Some(self.page.close(None)) };
        let is_enough = self.page.is_full() || self.round >= ROUNDS_MAX;
        if !is_enough {
            return None;
        }
        // A place between rows, where a row was left early, is none to start from.
        let (key, column) = keycode::decode_place(&horizon).ok()?;
        let next_start = match self.page {
            Items::Keys(_) => keycode::encode_key(key.as_bytes()),
            Items::Columns(_) | Items::Cells(_) => horizon,
        };
        if next_start <= self.start {
            probe!("plan.tombstones_hold_a_page_open");
            return None;
        }
        probe!("plan.page_ends_at_the_horizon");
        Some(self.page.close(Some((key, column))))
    }

    /// Takes what a partition has told.
    fn take_chunk(&mut self, position: usize, range: &Range, chunk: Chunk) {
        let is_keys = matches!(self.page, Items::Keys(_));
        let covered = chunk.covered;
        let is_told = |place: &Payload| {
            *place >= range.start
                && range.end.as_ref().is_none_or(|end| place < end)
                && covered.as_ref().is_none_or(|covered| place < covered)
        };
        let mut last_key: Option<Key> = None;
        for entry in chunk.entries.iter().filter(|entry| is_told(&entry.place)) {
            let place = placement::without_prefix(entry.place.as_bytes());
            let decoded = keycode::decode_place(place).ok().zip(cell_of(entry));
            let Some(((key, column), cell)) = decoded else { continue };
            if is_keys && last_key.as_ref() == Some(&key) {
                continue;
            }
            last_key = Some(key.clone());
            let cell = (!is_keys).then_some(cell);
            let value_bytes = cell.as_ref().map_or(0, |cell| cell.value.len());
            let bytes = ITEM_OVERHEAD_BYTES + 2 * place.len() + value_bytes;
            let item = Waiting { part: position, bytes, key, column, cell };
            self.put(place.to_vec(), item);
        }
        let mut covered =
            covered.map(|covered| placement::without_prefix(covered.as_bytes()).to_vec());
        if is_keys && let (Some(place), Some(key)) = (&covered, &last_key) {
            // The rest of a row whose key is known is not needed.
            let row = keycode::encode_key(key.as_bytes());
            if place.starts_with(&row) {
                covered = Some(keycode::encode_key_end(key.as_bytes()));
            }
        }
        covered.take_if(|place| self.end.as_ref().is_some_and(|end| *place >= *end));
        if let Some(part) = self.parts.get_mut(position) {
            // Never back, whatever a replica says.
            part.covered = covered.map(|place| place.max(part.covered.take().unwrap_or_default()));
        }
    }

    fn put(&mut self, place: Vec<u8>, item: Waiting) {
        self.waiting_bytes += item.bytes;
        if let Some(part) = self.parts.get_mut(item.part) {
            part.waiting_count += 1;
        }
        if let Some(before) = self.waiting.insert(place, item) {
            self.let_go(&before);
        }
    }

    fn let_go(&mut self, item: &Waiting) {
        self.waiting_bytes -= item.bytes;
        if let Some(part) = self.parts.get_mut(item.part) {
            part.waiting_count -= 1;
        }
    }

    /// Lets go of what lies furthest behind the horizon if it takes too much memory.
    fn forget_furthest(&mut self) {
        while self.waiting_bytes > WAITING_BYTES_MAX && self.waiting.len() > 1 {
            let Some((place, item)) = self.waiting.pop_last() else { return };
            probe!("plan.item_is_forgotten");
            self.let_go(&item);
            if let Some(part) = self.parts.get_mut(item.part) {
                part.covered = Some(place);
            }
        }
    }
}

/// Returns how many entries to ask each partition for at first: about as many as the one that has
/// most of a page has of it, if keys are spread evenly, so that one round is mostly enough.
fn first_chunk_count(limit: u32, part_count: usize) -> u32 {
    let count_max = u32::try_from(PAGE_COUNT_MAX).unwrap_or(u32::MAX);
    let limit = limit.min(count_max);
    if part_count <= 1 {
        return limit.saturating_add(1);
    }
    let mean = limit / u32::try_from(part_count).unwrap_or(u32::MAX);
    mean + 4 * mean.isqrt() + 2
}
