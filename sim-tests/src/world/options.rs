//! Everything that can be chosen about a world; the defaults are a calm one.
//!
//! A rate of zero switches a fault off, and then nothing is drawn from its stream. All of it may
//! be changed while the world runs: see [`World::change_net`](super::World::change_net) and
//! [`World::change_disk`](super::World::change_disk).

use std::time::Duration;

use mangrove::base::Rng;
use serde::{Deserialize, Serialize};

use super::core::nanos;
use super::fate::{Decided, Fate, For};
use super::log::Log;
use super::trace::Record;

/// Everything that can be chosen about a world.
#[derive(Debug, Clone, Default)]
pub struct WorldOptions {
    /// What is written down of what happens.
    pub record: Record,
    /// The network.
    pub net: NetOptions,
    /// The disk that each machine starts with.
    pub disk: DiskOptions,
    /// The clocks.
    pub clock: ClockOptions,
    /// Fates that are not drawn.
    pub decided: Vec<Decided>,
    /// From when on everything is drawn anew, if at all.
    pub reseed: Option<Reseed>,
    /// Where to note what happens, if anywhere.
    pub log: Option<Log>,
}

/// Fresh randomness from a moment on; what was decided before it is as it was.
///
/// Everything that the world draws is drawn anew: fates, turns of tasks, what processes draw that
/// start later. A process that runs goes on with the stream that it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reseed {
    /// The moment, since the world began.
    #[serde(rename = "at_ms", with = "crate::case::ms")]
    pub at: Duration,
    /// Which fresh randomness: each number is another one.
    pub number: u64,
}

impl Reseed {
    /// Returns what is drawn from instead of a stream.
    pub(crate) fn split(self, rng: &Rng) -> Rng {
        rng.split("reseed").split(&self.number.to_string())
    }
}

/// The network: one set of faults among servers, one for links that a client is at (N10).
#[derive(Debug, Clone)]
pub struct NetOptions {
    /// Links between two servers.
    pub servers: LinkOptions,
    /// Links between a client and a server, or two clients.
    pub clients: LinkOptions,
    /// Bytes that one direction of a connection holds before the writer must wait.
    pub buffer_bytes: usize,
    /// Connections that wait to be accepted; more of them hang.
    pub backlog_max: usize,
    /// Longest time after a partition has healed until held bytes are sent again; the time is
    /// drawn from 0 to this, or to the length of the partition if that is shorter.
    pub heal_delay_max: Duration,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            servers: LinkOptions::default(),
            clients: LinkOptions::default(),
            buffer_bytes: 1 << 20,
            backlog_max: 128,
            heal_delay_max: Duration::from_secs(1),
        }
    }
}

/// How one kind of link behaves. "Per segment" means per write call.
#[derive(Debug, Clone, Default)]
pub struct LinkOptions {
    /// Time a segment takes.
    pub latency: Latency,
    /// N1: chance per segment to be lost, so that it comes 200 ms·2^k later.
    pub loss: f64,
    /// N1: chance per segment that a burst of losses begins on the link.
    pub burst: f64,
    /// N1: length of such a burst, in which half of all segments are lost.
    pub burst_length: (Duration, Duration),
    /// N7: chance per segment that the connection breaks, at one end, the other, or both.
    pub reset: f64,
    /// N4: chance per connection that a partition breaks it instead of holding its bytes.
    pub reset_on_block: f64,
    /// N8: chance per segment that 1 to 3 of its bits are flipped.
    pub bit_flip: f64,
    /// Chance per read to return less than there is.
    pub short_read: f64,
    /// N9: most bytes per second in one direction of the link; `None` has no limit.
    pub bytes_per_second: Option<u64>,
}

/// Time that a segment takes from one machine to another.
#[derive(Debug, Clone, Copy)]
pub enum Latency {
    /// Mostly fast and rarely (N2) slow.
    Bimodal {
        /// The usual range.
        fast: (Duration, Duration),
        /// The range of the rare slow ones.
        slow: (Duration, Duration),
        /// The chance of a slow one.
        slow_chance: f64,
    },
    /// At least `floor`, and exponentially distributed above it (N2 when over ten times the mean).
    Exponential {
        /// The shortest.
        floor: Duration,
        /// The mean of what is added to the shortest.
        mean: Duration,
    },
}

impl Latency {
    /// A local network: 0.1 to 0.8 ms, one segment in a thousand up to 100 ms.
    pub const LOCAL: Self = Self::Bimodal {
        fast: (Duration::from_micros(100), Duration::from_micros(800)),
        slow: (Duration::from_millis(1), Duration::from_millis(100)),
        slow_chance: 0.001,
    };

    /// Always the same time.
    pub fn always(time: Duration) -> Self {
        let range = (time, time);
        Self::Bimodal { fast: range, slow: range, slow_chance: 0.0 }
    }

    /// Draws one in nanoseconds, and tells whether it is a long delay.
    pub(super) fn draw(self, fate: Fate) -> (u64, bool) {
        match self {
            Self::Bimodal { fast, slow, slow_chance } => {
                let is_slow = fate.chance(For::Slow, slow_chance);
                (fate.nanos(For::Latency, if is_slow { slow } else { fast }), is_slow)
            }
            Self::Exponential { floor, mean } => {
                let times = -(1.0 - fate.unit(For::Latency)).ln();
                (nanos(floor.saturating_add(mean.mul_f64(times))), times > 10.0)
            }
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::LOCAL
    }
}

/// How the disk of one machine behaves.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// Time that a sync takes; a sync that takes no time needs no timer.
    pub sync_time: (Duration, Duration),
    /// Time that a write takes before it is in the page cache.
    pub write_time: (Duration, Duration),
    /// D15: factor on both times; 1 is a healthy disk.
    pub slowness: u32,
    /// D5: chance per sync to fail and to drop what it covers.
    pub sync_error: f64,
    /// D6: chance per sync to lie.
    pub sync_lie: f64,
    /// D7: chance per write to fail after a part of it.
    pub write_error: f64,
    /// D8: most bytes of all files together.
    pub quota_bytes: Option<u64>,
    /// D1: chance per unsynced write to be torn by a power loss of kind
    /// [`PowerLoss::Subset`](super::PowerLoss::Subset).
    pub torn: f64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            sync_time: (Duration::from_micros(200), Duration::from_millis(5)),
            write_time: (Duration::ZERO, Duration::ZERO),
            slowness: 1,
            sync_error: 0.0,
            sync_lie: 0.0,
            write_error: 0.0,
            quota_bytes: None,
            torn: 0.5,
        }
    }
}

/// How far clocks are off from the start.
#[derive(Debug, Clone, Default)]
pub struct ClockOptions {
    /// C1: largest offset of a wall clock, either way.
    pub wall_offset_max: Duration,
    /// C2: largest drift of a machine's clocks, either way, in parts per thousand million.
    pub drift_ppb_max: u32,
    /// C5: most that a timer is late, in world time.
    pub timer_late_max: Duration,
}
