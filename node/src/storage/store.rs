//! The cells in memory, and the checkpoint that is taken of them while writes go on.
//!
//! Taking a checkpoint walks the memtable from the first place to the last, a chunk at a time,
//! and must write the state as it was at the *freeze*, although writes come between the chunks.
//! Every cell carries its version, and versions are log indexes, so what came after the freeze is
//! recognised by its version and left out; and a write that replaces or removes an older cell
//! which the walk has not *passed* yet moves that cell aside, where the walk finds it. Nothing is
//! copied for it, and what is moved is at most what was overwritten meanwhile.
//!
//! ```text
//! places:    a    b    c    d    e    f        freeze at index 9
//! cells:     3    8   12    5    ·    7        12 came after the freeze: left out
//! aside:                2         6            c and e as they were at the freeze
//!                 └─ passed: a, b are in the file; a write there moves nothing aside
//! ```
//!
//! # Invariants
//! 1. What lies aside is after `passed`, and was written no later than the freeze.
//! 2. A place has at most one cell no newer than the freeze, in the memtable or aside.

use std::cmp::Ordering;
use std::mem;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::checkpoint::format::{self, BlockKind, Encoder, Footer};
use super::engine::{
    Change, CheckpointChunk, CheckpointEngine, Engine, SnapshotPoint, Stored, Visitor,
};
use super::error::StorageError;
use super::memtable::{Memtable, PackedCell};
use crate::planted;

/// Cells that one chunk looks at: bounds its work where it leaves most of them out.
const VISITED_MAX: usize = 10_000;

/// Bytes after which a block is closed. A constant, so that the file's bytes depend on the state
/// alone, and a snapshot begun by one node can be continued by another.
const BLOCK_BYTES: usize = 64 << 10;

/// An [`Engine`] that keeps all cells in memory; see the [module](self).
#[derive(Debug, Default)]
pub struct Store {
    cells: Memtable,
    applied: SnapshotPoint,
    freeze: Option<Freeze>,
}

/// A checkpoint under way.
#[derive(Debug)]
struct Freeze {
    /// The state it is of.
    point: SnapshotPoint,
    /// How far it is.
    stage: Stage,
    /// Last place that the walk is done with.
    passed: Option<Vec<u8>>,
    /// Cells of the frozen state that were replaced or removed before the walk got there.
    aside: Memtable,
    /// Cells that are in the file or in `body`.
    cell_count: u64,
    /// The block that is being filled.
    body: Vec<u8>,
    /// What goes into the file after the cells.
    extra: Vec<u8>,
    /// Writes the format.
    encoder: Encoder,
}

/// How far a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nothing is written.
    Start,
    /// The walk has cells before it.
    Cells,
    /// All cells are in the file, and so many bytes of the extra.
    Extra(usize),
    /// Only the footer is missing.
    Footer,
}

impl Store {
    /// Makes a store of cells that stand for the state at `applied`.
    pub fn restore(cells: Memtable, applied: SnapshotPoint) -> Self {
        Self { cells, applied, freeze: None }
    }

    /// Removes the cells of a row that are older than `version`.
    fn remove_row(&mut self, row: &[u8], version: u64) {
        let cells = self.cells.range(Bound::Included(row), None);
        let cells = cells.take_while(|cell| cell.place().starts_with(row));
        let older = cells.filter(|cell| cell.version() < version);
        let places: Vec<Vec<u8>> = older.map(|cell| cell.place().to_vec()).collect();
        for place in places {
            let old = self.cells.remove(&place);
            self.keep(old);
        }
    }

    /// Puts a replaced or removed cell aside if the checkpoint under way still needs it.
    fn keep(&mut self, old: Option<PackedCell>) {
        let (Some(freeze), Some(old)) = (&mut self.freeze, old) else { return };
        if freeze.awaits(&old) {
            let twice = freeze.aside.put(old);
            assert!(twice.is_none(), "two frozen cells at one place: {twice:?}");
        }
    }
}

impl Engine for Store {
    fn get(&self, place: &[u8]) -> Result<Option<Stored>, StorageError> {
        Ok(self.cells.get(place).map(|cell| Stored {
            value: Bytes::copy_from_slice(cell.value()),
            version: cell.version(),
        }))
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        for cell in self.cells.range(Bound::Included(start), end) {
            if visit(cell.place(), cell.value(), cell.version()) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, at: SnapshotPoint, changes: &[Change<'_>]) {
        assert!(
            at.index > self.applied.index && at.term >= self.applied.term,
            "write at {at:?} after {:?}",
            self.applied
        );
        for change in changes {
            match *change {
                Change::Set { place, value } => {
                    let old = self.cells.put(PackedCell::new(place, value, at.index));
                    self.keep(old);
                }
                Change::Delete { place } => {
                    let old = self.cells.remove(place);
                    self.keep(old);
                }
                Change::DeleteRow { row } => self.remove_row(row, at.index),
            }
        }
        self.applied = at;
    }

    fn applied(&self) -> SnapshotPoint {
        self.applied
    }

    fn cell_count(&self) -> u64 {
        u64::try_from(self.cells.len()).unwrap_or(u64::MAX)
    }
}

impl CheckpointEngine for Store {
    fn begin_checkpoint(&mut self, extra: Vec<u8>) {
        self.freeze = Some(Freeze {
            point: self.applied,
            stage: Stage::Start,
            passed: None,
            aside: Memtable::default(),
            cell_count: 0,
            body: Vec::new(),
            extra,
            encoder: Encoder::default(),
        });
    }

    fn checkpoint_chunk(&mut self, bytes_max: usize) -> Option<CheckpointChunk> {
        let freeze = self.freeze.as_mut()?;
        let mut bytes = Vec::new();
        let mut visits_left = VISITED_MAX;
        while bytes.len() < bytes_max.max(1) && visits_left > 0 {
            match freeze.stage {
                Stage::Start => freeze.push_preamble(&mut bytes),
                Stage::Cells => freeze.push_cells(&self.cells, &mut visits_left, &mut bytes),
                Stage::Extra(sent) => freeze.push_extra(sent, &mut bytes),
                Stage::Footer => {
                    let point = if planted!("W16") { self.applied } else { freeze.point };
                    freeze.push_footer(point, &mut bytes);
                    self.freeze = None;
                    return Some(CheckpointChunk { bytes, complete: Some(point) });
                }
            }
        }
        Some(CheckpointChunk { bytes, complete: None })
    }

    fn abort_checkpoint(&mut self) {
        self.freeze = None;
    }
}

impl Freeze {
    /// Tells whether the walk is yet to write `cell`, which is being replaced or removed.
    fn awaits(&self, cell: &PackedCell) -> bool {
        self.stage <= Stage::Cells
            && cell.version() <= self.point.index
            && self.passed.as_deref().is_none_or(|passed| cell.place() > passed)
    }

    fn push_preamble(&mut self, bytes: &mut Vec<u8>) {
        self.encoder.push_preamble(bytes);
        self.stage = Stage::Cells;
    }

    /// Walks on over the cells; appends the block of frozen cells once it is full.
    fn push_cells(&mut self, cells: &Memtable, visits_left: &mut usize, bytes: &mut Vec<u8>) {
        let at_end = self.walk(cells, visits_left);
        if at_end {
            assert!(self.aside.is_empty(), "frozen cells left behind: {:?}", self.aside);
            self.stage = Stage::Extra(0);
        }
        if self.body.len() >= BLOCK_BYTES || at_end && !self.body.is_empty() {
            self.encoder.push_block(BlockKind::Cells, &self.body, bytes);
            self.body.clear();
        }
    }

    /// Fills the block with the frozen cells that come next; tells whether there are no more.
    fn walk(&mut self, cells: &Memtable, visits_left: &mut usize) -> bool {
        let mut passed = self.passed.take();
        let start = passed.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut ahead = cells.range(start, None).peekable();
        let mut at_end = false;
        while self.body.len() < BLOCK_BYTES && *visits_left > 0 {
            let from_aside = match (self.aside.first(), ahead.peek()) {
                (None, None) => {
                    at_end = true;
                    break;
                }
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(aside), Some(cell)) => aside.cmp(cell) != Ordering::Greater,
            };
            let taken = if from_aside { self.aside.take_first() } else { None };
            let next = if from_aside { taken.as_ref() } else { ahead.next() };
            let Some(cell) = next else { break };
            if cell.version() <= self.point.index {
                format::push_cell(cell, &mut self.body);
                self.cell_count += 1;
            }
            let passed = passed.get_or_insert_default();
            passed.clear();
            passed.extend_from_slice(cell.place());
            *visits_left -= 1;
        }
        self.passed = passed;
        at_end
    }

    /// Appends the part of the extra from `sent` on as a block.
    fn push_extra(&mut self, sent: usize, bytes: &mut Vec<u8>) {
        let rest = self.extra.get(sent..).unwrap_or_default();
        if rest.is_empty() {
            self.stage = Stage::Footer;
            return;
        }
        let part = rest.get(..BLOCK_BYTES).unwrap_or(rest);
        self.encoder.push_block(BlockKind::Extra, part, bytes);
        self.stage = Stage::Extra(sent + part.len());
    }

    /// Appends the footer.
    fn push_footer(&mut self, point: SnapshotPoint, bytes: &mut Vec<u8>) {
        let extra = mem::take(&mut self.extra);
        let extra_bytes = u64::try_from(extra.len()).unwrap_or(u64::MAX);
        let footer = Footer { point, cell_count: self.cell_count, extra_bytes };
        self.encoder.push_block(BlockKind::Footer, &footer.encode(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Step = (Vec<u8>, Option<Vec<u8>>);

    fn step() -> impl Strategy<Value = Step> {
        let place = prop::collection::vec(0_u8..4, 0..4);
        // Long values, so that there are several blocks.
        let value = prop::option::weighted(0.7, (any::<u8>(), 0_usize..40_000));
        (place, value.prop_map(|value| value.map(|(byte, len)| vec![byte; len])))
    }

    fn write(store: &mut Store, steps: &[Step]) {
        for (place, value) in steps {
            let at = SnapshotPoint { index: store.applied().index + 1, term: 1 };
            let change = match value {
                Some(value) => Change::Set { place, value },
                None => Change::Delete { place },
            };
            store.write(at, &[change]);
        }
    }

    /// Returns the checkpoint's bytes, with some of `steps` written between any two chunks.
    fn checkpoint(store: &mut Store, bytes_max: usize, mut steps: &[Step]) -> Vec<u8> {
        store.begin_checkpoint(vec![3; 100_000]);
        let mut bytes = Vec::new();
        while let Some(chunk) = store.checkpoint_chunk(bytes_max) {
            bytes.extend_from_slice(&chunk.bytes);
            let (now, later) = steps.split_at(steps.len().min(7));
            write(store, now);
            steps = later;
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// The strongest form: the file is the same, byte for byte, as one that is taken with no
        /// writes in between, and with chunks of another size.
        #[test]
        fn checkpoint_taken_while_writes_go_on_is_the_frozen_state(
            before in prop::collection::vec(step(), 0..60),
            meanwhile in prop::collection::vec(step(), 0..200),
            bytes_max in 1_usize..100_000,
        ) {
            let (mut quiet, mut busy) = (Store::default(), Store::default());
            write(&mut quiet, &before);
            write(&mut busy, &before);
            let frozen = checkpoint(&mut quiet, usize::MAX, &[]);
            let taken = checkpoint(&mut busy, bytes_max, &meanwhile);
            prop_assert!(frozen == taken, "{} and {} bytes", frozen.len(), taken.len());
        }

        #[test]
        fn store_agrees_with_a_plain_map(
            steps in prop::collection::vec(step(), 0..60),
            start in prop::collection::vec(0_u8..4, 0..4),
            end in prop::option::of(prop::collection::vec(0_u8..4, 0..4)),
        ) {
            let mut store = Store::default();
            write(&mut store, &steps);
            let mut model = std::collections::BTreeMap::new();
            for (version, (place, value)) in (1_u64..).zip(&steps) {
                match value {
                    Some(value) => model.insert(place.clone(), (value.clone(), version)),
                    None => model.remove(place),
                };
            }
            prop_assert_eq!(store.cell_count(), model.len() as u64);
            for (place, _) in &steps {
                let got = store.get(place).unwrap().map(|got| (got.value.to_vec(), got.version));
                prop_assert_eq!(got, model.get(place).cloned());
            }
            let mut scanned = Vec::new();
            store.scan(&start, end.as_deref(), &mut |place, value, version| {
                scanned.push((place.to_vec(), (value.to_vec(), version)));
                ControlFlow::Continue(())
            }).unwrap();
            model.retain(|place, _| *place >= start && end.as_ref().is_none_or(|end| place < end));
            prop_assert_eq!(scanned, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn checkpoint_begun_again_or_given_up_leaves_no_trace() {
        let mut store = Store::default();
        write(&mut store, &[(vec![1], Some(vec![1])), (vec![2], Some(vec![2]))]);
        store.begin_checkpoint(Vec::new());
        let first = store.checkpoint_chunk(1);
        assert!(first.is_some_and(|chunk| chunk.complete.is_none()));
        write(&mut store, &[(vec![1], None)]);
        let again = checkpoint(&mut store, usize::MAX, &[]);
        let fresh = checkpoint(&mut store, usize::MAX, &[]);
        assert_eq!(again, fresh);
        store.begin_checkpoint(Vec::new());
        store.abort_checkpoint();
        assert_eq!(store.checkpoint_chunk(1), None);
    }

    #[test]
    fn chunk_over_cells_written_later_is_short() {
        let mut store = Store::default();
        write(&mut store, &[(vec![255], Some(vec![1]))]);
        store.begin_checkpoint(Vec::new());
        let later: Vec<Step> =
            (0..25_000_u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![1]))).collect();
        write(&mut store, &later);
        let chunks: Vec<_> = std::iter::from_fn(|| store.checkpoint_chunk(1 << 20)).collect();
        assert_eq!(chunks.len(), 3, "25,001 cells to pass, {VISITED_MAX} at a time");
        assert!(chunks[1].bytes.is_empty());
        let at = SnapshotPoint { index: 1, term: 1 };
        assert_eq!(chunks.iter().map(|chunk| chunk.complete).next_back(), Some(Some(at)));
    }

    #[cfg(feature = "testing")]
    #[test]
    fn planted_index_apart_from_its_data_claims_too_much() {
        crate::base::planted::turn_on(Some("W16"));
        let mut store = Store::default();
        store.begin_checkpoint(Vec::new());
        write(&mut store, &[(vec![1], Some(vec![1]))]);
        let chunk = store.checkpoint_chunk(1 << 20);
        crate::base::planted::turn_on(None);
        let claimed = chunk.and_then(|chunk| chunk.complete);
        assert_eq!(claimed, Some(SnapshotPoint { index: 1, term: 1 }));
    }
}
