//! Finds the records in the bytes of one segment, past whatever is damaged.
//!
//! Purely a function of the bytes; what the damage means is for [`super::recovery`] to say.
//!
//! A batch begins with a sector, so the record after `p` begins at `p`, or, where the rest of that
//! sector is zeros, with the next sector. If there is no valid header at either place, the search
//! goes on in steps of eight bytes to the end of the file: "zeros" are an end of the log only if
//! no record comes after them. A record that is believed must bear the checksum of its own
//! position and a sequence that can follow, so the payload of a lost record is not mistaken for
//! one.
//!
//! # Left out
//! Defence against a client that plants a forged record, for the right position and sequence, into
//! a payload and then waits for the header before it to rot. The checksum is not a secret.

use std::ops::Range;

use super::record::{HEADER_BYTES, Header, Place, RECORD_ALIGN, Role, resembles_header};
use super::segment::{RECORDS_START, SECTOR_BYTES, to_u64, to_usize};
use super::{RECORD_BYTES_MAX, SEQUENCE_MAX, Sequence};
use crate::base::checksum;
use crate::planted;

/// One thing found in a segment, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// An intact record or mark.
    Record(Found),
    /// Bytes that are none, with an intact record somewhere after them.
    Broken(Broken),
}

/// An intact record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its offset.
    pub(super) offset: usize,
    /// Its header.
    pub(super) header: Header,
    /// Where its payload is.
    pub(super) payload: Range<usize>,
}

/// A stretch that should hold records and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    /// Where it is; it begins where the first lost record would.
    pub(super) range: Range<usize>,
    /// The header of the record, if only its payload is broken.
    pub(super) header: Option<Header>,
    /// Whether the first record in it looks as if a sector of it had never been written.
    pub(super) unwritten: bool,
    /// Whether any sector of it looks so.
    pub(super) hole: bool,
    /// Whether it has any bytes but zeros.
    pub(super) altered: bool,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scan {
    /// Records and what is broken between them.
    pub(super) items: Vec<Item>,
    /// What follows the last of them; nothing in it is an intact record.
    pub(super) tail: Tail,
}

/// The rest of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tail {
    /// Where it begins.
    pub(super) start: usize,
    /// Whether it has any bytes but zeros.
    pub(super) dirty: bool,
    /// Whether it begins with what looks like a record that was written and then damaged.
    pub(super) altered: bool,
}

/// Scans a segment that begins with the sequence `first`. Sequences from `limit` on are void.
pub(super) fn scan(first: Sequence, limit: Option<Sequence>, bytes: &[u8]) -> Scan {
    let mut scanner = Scanner { first, limit, bytes, next: first };
    let mut scan = Scan::default();
    let mut at = to_usize(RECORDS_START);
    loop {
        let place = scanner.likely_start(at);
        let found = scanner.header_at(place).map(|header| (place, header));
        let (place, header) = match found.or_else(|| scanner.search(place)) {
            Some((_, header)) if limit.is_some_and(|limit| header.sequence >= limit) => break,
            Some(place_and_header) => place_and_header,
            None => break,
        };
        let follows = header.sequence + u64::from(header.role == Role::Mark) == scanner.next;
        let is_padding = follows && bytes.get(at..place).is_some_and(is_zero);
        if found.is_none() && !is_padding {
            scan.items.push(Item::Broken(scanner.broken(scanner.likely_start(at)..place, None)));
        }
        at = place + header.record_bytes();
        scan.items.push(scanner.read_record(place, header));
        scanner.next = header.sequence + 1;
    }
    scan.tail = scanner.tail(at);
    if let Some(Item::Broken(last)) = scan.items.last_mut().filter(|_| !scan.tail.dirty) {
        last.unwritten |= scanner.is_cut_payload(last);
    }
    scan
}

struct Scanner<'a> {
    first: Sequence,
    limit: Option<Sequence>,
    bytes: &'a [u8],
    next: Sequence,
}

impl Scanner<'_> {
    /// Returns where the record after `at` must begin, if there is one.
    fn likely_start(&self, at: usize) -> usize {
        let boundary = at.next_multiple_of(SECTOR_BYTES);
        match self.bytes.get(at..boundary) {
            Some(rest) if is_zero(rest) => boundary,
            _ => at,
        }
    }

    /// Returns the header at `at`, if there is one that can follow what came before.
    fn header_at(&self, at: usize) -> Option<Header> {
        let bytes = self.bytes.get(at..)?;
        let header = Header::decode(bytes, Place { segment: self.first, offset: to_u64(at) })?;
        // Nobody writes such a record, and nobody could copy it.
        let is_too_long = to_usize(u64::from(header.payload_bytes)) > RECORD_BYTES_MAX;
        if header.sequence > SEQUENCE_MAX || is_too_long {
            return None;
        }
        // A mark repeats the sequence of the record before it.
        let follows = header.sequence + u64::from(header.role == Role::Mark) >= self.next;
        // Every record before it took its place, too. The bound must not depend on the length of
        // the file: that grows, and what was not believed once must never be.
        let before = at.saturating_sub(to_usize(RECORDS_START)) / HEADER_BYTES;
        let plausible = header.sequence <= self.first.saturating_add(to_u64(before));
        (follows && plausible && header.durable <= header.sequence).then_some(header)
    }

    /// Returns the first header after `from`, and where it is.
    fn search(&self, from: usize) -> Option<(usize, Header)> {
        let mut at = from.next_multiple_of(RECORD_ALIGN);
        while at + HEADER_BYTES <= self.bytes.len() {
            if at.is_multiple_of(SECTOR_BYTES)
                && self.bytes.get(at..at + SECTOR_BYTES).is_some_and(is_zero)
            {
                at += SECTOR_BYTES;
                continue;
            }
            if let Some(header) = self.header_at(at) {
                return Some((at, header));
            }
            at += RECORD_ALIGN;
        }
        None
    }

    fn read_record(&self, offset: usize, header: Header) -> Item {
        let end = offset + header.record_bytes();
        let start = offset + HEADER_BYTES;
        let is_whole = |padded| checksum::crc32(padded) == header.payload_crc || planted!("F5");
        match self.bytes.get(start..end) {
            Some(padded) if is_whole(padded) => {
                let cut = usize::from(planted!("F6") && header.payload_bytes > 0);
                let payload_end = start + to_usize(u64::from(header.payload_bytes)) - cut;
                Item::Record(Found { offset, header, payload: start..payload_end })
            }
            _ => Item::Broken(self.broken(offset..end, Some(header))),
        }
    }

    fn broken(&self, range: Range<usize>, header: Option<Header>) -> Broken {
        let hole = self.has_unwritten_sector(&range);
        let unwritten = match header {
            Some(_) => hole,
            None => self.is_unwritten_header(range.start),
        };
        let altered = !self.bytes.get(range.clone()).is_some_and(is_zero);
        Broken { range, header, unwritten, hole, altered }
    }

    /// Tells whether a sector of the header that should be at `at` was never written.
    fn is_unwritten_header(&self, at: usize) -> bool {
        let header = at..at + HEADER_BYTES;
        let bytes = self.bytes.get(header.clone());
        self.has_unwritten_sector(&header) || !bytes.is_some_and(resembles_header)
    }

    /// Tells whether any sector that `range` touches is all zeros, or behind the end of the file.
    fn has_unwritten_sector(&self, range: &Range<usize>) -> bool {
        let start = range.start / SECTOR_BYTES * SECTOR_BYTES;
        let end = range.end.next_multiple_of(SECTOR_BYTES);
        match self.bytes.get(start..end) {
            Some(sectors) => sectors.chunks(SECTOR_BYTES).any(is_zero),
            None => true,
        }
    }

    fn tail(&self, at: usize) -> Tail {
        let start = self.likely_start(at);
        let rest = self.bytes.get(start..).unwrap_or_default();
        let dirty = self.limit.is_none() && !is_zero(rest);
        let unwritten = self.is_unwritten_header(start) || self.ends_before(start + HEADER_BYTES);
        Tail { start, dirty, altered: dirty && !unwritten }
    }

    /// Tells whether a write stopped in the middle of the payload, as a failing disk may leave it.
    fn is_cut_payload(&self, broken: &Broken) -> bool {
        let Some(header) = broken.header else { return false };
        let end = broken.range.start + HEADER_BYTES + to_usize(u64::from(header.payload_bytes));
        self.ends_before(end)
    }

    /// Tells whether the byte before `end`, and all after it, are zeros.
    fn ends_before(&self, end: usize) -> bool {
        self.bytes.get(end.saturating_sub(1)..).is_none_or(is_zero)
    }
}

/// Tells whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // Without a branch per byte the compiler compares many at once.
    bytes.chunks(SECTOR_BYTES).all(|piece| piece.iter().fold(0, |any, &byte| any | byte) == 0)
}
