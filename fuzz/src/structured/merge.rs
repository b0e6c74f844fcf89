//! One merge rule, wherever merging happens.
//!
//! Replicas hear of the same entries in any order, some of them twice, and flush and compact in
//! between. Then all of them must show the same, which is what a plain map comes to; and what a
//! coordinator makes of replicas that each lack something must be that, too, and its repairs must
//! make them equal.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arbitrary::{Result, Unstructured};
use mangrove::base::{Entry, NodeId, Payload, Stamp, Written};
use mangrove::codec::keycode::row_prefix;
use mangrove::dynamo::placement::partition_of_place;
use mangrove::dynamo::{Chunk, Partition, Placement, Record, merged, merkle};
use mangrove::kv::CellStore;
use mangrove::storage::table::{Compression, TableOptions};
use mangrove::storage::test_disk::{TestDisk, run};
use mangrove::storage::tree::{self, Keeper, TreeOptions};
use mangrove::storage::{Cell, Content, Engine, Tree};

/// Most entries of one input.
const ENTRIES_MAX: usize = 40;

/// Most things that happen to one replica.
const STEPS_MAX: usize = 60;

const REPLICAS: usize = 3;

/// Sizes at which some dozen entries make several tables.
const OPTIONS: TreeOptions = TreeOptions {
    memtable_bytes: 1 << 10,
    frozen_max: 2,
    table_bytes: 400,
    level0_tables: 2,
    level0_tables_max: 4,
    base_bytes: 1 << 10,
    runs_max: 2,
    step_bytes: 600,
    cache_bytes: 0,
    table: TableOptions {
        block_bytes: 100,
        bloom_bits_per_cell: 10,
        compression: Compression::None,
    },
};

/// ```text
/// entries, drawn │ for each replica: what it hears, and when it flushes and compacts
/// ```
pub(super) fn merge(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(entries) = entries(&mut input) else { return };
    laws(&entries);
    let mut replicas: Vec<Replica> = (0..REPLICAS).map(|_| Replica::new()).collect();
    let mut heard = vec![Vec::new(); REPLICAS];
    for (replica, heard) in replicas.iter_mut().zip(&mut heard) {
        // The input may end here: who hears nothing lacks everything.
        _ = replica.live(&mut input, &entries, heard);
        replica.check(&model_of(heard));
    }
    coordinate(&mut replicas, &heard);
    for replica in &mut replicas {
        replica.apply(&entries);
        replica.check(&model_of(&entries));
    }
}

fn entries(input: &mut Unstructured<'_>) -> Result<Vec<Entry>> {
    let count = input.int_in_range(1..=ENTRIES_MAX)?;
    let placement = Placement::new(&[NodeId(1)], 1, 2);
    let entry = |input: &mut Unstructured<'_>| {
        let key = *input.choose(&[&b"a"[..], b"b", b"a\0"])?;
        let column = *input.choose(&[&b""[..], b"c", b"d"])?;
        let stamp = Stamp::new(input.int_in_range(1..=8)?, 0, NodeId(input.int_in_range(1..=2)?));
        let (column, written) = match input.int_in_range(0..=4)? {
            0 => (column, Written::Deleted),
            1 => (&b""[..], Written::RowDeleted),
            value => (column, Written::Value(payload(vec![value]))),
        };
        Ok(Entry { place: payload(placement.cell(key, column)), stamp, written })
    };
    (0..count).map(|_| entry(input)).collect()
}

fn payload(bytes: Vec<u8>) -> Payload {
    Payload::new(bytes).unwrap_or_default()
}

/// The rule is a total order of what may stand at one place.
fn laws(entries: &[Entry]) {
    let some = entries.iter().take(12);
    for a in some.clone() {
        assert!(!a.beats(a), "{a:?} beats itself");
        for b in some.clone().filter(|b| a.order() == b.order()) {
            assert!(!(a.beats(b) && b.beats(a)), "{a:?} and {b:?} beat each other");
            assert!(a == b || a.beats(b) || b.beats(a), "neither of {a:?} and {b:?} counts");
            for c in some.clone().filter(|c| b.order() == c.order()) {
                assert!(!(a.beats(b) && b.beats(c)) || a.beats(c), "{a:?}, {b:?}, {c:?}");
            }
        }
    }
}

/// What counts of a set of entries, and is not hidden by its row's tombstone, sorted.
fn model_of(entries: &[Entry]) -> Vec<Entry> {
    let mut newest: BTreeMap<(Vec<u8>, bool), &Entry> = BTreeMap::new();
    for entry in entries {
        let (place, is_cell) = entry.order();
        let at = newest.entry((place.to_vec(), is_cell)).or_insert(entry);
        if entry.beats(at) {
            *at = entry;
        }
    }
    let is_visible = |entry: &&&Entry| {
        let row = newest.get(&(row_prefix(entry.place.as_bytes()).to_vec(), false));
        entry.written == Written::RowDeleted || row.is_none_or(|row| entry.stamp >= row.stamp)
    };
    newest.values().filter(is_visible).map(|entry| (*entry).clone()).collect()
}

struct Replica {
    store: CellStore<Tree<TestDisk>>,
    keeper: Keeper<TestDisk>,
    leaves: BTreeMap<(Partition, u16), u64>,
}

impl Replica {
    fn new() -> Self {
        let opened = run(tree::open(TestDisk::default(), "tables", OPTIONS));
        let Ok((tree, keeper, _)) = opened else { panic!("a new store") };
        let store = CellStore::new(tree);
        let mut keeper = keeper;
        keeper.set_purge_floors(store.purge_floors().clone());
        Self { store, keeper, leaves: BTreeMap::new() }
    }

    fn live(
        &mut self,
        input: &mut Unstructured<'_>,
        entries: &[Entry],
        heard: &mut Vec<Entry>,
    ) -> Result<()> {
        for _ in 0..input.int_in_range(0..=STEPS_MAX)? {
            match input.int_in_range(0..=11_u8)? {
                0 => self.flush(),
                1 => self.compact(input.int_in_range(1..=6)?),
                _ => {
                    let from = input.choose_index(entries.len())?;
                    let to = (from + input.int_in_range(1..=3)?).min(entries.len());
                    self.apply(&entries[from..to]);
                    heard.extend_from_slice(&entries[from..to]);
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, entries: &[Entry]) {
        let id = self.store.applied() + 1;
        match self.store.apply(id, &[Record::Entries(entries.to_vec())]) {
            Ok(changes) => {
                assert_eq!(changes.void, Vec::<u16>::new(), "the rows are short");
                for (partition, leaf, delta) in changes.deltas {
                    *self.leaves.entry((partition, leaf)).or_default() ^= delta;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn flush(&mut self) {
        if !self.store.engine().may_freeze() {
            return;
        }
        let frozen = self.store.engine_mut().freeze(Vec::new());
        match run(self.keeper.flush(&frozen)) {
            Ok(version) => self.store.engine_mut().adopt(version),
            Err(error) => panic!("{error}"),
        }
    }

    fn compact(&mut self, steps: usize) {
        for _ in 0..steps {
            match run(self.keeper.compact_step()) {
                Ok(Some(version)) => self.store.engine_mut().adopt(version),
                Ok(None) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Returns everything that is visible, tombstones included.
    fn shown(&self) -> Vec<Entry> {
        let mut shown = Vec::new();
        let scanned = self.store.engine().scan_raw(&[], None, &mut |cell| {
            let Cell { place, version, content } = cell;
            let written = match content {
                Content::Value(value) => Written::Value(payload(value.to_vec())),
                Content::Deleted => Written::Deleted,
                Content::RowDeleted => Written::RowDeleted,
            };
            let (place, stamp) = (payload(place.to_vec()), Stamp::from_version(version));
            shown.push(Entry { place, stamp, written });
            ControlFlow::Continue(())
        });
        assert_eq!(scanned, Ok(()), "the disk is well");
        shown
    }

    fn check(&self, expected: &[Entry]) {
        assert_eq!(self.shown(), expected, "what a replica shows");
        let mut leaves: BTreeMap<(Partition, u16), u64> = BTreeMap::new();
        for entry in expected {
            let place = entry.place.as_bytes();
            let is_row = entry.written == Written::RowDeleted;
            let hash = merkle::entry_hash(place, is_row, entry.stamp, entry.is_tombstone());
            let partition = partition_of_place(place).unwrap_or_default();
            *leaves.entry((partition, merkle::leaf_of(place))).or_default() ^= hash;
        }
        let is_set = |leaves: &BTreeMap<_, u64>| -> Vec<_> {
            leaves.iter().filter(|(_, hash)| **hash != 0).map(|(l, hash)| (*l, *hash)).collect()
        };
        assert_eq!(is_set(&self.leaves), is_set(&leaves), "the leaves are of what is visible");
    }
}

/// A read of all replicas shows what all of them have heard together, and repairs them.
fn coordinate(replicas: &mut [Replica], heard: &[Vec<Entry>]) {
    let chunks: Vec<Chunk> = replicas
        .iter()
        .map(|replica| Chunk { entries: replica.shown(), covered: None, floor: Stamp::ZERO })
        .collect();
    let all: Vec<&Chunk> = chunks.iter().collect();
    let (chunk, lacking) = merged(&all);
    let expected = model_of(&heard.concat());
    assert_eq!(chunk.entries, expected, "what a coordinator makes of all replicas");
    let turned: Vec<&Chunk> = chunks.iter().rev().collect();
    assert_eq!(merged(&turned).0, chunk, "merging does not depend on the order of replicas");
    let (two, _) = merged(&all[..2]);
    assert_eq!(merged(&[&two, all[2]]).0.entries, expected, "merging in steps is merging at once");
    assert_eq!(merged(&[&chunk, all[0]]).0.entries, expected, "merging again changes nothing");
    for (replica, lacking) in replicas.iter_mut().zip(&lacking) {
        replica.apply(lacking);
        replica.check(&expected);
    }
}
