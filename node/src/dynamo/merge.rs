//! What several replicas have in a range, made one, and what each of them lacks of it.
//!
//! The rule is the same everywhere in the masterless mode: of what was written at a place the
//! entry that [beats](Entry::beats) the others counts, and a row's tombstone hides the cells of
//! its row with a smaller stamp. So merging does not depend on the order of the replicas, merging
//! the result with one of them again changes nothing, and merging in steps gives what merging at
//! once does. `read` merges the answers of replicas by it; the store applies writes by it.
//!
//! # Pages
//! A chunk tells nothing of the places from its `covered` on. So several are merged only up to
//! the least of theirs: behind it one replica's silence means nothing, and neither an answer nor
//! a repair may rest on it.
//!
//! # Ghosts
//! A replica with floor F had every write up to F once. An entry up to F that it has not (nor
//! anything newer, which would win) it has seen deleted, and has forgotten the tombstone: what
//! another replica still shows is a *ghost*, of an old disk. Ghosts are dropped from the answer,
//! and are no reason for a repair. Only a floor *higher* than the holders' counts as evidence: of
//! two replicas with the same floor both had the write, so one has lost it, and to lose data to
//! somebody's lost disk is worse than to show an old value. A ghost still hides what it hid: that
//! is older than itself, and just as deleted.

use std::collections::BTreeMap;

use super::floor;
use super::merkle::entry_hash;
use super::message::{Chunk, Range};
use super::placement;
use crate::base::hash::{hash64, mix64};
use crate::base::{Entry, Payload, Stamp};
use crate::codec::keycode;
use crate::{planted, probe};

/// What several chunks of a range are together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Merged {
    /// What counts: tombstones included, neither what they hide nor ghosts.
    pub(super) chunk: Chunk,
    /// What each replica lacks of it, in the order of the chunks.
    pub(super) lacking: Vec<Vec<Entry>>,
}

/// What the replicas have at one place, in their order.
type Slot<'a> = Vec<Option<&'a Entry>>;

/// Merges the chunks of different replicas for one range.
pub(super) fn merge(chunks: &[&Chunk]) -> Merged {
    let covered = chunks.iter().filter_map(|chunk| chunk.covered.as_ref()).min().cloned();
    let is_covered = |entry: &&Entry| covered.as_ref().is_none_or(|end| entry.place < *end);
    let mut slots: BTreeMap<(&[u8], bool), Slot<'_>> = BTreeMap::new();
    for (replica, chunk) in chunks.iter().enumerate() {
        for entry in chunk.entries.iter().filter(is_covered) {
            let slot = slots.entry(entry.order()).or_insert_with(|| vec![None; chunks.len()]);
            if let Some(at) = slot.get_mut(replica) {
                *at = Some(entry);
            }
        }
    }
    let floors: Vec<Stamp> = chunks.iter().map(|chunk| chunk.floor).collect();
    let mut merged = Merged { chunk: Chunk::default(), lacking: vec![Vec::new(); chunks.len()] };
    let mut row: Option<&Entry> = None;
    for ((place, is_cell), slot) in &slots {
        let Some(winner) = newest(slot) else { continue };
        if !is_cell {
            row = Some(winner);
        } else if row.is_some_and(|row| hides(row, place, winner.stamp)) {
            continue;
        }
        if is_ghost(winner, slot, &floors) {
            probe!("dynamo.read_drops_ghost");
            continue;
        }
        if planted!("D3") && slot.iter().any(Option::is_none) {
            continue;
        }
        for ((at, lacking), floor) in slot.iter().zip(&mut merged.lacking).zip(&floors) {
            // A tombstone under its own floor it has had, and may have purged since.
            let is_purged =
                at.is_none() && winner.is_tombstone() && floor::is_under(winner.stamp, *floor);
            let is_missing = at.is_none_or(|entry| winner.beats(entry)) && !is_purged;
            if is_missing && !(planted!("D21") && winner.is_tombstone()) {
                lacking.push(winner.clone());
            }
        }
        merged.chunk.entries.push(winner.clone());
    }
    merged.chunk.covered = covered;
    merged.chunk.floor = floors.into_iter().max().unwrap_or_default();
    merged
}

/// Merges the chunks of different replicas for one range, as the coordinator of a read does;
/// returns what counts, and what each replica lacks of it.
#[cfg(feature = "testing")]
pub fn merged(chunks: &[&Chunk]) -> (Chunk, Vec<Vec<Entry>>) {
    let Merged { chunk, lacking } = merge(chunks);
    (chunk, lacking)
}

impl Merged {
    /// Closes it early, so that it is no longer than what one replica may answer: one entry more
    /// than `bytes_left`, from which it is taken. A repair of it fits into a record and a frame.
    pub(super) fn cut(&mut self, start: &Payload, bytes_left: &mut usize) {
        let mut last: Option<&Payload> = None;
        let mut covered = (*bytes_left == 0).then(|| start.clone());
        for entry in &self.chunk.entries {
            // The tombstone of a row and the cell at the same place stay together.
            if covered.is_some() || *bytes_left == 0 && last != Some(&entry.place) {
                covered.get_or_insert_with(|| entry.place.clone());
                break;
            }
            *bytes_left = bytes_left.saturating_sub(entry.bytes());
            last = Some(&entry.place);
        }
        let Some(covered) = covered else { return };
        if self.chunk.covered.as_ref().is_some_and(|before| *before <= covered) {
            return;
        }
        probe!("dynamo.read_is_closed_early");
        self.chunk.entries.retain(|entry| entry.place < covered);
        self.lacking.iter_mut().for_each(|all| all.retain(|entry| entry.place < covered));
        self.chunk.covered = Some(covered);
    }
}

/// Returns the entry of a place that counts.
fn newest<'a>(slot: &Slot<'a>) -> Option<&'a Entry> {
    let mut newest: Option<&Entry> = None;
    for entry in slot.iter().copied().flatten() {
        if newest.is_none_or(|newest| entry.beats(newest)) {
            newest = Some(entry);
        }
    }
    newest
}

/// Tells whether the tombstone `row` of a row hides a cell.
fn hides(row: &Entry, place: &[u8], stamp: Stamp) -> bool {
    stamp < row.stamp && keycode::row_prefix(place) == row.place.as_bytes()
}

/// Tells whether a replica with a higher floor than all that have the entry has nothing there.
fn is_ghost(winner: &Entry, slot: &Slot<'_>, floors: &[Stamp]) -> bool {
    let mut holders = Stamp::ZERO;
    let mut others = Stamp::ZERO;
    for (at, floor) in slot.iter().zip(floors) {
        match at {
            Some(entry) if !winner.beats(entry) => holders = holders.max(*floor),
            // Who has something older never had this entry, whatever its floor says.
            Some(_) => {}
            None => others = others.max(*floor),
        }
    }
    is_ghost_between(winner.stamp, holders, others)
}

/// Tells whether an entry that one replica has is a ghost, because another with that floor has
/// nothing at its place.
pub(super) fn is_ghost_between(stamp: Stamp, holder: Stamp, other: Stamp) -> bool {
    holder < other && floor::is_under(stamp, other)
}

/// Adds entries to a chunk as the store of the replica does.
pub(super) fn add(chunk: &mut Chunk, entries: Vec<Entry>) {
    let added = Chunk { entries, covered: chunk.covered.clone(), floor: chunk.floor };
    *chunk = merge(&[chunk, &added]).chunk;
}

/// Returns the digest of an answer: the same for replicas that have the same entries and cover as
/// much. Tombstones up to the floor are left out, since they may be gone at any time; so two
/// answers with the same digest differ at most in what nobody will ask for.
pub(super) fn digest(chunks: &[Chunk]) -> u64 {
    const DIGEST_SEED: u64 = 3;
    const COMPLETE: u64 = 4;
    let of_entry = |entry: &Entry| {
        let (place, is_cell) = entry.order();
        entry_hash(place, !is_cell, entry.stamp, entry.is_tombstone())
    };
    chunks.iter().fold(DIGEST_SEED, |digest, chunk| {
        let covered = chunk.covered.as_ref();
        let covered = covered.map_or(COMPLETE, |end| hash64(DIGEST_SEED, end.as_bytes()));
        let told = chunk.entries.iter().filter(|e| !(e.is_tombstone() && e.stamp <= chunk.floor));
        told.map(of_entry).fold(mix64(digest, covered), mix64)
    })
}

/// Removes the tombstones from a chunk, for a client.
pub(super) fn strip(chunk: &mut Chunk) {
    chunk.entries.retain(|entry| !entry.is_tombstone());
}

/// Returns the largest stamp in a chunk.
pub(super) fn largest_stamp(chunk: &Chunk) -> Stamp {
    chunk.entries.iter().map(|entry| entry.stamp).max().unwrap_or_default()
}

/// Tells whether a chunk is one that a replica can have sent for this range.
pub(super) fn is_answer(range: &Range, chunk: &Chunk) -> bool {
    let end = match (&chunk.covered, &range.end) {
        (Some(covered), Some(end)) if covered > end => return false,
        (Some(covered), _) if *covered < range.start => return false,
        (Some(covered), _) => Some(covered),
        (None, end) => end.as_ref(),
    };
    let row = keycode::row_prefix(range.start.as_bytes());
    let is_within = |entry: &Entry| {
        let (place, is_cell) = entry.order();
        let is_first_row = !is_cell && place == row;
        placement::partition_of_place(place) == Some(range.partition)
            && (entry.place >= range.start || is_first_row)
            && (end.is_none_or(|end| entry.place < *end) || is_first_row)
    };
    chunk.entries.iter().all(is_within) && chunk.entries.is_sorted_by(|a, b| a.order() < b.order())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Written;
    use crate::codec::keycode::encode_cell;

    fn stamp(number: u64) -> Stamp {
        Stamp::from_version(number)
    }

    /// An entry of a row and column; kind 0: a value, 1: a tombstone, 2: the row's tombstone.
    fn entry(row: u8, column: u8, number: u64, kind: u8) -> Entry {
        let key = [1, 1, row];
        let place = if kind == 2 { encode_cell(&key, &[]) } else { encode_cell(&key, &[column]) };
        let written = match kind {
            0 => Written::Value(Payload::new(number.to_be_bytes().to_vec()).unwrap()),
            1 => Written::Deleted,
            _ => Written::RowDeleted,
        };
        Entry { place: Payload::new(place).unwrap(), stamp: stamp(number), written }
    }

    fn chunk(entries: Vec<Entry>) -> Chunk {
        let mut chunk = Chunk::default();
        for entry in entries {
            add(&mut chunk, vec![entry]);
        }
        chunk
    }

    fn with_floor(entries: Vec<Entry>, floor: u64) -> Chunk {
        Chunk { floor: stamp(floor), ..chunk(entries) }
    }

    /// What a replica may have: any part of what was ever written.
    fn chunks() -> impl Strategy<Value = Vec<Chunk>> {
        let written = (0..3_u8, 0..3_u8, 0..3_u8).prop_map(|(row, column, kind)| {
            let number = u64::from(row) * 9 + u64::from(column) * 3 + u64::from(kind) + 1;
            entry(row, column, number * 7 % 29, kind)
        });
        let replica = prop::collection::vec(written, 0..12).prop_map(chunk);
        prop::collection::vec(replica, 1..5)
    }

    fn merged(chunks: &[Chunk]) -> Chunk {
        merge(&chunks.iter().collect::<Vec<_>>()).chunk
    }

    proptest! {
        #[test]
        fn merging_does_not_depend_on_the_order(chunks in chunks()) {
            let mut turned = chunks.clone();
            turned.reverse();
            prop_assert_eq!(merged(&chunks), merged(&turned));
        }

        #[test]
        fn merging_again_changes_nothing(chunks in chunks()) {
            let once = merged(&chunks);
            for chunk in chunks {
                prop_assert_eq!(&merged(&[once.clone(), chunk]), &once);
            }
        }

        #[test]
        fn merging_in_steps_is_merging_at_once(chunks in chunks()) {
            let in_steps = chunks.iter().cloned().reduce(|a, b| merged(&[a, b])).unwrap();
            prop_assert_eq!(in_steps, merged(&chunks));
        }

        #[test]
        fn replicas_that_get_what_they_lack_are_equal(chunks in chunks()) {
            let merged = merge(&chunks.iter().collect::<Vec<_>>());
            for (mut chunk, lacking) in chunks.into_iter().zip(merged.lacking) {
                add(&mut chunk, lacking);
                prop_assert_eq!(&chunk.entries, &merged.chunk.entries);
                prop_assert_eq!(digest(&[chunk]), digest(std::slice::from_ref(&merged.chunk)));
            }
        }
    }

    #[test]
    fn pages_are_merged_up_to_the_least_that_is_covered() {
        let mut short = chunk(vec![entry(1, 1, 1, 0)]);
        short.covered = Some(entry(2, 2, 0, 0).place);
        let long = chunk(vec![entry(1, 1, 1, 0), entry(2, 1, 2, 0), entry(2, 2, 3, 0)]);
        let merged = merge(&[&short, &long]);
        assert_eq!(merged.chunk.covered, short.covered);
        assert_eq!(merged.chunk.entries, [entry(1, 1, 1, 0), entry(2, 1, 2, 0)]);
        assert_eq!(merged.lacking, [vec![entry(2, 1, 2, 0)], vec![]], "nothing behind the page");
    }

    /// The accident: a coordinator was to store a tombstone that its own floor had let it forget,
    /// refused, and read again until the request timed out.
    #[test]
    fn replica_does_not_lack_the_tombstone_that_it_has_purged() {
        let (tombstone, cell) = (entry(1, 0, 2, 2), entry(2, 1, 9, 0));
        let holder = with_floor(vec![tombstone.clone(), cell.clone()], 3);
        let purged = with_floor(Vec::new(), 3);
        let merged = merge(&[&holder, &purged]);
        assert_eq!(merged.lacking, [vec![], vec![cell.clone()]]);
        let behind = with_floor(Vec::new(), 1);
        let merged = merge(&[&holder, &behind]);
        assert_eq!(merged.lacking, [vec![], vec![tombstone, cell]], "it may never have had it");
    }

    #[test]
    fn merged_answer_is_no_longer_than_one_of_a_replica() {
        let all: Vec<Entry> = (1..7).map(|row| entry(row, 1, u64::from(row), 0)).collect();
        let (one, other): (Vec<Entry>, Vec<Entry>) =
            all.iter().cloned().partition(|entry| entry.stamp.version() % 2 == 0);
        let start = entry(0, 1, 0, 0).place;
        let entry_bytes = all[0].bytes();
        for left in 0..=all.len() {
            let mut bytes_left = left * entry_bytes;
            let mut merged = merge(&[&chunk(one.clone()), &chunk(other.clone())]);
            merged.cut(&start, &mut bytes_left);
            assert_eq!(bytes_left, 0, "{left}");
            assert_eq!(merged.chunk.entries, all[..left], "{left}");
            let rest = all.get(left).map(|next| if left == 0 { &start } else { &next.place });
            assert_eq!(merged.chunk.covered.as_ref(), rest, "{left}");
            let lacking: usize = merged.lacking.iter().map(Vec::len).sum();
            assert_eq!(lacking, left, "each lacks what the other has of it");
        }
    }

    #[test]
    fn row_tombstone_hides_smaller_stamps_alone() {
        let cells = chunk(vec![entry(1, 1, 4, 0), entry(1, 2, 5, 0), entry(2, 1, 1, 0)]);
        let row = chunk(vec![entry(1, 0, 5, 2)]);
        let merged = merge(&[&cells, &row]);
        let left = [entry(1, 0, 5, 2), entry(1, 2, 5, 0), entry(2, 1, 1, 0)];
        assert_eq!(merged.chunk.entries, left, "the same request may write the row again");
    }

    #[test]
    fn ghost_is_dropped_and_not_repaired() {
        let old = with_floor(vec![entry(1, 1, 4, 0), entry(1, 2, 9, 0)], 2);
        let new = with_floor(vec![], 5);
        let merged = merge(&[&old, &new]);
        assert_eq!(merged.chunk.entries, [entry(1, 2, 9, 0)], "what is above the floor is none");
        assert_eq!(merged.lacking, [vec![], vec![entry(1, 2, 9, 0)]]);
    }

    #[test]
    fn entry_that_a_replica_with_as_high_a_floor_has_is_no_ghost() {
        let holder = with_floor(vec![entry(1, 1, 4, 0)], 5);
        let other = with_floor(vec![], 5);
        assert_eq!(merge(&[&holder, &other]).chunk.entries, [entry(1, 1, 4, 0)]);
    }

    #[test]
    fn ghost_tombstone_still_hides_what_is_older() {
        let older = with_floor(vec![entry(1, 1, 3, 0), entry(1, 2, 1, 0)], 0);
        let deleted = with_floor(vec![entry(1, 0, 2, 2), entry(1, 1, 4, 1)], 0);
        let forgot = with_floor(vec![], 5);
        assert_eq!(merge(&[&older, &deleted, &forgot]).chunk.entries, []);
    }

    #[test]
    fn digest_leaves_out_what_a_replica_may_forget() {
        let keeps = with_floor(vec![entry(1, 1, 4, 1), entry(1, 2, 9, 0)], 5);
        let forgot = with_floor(vec![entry(1, 2, 9, 0)], 5);
        assert_eq!(digest(std::slice::from_ref(&keeps)), digest(&[forgot]));
        let below = Chunk { floor: stamp(3), ..keeps.clone() };
        assert_ne!(digest(&[keeps]), digest(&[below]), "here it may not");
    }

    #[test]
    fn answer_outside_its_range_is_none() {
        let place = |row, column| entry(row, column, 0, 0).place;
        let (start, end) = (place(1, 2), Some(place(2, 2)));
        let range = Range { partition: 0, start, end, limit: 9 };
        let is_answer = |chunk: Chunk| is_answer(&range, &chunk);
        assert!(is_answer(chunk(vec![entry(1, 0, 1, 2), entry(1, 2, 3, 0), entry(2, 1, 1, 0)])));
        assert!(!is_answer(chunk(vec![entry(1, 1, 1, 0)])), "before");
        assert!(!is_answer(chunk(vec![entry(2, 2, 1, 0)])), "behind");
        assert!(!is_answer(Chunk { covered: Some(place(3, 0)), ..Chunk::default() }), "too far");
        let unsorted = vec![entry(2, 1, 1, 0), entry(1, 2, 1, 0)];
        assert!(!is_answer(Chunk { entries: unsorted, ..Chunk::default() }), "unsorted");
    }
}
