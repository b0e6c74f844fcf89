//! Who is asked.

use bytes::Bytes;

use crate::client::{Client, ClientError};
use crate::env::Env;

/// Why a request failed, in a word or two: errors are counted by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure(pub &'static str);

/// One connection to a store, which takes several requests at a time.
pub trait Target {
    /// Sets a cell, durably.
    fn set(&self, key: Bytes, value: Bytes) -> impl Future<Output = Result<(), Failure>>;

    /// Returns a cell.
    fn get(&self, key: Bytes) -> impl Future<Output = Result<Option<Bytes>, Failure>>;
}

impl<E: Env> Target for Client<E> {
    async fn set(&self, key: Bytes, value: Bytes) -> Result<(), Failure> {
        Self::set(self, key, value).await.map(|_version| ()).map_err(|error| failure(&error))
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Failure> {
        let cell = Self::get(self, key).await.map_err(|error| failure(&error))?;
        Ok(cell.map(|cell| cell.value.into_bytes()))
    }
}

fn failure(error: &ClientError) -> Failure {
    Failure(match error {
        ClientError::TooLarge(_) => "too large",
        ClientError::Invalid(_) => "invalid",
        ClientError::Misbehaved(_) => "misbehaved",
        ClientError::Unsupported(_) => "unsupported",
        ClientError::Refused(_) => "refused",
        ClientError::Unavailable { .. } => "unavailable",
        ClientError::Timeout { .. } => "timeout",
        ClientError::Stale { .. } => "stale",
        ClientError::Overloaded => "overloaded",
        ClientError::DiskFull => "disk full",
        ClientError::SessionEnded => "session ended",
        ClientError::Unknown { .. } => "unknown outcome",
    })
}
