//! One run: a cluster, a load and a nemesis; then healing, and the judgement.
//!
//! ```text
//! faults ──► (heal a quorum ──► it serves) ──► heal everything ──► converge ──► serve
//!   load ──►     ──► read everything ──► look at the disks ──► check ──► compare states
//! ```
//! What is in brackets happens in some runs ([`healing`](crate::healing)).
//! Runs of the masterless mode end in [`masterless::phases`](crate::masterless::phases).
//!
//! *Safety* is checked at every step and at the end; *liveness* only after healing: a leader, an
//! acknowledged write and an answer for every cell must come within a bounded time, from a quorum
//! alone where one was healed first; then equal replicas, and the same again, from all.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::select;
use mangrove::base::{planted, probe};

use crate::atlas::Contract;
use crate::case::Case;
use crate::check::liveness::{CONVERGE_MAX, Recovery};
use crate::check::{Violation, broken, client, exactly_once, linearizable, mute, versions};
use crate::cluster::Cluster;
use crate::deeds::{Deed, Deeds};
use crate::healing::alone::serve_alone;
use crate::healing::{Alone, Healing};
use crate::history::{History, OpId};
use crate::liveness::Asker;
use crate::masterless::options::Mechanism;
use crate::masterless::phases::Phases;
use crate::nemesis::{Action, Fault};
use crate::operation::{Drawn, OperationId};
use crate::options::{Leak, Options};
use crate::swarm;
use crate::workload::{ClientProcess, Helper, Shared, Timetable};
use crate::world::{Log, LogEntry, Record, Sent, World, WorldOptions, run_seed};

/// Longest pause between two looks at what the checkers say.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two looks at whether the replicas are equal, and the same in a run that is timed.
const CONVERGE_POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(5));
/// Time between two looks at the disks of a masterless cluster.
const LOOK_INTERVAL: Duration = Duration::from_secs(4);
/// How long a cluster that may halt is asked after healing.
const BEYOND_TIME: Duration = Duration::from_secs(30);
/// Pause between two times that everything of it is read.
const BEYOND_PAUSE: Duration = Duration::from_secs(2);
/// Tries of each read after a write was acknowledged.
const READ_ATTEMPTS: u32 = 5;

/// What a run was and what it found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Nodes of the cluster.
    pub node_count: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Processor time, the checks included; zero where the system does not tell it by thread.
    pub cpu: Duration,
    /// Hash of everything that happened.
    pub hash: u64,
    /// Events that the hash covers.
    pub event_count: u64,
    /// Requests that were answered.
    pub acknowledged: u64,
    /// Operations in the history.
    pub operation_count: u64,
    /// Leaders that were elected.
    pub elections: u64,
    /// Nodes that stopped by themselves.
    pub stop_count: u64,
    /// Faults by code: injected, observable.
    pub faults: BTreeMap<&'static str, (u64, u64)>,
    /// Probes hit.
    pub probes: BTreeMap<&'static str, u64>,
    /// What nodes sent each other until everything was healed.
    pub traffic: Sent,
    /// Time from healing until all replicas were equal.
    pub time_to_converge: Duration,
    /// How long each step after healing took, if the run was timed.
    pub recovery: Recovery,
    /// By what they became equal, in the masterless mode.
    pub mechanism: Option<Mechanism>,
    /// What it was held to.
    pub contract: Contract,
    /// Whether it did not serve in the end, where it may halt.
    pub is_halted: bool,
    /// What came of it that a quorum was healed first, if one was.
    pub alone: Alone,
    /// What was wrong.
    pub violation: Option<Violation>,
    /// The trace, if it was recorded.
    pub trace: Vec<String>,
    /// What the clients asked and were told.
    pub history: History,
    /// Which operation of the timetables each one of the history belongs to.
    pub names: BTreeMap<OpId, OperationId>,
    /// Operations that clients were ready for when they were due.
    pub asked: Vec<OperationId>,
    /// The faults as they were to be done, so that the run can be had again.
    pub struck: Vec<Fault>,
    /// What became of each of them.
    pub deeds: Vec<Deed>,
    /// What happened, if it was to be logged.
    pub log: Vec<LogEntry>,
}

/// What is to be kept of a run, besides its hash and its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// What the trace has lines of.
    pub trace: Record,
    /// Typed entries of what happened.
    pub log: bool,
}

/// Runs a seed: the ordinary scenario, in which the nemesis decides what goes wrong.
pub fn run(options: &Options, record: Record) -> Report {
    let keep = Keep { trace: record, log: false };
    run_case(&Case::drawn(options.clone()), keep)
}

/// Runs a case: the faults and operations that it lists, or those that its seed draws.
pub fn run_case(case: &Case, keep: Keep) -> Report {
    let faults = case.faults();
    let clients = 1..=u32::try_from(case.options.client_count).unwrap_or(u32::MAX);
    let load = clients.map(|client| Timetable::Listed(case.operations_of(client).into_iter()));
    let stage = Stage { case, keep, load: load.collect() };
    stage.play(async move |scene| fault_phase(scene, faults).await)
}

/// Runs a seed with a script in place of the nemesis; what follows is the same: healing,
/// convergence, service, a look at the disks, the judgement over the history.
pub fn direct(
    options: &Options,
    record: Record,
    script: impl AsyncFnOnce(&mut Scene) + Send + 'static,
) -> Report {
    let clients = 1..=u32::try_from(options.client_count).unwrap_or(u32::MAX);
    let load = clients.map(|client| Timetable::Drawn(Box::new(Drawn::new(options, client))));
    let case = Case::drawn(options.clone());
    let keep = Keep { trace: record, log: false };
    Stage { case: &case, keep, load: load.collect() }.play(script)
}

/// Everything that a run needs but its script.
struct Stage<'a> {
    case: &'a Case,
    keep: Keep,
    load: Vec<Timetable>,
}

/// What became of the faults so far, where a panic does not take it along.
type Done = Arc<Mutex<Deeds>>;

fn lock(done: &Done) -> MutexGuard<'_, Deeds> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage<'_> {
    fn world_options(&self, log: &Log) -> WorldOptions {
        let options = &self.case.options;
        WorldOptions {
            record: self.keep.trace,
            log: self.keep.log.then(|| log.clone()),
            decided: self.case.decided.clone(),
            reseed: self.case.reseed,
            net: options.calm_net(),
            disk: options.disk(),
            clock: options.clocks(),
        }
    }

    fn play(self, script: impl AsyncFnOnce(&mut Scene) + Send + 'static) -> Report {
        let (log, shared, done) = (Log::default(), Shared::new(), Done::default());
        let world_options = self.world_options(&log);
        let options = self.case.options.clone();
        let leaked = options.leak.map(|leak| (leak, foreign_number()));
        let (scene_options, load, is_timed) = (options.clone(), self.load, self.case.is_timed);
        let (scene_shared, scene_done) = (Arc::clone(&shared), Arc::clone(&done));
        let result = run_seed(options.seed, world_options, move |world| async move {
            planted::turn_on(scene_options.planted);
            mute::turn_on(scene_options.mute);
            let mut scene = Scene::new(&world, scene_options, scene_shared, scene_done, load).await;
            scene.is_timed = is_timed;
            if let Some((leak, number)) = leaked {
                let server = scene.cluster.server(1);
                match leak {
                    Leak::Event => world.trace(Some(server), "leak", (number, 0), String::new),
                    Leak::Disk => world.dirty_disk(server, number),
                }
            }
            script(&mut scene).await;
            let traffic = scene.world.traffic();
            let report = Report { traffic, ..Box::pin(scene.finish()).await };
            let report = Report { cpu: swarm::thread_cpu(), ..report };
            planted::turn_on(None);
            mute::turn_on(None);
            report
        });
        let report = result.unwrap_or_else(|failure| {
            let what = match &failure.location {
                Some(location) => format!("{} ({location})", failure.message),
                None => failure.message.clone(),
            };
            let at = u64::try_from(failure.at.as_nanos()).unwrap_or(u64::MAX);
            Report {
                simulated: failure.at,
                hash: failure.hash,
                event_count: failure.event_count,
                trace: failure.trace,
                violation: Some(Violation { checker: "assertion", what, at }),
                history: shared.history(),
                ..Report::empty(options.seed)
            }
        });
        let (struck, deeds) = lock(&done).told();
        Report {
            node_count: options.node_count,
            names: shared.names(),
            asked: shared.asked(),
            struck,
            deeds,
            log: log.take(),
            ..report
        }
    }
}

/// Returns a number that no seed decides: the standard library draws the keys of its hash tables
/// from the operating system.
fn foreign_number() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

impl Report {
    /// Returns the faults that were done, as far as they were, each with when, and what became of
    /// it: not one that the run ended before, nor one that had to be left out.
    pub fn faults_done(&self) -> impl Iterator<Item = (Duration, Fault, &Deed)> {
        let all = self.struck.iter().zip(&self.deeds);
        all.filter_map(|(fault, deed)| {
            let action = deed.instead.as_ref().unwrap_or(&fault.action).clone();
            Some((deed.done_at?, Fault { action, ..fault.clone() }, deed))
        })
    }

    pub(crate) fn empty(seed: u64) -> Self {
        Self {
            seed,
            node_count: 0,
            simulated: Duration::ZERO,
            cpu: Duration::ZERO,
            hash: 0,
            event_count: 0,
            acknowledged: 0,
            operation_count: 0,
            elections: 0,
            stop_count: 0,
            faults: BTreeMap::new(),
            probes: BTreeMap::new(),
            traffic: Sent::default(),
            time_to_converge: Duration::ZERO,
            recovery: Recovery::default(),
            mechanism: None,
            contract: Contract::MustSurvive,
            is_halted: false,
            alone: Alone::NotTried,
            violation: None,
            trace: Vec::new(),
            history: History::new(),
            names: BTreeMap::new(),
            asked: Vec::new(),
            struck: Vec::new(),
            deeds: Vec::new(),
            log: Vec::new(),
        }
    }
}

/// A cluster with clients that are at work, and what was found so far.
pub struct Scene {
    /// The world.
    pub world: World,
    /// The nodes, and what can be done to them.
    pub cluster: Cluster,
    /// What the run was told to be.
    pub options: Options,
    shared: Arc<Shared>,
    done: Done,
    violation: Option<Violation>,
    /// Whether it did not serve in the end.
    is_halted: bool,
    /// What came of a quorum that was healed first.
    alone: Alone,
    /// Whether a client asks from the moment of healing on.
    is_timed: bool,
    /// How long each step after healing took, if somebody asked.
    recovery: Recovery,
    /// How many things a script has done.
    performed: u32,
    /// When the disks of a masterless cluster are to be looked at next.
    next_look: Duration,
}

impl Scene {
    async fn new(
        world: &World,
        options: Options,
        shared: Arc<Shared>,
        done: Done,
        load: Vec<Timetable>,
    ) -> Self {
        let mut cluster = Cluster::new(world, &options);
        cluster.start().await;
        start_clients(world, &cluster, &options, &shared, load).await;
        let next_look = world.now() + LOOK_INTERVAL;
        Self {
            world: world.clone(),
            cluster,
            options,
            shared,
            done,
            violation: None,
            is_halted: false,
            alone: Alone::NotTried,
            is_timed: false,
            recovery: Recovery::default(),
            performed: 0,
            next_look,
        }
    }

    /// Lets time pass, in which the clients work and what is due is undone; returns early if a
    /// checker speaks.
    pub async fn pass(&mut self, length: Duration) {
        let end = self.world.now() + length;
        while self.violation.is_none() && self.world.now() < end {
            let mut wake = end.min(self.world.now() + WATCH_INTERVAL);
            if let Some(undo) = self.cluster.next_undo() {
                wake = wake.min(undo);
            }
            let sleep = self.world.sleep(wake.saturating_sub(self.world.now()));
            if self.cluster.awaits_leader() {
                select(pin!(self.cluster.watch().leader_comes()), pin!(sleep)).await;
            } else {
                sleep.await;
            }
            self.cluster.undo_due().await;
            self.violation = self.cluster.watch().violation();
            if self.options.masterless.is_some() && self.world.now() >= self.next_look {
                self.next_look = self.world.now() + LOOK_INTERVAL;
                self.look_at_disks().await;
            }
        }
    }

    /// Compares the disks of a masterless cluster with what was acknowledged so far.
    async fn look_at_disks(&mut self) {
        if self.violation.is_none() && self.contract() == Contract::MustSurvive {
            self.violation = self.phases().check_disks().await.err();
        }
    }

    /// Returns what the run is held to, by what has happened so far.
    fn contract(&self) -> Contract {
        self.cluster.atlas().contract()
    }

    fn phases(&mut self) -> Phases<'_> {
        let Self { world, cluster, options, shared, .. } = self;
        Phases { world, cluster, options, shared }
    }

    /// Returns who leads, after waiting for a leader that runs.
    ///
    /// # Panics
    /// If there is none for a minute: the scenario makes no sense then.
    pub async fn leader(&mut self) -> u64 {
        for _ in 0..CONVERGE_MAX.as_millis() / WATCH_INTERVAL.as_millis() {
            match self.cluster.watch().leader() {
                Some(leader) if self.world.is_running(self.cluster.server(leader.0)) => {
                    return leader.0;
                }
                _ => self.pass(WATCH_INTERVAL).await,
            }
        }
        panic!("nobody leads after {CONVERGE_MAX:?}");
    }

    /// Does one thing to the cluster; it is undone as time passes.
    pub async fn perform(&mut self, action: Action) {
        self.performed += 1;
        self.cluster.begin(self.performed);
        self.cluster.perform(action).await;
    }

    /// Lets the clients end after their present requests.
    pub fn stop_load(&self) {
        self.shared.stop();
    }

    /// Returns how many requests were answered so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged()
    }

    /// Heals everything, and judges the run.
    async fn finish(self) -> Report {
        if self.contract() != Contract::MustSurvive {
            return self.finish_beyond().await;
        }
        if self.options.masterless.is_some() {
            return self.finish_masterless().await;
        }
        self.finish_primary_backup().await
    }

    /// Heals everything of a cluster that has lost more than it can mend: it may serve or not, but
    /// what it answers is looked at.
    async fn finish_beyond(mut self) -> Report {
        let contract = self.contract();
        if self.violation.is_none() {
            self.shared.stop();
            self.cluster.heal().await;
            lock(&self.done).end(self.cluster.faults_ended_at());
            let is_served = self.ask_in_vain().await;
            self.pass(BEYOND_TIME).await;
            self.is_halted = !is_served.load(Ordering::Relaxed);
        }
        let violation = self.violation.take();
        let (history, told) = (self.shared.take_history(), self.shared.take_told());
        let violation = violation.or_else(|| match contract {
            Contract::MustSurvive | Contract::MayHalt => {
                let effects = self.cluster.watch().effects();
                exactly_once::check(&history, &effects)
                    .err()
                    .or_else(|| judge(&history))
                    .or_else(|| versions::check(&history, &told, &effects).err())
            }
            Contract::OutOfModel => client::check_phantoms(&history).err(),
        });
        self.report(history, violation, Duration::ZERO)
    }

    /// Lets a client write, and read everything again and again, if anybody answers; tells later
    /// whether a write was acknowledged.
    async fn ask_in_vain(&self) -> Arc<AtomicBool> {
        let host = self.world.add_client("reader");
        let (addresses, options, shared) =
            (self.cluster.addresses(), self.options.clone(), Arc::clone(&self.shared));
        let clock = clock(&self.world);
        let is_served = Arc::new(AtomicBool::new(false));
        let served = Arc::clone(&is_served);
        let main = move |env| async move {
            let client = Helper::Reader.client();
            let mut reader = ClientProcess::new(&env, client, addresses, &options, &shared, clock);
            // First what is there: a write can only hide what was lost.
            reader.read_everything(1).await;
            let mut is_served = reader.set_one().await;
            served.store(is_served, Ordering::Relaxed);
            // Once is not enough: both give up where nobody answers yet.
            for _ in 0..BEYOND_TIME.as_millis() / BEYOND_PAUSE.as_millis() {
                reader.read_everything(1).await;
                if !is_served {
                    is_served = reader.set_one().await;
                    served.store(is_served, Ordering::Relaxed);
                }
                reader.pause(BEYOND_PAUSE).await;
            }
            std::future::pending::<()>().await;
        };
        self.world.start(host, main).await;
        is_served
    }

    async fn finish_masterless(mut self) -> Report {
        let (mut time_to_converge, mut converged_at) = (Duration::ZERO, None);
        if self.violation.is_none() {
            self.violation = self.phases().check_hints().await.err();
        }
        self.try_quorum_alone().await;
        if self.violation.is_none() {
            let asker = self.heal().await;
            match self.phases().finish(asker.as_ref()).await {
                Ok(ending) => {
                    time_to_converge = ending.time_to_converge;
                    converged_at = Some(ending.converged_at);
                    self.note_recovery(asker.as_ref(), time_to_converge);
                }
                Err(found) => self.violation = Some(found),
            }
        }
        // Clients may still be at work, and go on recording while the disks are looked at.
        let history = self.shared.history();
        let violation = self.violation.take().or_else(|| self.cluster.watch().violation());
        let violation = match violation {
            Some(violation) => Some(violation),
            None => self.phases().judge(&history, converged_at).await.err(),
        };
        self.report(history, violation, time_to_converge)
    }

    async fn finish_primary_backup(mut self) -> Report {
        let mut time_to_converge = Duration::ZERO;
        self.try_quorum_alone().await;
        if self.violation.is_none() {
            let asker = self.heal().await;
            match self.liveness_phase(asker.as_ref()).await {
                Ok(time) => {
                    time_to_converge = time;
                    self.note_recovery(asker.as_ref(), time);
                }
                Err(found) => self.violation = Some(found),
            }
        }
        let mut violation = self.violation.take().or_else(|| self.cluster.watch().violation());
        let mut disks = None;
        if violation.is_none() {
            match self.cluster.check_disks(&self.shared.acknowledged_writes()).await {
                Ok(found) => disks = Some(found),
                Err(found) => violation = Some(found),
            }
        }
        let (history, effects) = (self.shared.take_history(), self.cluster.watch().effects());
        let told = self.shared.take_told();
        // Those that say more of the cause come first: what nobody wrote took effect nowhere.
        let violation = violation
            .or_else(|| exactly_once::check(&history, &effects).err())
            .or_else(|| judge(&history))
            .or_else(|| versions::check(&history, &told, &effects).err());
        let mut report = self.report(history, violation, time_to_converge);
        if let Some(disks) = disks.filter(|_| report.violation.is_none()) {
            report.violation = disks.check_contents().err();
            // The paths that the checker's own state machines took are none of the nodes'.
            drop(probe::take());
        }
        report
    }

    fn report(
        self,
        history: History,
        violation: Option<Violation>,
        time_to_converge: Duration,
    ) -> Report {
        let (contract, is_halted, alone) = (self.contract(), self.is_halted, self.alone);
        let Self { world, cluster, options, shared, recovery, .. } = self;
        Report {
            contract,
            is_halted,
            alone,
            simulated: world.now(),
            hash: world.trace_hash(),
            event_count: world.event_count(),
            acknowledged: shared.acknowledged(),
            operation_count: u64::try_from(history.ops().len()).unwrap_or(u64::MAX),
            elections: cluster.watch().election_count(),
            stop_count: cluster.stop_count(),
            faults: world.fault_counts(),
            probes: probe::take(),
            time_to_converge,
            recovery,
            mechanism: options.masterless.as_ref().map(|masterless| masterless.mechanism),
            violation,
            trace: world.take_trace(),
            history,
            ..Report::empty(options.seed)
        }
    }
}

async fn start_clients(
    world: &World,
    cluster: &Cluster,
    options: &Options,
    shared: &Arc<Shared>,
    load: Vec<Timetable>,
) {
    for ((client, host), timetable) in (1..).zip(cluster.clients()).zip(load) {
        let (addresses, options, shared) =
            (cluster.addresses(), options.clone(), Arc::clone(shared));
        let clock = clock(world);
        let main = move |env| async move {
            let process = ClientProcess::new(&env, client, addresses, &options, &shared, clock);
            process.run(timetable).await;
            // The machine stays up, so that late answers have somewhere to go.
            std::future::pending::<()>().await;
        };
        world.start(*host, main).await;
    }
}

/// Returns the clock of the run, for histories.
pub(crate) fn clock(world: &World) -> Arc<dyn Fn() -> u64 + Send + Sync> {
    let world = world.clone();
    Arc::new(move || u64::try_from(world.now().as_nanos()).unwrap_or(u64::MAX))
}

/// Does the faults, each at its time, until the time is over or a checker speaks.
async fn fault_phase(scene: &mut Scene, faults: Vec<Fault>) {
    let end = scene.options.fault_phase;
    for fault in faults {
        // Also if it is never reached: until then the run looks at itself as it will again.
        lock(&scene.done).await_fault(fault.clone());
        let now = scene.world.now();
        scene.pass(fault.at.min(end).saturating_sub(now)).await;
        if scene.violation.is_some() {
            return;
        }
        if scene.cluster.wants_quiet() {
            continue;
        }
        let leader = scene.cluster.watch().leader().map(|leader| leader.0);
        let fault = fault.resolved(leader);
        lock(&scene.done).begin(fault.clone(), scene.world.now());
        scene.cluster.begin(fault.id.0);
        let did = scene.cluster.perform(fault.action).await;
        lock(&scene.done).came_to(did);
    }
    let now = scene.world.now();
    scene.pass(end.saturating_sub(now)).await;
}

impl Scene {
    /// Ends the load, and lets a quorum serve alone, in runs in which one is healed first. What is
    /// timed is how a whole cluster comes back.
    async fn try_quorum_alone(&mut self) {
        let is_first = self.options.healing != Healing::AtOnce && !self.is_timed;
        if self.violation.is_some() || !is_first {
            return;
        }
        self.shared.stop();
        let outcome = serve_alone(&mut self.phases()).await;
        lock(&self.done).end(self.cluster.faults_ended_at());
        match outcome {
            Ok(alone) => self.alone = alone,
            Err(found) => self.violation = Some(found),
        }
    }

    /// Ends the load and all faults; in a run that is timed somebody asks from then on.
    async fn heal(&mut self) -> Option<Asker> {
        self.shared.stop();
        if self.is_timed {
            // Nobody can end a stall before its time: what goes wrong would go on after healing.
            self.world.sleep(self.world.stall_left()).await;
        }
        self.cluster.heal().await;
        lock(&self.done).end(self.cluster.faults_ended_at());
        if !self.is_timed {
            return None;
        }
        let addresses = self.cluster.addresses();
        Some(Asker::start(&self.world, addresses, &self.options, &self.shared).await)
    }

    fn note_recovery(&mut self, asker: Option<&Asker>, time_to_converge: Duration) {
        let Some(asker) = asker else { return };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let reign = self.cluster.watch().reign();
        self.recovery = Recovery {
            leader_ns: reign.map(|reign| nanos(reign.since.saturating_sub(asker.healed_at()))),
            serve_ns: asker.answered_after().map(nanos),
            converge_ns: Some(nanos(time_to_converge)),
        };
    }

    /// After healing: a leader, equal replicas, an acknowledged write, every cell readable.
    async fn liveness_phase(&mut self, asker: Option<&Asker>) -> Result<Duration, Violation> {
        let Self { world, cluster, options, shared, .. } = self;
        let healed = world.now();
        let now = |world: &World| u64::try_from(world.now().as_nanos()).unwrap_or(u64::MAX);
        let poll = if asker.is_some() { CONVERGE_POLL.1 } else { CONVERGE_POLL.0 };
        let time_to_converge = loop {
            world.sleep(poll).await;
            cluster.undo_due().await;
            if let Some(violation) = cluster.watch().violation() {
                return Err(violation);
            }
            let commit = cluster.watch().commit_max();
            let applied = cluster.watch().applied();
            let is_answered = asker.is_none_or(Asker::is_answered);
            if is_answered
                && cluster.all_run()
                && cluster.watch().leader().is_some()
                && applied.values().all(|index| *index >= commit)
            {
                break world.now().saturating_sub(healed);
            }
            if world.now().saturating_sub(healed) > CONVERGE_MAX {
                let what =
                    format!("committed {commit}, applied {applied:?} after {CONVERGE_MAX:?}");
                return broken("liveness", now(world), what).map(|()| CONVERGE_MAX);
            }
        };
        let host = world.add_client("reader");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (addresses, options, shared) =
            (cluster.addresses(), options.clone(), Arc::clone(shared));
        let clock = clock(world);
        let main = move |env| async move {
            let client = Helper::Reader.client();
            let mut reader = ClientProcess::new(&env, client, addresses, &options, &shared, clock);
            let served = reader.serve_after(healed).await;
            let answer = match (served, reader.read_everything(READ_ATTEMPTS).await) {
                (true, true) => Ok(()),
                (false, _) => Err("no write is acknowledged in time after healing"),
                (true, false) => Err("not every cell can be read after healing"),
            };
            // The run may have ended.
            sender.send(answer).ok();
        };
        world.start(host, main).await;
        match receiver.await {
            Ok(Ok(())) => Ok(time_to_converge),
            Ok(Err(what)) => {
                broken("liveness", now(world), what.to_owned()).map(|()| time_to_converge)
            }
            Err(_) => broken("liveness", now(world), "the reader died".to_owned())
                .map(|()| time_to_converge),
        }
    }
}

/// Asks the checkers that need the whole history.
fn judge(history: &History) -> Option<Violation> {
    client::check(history).err().or_else(|| linearizable::require(history).err())
}
