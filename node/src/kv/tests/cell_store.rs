//! Entries in any order, against "the greatest stamp wins" on a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::limits::{KEY_BYTES_MAX, MULTI_GET_BYTES_MAX};
#[cfg(feature = "testing")]
use crate::base::planted::loses_only_with;
use crate::codec;
use crate::dynamo::placement::{NOTE_PREFIX, partition_of_place, place_in};
use crate::dynamo::{Chunk, Found, Partition, Range, Record, StoreRead, merkle};

/// What counts of a set of entries, by place and by whether it is a row's tombstone.
type Merged = BTreeMap<(Payload, bool), Entry>;

fn merge(merged: &mut Merged, entry: &Entry) {
    let (place, is_cell) = (entry.place.clone(), entry.written != Written::RowDeleted);
    let counts = merged.get(&(place.clone(), is_cell)).is_none_or(|known| entry.beats(known));
    if counts {
        merged.insert((place, is_cell), entry.clone());
    }
}

fn row_of(place: &Payload) -> Payload {
    Payload::new(keycode::row_prefix(place.as_bytes()).to_vec()).unwrap_or_default()
}

/// Returns what of a merged set is not hidden by a row's tombstone, sorted.
fn visible_of(merged: &Merged) -> Vec<Entry> {
    let is_visible = |((place, is_cell), entry): &(&(Payload, bool), &Entry)| {
        let row = merged.get(&(row_of(place), false));
        !is_cell || row.is_none_or(|row| entry.stamp >= row.stamp)
    };
    merged.iter().filter(is_visible).map(|(_, entry)| entry.clone()).collect()
}

fn model_of(entries: &[Entry]) -> Vec<Entry> {
    let mut merged = Merged::new();
    for entry in entries {
        merge(&mut merged, entry);
    }
    visible_of(&merged)
}

/// Leaf hashes by partition.
type Leaves = BTreeMap<Partition, Vec<u64>>;

fn no_leaves() -> Leaves {
    (0..PARTITIONS).map(|partition| (partition, vec![0; 64])).collect()
}

fn leaves_of(entries: &[Entry], floor: Stamp) -> Leaves {
    let mut leaves = no_leaves();
    for entry in entries.iter().filter(|e| !(e.is_tombstone() && e.stamp <= floor)) {
        let place = entry.place.as_bytes();
        let is_row = entry.written == Written::RowDeleted;
        let hash = merkle::entry_hash(place, is_row, entry.stamp, entry.is_tombstone());
        let leaf = usize::from(merkle::leaf_of(place));
        let partition = partition_of_place(place).unwrap_or(Partition::MAX);
        leaves.get_mut(&partition).into_iter().for_each(|leaves| leaves[leaf] ^= hash);
    }
    leaves
}

fn read_leaves(node: &mut Node, floor: Stamp) -> Leaves {
    let read = |partition| {
        let start = place_in(partition, &[]);
        let (leaves, next) = node.read_leaves_page(partition, floor, start, usize::MAX);
        assert_eq!(next, None);
        (partition, leaves)
    };
    (0..PARTITIONS).map(read).collect()
}

impl Node {
    fn read_leaves_page(
        &mut self,
        partition: Partition,
        floor: Stamp,
        start: Payload,
        bytes_max: usize,
    ) -> (Vec<u64>, Option<Payload>) {
        match self.store.read(&StoreRead::Leaves { partition, floor, start, bytes_max }) {
            Ok(Found::Leaves { leaves, next, .. }) => (leaves, next),
            other => panic!("{other:?}"),
        }
    }

    /// Returns the latest tombstone of a partition, as reading its leaves in small pages tells it.
    fn read_tombstone(&mut self, partition: Partition) -> Stamp {
        let (mut start, mut latest) = (place_in(partition, &[]), Stamp::ZERO);
        loop {
            let floor = Stamp::from_version(u64::MAX);
            let read = StoreRead::Leaves { partition, floor, start, bytes_max: 30 };
            let Ok(Found::Leaves { next, tombstone, .. }) = self.store.read(&read) else {
                panic!("partition {partition} is unreadable")
            };
            latest = tombstone.max(latest);
            let Some(next) = next else { return latest };
            start = next;
        }
    }

    fn apply(&mut self, entries: &[Entry], leaves: &mut Leaves) {
        self.apply_records(&[Record::Entries(entries.to_vec())], leaves);
    }

    fn apply_records(&mut self, records: &[Record], leaves: &mut Leaves) {
        let id = self.store.applied() + 1;
        let changed = self.store.apply(id, records).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(changed.void, Vec::<Partition>::new(), "the rows are short");
        for (partition, leaf, delta) in changed.deltas {
            assert_ne!(delta, 0);
            let leaves = leaves.entry(partition).or_insert_with(|| vec![0; 64]);
            leaves[usize::from(leaf)] ^= delta;
        }
    }
}

const PARTITIONS: u16 = 3;

fn entry() -> impl Strategy<Value = Entry> {
    let at = (0..PARTITIONS, 0_u8..3, 0_u8..5);
    (at, 1_u64..30, 1_u64..3, 0_u8..12, 0_u8..40).prop_map(|(at, ms, node, kind, len)| {
        let (place, row) = (place(at.0, at.1, at.2), place(at.0, at.1, 0));
        match kind {
            0 => delete_row(row, stamp(ms, node)),
            1..4 => delete(place, stamp(ms, node)),
            // Now and then two writes of a place share a stamp, which the merge rule decides too.
            _ => set(place, stamp(ms, node), &vec![kind; usize::from(len)]),
        }
    })
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Vec<Entry>),
    Flush,
    Compact(usize),
    Settle,
    /// Ends without warning, and applies again what the tables do not cover.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(entry(), 1..12).prop_map(Step::Apply),
        4 => Just(Step::Flush),
        3 => (1_usize..6).prop_map(Step::Compact),
        1 => Just(Step::Settle),
        1 => Just(Step::Restart),
    ]
}

/// A node with its log.
struct Life {
    node: Node,
    log: Vec<Vec<Record>>,
    leaves: Leaves,
}

impl Life {
    fn new() -> Self {
        Self { node: Node::new(), log: Vec::new(), leaves: no_leaves() }
    }

    fn apply(&mut self, records: Vec<Record>) {
        self.node.apply_records(&records, &mut self.leaves);
        self.log.push(records);
    }

    /// Starts anew with the floors that the notes in the tables say, then applies the log.
    fn restart(&mut self, floors: &BTreeMap<u64, (Partition, Stamp)>) {
        self.node = Node::open(self.node.disk.clone());
        let from = self.node.store.applied();
        for (id, (partition, floor)) in floors {
            if *id <= from {
                self.node.store.set_floor(*partition, *floor);
            }
        }
        self.node.keeper.set_purge_floors(self.node.store.purge_floors().clone());
        let log = std::mem::take(&mut self.log);
        for (id, records) in (1..).zip(&log) {
            if id > from {
                self.node.apply_records(records, &mut no_leaves());
                if let Some((partition, floor)) = floors.get(&id) {
                    self.node.store.set_floor(*partition, *floor);
                }
            }
        }
        self.log = log;
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Apply(entries) => self.apply(vec![Record::Entries(entries.clone())]),
            Step::Flush => self.node.flush(),
            Step::Compact(steps) => (0..*steps).for_each(|_| self.node.compact()),
            Step::Settle => self.node.settle(),
            Step::Restart => self.restart(&BTreeMap::new()),
        }
    }
}

fn applied(steps: &[Step]) -> Vec<Entry> {
    let entries = steps.iter().filter_map(|step| match step {
        Step::Apply(entries) => Some(entries.as_slice()),
        Step::Flush | Step::Compact(_) | Step::Settle | Step::Restart => None,
    });
    entries.flatten().cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// Through memtables, flushes, compactions and restarts alike; and the deltas are the leaves.
    #[test]
    fn store_agrees_with_a_plain_map(steps in prop::collection::vec(step(), 1..40)) {
        let mut life = Life::new();
        for (count, step) in (1..).zip(&steps) {
            life.run(step);
            let expected = model_of(&applied(&steps[..count]));
            prop_assert_eq!(visible(&life.node.store), &expected[..]);
            prop_assert_eq!(&life.leaves, &leaves_of(&expected, Stamp::ZERO));
            let is_first = |e: &&Entry| partition_of_place(e.place.as_bytes()) == Some(0);
            let first = expected.iter().filter(is_first);
            let tombstones = first.filter(|e| e.is_tombstone()).map(|e| e.stamp);
            prop_assert_eq!(life.node.read_tombstone(0), tombstones.max().unwrap_or_default());
        }
        prop_assert_eq!(&life.leaves, &read_leaves(&mut life.node, Stamp::ZERO));
    }

    /// Page by page, while writes and flushes go on: what each of these reports, and what each page
    /// finds, are together what one reading finds in the end.
    #[test]
    fn leaves_read_in_pages_while_writes_go_on_are_those_of_the_end(
        before in prop::collection::vec(step(), 1..20),
        between in prop::collection::vec(step(), 1..20),
        bytes_max in 1_usize..120,
    ) {
        let mut life = Life::new();
        for step in &before {
            life.run(step);
        }
        let mut between = between.iter().filter(|step| !matches!(step, Step::Restart));
        let mut start = place_in(0, &[]);
        life.leaves.insert(0, vec![0; 64]);
        loop {
            let (page, next) = life.node.read_leaves_page(0, Stamp::ZERO, start, bytes_max);
            let leaves = life.leaves.get_mut(&0).unwrap();
            leaves.iter_mut().zip(page).for_each(|(leaf, hash)| *leaf ^= hash);
            for step in between.by_ref().take(2) {
                life.run(step);
            }
            let Some(next) = next else { break };
            start = next;
        }
        prop_assert_eq!(&life.leaves, &read_leaves(&mut life.node, Stamp::ZERO));
    }

    #[test]
    fn order_and_repetition_make_no_difference(
        entries in prop::collection::vec(entry(), 1..40),
        seed in any::<u64>(),
    ) {
        let mut shuffled = entries.clone();
        shuffled.extend(entries.iter().step_by(2).cloned());
        let mut rng = crate::base::Rng::new(seed);
        for last in (1..shuffled.len()).rev() {
            let other = usize::try_from(rng.range(0, last as u64 + 1)).unwrap();
            shuffled.swap(last, other);
        }
        let (mut one, mut other) = (Life::new(), Life::new());
        one.apply(vec![Record::Entries(entries)]);
        for (count, entry) in shuffled.into_iter().enumerate() {
            other.apply(vec![Record::Entries(vec![entry])]);
            if count % 7 == 6 {
                other.node.flush();
                other.node.compact();
            }
        }
        prop_assert_eq!(visible(&one.node.store), visible(&other.node.store));
        prop_assert_eq!(one.leaves, other.leaves);
    }

    /// Stores that exchange what is visible in them come to the same, whoever begins.
    #[test]
    fn merge_of_stores_is_commutative_associative_and_idempotent(
        entries in prop::array::uniform3(prop::collection::vec(entry(), 0..15)),
    ) {
        let alone = |entries: &[Entry]| {
            let mut node = Node::new();
            node.apply(entries, &mut no_leaves());
            visible(&node.store)
        };
        let merge = |a: &[Entry], b: &[Entry]| alone(&[a, b].concat());
        let [a, b, c] = entries.each_ref().map(|entries| alone(entries));
        prop_assert_eq!(merge(&a, &b), merge(&b, &a));
        prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
        prop_assert_eq!(merge(&a, &a), &a[..]);
        prop_assert_eq!(merge(&merge(&a, &b), &c), model_of(&entries.concat()));
    }

    /// After a floor, nothing older than it comes any more; then tombstones up to it may go, and
    /// only they, and what they hid never comes back, not by a restart either.
    #[test]
    fn what_a_floor_lets_go_stays_deleted(
        before in prop::collection::vec(step(), 1..20),
        floor in 1_u64..30,
        after in prop::collection::vec(step(), 1..20),
    ) {
        let floor = stamp(floor, 2);
        let mut life = Life::new();
        for step in &before {
            life.run(step);
        }
        let mut floors = BTreeMap::new();
        for partition in 0..PARTITIONS {
            life.apply(Vec::new());
            life.node.store.set_floor(partition, floor);
            floors.insert(life.node.store.applied(), (partition, floor));
        }
        let mut all: Vec<Entry> = applied(&before);
        for step in &after {
            match step {
                Step::Apply(entries) => {
                    let newer = entries.iter().filter(|entry| entry.stamp > floor);
                    let newer: Vec<Entry> = newer.cloned().collect();
                    all.extend(newer.iter().cloned());
                    life.apply(vec![Record::Entries(newer)]);
                }
                Step::Restart => life.restart(&floors),
                Step::Flush | Step::Compact(_) | Step::Settle => life.run(step),
            }
            let may_go = |entry: &Entry| entry.is_tombstone() && entry.stamp <= floor;
            let without = |mut entries: Vec<Entry>| {
                entries.retain(|entry| !may_go(entry));
                entries
            };
            let expected = model_of(&all);
            let found = visible(&life.node.store);
            prop_assert!(found.iter().all(|entry| expected.contains(entry)), "{:?}", found);
            prop_assert_eq!(without(found), without(expected.clone()));
            prop_assert_eq!(read_leaves(&mut life.node, floor), leaves_of(&expected, floor));
        }
    }

    #[test]
    fn chunks_of_any_size_make_the_whole_range(
        entries in prop::collection::vec(entry(), 1..40),
        limit in 1_u32..5,
        start in (0_u8..3, 0_u8..5),
        end in prop::option::of((0_u8..3, 0_u8..5)),
    ) {
        let mut node = Node::new();
        node.apply(&entries, &mut no_leaves());
        let partition = 1;
        let first = place(partition, start.0, start.1);
        let end = end.map(|(key, column)| place(partition, key, column));
        let within = |entry: &&Entry| {
            partition_of_place(entry.place.as_bytes()) == Some(partition)
                && entry.place >= first
                && end.as_ref().is_none_or(|end| entry.place < *end)
        };
        let all = model_of(&entries);
        let expected: Vec<Entry> = all.iter().filter(within).cloned().collect();
        let (mut found, mut start) = (Vec::new(), first.clone());
        loop {
            let range = Range { partition, start: start.clone(), end: end.clone(), limit };
            let mut chunk = one_chunk(&mut node, range);
            if let Some(above) = chunk.entries.first().filter(|entry| entry.place < start) {
                prop_assert_eq!(above.written.clone(), Written::RowDeleted);
                prop_assert_eq!(&above.place, &row_of(&start));
                prop_assert!(all.contains(above), "{:?}", above);
                chunk.entries.remove(0);
            } else if row_of(&start) < start && end.as_ref().is_none_or(|end| start < *end) {
                let row = row_of(&start);
                let is_above = |e: &&Entry| e.place == row && e.written == Written::RowDeleted;
                prop_assert_eq!(all.iter().find(is_above), None);
            }
            found.extend(chunk.entries);
            let Some(covered) = chunk.covered else { break };
            prop_assert!(covered > start, "{:?} after {:?}", covered, start);
            start = covered;
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn entries_of_leaves_are_those_of_the_partition_that_lie_in_them(
        entries in prop::collection::vec(entry(), 1..40),
        bytes_max in 1_usize..200,
        which in any::<u64>(),
    ) {
        let mut node = Node::new();
        node.apply(&entries, &mut no_leaves());
        let leaves: Vec<u16> = (0..64).filter(|leaf| which >> leaf & 1 == 1).collect();
        let is_wanted = |entry: &&Entry| {
            let place = entry.place.as_bytes();
            partition_of_place(place) == Some(2) && leaves.contains(&merkle::leaf_of(place))
        };
        let all = model_of(&entries);
        let expected: Vec<Entry> = all.iter().filter(is_wanted).cloned().collect();
        let (mut found, mut start) = (Vec::new(), Payload::default());
        loop {
            let (partition, leaves, start_at) = (2, leaves.clone(), start.clone());
            let read = StoreRead::LeafEntries { partition, leaves, start: start_at, bytes_max };
            let chunk = only(node.store.read(&read).unwrap());
            found.extend(chunk.entries.into_iter().filter(|entry| entry.place >= start));
            let Some(covered) = chunk.covered else { break };
            prop_assert!(covered > start, "{:?} after {:?}", covered, start);
            start = covered;
        }
        prop_assert_eq!(found, expected);
    }
}

fn only(found: Found) -> Chunk {
    let Found::Chunks(chunks) = found else { panic!("{found:?}") };
    assert_eq!(chunks.len(), 1);
    chunks.into_iter().next().unwrap_or_default()
}

fn one_chunk(node: &mut Node, range: Range) -> Chunk {
    only(node.store.read(&StoreRead::Ranges(vec![range])).unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn page_is_closed_by_what_a_rows_tombstone_hides() {
    let mut node = Node::new();
    let row = place(2, 1, 0);
    let cell = |n: u32| {
        let column = [&[9], &n.to_be_bytes()[..]].concat();
        place_in(2, &keycode::encode_cell(&[1], &column))
    };
    let hidden: Vec<Entry> = (0..2_000).map(|n| set(cell(n), stamp(5, 1), b"gone")).collect();
    node.apply(&hidden, &mut no_leaves());
    let tombstone = delete_row(row.clone(), stamp(6, 1));
    let alive = set(cell(2_000), stamp(7, 1), b"alive");
    node.apply(&[tombstone.clone(), alive.clone()], &mut no_leaves());
    let leaves = vec![merkle::leaf_of(row.as_bytes())];
    let (mut found, mut start, mut page_count) = (Vec::new(), Payload::default(), 0);
    loop {
        let (partition, leaves, start_at) = (2, leaves.clone(), start.clone());
        let read = StoreRead::LeafEntries { partition, leaves, start: start_at, bytes_max: 2_000 };
        let chunk = only(node.store.read(&read).unwrap());
        found.extend(chunk.entries.into_iter().filter(|entry| entry.place >= start));
        page_count += 1;
        let Some(covered) = chunk.covered else { break };
        assert!(covered > start, "{covered:?} after {start:?}");
        start = covered;
    }
    assert_eq!(found, [tombstone, alive]);
    assert!(page_count > 10, "{page_count} pages for 2000 hidden cells");
}

#[test]
fn late_older_cell_stays_under_its_rows_tombstone_and_a_newer_one_stays() {
    let mut node = Node::new();
    let (row, cell, other) = (place(0, 1, 0), place(0, 1, 3), place(0, 1, 4));
    let newer = set(other.clone(), stamp(9, 1), b"newer");
    let tombstone = delete_row(row, stamp(5, 1));
    for entry in [
        set(other, stamp(2, 1), b"old"),
        newer.clone(),
        tombstone.clone(),
        set(cell, stamp(4, 1), b"late"),
    ] {
        node.apply(&[entry], &mut no_leaves());
        node.flush();
    }
    assert_eq!(visible(&node.store), [tombstone.clone(), newer.clone()]);
    node.settle();
    assert_eq!(visible(&node.store), [tombstone, newer]);
}

#[test]
fn ghost_is_erased_with_its_own_stamp_and_does_not_come_back() {
    let mut node = Node::new();
    let (at, mut leaves) = (place(0, 1, 3), no_leaves());
    let ghost = set(at.clone(), stamp(5, 1), b"ghost");
    let erased = delete(at, stamp(5, 1));
    node.apply(std::slice::from_ref(&ghost), &mut leaves);
    node.flush();
    node.settle();
    node.apply(std::slice::from_ref(&erased), &mut leaves);
    node.apply(&[ghost], &mut leaves);
    assert_eq!(visible(&node.store), std::slice::from_ref(&erased));
    assert_eq!(leaves, leaves_of(&[erased], Stamp::ZERO));
    node.store.set_floor(0, stamp(5, 1));
    node.flush();
    node.settle();
    let left: Vec<Entry> = visible(&node.store).into_iter().filter(|e| !e.is_tombstone()).collect();
    assert_eq!(left, []);
}

#[test]
fn entry_that_no_client_could_have_written_is_passed_over() {
    let mut node = Node::new();
    let payload = |bytes: &[u8]| Payload::new(bytes.to_vec()).unwrap();
    let long_key = keycode::encode_key(&[7; crate::base::Key::BYTES_MAX + 1]);
    let entries = [
        set(payload(b""), stamp(1, 1), b"no place"),
        set(payload(&[1, 1, 5]), stamp(1, 1), b"no end of the key"),
        set(payload(&[0xFF, 0xFF, b'n', 0, 0]), stamp(1, 1), b"a note"),
        set(payload(&[1, 0, b'k', 0, 0]), stamp(1, 1), b"no partition"),
        delete_row(place(0, 1, 3), stamp(1, 1)),
        set(place_in(0, &long_key), stamp(1, 1), b"a long key"),
        set(place(0, 1, 1), stamp(1, 1), &vec![0; crate::base::Value::BYTES_MAX + 1]),
    ];
    let mut leaves = no_leaves();
    node.apply(&entries, &mut leaves);
    assert_eq!((visible(&node.store), leaves), (vec![], no_leaves()));
    let read =
        StoreRead::Notes { prefix: payload(&NOTE_PREFIX), start: payload(b""), bytes_max: 99 };
    assert_eq!(node.store.read(&read), Ok(Found::Notes { notes: vec![], is_more: false }));
}

/// The accident: where a chunk ends did not count. With short entries before long keys that was
/// nearly all of an answer, and no frame took it.
#[test]
fn answer_to_many_ranges_fits_a_frame_also_if_long_keys_end_its_chunks() {
    let mut node = Node::new();
    let long = place_in(0, &keycode::encode_cell(&[9; KEY_BYTES_MAX], &[]));
    let short = set(place(0, 1, 0), stamp(5, 1), b"value");
    let entries = [short.clone(), set(long.clone(), stamp(5, 1), b"value")];
    node.apply(&entries, &mut no_leaves());
    let start = place_in(0, &[]);
    let range = Range { partition: 0, start: start.clone(), end: None, limit: 1 };
    let found = node.store.read(&StoreRead::Ranges(vec![range; 3_000])).unwrap();
    let Found::Chunks(chunks) = found else { panic!("{found:?}") };
    let bytes = codec::encode(&chunks).len();
    assert!(bytes < MULTI_GET_BYTES_MAX + (512 << 10), "{bytes} bytes");
    let floor = Stamp::ZERO;
    let full = Chunk { entries: vec![short], covered: Some(long), floor };
    let empty = Chunk { entries: Vec::new(), covered: Some(start), floor };
    let count = chunks.iter().filter(|chunk| **chunk == full).count();
    assert!(count >= MULTI_GET_BYTES_MAX / (2 * KEY_BYTES_MAX), "{count} chunks with entries");
    assert!(chunks[count..].iter().all(|chunk| *chunk == empty), "they are asked for again");
}

fn note(name: &str, content: Option<&str>) -> Record {
    let place = [&NOTE_PREFIX[..], &keycode::encode_key(name.as_bytes())].concat();
    let content = content.map(|content| Payload::new(content.to_owned()).unwrap_or_default());
    Record::Note { place: Payload::new(place).unwrap_or_default(), content }
}

fn notes(node: &mut Node, prefix: &str, bytes_max: usize) -> (Vec<String>, bool) {
    let prefix = [&NOTE_PREFIX[..], prefix.as_bytes()].concat();
    let prefix = Payload::new(prefix).unwrap_or_default();
    let mut start = prefix.clone();
    let (mut contents, mut pages) = (Vec::new(), 0);
    loop {
        let read = StoreRead::Notes { prefix: prefix.clone(), start: start.clone(), bytes_max };
        let Ok(Found::Notes { notes, is_more }) = node.store.read(&read) else {
            panic!("{read:?}")
        };
        pages += 1;
        for (place, content) in notes {
            start = Payload::new([place.as_bytes(), &[0]].concat()).unwrap_or_default();
            contents.push(String::from_utf8_lossy(content.as_bytes()).into_owned());
        }
        if !is_more {
            return (contents, pages > 1);
        }
    }
}

#[test]
fn notes_come_back_in_pages_and_after_a_restart() {
    let mut life = Life::new();
    life.apply(vec![note("a1", Some("one")), note("a2", Some("two")), note("b", Some("other"))]);
    life.node.flush();
    life.apply(vec![note("a1", None), note("a3", Some("three")), note("a3", Some("3"))]);
    for _ in 0..2 {
        let expected = vec!["two".to_owned(), "3".to_owned()];
        assert_eq!(notes(&mut life.node, "a", 1), (expected.clone(), true));
        assert_eq!(notes(&mut life.node, "a", 1000), (expected, false));
        assert_eq!(notes(&mut life.node, "b", 1).0, ["other"]);
        life.restart(&BTreeMap::new());
    }
    life.node.flush();
    life.node.settle();
    let entries = life.node.keeper.version().level_sizes();
    assert_eq!(notes(&mut life.node, "", 1).0.len(), 3, "{entries:?}");
}

/// Tombstones in tables that wait to be merged; then an older cell, which is hidden, and the proof
/// that nothing older comes any more, both in the log alone.
fn life_with_a_floor_in_the_log_alone() -> (Life, BTreeMap<u64, (Partition, Stamp)>) {
    let mut life = Life::new();
    for key in 1..4 {
        life.apply(vec![Record::Entries(vec![delete(place(0, key, 3), stamp(5, 1))])]);
        life.node.flush();
    }
    life.apply(vec![Record::Entries(vec![set(place(0, 1, 3), stamp(4, 1), b"older")])]);
    life.apply(Vec::new());
    life.node.store.set_floor(0, stamp(9, 1));
    let floors = BTreeMap::from([(life.node.store.applied(), (0, stamp(9, 1)))]);
    (life, floors)
}

#[test]
fn floor_that_a_restart_takes_back_has_purged_nothing() {
    let comes_back = |is_early: bool| {
        let (mut life, floors) = life_with_a_floor_in_the_log_alone();
        if is_early {
            // What happens if compactions hear of a floor before it is on disk.
            life.node.keeper.set_purge_floors(life.node.store.purge_floors().clone());
        }
        life.node.settle();
        life.restart(&floors);
        visible(&life.node.store).iter().any(|entry| !entry.is_tombstone())
    };
    assert!(!comes_back(false), "an older cell came back");
    assert!(comes_back(true), "the scenario does not tell");
}

#[test]
fn tombstone_goes_once_the_floor_is_in_the_tables() {
    let (mut life, floors) = life_with_a_floor_in_the_log_alone();
    let count = |life: &Life| visible(&life.node.store).len();
    life.node.settle();
    assert_eq!(count(&life), 3);
    for ms in 20..24 {
        let newer = set(place(0, 1, 4), stamp(ms, 1), b"newer");
        life.apply(vec![Record::Entries(vec![newer])]);
        life.node.flush();
        life.node.settle();
    }
    assert_eq!(count(&life), 1, "{:?}", visible(&life.node.store));
    life.restart(&floors);
    assert_eq!(visible(&life.node.store)[0].stamp, stamp(23, 1));
}

#[test]
fn tombstones_at_rest_go_when_a_floor_comes() {
    let mut life = Life::new();
    for key in 0..40 {
        let at = place(key.into(), key, 3);
        life.apply(vec![Record::Entries(vec![delete(at, stamp(5, 1))])]);
        life.node.flush();
    }
    life.node.settle();
    assert_eq!(visible(&life.node.store).len(), 40);
    for key in (0..40).rev() {
        life.apply(vec![note("floor", Some("raised"))]);
        life.node.store.set_floor(key, stamp(6, 1));
    }
    life.node.settle();
    assert_eq!(visible(&life.node.store).len(), 40, "the floors are in memory alone");
    life.node.flush();
    life.node.settle();
    assert!(visible(&life.node.store).len() < 10, "{:?}", life.node.keeper.version());
    // The rest is in level 0 and goes with its next merge.
    for _ in 0..3 {
        life.apply(vec![note("floor", Some("again"))]);
        life.node.flush();
        life.node.settle();
    }
    assert_eq!(visible(&life.node.store), []);
}

#[cfg(feature = "testing")]
#[test]
fn d26_tombstone_dropped_by_age_alone_lets_an_older_cell_come_back() {
    loses_only_with("D26", || {
        let mut life = Life::new();
        let at = place(0, 1, 3);
        for (key, ms) in [(1, 5), (2, 6), (3, 7)] {
            life.apply(vec![Record::Entries(vec![delete(place(0, key, 3), stamp(ms, 1))])]);
            life.node.flush();
        }
        life.node.settle();
        life.apply(vec![Record::Entries(vec![set(at, stamp(4, 1), b"deleted before")])]);
        visible(&life.node.store).iter().any(|entry| !entry.is_tombstone())
    });
}
