//! Copies of a disk: what a power loss or the death of all processes would leave of it.
//!
//! A copy is a view for an observer, or becomes another disk. Whatever is done to a view is none of
//! the machine's: it makes no fault observable, and the log is told nothing of it.

use std::collections::BTreeMap;

use super::bytes::SparseBytes;
use super::{DiskId, DiskState, Entry, Inode};
use crate::world::options::DiskOptions;
use crate::world::trace::fold_bytes;

impl DiskState {
    /// Returns a disk that holds what would be left by a strict power loss now.
    pub(in crate::world) fn durable_copy(&self, id: DiskId) -> Self {
        self.copy(id, &self.durable_names, |inode| &inode.durable)
    }

    /// Returns a disk that holds what would be left if all processes died now.
    pub(in crate::world) fn written_copy(&self, id: DiskId) -> Self {
        self.copy(id, &self.names, |inode| &inode.cached)
    }

    fn copy(
        &self,
        id: DiskId,
        names: &BTreeMap<String, Entry>,
        content: impl Fn(&Inode) -> &SparseBytes,
    ) -> Self {
        let options = DiskOptions {
            sync_time: Default::default(),
            write_time: Default::default(),
            ..DiskOptions::default()
        };
        let mut copy = Self::new(id, self.host, options, self.fate, Vec::new());
        copy.is_view = true;
        copy.inode_count = self.inode_count;
        copy.durable_names = names.clone();
        let durable = |inode: &Inode| Inode {
            durable: content(inode).clone(),
            unreadable: inode.unreadable.clone(),
            ..Inode::new(inode.fate)
        };
        copy.inodes = self.inodes.iter().map(|(id, inode)| (*id, durable(inode))).collect();
        copy.settle();
        copy
    }

    /// Takes over everything that is durable on another disk, in place of what is here.
    pub(in crate::world) fn fill_from(&mut self, other: &Self) {
        let copy = other.durable_copy(self.id);
        self.inode_count = copy.inode_count;
        self.durable_names = copy.durable_names;
        self.inodes = copy.inodes;
        self.pending_names.clear();
        self.settle();
    }

    /// Makes a directory that nobody asked for durable, named after a number.
    pub(in crate::world) fn dirty(&mut self, number: u64) {
        self.durable_names.insert(format!("foreign-{number:016x}"), Entry::Directory);
    }

    /// Hashes every durable name and byte.
    pub(in crate::world) fn durable_hash(&self) -> u64 {
        let mut hash = 0_u64;
        for (path, entry) in &self.durable_names {
            let content = match entry {
                Entry::File(inode) => self.inodes.get(inode).map_or(0, |file| file.durable.hash()),
                Entry::Directory => 1,
            };
            hash = (hash.rotate_left(11) ^ fold_bytes(path.as_bytes()) ^ content)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        hash
    }
}
