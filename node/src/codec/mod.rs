//! Bytes to meaning and back: the one door to bincode, frames, and order-preserving keys.
//!
//! Everything that is decoded here may come from a stranger. So decoding always has a size limit
//! (a hostile length must not allocate), must consume every byte, and fails with a
//! [`DecodeError`] instead of panicking.
//!
//! # Left out
//! What the messages mean: [`crate::raft`], [`crate::kv`] and [`crate::wire`] know that.

mod bounded;
pub mod error;
pub mod frame;
pub mod keycode;

pub use bincode::{Decode, Encode};
pub use error::DecodeError;
pub use frame::{FrameDecoder, encode_frame};

use crate::base::limits::FRAME_BYTES_MAX;
use crate::planted;

/// Little-endian fixed-width lengths would waste space; varints it is, and never without limit.
const FORMAT: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<FRAME_BYTES_MAX>,
> = bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();

/// Appends the encoding of `value` to `buffer`.
///
/// Encoding cannot fail for our own types: all of them are within their limits by construction.
pub fn encode_into<T: Encode>(value: &T, buffer: &mut Vec<u8>) {
    let result = bincode::encode_into_std_write(value, buffer, FORMAT);
    assert!(result.is_ok(), "own value cannot be encoded: {:?}", result.err());
}

/// Returns the encoding of `value`.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(128);
    encode_into(value, &mut buffer);
    buffer
}

/// Decodes a value that fills `bytes` exactly.
///
/// # Errors
/// The bytes are not an encoding of a `T`, exceed a limit, or go on after it.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, used) = bincode::decode_from_slice(bytes, FORMAT).map_err(DecodeError::from)?;
    if used != bytes.len() && !planted!("F21") {
        return Err(DecodeError::TrailingBytes { used, len: bytes.len() });
    }
    Ok(value)
}
