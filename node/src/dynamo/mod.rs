//! The masterless protocol: as a plain value.

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
mod read;
pub mod ready;
mod sync;
mod write;

#[cfg(test)]
mod goldens;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod healing_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use self::core::{Dynamo, DynamoStatus};
pub use config::{Config, Repair};
pub use message::{
    Chunk, Heartbeat, Message, Outlined, Range, ReadReply, RequestId, SyncMessage, WriteOutcome,
};
pub use placement::{Partition, Placement};
pub use ready::{
    Change, Found, Input, Level, Persist, PersistId, ReadId, Ready, Record, Recovered, Reply,
    StoreRead, Token,
};
