//! The primary-backup protocol: Raft as a plain value.
//!
//! A cluster of replicas keeps one log of commands; whatever is in it below the commit index is
//! there for ever, in the same place on all of them, and each applies it in that order to its own
//! state machine. The shell (floor F5) drives a replica through [`base::Core`](crate::base::Core):
//! it feeds [`Input`]s and carries out [`Ready`] values. In here there is no network, no disk, no
//! clock and no task, so the same code runs on real machines, in the simulation, under a fuzzer
//! and in the tests below, where a cluster is five values in a map.
//!
//! # The life of a write
//! A client's command is [proposed](Input::Propose) to the leader, which appends it to its log in
//! memory; nothing else happens until a [`Ready`] is taken. That one carries a request to persist
//! the new entries and, at the same time, one append message per follower: the leader's disk and
//! its followers' disks write in parallel. A follower checks that the entry before the first new
//! one is the same as its own, cuts off what contradicts, appends, and asks its disk; once the
//! disk has it, it tells the leader up to where. When a majority (which may not include the
//! leader) has an entry durable, and the entry is of the leader's own term, it is committed, with
//! everything before it; the leader hands it to its state machine with the client's [`Token`], and
//! the followers learn the commit index from the next append or heartbeat.
//!
//! # The life of a read
//! Reads never touch the log. A leader notes its commit index, makes sure by one round of messages
//! that it still was the leader after the read arrived, and serves from its state machine once
//! that has applied the noted index: see `read.rs`.
//!
//! # When the leader is lost
//! A follower that hears nothing for a randomised time asks the others whether it could win
//! (pre-vote), then raises its term and asks for votes; a replica votes once per term, and only
//! for somebody whose log is at least as up to date as its own. So the winner has everything that
//! was committed, and makes the others' logs equal to its own: see `election.rs`. Who waits for an
//! answer at the old leader is told the truth: a read was not served, a proposal may or may not
//! take effect.
//!
//! # The disk
//! What is promised to others must survive a crash: a term, a vote, an entry. The core therefore
//! counts what its shell has reported as durable, and *no message that makes a promise exists
//! before*: there is nothing the shell could send too early. Persist requests may overlap, and what
//! an unfinished one writes may be taken back meanwhile: see `durable.rs`. An entry may be applied
//! before it is durable *here*, because it is on a majority elsewhere; so the state machine, and
//! a snapshot of it, may be ahead of the own log on disk, and a restart finds that normal.
//!
//! A disk that lost entries it had acknowledged is a different matter: the replica no longer
//! knows what it has promised. If the shell finds that out it says so
//! ([`Recovered::damaged_last`]), and the replica behaves in elections as if it still had the lost
//! entries, until it has got them again from others. If the shell does not (the disk lied), the
//! leader learns of it by a rejection below what was acknowledged, tells the replica, and sends
//! everything again; the commit index never goes back.
//!
//! A disk that is empty may have lost everything, or belong to a cluster that is new. Whoever
//! starts on one takes part in nothing before all others have said how they stand: see
//! `standing.rs`.
//!
//! # Invariants
//! Checked after every step where debug assertions are on (`invariants.rs`), and where they are
//! about to be broken.
//! - **R1** The term never goes back, and within a term the vote is given once.
//! - **R2** base ≤ snapshot ≤ handed out to the state machine ≤ commit ≤ last index, applied ≤
//!   handed out; terms in the log never decrease nor exceed the current one.
//! - **R3** What is counted as durable is in the log, and was written as it is there now; nothing
//!   is acknowledged beyond it, nor beyond what is verified to equal the leader's log.
//! - **R4** The commit index never goes back, and a leader moves it only to entries of its own
//!   term.
//! - **R5** One leader per term, whose term and vote for itself are durable.
//! - **R6** What is committed is never truncated, replaced by a snapshot, or contradicted by a
//!   leader. (Where entries count as durable before they are, the shell looks for that first: see
//!   `replication.rs`.)
//! - **R7** A snapshot stands for applied entries, and is never replaced by an older one.
//! - **R8** For each follower match < next ≤ last + 1, and the window is kept to.
//! - **R9** Whoever does not know yet what it has forgotten follows nobody; and it has an empty log
//!   and neither term nor vote, unless it is unsure of what it has promised.
//!
//! A violation stops the node. What a peer sends is checked first: nonsense and strangers are
//! ignored, while two leaders of one term are no nonsense but the end of all promises.
//!
//! # Left out
//! - *Membership change.* The voters are fixed when the node starts. Joint consensus concerns
//!   every quorum, log truncation and snapshots, and is the part of this protocol in which
//!   most systems had bugs; a store that can be moved by snapshot to a new cluster can wait.
//! - *Leader leases.* They save the round of a read and make its correctness depend on the drift
//!   of clocks; a round is shared by all reads that wait, so it is cheap.
//! - *Learners, witnesses, reads at followers.* Nothing here would count them, and every read is
//!   linearizable without them.
//! - *Leadership transfer.* An orderly stop costs one election time-out, as a crash does.
//! - *Forwarding of proposals.* A follower answers who leads; the client's library goes there.
//!   Forwarding makes duplicates and hides where time is spent.
//! - *Keeping the log for a slow follower.* See `snapshot.rs`. How such a follower has its leader
//!   send less: see `replication.rs`.
//!
//! # Layout
//! `core` (state, dispatch, proposals, what a `Ready` holds), `election`, `replication`, `read`,
//! `snapshot`, `standing`: the protocol. `log`, `durable`, `progress`, `quorum`: its values.
//! `message`, `ready`: the types at its edges. `invariants`; `tests` (the paper, rule by rule),
//! `goldens` (traces to read), `properties` (arbitrary schedules), on a common `harness`.
//!
//! # Sources
//! \[Raft\] for everything not said otherwise; \[Thesis §6.4\] read-only requests, \[Thesis §9.6\]
//! pre-vote and the refusal of votes under a live leader, \[Thesis §10.2.1\] writing to the
//! leader's disk in parallel. etcd-io/raft showed the shape of `Ready`, and that a late fsync must
//! not vouch for entries of the same index that replaced those it wrote; \[CTRL\] what a node owes
//! the others after its disk lost something.

pub mod core;
mod durable;
mod election;
mod invariants;
pub mod log;
pub mod message;
pub mod progress;
pub mod quorum;
mod read;
pub mod ready;
mod replication;
mod snapshot;
pub mod standing;

#[cfg(test)]
mod goldens;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(not(test), expect(dead_code, reason = "the goldens and the tests use all of it"))]
mod harness;
#[cfg(any(test, feature = "testing"))]
pub mod properties;
#[cfg(test)]
mod tests;

pub use self::core::{Config, Raft, Role};
pub use log::Log;
pub use message::{AppendOutcome, Entry, EntryKind, Message, SnapshotMeta, SnapshotOutcome};
pub use progress::{Progress, ProgressState};
pub use ready::{
    Committed, HardState, Input, Persist, PersistId, Ready, Recovered, Reply, SnapshotRead,
    SnapshotWrite, Token,
};
pub use standing::{Awaited, Standing};
