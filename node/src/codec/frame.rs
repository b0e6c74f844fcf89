//! Frames: how messages are cut out of a byte stream.
//!
//! # Layout
//! ```text
//! ┌────────────┬────────────────┬─────────────────┬──────────────────┐
//! │ len u32 LE │ len crc u32 LE │ body crc u32 LE │ body (len bytes) │
//! └────────────┴────────────────┴─────────────────┴──────────────────┘
//! ```
//! *Incomplete* (wait for more bytes) and *corrupt* (close the connection) are different answers:
//! the first is `Ok(None)`, the second an error, after which the stream has no known boundary.
//!
//! The length has a checksum of its own. With one checksum at the end, a flipped bit in a length
//! is not found before that many bytes have come, which on a quiet connection is never: heartbeats
//! went into such a frame for minutes, and both ends believed that the connection was well.

use bytes::{Buf, Bytes, BytesMut};

use super::DecodeError;
use crate::base::checksum;
use crate::planted;

/// Bytes before the body: length and checksums.
pub const HEADER_BYTES: usize = 12;

/// Appends one frame to `buffer`, its body written by `body`.
///
/// The body must stay within the limit that the receiver's [`FrameDecoder`] has.
pub fn encode_frame(buffer: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    body(buffer);
    let (head, written) = buffer.split_at_mut(start + HEADER_BYTES);
    let len = u32::try_from(written.len()).unwrap_or(u32::MAX);
    assert!(len < u32::MAX, "frame body of {} bytes", written.len());
    let len = len.to_le_bytes();
    let parts = [len, checksum::crc32(&len).to_le_bytes(), checksum::crc32(written).to_le_bytes()];
    if let Some(header) = head.last_chunk_mut::<HEADER_BYTES>() {
        header.copy_from_slice(parts.as_flattened());
    }
}

/// Cuts frames out of bytes that arrive in arbitrary pieces.
#[derive(Debug)]
pub struct FrameDecoder {
    body_bytes_max: usize,
}

impl FrameDecoder {
    /// Makes a decoder that refuses bodies of more than `body_bytes_max` bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self { body_bytes_max }
    }

    /// Takes one frame's body off the front of `buffer`; `None` if it is not complete yet.
    ///
    /// # Errors
    /// The length is over the limit, or the checksum does not match. The stream is then lost.
    pub fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [l0, l1, l2, l3, h0, h1, h2, h3, b0, b1, b2, b3] = *header;
        let len = [l0, l1, l2, l3];
        verify(u32::from_le_bytes([h0, h1, h2, h3]), &len)?;
        let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
        if len > self.body_bytes_max && !planted!("F1") {
            return Err(DecodeError::TooLarge("frame length"));
        }
        if buffer.len() < HEADER_BYTES + len {
            return Ok(None);
        }
        buffer.advance(HEADER_BYTES);
        let body = buffer.split_to(len).freeze();
        if !planted!("F2") {
            verify(u32::from_le_bytes([b0, b1, b2, b3]), &body)?;
        }
        Ok(Some(body))
    }

    /// Returns how many bytes are missing of the frame at the front of `buffer`, as far as its
    /// header tells, which [`decode`](Self::decode) has found to be well.
    pub fn missing_bytes(&self, buffer: &[u8]) -> usize {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return 0 };
        let [l0, l1, l2, l3, ..] = *header;
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        (HEADER_BYTES + len.min(self.body_bytes_max)).saturating_sub(buffer.len())
    }
}

fn verify(stored: u32, bytes: &[u8]) -> Result<(), DecodeError> {
    let computed = checksum::crc32(bytes);
    if stored == computed { Ok(()) } else { Err(DecodeError::Checksum { stored, computed }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_split(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..8),
            step in 1_usize..40,
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                encode_frame(&mut stream, |buffer| buffer.extend_from_slice(body));
            }
            let decoder = FrameDecoder::new(100);
            let mut buffer = BytesMut::new();
            let mut decoded = Vec::new();
            for piece in stream.chunks(step) {
                let missing_bytes = decoder.missing_bytes(&buffer);
                let is_header_there = buffer.len() >= HEADER_BYTES;
                prop_assert_eq!(missing_bytes > 0, is_header_there, "{} bytes", buffer.len());
                if is_header_there && missing_bytes <= piece.len() {
                    let mut whole = buffer.clone();
                    whole.extend_from_slice(&piece[..missing_bytes]);
                    prop_assert!(decoder.decode(&mut whole).unwrap().is_some());
                    prop_assert!(whole.is_empty());
                }
                buffer.extend_from_slice(piece);
                while let Some(body) = decoder.decode(&mut buffer).unwrap() {
                    decoded.push(body.to_vec());
                }
            }
            prop_assert_eq!(decoded, bodies);
        }

        #[test]
        fn a_flipped_bit_is_found_when_its_frame_is_there(bit in 0_usize..(12 + 20) * 8) {
            let mut stream = Vec::new();
            encode_frame(&mut stream, |buffer| buffer.extend_from_slice(&[7; 20]));
            stream[bit / 8] ^= 1 << (bit % 8);
            let mut buffer = BytesMut::from(&stream[..]);
            let decoded = FrameDecoder::new(1000).decode(&mut buffer);
            prop_assert!(decoded.is_err(), "{:?}", decoded);
        }
    }
}
