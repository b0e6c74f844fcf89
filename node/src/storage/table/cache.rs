//! Blocks that were read lately, verified and unpacked, for all tables together.
//!
//! Its size is counted in bytes. What is dropped when it is full is chosen by a clock: a hand goes
//! around the blocks, forgives once each that was asked for since the last round, and drops the
//! first that was not. A block that is read once, as by a scan, is therefore gone before one that
//! is asked for again. Once it is full, it takes a block in only when that is read for the second
//! time within some thousand readings: where every block is as likely as any other and few of
//! them fit in, taking each in would cost more than the few that are found again spare. The cache
//! is in parts, each with a lock of its own, so that two threads
//! seldom wait for each other. What it holds depends on the calls alone.
//!
//! # Left out
//! Blocks that a merge reads, unless they are there: it reads each block once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::block::Block;

/// Parts of a cache that is large enough to have some.
const SHARDS: usize = 16;

/// Smallest part: it must have room for some blocks with the largest of values.
const SHARD_BYTES_MIN: usize = 2 << 20;

/// What a block costs besides its bytes: its slot and its key, about.
const SLOT_BYTES: usize = 128;

/// Readings of which a full part remembers what was read, at most.
const REMEMBERED: usize = 1 << 10;

/// Number of the table and offset of the frame.
type Key = (u64, u64);

/// A shared cache of blocks; see the [module](super).
#[derive(Debug)]
pub struct BlockCache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    places: BTreeMap<Key, usize>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
    /// Blocks that were read when there was no room, each where its key falls.
    turned_away: Vec<Key>,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    block: Block,
    /// Whether it was asked for since the hand came by.
    asked: bool,
}

impl BlockCache {
    /// Makes a cache that holds about `bytes_max` bytes; 0 for none at all.
    pub fn new(bytes_max: usize) -> Self {
        let shard_count = (bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS);
        let shards = (0..shard_count).map(|_| Mutex::default()).collect();
        Self { shards, shard_bytes_max: bytes_max / shard_count }
    }

    /// Returns how many bytes the blocks take that it holds.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).bytes).sum()
    }

    fn shard(&self, key: Key) -> Option<MutexGuard<'_, Shard>> {
        let mixed = mixed(key) >> 32;
        let count = u64::try_from(self.shards.len()).unwrap_or(1);
        let shard = usize::try_from((mixed * count) >> 32).unwrap_or(0);
        self.shards.get(shard).map(lock)
    }

    /// Returns the block of a table at an offset, if it is there.
    pub(super) fn get(&self, number: u64, offset: u64) -> Option<Block> {
        let mut shard = self.shard((number, offset))?;
        let place = *shard.places.get(&(number, offset))?;
        let slot = shard.slots.get_mut(place)?.as_mut()?;
        slot.asked = true;
        Some(slot.block.clone())
    }

    /// Puts a block there, for which others may have to go; not at once, if there is no room.
    pub(super) fn put(&self, number: u64, offset: u64, block: &Block) {
        let cost = block.memory_bytes() + SLOT_BYTES;
        if cost > self.shard_bytes_max {
            return;
        }
        let key = (number, offset);
        let Some(mut shard) = self.shard(key) else { return };
        if shard.places.contains_key(&key) {
            return;
        }
        let has_room = shard.bytes <= self.shard_bytes_max - cost;
        if !has_room && !shard.is_read_again(key) {
            return;
        }
        shard.make_room(self.shard_bytes_max - cost);
        shard.insert(Slot { key, block: block.clone(), asked: false }, cost);
    }

    /// Drops all blocks of a table that nobody will read again.
    pub(super) fn forget(&self, number: u64) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let keys = shard.places.range((number, 0)..=(number, u64::MAX));
            let places: Vec<usize> = keys.map(|(_, place)| *place).collect();
            for place in places {
                shard.remove(place);
            }
        }
    }
}

/// Returns a number that differs in all its bits where keys differ in some.
fn mixed((number, offset): Key) -> u64 {
    (number ^ offset.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// Tells whether a block was turned away lately; if not, it is remembered.
    fn is_read_again(&mut self, key: Key) -> bool {
        if self.turned_away.is_empty() {
            self.turned_away.resize(REMEMBERED, (u64::MAX, u64::MAX));
        }
        let place = usize::try_from(mixed(key) >> 16).unwrap_or(0) % REMEMBERED;
        let last = self.turned_away.get_mut(place);
        last.is_some_and(|last| std::mem::replace(last, key) == key)
    }

    /// Drops blocks until no more than `bytes_max` bytes are left.
    fn make_room(&mut self, bytes_max: usize) {
        // Two rounds forgive each block at most once, and drop all.
        for _ in 0..2 * self.slots.len() {
            if self.bytes <= bytes_max {
                return;
            }
            let place = self.hand;
            self.hand = if place + 1 < self.slots.len() { place + 1 } else { 0 };
            match self.slots.get_mut(place) {
                Some(Some(slot)) if slot.asked => slot.asked = false,
                _ => self.remove(place),
            }
        }
    }

    fn insert(&mut self, slot: Slot, cost: usize) {
        self.bytes += cost;
        let place = self.free.pop().unwrap_or(self.slots.len());
        self.places.insert(slot.key, place);
        match self.slots.get_mut(place) {
            Some(vacant) => *vacant = Some(slot),
            None => self.slots.push(Some(slot)),
        }
    }

    fn remove(&mut self, place: usize) {
        let Some(slot) = self.slots.get_mut(place).and_then(Option::take) else { return };
        self.places.remove(&slot.key);
        self.bytes -= slot.block.memory_bytes() + SLOT_BYTES;
        self.free.push(place);
    }
}
