//! The state machine against a naive model, its pages against whole ranges.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;

use crate::base::hash::mix64;
use crate::base::{Column, Key, RequestSeq, SessionId, Value};
use crate::codec;
use crate::kv::*;
use crate::storage::test_disk::{TestDisk, run};
use crate::storage::tree::{self, Keeper, TreeOptions};
use crate::storage::{Engine, StorageError, Tree};

type Store = Tree<TestDisk>;

/// Small, so that sessions are pushed out all the time.
const SESSIONS_MAX: usize = 3;

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes.to_vec()).unwrap_or_default()
}

fn column(bytes: &[u8]) -> Column {
    Column::new(bytes.to_vec()).unwrap_or_default()
}

fn value(bytes: &[u8]) -> Value {
    Value::new(bytes.to_vec()).unwrap_or_default()
}

fn machine(sessions_max: usize) -> Machine<Store> {
    let restored = Machine::restore(empty_store().0, &[], sessions_max);
    restored.unwrap_or_else(|error| panic!("{error}"))
}

/// Applies `command` as the next log entry.
fn apply(machine: &mut Machine<Store>, command: &Command) -> CommandReply {
    let index = machine.applied().index + 1;
    let reply = machine.apply(index, 1, &codec::encode(command));
    reply.unwrap_or_else(|error| panic!("{error}"))
}

fn write(session: u64, seq: u64, acked_below: u64, batch: Batch) -> Command {
    let (seq, acked_below) = (RequestSeq(seq), RequestSeq(acked_below));
    Command::Write { session: SessionId(session), seq, acked_below, batch }
}

/// Returns an empty store, and what writes its files.
fn empty_store() -> (Store, Keeper<TestDisk>) {
    let opened = run(tree::open(TestDisk::default(), "tables", TreeOptions::default()));
    let (tree, keeper, _) = opened.unwrap_or_else(|error| panic!("{error}"));
    (tree, keeper)
}

/// Returns what another node makes of a snapshot of `machine`.
fn through_a_snapshot(machine: &mut Machine<Store>) -> Machine<Store> {
    let extra = machine.extra();
    let (mut store, mut keeper) = empty_store();
    run(keeper.begin_replacement()).unwrap_or_else(|error| panic!("{error}"));
    let mut cells = Vec::new();
    let scanned = machine.engine().scan(&[], None, &mut |place, value, version| {
        cells.push((place.to_vec(), value.to_vec(), version));
        ControlFlow::Continue(())
    });
    scanned.unwrap_or_else(|error| panic!("{error}"));
    let cells = cells.iter().map(|(place, value, version)| crate::storage::Cell {
        place,
        version: *version,
        content: crate::storage::Content::Value(value),
    });
    run(keeper.push_replacement(cells)).unwrap_or_else(|error| panic!("{error}"));
    let replaced = run(keeper.finish_replacement(machine.applied(), extra.clone().into()));
    store.adopt(replaced.unwrap_or_else(|error| panic!("{error}")));
    let restored = Machine::restore(store, &extra, SESSIONS_MAX);
    restored.unwrap_or_else(|error| panic!("{error}"))
}

type Place = (Vec<u8>, Vec<u8>);

/// The specification, as slow and plain as can be.
#[derive(Default)]
struct Model {
    index: u64,
    /// Value and version by key and column.
    cells: BTreeMap<Place, (Vec<u8>, u64)>,
    /// By id: last use, lowest number not acknowledged, answers.
    sessions: BTreeMap<u64, (u64, u64, BTreeMap<u64, CommandReply>)>,
}

impl Model {
    fn apply(&mut self, command: &Command) -> CommandReply {
        self.index += 1;
        let (id, seq, acked, batch) = match command {
            Command::Register { .. } | Command::RegisterByIndex { .. } => {
                let id = session_of(self.index, command);
                self.sessions.insert(id, (self.index, 0, BTreeMap::new()));
                if self.sessions.len() > SESSIONS_MAX {
                    let oldest = self.sessions.iter().min_by_key(|(_, session)| session.0);
                    let oldest = oldest.map(|(id, _)| *id);
                    self.sessions.retain(|id, _| Some(*id) != oldest);
                }
                return CommandReply::Registered(SessionId(id));
            }
            Command::Write { session, seq, acked_below, batch } => {
                (session.0, seq.0, acked_below.0, batch)
            }
        };
        let index = self.index;
        let Some((last_used, acked_below, answers)) = self.sessions.get_mut(&id) else {
            return CommandReply::SessionExpired;
        };
        *last_used = index;
        *acked_below = acked.max(*acked_below);
        answers.retain(|seq, _| seq >= acked_below);
        if seq < *acked_below {
            return CommandReply::OutOfWindow;
        }
        if let Some(answer) = answers.get(&seq) {
            return answer.clone();
        }
        let answer = self.carry_out(batch);
        if let Some((_, _, answers)) = self.sessions.get_mut(&id) {
            answers.insert(seq, answer.clone());
        }
        answer
    }

    fn cell(&self, key: &Key, column: &Column) -> Option<Cell> {
        let found = self.cells.get(&(key.as_bytes().to_vec(), column.as_bytes().to_vec()));
        found.map(|(bytes, version)| Cell { value: value(bytes), version: Version(*version) })
    }

    fn carry_out(&mut self, batch: &Batch) -> CommandReply {
        for (position, condition) in (0..).zip(&batch.conditions) {
            let current = self.cell(&condition.key, &condition.column);
            let holds = match &condition.expected {
                Expectation::Absent => current.is_none(),
                Expectation::Present => current.is_some(),
                Expectation::Value(value) => current.as_ref().is_some_and(|c| c.value == *value),
                Expectation::Version(at) => current.as_ref().is_some_and(|c| c.version == *at),
            };
            if !holds {
                return CommandReply::ConditionFailed { position, current };
            }
        }
        for mutation in &batch.mutations {
            match mutation {
                Mutation::Set { key, column, value } => {
                    let place = (key.as_bytes().to_vec(), column.as_bytes().to_vec());
                    self.cells.insert(place, (value.as_bytes().to_vec(), self.index));
                }
                Mutation::Delete { key, column } => {
                    let place = (key.as_bytes().to_vec(), column.as_bytes().to_vec());
                    self.cells.remove(&place);
                }
                Mutation::DeleteRow { key } => {
                    self.cells.retain(|place, _| place.0 != key.as_bytes());
                }
            }
        }
        CommandReply::Applied(Version(self.index))
    }
}

/// Bytes that are hard on an encoding.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xFF), any::<u8>()], 0..5)
}

/// One of a few keys.
fn row() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![vec![], vec![0], vec![1]])
}

/// One of a few places, so that commands meet.
fn place() -> impl Strategy<Value = (Key, Column)> {
    let few = || prop::sample::select(vec![&b""[..], b"\0", b"a", b"a\0", b"a\xFF", b"\xFF"]);
    (few(), few()).prop_map(|(k, c)| (key(k), column(c)))
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (place(), 0_u8..3).prop_map(|((key, column), v)| {
            Mutation::Set { key, column, value: value(&[v]) }
        }),
        1 => place().prop_map(|(key, column)| Mutation::Delete { key, column }),
        1 => place().prop_map(|(key, _)| Mutation::DeleteRow { key }),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let expected = prop_oneof![
        Just(Expectation::Absent),
        Just(Expectation::Present),
        (0_u8..3).prop_map(|v| Expectation::Value(value(&[v]))),
        (1_u64..100).prop_map(|at| Expectation::Version(Version(at))),
    ];
    (place(), expected).prop_map(|((key, column), expected)| Condition { key, column, expected })
}

fn batch() -> impl Strategy<Value = Batch> {
    let conditions = prop::collection::vec(condition(), 0..2);
    let mutations = prop::collection::vec(mutation(), 0..5);
    (conditions, mutations).prop_map(|(conditions, mutations)| Batch { conditions, mutations })
}

/// Returns the id of the session that a command registers.
fn session_of(index: u64, command: &Command) -> u64 {
    match command {
        Command::Register { nonce } => mix64(index, *nonce),
        Command::RegisterByIndex { .. } | Command::Write { .. } => index,
    }
}

/// A step of a run: a command, or a change of machine by a snapshot.
#[derive(Debug, Clone)]
enum Step {
    /// Registers a session, as it is done today or as it was done once.
    Register(Command),
    /// Writes in the session registered so many registrations ago.
    Write { back: usize, seq: u64, acked_below: u64, batch: Batch },
    /// An entry without a command.
    Skip,
    /// Goes on with a machine that has only a snapshot.
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Register(Command::Register { nonce: 7 })),
        1 => Just(Step::Register(Command::RegisterByIndex { nonce: 7 })),
        12 => (0_usize..5, 1_u64..6, 0_u64..3, batch()).prop_map(
            |(back, seq, acked_below, batch)| Step::Write { back, seq, acked_below, batch }
        ),
        1 => Just(Step::Skip),
        1 => Just(Step::Snapshot),
    ]
}

#[test]
fn write_of_an_ended_session_that_comes_late_has_no_effect() {
    let mut machine = machine(SESSIONS_MAX);
    let mut register = || {
        let reply = apply(&mut machine, &Command::Register { nonce: 7 });
        let CommandReply::Registered(session) = reply else { unreachable!("{reply:?}") };
        session.0
    };
    let (former, session) = (register(), register());
    let set = |n| Batch::new().set(key(b"k"), Column::default(), value(&[n]));
    let late = write(former, 5, 1, set(1));
    let end = write(former, u64::MAX, u64::MAX, Batch::new());
    for _ in 0..2 {
        let ended = apply(&mut machine, &end);
        assert!(matches!(ended, CommandReply::Applied(_)), "{ended:?}");
    }
    let again = apply(&mut machine, &write(session, 1, 1, set(2)));
    assert!(matches!(again, CommandReply::Applied(_)), "{again:?}");
    assert_eq!(apply(&mut machine, &late), CommandReply::OutOfWindow);
    let mut other = through_a_snapshot(&mut machine);
    assert_eq!(apply(&mut other, &late), CommandReply::OutOfWindow);
}

proptest! {
    #[test]
    fn machine_agrees_with_the_model(steps in prop::collection::vec(step(), 0..80)) {
        let mut model = Model::default();
        let (mut moving, mut steady) = (machine(SESSIONS_MAX), machine(SESSIONS_MAX));
        let mut registered = Vec::new();
        for step in steps {
            let command = match step {
                Step::Register(command) => {
                    registered.push(session_of(model.index + 1, &command));
                    command
                }
                Step::Write { back, seq, acked_below, batch } => {
                    let session = registered.iter().rev().nth(back).copied().unwrap_or(999);
                    write(session, seq, acked_below, batch)
                }
                Step::Skip => {
                    model.index += 1;
                    moving.skip(model.index, 1);
                    steady.skip(model.index, 1);
                    continue;
                }
                Step::Snapshot => {
                    moving = through_a_snapshot(&mut moving);
                    continue;
                }
            };
            let expected = model.apply(&command);
            prop_assert_eq!(&apply(&mut moving, &command), &expected);
            prop_assert_eq!(&apply(&mut steady, &command), &expected);
        }
        prop_assert_eq!(moving.trail(), steady.trail());
        prop_assert_eq!(moving.state_hash(), steady.state_hash());
        prop_assert_eq!(moving.session_count(), model.sessions.len());
        let scanned = everything(&moving);
        let modelled = model.cells.iter().map(|((k, c), (v, at))| {
            (key(k), column(c), Cell { value: value(v), version: Version(*at) })
        });
        prop_assert_eq!(scanned, modelled.collect::<Vec<_>>());
    }

    #[test]
    fn bytes_that_are_no_command_change_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        prop_assume!(codec::decode::<Command>(&bytes).is_err());
        let mut machine = machine(SESSIONS_MAX);
        prop_assert_eq!(machine.apply(1, 1, &bytes), Ok(CommandReply::Malformed));
        prop_assert_eq!((machine.applied().index, machine.cell_count()), (1, 0));
    }
}

/// Answers a query in one turn, however long that takes.
fn whole(machine: &Machine<Store>, query: &Query) -> Result<QueryReply, QueryError> {
    let Turn { reply: Some(reply), .. } = machine.query(query, usize::MAX)? else {
        panic!("{query:?} takes a second turn")
    };
    Ok(reply)
}

/// Returns all cells, read in large pages.
fn everything(machine: &Machine<Store>) -> Vec<(Key, Column, Cell)> {
    scan_pages(machine, None, &key(b""), 10_000)
}

fn scan_pages(
    machine: &Machine<Store>,
    mut start: Option<(Key, Column)>,
    prefix: &Key,
    limit: u32,
) -> Vec<(Key, Column, Cell)> {
    let mut all = Vec::new();
    loop {
        let query = Query::Scan { start, prefix: prefix.clone(), limit };
        let Ok(QueryReply::Scanned { cells, next }) = whole(machine, &query) else {
            panic!("{query:?} has another answer")
        };
        assert!(!cells.is_empty() || next.is_none(), "a page of nothing before {next:?}");
        all.extend(cells);
        match next {
            Some(next) => start = Some(next),
            None => return all,
        }
    }
}

fn key_pages(
    machine: &Machine<Store>,
    mut start: Option<Key>,
    stop: Option<&Key>,
    prefix: &Key,
    limit: u32,
) -> Vec<Key> {
    let mut all = Vec::new();
    loop {
        let query = Query::Keys { start, stop: stop.cloned(), prefix: prefix.clone(), limit };
        let Ok(QueryReply::Keys { keys, next }) = whole(machine, &query) else {
            panic!("{query:?} has another answer")
        };
        assert!(!keys.is_empty() || next.is_none(), "a page of nothing before {next:?}");
        all.extend(keys);
        match next {
            Some(next) => start = Some(next),
            None => return all,
        }
    }
}

fn column_pages(
    machine: &Machine<Store>,
    key: &Key,
    mut start: Option<Column>,
    stop: Option<&Column>,
    limit: u32,
) -> Vec<(Column, Cell)> {
    let mut all = Vec::new();
    loop {
        let query = Query::Slice { key: key.clone(), start, stop: stop.cloned(), limit };
        let Ok(QueryReply::Columns { columns, next }) = whole(machine, &query) else {
            panic!("{query:?} has another answer")
        };
        assert!(!columns.is_empty() || next.is_none(), "a page of nothing before {next:?}");
        all.extend(columns);
        match next {
            Some(next) => start = Some(next),
            None => return all,
        }
    }
}

/// Returns a machine with a cell at each of `places`, and the cells in order.
fn filled(places: &[(Vec<u8>, Vec<u8>)]) -> (Machine<Store>, Vec<(Key, Column, Cell)>) {
    let mut machine = machine(SESSIONS_MAX);
    apply(&mut machine, &Command::RegisterByIndex { nonce: 0 });
    let batch =
        places.iter().fold(Batch::new(), |batch, (k, c)| batch.set(key(k), column(c), value(b"v")));
    let reply = apply(&mut machine, &write(1, 1, 0, batch));
    assert_eq!(reply, CommandReply::Applied(Version(2)));
    let mut places = places.to_vec();
    places.sort();
    places.dedup();
    let cell = Cell { value: value(b"v"), version: Version(2) };
    let cells = places.iter().map(|(k, c)| (key(k), column(c), cell.clone())).collect();
    (machine, cells)
}

proptest! {
    #[test]
    fn pages_of_a_scan_make_the_whole_range(
        places in prop::collection::vec((bytes(), bytes()), 0..30),
        start in prop::option::of((bytes(), bytes())),
        prefix in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xFF), any::<u8>()], 0..2),
        limit in 1_u32..6,
    ) {
        let (machine, mut expected) = filled(&places);
        let start = start.map(|(k, c)| (key(&k), column(&c)));
        expected.retain(|(k, c, _)| {
            k.as_bytes().starts_with(&prefix)
                && start.as_ref().is_none_or(|start| (k, c) >= (&start.0, &start.1))
        });
        prop_assert_eq!(scan_pages(&machine, start, &key(&prefix), limit), expected);
    }

    #[test]
    fn pages_of_keys_make_the_whole_range(
        rows in prop::collection::vec((bytes(), 1_u8..30), 0..12),
        start in prop::option::of(bytes()),
        stop in prop::option::of(bytes()),
        prefix in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xFF), any::<u8>()], 0..2),
        limit in 1_u32..4,
    ) {
        let places: Vec<_> = rows.iter()
            .flat_map(|(key, columns)| (0..*columns).map(|c| (key.clone(), vec![c])))
            .collect();
        let (machine, cells) = filled(&places);
        let mut expected: Vec<_> = cells.into_iter().map(|(key, ..)| key).collect();
        expected.dedup();
        let (start, stop) = (start.map(|k| key(&k)), stop.map(|k| key(&k)));
        expected.retain(|key| {
            key.as_bytes().starts_with(&prefix)
                && start.as_ref().is_none_or(|start| key >= start)
                && stop.as_ref().is_none_or(|stop| key <= stop)
        });
        let paged = key_pages(&machine, start, stop.as_ref(), &key(&prefix), limit);
        prop_assert_eq!(paged, expected);
    }

    #[test]
    fn pages_of_a_slice_make_the_whole_range(
        places in prop::collection::vec((row(), bytes()), 0..30),
        row in row(),
        start in prop::option::of(bytes()),
        stop in prop::option::of(bytes()),
        limit in 1_u32..4,
    ) {
        let (machine, cells) = filled(&places);
        let (row, start, stop) = (key(&row), start.map(|c| column(&c)), stop.map(|c| column(&c)));
        let expected = cells.into_iter().filter(|(key, column, _)| {
            *key == row
                && start.as_ref().is_none_or(|start| column >= start)
                && stop.as_ref().is_none_or(|stop| column <= stop)
        });
        let expected: Vec<_> = expected.map(|(_, column, cell)| (column, cell)).collect();
        let paged = column_pages(&machine, &row, start, stop.as_ref(), limit);
        prop_assert_eq!(paged, expected);
    }
}

#[test]
fn page_of_large_values_is_closed_by_its_bytes() {
    let mut machine = machine(SESSIONS_MAX);
    apply(&mut machine, &Command::RegisterByIndex { nonce: 0 });
    for n in 0..5_u8 {
        let large = value(&vec![n; Value::BYTES_MAX]);
        let batch = Batch::new().set(key(b"k"), column(&[n]), large);
        apply(&mut machine, &write(1, u64::from(n) + 1, 0, batch));
    }
    let query = Query::Slice { key: key(b"k"), start: None, stop: None, limit: 100 };
    let Ok(QueryReply::Columns { columns, next }) = whole(&machine, &query) else {
        panic!("a slice has columns")
    };
    assert_eq!((columns.len(), next), (2, Some(column(&[2]))));
    assert_eq!(column_pages(&machine, &key(b"k"), None, None, 100).len(), 5);
    let cells = |count: u8| (0..count).map(|n| (key(b"k"), column(&[n]))).collect();
    let three = whole(&machine, &Query::MultiGet { cells: cells(3) });
    assert!(matches!(three, Ok(QueryReply::Cells(cells)) if cells.len() == 3));
    let refused = whole(&machine, &Query::MultiGet { cells: cells(5) }).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the answer is over the limit of 4194304 bytes: ask for fewer cells"
    );
}

#[test]
fn multi_get_answers_in_the_order_asked() {
    let (machine, _) = filled(&[(b"a".to_vec(), vec![]), (b"b".to_vec(), vec![1])]);
    let absent = (key(b"b"), column(b""));
    let cells = vec![(key(b"b"), column(&[1])), absent, (key(b"a"), column(b""))];
    let Ok(QueryReply::Cells(cells)) = whole(&machine, &Query::MultiGet { cells }) else {
        panic!("a multi_get has cells")
    };
    let found: Vec<_> = cells.iter().map(Option::is_some).collect();
    assert_eq!(found, [true, false, true]);
}

#[test]
fn conditions_are_judged_on_the_state_before_the_batch() {
    let mut machine = machine(SESSIONS_MAX);
    apply(&mut machine, &Command::RegisterByIndex { nonce: 0 });
    let (k, c) = (key(b"k"), column(b""));
    let batch = Batch::new().set(k.clone(), c.clone(), value(b"1")).require(
        k.clone(),
        c.clone(),
        Expectation::Absent,
    );
    assert_eq!(apply(&mut machine, &write(1, 1, 0, batch)), CommandReply::Applied(Version(2)));
    let swap = Batch::compare_and_set(k.clone(), c, Expectation::Version(Version(1)), value(b"2"));
    let current = Some(Cell { value: value(b"1"), version: Version(2) });
    assert_eq!(
        apply(&mut machine, &write(1, 2, 0, swap)),
        CommandReply::ConditionFailed { position: 0, current }
    );
}

#[test]
fn row_deleted_within_a_batch_keeps_what_is_set_after() {
    let mut machine = machine(SESSIONS_MAX);
    apply(&mut machine, &Command::RegisterByIndex { nonce: 0 });
    let row = |batch: Batch, c: &[u8]| batch.set(key(b"r"), column(c), value(b"v"));
    apply(&mut machine, &write(1, 1, 0, row(row(Batch::new(), b"old"), b"older")));
    let batch = row(row(Batch::new(), b"before").delete_row(key(b"r")), b"after");
    apply(&mut machine, &write(1, 2, 0, batch));
    let columns = column_pages(&machine, &key(b"r"), None, None, 10);
    let columns: Vec<_> = columns.into_iter().map(|(column, _)| column).collect();
    assert_eq!(columns, [column(b"after")]);
    apply(&mut machine, &write(1, 3, 0, Batch::new().delete_row(key(b"r"))));
    assert_eq!(key_pages(&machine, None, None, &key(b""), 10), Vec::<Key>::new());
}

#[test]
fn write_retried_after_a_snapshot_takes_effect_once() {
    let mut machine = machine(SESSIONS_MAX);
    apply(&mut machine, &Command::RegisterByIndex { nonce: 0 });
    let set = write(1, 1, 0, Batch::new().set(key(b"k"), column(b""), value(b"1")));
    let first = apply(&mut machine, &set);
    let other = write(1, 2, 0, Batch::new().set(key(b"k"), column(b""), value(b"2")));
    apply(&mut machine, &other);
    let mut restored = through_a_snapshot(&mut machine);
    assert_eq!(apply(&mut restored, &set), first);
    let (_, _, cell) = everything(&restored).remove(0);
    assert_eq!(cell, Cell { value: value(b"2"), version: Version(3) });
}

#[cfg(feature = "testing")]
#[test]
fn planted_snapshot_without_sessions_forgets_them() {
    let mut machine = machine(SESSIONS_MAX);
    apply(&mut machine, &Command::RegisterByIndex { nonce: 0 });
    crate::base::planted::turn_on(Some("R45"));
    let mut restored = through_a_snapshot(&mut machine);
    crate::base::planted::turn_on(None);
    let reply = apply(&mut restored, &write(1, 1, 0, Batch::new()));
    assert_eq!(reply, CommandReply::SessionExpired);
}

#[test]
fn extra_missing_or_malformed_is_refused() {
    let (mut store, _) = empty_store();
    store.write(crate::storage::SnapshotPoint { index: 1, term: 1 }, &[]);
    let missing = Machine::restore(store, &[], SESSIONS_MAX);
    assert!(matches!(missing, Err(StorageError::Corrupt { .. })), "no sessions at index 1");
    let short = Machine::restore(empty_store().0, &[0; 15], SESSIONS_MAX);
    assert!(matches!(short, Err(StorageError::Corrupt { .. })), "half a count");
}
