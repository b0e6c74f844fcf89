//! A cluster of nodes in a world, and what the nemesis does to it.
//!
//! Nodes are numbered from 1. A node is *wanted up* unless the nemesis has taken it down; one that
//! stops by itself (its disk failed) is started again after a while, as an operator's supervisor
//! would do it.
//!
//! `faults` does what goes wrong, `topple` what happens to leaders, `disks` looks at what they
//! leave behind, and `quorum` heals some nodes without the others. What is to be undone is kept
//! with its time, and whoever lets time pass calls [`Cluster::undo_due`] when the next is due.

mod disks;
mod faults;
mod quorum;
mod topple;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mangrove::base::{ClusterId, Index, NodeId, Rng};
use mangrove::dynamo::{self, Placement};
use mangrove::replica::{Masterless, NodeConfig, Replication, SyncPolicy};
use mangrove::server;

pub use self::disks::Disks;
pub(crate) use self::disks::unprobed;
use self::topple::Toppling;
use crate::atlas::Atlas;
use crate::masterless;
use crate::options::{Mode, Options};
use crate::watch::{NodeWatch, Watch};
use crate::world::{Fault, Host, KeptDisk, PowerLoss, SimEnv, World};

/// The cluster that the nodes believe in.
const CLUSTER: ClusterId = ClusterId(0x6d61_6e67_726f_7665);
/// The port of every node.
const PORT: u16 = 7000;
/// Pause before a node that stopped by itself is started again.
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(500);

/// Something to be undone later.
#[derive(Debug, Clone)]
enum Undo {
    Start(u64),
    CrashAgain(u64, Vec<Duration>),
    Resume(u64),
    Unblock(Vec<(Host, Host)>),
    Unclog(Vec<(Host, Host)>),
    Clog(u64),
    UnclogNode(u64),
    Weather,
    DiskSpeed(u64),
    DiskSpace(u64),
    DiskErrors(u64),
    PowerAfterLie(u64),
    /// Crashes a leader, to be started again after that time.
    Topple(u64, Duration),
    /// Takes the power of a leader that nobody heard, to be started again after that time.
    ToppleUnheard(u64, Duration),
    /// Sets a wall clock by so many milliseconds.
    Clock(u64, i64),
    /// Takes a node down and puts its old disk back; it starts after that time.
    OldDisk(u64, KeptDisk, Duration),
}

impl Undo {
    /// Tells whether there is nothing to be undone: all nodes were on one side of a partition.
    fn is_of_nothing(&self) -> bool {
        match self {
            Self::Unblock(links) | Self::Unclog(links) => links.is_empty(),
            Self::Start(_)
            | Self::CrashAgain(..)
            | Self::Resume(_)
            | Self::Clog(_)
            | Self::UnclogNode(_)
            | Self::Weather
            | Self::DiskSpeed(_)
            | Self::DiskSpace(_)
            | Self::DiskErrors(_)
            | Self::PowerAfterLie(_)
            | Self::Topple(..)
            | Self::ToppleUnheard(..)
            | Self::Clock(..)
            | Self::OldDisk(..) => false,
        }
    }
}

/// What the harness knows of the processes.
#[derive(Debug, Default)]
struct Processes {
    /// Why a node's process ended, for those that ended by themselves.
    ended: BTreeMap<u64, String>,
    /// Nodes that have not recovered yet.
    recovering: BTreeMap<u64, bool>,
    /// How often a node stopped by itself.
    stop_count: u64,
}

/// See the [module](self).
pub struct Cluster {
    world: World,
    options: Options,
    servers: Vec<Host>,
    clients: Vec<Host>,
    watch: Arc<Watch>,
    processes: Arc<Mutex<Processes>>,
    undo: BTreeMap<(Duration, u64), Undo>,
    undo_count: u64,
    down: BTreeMap<u64, bool>,
    paused: BTreeMap<u64, bool>,
    rot: Rng,
    lying: bool,
    /// The node that was lied to, and the entry up to which the others must refill it, or tell it
    /// that it lacks something.
    refilling: Option<(u64, Index)>,
    /// Nodes that were lied to, and the entry up to which each lacks what it acknowledged until it
    /// knows it to be committed; `None` while it has not lost it yet.
    lied_to: BTreeMap<u64, Option<Index>>,
    /// Nodes that have got a new disk.
    exchanged: BTreeMap<u64, bool>,
    atlas: Atlas,
    /// Since when each node has been up without a break.
    up_since: BTreeMap<u64, Duration>,
    keeping: bool,
    /// When all faults were ended first, if they were.
    faults_ended_at: Option<Duration>,
    toppling: Option<Toppling>,
}

impl Cluster {
    /// Makes the machines; nothing runs yet.
    pub fn new(world: &World, options: &Options) -> Self {
        let servers = (1..=options.node_count).map(|node| world.add_server(&format!("n{node}")));
        let servers: Vec<Host> = servers.collect();
        let clients = (1..=options.client_count).map(|at| world.add_client(&format!("c{at}")));
        Self {
            clients: clients.collect(),
            watch: Watch::new(world, options),
            processes: Arc::default(),
            undo: BTreeMap::new(),
            undo_count: 0,
            down: BTreeMap::new(),
            paused: BTreeMap::new(),
            rot: world.rng("rot"),
            lying: false,
            refilling: None,
            lied_to: BTreeMap::new(),
            exchanged: BTreeMap::new(),
            atlas: match options.mode() {
                Mode::PrimaryBackup => Atlas::of_log(options.node_count),
                Mode::Masterless => Atlas::of_replicas(),
            },
            up_since: BTreeMap::new(),
            keeping: false,
            faults_ended_at: None,
            toppling: None,
            options: options.clone(),
            world: world.clone(),
            servers,
        }
    }

    /// Returns the addresses of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        (1..=self.options.node_count).map(address).collect()
    }

    /// Returns the machines of the clients.
    pub fn clients(&self) -> &[Host] {
        &self.clients
    }

    /// Returns the machine of a node.
    pub fn server(&self, node: u64) -> Host {
        let at = usize::try_from(node - 1).unwrap_or(usize::MAX);
        match self.servers.get(at) {
            Some(host) => *host,
            None => panic!("there is no node {node}"),
        }
    }

    /// Returns the numbers of all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.options.node_count
    }

    /// Returns what watches the nodes.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Returns how often nodes stopped by themselves.
    pub fn stop_count(&self) -> u64 {
        self.lock().stop_count
    }

    /// Returns which disks have lost something so far.
    pub fn atlas(&self) -> &Atlas {
        &self.atlas
    }

    /// Returns since when a node has run without a break, if it runs.
    pub fn up_since(&self, node: u64) -> Option<Duration> {
        let runs = !self.is_down(node) && self.world.is_running(self.server(node));
        self.up_since.get(&node).copied().filter(|_| runs)
    }

    /// Returns the world that it is in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Starts every node.
    pub async fn start(&mut self) {
        for node in self.nodes() {
            self.start_node(node).await;
        }
    }

    /// Starts one node, if it does not run.
    pub async fn start_node(&mut self, node: u64) {
        self.down.remove(&node);
        let host = self.server(node);
        if self.world.is_running(host) {
            return;
        }
        self.lock().ended.remove(&node);
        self.up_since.insert(node, self.world.now());
        let config = self.config(node);
        let observer = NodeWatch::new(&self.watch, NodeId(node), host);
        let processes = Arc::clone(&self.processes);
        let world = self.world.clone();
        let (watch, id) = (Arc::clone(&self.watch), NodeId(node));
        self.lock().recovering.insert(node, true);
        let main = move |env| async move {
            let started = server::start_observed(env, config, observer).await;
            let lock = || processes.lock().unwrap_or_else(PoisonError::into_inner);
            lock().recovering.remove(&node);
            let ended = match started {
                Ok(node) => watch.judge_stop((id, host), &node.stopped().await),
                Err(error) => watch.judge_failed_start((id, host), &error),
            };
            world.trace(Some(host), "ended", (0, 0), || ended.clone());
            let mut processes = lock();
            processes.ended.insert(node, ended);
            processes.stop_count += 1;
        };
        self.world.start(host, main).await;
    }

    fn config(&self, node: u64) -> NodeConfig {
        let tuning = &self.options.tuning;
        let members = self.nodes().map(|node| (NodeId(node), address(node))).collect();
        NodeConfig {
            election_timeout: tuning.election_timeout,
            heartbeat_interval: tuning.heartbeat_interval,
            sync_policy: if self.options.relaxed_sync {
                SyncPolicy::Interval(Duration::from_millis(50))
            } else {
                SyncPolicy::Always
            },
            wal_segment_bytes: tuning.wal_segment_bytes,
            flush_log_bytes: tuning.flush_log_bytes,
            tree: tuning.tree,
            scrub_bytes_per_second: tuning.scrub_bytes_per_second,
            log_entries_kept: tuning.log_entries_kept,
            append_entries_max: tuning.append_entries_max,
            snapshot_chunk_bytes: tuning.snapshot_chunk_bytes,
            behind_bytes_max: tuning.behind_bytes_max,
            read_turn_bytes: tuning.read_turn_bytes,
            sessions_max: tuning.sessions_max,
            request_timeout: match &self.options.masterless {
                // The core answers first: what it says of a late write is to be seen.
                Some(masterless) => masterless.request_timeout * 2,
                None => tuning.election_timeout * 3,
            },
            replication: self.replication(),
            ..NodeConfig::new(CLUSTER, NodeId(node), &format!("n{node}:{PORT}"), members)
        }
    }

    fn replication(&self) -> Replication {
        let Some(masterless) = &self.options.masterless else {
            return Replication::PrimaryBackup;
        };
        Replication::Masterless(Masterless {
            replication_factor: masterless.replication_factor,
            partition_count: masterless.partition_count,
            repair: masterless.repair,
            limits: Some(Box::new(self.limits(masterless))),
        })
    }

    /// Returns time-outs so short that a run has time for everything.
    fn limits(&self, masterless: &masterless::options::Options) -> dynamo::Config {
        let nodes: Vec<NodeId> = self.nodes().map(NodeId).collect();
        // Who the nodes are and who holds what is not taken from here.
        let placement = Placement::new(&nodes, masterless.replication_factor, 1);
        dynamo::Config {
            write_timeout: masterless.request_timeout,
            read_timeout: masterless.request_timeout,
            hint_after: masterless.hint_after,
            sync_interval: masterless.sync_interval,
            floor_age: masterless.floor_age,
            floor_interval: masterless.floor_interval,
            batch_takeover: masterless.batch_takeover,
            heartbeat_interval: masterless.heartbeat_interval,
            check_invariants: true,
            ..dynamo::Config::new(NodeId(1), nodes, placement)
        }
    }

    /// Returns who holds what, in the masterless mode.
    pub fn placement(&self) -> Option<Placement> {
        self.config(1).placement()
    }

    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_down(&self, node: u64) -> bool {
        self.down.contains_key(&node)
    }

    fn later(&mut self, after: Duration, undo: Undo) {
        let at = self.world.now() + after;
        self.undo_count += 1;
        self.undo.insert((at, self.undo_count), undo);
    }

    /// Returns when something is to be undone next.
    pub fn next_undo(&self) -> Option<Duration> {
        self.undo.first_key_value().map(|((at, _), _)| *at)
    }

    /// Undoes all that is due, and notices nodes that stopped by themselves.
    pub async fn undo_due(&mut self) {
        let ended: Vec<u64> = self.lock().ended.keys().copied().collect();
        for node in ended {
            self.lock().ended.remove(&node);
            if !self.is_down(node) {
                self.down.insert(node, true);
                self.later(SUPERVISOR_PAUSE, Undo::Start(node));
            }
        }
        self.topple();
        let now = self.world.now();
        while let Some(entry) = self.undo.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let undo = entry.remove();
            self.undo_one(undo).await;
        }
        if let Some((node, index)) = self.refilling
            && (self.watch.commit_of(NodeId(node)) >= index || self.watch.knows_lack(NodeId(node)))
        {
            self.refilling = None;
            self.lying = false;
        }
    }

    async fn undo_one(&mut self, undo: Undo) {
        match undo {
            Undo::Start(node) => self.start_node(node).await,
            Undo::CrashAgain(node, lives) => self.crash_again(node, lives).await,
            Undo::Topple(node, down) => {
                if !self.is_down(node) {
                    self.world.crash(self.server(node));
                    self.take_down(node, down);
                }
            }
            Undo::ToppleUnheard(node, down) => {
                self.lose_power(&[node], true, down);
            }
            Undo::Resume(node) => {
                if self.paused.remove(&node).is_some() {
                    self.world.resume(self.server(node));
                }
            }
            Undo::Unblock(links) => self.each_of(&links, World::unblock),
            Undo::Unclog(links) => self.each_of(&links, World::unclog),
            Undo::Clog(node) => self.each_link(node, World::clog),
            Undo::UnclogNode(node) => {
                let piled_up = Cell::new(false);
                self.each_link(node, |world, from, to| {
                    piled_up.set(piled_up.get() | world.has_piled_up(from, to));
                    world.unclog(from, to);
                });
                self.world.count_fault(Fault::N6, piled_up.get());
            }
            Undo::Weather => self.fair_weather(),
            Undo::DiskSpeed(node) => {
                self.world.change_disk(self.server(node), |disk| disk.slowness = 1);
            }
            Undo::DiskErrors(node) => self.world.change_disk(self.server(node), |disk| {
                disk.sync_error = 0.0;
                disk.write_error = 0.0;
            }),
            Undo::DiskSpace(node) => {
                self.world.change_disk(self.server(node), |disk| disk.quota_bytes = None);
            }
            Undo::PowerAfterLie(node) => {
                let host = self.server(node);
                self.world.power_off(host, PowerLoss::Strict);
                self.watch.set_amnesic(NodeId(node));
                self.atlas.note_unnoticed(node, Some(self.world.now()));
                // A table of which a part is missing may be found out any time, like a rotten one.
                // It is given up then, with what was put into others meanwhile.
                self.atlas.note_noticed(node);
                self.world.change_disk(host, |disk| disk.sync_lie = 0.0);
                // What it has lost is only on the others now, and it does not know of it: the
                // world stays quiet until they have told it so, or given it back. One more fault
                // would be too many for any protocol.
                if self.options.masterless.is_none() {
                    let index = self.watch.commit_max();
                    self.refilling = Some((node, index));
                    self.lied_to.insert(node, Some(index));
                } else {
                    self.lying = false;
                }
                self.start_node(node).await;
            }
            Undo::Clock(node, by_ms) => self.jump(node, by_ms),
            Undo::OldDisk(node, kept, down) => {
                self.keeping = false;
                let host = self.server(node);
                self.world.crash(host);
                self.world.restore_disk(host, &kept);
                self.atlas.note_unnoticed(node, Some(self.world.now()));
                self.watch.note_fault(NodeId(node), true);
                self.take_down(node, down);
            }
        }
    }

    fn each_link(&self, node: u64, act: impl Fn(&World, Host, Host)) {
        let own = self.server(node);
        for other in self.servers.iter().copied().filter(|other| *other != own) {
            act(&self.world, own, other);
            act(&self.world, other, own);
        }
    }

    async fn crash_again(&mut self, node: u64, mut lives: Vec<Duration>) {
        self.start_node(node).await;
        let Some(life) = lives.pop() else { return };
        self.down.insert(node, true);
        self.world.sleep(life).await;
        let recovering = self.lock().recovering.contains_key(&node);
        self.world.count_fault(Fault::P9, recovering);
        self.world.crash(self.server(node));
        self.later(Duration::from_millis(2), Undo::CrashAgain(node, lives));
    }

    /// Tells whether nothing is wrong with the cluster at the moment.
    pub fn is_calm(&self) -> bool {
        self.undo.values().all(Undo::is_of_nothing)
            && self.down.is_empty()
            && self.paused.is_empty()
            && self.toppling.is_none()
    }

    /// Tells whether every node runs. One may have stopped for a fault from before the healing,
    /// and what was last seen of it is no news.
    pub fn all_run(&self) -> bool {
        self.lock().ended.is_empty() && self.down.is_empty()
    }

    /// Tells whether the next leader is to die.
    pub fn awaits_leader(&self) -> bool {
        self.toppling.is_some()
    }

    /// Tells whether a fault is under way that must have the world for itself.
    pub fn wants_quiet(&self) -> bool {
        self.lying
    }

    /// Returns what the worst that can happen in this run would leave of a disk now: a power loss,
    /// or the death of the process where nodes acknowledge before they sync.
    pub fn disk_at_worst(&self, node: u64) -> SimEnv {
        let host = self.server(node);
        let view = if self.options.relaxed_sync {
            self.world.written_view(host)
        } else {
            self.world.durable_view(host)
        };
        self.world.observer(host, view)
    }

    /// Ends all faults and starts every node. A clock that is far away stays there: what is to be
    /// well again after healing is so with one such clock, too.
    pub async fn heal(&mut self) {
        self.end_faults().await;
        for node in self.nodes() {
            self.heal_node(node).await;
        }
    }

    /// Returns when all faults were ended first, if they were.
    pub fn faults_ended_at(&self) -> Option<Duration> {
        self.faults_ended_at
    }

    /// Ends all faults of the world, and forgets what was to be undone.
    async fn end_faults(&mut self) {
        self.faults_ended_at.get_or_insert(self.world.now());
        // A disk that has lied must have lost what it lied about: nothing else makes it honest.
        let lying = self.undo.values().find(|undo| matches!(undo, Undo::PowerAfterLie(_)));
        let lying = lying.filter(|_| self.options.masterless.is_some()).cloned();
        self.undo.clear();
        if let Some(undo) = lying {
            self.undo_one(undo).await;
        }
        self.lying = false;
        self.refilling = None;
        self.keeping = false;
        self.toppling = None;
        self.world.calm();
        self.fair_weather();
        self.world.heal_all();
    }

    /// Lets a node run, with space on its disk.
    async fn heal_node(&mut self, node: u64) {
        let host = self.server(node);
        if self.paused.remove(&node).is_some() {
            self.world.resume(host);
        }
        self.world.change_disk(host, |disk| disk.quota_bytes = None);
        self.start_node(node).await;
    }
}

/// Returns the address of a node.
pub fn address(node: u64) -> String {
    format!("n{node}:{PORT}")
}
