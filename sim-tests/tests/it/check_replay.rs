//! The replay checker: right answers pass, and each way to answer wrongly is found.

use mangrove::base::{Column, Key, RequestSeq, SessionId, Value};
use mangrove::kv::{
    Batch, Cell, Command, CommandReply, Condition, Expectation, Mutation, Query, QueryReply,
    Version,
};
use sim_tests::check::replay::{self, Asked, Logged, Request, Told};

const SESSION: SessionId = SessionId(1);

fn key(text: &str) -> Key {
    Key::new(text.as_bytes().to_vec()).unwrap_or_default()
}

fn column(text: &str) -> Column {
    Column::new(text.as_bytes().to_vec()).unwrap_or_default()
}

fn value(text: &str) -> Value {
    Value::new(text.as_bytes().to_vec()).unwrap_or_default()
}

fn set(k: &str, c: &str, v: &str) -> Mutation {
    Mutation::Set { key: key(k), column: column(c), value: value(v) }
}

fn logged(index: u64, seq: u64, batch: Batch) -> Logged {
    let (seq, acked_below) = (RequestSeq(seq), RequestSeq(1));
    let command = Command::Write { session: SESSION, seq, acked_below, batch };
    Logged { index, command, refused: false }
}

fn writes(mutations: Vec<Mutation>) -> Batch {
    Batch { conditions: Vec::new(), mutations }
}

/// x=a at 2, y=b at 3, x deleted at 5, x=c if absent at 6; x=d if absent refused at 7.
fn log() -> Vec<Logged> {
    let absent = Condition { key: key("x"), column: column(""), expected: Expectation::Absent };
    let conditional =
        |v| Batch { conditions: vec![absent.clone()], mutations: vec![set("x", "", v)] };
    let delete = Mutation::Delete { key: key("x"), column: column("") };
    vec![
        logged(2, 1, writes(vec![set("x", "", "a")])),
        logged(3, 2, writes(vec![set("y", "1", "b"), set("y", "2", "b")])),
        logged(4, 1, writes(vec![set("x", "", "a")])),
        logged(5, 3, writes(vec![delete])),
        logged(6, 4, conditional("c")),
        logged(7, 5, conditional("d")),
        logged(8, 6, writes(vec![Mutation::DeleteRow { key: key("y") }])),
    ]
}

fn cell(text: &str, index: u64) -> Cell {
    Cell { value: value(text), version: Version(index) }
}

fn write(invoked: u64, ended: Option<u64>, seq: u64, told: Told) -> Asked {
    Asked {
        invoked,
        ended,
        request: Request::Write { session: SESSION, seq: RequestSeq(seq), told },
    }
}

fn applied(at: u64, seq: u64, index: u64) -> Asked {
    write(at, Some(at + 1), seq, Told::Reply(CommandReply::Applied(Version(index))))
}

fn read(at: u64, query: Query, reply: QueryReply, applied: Option<u64>) -> Asked {
    Asked { invoked: at, ended: Some(at + 1), request: Request::Read { query, reply, applied } }
}

fn get(at: u64, k: &str, found: Option<Cell>, applied: Option<u64>) -> Asked {
    let query = Query::Get { key: key(k), column: column("") };
    read(at, query, QueryReply::Cell(found), applied)
}

fn passes(name: &str, asked: &[Asked]) {
    replay::check(&log(), asked).unwrap_or_else(|violation| panic!("{name}: {violation}"));
}

fn fails(name: &str, asked: &[Asked], because: &str) {
    match replay::check(&log(), asked) {
        Ok(()) => panic!("{name} passed"),
        Err(violation) => assert!(violation.what.contains(because), "{name}: {violation}"),
    }
}

#[test]
fn replay_right_answers_pass() {
    passes(
        "all writes",
        &[
            applied(10, 1, 2),
            applied(20, 2, 3),
            applied(30, 3, 5),
            applied(40, 4, 6),
            write(
                50,
                Some(51),
                5,
                Told::Reply(CommandReply::ConditionFailed {
                    position: 0,
                    current: Some(cell("c", 6)),
                }),
            ),
            write(60, None, 6, Told::Unknown),
            write(60, None, 9, Told::Unknown),
        ],
    );
    passes(
        "reads",
        &[
            get(10, "x", None, Some(1)),
            get(20, "x", Some(cell("a", 2)), Some(4)),
            get(30, "x", None, None),
            get(40, "x", Some(cell("c", 6)), None),
        ],
    );
    passes(
        "concurrent",
        &[
            Asked { ended: Some(90), ..applied(10, 4, 6) },
            get(20, "x", Some(cell("c", 6)), None),
            Asked { invoked: 10, ..get(30, "x", Some(cell("a", 2)), None) },
        ],
    );
}

#[test]
fn replay_wrong_writes_are_accused() {
    fails("wrong version", &[applied(10, 1, 4)], "the answer is");
    fails("lost", &[applied(10, 9, 9)], "not in the committed log");
    let refused = CommandReply::ConditionFailed { position: 0, current: None };
    fails("wrong refusal", &[write(1, Some(2), 5, Told::Reply(refused))], "the answer is");
    fails("failed, yet applied", &[write(1, Some(2), 1, Told::NotApplied)], "failed for certain");
    fails("against real time", &[applied(10, 2, 3), applied(20, 1, 2)], "before it was sent");
    let unknown = write(20, None, 1, Told::Unknown);
    fails("unknown against real time", &[applied(10, 2, 3), unknown], "before it was sent");
}

#[test]
fn replay_wrong_reads_are_accused() {
    fails("stale", &[applied(10, 3, 5), get(20, "x", Some(cell("a", 2)), None)], "at any index");
    fails("stale, and says so", &[applied(10, 3, 5), get(20, "x", None, Some(4))], "served at");
    fails("wrong version", &[get(10, "x", Some(cell("a", 4)), None)], "at any index");
    fails("wrong value", &[get(10, "x", Some(cell("b", 2)), None)], "at any index");
    fails("wrong index", &[get(10, "x", Some(cell("a", 2)), Some(5))], "not the state at index 5");
    fails("resurrected", &[get(1, "x", Some(cell("c", 6)), None), get(10, "x", None, None)], "any");
    fails("from the future", &[get(1, "x", Some(cell("c", 6)), None), applied(10, 4, 6)], "sent");
    let back = [get(1, "x", None, Some(5)), get(10, "x", Some(cell("a", 2)), None)];
    fails("back in time", &back, "at any index");
}

#[test]
fn replay_reads_of_several_cells_are_of_one_state() {
    let both = |at: u64, x: Option<Cell>, y: Option<Cell>| {
        let cells = vec![(key("x"), column("")), (key("y"), column("1"))];
        read(at, Query::MultiGet { cells }, QueryReply::Cells(vec![x, y]), None)
    };
    passes("one state", &[both(1, Some(cell("a", 2)), Some(cell("b", 3)))]);
    passes("another state", &[both(1, None, Some(cell("b", 3)))]);
    passes("a third", &[both(1, Some(cell("c", 6)), None)]);
    fails("no state", &[both(1, Some(cell("c", 6)), Some(cell("b", 2)))], "at any index");
    fails("torn", &[applied(1, 2, 3), both(9, Some(cell("a", 2)), None)], "at any index");
    let slice = |start: &str, columns: &[(&str, u64)], next: Option<&str>| {
        let columns = columns.iter().map(|(name, at)| (column(name), cell("b", *at))).collect();
        let (key, start) = (key("y"), Some(column(start)));
        let query = Query::Slice { key, start, stop: None, limit: 9 };
        read(1, query, QueryReply::Columns { columns, next: next.map(column) }, Some(3))
    };
    passes("slice", &[slice("1", &[("1", 3), ("2", 3)], None)]);
    passes("cut slice", &[slice("1", &[("1", 3)], Some("2"))]);
    passes("bounded slice", &[slice("2", &[("2", 3)], None)]);
    fails("column missing", &[slice("1", &[("1", 3)], None)], "not the state");
    fails("not sorted", &[slice("1", &[("2", 3), ("1", 3)], None)], "not sorted");
    fails("outside", &[slice("2", &[("1", 3), ("2", 3)], None)], "outside");
    fails("unknown column", &[slice("1", &[("1", 3), ("2", 3), ("3", 3)], None)], "never written");
}

#[test]
fn replay_listings_are_of_one_state() {
    let keys = |at: u64, names: &[&str], applied: Option<u64>| {
        let query = Query::Keys { start: None, stop: None, prefix: key(""), limit: 9 };
        let keys = names.iter().map(|name| key(name)).collect();
        read(at, query, QueryReply::Keys { keys, next: None }, applied)
    };
    passes("both", &[keys(1, &["x", "y"], Some(3))]);
    passes("only y", &[keys(1, &["y"], None)]);
    passes("row deleted", &[keys(1, &["x"], Some(8))]);
    fails("key missing", &[keys(1, &["x"], Some(3))], "not the state");
    fails("key back", &[applied(1, 6, 8), keys(9, &["x", "y"], None)], "at any index");
    fails("unknown key", &[keys(1, &["z"], None)], "never written");
    let scan = |prefix: &str, cells: Vec<(Key, Column, Cell)>| {
        let query = Query::Scan { start: None, prefix: key(prefix), limit: 9 };
        read(1, query, QueryReply::Scanned { cells, next: None }, Some(6))
    };
    let x = (key("x"), column(""), cell("c", 6));
    let y = |name: &str| (key("y"), column(name), cell("b", 3));
    passes("scan", &[scan("", vec![x.clone(), y("1"), y("2")])]);
    passes("scan of a prefix", &[scan("x", vec![x.clone()])]);
    fails("cell missing", &[scan("", vec![x, y("1")])], "not the state");
}
