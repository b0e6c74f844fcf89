//! What clients could measure in runs of one scenario with one subject.

use std::collections::BTreeMap;
use std::time::Duration;

use super::scenario::{CLIENTS, LOAD_BEGIN, LOAD_END, PACE};
use crate::history::{Answer, Call, CellId, EventKind, History, OpId, Operation, Outcome, ValueId};
use crate::run::Report;
use crate::swarm::{float, percentile};
use crate::world::Sent;

/// Length of a slice of the timeline.
pub(super) const SLICE: Duration = Duration::from_millis(250);

/// What came of the runs so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Runs.
    pub runs: u64,
    /// Requests that were due.
    pub due: u64,
    /// Latencies of the writes that were acknowledged, in microseconds.
    pub writes_us: Vec<u64>,
    /// Latencies of the reads that were answered, in microseconds.
    pub reads_us: Vec<u64>,
    /// Requests that certainly were not applied, or not answered.
    pub refused: u64,
    /// Writes of which the client does not know whether they were applied.
    pub unknown: u64,
    /// Reads that returned what had been replaced before they began.
    pub stale: u64,
    /// Acknowledged writes that were replaced by an older one.
    pub lost: u64,
    /// Longest time without an acknowledged write, of each run, in milliseconds.
    pub gaps_ms: Vec<u64>,
    /// Time from healing until all replicas were equal, of each run, in milliseconds.
    pub converge_ms: Vec<u64>,
    /// Requests answered in each slice of the load, of all runs.
    pub timeline: Vec<u64>,
    /// What nodes sent each other while there was load.
    pub between_nodes: Sent,
}

impl Figures {
    /// Returns those of one run.
    pub(super) fn of(report: &Report) -> Self {
        let history = &report.history;
        let asked_by = |op: OpId| report.names.get(&op).map(|name| name.client);
        let is_load = |op: OpId| asked_by(op).is_some_and(|client| client <= CLIENTS);
        let mut figures = Self {
            runs: 1,
            due: due(),
            between_nodes: report.traffic,
            converge_ms: vec![millis(report.time_to_converge)],
            ..Self::default()
        };
        let mut last_write = nanos(LOAD_BEGIN);
        let mut gap = 0;
        for event in history.events() {
            let operation = history.op(event.op);
            if event.kind != EventKind::End || !is_load(event.op) {
                continue;
            }
            let began = time_of(history, operation.invoked);
            let latency_us = event.time_ns.saturating_sub(began) / 1_000;
            let is_write = matches!(operation.call, Call::Set { .. });
            match (&operation.outcome, is_write) {
                (Outcome::Ok(_), true) => {
                    figures.writes_us.push(latency_us);
                    gap = gap.max(event.time_ns.saturating_sub(last_write));
                    last_write = event.time_ns;
                }
                (Outcome::Ok(_), false) => figures.reads_us.push(latency_us),
                (Outcome::Info, true) => figures.unknown += 1,
                (Outcome::Fail | Outcome::Info | Outcome::Open, _) => figures.refused += 1,
            }
            if matches!(operation.outcome, Outcome::Ok(_)) {
                figures.count_answer(event.time_ns);
            }
        }
        gap = gap.max(nanos(LOAD_END).saturating_sub(last_write));
        figures.gaps_ms.push(gap / 1_000_000);
        let writes = Writes::of(history, is_load);
        figures.stale = writes.stale_reads(history, is_load);
        figures.lost = writes.lost(history, is_load);
        figures
    }

    fn count_answer(&mut self, time_ns: u64) {
        let slice = time_ns.saturating_sub(nanos(LOAD_BEGIN)) / nanos(SLICE);
        let slice = usize::try_from(slice).unwrap_or(usize::MAX);
        if slice < slice_count() {
            self.timeline.resize(slice_count(), 0);
        }
        if let Some(count) = self.timeline.get_mut(slice) {
            *count += 1;
        }
    }

    /// Adds those of other runs.
    pub(super) fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.due += other.due;
        self.writes_us.extend(other.writes_us);
        self.reads_us.extend(other.reads_us);
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.stale += other.stale;
        self.lost += other.lost;
        self.gaps_ms.extend(other.gaps_ms);
        self.converge_ms.extend(other.converge_ms);
        self.timeline.resize(self.timeline.len().max(other.timeline.len()), 0);
        for (sum, count) in self.timeline.iter_mut().zip(other.timeline) {
            *sum += count;
        }
        self.between_nodes.segments += other.between_nodes.segments;
        self.between_nodes.bytes += other.between_nodes.bytes;
    }

    /// Returns how many requests were answered.
    pub fn answered(&self) -> u64 {
        let count = self.writes_us.len() + self.reads_us.len();
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Returns how many of a hundred requests that were due were answered.
    pub fn availability_percent(&self) -> f64 {
        float(self.answered()) * 100.0 / float(self.due.max(1))
    }

    /// Returns a percentile of the latencies of writes, in milliseconds.
    pub fn write_ms(&self, percent: usize) -> f64 {
        float(percentile(&self.writes_us, percent)) / 1e3
    }

    /// Returns a percentile of the latencies of reads, in milliseconds.
    pub fn read_ms(&self, percent: usize) -> f64 {
        float(percentile(&self.reads_us, percent)) / 1e3
    }

    /// Returns what nodes sent each other for each request that was answered: segments, bytes.
    pub fn sent_per_answer(&self) -> (f64, f64) {
        let answered = float(self.answered().max(1));
        (float(self.between_nodes.segments) / answered, float(self.between_nodes.bytes) / answered)
    }

    /// Returns how many requests a run answered each second, slice by slice: seconds since the
    /// cluster was started, and that.
    pub fn rates(&self) -> Vec<(f64, f64)> {
        let slice = SLICE.as_secs_f64();
        let rate = |count: u64| float(count) / float(self.runs.max(1)) / slice;
        let begins = (0_u32..).map(|at| LOAD_BEGIN.as_secs_f64() + f64::from(at) * slice);
        begins.zip(self.timeline.iter().map(|count| rate(*count))).collect()
    }
}

/// Returns how many requests are due in one run.
fn due() -> u64 {
    let of_one = |client: u32| {
        let length = load().saturating_sub(PACE / CLIENTS * client);
        nanos(length).div_ceil(nanos(PACE))
    };
    (1..=CLIENTS).map(of_one).sum()
}

/// Returns how long the load is.
fn load() -> Duration {
    LOAD_END.saturating_sub(LOAD_BEGIN)
}

fn slice_count() -> usize {
    usize::try_from(nanos(load()) / nanos(SLICE)).unwrap_or(0)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn time_of(history: &History, event: u32) -> u64 {
    history.events().get(index(event)).map_or(0, |event| event.time_ns)
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The writes of the load that were acknowledged.
struct Writes {
    /// By cell: when each was invoked and when it ended, as positions of events.
    of_cell: BTreeMap<CellId, Vec<(u32, u32)>>,
    /// By the value that it wrote: when it ended.
    ended: BTreeMap<ValueId, u32>,
}

impl Writes {
    fn of(history: &History, is_load: impl Fn(OpId) -> bool) -> Self {
        let mut writes = Self { of_cell: BTreeMap::new(), ended: BTreeMap::new() };
        for (_, operation) in operations(history, is_load) {
            let Call::Set { cell, value } = operation.call else { continue };
            if let (Outcome::Ok(_), Some(ended)) = (&operation.outcome, operation.ended) {
                writes.of_cell.entry(cell).or_default().push((operation.invoked, ended));
                writes.ended.insert(value, ended);
            }
        }
        writes
    }

    /// Returns since when a value stands at the latest; `None` if its write may take effect at any
    /// time, because nobody knows what became of it.
    fn stands_since(&self, value: ValueId) -> Option<u32> {
        if value == ValueId::ABSENT { Some(0) } else { self.ended.get(&value).copied() }
    }

    /// Returns how many writes of a cell began after one event and ended before another.
    fn between(&self, cell: CellId, after: u32, before: u32) -> u64 {
        let writes = self.of_cell.get(&cell).into_iter().flatten();
        let count = writes.filter(|(invoked, ended)| *invoked > after && *ended < before).count();
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Counts the reads that returned a value although another one had been written entirely after
    /// it and entirely before the read.
    fn stale_reads(&self, history: &History, is_load: impl Fn(OpId) -> bool) -> u64 {
        let is_stale = |(_, operation): &(OpId, &Operation)| {
            let Call::Get { cell } = operation.call else { return false };
            let Outcome::Ok(Answer::Value(value)) = operation.outcome else { return false };
            let since = self.stands_since(value);
            since.is_some_and(|since| self.between(cell, since, operation.invoked) > 0)
        };
        let count = operations(history, is_load).filter(is_stale).count();
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Counts the writes that began after the one had ended whose value stands in the end.
    fn lost(&self, history: &History, is_load: impl Fn(OpId) -> bool) -> u64 {
        let mut last: BTreeMap<CellId, ValueId> = BTreeMap::new();
        for (_, operation) in operations(history, |op| !is_load(op)) {
            if let Outcome::Ok(Answer::Values(values)) = &operation.outcome {
                last.extend(values.iter().copied());
            }
        }
        let lost = last.into_iter().map(|(cell, value)| {
            self.stands_since(value).map_or(0, |since| self.between(cell, since, u32::MAX))
        });
        lost.sum()
    }
}

fn operations(
    history: &History,
    which: impl Fn(OpId) -> bool,
) -> impl Iterator<Item = (OpId, &Operation)> {
    let numbered = (0..).map(OpId).zip(history.ops());
    numbered.filter(move |(op, _)| which(*op))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history of one cell, told as the events of single operations.
    struct Told(History);

    impl Told {
        fn set(&mut self, value: &str) {
            let cell = self.0.cell("k", "");
            let value = self.0.value(value);
            let process = self.0.new_process();
            let op = self.0.invoke(process, Call::Set { cell, value }, 0);
            self.0.ok(op, Answer::Done, 0);
        }

        fn get(&mut self, found: Option<&str>) {
            let cell = self.0.cell("k", "");
            let found = found.map_or(ValueId::ABSENT, |found| self.0.value(found));
            let process = self.0.new_process();
            let op = self.0.invoke(process, Call::Get { cell }, 0);
            self.0.ok(op, Answer::Value(found), 0);
        }

        fn stale(&self) -> u64 {
            Writes::of(&self.0, |_| true).stale_reads(&self.0, |_| true)
        }
    }

    #[test]
    fn read_is_stale_if_something_was_written_since_and_before() {
        let mut told = Told(History::new());
        told.get(None);
        told.set("a");
        told.get(Some("a"));
        assert_eq!(told.stale(), 0);
        told.get(None);
        assert_eq!(told.stale(), 1);
        told.set("b");
        told.get(Some("b"));
        told.get(Some("a"));
        assert_eq!(told.stale(), 2);
    }

    #[test]
    fn value_of_a_write_in_doubt_is_never_stale() {
        let mut told = Told(History::new());
        let cell = told.0.cell("k", "");
        let value = told.0.value("late");
        let process = told.0.new_process();
        let op = told.0.invoke(process, Call::Set { cell, value }, 0);
        told.0.info(op, 0);
        told.set("a");
        told.get(Some("late"));
        assert_eq!(told.stale(), 0);
    }

    #[test]
    fn write_is_lost_if_an_older_one_stands_in_the_end() {
        let mut told = Told(History::new());
        for value in ["a", "b", "c"] {
            told.set(value);
        }
        let is_load = |op: OpId| op.0 < 3;
        let lost = |last: &str| {
            let mut history = told.0.clone();
            let (cell, value) = (history.cell("k", ""), history.value(last));
            let process = history.new_process();
            let op = history.invoke(process, Call::MultiGet([cell].into()), 0);
            history.ok(op, Answer::Values([(cell, value)].into()), 0);
            Writes::of(&history, is_load).lost(&history, is_load)
        };
        assert_eq!(["c", "b", "a"].map(lost), [0, 1, 2]);
    }

    #[test]
    fn as_many_requests_are_due_as_clients_are_told() {
        let case = super::super::SCENARIOS[0].case(super::super::Subject::Quorum, 3);
        let listed = case.operations.map_or(0, |operations| operations.len());
        assert_eq!(u64::try_from(listed), Ok(due()));
    }
}
