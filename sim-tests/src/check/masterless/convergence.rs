//! Convergence: once the cluster is healed, replicas become equal.
//!
//! **Property.** When the cluster says that it has converged, the *disks* of all replicas of a
//! partition hold the same: in every place the same value with the same stamp, or none.
//!
//! **Why the obvious check is wrong.** Comparing answers to reads repairs what it compares. Asking
//! the nodes for their Merkle roots asks the suspect: a tree that forgets to hash tombstones calls
//! replicas equal of which one has a value that the others deleted (planted bug D21). So the
//! entries themselves are compared, as they lie on the disks.
//!
//! **What is skipped.** Tombstones at or below a floor of either replica, which one may have purged
//! and the other not yet. That the common content is the *right* one is for the other checkers.
//!
//! # Sources
//! \[Dynamo §4.7\]; Shapiro et al., "Conflict-free replicated data types", 2011 (strong eventual
//! consistency).

use super::stores::Stores;
use crate::check::{Violation, broken};
use crate::history::text;

/// Compares all replicas with each other.
pub fn check(stores: &Stores, at: u64) -> Result<(), Violation> {
    let nodes: Vec<_> = stores.nodes.keys().copied().collect();
    for (position, one) in nodes.iter().enumerate() {
        for other in nodes.iter().skip(position + 1) {
            if let Some((place, left, right)) = stores.difference(*one, *other) {
                let place = text(&place);
                let what = format!("at {place} node {one} has {left}, node {other} has {right}");
                return broken("convergence", at, what);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::masterless::fixture::stamp;

    #[test]
    fn equal_disks_have_converged() {
        let mut stores = Stores::of_three();
        stores.put_all("k/a", Some("value"), stamp(10));
        stores.put_all("k/b", None, stamp(11));
        assert_eq!(check(&stores, 0), Ok(()));
    }

    #[test]
    fn value_stamp_and_tombstone_must_all_be_equal() {
        for (value, at) in [(Some("other"), 10), (Some("value"), 9), (None, 10)] {
            let mut stores = Stores::of_three();
            stores.put(1, "k", Some("value"), stamp(10));
            stores.put(2, "k", Some("value"), stamp(10));
            stores.put(3, "k", value, stamp(at));
            assert!(check(&stores, 0).is_err(), "{value:?} {at}");
        }
    }

    #[test]
    fn missing_tombstone_is_a_difference_until_the_floor_has_passed_it() {
        let mut stores = Stores::of_three();
        stores.put(1, "k", None, stamp(10));
        assert!(check(&stores, 0).is_err());
        stores.set_floors(2, stamp(10));
        stores.set_floors(3, stamp(9));
        assert!(check(&stores, 0).is_err(), "the third node has no such floor");
        stores.set_floors(1, stamp(10));
        assert_eq!(check(&stores, 0), Ok(()));
    }

    #[test]
    fn what_a_row_tombstone_hides_makes_no_difference() {
        let mut stores = Stores::of_three();
        for node in 1..=3 {
            stores.delete_row(node, "k", stamp(20));
        }
        stores.put(1, "k/a", Some("hidden"), stamp(10));
        stores.put(2, "k/b", None, stamp(10));
        assert_eq!(check(&stores, 0), Ok(()));
        stores.delete_row(1, "k", stamp(21));
        assert!(check(&stores, 0).is_err());
    }
}
