//! A 64-bit hash of bytes that is the same for ever and everywhere: placement and Merkle trees
//! of different nodes are compared by it. Not for anybody who may choose the bytes to collide.

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Returns the hash of `bytes`, starting from `seed`.
pub fn hash64(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ u64::try_from(bytes.len()).unwrap_or(u64::MAX).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    mix(hash ^ u64::from_le_bytes(last))
}

/// Returns the hash of two hashes.
pub fn mix64(hash: u64, value: u64) -> u64 {
    mix(hash.rotate_left(23) ^ mix(value))
}

/// The finalizer of `SplitMix64`.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(MULTIPLIER);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_same_for_ever() {
        assert_eq!(hash64(0, b""), 0xe220_a839_7b1d_cdaf);
        assert_ne!(hash64(0, b"a"), hash64(0, b"a\0"));
        assert_ne!(hash64(0, b"abcdefgh"), hash64(1, b"abcdefgh"));
    }
}
