//! [`SimEnv`]: the world as one process of one machine sees it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mangrove::base::{Instant, Rng, WallTime};
use mangrove::env::Env;

use super::clock::{Sleep, Until};
use super::core::nanos;
use super::disk::SimDisk;
use super::executor::Process;
use super::fate::For;
use super::fault::Fault;
use super::net::SimNet;
use super::{Fence, Shared};

/// The environment of one incarnation of a process: cheap to clone, dead with the process.
#[derive(Clone)]
pub struct SimEnv {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    fence: Fence,
    process: Arc<Process>,
    rng: Rng,
    disk: SimDisk,
    net: SimNet,
}

impl SimEnv {
    pub(super) fn new(
        shared: &Arc<Shared>,
        fence: Fence,
        process: Arc<Process>,
        rng: Rng,
        disk: SimDisk,
    ) -> Self {
        let net = SimNet::new(shared, fence);
        let shared = Arc::clone(shared);
        Self { inner: Arc::new(Inner { shared, fence, process, rng, disk, net }) }
    }
}

impl Env for SimEnv {
    type Disk = SimDisk;
    type Net = SimNet;

    fn now(&self) -> Instant {
        let inner = &self.inner;
        Instant::from_nanos(inner.shared.with(|state| {
            let world = state.core.now();
            state.host(inner.fence.host).clock.monotonic(world)
        }))
    }

    fn wall(&self) -> WallTime {
        let inner = &self.inner;
        WallTime(inner.shared.with(|state| {
            let world = state.core.now();
            let host = state.host_mut(inner.fence.host);
            let (is_off, jumped) = (host.wall_is_off, std::mem::take(&mut host.clock.jumped));
            let wall = host.clock.wall(world);
            if is_off {
                state.core.faults.observed(Fault::C1);
            }
            if jumped {
                state.core.faults.observed(Fault::C3);
            }
            wall
        }))
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        let inner = &self.inner;
        let host = inner.fence.host;
        let until = inner.shared.with(|state| {
            let world = state.core.now();
            // Even the shortest sleep lets others run.
            let length = nanos(duration).max(1);
            let late_max = state.timer_late_max;
            let late = if late_max.is_zero() {
                0
            } else {
                let fate = state.host_mut(host).timers.next(world);
                fate.nanos(For::Late, (Duration::ZERO, late_max))
            };
            if late > 0 {
                state.core.faults.injected(Fault::C5);
                state.core.faults.observed(Fault::C5);
            }
            let clock = &state.host(host).clock;
            let at = clock.monotonic(world).saturating_add(length);
            if clock.rate_ppb() != 0 {
                state.core.faults.observed(Fault::C2);
            }
            Until::Monotonic { host, at, late }
        });
        Sleep::new(&inner.shared, until)
    }

    fn spawn(&self, _name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.process.spawn(task);
    }

    fn rng(&self, purpose: &str) -> Rng {
        self.inner.rng.split(purpose)
    }

    fn disk(&self) -> &SimDisk {
        &self.inner.disk
    }

    fn net(&self) -> &SimNet {
        &self.inner.net
    }
}
