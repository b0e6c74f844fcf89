//! The real world: the operating system's files and clocks, tokio's network and tasks.
//!
//! Only wiring names this module ([`crate::cli`], [`crate::trial`], `main`, and the client's
//! convenience constructor); everything else is generic over [`Env`] and never learns which world
//! it is in. One [`RealEnv`] is one node, or one client without a disk. It needs a tokio runtime
//! with I/O and time enabled.
//!
//! Three things here are stricter than the operating system: a data directory belongs to one
//! process at a time ([`RealEnv::open`] locks it), a path cannot leave that directory, and a
//! task that panics ends the process, because a node that has lost one of its tasks looks alive
//! to its peers and does nothing.
//!
//! # Layout
//! ```text
//! clock  monotonic and wall time      disk  files, locks, fsync
//! net    TCP                          mod   tasks, randomness, the bundle
//! holding  faults on request: data files that a cut takes
//! ```
//!
//! All tasks of a node share one thread, unless `serve --threads` says otherwise, so that nothing
//! of the protocols waits for another thread.
//! Only a task that is started *aside* ([`Env::spawn_aside`]) has a thread, and a runtime, of its
//! own: what flushes, merges and verifies tables computes for milliseconds, and for as long as a
//! processor lasts while data are filled in.
//!
//! # Left out
//! `io_uring`: the write-ahead log is bound by fsync, not by system calls.
//!
//! # Sources
//! The contract is in [`crate::env`]; `conformance` holds this module to it.
#![expect(clippy::disallowed_methods, reason = "this is the door: it may spawn real tasks")]

mod clock;
mod disk;
mod holding;
mod net;

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;

pub use disk::{RealDisk, RealFile};
pub use holding::HoldingPlaces;
pub use net::{RealListener, RealNet};

use self::clock::RealClock;
use super::{DiskError, Env};
use crate::base::{Instant, Rng, WallTime};

/// The world as one real process sees it.
#[derive(Clone, Debug)]
pub struct RealEnv {
    clock: RealClock,
    disk: RealDisk,
    net: RealNet,
    rng: Rng,
}

impl RealEnv {
    /// Opens the directory of a node, making it if need be, and locks it for this process.
    ///
    /// The lock ends with the last clone of the environment, and with the process however it dies.
    ///
    /// # Errors
    /// [`Locked`](super::DiskErrorKind::Locked) if another process has it open; anything else if it
    /// cannot be created or written.
    pub fn open(directory: &Path) -> Result<Self, DiskError> {
        Ok(Self::with_disk(RealDisk::open(directory)?))
    }

    /// Opens the directory of a node as [`open`](Self::open) does, lets those writes to data files
    /// be lost that were held back in its last life, and lets more be held back in this one if it
    /// is to be `faulty` ([`Disk::hold_back`](super::Disk::hold_back)). Tells whether something was
    /// lost.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with_holding(
        directory: &Path,
        places: HoldingPlaces,
        faulty: bool,
    ) -> Result<(Self, bool), DiskError> {
        let rng = faulty.then(|| Rng::new(system_seed()));
        let (disk, was_held) = RealDisk::open(directory)?.with_holding(places, rng)?;
        Ok((Self::with_disk(disk), was_held))
    }

    /// Makes the environment of a client: every operation on its disk fails.
    pub fn client() -> Self {
        Self::with_disk(RealDisk::absent())
    }

    fn with_disk(disk: RealDisk) -> Self {
        Self { clock: RealClock::start(), disk, net: RealNet, rng: Rng::new(system_seed()) }
    }
}

impl Env for RealEnv {
    type Disk = RealDisk;
    type Net = RealNet;

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wall(&self) -> WallTime {
        clock::wall()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        // The handle is not needed: a task ends by itself or with the process.
        drop(tokio::spawn(end_process_on_panic(name, task)));
    }

    fn spawn_aside(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = end_process_on_panic(name, task);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let started = runtime.and_then(|runtime| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || runtime.block_on(task))
        });
        if let Err(error) = started {
            // As for a task that panicked: without it, the node looks alive and does nothing.
            tracing::error!(task = name, %error, "no thread for a task: the node stops");
            std::process::abort();
        }
    }

    fn rng(&self, purpose: &str) -> Rng {
        self.rng.split(purpose)
    }

    fn disk(&self) -> &RealDisk {
        &self.disk
    }

    fn net(&self) -> &RealNet {
        &self.net
    }
}

/// Runs a task; if it panics, says which one and aborts.
///
/// The shipped program is built with `panic = "abort"` and never gets here; this makes every other
/// build behave the same. The panic's own message is on standard error already.
async fn end_process_on_panic(name: &'static str, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!(task = name, "a task panicked: the node stops");
        std::process::abort();
    }
}

/// Returns 64 bits that the operating system drew.
///
/// The standard library keys its hasher from the system's random source, which makes it the one
/// way to that source without a dependency or a device file.
fn system_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs a test of this module to its end.
    pub(super) fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    }

    #[test]
    fn rng_differs_by_start_and_by_purpose() {
        let (one, two) = (RealEnv::client(), RealEnv::client());
        assert_ne!(one.rng("a").next_u64(), two.rng("a").next_u64());
        assert_ne!(one.rng("a").next_u64(), one.rng("b").next_u64());
    }

    #[test]
    fn task_that_panics_ends_the_process() {
        const CHILD: &str = "MANGROVE_TEST_PANICKING_CHILD";
        if std::env::var_os(CHILD).is_some() {
            block_on(async {
                let env = RealEnv::client();
                env.spawn("doomed", async { panic!("on purpose") });
                env.sleep(Duration::from_mins(1)).await;
            });
            return;
        }
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program)
            .args(["--exact", "env::real::tests::task_that_panics_ends_the_process"])
            .args(["--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let status = std::os::unix::process::ExitStatusExt::signal(&child.status);
        assert_eq!(status, Some(6), "ended by SIGABRT: {child:?}");
        assert!(String::from_utf8_lossy(&child.stderr).contains("on purpose"), "{child:?}");
    }
}
