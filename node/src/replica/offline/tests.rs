//! Salvage and restoration on a disk that does its worst.

use std::collections::BTreeMap;

use super::super::identity::{self, Identity};
use super::super::persist::{KIND_DAMAGED, KIND_ENTRY, KIND_RECORDS};
use super::super::recovery;
use super::super::shell::Replica;
use super::super::start::{StartError, WAL_DIR};
use super::super::state::meta;
use super::super::tests::HandEnv;
use super::*;
use crate::base::{
    self, ClusterId, Column, Key, NodeId, Payload, RequestSeq, SessionId, Stamp, Value, Written,
};
use crate::codec::{self, keycode};
use crate::dynamo::Record;
use crate::dynamo::placement::{NOTE_PREFIX, place_in};
use crate::kv::{
    Batch, CellStore, Command, CommandReply, Condition, Expectation, Machine, Mutation,
};
use crate::raft::{Entry, EntryKind, Recovered, Standing};
use crate::replica::NodeConfig;
use crate::storage::snapshot::SnapshotEncoder;
use crate::storage::snapshot::format::{BlockKind, Encoder, Footer};
use crate::storage::test_disk::{Faults, TestDisk, run};
use crate::storage::tree::{self, Keeper, Tree, TreeOptions};
use crate::storage::{Engine, PurgeFloors, SnapshotPoint, wal};
use crate::wire::Mode;

type Cells = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// A node that is alone: what it applies is in its log.
struct Node {
    disk: TestDisk,
    log: wal::Writer<TestDisk>,
    machine: Machine<Tree<TestDisk>>,
    keeper: Keeper<TestDisk>,
}

/// As many sessions as [`node`] remembers.
const SESSIONS_MAX: usize = 10;

fn options() -> TreeOptions {
    let mut options = TreeOptions::default();
    options.table.block_bytes = 300;
    options
}

fn node() -> Node {
    node_of(SESSIONS_MAX)
}

fn node_of(sessions_max: usize) -> Node {
    let disk = TestDisk::default();
    let opened = run(tree::open(disk.clone(), STATE_DIR, options()));
    let (tree, keeper, _) = opened.unwrap_or_else(|error| panic!("{error}"));
    let machine =
        Machine::restore(tree, &[], sessions_max).unwrap_or_else(|error| panic!("{error}"));
    let log = run(wal::open(&disk, WAL_DIR, wal::Options::default()));
    let (log, _) = log.unwrap_or_else(|error| panic!("{error}"));
    let mut node = Node { disk, log, machine, keeper };
    node.apply(&Command::RegisterByIndex { nonce: 1 });
    node
}

impl Node {
    fn apply(&mut self, command: &Command) -> CommandReply {
        let (index, bytes) = (self.machine.applied().index + 1, codec::encode(command));
        let reply = self.machine.apply(index, 1, &bytes);
        let kind = EntryKind::Command(Payload::new(bytes).unwrap_or_default());
        let entry = Entry { term: 1, index, kind };
        self.log.append(KIND_ENTRY, index, |buffer| codec::encode_into(&entry, buffer));
        let written = run(async {
            self.log.write().await?;
            self.log.sync().await
        });
        written.unwrap_or_else(|error| panic!("{error}"));
        reply.unwrap_or_else(|error| panic!("{error}"))
    }

    fn write(&mut self, conditions: Vec<Condition>, mutations: Vec<Mutation>) {
        let seq = RequestSeq(self.machine.applied().index);
        let batch = Batch { conditions, mutations };
        self.apply(&Command::Write { session: SessionId(1), seq, acked_below: seq, batch });
    }

    fn set(&mut self, number: usize, value: &str) {
        let (key, column) = place(number);
        let value = Value::new(value.to_owned()).unwrap_or_default();
        self.write(Vec::new(), vec![Mutation::Set { key, column, value }]);
    }

    /// Writes what is in memory to a table.
    fn flush(&mut self) {
        let extra = self.machine.extra();
        let frozen = self.machine.engine_mut().freeze(extra);
        let flushed = run(self.keeper.flush(&frozen)).unwrap_or_else(|error| panic!("{error}"));
        self.machine.engine_mut().adopt(flushed);
        run(self.keeper.collect());
    }

    fn cells(&self) -> Cells {
        let mut cells = Cells::new();
        let scanned = self.machine.engine().scan(&[], None, &mut |place, value, version| {
            cells.insert(place.to_vec(), (value.to_vec(), version));
            std::ops::ControlFlow::Continue(())
        });
        scanned.unwrap_or_else(|error| panic!("{error}"));
        cells
    }

    fn path_of(&self, start: &str) -> String {
        let mut paths = self.disk.files(STATE_DIR).into_keys();
        paths.find(|path| path.contains(start)).unwrap_or_default()
    }

    /// Returns the bytes of a snapshot of what is in tables.
    fn snapshot(&self) -> Vec<u8> {
        let version = self.machine.engine().pin();
        let mut encoder =
            SnapshotEncoder::begin(&version).unwrap_or_else(|error| panic!("{error}"));
        let mut bytes = Vec::new();
        while !encoder.step(&mut bytes).unwrap_or_else(|error| panic!("{error}")) {}
        bytes
    }
}

fn place(number: usize) -> (Key, Column) {
    let key = Key::new(format!("key/{:03}", number / 2)).unwrap_or_default();
    (key, Column::new(format!("c{}", number % 2)).unwrap_or_default())
}

/// Returns a node with tables, and a log that goes further.
fn filled() -> Node {
    let mut node = node();
    (0..120).for_each(|number| node.set(number, &format!("old {number}")));
    node.flush();
    (40..80).for_each(|number| node.set(number, &format!("new {number}")));
    node.flush();
    (70..90).for_each(|number| node.set(number, &format!("newest {number}")));
    node
}

fn salvaged(disk: &TestDisk) -> (Cells, SalvageReport) {
    salvaged_with(disk, SESSIONS_MAX)
}

fn salvaged_with(disk: &TestDisk, sessions_max: usize) -> (Cells, SalvageReport) {
    let mut cells = Cells::new();
    let before = (disk.files(STATE_DIR), disk.files(WAL_DIR), disk.operation_count());
    let visit = &mut |place: &[u8], value: &[u8], version| {
        cells.insert(place.to_vec(), (value.to_vec(), version));
        std::ops::ControlFlow::Continue(())
    };
    let report = run(salvage(disk, &TestDisk::default(), sessions_max, visit));
    assert_eq!((disk.files(STATE_DIR), disk.files(WAL_DIR), disk.operation_count()), before);
    (cells, report.unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn salvage_of_a_whole_node_has_tables_and_log() {
    let node = filled();
    let (cells, report) = salvaged(&node.disk);
    assert_eq!(cells, node.cells());
    assert!(report.store.is_whole() && report.lost.is_empty(), "{report:?}");
    assert_eq!((report.cell_count, report.log.entry_count), (120, 20));
    assert_eq!((report.log.failure, report.log.lost_through), (None, None));
}

#[test]
fn damaged_block_takes_its_cells_unless_the_log_has_newer_ones() {
    let node = filled();
    let path = node.path_of("table-");
    let len = node.disk.contents(&path).len();
    let (mut stale, mut missing) = (0, 0);
    for at in (0..len).step_by(97) {
        node.disk.damage(&path, |bytes| bytes[at] ^= 8);
        let (cells, report) = salvaged(&node.disk);
        node.disk.damage(&path, |bytes| bytes[at] ^= 8);
        assert!(!report.store.is_whole(), "byte {at}");
        for (place, was) in &node.cells() {
            let is = cells.get(place);
            if is == Some(was) {
                continue;
            }
            let lost = report.lost.iter().find(|lost| lost.range.contains(place));
            assert!(lost.is_some_and(|lost| was.1 <= lost.version_max), "{place:?}, byte {at}");
            stale += usize::from(is.is_some());
            missing += usize::from(is.is_none());
        }
        let newest: Vec<_> =
            cells.values().filter(|(value, _)| value.starts_with(b"newest")).collect();
        assert_eq!(newest.len(), 20, "the log is whole, byte {at}");
    }
    assert!(missing > 0, "{path} holds cells that nothing else does: {stale} stale");
}

#[test]
fn lost_sessions_do_not_keep_the_log_from_being_carried_out() {
    let node = filled();
    let extra = node.path_of("extra-");
    node.disk.damage(&extra, |bytes| bytes[0] ^= 1);
    let (cells, report) = salvaged(&node.disk);
    assert_eq!(cells, node.cells());
    assert!(report.log.sessions_are_lost, "{report:?}");
}

#[test]
fn lost_manifest_leaves_tables_and_log() {
    let node = filled();
    node.disk.lose(&node.path_of("MANIFEST"));
    let (cells, report) = salvaged(&node.disk);
    assert_eq!(cells, node.cells());
    assert_eq!(report.store.applied, None);
}

/// Returns where the last record of the log lies: nothing proves yet that it is durable.
fn last_record(node: &Node) -> (String, u64) {
    let place = run(wal::unwitnessed(&node.disk, WAL_DIR)).unwrap_or_else(|e| panic!("{e}"));
    place.unwrap_or_else(|| panic!("the last record has a witness"))
}

/// Flips a bit of the payload of the record there.
fn damage(node: &Node, (path, start): &(String, u64)) {
    let at = usize::try_from(*start).unwrap_or(0) + 60;
    node.disk.damage(path, |bytes| bytes[at] ^= 1);
}

#[test]
fn log_that_is_lost_is_said() {
    let mut node = filled();
    let whole = salvaged(&node.disk).1.log;
    assert_eq!((whole.lost_through, &whole.torn), (None, &None));
    // With a witness it cannot be taken for an unfinished write.
    let place = last_record(&node);
    run(node.log.mark()).expect("the mark is written");
    damage(&node, &place);
    let log = salvaged(&node.disk).1.log;
    assert_eq!(log.lost_through, Some(whole.last));
    assert_eq!((log.last, log.entry_count), (whole.last - 1, whole.entry_count - 1));
}

/// The accident: a node that was alone, and refused its start, said that nothing was changed, when
/// its log had been given a new segment.
#[test]
fn refused_start_removes_no_data_and_says_no_more_than_that() {
    let mut node = filled();
    let place = last_record(&node);
    run(node.log.mark()).expect("the mark is written");
    node.set(91, "after the mark, and without another");
    damage(&node, &place);
    let members = vec![(NodeId(1), "n1".to_owned())];
    let config = NodeConfig::new(ClusterId(1), NodeId(1), "n1", members);
    run(identity::publish(&node.disk, &Identity::of(&config))).expect("the disk is well");
    let (tables, log) = (node.disk.files(STATE_DIR), node.disk.files(WAL_DIR));
    let (cells, report) = salvaged(&node.disk);

    let env = HandEnv::with_disk(node.disk.clone());
    let error = run(Replica::recover(env, config, ())).err();
    let Some(StartError::Damaged { what }) = &error else { panic!("{error:?}") };
    assert!(what.contains("1 damaged place(s) in the log"), "{what}");
    let said = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("; no data was removed."), "{said}");
    assert!(node.disk.files(WAL_DIR) != log, "the log goes on elsewhere");
    assert!(node.disk.files(STATE_DIR) == tables, "the tables are as they were");
    let (cells_after, report_after) = salvaged(&node.disk);
    assert_eq!(cells_after, cells);
    assert_eq!(report_after.log.entry_count, report.log.entry_count);
}

#[test]
fn log_that_ends_in_an_unfinished_write_is_said() {
    let node = filled();
    let whole = salvaged(&node.disk).1.log;
    damage(&node, &last_record(&node));
    let log = salvaged(&node.disk).1.log;
    assert!(log.torn.is_some(), "{log:?}");
    assert_eq!((log.lost_through, log.last), (None, whole.last - 1));
}

/// The accident: it was salvaged as if the log had ended with the tables.
#[test]
fn log_whose_files_are_gone_is_said() {
    let node = filled();
    let whole = salvaged(&node.disk).1.log;
    assert!(!whole.is_gone && whole.damage.is_empty(), "{whole:?}");
    node.disk.lose_all(WAL_DIR);
    let log = salvaged(&node.disk).1.log;
    assert!(log.is_gone, "{log:?}");
    assert_eq!((log.last, log.entry_count), (whole.last - 20, 0));
    let disk = masterless();
    assert!(!salvaged(&disk).1.log.is_gone);
    disk.lose_all(WAL_DIR);
    let log = salvaged(&disk).1.log;
    assert!(log.is_gone && log.is_incomplete, "{log:?}");
    let disk = node_of(1).disk;
    disk.lose_all(WAL_DIR);
    assert!(!salvaged(&disk).1.log.is_gone, "there was no table");
}

#[test]
fn last_segment_of_the_log_that_is_cut_off_is_said() {
    let node = filled();
    drop(run(wal::open(&node.disk, WAL_DIR, wal::Options::default())).unwrap());
    let files = node.disk.files(WAL_DIR);
    let (last, _) = files.iter().rfind(|(path, _)| path.contains(".wal")).unwrap();
    assert!(files.len() > 1, "{:?}", files.keys());
    node.disk.damage(last, Vec::clear);
    let log = salvaged(&node.disk).1.log;
    assert!(log.lost_through.is_some() && !log.damage.is_empty(), "{log:?}");
}

/// The accident: rot that `wal dump` showed was not said.
#[test]
fn damage_of_the_log_that_the_tables_make_up_for_is_said() {
    let node = filled();
    let (path, bytes) = node.disk.files(WAL_DIR).into_iter().next().unwrap();
    let at = bytes.windows(5).position(|window| window == b"old 5").unwrap();
    node.disk.damage(&path, |bytes| bytes[at] ^= 1);
    let (cells, report) = salvaged(&node.disk);
    assert_eq!(cells, node.cells());
    let LogReport { damage, lost_through, .. } = report.log;
    assert_eq!((damage.len(), lost_through), (1, None), "{damage:?}");
}

fn masterless_entry(number: usize, ms: u64) -> base::Entry {
    let (key, column) = place(number);
    let place = place_in(7, &keycode::encode_cell(key.as_bytes(), column.as_bytes()));
    let value = Payload::new(format!("at {ms}").into_bytes()).unwrap_or_default();
    base::Entry { place, stamp: Stamp::new(ms, 0, NodeId(1)), written: Written::Value(value) }
}

const NOW_MS: u64 = 1_700_000_000_000;

fn masterless_entries(numbers: std::ops::Range<usize>, ms: u64) -> Record {
    Record::Entries(numbers.map(|number| masterless_entry(number, ms)).collect())
}

/// Returns a record that writes a note of the node's own, or removes it.
fn masterless_note(place: &[u8], content: Option<Payload>) -> Record {
    let place = Payload::new([NOTE_PREFIX.as_slice(), place].concat()).unwrap();
    Record::Note { place, content }
}

/// Returns what a masterless node is asked to make durable: first 40 cells, then 20, half of them
/// anew.
fn masterless_requests() -> [Vec<Record>; 2] {
    let note = masterless_note(b"note", Some(Payload::default()));
    let first = vec![masterless_entries(0..40, NOW_MS), note];
    [first, vec![masterless_entries(30..50, NOW_MS + 1)]]
}

/// Returns the disk of a masterless node of which these requests are in a table.
fn masterless_with(flushed: &[Vec<Record>]) -> TestDisk {
    let disk = TestDisk::default();
    let (tree, mut keeper, _) = run(tree::open(disk.clone(), STATE_DIR, options())).unwrap();
    keeper.set_purge_floors(PurgeFloors::none());
    let mut store = CellStore::new(tree);
    for (id, records) in (1..).zip(flushed) {
        store.apply(id, records).unwrap();
    }
    if !flushed.is_empty() {
        let frozen = store.engine_mut().freeze(Vec::new());
        store.engine_mut().adopt(run(keeper.flush(&frozen)).unwrap());
    }
    let mode = Mode::Masterless { placement: 1 };
    let owner = Identity { cluster: ClusterId(7), node: NodeId(1), mode };
    run(identity::publish(&disk, &owner)).unwrap();
    disk
}

/// Appends a record to the log of a node that does not run.
fn log(disk: &TestDisk, kind: u8, tag: u64, payload: &[u8]) {
    let (mut log, _) = run(wal::open(disk, WAL_DIR, wal::Options::default())).unwrap();
    log.append(kind, tag, |buffer| buffer.extend_from_slice(payload));
    run(async {
        log.write().await.unwrap();
        log.sync().await.unwrap();
        log.close().await.unwrap();
    });
}

fn log_records(disk: &TestDisk, id: u64, records: &Vec<Record>) {
    log(disk, KIND_RECORDS, id, &codec::encode(records));
}

/// Returns the disk of a masterless node with a table, and a log that goes further.
fn masterless() -> TestDisk {
    let [first, second] = masterless_requests();
    let disk = masterless_with(&[first]);
    log_records(&disk, 2, &second);
    disk
}

/// The accident: the scratch store took the stamps of a masterless node for positions in a log, and
/// salvage ended with a failed assertion.
#[test]
fn salvage_of_a_masterless_node_has_tables_and_log_also_without_its_name_plate() {
    let disk = masterless();
    let (cells, report) = salvaged(&disk);
    assert_eq!((report.cell_count, report.log.entry_count), (50, 1), "{report:?}");
    let newer = cells.values().filter(|(value, _)| value.ends_with(b"1")).count();
    assert_eq!((cells.len(), newer), (50, 20));
    let (key, column) = place(0);
    assert!(cells.contains_key(&keycode::encode_cell(key.as_bytes(), column.as_bytes())));
    for copy in [0, 4096] {
        disk.damage("NODE", |bytes| bytes[copy + 13] ^= 1);
        assert_eq!(salvaged(&disk).0, cells, "damaged in copy {copy} and those before");
    }
    assert_eq!(run(identity::owner(&disk)), None);
}

/// Damages both copies of the name plate, or one if the other is damaged.
fn damage_name_plate(disk: &TestDisk) {
    disk.damage("NODE", |bytes| [0, 4096].iter().for_each(|copy| bytes[copy + 13] ^= 1));
}

/// The accident: a young node of the masterless mode, all of whose data was in the log, was taken
/// for one of the other mode, which could not read that log. Nothing came out of it.
#[test]
fn log_tells_the_mode_of_a_node_whose_name_plate_is_damaged() {
    let [first, second] = masterless_requests();
    let only_notes = vec![masterless_note(b"note", Some(Payload::default()))];
    for flushed in [Vec::new(), vec![only_notes]] {
        let disk = masterless_with(&flushed);
        let next = 1 + u64::try_from(flushed.len()).unwrap();
        log_records(&disk, next, &first);
        log_records(&disk, next + 1, &second);
        let whole = salvaged(&disk);
        damage_name_plate(&disk);
        let (cells, report) = salvaged(&disk);
        assert_eq!((cells.len(), report.cell_count, report.log.failure), (50, 50, None));
        assert!(cells == whole.0 && report.is_masterless, "{cells:?}");
    }
}

/// The accident: the meta of a table that does not say anything was taken for that of stamps, and
/// the keys lost their first two bytes.
#[test]
fn table_that_says_nothing_of_itself_does_not_tell_the_mode() {
    let node = filled();
    node.disk.lose(&node.path_of("MANIFEST"));
    node.disk.damage(&node.path_of("table-"), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let (cells, report) = salvaged(&node.disk);
    assert_eq!((report.log.entry_count, report.is_masterless), (20, false), "{report:?}");
    assert_eq!(cells, node.cells());
    for name in node.disk.files(WAL_DIR).keys() {
        node.disk.lose(name);
    }
    let (cells, report) = salvaged(&node.disk);
    assert!(!report.is_masterless && cells.len() > 100, "{report:?}");
    assert!(cells.keys().all(|place| place.starts_with(b"key/")), "{cells:?}");
}

#[test]
fn masterless_node_that_knows_what_it_lacks_is_not_salvaged_in_silence() {
    let [first, second] = masterless_requests();
    let is_incomplete = |disk: &TestDisk| salvaged(disk).1.log.is_incomplete;
    // Its tables were damaged, and are replaced by empty ones.
    let disk = masterless_with(&[]);
    log_records(&disk, 1, &first);
    assert!(!is_incomplete(&disk));
    log(&disk, KIND_DAMAGED, 2, &[]);
    assert!(is_incomplete(&disk), "the note is not written yet");
    log_records(&disk, 2, &vec![masterless_note(&DAMAGED_NOTE, Some(Payload::default()))]);
    assert!(is_incomplete(&disk), "the note says so");
    log_records(&disk, 3, &second);
    log_records(&disk, 4, &vec![masterless_note(&DAMAGED_NOTE, None)]);
    assert!(!is_incomplete(&disk), "it has got back what it lacked");
    // The note is in a table.
    let noted = vec![masterless_note(&DAMAGED_NOTE, Some(Payload::default()))];
    assert!(is_incomplete(&masterless_with(&[first.clone(), noted])));
    // The oldest segment of the log is gone.
    let disk = masterless_with(&[first]);
    log_records(&disk, 3, &second);
    let (cells, report) = salvaged(&disk);
    assert!(report.log.is_incomplete && cells.len() == 50, "{report:?}");
}

/// What follows the prefix in the place of the note that a disk is damaged.
const DAMAGED_NOTE: [u8; 3] = [6, 0, 0];

#[test]
fn damaged_name_plate_is_found_by_verifying_and_left_as_it_is() {
    let disk = masterless();
    let wounds = || {
        let report = run(verify_store(&disk, |_| {})).unwrap();
        assert_eq!(report.is_whole(), report.wounds.is_empty());
        report.wounds
    };
    assert_eq!(wounds(), []);
    for (copy, is_mended) in [(4096, true), (0, false)] {
        disk.damage("NODE", |bytes| bytes[copy + 13] ^= 1);
        let before = disk.contents("NODE");
        let [wound]: [Wound; 1] = wounds().try_into().unwrap();
        let offset = u64::try_from(copy).unwrap();
        assert_eq!((wound.path.as_str(), wound.offset), ("NODE", offset));
        assert_eq!(wound.what.contains("the next start mends it"), is_mended, "{}", wound.what);
        assert_eq!(disk.contents("NODE"), before);
    }
    disk.lose("NODE");
    assert_eq!(wounds(), []);
}

/// What looks at a node as somebody who may not open its files must not call them damaged, nor
/// bring out what is left without them.
#[test]
fn files_that_may_not_be_opened_are_no_damage_to_who_looks_at_them() {
    let disk = masterless();
    let deny = |path: &str| {
        disk.set_faults(Faults { deny_open: Some(path.to_owned()), ..Faults::default() });
    };
    deny("NODE");
    let error = run(verify_store(&disk, |_| {})).unwrap_err();
    assert!(error.to_string().contains("NODE"), "{error}");
    for path in disk.files(WAL_DIR).keys() {
        deny(path);
        let scratch = TestDisk::default();
        let mut visit = |_: &[u8], _: &[u8], _: u64| std::ops::ControlFlow::Continue(());
        let error = run(salvage(&disk, &scratch, 10, &mut visit)).unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn condition_on_a_lost_cell_is_counted() {
    let mut node = filled();
    let (key, column) = place(0);
    let expected = Expectation::Present;
    let condition = Condition { key: key.clone(), column: column.clone(), expected };
    let value = Value::new("decided").unwrap_or_default();
    node.write(vec![condition], vec![Mutation::Set { key, column, value }]);
    assert_eq!(salvaged(&node.disk).1.log.doubtful_count, 0);
    let first = keycode::encode_cell(b"key/000", b"c0");
    let tables: Vec<String> =
        node.disk.files(STATE_DIR).into_keys().filter(|path| path.contains("table-")).collect();
    for path in &tables {
        node.disk.damage(path, |bytes| bytes[50] ^= 1);
    }
    let (_, report) = salvaged(&node.disk);
    assert!(report.lost.iter().any(|lost| lost.range.contains(&first)), "{report:?}");
    assert_eq!(report.log.doubtful_count, 1);
}

/// The accident: salvage remembered all sessions, so a write of one that the node had pushed out
/// was carried out, and the one that came instead was not.
#[test]
fn sessions_are_pushed_out_as_the_node_has_done() {
    let mut node = node_of(1);
    let (key, column) = place(0);
    let value = |text: &str| Value::new(text.to_owned()).unwrap_or_default();
    let mutation =
        |text| Mutation::Set { key: key.clone(), column: column.clone(), value: value(text) };
    node.set(0, "first");
    node.flush();
    let expected = Expectation::Value(value("first"));
    let condition = Condition { key: key.clone(), column: column.clone(), expected };
    let cas = |node: &mut Node, session, text| {
        let seq = RequestSeq(node.machine.applied().index);
        let batch = Batch { conditions: vec![condition.clone()], mutations: vec![mutation(text)] };
        node.apply(&Command::Write { session, seq, acked_below: seq, batch })
    };
    let register = |node: &mut Node| {
        let registered = node.apply(&Command::RegisterByIndex { nonce: 1 });
        let CommandReply::Registered(session) = registered else { panic!("{registered:?}") };
        session
    };
    let other = register(&mut node);
    assert_eq!(cas(&mut node, SessionId(1), "mine"), CommandReply::SessionExpired);
    let applied = cas(&mut node, other, "other");
    assert!(matches!(applied, CommandReply::Applied(_)), "{applied:?}");
    let again = register(&mut node);
    let conflict = cas(&mut node, again, "mine");
    assert!(matches!(conflict, CommandReply::ConditionFailed { .. }), "{conflict:?}");
    assert_eq!(salvaged_with(&node.disk, 1).0, node.cells());
    assert_ne!(salvaged_with(&node.disk, 2).0, node.cells(), "another limit is another state");
}

fn config(node: u64) -> NodeConfig {
    let members = (1..=3).map(|id| (NodeId(id), format!("n{id}:1"))).collect();
    NodeConfig::new(ClusterId(7), NodeId(node), "n1:1", members)
}

fn restored(disk: &TestDisk, node: u64, bytes: &[u8]) -> Result<SnapshotSummary, RestoreError> {
    let other = TestDisk::default();
    other.plant("backup", bytes.to_vec());
    run(async {
        let file = other.open("backup").await.map_err(StorageError::from)?;
        restore(disk, &config(node), &file, "backup").await
    })
}

#[test]
fn members_restored_from_one_file_have_the_same_state_and_position() {
    let mut node = filled();
    node.flush();
    let bytes = node.snapshot();
    let disks = [TestDisk::default(), TestDisk::default()];
    for (disk, id) in disks.iter().zip(1..) {
        let summary = restored(disk, id, &bytes).unwrap();
        assert_eq!((summary.point, summary.cell_count), (node.machine.applied(), 120));
        let (tree, _, found) = run(tree::open(disk.clone(), STATE_DIR, options())).unwrap();
        assert_eq!((found.applied, &found.damage), (node.machine.applied(), &None));
        let machine = Machine::restore(tree, &found.extra, 10).unwrap();
        assert_eq!(machine.state_hash(), node.machine.state_hash());
        assert_eq!(machine.trail(), node.machine.trail());
        assert_eq!(run(disk.list("")).unwrap(), ["NODE", "tables", "wal"]);
        let start = || {
            let log = run(wal::inspect(disk, WAL_DIR)).unwrap();
            assert_eq!(log.torn, None);
            recovery::replay(&log, meta(found.applied)).unwrap()
        };
        let whole = Recovered { snapshot: meta(found.applied), ..Recovered::default() };
        assert_eq!(start(), whole);
        assert!(!salvaged(disk).1.log.is_gone);
        let files = disk.files(WAL_DIR);
        disk.lose_all(WAL_DIR);
        assert_eq!(start().standing, Standing::Unsure, "its log is gone");
        for (path, content) in files {
            disk.plant(&path, content);
        }
    }
    let [one, two] = disks;
    assert_eq!(one.files(STATE_DIR), two.files(STATE_DIR));
    assert_ne!(one.contents("NODE"), two.contents("NODE"));
}

#[test]
fn directory_that_is_not_new_is_left_alone() {
    let mut node = filled();
    node.flush();
    let before = node.disk.files(STATE_DIR);
    let refused = restored(&node.disk, 1, &node.snapshot());
    assert!(matches!(refused, Err(RestoreError::NotEmpty { .. })), "{refused:?}");
    assert_eq!(node.disk.files(STATE_DIR), before);
}

#[test]
fn damaged_file_is_refused_before_anything_is_made() {
    let mut node = filled();
    node.flush();
    let bytes = node.snapshot();
    for at in (0..bytes.len()).step_by(211) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        let disk = TestDisk::default();
        let refused = restored(&disk, 1, &damaged);
        assert!(matches!(refused, Err(RestoreError::Storage(_))), "byte {at}: {refused:?}");
        assert_eq!(disk.operation_count(), 0, "byte {at}");
    }
}

/// Returns a snapshot of no cells, with right checksums.
fn made_up(point: SnapshotPoint, extra: &[u8]) -> Vec<u8> {
    let (mut bytes, mut encoder) = (Vec::new(), Encoder::default());
    encoder.push_preamble(&mut bytes);
    encoder.push_block(BlockKind::Extra, extra, &mut bytes);
    let extra_bytes = u64::try_from(extra.len()).unwrap();
    let footer = Footer { point, cell_count: 0, extra_bytes };
    encoder.push_block(BlockKind::Footer, &footer.encode(), &mut bytes);
    bytes
}

/// The accident: a file whose position no log reaches, or with a session that was used after it,
/// was restored, and stopped the node that was started on it by an assertion.
#[test]
fn made_up_state_is_refused_though_its_checksums_are_right() {
    let node = filled();
    let (at, empty) = (node.machine.applied(), Machine::<Tree<TestDisk>>::extra_without_sessions());
    let used = node.machine.extra();
    let refused = |point: SnapshotPoint, extra: &[u8]| {
        let restored = restored(&TestDisk::default(), 1, &made_up(point, extra));
        matches!(restored, Err(RestoreError::Storage(StorageError::Corrupt { .. })))
    };
    assert!(!refused(at, &empty) && !refused(at, &used));
    let latest = SnapshotPoint { index: 1 << 62, term: 1 << 62 };
    assert!(!refused(latest, &empty));
    for index in [0, (1 << 62) + 1, u64::MAX] {
        assert!(refused(SnapshotPoint { index, ..at }, &empty), "index {index}");
    }
    for term in [(1 << 62) + 1, u64::MAX] {
        assert!(refused(SnapshotPoint { term, ..at }, &empty), "term {term}");
    }
    assert!(refused(SnapshotPoint { index: at.index - 1, ..at }, &used), "used after the state");
}

#[test]
fn power_lost_in_a_restoration_leaves_a_whole_node_or_none() {
    let mut node = filled();
    node.flush();
    let bytes = node.snapshot();
    let (mut none, mut whole) = (0, 0);
    for operation in 0..200 {
        let disk = TestDisk::default();
        disk.lose_power_at(operation);
        let done = restored(&disk, 1, &bytes).is_ok();
        let mut rng = base::Rng::new(u64::try_from(operation).unwrap());
        disk.power_loss(&mut rng, 0.5);
        let (_, _, found) = run(tree::open(disk.clone(), STATE_DIR, options())).unwrap();
        if run(disk.list("")).unwrap().contains(&"NODE".to_owned()) {
            assert_eq!(found.applied, node.machine.applied(), "operation {operation}");
            let (_, log) = run(wal::open(&disk, WAL_DIR, wal::Options::default())).unwrap();
            let standing = recovery::replay(&log, meta(found.applied)).unwrap().standing;
            assert_eq!(standing, Standing::Whole, "operation {operation}");
            whole += 1;
        } else {
            assert!(!done, "operation {operation}");
            none += 1;
        }
        if done {
            break;
        }
    }
    assert!(none > 5 && whole > 0, "{none} and {whole}");
}
