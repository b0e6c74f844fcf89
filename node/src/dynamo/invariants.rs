//! The invariants of one node, numbered as in the [module's](super) essay.
//!
//! They run after every step wherever debug assertions are on. What concerns several nodes (that
//! an acknowledged write is durable where it was acknowledged, that replicas become equal) is
//! checked from outside.

use super::core::{Dynamo, Startup};
use crate::base::Stamp;

/// What was true after the last step, for what must never go back.
#[derive(Debug, Default)]
pub(super) struct Seen {
    clock: Stamp,
    generation: u64,
}

impl Dynamo {
    /// Checks the invariants where that is switched on.
    pub(super) fn check_after_step(&mut self) {
        if cfg!(debug_assertions) || self.context.config.check_invariants {
            self.check_invariants();
        }
    }

    fn check_invariants(&mut self) {
        let (clock, generation) = (self.context.clock.last(), self.context.generation);
        let seen = &self.seen;
        assert!(clock >= seen.clock, "D1: the clock went back from {} to {clock}", seen.clock);
        let given = self.context.clock.given();
        assert!(given.ms() <= clock.ms().max(self.context.clock.wall_ms()), "D1: gave {given}");
        assert!(
            generation >= seen.generation && (self.startup != Startup::Started || generation > 0),
            "D6: generation {generation} after {}",
            seen.generation
        );
        self.context.check();
        self.writes.check(&self.context);
        self.hints.check(&self.context.config);
        self.batches.check();
        self.reads.check(&self.context);
        self.trees.check(&self.context);
        self.sync.check(&self.context);
        self.floors.check(&self.context);
        self.check_waiting();
        self.seen = Seen { clock, generation };
    }

    fn check_waiting(&self) {
        let (count, config) = (self.waiting.len(), &self.context.config);
        assert!(
            count <= config.waiting_count_max && self.waiting_bytes <= config.waiting_bytes_max,
            "D5: {count} requests of {} bytes wait",
            self.waiting_bytes
        );
    }
}
