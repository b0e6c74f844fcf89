//! The trace of a run: a hash over every event, and on demand one aligned line for each.
//!
//! The hash is folded from numbers only, whether or not lines are recorded, so that recording
//! never changes it and a run that nobody watches formats nothing. It covers every byte that is
//! read from a connection or written to a file, so two runs of one seed are the same run exactly
//! if their hashes are equal. To see where two runs part, both are recorded as
//! [`Record::Everything`], and their lines compared: see [`determinism`](crate::determinism).

use std::fmt;
use std::fmt::Write as _;

use super::Host;

/// What a run writes down of what happens in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Record {
    /// Nothing; the hash is kept in any case.
    #[default]
    Nothing,
    /// A line for each event that a person may want to read.
    Lines,
    /// A line for each event that the hash covers, the frequent ones too, with its numbers, and
    /// one for each disk at every tick, with the hash of all that is durable there.
    Everything,
}

/// The running hash and, if recorded, the lines.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    event_count: u64,
    names: Vec<String>,
    record: Record,
    lines: Vec<String>,
}

/// An odd number with well-mixed bits (2^64 divided by the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Trace {
    pub(super) fn new(record: Record) -> Self {
        Self { hash: MIX, event_count: 0, names: Vec::new(), record, lines: Vec::new() }
    }

    pub(super) fn name_host(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn event_count(&self) -> u64 {
        self.event_count
    }

    pub(super) fn records_everything(&self) -> bool {
        self.record == Record::Everything
    }

    pub(super) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Folds an event that is too frequent for a line that a person reads.
    pub(super) fn fold(&mut self, now: u64, host: Host, kind: &'static str, numbers: (u64, u64)) {
        self.mix(now, host, numbers);
        if self.records_everything() {
            self.note(now, host, kind, numbers, &"");
        }
    }

    /// Folds an event and records a line for it.
    pub(super) fn event(
        &mut self,
        now: u64,
        host: Host,
        kind: &'static str,
        numbers: (u64, u64),
        text: impl FnOnce() -> String,
    ) {
        self.mix(now, host, (fold_bytes(kind.as_bytes()) ^ numbers.0, numbers.1));
        match self.record {
            Record::Nothing => {}
            Record::Lines => self.line(now, host, kind, &text()),
            Record::Everything => self.note(now, host, kind, numbers, &text()),
        }
    }

    /// Records a line that the hash does not cover.
    pub(super) fn note(
        &mut self,
        now: u64,
        host: Host,
        kind: &'static str,
        numbers: (u64, u64),
        text: &dyn fmt::Display,
    ) {
        let (a, b) = numbers;
        self.line(now, host, kind, &format_args!("{a:x} {b:x} {text}"));
    }

    fn mix(&mut self, now: u64, host: Host, numbers: (u64, u64)) {
        self.event_count += 1;
        let host = u64::try_from(host.0).unwrap_or(u64::MAX);
        for word in [now ^ host.rotate_left(48), numbers.0, numbers.1] {
            self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(MIX);
        }
        self.hash ^= self.hash >> 32;
    }

    fn line(&mut self, now: u64, host: Host, kind: &'static str, text: &dyn fmt::Display) {
        let name = self.names.get(host.0).map_or("world", String::as_str);
        let (seconds, micros) = (now / 1_000_000_000, now / 1_000 % 1_000_000);
        let mut line = String::with_capacity(80);
        // Writing to a string cannot fail.
        if write!(line, "{seconds:>5}.{micros:06}  {name:<5}  {kind:<14}  {text}").is_ok() {
            self.lines.push(line);
        }
    }
}

/// Hashes bytes into one word, eight at a time.
pub(super) fn fold_bytes(bytes: &[u8]) -> u64 {
    let mut hash = MIX;
    for piece in bytes.chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(piece) {
            *to = *from;
        }
        hash = (hash.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(MIX);
    }
    hash ^ (hash >> 29)
}
