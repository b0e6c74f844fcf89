//! The header of a record: 40 bytes that say what follows, and where they belong.
//!
//! # Layout
//! ```text
//!  0            4             8             12     13     14    16         24    32        40
//!  ┌────────────┬─────────────┬─────────────┬──────┬──────┬─────┬──────────┬─────┬─────────┐
//!  │ header crc │ payload crc │ payload len │ kind │ role │ run │ sequence │ tag │ durable │
//!  │ u32        │ u32         │ u32         │ u8   │ u8   │ u16 │ u64      │ u64 │ u64     │
//!  └────────────┴─────────────┴─────────────┴──────┴──────┴─────┴──────────┴─────┴─────────┘
//!  followed by the payload, and zeros up to the next multiple of 8
//!
//!  header crc  = CRC-32 of (first sequence of the segment, offset in it, bytes 4..40)
//!  payload crc = CRC-32 of the payload and its zeros
//!  run         = so many records right before it, and perhaps more, are written once; in a second
//!                copy: before the first one
//! ```
//! All numbers are little-endian. Two checksums, not one: rot in a payload then leaves its header
//! readable, so that exactly one record is lost and the log knows which; and the search for the
//! next record after a damaged header costs 52 bytes of checksum per place, not a payload.
//!
//! The position is part of the header's checksum. A record that the disk wrote to the wrong place,
//! or that is left from an earlier use of the place, is thus no record. (D12 of the fault model:
//! a valid checksum at the wrong place is corruption.)

use bytes::{Buf, BufMut};

use super::Sequence;
use crate::base::checksum;

/// Bytes of the header's own checksum.
const CRC_BYTES: usize = 4;

/// Bytes of a record before its payload.
pub(super) const HEADER_BYTES: usize = 40;

/// Records start at multiples of this, so a search has eight times fewer places to try.
pub(super) const RECORD_ALIGN: usize = 8;

/// Fewest non-zero bytes of a real header: its checksums alone have as many, nearly always. Fewer
/// in an otherwise empty place are flipped bits of unused space, not a record that was lost.
const HEADER_NONZERO_MIN: usize = 4;

/// Where in the log a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// First sequence of its segment.
    pub(super) segment: Sequence,
    /// Offset in the segment's file.
    pub(super) offset: u64,
}

/// What a record is to the log itself; its kind and tag are the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A record that is written once.
    Single,
    /// The first copy of a critical record; the second has the next sequence.
    First,
    /// The second copy of a critical record.
    Second,
    /// The first copy of a critical record whose second copy was never finished.
    Alone,
    /// No record: only tells what is durable. Bears the sequence of the record before it.
    Mark,
}

impl Role {
    /// Tells whether the record is one that a later preamble must repeat before it may go.
    pub(super) const fn is_critical(self) -> bool {
        matches!(self, Self::First | Self::Second | Self::Alone)
    }

    const fn to_byte(self) -> u8 {
        match self {
            Self::Single => 0,
            Self::First => 1,
            Self::Second => 2,
            Self::Alone => 3,
            Self::Mark => 4,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Single),
            1 => Some(Self::First),
            2 => Some(Self::Second),
            3 => Some(Self::Alone),
            4 => Some(Self::Mark),
            _ => None,
        }
    }
}

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Length of the payload in bytes, without its zeros.
    pub(super) payload_bytes: u32,
    /// Checksum of the payload and its zeros.
    pub(super) payload_crc: u32,
    /// The caller's kind.
    pub(super) kind: u8,
    /// What it is to the log.
    pub(super) role: Role,
    /// At least so many records right before it are [`Role::Single`]; of a second copy, right
    /// before the first. If a sector takes several records with it, the next one tells by this
    /// that no critical one was among them.
    pub(super) run: u16,
    /// Its number in the log.
    pub(super) sequence: Sequence,
    /// The caller's tag.
    pub(super) tag: u64,
    /// Everything up to this sequence was durable when the record was encoded.
    pub(super) durable: Sequence,
}

impl Header {
    /// Returns the bytes of the header, for a record at `place`.
    pub(super) fn encode(&self, place: Place) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let (crc, body) = bytes.split_at_mut(CRC_BYTES);
        let mut fields = &mut *body;
        fields.put_u32_le(self.payload_crc);
        fields.put_u32_le(self.payload_bytes);
        fields.put_u8(self.kind);
        fields.put_u8(self.role.to_byte());
        fields.put_u16_le(self.run);
        fields.put_u64_le(self.sequence);
        fields.put_u64_le(self.tag);
        fields.put_u64_le(self.durable);
        assert!(fields.is_empty(), "header has {} bytes too many", fields.len());
        crc.copy_from_slice(&header_crc(place, body).to_le_bytes());
        bytes
    }

    /// Returns the header that `bytes` begin with, if one was written for `place`.
    pub(super) fn decode(bytes: &[u8], place: Place) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let (mut crc, body) = bytes.split_at(CRC_BYTES);
        let mut fields = body;
        let header = Self {
            payload_crc: fields.get_u32_le(),
            payload_bytes: fields.get_u32_le(),
            kind: fields.get_u8(),
            role: Role::from_byte(fields.get_u8())?,
            run: fields.get_u16_le(),
            sequence: fields.get_u64_le(),
            tag: fields.get_u64_le(),
            durable: fields.get_u64_le(),
        };
        (crc.get_u32_le() == header_crc(place, body)).then_some(header)
    }

    /// Returns from where on the sequences before `until`, which is this record's or that after a
    /// mark, are known to be of records that are written once, or its own first copy.
    pub(super) fn single_from(&self, until: Sequence) -> Sequence {
        let first_copy = u64::from(self.role == Role::Second);
        until.saturating_sub(first_copy + u64::from(self.run))
    }

    /// Returns the length of the whole record in bytes, a multiple of [`RECORD_ALIGN`].
    pub(super) fn record_bytes(&self) -> usize {
        let payload = usize::try_from(self.payload_bytes).unwrap_or(usize::MAX);
        HEADER_BYTES.saturating_add(payload).next_multiple_of(RECORD_ALIGN)
    }
}

/// Tells whether `bytes` may be a damaged header rather than unused space with a flipped bit.
pub(super) fn resembles_header(bytes: &[u8]) -> bool {
    let header = bytes.get(..HEADER_BYTES).unwrap_or(bytes);
    header.iter().filter(|&&byte| byte != 0).count() >= HEADER_NONZERO_MIN
}

fn header_crc(place: Place, body: &[u8]) -> u32 {
    let mut position = [0; 16];
    let mut fields = &mut position[..];
    fields.put_u64_le(place.segment);
    fields.put_u64_le(place.offset);
    checksum::crc32_extend(checksum::crc32(&position), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { segment: 7, offset: 1024 };

    fn header() -> Header {
        Header {
            payload_bytes: 13,
            payload_crc: 99,
            kind: 5,
            role: Role::Second,
            run: 300,
            sequence: 11,
            tag: 1 << 40,
            durable: 9,
        }
    }

    #[test]
    fn header_round_trips_at_its_place() {
        assert_eq!(Header::decode(&header().encode(PLACE), PLACE), Some(header()));
        assert_eq!(header().record_bytes(), 56);
    }

    #[test]
    fn header_at_another_place_is_refused() {
        let bytes = header().encode(PLACE);
        assert_eq!(Header::decode(&bytes, Place { offset: 512, ..PLACE }), None);
        assert_eq!(Header::decode(&bytes, Place { segment: 8, ..PLACE }), None);
    }

    #[test]
    fn header_with_any_flipped_bit_is_refused() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = header().encode(PLACE);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes, PLACE), None, "bit {bit}");
        }
    }

    #[test]
    fn one_flipped_bit_of_empty_space_does_not_resemble_a_header() {
        let mut bytes = [0; HEADER_BYTES];
        bytes[17] = 4;
        assert!(!resembles_header(&bytes));
        assert!(resembles_header(&header().encode(PLACE)));
    }
}
