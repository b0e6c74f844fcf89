//! The masterless protocol: as a plain value.

pub mod merkle;
pub mod message;
pub mod placement;
pub mod ready;

pub use message::{
    Chunk, Heartbeat, Message, Range, ReadReply, RequestId, SyncMessage, WriteOutcome,
};
pub use placement::{Partition, Placement};
pub use ready::{
    Change, Found, Input, Level, Persist, PersistId, ReadId, Ready, Record, Recovered, Reply,
    StoreRead, Token,
};
