//! Liveness: once the faults are over, the cluster serves again, soon. [Raft §5.6, Thesis §9]
//!
//! **Property.** From the moment of healing on: somebody leads, and all nodes have applied
//! everything that is committed, within [`CONVERGE_MAX`]; then a write is acknowledged, within
//! [`SERVE_MAX`] of the same moment; then every cell can be read. The run itself asks, in its last
//! phase, which is written there ([`run`](crate::run), [`masterless`](crate::masterless)).
//!
//! **Why the obvious check is wrong.** "In the end everything works" holds of every cluster if one
//! waits long enough, and of none if one does not stop breaking it. So there is a definite moment
//! of healing, after which the harness injects nothing and, in some runs, keeps away the nodes that
//! are not part of the healed majority (`healing`, with bounds of its own), and definite deadlines.
//! A deadline that merely passes or fails hides a cluster that gets slower: in runs that are
//! [timed](crate::liveness) the times are kept, so that they can be compared over many.
//!
//! **What is skipped.** Availability under faults: it is measured elsewhere, not promised.

use std::time::Duration;

/// Longest time from healing until somebody leads and every replica has applied everything.
pub const CONVERGE_MAX: Duration = Duration::from_mins(1);

/// Longest time from healing until a write is acknowledged, which is asked for as soon as the
/// replicas are equal. That takes seconds; a write that waits for longer than this is one that a
/// client gave up long ago.
pub const SERVE_MAX: Duration = Duration::from_mins(1);

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
