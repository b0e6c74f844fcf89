//! Fates: draws that depend on *what* is decided, never on what was drawn before.
//!
//! Whether a segment is lost, how long a sync takes, which sectors of a write survive: each such
//! decision has a name of its own, made of the place and the time at which it is due, and its draw
//! is a function of the seed and that name. So one decision can be left out or changed, by a
//! person or by the shrinker, and the others stay as they were; a stream of random numbers would
//! shift all that come later.
//!
//! What happens *in passing*, such as the segments of a link or the syncs of a file, is named by
//! the place, the millisecond, and its number within it. A count since the beginning would be
//! shifted for good by one message less; this way everything is in step again a millisecond later.
//! What a power loss leaves is named by the fault that took the power, the file, and the position
//! among the changes that were pending.
//!
//! A name is folded into 64 bits with the finaliser of `SplitMix64`, and a draw is one more round
//! of it over the name and a number: a counter-based generator, three multiplications a draw. It
//! passes the usual batteries of tests when its input is a plain counter, which is all that is
//! asked of it here; nobody tries to predict a fate. What needs many draws at once (the garbage in
//! a torn sector) starts a stream from a fate.
//!
//! A world may be [reseeded](super::Reseed) at some moment: then every fate is replaced by another
//! one, so that a run has many continuations from there.
//!
//! # Invariants
//! 1. Fates of different names are independent, and so are the draws of one fate for different
//!    purposes.
//! 2. No fate depends on how many others there were, but for those of the same place and
//!    millisecond.
//!
//! # Left out
//! What a node itself draws, such as election time-outs: those streams belong to its process, one
//! per purpose.
//!
//! # Sources
//! `SplitMix64` (Steele, Lea & Flood 2014); counter-based generators: [Salmon et al. 2011].

use std::collections::BTreeMap;
use std::time::Duration;

use mangrove::base::Rng;
use serde::{Deserialize, Serialize};

use super::core::nanos;
use super::trace::fold_bytes;

/// The increment of `SplitMix64`: 2^64 divided by the golden ratio, and odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A span of time, 2^20 ns, within which what happens at one place is numbered.
const SPAN_BITS: u32 = 20;

/// Room for the number within a span.
const NUMBER_BITS: u32 = 20;

/// What a draw is for: two draws of one fate never share their number.
#[derive(Debug, Clone, Copy)]
pub(super) enum For {
    Latency,
    Slow,
    Burst,
    BurstLength,
    /// The n-th attempt to send.
    Loss(u64),
    Flip,
    Flips,
    Reset,
    ResetEnds,
    Block,
    Heal,
    Short,
    ShortLength,
    Late,
    SyncTime,
    SyncError,
    SyncLie,
    /// The n-th write that a lying sync covers.
    Lie(u64),
    WriteTime,
    WriteError,
    WriteLength,
    KeepAll,
    KeepShare,
    Keep,
    Half,
    Torn,
    Tear,
    Rank,
    Turn,
}

impl For {
    /// Returns its number: sixteen bits of purpose, and what tells draws of one purpose apart.
    fn number(self) -> u64 {
        let (kind, nth) = match self {
            Self::Latency => (1, 0),
            Self::Slow => (2, 0),
            Self::Burst => (3, 0),
            Self::BurstLength => (4, 0),
            Self::Loss(nth) => (5, nth),
            Self::Flip => (6, 0),
            Self::Flips => (7, 0),
            Self::Reset => (8, 0),
            Self::ResetEnds => (9, 0),
            Self::Block => (10, 0),
            Self::Heal => (11, 0),
            Self::Short => (12, 0),
            Self::ShortLength => (13, 0),
            Self::Late => (14, 0),
            Self::SyncTime => (15, 0),
            Self::SyncError => (16, 0),
            Self::SyncLie => (17, 0),
            Self::Lie(nth) => (18, nth),
            Self::WriteTime => (19, 0),
            Self::WriteError => (20, 0),
            Self::WriteLength => (21, 0),
            Self::KeepAll => (22, 0),
            Self::KeepShare => (23, 0),
            Self::Keep => (24, 0),
            Self::Half => (25, 0),
            Self::Torn => (26, 0),
            Self::Tear => (27, 0),
            Self::Rank => (28, 0),
            Self::Turn => (29, 0),
        };
        kind << 48 | nth
    }
}

/// The fate of one decision, or the root of all fates at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fate(u64);

impl Fate {
    /// Starts from the randomness of a world.
    pub(super) fn root(rng: &Rng) -> Self {
        Self(rng.split("fates").next_u64())
    }

    /// Returns the fate of a part, told apart by a number.
    pub(super) fn of(self, number: u64) -> Self {
        Self(finish(self.0.wrapping_add(number.wrapping_mul(STEP)).rotate_left(23)))
    }

    /// Returns the fate of a part, told apart by a name.
    pub(super) fn named(self, name: &str) -> Self {
        self.of(fold_bytes(name.as_bytes()))
    }

    /// Returns the fate that takes its place when everything is drawn anew.
    pub(super) fn reseeded(self, number: u64) -> Self {
        self.named("reseed").of(number)
    }

    /// Draws any 64 bits.
    pub(super) fn bits(self, purpose: For) -> u64 {
        finish(self.0 ^ purpose.number().wrapping_mul(STEP))
    }

    /// Draws a number in 0.0..1.0.
    pub(super) fn unit(self, purpose: For) -> f64 {
        const STEPS: u32 = 1 << 24;
        let drawn = u32::try_from(self.bits(purpose) >> 40).unwrap_or(0);
        f64::from(drawn) / f64::from(STEPS)
    }

    /// Draws true with the given probability.
    pub(super) fn chance(self, purpose: For, probability: f64) -> bool {
        probability > 0.0 && self.unit(purpose) < probability
    }

    /// Draws a number in `0..end`; 0 from an empty range.
    pub(super) fn below(self, purpose: For, end: u64) -> u64 {
        if end == 0 { 0 } else { self.bits(purpose) % end }
    }

    /// Draws a position in a list of `len` elements; 0 for an empty one.
    pub(super) fn index(self, purpose: For, len: usize) -> usize {
        let drawn = self.below(purpose, u64::try_from(len).unwrap_or(u64::MAX));
        usize::try_from(drawn).unwrap_or(0)
    }

    /// Draws a number of nanoseconds from a range of durations; its start, if it is empty.
    pub(super) fn nanos(self, purpose: For, range: (Duration, Duration)) -> u64 {
        let (low, high) = (nanos(range.0), nanos(range.1));
        low + self.below(purpose, high.saturating_sub(low))
    }

    /// Starts a stream for what needs many draws.
    pub(super) fn stream(self, purpose: For) -> Rng {
        Rng::new(self.bits(purpose))
    }
}

/// The finaliser of `SplitMix64`: every bit of the input changes half of the bits of the output.
fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A place at which things happen in passing: numbers them within each span of time.
#[derive(Debug, Clone, Default)]
pub(super) struct Passing {
    fate: Fate,
    span: u64,
    count: u64,
    /// What was decided otherwise, by the number of the decision.
    decided: BTreeMap<Moment, u64>,
}

impl Passing {
    pub(super) fn new(fate: Fate) -> Self {
        Self { fate, ..Self::default() }
    }

    /// Decides something otherwise than it would be drawn.
    pub(super) fn decide(&mut self, moment: Moment, value: u64) {
        self.decided.insert(moment, value);
    }

    /// Draws everything anew from now on, but for what was decided.
    pub(super) fn reseed(&mut self, number: u64) {
        self.fate = self.fate.reseeded(number);
    }

    /// Returns the fate of what happens here now.
    pub(super) fn next(&mut self, now: u64) -> Fate {
        self.next_decided(now).0
    }

    /// Returns the fate of what happens here now, and what was decided about it, if anything.
    pub(super) fn next_decided(&mut self, now: u64) -> (Fate, Option<u64>) {
        let span = now >> SPAN_BITS;
        if span == self.span {
            self.count += 1;
        } else {
            (self.span, self.count) = (span, 0);
        }
        let fate = self.fate.of(span << NUMBER_BITS | self.count);
        if self.decided.is_empty() {
            return (fate, None);
        }
        (fate, self.decided.get(&Moment { span, number: self.count }).copied())
    }
}

/// When something happens in passing: a span of 2^20 ns, and its number within it, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// The span.
    pub span: u64,
    /// The number.
    pub number: u64,
}

impl Moment {
    /// Returns when its span begins, since the world began.
    pub fn begin(self) -> Duration {
        Duration::from_nanos(self.span << SPAN_BITS)
    }
}

/// A fate that is not drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    /// A segment takes so long, whatever the weather.
    Segment {
        /// From this machine.
        from: String,
        /// To that one.
        to: String,
        /// Which of them.
        moment: Moment,
        /// How long.
        #[serde(rename = "delay_ms", with = "crate::case::ms")]
        delay: Duration,
    },
    /// A sync of a file ends in this way.
    Sync {
        /// On this machine.
        host: String,
        /// Of this file.
        path: String,
        /// Which of them.
        moment: Moment,
        /// How.
        end: SyncEnd,
    },
}

/// How a sync ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncEnd {
    /// All is durable.
    Kept,
    /// It fails, and drops what it should have made durable (D5).
    Fails,
    /// It says that it succeeds, and keeps some of the writes (D6).
    Lies,
}

impl SyncEnd {
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Kept => 0,
            Self::Fails => 1,
            Self::Lies => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(draw: impl Fn(u64) -> bool) -> f64 {
        let hits = (0..100_000).filter(|number| draw(*number)).count();
        f64::from(u32::try_from(hits).unwrap()) / 100_000.0
    }

    #[test]
    fn neighbours_are_independent_and_even() {
        let root = Fate::root(&Rng::new(7));
        let hit = |fate: Fate| fate.chance(For::Flip, 0.3);
        assert!((share(|n| hit(root.of(n))) - 0.3).abs() < 0.01);
        // Two segments in a row, two purposes of one segment, the same segment of two links.
        let both = share(|n| hit(root.of(n)) && hit(root.of(n + 1)));
        assert!((both - 0.09).abs() < 0.01, "{both}");
        let both = share(|n| hit(root.of(n)) && root.of(n).chance(For::Reset, 0.3));
        assert!((both - 0.09).abs() < 0.01, "{both}");
        let (one, two) = (root.named("n1>n2"), root.named("n1>n3"));
        let both = share(|n| hit(one.of(n)) && hit(two.of(n)));
        assert!((both - 0.09).abs() < 0.01, "{both}");
    }

    #[test]
    fn one_more_shifts_only_its_own_span() {
        let fate = Fate::root(&Rng::new(1)).named("link");
        let draws = |times: &[u64]| -> Vec<u64> {
            let mut passing = Passing::new(fate);
            times.iter().map(|at| passing.next(*at << SPAN_BITS).bits(For::Latency)).collect()
        };
        let (with, without) = (draws(&[1, 1, 1, 2, 3, 3]), draws(&[1, 1, 2, 3, 3]));
        assert_eq!(with[..2], without[..2]);
        assert_eq!(with[3..], without[2..]);
    }

    #[test]
    fn what_is_decided_is_not_drawn() {
        let mut passing = Passing::new(Fate::default());
        passing.decide(Moment { span: 2, number: 1 }, 99);
        let decided: Vec<_> = [1, 2, 2, 2]
            .map(|span| passing.next_decided(span << SPAN_BITS).1)
            .into_iter()
            .collect();
        assert_eq!(decided, [None, None, Some(99), None]);
    }
}
