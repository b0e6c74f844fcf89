//! The cells of the masterless mode: entries in any order in, the same cells out on every node.
//!
//! The shell of the masterless mode owns one. It hands over what became durable, as
//! [`Record`]s, and reads from it on behalf of the core; in the log's place stands the number of
//! the persist request. Everything lies in one [`Engine`]: a partition's entries under the two
//! bytes of its prefix, each with its stamp as version, and the node's own notes.
//!
//! Writes may come twice and in any order, and every node must end up with the same cells. So
//! applying *reads before it writes*: an entry is written only if it [beats](Entry::beats) what is
//! at its place, and no tombstone of its row hides it. What is written is therefore always newer
//! than what is there, which is all that the engine asks for; and since "the greatest stamp wins"
//! does not depend on the order of arrival, neither does the result.
//!
//! A row's tombstone hides cells with smaller stamps, those that are there and those that are yet
//! to come; cells with greater ones stay as they are. To hide them takes no look at them, but the
//! leaves have each of them in it. Of a long row they are too many to be read in one turn of the
//! loop: then the partition's leaves are void, and read anew in pages.
//!
//! # Invariants
//! 1. What is visible is a function of the set of entries that were applied, whatever their order
//!    and however often they came.
//! 2. The deltas that [`apply`](CellStore::apply) returns, put together, are the leaves of what is
//!    visible; while the leaves of a partition are read in pages, of what lies before the next one.
//!    A partition that it returns as void has to be read anew for that.
//! 3. No tombstone above its partition's floor goes away.
//!
//! # Left out
//! Judging stamps: whether one lies too far in the future, or so far in the past that a tombstone
//! may be gone which would hide it, the core decides before it persists anything.
//!
//! # Sources
//! The merge is that of a last-writer-wins register for each cell; with tombstones, as \[Dynamo\]
//! §4.4 has it with vector clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::base::{Entry, Payload, Stamp, Value, Written};
use crate::codec::keycode;
use crate::dynamo::placement::{self, NOTE_PREFIX};
use crate::dynamo::{LeafChanges, Partition, PersistId, Record, merkle};
use crate::storage::table::Found;
use crate::storage::{Cell, Content, Engine, PurgeFloors, Raw, SnapshotPoint, StorageError};
use crate::{planted, probe};

/// The term of all positions: there are no elections.
const TERM: u64 = 1;

/// Bytes that the deletions of rows in one persist request may read for the leaves. Fewer: a
/// partition is read anew where a few long rows are deleted. More: the loop stands still meanwhile.
pub(super) const HIDDEN_BYTES_MAX: usize = 512 << 10;

/// The cells and notes of a node of the masterless mode; see the [module](self).
#[derive(Debug)]
pub struct CellStore<E: Engine> {
    engine: E,
    floors: BTreeMap<Partition, Stamp>,
    purge: PurgeFloors,
    /// The partition whose leaves are being read, and where the next page begins.
    pub(super) unread: Option<(Partition, Vec<u8>)>,
}

impl<E: Engine> CellStore<E> {
    /// Makes the store of what is in `engine`. The engine's keeper must be told of the
    /// [purge floors](purge_floors_of) that are among the notes now; when the log is applied, the
    /// floors that are among them then must be [set](Self::set_floor).
    pub fn new(mut engine: E) -> Self {
        let purge = purge_floors_of([]);
        engine.set_purge_floors(purge.clone());
        Self { engine, floors: BTreeMap::new(), purge, unread: None }
    }

    /// Returns the last persist request that was applied.
    pub fn applied(&self) -> PersistId {
        self.engine.applied().index
    }

    /// Returns the store behind it.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Returns the store behind it for what concerns that alone, such as making it durable.
    ///
    /// Whoever writes to it breaks the invariants.
    pub fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Returns which tombstones may be forgotten.
    pub fn purge_floors(&self) -> &PurgeFloors {
        &self.purge
    }

    /// Returns the floor of a partition.
    pub fn floor(&self, partition: Partition) -> Stamp {
        self.floors.get(&partition).copied().unwrap_or_default()
    }

    /// Sets the floor of a partition, right after its note was applied: tombstones up to there may
    /// be forgotten, and are left out of the leaves, which must be read anew. A floor never sinks.
    pub fn set_floor(&mut self, partition: Partition, floor: Stamp) {
        let known = self.floors.entry(partition).or_default();
        *known = floor.max(*known);
        self.purge.raise(placement::prefix(partition), known.version());
        self.engine.set_purge_floors(self.purge.clone());
    }

    /// Applies the records of a persist request; returns what that changed in the leaves.
    ///
    /// # Errors
    /// The own storage failed. The request may be half done: the node must stop.
    ///
    /// # Panics
    /// If `id` is not after [`applied`](Self::applied).
    pub fn apply(
        &mut self,
        id: PersistId,
        records: &[Record],
    ) -> Result<LeafChanges, StorageError> {
        let mut deltas = Deltas { bytes_left: HIDDEN_BYTES_MAX, ..Deltas::default() };
        self.apply_all(id, records, &mut deltas)?;
        Ok(deltas.into_changed())
    }

    /// As [`apply`](Self::apply), at a start: nobody has read any leaves yet.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    ///
    /// # Panics
    /// As [`apply`](Self::apply).
    pub fn replay(&mut self, id: PersistId, records: &[Record]) -> Result<(), StorageError> {
        let mut deltas = Deltas { is_unwanted: true, ..Deltas::default() };
        self.apply_all(id, records, &mut deltas)
    }

    fn apply_all(
        &mut self,
        id: PersistId,
        records: &[Record],
        deltas: &mut Deltas,
    ) -> Result<(), StorageError> {
        assert!(id > self.applied(), "persist request {id} comes after {}", self.applied());
        let at = SnapshotPoint { index: id, term: TERM };
        for record in records {
            match record {
                Record::Entries(entries) => {
                    for entry in entries {
                        self.apply_entry(at, entry, deltas)?;
                    }
                }
                Record::Note { place, content } => self.apply_note(at, place, content.as_ref()),
            }
        }
        self.engine.write_stamped(at, &[]);
        Ok(())
    }

    /// Writes a note as it is: notes are the node's own, and come in order.
    fn apply_note(&mut self, at: SnapshotPoint, place: &Payload, content: Option<&Payload>) {
        let place = place.as_bytes();
        assert!(place.starts_with(&NOTE_PREFIX), "note at {place:?}");
        let content =
            content.map_or(Content::Deleted, |content| Content::Value(content.as_bytes()));
        self.engine.write_stamped(at, &[Cell { place, version: at.index, content }]);
    }

    fn apply_entry(
        &mut self,
        at: SnapshotPoint,
        entry: &Entry,
        deltas: &mut Deltas,
    ) -> Result<(), StorageError> {
        let Some(partition) = partition_of(entry) else {
            probe!("cell_store.entry_has_no_place");
            return Ok(());
        };
        let raw = self.engine.get_raw(entry.place.as_bytes())?;
        let unread = self.unread.as_ref().filter(|(unread, _)| *unread == partition);
        let unread = unread.map(|(_, from)| from.as_slice());
        let floor = self.floor(partition);
        let mut leaf = Leaf { deltas, partition, floor, unread, place: entry.place.as_bytes() };
        if entry.written == Written::RowDeleted {
            if raw.row_deleted.is_some_and(|deleted| deleted >= entry.stamp.version()) {
                probe!("cell_store.row_is_deleted_later");
                return Ok(());
            }
            self.hide_row(entry, &mut leaf)?;
        } else if !replaces(entry, &raw) {
            return Ok(());
        } else if let Some(before) = raw.visible() {
            leaf.toggle(entry.place.as_bytes(), false, before.version, before.value.is_none());
        }
        let is_row = entry.written == Written::RowDeleted;
        let version = entry.stamp.version();
        leaf.toggle(entry.place.as_bytes(), is_row, version, entry.is_tombstone());
        self.engine.write_stamped(at, &[cell_of(entry)]);
        Ok(())
    }

    /// Takes what a row's tombstone is about to hide out of the leaf. Reads the row, as far as it
    /// counts; if that is too much, the partition is void.
    fn hide_row(&self, tombstone: &Entry, leaf: &mut Leaf<'_>) -> Result<(), StorageError> {
        let row = tombstone.place.as_bytes();
        let row_end = keycode::row_end(row);
        // What is still to be read is not in the leaf.
        let end = leaf.unread.map_or(&row_end[..], |unread| unread.min(&row_end));
        if leaf.is_void() || end <= row {
            return Ok(());
        }
        let passed =
            self.engine.scan_raw_some(row, Some(end), leaf.deltas.bytes_left, &mut |cell| {
                if cell.version < tombstone.stamp.version() {
                    let is_row = cell.content == Content::RowDeleted;
                    let is_tombstone = !matches!(cell.content, Content::Value(_));
                    leaf.toggle(cell.place, is_row, cell.version, is_tombstone);
                } else {
                    probe!("cell_store.cell_outlives_its_row");
                }
                ControlFlow::Continue(())
            })?;
        leaf.deltas.bytes_left = leaf.deltas.bytes_left.saturating_sub(passed.bytes);
        if passed.next.is_some() {
            probe!("cell_store.long_row_makes_leaves_void");
            leaf.deltas.void.insert(leaf.partition);
        }
        Ok(())
    }
}

/// Returns which tombstones may be forgotten where these floors, and no others, are in the tables.
pub fn purge_floors_of(floors: impl IntoIterator<Item = (Partition, Stamp)>) -> PurgeFloors {
    let mut purge = PurgeFloors::none();
    purge.raise(NOTE_PREFIX, u64::MAX);
    for (partition, floor) in floors {
        purge.raise(placement::prefix(partition), floor.version());
    }
    purge
}

/// Tells whether an entry of a cell counts, and not what is known of its place.
fn replaces(entry: &Entry, raw: &Raw) -> bool {
    let version = entry.stamp.version();
    let is_hidden = |deleted| version < deleted || planted!("D80") && version == deleted;
    if raw.row_deleted.is_some_and(is_hidden) {
        probe!("cell_store.late_cell_is_hidden");
        return false;
    }
    let Some(newest) = &raw.newest else { return true };
    let is_newer = entry.beats(&entry_of(&entry.place, newest));
    if !is_newer {
        probe!("cell_store.entry_is_beaten");
    }
    is_newer
}

/// Returns the partition of an entry; `None` if it is none that a client could have meant.
pub fn partition_of(entry: &Entry) -> Option<Partition> {
    let place = entry.place.as_bytes();
    let partition = placement::partition_of_place(place)?;
    let (_, column) = keycode::decode_place(placement::without_prefix(place)).ok()?;
    let is_possible = match &entry.written {
        Written::Value(value) => value.len() <= Value::BYTES_MAX,
        Written::Deleted => true,
        Written::RowDeleted => column.is_empty(),
    };
    is_possible.then_some(partition)
}

/// Returns the entry of the store that an entry becomes.
fn cell_of(entry: &Entry) -> Cell<'_> {
    let content = match &entry.written {
        Written::Value(value) => Content::Value(value.as_bytes()),
        Written::Deleted => Content::Deleted,
        Written::RowDeleted => Content::RowDeleted,
    };
    Cell { place: entry.place.as_bytes(), version: entry.stamp.version(), content }
}

/// Returns what the store found at a place as an entry.
fn entry_of(place: &Payload, found: &Found) -> Entry {
    let value = found.value.clone().map(|value| Payload::new(value).unwrap_or_default());
    let written = value.map_or(Written::Deleted, Written::Value);
    Entry { place: place.clone(), stamp: Stamp::from_version(found.version), written }
}

/// What changes in the leaves, put together.
#[derive(Debug, Default)]
struct Deltas {
    /// What is to be xored to the hash of a partition's leaf.
    of: BTreeMap<(Partition, u16), u64>,
    void: BTreeSet<Partition>,
    /// So much may still be read to find out.
    bytes_left: usize,
    /// Nobody wants to know.
    is_unwanted: bool,
}

impl Deltas {
    fn into_changed(self) -> LeafChanges {
        let all = self.of.into_iter().map(|((partition, leaf), delta)| (partition, leaf, delta));
        let deltas = all.filter(|(of, _, delta)| *delta != 0 && !self.void.contains(of)).collect();
        LeafChanges { deltas, void: self.void.into_iter().collect() }
    }
}

/// The leaf of one row.
struct Leaf<'d> {
    deltas: &'d mut Deltas,
    partition: Partition,
    floor: Stamp,
    /// From there on the leaves are still to be read.
    unread: Option<&'d [u8]>,
    /// Some place of the row.
    place: &'d [u8],
}

impl Leaf<'_> {
    /// Tells whether it does not matter what changes in it.
    fn is_void(&self) -> bool {
        self.deltas.is_unwanted || self.deltas.void.contains(&self.partition)
    }

    /// Takes account of an entry of the row that becomes visible, or ceases to be.
    fn toggle(&mut self, place: &[u8], is_row: bool, version: u64, is_tombstone: bool) {
        let stamp = Stamp::from_version(version);
        let is_unread = self.unread.is_some_and(|unread| place >= unread);
        if self.is_void() || is_unread || is_tombstone && stamp <= self.floor {
            return;
        }
        let hash = merkle::entry_hash(place, is_row, stamp, is_tombstone);
        let leaf = merkle::leaf_of(self.place);
        *self.deltas.of.entry((self.partition, leaf)).or_default() ^= hash;
    }
}
