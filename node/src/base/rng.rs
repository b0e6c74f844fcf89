//! Seeded randomness, one stream per purpose.
//!
//! Streams are split by name, so that drawing more from one never shifts another: switching a
//! fault off in the simulation leaves every other decision of the seed as it was.

use std::fmt;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

use super::checksum;

/// A stream of random numbers that depends on its seed and its purpose alone (`ChaCha8`).
#[derive(Clone)]
pub struct Rng {
    stream: ChaCha8Rng,
    seed: u64,
}

impl Rng {
    /// Starts the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { stream: ChaCha8Rng::seed_from_u64(seed), seed }
    }

    /// Starts an independent stream for `purpose`, without drawing from this one.
    #[must_use]
    pub fn split(&self, purpose: &str) -> Self {
        let low = u64::from(checksum::crc32(purpose.as_bytes()));
        let high = u64::from(checksum::crc32_extend(checksum::crc32(b"rng"), purpose.as_bytes()));
        Self::new(self.seed.rotate_left(17) ^ (high << 32 | low))
    }

    /// Draws any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// Draws a number in `low..high`; the range must not be empty.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        assert!(low < high, "empty range {low}..{high}");
        low + self.next_u64() % (high - low)
    }

    /// Draws a position in a list of `len` elements, which must not be empty.
    pub fn index(&mut self, len: usize) -> usize {
        assert!(len > 0, "no element to draw from");
        let drawn = self.next_u64() % u64::try_from(len).unwrap_or(u64::MAX);
        usize::try_from(drawn).unwrap_or(0)
    }

    /// Draws a duration in `low..high`; the range must not be empty.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        assert!(low < high, "empty range {low:?}..{high:?}");
        let nanos = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        low + Duration::from_nanos(self.next_u64() % nanos)
    }

    /// Draws true with the given probability (0.0 never, 1.0 always).
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Draws a number in 0.0..1.0.
    pub fn unit(&mut self) -> f64 {
        const STEPS: u32 = 1 << 24;
        let drawn = u32::try_from(self.next_u64() >> 40).unwrap_or(0);
        f64::from(drawn) / f64::from(STEPS)
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rng(seed {})", self.seed)
    }
}
