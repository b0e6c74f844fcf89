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

/// How values are written: little-endian fixed-width lengths would waste space, so varints it is,
/// and never without limit.
type Format<const LIMIT: usize> = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<LIMIT>,
>;

const fn format<const LIMIT: usize>() -> Format<LIMIT> {
    bincode::config::standard().with_limit::<LIMIT>()
}

const FORMAT: Format<FRAME_BYTES_MAX> = format();

/// Longest input that counts as small, and as middling. Room for as many elements as a length says
/// is reserved before the first of them is read, up to the limit of the format. So the limit goes
/// by the input, or ten hostile bytes would reserve eight megabytes.
const SMALL_BYTES: usize = 1 << 10;
const MIDDLING_BYTES: usize = 16 << 10;

/// Bytes in memory that one byte of an encoding can stand for, at most: the largest element of a
/// list that is, a mutation, takes about 100 bytes and two to say that a row is deleted.
const EXPANSION_MAX: usize = 64;

const _: () = assert!(
    MIDDLING_BYTES * EXPANSION_MAX < FRAME_BYTES_MAX,
    "what is longer has the limit that every frame has"
);

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
    const SMALL: usize = SMALL_BYTES * EXPANSION_MAX;
    const MIDDLING: usize = MIDDLING_BYTES * EXPANSION_MAX;
    let decoded = match bytes.len() {
        _ if planted!("F3") => bincode::decode_from_slice(bytes, FORMAT),
        ..=SMALL_BYTES => bincode::decode_from_slice(bytes, format::<SMALL>()),
        len if len <= MIDDLING_BYTES => bincode::decode_from_slice(bytes, format::<MIDDLING>()),
        _ => bincode::decode_from_slice(bytes, FORMAT),
    };
    let (value, used) = decoded.map_err(DecodeError::from)?;
    if used != bytes.len() && !planted!("F21") {
        return Err(DecodeError::TrailingBytes { used, len: bytes.len() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Key, Payload};
    use crate::kv::Mutation;

    /// The accident: a message of ten bytes, with a length in it of a hundred thousand elements,
    /// reserved eight megabytes before anybody looked whether they were there.
    #[test]
    fn hostile_count_reserves_no_more_than_its_input_justifies() {
        let hostile = encode(&100_000_u64);
        let refused = Err(DecodeError::TooLarge("encoded length"));
        assert_eq!(decode::<Vec<Key>>(&hostile), refused);
        let longer = [hostile, vec![0; 2 << 10]].concat();
        assert_eq!(decode::<Vec<[u64; 4]>>(&longer), refused_as_well());
    }

    fn refused_as_well<T>() -> Result<T, DecodeError> {
        Err(DecodeError::TooLarge("encoded length"))
    }

    #[test]
    fn honest_lists_of_the_largest_elements_in_the_fewest_bytes_decode() {
        let row = || Mutation::DeleteRow { key: Key::default() };
        for count in [1, 500, 511, 512, 5_000, 10_000] {
            let mutations: Vec<Mutation> = (0..count).map(|_| row()).collect();
            assert_eq!(decode(&encode(&mutations)).as_ref(), Ok(&mutations), "{count} mutations");
            let lists: Vec<Vec<Payload>> = vec![vec![Payload::default(); 50]; count / 50 + 1];
            assert_eq!(decode(&encode(&lists)).as_ref(), Ok(&lists), "{count} byte strings");
        }
    }
}
