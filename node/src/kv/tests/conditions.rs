//! What judging the conditions of a batch reads.

use std::cell::Cell as Counter;

use crate::base::{Column, Key, RequestSeq, SessionId, Value};
use crate::codec;
use crate::kv::*;
use crate::storage::engine::{
    Change, Engine, Passed, Raw, RawVisitor, SnapshotPoint, Stored, Visitor,
};
use crate::storage::test_disk::{TestDisk, run};
use crate::storage::tree::{self, TreeOptions};
use crate::storage::{Cell as Entry, PurgeFloors, StorageError, Tree};

/// A store that counts what is read of it by place.
#[derive(Debug)]
pub(super) struct Counting {
    tree: Tree<TestDisk>,
    /// Bytes of values that were returned.
    value_bytes: Counter<usize>,
    look_count: Counter<usize>,
    /// The most that one raw scan was allowed to pass.
    pub(super) raw_bytes_max: Counter<usize>,
}

impl Counting {
    pub(super) fn new() -> Self {
        let opened = run(tree::open(TestDisk::default(), "tables", TreeOptions::default()));
        let (tree, _, _) = opened.unwrap_or_else(|error| panic!("{error}"));
        let (value_bytes, look_count, raw_bytes_max) = Default::default();
        Self { tree, value_bytes, look_count, raw_bytes_max }
    }
}

impl Engine for Counting {
    fn get(&self, place: &[u8]) -> Result<Option<Stored>, StorageError> {
        let stored = self.tree.get(place)?;
        let bytes = stored.as_ref().map_or(0, |stored| stored.value.len());
        self.value_bytes.update(|count| count + bytes);
        self.look_count.update(|count| count + 1);
        Ok(stored)
    }

    fn version_of(&self, place: &[u8]) -> Result<Option<u64>, StorageError> {
        self.look_count.update(|count| count + 1);
        self.tree.version_of(place)
    }

    fn scan_some(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        bytes_max: usize,
        visit: &mut Visitor<'_>,
    ) -> Result<Passed, StorageError> {
        self.tree.scan_some(start, end, bytes_max, visit)
    }

    fn write(&mut self, at: SnapshotPoint, changes: &[Change<'_>]) {
        self.tree.write(at, changes);
    }

    fn get_raw(&self, place: &[u8]) -> Result<Raw, StorageError> {
        self.tree.get_raw(place)
    }

    fn scan_raw_some(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        bytes_max: usize,
        visit: &mut RawVisitor<'_>,
    ) -> Result<Passed, StorageError> {
        self.raw_bytes_max.update(|max| max.max(bytes_max));
        self.tree.scan_raw_some(start, end, bytes_max, visit)
    }

    fn write_stamped(&mut self, at: SnapshotPoint, entries: &[Entry<'_>]) {
        self.tree.write_stamped(at, entries);
    }

    fn set_purge_floors(&mut self, floors: PurgeFloors) {
        self.tree.set_purge_floors(floors);
    }

    fn applied(&self) -> SnapshotPoint {
        self.tree.applied()
    }

    fn cell_count(&self) -> u64 {
        self.tree.cell_count()
    }
}

/// A machine, and how many writes it was given.
struct Scene {
    machine: Machine<Counting>,
    writes: u64,
}

/// What applying a batch took.
#[derive(Debug)]
struct Applied {
    reply: CommandReply,
    value_bytes: usize,
    look_count: usize,
}

impl Scene {
    fn new() -> Self {
        let restored = Machine::restore(Counting::new(), &[], 3);
        let mut machine = restored.unwrap_or_else(|error| panic!("{error}"));
        let register = codec::encode(&Command::RegisterByIndex { nonce: 0 });
        let registered = machine.apply(1, 1, &register);
        assert_eq!(registered, Ok(CommandReply::Registered(SessionId(1))));
        Self { machine, writes: 0 }
    }

    fn write(&mut self, batch: Batch) -> Applied {
        self.writes += 1;
        let (session, seq) = (SessionId(1), RequestSeq(self.writes));
        let command = codec::encode(&Command::Write { session, seq, acked_below: seq, batch });
        self.machine.engine().value_bytes.set(0);
        self.machine.engine().look_count.set(0);
        let index = self.machine.applied().index + 1;
        let reply = self.machine.apply(index, 1, &command).unwrap_or_else(|e| panic!("{e}"));
        let engine = self.machine.engine();
        let (value_bytes, look_count) = (engine.value_bytes.get(), engine.look_count.get());
        Applied { reply, value_bytes, look_count }
    }
}

fn place(n: u32) -> (Key, Column) {
    let key = Key::new(n.to_be_bytes().to_vec()).unwrap_or_default();
    (key, Column::default())
}

fn large() -> Value {
    Value::new(vec![7; 256 << 10]).unwrap_or_default()
}

fn require(batch: Batch, n: u32, expected: Expectation) -> Batch {
    let (key, column) = place(n);
    batch.require(key, column, expected)
}

/// Returns a scene with a large cell at each of the places, and when it was written.
fn with_large_cells(count: u32) -> (Scene, Vec<Version>) {
    let mut scene = Scene::new();
    let write = |n| {
        let (key, column) = place(n);
        let applied = scene.write(Batch::new().set(key, column, large()));
        let CommandReply::Applied(version) = applied.reply else { panic!("{applied:?}") };
        version
    };
    let versions = (0..count).map(write).collect();
    (scene, versions)
}

/// The accident: the whole cell of each condition was read. Of 10,000 cells of 1 MiB these were
/// 10 GB, in one step, on all replicas at the same entry.
#[test]
fn conditions_on_large_cells_read_no_values() {
    let (mut scene, versions) = with_large_cells(40);
    let mut batch = Batch::new();
    for (n, version) in (0..).zip(versions) {
        batch = require(batch, n, Expectation::Present);
        batch = require(batch, n, Expectation::Version(version));
        batch = require(batch, n + 1_000, Expectation::Absent);
    }
    let applied = scene.write(batch);
    assert!(matches!(applied.reply, CommandReply::Applied(_)), "{applied:?}");
    assert_eq!((applied.value_bytes, applied.look_count), (0, 80));
}

#[test]
fn condition_that_fails_reads_its_value_alone() {
    let (mut scene, versions) = with_large_cells(40);
    let current = Some(Cell { value: large(), version: versions[39] });
    let others = (0..39).fold(Batch::new(), |b, n| require(b, n, Expectation::Present));
    for wrong in [
        Expectation::Absent,
        Expectation::Version(versions[0]),
        Expectation::Value(Value::default()),
    ] {
        let applied = scene.write(require(others.clone(), 39, wrong.clone()));
        let failed = CommandReply::ConditionFailed { position: 39, current: current.clone() };
        assert_eq!(applied.reply, failed, "{wrong:?}");
        assert_eq!(applied.value_bytes, large().len(), "{wrong:?}");
    }
    let applied = scene.write(require(others, 40, Expectation::Present));
    assert_eq!(applied.reply, CommandReply::ConditionFailed { position: 39, current: None });
    assert_eq!(applied.value_bytes, 0);
}

/// An entry of a log may have more conditions than are let in today.
#[test]
fn cell_that_10_000_conditions_name_is_looked_up_once_or_twice() {
    let (mut scene, versions) = with_large_cells(1);
    let named = |expected: &[Expectation]| {
        let all = expected.iter().cycle().take(10_000);
        all.fold(Batch::new(), |batch, expected| require(batch, 0, expected.clone()))
    };
    let present = scene.write(named(&[Expectation::Present, Expectation::Version(versions[0])]));
    assert!(matches!(present.reply, CommandReply::Applied(_)), "{present:?}");
    assert_eq!((present.value_bytes, present.look_count), (0, 1));
    let (key, column) = place(0);
    let small = Value::new("small").unwrap();
    scene.write(Batch::new().set(key, column, small.clone()));
    let same = scene.write(named(&[Expectation::Present, Expectation::Value(small.clone())]));
    assert!(matches!(same.reply, CommandReply::Applied(_)), "{same:?}");
    assert_eq!((same.value_bytes, same.look_count), (small.len(), 2));
}

#[test]
fn conditions_that_contradict_each_other_on_one_cell_fail_at_the_second() {
    let (mut scene, versions) = with_large_cells(1);
    let current = Some(Cell { value: large(), version: versions[0] });
    let failed = |current| CommandReply::ConditionFailed { position: 1, current };
    let value = Expectation::Value(Value::default());
    for (first, second) in [
        (Expectation::Present, Expectation::Absent),
        (Expectation::Version(versions[0]), value.clone()),
        (Expectation::Value(large()), Expectation::Version(Version(99))),
    ] {
        let batch = require(require(Batch::new(), 0, first), 0, second);
        assert_eq!(scene.write(batch.clone()).reply, failed(current.clone()), "{batch:?}");
    }
    let absent = require(require(Batch::new(), 7, Expectation::Absent), 7, value);
    assert_eq!(scene.write(absent).reply, failed(None));
}
