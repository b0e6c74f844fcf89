//! The tree of hashes by which two replicas find where a partition differs.
//!
//! A partition has [`LEAF_COUNT`] leaves. A row lies in one leaf; the leaf's hash is the xor of
//! the hashes of its visible entries, so that it is kept up to date entry by entry. The core keeps
//! the leaves, and the store of [`crate::kv`] computes by these same functions what a write
//! changes in them.
//!
//! Tombstones up to the partition's floor are left out, because each replica forgets them when it
//! likes. So a floor that moves changes the leaves, but only if there was a tombstone between the
//! old floor and the new one: then the tree is unknown until the store has read the partition
//! again. A partition that nobody deletes in is read once, when the node starts.
//!
//! How late a tombstone there is, applying tells since the start, and building of what was there
//! before. The clock would not do: a node that has just started knows no time but its own ceiling,
//! and may have been given a later tombstone right before it stopped. Its leaves would keep the
//! tombstone when the floor passes it, and never be like those of others, who leave it out.
//!
//! A partition is read in pages, with pauses, while writes go on. What a write changes behind the
//! pages that were read is found by a later one, so the store reports only what it changes before.
//! Where it would have to read too much to report it, because a long row was deleted, it says so,
//! and the tree is unknown until the partition has been read again.
//!
//! Trees that become unknown are built by turns, upwards from the one that was built last. Where
//! many deletes raise floors faster than trees can be read, the lowest partitions would otherwise
//! be built again and again, and the highest never: those had neither anti-entropy nor floors.
//!
//! # Invariants
//! - **D10** A tree never leaves out tombstones above the floor.

use std::collections::BTreeMap;

use super::context::{Context, Owner};
use super::core::DynamoStatus;
use super::placement::{Partition, place_in};
use super::ready::{Found, LeafChanges, ReadId, StoreRead};
use crate::base::hash::{hash64, mix64};
use crate::base::{Instant, Payload, Stamp};
use crate::codec::keycode;
use crate::{planted, probe};

/// Leaves of a partition: a difference of one row costs reading a sixty-fourth of it.
pub const LEAF_COUNT: u16 = 64;

/// Tells the hash of a leaf from that of an entry.
const LEAF_SEED: u64 = 1;
const ENTRY_SEED: u64 = 2;
const ROOT_SEED: u64 = 5;

/// Returns the leaf in which the row of a place lies.
pub fn leaf_of(place: &[u8]) -> u16 {
    let leaf = hash64(LEAF_SEED, keycode::row_prefix(place)) % u64::from(LEAF_COUNT);
    u16::try_from(leaf).unwrap_or(0)
}

/// Returns what a visible entry contributes to its leaf; `is_row` for the tombstone of a row.
///
/// The value is left out: no two writes share a stamp, but for a tombstone that erases a ghost
/// with the ghost's own stamp.
pub fn entry_hash(place: &[u8], is_row: bool, stamp: Stamp, is_tombstone: bool) -> u64 {
    let kind = u64::from(is_row) << 1 | u64::from(is_tombstone);
    mix64(mix64(hash64(ENTRY_SEED, place), stamp.version()), kind)
}

/// The trees of the partitions that this node holds.
#[derive(Debug)]
pub(super) struct Trees {
    partitions: BTreeMap<Partition, Tree>,
    building: Option<Building>,
    /// Which one is looked at first when the next is begun. Trees become unknown again while others
    /// are built; each has its turn before the same one is built once more.
    cursor: Partition,
    /// Whether some tree was not known when it was looked for last.
    is_unknown: bool,
    next_build: Instant,
}

/// The tree that is being built.
#[derive(Debug)]
struct Building {
    partition: Partition,
    /// The floor when it was begun.
    floor: Stamp,
    /// The clock when it was begun.
    begun: Stamp,
    /// The page that the own store is asked for; `None` in a pause.
    read: Option<ReadId>,
    /// Of the pages so far; none before the first.
    leaves: Vec<u64>,
    /// The latest tombstone of the pages so far.
    tombstone: Stamp,
    /// Where the next page begins.
    next: Payload,
}

/// What is known of one partition.
#[derive(Debug, Default)]
struct Tree {
    /// None before they were built.
    leaves: Vec<u64>,
    /// The floor up to which they leave out tombstones.
    floor: Stamp,
    /// No tombstone that was there when the node started is newer.
    tombstones: Stamp,
}

impl Tree {
    /// Tells whether the leaves are those that the store would compute now. A floor that moves
    /// changes them only if there was a tombstone above it.
    fn is_known(&self, partition: Partition, context: &Context) -> bool {
        let last_tombstone = self.tombstones.max(context.last_tombstone(partition));
        let is_current = self.floor == context.floor(partition) || last_tombstone <= self.floor;
        !self.leaves.is_empty() && is_current
    }
}

impl Trees {
    /// Starts without knowing any.
    pub(super) fn new(context: &Context) -> Self {
        let placement = &context.config.placement;
        let is_held = |partition: &Partition| placement.is_replica(context.id(), *partition);
        let held = (0..placement.partition_count()).filter(is_held);
        Self {
            partitions: held.map(|partition| (partition, Tree::default())).collect(),
            building: None,
            cursor: 0,
            is_unknown: true,
            next_build: context.now,
        }
    }

    /// Returns the leaves of a partition; `None` if they are not known at the moment.
    pub(super) fn leaves(&self, context: &Context, partition: Partition) -> Option<&[u64]> {
        let tree = self.partitions.get(&partition)?;
        tree.is_known(partition, context).then_some(tree.leaves.as_slice())
    }

    /// Returns the root of a partition's tree; `None` if it is not known at the moment.
    pub(super) fn root(&self, context: &Context, partition: Partition) -> Option<u64> {
        Some(self.leaves(context, partition)?.iter().copied().fold(ROOT_SEED, mix64))
    }

    /// Tells whether the partition's tree is known, and there may be tombstones above a floor.
    pub(super) fn may_forget(&self, context: &Context, partition: Partition, floor: Stamp) -> bool {
        self.partitions.get(&partition).is_some_and(|tree| {
            let last_tombstone = tree.tombstones.max(context.last_tombstone(partition));
            tree.is_known(partition, context) && last_tombstone > floor
        })
    }

    /// Applying changed leaves.
    pub(super) fn on_applied(&mut self, changes: LeafChanges) {
        for partition in changes.void {
            self.forget(partition);
        }
        for (partition, leaf, delta) in changes.deltas {
            let building = self.building.as_mut().filter(|b| b.partition == partition);
            let leaves = match building {
                // Before the first page the store reports for the old tree, which is void.
                Some(building) => &mut building.leaves,
                None => match self.partitions.get_mut(&partition) {
                    Some(tree) => &mut tree.leaves,
                    None => continue,
                },
            };
            if let Some(leaf) = leaves.get_mut(usize::from(leaf)) {
                *leaf ^= delta;
            }
        }
    }

    /// Has a partition's tree built anew, from its first page. The answer to a page that is asked
    /// for already is not waited for; what is reported until the first page counts for no tree.
    fn forget(&mut self, partition: Partition) {
        let Some(tree) = self.partitions.get_mut(&partition) else { return };
        probe!("dynamo.tree_is_void");
        tree.leaves.clear();
        self.is_unknown = true;
        if self.building.as_ref().is_some_and(|building| building.partition == partition) {
            self.building = None;
        }
    }

    /// The own store answers.
    pub(super) fn on_store_read(&mut self, id: ReadId, found: Found) {
        let Some(building) = self.building.as_mut().filter(|b| b.read == Some(id)) else { return };
        let Found::Leaves { leaves, next, tombstone } = found else { return };
        let partition = building.partition;
        assert!(
            leaves.len() == usize::from(LEAF_COUNT),
            "the store found {} leaves of partition {partition}",
            leaves.len()
        );
        building.read = None;
        building.tombstone = tombstone.max(building.tombstone);
        if building.leaves.is_empty() {
            building.leaves = leaves;
        } else {
            building.leaves.iter_mut().zip(leaves).for_each(|(leaf, page)| *leaf ^= page);
        }
        if let Some(next) = next {
            building.next = next;
            return;
        }
        let Some(built) = self.building.take() else { return };
        let Some(tree) = self.partitions.get_mut(&partition) else { return };
        if tree.leaves.is_empty() {
            tree.tombstones = built.begun;
        }
        // After a restart the clock may be behind what the disk has from others.
        if !planted!("D69") {
            tree.tombstones = built.tombstone.max(tree.tombstones);
        }
        (tree.leaves, tree.floor) = (built.leaves, built.floor);
    }

    /// Has one tree at a time built, with pauses, so that the store does other things as well.
    pub(super) fn tick(&mut self, context: &mut Context) {
        let is_reading = self.building.as_ref().is_some_and(|building| building.read.is_some());
        if context.now < self.next_build || is_reading {
            return;
        }
        self.next_build = context.now + context.config.tree_interval;
        if self.building.is_none() {
            self.begin(context);
        }
        if let Some(building) = &mut self.building {
            let read = StoreRead::Leaves {
                partition: building.partition,
                floor: building.floor,
                start: building.next.clone(),
                bytes_max: context.config.tree_bytes_max,
            };
            building.read = Some(context.read_store(Owner::Trees, read));
        }
    }

    /// Looks for a tree that is not known: from the cursor on, and else from the first.
    fn begin(&mut self, context: &Context) {
        let (mut unknown, mut first) = (None, None);
        for (&partition, tree) in &mut self.partitions {
            if tree.is_known(partition, context) {
                tree.floor = context.floor(partition);
                continue;
            }
            first = first.or(Some(partition));
            if partition >= self.cursor {
                unknown = unknown.or(Some(partition));
            }
        }
        let unknown = unknown.or(first);
        self.is_unknown = unknown.is_some();
        if let Some(partition) = unknown {
            self.cursor = partition.saturating_add(1);
        }
        self.building = unknown.map(|partition| Building {
            partition,
            floor: context.floor(partition),
            begun: context.clock.last(),
            read: None,
            leaves: Vec::new(),
            tombstone: Stamp::ZERO,
            next: place_in(partition, &[]),
        });
    }

    /// Returns when it must be ticked, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let is_reading = self.building.as_ref().is_some_and(|building| building.read.is_some());
        (self.is_unknown && !is_reading).then_some(self.next_build)
    }

    /// Checks its invariants.
    pub(super) fn check(&self, context: &Context) {
        for (partition, tree) in &self.partitions {
            let floor = context.floor(*partition);
            assert!(tree.floor <= floor, "D10: tree of {partition}: {} > {floor}", tree.floor);
        }
    }

    /// Tells how it is.
    pub(super) fn status(&self, context: &Context, status: &mut DynamoStatus) {
        let unknown = self.partitions.iter().filter(|(of, tree)| !tree.is_known(**of, context));
        status.merkle_unknown = unknown.count();
        let leaves: usize = self.partitions.values().map(|tree| tree.leaves.len()).sum();
        let building = self.building.as_ref().map_or(0, |building| building.leaves.len());
        let count = self.partitions.len();
        status.merkle_count = count;
        status.merkle_bytes = (leaves + building) * size_of::<u64>() + count * size_of::<Tree>();
        status.merkle_bytes_max =
            (count + 1) * usize::from(LEAF_COUNT) * size_of::<u64>() + count * size_of::<Tree>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_lies_in_one_leaf() {
        let place = |column: &[u8]| [&[1, 1][..], &keycode::encode_cell(b"key", column)].concat();
        let leaves = [&b""[..], b"a", b"b\0c"].map(|column| leaf_of(&place(column)));
        assert_eq!(leaves, [leaves[0]; 3]);
        let others = (0..200_u8).map(|key| leaf_of(&keycode::encode_key(&[1, 1, key])));
        assert!(others.collect::<std::collections::BTreeSet<_>>().len() > 50, "leaves are used");
    }

    #[test]
    fn hash_of_an_entry_tells_all_of_it() {
        let stamp = Stamp::from_version;
        let hashes = [
            entry_hash(b"a", false, stamp(1), false),
            entry_hash(b"a", false, stamp(1), true),
            entry_hash(b"a", true, stamp(1), true),
            entry_hash(b"a", false, stamp(2), false),
            entry_hash(b"b", false, stamp(1), false),
        ];
        assert_eq!(std::collections::BTreeSet::from(hashes).len(), hashes.len());
    }
}
