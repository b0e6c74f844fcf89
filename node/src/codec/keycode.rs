//! Order-preserving encoding of a cell's place: the bytes sort as (key, column) do.
//!
//! # Layout
//! ```text
//! key, each 00 written as 00 FF │ 00 00 │ column as it is
//! ```
//! The terminator 00 00 sorts before 00 FF and before every other byte, so a key sorts before all
//! its extensions, and all columns of a key lie next to each other.

use super::DecodeError;
use crate::base::{Column, Key};
use crate::planted;

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xFF;
const TERMINATOR: u8 = 0x00;

/// Returns the encoding of the place of the cell (`key`, `column`).
pub fn encode_cell(key: &[u8], column: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(key.len() + column.len() + 2);
    push_key(&mut encoded, key);
    encoded.extend_from_slice(column);
    encoded
}

/// Returns the first possible place of `key`, which is a prefix of all its places.
pub fn encode_key(key: &[u8]) -> Vec<u8> {
    encode_cell(key, &[])
}

/// Returns the first place after every place of `key`.
pub fn encode_key_end(key: &[u8]) -> Vec<u8> {
    let mut encoded = encode_key(key);
    if let Some(last) = encoded.last_mut() {
        // 00 01 lies after 00 00 and before 00 FF, and no encoding contains it.
        *last = TERMINATOR + 1;
    }
    encoded
}

/// Returns the prefix that the places of all keys beginning with `prefix` share, and no others.
pub fn encode_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut encoded = encode_key(prefix);
    encoded.truncate(encoded.len().saturating_sub(2));
    encoded
}

/// Returns the first place after every place of a key beginning with `prefix`; `None` if there
/// is no such place.
pub fn encode_prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut encoded = encode_prefix(prefix);
    while let Some(last) = encoded.pop() {
        if let Some(next) = last.checked_add(1) {
            encoded.push(next);
            return Some(encoded);
        }
    }
    None
}

/// Returns the part of a place that all places of its row begin with, and no others: it is the
/// place of the row's empty column. A place without terminator is a row of its own.
pub fn row_prefix(place: &[u8]) -> &[u8] {
    let mut from = 0;
    while let Some(zero) = place.get(from..).and_then(|rest| memchr(ESCAPE, rest)) {
        let end = from + zero + 2;
        match place.get(end - 1) {
            Some(&TERMINATOR) => return place.get(..end).unwrap_or(place),
            Some(_) => from = end,
            None => return place,
        }
    }
    place
}

/// Returns the first place after every place of the row that begins with `row`, as
/// [`row_prefix`] returns it.
pub fn row_end(row: &[u8]) -> Vec<u8> {
    let mut end = row.to_vec();
    match end.last_mut() {
        Some(last) if *last == TERMINATOR => *last = TERMINATOR + 1,
        _ => end.push(0),
    }
    end
}

fn memchr(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|candidate| *candidate == byte)
}

/// Splits an encoded place into key and column bytes.
///
/// # Errors
/// The bytes were not made by [`encode_cell`].
pub fn decode_cell(encoded: &[u8]) -> Result<(Vec<u8>, &[u8]), DecodeError> {
    let mut key = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    loop {
        match rest {
            [ESCAPE, TERMINATOR, column @ ..] => return Ok((key, column)),
            [ESCAPE, ESCAPED_ZERO, tail @ ..] => {
                key.push(0);
                rest = if planted!("F4") { tail.get(1..).unwrap_or_default() } else { tail };
            }
            [ESCAPE, ..] | [] => {
                return Err(DecodeError::Malformed("cell place without terminator".to_owned()));
            }
            [byte, tail @ ..] => {
                key.push(*byte);
                rest = tail;
            }
        }
    }
}

/// Splits an encoded place into a [`Key`] and a [`Column`].
///
/// # Errors
/// The bytes were not made by [`encode_cell`], or a part is over its limit.
pub fn decode_place(encoded: &[u8]) -> Result<(Key, Column), DecodeError> {
    let (key, column) = decode_cell(encoded)?;
    let key = Key::new(key).map_err(|error| DecodeError::TooLarge(error.what))?;
    let column = Column::new(column.to_vec()).map_err(|error| DecodeError::TooLarge(error.what))?;
    Ok((key, column))
}

fn push_key(encoded: &mut Vec<u8>, key: &[u8]) {
    for &byte in key {
        encoded.push(byte);
        if byte == ESCAPE {
            encoded.push(ESCAPED_ZERO);
        }
    }
    encoded.extend_from_slice(&[ESCAPE, TERMINATOR]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xFF), any::<u8>()], 0..8)
    }

    proptest! {
        #[test]
        fn order_is_that_of_key_then_column(a in (bytes(), bytes()), b in (bytes(), bytes())) {
            let (ea, eb) = (encode_cell(&a.0, &a.1), encode_cell(&b.0, &b.1));
            prop_assert_eq!(ea.cmp(&eb), a.cmp(&b));
        }

        #[test]
        fn place_round_trips(key in bytes(), column in bytes()) {
            let encoded = encode_cell(&key, &column);
            prop_assert_eq!(decode_cell(&encoded), Ok((key.clone(), column.as_slice())));
            prop_assert!(encode_key(&key) <= encoded && encoded < encode_key_end(&key));
        }

        #[test]
        fn row_of_a_place_is_that_of_its_key(key in bytes(), column in bytes()) {
            let place = encode_cell(&key, &column);
            prop_assert_eq!(row_prefix(&place), encode_key(&key));
            prop_assert_eq!(row_end(row_prefix(&place)), encode_key_end(&key));
        }

        #[test]
        fn prefix_bounds_hold_its_keys_alone(
            prefix in bytes(),
            key in bytes(),
            tail in bytes(),
            column in bytes(),
        ) {
            for key in [key, [prefix.clone(), tail].concat()] {
                let place = encode_cell(&key, &column);
                let within = encode_prefix(&prefix) <= place
                    && encode_prefix_end(&prefix).is_none_or(|end| place < end);
                prop_assert_eq!(within, key.starts_with(&prefix));
            }
        }

        #[test]
        fn key_end_lies_before_the_next_key(key in bytes(), next in bytes()) {
            prop_assume!(key < next);
            prop_assert!(encode_key_end(&key) <= encode_key(&next));
        }
    }
}
