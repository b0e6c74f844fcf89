//! The classes of faults and how often each happened.
//!
//! Every fault has a code, the same in traces, reports and commit messages. For each, two
//! numbers are kept: how often it was *injected*, and how often it was *observable*, which means
//! that it changed at least one byte, error or delay that a node saw, or that a power loss
//! dropped something. A fault that is never observable proves nothing, so a test may demand it.

use std::collections::BTreeMap;

macro_rules! faults {
    ($($code:ident: $what:literal),* $(,)?) => {
        /// One class of fault, named by its code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $(#[doc = $what] $code),* }

        impl Fault {
            /// Every class.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// Returns the code, such as "D5".
            pub const fn code(self) -> &'static str {
                match self { $(Self::$code => stringify!($code)),* }
            }

            /// Returns what it is, in words.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$code => $what),* }
            }

            /// Returns the class of that code.
            pub fn of(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|fault| fault.code() == code)
            }
        }
    };
}

faults! {
    P1: "process crash: the page cache survives, memory does not",
    P2: "power loss, strict: only what was synced survives",
    P3: "power loss that keeps an arbitrary subset of what was not synced",
    P4: "power loss of several machines at the same time",
    P5: "pause and resume of a process",
    P7: "a wiped or swapped disk",
    P9: "crash during recovery, again and again",
    C1: "fixed offset of a wall clock",
    C2: "drift of both clocks",
    C3: "jump of a wall clock",
    C4: "a clock that stands still for a process and then catches up, with a pause",
    C5: "timers that fire late",
    D1: "torn write: a random set of its sectors survives a power loss",
    D2: "reordered persistence: a later write survives a power loss, an earlier one does not",
    D3: "a rename lost, half done, or ahead of the data of its file",
    D4: "a creation or removal lost",
    D5: "a sync that fails once and drops what it should have made durable",
    D6: "a sync that lies: it succeeds, but some writes stay volatile",
    D7: "a write that fails after a part of it",
    D8: "no space",
    D9: "a sector that cannot be read until it is written again",
    D10: "a flipped bit in durable bytes",
    D15: "a disk that stalls or is slow",
    N1: "packet loss: the stream stalls until the retransmission",
    N2: "a long delay",
    N4: "a partition",
    N5: "traffic held and then delivered in a burst",
    N6: "many machines clogged and unclogged at random times",
    N7: "a connection reset, half closed or black-holed",
    N8: "flipped bits in delivered bytes",
    N9: "a link with little bandwidth",
    N10: "a fault on a link between a client and a server",
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
