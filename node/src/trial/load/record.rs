//! What came out of a load.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Failure;
use crate::base::Instant;

/// Longest latency that is told apart.
const LATENCY_MAX: Duration = Duration::from_mins(1);

/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Length of a slice of time.
const SLICE: Duration = Duration::from_millis(100);

/// The latencies of one kind of request.
#[derive(Debug, Clone)]
pub struct Series {
    micros: Histogram<u64>,
}

impl Default for Series {
    fn default() -> Self {
        let micros = Histogram::new_with_bounds(1, micros(LATENCY_MAX), DIGITS);
        let Ok(micros) = micros else { unreachable!("{DIGITS} digits up to {LATENCY_MAX:?}") };
        Self { micros }
    }
}

impl Series {
    fn add(&mut self, latency: Duration) {
        self.micros.saturating_record(micros(latency));
    }

    /// Returns how many requests were answered.
    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    /// Returns a percentile of the latency in milliseconds; 100 is the longest.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        let micros = self.micros.value_at_percentile(percentile);
        f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1e3
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        let added = self.micros.add(&other.micros);
        assert!(added.is_ok(), "both have the same bounds: {added:?}");
    }
}

/// What happened in a tenth of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Slice {
    /// Requests that were answered.
    pub answered: u32,
    /// Requests that failed.
    pub failed: u32,
    /// Longest latency of those that were answered, in microseconds.
    pub longest_us: u64,
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How long was recorded.
    pub elapsed: Duration,
    /// Writes that were acknowledged.
    pub sets: Series,
    /// Reads that were answered.
    pub gets: Series,
    /// How often requests failed, by why.
    pub errors: BTreeMap<&'static str, u64>,
    /// Reads that did not see a write that had been acknowledged before they began; counted if
    /// that was asked for.
    pub stale_reads: u64,
    /// Longest time without a write that was acknowledged.
    pub longest_gap: Duration,
    /// Tenth by tenth of a second.
    pub timeline: Vec<Slice>,
}

impl Outcome {
    /// The length of a slice of the timeline.
    pub const SLICE: Duration = SLICE;

    /// Returns how many requests failed.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Returns the requests answered per second.
    pub fn per_second(&self) -> f64 {
        self.rate_of(self.sets.count() + self.gets.count())
    }

    /// Returns so many requests as a rate.
    pub fn rate_of(&self, count: u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { float(count) / seconds } else { 0.0 }
    }

    /// Returns the latencies of all requests together.
    pub fn all(&self) -> Series {
        let mut all = self.sets.clone();
        all.merge(&self.gets);
        all
    }
}

/// Takes down what happens, as it does.
#[derive(Debug)]
pub(super) struct Recorder {
    outcome: Outcome,
    /// From here on it counts.
    begin: Instant,
    last_set: Instant,
}

impl Recorder {
    pub(super) fn new(begin: Instant) -> Self {
        Self { outcome: Outcome::default(), begin, last_set: begin }
    }

    fn slice(&mut self, now: Instant) -> &mut Slice {
        let slices = now.since(self.begin).as_nanos() / SLICE.as_nanos();
        let at = usize::try_from(slices).unwrap_or(0);
        if self.outcome.timeline.len() <= at {
            self.outcome.timeline.resize(at + 1, Slice::default());
        }
        let Some(slice) = self.outcome.timeline.get_mut(at) else {
            unreachable!("slice {at} was made")
        };
        slice
    }

    /// Takes down a request that was due at `due` and is answered now.
    pub(super) fn on_answered(&mut self, due: Instant, now: Instant, is_set: bool) {
        if due < self.begin {
            return;
        }
        let latency = now.since(due);
        if is_set {
            self.close_gap(now);
        }
        let series = if is_set { &mut self.outcome.sets } else { &mut self.outcome.gets };
        series.add(latency);
        let slice = self.slice(now);
        slice.answered += 1;
        slice.longest_us = slice.longest_us.max(micros(latency));
    }

    pub(super) fn on_failed(&mut self, due: Instant, now: Instant, failure: &Failure) {
        if due < self.begin {
            return;
        }
        *self.outcome.errors.entry(failure.0).or_default() += 1;
        self.slice(now).failed += 1;
    }

    pub(super) fn on_stale(&mut self) {
        self.outcome.stale_reads += 1;
    }

    fn close_gap(&mut self, now: Instant) {
        let gap = now.since(self.last_set);
        self.outcome.longest_gap = self.outcome.longest_gap.max(gap);
        self.last_set = now;
    }

    /// Returns how many requests were answered so far.
    pub(super) fn answered(&self) -> u64 {
        self.outcome.sets.count() + self.outcome.gets.count()
    }

    pub(super) fn finish(mut self, end: Instant) -> Outcome {
        if self.outcome.sets.count() > 0 {
            self.close_gap(end);
        }
        self.outcome.elapsed = end.since(self.begin);
        self.outcome
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Returns a count as a number to reckon with; exact up to 2^53.
pub(in crate::trial) fn float(count: u64) -> f64 {
    const HALF: f64 = 4_294_967_296.0;
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).map_or(0.0, f64::from);
    half(count >> 32) * HALF + half(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn what_was_due_before_the_warm_up_ended_does_not_count() {
        let mut recorder = Recorder::new(at(1_000));
        recorder.on_answered(at(999), at(1_500), true);
        recorder.on_failed(at(10), at(1_500), &Failure("timeout"));
        recorder.on_answered(at(1_000), at(1_250), true);
        recorder.on_failed(at(1_300), at(1_310), &Failure("timeout"));
        let outcome = recorder.finish(at(3_000));
        assert_eq!((outcome.sets.count(), outcome.error_count()), (1, 1));
        assert!((outcome.sets.percentile_ms(50.0) - 250.0).abs() < 1.0);
        let slices: Vec<_> = outcome.timeline.iter().map(|slice| slice.answered).collect();
        assert_eq!(slices, [0, 0, 1, 0]);
        assert!((outcome.per_second() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn gap_is_the_longest_time_between_two_acknowledged_writes_or_an_end() {
        let mut recorder = Recorder::new(at(0));
        for ms in [10, 30, 400, 420] {
            recorder.on_answered(at(ms - 5), at(ms), true);
        }
        recorder.on_answered(at(425), at(430), false);
        assert_eq!(recorder.answered(), 5);
        assert_eq!(recorder.finish(at(500)).longest_gap, Duration::from_millis(370));
    }
}
