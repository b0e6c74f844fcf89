//! Scripts: what happens to a store, a cluster, replicas or a client, drawn from the input.
//!
//! The input is read with the crate `arbitrary`, event by event until it ends, so that every input
//! is a script and a small change of it is a small change of what happens. The events are those of
//! the node's own property tests, and so are the oracles: a plain map, the invariants that the
//! cores check after each step, and, once everything is healed, that replicas are equal and that
//! nothing which was acknowledged is lost. Where proptest draws every schedule anew, libFuzzer goes
//! on from one that reached code which no other did.
//!
//! # Left out
//! The network, the disk and the scheduler as the whole node meets them: the simulation has those.

mod clusters;
mod merge;
mod session;
mod store;

use crate::{Kind, Target};

/// The structured targets, the slowest last.
pub const TARGETS: &[Target] = &[SESSION_TOKEN, MERGE, STORE, RAFT, DYNAMO_WRITES, DYNAMO_READS];

/// What a client's session makes of any answers.
pub const SESSION_TOKEN: Target = Target {
    name: "session_token",
    kind: Kind::Script,
    what: "what a client's session makes of any answers",
    run: session::token,
    seeds: session::token_seeds,
    bytes_max: (256 << 10, 256),
};

/// One merge rule: memtable, tables, compaction, coordinator, anti-entropy.
pub const MERGE: Target = Target {
    name: "merge",
    kind: Kind::Script,
    what: "one merge rule: memtable, tables, compaction, coordinator, anti-entropy",
    run: merge::merge,
    seeds: scripts,
    bytes_max: SCRIPT,
};

/// The table store against a map, with crashes and power losses.
pub const STORE: Target = Target {
    name: "store",
    kind: Kind::Script,
    what: "the table store against a map, with crashes and power losses",
    run: store::store,
    seeds: scripts,
    bytes_max: SCRIPT,
};

/// A cluster of the primary-backup mode under any schedule.
pub const RAFT: Target = Target {
    name: "raft",
    kind: Kind::Script,
    what: "a cluster of the primary-backup mode under any schedule",
    run: clusters::raft,
    seeds: scripts,
    bytes_max: SCRIPT,
};

/// A masterless cluster under any schedule: writes, hints, batches.
pub const DYNAMO_WRITES: Target = Target {
    name: "dynamo_writes",
    kind: Kind::Script,
    what: "a masterless cluster under any schedule: writes, hints, batches",
    run: clusters::dynamo_writes,
    seeds: scripts,
    bytes_max: SCRIPT,
};

/// A masterless cluster under any schedule: reads, repair, convergence.
pub const DYNAMO_READS: Target = Target {
    name: "dynamo_reads",
    kind: Kind::Script,
    what: "a masterless cluster under any schedule: reads, repair, convergence",
    run: clusters::dynamo_reads,
    seeds: scripts,
    bytes_max: SCRIPT,
};

/// What a script may allocate.
const SCRIPT: (usize, usize) = (32 << 20, 64 << 10);

/// Returns scripts of nothing in particular.
fn scripts() -> Vec<Vec<u8>> {
    let mut rng = mangrove::base::Rng::new(7);
    let script = |len: u64| (0..len).map(|_| rng.next_u64() as u8).collect();
    [0, 8, 30, 100, 300, 600].into_iter().map(script).collect()
}
