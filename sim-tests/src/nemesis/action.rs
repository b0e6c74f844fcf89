//! What can go wrong, as data that can be written down, told and made simpler.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::case::{list_ms, ms};

/// Something that goes wrong. Nodes are numbered from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The process of a node dies (P1) and is started again after a while.
    Crash {
        /// The node.
        node: u64,
        /// Only once its disk has something under way, for the most of damage.
        while_busy: bool,
        /// Time until it is started again.
        #[serde(rename = "down_ms", with = "ms")]
        down: Duration,
    },
    /// The process dies again and again while it recovers (P9).
    CrashLoop {
        /// The node.
        node: u64,
        /// Time between a start and the next crash.
        #[serde(rename = "lives_ms", with = "list_ms")]
        lives: Vec<Duration>,
    },
    /// Whoever comes to lead dies soon after (P1), again and again: what a leader has begun is left
    /// in every state that there is.
    Topple {
        /// How long each of them leads, the last one first.
        #[serde(rename = "lives_ms", with = "list_ms")]
        lives: Vec<Duration>,
        /// Time until each is started again.
        #[serde(rename = "down_ms", with = "ms")]
        down: Duration,
        /// How many of the next ones nobody hears from the moment they lead, until their power is
        /// lost.
        #[serde(default)]
        unheard: u64,
        /// The others lead until they know of a commit, and everybody loses power in that moment.
        #[serde(default)]
        at_commit: bool,
    },
    /// Nodes lose power at the same moment (P2, P3, P4).
    PowerLoss {
        /// The nodes.
        nodes: Vec<u64>,
        /// Nothing that was not synced survives, instead of a random part of it.
        strict: bool,
        /// Only once the disk of one of them has something under way.
        while_busy: bool,
        /// Time until each is started again.
        #[serde(rename = "down_ms", with = "ms")]
        down: Duration,
    },
    /// A node is frozen (P5, C4).
    Pause {
        /// The node.
        node: u64,
        /// How long.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// Directed links are cut (N4).
    Partition {
        /// Which: from, to.
        links: Vec<(u64, u64)>,
        /// How long.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// Directed links hold everything and then deliver it at once (N5).
    Clog {
        /// Which: from, to.
        links: Vec<(u64, u64)>,
        /// How long.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// Nodes are clogged and released at random times (N6).
    Swizzle {
        /// Which, and when.
        clogs: Vec<Held>,
    },
    /// Links between nodes lose, delay and flip (N1, N2, N8).
    Weather {
        /// How bad.
        weather: Weather,
        /// How long.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// Connections between two nodes break (N7).
    Reset {
        /// One node.
        a: u64,
        /// The other node.
        b: u64,
        /// Only one end learns of it: the other one is left with silence.
        one_end: bool,
    },
    /// All links between clients and a node are cut (N10).
    ClientCut {
        /// The node.
        node: u64,
        /// Requests pass, answers do not.
        answers_only: bool,
        /// How long.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// A disk does nothing for a while (D15).
    Stall {
        /// The node.
        node: u64,
        /// How long.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// A disk is slow (D15).
    Slow {
        /// The node.
        node: u64,
        /// How many times slower.
        factor: u32,
        /// How long.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// For 200 ms each fsync (D5) or each write (D7) of a node is as likely to fail as not.
    DiskError {
        /// The node.
        node: u64,
        /// A write instead of an fsync.
        write: bool,
    },
    /// A disk is full (D8) until space is freed.
    DiskFull {
        /// The node.
        node: u64,
        /// Bytes that still fit.
        room_bytes: u64,
        /// How long.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// A durable bit of the victim flips while it is down (D10), or a sector of it is lost (D9).
    Rot {
        /// The victim.
        node: u64,
        /// In the tables instead of the log.
        tables: bool,
        /// A sector instead of a bit.
        #[serde(default)]
        sector: bool,
        /// Time until it is started again.
        #[serde(rename = "down_ms", with = "ms")]
        down: Duration,
    },
    /// The victim's fsync lies (D6), then it loses power; in a calm world, see the module.
    Lie {
        /// The victim.
        node: u64,
        /// How long it lies before the power is cut.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// A node comes back with its disk as it was before (P7), and does not know it.
    OldDisk {
        /// The victim.
        node: u64,
        /// How much older its disk is.
        #[serde(rename = "age_ms", with = "ms")]
        age: Duration,
        /// Time until it is started again.
        #[serde(rename = "down_ms", with = "ms")]
        down: Duration,
    },
    /// A node comes back with a new, empty disk (P7), under the name that it had.
    NewDisk {
        /// The victim.
        node: u64,
        /// Time until it is started again.
        #[serde(rename = "down_ms", with = "ms")]
        down: Duration,
    },
    /// A node is away for so long that the others move on: its process is gone, or it is cut off.
    Absence {
        /// The node.
        node: u64,
        /// Its process runs on and sees nobody.
        is_cut_off: bool,
        /// How long.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// A wall clock jumps (C3).
    ClockJump {
        /// The node.
        node: u64,
        /// By how many milliseconds, forward or back.
        by_ms: i64,
    },
    /// A wall clock jumps far away from the others' (C3), and back later.
    ClockFar {
        /// The node.
        node: u64,
        /// By how many milliseconds, forward or back.
        by_ms: i64,
        /// Until it is set right.
        #[serde(rename = "length_ms", with = "ms")]
        length: Duration,
    },
    /// A node's clocks run at another rate from now on (C2).
    ClockDrift {
        /// The node.
        node: u64,
        /// Parts per thousand million, faster or slower.
        rate_ppb: i64,
    },
}

/// A node that is clogged for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The node.
    pub node: u64,
    /// When it begins, after the start.
    #[serde(rename = "from_ms", with = "ms")]
    pub from: Duration,
    /// When it ends, after the start.
    #[serde(rename = "until_ms", with = "ms")]
    pub until: Duration,
}

/// The name of a fault: its number in the run, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(pub u32);

impl fmt::Display for FaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.0)
    }
}

impl std::str::FromStr for FaultId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix('f').and_then(|number| number.parse().ok());
        number.map(Self).ok_or_else(|| format!("{text:?} does not name a fault, as f12 does"))
    }
}

impl Serialize for FaultId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FaultId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One fault of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Its name.
    pub id: FaultId,
    /// When, since the world began.
    #[serde(rename = "at_ms", with = "ms")]
    pub at: Duration,
    /// Whether the leader, if there is one when the time comes, takes the place of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<u64>,
    /// What happens.
    #[serde(flatten)]
    pub action: Action,
}

impl Fault {
    /// Returns it as it is done while that node leads.
    #[must_use]
    pub fn resolved(self, leader: Option<u64>) -> Self {
        let Self { id, at, instead_of, action } = self;
        let action = match (instead_of, leader) {
            (Some(node), Some(leader)) => action.swapped(node, leader),
            (Some(_) | None, _) => action,
        };
        Self { id, at, instead_of: None, action }
    }
}

impl Action {
    /// Returns what kind of fault it is: its name in a replay file, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::CrashLoop { .. } => "crash loop",
            Self::Topple { .. } => "topple",
            Self::PowerLoss { .. } => "power loss",
            Self::Pause { .. } => "pause",
            Self::Partition { .. } => "partition",
            Self::Clog { .. } => "clog",
            Self::Swizzle { .. } => "swizzle",
            Self::Weather { .. } => "weather",
            Self::Reset { .. } => "reset",
            Self::ClientCut { .. } => "client cut",
            Self::Stall { .. } => "stall",
            Self::Slow { .. } => "slow",
            Self::DiskError { .. } => "disk error",
            Self::DiskFull { .. } => "disk full",
            Self::Rot { .. } => "rot",
            Self::Lie { .. } => "lie",
            Self::OldDisk { .. } => "old disk",
            Self::NewDisk { .. } => "new disk",
            Self::Absence { .. } => "absence",
            Self::ClockJump { .. } => "clock jump",
            Self::ClockFar { .. } => "clock far",
            Self::ClockDrift { .. } => "clock drift",
        }
    }

    /// Returns for how long it is on, and at which node if it is at one, if the end of it is an
    /// event of no machine.
    pub fn quiet_length(&self) -> Option<(Option<u64>, Duration)> {
        match self {
            Self::Weather { length, .. } => Some((None, *length)),
            Self::Slow { node, length, .. }
            | Self::DiskFull { node, length, .. }
            | Self::Lie { node, length } => Some((Some(*node), *length)),
            Self::Crash { .. }
            | Self::CrashLoop { .. }
            | Self::Topple { .. }
            | Self::PowerLoss { .. }
            | Self::Pause { .. }
            | Self::Partition { .. }
            | Self::Clog { .. }
            | Self::Swizzle { .. }
            | Self::Reset { .. }
            | Self::ClientCut { .. }
            | Self::Stall { .. }
            | Self::DiskError { .. }
            | Self::Rot { .. }
            | Self::OldDisk { .. }
            | Self::NewDisk { .. }
            | Self::Absence { .. }
            | Self::ClockJump { .. }
            | Self::ClockFar { .. }
            | Self::ClockDrift { .. } => None,
        }
    }

    /// Returns it with two nodes in each other's place.
    #[must_use]
    pub fn swapped(mut self, one: u64, other: u64) -> Self {
        self.visit_nodes(&mut |node| {
            if *node == one {
                *node = other;
            } else if *node == other {
                *node = one;
            }
        });
        self
    }

    /// Returns the nodes that it names.
    pub fn nodes(&self) -> Vec<u64> {
        let mut named = Vec::new();
        self.clone().visit_nodes(&mut |node| named.push(*node));
        named.sort_unstable();
        named.dedup();
        named
    }

    /// Shows every length of time in it, to be changed.
    pub fn visit_lengths(&mut self, visit: &mut dyn FnMut(&mut Duration)) {
        match self {
            Self::Crash { down, .. }
            | Self::PowerLoss { down, .. }
            | Self::Rot { down, .. }
            | Self::NewDisk { down, .. } => visit(down),
            Self::CrashLoop { lives, .. } => lives.iter_mut().for_each(visit),
            Self::Topple { lives, down, .. } => {
                lives.iter_mut().for_each(&mut *visit);
                visit(down);
            }
            Self::Pause { length, .. }
            | Self::Partition { length, .. }
            | Self::Clog { length, .. }
            | Self::ClientCut { length, .. }
            | Self::Stall { length, .. }
            | Self::Slow { length, .. }
            | Self::DiskFull { length, .. }
            | Self::Lie { length, .. }
            | Self::ClockFar { length, .. }
            | Self::Absence { length, .. } => visit(length),
            Self::Swizzle { clogs } => {
                for held in clogs {
                    visit(&mut held.from);
                    visit(&mut held.until);
                }
            }
            Self::Weather { weather, length } => {
                visit(&mut weather.latency);
                visit(length);
            }
            Self::OldDisk { age, down, .. } => {
                visit(age);
                visit(down);
            }
            Self::Reset { .. }
            | Self::DiskError { .. }
            | Self::ClockJump { .. }
            | Self::ClockDrift { .. } => {}
        }
    }

    fn visit_nodes(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        match self {
            Self::Crash { node, .. }
            | Self::CrashLoop { node, .. }
            | Self::Pause { node, .. }
            | Self::ClientCut { node, .. }
            | Self::Stall { node, .. }
            | Self::Slow { node, .. }
            | Self::DiskError { node, .. }
            | Self::DiskFull { node, .. }
            | Self::Rot { node, .. }
            | Self::Lie { node, .. }
            | Self::OldDisk { node, .. }
            | Self::NewDisk { node, .. }
            | Self::Absence { node, .. }
            | Self::ClockJump { node, .. }
            | Self::ClockFar { node, .. }
            | Self::ClockDrift { node, .. } => visit(node),
            Self::PowerLoss { nodes, .. } => nodes.iter_mut().for_each(visit),
            Self::Partition { links, .. } | Self::Clog { links, .. } => {
                for (from, to) in links {
                    visit(from);
                    visit(to);
                }
            }
            Self::Swizzle { clogs } => clogs.iter_mut().for_each(|held| visit(&mut held.node)),
            Self::Reset { a, b, .. } => {
                visit(a);
                visit(b);
            }
            Self::Weather { .. } | Self::Topple { .. } => {}
        }
    }
}

/// How bad the network is for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Weather {
    /// Chance of a segment to be lost and sent again later.
    pub loss: f64,
    /// Chance of a burst of losses to begin.
    pub burst: f64,
    /// Mean latency above the floor.
    #[serde(rename = "latency_ms", with = "ms")]
    pub latency: Duration,
    /// Chance of a flipped bit.
    pub bit_flip: f64,
    /// Chance of a reset.
    pub reset: f64,
    /// Also on links of clients.
    pub clients: bool,
    /// Bytes per second in each direction, if that is limited (N9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}
