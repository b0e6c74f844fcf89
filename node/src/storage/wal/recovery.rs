//! What a node finds in its log when it starts: records, torn tails and rot.
//!
//! Three steps. [`examine`](super::examine) lists the records and gaps of every segment. [`judge`]
//! decides for each gap whether it is torn or rot, by the rules in the [module essay](super).
//! [`settle`] makes the answer durable before anybody acts on it. The first two never write, so
//! `mangrove wal dump` may use them on a log that it must not touch.

use std::ops::Range;

use bytes::Bytes;

use super::chunk::{Chunk, Fields};
use super::examine::{Gap, Log, Segment};
use super::record::Role;
use super::segment::{self, SECTOR_BYTES, Spare, to_u64};
use super::{Options, Sequence, StorageError};
use crate::env::{Disk, File};
use crate::{planted, probe};

/// What a log held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Every intact record, before and after any damage, by ascending sequence; both copies of
    /// critical ones.
    pub records: Vec<Recovered>,
    /// What was durable once and is damaged. It is reported again at each start, until the segment
    /// that it is in has been removed.
    pub damage: Vec<Damage>,
    /// The unfinished write that the last crash left behind, if any; its records are gone.
    pub torn: Option<Torn>,
    /// The sequence that the next record will get.
    pub next: Sequence,
    /// Names in the log's directory that mean nothing to it. They are left alone.
    pub unknown_files: Vec<String>,
}

/// A record that was found intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its number in the log.
    pub sequence: Sequence,
    /// The caller's kind.
    pub kind: u8,
    /// The caller's tag.
    pub tag: u64,
    /// The payload. It shares the memory of its whole segment.
    pub payload: Bytes,
    pub(super) role: Role,
}

/// A damaged place of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file.
    pub path: String,
    /// Where in it the damage begins, in bytes.
    pub offset: u64,
    /// The sequences that cannot be read any more; empty if only unused bytes are damaged. At the
    /// very end of the log their number is a guess.
    pub missing: Range<Sequence>,
    /// The caller's tag of what is missing, where its header is still readable.
    pub tag: Option<u64>,
    /// What that means to the caller.
    pub loss: Loss,
    /// Whether it is certain that the records were durable. If not, they may also be the garbage
    /// of an unfinished write; to take them for acknowledged is the safe side.
    pub is_certain: bool,
    /// What is wrong there.
    pub what: &'static str,
}

/// What a damage has cost the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Nothing: unused bytes, or one copy of a critical record.
    Nothing,
    /// Records that are written once.
    Records,
    /// Records, perhaps both copies of a critical one among them.
    Critical,
}

/// An unfinished write at the end of the log. Nothing of it was ever reported durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The segment's file.
    pub path: String,
    /// Where in it the unfinished part begins, in bytes.
    pub offset: u64,
    /// The first sequence that is void; the next record gets it again.
    pub from: Sequence,
    /// How many intact records came after the torn one. They are void, too.
    pub dropped_count: usize,
}

impl Recovery {
    /// Tells whether nothing says that there was ever a record: no segment does, not even by its
    /// name. So begins a new log, and so does one whose files are gone; who keeps elsewhere what
    /// was in the log before can tell these apart.
    pub fn is_blank(&self) -> bool {
        self.records.is_empty() && self.damage.is_empty() && self.next <= 1
    }

    /// Tells whether the newest critical record is there twice, or there is none.
    ///
    /// If not, the next rotten sector may take it; the caller had better say it again.
    pub fn is_newest_critical_whole(&self) -> bool {
        let is_critical = |record: &&Recovered| match record.role {
            Role::First | Role::Second | Role::Alone => true,
            Role::Single | Role::Mark => false,
        };
        let mut newest = self.records.iter().rev().filter(is_critical);
        let Some(last) = newest.next() else { return true };
        let other = newest.next().filter(|other| other.sequence + 1 == last.sequence);
        last.role == Role::Second && other.is_some_and(|other| other.role == Role::First)
    }
}

/// Decides what is torn and what is rot. Takes the records and gaps out of `log`.
pub(super) fn judge(dir: &str, log: &mut Log) -> Recovery {
    let mut recovery = Recovery {
        records: std::mem::take(&mut log.records),
        unknown_files: std::mem::take(&mut log.unknown_files),
        next: log.next,
        ..Recovery::default()
    };
    let mut damaged = Vec::new();
    let gaps = std::mem::take(&mut log.gaps);
    let evidence = log.evidence;
    for gap in gaps.into_iter().flat_map(|gap| split(gap, evidence)) {
        if is_torn(&gap, log) {
            if is_between_records(&gap, &recovery.records) {
                continue;
            }
            if mend_pair(&mut recovery.records, &gap) {
                continue;
            }
            truncate(dir, &mut recovery, &gap, log);
            break;
        }
        damaged.push(gap);
    }
    forget_torn_copy(&mut recovery);
    for gap in damaged {
        probe!("wal.reports_damage");
        recovery.damage.push(Damage {
            path: path_of(dir, log, &gap),
            offset: gap.offset,
            missing: gap.missing.clone(),
            tag: gap.header.map(|header| header.tag),
            loss: loss_of(&recovery.records, &gap),
            is_certain: gap.missing.start <= log.evidence,
            what: gap.what,
        });
    }
    recovery
}

/// Parts a gap into what was durable and what is not known to have been.
fn split(gap: Gap, evidence: Sequence) -> impl Iterator<Item = Gap> {
    let border = (evidence + 1).max(gap.missing.start);
    if border == gap.missing.start || border >= gap.missing.end {
        return [Some(gap), None].into_iter().flatten();
    }
    let rest = Gap { missing: border..gap.missing.end, unwritten: gap.hole, ..gap.clone() };
    let proven = Gap { missing: gap.missing.start..border, ..gap };
    [Some(proven), Some(rest)].into_iter().flatten()
}

/// Tells whether a gap is the beginning of an unfinished write, rather than rot.
fn is_torn(gap: &Gap, log: &Log) -> bool {
    if gap.segment + 1 != log.segments.len() {
        return false;
    }
    if planted!("W7") {
        return !gap.missing.is_empty() || gap.unwritten;
    }
    gap.missing.start > log.evidence
}

/// Tells whether nothing is missing where a gap is: a mark was there, or the segment's header.
///
/// What comes after it may well have been acknowledged, and must not be void for the loss of its
/// witness.
fn is_between_records(gap: &Gap, records: &[Recovered]) -> bool {
    let next = gap.missing.start;
    let is_there = || records.binary_search_by_key(&next, |record| record.sequence).is_ok();
    gap.missing.is_empty() && is_there()
}

/// Restores one copy of a critical record from the other; tells whether the gap was just that.
///
/// Whether the copy is torn or rotten has no witness yet, and need not be known: a vote that
/// nobody was told of does no harm, and one that somebody was told of must not be forgotten.
fn mend_pair(records: &mut Vec<Recovered>, gap: &Gap) -> bool {
    let Range { start, end } = gap.missing;
    let position = records.partition_point(|record| record.sequence < start);
    let Some(after) =
        records.get(position).filter(|after| start + 1 == end && after.sequence == end)
    else {
        return false;
    };
    let before = position.checked_sub(1).and_then(|before| records.get(before));
    let before = before.filter(|record| record.sequence + 1 == start && record.role == Role::First);
    let (copy, role) = match before {
        Some(first) => (first, Role::Second),
        None if after.role == Role::Second => (after, Role::First),
        None => return false,
    };
    probe!("wal.mends_critical_pair");
    let copy = Recovered { sequence: start, role, ..copy.clone() };
    records.insert(position, copy);
    true
}

/// Gives up everything from the gap on.
fn truncate(dir: &str, recovery: &mut Recovery, gap: &Gap, log: &mut Log) {
    let from = gap.missing.start;
    let kept = recovery.records.partition_point(|record| record.sequence < from);
    let dropped_count = recovery.records.len().saturating_sub(kept);
    if dropped_count > 0 {
        probe!("wal.drops_intact_records_of_unfinished_write");
    }
    probe!("wal.truncates_torn_tail");
    recovery.records.truncate(kept);
    recovery.next = from;
    log.evidence = log.evidence.min(from.saturating_sub(1));
    let path = path_of(dir, log, gap);
    recovery.torn = Some(Torn { path, offset: gap.offset, from, dropped_count });
}

/// A second copy that was never finished leaves its sequence to another record, which is no copy.
fn forget_torn_copy(recovery: &mut Recovery) {
    let next = recovery.next;
    let first = recovery.records.last_mut().filter(|last| last.sequence + 1 == next);
    if let Some(first) = first.filter(|first| first.role == Role::First) {
        probe!("wal.keeps_one_copy_of_unfinished_pair");
        first.role = Role::Alone;
    }
}

fn path_of(dir: &str, log: &Log, gap: &Gap) -> String {
    segment::path(dir, log.segments.get(gap.segment).map_or(0, |segment| segment.first))
}

/// Weighs a gap against the copies that survive on either side of it.
fn loss_of(records: &[Recovered], gap: &Gap) -> Loss {
    let Range { start, end } = gap.missing;
    let is_covered_before = role_of(records, start.saturating_sub(1)) == Some(Role::First);
    let is_covered_after = role_of(records, end) == Some(Role::Second);
    let covered = u64::from(is_covered_before) + u64::from(is_covered_after);
    let uncovered = (end - start).saturating_sub(covered);
    // What the next record says: none of the last ones before it is critical.
    let single_from = gap.single_from.clamp(start, end);
    let unknown = (single_from - start).saturating_sub(u64::from(is_covered_before));
    let is_pair_lost = match gap.header.map(|header| header.role) {
        Some(Role::First) => !is_covered_after,
        Some(Role::Second) => !is_covered_before,
        Some(Role::Alone) => true,
        Some(Role::Single | Role::Mark) => false,
        None => unknown >= 2,
    };
    if !is_pair_lost && gap.header.is_none() && uncovered >= 2 {
        probe!("wal.lost_records_are_no_votes");
    }
    match uncovered {
        _ if is_pair_lost => Loss::Critical,
        0 => Loss::Nothing,
        _ => Loss::Records,
    }
}

fn role_of(records: &[Recovered], sequence: Sequence) -> Option<Role> {
    let position = records.binary_search_by_key(&sequence, |record| record.sequence).ok()?;
    records.get(position).map(|record| record.role)
}

/// Where a recovered log goes on.
pub(super) struct Settled<F> {
    /// The segment that is written next.
    pub(super) file: F,
    /// Its records so far, and where in it the next one goes.
    pub(super) open: Chunk,
}

/// Makes sure that what recovery found is what any later recovery finds.
///
/// Either the log ends cleanly and everything in it is known to be durable: then its last segment
/// is continued. Or a new segment takes over, see "Starting again" in the [module essay](super).
pub(super) async fn settle<D: Disk>(
    disk: &D,
    dir: &str,
    options: &Options,
    log: &mut Log,
    recovery: &Recovery,
) -> Result<Settled<D::File>, StorageError> {
    if !is_clean(log, recovery) {
        return take_over(disk, dir, options, log, recovery).await;
    }
    if log.has_spare {
        disk.remove(&segment::spare_path(dir)).await?;
    }
    let segment = log.segments.last().map_or(1, |segment| segment.first);
    let file = disk.open(&segment::path(dir, segment)).await?;
    // The evidence may be a mark that is in the page cache only. A power loss would take it, and
    // what is known to be rot now would look like an unfinished write then.
    file.sync().await.map_err(segment::never_retry)?;
    let last = recovery.next.saturating_sub(1);
    let mut open = Chunk::resume(segment, to_u64(log.last.tail.start), log.last.file_bytes, last);
    if let Some(segment) = log.segments.last() {
        open.tag_max = segment.tag_max;
        open.critical = segment.critical;
    }
    Ok(Settled { file, open })
}

fn is_clean(log: &Log, recovery: &Recovery) -> bool {
    log.last.is_header_current
        && !log.last.tail.dirty
        && recovery.torn.is_none()
        && recovery.next <= log.evidence + 1
        && log.last.tail.start.is_multiple_of(SECTOR_BYTES)
}

/// Starts the segment of all records that are not known to be durable, and of what comes next.
async fn take_over<D: Disk>(
    disk: &D,
    dir: &str,
    options: &Options,
    log: &mut Log,
    recovery: &Recovery,
) -> Result<Settled<D::File>, StorageError> {
    probe!("wal.starts_segment_at_recovery");
    let first = log.evidence + 1;
    let first_bytes = options.segment_bytes.min(segment::FIRST_SEGMENT_BYTES_MAX);
    let mut open = Chunk::begin(first, first_bytes);
    copy_unproven(&mut open, recovery, log.evidence);
    open.fresh = open.last < first;
    open.pad_to_sector();
    open.capacity = first_bytes.max(open.end());

    let mut spare = Spare::create(disk, dir, open.capacity, false).await?;
    while !spare.is_ready() {
        spare.fill_step(segment::FILL_STEP_BYTES_MAX).await?;
    }
    let file = spare.into_file();
    file.write_at(0, &open.bytes).await?;
    file.sync().await.map_err(segment::never_retry)?;
    disk.rename(&segment::spare_path(dir), &segment::path(dir, first)).await?;

    open.advance();
    log.segments.retain(|segment| segment.first < first);
    log.segments.push(Segment {
        first,
        used_bytes: open.end(),
        tag_max: open.tag_max,
        critical: open.critical,
        preamble_last: None,
    });
    Ok(Settled { file, open })
}

/// Encodes again what follows `proven`, and a mark that all of it is durable once the file is.
fn copy_unproven(open: &mut Chunk, recovery: &Recovery, proven: Sequence) {
    let start = recovery.records.partition_point(|record| record.sequence <= proven);
    let last = recovery.next.saturating_sub(1);
    for record in recovery.records.get(start..).unwrap_or_default() {
        let fields = Fields {
            kind: record.kind,
            role: record.role,
            sequence: record.sequence,
            tag: record.tag,
            durable: proven,
        };
        open.push(fields, &record.payload);
    }
    // What it is a witness of must not go bad together with it.
    open.move_apart();
    let mark = Fields { kind: 0, role: Role::Mark, sequence: last, tag: 0, durable: last };
    open.push(mark, &[]);
}
