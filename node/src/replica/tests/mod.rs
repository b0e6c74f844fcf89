//! What the tests of the shell and its helpers share: a world that is a disk and a clock, and one
//! in which a test gives every task its turns. And those tests that need several modules.

mod behind;
mod by_hand;
mod ending;
mod full_disk;
mod lost;
mod persist;
mod reading;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) use self::by_hand::{HandEnv, prepare, tree_soon_behind};
use crate::base::{Instant, Rng, WallTime};
use crate::env::Env;
use crate::env::real::RealEnv;
use crate::storage::let_others_run;
use crate::storage::test_disk::{TestDisk, run};

/// A world with a disk and without a network, in which time passes when somebody sleeps.
#[derive(Clone, Default)]
pub(super) struct TestEnv {
    pub(super) disk: TestDisk,
    nanos: Arc<AtomicU64>,
}

impl TestEnv {
    pub(super) fn pass(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap();
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Env for TestEnv {
    type Disk = TestDisk;
    type Net = <RealEnv as Env>::Net;

    fn now(&self) -> Instant {
        Instant::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }

    /// Ends with the next turn, so that a test can do something between two tries of a task.
    async fn sleep(&self, duration: Duration) {
        self.pass(duration);
        let_others_run().await;
    }

    /// Carries the task out at once: it waits for nothing but the disk, which is never late.
    fn spawn(&self, _name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        run(task);
    }

    fn rng(&self, purpose: &str) -> Rng {
        Rng::new(1).split(purpose)
    }

    fn disk(&self) -> &TestDisk {
        &self.disk
    }

    fn net(&self) -> &Self::Net {
        unreachable!("nobody here has peers")
    }
}
