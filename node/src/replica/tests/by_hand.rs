//! A world for a whole replica without a network and without an executor: a test gives the loop,
//! the log task and the state task their turns, and so says how slow each of them is.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::super::config::NodeConfig;
use super::super::identity::{self, Identity};
use super::super::persist::vote_record;
use super::super::start::WAL_DIR;
use crate::base::{Instant, Rng, WallTime};
use crate::env::Env;
use crate::env::real::RealEnv;
use crate::raft::HardState;
use crate::storage::test_disk::{TestDisk, run};
use crate::storage::tree::TreeOptions;
use crate::storage::wal;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A world with a disk and without a network, in which time passes when the test says so, and
/// tasks go on when the test lets them.
#[derive(Clone, Default)]
pub(in crate::replica) struct HandEnv {
    disk: TestDisk,
    nanos: Arc<AtomicU64>,
    tasks: Arc<Mutex<Vec<(&'static str, Task)>>>,
}

impl HandEnv {
    /// Makes one with this disk, in which nothing runs.
    pub(in crate::replica) fn with_disk(disk: TestDisk) -> Self {
        Self { disk, ..Self::default() }
    }

    pub(in crate::replica) fn pass(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Gives the tasks a turn whose names begin so.
    pub(in crate::replica) fn give_turn(&self, prefix: &str) {
        let lock = || self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = std::mem::take(&mut *lock());
        let mut context = Context::from_waker(Waker::noop());
        for (name, mut task) in tasks {
            let is_meant = name.starts_with(prefix);
            if !is_meant || task.as_mut().poll(&mut context) == Poll::Pending {
                lock().push((name, task));
            }
        }
    }
}

impl Env for HandEnv {
    type Disk = TestDisk;
    type Net = <RealEnv as Env>::Net;

    fn now(&self) -> Instant {
        Instant::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn wall(&self) -> WallTime {
        WallTime(self.nanos.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        std::future::poll_fn(|_| if self.now() < until { Poll::Pending } else { Poll::Ready(()) })
            .await;
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push((name, Box::pin(task)));
    }

    fn rng(&self, purpose: &str) -> Rng {
        Rng::new(1).split(purpose)
    }

    fn disk(&self) -> &TestDisk {
        &self.disk
    }

    fn net(&self) -> &Self::Net {
        unreachable!("the replica has no sockets")
    }
}

/// Returns the sizes of a store that a few writes put behind: a flush is one step, a compaction are
/// many.
pub(in crate::replica) fn tree_soon_behind(memtable_bytes: u64) -> TreeOptions {
    TreeOptions {
        memtable_bytes,
        frozen_max: 1,
        table_bytes: 4 << 10,
        level0_tables: 2,
        level0_tables_max: 4,
        step_bytes: 3 << 10,
        ..TreeOptions::default()
    }
}

/// Makes the disk one of a node that has taken part.
pub(in crate::replica) fn prepare(env: &HandEnv, config: &NodeConfig) {
    let disk = env.disk();
    let vote = vote_record(&HardState { term: 1, vote: None }, None);
    let prepared = run(async {
        identity::claim(disk, &Identity::of(config)).await?;
        let (mut log, _) = wal::open(disk, WAL_DIR, wal::Options::default()).await?;
        log.append_critical(vote.kind, vote.tag, |buffer| buffer.extend_from_slice(&vote.payload));
        log.write().await?;
        log.sync().await
    });
    prepared.unwrap_or_else(|error| panic!("{error}"));
}
