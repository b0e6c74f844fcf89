//! A model of the table store: what a node's records come to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::super::merkle::{LEAF_COUNT, entry_hash, leaf_of};
use super::super::notes::{self, Kind};
use super::super::placement::{partition_of_place, prefix};
use super::super::{Chunk, Found, LeafChanges, Partition, Range, Record, StoreRead};
use crate::base::{Entry, Payload, Stamp, Written};
use crate::codec::keycode;

/// Sorts entries: the place, and a row's tombstone before its cells.
type Order = (Vec<u8>, bool);

/// Replicated entries and notes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Store {
    pub(in super::super) entries: BTreeMap<Order, Entry>,
    pub(in super::super) notes: BTreeMap<Payload, Payload>,
    /// The latest stamp that was ever applied at a place.
    latest: BTreeMap<Order, Stamp>,
    /// As the notes say.
    floors: BTreeMap<Partition, Stamp>,
}

/// What applying changed in the trees' leaves.
type Deltas = BTreeMap<(Partition, u16), u64>;

/// Cells of a row whose deletion is told in detail; of a longer one the partition is void.
const HIDDEN_MAX: usize = 1;

impl Store {
    /// Applies records; returns what changed in the leaves.
    pub(super) fn apply(&mut self, records: &[Record]) -> LeafChanges {
        let mut deltas = Deltas::new();
        let mut void = BTreeSet::new();
        for record in records {
            match record {
                Record::Entries(entries) => {
                    for entry in entries {
                        self.apply_entry(entry, &mut deltas, &mut void);
                    }
                }
                Record::Note { place, content: Some(content) } => {
                    self.notes.insert(place.clone(), content.clone());
                    self.floors.extend(notes::floor(place.as_bytes(), content.as_bytes()));
                }
                Record::Note { place, content: None } => {
                    self.notes.remove(place);
                    if let Some(Kind::Floor(partition)) = Kind::of(place.as_bytes()) {
                        self.floors.remove(&partition);
                    }
                }
            }
        }
        deltas.retain(|(partition, _), _| !void.contains(partition));
        let deltas = deltas.into_iter().map(|((partition, leaf), delta)| (partition, leaf, delta));
        LeafChanges { deltas: deltas.collect(), void: void.into_iter().collect() }
    }

    fn apply_entry(&mut self, entry: &Entry, deltas: &mut Deltas, void: &mut BTreeSet<Partition>) {
        let order = order(entry);
        let latest = self.latest.entry(order.clone()).or_default();
        *latest = entry.stamp.max(*latest);
        if self.is_hidden(entry) || self.entries.get(&order).is_some_and(|old| !entry.beats(old)) {
            self.check(&order);
            return;
        }
        if let Some(old) = self.entries.insert(order.clone(), entry.clone()) {
            self.toggle(deltas, &old);
        }
        self.toggle(deltas, entry);
        if entry.written == Written::RowDeleted {
            let row = (entry.place.as_bytes().to_vec(), true);
            let end = (keycode::row_end(entry.place.as_bytes()), false);
            let hidden = self.entries.range(row..end).filter(|(_, old)| old.stamp < entry.stamp);
            let hidden: Vec<Order> = hidden.map(|(order, _)| order.clone()).collect();
            if hidden.len() > HIDDEN_MAX {
                void.extend(partition_of_place(entry.place.as_bytes()));
            }
            for order in hidden {
                if let Some(old) = self.entries.remove(&order) {
                    self.toggle(deltas, &old);
                }
            }
        }
        self.check(&order);
    }

    /// Changes the leaf of an entry, unless it is a tombstone that may be forgotten.
    fn toggle(&self, deltas: &mut Deltas, entry: &Entry) {
        let floor = self.floor(partition_of_place(entry.place.as_bytes()).unwrap_or_default());
        if !entry.is_tombstone() || entry.stamp > floor {
            toggle(deltas, entry);
        }
    }

    /// Returns the floor of a partition.
    pub(in super::super) fn floor(&self, partition: Partition) -> Stamp {
        self.floors.get(&partition).copied().unwrap_or_default()
    }

    /// Forgets every tombstone that may be forgotten, as a compaction does; returns how many.
    pub(in super::super) fn purge(&mut self) -> usize {
        let before = self.entries.len();
        let floors = std::mem::take(&mut self.floors);
        self.entries.retain(|_, entry| {
            let partition = partition_of_place(entry.place.as_bytes()).unwrap_or_default();
            let floor = floors.get(&partition).copied().unwrap_or_default();
            !entry.is_tombstone() || entry.stamp > floor
        });
        self.floors = floors;
        before - self.entries.len()
    }

    /// Checks that the last writer won, whatever the order of arrival was.
    fn check(&self, order: &Order) {
        let latest = self.latest.get(order).copied().unwrap_or_default();
        let kept = self.entries.get(order);
        assert!(
            kept.is_none_or(|kept| kept.stamp == latest),
            "{kept:?} was kept, and {latest} was written"
        );
    }

    fn is_hidden(&self, entry: &Entry) -> bool {
        let row = keycode::row_prefix(entry.place.as_bytes()).to_vec();
        let tombstone = self.entries.get(&(row, false));
        tombstone.is_some_and(|tombstone| entry.stamp < tombstone.stamp)
    }

    /// Tells whether the write is here, or a newer one that hides it; or was, and was forgotten
    /// with a tombstone.
    pub(in super::super) fn covers(&self, entry: &Entry) -> bool {
        let latest = |order: &Order| self.latest.get(order).copied().unwrap_or_default();
        let row = keycode::row_prefix(entry.place.as_bytes()).to_vec();
        latest(&order(entry)) >= entry.stamp || latest(&(row, false)) > entry.stamp
    }

    /// Tells whether the very write is here.
    pub(in super::super) fn has(&self, entry: &Entry) -> bool {
        self.entries.get(&order(entry)).is_some_and(|here| here.stamp == entry.stamp)
    }

    /// Answers a read.
    pub(super) fn read(&self, read: &StoreRead) -> Found {
        match read {
            StoreRead::Ranges(ranges) => {
                Found::Chunks(ranges.iter().map(|range| self.read_range(range)).collect())
            }
            StoreRead::Notes { prefix, start, bytes_max } => {
                self.read_notes(prefix, start, *bytes_max)
            }
            StoreRead::Leaves { partition, floor, .. } => {
                let mut leaves = vec![0; usize::from(LEAF_COUNT)];
                let mut deltas = Deltas::new();
                let entries = self.partition(*partition);
                let tombstones = self.partition(*partition).filter(|entry| entry.is_tombstone());
                let tombstone = tombstones.map(|entry| entry.stamp).max().unwrap_or_default();
                let kept = entries.filter(|entry| !entry.is_tombstone() || entry.stamp > *floor);
                kept.for_each(|entry| toggle(&mut deltas, entry));
                for ((_, leaf), hash) in deltas {
                    leaves[usize::from(leaf)] = hash;
                }
                Found::Leaves { leaves, next: None, tombstone }
            }
            StoreRead::LeafEntries { partition, leaves, start, bytes_max } => {
                let mut wanted = self.partition(*partition).filter(|entry| {
                    entry.place >= *start && leaves.contains(&leaf_of(entry.place.as_bytes()))
                });
                let mut chunk = page(&mut wanted, |count, bytes| count > 0 && bytes > *bytes_max);
                chunk.floor = self.floor(*partition);
                self.add_row(start, &mut chunk);
                Found::Chunks(vec![chunk])
            }
        }
    }

    fn partition(&self, partition: Partition) -> impl Iterator<Item = &Entry> {
        let start = prefix(partition).to_vec();
        let entries = self.entries.range((Bound::Included((start, false)), Bound::Unbounded));
        entries
            .map(|(_, entry)| entry)
            .take_while(move |entry| partition_of_place(entry.place.as_bytes()) == Some(partition))
    }

    fn read_range(&self, range: &Range) -> Chunk {
        let limit = usize::try_from(range.limit).unwrap_or(usize::MAX).max(1);
        let mut within = self.partition(range.partition).filter(|entry| {
            entry.place >= range.start && range.end.as_ref().is_none_or(|end| entry.place < *end)
        });
        let mut chunk = page(&mut within, |count, _| count >= limit);
        chunk.floor = self.floor(range.partition);
        self.add_row(&range.start, &mut chunk);
        chunk
    }

    /// Puts the tombstone of the row in which the chunk begins before its entries.
    fn add_row(&self, start: &Payload, chunk: &mut Chunk) {
        let row = keycode::row_prefix(start.as_bytes()).to_vec();
        if let Some(tombstone) = self.entries.get(&(row, false))
            && !chunk.entries.contains(tombstone)
        {
            chunk.entries.insert(0, tombstone.clone());
        }
    }

    fn read_notes(&self, prefix: &Payload, start: &Payload, bytes_max: usize) -> Found {
        let mut notes = Vec::new();
        let mut bytes = 0;
        let from = self.notes.range(start.clone()..);
        for (place, content) in from {
            if !place.as_bytes().starts_with(prefix.as_bytes()) {
                break;
            }
            bytes += place.len() + content.len();
            if bytes > bytes_max && !notes.is_empty() {
                return Found::Notes { notes, is_more: true };
            }
            notes.push((place.clone(), content.clone()));
        }
        Found::Notes { notes, is_more: false }
    }
}

/// Takes entries until `is_full(count, bytes)`, and says where it stopped. A row's tombstone is
/// not parted from a cell of the same place.
fn page(
    entries: &mut dyn Iterator<Item = &Entry>,
    is_full: impl Fn(usize, usize) -> bool,
) -> Chunk {
    let mut chunk = Chunk::default();
    let mut bytes = 0;
    for entry in entries {
        let is_same = chunk.entries.last().is_some_and(|last| last.place == entry.place);
        bytes += entry.bytes();
        if is_full(chunk.entries.len(), bytes) && !is_same {
            chunk.covered = Some(entry.place.clone());
            return chunk;
        }
        chunk.entries.push(entry.clone());
    }
    chunk
}

fn order(entry: &Entry) -> Order {
    let (place, is_cell) = entry.order();
    (place.to_vec(), is_cell)
}

fn toggle(deltas: &mut Deltas, entry: &Entry) {
    let place = entry.place.as_bytes();
    let Some(partition) = partition_of_place(place) else { return };
    let is_row = entry.written == Written::RowDeleted;
    let hash = entry_hash(place, is_row, entry.stamp, entry.is_tombstone());
    *deltas.entry((partition, leaf_of(place))).or_default() ^= hash;
}
