//! The tree of hashes by which two replicas find where a partition differs.
//!
//! A partition has [`LEAF_COUNT`] leaves. A row lies in one leaf; the leaf's hash is the xor of
//! the hashes of its visible entries, so that it is kept up to date entry by entry. The core keeps
//! the leaves, and the store of [`crate::kv`] computes by these same functions what a write
//! changes in them.

use super::context::Context;
use super::core::DynamoStatus;
use super::placement::Partition;
use super::ready::{Found, ReadId};
use crate::base::hash::{hash64, mix64};
use crate::base::{Instant, Stamp};
use crate::codec::keycode;

/// Leaves of a partition: a difference of one row costs reading a sixty-fourth of it.
pub const LEAF_COUNT: u16 = 64;

/// Tells the hash of a leaf from that of an entry.
const LEAF_SEED: u64 = 1;
const ENTRY_SEED: u64 = 2;

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
#[derive(Debug, Default)]
pub(super) struct Trees {}

impl Trees {
    /// Starts.
    pub(super) fn new(_context: &Context) -> Self {
        Self::default()
    }

    /// Applying changed leaves.
    pub(super) fn on_applied(
        &mut self,
        _context: &mut Context,
        _deltas: Vec<(Partition, u16, u64)>,
    ) {
    }

    /// The own store answers.
    pub(super) fn on_store_read(&mut self, _context: &mut Context, _id: ReadId, _found: Found) {}

    /// Lets time pass.
    pub(super) fn tick(&mut self, _context: &mut Context) {}

    /// Returns when it must be ticked, if ever.
    pub(super) fn deadline(&self, _context: &Context) -> Option<Instant> {
        None
    }

    /// Checks its invariants.
    pub(super) fn check(&self, _context: &Context) {}

    /// Tells how it is.
    pub(super) fn status(&self, _status: &mut DynamoStatus) {}
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
