//! Tests of the store: the state machine, and the masterless mode's cells and plans, each against
//! a plain map.

mod cell_store;
mod conditions;
mod long_rows;
mod machine;
mod plan;
mod turns;

use crate::base::{Entry, NodeId, Payload, Stamp, Written};
use crate::codec::keycode;
use crate::dynamo::placement::place_in;
use crate::kv::CellStore;
use crate::storage::table::{Compression, TableOptions};
use crate::storage::test_disk::{TestDisk, run};
use crate::storage::tree::{self, Frozen, Keeper, TreeOptions};
use crate::storage::{Engine, StorageError, Tree};

const DIR: &str = "tables";

/// Sizes at which a few dozen entries make several levels of several tables.
const OPTIONS: TreeOptions = TreeOptions {
    memtable_bytes: 1 << 10,
    frozen_max: 2,
    table_bytes: 500,
    level0_tables: 2,
    level0_tables_max: 6,
    base_bytes: 800,
    runs_max: 2,
    step_bytes: 300,
    cache_bytes: 8 << 10,
    table: TableOptions {
        block_bytes: 150,
        bloom_bits_per_cell: 10,
        compression: Compression::None,
    },
};

/// A store on a disk of its own.
struct Node {
    disk: TestDisk,
    store: CellStore<Tree<TestDisk>>,
    keeper: Keeper<TestDisk>,
}

impl Node {
    fn new() -> Self {
        Self::open(TestDisk::default())
    }

    /// Opens what is on the disk, before any floor is set.
    fn open(disk: TestDisk) -> Self {
        let opened = run(tree::open(disk.clone(), DIR, OPTIONS));
        let (tree, mut keeper, _) = opened.unwrap_or_else(|error| panic!("{error}"));
        let store = CellStore::new(tree);
        keeper.set_purge_floors(store.purge_floors().clone());
        Self { disk, store, keeper }
    }

    fn freeze(&mut self) -> Frozen {
        self.store.engine_mut().freeze(Vec::new())
    }

    fn flush(&mut self) {
        let frozen = self.freeze();
        let flushed = run(self.keeper.flush(&frozen));
        self.adopt(flushed.map(Some));
    }

    fn compact(&mut self) {
        let stepped = run(self.keeper.compact_step());
        self.adopt(stepped);
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.keeper.needs_compaction() {
                return;
            }
            self.compact();
        }
        panic!("compaction never ends: {:?}", self.keeper.version());
    }

    fn adopt(
        &mut self,
        version: Result<Option<std::sync::Arc<tree::Version<TestDisk>>>, StorageError>,
    ) {
        if let Some(version) = version.unwrap_or_else(|error| panic!("{error}")) {
            self.store.engine_mut().adopt(version);
        }
    }
}

fn stamp(ms: u64, node: u64) -> Stamp {
    Stamp::new(ms, 0, NodeId(node))
}

fn place(partition: u16, key: u8, column: u8) -> Payload {
    let column = if column == 0 { &[][..] } else { &[column][..] };
    place_in(partition, &keycode::encode_cell(&[key], column))
}

fn set(place: Payload, stamp: Stamp, value: &[u8]) -> Entry {
    let value = Payload::new(value.to_vec()).unwrap_or_default();
    Entry { place, stamp, written: Written::Value(value) }
}

fn delete(place: Payload, stamp: Stamp) -> Entry {
    Entry { place, stamp, written: Written::Deleted }
}

fn delete_row(place: Payload, stamp: Stamp) -> Entry {
    Entry { place, stamp, written: Written::RowDeleted }
}

/// Returns everything that is visible, tombstones included.
fn visible(store: &CellStore<impl Engine>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let scanned = store.engine().scan_raw(&[], Some(&[0xFF, 0xFF]), &mut |cell| {
        let payload = |bytes: &[u8]| Payload::new(bytes.to_vec()).unwrap_or_default();
        let written = match cell.content {
            crate::storage::Content::Value(value) => Written::Value(payload(value)),
            crate::storage::Content::Deleted => Written::Deleted,
            crate::storage::Content::RowDeleted => Written::RowDeleted,
        };
        let stamp = Stamp::from_version(cell.version);
        entries.push(Entry { place: payload(cell.place), stamp, written });
        std::ops::ControlFlow::Continue(())
    });
    scanned.unwrap_or_else(|error| panic!("{error}"));
    entries
}
