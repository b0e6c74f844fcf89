//! One direction between two machines: how long a segment takes, and what holds it up.

use crate::world::core::{bytes_u64, nanos};
use crate::world::fate::{Fate, For, Passing};
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
    /// The fates of its segments, and of what else is decided about them.
    pub(super) segments: Passing,
    /// The fates of reads at its end.
    pub(super) reads: Passing,
}

/// When a segment arrives, and which faults had a hand in it.
pub(super) struct Passage {
    pub(super) at: u64,
    pub(super) faults: FaultSet,
    /// What else is to be drawn about the segment.
    pub(super) fate: Fate,
}

impl Link {
    /// Makes an open link; `fate` is that of the pair of machines.
    pub(super) fn new(fate: Fate) -> Self {
        let (segments, reads) = (fate.named("segments"), fate.named("reads"));
        Self { segments: Passing::new(segments), reads: Passing::new(reads), ..Self::default() }
    }

    pub(super) fn is_held(&self) -> bool {
        self.blocked_since.is_some() || self.clogged_since.is_some()
    }

    /// Returns the fault that holds the link, if one does.
    pub(super) fn holder(&self) -> Option<Fault> {
        let blocked = self.blocked_since.map(|_| Fault::N4);
        blocked.or(self.clogged_since.map(|_| Fault::N5))
    }

    /// Sends a segment of `len` bytes over an open link.
    pub(super) fn pass(&mut self, options: &LinkOptions, now: u64, len: usize) -> Passage {
        let mut faults = FaultSet::default();
        let (fate, decided) = self.segments.next_decided(now);
        if let Some(delay) = decided {
            return Passage { at: now + delay, faults, fate };
        }
        let (latency, is_slow) = options.latency.draw(fate);
        if is_slow || self.extra_delay > 0 {
            faults.add(Fault::N2);
        }
        let mut at = now + latency + self.extra_delay;
        let lost = self.loss_delay(options, fate, now);
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
        Passage { at, faults, fate }
    }

    /// Returns how long losses hold a segment up; 0 if it is not lost.
    fn loss_delay(&mut self, options: &LinkOptions, fate: Fate, now: u64) -> u64 {
        if now >= self.burst_until && fate.chance(For::Burst, options.burst) {
            self.burst_until = now + fate.nanos(For::BurstLength, options.burst_length);
        }
        let mut delay = 0;
        for retry in 0..8 {
            // What is sent again after the burst has the usual chance to arrive.
            let chance = if now + delay < self.burst_until { 0.5 } else { options.loss };
            if !fate.chance(For::Loss(retry), chance) {
                break;
            }
            delay += RETRANSMISSION << retry;
        }
        delay
    }
}

/// Returns the passage between two processes of one machine.
pub(super) fn loopback(now: u64) -> Passage {
    Passage { at: now + LOOPBACK, faults: FaultSet::default(), fate: Fate::default() }
}

/// Returns when TCP sends again what a partition from `since` until `now` held up.
pub(super) fn resend_at(since: u64, now: u64, options: &NetOptions, fate: Fate) -> u64 {
    let longest = nanos(options.heal_delay_max).min(now.saturating_sub(since));
    now + fate.below(For::Heal, longest)
}
