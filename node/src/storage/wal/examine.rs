//! Reads a whole log and lists its records and gaps, without judging and without writing.

use std::ops::Range;

use bytes::Bytes;

use super::record::{Header, Role};
use super::scan::{Broken, Found, Item, Tail, scan};
use super::segment::{self, HeaderState, RECORDS_START, SPARE_NAME, to_u64};
use super::{Recovered, Sequence, StorageError};
use crate::env::Disk;

/// Sequences that are given up where a damaged record ends the log: how many there were cannot be
/// known. Two, so that the damage counts as one that may have hit both copies of a record.
const UNKNOWN_LOST_COUNT: u64 = 2;

/// What one segment is known to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its first sequence.
    pub(super) first: Sequence,
    /// Bytes used.
    pub(super) used_bytes: u64,
    /// Upper bound of the tags in it, lost records included.
    pub(super) tag_max: u64,
    /// Whether it has critical records.
    pub(super) critical: bool,
    /// Last sequence of its preamble; `None` if it has none, or that is not known.
    pub(super) preamble_last: Option<Sequence>,
}

/// Sequences that should be in the log and are not, or bytes that should be zero and are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    /// Which segment, counted from the oldest.
    pub(super) segment: usize,
    /// Where in it.
    pub(super) offset: u64,
    /// The sequences; may be empty.
    pub(super) missing: Range<Sequence>,
    /// From here on, they are known to be of records that are written once, or a first copy whose
    /// second is there.
    pub(super) single_from: Sequence,
    /// The header of the one record that is missing, if only its payload is broken.
    pub(super) header: Option<Header>,
    /// Whether the first missing record looks as if a sector of it had never been written.
    pub(super) unwritten: bool,
    /// Whether any sector of the gap looks so.
    pub(super) hole: bool,
    /// What is wrong.
    pub(super) what: &'static str,
}

/// A log as it lies on the disk.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The segments, oldest first.
    pub(super) segments: Vec<Segment>,
    /// Every intact record.
    pub(super) records: Vec<Recovered>,
    /// Everything that is wrong, in the order of the log.
    pub(super) gaps: Vec<Gap>,
    /// Everything up to this sequence was durable once: a record or a file name says so.
    pub(super) evidence: Sequence,
    /// The sequence after the last one that is accounted for.
    pub(super) next: Sequence,
    /// The last segment, as far as it matters for going on behind it.
    pub(super) last: Last,
    /// Whether an unfinished next segment lies about.
    pub(super) has_spare: bool,
    /// Names that mean nothing to the log.
    pub(super) unknown_files: Vec<String>,
    tag_max: u64,
}

/// The last segment of a log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Last {
    /// Whether its first sector is as this version of the program writes it.
    pub(super) is_header_current: bool,
    /// What follows its last record.
    pub(super) tail: Tail,
    /// Length of the file.
    pub(super) file_bytes: u64,
}

/// Reads all segments of the log in `dir`.
pub(super) async fn examine<D: Disk>(disk: &D, dir: &str) -> Result<Log, StorageError> {
    let mut log = Log { next: 1, ..Log::default() };
    let mut firsts = Vec::new();
    for name in disk.list(dir).await? {
        match segment::parse_name(&name) {
            Some(first) => firsts.push(first),
            None if name == SPARE_NAME => log.has_spare = true,
            None => log.unknown_files.push(name),
        }
    }
    firsts.sort_unstable();
    log.next = firsts.first().copied().unwrap_or(1);
    for (position, &first) in firsts.iter().enumerate() {
        let path = segment::path(dir, first);
        let bytes = segment::read(&disk.open(&path).await?)?;
        let header = segment::check_header(&path, first, &bytes)?;
        log.add_segment(first, firsts.get(position + 1).copied(), header, bytes);
    }
    Ok(log)
}

impl Log {
    fn add_segment(
        &mut self,
        first: Sequence,
        limit: Option<Sequence>,
        header: HeaderState,
        mut bytes: Vec<u8>,
    ) {
        assert!(self.next == first, "segment {first:x} follows on {:x}", self.next);
        let scan = scan(first, limit, &bytes);
        self.last = Last {
            is_header_current: header == HeaderState::Valid,
            tail: scan.tail,
            file_bytes: to_u64(bytes.len()),
        };
        // The name is evidence: a segment gets it only once all before it is durable.
        self.evidence = first.saturating_sub(1);
        let used_bytes = to_u64(scan.tail.start);
        self.segments.push(Segment {
            first,
            used_bytes,
            tag_max: 0,
            critical: false,
            preamble_last: None,
        });
        if header == HeaderState::Damaged || (header == HeaderState::Blank && limit.is_some()) {
            self.push_gap(0, first, None, "the segment's header is damaged");
        }
        bytes.truncate(scan.tail.start);
        bytes.shrink_to_fit();
        self.add_items(scan.items, &Bytes::from(bytes));
        if let Some(limit) = limit.filter(|&limit| limit > self.next) {
            self.push_gap(used_bytes, limit, None, "the end of the segment is missing");
        }
        if limit.is_none() && self.last.file_bytes < RECORDS_START {
            self.add_cut_off();
        }
        if scan.tail.dirty {
            self.add_dirty_tail(scan.tail);
        }
    }

    /// Accounts for the records of a last segment that is shorter than its header.
    ///
    /// It had all of its zeros, durably, before it had its name, so no crash leaves it like that.
    /// How many records it had cannot be known.
    fn add_cut_off(&mut self) {
        let until = self.next + UNKNOWN_LOST_COUNT;
        self.push_gap(0, until, None, "the segment is cut off");
        // There is no unfinished write to take it for.
        self.evidence = until.saturating_sub(1);
    }

    fn add_items(&mut self, items: Vec<Item>, bytes: &Bytes) {
        let mut before = None;
        for item in items {
            match item {
                Item::Record(found) => {
                    // A mark repeats the sequence of the record before it.
                    let is_mark = u64::from(found.header.role == Role::Mark);
                    let until = found.header.sequence + is_mark;
                    let next = (found.offset, until, found.header.single_from(until));
                    self.add_missing(next, before.take());
                    self.add_record(&found, bytes);
                }
                Item::Broken(Broken { header: None, .. }) => {
                    if let Item::Broken(broken) = item {
                        before = Some(broken);
                    }
                }
                Item::Broken(broken) => {
                    if let Some(header) = broken.header {
                        let (until, start) = (header.sequence, broken.range.start);
                        self.add_missing((start, until, header.single_from(until)), before.take());
                        self.add_broken_payload(&broken, &header);
                    }
                }
            }
        }
        assert!(before.is_none(), "broken bytes {before:?} without a record after them");
    }

    /// Accounts for the sequences before `until`, which are missing at `offset`; those from
    /// `single_from` on are known to be of records that are written once.
    fn add_missing(
        &mut self,
        (offset, until, single_from): (usize, Sequence, Sequence),
        broken: Option<Broken>,
    ) {
        let gaps = self.gaps.len();
        if let Some(broken) = broken.filter(|broken| self.next < until || broken.altered) {
            let offset = to_u64(broken.range.start);
            self.push_gap(offset, until, Some(&broken), "no record where one should be");
        } else if self.next < until {
            self.push_gap(to_u64(offset), until, None, "records are missing before this one");
        }
        for gap in self.gaps.iter_mut().skip(gaps) {
            gap.single_from = single_from;
        }
    }

    fn add_broken_payload(&mut self, broken: &Broken, header: &Header) {
        let offset = to_u64(broken.range.start);
        self.note(header);
        let what = "the payload does not match its checksum";
        self.push_gap(offset, header.sequence + 1, Some(broken), what);
    }

    /// Accounts for bytes behind the last record of the log.
    fn add_dirty_tail(&mut self, tail: Tail) {
        // If nothing like a record is where the next one would begin, then what lies further on is
        // the rest of an unfinished write, or a flipped bit of unused space: nothing is missing.
        let lost_count = if tail.altered { UNKNOWN_LOST_COUNT } else { 0 };
        let broken = Broken {
            range: tail.start..tail.start,
            header: None,
            unwritten: !tail.altered,
            hole: !tail.altered,
            altered: true,
        };
        let until = self.next + lost_count;
        let what = "a damaged record ends the log";
        self.push_gap(to_u64(tail.start), until, Some(&broken), what);
    }

    fn add_record(&mut self, found: &Found, bytes: &Bytes) {
        let header = &found.header;
        self.note(header);
        self.next = header.sequence + 1;
        if header.role != Role::Mark {
            self.records.push(Recovered {
                sequence: header.sequence,
                kind: header.kind,
                tag: header.tag,
                payload: bytes.slice(found.payload.clone()),
                role: header.role,
            });
        }
    }

    /// Believes what an intact header says of the log.
    fn note(&mut self, header: &Header) {
        self.evidence = self.evidence.max(header.durable);
        self.tag_max = self.tag_max.max(header.tag);
        if let Some(segment) = self.segments.last_mut() {
            segment.tag_max = segment.tag_max.max(header.tag);
            segment.critical |= header.role.is_critical();
        }
    }

    /// Notes that everything from `next` to before `until` is missing.
    fn push_gap(
        &mut self,
        offset: u64,
        until: Sequence,
        broken: Option<&Broken>,
        what: &'static str,
    ) {
        let missing = self.next..until.max(self.next);
        // Tags grow by one per record, or go back: so high a lost one may have been.
        self.tag_max = self.tag_max.saturating_add(missing.end - missing.start);
        if let Some(segment) = self.segments.last_mut() {
            segment.tag_max = segment.tag_max.max(self.tag_max);
            segment.critical |= !missing.is_empty();
        }
        self.next = missing.end;
        self.gaps.push(Gap {
            segment: self.segments.len().saturating_sub(1),
            offset,
            single_from: missing.end,
            missing,
            header: broken.and_then(|broken| broken.header),
            unwritten: broken.is_some_and(|broken| broken.unwritten),
            hole: broken.is_some_and(|broken| broken.hole),
            what,
        });
    }
}
