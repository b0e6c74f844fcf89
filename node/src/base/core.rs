//! The shape of a protocol core: a plain value that is stepped and asked what to do next.

use super::Instant;

/// A replication protocol without I/O, clock, tasks or randomness of its own.
///
/// The shell, the simulator, the fuzzer and the benchmarks drive any core like this and in no
/// other way: feed inputs with [`step`](Core::step), call [`tick`](Core::tick) no later than
/// [`deadline`](Core::deadline), and carry out what [`take_ready`](Core::take_ready) returns.
///
/// A ready value has **no ordering contract**: it holds only what may happen at once. A vote or
/// an acknowledgement that must wait for an fsync appears in a later one, after the shell has
/// said that the fsync is done. The order is a type, not a paragraph.
pub trait Core {
    /// Everything that can happen to the core.
    type Input;
    /// Everything the core wants done.
    type Ready;

    /// Takes one input, at `now` on this node's monotonic clock.
    fn step(&mut self, now: Instant, input: Self::Input);

    /// Lets time pass: fires every timer that is due at `now`.
    fn tick(&mut self, now: Instant);

    /// Returns what is to be done since the last call; empty when there is nothing.
    fn take_ready(&mut self) -> Self::Ready;

    /// Returns when [`tick`](Core::tick) must be called next at the latest.
    fn deadline(&self) -> Instant;
}
