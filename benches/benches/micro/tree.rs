//! The table store: 64 puts into a memtable of 65,536 cells, and reads of cells that are at hand.
//!
//! The puts replace cells of a full memtable in scattered order, so it neither grows nor is
//! flushed, and each search is as deep as that of a new cell. Reads find a cell in the memtable;
//! then, after a flush, in a table whose blocks are all in the cache; or nothing, which the
//! table's filter tells.
//!
//! # Left out
//! Flushes and compactions, scans, and reads from a medium: the benchmark `storage` has them. The
//! log before the tree.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use mangrove::codec::keycode;
use mangrove::storage::tree::{self, Keeper, Tree, TreeOptions};
use mangrove::storage::{Change, Engine, SnapshotPoint};

use super::memory_disk::{MemoryDisk, run};
use super::{BATCH, VALUE, count, key};

/// Cells of the store, a whole number of batches.
const CELLS: u64 = 1 << 16;

/// Odd, so that its multiples below a power of two are all numbers below it, scattered.
const STRIDE: u64 = 40_503;

/// Measures it.
pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tree");
    let mut store = Store::open();
    let (present, absent) = (places(0), places(1));
    let batches = || present.chunks(usize::try_from(BATCH).unwrap_or(usize::MAX));
    for batch in batches() {
        store.put(batch);
    }
    assert_eq!(store.tree.cell_count(), CELLS, "every cell is there once");
    assert_eq!(store.count_found(&present), CELLS, "and is found");

    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("put_64", |bencher| {
        let mut next = batches().cycle();
        bencher.iter(|| store.put(next.next().unwrap_or_default()));
    });
    group.throughput(Throughput::Elements(1));
    measure_get(&mut group, "get_from_memtable", &store.tree, &present);

    store.flush();
    assert_eq!(store.tree.memtable_bytes(), 0, "all cells are in a table");
    assert_eq!(store.count_found(&present), CELLS, "are found, and cached from now on");
    assert_eq!(store.count_found(&absent), 0, "and no others are");
    measure_get(&mut group, "get_from_cached_table", &store.tree, &present);
    measure_get(&mut group, "get_absent", &store.tree, &absent);
    group.finish();
}

fn measure_get(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    tree: &Tree<MemoryDisk>,
    places: &[Vec<u8>],
) {
    group.bench_function(name, |bencher| {
        let mut next = places.iter().cycle();
        bencher.iter(|| next.next().map(|place| tree.get(place)));
    });
}

/// Returns the places of as many even or odd keys as there are cells, scattered. So what is absent
/// lies between what is present.
fn places(parity: u64) -> Vec<Vec<u8>> {
    let numbers = (0..CELLS).map(|number| number * STRIDE % CELLS * 2 + parity);
    numbers.map(|number| keycode::encode_cell(key(number).as_bytes(), &[])).collect()
}

/// Both sides of a table store.
struct Store {
    tree: Tree<MemoryDisk>,
    keeper: Keeper<MemoryDisk>,
    applied: SnapshotPoint,
}

impl Store {
    fn open() -> Self {
        let opened = tree::open(MemoryDisk::default(), "tables", TreeOptions::default());
        let (tree, keeper, recovery) = run(opened).expect("an empty store opens");
        Self { tree, keeper, applied: recovery.applied }
    }

    /// Puts a value at each place, as one write.
    fn put(&mut self, places: &[Vec<u8>]) {
        let change = |place| Change::Set { place, value: &VALUE };
        let changes: Vec<Change<'_>> = places.iter().map(Vec::as_slice).map(change).collect();
        self.applied.index += 1;
        self.tree.write(self.applied, &changes);
    }

    /// Makes a table of the memtable.
    fn flush(&mut self) {
        let frozen = self.tree.freeze(Vec::new());
        let version = run(self.keeper.flush(&frozen)).expect("memory takes it");
        self.tree.adopt(version);
    }

    /// Returns how many of these places hold the value.
    fn count_found(&self, places: &[Vec<u8>]) -> u64 {
        let is_found = |place: &&Vec<u8>| {
            let stored = self.tree.get(place).expect("files that are whole");
            stored.is_some_and(|stored| stored.value == VALUE[..])
        };
        count(places.iter().filter(is_found).count())
    }
}
