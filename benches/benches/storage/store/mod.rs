//! What is compared: each store behind the few calls that the measurements make.
//!
//! All of them get the same memory for blocks and the same size of memtable, where they have one,
//! and none waits for the medium before a write is accepted. How durable they are in between
//! differs a little, and each adapter says how.

pub(crate) mod fjall;
pub(crate) mod mangrove;
pub(crate) mod redb;

use std::path::Path;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 100;

/// Bytes that a memtable may take.
pub(crate) const MEMTABLE_BYTES: u64 = 32 << 20;

/// A key, as users know it.
pub(crate) type Key = [u8; KEY_BYTES];

/// A key and its new value.
pub(crate) type Put<'a> = (Key, &'a [u8]);

/// A store under measurement. A failure ends the process.
pub(crate) trait Candidate: Sized {
    /// Opens the store in a directory, with so much memory for what it reads.
    fn open(directory: &Path, cache_bytes: u64) -> Self;

    /// Makes these changes at once; waits as long as the store does not take them.
    fn write(&mut self, puts: &[Put<'_>]);

    /// Brings all to the disk, and waits until nothing is left to be tidied up.
    fn settle(&mut self);

    /// Reads keys one by one; returns how many are there.
    fn count_found(&self, keys: impl Iterator<Item = Key>) -> u64;

    /// Visits all cells in order; returns how many there are, and the bytes of their values.
    fn scan(&self) -> (u64, u64);

    /// Says something about the inner state, for the curious.
    fn describe(&self) -> String {
        String::new()
    }
}
