//! Random calls in random order, against a plain map.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::base::Rng;
use crate::storage::tree::Frozen;

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Edit>),
    Freeze,
    Flush,
    FreezeAndFlush,
    Compact(usize),
    Settle,
    Collect,
    Scrub,
    Pin,
    NoSpace(usize),
    Space,
    Replace,
    Reopen,
    PowerLoss { seed: u64, kept: f64, fail_after: Option<usize> },
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        12 => (0_u8..9, 0_u8..12, 0_usize..150).prop_map(|(k, c, len)| Edit::Set(k, c, len)),
        3 => (0_u8..9, 0_u8..12).prop_map(|(k, c)| Edit::Delete(k, c)),
        1 => (0_u8..9).prop_map(Edit::DeleteRow),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let kept = prop_oneof![Just(0.0), Just(0.3), Just(0.7), Just(1.0)];
    let fail_after = prop::option::of(0_usize..12);
    prop_oneof![
        12 => prop::collection::vec(edit(), 1..50).prop_map(Step::Write),
        3 => Just(Step::Freeze),
        4 => Just(Step::Flush),
        8 => Just(Step::FreezeAndFlush),
        8 => (1_usize..12).prop_map(Step::Compact),
        2 => Just(Step::Settle),
        3 => Just(Step::Collect),
        2 => Just(Step::Scrub),
        1 => Just(Step::Pin),
        1 => (0_usize..3000).prop_map(Step::NoSpace),
        1 => Just(Step::Space),
        1 => Just(Step::Replace),
        1 => Just(Step::Reopen),
        2 => (any::<u64>(), kept, fail_after)
            .prop_map(|(seed, kept, fail_after)| Step::PowerLoss { seed, kept, fail_after }),
    ]
}

struct Model {
    disk: TestDisk,
    tree: Tree<TestDisk>,
    keeper: Keeper<TestDisk>,
    /// The state after every entry.
    states: Vec<Cells>,
    unflushed: VecDeque<Frozen>,
    pinned: Option<Arc<Version<TestDisk>>>,
}

impl Model {
    fn new() -> Self {
        let disk = TestDisk::default();
        let (tree, keeper, _) = open(&disk);
        let (states, unflushed) = (vec![Cells::new()], VecDeque::new());
        Self { disk, tree, keeper, states, unflushed, pinned: None }
    }

    fn state(&self, at: SnapshotPoint) -> &Cells {
        &self.states[usize::try_from(at.index).unwrap()]
    }

    fn check(&self) {
        let now = self.state(self.tree.applied());
        assert_eq!(&cells(&self.tree, &[], None).unwrap(), now);
        for key in 0..9 {
            for column in [0, 3, 7, 11] {
                let place = place(key, column);
                let got = self.tree.get(&place).unwrap();
                let got = got.map(|got| (got.value.to_vec(), got.version));
                assert_eq!(got.as_ref(), now.get(&place), "{place:?}");
                let version = self.tree.version_of(&place).unwrap();
                assert_eq!(version, got.map(|(_, version)| version), "{place:?}");
            }
            let (start, end) = (place(key, 5), place(key + 1, 2));
            let within = cells(&self.tree, &start, Some(&end)).unwrap();
            let expected = now.range(start..end).map(|(p, c)| (p.clone(), c.clone()));
            assert_eq!(within, expected.collect::<Cells>());
        }
        for version in self.pinned.iter().chain([self.keeper.version()]) {
            assert_eq!(&cells_of(version).unwrap(), self.state(version.applied));
        }
    }

    fn write(&mut self, edits: &[Edit]) {
        let mut now = self.state(self.tree.applied()).clone();
        self.states.truncate(usize::try_from(self.tree.applied().index).unwrap() + 1);
        for edit in edits {
            write(&mut self.tree, &mut now, edit);
            self.states.push(now.clone());
        }
    }

    /// Takes what a call gave: only a full disk may refuse.
    fn adopt(&mut self, result: Result<Option<Arc<Version<TestDisk>>>, StorageError>) -> bool {
        match result {
            Ok(Some(version)) => self.tree.adopt(version),
            Ok(None) => {}
            Err(error) => {
                assert!(error.is_no_space(), "{error}");
                return false;
            }
        }
        true
    }

    fn flush(&mut self) {
        let Some(frozen) = self.unflushed.front().cloned() else { return };
        let flushed = run(self.keeper.flush(&frozen)).map(Some);
        if self.adopt(flushed) {
            self.unflushed.pop_front();
        }
    }

    fn replace(&mut self) {
        let at = point(self.tree.applied().index + 5);
        let state: Cells = (0..60).map(|n| (place(n % 4, n), (value(at.index, 9), 1))).collect();
        let replaced = run(async {
            self.keeper.begin_replacement().await?;
            let cells = state.iter().map(|(place, (value, version))| crate::storage::Cell {
                place,
                version: *version,
                content: crate::storage::Content::Value(value),
            });
            let cells: Vec<_> = cells.collect();
            for some in cells.chunks(7) {
                self.keeper.push_replacement(some.iter().copied()).await?;
            }
            self.keeper.finish_replacement(at, extra(at.index).into()).await.map(Some)
        });
        if self.adopt(replaced) {
            self.unflushed.clear();
            let index = usize::try_from(at.index).unwrap();
            self.states.resize(index, Cells::new());
            self.states.push(state);
        }
    }

    /// Starts again; the state must be one that was durable, or the one in the making.
    fn reopen(&mut self, may_be_later: bool) {
        let durable = self.keeper.version().applied;
        let (tree, keeper, recovery) = open(&self.disk);
        assert_eq!(recovery.damage, None);
        assert!(recovery.applied >= durable, "{recovery:?} after {durable:?}");
        assert!(may_be_later || recovery.applied == durable, "{recovery:?} after {durable:?}");
        if recovery.applied.index > 0 {
            assert_eq!(recovery.extra, extra(recovery.applied.index));
        }
        (self.tree, self.keeper) = (tree, keeper);
        self.unflushed.clear();
        self.pinned = None;
        assert_eq!(run(self.keeper.scrub_step(u64::MAX)), Ok(()));
    }

    fn power_loss(&mut self, seed: u64, kept: f64, fail_after: Option<usize>) {
        if let Some(operations) = fail_after {
            let until = self.disk.operation_count() + operations;
            self.disk.lose_power_at(until);
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
        self.disk.power_loss(&mut Rng::new(seed), kept);
        self.reopen(fail_after.is_some());
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Write(edits) => self.write(edits),
            Step::Freeze => {
                let index = self.tree.applied().index;
                self.unflushed.push_back(self.tree.freeze(extra(index)));
            }
            Step::Flush => self.flush(),
            Step::FreezeAndFlush => {
                self.run(&Step::Freeze);
                while !self.unflushed.is_empty() {
                    let before = self.unflushed.len();
                    self.flush();
                    if self.unflushed.len() == before {
                        break;
                    }
                }
            }
            Step::Compact(steps) => {
                for _ in 0..*steps {
                    let stepped = run(self.keeper.compact_step());
                    self.adopt(stepped);
                }
            }
            Step::Settle => {
                if let Err(error) = settle(&mut self.tree, &mut self.keeper) {
                    assert!(error.is_no_space(), "{error}");
                }
            }
            Step::Collect => run(self.keeper.collect()),
            Step::Scrub => match run(self.keeper.scrub_step(500)) {
                Ok(()) => {}
                Err(error) => assert!(error.is_no_space(), "{error}"),
            },
            Step::Pin => self.pinned = Some(self.tree.pin()),
            Step::NoSpace(left) => self.disk.set_space(Some(self.disk.used_bytes() + left)),
            Step::Space => self.disk.set_space(None),
            Step::Replace => self.replace(),
            Step::Reopen => {
                self.disk.set_space(None);
                self.reopen(false);
            }
            Step::PowerLoss { seed, kept, fail_after } => {
                self.power_loss(*seed, *kept, *fail_after);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn tree_agrees_with_a_plain_map(steps in prop::collection::vec(step(), 1..80)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
            model.check();
        }
        // With the last reader gone, there are no files but those of the last version.
        model.pinned = None;
        model.disk.set_space(None);
        model.reopen(false);
        let names = model.disk.names(DIR);
        let expected = model.keeper.version().table_count() + 1
            + usize::from(model.tree.durable().index > 0);
        prop_assert_eq!(names.len(), expected, "{:?} of {:?}", names, model.keeper.version());
    }
}
