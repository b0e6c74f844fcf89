//! How a medium decays: bits that flip, and sectors that it gives back no more.
//!
//! Both are there until the place is written again. A flipped bit is read like any other; a read
//! that touches a lost sector fails as a whole, and says only that, as a kernel does.

use mangrove::base::Rng;

use super::{DiskState, Entry, Inode, InodeId, PAGE_BYTES, SECTOR_BYTES};
use crate::world::core::bytes_u64;

/// Where and what rot flipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rot {
    /// The file.
    pub path: String,
    /// The byte.
    pub offset: u64,
    /// The bit, 0 to 7.
    pub bit: u8,
}

impl Inode {
    /// Tells whether a sector of that range is lost.
    pub(super) fn is_unreadable(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        self.unreadable.iter().any(|at| *at < end && at + SECTOR_BYTES > offset)
    }
}

impl DiskState {
    /// Flips one durable bit in one of the first `reach(path)` bytes of a file; prefers no file to
    /// another.
    pub(in crate::world) fn rot(
        &mut self,
        reach: impl Fn(&str) -> u64,
        rng: &mut Rng,
    ) -> Option<Rot> {
        let (path, inode, offset) = self.draw_place(reach, rng)?;
        let bit = u8::try_from(rng.range(0, 8)).unwrap_or(0);
        let file = self.inode(inode);
        let (mut on_medium, mut in_cache) = ([0], [0]);
        file.durable.read(offset, &mut on_medium);
        let is_cached = file.cached.read(offset, &mut in_cache) == 1;
        let is_same = is_cached && in_cache == on_medium;
        if is_same {
            file.cached.flip(offset, bit);
        }
        file.durable.flip(offset, bit);
        // What was written since stays right, and whoever reads it sees no flipped bit.
        if is_same || !is_cached {
            file.rotten.push(offset);
        }
        Some(Rot { path, offset, bit })
    }

    /// Loses the sector of one durable byte among the first `reach(path)` of a file; returns where
    /// the sector begins. Nothing of the file is in the page cache then.
    pub(in crate::world) fn lose_sector(
        &mut self,
        reach: impl Fn(&str) -> u64,
        rng: &mut Rng,
    ) -> Option<(String, u64)> {
        let (path, inode, offset) = self.draw_place(reach, rng)?;
        let start = offset - offset % SECTOR_BYTES;
        self.inode(inode).unreadable.push(start);
        Some((path, start))
    }

    /// Draws a durable byte.
    fn draw_place(
        &self,
        reach: impl Fn(&str) -> u64,
        rng: &mut Rng,
    ) -> Option<(String, InodeId, u64)> {
        let mut places = Vec::new();
        for (path, entry) in &self.names {
            let Entry::File(inode) = entry else { continue };
            let Some(file) = self.inodes.get(inode) else { continue };
            let end = reach(path).min(file.durable.len());
            let pages = file.durable.page_offsets().into_iter().filter(|page| *page < end);
            places.extend(pages.map(|page| (path, *inode, page, end.min(page + PAGE_BYTES))));
        }
        if places.is_empty() {
            return None;
        }
        let (path, inode, page, end) = places.swap_remove(rng.index(places.len()));
        Some((path.clone(), inode, rng.range(page, end)))
    }

    /// Flips the lowest bit of one byte; tells whether there is such a byte.
    pub(in crate::world) fn rot_at(&mut self, id: u64, offset: u64) -> bool {
        let Some(inode) = self.inodes.get_mut(&id) else { return false };
        if offset >= inode.cached.len() {
            return false;
        }
        inode.cached.flip(offset, 0);
        let mut byte = [0];
        if bytes_u64(inode.durable.read(offset, &mut byte)) == 1 {
            inode.durable.flip(offset, 0);
        }
        inode.rotten.push(offset);
        true
    }

    /// Loses the sector of one byte; tells whether there is such a byte.
    pub(in crate::world) fn lose_sector_at(&mut self, id: u64, offset: u64) -> bool {
        let Some(inode) = self.inodes.get_mut(&id) else { return false };
        if offset >= inode.cached.len() {
            return false;
        }
        inode.unreadable.push(offset - offset % SECTOR_BYTES);
        true
    }
}
