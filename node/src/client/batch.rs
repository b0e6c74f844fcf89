//! Putting an atomic batch together, and checking it before it travels.

use bytes::Bytes;

use super::error::ClientError;
use crate::base::limits::{BATCH_BYTES_MAX, BATCH_COUNT_MAX, MULTI_GET_COUNT_MAX};
use crate::base::{Column, Key, TooLarge, Value};
use crate::kv::{Batch, Condition, Expectation, Mutation};

/// Bytes that one mutation or condition may need besides its key, column and value: tags and
/// lengths.
const OVERHEAD_BYTES: usize = 32;

/// Builds a [`Batch`]; the first part that is over its limit fails the whole.
///
/// ```
/// use mangrove::client::BatchBuilder;
///
/// let batch = BatchBuilder::new()
///     .expect_absent("account/7", "owner")
///     .set_cell("account/7", "owner", "mia")
///     .set_cell("account/7", "balance", "0")
///     .delete("application/7")
///     .build()?;
/// assert_eq!(batch.mutations.len(), 3);
/// # Ok::<(), mangrove::client::ClientError>(())
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct BatchBuilder {
    batch: Batch,
    error: Option<TooLarge>,
}

impl BatchBuilder {
    /// Starts an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the cell of plain key-value data, that of the empty column.
    pub fn set(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.set_cell(key, Bytes::new(), value)
    }

    /// Sets a cell.
    pub fn set_cell(
        self,
        key: impl Into<Bytes>,
        column: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Self {
        let parts = || Ok((Key::new(key)?, Column::new(column)?, Value::new(value)?));
        self.with(parts, |batch, (key, column, value)| {
            batch.mutations.push(Mutation::Set { key, column, value });
        })
    }

    /// Deletes the cell of plain key-value data.
    pub fn delete(self, key: impl Into<Bytes>) -> Self {
        self.delete_cell(key, Bytes::new())
    }

    /// Deletes a cell; fine if there is none.
    pub fn delete_cell(self, key: impl Into<Bytes>, column: impl Into<Bytes>) -> Self {
        let parts = || Ok((Key::new(key)?, Column::new(column)?));
        self.with(parts, |batch, (key, column)| {
            batch.mutations.push(Mutation::Delete { key, column });
        })
    }

    /// Deletes all columns of a key.
    pub fn delete_row(self, key: impl Into<Bytes>) -> Self {
        self.with(|| Key::new(key), |batch, key| batch.mutations.push(Mutation::DeleteRow { key }))
    }

    /// Demands that a cell is as expected on the state before the batch.
    pub fn expect(
        self,
        key: impl Into<Bytes>,
        column: impl Into<Bytes>,
        expected: Expectation,
    ) -> Self {
        let parts = || Ok((Key::new(key)?, Column::new(column)?));
        self.with(parts, |batch, (key, column)| {
            batch.conditions.push(Condition { key, column, expected });
        })
    }

    /// Demands that a cell has this value.
    pub fn expect_value(
        mut self,
        key: impl Into<Bytes>,
        column: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Self {
        match Value::new(value) {
            Ok(value) => self.expect(key, column, Expectation::Value(value)),
            Err(error) => {
                self.error.get_or_insert(error);
                self
            }
        }
    }

    /// Demands that there is no such cell.
    pub fn expect_absent(self, key: impl Into<Bytes>, column: impl Into<Bytes>) -> Self {
        self.expect(key, column, Expectation::Absent)
    }

    /// Returns the batch.
    ///
    /// # Errors
    /// A key, column or value is over its limit, or the batch as a whole is.
    pub fn build(self) -> Result<Batch, ClientError> {
        match self.error {
            Some(error) => Err(error.into()),
            None => check_batch(&self.batch).map(|()| self.batch),
        }
    }

    fn with<T>(
        mut self,
        parts: impl FnOnce() -> Result<T, TooLarge>,
        push: impl FnOnce(&mut Batch, T),
    ) -> Self {
        match parts() {
            Ok(parts) => push(&mut self.batch, parts),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
        self
    }
}

/// Returns how many bytes a mutation counts towards [`BATCH_BYTES_MAX`], at most.
pub(crate) fn mutation_bytes(mutation: &Mutation) -> usize {
    let bytes = match mutation {
        Mutation::Set { key, column, value } => key.len() + column.len() + value.len(),
        Mutation::Delete { key, column } => key.len() + column.len(),
        Mutation::DeleteRow { key } => key.len(),
    };
    bytes + OVERHEAD_BYTES
}

fn condition_bytes(condition: &Condition) -> usize {
    let expected = match &condition.expected {
        Expectation::Absent | Expectation::Present | Expectation::Version(_) => 0,
        Expectation::Value(value) => value.len(),
    };
    condition.key.len() + condition.column.len() + expected + OVERHEAD_BYTES
}

/// Refuses a batch that no node would take.
pub(super) fn check_batch(batch: &Batch) -> Result<(), ClientError> {
    let count = batch.mutations.len() + batch.conditions.len();
    if count > BATCH_COUNT_MAX {
        return Err(ClientError::Invalid(format!(
            "a batch of {count} mutations and conditions is over the limit of {BATCH_COUNT_MAX}: \
             split it"
        )));
    }
    let bytes = batch.mutations.iter().map(mutation_bytes).sum::<usize>()
        + batch.conditions.iter().map(condition_bytes).sum::<usize>();
    within("batch", bytes)
}

/// Refuses a `multi_get` that no node would take.
pub(super) fn check_multi_get(cells: &[(Key, Column)]) -> Result<(), ClientError> {
    if cells.len() > MULTI_GET_COUNT_MAX {
        return Err(ClientError::Invalid(format!(
            "a read of {} cells is over the limit of {MULTI_GET_COUNT_MAX}: split it",
            cells.len()
        )));
    }
    let bytes = |(key, column): &(Key, Column)| key.len() + column.len() + OVERHEAD_BYTES;
    within("multi-get", cells.iter().map(bytes).sum())
}

fn within(what: &'static str, bytes: usize) -> Result<(), ClientError> {
    if bytes > BATCH_BYTES_MAX {
        return Err(TooLarge { what, bytes, bytes_max: BATCH_BYTES_MAX }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::KEY_BYTES_MAX;

    #[test]
    fn builder_with_a_part_over_its_limit_fails_as_a_whole() {
        let long = vec![0; KEY_BYTES_MAX + 1];
        let built = BatchBuilder::new().set("a", "1").delete(long).set("b", "2").build();
        assert!(
            matches!(built, Err(ClientError::TooLarge(TooLarge { what: "key", .. }))),
            "{built:?}"
        );
    }

    #[test]
    fn batch_of_too_many_or_too_large_parts_is_refused() {
        let delete = Mutation::DeleteRow { key: Key::default() };
        let many = Batch { mutations: vec![delete; BATCH_COUNT_MAX + 1], ..Batch::default() };
        assert!(matches!(check_batch(&many), Err(ClientError::Invalid(_))));
        let megabyte = vec![0; 1 << 20];
        let large =
            (0..4).fold(BatchBuilder::new(), |builder, _| builder.set("k", megabyte.clone()));
        assert!(matches!(large.build(), Err(ClientError::TooLarge(_))));
    }

    #[test]
    fn encoded_mutation_is_never_larger_than_counted() {
        let mutation = Mutation::Set {
            key: Key::new(vec![1; KEY_BYTES_MAX]).unwrap(),
            column: Column::new(vec![2; 300]).unwrap(),
            value: Value::new(vec![3; 1 << 20]).unwrap(),
        };
        assert!(crate::codec::encode(&mutation).len() <= mutation_bytes(&mutation));
    }
}
