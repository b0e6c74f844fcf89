//! The write-ahead log: the promise that what was acknowledged survives.
//!
//! Both replication modes write their log entries and hard state here before they answer anybody.
//! One task of the shell owns the [`Writer`]; it stands on [`crate::env::Disk`] and knows neither
//! what a record means nor who waits for it.
//!
//! ```text
//!     for every request that waits:  append     encodes into a buffer, no I/O
//!     once for all of them:          write      one write
//!                                    sync       one fsync: now they are durable
//!     after the answers:             prepare    a step towards the next segment; or take_fill
//!                                               and give_back, with other batches in between
//!     when nothing waits:            mark       tells the disk what is durable
//!     after a snapshot:              remove_through
//!     before the process ends:       close      a mark, and a sync of it
//! ```
//! That loop is the group commit: while one batch is synced the next one gathers.
//!
//! The obstacles, in the order in which they hurt:
//!
//! *An append that grows a file is slow.* Its fsync writes metadata, too (270 µs, against 140 µs
//! measured here for overwriting). So segments are made ahead, written full with zeros and synced,
//! in small steps while the segment before them fills up; then they get their name. They begin
//! small and grow by a factor, for a segment can only be ready in time if the one before it takes
//! long enough to fill up.
//!
//! *A power loss keeps any sectors of an unsynced write, in any order.* So a record carries its
//! sequence and a checksum over itself and its position, and every batch begins with a sector of
//! its own: no write ever touches a sector that holds durable bytes, and a sector that was lost
//! reads as the zeros it had before.
//!
//! *A bad record may be torn or rotten, and the two want opposite answers.* Torn means that it was
//! never acknowledged: it must go, or it may come back after others have taken its place. Rotten
//! means that it was, perhaps: to cut the log there would take back a promise, and everything
//! behind it as well. The bytes alone do not tell which it is. The next section does.
//!
//! # Torn or rotten
//! Every record tells up to which sequence the log was durable when it was encoded. A file's name
//! tells the same: a segment gets it only when everything before is durable. [`Writer::mark`]
//! writes the news when no record is there to carry it. The highest such number is the
//! **evidence**: what it covers was durable once. From there it is two cases:
//!
//! ```text
//!  #7 and #8 were synced, then #9 … #12 written in one batch; the power fails.
//!
//!       d6   d6 │ d8    d8    d8    d8          dN: "durable up to N", as the record says
//!     ┌────┬────┬─────┬─────┬─────┬─────┐
//!  1. │ 7  │ 8  │  9  │▒▒▒▒▒│ 11  │ 12  │ 0 0    evidence 8 < 10, whatever it looks like:
//!     └────┴────┴─────┴─────┴─────┴─────┘        torn. #9 stays, #10 to #12 are void: nobody can
//!                      └── void ───────┘         have been told that they are safe.
//!     ┌────┬────┬─────┬─────┬─────┬─────┐
//!  2. │ 7  │▓▓▓▓│  9  │ 10  │ 11  │ 12  │ 0 0    evidence 8 ≥ 8: rot, whatever it looks like. All
//!     └────┴────┴─────┴─────┴─────┴─────┘        others are returned, and a Damage for #8.
//! ```
//! A mark is worth writing because without one the last batch before a crash has no witness. What
//! remains undetected is rot in that very batch before a mark or another batch has reached the
//! disk. The other choice, to suspect every unproven record that looks altered, would stop a whole
//! cluster for good when a power loss tears the last write of a majority into garbage. One copy of
//! an entry is lost silently here only if the node was killed, or lost its power, before the mark
//! that follows within moments, and its disk rots in that batch before the next start has copied
//! it, however long that takes. [`Writer::close`] leaves no such part behind; [`unwitnessed`] tells
//! where it begins.
//!
//! Zeros are the normal end of a segment, but the end of the log only if no record follows: the
//! search goes on to the end of the file, and a later segment says how far this one must reach.
//!
//! # Starting again
//! What recovery returns is acted upon, so any later recovery must return it, too, whatever
//! happens in between. If the log ends cleanly and all of it is covered by evidence, that is so,
//! and its last segment is continued. Otherwise a new segment takes over:
//!
//! ```text
//!   …0001.wal   1 2 3 4 5 6 7 8 │ 9 ▒▒ 11 12        as the crash left it, never touched again
//!   spare.tmp                   │ 9 mark(9)         copy what has no evidence, and sync;
//!   …0009.wal   ← rename, sync the directory        then everything from 9 on is found here
//! ```
//! The name of a segment voids every sequence from it on in older segments. So the torn tail is
//! cut off by one atomic rename; no byte of it has to be cleared, and a second crash leaves either
//! the old tail, judged as before, or the new segment. Copying also heals what a failed fsync has
//! left behind: records that can be read from the page cache and will never reach the disk.
//! [Fsync '20]
//!
//! # Critical records
//! A vote that one rotten sector can take back is a vote that may be given twice. Hard state is
//! appended by [`Writer::append_critical`]: two copies, in different blocks of 4 KiB, for a disk
//! loses as much at once, and a third one for the mark that tells of them. (In a segment of less
//! than 64 KiB, which only tests have, in different sectors.) If one copy is bad and nothing tells
//! why, it is restored from the other, torn or rotten. Every segment begins with the newest hard
//! state as its *preamble*, so older segments can go. A start that finds the newest in one copy
//! only has it said again ([`Recovery::is_newest_critical_whole`]).
//!
//! A sector that cannot be read takes all of its records with it, and nobody knows what they were.
//! So each record tells how many right before it are written once: where the next one says so of
//! all that are missing, entries are lost, which others have, and no vote.
//!
//! # Invariants
//! - **S1** Sequences of records rise by one, over all segments.
//! - **S2** A segment is named only once every record before its first is durable.
//! - **S3** No write touches a sector that holds a durable record, and none is written twice but
//!   after a write that found no space: to repeat the same bytes, or in place of a mark, of which
//!   the rest looks like that of an unfinished write.
//! - **S4** `durable ≤ written < next`, and none of them ever goes back.
//! - **S5** After an error that is not `NoSpace` the writer does nothing any more.
//! - **S6** Recovery gives the same records however often it runs.
//! - **S7** A segment with critical records is removed only when a durable preamble after it has
//!   said them again, and a durable record tells that it is durable; the newest segment never is.
//!
//! # Removing
//! Segments go from the oldest on, each removal made durable before the next. Safety does not need
//! the removal itself to be durable: a segment that is back after a power loss holds records that
//! a snapshot covers, and older hard state than what follows. But it needs their order: if several
//! could be lost one by one, a hole among the segments might be a removal or a lost segment.
//!
//! # Left out
//! - Recycling of old segments instead of writing zeros: it would save the zeros' bandwidth, but a
//!   sector that was never written would no longer be recognised by its zeros.
//! - To notice that the newest segments are gone, file and name: what is left ends as a log does
//!   that never went further. Only of a log that is gone as a whole it can be told, by who knows
//!   that there was one ([`Recovery::is_blank`]), and of a last segment that is cut off before its
//!   first record. One that is cut off later reads like one that was never written further.
//! - Repair of rot in place: the caller refills what it lost from peers, as new records, and the
//!   damaged segment is removed in time.
//! - Who is told of what: the shell counts batches and wakes exactly those waiters whose sequence
//!   is durable.
//! - Compression and encryption.
//!
//! # Layout
//! `record.rs` draws a record, `segment.rs` a file.
//!
//! # Sources
//! \[CTRL\] (torn or rotten needs a witness), \[Fsync '20\] (a failed fsync is never tried again),
//! \[ALICE\] (what a rename needs around it).

mod chunk;
mod dump;
mod examine;
#[cfg(feature = "testing")]
pub mod fuzzed;
mod record;
mod recovery;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

pub use dump::{dump, inspect, unwitnessed};
pub use recovery::{Damage, Loss, Recovered, Recovery, Torn};
pub use segment::{Fill, Filled};
pub use writer::Writer;

use writer::Start;

use super::StorageError;
use crate::base::limits::FRAME_BYTES_MAX;
use crate::env::Disk;

/// Number of a record in the log, from 1, over all segments.
pub type Sequence = u64;

/// Greatest sequence that is believed: no log ever gets there. So nothing that is reckoned with
/// sequences overflows, whatever stands in a file or is its name.
const SEQUENCE_MAX: Sequence = 1 << 62;

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
    /// Size of a segment in bytes, up to which segments grow after each start. Too small: a
    /// directory sync and two file syncs more often. Too large: space that a snapshot has made
    /// useless is freed late, in big steps.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20 }
    }
}

/// Opens the log in `dir`, or creates an empty one, and tells what it holds.
///
/// Everything it tells is durable by then: any later opening finds it, too.
///
/// # Errors
/// The disk refuses; with `NoSpace` it may be tried again. Or the log was written by another
/// version of the program. Damage is no error: see [`Recovery::damage`].
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
    if recovery.next >= SEQUENCE_MAX {
        // What is written next would not be believed. Nobody gets there; somebody made this file.
        let (path, found) = (dir.to_owned(), format!("sequence {:x}", recovery.next));
        return Err(StorageError::Format { path, found, expected: "a sequence within reach" });
    }
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
