//! What came out of a load.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Failure;
use crate::base::Instant;

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
        // It grows with what it is given: what waited for minutes is told as such.
        let Ok(micros) = Histogram::new(DIGITS) else { unreachable!("{DIGITS} digits") };
        Self { micros }
    }
}

impl Series {
    fn add(&mut self, latency: Duration) {
        let added = self.micros.record(micros(latency));
        assert!(added.is_ok(), "{latency:?} has a place: {added:?}");
    }

    /// Returns how many requests were answered.
    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    /// Returns a percentile of the latency in milliseconds; 100 is the longest.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        float(self.micros.value_at_percentile(percentile)) / 1e3
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        let added = self.micros.add(&other.micros);
        assert!(added.is_ok(), "there is a place for all: {added:?}");
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
    /// Requests that were due in an open loop before its end, and not sent: those before them had
    /// not been answered.
    pub never_sent: u64,
    /// How often requests failed, by why.
    pub errors: BTreeMap<&'static str, u64>,
    /// Reads that did not see a write that had been acknowledged before they began; counted if
    /// that was asked for.
    pub stale_reads: u64,
    /// Longest time without a write that was acknowledged: all of it, if none was. `None` if none
    /// was tried.
    pub longest_gap: Option<Duration>,
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
    /// When the last write was acknowledged, and when the last one was over, however it ended.
    last_set: Instant,
    last_set_over: Instant,
    /// Writes that were tried.
    sets_tried: u64,
}

impl Recorder {
    pub(super) fn new(begin: Instant) -> Self {
        let outcome = Outcome::default();
        Self { outcome, begin, last_set: begin, last_set_over: begin, sets_tried: 0 }
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
            self.on_set_over(now);
            self.close_gap(now);
        }
        let series = if is_set { &mut self.outcome.sets } else { &mut self.outcome.gets };
        series.add(latency);
        let slice = self.slice(now);
        slice.answered += 1;
        slice.longest_us = slice.longest_us.max(micros(latency));
    }

    /// Takes down a request that was due at `due` and fails now.
    pub(super) fn on_failed(
        &mut self,
        due: Instant,
        now: Instant,
        is_set: bool,
        failure: &Failure,
    ) {
        if due < self.begin {
            return;
        }
        if is_set {
            self.on_set_over(now);
        }
        *self.outcome.errors.entry(failure.0).or_default() += 1;
        self.slice(now).failed += 1;
    }

    pub(super) fn on_stale(&mut self) {
        self.outcome.stale_reads += 1;
    }

    fn on_set_over(&mut self, now: Instant) {
        self.sets_tried += 1;
        self.last_set_over = self.last_set_over.max(now);
    }

    fn close_gap(&mut self, now: Instant) {
        let gap = now.since(self.last_set);
        self.outcome.longest_gap = self.outcome.longest_gap.max(Some(gap));
        self.last_set = now;
    }

    /// Returns how many requests were answered so far.
    pub(super) fn answered(&self) -> u64 {
        self.outcome.sets.count() + self.outcome.gets.count()
    }

    /// Takes down requests that were due and not sent.
    pub(super) fn on_never_sent(&mut self, count: u64) {
        self.outcome.never_sent += count;
    }

    /// Ends a load that was to end at `load_end`, and whose last request was over at `end`.
    pub(super) fn finish(mut self, load_end: Instant, end: Instant) -> Outcome {
        if self.sets_tried > 0 {
            // Nobody wrote after the load's end but who had begun before: what only reads waited
            // for is no time without a write.
            self.close_gap(load_end.min(end).max(self.last_set_over));
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
        recorder.on_failed(at(10), at(1_500), true, &Failure("timeout"));
        recorder.on_answered(at(1_000), at(1_250), true);
        recorder.on_failed(at(1_300), at(1_310), true, &Failure("timeout"));
        let outcome = recorder.finish(at(3_000), at(3_000));
        assert_eq!((outcome.sets.count(), outcome.error_count()), (1, 1));
        assert!((outcome.sets.percentile_ms(50.0) - 250.0).abs() < 1.0);
        let slices: Vec<_> = outcome.timeline.iter().map(|slice| slice.answered).collect();
        assert_eq!(slices, [0, 0, 1, 0]);
        assert!((outcome.per_second() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn latencies_of_minutes_and_hours_are_told_apart() {
        let (mut series, mut longer) = (Series::default(), Series::default());
        series.add(Duration::from_secs(150));
        longer.add(Duration::from_hours(3));
        series.merge(&longer);
        let [half, longest] = [50.0, 100.0].map(|p| series.percentile_ms(p) / 1e3);
        assert!((half / 150.0 - 1.0).abs() < 1e-3, "{half} s");
        assert!((longest / 10_800.0 - 1.0).abs() < 1e-3, "{longest} s");
    }

    #[test]
    fn gap_is_the_longest_time_between_two_acknowledged_writes_or_an_end() {
        let mut recorder = Recorder::new(at(0));
        for ms in [10, 30, 400, 420] {
            recorder.on_answered(at(ms - 5), at(ms), true);
        }
        recorder.on_answered(at(425), at(430), false);
        assert_eq!(recorder.answered(), 5);
        let outcome = recorder.finish(at(500), at(500));
        assert_eq!(outcome.longest_gap, Some(Duration::from_millis(370)));
    }

    #[test]
    fn gap_is_all_of_the_time_if_every_write_fails_and_none_if_none_was_tried() {
        let mut failing = Recorder::new(at(1_000));
        failing.on_failed(at(1_100), at(1_200), true, &Failure("timeout"));
        failing.on_answered(at(1_300), at(1_310), false);
        let outcome = failing.finish(at(4_000), at(4_000));
        assert_eq!(outcome.longest_gap, Some(Duration::from_secs(3)));
        let mut reading = Recorder::new(at(1_000));
        reading.on_answered(at(1_300), at(1_310), false);
        reading.on_failed(at(1_100), at(1_200), false, &Failure("timeout"));
        assert_eq!(reading.finish(at(4_000), at(4_000)).longest_gap, None);
    }

    #[test]
    fn gap_ends_with_the_load_unless_a_write_was_still_under_way() {
        let gap = |more: fn(&mut Recorder)| {
            let mut recorder = Recorder::new(at(0));
            recorder.on_answered(at(0), at(900), true);
            more(&mut recorder);
            recorder.finish(at(1_000), at(9_000)).longest_gap.map(|gap| gap.as_millis())
        };
        assert_eq!(gap(|recorder| recorder.on_answered(at(990), at(9_000), false)), Some(900));
        let failing = |recorder: &mut Recorder| {
            recorder.on_failed(at(990), at(8_000), true, &Failure("timeout"));
        };
        assert_eq!(gap(failing), Some(7_100), "nobody could write until then");
        assert_eq!(gap(|recorder| recorder.on_answered(at(990), at(7_000), true)), Some(6_100));
        // A load that ends early, after so many requests, ends then.
        let mut early = Recorder::new(at(0));
        early.on_answered(at(0), at(10), true);
        assert_eq!(early.finish(at(60_000), at(20)).longest_gap, Some(Duration::from_millis(10)));
    }
}
