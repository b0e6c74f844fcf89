//! Putting an atomic batch together, and checking it before it travels.

use bytes::Bytes;

use super::error::ClientError;
use crate::base::limits::MULTI_GET_BYTES_MAX;
use crate::base::{Column, Key, TooLarge, Value};
use crate::kv::{Batch, Expectation, Query, validate_batch, validate_query};

/// Builds a [`Batch`] from anything that is bytes; the first part that is over its limit fails
/// the whole. Who has keys, columns and values already builds it with [`Batch::new`].
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
        self.with(parts, |batch, (key, column, value)| batch.set(key, column, value))
    }

    /// Deletes the cell of plain key-value data.
    pub fn delete(self, key: impl Into<Bytes>) -> Self {
        self.delete_cell(key, Bytes::new())
    }

    /// Deletes a cell; fine if there is none.
    pub fn delete_cell(self, key: impl Into<Bytes>, column: impl Into<Bytes>) -> Self {
        let parts = || Ok((Key::new(key)?, Column::new(column)?));
        self.with(parts, |batch, (key, column)| batch.delete(key, column))
    }

    /// Deletes all columns of a key.
    pub fn delete_row(self, key: impl Into<Bytes>) -> Self {
        self.with(|| Key::new(key), Batch::delete_row)
    }

    /// Demands that a cell is as expected on the state before the batch.
    pub fn expect(
        self,
        key: impl Into<Bytes>,
        column: impl Into<Bytes>,
        expected: Expectation,
    ) -> Self {
        let parts = || Ok((Key::new(key)?, Column::new(column)?));
        self.with(parts, |batch, (key, column)| batch.require(key, column, expected))
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
            None => Ok(validate_batch(&self.batch).map(|()| self.batch)?),
        }
    }

    fn with<T>(
        mut self,
        parts: impl FnOnce() -> Result<T, TooLarge>,
        push: impl FnOnce(Batch, T) -> Batch,
    ) -> Self {
        match parts() {
            Ok(parts) => self.batch = push(self.batch, parts),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
        self
    }
}

/// Refuses a query that no node would take.
pub(super) fn check_query(query: &Query) -> Result<(), ClientError> {
    validate_query(query)?;
    let Query::MultiGet { cells } = query else { return Ok(()) };
    let bytes = cells.iter().map(|(key, column)| key.len() + column.len()).sum();
    if bytes > MULTI_GET_BYTES_MAX {
        return Err(TooLarge { what: "multi_get", bytes, bytes_max: MULTI_GET_BYTES_MAX }.into());
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
    fn batch_and_multi_get_over_their_limits_are_refused() {
        let megabyte = vec![0; 1 << 20];
        let large =
            (0..4).fold(BatchBuilder::new(), |builder, _| builder.set("k", megabyte.clone()));
        assert!(matches!(large.build(), Err(ClientError::Invalid(_))));
        let place = (Key::new(vec![0; KEY_BYTES_MAX]).unwrap(), Column::default());
        let query = |count| Query::MultiGet { cells: vec![place.clone(); count] };
        assert_eq!(check_query(&query(1024)), Ok(()));
        assert!(matches!(check_query(&query(1025)), Err(ClientError::TooLarge(_))));
    }
}
