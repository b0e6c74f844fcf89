//! The table store: a log-structured merge tree, for more cells than memory holds.
//!
//! Writes go to a sorted *memtable*. When it is full it is frozen, another takes over, and the
//! frozen one is *flushed*: written as an immutable [table](super::table). *Compaction* merges
//! tables, so that reads have few to ask and what was overwritten or deleted gives its space back.
//! The *manifest* says which tables there are, and which position of the log they stand for.
//!
//! ```text
//! write ─▶ memtable ──freeze──▶ frozen memtables ──flush──▶ level 0 ──compaction──▶ … ─▶ level 6
//!          └────────────────────── get, scan: the newest first ──────────────────────────────┘
//! ```
//!
//! Two values divide the work. The [`Tree`] belongs to the node's loop: every call is synchronous
//! and short. The [`Keeper`] belongs to one task that writes: it turns what is [`Frozen`] into
//! tables and small tables into large ones, and returns a new [`Version`] for the loop to
//! [adopt](Tree::adopt). They share nothing that changes.
//!
//! ```text
//! loop                                     task
//! Tree::is_flush_due, freeze ── Frozen ──▶ Keeper::flush ─────────┐
//!                                          Keeper::compact_step …─┤
//! Tree::adopt ◀──────────────────────────── Arc<Version> ─────────┘
//! log: cut up to version.applied           Keeper::collect: removes files nobody reads any more
//! ```
//!
//! # Levels
//! A flushed memtable is a table of level 0; those overlap. Every other level is one sorted
//! sequence in tables of about [`TreeOptions::table_bytes`]. All that stays comes to level 6 in
//! the end; a level above it is used only if the one below holds more than
//! [`TreeOptions::base_bytes`], and holds a [`TreeOptions::fanout`]th of that one. So level 0 is
//! merged into the first level that is in use, while small stores have level 6 alone; and what is
//! above level 6, which is all that may be superfluous, is a fraction of what is in it.
//!
//! Measured with random puts of 118 B (keys of 16, values of 100 that do not compress) in batches
//! of 64, flushes and compactions included, all on one core and in the page cache, tables not
//! compressed:
//!
//! | | 4 M puts over 1 M keys | 20 M puts over 8 M keys |
//! |---|---|---|
//! | puts a second | 612,000 (with LZ4 525,000) | 418,000 |
//! | bytes written for a byte put, without the log | 3.6 | 5.2 |
//! | space for a byte that is live, settled; most ever | 1.07; 2.6 | 1.18; 1.9 |
//! | longest write; step of a flush; of a compaction | 0.7; 2.0; 3.1 ms | 5.4; 5.0; 6.1 ms |
//!
//! Most space is in use when a small store's only level is merged: both copies are there until
//! the new one counts.
//!
//! # Invariants
//! 1. An entry of a place is newer than every one of the same place in an older source: memtable,
//!    frozen memtables, tables of level 0 (the newest first), then level by level.
//! 2. A tombstone goes away only when no table outside the compaction holds anything older where
//!    it reaches, and when the [floors](super::PurgeFloors) of the state on disk allow it.
//! 3. A version's position and its tables become durable in one step, by the manifest's rename.
//! 4. A file is removed only after a manifest that does not name it is durable, and after the last
//!    version that reads it is gone.
//! 5. After a failed sync nothing is written any more, and the sync is not tried again.
//! 6. The same calls make the same files.
//! 7. Level 0 has at most [`TreeOptions::level0_bound`] tables, if whoever freezes memtables asks
//!    [`Tree::may_flush`] before: so the tables that are open, with their indexes and filters in
//!    memory, and those that a read asks, are bounded however slow compactions are. A store that
//!    was left with more gets no further ones until they are fewer.
//!
//! # Versions
//! An entry of a place counts by its version, and so does a row's tombstone against the cells of
//! its row. In the primary-backup mode versions grow from write to write. In the masterless mode
//! they are stamps of many nodes and arrive in any order over different places; that invariant 1
//! holds there, too, and that nothing is written which a tombstone hides already, is up to the
//! writer: it reads before it writes. So neither reads nor merges care which mode it is.
//!
//! # Left out
//! Old versions of cells. Repair of a damaged table from another node: that is a snapshot, which
//! [replaces](Keeper::finish_replacement) everything. Compactions side by side.
//!
//! # Sources
//! The structure is that of [LSM '96]; levels sized from the last one up bound the superfluous
//! space [Space '17].

mod compaction;
mod engine;
mod examine;
mod flush;
mod keeper;
mod manifest;
mod memtable;
mod merge;
mod output;
mod picker;
mod recovery;
mod salvage;
mod scrub;
mod verdict;
mod version;

#[cfg(test)]
mod tests;

pub use engine::{Frozen, Tree};
pub use examine::{PlaceRange, StoreReport, TableReport, Wound, examine};
pub use keeper::Keeper;
#[cfg(feature = "testing")]
pub use manifest::reread_manifest;
pub use recovery::{Damage, Recovery, open};
pub use salvage::{Lost, Salvage, salvage};
pub use version::{Version, VersionCursor};

use super::StorageError;
use super::table::TableOptions;
use crate::env::{Disk, DiskErrorKind, File};

/// Levels, level 0 included. With the usual options the last but four hold more than a disk.
const LEVEL_COUNT: usize = 7;

/// Sizes of a table store. Any values work; what they trade is said at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeOptions {
    /// Memory of a memtable, after which a flush is due. Larger ones cost memory, time to replay
    /// the log after a crash, and speed of writing; smaller ones cost more compaction.
    pub memtable_bytes: u64,
    /// Frozen memtables that wait to be flushed before writes are to be held back.
    pub frozen_max: usize,
    /// Bytes after which a compaction begins another table.
    pub table_bytes: u64,
    /// Tables of level 0 at which they are compacted, if their bytes did not demand it before.
    pub level0_tables: usize,
    /// Tables of level 0 at which writes are to be held back: every read asks all of them.
    pub level0_tables_max: usize,
    /// Bytes of the first level in use beyond which another one comes into use above it.
    pub base_bytes: u64,
    /// How many times as much a level holds as the one above it. Larger ones waste less space
    /// and write more.
    pub fanout: u64,
    /// Bytes that are written, or merged, before others get their turn. More take the processor
    /// for longer; with many fewer, taking turns costs more than the work.
    pub step_bytes: usize,
    /// Memory for blocks of tables that were read.
    pub cache_bytes: u64,
    /// How tables are built.
    pub table: TableOptions,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self {
            memtable_bytes: 32 << 20,
            frozen_max: 2,
            table_bytes: 32 << 20,
            level0_tables: 8,
            level0_tables_max: 20,
            base_bytes: 256 << 20,
            fanout: 4,
            step_bytes: 64 << 10,
            cache_bytes: 64 << 20,
            table: TableOptions::default(),
        }
    }
}

impl TreeOptions {
    /// Returns how many tables level 0 has at most where memtables are frozen only when they
    /// [may be flushed](Tree::may_flush): when it is one short of being full, those that wait for
    /// the disk still come.
    pub fn level0_bound(&self) -> usize {
        self.level0_tables_max.saturating_sub(1) + self.frozen_max.max(1)
    }
}

/// Makes a file durable. That it failed for want of space is no reason to try again.
async fn sync<F: File>(file: &F) -> Result<(), StorageError> {
    file.sync().await.map_err(never_again)
}

/// Makes the names of a directory durable; see [`sync`].
async fn sync_dir<D: Disk>(disk: &D, dir: &str) -> Result<(), StorageError> {
    disk.sync_dir(dir).await.map_err(never_again)
}

fn never_again(mut error: crate::env::DiskError) -> StorageError {
    error.kind = DiskErrorKind::Io;
    error.into()
}

/// Returns the path of a table.
fn table_path(dir: &str, number: u64) -> String {
    format!("{dir}/table-{number}")
}

/// Returns the path of a file with what was captured with the cells.
fn extra_path(dir: &str, number: u64) -> String {
    format!("{dir}/extra-{number}")
}

/// Understands the name of a table or extra file.
fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("table-").or_else(|| name.strip_prefix("extra-"))?.parse().ok()
}
