//! The operating system's clocks.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is the door: it reads the real clocks"
)]

use std::time::{Instant as SystemInstant, SystemTime, UNIX_EPOCH};

use crate::base::{Instant, WallTime};

/// The monotonic clock, counted from the start of the process's environment.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealClock {
    started: SystemInstant,
}

impl RealClock {
    /// Starts counting now.
    pub(super) fn start() -> Self {
        Self { started: SystemInstant::now() }
    }

    /// Returns the time since the start; at 584 years it stands still.
    pub(super) fn now(self) -> Instant {
        let nanos = self.started.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Returns the wall time; a clock set before 1970 reads as 1970.
pub(super) fn wall() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_never_goes_back() {
        let clock = RealClock::start();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last, "{last:?} → {now:?}");
            last = now;
        }
        assert!(last > Instant::default(), "the clock runs");
    }

    #[test]
    fn wall_is_in_this_century() {
        const YEAR_2020: u64 = 1_577_836_800_000_000_000;
        assert!(wall().0 > YEAR_2020, "{:?}", wall());
    }
}
