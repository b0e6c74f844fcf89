//! The nemesis: draws faults from the seed, does them to the world, and undoes them later.
//!
//! What may be done is limited by what the store promises (a *must survive* run):
//! - any number of nodes may crash, lose power, pause, stall or be cut off at any time;
//! - disks that *damage* data (rot D10, a lying fsync D6) belong to one node of the run, the
//!   *victim*, so that every quorum has another good copy of each record. The victim is never the
//!   only node. Under [`Profile::Beyond`] any disk may rot, and the run is held to what the
//!   [atlas](crate::atlas) says;
//! - the victim may also come back with a new disk, and in the masterless mode with an old one;
//! - there the wall clocks of most nodes stay within the bound that the mode states. One node's may
//!   be hours away from the others, for a while or to the end of the run;
//! - a lie cannot be noticed by the node that is lied to. Between the power loss that makes it
//!   forget and its catching up, nothing else goes wrong and it is not asked for a vote: the lie
//!   is done as one composite step, in a calm world with another node leading, and when nothing is
//!   held up any more that an earlier fault has lost.
//!
//! Faults are data: each has a name, a time and an action, and depends on the seed, the options and
//! its name alone. `f12` is the twelfth fault of the run; leaving it out, or switching its class
//! off, leaves the others as they were. Only who leads is known no sooner than the time comes: a
//! fault that is aimed at the leader is resolved then, and [recorded](crate::case) as it was done.

mod action;

use std::collections::BTreeMap;
use std::time::Duration;

use mangrove::base::Rng;

pub use self::action::{Action, Fault, FaultId, Held, Weather};
use crate::options::{FaultClasses, Options, Profile};
use crate::world::Reseed;

/// Chance that a fault of one node is aimed at the leader.
const LEADER_CHANCE: f64 = 0.3;

/// Chance that rot takes a whole sector, which then cannot be read, instead of a bit.
const SECTOR_CHANCE: f64 = 0.3;

/// Chance that rot is in the tables instead of the log, and the same for [`Profile::Storage`].
const TABLE_ROT_CHANCE: (f64, f64) = (0.4, 0.7);

/// Chance under [`Profile::Forgetful`] of an old disk to be a new one instead. Always in the
/// primary-backup mode, in which nobody notices that a disk is older than it was.
const NEW_DISK_CHANCE: f64 = 0.3;

/// Most milliseconds that the jumps of one clock add up to in the masterless mode: two clocks that
/// have jumped apart as far as that are still within the two hours that a node bears.
pub const MASTERLESS_JUMPS_MAX_MS: i64 = 50 * 60 * 1000;

/// Least and most milliseconds by which the clock that is far away is far away: beyond everything
/// that nodes bear, however the other clocks have jumped.
const FAR_MS: (u64, u64) = (4 * 3_600_000, 20 * 3_600_000);

/// Draws the faults of one run.
#[derive(Debug, Clone)]
pub struct Nemesis {
    node_count: u64,
    faults: FaultClasses,
    table_rot_chance: f64,
    victim: u64,
    /// Whether any disk may rot, and not the victim's alone.
    rots_anywhere: bool,
    /// Chance of an old disk to be a new one instead.
    new_disk_chance: f64,
    /// The node whose clock may be far away: always the same one, so that it is a minority.
    far_clock: u64,
    root: Rng,
    clock_guard: ClockGuard,
    pause_mean: Duration,
    count: u32,
    at: Duration,
}

/// Draws what one fault is.
struct Draw<'a> {
    nemesis: &'a mut Nemesis,
    rng: Rng,
    /// The node that is to be the leader instead.
    instead_of: Option<u64>,
}

/// Keeps wall clocks as close to each other as a mode needs them to be.
#[derive(Debug, Clone, Default)]
struct ClockGuard {
    /// Most milliseconds that all jumps of one clock may add up to, if there is a limit.
    sum_max: Option<i64>,
    /// What the jumps of each node add up to.
    sums: BTreeMap<u64, i64>,
}

impl ClockGuard {
    /// Returns how far a clock may jump that was to jump `by_ms`.
    fn limit(&mut self, node: u64, by_ms: i64) -> i64 {
        let Some(max) = self.sum_max else { return by_ms };
        let sum = self.sums.entry(node).or_default();
        let limited = (*sum + by_ms).clamp(-max, max) - *sum;
        *sum += limited;
        limited
    }
}

/// Classes of actions, each with what must be on for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Crash,
    Power,
    Pause,
    Partition,
    Network,
    Connection,
    ClientLink,
    Stall,
    DiskError,
    DiskFull,
    Rot,
    Lie,
    Clock,
    ClockFar,
    OldDisk,
    Absence,
    Topple,
}

/// Draws all faults of a run; those after a moment otherwise, if it is reseeded.
pub fn faults(options: &Options, reseed: Option<Reseed>) -> Vec<Fault> {
    let mut nemesis = Nemesis::new(options);
    let mut drawn = Vec::new();
    if let Some(reseed) = reseed {
        loop {
            let before = nemesis.clone();
            let Some(fault) = nemesis.next() else { return drawn };
            if fault.at > reseed.at {
                nemesis = before.reseeded(reseed);
                break;
            }
            drawn.push(fault);
        }
    }
    drawn.extend(nemesis.take_while(|fault| fault.at < options.fault_phase));
    drawn
}

impl Nemesis {
    /// Starts the nemesis of a run.
    pub fn new(options: &Options) -> Self {
        let root = Rng::new(options.seed).split("nemesis");
        let mut victim = root.split("victim");
        Self {
            node_count: options.node_count,
            faults: options.faults,
            table_rot_chance: match options.profile {
                Profile::Standard | Profile::Beyond | Profile::Forgetful | Profile::Requests => {
                    TABLE_ROT_CHANCE.0
                }
                Profile::Storage => TABLE_ROT_CHANCE.1,
            },
            rots_anywhere: options.profile == Profile::Beyond,
            new_disk_chance: match options.profile {
                Profile::Standard | Profile::Storage | Profile::Beyond | Profile::Requests => 0.0,
                Profile::Forgetful if options.masterless.is_none() => 1.0,
                Profile::Forgetful => NEW_DISK_CHANCE,
            },
            victim: victim.range(1, options.node_count + 1),
            far_clock: root.split("far_clock").range(1, options.node_count + 1),
            root,
            clock_guard: ClockGuard {
                sum_max: options.masterless.as_ref().map(|_| MASTERLESS_JUMPS_MAX_MS),
                sums: BTreeMap::new(),
            },
            pause_mean: options.fault_pause,
            count: 0,
            at: Duration::ZERO,
        }
    }

    /// Returns it with other faults from a moment on, at which the next one is still to come.
    fn reseeded(self, reseed: Reseed) -> Self {
        Self { root: reseed.split(&self.root), at: self.at.max(reseed.at), ..self }
    }

    /// Returns the classes that are on and make sense, each with what tells its draw apart.
    fn classes(&self) -> Vec<Class> {
        let several = self.node_count > 1;
        let faults = &self.faults;
        let all = [
            (Class::Crash, faults.crash),
            (Class::Power, faults.power),
            (Class::Pause, faults.pause),
            (Class::Partition, faults.partition && several),
            (Class::Network, faults.network),
            (Class::Connection, faults.connection && several),
            (Class::ClientLink, faults.client_link),
            (Class::Stall, faults.stall),
            (Class::DiskError, faults.disk_error),
            (Class::DiskFull, faults.disk_full),
            (Class::Rot, faults.rot && several),
            (Class::Lie, faults.lying_fsync && several),
            (Class::Clock, faults.clock),
            (Class::ClockFar, faults.clock_far && several),
            (Class::OldDisk, faults.old_disk && several),
            (Class::Absence, faults.absence && several),
            (Class::Topple, faults.topple && several),
        ];
        all.into_iter().filter(|(_, on)| *on).map(|(class, _)| class).collect()
    }

    /// Tells whether the run is one in which no process may die.
    fn crashes_are_off(&self) -> bool {
        !self.faults.crash && !self.faults.power
    }
}

impl Iterator for Nemesis {
    type Item = Fault;

    /// Draws the next fault; `None` if all classes are off.
    fn next(&mut self) -> Option<Fault> {
        self.count += 1;
        let root = self.root.split(&self.count.to_string());
        self.at += root.split("pause").duration(self.pause_mean / 4, self.pause_mean * 2);
        // Each class draws a number and the highest has it, so that a class that is off changes
        // only the faults that would have been its own.
        let score = |class: &Class| root.split(&format!("{class:?}")).next_u64();
        let class = self.classes().into_iter().max_by_key(score)?;
        let (id, at) = (FaultId(self.count), self.at);
        let mut draw = Draw { nemesis: self, rng: root.split("what"), instead_of: None };
        let action = draw.action(class);
        Some(Fault { id, at, instead_of: draw.instead_of, action })
    }
}

impl Draw<'_> {
    fn action(&mut self, class: Class) -> Action {
        let (victim, node_count) = (self.nemesis.victim, self.nemesis.node_count);
        match class {
            Class::Crash => self.crash(),
            Class::Power => self.power_loss(),
            Class::Pause => {
                Action::Pause { node: self.aim(), length: millis(&mut self.rng, 50, 4000) }
            }
            Class::Partition => self.partition(),
            Class::Network => self.network(),
            Class::Connection => self.connection(),
            Class::ClientLink => Action::ClientCut {
                node: self.aim(),
                answers_only: self.rng.chance(0.5),
                length: millis(&mut self.rng, 200, 5000),
            },
            Class::Stall => self.stall(),
            Class::DiskError => Action::DiskError { node: self.aim(), write: self.rng.chance(0.3) },
            Class::DiskFull => Action::DiskFull {
                node: self.aim(),
                room_bytes: self.rng.range(0, 20_000),
                length: millis(&mut self.rng, 500, 8000),
            },
            Class::Rot => Action::Rot {
                node: if self.nemesis.rots_anywhere { self.aim() } else { victim },
                tables: self.rng.chance(self.nemesis.table_rot_chance),
                down: millis(&mut self.rng, 10, 2000),
                sector: self.rng.chance(SECTOR_CHANCE),
            },
            Class::Lie => Action::Lie { node: victim, length: millis(&mut self.rng, 200, 2000) },
            Class::Clock => self.clock(),
            Class::ClockFar => self.clock_far(),
            Class::OldDisk => self.old_disk(),
            Class::Topple => self.topple(),
            Class::Absence => Action::Absence {
                node: self.rng.range(1, node_count + 1),
                is_cut_off: self.nemesis.crashes_are_off() || self.rng.chance(0.4),
                length: millis(&mut self.rng, 5000, 20_000),
            },
        }
    }

    /// Draws a node: any, or the leader.
    fn aim(&mut self) -> u64 {
        let any = self.rng.range(1, self.nemesis.node_count + 1);
        if self.rng.chance(LEADER_CHANCE) {
            self.instead_of = Some(any);
        }
        any
    }

    fn crash(&mut self) -> Action {
        let node = self.aim();
        let rng = &mut self.rng;
        if rng.chance(0.25) {
            let times = rng.range(2, 5);
            let life_max = if rng.chance(0.5) { 5 } else { 60 };
            let lives = (0..times).map(|_| micros(rng, 10, life_max * 1000)).collect();
            return Action::CrashLoop { node, lives };
        }
        Action::Crash { node, while_busy: rng.chance(0.5), down: millis(rng, 2, 3000) }
    }

    fn topple(&mut self) -> Action {
        let rng = &mut self.rng;
        let times = rng.range(2, 9);
        // Long enough for nothing, for a round trip, or for an fsync or two.
        let life_max = [300, 1500, 10_000][rng.index(3)];
        let lives = (0..times).map(|_| micros(rng, 0, life_max)).collect();
        let down = millis(rng, 2, 300);
        let unheard = if rng.chance(0.5) { rng.range(1, times) } else { 0 };
        Action::Topple { lives, down, unheard, at_commit: rng.chance(0.3) }
    }

    fn power_loss(&mut self) -> Action {
        let first = self.aim();
        let rng = &mut self.rng;
        let everything = rng.chance(0.35);
        let all = 1..=self.nemesis.node_count;
        let mut nodes: Vec<u64> = all.filter(|_| everything || rng.chance(0.4)).collect();
        if nodes.is_empty() {
            nodes.push(first);
        }
        let (strict, while_busy) = (rng.chance(0.4), rng.chance(0.6));
        Action::PowerLoss { nodes, strict, while_busy, down: millis(rng, 5, 3000) }
    }

    fn partition(&mut self) -> Action {
        let count = self.nemesis.node_count;
        let one = self.aim();
        let rng = &mut self.rng;
        let others: Vec<u64> = (1..=count).filter(|node| *node != one).collect();
        let mut links = Vec::new();
        match rng.range(0, 5) {
            // Isolate one, both ways, or only one way: it hears and is not heard, or the reverse.
            0 => links.extend(others.iter().flat_map(|other| [(one, *other), (*other, one)])),
            1 => links.extend(others.iter().map(|other| (one, *other))),
            2 => links.extend(others.iter().map(|other| (*other, one))),
            // Bridge: everybody sees `one`, the others do not see each other.
            3 => links.extend(pairs(&others)),
            // Split at random.
            _ => {
                let side: Vec<bool> = (0..count).map(|_| rng.chance(0.5)).collect();
                let on_side =
                    |node: u64| usize::try_from(node - 1).ok().and_then(|at| side.get(at));
                let all: Vec<u64> = (1..=count).collect();
                links.extend(pairs(&all).into_iter().filter(|(a, b)| on_side(*a) != on_side(*b)));
            }
        }
        Action::Partition { links, length: millis(rng, 100, 10_000) }
    }

    fn network(&mut self) -> Action {
        let rng = &mut self.rng;
        match rng.range(0, 4) {
            0 => {
                let nodes: Vec<u64> =
                    (1..=self.nemesis.node_count).filter(|_| rng.chance(0.5)).collect();
                let clogs = nodes
                    .into_iter()
                    .map(|node| Held {
                        node,
                        from: millis(rng, 1, 2000),
                        until: millis(rng, 2000, 4000),
                    })
                    .collect();
                Action::Swizzle { clogs }
            }
            1 if self.nemesis.node_count > 1 => {
                let a = rng.range(1, self.nemesis.node_count + 1);
                let b = 1 + a % self.nemesis.node_count;
                Action::Clog { links: vec![(a, b)], length: millis(rng, 100, 4000) }
            }
            _ => Action::Weather { weather: weather(rng), length: millis(rng, 500, 10_000) },
        }
    }

    fn connection(&mut self) -> Action {
        let rng = &mut self.rng;
        let a = rng.range(1, self.nemesis.node_count + 1);
        let b = 1 + (a - 1 + rng.range(1, self.nemesis.node_count)) % self.nemesis.node_count;
        Action::Reset { a, b, one_end: rng.chance(0.4) }
    }

    fn stall(&mut self) -> Action {
        let node = self.aim();
        let rng = &mut self.rng;
        let length = millis(rng, 100, 6000);
        if rng.chance(0.5) {
            return Action::Stall { node, length };
        }
        let factor = u32::try_from(rng.range(5, 100)).unwrap_or(5);
        Action::Slow { node, factor, length }
    }

    fn clock(&mut self) -> Action {
        let rng = &mut self.rng;
        let node = rng.range(1, self.nemesis.node_count + 1);
        let signed = |rng: &mut Rng, max: u64| {
            let size = i64::try_from(rng.range(1, max)).unwrap_or(1);
            if rng.chance(0.5) { size } else { -size }
        };
        if rng.chance(0.5) {
            let by_ms = self.nemesis.clock_guard.limit(node, signed(rng, 3_600_000));
            return Action::ClockJump { node, by_ms };
        }
        // Up to five per cent: far beyond any real clock.
        Action::ClockDrift { node, rate_ppb: signed(rng, 50_000_000) }
    }
}

impl Draw<'_> {
    fn old_disk(&mut self) -> Action {
        let node = self.nemesis.victim;
        let rng = &mut self.rng;
        let (age, down) = (millis(rng, 500, 15_000), millis(rng, 10, 2000));
        if rng.chance(self.nemesis.new_disk_chance) {
            return Action::NewDisk { node, down };
        }
        Action::OldDisk { node, age, down }
    }

    /// Draws how a clock goes far away. Of two nodes only forward: nobody knows which of the two
    /// is right, and the one that is ahead gives way.
    fn clock_far(&mut self) -> Action {
        let rng = &mut self.rng;
        let by_ms = i64::try_from(rng.range(FAR_MS.0, FAR_MS.1)).unwrap_or_default();
        let is_back = self.nemesis.node_count > 2 && rng.chance(0.3);
        let length = millis(rng, 500, 15_000);
        Action::ClockFar {
            node: self.nemesis.far_clock,
            by_ms: if is_back { -by_ms } else { by_ms },
            length,
        }
    }
}

fn weather(rng: &mut Rng) -> Weather {
    let mut some = |chance: f64, max: f64| if rng.chance(chance) { rng.unit() * max } else { 0.0 };
    let (loss, burst, bit_flip) = (some(0.6, 0.3), some(0.3, 0.02), some(0.3, 0.02));
    let reset = some(0.3, 0.01);
    let clients = some(0.5, 1.0) > 0.0;
    let latency = millis(rng, 1, 100);
    let bytes_per_second = if rng.chance(0.2) { Some(rng.range(5_000, 200_000)) } else { None };
    Weather { loss, burst, latency, bit_flip, reset, clients, bytes_per_second }
}

/// Returns every ordered pair of different nodes.
fn pairs(nodes: &[u64]) -> Vec<(u64, u64)> {
    let pair = |a: u64| nodes.iter().filter(move |b| **b != a).map(move |b| (a, *b));
    nodes.iter().flat_map(|a| pair(*a)).collect()
}

fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    rng.duration(Duration::from_millis(low), Duration::from_millis(high))
}

fn micros(rng: &mut Rng, low: u64, high: u64) -> Duration {
    rng.duration(Duration::from_micros(low), Duration::from_micros(high))
}
