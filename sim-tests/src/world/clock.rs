//! The two clocks of one machine, as a function of the world's time.
//!
//! Both run at the machine's own rate; the wall clock has an offset besides, and may jump. A
//! pause of the process (C4) needs nothing here: the clocks go on, as they do on a real machine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::core::{Event, TimerKey};
use super::{Host, Shared};

/// Milliseconds since 1970 at the beginning of every world: 14 November 2023.
pub const EPOCH_MS: u64 = 1_700_000_000_000;
/// The same in nanoseconds.
const EPOCH: u64 = EPOCH_MS * 1_000_000;

/// Parts per thousand million in one.
const BILLION: i64 = 1_000_000_000;
const BILLION_UNSIGNED: u64 = BILLION.unsigned_abs();

#[derive(Debug)]
pub(super) struct Clock {
    /// How much faster than the world, in parts per thousand million.
    rate_ppb: i64,
    /// World time since which the present rate holds.
    since: u64,
    monotonic: u64,
    wall: u64,
    /// A jump that no reading of the wall clock has shown yet.
    pub(super) jumped: bool,
}

impl Clock {
    pub(super) fn new(wall_offset: i64) -> Self {
        let wall = EPOCH.saturating_add_signed(wall_offset);
        Self { rate_ppb: 0, since: 0, monotonic: 0, wall, jumped: false }
    }

    pub(super) fn monotonic(&self, world: u64) -> u64 {
        self.monotonic.saturating_add(self.elapsed(world))
    }

    pub(super) fn wall(&self, world: u64) -> u64 {
        self.wall.saturating_add(self.elapsed(world))
    }

    pub(super) fn rate_ppb(&self) -> i64 {
        self.rate_ppb
    }

    /// Returns the world time at which the monotonic clock will show `monotonic`, rounded up.
    pub(super) fn world_at(&self, monotonic: u64) -> u64 {
        let ahead = monotonic.saturating_sub(self.monotonic);
        if self.rate_ppb == 0 {
            return self.since.saturating_add(ahead);
        }
        // ahead * BILLION / rate, rounded up, in two steps of which neither overflows 64 bits.
        let rate = BILLION_UNSIGNED.saturating_add_signed(self.rate_ppb);
        let rest = (ahead % rate * BILLION_UNSIGNED).div_ceil(rate);
        let world = (ahead / rate).saturating_mul(BILLION_UNSIGNED).saturating_add(rest);
        self.since.saturating_add(world)
    }

    /// Changes the rate from now on.
    pub(super) fn set_rate(&mut self, world: u64, rate_ppb: i64) {
        assert!(rate_ppb > -BILLION, "a clock cannot run backwards: {rate_ppb} ppb");
        assert!(rate_ppb < BILLION * 4, "a clock that fast overflows: {rate_ppb} ppb");
        self.monotonic = self.monotonic(world);
        self.wall = self.wall(world);
        self.since = world;
        self.rate_ppb = rate_ppb;
    }

    /// Moves the wall clock by so many nanoseconds.
    pub(super) fn jump(&mut self, by: i64) {
        self.wall = self.wall.saturating_add_signed(by);
        self.jumped |= by != 0;
    }

    fn elapsed(&self, world: u64) -> u64 {
        let elapsed = world.saturating_sub(self.since);
        if self.rate_ppb == 0 {
            return elapsed;
        }
        // elapsed * rate_ppb / BILLION, rounded down, in two steps that do not overflow 64 bits.
        let seconds = i64::try_from(elapsed / BILLION_UNSIGNED).unwrap_or(0);
        let rest = i64::try_from(elapsed % BILLION_UNSIGNED).unwrap_or(0);
        let ahead = seconds * self.rate_ppb + (rest * self.rate_ppb).div_euclid(BILLION);
        elapsed.saturating_add_signed(ahead)
    }
}

/// When a sleep ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// At a time of the world.
    World(u64),
    /// When the monotonic clock of a machine shows a time, and so much world time later.
    Monotonic { host: Host, at: u64, late: u64 },
}

/// A sleep. However often it is polled it is in the timer queue once, and dropping it takes it
/// out again.
pub(super) struct Sleep {
    shared: Arc<Shared>,
    until: Until,
    key: Option<TimerKey>,
}

impl Sleep {
    pub(super) fn new(shared: &Arc<Shared>, until: Until) -> Self {
        Self { shared: Arc::clone(shared), until, key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (until, key) = (self.until, self.key);
        let key = self.shared.with(|state| {
            let at = match until {
                Until::World(at) => at,
                Until::Monotonic { host, at, late } => {
                    state.host(host).clock.world_at(at).saturating_add(late)
                }
            };
            if state.core.now() >= at {
                if let Some(key) = key {
                    state.core.cancel(key);
                }
                return None;
            }
            // A change of the clock's rate may have moved the end: a timer that fired too early
            // is set again.
            match key {
                Some(key) if state.core.rewake(key, cx.waker()) => Some(key),
                Some(_) | None => Some(state.core.insert(at, Event::Wake(cx.waker().clone()))),
            }
        });
        self.key = key;
        if key.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.with(|state| state.core.cancel(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn world_at_is_the_first_time_that_shows_it(
            rate_ppb in -200_000_000_i64..200_000_000,
            start in 0_u64..1_000_000_000_000,
            ahead in 0_u64..1_000_000_000_000,
        ) {
            let mut clock = Clock::new(0);
            clock.set_rate(start, rate_ppb);
            let shown = clock.monotonic(start) + ahead;
            let world = clock.world_at(shown);
            prop_assert!(clock.monotonic(world) >= shown);
            prop_assert!(world == start || clock.monotonic(world - 1) < shown);
        }
    }

    proptest! {
        #[test]
        fn elapsed_time_is_exact(
            rate_ppb in -900_000_000_i64..3_900_000_000,
            elapsed in 0_u64..1_000_000_000_000_000,
            ahead in 0_u64..1_000_000_000_000_000,
        ) {
            let mut clock = Clock::new(0);
            clock.set_rate(0, rate_ppb);
            let (billion, rate) = (1_000_000_000_i128, 1_000_000_000 + i128::from(rate_ppb));
            let shown = i128::from(elapsed) * rate / billion;
            prop_assert_eq!(i128::from(clock.monotonic(elapsed)), shown);
            let world = (i128::from(ahead) * billion + rate - 1) / rate;
            prop_assert_eq!(i128::from(clock.world_at(ahead)), world);
        }
    }

    #[test]
    fn clock_with_rate_drifts_and_jumps() {
        let mut clock = Clock::new(-5);
        clock.set_rate(1_000, 500_000_000);
        assert_eq!(clock.monotonic(3_000), 1_000 + 3_000);
        assert_eq!(clock.wall(3_000), EPOCH - 5 + 4_000);
        clock.jump(-1_000);
        assert_eq!(clock.wall(3_000), EPOCH - 5 + 3_000);
        clock.set_rate(3_000, 0);
        assert_eq!(clock.monotonic(4_000), 5_000);
    }
}
