//! Which key is next.

use bytes::Bytes;

use crate::base::Rng;

/// How much more often the first keys are asked for than the last ones: that of YCSB.
const ZIPF_EXPONENT: f64 = 0.99;

/// Spreads the keys that are asked for most over all of them; a prime, so that no two meet.
const SPREAD: u64 = 2_654_435_761;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 16;

/// Which keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// Few very often, most hardly ever: the *n*th most wanted one in proportion to *n*^-0.99.
    Zipfian,
}

/// Draws keys; see [`Distribution`].
#[derive(Debug)]
pub(super) struct Keys {
    count: u64,
    /// For each rank the weight of all up to it; empty if all weigh the same.
    weights: Vec<f64>,
}

impl Keys {
    /// # Panics
    /// If there are no keys.
    pub(super) fn new(distribution: Distribution, count: u32) -> Self {
        assert!(count > 0, "no key to draw");
        let weights = match distribution {
            Distribution::Uniform => Vec::new(),
            Distribution::Zipfian => (1..=count)
                .scan(0.0, |sum, rank| {
                    *sum += f64::from(rank).powf(-ZIPF_EXPONENT);
                    Some(*sum)
                })
                .collect(),
        };
        Self { count: u64::from(count), weights }
    }

    /// Draws the number of a key.
    pub(super) fn draw(&self, rng: &mut Rng) -> u64 {
        let Some(total) = self.weights.last() else { return rng.range(0, self.count) };
        let wanted = rng.unit() * total;
        let rank = self.weights.partition_point(|weight| *weight < wanted);
        let rank = u64::try_from(rank).unwrap_or(0).min(self.count - 1);
        rank.wrapping_mul(SPREAD) % self.count
    }
}

/// Returns another number of a range for each of its numbers: in order, they come in no order.
///
/// Its length must be no multiple of the prime that spreads them, of some 2.7 billion.
pub(super) fn scattered(number: u64, (from, to): (u64, u64)) -> u64 {
    from + (number - from) * SPREAD % (to - from)
}

/// Returns a key of 16 bytes, as `redis-benchmark` makes them.
pub fn key(number: u64) -> Bytes {
    Bytes::from(format!("key:{number:012}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(distribution: Distribution, keys: u32, draws: u32) -> Vec<u32> {
        let (keys_of, mut rng) = (Keys::new(distribution, keys), Rng::new(1));
        let mut counts = vec![0; usize::try_from(keys).unwrap()];
        for _ in 0..draws {
            counts[usize::try_from(keys_of.draw(&mut rng)).unwrap()] += 1;
        }
        counts.sort_unstable();
        counts.reverse();
        counts
    }

    #[test]
    fn uniform_keys_come_about_equally_often() {
        let counts = counts(Distribution::Uniform, 100, 100_000);
        assert!(counts[0] < 1_200 && counts[99] > 800, "{counts:?}");
    }

    #[test]
    fn zipfian_keys_come_by_their_rank() {
        let counts = counts(Distribution::Zipfian, 1_000, 1_000_000);
        // The sum of 1/n^0.99 up to 1,000 is 7.73.
        let first = f64::from(counts[0]) / 1e6;
        assert!((first - 1.0 / 7.73).abs() < 0.005, "{first}");
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((8.5..11.5).contains(&ratio), "the first to the tenth: {ratio}");
        assert!(counts.iter().all(|count| *count > 0), "no two ranks share a key");
    }

    #[test]
    fn scattered_numbers_are_those_of_the_range_in_another_order() {
        let range = (100, 1_100);
        let mut numbers: Vec<u64> = (100..1_100).map(|n| scattered(n, range)).collect();
        let rises = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((100..900).contains(&rises), "{rises} of 999 go up");
        numbers.sort_unstable();
        assert_eq!(numbers, (100..1_100).collect::<Vec<_>>());
    }

    #[test]
    fn key_has_sixteen_bytes() {
        assert_eq!(key(7).as_ref(), b"key:000000000007");
        assert_eq!(key(7).len(), KEY_BYTES);
    }
}
