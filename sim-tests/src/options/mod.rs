//! Swarm options: everything that a run decides before it starts, drawn from its seed.
//!
//! Each run uses a random subset of the faults, at random rates, on a random topology with
//! random tuning. Runs that always use everything hide bugs behind one another: a cluster that is
//! partitioned all the time never fills a log segment. See [Swarm testing, ISSTA 2012].
//!
//! Every group of options has a stream of randomness of its own, so that a change to one group
//! leaves the others of the same seed as they were.

mod requests;

use std::fmt;
use std::time::Duration;

use mangrove::base::Rng;
use mangrove::storage::table::{Compression, TableOptions};
use mangrove::storage::tree::TreeOptions;

pub use self::requests::RequestMix;
use crate::healing::Healing;
use crate::masterless;
use crate::world::{ClockOptions, DiskOptions, Latency, NetOptions};

/// From the shortest to the longest, in simulated time.
type Span = (Duration, Duration);

/// Length of the phase with faults.
const LONG: Span = (Duration::from_secs(15), Duration::from_mins(1));
/// The same, where the load is dense.
const SHORT: Span = (Duration::from_secs(5), Duration::from_secs(20));
/// Mean pause of a client between two requests.
const SPARSE: Span = (Duration::from_millis(50), Duration::from_millis(400));
/// The same in a dense load.
const DENSE: Span = (Duration::from_millis(5), Duration::from_millis(50));

/// Chance that the nodes of a run acknowledge before they sync.
const RELAXED_SYNC_CHANCE: f64 = 0.04;

/// Share of the runs in which all machines are in lockstep.
const LOCKSTEP_CHANCE: f64 = 0.05;
/// Time from one server to another then: longer than what a node does in between, so that what
/// begins at once stays at once.
const LOCKSTEP_LATENCY: Duration = Duration::from_millis(5);
/// Time of a sync then.
const LOCKSTEP_SYNC: Duration = Duration::from_micros(300);

/// Largest values that clients write under [`Profile::Storage`]: mostly small ones, so that many
/// cells share a block, and some that are longer than a block, a memtable or a piece of a snapshot.
const STORAGE_VALUE_BYTES: [u64; 5] = [24, 24, 400, 2500, 12_000];

/// What the runs of a swarm are mostly about. A seed means another run under each profile, so the
/// profile is part of what replays one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Profile {
    /// Everything that can go wrong, each in some of the runs.
    #[default]
    Standard,
    /// The disks: their faults are nearly always on, one after the other, while memtables and
    /// tables are so small that something is always flushed and compacted. The rest is mostly calm.
    Storage,
    /// Disks that rot on any node, so that more may be lost than the store can mend. Such a run is
    /// held to the contract of its class: must survive; may halt, must not lie; out of the model
    /// (README, "What a run is held to").
    Beyond,
    /// One disk that forgets, again and again: it comes back older or empty, lies or rots, while
    /// many writes are batches and deletes of few keys and floors rise as fast as they may. What it
    /// takes to lose something then comes together once in ten thousand runs of the others.
    Forgetful,
    /// The standard one with every request that there is: besides those of the others, batches with
    /// conditions and batches that delete rows, and keys, cells and columns read page by page. In
    /// the primary-backup mode clients often ask on while they wait for an answer.
    Requests,
}

impl Profile {
    /// Returns its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Storage => "storage",
            Self::Beyond => "beyond",
            Self::Forgetful => "forgetful",
            Self::Requests => "requests",
        }
    }

    /// Draws the options of a seed in the primary-backup mode.
    pub fn draw(self, seed: u64) -> Options {
        let standard = Options::draw(seed);
        match self {
            Self::Standard => standard,
            Self::Storage => standard.for_storage(),
            Self::Beyond => standard.for_beyond(),
            Self::Forgetful => standard.for_forgetful(),
            Self::Requests => standard.for_requests(),
        }
    }
}

/// How the clusters of a swarm replicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// One elected leader, everything linearizable.
    #[default]
    PrimaryBackup,
    /// Every node takes requests, replicas converge.
    Masterless,
}

impl Mode {
    /// Returns its name, as it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrimaryBackup => "primary-backup",
            Self::Masterless => "masterless",
        }
    }
}

/// What the runs of a swarm are: with a seed, all that it takes to replay one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// How the clusters replicate.
    pub mode: Mode,
    /// What the runs are mostly about.
    pub profile: Profile,
}

impl Plan {
    /// Draws the options of a seed.
    pub fn draw(self, seed: u64) -> Options {
        let options = self.profile.draw(seed);
        let options = match self.mode {
            Mode::PrimaryBackup if self.profile == Profile::Requests => options.maybe_pipelined(),
            Mode::PrimaryBackup => options,
            Mode::Masterless => masterless::options::draw(options),
        };
        let options = match self.profile {
            Profile::Standard | Profile::Requests => options.maybe_with_relaxed_sync(),
            Profile::Storage | Profile::Beyond | Profile::Forgetful => options,
        };
        let may_crash = options.faults.crash || options.faults.power;
        Options { healing: Healing::draw(seed, may_crash), ..options }
    }

    /// Returns the command that runs a seed again.
    pub fn replay_command(self, seed: u64) -> String {
        format!("cargo sim replay {seed}{}", self.flags())
    }

    /// Returns the flags that choose it, each after a space; none for the usual.
    pub fn flags(self) -> String {
        let mut flags = String::new();
        if self.mode == Mode::Masterless {
            flags.push_str(" --mode masterless");
        }
        if self.profile != Profile::Standard {
            flags.push_str(" --profile ");
            flags.push_str(self.profile.name());
        }
        flags
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Mode::PrimaryBackup => f.write_str(self.profile.name()),
            Mode::Masterless => write!(f, "masterless, {}", self.profile.name()),
        }
    }
}

/// Which class of faults a run may use. Each class can be switched off for an ablation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each class is on or off by itself")]
pub struct FaultClasses {
    /// Process crashes (P1) and crashes during recovery (P9).
    pub crash: bool,
    /// Power loss of one or more nodes (P2, P3, P4 with D1 to D4).
    pub power: bool,
    /// Pauses of whole nodes (P5, C4).
    pub pause: bool,
    /// Failing writes and fsyncs (D5, D7), after which a node stops and is started again.
    pub disk_error: bool,
    /// A lying fsync on one node (D6).
    pub lying_fsync: bool,
    /// A full disk (D8).
    pub disk_full: bool,
    /// Bit rot on one node (D10).
    pub rot: bool,
    /// Stalled and slow disks (D15).
    pub stall: bool,
    /// Partitions: symmetric, one-way, isolation, bridge, ring (N4).
    pub partition: bool,
    /// Loss, delay, clogs and swizzles (N1, N2, N5, N6).
    pub network: bool,
    /// Resets, half-closes, black holes, flipped bits (N7, N8).
    pub connection: bool,
    /// Faults between clients and nodes only (N10).
    pub client_link: bool,
    /// Clock offset, drift and steps (C1, C2, C3).
    pub clock: bool,
    /// One clock hours away from the others (C3). Masterless mode only.
    pub clock_far: bool,
    /// A node comes back with another disk (P7): as it was some time ago, in the masterless mode
    /// only, or a new one.
    pub old_disk: bool,
    /// A node is away for long. Masterless mode only.
    pub absence: bool,
    /// Leaders that die as soon as they lead, one after the other (P1).
    pub topple: bool,
}

impl FaultClasses {
    /// All of them.
    pub const ALL: Self = Self {
        crash: true,
        power: true,
        pause: true,
        disk_error: true,
        lying_fsync: true,
        disk_full: true,
        rot: true,
        stall: true,
        partition: true,
        network: true,
        connection: true,
        client_link: true,
        clock: true,
        clock_far: true,
        old_disk: true,
        absence: true,
        topple: true,
    };

    /// None of them.
    pub const NONE: Self = Self {
        crash: false,
        power: false,
        pause: false,
        disk_error: false,
        lying_fsync: false,
        disk_full: false,
        rot: false,
        stall: false,
        partition: false,
        network: false,
        connection: false,
        client_link: false,
        clock: false,
        clock_far: false,
        old_disk: false,
        absence: false,
        topple: false,
    };

    /// The disk's classes, and crashes, nearly always; the others now and then.
    fn draw_for_storage(rng: &Rng) -> Self {
        let nearly_always = |class: &str| rng.split(class).chance(0.9);
        let rarely = |class: &str| rng.split(class).chance(0.1);
        Self {
            crash: nearly_always("crash"),
            power: nearly_always("power"),
            disk_error: nearly_always("disk_error"),
            disk_full: nearly_always("disk_full"),
            rot: nearly_always("rot"),
            stall: nearly_always("stall"),
            lying_fsync: nearly_always("lying_fsync"),
            pause: rarely("pause"),
            partition: rarely("partition"),
            network: rarely("network"),
            connection: rarely("connection"),
            client_link: rarely("client_link"),
            clock: rarely("clock"),
            clock_far: false,
            old_disk: false,
            absence: false,
            topple: rarely("topple"),
        }
    }

    /// The same for [`Profile::Beyond`]: rot, and a little of what brings it to light.
    fn draw_for_beyond(rng: &Rng) -> Self {
        let keep = |class: &str, probability| rng.split(class).chance(probability);
        Self {
            rot: true,
            crash: keep("crash", 0.5),
            power: keep("power", 0.5),
            pause: keep("pause", 0.2),
            partition: keep("partition", 0.4),
            network: keep("network", 0.2),
            stall: keep("stall", 0.2),
            ..Self::NONE
        }
    }

    /// The same for [`Profile::Forgetful`]: what makes a disk forget, and what keeps others from
    /// hearing of it. Few classes, so that each of them comes often.
    fn draw_for_forgetful(rng: &Rng) -> Self {
        let keep = |class: &str, probability| rng.split(class).chance(probability);
        Self {
            crash: keep("crash", 0.6),
            power: keep("power", 0.6),
            rot: keep("rot", 0.5),
            lying_fsync: keep("lying_fsync", 0.5),
            stall: keep("stall", 0.4),
            partition: keep("partition", 0.5),
            pause: keep("pause", 0.2),
            network: keep("network", 0.2),
            clock: keep("clock", 0.5),
            topple: keep("topple", 0.3),
            old_disk: keep("old_disk", 0.6),
            ..Self::NONE
        }
    }

    /// Leaves out what takes more than is known to be durable from a disk.
    fn that_keep_what_is_written(self) -> Self {
        let (power, topple, disk_error, lying_fsync) = (false, false, false, false);
        Self { power, topple, disk_error, lying_fsync, rot: false, old_disk: false, ..self }
    }

    /// Keeps each class with a probability, from a draw of its own.
    fn draw(rng: &Rng) -> Self {
        let keep = |class: &str, probability| rng.split(class).chance(probability);
        Self {
            crash: keep("crash", 0.7),
            power: keep("power", 0.7),
            pause: keep("pause", 0.4),
            disk_error: keep("disk_error", 0.35),
            lying_fsync: keep("lying_fsync", 0.25),
            disk_full: keep("disk_full", 0.25),
            rot: keep("rot", 0.3),
            stall: keep("stall", 0.35),
            partition: keep("partition", 0.7),
            network: keep("network", 0.6),
            connection: keep("connection", 0.5),
            client_link: keep("client_link", 0.4),
            clock: keep("clock", 0.5),
            clock_far: false,
            old_disk: false,
            absence: false,
            topple: keep("topple", 0.15),
        }
    }
}

/// Where something gets into a run that no seed decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Leak {
    /// Into one event.
    Event,
    /// Onto the medium of one disk, where no node ever looks.
    Disk,
}

/// Everything that a run decides before it starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed that all of it, and everything the run draws later, comes from.
    pub seed: u64,
    /// What the run is mostly about.
    pub profile: Profile,
    /// Nodes: 1, 3 or 5; in the masterless mode also 2, 4, 6 and 7.
    pub node_count: u64,
    /// Clients, each with a session of its own.
    pub client_count: u64,
    /// Requests that a client may have in flight; in the masterless mode always one.
    pub in_flight: u64,
    /// Keys that single requests use at a time; replaced by new ones as the run goes on.
    pub key_count: u64,
    /// Length of the phase with faults, in simulated time.
    pub fault_phase: Duration,
    /// Mean pause of a client between two requests.
    pub think_time: Duration,
    /// Mean pause between two faults.
    pub fault_pause: Duration,
    /// The faults of this run.
    pub faults: FaultClasses,
    /// Chance of an unsynced write to be torn by a power loss that keeps a part of it.
    pub torn: f64,
    /// All machines are alike: clocks agree and timers are never late, links and disks take the
    /// same time always, and those that lost power together are back together. What only chance
    /// keeps apart comes to pass at once then, again and again.
    pub lockstep: bool,
    /// Tuning of the nodes.
    pub tuning: Tuning,
    /// Relative weight of each kind of request.
    pub mix: RequestMix,
    /// The planted bug that is switched on, if any.
    pub planted: Option<&'static str>,
    /// The checker that says nothing, if one is mute.
    pub mute: Option<&'static str>,
    /// Lets in something that is not drawn from the seed, to prove that the check for
    /// determinism notices it.
    pub leak: Option<Leak>,
    /// The nodes acknowledge before they sync, every so often (a weaker promise).
    pub relaxed_sync: bool,
    /// Who is healed when the faults are over; scenarios heal everything at once.
    pub healing: Healing,
    /// What the masterless mode has of its own; `None` in the primary-backup mode.
    pub masterless: Option<masterless::options::Options>,
}

/// Tuning of the nodes, small enough that rare things happen often.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Shortest election time-out.
    pub election_timeout: Duration,
    /// Heartbeat interval.
    pub heartbeat_interval: Duration,
    /// Bytes of a segment of the write-ahead log.
    pub wal_segment_bytes: u64,
    /// Bytes of log between two flushes.
    pub flush_log_bytes: u64,
    /// Sizes of the table store.
    pub tree: TreeOptions,
    /// Bytes of tables that are verified each second.
    pub scrub_bytes_per_second: u64,
    /// Entries that are kept behind a flush.
    pub log_entries_kept: u64,
    /// Entries of one append message.
    pub append_entries_max: usize,
    /// Bytes of one piece of a snapshot.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of waiting entries at which a follower acknowledges no more.
    pub behind_bytes_max: usize,
    /// Bytes that one read of a range passes in a turn.
    pub read_turn_bytes: usize,
    /// Client sessions that are remembered.
    pub sessions_max: usize,
    /// Longest value that clients write, in bytes.
    pub value_bytes_max: u64,
}

impl Options {
    /// Returns how the cluster replicates.
    pub fn mode(&self) -> Mode {
        if self.masterless.is_some() { Mode::Masterless } else { Mode::PrimaryBackup }
    }

    /// Returns the network while nothing is wrong with it.
    pub fn calm_net(&self) -> NetOptions {
        let mut net = NetOptions::default();
        if self.lockstep {
            net.servers.latency = Latency::always(LOCKSTEP_LATENCY);
        }
        net
    }

    /// Returns the disk that each machine starts with.
    pub fn disk(&self) -> DiskOptions {
        let calm = DiskOptions { torn: self.torn, ..DiskOptions::default() };
        let sync_time = if self.lockstep { (LOCKSTEP_SYNC, LOCKSTEP_SYNC) } else { calm.sync_time };
        DiskOptions { sync_time, ..calm }
    }

    /// Returns the clocks of all machines.
    pub fn clocks(&self) -> ClockOptions {
        if self.lockstep || !self.faults.clock {
            return ClockOptions::default();
        }
        ClockOptions {
            wall_offset_max: Duration::from_mins(1),
            drift_ppb_max: 10_000_000,
            timer_late_max: Duration::from_millis(1),
        }
    }

    /// Draws the options of a seed.
    pub fn draw(seed: u64) -> Self {
        let root = Rng::new(seed).split("options");
        let mut topology = root.split("topology");
        let node_count = match topology.range(0, 20) {
            0 => 1,
            1..=3 => 5,
            _ => 3,
        };
        let mut load = root.split("load");
        let mut pace = root.split("pace");
        // Some runs are short and dense: much is under way whenever something goes wrong.
        let (phase, think) = if pace.chance(0.15) { (SHORT, DENSE) } else { (LONG, SPARSE) };
        Self {
            seed,
            profile: Profile::Standard,
            node_count,
            client_count: load.range(2, 6),
            in_flight: 1,
            key_count: load.range(2, 9),
            fault_phase: pace.duration(phase.0, phase.1),
            think_time: pace.duration(think.0, think.1),
            fault_pause: pace.duration(Duration::from_millis(300), Duration::from_secs(5)),
            faults: FaultClasses::draw(&root.split("faults")),
            torn: 0.5,
            lockstep: root.split("lockstep").chance(LOCKSTEP_CHANCE),
            tuning: Tuning::draw(&mut root.split("tuning")).with_pieces_for_values(),
            mix: RequestMix::draw(&mut root.split("mix")),
            planted: None,
            mute: None,
            leak: None,
            relaxed_sync: false,
            healing: Healing::AtOnce,
            masterless: None,
        }
    }

    /// Makes of them what [`Profile::Storage`] says; what it says nothing about stays.
    fn for_storage(self) -> Self {
        let root = Rng::new(self.seed).split("options.storage");
        let mut load = root.split("load");
        let mut sizes = root.split("sizes");
        let mut pace = root.split("pace");
        let value_bytes_max = STORAGE_VALUE_BYTES[sizes.index(STORAGE_VALUE_BYTES.len())];
        let tree = TreeOptions {
            memtable_bytes: 1 << sizes.range(10, 13),
            table_bytes: 1 << sizes.range(11, 14),
            base_bytes: 1 << sizes.range(12, 15),
            ..self.tuning.tree
        };
        Self {
            profile: Profile::Storage,
            client_count: load.range(3, 6),
            key_count: load.range(4, 16),
            think_time: pace.duration(DENSE.0, DENSE.1 * 2),
            fault_phase: pace.duration(SHORT.0 * 2, SHORT.1 * 2),
            fault_pause: pace.duration(Duration::from_millis(150), Duration::from_millis(1500)),
            faults: FaultClasses::draw_for_storage(&root.split("faults")),
            torn: 0.9,
            tuning: Tuning {
                wal_segment_bytes: 1 << sizes.range(12, 15),
                flush_log_bytes: 1 << sizes.range(11, 14),
                log_entries_kept: sizes.range(0, 20),
                scrub_bytes_per_second: 1 << sizes.range(12, 20),
                value_bytes_max,
                tree,
                ..self.tuning
            }
            .with_pieces_for_values(),
            mix: RequestMix {
                set: load.range(5, 12),
                delete: load.range(1, 4),
                delete_row: load.range(1, 4),
                bulk_set: load.range(1, 5),
                ..self.mix
            },
            ..self
        }
    }
}

impl Options {
    /// In some runs the nodes acknowledge before they sync, and no fault takes what is written and
    /// not synced: the same promises hold then.
    fn maybe_with_relaxed_sync(self) -> Self {
        if !Rng::new(self.seed).split("options.sync").chance(RELAXED_SYNC_CHANCE) {
            return self;
        }
        Self { relaxed_sync: true, faults: self.faults.that_keep_what_is_written(), ..self }
    }

    /// Makes of them what [`Profile::Beyond`] says.
    fn for_beyond(self) -> Self {
        let root = Rng::new(self.seed).split("options.beyond");
        let faults = FaultClasses::draw_for_beyond(&root.split("faults"));
        let mut pace = root.split("pace");
        Self {
            profile: Profile::Beyond,
            fault_pause: pace.duration(Duration::from_millis(500), Duration::from_secs(3)),
            faults,
            ..self
        }
    }
}

impl Options {
    /// Makes of them what [`Profile::Forgetful`] says.
    fn for_forgetful(self) -> Self {
        let root = Rng::new(self.seed).split("options.forgetful");
        let mut load = root.split("load");
        let mut pace = root.split("pace");
        Self {
            profile: Profile::Forgetful,
            client_count: load.range(3, 6),
            key_count: load.range(2, 5),
            think_time: pace.duration(DENSE.0 * 2, DENSE.1 * 2),
            fault_phase: pace.duration(SHORT.0 * 2, SHORT.1 * 2),
            fault_pause: pace.duration(Duration::from_millis(250), Duration::from_secs(2)),
            faults: FaultClasses::draw_for_forgetful(&root.split("faults")),
            mix: RequestMix {
                set: load.range(3, 8),
                delete: load.range(1, 5),
                delete_row: load.range(0, 3),
                bulk_set: load.range(3, 10),
                ..self.mix
            },
            ..self
        }
    }
}

impl FaultClasses {
    /// Returns each class with its name.
    pub fn named(&self) -> [(&'static str, bool); 17] {
        [
            ("crash", self.crash),
            ("power", self.power),
            ("pause", self.pause),
            ("disk_error", self.disk_error),
            ("lying_fsync", self.lying_fsync),
            ("disk_full", self.disk_full),
            ("rot", self.rot),
            ("stall", self.stall),
            ("partition", self.partition),
            ("network", self.network),
            ("connection", self.connection),
            ("client_link", self.client_link),
            ("clock", self.clock),
            ("clock_far", self.clock_far),
            ("old_disk", self.old_disk),
            ("absence", self.absence),
            ("topple", self.topple),
        ]
    }
}

/// One line for people: what the run is made of.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.faults.named();
        let on: Vec<&str> = named.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        if self.profile != Profile::Standard {
            write!(f, "profile {}: ", self.profile.name())?;
        }
        write!(
            f,
            "{} nodes, {} clients, {:.0} s of faults, one per {:.1} s: {}; think time {} ms",
            self.node_count,
            self.client_count,
            self.fault_phase.as_secs_f64(),
            self.fault_pause.as_secs_f64(),
            if on.is_empty() { "none".to_owned() } else { on.join(" ") },
            self.think_time.as_millis(),
        )?;
        if self.in_flight > 1 {
            write!(f, "; clients have {} requests in flight", self.in_flight)?;
        }
        if self.lockstep {
            f.write_str("; in lockstep")?;
        }
        if self.relaxed_sync {
            f.write_str("; acknowledges before it syncs")?;
        }
        if self.healing != Healing::AtOnce {
            write!(f, "; in the end {}", self.healing.what())?;
        }
        if let Some(masterless) = &self.masterless {
            write!(f, "; masterless: {masterless}")?;
        }
        match self.planted {
            Some(code) => write!(f, "; planted {code}"),
            None => Ok(()),
        }
    }
}

impl Tuning {
    fn draw(rng: &mut Rng) -> Self {
        let election_timeout = rng.duration(Duration::from_millis(200), Duration::from_secs(1));
        let heartbeat_interval = election_timeout / u32::try_from(rng.range(3, 6)).unwrap_or(3);
        Self {
            election_timeout,
            heartbeat_interval,
            wal_segment_bytes: 1 << rng.range(12, 17),
            flush_log_bytes: 1 << rng.range(11, 17),
            log_entries_kept: rng.range(0, 60),
            sessions_max: if rng.chance(0.15) { 4 } else { 64 },
            value_bytes_max: if rng.chance(0.2) { 2000 } else { 24 },
            append_entries_max: [1, 2, 4, 4096][rng.index(4)],
            snapshot_chunk_bytes: 1 << rng.range(8, 19),
            // As nodes have them: what a run writes comes nowhere near. See `for_requests`.
            behind_bytes_max: 64 << 20,
            read_turn_bytes: 4 << 20,
            tree: draw_tree(&mut rng.split("tree")),
            scrub_bytes_per_second: if rng.chance(0.3) { 0 } else { 1 << rng.range(12, 20) },
        }
    }

    /// Makes the pieces of a snapshot no shorter than the longest value. One piece travels at a
    /// time: a state of long values in short pieces would take minutes to arrive, and the run
    /// would be blamed for a follower that never catches up.
    fn with_pieces_for_values(self) -> Self {
        let bytes_min = usize::try_from(self.value_bytes_max).unwrap_or(usize::MAX);
        Self { snapshot_chunk_bytes: self.snapshot_chunk_bytes.max(bytes_min), ..self }
    }
}

/// Tables and levels of all sizes, so small that a run flushes and compacts all the time.
fn draw_tree(rng: &mut Rng) -> TreeOptions {
    let level0_tables = rng.index(4) + 1;
    TreeOptions {
        memtable_bytes: 1 << rng.range(10, 16),
        frozen_max: rng.index(3) + 1,
        table_bytes: 1 << rng.range(11, 15),
        level0_tables,
        level0_tables_max: level0_tables + rng.index(8) + 1,
        base_bytes: 1 << rng.range(12, 17),
        runs_max: rng.index(5) + 1,
        step_bytes: 1 << rng.range(8, 14),
        cache_bytes: if rng.chance(0.3) { 0 } else { 1 << rng.range(12, 20) },
        table: TableOptions {
            block_bytes: 1 << rng.range(7, 13),
            bloom_bits_per_cell: if rng.chance(0.2) { 1 } else { 10 },
            compression: [Compression::None, Compression::Lz4][rng.index(2)],
        },
    }
}
