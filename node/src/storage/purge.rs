//! Which tombstones a table store may forget, besides that nothing older may lie below them.
//!
//! Where every write reaches every copy in the same order, a tombstone is superfluous as soon as
//! nothing that it hides is left *here*. Where copies hear of writes in any order, it is not: what
//! it hides may still arrive, and would then be there again. So its owner says by prefixes of
//! places up to which version everybody has everything, and only tombstones up to there may go.
//!
//! What a [`PurgeFloors`] allows must be as durable as the tables: a floor that is taken back by a
//! crash, after a tombstone was purged by it, lets the log bring back what the tombstone hid. So
//! the tree hands the floors to its compactions only with the flush of the memtable that was
//! written when they were set.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::planted;

/// Bytes at the beginning of a place by which floors are told apart.
pub const PURGE_PREFIX_BYTES: usize = 2;

/// The greatest version of a tombstone that may go, by prefix of the place; cheap to clone.
///
/// The default: every tombstone may go.
#[derive(Debug, Clone, Default)]
pub struct PurgeFloors {
    /// `None`: everything may go.
    floors: Option<Arc<BTreeMap<[u8; PURGE_PREFIX_BYTES], u64>>>,
}

impl PurgeFloors {
    /// Returns floors that let no tombstone go until they are [raised](Self::raise).
    pub fn none() -> Self {
        Self { floors: Some(Arc::default()) }
    }

    /// Tells whether every tombstone may go.
    pub fn is_everything(&self) -> bool {
        self.floors.is_none()
    }

    /// Lets tombstones of places with that prefix go up to `version`; never fewer than before.
    pub fn raise(&mut self, prefix: [u8; PURGE_PREFIX_BYTES], version: u64) {
        if let Some(floors) = &mut self.floors {
            let floor = Arc::make_mut(floors).entry(prefix).or_default();
            *floor = version.max(*floor);
        }
    }

    /// Tells whether all tombstones up to that version may go from `first` to `last`, of the
    /// prefixes that are known.
    pub(super) fn allow_all(&self, first: &[u8], last: &[u8], version: u64) -> bool {
        let Some(floors) = &self.floors else { return true };
        let (Some(from), Some(to)) = (first.first_chunk(), last.first_chunk()) else {
            return false;
        };
        let between = || floors.range(*from..=*to);
        let is_known = floors.contains_key(from) && floors.contains_key(to);
        is_known && between().all(|(_, floor)| version <= *floor)
    }

    /// Tells whether a tombstone of that version may go.
    pub(super) fn allow(&self, place: &[u8], version: u64) -> bool {
        if planted!("D26") {
            return true;
        }
        let Some(floors) = &self.floors else { return true };
        let floor = place.first_chunk().and_then(|prefix| floors.get(prefix));
        floor.is_some_and(|floor| version <= *floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_reaches_its_own_prefix_up_to_its_version() {
        let mut floors = PurgeFloors::none();
        let before = floors.clone();
        floors.raise([1, 2], 10);
        floors.raise([1, 2], 7);
        let allowed = [(&[1, 2, 3][..], 10), (&[1, 2], 11), (&[1, 3, 3], 1), (&[1], 1)];
        let allowed = allowed.map(|(place, version)| floors.allow(place, version));
        assert_eq!(allowed, [true, false, false, false]);
        assert!(!before.allow(&[1, 2, 3], 1), "a clone does not follow");
        assert!(PurgeFloors::default().allow(&[1, 2], u64::MAX), "everything may go");
    }

    #[test]
    fn stretch_is_allowed_when_each_prefix_in_it_is() {
        let mut floors = PurgeFloors::none();
        for (prefix, version) in [([1, 1], 10), ([1, 2], 5), ([1, 3], 10)] {
            floors.raise(prefix, version);
        }
        let allow =
            |first: u8, last: u8, version| floors.allow_all(&[1, first, 0], &[1, last, 9], version);
        assert_eq!([allow(1, 1, 10), allow(1, 3, 5), allow(3, 3, 10)], [true; 3]);
        assert_eq!([allow(1, 1, 11), allow(1, 3, 6), allow(3, 4, 1), allow(0, 1, 1)], [false; 4]);
    }
}
