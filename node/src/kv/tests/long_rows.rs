//! Deleting a row that is too long to be read in one turn.

use super::conditions::Counting;
use super::*;
use crate::dynamo::{Found, LeafChanges, Partition, Record, StoreRead, merkle};
use crate::kv::cell_store::HIDDEN_BYTES_MAX;

/// Rows of partition 0: the long one lies between two short ones.
const BEFORE: u8 = 1;
const LONG: u8 = 2;
const AFTER: u8 = 3;
const CELLS: u32 = 100_000;
const PAGE_BYTES: usize = 64 << 10;

struct Scene {
    store: CellStore<Counting>,
    leaves: Vec<u64>,
}

fn cell_of(row: u8, column: u32) -> Entry {
    let place = place_in(0, &keycode::encode_cell(&[row], &column.to_be_bytes()));
    set(place, stamp(u64::from(column) + 1, 1), b"value")
}

fn tombstone(row: u8) -> Entry {
    delete_row(place(0, row, 0), stamp(u64::from(CELLS) * 2, 1))
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            store: CellStore::new(Counting::new()),
            leaves: vec![0; merkle::LEAF_COUNT.into()],
        };
        let short = |row| (0..3).map(move |column| cell_of(row, column));
        let mut entries: Vec<Entry> = short(BEFORE).chain(short(AFTER)).collect();
        entries.extend((0..CELLS).map(|column| cell_of(LONG, column)));
        scene.apply(entries);
        scene
    }

    /// Applies entries of partition 0; tells whether its leaves are void, which starts them anew.
    fn apply(&mut self, entries: Vec<Entry>) -> bool {
        self.store.engine().raw_bytes_max.set(0);
        let id = self.store.applied() + 1;
        let applied = self.store.apply(id, &[Record::Entries(entries)]);
        let LeafChanges { deltas, void } = applied.unwrap_or_else(|error| panic!("{error}"));
        let bytes_max = self.store.engine().raw_bytes_max.get();
        assert!(bytes_max <= HIDDEN_BYTES_MAX, "a scan may pass {bytes_max} bytes in one turn");
        if void == [0] {
            assert_eq!(deltas, [], "of leaves that are void");
            self.leaves.fill(0);
            return true;
        }
        assert_eq!(void, Vec::<Partition>::new());
        for (_, leaf, delta) in deltas {
            self.leaves[usize::from(leaf)] ^= delta;
        }
        false
    }

    /// Reads the page of the leaves from `start` on; returns where the next one begins.
    fn page(&mut self, start: Payload, bytes_max: usize) -> (Vec<u64>, Option<Payload>) {
        let read = StoreRead::Leaves { partition: 0, floor: Stamp::ZERO, start, bytes_max };
        match self.store.read(&read) {
            Ok(Found::Leaves { leaves, next, .. }) => (leaves, next),
            other => panic!("{other:?}"),
        }
    }

    /// Reads all leaves in pages, from `start` on, with `between` after the first one.
    fn build(&mut self, start: Payload, mut between: impl FnMut(&mut Self)) {
        let mut next = Some(start);
        while let Some(start) = next {
            let (page, after) = self.page(start, PAGE_BYTES);
            self.leaves.iter_mut().zip(page).for_each(|(leaf, hash)| *leaf ^= hash);
            next = after;
            between(self);
        }
    }

    fn check(&mut self) {
        let (whole, next) = self.page(place_in(0, &[]), usize::MAX);
        assert_eq!((next, &whole), (None, &self.leaves));
    }
}

#[test]
fn row_too_long_for_one_turn_makes_the_leaves_void_until_they_are_read_anew() {
    let mut scene = Scene::new();
    scene.check();
    assert!(scene.apply(vec![tombstone(LONG)]));
    let shown = visible(&scene.store);
    assert_eq!(shown.len(), 7, "the tombstone and the short rows: {shown:?}");
    scene.build(place_in(0, &[]), |_| {});
    scene.check();
    assert!(!scene.apply(vec![tombstone(BEFORE)]), "a short row is read at once");
    scene.check();
}

#[test]
fn row_that_is_deleted_while_its_leaves_are_read_counts_as_far_as_they_were() {
    let mut scene = Scene::new();
    scene.leaves.fill(0);
    let mut page_count = 0;
    scene.build(place_in(0, &[]), |scene| {
        page_count += 1;
        if page_count == 1 {
            assert!(!scene.apply(vec![tombstone(LONG)]), "of the rest nothing is in the leaves");
        }
    });
    assert!(page_count > 1, "{page_count} pages");
    scene.check();

    let mut scene = Scene::new();
    scene.leaves.fill(0);
    let (mut page_count, mut is_void) = (0, false);
    scene.build(place_in(0, &[]), |scene| {
        page_count += 1;
        if page_count == 15 {
            is_void = scene.apply(vec![tombstone(LONG)]);
        }
    });
    assert!(is_void && page_count > 15, "{page_count} pages");
    scene.leaves.fill(0);
    scene.build(place_in(0, &[]), |_| {});
    scene.check();
}

#[test]
fn start_that_deletes_a_long_row_again_does_not_read_it() {
    let mut scene = Scene::new();
    scene.store.engine().raw_bytes_max.set(0);
    let id = scene.store.applied() + 1;
    let replayed = scene.store.replay(id, &[Record::Entries(vec![tombstone(LONG)])]);
    assert_eq!(replayed, Ok(()));
    assert_eq!(scene.store.engine().raw_bytes_max.get(), 0, "no scan");
    assert_eq!(visible(&scene.store).len(), 7);
}
