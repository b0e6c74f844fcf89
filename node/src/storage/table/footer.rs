//! The end of a table: the meta-frame and the tail. See the [module](super) for their bytes.

use super::{FORMAT, TableMeta, frame};
use crate::base::checksum::crc32;

/// Last bytes of a table begin with this.
const MAGIC: [u8; 8] = *b"MGRVTABL";

/// Bytes of the tail.
pub(super) const TAIL_BYTES: usize = 44;

/// Bytes of a meta body besides the two places.
const META_BYTES: usize = 76;

/// Where the parts of a table begin, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sections {
    /// The filter; before it are the cells.
    pub(super) bloom: u64,
    /// The index.
    pub(super) index: u64,
    /// The meta-frame, which goes up to the tail.
    pub(super) meta: u64,
}

/// Returns the bytes of the table that has so much before its meta-frame.
pub(super) fn file_bytes(meta_offset: u64, meta: &TableMeta) -> u64 {
    let places = to_u64(meta.first.len()) + to_u64(meta.last.len());
    meta_offset + to_u64(frame::HEADER_BYTES + META_BYTES + TAIL_BYTES) + places
}

/// Returns the body of a meta-frame.
pub(super) fn encode_meta(meta: &TableMeta, sections: &Sections) -> Vec<u8> {
    let fields = [
        meta.number,
        meta.bytes,
        meta.cell_count,
        meta.tombstone_count,
        meta.row_tombstone_count,
        meta.version_min,
        meta.version_max,
        sections.bloom,
        sections.index,
    ];
    let mut body = Vec::with_capacity(META_BYTES + meta.first.len() + meta.last.len());
    body.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    let first_bytes = u32::try_from(meta.first.len()).unwrap_or(u32::MAX);
    body.extend_from_slice(&first_bytes.to_le_bytes());
    body.extend_from_slice(&meta.first);
    body.extend_from_slice(&meta.last);
    body
}

/// Reads the body of the meta-frame at `meta_offset`; `None` if it is none.
pub(super) fn decode_meta(body: &[u8], meta_offset: u64) -> Option<(TableMeta, Sections)> {
    let (fields, rest) = body.split_first_chunk::<72>()?;
    let (first_bytes, places) = rest.split_first_chunk::<4>()?;
    let first_bytes = usize::try_from(u32::from_le_bytes(*first_bytes)).ok()?;
    let (first, last) = places.split_at_checked(first_bytes)?;
    let (fields, _) = fields.as_chunks::<8>();
    let mut fields = fields.iter().copied().map(u64::from_le_bytes);
    let meta = TableMeta {
        number: fields.next()?,
        bytes: fields.next()?,
        cell_count: fields.next()?,
        tombstone_count: fields.next()?,
        row_tombstone_count: fields.next()?,
        version_min: fields.next()?,
        version_max: fields.next()?,
        first: first.to_vec(),
        last: last.to_vec(),
    };
    let sections = Sections { bloom: fields.next()?, index: fields.next()?, meta: meta_offset };
    let in_order = sections.bloom <= sections.index && sections.index <= sections.meta;
    in_order.then_some((meta, sections))
}

/// The last bytes of a table, from which it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// The format of everything before.
    pub(super) format: u32,
    /// Bytes of the meta-frame.
    pub(super) meta_bytes: u32,
    /// Where the meta-frame is.
    pub(super) meta_offset: u64,
    /// Number of the table.
    pub(super) number: u64,
    /// Length of the file.
    pub(super) bytes: u64,
}

impl Tail {
    /// Makes the tail of a table.
    pub(super) fn new(meta: &TableMeta, meta_bytes: u32, meta_offset: u64) -> Self {
        Self { format: FORMAT, meta_bytes, meta_offset, number: meta.number, bytes: meta.bytes }
    }

    /// Returns the bytes of the tail.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TAIL_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.format.to_le_bytes());
        bytes.extend_from_slice(&self.meta_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.meta_offset.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&crc32(&bytes).to_le_bytes());
        bytes
    }

    /// Reads the tail; `None` if the bytes are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, crc) = bytes.split_last_chunk::<4>()?;
        if crc32(fields) != u32::from_le_bytes(*crc) {
            return None;
        }
        let rest = fields.strip_prefix(&MAGIC)?;
        let (format, rest) = rest.split_first_chunk::<4>()?;
        let (meta_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (meta_offset, rest) = rest.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let bytes: &[u8; 8] = rest.try_into().ok()?;
        Some(Self {
            format: u32::from_le_bytes(*format),
            meta_bytes: u32::from_le_bytes(*meta_bytes),
            meta_offset: u64::from_le_bytes(*meta_offset),
            number: u64::from_le_bytes(*number),
            bytes: u64::from_le_bytes(*bytes),
        })
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
