//! Plans against a plain map, over chunks that are cut short at will.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::limits::{MULTI_GET_BYTES_MAX, VALUE_BYTES_MAX};
use crate::base::{Column, Key, Rng, Value};
use crate::dynamo::{Chunk, Found, Placement, READ_RANGES_MAX, Range, Record, StoreRead};
use crate::kv::{Cell, Plan, Query, QueryError, QueryReply, Step, Version};

type Place = (Vec<u8>, Vec<u8>);

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes.to_vec()).unwrap_or_default()
}

fn column(bytes: &[u8]) -> Column {
    Column::new(bytes.to_vec()).unwrap_or_default()
}

/// A store with its placement, which answers as a coordinator does.
struct Replica {
    node: Node,
    placement: Placement,
    /// Cuts chunks short.
    rng: Option<Rng>,
    round_count: u32,
    asked_count: usize,
}

impl Replica {
    fn new(partition_count: u16, rng: Option<Rng>) -> Self {
        let placement = Placement::new(&[NodeId(1)], 1, partition_count);
        Self { node: Node::new(), placement, rng, round_count: 0, asked_count: 0 }
    }

    fn write(&mut self, entries: Vec<Entry>) {
        let id = self.node.store.applied() + 1;
        let applied = self.node.store.apply(id, &[Record::Entries(entries)]);
        assert!(applied.is_ok(), "{applied:?}");
    }

    fn place(&self, key: &[u8], column: &[u8]) -> Payload {
        Payload::new(self.placement.cell(key, column)).unwrap_or_default()
    }

    /// Reads ranges, cuts some chunks, and strips tombstones.
    fn read(&mut self, ranges: Vec<Range>) -> Vec<Chunk> {
        let starts: Vec<Payload> = ranges.iter().map(|range| range.start.clone()).collect();
        let found = self.node.store.read(&StoreRead::Ranges(ranges));
        let Ok(Found::Chunks(mut chunks)) = found else { panic!("{found:?}") };
        for (number, (chunk, start)) in chunks.iter_mut().zip(&starts).enumerate() {
            chunk.entries.retain(|entry| entry.place >= *start);
            if let Some(rng) = &mut self.rng {
                // At least one place of the first range is told, of others maybe none.
                let kept =
                    usize::try_from(rng.range(0, 4)).unwrap_or(0).max(usize::from(number == 0));
                let mut places: Vec<Payload> =
                    chunk.entries.iter().map(|e| e.place.clone()).collect();
                places.dedup();
                if let Some(cut) = places.get(kept).filter(|_| rng.range(0, 3) > 0).cloned() {
                    chunk.entries.retain(|entry| entry.place < cut);
                    chunk.covered = Some(cut);
                }
            }
            chunk.entries.retain(|entry| !entry.is_tombstone());
        }
        chunks
    }

    fn answer(&mut self, query: &Query) -> Result<QueryReply, QueryError> {
        let mut plan = Plan::new(query, &self.placement);
        let mut ranges = plan.ranges().to_vec();
        for round in 1..2_000 {
            self.round_count = round;
            self.asked_count = ranges.len();
            assert!(ranges.len() <= READ_RANGES_MAX, "{} ranges in one read", ranges.len());
            let chunks = self.read(ranges);
            match plan.on_chunks(chunks)? {
                Step::Ask(more) => {
                    assert!(!more.is_empty(), "asks for nothing: {plan:?}");
                    assert_eq!(plan.ranges(), more);
                    ranges = more;
                }
                Step::Done(reply) => return Ok(reply),
            }
        }
        panic!("no end of {query:?}");
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xFF)], 0..3)
}

/// What is at a place: a value, a tombstone, or a value that its row's tombstone hides.
#[derive(Debug, Clone)]
struct Given {
    cells: BTreeMap<Place, Option<Vec<u8>>>,
    rows: Vec<Vec<u8>>,
    partition_count: u16,
    seed: Option<u64>,
}

fn given() -> impl Strategy<Value = Given> {
    let cell = prop_oneof![
        2 => Just(None),
        3 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Some),
    ];
    let cells = prop::collection::btree_map((bytes(), bytes()), cell, 0..60);
    let rows = prop::collection::vec(bytes(), 0..3);
    (cells, rows, prop_oneof![Just(1_u16), Just(3), Just(16)], prop::option::of(any::<u64>()))
        .prop_map(|(cells, rows, partition_count, seed)| Given {
            cells,
            rows,
            partition_count,
            seed,
        })
}

impl Given {
    fn replica(&self) -> Replica {
        let mut replica = Replica::new(self.partition_count, self.seed.map(Rng::new));
        let cells = self.cells.iter().map(|((key, column), value)| {
            let place = replica.place(key, column);
            match value {
                Some(value) => set(place, stamp(5, 1), value),
                None => delete(place, stamp(5, 1)),
            }
        });
        let rows = self.rows.iter().map(|key| delete_row(replica.place(key, &[]), stamp(7, 1)));
        let entries: Vec<Entry> = cells.chain(rows).collect();
        replica.write(entries);
        replica
    }

    fn live(&self) -> BTreeMap<Place, Vec<u8>> {
        let cells = self.cells.iter().filter(|((key, _), _)| !self.rows.contains(key));
        cells.filter_map(|(place, value)| Some((place.clone(), value.clone()?))).collect()
    }
}

fn raw(cell: &Cell) -> Vec<u8> {
    assert_eq!(cell.version, Version(stamp(5, 1).version()));
    cell.value.as_bytes().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn scan_gives_every_cell_once_in_order(
        given in given(),
        limit in 1_u32..9,
        prefix in bytes(),
        first in prop::option::of((bytes(), bytes())),
    ) {
        let mut replica = given.replica();
        let mut start = first.clone().map(|(k, c)| (key(&k), column(&c)));
        let mut found = Vec::new();
        loop {
            let query = Query::Scan { start: start.clone(), prefix: key(&prefix), limit };
            let Ok(QueryReply::Scanned { cells, next }) = replica.answer(&query) else {
                panic!("{query:?}")
            };
            prop_assert!(cells.len() <= 8.min(limit as usize));
            found.extend(cells.iter().map(|(k, c, cell)| {
                ((k.as_bytes().to_vec(), c.as_bytes().to_vec()), raw(cell))
            }));
            if next.is_none() {
                break;
            }
            prop_assert!(next > start, "{:?} after {:?}", next, start);
            start = next;
        }
        let mut expected = given.live();
        expected.retain(|place, _| place.0.starts_with(&prefix));
        expected.retain(|place, _| first.as_ref().is_none_or(|first| place >= first));
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn keys_gives_every_key_once_in_order(
        given in given(),
        limit in 1_u32..5,
        prefix in bytes(),
        first in prop::option::of(bytes()),
        last in prop::option::of(bytes()),
    ) {
        let mut replica = given.replica();
        let mut start = first.clone().map(|k| key(&k));
        let mut found: Vec<Vec<u8>> = Vec::new();
        loop {
            let stop = last.clone().map(|k| key(&k));
            let query = Query::Keys { start: start.clone(), stop, prefix: key(&prefix), limit };
            let Ok(QueryReply::Keys { keys, next }) = replica.answer(&query) else {
                panic!("{query:?}")
            };
            prop_assert!(keys.len() <= limit as usize);
            found.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
            if next.is_none() {
                break;
            }
            prop_assert!(next > start, "{:?} after {:?}", next, start);
            start = next;
        }
        let mut expected: Vec<Vec<u8>> = given.live().into_keys().map(|(key, _)| key).collect();
        expected.dedup();
        expected.retain(|key| key.starts_with(&prefix));
        expected.retain(|key| first.as_ref().is_none_or(|first| key >= first));
        expected.retain(|key| last.as_ref().is_none_or(|last| key <= last));
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn slice_gives_the_columns_between_its_bounds(
        given in given(),
        limit in 1_u32..5,
        of in bytes(),
        bounds in (prop::option::of(bytes()), prop::option::of(bytes())),
    ) {
        let mut replica = given.replica();
        let mut start = bounds.0.clone().map(|c| column(&c));
        let mut found = Vec::new();
        loop {
            let stop = bounds.1.clone().map(|c| column(&c));
            let query = Query::Slice { key: key(&of), start: start.clone(), stop, limit };
            let Ok(QueryReply::Columns { columns, next }) = replica.answer(&query) else {
                panic!("{query:?}")
            };
            prop_assert!(columns.len() <= limit as usize);
            found.extend(columns.iter().map(|(c, cell)| (c.as_bytes().to_vec(), raw(cell))));
            if next.is_none() {
                break;
            }
            prop_assert!(next > start, "{:?} after {:?}", next, start);
            start = next;
        }
        let live = given.live().into_iter().filter(|((key, _), _)| *key == of);
        let mut expected: Vec<_> = live.map(|((_, column), value)| (column, value)).collect();
        expected.retain(|(column, _)| bounds.0.as_ref().is_none_or(|start| column >= start));
        expected.retain(|(column, _)| bounds.1.as_ref().is_none_or(|stop| column <= stop));
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn cells_come_in_the_order_asked(
        given in given(),
        wanted in prop::collection::vec((bytes(), bytes()), 0..12),
    ) {
        let mut replica = given.replica();
        let cells = wanted.iter().map(|(k, c)| (key(k), column(c))).collect();
        let Ok(QueryReply::Cells(found)) = replica.answer(&Query::MultiGet { cells }) else {
            panic!("{wanted:?}")
        };
        let live = given.live();
        let expected: Vec<_> = wanted.iter().map(|place| live.get(place).cloned()).collect();
        let found: Vec<_> = found.iter().map(|cell| cell.as_ref().map(raw)).collect();
        prop_assert_eq!(found, expected);
        for (k, c) in &wanted {
            let query = Query::Get { key: key(k), column: column(c) };
            let Ok(QueryReply::Cell(cell)) = replica.answer(&query) else { panic!("{query:?}") };
            prop_assert_eq!(cell.as_ref().map(raw), live.get(&(k.clone(), c.clone())).cloned());
        }
    }
}

#[test]
fn page_of_evenly_spread_keys_takes_few_rounds() {
    let mut replica = Replica::new(256, None);
    let entries: Vec<Entry> = (0..5_000_u32)
        .map(|n| set(replica.place(&n.to_be_bytes(), &[]), stamp(5, 1), b"value"))
        .collect();
    replica.write(entries);
    for limit in [10, 1_000, 10_000] {
        let query = Query::Keys { start: None, stop: None, prefix: Key::default(), limit };
        let Ok(QueryReply::Keys { keys, .. }) = replica.answer(&query) else { panic!("{query:?}") };
        assert_eq!(keys.len(), 5_000.min(limit as usize));
        assert!(replica.round_count <= 3, "{} rounds for {limit}", replica.round_count);
    }
}

/// The accident: a query over all partitions asked for all of them at once, and a cluster of more
/// than 10,000 never answered it.
#[test]
fn partitions_beyond_what_one_read_may_ask_are_asked_in_the_next() {
    let mut replica = Replica::new(12_000, None);
    let entries: Vec<Entry> = (0..100_u32)
        .map(|n| set(replica.place(&n.to_be_bytes(), &[]), stamp(5, 1), b"value"))
        .collect();
    replica.write(entries);
    let query = Query::Keys { start: None, stop: None, prefix: Key::default(), limit: 1_000 };
    let Ok(QueryReply::Keys { keys, next }) = replica.answer(&query) else { panic!("{query:?}") };
    assert_eq!((keys.len(), next), (100, None));
}

#[test]
fn wide_rows_are_left_early_when_keys_are_wanted() {
    let mut replica = Replica::new(4, None);
    let wide = |replica: &Replica, key: &[u8], count: u32| -> Vec<Entry> {
        let places = (0..count).map(|n| replica.place(key, &n.to_be_bytes()));
        places.map(|place| set(place, stamp(5, 1), b"")).collect()
    };
    for name in [b"a", b"b", b"c"] {
        let entries = wide(&replica, name, 3_000);
        replica.write(entries);
    }
    let query = Query::Keys { start: None, stop: None, prefix: Key::default(), limit: 2 };
    let Ok(QueryReply::Keys { keys, next }) = replica.answer(&query) else { panic!("{query:?}") };
    assert_eq!((keys, next), (vec![key(b"a"), key(b"b")], Some(key(b"c"))));
    assert!(replica.round_count <= 4, "{} rounds", replica.round_count);
}

#[test]
fn row_of_tombstones_alone_is_passed_in_ever_larger_steps() {
    let mut replica = Replica::new(4, None);
    let dead = (0..30_000_u32).map(|n| replica.place(b"a", &n.to_be_bytes()));
    let mut entries: Vec<Entry> = dead.map(|place| delete(place, stamp(5, 1))).collect();
    entries.push(set(replica.place(b"b", &[]), stamp(5, 1), b"alive"));
    replica.write(entries);
    let query = Query::Keys { start: None, stop: None, prefix: Key::default(), limit: 1 };
    let Ok(QueryReply::Keys { keys, next }) = replica.answer(&query) else { panic!("{query:?}") };
    assert_eq!((keys, next), (vec![key(b"b")], None));
    assert!(replica.round_count <= 20, "{} rounds", replica.round_count);
}

#[test]
fn large_values_come_in_pages_and_memory_stays_bounded() {
    let mut replica = Replica::new(16, None);
    let large = vec![7; VALUE_BYTES_MAX];
    for n in 0..24_u8 {
        let place = replica.place(&[n], &[]);
        replica.write(vec![set(place, stamp(5, 1), &large)]);
    }
    let (mut start, mut found) = (None, Vec::new());
    loop {
        let query = Query::Scan { start, prefix: Key::default(), limit: 100 };
        let Ok(QueryReply::Scanned { cells, next }) = replica.answer(&query) else {
            panic!("{query:?}")
        };
        assert!(cells.len() <= 3, "{} cells of 1 MiB in a page", cells.len());
        found.extend(cells.into_iter().map(|(key, _, _)| key));
        if next.is_none() {
            break;
        }
        start = next;
    }
    assert_eq!(found, (0..24).map(|n| key(&[n])).collect::<Vec<_>>());
    let count = u8::try_from(MULTI_GET_BYTES_MAX / VALUE_BYTES_MAX).unwrap();
    let query = |count| Query::MultiGet {
        cells: (0..count).map(|n| (key(&[n]), Column::default())).collect(),
    };
    assert!(matches!(replica.answer(&query(count - 1)), Ok(QueryReply::Cells(_))));
    let refused = replica.answer(&query(count));
    assert!(matches!(refused, Err(QueryError::AnswerTooLarge { .. })), "one value too many");
    let Ok(QueryReply::Cell(Some(cell))) =
        replica.answer(&Query::Get { key: key(&[1]), column: Column::default() })
    else {
        panic!("one value is never too large")
    };
    assert_eq!(cell.value, Value::new(large).unwrap());
}
