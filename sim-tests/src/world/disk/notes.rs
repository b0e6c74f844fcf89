//! What the log of a world is told of a disk.
//!
//! Of a machine's own disk, that is: what an observer does to a view of it is nobody's business.

use super::{DataKind, DiskState, Entry, Inode, InodeId};
use crate::world::core::{Core, bytes_u64};
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
        let waiting: u64 = file.pending.iter().map(|change| change.kind.range().1).sum();
        let volatile: u64 = file.volatile.iter().map(|(_, len)| len).sum();
        let is_name_durable = self.is_name_durable(path, inode);
        let (path, cached, pending) = (path.clone(), file.cached.len(), waiting + volatile);
        self.note(core, || Happening::File { path, cached, pending, is_name_durable });
    }

    /// Returns the names of all files, if there is a log.
    pub(in crate::world) fn file_names(&self, core: &Core) -> Vec<String> {
        let files = self.names.iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        let files = files.map(|(path, _)| path.clone());
        if core.is_logged() { files.collect() } else { Vec::new() }
    }

    /// Tells the log how every file is, and which of these are gone.
    pub(in crate::world) fn note_files_instead_of(&self, core: &Core, before: &[String]) {
        for path in before.iter().filter(|path| self.inode_of(path).is_err()) {
            self.note(core, || Happening::Gone { path: path.clone() });
        }
        if core.is_logged() {
            self.inodes.keys().for_each(|inode| self.note_file(core, *inode));
        }
    }

    /// Tells the log how durable the names in a directory are.
    pub(super) fn note_directory(&self, core: &Core, path: &str) {
        let own = self.pending_names.iter().filter(|change| change.directory == path);
        let pending = bytes_u64(own.count());
        self.note(core, || Happening::Directory { path: path.to_owned(), pending });
    }

    /// Returns the files whose names are not durable, if there is a log.
    pub(super) fn files_without_durable_name(&self, core: &Core) -> Vec<InodeId> {
        let nameless = self.names.iter().filter_map(|(path, entry)| match entry {
            Entry::File(inode) => (!self.is_name_durable(path, *inode)).then_some(*inode),
            Entry::Directory => None,
        });
        if core.is_logged() { nameless.collect() } else { Vec::new() }
    }

    /// Tells the log of a directory that was synced, before which those had no durable name.
    pub(super) fn note_names(&self, core: &Core, path: &str, nameless: &[InodeId]) {
        self.note_directory(core, path);
        let left = self.files_without_durable_name(core);
        for inode in nameless.iter().filter(|inode| !left.contains(inode)) {
            self.note_file(core, *inode);
        }
    }
}

impl Inode {
    /// Takes note that a sync has covered a change, and whether it has made it durable.
    pub(super) fn note_sync(&mut self, change: &DataKind, is_durable: bool) {
        let (start, len) = match change {
            DataKind::Truncate { len } => (*len, if is_durable { u64::MAX } else { 0 }),
            DataKind::Write { .. } | DataKind::Zeros { .. } => change.range(),
        };
        if len == 0 {
            return;
        }
        self.note_durable(start, len);
        if !is_durable {
            self.volatile.push((start, len));
        }
    }

    /// Takes note that the bytes of a range are on the medium as they are read.
    pub(super) fn note_durable(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        for (low, len) in std::mem::take(&mut self.volatile) {
            let high = low + len;
            let around = [(low, high.min(start)), (low.max(end), high)];
            let left = around.into_iter().filter(|(low, high)| low < high);
            self.volatile.extend(left.map(|(low, high)| (low, high - low)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, len: u64) -> DataKind {
        DataKind::Zeros { offset, len }
    }

    #[test]
    fn bytes_are_volatile_until_a_later_sync_covers_them() {
        let mut file = Inode::default();
        file.note_sync(&write(0, 100), false);
        file.note_sync(&write(50, 100), false);
        assert_eq!(file.volatile, [(0, 50), (50, 100)]);
        file.note_sync(&write(40, 20), true);
        assert_eq!(file.volatile, [(0, 40), (60, 90)]);
        file.note_sync(&DataKind::Truncate { len: 10 }, false);
        file.note_sync(&write(0, 0), false);
        assert_eq!(file.volatile, [(0, 40), (60, 90)], "nothing was written");
        file.note_sync(&DataKind::Truncate { len: 70 }, true);
        assert_eq!(file.volatile, [(0, 40), (60, 10)]);
        file.note_durable(0, 70);
        assert_eq!(file.volatile, []);
    }
}
