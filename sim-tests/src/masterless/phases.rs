//! What a masterless run does besides letting the nemesis loose: looks at the disks meanwhile, and
//! the end of it.
//!
//! ```text
//! faults, with looks at the disks ──► hints accounted for? ──► (heal a quorum ──► it serves)
//!   ──► heal ──► equal, by one mechanism ──► serve ──► read everything ──► look at the disks
//!   ──► judge
//! ```
//! What is in brackets is told in [`healing`](crate::healing), and happens in some runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mangrove::base::NodeId;
use mangrove::dynamo::Level;
use mangrove::dynamo::config::CLOCK_AHEAD_MAX;

use super::disks::{self, Look};
use super::options::{Mechanism, Options as MasterlessOptions};
use crate::check::masterless::hint_accounting::{Coordinator, Inquiry};
use crate::check::masterless::{
    Lead, Ledger, Loss, Setting, Unnoticed, check_healed, check_history, convergence, durability,
    hint_accounting,
};
use crate::check::{Violation, broken};
use crate::cluster::Cluster;
use crate::history::History;
use crate::liveness::Asker;
use crate::nemesis::MASTERLESS_JUMPS_MAX_MS;
use crate::options::Options;
use crate::run::clock;
use crate::workload::{ClientProcess, Helper, SERVE_PAUSE, Shared};
use crate::world::{EPOCH_MS, Fault, World};

/// Longest time after healing until the replicas are equal: that of the slowest mechanism, with
/// the takeover of batches and a steward's rounds in it, and as much again.
const CONVERGE_MAX: Duration = Duration::from_mins(1);
/// First and longest pause between two looks at whether they are.
const CONVERGE_POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Age from which on an acknowledged write must be accounted for: the longest that a fault holds a
/// coordinator's disk up, and what the coordinator takes after that. First while faults go on, when
/// one may follow the other, then when they are over.
const HINT_DEADLINES: [Duration; 2] = [Duration::from_secs(25), Duration::from_secs(15)];
/// Most that a clock of the run is off besides its jumps, drift included, and that restarts put
/// stamps ahead.
const CLOCKS_OFF: Duration = Duration::from_mins(15);
/// Tries of each read.
const READ_ATTEMPTS: u32 = 10;

/// A run, as its last phases see it.
pub struct Phases<'a> {
    /// The world.
    pub world: &'a World,
    /// The nodes.
    pub cluster: &'a mut Cluster,
    /// What the run was told to be.
    pub options: &'a Options,
    /// What the clients have recorded.
    pub shared: &'a Arc<Shared>,
}

/// What the end of a run came to.
#[derive(Debug)]
pub struct Ending {
    /// Time from healing until the replicas were equal.
    pub time_to_converge: Duration,
    /// Position in the history when they were.
    pub converged_at: u32,
}

impl Phases<'_> {
    fn masterless(&self) -> &MasterlessOptions {
        match &self.options.masterless {
            Some(masterless) => masterless,
            None => panic!("seed {} is of the primary-backup mode", self.options.seed),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.world.now().as_nanos()).unwrap_or(u64::MAX)
    }

    fn replicas(&self) -> u32 {
        let nodes = usize::try_from(self.options.node_count).unwrap_or(usize::MAX);
        let count = self.masterless().replication_factor.min(nodes);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// What disks have lost, if the replicas were equal at event `equal_at`.
    fn loss(&self, history: &History, equal_at: u32) -> Loss {
        let atlas = self.cluster.atlas();
        let lost_at = atlas.unnoticed_until().map_or(u32::MAX, |at| {
            history.first_after(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX))
        });
        let unnoticed = |node| Unnoticed { node: NodeId(node), lost_at, equal_at };
        Loss {
            noticed: atlas.has_noticed().then_some(equal_at),
            unnoticed: atlas.unnoticed().map(unnoticed),
        }
    }

    /// What the promises depend on, if the replicas were equal at event `equal_at`.
    fn setting(&self, history: &History, equal_at: u32) -> Setting {
        let lead_ms_max =
            CLOCKS_OFF + Duration::from_millis(MASTERLESS_JUMPS_MAX_MS.unsigned_abs());
        let lead_ms_max = lead_ms_max + CLOCK_AHEAD_MAX;
        let lead = Lead {
            begin_ms: EPOCH_MS,
            lead_ms_max: u64::try_from(lead_ms_max.as_millis()).unwrap_or(u64::MAX),
        };
        // A clock of one has nobody to be compared with.
        let lead = if self.options.node_count > 1 { lead } else { Lead::ANY };
        Setting { replicas: self.replicas(), loss: self.loss(history, equal_at), lead }
    }

    async fn look(&self) -> Result<Look, Violation> {
        let Some(placement) = self.cluster.placement() else { panic!("no placement") };
        let excused = |node| self.cluster.atlas().has_lost(node);
        disks::look(self.cluster, &placement, excused).await.map_err(|(node, what)| {
            let what = format!("the disk of node {node} cannot be recovered: {what}");
            Violation { checker: "durability", what, at: self.now_ns() }
        })
    }

    /// Returns the nodes that lack nothing, and would not if the worst came to all disks now.
    pub async fn whole_nodes(&self) -> Result<BTreeSet<u64>, Violation> {
        let look = self.look().await?;
        let is_whole = |node: &u64| {
            let id = NodeId(*node);
            let has_lost = self.cluster.atlas().has_lost(*node) || look.damaged.contains(&id);
            !has_lost && self.cluster.watch().was_whole(id)
        };
        Ok(self.cluster.nodes().filter(is_whole).collect())
    }

    /// Compares the disks with what was acknowledged so far.
    pub async fn check_disks(&self) -> Result<(), Violation> {
        // First the history: what is acknowledged while the disks are looked at comes later.
        let history = self.shared.history();
        let look = self.look().await?;
        let mut ledger = Ledger::new(&history, self.setting(&history, u32::MAX));
        ledger.learn(&look.stores);
        let may_miss = self.cluster.atlas().has_noticed() || !look.damaged.is_empty();
        let missing = u32::from(may_miss);
        durability::check(&ledger, &look.stores, self.now_ns(), missing)?;
        self.check_hints_of(&ledger, &look, HINT_DEADLINES[0])
    }

    /// Asks, before anything is healed, whether whoever missed a write is owed a hint.
    pub async fn check_hints(&self) -> Result<(), Violation> {
        let history = self.shared.history();
        let look = self.look().await?;
        let ledger = Ledger::new(&history, self.setting(&history, u32::MAX));
        self.check_hints_of(&ledger, &look, HINT_DEADLINES[1])
    }

    fn check_hints_of(
        &self,
        ledger: &Ledger<'_>,
        look: &Look,
        deadline: Duration,
    ) -> Result<(), Violation> {
        // A disk without space has no space for hints either.
        if !self.masterless().repair.hints || was_full(self.world) {
            return Ok(());
        }
        let losers = self.cluster.nodes().filter(|node| self.cluster.atlas().has_lost(*node));
        let forgetful: BTreeSet<NodeId> = losers.map(NodeId).collect();
        let coordinators: BTreeMap<NodeId, Coordinator> = self
            .cluster
            .nodes()
            .filter(|node| !forgetful.contains(&NodeId(*node)))
            .map(|node| (NodeId(node), self.coordinator(node)))
            .collect();
        let deadline_ns = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        let inquiry = Inquiry { at: self.now_ns(), deadline_ns, coordinators, forgetful };
        hint_accounting::check(ledger, &look.stores, &inquiry)
    }

    fn coordinator(&self, node: u64) -> Coordinator {
        let up_since = self.cluster.up_since(node);
        Coordinator {
            running_since_ns: up_since
                .map(|since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
            dropped: self.cluster.watch().hints_dropped(NodeId(node)),
        }
    }

    /// After healing: equal replicas, an acknowledged write, every cell readable. Replicas are not
    /// equal before whoever asks has been answered.
    pub async fn finish(&mut self, asker: Option<&Asker>) -> Result<Ending, Violation> {
        let is_read = Arc::new(AtomicBool::new(false));
        if self.masterless().mechanism == Mechanism::Reads {
            self.start_reading(Arc::clone(&is_read)).await;
        }
        let healed = self.world.now();
        let time_to_converge = self.wait_until_equal(asker).await?;
        let converged_at = self.shared.event_count();
        self.serve(healed).await?;
        // It wrote something, which one replica may not have got yet; and what a client had asked
        // for in vain may have been written late.
        self.wait_until_equal(None).await?;
        is_read.store(true, Ordering::Relaxed);
        Ok(Ending { time_to_converge, converged_at })
    }

    async fn wait_until_equal(&mut self, asker: Option<&Asker>) -> Result<Duration, Violation> {
        let healed = self.world.now();
        let (mut pause, pause_max) = CONVERGE_POLL;
        loop {
            self.world.sleep(pause).await;
            pause = (pause * 11 / 10).min(pause_max);
            self.cluster.undo_due().await;
            if let Some(violation) = self.cluster.watch().violation() {
                return Err(violation);
            }
            let look = self.look().await?;
            let equal = convergence::check(&look.stores, self.now_ns());
            let waited = self.world.now().saturating_sub(healed);
            let is_answered = asker.is_none_or(Asker::is_answered);
            if equal.is_ok() && look.is_settled() && self.cluster.all_run() && is_answered {
                return Ok(waited);
            }
            if waited > CONVERGE_MAX {
                let mechanism = self.masterless().mechanism.name();
                let what = match equal {
                    Err(violation) => violation.what,
                    Ok(()) if look.is_settled() => "no write is acknowledged".to_owned(),
                    Ok(()) => format!(
                        "{} batches are open, damaged: {:?}",
                        look.batch_count, look.damaged
                    ),
                };
                let what = format!("{CONVERGE_MAX:?} after healing, by {mechanism}: {what}");
                return broken("convergence_time", self.now_ns(), what).map(|()| waited);
            }
        }
    }

    /// Lets a client read every cell again and again, until told that it is enough.
    async fn start_reading(&self, enough: Arc<AtomicBool>) {
        let host = self.world.add_client("repairer");
        let (addresses, options, shared) =
            (self.cluster.addresses(), self.options.clone(), Arc::clone(self.shared));
        let clock = clock(self.world);
        let main = move |env| async move {
            let client = Helper::Repairer.client();
            let mut reader = ClientProcess::new(&env, client, addresses, &options, &shared, clock);
            reader.ask_at(Level::Quorum);
            while !enough.load(Ordering::Relaxed) {
                reader.read_everything(READ_ATTEMPTS).await;
                reader.pause(SERVE_PAUSE).await;
            }
            std::future::pending::<()>().await;
        };
        self.world.start(host, main).await;
    }

    /// Demands a write, in time after `healed`, and all reads, of a quorum and of all replicas.
    async fn serve(&self, healed: Duration) -> Result<(), Violation> {
        let host = self.world.add_client("reader");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (addresses, options, shared) =
            (self.cluster.addresses(), self.options.clone(), Arc::clone(self.shared));
        let clock = clock(self.world);
        let main = move |env| async move {
            let client = Helper::Reader.client();
            let mut reader = ClientProcess::new(&env, client, addresses, &options, &shared, clock);
            let served = reader.serve_after(healed).await;
            reader.ask_at(Level::Quorum);
            let is_read = reader.read_everything(READ_ATTEMPTS).await;
            reader.ask_at(Level::All);
            let is_read = is_read && reader.read_everything(READ_ATTEMPTS).await;
            let answer = match (served, is_read) {
                (true, true) => Ok(()),
                (false, _) => Err("no write is acknowledged in time after healing"),
                (true, false) => Err("not every cell can be read after healing"),
            };
            // The run may have ended.
            sender.send(answer).ok();
        };
        self.world.start(host, main).await;
        let what = match receiver.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(what)) => what,
            Err(_) => "the reader died",
        };
        broken("liveness", self.now_ns(), what.to_owned())
    }

    /// Judges the run: the disks as they are in the end, and the whole history. `converged_at` is
    /// `None` if the run was ended by a violation before.
    pub async fn judge(
        &self,
        history: &History,
        converged_at: Option<u32>,
    ) -> Result<(), Violation> {
        let setting = self.setting(history, converged_at.unwrap_or(u32::MAX));
        let mut ledger = Ledger::new(history, setting);
        if converged_at.is_none() {
            return check_history(&ledger);
        }
        let look = self.look().await?;
        check_history(&ledger)?;
        ledger.learn(&look.stores);
        check_healed(&ledger, &look.stores, self.now_ns())
    }
}

/// Tells whether a disk of the run has refused something for want of space.
fn was_full(world: &World) -> bool {
    let counts = world.fault_counts();
    counts.get(Fault::D8.code()).is_some_and(|(injected, _)| *injected > 0)
}

#[cfg(test)]
mod tests {
    use mangrove::env::{Disk as _, Env as _};

    use super::*;
    use crate::world::{WorldOptions, run_seed};

    #[test]
    fn disk_is_full_once_it_refuses_something_and_was_full_ever_after() {
        let result = run_seed(1, WorldOptions::default(), |world| async move {
            let host = world.add_server("n1");
            world.start(host, |_| std::future::pending()).await;
            let env = world.env(host).unwrap();
            world.change_disk(host, |disk| disk.quota_bytes = Some(0));
            assert!(!was_full(&world), "nobody wanted space");
            assert!(env.disk().create("hints").await.is_err());
            assert!(was_full(&world));
            world.change_disk(host, |disk| disk.quota_bytes = None);
            assert!(env.disk().create("hints").await.is_ok());
            assert!(was_full(&world), "there may be less hints than there were to be");
        });
        result.unwrap_or_else(|failure| panic!("{failure}"));
    }
}
