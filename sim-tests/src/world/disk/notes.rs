//! What the log of a world is told of a disk.
//!
//! Of a machine's own disk, that is: what an observer does to a view of it is nobody's business.

use super::{DiskState, Entry, InodeId};
use crate::world::core::Core;
use crate::world::log::Happening;

impl DiskState {
    /// Tells the log what has become of the machine's disk, if there is a log.
    pub(super) fn note(&self, core: &Core, what: impl FnOnce() -> Happening) {
        if !self.is_view {
            core.note(self.host, what);
        }
    }

    /// Tells the log how a file is, if there is a log.
    pub(super) fn note_file(&self, core: &Core, inode: InodeId) {
        if !core.is_logged() {
            return;
        }
        let own = |(_, entry): &(&String, &Entry)| **entry == Entry::File(inode);
        let (Some((path, _)), Some(file)) = (self.names.iter().find(own), self.inodes.get(&inode))
        else {
            return;
        };
        let pending = file.pending.iter().map(|change| change.kind.range().1).sum();
        let (path, cached) = (path.clone(), file.cached.len());
        self.note(core, || Happening::File { path, cached, pending });
    }

    /// Tells the log how every file is, if there is a log.
    pub(super) fn note_files(&self, core: &Core) {
        if core.is_logged() {
            self.inodes.keys().for_each(|inode| self.note_file(core, *inode));
        }
    }
}
