//! Which nodes hold what: keys hash to partitions, a table assigns partitions to nodes.
//!
//! # Layout
//! Every stored place begins with its partition in two bytes, neither of them zero, so that
//! [`crate::codec::keycode`] reads it as the beginning of the key: a partition lies in one piece,
//! and the rows in it are found as ever.
//!
//! ```text
//! partition 2 bytes │ place of (key, column) as the codec makes it
//!   1 + p / 128, 1 + p % 128
//! ```

use bincode::{Decode, Encode};

use crate::base::hash::{hash64, mix64};
use crate::base::{NodeId, Payload};
use crate::codec::keycode;

/// Number of a partition, from 0.
pub type Partition = u16;

/// Most partitions of a cluster.
pub const PARTITION_COUNT_MAX: u16 = 1 << 14;

/// What the places of a node's own notes begin with; no partition's do.
pub const NOTE_PREFIX: [u8; 2] = [0xFF, 0xFF];

/// Bytes of a partition's prefix.
pub const PREFIX_BYTES: usize = 2;

/// Who holds which partition: explicit, and the same on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Placement {
    /// Grows with every change.
    version: u64,
    /// The replicas of each partition; the first is its steward.
    partitions: Vec<Vec<NodeId>>,
}

impl Placement {
    /// Assigns `partition_count` partitions to `nodes`, `replication_factor` replicas each, in
    /// turn.
    ///
    /// # Panics
    /// If there are no nodes, no partitions or too many, or the factor is 0; the configuration is
    /// checked before. A factor above the number of nodes counts as that number.
    pub fn new(nodes: &[NodeId], replication_factor: usize, partition_count: u16) -> Self {
        assert!(
            !nodes.is_empty()
                && replication_factor > 0
                && (1..=PARTITION_COUNT_MAX).contains(&partition_count),
            "{nodes:?}, factor {replication_factor}, {partition_count} partitions"
        );
        let replicas = |partition: u16| {
            let turned = nodes.iter().cycle().skip(usize::from(partition) % nodes.len());
            turned.take(replication_factor.min(nodes.len())).copied().collect()
        };
        Self { version: 1, partitions: (0..partition_count).map(replicas).collect() }
    }

    /// Returns the number of partitions.
    pub fn partition_count(&self) -> u16 {
        u16::try_from(self.partitions.len()).unwrap_or(u16::MAX)
    }

    /// Returns the version of the assignment.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the nodes that hold a partition; none if there is no such partition.
    pub fn replicas(&self, partition: Partition) -> &[NodeId] {
        self.partitions.get(usize::from(partition)).map_or(&[], Vec::as_slice)
    }

    /// Tells whether a node holds a partition.
    pub fn is_replica(&self, node: NodeId, partition: Partition) -> bool {
        self.replicas(partition).contains(&node)
    }

    /// Returns the partition of a key.
    pub fn partition_of(&self, key: &[u8]) -> Partition {
        let count = u64::from(self.partition_count());
        u16::try_from(hash64(0, key) % count).unwrap_or(0)
    }

    /// Returns a hash that tells different placements apart.
    pub fn hash(&self) -> u64 {
        let nodes = self.partitions.iter().flat_map(|replicas| {
            let count = u64::try_from(replicas.len()).unwrap_or(u64::MAX);
            std::iter::once(count).chain(replicas.iter().map(|node| node.0))
        });
        nodes.fold(self.version, mix64)
    }

    /// Returns the place of a cell, with its partition.
    pub fn cell(&self, key: &[u8], column: &[u8]) -> Vec<u8> {
        let mut place = prefix(self.partition_of(key)).to_vec();
        place.extend_from_slice(&keycode::encode_cell(key, column));
        place
    }
}

/// Returns what the places of a partition begin with.
pub fn prefix(partition: Partition) -> [u8; PREFIX_BYTES] {
    let byte = |value: u16| u8::try_from(value + 1).unwrap_or(u8::MAX);
    [byte(partition >> 7), byte(partition & 0x7F)]
}

/// Returns the partition of a stored place; `None` if it is none of a partition.
pub fn partition_of_place(place: &[u8]) -> Option<Partition> {
    let (&[high, low], _) = place.split_first_chunk::<PREFIX_BYTES>()?;
    let is_prefix = high != 0 && (1..=0x80).contains(&low);
    let number = u16::from(high).checked_sub(1)? << 7 | u16::from(low).checked_sub(1)?;
    (is_prefix && number < PARTITION_COUNT_MAX).then_some(number)
}

/// Returns a place without its partition; the empty place if it is too short.
pub fn without_prefix(place: &[u8]) -> &[u8] {
    place.get(PREFIX_BYTES..).unwrap_or_default()
}

/// Returns a place of a partition as what messages carry.
pub fn place_in(partition: Partition, rest: &[u8]) -> Payload {
    let mut place = prefix(partition).to_vec();
    place.extend_from_slice(rest);
    Payload::new(place).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_round_trips_and_has_no_zero() {
        for partition in 0..PARTITION_COUNT_MAX {
            let prefix = prefix(partition);
            assert!(!prefix.contains(&0) && prefix != NOTE_PREFIX, "{partition}: {prefix:?}");
            assert_eq!(partition_of_place(&prefix), Some(partition));
        }
        assert_eq!(partition_of_place(&NOTE_PREFIX), None);
    }

    #[test]
    fn each_partition_has_as_many_nodes_as_the_factor_says() {
        let nodes: Vec<NodeId> = (1..=5).map(NodeId).collect();
        let placement = Placement::new(&nodes, 3, 256);
        for partition in 0..256 {
            let mut replicas = placement.replicas(partition).to_vec();
            replicas.sort_unstable();
            replicas.dedup();
            assert_eq!(replicas.len(), 3);
        }
        assert_ne!(placement.hash(), Placement::new(&nodes, 4, 256).hash());
    }

    #[test]
    fn place_with_its_partition_is_a_place_of_a_longer_key() {
        let placement = Placement::new(&[NodeId(1)], 1, 256);
        let place = placement.cell(b"a\0b", b"c");
        let prefix = prefix(placement.partition_of(b"a\0b"));
        let (key, column) = keycode::decode_cell(&place).unwrap();
        assert_eq!((key, column), ([&prefix, &b"a\0b"[..]].concat(), &b"c"[..]));
        assert_eq!(without_prefix(&place), keycode::encode_cell(b"a\0b", b"c"));
    }
}
