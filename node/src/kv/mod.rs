//! Commands and queries of the store, and the deterministic state machine that carries them out.

pub mod command;
pub mod query;

pub use command::{Batch, Command, CommandReply, Condition, Expectation, Mutation};
pub use query::{Cell, Query, QueryReply, Version};
