//! The ground floor: words that every other module uses.
//!
//! Identifiers, the bytes of a cell and their limits, our own time type, seeded randomness,
//! checksums, and the `probe!`/`planted!` marks. It imports nothing of ours and does no I/O; a
//! type belongs here only if at least two floors need it.
//!
//! # Left out
//! Anything that knows a network, a disk or a clock exists: see [`crate::env`].

pub mod checksum;
pub mod core;
pub mod entry;
pub mod hash;
pub mod id;
pub mod key;
pub mod limits;
pub mod planted;
pub mod probe;
pub mod rng;
pub mod stamp;
pub mod time;

pub use self::core::Core;
pub use entry::{Entry, Written};
pub use id::{ClusterId, Index, NodeId, RequestSeq, SessionId, Term};
pub use key::{Column, Key, Payload, TooLarge, Value};
pub use rng::Rng;
pub use stamp::Stamp;
pub use time::{Instant, WallTime};
