//! Every message that a peer or a client can send.
//!
//! A connection opens with one [`handshake`] frame in each direction. A client then sends
//! [`Request`]s and gets [`Response`]s, many in flight at a time; a peer sends [`PeerMessage`]s,
//! the answers to which come on a connection of the other's. Every message is the body of one
//! frame, see [`crate::codec::frame`].
//!
//! # Left out
//! Negotiation: both sides speak the same [`PROTOCOL_VERSION`], or one of them refuses.

pub mod handshake;
pub mod peer;
pub mod request;
pub mod response;
pub mod status;

pub use crate::dynamo::Level;
pub use handshake::{Hello, Identity, Mode, PROTOCOL_VERSION, Refusal, Welcome};
pub use peer::{PeerMessage, PeerMessageRef};
pub use request::{Consistency, Request, RequestBody, SavedState};
pub use response::{Outcome, RequestError, Response, ResponseBody, SavedPiece};
pub use status::{HintStatus, MasterlessStatus, MemoryStatus, PeerStatus, Status, SyncStatus};
