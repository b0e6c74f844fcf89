//! Pages of a partition, compared without their values.
//!
//! One side of a session of anti-entropy tells what it has by places and stamps; the other looks
//! at its own entries and finds what must go which way. The rule is that of [`super::merge`], cut
//! in two: whoever has the entry that counts gives it to the other, unless the other's row
//! tombstone hides it, and unless a floor says that it was deleted.
//!
//! What the receiver's floor covers is not given if the receiver has nothing at its place: it had
//! it once, and refuses it. If the giver's floor is lower, the entry is a ghost, and the giver
//! erases it.
//!
//! If the receiver has something *older* there, it never had the entry, and as its floor holds
//! for all replicas, nor did any of them: the entry is a **stray**. It was on one disk alone, that
//! disk was lost and its floor forgotten, and an older disk brings it back. No newer entry can
//! have been deleted at the place, or the older one would have gone with it. So a stray is given
//! like any other newer entry.

use std::collections::BTreeMap;

use super::floor;
use super::merge;
use super::message::{Chunk, Outlined};
use crate::base::{Entry, Payload, Stamp, Written};
use crate::codec::keycode;
use crate::{planted, probe};

/// What a comparison finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Own entries that the other side lacks.
    pub(super) entries: Vec<Entry>,
    /// Places of entries that this side lacks, and whether each is a row's tombstone.
    pub(super) wanted: Vec<(Payload, bool)>,
    /// Tombstones that erase own ghosts.
    pub(super) erased: Vec<Entry>,
}

/// Cuts a page so that its outline has at most `count_max` places; it keeps at least one.
pub(super) fn limit(page: &mut Chunk, count_max: usize) {
    let end = page.entries.get(count_max.max(1)).map(|entry| entry.place.clone());
    let Some(end) = end else { return };
    // A cut between a row's tombstone and the cell at the same place would make no progress.
    let first = page.entries.first().map(|entry| entry.place.clone());
    if first.is_some_and(|first| first < end) {
        page.entries.retain(|entry| entry.place < end);
        page.covered = Some(end);
    }
}

/// Tells a page without its values.
pub(super) fn outline_of(page: &Chunk) -> Vec<Outlined> {
    page.entries.iter().map(outlined).collect()
}

fn outlined(entry: &Entry) -> Outlined {
    Outlined {
        place: entry.place.clone(),
        stamp: entry.stamp,
        is_row: entry.written == Written::RowDeleted,
        is_tombstone: entry.is_tombstone(),
    }
}

/// Returns what erases a ghost: a tombstone of its own stamp, which wins against it alone. `None`
/// for a tombstone, which a floor makes forgotten as it is.
pub(super) fn eraser(ghost: &Entry) -> Option<Entry> {
    let eraser = Entry { written: Written::Deleted, ..ghost.clone() };
    (!ghost.is_tombstone()).then_some(eraser)
}

/// Tells whether an entry that the own floor covers is a stray, because this side has something
/// older at its place.
pub(super) fn is_stray(page: &Chunk, entry: &Entry) -> bool {
    let found = page.entries.binary_search_by(|mine| mine.order().cmp(&entry.order()));
    let mine = found.ok().and_then(|at| page.entries.get(at));
    mine.is_some_and(|mine| entry.beats(mine))
}

/// Both sides' entries of one place.
#[derive(Default)]
struct Pair<'a> {
    mine: Option<&'a Entry>,
    theirs: Option<&'a Outlined>,
}

/// The row whose cells are passed, with the tombstones that both sides have of it.
#[derive(Default)]
struct Row<'a> {
    place: &'a [u8],
    mine: Stamp,
    theirs: Stamp,
}

/// Compares own entries with an outline of the other side, for places before `end`.
pub(super) fn compare(
    mine: &Chunk,
    outline: &[Outlined],
    their_floor: Stamp,
    end: Option<&Payload>,
) -> Compared {
    let mut pairs: BTreeMap<(&[u8], bool), Pair<'_>> = BTreeMap::new();
    let is_before = |place: &Payload| end.is_none_or(|end| place < end);
    for entry in mine.entries.iter().filter(|entry| is_before(&entry.place)) {
        pairs.entry(entry.order()).or_default().mine = Some(entry);
    }
    for told in outline.iter().filter(|told| is_before(&told.place)) {
        let order = (told.place.as_bytes(), !told.is_row);
        pairs.entry(order).or_default().theirs = Some(told);
    }
    let mut compared = Compared::default();
    let mut row = Row::default();
    for ((place, is_cell), pair) in &pairs {
        if !is_cell {
            let mine = pair.mine.map(|entry| entry.stamp).unwrap_or_default();
            let theirs = pair.theirs.map(|told| told.stamp).unwrap_or_default();
            row = Row { place, mine, theirs };
        } else if keycode::row_prefix(place) != row.place {
            row = Row::default();
        }
        compare_place(&mut compared, pair, &row, [mine.floor, their_floor]);
    }
    compared
}

fn compare_place(compared: &mut Compared, pair: &Pair<'_>, row: &Row<'_>, floors: [Stamp; 2]) {
    let [my_floor, their_floor] = floors;
    let rank_of_mine = pair.mine.map(|entry| (entry.stamp, entry.is_tombstone()));
    let rank_of_theirs = pair.theirs.map(|told| (told.stamp, told.is_tombstone));
    match (pair.mine, pair.theirs) {
        (Some(entry), _) if rank_of_mine > rank_of_theirs => {
            let is_hidden = entry.stamp < row.theirs;
            if is_hidden || planted!("D21") && entry.is_tombstone() {
                return;
            }
            let is_absent = pair.theirs.is_none();
            if is_absent && merge::is_ghost_between(entry.stamp, my_floor, their_floor) {
                probe!("dynamo.sync_erases_ghost");
                compared.erased.extend(eraser(entry));
            } else if !is_absent && !planted!("D64") || !floor::is_under(entry.stamp, their_floor) {
                compared.entries.push(entry.clone());
            }
        }
        (_, Some(told)) if rank_of_theirs > rank_of_mine => {
            let is_hidden = told.stamp < row.mine;
            // What the own floor covers is wanted only to be told that it is a ghost.
            let is_ghost = pair.mine.is_none() && !told.is_tombstone;
            let is_useful = is_ghost || !floor::is_under(told.stamp, my_floor);
            if !is_hidden && is_useful && !(planted!("D21") && told.is_tombstone) {
                compared.wanted.push((told.place.clone(), told.is_row));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::keycode::encode_cell;

    fn stamp(number: u64) -> Stamp {
        Stamp::from_version(number)
    }

    fn entry(column: &str, number: u64, written: Written) -> Entry {
        let place = encode_cell(&[1, 1, b'k'], column.as_bytes());
        Entry { place: Payload::new(place).unwrap(), stamp: stamp(number), written }
    }

    fn value(column: &str, number: u64) -> Entry {
        entry(column, number, Written::Value(Payload::new(b"v".to_vec()).unwrap()))
    }

    fn page(entries: Vec<Entry>, floor: u64) -> Chunk {
        Chunk { entries, covered: None, floor: stamp(floor) }
    }

    fn compared(mine: &Chunk, theirs: &Chunk) -> Compared {
        compare(mine, &outline_of(theirs), theirs.floor, None)
    }

    #[test]
    fn each_side_gets_what_it_lacks() {
        let mine = page(vec![value("a", 1), value("b", 5), value("c", 3)], 0);
        let theirs = page(vec![value("b", 4), value("c", 4), value("d", 1)], 0);
        let found = compared(&mine, &theirs);
        assert_eq!(found.entries, [value("a", 1), value("b", 5)]);
        let wanted: Vec<Payload> = found.wanted.into_iter().map(|(place, _)| place).collect();
        assert_eq!(wanted, [value("c", 0).place, value("d", 0).place]);
        assert_eq!(found.erased, []);
    }

    #[test]
    fn tombstone_of_the_same_stamp_wins() {
        let erased = entry("a", 1, Written::Deleted);
        let found = compared(&page(vec![erased.clone()], 0), &page(vec![value("a", 1)], 0));
        assert_eq!((found.entries, found.wanted), (vec![erased.clone()], vec![]));
        let found = compared(&page(vec![value("a", 1)], 0), &page(vec![erased], 0));
        assert_eq!((found.entries.len(), found.wanted.len()), (0, 1));
    }

    #[test]
    fn what_a_row_tombstone_hides_goes_nowhere() {
        let row = entry("", 5, Written::RowDeleted);
        let cells = page(vec![value("a", 1), value("b", 5)], 0);
        let found = compared(&cells, &page(vec![row.clone()], 0));
        assert_eq!(found.entries, [value("b", 5)]);
        assert_eq!(found.wanted, [(row.place.clone(), true)]);
        let found = compared(&page(vec![row.clone()], 0), &cells);
        assert_eq!(found.entries, [row]);
        assert_eq!(found.wanted, [(value("b", 5).place, false)]);
    }

    #[test]
    fn ghost_is_erased_where_it_is_and_not_given() {
        let found = compared(&page(vec![value("a", 3)], 0), &page(vec![], 4));
        assert_eq!(found.erased, [entry("a", 3, Written::Deleted)]);
        assert_eq!(found.entries, []);
        let found = compared(&page(vec![], 4), &page(vec![value("a", 3)], 0));
        assert_eq!(found.wanted, [(value("a", 3).place, false)], "to tell its owner");
    }

    #[test]
    fn what_the_floor_of_the_receiver_covers_is_not_given() {
        let deleted = entry("a", 3, Written::Deleted);
        let found = compared(&page(vec![deleted.clone()], 4), &page(vec![], 4));
        assert_eq!(found, Compared::default(), "they had it, and forgot it");
        let found = compared(&page(vec![], 4), &page(vec![deleted], 4));
        assert_eq!(found, Compared::default(), "we had it, and forgot it");
    }

    #[test]
    fn page_with_too_many_places_is_cut_between_two() {
        let row = entry("", 5, Written::RowDeleted);
        let mut cut = page(vec![row.clone(), value("", 6), value("a", 6)], 0);
        limit(&mut cut, 2);
        assert_eq!(cut.entries, [row.clone(), value("", 6)]);
        assert_eq!(cut.covered, Some(value("a", 6).place));
        let mut whole = page(vec![row.clone(), value("", 6)], 0);
        limit(&mut whole, 1);
        assert_eq!(whole.entries.len(), 2, "a row's tombstone and its empty column stay together");
    }
}
