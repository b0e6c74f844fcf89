//! CRC-32 (IEEE), the one checksum of files and frames.
//!
//! A fuzzer does not guess checksums, so it never gets behind one. With the feature `testing` a
//! thread may therefore go blind (`go_blind`): every checksum is 0, when written and when read.
//! Then the parsers behind the checksums meet any bytes at all, as they would if somebody had made
//! the right checksum for them.

/// Returns the checksum of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    if is_blind() {
        return 0;
    }
    crc32fast::hash(bytes)
}

/// Returns the checksum of what `crc` covers followed by `bytes`.
pub fn crc32_extend(crc: u32, bytes: &[u8]) -> u32 {
    if is_blind() {
        return 0;
    }
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(feature = "testing")]
pub use blind::go_blind;
#[cfg(feature = "testing")]
use blind::is_blind;

/// Tells that checksums are checked: the shipped program cannot do without.
#[cfg(not(feature = "testing"))]
const fn is_blind() -> bool {
    false
}

#[cfg(feature = "testing")]
mod blind {
    use std::cell::Cell;

    mod local {
        use super::Cell;
        thread_local! {
            pub(super) static BLIND: Cell<bool> = const { Cell::new(false) };
        }
    }

    /// Makes every checksum 0 on this thread, or checksums of them again.
    pub fn go_blind(is_blind: bool) {
        local::BLIND.set(is_blind);
    }

    /// Tells whether every checksum is 0 on this thread.
    pub(super) fn is_blind() -> bool {
        local::BLIND.get()
    }
}
