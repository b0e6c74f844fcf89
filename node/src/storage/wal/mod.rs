//! The write-ahead log.

mod chunk;
mod dump;
mod examine;
mod record;
mod recovery;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

pub use dump::dump;
pub use recovery::{Damage, Loss, Recovered, Recovery, Torn};
pub use writer::Writer;

use super::StorageError;
use crate::base::limits::FRAME_BYTES_MAX;
use crate::env::Disk;
use writer::Start;

/// Number of a record in the log, from 1, over all segments.
pub type Sequence = u64;

/// Longest payload of a record, in bytes.
pub const RECORD_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// A record as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is, to the caller.
    pub kind: u8,
    /// What decides when it may go: see [`Writer::remove_through`].
    pub tag: u64,
    /// The payload.
    pub payload: Vec<u8>,
}

/// How a log is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Size of a segment in bytes. Too small: a directory sync and two file syncs more often. Too
    /// large: space that a snapshot has made useless is freed late, in big steps.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20 }
    }
}

/// Opens the log in `dir`, or creates an empty one, and tells what it holds.
pub async fn open<D: Disk>(
    disk: &D,
    dir: &str,
    options: Options,
) -> Result<(Writer<D>, Recovery), StorageError> {
    disk.create_dir(dir).await?;
    disk.sync_dir(dir.rsplit_once('/').map_or("", |(parent, _)| parent)).await?;
    let sector = segment::to_u64(segment::SECTOR_BYTES);
    let segment_bytes = options.segment_bytes.max(segment::SEGMENT_BYTES_MIN);
    let options = Options { segment_bytes: segment_bytes.next_multiple_of(sector) };

    let mut log = examine::examine(disk, dir).await?;
    let recovery = recovery::judge(dir, &mut log);
    let settled = recovery::settle(disk, dir, &options, &mut log, &recovery).await?;
    // Also if no name is new: the node may have crashed before it synced the last one.
    disk.sync_dir(dir).await.map_err(segment::never_retry)?;
    let writer = Writer::new(Start {
        disk: disk.clone(),
        dir: dir.to_owned(),
        options,
        active: settled.file,
        segments: log.segments,
        open: settled.open,
        next: recovery.next,
    });
    Ok((writer, recovery))
}
