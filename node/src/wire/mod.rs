//! Every message that a peer or a client can send.

pub mod handshake;
pub mod request;
pub mod response;

pub use handshake::{Hello, Identity, PROTOCOL_VERSION, Refusal, Welcome};
pub use request::{Request, RequestBody};
pub use response::{Outcome, PeerStatus, RequestError, Response, ResponseBody, Status};
