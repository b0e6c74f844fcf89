//! What a majority is, and what it has reached.
//!
//! Any two majorities of the same voters share one of them; every safety argument of the
//! protocol rests on that overlap. [Raft §5.2, §5.4.3]

use crate::planted;

/// Returns how many of `voters` make a majority.
pub fn majority(voters: usize) -> usize {
    if planted!("R8") {
        return (voters / 2).max(1);
    }
    voters / 2 + 1
}

/// Returns the largest value that a majority of the voters has reached: one value per voter.
///
/// Sorted ascending, the value at position `len - majority` is reached by all those after it.
pub fn majority_value<T: Ord + Copy>(values: &mut [T]) -> Option<T> {
    values.sort_unstable();
    majority_value_sorted(values)
}

/// [`majority_value`] of values that are sorted already.
pub fn majority_value_sorted<T: Copy>(values: &[T]) -> Option<T> {
    values.get(values.len().checked_sub(majority(values.len()))?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majority_is_more_than_half() {
        assert_eq!([1, 2, 3, 4, 5].map(majority), [1, 2, 2, 3, 3]);
    }

    #[test]
    fn majority_value_is_reached_by_a_majority() {
        assert_eq!(majority_value(&mut [9]), Some(9));
        assert_eq!(majority_value(&mut [9, 1]), Some(1));
        assert_eq!(majority_value(&mut [9, 1, 5]), Some(5));
        assert_eq!(majority_value(&mut [4, 9, 1, 5, 2]), Some(4));
        assert_eq!(majority_value::<u64>(&mut []), None);
    }
}
