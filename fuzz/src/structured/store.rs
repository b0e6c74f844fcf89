//! The table store and a plain map, through flushes, compactions, full disks, process ends and
//! power losses.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use mangrove::base::Rng;
use mangrove::codec::keycode::{encode_cell, encode_key};
use mangrove::storage::table::{Compression, TableOptions};
use mangrove::storage::test_disk::{TestDisk, run};
use mangrove::storage::tree::{self, Frozen, Keeper, TreeOptions, Version};
use mangrove::storage::{Cell, Change, Content, Engine, SnapshotPoint, StorageError, Tree};

use crate::decoders::table::OPTIONS;

const DIR: &str = "tables";

/// Most things that happen in one script.
const STEPS_MAX: usize = 100;

/// Keys and columns, few enough to meet again.
const KEYS: u8 = 5;
const COLUMNS: u8 = 8;

fn options(compression: Compression) -> TreeOptions {
    let table = TableOptions { compression, ..OPTIONS.table };
    TreeOptions { cache_bytes: 4 << 10, table, ..OPTIONS }
}

/// Place to value and version.
type Cells = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

type Adopted = std::result::Result<Option<Arc<Version<TestDisk>>>, StorageError>;

struct Model {
    disk: TestDisk,
    options: TreeOptions,
    tree: Tree<TestDisk>,
    keeper: Keeper<TestDisk>,
    /// The state after every entry; those that the memtable lost are given up.
    states: Vec<Cells>,
    unflushed: VecDeque<Frozen>,
    pinned: Option<Arc<Version<TestDisk>>>,
}

/// ```text
/// compression u8 │ steps, drawn until the input ends
/// ```
pub(super) fn store(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let compression =
        if input.ratio(1, 4).unwrap_or(false) { Compression::Lz4 } else { Compression::None };
    let mut model = Model::new(options(compression));
    for _ in 0..STEPS_MAX {
        if input.is_empty() || model.step(&mut input).is_err() {
            break;
        }
        model.check();
    }
    model.disk.set_space(None);
    model.reopen(false);
    model.check();
    // With the last reader gone, there are no files but those of the last version.
    let names = model.disk.names(DIR);
    let extra = usize::from(model.tree.durable().index > 0);
    let expected = model.keeper.version().table_count() + 1 + extra;
    assert_eq!(names.len(), expected, "{names:?} of {:?}", model.keeper.version());
}

fn point(index: u64) -> SnapshotPoint {
    SnapshotPoint { index, term: 1 }
}

fn extra(index: u64) -> Vec<u8> {
    format!("captured at {index}").into_bytes()
}

fn place(key: u8, column: u8) -> Vec<u8> {
    encode_cell(&[key], if column == 0 { &[] } else { std::slice::from_ref(&column) })
}

fn opened(
    disk: &TestDisk,
    options: TreeOptions,
) -> (Tree<TestDisk>, Keeper<TestDisk>, tree::Recovery) {
    match run(tree::open(disk.clone(), DIR, options)) {
        Ok(opened) => opened,
        Err(error) => panic!("{error}"),
    }
}

impl Model {
    fn new(options: TreeOptions) -> Self {
        let disk = TestDisk::default();
        let (tree, keeper, _) = opened(&disk, options);
        let (states, unflushed) = (vec![Cells::new()], VecDeque::new());
        Self { disk, options, tree, keeper, states, unflushed, pinned: None }
    }

    fn state(&self, at: SnapshotPoint) -> &Cells {
        &self.states[at.index as usize]
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=31_u8)? {
            0..10 => self.write(input)?,
            10..13 => self.freeze(),
            13..16 => self.flush(),
            16..20 => {
                self.freeze();
                (0..self.unflushed.len()).for_each(|_| self.flush());
            }
            20..24 => {
                for _ in 0..input.int_in_range(1..=12)? {
                    let stepped = run(self.keeper.compact_step());
                    self.adopt(stepped);
                }
            }
            24 => run(self.keeper.collect()),
            25 => {
                let scrubbed = run(self.keeper.scrub_step(500));
                assert!(
                    scrubbed.as_ref().is_err_and(StorageError::is_no_space) || scrubbed.is_ok()
                );
            }
            26 => self.pinned = Some(self.tree.pin()),
            27 => {
                let left = usize::from(input.arbitrary::<u16>()? % 3000);
                self.disk.set_space(Some(self.disk.used_bytes() + left));
            }
            28 => self.disk.set_space(None),
            29 => self.replace(),
            30 => {
                self.disk.set_space(None);
                self.reopen(false);
            }
            _ => self.power_loss(input)?,
        }
        Ok(())
    }

    fn write(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let mut now = self.state(self.tree.applied()).clone();
        self.states.truncate(self.tree.applied().index as usize + 1);
        for _ in 0..input.int_in_range(1..=30)? {
            let at = point(self.tree.applied().index + 1);
            let (key, column) =
                (input.int_in_range(0..=KEYS - 1)?, input.int_in_range(0..=COLUMNS - 1)?);
            let place = place(key, column);
            match input.int_in_range(0..=15)? {
                0 => {
                    let row = encode_key(&[key]);
                    self.tree.write(at, &[Change::DeleteRow { row: &row }]);
                    now.retain(|place, _| !place.starts_with(&row));
                }
                1..4 => {
                    self.tree.write(at, &[Change::Delete { place: &place }]);
                    now.remove(&place);
                }
                len => {
                    let mut value = at.index.to_be_bytes().to_vec();
                    value.resize(8 * usize::from(len as u8), key);
                    self.tree.write(at, &[Change::Set { place: &place, value: &value }]);
                    now.insert(place, (value, at.index));
                }
            }
            self.states.push(now.clone());
        }
        Ok(())
    }

    fn freeze(&mut self) {
        if self.tree.may_freeze() {
            let index = self.tree.applied().index;
            self.unflushed.push_back(self.tree.freeze(extra(index)));
        }
    }

    /// Takes what a call gave: only a full disk may refuse.
    fn adopt(&mut self, result: Adopted) -> bool {
        match result {
            Ok(version) => {
                version.into_iter().for_each(|version| self.tree.adopt(version));
                true
            }
            Err(error) => {
                assert!(error.is_no_space(), "{error}");
                false
            }
        }
    }

    fn flush(&mut self) {
        let Some(frozen) = self.unflushed.front().cloned() else { return };
        let flushed = run(self.keeper.flush(&frozen)).map(Some);
        if self.adopt(flushed) {
            self.unflushed.pop_front();
        }
    }

    /// Another node's state takes the place of this one.
    fn replace(&mut self) {
        let at = point(self.tree.applied().index + 5);
        let value = at.index.to_be_bytes().to_vec();
        let state: Cells =
            (0..24).map(|n| (place(n % KEYS, n % COLUMNS), (value.clone(), 1))).collect();
        let replaced = run(async {
            self.keeper.begin_replacement().await?;
            let cells: Vec<_> = state
                .iter()
                .map(|(place, (value, version))| Cell {
                    place,
                    version: *version,
                    content: Content::Value(value),
                })
                .collect();
            for some in cells.chunks(7) {
                self.keeper.push_replacement(some.iter().copied()).await?;
            }
            self.keeper.finish_replacement(at, extra(at.index).into()).await.map(Some)
        });
        if self.adopt(replaced) {
            self.unflushed.clear();
            self.states.resize(at.index as usize, Cells::new());
            self.states.push(state);
        }
    }

    /// Starts again; the state must be one that was durable, or the one in the making.
    fn reopen(&mut self, may_be_later: bool) {
        let durable = self.keeper.version().applied;
        self.pinned = None;
        let (tree, keeper, recovery) = opened(&self.disk, self.options);
        assert_eq!(recovery.damage, None, "nothing was damaged");
        assert!(recovery.applied >= durable, "{recovery:?} after {durable:?}");
        assert!(may_be_later || recovery.applied == durable, "{recovery:?} after {durable:?}");
        if recovery.applied.index > 0 {
            assert_eq!(recovery.extra, extra(recovery.applied.index), "what was captured");
        }
        (self.tree, self.keeper) = (tree, keeper);
        self.unflushed.clear();
        assert_eq!(run(self.keeper.scrub_step(u64::MAX)), Ok(()), "what was opened is whole");
    }

    fn power_loss(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let kept = *input.choose(&[0.0, 0.3, 0.7, 1.0])?;
        let seed = input.arbitrary::<u16>()?;
        let fails = input.ratio(3, 4)?;
        if fails {
            let operations = input.int_in_range(0..=11)?;
            self.disk.lose_power_at(self.disk.operation_count() + operations);
            let flushed = self.unflushed.front().cloned();
            let flushed = flushed.map(|frozen| run(self.keeper.flush(&frozen)));
            if !matches!(flushed, Some(Err(_))) {
                for _ in 0..20 {
                    if run(self.keeper.compact_step()).is_err() {
                        break;
                    }
                }
            }
        }
        self.disk.set_space(None);
        self.disk.power_loss(&mut Rng::new(u64::from(seed)), kept);
        self.reopen(fails);
        Ok(())
    }

    fn check(&self) {
        let now = self.state(self.tree.applied());
        assert_eq!(&cells(&self.tree, &[], None), now, "the store and the map");
        for key in 0..KEYS {
            for column in [0, 3, COLUMNS - 1] {
                let place = place(key, column);
                match self.tree.get(&place) {
                    Ok(got) => {
                        let got = got.map(|got| (got.value.to_vec(), got.version));
                        assert_eq!(got.as_ref(), now.get(&place), "{place:?}");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let (start, end) = (place(1, 5), place(3, 2));
        let expected = now.range(start.clone()..end.clone());
        let expected: Cells = expected.map(|(p, c)| (p.clone(), c.clone())).collect();
        assert_eq!(cells(&self.tree, &start, Some(&end)), expected, "a range");
        for version in self.pinned.iter().chain([self.keeper.version()]) {
            assert_eq!(&cells_of(version), self.state(version.applied), "a version");
        }
    }
}

fn cells(tree: &Tree<TestDisk>, start: &[u8], end: Option<&[u8]>) -> Cells {
    let mut cells = Cells::new();
    let scanned = tree.scan(start, end, &mut |place, value, version| {
        let last = cells.last_key_value().map(|(last, _)| last.as_slice());
        assert!(last < Some(place), "{place:?} after {last:?}");
        cells.insert(place.to_vec(), (value.to_vec(), version));
        ControlFlow::Continue(())
    });
    assert_eq!(scanned, Ok(()), "the disk is well");
    cells
}

fn cells_of(version: &Arc<Version<TestDisk>>) -> Cells {
    let mut cells = Cells::new();
    let Ok(mut cursor) = version.cursor() else { panic!("the disk is well") };
    while let Some(cell) = cursor.current() {
        if let Content::Value(value) = cell.content {
            cells.insert(cell.place.to_vec(), (value.to_vec(), cell.version));
        }
        assert_eq!(cursor.advance(), Ok(()), "the disk is well");
    }
    cells
}
