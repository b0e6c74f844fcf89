//! What a request must keep to, beyond what its types enforce; checked at the edge.
//!
//! The node that a client talks to checks a command before it proposes it, and a query before it
//! answers it. The state machine itself carries out whatever is in the log.

use super::command::{Batch, Command};
use super::query::Query;
use crate::base::limits::{
    BATCH_BYTES_MAX, BATCH_COUNT_MAX, CONDITION_COUNT_MAX, MULTI_GET_COUNT_MAX,
};

/// A request is refused: it did not and will not take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// A batch of too many operations.
    #[error(
        "a batch of {count} conditions and mutations is over the limit of {count_max}: \
         split it, if it need not be atomic"
    )]
    BatchCount {
        /// Conditions and mutations.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// A batch of too many conditions.
    #[error(
        "a batch of {count} conditions is over the limit of {count_max}: \
         name one cell that all its writers change instead of many"
    )]
    ConditionCount {
        /// Conditions.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// A batch of too many bytes.
    #[error(
        "a batch of {bytes} bytes is over the limit of {bytes_max} bytes: \
         split it, if it need not be atomic"
    )]
    BatchBytes {
        /// Bytes, as [`Batch::bytes`](super::Batch::bytes) counts them.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A `multi_get` of too many cells.
    #[error("{count} cells in one multi_get are over the limit of {count_max}: ask in parts")]
    MultiGetCount {
        /// Cells that are asked for.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// A page of nothing would never come to an end.
    #[error("the limit of a page must be at least 1")]
    LimitZero,
}

/// Checks a command before it is proposed.
pub fn validate(command: &Command) -> Result<(), InvalidRequest> {
    match command {
        Command::Register { .. } | Command::RegisterByIndex { .. } => Ok(()),
        Command::Write { batch, .. } => validate_batch(batch),
    }
}

/// Checks a batch, as [`validate`] does the command that carries it; for clients.
pub fn validate_batch(batch: &Batch) -> Result<(), InvalidRequest> {
    let count = batch.count();
    if count > BATCH_COUNT_MAX {
        return Err(InvalidRequest::BatchCount { count, count_max: BATCH_COUNT_MAX });
    }
    let count = batch.conditions.len();
    if count > CONDITION_COUNT_MAX {
        return Err(InvalidRequest::ConditionCount { count, count_max: CONDITION_COUNT_MAX });
    }
    let bytes = batch.bytes();
    if bytes > BATCH_BYTES_MAX {
        return Err(InvalidRequest::BatchBytes { bytes, bytes_max: BATCH_BYTES_MAX });
    }
    Ok(())
}

/// Checks a query before it is answered.
pub fn validate_query(query: &Query) -> Result<(), InvalidRequest> {
    match query {
        Query::MultiGet { cells } if cells.len() > MULTI_GET_COUNT_MAX => {
            let (count, count_max) = (cells.len(), MULTI_GET_COUNT_MAX);
            Err(InvalidRequest::MultiGetCount { count, count_max })
        }
        Query::Get { .. } | Query::MultiGet { .. } => Ok(()),
        Query::Slice { limit, .. } | Query::Keys { limit, .. } | Query::Scan { limit, .. } => {
            if *limit == 0 {
                Err(InvalidRequest::LimitZero)
            } else {
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Column, Key, RequestSeq, SessionId, Value};
    use crate::kv::Expectation;

    fn write(batch: Batch) -> Command {
        let (session, seq) = (SessionId(1), RequestSeq(1));
        Command::Write { session, seq, acked_below: seq, batch }
    }

    #[test]
    fn batch_at_its_count_limit_is_the_largest() {
        let full =
            (0..BATCH_COUNT_MAX).fold(Batch::new(), |batch, _| batch.delete_row(Key::default()));
        assert_eq!(validate(&write(full.clone())), Ok(()));
        let refused = validate(&write(full.delete_row(Key::default()))).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a batch of 10001 conditions and mutations is over the limit of 10000: \
             split it, if it need not be atomic"
        );
    }

    #[test]
    fn batch_of_more_conditions_than_its_limit_is_refused() {
        let require = |batch: Batch, _| {
            batch.require(Key::default(), Column::default(), Expectation::Present)
        };
        let full = (0..CONDITION_COUNT_MAX).fold(Batch::new(), require);
        assert_eq!(validate(&write(full.clone())), Ok(()));
        assert_eq!(
            validate(&write(require(full, 0))).unwrap_err().to_string(),
            "a batch of 257 conditions is over the limit of 256: \
             name one cell that all its writers change instead of many"
        );
    }

    #[test]
    fn batch_over_its_bytes_limit_is_refused() {
        let value = Value::new(vec![0; Value::BYTES_MAX]).unwrap();
        let three = (0..3).fold(Batch::new(), |batch, _| {
            batch.set(Key::default(), Column::default(), value.clone())
        });
        assert_eq!(validate(&write(three.clone())), Ok(()));
        let four = three.set(Key::default(), Column::default(), value);
        let bytes = four.bytes();
        let refused = InvalidRequest::BatchBytes { bytes, bytes_max: BATCH_BYTES_MAX };
        assert_eq!(validate(&write(four)), Err(refused));
    }

    #[test]
    fn query_of_no_items_is_refused() {
        let query = |limit| Query::Scan { start: None, prefix: Key::default(), limit };
        assert_eq!(validate_query(&query(0)), Err(InvalidRequest::LimitZero));
        assert_eq!(validate_query(&query(1)), Ok(()));
        let cells = vec![(Key::default(), Column::default()); MULTI_GET_COUNT_MAX + 1];
        assert!(validate_query(&Query::MultiGet { cells }).is_err(), "one cell too many");
    }
}
