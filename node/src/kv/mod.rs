//! Commands and queries of the store, and the deterministic state machine that carries them out.
//!
//! A client writes a [`Command`] and sends its encoding; it travels as opaque bytes through the
//! log of the primary-backup protocol, and every replica's [`Machine`] carries it out in log
//! order. A [`Query`] never enters the log: the replica that may answer it does so from its
//! machine. The cells stand behind [`crate::storage::Engine`]; client [`session`]s, which make a
//! retried write take effect once, are part of the replicated state.
//!
//! In the masterless mode there is no such machine: a command becomes [`changes()`] of single
//! cells, a query becomes a [`Plan`] of ranges to be read, and each node keeps what it hears of in
//! a [`CellStore`].
//!
//! # Left out
//! Who may answer a query, and when a command is committed: [`crate::raft`] and [`crate::dynamo`]
//! decide that.

pub mod builder;
pub mod cell_store;
mod cells_read;
pub mod changes;
pub mod command;
mod conditions;
pub mod machine;
pub mod plan;
pub mod query;
pub mod read;
mod row_read;
pub mod session;
mod store_read;
pub mod validate;

#[cfg(test)]
mod tests;

pub use cell_store::CellStore;
pub use changes::{RefusedCommand, changes};
pub use command::{Batch, Command, CommandReply, Condition, Expectation, Mutation};
pub use machine::Machine;
pub use plan::{Plan, Step};
pub use query::{Cell, Query, QueryReply, Version};
pub use read::{QueryError, Turn};
pub use validate::{InvalidRequest, validate, validate_batch, validate_query};
