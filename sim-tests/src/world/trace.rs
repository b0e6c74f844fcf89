//! The trace of a run: a hash over every event, and on demand one aligned line for each.
//!
//! The hash is folded from numbers only, whether or not lines are recorded, so that recording
//! never changes it and a run that nobody watches formats nothing. Two runs of one seed are the
//! same run exactly if their hashes are equal.

use std::fmt::Write as _;

use super::Host;

/// The running hash and, if recorded, the lines.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    event_count: u64,
    names: Vec<String>,
    lines: Option<Vec<String>>,
}

/// An odd number with well-mixed bits (2^64 divided by the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Trace {
    pub(super) fn new(record: bool) -> Self {
        Self { hash: MIX, event_count: 0, names: Vec::new(), lines: record.then(Vec::new) }
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

    pub(super) fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Folds an event that is too frequent for a line of its own.
    pub(super) fn fold(&mut self, now: u64, host: Host, a: u64, b: u64) {
        self.event_count += 1;
        let host = u64::try_from(host.0).unwrap_or(u64::MAX);
        for word in [now, host, a, b] {
            self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(MIX);
        }
        self.hash ^= self.hash >> 32;
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
        self.fold(now, host, fold_bytes(kind.as_bytes()), numbers.0);
        self.fold(now, host, numbers.1, 0);
        let Some(lines) = &mut self.lines else { return };
        let name = self.names.get(host.0).map_or("world", String::as_str);
        let (seconds, micros) = (now / 1_000_000_000, now / 1_000 % 1_000_000);
        let mut line = String::with_capacity(80);
        // Writing to a string cannot fail.
        if write!(line, "{seconds:>5}.{micros:06}  {name:<5}  {kind:<14}  {}", text()).is_ok() {
            lines.push(line);
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
