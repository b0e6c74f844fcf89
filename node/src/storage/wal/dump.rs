//! A log in words, for `mangrove wal dump`. Reads only.

use super::examine::examine;
use super::record::Role;
use super::recovery::judge;
use super::scan::{Item, Scan, scan};
use super::segment::{self, HeaderState, to_u64};
use super::{Recovery, Sequence, StorageError};
use crate::env::Disk;

/// Bytes of a payload that a line shows.
const SHOWN_BYTES: usize = 16;

/// Describes the log in `dir` line by line: every segment, every record, and at the end what a
/// node that opened it would say of it.
///
/// # Errors
/// A file cannot be opened, or was written by another version of the program.
pub async fn dump<D: Disk>(
    disk: &D,
    dir: &str,
    mut line: impl FnMut(&str),
) -> Result<(), StorageError> {
    let mut log = examine(disk, dir).await?;
    let firsts: Vec<Sequence> = log.segments.iter().map(|segment| segment.first).collect();
    for (position, &first) in firsts.iter().enumerate() {
        let path = segment::path(dir, first);
        let bytes = segment::read(&disk.open(&path).await?)?;
        let header = segment::check_header(&path, first, &bytes)?;
        let limit = firsts.get(position + 1).copied();
        line(&format!("{path}  {} bytes, header {}", bytes.len(), describe(header)));
        dump_segment(&scan(first, limit, &bytes), &bytes, &mut line);
    }
    if firsts.is_empty() {
        line("no segments: the node has never run, or its log is gone");
    }
    summarize(&judge(dir, &mut log), &mut line);
    Ok(())
}

/// Returns what a node that opened the log in `dir` would find, and changes nothing.
///
/// # Errors
/// As of [`dump`].
pub async fn inspect<D: Disk>(disk: &D, dir: &str) -> Result<Recovery, StorageError> {
    let mut log = examine(disk, dir).await?;
    Ok(judge(dir, &mut log))
}

/// Where the part of a log begins of which nothing proves that it was ever durable: the file, and
/// the offset of the first such record in it. `None` if all of it has a witness.
///
/// Damage from there on looks exactly like an unfinished write; whoever plants damage has to know.
///
/// # Errors
/// As of [`dump`].
pub async fn unwitnessed<D: Disk>(
    disk: &D,
    dir: &str,
) -> Result<Option<(String, u64)>, StorageError> {
    let log = examine(disk, dir).await?;
    for (position, segment) in log.segments.iter().enumerate() {
        let limit = log.segments.get(position + 1).map(|next| next.first);
        let path = segment::path(dir, segment.first);
        let bytes = segment::read(&disk.open(&path).await?)?;
        for item in scan(segment.first, limit, &bytes).items {
            if let Item::Record(found) = item
                && found.header.sequence > log.evidence
            {
                return Ok(Some((path, to_u64(found.offset))));
            }
        }
    }
    Ok(None)
}

fn describe(header: HeaderState) -> &'static str {
    match header {
        HeaderState::Valid => "ok",
        HeaderState::Older => "ok, of an earlier version",
        HeaderState::Blank => "never written",
        HeaderState::Damaged => "BAD",
    }
}

fn dump_segment(scan: &Scan, bytes: &[u8], line: &mut impl FnMut(&str)) {
    for item in &scan.items {
        match item {
            Item::Record(found) => {
                let header = &found.header;
                let payload = bytes.get(found.payload.clone()).unwrap_or_default();
                let what = match header.role {
                    Role::Single => "record",
                    Role::First | Role::Alone => "copy 1",
                    Role::Second => "copy 2",
                    Role::Mark => "mark",
                };
                line(&format!(
                    "  {:>10}  #{:<8} {what:<6}  kind {:<3} tag {:<8} {:>7} bytes  crc ok   \
                     durable #{}  {}",
                    found.offset,
                    header.sequence,
                    header.kind,
                    header.tag,
                    payload.len(),
                    header.durable,
                    hex(payload),
                ));
            }
            Item::Broken(broken) => line(&format!(
                "  {:>10}  {} bytes  crc BAD{}{}",
                broken.range.start,
                broken.range.len(),
                broken.header.map_or(String::new(), |header| {
                    format!(
                        "  payload of #{}, kind {}, tag {}",
                        header.sequence, header.kind, header.tag
                    )
                }),
                if broken.hole { "  (has sectors that were never written)" } else { "" },
            )),
        }
    }
    let tail = scan.tail;
    let what = match (tail.dirty, tail.altered) {
        (false, _) => "end of records",
        (true, false) => "end of records; an unfinished write follows",
        (true, true) => "end of records; a damaged one follows",
    };
    line(&format!("  {:>10}  {what}", tail.start));
}

fn hex(payload: &[u8]) -> String {
    let shown = payload.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}"));
    let more = if payload.len() > SHOWN_BYTES { "…" } else { "" };
    shown.chain([more.to_owned()]).collect()
}

fn summarize(recovery: &Recovery, line: &mut impl FnMut(&str)) {
    line(&format!("{} records, the next is #{}", recovery.records.len(), recovery.next));
    match &recovery.torn {
        Some(torn) => line(&format!(
            "torn: {} from byte {}, #{} on; {} intact records after it are void",
            torn.path, torn.offset, torn.from, torn.dropped_count
        )),
        None => line("torn: nothing"),
    }
    for damage in &recovery.damage {
        line(&format!(
            "rot: {} at byte {}: {}; missing {:?}, lost {:?}{}",
            damage.path,
            damage.offset,
            damage.what,
            damage.missing,
            damage.loss,
            if damage.is_certain { "" } else { " (perhaps an unfinished write)" },
        ));
    }
    if recovery.damage.is_empty() {
        line("rot: nothing");
    }
    for name in &recovery.unknown_files {
        line(&format!("not of the log: {name}"));
    }
}
