//! What the table store keeps at a place, borrowed from wherever it lies.
//!
//! Memtables and tables hold *entries* sorted by place. A place has one entry in each of them,
//! but for the first place of a row, which may also carry the row's tombstone: it stands before
//! the row's own cells, so a reader that comes along in order meets it first.

/// An entry of a memtable or a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// Where, as [`crate::codec::keycode`] encodes it.
    pub place: &'a [u8],
    /// When it was written: the log index, or whatever else only grows. Among entries of a place
    /// the highest one counts.
    pub version: u64,
    /// What was written.
    pub content: Content<'a>,
}

/// What a write left at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A value.
    Value(&'a [u8]),
    /// A tombstone: there is nothing, whatever older entries of the place say.
    Deleted,
    /// A tombstone of the row that begins here: it hides all cells of the row with a *smaller*
    /// version. Those of the same version were written by the same batch after it.
    RowDeleted,
}

impl Cell<'_> {
    /// Returns what entries are sorted by: the place, and a row's tombstone before its cells.
    pub fn order(&self) -> (&[u8], bool) {
        (self.place, self.content != Content::RowDeleted)
    }
}

/// Returns the first 16 bytes of a place as a number that sorts as they do: most comparisons of
/// places are settled by it, without a look at the places.
pub(super) fn head_of(place: &[u8]) -> u128 {
    if let Some(head) = place.first_chunk::<16>() {
        return u128::from_be_bytes(*head);
    }
    let mut head = [0; 16];
    if let Some(start) = head.get_mut(..place.len()) {
        start.copy_from_slice(place);
    }
    u128::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_sort_as_their_places_unless_they_are_equal(
            a in prop::collection::vec(0_u8..3, 0..20),
            b in prop::collection::vec(0_u8..3, 0..20),
        ) {
            let order = head_of(&a).cmp(&head_of(&b));
            prop_assert!(order.is_eq() || order == a.cmp(&b), "{a:?} and {b:?}: {order:?}");
        }
    }
}
