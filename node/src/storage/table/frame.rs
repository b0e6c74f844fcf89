//! Frames: the form in which every part of a table lies in its file.
//!
//! A frame carries a checksum over its header and its packed body, and says for which table and
//! which offset it was written. See the [module](super) for its bytes.

use bytes::Bytes;
use lz4_flex::block::{self, CompressTable};

use super::Compression;
use crate::base::checksum::{crc32, crc32_extend};
use crate::{planted, probe};

/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 32;

/// First bytes of a frame.
pub(super) const MAGIC: [u8; 2] = *b"MT";

/// A byte of LZ4 stands for at most so many bytes of a body.
const EXPANSION_MAX: usize = 256;

/// Most bodies that are not even tried after some in a row could not be packed: noise follows
/// noise, and trying costs as much as building the block.
const SKIPPED_MAX: u32 = 15;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Cells,
    Bloom,
    Index,
    Meta,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Cells => 1,
            Self::Bloom => 2,
            Self::Index => 3,
            Self::Meta => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        let kinds = [Self::Cells, Self::Bloom, Self::Index, Self::Meta];
        kinds.into_iter().find(|kind| kind.code() == code)
    }
}

/// Where a frame belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Home {
    /// Number of the table.
    pub(super) number: u64,
    /// Offset in the file.
    pub(super) offset: u64,
}

/// Packs and seals frames, with buffers that are used again.
pub(super) struct Sealer {
    compression: Compression,
    table: CompressTable,
    packed: Vec<u8>,
    /// Bodies that are still left as they are, because those before could not be packed.
    skip_count: u32,
    /// How many bodies were skipped after the last one that could not be packed.
    skipped_last: u32,
}

impl Sealer {
    pub(super) fn new(compression: Compression) -> Self {
        let (table, packed) = (CompressTable::default(), Vec::new());
        Self { compression, table, packed, skip_count: 0, skipped_last: 0 }
    }

    /// Appends a frame with `body` to `bytes`; returns how long it is.
    pub(super) fn seal(&mut self, kind: Kind, home: Home, body: &[u8], bytes: &mut Vec<u8>) -> u32 {
        let (packing, packed) = match self.pack(body) {
            Some(packed) => (1, packed),
            None => (0, body),
        };
        let start = [MAGIC[0], MAGIC[1], kind.code(), packing];
        let [n0, n1, n2, n3, n4, n5, n6, n7] = home.number.to_le_bytes();
        let [o0, o1, o2, o3, o4, o5, o6, o7] = home.offset.to_le_bytes();
        let [p0, p1, p2, p3] = len_u32(packed.len()).to_le_bytes();
        let [b0, b1, b2, b3] = len_u32(body.len()).to_le_bytes();
        let rest = [
            n0, n1, n2, n3, n4, n5, n6, n7, o0, o1, o2, o3, o4, o5, o6, o7, p0, p1, p2, p3, b0, b1,
            b2, b3,
        ];
        bytes.extend_from_slice(&start);
        bytes.extend_from_slice(&checksum(&start, &rest, packed).to_le_bytes());
        bytes.extend_from_slice(&rest);
        bytes.extend_from_slice(packed);
        len_u32(HEADER_BYTES + packed.len())
    }

    /// Returns the body packed, if that is wanted and worth it.
    fn pack(&mut self, body: &[u8]) -> Option<&[u8]> {
        if self.compression == Compression::None {
            return None;
        }
        if let Some(left) = self.skip_count.checked_sub(1) {
            self.skip_count = left;
            return None;
        }
        let packed_max = block::get_maximum_output_size(body.len());
        if self.packed.len() < packed_max {
            self.packed.resize(packed_max, 0);
        }
        let len = block::compress_into_with_table(body, &mut self.packed, &mut self.table).ok()?;
        if len > body.len() - body.len() / 8 {
            self.skipped_last = (2 * self.skipped_last + 1).min(SKIPPED_MAX);
            self.skip_count = self.skipped_last;
            return None;
        }
        self.skipped_last = 0;
        self.packed.get(..len)
    }
}

fn checksum(start: &[u8], rest: &[u8], packed: &[u8]) -> u32 {
    crc32_extend(crc32_extend(crc32(start), rest), packed)
}

fn len_u32(len: usize) -> u32 {
    let short = u32::try_from(len).unwrap_or(u32::MAX);
    assert!(short < u32::MAX, "a frame of {len} bytes");
    short
}

/// Verifies a frame that was read from `home`, and returns its body.
///
/// # Errors
/// What is wrong with it.
pub(super) fn open(kind: Kind, home: Home, frame: &Bytes) -> Result<Bytes, String> {
    let short = || format!("a frame of {} bytes", frame.len());
    let (header, packed) = frame.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
    let (start, rest) = header.split_first_chunk::<4>().ok_or_else(short)?;
    let (crc, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let computed = checksum(start, rest, packed);
    let stored = u32::from_le_bytes(*crc);
    if computed != stored && !planted!("F7") {
        return Err(format!("checksum {computed:08x} instead of {stored:08x}"));
    }
    let (found, body_bytes) = described(rest, packed.len()).ok_or("a length that is none")?;
    if found != home {
        probe!("table.finds_frame_of_elsewhere");
        let Home { number, offset } = found;
        return Err(format!("what table {number} has at byte {offset}"));
    }
    let [m0, m1, code, packing] = *start;
    if [m0, m1] != MAGIC || code != kind.code() {
        return Err(format!("a frame of kind {code} instead of {kind:?}"));
    }
    match packing {
        0 if body_bytes == packed.len() => Ok(frame.slice(HEADER_BYTES..)),
        1 => unpack(packed, body_bytes),
        _ => Err(format!("a body of {body_bytes} bytes in packing {packing}")),
    }
}

/// Returns the kind and the length of the frame that begins with `header`, if that is the header
/// of a frame of `home`. Nothing of it is verified.
pub(super) fn peek(home: Home, header: &[u8]) -> Option<(Kind, u64)> {
    let (start, rest) = header.split_first_chunk::<4>()?;
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let (_, lens) = rest.split_at_checked(16)?;
    let packed_bytes = u32::from_le_bytes(*lens.first_chunk::<4>()?);
    let (found, _) = described(rest, usize::try_from(packed_bytes).ok()?)?;
    let [m0, m1, code, _] = *start;
    let kind = Kind::from_code(code).filter(|_| [m0, m1] == MAGIC && found == home)?;
    Some((kind, u64::try_from(HEADER_BYTES).ok()? + u64::from(packed_bytes)))
}

/// Reads the header's numbers; `None` if the packed body is not as long as it says.
fn described(rest: &[u8], packed_bytes: usize) -> Option<(Home, usize)> {
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (packed, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.first_chunk::<4>()?;
    let home = Home { number: u64::from_le_bytes(*number), offset: u64::from_le_bytes(*offset) };
    let packed = usize::try_from(u32::from_le_bytes(*packed)).ok()?;
    let body = usize::try_from(u32::from_le_bytes(*body)).ok()?;
    (packed == packed_bytes).then_some((home, body))
}

fn unpack(packed: &[u8], body_bytes: usize) -> Result<Bytes, String> {
    if body_bytes > packed.len().saturating_mul(EXPANSION_MAX) && !planted!("F9") {
        return Err(format!("{body_bytes} bytes packed into {}", packed.len()));
    }
    let mut body = vec![0; body_bytes];
    let len = block::decompress_into(packed, &mut body).map_err(|error| error.to_string())?;
    if len != body_bytes {
        return Err(format!("{len} bytes where {body_bytes} were packed"));
    }
    Ok(Bytes::from(body))
}
