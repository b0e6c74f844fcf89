//! Integers in as few bytes as they need: seven bits a byte, lowest first.

/// Appends `value`.
#[inline]
pub(super) fn push(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Takes an integer off the front of `bytes`; `None` if there is no whole one, or one too large.
#[inline]
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    // Nearly all that is stored is small: lengths of places and values.
    if let [first @ 0..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Some(u64::from(*first));
    }
    take_long(bytes)
}

fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift == 63 && *first > 1 {
            return None;
        }
        value |= u64::from(first & 0x7F) << shift;
        if *first < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

/// Takes an integer that is a length off the front of `bytes`.
#[inline]
pub(super) fn take_len(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(take(bytes)?).ok()
}

/// Maps a distance to an integer that is small if the distance is, whichever its sign.
#[inline]
pub(super) fn zigzag(distance: u64) -> u64 {
    let signed = distance.cast_signed();
    ((signed << 1) ^ (signed >> 63)).cast_unsigned()
}

/// Undoes [`zigzag`].
#[inline]
pub(super) fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integer_round_trips(value in any::<u64>(), bits in 0_u32..64, tail in any::<u8>()) {
            let value = value >> bits;
            let mut bytes = Vec::new();
            push(&mut bytes, value);
            prop_assert!(bytes.len() <= 10);
            for cut in 0..bytes.len() {
                prop_assert_eq!(take(&mut &bytes[..cut]), None);
            }
            bytes.push(tail);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take(&mut rest), Some(value));
            prop_assert_eq!(rest, &[tail]);
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn integer_of_more_than_64_bits_is_refused() {
        let mut bytes = vec![0xFF; 9];
        bytes.push(1);
        assert_eq!(take(&mut bytes.as_slice()), Some(u64::MAX));
        bytes[9] = 2;
        assert_eq!(take(&mut bytes.as_slice()), None);
        bytes[9] = 0x81;
        bytes.push(0);
        assert_eq!(take(&mut bytes.as_slice()), None);
    }

    #[test]
    fn small_distance_is_a_small_integer_on_both_sides() {
        assert_eq!([0, 1, 2].map(zigzag), [0, 2, 4]);
        assert_eq!([u64::MAX, u64::MAX - 1].map(zigzag), [1, 3]);
    }
}
