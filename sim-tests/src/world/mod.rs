//! A world: machines with clocks, disks and a network, whose every fault comes from one seed.
//!
//! The cluster harness builds worlds; the nodes in them know only [`SimEnv`]. madsim lays a
//! virtual clock and seeded randomness under the C library; network, disks, clock errors and
//! timers are made here, because madsim's forgive too much (see `net`, `disk`, `clock` and
//! `core`), and so is the executor, because madsim's costs too much (see `executor`).
//!
//! ```text
//! run_seed(seed, options, |world| async move {
//!     let n1 = world.add_server("n1");                // a machine, with power, without process
//!     world.start(n1, |env| async move { … }).await;  // an incarnation of its process
//!     world.sleep(Duration::from_secs(1)).await;      // world time; nodes use env.sleep
//!     world.crash(n1);                                // P1; or power_off(n1, PowerLoss::Subset)
//!     world.start(n1, |env| async move { … }).await;  // power on if off, and a new incarnation
//!     world.trace_hash()
//! })
//! ```
//!
//! A node's process ends by [`World::crash`], by [`World::power_off`], or when the future given to
//! [`World::start`] returns; a panic in any of its tasks ends the whole run, as a find. However it
//! ends, it is fenced at that instant: tasks and destructors of a dead incarnation may still run
//! for a moment, but whatever they ask of disk or network has no effect.
//!
//! # Invariants
//! 1. Everything that happens is a function of the seed, the options and the scenario. Every
//!    decision has a fate of its own (see `fate`), so none shifts another.
//! 2. A dead incarnation changes nothing.
//! 3. When it is over, no task and no timer of the world is left.
//!
//! # Left out
//! Processors and their speed: a task takes 50 to 100 ns of virtual time per poll whatever it
//! does, so a slow node (P6) is a slow disk or a pause here.

mod clock;
mod control;
mod core;
mod disk;
mod env;
mod executor;
mod fate;
mod fault;
mod log;
mod net;
mod options;
mod run;
mod trace;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::waker_ref;
use mangrove::base::{Rng, probe};

pub use self::clock::EPOCH_MS;
use self::clock::{Clock, Sleep, Until};
pub use self::control::KeptDisk;
use self::core::{Core, Event, nanos};
use self::disk::{DiskId, DiskState};
pub use self::disk::{FileState, PowerLoss, Rot, SimDisk, SimFile};
pub use self::env::SimEnv;
use self::executor::{Executor, Process, Turn};
pub use self::fate::{Decided, Moment, SyncEnd};
use self::fate::{Fate, Passing};
pub use self::fault::Fault;
pub use self::log::{Happening, Log, LogEntry};
use self::net::Net;
pub use self::net::{Reset, Sent, SimListener, SimNet, SimStream};
pub use self::options::{
    ClockOptions, DiskOptions, Latency, LinkOptions, NetOptions, Reseed, WorldOptions,
};
pub use self::run::{RunFailure, run_seed};
pub use self::trace::Record;

/// Nanoseconds between two looks at the disks of a run that is recorded with everything.
const TICK: u64 = 100_000_000;

/// One machine, numbered in the order in which it was added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(usize);

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.0)
    }
}

/// What an incarnation of a process may pass as long as it lives.
#[derive(Debug, Clone, Copy)]
struct Fence {
    host: Host,
    incarnation: u64,
}

impl Fence {
    /// The incarnation number of observers, who are never dead.
    const OBSERVER: u64 = u64::MAX;
}

/// How a process ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Exit,
    Crash,
    Power(PowerLoss),
}

struct HostState {
    name: String,
    /// How many processes have been started here.
    incarnation: u64,
    process: Option<Arc<Process>>,
    has_power: bool,
    paused_since: Option<u64>,
    ended_at: Option<u64>,
    clock: Clock,
    wall_is_off: bool,
    disk: DiskId,
    /// How many disks the machine has had.
    disk_count: u64,
    rng: Rng,
    fate: Fate,
    /// The fates of its timers.
    timers: Passing,
}

struct State {
    core: Core,
    net: Net,
    hosts: Vec<HostState>,
    disks: BTreeMap<DiskId, DiskState>,
    disk_count: u64,
    options: WorldOptions,
    rng: Rng,
    fate: Fate,
    /// What the scenario is about to do; the fates of a power loss belong to it.
    decision: u64,
    timer_late_max: Duration,
    /// When the disks are to be recorded next.
    next_tick: u64,
}

impl State {
    fn host(&self, host: Host) -> &HostState {
        match self.hosts.get(host.0) {
            Some(state) => state,
            None => panic!("the world has no {host:?}"),
        }
    }

    fn host_mut(&mut self, host: Host) -> &mut HostState {
        match self.hosts.get_mut(host.0) {
            Some(state) => state,
            None => panic!("the world has no {host:?}"),
        }
    }

    /// Tells whether the process with that fence is alive.
    fn is_open(&self, fence: Fence) -> bool {
        fence.incarnation == Fence::OBSERVER
            || self
                .hosts
                .get(fence.host.0)
                .is_some_and(|host| host.process.is_some() && host.incarnation == fence.incarnation)
    }

    fn disk_of(&mut self, host: Host) -> &mut DiskState {
        let disk = self.host(host).disk;
        match self.disks.get_mut(&disk) {
            Some(disk) => disk,
            None => panic!("{host:?} has lost its disk {disk:?}"),
        }
    }

    fn add_disk(&mut self, host: Host, options: DiskOptions) -> DiskId {
        let id = DiskId(self.disk_count);
        self.disk_count += 1;
        let decided = self.options.decided.clone();
        let state = self.host_mut(host);
        state.disk_count += 1;
        let fate = state.fate.named("disk").of(state.disk_count);
        let of_host = |decided: &Decided| {
            matches!(decided,
            Decided::Sync { host, .. } if *host == state.name)
        };
        let decided = decided.into_iter().filter(of_host).collect();
        self.disks.insert(id, DiskState::new(id, host, options, fate, decided));
        id
    }

    /// Notes the rare paths that were taken for the first time in the turn that is over.
    fn note_probes(&self) {
        for name in probe::take_new() {
            self.core.note_world(|| Happening::Probe(name));
        }
    }

    /// Draws everything anew from now on.
    fn reseed(&mut self, reseed: Reseed, executor: &Executor) {
        let number = reseed.number;
        self.fate = self.fate.reseeded(number);
        self.rng = reseed.split(&self.rng);
        self.net.reseed(reseed);
        self.disks.values_mut().for_each(|disk| disk.reseed(number));
        for host in &mut self.hosts {
            host.fate = host.fate.reseeded(number);
            host.rng = reseed.split(&host.rng);
            host.timers.reseed(number);
        }
        executor.reseed(number);
    }

    /// Carries out all that is due.
    fn drive(&mut self, executor: &Executor) {
        let now = self.core.now();
        if self.core.trace.records_everything() && now >= self.next_tick {
            self.record_disks(now);
        }
        while let Some(event) = self.core.take_due() {
            match event {
                Event::Wake(waker) => waker.wake(),
                Event::Arrive(id, side) => self.net.fire_arrival(id, side),
                Event::Reset(id, side) => self.net.fire_reset(&mut self.core, id, side),
                Event::Sync(job) => {
                    if let Some(disk) = self.disks.get_mut(&job.disk()) {
                        disk.complete_sync(&mut self.core, job);
                    }
                }
                Event::Reseed(reseed) => self.reseed(reseed, executor),
            }
        }
    }

    /// Records the hash of all that is durable on each machine.
    fn record_disks(&mut self, now: u64) {
        self.next_tick = now - now % TICK + TICK;
        for (id, host) in (0..).zip(&self.hosts) {
            let Some(disk) = self.disks.get(&host.disk) else { continue };
            let numbers = (host.disk.0, disk.durable_hash());
            self.core.trace.note(now, Host(id), "disk", numbers, &"");
        }
    }

    /// Ends the process on a machine; returns what is to be killed, if there was one.
    fn end(&mut self, host: Host, end: End) -> Option<Arc<Process>> {
        let now = self.core.now();
        let state = self.host_mut(host);
        let process = state.process.take();
        let had_process = process.is_some();
        if had_process {
            state.ended_at = Some(now);
            state.paused_since = None;
        }
        let incarnation = state.incarnation;
        match end {
            End::Exit | End::Crash if !had_process => return None,
            End::Exit | End::Crash => {
                let kind = if matches!(end, End::Exit) { "exit" } else { "crash" };
                self.core.event(host, kind, (incarnation, 0), || format!("#{incarnation}"));
                self.net.process_ended(&mut self.core, host);
                let id = self.host(host).disk;
                if let Some(disk) = self.disks.get_mut(&id) {
                    disk.process_ended(&self.core);
                }
            }
            End::Power(_) if !self.host(host).has_power => return None,
            End::Power(loss) => {
                self.host_mut(host).has_power = false;
                self.core.event(host, "power_off", (incarnation, 0), || format!("{loss:?}"));
                self.net.power_lost(&mut self.core, host);
                let (id, decision) = (self.host(host).disk, self.decision);
                if let Some(disk) = self.disks.get_mut(&id) {
                    disk.lose_power(&mut self.core, loss, decision);
                }
            }
        }
        process
    }
}

/// What everything of a world refers to.
struct Shared {
    state: Mutex<State>,
    executor: Arc<Executor>,
    /// What the tasks of observers belong to.
    observers: Arc<Process>,
}

impl Shared {
    /// Runs `f` on the state. `f` must not call back into the world.
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A world. Cheap to clone; all clones are the same world.
///
/// It belongs to the scenario: nodes get a [`SimEnv`]. Unless it says otherwise, a method takes
/// effect at once, at the present virtual time.
#[derive(Clone)]
pub struct World {
    shared: Arc<Shared>,
}

impl World {
    /// Makes a world without machines. Must be called inside a madsim runtime, see [`run_seed`].
    pub fn new(rng: &Rng, options: WorldOptions) -> Self {
        let time = madsim::time::TimeHandle::current();
        let mut core = Core::new(time, options.record, options.log.clone());
        if let Some(reseed) = options.reseed {
            core.insert(nanos(reseed.at), Event::Reseed(reseed));
        }
        let state = State {
            core,
            net: Net::new(options.net.clone(), rng, options.decided.clone()),
            hosts: Vec::new(),
            disks: BTreeMap::new(),
            disk_count: 0,
            timer_late_max: options.clock.timer_late_max,
            options,
            rng: rng.clone(),
            fate: Fate::root(rng).named("host"),
            decision: 0,
            next_tick: 0,
        };
        let executor = Executor::new();
        let observers = Process::new(&executor, Fate::root(rng).named("observers"));
        Self { shared: Arc::new(Shared { state: Mutex::new(state), executor, observers }) }
    }

    /// Runs the world until the scenario is over.
    ///
    /// # Panics
    /// When a task does, and when nothing can happen any more.
    fn run<F: Future>(&self, scenario: F) -> F::Output {
        let mut scenario = pin!(scenario);
        let executor = &self.shared.executor;
        let root = Executor::root(&self.shared.observers);
        let waker = waker_ref(&root);
        loop {
            let Some((turn, nanos)) = executor.turn(&root) else {
                let goes_on = self.shared.with(|state| {
                    let leaps = state.core.leap();
                    executor.at(state.core.now());
                    state.drive(executor);
                    leaps
                });
                assert!(goes_on, "no deadline is left, and every task waits for something");
                continue;
            };
            if matches!(turn, Turn::Scenario) {
                let polled = scenario.as_mut().poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(output) = polled {
                    return output;
                }
            }
            self.shared.with(|state| {
                if state.core.is_logged() {
                    state.note_probes();
                }
                let is_due = state.core.pass(nanos);
                executor.at(state.core.now());
                if is_due {
                    state.drive(executor);
                }
            });
        }
    }

    /// Adds a machine for a server; its name is also its host name, as in "n1:7000".
    pub fn add_server(&self, name: &str) -> Host {
        self.add_host(name, false)
    }

    /// Adds a machine for clients: links to it have the faults of clients (N10).
    pub fn add_client(&self, name: &str) -> Host {
        self.add_host(name, true)
    }

    fn add_host(&self, name: &str, is_client: bool) -> Host {
        self.shared.with(|state| {
            let host = Host(state.hosts.len());
            let rng = state.rng.split("host").split(name);
            let fate = state.fate.named(name);
            state.hosts.push(HostState {
                name: name.to_owned(),
                incarnation: 0,
                process: None,
                has_power: true,
                paused_since: None,
                ended_at: None,
                clock: Clock::new(0),
                wall_is_off: false,
                disk: DiskId(state.disk_count),
                disk_count: 0,
                rng,
                fate,
                timers: Passing::new(fate.named("timers")),
            });
            let options = state.options.disk.clone();
            state.add_disk(host, options);
            state.draw_clock(host);
            state.net.add_host(name, is_client);
            state.core.name_host(name);
            host
        })
    }

    /// Starts a process on a machine, which must have none; gives the machine power if it is off.
    ///
    /// Waits until the last process has been gone for a millisecond of virtual time. When `main`
    /// returns, the process has exited.
    pub async fn start<F, Fut>(&self, host: Host, main: F)
    where
        F: FnOnce(SimEnv) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let ended_at = self.shared.with(|state| state.host(host).ended_at);
        if let Some(ended_at) = ended_at {
            self.sleep_until(ended_at + 1_000_000).await;
        }
        let fate = self.shared.with(|state| {
            let host = state.host(host);
            host.fate.named("tasks").of(host.incarnation)
        });
        let process = Process::new(&self.shared.executor, fate);
        let env = self.boot(host, Arc::clone(&process));
        let (world, fence) = (self.clone(), self.fence(host));
        let main = main(env);
        process.spawn(async move {
            main.await;
            if world.shared.with(|state| state.is_open(fence)) {
                world.end(host, End::Exit);
            }
        });
    }

    fn boot(&self, host: Host, process: Arc<Process>) -> SimEnv {
        self.shared.with(|state| {
            let host_state = state.host_mut(host);
            assert!(
                host_state.process.is_none(),
                "{} already runs incarnation {}",
                host_state.name,
                host_state.incarnation
            );
            host_state.process = Some(process);
            host_state.incarnation += 1;
            let incarnation = host_state.incarnation;
            let had_power = std::mem::replace(&mut host_state.has_power, true);
            state.core.event(host, "start", (incarnation, 0), || format!("#{incarnation}"));
            if !had_power {
                state.net.power_restored(&mut state.core, host);
            }
        });
        match self.env(host) {
            Some(env) => env,
            None => panic!("{host:?} died in the instant of its start"),
        }
    }

    fn fence(&self, host: Host) -> Fence {
        let incarnation = self.shared.with(|state| state.host(host).incarnation);
        Fence { host, incarnation }
    }

    /// Returns the environment of the process that runs on a machine, if one does.
    ///
    /// Its random streams are those that the process itself has.
    pub fn env(&self, host: Host) -> Option<SimEnv> {
        let fence = self.fence(host);
        let (process, rng, disk) = self.shared.with(|state| {
            let host = state.host(host);
            let rng = host.rng.split("process").split(&fence.incarnation.to_string());
            Some((host.process.clone()?, rng, host.disk))
        })?;
        let disk = SimDisk::new(&self.shared, disk, fence);
        Some(SimEnv::new(&self.shared, fence, process, rng, disk))
    }

    /// Says what the scenario is about to do, by a number of its own: what a power loss leaves of
    /// a disk depends on that number, and not on the power losses before it.
    pub fn set_decision(&self, decision: u64) {
        self.shared.with(|state| state.decision = decision);
    }

    /// Kills the process on a machine (P1); nothing happens if there is none.
    ///
    /// What it wrote stays in the page cache, and its connections end as the kernel ends them.
    pub fn crash(&self, host: Host) {
        if self.is_running(host) {
            self.shared.with(|state| {
                state.core.faults.injected(Fault::P1);
                state.core.faults.observed(Fault::P1);
            });
        }
        self.end(host, End::Crash);
    }

    /// Takes the power away from a machine (P2, P3): its connections fall silent, and of what was
    /// not synced only what `loss` says is left. Nothing happens if it is off.
    pub fn power_off(&self, host: Host, loss: PowerLoss) {
        self.end(host, End::Power(loss));
    }

    /// Takes the power away from several machines in the same instant (P4).
    pub fn power_off_all(&self, hosts: &[Host], loss: PowerLoss) {
        self.shared.with(|state| {
            state.core.faults.injected(Fault::P4);
            state.core.faults.observed(Fault::P4);
        });
        for host in hosts {
            self.power_off(*host, loss);
        }
    }

    fn end(&self, host: Host, end: End) {
        // First the fence, then the kill: destructors must find the world closed to them.
        if let Some(process) = self.shared.with(|state| state.end(host, end)) {
            process.kill();
        }
    }

    /// Stops the process on a machine from running (P5), as SIGSTOP or a moving virtual machine
    /// does: clocks go on, timers and bytes pile up.
    pub fn pause(&self, host: Host) {
        self.shared.with(|state| {
            let now = state.core.now();
            let host_state = state.host_mut(host);
            let Some(process) = &host_state.process else { return };
            if host_state.paused_since.is_some() {
                return;
            }
            process.pause();
            host_state.paused_since = Some(now);
            state.core.faults.injected(Fault::P5);
            state.core.faults.injected(Fault::C4);
            state.core.event(host, "pause", (0, 0), String::new);
        });
    }

    /// Lets a paused process go on.
    pub fn resume(&self, host: Host) {
        self.shared.with(|state| {
            let now = state.core.now();
            let host_state = state.host_mut(host);
            let Some(since) = host_state.paused_since.take() else { return };
            let length = now.saturating_sub(since);
            if let Some(process) = &host_state.process {
                process.resume();
            }
            if length > 0 {
                // All timers of that time fire at once, to a process whose clock has jumped.
                state.core.faults.observed(Fault::P5);
                state.core.faults.observed(Fault::C4);
            }
            state.core.event(host, "resume", (length, 0), || format!("after {length} ns"));
        });
    }

    /// Tells whether a process runs on a machine, paused or not.
    pub fn is_running(&self, host: Host) -> bool {
        self.shared.with(|state| state.host(host).process.is_some())
    }

    /// Tells whether the process on a machine is paused.
    pub fn is_paused(&self, host: Host) -> bool {
        self.shared.with(|state| state.host(host).paused_since.is_some())
    }

    /// Tells whether a machine has power.
    pub fn has_power(&self, host: Host) -> bool {
        self.shared.with(|state| state.host(host).has_power)
    }

    /// Returns how many processes have been started on a machine.
    pub fn incarnation(&self, host: Host) -> u64 {
        self.fence(host).incarnation
    }

    /// Returns the name of a machine.
    pub fn name(&self, host: Host) -> String {
        self.shared.with(|state| state.host(host).name.clone())
    }

    /// Returns every machine in the order in which they were added.
    pub fn hosts(&self) -> Vec<Host> {
        self.shared.with(|state| (0..state.hosts.len()).map(Host).collect())
    }

    /// Returns the world's time since its beginning, which no node knows.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.shared.with(|state| state.core.now()))
    }

    /// Waits for `duration` of the world's time.
    pub async fn sleep(&self, duration: Duration) {
        let at = self.shared.with(|state| state.core.now()).saturating_add(nanos(duration).max(1));
        self.sleep_until(at).await;
    }

    async fn sleep_until(&self, at: u64) {
        Sleep::new(&self.shared, Until::World(at)).await;
    }

    /// Returns a stream of the world's randomness for a purpose of the scenario.
    pub fn rng(&self, purpose: &str) -> Rng {
        self.shared.with(|state| state.rng.split("scenario").split(purpose))
    }

    /// Traces an event of a machine, or of the world if `host` is `None`.
    ///
    /// `a` and `b` go into the hash of the trace; `text` is called only if lines are recorded.
    pub fn trace(
        &self,
        host: Option<Host>,
        kind: &'static str,
        numbers: (u64, u64),
        text: impl FnOnce() -> String,
    ) {
        let host = host.unwrap_or(Host(usize::MAX));
        self.shared.with(|state| state.core.event(host, kind, numbers, text));
    }

    /// Tells whether a log is kept.
    pub fn is_logged(&self) -> bool {
        self.shared.with(|state| state.core.is_logged())
    }

    /// Notes something about a machine in the log, if there is one.
    pub fn note(&self, host: Host, what: impl FnOnce() -> Happening) {
        self.shared.with(|state| state.core.note(host, what));
    }

    /// Returns the hash over everything that has happened: equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.shared.with(|state| state.core.trace.hash())
    }

    /// Returns how many events the hash covers.
    pub fn event_count(&self) -> u64 {
        self.shared.with(|state| state.core.trace.event_count())
    }

    /// Returns the lines recorded since the last call; none if they are not recorded.
    pub fn take_trace(&self) -> Vec<String> {
        self.shared.with(|state| state.core.trace.take_lines())
    }

    /// Counts a fault that is made of several simpler ones, and whether it could be observed.
    pub fn count_fault(&self, fault: Fault, observable: bool) {
        self.shared.with(|state| {
            state.core.faults.injected(fault);
            if observable {
                state.core.faults.observed(fault);
            }
        });
    }

    /// Returns how often each fault was injected, and how often that was observable, by code.
    pub fn fault_counts(&self) -> BTreeMap<&'static str, (u64, u64)> {
        self.shared.with(|state| state.core.faults.by_code())
    }

    /// Returns what servers have sent each other so far.
    pub fn traffic(&self) -> Sent {
        self.shared.with(|state| state.net.traffic)
    }

    /// Ends the world: kills every process and drops all that waits.
    ///
    /// Returns how many tasks are left in spite of that, which would leak.
    fn shutdown(&self) -> usize {
        for host in self.hosts() {
            self.end(host, End::Exit);
        }
        self.shared.observers.kill();
        let left = self.shared.executor.drain(&Executor::root(&self.shared.observers));
        self.shared.with(|state| {
            state.core.stop();
            state.net.stop();
        });
        left
    }
}
