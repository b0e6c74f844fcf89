//! A cluster of nodes in a world, and what the nemesis does to it.
//!
//! Nodes are numbered from 1. A node is *wanted up* unless the nemesis has taken it down; one that
//! stops by itself (its disk failed) is started again after a while, as an operator's supervisor
//! would do it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mangrove::base::{ClusterId, Index, NodeId, Rng, Term};
use mangrove::dynamo::{self, Placement};
use mangrove::env::Env as _;
use mangrove::raft::{Recovered, SnapshotMeta};
use mangrove::replica::recovery::replay;
use mangrove::replica::{
    Masterless, NodeConfig, Replication, STATE_DIR, StartError, SyncPolicy, WAL_DIR,
};
use mangrove::server;
use mangrove::storage::tree::{self, TreeOptions};
use mangrove::storage::wal;

use crate::atlas::Atlas;
use crate::check::liveness::Deadlines;
use crate::check::{Violation, broken};
use crate::masterless;
use crate::nemesis::{Action, Held, Weather};
use crate::options::{Mode, Options};
use crate::watch::{NodeWatch, Watch, log_of};
use crate::world::{Fault, Host, KeptDisk, Latency, NetOptions, PowerLoss, Reset, SimEnv, World};

/// The cluster that the nodes believe in.
const CLUSTER: ClusterId = ClusterId(0x6d61_6e67_726f_7665);
/// The port of every node.
const PORT: u16 = 7000;
/// Pause before a node that stopped by itself is started again.
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(500);
/// How often, and how many times, a disk is looked at until it is busy.
const BUSY_POLL: (Duration, u32) = (Duration::from_micros(200), 500);

/// Longest time in which leaders are waited for that are to die.
const TOPPLE_MAX: Duration = Duration::from_secs(8);

/// How soon after healing things must be well again.
const LIVENESS: Deadlines =
    Deadlines { leader_ns: 30_000_000_000, serve_ns: 60_000_000_000, converge_ns: 60_000_000_000 };

/// Something to be undone later.
#[derive(Debug, Clone)]
enum Undo {
    Start(u64),
    CrashAgain(u64, Vec<Duration>),
    Resume(u64),
    Unblock(Vec<(Host, Host)>),
    Unclog(Vec<(Host, Host)>),
    Clog(u64),
    UnclogNode(u64, u64),
    Weather,
    DiskSpeed(u64),
    DiskSpace(u64),
    DiskErrors(u64),
    PowerAfterLie(u64),
    /// Crashes a leader, to be started again after that time.
    Topple(u64, Duration),
    /// Sets a wall clock by so many milliseconds.
    Clock(u64, i64),
    /// Takes a node down and puts its old disk back; it starts after that time.
    OldDisk(u64, KeptDisk, Duration),
}

/// Leaders that are to die.
#[derive(Debug)]
struct Toppling {
    /// How long each of them leads, the last one first.
    lives: Vec<Duration>,
    /// Time until each is started again.
    down: Duration,
    /// The term of the last of them.
    term: Term,
    /// When it is given up.
    until: Duration,
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
    /// Nodes that have lost their last vote and said so: they may halt.
    votes_lost: BTreeMap<u64, bool>,
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
    /// The node that was lied to, and the entry up to which the others must refill it.
    refilling: Option<(u64, Index)>,
    lied_to: BTreeMap<u64, bool>,
    atlas: Atlas,
    /// Since when each node has been up without a break.
    up_since: BTreeMap<u64, Duration>,
    keeping: bool,
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
            watch: Watch::new(world, options.node_count, LIVENESS),
            processes: Arc::default(),
            undo: BTreeMap::new(),
            undo_count: 0,
            down: BTreeMap::new(),
            paused: BTreeMap::new(),
            rot: world.rng("rot"),
            lying: false,
            refilling: None,
            lied_to: BTreeMap::new(),
            atlas: match options.mode() {
                Mode::PrimaryBackup => Atlas::of_log(options.node_count),
                Mode::Masterless => Atlas::of_replicas(),
            },
            up_since: BTreeMap::new(),
            keeping: false,
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

    /// Tells whether a node may stay away after healing: an fsync lied to it, it has lost the
    /// record of its last vote, and it refuses to vote again. It may halt, and it must not lie.
    pub fn may_halt(&self, node: u64) -> bool {
        self.lied_to.contains_key(&node) && self.lock().votes_lost.contains_key(&node)
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
        self.lock().recovering.insert(node, true);
        let main = move |env| async move {
            let started = server::start_observed(env, config, observer).await;
            let lock = || processes.lock().unwrap_or_else(PoisonError::into_inner);
            lock().recovering.remove(&node);
            let (ended, vote_lost) = match started {
                Ok(node) => (node.stopped().await.to_string(), false),
                Err(error) => {
                    let vote_lost = matches!(error, StartError::VoteLost);
                    (format!("cannot start: {error}"), vote_lost)
                }
            };
            world.trace(Some(host), "ended", (0, 0), || ended.clone());
            let mut processes = lock();
            processes.ended.insert(node, ended);
            processes.stop_count += 1;
            if vote_lost {
                processes.votes_lost.insert(node, true);
            }
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
            && (self.watch.commit_of(NodeId(node)) >= index || self.may_halt(node))
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
            Undo::Resume(node) => {
                if self.paused.remove(&node).is_some() {
                    self.world.resume(self.server(node));
                }
            }
            Undo::Unblock(links) => self.each_of(&links, World::unblock),
            Undo::Unclog(links) => self.each_of(&links, World::unclog),
            Undo::Clog(node) => self.each_link(node, World::clog),
            Undo::UnclogNode(node, bursts) => {
                self.each_link(node, World::unclog);
                self.world.count_fault(Fault::N6, self.burst_count() > bursts);
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
                self.atlas.note_unnoticed(node);
                self.world.change_disk(host, |disk| disk.sync_lie = 0.0);
                // What it has lost is only on the others now: the world stays quiet until they
                // have given it back. One more fault would be too many for any protocol.
                if self.options.masterless.is_none() {
                    self.refilling = Some((node, self.watch.commit_max()));
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
                self.atlas.note_unnoticed(node);
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

    /// Returns how often traffic was held and then delivered in a burst.
    fn burst_count(&self) -> u64 {
        self.world.fault_counts().get(Fault::N5.code()).map_or(0, |(_, observable)| *observable)
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
        self.undo.is_empty()
            && self.down.is_empty()
            && self.paused.is_empty()
            && self.toppling.is_none()
    }

    /// Tells whether the next leader is to die.
    pub fn awaits_leader(&self) -> bool {
        self.toppling.is_some()
    }

    /// Sees to it that whoever has come to lead does not do so for long.
    fn topple(&mut self) {
        let Some(Toppling { lives, down, term, until }) = &mut self.toppling else { return };
        let leader = self.watch.leader().map(|leader| (leader, self.watch.term_of(leader)));
        let (down, is_late) = (*down, self.world.now() >= *until);
        let next = leader.filter(|(_, new)| new > term && !is_late);
        let life = next.and_then(|(leader, new)| {
            *term = new;
            Some((leader, lives.pop()?))
        });
        if lives.is_empty() || is_late {
            self.toppling = None;
        }
        if let Some((leader, life)) = life {
            self.later(life, Undo::Topple(leader.0, down));
        }
    }

    /// Tells whether a fault is under way that must have the world for itself.
    pub fn wants_quiet(&self) -> bool {
        self.lying
    }

    /// Says which decision comes next: what it leaves to chance belongs to that number.
    pub fn begin(&mut self, decision: u32) {
        self.world.set_decision(u64::from(decision));
        self.rot = self.world.rng("rot").split(&decision.to_string());
    }

    /// Does one thing; later calls of [`undo_due`](Self::undo_due) undo it.
    pub async fn perform(&mut self, action: Action) {
        self.world.trace(None, "nemesis", (0, 0), || format!("{action:?}"));
        match action {
            Action::Crash { node, while_busy, down } => {
                self.wait_until_busy(&[node], while_busy).await;
                if !self.is_down(node) {
                    self.world.crash(self.server(node));
                    self.take_down(node, down);
                }
            }
            Action::CrashLoop { node, lives } => {
                if !self.is_down(node) {
                    self.world.crash(self.server(node));
                    self.down.insert(node, true);
                    self.later(Duration::from_millis(2), Undo::CrashAgain(node, lives));
                }
            }
            Action::Topple { lives, down } => {
                let until = self.world.now() + TOPPLE_MAX;
                self.toppling = Some(Toppling { lives, down, term: 0, until });
                self.topple();
            }
            Action::PowerLoss { nodes, strict, while_busy, down } => {
                self.wait_until_busy(&nodes, while_busy).await;
                self.lose_power(&nodes, strict, down);
            }
            Action::Pause { node, length } => {
                if !self.is_down(node) && self.paused.insert(node, true).is_none() {
                    self.world.pause(self.server(node));
                    self.later(length, Undo::Resume(node));
                }
            }
            Action::Partition { links, length } => {
                let links = self.links(&links);
                self.each_of(&links, World::block);
                self.later(length, Undo::Unblock(links));
            }
            Action::Clog { links, length } => {
                let links = self.links(&links);
                self.each_of(&links, World::clog);
                self.later(length, Undo::Unclog(links));
            }
            Action::Swizzle { clogs } => self.swizzle(&clogs),
            Action::Weather { weather, length } => {
                self.set_weather(&weather);
                self.later(length, Undo::Weather);
            }
            Action::Reset { a, b, one_end } => {
                let ends = if one_end { Reset::First } else { Reset::Both };
                self.world.reset_connections(self.server(a), self.server(b), ends);
            }
            Action::ClientCut { node, answers_only, length } => {
                self.cut_clients(node, answers_only, length);
            }
            Action::Stall { .. }
            | Action::Slow { .. }
            | Action::DiskError { .. }
            | Action::DiskFull { .. }
            | Action::Rot { .. }
            | Action::Lie { .. } => self.perform_on_disk(&action).await,
            Action::OldDisk { node, age, down } => self.keep_disk(node, age, down),
            Action::Absence { node, is_cut_off, length } => self.absent(node, is_cut_off, length),
            Action::ClockJump { node, by_ms } => self.jump(node, by_ms),
            Action::ClockFar { node, by_ms, length } => {
                self.jump(node, by_ms);
                self.later(length, Undo::Clock(node, -by_ms));
            }
            Action::ClockDrift { node, rate_ppb } => {
                self.world.set_drift(self.server(node), rate_ppb);
            }
        }
    }

    /// Waits a little for the disk of one of the nodes to have something under way: the best
    /// moment to take its power.
    async fn wait_until_busy(&self, nodes: &[u64], wanted: bool) {
        let hosts: Vec<Host> = nodes.iter().map(|node| self.server(*node)).collect();
        let (pause, mut polls) = BUSY_POLL;
        while wanted && polls > 0 && !hosts.iter().any(|host| self.world.disk_is_busy(*host)) {
            self.world.sleep(pause).await;
            polls -= 1;
        }
    }

    async fn perform_on_disk(&mut self, action: &Action) {
        match *action {
            Action::Stall { node, length } => self.world.stall_disk(self.server(node), length),
            Action::Slow { node, factor, length } => {
                self.world.change_disk(self.server(node), |disk| disk.slowness = factor);
                self.later(length, Undo::DiskSpeed(node));
            }
            Action::DiskError { node, write } => {
                // On until the node stops; healed with its restart.
                self.world.change_disk(self.server(node), |disk| {
                    let error = if write { &mut disk.write_error } else { &mut disk.sync_error };
                    *error = 0.5;
                });
                self.later(Duration::from_millis(200), Undo::DiskErrors(node));
            }
            Action::DiskFull { node, room_bytes, length } => {
                let host = self.server(node);
                let quota = self.world.disk_used_bytes(host) + room_bytes;
                self.world.change_disk(host, |disk| disk.quota_bytes = Some(quota));
                self.later(length, Undo::DiskSpace(node));
            }
            Action::Rot { node, tables, down } => self.rot(node, tables, down).await,
            Action::Lie { node, length } => {
                let others_lead = self.options.masterless.is_some()
                    || self.watch.leader().is_some_and(|leader| leader != NodeId(node));
                if self.is_calm() && others_lead {
                    self.lying = true;
                    self.lied_to.insert(node, true);
                    self.atlas.note_unnoticed(node);
                    self.world.calm();
                    self.fair_weather();
                    self.world.change_disk(self.server(node), |disk| disk.sync_lie = 0.5);
                    self.later(length, Undo::PowerAfterLie(node));
                }
            }
            Action::Crash { .. }
            | Action::CrashLoop { .. }
            | Action::Topple { .. }
            | Action::PowerLoss { .. }
            | Action::Pause { .. }
            | Action::Partition { .. }
            | Action::Clog { .. }
            | Action::Swizzle { .. }
            | Action::Weather { .. }
            | Action::Reset { .. }
            | Action::ClientCut { .. }
            | Action::OldDisk { .. }
            | Action::Absence { .. }
            | Action::ClockJump { .. }
            | Action::ClockFar { .. }
            | Action::ClockDrift { .. } => unreachable!("{action:?} is not of a disk"),
        }
    }

    fn swizzle(&mut self, clogs: &[Held]) {
        let bursts = self.burst_count();
        for held in clogs {
            self.later(held.from, Undo::Clog(held.node));
            self.later(held.until, Undo::UnclogNode(held.node, bursts));
        }
    }

    fn jump(&self, node: u64, by_ms: i64) {
        let by = Duration::from_millis(by_ms.unsigned_abs());
        self.world.jump_wall(self.server(node), by_ms > 0, by);
    }

    /// Keeps a copy of a disk, to be put back when it is so old; one at a time.
    fn keep_disk(&mut self, node: u64, age: Duration, down: Duration) {
        if !self.keeping {
            self.keeping = true;
            let kept = self.world.keep_disk(self.server(node));
            self.later(age, Undo::OldDisk(node, kept, down));
        }
    }

    fn absent(&mut self, node: u64, is_cut_off: bool, length: Duration) {
        if self.is_down(node) {
            return;
        }
        let own = self.server(node);
        if !is_cut_off {
            self.world.crash(own);
            self.take_down(node, length);
            return;
        }
        let others = self.servers.iter().copied().filter(|other| *other != own);
        let links: Vec<_> = others.flat_map(|other| [(own, other), (other, own)]).collect();
        self.each_of(&links, World::block);
        self.later(length, Undo::Unblock(links));
    }

    fn take_down(&mut self, node: u64, down: Duration) {
        self.paused.remove(&node);
        self.up_since.remove(&node);
        self.down.insert(node, true);
        self.later(down, Undo::Start(node));
    }

    fn lose_power(&mut self, nodes: &[u64], strict: bool, down: Duration) {
        let loss = if strict { PowerLoss::Strict } else { PowerLoss::Subset };
        let nodes: Vec<u64> = nodes.iter().copied().filter(|node| !self.is_down(*node)).collect();
        let hosts: Vec<Host> = nodes.iter().map(|node| self.server(*node)).collect();
        match hosts.as_slice() {
            [] => {}
            [host] => self.world.power_off(*host, loss),
            hosts => self.world.power_off_all(hosts, loss),
        }
        for (at, node) in nodes.into_iter().enumerate() {
            let stagger = u32::try_from(at + 1).unwrap_or(1);
            self.take_down(node, down * stagger);
        }
    }

    async fn rot(&mut self, node: u64, tables: bool, down: Duration) {
        // One damaged place at a time: the node is to be whole again before the next.
        if self.is_down(node) || self.watch.is_damaged(NodeId(node)) {
            return;
        }
        // The process dies and the machine stays up: a power loss in the same instant could take
        // the evidence of what was durable with it, and then rot cannot be told from a torn write.
        // The last batch may have no evidence that would outlast the next power loss, and is spared
        // for the same reason.
        let host = self.server(node);
        self.world.crash(host);
        let directory = if tables { STATE_DIR } else { WAL_DIR };
        let view = self.world.durable_view(host);
        let spared = wal::unwitnessed(&view, WAL_DIR).await.ok().flatten();
        let reach = |path: &str| match &spared {
            _ if !path.starts_with(directory) => 0,
            Some((file, from)) if path == file => *from,
            Some((file, _)) if !tables && path > file.as_str() => 0,
            _ => u64::MAX,
        };
        if self.world.rot(host, reach, &mut self.rot).is_some() {
            self.atlas.note_noticed(node);
        }
        self.watch.set_damaged(NodeId(node));
        self.take_down(node, down);
    }

    fn each_of(&self, links: &[(Host, Host)], act: impl Fn(&World, Host, Host)) {
        for (from, to) in links {
            act(&self.world, *from, *to);
        }
    }

    fn links(&self, links: &[(u64, u64)]) -> Vec<(Host, Host)> {
        links.iter().map(|(a, b)| (self.server(*a), self.server(*b))).collect()
    }

    fn set_weather(&self, weather: &Weather) {
        let weather = *weather;
        self.world.change_net(|net| {
            let mut links = vec![&mut net.servers];
            if weather.clients {
                links.push(&mut net.clients);
            }
            for link in links {
                link.latency = Latency::Exponential {
                    floor: Duration::from_micros(100),
                    mean: weather.latency,
                };
                link.loss = weather.loss;
                link.burst = weather.burst;
                link.burst_length = (Duration::from_millis(50), Duration::from_millis(500));
                link.bit_flip = weather.bit_flip;
                link.reset = weather.reset;
                link.short_read = 0.1;
                link.bytes_per_second = weather.bytes_per_second;
            }
        });
    }

    fn fair_weather(&self) {
        self.world.change_net(|net| {
            let calm = NetOptions::default();
            net.servers = calm.servers;
            net.clients = calm.clients;
        });
    }

    fn cut_clients(&mut self, node: u64, answers_only: bool, length: Duration) {
        let server = self.server(node);
        let mut links: Vec<(Host, Host)> = Vec::new();
        for client in &self.clients {
            links.push((server, *client));
            if !answers_only {
                links.push((*client, server));
            }
        }
        self.each_of(&links, World::block);
        self.later(length, Undo::Unblock(links));
    }

    /// Looks at what a power loss of all nodes would leave now, with the node's own recovery, and
    /// compares it with what was acknowledged.
    pub async fn check_disks(&self, acknowledged: &[Index]) -> Option<Violation> {
        let mut disks = BTreeMap::new();
        for node in self.nodes() {
            let env = self.world.observer(self.server(node));
            let recovered = match recovered_from_disk(&env).await {
                Ok(recovered) => recovered,
                // It was lied to, and halts rather than voting twice: see `may_halt`.
                Err(_) if self.lied_to.contains_key(&node) => Recovered::default(),
                Err(what) => {
                    let what = format!("the disk of node {node} cannot be recovered: {what}");
                    let at = u64::try_from(self.world.now().as_nanos()).unwrap_or(u64::MAX);
                    return broken("durability", at, what).err();
                }
            };
            disks.insert(NodeId(node), log_of(&recovered));
        }
        let excused = self.lied_to.keys().map(|node| NodeId(*node)).collect();
        self.watch.check_disks(acknowledged, &disks, &excused)
    }

    /// Ends all faults and starts every node. A clock that is far away stays there: what is to be
    /// well again after healing is so with one such clock, too.
    pub async fn heal(&mut self) {
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
        for node in self.nodes() {
            let host = self.server(node);
            if self.paused.remove(&node).is_some() {
                self.world.resume(host);
            }
            self.world.change_disk(host, |disk| disk.quota_bytes = None);
            self.start_node(node).await;
        }
    }
}

/// Smallest segment of a log.
const SMALL_SEGMENT_BYTES: u64 = 4096;

/// Runs the recovery of a node on a disk.
async fn recovered_from_disk(env: &SimEnv) -> Result<Recovered, String> {
    let opened = tree::open(env.disk().clone(), STATE_DIR, TreeOptions::default()).await;
    let (_, _, tables) = opened.map_err(|error| error.to_string())?;
    // Recovery may begin a segment; nobody will write to it.
    let options = wal::Options { segment_bytes: SMALL_SEGMENT_BYTES };
    let (_, log) = wal::open(env.disk(), WAL_DIR, options).await.map_err(|e| e.to_string())?;
    let durable = SnapshotMeta { index: tables.applied.index, term: tables.applied.term };
    replay(&log, durable).map_err(|error| error.to_string())
}

/// Returns the address of a node.
pub fn address(node: u64) -> String {
    format!("n{node}:{PORT}")
}
