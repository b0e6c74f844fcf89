//! What changes the state machine. Commands are encoded once, by the client, and travel as opaque
//! bytes through the log.

use bincode::{Decode, Encode};

use super::query::{Cell, Version};
use crate::base::{Column, Key, RequestSeq, SessionId, Value};

/// An entry of the replicated log, as the state machine understands it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Registers a client session whose id is its log index, as clients did before protocol 5. In
    /// logs of that time only.
    RegisterByIndex {
        /// Random, and of no use.
        nonce: u64,
    },
    /// A write within a session: takes effect once, however often it arrives.
    Write {
        /// The session.
        session: SessionId,
        /// Number of the write in the session.
        seq: RequestSeq,
        /// The client has the answers of all writes below this one: they may be forgotten.
        acked_below: RequestSeq,
        /// What to do.
        batch: Batch,
    },
    /// Registers a client session. [Thesis §6.3]
    Register {
        /// Random: makes the id of the session one that no other log gives, too.
        nonce: u64,
    },
}

/// Mutations that take effect together if all conditions hold, else not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Batch {
    /// All must hold on the state before the batch.
    pub conditions: Vec<Condition>,
    /// Applied in order; a later one wins over an earlier one of the same cell.
    pub mutations: Vec<Mutation>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Mutation {
    /// Sets a cell.
    Set {
        /// The key.
        key: Key,
        /// The column.
        column: Column,
        /// The new value.
        value: Value,
    },
    /// Deletes a cell; fine if there is none.
    Delete {
        /// The key.
        key: Key,
        /// The column.
        column: Column,
    },
    /// Deletes all columns of a key; fine if there are none.
    DeleteRow {
        /// The key.
        key: Key,
    },
}

/// A condition on one cell.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Condition {
    /// The key.
    pub key: Key,
    /// The column.
    pub column: Column,
    /// What must be there.
    pub expected: Expectation,
}

/// What a cell must be for a condition to hold.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Expectation {
    /// There is no such cell.
    Absent,
    /// There is one, with any value.
    Present,
    /// There is one with this value.
    Value(Value),
    /// There is one written at this version.
    Version(Version),
}

/// What became of a command; part of the replicated state for as long as it may be retried.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CommandReply {
    /// The session is registered under this id.
    Registered(SessionId),
    /// All mutations took effect, at this version.
    Applied(Version),
    /// A condition did not hold; nothing took effect.
    ConditionFailed {
        /// Which condition, counted from 0.
        position: u32,
        /// The cell as it is.
        current: Option<Cell>,
    },
    /// There is no such session (it was pushed out by newer ones); nothing took effect now.
    /// An earlier try of the same write may have.
    SessionExpired,
    /// The answer of that write was forgotten because the client had said that it has it, or the
    /// session has too many answers outstanding; nothing took effect now.
    OutOfWindow,
    /// The bytes were no command that this version understands; nothing took effect.
    Malformed,
}
