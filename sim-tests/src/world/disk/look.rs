//! What a scenario may see of a disk, to strike at the right moment and in the right place.

use super::{DiskState, Entry, Inode, InodeId, NameKind};

/// A file as its disk knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Stands for the file as long as it is there.
    pub id: u64,
    /// Its name; empty if it is open without one.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Whether all of its bytes are durable.
    pub is_synced: bool,
    /// Whether its name is durable.
    pub is_name_durable: bool,
}

impl DiskState {
    /// Returns every file that has a name, by name, then those that are open without one.
    pub(in crate::world) fn files(&self) -> Vec<FileState> {
        let state = |path: &str, id: InodeId, inode: &Inode| FileState {
            id,
            path: path.to_owned(),
            bytes: inode.cached.len(),
            is_synced: inode.pending.is_empty(),
            is_name_durable: self.is_name_durable(path, id),
        };
        let mut files = Vec::new();
        for (path, entry) in &self.names {
            if let Entry::File(id) = entry
                && let Some(inode) = self.inodes.get(id)
            {
                files.push(state(path, *id, inode));
            }
        }
        for (id, inode) in &self.inodes {
            if inode.open_count > 0 && !files.iter().any(|file| file.id == *id) {
                files.push(state("", *id, inode));
            }
        }
        files
    }

    pub(super) fn is_name_durable(&self, path: &str, id: InodeId) -> bool {
        self.durable_names.get(path) == Some(&Entry::File(id)) && !self.is_removed_or_renamed(path)
    }

    fn is_removed_or_renamed(&self, path: &str) -> bool {
        self.pending_names.iter().any(|change| match &change.kind {
            NameKind::Create { .. } => false,
            NameKind::Remove { path: removed } => removed == path,
            NameKind::Rename { from, to, .. } => from == path || to == path,
        })
    }

    /// Reads a file as a node does, but for the notice that is taken of rot.
    pub(in crate::world) fn peek(&self, id: u64, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.inodes.get(&id).map_or(0, |inode| inode.cached.read(offset, &mut bytes));
        bytes.truncate(read);
        bytes
    }
}
