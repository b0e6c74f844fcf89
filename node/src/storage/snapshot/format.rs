//! The bytes of a snapshot.
//!
//! # Layout
//! ```text
//! file      preamble │ cells* │ extra* │ footer            (nothing after it)
//! preamble  magic "MGRVSNAP" │ format u32 LE │ crc u32 LE
//! block     kind u8 │ len u32 LE │ crc u32 LE │ body (len bytes)
//!             cells   (place_len u32 LE │ value_len u32 LE │ version u64 LE │ place │ value)*
//!                     sorted by place
//!             extra   the bytes that were captured with the cells, in parts
//!             footer  index u64 LE │ term u64 LE │ cell_count u64 LE │ extra_bytes u64 LE
//! ```
//! A crc covers everything before it in the file, its own block's kind, length and body included,
//! other crcs left out. So one pass verifies each block as it comes, and with it that none was
//! left out, swapped, or left over from an older file at the same place. The layout of the
//! preamble is the same in every format, so that a newer file is told from a damaged one.
//!
//! The position in the log stands in the footer alone, the last thing that is written: bytes
//! without a footer stand for no state at all.
//!
//! The bytes are a function of the state alone: two nodes at the same position write the same.

use crate::base::checksum::{crc32, crc32_extend};
use crate::base::limits::SNAPSHOT_BLOCK_BYTES_MAX;
use crate::storage::{Cell, Content, SnapshotPoint};

/// First bytes of every snapshot.
pub const MAGIC: [u8; 8] = *b"MGRVSNAP";

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// Bytes of the preamble.
pub const PREAMBLE_BYTES: usize = 16;

/// Bytes of a block before its body.
pub const BLOCK_HEADER_BYTES: usize = 9;

/// Bytes of a footer's body.
const FOOTER_BYTES: usize = 32;

/// What a block carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockKind {
    /// Cells.
    Cells,
    /// A part of the extra.
    Extra,
    /// The end.
    Footer,
}

impl BlockKind {
    /// Returns the byte that stands for this kind.
    pub fn code(self) -> u8 {
        match self {
            Self::Cells => 1,
            Self::Extra => 2,
            Self::Footer => 3,
        }
    }

    /// Returns the kind that `code` stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Cells, Self::Extra, Self::Footer].into_iter().find(|kind| kind.code() == code)
    }
}

/// The body of the last block: what the file stands for, and how much must have been in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footer {
    /// The state that the file holds.
    pub point: SnapshotPoint,
    /// Cells in it.
    pub cell_count: u64,
    /// Bytes of the extra.
    pub extra_bytes: u64,
}

impl Footer {
    /// Returns the body of a footer block.
    pub fn encode(&self) -> Vec<u8> {
        let fields = [self.point.index, self.point.term, self.cell_count, self.extra_bytes];
        fields.iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    /// Reads the body of a footer block; `None` if it has another length.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let body: &[u8; FOOTER_BYTES] = body.try_into().ok()?;
        let (fields, _) = body.as_chunks::<8>();
        let mut fields = fields.iter().copied().map(u64::from_le_bytes);
        let point = SnapshotPoint { index: fields.next()?, term: fields.next()? };
        Some(Self { point, cell_count: fields.next()?, extra_bytes: fields.next()? })
    }
}

/// The checksum over all blocks so far, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain(u32);

impl Chain {
    /// Begins the chain with the preamble, and returns it.
    pub fn preamble() -> (Self, [u8; PREAMBLE_BYTES]) {
        let [m0, m1, m2, m3, m4, m5, m6, m7] = MAGIC;
        let [f0, f1, f2, f3] = FORMAT.to_le_bytes();
        let crc = crc32_extend(crc32(&MAGIC), &FORMAT.to_le_bytes());
        let [c0, c1, c2, c3] = crc.to_le_bytes();
        let preamble = [m0, m1, m2, m3, m4, m5, m6, m7, f0, f1, f2, f3, c0, c1, c2, c3];
        (Self(crc), preamble)
    }

    /// Adds a block to the chain, and returns what its crc is.
    pub fn extend(&mut self, kind: u8, body: &[u8]) -> u32 {
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let [l0, l1, l2, l3] = len;
        self.0 = crc32_extend(crc32_extend(self.0, &[kind, l0, l1, l2, l3]), body);
        self.0
    }
}

/// Writes the format, block by block.
#[derive(Debug)]
pub struct Encoder {
    chain: Chain,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { chain: Chain::preamble().0 }
    }
}

impl Encoder {
    /// Appends the beginning of a file.
    pub fn push_preamble(&self, bytes: &mut Vec<u8>) {
        let (chain, preamble) = Chain::preamble();
        assert!(self.chain == chain, "the preamble comes first, not after {:?}", self.chain);
        bytes.extend_from_slice(&preamble);
    }

    /// Appends a block.
    pub fn push_block(&mut self, kind: BlockKind, body: &[u8], bytes: &mut Vec<u8>) {
        let len = body.len();
        assert!(len <= SNAPSHOT_BLOCK_BYTES_MAX, "{kind:?} block of {len} bytes");
        let crc = self.chain.extend(kind.code(), body);
        bytes.push(kind.code());
        bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(body);
    }
}

/// The header of a block, as found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// What the block carries, if that is known.
    pub kind: u8,
    /// Bytes of its body.
    pub len: u32,
    /// Its checksum.
    pub crc: u32,
}

impl BlockHeader {
    /// Reads a block's header.
    pub fn decode(bytes: [u8; BLOCK_HEADER_BYTES]) -> Self {
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        Self { kind, len, crc: u32::from_le_bytes([c0, c1, c2, c3]) }
    }
}

/// Bytes of a cell before its place and value.
const CELL_HEADER_BYTES: usize = 16;

/// Appends a cell to the body of a cells block.
pub fn push_cell(place: &[u8], version: u64, value: &[u8], body: &mut Vec<u8>) {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    body.extend_from_slice(&len(place));
    body.extend_from_slice(&len(value));
    body.extend_from_slice(&version.to_le_bytes());
    body.extend_from_slice(place);
    body.extend_from_slice(value);
}

/// Takes a cell off the front of the body of a cells block; `None` if there is no whole cell.
pub fn take_cell<'b>(body: &mut &'b [u8]) -> Option<Cell<'b>> {
    let (header, rest) = body.split_first_chunk::<CELL_HEADER_BYTES>()?;
    let (lens, version) = header.split_last_chunk::<8>()?;
    let (place_len, value_len) = lens.split_first_chunk::<4>()?;
    let value_len: &[u8; 4] = value_len.first_chunk()?;
    let len = |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).ok();
    let (place, rest) = rest.split_at_checked(len(*place_len)?)?;
    let (value, rest) = rest.split_at_checked(len(*value_len)?)?;
    *body = rest;
    Some(Cell { place, version: u64::from_le_bytes(*version), content: Content::Value(value) })
}
