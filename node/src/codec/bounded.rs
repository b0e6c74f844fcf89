//! Encoding of the bounded byte strings of [`crate::base`]; decoding checks their limits.

use bincode::de::read::Reader;
use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

use crate::base::{Column, Key, Payload, Value};
use crate::planted;

fn encode_bytes<E: Encoder>(bytes: &[u8], encoder: &mut E) -> Result<(), EncodeError> {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX).encode(encoder)?;
    encoder.writer().write(bytes)
}

/// Reads a length, checks it before it allocates, then reads that many bytes.
fn decode_bytes<D: Decoder>(decoder: &mut D, bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    let len = usize::try_from(u64::decode(decoder)?).unwrap_or(usize::MAX);
    if len > bytes_max {
        return Err(DecodeError::Other("byte string"));
    }
    decoder.claim_bytes_read(len)?;
    // Where the reader can tell, a length that the input does not justify allocates nothing.
    if decoder.reader().peek_read(len).is_none() && !planted!("F3") {
        return Err(DecodeError::UnexpectedEnd { additional: len });
    }
    let mut bytes = vec![0; len];
    decoder.reader().read(&mut bytes)?;
    Ok(bytes)
}

macro_rules! bounded_codec {
    ($($name:ident),*) => {$(
        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                encode_bytes(self.as_bytes(), encoder)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let bytes = decode_bytes(decoder, Self::BYTES_MAX)?;
                Self::new(bytes).map_err(|error| DecodeError::Other(error.what))
            }
        }

        impl<'de, C> BorrowDecode<'de, C> for $name {
            fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, DecodeError> {
                Self::decode(decoder)
            }
        }
    )*};
}

bounded_codec!(Key, Column, Value, Payload);

#[cfg(test)]
mod tests {
    use crate::base::Key;
    use crate::codec::{DecodeError, decode, encode};

    #[test]
    fn key_round_trips() {
        let key = Key::new("a key").unwrap();
        assert_eq!(decode::<Key>(&encode(&key)), Ok(key));
    }

    #[test]
    fn hostile_length_is_refused_before_allocation() {
        // A varint that claims 4 GiB, followed by nothing.
        let hostile = [253, 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(decode::<Key>(&hostile), Err(DecodeError::TooLarge("byte string")));
        assert_eq!(decode::<Key>(&[100, 1, 2]), Err(DecodeError::Truncated));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&Key::new("k").unwrap());
        bytes.push(0);
        assert_eq!(decode::<Key>(&bytes), Err(DecodeError::TrailingBytes { used: 2, len: 3 }));
    }
}
