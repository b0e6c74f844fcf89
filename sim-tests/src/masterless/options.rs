//! What a run of the masterless mode decides before it starts, besides what every run does.

use std::fmt;
use std::time::Duration;

use mangrove::base::Rng;
use mangrove::dynamo::Level;
use mangrove::replica::Repair;

use crate::options::{FaultClasses, Options as RunOptions, Profile};

/// By what the replicas become equal after healing. Each run that is about one of them has nothing
/// but that, so that none can hide behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// By everything there is, as in production.
    All,
    /// By anti-entropy alone: no hints, no read repair, nobody reads.
    AntiEntropy,
    /// By hints alone: nobody compares anything, nobody reads. Made for nodes that are away while
    /// their coordinators live, so nothing crashes.
    Hints,
    /// By reads alone: everything is read once by everybody's clients.
    Reads,
}

impl Mechanism {
    /// Returns its name in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all together",
            Self::AntiEntropy => "anti-entropy alone",
            Self::Hints => "hints alone",
            Self::Reads => "reads alone",
        }
    }
}

/// Relative weight of each level of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelMix {
    /// Level, weight.
    weights: [(Level, u64); 5],
}

impl LevelMix {
    /// Asks for one level only.
    pub fn only(level: Level) -> Self {
        Self { weights: [(level, 1); 5] }
    }

    /// Draws the level of a request.
    pub fn draw(&self, rng: &mut Rng) -> Level {
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = rng.range(0, total.max(1));
        for (level, weight) in self.weights {
            if drawn < weight {
                return level;
            }
            drawn -= weight;
        }
        Level::Quorum
    }
}

/// What a run of the masterless mode decides.
#[derive(Debug, Clone)]
pub struct Options {
    /// Replicas of each partition.
    pub replication_factor: usize,
    /// Partitions.
    pub partition_count: u16,
    /// By what the replicas become equal.
    pub mechanism: Mechanism,
    /// How replicas are repaired besides anti-entropy.
    pub repair: Repair,
    /// Levels of requests.
    pub levels: LevelMix,
    /// Chance of a client to have a session.
    pub session_chance: f64,
    /// Whether clients begin with different nodes. A client stays with the node that it asks until
    /// that one fails, so without this one node coordinates everything for a while.
    pub spread: bool,
    /// Time-out of a write and a read at its coordinator.
    pub request_timeout: Duration,
    /// Time after which a replica that has not acknowledged gets a hint.
    pub hint_after: Duration,
    /// Time between two sessions of anti-entropy.
    pub sync_interval: Duration,
    /// How long every write is left alone before it can come under a floor.
    pub floor_age: Duration,
    /// Time between two attempts to raise a floor.
    pub floor_interval: Duration,
    /// Time that a batch's holder waits for its end.
    pub batch_takeover: Duration,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
}

/// A session of anti-entropy so late that there is none, but for nodes that must get back what
/// their disk lost.
pub const NEVER: Duration = Duration::from_secs(1_000_000);

/// Makes the options of a seed those of a masterless run.
pub fn draw(run: RunOptions) -> RunOptions {
    let root = Rng::new(run.seed).split("options.masterless");
    let forgets = run.profile == Profile::Forgetful;
    let (node_count, replication_factor) = match root.split("topology").range(0, 20) {
        0 if forgets => (3, 3),
        0 => (1, 1),
        1 => (2, 2),
        2..=3 => (7, 3),
        4..=7 => (5, 3),
        8 => (4, 4),
        9..=11 => (4, 3),
        12 => (6, 2),
        _ => (3, 3),
    };
    let mut choice = root.split("mechanism");
    let mechanism = mechanism(run.profile, &mut choice);
    let mut load = root.split("load");
    let mut times = root.split("times");
    let ms = Duration::from_millis;
    // Who is to forget what others rely on must hear of it soon. Requests get half of their time
    // and not a third, or most of them would fail.
    let haste = if forgets { 3 } else { 1 };
    let request_timeout = times.duration(ms(600), ms(1500)) / haste.min(2);
    let hint_after = times.duration(ms(100), ms(500)) / haste;
    // More than twice the write time-out and the delay of hints, as the design demands.
    let floor_age = request_timeout * 2 + hint_after + times.duration(ms(200), ms(3000)) / haste;
    let sync_interval = times.duration(ms(100), ms(1000)) / haste;
    let floor_interval = times.duration(ms(300), ms(2000)) / haste;
    let options = Options {
        replication_factor,
        partition_count: [1, 4, 16, 64][load.index(4)],
        mechanism,
        repair: repair(mechanism, &mut choice),
        levels: levels(&mut root.split("levels"), replication_factor),
        session_chance: if load.chance(0.7) { 0.5 } else { 0.0 },
        spread: root.split("spread").chance(0.7),
        request_timeout,
        hint_after,
        sync_interval: match mechanism {
            Mechanism::All | Mechanism::AntiEntropy => sync_interval,
            Mechanism::Hints | Mechanism::Reads => NEVER,
        },
        floor_age,
        // Floors are raised by comparing everything, which is anti-entropy.
        floor_interval: match mechanism {
            Mechanism::All | Mechanism::AntiEntropy => floor_interval,
            Mechanism::Hints | Mechanism::Reads => NEVER,
        },
        batch_takeover: times.duration(ms(2000), ms(6000)) / haste,
        heartbeat_interval: times.duration(ms(50), ms(250)),
    };
    let mut mix = run.mix;
    mix.cas = 0;
    // Those with conditions are refused here; that they have no effect takes few to be seen.
    mix.bulk_if = mix.bulk_if.min(1);
    // Deletes are half of what can go wrong here.
    mix.delete = load.range(1, 5);
    mix.delete_row = load.range(0, 3);
    mix.bulk_set = if forgets { run.mix.bulk_set } else { load.range(1, 5) };
    let rng = root.split("faults");
    let faults = match run.profile {
        Profile::Standard | Profile::Storage | Profile::Requests => {
            faults(run.faults, mechanism, node_count, &rng)
        }
        Profile::Beyond => run.faults,
        Profile::Forgetful => FaultClasses {
            old_disk: true,
            absence: rng.split("absence").chance(0.35),
            clock_far: rng.split("clock_far").chance(0.25),
            topple: false,
            ..run.faults
        },
    };
    RunOptions { node_count, faults, mix, masterless: Some(options), ..run }
}

/// Draws by what the replicas become equal. Where disks are sure to lose something it is
/// anti-entropy, or with it: nothing else makes a node whole that knows of its loss.
fn mechanism(profile: Profile, rng: &mut Rng) -> Mechanism {
    match rng.range(0, 20) {
        _ if profile == Profile::Beyond => Mechanism::All,
        8..=19 if profile == Profile::Forgetful => Mechanism::AntiEntropy,
        0..=7 => Mechanism::All,
        8..=13 => Mechanism::AntiEntropy,
        14..=16 => Mechanism::Hints,
        _ => Mechanism::Reads,
    }
}

fn repair(mechanism: Mechanism, rng: &mut Rng) -> Repair {
    match mechanism {
        Mechanism::All if rng.chance(0.7) => Repair { hints: true, reads: true },
        Mechanism::All => Repair { hints: rng.chance(0.5), reads: rng.chance(0.5) },
        Mechanism::AntiEntropy => Repair { hints: false, reads: false },
        Mechanism::Hints => Repair { hints: true, reads: false },
        Mechanism::Reads => Repair { hints: false, reads: true },
    }
}

fn levels(rng: &mut Rng, replication_factor: usize) -> LevelMix {
    let mostly_quorum = rng.chance(0.5);
    let quorum = if mostly_quorum { rng.range(4, 10) } else { rng.range(1, 3) };
    let fits = |count: usize, weight: u64| if count <= replication_factor { weight } else { 0 };
    let weights = [
        (Level::Quorum, quorum),
        (Level::One, rng.range(0, 3)),
        (Level::Two, fits(2, rng.range(0, 3))),
        (Level::Three, fits(3, rng.range(0, 2))),
        (Level::All, rng.range(0, 2)),
    ];
    LevelMix { weights }
}

/// Leaves out what the mechanism is not made for, and adds what only this mode has.
fn faults(drawn: FaultClasses, mechanism: Mechanism, node_count: u64, rng: &Rng) -> FaultClasses {
    let several = node_count > 1;
    let keep = |class: &str, chance| several && rng.split(class).chance(chance);
    // Skew is the rule here, not the exception.
    let clock = drawn.clock || rng.split("clock").chance(0.7);
    let all = FaultClasses {
        clock,
        clock_far: keep("clock_far", 0.25),
        old_disk: keep("old_disk", 0.3),
        absence: keep("absence", 0.35),
        // Nobody leads.
        topple: false,
        ..drawn
    };
    match mechanism {
        Mechanism::All | Mechanism::AntiEntropy => all,
        // A node that knows that its disk lost something is made whole by anti-entropy.
        Mechanism::Reads => FaultClasses { rot: false, lying_fsync: false, ..all },
        // A coordinator that dies, or whose disk fails, takes along what it has not hinted yet.
        Mechanism::Hints => FaultClasses {
            crash: false,
            power: false,
            disk_error: false,
            lying_fsync: false,
            disk_full: false,
            rot: false,
            old_disk: false,
            pause: drawn.pause || several,
            partition: drawn.partition || several,
            ..all
        },
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "factor {}, {} partitions, repair {}, equal by {}",
            self.replication_factor,
            self.partition_count,
            self.repair.name(),
            self.mechanism.name(),
        )
    }
}
