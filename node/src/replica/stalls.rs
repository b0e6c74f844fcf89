//! How long writes wait for the tables: while compactions are too far behind, they are not taken
//! from clients, or, at a follower, not applied.

use std::time::Duration;

use tracing::warn;

use crate::base::{Instant, NodeId};

/// A wait so long is told to the operator; shorter ones are in `status` alone.
const TOLD_FROM: Duration = Duration::from_millis(500);

/// The waits since the start.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// Since when writes wait, if they do.
    since: Option<Instant>,
    /// How long those that are over took, together.
    total: Duration,
}

impl Stalls {
    /// Takes note of whether writes are held back now.
    pub(super) fn note(&mut self, now: Instant, is_held_back: bool, node: NodeId) {
        match (self.since, is_held_back) {
            (None, true) => self.since = Some(now),
            (Some(since), false) => {
                let length = now.since(since);
                self.since = None;
                self.total += length;
                if length >= TOLD_FROM {
                    let ms = millis(length);
                    warn!(%node, ms, "writes waited for compactions: the disk does not keep up");
                }
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// Tells whether writes wait.
    pub(super) fn is_one(&self) -> bool {
        self.since.is_some()
    }

    /// Returns how many milliseconds writes have waited by now, since the start.
    pub(super) fn total_ms(&self, now: Instant) -> u64 {
        let current = self.since.map_or(Duration::ZERO, |since| now.since(since));
        millis(self.total + current)
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_and_the_current_one_counts() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut stalls = Stalls::default();
        stalls.note(at(100), false, NodeId(1));
        assert_eq!((stalls.is_one(), stalls.total_ms(at(100))), (false, 0));
        stalls.note(at(200), true, NodeId(1));
        stalls.note(at(250), true, NodeId(1));
        assert_eq!((stalls.is_one(), stalls.total_ms(at(300))), (true, 100));
        stalls.note(at(1_000), false, NodeId(1));
        assert_eq!((stalls.is_one(), stalls.total_ms(at(5_000))), (false, 800));
        stalls.note(at(6_000), true, NodeId(1));
        assert_eq!(stalls.total_ms(at(6_001)), 801);
    }
}
