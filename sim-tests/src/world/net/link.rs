//! One direction between two machines: how long a segment takes, and what holds it up.

use mangrove::base::Rng;

use crate::world::core::{bytes_u64, draw, nanos, roll};
use crate::world::fault::{Fault, FaultSet};
use crate::world::options::{LinkOptions, NetOptions};

/// Nanoseconds until a lost segment is sent again for the first time; each further loss doubles it.
const RETRANSMISSION: u64 = 200_000_000;

/// Nanoseconds from one process to another on the same machine.
const LOOPBACK: u64 = 20_000;

/// The state of one direction between two machines.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    /// N4: since when nothing passes.
    pub(super) blocked_since: Option<u64>,
    /// N5: since when segments pile up.
    pub(super) clogged_since: Option<u64>,
    /// N2: added to every segment.
    pub(super) extra_delay: u64,
    /// End of the present burst of losses.
    burst_until: u64,
    /// When the bandwidth limit lets the next segment out.
    free_at: u64,
}

/// One stream of randomness per purpose.
pub(super) struct NetRngs {
    pub(super) latency: Rng,
    pub(super) loss: Rng,
    pub(super) burst: Rng,
    pub(super) reset: Rng,
    pub(super) block: Rng,
    pub(super) heal: Rng,
    pub(super) flip: Rng,
    pub(super) read: Rng,
    pub(super) swizzle: Rng,
}

impl NetRngs {
    pub(super) fn new(rng: &Rng) -> Self {
        Self {
            latency: rng.split("net.latency"),
            loss: rng.split("net.loss"),
            burst: rng.split("net.burst"),
            reset: rng.split("net.reset"),
            block: rng.split("net.block"),
            heal: rng.split("net.heal"),
            flip: rng.split("net.flip"),
            read: rng.split("net.read"),
            swizzle: rng.split("net.swizzle"),
        }
    }
}

/// When a segment arrives, and which faults had a hand in it.
pub(super) struct Passage {
    pub(super) at: u64,
    pub(super) faults: FaultSet,
}

impl Link {
    pub(super) fn is_held(&self) -> bool {
        self.blocked_since.is_some() || self.clogged_since.is_some()
    }

    /// Returns the fault that holds the link, if one does.
    pub(super) fn holder(&self) -> Option<Fault> {
        let blocked = self.blocked_since.map(|_| Fault::N4);
        blocked.or(self.clogged_since.map(|_| Fault::N5))
    }

    /// Sends a segment of `len` bytes over an open link.
    pub(super) fn pass(
        &mut self,
        options: &LinkOptions,
        rngs: &mut NetRngs,
        now: u64,
        len: usize,
    ) -> Passage {
        let mut faults = FaultSet::default();
        let (latency, is_slow) = options.latency.draw(&mut rngs.latency);
        if is_slow || self.extra_delay > 0 {
            faults.add(Fault::N2);
        }
        let mut at = now + latency + self.extra_delay;
        let lost = self.loss_delay(options, rngs, now);
        if lost > 0 {
            faults.add(Fault::N1);
            at += lost;
        }
        if let Some(rate) = options.bytes_per_second {
            let time = bytes_u64(len).saturating_mul(1_000_000_000) / rate.max(1);
            self.free_at = self.free_at.max(now) + time;
            if self.free_at > at {
                faults.add(Fault::N9);
                at = self.free_at;
            }
        }
        Passage { at, faults }
    }

    /// Returns how long losses hold a segment up; 0 if it is not lost.
    fn loss_delay(&mut self, options: &LinkOptions, rngs: &mut NetRngs, now: u64) -> u64 {
        if now >= self.burst_until && roll(&mut rngs.burst, options.burst) {
            self.burst_until = now + draw(&mut rngs.burst, options.burst_length);
        }
        let mut delay = 0;
        for retry in 0..8 {
            // What is sent again after the burst has the usual chance to arrive.
            let chance = if now + delay < self.burst_until { 0.5 } else { options.loss };
            if !roll(&mut rngs.loss, chance) {
                break;
            }
            delay += RETRANSMISSION << retry;
        }
        delay
    }
}

/// Returns the passage between two processes of one machine.
pub(super) fn loopback(now: u64) -> Passage {
    Passage { at: now + LOOPBACK, faults: FaultSet::default() }
}

/// Returns when TCP sends again what a partition from `since` until `now` held up.
pub(super) fn resend_at(since: u64, now: u64, options: &NetOptions, rng: &mut Rng) -> u64 {
    let longest = nanos(options.heal_delay_max).min(now.saturating_sub(since));
    if longest == 0 { now } else { now + rng.range(0, longest) }
}
