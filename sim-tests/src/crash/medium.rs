//! What a disk holds, durably and not, as plain values.
//!
//! A file's *cached* content is what reads see. Its *pending* changes are those that no sync has
//! covered; a sync makes the cached content the durable one. Names work the same way, by directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::trace::Step;

/// Bytes that the medium writes as one: all of them or none.
pub(super) const SECTOR_BYTES: usize = 512;

/// One file, whatever its name; in the order of creation.
pub(super) type InodeId = usize;

/// A change of a file that is not durable.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// Position among all changes of all files.
    pub(super) order: usize,
    /// The bytes and where they go; `None` if the file is emptied.
    pub(super) write: Option<(usize, Arc<[u8]>)>,
}

impl Change {
    /// Returns how many sectors it touches, at least 1.
    pub(super) fn sector_count(&self) -> usize {
        let Some((offset, bytes)) = &self.write else { return 1 };
        let end = offset + bytes.len();
        end.div_ceil(SECTOR_BYTES).saturating_sub(offset / SECTOR_BYTES).max(1)
    }
}

/// A change of names that is not durable.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Create { path: String, inode: InodeId },
    Remove { path: String },
    Rename { from: String, to: String, inode: InodeId },
}

impl NameChange {
    /// Makes the change; a `half` rename leaves the old name, too.
    pub(super) fn apply(&self, names: &mut BTreeMap<String, InodeId>, half: bool) {
        match self {
            Self::Create { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            Self::Remove { path } => {
                names.remove(path);
            }
            Self::Rename { from, to, inode } => {
                if !half && names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }

    /// Returns the directory whose sync makes it durable.
    fn directory(&self) -> &str {
        let (Self::Create { path, .. } | Self::Remove { path } | Self::Rename { to: path, .. }) =
            self;
        directory_of(path)
    }
}

/// Returns the directory that a path is in.
pub(super) fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// One file.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) durable: Arc<Vec<u8>>,
    /// Hash of the durable bytes.
    pub(super) durable_hash: u64,
    pub(super) cached: Arc<Vec<u8>>,
    pub(super) pending: Vec<Change>,
}

/// A whole disk; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Medium {
    pub(super) inodes: Vec<Inode>,
    /// What reads see.
    pub(super) names: BTreeMap<String, InodeId>,
    pub(super) durable_names: BTreeMap<String, InodeId>,
    pub(super) pending_names: Vec<NameChange>,
    change_count: usize,
}

impl Medium {
    /// Returns the disk that holds just these files, durably.
    pub(super) fn of(image: &Image) -> Self {
        let mut medium = Self::default();
        for (path, (content, hash)) in &image.files {
            medium.durable_names.insert(path.clone(), medium.inodes.len());
            let (durable, cached) = (Arc::clone(content), Arc::clone(content));
            let inode = Inode { durable, durable_hash: *hash, cached, pending: Vec::new() };
            medium.inodes.push(inode);
        }
        medium.names.clone_from(&medium.durable_names);
        medium
    }

    /// Does a step; one that names a file that is not there does nothing.
    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(path) => {
                self.create(path);
            }
            Step::Write { inode, offset, bytes } => self.write(*inode, *offset, bytes),
            Step::Sync(inode) => self.sync(*inode),
            Step::SyncDirectory(directory) => self.sync_directory(directory),
            Step::Rename { from, to } => {
                if let Some(inode) = self.names.get(from).copied() {
                    let (from, to) = (from.clone(), to.clone());
                    self.change_names(NameChange::Rename { from, to, inode });
                }
            }
            Step::Remove(path) => self.change_names(NameChange::Remove { path: path.clone() }),
            Step::Note(_) => {}
        }
    }

    /// Creates a file, or empties the one that is there.
    pub(super) fn create(&mut self, path: &str) -> InodeId {
        if let Some(inode) = self.names.get(path).copied() {
            self.change(inode, None);
            return inode;
        }
        let inode = self.inodes.len();
        self.inodes.push(Inode { durable_hash: hash_bytes(&[]), ..Inode::default() });
        self.change_names(NameChange::Create { path: path.to_owned(), inode });
        inode
    }

    fn write(&mut self, inode: InodeId, offset: usize, bytes: &Arc<[u8]>) {
        self.change(inode, Some((offset, Arc::clone(bytes))));
    }

    fn change(&mut self, inode: InodeId, write: Option<(usize, Arc<[u8]>)>) {
        self.change_count += 1;
        let order = self.change_count;
        let Some(file) = self.inodes.get_mut(inode) else { return };
        match &write {
            Some((offset, bytes)) => put(Arc::make_mut(&mut file.cached), *offset, bytes),
            None => file.cached = Arc::default(),
        }
        file.pending.push(Change { order, write });
    }

    fn sync(&mut self, inode: InodeId) {
        let Some(file) = self.inodes.get_mut(inode) else { return };
        if !file.pending.is_empty() {
            file.pending.clear();
            file.durable = Arc::clone(&file.cached);
            file.durable_hash = hash_bytes(&file.durable);
        }
    }

    fn sync_directory(&mut self, directory: &str) {
        for change in std::mem::take(&mut self.pending_names) {
            if change.directory() == directory {
                change.apply(&mut self.durable_names, false);
            } else {
                self.pending_names.push(change);
            }
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names, false);
        self.pending_names.push(change);
    }

    /// Returns what a power loss leaves of which nothing survives but what was synced.
    pub(super) fn strict_image(&self) -> Image {
        let file = |(path, inode): (&String, &InodeId)| {
            let inode = self.inodes.get(*inode)?;
            Some((path.clone(), (Arc::clone(&inode.durable), inode.durable_hash)))
        };
        Image::new(self.durable_names.iter().filter_map(file).collect())
    }
}

/// Writes bytes into a content, which grows with zeros as needed.
pub(super) fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(target) = content.get_mut(offset..end) {
        target.copy_from_slice(bytes);
    }
}

/// What is on a disk after a power loss: files with their bytes and the hashes of those.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) files: BTreeMap<String, (Arc<Vec<u8>>, u64)>,
    /// Hash of all names and contents.
    pub(super) hash: u64,
}

impl Image {
    fn new(files: BTreeMap<String, (Arc<Vec<u8>>, u64)>) -> Self {
        let hashes = files.iter().map(|(path, (_, hash))| (hash_bytes(path.as_bytes()), *hash));
        let hash = hash_files(hashes);
        Self { files, hash }
    }

    /// Makes an image whose hash is known.
    pub(super) fn with_hash(files: BTreeMap<String, (Arc<Vec<u8>>, u64)>, hash: u64) -> Self {
        Self { files, hash }
    }
}

/// Returns the hash of an image: of (name, content) in the order of names.
pub(super) fn hash_files(files: impl Iterator<Item = (u64, u64)>) -> u64 {
    files.fold(0, |hash, (name, content)| mix(mix(hash, name), content))
}

/// Returns a hash of bytes, good enough to tell a million images apart.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = word.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
        hash = mix(hash, word);
    }
    words.remainder().iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

/// Folds a word into a hash.
pub(super) fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ 0x9e37_79b9_7f4a_7c15)
        * u128::from(word.rotate_left(29) ^ 0xd6e8_feb8_6659_fd93);
    let high = u64::try_from(product >> 64).unwrap_or(0);
    let low = u64::try_from(product & u128::from(u64::MAX)).unwrap_or(0);
    high ^ low ^ hash.rotate_left(23)
}
