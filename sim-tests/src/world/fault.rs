//! The classes of faults and how often each happened.
//!
//! Every fault has a code, the same in traces, reports and commit messages. For each, two
//! numbers are kept: how often it was *injected*, and how often it was *observable*, which means
//! that it changed at least one byte, error or delay that a node saw, or that a power loss
//! dropped something. A fault that is never observable proves nothing, so a test may demand it.

use std::collections::BTreeMap;

macro_rules! faults {
    ($($(#[$doc:meta])* $code:ident),* $(,)?) => {
        /// One class of fault, named by its code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $code),* }

        impl Fault {
            /// Every class.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// Returns the code, such as "D5".
            pub const fn code(self) -> &'static str {
                match self { $(Self::$code => stringify!($code)),* }
            }
        }
    };
}

faults! {
    /// Process crash: the page cache survives, memory does not.
    P1,
    /// Power loss, strict: only what was synced survives.
    P2,
    /// Power loss that keeps an arbitrary subset of what was not synced.
    P3,
    /// Power loss of several machines at the same time.
    P4,
    /// Pause and resume of a process.
    P5,
    /// A wiped or swapped disk.
    P7,
    /// Crash during recovery, again and again.
    P9,
    /// Fixed offset of a wall clock.
    C1,
    /// Drift of both clocks.
    C2,
    /// Jump of a wall clock.
    C3,
    /// A clock that stands still for a process and then catches up, with a pause.
    C4,
    /// Timers that fire late.
    C5,
    /// Torn write: a random set of its sectors survives a power loss.
    D1,
    /// Reordered persistence: a later write survives a power loss, an earlier one does not.
    D2,
    /// A rename lost, half done, or ahead of the data of its file.
    D3,
    /// A creation or removal lost.
    D4,
    /// A sync that fails once and drops what it should have made durable.
    D5,
    /// A sync that lies: it succeeds, but some writes stay volatile.
    D6,
    /// A write that fails after a part of it.
    D7,
    /// No space.
    D8,
    /// A flipped bit in durable bytes.
    D10,
    /// A disk that stalls or is slow.
    D15,
    /// Packet loss: the stream stalls until the retransmission.
    N1,
    /// A long delay.
    N2,
    /// A partition.
    N4,
    /// Traffic held and then delivered in a burst.
    N5,
    /// Many machines clogged and unclogged at random times.
    N6,
    /// A connection reset, half closed or black-holed.
    N7,
    /// Flipped bits in delivered bytes.
    N8,
    /// A link with little bandwidth.
    N9,
    /// A fault on a link between a client and a server.
    N10,
}

impl Fault {
    const fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

const _: () = assert!(Fault::ALL.len() <= 32, "a set of faults fits its 32 bits");

/// A small set of faults, carried by the bytes that they disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FaultSet(u32);

impl FaultSet {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0 |= fault.bit();
    }

    pub(super) fn contains(self, fault: Fault) -> bool {
        self.0 & fault.bit() != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How often each fault was injected, and how often that could be observed.
#[derive(Debug, Default)]
pub(super) struct FaultLedger {
    /// In the order of [`Fault::ALL`].
    counts: [(u64, u64); Fault::ALL.len()],
}

impl FaultLedger {
    pub(super) fn injected(&mut self, fault: Fault) {
        self.counts[fault as usize].0 += 1;
    }

    pub(super) fn observed(&mut self, fault: Fault) {
        self.counts[fault as usize].1 += 1;
    }

    pub(super) fn observed_all(&mut self, faults: FaultSet) {
        if faults.is_empty() {
            return;
        }
        for fault in Fault::ALL.iter().copied().filter(|fault| faults.contains(*fault)) {
            self.observed(fault);
        }
    }

    pub(super) fn by_code(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let codes = Fault::ALL.iter().map(|fault| fault.code());
        codes.zip(self.counts).collect()
    }
}
