//! Reads that pass only so much in a turn, against the same reads in one go.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::base::{Column, Index, Key, Value};
use crate::codec::{self, keycode};
use crate::kv::row_read::RowRead;
use crate::kv::*;
use crate::storage::test_disk::{TestDisk, run};
use crate::storage::tree::{self, Keeper};
use crate::storage::{Change, Tree};

/// What a turn may pass in the tests of long reads: some hundreds of tombstones.
const TURN_BYTES: usize = 64 << 10;

/// Who waits for the reads.
const READER: u64 = 7;

/// What a turn may pass besides: the entries of one place, and a jump of each table.
const SLACK_BYTES: usize = 512 << 10;

/// A state machine, and what flushes it.
struct Store {
    machine: Machine<Tree<TestDisk>>,
    keeper: Keeper<TestDisk>,
    seq: u64,
}

impl Store {
    fn new() -> Self {
        let opened = run(tree::open(TestDisk::default(), super::DIR, super::OPTIONS));
        let (tree, keeper, _) = opened.unwrap_or_else(|error| panic!("{error}"));
        let machine = Machine::restore(tree, &[], 3).unwrap_or_else(|error| panic!("{error}"));
        let mut store = Self { machine, keeper, seq: 0 };
        store.apply(&Command::RegisterByIndex { nonce: 0 });
        store
    }

    fn apply(&mut self, command: &Command) -> CommandReply {
        let index: Index = self.machine.applied().index + 1;
        let applied = self.machine.apply(index, 1, &codec::encode(command));
        applied.unwrap_or_else(|error| panic!("{error}"))
    }

    fn write(&mut self, batch: Batch) {
        self.seq += 1;
        let seq = crate::base::RequestSeq(self.seq);
        let session = crate::base::SessionId(1);
        let reply = self.apply(&Command::Write { session, seq, acked_below: seq, batch });
        assert!(matches!(reply, CommandReply::Applied(_)), "{reply:?}");
    }

    fn flush(&mut self) {
        let extra = self.machine.extra();
        let frozen = self.machine.engine_mut().freeze(extra);
        let flushed = run(self.keeper.flush(&frozen)).unwrap_or_else(|error| panic!("{error}"));
        self.machine.engine_mut().adopt(flushed);
    }

    /// Answers a query in one turn.
    fn whole(&self, query: &Query) -> QueryReply {
        let Ok(Turn { reply: Some(reply), .. }) = self.machine.query(query, usize::MAX) else {
            panic!("{query:?} is not answered in one turn")
        };
        reply
    }

    /// Answers a query in turns of `bytes_max`, with `between` after each but the last; returns
    /// how many turns it took, too.
    fn in_turns(
        &mut self,
        query: &Query,
        bytes_max: usize,
        mut between: impl FnMut(&mut Self),
    ) -> (QueryReply, usize) {
        for turn_count in 1..100_000 {
            let turn =
                self.machine.read_on(READER, query, bytes_max).unwrap_or_else(|e| panic!("{e}"));
            let passed_bytes = turn.passed_bytes;
            assert!(passed_bytes <= bytes_max + SLACK_BYTES, "{passed_bytes} B: {query:?}");
            if let Some(reply) = turn.reply {
                return (reply, turn_count);
            }
            between(self);
        }
        panic!("no end of {query:?}");
    }

    /// Reads all pages in turns of `bytes_max`; returns their items and, of each page, how many
    /// items and turns it had.
    fn all_pages(&mut self, query: &Query, bytes_max: usize) -> (Vec<Item>, Vec<(usize, usize)>) {
        let (mut query, mut items, mut pages) = (query.clone(), Vec::new(), Vec::new());
        for _ in 0..100_000 {
            let (reply, turn_count) = self.in_turns(&query, bytes_max, |_| {});
            let (page, next) = taken_apart(&query, reply);
            pages.push((page.len(), turn_count));
            items.extend(page);
            let Some(next) = next else { return (items, pages) };
            query = next;
        }
        panic!("no end of pages: {query:?}");
    }
}

/// A key, a column if it is not keys that are listed, and the cell there.
type Item = (Key, Option<(Column, Cell)>);

/// Returns the items of a page, and the query for the next one.
fn taken_apart(query: &Query, reply: QueryReply) -> (Vec<Item>, Option<Query>) {
    match (query.clone(), reply) {
        (Query::Slice { key, stop, limit, .. }, QueryReply::Columns { columns, next }) => {
            let items = columns.into_iter().map(|found| (key.clone(), Some(found))).collect();
            let next = next.map(|next| Query::Slice { key, start: Some(next), stop, limit });
            (items, next)
        }
        (Query::Keys { stop, prefix, limit, .. }, QueryReply::Keys { keys, next }) => {
            let items = keys.into_iter().map(|key| (key, None)).collect();
            let next = next.map(|next| Query::Keys { start: Some(next), stop, prefix, limit });
            (items, next)
        }
        (Query::Scan { prefix, limit, .. }, QueryReply::Scanned { cells, next }) => {
            let items = cells.into_iter().map(|(key, column, cell)| (key, Some((column, cell))));
            let next = next.map(|next| Query::Scan { start: Some(next), prefix, limit });
            (items.collect(), next)
        }
        (query, reply) => panic!("{query:?} is answered {reply:?}"),
    }
}

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes.to_vec()).unwrap_or_default()
}

fn column(bytes: &[u8]) -> Column {
    Column::new(bytes.to_vec()).unwrap_or_default()
}

fn numbered(n: u32) -> Column {
    column(&n.to_be_bytes())
}

fn value(bytes: &[u8]) -> Value {
    Value::new(bytes.to_vec()).unwrap_or_default()
}

fn slice(of: &[u8], limit: u32) -> Query {
    Query::Slice { key: key(of), start: None, stop: None, limit }
}

fn keys(limit: u32) -> Query {
    Query::Keys { start: None, stop: None, prefix: Key::default(), limit }
}

fn scan(limit: u32) -> Query {
    Query::Scan { start: None, prefix: Key::default(), limit }
}

fn few() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xFF)], 0..3)
}

fn edit() -> impl Strategy<Value = Batch> {
    prop_oneof![
        4 => (few(), few(), 0_usize..40)
            .prop_map(|(k, c, len)| Batch::new().set(key(&k), column(&c), value(&vec![7; len]))),
        4 => (few(), few()).prop_map(|(k, c)| Batch::new().delete(key(&k), column(&c))),
        1 => few().prop_map(|k| Batch::new().delete_row(key(&k))),
        1 => (few(), few(), few()).prop_map(|(k, c, d)| Batch::new()
            .delete_row(key(&k))
            .set(key(&k), column(&c), value(b"again"))
            .delete(key(&k), column(&d))),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    let bound = || prop::option::of(few());
    prop_oneof![
        (few(), bound(), bound(), 1_u32..6).prop_map(|(of, start, stop, limit)| Query::Slice {
            key: key(&of),
            start: start.map(|c| column(&c)),
            stop: stop.map(|c| column(&c)),
            limit,
        }),
        (bound(), bound(), 0_usize..2, few(), 1_u32..6).prop_map(
            |(start, stop, len, mut prefix, limit)| {
                prefix.truncate(len);
                let (start, stop) = (start.map(|k| key(&k)), stop.map(|k| key(&k)));
                Query::Keys { start, stop, prefix: key(&prefix), limit }
            }
        ),
        (prop::option::of((few(), few())), 0_usize..2, few(), 1_u32..6).prop_map(
            |(start, len, mut prefix, limit)| {
                prefix.truncate(len);
                let start = start.map(|(k, c)| (key(&k), column(&c)));
                Query::Scan { start, prefix: key(&prefix), limit }
            }
        ),
    ]
}

/// Returns `query` without its end and its limit: from there on, everything.
fn unlimited(query: &Query) -> Query {
    let mut query = query.clone();
    match &mut query {
        Query::Slice { limit, .. } | Query::Keys { limit, .. } | Query::Scan { limit, .. } => {
            *limit = 10_000;
        }
        Query::Get { .. } | Query::MultiGet { .. } => {}
    }
    query
}

proptest! {
    #[test]
    fn turns_of_any_length_make_the_same_items(
        edits in prop::collection::vec((edit(), any::<bool>()), 0..80),
        query in query(),
        bytes_max in 1_usize..3_000,
    ) {
        let mut store = Store::new();
        for (batch, is_flushed) in edits {
            store.write(batch);
            if is_flushed {
                store.flush();
            }
        }
        let (expected, next) = taken_apart(&query, store.whole(&unlimited(&query)));
        prop_assert_eq!(next, None);
        prop_assert_eq!(store.all_pages(&query, bytes_max).0, expected);
    }

    #[test]
    fn answer_of_many_turns_is_the_state_at_the_last_of_them(
        edits in prop::collection::vec(edit(), 0..80),
        meanwhile in prop::collection::vec((edit(), any::<bool>()), 0..80),
        query in query(),
        bytes_max in 1_usize..300,
    ) {
        let mut store = Store::new();
        for batch in edits {
            store.write(batch);
        }
        let mut meanwhile = meanwhile.into_iter();
        let mut query = query;
        loop {
            let (reply, _) = store.in_turns(&query, bytes_max, |store| {
                if let Some((batch, is_flushed)) = meanwhile.next() {
                    store.write(batch);
                    if is_flushed {
                        store.flush();
                    }
                }
            });
            let (found, next) = taken_apart(&query, reply);
            let (all, _) = taken_apart(&query, store.whole(&unlimited(&query)));
            let is_before = |(key, cell): &Item| match &next {
                None => true,
                Some(Query::Slice { start: Some(start), .. }) => {
                    cell.as_ref().is_some_and(|(column, _)| column < start)
                }
                Some(Query::Keys { start: Some(start), .. }) => key < start,
                Some(Query::Scan { start: Some((k, c)), .. }) => {
                    cell.as_ref().is_some_and(|(column, _)| (key, column) < (k, c))
                }
                Some(other) => panic!("{other:?} is no next page"),
            };
            let expected: Vec<Item> = all.into_iter().filter(is_before).collect();
            prop_assert_eq!(found, expected);
            let Some(next) = next else { break };
            query = next;
        }
    }
}

fn multi_get(places: &[(Vec<u8>, Vec<u8>)]) -> Query {
    Query::MultiGet { cells: places.iter().map(|(k, c)| (key(k), column(c))).collect() }
}

proptest! {
    #[test]
    fn many_cells_read_in_turns_are_the_state_at_the_last_of_them(
        edits in prop::collection::vec(edit(), 0..80),
        meanwhile in prop::collection::vec((edit(), any::<bool>()), 0..80),
        places in prop::collection::vec((few(), few()), 17..60),
        bytes_max in 1_usize..40_000,
    ) {
        let mut store = Store::new();
        for batch in edits {
            store.write(batch);
        }
        let mut meanwhile = meanwhile.into_iter();
        let query = multi_get(&places);
        let (reply, turn_count) = store.in_turns(&query, bytes_max, |store| {
            if let Some((batch, is_flushed)) = meanwhile.next() {
                store.write(batch);
                if is_flushed {
                    store.flush();
                }
            }
        });
        prop_assert_eq!(reply, store.whole(&query));
        let least = places.len() * 4_096 / (bytes_max + 4_096 + 40);
        prop_assert!(turn_count >= least, "{turn_count} turns, {least} at least");
    }
}

/// Deletes numbered columns of a key, a thousand at a time.
fn bury(store: &mut Store, of: &[u8], count: u32) {
    for first in (0..count).step_by(1_000) {
        let dead = first..count.min(first + 1_000);
        store.write(dead.fold(Batch::new(), |batch, n| batch.delete(key(of), numbered(n))));
    }
}

#[test]
fn row_behind_100_000_tombstones_is_read_in_many_short_turns_as_one_page() {
    let mut store = Store::new();
    bury(&mut store, b"queue", 100_000);
    store.write(Batch::new().set(key(b"queue"), numbered(100_000), value(b"job")));
    let query = slice(b"queue", 100);
    let first = store.machine.query(&query, TURN_BYTES).unwrap();
    assert_eq!(first.reply, None, "a single turn does not reach the cell");
    assert!(first.passed_bytes < TURN_BYTES + 100, "one tombstone more at most: {first:?}");
    let (items, pages) = store.all_pages(&query, TURN_BYTES);
    let [(found, Some((at, _)))] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!((found, at), (&key(b"queue"), &numbered(100_000)));
    let [(1, turn_count)] = pages.as_slice() else { panic!("{pages:?}") };
    assert!(*turn_count > 50, "{turn_count} turns");
}

#[test]
fn keys_behind_tombstones_are_found_within_a_row_and_across_rows() {
    let mut store = Store::new();
    bury(&mut store, b"dead", 100_000);
    bury(&mut store, b"late", 50_000);
    store.write(Batch::new().set(key(b"late"), numbered(50_000), value(b"job")));
    for n in 0..50_u32 {
        bury(&mut store, &[b"many", &n.to_be_bytes()[..]].concat(), 1_000);
    }
    store.write(Batch::new().set(key(b"zero"), column(b""), value(b"")));
    let (items, pages) = store.all_pages(&keys(100), TURN_BYTES);
    let found: Vec<Key> = items.into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, [key(b"late"), key(b"zero")]);
    assert!(pages.iter().any(|(_, turn_count)| *turn_count > 50), "within a row: {pages:?}");
    let empty_count = pages.iter().filter(|(count, _)| *count == 0).count();
    assert!(empty_count > 30, "between rows: {pages:?}");
}

#[test]
fn scan_closes_its_pages_among_tombstones() {
    let mut store = Store::new();
    bury(&mut store, b"queue", 100_000);
    store.write(Batch::new().set(key(b"queue"), numbered(100_000), value(b"job")));
    let (items, pages) = store.all_pages(&scan(100), TURN_BYTES);
    assert_eq!(items.len(), 1);
    assert!(pages.len() > 50 && pages.iter().all(|(_, turn_count)| *turn_count == 1), "{pages:?}");
}

#[test]
fn page_without_tombstones_takes_one_turn() {
    let mut store = Store::new();
    for n in 0..10 {
        let cells = (n * 1_000)..(n + 1) * 1_000;
        let batch = Batch::new();
        store.write(cells.fold(batch, |batch, n| batch.set(key(b"k"), numbered(n), value(b"v"))));
    }
    for query in [slice(b"k", 10_000), scan(10_000), keys(10_000)] {
        let turn = store.machine.query(&query, 4 << 20).unwrap();
        let Some(reply) = turn.reply else { panic!("{query:?} takes another turn") };
        assert_eq!(taken_apart(&query, reply).1, None, "{query:?}");
    }
}

/// Reads a queue that has one item at any moment, while the item moves on. Tells whether the page
/// is a mixture of two states: it would have no item, several, or an old one.
fn queue_is_seen_at_two_moments() -> bool {
    let mut store = Store::new();
    bury(&mut store, b"queue", 5_000);
    store.write(Batch::new().set(key(b"queue"), numbered(0), value(b"first")));
    let mut last = 0;
    let (reply, turn_count) = store.in_turns(&slice(b"queue", 100), TURN_BYTES, |store| {
        let (taken, put) = (numbered(last), numbered((last + 1_777) % 5_000));
        last = (last + 1_777) % 5_000;
        let batch = Batch::new().delete(key(b"queue"), taken);
        store.write(batch.set(key(b"queue"), put, value(b"next")));
    });
    assert!(turn_count > 3, "{turn_count} turns");
    let QueryReply::Columns { columns, next } = reply else { panic!("{reply:?}") };
    let columns: BTreeMap<Column, Cell> = columns.into_iter().collect();
    assert_eq!(next, None);
    columns.keys().collect::<Vec<_>>() != [&numbered(last)]
}

#[test]
fn queue_that_goes_on_while_it_is_read_is_seen_at_one_moment() {
    assert!(!queue_is_seen_at_two_moments());
}

#[cfg(feature = "testing")]
#[test]
fn read_that_misses_what_is_written_between_its_turns_is_caught() {
    crate::base::planted::loses_only_with("R59", queue_is_seen_at_two_moments);
}

#[test]
fn page_that_fills_up_while_it_is_read_leaves_the_rest_to_the_next() {
    let mut store = Store::new();
    bury(&mut store, b"queue", 5_000);
    let (reply, _) = store.in_turns(&slice(b"queue", 2), TURN_BYTES, |store| {
        let early = (1..5)
            .fold(Batch::new(), |batch, n| batch.set(key(b"queue"), numbered(n), value(b"early")));
        store.write(early);
    });
    let QueryReply::Columns { columns, next } = reply else { panic!("{reply:?}") };
    let found: Vec<Column> = columns.into_iter().map(|(column, _)| column).collect();
    assert_eq!(found, [numbered(1), numbered(2)]);
    assert_eq!(next, Some(numbered(3)));
}

#[test]
fn another_query_begins_anew_and_so_does_one_whose_state_was_replaced() {
    let mut store = Store::new();
    bury(&mut store, b"queue", 5_000);
    store.write(Batch::new().set(key(b"queue"), numbered(5_000), value(b"job")));
    let query = slice(b"queue", 100);
    assert_eq!(store.machine.read_on(READER, &query, TURN_BYTES).unwrap().reply, None);
    let (other, _) = store.in_turns(&slice(b"queue", 99), TURN_BYTES, |_| {});
    assert_eq!(other, store.whole(&query));
    assert_eq!(store.machine.read_on(READER, &query, TURN_BYTES).unwrap().reply, None);
    let extra = store.machine.extra();
    store.machine.reload(&extra, 3).unwrap();
    let (_, turn_count) = store.in_turns(&query, TURN_BYTES, |_| {});
    let (reply, anew) = store.in_turns(&query, TURN_BYTES, |_| {});
    assert_eq!((turn_count, reply), (anew, store.whole(&query)));
}

#[test]
fn reads_of_several_readers_go_on_side_by_side_and_see_the_same_writes() {
    let mut store = Store::new();
    bury(&mut store, b"queue", 5_000);
    let query = slice(b"queue", 100);
    let (_, alone) = store.in_turns(&query, TURN_BYTES, |_| {});
    let mut answers = Vec::new();
    for turn in 1.. {
        for reader in [1, 2] {
            if let Some(reply) = store.machine.read_on(reader, &query, TURN_BYTES).unwrap().reply {
                answers.push((turn, reply));
            }
        }
        if answers.len() == 2 {
            break;
        }
        store.write(Batch::new().set(key(b"queue"), numbered(turn), value(b"job")));
    }
    let turns: Vec<_> = answers.iter().map(|(turn, _)| usize::try_from(*turn).unwrap()).collect();
    assert_eq!(turns, [alone, alone], "neither begins anew");
    assert!(answers.iter().all(|(_, reply)| *reply == store.whole(&query)));
    assert!(!store.machine.stop_reading(1) && !store.machine.stop_reading(2), "nothing is kept");
    assert_eq!(store.machine.read_on(1, &query, TURN_BYTES).unwrap().reply, None);
    assert!(store.machine.stop_reading(1));
}

/// The accident: a `multi_get` of any number of cells was read in one turn, and counted nothing.
#[test]
fn multi_get_of_10_000_cells_takes_many_turns_and_is_seen_at_one_moment() {
    let mut store = Store::new();
    let place = |n: u32| (b"k".to_vec(), n.to_be_bytes().to_vec());
    let places: Vec<_> = (0..10_000).map(place).collect();
    let query = multi_get(&places);
    let first = store.machine.query(&query, TURN_BYTES).unwrap();
    assert_eq!(first, Turn { reply: None, passed_bytes: 0 }, "there is no use in beginning");
    let mut last = 0;
    let (reply, turn_count) = store.in_turns(&query, TURN_BYTES, |store| {
        // One cell at any moment, which moves on.
        let (taken, put) = (numbered(last), numbered((last + 1_777) % 10_000));
        last = (last + 1_777) % 10_000;
        let batch = Batch::new().delete(key(b"k"), taken);
        store.write(batch.set(key(b"k"), put, value(b"here")));
    });
    assert!(turn_count > 500, "{turn_count} turns");
    let QueryReply::Cells(cells) = reply else { panic!("{reply:?}") };
    let found: Vec<usize> = (0..).zip(&cells).filter_map(|(n, c)| c.as_ref().map(|_| n)).collect();
    assert_eq!((cells.len(), found), (10_000, vec![last as usize]));
}

#[test]
fn multi_get_of_a_few_cells_is_read_at_once_and_counts_nothing() {
    let store = Store::new();
    let places: Vec<_> = (0..17_u8).map(|n| (b"k".to_vec(), vec![n])).collect();
    let of_few = store.machine.query(&multi_get(&places[..16]), 1).unwrap();
    assert_eq!(of_few.passed_bytes, 0);
    assert!(matches!(of_few.reply, Some(QueryReply::Cells(cells)) if cells.len() == 16));
    let of_more = store.machine.query(&multi_get(&places), usize::MAX).unwrap();
    assert_eq!(of_more.passed_bytes, 17 * 4_096);
    assert!(matches!(of_more.reply, Some(QueryReply::Cells(cells)) if cells.len() == 17));
}

#[test]
fn multi_get_that_grows_too_large_between_its_turns_is_refused() {
    let mut store = Store::new();
    let mut places: Vec<_> = (0..100_u8).map(|n| (b"k".to_vec(), vec![n])).collect();
    // Named twice, so that it counts twice.
    places[1] = places[0].clone();
    let query = multi_get(&places);
    assert_eq!(store.machine.read_on(READER, &query, TURN_BYTES).unwrap().reply, None);
    let large = value(&vec![7; Value::BYTES_MAX]);
    store.write(Batch::new().set(key(b"k"), column(&[0]), large.clone()));
    assert_eq!(store.machine.read_on(READER, &query, TURN_BYTES).unwrap().reply, None, "2 MiB");
    store.write(Batch::new().set(key(b"k"), column(&[2]), large.clone()));
    store.write(Batch::new().set(key(b"k"), column(&[3]), large));
    let refused = store.machine.read_on(READER, &query, TURN_BYTES).unwrap_err();
    assert!(matches!(refused, QueryError::AnswerTooLarge { .. }), "{refused:?}");
}

/// The accident: it let go by calling itself for each column, and a full page of short ones that
/// met long ones took half of a thread's stack.
#[test]
fn page_that_lets_go_of_thousands_of_columns_takes_little_of_the_stack() {
    const STACK_BYTES: usize = 128 << 10;
    let mut store = Store::new();
    for n in 0..10 {
        let columns = (n * 1_000 + 1)..=(n + 1) * 1_000;
        let short = value(&[7; 160]);
        store.write(
            columns.fold(Batch::new(), |batch, n| batch.set(key(b"k"), numbered(n), short.clone())),
        );
    }
    let row = (keycode::encode_key(b"k"), keycode::encode_key_end(b"k"));
    let mut page = RowRead::of_slice(&slice(b"k", 10_000), &key(b"k"), row, 10_000);
    page.read_some(store.machine.engine(), usize::MAX).unwrap();
    let meets_long_ones = move || {
        let long = vec![7; Value::BYTES_MAX];
        let places = [0, 1].map(|n: u32| keycode::encode_cell(b"k", &n.to_be_bytes()));
        let changes = places.each_ref().map(|place| Change::Set { place, value: &long });
        page.on_write(99, &changes);
        page
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(meets_long_ones);
    let QueryReply::Columns { columns, next } = thread.unwrap().join().unwrap().into_columns()
    else {
        panic!("a slice has columns")
    };
    let found: Vec<Column> = columns.into_iter().map(|(column, _)| column).collect();
    assert_eq!((found, next), (vec![numbered(0), numbered(1)], Some(numbered(2))));
}
