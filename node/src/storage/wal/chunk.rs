//! Records encoded for one stretch of one segment, ready to be written with a single write.
//!
//! The position of a record is part of its checksum, so the place of each record is settled when
//! it is encoded, before anything is written. The writer fills chunks, recovery fills one to copy
//! the records that it cannot prove durable.

use super::record::{HEADER_BYTES, Header, Place, RECORD_ALIGN, Role};
use super::segment::{self, SECTOR_BYTES, to_u64, to_usize};
use super::{RECORD_BYTES_MAX, Sequence};
use crate::base::checksum;

/// Capacity that an emptied buffer keeps. A rare huge batch does not hold its memory for ever.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Records for one stretch of one segment.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// First sequence of the segment.
    pub(super) segment: Sequence,
    /// Where in the segment the bytes belong; a multiple of the sector size.
    pub(super) offset: u64,
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// Size of the segment.
    pub(super) capacity: u64,
    /// The last sequence of the segment so far.
    pub(super) last: Sequence,
    /// The highest tag of the segment so far.
    pub(super) tag_max: u64,
    /// Whether the segment has critical records.
    pub(super) critical: bool,
    /// The last sequence of the preamble that the segment begins with, if it has one.
    pub(super) preamble_last: Option<Sequence>,
    /// Whether the segment has no record yet but its preamble.
    pub(super) fresh: bool,
    /// How many of the last records are written once, as far as this chunk knows; between the
    /// copies of a critical one, of those before it.
    run: u16,
}

/// What the caller and the writer say of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) kind: u8,
    pub(super) role: Role,
    pub(super) sequence: Sequence,
    pub(super) tag: u64,
    pub(super) durable: Sequence,
}

impl Chunk {
    /// Starts the segment that begins with `first`: encodes its header.
    pub(super) fn begin(first: Sequence, capacity: u64) -> Self {
        let mut bytes = Vec::new();
        segment::encode_header(first, &mut bytes);
        let last = first.saturating_sub(1);
        Self { segment: first, bytes, capacity, last, fresh: true, ..Self::default() }
    }

    /// Continues a segment behind what it has.
    pub(super) fn resume(segment: Sequence, offset: u64, capacity: u64, last: Sequence) -> Self {
        assert!(
            offset.is_multiple_of(to_u64(SECTOR_BYTES)),
            "segment {segment:x} continues at {offset}, inside of a sector"
        );
        Self { segment, offset, capacity, last, fresh: last < segment, ..Self::default() }
    }

    /// Returns the position behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.offset + to_u64(self.bytes.len())
    }

    /// Tells whether a segment's worth of bytes is exceeded.
    pub(super) fn is_over_capacity(&self) -> bool {
        self.end() > self.capacity
    }

    /// Makes room for a header; the payload is to be appended to `bytes` next.
    pub(super) fn open_record(&mut self) -> usize {
        let start = self.bytes.len();
        self.bytes.resize(start + HEADER_BYTES, 0);
        start
    }

    /// Completes the record that was opened at `start` and ends with the bytes.
    pub(super) fn close_record(&mut self, start: usize, fields: Fields) {
        let payload_start = start + HEADER_BYTES;
        let payload_bytes = self.bytes.len().saturating_sub(payload_start);
        assert!(payload_bytes <= RECORD_BYTES_MAX, "record of {payload_bytes} bytes");
        assert!(
            fields.role == Role::Mark || fields.sequence > self.last,
            "sequence {} after {}",
            fields.sequence,
            self.last
        );
        if fields.role != Role::Mark && fields.sequence > self.last + 1 {
            // A record that is copied behind a gap knows nothing of what is missing there.
            self.run = 0;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(RECORD_ALIGN), 0);
        let place = Place { segment: self.segment, offset: self.offset + to_u64(start) };
        let (head, payload) = self.bytes.split_at_mut(payload_start);
        let header = Header {
            payload_bytes: u32::try_from(payload_bytes).unwrap_or(u32::MAX),
            payload_crc: checksum::crc32(payload),
            kind: fields.kind,
            role: fields.role,
            run: self.run,
            sequence: fields.sequence,
            tag: fields.tag,
            durable: fields.durable,
        };
        if let Some(room) = head.last_chunk_mut::<HEADER_BYTES>() {
            *room = header.encode(place);
        }
        self.run = match fields.role {
            Role::Single => self.run.saturating_add(1),
            // The second copy says what the first does: a sector may take that with others.
            Role::Mark | Role::First => self.run,
            Role::Second | Role::Alone => 0,
        };
        self.last = fields.sequence;
        self.tag_max = self.tag_max.max(fields.tag);
        self.critical |= fields.role.is_critical();
    }

    /// Encodes a whole record.
    pub(super) fn push(&mut self, fields: Fields, payload: &[u8]) {
        if fields.role == Role::Second {
            self.move_apart();
        }
        let start = self.open_record();
        self.bytes.extend_from_slice(payload);
        self.close_record(start, fields);
    }

    /// Goes on where the disk does not lose it together with what was before.
    pub(super) fn move_apart(&mut self) {
        let end = self.end().next_multiple_of(segment::apart_bytes(self.capacity));
        self.bytes.resize(self.bytes.len() + to_usize(end - self.end()), 0);
    }

    /// Fills the last sector with zeros: what follows goes into a sector of its own.
    pub(super) fn pad_to_sector(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR_BYTES), 0);
    }

    /// Forgets the bytes, which are written, and goes on behind them.
    pub(super) fn advance(&mut self) {
        self.offset = self.end();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes single records with these sequences; returns what each says of those before it.
    fn runs(sequences: &[Sequence]) -> Vec<u16> {
        let mut chunk = Chunk::begin(5, 1 << 16);
        let run_of = |sequence: &Sequence| {
            let start = chunk.bytes.len();
            let (role, durable) = (Role::Single, 0);
            chunk.push(Fields { kind: 1, role, sequence: *sequence, tag: 0, durable }, &[7]);
            let place = Place { segment: 5, offset: to_u64(start) };
            Header::decode(&chunk.bytes[start..], place).map(|header| header.run)
        };
        sequences.iter().filter_map(run_of).collect()
    }

    #[test]
    fn record_behind_a_gap_says_nothing_of_what_is_missing() {
        assert_eq!(runs(&[5, 6, 7]), [0, 1, 2]);
        assert_eq!(runs(&[5, 8, 9]), [0, 0, 1], "6 and 7 may be a vote");
    }
}
