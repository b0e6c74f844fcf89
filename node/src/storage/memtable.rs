//! The newest value of every place, sorted, in memory.
//!
//! A B-tree of [`PackedCell`]s, each of which is one allocation for version, place and value: a
//! million cells of 16 B key and 100 B value take 164 MB, against 196 MB with place and value
//! apart, at the same speed (1.3 M random puts a second on one core). All bytes are copied in, so
//! that no cell keeps the large buffer alive that it came in.
//!
//! # Layout
//! Of a cell, in memory and in a checkpoint file alike:
//! ```text
//! ┌────────────────┬──────────────────┬───────┬───────┐
//! │ version u64 LE │ place_len u32 LE │ place │ value │
//! └────────────────┴──────────────────┴───────┴───────┘
//! ```

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;

/// Bytes of a cell besides its place and its value.
pub const CELL_HEADER_BYTES: usize = 12;

/// A place with its value and version, in one allocation; compared by its place alone.
pub struct PackedCell(Box<[u8]>);

impl PackedCell {
    /// Copies place and value into a cell.
    pub fn new(place: &[u8], value: &[u8], version: u64) -> Self {
        let place_len = u32::try_from(place.len()).unwrap_or(u32::MAX);
        assert!(place_len < u32::MAX, "place of {} bytes", place.len());
        let mut bytes = Vec::with_capacity(CELL_HEADER_BYTES + place.len() + value.len());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&place_len.to_le_bytes());
        bytes.extend_from_slice(place);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    /// Copies a cell out of its encoding; `None` if the bytes are not one.
    pub fn from_encoded(bytes: &[u8]) -> Option<Self> {
        let (_, place_len, rest) = split(bytes)?;
        (place_len <= rest.len()).then(|| Self(bytes.into()))
    }

    /// Returns the encoding of the cell.
    pub fn as_encoded(&self) -> &[u8] {
        &self.0
    }

    /// Returns its place.
    pub fn place(&self) -> &[u8] {
        let (_, place_len, rest) = split(&self.0).unwrap_or_default();
        rest.get(..place_len).unwrap_or_default()
    }

    /// Returns its value.
    pub fn value(&self) -> &[u8] {
        let (_, place_len, rest) = split(&self.0).unwrap_or_default();
        rest.get(place_len..).unwrap_or_default()
    }

    /// Returns the log index of the write that made it.
    pub fn version(&self) -> u64 {
        let (version, ..) = split(&self.0).unwrap_or_default();
        version
    }
}

/// Takes the header off: version, length of the place, place and value. Both constructors see to
/// it that this works for every cell.
fn split(bytes: &[u8]) -> Option<(u64, usize, &[u8])> {
    let (version, rest) = bytes.split_first_chunk::<8>()?;
    let (place_len, rest) = rest.split_first_chunk::<4>()?;
    let place_len = usize::try_from(u32::from_le_bytes(*place_len)).ok()?;
    Some((u64::from_le_bytes(*version), place_len, rest))
}

impl Borrow<[u8]> for PackedCell {
    fn borrow(&self) -> &[u8] {
        self.place()
    }
}

impl PartialEq for PackedCell {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for PackedCell {}

impl PartialOrd for PackedCell {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PackedCell {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(other.place())
    }
}

impl fmt::Debug for PackedCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}={}B", self.place(), self.version(), self.value().len())
    }
}

/// Cells sorted by place, at most one at each; see the [module](self).
#[derive(Debug, Default)]
pub struct Memtable {
    cells: BTreeSet<PackedCell>,
}

impl Memtable {
    /// Returns the cell at `place`.
    pub fn get(&self, place: &[u8]) -> Option<&PackedCell> {
        self.cells.get(place)
    }

    /// Puts a cell at its place; returns the one that was there.
    pub fn put(&mut self, cell: PackedCell) -> Option<PackedCell> {
        self.cells.replace(cell)
    }

    /// Removes and returns the cell at `place`.
    pub fn remove(&mut self, place: &[u8]) -> Option<PackedCell> {
        self.cells.take(place)
    }

    /// Returns the first cell.
    pub fn first(&self) -> Option<&PackedCell> {
        self.cells.first()
    }

    /// Removes and returns the first cell.
    pub fn take_first(&mut self) -> Option<PackedCell> {
        self.cells.pop_first()
    }

    /// Returns the cells between two bounds in order; none if the bounds are crossed.
    pub fn range<'a>(
        &'a self,
        start: Bound<&[u8]>,
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = &'a PackedCell> + use<'a> {
        let crossed = match (start, end) {
            (Bound::Included(start) | Bound::Excluded(start), Some(end)) => start >= end,
            (Bound::Unbounded, _) | (_, None) => false,
        };
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let cells = (!crossed).then(|| self.cells.range::<[u8], _>((start, end)));
        cells.into_iter().flatten()
    }

    /// Returns how many cells there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Tells whether there are no cells.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}
