//! Liveness: once the faults are over, the cluster serves again, soon. [Raft §5.6, Thesis §9]
//!
//! **Property.** From the moment when a majority is up, connected and has working disks: within a
//! first deadline there is a leader, within a second one a write is acknowledged, within a third
//! one all healthy nodes have applied everything that is committed.
//!
//! **Why the obvious check is wrong.** "In the end everything works" holds of every cluster if one
//! waits long enough, and of none if one does not stop breaking it. So there is a definite moment
//! of healing, after which the harness injects nothing and, in some runs, keeps away the nodes that
//! are not part of the healed majority (`healing`), and definite deadlines. A deadline that merely
//! passes or fails hides a cluster that gets slower: the times are kept, so that they can be
//! compared over many runs. And any new fault resets the phase, so that a run cannot be accused for
//! what happened under faults.
//!
//! **What is skipped.** Availability under faults: it is measured elsewhere, not promised.

use mangrove::base::Index;

use super::{Violation, broken};

/// How long each step after healing may take, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until somebody leads.
    pub leader_ns: u64,
    /// Until a write is acknowledged.
    pub serve_ns: u64,
    /// Until all healthy nodes have applied what is committed.
    pub converge_ns: u64,
}

/// How long each step took, in nanoseconds since healing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Until somebody led.
    pub leader_ns: Option<u64>,
    /// Until a write was acknowledged.
    pub serve_ns: Option<u64>,
    /// Until all healthy nodes had applied what was committed.
    pub converge_ns: Option<u64>,
}

/// Watches the time after healing.
#[derive(Debug)]
pub struct Liveness {
    deadlines: Deadlines,
    healed: Option<u64>,
    recovery: Recovery,
}

impl Liveness {
    /// Starts with faults allowed.
    pub fn new(deadlines: Deadlines) -> Self {
        Self { deadlines, healed: None, recovery: Recovery::default() }
    }

    /// Takes note that from now on a majority is healthy.
    pub fn observe_healed(&mut self, at: u64) {
        self.healed = Some(at);
        self.recovery = Recovery::default();
    }

    /// Takes note of a fault: nothing is promised until the next healing.
    pub fn observe_fault(&mut self) {
        self.healed = None;
    }

    /// Takes note that a healthy node leads, and that the others follow it.
    pub fn observe_leader(&mut self, at: u64) {
        Self::note(self.healed, at, &mut self.recovery.leader_ns);
    }

    /// Takes note that a write which was sent after the healing was acknowledged.
    pub fn observe_served(&mut self, at: u64) {
        Self::note(self.healed, at, &mut self.recovery.serve_ns);
    }

    /// Takes note of the applied index of every healthy node, and the last committed index.
    pub fn observe_applied(&mut self, at: u64, applied: &[Index], committed: Index) {
        if !applied.is_empty() && applied.iter().all(|index| *index >= committed) {
            Self::note(self.healed, at, &mut self.recovery.converge_ns);
        }
    }

    fn note(healed: Option<u64>, at: u64, slot: &mut Option<u64>) {
        if let Some(healed) = healed {
            slot.get_or_insert(at.saturating_sub(healed));
        }
    }

    /// Compares the time that has passed with the deadlines; to be called now and then.
    pub fn check(&self, at: u64) -> Result<(), Violation> {
        let Some(healed) = self.healed else { return Ok(()) };
        let passed = at.saturating_sub(healed);
        let steps = [
            ("nobody leads", self.recovery.leader_ns, self.deadlines.leader_ns),
            ("no write was acknowledged", self.recovery.serve_ns, self.deadlines.serve_ns),
            ("the nodes differ", self.recovery.converge_ns, self.deadlines.converge_ns),
        ];
        for (missing, done, deadline) in steps {
            let took = done.unwrap_or(passed);
            if took > deadline {
                let what = format!(
                    "{missing} {took} ns after healing at {healed}; the deadline is {deadline} ns"
                );
                return broken("liveness", at, what);
            }
        }
        Ok(())
    }

    /// Returns how long each step after the last healing took.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }
}
