//! One run: a cluster, a load and a nemesis; then healing, and the judgement.
//!
//! ```text
//! faults ──► heal everything ──► converge ──► serve ──► read everything ──► power off, look at
//!   load ──────────────────────►                                            the disks ──► check
//! ```
//! *Safety* is checked at every step and at the end; *liveness* only after healing: a leader, an
//! acknowledged write and equal replicas must come within a bounded time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mangrove::base::{planted, probe};

use crate::check::Violation;
use crate::check::{client, linearizable};
use crate::cluster::Cluster;
use crate::history::History;
use crate::nemesis::Nemesis;
use crate::options::Options;
use crate::workload::{ClientProcess, Shared};
use crate::world::{ClockOptions, World, WorldOptions, run_seed};

/// Longest time after healing until every replica has applied everything.
const CONVERGE_MAX: Duration = Duration::from_secs(60);
/// Tries of a write after convergence.
const SERVE_ATTEMPTS: u32 = 5;
/// Pause after each of them: a node notices only after a while that its disk has space again.
const SERVE_PAUSE: Duration = Duration::from_millis(200);

/// What a run was and what it found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Simulated time.
    pub simulated: Duration,
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
    /// Time from healing until all replicas were equal.
    pub time_to_converge: Duration,
    /// What was wrong.
    pub violation: Option<Violation>,
    /// The trace, if it was recorded.
    pub trace: Vec<String>,
    /// What the clients asked and were told.
    pub history: History,
}

/// Runs a seed with its own options.
pub fn run(options: &Options, record_trace: bool) -> Report {
    let world_options = WorldOptions {
        record_trace,
        clock: if options.faults.clock {
            ClockOptions {
                wall_offset_max: Duration::from_secs(60),
                drift_ppb_max: 10_000_000,
                timer_late_max: Duration::from_millis(1),
            }
        } else {
            ClockOptions::default()
        },
        ..WorldOptions::default()
    };
    let scenario_options = options.clone();
    let result = run_seed(options.seed, world_options, move |world| async move {
        planted::turn_on(scenario_options.planted);
        let report = scenario(&world, &scenario_options).await;
        planted::turn_on(None);
        report
    });
    match result {
        Ok(report) => report,
        Err(failure) => {
            let what = match &failure.location {
                Some(location) => format!("{} ({location})", failure.message),
                None => failure.message.clone(),
            };
            let violation = Violation { checker: "assertion", what, at: 0 };
            Report { violation: Some(violation), ..Report::empty(options.seed) }
        }
    }
}

impl Report {
    fn empty(seed: u64) -> Self {
        Self {
            seed,
            simulated: Duration::ZERO,
            hash: 0,
            event_count: 0,
            acknowledged: 0,
            operation_count: 0,
            elections: 0,
            stop_count: 0,
            faults: BTreeMap::new(),
            probes: BTreeMap::new(),
            time_to_converge: Duration::ZERO,
            violation: None,
            trace: Vec::new(),
            history: History::new(),
        }
    }
}

async fn scenario(world: &World, options: &Options) -> Report {
    let mut cluster = Cluster::new(world, options);
    cluster.start().await;
    let shared = Shared::new(options);
    start_clients(world, &cluster, options, &shared).await;
    let mut violation = fault_phase(world, &mut cluster, options).await;
    let mut time_to_converge = Duration::ZERO;
    if violation.is_none() {
        shared.stop();
        cluster.heal().await;
        match liveness_phase(world, &mut cluster, options, &shared).await {
            Ok(time) => time_to_converge = time,
            Err(found) => violation = Some(found),
        }
    }
    let mut violation = violation.or_else(|| cluster.watch().violation());
    if violation.is_none() {
        violation = cluster.check_disks(&shared.acknowledged_writes()).await;
    }
    let history = shared.take_history();
    let violation = violation.or_else(|| judge(&history));
    Report {
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
        violation,
        trace: world.take_trace(),
        history,
        ..Report::empty(options.seed)
    }
}

async fn start_clients(world: &World, cluster: &Cluster, options: &Options, shared: &Arc<Shared>) {
    for host in cluster.clients() {
        let (addresses, options, shared) = (cluster.addresses(), options.clone(), Arc::clone(shared));
        let clock = clock(world);
        let main = move |env| async move {
            ClientProcess::new(&env, addresses, &options, &shared, clock).run().await;
            // The machine stays up, so that late answers have somewhere to go.
            std::future::pending::<()>().await;
        };
        world.start(*host, main).await;
    }
}

fn clock(world: &World) -> Arc<dyn Fn() -> u64 + Send + Sync> {
    let world = world.clone();
    Arc::new(move || u64::try_from(world.now().as_nanos()).unwrap_or(u64::MAX))
}

/// Lets the nemesis loose until its time is over or a checker speaks.
async fn fault_phase(
    world: &World,
    cluster: &mut Cluster,
    options: &Options,
) -> Option<Violation> {
    let mut nemesis = Nemesis::new(options);
    let end = world.now() + options.fault_phase;
    let mut next_fault = world.now() + nemesis.draw_pause();
    while world.now() < end {
        let mut wake = next_fault.min(end).min(world.now() + Duration::from_millis(250));
        if let Some(undo) = cluster.next_undo() {
            wake = wake.min(undo);
        }
        world.sleep(wake.saturating_sub(world.now())).await;
        cluster.undo_due().await;
        if let Some(violation) = cluster.watch().violation() {
            return Some(violation);
        }
        if world.now() >= next_fault {
            next_fault = world.now() + nemesis.draw_pause();
            if cluster.wants_quiet() {
                continue;
            }
            if let Some(action) = nemesis.draw() {
                cluster.perform(action).await;
            }
        }
    }
    None
}

/// After healing: a leader, equal replicas, an acknowledged write, every cell readable.
async fn liveness_phase(
    world: &World,
    cluster: &mut Cluster,
    options: &Options,
    shared: &Arc<Shared>,
) -> Result<Duration, Violation> {
    let healed = world.now();
    let now = |world: &World| u64::try_from(world.now().as_nanos()).unwrap_or(u64::MAX);
    let broken = |what: String, at| Violation { checker: "liveness", what, at };
    let time_to_converge = loop {
        world.sleep(Duration::from_millis(50)).await;
        cluster.undo_due().await;
        if let Some(violation) = cluster.watch().violation() {
            return Err(violation);
        }
        let commit = cluster.watch().commit_max();
        let mut applied = cluster.watch().applied();
        applied.retain(|node, _| !cluster.may_halt(node.0));
        if cluster.watch().leader().is_some() && applied.values().all(|index| *index >= commit) {
            break world.now() - healed;
        }
        if world.now() - healed > CONVERGE_MAX {
            let what = format!("committed {commit}, applied {applied:?} after {CONVERGE_MAX:?}");
            return Err(broken(what, now(world)));
        }
    };
    let host = world.add_client("reader");
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (addresses, options, shared) = (cluster.addresses(), options.clone(), Arc::clone(shared));
    let clock = clock(world);
    let main = move |env| async move {
        let mut reader = ClientProcess::new(&env, addresses, &options, &shared, clock);
        let mut served = false;
        for _ in 0..SERVE_ATTEMPTS {
            served = served || reader.set_one().await;
            reader.pause(SERVE_PAUSE).await;
        }
        let answer = match (served, reader.read_everything(SERVE_ATTEMPTS).await) {
            (true, true) => Ok(()),
            (false, _) => Err("no write is acknowledged after healing"),
            (true, false) => Err("not every cell can be read after healing"),
        };
        // The run may have ended.
        sender.send(answer).ok();
    };
    world.start(host, main).await;
    match receiver.await {
        Ok(Ok(())) => Ok(time_to_converge),
        Ok(Err(what)) => Err(broken(what.to_owned(), now(world))),
        Err(_) => Err(broken("the reader died".to_owned(), now(world))),
    }
}

/// Asks the checkers that need the whole history.
fn judge(history: &History) -> Option<Violation> {
    client::check(history).err().or_else(|| linearizable::require(history).err())
}
