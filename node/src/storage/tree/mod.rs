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
//! # Runs
//! A flushed memtable is a table of level 0; those overlap. Every other level is one sorted *run*,
//! cut into tables of about [`TreeOptions::table_bytes`]. A store of up to
//! [`TreeOptions::base_bytes`] has one run, into which level 0 is merged. A larger one gets a new
//! run from each full level 0, and runs are merged only if there are more than
//! [`TreeOptions::runs_max`], or if much of the store is superfluous: a store that only grows is
//! written again as often as reads demand, and no more; one whose cells change is written again as
//! often as space does. `picker` has the rules, `superfluous` the estimate.
//!
//! Superfluous entries are at most 38 hundredths of the others once compactions are done, by an
//! estimate that may be some hundredths of the store off. Cells of deleted rows are among them,
//! however long the rows are. While compactions are made there is more: both copies of what is
//! merged are there until the new one counts.
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
//! The structure is that of [LSM '96]; runs that are merged when they are too many, and not when
//! each is full, are the tiering of [Dostoevsky '18]. Cassandra, too, estimates how much its tables
//! have in common before it merges them, by sketches of their keys.

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
mod superfluous;
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
#[cfg(feature = "testing")]
pub use verdict::reread_verdict;
pub use version::{Version, VersionCursor};

use super::StorageError;
use super::table::TableOptions;
use crate::env::{Disk, DiskErrorKind, File};

/// Levels, level 0 included. The others hold six runs, one more than there usually are to be: level
/// 0 has room for the next one while runs are merged.
const LEVEL_COUNT: usize = 7;

/// Sizes of a table store. Any values work; what they trade is said at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeOptions {
    /// Memory of a memtable, after which a flush is due. Larger ones cost memory, time to replay
    /// the log after a crash, and speed of writing; smaller ones cost more compaction.
    pub memtable_bytes: u64,
    /// Frozen memtables that wait to be flushed before writes are to be held back.
    pub frozen_max: usize,
    /// Bytes after which a compaction begins another table; sooner where one reaches much below it.
    pub table_bytes: u64,
    /// Tables of level 0 at which they are compacted, if their bytes did not demand it before.
    pub level0_tables: usize,
    /// Tables of level 0 at which writes are to be held back: every read asks all of them.
    pub level0_tables_max: usize,
    /// Bytes up to which all that was flushed is kept in one sorted run, which reads like best and
    /// small stores can afford.
    pub base_bytes: u64,
    /// Sorted runs beyond which some are merged; there is room for six. Every read asks each of
    /// them; with fewer, everything is written more often.
    pub runs_max: usize,
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
            runs_max: 5,
            step_bytes: 64 << 10,
            cache_bytes: 64 << 20,
            table: TableOptions::default(),
        }
    }
}

impl TreeOptions {
    /// Returns the bytes of tables that are merged at a time, when runs are.
    fn merge_bytes_max(&self) -> u64 {
        let level0_tables = u64::try_from(self.level0_tables.max(1)).unwrap_or(u64::MAX);
        level0_tables.saturating_mul(self.table_bytes)
    }

    /// Returns the bytes of a lower run that a new table is to reach: with half of what is merged
    /// at a time, the largest of several runs leaves room for the others.
    fn reach_bytes_max(&self) -> u64 {
        (self.merge_bytes_max() / 2).max(self.table_bytes)
    }

    /// Returns the bytes that a new table has at least, however much of lower runs it reaches:
    /// each table costs a file and a sync that is waited for. It matters where a run is more than
    /// 256 times as long as one above it, with the usual options.
    fn cut_bytes_min(&self) -> u64 {
        self.table_bytes / 64
    }

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
