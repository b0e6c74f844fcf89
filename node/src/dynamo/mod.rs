//! The masterless protocol: leaderless replication as a plain value.
//!
//! Keys hash to partitions, and a table says which nodes hold a [partition](placement). Any node
//! takes any request, and *coordinates* it: it asks the replicas, and answers when as many as the
//! request's [level](Level) says have answered. Nobody leads, so no failure stops the others, and
//! two writes of the same cell may happen at once: the one with the larger [stamp](crate::base)
//! wins, on every replica, in whatever order they arrive. The shell (floor F5) drives a node
//! through [`base::Core`](crate::base::Core): it feeds [`Input`]s and carries out [`Ready`] values.
//! In here there is no network, no disk, no clock and no task, so the same code runs on real
//! machines, in the simulation, and in the tests below, where a cluster is a few values in a map.
//!
//! # The life of a write
//! The coordinator gives the request a stamp, larger than everything it has seen, and sends every
//! replica its share. A replica has its disk make the share durable, applies it by the rule above,
//! and acknowledges. When enough of them have, the client is answered; the others go on. Who does
//! not answer gets a *hint*: a note on the coordinator's disk, delivered when the replica is back.
//! A write that not enough replicas answered in time is neither done nor undone, and the client is
//! told so: see `write.rs`, `hint.rs`.
//!
//! A request whose shares differ is a *batch*: two nodes keep it until it is finished, so that it
//! happens as a whole or not at all: see `batch.rs`.
//!
//! # The life of a read
//! The coordinator asks as many replicas as the level says, one for everything and the others for
//! a digest. If they differ it merges what they have and repairs those that lack something, and
//! only then answers, so that nobody reads an older state after a newer one: see `read.rs`.
//!
//! # What level promises what
//! If reads and writes ask for more than half of the replicas, a read sees every write that was
//! acknowledged before it began, or a newer one, and reads never go back. It is not
//! linearizability: of two writes at the same time one wins by its stamp, whoever was told first.
//! With level One there is no such promise; replicas become equal in the end, and what a client
//! has seen it can carry along as a stamp, which its next write will exceed.
//!
//! # How replicas become equal
//! Hints and repairs heal what somebody noticed; anti-entropy heals the rest: neighbours compare
//! trees of hashes and exchange what differs (`merkle.rs`, `sync.rs`). A deletion leaves a
//! tombstone, which must not go before every replica has it, or the deleted comes back from
//! somebody who was away: a proof of that is a *floor* (`floor.rs`).
//!
//! # The disk
//! What is promised to others must survive a crash: an acknowledged share, a hint that settles a
//! write, a kept batch, the *generation* that makes this start's messages different from the last
//! one's, the ceiling of its stamps. Everything is a record of the same log, and *no message that
//! makes a promise exists before* its record is durable. Records of many requests gather while the
//! disk is busy, and go to it as one. A disk without space refuses what is new; what it was asked
//! for already may become durable any time, and is in doubt.
//!
//! A disk that lost what it had acknowledged is a different matter: the node says so to others,
//! takes writes, and answers no reads until it has compared everything with everybody.
//!
//! # Clocks
//! Stamps order writes, and clocks make stamps, so a clock that is hours ahead could have its
//! writes win for hours. Heartbeats tell what all clocks show, and a node whose own is far ahead of
//! what a majority has reached gives no stamps; what was given is believed by everybody, so that
//! nothing that was acknowledged is ever refused. `clock.rs` has the rule and what it rests on.
//!
//! # Invariants
//! Checked after every step where debug assertions are on (`invariants.rs`), and where they are
//! about to be broken. What several nodes promise together is checked from outside (`harness`).
//! - **D1** A node gives no stamp twice, and each larger than all it gave or saw; over restarts,
//!   too, because none reaches the durable ceiling. None is given while the own wall clock is too
//!   far ahead of the others'.
//! - **D2** What follows from a record follows after it is durable and handed out to be applied;
//!   persist requests are numbered in the order they are made, and few are under way.
//! - **D3** A write is answered once, `Written` only if of each set of replicas it touches as many
//!   different ones as the level asks for have acknowledged; a hint or an error is none.
//! - **D4** Every answer is waited for by one part at most; a write is under way until each share
//!   is acknowledged, hinted durably, or counted as dropped.
//! - **D5** Every structure keeps to its limit, and what is counted is what is there.
//! - **D6** Generations grow, and nothing is sent before the own one is durable.
//! - **D7** A hint leaves only when its target has it or refuses it, or dropped and counted.
//! - **D8** A batch is kept here until it is finished or its end is heard of, and something will
//!   always bring that about.
//! - **D9** Floors never go back.
//! - **D10** A tree is of the entries above a floor that is known here.
//! - **D11** Every read under way has somebody who waits, or a budget, and a time at which it ends.
//! - **D12** A node that is not whole has somebody left to compare with.
//! - **D13** A fence is durable before it is told, and no floor rises above it.
//! - **D14** Once it is known that a peer's disk was lost, nothing that it was asked before is
//!   waited for. A node whose disk was lost compares nothing before nobody counts what was on it.
//!
//! A violation stops the node. What a peer sends is checked first: nonsense and strangers are
//! ignored.
//!
//! # Left out
//! - *Membership change.* The placement is fixed when the node starts; it has a version and a
//!   hash, by which nodes with another one are told apart. Moving partitions under writes is the
//!   part of such systems that had most bugs.
//! - *Conditions and transactions.* They need agreement, which the other mode has.
//! - *Sloppy quorums.* A hint on a node that is no replica would count as nothing for any reader.
//! - *Siblings and version vectors.* One of two writes at the same time wins, per cell; who wants
//!   to keep both gives them two columns.
//! - *Gossip.* Everybody sends everybody heartbeats; beyond some dozen nodes that would be too
//!   much.
//!
//! # Layout
//! `core` (state and dispatch), `waiting` (requests before the node can do them), `context` (what
//! the parts share), `config`. The parts: `write`, `hint`, `batch`, `read` with `plan`, `group`
//! and `merge`, `merkle`, `sync` with `outline`, `floor`, `clock`, `detector`. `message`, `ready`,
//! `placement`, `notes`: the types at the edges.
//! `invariants`; `tests` and `healing_tests` (rule by rule), `goldens` (traces to read),
//! `properties` (arbitrary schedules), on a common `harness`.
//!
//! # Sources
//! \[Dynamo\] for the shape; unlike there, quorums are strict, versions are stamps, and hints
//! count for nothing. \[HLC\] the clock, \[Phi\] the failure detector. Cassandra showed digest
//! reads, blocking repair and the batch log; Scylla that tombstones may go when a repair has
//! proven something, and not when they are old.

mod batch;
mod clock;
pub mod config;
mod context;
pub mod core;
mod detector;
mod floor;
mod group;
mod hint;
mod invariants;
mod merge;
pub mod merkle;
pub mod message;
pub mod notes;
mod outline;
pub mod placement;
mod plan;
mod read;
pub mod ready;
mod sync;
mod waiting;
mod write;

#[cfg(test)]
mod goldens;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(not(test), expect(dead_code, reason = "the goldens and the tests use all of it"))]
mod harness;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(not(test), expect(dead_code, reason = "its tests use all of it"))]
pub mod healing_tests;
#[cfg(any(test, feature = "testing"))]
pub mod properties;
#[cfg(test)]
mod tests;

pub use self::core::{Dynamo, DynamoStatus};
pub use config::{Config, READ_RANGES_MAX, Repair};
#[cfg(feature = "testing")]
pub use merge::merged;
pub use message::{
    Chunk, Heartbeat, Message, Outlined, Range, ReadReply, RequestId, SyncMessage, WriteOutcome,
};
pub use placement::{Partition, Placement};
pub use ready::{
    Change, Found, Input, LeafChanges, Level, Persist, PersistId, ReadId, Ready, Record, Recovered,
    Reply, StoreRead, Token,
};
