//! How a client puts a batch together, one change after the other.
//!
//! ```
//! use mangrove::base::{Column, Key, Value};
//! use mangrove::kv::{Batch, Expectation};
//!
//! # fn main() -> Result<(), mangrove::base::TooLarge> {
//! let (alice, bob, balance) = (Key::new("alice")?, Key::new("bob")?, Column::new("balance")?);
//! let transfer = Batch::new()
//!     .require(alice.clone(), balance.clone(), Expectation::Value(Value::new("10")?))
//!     .set(alice, balance.clone(), Value::new("7")?)
//!     .set(bob, balance, Value::new("3")?);
//! assert_eq!((transfer.conditions.len(), transfer.mutations.len()), (1, 2));
//! # Ok(())
//! # }
//! ```

use super::command::{Batch, Condition, Expectation, Mutation};
use crate::base::{Column, Key, Value};

/// Bytes that a condition or a mutation counts besides its key, column and value.
const OPERATION_OVERHEAD_BYTES: usize = 16;

impl Batch {
    /// Returns the batch that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the batch that sets one cell if it is as expected.
    pub fn compare_and_set(key: Key, column: Column, expected: Expectation, value: Value) -> Self {
        Self::new().require(key.clone(), column.clone(), expected).set(key, column, value)
    }

    /// Adds the condition that a cell be as expected before the batch. There may be
    /// [`CONDITION_COUNT_MAX`](crate::base::limits::CONDITION_COUNT_MAX) of them.
    #[must_use]
    pub fn require(mut self, key: Key, column: Column, expected: Expectation) -> Self {
        self.conditions.push(Condition { key, column, expected });
        self
    }

    /// Sets a cell.
    #[must_use]
    pub fn set(mut self, key: Key, column: Column, value: Value) -> Self {
        self.mutations.push(Mutation::Set { key, column, value });
        self
    }

    /// Deletes a cell.
    #[must_use]
    pub fn delete(mut self, key: Key, column: Column) -> Self {
        self.mutations.push(Mutation::Delete { key, column });
        self
    }

    /// Deletes all columns of a key.
    #[must_use]
    pub fn delete_row(mut self, key: Key) -> Self {
        self.mutations.push(Mutation::DeleteRow { key });
        self
    }

    /// Returns how many conditions and mutations it has, to be compared with
    /// [`BATCH_COUNT_MAX`](crate::base::limits::BATCH_COUNT_MAX).
    pub fn count(&self) -> usize {
        self.conditions.len() + self.mutations.len()
    }

    /// Returns how many bytes it counts, to be compared with
    /// [`BATCH_BYTES_MAX`](crate::base::limits::BATCH_BYTES_MAX).
    pub fn bytes(&self) -> usize {
        let conditions = self.conditions.iter().map(Condition::bytes);
        let mutations = self.mutations.iter().map(Mutation::bytes);
        conditions.chain(mutations).sum()
    }
}

impl Condition {
    fn bytes(&self) -> usize {
        let expected = match &self.expected {
            Expectation::Value(value) => value.len(),
            Expectation::Absent | Expectation::Present | Expectation::Version(_) => 0,
        };
        OPERATION_OVERHEAD_BYTES + self.key.len() + self.column.len() + expected
    }
}

impl Mutation {
    /// Returns how many bytes it counts in a batch, see [`Batch::bytes`].
    pub fn bytes(&self) -> usize {
        OPERATION_OVERHEAD_BYTES
            + match self {
                Self::Set { key, column, value } => key.len() + column.len() + value.len(),
                Self::Delete { key, column } => key.len() + column.len(),
                Self::DeleteRow { key } => key.len(),
            }
    }
}
