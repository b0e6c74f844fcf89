//! What the disks of all nodes hold: evidence for the checkers that do not believe anybody.
//!
//! The harness recovers each node's tree and log from the bytes that a power loss now would leave,
//! with the node's own code, and puts every entry, floor and hint in here. Nothing here knows how
//! they were stored.

use std::collections::{BTreeMap, BTreeSet};

use mangrove::base::{Entry, NodeId, Payload, Stamp, Written};
use mangrove::codec::keycode;
use mangrove::dynamo::placement::{partition_of_place, without_prefix};
use mangrove::dynamo::{Partition, Placement};

use crate::history::{CellId, History, ValueId, split_cell, text};

/// What one node's disk holds.
#[derive(Debug, Clone, Default)]
pub struct Store {
    /// The newest entry of each place, a row's tombstones apart.
    cells: BTreeMap<Vec<u8>, Entry>,
    /// By row prefix, the stamp of its tombstone.
    rows: BTreeMap<Vec<u8>, Stamp>,
    /// By partition.
    floors: BTreeMap<Partition, Stamp>,
    /// By target and place, the stamps that are owed to it.
    hints: BTreeMap<(NodeId, Vec<u8>), Vec<Stamp>>,
}

impl Store {
    /// Adds an entry; an older one of its place is forgotten, as the store does.
    pub fn put(&mut self, entry: Entry) {
        let place = entry.place.as_bytes().to_vec();
        if entry.written == Written::RowDeleted {
            let held = self.rows.entry(place).or_default();
            *held = (*held).max(entry.stamp);
            return;
        }
        match self.cells.get_mut(&place) {
            Some(held) if entry.beats(held) => *held = entry,
            Some(_) => {}
            None => {
                self.cells.insert(place, entry);
            }
        }
    }

    /// Sets the floor of a partition.
    pub fn set_floor(&mut self, partition: Partition, floor: Stamp) {
        self.floors.insert(partition, floor);
    }

    /// Adds a hint: that entry is owed to `target`.
    pub fn put_hint(&mut self, target: NodeId, entry: &Entry) {
        let place = entry.place.as_bytes().to_vec();
        self.hints.entry((target, place)).or_default().push(entry.stamp);
    }

    /// Returns the floor of the partition of a place.
    pub fn floor_at(&self, place: &[u8]) -> Stamp {
        let floor = partition_of_place(place).and_then(|partition| self.floors.get(&partition));
        floor.copied().unwrap_or_default()
    }

    /// Returns the largest stamp that holds at a place: of its cell or of its row's tombstone.
    pub fn newest(&self, place: &[u8]) -> Stamp {
        let cell = self.cells.get(place).map(|entry| entry.stamp);
        let row = self.rows.get(keycode::row_prefix(place)).copied();
        cell.max(row).unwrap_or_default()
    }

    /// Returns the value that is visible at a place, and its stamp.
    pub fn visible(&self, place: &[u8]) -> Option<(Stamp, &Payload)> {
        let entry = self.cells.get(place)?;
        let is_hidden = self.rows.get(keycode::row_prefix(place)).is_some_and(|row| {
            // The cells of the request that deleted the row have its stamp, and stay.
            *row > entry.stamp
        });
        match &entry.written {
            Written::Value(value) if !is_hidden => Some((entry.stamp, value)),
            Written::Value(_) | Written::Deleted | Written::RowDeleted => None,
        }
    }

    /// Tells whether a write with that stamp was applied at a place: it is there, or something
    /// newer, or it may have been purged after something newer was.
    pub fn has(&self, place: &[u8], stamp: Stamp, may_be_purged: bool) -> bool {
        let is_purged =
            may_be_purged && self.floor_at(place) >= stamp && self.visible(place).is_none();
        self.newest(place) >= stamp || is_purged
    }

    /// Tells whether a hint of that stamp at a place is kept for `target`.
    pub fn has_hint(&self, target: NodeId, place: &[u8], stamp: Stamp) -> bool {
        let stamps = self.hints.get(&(target, place.to_vec()));
        stamps.is_some_and(|stamps| stamps.contains(&stamp))
    }

    /// Returns the places that have an entry, cells and rows.
    fn places(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.cells.keys().chain(self.rows.keys())
    }

    /// Returns the tombstone of a row, if there is one.
    fn row(&self, place: &[u8]) -> Option<Stamp> {
        self.rows.get(place).copied()
    }

    /// Returns the entry of a cell.
    fn cell(&self, place: &[u8]) -> Option<&Entry> {
        self.cells.get(place)
    }
}

/// The disks of all nodes.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Who holds what.
    pub placement: Placement,
    /// By node.
    pub nodes: BTreeMap<NodeId, Store>,
}

/// A place at which two replicas differ, for a message.
pub type Difference = (Vec<u8>, String, String);

impl Stores {
    /// Returns where a cell is stored.
    pub fn place(&self, history: &History, cell: CellId) -> Vec<u8> {
        let (key, column) = split_cell(history.cell_text(cell));
        self.placement.cell(key.as_bytes(), column.as_bytes())
    }

    /// Returns the replicas of a place.
    pub fn replicas(&self, place: &[u8]) -> impl Iterator<Item = (NodeId, &Store)> {
        let partition = partition_of_place(place).unwrap_or(Partition::MAX);
        let replicas = self.placement.replicas(partition).iter();
        replicas.filter_map(|node| Some((*node, self.nodes.get(node)?)))
    }

    /// Tells whether some node keeps a hint of that stamp for a replica of a place.
    pub fn is_owed(&self, replica: NodeId, place: &[u8], stamp: Stamp) -> bool {
        // A row's deletion is hinted at the row's place.
        let places = [place, keycode::row_prefix(place)];
        let keeps = |store: &Store| places.iter().any(|at| store.has_hint(replica, at, stamp));
        self.nodes.values().any(keeps)
    }

    /// Returns every visible value of cells that the history names: its cell, which value of the
    /// history it is (if any), and its stamp.
    pub fn values(&self, history: &History) -> Vec<(CellId, Option<ValueId>, Stamp)> {
        let mut values = Vec::new();
        for cell in cells(history) {
            let place = self.place(history, cell);
            for (_, store) in self.replicas(&place) {
                if let Some((stamp, value)) = store.visible(&place) {
                    values.push((cell, history.value_of(value.as_bytes()), stamp));
                }
            }
        }
        values
    }

    /// Returns a visible value in a cell that the history does not name: whose disk, which cell,
    /// which stamp.
    pub fn unnamed(&self, history: &History) -> Option<(NodeId, String, Stamp)> {
        let named: BTreeSet<Vec<u8>> =
            cells(history).map(|cell| self.place(history, cell)).collect();
        self.nodes.iter().find_map(|(node, store)| {
            let mut strange = store.cells.keys().filter(|place| !named.contains(*place));
            strange.find_map(|place| Some((*node, text_of(place), store.visible(place)?.0)))
        })
    }

    /// Returns every visible value: whose disk, which cell, which stamp.
    pub fn visible(&self, history: &History) -> Vec<(NodeId, CellId, Stamp)> {
        let mut visible = Vec::new();
        for cell in cells(history) {
            let place = self.place(history, cell);
            let stores = self.replicas(&place);
            let found = stores.filter_map(|(node, store)| Some((node, store.visible(&place)?.0)));
            visible.extend(found.map(|(node, stamp)| (node, cell, stamp)));
        }
        visible
    }

    /// Returns the latest stamp on each disk, of anything.
    pub fn latest(&self) -> impl Iterator<Item = (NodeId, Stamp)> {
        self.nodes.iter().map(|(node, store)| {
            let stamps =
                store.cells.values().map(|entry| entry.stamp).chain(store.rows.values().copied());
            (*node, stamps.max().unwrap_or_default())
        })
    }

    /// Returns the first place at which two replicas of a partition do not hold the same:
    /// values, and tombstones above the floors of both.
    pub fn difference(&self, one: NodeId, other: NodeId) -> Option<Difference> {
        let (left, right) = (self.nodes.get(&one)?, self.nodes.get(&other)?);
        let mut places: Vec<&Vec<u8>> = left.places().chain(right.places()).collect();
        places.sort_unstable();
        places.dedup();
        let both = |place: &[u8]| {
            let partition = partition_of_place(place).unwrap_or(Partition::MAX);
            let replicas = self.placement.replicas(partition);
            replicas.contains(&one) && replicas.contains(&other)
        };
        for place in places.into_iter().filter(|place| both(place)) {
            let floor = left.floor_at(place).max(right.floor_at(place));
            let (in_left, in_right) = (shown(left, place, floor), shown(right, place, floor));
            if in_left != in_right {
                return Some((place.clone(), in_left, in_right));
            }
        }
        None
    }
}

/// Returns what counts at a place, for comparison and for people.
fn shown(store: &Store, place: &[u8], floor: Stamp) -> String {
    let mut parts = Vec::new();
    if let Some(stamp) = store.row(place).filter(|stamp| *stamp > floor) {
        parts.push(format!("row deleted at {stamp}"));
    }
    // A tombstone that its row's hides is as good as none.
    let hidden = store.row(keycode::row_prefix(place)).unwrap_or_default().max(floor);
    if let Some((stamp, value)) = store.visible(place) {
        parts.push(format!("{value:?} at {stamp}"));
    } else if let Some(entry) = store.cell(place).filter(|entry| entry.stamp > hidden) {
        parts.push(format!("deleted at {}", entry.stamp));
    }
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

/// Returns the name of a cell, for people.
fn text_of(place: &[u8]) -> String {
    match keycode::decode_cell(without_prefix(place)) {
        Ok((key, column)) => {
            format!("{}/{}", text(&key), text(column))
        }
        Err(error) => format!("{place:?} ({error})"),
    }
}

fn cells(history: &History) -> impl Iterator<Item = CellId> + use<> {
    (0..u32::try_from(history.cell_count()).unwrap_or(u32::MAX)).map(CellId)
}

/// For the tests of the checkers.
#[cfg(test)]
impl Stores {
    /// Three empty disks that share everything.
    pub(super) fn of_three() -> Self {
        let nodes = [1, 2, 3].map(NodeId);
        let nodes_of = nodes.iter().map(|node| (*node, Store::default()));
        Self { placement: Placement::new(&nodes, 3, 16), nodes: nodes_of.collect() }
    }

    /// Puts a value or a tombstone on one disk.
    pub(super) fn put(&mut self, node: u64, cell: &str, value: Option<&str>, stamp: Stamp) {
        let entry = self.entry(cell, value, stamp);
        self.nodes.get_mut(&NodeId(node)).unwrap().put(entry);
    }

    /// The same on all disks.
    pub(super) fn put_all(&mut self, cell: &str, value: Option<&str>, stamp: Stamp) {
        for node in 1..=3 {
            self.put(node, cell, value, stamp);
        }
    }

    /// Makes an entry.
    pub(super) fn entry(&self, cell: &str, value: Option<&str>, stamp: Stamp) -> Entry {
        let (key, column) = split_cell(cell);
        let place = self.placement.cell(key.as_bytes(), column.as_bytes());
        let written = match value {
            Some(value) => Written::Value(Payload::new(value.as_bytes().to_vec()).unwrap()),
            None => Written::Deleted,
        };
        Entry { place: Payload::new(place).unwrap(), stamp, written }
    }

    /// Deletes a row on one disk.
    pub(super) fn delete_row(&mut self, node: u64, key: &str, stamp: Stamp) {
        let mut entry = self.entry(key, None, stamp);
        entry.written = Written::RowDeleted;
        self.nodes.get_mut(&NodeId(node)).unwrap().put(entry);
    }

    /// Sets all floors of one disk.
    pub(super) fn set_floors(&mut self, node: u64, floor: Stamp) {
        for partition in 0..self.placement.partition_count() {
            self.nodes.get_mut(&NodeId(node)).unwrap().set_floor(partition, floor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::masterless::fixture::stamp;

    #[test]
    fn row_tombstone_hides_what_is_older_and_nothing_else() {
        let mut stores = Stores::of_three();
        stores.put(1, "k/a", Some("older"), stamp(10));
        stores.put(1, "k/b", Some("same"), stamp(20));
        stores.put(1, "l/a", Some("other row"), stamp(10));
        stores.delete_row(1, "k", stamp(20));
        let store = &stores.nodes[&NodeId(1)];
        let place = |cell: &str| {
            let (key, column) = split_cell(cell);
            stores.placement.cell(key.as_bytes(), column.as_bytes())
        };
        assert_eq!(store.visible(&place("k/a")), None);
        assert_eq!(store.newest(&place("k/a")), stamp(20));
        assert!(store.visible(&place("k/b")).is_some());
        assert!(store.visible(&place("l/a")).is_some());
        assert!(store.has(&place("k/a"), stamp(10), false));
        assert!(!store.has(&place("l/a"), stamp(11), false));
    }

    #[test]
    fn value_that_lacks_its_end_is_none_of_the_history() {
        let mut history = History::new();
        history.cell_named("k");
        let (value, bytes) = history.written_value("c1.2", 20);
        let mut stores = Stores::of_three();
        stores.put(1, "k", Some(&bytes), stamp(10));
        stores.put(2, "k", Some(&bytes[..19]), stamp(10));
        let values = stores.values(&history);
        let mut values: Vec<_> = values.iter().map(|(_, value, _)| *value).collect();
        values.sort_unstable();
        assert_eq!(values, [None, Some(value)]);
    }
}
