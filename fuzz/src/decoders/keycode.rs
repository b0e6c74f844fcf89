//! Cell places: keys and columns in one string of bytes that sorts as they do.

use mangrove::codec::keycode::{
    decode_cell, decode_place, encode_cell, encode_key, encode_key_end, row_end, row_prefix,
};

/// ```text
/// length u8 of the first place │ first place │ second place
/// ```
pub(super) fn place(input: &[u8]) {
    let Some((&length, rest)) = input.split_first() else { return };
    let (one, other) = rest.split_at(usize::from(length).min(rest.len()));
    let (Some(first), Some(second)) = (taken_apart(one), taken_apart(other)) else { return };
    let orders = [one.cmp(other), first.cmp(&second)];
    assert_eq!(orders[0], orders[1], "{first:?} and {second:?} sort as their places do");
    let is_same_row = row_prefix(one) == row_prefix(other);
    assert_eq!(is_same_row, first.0 == second.0, "{first:?} and {second:?} are of one row");
}

/// Takes a place apart and puts it together again.
fn taken_apart(place: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let row = row_prefix(place);
    assert!(place.starts_with(row), "{row:?} is no start of {place:?}");
    let (key, column) = decode_cell(place).ok()?;
    assert_eq!(encode_cell(&key, column), place, "a place has one encoding");
    assert_eq!(row, encode_key(&key), "the row of {key:?}");
    assert_eq!(row_end(row), encode_key_end(&key), "the end of the row of {key:?}");
    if let Ok((named, at)) = decode_place(place) {
        assert_eq!((named.as_bytes(), at.as_bytes()), (key.as_slice(), column), "one place");
    }
    Some((key, column.to_vec()))
}

pub(super) fn place_seeds() -> Vec<Vec<u8>> {
    let places = [
        encode_cell(b"", b""),
        encode_cell(b"k\0ey", b"column"),
        encode_cell(b"k\0", b"\0\0"),
        encode_cell(b"\xFF\xFF", b"\x01"),
    ];
    let mut seeds = vec![vec![5, b'k', 0]];
    for one in &places {
        for other in &places {
            seeds.push([&[u8::try_from(one.len()).unwrap_or(0)][..], one, other].concat());
        }
    }
    seeds
}
