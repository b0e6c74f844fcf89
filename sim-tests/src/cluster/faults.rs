//! What the nemesis wants done, done to the machines.

use std::time::Duration;

use mangrove::base::NodeId;
use mangrove::replica::{STATE_DIR, WAL_DIR};
use mangrove::storage::wal;

use super::topple::Toppling;
use super::{Cluster, Undo, unprobed};
use crate::nemesis::{Action, Held, Weather};
use crate::world::{Host, Latency, PowerLoss, Reset, World};

/// How often, and how many times, a disk is looked at until it is busy.
const BUSY_POLL: (Duration, u32) = (Duration::from_micros(200), 500);

/// How likely a sync or a write fails while a disk has errors, and for how long it has them.
const DISK_ERROR_CHANCE: f64 = 0.5;
const DISK_ERRORS_TIME: Duration = Duration::from_millis(200);

/// How long the bytes may take that are on their way when the world counts as settled: a stream
/// that nothing holds up delivers well within a heartbeat.
const SETTLED_TRANSIT: Duration = Duration::from_millis(20);

impl Cluster {
    /// Says which decision comes next: what it leaves to chance belongs to that number.
    pub fn begin(&mut self, decision: u32) {
        self.world.set_decision(u64::from(decision));
        self.rot = self.world.rng("rot").split(&decision.to_string());
    }

    /// Does one thing; later calls of [`undo_due`](Self::undo_due) undo it. Returns what was done,
    /// if anything was: the time, or the place, may be wrong for it, or for a part of it.
    pub async fn perform(&mut self, action: Action) -> Option<Action> {
        self.world.trace(None, "nemesis", (0, 0), || format!("{action:?}"));
        if let Action::Rot { node, tables, sector, down } = action {
            return self.rot(node, (tables, sector), down).await;
        }
        self.try_to(action.clone()).await.then_some(action)
    }

    /// Does one thing but rot; tells whether anything was done.
    async fn try_to(&mut self, action: Action) -> bool {
        match action {
            Action::Crash { node, while_busy, down } => {
                return self.crash(node, while_busy, down).await;
            }
            Action::CrashLoop { node, lives } => return self.crash_again_and_again(node, lives),
            Action::Topple { lives, down, unheard, at_commit } => {
                self.begin_to_topple(Toppling::new(lives, down, unheard, at_commit));
            }
            Action::PowerLoss { nodes, strict, while_busy, down } => {
                self.wait_until_busy(&nodes, while_busy).await;
                return self.lose_power(&nodes, strict, down);
            }
            Action::Pause { node, length } => return self.pause(node, length),
            Action::Partition { links, length } => {
                let links = self.links(&links);
                return self.cut(links, length);
            }
            Action::Clog { links, length } => {
                let links = self.links(&links);
                let is_any = !links.is_empty();
                self.each_of(&links, World::clog);
                self.later(length, Undo::Unclog(links));
                return is_any;
            }
            Action::Swizzle { clogs } => return self.swizzle(&clogs),
            Action::Weather { weather, length } => {
                self.set_weather(&weather);
                self.later(length, Undo::Weather);
            }
            Action::Reset { a, b, one_end } => {
                let ends = if one_end { Reset::First } else { Reset::Both };
                return self.world.reset_connections(self.server(a), self.server(b), ends) > 0;
            }
            Action::ClientCut { node, answers_only, length } => {
                return self.cut_clients(node, answers_only, length);
            }
            Action::Stall { .. }
            | Action::Slow { .. }
            | Action::DiskError { .. }
            | Action::DiskFull { .. }
            | Action::Lie { .. } => return self.perform_on_disk(&action),
            Action::OldDisk { node, age, down } => return self.keep_disk(node, age, down),
            Action::NewDisk { node, down } => return self.exchange_disk(node, down),
            Action::Absence { node, is_cut_off, length } => {
                return self.absent(node, is_cut_off, length);
            }
            Action::ClockJump { node, by_ms } => {
                self.jump(node, by_ms);
                return by_ms != 0;
            }
            Action::ClockFar { node, by_ms, length } => {
                self.jump(node, by_ms);
                self.later(length, Undo::Clock(node, -by_ms));
                return by_ms != 0;
            }
            Action::ClockDrift { node, rate_ppb } => {
                self.world.set_drift(self.server(node), rate_ppb);
            }
            Action::Rot { .. } => unreachable!("{action:?} may come to something else"),
        }
        true
    }

    async fn crash(&mut self, node: u64, while_busy: bool, down: Duration) -> bool {
        self.wait_until_busy(&[node], while_busy).await;
        if self.is_down(node) {
            return false;
        }
        self.world.crash(self.server(node));
        self.take_down(node, down);
        true
    }

    fn crash_again_and_again(&mut self, node: u64, lives: Vec<Duration>) -> bool {
        if self.is_down(node) {
            return false;
        }
        self.world.crash(self.server(node));
        self.down.insert(node, true);
        self.later(Duration::from_millis(2), Undo::CrashAgain(node, lives));
        true
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

    fn perform_on_disk(&mut self, action: &Action) -> bool {
        match *action {
            Action::Stall { node, length } => self.world.stall_disk(self.server(node), length),
            Action::Slow { node, factor, length } => {
                self.world.change_disk(self.server(node), |disk| disk.slowness = factor);
                self.later(length, Undo::DiskSpeed(node));
            }
            Action::DiskError { node, write } => {
                // For a moment, and also if the node stops and starts again within it.
                self.world.change_disk(self.server(node), |disk| {
                    let error = if write { &mut disk.write_error } else { &mut disk.sync_error };
                    *error = DISK_ERROR_CHANCE;
                });
                self.later(DISK_ERRORS_TIME, Undo::DiskErrors(node));
            }
            Action::DiskFull { node, room_bytes, length } => {
                let host = self.server(node);
                let quota = self.world.disk_used_bytes(host) + room_bytes;
                self.world.change_disk(host, |disk| disk.quota_bytes = Some(quota));
                self.later(length, Undo::DiskSpace(node));
            }
            Action::Lie { node, length } => {
                let others_lead = self.options.masterless.is_some() || self.is_led_by_another(node);
                let is_right = self.is_calm() && self.has_settled() && others_lead;
                if is_right {
                    self.lying = true;
                    self.lied_to.insert(node, None);
                    self.atlas.note_unnoticed(node, None);
                    self.watch.note_fault(NodeId(node), true);
                    self.world.calm();
                    self.fair_weather();
                    self.world.change_disk(self.server(node), |disk| disk.sync_lie = 0.5);
                    self.later(length, Undo::PowerAfterLie(node));
                }
                return is_right;
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
            | Action::NewDisk { .. }
            | Action::Absence { .. }
            | Action::ClockJump { .. }
            | Action::ClockFar { .. }
            | Action::ClockDrift { .. }
            | Action::Rot { .. } => unreachable!("{action:?} is not of a disk, or is rot"),
        }
        true
    }

    /// Tells whether the after-effects of earlier faults are over, too: streams flow, and disks
    /// write. A follower that hears nothing from its leader for seconds after a storm stands for
    /// election, and would ask a node for its vote that has just lost what its disk lied about.
    fn has_settled(&self) -> bool {
        self.world.transit_left() < SETTLED_TRANSIT && self.world.stall_left().is_zero()
    }

    /// Tells whether a node leads that is another one and [at work](Self::is_at_work).
    fn is_led_by_another(&self, node: u64) -> bool {
        let leader = self.watch.leader().map(|leader| leader.0).filter(|leader| *leader != node);
        leader.is_some_and(|leader| self.is_at_work(leader))
    }

    fn swizzle(&mut self, clogs: &[Held]) -> bool {
        for held in clogs {
            self.later(held.from, Undo::Clog(held.node));
            self.later(held.until, Undo::UnclogNode(held.node));
        }
        !clogs.is_empty()
    }

    /// Cuts links for a while; tells whether there are any.
    fn cut(&mut self, links: Vec<(Host, Host)>, length: Duration) -> bool {
        let is_any = !links.is_empty();
        self.each_of(&links, World::block);
        // Also of no links: when the run looks at itself stays as it was.
        self.later(length, Undo::Unblock(links));
        is_any
    }

    pub(super) fn jump(&self, node: u64, by_ms: i64) {
        let by = Duration::from_millis(by_ms.unsigned_abs());
        self.world.jump_wall(self.server(node), by_ms > 0, by);
    }

    /// Keeps a copy of a disk, to be put back when it is so old; one at a time.
    fn keep_disk(&mut self, node: u64, age: Duration, down: Duration) -> bool {
        if self.keeping {
            return false;
        }
        self.keeping = true;
        let kept = self.world.keep_disk(self.server(node));
        self.later(age, Undo::OldDisk(node, kept, down));
        true
    }

    fn pause(&mut self, node: u64, length: Duration) -> bool {
        if self.is_down(node) || self.paused.insert(node, true).is_some() {
            return false;
        }
        self.world.pause(self.server(node));
        self.later(length, Undo::Resume(node));
        true
    }

    fn exchange_disk(&mut self, node: u64, down: Duration) -> bool {
        if self.is_down(node) {
            return false;
        }
        let host = self.server(node);
        self.world.crash(host);
        self.world.wipe_disk(host);
        self.atlas.note_noticed(node);
        self.exchanged.insert(node, true);
        self.watch.set_exchanged(NodeId(node));
        self.take_down(node, down);
        true
    }

    fn absent(&mut self, node: u64, is_cut_off: bool, length: Duration) -> bool {
        if self.is_down(node) {
            return false;
        }
        let own = self.server(node);
        if !is_cut_off {
            self.world.crash(own);
            self.take_down(node, length);
            return true;
        }
        let others = self.servers.iter().copied().filter(|other| *other != own);
        let links: Vec<_> = others.flat_map(|other| [(own, other), (other, own)]).collect();
        self.cut(links, length)
    }

    pub(super) fn take_down(&mut self, node: u64, down: Duration) {
        self.paused.remove(&node);
        self.up_since.remove(&node);
        self.down.insert(node, true);
        self.later(down, Undo::Start(node));
    }

    /// Takes the power of nodes that are up; tells whether one is.
    pub(super) fn lose_power(&mut self, nodes: &[u64], strict: bool, down: Duration) -> bool {
        let loss = if strict { PowerLoss::Strict } else { PowerLoss::Subset };
        let nodes: Vec<u64> = nodes.iter().copied().filter(|node| !self.is_down(*node)).collect();
        let hosts: Vec<Host> = nodes.iter().map(|node| self.server(*node)).collect();
        match hosts.as_slice() {
            [] => {}
            [host] => self.world.power_off(*host, loss),
            hosts => self.world.power_off_all(hosts, loss),
        }
        let was_done = !nodes.is_empty();
        for (at, node) in nodes.into_iter().enumerate() {
            let after = if self.options.lockstep { 0 } else { at };
            let stagger = u32::try_from(after + 1).unwrap_or(1);
            self.take_down(node, down * stagger);
        }
        was_done
    }

    /// Returns what came of it: a crash, if there is nothing in that place that could rot.
    async fn rot(
        &mut self,
        node: u64,
        (tables, sector): (bool, bool),
        down: Duration,
    ) -> Option<Action> {
        // One damaged place at a time: the node is to be whole again before the next.
        if self.is_down(node) || self.watch.is_damaged(NodeId(node)) {
            return None;
        }
        // The process dies and the machine stays up: a power loss in the same instant could take
        // the evidence of what was durable with it, and then rot cannot be told from a torn write.
        // The last batch may have no evidence that would outlast the next power loss, and is spared
        // for the same reason.
        let host = self.server(node);
        self.world.crash(host);
        let directory = if tables { STATE_DIR } else { WAL_DIR };
        let view = self.world.durable_view(host);
        let spared = unprobed(wal::unwitnessed(&view, WAL_DIR)).await.ok().flatten();
        let reach = |path: &str| match &spared {
            _ if !path.starts_with(directory) => 0,
            Some((file, from)) if path == file => *from,
            Some((file, _)) if !tables && path > file.as_str() => 0,
            _ => u64::MAX,
        };
        let is_done = if sector {
            self.world.lose_sector(host, reach, &mut self.rot).is_some()
        } else {
            self.world.rot(host, reach, &mut self.rot).is_some()
        };
        self.take_down(node, down);
        if !is_done {
            return Some(Action::Crash { node, while_busy: false, down });
        }
        self.note_rot(node, !tables);
        self.watch.set_damaged(NodeId(node));
        Some(Action::Rot { node, tables, sector, down })
    }

    /// Takes note of damage to a node's disk that the node notices, also if a scenario has done it
    /// to the disk itself; whether the log may be among what is damaged.
    pub fn note_rot(&mut self, node: u64, of_log: bool) {
        self.atlas.note_noticed(node);
        self.watch.note_fault(NodeId(node), of_log);
    }

    pub(super) fn each_of(&self, links: &[(Host, Host)], act: impl Fn(&World, Host, Host)) {
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

    pub(super) fn fair_weather(&self) {
        self.world.change_net(|net| {
            let calm = self.options.calm_net();
            net.servers = calm.servers;
            net.clients = calm.clients;
        });
    }

    fn cut_clients(&mut self, node: u64, answers_only: bool, length: Duration) -> bool {
        let server = self.server(node);
        let mut links: Vec<(Host, Host)> = Vec::new();
        for client in &self.clients {
            links.push((server, *client));
            if !answers_only {
                links.push((*client, server));
            }
        }
        self.cut(links, length)
    }
}
