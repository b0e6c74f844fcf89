//! What can go wrong for a client, and what each error says about the request.
//!
//! A request is made of *tries*. A [`TryFailure`] says why one try brought no answer; a
//! [`ClientError`] is what the caller gets when the tries are over. The one question that a
//! caller has to an error is whether the request took effect: [`ClientError::outcome`].

use std::time::Duration;

use crate::base::{Key, TooLarge};
use crate::kv::InvalidRequest;
use crate::wire::{Outcome, Refusal, RequestError};

/// Why a request failed. Ask [`outcome`](Self::outcome) what became of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A key, column, value, batch or query is over its limit. Not applied.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The request makes no sense. Not applied.
    #[error("the request is not valid: {0}")]
    Invalid(String),
    /// The cluster did not do its part, and the request is not to blame: a node answered what
    /// makes no sense, or let go too often what it had begun. Not applied.
    #[error("the cluster did not carry the request out: {0}")]
    Misbehaved(String),
    /// The replication mode of the cluster does not have this request. Not applied.
    #[error("not supported by this cluster: {0}")]
    Unsupported(String),
    /// Every node refused the connection, and would do so again. Not applied.
    #[error("the cluster refuses this client: {0}")]
    Refused(#[source] Refusal),
    /// No node took the request: none was reached, or none leads. Not applied.
    #[error("no node took the request within {}: {last}", in_ms(*.waited))]
    Unavailable {
        /// How long it was tried.
        waited: Duration,
        /// How the last try ended; if it reached no node, what another one answered, if one did.
        #[source]
        last: TryFailure,
    },
    /// The time was over before an answer came, of a read or of a write that was never sent. Not
    /// applied.
    #[error("no answer within {}{}", in_ms(*.waited), last_try(.last.as_ref()))]
    Timeout {
        /// How long it was tried.
        waited: Duration,
        /// How the last try ended, if there was one.
        #[source]
        last: Option<TryFailure>,
    },
    /// The replicas that answer are behind what this session has read or written, even all of them
    /// together. Not applied: only reads fail so.
    #[error(
        "the replicas are behind what this session has seen of {key:?}: nodes with newer data are \
         down, or lost it; try again later, or go on in another session"
    )]
    Stale {
        /// A key of which something newer was seen.
        key: Key,
    },
    /// The cluster had too much to do until the time was over. Not applied.
    #[error("the cluster is overloaded: try again later")]
    Overloaded,
    /// The disk of the leader is full. Not applied.
    #[error("the disk of the leader is full: free some space there")]
    DiskFull,
    /// Another program has ended the session that numbers the writes of this client, as an import
    /// does that goes on with what this one began. Not applied, and no later write will be.
    #[error(
        "another program has ended the session of this client, as an import does that goes on \
         with what this one began: this one writes nothing more"
    )]
    SessionEnded,
    /// **It is not known whether the write took effect**, or still will: a try of it was sent and
    /// never answered. Only a read can tell; repeating the write may apply it twice.
    #[error(
        "it is not known whether the write took effect: no answer within {}{}",
        in_ms(*.waited),
        last_try(.last.as_ref())
    )]
    Unknown {
        /// How long it was tried.
        waited: Duration,
        /// How the last try ended, if it ended.
        #[source]
        last: Option<TryFailure>,
    },
}

impl ClientError {
    /// Says what became of the request. Reads never change anything.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::TooLarge(_)
            | Self::Invalid(_)
            | Self::Misbehaved(_)
            | Self::Unsupported(_)
            | Self::Refused(_)
            | Self::Unavailable { .. }
            | Self::Timeout { .. }
            | Self::Stale { .. }
            | Self::Overloaded
            | Self::DiskFull
            | Self::SessionEnded => Outcome::NotApplied,
            Self::Unknown { .. } => Outcome::Unknown,
        }
    }
}

impl From<InvalidRequest> for ClientError {
    fn from(error: InvalidRequest) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Why one try of a request brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryFailure {
    /// The node was not reached.
    #[error("cannot connect to {address}: {what}")]
    Connect {
        /// The node.
        address: String,
        /// What the system, or the node, said.
        what: String,
    },
    /// The node refused the connection.
    #[error(transparent)]
    Refused(Refusal),
    /// The connection ended before the answer.
    #[error("the connection was lost: {what}")]
    ConnectionLost {
        /// What the system said.
        what: String,
    },
    /// The node did not answer in time.
    #[error("the node did not answer within {}", in_ms(*.limit))]
    NoAnswer {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The node answered something else than it was asked.
    #[error("the node answered with {what}")]
    Malformed {
        /// What it answered.
        what: &'static str,
    },
    /// The node answered that it could not.
    #[error(transparent)]
    Answered(RequestError),
}

/// Shows a time in seconds, to the millisecond: nobody asked for more, and no wait was none.
pub(super) fn in_ms(time: Duration) -> String {
    let nearest = time.saturating_add(Duration::from_micros(500)).as_millis().max(1);
    format!("{:?}", Duration::from_millis(u64::try_from(nearest).unwrap_or(u64::MAX)))
}

fn last_try(last: Option<&TryFailure>) -> String {
    last.map(|last| format!("; the last try: {last}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shown_to_the_millisecond_and_is_never_none() {
        for (ns, shown) in [(0, "1ms"), (999_999_579, "1s"), (1_500_400_000, "1.5s")] {
            assert_eq!(in_ms(Duration::from_nanos(ns)), shown, "{ns} ns");
        }
        assert!(!in_ms(Duration::MAX).is_empty());
    }
}
